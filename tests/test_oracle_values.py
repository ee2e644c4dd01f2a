"""The numbers of an evaluator that shares no line with the library, kept in oracle_values.json: every path gives them.

    PYTHONPATH=.:tests python tests/conformance/oracle_texts.py      makes the file anew (needs torch)

`worst` compares gradients slice by slice, as docs/check.md says; tests/conformance/test_oracle.py uses it too.
"""

import json
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from autograd_rnn import Cell

CASES = json.loads((Path(__file__).parent / "oracle_values.json").read_text())
TOLERANCE = 1e-11
PATHS = ("reference", "numpy", "llvm")


def error(found, wanted, size):
    """The largest difference over the largest entry; over the sum of the absolute contributions where these cancel."""
    difference = np.max(np.abs(found - wanted), initial=0)
    largest = np.max(np.abs(wanted), initial=0)
    if difference <= TOLERANCE * largest:
        return difference / (largest or 1)
    scale = max(largest, np.max(np.abs(size), initial=0))
    return difference / scale if scale else np.inf


def worst(found, wanted, sizes, steps):
    """(worst error, name, slice) of gradients by name; `steps`: the names that have a slice for each step."""
    seen = [(0.0, "", 0)]
    for name, gradient in found.items():
        if "[" in name and name not in wanted and not np.any(gradient):
            continue  # an end that only a longer run would read
        assert np.shape(gradient) == np.shape(wanted[name]), name
        parts = (gradient, wanted[name], sizes[name])
        rows = zip(*parts, strict=True) if name in steps and np.ndim(gradient) else [parts]
        seen += [(error(np.asarray(a), np.asarray(b), np.asarray(c)), name, n) for n, (a, b, c) in enumerate(rows)]
    left = {n for n in wanted if "[" not in n and n not in found and np.any(wanted[n])}
    assert not left, f"no gradient of {sorted(left)}"
    return max(seen)


@cache
def cell(text, cells):
    return Cell(text, **{name: Cell(called) for name, called in cells})


@cache
def program(text, cells, outputs, backend):
    return cell(text, cells).compile(outputs=outputs, backend=backend)


def answer(path, text, cells, params, inputs, given):
    """(value, gradients) by one of the library's paths; compiled paths are told their outputs when they are made."""
    key = text, tuple(cells.items())
    if path == "reference":
        return cell(*key).gradient(params, **inputs, **given)
    outputs = tuple(given["cotangents"]) if "cotangents" in given else None
    return program(*key, outputs, path).gradient(params, **inputs, **{n: v for n, v in given.items() if n != "loss"})


def arrays(value):
    if isinstance(value, dict):
        return {n: arrays(v) for n, v in value.items()}
    return np.asarray(value) if isinstance(value, (list, int, float)) else value


def check(case, path):
    params, inputs, given = arrays(case["params"]), arrays(case["inputs"]), arrays(case["with"])
    value, gradients = answer(path, case["text"], case["cells"], params, inputs, given)
    wanted = arrays(case["gradients"])
    sizes = {n: case["sizes"].get(n, g) for n, g in wanted.items()}
    assert value == pytest.approx(case["value"], rel=TOLERANCE, abs=1e-300)
    return worst(gradients, wanted, sizes, inputs)


FAIL_TODAY: dict = {}  # case -> the paths that differ today from the numbers in the file, which are right
pytestmark = pytest.mark.filterwarnings("error:.*differs from the reference")


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("number", range(len(CASES)), ids=[c["name"].replace(" ", "-") for c in CASES])
def test_every_path_gives_the_numbers_of_the_oracle(number, path):
    case = CASES[number]
    if path in FAIL_TODAY.get(case["name"], ()):
        pytest.skip("fails today; see FAIL_TODAY")
    found = check(case, path)
    assert found[0] <= TOLERANCE, found


def test_a_shifted_value_is_seen():
    case = json.loads(json.dumps(next(c for c in CASES if c["name"] == "odd")))
    case["gradients"]["x"][1][0][2] += 1e-9
    assert check(case, "reference")[0] > TOLERANCE
    case["value"] += 1e-9
    with pytest.raises(AssertionError):
        check(case, "reference")
