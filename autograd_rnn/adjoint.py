"""The adjoint of a recurrence is a recurrence: equations in, equations whose carries read [t+1] out.

    name pre-activations -> cotangent of every read (one reverse sweep) -> adjoint equations, carries and ends

What step t sends to `c[t-1]` is a variable of its own, the carry `dc_tm1[t]`; `dc[t]` receives it as `dc_tm1[t+1]`, and
the end `dc[0]` as `dc_tm1[1]`. So adjoint equations read forward values only where their forward equation read them.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from . import primitives as P
from .equations import Equation, System, joined
from .errors import CellError
from .gradient import Step, Typing, jvp, pullback, vjp
from .graph import CONST, READ, Node, Position, const, extent, index, node, read, topological
from .parse import Declaration, Line


@dataclass(frozen=True)
class Derived:
    """A system of the given equations (`forward`, pre-activations named) and the new ones; `names` gives each
    variable's adjoint or tangent, `seeds` the inputs that bring cotangents or directions from outside, `carries` the
    read that each carry belongs to. `steps` is the record of the differentiation, in its order: the new equations are
    what its last steps say."""

    system: System
    forward: System
    names: dict[str, str]
    seeds: dict[str, str]
    carries: dict[str, Node] = field(default_factory=dict)
    steps: tuple[Step, ...] = ()


def differentiable(system: System) -> frozenset[str]:
    """Names a gradient can flow to: parameters, real inputs, carried values and what is computed from them."""
    leaves = set(system.having("parameter", "input")) | set(system.delayed)
    return depending(system, leaves - set(system.having("noise", "class", "const")))


def depending(system: System, names: Iterable[str]) -> frozenset[str]:
    """These names and all that are computed from them through something differentiable."""
    found, changed = set(names), True
    while changed:
        changed = False
        for eq in system.equations:
            if eq.name not in found and eq.value in active_nodes([eq.value], found):
                found.add(eq.name)
                changed = True
    return frozenset(found)


def active_nodes(roots: Iterable[Node], names) -> set[Node]:
    """Nodes through which something differentiable can be reached."""
    found: set[Node] = set()
    for n in topological(roots):
        if (n.op is READ and n.params[0] in names) or (n.op.vjp is not None and any(
                a in found for k, a in enumerate(n.args) if k not in n.op.shape_only)):
            found.add(n)
    return found


def loss_of(system: System) -> str | None:
    """The loss: the last number without indices that nothing reads."""
    read_names = {n.params[0] for n in system.reads}
    for eq in reversed(system.equations):
        if not eq.at and eq.name not in read_names and system.shapes[eq.name] == ():
            return eq.name
    return None


def outputs_of(system: System) -> tuple[str, ...]:
    """What a cell without a loss gives away: variables that nothing reads at their own step."""
    inner = {n.params[0] for n in system.reads if all(p.base == "i" and not p.offset for p in n.params[1])}
    inner |= set(system.copies)
    return tuple(dict.fromkeys(eq.name for eq in system.equations if not eq.end and eq.name not in inner))


class _Names:
    """Fresh names: none that the text has, none twice."""

    def __init__(self, system: System):
        self.taken = set(system.axes) | set(system.indices) | {i.upper() for i in system.indices}

    def fresh(self, name: str) -> str:
        candidate, k = name, 2
        while candidate in self.taken:
            candidate, k = joined(name, str(k)), k + 1
        self.taken.add(candidate)
        return candidate

    def prefix(self, names) -> str:
        """`d`, or the first of d2_, d3_, ... that clashes with no name."""
        k, prefix = 2, "d"
        while any(prefixed(prefix, name) in self.taken for name in names):
            prefix, k = f"d{k}_", k + 1
        return prefix


def prefixed(prefix: str, name: str) -> str:
    """dh, d2_h; of `_h` d_h, for no name has two underscores in a row."""
    return joined(prefix, name) if prefix.endswith("_") else prefix + name


def tag(at: tuple[Position, ...]) -> str:
    """How a position is told in a name: [t-1] tm1, [t+1] tp1, [T] T, [1] 1."""
    words = []
    for p in at:
        if p.base == "i" and p.offset:
            words.append(p.index + ("m" if p.offset < 0 else "p") + str(abs(p.offset)))
        elif p.base != "i":
            words.append(str(p).replace("+", "p"))
    return joined(*words) if words else ""


def holders(system: System) -> dict[Node, Node]:
    """The variable that holds an expression's value, varying with just what the expression varies with."""
    held: dict[Node, Node] = {}
    for eq in system.equations:
        variable = read(eq.name, eq.at)
        if eq.value.args and system.free(variable) == system.free(eq.value):
            held.setdefault(eq.value, variable)
    return held


def name_preactivations(system: System) -> System:
    """f[t] = sigmoid(W @ x[t] + b)  ->  a_f[t] = W @ x[t] + b;  f[t] = sigmoid(a_f[t])"""
    names = _Names(system)
    held = holders(system)
    named: dict[Node, Node] = {}
    before: dict[Equation, list[Equation]] = {}
    axes = dict(system.axes)
    for eq in system.equations:
        for n in topological([eq.value]):
            for a in n.args if _activation(n) else ():
                affine = a.op is P.matmul or (a.op is P.add and any(x.op is P.matmul for x in a.args))
                if not affine or a in named or not system.free(a) <= {*eq.free, "batch"}:
                    continue
                if a in held:
                    named[a] = held[a]
                    continue
                free = tuple(i for i in eq.free if i in system.free(a))
                at = tuple(Position(i) for i in free)
                name = names.fresh(joined("a", eq.name, tag(eq.at)) if eq.end else joined("a", eq.name))
                axes[name] = free
                named[a] = read(name, at)
                before.setdefault(eq, []).append(Equation(name, at, a, eq.line))
    if not named:
        return system
    equations = []
    for eq in system.equations:
        for pre in before.get(eq, ()):
            others = {k: v for k, v in named.items() if k is not pre.value}
            equations.append(replace(pre, value=replaced(pre.value, others)))
        equations.append(replace(eq, value=replaced(eq.value, named if eq.value not in named else {})))
    return System(equations, axes, system.model, system.declarations)


def _activation(n: Node) -> bool:
    """A function of each component, like sigmoid: what it is applied to is a pre-activation."""
    return n.op.pointwise and n.op.infix is None and n.op.vjp is not None and n.op not in (P.where, P.like)


def replaced(root: Node, stand_ins: dict[Node, Node]) -> Node:
    """The expression with whole subexpressions replaced, largest first."""
    order = topological([root], lambda n: () if n in stand_ins else n.args)
    new: dict[Node, Node] = {}
    for n in order:
        new[n] = stand_ins[n] if n in stand_ins else node(n.op, *(new[a] for a in n.args), params=n.params)
    return new[root]


def adjoint(system: System, outputs: Iterable[str], unit: bool = False) -> Derived:
    """Backpropagation through time as equations: the adjoint of every name that the outputs depend on.

    The outputs' cotangents are 1 where `unit`, else inputs `Delta_h[t]` from outside.
    """
    outputs = tuple(outputs)
    active = differentiable(system)
    for name in outputs:
        if name not in system.defined:
            raise CellError(f"`{name}` is no output: no equation defines it.",
                            remedy="Outputs: " + ", ".join(sorted(system.defined)) + ".")
        if name not in active:
            raise CellError(f"`{name}` depends on nothing that has a gradient.")
    given, system = system, name_preactivations(system)
    named = [Step("name", read(eq.name, eq.at), old.value, eq.value) for old in given.equations
             for eq in system.definitions[old.name] if eq.at == old.at and eq.value is not old.value]
    active = differentiable(system)
    names = _Names(system)
    prefix = names.prefix(system.axes)
    typing = Typing(system)
    adjoints = {name: names.fresh(prefixed(prefix, name)) for name in system.axes if name in active}
    for name, adj in adjoints.items():
        typing.declare(adj, typing.ranks[name], name in system.per_example)
    seeds = {} if unit else {name: names.fresh(joined("Delta" + prefix[1:-1], name)) for name in outputs}
    builder = _Adjoint(system, typing, adjoints, seeds, outputs, names, active_nodes(
        (eq.value for eq in system.equations), active), named)
    return builder.build()


class _Adjoint:
    def __init__(self, system, typing, adjoints, seeds, outputs, names, active, record):
        self.system, self.typing, self.adjoints = system, typing, adjoints
        self.seeds, self.outputs, self.names, self.active = seeds, outputs, names, active
        self.record: list[Step] = record
        self.axes = dict(system.axes)
        self.carry_names: dict[Node, str] = {}

    def build(self) -> Derived:
        live = self.reachable()
        while True:  # an equation whose adjoint has no terms sends nothing back
            terms, carries, rules = self.sweep(live)
            dead = [eq for eq in live if not eq.end and not terms.get((eq.name, eq.at))]
            if not dead:
                break
            live = [eq for eq in live if eq not in dead and not (eq.end and not terms.get((eq.name, eq.at)))]
        self.record += rules
        return self.assemble(terms, carries)

    def reachable(self) -> list[Equation]:
        """Equations that the outputs depend on through something differentiable."""
        wanted, stack = set(self.outputs), list(self.outputs)
        while stack:
            for eq in self.system.definitions.get(stack.pop(), ()):
                for n in topological([eq.value], lambda n: [a for a in n.args if a in self.active]):
                    if n.op is READ and n in self.active and n.params[0] not in wanted:
                        wanted.add(n.params[0])
                        stack.append(n.params[0])
        return [eq for eq in self.system.equations if eq.name in wanted and eq.value in self.active]

    def sweep(self, live: list[Equation]):
        """Terms of every adjoint, by (name, position), the carries, by the read they belong to, and the rules' record.

        A term is a pair: the uses it stands for, as pullbacks through whole equations, and what the rules made of them.
        """
        roots = [(eq.value, read(self.adjoints[eq.name], eq.at)) for eq in reversed(live)]
        found, rules = vjp(roots, self.typing, self.active.__contains__)
        held = holders(self.system)
        terms: dict[tuple[str, tuple[Position, ...]], list[tuple[Node, Node]]] = {}
        for name in self.outputs:
            at = self.main(name)
            seed = read(self.seeds[name], at) if self.seeds else const(1)
            terms.setdefault((name, at), []).append((seed, seed))
        carries: dict[Node, tuple[Node, Node]] = {}
        for n, g in found.items():
            if n.op is not READ:
                continue
            name, at = n.params
            here = [p for p in at if not (p.base == "i" and not p.offset)]
            term = self.uses(n, live), replaced(g, held)
            if not here or (len(here) == 1 and here[0].outside):  # at its own step, or at a defined end
                terms.setdefault((name, at), []).append(term)
            else:
                carries[n] = term
        for n in carries:  # what arrives from other steps stands last
            for where, carry in self.returns(n):
                terms.setdefault((n.params[0], where), []).append((carry, carry))
        return terms, carries, rules

    def uses(self, n: Node, live: list[Equation]) -> Node:
        """The cotangent of a read, as the sum over the equations that use it."""
        return P.total(*(pullback(read(self.adjoints[eq.name], eq.at), read(eq.name, eq.at), n, self.typing)
                         for eq in live if n in topological([eq.value])))

    def stated(self, name: str, at: tuple[Position, ...], terms: Iterable[tuple[Node, Node]]) -> Equation:
        """The adjoint equation that these terms make, and its step in the record."""
        before, after = zip(*terms)
        self.record.append(Step("uses", read(name, at), P.total(*before), P.total(*after)))
        return Equation(name, at, self.record[-1].after)

    def main(self, name) -> tuple[Position, ...]:
        return tuple(Position(i) for i in self.system.axes[name])

    def returns(self, n: Node):
        """Where the cotangent of a read comes back: the transposed position, and the ends the read can meet."""
        name, at = n.params
        carry = self.carry(n)
        back = tuple(p._replace(offset=-p.offset) for p in at if p.base == "i")
        outside = [k for k, p in enumerate(at) if p.outside]
        condition = None
        for p in at:
            if p.base != "i" and not p.outside:
                here = node(P.eq, index(p.index), const(1) if p.base == "1" else extent(p.index))
                condition = here if condition is None else node(P.mul, condition, here)
        whole = lambda positions: read(carry, positions) if condition is None else node(
            P.where, condition, read(carry, positions), const(0))
        main = self.main(name)
        if not outside:
            yield main, whole(back)
            for k, p in enumerate(at):
                if p.base == "i" and p.offset:
                    end = Position(p.index, "1", -1) if p.offset < 0 else Position(p.index, "T", 1)
                    inside = Position(p.index, "1" if p.offset < 0 else "T")
                    where = (*main[:k], end, *main[k + 1:])
                    if p.index in self.system.model and not self.defines(name, where):
                        continue
                    yield where, whole(tuple(inside if q.index == p.index else q for q in back))
        elif len(outside) == 1:
            (k,) = outside
            yield (*main[:k], at[k], *main[k + 1:]), whole(back)

    def defines(self, name, at) -> bool:
        return any(eq.at == at for eq in self.system.definitions.get(name, ()))

    def carry(self, n: Node) -> str:
        if n not in self.carry_names:
            name, at = n.params
            carry = self.names.fresh(joined(self.adjoints[name], tag(at)))
            self.carry_names[n] = carry
            self.axes[carry] = tuple(p.index for p in at if p.base == "i")
            self.typing.declare(carry, self.typing.ranks[name], name in self.system.per_example)
        return self.carry_names[n]

    def assemble(self, terms, carries) -> Derived:
        """Forward equations, then adjoints in reverse order, carries where their variable stands, gradients last."""
        new: list[Equation] = []
        order = [eq.name for eq in reversed(self.system.equations)]
        order += list(self.system.having("parameter", "input", "const", "noise"))
        for name in dict.fromkeys(order):
            if name not in self.adjoints:
                continue
            own = {at: ts for (owner, at), ts in terms.items() if owner == name}
            main = self.main(name)
            for at in sorted(own, key=lambda at: at != main):
                new.append(self.stated(self.adjoints[name], at, own[at]))
        new += [self.stated(self.carry_names[n], tuple(Position(p.index) for p in n.params[1] if p.base == "i"), [term])
                for n, term in carries.items()]
        gradients = {self.adjoints[n] for n in self.system.having("parameter", "input") if n in self.adjoints}
        carry_names = set(self.carry_names.values())
        recursions = [eq for eq in new if eq.name not in gradients and eq.name not in carry_names and not eq.end]
        equations = [*self.system.equations, *recursions, *(eq for eq in new if eq.name in carry_names),
                     *(eq for eq in new if eq.name in gradients and not eq.end), *(eq for eq in new if eq.end)]
        declarations = dict(self.system.declarations)
        for name, seed in self.seeds.items():
            self.axes[seed] = self.system.axes[name]
            kind = "input" if name in self.system.per_example else "parameter"
            declarations[seed] = Declaration(seed, kind, (name,), None, Line("", 0))
        for name, adj in self.adjoints.items():
            self.axes[adj] = self.system.axes[name]
        defined = {eq.name for eq in equations}
        adjoints = {name: adj for name, adj in self.adjoints.items() if adj in defined}
        return Derived(System(equations, self.axes, self.system.model, declarations), self.system, adjoints,
                       dict(self.seeds), {name: n for n, name in self.carry_names.items()}, tuple(self.record))


def tangent(system: System, wrt: Iterable[str] | None = None) -> Derived:
    """Forward mode as equations: the tangent `v_dot` of every name that depends on the directions `wrt`."""
    leaves = list(system.having("parameter", "input") if wrt is None else wrt)
    for name in leaves:
        if name not in system.having("parameter", "input"):
            raise CellError(f"`{name}` has no direction: it is no parameter or real input.")
    system = name_preactivations(system)
    moving = depending(system, leaves)
    names, typing = _Names(system), Typing(system)
    dots = {name: names.fresh(joined(name, "dot")) for name in system.axes if name in moving}
    axes, declarations = dict(system.axes), dict(system.declarations)
    for name, dot in dots.items():
        axes[dot] = system.axes[name]
        typing.declare(dot, typing.ranks[name], name in system.per_example)
        if name in leaves:
            kind = "input" if system.roles[name] == "input" else "parameter"
            declarations[dot] = Declaration(dot, kind, (name,), None, Line("", 0))
    tangents: dict[Node, Node] = {}
    for n in topological(eq.value for eq in system.equations):
        if n.op is READ and n.params[0] in dots:
            tangents[n] = read(dots[n.params[0]], n.params[1])
        elif any(a in tangents for a in n.args):
            t = jvp(n, tangents, typing)
            if t is not None and not (t.op is CONST and t.params[0] == 0):
                tangents[n] = t
    held = holders(system)
    new = []
    for eq in system.equations:
        if eq.name in dots and eq.value in tangents:
            new.append(Equation(dots[eq.name], eq.at, replaced(tangents[eq.value], held)))
        elif eq.name in dots and not eq.end:
            new.append(Equation(dots[eq.name], eq.at, const(0)))
    seeds = {name: dots[name] for name in leaves}
    return Derived(System([*system.equations, *new], axes, system.model, declarations), system, dots, seeds)
