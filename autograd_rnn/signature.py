"""What a primitive's signature says of one node: its operands' shapes, its result's, and so its rank.

`s` is any shape, the same wherever it stands; `s?` that shape or a number; `()` a number, `(n)` a vector, `(m n)` a
matrix, `(n ...)` at least one dimension; `k` a class, a whole number from 0 to n - 1; `_` anything; a trailing `*`
repeats the last operand.
"""

from __future__ import annotations

from functools import cache

from .graph import Node, option

PARTS = ("concat", "split", "slice", "unslice", "rows", "split_rows", "columns")  # their sizes add up rather than agree


@cache
def signature(shape: str) -> tuple[tuple[str, ...], str]:
    operands, result = shape.split("->")
    return tuple(token.strip() for token in operands.split(",")), result.strip()


def tokens(n: Node) -> tuple[tuple[str, ...], str]:
    """The signature as it applies to this node: one token an operand, and the result's."""
    if option(n) is not None and n.op.fill is not None:  # over an index the components stay as they are
        return ("s",), "s"
    operands, result = signature(n.op.shape)
    if operands[-1].endswith("*"):
        operands = operands[:-1] + (operands[-1][:-1],) * (len(n.args) - len(operands) + 1)
    return operands, result


def class_operands(n: Node) -> tuple[Node, ...]:
    """The operands that are classes: those whose token is `k`."""
    return tuple(a for a, token in zip(n.args, tokens(n)[0]) if token == "k")


def rank(n: Node, ranks: dict[Node, int]) -> int:
    """The number of component axes of a node from those of its operands."""
    operands, result = tokens(n)
    if result.startswith("("):
        fixed = result.strip("()").split()
        if "..." not in fixed:
            return len(fixed)
        position = next(k for k, token in enumerate(operands) if "..." in token)
        return ranks[n.args[position]]
    return max((ranks[a] for a, token in zip(n.args, operands) if token.strip("?") == result), default=0)
