"""Equations as LaTeX, in the author's order: one loop over an expression's nodes, then lines no wider than a page.

An operand carries its strength as in text.py; a primitive's template says how strong an operand must be to stand
without brackets, `{0:9}^{{\\top}}`, and is itself one weaker than the weakest it asks for: `\\tanh{0:10}` is an atom.
"""

from __future__ import annotations

import math
import re
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable
from string import Formatter

from .. import primitives as P
from ..equations import BATCH, Equation, System, shifted, tokens_reduce
from ..graph import CONST, EXTENT, INDEX, READ, Node, node, option, rewrite, topological
from . import names

ATOM = 9
SUM = 1.5  # \sum binds weaker than a product, stronger than +
WIDEST = 76  # glyphs on a line of a page
GLYPH = 40  # characters of LaTeX that no glyph takes


class Operand:
    """LaTeX and its strength; `{0:s}` in a template puts brackets around what is weaker than s."""

    def __init__(self, text: str, strength: float = ATOM, number: bool = False):
        self.text, self.strength, self.truth = text, strength, number

    def __format__(self, spec: str) -> str:
        if self.strength >= float(spec or 0):
            return self.text
        if self.truth:  # a condition used as a number
            return f"[{self.text}]"
        return bracketed(self.text)


def bracketed(text: str) -> str:
    """In round brackets as tall as what they hold; a line may end inside all but the tallest.

    >>> bracketed("a + b"), bracketed("\\\\frac{a}{b}")
    ('(a + b)', '\\\\Bigl( \\\\frac{a}{b} \\\\Bigr)')
    """
    if r"\begin" in text:
        return rf"\left( {text} \right)"
    return rf"\Bigl( {text} \Bigr)" if r"\frac" in text or r"\sum" in text else f"({text})"


def filled(template: str, operands: Iterable[Operand]) -> Operand:
    """A template over its operands, one weaker than what it asks of the weakest.

    >>> filled("{0:9}^{{\\\\top}}", [Operand("a + b", 1)]).text
    '(a + b)^{\\\\top}'
    """
    asked = [float(spec) for _, _, spec, _ in Formatter().parse(template) if spec]
    return Operand(template.format(*operands), min(asked) - 1 if asked else ATOM)


def expression(system: System, root: Node, adjoint: str = "d") -> str:
    """The LaTeX of an expression of this system.

    >>> from autograd_rnn import Cell
    >>> cell = Cell("h[t] = z[t] * tanh((2 * U_h.T) @ (r[t] * h[t-1]))")
    >>> print(expression(cell.system, cell.system.equations[0].value))
    z_{t} \\odot \\tanh((2 \\, U_{h}^{\\top}) (r_{t} \\odot h_{t-1}))
    """
    done: dict[Node, Operand] = {}
    for n in topological([root]):
        done[n] = _one(system, n, [done[a] for a in n.args], done, adjoint)
    return done[root].text


def apart(root: Node, free: Iterable[str] = ()) -> Node:
    """The expression with an index that a sum binds primed where the same letter already means something outside."""
    for i in dict.fromkeys([*free, *(n.params[0] for n in topological([root]) if _binds(n))]):
        def primed(m: Node, args, i=i) -> Node | None:
            inner = _binds(m) and m.params[0] == i
            return node(m.op, shifted(args[0], {i: i + "'"}), params=(i + "'",)) if inner else None

        def outside(n: Node, args, i=i, primed=primed) -> Node | None:
            bound = _binds(n) and n.params[0] == i
            return node(n.op, rewrite(args, primed)[args[0]], params=n.params) if bound else None

        root = rewrite([root], primed if i in free else outside)[root]
    return root


def _binds(n: Node) -> bool:
    return n.op.fill is not None and option(n) is not None and tokens_reduce(n)


def _one(system: System, n: Node, x: list[Operand], done: dict[Node, Operand], adjoint: str) -> Operand:
    """A node from its operands."""
    if n.op is CONST:
        return _number(n.params[0])
    if n.op is READ:
        symbol = names.variable(system, n.params[0], n.params[1], adjoint)
        return Operand(str(symbol), ATOM if symbol.closed else ATOM - 1)
    if n.op is INDEX:
        return Operand(names.index(n.params[0]))
    if n.op is EXTENT:
        return Operand(names.extent(n.params[0]))
    if n.op is P.add:
        return added(n, x, done)
    if n.op is P.neg:
        return Operand(f"-{x[0]:{SUM}}", 1)
    if n.op is P.pow:
        return _power(n, x[0])
    if n.op in (P.mul, P.div, P.matmul):
        return _product(system, n, x)
    if n.op.infix:
        _, strength, symbol = n.op.infix
        return Operand(f"{x[0]:{max(strength, 1)}} {symbol} {x[1]:{strength + 1}}", strength, number=strength == 0)
    over = option(n) if n.op.fill is not None else None
    if over and n.op is P.sum:
        of = names.batch(system) if over == BATCH else f"{names.index(over)}=1}}^{{{names.extent(over)}"
        return Operand(rf"\sum_{{{of}}} {x[0]:{SUM}}", SUM)
    statics = [] if n.op.fill is not None else [Operand(repr(p)) for p in n.params]
    if n.op.latex and not over:
        return filled(n.op.latex, x + statics)
    below = f"_{{{names.batch(system) if over == BATCH else names.index(over)}}}" if over else ""
    head = n.op.name.replace("_", r"\_")
    return Operand(rf"\operatorname{{{head}}}{below}{bracketed(', '.join(o.text for o in x + statics))}")


def _number(value: float) -> Operand:
    if abs(value) in (math.pi, math.inf):
        text = "-" * (value < 0) + (r"\infty" if math.isinf(value) else r"\pi")
        return Operand(text, 1 if value < 0 else ATOM)
    mantissa, _, exponent = repr(value).partition("e")
    text = mantissa + (rf" \cdot 10^{{{int(exponent)}}}" if exponent else "")
    return Operand(text, 1 if text.startswith("-") else 2 if exponent else ATOM)


def added(n: Node, x: list[Operand], done: dict[Node, Operand]) -> Operand:
    """a + b - c; a sum inside a sum keeps its brackets, as the author wrote it."""
    out = ""
    for k, (a, body) in enumerate(zip(n.args, x)):
        if a.op is P.neg:
            out += f"{' - ' if k else '-'}{done[a.args[0]]:{SUM}}"
        elif a.op is CONST and body.text.startswith("-"):
            out += f" - {body.text[1:]}" if k else body.text
        else:
            out += f"{' + ' if k else ''}{body:{SUM}}"
    return Operand(out, 1)


def _power(n: Node, x: Operand) -> Operand:
    """x^2; of a function by its name, as books print it: tanh^2(x)."""
    exponent = n.params[0]
    head = re.match(r"(\\operatorname\{[^{}]*\}|\\[a-z]+)(\(|\\Bigl\(|\\left\()", x.text)
    if head and n.args[0].op.latex and x.text.endswith(")") and isinstance(exponent, int) and exponent > 0:
        return Operand(f"{head[1]}^{{{exponent}}}{x.text[len(head[1]):]}")
    return Operand(f"{x:{ATOM}}^{{{exponent!r}}}", 4)


def _product(system: System, n: Node, x: list[Operand]) -> Operand:
    """W h by juxtaposition; a number stands beside what it scales; between vectors the product is a dot in a ring."""
    left, right = n.args
    if n.op is P.div and not system.rank(right):
        return Operand(rf"\frac{{{x[0].text}}}{{{x[1].text}}}", 3)
    matrix = n.op is P.matmul
    alike = (P.matmul,) if matrix else (P.mul, P.div)
    mixed = left.op in (P.mul, P.div, P.matmul) and left.op not in alike and x[0].strength <= 2
    first = f"{x[0]:{3 if mixed else 2}}"
    chained = right.op is n.op and n.op is not P.div
    last = right.op is P.sum and x[1].strength == SUM  # nothing follows a sum at the end of a product
    second = f"{x[1]:{SUM if last else 2 if chained else 3}}"
    if matrix:
        sign = " "
    elif n.op is P.mul and not (system.rank(left) and system.rank(right)):
        sign = r" \cdot " if re.match(r"[\d.]", second) else r" \, "
    else:
        sign = f" {n.op.infix[2]} "
    return Operand(first + sign + second, SUM if last else min(2, x[1].strength) if chained else 2)


# --- lines -------------------------------------------------------------------------------------------------------

_OPENS = re.compile(r"\\left(?![a-z])|\\begin|\{|\\lvert")
_CLOSES = re.compile(r"\\right(?![a-z])|\\end|\}|\\rvert")
_SILENT = re.compile(
    r"\\(?:mathrm|mathit|mathbf|operatorname|text|Big[lr]|quad|tilde|hat|bar|dot)(?![a-z])|\\,")
_COMMAND = re.compile(r"\\[A-Za-z]+ ?")
_INNER = r"(?!\\frac|\\begin)[^{}]"
for _ in range(5):
    _INNER = rf"(?:(?!\\frac|\\begin)[^{{}}]|\{{{_INNER}*\}})"  # braces inside braces, with no other stack in them
_STACK = re.compile(rf"\\frac\{{({_INNER}*)\}}\{{({_INNER}*)\}}|\\begin\{{cases\}}({_INNER}*)\\end\{{cases\}}")


def _widest(stack: re.Match) -> str:
    """The widest row of a fraction or of cases, and the room around it."""
    rows = [stack[1], stack[2]] if stack[3] is None else stack[3].split(r" \\ ")
    return "x" + max(rows, key=width)


def width(text: str) -> float:
    """About how many glyphs wide LaTeX is set: signs have room around them, limits and scripts are small.

    >>> width("a + b"), round(width("\\\\sum_{t=1}^{T} \\\\mathrm{d}a_{t}"), 1)
    (5.0, 4.7)
    """
    while text != (text := _STACK.sub(_widest, text)):
        pass
    text = re.sub(r"\\sum_\{[^{}]*(\{[^{}]*\})?\}(\^\{[^{}]*(\{[^{}]*\})?\})?", "##", text)
    text = _SILENT.sub("", re.sub(r" (\+|-|=|\\[a-z]+) (?=[^ ])", "###", text))
    small = 0.0
    while script := re.search(r"[_^]\{([^{}]*)\}", text):
        small += 0.65 * len(_COMMAND.sub("x", script[1]).replace(" ", ""))
        text = text[:script.start()] + text[script.end():]
        text = re.sub(r"(?<![_^])\{([^{}]*)\}", r"\1", text)
    return small + len(re.sub(r"[\\{} ]", "", _COMMAND.sub("x", text)))


def breaks(text: str) -> list[tuple[int, int]]:
    """Where a line may end, before + and -: (place, depth in brackets). Never inside braces or environments."""
    found, closed, depth, k = [], 0, 0, 0
    while k < len(text):
        opening = _OPENS.match(text, k)
        edge = opening or _CLOSES.match(text, k)
        if edge:
            closed += 1 if opening else -1
            k = edge.end()
            continue
        if text[k] in "([":
            depth += 1
        elif text[k] in ")]":
            depth -= 1
        elif text[k:k + 3] in (" + ", " - ") and not closed:
            found.append((k, depth))
        k += 1
    return found


def broken(text: str, room: float, width: Callable[[str], float] = width) -> list[str]:
    """Lines of at most `room` glyphs where that can be, cut at the outermost + that serves.

    >>> broken("a + f(b + c) + d", 13)
    ['a + f(b + c)', ' + d']
    """
    lines, start, places = [], 0, breaks(text)

    def fits(end: int) -> bool:
        return end - start <= GLYPH * room and width(text[start:end]) <= room

    while not fits(len(text)):
        first = bisect_right(places, start, key=lambda place: place[0])
        far = 1  # by doubling, then by halving: what is longer is wider
        while first + far < len(places) and fits(places[first + far][0]):
            far *= 2
        near = bisect_left(range(far), True, key=lambda k: first + k >= len(places) or not fits(places[first + k][0]))
        fitting = places[first:first + near] or places[first:first + 1]
        if not fitting:
            break
        cut = max(fitting, key=lambda place: (-place[1], place[0]))[0]
        lines.append(text[start:cut])
        start = cut
    return [*lines, text[start:]]


def equation(system: System, eq: Equation, adjoint: str = "d") -> list[str]:
    """The lines of one equation, aligned at = and, where broken, below what follows it."""
    left = str(names.variable(system, eq.name, eq.at, adjoint))
    first, *rest = broken(expression(system, apart(eq.value, eq.free), adjoint), WIDEST - width(left))
    return [f"{left} &= {first}", *(rf"&\quad{{}}{line.strip()}" for line in rest)]


def latex(system: System, equations: Iterable[Equation]) -> str:
    """An align* environment of equations, in the order given.

    >>> from autograd_rnn import Cell
    >>> system = Cell("h[t] = tanh(W @ x[t] + U @ h[t-1] + b)").system
    >>> print(latex(system, system.equations))
    \\begin{align*}
    h_{t} &= \\tanh(W x_{t} + U h_{t-1} + b)
    \\end{align*}
    """
    lines = [line for eq in equations for line in equation(system, eq)]
    return "\\begin{align*}\n" + " \\\\\n".join(lines) + "\n\\end{align*}"
