"""Expressions as SymPy, component by component, or with every size 1: one reader of every primitive's declaration.

    node -> its component at (i, j) -> SymPy expression;   symbolic.py sets whole vectors instead

A read is a plain Symbol named as the text writes it, `h_{t-1}`, without assumptions. Under a sum over an index it is an
Indexed, h[t], so that it varies there; component by component it is always Indexed: h[t, i]. Under a sum over the batch
a value of one example carries the example as well. Nothing that a user wrote is parsed or evaluated by SymPy.
"""

from __future__ import annotations

import builtins
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from itertools import chain, count, islice
from typing import Any

import numpy as np

from ..equations import BATCH, Equation, System, tokens_reduce
from ..graph import CONST, EXTENT, INDEX, Node, Position, extent_name, option, read
from ..signature import PARTS

LETTERS = "ijklmnpqrsuvw"


def symbol_name(name: str, at: tuple[Position, ...] = ()) -> str:
    """The name of a read's Symbol: `W`, `h_{t-1}`. Functions' names stand in braces, so that `lambdify` renames them.

    >>> symbol_name("h", (Position("t", "i", -1),)), symbol_name("W_hf"), symbol_name("less")
    ('h_{t-1}', 'W_hf', '{less}')
    """
    if at:
        return f"{name}_{{{','.join(map(str, at))}}}"
    return f"{{{name}}}" if callable(getattr(np, name, None)) or hasattr(builtins, name) else name


def key(eq: Equation) -> str:
    """How an equation is asked for: `c`, and the ends by their position, `h[0]`."""
    return str(eq) if eq.end else eq.name


class Symbols:
    """The SymPy names of a system: reads, indices, extents, sizes, and letters that clash with none of them."""

    def __init__(self, system: System):
        import sympy

        self.sympy, self.system = sympy, system
        self.taken = {*system.axes, *system.indices, *map(extent_name, system.indices)}
        self.bound: dict[str, object] = {}  # index -> the symbol a sum has bound it to
        self.ordered = False  # t - 1 as it is written, rather than as SymPy sorts it
        self.free: dict[Any, frozenset] = {}  # of every expression that was summed, and of its parts
        self.scope: list[str] = []  # names of all symbols that enclosing sums have bound
        self.batch = self.fresh("b")
        self.batch_extent = self.fresh("B")
        dims = {d for shape in system.inferred.variables.values() for d in shape} | {
            d for shape in system.inferred.nodes.values() for d in shape}
        self.sizes = {d: sympy.Integer(d) if str(d).isdigit() else sympy.Symbol(
            self.fresh("n_" + str(d).replace(".", "_"))) for d in sorted(dims, key=str)}

    def fresh(self, name: str) -> str:
        """The name, or the first of name_1, ... that is free, taken from now on."""
        found = name if name not in self.taken else next(self.spare(name))
        self.taken.add(found)
        return found

    def index(self, name: str):
        return self.bound.get(name) or self.sympy.Symbol(name)

    def extent(self, name: str):
        return self.sympy.Symbol(self.batch_extent if name == BATCH else extent_name(name))

    def position(self, p: Position):
        if p.base == "1":
            return self.sympy.Integer(1 + p.offset)
        base = self.index(p.index) if p.base == "i" else self.extent(p.index)
        return self.sympy.Add(base, p.offset, evaluate=not self.ordered) if p.offset else base

    def number(self, value: float):
        return self.sympy.Integer(value) if isinstance(value, int) else self.sympy.Float(value)

    def leaf(self, n: Node, comps: tuple = (), plain: bool = True):
        """A constant, an index, an extent or a read; `plain` asks for a Symbol wherever no sum has bound its index."""
        s = self.sympy
        if n.op is CONST:
            return self.number(n.params[0])
        if n.op is INDEX:
            return self.index(n.params[0])
        example = (self.bound[BATCH],) if BATCH in self.bound else ()
        if n.op is EXTENT:
            own = example and n.params[0] not in (*self.system.model, BATCH)
            return s.Indexed(extent_name(n.params[0]), *example) if own else self.extent(n.params[0])
        name, at = n.params
        example = example if name in self.system.per_example else ()
        if not (at or example or comps) or (plain and not example and not any(
                p.base == "i" and p.index in self.bound for p in at)):
            return s.Symbol(symbol_name(name, at))
        return s.Indexed(s.IndexedBase(s.Symbol(name)), *map(self.position, at), *example, *comps)

    @contextmanager
    def bind(self, index: str) -> Iterator:
        """Bind an index: to a symbol of its own name, or to another where that is in use."""
        name = self.batch if index == BATCH else index
        name = next(c for c in chain([name], self.spare(name)) if c not in self.scope)
        before, self.bound = self.bound, {**self.bound, index: self.sympy.Symbol(name)}
        self.scope.append(name)
        yield self.bound[index]
        self.scope.pop()
        self.bound = before

    def spare(self, *stems: str) -> Iterator[str]:
        """i_1, j_1, i_2, ...: what no name uses."""
        return (c for k in count(1) for c in (f"{stem}_{k}" for stem in stems) if c not in self.taken)

    @contextmanager
    def letters(self, number: int) -> Iterator[tuple]:
        """Letters for components that no name and no enclosing sum uses."""
        free = (c for c in chain(LETTERS, self.spare(*"ijk")) if c not in self.taken and c not in self.scope)
        chosen = tuple(islice(free, number))
        self.scope.extend(chosen)
        yield tuple(map(self.sympy.Symbol, chosen))
        del self.scope[len(self.scope) - number:]

    def total(self, term, var, first, last):
        """The sum of a term over var = first..last; a term without var as often as there are values."""
        s, term = self.sympy, self.sympy.Integer(term) if isinstance(term, int) else term
        if var not in free_symbols(term, self.free):
            return term * (last - first + 1)
        # As it is: Sum(...) would pull cases out of an inner sum whose letter they depend on, and take minutes to look
        inner = term.args if isinstance(term, s.Sum) else (term,)
        found = s.Expr.__new__(s.Sum, *inner, s.Tuple(var, first, last))
        found.is_commutative = True
        return found


def free_symbols(e, known: dict) -> frozenset:
    """The symbols that a SymPy expression depends on; those of its parts are remembered in `known`.

    SymPy's own asks sums within sums anew at each level, and substitutes in all of them to do so.
    """
    if e not in known:
        parts = frozenset((e,)) if e.is_Symbol else frozenset().union(*(free_symbols(a, known) for a in e.args))
        known[e] = parts.difference(getattr(e, "bound_symbols", ()))
    return known[e]


class Operand:
    """An operand of a primitive as its declaration sees it: called with component numbers, it gives that component."""

    def __init__(self, components: Components, n: Node):
        self.of, self.node = components, n
        self.dims = components.dims(n)

    def __call__(self, *comps):
        return self.of.component(self.node, comps[:len(self.dims)])


class Components:
    """The components of a system's expressions, and what a primitive's declaration calls `e`: SymPy's names, `sum`
    over a dimension, the `size` of one."""

    def __init__(self, system: System, scalar: bool):
        self.symbols, self.system, self.scalar = Symbols(system), system, scalar
        self.done: dict[tuple, object] = {}

    def __getattr__(self, name: str):
        """SymPy's own of this name, applied as written: its `eval`s look for the sign and the common factors of whole
        sums, which takes minutes and finds nothing."""
        from sympy.core.function import Application
        from sympy.core.relational import Relational

        found = getattr(self.symbols.sympy, name)
        applied = isinstance(found, type) and issubclass(found, Application | Relational)
        return partial(found, evaluate=False) if applied else found

    def Piecewise(self, *cases):
        """Cases as written: SymPy's own fold those in a condition, and cannot where they depend on no letter."""
        s = self.symbols.sympy
        pairs = (s.Tuple.__new__(s.functions.elementary.piecewise.ExprCondPair, *case) for case in cases)
        return s.Basic.__new__(s.Piecewise, *pairs)

    def dims(self, n: Node) -> tuple:
        return self.system.inferred.nodes[n]

    def size(self, dim):
        return self.symbols.sizes[dim]

    def sum(self, dim, term: Callable):
        """The sum of term(k) over the components k of a dimension; its one term where every size is 1."""
        if self.scalar:
            return term(self.symbols.number(1))
        with self.symbols.letters(1) as (k,):
            return self.symbols.total(term(k), k, 1, self.size(dim))

    def equation(self, eq: Equation):
        """lhs = rhs, component by component."""
        dims = self.system.shapes[eq.name]
        self.symbols.scope = list(eq.free)
        with self.symbols.letters(0 if self.scalar else len(dims)) as comps:
            left = self.symbols.leaf(read(eq.name, eq.at), comps, plain=self.scalar)
            return self.Eq(left, self.component(eq.value, comps if self.dims(eq.value) else ()))

    def component(self, n: Node, comps: tuple):
        """The component of a node's value."""
        comps = () if self.scalar else comps
        if not n.args:
            return self.symbols.leaf(n, comps, plain=self.scalar)
        at = (n, comps, tuple(sorted((i, str(v)) for i, v in self.symbols.bound.items())))
        if at not in self.done:
            self.done[at] = self.apply(n, comps)
        return self.done[at]

    def apply(self, n: Node, comps: tuple):
        """A primitive's own declaration on its operands' components."""
        op, over = n.op, option(n) if n.op.fill is not None else None
        if over == BATCH and self.scalar:
            return self.component(n.args[0], comps)
        if op.sympy is None or (self.scalar and op.name in PARTS):
            return self.unknown(n, comps, over)
        if op.fill is not None:
            here = None if tokens_reduce(n) else self.component(n.args[0], comps)
            return op.sympy(self, here, Total(self, n.args[0], over, comps))
        operands = [None if op.pointwise and k in op.shape_only else Operand(self, a) for k, a in enumerate(n.args)]
        if not op.pointwise:
            where = comps or (self.symbols.number(1),) * len(self.dims(n))
            return op.sympy(self, where, *operands, *n.params)
        values = [None if x is None else x(*comps) for x in operands]
        return op.sympy(self, *(v if k == 0 and op.name == "where" else as_number(self.symbols.sympy, v)
                                for k, v in enumerate(values)), *n.params)

    def unknown(self, n: Node, comps: tuple, over: str | None):
        """A primitive without a declaration: an undefined function; a whole vector is a Lambda of its component."""
        function = self.symbols.sympy.Function(n.op.name + (f"_{over}" if over else ""))
        if over:
            with self.symbols.bind(over) as i:
                inner = self.Lambda(i, self.component(n.args[0], comps))
            return function(inner) if tokens_reduce(n) else function(inner, self.symbols.index(over))
        values = [a for k, a in enumerate(n.args) if k not in n.op.shape_only]
        if n.op.pointwise or self.scalar:
            return function(*(Operand(self, a)(*comps) for a in values), *n.params)
        return function(*map(self.whole, values), *n.params, *comps)

    def whole(self, n: Node):
        with self.symbols.letters(len(self.dims(n))) as k:
            return self.Lambda(k, self.component(n, k)) if k else self.component(n, ())


class Total:
    """What a reduction's declaration calls `total`: the sum of f(value) over an index, or over all components; from
    `first` to `last`, `here` being where the result stands."""

    def __init__(self, components: Components, operand: Node, over: str | None, comps: tuple):
        self.of, self.operand, self.over, self.comps = components, operand, over, comps
        self.dims = components.dims(operand)
        at = comps[0] if comps else components.symbols.number(1)
        self.here = components.symbols.index(over) if over else at

    def __call__(self, f: Callable, first=None, last=None):
        s, number = self.of.symbols, self.of.symbols.number
        first = number(1) if first is None else first
        if self.over:
            with s.bind(self.over) as i:
                return s.total(f(self.of.component(self.operand, self.comps)), i, first,
                               s.extent(self.over) if last is None else last)
        if self.of.scalar:
            return f(self.of.component(self.operand, ()))
        with s.letters(len(self.dims)) as k:
            term = f(self.of.component(self.operand, k))
            for var, dim in zip(k, self.dims):
                term = s.total(term, var, first, self.of.size(dim) if last is None else last)
            return term


def as_number(sympy, value):
    """A condition as the number that the notation makes of it: 1 or 0."""
    if value is not None and (value.is_Boolean or value.is_Relational):
        return sympy.Piecewise((1, value), (0, True))
    return value
