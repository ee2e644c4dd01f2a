"""The peers of the benchmarks do the work that they are timed for: the reference's outputs and gradients."""

from functools import cache

import numpy as np
import pytest
import speed
from cells import MODELS, cell, output
from peers import PEERS
from plan import CUSTOM
from work import TOLERANCE, Work, apart, data, rows

PAIRS = [pytest.param(peer, name, marks=pytest.mark.long if peer == "JAX scan, hoisted" and name not in CUSTOM else [])
         for peer in PEERS for name in MODELS if name in PEERS[peer].cells]  # the table of the zoo hoists nothing


@cache
def reference(name: str) -> dict[str, np.ndarray]:
    """Gradients, and outputs, of the evaluator in float64."""
    work, out = Work(name, 3, 7, 5, 4, "float64"), output(name)
    params, inputs = data(work)
    cotangents = None if cell(name).loss else {out: np.ones(rows(work, out))}
    gradients = cell(name).gradient(params, cotangents=cotangents, **inputs)[1]
    kept = {n: gradients[n] for n in cell(name).system.having("parameter", "input")}
    return {**kept, "outputs": cell(name).run(params, **inputs)[out]}


@pytest.mark.parametrize("dtype", ["float64", pytest.param("float32", marks=pytest.mark.long)])
@pytest.mark.parametrize("peer, name", PAIRS)
def test_peer(peer, name, dtype):
    for module in PEERS[peer].imports:
        pytest.importorskip(module, reason=f"{peer} needs {module}: pip install 'autograd_rnn[conformance]'")
    try:
        prepared = PEERS[peer].prepare(work := Work(name, 3, 7, 5, 4, dtype), *data(work))
    except NotImplementedError as e:
        pytest.skip(str(e))
    for _ in range(2):  # what the first run leaves behind must not change the second
        found = {**prepared.gradients(prepared.run()), "outputs": prepared.outputs()}
        assert all(value.dtype == dtype for value in found.values())
        assert apart(found, reference(name)) < TOLERANCE[dtype] / 10


def test_every_kind_of_measurement(capsys):
    """Whatever is installed, the page has a table or a reason."""
    speed.main(["--quick", "--sections", "rate,layers", "--cells", "rnn", "--threads", "1"])
    out = capsys.readouterr().out
    assert "wrong" not in out.replace("what is wrong", "")
    for peer in ("torch layer", "JAX scan", "HIPS autograd", "NumPy by hand", "autograd_rnn, numpy"):
        assert f"| {peer} |" in out or f"- {peer}: " in out
