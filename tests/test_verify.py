"""A program that differs from the reference is found out when it is made, and not used."""

import numpy as np
import pytest
import systems

from autograd_rnn import Cell, zoo
from autograd_rnn import primitives as P
from autograd_rnn.backpropagate import adjoint_of, differentiate, wanted
from autograd_rnn.compile import verify
from autograd_rnn.evaluate import evaluate

pytest.importorskip("llvmlite", reason="machine code needs llvmlite")

from autograd_rnn.compile.llvm import guarded, machine, partition, rows, shared, storage
from autograd_rnn.compile.llvm.lanes import Lanes


def made(cell: Cell, double: bool = True, apart: bool = False) -> tuple:
    """What `verify.fault` wants to know of a cell's gradient as machine code."""
    derived = adjoint_of(cell.system, cell.outputs, cell.loss is not None)
    keep = wanted(cell.system, derived, cell.outputs)
    found = machine.Machine(derived.system, keep, double, apart=apart)
    return found, derived.system, keep, guarded.guarded(found), found.dtype


def one_more(lanes, count):
    return FIRST(lanes, lanes.builder.add(count, count.type(1)))


def nearly(lanes, x):
    return TANH(lanes, x) * (1 + 1e-9)


FIRST, TANH = Lanes.first, Lanes.tanh
# Faults that programs had, or might have: what stands where, and a text in which it shows.
SEEDED = {
    "the product of two weights taken for one of vectors": (
        [(shared, "MOVES", {**shared.MOVES, P.outer: 2})], "h[t] = tanh(U @ V @ h[t-1] + x[t])\nV: (2, x)"),
    "a carry replaced before it is read": (
        [(rows.Rows, "overwritten", lambda stage: set())],
        "s[t] = sum(h[t-1]*x[t])\nh[t] = tanh(U@h[t-1]) * s[t-1] + x[t]"),
    "a softmax over an index, block by block": (
        [(partition, "taken_whole", lambda s: None), (storage, "taken_whole", lambda s: None)],
        "w[t] = softmax_t(sum(x[t]))\nL = sum_t(w[t]*sum(x[t]*x[t]))"),
    "a tail one component too long": ([(Lanes, "first", one_more)], "h[t] = tanh(U@h[t-1] + W@x[t])"),
    "a tanh off by 1e-9": ([(Lanes, "tanh", nearly)], "h[t] = tanh(U@h[t-1] + W@x[t])"),
}


@pytest.mark.parametrize("name", SEEDED)
def test_a_faulty_program_is_not_used(name, monkeypatch, tmp_path):
    faults, text = SEEDED[name]
    for where, what, instead in faults:
        monkeypatch.setattr(where, what, instead)
    cell, x = Cell(text), np.random.default_rng(0).normal(size=(43, 3, 3))
    params = cell.init(x=3, **({"h": 5} if "W@" in text else {}))
    trace = cell.run(params, x=x)
    cotangents = None if cell.loss else {n: np.ones_like(trace[n]) for n in cell.outputs}
    program = cell.compile(backend="llvm")
    with pytest.warns(RuntimeWarning, match="differs from the reference"):
        value, found = program.gradient(params, x=x, cotangents=cotangents)
    true = differentiate(cell.system, cell.loss, cell.outputs, params, None, cotangents, {"x": x}, run=evaluate)
    assert value == true[0] and all((found[n] == g).all() for n, g in true[1].items())
    assert program.report().startswith("not used")
    again = program.gradient(params, x=x, cotangents=cotangents)
    assert again[0] == value


@pytest.mark.parametrize("name", systems.SHORT_FIRST)
@pytest.mark.parametrize("double, apart", [(True, False), (False, True)])
def test_programs_agree_when_they_are_made(name, double, apart):
    assert fault_of(name, double, apart) == ""


@pytest.mark.long
@pytest.mark.parametrize("name", zoo)
@pytest.mark.parametrize("double, apart", [(True, False), (False, False), (True, True), (False, True)])
def test_all_programs_of_the_zoo_agree_when_they_are_made(name, double, apart):
    assert fault_of(name, double, apart) == ""


def fault_of(name: str, double: bool, apart: bool) -> str:
    return verify.fault(*made(zoo[name], double, apart), verify.IN_PARTS if apart else verify.SHAPES)
