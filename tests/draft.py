"""A cell's text while it is written: its lines, and for every name its indices, its shape and its role.

Nothing here asks the library anything: what a text means is known from how it was made, so that whoever reads the text
can be compared with it.
"""

from __future__ import annotations

import re
from typing import NamedTuple

import numpy as np

DATA, MODEL = ("t", "j"), ("l",)
SQUASH = ("tanh({})", "tanh({})", "sigmoid({})", "sin({})", "hard_sigmoid({})", "tanh({}) * 0.8")


class Name(NamedTuple):
    axes: tuple[str, ...]
    dims: tuple[str | int, ...]  # a size by its letter, or a number
    role: str  # value, parameter, const, input, class, noise, bernoulli
    shared: bool  # has no value of its own for each example


class Draft:
    """One text under way. Its features add lines; what they define later ones read."""

    def __init__(self, seed: int):
        self.rng = np.random.default_rng(seed)
        self.names: dict[str, Name] = {}
        self.lines: list[str] = []
        self.declared: dict[str, str] = {}
        self.functions: list[str] = []
        self.cells: dict[str, str] = {}
        self.pool: list[str] = []  # what later lines may read at their own position
        self.marks: set[str] = set()
        self.defined_ends: set[tuple[str, str, str]] = set()
        self.least: dict[str, int] = {}
        self.count = 0

    # --- chance --------------------------------------------------------------------------------------------------

    def pick(self, *options):
        return options[self.rng.integers(len(options))]

    def chance(self, p: float) -> bool:
        return self.rng.random() < p

    def mark(self, *what: str) -> None:
        self.marks.update(what)

    # --- names ---------------------------------------------------------------------------------------------------

    def fresh(self, stem: str) -> str:
        self.count += 1
        return f"{stem}{self.count}"

    def new(self, stem: str, axes=("t",), dims=("h",), role="value", shared=False) -> str:
        """A name that `define` gives a value later, or that a run is given."""
        name = self.fresh(stem)
        self.names[name] = Name(tuple(axes), tuple(dims), role, shared)
        for i in axes:
            if i in MODEL:
                self.declared.setdefault(i, "axis")
        return name

    def define(self, name: str, expression: str, pool: bool = True) -> str:
        """`name[...] = expression` as a line; later lines read it."""
        of = self.names[name]
        self.lines.append(f"{self.at(name)} = {expression}")
        shared = not set(of.axes) & set(DATA) and not any(not self.names[n].shared for n in self.used(expression))
        shared = shared and not re.search(r"(?<!\.)\b[TJ]\b", expression)
        self.names[name] = of._replace(shared=shared)
        if pool:
            self.pool.append(name)
        return name

    def value(self, stem: str, axes, dims, expression: str, pool: bool = True) -> str:
        turned = len(axes) > 1 and self.chance(0.15)  # brackets in any order
        return self.define(self.new(stem, tuple(axes)[::-1] if turned else axes, dims), expression, pool)

    def used(self, expression: str) -> list[str]:
        return [n for n in re.findall(r"[A-Za-z]\w*", expression) if n in self.names]

    def parameter(self, dims=(), axes=(), declare=False, stem: str | None = None) -> str:
        """A new parameter, read where it stands. Numbers are always declared, others where nothing else says."""
        dims = tuple(dims)
        name = self.new(stem or {0: "r", 1: "b", 2: "W"}[len(dims)], axes, dims, "parameter", shared=True)
        if declare or not dims:
            self.declare(name)
        return self.at(name)

    def declare(self, name: str, kind: str = "") -> None:
        """Say the shape of a name, and its kind."""
        dims = self.names[name].dims
        shape = ", ".join(str(d) if isinstance(d, int) else self.named(d) for d in dims)
        self.declared[name] = f"{kind}({shape})"

    def named(self, size: str) -> str:
        """A vector that has this size: names stand for sizes in declarations."""
        found = [n for n, of in self.names.items() if of.dims == (size,) and of.role == "value"]
        if not found:
            b = self.new("b", (), (size,), "parameter", shared=True)
            found = [self.value("v", (), (size,), f"tanh({b})")]
        return found[0]

    def given(self, axes, dims=("x",), role="input", declare=False) -> str:
        """An input by its indices and shape: the one that is there already, or a new one."""
        known = [n for n, of in self.names.items() if (of.axes, of.dims, of.role) == (tuple(axes), tuple(dims), role)]
        if known and self.chance(0.8):
            return self.pick(*known)
        stem = {"input": "x", "class": "k", "noise": "e", "bernoulli": "keep", "const": "n"}[role]
        name = self.new(stem, axes, dims, role, shared=role == "const")
        kind = {"input": "input", "class": "input", "noise": "noise", "const": "const", "bernoulli": "bernoulli"}[role]
        if role == "class":
            if not axes:
                self.declared[name] = "input"
        elif role == "bernoulli":
            self.declared[name] = f"bernoulli({self.named(dims[0])}, 0.7)"
        elif declare or len(dims) != 1 or not axes or role != "input":
            self.declare(name, kind)
        if role == "input":
            self.pool.append(name)
        return name

    # --- reading -------------------------------------------------------------------------------------------------

    def at(self, name: str, **moves: int | str) -> str:
        """`name[t-1,j]`: a shift for some of its indices, or a position as it is written."""
        where = [move if isinstance(move, str) else f"{i}{move:+d}" if move else i
                 for i in self.names[name].axes for move in [moves.get(i, 0)]]
        return name + (f"[{','.join(where)}]" if where else "")

    def readable(self, dims, scope, exact=False) -> list[str]:
        """What stands in the pool with this shape (None for any vector) and varies with no other index."""
        return [n for n in self.pool for of in [self.names[n]]
                if (of.dims == dims or (dims is None and len(of.dims) == 1))
                and (set(of.axes) == set(scope) if exact else set(of.axes) <= set(scope))]

    def recent(self, names: list[str]) -> str:
        """One of them, later ones more often: texts become deep rather than wide."""
        weights = np.arange(1, len(names) + 1) ** 2.0
        return names[self.rng.choice(len(names), p=weights / weights.sum())]

    def source(self, scope, dims=None) -> str:
        """A name that varies with all of `scope` and is computed from nothing: an input, or a parameter of layers."""
        scope = tuple(scope)
        if not set(scope) - set(MODEL) and scope:
            dims = ("h",) if dims is None else dims
            found = [n for n in self.readable(dims, scope, exact=True) if self.names[n].role == "value"
                     and n.startswith("layer")]
            if found:
                return self.pick(*found)
            p = self.parameter(dims, scope, declare=len(dims) != 1)
            return self.value("layer", scope, dims, f"tanh({p})")
        if set(scope) & set(MODEL):  # data and layers
            dims = ("h",) if dims is None else dims
            a = self.source(tuple(i for i in scope if i in DATA), dims)
            b = self.source(tuple(i for i in scope if i in MODEL), dims)
            return self.value("m", scope, dims, f"{self.at(a)} + {self.at(b)}")
        if dims is None:
            dims = ({("t",): "x", ("j",): "e"}.get(scope, "h"),)
        return self.given(scope, dims)

    def vector(self, size: str, scope, exact=False) -> str:
        """A vector as an operand; exact: it varies with all of `scope`."""
        found = self.readable((size,), scope, exact)
        if found and self.chance(0.75):
            return self.at(self.recent(found))
        others = self.readable(None, scope, exact)
        source = self.recent(others) if others and self.chance(0.8) else self.source(scope)
        own = self.names[source].dims[0]
        if own == size and self.chance(0.3):
            return f"({self.parameter((size,))} * {self.at(source)})"
        layers = [i for i in self.names[source].axes if i in MODEL and self.chance(0.3)]
        return f"({self.parameter((size, own), layers)} @ {self.at(source)})"

    def number(self, scope, exact=False) -> str:
        """A number as an operand."""
        found = self.readable((), scope, exact)
        if found and self.chance(0.5):
            return self.at(self.recent(found))
        if not exact and self.chance(0.2):
            return self.pick(self.parameter(), *(f"({i} / {i.upper()})" for i in scope))
        v = self.vector(self.pick("h", "h", "x"), scope, exact)
        return self.pick(f"mean({v})", f"tanh(sum({self.parameter((v_size(self, v),))} * {v}))", f"logsumexp({v})",
                         f"max({v})")

    def matrix(self, rows: str, columns: str, scope, exact=False) -> str:
        """A matrix as an operand."""
        found = self.readable((rows, columns), scope, exact)
        if found and self.chance(0.6):
            return self.at(self.recent(found))
        if exact or self.chance(0.5):
            return f"outer({self.vector(rows, scope, exact)}, {self.vector(columns, scope, exact)})"
        return self.parameter((rows, columns), declare=True)

    def operand(self, dims, scope, exact=False) -> str:
        dims = tuple(dims)
        return self.number(scope, exact) if not dims else self.vector(
            dims[0], scope, exact) if len(dims) == 1 else self.matrix(*dims, scope, exact)

    def squash(self, expression: str) -> str:
        return self.pick(*SQUASH).format(expression)

    # --- the whole -----------------------------------------------------------------------------------------------

    def reads(self) -> list[tuple[str, dict[str, str]]]:
        """Every `name[t-1,j]` that stands on the right of a line, as the name and its position along each index."""
        found = []
        for line in self.lines:
            for name, where in re.findall(r"\b([A-Za-z]\w*)\b(?:\[([^]]*)\])?", line.split(" = ", 1)[1]):
                if name in self.names:
                    found.append((name, dict(zip(self.names[name].axes, where.split(",")))))
        return found

    def ends(self, near=False) -> list[tuple[str, str, str]]:
        """(name, index, side) of the ends that a shift reaches; near: not those beside a far read along two indices,
        where `initial` has none."""
        found: dict[tuple[str, str, str], None] = {}
        for name, at in self.reads():
            moved = {i: int(p[1:]) for i, p in at.items() if p.startswith(i) and p != i}
            if not near or len(moved) < 2 or max(map(abs, moved.values())) < 2:
                found |= {(name, i, "0" if o < 0 else i.upper() + "+1"): None for i, o in moved.items()}
        return list(found)

    def unread(self) -> list[str]:
        """Values that no other value is made from."""
        read = {n for line in self.lines for left, right in [line.split(" = ", 1)]
                for n in self.used(right) if n not in self.used(left)}
        return [n for n, of in self.names.items() if of.role == "value" and n not in read]

    def prune(self) -> None:
        """Forget what was drawn and stands nowhere."""
        used = {n for line in self.lines for n in self.used(line)}
        used |= {n for n in self.names if "_" in n}  # of calls
        self.names = {n: of for n, of in self.names.items() if n in used}
        bracketed = {i for of in self.names.values() for i in of.axes}
        self.declared = {n: kind for n, kind in self.declared.items() if n in used or n in bracketed}
        self.cells = {key: text for key, text in self.cells.items() if f"{key}(" in "".join(self.lines)}

    def text(self) -> str:
        declared = [f"{name}: {kind}" for name, kind in self.declared.items()]
        return "\n".join([*declared, *self.functions, *self.lines])


def v_size(draft: Draft, expression: str) -> str:
    """The size of a vector that `Draft.vector` gave: of the first name in it."""
    first = draft.used(expression)[0]
    return draft.names[first].dims[0]
