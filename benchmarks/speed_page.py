"""The page that tells what `speed.py` measured: results -> Markdown, with what is lost and what is missing."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from statistics import geometric_mean
from textwrap import wrap
from typing import Any

Row = dict[str, Any]

HEAD = """# Speed

Forward and full backward (all weights, and the inputs) of a recurrent cell, the loss being the sum of h over every
step, or the cell's own. `python benchmarks/speed.py` measures all of it again and writes this page.

{machines}

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

- **Against JAX at 32 100 64 128.** 2.5 is not reached with one thread (1.7 to 2.0). The products of an LSTM there, done
  at the rate of one large square product, would take about three quarters of our time: however the rest is done, no
  more than a third is to be won. Blocks of 8 rows by two vectors, weights packed once a call, and gradients of all
  weights that share a side in one pass over it are what helped; BLAS for the rows of a step, and layers outside time,
  did not. Of an antisymmetric cell at 1 50 10 16 (2.2 to 4.1 against JAX, where 3 was asked for) most is the call.
- **Small work on two threads.** Below some megabytes a second thread gains what it costs to wake it. With two threads
  GRU, MUT1 and the antisymmetric cell at 32 100 64 128 stay at 45 to 67% of the square product's rate.
- **Cells with a loss of their own** (`rnn_softmax`, `charlm`) are checked and laid out anew in every call, which takes
  some tenths of a millisecond; calls with cotangents are replayed.
- **The NumPy program beside NumPy by hand.** The same calls, but for the tanh RNN: by hand its pre-activations lie
  where its states will, and a cotangent of ones is a 1 in the code. Products of a step are `np.dot`, which is in BLAS
  0.4 us sooner than the `np.matmul` by hand; the tables of one and two threads were measured before that. With it,
  on machine 2, one thread, their time over ours was 1.05 at 1 50 10 16 (0.89 before), 0.95 at 16 50 32 64 and 0.89 at
  32 100 64 128, while the generated function alone, without what surrounds it, was at 1.24, 1.04 and 0.99. What
  surrounds it, in microseconds at 16 50 32 64, of 634: a fresh array for the gradient of x 8, the value 10, gradients
  that are the caller's 8, whether all is finite 13, arguments and signature 15. At 32 100 64 128 the fresh array alone
  is 400 of 6,100: the system clears its pages.
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


def grouped(rows: list[Row], *names: str) -> list[tuple[list[Row], str]]:
    """The rows of each table: alike in what is named and in the number of threads, which the second part tells."""
    keys = ordered(({"key": tuple(row[n] for n in names)} for row in rows), "key")
    groups = [[row for row in rows if tuple(row[n] for n in names) == key and row["threads"] == threads]
              for key in keys for threads in sorted(ordered(rows, "threads"))]
    return [(group, setting(group[0])) for group in groups if group]


def setting(row: Row) -> str:
    threads = "one thread" if row["threads"] == 1 else f"{row['threads']} threads"
    return threads + (f", machine {row['machine']}" if "machine" in row else "")


def by_cell(rows: list[Row]) -> str:
    return "\n\n".join(f"`{group[0]['cell']}`, {told}\n\n{comparison(group)}" for group, told in grouped(rows, "cell"))


def by_zoo(rows: list[Row]) -> str:
    parts = []
    for group, told in grouped(rows, "sizes"):
        found = {(row["cell"], row["system"]): row for row in group if "milliseconds" in row}
        systems = [name for name in ordered(group, "system") if any(system == name for _, system in found)]
        parts.append(f"{group[0]['sizes']}, {told}, milliseconds\n\n" + table(
            ["cell", *systems], ([cell, *(entry(found.get((cell, s))) for s in systems)]
                                 for cell in dict.fromkeys(cell for cell, _ in found))))
    return "\n\n".join(parts)


def by_first(rows: list[Row]) -> str:
    keys = ("importing", "cold", "cached", "megabytes")
    return "\n\n".join(f"{told}\n\n" + table(
        ["cell, sizes, system", "import s", "first s, cold", "first s, cached", "memory MB"],
        ([f"{row['cell']}, {row['sizes']}, {row['system']}", *(digits(row[k]) for k in keys)]
         for row in group if "cached" in row)) for group, told in grouped(rows))


def by_growth(rows: list[Row]) -> str:
    return "\n\n".join(f"{told}\n\n" + table(
        ["system", "T", "ms", "us a step", "memory MB", "beyond arrays MB"],
        ([row["system"], f"{row['T']:,}", digits(row["milliseconds"]), f"{1e3 * row['milliseconds'] / row['T']:.1f}",
          digits(row["megabytes"]), digits(row["megabytes"] - row["handed"])]
         for row in group if "milliseconds" in row)) for group, told in grouped(rows))


def by_rate(rates: list[Row], rows: list[Row]) -> str:
    parts = []
    for group, told in grouped([row for row in rates if "rate" in row], "dtype"):
        most, one = max(row["rate"] for row in group), group[0]
        found = {(row["system"], f"{row['cell']} {row['sizes']}"): row["operations"] / row["milliseconds"] * 1e3
                 for row in rows if row["section"] == "layers" and "milliseconds" in row and row["H"] >= 128
                 and all(row.get(k) == one.get(k) for k in ("threads", "dtype", "machine"))}
        works, systems = (list(dict.fromkeys(key[k] for key in found)) for k in (1, 0))
        share = {key: f"{value / 1e9:.0f} ({value / most:.0%})" for key, value in found.items()}
        each = ", ".join(f"{row['rate'] / 1e9:.0f} GFLOP/s through {row['system'].split()[0]}" for row in group)
        part = f"{told}, the square product in {one['dtype']}: {each}"
        parts.append(part + "\n\n" + table(["GFLOP/s", *works], (
            [s, *(share.get((s, w), "") for w in works)] for s in systems)) if works else part)
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
            found.setdefault((row["system"], row["skipped"]), []).append(row.get("cell", row["section"]))
    lines = []
    for (system, reason), works in found.items():
        lines += wrap(f"- {system}: {reason} ({', '.join(dict.fromkeys(works))})", 118, subsequent_indent="  ")
    return "## What was not measured\n\n" + "\n".join(lines) if lines else ""


def told_of(machine: Row) -> str:
    versions = ", ".join(f"{name} {number}" for name, number in machine["versions"].items())
    told = f"{machine['processor']} ({machine['vectors']}), {machine['cores']} cores, {machine['system']}; {versions}."
    return "\n".join(wrap(told, 108))


def page(results: list[dict[str, Any]]) -> str:
    """results: of each machine."""
    machines = [told_of(found["machine"]) for found in results]
    rows = [row | ({"machine": k} if len(results) > 1 else {}) for k, found in enumerate(results, 1)
            for row in found["rows"]]
    sections = {name: [row for row in rows if row["section"] == name] for name in NOTES}
    told = machines[0] if len(machines) == 1 else "\n\n".join(f"Machine {k}: {m}" for k, m in enumerate(machines, 1))
    rounds = " or ".join(str(n) for n in dict.fromkeys(found["rounds"] for found in results))
    parts = [HEAD.format(machines=told, rounds=rounds).strip(), summary(rows)]
    for name, chosen in sections.items():
        if chosen:
            parts.append(NOTES[name] + "\n\n" + (by_rate(chosen, rows) if name == "rate" else TABLES[name](chosen)))
    return "\n\n".join(part for part in [*parts, CLOSE, missing(rows)] if part) + "\n"
