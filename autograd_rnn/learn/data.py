"""Long streams as stretches for truncated BPTT, and sets of sequences as batches: data is a function of the step.

streams (T, batch, ...) -> Batches, which maps the number of steps done to the next Batch. Nothing is remembered between
steps, so a run that is resumed at step n sees what it would have seen.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..errors import CellError
from ..init import generator


@dataclass(frozen=True)
class Batch:
    """The inputs of one step of training, time-major (T, batch, ...), and the number of targets among them.

    fresh: the sequences begin here, so no state is carried in. lengths: each example's, where they differ. steps: where
    no input tells. noise: the seed of the noise where this batch is judged, for a bound that holds in expectation
    alone; by default noise stands at its mean there. What is learnt from has noise drawn anew for each step.
    """

    inputs: dict[str, Any]
    targets: int
    fresh: bool = True
    lengths: np.ndarray | Mapping[str, np.ndarray] | None = None
    steps: int | None = None
    noise: int | None = None


@dataclass(frozen=True)
class Batches:
    """`batches(n)` is the batch of step n, from 0; an epoch has `count` of them."""

    count: int
    at: Callable[[int], Batch] = field(repr=False)

    def __call__(self, step: int) -> Batch:
        return self.at(step)


def streams(sequence: np.ndarray, batch: int) -> np.ndarray:
    """One sequence (N, ...) cut into `batch` contiguous streams side by side: (N // batch, batch, ...).

    >>> streams(np.arange(7), 2).T
    array([[0, 1, 2],
           [3, 4, 5]])
    """
    steps = len(sequence) // batch if batch > 0 else 0
    if not steps:
        raise CellError(f"A sequence of {len(sequence)} steps cannot be cut into {batch} streams.")
    return np.swapaxes(sequence[:steps * batch].reshape(batch, steps, *sequence.shape[1:]), 0, 1)


def stretches(inputs: Mapping[str, np.ndarray], length: int, targets: int | None = None) -> Batches:
    """Streams (T, batch, ...) by name, in stretches of `length` steps, the last one shorter; then from the start again.

    targets: in one step of all streams; by default one for each stream. State is carried from stretch to stretch.

    >>> some = stretches({"k": np.arange(14).reshape(7, 2)}, 3)
    >>> some.count, [len(some(n).inputs["k"]) for n in range(4)], [some(n).fresh for n in range(4)]
    (3, [3, 3, 1, 3], [True, False, False, True])
    """
    steps, batch = _steps_and_batch(inputs, "the same steps and batch", 2)
    if length < 1 or not steps:
        raise CellError(f"{steps} steps cannot be cut into stretches of {length}.")
    count = -(-steps // length)

    def at(step: int) -> Batch:
        start = step % count * length
        part = {name: np.asarray(array)[start:start + length] for name, array in inputs.items()}
        size = min(length, steps - start)
        return Batch(part, size * (batch if targets is None else targets), fresh=start == 0)

    return Batches(count, at)


def shuffled(inputs: Mapping[str, np.ndarray], batch: int, seed: int, lengths: np.ndarray | None = None,
             targets: Callable[[np.ndarray], int] = len) -> Batches:
    """Sequences (T, N, ...) by name, `batch` of the N at a time, in an order drawn anew for each epoch.

    lengths: (N,) steps of each, where they differ. targets: of the chosen examples, given their numbers; by default
    one each. Examples that do not fill a batch wait for another epoch's order.

    >>> some = shuffled({"x": np.arange(10.0).reshape(2, 5)}, 2, seed=0)
    >>> some.count, some(0).inputs["x"].shape, some(0).targets
    (2, (2, 2), 2)
    """
    _, total = _steps_and_batch(inputs, "the same number of examples", 1)
    if not 1 <= batch <= total:
        raise CellError(f"Batches of {batch} cannot be drawn from {total} examples.",
                        remedy=f"Give a size from 1 to {total}.")
    generator(seed, "seed")
    count = total // batch

    def at(step: int) -> Batch:
        epoch, k = divmod(step, count)
        chosen = np.random.default_rng((seed, epoch)).permutation(total)[k * batch:(k + 1) * batch]
        return Batch({name: np.asarray(array)[:, chosen] for name, array in inputs.items()}, targets(chosen),
                     lengths=None if lengths is None else lengths[chosen])

    return Batches(count, at)


def _steps_and_batch(inputs: Mapping[str, np.ndarray], same: str, shared: int) -> tuple[int, int]:
    """The first two axes, of which all inputs share the last `shared`."""
    if not isinstance(inputs, Mapping):
        raise CellError(f"The inputs are a {type(inputs).__name__}.", remedy="Give arrays (T, batch, ...) by name.")
    shapes = {name: np.shape(array)[:2] for name, array in inputs.items()}
    if len({shape[2 - shared:] for shape in shapes.values()}) != 1 or min(map(len, shapes.values())) < 2:
        raise CellError(f"The inputs want {same}, (T, batch, ...); there are {shapes}.")
    steps, batch = next(iter(shapes.values()))
    return steps, batch
