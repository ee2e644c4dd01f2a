"""Random systems over the whole notation: adjoint, tape and complex step agree, texts parse back, order is free.

    python tests/test_generated.py      checks all of them and prints how many slices were compared
"""

import time

import numpy as np
import pytest
import systems
from generated import system

from autograd_rnn import Cell
from autograd_rnn.printing.text import system_text

COUNT = 500


def initial(cell, seed, batch=2):
    """Random values just outside, so that no state starts on a kink at zero."""
    rng = np.random.default_rng(seed)
    long, size = systems.extents(cell), systems.sizes(cell)
    found = {}
    for name, ends in cell.system.delayed.items():
        defined = {eq.at for eq in cell.system.definitions.get(name, ())}
        if cell.system.roles[name] == "class" or len(ends) > 1:
            continue
        (end,) = ends
        if any(end in at for at in defined):
            continue
        shape = tuple(long[i] for i in cell.system.axes[name] if i != end.index)
        shape += (batch,) if name in cell.system.per_example else ()
        shape += tuple(d if isinstance(d, int) else size[d] for d in cell.system.shapes[name])
        found[name] = 0.5 * rng.normal(size=shape)
    return found


def check(seed):
    """The report of random system number `seed`: T = 5, batch 2, adjoint and tape against the complex step."""
    cell = Cell(system(seed))
    params, inputs = systems.draw(cell, T=5, batch=2, seed=seed)
    return cell, cell.check_gradients(params, initial=initial(cell, seed), tape=True, **inputs, **systems.steps(cell))


@pytest.mark.parametrize("block", [pytest.param(k, marks=[pytest.mark.long] if k % 2 else []) for k in range(20)])
def test_generated_systems_pass_the_check(block):
    for seed in range(block * COUNT // 20, (block + 1) * COUNT // 20):
        cell, report = check(seed)
        assert report.ok, f"system {seed}\n{cell}\n{report}"
        assert report.count >= 4


@pytest.mark.parametrize("block", range(4))
def test_generated_systems_pass_the_check_with_lengths(block):
    for seed in range(block * 20, block * 20 + 20):
        cell = Cell(system(seed))
        params, inputs = systems.draw(cell, T=5, batch=2, seed=seed)
        lengths = systems.lengths(cell, seed=seed)
        report = cell.check_gradients(params, initial=initial(cell, seed), lengths=lengths, **inputs,
                                      **systems.steps(cell))
        assert report.ok, f"system {seed} with lengths {lengths}\n{cell}\n{report}"


@pytest.mark.parametrize("block", range(4))
def test_texts_parse_back_to_equal_systems(block):
    for seed in range(block * 25, block * 25 + 25):
        cell = Cell(system(seed))
        for derived in (cell, cell.backward(), cell.tangent()):
            assert Cell(system_text(derived.system)) == derived, f"system {seed}"


@pytest.mark.parametrize("seed", range(40))
def test_the_order_of_lines_does_not_matter(seed):
    cell = Cell(system(seed))
    lines = cell.text.splitlines()
    shuffled = Cell("\n".join(lines[k] for k in np.random.default_rng(seed).permutation(len(lines))))
    params, inputs = systems.draw(cell, seed=seed)
    given = {**inputs, **systems.steps(cell)}
    params = {name: params[name] for name in (*cell.parameters, *(n for n in params if n not in cell.parameters))}
    a, b = cell.run(params, **given), shuffled.run(params, **given)
    for name in a:
        np.testing.assert_allclose(a[name], b[name], rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize("seed", range(30))
def test_tangent_and_adjoint_are_transposes(seed):
    """<dL, tangent> of the loss along a direction equals the gradient along it."""
    cell = Cell(system(seed))
    params, inputs = systems.draw(cell, seed=seed)
    given = {**inputs, **systems.steps(cell)}
    rng = np.random.default_rng(seed)
    _, gradient = cell.gradient(params, **given)
    names = [n for n in (*cell.parameters, *cell.inputs) if n in gradient]
    tangent = cell.tangent(names)
    values = {**params, **inputs}
    directions = {f"{n}_dot": rng.normal(size=np.shape(values[n])) for n in names}
    known = {n: v for n, v in directions.items() if n in tangent.system.axes}
    trace = tangent.run({**params, **{n: v for n, v in known.items() if tangent.system.roles[n] == "parameter"}},
                        **{n: v for n, v in known.items() if tangent.system.roles[n] != "parameter"}, **given)
    along = sum(float(np.sum(gradient[n] * directions[f"{n}_dot"])) for n in names)
    scale = sum(float(np.sum(np.abs(gradient[n] * directions[f"{n}_dot"]))) for n in names)
    assert abs(float(np.sum(trace["Loss_dot"])) - along) <= 1e-12 * max(scale, 1e-30)


# Besides the first ones: sums and cases so deep that SymPy must not evaluate them, and copies that come first.
@pytest.mark.parametrize("seed", [*range(20), 64, 73, 132, 134, 156, 247])
def test_derivations_are_proved(seed):
    derivation = Cell(system(seed)).derivation()
    proof = derivation.check(points=3)
    assert proof.ok, f"system {seed}\n{proof}"
    assert len(proof.steps) == len(derivation.steps) and derivation.text(level="every")


def main():
    start, slices, worst, rounding = time.perf_counter(), 0, 0.0, 0
    for seed in range(COUNT):
        _, report = check(seed)
        slices, worst = slices + report.count, max(worst, report.worst)
        rounding += sum(s.note.startswith("rounding") for s in report.slices)
    print(f"{COUNT} systems, {slices} slices, worst error {worst:.1e}, {rounding} slices of rounding, "
          f"{time.perf_counter() - start:.1f} s")


if __name__ == "__main__":
    main()
