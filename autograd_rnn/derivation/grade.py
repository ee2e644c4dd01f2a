"""Grading: a student's backward equations, each judged with the true values of the names on its right.

    her text -> expressions over the derivation's names -> values at random points -> right, or
    her terms against the true ones -> the small edit that mends a term, or the smallest parts that differ

Two expressions are equal when their values are: any algebraically equal form is right. Nothing of a text is run.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, replace
from difflib import get_close_matches
from html import escape
from typing import TYPE_CHECKING

import numpy as np

from .. import primitives as P
from ..elaborate import Elaboration, delays
from ..equations import Equation, System
from ..errors import CellError
from ..graph import CONST, READ, Node, Position, const, read, topological
from ..naming import replaced
from ..order import waiting
from ..parse import Line, Parsed, parse, parsed, source_lines
from ..printing.text import expression, system_text
from ..reader import Reader
from .differ import differences
from .domain import FARTHEST, OutsideError, horizon, long_enough
from .points import LENGTH
from .rewrites import gate_values, shifted, single, sums_batch
from .values import MINE, Values, lined

if TYPE_CHECKING:
    from . import Derivation

LONGEST, DEEPEST = 5000, 100  # operations in a line, and of them inside each other, with functions expanded
MOST_LINES = 500
LONGER = 8  # steps of the sequences that a line is judged at a second time


@dataclass(frozen=True)
class Judged:
    """A line of the homework, its verdict and what it lacks.

    "right"; "own name", a name of her own; "transpose", "time index", "shape" or "wrong"; "circular" where the line
    waits for itself, "both ways" where it steps back and forward in time; "not judged" where the truth is zero by
    cancellation, as the line is, or where no point tells; "unreadable".
    """

    text: str
    number: int
    verdict: str
    notes: tuple[str, ...] = ()

    @property
    def ok(self) -> bool:
        return self.verdict in ("right", "own name")


@dataclass(frozen=True)
class Grade:
    """A homework judged. missing: adjoints that its lines or the parameters need; left_out: what nobody has to give."""

    lines: tuple[Judged, ...]
    missing: tuple[str, ...]
    left_out: tuple[str, ...]

    @property
    def ok(self) -> bool:
        return not self.missing and all(line.ok for line in self.lines)

    def _ends(self) -> list[tuple[str, str]]:
        rows = [("missing", ", ".join(self.missing)), ("not given", ", ".join(self.left_out))]
        right = sum(line.ok for line in self.lines)
        return [row for row in rows if row[1]] + [("in all", f"{right} of {len(self.lines)} lines right"
                                                  + f", {len(self.missing)} missing" * bool(self.missing))]

    def __str__(self):
        out = []
        for line in self.lines:
            out.append(f"{line.number:4}  {line.verdict:<11} {line.text}")
            out += [f"{'':18}{note}" for note in line.notes]
        return "\n".join(out + [f"{'':6}{what:<11} {names}" for what, names in self._ends()])

    __repr__ = __str__

    def _repr_html_(self) -> str:
        cell = lambda body, style="": f'<td style="text-align:left;vertical-align:top{style}">{body}</td>'
        rows = []
        for line in self.lines:
            notes = "".join(f"<br>{escape(note)}" for note in line.notes)
            colour = ";color:#2a7a2a" if line.ok else ";color:#b02020"
            said = f'<code>{escape(line.text)}</code><span style="font-family:monospace;white-space:pre">{notes}</span>'
            rows.append(cell(line.number) + cell(line.verdict, colour) + cell(said))
        rows += [cell("") + cell(what) + cell(escape(names)) for what, names in self._ends()]
        return "<table>" + "".join(f"<tr>{row}</tr>" for row in rows) + "</table>"


def grade(d: Derivation, text: str) -> Grade:
    """The lines of `text` judged against the derivation; one that cannot be read says why, and the rest are judged."""
    lines = {line.number: line for line in source_lines(text) if _stated(line)}
    if not lines:
        raise CellError("The homework defines nothing.", remedy="Write at least one line, like `db = sum_t(da[t])`.")
    if len(lines) > MOST_LINES:
        raise CellError(f"The homework has more than {MOST_LINES} lines.", remedy="Give fewer.")
    refused: dict[int, CellError] = {}
    for line in lines.values():
        try:
            _known_names(parsed([line]), d.derived.system)
        except CellError as error:
            refused[line.number] = error
    while True:  # a line that is refused may have said what another is about
        home, new = _homework(d, {number: line for number, line in lines.items() if number not in refused})
        refused |= new
        if home is not None and not new:
            break
    found = {line.number: line for line in home.graded()}
    for number, e in refused.items():
        found[number] = Judged(_stated(lines[number]), number, "unreadable", tuple(str(e).split("\n")))
    return Grade(tuple(found[number] for number in lines if number in found), *home.absent())


def _homework(d: Derivation, lines: dict[int, Line]) -> tuple[_Homework | None, dict[int, CellError]]:
    """The homework that these lines are, and the lines that it refuses."""
    try:
        home = _Homework(d, parsed(lines.values()))
    except CellError as e:
        if e.number not in lines:
            raise
        return None, {e.number: e}
    return home, home.refused


class _Homework:
    """Her equations as expressions over the derivation's names and her own."""

    def __init__(self, d: Derivation, hers: Parsed):
        self.d, system = d, d.derived.system
        self.system, self.names = system, frozenset(system.axes)
        truth = parse(system_text(system))  # first: it says which index each name runs over
        leaves = {n.op.name: n.op for n in system.nodes if n.args and P.PRIMITIVES.get(n.op.name) is not n.op}
        self.home = Elaboration(Parsed((*truth.definitions, *hers.definitions), truth.declarations, hers.functions), {},
                                leaves)
        self.refused: dict[int, CellError] = {}
        sources = {f.line.source: f.line.number for f in hers.functions.values()}
        for q in hers.definitions:
            try:
                self.home.define(self._read(q))
            except CellError as e:
                self.refused[sources.get(e.line, q.line.number)] = e
        self.equations: list[Equation] = self.home.equations
        self.own = [eq for eq in self.equations if eq.name not in self.names]
        self.copies = frozenset(d.derived.names[name] for name in d.derived.forward.copies
                                if name in d.derived.names)
        self.true = {(eq.name, eq.at): value for eq, value in _written_out(d, self.copies)}
        self.points: dict[tuple[int, int, bool], Values] = {}

    def _read(self, q) -> Equation:
        """One line of hers; the names on its right are the derivation's, or defined in another line."""
        name, at = self.home.target(q, q.targets[0])
        if len(q.targets) > 1:
            raise q.line.error("A line defines one name.", q.targets[1], "Write one line for each name.")
        if name in self.system.given:
            raise q.line.error(f"`{name}` is given and needs no equation.", q.targets[0], "Remove the line.")
        value = Reader(self.home, q.line, {p.index for p in at if p.base == "i"}).node(q.expression)
        size: dict[Node, int] = {}
        depth: dict[Node, int] = {}
        for n in topological([value]):
            size[n], depth[n] = 1 + sum(size[a] for a in n.args), 1 + max((depth[a] for a in n.args), default=0)
            if size[n] > LONGEST or depth[n] > DEEPEST:
                raise q.line.error(f"The line has more than {LONGEST} operations, or more than {DEEPEST} inside each "
                                   "other.", q.expression, "Name a part of it in a line of its own.")
            if n.op is READ and n.params[0] not in self.names | self.home.targets:
                near = get_close_matches(n.params[0], self.names, 1)
                names = (m for m in ast.walk(q.expression) if isinstance(m, ast.Name) and m.id == n.params[0])
                raise q.line.error(f"`{n.params[0]}` is no name of the cell or of its derivation.", next(names, None),
                                   f"Did you mean `{near[0]}`?" if near else "Define it in a line of its own.")
        return Equation(name, at, value, q.line)

    def graded(self) -> Iterator[Judged]:
        """Every line judged by itself; of those that are right, the ones that wait for each other define nothing."""
        judged = [(eq, self.told(eq)) for eq in self.equations]
        axes = dict(self.home.axes)
        right = System(delays((eq for eq, line in judged if line.ok), axes), axes, self.system.model,
                       self.system.declarations)
        stuck = {(eq.name, eq.at): ("circular", f"it waits for itself: {way}") if still else
                 ("both ways", f"no order of steps runs through it, back and forward: {way}")
                 for equations, still, way in waiting(right) for eq in equations}
        for eq, line in judged:
            verdict, note = stuck.get((eq.name, eq.at), ("", "")) if line.ok else ("", "")
            yield replace(line, verdict=verdict, notes=(note,)) if verdict else line

    def told(self, eq: Equation) -> Judged:
        """A line judged, where there are points to judge it at."""
        assert eq.line is not None
        try:
            return self.judged(eq, _stated(eq.line), eq.line.number)
        except OutsideError as e:
            return Judged(_stated(eq.line), eq.line.number, "not judged", (e.fact,))

    def judged(self, eq: Equation, text: str, number: int) -> Judged:
        values = self.values(eq)
        told = values.value(eq.value)
        if eq.name not in self.names:
            if isinstance(told, CellError):
                return Judged(text, number, "wrong", (_fact(values, told),))
            return Judged(text, number, "own name")
        if values.right(eq.value, values.true(eq)):
            needed = self.horizon(eq, values)
            values = self.values(eq, long_enough(self.d.derived.forward, needed and max(needed, LONGER)))
            told = values.value(eq.value)
            if values.right(eq.value, values.true(eq)):  # once more, at other sizes and another length
                if needed is None:
                    fact = f"there are cases of t that do not come up within {FARTHEST} steps"
                    return Judged(text, number, "not judged", (fact,))
                return Judged(text, number, *self.right(eq, values))
        true, ours = values.true(eq), self.ours(eq, values)
        telling = self.values(eq, free=True) if self.vanishes(eq, values) else values
        notes = list(differences(telling, eq.value, ours, self.origin(eq)))
        kinds, said = {kind for kind, _ in notes}, [note for _, note in notes]
        if isinstance(told, CellError):
            said, kinds = said or [_fact(values, told)], kinds or {"shape"}
        elif values.shape(told) not in ((), values.shape(true)):
            said += [f"its shape is {_named(values, told)}; {eq} has the shape {_named(values, true)}"]
            kinds = kinds - {"wrong"} or {"shape"}
        else:
            said.append(_example(values, eq, told, true))
        return Judged(text, number, kinds.pop() if len(kinds) == 1 else "wrong", tuple(said))

    def ours(self, eq: Equation, values: Values) -> Node:
        """The true right side of a line."""
        ours = self.true.get((eq.name, eq.at), const(0))
        return ours if values.given.batch > 1 else single(ours)

    def vanishes(self, eq: Equation, values: Values) -> bool:
        """Whether the truth is zero by cancellation, so that anything small would pass for it."""
        return self.ours(eq, values).op is not CONST and values.lost(values.true(eq))

    def right(self, eq: Equation, values: Values) -> tuple[str, tuple[str, ...]]:
        """The verdict on a line that is as the truth is; where that cancels, it must be so whatever the cotangents."""
        free = self.values(eq, free=True) if self.vanishes(eq, values) else None
        if free is None or free.same(free.value(eq.value), free.value(self.ours(eq, values))):
            return "right", ()
        return "not judged", (f"{eq} is zero in truth, by cancellation, and so is this line: nothing more can be said",)

    def horizon(self, eq: Equation, values: Values) -> int | None:
        """The length of sequences that tells this line from others, her own names written out in it."""
        told = eq.value
        for own in values.needed(told):
            told = replaced(told, {read(own.name, own.at): own.value})
        away = [abs(p.offset) for n in topological([told]) if n.op is READ for p in n.params[1]]
        needed = horizon([told, self.ours(eq, values)])
        return needed and max(needed, 3 + max(away, default=0))

    def values(self, eq: Equation, length: int = LENGTH, free: bool = False) -> Values:
        """Points to judge a line at: of one example, or where something sums over the batch of three, for what is
        centred over two of them cancels."""
        reads = {n.params[0] for n in topological([eq.value]) if n.op is READ}
        batched = [e.value for e in (eq, *self.d.derived.forward.equations, *(e for e in self.own if e.name in reads))]
        key = 1 + 2 * sums_batch(batched), length, free
        if key not in self.points:
            self.points[key] = Values(self.d, self.home.axes, self.own, *key)
        return self.points[key]

    def origin(self, eq: Equation) -> Callable[[Node], str]:
        """What a true term stands for: the variable that the gradient comes through."""
        of = {adjoint: name for name, adjoint in self.d.derived.names.items()}
        seeds = set(self.d.derived.seeds.values())

        def told(term: Node) -> str:
            for name, at in (n.params for n in topological([term]) if n.op is READ):
                if name in seeds:
                    return ", what comes from outside"
                if name in of and eq.name in of:
                    owing, through = (expression(read(of[n], p)) for n, p in ((eq.name, eq.at), (name, at)))
                    return f", what {owing} owes through {through}"
            return ""

        return told

    def absent(self) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """(missing, left out): what the parameters' gradients need, by her lines or, where there is none, by the true
        ones, except intermediates that no line of hers reads; the gradients of inputs and initial states."""
        derived, forward = self.d.derived, self.d.derived.forward
        main = lambda name: (name, tuple(map(Position, self.home.axes[name])))
        named = lambda *roles: {main(derived.names[n]) for n in forward.having(*roles) if n in derived.names}
        old = set(forward.equations)
        true = {(eq.name, eq.at): eq for eq in (*self.d.recursion, *derived.system.equations) if eq not in old}
        hers = {(eq.name, eq.at): eq.value for eq in self.equations}

        def reads(value: Node) -> set[tuple[str, tuple[Position, ...]]]:
            """What has equations of its own at an end is read there."""
            found = {n.params for n in topological([value]) if n.op is READ}
            return {(name, at) if (name, at) in true or (name, at) in hers else main(name) for name, at in found}

        needed: set[tuple[str, tuple[Position, ...]]] = set()
        stack = list(named("parameter"))
        while stack:
            key = stack.pop()
            if key not in needed and (key in hers or key in true):
                needed.add(key)
                stack += reads(hers[key] if key in hers else true[key].value)
        asked = (named("parameter", "state") | {key for value in hers.values() for key in reads(value)}) & needed
        asked -= set(hers) | {key for key in asked if key[0] in self.copies}
        asked -= set() if derived.seeds else {main(derived.names[n]) for n in self.d.outputs}
        return tuple(str(eq) for key, eq in true.items() if key in asked), tuple(
            str(eq) for eq in self.d.recursion if (eq.name, eq.at) not in {*hers, *asked} and eq.name not in self.copies
            and (eq.end or (eq.name, eq.at) in named("input")))


def _stated(line: Line) -> str:
    """A line without its comment."""
    return line.source.split("#", 1)[0].strip()


def _known_names(hers: Parsed, system: System) -> None:
    """Equations and functions only, over the cell's indices, its names with the indices that they have."""
    for declaration in hers.declarations.values():
        raise declaration.line.error("A homework has equations only.", None, "Remove the declaration.")
    known = {*system.indices, *(i.upper() for i in system.indices)}
    for line, e in [(q.line, e) for q in (*hers.definitions, *hers.functions.values())
                    for e in (*getattr(q, "targets", ()), q.expression)]:
        for n in ast.walk(e):
            if not isinstance(n, ast.Subscript):
                continue
            for m in ast.walk(n.slice):
                if isinstance(m, ast.Name) and m.id not in known:
                    raise line.error(f"`{m.id}` is no index of this cell.", m, f"Indices: {', '.join(system.indices)}.")
            axes = system.axes.get(n.value.id) if isinstance(n.value, ast.Name) else None
            if axes is not None and len(axes) != (len(n.slice.elts) if isinstance(n.slice, ast.Tuple) else 1):
                shown = f"{n.value.id}[{','.join(axes)}]" if axes else n.value.id
                raise line.error(f"`{n.value.id}` has other indices.", n, f"Write `{shown}`.")


def _written_out(d: Derivation, copies: Collection[str]) -> Iterator[tuple[Equation, Node]]:
    """Every true equation in gate values, and what arrives from other steps in the variables that sent it."""
    values = {eq: gate_values(eq.value, d.held) for eq in d.derived.system.equations}
    sent = {eq.name: replace(eq, value=value) for eq, value in values.items()
            if eq.name in {*d.derived.carries, *copies} and not eq.end}
    for eq, value in values.items():
        for _ in range(1 + 2 * len(copies)):  # what arrives through a copy arrives from further away
            value = shifted(value, sent, ())
        yield eq, value


# --- said --------------------------------------------------------------------------------------------------------


def _example(values: Values, eq: Equation, told: np.ndarray, true: np.ndarray) -> str:
    """The entry that differs most at the first point."""
    told, true = (v[0] for v in np.broadcast_arrays(*lined(told, true)))
    place = np.unravel_index(np.argmax(np.where(np.isfinite(told), np.abs(told - true), np.inf)), true.shape)
    steps = dict(zip(values.system.indices, place))
    at = ", ".join(str(p) if p.base != "i" else f"{p.index}={steps[p.index] + 1}" for p in eq.at)
    entry = ",".join(str(k + 1) for k in place[1 + len(steps):])
    return (f"for instance {eq.name}{f'[{at}]' if at else ''}{f', component {entry},' if entry else ''} is "
            f"{told[place] + 0:.4g} by this line and {true[place] + 0:.4g} in truth")


def _named(values: Values, value: np.ndarray) -> str:
    return "(" + ", ".join(map(values.dimension, values.shape(value))) + ")"


def _fact(values: Values, e: CellError) -> str:
    """What contradicts itself, sizes by their names."""
    fact = e.fact.replace(f" in the definition of `{MINE}`", "")
    return re.sub(r"\b\d+\b", lambda m: values.dimension(int(m[0])), fact)
