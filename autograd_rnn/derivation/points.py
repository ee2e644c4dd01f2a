"""Random points, and many expressions evaluated at all of them at once: what proofs and grades stand on.

    system -> drawn(...) -> Given, a point on each lane;   Bench: expressions -> equations of their own -> arrays
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np

from ..arrays import Given
from ..check import STEP
from ..elaborate import delays
from ..equations import BATCH, Equation, System
from ..errors import CellError
from ..evaluate import evaluate
from ..gradient import Typing
from ..graph import Node, Position, read
from ..parse import Declaration, Line
from ..shapes import carry_over

LENGTH = 3  # steps of the sequences drawn
SMALL = range(2, 7)  # sizes where nothing asks for others


def small_sizes(system: System, size: int | None = None, choices: Sequence[int] = SMALL) -> dict[str, int]:
    """Sizes that fit together: `size` wherever it fits; without it different ones of the choices while there are any,
    so that no transpose hides. Where the equations add up too few components for that, the smallest that fit."""
    model = [i for i in system.indices if i in system.model]
    names = [d for d in (*system.inferred.aliases, *model) if not d.isdigit()]
    wholes = {whole for whole, _ in system.inferred.sums}
    beside = {d: len(parts) for _, parts in system.inferred.sums for d in parts}
    order = sorted(names, key=lambda d: (d in wholes, -beside.get(d, 0)))  # a whole follows from its parts
    smallest = range(1, max([*choices, *(stop for _, stop in system.inferred.least)]) + 1)
    for different in (True, False):
        chosen: dict[str, int] = {}
        for d in order:
            known = system.sizes(chosen)
            if d in known:
                continue
            taken = list(known.values())
            wanted = [size] if size else sorted(SMALL if d in model else choices, key=taken.count)
            tried = (*wanted, *smallest) if different else smallest
            fitting = next((n for n in tried if _fit(system, {**chosen, d: n})), None)
            if fitting is None:
                break
            chosen[d] = fitting
        else:
            return system.sizes(chosen)
    raise CellError("No small sizes were found that fit these equations.", remedy="Declare some: `x: input(8)`.")


def _fit(system: System, sizes: dict[str, int]) -> bool:
    try:
        system.sizes(sizes)
    except CellError:
        return False
    return True


def drawn(system: System, seed: int, size: int | None = None, batch: int = 2, lanes: int = 0,
          length: int = LENGTH, choices: Sequence[int] = SMALL) -> Given:
    """A random point, or one for each lane: small sizes, weights so moderate that no gate saturates, ends too."""
    rng, sizes = np.random.default_rng(seed), small_sizes(system, size, choices)
    extents = {i: sizes[i] if i in system.model else length for i in system.indices}
    lead = (lanes,) if lanes else ()

    def numbers(name: str, axes: tuple[int, ...]) -> np.ndarray:
        shape = (batch,) * (name in system.per_example) + _components(system, name, sizes)
        role, whole = system.roles[name], (*lead, *axes, *shape)
        declared = system.declarations.get(name)
        if role == "class":
            return rng.integers(0, 2, whole)
        if role == "const":  # 1, 2 and 3 alike: one point must see every case of `t % period == 0`
            return rng.permutation((rng.integers(3) + np.arange(np.prod(whole, dtype=int))) % 3 + 1.0).reshape(whole)
        if declared is not None and declared.kind == "bernoulli":
            return rng.integers(0, 2, whole).astype(float)
        fan_in = shape[-1] if role == "parameter" and len(system.shapes[name]) > 1 else 1
        return rng.normal(0, 0.8, whole) / np.sqrt(fan_in)

    values = {n: numbers(n, tuple(extents[i] for i in system.axes[n])) for n in system.given}
    given = Given(values, sizes, extents, batch, np.dtype(float), lanes=lanes)
    for name, at in open_ends(system):
        given.ends[name, at] = numbers(name, tuple(extents[p.index] for p in at if p.base == "i"))
    return given


def _components(system: System, name: str, sizes: dict[str, int]) -> tuple[int, ...]:
    return tuple(d if isinstance(d, int) else sizes[d] for d in system.shapes[name])


def open_ends(system: System) -> Iterator[tuple[str, tuple[Position, ...]]]:
    """The outside ends that real values are read at and no equation defines."""
    found: dict[tuple[str, tuple[Position, ...]], None] = {}
    for n in system.reads:
        name, at = n.params
        for p in at:
            if p.reaches and p.index not in system.model and system.roles[name] in ("state", "input"):
                found[name, system.outside(name, p.reaches)] = None
    defined = {(eq.name, eq.at) for eq in system.equations}
    return (key for key in found if key not in defined)


class Bench:
    """Expressions over a system, evaluated together: each becomes an equation of its own."""

    def __init__(self, system: System):
        self.system, self.typing = system, Typing(system)
        self.equations: list[Equation] = []
        self.shared: set[str] = set()  # what all examples have in common, though it may have a data index
        self.axes, self.declarations = dict(system.axes), dict(system.declarations)
        self.directions: list[str] = []

    def name(self) -> str:
        return f"#{len(self.axes)}"  # no identifier: it meets no name of a text

    def measure(self, n: Node) -> str:
        """The name under which an expression's values will be found."""
        name = self.name()
        free = tuple(i for i in self.system.indices if i in self.typing.free(n))
        self.axes[name] = free
        self.shared |= set() if BATCH in self.typing.free(n) else {name}
        self.equations.append(Equation(name, tuple(map(Position, free)), n))
        return name

    def direction(self, x: Node) -> tuple[str, Node]:
        """A variable of an expression's indices and shape, to be added to it: (its name, its read)."""
        name = self.name()
        free = self.typing.free(x)
        self.axes[name] = tuple(i for i in self.system.indices if i in free)
        kind = "input" if BATCH in free else "parameter"
        self.shared |= set() if BATCH in free else {name}
        self.declarations[name] = Declaration(name, kind, None, None, Line("", 0))
        self.directions.append(name)
        return name, read(name, tuple(map(Position, self.axes[name])))

    def run(self, given: Given, seed: int) -> dict[str, np.ndarray]:
        """Values by name, along (lane, every index, batch, components); directions are random, times i h."""
        equations = delays([*self.system.equations, *self.equations], self.axes)
        system = System(equations, self.axes, self.system.model, self.declarations)
        sizes = carry_over(given.sizes, self.system.inferred, system.inferred)
        rng = np.random.default_rng(seed)
        values = dict(given.values)
        for name in self.directions:
            lead = (given.lanes, *(given.extents[i] for i in self.axes[name]))
            batch, comps = (given.batch,) * (name in system.per_example), _components(system, name, sizes)
            one = (1,) * len(batch) if name in self.shared else batch
            moved = rng.normal(size=(*lead, *one, *comps)) * (1j * STEP)
            values[name] = np.broadcast_to(moved, (*lead, *batch, *comps))
        run = replace(given, values=values, sizes=sizes, dtype=np.result_type(given.dtype, np.complex64))
        wanted = [eq.name for eq in self.equations] + self.directions
        stores = evaluate(system, run, wanted)
        return {n: self._aligned(n, stores[n], n in system.per_example) for n in wanted}

    def _aligned(self, name: str, store: np.ndarray, batched: bool) -> np.ndarray:
        """Without its border, along every index and the batch, so that any two arrays meet; once where it is shared."""
        axes = self.axes[name]
        array = store[(slice(None), *(slice(1, -1),) * len(axes))]
        if not batched:
            array = np.expand_dims(array, 1 + len(axes))
        elif name in self.shared:
            array = array.take([0], axis=1 + len(axes))
        for k, i in enumerate(self.system.indices):  # its own order: copies of delayed values may come with another
            if i not in axes:
                array = np.expand_dims(array, 1 + k)
        return array


def unmet(told: np.ndarray, indices: int) -> np.ndarray:
    """Where a zero from outside met no number: at the ends of a sequence, in an array along (lane, indices, ...)."""
    found = ~np.isfinite(told)
    found[(slice(None), *(slice(1, -1) if n > 2 else slice(None) for n in told.shape[1:1 + indices]))] = False
    return found
