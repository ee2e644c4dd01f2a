"""The Jacobian of one step, as blocks over what the step hands on, and the recursion it makes of the cotangents.

    a loop's equations -> d v_t / d u_{t-1}, gates eliminated, states kept -> J_t;   g_{t-1} = J_t' (Delta_t + g_t)

Every block is read off the same vjp: an expression linear in the cotangent g is J' g, and J is what g meets on its way.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from .. import primitives as P
from ..adjoint import Derived, active_nodes, differentiable
from ..equations import Equation, System
from ..evaluate import plan
from ..gradient import PULLBACK, Step, Typing, vjp
from ..graph import CONST, READ, Node, Position, Primitive, const, node, read, topological
from ..naming import holders, replaced, written
from ..order import Loop
from .rewrites import arriving, gate_values, without

MOST_BLOCKS = 400  # of a Jacobian that is written out
MOST_TERMS = 64  # of a block
LONGEST = 2_000  # characters of a block

# dy/dx, a matrix, where it is named rather than worked out.
PARTIAL = Primitive("partial", shape="(m), (n) -> (m n)", latex=r"\frac{{\partial {0}}}{{\partial {1}}}")


@dataclass(frozen=True)
class Block:
    """One row of the step's Jacobian: d state / d reached, as direct routes plus routes through states of this step.

    `routes` holds (through, matrix): the matrix alone where `through` is None, else matrix @ d through / d reached.
    """

    state: Node
    reached: Node
    routes: tuple[tuple[Node | None, Node], ...]

    @property
    def worked_out(self) -> bool:
        """Whether every route is an expression, rather than a name for itself."""
        return all(m.op is not PARTIAL for _, m in self.routes)

    @property
    def value(self) -> Node:
        return P.total(*(m if w is None else _product(m, node(PARTIAL, w, self.reached), spread=False)
                         for w, m in self.routes))


@dataclass(frozen=True)
class Recurrence:
    """A loop: what a step hands on (`states`), what it is reached by (`reached`), the blocks of its Jacobian, the part
    of each state's cotangent that does not come through the loop (`local`), and of that what equations outside the loop
    send to what the step was reached by (`beside`)."""

    index: str
    sign: int
    states: tuple[Node, ...]
    reached: tuple[Node, ...]
    blocks: tuple[Block, ...]
    local: dict[Node, Node]
    beside: dict[Node, Node]
    names: frozenset[str]

    @property
    def worked_out(self) -> bool:
        """Whether every block is written out."""
        return all(b.worked_out for b in self.blocks)

    @property
    def simple(self) -> bool:
        """Whether all that is reached lies one step back along the loop's own index."""
        return all(p == Position(p.index) or p == Position(self.index, "i", -self.sign)
                   for n in self.reached for p in n.params[1])


def loops(system: System) -> Iterator[tuple[Loop, list[Equation]]]:
    """The outermost loops, each with its equations in order."""
    def flat(steps):
        for s in steps:
            if isinstance(s, Loop):
                yield from flat(s.body)
            elif isinstance(s, Equation):
                yield s

    for step in plan(system).order:
        if isinstance(step, Loop):
            yield step, list(flat(step.body))


def recurrences(derived: Derived) -> tuple[list[Recurrence], list[Step]]:
    """The loops that a gradient runs back through, and the steps that their Jacobians rest on."""
    system, found, steps = derived.forward, [], []
    typing, movable = Typing(derived.system), differentiable(system)
    held = holders(system)
    for loop, equations in loops(system):
        one = _Recurrence(derived, loop, [eq for eq in equations if eq.name in derived.names], typing, movable, held)
        if one.reached and len(one.reached) * len(one.equations) <= MOST_BLOCKS:
            found.append(one.build())
            steps += one.steps
    return found, steps


class _Recurrence:
    def __init__(self, derived: Derived, loop: Loop, equations: list[Equation], typing: Typing,
                 movable: frozenset[str], held: dict[Node, Node]):
        self.derived, self.system, self.loop, self.equations = derived, derived.forward, loop, equations
        self.typing, self.movable, self.held = typing, movable, held
        self.steps: list[Step] = []
        self.active = active_nodes((eq.value for eq in equations), movable)
        self.names = frozenset(eq.name for eq in equations)
        led = topological((eq.value for eq in equations), lambda n: [a for a in n.args if a in self.active])
        self.reached = tuple(n for n in led if n.op is READ and n in self.active and n.params[0] in self.names
                             and any(p != Position(p.index) for p in n.params[1]))

    def build(self) -> Recurrence:
        beside = self.beside()
        local = self.local(beside)
        handed = {n.params[0] for n in self.reached} | {n.params[0] for n in local}
        states = [eq for eq in self.equations if eq.name in handed and not eq.end]
        nodes = tuple(read(eq.name, eq.at) for eq in states)
        rows = {n: self.partials(eq, nodes) for n, eq in zip(nodes, states)}
        blocks = []
        for n in nodes:
            for u in self.reached:
                routes = [(w, m) for w in nodes if (m := rows[n].get(w)) is not None and _leads(w, u, rows)]
                direct = rows[n].get(u)
                if direct is not None or routes:
                    blocks.append(Block(n, u, (*routes, *([] if direct is None else [(None, direct)]))))
        return Recurrence(self.loop.index, self.loop.sign, nodes, self.reached, tuple(blocks), local, beside,
                          self.names)

    def partials(self, eq: Equation, states: tuple[Node, ...]) -> dict[Node, Node]:
        """d eq / d u for the states it reads at its own step and what the loop is reached by, gates eliminated."""
        inlined: dict[Node, Node] = {}
        for gate in self.equations:
            here = read(gate.name, gate.at)
            if here not in states and not gate.end:
                inlined[here] = replaced(gate.value, inlined)
        root = replaced(eq.value, inlined)
        by_name = {value: here for here, value in inlined.items()}
        g = read(self.derived.names[eq.name], eq.at)
        active = active_nodes([root], self.movable)
        found, _ = vjp([(root, g)], self.typing, active.__contains__)
        rows = {}
        for u in (*states, *self.reached):
            if u not in found:
                continue
            sent = gate_values(replaced(replaced(found[u], by_name), self.held), self.held)
            matrix = jacobian(sent, g, self.typing.rank)
            if matrix is not None and written([matrix])[matrix] <= LONGEST:
                rows[u] = matrix
                back = matrix.T @ g if self.typing.rank(g) else matrix * g
                self.steps.append(Step("Jacobian", u, node(PULLBACK, g, root, u), back))
            else:
                rows[u] = node(PARTIAL, read(eq.name, eq.at), u)
        return rows

    def outer(self, name: str) -> Node | None:
        """The part of an adjoint equation that does not come from the loop."""
        adjoint = next((a for a in self.derived.system.definitions.get(name, ()) if not a.end), None)
        if adjoint is None:
            return None
        inner = {self.derived.names[n] for n in self.names}
        inner |= {c for c, n in self.derived.carries.items() if n in self.reached}
        outer = without(adjoint.value, inner)
        return None if outer.op is CONST and outer.params[0] == 0 else gate_values(outer, self.held)

    def beside(self) -> dict[Node, Node]:
        """What equations outside the loop send to the variables that the loop is reached by."""
        found = ((n, self.outer(c)) for c, n in self.derived.carries.items() if n in self.reached)
        return {n: term for n, term in found if term is not None}

    def local(self, beside: dict[Node, Node]) -> dict[Node, Node]:
        """What reaches each variable of the loop from outside it: from the loss, or from equations after the loop."""
        terms: dict[Node, list[Node]] = {}
        for eq in self.equations:
            own = None if eq.end else self.outer(self.derived.names[eq.name])
            if own is not None:
                terms.setdefault(read(eq.name, eq.at), []).append(own)
        cotangents = set(self.derived.names.values())
        ends = {(eq.name, p) for eq in self.derived.system.equations for p in eq.at if p.base != "i"}
        for n, term in beside.items():
            name, at = n.params
            to = {p.index: p._replace(offset=-p.offset) for p in at if p.base == "i" and p.offset}
            here = arriving(term, to, cotangents, ends)
            if here is not None:
                terms.setdefault(read(name, tuple(map(Position, self.system.axes[name]))), []).append(here)
        return {n: P.total(*parts) for n, parts in terms.items()}


def _leads(w: Node, u: Node, rows: dict[Node, dict[Node, Node]]) -> bool:
    """Whether u is reached from the state w within the step."""
    seen, stack = set(), [w]
    while stack:
        v = stack.pop()
        if u in rows[v]:
            return True
        seen.add(v)
        stack += [s for s in rows[v] if s in rows and s not in seen]
    return False


def jacobian(sent: Node, g: Node, rank: Callable[[Node], int]) -> Node | None:
    """J where `sent` is J' g: matrices transposed, factors as diag, in the order in which g meets them.

    None where g passes through something that is no product with a matrix, a vector or a number, or where more than
    MOST_TERMS products would be added.
    """
    if rank(g) > 1 or rank(sent) != rank(g):
        return None
    linear = {g}
    for n in topological([sent]):
        if any(a in linear for a in n.args):
            linear.add(n)
    done: dict[Node, Node] = {g: node(P.diag, P.like(1, g)) if rank(g) else const(1)}
    for n in topological([sent]):
        if n not in linear or n in done:
            continue
        parts = [done.get(a) for a in n.args]
        if n.op is P.add and all(p is not None for p in parts):
            done[n] = P.total(*parts)
        elif n.op is P.neg and parts[0] is not None:
            done[n] = -parts[0]
        elif n.op is P.matmul and parts[1] is not None and n.args[0] not in linear:
            done[n] = _product(parts[1], n.args[0].T)
        elif n.op is P.mul and (parts[0] is None) != (parts[1] is None):
            inner, factor = (parts[0], n.args[1]) if parts[1] is None else (parts[1], n.args[0])
            if rank(n) != rank(n.args[0] if parts[1] is None else n.args[1]):
                return None
            done[n] = _product(inner, node(P.diag, factor)) if rank(factor) else factor * inner
        elif n.op is P.where and CONST in (n.args[1].op, n.args[2].op):
            taken = parts[2] is None
            inner, passes = parts[1 if taken else 2], P.where(n.args[0], int(taken), int(not taken))
            done[n] = _product(inner, node(P.diag, passes)) if rank(n.args[0]) else passes * inner
        else:
            return None
        if len(done[n].args) > MOST_TERMS:
            return None
    return done[sent]


def _product(a: Node, b: Node, spread: bool = True) -> Node:
    """a @ b, with diag(u) @ diag(v) as diag(u * v), the identity left out, and sums multiplied out where `spread`."""
    if _identity(a) or _identity(b):
        return b if _identity(a) else a
    if CONST in (a.op, b.op):
        return a * b
    if a.op is P.neg:
        return -_product(a.args[0], b)
    if a.op is P.add and spread:
        return P.total(*(_product(x, b) for x in a.args))
    if a.op is P.diag and b.op is P.diag:
        return node(P.diag, a.args[0] * b.args[0])
    if a.op is P.matmul and a.args[1].op is P.diag and b.op is P.diag:
        return a.args[0] @ node(P.diag, a.args[1].args[0] * b.args[0])
    return a @ b


def _identity(m: Node) -> bool:
    return m.op is P.diag and m.args[0].op is P.like and m.args[0].args[0] is const(1)
