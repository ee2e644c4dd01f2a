"""Initial parameters: uniform within 1/sqrt(fan-in) and zero biases, or a cell's own rules."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeAlias

import numpy as np

from .equations import System
from .errors import CellError
from .graph import READ

Rule: TypeAlias = "float | Callable[[np.random.Generator, tuple[int, ...]], np.ndarray]"  # quoted: numpy.random is slow


def uniform(bound: float) -> Rule:
    """U(-bound, bound)."""
    return lambda rng, shape: rng.uniform(-bound, bound, shape)


def normal(deviation: float) -> Rule:
    """N(0, deviation^2)."""
    return lambda rng, shape: rng.normal(0, deviation, shape)


def orthogonal(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """A random matrix with orthonormal rows or columns (Saxe et al. 2014); vectors are N(0, 1/n)."""
    if len(shape) < 2:
        return rng.normal(0, 1 / np.sqrt(max(shape, default=1)), shape)
    wide = rng.normal(size=(*shape[:-2], max(shape[-2:]), min(shape[-2:])))
    q, r = np.linalg.qr(wide)
    q = q * np.sign(np.diagonal(r, axis1=-2, axis2=-1))[..., None, :]
    return q if q.shape[-2:] == shape[-2:] else np.swapaxes(q, -1, -2)


def identity(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Ones on the diagonal, zeros elsewhere; a matrix that is not square keeps the first components."""
    rows, columns = shape[-2:]
    return np.broadcast_to(np.eye(rows, columns), shape)


def fan_in(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """U(-1/sqrt(n), 1/sqrt(n)), n the size that is summed over."""
    bound = 1 / np.sqrt(shape[-1]) if shape else 1.0
    return rng.uniform(-bound, bound, shape)


def biases(system: System) -> frozenset[str]:
    """Vectors and numbers that are only ever added."""
    used: dict[str, set[str]] = {}
    for n in system.nodes:
        for a in n.args:
            if a.op is READ:
                used.setdefault(a.params[0], set()).add(n.op.name)
    return frozenset(name for name, ops in used.items() if ops == {"add"} and len(system.shapes[name]) < 2)


def lone_sizes(system: System) -> tuple[str, ...]:
    """Extents and sizes that no array shows: they travel with the parameters."""
    shown = {i for name in system.given for i in system.axes[name]}
    known = {d for name in system.given for d in system.shapes[name]}
    sums = dict(system.inferred.sums)
    lone = [i for i in system.indices if i in system.model and i not in shown]
    return (*lone, *(d for d in system.inferred.aliases if d not in known and d not in sums and not d.isdigit()))


def generator(seed, what: str) -> np.random.Generator:
    """A random generator from a seed, or the one given."""
    try:
        return np.random.default_rng(seed)
    except (TypeError, ValueError):
        raise CellError(f"{what}={seed!r} seeds no random numbers.",
                        remedy="Give a whole number from 0, or a NumPy Generator.") from None


def initialise(system: System, rules: Mapping[str, Rule], seed, dtype, sizes: Mapping) -> dict[str, np.ndarray]:
    """Parameters by name, and the constants that were given or have a rule."""
    try:
        dtype = np.dtype(dtype)
    except TypeError:
        raise CellError(f"{dtype!r} is no dtype.", remedy="Use float32, float64 or longdouble.") from None
    if dtype.kind not in "f" or dtype == np.float16:
        raise CellError(f"Parameters cannot have dtype {dtype}.", remedy="Use float32, float64 or longdouble.")
    constants = {n: np.asarray(v) for n, v in sizes.items() if n in system.having("const") and (
        np.ndim(v) or not system.shapes[n])}
    known = {n: v for n, v in sizes.items() if n not in constants}
    for name, array in constants.items():
        dims = system.shapes[name]
        if array.ndim - len(system.axes[name]) != len(dims):
            raise CellError(f"`{name}` has shape {array.shape}; expected ({', '.join(map(str, dims))}).")
        for d, size in zip(dims, array.shape[array.ndim - len(dims):]):
            if isinstance(d, str):
                known.setdefault(d, size)
    found = system.sizes(known)
    rng = generator(seed, "seed")
    zero = biases(system)
    formulas = tuple(name for name in system.having("const") if name in rules and name not in constants)
    made = system.having("parameter") + formulas
    _refuse_unknown(system, found, made)
    params: dict[str, np.ndarray] = {}
    for name in made:
        shape = tuple(found[i] for i in system.axes[name]) + tuple(
            d if isinstance(d, int) else found[d] for d in system.shapes[name])
        rule = rules.get(name, 0.0 if name in zero else rules.get("default", fan_in))
        value = np.asarray(rule(rng, shape) if callable(rule) else np.full(shape, rule))
        if value.shape != shape or value.dtype.kind not in "biuf":
            raise CellError(f"The rule for `{name}` gives shape {value.shape} and dtype {value.dtype}.",
                            remedy=f"Expected numbers of shape {shape}.")
        params[name] = value.astype(dtype)
    lone = {i: np.asarray(found[i]) for i in lone_sizes(system) if i in found}
    return {**params, **{n: v.astype(dtype) for n, v in constants.items()}, **lone}


def _refuse_unknown(system: System, found: Mapping[str, int], made: tuple[str, ...]) -> None:
    """The sizes that what is made needs and nothing fixes, all at once."""
    missing: dict[str, list[str]] = {}
    for name in made:
        for d in (*system.axes[name], *system.shapes[name]):
            if isinstance(d, str) and d not in found:
                missing.setdefault(d, []).append(name)
    if not missing:
        return
    facts = [f"The size `{d}` is not known; `{names[0]}` needs it." for d, names in missing.items()]
    others = {d: [n for n in system.inferred.aliases.get(d, ()) if n != d][:4] for d in missing}
    also = "".join(f" `{d}` may go by any of {', '.join(names)}." for d, names in others.items() if names)
    raise CellError(" ".join(facts), remedy=f"Give by name: init({', '.join(f'{d}=...' for d in missing)}).{also}")
