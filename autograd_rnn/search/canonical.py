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
from collections.abc import Iterable, Mapping
from fractions import Fraction

from .. import primitives as P
from ..equations import Equation, System
from ..errors import CellError
from ..graph import CONST, READ, Node, node, read, topological

WIDEST = 400  # terms of a sum
HIGHEST = 4  # powers of sums that are multiplied out
COMMUTATIVE = (P.maximum, P.minimum, P.eq, P.ne)

Monomial = frozenset[tuple[int, int]]  # (atom, exponent)
Polynomial = frozenset[tuple[Monomial, Fraction]]
Terms = dict[Monomial, Fraction]


def unfolded(system: System) -> dict[Equation, Node]:
    """Each equation's value, in which every value of the same step is written out."""
    own = {read(eq.name, eq.at): eq.value for eq in system.equations if not eq.end}
    whole: dict[Node, Node] = {}
    for n in topological((eq.value for eq in system.equations), lambda n: (own[n],) if n in own else n.args):
        whole[n] = whole[own[n]] if n in own else node(n.op, *(whole[a] for a in n.args), params=n.params)
    return {eq: whole[eq.value] for eq in system.equations}


def form(system: System) -> str:
    """The digest of a system's canonical form; the output of a layer, its last equation, is told from the others.

    >>> from autograd_rnn import Cell
    >>> one = Cell("z[t] = sigmoid(W @ x[t] + U @ h[t-1])\\nh[t] = (1 - z[t]) * h[t-1] + z[t] * tanh(V @ x[t])")
    >>> two = Cell("s[t] = g[t] * (tanh(A @ x[t]) - s[t-1]) + s[t-1]\\ng[t] = sigmoid(B @ s[t-1] + C @ x[t])")
    >>> form(one.system) == form(Cell(two.text.replace("g[t] =", "g[t] = 0 +")).system)
    False
    >>> form(one.system) == form(Cell("\\n".join(reversed(two.text.split("\\n")))).system)
    True
    """
    return hashlib.sha256(repr(Labelled.of(system).canonical()).encode()).hexdigest()[:12]


# --- sums of products ----------------------------------------------------------------------------------------------


class Algebra:
    """Expressions as sums of products of atoms: names, and operations that are no sums or products.

    Atoms and sums are whole numbers, the same for the same; `atoms` and `sums` have what they stand for.
    """

    def __init__(self) -> None:
        self.atoms: list[tuple] = []
        self.sums: list[Polynomial] = []
        self._known: dict[tuple | Polynomial, int] = {}

    def sums_of(self, roots: Iterable[Node]) -> dict[Node, int]:
        """Each node as the number of its sum."""
        terms: dict[Node, Terms] = {}
        for n in topological(roots):
            terms[n] = self.terms(n, [terms[a] for a in n.args])
            if len(terms[n]) > WIDEST:
                raise CellError(f"Multiplied out, an expression has more than {WIDEST} terms.",
                                remedy="Cells are told apart up to that size.")
        return {n: self.sum(found) for n, found in terms.items()}

    def sum(self, terms: Mapping[Monomial, Fraction]) -> int:
        return self._numbered(frozenset(terms.items()), self.sums)

    def atom(self, *what) -> int:
        return self._numbered(what, self.atoms)

    def _numbered(self, what, kept: list) -> int:
        if what not in self._known:
            self._known[what] = len(kept)
            kept.append(what)
        return self._known[what]

    def terms(self, n: Node, x: list[Terms]) -> Terms:
        """An operation on sums of products, as one."""
        if n.op is CONST:
            value = Fraction(repr(n.params[0]))
            return {frozenset(): value} if value else {}
        if n.op is P.add:
            return added(x)
        if n.op is P.neg:
            return scaled(x[0], -1)
        if n.op is P.mul:
            return multiplied(*x)
        if n.op is P.pow and n.params[0] in range(HIGHEST + 1):
            found: Terms = {frozenset(): Fraction(1)}
            for _ in range(n.params[0]):
                found = multiplied(found, x[0])
            return found
        if n.op in (P.div, P.pow) and len(x[-1]) == 1 and (n.op is P.div or isinstance(n.params[0], int)):
            (monomial, factor), = x[-1].items()
            exponent = -1 if n.op is P.div else n.params[0]
            inverse = {frozenset((a, e * exponent) for a, e in monomial): factor ** exponent}
            return multiplied(x[0], inverse) if n.op is P.div else inverse
        if n.op is P.matmul:
            return added([{frozenset({(self.atom(n.op.name, (), (self.sum({a: Fraction(1)}), self.sum({b: Fraction(1)}))
                                                 ), 1)}): c * d} for a, c in x[0].items() for b, d in x[1].items()])
        operands = [self.sum(terms) for terms in x]
        if n.op in COMMUTATIVE:
            operands.sort()
        return {frozenset({(self.atom(n.op.name, n.params, tuple(operands)), 1)}): Fraction(1)}


def added(parts: Iterable[Terms]) -> Terms:
    """Like terms together; those that cancel are gone."""
    found: Counter[Monomial] = Counter()
    for part in parts:
        for monomial, factor in part.items():
            found[monomial] += factor  # type: ignore[assignment]  # a Counter of fractions
    return {monomial: Fraction(factor) for monomial, factor in found.items() if factor}


def scaled(x: Terms, factor: int) -> Terms:
    return {monomial: factor * c for monomial, c in x.items()}


def multiplied(x: Terms, y: Terms) -> Terms:
    """Each term by each."""
    return added({product(a, b): c * d} for a, c in x.items() for b, d in y.items())


def product(a: Monomial, b: Monomial) -> Monomial:
    exponents: Counter[int] = Counter(dict(a))
    for atom, exponent in b:
        exponents[atom] += exponent
    return frozenset((atom, exponent) for atom, exponent in exponents.items() if exponent)


# --- the graph without names ---------------------------------------------------------------------------------------


class Labelled:
    """A directed graph whose vertices and edges have labels: what a system says, without its names."""

    def __init__(self) -> None:
        self.labels: list[str] = []
        self.edges: list[list[tuple[str, int]]] = []  # out of each vertex

    @classmethod
    def of(cls, system: System) -> Labelled:
        """Ends, what is read elsewhere than where it is defined, what nothing reads, what comes last; below them, sums."""
        graph, algebra = cls(), Algebra()
        values = unfolded(system)
        last = system.equations[-1].name
        here = {read(eq.name, eq.at) for eq in system.equations}
        elsewhere = {n.params[0] for n in system.reads if n not in here}
        gates = {n.params[0] for n in system.reads} - elsewhere - {last}
        kept = {eq: n for eq, n in values.items() if eq.end or eq.name not in gates}
        number = algebra.sums_of(kept.values())
        sums = [number[n] for n in kept.values()]
        free = once(algebra, sums, {n for n in system.having("parameter") if n not in system.declarations})
        names: dict[str, int] = {}
        vertices: dict[tuple[str, int], int] = {}

        def name(of: str) -> int:
            if of not in names:
                declared = system.declarations.get(of)
                numbers = [s for s in (declared and declared.shape) or () if isinstance(s, int)]
                names[of] = graph.vertex(repr((system.roles[of], of == last, system.axes[of], numbers,
                                               declared and declared.probability)))
            return names[of]

        def vertex(kind: str, at: int) -> int:
            """Of a sum or an atom; what lies below is made first."""
            stack = [(kind, at)]
            while stack:
                kind_, at_ = stack[-1]
                below = ([("atom", a) for monomial, _ in algebra.sums[at_] for a, _ in monomial] if kind_ == "sum" else
                         [("sum", s) for s in operands_of(algebra.atoms[at_])])
                rest = [one for one in below if one not in vertices]
                if rest:
                    stack.extend(rest)
                    continue
                stack.pop()
                if (kind_, at_) not in vertices:
                    vertices[kind_, at_] = made_sum(at_) if kind_ == "sum" else made_atom(at_)
            return vertices[kind, at]

        def made_sum(at: int) -> int:
            found = graph.vertex("sum")
            for monomial, factor in algebra.sums[at]:
                term = graph.vertex(f"term {abs(factor) if (at, monomial) in free else factor}")
                graph.edges[found].append(("", term))
                graph.edges[term] += [(str(exponent), vertices["atom", a]) for a, exponent in monomial]
            return found

        def made_atom(at: int) -> int:
            op, params, operands = algebra.atoms[at]
            if op == READ.name:
                found = graph.vertex(f"read {params[1]}")
                graph.edges[found].append(("", name(params[0])))
                return found
            found = graph.vertex(f"{op} {params}")
            unordered = op in {p.name for p in COMMUTATIVE}
            graph.edges[found] += [("" if unordered else str(k), vertices["sum", s]) for k, s in enumerate(operands)]
            return found

        for eq, n in kept.items():
            graph.edges[name(eq.name)].append((f"defined {eq.at}", vertex("sum", number[n])))
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


def operands_of(atom: tuple) -> tuple[int, ...]:
    return () if atom[0] == READ.name else atom[2]


def ranks(keys: list) -> list[int]:
    """The place of each key among the different ones."""
    place = {repr(key): k for k, key in enumerate(sorted({repr(k): k for k in keys}.values()))}
    return [place[repr(key)] for key in keys]


def once(algebra: Algebra, roots: Iterable[int], weights: set[str]) -> set[tuple[int, Monomial]]:
    """(sum, monomial) of the terms that alone read a weight, bare or as the matrix of a product, to the first power."""
    terms: dict[str, set[tuple[int, Monomial, int]]] = {}
    stack, seen = list(roots), set(roots)
    while stack:
        at = stack.pop()
        for monomial, _ in algebra.sums[at]:
            for a, exponent in monomial:
                op, params, operands = algebra.atoms[a]
                below = list(operands) if op != READ.name else []
                inner = algebra.atoms[single(algebra, below[0])] if op == P.matmul.name and single(
                    algebra, below[0]) is not None else None
                if op == READ.name:
                    terms.setdefault(params[0], set()).add((at, monomial, exponent))
                elif inner and inner[0] == READ.name:
                    terms.setdefault(inner[1][0], set()).add((at, monomial, exponent))
                    below = below[1:]
                stack += [s for s in below if s not in seen]
                seen.update(below)
    return {(at, monomial) for name, found in terms.items() if name in weights and len(found) == 1
            for at, monomial, exponent in found if exponent == 1}


def single(algebra: Algebra, at: int) -> int | None:
    """The atom that a sum is, where it is one."""
    for monomial, factor in algebra.sums[at]:
        for atom, exponent in monomial:
            if len(algebra.sums[at]) == len(monomial) == exponent == factor == 1:
                return atom
    return None
