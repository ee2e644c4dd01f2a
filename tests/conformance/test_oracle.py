"""Every text against the oracle: value and gradient through the reference and as machine code, ragged lengths too.

The oracle (oracle.py) was written from docs/notation.md alone and shares no line with the library, so that a misreading
would have to be made twice to go unseen.
"""

import numpy as np
import pytest
import systems
from test_oracle_values import FAIL_TODAY, TOLERANCE, worst

from autograd_rnn import Cell

torch = pytest.importorskip("torch", reason="the oracle is torch's: pip install 'autograd_rnn[conformance]'")

import oracle  # noqa: E402
from oracle import Oracle  # noqa: E402
from oracle_texts import CASES, both, drawn, lengths  # noqa: E402

PATHS = ("reference", "llvm")
# Machine code of these takes most of the time: the plain form leaves it to the long one.
FAMILIES = ["bahdanau", "cho", "draw", "grid", "storn", "sutskever", "vrnn", "xu"]
LARGE = [n for n in systems.NAMES if n.split("_")[0] in FAMILIES]
pytestmark = pytest.mark.filterwarnings("error:.*differs from the reference")


def agrees(cell, oracle, params, inputs, given, paths=PATHS, program=None):
    """The worst slice of each path's gradient; values must be equal too."""
    loss = given.get("loss") or (None if "cotangents" in given else cell.loss)
    asked = {n: v for n, v in given.items() if n != "loss"}
    value, wanted, _ = oracle.gradient(params, loss=loss, **asked, **inputs)
    for path in paths:
        run = cell if path == "reference" else program or cell.compile(backend=path, outputs=asked.get("cotangents"))
        found, gradients = run.gradient(params, **asked, **inputs)
        assert found == pytest.approx(value, rel=TOLERANCE, abs=1e-300), path
        error = worst(gradients, wanted, wanted.sizes, inputs)
        assert error[0] <= TOLERANCE, (path, *error)


@pytest.mark.parametrize("name, paths", [
    *((name, PATHS[:1] if name in LARGE else PATHS) for name in systems.NAMES),
    *(pytest.param(name, PATHS[1:], marks=pytest.mark.long) for name in LARGE)])
def test_cells_agree_with_the_oracle(name, paths):
    cell = systems.with_loss(systems.cell(name))
    oracle, program = Oracle(cell.text), cell.compile(backend="llvm") if "llvm" in paths else None
    params, inputs = systems.draw(cell)
    if name not in systems.TEXTS:  # constants by the rules of the zoo
        rules = systems.zoo[name].init(**systems.sizes(cell))
        params |= {n: rules[n] for n, kind in oracle.declared.items() if kind.startswith("const") and n in rules}
    for ragged in ({}, {"lengths": systems.lengths(cell)}):
        agrees(cell, oracle, params, inputs, systems.steps(cell) | ragged, paths, program)


@pytest.mark.parametrize("name", CASES)
def test_texts_of_its_own_agree_with_the_oracle(name):
    cell, oracle, options = both(name)
    seed = list(CASES).index(name)
    params, inputs, more = drawn(cell, options, seed)
    for ragged in lengths(cell, options, seed):
        paths = [p for p in PATHS if p not in FAIL_TODAY.get(name, ())]
        agrees(cell, oracle, params, inputs, more | ragged, paths)


@pytest.mark.parametrize("t, j", [(t, j) for t in range(-3, 4) for j in range(-3, 4) if t and j])
def test_far_reads_agree_with_the_oracle_where_every_end_is_given(t, j):
    """Each key that a gradient has is given a value, and means the same to both."""
    text = f"y[t,j] = p * x[t,j]\nf[t,j] = y[t{t:+d},j{j:+d}]**2\nx: input()\np: ()"
    cell, rng = Cell(text), np.random.default_rng(0)
    given = {"x": rng.normal(size=(5, 6)), "cotangents": {"f": rng.normal(size=(5, 6))}}
    ends = {n: rng.normal(size=g.shape) for n, g in cell.gradient({"p": 2.0}, **given)[1].items() if "[" in n}
    value, gradients = cell.gradient({"p": 2.0}, initial=ends, **given)
    wanted = Oracle(text).gradient({"p": 2.0}, initial=ends, batch=None, **given)
    assert value == pytest.approx(wanted[0], rel=TOLERANCE) and gradients.keys() == wanted[1].keys()
    assert all(gradients[n] == pytest.approx(wanted[1][n], rel=TOLERANCE) for n in gradients)


def test_values_at_every_step_agree_with_the_trace():
    cell = systems.cell("bahdanau")
    params, inputs = systems.draw(cell)
    trace = cell.run(params, **inputs)
    _, _, values = Oracle(cell.text).gradient(params, loss="loss", **inputs)
    assert values.keys() == {name.split("[")[0] for name in cell.equations}
    for name, array in values.items():
        assert np.allclose(array, trace[name], rtol=1e-12, atol=1e-14), name


DAMAGES = {
    "a value": (oracle.FUNCTIONS, "tanh", lambda v: torch.tanh(v) * (1 + 1e-9)),
    "a gradient": (oracle.FUNCTIONS, "sigmoid", lambda v: torch.sigmoid(v.detach())),
    "an end": (oracle.Run, "position", lambda self, slot, env, right=oracle.Run.position: right(self, slot, env) or 1),
    "a length": (oracle.Run, "extent", lambda self, index, b: self.most[index]),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_oracle_is_seen(damage, monkeypatch):
    cell = systems.with_loss(Cell("h[0] = h0\nh[t] = tanh(sigmoid(W @ x[t-1]) + U @ h[t-1])"))
    params, inputs = systems.draw(cell)
    case = cell, Oracle(cell.text), params, inputs, {"lengths": systems.lengths(cell)}, ("reference",)
    agrees(*case)
    place, name, wrong = DAMAGES[damage]
    (monkeypatch.setitem if isinstance(place, dict) else monkeypatch.setattr)(place, name, wrong)
    with pytest.raises(AssertionError):
        agrees(*case)
