"""Expressions as Unicode text for a terminal, in the author's order: dc[t] = dh[t] ⊙ o[t] + f[t+1] ⊙ dc[t+1].

For reading only; what parses back is text.py's. The same loop and the same strengths as latex.py.
"""

from __future__ import annotations

import unicodedata
from typing import NamedTuple

from .. import primitives as P
from ..equations import BATCH, Equation, System
from ..graph import CONST, EXTENT, INDEX, READ, Node, Position, extent_name, option, topological
from . import latex
from .latex import ATOM, SUM, Operand, filled
from .names import GREEK, carry, primal, sent

WIDEST = 96  # characters on a line of a terminal
TEMPLATES = {P.transpose: "{0:9}ᵀ", P.outer: "{0:3} {1:9}ᵀ", P.sqrt: "√{0:9}", P.abs: "|{0}|",
             P.sigmoid: "σ({0})", P.onehot: "e({0})", P.like: "{0:3} 1", P.slice: "{0:9}[{1}:{2}]"}
SIGNS = {P.lt: "<", P.le: "≤", P.gt: ">", P.ge: "≥", P.eq: "=", P.ne: "≠", P.mod: "mod"}
COMBINING = {"tilde": "\u0303", "hat": "\u0302", "bar": "\u0304"}
RAISED = str.maketrans("0123456789-.", "⁰¹²³⁴⁵⁶⁷⁸⁹⁻·")


class Style(NamedTuple):
    """How names are written: a system's adjoints as `dv`, `δv` or `∂L/∂v`."""

    system: System
    adjoint: str = "d"


def greek(word: str) -> str:
    """alpha -> α, Delta -> Δ; any other word as it is."""
    if word not in GREEK or word == "ell":
        return word
    plain = word.removeprefix("var").lower().replace("lambda", "lamda")
    return unicodedata.lookup(f"GREEK {'CAPITAL' if word[0].isupper() else 'SMALL'} LETTER {plain}")


def name(style: Style, word: str) -> str:
    """A name with Greek letters and accents: c_tilde as c̃, alpha_hat as α̂, W_hf as it is."""
    found = primal(style.system, word)
    if found:
        order, target = found
        sign = {"d": "d", "delta": "δ", "partial": f"∂{order}L/∂"}[style.adjoint]
        return sign + (f"{order}_" if order and style.adjoint != "partial" else "") + name(style, target)
    parts: list[str] = []
    for part in word.split("_"):
        if part in COMBINING and parts:
            parts[-1] += COMBINING[part]
        else:
            parts.append(greek(part))
    return "_".join(parts)


def variable(style: Style, word: str, at: tuple[Position, ...]) -> str:
    """A variable where it stands; the carry dc_tm1[t+1], what step t+1 sends to c[t], as dc[t]⟨t+1⟩."""
    carried = None if primal(style.system, word) else carry(style.system, word)
    if carried:
        reached, sender = sent(carried[1], at)
        return variable(style, carried[0], reached) + f"⟨{','.join(map(str, sender))}⟩"
    return name(style, word) + (f"[{','.join(map(str, at))}]" if at else "")


def expression(style: Style, root: Node) -> str:
    """The Unicode text of an expression.

    >>> from autograd_rnn import Cell
    >>> system = Cell("h[t] = z[t] * tanh(U_h.T @ (alpha[t] * h[t-1]))**2").system
    >>> print(expression(Style(system), system.equations[0].value))
    z[t] ⊙ tanh(U_hᵀ (α[t] ⊙ h[t-1]))²
    """
    done: dict[Node, Operand] = {}
    for n in topological([root]):
        done[n] = _one(style, n, [done[a] for a in n.args], done)
    return done[root].text


def _one(style: Style, n: Node, x: list[Operand], done: dict[Node, Operand]) -> Operand:
    """A node from its operands."""
    if n.op is CONST:
        return Operand(repr(n.params[0]), 1 if repr(n.params[0]).startswith("-") else ATOM)
    if n.op is READ:
        written = variable(style, *n.params)
        return Operand(written, 3 if "/" in written else ATOM)
    if n.op in (INDEX, EXTENT):
        return Operand(n.params[0] if n.op is INDEX else extent_name(n.params[0]))
    if n.op is P.add:
        return latex.added(n, x, done)
    if n.op is P.neg:
        return Operand(f"-{x[0]:{SUM}}", 1)
    if n.op is P.pow:
        return Operand(f"{x[0]:{ATOM}}{str(n.params[0]).translate(RAISED)}", 4)
    if n.op in (P.mul, P.div, P.matmul):
        return _product(style, n, x)
    if n.op in SIGNS:
        return Operand(f"{x[0]:1} {SIGNS[n.op]} {x[1]:2}", 0, number=True)
    if n.op.name == "partial":
        return Operand(f"∂{x[0]:3}/∂{x[1]:3}", 3)
    if n.op.name == "pullback":
        return Operand(f"(∂{x[1]:3}/∂{x[2]:3})ᵀ {x[0]:3}", 2)
    over = option(n) if n.op.fill is not None else None
    if over and n.op is P.sum:
        return Operand(f"Σ_{'b' if over == BATCH else over} {x[0]:{SUM}}", SUM)
    statics = [] if n.op.fill is not None else [Operand(repr(p)) for p in n.params]
    if n.op in TEMPLATES and not over:
        return filled(TEMPLATES[n.op], x + statics)
    return Operand(f"{n.op.name}{f'_{over}' if over else ''}({', '.join(o.text for o in x + statics)})")


def _product(style: Style, n: Node, x: list[Operand]) -> Operand:
    """W h by juxtaposition; ⊙ between vectors, · beside a number."""
    left, right = n.args
    both = bool(style.system.rank(left) and style.system.rank(right))
    sign = {P.matmul: " ", P.mul: " ⊙ " if both else " · ", P.div: " ⊘ " if both else " / "}[n.op]
    products = (P.mul, P.div, P.matmul)
    mixed = left.op in products and (n.op is P.matmul) != (left.op is P.matmul)
    chained = right.op is n.op and n.op is not P.div
    last = right.op is P.sum and x[1].strength == SUM  # nothing follows a sum at the end of a product
    first, second = f"{x[0]:{3 if mixed else 2}}", f"{x[1]:{SUM if last else 2 if chained else 3}}"
    return Operand(first + sign + second, SUM if last else min(2, x[1].strength) if chained else 2)


def equation(style: Style, eq: Equation, width: int = WIDEST) -> list[str]:
    """The lines of one equation, cut at + where they would be too wide."""
    left = f"{variable(style, eq.name, eq.at)} = "
    first, *rest = latex.broken(expression(style, eq.value), width - len(left), len)
    return [left + first, *(" " * (len(left) - 2) + line.strip() for line in rest)]
