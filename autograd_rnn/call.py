"""A cell called in a cell: the callee's equations under the caller's names, along the caller's index.

    `h[t], c[t] = enc(x=z[t], h=h[t-1], c=c[t-1])` -> equations of this text
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from . import primitives as P
from .equations import BATCH, Equation, System, joined
from .graph import CONST, INDEX, READ, Node, Position, const, extent, index, node, read, rewrite
from .parse import Definition
from .reader import Reader

if TYPE_CHECKING:
    from .elaborate import Elaboration


def inline(home: Elaboration, d: Definition, callee: System) -> None:
    """`h[t], c[t] = enc(x=z[t], h=h[t-1], c=c[t-1])`: the callee's equations under this line's names."""
    _Call(home, d, callee).inline()


class _Call:
    """One call: what was passed, where each of the callee's names lives here, and along which index it runs."""

    def __init__(self, home: Elaboration, d: Definition, callee: System):
        self.home, self.d, self.callee, self.line = home, d, callee, d.line
        self.targets = [home.target(d, t) for t in d.targets]
        self.prefix, at = self.targets[0]
        home.calls[self.prefix] = d.expression.func.id
        self.passed = self.arguments({p.index for p in at if p.base == "i"})
        self.states = [k for k in self.passed if k in callee.defined]
        self.here = dict(zip(self.outputs(), self.targets))
        self.data = self.data_index()
        self.moves: dict = {i: joined(self.prefix, i) for i in callee.model}
        self.flip = 1
        if self.data is not None:
            self.moves[self.data], self.flip = self.direction(at)
        home.model |= {self.moves[i] for i in callee.model}
        self.extra = tuple(p for p in at if p.base == "i" and p.index not in self.moves.values())

    # --- the line itself -----------------------------------------------------------------------------------------

    def arguments(self, scope: set[str]) -> dict[str, Node]:
        call, line, callee = self.d.expression, self.line, self.callee
        name = call.func.id
        if call.args:
            raise line.error("A cell's arguments are passed by name.", call.args[0], f"Write `{name}(x=...)`.")
        passed = {k.arg: Reader(self.home, line, scope).node(k.value) for k in call.keywords}
        for k in call.keywords:
            if k.arg not in callee.axes:
                raise line.error(f"`{name}` has no `{k.arg}`.", k.value, "It has " + ", ".join(
                    f"`{n}`" for n in callee.axes) + ".")
            if k.arg in callee.defined and k.arg not in callee.carried:
                raise line.error(f"`{k.arg}` is computed by `{name}` and cannot be passed to it.", k.value,
                                 "Pass its inputs, its states and parameters to share.")
        missing = [n for n in callee.having("input", "class") if n not in passed]
        if missing:
            raise line.error(f"`{name}` needs `{missing[0]}`.", call, f"Pass `{missing[0]}=...`.")
        return passed

    def outputs(self) -> list[str]:
        """The states passed, in that order; with none passed, the last equation."""
        outputs = self.states or [next(eq.name for eq in reversed(self.callee.equations) if not eq.end)]
        if len(outputs) != len(self.targets):
            raise self.line.error(f"The call returns {len(outputs)} values ({', '.join(outputs)}); {len(self.targets)} "
                                  "names stand on the left.", self.d.targets[0],
                                  "It returns the states passed to it, in the order passed.")
        return outputs

    def data_index(self) -> str | None:
        data = [i for i in self.callee.indices if i not in self.callee.model]
        if len(data) > 1:
            call = self.d.expression
            raise self.line.error(f"`{call.func.id}` runs over several data indices ({', '.join(data)}) and cannot be "
                                  "called.", call, "Write its equations here.")
        return data[0] if data else None

    def direction(self, at: tuple[Position, ...]) -> tuple[str, int]:
        """The index the call runs along, and +1 or -1: whether with the callee's own direction or against it."""
        for name in self.states:
            given = self.passed[name]
            if given.op is READ:
                own = next((p.offset for n in self.callee.reads if n.params[0] == name for p in n.params[1]
                            if p.index == self.data and p.base == "i" and p.offset), -1)
                for p in given.params[1]:
                    if p.base == "i" and p.offset and p.index not in self.home.model:
                        return p.index, p.offset * own
        along = [p.index for p in at if p.base == "i" and p.index not in self.home.model]
        if len(along) != 1:
            raise self.line.error("Nothing says which index the call runs along.", self.d.targets[0],
                                  "Pass a state at `[t-1]`, or write one data index on the left.")
        return along[0], 1

    # --- names and places ----------------------------------------------------------------------------------------

    def own(self, name: str) -> str:
        """A private name: `h1_W_i`. It takes the left side's other indices along; a parameter only model indices."""
        private = joined(self.prefix, name)
        weight = name in self.callee.having("parameter", "const")
        axes = (*(self.moves[i] for i in self.callee.axes[name]),
                *(p.index for p in self.extra if not weight or p.index in self.home.model))
        owner = self.prefix, name  # two names of a callee, or of two calls, may not become one
        if self.home.axes.setdefault(private, axes) != axes or self.home.owners.setdefault(private, owner) != owner:
            raise self.line.error(f"The name `{private}` of this call is taken.", self.d.targets[0],
                                  "Rename the target.")
        return private

    def moved(self, p: Position) -> Position:
        """A position along the caller's index, seen from the other end where the call runs backward."""
        if self.flip > 0 or p.index != self.data:
            return p._replace(index=self.moves[p.index])
        return Position(self.moves[p.index], {"1": "T", "T": "1", "i": "i"}[p.base], -p.offset)

    def place(self, name: str, positions: tuple[Position, ...]) -> tuple[str, tuple[Position, ...]]:
        """Where the callee's `name[positions]` lives here."""
        where = {self.moved(p).index: self.moved(p) for p in positions}
        if name in self.here:
            target, slots = self.here[name]
            return target, tuple(where.get(p.index, p) for p in slots)
        private = self.own(name)
        others = {p.index: p for p in self.extra}
        return private, tuple(where.get(i) or others[i] for i in self.home.axes[private])

    def value(self, name: str, positions: tuple[Position, ...]) -> Node:
        """What the callee reads as `name[positions]`, here."""
        shifted = any(p.base != "i" or p.offset for p in positions)
        if name in self.states:
            inner = any(p.base == "i" and p.offset for p in positions)
            return self.passed[name] if inner else read(*self.place(name, positions))
        if name in self.passed and not shifted:
            return self.passed[name]
        if name in self.passed:  # nothing is substituted through a shift: the argument gets a name
            private, main = self.place(name, tuple(Position(i) for i in self.callee.axes[name]))
            if (private, main) not in self.home.places:
                self.home.define(Equation(private, main, self.passed[name], self.line))
        return read(*self.place(name, positions))

    # --- equations -----------------------------------------------------------------------------------------------

    def inline(self) -> None:
        for eq in self.callee.equations:
            name, positions = self.place(eq.name, eq.at)
            self.home.define(Equation(name, positions, rewrite([eq.value], self.inlined)[eq.value], self.line))
        for name, declared in self.callee.declarations.items():
            if name in self.callee.axes and name not in self.passed:
                shape = None if declared.shape is None else tuple(
                    s if isinstance(s, int) else self.here[s][0] if s in self.here else self.own(s)
                    for s in declared.shape)
                private = self.own(name)
                self.home.declarations[private] = replace(declared, name=private, shape=shape, line=self.line)

    def inlined(self, n: Node, args: tuple[Node, ...]) -> Node | None:
        """A node of the callee here: reads placed, indices renamed, t counted from the other end in a backward call."""
        if n.op is READ:
            return self.value(*n.params)
        if n.op is INDEX and n.params[0] == self.data and self.flip < 0:
            return P.total(extent(self.moves[n.params[0]]), const(1), node(P.neg, index(self.moves[n.params[0]])))
        if n.op in (P.cumsum, P.cumsum_right) and n.params == (self.data,) and self.flip < 0:
            other = P.cumsum_right if n.op is P.cumsum else P.cumsum
            return node(other, *args, params=(self.moves[n.params[0]],))
        bound = n.op.fill is not None and n.params and n.params[0] != BATCH
        if n.op is not CONST and (bound or not n.args):
            return node(n.op, *args, params=(self.moves.get(n.params[0], n.params[0]),))
        return None
