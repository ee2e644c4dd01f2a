"""Equations as MathML and HTML: what a notebook shows. Everything a user wrote is escaped."""

from __future__ import annotations

import re
from collections.abc import Iterable
from html import escape

from ..equations import Equation, System
from ..graph import READ, topological
from .latex import latex
from .text import equation

ROLES = {"input": "inputs", "class": "classes", "noise": "noise", "const": "constants", "parameter": "parameters",
         "state": "states", "value": "values"}
# Browsers draw MathML Core: columns align by style, a function's name is no operator, upright letters say so, and a
# minus after a bracket is a sign.
_FOR_BROWSERS = (
    (r'columnalign="(left|right)"', r'style="text-align:\1"'),
    (r"<mo>(?!mod<)([A-Za-z]{2,})</mo>", r"<mi>\1</mi>"),
    (r"<mi>(&#x000[4-7][0-9A-F];)</mi>", r'<mi mathvariant="normal">\1</mi>'),
    (r"((?:&#x00028;|\()</mo>)<mo>&#x02212;", r'\1<mo form="prefix">&#x02212;'),
)


def mathml(system: System, equations: Iterable[Equation]) -> str:
    """The equations as one MathML element, set as a block. Needs the extra `html`.

    >>> from autograd_rnn import Cell
    >>> system = Cell("h[t] = tanh(W @ x[t])").system
    >>> mathml(system, system.equations)[:54]
    '<math xmlns="http://www.w3.org/1998/Math/MathML" displ'
    """
    return converted(latex(system, equations), "block")


def converted(tex: str, display: str) -> str:
    """LaTeX as one MathML element, `block` or `inline`."""
    try:
        from latex2mathml.converter import convert
    except ImportError:
        raise ImportError("MathML is converted by latex2mathml: pip install 'autograd_rnn[html]'") from None
    out = convert(tex, display=display)
    for pattern, better in _FOR_BROWSERS:
        out = re.sub(pattern, better, out)
    return out


def html(system: System, equations: Iterable[Equation], name: str | None = None) -> str:
    """The equations typeset, or as text without the extra `html`; then who plays which role, and of what shape."""
    equations = tuple(equations)
    try:
        body = mathml(system, equations)
    except ImportError:
        body = f"<pre>{escape(chr(10).join(map(equation, equations)))}</pre>"
    reads = (n.params[0] for n in topological(eq.value for eq in equations) if n.op is READ)
    shown = {*reads, *(eq.name for eq in equations)}
    rows = []
    for role, title in ROLES.items():
        names = [f"<code>{escape(_declared(system, n))}</code>" for n in system.having(role) if n in shown]
        if names:
            rows.append(f'<tr><th style="text-align:left;vertical-align:top">{title}</th>'
                        f'<td style="text-align:left">{", ".join(names)}</td></tr>')
    title = f"<p><strong>{escape(name)}</strong></p>" if name else ""
    body = f'<div style="overflow-x:auto;overflow-y:hidden">{body}</div>'
    return f'<div>{title}{body}<table>{"".join(rows)}</table></div>'


def _declared(system: System, name: str) -> str:
    """A name with its indices and its shape: h[t] (h); numbers have none."""
    at, shape = system.axes[name], system.shapes[name]
    return name + (f"[{','.join(at)}]" if at else "") + (f" ({', '.join(map(str, shape))})" if shape else "")
