"""A program is run against the reference before it is used.

    system, program -> random points of a few small shapes -> the values of both -> "", or what differs and by how much

The shapes cross what a program divides its work by: blocks of 128 rows, of 8 rows of a product, whole vectors of
components, and examples among threads. In double precision each slice (an array without indices, or one position of
the others) agrees to 1e-11 of its largest entry, in single precision to 50 eps. A slice whose terms cancel may differ
by a hundred times what rounding does to it: the last digits of the given values, or the program's own equations
evaluated in its precision.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np

from ..arrays import Arrays, Given
from ..backpropagate import Wanted, inner_product
from ..derivation.points import drawn
from ..equations import System
from ..evaluate import evaluate
from ..trace import at_end, inner

ROUNDING = 100  # a slice may differ by so many times what rounding does to it


class Shape(NamedTuple):
    """How large a run is: examples, positions of every data index, sizes to choose from, and how it is done.

    ragged: whether examples differ in length. threads: among how many the examples are shared. parts: whether within
    a budget of memory that does not hold the whole.
    """

    batch: int
    length: int
    sizes: tuple[int, ...]
    ragged: bool = False
    threads: int = 1
    parts: bool = False


SHAPES = (Shape(19, 7, (17, 3, 16, 5, 9, 2)), Shape(19, 7, (2, 9, 1, 5, 3), ragged=True, threads=2),
          Shape(1, 2, (1, 5, 17, 2)))
IN_PARTS = (Shape(16, 20, (3, 5, 2, 17), parts=True), Shape(16, 20, (2, 3, 5, 1), ragged=True, parts=True))
Run = Callable[[System, Given, Wanted, Shape], "dict[str, np.ndarray] | str"]


class Made(Protocol):
    """A program as the passes left it: its own equations, and what it is given under its own names of sizes."""

    system: System

    def own(self, system: System, given: Given) -> Given: ...


def fault(made: Made, system: System, keep: Wanted, run: Run, dtype: np.dtype, shapes: tuple[Shape, ...] = SHAPES
          ) -> str:
    """Where a program's values differ from the reference's; empty where they agree.

    run: gives the bordered arrays of the names in `keep`, or a text: what it did wrong, "" where it cannot run a shape.
    """
    for seed, shape in enumerate(shapes):
        given, stores = point(system, shape, seed, dtype)
        found = run(system, given, keep, shape)
        if isinstance(found, str):
            if found:
                return found
            continue
        true = dict(slices(system, keep, given, stores))
        rounding: dict[str, np.ndarray] = {}
        for label, rows in slices(system, keep, given, found):
            known = np.isfinite(true[label])  # a program may find NaN or infinity by another way
            right = np.where(known, true[label], 0)
            apart, scale = largest(np.where(known, rows - right, 0)), largest(right)
            allowed = (1e-11 if dtype == np.float64 else 50 * np.finfo(dtype).eps) * scale
            if (apart <= allowed).all():
                continue
            rounding = rounding or rounded(made, system, keep, given)
            wrong = ~(apart <= allowed + ROUNDING * rounding[label])
            if wrong.any():
                relative = apart[wrong] / np.maximum(scale[wrong], np.finfo(dtype).tiny)
                return f"`{label}` by {np.max(relative):.2g} of its largest entry ({described(shape, given)})"
    return ""


def rounded(made: Made, system: System, keep: Wanted, given: Given) -> dict[str, np.ndarray]:
    """How far rounding moves each slice: that of the given values, and that of the program's own equations.

    An eps of the largest entry of all at least: what is zero by an invariance is zero by luck in some evaluations.
    """
    def of(own: System, given: Given) -> dict[str, np.ndarray]:
        rest = Arrays(system, given)  # what the program only hands on
        stores = evaluate(own, given if own is system else made.own(system, given), needed(keep) & own.axes.keys())
        return dict(slices(system, keep, given, {n: stores[n] if n in stores else rest.store(n) for n in needed(keep)}))

    exact = of(system, precise(given))
    pairs = [*((exact, of(system, nudged(given, k))) for k in range(2)),
             (of(made.system, precise(given)), of(made.system, given))]
    most = max(float(np.max(np.nan_to_num(largest(rows)), initial=0)) for rows in exact.values())
    least = np.finfo(given.dtype).eps * most
    return {label: np.max([np.nan_to_num(largest(b[label] - a[label])) for a, b in pairs], axis=0, initial=least)
            for label in exact}


def precise(given: Given) -> Given:
    """The same values in a wider type."""
    return replace(given, dtype=np.dtype(np.float64 if given.dtype == np.float32 else np.longdouble))


def described(shape: Shape, given: Given) -> str:
    """A shape in words."""
    extents = ", ".join(f"{i.upper()} = {n}" for i, n in given.extents.items())
    return ", ".join([*filter(None, [extents]), f"{shape.batch} examples", *["of different lengths"] * shape.ragged,
                      *[f"{shape.threads} threads"] * (shape.threads > 1), *["within a budget"] * shape.parts])


def point(system: System, shape: Shape, seed: int, dtype: np.dtype) -> tuple[Given, dict[str, np.ndarray]]:
    """Random values of a shape, and what the reference makes of them: finite, if a few attempts find such values."""
    rng = np.random.default_rng(seed)
    data = [i for i in system.indices if i not in system.model] if shape.ragged else []
    lengths = {i: rng.permutation(np.arange(shape.batch) % shape.length + 1) for i in data}
    for attempt in range(4):
        given = cast(drawn(system, 10 * seed + attempt, None, shape.batch, 0, shape.length, shape.sizes), dtype)
        given = replace(given, lengths=lengths)
        stores = evaluate(system, replace(given, dtype=np.dtype(np.float64)))
        if all(np.isfinite(inner(system, n, store, given, True)).all() for n, store in stores.items()):
            break
    return given, stores


def cast(given: Given, dtype: np.dtype) -> Given:
    return replace(changed(given, lambda a: a.astype(dtype)), dtype=dtype)


def nudged(given: Given, seed: int) -> Given:
    """Every number given, moved by half its last digit at the most."""
    rng, eps = np.random.default_rng(seed), np.finfo(given.dtype).eps
    given = precise(given)
    moved = lambda a: a * (1 + eps * rng.uniform(-0.5, 0.5, a.shape).astype(given.dtype))
    return changed(given, moved)


def changed(given: Given, change: Callable[[np.ndarray], np.ndarray]) -> Given:
    """The run with its floating-point arrays changed."""
    own = lambda a: change(a) if a.dtype.kind == "f" else a
    return replace(given, values={n: own(a) for n, a in given.values.items()},
                   ends={key: own(a) for key, a in given.ends.items()})


def needed(keep: Wanted) -> set[str]:
    """What is evaluated: the names, and what their inner products are taken with."""
    return {*keep, *(seed for seed in keep.values() if isinstance(seed, str))}


def slices(system: System, keep: Wanted, given: Given, stores: Mapping[str, np.ndarray]
           ) -> Iterator[tuple[str, np.ndarray]]:
    """What is read of a program's arrays, each as rows: one for each position of its indices.

    All positions of what is wanted whole, every end that an equation defines, what is carried on after the last step,
    and inner products, by whatever name they go.
    """
    def whole(n: str) -> np.ndarray:
        return inner(system, n, stores[n], given, True)

    def end(n: str, i: str, where: int | np.ndarray) -> np.ndarray:
        return at_end(system, n, stores[n], i, where, True)

    def rows(array: np.ndarray, n: str, gone: int = 0) -> np.ndarray:
        return array.reshape(int(np.prod(array.shape[:len(system.axes[n]) - gone])), -1)

    for n, wanted in keep.items():
        if isinstance(wanted, str):
            made = inner_product(n)
            yield made, np.reshape(np.sum(stores[made] if made in stores else whole(n) * whole(wanted)), (1, 1))
            continue
        if wanted:
            yield n, rows(whole(n), n)
        elif n in system.carried:
            i = str(system.time)
            yield n, rows(end(n, i, given.lengths.get(i, given.extents[i])), n, 1)
        for eq in system.definitions.get(n, ()):
            for p in eq.at:
                if p.outside:
                    last = given.lengths.get(p.index, given.extents[p.index])
                    yield str(eq), rows(end(n, p.index, 0 if p.base == "1" else last + 1), n, 1)


def largest(rows: np.ndarray) -> np.ndarray:
    """The largest entry of each row."""
    return np.max(np.abs(rows), axis=1, initial=0)


def claim(system: System, keep: Wanted, dtype: np.dtype, shapes: tuple[Shape, ...]) -> bytes:
    """A digest of all that a verdict depends on beside the code: equations, what is wanted, the library's own text."""
    number = {n: k for k, n in enumerate(system.nodes)}
    facts = ([(n.op.name, n.params, [number[a] for a in n.args]) for n in system.nodes],
             [(eq.name, eq.at, number[eq.value]) for eq in system.equations], system.axes, sorted(system.model),
             system.shapes, system.roles, sorted(keep.items()), dtype.str, shapes)
    return sha256(_library() + repr(facts).encode()).digest()


@cache
def _library() -> bytes:
    found = sha256()
    for path in sorted(Path(__file__).parents[1].rglob("*.py")):
        found.update(path.read_bytes())
    return found.digest()
