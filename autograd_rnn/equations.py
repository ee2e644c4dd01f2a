"""The system of equations: what everything after parsing maps from and to.

An equation gives one variable, at a generic position or at an end, a value. From the equations alone follow roles
(parameter, input, state, ...), the indices each node varies with, shapes and sizes; nothing of it is declared.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TypeVar

from . import shapes, signature
from .errors import CellError
from .graph import CONST, EXTENT, INDEX, READ, Node, Position, node, option, read, rewrite, topological
from .parse import Declaration, Line

BATCH = "batch"
MOST_EQUATIONS = 2_000  # of a system, calls and far reads written out
MOST_OPERATIONS = 10_000
LANE = "lane"  # independent copies of everything: what the complex step perturbs
T = TypeVar("T")


@dataclass(frozen=True)
class Equation:
    """`name[at] = value`; `line` is the author's, where there is one."""

    name: str
    at: tuple[Position, ...]
    value: Node
    line: Line | None = field(default=None, compare=False)

    @property
    def free(self) -> tuple[str, ...]:
        return tuple(p.index for p in self.at if p.base == "i")

    @property
    def end(self) -> bool:
        return any(p.base != "i" for p in self.at)

    def __str__(self):
        return self.name + ("[" + ",".join(map(str, self.at)) + "]" if self.at else "")


class System:
    """An immutable set of equations, in the author's order.

    axes: the indices of every variable, defined or not; model: the indices that are declared axes (their extent is a
    size), all others being data indices, whose extent every example has of its own.
    """

    def __init__(self, equations: Iterable[Equation], axes: dict[str, tuple[str, ...]], model: frozenset[str],
                 declarations: dict[str, Declaration]):
        self.equations = tuple(equations)
        used = {n.params[0] for n in topological(eq.value for eq in self.equations) if n.op is READ}
        used |= {eq.name for eq in self.equations}
        used |= {s for d in declarations.values() for s in d.shape or () if isinstance(s, str)} & set(axes)
        self.axes = {name: ax for name, ax in axes.items() if name in used}
        self.model = model
        self.declarations = declarations

    def once(self, what: str, key: Hashable, make: Callable[[], T]) -> T:
        """What is made from a system once and lives as long as it; of what two threads make at once, the first stays.
        """
        made = self.__dict__.setdefault(what, {})
        return made[key] if key in made else made.setdefault(key, make())

    def bounded(self, what: str) -> System:
        """The system, if it is small enough to be made, printed and differentiated in a moment; `what` it is."""
        for many, most, words in ((len(self.equations), MOST_EQUATIONS, "equations"),
                                  (len(self.nodes), MOST_OPERATIONS, "operations")):
            if many > most:
                raise CellError(f"{what} has {many} {words}; a system has at most {most}.", remedy=(
                    "Write repeated equations once, over an index: `l: axis`; give what lies far back as an input."))
        return self

    # --- who is who ----------------------------------------------------------------------------------------------

    @cached_property
    def definitions(self) -> dict[str, list[Equation]]:
        found: dict[str, list[Equation]] = {}
        for eq in self.equations:
            found.setdefault(eq.name, []).append(eq)
        return found

    @cached_property
    def defined(self) -> frozenset[str]:
        return frozenset(eq.name for eq in self.equations if not eq.end)

    @cached_property
    def nodes(self) -> list[Node]:
        return topological(eq.value for eq in self.equations)

    @cached_property
    def reads(self) -> list[Node]:
        return [n for n in self.nodes if n.op is READ]

    @cached_property
    def indices(self) -> tuple[str, ...]:
        """All indices, in order of appearance: the order of the axes of every array."""
        seen: dict[str, None] = {}
        for eq in self.equations:
            for p in eq.at:
                seen[p.index] = None
            for n in topological([eq.value]):
                if n.op is READ:
                    seen.update((p.index, None) for p in n.params[1])
                elif n.op in (INDEX, EXTENT):
                    seen[n.params[0]] = None
                elif n.op.fill is not None and option(n) not in (None, BATCH):
                    seen[option(n)] = None
        return tuple(seen)

    @cached_property
    def classes(self) -> frozenset[str]:
        """Undefined names that stand where a class does: whole numbers from 0."""
        return frozenset(k.params[0] for n in self.nodes for k in signature.class_operands(n) if k.op is READ)

    @cached_property
    def roles(self) -> dict[str, str]:
        """The role of every name: input, class, noise, const, parameter, state, loss or value."""
        roles = {}
        for name in self.axes:
            declared = self.declarations.get(name)
            kind = declared.kind if declared else None
            if name in self.defined:
                roles[name] = "state" if name in self.delayed else "value"
            elif kind in ("noise", "bernoulli"):
                roles[name] = "noise"
            elif name in self.classes:
                roles[name] = "class"
            elif kind in ("input", "const"):
                roles[name] = kind
            else:
                roles[name] = "input" if any(i not in self.model for i in self.axes[name]) else "parameter"
        return roles

    def having(self, *roles: str) -> tuple[str, ...]:
        return tuple(name for name in self._name_order if self.roles[name] in roles)

    @cached_property
    def given(self) -> tuple[str, ...]:
        """Everything that a run must be given."""
        return self.having("input", "class", "noise", "const", "parameter")

    @cached_property
    def delayed(self) -> dict[str, tuple[Position, ...]]:
        """The outside ends over data indices that each name is read at: `h[t-1]` reaches `h[0]`.

        They stand in the order of the name's indices, 0 before T+1.
        """
        found: dict[str, set[Position]] = {}
        for n in self.reads:
            for p in n.params[1]:
                if p.reaches and p.index not in self.model:
                    found.setdefault(n.params[0], set()).add(p.reaches)
        return {name: tuple(sorted(ends, key=lambda p: (self.axes[name].index(p.index), p.base)))
                for name, ends in found.items()}

    @cached_property
    def time(self) -> str | None:
        """The index along which a sequence goes on from stretch to stretch: `t`, or else the first data index."""
        data = [i for i in self.indices if i not in self.model]
        return "t" if "t" in data else data[0] if data else None

    @cached_property
    def carried(self) -> dict[str, Position]:
        """Names handed from one stretch of a sequence to the next, and the end they are handed to."""
        return {name: end for name, ends in self.delayed.items() for end in ends
                if end.index == self.time and end.base == "1"}

    @cached_property
    def beginnings(self) -> tuple[tuple[str, Position], ...]:
        """The ends that have a gradient."""
        return tuple((name, end) for name, ends in self.delayed.items() for end in ends
                     if self.roles[name] not in ("class", "noise", "const"))

    def outside(self, name: str, end: Position) -> tuple[Position, ...]:
        """An end of one index where the name's others are open: h[0,j]."""
        return tuple(end if i == end.index else Position(i) for i in self.axes[name])

    @cached_property
    def labels(self) -> dict[tuple[str, Position], str]:
        """What the value at an end is called, here and in every dict: by its position, "h[0]", "h[0,j]", "hb[T+1]".

        The end of a copy that holds a far delay goes by the position that it stands for: "s[-2]" for s[t-3].
        """
        found: dict[str, tuple[str, Position]] = {}
        for name, ends in self.delayed.items():
            for end in ends:
                own = f"{name}[{','.join(map(str, self.outside(name, end)))}]"
                found[own if (far := self._far(name, end)) in found or far is None else far] = name, end
        return {end: label for label, end in found.items()}

    def _far(self, name: str, end: Position) -> str | None:
        """The position further out that the end of a copy stands for."""
        if name not in self.copies:
            return None
        source, at = self.copies[name].params
        own = next(p for p in at if p.base == "i" and p.index == end.index)
        if own.reaches != end:
            return None
        return f"{source}[{','.join(str(end._replace(offset=end.offset + p.offset) if p is own else p) for p in at)}]"

    @cached_property
    def overlapping(self) -> list[list[tuple[str, Position, str]]]:
        """Ends of copies that stand for positions of one name, as far out along one index: y[-1,j] and y[-1,j-1]."""
        found: dict[tuple, list[tuple[str, Position, str]]] = {}
        for (name, end), label in self.labels.items():
            if name in self.copies and self._far(name, end) == label:
                source, at = self.copies[name].params
                offset = next(p.offset for p in at if p.base == "i" and p.index == end.index)
                found.setdefault((source, end, offset), []).append((name, end, label))
        return [ends for ends in found.values() if len(ends) > 1]

    @cached_property
    def copies(self) -> dict[str, Node]:
        """The copies that far delays are made of, h_lag2[t] = h_lag1[t-1], and the read that each stands for, h[t-2].

        Nobody wrote them and nobody asks for them; printed, they are equations like any other, so their names tell.
        """
        return copies_of(self.equations)

    @cached_property
    def initials(self) -> dict[str, tuple[str, Position]]:
        """What `initial` may name: ends by label; a name's only end by the name alone."""
        alone = {name: (name, ends[0]) for name, ends in self.delayed.items()
                 if len(ends) == 1 and name not in self.copies}
        return alone | {label: end for end, label in self.labels.items()}

    @cached_property
    def per_example(self) -> frozenset[str]:
        """Names with a value for each example: inputs, what has a data index, and what is computed from such."""
        found = {name for name in self.axes if self.roles[name] in ("input", "class", "noise")
                 or any(i not in self.model for i in self.axes[name])}
        if not self.defined - found:
            return frozenset(found)
        readers: dict[Node | str, list[Node | str]] = {}  # what varies with the batch if its operand or variable does
        reached: list[Node | str] = list(found)
        for n in self.nodes:
            along = option(n) if n.op in (INDEX, EXTENT) or n.op.fill is not None else None
            sums_batch = along == BATCH and not (n.args and not tokens_reduce(n))
            if n.op is READ:
                readers.setdefault(n.params[0], []).append(n)
            elif along is not None and along not in self.model and not sums_batch:
                reached.append(n)
            for k, a in enumerate(n.args):
                if k not in n.op.shape_only and not sums_batch:
                    readers.setdefault(a, []).append(n)
        for eq in self.equations:
            readers.setdefault(eq.value, []).append(eq.name)
        done: set[Node | str] = set(reached)
        while reached:
            new = [r for r in readers.get(reached.pop(), ()) if r not in done]
            done.update(new)
            reached += new
        return frozenset(name for name in self.axes if name in done)

    @cached_property
    def _free(self) -> dict[Node, frozenset[str]]:
        return {}

    def free(self, n: Node) -> frozenset[str]:
        """The indices a node varies with, the batch among them."""
        return free_indices(n, self.per_example, self.model, self._free)

    def rank_of_name(self, name: str) -> tuple[int, int]:
        """Order in which names lend themselves to a dimension: inputs and states, then other defined names."""
        kind = 0 if self.roles[name] in ("input", "state") else 1 if name in self.defined else 2
        return kind, self._name_order[name]

    @property
    def names(self) -> tuple[str, ...]:
        """All names, in order of appearance."""
        return tuple(self._name_order)

    @cached_property
    def defined_in_order(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(eq.name for eq in self.equations if not eq.end))

    @property
    def written(self) -> tuple[str, ...]:
        """The names that the text defines, in order: copies are nobody's."""
        return tuple(name for name in self.defined_in_order if name not in self.copies)

    @cached_property
    def _name_order(self) -> dict[str, int]:
        order: dict[str, int] = {}
        for eq in self.equations:
            for n in topological([eq.value]):
                if n.op is READ:
                    order.setdefault(n.params[0], len(order))
            order.setdefault(eq.name, len(order))
        for name in self.axes:
            order.setdefault(name, len(order))
        return order

    # --- shapes --------------------------------------------------------------------------------------------------

    @cached_property
    def inferred(self) -> shapes.Inferred:
        return shapes.infer(self)

    @property
    def shapes(self) -> dict[str, tuple[str | int, ...]]:
        return self.inferred.variables

    def rank(self, n: Node) -> int:
        """The number of component axes, also of nodes that were made from this system's later on."""
        known = self.inferred.nodes
        if n in known:
            return len(known[n])
        ranks = self._ranks
        for m in topological([n], lambda m: () if m in known or m in ranks else m.args):
            if m in known:
                ranks[m] = len(known[m])
            elif m.op is READ:
                ranks[m] = len(self.shapes[m.params[0]])
            elif m not in ranks:
                ranks[m] = signature.rank(m, ranks) if m.args else 0
        return ranks[n]

    @cached_property
    def _ranks(self) -> dict[Node, int]:
        return {}

    def sizes(self, given: dict[str, int]) -> dict[str, int]:
        """All sizes from those given by the name of any variable, or index, that has them."""
        known: dict[str, int] = {}
        by_alias = {alias: key for key, names in self.inferred.aliases.items() for alias in (*names, key)}
        for name, size in given.items():
            if isinstance(size, bool) or not hasattr(size, "__index__") or int(size) < 1:
                raise CellError(f"The size of `{name}` is {size!r}; a size is a whole number from 1.")
            key = name if name in self.model else by_alias.get(name)
            if key is None:
                shape = self.shapes.get(name)
                if shape is not None and len(shape) == 1 and shape[0] == size:
                    continue
                axis = f"If `{name}` counts layers or the like, declare it: `{name}: axis`. " * (name in self.indices)
                raise CellError(f"`{name}` names no size of this cell.", remedy=f"{axis}Sizes: " + ", ".join(
                    sorted({*self.inferred.aliases, *self.model})) + ".")
            if key.isdigit():
                if int(key) != size:
                    raise CellError(f"`{name}` has size {key}, not {size}.")
                continue
            if known.setdefault(key, int(size)) != size:
                raise CellError(f"The sizes given contradict each other: `{key}` is {known[key]} and {size}.",
                                remedy=f"These names share one size: {', '.join(self.inferred.aliases[key])}.")
        return shapes.solve(self.inferred, known)

    # --- other systems from this one -----------------------------------------------------------------------------

    def without_ends(self, keys: frozenset[tuple[str, tuple[Position, ...]]]) -> System:
        """The system whose ends `keys` are given from outside instead of defined."""
        return self.once("_without", keys, lambda: self.keeping(
            eq for eq in self.equations if (eq.name, eq.at) not in keys)) if keys else self

    def keeping(self, equations: Iterable[Equation]) -> System:
        """The system of some of these equations, whose names are what they were: numbers, vectors or matrices.

        What only the others tell of a shape is declared instead; a size that has no number there is the name's own.
        """
        some = tuple(equations)
        gone = _names(self.equations) - _names(some)
        axes = {name: indices for name, indices in self.axes.items() if name not in gone}
        declarations = dict(self.declarations)
        for name in axes:
            declared = declarations.get(name)
            if declared is not None and declared.shape is not None and gone.isdisjoint(declared.shape):
                continue
            shape = tuple(d if isinstance(d, int) else f"{name}.{k}" for k, d in enumerate(self.shapes[name]))
            kind = "input" if self.roles[name] in ("input", "class") else "parameter"
            declarations[name] = replace(declared, shape=shape) if declared is not None else Declaration(
                name, kind, shape, None, Line(f"{name}: {shape}", 0))
        return System(some, axes, self.model, declarations)

    def __eq__(self, other):
        return isinstance(other, System) and set(self.equations) == set(other.equations) and (
            self.axes, self.model) == (other.axes, other.model) and self.roles == other.roles

    def __hash__(self):
        return hash(frozenset(self.equations))


def _names(equations: Iterable[Equation]) -> set[str]:
    """The names that equations define or read."""
    equations = tuple(equations)
    return {eq.name for eq in equations} | {
        n.params[0] for n in topological(eq.value for eq in equations) if n.op is READ}


def free_indices(n: Node, per_example, model, memo: dict[Node, frozenset[str]]) -> frozenset[str]:
    """Indices below a node: reads bring theirs and, per example, the batch; a reduction binds its own."""
    if n in memo:
        return memo[n]
    for m in topological([n], lambda m: () if m in memo else m.args):
        if m in memo:
            continue
        if m.op is READ:
            name, at = m.params
            found = {p.index for p in at if p.base == "i"} | ({BATCH} if name in per_example else set())
        elif m.op is INDEX:  # what varies along a data index is each example's own
            found = {m.params[0]} if m.params[0] in model else {m.params[0], BATCH}
        elif m.op is EXTENT:
            found = set() if m.params[0] in model or m.params[0] == BATCH else {BATCH}
        elif m.op is CONST:
            found = set()
        else:
            found = set()
            for k, a in enumerate(m.args):
                if k not in m.op.shape_only:
                    found |= memo[a]
            over = option(m) if m.op.fill is not None else None
            if over is not None:
                found = found - {over} if tokens_reduce(m) else found | {over}
                if over != BATCH and over not in model:
                    found = found | {BATCH}
        memo[m] = frozenset(found)
    return memo[n]


def joined(name: str, *words: str) -> str:
    """A name and words after it: `lambda_` and `tm1` make `lambda_tm1`, for no name has two underscores in a row."""
    for word in words:
        name = f"{name.rstrip('_')}_{word.lstrip('_')}"
    return name


def copies_of(equations: Iterable[Equation]) -> dict[str, Node]:
    """The equations h_lag2[t] = h_lag1[t-1] whose names say that they are copies, and what each stands for, h[t-2]."""
    reads = {eq.name: eq.value.params for eq in equations if not eq.end and eq.value.op is READ
             and any(p.base == "i" and p.offset for p in eq.value.params[1])
             and eq.at == tuple(Position(p.index) for p in eq.value.params[1] if not p.outside)}
    found: dict[str, Node] = {}
    seen: set[str] = set()
    for last in reads:
        chain = []  # from a name to what it may be a copy of, and on
        while last in reads and last not in seen:
            seen.add(last)
            chain.append(last)
            last = reads[last][0]
        for name in reversed(chain):
            source, at = reads[name]
            if source in found:
                moves = {p.index: p.offset for p in at}
                source, at = found[source].params
                at = tuple(p._replace(offset=p.offset + moves[p.index]) if p.base == "i" else p for p in at)
            if re.fullmatch(re.escape(joined(source, copy_word(at))) + r"(_\d+)?", name):
                found[name] = read(source, at)
    return found


def copy_word(at: tuple[Position, ...], furthest: int | None = None) -> str:
    """What tells a copy from its name: "lag2", or of several indices "lag2_t_lag1_l"; "lag1_t_l0" along the end 0."""
    words = []
    for p in at:
        if p.base == "i" and p.offset:
            far = abs(p.offset) if furthest is None else min(abs(p.offset), furthest)
            words += [f"{'lead' if p.offset > 0 else 'lag'}{far}", *[p.index] * (len(at) > 1)]
    return joined(*words, *(p.index + ("0" if p.base == "1" else "end") for p in at if p.outside))


def tokens_reduce(n: Node) -> bool:
    """Whether a reduction drops its index (sum) rather than keep it (softmax)."""
    return n.op.shape.split("->")[1].strip() == "()"


def renamed(n: Node, change) -> Node:
    """The expression with every read replaced by `change(name, positions)`."""
    return rewrite([n], lambda m, args: change(*m.params) if m.op is READ else None)[n]


def shifted(n: Node, moves: dict[str, str]) -> Node:
    """The expression with indices renamed, their bindings too."""
    def change(m, args):
        if m.op is READ:
            name, at = m.params
            return node(READ, params=(name, tuple(p._replace(index=moves.get(p.index, p.index)) for p in at)))
        if m.op in (INDEX, EXTENT) or (m.op.fill is not None and m.params):
            return node(m.op, *args, params=(moves.get(m.params[0], m.params[0]),))
        return None

    return rewrite([n], change)[n]
