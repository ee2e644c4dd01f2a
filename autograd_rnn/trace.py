"""What a run gives: every named value at every step, and the state to go on from."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np

from .arrays import Given, inside
from .equations import System
from .errors import CellError


def inner(system: System, name: str, store: np.ndarray, given: Given, batched: bool) -> np.ndarray:
    """A bordered array as the user sees it: (T, ..., batch, size), unbatched (T, ..., size); zero past the ends."""
    axes = system.axes[name]
    array = store[(slice(1, -1),) * len(axes)]
    mask = inside(axes, len(system.shapes[name]), given)
    if mask is not None:
        array = np.where(mask, array, -1 if system.roles[name] == "class" else 0)
    return array if batched or name not in system.per_example else array.take(0, axis=len(axes))


def at_end(system: System, name: str, store: np.ndarray, index: str, where: int | np.ndarray, batched: bool):
    """A bordered array at one position of `index`, each example's own where `where` is an array."""
    axes = system.axes[name]
    k = axes.index(index)
    others = tuple(slice(None) if i == index else slice(1, -1) for i in axes)
    moved = np.moveaxis(store[others], k, 0)
    per_example = name in system.per_example
    if isinstance(where, np.ndarray) and per_example:
        batch = len(axes)
        array = np.moveaxis(np.moveaxis(moved, batch, 1)[where, np.arange(len(where))], 0, batch - 1)
    else:
        array = moved[where]
    return array if batched or not per_example else array.take(0, axis=len(axes) - 1)


class Final(dict):
    """What goes on after a run, by position, "h[0]", and the number of steps so far: a valid `initial`.

    As there, a name alone stands for its only end: `final["h"]` is `final["h[0]"]`, read and written.
    """

    _alone: Mapping[str, str] = {}

    def __init__(self, values: Mapping, alone: Mapping[str, str]):
        super().__init__(values)
        self._alone = alone

    def __setitem__(self, name, value):
        super().__setitem__(self._alone.get(name, name), value)

    def __missing__(self, name):
        if name not in self._alone:
            raise KeyError(f"{name!r} is not carried on; there are {', '.join(self)}")
        return self[self._alone[name]]


class Trace(Mapping):
    """Every named value of a run: `trace["h"][k]` is h at step k+1, shape (T, ..., batch, size).

    Values past an example's end are zero (a class: -1). `trace.final` is a valid `initial` for what follows.
    """

    def __init__(self, system: System, given: Given, stores: dict[str, np.ndarray], batched: bool,
                 left_out: Mapping[str, str] | None = None):
        self._system, self._given, self._stores, self._batched = system, given, stores, batched
        self._left_out = left_out or {}  # name -> the input that it wants and was not given

    def __getitem__(self, name: str) -> np.ndarray:
        if name in self._left_out:
            raise CellError(f"`{name}` is not part of this run: the input `{self._left_out[name]}` was not given.",
                            remedy=f"Give `{self._left_out[name]}` too.")
        if name not in self._stores:
            raise KeyError(f"{name!r} is no value of this run; there are {', '.join(self._stores)}")
        return inner(self._system, name, self._stores[name], self._given, self._batched)

    def __contains__(self, name: object) -> bool:
        return name in self._stores

    def __iter__(self) -> Iterator[str]:
        return iter(self._stores)

    def __len__(self) -> int:
        return len(self._stores)

    def __repr__(self):
        shown = ", ".join(f"{name} {self[name].shape}" for name in self)
        return f"Trace({shown})"

    @property
    def final(self) -> Final:
        """The carried values after the last step, and how many steps there were: hand it on as `initial`.

        Keys are those of gradients: "h[0]", "h[0,j]"; of h[t-3] also "h[-1]" and "h[-2]". `final["h"]` is "h[0]".

        The sequence goes on along `t` (where no index is called so, along the first data index); along other indices
        each run begins anew. Where lengths differ, each example goes on from its own last step.
        """
        system, given, i = self._system, self._given, self._system.time
        if i is None:
            return Final({}, {})
        where = given.lengths.get(i, given.extents[i])
        state: dict[str, np.ndarray | int] = {}
        for name, end in system.carried.items():
            array = at_end(system, name, self._stores[name], i, where, self._batched)
            state[system.labels[name, end]] = array.copy()
        count = given.offsets.get(i, 0) + where  # where examples differ in length, each one's own
        state[i] = count if self._batched or isinstance(count, int) else int(count[0])
        return Final(state, {name: system.labels[name, end] for name, end in system.carried.items()
                             if len(system.delayed[name]) == 1})

    def first_nonfinite(self) -> tuple[str, dict[str, int]] | None:
        """The first value that is not finite, in the order of steps and equations: its name and where it stands."""
        first = None
        order = {name: k for k, name in enumerate([*self._system.given, *(e.name for e in self._system.equations)])}
        for name, store in self._stores.items():
            bad = ~np.isfinite(store[(slice(1, -1),) * len(self._system.axes[name])])
            if bad.any():
                axes = self._system.axes[name]
                where = np.argwhere(bad)[0][:len(axes)] + 1
                data = [k for i, k in zip(axes, where) if i not in self._system.model]
                # what is given first, then what is shared, then steps in order, then totals of all steps
                shared = name not in self._system.per_example
                kind = 0 if name in self._system.given else 1 if shared else 2 if data else 3
                key = (kind, data, order.get(name, 0))
                if first is None or key < first[0]:
                    example = int(np.argwhere(bad)[0][len(axes)]) if data else 0
                    before = {i: np.broadcast_to(n, self._given.batch)[example] for i, n in self._given.offsets.items()}
                    first = key, name, {i: int(k + before.get(i, 0)) for i, k in zip(axes, where)}
        return first[1:] if first else None
