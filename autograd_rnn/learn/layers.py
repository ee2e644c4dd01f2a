"""Models around a layer: the one line of a text that calls the cell, as several layers with dropout between them.

    text, Cell -> Cell

A layer is any cell that takes one sequence of vectors and ends with another.
"""

from __future__ import annotations

import re

from ..bind import whole
from ..cell import Cell
from ..errors import CellError

LINE = re.compile(r"^h\[t\] = cell\(x=(.*)\)$", re.M)


def model_of(text: str, cell: Cell, layers: int = 1, dropout: float = 0.0, name: str | None = None) -> Cell:
    """The text, whose line `h[t] = cell(x=...)` becomes `layers` of the cell: h1, h2, ...; `h` is the last.

    dropout: the share of each layer's output that what is above does not see (Zaremba, Sutskever, Vinyals,
    arXiv:1409.2329). Raises CellError for a cell that is no layer, or sees ahead of its step.

    >>> print(model_of("h[t] = cell(x=x[t])\\ny = V @ h[T] + c", Cell("s[t] = tanh(W @ u[t] + U @ s[t-1])"), layers=2))
    h1[t] = cell(u=x[t])
    h2[t] = cell(u=h1[t])
    y = V @ h2[T] + c
    """
    entry = _input_of(cell)
    if not whole(layers) or not 0 <= dropout < 1:
        raise CellError(f"There are {layers} layers with dropout {dropout}.",
                        remedy="Give at least one layer, and a share from 0 to less than 1.")
    above, found = text, LINE.search(text)
    assert found, "the text calls no cell"
    keep, below, lines = 1 - dropout, found[1], []
    for n in range(1, layers + 1):
        lines.append(f"h{n}[t] = cell({entry}={below})")
        top, below = f"h{n}", f"h{n}[t]"
        if dropout:
            lines += [f"keep{n}: bernoulli(h{n}, {keep!r})", f"d{n}[t] = dropout(h{n}[t], keep{n}[t], {keep!r})"]
            top, below = f"d{n}", f"d{n}[t]"
    above = re.sub(r"\bh\[", f"{top}[", text[found.end():])
    return Cell(text[:found.start()] + "\n".join(lines) + above, name, cell=cell)


def _input_of(cell: Cell) -> str:
    """The name of a layer's input."""
    if not isinstance(cell, Cell):
        raise CellError(f"`{cell!r}` is no cell.", remedy="Give one, like `zoo[\"lstm\"]`.")
    data = [i for i in cell.system.indices if i not in cell.system.model]
    inputs = [n for n in cell.inputs if cell.system.roles[n] != "noise"]
    if len(data) != 1 or len(inputs) != 1 or len(cell.inputs) != 1 or len(cell.shapes[inputs[0]]) != 1:
        raise CellError(f"{cell!r} is no layer: it takes {', '.join(cell.inputs) or 'nothing'}.",
                        remedy="A layer takes one sequence of vectors, like x[t], and ends with its output, like h[t].")
    ahead = sorted(n for n, ends in cell.system.delayed.items() if any(end.base == "T" for end in ends))
    if ahead:
        raise CellError(f"{cell!r} reads `{ahead[0]}` ahead of its step: it would see what it is to predict.",
                        remedy="A layer of such a model reads [t-1], not [t+1].")
    last = cell.system.equations[-1].name
    if len(cell.shapes[last]) != 1 or cell.system.axes[last] != tuple(data):
        raise CellError(f"{cell!r} ends with `{last}`, which is not a vector for each step.",
                        remedy="Its last equation is what the next layer sees.")
    return inputs[0]
