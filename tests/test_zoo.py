"""Every zoo cell: gradients by complex step at many lengths, variants, initialisation, citation."""

import numpy as np
import pytest
import systems

from autograd_rnn import Cell, zoo
from autograd_rnn.printing.text import system_text

LOSS = "\nL = sum_t(sum(h[t]**2))"


@pytest.mark.parametrize("T", [1, 2, 5, 50, 500])
@pytest.mark.parametrize("name", list(zoo))
def test_gradients_by_complex_step(name, T):
    cell = zoo[name]
    params, inputs = systems.draw(cell, T=T, batch=1 if T == 500 else 2, seed=T, h=2 if T == 500 else 3, x=2)
    report = cell.check_gradients(params, **inputs)
    assert report.ok, report
    assert report.count >= 2 * T and inputs["x"].shape[0] == T


@pytest.mark.parametrize("name", list(zoo))
def test_gradients_with_lengths_and_a_loss(name):
    cell = Cell(zoo[name].text + LOSS)
    params, inputs = systems.draw(cell, T=7, batch=3)
    report = cell.check_gradients(params, lengths=np.array([7, 1, 4]), **inputs)
    assert report.ok, report


@pytest.mark.parametrize("name", list(zoo))
def test_second_derivative(name):
    """The gradient of <v, dU> by differentiating the backward cell, against complex step."""
    backward = Cell(zoo[name].text + LOSS).backward()
    output = next(n for n in ("dU", "dU_i", "dU_f", "dU_n") if n in backward.system.defined)
    params, inputs = systems.draw(backward, T=3, batch=2)
    rng = np.random.default_rng(1)
    report = backward.check_gradients(params, cotangents={output: rng.normal(size=params[output[1:]].shape)}, **inputs)
    assert report.ok, report
    again = backward.backward([output])
    assert Cell(system_text(again.system)) == again


@pytest.mark.parametrize("name", list(zoo))
def test_entries_say_where_they_are_from(name):
    entry = zoo.entry(name)
    assert any(ch.isdigit() for ch in entry.citation), "a citation has a year"
    assert zoo[name].name == name
    params = zoo[name].init(x=3, h=4, seed=1)
    for bias, value in entry.rules.items():
        assert (params[bias] == value).all()
    for bias in set(params) - set(entry.rules):
        if bias.startswith("b"):
            assert (params[bias] == 0).all()
        elif params[bias].ndim == 2:
            bound = 1 / np.sqrt(params[bias].shape[1])
            assert np.abs(params[bias]).max() <= bound and np.ptp(params[bias]) > bound / 2


def test_forget_bias_is_one_where_the_paper_has_it():
    assert (zoo["lstm"].init(x=2, h=3)["b_f"] == 1).all()
    assert (zoo["lstm_peephole"].init(x=2, h=3)["b_f"] == 1).all()


@pytest.mark.parametrize("gates", [("i",), ("f",), ("o",), ("i", "f"), ("i", "o"), ("f", "o"), ("i", "f", "o")])
def test_any_subset_of_peepholes(gates):
    cell = zoo["lstm_peephole"].substitute(**{f"p_{g}": 0 for g in gates})
    assert not any(f"p_{g}" in cell.parameters for g in gates)
    params, inputs = systems.draw(cell, T=4)
    assert cell.check_gradients(params, **inputs).ok
    if len(gates) == 3:
        same = {n: params[n] for n in zoo["lstm"].parameters}
        np.testing.assert_allclose(cell.run(params, **inputs)["h"], zoo["lstm"].run(same, **inputs)["h"], rtol=1e-14)


def test_update_conventions_mirror_each_other():
    """z in one convention is 1 - z in the other: negate what feeds z."""
    for a, b in (("gru", "gru_cho"), ("gru_reset_after_update", "gru_reset_after")):
        params, inputs = systems.draw(zoo[a], T=6)
        mirrored = {n: -v if n.endswith("_z") else v for n, v in params.items()}
        np.testing.assert_allclose(zoo[a].run(params, **inputs)["h"], zoo[b].run(mirrored, **inputs)["h"], rtol=1e-12)


def test_coupled_gates_mirror_each_other():
    a, b = zoo["lstm_coupled"], zoo["lstm_coupled_forget"]
    params, inputs = systems.draw(a, T=6)
    mirrored = {n[:-1] + "f" if n.endswith("_i") else n: -v if n.endswith("_i") else v for n, v in params.items()}
    np.testing.assert_allclose(a.run(params, **inputs)["h"], b.run(mirrored, **inputs)["h"], rtol=1e-12)
