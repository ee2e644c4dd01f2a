"""The arrays of a run: bordered by one position at both ends of each index, where a variable's ends live.

Position k of an index is at k of its axis, its ends at 0 and one past each example's own last. So a read at [t-1] is a
slice, and what padding holds is never read.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from .equations import System


@dataclass
class Given:
    """Arrays and sizes of one run, checked: see `bind`.

    values: by name, one axis per index (T, J, ...), the batch where the name has one, components. ends: values just
    outside, by (name, position). extents: the longest of each index; lengths: each example's, where they differ.
    offsets: the number of positions that came before, of a stretch; each example's, where they differ.
    """

    values: dict[str, np.ndarray]
    sizes: dict[str, int]
    extents: dict[str, int]
    batch: int
    dtype: np.dtype
    ends: dict = field(default_factory=dict)
    lengths: dict[str, np.ndarray] = field(default_factory=dict)
    offsets: dict[str, int | np.ndarray] = field(default_factory=dict)
    lanes: int = 0

    @property
    def empty(self) -> bool:
        """Whether there is no example, or an index without positions."""
        return not (self.batch and all(self.extents.values()))


def bordered_shape(system: System, name: str, given: Given) -> tuple[int, ...]:
    """One position more at both ends of each index, the batch where the name has one, components."""
    comps = tuple(d if isinstance(d, int) else given.sizes[d] for d in system.shapes[name])
    batch = (given.batch,) if name in system.per_example else ()
    return tuple(given.extents[i] + 2 for i in system.axes[name]) + batch + comps


class Arrays:
    """The arrays of one evaluation."""

    def __init__(self, system: System, given: Given):
        self.system, self.given = system, given
        self.stores: dict[str, np.ndarray] = {}
        self.real = np.zeros((), given.dtype).real.dtype

    def store(self, name: str) -> np.ndarray:
        if name not in self.stores:
            self.stores[name] = self.fresh(name)
        return self.stores[name]

    def fresh(self, name: str) -> np.ndarray:
        """A bordered array, with what is given in its place and zeros (no class: -1) elsewhere."""
        given, system = self.given, self.system
        lead = (given.lanes,) if given.lanes else ()
        axes, comps = system.axes[name], system.shapes[name]
        shape = lead + bordered_shape(system, name, given)
        array = given.values.get(name)
        is_class = system.roles[name] == "class"
        if array is not None and not axes:
            return np.broadcast_to(array if is_class else np.asarray(array, given.dtype), shape)
        store = np.full(shape, -1, np.int64) if is_class else np.zeros(shape, given.dtype)
        slots = (slice(None),) * len(lead)
        if array is not None:
            within = slots + (slice(1, -1),) * len(axes)
            mask = self.mask(axes, len(comps))
            np.copyto(store[within], array, where=True if mask is None else mask)
        for (owner, at), value in given.ends.items():
            if owner == name:
                self.give_end(store, name, at, value, slots)
        return store

    def give_end(self, store, name, at, value, slots=()):
        """A value given just outside along one index; past an example's end along another there is none."""
        others = inside(tuple(p.index for p in at if p.base == "i"), len(self.system.shapes[name]), self.given)
        if others is not None:
            value = np.where(others, value, -1 if self.system.roles[name] == "class" else 0)
        self.write_end(store, name, at, value, slots)

    def write_end(self, store, name, at, value, slots):
        """Just outside: position 0, or one past each example's own last."""
        where = list(slots)
        for p in at:
            where.append(slice(1, -1) if p.base == "i" else 0 if p.base == "1" else -1)
        ragged = next((p.index for p in at if p.base == "T" and p.index in self.given.lengths), None)
        if ragged is None:
            store[tuple(where)] = value
            return
        axis, batch = len(slots) + [p.index for p in at].index(ragged), len(slots) + len(at)
        where[axis] = slice(None)
        target = store[tuple(where)]
        rows = np.broadcast_to(value, (*target.shape[:axis], *target.shape[axis + 1:]))
        last = self.given.lengths[ragged]
        np.moveaxis(target, (axis, batch), (0, 1))[last + 1, np.arange(len(last))] = np.moveaxis(rows, batch - 1, 0)

    def mask(self, axes, comps: int, fixed: dict[str, int] | None = None) -> np.ndarray | None:
        return inside(axes, comps, self.given, fixed)


def inside(axes, comps: int, given: Given, fixed: dict[str, int] | None = None) -> np.ndarray | None:
    """Where an array over `axes`, batch and components lies inside every example; None: everywhere."""
    found = None
    open_axes = [i for i in axes if not fixed or i not in fixed]
    for i in axes:
        if i not in given.lengths:
            continue
        shape = [1] * len(open_axes)
        if fixed and i in fixed:
            valid = fixed[i] <= given.lengths[i]
        else:
            shape[open_axes.index(i)] = given.extents[i]
            valid = np.arange(1, given.extents[i] + 1)[:, None] <= given.lengths[i]
        valid = valid.reshape(*shape, given.batch, *(1,) * comps)
        found = valid if found is None else found & valid
    return found
