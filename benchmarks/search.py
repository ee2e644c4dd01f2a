"""The search behind docs/search.md: goes on with it, compares what it found with known cells, then writes the page.

    python benchmarks/search.py             all that is missing
    python benchmarks/search.py --render    the page alone

What the search trains lies in the folder given, a few thousand small files; what is told of it, in benchmarks/search:
all cells and their scores, the best as .cell files, and the runs of the comparison, one a file.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from textwrap import wrap

from autograd_rnn import Cell, zoo
from autograd_rnn.search.canonical import form
from autograd_rnn.search.rank import (
    CLIPS,
    HEATS,
    LIST,
    PASS,
    RATES,
    SCALES,
    Candidate,
    Heat,
    best,
    kept,
    ranking,
    runs,
    score,
    search,
)
from autograd_rnn.tasks import tasks
from autograd_rnn.tasks.bench import completed, found
from autograd_rnn.tasks.results import duration, number

ROOT = Path(__file__).parents[1]
KEPT, PAGE = ROOT / "benchmarks" / "search", ROOT / "docs" / "search.md"
CELLS, START, SHOWN, COMPARED = 1116, ("lstm", "gru"), 20, 3
COMPARISON = (Heat("memorization", dict(N=5, symbols=8), 300, 6, 3000), Heat("adding", dict(T=40), 600, 6, 3000),
              Heat("arithmetic", dict(digits=2), 1500, 6, 3000))
BIAS = "U_f @ h[t-1] + b_f"
REFERENCES = {
    "lstm": str(zoo["lstm"]), "lstm_forget_bias_1": str(zoo["lstm"]).replace(BIAS, f"{BIAS} + 1"),
    **{name: str(zoo[name]) for name in ("gru", "mut1_projected", "mut2_projected", "mut3")},
}

HEAD = """# The search for cells

`python -m autograd_rnn search` mutates the equations of cells, passes over what is invalid or known, judges the rest on
one task after the other, and mutates the best further. It follows Jozefowicz, Zaremba, Sutskever, An empirical
exploration of recurrent network architectures, ICML 2015, by our memory of it. This page is made by `python
benchmarks/search.py` from the files in `benchmarks/search`.

```python
>>> import numpy as np
>>> from autograd_rnn import Cell, zoo
>>> from autograd_rnn.search.canonical import form
>>> from autograd_rnn.search.mutate import mutated
>>> print(mutated(zoo["gru"], np.random.default_rng(11)))
z[t] = sigmoid(W_z @ x[t] + U_z @ h[t-1] + b_z)
r[t] = sigmoid(W_r @ x[t] + sigmoid(U_r @ h[t-1]) + b_r)
n[t] = tanh(W_n @ x[t] + U_n @ (r[t] * h[t-1]) + b_n)
h[t] = (1 - z[t]) * h[t-1] + z[t] * n[t]
>>> gru = Cell('''
... reset[t] = sigmoid(E @ s[t-1] + F @ v[t] + e)
... g[t] = sigmoid(C @ v[t] - D @ s[t-1] + c)
... s[t] = s[t-1] + g[t] * (tanh(A @ (reset[t] * s[t-1]) - B @ v[t] + a) - s[t-1])''')
>>> form(gru.system) == form(zoo["gru"].system)
True

```
"""
HOW = """## How cells are found

**Mutation** (`search/mutate.py`). A probability is drawn from U[0, 1]; with it each vector of a cell's step is changed
by one of the paper's operators, drawn among those that fit: another activation; another elementwise operation of + - *;
an activation on one operand; the operand of what has only one; an ancestor in its place; an ancestor combined with that
of another node. Activations are tanh, sigmoid, relu, and a v + M v + d with a of 0, 1, 0.9 or 1.1 and a matrix and a
bias of its own; v + 1 and v - 1 are ours.

**Validity** (`search/valid.py`). The text must be a cell whose shapes fit where x and h have different sizes; the last
output must depend on the first input; a gradient must reach every parameter; 100 steps must stay finite.

**Equality** (`search/canonical.py`). Cells are equal that differ only by names, by the order of equations, terms and
factors, by brackets and distribution, by terms that cancel, by which values have a line of their own, by the linearity
of products with matrices, or by the sign of a weight that stands at one place. By this MUT2, with a learned matrix
before x[t], is the GRU.

**Rank** (`search/rank.py`). A score is the share of a trivial predictor's error that is gone on test data: 1 is
perfect. The best of the draws counts. A cell goes on to the next task where its score is at least {share} of the best
start cell's; its rank is the least of its scores over the best start cell's, the filter apart. Parents are drawn from
the {list} best. Draws are from learning rates {rates}, clipping at {clips} and first weights within
{scales} over the root of the size; every cell meets the same ones. Adam, batches of 20. The size of each cell
is the largest with which it has at most the weights told here.

**What differs from the paper.** Cells there had up to 5 million weights and 20 draws a task, and the tasks were longer;
the best were tried with further draws as the search went on. Here each cell is judged once, and the best anew, at the
end.
"""

STOPPED = """It was to have 1,200 cells, was stopped by a kill after 1,116, and went on with the last of these. The
commands give the same number.
"""
FALLS_SHORT = """**What falls short.** The best that were found add better than every known cell, at longer lags than
the search's too; but on two digits, at the same number of weights, they are behind every known cell, though on one
digit they were ahead. Nothing is simplified before it is printed, so that terms may stand there that cancel or could be
joined.
"""


def told(heats: tuple[Heat, ...]) -> Iterator[str]:
    """Tasks as a table."""
    yield from ("| task | numbers | steps | draws | weights |", "|---|---|---:|---:|---:|")
    for heat in heats:
        numbers = ", ".join(f"{name} = {value}" for name, value in heat.values.items())
        yield f"| {heat.task} | {numbers} | {heat.steps:,} | {heat.draws} | {heat.weights:,} |"
    yield ""


def searched(folder: Path, workers: int) -> None:
    """The search as far as it is to go; then, in files: cells, marks, the time from first to last; the best as text."""
    cells, marks = search(folder, {name: str(zoo[name]) for name in START}, CELLS, workers)
    times = [path.stat().st_mtime for kind in ("cells", "runs") for path in (folder / kind).iterdir()]
    trained = [json.loads(path.read_text())["seconds"] for path in (folder / "runs").glob("*.json")]
    (KEPT / "cells").mkdir(parents=True, exist_ok=True)
    (KEPT / "cells.json").write_text(json.dumps({
        "marks": marks, "workers": workers, "runs": len(trained), "seconds": round(max(times) - min(times)),
        "trained": round(sum(trained)),
        "cells": [[c.name, c.origin, {task: round(value, 4) for task, value in c.scores.items()}] for c in cells],
    }).replace(", [", ",\n["), encoding="utf-8")
    for old in (KEPT / "cells").glob("*.cell"):
        old.unlink()
    for k, one in enumerate(best(cells, marks)[:SHOWN]):
        (KEPT / "cells" / f"{k:05}-{one.name}.cell").write_text(str(one), encoding="utf-8")


def compared() -> list[Candidate]:
    """Known cells, and the best that were found."""
    new = [one for one in kept(KEPT) if not one.origin.startswith("start")]
    return [*(Candidate(name, text, "known") for name, text in REFERENCES.items()), *new[:COMPARED]]


def error(result: dict, on: str = "test") -> float:
    """A run's error, which is infinite where training failed."""
    return float("inf") if result[on] is None else result[on]


def comparison() -> Iterator[str]:
    """A table of the runs that are on file: test error of the draw with the least validation error, median of all."""
    yield from ("| cell | rank | " + " | ".join(f"{heat.task}, {tasks[heat.task].measure}" for heat in COMPARISON)
                + " | weights |", "|---|---:|" + "---:|" * (len(COMPARISON) + 1))
    results = {one.name: [found(runs(one, heat), KEPT) for heat in COMPARISON] for one in compared()}
    results = {name: some for name, some in results.items() if all(some)}
    chosen = {name: [min(some, key=lambda r: error(r, "valid")) for some in of] for name, of in results.items()}
    for name, of in chosen.items():
        least = min(score(result) / score(other) for result, other in zip(of, chosen["gru"]))
        cells = [f"{number(result['test'])} ({number(median(map(error, some)))})"
                 for result, some in zip(of, results[name])]
        weights = max(result["weights"] for result in of)
        yield f"| {name} | {least:.3f} | " + " | ".join(cells) + f" | {weights:,} |"
    yield ""


def page() -> str:
    """The whole page from the files."""
    facts = json.loads((KEPT / "cells.json").read_text())
    marks, cells = facts["marks"], [Candidate(name, "", origin, scores) for name, origin, scores in facts["cells"]]
    start, ranked = [c for c in cells if c.origin.startswith("start")], best(cells, marks)
    drawn = sum(int(c.origin.split()[1]) for c in cells if c not in start)
    passed = sum(len(c.scores) > 1 for c in cells)
    known = {form(Cell(text).system): name for name, text in REFERENCES.items()} | {
        form(cell.system): name for name, cell in zoo.items()}
    again = ", ".join(sorted(known[c.name] for c in cells if c.name in known and c not in start)) or "none"
    what = (f"From {' and '.join(START)}: {len(cells):,} different cells, of {drawn:,} mutants that were drawn, in "
            f"{duration(facts['seconds'])} by {facts['workers']} process on a core shared with other work; "
            f"{facts['runs']:,} runs of training took {duration(facts['trained'])} of that. {passed:,} cells passed "
            f"the filter, {len(ranked):,} were tried on all tasks. Known cells that it came upon by itself: "
            f"{again}.")
    beside = ("The best of so many noisy scores is partly luck. So the best that were found are trained anew, larger "
              "and longer, with more draws, beside the cells of the literature: LSTM with a bias of 0 and of 1 in the "
              "forget gate, GRU, MUT1 to MUT3 (with learned matrices where the paper prints x[t] bare). Errors are of "
              "the draw with the least validation error; in brackets, the median of all draws. The rank is the least "
              "score over the GRU's.")
    commands = (f"python -m autograd_rnn search --start {','.join(START)} --cells {CELLS} --workers {facts['workers']}",
                f"python benchmarks/search.py --workers {facts['workers']}")
    return "\n".join([
        HEAD, HOW.format(share=f"{PASS:.0%}", list=LIST, rates=RATES, clips=CLIPS, scales=SCALES), *told(HEATS),
        "## What was run", "", *wrap(what, 120), "", STOPPED, "```sh", *commands, "```", "",
        f"The {SHOWN} best of it, and the cells that it started from:", "",
        ranking([*ranked[:SHOWN], *(c for c in start if c not in ranked[:SHOWN])], marks), "",
        "## Beside known cells", "", *wrap(beside, 120), "", *told(COMPARISON), *comparison(),
        *wrap(forgetting(), 120), "", FALLS_SHORT, *described()])


def forgetting() -> str:
    """How the LSTM fares with a bias of 1 in its forget gate, draw by draw."""
    cells = {one.name: one for one in compared()}
    said = []
    for heat in COMPARISON:
        zero, one = (found(runs(cells[name], heat), KEPT) for name in ("lstm", "lstm_forget_bias_1"))
        better = sum(error(b) < error(a) for a, b in zip(zero, one))
        said.append(f"on {heat.task} in {better} of {heat.draws} draws")
    return f"With a bias of 1 in its forget gate the LSTM has a lower test error {', '.join(said)}."


def described() -> Iterator[str]:
    """Equations of the best that were found."""
    for one in compared():
        if one.name not in REFERENCES:
            yield from (f"### {one.name}", "", f"{one.origin}.", "", "```", one.text, "```", "")


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--folder", type=Path, default=Path("search"), help="of the search (default: search)")
    p.add_argument("--workers", type=int, default=1, help="processes (default: 1)")
    p.add_argument("--render", action="store_true", help="write the page alone")
    given = p.parse_args()
    if not given.render:
        searched(given.folder, given.workers)
        completed([run for one in compared() for heat in COMPARISON for run in runs(one, heat)], KEPT, given.workers)
    PAGE.write_text(page(), encoding="utf-8")


if __name__ == "__main__":
    main()
