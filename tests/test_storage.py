"""No program overwrites a value before its last read: shown for each that the tests know, without running it."""

import pytest
import systems
import test_faults

from autograd_rnn import Cell
from autograd_rnn.backpropagate import adjoint_of, wanted

pytest.importorskip("llvmlite", reason="machine code needs llvmlite")

from storage import Storage

from autograd_rnn.compile.llvm import machine, partition, rows

TEXTS = {**{name: text for name, (text, _) in (*test_faults.PRODUCTS.items(), *test_faults.CARRIES.items())},
         **test_faults.OVER_AN_INDEX, **test_faults.TWO_INDICES, **test_faults.MATRICES}


def reads(cell: Cell) -> int:
    """The reads of a cell's gradient, each of which finds what it wants."""
    derived = adjoint_of(cell.system, cell.outputs, cell.loss is not None)
    return Storage(machine.Machine(derived.system, wanted(cell.system, derived, cell.outputs), True)).check()


@pytest.mark.parametrize("name", systems.MOST)
def test_every_read_finds_its_value(name):
    assert reads(systems.cell(name)) > 10


@pytest.mark.parametrize("name", TEXTS)
def test_every_read_finds_its_value_where_programs_once_failed(name):
    assert reads(Cell(TEXTS[name])) > 10


@pytest.mark.parametrize("where, what, instead, text", [
    (rows.Rows, "overwritten", lambda stage: set(), "s[t] = sum(h[t-1]*x[t])\nh[t] = tanh(U@h[t-1]) * s[t-1] + x[t]"),
    (partition, "taken_whole", lambda n: None, "w[t] = softmax_t(sum(x[t]))\nL = sum_t(w[t]*sum(x[t]*x[t]))"),
])
def test_a_wrong_storage_is_found(where, what, instead, text, monkeypatch):
    assert reads(Cell(text)) > 10
    monkeypatch.setattr(where, what, instead)
    with pytest.raises((AssertionError, KeyError)):
        reads(Cell(text))
