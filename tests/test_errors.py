"""Malformed texts and data that do not fit: one exception type, the user's own line with a caret, and a remedy."""

from __future__ import annotations

import pickle
import random
import re
import warnings

import numpy as np
import pytest
import systems

from autograd_rnn import Cell, CellError

RNN = "h[t] = tanh(W @ x[t] + U @ h[t-1] + b)\n"
INNER = Cell("h[t] = tanh(W @ x[t] + U @ h[t-1])", "inner")

# (text, a phrase of the message, the number of the line it shows)
TEXTS = [
    # --- lines
    ("h[t] tanh(x[t])", "neither defines nor declares", 1),
    ("h[t] =", "missing", 1),
    (" = tanh(x[t])", "missing", 1),
    ("h[t] == tanh(x[t])", "neither defines nor declares", 1),
    ("h[t] += x[t]", "not an expression", 1),
    ("() = f(x=x[t])", "No name stands on the left", 1),
    ("() = x[t]", "No name stands on the left", 1),
    ("h[t] = x[()]", "brackets of `x` are empty", 1),
    ("h[()] = x[t]", "brackets of `h` are empty", 1),
    ("h[_t] = x[_t]", "index `_t` begins with an underscore", 1),
    ("h[t] = y[t] = x[t]", "not an expression", 1),
    ("h[t] := x[t]", "`:` has no meaning", 1),
    ("3 = x[t]", "left side", 1),
    ("h[t] + 1 = x[t]", "left side", 1),
    ("-h[t] = x[t]", "left side", 1),
    ("h[t].T = x[t]", "left side", 1),
    ("h[t], c[t] = x[t]", "Only a cell's call", 1),
    (RNN + "h[t] = x[t]", "`h[t]` is defined twice", 2),
    ("h[0] = a\nh[0] = b\n" + RNN, "`h[0]` is defined twice", 2),
    ("x: input()\nx: input()\n" + RNN, "declared twice", 2),
    ("f(v) = v\nf(v) = 2*v\nh[t] = f(x[t])", "defined twice", 2),
    (RNN + "import os", "neither defines nor declares", 2),
    (RNN + "pass", "neither defines nor declares", 2),
    # --- characters and numbers
    ("h[t] = α * x[t]", "has no meaning here", 1),
    ("h[t] = x[t]²", "has no meaning here", 1),
    ("h[t] = x[t] − y[t]", "has no meaning here", 1),
    ("h[t] = 'x'", "`'` has no meaning", 1),
    ('h[t] = "x"', '`"` has no meaning', 1),
    ("h[t] = x[t]; y[t] = 1", "`;` has no meaning", 1),
    ("h[t] = {x[t]}", "`{` has no meaning", 1),
    ("h[t] = x[t]^2", "`^` has no meaning", 1),
    ("h[t] = x[t]!", "`!` has no meaning", 1),
    ("h[t] = x[t] & y[t]", "`&` has no meaning", 1),
    ("h[t] = x[1:3]", "`:` has no meaning", 1),
    ("h[t] = 1e400 * x[t]", "not a number that can stand here", 1),
    ("h[t] = 2j * x[t]", "not a number that can stand here", 1),
    ("h[t] = nan * x[t]", "`nan` is no number that can stand here", 1),
    ("NaN: ()\nh[t] = x[t] + NaN", "`NaN` is no number that can stand here", 2),
    ("h[t] = x[t] - Inf", "`Inf` looks like the number infinity", 1),
    (RNN + "h[-1] = 0", "lies further out than any read reaches", 2),
    ("y[t,j] = y[t-2,j-1] + x[t,j]\ny[-1,j] = 5", "read at shifted positions", 2),
    ("s[t] = s[t-3] + x[t]\ns[-2] = 1\ns[-2] = 2", "`s[-2]` is defined twice", 3),
    ("s[t] = s[-1] + x[t]", "no position along `t`", 1),
    ("y = W @ v\nP = v * M\nz[t] = M @ x[t]", "A vector", 2),
    ("h[t] = True", "word of Python", 1),
    ("h[t] = 2x[t]", "not an expression", 1),
    # --- names
    ("lambda[t] = x[t]", "`lambda` is a word of Python", 1),
    ("h[t] = in[t]", "`in` is a word of Python", 1),
    ("h[t] = x[t] if y[t] else z[t]", "`if` is a word of Python", 1),
    ("h[t] = x[t] and y[t]", "`and` is a word of Python", 1),
    ("lambda: ()\nh[t] = x[t]", "`lambda` is a word of Python", 1),
    ("h__x[t] = x[t]", "two underscores", 1),
    ("h[t] = __x__", "two underscores", 1),
    ("2h: ()\nh[t] = x[t]", "is not a name", 1),
    ("h[t] = tanh", "stands here without its argument", 1),
    ("h[t] = relu[t]", "stands here without its argument", 1),
    ("t = 3\n" + RNN, "cannot also be a variable", 1),
    ("T = 3\n" + RNN, "cannot also be a variable", 1),
    ("h[t] = x[t]\nt[t] = h[t]", "cannot also be a variable", 2),
    ("batch[t] = x[batch]", "the library's own index", 1),
    # --- expressions
    ("h[t] = tanh(x[t]", "not an expression", 1),
    ("h[t] = tanh(x[t]))", "not an expression", 1),
    ("h[t] = x[t", "not an expression", 1),
    ("h[t] = x[t] +", "not an expression", 1),
    ("h[t] = * x[t]", "not an expression", 1),
    ("h[t] = x[t] y[t]", "not an expression", 1),
    ("h[t] = W @ @ x[t]", "not an expression", 1),
    ("h[t] = x[t] // 2", "operator has no meaning", 1),
    ("h[t] = x[t] << 2", "operator has no meaning", 1),
    ("h[t] = x[t]**y[t]", "exponent must be a number", 1),
    ("h[t] = x[t]**(1 + 1)", "exponent must be a number", 1),
    ("h[t] = 2**x[t]", "exponent must be a number", 1),
    ("h[t] = x[t]**9999999", "exponent is too large", 1),
    ("h[t] = 0 < x[t] < 1", "comparison has two sides", 1),
    ("h[t] = x[t].shape", "`.shape` has no meaning", 1),
    ("h[t] = [x[t], y[t]]", "List has no meaning", 1),
    ("h[t] = sum(*x[t])", "Starred has no meaning", 1),
    ("h[t] = sum(**x)", "cannot stand here", 1),
    ("h[t] = (x[t], y[t])", "has no meaning in an equation", 1),
    ("h[t] = tanh(x[t])(y[t])", "Only a name can be called", 1),
    ("h[t] = (x[t] + y[t])[t]", "Only a name takes an index", 1),
    ("h[t] = x[t][t]", "Only a name takes an index", 1),
    ("h[t] = " + "(" * 60 + "x[t]" + ")" * 60, "nests deeper", 1),
    ("h[t] = " + "-" * 60 + "x[t]", "nests deeper", 1),
    ("h[t] = r[t] * U @ x[t]", "`*` and `@` stand side by side", 1),
    ("h[t] = U @ x[t] * r[t]", "`@` and `*` stand side by side", 1),
    ("h[t] = U @ x[t] / r[t]", "`@` and `/` stand side by side", 1),
    # --- functions
    ("h[t] = tahn(x[t])", "Did you mean `tanh`?", 1),
    ("h[t] = sigmoid()", "takes 1 argument", 1),
    ("h[t] = tanh(x[t], y[t])", "takes 1 argument", 1),
    ("h[t] = maximum(x[t])", "takes 2 argument", 1),
    ("h[t] = where(x[t] > 0, x[t])", "takes 3 argument", 1),
    ("h[t] = relu(x[t], 1)", "takes 1 arguments", 1),
    ("h[t] = concat()", "at least one argument", 1),
    ("h[t] = slice(x[t], 0)", "whole number", 1),
    ("h[t] = slice(x[t], 2, 1)", "larger stop", 1),
    ("h[t] = slice(x[t], 0, n)", "whole number", 1),
    ("h[t] = tanh(v=x[t])", "no named arguments", 1),
    ("h[t] = add(x[t], y[t])", "no function of the notation", 1),
    ("h[t] = sum_j(x[t])", "must be an index of this text", 1),
    ("h[t] = sum_t(x[t], y[t])", "takes one argument", 1),
    ("f() = 1\nh[t] = f()", "plain names", 1),
    ("f(v, v) = v\nh[t] = f(x[t], x[t])", "different names", 1),
    ("f(2) = 1\nh[t] = x[t]", "different names", 1),
    ("f(v) = f(v)\nh[t] = f(x[t])", "calls itself", 1),
    ("f(v) = g(v)\ng(v) = f(v)\nh[t] = f(x[t])", "calls itself", None),
    ("f(v) = v[t]\nh[t] = f(x[t])", "takes no index", 1),
    ("f(v) = 2*v\nf[t] = x[t]\nh[t] = f(x[t])", "is a function here", 2),
    ("h[t] = inner", "is a cell and is called", 1),
    # --- indices
    ("h = x[t]", "`t` is not on the left side", 1),
    ("h[t] = x[j]", "`j` is not on the left side", 1),
    ("h[t] = softmax_j(x[j])", "keeps the index `j`", 1),
    ("h[t] = h + x[t]", "Write `h[t]`, or for the step before `h[t-1]`", 1),
    ("h[t] = h[t-1,t] + x[t]", "indices, elsewhere", 1),
    ("h[t] = x[t-k]", "names one index", 1),
    ("h[t] = x[2*t]", "no position along `t`", 1),
    ("h[t] = x[t] + x[5]", "no position along `t`", 1),
    ("h[t] = x[t] + x[-1]", "no position along `t`", 1),
    ("h[t] = x[T-1]", "no position along `t`", 1),
    ("h[t] = x[T+2]", "no position along `t`", 1),
    ("h[t] = x[t-0.5]", "no position along `t`", 1),
    ("h[t] = x[t-101]", "101 steps away", 1),
    ("h[t-1] = x[t]", "cannot be defined at `t-1`", 1),
    ("h[1] = a\n" + RNN, "cannot be defined at `1`", 1),
    ("h[T] = a\n" + RNN, "cannot be defined at `T`", 1),
    ("h[0] = x", "Nothing says which index", 1),
    ("h[t] = x[t]\ny[j] = h[j]", "cannot be read over `j`", 2),
    ("h[t,t] = x[t]", "same index twice", 1),
    ("l: axis\nh[0,0] = a\nh[t,l] = h[t-1,l] + h[t,l-1]", "one index at a time", 2),
    # --- declarations
    (RNN + "x: inptu", "is not a kind", 2),
    (RNN + "x: input[h]", "is not a kind", 2),
    (RNN + "W: (h, -1)", "is not a size", 2),
    (RNN + "W: (h, x.T)", "is not a size", 2),
    (RNN + "zeta: ()", "declared but never used", 2),
    (RNN + "W: (h, q)", "is no variable of this text", 2),
    (RNN + "h: input()", "declared as input and also defined", 1),
    ("eps: noise(z)\neps[t] = x[t]\nz[t] = eps[t]", "declared as noise and also defined", 2),
    ("M: (M, 2)\nh[t] = M @ x[t]", "in the declaration of `M`", 1),
    ("M: (N, 2)\nN: (M, 2)\nh[t] = M @ x[t] + N @ x[t]", "has 3 dimensions", None),
    ("W: (3, 2)\nM: (W, 2)\nh[t] = M @ x[t] + W @ x[t]", "has 3 dimensions", 2),
    ("M: (1, 2, 3, 4)\nh[t] = M @ x[t]", "has 4 dimensions", 1),
    # --- classes
    ("y[t] = W @ x[t]\nL = sum_t(cross_entropy(y[t], y[t]))", "wants a class", 2),
    ("h[t] = onehot(2)", "wants a class", 1),
    ("h[t] = E @ onehot(k[t] + 1)", "wants a class", 1),
    ("y[t] = W @ x[t]\nL = sum_t(cross_entropy(y[t], k[t-1]))", "shifted position", 2),
    ("h[t] = onehot(k[t-2])", "at most one step away", 1),
    # --- shapes
    ("h[t] = W @ x[t] + U @ h[t-1]\nW: (3, x)\nU: (4, h)", "Sizes", 1),
    (RNN + "b: ()", "number", 1),
    ("h[t] = tanh(W @ x[t])\ny[t] = h[t] @ W\nx: input(3)", "matrix belongs", 2),
    ("h[t] = tanh(W @ x[t]) + W\nx: input(3)", "vector", 1),
    ("h[t] = x[t].T\nx: input(3)", "vector", 1),
    ("h[t] = maximum(W @ x[t], a)\na: ()", "number", 1),
    ("h[t] = concat(x[t], 1)", "bare number", 1),
    ("h[t] = x[t] * sum(slice(t, 0, 1))", "bare number", 1),
    ("h[t] = x[t] + sum(outer(T, 2))", "number stands in `outer`", 1),
    ("h[t] = x[t] * unslice(x[t], w, 1, 3)", "reads up to component 3", 1),
    ("h[t] = sum(1) + x[t]\nx: input(3)\ny[t] = h[t] + sum(x[t])", "number meets a vector", None),
    ("C[t] = outer(x[t], y[t]) + x[t]\nx: input(3)", "vector", 1),
    ("h[t] = slice(x[t], 0, 3) + slice(x[t], 0, 2)", "Sizes 3 and 2", 1),
    ("h[t] = slice(x[t], 0, 3)\nx: input(2)", "reads up to component 3", 1),
    ("y[t] = V @ x[t]\nL = sum_t(cross_entropy(y[t], k[t]) + sum(onehot(k[t])))\nV: (4, x)\nz[t] = P @ onehot(k[t])\n"
     "P: (2, 5)", "Sizes 4 and 5", 4),
    # --- order
    ("a[t] = b[t]\nb[t] = a[t]", "wait for each other", None),
    ("a[t] = a[t] + x[t]", "wait for each other", 1),
    ("a[t] = b[t-1] + x[t]\nb[t] = a[t+1]", "wait for each other", None),
    ("l: axis\nh[t,l] = h[t-1,l+1] + h[t,l-1]\ng[t,l] = h[t+1,l]\nh[t,0] = g[t,1]", "wait for each other", None),
    ("s[t] = s[t-1] + mean_t(s[t])", "wait for each other", 1),
    ("h[0] = h[T]\n" + RNN, "wait for each other", None),
    # --- calls
    ("h[t] = inner(x[t])", "passed by name", 1),
    ("h[t] = inner(q=x[t])", "has no `q`", 1),
    ("h[t] = inner(h=h[t-1])", "needs `x`", 1),
    ("h[t] = 2 * inner(x=x[t])", "called inside an expression", 1),
    ("h[t], c[t] = inner(x=x[t], h=h[t-1])", "returns 1 values", 1),
    ("inner[t] = x[t]", "is a function here", 1),
    # --- habits of paper and Python: the remedy names what stands for them here
    ("h[t] = enc(x=x[t], h=h[t-1])", "No cell `enc` was passed", 1),
    ("h[t] = enc(x=x[t])", "Cell(text, enc=Cell(...))", 1),
    ("h[t], c[t] = enc(x=x[t], h=h[t-1], c=c[t-1])", "No cell `enc` was passed", 1),
    ("h[t] = iner(x=x[t])", "Did you mean `inner`?", 1),
    ("h[t] = sum_t(v=x[t])", "no named arguments", 1),
    ("h[t] = tanh(W x[t])", "no operator stands before `x`", 1),
    ("h[t] = W x[t] + b", "Write `@` between a matrix and a vector", 1),
    ("h[t] = a − x[t]", "(minus sign) has no meaning here", 1),
    ("h[t] = x[t] − a", "Write `-`", 1),
    ("h[t] = σ(x[t])", "Write `sigmoid`", 1),
    ("h[t] = x[t] ⊙ h[t-1]", "Write `*`", 1),
    ("h[t] = x[t] · h[t-1]", "Write `*`", 1),
    ("h[t] = λ * h[t-1] + x[t]", "Write `lambda_`", 1),
    ("β[t] = x[t]", "Write `beta`", 1),
    ("h[t] = x if c else y", "write `where(c, x, y)`", 1),
    ("h[t] = x[t] or y[t]", "`maximum(", 1),
    (RNN + "y[t] = V @ x + h[t]", "Write `x[t]`", 2),
    ("l: axis\nh[t,l] = W[l] @ x[t]\nL = sum_t(sum_l(sum(h[t,l])))", "`L` is the extent of the index `l`", 3),
    ("y: input()\nh[t] = tanh(W @ x[t])\nL = sum_t(mse(h[t], y[t]))", "fixed by line 1: y: input()", 2),
    # --- numbers that are none
    ("h[t] = x[t] / 0", "division by zero", 1),
    ("h[t] = x[t] % (1 - 1)", "division by zero", 1),
    ("h[t] = x[t] * (1/0)", "division by zero", 1),
    ("h[t] = x[t] * 2**5000", "`2**5000` is not a number", 1),
    ("h[t] = x[t] * 0**-1", "`0**-1` is not a number", 1),
    ("h[t] = x[t] + (0 - 8)**0.5", "is not a number", 1),
    ("h[t] = x[t] * (1e200 * -1e200)", "is not a number", 1),
]


@pytest.mark.parametrize("text, phrase, number", TEXTS, ids=range(len(TEXTS)))
def test_a_malformed_text_is_refused_at_its_place(text, phrase, number):
    with pytest.raises(CellError) as caught:
        Cell(text, inner=INNER)
    error = caught.value
    assert phrase in str(error)
    assert error.line is not None and error.line in text.replace("\t", " ").split("\n")
    assert error.number is not None and text.split("\n")[error.number - 1] == error.line
    assert number is None or error.number == number
    assert error.column is not None and 0 <= error.column <= len(error.line)
    assert error.remedy and error.remedy.strip()
    shown = str(error).split("\n")
    assert shown[0] == error.fact
    assert any(line.strip() == "^" for line in shown)


def test_arithmetic_of_numbers_that_stay_numbers_is_read():
    assert Cell("h[t] = x[t] * (1/3 - 2**-10 + 1e150 * 1e150 - 7 % 4)").inputs == ("x",)


def test_init_asks_for_all_sizes_at_once():
    with pytest.raises(CellError) as caught:
        Cell("l: axis\nh[t,l] = tanh(W[l] @ x[t] + U[l] @ h[t-1,l])").init(x=2)
    assert caught.value.remedy.startswith("Give by name: init(l=..., h=...).")


def test_a_forgotten_index_is_hinted_at_where_the_sequence_is_given():
    cell = Cell("h[t] = tanh(W @ x + U @ h[t-1])")
    for params in (cell.init(x=2, h=3), {}):
        with pytest.raises(CellError) as caught:
            cell.run(params, x=np.ones((5, 2)))
        assert "it has no index" in caught.value.fact and "Write `x[t]`" in caught.value.remedy
        assert caught.value.number == 1 and caught.value.line[caught.value.column] == "x"
    with pytest.raises(CellError, match="given twice"):
        cell.run(cell.init(x=2, h=3), x=np.ones(2))


def test_an_index_that_was_to_be_an_axis_is_hinted_at():
    cell = Cell("h[t,l] = tanh(W[l] @ x[t])")
    for what in (lambda: cell.init(x=2, h=3, l=4), lambda: cell.run({}, x=np.ones((5, 3)))):
        with pytest.raises(CellError) as caught:
            what()
        assert "`l: axis`" in caught.value.remedy


def test_what_was_expected_is_said_once():
    with pytest.raises(CellError) as caught:
        Cell(RNN).run({"W": np.ones((3, 2)), "U": np.ones((3, 4)), "b": np.ones(3)}, x=np.ones((5, 2)))
    assert caught.value.remedy == "Expected (h, h) with one size for each name."


@pytest.mark.parametrize("rules, phrase", [
    (dict(bias=1.0), "Parameters: W, U, b"), (dict(w=1.0), "`w` is no parameter"), (dict(h=1.0), "`h` is no parameter"),
    (dict(b="one"), "neither a number nor a function"), (dict(b=None), "neither"), (dict(b=[1.0, 2.0]), "neither"),
], ids=range(6))
def test_rules_of_unknown_parameters_are_refused(rules, phrase):
    with pytest.raises(CellError) as caught:
        Cell(RNN).initialised(**rules)
    assert phrase in str(caught.value)


@pytest.mark.parametrize("rule", [lambda rng, shape: np.ones((2, 2)), lambda rng, shape: 1.0,
                                  lambda rng, shape: np.full(shape, "a"), lambda rng, shape: np.ones((1, *shape))])
def test_a_rule_that_gives_another_shape_is_refused(rule):
    with pytest.raises(CellError, match="The rule for `W` gives shape"):
        Cell(RNN).initialised(W=rule).init(x=2, h=3)


def test_the_table_is_large_and_its_phrases_can_fail():
    assert len(TEXTS) >= 120
    texts = {text for text, _, _ in TEXTS}
    assert len(texts) == len(TEXTS)
    assert not any(phrase == "" for _, phrase, _ in TEXTS)


def test_an_error_prints_fact_line_caret_and_remedy():
    with pytest.raises(CellError) as caught:
        Cell(RNN + "  y[t] = V @ tahn(h[t])")
    assert str(caught.value).split("\n")[:3] == [
        "`tahn` is no function of the notation.", "  line 2:   y[t] = V @ tahn(h[t])", " " * 23 + "^"]
    copy = pickle.loads(pickle.dumps(caught.value))
    assert str(copy) == str(caught.value)
    assert isinstance(caught.value, ValueError)


def test_the_caret_stays_in_sight_on_a_long_line():
    with pytest.raises(CellError) as caught:
        Cell("h[t] = " + " + ".join(f"W_{k} @ x[t]" for k in range(200)) + " + tahn(x[t])")
    _, line, caret, *_ = str(caught.value).split("\n")
    assert len(line) < 150 and line[caret.index("^"):].startswith("tahn")


@pytest.mark.parametrize("text", [None, 3, b"h[t] = x[t]", ["h[t] = x[t]"], "", "  ", "# nothing", "x: input()"])
def test_what_is_no_text(text):
    with pytest.raises(CellError):
        Cell(text)


def test_what_is_passed_must_be_a_cell_or_a_primitive():
    for value in (3, "h[t] = x[t]", np.sin, None):
        with pytest.raises(CellError, match="neither a Cell nor a Primitive"):
            Cell("h[t] = f(x[t])", f=value)


# --- fuzz ------------------------------------------------------------------------------------------------------------

TOKEN = re.compile(r"[A-Za-z_]\w*|\d+\.?\d*|\*\*|[<>=!]=|\n|[^\s\w]")
SPARE = ["(", ")", "[", "]", "+", "-", "*", "/", "@", "**", "%", "==", "<", "=", ",", ":", ".", "T", "t", "0", "1", "h",
         "x", "W", "k", "sum_t", "sum", "softmax_t", "onehot", "cross_entropy", "concat", "slice", "where", "axis",
         "const", "input", "noise", "l", "L", "\n", "2", "0.5", "1e400", "J", "j", "mean_j", "cumsum_t", "split",
         "outer",
         "maximum", "like", "sum_batch", "batch", "lane", "é", "if", "lambda", "t-1", "t+1", "T+1", "t-2", "h[0]",
         "x[t]",
         "stop_gradient", "bernoulli", "(h)", ".T", "tanh(", "logsumexp", "max_t", "relu"]


def mutated(rng: random.Random, text: str) -> str:
    """The text with a few tokens dropped, doubled, swapped for others of its own, or replaced."""
    tokens = TOKEN.findall(text.strip())
    names = [k for k, token in enumerate(tokens) if token[0].isalpha()]
    for _ in range(rng.choice((1, 1, 1, 2, 4))):
        k, kind = rng.randrange(len(tokens)), rng.randrange(7)
        if kind == 0:
            del tokens[k]
            names = [n for n, token in enumerate(tokens) if token[0].isalpha()]
        elif kind == 1:
            tokens.insert(k, tokens[k])
        elif kind == 2:
            tokens.insert(k, rng.choice(SPARE))
        elif kind == 3:
            tokens[k] = rng.choice(SPARE)
        else:  # a name for a name: what still reads as an expression goes deepest
            tokens[names[k % len(names)] % len(tokens)] = tokens[rng.choice(names) % len(tokens)]
    return "".join(token if token == "\n" else token + " " for token in tokens)


@pytest.mark.parametrize("seed", range(4))
def test_a_mutated_text_works_or_is_refused_at_a_place(seed):
    rng = random.Random(seed)
    texts = [text for text in systems.TEXTS.values() if len(text) < 1000]
    works = refused = 0
    for _ in range(1200):
        text = mutated(rng, rng.choice(texts))
        try:
            Cell(text)
            works += 1
        except CellError as error:
            refused += 1
            assert error.remedy, text
            assert error.line is not None and error.column is not None, text
    assert works > 50 and refused > 500  # the mutations reach past the parser, and are no mere noise


# --- data ------------------------------------------------------------------------------------------------------------

CELL = systems.cell("vanilla")
PARAMS, INPUTS = systems.draw(CELL, T=4, batch=3)  # x (4, 3, 2); classes of y
SIZE = {n: PARAMS[n].shape for n in PARAMS}


def changed(**changes):
    """The vanilla cell's data with a few arrays replaced, or removed where None."""
    params = {k: changes.get(k, v) for k, v in PARAMS.items() if changes.get(k, v) is not None}
    inputs = {k: changes.get(k, v) for k, v in INPUTS.items() if changes.get(k, v) is not None}
    extra = {k: v for k, v in changes.items() if k not in PARAMS and k not in INPUTS}
    return params, {**inputs, **extra}


X, K = INPUTS["x"], INPUTS["k"]
DATA = [
    (dict(x=X[..., :1]), ["`x` has shape (4, 3, 1)", "size"]),
    (dict(x=X[:3]), ["`x` has 3", "`k` has 4 positions along `t`"]),
    (dict(x=X[:, :2]), ["disagree about the batch", "`x` has 2"]),
    (dict(x=X[:, 0]), ["disagree about the batch", "`x` has none"]),
    (dict(x=X[0, 0]), ["`x` has shape (2,)"]),
    (dict(x=X[None]), ["`x` has shape (1, 4, 3, 2)", "Expected (T, x)"]),
    (dict(x=np.float64(1)), ["`x` has shape ()"]),
    (dict(x=X.astype(str)), ["`x` has dtype", "numbers"]),
    (dict(x=X.astype(object)), ["`x` has dtype object"]),
    (dict(x=[[1, 2], [3]]), ["`x`"]),
    (dict(x=[]), ["`x`"]),
    (dict(x=None), ["`x` is missing", "input", "(T, batch, x)"]),
    (dict(W=None), ["`W` is missing", "parameter", "(h, x)"]),
    (dict(W=PARAMS["W"].T), ["shape", "size `h` is 3, but in `W` it is 2"]),
    (dict(W=PARAMS["W"][0]), ["`W` has shape"]),
    (dict(W=PARAMS["W"][None]), ["`W` has shape"]),
    (dict(U=PARAMS["U"][:, :1]), ["`U` has shape", "size `h`"]),
    (dict(b=3.0), ["`b` has shape ()"]),
    (dict(b=PARAMS["b"][None]), ["`b` has shape"]),
    (dict(b=PARAMS["b"].astype(np.float16), W=PARAMS["W"].astype(np.float16), U=PARAMS["U"].astype(np.float16),
          V=PARAMS["V"].astype(np.float16), c=PARAMS["c"].astype(np.float16)), ["float16"]),
    (dict(k=K.astype(float)), ["`k` is a class", "float64", "whole numbers"]),
    (dict(k=K.astype(bool)), ["`k` is a class", "bool"]),
    (dict(k=K + 100), ["`k` has classes from", "Classes count from 0"]),
    (dict(k=K - 100), ["`k` has classes from"]),
    (dict(k=K[..., None]), ["`k`"]),
    (dict(h=X), ["`h` is given", "computed"]),
    (dict(y=X), ["`y` is given", "computed"]),
    (dict(z=X), ["`z` is given", "no such name", "The cell wants"]),
    (dict(X=X), ["`X` is given", "Did you mean `x`?"]),
    (dict(lengths=[4, 4]), ["lengths along `t`", "Expected (3,)"]),
    (dict(lengths=[4.0, 4.0, 4.0]), ["lengths along `t`", "float64"]),
    (dict(lengths=[-1, 4, 4]), ["lengths along `t`", "between 0 and 4"]),
    (dict(lengths=[5, 4, 4]), ["lengths along `t`", "between 0 and 4"]),
    (dict(lengths={"j": [4, 4, 4]}), ["`j` is no data index"]),
    (dict(lengths="abc"), ["lengths along `t`"]),
    (dict(lengths=[[1], [2, 3], [4]]), ["lengths"]),
    (dict(steps=3), ["steps=3", "`t`"]),
    (dict(steps="x"), ["steps"]),
    (dict(steps=4.0), ["steps"]),
    (dict(steps={"q": 3}), ["`q`"]),
    (dict(initial={"x": X[0]}), ["`x` has no initial value"]),
    (dict(initial={"q": X[0]}), ["`q` has no initial value"]),
    (dict(initial={"h": X[0][..., :1]}), ["initial value of `h[0]`", "Expected"]),
    (dict(initial={"h": "abc"}), ["initial value of `h`"]),
    (dict(initial={"t": "abc"}), ["`t`"]),
    (dict(initial={"t": 1.5}), ["`t`"]),
    (dict(initial=3), ["initial"]),
    (dict(noise="max"), ["noise"]),
]


@pytest.mark.parametrize("changes, phrases", DATA, ids=range(len(DATA)))
@pytest.mark.parametrize("method", ["run", "gradient"])
def test_data_that_do_not_fit_are_refused_by_name(method, changes, phrases):
    params, inputs = changed(**changes)
    with pytest.raises(CellError) as caught, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        getattr(CELL, method)(params, **inputs)
    for phrase in phrases:
        assert phrase in str(caught.value)


def test_an_input_given_by_its_place_is_asked_for_by_its_name():
    cell = Cell("h[t] = tanh(W @ x[t] + U @ h[t-1])\nL = sum_t(sum(h[t]))")
    params, x = cell.init(x=2, h=3), np.ones((4, 2))
    program = cell.compile(backend="numpy")
    for call in (cell.run, cell.gradient, cell.gradient_and_final, cell.unroll, cell.step, program.gradient,
                 program.gradient_and_final, program.forward):
        with pytest.raises(CellError, match=re.escape("An input is given by its name: `x=...`")):
            call(params, x)
    for call in (lambda: cell.gradient(params, None, x), lambda: cell.gradient(params, cotangents=x, x=x),
                 lambda: cell.unroll(params, x=x).backward(x), lambda: cell.gradient(params, 5, x=x)):
        with pytest.raises(CellError, match=r"Give a dict|Give its name"):
            call()
    with pytest.raises(CellError, match="There is no output"):
        cell.backward(x)
    assert cell.backward("h").outputs == cell.backward(["h"]).outputs


def test_the_remedy_of_a_shape_that_nothing_says_is_a_declaration():
    with pytest.raises(CellError, match=re.escape("Declare it, for instance `v: ()`, a number, or `v: (h, x)`, a")):
        Cell("y = W @ v\nP = v * M\nz[t] = M @ x[t]")


def test_an_error_about_an_array_shows_its_equation():
    params, inputs = changed(W=PARAMS["W"][0])
    with pytest.raises(CellError) as caught:
        CELL.run(params, **inputs)
    assert caught.value.line == "h[t] = tanh(W @ x[t] + U @ h[t-1] + b)" and caught.value.column == 12
    assert "Expected (h, x)" in str(caught.value)


@pytest.mark.parametrize("options, phrase", [
    (dict(loss="q"), "`q`"),
    (dict(loss="W"), "`W`"),
    (dict(cotangents={"q": X}), "`q`"),
    (dict(cotangents={"h": X}), "cotangent of `h`"),
    (dict(cotangents={"x": X}), "`x`"),
    (dict(cotangents={"h": "abc"}), "cotangent of `h`"),
    (dict(cotangents={"L": 1.0}, loss="L"), "Both"),
], ids=range(7))
def test_a_gradient_of_what_has_none(options, phrase):
    with pytest.raises(CellError) as caught:
        CELL.gradient(PARAMS, **INPUTS, **options)
    assert phrase in str(caught.value)


@pytest.mark.parametrize("sizes, phrase", [
    (dict(x=2), "`h`"), (dict(x=2, h=0, y=3), "`h`"), (dict(x=2, h=-1, y=3), "`h`"), (dict(x=2, h=2.5, y=3), "`h`"),
    (dict(x=2, h="3", y=3), "`h`"), (dict(x=2, h=True, y=3), "`h`"), (dict(x=2, h=3, y=3, q=3), "`q` names no size"),
    (dict(x=2, h=3, b=4, y=3), "contradict"), (dict(x=2, h=3, y=3, dtype=int), "dtype"),
    (dict(x=2, h=3, y=3, dtype=np.float16), "dtype"), (dict(x=2, h=3, y=3, dtype="no"), "dtype"),
    (dict(x=2, h=[3], y=3), "`h`"), (dict(x=2, h=3, y=3, seed="s"), "seed"),
], ids=range(13))
def test_sizes_that_do_not_fit(sizes, phrase):
    with pytest.raises(CellError) as caught:
        CELL.init(**sizes)
    assert phrase in str(caught.value)


@pytest.mark.parametrize("name", ["x", "W", "b", "V"])
def test_the_first_number_that_is_not_finite_is_named(name):
    bad = {**PARAMS, **INPUTS}[name].copy()
    bad[(-1,) * bad.ndim] = np.nan
    params, inputs = changed(**{name: bad})
    with pytest.raises(CellError) as caught:
        CELL.gradient(params, **inputs)
    assert f"`{name}`" in caught.value.fact and "not finite" in caught.value.fact
    assert name != "x" or "t = 4" in caught.value.fact


def test_an_overflow_is_named_by_equation_variable_and_step():
    cell = Cell("h[t] = a * h[t-1] * h[t-1] + x[t]\nL = sum_t(sum(h[t]))\na: ()")
    with pytest.raises(CellError) as caught:
        cell.gradient({"a": np.array(1.0)}, x=np.array([[1e200], [1.0], [1.0], [1.0]]))
    assert "`h` at t = 2" in caught.value.fact and caught.value.number == 1


def test_random_wrong_data_never_raise_another_exception():
    rng = np.random.default_rng(0)
    dtypes = [float, np.float32, int, bool, complex, object, "U3", np.float16, np.uint8, "M8[s]"]
    works = refused = 0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name in ("vanilla", "bahdanau", "two_layers", "clockwork", "storn", "memory_blocks"):
            cell = systems.cell(name)
            for k in range(60):
                params, inputs = systems.draw(cell, T=3, seed=k)
                for _ in range(rng.integers(1, 3)):
                    target = (params, inputs)[rng.integers(2)]
                    key = str(rng.choice(list(target)))
                    array = target[key] if key in target else np.zeros(2)
                    match rng.integers(6):
                        case 0:
                            target.pop(key, None)
                        case 1:
                            target[key + "_"] = array
                        case 2:
                            dtype = dtypes[rng.integers(len(dtypes))]
                            target[key] = np.zeros(np.shape(array), dtype) if dtype == "M8[s]" else np.asarray(
                                np.real(array)).astype(dtype)
                        case 3:
                            target[key] = np.zeros(rng.integers(0, 4, rng.integers(0, 5)))
                        case 4:
                            target[key] = np.swapaxes(array, 0, -1) if np.ndim(array) else np.zeros((1, 1))
                        case _:
                            target[key] = np.asarray(array)[..., None]
                for method in (cell.run, cell.gradient):
                    try:
                        method(params, **inputs)
                        works += 1
                    except CellError:
                        refused += 1
    assert works > 20 and refused > 200
