"""Numbers through the adjoint: a run's value and the gradient of everything that has one.

    checked arrays + adjoint system -> one evaluation, forward and backward -> gradients by name
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from math import isfinite
from typing import Any

import numpy as np

from .adjoint import Derived, adjoint
from .arrays import bordered_shape, inside
from .bind import Bound, bind, by_name, numbers
from .culprit import name_culprit
from .equations import System
from .errors import CellError
from .evaluate import evaluate
from .shapes import carry_over
from .trace import Trace, at_end, inner


def adjoint_of(system: System, outputs: tuple[str, ...], unit: bool) -> Derived:
    """The adjoint for these outputs; derived once, it lives as long as the system."""
    return system.once("_adjoints", (outputs, unit), lambda: adjoint(system, outputs, unit))


Wanted = Mapping[str, bool | str]


def wanted(system: System, derived: Derived, outputs: tuple[str, ...]) -> Wanted:
    """The names that a gradient is made of: True, whole; False, where it begins or ends; a name, its inner product.

    What begins at both ends is wanted whole: one of them may be zero, because nothing reaches it.
    """
    begin = Counter(n for n, _ in system.beginnings)
    found: dict[str, bool | str] = {derived.names[n]: begin[n] > 1 for n in begin if n in derived.names}
    found.update((derived.names[n], True) for n in system.having("parameter", "input") if n in derived.names)
    found.update((n, False) for n in system.carried)
    return {**found, **{n: derived.seeds.get(n, True) for n in outputs}}


def inner_product(name: str) -> str:
    """The name of an output's inner product with its cotangent, where an evaluator gives that."""
    return f"inner#{name}"


def backpropagate(forward: Bound, outputs: tuple[str, ...], cotangents: Mapping | None, run: Callable = evaluate
                  ) -> tuple[float, dict[str, np.ndarray], Trace]:
    """The value, every gradient, and the trace of what is carried on; without cotangents the outputs' are 1.

    run: what evaluates the equations, as `evaluate` does.
    """
    derived = adjoint_of(forward.system, outputs, cotangents is None)
    given, batched = forward.given, forward.batched
    system = derived.system
    seeds = {derived.seeds[name]: cotangent(forward, name, given_for) for name, given_for in (cotangents or {}).items()}
    sizes = carry_over(given.sizes, forward.system.inferred, system.inferred)
    full = replace(given, values={**given.values, **seeds}, sizes=sizes)
    stores = run(system, full, wanted(forward.system, derived, outputs))
    value: Any = 0.0
    for name in outputs:
        if inner_product(name) in stores:
            value = value + np.sum(stores[inner_product(name)])
            continue
        out = inner(system, name, stores[name], given, batched=True)
        value = value + (np.sum(out) if cotangents is None else np.vdot(seeds[derived.seeds[name]], out))
    gradients = gathered(forward, derived, stores)
    if not (np.isfinite(value) and finite(gradients.values())):
        if run is not evaluate:  # a program multiplies in another order, which may overflow alone
            return backpropagate(forward, outputs, cotangents)
        name_culprit(forward.system, derived, full)
    carried = {n: stores[n] for n in forward.system.carried}
    return (value, gradients,
            Trace(forward.system, given, carried, batched))


def gathered(forward: Bound, derived: Derived, stores: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The gradients of parameters, inputs and initial values, as the user sees them, from the adjoints' arrays."""
    given, batched = forward.given, forward.batched
    gradients = {}
    for n in forward.system.having("parameter", "input"):  # what the outputs do not depend on has a gradient of zero
        array = inner(forward.system, n, _store(forward, derived, stores, n), given, batched)
        own = forward.system.axes[n] and array.flags.writeable and array.flags.c_contiguous
        gradients[n] = array if own else np.array(array)
    for n, end in forward.system.beginnings:
        where: int | np.ndarray = 0
        if end.base == "T":
            lengths = given.lengths.get(end.index)
            where = given.extents[end.index] + 1 if lengths is None else lengths + 1
        store = _store(forward, derived, stores, n)
        label = forward.system.labels[n, end]
        gradients[label] = np.array(at_end(forward.system, n, store, end.index, where, batched))
    return gradients | forward.unread


def finite(arrays: Iterable[np.ndarray]) -> bool:
    """Whether every number is; squares show it without arrays of truths, or overflow and leave it to these."""
    arrays = list(arrays)
    squares = sum(float(np.vdot(flat, flat).real) for flat in (array.ravel() for array in arrays))
    return isfinite(squares) or all(np.isfinite(array).all() for array in arrays)


def differentiate(system: System, default: str | None, outputs: tuple[str, ...], params: Mapping, loss: str | None,
                  cotangents: Mapping | None, inputs: Mapping, initial=None, lengths=None, steps=None, noise=None,
                  run: Callable = evaluate) -> tuple[float, dict[str, np.ndarray], Trace]:
    """The gradient of a loss, `default` where none is named, or of the cotangents' inner product with their outputs."""
    chosen = differentiated(system, default, outputs, loss, cotangents)
    forward = bind(system, params, inputs, initial, lengths, steps, noise)
    return backpropagate(forward, chosen, cotangents, run)


def differentiated(system: System, default: str | None, outputs: tuple[str, ...], loss: str | None,
                   cotangents: Mapping | None) -> tuple[str, ...]:
    """The names that a gradient starts from: a loss, or what there are cotangents for."""
    if not isinstance(loss, str | None):
        raise CellError(f"The loss is a {type(loss).__name__}.", remedy="Give its name." + by_name(system, loss))
    if not isinstance(cotangents, Mapping | None):
        raise CellError(f"The cotangents are a {type(cotangents).__name__}.",
                        remedy="Give a dict: name -> array." + by_name(system, cotangents))
    if cotangents is not None and loss is not None:
        raise CellError("Both a loss and cotangents are given.", remedy="Give one of them.")
    if cotangents is None and loss is None and default is None:
        raise CellError("The cell has no loss equation.", remedy="Add one, like `L = sum_t(sum(h[t]**2))`, or give "
                        f"cotangents={{'{outputs[-1]}': array}}.")
    if cotangents is not None and not cotangents:
        raise CellError("There are no cotangents.", remedy=f"Give some: cotangents={{'{outputs[-1]}': array}}.")
    if loss is not None and (loss not in system.defined or system.shapes[loss] or system.axes[loss]):
        raise CellError(f"`{loss}` is no loss: a loss is a number without indices.",
                        remedy="Name one that an equation defines, or give cotangents.")
    return tuple(cotangents) if cotangents is not None else (str(loss or default),)


def _store(forward: Bound, derived: Derived, stores, name: str) -> np.ndarray:
    """The adjoint of a name, with all its axes: zero where nothing depends on it, repeated where all are alike."""
    adj = derived.names.get(name)
    alike = name in forward.system.per_example and adj not in derived.system.per_example
    if adj is not None and not alike:
        return stores[adj]
    shape = bordered_shape(forward.system, name, forward.given)
    if adj is None:
        return np.zeros(shape, forward.given.dtype)
    return np.broadcast_to(np.expand_dims(stores[adj], len(forward.system.axes[name])), shape)


def cotangent(forward: Bound, name: str, value) -> np.ndarray:
    """A cotangent has its output's shape."""
    system, given = forward.system, forward.given
    if name not in system.defined:
        raise CellError(f"There is a cotangent for `{name}`, which no equation defines.",
                        remedy="Outputs: " + ", ".join(system.written) + ".")
    comps = tuple(d if isinstance(d, int) else given.sizes[d] for d in system.shapes[name])
    lead = tuple(given.extents[i] for i in system.axes[name])
    batch = (given.batch,) if name in system.per_example and forward.batched else ()
    array = numbers(value)
    if array is None:
        raise CellError(f"The cotangent of `{name}` is no array of numbers.",
                        remedy=f"Expected shape {lead + batch + comps}.")
    if array.shape != lead + batch + comps:
        raise CellError(f"The cotangent of `{name}` has shape {array.shape}; expected {lead + batch + comps}.",
                        remedy=f"A cotangent has the shape of its output: see trace['{name}'].shape.")
    if array.dtype.kind not in "iuf" and given.dtype.kind != "c":
        raise CellError(f"The cotangent of `{name}` has dtype {array.dtype}.", remedy="Give real numbers.")
    if name in system.per_example and not forward.batched:
        array = np.expand_dims(array, len(lead))
    mask = inside(system.axes[name], len(comps), given)  # what padding holds does not count
    return np.asarray(array if mask is None else np.where(mask, array, 0), given.dtype)
