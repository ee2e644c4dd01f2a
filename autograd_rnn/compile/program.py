"""Compiled programs: a system's NumPy source, made once, run in place of the reference evaluator.

    system -> passes -> source -> a function over arrays;   ragged lengths and complex numbers go to the reference
"""

from __future__ import annotations

import ast
import inspect
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from textwrap import fill
from typing import Any

import numpy as np

from .. import primitives as P
from ..arrays import Arrays, Given
from ..backpropagate import adjoint_of, differentiate, wanted
from ..bind import bind
from ..equations import System
from ..errors import CellError
from ..evaluate import evaluate
from ..graph import Node, read, topological
from ..order import Loop
from ..printing.text import equation
from ..shapes import carry_over
from ..trace import Trace
from .passes import levels, optimised
from .source import HELPERS, Source

WORK = 500  # steps times batch from which a gradient is compiled


class Compiled:
    """A system as a function of arrays, and its source."""

    def __init__(self, system: System, keep: frozenset[str] | None):
        self.system = optimised(system, keep=keep)
        self.writer = Source(self.system, keep, _told(system, self.system))
        self.source = _module(self.writer)
        namespace: dict[str, Any] = {k: f for k, f in self.writer.functions.items() if not _copied(f)}
        exec(compile(self.source, "<program>", "exec"), namespace)
        self.function = namespace["run"]
        self.sizes: dict[tuple, dict[str, int]] = {}  # as this system has them, by those given

    def __call__(self, system: System, given: Given, keep: Iterable[str]) -> dict[str, np.ndarray]:
        """The bordered arrays of the names in `keep`, from sizes and arrays as `system` has them."""
        own = self.system
        key = tuple(sorted(given.sizes.items()))
        if key not in self.sizes:
            self.sizes[key] = carry_over(given.sizes, system.inferred, own.inferred)
        run = Arrays(own, replace(given, sizes=self.sizes[key]))
        arrays = [None if n in own.defined and not own.axes[n] else run.store(n) for n in self.writer.stores]
        with np.errstate(all="ignore"):
            stores = self.function(arrays, [given.extents[i] for i in own.indices],
                                   [run.given.sizes[d] for d in self.writer.sizes], given.batch, run.real,
                                   {k: given.offsets.get(i, 0) for k, i in enumerate(own.indices)})
        found = dict(zip(self.writer.results, stores))
        rest = Arrays(system, given)  # what is only handed on
        return {n: found[n] if n in found else rest.store(n) for n in keep}


def _told(before: System, after: System) -> dict[str, str]:
    """Equations by their left sides, as they were; one that the passes took into another stands with its reader."""
    gone = {read(eq.name, eq.at): eq for eq in before.equations if eq.name not in after.definitions}
    taken = lambda eq: [gone.pop(n) for n in topological([eq.value]) if n in gone]
    return {str(eq): ", ".join(map(equation, [eq, *taken(eq)])) for eq in before.equations}


def _copied(value: Callable) -> bool:
    """Whether a function's source goes into the program: the library's own do."""
    return getattr(P, getattr(value, "__name__", ""), None) is value


def _helpers(functions: Mapping[str, Callable]) -> str:
    """The source of the primitives' functions that a program calls, with what these call."""
    found: dict[str, str] = {}

    def add(name: str, value: Callable) -> None:
        if name in found:
            return
        found[name] = ""
        text = inspect.getsource(value).replace(f"def {value.__name__}(", f"def {name}(")
        for called in sorted({n.id for n in ast.walk(ast.parse(text)) if isinstance(n, ast.Name)}):
            inner = getattr(P, called, None)
            if called.startswith("_") and inspect.isfunction(inner):
                add(called.lstrip("_"), inner)
                text = text.replace(f"{called}(", f"{called.lstrip('_')}(")
        found[name] = text

    for name, value in functions.items():
        if _copied(value):
            add(name, value)
    return "\n\n".join(found[name].rstrip() + "\n" for name in sorted(found))


def _module(w: Source) -> str:
    """The program: imports, what it calls, and `run`, whose arrays have their ends at 0 and T + 1."""
    unpacked = "".join(f"    {slot} = arrays[{k}]  # {name}\n" for k, (name, slot) in enumerate(w.stores.items()))
    unpacked += "".join(f"    {w.extent(i)} = extent[{k}]  # {i.upper()}\n" for k, i in enumerate(w.system.indices))
    unpacked += "".join(f"    {slot} = size[{k}]\n" for k, slot in enumerate(w.sizes.values()))
    body = "\n".join(w.lines)
    results = fill(f"return [{', '.join(w.stores[n] for n in w.results)}]", 110, initial_indent="    ",
                   subsequent_indent="            ")
    called = _helpers(w.functions) + "\n\n" + "\n\n\n".join(h for h in HELPERS if h.split("(")[0][4:] + "(" in body)
    imports = ("import builtins\n\n" if "builtins." in called else "") + "import numpy as np\n\n\n"
    return (f"{imports}{called.strip()}\n\n\ndef run(arrays, extent, size, batch, dtype, offset):\n{unpacked}\n{body}\n"
            f"{results}\n").replace("np\n\n\n\n\n\ndef", "np\n\n\ndef")


def compiled(system: System, given: Given, keep: Iterable[str] | None = None) -> dict[str, np.ndarray]:
    """What `evaluate` gives, by a program that is made once and lives as long as the system."""
    if given.lengths or given.lanes or np.dtype(given.dtype).kind == "c":
        return evaluate(system, given, keep)
    return program_of(system, keep)(system, given, list(system.axes) if keep is None else list(keep))


def fastest(system: System, given: Given, keep: Iterable[str] | None = None) -> dict[str, np.ndarray]:
    """What `evaluate` gives, compiled where there is work enough. Shapes alone decide, so that bits do not change."""
    steps = int(np.prod([n for i, n in given.extents.items() if i not in system.model], initial=1))
    return (compiled if steps * given.batch >= WORK else evaluate)(system, given, keep)


def program_of(system: System, keep: Iterable[str] | None) -> Compiled:
    programs = system.__dict__.setdefault("_programs", {})
    kept = None if keep is None else frozenset(keep)
    if kept not in programs:
        programs[kept] = Compiled(system, kept)
    return programs[kept]


class Program:
    """A cell, compiled: `gradient` and `forward` take what the cell's `gradient` and `run` take, and give the same.

    See `Cell.compile`.
    """

    def __init__(self, system: System, loss: str | None, outputs: tuple[str, ...], name: str | None):
        self.system, self.loss, self.outputs, self.name = system, loss, outputs, name

    @property
    def _compiled(self) -> Compiled:
        derived = adjoint_of(self.system, self.outputs, self.loss is not None)
        return program_of(derived.system, wanted(self.system, derived, self.outputs))

    def gradient(self, params: Mapping, loss: str | None = None, cotangents: Mapping | None = None,
                 initial: Mapping | None = None, lengths=None, noise=None, steps: int | None = None, **inputs
                 ) -> tuple[float, dict[str, np.ndarray]]:
        """(value, gradients), as `Cell.gradient`."""
        return differentiate(self.system, self.loss, self.outputs, params, loss, cotangents, inputs, initial, lengths,
                             steps, noise, compiled)[:2]

    def forward(self, params: Mapping, initial: Mapping | None = None, lengths=None, steps: int | None = None,
                noise=None, **inputs) -> Trace:
        """Every named value, as `Cell.run`."""
        bound = bind(self.system, params, inputs, initial, lengths, steps, noise)
        return Trace(bound.system, bound.given, compiled(bound.system, bound.given), bound.batched)

    @property
    def source(self) -> str:
        """The program as NumPy: forward and backward, the author's equations in comments."""
        return self._compiled.source

    def save(self, path: str | Path) -> None:
        """Write the program to a file that needs nothing but NumPy, with a function `gradient(values, ...)`.

        Raises CellError where it calls a primitive of your own, whose source is not the library's.
        """
        compiled_ = self._compiled
        if compiled_.writer.foreign:
            names = ", ".join(f"`{name}`" for name in sorted(compiled_.writer.foreign))
            raise CellError(f"The program calls {names}, which a file of NumPy alone does not have.",
                            remedy="Write it with the library's own functions, or use the program here.")
        derived = adjoint_of(self.system, self.outputs, self.loss is not None)
        Path(path).write_text(_file(self, compiled_, derived), encoding="utf-8")

    def report(self) -> str:
        """Which operations are in which loop, and which happen for all steps at once."""
        system = self._compiled.system
        rows: dict[tuple[Loop, ...], list[Node]] = {}
        for step, path in levels(system).items():
            if isinstance(step, Node) and step.args:
                rows.setdefault(path, []).append(step)
        lines = []
        for path in sorted(rows, key=len):
            where = "for all steps at once" if not path else "in the loop over " + ", ".join(
                f"{loop.index} {'forward' if loop.sign > 0 else 'backward'}" for loop in path)
            products = [n for n in rows[path] if n.op is P.matmul or (n.op is P.outer)]
            lines.append(f"{where}: {len(rows[path])} operations, {len(products)} of them products")
            lines += [f"    {_product(system, n)}" for n in products]
        return "\n".join(lines)

    def __repr__(self):
        return f"<Program {self.name or ''}: {len(self.source.splitlines())} lines of NumPy>"


def _product(system: System, n: Node) -> str:
    wholes = {whole: parts for whole, parts, *_ in system.inferred.sums}

    def told(d) -> str:
        return " + ".join(map(told, wholes[d])) if d in wholes else str(d)

    sizes = [" x ".join(map(told, system.inferred.nodes[a])) for a in n.args]
    return f"({sizes[0]}) @ ({sizes[1]})" if n.op is P.matmul else f"outer of ({sizes[0]}) and ({sizes[1]}), summed"


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

    Sequences are (T, batch, size). A value just outside is given by its position, like "h[0]".
    """
    dtype = np.result_type(*(np.asarray(values[n]) for n in {floats}))
{sizes}
    arrays = [
{arrays}
    ]
    for key, position in {ends}:
        if key in values:
            arrays[position[0]][position[1]] = values[key]
    with np.errstate(all="ignore"):
        found = run(arrays, {extents}, {all_sizes}, batch, dtype, {{}})
    return {{
{results}
    }}
'''


def _file(program: Program, made: Compiled, derived) -> str:
    """The program's module with a front door: shapes from the arrays given, gradients by name."""
    system, w = made.system, made.writer
    given = [n for n in system.given if n in w.stores]
    wholes = {whole: parts for whole, parts, *_ in system.inferred.sums}

    def size(d) -> str:
        """A size by its slot, or as the sum of its parts."""
        if d in wholes and d not in w.sizes:
            return " + ".join(map(size, wholes[d]))
        return w.size(d)

    known: dict[str, str] = {}
    for n in given:
        dims = [w.extent(i) for i in system.axes[n]] + ["batch"] * (n in system.per_example)
        dims += [size(d) for d in system.shapes[n]]
        for k, d in enumerate(dims):
            if d.isidentifier():
                known.setdefault(d, f"    {d} = np.shape(values[{n!r}])[{k}]")
    known.setdefault("batch", "    batch = 1")
    rows = []
    for n in w.stores:
        axes = len(system.axes[n])
        shape = [f"{w.extent(i)} + 2" for i in system.axes[n]] + ["batch"] * (n in system.per_example)
        shape += [size(d) for d in system.shapes[n]]
        of_class = system.roles[n] == "class"
        rows.append(f"        bordered(values, {n!r}, {axes}, ({''.join(s + ', ' for s in shape)}), "
                    f"{'np.int64' if of_class else 'dtype'}, {-1 if of_class else 0}),")
    for d, slot in w.sizes.items():
        if d in wholes and slot not in known:
            known[slot] = f"    {slot} = " + " + ".join(map(size, wholes[d]))
    missing = [d for d in (*w.sizes.values(), *(w.extent(i) for i in system.indices)) if d not in known]
    if missing:
        raise CellError("No array of this cell tells all its sizes, so that a file cannot know them.",
                        remedy="Declare an input that has them.")
    slots, found = {n: k for k, n in enumerate(w.stores)}, {n: k for k, n in enumerate(w.results)}
    ends = []
    for n, at in ((n, end) for n, end in program.system.beginnings if n in slots):
        axis = system.axes[n].index(at.index)
        where = tuple(slice(1, -1) if k != axis else (0 if at.base == "1" else -1) for k in range(len(system.axes[n])))
        ends.append((f"{n}[{at}]", (slots[n], where)))
    results = []
    for n in program.system.having("parameter", "input"):
        adjoint = derived.names.get(n)
        if adjoint in found:
            inner = f"[{', '.join(['1:-1'] * len(system.axes[n]))}]" if system.axes[n] else ""
            results.append(f"        {n!r}: found[{found[adjoint]}]{inner},")
    loader = _LOADER.format(
        given=", ".join(given), floats=[n for n in given if system.roles[n] == "parameter"] or given[:1],
        sizes="\n".join(known.values()), arrays="\n".join(rows), ends=ends, results="\n".join(results),
        extents=f"[{', '.join(w.extent(i) for i in system.indices)}]", all_sizes=f"[{', '.join(w.sizes.values())}]")
    head = '"""' + f"{program.name or 'A cell'}: forward and backward, in NumPy alone.\n\n" + "\n".join(
        f"    {equation(eq)}" for eq in derived.forward.equations) + '\n"""\n\n'
    return head.replace("\\", "") + made.source + loader
