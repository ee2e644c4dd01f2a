"""A program as a file that needs nothing but NumPy: its module with a front door that takes arrays by name."""

from __future__ import annotations

from ..adjoint import Derived
from ..equations import System
from ..init import lone_sizes
from ..printing.text import equation
from .numpy_program import NumpyProgram

_LOADER = '''

def bordered(values, name, axes, shape, dtype, fill):
    """An array with one position more at both ends of each index, and what is given in its place."""
    if not axes:
        return np.asarray(values[name], dtype) if name in values else None
    array = np.full(shape, fill, dtype)
    if name in values:
        array[(slice(1, -1),) * axes] = values[name]
    return array


def gradient(values):
    """Every gradient by name, from parameters, inputs and cotangents by name: {given}.

    Sequences are (T, batch, size). A value just outside is given by its position: {labels}.
    Raises ValueError for a name that means nothing here, for what is missing, and for arrays that do not fit.
    """
    axes, ends = {axes}, {ends}
    unknown = sorted(set(values) - set(axes) - {{label for label, _ in ends}})
    if unknown:
        raise ValueError(f"{{unknown[0]!r}} is neither an array of this cell nor a value just outside")
    for name in {needed}:
        if name not in values:
            raise ValueError(f"{{name!r}} is missing: its axes are ({{', '.join(map(str, axes[name]))}})")
    known = {{}}
    for name in [name for name in axes if name in values]:
        shape = np.shape(values[name])
        if len(shape) != len(axes[name]):
            raise ValueError(f"{{name!r}} has shape {{shape}}: its axes are ({{', '.join(map(str, axes[name]))}})")
        for axis, size in zip(axes[name], shape):
            wanted = axis if isinstance(axis, int) else known.setdefault(axis, size)
            if size != wanted:
                raise ValueError(f"{{name!r}} has shape {{shape}}: its axis {{axis!r}} is {{size}}, not {{wanted}}")
    for name in {whole}:
        if np.asarray(values[name]).dtype.kind not in "iu":
            raise ValueError(f"{{name!r}} has dtype {{np.asarray(values[name]).dtype}}: give whole numbers")
    dtype = np.result_type(*(np.asarray(values[n]) for n in {floats}))
{sizes}
    arrays = [
{arrays}
    ]
    for key, position in ends:
        if key in values:
            shape = np.shape(arrays[position[0]][position[1]])
            if np.shape(values[key]) != shape:
                raise ValueError(f"{{key!r}} has shape {{np.shape(values[key])}}: the other arrays make it {{shape}}")
            arrays[position[0]][position[1]] = values[key]
    with np.errstate(all="ignore"):
        found = run(arrays, workspace({extents}, {all_sizes}, batch, dtype), {extents}, {all_sizes}, batch, dtype, {{}})
    return {{
{results}
    }}
'''


def file_of(system_: System, name: str | None, made: NumpyProgram, derived: Derived) -> str:
    """The program's module with a front door: shapes from the arrays given, gradients by name."""
    system, w = made.system, made.writer
    given = [n for n in system.given if n in w.stores]
    wholes = {whole: parts for whole, parts, *_ in system.inferred.sums}

    def size(d) -> str:
        """A size by its slot, or as the sum of its parts."""
        if d in wholes:
            return " + ".join(map(size, wholes[d]))
        return w.size(d)

    known: dict[str, str] = {}
    for n in given:
        dims = [w.extent(i) for i in system.axes[n]] + ["batch"] * (n in system.per_example)
        dims += [size(d) for d in system.shapes[n]]
        for k, d in enumerate(dims):
            if d.isidentifier():
                known.setdefault(d, f"    {d} = np.shape(values[{n!r}])[{k}]")
    lone = lone_sizes(system_)
    for d in lone:  # no array of the cell shows it: it comes with the parameters
        slot = w.extent(d) if d in system.indices else size(d)
        if slot.isidentifier():
            known.setdefault(slot, f"    {slot} = int(values[{d!r}])")
    known.setdefault("batch", "    batch = 1")
    rows = []
    for n in w.stores:
        axes = len(system.axes[n])
        shape = [f"{w.extent(i)} + 2" for i in system.axes[n]] + ["batch"] * (n in system.per_example)
        shape += [size(d) for d in system.shapes[n]]
        of_class = system.roles[n] == "class"
        if n in w.bare:
            rows.append(f"        np.asarray(values[{n!r}], {'np.int64' if of_class else 'dtype'}),")
            continue
        rows.append(f"        bordered(values, {n!r}, {axes}, ({''.join(s + ', ' for s in shape)}), "
                    f"{'np.int64' if of_class else 'dtype'}, {-1 if of_class else 0}),")
    for d, slot in w.sizes.items():
        if d in wholes and slot not in known:
            known[slot] = f"    {slot} = " + " + ".join(map(size, wholes[d]))
    slots, found = {n: k for k, n in enumerate(w.stores)}, {n: k for k, n in enumerate(w.results)}
    ends = []
    beside = [n for n in system_.given if n not in given]  # what the outputs do not reach: taken, and not read
    for n, at in ((n, end) for n, found_ends in system_.delayed.items() for end in found_ends if n in slots):
        if any(eq.at == system_.outside(n, at) for eq in system_.definitions.get(n, ())):
            continue  # the text says what it is
        axis = system.axes[n].index(at.index)
        where = tuple(slice(1, -1) if k != axis else (0 if at.base == "1" else -1) for k in range(len(system.axes[n])))
        ends.append((system_.labels[n, at], (slots[n], where)))
    results, unreached = [], []
    for n in system_.having("parameter", "input"):
        adjoint = derived.names.get(n)
        if adjoint not in found:
            unreached.append(n)
            continue
        inner = f"[{', '.join(['1:-1'] * len(system.axes[n]))}]" if system.axes[n] else ""
        text = f"found[{found[adjoint]}]{inner}"
        if n in system_.per_example and adjoint not in system.per_example:  # the same for all examples
            text = f"np.repeat(np.expand_dims({text}, {len(system.axes[n])}), batch, {len(system.axes[n])})"
        results.append(f"        {n!r}: {text},")
    if unreached:
        results.append(f"        **{{n: np.zeros(np.shape(values[n]), dtype) for n in {unreached} if n in values}},")
    named = {n: axes_of(s, n) for s, names in ((system_, beside), (derived.system, given)) for n in names}
    named |= dict.fromkeys(lone, ())
    loader = _LOADER.format(
        given=", ".join([*given, *beside]), axes=named, needed=[*given, *lone],
        whole=[n for n in given if system.roles[n] == "class"] + [*lone],
        labels=", ".join(f'"{label}"' for label, _ in ends) or "there is none",
        floats=[n for n in given if system.roles[n] == "parameter"] or given[:1],
        sizes="\n".join(known.values()), arrays="\n".join(rows), ends=ends, results="\n".join(results),
        extents=f"[{', '.join(w.extent(i) for i in system.indices)}]", all_sizes=f"[{', '.join(w.sizes.values())}]")
    head = '"""' + f"{name or 'A cell'}: forward and backward, in NumPy alone.\n\n" + "\n".join(
        f"    {equation(eq)}" for eq in derived.forward.equations) + '\n"""\n\n'
    return head.replace("\\", "") + made.source + loader


def axes_of(system: System, name: str) -> tuple[str | int, ...]:
    """What each axis of an array is, by name, or its size."""
    return (*(i.upper() for i in system.axes[name]), *["batch"] * (name in system.per_example), *system.shapes[name])
