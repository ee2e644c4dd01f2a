"""Strings of grammars: the embedded Reber grammar, strings end to end, and counting languages."""

from __future__ import annotations

import numpy as np

from ..errors import CellError
from ..learn.data import Batch, Batches, shuffled, stretches
from .task import Data, Task, fresh, one_hot

PAPER = "Hochreiter, Schmidhuber, Long short-term memory, Neural Computation 9(8), 1997"
ALPHABET = "BTPSXVE"
REBER = ({"T": 1, "P": 2}, {"S": 1, "X": 3}, {"T": 2, "V": 4}, {"X": 2, "S": 5}, {"P": 3, "V": 5}, {"E": 6})

ENTROPY = """
h[t] = cell(x=x[t])
y[t] = V @ h[t] + c
L = sum_t(bce(y[t], goal[t]))
"""


def embedded(rng: np.random.Generator) -> str:
    """B, T or P, a Reber string, the same T or P, E.

    >>> embedded(np.random.default_rng(2))
    'BPBPTTTVPSEPE'
    """
    outer, inner, state = "TP"[rng.integers(2)], "B", 0
    while state < 6:
        symbol = sorted(REBER[state])[rng.integers(len(REBER[state]))]
        inner, state = inner + symbol, REBER[state][symbol]
    return f"B{outer}{inner}{outer}E"


def legal(string: str) -> list[str]:
    """The symbols that may follow each symbol of strings of the embedded grammar, one after another.

    >>> legal("BTBTXSETEB")
    ['TP', 'B', 'TP', 'SX', 'XS', 'E', 'T', 'E', 'B', 'TP']
    """
    found, outer, state, place = [], "", 0, "end"
    for symbol in string:
        if place == "end":
            place, may = "outer", "TP"
        elif place == "outer":
            outer, place, may = symbol, "begin", "B"
        elif place == "begin":
            state, place, may = 0, "inner", "".join(REBER[0])
        elif place == "inner":
            state = REBER[state][symbol]
            place, may = ("inner", "".join(REBER[state])) if state < 6 else ("again", outer)
        elif place == "again":
            place, may = "last", "E"
        else:
            place, may = "end", "B"
        found.append(may)
    return found


def codes(string: str) -> np.ndarray:
    return np.array([ALPHABET.index(symbol) for symbol in string])


def may_follow(symbols: np.ndarray) -> np.ndarray:
    """(T, batch, 7): which symbols may follow, for columns of symbols; what is below 0 ends a column."""
    found = np.zeros((*symbols.shape, len(ALPHABET)), bool)
    for n, column in enumerate(symbols.T):
        for t, may in enumerate(legal("".join(ALPHABET[k] for k in column if k >= 0))):
            found[t, n, codes(may)] = True
    return found


def seen(batch: Batch) -> np.ndarray:
    """The symbols of x, -1 where there is none."""
    x = batch.inputs["x"]
    return np.where(x.any(axis=-1), x.argmax(axis=-1), -1)


def mistaken(trace, batch) -> np.ndarray:
    """(T, batch): whether a symbol that may not follow is as active as one that may."""
    y, may = trace["y"], may_follow(seen(batch))
    least, most = np.where(may, y, np.inf).min(axis=-1), np.where(may, -np.inf, y).max(axis=-1)
    return (least <= most) & may.any(axis=-1)


def reber(batch: int, length: int, seed: int, strings: int) -> Data:
    """Twice as many different strings; one half to learn from, the other to test."""
    rng = np.random.default_rng(seed)
    found: dict[str, None] = {}
    while len(found) < 2 * strings:
        found[embedded(rng)] = None
    lengths = np.array([len(s) - 1 for s in found])
    symbols = np.full((max(lengths) + 1, len(found)), -1)
    for n, string in enumerate(found):
        symbols[:len(string), n] = codes(string)
    arrays = {"x": one_hot(np.where(symbols[1:] >= 0, symbols[:-1], -1), 7), "goal": one_hot(symbols[1:], 7)}

    def some(part) -> tuple[dict, np.ndarray]:
        return {name: array[:, part] for name, array in arrays.items()}, lengths[part]

    def whole(part) -> Batches:
        inputs, steps = some(part)
        return Batches(1, lambda step: Batch(inputs, int(steps.sum()), lengths=steps))

    first, second = slice(None, strings), slice(strings, None)
    inputs, steps = some(first)
    return Data(shuffled(inputs, batch, seed, steps, lambda chosen: int(steps[chosen].sum())), whole(slice(None)),
                whole(second), 7)


def continual(batch: int, length: int, seed: int, symbols: int) -> Data:
    """Strings end to end, in streams side by side, `symbols` of each; the state is carried on."""
    def streams(which: int, count: int, steps: int) -> dict[str, np.ndarray]:
        rng, columns = np.random.default_rng((seed, which)), []
        for _ in range(count):
            strings = ""
            while len(strings) <= steps:
                strings += embedded(rng)
            columns.append(codes(strings[:steps + 1]))
        both = one_hot(np.stack(columns, axis=1), 7)
        return {"x": both[:-1], "goal": both[1:]}

    def whole(which: int) -> Batches:
        inputs = streams(which, 10, 2000)
        return Batches(1, lambda step: Batch(inputs, 20_000))

    return Data(stretches(streams(0, batch, symbols), length), whole(1), whole(2), 7)


def outer_wrong(trace, batch) -> np.ndarray:
    """Of each stream, the share of strings whose last T or P is wrong: the symbol that only its second tells."""
    may, wrong = may_follow(seen(batch)), mistaken(trace, batch)
    ahead = np.concatenate([may[1:], np.zeros_like(may[:1])])
    only_end = (ahead.sum(axis=-1) == 1) & ahead[..., codes("E")[0]] & (may.sum(axis=-1) == 1)
    where = only_end & (may[..., codes("T")[0]] | may[..., codes("P")[0]])
    return (wrong & where).sum(axis=0) / where.sum(axis=0)


def counting(letters: str):
    """(rng, count, low, high) -> S a^n b^n (c^n): symbols S, the letters, and E, which ends; goal: what may follow."""
    def draw(rng: np.random.Generator, count: int, low: int, high: int, each: bool = False) -> Batch:
        n = np.arange(low, high + 1) if each else rng.integers(low, high + 1, count)
        k = len(letters)
        t = np.arange(k * high + 1)[:, None]
        symbol = np.where(t <= k * n, np.ceil(t / n).astype(int), -1)
        goal = np.zeros((*symbol.shape, k + 2))
        goal[..., 1] = (symbol == 0) | (symbol == 1)
        for place in range(2, k + 2):  # the next letter, or the end: after a's at any time, after others at the last
            goal[..., place] = (t == (place - 1) * n) | ((symbol == place) & (t < place * n) & (place <= k)) | (
                (symbol == 1) & (place == 2))
        goal[symbol < 0] = 0
        return Batch({"x": one_hot(symbol, k + 2), "goal": goal}, int((k * n + 1).sum()), lengths=k * n + 1)

    def data(batch: int, length: int, seed: int, n: int, farthest: int) -> Data:
        if not 1 <= n <= farthest:
            raise CellError(f"Strings to n = {n} are learnt from, and to {farthest} tested.", remedy="Give 1 <= n.")

        def every(high: int) -> Batches:
            return Batches(1, lambda step: draw(np.random.default_rng(0), high, 1, high, each=True))

        drawn = fresh(draw, len(letters) + 2)(batch, length, seed, low=1, high=n)
        return Data(drawn.train, every(n), every(farthest), len(letters) + 2)

    return data


def set_wrong(trace, batch) -> np.ndarray:
    """A string is wrong where, at any step, what is told to be possible (a logit above 0) is not what is."""
    inside = np.arange(len(trace["y"]))[:, None] < batch.lengths
    return (((trace["y"] > 0) != (batch.inputs["goal"] > 0)).any(axis=-1) & inside).any(axis=0).astype(float)


def counter(letters: str, published: dict[str, str]) -> Task:
    name = " ".join(f"{letter}^n" for letter in letters)
    return Task(
        source="Gers, Schmidhuber, LSTM recurrent networks learn simple context-free and context-sensitive languages, "
               "IEEE Transactions on Neural Networks 12(6), 2001",
        definition=f"S {name} E: after each symbol, the set of those that may follow is to be told. Learnt from n = 1 "
                   "to `n`; training ends when all of these are right at every step. The test is on every n to "
                   "`farthest`, so that its share of wrong strings says how far the counting reaches.",
        text=ENTROPY, data=counting(letters), measure="share wrong", numbers=dict(n=10, farthest=100),
        wrong=set_wrong, goal=0.0, published=published,
        settings=dict(size=4, batch=10, steps=20_000, every=50, lr=1e-2, schedule="constant"),
        recalled="the paper's definition; the figures are a re-run's, whose code was read.")


RERUN = "cybertronai/schmidhuber-problems, NumPy"
TASKS = {
    "embedded_reber": Task(
        source=PAPER + ", experiment 1",
        definition="Strings of the embedded Reber grammar: B, T or P, a Reber string, the same T or P, E. 256 "
                   "different ones to learn from and 256 others to test; each symbol is to be predicted. A string is "
                   "right where all symbols that may follow are more active than all others, at every step. Training "
                   "ends when all 512 are right.",
        text=ENTROPY, data=reber, measure="share wrong", numbers=dict(strings=256), goal=0.0,
        wrong=lambda trace, batch: mistaken(trace, batch).any(axis=0).astype(float),
        published={
            "LSTM, 3 blocks of 2, rate 0.5 (table 1, 30 trials)": "100 % solved; 8,440 sequences",
            "LSTM, 4 blocks of 1, rate 0.5 (the same)": "97 % solved; 9,500 sequences",
            "LSTM, 4 blocks of 1, rate 0.1 (the same)": "100 % solved; 39,740 sequences",
            "recurrent cascade correlation, 7 to 9 units (the same)": "50 % solved; 182,000 sequences",
            f"LSTM with a forget gate, 8 cells, Adam ({RERUN}, 10 seeds)": "100 % solved; 4,800 sequences",
        },
        settings=dict(size=8, batch=1, steps=30_000, every=100, lr=1e-2, schedule="constant"),
    ),
    "continual_reber": Task(
        source="Gers, Schmidhuber, Cummins, Learning to forget: continual prediction with LSTM, Neural Computation "
               "12(10), 2000; what is measured as in " + RERUN,
        definition="Strings of the embedded Reber grammar end to end, without a sign where one begins. State is "
                   "carried on, gradients reach back `length` steps. Measured is the share of strings whose last T or "
                   "P, which only their second symbol tells, is predicted wrong, on 10 streams of 2,000 symbols.",
        text=ENTROPY, data=continual, measure="share wrong", numbers=dict(symbols=20_000), wrong=outer_wrong,
        baselines={"T and P are as likely": lambda symbols: 0.5},
        published={f"LSTM with a forget gate ({RERUN}, 5 seeds)": "0.003", f"LSTM without ({RERUN})": "0.45"},
        settings=dict(size=16, batch=16, length=50, steps=4000, every=200, lr=1e-2),
    ),
    "anbn": counter("ab", {f"LSTM with peepholes, 2 cells, n to 10 ({RERUN})": "right to n = 65 .. 100"}),
    "anbncn": counter("abc", {f"LSTM with peepholes, 3 cells, n to 10 ({RERUN})": "right to n = 18 .. 29"}),
}
