"""How far back a gradient reaches: |dL/dh[T-lag]| on the adding problem, before training and after.

    python benchmarks/lags.py                     trains, measures, and writes benchmarks/lags.json (minutes)

docs/results.md shows the table; `python benchmarks/results.py --render` puts it there.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from textwrap import wrap

import numpy as np

from autograd_rnn import Cell
from autograd_rnn.learn import adam, fit
from autograd_rnn.tasks.bench import Run

FILE = Path(__file__).with_suffix(".json")
T, STEPS, SEEDS = 200, 2000, 3
LAGS = (0, 1, 10, 25, 50, 100, 150, 199)
ABOUT = (
    f"How far back the gradient reaches: |dL/dh[T - lag]| over |dL/dh[T]| at T = {T}, by the adjoint recurrence "
    f"(`python benchmarks/lags.py`), mean over 500 sequences, median of {SEEDS} seeds; `trained`: when the task was "
    f"solved, or after {STEPS:,} steps. LSTM and GRU start with a gradient that is gone soon too, and learn to keep "
    "it; the RNN does not.")
CELLS, BEFORE, AFTER = ("rnn", "lstm", "gru"), "fresh", "trained"


def norms(model: Cell, params: dict[str, np.ndarray], inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """|dL/dv[T-lag]| for lags 0, ..., T-1 of each state v, the mean over the batch: values of the adjoint recurrence.

    An adjoint d v[t] is the whole of dL/dv[t]: through what reads v at step t, and through later steps.
    """
    trace = model.backward().run(params, **inputs)
    adjoints = {name: trace[f"d{name}"] for name in model.states}
    return {name: np.sqrt((d.reshape(*d.shape[:2], -1)**2).sum(axis=-1)).mean(axis=1)[::-1]
            for name, d in adjoints.items()}


def measured(cell: str, seed: int) -> dict[str, dict[str, list[float]]]:
    """state, when -> norms at LAGS over |dL/dh[T]|: of a fresh model, and when it solves the task or STEPS are done."""
    run = Run.of("adding", cell, values={"T": T}, seed=seed)
    task, model, data, fresh = run.begin()
    program, s = model.compile(threads=1), run.settings
    point = fit(program, fresh, data.train, STEPS, adam(s.lr), clip=s.clip, every=s.every, goal=task.goal,
                validate=lambda params: task.measured(program, params, data, data.valid))
    found: dict[str, dict[str, list[float]]] = {}
    for when, params in ((BEFORE, fresh), (AFTER, point.params)):
        wide = {name: np.asarray(array, float) for name, array in params.items()}
        by_state = norms(model, wide, data.test(0).inputs)
        for name, norm in by_state.items():
            found.setdefault(name.removeprefix("h1_").replace("h1", "h"), {})[when] = (
                norm[list(LAGS)] / by_state["h1"][0]).tolist()
    return found


def told() -> Iterator[str]:
    """What is on file as Markdown: medians over the seeds."""
    kept = json.loads(FILE.read_text(encoding="utf-8"))
    yield from (*wrap(ABOUT, 120), "")
    yield from ("| | " + " | ".join(map(str, LAGS)) + " |", "|---" + "|---:" * len(LAGS) + "|")
    for cell, seeds in kept.items():
        for state, when in product(seeds[0], (BEFORE, AFTER)):
            middle = np.median([one[state][when] for one in seeds], axis=0)
            yield f"| {cell}, {state}, {when} | " + " | ".join(f"{v:.1e}" for v in middle) + " |"


def main() -> None:
    found = {cell: [measured(cell, seed) for seed in range(SEEDS)] for cell in CELLS}
    FILE.write_text(json.dumps(found, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
