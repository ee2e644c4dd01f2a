"""Learning rates over time: functions from the number of steps done (from 0) to the rate of the next step."""

from __future__ import annotations

from collections.abc import Callable
from math import cos, pi

from ..errors import CellError

Schedule = Callable[[int], float]


def constant(rate: float) -> Schedule:
    """rate, always."""
    return lambda step: rate


def stepwise(rate: float, every: int, factor: float = 0.1) -> Schedule:
    """rate * factor^floor(step / every).

    >>> [stepwise(1.0, 10, 0.5)(n) for n in (0, 9, 10, 25)]
    [1.0, 1.0, 0.5, 0.25]
    """
    _at_least_one(every, "every")
    return lambda step: rate * factor ** (step // every)


def exponential(rate: float, every: int, factor: float = 0.5) -> Schedule:
    """rate * factor^(step / every): `factor` is reached after `every` steps.

    >>> exponential(1.0, 10, 0.25)(5)
    0.5
    """
    _at_least_one(every, "every")
    return lambda step: rate * factor ** (step / every)


def cosine(rate: float, steps: int, warmup: int = 0, floor: float = 0.0) -> Schedule:
    """Up in a line over `warmup` steps, then down a half cosine to `floor` at step `steps`, and there it stays.

    Loshchilov and Hutter, arXiv:1608.03983; the warm-up of Goyal et al., arXiv:1706.02677.

    >>> [round(cosine(1.0, 12, warmup=2)(n), 3) for n in (0, 1, 2, 7, 12, 20)]
    [0.5, 1.0, 1.0, 0.5, 0.0, 0.0]
    """
    _at_least_one(steps, "steps")
    if not 0 <= warmup < steps:
        raise CellError(f"A warm-up of {warmup} steps does not fit in {steps}.")

    def at(step: int) -> float:
        if step < warmup:
            return rate * (step + 1) / warmup
        done = min((step - warmup) / (steps - warmup), 1.0)
        return floor + (rate - floor) * (1 + cos(pi * done)) / 2

    return at


def _at_least_one(count: int, name: str) -> None:
    if count < 1:
        raise CellError(f"`{name}` is {count}.", remedy="Give a whole number from 1.")
