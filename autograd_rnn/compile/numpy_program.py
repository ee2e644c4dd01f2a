"""A system as a NumPy program: its source, made once, run in place of the reference evaluator.

    system -> passes -> source -> a function over arrays
"""

from __future__ import annotations

import ast
import inspect
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from textwrap import fill
from typing import Any

import numpy as np

from .. import primitives as P
from ..arrays import Arrays, Given
from ..equations import System
from ..graph import read, topological
from ..printing.text import equation
from ..shapes import carry_over
from .passes import PASSES, Pass, optimised
from .source import HELPERS, Source


class NumpyProgram:
    """A system as a function of arrays, and its source."""

    def __init__(self, system: System, keep: frozenset[str] | None, passes: Iterable[Pass] = PASSES):
        self.system = optimised(system, passes, keep)
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
