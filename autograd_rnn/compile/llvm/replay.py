"""A gradient again, with arrays of the same shapes: nothing is checked or laid out twice.

At small sizes a call is all overhead. What a run of given shapes does to memory is always the same: some addresses,
some functions, some arrays copied out. A replay is that list, made after one run that went the long way; whatever it
cannot do goes the long way again.
"""

from __future__ import annotations

from collections.abc import Mapping
from ctypes import addressof, c_char
from math import isfinite
from typing import TYPE_CHECKING, Any

import numpy as np

from ...adjoint import Derived
from ...arrays import bordered_shape
from ...backpropagate import finite, inner_product
from ...bind import Bound
from ..replay import carried_over, parts_of
from .space import Space

if TYPE_CHECKING:
    from .machine import Machine


def address(array: np.ndarray) -> int:
    """Where an array begins; the short way is for one that can be written to."""
    try:
        return addressof(c_char.from_buffer(array))  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return array.ctypes.data


class Replay:
    """The runs of one machine at one set of shapes, as a function of arrays by name."""

    def __init__(self, machine: Machine, space: Space, forward: Bound, derived: Derived, outputs: tuple[str, ...],
                 options: Mapping[str, Any]):
        self.machine, self.given, self.options = machine, space.full, options
        self.outputs = [inner_product(n) for n in outputs]
        self.wanted = parts_of(forward, derived, machine.writer.resting)
        self.long = {n: bordered_shape(machine.system, n, space.full) for n, whole in machine.keep.items()
                     if whole and machine.system.axes.get(n)}
        self.apart = [label for label, (n, part) in self.wanted.items() if n in self.long
                      or not np.may_share_memory(space.views[n][part], space.summed)]
        seeds = {derived.seeds[n]: n for n in outputs}
        self.bound = [(k, 1 if place.of in seeds else 0, seeds.get(place.of, place.of), before)
                      for k, place, _, before in space.bound if place.of not in self.long]
        self.fresh = [(k, place.of, before) for k, place, _, before in space.bound if place.of in self.long]

    @classmethod
    def of(cls, machine: Machine, forward: Bound, derived: Derived, outputs: tuple[str, ...],
           options: Mapping[str, Any], *groups: Mapping[str, np.ndarray]) -> Replay | None:
        """After a run: its replay, where everything is given as it is read, and made by machine code."""
        given = forward.given
        if given.ends or given.lengths or given.offsets or given.empty or any(
                kind == "reference" for kind, _ in machine.steps):
            return None
        space, waiting = machine.room(machine.own(derived.system, carried_over(forward, derived)), **options)
        made = cls.made(machine, space, forward, derived, outputs, options, groups)
        waiting.append(space)
        return made

    @classmethod
    def made(cls, machine: Machine, space: Space, forward: Bound, derived: Derived, outputs: tuple[str, ...],
             options: Mapping[str, Any], groups: tuple[Mapping[str, np.ndarray], ...]) -> Replay | None:
        """The replay of runs in spaces like this one, or None."""
        if type(space) is not Space:
            return None
        plain = all(place.kind == "store" and (place.of in space.direct or machine.keep.get(place.of))
                    for _, place, *_ in space.bound)
        plain &= {a.dtype for group in groups for a in group.values()} == {space.dtype}
        plain &= all(a.size == forward.given.values[n].size for n, a in groups[0].items())
        names = {*space.arrays, *space.parts, *space.results, *(n for n, whole in machine.keep.items() if whole)}
        adjoints = [derived.names.get(n) for n in (*forward.system.having("parameter", "input"), *(
            n for n, _ in forward.system.beginnings))]
        own = {derived.names[n] for n in forward.system.per_example if n in derived.names}
        valued = all(inner_product(n) in space.results for n in outputs)
        if not (plain and valued and names.issuperset(adjoints) and own <= derived.system.per_example):
            return None
        return cls(machine, space, forward, derived, outputs, options)

    def __call__(self, *groups: Mapping[str, np.ndarray]) -> tuple[Any, dict[str, np.ndarray]] | None:
        """(value, gradients) from parameters and inputs, and cotangents; None where one is not finite."""
        space, waiting = self.machine.room(self.given, **self.options)
        views, context = space.views, space.context
        space.clear()
        fresh = {n: np.zeros(shape, space.dtype) for n, shape in self.long.items()}
        space.held = groups, fresh
        for k, group, name, before in self.bound:
            context[k] = address(groups[group][name]) - before
        for k, name, before in self.fresh:
            context[k] = address(fresh[name]) - before
        for kind, step in self.machine.steps:
            if kind != "result":
                space.call(kind, step)
        value = sum(views[n].sum() for n in self.outputs)
        gradients = {label: fresh[n][part] if n in fresh else views[n][part].copy()
                     for label, (n, part) in self.wanted.items()}
        right = isfinite(value) and finite([space.summed, *(gradients[label] for label in self.apart)])
        space.held = None
        waiting.append(space)
        return (value, gradients) if right else None
