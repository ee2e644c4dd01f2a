"""From one sequence to another: symbols to be told again, from the first or from the last.

A task here wants a whole model, which has the source x[s] and the target classes k[t]: an encoder, a decoder, its loss.
"""

from __future__ import annotations

from functools import partial

import numpy as np

from ..learn.data import Batch, Batches
from .task import JUDGED, TEST, TOGETHER, Data, Task, one_hot

FIRST = "Sutskever, Vinyals, Le, arXiv:1409.3215, 2014, and Bahdanau, Cho, Bengio, arXiv:1409.0473, 2014, whose sentences " \
        "are symbols at random here"


def sequences(rng: np.random.Generator, count: int, shortest: int, longest: int, symbols: int, backwards: bool) -> Batch:
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
    k = batch.inputs["k"]
    inside = np.arange(len(k))[:, None] < batch.lengths["t"]
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


TASKS = {"reverse": told_again("from its last to its first", True), "copy": told_again("from its first to its last", False)}
