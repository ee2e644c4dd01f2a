"""A hundred thousand steps under a recursion limit of 200: nothing recurses over time, nothing keeps a tape alive.

    python tests/test_scale.py      prints time and peak memory at 10,000 and 100,000 steps
"""

import copy
import gc
import pickle
import subprocess
import sys
import time
import weakref

import numpy as np
import pytest

from autograd_rnn import Cell, zoo
from autograd_rnn.tape import Tape

LINE = "h[t] = tanh(u * h[t-1] + x[t])\nx: input()\nu: ()"


@pytest.fixture
def shallow():
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(len_of_stack() + 200)
    yield
    sys.setrecursionlimit(limit)


def len_of_stack():
    frame, depth = sys._getframe(), 0
    while frame:
        frame, depth = frame.f_back, depth + 1
    return depth


def test_run_and_gradient_of_the_lstm(shallow):
    T, cell = 100_000, zoo["lstm"]
    params = cell.init(x=2, h=2, seed=0)
    X = np.random.default_rng(0).normal(size=(T, 2))
    trace = cell.run(params, x=X)
    assert trace["h"].shape == (T, 2) and trace.final["t"] == T
    assert len(repr(trace)) < 1000 and copy.copy(trace)["h"] is not None
    assert (pickle.loads(pickle.dumps(trace))["h"] == trace["h"]).all()
    value, gradient = cell.gradient(params, cotangents={"h": np.ones((T, 2))}, x=X)
    assert np.isclose(value, trace["h"].sum(), rtol=1e-12) and gradient["x"].shape == (T, 2)


def test_step_of_the_lstm_goes_where_run_goes(shallow):
    cell = zoo["lstm"]
    params = cell.init(x=2, h=2, seed=0)
    X = np.random.default_rng(0).normal(size=(5_000, 2))
    state = None
    for x in X:
        values, state = cell.step(params, state, x=x)
    np.testing.assert_allclose(values["h"], cell.run(params, x=X)["h"][-1], rtol=1e-12)


def test_tape_of_one_line(shallow):
    T, cell = 100_000, Cell(LINE)
    given = {"x": np.sin(np.arange(T))}
    tape = cell.unroll({"u": 0.9}, **given)
    backward = tape.backward({"h": np.ones(T)})
    _, gradient = cell.gradient({"u": 0.9}, cotangents={"h": np.ones(T)}, **given)
    np.testing.assert_allclose(backward["u"], gradient["u"], rtol=1e-11)
    np.testing.assert_allclose(backward["x"], gradient["x"], rtol=1e-11)
    assert len(repr(tape)) < 1000 and copy.copy(tape).given is tape.given
    gone = weakref.ref(tape)
    gc.collect()
    gc.disable()
    try:
        del tape, backward
        assert gone() is None, "a reference cycle keeps the tape alive"
    finally:
        gc.enable()


def test_a_tape_pickles_and_copies(shallow):
    cell = Cell(LINE)
    tape = cell.unroll({"u": 0.9}, x=np.sin(np.arange(2_000)))
    for again in (pickle.loads(pickle.dumps(tape)), copy.deepcopy(tape)):
        assert isinstance(again, Tape) and (again["h"] == tape["h"]).all()


def measure(what: str, T: int) -> tuple[float, float]:
    """Seconds and peak megabytes above the start, in a process of its own."""
    code = f"import test_scale; test_scale.work({what!r}, {T})"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True,
                         cwd=__file__.rsplit("/", 1)[0]).stdout.split()
    return float(out[0]), float(out[1])


def work(what: str, T: int) -> None:
    """One piece of work, timed; runs in a process of its own."""
    import resource

    sys.setrecursionlimit(200)
    rng = np.random.default_rng(0)
    lstm, line = zoo["lstm"], Cell(LINE)
    params = lstm.init(x=2, h=2)
    X = rng.normal(size=(T, 2))
    jobs = {
        "run": lambda n: lstm.run(params, x=X[:n]),
        "gradient": lambda n: lstm.gradient(params, cotangents={"h": np.ones((n, 2))}, x=X[:n]),
        "tape": lambda n: line.unroll({"u": 0.9}, x=X[:n, 0]).backward({"h": np.ones(n)}),
        "step": lambda n: steps(lstm, params, X[:n]),
    }
    jobs[what](10)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start = time.perf_counter()
    jobs[what](T)
    seconds = time.perf_counter() - start
    print(seconds, (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024)


def steps(cell, params, X):
    state = None
    for x in X:
        _, state = cell.step(params, state, x=x)


def main():
    print("work        T   seconds    MB")
    for what in ("run", "gradient", "tape", "step"):
        rows = []
        for T in (10_000, 100_000):
            rows.append(measure(what, T))
            print(f"{what:<9}{T:>7}{rows[-1][0]:>9.2f}{rows[-1][1]:>8.1f}")
        print(f"{'':<9}{'ratio':>7}{rows[1][0] / rows[0][0]:>9.1f}{rows[1][1] / max(rows[0][1], 1e-3):>8.1f}")


if __name__ == "__main__":
    main()
