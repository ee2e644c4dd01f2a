"""How fast the compiled programs are beside the peers in `peers.py`: measures, prints, writes `docs/speed.md`.

    python benchmarks/speed.py                               everything, in an hour; writes speed.json and the page
    python benchmarks/speed.py --python PyTensor=PATH        with a peer from another environment
    python benchmarks/speed.py --quick                       every section at tiny sizes, to see that it works
    python benchmarks/speed.py --cells lstm --sizes "32 100 64 128" --peers torch,numpy --threads 1 --rounds 5
    python benchmarks/speed.py --sections first --merge      these results replace the same ones in speed.json
    python benchmarks/speed.py --render                      the page again, from speed.json

A run that an option narrows is printed and written nowhere, unless by --merge. Every system has a process of its own;
gradients and outputs are compared with the first peer's before anything is timed. What is not right is not timed.
"""

from __future__ import annotations

import json
import os
import platform
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from itertools import product
from pathlib import Path
from statistics import median, quantiles
from typing import Any

from cells import MODELS, cell
from peers import BUDGETED, OURS, PEERS
from plan import (
    COMPARISONS,
    FIRST,
    GROWTH,
    GROWTH_STEPS,
    LARGE,
    LONG,
    MIDDLE,
    SQUARE,
    Options,
    chosen,
    parsed,
)
from processes import Skipped, System, importing, taking_turns
from speed_page import page
from work import TOLERANCE, Work, apart, floating, handed

from autograd_rnn import atomic

ROOT = Path(__file__).parents[1]
RESULTS, PAGE = Path(__file__).parent / "speed.json", ROOT / "docs" / "speed.md"


# --- comparisons -------------------------------------------------------------------------------------------------


def compared(section: str, work: Work, systems: dict[str, System], o: Options) -> Iterator[dict[str, Any]]:
    """A row for each system that has the cell: its time and its ratio to ours, or why there is none."""
    threads = next(iter(systems.values())).threads
    row = {"section": section, **work._asdict(), "sizes": work.sizes, "threads": threads, "operations": floating(work)}
    ready, rows, truth = {}, {}, None
    for name, system in systems.items():
        if work.cell not in PEERS[name].cells:
            continue
        rows[name] = {**row, "system": name}
        try:
            gradients, outputs = system.prepare(work)
        except Skipped as e:
            rows[name]["skipped"] = str(e)
            continue
        found = {**gradients, "outputs": outputs}
        truth = truth or {n: found[n] for n in (*cell(work.cell).system.having("parameter", "input"), "outputs")}
        rows[name]["apart"] = apart(found, truth)
        if rows[name]["apart"] > TOLERANCE[work.dtype]:
            rows[name]["skipped"] = f"wrong: {rows[name]['apart']:.1g} from the first peer's"
        else:
            ready[name] = system
    times = {name: found for name, found in taking_turns(ready, o.rounds, o.budget).items() if found}
    ours = next((peer.name for peer in OURS if peer.name in times), None)
    for name, told in rows.items():
        if name in times:
            seconds = times[name]
            low, _, high = quantiles(seconds, n=4) if len(seconds) > 1 else seconds * 3
            told |= {"milliseconds": 1e3 * median(seconds), "low": 1e3 * low, "high": 1e3 * high,
                     "rounds": len(seconds)}
            if ours:
                told |= {"beside": ours, "ratio": median(a / b for a, b in zip(seconds, times[ours]))}
        elif "skipped" not in told:
            told["skipped"] = "its process ended"
        yield told


# --- what a user feels -------------------------------------------------------------------------------------------


def first(threads: int, o: Options) -> Iterator[dict[str, Any]]:
    """Import, first gradient with empty and with filled caches, and what the process grows by."""
    for name in o.named(FIRST):
        peers = [p for p in (*FIRST[name], *(peer.name for peer in OURS)) if o.wanted(p)]
        for peer, sizes in product(peers, o.sized((MIDDLE, LARGE, LONG))):
            work = Work(name, *sizes, o.dtype or "float32")
            row = {"section": "first", **work._asdict(), "sizes": work.sizes, "threads": threads, "system": peer}
            try:
                row["importing"] = importing(PEERS[peer].imports, threads, o.python(peer))
                with tempfile.TemporaryDirectory() as caches:
                    for key in ("cold", "cached"):
                        with System(peer, threads, caches, o.python(peer)) as system:
                            told = system.first(work)
                            row |= {key: told["seconds"], "megabytes": told["megabytes"]}
            except Skipped as e:
                row["skipped"] = str(e)
            yield row


def growth(threads: int, o: Options) -> Iterator[dict[str, Any]]:
    """The time and memory of ours over the number of steps."""
    name, B, I, H = GROWTH
    peers = [p.name for p in (*OURS, BUDGETED) if o.wanted(p.name)]
    for peer, T in product(peers, (10, 20) if o.quick else GROWTH_STEPS):
        work = Work(name, B, T, I, H, o.dtype or "float32")
        row = {"section": "growth", **work._asdict(), "sizes": work.sizes, "threads": threads, "system": peer,
               "handed": handed(work)}
        try:
            with System(peer, threads, python=o.python(peer)) as system:
                system.first(work._replace(T=1))  # the compiler's own memory
                row["megabytes"] = system.first(work)["megabytes"]
                row["milliseconds"] = 1e3 * median(system.seconds() for _ in range(3))
        except Skipped as e:
            row["skipped"] = str(e)
        yield row


def rate(threads: int, o: Options) -> Iterator[dict[str, Any]]:
    """What the machine does in one large square product, through two libraries. Asked before and after all else."""
    for name in ("torch loop", "NumPy by hand"):
        row = {"section": "rate", "system": name, "threads": threads, "dtype": o.dtype or "float32"}
        try:
            with System(name, threads, python=o.python(name)) as system:
                yield {**row, "rate": system.rate(64 if o.quick else SQUARE, row["dtype"])}
        except Skipped as e:
            yield {**row, "skipped": str(e)}


ALONE = {"rate": rate, "first": first, "growth": growth}
SECTIONS = (*ALONE, *COMPARISONS)


# --- everything --------------------------------------------------------------------------------------------------


def measured(o: Options) -> Iterator[dict[str, Any]]:
    for threads in o.threads:
        for section in (s for s in ALONE if s in o.sections):
            yield from ALONE[section](threads, o)
        sections = [s for s in COMPARISONS if s in o.sections]
        with ExitStack() as stack:
            systems = {name: stack.enter_context(System(name, threads, python=o.python(name)))
                       for name, peer in PEERS.items() if sections and peer.cells and o.wanted(name)}
            for section in sections if systems else ():
                works, peers = COMPARISONS[section]
                for work in works(o):
                    if work.cell in MODELS:
                        those = {n: s for n, s in systems.items() if peers is None or n in peers}
                        yield from compared(section, work, those, o)
                    else:
                        yield {"section": section, **work._asdict(), "sizes": work.sizes, "threads": threads,
                               "system": "all", "skipped": "nobody has written it for the peers"}
        if "rate" in o.sections and sections:
            yield from rate(threads, o)


def machine(o: Options) -> dict[str, Any]:
    """The machine, and the versions of what is measured."""
    told = Path("/proc/cpuinfo").read_text() if os.path.exists("/proc/cpuinfo") else ""
    model = next((line.split(":")[1].strip() for line in told.splitlines() if line.startswith("model name")), "")
    flags = next((line.split() for line in told.splitlines() if line.startswith("flags")), [])
    vectors = next((kind for kind in ("avx512f", "avx2", "avx") if kind in flags), platform.machine())
    versions: dict[str, str] = {"python": platform.python_version()}
    for name in filter(o.wanted, PEERS):
        with System(name, 1, python=o.python(name)) as system:
            try:
                versions |= system.versions()
            except Skipped as e:
                print(f"{name}: {e}", file=sys.stderr)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {"processor": model or platform.processor(), "vectors": vectors, "cores": cores,
            "system": platform.system(), "versions": versions}


def added(row: dict[str, Any], rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows with one more, in place of the row of the same work if there is one; of two rates the higher."""
    def key(r):
        return tuple(r.get(k) for k in ("section", "cell", "sizes", "dtype", "threads", "system"))

    (place,) = [k for k, r in enumerate(rows) if key(r) == key(row)] or [len(rows)]
    before = rows[place] if place < len(rows) else row
    best = before if before.get("rate", 0) > row.get("rate", 0) else row
    return [*rows[:place], best, *rows[place + 1:]]


def alike(one: dict[str, Any], other: dict[str, Any]) -> bool:
    """Whether two machines are the same, with the same versions of what both have."""
    first, second = one["versions"], other["versions"]
    return {**one, "versions": {}} == {**other, "versions": {}} and all(
        first[name] == second[name] for name in first.keys() & second.keys())


def joined(old: list[dict[str, Any]], new: dict[str, Any], o: Options) -> list[dict[str, Any]]:
    """Results of each machine, this one's last, to which those of a run will be added. A section with as many threads
    is of one machine: where it was another, all of it is measured again."""
    again = {(section, threads) for section in o.sections for threads in o.threads}
    here, others = {**new, "rows": []}, []
    for found in old:
        if alike(found["machine"], new["machine"]):
            versions = {**found["machine"]["versions"], **new["machine"]["versions"]}
            here = {**found, "machine": {**new["machine"], "versions": versions}}
            continue
        rows = [row for row in found["rows"] if (row["section"], row["threads"]) not in again]
        if len(rows) < len(found["rows"]) and o.narrowed:
            raise SystemExit(f"{RESULTS} has these sections from another machine or other versions: measure all of "
                             "them again, with no option but --sections and --threads.")
        others += [{**found, "rows": rows}] * bool(rows)
    return [*others, here]


def line(row: dict[str, Any]) -> str:
    """A row as it is printed on the way."""
    told = " ".join(str(row[k]) for k in ("section", "cell", "sizes") if k in row) + f", threads {row['threads']}: "
    told += row["system"]
    for k in ("milliseconds", "ratio", "apart", "importing", "cold", "cached", "megabytes", "rate"):
        told += f", {k} {row[k]:.3g}" if k in row else ""
    return told + (f", skipped: {row['skipped']}" if "skipped" in row else "")


def main(argv: list[str]) -> None:
    given = parsed(argv, __doc__, SECTIONS)
    if given.render:
        PAGE.write_text(page(json.loads(RESULTS.read_text())), encoding="utf-8")
        return
    o = chosen(given)
    results = {"machine": machine(o), "rounds": o.rounds, "rows": []}
    kept = joined(json.loads(RESULTS.read_text()) if given.merge and RESULTS.exists() else [], results, o)
    written = given.merge or o._replace(pythons=()) == chosen(parsed([], "", SECTIONS))
    for row in measured(o):
        print(line(row), flush=True)
        for found in (results, kept[-1]):
            found["rows"] = added(row, found["rows"])
        if written:
            atomic.written(RESULTS, (json.dumps(kept, indent=1) + "\n").encode())
    print("\n" + page([results]), end="")
    if written:
        PAGE.write_text(page(kept), encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
