"""A gradient again, with arrays of the same shapes: nothing is checked or laid out twice.

    signature of the arrays -> the replay of an earlier run -> (value, gradients)

At small sizes a call is all overhead. A replay is made after one run that went the long way; whatever it cannot do goes
the long way again. That of machine code is in llvm/replay.py.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from ..adjoint import Derived
from ..backpropagate import finite
from ..bind import Bound
from .numpy_program import NumpyProgram
from .space import Space


def signature(*groups: Mapping[str, Any]) -> tuple | None:
    """Names, shapes and dtypes of arrays; None where there is anything else."""
    found: list = []
    for group in groups:
        for name, array in group.items():
            if type(array) is not np.ndarray or not array.flags.c_contiguous:
                return None
            found.append((name, array.shape, array.dtype))
        found.append(None)
    return tuple(found)


class Replay:
    """The runs of a NumPy program at one set of shapes, as a function of arrays by name."""

    def __init__(self, program: NumpyProgram, space: Space, forward: Bound, derived: Derived, outputs: tuple[str, ...]):
        self.program, self.given = program, space.given
        self.seeds = {derived.seeds[n]: n for n in outputs}
        self.wanted = parts_of(forward, derived, {})
        self.shapes = {n: space.shape(n) for n in program.writer.stores if n in program.system.given}

    @classmethod
    def of(cls, program: NumpyProgram, forward: Bound, derived: Derived, outputs: tuple[str, ...],
           *groups: Mapping[str, np.ndarray]) -> Replay | None:
        """After a run: its replay, where everything is given as it is read, and every gradient made by the program."""
        space, given, system = program.idle(), forward.given, forward.system
        reached = derived.names.keys() >= {*system.having("parameter", "input"), *(n for n, _ in system.beginnings)}
        if space is None or given.ends or given.lengths or given.offsets or not reached:
            return None
        made = cls(program, space, forward, derived, outputs)
        arrays = made.arrays(groups)
        alike = all(a is not None and a.dtype == given.dtype and a.size == math.prod(made.shapes[n])
                    for n, a in arrays.items())
        per_example = {derived.names[n] for n in system.per_example if n in derived.names}
        own = per_example <= derived.system.per_example and {*outputs, *(n for n, _ in made.wanted.values())} <= {
            *program.writer.results}
        return made if alike and own else None

    def arrays(self, groups: tuple[Mapping[str, np.ndarray], ...]) -> dict[str, np.ndarray]:
        """What is given, by the program's names: a cotangent's is that of its adjoint's seed."""
        whole, cotangents = groups
        return {n: cotangents[self.seeds[n]] if n in self.seeds else whole[n] for n in self.shapes}

    def __call__(self, *groups: Mapping[str, np.ndarray]) -> tuple[Any, dict[str, np.ndarray]] | None:
        """(value, gradients) from parameters and inputs, and cotangents; None where one is not finite."""
        space, waiting = self.program.room(self.given)
        values = {n: a.reshape(self.shapes[n]) for n, a in self.arrays(groups).items()}
        found = space.run(values)
        value = sum(np.vdot(values[seed], found[n][space.inside[n]]) for seed, n in self.seeds.items())
        gradients = {label: found[n][part] for label, (n, part) in self.wanted.items()}
        for label, (n, _) in self.wanted.items():
            if n not in space.fresh or not gradients[label].flags.c_contiguous:
                gradients[label] = gradients[label].copy()
        waiting.append(space)
        return (value, gradients) if np.isfinite(value) and finite(gradients.values()) else None


def parts_of(forward: Bound, derived: Derived, resting: Mapping[str, str]) -> dict[str, tuple[str, Any]]:
    """By the name of a gradient: the variable it is, and which part of its array."""
    system = forward.system
    found: dict[str, tuple[str, tuple]] = {}
    for n in system.having("parameter", "input"):
        found[n] = derived.names[n], (slice(1, -1),) * len(system.axes[n])
    for n, end in system.beginnings:
        name = derived.names[n]
        outside = 0 if end.base == "1" or name in resting else forward.given.extents[end.index] + 1
        found[system.labels[n, end]] = name, tuple(
            outside if i == end.index else slice(1, -1) for i in system.axes[n])
    if not forward.batched:
        one = {label: (0,) for label in found if label.split("[")[0] in system.per_example}
        found = {label: (name, (*part, *one.get(label, ()))) for label, (name, part) in found.items()}
    return {label: (name, part or ...) for label, (name, part) in found.items()}
