"""The derivation as a document: sections of formulas and sentences, in no language yet.

    record + rewrites + Jacobian -> sections -> render.py (LaTeX, Unicode text, HTML)

Every line of a chain is one recorded step, so that what is printed is what was proved.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..graph import Node, Position, node, read, topological
from ..naming import replaced
from .jacobian import PARTIAL, Recurrence
from .rewrites import sums_batch

if TYPE_CHECKING:
    from . import Derivation

LEVELS = ("summary", "normal", "every")
REASONS = {"gate values": "in gate values", "common factor": "common factor", "shift": "what arrives, written out"}
# What a rule says, where its name alone does not.
LAWS = {
    "add": "a sum hands its cotangent to each term", "neg": "a sign stays", "mul": "product rule",
    "div": "quotient rule", "matmul": "matrix product", "outer": "outer product", "transpose": "transpose",
    "where": "only the branch that was taken", "sum": "a sum spreads its cotangent", "concat": "each part has its own",
    "like": "a number that was spread is summed",
}


@dataclass(frozen=True)
class Formula:
    """What is no expression of the notation: LaTeX, with <0>, <1>, ... for the nodes in it.

    Its symbols are bold, as no variable of a cell is: s, J, Delta and g of the closed form.
    """

    latex: str
    nodes: tuple[Node, ...] = ()


@dataclass(frozen=True)
class Chain:
    """left = right = right ..., each with its reason."""

    left: Node | Formula
    rights: tuple[tuple[Node | Formula, str], ...]


@dataclass(frozen=True)
class Prose:
    """A sentence; nodes in it are set as formulas."""

    parts: tuple[str | Node | Formula, ...]


@dataclass(frozen=True)
class Section:
    title: str
    items: tuple[Chain | Prose, ...]


def sections(d: Derivation, level: str) -> list[Section]:
    """The document at a level: the summary, the normal text, or that with every use of a rule."""
    if level == "summary":
        return [convention(d, carries=False), result(d)]
    found = [convention(d, carries=True), forward(d), cotangents(d, level == "every"), carries(d), gradients(d)]
    found += [part for r in d.recurrences for part in (jacobian(r), closed(r))]
    return [s for s in [*found, memory(d), result(d)] if s.items]


def convention(d: Derivation, carries: bool) -> Section:
    seeds = d.derived.seeds
    name = d.outputs[0]
    items = [Prose(("Vectors are columns, and the gradient of a variable has the variable's shape. ",
                    read(d.derived.names[name], _main(d, name)), " is all that the result owes to ",
                    read(name, _main(d, name)), ", here and at every step that follows from it."))]
    for name, seed in seeds.items():
        items.append(Prose((read(seed, _main(d, name)), " is the part of ", read(d.derived.names[name], _main(d, name)),
                            " that comes from outside: from a loss at that step.")))
    for carry, n in list(d.derived.carries.items())[:1]:
        at = tuple(p._replace(offset=-p.offset) for p in n.params[1] if p.base == "i")
        sent = (read(carry, at), " is the part that another step sends back. ") if carries else ()
        items.append(Prose((*sent, "Outside the sequence every gradient is zero.")))
    if d.joined:
        items.append(Prose(("The equations take the examples of a batch together: every sum over the batch is "
                            "written, those of the parameters' gradients too.",)))
    elif sums_batch(eq.value for eq in d.final):
        items.append(Prose(("The equations are those of one example; gradients of parameters are summed over the "
                            "batch.",)))
    return Section("Convention", tuple(items))


def forward(d: Derivation) -> Section:
    """The equations, pre-activations named."""
    return Section("Forward", tuple(
        Chain(read(eq.name, eq.at), ((eq.value, ""),)) for eq in d.derived.forward.equations))


def cotangents(d: Derivation, every: bool) -> Section:
    """Every computed quantity in reverse order: its uses, each worked out, in gate values, in the textbook's form."""
    items: list[Chain | Prose] = []
    told: set[Node] = set()
    given = set(d.derived.forward.having("parameter", "input"))
    for name, adjoint in ((eq.name, d.derived.names[eq.name]) for eq in reversed(d.derived.forward.equations)
                          if eq.name in d.derived.names and eq.name not in given):
        for site in d.sites(adjoint):
            if site in told:
                continue
            told.add(site)
            items.append(Chain(site, tuple(d.lines(site))))
            if every:
                items += list(_rules(d, name, site, told))
    return Section("Backward, quantity by quantity", tuple(items))


def _rules(d: Derivation, name: str, site: Node, told: set[Node]) -> Iterator[Chain | Prose]:
    """Each use of a rule on the way back through the equation of a quantity."""
    for eq in d.derived.forward.definitions[name]:
        if eq.at != site.params[1]:
            continue
        inside = set(topological([eq.value]))
        steps = [s for s in d.rules if s.site in inside and s.site not in told]
        told.update(s.site for s in steps)
        if steps:
            yield Prose(("Back through ", read(eq.name, eq.at), ":"))
        for s in steps:
            law = LAWS.get(s.rule, f"derivative of {s.rule}")
            yield Chain(d.printed_form(replaced(s.before, d.held)), ((d.printed_form(replaced(s.after, d.held)), law),))


def carries(d: Derivation) -> Section:
    """What each step sends to another."""
    items = tuple(Chain(site, tuple(d.lines(site))) for name in d.derived.carries for site in d.sites(name))
    return Section("What a step sends to another", items)


def gradients(d: Derivation) -> Section:
    """Parameters as sums over t, inputs, initial values."""
    given = d.derived.forward.having("parameter") + d.derived.forward.having("input")
    names = [d.derived.names[n] for n in given if n in d.derived.names]
    return Section("Gradients of parameters and inputs", tuple(
        Chain(site, tuple(d.lines(site))) for name in names for site in d.sites(name)))


def result(d: Derivation) -> Section:
    """The final recursion, nothing else."""
    return Section("The recursion", tuple(Chain(read(eq.name, eq.at), ((eq.value, ""),)) for eq in d.recursion))


def jacobian(r: Recurrence) -> Section:
    """The blocks of one step, each as its direct route and its routes through other states of the step."""
    items: list[Chain | Prose] = [Prose((
        "A step is reached by ", *_each(r.reached), " and hands on ", *_each(r.states),
        ". With the gates eliminated, its Jacobian has the blocks"))]
    items += [Chain(node(PARTIAL, b.state, b.reached), ((b.value, ""),)) for b in r.blocks if b.worked_out]
    left = [node(PARTIAL, b.state, b.reached) for b in r.blocks if not b.worked_out]
    if left:
        items.append(Prose(("No product of matrices and diagonals, and so not written out: ", *_each(left), ".")))
    return Section(f"The Jacobian of one step along {r.index}", tuple(items))


def closed(r: Recurrence) -> Section:
    """Products of Jacobians and their sum; what truncation keeps, and the term it drops."""
    def bold(letter: str, at: str) -> str:
        return rf"\mathbf{{{letter}}}_{{{at}}}"

    def summed(last: str) -> str:
        low, high = (following, last) if forwards else (last, following)
        return rf"\sum_{{k={low}}}^{{{high}}} {transported('k')} {bold('Delta', 'k')}"

    def transported(last: str) -> str:
        return rf"({bold('J', last)} \cdots {bold('J', following)})^{{\top}}"

    i, forwards = r.index, r.sign > 0
    plus, minus = ("+", "-") if forwards else ("-", "+")
    following, far = f"{i}{plus}1", rf"{i}{plus}\tau"
    if not r.simple:
        paths = (r"\sum_{q} \sum_{\text{paths } p \to q} (\prod \mathbf{J})^{\top} \mathbf{Delta}_{q}")
        return Section("The closed form", (
            Prose(("A position is reached from several sides: what later positions send back to it is a sum over each "
                   "of them and over every path to it, of the blocks along the path, transposed, times what comes to "
                   "that position from outside.",)), Chain(Formula(bold("g", "p")), ((Formula(paths), ""),))))
    stack = r"\begin{bmatrix} " + r" \\ ".join(f"<{k}>" for k in range(len(r.states))) + r" \end{bmatrix}"
    jacobian_ = rf"\frac{{\partial {bold('s', i)}}}{{\partial {bold('s', i + minus + '1')}}}"
    back = rf"{bold('J', following)}^{{\top}} ({bold('Delta', following)} + {bold('g', following)})"
    dropped = rf"\underbrace{{{transported(far)} {bold('g', far)}}}_{{\text{{dropped}}}}"
    return Section("The closed form, and what truncation drops", (
        Chain(Formula(bold("s", i)), ((Formula(stack, r.states), ""),)),
        Chain(Formula(bold("J", i)), ((Formula(jacobian_), ""),)),
        Prose((Formula(bold("Delta", i)), " is what reaches the states at their own step from outside the loop, ",
               Formula(bold("g", i)), " what the steps beyond send back:")),
        *(Chain(Formula(bold("Delta", "<0>"), (state,)), ((term, ""),)) for state, term in r.local.items()),
        Chain(Formula(bold("g", i)), (
            (Formula(back), "one step"),
            (Formula(summed(i.upper() if forwards else "1")), "a product of Jacobians for each step beyond"))),
        Prose(("Truncated after ", Formula(r"\tau"), " steps, the sum ends early. What is lost is a product of that "
               "many Jacobians with all that lies beyond:")),
        Chain(Formula(bold("g", i)), ((Formula(summed(far) + " + " + dropped), ""),))))


def memory(d: Derivation) -> Section:
    """Which forward values the backward pass reads."""
    needed = d.memory
    kept = [n for n in needed if d.derived.forward.roles[n.params[0]] != "parameter"]
    names = {n.params[0] for n in kept}
    free = [eq for eq in d.derived.forward.equations if eq.name not in names and not eq.end]
    items = [Prose(("The backward pass reads ", *_each(kept), "."))] if kept else []
    if free:
        items.append(Prose(("It does not read ", *_each(read(eq.name, eq.at) for eq in free), ".")))
    return Section("Memory", tuple(items))


def _main(d: Derivation, name: str) -> tuple[Position, ...]:
    return tuple(Position(i) for i in d.derived.forward.axes[name])


def _each(nodes: Iterable[Node]) -> Iterator[str | Node]:
    """a, b and c."""
    nodes = list(nodes)
    for k, n in enumerate(nodes):
        if k:
            yield " and " if k == len(nodes) - 1 else ", "
        yield n
