"""The page that tells what `speed.py` measured: results -> Markdown, with what is lost and what is missing."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from statistics import geometric_mean
from textwrap import wrap
from typing import Any

Row = dict[str, Any]

HEAD = """# Speed

Forward and full backward (all weights, and the inputs) of one recurrent layer, the loss being the sum of h over every
step. `python benchmarks/speed.py` measures all of it again and writes this page.

{machine}

**How.** Every system has a process of its own. Threads are limited the same way in each: in the variables that its
libraries read, in the library itself, and by the cores that the process may use. Outputs and all gradients are compared
with those of the first system in the table before anything is timed (float32 to 1e-4 of the largest entry, float64 to
1e-10); what is wrong is not timed. Then the systems take turns, A B A B, up to {rounds} rounds; runs under 20 ms are
measured several together; Python's garbage collection is off. A time is the median; `x2.0` is the median of the ratios
round by round, theirs over ours (the first of our rows that there is). **Bold** is a row that we lose. Sizes are
`B T I H`: batch, steps, inputs, hidden. float32 unless said otherwise.

**The peers.** `torch layer` is `nn.LSTM`, `nn.GRU` or `nn.RNN`. `torch loop` (eager), `JAX scan` (with jit) and `HIPS
autograd` run the steps of `benchmarks/cells.py`, written by hand once for all three, weights stacked; the products with
the inputs are taken before the loop, but in each step in `JAX scan`, which XLA often prefers to `JAX scan, hoisted`.
`NumPy by hand` is `benchmarks/handwritten.py`, forward and backward written for speed.
"""
NOTES = {
    "layers": "## The layers that vendors wrote by hand",
    "custom": "## Cells that nobody fused",
    "zoo": "## Every cell of the zoo",
    "first": """## Until the first gradient, and memory

Seconds in a new process: the imports, then from the call to the first gradient, with empty caches and once these are
filled. Memory is what the process grows by until its third gradient, imports and inputs not counted.""",
    "rate": """## How much of the machine

Operations a second in the matrix products of the work (forward, and twice as many backward), as a share of what one
large square product reaches with as many threads, through torch or NumPy, whichever is the faster one.""",
    "growth": """## Growth with the number of steps

LSTM, the gradient: time is linear in T where the time of a step stays the same. Memory is what the process grows by
once the program is compiled; beyond arrays: without the cotangent that is given and the gradients that are handed out.
`64MB` is the program with `memory="64MB"`.""",
}

CLOSE = """## Where there is little left, and why

- **Against JAX at H = 128.** The products of an LSTM at 32 100 64 128, done at the rate of one large square product,
  would take about three quarters of our time: however the rest is done, no more than a third is to be won with one
  thread. Blocks of 8 rows by two vectors, weights packed once a call, and gradients of all weights that share a side in
  one pass over it are what helped; BLAS for the rows of a step, and layers outside time, did not.
- **Small work on two threads.** Below some megabytes a second thread gains what it costs to wake it.
- **The NumPy program beside NumPy by hand.** The same calls, but for the tanh RNN: by hand its pre-activations lie
  where its states will, and a cotangent of ones is a 1 in the code. Ours reads both from arrays, returns fresh
  gradients and looks whether they are finite.
- **A budget of 64 MB.** The program's own arrays keep to it; the process grows by 1 to 2 MB more, for Python."""


def table(columns: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """A table whose columns, but for the first, are numbers."""
    columns = list(columns)
    lines = ["| " + " | ".join(columns) + " |", "|---|" + "---:|" * (len(columns) - 1)]
    return "\n".join([*lines, *("| " + " | ".join(row) + " |" for row in rows)])


def ordered(rows: Iterable[Row], name: str) -> list:
    return list(dict.fromkeys(row[name] for row in rows))


def digits(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def lost(row: Row) -> bool:
    return row.get("ratio", 1) < 1 and not row["system"].startswith("autograd_rnn")


def entry(row: Row | None) -> str:
    """`9.2 x1.1`: milliseconds, and how many times ours."""
    if row is None or "milliseconds" not in row:
        return "" if row is None else "wrong" if row["skipped"].startswith("wrong") else "-"
    told = digits(row["milliseconds"])
    if "ratio" in row and row["system"] != row["beside"]:
        told += f" x{row['ratio']:.2f}"
    return f"**{told}**" if lost(row) else told


def comparison(rows: list[Row], title: str = "cell") -> str:
    """One table for a cell and a number of threads: systems down, sizes across, milliseconds."""
    found = {(row["system"], row["sizes"]): row for row in rows}
    sizes = ordered(rows, "sizes")
    systems = [name for name in ordered(rows, "system") if any("milliseconds" in r or r["skipped"].startswith("wrong")
                                                              for r in rows if r["system"] == name)]
    return table(["ms", *sizes], ([name, *(entry(found.get((name, s))) for s in sizes)] for name in systems))


def by_cell(rows: list[Row]) -> str:
    parts = []
    for cell in ordered(rows, "cell"):
        for threads in ordered(rows, "threads"):
            chosen = [row for row in rows if (row["cell"], row["threads"]) == (cell, threads)]
            if chosen:
                parts.append(f"`{cell}`, {threads_of(threads)}\n\n{comparison(chosen)}")
    return "\n\n".join(parts)


def threads_of(count: int) -> str:
    return "one thread" if count == 1 else f"{count} threads"


def by_zoo(rows: list[Row]) -> str:
    parts = []
    for threads, sizes in dict.fromkeys((row["threads"], row["sizes"]) for row in rows):
        chosen = [row for row in rows if (row["threads"], row["sizes"]) == (threads, sizes)]
        found = {(row["cell"], row["system"]): row for row in chosen}
        systems = [name for name in ordered(chosen, "system") if any("milliseconds" in r for r in chosen
                                                                    if r["system"] == name)]
        parts.append(f"{sizes}, {threads_of(threads)}, milliseconds\n\n" + table(
            ["cell", *systems], ([cell, *(entry(found.get((cell, s))) for s in systems)]
                                 for cell in ordered(chosen, "cell"))))
    return "\n\n".join(parts)


def by_first(rows: list[Row]) -> str:
    keys = ("importing", "cold", "cached", "megabytes")
    return "\n\n".join(f"{threads_of(threads)}\n\n" + table(
        ["cell, sizes, system", "import s", "first s, cold", "first s, cached", "memory MB"],
        ([f"{row['cell']}, {row['sizes']}, {row['system']}", *(digits(row[k]) for k in keys)]
         for row in rows if row["threads"] == threads and "cached" in row)) for threads in ordered(rows, "threads"))


def by_growth(rows: list[Row]) -> str:
    return table(["system, threads", "T", "ms", "us a step", "memory MB", "beyond arrays MB"],
                 ([f"{row['system']}, {row['threads']}", f"{row['T']:,}", digits(row["milliseconds"]),
                   f"{1e3 * row['milliseconds'] / row['T']:.1f}", digits(row["megabytes"]),
                   digits(row["megabytes"] - row["handed"])]
                  for row in rows if "milliseconds" in row))


def by_rate(rates: list[Row], rows: list[Row]) -> str:
    peak: dict[tuple[int, str], float] = {}
    for row in rates:
        key = row["threads"], row["dtype"]
        peak[key] = max(peak.get(key, 0), row.get("rate", 0))
    parts = []
    for (threads, dtype), most in ((k, most) for k, most in peak.items() if most):
        found = {(row["system"], f"{row['cell']} {row['sizes']}"): row["operations"] / row["milliseconds"] * 1e3
                 for row in rows if row["section"] == "layers" and "milliseconds" in row and row["H"] >= 128
                 and (row["threads"], row["dtype"]) == (threads, dtype)}
        works = list(dict.fromkeys(work for _, work in found))
        told = {(s, w): f"{value / 1e9:.0f} ({value / most:.0%})" for (s, w), value in found.items()}
        systems = list(dict.fromkeys(system for system, _ in found))
        each = ", ".join(f"{row['rate'] / 1e9:.0f} GFLOP/s through {row['system'].split()[0]}" for row in rates
                         if (row["threads"], row["dtype"]) == (threads, dtype) and "rate" in row)
        part = f"{threads_of(threads)}, the square product in {dtype}: {each}"
        parts.append(part + "\n\n" + table(["GFLOP/s", *works], (
            [s, *(told.get((s, w), "") for w in works)] for s in systems)) if works else part)
    return "\n\n".join(parts) or "No rate was measured."


TABLES: dict[str, Callable[[list[Row]], str]] = {"layers": by_cell, "custom": by_cell, "zoo": by_zoo, "first": by_first,
                                                 "growth": by_growth}


def summary(rows: list[Row]) -> str:
    """How often ours is the faster one, and by what."""
    lines = []
    pairs = [row for row in rows if "ratio" in row and not row["system"].startswith("autograd_rnn")]
    for system in ordered(pairs, "system"):
        ratios = [row["ratio"] for row in pairs if row["system"] == system]
        lines.append([system, f"{sum(r >= 1 for r in ratios)} of {len(ratios)}", f"{geometric_mean(ratios):.2f}",
                      f"{min(ratios):.2f}", f"{max(ratios):.2f}"])
    if not lines:
        return ""
    return "## In short\n\nTheir time over ours, over all comparisons below.\n\n" + table(
        ["system", "ours is faster", "geometric mean", "least", "most"], lines)


def missing(rows: list[Row]) -> str:
    """What was not measured, with the reason."""
    found: dict[tuple[str, str], list[str]] = {}
    for row in rows:
        if "skipped" in row:
            work = " ".join(str(row[k]) for k in ("cell", "sizes") if k in row)
            found.setdefault((row["system"], row["skipped"]), []).append(work or row["section"])
    lines = []
    for (system, reason), works in found.items():
        several = list(dict.fromkeys(works))
        which = ", ".join(several) if len(several) <= 3 else f"{len(several)} pieces of work"
        lines += wrap(f"- {system}: {reason} ({which})", 118, subsequent_indent="  ")
    return "## What was not measured\n\n" + "\n".join(lines) if lines else ""


def told_of(machine: Row) -> str:
    versions = ", ".join(f"{name} {number}" for name, number in machine["versions"].items())
    told = f"{machine['processor']} ({machine['vectors']}), {machine['cores']} cores, {machine['system']}; {versions}."
    return "\n".join(wrap(told, 118))


def page(results: dict[str, Any]) -> str:
    rows = results["rows"]
    sections = {name: [row for row in rows if row["section"] == name] for name in NOTES}
    parts = [HEAD.format(machine=told_of(results["machine"]), rounds=results["rounds"]).strip(), summary(rows)]
    for name, chosen in sections.items():
        if chosen:
            parts.append(NOTES[name] + "\n\n" + (by_rate(chosen, rows) if name == "rate" else TABLES[name](chosen)))
    return "\n\n".join(part for part in [*parts, CLOSE, missing(rows)] if part) + "\n"
