"""Expressions of the text as graphs: names, functions and reductions resolved within one line's scope."""

from __future__ import annotations

import ast
import re
from difflib import get_close_matches
from functools import cache
from typing import TYPE_CHECKING

from . import primitives as P
from .equations import BATCH, free_indices, tokens_reduce
from .errors import CellError
from .graph import CONST, Node, Primitive, const, extent, index, node, read
from .parse import RELATIONS, Function, parse
from .signature import signature

if TYPE_CHECKING:
    from .elaborate import Elaboration

EXPANDED = 20_000  # operations of a text's functions, written out at every call
OPERATIONS = {ast.Mult: P.mul, ast.Div: P.div, ast.Mod: P.mod, ast.MatMult: P.matmul}


@cache
def library() -> dict[str, Function]:
    """The composed functions, written in the notation."""
    return parse(P.LIBRARY + "\nunused = 0").functions


def callable_name(name: str) -> bool:
    """Whether the notation has a function of this name."""
    return name in library() or (name in P.PRIMITIVES and (P.PRIMITIVES[name].infix is None or name == "mod"))


class Reader:
    """One line's expression as a graph."""

    def __init__(self, home: Elaboration, line, scope: set[str], local: dict[str, Node] | None = None, depth=0):
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
                operand = self.node(n.operand)
                return const(-operand.params[0]) if operand.op is CONST else node(P.neg, operand)
            case ast.BinOp(op=ast.Add() | ast.Sub()):
                return self.sum(n)
            case ast.BinOp():
                return self.product(n)
            case ast.Compare():
                return node(P.PRIMITIVES[RELATIONS[type(n.ops[0])]], self.node(n.left), self.node(n.comparators[0]))
            case ast.Attribute():
                turns = 0
                while isinstance(n, ast.Attribute):
                    turns, n = turns + 1, n.value
                found = self.node(n)
                for _ in range(turns):
                    found = node(P.transpose, found)
                return found
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

    def product(self, n) -> Node:
        """a * b / c @ d, from the left; without recursion, however many there are."""
        right = []
        while isinstance(n, ast.BinOp) and not isinstance(n.op, (ast.Add, ast.Sub)):
            self.refuse_mixed(n)
            right.append(n)
            n = n.left
        found = self.node(n)
        for n in reversed(right):
            if isinstance(n.op, ast.Pow):
                exponent = n.right.operand.value if isinstance(n.right, ast.UnaryOp) else n.right.value
                sign = -1 if isinstance(n.right, ast.UnaryOp) and isinstance(n.right.op, ast.USub) else 1
                found = node(P.pow, found, params=(sign * exponent,))
            else:
                found = node(OPERATIONS[type(n.op)], found, self.node(n.right))
        return found

    def refuse_mixed(self, n: ast.BinOp) -> None:
        """`*` or `/` beside `@` without brackets: few read it as Python does."""
        kinds = {ast.MatMult: "@", ast.Mult: "*", ast.Div: "/"}
        inner = type(n.left.op) if isinstance(n.left, ast.BinOp) else None
        if (type(n.op) in kinds and inner in kinds and ast.MatMult in (inner, type(n.op)) and inner is not type(n.op)
                and not self.bracketed(n.left)):
            a, b = kinds[inner], kinds[type(n.op)]
            raise self.line.error(f"`{a}` and `{b}` stand side by side: Python reads `(x {a} y) {b} z`.", n.left,
                                  "Say which is meant with brackets, for instance `r * (U @ h)`.")

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
        if n.id in home.numbers:
            return const(home.numbers[n.id])
        self.is_variable(n)
        if home.axes.get(n.id):
            raise self.line.error(f"`{n.id}` runs over {', '.join(home.axes[n.id])}; here its index is missing.", n,
                                  f"Write `{n.id}[{','.join(home.axes[n.id])}]`.")
        return read(n.id)

    def is_variable(self, n: ast.Name) -> None:
        """A function that is not called, or infinity in other letters, is a slip, unless it is defined or declared."""
        home = self.home
        if n.id in home.declarations or n.id in home.targets:
            return
        if n.id.lower() in ("inf", "infty", "infinity"):
            raise self.line.error(f"`{n.id}` looks like the number infinity.", n,
                                  f"Write `inf`, or declare the variable: `{n.id}: ()`.")
        if n.id in home.parsed.functions or n.id in home.leaves or callable_name(n.id):
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
        stem, _, suffix = name.rpartition("_")
        function = home.parsed.functions.get(name) or (library().get(name) if name not in home.leaves else None)
        primitive = home.leaves.get(name) or (P.PRIMITIVES.get(name) if callable_name(name) else None)
        over = P.PRIMITIVES.get(stem)
        if over is not None and (over.fill is None or (suffix not in home.indices and suffix != BATCH)):
            over = None
        if n.keywords:
            raise self.named(n, bool(function or primitive or over))
        if function is not None:
            return self.expand(n, function)
        if primitive is not None:
            return self.apply(n, primitive)
        if over is not None:
            return self.reduce(n, over, suffix)
        known = sorted({*library(), *home.leaves, *home.parsed.functions, *home.cells,
                        *(p for p, v in P.PRIMITIVES.items() if v.infix is None)})
        raise self.line.error(f"`{name}` is no function of the notation.", n, self.suggestion(name, known))

    def named(self, n: ast.Call, function: bool) -> CellError:
        """Arguments by name, given to what is no cell."""
        name = n.func.id
        if function:
            return self.line.error(f"`{name}` takes no named arguments.", n.keywords[0].value,
                                   f"Write `{name}(...)` without names: only a cell's arguments have them.")
        near = get_close_matches(name, self.home.cells, 1)
        return self.line.error(f"No cell `{name}` was passed.", n, f"Did you mean `{near[0]}`?" if near else
                               f"Pass it with the text: Cell(text, {name}=Cell(...)).")

    def suggestion(self, name, known) -> str:
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
        self.home.expansions += sum(1 for _ in ast.walk(function.expression))
        if self.home.expansions > EXPANDED:
            raise self.line.error(f"The functions of this text, written out, have more than {EXPANDED} operations.", n,
                                  "Define a variable for what is used again and again.")
        local = dict(zip(function.parameters, map(self.node, n.args)))
        return Reader(self.home, function.line, self.scope, local, self.depth + 1).node(function.expression)

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
        shape_only = Reader(self.home, self.line, set(self.home.indices), self.local, self.depth)
        return node(primitive, *((shape_only if k in primitive.shape_only else self).node(a)
                                 for k, a in enumerate(args)), params=tuple(statics))

    def alive(self, body: Node, over: str) -> Node:
        """What a mean counts: 1 a position; over the batch, the examples that have not ended yet."""
        count = const(1)
        for i in sorted(free_indices(body, frozenset(), self.home.model, {}) - self.home.model - {BATCH}):
            if over == BATCH:
                count = node(P.mul, count, node(P.le, index(i), extent(i)))
        return count

    def reduce(self, n: ast.Call, primitive: Primitive, over: str) -> Node:
        """sum_j(e) binds j; softmax_j(e) keeps it."""
        if len(n.args) != 1:
            raise self.line.error(f"`{n.func.id}` takes one argument.", n, f"Write `{n.func.id}(expression)`.")
        if not tokens_reduce(node(primitive, 0)) and over not in self.scope | {BATCH}:
            raise self.line.error(f"`{n.func.id}` keeps the index `{over}`, which is not on the left side.", n,
                                  f"Define its result with `{over}` on the left, or sum over it.")
        body = Reader(self.home, self.line, self.scope | {over}, self.local, self.depth).node(n.args[0])
        if primitive is P.mean:
            return node(P.div, node(P.sum, body, params=(over,)), node(P.sum, self.alive(body, over), params=(over,)))
        return node(primitive, body, params=(over,))
