"""Which mutants are cells at all: what a search passes over before it trains anything.

    text -> Cell, or a CellError that says why it is none
"""

from __future__ import annotations

import numpy as np

from ..cell import Cell
from ..errors import CellError

INPUT, SIZE = 2, 3
STEPS, LONG, BATCH = 6, 100, 4
LARGEST = 120  # operations of a step


def valid(text: str, name: str | None = None) -> Cell:
    """The cell of a text that reads x[t] and ends with its output; CellError where it is none that could learn.

    Shapes must fit, with x of another size than the output; the last output must depend on the first input; a gradient
    must reach every parameter; 100 steps of random inputs must stay finite.

    >>> valid("h[t] = tanh(W @ x[t] + U @ h[t-1])")
    <Cell: h from x>
    >>> valid("h[t] = tanh(W @ x[t] + U @ h[t-1] - U @ h[t-1] + b)")
    Traceback (most recent call last):
    autograd_rnn.errors.CellError: The last output does not depend on the first input.
    """
    cell = Cell(text, name)
    system = cell.system
    output = system.equations[-1].name
    if len(system.nodes) > LARGEST:
        raise CellError(f"A step has more than {LARGEST} operations.")
    if cell.inputs != ("x",) or len(cell.shapes["x"]) != 1:
        raise CellError("The cell does not read x[t], a vector, alone.")
    places = [p for at in (*(n.params[1] for n in system.reads), *(eq.at for eq in system.equations)) for p in at]
    if any(p.index != "t" or p.base != "i" or p.offset > 0 for p in places):
        raise CellError("The cell reads or defines what is no step `t` or before.")
    if cell.shapes["x"] == cell.shapes[output]:
        raise CellError("The input must have the state's size.")
    rng = np.random.default_rng(0)
    params = {n: rng.uniform(-1, 1, v.shape) for n, v in cell.init(**{"x": INPUT, output: SIZE}).items()}
    x = rng.normal(size=(LONG, BATCH, INPUT))
    last = np.zeros((STEPS, BATCH, SIZE))
    last[-1] = rng.normal(size=last.shape[1:])
    _, gradients = cell.gradient(params, cotangents={output: last}, x=x[:STEPS])
    if not gradients["x"][0].any():
        raise CellError("The last output does not depend on the first input.")
    for n in cell.parameters:
        if not gradients[n].any():
            raise CellError(f"No gradient reaches `{n}`.")
    trace = cell.run(params, x=x)
    for n in cell.states:
        if not np.isfinite(trace[n]).all():
            raise CellError(f"`{n}` does not stay finite.")
    return cell
