"""Systems that once gave a wrong number, each against what it must be."""

import os
import subprocess
import sys

import numpy as np
import pytest

from autograd_rnn import Cell, CellError


def test_a_cotangent_of_a_shared_name_is_shared():
    cell = Cell("A = W @ W.T\nh[t] = A @ h[t-1] + x[t]")
    _, gradient = cell.gradient({"W": np.ones((2, 2))}, cotangents={"A": np.ones((2, 2))}, x=np.zeros((3, 5, 2)))
    np.testing.assert_allclose(gradient["W"], 4 * np.ones((2, 2)))


@pytest.mark.parametrize("shape", [(4, 2), (2,)])
def test_a_gradient_that_is_the_same_for_all_examples_has_their_axis(shape):
    _, gradient = Cell("L = sum(w * z)\nz: input").gradient({"w": np.array([2.0, 3.0])}, z=np.ones(shape))
    np.testing.assert_allclose(gradient["z"], np.broadcast_to([2.0, 3.0], shape))


def test_a_name_that_looks_like_a_lag_copy_is_the_authors_own():
    cell = Cell("h_lag1[t] = 2 * x[t]\nh[t] = x[t] + h[t-2] + 0 * h_lag1[t]\nx: input()")
    np.testing.assert_allclose(cell.run({}, x=np.ones(4))["h"], [1, 1, 2, 2])


def test_a_call_returns_the_last_written_equation():
    inner = Cell("h[t] = x[t] + 0 * h[t-1]\ny[t] = h[t] + h[t-2]\nx: input()")
    outer = Cell("q[t] = inner(x=x[t])\nx: input()", inner=inner)
    np.testing.assert_allclose(outer.run({}, x=np.ones(4))["q"], [1, 1, 2, 2])


def test_a_sum_along_the_sequence_turns_with_the_call():
    inner = Cell("h[t] = cumsum_t(x[t]) + 0 * h[t-1]\nx: input()")
    outer = Cell("q[t] = inner(x=x[t], h=q[t+1])\nx: input()", inner=inner)
    np.testing.assert_allclose(outer.run({}, x=np.array([1.0, 2.0, 4.0]))["q"], [7, 6, 4])


def test_the_batch_is_who_has_not_ended():
    cell = Cell("m[t] = mean_batch(exp(d + x[t]))\ns[t] = sum_batch(1 + 0 * x[t])\nL = sum_t(m[t])\nx: input()\nd: ()")
    given = {"x": np.zeros((3, 2)), "lengths": [3, 1]}
    trace = cell.run({"d": 0.5}, **given)
    np.testing.assert_allclose(trace["m"][:, 0], np.exp(0.5))
    np.testing.assert_allclose(trace["s"][:, 0], [2, 1, 1])
    assert cell.check_gradients({"d": 0.5}, **given).ok


def test_an_end_of_one_index_ends_with_the_other():
    cell = Cell("h[t,j] = x[t,j] + h[t+1,j+1]\nh[T+1,j] = z\nx: input()\nz: input()")
    x, z = np.zeros((3, 3, 2)), np.ones(2)
    together = cell.run({}, x=x, z=z, lengths={"t": [3, 2], "j": [3, 2]})["h"]
    alone = cell.run({}, x=x[:2, :2, 1], z=z[1])["h"]
    np.testing.assert_allclose(together[:2, :2, 1], alone)


def test_the_last_of_two_ragged_indices():
    cell = Cell("h[t,j] = tanh(x[t,j] + 0.5 * h[t-1,j])\nL = h[T,J]\nx: input()")
    x, lengths = np.random.default_rng(0).normal(size=(4, 3, 2)), {"t": [4, 2], "j": [1, 3]}
    together = cell.run({}, x=x, lengths=lengths)["L"]
    alone = [cell.run({}, x=x[:t, :j, b])["L"] for b, (t, j) in enumerate(zip(lengths["t"], lengths["j"]))]
    np.testing.assert_allclose(together, alone)
    assert cell.check_gradients({}, x=x, lengths=lengths).ok


def test_noise_does_not_change_with_padding():
    cell = Cell("h[t] = a[t] + b[t] + x[t]\na: noise(2)\nb: noise(2)")
    short = cell.run({}, x=np.zeros((3, 2, 2)), noise=1)["h"]
    long = cell.run({}, x=np.zeros((5, 2, 2)), noise=1)["h"]
    np.testing.assert_array_equal(short, long[:3])


def test_padding_of_cotangents_does_not_count():
    cell = Cell("h[t] = tanh(u * h[t-1] + x[t])\nx: input()\nu: ()")
    seeds = np.ones((3, 2))
    seeds[2, 1] = np.nan
    value, gradient = cell.gradient({"u": 0.5}, cotangents={"h": seeds}, lengths=[3, 2], x=np.ones((3, 2)))
    assert np.isfinite(value) and np.isfinite(gradient["u"])


def test_a_preactivation_varies_only_with_what_it_reads():
    cell = Cell("e[t,j] = sum(tanh(W @ s[j]) * x[t])\nm[j] = sigmoid(W @ s[j])\n"
                "L = sum_t(sum_j(e[t,j])) + sum_j(sum(m[j]))")
    rng = np.random.default_rng(0)
    given = {"x": rng.normal(size=(3, 2, 2)), "s": rng.normal(size=(4, 2, 3))}
    assert cell.check_gradients({"W": rng.normal(size=(2, 3))}, **given).ok


@pytest.mark.parametrize("line", ["s[t] = cumsum_t(h[t])", "s[t] = h[t] - h[0]", "s[t] = h[t] - h[1]"])
def test_what_needs_the_whole_sequence_refuses_a_stretch(line):
    cell = Cell(f"h[t] = x[t] + h[t-1]\n{line}\nx: input()")
    first = cell.run({}, x=np.ones(3))
    with pytest.raises(CellError, match="sequence"):
        cell.run({}, initial=first.final, x=np.ones(3))


# --- ends ------------------------------------------------------------------------------------------------------------

GRID = """
h[t,j] = tanh(u * h[t-1,j] + v * h[t,j-1] + x[t,j])
x: input()
u: ()
v: ()
"""
CORNER = """
h[t,j] = tanh(u * h[t-1,j] + v * h[t,j-1] + 0.5 * h[t-1,j-1] + x[t+1,j] * x[t,j-1])
x: input()
u: ()
v: ()
"""


@pytest.mark.parametrize("text, ends", [
    (GRID, {"h[0,j]": (4, 2), "h[t,0]": (3, 2)}),
    (CORNER, {"h[0,j]": (4, 2), "h[t,0]": (3, 2), "x[T+1,j]": (4, 2), "x[t,0]": (3, 2)}),
])
@pytest.mark.parametrize("given", [False, True])
@pytest.mark.parametrize("lengths", [None, {"t": [3, 2], "j": [1, 4]}])
def test_each_end_of_a_name_has_its_gradient(text, ends, given, lengths):
    cell, rng = Cell(text), np.random.default_rng(0)
    run = {"x": rng.normal(size=(3, 4, 2)), "lengths": lengths}
    if given:
        run["initial"] = {key: rng.normal(size=shape) for key, shape in ends.items()}
    params = {"u": 0.5, "v": -0.3}
    report = cell.check_gradients(params, **run)
    assert report.ok and {s.name for s in report.slices} == {"x", "u", "v", *ends}
    _, gradient = cell.gradient(params, cotangents={"h": np.ones((3, 4, 2))}, **run)
    assert {key: gradient[key].shape for key in ends} == ends
    if lengths is None:
        tape = cell.unroll(params, **{k: v for k, v in run.items() if k != "lengths"}).backward(
            {"h": np.ones((3, 4, 2))})
        for key in ends:
            np.testing.assert_allclose(tape[key], gradient[key], rtol=1e-13)


def test_a_name_read_on_both_sides_has_two_ends():
    cell = Cell("y[t] = x[t+1] - x[t-1]\nx: input()")
    ends = {"x[0]": np.array(5.0), "x[T+1]": np.array(7.0)}
    np.testing.assert_allclose(cell.run({}, initial=ends, x=[1.0, 2.0])["y"], [-3, 6])
    assert cell.check_gradients({}, initial=ends, x=[1.0, 2.0]).ok
    _, gradient = cell.gradient({}, cotangents={"y": np.array([2.0, 3.0])}, x=[1.0, 2.0])
    assert (gradient["x[0]"], gradient["x[T+1]"]) == (-2, 3)
    assert cell.run({}, x=[1.0, 2.0]).final == {"x[0]": 2.0, "t": 2}
    with pytest.raises(CellError, match=r"several initial values: x\[0\], x\[T\+1\]"):
        cell.run({}, initial={"x": 1.0}, x=[1.0, 2.0])


def test_an_only_end_goes_by_its_name_or_its_position():
    cell = Cell("h[t] = h[t-1] + x[t]\nx: input()")
    for key in ("h", "h[0]"):
        np.testing.assert_allclose(cell.run({}, initial={key: 1.0}, x=[1.0, 2.0])["h"], [2, 4])
    with pytest.raises(CellError, match="given twice"):
        cell.run({}, initial={"h": 1.0, "h[0]": 1.0}, x=[1.0, 2.0])


def test_a_grid_goes_on_along_time():
    cell, x = Cell(GRID), np.random.default_rng(0).normal(size=(5, 4, 2))
    params, left = {"u": 0.5, "v": -0.3}, np.random.default_rng(1).normal(size=(5, 2))
    whole = cell.run(params, initial={"h[t,0]": left}, x=x)["h"]
    final = cell.run(params, initial={"h[t,0]": left[:3]}, x=x[:3]).final
    assert set(final) == {"h[0,j]", "t"} and final["t"] == 3
    np.testing.assert_allclose(cell.run(params, initial={**final, "h[t,0]": left[3:]}, x=x[3:])["h"], whole[3:])
    _, gradients, carried = cell.gradient_and_final(params, cotangents={"h": x[:3]}, x=x[:3],
                                                    initial={"h[t,0]": left[:3]})
    assert carried.keys() == final.keys() and {"h[0,j]", "h[t,0]"} <= gradients.keys()


def test_ends_stand_in_the_same_order_whatever_the_hash_seed():
    code = f"from autograd_rnn import Cell; print(Cell({CORNER!r}).system.delayed)"
    runs = [subprocess.run([sys.executable, "-c", code], env={**os.environ, "PYTHONHASHSEED": seed}, check=True,
                           capture_output=True, text=True).stdout for seed in ("0", "1", "2", "3")]
    assert len(set(runs)) == 1


def test_a_complex_initial_value_makes_the_run_complex():
    cell = Cell("h[t] = u * h[t-1] + x[t]\nx: input()\nu: ()")
    trace = cell.run({"u": 0.5}, initial={"h": 2j}, x=[1.0, 0.0])
    np.testing.assert_allclose(trace["h"], [1 + 1j, 0.5 + 0.5j])
    single = cell.run({"u": np.float32(0.5)}, initial={"h": np.complex64(2j)}, x=np.ones(2, np.float32))
    assert single["h"].dtype == np.complex64


# --- stretches -------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("line, what", [
    ("y[t] = t / T", "`T`"), ("y[t] = where(t == T, x[t], 0)", "`T`"), ("y[t] = x[t] - mean_t(x[t])", "`sum_t`"),
    ("n = 2 * T\ny[t] = x[t] / n", "`T`"), ("m = max_t(x[t])\ny[t] = x[t] / m", "`max_t`"),
    ("L = sum_t(x[t] / T)", "`T`"), ("y[t] = T", "`T`"), ("y[t] = y[t+1] + x[t]", "ahead"), ("y[t] = x[t+1]", "ahead"),
    ("y[t] = y[t+1] + x[t]\ny[T+1] = c", "ahead"),
])
def test_a_stretch_refuses_what_only_the_whole_sequence_tells(line, what):
    cell = Cell(f"h[t] = x[t] + h[t-1]\n{line}\nx: input()")
    params = {"c": 1.0} if "c" in cell.parameters else {}
    final = cell.run(params, x=np.ones(3)).final
    with pytest.raises(CellError, match="sequence") as caught:
        cell.run(params, initial=final, x=np.ones(3))
    assert what in caught.value.fact


@pytest.mark.parametrize("end, read", [("y[t,0] = x[t]", "y[t-1,l-1]"), ("y[t,0] = x[t]", "y[t-2,l-1]"),
                                       ("y[t,L+1] = x[t]", "y[t-1,l+1]"), ("y[t,0] = x[t]", "y[t-1,0]")])
def test_a_stretch_refuses_the_end_of_another_index_at_a_step_before(end, read):
    """y[t-1,l-1] at the first step of a stretch would read y[t,0] of a step that it does not have."""
    cell = Cell(f"l: axis\nx: input()\n{end}\ny[t,l] = {read} + x[t]")
    final = cell.run({"l": 2}, x=np.arange(3.0)).final
    with pytest.raises(CellError, match="is an end along another index"):
        cell.run({"l": 2}, x=np.arange(3.0), initial=final)
    plain = Cell("l: axis\nx: input()\ny[t,0] = 0\ny[t,l] = y[t-1,l-1] + x[t]")
    whole = plain.run({"l": 2}, x=np.arange(6.0))["y"]
    final = plain.run({"l": 2}, x=np.arange(3.0)).final
    np.testing.assert_array_equal(plain.run({"l": 2}, x=np.arange(3.0, 6.0), initial=final)["y"], whole[3:])


def test_a_stretch_is_told_what_follows_it():
    cell = Cell("y[t] = 0.5 * y[t+1] + x[t]\nx: input()")
    x = np.arange(5.0)
    whole = cell.run({}, x=x)["y"]
    stretch = cell.run({}, initial={"t": 1, "y": whole[3]}, x=x[1:3])
    np.testing.assert_allclose(stretch["y"], whole[1:3])


def test_averages_over_a_stretch_are_its_own():
    cell = Cell("h[t] = h[t-1] + x[t] * t\nm[t] = mean_batch(h[t])\nl[t] = (h[t] - m[t])**2\nx: input()\n"
                "L = sum_batch(sum_t(l[t])) / sum_batch(T)\nM = mean_t(l[t])\nk[t] = sum_batch(t <= T)")
    x = np.random.default_rng(0).normal(size=(5, 2))
    whole = cell.run({}, x=x)
    for lengths in (None, [3, 2]):
        before = cell.run({}, x=x[:2], lengths=lengths and [2, 1]).final
        part = cell.run({}, initial=before, x=x[2:], lengths=lengths)
        steps = np.array(lengths or [3, 3])
        assert part["L"] == pytest.approx(part["l"].sum() / steps.sum())
        np.testing.assert_allclose(part["M"], part["l"].sum(0) / steps)
        np.testing.assert_allclose(part["k"][:, 0], [2, 2, 2] if lengths is None else [2, 2, 1])
        assert cell.check_gradients({}, loss="L", initial=before, x=x[2:], lengths=lengths).ok
    np.testing.assert_allclose(cell.run({}, initial=cell.run({}, x=x[:2]).final, x=x[2:])["l"], whole["l"][2:])


def test_ragged_examples_of_a_cell_that_counts_go_on_each_from_its_own_step():
    cell = Cell("h[t] = h[t-1] + t * x[t]\nx: input()")
    x = np.random.default_rng(0).normal(size=(7, 2))
    final = cell.run({}, x=x[:4], lengths=[4, 2]).final
    assert final["t"].tolist() == [4, 2]
    following = np.stack([x[4:7, 0], x[2:5, 1]], axis=1)
    part = cell.run({}, initial=final, x=following)
    for b, start in enumerate((4, 2)):
        np.testing.assert_allclose(part["h"][:, b], cell.run({}, x=x[:, b])["h"][start:start + 3])
    assert part.final["t"].tolist() == [7, 5]
    assert cell.check_gradients({}, initial=final, x=following).ok
    assert cell.run({}, x=x[:4, 0], lengths=[3]).final["t"] == 3
    with pytest.raises(CellError, match="number of steps"):
        cell.run({}, initial={"t": [1, 2, 3]}, x=x)
    with pytest.raises(CellError, match="`x` at t = 4 is not finite"):
        cell.gradient({}, cotangents={"h": np.ones((2, 2))}, initial=final, x=np.array([[1, 1], [1, np.inf]]))


def test_a_cell_without_states_goes_on_counting():
    cell = Cell("y[t] = t * x[t]\nx: input()")
    final = cell.run({}, x=np.ones(3)).final
    assert cell.run({}, initial=final, x=np.ones(2))["y"].tolist() == [4, 5]


# --- training --------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("lengths", [[3, 2], {"t": [3, 2]}])
def test_padding_of_any_input_may_hold_anything_while_training(lengths):
    from autograd_rnn.learn import Batch, Batches, sgd, train

    cell = Cell("h[t] = tanh(w * h[t-1] + x[t] + z)\nL = sum_t(h[t]**2)\nx: input()\nz: input()\nw: ()")
    x = np.ones((3, 2))
    x[2, 1] = np.nan

    def end(x, z):
        batches = Batches(1, lambda n: Batch({"x": x, "z": z}, 1, lengths=lengths))
        (point,) = train(cell, {"w": 0.5}, batches, 1, sgd(0.1))
        return point.params["w"]

    assert end(x, np.ones(2)) == end(np.where(np.isnan(x), 0, x), np.ones(2))
    with pytest.raises(CellError, match=r"`z` is not finite at \[1\]"):
        end(x, np.array([1.0, np.nan]))
    x[1, 1] = np.nan
    with pytest.raises(CellError, match=r"`x` is not finite at \[1, 1\]"):
        end(x, np.ones(2))


def test_optimisers_take_floats_and_refuse_whole_numbers():
    from autograd_rnn.learn import adam, sgd

    params, _ = sgd(0.5).update({"w": 1.0, "l": 3}, {"w": 2.0}, {})
    assert params["w"] == 0.0 and params["l"] == 3
    for whole in (1, np.array([1, 2])):
        with pytest.raises(CellError, match="whole numbers"):
            adam().update({"w": whole}, {"w": np.ones(np.shape(whole))}, {})


@pytest.mark.parametrize("name", ["params", "initial", "lengths", "steps", "noise", "cotangents", "seed", "dtype"])
def test_names_of_arguments_cannot_be_given(name):
    with pytest.raises(CellError, match="argument"):
        Cell(f"h[t] = tanh(W @ {name}[t] + U @ h[t-1])")


def test_a_character_model_does_not_read_ahead():
    from autograd_rnn.learn import character_model

    with pytest.raises(CellError, match="ahead of its step"):
        character_model(Cell("h[t] = tanh(W @ x[t] + U @ h[t+1])"))


def test_a_report_with_nan_is_not_ok():
    from autograd_rnn.check import Report, Slice

    assert not Report([Slice("a", None, 1e-15, 1.0), Slice("b", None, float("nan"), 1.0)]).ok
