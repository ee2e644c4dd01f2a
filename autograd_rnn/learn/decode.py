"""Decoding: the likeliest classes of a model that reads back the classes it has told.

    model, params, source -> classes, their log-probability

The model is any cell whose loss has a cross_entropy of logits y[t] and a class k[t], and whose y[t] depends on classes
before t alone. Each further class is told by a run over what has been told, so that T classes cost O(T^2) steps.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from ..bind import whole
from ..cell import Cell
from ..errors import CellError
from .charlm import class_and_logits


def greedy(model: Cell, params: Mapping[str, np.ndarray], end: int, longest: int, **source) -> tuple[list[int], float]:
    """(classes, log-probability): the likeliest class at each step, until `end` is told or `longest` classes are.

    source: what else the model takes, of one example, without a batch.
    """
    return beam(model, params, end, longest, 1, **source)


def beam(model: Cell, params: Mapping[str, np.ndarray], end: int, longest: int, width: int, **source
         ) -> tuple[list[int], float]:
    """(classes, log-probability) of the best of those found when the `width` likeliest beginnings are kept.

    A sequence ends with the class `end`, or at `longest` classes. With a width that keeps every beginning it is the
    maximum over all sequences. Graves, arXiv:1211.3711, 2012; Sutskever, Vinyals, Le, arXiv:1409.3215, 2014. Raises
    CellError for a model that reads back no class, or a number that is not whole.

    >>> model = Cell("y[t] = b + W @ onehot(k[t-1])\\nL = sum_t(cross_entropy(y[t], k[t]))")
    >>> params = {"b": np.log([0.5, 0.3, 0.2]), "W": np.zeros((3, 3))}
    >>> classes, told = beam(model, params, end=2, longest=3, width=9)
    >>> classes, round(float(np.exp(told)), 3)
    ([2], 0.2)
    """
    found = class_and_logits(model)
    if found is None or found[0] not in model.system.delayed:
        raise CellError(f"{model!r} reads back no class that it tells.",
                        remedy="It reads k[t-1] and has a loss like sum_t(cross_entropy(y[t], k[t])).")
    name, logits = found
    for what, number in (("longest", longest), ("width", width)):
        if not whole(number):
            raise CellError(f"`{what}` is {number!r}.", remedy="Give a whole number from 1.")
    kept: list[tuple[list[int], float]] = [([], 0.0)]
    for _ in range(longest):
        longer = []
        for classes, told in kept:
            if classes and classes[-1] == end:
                longer.append((classes, told))
                continue
            inputs: dict = {**source, name: np.array([*classes, 0])}  # y[t] does not see k[t]
            y = np.asarray(model.run(params, noise="mean", **inputs)[logits][-1], np.float64)
            each = y - np.logaddexp.reduce(y)
            longer += [([*classes, n], told + float(each[n])) for n in range(len(y))]
        kept = sorted(longer, key=lambda one: -one[1])[:width]
        if all(classes[-1] == end for classes, _ in kept):
            break
    return kept[0]
