"""Systems that once gave a wrong number, each against what it must be."""

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


def test_ragged_examples_of_a_cell_that_counts_cannot_go_on_together():
    cell = Cell("h[t] = h[t-1] + t * x[t]\nx: input()")
    final = cell.run({}, x=np.ones((4, 2)), lengths=[4, 2]).final
    with pytest.raises(CellError, match="number of steps"):
        cell.run({}, initial=final, x=np.ones((4, 2)))


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
