"""Series of numbers: a waveform of sines, and what a column of a CSV file does next."""

from __future__ import annotations

import csv
import io

import numpy as np

from ..errors import CellError
from ..learn.data import Batch, Batches
from ..learn.text import read_text
from .task import Data, Task

WAVE = """
h[t] = cell(x=x[t])
y[t] = V @ h[t] + c
L = sum_t(mse(y[t], goal[t]))
"""
LEARNT = 0.67
YEAR = 12  # steps back to where a monthly series was a year ago
SERIES = """
h[t] = cell(x=v[t-1])
y[t] = V @ h[t] + c
L = sum_t(w[t] * mse(y[t], v[t]))
w: input()
"""


def sines(batch: int, length: int, seed: int, T: int, count: int) -> Data:
    """A sum of `count` sines with periods from 5 to T/2, mean 0 and variance 1, from a pulse at the first step."""
    rng, t = np.random.default_rng(seed), np.arange(T)
    periods, phases, sizes = np.geomspace(5, T / 2, count), rng.uniform(0, 2 * np.pi, count), rng.uniform(0.5, 1, count)
    wave = (sizes * np.sin(2 * np.pi * t[:, None] / periods + phases)).sum(axis=1)
    wave = (wave - wave.mean()) / wave.std()
    one = Batch({"x": (t == 0).astype(float)[:, None, None], "goal": wave[:, None, None]}, T)
    all_ = Batches(1, lambda step: one)
    return Data(all_, all_, all_, 1)


def column(path: str) -> np.ndarray:
    """The last column of a CSV file with a heading, as numbers: commas between columns, points before decimals.

    Raises CellError, naming line and column, for what may be meant otherwise: `;` or tabs between columns (there a
    comma stands before decimals), rows of another length than the heading, a file without a heading.
    """
    if not path:
        raise CellError("No series is given.", remedy="Give a CSV file: --set path=FILE.")
    reader = csv.reader(io.StringIO(read_text(path).removeprefix("\ufeff")), strict=True)

    def refused(line: int, place: int, what: str) -> CellError:
        return CellError(f"The file `{path}`, line {line}, column {place}: {what}.", remedy="Give a heading, then rows "
                         "with as many columns, commas between them, a number like 1.5 in the last.")

    try:
        rows = [(reader.line_num, row) for row in reader if row]
    except csv.Error as e:
        raise refused(reader.line_num, 1, str(e)) from e
    for k, (line, row) in enumerate(rows):
        width = len(rows[0][1])
        for place, field in enumerate(row, 1):
            if ";" in field or "\t" in field:
                raise refused(line, place, f"`{field}` has a `;` or a tab")
        if len(row) != width:
            raise refused(line, len(row), f"the row has {len(row)} columns, the heading {width}")
        if (k == 0) is is_number(row[-1]):
            raise refused(line, width, f"`{row[-1]}` is {'no heading' if k == 0 else 'no number'}")
    return np.array([float(row[-1]) for _, row in rows[1:]])


def is_number(text: str) -> bool:
    """
    >>> [is_number(text) for text in ("1.5", " -2e3", "1,5", "nan", "")]
    [True, True, False, False, False]
    """
    try:
        return bool(np.isfinite(float(text)))
    except ValueError:
        return False


def series(batch: int, length: int, seed: int, path: str) -> Data:
    """The last third of a series to test; what comes before to learn from, but its last fifth, to judge meanwhile.

    Numbers are scaled by mean and deviation of what is learnt from. Every sequence begins with the series; only the
    steps of its own part count (w = 1).
    """
    values = column(path)
    last = int(LEARNT * len(values))
    first = last * 4 // 5
    if last < YEAR or last == len(values):
        raise CellError(f"A series of {len(values)} numbers is too short.",
                        remedy=f"Its first {LEARNT:.0%} must be at least {YEAR}.")
    with np.errstate(over="ignore", invalid="ignore"):
        mean, deviation = values[:first].mean(), values[:first].std()
    if np.ptp(values[:first]) == 0 or not 0 < deviation < np.inf:
        raise CellError(f"The {first} numbers to learn from have the deviation {deviation:g}: they cannot be scaled.",
                        remedy="Give a series that changes, of numbers below 1e150.")

    def part(begin: int, end: int) -> Batches:
        v = ((values[:end] - mean) / deviation)[:, None, None]
        one = Batch({"v": v, "w": (np.arange(end) >= begin).astype(float)[:, None]}, end - begin)
        return Batches(1, lambda step: one)

    return Data(part(1, first), part(first, last), part(last, len(values)), 1, lambda loss: deviation * loss**0.5)


def persistence(path: str, lag: int = 1) -> float:
    """The RMSE of telling what was there `lag` steps before, over the last third."""
    values = column(path)
    last = int(LEARNT * len(values))
    return float(np.sqrt(np.mean((values[last:] - values[last - lag:-lag]) ** 2)))


TASKS = {
    "sines": Task(
        source="Koutnik, Greff, Gomez, Schmidhuber, A clockwork RNN, ICML 2014, arXiv:1402.3511, section 4.1, whose "
               "waveforms are music; sines as in cybertronai/schmidhuber-problems",
        definition="One waveform of T steps, to be generated from a pulse at the first step: a sum of sines, periods "
                   "from 5 to T/2 in a geometric series, phases and sizes at random, mean 0, variance 1. Mean squared "
                   "error.",
        text=WAVE, data=sines, measure="MSE", numbers=dict(T=320, count=5),
        baselines={"the mean, 0": lambda T, count: 1.0},
        published={"Clockwork (cybertronai/schmidhuber-problems, NumPy, 2,497 weights, 5 seeds)": "0.1125",
                   "RNN (the same)": "0.2454"},
        settings=dict(size=40, batch=1, steps=2000, every=50, lr=5e-3),
        recalled="what the paper's waveforms are.",
    ),
    "series": Task(
        source="one step ahead on a series of your own, like those of the Time Series Data Library",
        definition="The last column of a CSV file: each number is to be told from those before. The last 33 % is "
                   "for testing; what comes before is learnt from, but its last fifth, on which it is judged. "
                   "Root of the mean squared error, in the series' units.",
        text=SERIES, data=series, measure="RMSE", numbers=dict(path=""),
        baselines={"what came before": persistence, "what came 12 before": lambda path: persistence(path, YEAR)},
        settings=dict(size=16, batch=1, steps=1000, every=20, lr=5e-3),
    ),
}
