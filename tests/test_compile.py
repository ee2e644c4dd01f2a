"""Compiled programs give the reference's numbers: every cell, every pass, every subset, every generated system."""

import ast
import importlib.util
import re
import subprocess
import sys
from dataclasses import replace

import generated
import numpy as np
import pytest
import systems

from autograd_rnn import Cell, CellError, Primitive, zoo
from autograd_rnn import primitives as P
from autograd_rnn.backpropagate import adjoint_of, backpropagate, differentiate, wanted
from autograd_rnn.bind import bind
from autograd_rnn.compile import numpy_program, passes
from autograd_rnn.compile.llvm import machine
from autograd_rnn.compile.llvm.machine import Machine
from autograd_rnn.compile.numpy_program import NumpyProgram
from autograd_rnn.compile.passes import PASSES
from autograd_rnn.evaluate import evaluate
from autograd_rnn.graph import node, rewrite
from autograd_rnn.printing.text import equation, system_text
from autograd_rnn.shapes import carry_over

CELLS = systems.NAMES


def cell_of(name: str) -> Cell:
    return zoo[name] if name in zoo else systems.cell(name)


def problem(cell: Cell, T: int = 5, seed: int = 0, dtype=np.float64):
    """(params, arguments of gradient) with random cotangents where the cell has no loss."""
    params, inputs = systems.draw(cell, T=T, seed=seed)
    given = {**inputs, **systems.steps(cell, T=T)}
    if cell.loss is None:
        trace, rng = cell.run(params, **given), np.random.default_rng(seed)
        given["cotangents"] = {n: rng.normal(size=trace[n].shape).astype(dtype) for n in cell.outputs}
    cast = lambda v: v.astype(dtype) if isinstance(v, np.ndarray | np.floating) and v.dtype.kind == "f" else v
    return {n: cast(v) for n, v in params.items()}, {n: cast(v) for n, v in given.items()}


def difference(found: dict, true: dict) -> float:
    """The largest relative difference; what cancels to nothing is judged by the largest gradient."""
    assert set(found) == set(true)
    largest = max(float(np.max(np.abs(g), initial=0)) for g in true.values())
    return max(float(np.max(np.abs(found[n] - true[n]), initial=0)) / max(
        float(np.max(np.abs(true[n]), initial=0)), 1e-3 * largest, 1e-300) for n in true)


def gradients(cell: Cell, params, given, run):
    """Gradients through any evaluator of the adjoint system."""
    given = dict(given)
    cotangents = given.pop("cotangents", None)
    options = {k: given.pop(k, None) for k in ("steps", "noise")}
    bound = bind(cell.system, params, given, None, None, options["steps"], options["noise"])
    return backpropagate(bound, cell.outputs, cotangents, run)[1]


BACKENDS = ["numpy", "llvm"]


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", systems.MOST)
def test_compiled_is_the_reference(name, backend):
    cell = cell_of(name)
    compiled = cell.compile(backend=backend)
    for T, seed in ((5, 0), (1, 1), (2, 2)):
        params, given = problem(cell, T, seed)
        value, found = compiled.gradient(params, **given)
        true_value, true = cell.gradient(params, **given)
        assert value == pytest.approx(true_value, rel=1e-12, abs=1e-12) and difference(found, true) <= 1e-12
        given.pop("cotangents", None)
        trace, true_trace = compiled.forward(params, **given), cell.run(params, **given)
        assert difference(dict(trace), dict(true_trace)) <= 1e-12
    assert "left out" not in compiled.report()


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", systems.SHORT_FIRST)
def test_single_precision_is_as_good_as_the_reference(name, backend):
    cell = zoo[name]
    params, given = problem(cell, T=20)
    single = problem(cell, T=20, dtype=np.float32)
    true = cell.gradient(params, **given)[1]
    ours = cell.compile(backend=backend).gradient(single[0], **single[1])[1]
    reference = gradients(cell, *single, evaluate)
    assert all(g.dtype == np.float32 for n, g in ours.items())
    assert difference(ours, true) <= 20 * difference(reference, true) + 1e-6


# --- passes ------------------------------------------------------------------------------------------------------


def through(chosen):
    """An evaluator that compiles with some of the passes, to NumPy."""
    return lambda system, given, keep: NumpyProgram(system, frozenset(keep), chosen)(system, given, keep)


def through_machine(chosen=machine.PASSES, threads=1):
    """An evaluator that compiles with some of the passes, to machine code."""
    return lambda system, given, keep: Machine(system, keep, given.dtype == np.float64, chosen)(
        system, given, keep, threads)


@pytest.mark.parametrize("name", [
    "lstm", "gru_reset_after", "concatenated",
    *(pytest.param(name, marks=pytest.mark.long) for name in ("charlm", "rhn", "bidirectional"))])
def test_any_subset_of_passes_gives_the_same_numbers(name):
    cell = cell_of(name)
    params, given = problem(cell, T=3)
    true = gradients(cell, params, given, evaluate)
    rng = np.random.default_rng(0)

    def subsets(whole, drawn):
        yield from ((), whole, *((p,) for p in whole), *(tuple(p for p in whole if p is not q) for q in whole))
        yield from (tuple(p for p, kept in zip(PASSES, rng.random(len(PASSES)) < 0.5) if kept) for _ in range(drawn))

    for chosen in subsets(PASSES, 4):
        assert difference(gradients(cell, params, given, through(chosen)), true) <= 1e-12, chosen
    for chosen in subsets(machine.PASSES, 2):
        if passes.stack_gradients not in chosen or passes.name_exports in chosen:
            assert difference(gradients(cell, params, given, through_machine(chosen)), true) <= 1e-12, chosen


@pytest.mark.parametrize("name", ["lstm", "gru", "charlm", "bahdanau", "concatenated"])
@pytest.mark.parametrize("change", PASSES)
def test_a_pass_is_a_function_from_system_to_system(name, change):
    """The numbers of the changed equations, by the reference evaluator, are those of the unchanged."""
    cell = cell_of(name)
    params, given = problem(cell, T=3)

    def run(system, given_, keep):
        changed = change(system)
        before = system_text(system)
        sizes = carry_over(given_.sizes, system.inferred, changed.inferred)
        found = evaluate(changed, replace(given_, sizes=sizes), keep)
        assert system_text(system) == before
        return found

    if change in (passes.stack_gradients,):  # its parts of a matrix exist in generated source alone
        run = through((change,))
    assert difference(gradients(cell, params, given, run), gradients(cell, params, given, evaluate)) <= 1e-12


@pytest.mark.parametrize("seed", [*range(8), *(pytest.param(k, marks=pytest.mark.long) for k in range(8, 100))])
def test_every_pass_alone_and_any_two_keep_the_numbers(seed):
    """Of a generated system: two passes alone and four pairs of them, drawn, in either order."""
    cell, rng = generated.case_of(seed).cell, np.random.default_rng(seed)
    params, given = problem(cell, T=3, seed=seed)
    true = gradients(cell, params, given, evaluate)
    for count in (1, 1, 2, 2, 2, 2):
        chosen = tuple(PASSES[k] for k in rng.choice(len(PASSES), count, replace=False))
        assert difference(gradients(cell, params, given, through(chosen)), true) <= 1e-12, chosen


ACTS = {"rnn": {"gate_values", "split_sums"}, "gru_reset_after": {"name_parts"}, "gru": {"name_concats"},
        "lstm": {"factors_first", "stack_products", "sum_in_parts", "stack_activations", "stack_sums",
                 "stack_gradients", "stack_totals", "name_exports", "name_splits"}, "concatenated": {"split_concats"}}


def test_every_pass_acts_where_it_must():
    """On what the passes before it leave of these cells' gradients; none is refused."""
    assert set().union(*ACTS.values()) == {p.__name__ for p in PASSES}
    for name, expected in ACTS.items():
        cell, acted = cell_of(name), set()
        derived = adjoint_of(cell.system, cell.outputs, cell.loss is not None)
        system = derived.system
        for change in PASSES:
            changed = passes.live(change(system), wanted(cell.system, derived, cell.outputs))
            if [(str(eq), eq.value) for eq in changed.equations] != [(str(eq), eq.value) for eq in system.equations]:
                acted.add(change.__name__)
            system = changed
        assert expected <= acted, (name, expected - acted)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_refused_pass_is_told(backend, monkeypatch):
    """A pass whose result contradicts itself is left out, and the report says so."""
    def broken(system):
        raise CellError("It is not so.")

    where = numpy_program if backend == "numpy" else machine
    monkeypatch.setattr(where, "optimised", lambda system, chosen, keep: passes.optimised(
        system, (broken, *chosen), keep))
    cell = Cell(zoo["rnn"].text)
    params, given = problem(cell, T=3)
    program = cell.compile(backend=backend)
    assert difference(program.gradient(params, **given)[1], cell.gradient(params, **given)[1]) <= 1e-12
    assert "left out: the pass `broken`, since it would not hold: It is not so." in program.report()


@pytest.mark.parametrize("backend", BACKENDS)
def test_what_overflows_in_a_program_alone_is_computed_by_the_reference(backend):
    """(dh * a) * b is 1e30 in float32 where dh * (a * b) is not finite."""
    cell, single = Cell("h[t] = h[t-1] * a[t] * b[t]\na: input()\nb: input()\nh: ()"), np.float32
    given = {n: np.full(1, 1e30, single) for n in "ab"} | {"cotangents": {"h": np.full(1, 1e-30, single)}}
    for _ in range(2):
        found = cell.compile(backend=backend).gradient({}, **given)[1]
        assert found["h[0]"] == pytest.approx(1e30, rel=1e-6) and not found["a"] and not found["b"]
    with pytest.raises(CellError, match="`a` at t = 1 is not finite"):
        cell.compile(backend=backend).gradient({}, **{**given, "a": np.full(1, np.inf, single)})


# Outputs that some parameter or input does not reach, and reductions of products side by side.
UNREACHED = "h[t] = tanh(U @ h[t-1] + W @ x[t])\ng[t] = sigmoid(V @ x[t])"
MEANS = "h[t] = tanh(U @ h[t-1] + p[t] * x[t])\np[t] = mean(W_1 @ x[t]) + sum(W_3 @ h[t-1])\nq[t] = mean(W_2 @ x[t])"


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("text, output", [(UNREACHED, "g"), (UNREACHED, "h"), (MEANS, "h"), (MEANS, "q"), (MEANS, "p")])
def test_what_an_output_does_not_reach_has_a_zero_gradient(text, output, backend, tmp_path):
    cell = Cell(text)
    params, given = systems.draw(cell, T=4)
    given["cotangents"] = {output: np.random.default_rng(0).normal(size=cell.run(params, **given)[output].shape)}
    true, program = reference(cell, params, given), cell.compile(backend=backend, outputs=[output])
    for _ in range(3):  # the third is a replay, if there is one
        assert difference(program.gradient(params, **given)[1], true) <= 1e-12
    assert "left out" not in program.report()
    if text is UNREACHED and output == "g":
        assert not true["U"].any() and not true["W"].any()
    program.save(tmp_path / "saved.py")
    module = loaded(tmp_path / "saved.py")
    found = module.gradient({**params, "x": given["x"], f"Delta_{output}": given["cotangents"][output]})
    assert set(found) == {*cell.parameters, "x"} and difference(found, {n: true[n] for n in found}) <= 1e-12
    with pytest.raises(ValueError, match="'x' has shape"):
        module.gradient({**params, "x": given["x"][:, 0], f"Delta_{output}": given["cotangents"][output]})


def test_every_pass_states_before_and_after():
    assert all("->" in p.__doc__ for p in PASSES)
    changed = [p.__name__ for p in PASSES if p(adjoint_of(zoo["lstm"].system, ("h",), False).system).equations
               != adjoint_of(zoo["lstm"].system, ("h",), False).system.equations]
    assert len(changed) >= 4  # on their own; the others work on what these leave


def test_a_concatenation_leaves_the_work_where_a_sum_does():
    """The LSTM as textbooks write it, with one matrix for a gate, has the same work in its loops."""
    gates = {"i": "sigmoid", "f": "sigmoid", "o": "sigmoid", "g": "tanh"}
    whole = Cell("\n".join([*(f"{k}[t] = {f}(W_{k} @ concat(h[t-1], x[t]) + b_{k})" for k, f in gates.items()),
                            "c[t] = f[t] * c[t-1] + i[t] * g[t]", "h[t] = o[t] * tanh(c[t])"]))
    found, true = (cell.compile(backend="llvm").report().splitlines()[-1] for cell in (whole, Cell(zoo["lstm"].text)))
    assert found == true and "in loops 16 h h" in found


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_value_that_is_split_in_two_ways(backend):
    """The first of one way is needed after the loop, the last of the other in it: they are no halves of one whole."""
    cell = Cell("""
q[t] = W.T @ h[t-1]
u[t] = split(q[t], x[t], h[t-1], 1)
v[t] = split(q[t], h[t-1], x[t], 2)
h[t] = tanh(V @ v[t] + U @ x[t])
L = sum_t(sum(h[t]**2)) + sum_t(sum(u[t]**3))
""")
    params, given = problem(cell, T=4)
    true, found = cell.gradient(params, **given)[1], cell.compile(backend=backend).gradient(params, **given)[1]
    assert difference(found, true) <= 1e-12


def test_a_broken_pass_is_caught(monkeypatch):
    cell = zoo["lstm"]
    params, given = problem(cell, T=3)
    true = gradients(cell, params, given, evaluate)

    def swapped(system):  # parts in the wrong order
        done = rewrite((eq.value for eq in system.equations), lambda n, args: node(
            n.op, *args, params=(len(args) - n.params[0],)) if n.op is P.split else None)
        return passes._with(system, (passes._valued(eq, done[eq.value]) for eq in system.equations))

    def lossy(system):  # one term of every sum is forgotten
        done = rewrite((eq.value for eq in system.equations), lambda n, args: P.total(*args[:-1])
                       if n.op is P.add and len(args) > 2 else node(n.op, *args, params=n.params))
        return passes._with(system, (passes._valued(eq, done[eq.value]) for eq in system.equations))

    for broken in (swapped, lossy):
        for run in (through, through_machine):
            assert difference(gradients(cell, params, given, run((passes.stack_products, broken))), true) > 1e-3


# --- the source --------------------------------------------------------------------------------------------------


def test_the_source_is_what_a_person_would_write():
    """One product a step and direction, one for each stack of weights outside, the author's equations beside them."""
    lines = zoo["lstm"].compile().source.split("def run")[1].splitlines()
    loops = [k for k, line in enumerate(lines) if line.startswith("    for ")]
    inside = [line for line in lines if line.startswith("        ")]
    assert len(loops) == 2 and sum("np.dot" in line for line in inside) == 2
    assert sum(".T @ " in line.split("#")[0] for line in lines) == 2
    for eq in zoo["lstm"].derivation().derived.forward.equations:
        assert any(re.search(rf"#.*(?<!\w){re.escape(equation(eq))}", line) for line in lines), eq
    assert max(map(len, lines)) < 200


@pytest.mark.parametrize("name", CELLS)
def test_users_names_stand_in_comments_only(name):
    source = cell_of(name).compile().source
    assert source == Cell(cell_of(name).text, **cell_of(name)._called).compile().source
    names = {n.id for n in ast.walk(ast.parse(source)) if isinstance(n, ast.Name)}
    run = next(n for n in ast.parse(source).body if isinstance(n, ast.FunctionDef) and n.name == "run")
    inner = {n.id for n in ast.walk(run) if isinstance(n, ast.Name)}
    slots = {n for n in inner if n[0] in "avkwnec" and n[1:].isdigit()}
    functions = {n.name for n in ast.parse(source).body if isinstance(n, ast.FunctionDef)}
    assert inner - slots - functions <= {"np", "arrays", "work", "extent", "size", "batch", "dtype", "offset",
                                                 "range"}, names


def saved(cell: Cell, folder):
    path = folder / "saved.py"
    cell.compile().save(path)
    return path, loaded(path)


def loaded(path):
    spec = importlib.util.spec_from_file_location("saved", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("name", CELLS)
def test_a_saved_file_needs_only_numpy(name, tmp_path):
    cell = cell_of(name)
    path, module = saved(cell, tmp_path)
    tree = ast.parse(path.read_text())
    imports = [n.names[0].name for n in ast.walk(tree) if isinstance(n, ast.Import | ast.ImportFrom)]
    assert set(imports) <= {"numpy", "builtins"}
    params, given = problem(cell)
    seeds = adjoint_of(cell.system, cell.outputs, cell.loss is not None).seeds
    values = {**params, **given, **{seeds[n]: g for n, g in given.get("cotangents", {}).items()}}
    values.pop("cotangents", None)
    true = cell.gradient(params, **given)[1]
    found = module.gradient(values)
    assert difference(found, {n: true[n] for n in found}) <= 1e-12 and set(cell.parameters) <= set(found)


def test_a_saved_file_takes_sizes_that_no_array_shows(tmp_path):
    """Weights shared by all layers do not tell how many there are."""
    cell = systems.with_loss(zoo["grid_lstm_tied"])
    params, given = problem(cell)
    _, module = saved(cell, tmp_path)
    found, true = module.gradient({**params, **given}), cell.gradient(params, **given)[1]
    assert params["l"] > 1 and difference(found, {n: true[n] for n in found}) <= 1e-12


def test_a_saved_file_runs_by_itself(tmp_path):
    path, _ = saved(zoo["gru"], tmp_path)
    done = subprocess.run([sys.executable, "-I", str(path)], capture_output=True, text=True)
    assert done.returncode == 0 and not done.stderr


def test_initial_states_go_into_a_saved_file(tmp_path):
    cell = zoo["lstm"]
    _, module = saved(cell, tmp_path)
    params, given = problem(cell)
    initial = {n: np.random.default_rng(3).normal(size=given["cotangents"]["h"].shape[1:]) for n in ("h", "c")}
    true = cell.gradient(params, initial=initial, **given)[1]
    found = module.gradient({**params, "x": given["x"], "Delta_h": given["cotangents"]["h"],
                             **{f"{n}[0]": v for n, v in initial.items()}})
    assert difference(found, {n: true[n] for n in found}) <= 1e-12


def test_a_saved_file_refuses_what_it_does_not_know(tmp_path):
    cell = Cell("h[t] = tanh(W @ x[t] + U @ h[t-1])\nh[0] = tanh(s)\ns: input(h)")
    _, module = saved(cell, tmp_path)
    params, given = problem(cell)
    values = {**params, "x": given["x"], "s": given["s"], "Delta_h": given["cotangents"]["h"]}
    assert difference(module.gradient(values), {n: g for n, g in reference(cell, params, given).items()
                                                if n in module.gradient(values)}) <= 1e-12
    for name in ("h[0]", "X"):  # the text says where h begins
        with pytest.raises(ValueError, match=name.replace("[", r"\[")):
            module.gradient({**values, name: 1.0})


def test_a_saved_file_takes_every_end_by_its_position(tmp_path):
    cell = Cell("h[t] = tanh(W @ x[t] + E @ onehot(k[t-1]) + U @ h[t-1])\nL = sum_t(cross_entropy(h[t], k[t]))")
    _, module = saved(cell, tmp_path)
    params, given = problem(cell)
    first = np.array([1, 2])
    true = cell.gradient(params, **given, initial={"k": first})[1]
    found = module.gradient({**params, **given, "k[0]": first})
    assert difference(found, {n: true[n] for n in found}) <= 1e-12
    grid = Cell("h[t,j] = tanh(W @ x[t,j] + U @ h[t-1,j] + V @ h[t,j-1])")
    _, module = saved(grid, tmp_path)
    params, given = problem(grid)
    side = np.random.default_rng(0).normal(size=given["cotangents"]["h"].shape[1:])
    true = grid.gradient(params, **given, initial={"h[0,j]": side})[1]
    found = module.gradient({**params, "x": given["x"], "Delta_h": given["cotangents"]["h"], "h[0,j]": side})
    assert difference(found, {n: true[n] for n in found}) <= 1e-12


def test_outputs_are_checked_where_they_are_named():
    for method in ("compile", "backward", "derivation"):
        with pytest.raises(CellError, match="There is no output `zz`"):
            getattr(zoo["lstm"], method)(outputs=["h", "zz"])


def test_a_primitive_of_ones_own_runs_and_is_refused_in_a_file(tmp_path):
    sine = Primitive("swing", lambda x: np.sin(x) * 0.5, vjp=lambda g, y, x: (g * P.cos(x) * 0.5,))
    cell = Cell("h[t] = swing(W @ x[t] + U @ h[t-1])", swing=sine)
    params, given = problem(cell)
    assert difference(cell.compile().gradient(params, **given)[1], cell.gradient(params, **given)[1]) <= 1e-12
    with pytest.raises(CellError, match="swing"):
        cell.compile().save(tmp_path / "own.py")


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", CELLS)
def test_ragged_batches_are_the_references(name, backend):
    cell = cell_of(name)
    for T, lengths, seed in ((6, [3, 6], 0), (5, [5, 1], 1)):
        params, given = problem(cell, T, seed)
        given["lengths"] = ragged(cell, params, given, lengths)
        true = reference(cell, params, given)
        assert difference(cell.compile(backend=backend).gradient(params, **given)[1], true) <= 1e-12


def ragged(cell, params, given, lengths) -> dict:
    """These lengths along every data index, as far as it goes; one example has its extent."""
    options = {n: v for n, v in given.items() if n not in ("cotangents", "steps", "noise")}
    extents = bind(cell.system, params, options, None, None, given.get("steps"), given.get("noise")).given.extents
    found = {i: [min(n, extents[i]) for n in lengths] for i in extents if i not in cell.system.model}
    for i, ns in found.items():
        ns[ns.index(max(ns))] = extents[i]
    return found


def reference(cell, params, given) -> dict:
    """Gradients through the reference evaluator."""
    given = dict(given)
    options = [given.pop(n, None) for n in ("cotangents", "initial", "lengths", "steps", "noise")]
    return differentiate(cell.system, cell.loss, cell.outputs, params, None, options[0], given, *options[1:],
                         evaluate)[1]


@pytest.mark.parametrize("name", ["lstm_peephole", "gru", "rnn"])
def test_padding_changes_nothing(name):
    """What padding holds changes no bit; how much of it there is, no digit that counts."""
    cell, compiled = zoo[name], zoo[name].compile(backend="llvm")
    params, given = problem(cell, T=7)
    lengths = [4, 7]
    true = compiled.gradient(params, **given, lengths=lengths)[1]
    spoiled = {"x": given["x"].copy(), "cotangents": {"h": given["cotangents"]["h"].copy()}}
    spoiled["x"][4:, 0] = spoiled["cotangents"]["h"][4:, 0] = np.nan
    found = compiled.gradient(params, **spoiled, lengths=lengths)[1]
    assert all((found[n] == true[n]).all() for n in true)
    longer = {"x": np.pad(given["x"], ((0, 5), (0, 0), (0, 0)), constant_values=7.0),
              "cotangents": {"h": np.pad(given["cotangents"]["h"], ((0, 5), (0, 0), (0, 0)))}}
    found = compiled.gradient(params, **longer, lengths=lengths)[1]
    assert not found["x"][7:].any()
    assert difference({**found, "x": found["x"][:7]}, true) <= 1e-12


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_start_within_a_sequence_is_the_references(backend):
    for name in ("lstm_peephole", "clockwork"):
        cell = cell_of(name)
        params, given = problem(cell, T=6)
        state = cell.run(params, **{n: v for n, v in given.items() if n != "cotangents"}).final
        assert state["t"] == [6, 6] or state["t"] == 6
        given["initial"] = state
        found = cell.compile(backend=backend).gradient(params, **given)[1]
        assert difference(found, reference(cell, params, given)) <= 1e-12


def test_report_tells_loops_from_what_is_time_parallel():
    report = zoo["lstm"].compile().report()
    assert "for all steps at once" in report and "in the loop over t forward" in report and "backward" in report
    assert re.search(r"\((\w) \+ \1 \+ \1 \+ \1 x \1\) @ \(\1\)", report)
