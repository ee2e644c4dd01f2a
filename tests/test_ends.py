"""What lies just outside: defined, given, both, read as such. Every path gives the numbers worked out by hand."""

import pickle
from importlib.util import find_spec, module_from_spec, spec_from_file_location

import numpy as np
import pytest

from autograd_rnn import Cell, CellError

BACKENDS = ("numpy", *["llvm"] * (find_spec("llvmlite") is not None))


def agree(cell, params, true, value=None, cotangents=None, **given):
    """Reference, tape, complex step and programs give these gradients, and no others, and this value."""
    tape = None if "lengths" in given else cell.unroll(params, **given).backward(cotangents)
    programs = [cell.compile(backend=b) for b in BACKENDS]
    for found in (tape, *(p.gradient(params, cotangents=cotangents, **given) for p in (cell, *programs))):
        if isinstance(found, tuple):
            assert value is None or found[0] == pytest.approx(value, rel=1e-13)
            found = found[1]
        if found is not None:
            assert set(found) == set(true)
            for name, g in true.items():
                assert np.shape(found[name]) == np.shape(g), name
                np.testing.assert_allclose(found[name], g, rtol=1e-13, atol=1e-15, err_msg=name)
    assert cell.check_gradients(params, cotangents=cotangents, **given).ok


# --- one rule for ends, defined or not -------------------------------------------------------------------------------

DEFINED = Cell("h[t] = tanh(u * h[t-1] + x[t])\nh[0] = 2 * c\nL = sum_t(h[t])\nu: ()\nc: ()\nx: input()")


def by_hand(h0, u=0.5):
    """h over three steps of ones, and the gradients of its sum: du, dx, dh[0]."""
    h = [h0]
    for _ in range(3):
        h.append(np.tanh(u * h[-1] + 1))
    da, du, dx = 0.0, 0.0, []
    for t in (3, 2, 1):
        da = (1 + u * da) * (1 - h[t] ** 2)
        du, dx = du + da * h[t - 1], [da, *dx]
    return sum(h[1:]), {"u": du, "x": dx, "h[0]": u * da}


def test_an_end_that_the_text_defines_has_its_gradient_and_hands_it_on():
    value, true = by_hand(0.6)
    agree(DEFINED, {"u": 0.5, "c": 0.3}, {**true, "c": 2 * true["h[0]"]}, value, x=np.ones(3))
    report = DEFINED.check_gradients({"u": 0.5, "c": 0.3}, x=np.ones(3))
    assert {s.name for s in report.slices} == {"u", "c", "x", "h[0]"}


def test_what_only_an_overridden_end_reads_has_a_gradient_of_zero_where_it_is_given():
    value, true = by_hand(2.0)
    agree(DEFINED, {"u": 0.5, "c": 0.3}, {**true, "c": 0.0}, value, x=np.ones(3), initial={"h[0]": 2.0})
    agree(DEFINED, {"u": 0.5}, true, value, x=np.ones(3), initial={"h[0]": 2.0})


def test_an_end_made_of_another_end_hands_its_gradient_on():
    """a[0] = 2 b[0] = 6 c; a[t] = a[t-1] + x[t]: each end moves all three steps."""
    cell = Cell("a[t] = a[t-1] + x[t]\nb[t] = b[t-1]\na[0] = 2 * b[0]\nb[0] = 3 * c\nc: ()\nx: input()\n"
                "L = sum_t(a[t] + b[t])")
    agree(cell, {"c": 1.0}, {"c": 27.0, "x": [3, 2, 1], "a[0]": 3.0, "b[0]": 9.0}, 33.0, x=np.ones(3))


def test_the_loss_of_a_tape_is_the_cells_loss():
    """With its end overridden, `s` is a number that nothing reads, and stands last."""
    cell = Cell("h[t] = u * h[t-1] + x[t]\nh[0] = s\nL = sum_t(h[t])\ns = w**2\nu: ()\nw: ()\nx: input()")
    found = cell.unroll({"u": 1.0, "w": 3.0}, x=np.ones(2), initial={"h[0]": 5.0}).backward()
    assert {n: np.asarray(g).tolist() for n, g in found.items()} == {"u": 16, "w": 0, "x": [2, 1], "h[0]": 2}


# --- what is left when an equation is dropped ------------------------------------------------------------------------


def test_a_size_that_only_an_overridden_end_shares():
    """p and a have one size because b links them; W shows it. L = 3 x 6 + 2 (4 + 7 + 10 + 13)."""
    cell = Cell("p[j] = W @ x[j]\na[t] = a[t-1] + V @ y[t]\na[0] = tanh(b)\nb: (p)\n"
                "L = sum_j(sum(p[j])) + sum_t(sum(a[t]))")
    params = {"W": np.ones((2, 3)), "V": np.ones((2, 3)), "b": np.ones(2)}
    true = {"W": np.full((2, 3), 3), "V": np.full((2, 3), 10), "b": np.zeros(2), "x": np.full((3, 3), 2),
            "y": np.array([[8.0], [6], [4], [2]]) * np.ones(3), "a[0]": [4, 4]}
    agree(cell, params, true, 86.0, x=np.ones((3, 3)), y=np.ones((4, 3)), initial={"a[0]": np.ones(2)})


@pytest.mark.parametrize("given", [{"b": np.ones(2), "c": np.ones(3)}, {}])
def test_a_matrix_that_only_an_overridden_end_tells(given):
    """A[t] = 2^t A[0]: the sum of 30 A[0] over four steps, whether b and c are given or not."""
    cell = Cell("A[t] = A[t-1] * s[t]\nA[0] = outer(b, c)\ns: input()\nL = sum_t(sum(A[t]))")
    start, s = np.arange(6.0).reshape(2, 3), np.full(4, 2.0)
    true = {"s": 15 * np.array([15, 14, 12, 8]), "A[0]": np.full((2, 3), 30), **{n: 0 * v for n, v in given.items()}}
    agree(cell, given, true, 450.0, s=s, initial={"A[0]": start})
    trace = cell.run(given, s=s, initial={"A[0]": start})
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(trace))["A"][-1], 16 * start)
    tape = pickle.loads(pickle.dumps(cell.unroll(given, s=s, initial={"A[0]": start})))
    np.testing.assert_array_equal(tape.backward()["A[0]"], np.full((2, 3), 30))


def test_a_matrix_that_only_another_output_tells():
    """z says that A is a matrix, and is not what is differentiated: A[t] = t K, weighted by 0, 1, 2, 3."""
    cell = Cell("A[t] = A[t-1] * s[t] + K\nz[t] = A[t] @ x[t]\no[t] = sum(A[t])\nr[t] = sum(z[t])\ns: input()")
    true = {"K": np.full((2, 3), 20), "s": [0, 90, 150, 135], "x": np.zeros((4, 3)), "A[0]": np.full((2, 3), 6)}
    given = {"s": np.ones(4), "x": np.ones((4, 3))}
    agree(cell, {"K": np.arange(6.0).reshape(2, 3)}, true, 300.0, {"o": np.arange(4.0)}, **given)


def test_a_declaration_that_names_what_only_an_overridden_end_reads():
    cell = Cell("a[t] = a[t-1] + b * x[t]\na[0] = p\nb: (p)\nL = sum_t(sum(a[t]))")
    true = {"b": [6, 6], "p": [0, 0], "a[0]": [3, 3], "x": np.array([[3.0], [2], [1]]) * np.ones(2)}
    agree(cell, {"p": np.ones(2), "b": np.ones(2)}, true, 12.0, x=np.ones((3, 2)), initial={"a[0]": np.zeros(2)})


def test_noise_is_noise_when_an_end_is_overridden():
    cell = Cell("e: noise\np: ()\na[t] = a[t-1] + e[t]\na[0] = p")
    np.testing.assert_allclose(cell.run({"p": 1.0}, steps=3, noise=0, initial={"a[0]": 0.0})["a"] + 1,
                               cell.run({"p": 1.0}, steps=3, noise=0)["a"])


def test_a_value_given_just_outside_shows_its_size():
    cell = Cell("A[t] = A[t-1] * s[t]\ns: input()")
    for s, start in ((np.ones(4), np.ones(2)), (np.ones((4, 5)), np.ones((5, 2))), (np.ones((4, 5)), np.ones(2))):
        assert cell.run({}, s=s, initial={"A[0]": start})["A"].shape == (*s.shape, 2)
    with pytest.raises(CellError, match=r"The initial value of `A\[0\]` has shape \(5, 2\)"):
        cell.run({}, s=np.ones(4), initial={"A[0]": np.ones((5, 2))})


# --- what is reached through ends alone ------------------------------------------------------------------------------


def test_a_shared_number_over_a_model_index_with_an_end():
    cell = Cell("l: axis\ny[l] = sin(b[l]) + 2 * y[l-1]\nf = sum_l(y[l])\ny[0] = r\nr: ()\nb: ()")
    b = np.array([0.2, 0.7])  # y[1] = sin b[1] + 2 r, y[2] = sin b[2] + 2 sin b[1] + 4 r
    agree(cell, {"b": b, "r": 1.5}, {"b": np.array([3, 1]) * np.cos(b), "r": 6.0}, 9 + np.sin(b) @ [3, 1])


def test_what_is_reached_through_an_outside_end_alone_has_a_gradient_of_zero():
    """o[T+1] is zero: no equation says otherwise, so nothing reaches a or W."""
    cell = Cell("a[t] = mean(W @ x[t]) + a[t-1]\no[t] = sin(0.3 * a[t])\nL = sum_t(mean(x[t])) + o[T+1]")
    W, x = np.ones((2, 3)), np.ones((4, 3))
    agree(cell, {"W": W}, {"W": 0 * W, "x": x / 3, "a[0]": 0.0, "o[T+1]": 1.0}, 4.0, x=x)
    assert cell.derivation().check(points=2).ok
    assert "da" not in cell.backward().system.defined and "da_tm1" not in cell.derivation().text()
    read = Cell("L = 2 * x[T+1] + sum_t(y[t])\nx: input()\ny: input()")
    y, none = np.ones(3), np.zeros(3)
    agree(read, {}, {"x": none, "y": y, "x[T+1]": 2.0}, 3.0, x=y, y=y)
    agree(read, {}, {"x": none, "y": y, "x[T+1]": 2.0}, 4.0, x=y, y=y, initial={"x": 0.5})


def test_a_recurrence_that_no_cotangent_reaches():
    """0 * a[T] sends nothing back, so that da would only read itself."""
    cell = Cell("a[t] = mean(W @ x[t]) + a[t-1]\nL = sum_t(mean(x[t])) + 0 * a[T]")
    W, x = np.ones((2, 3)), np.ones((4, 3))
    agree(cell, {"W": W}, {"W": 0 * W, "x": x / 3, "a[0]": 0.0}, 4.0, x=x)


def test_an_outside_end_that_is_read_as_such_has_a_gradient_that_is_proved():
    cell, x = Cell("f[t] = sin(x[T+1] + 0.5 * x[t])\nL = sum_t(f[t])\nx: input()"), np.array([0.1, 0.4, -0.2])
    slope = np.cos(0.3 + 0.5 * x)
    true = {"x": 0.5 * slope, "x[T+1]": slope.sum()}
    agree(cell, {}, true, np.sin(0.3 + 0.5 * x).sum(), x=x, initial={"x[T+1]": 0.3})
    assert cell.derivation().check(points=3).ok


def test_a_saved_file_takes_noise_that_its_outputs_do_not_reach(tmp_path):
    cell = Cell("h[t] = w * x[t]\nz[t] = h[t] + e[t] + c\nw: ()\nc: ()\nx: input()\ne: noise()")
    cell.compile(["h"], backend="numpy").save(tmp_path / "saved.py")
    spec = spec_from_file_location("saved", tmp_path / "saved.py")
    saved = module_from_spec(spec)
    spec.loader.exec_module(saved)
    column = np.ones((3, 1))
    values = {"w": 2.0, "x": column, "Delta_h": column}
    for beside in ({}, {"e": column, "c": 1.0}):
        found = saved.gradient({**values, **beside})
        assert found["w"] == 3 and found.get("c", 0) == 0 and (found["x"] == 2).all()
    with pytest.raises(ValueError, match="'e' has shape"):
        saved.gradient({**values, "e": np.ones(3)})


# --- one spelling, one check -----------------------------------------------------------------------------------------

FAR = Cell("s[t] = g * s[t-3] + x[t]\nx: input()\ng: ()")
FAR_GIVEN = {"x": np.ones(4)}
INFINITE = {"initial": {"s[-1]": np.inf}, "cotangents": {"s": np.ones(4)}}
TOLD = {
    "an unknown initial value": lambda: FAR.run({"g": 0.5}, **FAR_GIVEN, initial={"q": 1.0}),
    "a copy's name": lambda: FAR.run({"g": 0.5}, **FAR_GIVEN, initial={"s_lag1[0]": 1.0}),
    "too far": lambda: FAR.run({"g": 0.5}, **FAR_GIVEN, initial={"s[-7]": 1.0}),
    "a shape": lambda: FAR.run({"g": 0.5}, **FAR_GIVEN, initial={"s[-1]": np.ones(3)}),
    "not finite": lambda: FAR.gradient({"g": 0.5}, **FAR_GIVEN, **INFINITE),
    "a cotangent": lambda: FAR.gradient({"g": 0.5}, **FAR_GIVEN, cotangents={"q": np.ones(4)}),
    "an output": lambda: FAR.backward(["q"]),
    "what follows": lambda: Cell("s[t] = g * s[t+3] + x[t]").run({"g": 0.5}, **FAR_GIVEN, initial={"t": 1}),
    "a size": lambda: Cell("s[t] = G @ s[t-3] + V @ x[t]").init(x=2),
    "a state": lambda: FAR.step({"g": 0.5}, {"q": 1.0}, x=1.0),
}


@pytest.mark.parametrize("what", TOLD)
def test_no_message_names_a_copy_that_nobody_wrote(what):
    with pytest.raises(CellError) as caught:
        TOLD[what]()
    told = str(caught.value).replace("`s_lag1[0]` has no initial", "")  # the asker's own word
    assert "_lag" not in told and "_lead" not in told


def test_every_value_outside_has_one_key():
    cell = Cell("h[t,j] = tanh(u * h[t+2,j-1] + x[t,j])\nx: input()\nu: ()")
    assert list(cell.system.initials) == list(cell.system.labels.values()) == ["h[T+1,j]", "h[t,0]", "h[T+2,j-1]"]
    assert list(FAR.system.initials) == ["s", "s[0]", "s[-1]", "s[-2]"]


X = np.ones(3)
BY_PLACE = {
    "check_gradients": lambda: DEFINED.check_gradients({"u": 0.5, "c": 0.3}, X),
    "gradient": lambda: DEFINED.gradient({"u": 0.5, "c": 0.3}, X),
    "a program": lambda: DEFINED.compile(backend="numpy").gradient({"u": 0.5, "c": 0.3}, X),
    "a program's cotangents": lambda: DEFINED.compile().gradient({"u": 0.5, "c": 0.3}, cotangents=X, x=X),
    "a tape's cotangents": lambda: DEFINED.unroll({"u": 0.5, "c": 0.3}, x=X).backward(X),
    "run": lambda: DEFINED.run({"u": 0.5, "c": 0.3}, X),
}


@pytest.mark.parametrize("name", BY_PLACE)
def test_an_array_given_by_its_place_is_told_its_name(name):
    with pytest.raises(CellError, match=r"`x=\.\.\.`"):
        BY_PLACE[name]()


@pytest.mark.parametrize("wrong, what", [
    ({"cotangents": {"q": X}}, "no equation defines"), ({"cotangents": {"h": np.ones(4)}}, "has shape"),
    ({"cotangents": {}}, "no cotangents"), ({"loss": "h"}, "is no loss"),
    ({"loss": "L", "cotangents": {"h": X}}, "Both"),
])
def test_a_tape_and_a_check_take_what_a_gradient_takes(wrong, what):
    params = {"u": 0.5, "c": 0.3}
    for ask in (DEFINED.gradient, DEFINED.check_gradients):
        with pytest.raises(CellError, match=what):
            ask(params, x=X, **wrong)
    with pytest.raises(CellError, match=what):
        DEFINED.unroll(params, x=X).backward(**wrong)
