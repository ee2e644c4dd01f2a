"""Variants are substitutions: Greff's eight LSTMs from one text, against plain NumPy."""

from __future__ import annotations

import numpy as np
import pytest
import systems

from autograd_rnn import Cell, CellError

LSTM = systems.cell("peephole")
LINE = {line.split("[")[0]: line for line in systems.TEXTS["peephole"].strip().split("\n")}
OUTSIDE = {
    "i": "i[t] = sigmoid(W_i @ x[t] + U_i @ h[t-1] + b_i)",
    "f": "f[t] = sigmoid(W_f @ x[t] + U_f @ h[t-1] + b_f)",
    "o": "o[t] = sigmoid(W_o @ x[t] + U_o @ h[t-1] + b_o)",
}
GATES = {gate: {f"W_{gate}", f"U_{gate}", f"b_{gate}", f"p_{gate}"} for gate in "ifo"}

# variant -> (changes, the lines that differ from the LSTM's, the parameters that vanish)
VARIANTS = {
    "V": ({}, {}, set()),
    "NIG": ({"i": 1}, {"i": None, "c": "c[t] = f[t] * c[t-1] + g[t]"}, GATES["i"]),
    "NFG": ({"f": 1}, {"f": None, "c": "c[t] = c[t-1] + i[t] * g[t]"}, GATES["f"]),
    "NOG": ({"o": 1}, {"o": None, "h": "h[t] = tanh(c[t])"}, GATES["o"]),
    "NIAF": ({"g": "W_g @ x[t] + U_g @ h[t-1] + b_g"}, {"g": "g[t] = W_g @ x[t] + U_g @ h[t-1] + b_g"}, set()),
    "NOAF": ({"h": "o[t] * c[t]"}, {"h": "h[t] = o[t] * c[t]"}, set()),
    "NP": ({"p_i": 0, "p_f": 0, "p_o": 0}, OUTSIDE, {"p_i", "p_f", "p_o"}),
    "CIFG": ({"f": "1 - i[t]"}, {"f": "f[t] = 1 - i[t]"}, GATES["f"]),
}


def sigmoid(v):
    return 1 / (1 + np.exp(-v))


def lstm(p, x, variant):
    """The peephole LSTM of Greff et al. 2015 and its variants, step by step: h for every step."""
    p = {**{f"p_{g}": 0.0 for g in "ifo"}, **p}
    h = c = np.zeros((x.shape[1], p["U_g"].shape[0]))
    shown = []

    def gate(name, peep):
        return sigmoid(x_t @ p[f"W_{name}"].T + h @ p[f"U_{name}"].T + p[f"p_{name}"] * peep + p[f"b_{name}"])

    for x_t in x:
        i = 1.0 if variant == "NIG" else gate("i", c)
        f = 1.0 if variant == "NFG" else 1 - i if variant == "CIFG" else gate("f", c)
        g = x_t @ p["W_g"].T + h @ p["U_g"].T + p["b_g"]
        g = g if variant == "NIAF" else np.tanh(g)
        new = f * c + i * g
        o = 1.0 if variant == "NOG" else gate("o", new)
        c, h = new, o * (new if variant == "NOAF" else np.tanh(new))
        shown.append(h)
    return np.array(shown)


@pytest.mark.parametrize("variant", VARIANTS)
def test_greffs_variants(variant):
    changes, lines, gone = VARIANTS[variant]
    cell = LSTM.substitute(**changes)
    expected = [text for text in {**LINE, **lines}.values() if text]
    assert str(cell).split("\n") == expected
    assert set(LSTM.parameters) - set(cell.parameters) == gone
    params, inputs = systems.draw(cell, T=6, batch=3)
    h = cell.run(params, **inputs)["h"]
    assert np.abs(h - lstm(params, inputs["x"], variant)).max() < 1e-14
    assert cell.check_gradients(params, **inputs).ok
    assert (cell == LSTM) == (variant == "V")


def test_the_variants_differ_from_one_another():
    """The NumPy formula would tell them apart: the same numbers through two variants disagree."""
    params, inputs = systems.draw(LSTM, T=6, batch=3)
    shown = [lstm(params, inputs["x"], variant) for variant in VARIANTS if variant != "NP"]
    for k, a in enumerate(shown):
        for b in shown[:k]:
            assert np.abs(a - b).max() > 1e-3


def test_a_chain_of_substitutions():
    both = LSTM.substitute(p_i=0).substitute(p_f=0).substitute(p_o=0).substitute(f="1 - i[t]")
    once = LSTM.substitute(p_i=0, p_f=0, p_o=0, f="1 - i[t]")
    assert both == once and str(both) == str(once)
    assert once.substitute(f=LINE["f"].split(" = ")[1]).substitute(p_f=0) == LSTM.substitute(p_i=0, p_f=0, p_o=0)


def test_comments_and_untouched_lines_survive():
    text = """# the cell of Elman
h[t] = tanh(W @ x[t] + U @ h[t-1]  +  b)   # spaced as the author likes
y[t] = V @ h[t] + c                        # read-out"""
    cell = Cell(text).substitute(c=0)
    assert "h[t] = tanh(W @ x[t] + U @ h[t-1]  +  b)   # spaced as the author likes" in cell.text
    assert "y[t] = V @ h[t]" in cell.text and "# the cell of Elman" in cell.text and "# read-out" in cell.text


def test_ends_are_keys_too():
    cell = Cell("h[0] = h0\nh[t] = tanh(W @ x[t] + U @ h[t-1])")
    changed = cell.substitute(**{"h[0]": "tanh(h1)"})
    assert str(changed) == "h[0] = tanh(h1)\nh[t] = tanh(W @ x[t] + U @ h[t-1])"
    assert changed.parameters == ("h1", "W", "U")
    assert str(cell.substitute(h="W @ x[t] + h[t-1]")) == "h[0] = h0\nh[t] = W @ x[t] + h[t-1]"


def test_a_definition_is_added_for_a_parameter():
    """A parameter is replaced by an expression where it stands."""
    cell = Cell("h[t] = tanh(W @ x[t] + U @ h[t-1])").substitute(U="A - A.T")
    params, inputs = systems.draw(cell)
    want = np.zeros((2, params["A"].shape[0]))
    skew = params["A"] - params["A"].T
    for x_t, h_t in zip(inputs["x"], cell.run(params, **inputs)["h"]):
        want = np.tanh(x_t @ params["W"].T + want @ skew.T)
        assert np.abs(h_t - want).max() < 1e-15


def test_a_sum_keeps_its_brackets():
    """What is put in place of a name is one operand."""
    cell = Cell("h[t] = a * x[t] - b\na: ()\nx: input(2)").substitute(a="sum(c + d)", b="e - c")
    assert cell.text.startswith("h[t] = sum(c + d) * x[t] - (e - c)")


@pytest.mark.parametrize("expression, folded", [
    ("a * x[t]", {0: "0", 1: "x[t]", 2: "2 * x[t]", -1: "-1 * x[t]", 0.5: "0.5 * x[t]"}),
    ("x[t] + a", {0: "x[t]", 3: "x[t] + 3"}),
    ("x[t] - a", {0: "x[t]"}),
    ("a - x[t]", {0: "-x[t]", 1: "1 - x[t]"}),
    ("x[t] / a", {1: "x[t]"}),
    ("(1 - a) * x[t]", {0: "x[t]", 1: "0"}),
    ("x[t] + (a + 1) * x[t]", {2: "x[t] + 3 * x[t]"}),
])
def test_constants_fold_where_that_changes_nothing(expression, folded):
    for number, text in folded.items():
        cell = Cell(f"h[t] = {expression} + y[t]\na: ()").substitute(a=number)
        assert str(cell) == f"h[t] = {text} + y[t]".replace("= 0 + ", "= ")
        rng = np.random.default_rng(0)
        x, y = rng.normal(size=(2, 3, 4))
        given = {"y": y} if "x[t]" not in str(cell) else {"x": x, "y": y}
        want = eval(expression, {}, {"a": number, "x": {0: x}, "t": 0}) + y
        assert np.abs(cell.run({}, **given)["h"] - want).max() < 1e-15


def test_brackets_between_products_stay():
    cell = Cell("h[t] = (U @ x[t]) * r[t] + p * x[t] + ((r[t] * x[t]) @ V.T) / 2\n"
                "p: ()\nx: input(2, 2)\nr: input(2, 2)\nV: (2, 2)\nU: (2, 2)").substitute(p=0)
    assert cell.text.startswith("h[t] = (U @ x[t]) * r[t] + ((r[t] * x[t]) @ V.T) / 2")


def test_what_is_read_at_another_step_is_not_folded():
    """h[t-1] with h[t] = 1 is 0 before the first step."""
    cell = Cell("h[t] = tanh(W @ x[t])\ny[t] = h[t-1] + h[t] + x[t]")
    changed = cell.substitute(h=1)
    x = np.ones((3, 2))
    assert changed.run({}, x=x)["y"].tolist() == [[2, 2], [3, 3], [3, 3]]


@pytest.mark.parametrize("changes, phrase", [
    ({"q": 1}, "`q` stands nowhere"), ({"f": "1 - "}, "not an expression"), ({"f": "1 - i[t"}, "not an expression"),
    ({"f": "1 - j[s]"}, "`s`"), ({"f": "__import__('os')"}, "has no meaning"), ({"f": ""}, ""),
    ({"f": "tahn(i[t])"}, "tahn"), ({"W_i": "W_i = 3"}, ""), ({"f": "1\nq = 2"}, ""), ({"f": None}, ""),
    ({"f": "i[t]\nz[t] = x[t]"}, ""), ({"p_i": "1\nq = 2"}, ""), ({"h[7]": "0"}, "`h[7]`"), ({"f": float("nan")}, ""),
    ({"p_i": float("inf")}, ""), ({"f": [1]}, ""), ({"p_i": True}, ""), ({"sigmoid": "tanh"}, "sigmoid"),
])
def test_a_substitution_that_makes_no_sense(changes, phrase):
    with pytest.raises(CellError) as caught:
        LSTM.substitute(**changes)
    assert phrase in str(caught.value)
