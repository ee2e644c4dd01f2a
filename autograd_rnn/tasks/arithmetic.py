"""Adding and multiplying two marked numbers of a long sequence: the original definitions, and the modern one."""

from __future__ import annotations

import numpy as np

from ..learn.data import Batch
from .task import Task, fresh, off_by

PAPER = "Hochreiter, Schmidhuber, Long short-term memory, Neural Computation 9(8), 1997"
MODERN = "Le, Jaitly, Hinton, arXiv:1504.00941, 2015, section 4.1; Arjovsky, Shah, Bengio, arXiv:1511.06464, 2016"
MARGIN = 0.04

LINEAR = """
h[t] = cell(x=x[t])
y = V @ h[T] + c
L = mse(y, goal)
goal: input
"""
LOGISTIC = LINEAR.replace("V @ h[T] + c", "sigmoid(V @ h[T] + c)")


def adding(rng: np.random.Generator, count: int, T: int) -> Batch:
    """x[t] = (u, mark), u from U[0, 1]; one mark in each half; goal: the sum of the two marked u."""
    x, each = np.zeros((T, count, 2)), np.arange(count)
    x[..., 0] = rng.random((T, count))
    marked = rng.integers(0, T // 2, count), rng.integers(T // 2, T, count)
    for at in marked:
        x[at, each, 1] = 1
    return Batch({"x": x, "goal": sum(x[at, each, 0] for at in marked)[:, None]}, count)


def pairs(rng: np.random.Generator, count: int, T: int, low: float, neutral: float
          ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(x, lengths, the two marked numbers) of 1997: values from U[low, 1], lengths from T to 1.1 T.

    A first pair that is marked has the mark 1, and `neutral` for its number.
    """
    longest, each = T + T // 10, np.arange(count)
    lengths = rng.integers(T, longest + 1, count)
    x = np.zeros((longest, count, 2))
    x[..., 0] = rng.uniform(low, 1, (longest, count))
    x[0, :, 1] = x[lengths - 1, each, 1] = -1
    first = rng.integers(0, 10, count)
    second = rng.integers(0, T // 2 - 2, count)
    second += second >= first  # one that is not marked yet
    for at in (first, second):
        x[at, each, 1] = 1
    x[0, x[0, :, 1] == 1, 0] = neutral
    return x, lengths, np.stack([x[at, each, 0] for at in (first, second)])


def adding_1997(rng: np.random.Generator, count: int, T: int) -> Batch:
    """goal: 0.5 + (X1 + X2) / 4; a first pair that is marked has the number 0."""
    x, lengths, (first, second) = pairs(rng, count, T, -1.0, 0.0)
    return Batch({"x": x, "goal": (0.5 + (first + second) / 4)[:, None]}, count, lengths=lengths)


def multiplication(rng: np.random.Generator, count: int, T: int) -> Batch:
    """goal: X1 X2; a first pair that is marked has the number 1."""
    x, lengths, (first, second) = pairs(rng, count, T, 0.0, 1.0)
    return Batch({"x": x, "goal": (first * second)[:, None]}, count, lengths=lengths)


LONG = ("Each step has a number and a mark. The mark is 1 at two steps: among the first 10, and among the first "
        "T/2 - 1 that have none yet; it is -1 at the first and the last step, where no 1 stands, and 0 elsewhere. "
        "Lengths are drawn from T to 1.1 T. ")
TASKS = {
    "adding": Task(
        source=MODERN,
        definition="Each step has a number from U[0, 1] and a mark, which is 1 at one step of either half. The goal is "
                   "the sum of the two marked numbers. Solved where the mean squared error of 2,000 sequences is "
                   "0.01 or less.",
        text=LINEAR, data=fresh(adding, 1), measure="MSE", numbers=dict(T=100), goal=0.01,
        baselines={"the mean, 1: variance of the sum, 2/12": lambda T: 1 / 6},
        published={
            "LSTM, T = 600 (Bai, Kolter, Koltun, arXiv:1803.01271, table 1, 70,000 weights)": "0.164",
            "GRU, T = 600 (the same)": "5.3e-5", "RNN, T = 600 (the same)": "0.177",
            "TCN, T = 600 (the same)": "5.8e-5",
        },
        settings=dict(size=32, batch=32, steps=10_000, every=100, lr=5e-3, schedule="constant"),
        recalled="one mark in either half; what counts as solved is ours.",
    ),
    "adding_1997": Task(
        source=PAPER + ", experiment 4",
        definition=LONG + "Numbers are from U[-1, 1], and 0 at the first step if it is marked; the goal is 0.5 + "
                          f"(X1 + X2) / 4. A sequence is right where the output is less than {MARGIN} off. Training "
                          "ends when 2,000 sequences are right (in the paper: the last 2,000 that were trained on, and "
                          "the training error below 0.01).",
        text=LOGISTIC, data=fresh(adding_1997, 1), measure="share wrong", numbers=dict(T=100), wrong=off_by(MARGIN),
        goal=0.0,
        published={
            "LSTM, T = 100, 93 weights (table 7, 10 trials)": "74,000 sequences; 1 of 2,560 wrong",
            "LSTM, T = 500 (the same)": "209,000 sequences; 0 wrong",
            "LSTM, T = 1000 (the same)": "853,000 sequences; 1 wrong",
        },
        settings=dict(size=8, batch=20, steps=10_000, every=100, lr=1e-2, schedule="exponential"),
    ),
    "multiplication": Task(
        source=PAPER + ", experiment 5",
        definition=LONG + "Numbers are from U[0, 1], and 1 at the first step if it is marked; the goal is X1 X2. A "
                          f"sequence is right where the output is less than {MARGIN} off. Training ends when fewer "
                          "than 140 of 2,000 sequences are wrong (in the paper: of the last 2,000 that were trained "
                          "on).",
        text=LOGISTIC, data=fresh(multiplication, 1), measure="share wrong", numbers=dict(T=100), wrong=off_by(MARGIN),
        goal=139 / 2000,
        published={
            "LSTM, 93 weights, until 140 of 2,000 are wrong (table 8)": "482,000 sequences; 139 of 2,560 wrong",
            "LSTM, until 13 of 2,000 are wrong (the same)": "1,273,000 sequences; 14 of 2,560 wrong",
        },
        settings=dict(size=8, batch=20, steps=50_000, every=200, lr=5e-3, schedule="constant"),
    ),
}
