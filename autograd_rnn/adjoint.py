"""The adjoint of a recurrence is a recurrence: equations in, equations whose carries read [t+1] out.

    name pre-activations -> cotangent of every read (one reverse sweep) -> adjoint equations, carries and ends

What step t sends to `c[t-1]` is a variable of its own, the carry `dc_tm1[t]`; `dc[t]` receives it as `dc_tm1[t+1]`, and
the end `dc[0]` as `dc_tm1[1]`. So adjoint equations read forward values only where their forward equation read them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from . import primitives as P
from .equations import BATCH, Equation, System, joined
from .errors import CellError
from .gradient import Step, Typing, jvp, pullback, vjp
from .graph import CONST, READ, Node, Position, const, extent, index, node, read, topological
from .naming import Names, holders, images, name_parts, prefixed, repeated, tag, with_names
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
    readers: dict[Node | str, list[Node | str]] = {}
    for n in system.nodes:
        if n.op is READ:
            readers.setdefault(n.params[0], []).append(n)
        for k, a in enumerate(n.args):
            if n.op.vjp is not None and k not in n.op.shape_only:
                readers.setdefault(a, []).append(n)
    for eq in system.equations:
        readers.setdefault(eq.value, []).append(eq.name)
    reached: list[Node | str] = list(names)
    found = set(reached)
    while reached:
        new = [r for r in readers.get(reached.pop(), ()) if r not in found]
        found.update(new)
        reached += new
    return frozenset(n for n in found if isinstance(n, str))


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


def name_preactivations(system: System) -> System:
    """f[t] = sigmoid(W @ x[t] + b)  ->  a_f[t] = W @ x[t] + b;  f[t] = sigmoid(a_f[t])"""
    homes: dict[Node, Equation] = {}
    for eq in system.equations:
        for n in topological([eq.value]):
            for a in n.args if _activation(n) else ():
                affine = a.op is P.matmul or (a.op is P.add and any(x.op is P.matmul for x in a.args))
                if affine and system.free(a) <= {*eq.free, BATCH}:
                    homes.setdefault(a, eq)
    return with_names(system, homes, lambda name: joined("a", name))


def _activation(n: Node) -> bool:
    """A function of each component, like sigmoid: what it is applied to is a pre-activation."""
    return n.op.pointwise and n.op.infix is None and n.op.vjp is not None and n.op not in (P.where, P.like)


def adjoint(system: System, outputs: Iterable[str], unit: bool = False) -> Derived:
    """Backpropagation through time as equations: the adjoint of every name that the outputs depend on.

    The outputs' cotangents are 1 where `unit`, else inputs `Delta_h[t]` from outside.
    """
    outputs = tuple(outputs)
    active = differentiable(system)
    for name in outputs:
        if name not in system.defined:
            raise CellError(f"`{name}` is no output: no equation defines it.",
                            remedy="Outputs: " + ", ".join(system.written) + ".")
        if name not in active:
            raise CellError(f"`{name}` depends on nothing that has a gradient.")
    return _written_short(name_preactivations(system), lambda named: _Adjoint(system, named, outputs, unit).build())


def _written_short(system: System, derive: Callable[[System], tuple[Derived, Mapping[Node, Node]]]) -> Derived:
    """What `derive` makes of the system, with names for the parts whose value, or whose cotangent or tangent, would
    make a new equation too long.

    derive gives, beside its result, cotangents or tangents as they stand in the new equations -> what they belong to.
    """
    while True:
        derived, sources = derive(system)
        derived.system.bounded("The derivative of this cell")
        own = set(system.nodes)
        found = (n if n in own else sources.get(n) for n in repeated(derived.system.equations))
        named = name_parts(system, [n for n in found if n is not None])
        if named.equations == system.equations:
            return derived
        system = named


class _Adjoint:
    """One reverse sweep over a system, and the system that it makes."""

    def __init__(self, given: System, system: System, outputs: tuple[str, ...], unit: bool):
        self.system, self.outputs = system, outputs
        self.names, self.typing = Names(system), Typing(system)
        active = differentiable(system)
        self.active = active_nodes((eq.value for eq in system.equations), active)
        prefix = self.names.prefix(system.axes)
        self.adjoints = {name: self.names.fresh(prefixed(prefix, name)) for name in system.axes if name in active}
        for name, adj in self.adjoints.items():
            self.typing.declare(adj, self.typing.ranks[name], name in system.per_example)
        self.seeds = {} if unit else {name: self.names.fresh(joined("Delta" + prefix[1:-1], name)) for name in outputs}
        self.record = [Step("name", read(eq.name, eq.at), old.value, eq.value) for old in given.equations
                       for eq in system.definitions[old.name] if eq.at == old.at and eq.value is not old.value]
        self.axes = dict(system.axes)
        self.carry_names: dict[Node, str] = {}
        self.sources: dict[Node, Node] = {}

    def build(self) -> tuple[Derived, dict[Node, Node]]:
        """The adjoint system; every cotangent as it stands there, and the node it belongs to."""
        live = self.reachable()
        while True:  # an equation that no output's cotangent reaches sends nothing back
            terms, carries, rules = self.sweep(live)
            reached = self.grounded(terms, carries)
            dead = [eq for eq in live if (eq.name, eq.at) not in reached]
            if not dead:
                break
            live = [eq for eq in live if eq not in dead]
        self.record += rules
        self.carry_names = {n: self.carry_names[n] for n in carries}
        return self.assemble(terms, carries), self.sources

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
        images_of = images(found.values(), holders(self.system))
        self.sources = {images_of[g]: n for n, g in reversed(found.items()) if n.args}
        users = self.users(live)
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
            term = self.uses(n, users[n]), images_of[g]
            if not here or (len(here) == 1 and here[0].outside):  # at its own step, or at a defined end
                terms.setdefault((name, at), []).append(term)
            else:
                carries[n] = term
        for n in carries:  # what arrives from other steps stands last
            for where, carry in self.returns(n):
                terms.setdefault((n.params[0], where), []).append((carry, carry))
        return terms, carries, rules

    def grounded(self, terms, carries) -> set[tuple[str, tuple[Position, ...]]]:
        """The adjoints, by (name, position), that an output's cotangent reaches; the others only read one another."""
        owner = {adj: name for name, adj in self.adjoints.items()} | {c: n for n, c in self.carry_names.items()}
        made = {key: [after for _, after in ts] for key, ts in terms.items()} | {n: [t[1]] for n, t in carries.items()}
        readers: dict[object, list] = {}
        reached = []
        for key, parts in made.items():
            for part in parts:
                reads = [n.params for n in topological([part]) if n.op is READ and n.params[0] in owner]
                for name, at in reads:
                    of = owner[name]
                    readers.setdefault((of, at) if isinstance(of, str) else of, []).append(key)
                reached += [key] * (not reads)
        found = set(reached)
        while reached:
            new = {key for key in readers.get(reached.pop(), ()) if key not in found}
            found |= new
            reached += new
        return found

    def users(self, live: list[Equation]) -> dict[Node, list[Equation]]:
        """The equations that use each read."""
        found: dict[Node, list[Equation]] = {}
        for eq in live:
            for n in topological([eq.value]):
                if n.op is READ:
                    found.setdefault(n, []).append(eq)
        return found

    def uses(self, n: Node, users: Iterable[Equation]) -> Node:
        """The cotangent of a read, as the sum over the equations that use it."""
        return P.total(*(pullback(read(self.adjoints[eq.name], eq.at), read(eq.name, eq.at), n, self.typing)
                         for eq in users))

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
            if own and main not in own:  # reached at an end alone
                new.append(Equation(self.adjoints[name], main, const(0)))
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
    return _written_short(name_preactivations(system), lambda named: _tangent(named, leaves))


def _tangent(system: System, leaves: list[str]) -> tuple[Derived, dict[Node, Node]]:
    """The tangent system; every tangent as it stands there, and the node it belongs to."""
    moving = depending(system, leaves)
    names, typing = Names(system), Typing(system)
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
    images_of = images(tangents.values(), holders(system))
    new = []
    for eq in system.equations:
        if eq.name in dots and eq.value in tangents:
            new.append(Equation(dots[eq.name], eq.at, images_of[tangents[eq.value]]))
        elif eq.name in dots and not eq.end:
            new.append(Equation(dots[eq.name], eq.at, const(0)))
    seeds = {name: dots[name] for name in leaves}
    derived = Derived(System([*system.equations, *new], axes, system.model, declarations), system, dots, seeds)
    return derived, {images_of[t]: n for n, t in reversed(tangents.items()) if n.args}
