"""Every zoo cell: gradients by complex step at many lengths, variants, initialisation, citation."""

from pathlib import Path

import numpy as np
import pytest
import systems

from autograd_rnn import Cell, zoo
from autograd_rnn.init import lone_sizes
from autograd_rnn.printing.text import system_text
from autograd_rnn.zoo.lstm1997 import BLOCKS, CELL
from autograd_rnn.zoo.page import page


@pytest.mark.parametrize("T", [1, 2, 5, 50])
@pytest.mark.parametrize("name", list(zoo))
def test_gradients_by_complex_step(name, T):
    cell = zoo[name]
    others = {i: min(n, 4) for i, n in systems.extents(cell, T).items() if i != "t" and i not in cell.system.model}
    T = min(T, 1000 // len(cell.equations)) if len(cell.equations) > 15 or others else T  # of models, what is not long
    params, inputs = systems.draw(cell, T=T, batch=1 if T > 50 else 2, seed=T, **others)
    report = cell.check_gradients(params, **inputs, **systems.steps(cell, T=T))
    assert report.ok, report
    assert report.count >= len(cell.parameters) + (T if "x" in inputs and "t" in cell.system.axes["x"] else 0)
    assert {len(v) for n, v in inputs.items() if "t" in cell.system.axes[n]} == {T}


@pytest.mark.parametrize("name", systems.SHORT_FIRST)
def test_gradients_by_complex_step_at_length(name):
    test_gradients_by_complex_step(name, 500)


@pytest.mark.parametrize("name", list(zoo))
def test_gradients_with_lengths_and_a_loss(name):
    cell = systems.with_loss(zoo[name])
    params, inputs = systems.draw(cell, T=7, batch=3)
    report = cell.check_gradients(params, lengths=systems.lengths(cell, T=7, batch=3), **inputs)
    assert report.ok, report


@pytest.mark.parametrize("name", systems.SHORT_FIRST)
def test_second_derivative(name):
    """The gradient of <v, dU> by differentiating the backward cell, against complex step."""
    backward = systems.with_loss(zoo[name]).backward()
    output = next(n for n in backward.system.defined if n.startswith(("dU", "dR_", "dA_")))
    params, inputs = systems.draw(backward, T=3, batch=2)
    rng = np.random.default_rng(1)
    report = backward.check_gradients(params, cotangents={output: rng.normal(size=params[output[1:]].shape)}, **inputs)
    assert report.ok, report
    again = backward.backward([output])
    assert Cell(system_text(again.system)) == again


@pytest.mark.parametrize("name", list(zoo))
def test_entries_say_where_they_are_from(name):
    entry, cell = zoo.entry(name), zoo[name]
    assert any(ch.isdigit() for ch in entry.citation), "a citation has a year"
    assert cell.name == name
    params = cell.init(seed=1, **systems.sizes(cell))
    assert set(params) == set(cell.parameters) | set(cell.system.having("const")) | set(lone_sizes(cell.system))
    for parameter, rule in entry.rules.items():
        if not callable(rule):
            assert (params[parameter] == rule).all()
    inherited = {*entry.rules, *(zoo.entry(entry.base).rules if entry.base else ())}
    for parameter in set(cell.parameters) - inherited:
        if parameter.startswith("b"):
            assert (params[parameter] == 0).all()
        elif params[parameter].ndim == 2 and "default" not in inherited:
            bound = 1 / np.sqrt(params[parameter].shape[1])
            assert np.abs(params[parameter]).max() <= bound and np.ptp(params[parameter]) > bound / 5


@pytest.mark.parametrize("name", [name for name in zoo if zoo.entry(name).base])
def test_a_variant_is_a_substitution_on_its_base(name):
    entry = zoo.entry(name)
    assert entry.text is None and zoo[entry.base].substitute(**entry.changes) == zoo[name]
    assert zoo[name] != zoo[entry.base] or entry.rules != zoo.entry(entry.base).rules, "it varies nothing"


def test_the_page_is_made_from_the_entries():
    """Else: python -m autograd_rnn.zoo.page > docs/zoo.md"""
    written = (Path(__file__).parents[1] / "docs" / "zoo.md").read_text(encoding="utf-8")
    assert written == page()
    assert all(f"### {name}\n" in written and zoo.entry(name).citation in written for name in zoo)


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


def test_without_peepholes_the_odyssey_s_cell_is_the_lstm():
    assert zoo["lstm_np"].equations == zoo["lstm"].equations


# --- constants by formula -----------------------------------------------------------------------------------------


def test_periods_double_from_group_to_group_and_can_be_given():
    assert zoo["clockwork"].init(x=2, h=16)["period"].tolist() == np.repeat(2 ** np.arange(8), 2).tolist()
    assert zoo["clockwork"].init(x=2, h=3)["period"].tolist() == [1, 2, 4]
    assert zoo["clockwork"].init(x=2, h=3, period=[1, 3, 9])["period"].tolist() == [1, 3, 9]


def test_a_unit_of_a_clockwork_sees_its_own_period_and_slower_ones():
    cell = zoo["clockwork"]
    params, inputs = systems.draw(cell, T=9, h=6)
    params["period"] = np.array([1.0, 1, 2, 2, 4, 4])
    seen = cell.gradient(params, cotangents={"h": np.ones((9, 2, 6))}, **inputs)[1]["U"] != 0
    assert (seen == (np.arange(6)[:, None] // 2 <= np.arange(6) // 2)).all()
    idle = np.diff(cell.run(params, **inputs)["h"], axis=0, prepend=0) == 0
    assert all(idle[t - 1, :, k].all() == bool(t % p) for t in range(1, 10) for k, p in enumerate(params["period"]))


def test_all_units_of_a_clockwork_run_on_the_first_step_when_it_counts_from_0():
    params, inputs = systems.draw(zoo["clockwork"], T=1, h=3)
    params["period"] = np.array([1.0, 2, 4])
    first = [zoo[name].run(params, **inputs)["h"][0] != 0 for name in ("clockwork", "clockwork_from_zero")]
    assert first[0].all(axis=0).tolist() == [True, False, False] and first[1].all()


def test_cells_of_a_block_share_its_gates():
    cell = zoo["lstm_1997_blocks"]
    params = cell.init(x=7, h=6, i=3)
    assert params["B"].tolist() == np.repeat(np.eye(3), 2, axis=0).tolist()
    assert params["b_o"].tolist() == [-1, -2, -3] and np.abs(params["U_i"]).max() <= 0.2
    _, inputs = systems.draw(cell, T=4, x=7, h=6, i=3)
    trace = cell.run(params, **inputs)
    added = np.diff(trace["c"], axis=0, prepend=0)
    np.testing.assert_allclose(added, np.repeat(trace["i"], 2, axis=2) * trace["g"], rtol=1e-12, atol=1e-15)


# --- 1997 -----------------------------------------------------------------------------------------------------------

# Hochreiter and Schmidhuber 1997, section 5: how many weights each of its networks has.
# name: (inputs, blocks, cells in a block, outputs, what has biases, weights)
NETWORKS = {
    "adding": (2, 2, 2, 1, "gates cells outputs", 93),
    "two sequences": (1, 3, 1, 1, "gates cells", 102),
    "temporal order 6a": (8, 2, 2, 4, "gates cells outputs", 156),
    "temporal order 6b": (8, 3, 2, 8, "gates cells outputs", 308),
    "embedded Reber grammar, 4 blocks": (7, 4, 1, 7, "gates", 264),
    "embedded Reber grammar, 3 blocks": (7, 3, 2, 7, "gates", 276),
    "noise-free long time lags, p = 50": (54, 2, 1, 2, "", 364),
    "noise-free long time lags, p = 1000": (1004, 2, 1, 2, "", 6064),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_networks_of_1997_have_as_many_weights_as_the_paper_says(name):
    inputs, blocks, each, outputs, biased, weights = NETWORKS[name]
    cell = Cell((CELL if each == 1 else BLOCKS) + "y[t] = sigmoid(V @ h[t] + b_y)")
    owners = {"gates": ("b_i", "b_o"), "cells": ("b_g",), "outputs": ("b_y",)}
    cell = cell.substitute(**{b: 0 for owner, names in owners.items() if owner not in biased for b in names})
    params = cell.init(x=inputs, h=blocks * each, y=outputs, **({} if each == 1 else {"i": blocks, "B": np.ones(
        (blocks * each, blocks))}))
    assert sum(params[n].size for n in cell.parameters) == weights
    _, given = systems.draw(cell, T=2, x=inputs, h=blocks * each, y=outputs, **({} if each == 1 else {"i": blocks}))
    assert cell.run(params, **given)["y"].shape == (2, 2, outputs)


@pytest.mark.parametrize("name", ["lstm_1997", "lstm_1997_blocks"])
def test_the_gradient_of_1997_is_truncated_and_the_values_are_not(name):
    cell, whole = zoo[name], zoo[name + "_whole"]
    params, inputs = systems.draw(cell, T=6)
    cotangents = {"h": np.zeros(cell.run(params, **inputs)["h"].shape)}
    cotangents["h"][-1] = 1
    assert (cell.run(params, **inputs)["h"] == whole.run(params, **inputs)["h"]).all()
    cut, full = (c.gradient(params, cotangents=cotangents, **inputs)[1] for c in (cell, whole))
    assert not cut["h[0]"].any() and full["h[0]"].any() and cut["c[0]"].any()
    assert np.abs(cut["W_i"] - full["W_i"]).max() > 1e-6
