"""NumPy programs below the level of systems: what is written in place, what is handed out, the same shapes again."""

import ast
import gc
import re
import warnings
from concurrent.futures import ThreadPoolExecutor
from inspect import getsource, isfunction

import numpy as np
import pytest
import systems

from autograd_rnn import Cell, primitives, zoo
from autograd_rnn.compile import inplace, parts, source

SOME = ["rnn", "lstm", "lstm_peephole", "gru", "gru_reset_after"]
AXES = Cell("h[t,j] = tanh(W @ x[t,j] + U @ h[t-1,j] + V @ h[t,j-1])")
ALONE = Cell("s = tanh(V @ z)\nh[t] = tanh(W @ x[t] + U @ h[t-1] + s)\nz: input(h)")
LINEAR = Cell("h[t] = a * h[t-1] + W @ x[t]")
BACK = Cell("h[t] = tanh(W @ x[t] + U @ h[t+1] + V @ x[t-1])")
TWICE = Cell("h[t] = tanh(W @ x[t] + V @ x[t] + U @ h[t-1] - c)")
CELLS = {**{n: zoo[n] for n in SOME}, "axes": AXES, "alone": ALONE, "linear": LINEAR, "back": BACK, "twice": TWICE}


def sized(cell: Cell, dtype=np.float64, batch: int | None = 3, seed: int = 0) -> tuple[dict, dict]:
    """(params, arguments of gradient), with cotangents where the cell has no loss."""
    params, given = (({n: a.astype(dtype) for n, a in group.items()}) for group in systems.draw(
        cell, T=7, batch=batch, seed=seed))
    if cell.loss is None:
        shape = cell.run(params, **given)["h"].shape
        given["cotangents"] = {"h": np.random.default_rng(seed).normal(size=shape).astype(dtype)}
    return params, given


def replays(cell: Cell) -> list:
    return [r for r in vars(cell.system).get("_replays", {}).values() if r is not None]


def same(found: dict, true: dict) -> bool:
    return set(found) == set(true) and all(
        found[n].shape == true[n].shape and np.array_equal(found[n], true[n]) for n in true)


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.longdouble])
@pytest.mark.parametrize("name", CELLS)
def test_a_replay_has_the_bits_of_the_long_way(name, dtype):
    cell = Cell(CELLS[name].text)
    compiled = cell.compile(backend="numpy")
    for unbatched in (False, True):
        for seed in range(3):
            params, given = sized(cell, dtype, None if unbatched else 3, seed)
            value, found = compiled.gradient(params, **given)
            true_value, true = Cell(cell.text).compile(backend="numpy").gradient(params, **given)
            assert value == true_value and same(found, true)
            reference = cell.gradient(params, **given)[1]
            assert all(np.allclose(found[n], reference[n], 1e-4, 1e-4) for n in reference)
    assert len(replays(cell)) == 2


def test_memory_comes_back_after_garbage_was_collected_meanwhile():
    cell = Cell(zoo["lstm"].text)
    params, given = sized(cell)
    trace = cell.compile(backend="numpy").forward(params, x=given["x"])
    gc.collect()
    (made,) = vars(cell.system)["_programs"].values()
    (waiting,) = made.spaces.values()
    assert not waiting
    del trace
    assert len(waiting) == 1


@pytest.mark.parametrize("name", CELLS)
def test_what_is_handed_out_is_the_callers(name):
    """Gradients and traces outlive the runs that follow, and may be written to."""
    cell = Cell(CELLS[name].text)
    compiled = cell.compile(backend="numpy")
    params, given = sized(cell)
    inputs = {n: v for n, v in given.items() if n != "cotangents"}
    first, trace = compiled.gradient(params, **given)[1], compiled.forward(params, **inputs)
    kept, seen = {n: g.copy() for n, g in first.items()}, {n: trace[n].copy() for n in trace}
    for g in compiled.gradient(params, **given)[1].values():
        g += 1.0
    other = {n: 2 * p for n, p in params.items()}
    changed = compiled.gradient(other, **given)[1]
    compiled.forward(other, **inputs)
    assert same(first, kept) and same({n: trace[n] for n in trace}, seen) and not same(changed, kept)
    assert same(compiled.gradient(params, **given)[1], kept)


def test_ends_of_one_run_are_no_ends_of_the_next():
    cell = Cell(zoo["lstm"].text)
    compiled = cell.compile(backend="numpy")
    params, given = sized(cell)
    start = np.ones_like(given["cotangents"]["h"][0])
    true = compiled.gradient(params, **given)[1]
    begun = compiled.gradient(params, **given, initial={"h": start, "c": start})[1]
    assert not same(begun, true) and same(compiled.gradient(params, **given)[1], true)
    half = compiled.gradient(params, **given, initial={"c": start})[1]
    fresh = Cell(cell.text).compile(backend="numpy").gradient(params, **given, initial={"c": start})[1]
    assert not same(half, begun) and same(half, fresh)


def test_runs_from_several_threads_at_once():
    cell = Cell(zoo["lstm"].text)
    compiled = cell.compile(backend="numpy")
    problems = [sized(cell, batch=batch, seed=k) for k, batch in enumerate((2, 5, 2, 7))]
    true = [compiled.gradient(p, **g)[1] for p, g in problems]
    wrong = []

    def work(k):
        for _ in range(30):
            if not same(compiled.gradient(problems[k][0], **problems[k][1])[1], true[k]):
                wrong.append(k)

    with ThreadPoolExecutor(4) as pool:  # what a thread raises is raised here
        list(pool.map(work, range(4)))
    assert not wrong


def loops(text: str) -> list[str]:
    """The statements in the loops of a program."""
    return [line.split("  # ")[0].strip() for line in text.split("def run")[1].splitlines()
            if line.startswith("        ") and not line.strip().startswith("#") and line.strip() not in ("]", "[")]


@pytest.mark.parametrize("name", SOME)
def test_a_loop_makes_no_array(name):
    """Every statement of a loop writes in place, or names a view."""
    statements = [s for s in loops(zoo[name].compile(backend="numpy").source) if not s.startswith(("w", "a", "v")) or
                  " = " in s]
    form = re.compile(r"np\.\w+\(.*, out=[^()]*\)|[vw]\d+ = [awv]\d+\[[^()]*\]|[^()]*\] = work")
    assert len(statements) > 5 and all(form.fullmatch(s) for s in statements), statements


@pytest.mark.parametrize("name, whole, count", [("lstm", 7, 2), ("gru_reset_after", 5, 1), ("rnn", 0, 1)])
def test_parts_lie_in_wholes_and_carries_rest(name, whole, count):
    """i, f, o in the array of their sigmoid, the deltas in the array that the backward product reads; the adjoints that
    a step hands to the next in one place."""
    text = zoo[name].compile(backend="numpy").source
    assert len(re.findall(r"\n    a\d+ = a\d+\[\.\.\., ", text)) == whole
    assert len(re.findall(r"\n    w\d+\[\.\.\.\] = a\d+\[", text)) == count
    assert not any("concatenate" in s for s in loops(text))


FAULTS = {
    "an operand's array is taken while it is needed": (
        inplace.InPlace, "room", lambda self, n, room=inplace.InPlace.room: next(
            (s for a in self.plan.consumers and n.args for s in self.work.of.get(a, ())
             if self.work.shapes[s] == self.spans(n)), None) or room(self, n)),
    "a carry rests although it is read later": (source, "resting", lambda writer, loop: [
        eq for eq in loop.body if getattr(eq, "name", "") in ("h", "c", "s")]),
    "a part lies where another is": (source, "parts", lambda *args: {
        n: parts.Part(p.whole, (), p.size) for n, p in parts.parts(*args).items()}),
}
AHEAD = """
h[t] = tanh(W @ x[t] + U @ h[t-1])
s[t] = h[t] * s[t-1] + exp(-h[t-1])
L = sum_t(sum(s[t] * h[t]))
"""


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_in_place_is_caught(fault, monkeypatch):
    """The comparison with the reference sees values that are written over too early, and the reference answers."""
    monkeypatch.setattr(*FAULTS[fault])
    seen = []
    for cell in (Cell(zoo["lstm"].text), Cell(AHEAD)):
        params, given = sized(cell)
        program = cell.compile(backend="numpy")
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            found, true = (c.gradient(params, **given)[1] for c in (program, cell))
        assert max(float(np.max(np.abs(found[n] - true[n]))) for n in true) < 1e-12
        assert any("differs from the reference" in str(w.message) for w in told) == (
            program.report().startswith("not used"))
        seen += told
    assert seen


def test_no_function_of_a_program_hides_one_that_it_calls():
    """A helper loses its underscore in the program: `_real` is `real` there, and must be no variable of its caller."""
    for name, value in vars(primitives).items():
        if isfunction(value) and value.__module__ == primitives.__name__:
            nodes = [*ast.walk(ast.parse(getsource(value)))]
            called = {n.id.lstrip("_") for n in nodes if isinstance(n, ast.Name) and n.id.startswith("_")}
            bound = {n.id for n in nodes if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)}
            assert called.isdisjoint(bound | {n.arg for n in nodes if isinstance(n, ast.arg)}), name
