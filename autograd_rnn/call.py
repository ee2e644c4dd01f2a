"""A cell called in a cell: the callee's equations under the caller's names, along the caller's index.

    `h[t], c[t] = enc(x=z[t], h=h[t-1], c=c[t-1])` -> equations of this text
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from .equations import BATCH, Equation, System, renamed
from .graph import CONST, INDEX, READ, Node, Position, extent, index, node, read, rewrite
from .parse import Definition
from .reader import Reader

if TYPE_CHECKING:
    from .elaborate import Elaboration


def inline(home: Elaboration, d: Definition, callee: System):
    """`h[t], c[t] = enc(x=z[t], h=h[t-1], c=c[t-1])`: the callee's equations under this line's names."""
    call, line = d.expression, d.line
    if call.args:
        raise line.error("A cell's arguments are passed by name.", call.args[0], f"Write `{call.func.id}(x=...)`.")
    targets = [home.target(d, t) for t in d.targets]
    prefix, at = targets[0]
    home.calls[prefix] = call.func.id
    scope = {p.index for p in at if p.base == "i"}
    passed = {k.arg: Reader(home, line, scope).node(k.value) for k in call.keywords}
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
        along, flip = _direction(home, d, callee, data[0], {s: passed[s] for s in states}, at)
        moves[data[0]] = along
    home.model |= {moves[i] for i in callee.model}
    extra = tuple(p for p in at if p.base == "i" and p.index not in moves.values())
    here = dict(zip(outputs, targets))

    def own(name):
        private = f"{prefix}_{name}"
        axes = [moves[i] for i in callee.axes[name]]
        axes += [p.index for p in extra if name not in callee.having("parameter", "const") or p.index in home.model]
        known = home.axes.setdefault(private, tuple(axes))
        if known != tuple(axes):
            raise line.error(f"The name `{private}` of this call is taken.", d.targets[0], "Rename the target.")
        return private

    def moved(positions):
        return tuple(Position(moves[p.index], p.base if flip > 0 or p.base == "i" else {"1": "T", "T": "1"}[p.base],
                              p.offset * flip if p.index in data else p.offset) for p in positions)

    def place(name, positions):
        """Where the callee's `name[positions]` lives here."""
        where = moved(positions)
        if name in here:
            target, slots = here[name]
            by_index = {moves[i]: p for i, p in zip(callee.axes[name], where)}
            return target, tuple(by_index.get(p.index, p) for p in slots)
        private = own(name)
        return private, where + extra[:len(home.axes[private]) - len(where)] if len(
            home.axes[private]) - len(where) in (0, len(extra)) else where + tuple(
                p for p in extra if p.index in home.axes[private])

    def value(name, positions):
        if name in passed and name not in here:
            if all(p.base == "i" and not p.offset for p in positions):
                return passed[name]
            private = own(name)
            main = place(name, tuple(Position(i) for i in callee.axes[name]))[1]
            if not any(eq.name == private for eq in home.equations):
                home.define(Equation(private, main, passed[name], line))
            return read(*place(name, positions))
        if name in states and any(p.base == "i" and p.offset for p in positions):
            return passed[name]
        return read(*place(name, positions))

    for eq in callee.equations:
        body = renamed(eq.value, lambda name, positions: node(READ, params=(name, positions)))
        body = rewrite([body], lambda n, args: _inlined(n, args, value, moves, flip, data))[body]
        name, positions = place(eq.name, eq.at)
        home.define(Equation(name, positions, body, line))
    for name, declared in callee.declarations.items():
        if name in callee.axes and name not in passed:
            shape = None if declared.shape is None else tuple(
                s if isinstance(s, int) else here[s][0] if s in here else own(s) for s in declared.shape)
            private = own(name)
            home.declarations[private] = replace(declared, name=private, shape=shape, line=line)


def _inlined(n: Node, args, value, moves, flip, data):
    """A node of the callee here: reads placed, indices renamed, t counted from the other end where it runs backward."""
    if n.op is READ:
        return value(*n.params)
    if n.op is INDEX and n.params[0] in data and flip < 0:
        return extent(moves[n.params[0]]) + 1 - index(moves[n.params[0]])
    bound = n.op.fill is not None and n.params and n.params[0] != BATCH
    if n.op is not CONST and (bound or not n.args):
        return node(n.op, *args, params=(moves.get(n.params[0], n.params[0]),))
    return None


def _direction(home: Elaboration, d: Definition, callee: System, t: str, states: dict[str, Node], at
               ) -> tuple[str, int]:
    """The index the call runs along, and +1 or -1: whether with the callee's own direction or against it."""
    for name, given in states.items():
        if given.op is READ:
            own = next((p.offset for n in callee.reads if n.params[0] == name for p in n.params[1]
                        if p.index == t and p.base == "i" and p.offset), -1)
            for p in given.params[1]:
                if p.base == "i" and p.offset and p.index not in home.model:
                    return p.index, p.offset * own
    along = [p.index for p in at if p.base == "i" and p.index not in home.model]
    if len(along) != 1:
        raise d.line.error("Nothing says which index the call runs along.", d.targets[0],
                           "Pass a state at `[t-1]`, or write one data index on the left.")
    return along[0], 1
