"""Lines to a system: indices and names resolved, functions expanded, cells called in cells inlined.

    parsed lines -> axes of every name -> expressions as graphs -> calls inlined -> delays as copies -> System
"""

from __future__ import annotations

import ast
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import replace
from functools import cached_property
from itertools import chain, count

from .call import inline
from .equations import (
    BATCH,
    LANE,
    MOST_EQUATIONS,
    Equation,
    System,
    copies_of,
    copy_word,
    free_indices,
    joined,
    renamed,
)
from .graph import (
    CONST,
    READ,
    Node,
    Position,
    Primitive,
    extent_name,
    read,
    topological,
)
from .naming import name_parts, repeated
from .parse import Definition, Line, Parsed, parse
from .reader import Reader
from .signature import class_operands

RESERVED = {BATCH, LANE}
KEYWORDS = {"self", "params", "initial", "lengths", "steps", "noise", "loss", "cotangents", "state", "seed", "dtype",
            "tape"}  # what the calls that take inputs by name take themselves
NUMBERS = {"pi": math.pi, "inf": math.inf}  # unless the text has a variable of that name
FURTHEST = 100  # steps that a position may lie away


def elaborate(text: str, cells: dict[str, System], leaves: dict[str, Primitive]
              ) -> tuple[System, dict[str, str]]:
    """The system of equations that a text means, and which cell each prefix of a call stands for."""
    elaboration = Elaboration(parse(text), cells, leaves)
    return elaboration.system(), elaboration.calls


class Elaboration:
    def __init__(self, parsed: Parsed, cells: dict[str, System], leaves: dict[str, Primitive]):
        self.parsed, self.cells, self.leaves = parsed, cells, leaves
        self.model = frozenset(d.name for d in parsed.declarations.values() if d.kind == "axis")
        self.indices = self.find_indices()
        self.extents = {extent_name(i): i for i in self.indices}
        self.targets = frozenset(n.id for d in parsed.definitions for t in d.targets for n in ast.walk(t)
                                 if isinstance(n, ast.Name))
        indexed = {n.value.id for _, nodes, _ in self.expressions for n in nodes if isinstance(n, ast.Subscript)}
        self.numbers = {n: v for n, v in NUMBERS.items() if n not in {*self.targets, *parsed.declarations, *indexed}}
        self.axes: dict[str, tuple[str, ...]] = {}
        self.find_axes()
        self.declarations = {d.name: d for d in parsed.declarations.values() if d.kind != "axis"}
        self.equations: list[Equation] = []
        self.places: dict[tuple[str, tuple[Position, ...]], Equation] = {}
        self.calls: dict[str, str] = {}
        self.owners: dict[str, tuple[str, str]] = {}  # of the private names of calls
        self.expansions = 0

    # --- names ---------------------------------------------------------------------------------------------------

    @cached_property
    def expressions(self) -> list[tuple[Line, list[ast.AST], frozenset[str]]]:
        """The line, the nodes and the local names of every side of `=`."""
        sides = [(d.line, e, frozenset()) for d in self.parsed.definitions for e in (*d.targets, d.expression)]
        sides += [(f.line, f.expression, frozenset(f.parameters)) for f in self.parsed.functions.values()]
        return [(line, [*ast.walk(expression)], local) for line, expression, local in sides]

    def find_indices(self) -> frozenset[str]:
        """Every name that stands in brackets; a capital there is the extent of its lower-case index."""
        found = set(self.model)
        for line, nodes, _ in self.expressions:
            for n in nodes:
                if isinstance(n, ast.Subscript):
                    if isinstance(n.slice, ast.Tuple) and not n.slice.elts:
                        raise line.error(f"The brackets of `{n.value.id}` are empty.", n,
                                         "Write an index, or no brackets.")
                    for name in ast.walk(n.slice):
                        if isinstance(name, ast.Name):
                            found.add(name.id.lower() if name.id.isupper() else name.id)
                            if name.id in RESERVED:
                                raise line.error(f"`{name.id}` is the library's own index.", name, "Rename it.")
        return frozenset(found)

    def find_axes(self):
        """The index that each place in a name's brackets runs over, from all its occurrences."""
        places: dict[str, list] = {}
        for line, nodes, local in self.expressions:
            aside: set[int] = set()  # names that are called, or stand with brackets or in them
            for n in nodes:
                if isinstance(n, ast.Subscript):
                    aside.add(id(n.value))
                    aside.update(map(id, ast.walk(n.slice)))
                elif isinstance(n, ast.Call):
                    aside.add(id(n.func))
            for n in nodes:
                if isinstance(n, ast.Subscript):
                    raw = n.slice.elts if isinstance(n.slice, ast.Tuple) else [n.slice]
                    places.setdefault(n.value.id, []).append((line, n, [self.axis_of(line, r) for r in raw]))
                elif isinstance(n, ast.Name) and id(n) not in aside and not (
                        n.id in local or n.id in self.indices or n.id in self.extents or n.id in self.numbers):
                    places.setdefault(n.id, []).append((line, n, []))
        for name, seen in places.items():
            line, n, _ = seen[0]
            self.refuse_index(line, n, name)
            widest = max((axes for _, _, axes in seen), key=len)
            for line, n, axes in seen:
                shown = ",".join(a or "..." for a in widest)
                if not axes and widest:
                    raise line.error(f"`{name}` stands here without its index, elsewhere as `{name}[{shown}]`.", n,
                                     f"Write `{name}[{shown}]`, or for the step before `{name}[{shown}-1]`."
                                     if len(widest) == 1 else f"Write `{name}[{shown}]`.")
                if len(axes) != len(widest):
                    raise line.error(f"`{name}` stands here with {len(axes)} indices, elsewhere with {len(widest)}.", n,
                                     f"Write `{name}[{shown}]` everywhere.")
            resolved = []
            for k in range(len(widest)):
                named = [(line, n, axes[k]) for line, n, axes in seen if axes[k]]
                if not named:
                    raise line.error(f"Nothing says which index `{name}` runs over.", n,
                                     f"Read or define it at an index somewhere, like `{name}[t]`.")
                for line, n, axis in named:
                    if axis != named[0][2]:
                        raise line.error(f"`{name}` runs over `{named[0][2]}` and cannot be read over `{axis}`.", n,
                                         f"Define a variable over `{axis}` first.")
                resolved.append(named[0][2])
            if len(set(resolved)) != len(resolved):
                raise line.error(f"`{name}` runs over the same index twice.", n,
                                 "Declare a second index with the same size, like `j: axis`.")
            self.axes[name] = tuple(resolved)

    def refuse_index(self, line, n, name: str) -> None:
        """A name is an index, the extent of one, or a variable."""
        if name in self.indices:
            raise line.error(f"`{name}` is an index and cannot also be a variable.", n, "Rename one of them.")
        if name in self.extents:
            of = self.extents[name]
            raise line.error(f"`{name}` is the extent of the index `{of}` and cannot also be a variable.", n,
                             "The extent of an index is its capital: rename the variable or the index.")

    def axis_of(self, line, raw) -> str | None:
        names = [n for n in ast.walk(raw) if isinstance(n, ast.Name)]
        if len(names) > 1:
            raise line.error("A position names one index.", raw, "Write `t`, `t-1`, `t+1`, `0`, `1`, `T` or `T+1`.")
        return (names[0].id.lower() if names[0].id.isupper() else names[0].id) if names else None

    def position(self, line, raw, axis: str, furthest: int = 1) -> Position:
        """`t`, `t-1`, `t+2`, an inside end `1`, `T` or an outside end `0`, `T+1`; `-1`, `T+2` where `furthest` is 2."""
        base, offset = raw, 0
        if isinstance(raw, ast.UnaryOp) and isinstance(raw.operand, ast.Constant) and isinstance(raw.op, ast.USub):
            base, offset = ast.Constant(0), -raw.operand.value
        moved = isinstance(raw, ast.BinOp) and isinstance(raw.op, (ast.Add, ast.Sub))
        if moved and isinstance(raw.right, ast.Constant):
            base, offset = raw.left, raw.right.value if isinstance(raw.op, ast.Add) else -raw.right.value
        if isinstance(offset, int) and abs(offset) > FURTHEST:
            raise line.error(f"The position lies {abs(offset)} steps away.", raw,
                             f"At most {FURTHEST}; give what lies further back as an input.")
        if isinstance(offset, int):
            if isinstance(base, ast.Name) and base.id == axis:
                return Position(axis, "i", offset)
            if isinstance(base, ast.Name) and base.id == extent_name(axis) and 0 <= offset <= furthest:
                return Position(axis, "T", offset)
            if isinstance(base, ast.Constant) and base.value in (0, 1) and not moved and -furthest < offset:
                return Position(axis, "1", base.value - 1 + offset)
        up = extent_name(axis)
        raise line.error(f"This is no position along `{axis}`.", raw,
                         f"Positions: {axis}, {axis}-1, {axis}+1, the inside ends 1 and {up}, the outside ends 0 and "
                         f"{up}+1.")

    def positions(self, line, n, furthest: int = 1) -> tuple[str, tuple[Position, ...]]:
        if isinstance(n, ast.Name):
            return n.id, ()
        raw = n.slice.elts if isinstance(n.slice, ast.Tuple) else [n.slice]
        return n.value.id, tuple(self.position(line, r, a, furthest) for r, a in zip(raw, self.axes[n.value.id]))

    # --- expressions ---------------------------------------------------------------------------------------------

    def system(self) -> System:
        for d in self.parsed.definitions:
            call = d.expression
            if isinstance(call, ast.Call) and call.func.id in self.cells:
                inline(self, d, self.cells[call.func.id])
                continue
            name, at = self.target(d, d.targets[0])
            value = Reader(self, d.line, {p.index for p in at if p.base == "i"}).node(d.expression)
            if len(d.targets) > 1:
                raise d.line.error("Only a cell's call defines several names at once.", d.targets[0],
                                   "Write one line for each name.")
            self.define(Equation(name, at, value, d.line))
        return self.finish()

    def target(self, d: Definition, target) -> tuple[str, tuple[Position, ...]]:
        name, at = self.positions(d.line, target, FURTHEST)
        self.refuse_index(d.line, target, name)
        if name in self.cells or name in self.leaves or name in self.parsed.functions:
            raise d.line.error(f"`{name}` is a function here and cannot be a variable.", target, "Rename one of them.")
        for p in at:
            if (p.base == "i" and p.offset) or (p.base != "i" and not p.outside):
                raise d.line.error(f"`{name}` cannot be defined at `{p}`.", target,
                                   f"Define it at `{p.index}`, or just outside: at 0 or at {extent_name(p.index)}+1.")
        if sum(p.outside for p in at) > 1:
            raise d.line.error("An end is taken along one index at a time.", target,
                               "Define the end along one index, with the other index open: `h[t,0]`.")
        return name, at

    def define(self, eq: Equation):
        other = self.places.setdefault((eq.name, eq.at), eq)
        if other is not eq:
            raise eq.line.error(f"`{eq}` is defined twice.", 0,
                                f"The first definition is line {other.line.number}: {other.line.source.strip()}")
        declared = self.declarations.get(eq.name)
        if declared is not None and not eq.end and declared.kind != "parameter":
            raise eq.line.error(f"`{eq.name}` is declared as {declared.kind} and also defined.", 0,
                                "Remove the declaration or the definition.")
        self.equations.append(eq)
        if len(self.equations) > MOST_EQUATIONS:
            raise eq.line.error(f"The text, with its calls written out, has more than {MOST_EQUATIONS} equations.", 0,
                                "Write repeated equations once, over an index: `l: axis`.")

    def finish(self) -> System:
        equations = delays(self.equations, self.axes)
        for d in self.declarations.values():
            if d.name not in self.axes and not any(d.name in (e.shape or ()) for e in self.declarations.values()):
                raise d.line.error(f"`{d.name}` is declared but never used.", 0, "Remove the line, or use the name.")
            self.axes.setdefault(d.name, ())
        system = System(equations, self.axes, self.model, self.declarations)
        system.bounded("The text, with its calls and far reads written out,")
        for eq in system.equations:
            for n in topological([eq.value]):
                for k in class_operands(n):
                    self.check_class(eq, k, n.op.name, system)
            free = free_indices(eq.value, frozenset(), self.model, {}) - RESERVED
            if not free <= set(eq.free):
                missing = sorted(free - set(eq.free))[0]
                raise eq.line.error(f"The right side varies with `{missing}`, the left side does not.", 0,
                                    f"Add `{missing}` on the left, or bind it: `sum_{missing}(...)`.")
            if "inf" in system.axes and any(n.op is CONST and math.isinf(n.params[0]) for n in topological([eq.value])):
                raise eq.line.error("`inf` is the number here, and a variable elsewhere in this text.", 0,
                                    "Rename the variable.")
            for i in eq.free:
                if i.startswith("_"):
                    raise eq.line.error(f"The index `{i}` begins with an underscore: no sum over it could be written.",
                                        0, f"Rename it: `{i.strip('_') or 'j'}`.")
        for name in system.given:
            if name in KEYWORDS:
                line = next(d.line for d in self.parsed.definitions if re.search(rf"\b{name}\b", d.line.source))
                raise line.error(f"`{name}` is an argument of `run`, `gradient` or `init` and cannot be given by name.",
                                 line.source.find(name), f"Rename it, for instance to `{name}_`.")
        return name_parts(system, repeated(system.equations))

    def check_class(self, eq, k, op, system):
        if k.op is not READ or k.params[0] in system.defined:
            raise eq.line.error(f"`{op}` wants a class: an undefined name, given as whole numbers from 0.", None,
                                "For a target that is a vector of probabilities write `-sum(p * log(softmax(y)))`.")
        if op != "onehot" and any(p.offset for p in k.params[1]):
            raise eq.line.error(f"`{op}` reads its class at a shifted position, where there may be none.", None,
                                "Read the class at its own step, and shift the inputs instead.")


def delays(equations: Iterable[Equation], axes: dict[str, tuple[str, ...]], known: Mapping[Node, str] | None = None
           ) -> list[Equation]:
    """h[t-3] becomes h_lag2[t-1], with h_lag1[t] = h[t-1] and h_lag2[t] = h_lag1[t-1], whose axes join `axes`.

    Each copy goes one step along every index that is still shifted: y[t-3,l-1] is y_lag2_t_lag1_l[t-1,l], a copy of
    y_lag1_t_lag1_l[t,l] = y[t-1,l-1]. So y itself is read next to every position, where its ends are; the copies meet
    only positions that lie further out. known: copies that there are already, by what they copy.
    """
    copies = dict(known or {})
    made, found = [], []
    for eq in equations:
        def change(name, at, eq=eq):
            source, rest = name, at
            for steps in range(1, max((abs(p.offset) for p in at if p.base == "i"), default=0)):
                copied = read(source, tuple(map(_one_step, rest)))
                if copied not in copies:
                    stem = joined(name, copy_word(at, steps))
                    free = chain([stem], (f"{stem}_{n}" for n in count(2)))  # of the author's own names
                    copies[copied] = next(c for c in free if c not in axes)
                    axes[copies[copied]] = tuple(p.index for p in rest if not p.outside)
                    made.append(Equation(copies[copied], tuple(map(Position, axes[copies[copied]])), copied, eq.line))
                    if len(made) > MOST_EQUATIONS:
                        raise eq.line.error(f"Far reads need more than {MOST_EQUATIONS} copies.", 0,
                                            "Read fewer steps back, or give what lies far back as an input.")
                source = copies[copied]
                rest = tuple(p._replace(offset=p.offset - _one_step(p).offset) if p.base == "i" else p
                             for p in rest if not p.outside)
            return read(source, rest)

        for n in topological([eq.value]):
            for k in class_operands(n):
                if k.op is READ and any(p.base == "i" and abs(p.offset) > 1 for p in k.params[1]):
                    raise eq.line.error("A class is read at most one step away.", None,
                                        "Give the shifted class as data.")
        found.append(replace(eq, value=renamed(eq.value, change)))
    stand_for = copies_of(made)
    return [*made, *(_further_out(eq, stand_for) for eq in found)]


def _further_out(eq: Equation, copies: Mapping[str, Node]) -> Equation:
    """s[-1] = a is s_lag1[0] = a: what lies further out than an end is the end of a copy."""
    far = next((p for p in eq.at if p.outside and abs(p.offset) > 1), None)
    if far is None:
        return eq
    end = far._replace(offset=far.offset // abs(far.offset))
    shift = Position(far.index, "i", far.offset - end.offset)
    same = {name: n.params[1] for name, n in copies.items() if n.params[0] == eq.name and shift in n.params[1]}
    main = tuple(shift if p is far else p for p in eq.at)
    name = next((name for name, at in same.items() if at == main), None)
    if name is None or len(same) > 1:
        if same:
            raise eq.line.error(f"`{eq}` is read at shifted positions of the other index.", 0, "Give it by `initial`.")
        raise eq.line.error(f"`{eq}` lies further out than any read reaches.", 0,
                            "Define the end next to the first or last position, or read the name further away.")
    return replace(eq, name=name, at=tuple(end if p is far else p for p in eq.at))


def _one_step(p: Position) -> Position:
    """The position that the next copy reads: an outside end at once, an inside end only in the last read."""
    if p.base == "i":
        return p._replace(offset=max(-1, min(1, p.offset)))
    return p if p.outside else Position(p.index)
