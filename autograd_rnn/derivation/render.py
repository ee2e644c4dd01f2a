"""The document in three languages: LaTeX, Unicode text, one HTML page. Each is a short loop over its sections."""

from __future__ import annotations

import re
from collections.abc import Iterable
from html import escape
from itertools import groupby
from typing import TYPE_CHECKING

from ..graph import Node
from ..printing import latex, plain
from ..printing.mathml import converted
from .document import Chain, Formula, Prose, Section

if TYPE_CHECKING:
    from . import Derivation

PREAMBLE = r"""\documentclass{article}
\usepackage[a4paper,margin=20mm]{geometry}
\usepackage{amsmath,amssymb}
\allowdisplaybreaks
\setlength{\parindent}{0pt}
\setlength{\jot}{1pt}
\begin{document}
"""
PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>
body {{ font: 17px/1.5 Georgia, serif; max-width: 62rem; margin: 2rem auto; padding: 0 1rem; color: #222; }}
h1, h2 {{ font-weight: normal; }}
h2 {{ margin-top: 2.2rem; border-bottom: 1px solid #ddd; }}
table {{ border-collapse: collapse; margin: .5rem 0; }}
td {{ padding: .15rem .25rem; vertical-align: middle; }}
tbody tr:first-child td {{ padding-top: .45rem; }}
td.left {{ text-align: right; white-space: nowrap; }}
td.reason {{ color: #777; font-size: .85em; padding-left: 2rem; }}
.chain {{ overflow-x: auto; overflow-y: hidden; }}
math {{ font-size: 1.08em; }}
</style>
</head>
<body>
{body}
</body>
</html>
"""
# The few signs of a Formula, as Unicode text.
SIGNS = (
    (r"\\begin\{bmatrix\} (.*) \\end\{bmatrix\}", r"(\1)"), (r" \\\\ ", "; "),
    (r"\\underbrace\{(.*)\}_\{\\text\{dropped\}\}", r"[dropped: \1]"), (r"\\text\{([^{}]*)\}", r"\1"),
    (r"\\frac\{(.*)\}\{(\\partial .*)\}$", r"\1 / \2"), (r"\^\{\\top\}", "ᵀ"), (r"\\mathbf", ""), (r"\\partial ?", "∂"),
    (r"\{Delta\}", "Δ"), (r"\{(s|J|g)\}", r"\1"), (r"\\sum_\{([^{}]*)\}\^\{([^{}]*)\}", r"Σ_(\1..\2)"),
    (r"\\sum_\{([^{}]*)\}", r"Σ_(\1)"), (r"_\{([^{}]*)\}", r"[\1]"), (r"\\cdots", "···"), (r"\\tau", "τ"),
    (r"\\prod", "Π"), (r"\\to", "→"), (r"Σ_\(paths p", "Σ_(paths p"),
)
BOLD = str.maketrans("sJΔg", "𝐬𝐉𝚫𝐠")


class Writer:
    """Nodes and formulas of one derivation in one way of writing adjoints."""

    def __init__(self, d: Derivation, adjoint: str):
        self.system, self.adjoint, self.style = d.printed, adjoint, plain.Style(d.printed, adjoint)

    def latex(self, x: Node | Formula) -> str:
        if isinstance(x, Formula):
            text = x.latex.replace(r"\mathbf{Delta}", r"\mathbf{\Delta}")
            return re.sub(r"<(\d+)>", lambda m: self.latex(x.nodes[int(m[1])]), text)
        return latex.expression(self.system, latex.apart(x), self.adjoint)

    def plain(self, x: Node | Formula) -> str:
        if isinstance(x, Node):
            return plain.expression(self.style, x)
        text = x.latex
        for pattern, sign in SIGNS:
            text = re.sub(pattern, sign, text)
        text = re.sub(r"\b([sJg]|Δ)(?=[\[ᵀ]|$)|Δ(?=\[)", lambda m: m[0].translate(BOLD), text)
        return re.sub(r"<(\d+)>", lambda m: self.plain(x.nodes[int(m[1])]), text)


def text(d: Derivation, found: Iterable[Section], adjoint: str, width: int) -> str:
    """Unicode text that fits a terminal."""
    w = Writer(d, adjoint)
    out: list[str] = []
    for section in found:
        out += ["", section.title, "-" * len(section.title)] if section.title else []
        for item in section.items:
            if isinstance(item, Prose):
                said = "".join(p if isinstance(p, str) else w.plain(p) for p in item.parts)
                out += ["", *_wrapped(said, width)]
                continue
            left = w.plain(item.left)
            for k, (right, reason) in enumerate(item.rights):
                head = f"{left} = " if not k else " " * len(left) + " = "
                lines = latex.broken(w.plain(right), width - len(head), len)
                lines = [head + lines[0], *(" " * (len(head) - 2) + line.strip() for line in lines[1:])]
                if reason:
                    room = width - len(lines[-1]) - 2
                    lines = [*lines[:-1], lines[-1] + f"{reason:>{room}}".rjust(room + 2)] if len(reason) <= room else [
                        *lines, f"{reason:>{width}}"]
                out += lines
    return "\n".join(out).strip() + "\n"


def _wrapped(said: str, width: int) -> list[str]:
    """Lines of at most `width` characters, cut at spaces."""
    lines = [""]
    for word in said.split(" "):
        if len(lines[-1]) + 1 + len(word) > width and lines[-1]:
            lines.append("")
        lines[-1] += (" " if lines[-1] else "") + word
    return lines


def aligned(w: Writer, chains: Iterable[Chain]) -> str:
    """An align* environment; all lines are cut to the room that the widest left side leaves.

    A left side stands above its right sides where it would push them off the page: where it is wider than half of it,
    or than what the widest piece that cannot be cut leaves.
    """
    chains = list(chains)
    widths = [latex.width(w.latex(c.left)) for c in chains]
    half = latex.WIDEST / 2
    pieces = (line for c in chains for right, _ in c.rights for line in latex.broken(w.latex(right), half))
    most = min(half, latex.WIDEST - max(map(latex.width, pieces)))
    room = latex.WIDEST - max((n for n in widths if n <= most), default=0)
    return "\\begin{align*}\n" + " \\\\\n".join(line for c, n in zip(chains, widths) for line in chain(
        w, c, room, n > most)) + "\n\\end{align*}"


def chain(w: Writer, item: Chain, room: float, above: bool) -> list[str]:
    """The lines of one chain; reasons stand at the margin."""
    lines = []

    def stated(head: str, body: str) -> None:
        first, *rest = latex.broken(body, room)
        lines.append(head + first)
        lines.extend(rf"&\quad{{}}{line.strip()}" for line in rest)

    left = w.latex(item.left)
    if above:
        stated("& ", left)
    for k, (right, reason) in enumerate(item.rights):
        stated("&= " if k or above else f"{left} &= ", w.latex(right))
        if reason:
            lines[-1] += rf" \tag*{{\footnotesize {tex_escaped(reason)}}}"
    return lines


def document(d: Derivation, found: Iterable[Section], adjoint: str, whole: bool) -> str:
    """A LaTeX document, or the body of one."""
    w = Writer(d, adjoint)
    out = [rf"\section*{{{tex_escaped(d.title)}}}"]
    for section in found:
        out.append(rf"\subsection*{{{tex_escaped(section.title)}}}")
        for kind, items in groupby(section.items, type):
            if kind is Chain:
                out.append(aligned(w, items))
                continue
            for item in items:
                said = (tex_escaped(p) if isinstance(p, str) else f"${w.latex(p)}$" for p in item.parts)
                out.append("".join(said) + r"\par")
    body = "\n".join(out) + "\n"
    return PREAMBLE + body + "\\end{document}\n" if whole else body


def tex_escaped(said: str) -> str:
    """Text between formulas: nothing in it is LaTeX."""
    signs = {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"\textless{}",
             ">": r"\textgreater{}"}
    return "".join(signs.get(c, "\\" + c if c in "#$%&_{}" else c) for c in said)


def html(d: Derivation, found: Iterable[Section], adjoint: str, page: bool) -> str:
    """One page of MathML, readable without scripts and without a network; or its body, for a notebook."""
    w = Writer(d, adjoint)
    out = [f"<h1>{escape(d.title)}</h1>"]
    for section in found:
        out.append(f"<h2>{escape(section.title)}</h2>")
        for kind, items in groupby(section.items, type):
            if kind is Chain:
                out.append(f'<div class="chain"><table>{"".join(rows(w, item) for item in items)}</table></div>')
                continue
            for item in items:
                said = (escape(p) if isinstance(p, str) else converted(w.latex(p), "inline") for p in item.parts)
                out.append(f"<p>{''.join(said)}</p>")
    body = "\n".join(out)
    return PAGE.format(title=escape(d.title), body=body) if page else body


def rows(w: Writer, item: Chain) -> str:
    """The rows of a table: left side, =, right side, reason."""
    shown = lambda tex: converted(tex.replace(r"\sum_", r"\sum\limits_"), "inline").replace(
        "<math ", '<math displaystyle="true" ', 1)
    out = ""
    for k, (right, reason) in enumerate(item.rights):
        lines = latex.broken(w.latex(right), latex.WIDEST)
        for j, line in enumerate(lines):
            left = shown(w.latex(item.left)) if not k and not j else ""
            why = escape(reason) if j == len(lines) - 1 else ""
            body = shown("{}" * (j > 0) + line.strip())  # + between operands, though the first stands on the line above
            out += (f'<tr><td class="left">{left}</td><td>{"" if j else "="}</td><td>{body}</td>'
                    f'<td class="reason">{why}</td></tr>')
    return f"<tbody>{out}</tbody>"
