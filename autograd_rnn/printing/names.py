"""How a name of the notation is typeset: `W_hf` as W_{hf}, `c_tilde[t-1]` as \\tilde{c}_{t-1}, `dc_tm1[t]` as a carry.

Names are ASCII identifiers and nothing else; what is not a letter or a digit is escaped, so no name can inject LaTeX.
"""

from __future__ import annotations

import keyword
import re
from typing import NamedTuple

from ..equations import BATCH, System
from ..graph import Position, extent_name

GREEK = frozenset((
    "alpha", "beta", "gamma", "delta", "epsilon", "varepsilon", "zeta", "eta", "theta", "vartheta", "iota", "kappa",
    "lambda", "mu", "nu", "xi", "pi", "rho", "sigma", "tau", "upsilon", "phi", "varphi", "chi", "psi", "omega", "ell",
    "Gamma", "Delta", "Theta", "Lambda", "Xi", "Pi", "Sigma", "Upsilon", "Phi", "Psi", "Omega"))
ADJOINTS = {"d": r"\mathrm{d}", "delta": r"\delta", "partial": r"\partial"}  # dv, or delta v, or dL/dv in full
ACCENTS = {"tilde": r"\tilde", "hat": r"\hat", "bar": r"\bar"}


class Typeset(NamedTuple):
    """A symbol in its parts: base, subscripts, and the superscript that tells a carry."""

    base: str
    subs: tuple[str, ...] = ()
    sup: str = ""

    def __str__(self):
        below = f"_{{{','.join(self.subs)}}}" if self.subs else ""
        return self.base + below + (f"^{{{self.sup}}}" if self.sup else "")

    @property
    def closed(self) -> bool:
        """Whether a superscript may follow."""
        return not self.sup and not self.base.endswith("'") and not self.base.startswith(r"\frac")


def letter(word: str, sub: bool = False) -> str:
    """One word: a Greek letter, a letter, a number, or a word set as one.

    >>> letter("alpha"), letter("h"), letter("ctx"), letter("hf", sub=True), letter("lag", sub=True)
    ('\\\\alpha', 'h', '\\\\mathit{ctx}', 'hf', '\\\\mathrm{lag}')
    """
    if word in GREEK:
        return "\\" + word
    escaped = word.replace("_", r"\_")
    if len(word) == 1 or word.isdigit() or (sub and (len(word) == 2 or not word.isalpha())):
        return escaped
    return rf"\{'mathrm' if sub else 'mathit'}{{{escaped}}}"


def plain(name: str) -> Typeset:
    """A name by itself: words after `_` are subscripts, accents sit on what stands before them.

    >>> str(plain("W_hf")), str(plain("c_tilde")), str(plain("a_i_dot")), str(plain("W_c_tilde")), str(plain("Delta_h"))
    ('W_{hf}', '\\\\tilde{c}', '\\\\dot{a}_{i}', 'W_{\\\\tilde{c}}', '\\\\Delta_{h}')
    """
    if name.endswith("_") and keyword.iskeyword(name[:-1]):
        name = name[:-1]
    words = name.split("_")
    if not all(words):
        return Typeset(rf"\mathit{{{name.replace('_', chr(92) + '_')}}}")
    split = re.fullmatch(r"([A-Za-z]+)(\d+)", words[0])
    parts = [letter(split[1]), split[2]] if split else [letter(words[0])]
    for word in words[1:]:
        if word in ACCENTS:
            parts[-1] = f"{ACCENTS[word]}{{{parts[-1]}}}"
        elif word == "dot":
            parts[0] = rf"\dot{{{parts[0]}}}"
        elif word == "prime":
            parts[-1] += "'"
        else:
            parts.append(letter(word, sub=True))
    return Typeset(parts[0], tuple(parts[1:]))


def position(p: Position) -> str:
    """A position along an index: t-1, 0, T+1."""
    if p.base == "1":
        return str(1 + p.offset)
    return (index(p.index) if p.base == "i" else extent(p.index)) + (f"{p.offset:+d}" if p.offset else "")


def index(name: str) -> str:
    """An index; primed where a sum binds a letter that already has a meaning."""
    return letter(name.rstrip("'")) + "'" * name.count("'")


def extent(index: str) -> str:
    """The extent of an index: T, or T with the index below where the index is a Greek letter."""
    index = index.rstrip("'")
    return rf"T_{{\{index}}}" if index in GREEK else letter(extent_name(index))


def batch(system: System) -> str:
    """What an example is called under a sum over the batch: b where nothing else is."""
    return "b" if "b" not in system.axes and "b" not in system.indices else rf"\mathrm{{{BATCH}}}"


def variable(system: System, name: str, at: tuple[Position, ...], adjoint: str = "d") -> Typeset:
    """A variable where it stands. `dv` is set as an adjoint where the system has `v`, `v_dot` as a tangent, and the
    carry `dc_tm1[t]` as what reaches c_{t-1} from step t. adjoint: how adjoints are written, one of ADJOINTS.

    >>> from autograd_rnn import Cell
    >>> system = Cell("h[t] = U @ h[t-1] + x[t]").backward().system
    >>> print(variable(system, "dU", ()), variable(system, "dh_tm1", (Position("t", "i", 1),)))
    \\mathrm{d}U \\mathrm{d}h_{t}^{\\leftarrow t+1}
    """
    found = primal(system, name)
    if found:
        order, target_name = found
        target = variable(system, target_name, at, adjoint)
        below = f"_{{{order}}}" if order else ""
        if adjoint == "partial":
            return Typeset(rf"\frac{{\partial{below} \mathcal{{L}}}}{{\partial {target}}}")
        return target._replace(base=ADJOINTS[adjoint] + below + (" " if adjoint == "delta" else "") + target.base)
    carried = carry(system, name)
    if carried:
        name, ends = carried
        reached, sender = sent(ends, at)
        target = variable(system, name, reached, adjoint)
        moved = [position(p) for p in sender]
        base = target if not target.sup else Typeset(f"({target})")
        return base._replace(sup=r"\leftarrow " + ",".join(moved) if moved else r"\leftarrow")
    moving = next((v for v in (name[:-4], name[:-3]) if name.endswith("_dot") and _alike(system, name, v)), None)
    if moving:
        target = variable(system, moving, at, adjoint)
        return target._replace(base=rf"\dot{{{target.base}}}")
    symbol = plain(name)
    labels = tuple(rf"\mathrm{{{s}}}" if s in system.indices and len(s) == 1 else s for s in symbol.subs)  # W_i[i]
    return symbol._replace(subs=labels + tuple(map(position, at)))


def sent(ends: list[Position], at: tuple[Position, ...]) -> tuple[tuple[Position, ...], list[Position]]:
    """Where a carry that stands at `at` arrives, and the positions that sent it."""
    here = {p.index.rstrip("'"): p for p in at}
    reached = [here[e.index]._replace(offset=here[e.index].offset + e.offset) if e.base == "i" else e for e in ends]
    return tuple(reached), [here[e.index] for e in ends if e.base == "i" and e.offset]


def _alike(system: System, name: str, other: str) -> bool:
    """Whether `other` is a variable over the same indices with the same number of components."""
    return name in system.axes and other in system.axes and system.axes[other] == system.axes[name] and len(
        system.shapes[other]) == len(system.shapes[name])


def primal(system: System, name: str) -> tuple[str, str] | None:
    """(order, v) where `name` is `dv`, or `d2_v` in a second pass."""
    found = re.fullmatch(r"d(?:(\d+)_)?(.+)", name)
    return (found[1] or "", found[2]) if found and _alike(system, name, found[2]) else None


def carry(system: System, name: str) -> tuple[str, list[Position]] | None:
    """(adjoint, the position it is sent to) where `name` is a carry such as `dc_tm1`: an adjoint's name and a tag."""
    for k in (k for k, c in enumerate(name) if c == "_" and name in system.axes):
        words = name[k + 1:].split("_")
        adjoint = next((a for a in (name[:k], name[:k + 1]) if a in system.axes and primal(system, a)), None)
        if adjoint is None:
            continue
        ends = []
        for i in system.axes[adjoint]:
            step = next((found for w in words if (found := re.fullmatch(rf"{i}([mp])(\d+)", w))), None)
            far = re.fullmatch(rf"({extent_name(i)})(?:p(\d+))?|(0|1)", words[0]) if words else None
            if step:
                words.remove(step[0])
                ends.append(Position(i, "i", int(step[2]) * (1 if step[1] == "p" else -1)))
            elif i in system.axes[name]:
                ends.append(Position(i))
            elif far:
                words.pop(0)
                ends.append(Position(i, "T", int(far[2] or 0)) if far[1] else Position(i, "1", int(far[3]) - 1))
        if not words and len(ends) == len(system.axes[adjoint]):
            return adjoint, ends
    return None
