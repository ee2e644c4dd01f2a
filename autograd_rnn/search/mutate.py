"""A cell's equations, changed at random: the operators of Jozefowicz et al. 2015 on the graph of one step.

    Cell -> one graph, gates written out -> each node changed with probability p -> equations with names -> text

Nodes are the vectors of the state's size that differ from step to step. The paper's operators are told from memory; the
shifts v + 1 and v - 1 among the activations are ours: they are what a bias that starts at 1 or at -1 does.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import count

import numpy as np

from .. import primitives as P
from ..cell import Cell
from ..equations import BATCH, Equation, System
from ..graph import READ, Node, Position, const, node, read, topological
from ..printing.text import system_text
from .canonical import unfolded

NOW = Position("t")


@dataclass
class Step:
    """The graph of one step while it is changed.

    vectors: its nodes in their new form, each after its operands. fresh: numbers for the names of new weights.
    """

    rng: np.random.Generator
    vectors: dict[Node, None]
    fresh: Iterator[int]

    def one_of(self, choices):
        """One of several, with equal probabilities."""
        some = list(choices)
        return some[self.rng.integers(len(some))]

    def operands(self, n: Node) -> list[int]:
        """The places of a node's operands that are vectors of the step."""
        return [k for k, a in enumerate(n.args) if a in self.vectors]

    def ancestors(self, n: Node) -> list[Node]:
        """What a vector of the step is computed from; itself, where that is none."""
        return [a for a in topological([n]) if a in self.vectors and a is not n] or [n]


def linear(a: float) -> Callable[[Step, Node], Node]:
    """Linear(a, v) = a v + M v + d: a matrix with a added to its diagonal, and a bias."""
    def activation(step: Step, v: Node) -> Node:
        k = next(step.fresh)
        return a * v + read(f"M{k}") @ v + read(f"d{k}")

    return activation


ACTIVATIONS: dict[str, Callable[[Step, Node], Node]] = {
    "tanh": lambda step, v: node(P.tanh, v),
    "sigmoid": lambda step, v: node(P.sigmoid, v),
    "relu": lambda step, v: node(P.maximum, const(0), v),
    **{f"linear {a}": linear(a) for a in (0, 1, 0.9, 1.1)},
    "plus one": lambda step, v: v + 1,
    "minus one": lambda step, v: v - 1,
}
ELEMENTWISE: dict[str, Callable[[Node, Node], Node]] = {
    "+": lambda a, b: a + b, "-": lambda a, b: a - b, "*": lambda a, b: a * b}


def activated(step: Step, v: Node) -> Node:
    return ACTIVATIONS[step.one_of(ACTIVATIONS)](step, v)


def another_activation(step: Step, n: Node) -> Node | None:
    """tanh(v) -> sigmoid(v)."""
    return activated(step, n.args[-1]) if n.op in (P.tanh, P.sigmoid, P.maximum) else None


def another_operation(step: Step, n: Node) -> Node | None:
    """a + b + c -> (a + b) * c."""
    if n.op not in (P.add, P.mul):
        return None
    at = int(step.rng.integers(1, len(n.args)))
    return ELEMENTWISE[step.one_of(ELEMENTWISE)](P.total(*n.args[:at]), P.total(*n.args[at:]))


def inserted(step: Step, n: Node) -> Node | None:
    """a * b -> a * tanh(b)."""
    places = step.operands(n)
    if not places:
        return None
    at = step.one_of(places)
    return node(n.op, *(activated(step, a) if k == at else a for k, a in enumerate(n.args)), params=n.params)


def removed(step: Step, n: Node) -> Node | None:
    """tanh(v) -> v, U @ v -> v, 1 - v -> v: of what has one operand, the operand."""
    places = step.operands(n)
    return n.args[places[0]] if len(places) == 1 else None


def ancestor(step: Step, n: Node) -> Node | None:
    """o * tanh(c) -> c."""
    return step.one_of(step.ancestors(n))


def combined(step: Step, n: Node) -> Node | None:
    """a * b -> a + z: an ancestor of the node with an ancestor of any other that is known before it."""
    other = step.one_of(step.ancestors(step.one_of(step.vectors)))
    return ELEMENTWISE[step.one_of(ELEMENTWISE)](step.one_of(step.ancestors(n)), other)


OPERATORS = (another_activation, another_operation, inserted, removed, ancestor, combined)


def mutated(cell: Cell, rng: np.random.Generator) -> str:
    """The text of a cell whose nodes are each changed, with a probability drawn first, by an operator that fits.

    cell: one with an index t and vectors x[t] and h[t], its last equation; what it computes may be no valid cell.

    >>> from autograd_rnn import Cell
    >>> cell = Cell("h[t] = tanh(W @ x[t] + U @ h[t-1] + b)")
    >>> print(mutated(cell, np.random.default_rng(6)))
    v1[t] = W @ x[t]
    h[t] = tanh(v1[t] * v1[t] + U @ (h[t-1] + 1) + b)
    """
    system = cell.system
    whole = {eq.name: n for eq, n in unfolded(system).items()}
    flat = System([Equation(name, (NOW,), n) for name, n in whole.items()], system.axes, system.model,
                  system.declarations)
    state = system.shapes[system.equations[-1].name]
    numbers = (k for k in count(1) if not {f"M{k}", f"d{k}"} & set(system.names))
    step, share, new = Step(rng, {}, numbers), rng.random(), dict[Node, Node]()
    for n in topological(whole.values()):
        args = tuple(new[a] for a in n.args)
        new[n] = kept = P.total(*args) if n.op is P.add else node(n.op, *args, params=n.params)
        if flat.inferred.nodes[n] == state and BATCH in flat.free(n):
            step.vectors[kept] = None
            if n.op is not READ and rng.random() < share:
                drawn = (OPERATORS[k](step, kept) for k in rng.permutation(len(OPERATORS)))
                new[n] = next(m for m in drawn if m is not None)
                for m in topological([new[n]]):
                    if step.operands(m):
                        step.vectors[m] = None
    return written({name: new[n] for name, n in whole.items()}, system)


def written(values: dict[str, Node], system: System) -> str:
    """Equations from the values of names, of which the last is the output; what it does not need is left out.

    A value that has a name is read by it, and one that is used more than once gets a name.
    """
    *_, top = values
    needed, stack = {top}, [top]
    while stack:
        for n in topological([values[stack.pop()]]):
            if n.op is READ and n.params[0] in values and n.params[0] not in needed:
                needed.add(n.params[0])
                stack.append(n.params[0])
    order = topological(values[name] for name in values if name in needed)
    names: dict[Node, str] = {}
    for name, n in sorted(values.items(), key=lambda one: one[0] not in needed):
        if name in needed or (n in order and n.args):
            names.setdefault(n, name)
    uses = Counter(a for n in order for a in n.args if a.args and a.op is not P.neg)
    free = (name for name in (f"v{k}" for k in count(1)) if name not in {*system.names, *values})
    for n in order:
        if uses[n] > 1 and n not in names:
            names[n] = next(free)
    shown: dict[Node, Node] = {}
    equations = []
    for n in order:
        shown[n] = node(n.op, *(shown[a] for a in n.args), params=n.params)
        if n in names:
            equations.append(Equation(names[n], (NOW,), shown[n]))
            shown[n] = read(names[n], (NOW,))
    equations += [Equation(name, (NOW,), shown[values[name]]) for name in values
                  if name in needed and names[values[name]] != name]
    equations.sort(key=lambda eq: eq.name == top)
    axes = {**{n.params[0]: () for n in order if n.op is READ}, **system.axes, **{eq.name: ("t",) for eq in equations}}
    return system_text(System(equations, axes, system.model, system.declarations))
