"""Generated texts over the whole notation: every path and every law gives the same numbers.

The long form takes thousands of texts, also to machine code: `python benchmarks/agreement.py --count 20000 --folder F`.
"""

from collections import Counter

import numpy as np
import pytest
from generated import WANTED, case_of, coverage
from laws import LAWS, broken
from paths import CHEAP, PATHS, Answer, Path, compare, reference

from autograd_rnn import Cell
from autograd_rnn.printing.text import system_text

# Faults that are known and open: a row goes when its fault is mended, and the test says so.
OPEN: dict[str, dict[int, str]] = {}
INTERPRETED = {n: p for n, p in CHEAP.items() if "NumPy" not in n}
NUMPY = {n: p for n, p in CHEAP.items() if "NumPy" in n}
MACHINE = {n: p for n, p in PATHS.items() if n not in CHEAP}


def seeds(count: int, test: str) -> list:
    known = OPEN.get(test, {})
    return [pytest.param(k, marks=[pytest.mark.xfail(strict=True, reason=known[k])] if k in known else [])
            for k in range(count)]


def agree(seeds, paths) -> Counter:
    """How many texts each path was compared on; none disagrees."""
    count: Counter = Counter()
    for seed in seeds:
        case = case_of(seed)
        taken, faults = compare(case, paths)
        assert not faults, f"{case}\n" + "\n".join(map(str, faults))
        count.update(list(taken))
    return count


def test_a_thousand_texts_have_every_feature():
    found = coverage(range(1000))
    assert not [name for name, n in found.items() if not n] and set(WANTED) <= set(found)


def test_a_seed_is_a_text_and_its_run():
    for seed in range(20):
        one, other = case_of(seed), case_of(seed)
        assert one.text == other.text and one.options.keys() == other.options.keys()
        assert all((one.params[n] == other.params[n]).all() for n in one.params)


@pytest.mark.parametrize("block", range(8))
def test_the_adjoint_is_the_tape_and_the_complex_step(block):
    count = agree(range(block * 10, block * 10 + 10), INTERPRETED)
    assert count["complex step"] >= 2 and count["tape"] >= 2


@pytest.mark.parametrize("block", range(6))
def test_numpy_programs(block):
    assert agree(range(block * 4, block * 4 + 4), NUMPY)["NumPy"] >= 3


@pytest.mark.parametrize("seed", range(6))
def test_machine_code(seed):
    pytest.importorskip("llvmlite", reason="machine code needs llvmlite")
    assert "machine code" in agree([seed], MACHINE)


@pytest.mark.long
@pytest.mark.parametrize("block", range(100))
def test_two_thousand_texts_on_all_paths(block):
    agree(range(100 + block * 20, 120 + block * 20), PATHS)


@pytest.mark.parametrize("name", LAWS)
def test_laws(name):
    spoken = 0
    for seed in range(16):
        if seed in OPEN.get(name, ()):
            continue
        case = case_of(seed)
        faults = broken(case, name)
        assert not faults, f"{name}\n{case}\n{faults}"
        spoken += faults is not None
    assert spoken >= 2


@pytest.mark.long
@pytest.mark.parametrize("name", LAWS)
def test_laws_over_hundreds_of_texts(name):
    for seed in range(16, 316):
        case = case_of(seed)
        assert not broken(case, name), f"{name}\n{case}"


def wrong(case, change):
    """A path whose answer is the reference's, changed."""
    def run(case):
        found = reference(case)
        change(found)
        return found
    return compare(case, {"changed": Path(run)})[1]


FAULTS = {
    "a gradient scaled": lambda a: a.gradients.update({n: g * (1 + 1e-9) for n, g in a.gradients.items()}),
    "a step that is cut": lambda a: [g.__setitem__(0, 0) for g in a.gradients.values() if np.ndim(g) > 1],
    "a gradient that is missing": lambda a: a.gradients.pop(next(iter(a.gradients))),
    "another shape": lambda a: a.gradients.update({n: g[None] for n, g in a.gradients.items()}),
    "another value": lambda a: setattr(a, "value", a.value + 1e-6 * (1 + abs(a.value))),
    "a value that is not finite": lambda a: a.gradients.update({n: g * np.nan for n, g in a.gradients.items()}),
    "a value of the run": lambda a: a.values.update({n: np.asarray(v) + 1e-3 for n, v in a.values.items()}),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_in_an_answer_is_seen(fault):
    case = next(c for c in map(case_of, range(50)) if c.batch and "lengths" not in c.options and any(
        of.role == "input" and of.axes for of in c.names.values()))
    assert not wrong(case, lambda answer: None)
    assert wrong(case, FAULTS[fault])


def test_a_path_of_its_own_joins():
    """A function from a case to an Answer is a path; ends it does not name are left out."""
    def own(case) -> Answer:
        value, gradients = case.cell.gradient(case.params, **case.arguments())
        return Answer(value, {n: g for n, g in gradients.items() if "[" not in n})

    taken, faults = compare(case_of(1), {"own": own})
    assert "own" in taken and not faults
    assert compare(case_of(1), {"own": lambda case: 1 / 0})[1]


@pytest.mark.parametrize("block", range(4))
def test_texts_parse_back_to_equal_systems(block):
    for seed in range(block * 10, block * 10 + 10):
        case = case_of(seed)
        for derived in (case.cell, case.cell.backward(), case.cell.tangent()):
            assert Cell(system_text(derived.system)) == derived, f"{case}"


@pytest.mark.parametrize("seed", seeds(12, "tangent"))
def test_tangent_and_adjoint_are_transposes(seed):
    """<dL, tangent> of the loss along a direction equals the gradient along it."""
    case = next(c for c in map(case_of, range(20 * seed, 20 * seed + 20)) if c.cell.loss and "loss" not in c.options
                and "cotangents" not in c.options and "initial" not in c.options)
    cell, rng = case.cell, np.random.default_rng(seed)
    gradient = reference(case).gradients
    values = {**case.params, **case.inputs}
    names = [n for n in (*cell.parameters, *cell.inputs) if n in gradient and n in values]
    tangent = cell.tangent(names)
    directions = {f"{n}_dot": rng.normal(size=np.shape(values[n])) for n in names}
    known = {n: v for n, v in directions.items() if n in tangent.system.axes}
    weights = {n: v for n, v in known.items() if tangent.system.roles[n] == "parameter"}
    trace = tangent.run({**case.params, **weights}, **{n: v for n, v in known.items() if n not in weights},
                        **case.run_arguments())
    terms = [gradient[n] * directions[f"{n}_dot"] for n in names]
    scale = sum(float(np.sum(np.abs(t))) for t in terms)
    along = trace.get(f"{cell.loss}_dot", 0.0)
    assert abs(float(np.sum(along)) - sum(float(np.sum(t)) for t in terms)) <= 1e-11 * max(scale, 1e-30)


@pytest.mark.parametrize("seed", seeds(10, "derivation"))
def test_derivations_are_proved(seed):
    case = case_of(seed)
    derivation = case.cell.derivation()
    proof = derivation.check(points=3)
    assert proof.ok, f"{case}\n{proof}"
    assert len(proof.steps) == len(derivation.steps) and derivation.text(level="every")
