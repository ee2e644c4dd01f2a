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
from .expressions import HELPERS
from .lease import room
from .passes import PASSES, Pass, optimised
from .source import Source
from .space import Space


class NumpyProgram:
    """A system as a function of arrays, and its source."""

    def __init__(self, system: System, keep: Iterable[str] | None, passes: Iterable[Pass] = PASSES):
        """keep: the names that are wanted, all where None; what a mapping says True of has an array of its own."""
        self.system, self.refused = optimised(system, passes, keep)
        self.fresh = {n for n, whole in keep.items() if whole is True and n in self.system.defined
                      } if isinstance(keep, Mapping) else set()
        self.writer = Source(self.system, keep, _told(system, self.system), self.fresh)
        self.source = _module(self.writer)
        namespace: dict[str, Any] = {k: f for k, f in self.writer.functions.items() if not _copied(f)}
        exec(compile(self.source, "<program>", "exec"), namespace)
        self.function, self.workspace = namespace["run"], namespace["workspace"]
        self.sizes: dict[tuple, dict[str, int]] = {}  # as this system has them, by those given
        self.spaces: dict[tuple, list[Space]] = {}
        self.fault = ""  # where its values differ from the reference's

    def __call__(self, system: System, given: Given, keep: Iterable[str]) -> dict[str, np.ndarray]:
        """The bordered arrays of the names in `keep`, from sizes and arrays as `system` has them."""
        full = self.own(system, given)
        space, waiting = self.room(full)
        found = space.run(space.values(full), full)
        found.update(space.lent([n for n in keep if n in space.arrays], waiting))
        rest = Arrays(system, given)  # what is only handed on
        return {n: found[n] if n in found else rest.store(n) for n in keep}

    def own(self, system: System, given: Given) -> Given:
        """What `system` is given, with the sizes as the program has them."""
        key = tuple(sorted(given.sizes.items()))
        if key not in self.sizes:
            self.sizes[key] = carry_over(given.sizes, system.inferred, self.system.inferred)
        return replace(given, sizes=self.sizes[key])

    def room(self, given: Given) -> tuple[Space, list[Space]]:
        """A space for a run of these shapes, and the list that it goes back to."""
        shape = tuple(given.sizes.items()), tuple(given.extents.items()), given.batch, given.dtype
        return room(self.spaces, shape, lambda: Space(self, given))


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
    sizes = "".join(f"    {w.extent(i)} = extent[{k}]  # {i.upper()}\n" for k, i in enumerate(w.system.indices))
    parts = "".join(f"    {w.store(n)} = {w.store(part.whole)}[..., {w.sum(part.before) or ''}:"
                    f"{w.sum((*part.before, part.size))}]  # {n}\n" for n, part in w.parts.items() if n in w.stores)
    shapes = "".join(f"        np.empty(({', '.join(shape)}{',' * (len(shape) == 1)}), dtype),\n"
                     for shape in w.work.shapes.values())
    sizes += "".join(f"    {slot} = size[{k}]\n" for k, slot in enumerate(w.sizes.values()))
    arrays = "".join(f"    {slot} = arrays[{k}]  # {name}\n" for k, (name, slot) in enumerate(w.stores.items())
                     if name not in w.parts)
    if w.work.shapes:
        names = fill(f"[{', '.join(w.work.shapes)}]", 100, initial_indent="    ", subsequent_indent="     ")
        arrays += f"{names} = work\n"
    parts += "".join(f"    {slot} = np.asarray({number}, dtype)\n" for number, slot in w.constants.items())
    body = "\n".join(w.lines)
    results = fill(f"return [{', '.join(w.stores[n] for n in w.results)}]", 110, initial_indent="    ",
                   subsequent_indent="            ")
    called = _helpers(w.functions) + "\n\n" + "\n\n\n".join(h for h in HELPERS if h.split("(")[0][4:] + "(" in body)
    imports = ("import builtins\n\n" if "builtins." in called else "") + "import numpy as np\n\n\n"
    return (f"{imports}{called.strip()}\n\n\ndef workspace(extent, size, batch, dtype):\n"
            f"    \"\"\"The arrays that `run` works in; they serve one run after the other.\"\"\"\n"
            f"{sizes}    return [\n{shapes}    ]\n\n\n"
            f"def run(arrays, work, extent, size, batch, dtype, offset):\n{arrays}{sizes}{parts}\n{body}\n"
            f"{results}\n").replace("np\n\n\n\n\n\ndef", "np\n\n\ndef")
