"""The reference evaluator in every dtype, and what it keeps of memory and of bits."""

import numpy as np
import pytest
import systems

from autograd_rnn import Cell, CellError, zoo

LOSS = "\nL = sum_t(sum(h[t]**2))"


def cast(values, dtype):
    return {n: v.astype(dtype) if v.dtype.kind == "f" else v for n, v in values.items()}


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.longdouble])
@pytest.mark.parametrize("name", systems.TEXTS)
def test_results_have_the_parameters_dtype(name, dtype):
    cell = systems.cell(name)
    params, inputs = systems.draw(cell)
    given = {**cast(inputs, dtype), **systems.steps(cell)}
    if not cell.parameters:
        pytest.skip("no parameters")
    trace = cell.run(cast(params, dtype), **given)
    exact = cell.run(params, **inputs, **systems.steps(cell))
    eps = np.finfo(dtype).eps
    for variable in trace:
        if cell.system.roles[variable] != "class":
            assert trace[variable].dtype == dtype, variable
            np.testing.assert_allclose(trace[variable], exact[variable], rtol=3e4 * max(eps, 1e-16), atol=3e3 * eps)
    cotangents = {cell.outputs[-1]: np.ones(trace[cell.outputs[-1]].shape)}
    _, gradient = cell.gradient(cast(params, dtype), cotangents=cotangents, **given)
    assert {g.dtype for g in gradient.values()} == {np.dtype(dtype)}


@pytest.mark.parametrize("name", systems.TEXTS)
def test_the_real_part_of_a_complex_run_is_the_real_run(name):
    cell = systems.cell(name)
    params, inputs = systems.draw(cell)
    real = cell.run(params, **inputs, **systems.steps(cell))
    tiny = {n: v + 1e-100j if v.dtype.kind == "f" and cell.system.roles[n] == "parameter" else v
            for n, v in params.items()}
    run = cell.run(tiny, **inputs, **systems.steps(cell))
    for variable in real:
        np.testing.assert_allclose(run[variable].real, real[variable], rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("name", systems.TEXTS)
def test_the_same_data_give_the_same_bits(name):
    cell = systems.cell(name)
    params, inputs = systems.draw(cell)
    first, second = (cell.run(params, **inputs, **systems.steps(cell)) for _ in range(2))
    again = Cell(cell.text).run(params, **inputs, **systems.steps(cell))
    for variable in first:
        assert (first[variable] == second[variable]).all() and (first[variable] == again[variable]).all()


def test_a_trace_does_not_change_with_what_was_given():
    cell = zoo["rnn"]
    params, inputs = systems.draw(cell)
    trace = cell.run(params, **inputs)
    before = trace["h"].copy()
    inputs["x"][:] = 7
    for value in params.values():
        value[...] = 7
    assert (trace["h"] == before).all()
    state = trace.final
    state["h"][...] = 7
    assert (trace["h"] == before).all()


def test_gradients_are_the_callers_own():
    cell = Cell(zoo["rnn"].text + LOSS)
    params, inputs = systems.draw(cell)
    _, gradient = cell.gradient(params, **inputs)
    kept = {n: g.copy() for n, g in gradient.items()}
    for g in gradient.values():
        g[...] = np.nan
    _, again = cell.gradient(params, **inputs)
    assert all((again[n] == kept[n]).all() for n in kept)


def test_an_end_past_a_short_example_is_not_part_of_it():
    """v[T+1] of a short example lies inside the array of a long one, and is neither shown nor counted."""
    cell = Cell("v[t] = tanh(U @ v[t+1] + x[t])\nv[T+1] = tanh(e)")
    rng = np.random.default_rng(0)
    params = {"U": rng.normal(size=(2, 2)), "e": rng.normal(size=2)}
    X = rng.normal(size=(5, 2, 2))
    trace = cell.run(params, lengths=[2, 5], x=X)
    assert (trace["v"][2:, 0] == 0).all()
    value, _ = cell.gradient(params, cotangents={"v": np.ones((5, 2, 2))}, lengths=[2, 5], x=X)
    assert np.isclose(value, trace["v"].sum())
    assert cell.check_gradients(params, lengths=[2, 5], x=X).ok


def test_a_loss_that_overflows_is_named():
    cell = Cell("h[t] = h[t-1] * h[t-1] * w + x[t]\nL = sum_t(h[t])\nx: input()\nw: ()")
    with pytest.raises(CellError, match=r"`h` at t = \d+ is not finite"):
        cell.gradient({"w": 3.0}, x=np.full(20, 3.0))
