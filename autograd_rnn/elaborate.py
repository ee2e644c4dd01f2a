"""Lines to a system: indices and names resolved, functions expanded, cells called in cells inlined.

    parsed lines -> axes of every name -> expressions as graphs -> calls inlined -> delays as copies -> System
"""

from __future__ import annotations

import ast
import re
from dataclasses import replace
from functools import lru_cache

from . import primitives as P
from .equations import BATCH, LANE, Equation, System, free_indices, renamed, tokens_reduce
from .graph import (
    CONST,
    INDEX,
    READ,
    Node,
    Position,
    Primitive,
    const,
    extent,
    extent_name,
    index,
    node,
    read,
    rewrite,
    topological,
)
from .parse import _RELATIONS, Definition, Function, Parsed, parse
from .shapes import signature

RESERVED = {BATCH, LANE}
FURTHEST = 100  # steps that a position may lie away
EXPANSIONS = 10_000  # calls of the text's own functions


@lru_cache(maxsize=1)
def library() -> dict[str, Function]:
    """The composed functions, written in the notation."""
    return parse(P.LIBRARY + "\nunused = 0").functions


def callable_name(name: str) -> bool:
    """Whether the notation has a function of this name."""
    return name in library() or (name in P.PRIMITIVES and (P.PRIMITIVES[name].infix is None or name == "mod"))


def elaborate(text: str, cells: dict[str, System], leaves: dict[str, Primitive]
              ) -> tuple[System, dict[str, str]]:
    """The system of equations that a text means, and which cell each prefix of a call stands for."""
    elaboration = _Elaboration(parse(text), cells, leaves)
    return elaboration.system(), elaboration.calls


class _Elaboration:
    def __init__(self, parsed: Parsed, cells: dict[str, System], leaves: dict[str, Primitive]):
        self.parsed, self.cells, self.leaves = parsed, cells, leaves
        self.model = frozenset(d.name for d in parsed.declarations.values() if d.kind == "axis")
        self.indices = self.find_indices()
        self.extents = {extent_name(i): i for i in self.indices}
        self.axes: dict[str, tuple[str, ...]] = {}
        self.find_axes()
        self.declarations = {d.name: d for d in parsed.declarations.values() if d.kind != "axis"}
        self.equations: list[Equation] = []
        self.targets = frozenset(n.id for d in parsed.definitions for t in d.targets for n in ast.walk(t)
                                 if isinstance(n, ast.Name))
        self.places: dict[tuple[str, tuple[Position, ...]], Equation] = {}
        self.calls: dict[str, str] = {}
        self.expansions = 0

    # --- names ---------------------------------------------------------------------------------------------------

    def expressions(self):
        for d in self.parsed.definitions:
            for target in d.targets:
                yield d.line, target
            yield d.line, d.expression
        for f in self.parsed.functions.values():
            yield f.line, f.expression

    def find_indices(self) -> frozenset[str]:
        """Every name that stands in brackets; a capital there is the extent of its lower-case index."""
        found = set(self.model)
        for line, expression in self.expressions():
            for n in ast.walk(expression):
                if isinstance(n, ast.Subscript):
                    for name in ast.walk(n.slice):
                        if isinstance(name, ast.Name):
                            found.add(name.id.lower() if name.id.isupper() else name.id)
                            if name.id in RESERVED:
                                raise line.error(f"`{name.id}` is the library's own index.", name, "Rename it.")
        return frozenset(found)

    def find_axes(self):
        """The index that each place in a name's brackets runs over, from all its occurrences."""
        places: dict[str, list] = {}
        for line, expression in self.expressions():
            inside = {id(s.value) for s in ast.walk(expression) if isinstance(s, ast.Subscript)}
            called = {id(c.func) for c in ast.walk(expression) if isinstance(c, ast.Call)}
            local = set()
            for f in self.parsed.functions.values():
                if f.expression is expression:
                    local = set(f.parameters)
            bracketed = {id(m) for s in ast.walk(expression) if isinstance(s, ast.Subscript) for m in ast.walk(s.slice)}
            for n in ast.walk(expression):
                if isinstance(n, ast.Subscript):
                    raw = n.slice.elts if isinstance(n.slice, ast.Tuple) else [n.slice]
                    places.setdefault(n.value.id, []).append((line, n, [self.axis_of(line, r) for r in raw]))
                elif isinstance(n, ast.Name) and id(n) not in inside | called | bracketed and n.id not in local:
                    if n.id not in self.indices and n.id not in self.extents:
                        places.setdefault(n.id, []).append((line, n, []))
        for name, seen in places.items():
            line, n, _ = seen[0]
            if name in self.indices or name in self.extents:
                what = "an index" if name in self.indices else f"the extent of the index `{self.extents[name]}`"
                raise line.error(f"`{name}` is {what} and cannot also be a variable.", n, "Rename one of them.")
            widest = max((axes for _, _, axes in seen), key=len)
            for line, n, axes in seen:
                if len(axes) != len(widest):
                    shown = ",".join(a or "..." for a in widest)
                    raise line.error(f"`{name}` stands here with {len(axes)} indices, elsewhere with {len(widest)}.", n,
                                     f"Write `{name}[{shown}]` everywhere." if widest else None)
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

    def axis_of(self, line, raw) -> str | None:
        names = [n for n in ast.walk(raw) if isinstance(n, ast.Name)]
        if len(names) > 1:
            raise line.error("A position names one index.", raw, "Write `t`, `t-1`, `t+1`, `0`, `1`, `T` or `T+1`.")
        return (names[0].id.lower() if names[0].id.isupper() else names[0].id) if names else None

    def position(self, line, raw, axis: str) -> Position:
        """`t`, `t-1`, `t+2`, an inside end `1`, `T` or an outside end `0`, `T+1`."""
        base, offset = raw, 0
        moved = isinstance(raw, ast.BinOp) and isinstance(raw.op, (ast.Add, ast.Sub))
        if moved and isinstance(raw.right, ast.Constant):
            base, offset = raw.left, raw.right.value if isinstance(raw.op, ast.Add) else -raw.right.value
        if isinstance(offset, int) and abs(offset) > FURTHEST:
            raise line.error(f"The position lies {abs(offset)} steps away.", raw,
                             f"At most {FURTHEST}; give what lies further back as an input.")
        if isinstance(offset, int):
            if isinstance(base, ast.Name) and base.id == axis:
                return Position(axis, "i", offset)
            if isinstance(base, ast.Name) and base.id == extent_name(axis) and offset in (0, 1):
                return Position(axis, "T", offset)
            if isinstance(base, ast.Constant) and base.value in (0, 1) and not offset and base is raw:
                return Position(axis, "1", base.value - 1)
        up = extent_name(axis)
        raise line.error(f"This is no position along `{axis}`.", raw,
                         f"Positions: {axis}, {axis}-1, {axis}+1, the inside ends 1 and {up}, the outside ends 0 and "
                         f"{up}+1.")

    def positions(self, line, n) -> tuple[str, tuple[Position, ...]]:
        if isinstance(n, ast.Name):
            return n.id, ()
        raw = n.slice.elts if isinstance(n.slice, ast.Tuple) else [n.slice]
        return n.value.id, tuple(self.position(line, r, a) for r, a in zip(raw, self.axes[n.value.id]))

    # --- expressions ---------------------------------------------------------------------------------------------

    def system(self) -> System:
        for d in self.parsed.definitions:
            call = d.expression
            if isinstance(call, ast.Call) and call.func.id in self.cells:
                self.inline(d, self.cells[call.func.id])
                continue
            if len(d.targets) > 1:
                raise d.line.error("Only a cell's call defines several names at once.", d.targets[0],
                                   "Write one line for each name.")
            name, at = self.target(d, d.targets[0])
            self.define(Equation(name, at, _Reader(self, d.line, {p.index for p in at if p.base == "i"}).node(
                d.expression), d.line))
        return self.finish()

    def target(self, d: Definition, target) -> tuple[str, tuple[Position, ...]]:
        name, at = self.positions(d.line, target)
        if name in self.indices or name in self.extents:
            raise d.line.error(f"`{name}` is an index, or its extent, and cannot also be a variable.", target,
                               "Rename one of them.")
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

    def finish(self) -> System:
        equations = self.delays()
        for d in self.declarations.values():
            if d.name not in self.axes and not any(d.name in (e.shape or ()) for e in self.declarations.values()):
                raise d.line.error(f"`{d.name}` is declared but never used.", 0, "Remove the line, or use the name.")
            self.axes.setdefault(d.name, ())
        system = System(equations, self.axes, self.model, self.declarations)
        for eq in system.equations:
            for n in topological([eq.value]):
                if n.op.name in ("onehot", "cross_entropy", "softmax_error"):
                    self.check_class(eq, n.args[-1], n.op.name, system)
            free = free_indices(eq.value, frozenset(), self.model, {}) - RESERVED
            if not free <= set(eq.free):
                missing = sorted(free - set(eq.free))[0]
                raise eq.line.error(f"The right side varies with `{missing}`, the left side does not.", 0,
                                    f"Add `{missing}` on the left, or bind it: `sum_{missing}(...)`.")
        return system

    def check_class(self, eq, k, op, system):
        if k.op is not READ or k.params[0] in system.defined:
            raise eq.line.error(f"`{op}` wants a class: an undefined name, given as whole numbers from 0.", None,
                                "For a target that is a vector of probabilities write `-sum(p * log(softmax(y)))`.")
        if op != "onehot" and any(p.offset for p in k.params[1]):
            raise eq.line.error(f"`{op}` reads its class at a shifted position, where there may be none.", None,
                                "Read the class at its own step, and shift the inputs instead.")

    def delays(self) -> list[Equation]:
        """h[t-3] becomes h_lag2[t-1], with h_lag1[t] = h[t-1] and h_lag2[t] = h_lag1[t-1]."""
        copies: dict[tuple[str, tuple[Position, ...]], Equation] = {}
        equations = []
        for eq in self.equations:
            def change(name, at, eq=eq):
                for k, p in enumerate(at):
                    if p.base == "i" and abs(p.offset) > 1:
                        step = 1 if p.offset > 0 else -1
                        word = "lead" if step > 0 else "lag"
                        base = tuple(Position(i) for i in self.axes[name])
                        source = name
                        for far in range(1, abs(p.offset)):
                            copy = f"{name}_{word}{far}" + (f"_{p.index}" if len(at) > 1 else "")
                            if copy not in self.axes:
                                self.axes[copy] = self.axes[name]
                                copies[copy, base] = Equation(copy, base, read(source, (
                                    *base[:k], p._replace(offset=step), *base[k + 1:])), eq.line)
                            source = copy
                        return change(source, (*at[:k], p._replace(offset=step), *at[k + 1:]))
                return read(name, at)

            for n in topological([eq.value]):
                if n.op.name == "onehot" and n.args[0].op is READ and any(
                        p.base == "i" and abs(p.offset) > 1 for p in n.args[0].params[1]):
                    raise eq.line.error("A class is read at most one step away.", None,
                                        "Give the shifted class as data.")
            equations.append(replace(eq, value=renamed(eq.value, change)))
        return equations + list(copies.values())

    # --- cells called in cells -----------------------------------------------------------------------------------

    def inline(self, d: Definition, callee: System):
        """`h[t], c[t] = enc(x=z[t], h=h[t-1], c=c[t-1])`: the callee's equations under this line's names."""
        call, line = d.expression, d.line
        if call.args:
            raise line.error("A cell's arguments are passed by name.", call.args[0], f"Write `{call.func.id}(x=...)`.")
        targets = [self.target(d, t) for t in d.targets]
        prefix, at = targets[0]
        self.calls[prefix] = call.func.id
        scope = {p.index for p in at if p.base == "i"}
        passed = {k.arg: _Reader(self, line, scope).node(k.value) for k in call.keywords}
        for k in call.keywords:
            if k.arg not in callee.axes:
                raise line.error(f"`{call.func.id}` has no `{k.arg}`.", k.value, "It has " + ", ".join(
                    f"`{n}`" for n in callee.axes) + ".")
            if k.arg in callee.defined and k.arg not in callee.carried:
                raise line.error(f"`{k.arg}` is computed by `{call.func.id}` and cannot be passed to it.", k.value,
                                 "Pass its inputs, its states and parameters to share.")
        states = [k for k in passed if k in callee.defined]
        outputs = states or [callee.equations[-1].name]
        if len(outputs) != len(targets):
            raise line.error(f"The call returns {len(outputs)} values ({', '.join(outputs)}); {len(targets)} names "
                             "stand on the left.", d.targets[0],
                             "It returns the states passed to it, in the order passed.")
        missing = [n for n in callee.having("input", "class") if n not in passed]
        if missing:
            raise line.error(f"`{call.func.id}` needs `{missing[0]}`.", call, f"Pass `{missing[0]}=...`.")

        data = [i for i in callee.indices if i not in callee.model]
        if len(data) > 1:
            raise line.error(f"`{call.func.id}` runs over several data indices ({', '.join(data)}) and cannot be "
                             "called.",
                             call, "Write its equations here.")
        moves = {i: f"{prefix}_{i}" for i in callee.model}
        flip = 1
        if data:
            along, flip = self.direction(d, callee, data[0], {s: passed[s] for s in states}, at)
            moves[data[0]] = along
        self.model |= {moves[i] for i in callee.model}
        extra = tuple(p for p in at if p.base == "i" and p.index not in moves.values())
        home = dict(zip(outputs, targets))

        def own(name):
            private = f"{prefix}_{name}"
            axes = [moves[i] for i in callee.axes[name]]
            axes += [p.index for p in extra if name not in callee.having("parameter", "const") or p.index in self.model]
            known = self.axes.setdefault(private, tuple(axes))
            if known != tuple(axes):
                raise line.error(f"The name `{private}` of this call is taken.", d.targets[0], "Rename the target.")
            return private

        def moved(positions):
            return tuple(Position(moves[p.index], p.base if flip > 0 or p.base == "i" else {"1": "T", "T": "1"}[p.base],
                                  p.offset * flip if p.index in data else p.offset) for p in positions)

        def place(name, positions):
            """Where the callee's `name[positions]` lives here."""
            where = moved(positions)
            if name in home:
                target, slots = home[name]
                by_index = {moves[i]: p for i, p in zip(callee.axes[name], where)}
                return target, tuple(by_index.get(p.index, p) for p in slots)
            private = own(name)
            return private, where + extra[:len(self.axes[private]) - len(where)] if len(
                self.axes[private]) - len(where) in (0, len(extra)) else where + tuple(
                    p for p in extra if p.index in self.axes[private])

        def value(name, positions):
            if name in passed and name not in home:
                if all(p.base == "i" and not p.offset for p in positions):
                    return passed[name]
                private = own(name)
                main = place(name, tuple(Position(i) for i in callee.axes[name]))[1]
                if not any(eq.name == private for eq in self.equations):
                    self.define(Equation(private, main, passed[name], line))
                return read(*place(name, positions))
            if name in states and any(p.base == "i" and p.offset for p in positions):
                return passed[name]
            return read(*place(name, positions))

        for eq in callee.equations:
            body = renamed(eq.value, lambda name, positions: node(READ, params=(name, positions)))
            body = rewrite([body], lambda n, args: self.inlined(n, args, value, moves, flip, data))[body]
            name, positions = place(eq.name, eq.at)
            self.define(Equation(name, positions, body, line))
        for name, declared in callee.declarations.items():
            if name in callee.axes and name not in passed:
                shape = None if declared.shape is None else tuple(
                    s if isinstance(s, int) else home[s][0] if s in home else own(s) for s in declared.shape)
                private = own(name)
                self.declarations[private] = replace(declared, name=private, shape=shape, line=line)

    def inlined(self, n: Node, args, value, moves, flip, data):
        if n.op is READ:
            return value(*n.params)
        if n.op is INDEX and n.params[0] in data and flip < 0:
            return extent(moves[n.params[0]]) + 1 - index(moves[n.params[0]])
        if not n.args or (n.op.fill is not None and n.params and n.params[0] != BATCH):
            if n.op is not CONST:
                return node(n.op, *args, params=(moves.get(n.params[0], n.params[0]),))
        return None

    def direction(self, d: Definition, callee: System, t: str, states: dict[str, Node], at) -> tuple[str, int]:
        """The index the call runs along, and +1 or -1: whether with the callee's own direction or against it."""
        for name, given in states.items():
            if given.op is READ:
                own = next((p.offset for n in callee.reads if n.params[0] == name for p in n.params[1]
                            if p.index == t and p.base == "i" and p.offset), -1)
                for p in given.params[1]:
                    if p.base == "i" and p.offset and p.index not in self.model:
                        return p.index, p.offset * own
        along = [p.index for p in at if p.base == "i" and p.index not in self.model]
        if len(along) != 1:
            raise d.line.error("Nothing says which index the call runs along.", d.targets[0],
                               "Pass a state at `[t-1]`, or write one data index on the left.")
        return along[0], 1


class _Reader:
    """One line's expression as a graph."""

    def __init__(self, home: _Elaboration, line, scope: set[str], local: dict[str, Node] | None = None, depth=0):
        self.home, self.line, self.scope, self.local, self.depth = home, line, scope, local or {}, depth

    def node(self, n: ast.expr) -> Node:
        match n:
            case ast.Constant():
                return const(n.value)
            case ast.Name():
                return self.name(n)
            case ast.Subscript():
                return self.subscript(n)
            case ast.UnaryOp():
                if isinstance(n.op, ast.UAdd):
                    return self.node(n.operand)
                if isinstance(n.operand, ast.Constant):
                    return const(-n.operand.value)
                return node(P.neg, self.node(n.operand))
            case ast.BinOp(op=ast.Add() | ast.Sub()):
                return self.sum(n)
            case ast.BinOp():
                return self.binary(n)
            case ast.Compare():
                return node(P.PRIMITIVES[_RELATIONS[type(n.ops[0])]], self.node(n.left), self.node(n.comparators[0]))
            case ast.Attribute():
                return node(P.transpose, self.node(n.value))
            case ast.Call():
                return self.call(n)
        raise self.line.error("This has no meaning in an equation.", n, "Write one expression on each side of `=`.")

    def sum(self, n) -> Node:
        """a + b - c as one sum of a, b and -c."""
        terms = []
        while isinstance(n, ast.BinOp) and isinstance(n.op, (ast.Add, ast.Sub)) and not (terms and self.bracketed(n)):
            right = self.node(n.right)
            if isinstance(n.op, ast.Sub):
                right = const(-right.params[0]) if right.op is CONST else node(P.neg, right)
            terms.append(right)
            n = n.left
        first = self.node(n)
        return node(P.add, first, *reversed(terms))

    def bracketed(self, n) -> bool:
        """Whether the left operand `n` stands in brackets of its own."""
        rest = self.line.source[n.end_col_offset:].lstrip()
        return rest.startswith(")")

    def binary(self, n) -> Node:
        kinds = {ast.MatMult: "@", ast.Mult: "*", ast.Div: "/"}
        if type(n.op) in kinds and isinstance(n.left, ast.BinOp) and type(n.left.op) in kinds:
            if (isinstance(n.op, ast.MatMult) != isinstance(n.left.op, ast.MatMult)) and not self.bracketed(n.left):
                a, b = kinds[type(n.left.op)], kinds[type(n.op)]
                raise self.line.error(f"`{a}` and `{b}` stand side by side: Python reads `(x {a} y) {b} z`.", n.left,
                                      "Say which is meant with brackets, for instance `r * (U @ h)`.")
        left = self.node(n.left)
        if isinstance(n.op, ast.Pow):
            exponent = n.right.operand.value if isinstance(n.right, ast.UnaryOp) else n.right.value
            sign = -1 if isinstance(n.right, ast.UnaryOp) and isinstance(n.right.op, ast.USub) else 1
            return node(P.pow, left, params=(sign * exponent,))
        op = {ast.Mult: P.mul, ast.Div: P.div, ast.Mod: P.mod, ast.MatMult: P.matmul}[type(n.op)]
        return node(op, left, self.node(n.right))

    def name(self, n: ast.Name) -> Node:
        home = self.home
        if n.id in self.local:
            return self.local[n.id]
        if n.id in home.indices:
            if n.id not in self.scope:
                raise self.line.error(f"The index `{n.id}` is not on the left side and nothing binds it.", n,
                                      f"Add it on the left, or bind it: `sum_{n.id}(...)`.")
            return index(n.id)
        if n.id in home.extents:
            return extent(home.extents[n.id])
        if n.id in home.cells:
            raise self.line.error(f"`{n.id}` is a cell and is called.", n, f"Write `{n.id}(x=...)`.")
        self.is_variable(n)
        if home.axes.get(n.id):
            raise self.line.error(f"`{n.id}` runs over {', '.join(home.axes[n.id])}; here its index is missing.", n,
                                  f"Write `{n.id}[{','.join(home.axes[n.id])}]`.")
        return read(n.id)

    def is_variable(self, n: ast.Name) -> None:
        """A function that is not called is a slip, unless the text defines or declares a variable of its name."""
        home = self.home
        own = n.id in home.parsed.functions or n.id in home.leaves
        if (own or callable_name(n.id)) and n.id not in home.declarations and n.id not in home.targets:
            raise self.line.error(f"`{n.id}` is a function and stands here without its argument.", n,
                                  f"Write `{n.id}(...)`, or define a variable of another name.")

    def subscript(self, n: ast.Subscript) -> Node:
        if n.value.id in self.local:
            raise self.line.error(f"`{n.value.id}` is a function's parameter and takes no index.", n,
                                  "Pass the variable at its index: `f(h[t])`.")
        self.is_variable(n.value)
        name, at = self.home.positions(self.line, n)
        for p in at:
            if p.base == "i" and p.index not in self.scope:
                raise self.line.error(f"The index `{p.index}` is not on the left side and nothing binds it.", n,
                                      f"Add it on the left, or bind it: `sum_{p.index}(...)`.")
        return read(name, at)

    def call(self, n: ast.Call) -> Node:
        home, name = self.home, n.func.id
        if name in home.cells:
            raise self.line.error(f"The cell `{name}` is called inside an expression.", n,
                                  f"Give the call a line of its own: `h[t] = {name}(...)`.")
        if n.keywords:
            raise self.line.error(f"`{name}` takes no named arguments.", n.keywords[0].value,
                                  "Only a cell's arguments are passed by name.")
        stem, _, suffix = name.rpartition("_")
        function = home.parsed.functions.get(name) or (library().get(name) if name not in home.leaves else None)
        if function is not None:
            return self.expand(n, function)
        primitive = home.leaves.get(name) or (P.PRIMITIVES.get(name) if callable_name(name) else None)
        if primitive is not None:
            return self.apply(n, primitive)
        over = P.PRIMITIVES.get(stem)
        if over is not None and over.fill is not None and (suffix in home.indices or suffix == BATCH):
            return self.reduce(n, over, suffix)
        known = sorted({*library(), *home.leaves, *home.parsed.functions, *home.cells,
                        *(p for p, v in P.PRIMITIVES.items() if v.infix is None)})
        raise self.line.error(f"`{name}` is no function of the notation.", n, self.suggestion(name, known))

    def suggestion(self, name, known) -> str:
        from difflib import get_close_matches

        if re.match(r"(sum|mean|max|softmax|logsumexp|cumsum)_", name):
            return "What follows the underscore must be an index of this text."
        near = get_close_matches(name, known, 1)
        return (f"Did you mean `{near[0]}`? " if near else "") + "Functions: " + ", ".join(known) + "."

    def expand(self, n: ast.Call, function: Function) -> Node:
        if len(n.args) != len(function.parameters):
            raise self.line.error(f"`{function.name}` takes {len(function.parameters)} arguments, {len(n.args)} given.",
                                  n, f"Write `{function.name}({', '.join(function.parameters)})`.")
        if self.depth > 20:
            raise self.line.error(f"`{function.name}` calls itself.", n, "A function is a formula, not a recursion.")
        self.home.expansions += 1
        if self.home.expansions > EXPANSIONS:
            raise self.line.error(f"The functions of this text are called more than {EXPANSIONS} times.", n,
                                  "Define a variable for what is used again and again.")
        local = dict(zip(function.parameters, map(self.node, n.args)))
        return _Reader(self.home, function.line, self.scope, local, self.depth + 1).node(function.expression)

    def apply(self, n: ast.Call, primitive: Primitive) -> Node:
        args, statics = list(n.args), []
        for _ in range(primitive.statics):
            if not args or not isinstance(args[-1], ast.Constant) or type(args[-1].value) is not int:
                raise self.line.error(f"`{primitive.name}` ends with {primitive.statics} whole number(s).", n,
                                      "For instance `slice(x, 0, 3)`.")
            statics.insert(0, args.pop().value)
        if primitive.statics == 2 and not 0 <= statics[0] < statics[1]:
            raise self.line.error("A slice runs from its start to a larger stop, counted from 0.", n,
                                  "For instance `slice(x, 0, 3)`: the first three components.")
        if primitive is P.split and not 1 <= statics[0] < len(args):
            raise self.line.error("The part to split off is counted from 1.", n,
                                  "`split(v, a, b, 2)` is the part of v that has b's size, after one of a's.")
        operands = signature(primitive.shape)[0]
        if not operands[-1].endswith("*"):
            wanted = len(operands)
            if len(args) != wanted:
                raise self.line.error(f"`{primitive.name}` takes {wanted} argument(s), {len(args)} given.", n,
                                      "Separate the arguments by commas; an index or a size is none of them.")
        elif not args:
            raise self.line.error(f"`{primitive.name}` takes at least one argument.", n,
                                  f"For instance `{primitive.name}(x[t], h[t-1])`.")
        # what only lends its shape may vary with any index
        shape_only = _Reader(self.home, self.line, set(self.home.indices), self.local, self.depth)
        return node(primitive, *((shape_only if k in primitive.shape_only else self).node(a)
                                 for k, a in enumerate(args)), params=tuple(statics))

    def reduce(self, n: ast.Call, primitive: Primitive, over: str) -> Node:
        """sum_j(e) binds j; softmax_j(e) keeps it."""
        if len(n.args) != 1:
            raise self.line.error(f"`{n.func.id}` takes one argument.", n, f"Write `{n.func.id}(expression)`.")
        if not tokens_reduce(node(primitive, 0)) and over not in self.scope | {BATCH}:
            raise self.line.error(f"`{n.func.id}` keeps the index `{over}`, which is not on the left side.", n,
                                  f"Define its result with `{over}` on the left, or sum over it.")
        body = _Reader(self.home, self.line, self.scope | {over}, self.local, self.depth).node(n.args[0])
        if primitive is P.mean:
            return node(P.div, node(P.sum, body, params=(over,)), node(P.sum, const(1), params=(over,)))
        return node(primitive, body, params=(over,))
