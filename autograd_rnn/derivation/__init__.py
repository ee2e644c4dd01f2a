"""The derivation of a cell's backpropagation through time: the record of the differentiation, printed and proved.

    adjoint.py's record -> rewrites.py -> jacobian.py -> document.py -> render.py;   proof.py checks it

Nothing here differentiates: what is printed is what the reverse sweep recorded while it built the numeric adjoint.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import cached_property

from ..adjoint import Derived
from ..equations import Equation, System
from ..errors import CellError
from ..gradient import Step
from ..graph import READ, Node, topological
from ..naming import holders
from ..printing.names import ADJOINTS
from ..printing.symbolic import sympy_equations
from . import document, render
from .document import Chain
from .domain import horizon
from .jacobian import Recurrence, recurrences
from .proof import Proof, prove
from .rewrites import single, sums_batch, textbook


class Derivation:
    """Every step from the equations to their adjoint, rolled in time: its size is that of the cell, whatever T.

    steps: the record, (rule, site, before, after) each. See `Cell.derivation`.
    """

    def __init__(self, derived: Derived, outputs: Iterable[str], name: str | None = None):
        self.derived, self.outputs, self.name = derived, tuple(outputs), name
        given = set(derived.forward.equations)
        new = [eq for eq in derived.system.equations if eq not in given]
        self.held = holders(derived.forward)
        final, self.gated, self.rewrites = textbook(new, derived.carries, self.held)
        inputs = {derived.names[n] for n in derived.forward.having("input") if n in derived.names}
        self.final = tuple(sorted(final, key=lambda eq: (eq.end, eq.name in inputs)))  # inputs after parameters

    @cached_property
    def _recurrences(self) -> tuple[list[Recurrence], list[Step]]:
        return recurrences(self.derived)

    @property
    def recurrences(self) -> list[Recurrence]:
        """The loops that the gradient runs back through, with the Jacobians of their steps."""
        return self._recurrences[0]

    @cached_property
    def steps(self) -> tuple[Step, ...]:
        return (*self.derived.steps, *self.rewrites, *self._recurrences[1])

    @property
    def rules(self) -> list[Step]:
        """The uses of primitives' rules, in the order of the sweep."""
        return [s for s in self.derived.steps if s.rule not in ("name", "uses")]

    @property
    def title(self) -> str:
        return f"Backpropagation through time: {self.name}" if self.name else "Backpropagation through time"

    @property
    def printed(self) -> System:
        """The system whose names the formulas are written in."""
        return self.derived.system

    @cached_property
    def horizon(self) -> int | None:
        """The length of sequences that tell all cases of t and T apart; None where there is none within reach."""
        equations = (*self.derived.system.equations, *self.recursion)
        return horizon((*(eq.value for eq in equations), *(s.after for s in self.steps)))

    @cached_property
    def joined(self) -> bool:
        """Whether the forward equations take examples of a batch together."""
        return sums_batch(eq.value for eq in self.derived.forward.equations)

    def printed_form(self, n: Node) -> Node:
        """An expression as it is printed: of one example, unless examples are taken together."""
        return n if self.joined else single(n)

    @cached_property
    def recursion(self) -> tuple[Equation, ...]:
        """The final equations in gate values and in the textbook's shifted form: of one example, unless `joined`."""
        return tuple(Equation(eq.name, eq.at, self.printed_form(eq.value)) for eq in self.final)

    @cached_property
    def final_system(self) -> System:
        """The forward equations and the final recursion."""
        forward, system = self.derived.forward, self.derived.system
        return System([*forward.equations, *self.recursion], system.axes, forward.model, system.declarations)

    @cached_property
    def memory(self) -> tuple[Node, ...]:
        """The forward values that the backward equations read, in gate values."""
        new = {eq.name for eq in self.final} | set(self.derived.carries) | set(self.derived.seeds.values())
        reads = {n for n in topological(eq.value for eq in self.gated) if n.op is READ and n.params[0] not in new}
        order = {n: k for k, n in enumerate(self.derived.forward.names)}
        return tuple(sorted(reads, key=lambda n: (order[n.params[0]], n.params[1])))

    @cached_property
    def _uses(self) -> dict[Node, Step]:
        """The sum of its uses, by the variable and where it stands."""
        return {s.site: s for s in self.derived.steps if s.rule == "uses"}

    @cached_property
    def _sites(self) -> dict[str, list[Node]]:
        found: dict[str, list[Node]] = {}
        for site in self._uses:
            found.setdefault(site.params[0], []).append(site)
        return found

    @cached_property
    def _rewritten(self) -> dict[Node, list[Step]]:
        found: dict[Node, list[Step]] = {}
        for s in self.rewrites:
            found.setdefault(s.site, []).append(s)
        return found

    def sites(self, name: str) -> list[Node]:
        """Where a new variable has equations: at its own step, and at its ends."""
        return self._sites.get(name, [])

    def lines(self, site: Node) -> Iterator[tuple[Node, str]]:
        """The chain of one adjoint equation: its uses, what the rules make of them, in gate values, shifted."""
        uses = self._uses[site]
        lines = [(uses.before, "the sum of its uses")]
        lines += [(uses.after, "each use worked out")] if uses.after is not uses.before else []
        lines += [(s.after, document.REASONS[s.rule]) for s in self._rewritten.get(site, ())]
        for line, reason in lines:
            yield self.printed_form(line), reason if len(lines) > 1 else ""

    # --- printed -------------------------------------------------------------------------------------------------

    def sections(self, level: str = "normal") -> list[document.Section]:
        if level not in document.LEVELS:
            levels = ", ".join(document.LEVELS)
            raise CellError(f"`{level}` is no level of a derivation.", remedy=f"Levels: {levels}.")
        return document.sections(self, level)

    def text(self, *names: str, level: str = "normal", notation: str = "d", width: int = 96) -> str:
        """The derivation as Unicode text that fits a terminal; with names, of these adjoints alone."""
        found = [document.Section("", self.chains(*names))] if names else self.sections(level)
        return render.text(self, found, _known(notation), width)

    def latex(self, *names: str, level: str = "normal", notation: str = "d", document: bool = True) -> str:
        """A LaTeX document, its body where not `document`; with names, an align* of these adjoints alone."""
        w = render.Writer(self, _known(notation))
        if names:
            return render.aligned(w, self.chains(*names))
        return render.document(self, self.sections(level), notation, document)

    def chains(self, *names: str) -> tuple[Chain, ...]:
        """The chains of these adjoints, at their own step and at their ends."""
        return tuple(Chain(site, tuple(self.lines(site))) for name in names for site in self._found(name))

    def html(self, level: str = "normal", notation: str = "d") -> str:
        """One HTML page with MathML: no scripts, no network. Needs the extra `html`."""
        return render.html(self, self.sections(level), _known(notation), page=True)

    def _repr_html_(self) -> str:
        return render.html(self, self.sections("normal"), "d", page=False)

    def __str__(self):
        return self.text()

    def sympy(self, form: str = "matrix") -> dict:
        """The final recursion as SymPy equations, by name: what is printed, shifted, in gate values."""
        new = {str(eq) if eq.end else eq.name for eq in self.recursion}
        return {name: eq for name, eq in sympy_equations(self.final_system, form).items() if name in new}

    def check(self, points: int = 20, seed: int = 0) -> Proof:
        """Every step evaluated before and after at random points, and the final recursion, from its SymPy objects,
        against the complex step. `proof.ok`: all agree to 1e-12; `proof.wrong` names what does not."""
        return prove(self, points, seed)

    def _found(self, name: str) -> list[Node]:
        sites = self.sites(name)
        if not sites:
            raise CellError(f"The derivation has no `{name}`.",
                            remedy="It has: " + ", ".join(dict.fromkeys(eq.name for eq in self.final)) + ".")
        return sites


def _known(notation: str) -> str:
    if notation not in ADJOINTS:
        raise CellError(f"`{notation}` is no notation of adjoints.", remedy="Notations: " + ", ".join(ADJOINTS) + ".")
    return notation
