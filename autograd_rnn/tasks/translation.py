"""From one sequence to another: symbols to be told again, from the first or from the last.

Most tasks here want a whole model, which has the source x[s] and the target classes k[t]: an encoder, a decoder, its
loss.
"""

from __future__ import annotations

from functools import partial

import numpy as np

from ..learn.data import Batch, Batches
from .files import digit_images
from .lags import COPY
from .task import JUDGED, TEST, TOGETHER, Data, Task, fresh, one_hot

FIRST = "Sutskever, Vinyals, Le, arXiv:1409.3215, 2014, and Bahdanau, Cho, Bengio, arXiv:1409.0473, 2014, whose " \
        "sentences are symbols at random here"


def sequences(rng: np.random.Generator, count: int, shortest: int, longest: int, symbols: int, backwards: bool
              ) -> Batch:
    """x[s]: from `shortest` to `longest` symbols at random; k[t]: the same, then the end, class `symbols`."""
    lengths = rng.integers(shortest, longest + 1, count)
    source = rng.integers(0, symbols, (longest, count))
    step = np.arange(longest)[:, None]
    told = np.take_along_axis(source, np.where(backwards, lengths - 1 - step, step), axis=0)  # wraps where nothing is
    k = np.where(np.arange(longest + 1)[:, None] < lengths, np.vstack([told, told[:1]]), symbols)
    return Batch({"x": one_hot(source, symbols), "k": k}, int((lengths + 1).sum()),
                 lengths={"s": lengths, "t": lengths + 1})


def drawn(batch: int, length: int, seed: int, S: int, symbols: int, backwards: bool) -> Data:
    """Lengths from 1 to S are learnt from; length S is judged."""
    def batches(which: int, count: int, size: int, shortest: int) -> Batches:
        return Batches(count, lambda step: sequences(np.random.default_rng((seed, which, step)), size, shortest, S,
                                                     symbols, backwards))

    return Data(batches(0, 1, batch, 1), batches(1, JUDGED // TOGETHER, TOGETHER, S),
                batches(2, -(-TEST // TOGETHER), TOGETHER, S), symbols + 1)


def any_wrong(trace, batch: Batch) -> np.ndarray:
    """A sequence is wrong where any class of it is.

    Each class is told with the right ones before it. Where all are right, greedy decoding, which reads its own, tells
    the same; where the first wrong one is, greedy decoding goes wrong too.
    """
    k, lengths = batch.inputs["k"], dict(batch.lengths or {})
    inside = np.arange(len(k))[:, None] < lengths["t"]
    return ((trace["y"].argmax(axis=-1) != k) & inside).any(axis=0).astype(float)


def told_again(how: str, backwards: bool) -> Task:
    return Task(
        source=FIRST,
        definition=f"A sequence of symbols at random is to be told again, {how}, and then its end. Lengths from 1 to S "
                   "are learnt from; sequences of length S are judged, each as a whole: it is right where every class "
                   "of it is.",
        text=None, data=partial(drawn, backwards=backwards), measure="share of sequences wrong",
        numbers=dict(S=20, symbols=8), wrong=any_wrong,
        baselines={"at random": lambda S, symbols: 1 - float(symbols) ** -S},
        settings=dict(size=32, embedding=16, batch=32, steps=400, every=100, lr=5e-3))


def digit_pairs(batch: int, length: int, seed: int) -> Data:
    """x[s]: the eight 4 x 4 patches of two digits side by side, each with its place; k[t]: which digits they are."""
    pixels, digit = digit_images()
    halves = pixels.reshape(2, 4, 2, 4, -1).transpose(0, 2, 1, 3, 4).reshape(4, 16, -1)  # patch, pixel, digit
    total = len(digit)

    def some(rng: np.random.Generator, count: int, low: int, high: int) -> Batch:
        two = rng.integers(low, high, (2, count))
        patches = np.concatenate([halves[..., n] for n in two]).transpose(0, 2, 1)
        place = np.broadcast_to(np.eye(8)[:, None], (8, count, 8))
        return Batch({"x": np.concatenate([patches, place], axis=-1), "k": digit[two]}, 2 * count,
                     lengths={"t": np.full(count, 2)})

    def batches(which: int, count: int, low: int, high: int) -> Batches:
        return Batches(1, lambda step: some(np.random.default_rng((seed, which, step)), count, low, high))

    return Data(batches(0, batch, 0, total - 500), batches(1, 1000, total - 500, total - 250),
                batches(2, 1000, total - 250, total), 10)


def addition(rng: np.random.Generator, count: int, n: int) -> Batch:
    """x[t]: a mark, a number of n digits, a mark, another, a mark, and n + 2 marks; k[t]: at the end their sum."""
    numbers = rng.integers(0, 10**n, (2, count))

    def digits(value: np.ndarray, size: int) -> np.ndarray:
        return value // 10 ** np.arange(size - 1, -1, -1)[:, None] % 10  # the first digit first

    mark = np.full((1, count), 10)
    seen = np.vstack([mark, digits(numbers[0], n), mark, digits(numbers[1], n), np.repeat(mark, n + 3, axis=0)])
    k = np.vstack([np.repeat(mark, 2 * n + 3, axis=0), digits(numbers.sum(axis=0), n + 1), mark])
    return Batch({"x": one_hot(seen, 11), "k": k}, k.size)


def sum_wrong(trace, batch: Batch) -> np.ndarray:
    """The share of the sum's digits that are wrong."""
    k = batch.inputs["k"]
    n = (len(k) - 5) // 3
    return (trace["y"].argmax(axis=-1) != k)[-n - 2:-1].mean(axis=0)


TASKS = {
    "reverse": told_again("from its last to its first", True),
    "copy": told_again("from its first to its last", False),
    "digit_pairs": Task(
        source="Xu and others, arXiv:1502.03044, 2015, with parts of scikit-learn's digits as annotations",
        definition="Two handwritten digits side by side as eight patches of 4 x 4 pixels, each with its place as a "
                   "unit vector; the digits are to be told from left to right. Those tested were not learnt "
                   "from. A pair is right where both are.",
        text=None, data=digit_pairs, measure="share of pairs wrong", wrong=any_wrong,
        baselines={"at random": lambda: 0.99},
        settings=dict(size=32, embedding=8, batch=32, steps=1000, every=100, lr=5e-3)),
    "addition": Task(
        source="Kalchbrenner, Danihelka, Graves, arXiv:1507.01526, 2015, whose n is 15",
        definition="Two numbers of n digits are read digit by digit; then their sum of n + 1 digits is to be told, the "
                   "first digit first, none of it being shown. The share of the sum's digits that are wrong.",
        text=COPY, data=fresh(addition, 11), measure="share of digits wrong", numbers=dict(n=2), wrong=sum_wrong,
        baselines={"a digit at random": lambda n: 0.9},
        settings=dict(size=32, batch=32, steps=1000, every=100, lr=5e-3)),
}
