"""Symbols that matter long after they were seen: long time lags, temporal order, copying."""

from __future__ import annotations

import numpy as np

from ..learn.data import Batch
from .task import Task, fresh, off_by, one_hot

PAPER = "Hochreiter, Schmidhuber, Long short-term memory, Neural Computation 9(8), 1997"
LAST = """
h[t] = cell(x=x[t])
y = sigmoid(V @ h[T] + c)
L = mse(y, goal)
goal: input
"""
NEXT = """
h[t] = cell(x=x[t])
y[t] = sigmoid(V @ h[t] + S @ x[t])
L = sum_t(mse(y[t], goal[t]))
"""
COPY = """
h[t] = cell(x=x[t])
y[t] = V @ h[t] + c
L = sum_t(cross_entropy(y[t], k[t]))
"""

AFTERWARDS = """
h[t] = cell(x=x[t])
y[t] = V @ h[t] + c
L = sum_t(where(asked[t], cross_entropy(y[t], k[t]), 0))
asked: input()
"""


def following(symbols: np.ndarray, count: int) -> Batch:
    """Sequences (T+1, batch) of symbols: each is to be predicted from those before it."""
    seen = one_hot(symbols, count)
    return Batch({"x": seen[:-1], "goal": seen[1:]}, symbols.shape[1])


def noise_free(rng: np.random.Generator, count: int, p: int) -> Batch:
    """(y, a_1, ..., a_(p-1), y) or (x, a_1, ..., a_(p-1), x): p + 1 symbols, x and y the last two."""
    ends = rng.integers(p - 1, p + 1, count)
    return following(np.vstack([ends, np.tile(np.arange(p - 1)[:, None], count), ends]), p + 1)


def random_between(rng: np.random.Generator, count: int, p: int) -> Batch:
    """The same, with symbols drawn from a_1, ..., a_(p-1) in between."""
    ends = rng.integers(p - 1, p + 1, count)
    return following(np.vstack([ends, rng.integers(0, p - 1, (p - 1, count)), ends]), p + 1)


def long_lag(rng: np.random.Generator, count: int, q: int, p: int) -> Batch:
    """(b, y, a.., a, e, y) or (b, x, a.., a, e, x): q distractors and more, one at a time with probability 9/10.

    Symbols are a_1, ..., a_p, b, e, x, y; the last is not shown, it is the goal.
    """
    more = np.minimum(rng.geometric(0.1, count) - 1, 60)
    longest = q + 63
    symbols = rng.integers(0, p, (longest, count))
    which, each = rng.integers(0, 2, count), np.arange(count)
    symbols[0], symbols[1], symbols[2 + q + more, each] = p, p + 2 + which, p + 1
    return Batch({"x": one_hot(symbols, p + 4), "goal": one_hot(which, 2)}, count, lengths=3 + q + more)


def two_sequences(rng: np.random.Generator, count: int, T: int, N: int, noisy: bool, targets: bool) -> Batch:
    """Class 1 begins with N times 1, class 2 with N times -1; the rest, and these too if noisy, has noise N(0, 0.2).

    goal: 1 or 0; with noise on the targets 0.2 or 0.8 and N(0, 0.1).
    """
    longest = T + T // 10
    sign = rng.choice([-1.0, 1.0], count)
    x = rng.normal(0, np.sqrt(0.2), (longest, count))
    x[:N] = sign + x[:N] * noisy
    goal = 0.5 - sign * 0.3 + rng.normal(0, np.sqrt(0.1), count) if targets else (sign + 1) / 2
    return Batch({"x": x[..., None], "goal": goal[:, None]}, count, lengths=rng.integers(T, longest + 1, count))


def temporal_order(rng: np.random.Generator, count: int, windows: tuple[tuple[int, int], ...]) -> Batch:
    """E, then a, b, c, d at random, X or Y at one step of each window, B at the end: which class of X and Y was it?"""
    lengths = rng.integers(100, 111, count)
    symbols, each, found = rng.integers(0, 4, (110, count)), np.arange(count), np.zeros(count, int)
    for first, last in windows:
        which = rng.integers(0, 2, count)
        symbols[rng.integers(first, last + 1, count), each] = 6 + which
        found = 2 * found + which
    symbols[0], symbols[lengths - 1, each] = 4, 5
    return Batch({"x": one_hot(symbols, 8), "goal": one_hot(found, 2 ** len(windows))}, count, lengths=lengths)


def copying(rng: np.random.Generator, count: int, T: int) -> Batch:
    """10 symbols of 8, T - 1 blanks, 11 markers; goal: T + 10 blanks, then the 10 symbols (Bai et al. 2018, utils)."""
    first = rng.integers(1, 9, (10, count))
    seen = np.vstack([first, np.zeros((T - 1, count), int), np.full((11, count), 9)])
    return Batch({"x": one_hot(seen, 10), "k": np.vstack([np.zeros((T + 10, count), int), first])}, seen.size)


def memorization(rng: np.random.Generator, count: int, N: int, symbols: int) -> Batch:
    """N symbols, a marker, and N - 1 of them again: from the marker on, each next one is to be told."""
    first = rng.integers(0, symbols, (N, count))
    seen = np.vstack([first, np.full((1, count), symbols), first[:-1]])
    asked = np.broadcast_to(np.arange(2 * N)[:, None] >= N, seen.shape)
    return Batch({"x": one_hot(seen, symbols + 1), "k": np.vstack([np.zeros_like(first), first]),
                  "asked": asked.astype(float)}, N * count)


def wrongly_told(trace, batch: Batch) -> np.ndarray:
    """The share of an example's symbols that are told wrong, of those that are asked for."""
    asked = batch.inputs["asked"]
    return (asked * (trace["y"].argmax(axis=-1) != batch.inputs["k"])).sum(axis=0) / asked.sum(axis=0)


def every_step_off_by(margin: float):
    """A sequence is wrong where any output at any step is `margin` or more from its goal."""
    return lambda trace, batch: (np.abs(trace["y"] - batch.inputs["goal"]) >= margin).any(axis=(0, -1)).astype(float)


def last_step_off_by(margin: float):
    """A sequence is wrong where any output at its last step is `margin` or more from its goal."""
    return lambda trace, batch: (np.abs(trace["y"] - batch.inputs["goal"])[-1] >= margin).any(axis=-1).astype(float)


def order(windows, name: str, published: dict[str, str]) -> Task:
    places = ", ".join(f"{first} to {last}" for first, last in windows)
    return Task(
        source=f"{PAPER}, experiment {name}",
        definition="Local coding of 8 symbols. A sequence of 100 to 110 begins with E and ends with B; between them "
                   f"stand a, b, c, d at random, and X or Y at one step of each of {places} (steps from 0). The class "
                   "is which of X and Y stood where. A sequence is right where all outputs are less than 0.3 off. "
                   "Training ends when 2,000 sequences are right (in the paper: the last 2,000 that were trained on, "
                   "and the error below 0.1).",
        text=LAST, data=fresh(lambda rng, count: temporal_order(rng, count, windows), 2 ** len(windows)),
        measure="share wrong", wrong=off_by(0.3), goal=0.0, published=published,
        settings=dict(size=8, batch=16, steps=10_000, every=50, lr=1e-2, schedule="constant"))


def two(name: str, told: str, published: dict[str, str], noisy: bool = False, targets: bool = False, most: int = 0
        ) -> Task:
    return Task(
        source=f"{PAPER}, experiment {name}",
        definition="A sequence of numbers, of a length from T to 1.1 T. Its first N are 1 in one class and -1 in the "
                   f"other; what follows is Gaussian noise of variance 0.2. {told} Training ends when "
                   f"{f'at most {most}' if most else 'none'} of 256 sequences is classified wrong (the first of two "
                   "conditions in the paper).",
        text=LAST, data=fresh(lambda rng, count, T, N: two_sequences(rng, count, T, N, noisy, targets), 1, 256),
        measure="share wrong", numbers=dict(T=100, N=3), goal=most / 256, published=published,
        wrong=clear_goal_off_by(0.1) if targets else off_by(0.2),
        settings=dict(size=6, batch=16, steps=20_000, every=50, lr=1e-2, schedule="constant"))


def clear_goal_off_by(margin: float):
    """Wrong where the output is `margin` or more from the class's mean target, 0.2 or 0.8; x tells the class."""
    def wrong(trace, batch):
        clear = 0.5 - 0.3 * np.sign(batch.inputs["x"][0])
        return (np.abs(trace["y"] - clear) >= margin).any(axis=-1).astype(float)

    return wrong


TASKS = {
    "noise_free_lag": Task(
        source=PAPER + ", experiment 2a",
        definition="(y, a1, ..., a(p-1), y) or (x, a1, ..., a(p-1), x), either with probability 1/2, local coding of "
                   "p + 1 symbols; each is to be predicted from those before. Inputs and outputs are joined directly "
                   "too, as in the paper. Training ends when no output is 0.25 or more off "
                   "at any step (in the paper: of 10,000 sequences; there are two).",
        text=NEXT, data=fresh(noise_free, lambda p: p + 1, judged=20, test=20), measure="share wrong",
        numbers=dict(p=100), wrong=every_step_off_by(0.25), goal=0.0,
        published={
            "LSTM, p = 100, 10,504 weights, rate 1.0 (table 2, 18 trials)": "100 % solved; 5,040 sequences",
            "neural sequence chunker (the same)": "33 % solved; 32,400 sequences",
            "BPTT and RTRL (the same)": "0 % solved in 5,000,000 sequences",
        },
        settings=dict(size=1, batch=1, steps=50_000, every=100, lr=1e-2, schedule="constant"),
    ),
    "random_lag": Task(
        source=PAPER + ", experiment 2b",
        definition="As noise_free_lag, but that a1, ..., a(p-1) stand in random order and number, so that only the "
                   "last symbol can be predicted. Training ends when it is in 2,000 sequences, no output being 0.25 or "
                   "more off.",
        text=NEXT, data=fresh(random_between, lambda p: p + 1, test=500), measure="share wrong", numbers=dict(p=100),
        wrong=last_step_off_by(0.25), goal=0.0,
        published={"LSTM, p = 100 (section 5.2, 18 trials)": "5,680 sequences"},
        settings=dict(size=1, batch=1, steps=50_000, every=500, lr=1e-2, schedule="constant"),
    ),
    "long_lag": Task(
        source=PAPER + ", experiment 2c",
        definition="(b, y, q and more of a1, ..., ap at random, e, y), or with x for y, either with probability 1/2; "
                   "after q distractors each next symbol is e with probability 1/10 (at most 60 more here). When e "
                   "was seen, y or x is to be told, no output 0.2 or more off. Training ends when 2,000 sequences "
                   "are right (in the paper: 10,000).",
        text=LAST.replace(" + c", ""), data=fresh(long_lag, 2, test=2000), measure="share wrong",
        numbers=dict(q=50, p=50), wrong=off_by(0.2), goal=0.0,
        published={f"LSTM, q = {q}, p = {p}, {w} weights (table 3, 20 trials)": f"{n} sequences" for q, p, w, n in (
            (50, 50, "364", "30,000"), (100, 100, "664", "31,000"), (200, 200, "1,264", "33,000"),
            (500, 500, "3,064", "38,000"), (1000, 1000, "6,064", "49,000"))},
        settings=dict(size=2, batch=1, steps=200_000, every=1000, lr=1e-2, schedule="constant"),
    ),
    "two_sequences": two("3a", "The goal is 1 or 0; an output 0.2 off is wrong.", {
        "LSTM, T = 100, N = 3 (table 4)": "27,380 sequences", "LSTM, T = 100, N = 1 (the same)": "58,370 sequences",
        "LSTM, T = 1000, N = 3 (the same)": "446,850 sequences"}),
    "two_sequences_noisy": two("3b", "The first N have the same noise. The goal is 1 or 0; an output 0.2 off is wrong.",
                               {"LSTM, T = 100, N = 3 (table 5)": "41,740 sequences",
                                "LSTM, T = 100, N = 1 (the same)": "74,950 sequences",
                                "LSTM, T = 1000, N = 1 (the same)": "481,060 sequences"}, noisy=True, most=5),
    "two_sequences_noisy_targets": two(
        "3c", "The goal is 0.2 or 0.8 with Gaussian noise of variance 0.1; an output that is 0.1 from the goal's mean "
              "is wrong.", {"LSTM, T = 100, N = 3 (table 6)": "269,650 sequences",
                            "LSTM, T = 100, N = 1 (the same)": "565,640 sequences"}, targets=True),
    "temporal_order": order(((10, 20), (50, 60)), "6a", {
        "LSTM, 156 weights, rate 0.5 (table 9, 20 trials)": "31,390 sequences; 1 of 2,560 wrong"}),
    "temporal_order_3": order(((10, 20), (33, 43), (66, 76)), "6b", {
        "LSTM, 308 weights, rate 0.1 (table 9, 10 trials)": "571,100 sequences; 2 of 2,560 wrong"}),
    "memorization": Task(
        source="Jozefowicz, Zaremba, Sutskever, An empirical exploration of recurrent network architectures, ICML "
               "2015, section 3.2, where a cell that fails it is tried no further",
        definition="N symbols, drawn with repetition, are shown one after another, then a marker; they are to be told "
                   "again in the same order, each once the one before was shown. The share of symbols that are told "
                   "wrong (in the paper: 5 symbols of 26).",
        text=AFTERWARDS, data=fresh(memorization, lambda N, symbols: symbols, 500, 500), measure="share wrong",
        numbers=dict(N=5, symbols=26), wrong=wrongly_told,
        baselines={"one of the symbols": lambda N, symbols: 1 - 1 / symbols},
        published={"what a cell must reach to be tried further (the same, from memory)": "0.05"},
        settings=dict(size=64, batch=20, steps=2000, every=100, lr=5e-3, schedule="constant"),
    ),
    "copying": Task(
        source="Arjovsky, Shah, Bengio, Unitary evolution recurrent neural networks, arXiv:1511.06464, 2016, section "
               "4.1; inputs as in Bai, Kolter, Koltun, arXiv:1803.01271, 2018",
        definition="10 symbols of 8, then blanks, then a marker from step T + 10 on: 10 steps later the 10 symbols are "
                   "to be told, blanks before. Cross-entropy in nats, the mean over all T + 20 steps.",
        text=COPY, data=fresh(copying, 10, 500, 500), measure="nats per step", numbers=dict(T=100),
        baselines={"blanks, then each symbol with 1/8: 10 ln 8 / (T + 20)": lambda T: 10 * np.log(8) / (T + 20)},
        published={
            "LSTM, T = 1000 (Bai et al., table 1, 16,000 weights)": "0.0204", "GRU (the same)": "0.0197",
            "RNN (the same)": "0.0202", "TCN (the same)": "3.5e-5"},
        settings=dict(size=64, batch=32, steps=10_000, every=250, lr=5e-3, schedule="constant"),
        recalled="the first paper's definition; the second's code was read.",
    ),
}
