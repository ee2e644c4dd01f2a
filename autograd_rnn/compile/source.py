"""A system as NumPy source that a person would have written: what is time-parallel at once, the rest in loops.

    schedule -> statements for each operation -> the text of a function run(arrays, work, ...)

Generated variables are slots, v0, v1, ...; what the author called them stands in comments, and nowhere else.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from .. import primitives as P
from ..equations import BATCH, Equation, System
from ..graph import CONST, READ, Node, read
from ..order import Loop
from ..printing.text import ATOM
from ..printing.text import equation as written
from .algebra import levels
from .carries import resting
from .expressions import Text
from .inplace import InPlace
from .parts import parts

WIDEST = 110


class Source(InPlace):
    """The lines of one system's function, as they are written."""

    def __init__(self, system: System, keep: Iterable[str] | None = None, told: Mapping[str, str] | None = None,
                 alone: Iterable[str] = ()):
        """keep: the names whose arrays are wanted, all where None; of what a mapping says False of, only ends. alone:
        those that lie in no other's array; told: what to say of an equation, by its left side.
        """
        super().__init__(system, levels(system))
        self.told = told or {}
        self.keep = set(system.axes) if keep is None else set(keep)
        self.inside = {n for n in self.keep if not isinstance(keep, Mapping) or keep[n] is not False}
        self.lines: list[str] = []
        self.depth = 1
        self.count = 0
        self.readers: dict[str, list[Node]] = {}
        for n in self.level:
            if isinstance(n, Node) and n.op is READ:
                self.readers.setdefault(n.params[0], []).append(n)
        self.parts = parts(system, self.keep, set(alone), self.level)
        self.shared = {*self.parts, *(part.whole for part in self.parts.values())}  # arrays with more than one name
        self.stacks: dict[Node, tuple[str, str]] = {}  # what leaves a loop unnamed: its array, and its place there
        self.placed: set[Equation] = set()  # equations whose value was written where it goes
        self.path: tuple[Loop, ...] = ()
        for step in self.plan.order:
            self.step(step)

    @property
    def results(self) -> list[str]:
        """The names whose arrays the function returns, in its order."""
        return [name for name in self.stores if name in self.keep and name in self.system.defined]

    # --- lines ---------------------------------------------------------------------------------------------------

    def line(self, text: str, comment: str = "") -> None:
        indent = "    " * self.depth
        if comment and len(indent + text + comment) + 4 > WIDEST:
            self.lines += [f"{indent}# {told}" for told in comment.split("; ")]
            comment = ""
        self.lines.append(indent + text + (f"  # {comment}" if comment else ""))

    def slot(self) -> str:
        self.count += 1
        return f"v{self.count - 1}"

    def comment(self, eq: Equation) -> str:
        """The author's equation; of an array that others lie in, theirs."""
        within = [other for other in self.system.equations if self.within(other) and other.value.op is P.split
                  and self.parts[other.name].whole == eq.name]
        if within:
            return "; ".join(map(self.comment, within))
        return self.told.get(str(eq), f"kept: {written(eq).split(' = ', 1)[1]}")

    # --- steps ---------------------------------------------------------------------------------------------------

    def step(self, step) -> None:
        if isinstance(step, Loop):
            self.loop(step)
        elif isinstance(step, Equation):
            self.write(step)
        elif step.args:
            self.operation(step)
        elif step.op is READ and step.params[1] and step not in self.known and self.fixed and self.reads(step) > 1:
            self.known[step] = self.named(self.read(step)), self.fixed

    def reads(self, n: Node) -> int:
        """How many steps at a node's own level read it."""
        return sum(self.level[c] == self.level[n] for c in self.plan.consumers.get(n, ()))

    def named(self, text: Text) -> Text:
        """A value that is read more than once, by a name."""
        if text.text.isidentifier():
            return text
        name = self.slot()
        self.line(f"{name} = {text.text}")
        return Text(name)

    def loop(self, loop: Loop) -> None:
        """for k in range(1, T + 1): what leaves the loop is kept for every position."""
        k, e = self.place(loop.index), self.extent(loop.index)
        made = [n for n, path in self.level.items() if isinstance(n, Node) and loop in path]
        inner = {s for s, path in self.level.items() if loop in path}
        self.turn_weights([n for n in made if n.op is P.matmul], inner)
        outer, known, stacks = self.fixed, dict(self.known), dict(self.stacks)
        leaving = [n for n in made if n.args and any(c not in inner for c in self.plan.consumers.get(n, ()))]
        exported = [n for n in leaving if not self.homes(n)]
        for n in exported:  # where no pass has named them
            direct = self.level[n][-1] == loop and self.written_in_place(n, (*outer, loop.index))
            whole = self.work.array(self.spans(n)) if direct else self.slot()
            axis = self.plan.axes(n, outer).index(loop.index)
            self.stacks[n] = whole, f"{whole}[{':, ' * axis}{k} - 1]"
            if whole not in self.work.shapes:
                self.line(f"{whole} = [None] * {e}")
        carries = {eq.name: self.work.array(("batch", *map(self.size, self.system.shapes[eq.name])))
                   for eq in resting(self, loop)}
        for name, slot in carries.items():
            self.line(f"{slot}[...] = {self.store(name)}[{'0' if loop.sign > 0 else f'{e} + 1'}]")
        self.line(f"for {k} in range(1, {e} + 1):" if loop.sign > 0 else f"for {k} in range({e}, 0, -1):")
        self.depth, self.fixed, self.path = self.depth + 1, (*outer, loop.index), (*self.path, loop)
        self.resting.update(carries)
        for s in loop.body:
            self.step(s)
        for n in exported:
            if self.stacks[n][0] not in self.work.shapes:
                self.line(f"{self.stacks[n][0]}[{k} - 1] = np.array({self.value(n).text})")
        self.depth, self.fixed, self.path = self.depth - 1, outer, self.path[:-1]
        self.left_behind(inner, self.path)
        for name, slot in carries.items():
            del self.resting[name]
            self.line(f"{self.store(name)}[{e if loop.sign > 0 else '1'}] = {slot}")
            self.work.free.setdefault(self.work.shapes[slot], []).append(slot)
        self.known = known
        for n in leaving:
            whole = self.stacks[n][0] if n in exported else self.target(self.homes(n)[0])
            if n in exported and whole not in self.work.shapes:
                self.line(f"{whole} = np.stack({whole}, {self.plan.axes(n, outer).index(loop.index)})")
            self.known[n] = Text(whole), outer
        self.stacks = stacks

    def homes(self, n: Node) -> list[Equation]:
        """The equations that put a value, as it is, into an array of theirs."""
        return [c for c in self.plan.consumers.get(n, ()) if isinstance(c, Equation) and c.at
                and self.level[c] == self.level[n] and self.straight(c) and not self.passing(c)]

    def written_in_place(self, n: Node, fixed: tuple[str, ...]) -> bool:
        """Whether a value has a statement where these indices stand still."""
        before, self.fixed = self.fixed, fixed
        found = self.statement(n) is not None
        self.fixed = before
        return found

    def turn_weights(self, products: Iterable[Node], inner: set[Node | Equation]) -> None:
        """A weight that a loop multiplies rows with is turned once, before it: contiguous as it is read."""
        for a in dict.fromkeys(n.args[0] for n in products):
            if not (a in inner or a in self.turned or a.op is P.transpose or self.plan.axes(a, self.fixed)):
                self.turned[a] = self.slot()
                self.line(f"{self.turned[a]} = {self.value(a).at_least(ATOM)}.T.copy()")

    # --- operations ----------------------------------------------------------------------------------------------

    def operation(self, n: Node) -> None:
        """A value in place, where a statement writes it; else an expression."""
        template = self.statement(n)
        readers = self.plan.consumers.get(n, [])
        if any(isinstance(c, Equation) and self.within(c) for c in readers):
            self.silent.add(n)
            self.hold(n)
            self.known[n] = Text(self.target(readers[0])), self.fixed
        elif n.op is P.neg and template and self.subtracted(n, readers):
            self.silent.add(n)
            self.hold(n)
        elif template:
            self.in_place(n, template)
            self.done(n)
        else:
            self.plainly(n)

    def subtracted(self, n: Node, readers: list[Node | Equation]) -> bool:
        """Whether -x is a term of one sum, which subtracts x."""
        return len(readers) == 1 and self.level[readers[0]] == self.level[n] and isinstance(readers[0], Node) and (
            readers[0].op is P.add and self.statement(readers[0]) is not None)

    def in_place(self, n: Node, template: str) -> None:
        """Statements that write a value where it is kept: in a variable's array, or for the work at hand."""
        eq = next(iter(self.homes(n)), None)
        solid, uses = True, template.count("{out}") + self.reads(n)
        if eq:
            own = [p for p in eq.at if p.base == "i" and p.index not in self.fixed]
            solid = eq.name not in self.parts and own in ([], [eq.at[-1]])
            out, uses = self.target(eq), uses - 1 + self.reads(read(eq.name, eq.at))
            self.placed.add(eq)
        elif n in self.stacks:
            out, solid = self.stacks[n][1], False
        else:
            out = self.room(n)
            self.work.hold(n, frozenset([out]))
        if uses + 2 * max(0, len(n.args) - 2) * (n.op is P.add) > 1:
            out = self.named(Text(out)).text
        self.known[n] = Text(out), self.fixed
        told = [c for c in self.plan.consumers.get(n, ()) if isinstance(c, Equation) and self.level[c] == self.level[n]]
        comment = self.comment(eq or told[0]) if told and told[0].at else ""
        for line in self.statements(n, template, out, solid):
            self.line(line, comment)
            comment = ""

    def plainly(self, n: Node) -> None:
        """A value that one thing at its own level reads stands where it is read; any other has a name."""
        text = self.expression(n)
        self.hold(n)
        if n.op is P.transpose and not self.plan.axes(n, self.fixed):  # a view
            self.silent.add(n)
            self.known[n] = text, self.fixed
            return
        if all(a.op is CONST for a in n.args) and n.op.pointwise:
            text = Text(f"np.asarray({text.text}, dtype)")
        readers = self.plan.consumers.get(n, [])
        alone = len(readers) == 1 and self.level[readers[0]] == self.level[n] and len(text.text) < WIDEST - 30
        if alone or text.text.isidentifier():
            self.silent.add(n)
        else:
            text = self.named(text)
            self.done(n)
        self.known[n] = text, self.fixed

    # --- equations -----------------------------------------------------------------------------------------------

    def straight(self, eq: Equation) -> bool:
        """Whether a value has just the axes and dimensions of the place it goes to."""
        value = eq.value
        own = self.plan.axes(value, self.fixed) if value.op is not CONST else ()
        return (self.axes_of(eq) == own and self.system.rank(value) == len(self.system.shapes[eq.name])
                and not self.counts(value))

    def axes_of(self, eq: Equation) -> tuple[str, ...]:
        """The axes of the place that an equation writes to."""
        return (*(i for i in eq.free if i not in self.fixed), *((BATCH,) if eq.name in self.system.per_example else ()))

    def target(self, eq: Equation) -> str:
        """Where an equation writes: name[at]."""
        if eq.name in self.resting:
            return self.resting[eq.name]
        at = ["1:-1" if p.base == "i" and p.index not in self.fixed else self.position(p) for p in eq.at]
        return f"{self.store(eq.name)}[{', '.join(at)}]"

    def write(self, eq: Equation) -> None:
        """name[at] = value, where it has not been written in place."""
        here = read(eq.name, eq.at)
        again = eq.at and self.straight(eq) and bool(self.plan.consumers.get(here))
        if not eq.at:
            self.whole(eq)
        elif eq in self.placed:
            text = self.known[eq.value][0]
        elif self.within(eq):  # it lies there already
            text = Text(self.target(eq))
            if again and self.fixed and self.reads(here) > 1:
                text = self.named(text)
        else:
            text = self.aligned(eq)
            places = [] if again and self.passing(eq) else [self.target(eq)]
            if again and not text.text.isidentifier():
                places.insert(0, self.slot())
            if places:
                self.line(" = ".join([*places, text.text]), self.comment(eq))
            if again:
                text = Text(text.text if text.text.isidentifier() else places[0])
                self.work.hold(here, self.work.of.get(eq.value, frozenset()))
        if again:
            self.known[here] = text, self.fixed
        self.done(eq)

    def passing(self, eq: Equation) -> bool:
        """Whether a value is read where it is made and nowhere else, so that no array need keep it."""
        level, here = self.level[eq], read(eq.name, eq.at)
        return (eq.name not in self.inside and eq.name not in self.shared and not eq.end
                and self.readers.get(eq.name) == [here]
                and all(self.level[s] == level for s in (here, *self.plan.consumers[here])))

    def within(self, eq: Equation) -> bool:
        """Whether a value lies in its place already: as a part of an array, or as the array of its parts."""
        value = eq.value
        if value.op is P.concat:
            return all(a.op is READ and self.parts.get(a.params[0], ("",))[0] == eq.name for a in value.args)
        return value.op is P.split and eq.name in self.parts and value.args[0].op is READ and (
            self.parts[eq.name][0] == value.args[0].params[0])

    def whole(self, eq: Equation) -> None:
        """A variable without indices: an array of its own in every run."""
        value, name = eq.value, eq.name
        text = self.value(value) if self.straight(eq) and self.fresh(value) else None
        if text is None:
            shape = [*(["batch"] if name in self.system.per_example else []), *map(self.size, self.system.shapes[name])]
            shown = "(" + "".join(f"{size}, " for size in shape).rstrip() + ")"
            text = Text(f"np.broadcast_to({self.aligned(eq).text}, {shown}).astype(dtype)")
        self.line(f"{self.store(name)} = {text.text}", self.comment(eq))

    def aligned(self, eq: Equation) -> Text:
        """A value with the axes of the place it goes to."""
        value = eq.value
        own = self.plan.axes(value, self.fixed) if value.op is not CONST else ()
        wanted = self.axes_of(eq)
        comps, rank = len(self.system.shapes[eq.name]), self.system.rank(value)
        text = self.value(value)
        turn = [own.index(i) for i in wanted if i in own]
        subscript = [":" if i in own else "None" for i in wanted] + [":"] * rank + ["None"] * (comps - rank)
        if turn != sorted(turn):
            order = [*turn, *range(len(turn), len(turn) + rank)]
            text = Text(f"{text.at_least(ATOM)}.transpose({', '.join(map(str, order))})")
        while subscript and subscript[0] == "None":
            subscript.pop(0)
        if "None" in subscript and value.op is not CONST:
            text = Text(f"{text.at_least(ATOM)}[{', '.join(subscript)}]")
        return text
