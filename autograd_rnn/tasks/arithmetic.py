"""Adding and multiplying two marked numbers of a long sequence; sums and differences spelled as characters."""

from __future__ import annotations

import numpy as np

from ..learn.data import Batch
from .lags import AFTERWARDS, wrongly_told
from .task import Task, fresh, off_by, one_hot

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


DIGITS, END = "0123456789", "."
LETTERS = "abcdefghijklmnopqrstuvwxyz"
SYMBOLS = DIGITS + "+-=" + END + LETTERS


def problems(rng: np.random.Generator, count: int, digits: int, letters: int) -> list[tuple[str, str]]:
    """(problem, result): numbers of 1 to `digits` digits, with up to `letters` letters after each character.

    >>> problems(np.random.default_rng(0), 2, 3, 0), problems(np.random.default_rng(3), 1, 2, 1)
    ([('377+16=', '393.'), ('13-0=', '13.')], [('2c6i+l2=', '28.')])
    """
    sizes = rng.integers(1, digits + 1, (2, count))
    numbers = rng.integers(np.where(sizes == 1, 0, 10 ** (sizes - 1)), 10 ** sizes).T.tolist()
    minus = rng.integers(0, 2, count).tolist()
    questions = [f"{a}{'+-'[sign]}{b}" for (a, b), sign in zip(numbers, minus)]
    if letters:
        between = iter(rng.integers(0, letters + 1, sum(map(len, questions))).tolist())
        questions = ["".join(c + "".join(rng.choice(list(LETTERS), next(between))) for c in q) for q in questions]
    return [(f"{q}=", f"{a - b if sign else a + b}{END}") for q, (a, b), sign in zip(questions, numbers, minus)]


def spelled(rng: np.random.Generator, count: int, digits: int, letters: int) -> Batch:
    """Problems and their results, character by character: each of a result is to be told from all before it.

    All have the length of the longest that there may be; what follows the end is nothing, and is not asked.
    """
    symbols = np.full(((2 * digits + 1) * (letters + 1) + digits + 3, count), -1)
    asked = np.zeros((len(symbols) - 1, count))
    for n, (question, answer) in enumerate(problems(rng, count, digits, letters)):
        told = len(question) + len(answer)
        symbols[:told, n] = [SYMBOLS.index(c) for c in question + answer]
        asked[len(question) - 1:told - 1, n] = 1
    seen = np.where(symbols[1:] >= 0, symbols[:-1], -1)  # not the end: nothing follows it
    return Batch({"x": one_hot(seen, outputs(letters)), "k": np.maximum(symbols[1:], 0), "asked": asked},
                 int(asked.sum()))


def outputs(letters: int) -> int:
    """How many symbols there are."""
    return len(SYMBOLS) if letters else len(SYMBOLS) - len(LETTERS)


def always_the_end(digits: int, letters: int) -> float:
    """The share told wrong where each character is taken for the last, by 10,000 problems."""
    drawn = problems(np.random.default_rng(0), 10_000, digits, 0)
    return 1 - float(np.mean([1 / len(answer) for _, answer in drawn]))


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
    "arithmetic": Task(
        source="Jozefowicz, Zaremba, Sutskever, An empirical exploration of recurrent network architectures, ICML "
               "2015, section 3.3",
        definition="Two numbers of 1 to `digits` digits with + or - between them and = after them, spelled as "
                   "characters, with 0 to `letters` letters after each; then the sum or difference, ended by a full "
                   "stop. Each character of the result is to be told, those before it being shown. The mean over "
                   "problems of the share told wrong (in the paper: 8 digits, with letters).",
        text=AFTERWARDS, data=fresh(spelled, lambda digits, letters: outputs(letters), 500, 1000),
        measure="share wrong", numbers=dict(digits=2, letters=0), wrong=wrongly_told,
        baselines={"always the full stop": always_the_end},
        published={f"{who}, 8 digits and letters, at most 5,000,000 weights (table 1, from memory; of all characters)":
                   f"{wrong} wrong" for who, wrong in (
                       ("RNN", 0.705), ("LSTM", 0.108), ("LSTM, forget bias 1", 0.098), ("GRU", 0.104),
                       ("MUT1", 0.079), ("MUT2", 0.103), ("MUT3", 0.093))},
        settings=dict(size=128, batch=20, steps=20_000, every=500, lr=5e-3),
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
