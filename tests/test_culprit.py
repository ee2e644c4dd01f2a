"""The first value that is not finite is named, with its place and the author's line."""

import numpy as np
import pytest

from autograd_rnn import Cell, CellError

NUMBERS = "x: input()\nw: ()\n"

CULPRITS = [  # (text, w, x, initial, the fact, the line)
    ("l[0] = log(w)\nl[t] = l[t-1] + x[t]\nL = sum_t(l[t])", 0, [0, 1, 2], None, "`l[0]` is", "l[0] = log(w)"),
    ("l[T+1] = log(w)\nl[t] = l[t+1] + x[t]\nL = sum_t(l[t])", 0, [0, 1], None, "`l[T+1]` is", "l[T+1] = log(w)"),
    ("h[t] = tanh(w * h[t-1] + x[t])\nL = sum_t(h[t])", 1, [0, 1], {"h": np.inf}, "`h[0]` is", None),
    ("h[t] = w * h[t-1] + x[t]\nL = sum_t(h[t])", 1, [0, np.nan], None, "`x` at t = 2 is", None),
    ("h[t] = w * h[t-1] + x[t]\nL = sum_t(h[t])", np.inf, [0, 1], None, "`w` is", None),
    ("y[t] = where(x[t] > 0, sqrt(x[t]), 0)\nz[t] = x[t]**2 + y[t]\nL = sum_t(w * z[t])", 1, [2, 1, 0], None,
     "`dx` at t = 3 is", "y[t] = where(x[t] > 0, sqrt(x[t]), 0)"),
    ("h[t] = sqrt(w * h[t-1]) + x[t]\nL = sum_t(h[t])", 1, [2, 1], None, "`dh_tm1` at t = 1 is",
     "h[t] = sqrt(w * h[t-1]) + x[t]"),
    ("h[t] = w * h[t-1] * h[t-1] + x[t]\ng[t] = h[t] + 1\nL = sum_t(g[t])", 1, [1e200, 1, 1], None, "`h` at t = 2 is",
     "h[t] = w * h[t-1] * h[t-1] + x[t]"),
    ("h[t] = w * h[t+1] * h[t+1] + x[t]\nL = sum_t(h[t])", 1, [1, 1, 1e200], None, "`h` at t = 2 is",
     "h[t] = w * h[t+1] * h[t+1] + x[t]"),  # from the right: t = 2 comes before t = 1
    ("l[0] = log(0)\nl[t] = maximum(l[t-1], x[t])\nh[t] = w * exp(h[t-1] + l[t])\nL = sum_t(h[t])", 1, [7, 7, 7], None,
     "`h` at t = 2 is", "h[t] = w * exp(h[t-1] + l[t])"),  # an infinity that the text states is meant
]


@pytest.mark.parametrize("text, w, x, initial, fact, line", CULPRITS)
def test_the_first_value_that_is_not_finite_is_named(text, w, x, initial, fact, line):
    with pytest.raises(CellError) as caught:
        Cell(NUMBERS + text).gradient({"w": np.array(float(w))}, initial=initial, x=np.array(x, float))
    assert caught.value.fact.startswith(f"{fact} not finite"), caught.value
    assert (caught.value.line or None) == line, caught.value


def test_what_an_example_hands_on_past_its_end_is_its_own():
    cell = Cell("x: input()\nw: ()\nl[T+1] = log(w) + s\ns: input()\nl[t] = l[t+1] + x[t]\nL = sum_t(l[t])")
    with pytest.raises(CellError, match=r"`l\[T\+1\]` is not finite"):
        cell.gradient({"w": np.array(0.0)}, lengths=[2, 3], x=np.ones((3, 2)), s=np.ones(2))
