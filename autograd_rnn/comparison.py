"""Two cells side by side, each a Cell or the name of one in the zoo."""

from __future__ import annotations

from .cell import Cell
from .derivation.compare import Comparison
from .errors import CellError
from .zoo import zoo


def compare(first: Cell | str, second: Cell | str) -> Comparison:
    """What differs between two cells, forward and backward, as equations matched by their names.

    >>> rnn = Cell("h[t] = tanh(U @ h[t-1] + x[t])", name="rnn")
    >>> print(compare(rnn, Cell("h[t] = tanh(U @ h[t-1])", name="free")))
    Forward
    -------
    rnn   a_h[t] = U h[t-1] + x[t]
    free  a_h[t] = U h[t-1]
    <BLANKLINE>
    Backward
    --------
    rnn   dx[t] = da_h[t]
    free  -
    <BLANKLINE>
    >>> compare("gru", "gru").same
    True
    """
    return Comparison(_cell(first).derivation(), _cell(second).derivation())


def _cell(given: Cell | str) -> Cell:
    if isinstance(given, Cell):
        return given
    if isinstance(given, str):
        return zoo.named(given)
    raise CellError(f"A cell or the name of one is compared, not {type(given).__name__}.", remedy="Give a Cell.")
