"""The schedule of a system cut into pieces: what machine code does by rows, what it sums over rows, what is left.

    schedule -> items (an operation, an equation, a loop with what only feeds it) -> in order -> groups -> chains

Work by rows comes first, then sums over all rows, then the reference's steps, each as soon as what it needs is there:
so that what follows one another in a run is long, and threads part and meet seldom.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from ... import primitives as P
from ...adjoint import holders
from ...equations import BATCH, Equation, System
from ...evaluate import plan
from ...graph import LEAVES, READ, Node, Position, option
from ...order import Loop, contraction, operands, reach
from ..passes import split_rows
from .places import Place, Writer
from .rows import Chain, Rows, native, weight
from .totals import summed

VIEWS = (P.split, P.slice)


@dataclass(eq=False)
class Item:
    """One thing to do.

    kind: "rows", "totals", "result" (a part of a total under a name) or "reference"; over: the index that its values
    vary with; loop: the loop it is.
    """

    kind: str
    steps: list
    over: str | None = None
    loop: Loop | None = None
    needs: set = field(default_factory=set)


class Partition:
    """What a system's program does, in order: chains, nodes to sum, results, steps of the reference."""

    def __init__(self, system: System, keep: Mapping[str, bool], writer: Writer, apart: Iterable[str] = ()):
        """keep: the names that are wanted, and whether at all positions or only at an end; apart: names that do not
        rest."""
        self.system, self.keep, self.writer, self.plan = system, keep, writer, plan(system)
        self.consumers = self.plan._consumers
        items = self.ordered(self.items())
        self.groups = self.grouped(items)
        self.home: dict[Any, int] = {}
        for k, group in enumerate(self.groups):
            for item in group:
                self.home.update((s, k) for step in item.steps for s in steps_of(step))
        self.kinds = [group[0].kind for group in self.groups]
        self.chains = self.chained()
        self.store()
        self.rest(set(apart))
        self.place()

    # --- items -------------------------------------------------------------------------------------------------------

    def items(self) -> list[Item]:
        kinds: dict[Any, str] = {s: self.kind(s) for s in self.plan.order}
        owner = {inner: s for s in self.plan.order if isinstance(s, Loop) for inner in steps_of(s)}
        moved: dict[Any, list] = {}
        home: Any
        for s in reversed(self.plan.order):  # what only feeds one loop, or one sum, goes into it
            if isinstance(s, Node) and ((kinds[s] == "rows" and s.op not in (P.matmul, P.concat)) or s.op is P.sum):
                homes = {owner.get(c, c) for c in self.users(s)}
                home = next(iter(homes)) if len(homes) == 1 else None
                inner = isinstance(home, Loop) and kinds[home] == "rows" and self.system.free(s) <= {home.index, BATCH}
                if s.op is P.sum:
                    inner = False
                    if isinstance(home, Node) and kinds.get(home) == "totals" and not contraction(home):
                        inner = kinds[s] != "totals" and option(s) is not None
                elif isinstance(home, Node) and kinds.get(home) == "totals" and not contraction(home):
                    inner = True
                if inner:
                    owner[s] = home
                    moved.setdefault(home, []).insert(0, s)
        items = []
        for s in self.plan.order:
            if s in owner or kinds[s] == "leaf":
                continue
            if isinstance(s, Loop):
                steps = [*moved.get(s, ()), *steps_of(s)] if kinds[s] == "rows" else [s]
                items.append(Item(kinds[s], steps, s.index, s))
            else:
                free = s.free if isinstance(s, Equation) else self.system.free(s) - {BATCH}
                items.append(Item(kinds[s], [*moved.get(s, ()), s], next(iter(free), None)))
        return items

    def kind(self, s) -> str:
        if isinstance(s, Loop):
            body = all(self.written(x, (s.index,)) if isinstance(x, Equation) else native(self.writer, x, (s.index,))
                       for x in steps_of(s))
            return "rows" if body and not any(isinstance(x, Loop) for x in s.body) else "reference"
        if isinstance(s, Equation):
            if self.result(s):
                return "result"
            return "rows" if self.written(s, ()) else "reference"
        if self.looked_at(s):
            return "leaf"
        return "totals" if summed(self.writer, s) else "rows" if native(self.writer, s, ()) else "reference"

    def looked_at(self, n: Node) -> bool:
        """What has no values of its own: leaves, parts of a value, weights as they are packed."""
        if (n.op in VIEWS and native(self.writer, n, ())) or (n.op in (P.split, split_rows) and self.totalled(n)):
            return True
        return n.op in LEAVES or bool(weight(n)[1])

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
        return fits and eq.name in system.per_example and len(set(eq.free) - set(fixed)) <= (not fixed) and (
            system.rank(value) in (0, len(system.shapes[eq.name])))

    def users(self, n: Node) -> list:
        """What reads a node's value, through what is only looked at."""
        found = []
        for c in self.consumers.get(n, ()):
            through = isinstance(c, Node) and c.op in (*VIEWS, split_rows) and self.looked_at(c)
            found += self.users(c) if through else [c]
        return found

    # --- order -------------------------------------------------------------------------------------------------------

    def ordered(self, items: list[Item]) -> list[Item]:
        makers = {s: item for item in items for step in item.steps for s in steps_of(step)}
        for item in items:
            for step in item.steps:
                for s in steps_of(step):
                    for n in self.reached(s, makers):
                        if n.op is READ:
                            item.needs |= {makers[eq] for eq in self.system.definitions.get(n.params[0], ())
                                           if reach(eq, n) is not None}
                        elif n in makers:
                            item.needs.add(makers[n])
            item.needs.discard(item)
        left, found, over = list(items), [], None
        done: set[Item] = set()
        rank = {"rows": 0, "totals": 1, "result": 2, "reference": 3}
        while left:
            ready = [k for k, item in enumerate(left) if item.needs <= done]
            k = min(ready, key=lambda k: (rank[left[k].kind], left[k].over != over, left[k].loop is not None, k))
            item = left.pop(k)
            over = item.over
            done.add(item)
            found.append(item)
        return found

    def reached(self, s, makers: Mapping) -> Iterable[Node]:
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

    def grouped(self, items: list[Item]) -> list[list[Item]]:
        """Neighbours of one kind together; by rows, those of one index that read one another where they stand."""
        groups: list[list[Item]] = []
        for item in items:
            last = groups[-1] if groups else None
            if last is not None and last[0].kind == item.kind and (item.kind in ("totals", "result") or (
                    item.kind == "rows" and item.loop is None and last[0].loop is None and last[0].over == item.over
                    and self.beside(item, last, 0))):
                last.append(item)
            else:
                groups.append([item])
        return groups

    def beside(self, item: Item, earlier: list[Item], sign: int) -> bool:
        """Whether all that an item reads of earlier ones stands at the same position, or before it in order of sign."""
        names = {s.name for other in earlier for step in other.steps for s in steps_of(step) if isinstance(s, Equation)}
        makers = {s: other for other in earlier for step in other.steps for s in steps_of(step)}
        for step in item.steps:
            for s in steps_of(step):
                for n in self.reached(s, makers):
                    if n.op is READ and n.params[0] in names and not all(
                            p.base == "i" and (p.offset == 0 or p.offset * sign < 0) for p in n.params[1]):
                        return False
        return True

    def chained(self) -> dict[int, Chain]:
        """Neighbouring groups of rows along one index, as chains, by group."""
        chains: dict[int, Chain] = {}
        before: list[Item] = []
        for k, group in enumerate(self.groups):
            if group[0].kind != "rows":
                continue
            over, sign = group[0].over, group[0].loop.sign if group[0].loop else None
            chain = chains.get(k - 1)
            together = chain.sign if chain and chain.sign else sign
            against = chain is not None and chain.sign is not None and sign not in (None, chain.sign)
            if chain is None or over is None or chain.over != over or against or not all(
                    self.beside(item, before, together or 0) for item in group):
                chain, before = Chain(over, sign), []
            chain.sign = chain.sign or sign
            chains[k] = chain
            before = before + group
        return chains

    # --- where things lie --------------------------------------------------------------------------------------------

    def store(self) -> None:
        """Which variables have an array, and which lie in a concatenation's."""
        system, stored = self.system, self.writer.stored
        equations = {(eq.name, eq.at): self.home.get(eq) for eq in system.equations}
        stored |= set(self.keep) & {eq.name for eq in system.equations}
        stored |= {eq.name for eq in system.equations if self.kinds[self.home[eq]] in ("reference", "result")}
        self.apart: dict[str, list[Node]] = {}  # reads that do not stand where the variable is made
        for n in system.nodes:
            if n.op is READ and n.params[0] in system.definitions:
                users = self.users(n)
                home = equations.get(n.params)
                if users and (home is None or self.kinds[home] != "rows" or any(
                        self.home.get(c, -1) != home for c in users)):
                    stored.add(n.params[0])
                    self.apart.setdefault(n.params[0], []).append(n)
        held = holders(system)
        lone = {n for n, eqs in system.definitions.items() if len(eqs) == 1 and n in stored
                and self.kinds[self.home[eqs[0]]] == "rows" and n not in system.delayed and len(system.shapes[n]) == 1}
        wholes = [eq for eq in system.equations if eq.name in lone and eq.value.op is P.concat]
        for eq in sorted(wholes, key=lambda eq: -len(eq.value.args)):
            if eq.name not in self.writer.parts:
                for k, a in enumerate(eq.value.args):
                    self.lies(a, eq, eq.value.args[:k], lone, held)
        for eq in wholes:  # a shorter run of the same parts
            names = [self.variable(a, eq, held) for a in eq.value.args]
            where = [self.writer.parts[n] for n in names if n in self.writer.parts]
            if eq.name not in self.writer.parts and len(where) == len(names) and not any(
                    whole == eq.name for whole, _ in self.writer.parts.values()) and all(
                    w[0] == where[0][0] and w[1] == where[0][1] + tuple(
                        d for a in eq.value.args[:k] for d in self.writer.dims(a)) for k, w in enumerate(where)):
                self.writer.parts[eq.name] = where[0]

    def variable(self, a: Node, eq: Equation, held: Mapping[Node, Node]) -> str | None:
        """The variable that holds a value where an equation stands."""
        n = a if a.op is READ else held.get(a)
        return n.params[0] if n is not None and n.params[1] == eq.at else None

    def lies(self, a: Node, eq: Equation, before: tuple[Node, ...], lone: set[str], held: Mapping) -> None:
        name = self.variable(a, eq, held)
        if name in lone and name != eq.name and name not in self.writer.parts and not any(
                whole == name for whole, _ in self.writer.parts.values()) and (
                self.system.axes[name] == self.system.axes[eq.name]):
            self.writer.parts[name] = eq.name, tuple(d for b in before for d in self.writer.dims(b))

    def rest(self, apart: set[str]) -> None:
        """Carried values that only the next position reads need no array along their loop."""
        system = self.system
        wholes = {whole for whole, _ in self.writer.parts.values()}
        for name in self.writer.stored - set(self.writer.parts) - wholes - apart:
            inner = [eq for eq in system.definitions[name] if not eq.end and eq.at]
            if len(inner) != 1 or self.keep.get(name) or len(system.axes[name]) != 1:
                continue
            home = self.home[inner[0]]
            loop = self.groups[home][0].loop
            if self.kinds[home] != "rows" or loop is None or system.axes[name] != (loop.index,):
                continue
            before = Position(loop.index, "i", -loop.sign)
            last = Position(loop.index, "T" if loop.sign > 0 else "1")
            ends = [eq for eq in system.definitions[name] if eq.end]
            reads = self.apart.get(name, [])
            if ends and (reads or name not in self.keep or len(ends) > 1):
                continue
            if len(system.delayed.get(name, ())) > 1:
                continue
            if all((n.params[1] == (last,) and self.later(n, home)) or (n.params[1] == (before,) and all(
                    self.home.get(c) == home for c in self.users(n))) for n in reads):
                self.writer.resting[name] = loop.index

    def later(self, n: Node, home: int) -> bool:
        """Whether all that reads a value comes in another chain after a group."""
        return all(self.home.get(c, -1) > home and self.chains.get(self.home[c]) is not self.chains[home]
                   for c in self.users(n))

    def place(self) -> None:
        """Where values lie that one stage makes and another reads: in the block at hand, if they are of one chain."""
        system = self.system
        for n in {m for m in self.home if isinstance(m, Node)}:
            home = self.home[n]
            if self.looked_at(n) or self.kinds[home] == "totals":
                continue
            others = [self.home.get(c, -1) for c in self.users(n) if self.home.get(c, -1) != home]
            if not others or (self.kinds[home] == "reference" and all(self.kinds[k] == "reference" for k in others)):
                continue
            chain = self.chains.get(home)
            near = chain is not None and chain.over is not None and all(self.chains.get(k) is chain for k in others)
            self.writer.outside[n] = Place("own" if near else "node", n, self.plan.axes(n, (BATCH,)),
                                           BATCH in system.free(n))

    # --- the program -------------------------------------------------------------------------------------------------

    def phases(self) -> list[tuple[str, Any]]:
        """("rows", chains), ("totals", nodes), ("results", equations) and ("reference", step), in order.

        Raises Overwritten where a value rests that must not.
        """
        found: list[tuple[str, Any]] = []
        for k, group in enumerate(self.groups):
            steps = [s for item in group for s in item.steps]
            if self.kinds[k] == "reference":
                found.append(("reference", steps[0]))
            elif self.kinds[k] == "rows":
                chain, loop = self.chains[k], group[0].loop
                stage = Rows(self.writer, steps, group[0].over, loop.sign if loop else None)
                lost = stage.overwritten()
                if lost:
                    raise Overwritten(lost)
                if stage.passes:
                    chain.stages.append(stage)
                if not found or found[-1][0] != "rows":
                    found.append(("rows", []))
                if chain not in found[-1][1]:
                    found[-1][1].append(chain)
            elif self.kinds[k] == "totals":
                found.append(("totals", [s for s in steps if summed(self.writer, s)]))
            else:
                found.append(("results", steps))
        return found


class Overwritten(Exception):
    """Names that cannot rest, because a later pass reads what an earlier one replaces."""


def steps_of(s) -> Iterable:
    """The operations and equations of a step of the schedule."""
    if isinstance(s, Loop):
        for x in s.body:
            yield from steps_of(x)
    else:
        yield s
