"""Values written in place, as a person writes NumPy for speed: into a variable's array, or into one kept for the work.

    a node -> np.multiply(x, y, out=z)

A work array is free again after the last line that reads what is in it. What no ufunc can write in place is an
expression (`expressions.py`).
"""

from __future__ import annotations

import re
from collections.abc import Iterator

import numpy as np

from .. import primitives as P
from ..equations import BATCH, Equation, System
from ..graph import CONST, READ, Node
from ..order import contraction, operands
from .expressions import Expressions, Text

UFUNC = {"+": "np.add", "*": "np.multiply", "/": "np.divide"}
AGAIN = {"np.add": "+=", "np.subtract": "-=", "np.multiply": "*=", "np.divide": "/="}


def read_by(step: Node | Equation) -> tuple[Node, ...]:
    """The nodes whose values a step reads."""
    return (step.value,) if isinstance(step, Equation) else operands(step)


class Work:
    """The arrays that lines write to and need no longer than some lines, by slot: their shapes, and what is in them."""

    def __init__(self):
        self.shapes: dict[str, tuple[str, ...]] = {}
        self.free: dict[tuple[str, ...], list[str]] = {}
        self.within: dict[str, set[Node]] = {}
        self.of: dict[Node, frozenset[str]] = {}  # the arrays that a value's text stands on

    def array(self, shape: tuple[str, ...]) -> str:
        waiting = self.free.get(shape)
        if waiting:
            return waiting.pop()
        slot = f"w{len(self.shapes)}"
        self.shapes[slot] = shape
        return slot

    def hold(self, n: Node, slots: frozenset[str]) -> None:
        if slots:
            self.of[n] = slots
            for slot in slots:
                self.within.setdefault(slot, set()).add(n)

    def drop(self, n: Node) -> None:
        for slot in self.of.pop(n, ()):
            self.within[slot].discard(n)
            if not self.within[slot]:
                self.free.setdefault(self.shapes[slot], []).append(slot)


class InPlace(Expressions):
    """Expressions, and the statements that write a value in place."""

    def __init__(self, system: System, level: dict[Node | Equation, tuple]):
        super().__init__(system)
        self.level, self.work = level, Work()
        self.constants: dict[str, str] = {}
        self.left = {n: len(readers) for n, readers in self.plan.consumers.items()}

    # --- how long a value is needed ------------------------------------------------------------------------------

    def hold(self, n: Node) -> None:
        """A value that may be a view stands on what its operands stand on."""
        self.work.hold(n, frozenset().union(*(self.work.of.get(a, frozenset()) for a in operands(n))))

    def done(self, step: Node | Equation) -> None:
        """What a step reads at its own level is read."""
        for a in read_by(step):
            if self.level.get(a) == self.level[step]:
                self.was_read(a)

    def was_read(self, n: Node) -> None:
        self.left[n] -= 1
        if not self.left[n]:
            self.work.drop(n)
            if n in self.silent:
                self.done(n)

    def left_behind(self, inner: set[Node | Equation], path: tuple) -> None:
        """After a loop, what was made in it is gone, and what it read from outside is read."""
        for s in inner:
            if isinstance(s, Node):
                self.work.drop(s)
        for s in inner:
            for a in read_by(s):
                if a not in inner and self.level.get(a) == path:
                    self.was_read(a)

    # --- places --------------------------------------------------------------------------------------------------

    def spans(self, n: Node) -> tuple[str, ...]:
        """The shape of a value's array where the writing stands."""
        return (*map(self.span, self.plan.axes(n, self.fixed)), *map(self.size, self.system.inferred.nodes[n]))

    def room(self, n: Node) -> str:
        """A work array for a value: an operand's, if that is read here for the last time."""
        shape = self.spans(n)
        for b in operands(n) if n.op.pointwise else ():
            a = b.args[0] if b.op is P.neg and b in self.silent else b
            slots = self.work.of.get(a, frozenset())
            if (self.level.get(a) == self.level[n] and self.left[a] == max(1, operands(n).count(a)) and len(slots) == 1
                    and a not in self.silent and self.known[a][0].text in slots
                    and all(self.work.within[s] <= {a, b} and self.work.shapes[s] == shape for s in slots)):
                self.work.drop(a)
                self.work.drop(b)
                return self.work.array(shape)
        return self.work.array(shape)

    # --- statements ----------------------------------------------------------------------------------------------

    def statement(self, n: Node) -> str | None:
        """A template over operands and `out` that writes a value in place; None where there is none."""
        if BATCH not in self.plan.axes(n, self.fixed) or self.counts(n):
            return None
        if n.op is P.matmul:
            return "{product}({0}, {1}, out={out})" if self.of_rows(n) else None
        if n.op is P.concat:
            together = all(a.args or a.op is READ for a in n.args) and len(
                {self.plan.axes(a, self.fixed) for a in n.args}) == 1
            return "np.concatenate(({all}), axis=-1, out={out})" if together else None
        if not n.op.pointwise or n.op.shape_only or n.op.wants:
            return None
        if n.op.inplace is not None:
            return n.op.inplace
        if n.op is P.pow:
            return "np.square({0}, out={out})" if n.params[0] == 2 else f"np.power({{0}}, {n.params[0]!r}, out={{out}})"
        if n.op.infix and n.op.infix[0] in UFUNC:
            return f"{UFUNC[n.op.infix[0]]}({{0}}, {{1}}, out={{out}})"
        template = n.op.numpy or (f"{self.function(n.op)}({{0}})" if isinstance(n.op.value, np.ufunc) else "")
        call = re.fullmatch(r"np\.(\w+)\([^()]*\)", template)
        return f"{template[:-1]}, out={{out}})" if call and isinstance(getattr(np, call[1]), np.ufunc) else None

    def of_rows(self, n: Node) -> bool:
        """Whether a product is one of rows with one weight."""
        a, b = n.args
        return (not self.plan.axes(a, self.fixed) and self.system.rank(b) == 1 and not self.counts(b)
                and BATCH in self.plan.axes(b, self.fixed))

    def statements(self, n: Node, template: str, out: str, solid: bool) -> Iterator[str]:
        """The lines that write a value to `out`; solid: whether its rows follow one another in memory."""
        axes, rank = self.plan.axes(n, self.fixed), self.system.rank(n)
        if n.op is P.add:
            yield from self.added(n, out, axes, rank)
            return
        if n.op is P.matmul:
            flat = len(axes) > 1 and solid
            rows = self.rows(n.args[1]) if flat else self.value(n.args[1]).text
            weight = self.turned_weight(n.args[0])
            place = f"{out}.reshape(-1, {self.size(self.system.inferred.nodes[n][0])})" if flat else out
            product = "np.dot" if solid else "np.matmul"  # sooner in BLAS; it writes to nothing but whole rows
            yield template.format(rows, weight, out=place, product=product)
            return
        x = [self.operand(a, axes, rank if n.op.pointwise else None, bare=n.op.pointwise) for a in operands(n)]
        if self.fixed:
            template = re.sub(r"(?<=[ (])[\d.]+(?=[,)])", lambda found: self.constant(found[0]), template)
        whole = template.format(*x, all=", ".join(t.text for t in x), out=out)
        for line in whole.split("\n"):
            yield shortened(line, out)

    def operand(self, a: Node, axes: tuple[str, ...], rank: int | None, bare: bool) -> Text:
        """An operand of a statement."""
        text = self.lined(a, axes, rank, bare)
        return Text(self.constant(text.text)) if a.op is CONST and self.fixed else text

    def constant(self, number: str) -> str:
        """A number that a loop reads, as an array: to make one of a Python number takes longer than a small product."""
        return self.constants.setdefault(number, f"c{len(self.constants)}")

    def added(self, n: Node, out: str, axes: tuple[str, ...], rank: int) -> Iterator[str]:
        """A sum, term by term. What lies where the sum goes is among the first two, before it is written over."""
        terms = []
        for a in n.args:
            away = a.op is P.neg and a in self.silent
            terms.append((away, self.operand(a.args[0] if away else a, axes, rank, bare=True).text))
        terms.sort(key=lambda term: (term[0], term[1] != out))
        there = next((k for k, (_, text) in enumerate(terms) if text == out), 0)
        if there > 1:
            terms.insert(1, terms.pop(there))
        (away, first), *rest = terms
        if away:
            yield f"np.negative({first}, out={out})"
            first = out
        for away, x in rest:
            yield shortened(f"np.{'subtract' if away else 'add'}({first}, {x}, out={out})", out)
            first = out

    def turned_weight(self, a: Node) -> str:
        """A weight as rows meet it from the left: W h is h @ W.T."""
        if a in self.turned:
            return self.turned[a]
        if a.op is P.transpose:
            return self.value(a.args[0]).at_least(9)
        return f"{self.value(a).at_least(9)}.T"

    def fresh(self, n: Node) -> bool:
        """Whether a value that has no statement is an array of its own, and no view."""
        if n.op.name in ("split", "split_rows"):
            return self.fresh(n.args[0])
        return contraction(n) is not None or (n.op in (P.sum, P.mean) and bool(n.params))


def shortened(line: str, out: str) -> str:
    """np.add(x, y, out=x)  ->  x += y, for a plain name."""
    found = re.fullmatch(rf"(np\.\w+)\({re.escape(out)}, (.*), out={re.escape(out)}\)", line)
    return f"{out} {AGAIN[found[1]]} {found[2]}" if found and found[1] in AGAIN and out.isidentifier() else line

