"""The user's arrays against what the equations want: names, axes, sizes, dtypes, lengths, each checked once.

What does not fit is refused with the variable's name, the equation it stands in, what was expected and what was given.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import Any

import numpy as np

from .arrays import Given
from .equations import System
from .errors import CellError
from .graph import READ, Position, topological
from .init import generator, lone_sizes
from .shapes import carry_over
from .stretch import stretch

Ends = dict[tuple[str, tuple[Position, ...]], np.ndarray]


@dataclass
class Bound:
    """What a run needs, and whether the caller's arrays had a batch axis.

    unread: the gradients, zero, of what was given and only ends read that `initial` overrides.
    """

    system: System
    given: Given
    batched: bool
    unread: dict[str, np.ndarray] = field(default_factory=dict)


def bind(system: System, params: Mapping, inputs: Mapping, initial: Mapping | None = None, lengths=None, steps=None,
         noise=None) -> Bound:
    """Check a run's arrays; shapes are (T, ..., batch, size), unbatched (T, ..., size)."""
    for value, what in ((params, "parameters"), ({} if initial is None else initial, "values of `initial`")):
        if not isinstance(value, Mapping):
            raise CellError(f"The {what} are a {type(value).__name__}.", remedy="Give a dict: name -> array." + by_name(
                system, value))
    lone: dict = {}
    for i in lone_sizes(system):
        if i in params:
            lone[i] = whole(params[i])
            if not lone[i]:
                raise CellError(f"The size `{i}` is {params[i]!r}.", remedy="Give a whole number from 1.")
    values = _known(system, {n: v for n, v in params.items() if n not in lone}, inputs)
    shown = _known_sizes(system, values)
    ends, counts = _initial(system, {} if initial is None else initial)
    batched, batch = _batch(system, values, ends)
    extents = _extents(system, values, {i: n for i, n in lone.items() if i in system.model}, steps)
    offsets = {i: _offset(i, count, batch) for i, count in counts.items()}
    known = system.sizes({**_shown_at_ends(system, ends), **{d: n for d, n in lone.items() if d not in system.model},
                          **shown})
    text = system
    system = text.without_ends(frozenset((eq.name, eq.at) for eq in text.equations if (eq.name, eq.at) in ends))
    for i, before in offsets.items():
        if np.any(before):
            system = stretch(system, i, ends)
    unread = {n: v for n, v in values.items() if n not in system.axes and text.roles[n] in ("parameter", "input")}
    values = {n: v for n, v in values.items() if n in system.axes}
    ragged = _lengths(system, lengths, extents, batch, batched)
    _refuse_missing_steps(system, extents, ragged)
    sizes = known if system is text else carry_over(known, text.inferred, system.inferred)
    dtype = _dtype(system, values, ends)
    if noise is not None:
        _draw(system, values, noise, extents, sizes, batch if batched else None)
    missing = [name for name in system.given if name not in values]
    if missing:
        name = missing[0]
        role = system.roles[name]
        source = "noise: give it, or `noise=` a seed to draw it, or `noise=\"mean\"`" if role == "noise" else role
        raise _about(system, name, f"`{name}` is missing (its role: {source}).",
                     f"Expected shape: {_expected(system, name, batched)}.")
    for d in {d for name in system.axes for d in system.shapes[name] if not isinstance(d, int)}:
        if d not in sizes:
            raise CellError(f"Nothing fixes the size `{d}`.", remedy=f"Give it by name: init({d}=...).")
    arrays = {name: _array(system, name, values[name], extents, sizes, batch, batched, ragged, dtype)
              for name in system.given}
    given = Given(arrays, sizes, extents, batch, dtype, {}, ragged, offsets)
    given.ends = {key: _end(system, *key, value, given, batched) for key, value in ends.items()}
    return Bound(system, given, batched, {n: np.zeros_like(v, dtype) for n, v in unread.items()})


def by_name(system: System, value) -> str:
    """A remedy for an array that was given by its place: inputs go by their names."""
    name = next(iter(system.having("input", "class", "noise")), None)
    return f" An input is given by its name: `{name}=...`." if name and not isinstance(value, Mapping | str) else ""


def _known(system, params, inputs) -> dict:
    values = dict(params)
    for name, value in inputs.items():
        array = numbers(value)
        if array is not None and system.roles.get(name) == "parameter" and array.ndim > _rank(system, name):
            raise _about(system, name, f"`{name}` is given as a sequence; in the text it has no index, so it is a "
                         "parameter.", f"Write `{name}[t]` where it stands, or `{name}: input`.")
        if name in values:
            raise CellError(f"`{name}` is given twice, in the parameters and as an argument.", remedy="Give it once.")
        values[name] = value
    for name in values:
        if name not in system.given:
            near = get_close_matches(name, system.given, 1) or [n for n in system.given if n.lower() == name.lower()]
            role = f"it is computed ({system.roles[name]})" if name in system.axes else "the cell has no such name"
            raise CellError(f"`{name}` is given, but {role}.", remedy=(
                f"Did you mean `{near[0]}`? " if near else "") + "The cell wants: " + ", ".join(system.given) + ".")
    found = {}
    for name, value in values.items():
        array = numbers(value)
        if array is None or array.dtype.kind not in "biufc":
            held = f"is no array{_reason(value)}" if array is None else (
                f"has dtype {array.dtype}, which holds no numbers")
            raise _about(system, name, f"`{name}` {held}.", "Give an array of numbers.")
        found[name] = array
    return found


def numbers(value) -> np.ndarray | None:
    """The value as an array; None for rows of different lengths, and what else is none or holds back its numbers."""
    try:
        return None if np.ma.is_masked(value) else np.asarray(value)
    except Exception:  # what other libraries' arrays raise is theirs
        return None


def _reason(value) -> str:
    """Why a value is no array, in the words of the library that it comes from."""
    if np.ma.is_masked(value):
        return ": some of it is masked. For steps that are missing at the end there is `lengths`"
    try:
        np.asarray(value)
    except Exception as e:
        return "" if isinstance(value, (list, tuple)) else f": {e}"
    return ""


def whole(value) -> int | None:
    """The value as a whole number from 0, or None."""
    array = numbers(value)
    if array is None or array.shape != () or array.dtype.kind not in "iu" or array < 0:
        return None
    return int(array)


def _about(system: System, name: str, fact: str, remedy: str | None = None) -> CellError:
    """An error about a variable, showing the first line it stands in."""
    for eq in system.equations:
        if eq.line is not None and (eq.name == name or any(
                n.op is READ and n.params[0] == name for n in topological([eq.value]))):
            column = eq.line.source.find(name)
            return eq.line.error(fact, column if column >= 0 else None, remedy)
    return CellError(fact, remedy=remedy)


def _expected(system, name, batched, at: tuple[Position, ...] | None = None) -> str:
    """The shape of a name, or of its end at `at`, in words."""
    axes = [i.upper() for i in system.axes[name]] if at is None else [p.index.upper() for p in at if p.base == "i"]
    batch = ["batch"] if batched and name in system.per_example else []
    return "(" + ", ".join([*axes, *batch, *map(str, system.shapes[name])]) + ")"


def _rank(system, name) -> int:
    return len(system.axes[name]) + len(system.shapes[name])


def _batch(system, values, ends) -> tuple[bool, int]:
    """Batched means one more axis than the equations give; all inputs agree."""
    found: dict[str, int | None] = {}
    for name, array in values.items():
        if name not in system.per_example:
            continue
        extra = array.ndim - _rank(system, name)
        if extra not in (0, 1):
            if array.ndim == 0 and system.roles[name] == "noise":
                continue
            raise _about(system, name, f"`{name}` has shape {array.shape}: {array.ndim} axes.",
                         f"Expected {_expected(system, name, False)}, or {_expected(system, name, True)}.")
        found[name] = array.shape[len(system.axes[name])] if extra else None
    for (name, _), value in ends.items():  # a cell without inputs shows its batch here
        if name in system.per_example and not found:
            lead = len(system.axes[name]) - 1
            extra = value.ndim - lead - len(system.shapes[name])
            found[name] = value.shape[lead] if extra == 1 else None
    sizes = set(found.values())
    if len(sizes) > 1:
        shown = ", ".join(f"`{n}` has " + ("none" if b is None else str(b)) for n, b in found.items())
        raise CellError(f"The inputs disagree about the batch: {shown}.",
                        remedy="Give every input a batch axis of the same size, or none.")
    batch = sizes.pop() if sizes else None
    return batch is not None, 1 if batch is None else batch


def _extents(system, values, lone, steps) -> dict[str, int]:
    extents: dict[str, int] = dict(lone)
    source: dict[str, str] = {}
    for name, array in values.items():
        for k, i in enumerate(system.axes[name]):
            if array.ndim > k:
                if extents.setdefault(i, array.shape[k]) != array.shape[k]:
                    raise _about(system, name, f"`{name}` has {array.shape[k]} positions along `{i}`; `{source[i]}` "
                                 f"has {extents[i]}.", "Give both the same length; use `lengths` for shorter examples.")
                source.setdefault(i, name)
    if steps is not None:
        for i, count in (steps.items() if isinstance(steps, Mapping) else _one_index(system, steps, extents)):
            if i not in system.indices:
                raise CellError(f"`{i}` in `steps` is no index of this cell.",
                                remedy="Its indices: " + ", ".join(system.indices) + ".")
            if whole(count) is None:
                raise CellError(f"steps={count!r} is no number of steps.", remedy="Give a whole number from 0.")
            if extents.setdefault(i, int(count)) != int(count):
                raise CellError(f"steps={count}, but `{source[i]}` has {extents[i]} positions along `{i}`.")
    for i in system.indices:
        if i not in extents:
            what = "Give `steps=`, the number of steps." if i not in system.model else f"Give the size `{i}` to init."
            if i not in system.model and i != system.indices[0]:
                what += f" If `{i}` counts layers or the like, declare it: `{i}: axis`."
            raise CellError(f"Nothing says how long `{i}` is.", remedy=what)
        if extents[i] < 1 and i in system.model:
            raise CellError(f"`{source.get(i, i)}` has no positions along `{i}`.", remedy="An axis has at least one.")
    return extents


def _one_index(system, steps, extents):
    open_ = [i for i in system.indices if i not in system.model and i not in extents]
    data = open_ or [i for i in system.indices if i not in system.model]
    return [(data[0], steps)] if data else []


def _lengths(system, lengths, extents, batch, batched) -> dict[str, np.ndarray]:
    if lengths is None:
        return {}
    data = [i for i in system.indices if i not in system.model]
    if not isinstance(lengths, Mapping):
        if len(data) != 1:
            raise CellError(f"The cell has the data indices {', '.join(data)}: lengths of which?",
                            remedy="Give a dict: lengths={" + f"'{data[0]}': [...]" + "}.")
        lengths = {data[0]: lengths}
    found = {}
    for i, values in lengths.items():
        if i not in data:
            raise CellError(f"`{i}` is no data index of this cell.", remedy=f"Data indices: {', '.join(data)}.")
        array = numbers(values)
        if array is None:
            raise CellError(f"The lengths along `{i}` are no list of whole numbers.",
                            remedy=f"Expected ({batch},) whole numbers, one for each example.")
        array = np.atleast_1d(array)
        if array.dtype.kind not in "iu" or array.shape != (batch,):
            raise CellError(f"The lengths along `{i}` have shape {array.shape} and dtype {array.dtype}.",
                            remedy=f"Expected ({batch},) whole numbers, one for each example.")
        if batch and (array.min() < 0 or array.max() > extents[i]):
            raise CellError(f"The lengths along `{i}` go from {array.min()} to {array.max()}.",
                            remedy=f"Each lies between 0 and {extents[i]}.")
        if (array != extents[i]).any():
            found[i] = array.astype(np.int64)
    return found


def _refuse_missing_steps(system, extents, ragged) -> None:
    """Where a sequence has no positions, nothing can be read at its first or last."""
    for n in system.reads:
        name, at = n.params
        for p in at:
            if p.base != "i" and not p.outside and not (extents[p.index] and np.min(ragged.get(p.index, 1))):
                raise _about(system, name, f"`{name}` is read at `{p}` of a sequence that has no position along "
                             f"`{p.index}`.", "Leave out what is empty.")


def _known_sizes(system, values) -> dict[str, int]:
    """The sizes that the given arrays show."""
    sizes: dict[str, int] = {}
    source: dict[str, str] = {}
    for name, array in values.items():
        dims = system.shapes[name]
        if system.roles[name] == "noise" and array.ndim == 0:
            continue
        if array.ndim < len(dims):
            raise _about(system, name, f"`{name}` has shape {array.shape}.",
                         f"Expected {_expected(system, name, name in system.per_example)}.")
        for d, size in zip(dims, array.shape[array.ndim - len(dims):]):
            if isinstance(d, int):
                if d != size:
                    raise _about(system, name, f"`{name}` has shape {array.shape}; its size {d} is fixed by the text.")
            elif sizes.setdefault(d, size) != size:
                wanted = dict.fromkeys(_expected(system, name, batched) for batched in (False, True))
                raise _about(system, name, f"`{name}` has shape {array.shape}: its size `{d}` is {size}, but in "
                             f"`{source[d]}` it is {sizes[d]}.",
                             f"Expected {' or '.join(wanted)} with one size for each name.")
            source.setdefault(d, name)
    return sizes


def _shown_at_ends(system, ends: Ends) -> dict[str, int]:
    """The sizes that the values given just outside show, where no other array does."""
    return {d: size for (name, _), value in ends.items() if value.ndim >= len(system.shapes[name])
            for d, size in zip(reversed(system.shapes[name]), reversed(value.shape)) if isinstance(d, str)}


def _dtype(system, values, ends) -> np.dtype:
    """The parameters' dtype (the inputs' where there are none); complex as soon as anything is."""
    floats = [v.dtype for n, v in values.items() if system.roles[n] == "parameter" and v.dtype.kind in "fc"]
    floats = floats or [v.dtype for n, v in values.items() if v.dtype.kind in "fc"] or [np.dtype(np.float64)]
    dtype = np.result_type(*floats)
    if dtype == np.float16:
        raise CellError("The parameters are float16.", remedy="Use float32 or float64.")
    if any(v.dtype.kind == "c" for v in (*values.values(), *ends.values())):
        dtype = np.result_type(dtype, np.complex64)
    return dtype


def _array(system, name, array, extents, sizes, batch, batched, lengths, dtype) -> np.ndarray:
    """One array as the evaluator wants it: axes, batch, components."""
    axes, comps = system.axes[name], tuple(d if isinstance(d, int) else sizes[d] for d in system.shapes[name])
    per_example = name in system.per_example
    if system.roles[name] == "noise" and array.ndim == 0:
        array = np.full(tuple(extents[i] for i in axes) + ((batch,) if batched else ()) + comps, array)
    if per_example and not batched:
        array = np.expand_dims(array, len(axes))
    expected = tuple(extents[i] for i in axes) + ((batch,) if per_example else ()) + comps
    if array.shape != expected:
        shown = tuple(s for k, s in enumerate(array.shape) if not (per_example and not batched and k == len(axes)))
        wanted = tuple(s for k, s in enumerate(expected) if not (per_example and not batched and k == len(axes)))
        raise _about(system, name,
                     f"`{name}` has shape {shown}; expected {_expected(system, name, batched)} = {wanted}.")
    if system.roles[name] == "class":
        if array.dtype.kind not in "iu":
            raise _about(system, name, f"`{name}` is a class and has dtype {array.dtype}.",
                         "Give whole numbers from 0, of an integer dtype.")
        size = _class_size(system, name, sizes)
        seen = array[_inside(axes, extents, lengths, array)] if lengths else array
        if size is not None and seen.size and (seen.min() < 0 or seen.max() >= size):
            raise _about(system, name, f"`{name}` has classes from {seen.min()} to {seen.max()}; there are {size}.",
                         f"Classes count from 0 to {size - 1}.")
        return array.astype(np.int64)
    return np.asarray(array, dtype)


def _inside(axes, extents, lengths, array) -> np.ndarray:
    mask = np.ones(array.shape, bool)
    for k, i in enumerate(axes):
        if i in lengths:
            shape = [1] * array.ndim
            shape[k] = extents[i]
            shape[len(axes)] = array.shape[len(axes)]
            mask &= (np.arange(1, extents[i] + 1)[:, None] <= lengths[i]).reshape(shape)
    return mask


def _class_size(system, name, sizes) -> int | None:
    d = system.inferred.classes.get(name)
    return d if isinstance(d, int) else sizes.get(d)


def _initial(system: System, initial: Mapping) -> tuple[Ends, dict[str, Any]]:
    """initial -> the values just outside, and by index the number of positions that came before."""
    ends: Ends = {}
    counts = {}
    for key, value in initial.items():
        if key in system.indices:
            counts[key] = value
            continue
        label = "".join(str(key).split())
        if label not in system.initials:
            raise _no_initial(system, label)
        name, end = system.initials[label]
        at = system.outside(name, end)
        array = numbers(value)
        if array is None or array.dtype.kind not in "biufc":
            raise CellError(f"The initial value of `{key}` holds no numbers.",
                            remedy=f"Expected an array of shape {_expected(system, name, True, at)}.")
        if (name, at) in ends:
            raise CellError(f"The initial value of `{system.labels[name, end]}` is given twice.",
                            remedy="Give it once.")
        ends[name, at] = array
    for together in system.overlapping:
        given = {label for name, end, label in together if (name, system.outside(name, end)) in ends}
        if given and len(given) < len(together):
            labels = [f"`{label}`" for *_, label in together]
            raise CellError(f"The initial values {', '.join(labels)} overlap, and only some of them are given.",
                            remedy="Give all of them or none: each stands for what its own reads meet.")
    return ends, counts


def _no_initial(system: System, label: str) -> CellError:
    """Why `initial` may not name this."""
    name, bracket, _ = label.partition("[")
    own = [key for key in system.labels.values() if key.partition("[")[0] == name]
    if not own:
        return CellError(f"`{label}` has no initial value: no equation reads it at another step.",
                         remedy="There are: " + (", ".join(system.labels.values()) or "none") + ".")
    if not bracket:
        return CellError(f"`{label}` has several initial values: {', '.join(own)}.",
                         remedy="Name each by its position.")
    return CellError(f"No equation reads `{label}`.",
                     remedy=f"Values of `{name}` outside that are read: {', '.join(own)}.")


def _offset(i: str, count, batch: int) -> int | np.ndarray:
    """How many positions came before: one number, or each example's own."""
    number, array = whole(count), numbers(count)
    if number is not None:
        return number
    if array is None or array.dtype.kind not in "iu" or array.shape != (batch,) or (array < 0).any():
        raise CellError(f"`{i}` in `initial` is {count!r}; it is the number of steps that came before.",
                        remedy=f"Give a whole number from 0, or one for each of the examples: here {batch}.")
    return array.astype(np.int64)


def _end(system, name, at, value, given: Given, batched) -> np.ndarray:
    axes = tuple(p.index for p in at if p.base == "i")
    comps = tuple(d if isinstance(d, int) else given.sizes[d] for d in system.shapes[name])
    lead = tuple(given.extents[i] for i in axes)
    shape = lead + ((given.batch,) if name in system.per_example else ()) + comps
    label = system.labels[name, next(p for p in at if p.outside)]
    if system.roles[name] == "class" and value.dtype.kind not in "iu":
        raise CellError(f"The initial value of `{label}` is a class and has dtype {value.dtype}.")
    if value.shape == lead + comps and (not batched or value.shape != shape):
        value = np.expand_dims(value, len(lead))
    elif value.shape != shape:
        wanted = shape if batched else lead + comps
        raise CellError(f"The initial value of `{label}` has shape {value.shape}.", remedy=f"Expected {wanted}.")
    return np.broadcast_to(value if system.roles[name] == "class" else np.asarray(value, given.dtype), shape)


def _draw(system, values, noise, extents, sizes, batch):
    """Noise that was not given: drawn from a seed or a Generator, or its mean."""
    names = system.having("noise")  # a stream for each name: the length of one does not move another's draws
    drawn = not (isinstance(noise, str) and noise == "mean")
    streams = dict(zip(names, generator(noise, "noise").spawn(len(names)))) if drawn else {}
    for name in names:
        if name in values:
            continue
        rng = streams.get(name)
        d = system.declarations[name]
        shape = tuple(extents[i] for i in system.axes[name]) + (() if batch is None else (batch,)) + tuple(
            s if isinstance(s, int) else sizes[s] for s in system.shapes[name])
        if d.kind == "noise":
            values[name] = np.zeros(shape) if rng is None else rng.standard_normal(shape)
        else:
            values[name] = np.full(shape, d.probability) if rng is None else (
                rng.random(shape) < d.probability).astype(float)
