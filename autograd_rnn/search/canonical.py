"""When two cells are the same: a form of the equations that neither names nor algebra change.

    System -> every value written out -> sums of products -> a labelled graph without names -> its canonical form

Equal forms mean cells that are equal up to the names of their variables, the order of their equations and of what they
add or multiply, brackets, distribution, like terms, gates that are written out where they are read, the linearity of
`@`, and the sign of a weight that stands at one place, whose first values are symmetric about zero.

The canonical form of the graph is found as McKay and Piperno tell it (Practical graph isomorphism II, Journal of
Symbolic Computation 60, 2014): colours are refined by the neighbours' colours; where that leaves variables alike, each
is set apart in turn, and the least of the forms is taken.
"""

from __future__ import annotations

import hashlib
from collections import Counter

from .. import primitives as P
from ..equations import Equation, System
from ..graph import READ, Node, node, read, topological
from .algebra import Algebra, Atom, Monomial, Sum


def unfolded(system: System) -> dict[Equation, Node]:
    """Each equation's value, in which every value of the same step is written out."""
    own = {read(eq.name, eq.at): eq.value for eq in system.equations if not eq.end}
    whole: dict[Node, Node] = {}
    for n in topological((eq.value for eq in system.equations), lambda n: (own[n],) if n in own else n.args):
        whole[n] = whole[own[n]] if n in own else node(n.op, *(whole[a] for a in n.args), params=n.params)
    return {eq: whole[eq.value] for eq in system.equations}


def form(system: System) -> str:
    """The digest of a system's canonical form; its last equation, the output of a layer, is told from the others.

    >>> from autograd_rnn import Cell
    >>> one = Cell("z[t] = sigmoid(W @ x[t] + U @ h[t-1])\\nh[t] = (1 - z[t]) * h[t-1] + z[t] * tanh(V @ x[t])")
    >>> two = Cell("s[t] = s[t-1] - sigmoid(A @ s[t-1] - B @ x[t]) * (s[t-1] - tanh(C @ x[t]))")
    >>> form(one.system) == form(two.system)
    True
    >>> form(one.system) == form(Cell("s[t] = s[t-1] - sigmoid(A @ s[t-1]) * (s[t-1] - tanh(C @ x[t]))").system)
    False
    """
    return hashlib.sha256(repr(Labelled.of(system).canonical()).encode()).hexdigest()[:12]


# --- the graph without names ---------------------------------------------------------------------------------------


class Labelled:
    """A directed graph whose vertices and edges have labels: what a system says, without its names."""

    def __init__(self) -> None:
        self.labels: list[str] = []
        self.edges: list[list[tuple[str, int]]] = []  # out of each vertex

    @classmethod
    def of(cls, system: System) -> Labelled:
        """Of ends, of what is read elsewhere than where it is defined, of what nothing reads, and of the last equation.
        """
        values, last = unfolded(system), system.equations[-1].name
        here = {read(eq.name, eq.at) for eq in system.equations}
        elsewhere = {n.params[0] for n in system.reads if n not in here}
        gates = {n.params[0] for n in system.reads} - elsewhere - {last}
        kept = {eq: n for eq, n in values.items() if eq.end or eq.name not in gates}
        graph, algebra = cls(), Algebra()
        sums = algebra.sums(kept.values())
        roots = {sums[n] for n in kept.values()}
        weights = {n for n in system.having("parameter") if n not in system.declarations}
        symmetric = signless(algebra, roots, weights)
        names = {n: graph.vertex(described(system, n)) for n in system.names if n not in gates}
        vertices: dict[int, int] = {}
        for at in algebra.below(roots):
            item = algebra.items[at]
            if isinstance(item, Sum):
                vertices[at] = graph.vertex("sum")
                for monomial, factor in item.terms:
                    term = graph.vertex(f"term {abs(factor) if (at, monomial) in symmetric else factor}")
                    graph.edges[vertices[at]].append(("", term))
                    graph.edges[term] += [(str(exponent), vertices[atom]) for atom, exponent in monomial]
            elif item.op == READ.name:
                vertices[at] = graph.vertex(f"read {item.params[1]}")
                graph.edges[vertices[at]].append(("", names[item.params[0]]))
            else:
                vertices[at] = graph.vertex(f"{item.op} {item.params}")
                graph.edges[vertices[at]] += [(str(k) if item.ordered else "", vertices[part])
                                              for k, part in enumerate(item.parts)]
        for eq, n in kept.items():
            graph.edges[names[eq.name]].append((f"defined {eq.at}", vertices[sums[n]]))
        return graph

    def vertex(self, label: str) -> int:
        self.labels.append(label)
        self.edges.append([])
        return len(self.labels) - 1

    def canonical(self) -> tuple:
        """The least of the forms that colours set apart in any order of choice lead to."""
        found: list[tuple] = []
        stack = [self.refined(ranks(self.labels))]
        while stack:
            colours = stack.pop()
            sizes = Counter(colours)
            if len(sizes) == len(colours):
                found.append(tuple(sorted((colours[v], self.labels[v], tuple(sorted((label, colours[w]) for label, w in
                                                                                   self.edges[v])))
                                          for v in range(len(colours)))))
                continue
            smallest = min(c for c, size in sizes.items() if size > 1)
            for v in range(len(colours)):
                if colours[v] == smallest:
                    stack.append(self.refined([2 * c + (v == w) for w, c in enumerate(colours)]))
        return min(found)

    def refined(self, colours: list[int]) -> list[int]:
        """Colours that tell vertices apart as far as their neighbours' do."""
        into: list[list[tuple[str, int]]] = [[] for _ in self.edges]
        for v, out in enumerate(self.edges):
            for label, w in out:
                into[w].append((label, v))
        while True:
            count = len(set(colours))
            colours = ranks([(colours[v], sorted((label, colours[w]) for label, w in self.edges[v]),
                              sorted((label, colours[w]) for label, w in into[v])) for v in range(len(colours))])
            if len(set(colours)) == count:
                return colours


def described(system: System, name: str) -> str:
    """What a name is, without the name."""
    declared = system.declarations.get(name)
    numbers = [s for s in (declared and declared.shape) or () if isinstance(s, int)]
    return repr((system.roles[name], name == system.equations[-1].name, system.axes[name], numbers,
                 declared and declared.probability))


def ranks(keys: list) -> list[int]:
    """The place of each key among the different ones.

    >>> ranks(["b", "a", "b"])
    [1, 0, 1]
    """
    by_text = {repr(key): key for key in keys}
    place = {text: k for k, text in enumerate(sorted(by_text, key=by_text.__getitem__))}
    return [place[repr(key)] for key in keys]


def signless(algebra: Algebra, roots: set[int], weights: set[str]) -> set[tuple[int, Monomial]]:
    """(sum, monomial) of the terms that alone read a weight, bare or as the matrix of a product, to the first power."""
    matrices: dict[int, str | None] = {}  # of each atom, the weight that is the matrix of a product
    apart, terms = set(roots), dict[str, set[tuple[int, Monomial, int]]]()
    for at in algebra.below(roots):
        item = algebra.items[at]
        if isinstance(item, Atom):
            matrices[at] = algebra.name(item.parts[0]) if item.op == P.matmul.name else None
            apart.update(item.parts[matrices[at] is not None:])
    for at in apart:
        item = algebra.items[at]
        for monomial, _ in item.terms if isinstance(item, Sum) else ():
            for atom, exponent in monomial:
                weight = algebra.name(atom) or matrices[atom]
                if weight in weights:
                    terms.setdefault(weight, set()).add((at, monomial, exponent))
    return {(at, monomial) for found in terms.values() if len(found) == 1
            for at, monomial, exponent in found if exponent == 1}
