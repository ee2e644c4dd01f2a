"""Expressions as graphs: a node is a primitive applied to nodes.

Nodes are hash-consed: the same operation on the same operands is the same object, so identity is equality and
a common subexpression exists once. Everything that reads a graph is a short loop over `topological(roots)`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple
from weakref import WeakValueDictionary


@dataclass(frozen=True, eq=False)
class Primitive:
    """An operation, and everything the library knows about it.

    value(*arrays, **options)
        its value in NumPy, right for complex arguments of tiny imaginary part (the complex step).
        A reduction receives `axis`; an operand listed in `shape_only` arrives as its shape, a tuple.
    vjp(g, y, *x)
        the cotangent of each operand, or None, written in primitives; `y` is the node, `g` its cotangent.
        None where the derivative is zero everywhere it exists.
    shape
        operand shapes and result shape: `s` any shape, the same wherever it stands; `s?` that shape or a number;
        `()` a number, `(n)` a vector, `(m n)` a matrix, `(n ...)` at least one dimension; `k` a class,
        a whole number from 0 to n - 1; `_` anything. A trailing `*` repeats the last operand.
    sympy(e, i, *x)
        component `i` of the result from functions giving the operands' components, `e` offering SymPy's names
        and `e.sum(operand, f)`; for a pointwise primitive simply `sympy(e, *x)` of the components.
    latex, infix
        how it is typeset: a template over the operands, or an operator (text, strength, LaTeX).
    """

    name: str
    value: Callable | None = None
    vjp: Callable | None = None
    shape: str = "s -> s"
    sympy: Callable | None = None
    latex: str | None = None
    infix: tuple[str, int, str] | None = None
    shape_only: tuple[int, ...] = ()
    fill: float | None = None  # what a reduction over an index reads where an example has ended
    statics: int = 0  # whole numbers that follow the operands in the notation: slice(x, 0, 3)
    numpy: str | None = None  # its value in generated source, where that is not `value` by name
    inplace: str | None = None  # statements that write its value to {out}, where that takes more than a ufunc
    machine: Callable | None = None  # its value as machine instructions, `machine(lanes, *vectors, *params)`
    wants: str | None = None  # a fact `value` cannot see: the result's "shape", or the operands' "rank"

    @property
    def pointwise(self) -> bool:
        """Whether component i of the result is made from component i of the operands; a reduction's is not."""
        operands, result = self.shape.split("->")
        return result.strip() == "s" and not self.statics and all(
            token.strip(" ?*") in {"s", "_"} for token in operands.split(","))

    def __call__(self, *args, params=()):
        return node(self, *args, params=params)

    def __repr__(self):
        return f"Primitive({self.name!r})"


class Position(NamedTuple):
    """Where along an index a variable stands: `index + offset`, or from an end: `1 + offset`, `T + offset`.

    An outside end is base "1" with offset -1 (position 0), or base "T" with offset +1 (position T+1).
    """

    index: str  # type: ignore[assignment]  # the field's name hides a method of tuples that nobody needs here
    base: str = "i"
    offset: int = 0

    @property
    def outside(self) -> bool:
        return self.base != "i" and self.offset != 0

    @property
    def reaches(self) -> Position | None:
        """The outside end that a read at this position meets: 0 by `t-1`, T+1 by `t+1`."""
        if self.base == "i" and self.offset:
            return Position(self.index, "1", -1) if self.offset < 0 else Position(self.index, "T", 1)
        return self if self.outside else None

    def __str__(self):
        if self.base == "1":
            return str(1 + self.offset)
        name = self.index if self.base == "i" else extent_name(self.index)
        return name + (f"{self.offset:+d}" if self.offset else "")


def extent_name(index: str) -> str:
    return index.upper()


class Node:
    """A primitive applied to nodes. `params` holds what is static: a number, a name and its positions, an index."""

    __slots__ = ("__weakref__", "args", "op", "params")
    op: Primitive
    args: tuple[Node, ...]
    params: tuple

    def __repr__(self):
        return f"<{self.op.name} {' '.join(map(str, self.params))}/{len(self.args)}>"


_nodes: WeakValueDictionary[tuple, Node] = WeakValueDictionary()


def node(op: Primitive, *args: Node | float, params: tuple = ()) -> Node:
    """The one node for this operation on these operands; plain numbers become constants."""
    operands = tuple(a if isinstance(a, Node) else const(a) for a in args)
    key = (op, operands, params, tuple(map(type, params)))
    found = _nodes.get(key)
    if found is None:
        found = object.__new__(Node)
        found.op, found.args, found.params = op, operands, params
        found = _nodes.setdefault(key, found)
    return found


# Leaves: what an expression is made from.
CONST = Primitive("const")
READ = Primitive("read")
INDEX = Primitive("index")
EXTENT = Primitive("extent")
LEAVES = (CONST, READ, INDEX, EXTENT)


def const(value: float) -> Node:
    return node(CONST, params=(value,))


def read(name: str, positions: tuple[Position, ...] = ()) -> Node:
    return node(READ, params=(name, tuple(positions)))


def index(name: str) -> Node:
    return node(INDEX, params=(name,))


def extent(name: str) -> Node:
    return node(EXTENT, params=(name,))


def topological(roots: Iterable[Node], operands: Callable[[Node], Iterable[Node]] = lambda n: n.args) -> list[Node]:
    """Every node below `roots`, each after its operands; no recursion, so depth does not matter."""
    order: list[Node] = []
    done: set[Node] = set()
    for root in roots:
        stack: list[tuple[Node, bool]] = [(root, False)]
        while stack:
            n, finished = stack.pop()
            if finished:
                order.append(n)
            elif n not in done:
                done.add(n)
                stack.append((n, True))
                stack.extend((a, False) for a in reversed(list(operands(n))) if a not in done)
    return order


def rewrite(roots: Iterable[Node], change: Callable[[Node, tuple[Node, ...]], Node | None]) -> dict[Node, Node]:
    """Rebuild graphs from the leaves up: `change(node, new_operands)` gives the new node, or None to keep it."""
    new: dict[Node, Node] = {}
    for n in topological(roots):
        args = tuple(new[a] for a in n.args)
        changed = change(n, args)
        new[n] = changed if changed is not None else (n if args == n.args else node(n.op, *args, params=n.params))
    return new


def option(n: Node) -> Any:
    """The index a reduction runs over, or None when it runs over components."""
    return n.params[0] if n.params else None
