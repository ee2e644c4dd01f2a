"""Expressions and systems in the notation itself: what this prints parses back to an equal system."""

from __future__ import annotations

from .. import primitives as P
from ..equations import Equation, System
from ..graph import CONST, EXTENT, INDEX, READ, Node, extent_name, option, topological

ATOM = 9


def expression(root: Node) -> str:
    """The text of an expression, with brackets only where they are needed."""
    text: dict[Node, tuple[str, int]] = {}
    for n in topological([root]):
        text[n] = _one(n, [text[a] for a in n.args], text)
    return text[root][0]


def _one(n: Node, args: list[tuple[str, int]], text) -> tuple[str, int]:
    """Text and strength of a node from its operands'."""
    def at_least(k: int, strength: int) -> str:
        body, own = args[k]
        return body if own >= strength else f"({body})"

    if n.op is CONST:
        value = n.params[0]
        return (repr(value), ATOM) if value >= 0 and not str(value).startswith("-") else (repr(value), 3)
    if n.op is READ:
        name, at = n.params
        return name + (f"[{','.join(map(str, at))}]" if at else ""), ATOM
    if n.op is INDEX:
        return n.params[0], ATOM
    if n.op is EXTENT:
        return extent_name(n.params[0]), ATOM
    if n.op is P.transpose:
        return at_least(0, ATOM) + ".T", ATOM
    if n.op is P.add:
        return _sum(n, args, text), 1
    if n.op is P.neg:
        return "-" + at_least(0, 4), 3
    if n.op is P.pow:
        return f"{at_least(0, ATOM)}**{n.params[0]!r}", 4
    if n.op.infix:
        symbol, strength, _ = n.op.infix
        left = at_least(0, strength + 1 if strength == 0 else strength)
        if _mixes(n, n.args[0]):
            left = f"({args[0][0]})"
        return f"{left} {symbol} {at_least(1, strength + 1)}", strength
    over = option(n) if n.op.fill is not None else None
    statics = [] if n.op.fill is not None else [repr(p) for p in n.params]
    return f"{n.op.name}{f'_{over}' if over else ''}({', '.join([a for a, _ in args] + statics)})", ATOM


def _sum(n: Node, args, text) -> str:
    """a + b - c; a sum inside a sum keeps its brackets, as the author wrote it."""
    out = ""
    for k, (a, (body, strength)) in enumerate(zip(n.args, args)):
        if k and (a.op is P.neg or (a.op is CONST and strength == 3)):
            inner, own = (body[1:], ATOM) if a.op is CONST else text[a.args[0]]
            inner = inner if own >= 2 else f"({inner})"
            out += f" - {inner}"
        else:
            body = f"({body})" if strength < 2 else body
            out += f" + {body}" if k else body
    return out


def _mixes(n: Node, left: Node) -> bool:
    """`@` beside `*` or `/` always takes brackets."""
    products = (P.mul, P.div, P.matmul)
    return n.op in products and left.op in products and (n.op is P.matmul) != (left.op is P.matmul)


def equation(eq: Equation) -> str:
    return f"{eq} = {expression(eq.value)}"


def system_text(system: System) -> str:
    """Declarations, then equations in order, one a line."""
    lines = [f"{i}: axis" for i in sorted(system.model, key=system.indices.index)]
    for d in system.declarations.values():
        own = any("." in str(s) for s in d.shape or ())  # a size that no name has: see System.keeping
        shape = "" if d.shape is None or own else f"({', '.join(map(str, d.shape))})"
        if d.kind == "bernoulli":
            shape = f"({', '.join([*map(str, d.shape or ()), repr(d.probability)])})"
        kind = "" if d.kind == "parameter" and shape else d.kind
        if d.name in system.axes and not (own and d.kind == "parameter"):
            lines.append(f"{d.name}: {kind}{shape}")
    return "\n".join(lines + [equation(eq) for eq in system.equations])
