"""The schedule of a system cut into pieces: what machine code does by rows, what it sums over rows, what is left.

    schedule -> items (an operation, an equation, a loop with what only feeds it) -> in order -> groups -> chains

Work by rows comes first, then sums over all rows, then the reference's steps, each as soon as what it needs is there:
so that what follows one another in a run is long, and threads part and meet seldom. The body of a loop is cut the same
way.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from ... import primitives as P
from ...equations import BATCH, Equation, System
from ...evaluate import plan
from ...graph import LEAVES, READ, Node, option
from ...order import Loop, contraction, operands, reach
from ..columns import columns
from ..passes import rows as stacked
from ..passes import split_rows
from .chains import Chain, Nest
from .places import Writer
from .reduce import BY_ROW, taken_whole
from .rows import Rows, native, weight
from .shared import shareable
from .storage import laid_out
from .totals import summed

PARTS = (P.split, P.slice)
LOOKED_THROUGH = (*PARTS, split_rows, P.transpose, stacked, columns)


@dataclass(eq=False)
class Item:
    """One thing to do.

    kind: "rows", "totals", "result" (a sum over rows, or a part of one, under its name), "shared" (of weights and such
    sums) or "reference"; over: the indices that its values vary with and no loop around it holds still; loop: the loop
    it is.
    """

    kind: str
    steps: list
    over: tuple[str, ...] = ()
    loop: Loop | None = None
    needs: set = field(default_factory=set)


@dataclass(eq=False)
class Group:
    """Items done together; of a loop, the groups of its body. outer: the indices that loops around it hold still."""

    items: list[Item]
    outer: tuple[str, ...]
    top: int = 0
    inner: list[Group] = field(default_factory=list)

    @property
    def kind(self) -> str:
        return self.items[0].kind

    @property
    def over(self) -> tuple[str, ...]:
        return self.items[0].over

    @property
    def loop(self) -> Loop | None:
        return self.items[0].loop if self.kind == "rows" else None

    @property
    def steps(self) -> list:
        return [s for item in self.items for s in item.steps]


class Partition:
    """What a system's program does, in order: chains, nodes to sum, results, steps of the reference.

    keep: the names that are wanted, and whether at all positions or only at an end; awake: names that must not rest;
    apart: whether it is for runs in stretches.
    """

    def __init__(self, system: System, keep: Mapping[str, bool], writer: Writer, awake: Iterable[str] = (),
                 apart: bool = False):
        self.system, self.keep, self.writer, self.plan, self.apart = system, keep, writer, plan(system), apart
        self.consumers = self.plan.consumers
        self.kinds: dict[Any, str] = {s: self.kind(s, ()) for s in self.plan.order}
        self.paths: dict[Any, tuple] = dict(_paths(self.plan.order, ()))
        self.moved: dict[Any, list] = {}
        self.sink()
        self.home: dict[Any, Group] = {}
        self.groups = self.grouped(self.ordered(self.items(self.plan.order, ())), ())
        self.chains = self.chained()
        laid_out(self, set(awake))

    # --- kinds -------------------------------------------------------------------------------------------------------

    def kind(self, s, fixed: tuple[str, ...]) -> str:
        if isinstance(s, Loop):
            inner = {self.kind(x, (*fixed, s.index)) for x in s.body}
            return "rows" if inner <= {"rows", "leaf"} else "reference"
        if isinstance(s, Equation):
            return "result" if self.result(s) else "rows" if self.written(s, fixed) else self.other(s, fixed)
        if self.looked_at(s):
            return "leaf"
        return "totals" if summed(self.writer, s) else "rows" if native(self.writer, s, fixed) else self.other(s, fixed)

    def other(self, s, fixed: tuple[str, ...]) -> str:
        return "shared" if not fixed and shareable(self.system, s) else "reference"

    def looked_at(self, n: Node) -> bool:
        """What has no values of its own: leaves, parts of a value, weights as they are packed."""
        if n.op in PARTS and BATCH in self.system.free(n) and self.system.rank(n) == 1:
            return True
        return n.op in LEAVES or (n.op in (P.split, split_rows) and self.totalled(n)) or (
            n.op in (P.transpose, stacked, columns) and bool(weight(self.writer, n)[1]))

    def totalled(self, n: Node) -> bool:
        """Whether a value is a sum over all rows, or a part of one."""
        if n.op in (P.split, split_rows):
            n = n.args[0]
        return n.op not in LEAVES and summed(self.writer, n)

    def result(self, eq: Equation) -> bool:
        """Whether an equation names a sum over all rows, or a part of one."""
        dims = self.system.inferred.nodes
        return not eq.at and eq.name not in self.system.per_example and self.totalled(eq.value) and (
            dims[eq.value] == self.system.shapes[eq.name])

    def written(self, eq: Equation, fixed: tuple[str, ...]) -> bool:
        """Whether an equation's value is written row by row."""
        value, system = eq.value, self.system
        if value.op is READ and system.roles[value.params[0]] == "class":
            return False
        fits = value.op in LEAVES or native(self.writer, value, fixed) or BATCH not in system.free(value)
        return fits and eq.name in system.per_example and len(set(eq.free) - set(fixed)) <= 2 and (
            system.rank(value) in (0, len(system.shapes[eq.name])))

    def users(self, n: Node) -> list:
        """What reads a node's value, through what is only looked at."""
        found = []
        for c in self.consumers.get(n, ()):
            through = isinstance(c, Node) and c.op in LOOKED_THROUGH and self.looked_at(c)
            found += self.users(c) if through else [c]
        return found

    # --- items -------------------------------------------------------------------------------------------------------

    def sink(self) -> None:
        """What only feeds one reduction, sum or loop goes into it."""
        for s in reversed(list(self.paths)):
            if isinstance(s, Node):
                users = self.users(s)
                if self.feeds_reduction(s, users):
                    self.writer.absorbed.add(s)
                    self.moved.setdefault(users[0], []).insert(0, s)
                elif users and not self.paths[s] and not self.into_sum(s, users):
                    self.into_loop(s, users)

    def into_sum(self, s: Node, users: list) -> bool:
        """A sum over all rows takes the inner of its two sums, and pointwise values that nothing else reads."""
        home = users[0]
        if len(users) > 1 or self.kinds.get(home) != "totals" or contraction(home) or self.kinds[s] == "totals" or not (
                (s.op is P.sum and option(s) is not None) or (self.kinds[s] == "rows" and pointwise(s))):
            return False
        self.paths[s] = (home,)
        self.moved.setdefault(home, []).insert(0, s)
        return True

    def into_loop(self, s: Node, users: list) -> None:
        """Work that one loop alone reads is done in it, as deep inside as all that reads it stands."""
        if self.kinds[s] != "rows" or s.op in (P.matmul, P.concat, P.sum) or taken_whole(s):
            return
        path = self.paths[users[0]]
        for u in users[1:]:
            path = tuple(a for a, b in zip(path, self.paths[u]) if a is b)
        if path and isinstance(path[0], Loop) and self.kinds[path[0]] == "rows" and self.system.free(s) <= {
                BATCH, *(loop.index for loop in path)}:
            self.paths[s] = path
            self.moved.setdefault(path[-1], []).insert(0, s)

    def feeds_reduction(self, s: Node, users: list) -> bool:
        """Whether a pointwise value is read by one reduction alone, which can make it for itself."""
        if len(users) != 1 or not isinstance(users[0], Node) or self.paths[users[0]] != self.paths[s]:
            return False
        home = users[0]
        fixed = tuple(loop.index for loop in self.paths[s])
        return pointwise(s) and (home in self.writer.absorbed or (
            home.op in BY_ROW and self.kind(home, fixed) == "rows")) and self.kind(s, fixed) == "rows"

    def items(self, steps: Iterable, fixed: tuple[str, ...]) -> list[Item]:
        found = []
        for s in steps:
            kind = self.kinds[s] if not fixed else self.kind(s, fixed)
            if kind == "leaf" or s in self.writer.absorbed or (
                    not fixed and not isinstance(s, Loop) and self.paths[s]):
                continue
            if isinstance(s, Loop):
                found.append(Item(kind, [s], (s.index,), s))
            else:
                free = s.free if isinstance(s, Equation) else self.system.free(s)
                over = tuple(i for i in self.system.indices if i in free and i not in fixed and i != taken_whole(s))
                found.append(Item(kind, [*self.feeding(s), s], over))
        return found

    def feeding(self, s) -> list:
        """What a sum makes for itself, before it."""
        return [x for n in self.moved.get(s, ()) for x in (*self.feeding(n), n)] if isinstance(s, Node) else []

    def ordered(self, items: list[Item], fixed: tuple[str, ...] = ()) -> list[Item]:
        """By rows first, then totals, then the reference, each as soon as what it needs is there."""
        makers = {s: item for item in items for s in self.all_steps(item)}
        for item in items:
            for s in self.all_steps(item):
                for n in self.reached(s, makers):
                    if n.op is READ:
                        if any(p.index in fixed and p.offset for p in n.params[1]):
                            continue  # of another round of a loop around
                        item.needs |= {makers[eq] for eq in self.system.definitions.get(n.params[0], ())
                                       if eq in makers and reach(eq, n) is not None}
                    elif n in makers:
                        item.needs.add(makers[n])
            item.needs.discard(item)
        left, found, over = list(items), [], None
        done: set[Item] = set()
        rank = {"shared": -1, "rows": 0, "totals": 1, "result": 2, "reference": 3}
        while left:
            ready = [k for k, item in enumerate(left) if item.needs <= done]
            k = min(ready, key=lambda k: (rank[left[k].kind], not self.early(left[k]), left[k].over != over,
                                          left[k].loop is not None, k))
            item = left.pop(k)
            over = item.over
            done.add(item)
            found.append(item)
        return found

    def early(self, item: Item) -> bool:
        """A sum over all steps comes before the sweep back, where it is to grow from stretch to stretch."""
        return self.apart and not item.over and any(
            isinstance(s, Node) and s.op is P.sum and option(s) == self.system.time for s in item.steps)

    def all_steps(self, item: Item) -> Iterator:
        for step in item.steps:
            yield from self.within(step)

    def within(self, step) -> Iterator:
        """The operations and equations of a step, with what was moved into it."""
        if isinstance(step, Loop):
            for s in (*self.moved.get(step, ()), *step.body):
                yield from self.within(s)
        else:
            yield step

    def reached(self, s, makers: Mapping) -> Iterator[Node]:
        """The values and variables that a step reads, through what is only looked at."""
        stack, seen = [s.value] if isinstance(s, Equation) else list(operands(s)), set()
        if isinstance(s, Node) and s.op is READ:
            stack = [s]
        while stack:
            n = stack.pop()
            if n not in seen:
                seen.add(n)
                yield n
                if n not in makers and n.op is not READ:
                    stack.extend(operands(n))

    # --- groups ------------------------------------------------------------------------------------------------------

    def grouped(self, items: list[Item], outer: tuple[str, ...]) -> list[Group]:
        """Neighbours of one kind together; by rows, those of the same indices that read one another where they stand.
        """
        groups: list[Group] = []
        for item in items:
            last = groups[-1] if groups else None
            if last is not None and last.kind == item.kind and (item.kind in ("totals", "result", "shared") or (
                    item.kind == "rows" and item.loop is None and last.loop is None and last.over == item.over
                    and self.beside(item, last.items))):
                last.items.append(item)
            else:
                groups.append(Group([item], outer, len(groups)))
        for group in groups:
            if group.loop is not None:
                body = [*self.moved.get(group.loop, ()), *group.loop.body]
                fixed = (*outer, group.loop.index)
                group.inner = self.grouped(self.ordered(self.items(body, fixed), fixed), fixed)
                for inner in self.leaves(group):
                    inner.top = group.top
            else:
                for item in group.items:
                    self.home.update((s, group) for s in self.all_steps(item))
        return groups

    def leaves(self, group: Group) -> Iterator[Group]:
        if group.inner:
            for inner in group.inner:
                yield from self.leaves(inner)
        else:
            yield group

    def beside(self, item: Item, earlier: list[Item], over: str | None = None, sign: int = 0) -> bool:
        """Whether all that an item reads of earlier ones stands at the same position; of `over`, or before it."""
        makers = {s: other for other in earlier for s in self.all_steps(other)}
        names = {s.name for s in makers if isinstance(s, Equation)}
        for s in self.all_steps(item):
            for n in self.reached(s, makers):
                if n.op is READ and n.params[0] in names and not all(
                        p.base == "i" and (p.offset == 0 or p.offset * sign < 0)
                        for p in n.params[1] if over in (None, p.index)):
                    return False
        return True

    def chained(self) -> dict[int, Chain]:
        """Neighbouring groups of rows along one index, as chains, by group."""
        chains: dict[int, Chain] = {}
        before: list[Item] = []
        for k, group in enumerate(self.groups):
            if group.kind != "rows":
                continue
            over, sign = next(iter(group.over), None), group.loop.sign if group.loop else None
            chain = chains.get(k - 1)
            together = chain.sign if chain and chain.sign else sign
            against = chain is not None and chain.sign is not None and sign not in (None, chain.sign)
            if chain is None or over is None or chain.over != over or against or not all(
                    self.beside(item, before, over, together or 0) for item in group.items):
                chain, before = Chain(over, sign), []
            chain.sign = chain.sign or sign
            chains[k] = chain
            before = before + group.items
        return chains

    # --- the program -------------------------------------------------------------------------------------------------

    def phases(self) -> list[tuple[str, Any]]:
        """("rows", chains), ("totals", nodes), ("results", equations), ("shared", steps), ("reference", step).

        Raises Overwritten where a value rests that must not.
        """
        found: list[tuple[str, Any]] = []
        for k, group in enumerate(self.groups):
            if group.kind == "reference":
                found.append(("reference", group.steps[0]))
            elif group.kind == "rows":
                chain, stage = self.chains[k], self.stage(group)
                if stage is not None:
                    chain.stages.append(stage)
                if not found or found[-1][0] != "rows":
                    found.append(("rows", []))
                if chain not in found[-1][1]:
                    found[-1][1].append(chain)
            elif group.kind == "totals":
                found.append(("totals", [s for s in group.steps if summed(self.writer, s)]))
            elif group.kind == "shared":
                found.append(("shared", group.steps))
            else:
                found.append(("results", group.steps))
        return found

    def stage(self, group: Group) -> Rows | Nest | None:
        if group.loop is not None:
            inner = [s for s in map(self.stage, group.inner) if s is not None]
            return Nest(self.writer, group.loop, group.outer, inner) if inner else None
        stage = Rows(self.writer, group.steps, group.outer, group.over)
        lost = stage.overwritten()
        if lost:
            raise Overwritten(lost)
        return stage if stage.passes else None


def pointwise(n: Node) -> bool:
    """Whether a value is made from its operands number by number."""
    return n.op.machine is not None or n.op is P.like


class Overwritten(Exception):
    """Names that cannot rest, because a later pass reads what an earlier one replaces."""


def _paths(steps, path: tuple[Loop, ...]) -> Iterator[tuple[Any, tuple[Loop, ...]]]:
    for s in steps:
        yield s, path
        if isinstance(s, Loop):
            yield from _paths(s.body, (*path, s))


def steps_of(s) -> Iterator:
    """The operations and equations of a step of the schedule."""
    if isinstance(s, Loop):
        for x in s.body:
            yield from steps_of(x)
    else:
        yield s
