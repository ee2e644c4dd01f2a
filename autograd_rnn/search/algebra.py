"""Expressions as sums of products: what is left of them when algebra has been done.

    nodes -> sums of monomials, monomials of atoms; an atom is a name, or an operation that is no sum and no product

Sums and atoms are numbered, equal ones alike, each after what it is made of.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from fractions import Fraction
from typing import NamedTuple

from .. import primitives as P
from ..errors import CellError
from ..graph import CONST, READ, Node, topological

WIDEST = 400  # terms of a sum
HIGHEST = 4  # powers of sums that are multiplied out
COMMUTATIVE = (P.maximum, P.minimum, P.eq, P.ne)

Monomial = frozenset[tuple[int, int]]  # (atom, exponent)
Terms = dict[Monomial, Fraction]


class Sum(NamedTuple):
    """factor * monomial + ..."""

    terms: frozenset[tuple[Monomial, Fraction]]

    @property
    def parts(self) -> set[int]:
        return {atom for monomial, _ in self.terms for atom, _ in monomial}


class Atom(NamedTuple):
    """An operation on sums; a name where it is read, on none."""

    op: str
    params: tuple
    parts: tuple[int, ...]
    ordered: bool = True


class Algebra:
    """`items[k]` is the sum or the atom of number k."""

    def __init__(self) -> None:
        self.items: list[Sum | Atom] = []
        self._numbers: dict[Sum | Atom, int] = {}

    def number(self, item: Sum | Atom) -> int:
        if item not in self._numbers:
            self._numbers[item] = len(self.items)
            self.items.append(item)
        return self._numbers[item]

    def sum(self, terms: Mapping[Monomial, Fraction]) -> int:
        return self.number(Sum(frozenset(terms.items())))

    def one(self, op: str, params: tuple, parts: Iterable[int], ordered: bool = True) -> Monomial:
        """An atom by itself."""
        return frozenset({(self.number(Atom(op, params, tuple(parts), ordered)), 1)})

    def sums(self, roots: Iterable[Node]) -> dict[Node, int]:
        """The number of each node's sum; CellError where one has too many terms."""
        terms: dict[Node, Terms] = {}
        for n in topological(roots):
            terms[n] = self.terms(n, [terms[a] for a in n.args])
            if len(terms[n]) > WIDEST:
                raise CellError(f"Multiplied out, an expression has more than {WIDEST} terms.",
                                remedy="Cells are told apart up to that size.")
        return {n: self.sum(found) for n, found in terms.items()}

    def terms(self, n: Node, x: list[Terms]) -> Terms:
        """An operation on sums, as a sum."""
        if n.op is CONST:
            value = Fraction(repr(n.params[0]))
            return {frozenset(): value} if value else {}
        if n.op is P.add:
            return added(x)
        if n.op is P.neg:
            return {monomial: -factor for monomial, factor in x[0].items()}
        if n.op is P.mul:
            return multiplied(*x)
        if n.op is P.div and len(x[1]) == 1:
            return multiplied(x[0], raised(x[1], -1))
        if n.op is P.pow and isinstance(n.params[0], int) and (len(x[0]) == 1 or 0 <= n.params[0] <= HIGHEST):
            return raised(x[0], n.params[0])
        if n.op is P.matmul:  # linear in either
            return added({self.one(n.op.name, (), [self.sum({m: Fraction(1)}) for m in (a, b)]): c * d}
                         for a, c in x[0].items() for b, d in x[1].items())
        parts = [self.sum(terms) for terms in x]
        ordered = n.op not in COMMUTATIVE
        return {self.one(n.op.name, n.params, parts if ordered else sorted(parts), ordered): Fraction(1)}

    def name(self, at: int) -> str | None:
        """The name that a sum is, where it is one alone, or that an atom is."""
        item = self.items[at]
        if isinstance(item, Atom):
            return item.params[0] if item.op == READ.name else None
        (monomial, factor), *more = item.terms or {(frozenset(), Fraction(0))}
        (atom, exponent), *others = monomial or {(at, 0)}
        return None if more or others or factor != 1 or exponent != 1 else self.name(atom)

    def below(self, roots: Iterable[int]) -> list[int]:
        """The numbers of all that sums are made of, they among them, in order."""
        found = set(roots)
        for at in reversed(range(len(self.items))):
            if at in found:
                found.update(self.items[at].parts)
        return sorted(found)


def added(parts: Iterable[Terms]) -> Terms:
    """Like terms together; those that cancel are gone.

    >>> x, y = frozenset({(0, 1)}), frozenset({(1, 1)})
    >>> added([{x: Fraction(1), y: Fraction(2)}, {x: Fraction(-1)}]) == {y: 2}
    True
    """
    found: dict[Monomial, Fraction] = {}
    for part in parts:
        for monomial, factor in part.items():
            found[monomial] = found.get(monomial, Fraction(0)) + factor
    return {monomial: factor for monomial, factor in found.items() if factor}


def multiplied(x: Terms, y: Terms) -> Terms:
    """Each term by each."""
    return added({product(a, b): c * d} for a, c in x.items() for b, d in y.items())


def product(a: Monomial, b: Monomial) -> Monomial:
    exponents = Counter(dict(a))
    for atom, exponent in b:
        exponents[atom] += exponent
    return frozenset((atom, exponent) for atom, exponent in exponents.items() if exponent)


def raised(x: Terms, exponent: int) -> Terms:
    """A power: of one term any, of a sum one that is multiplied out."""
    if len(x) == 1:
        (monomial, factor), = x.items()
        return {frozenset((a, e * exponent) for a, e in monomial if exponent): factor ** exponent}
    found: Terms = {frozenset(): Fraction(1)}
    for _ in range(exponent):
        found = multiplied(found, x)
    return found
