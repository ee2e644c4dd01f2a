"""The benchmarks: their short forms run, their judgement can fail, and their pages say what they find."""

import importlib.util
import json
import sys
from pathlib import Path
from types import SimpleNamespace

import handwritten
import lags
import numpy as np
import plan
import processes
import pytest
import results as kept
import search
import speed
import speed_page
import sympy
from cells import MODELS, output
from processes import LONG, Skipped, System, taking_turns
from work import Work, apart, data, floating

from autograd_rnn import Cell
from autograd_rnn.__main__ import parser, runs_of
from autograd_rnn.search.canonical import form
from autograd_rnn.search.rank import rank
from autograd_rnn.search.valid import valid
from autograd_rnn.tasks import tasks
from autograd_rnn.tasks.bench import RESULT

ROOT = Path(__file__).parents[1]


def benchmark(name: str):
    spec = importlib.util.spec_from_file_location(name, ROOT / "benchmarks" / f"{name}.py")
    sys.modules[name] = module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


sy = benchmark("sympy_derivatives")
QUICK = [sy.Case("rnn", "U", 1), sy.Case("rnn", "U", 2), sy.Case("lstm", "U_i", 1)]


def told(line: str) -> list[str]:
    """A line of the table without its times."""
    cells = [cell.strip() for cell in line.split("|")[1:-1]]
    return [cell for k, cell in enumerate(cells) if sy.COLUMNS[k] != "seconds"]


@pytest.mark.parametrize("case", [case if case in QUICK else pytest.param(case, marks=pytest.mark.long)
                                  for case in sy.CASES], ids=lambda c: f"{c}, T = {c.T}")
def test_the_page_says_what_is_found(case):
    found = told(sy.line(case, sy.theirs(case), sy.ours(case)))
    printed = sy.PAGE.read_text(encoding="utf-8").splitlines()
    (row,) = (told(line) for line in printed if line.startswith(f"| {case} | {case.T} |"))
    assert found[4:] == row[4:] and found[4] == "right", "ours"
    if f"SymPy {sympy.__version__} " in printed[2]:
        assert found == row
    assert len(printed) > len(sy.CASES) and all(len(line) <= 120 for line in printed)


def test_a_wrong_answer_is_called_wrong():
    case = sy.Case("rnn", "U", 1)
    s, loss, back = next(sy.forms(case))
    right = loss(sy.unrolled(case, s)).diff(s.symbol("U", sy.n, sy.n))
    assert sy.judged(right, case, back) == "right"
    for wrong in (2 * right, right.T, -right, right + s.symbol("U", sy.n, sy.n)):
        assert sy.judged(wrong, case, back) == "wrong"
    ill = loss(sy.unrolled(QUICK[1], s)).diff(s.symbol("U", sy.n, sy.n))
    assert sy.judged(ill, case, back) == "wrong: ShapeError"
    assert sy.judged(right, case, lambda h, a: 2 * a) == "wrong"


def test_a_gradient_of_ours_that_is_wrong_is_called_wrong(monkeypatch):
    gradient = Cell.gradient
    case = QUICK[0]

    def damaged(self, *args, **given):
        value, gradients = gradient(self, *args, **given)
        return value, {**gradients, "U": gradients["U"] * (1 + 1e-6)}

    assert sy.ours(case).said == "right"
    monkeypatch.setattr(Cell, "gradient", damaged)
    assert sy.ours(case).said == "wrong"
    assert not sy.agree(np.zeros((2, 2)), np.ones((2, 2))) and not sy.agree(np.ones((2, 1)), np.ones((2, 2)))


def test_what_takes_too_long_is_no_answer(monkeypatch):
    monkeypatch.setattr(sy, "SECONDS", 0.01)
    assert sy.theirs(QUICK[0]).said == "no answer in 0.01 s"


def test_the_best_result_counts():
    right, wrong, error = (sy.Outcome(said, 1, 0.0) for said in ("right", "wrong: ShapeError", "error: ValueError"))
    assert right.rank < wrong.rank < sy.Outcome("unevaluated", 1, 0.0).rank < error.rank


# --- speed ---

TINY = Work("lstm", 2, 5, 3, 4)


@pytest.mark.parametrize("block", [1, 17, 10_000])
@pytest.mark.parametrize("name", handwritten.prepare)
def test_numpy_by_hand(name, block, monkeypatch):
    """However many steps the backward loop takes together, and at the second run as at the first."""
    monkeypatch.setattr(handwritten, "BLOCK", block)
    params, inputs = data(Work(name, 2, 5, 3, 4, "float64"))
    run, cell = handwritten.prepare[name](params, inputs["x"]), Cell(speed.cell(name).text)
    _, truth = cell.gradient(params, cotangents={"h": np.ones((5, 2, 4))}, **inputs)
    for _ in range(2):
        h, gradients = run()
        assert apart(gradients, {n: truth[n] for n in (*cell.parameters, "x")}) < 1e-14
        assert apart({"h": h}, {"h": cell.run(params, **inputs)["h"]}) < 1e-14


def in_numpy(work):
    """What a model asks of a peer, in NumPy."""
    def sweep(made, x, states=1, layers=(), reverse=False, first=None):
        before, step = made
        order = slice(None, None, -1 if reverse else 1)
        state, found = first or (np.zeros((*layers, work.B, work.H)),) * states, []
        for given in list(zip(*before(x)))[order]:
            state = step(state, *given)
            found.append(state[0])
        return np.stack(found[order])

    def cross_entropy(y, k):
        return np.log(np.exp(y).sum(-1)) - np.take_along_axis(y, k[..., None], -1)[..., 0]

    return SimpleNamespace(
        sigmoid=lambda a: 1 / (1 + np.exp(-a)), tanh=np.tanh, relu=lambda a: np.maximum(a, 0), concat=np.concatenate,
        split=lambda a, n: np.split(a, n, -1), stack=np.stack, where=np.where, cut=np.array, sweep=sweep,
        join=lambda a: np.concatenate(a, -1), onehot=lambda k, n: np.eye(n)[k], cross_entropy=cross_entropy,
        softmax=lambda a: np.exp(a) / np.exp(a).sum(0), maximum=np.maximum, log=np.log,
        softplus=lambda a: np.logaddexp(a, 0))


@pytest.mark.parametrize("name", MODELS)
def test_a_model_of_the_peers_is_the_cell(name):
    work = Work(name, 2, 5, 3, 4, "float64")
    (params, inputs), cell = data(work), speed.cell(name)
    found = MODELS[name](in_numpy(work), params, *inputs.values())
    assert apart({"out": found}, {"out": cell.run(params, **inputs)[output(name)]}) < 1e-14


class Pretended:
    """A system that answers as it is told; `faulty` is a gradient that it doubles."""

    threads = 1

    def __init__(self, seconds, faulty=None):
        self.told, self.faulty, self.calls = seconds, faulty, 0

    def prepare(self, work):
        params, inputs = data(work)
        gradients = Cell(speed.cell(work.cell).text).gradient(params, cotangents={"h": np.ones((5, 2, 4))}, **inputs)[1]
        found = {n: g for n, g in gradients.items() if "[" not in n}
        return {n: g * (1 + (n == self.faulty)) for n, g in found.items()}, np.ones((5, 2, 4))

    def seconds(self):
        self.calls += 1
        if self.told is None:
            raise Skipped("gone")
        return self.told


def comparison(**systems):
    names = dict(theirs="torch loop", slow="HIPS autograd", wrong="JAX scan", gone="TorchScript loop",
                 ours="autograd_rnn, numpy")
    options = speed.Options(speed.SECTIONS, None, None, None, (1,), None, rounds=5, budget=60.0, quick=False)
    rows = speed.compared("layers", TINY, {names[k]: s for k, s in systems.items()}, options)
    return {row["system"]: row for row in rows}


def test_what_is_wrong_is_not_timed(monkeypatch):
    monkeypatch.setattr(processes, "REST", 0)
    for name in (*speed.cell("lstm").parameters, "x"):
        wrong = Pretended(0.1, faulty=name)
        rows = comparison(theirs=Pretended(0.1), wrong=wrong, ours=Pretended(0.2))
        assert rows["JAX scan"]["skipped"].startswith("wrong: ") and "milliseconds" not in rows["JAX scan"]
        assert wrong.calls == 0 and rows["torch loop"]["ratio"] == 0.5


def test_systems_take_turns():
    rows = comparison(theirs=Pretended(0.1), slow=Pretended(LONG), gone=Pretended(None), ours=Pretended(0.05))
    assert [rows[n].get("rounds") for n in ("torch loop", "HIPS autograd", "autograd_rnn, numpy")] == [5, 3, 5]
    assert rows["torch loop"]["ratio"] == 2 and rows["TorchScript loop"]["skipped"] == "its process ended"
    order = []
    systems = {n: type("S", (), {"seconds": lambda self, n=n: order.append(n) or 1.0})() for n in "AB"}
    assert taking_turns(systems, 9, 0.0) == {"A": [1.0] * 3, "B": [1.0] * 3} and order == list("ABABAB")


def test_differences_are_seen():
    a = {"u": np.array([1.0, 100.0]), "v": np.zeros(2)}
    assert apart(a, a) == 0 and apart({**a, "w": a["u"]}, a) == 0
    assert apart({**a, "u": np.array([1.0, 101.0])}, a) == 0.01 and apart({**a, "v": np.array([0, 0.5])}, a) == 0.5
    for bad in ({"u": a["u"]}, {**a, "v": np.zeros(3)}, {**a, "v": np.array([0, np.nan])}):
        assert apart(bad, a) == float("inf")
    assert floating(Work("lstm", 32, 100, 64, 128)) == 6 * 32 * 100 * 4 * 128 * (64 + 128)
    assert floating(Work("mut1", 1, 1, 3, 4)) == 6 * (2 * 12 + 2 * 16) + 4 * 12


def test_a_process_of_its_own(monkeypatch):
    """It answers, says what it cannot do, and is there again when it has died."""
    with System("autograd_rnn, numpy", 1) as system:
        gradients, outputs = system.prepare(TINY)
        assert outputs.shape == (5, 2, 4) and gradients["U_f"].dtype == np.float32 and system.seconds() > 0
        with pytest.raises(Skipped, match="KeyError"):
            system.prepare(TINY._replace(cell="nonesuch"))
        system.child.kill()
        with pytest.raises(Skipped, match="its process ended with -9"):
            system.seconds()
        monkeypatch.setattr(processes, "LIMIT", 0.01)
        with pytest.raises(Skipped, match=r"no answer in 0\.01 s"):
            system.first(TINY)
        monkeypatch.undo()
        assert system.first(TINY).keys() == {"seconds", "megabytes"}


def results(*rows, **machine):
    plain = {"processor": "P", "vectors": "avx", "cores": 2, "system": "S", "versions": {"torch": "1"}}
    return {"machine": plain | machine, "rounds": 5, "rows": list(rows)}


def test_the_page_marks_what_is_lost_and_lists_what_is_missing():
    row = {"section": "layers", **TINY._asdict(), "sizes": "2 5 3 4", "threads": 1}
    told = speed_page.page([results(
        {**row, "system": "torch layer", "milliseconds": 1.0, "ratio": 0.5, "beside": "autograd_rnn, numpy"},
        {**row, "system": "torch loop", "milliseconds": 1234.5, "ratio": 3.0, "beside": "autograd_rnn, numpy"},
        {**row, "system": "JAX scan", "skipped": "wrong: 0.1 from the first peer's"},
        {**row, "system": "HIPS autograd", "skipped": "autograd is not installed"},
        {**row, "system": "autograd_rnn, numpy", "milliseconds": 2.0, "ratio": 1.0, "beside": "autograd_rnn, numpy"})])
    for line in ("| ms | 2 5 3 4 |", "| torch layer | **1 x0.50** |", "| torch loop | 1,234 x3.00 |",
                 "| JAX scan | wrong |", "| autograd_rnn, numpy | 2 |", "| torch layer | 0 of 1 | 0.50 | 0.50 | 0.50 |",
                 "- HIPS autograd: autograd is not installed (lstm)",
                 "- JAX scan: wrong: 0.1 from the first peer's (lstm)"):
        assert line in told.splitlines(), line
    assert all(len(line) <= 120 for line in told.splitlines())


def test_results_are_added_in_place():
    row = {"section": "layers", **TINY._asdict(), "sizes": "2 5 3 4", "threads": 1, "system": "JAX scan"}
    two = speed.added({**row, "threads": 2}, speed.added(row, []))
    assert speed.added({**row, "ratio": 2.0}, two) == [{**row, "ratio": 2.0}, {**row, "threads": 2}]
    rate = {"section": "rate", "threads": 1, "dtype": "float32", "system": "torch loop"}
    assert speed.added({**rate, "rate": 1}, [{**rate, "rate": 2}]) == [{**rate, "rate": 2}]
    assert speed.added({**rate, "rate": 3}, [{**rate, "rate": 2}]) == [{**rate, "rate": 3}]


def test_a_section_is_of_one_machine():
    row = {"section": "layers", **TINY._asdict(), "sizes": "2 5 3 4", "threads": 1, "system": "JAX scan"}
    every, two = (plan.chosen(plan.parsed(argv, "", speed.SECTIONS)) for argv in ((), ("--threads", "2")))
    few = every._replace(cells=("lstm",))
    (joined,) = speed.joined([results(row)], results(versions={"jax": "2"}), few)
    assert joined["machine"]["versions"] == {"torch": "1", "jax": "2"} and joined["rows"] == [row]
    for other in (results(versions={"torch": "2"}), results(processor="Q")):
        assert speed.joined([results(row)], other, every) == [other]
        assert speed.joined([results(row)], other, two) == [results(row), other]
        with pytest.raises(SystemExit, match="another machine"):
            speed.joined([results(row)], other, few)


def test_the_page_tells_machines_apart():
    row = {"section": "layers", **Work("lstm", 32, 100, 64, 128)._asdict(), "sizes": "32 100 64 128",
           "system": "torch layer", "milliseconds": 20.0, "operations": 10**9}
    rate = {"section": "rate", "system": "torch loop", "threads": 1, "dtype": "float32", "rate": 1e11}
    told = speed_page.page([results(rate, {**row, "threads": 1}), results({**row, "threads": 2}, processor="Q")])
    for line in ("Machine 2: Q (avx), 2 cores, S; torch 1.", "`lstm`, one thread, machine 1",
                 "`lstm`, 2 threads, machine 2", "| torch layer | 50 (50%) |"):
        assert line in told.splitlines(), line
    assert "50%" not in speed_page.page([results(rate), results({**row, "threads": 1}, processor="Q")])


def test_operations_a_second_are_a_share_of_the_faster_square_product():
    work = {**Work("lstm", 32, 100, 64, 128)._asdict(), "sizes": "32 100 64 128", "threads": 1}
    rates = [{"section": "rate", "system": s, "threads": 1, "dtype": "float32", "rate": r}
             for s, r in (("torch loop", 1e11), ("NumPy by hand", 2e11))]
    row = {**work, "section": "layers", "system": "torch layer", "milliseconds": 20.0, "operations": 10**9}
    told = speed_page.page([results(*rates, row)])
    assert "| torch layer | 50 (25%) |" in told and "100 GFLOP/s through torch, 200 GFLOP/s through NumPy" in told
    gone = {"section": "rate", "system": "torch loop", "threads": 1, "dtype": "float32", "skipped": "no"}
    assert "No rate was measured." in speed_page.page([results(gone, row)])


def test_options_choose():
    def chosen(*argv):
        return plan.chosen(plan.parsed(argv, "", speed.SECTIONS))

    assert [str(w) for w in plan.custom(chosen("--cells", "mut1", "--sizes", "1 50 10 16"))] == ["mut1 1 50 10 16"]
    assert {w.dtype for w in plan.layers(chosen("--dtype", "float64"))} == {"float64"}
    assert [w.sizes for w in plan.layers(chosen()) if w.dtype == "float64"] == ["32 100 64 128 float64"]
    assert chosen("--peers", "jax").wanted("JAX scan, hoisted") and not chosen("--peers", "jax").wanted("torch loop")
    elsewhere = chosen("--python", "pytensor=/there")
    assert elsewhere.python("PyTensor scan") == "/there" and elsewhere.python("JAX scan") == sys.executable


def test_a_narrowed_run_is_printed_and_not_written(capsys):
    before = [path.read_bytes() if path.exists() else None for path in (speed.RESULTS, speed.PAGE)]
    speed.main(["--quick", "--sections", "growth,custom,zoo", "--cells", "mut1,gru", "--peers", "autograd_rnn",
                "--threads", "1"])
    out = capsys.readouterr().out
    assert "| gru | " in out and "`mut1`, one thread" in out and "| autograd_rnn, numpy | 20 | " in out
    assert before == [path.read_bytes() if path.exists() else None for path in (speed.RESULTS, speed.PAGE)]


def test_the_page_is_that_of_the_results():
    if not speed.RESULTS.exists():
        pytest.skip("nothing has been measured yet")
    results = json.loads(speed.RESULTS.read_text(encoding="utf-8"))
    assert speed_page.page(results) == speed.PAGE.read_text(encoding="utf-8")


# --- results ---


@pytest.mark.parametrize("row", kept.planned(), ids=lambda row: row.command.split("bench ")[1])
def test_a_command_of_the_page_makes_the_runs_of_its_row(row):
    printed = runs_of(parser().parse_args(row.command.split()[3:]))
    assert [run.file("") for run in printed] == [run.file("") for run in row.runs]
    assert [run.facts for run in printed] == [run.facts for run in row.runs]


def test_norms_by_lag_are_those_of_a_power():
    """h decays by w in each step, and the gradient with it; c takes what h passes on."""
    cell = Cell("c[t] = v * c[t-1] + x[t]\nh[t] = w * h[t-1] + c[t]\nL = h[T]\nx: input()\nv: ()\nw: ()")
    found = lags.norms(cell, {"v": np.array(0.25), "w": np.array(0.5)}, {"x": np.ones((5, 2))})
    assert found["h"].tolist() == [0.5**lag for lag in range(5)]
    assert found["c"].tolist() == [sum(0.5**k * 0.25**(lag - k) for k in range(lag + 1)) for lag in range(5)]


def test_a_grid_chooses_by_validation_and_not_by_test(tmp_path, monkeypatch):
    monkeypatch.setattr(kept, "RESULTS", tmp_path)
    tried = kept.grid({"lr": (0.1, 0.2, 0.3), "T": (None, 20)}, "adding", "rnn", 2, size=3)
    assert [(one.values, one.settings["lr"]) for one in tried.rows[:3]] == [({}, 0.1), ({"T": 20}, 0.1), ({}, 0.2)]
    losses = [(0.5, 0.1), (0.4, 0.2), (0.3, 0.9), (0.6, 0.0), (0.7, 0.1), (0.8, 0.1)]
    for one, (held_out, test) in zip(tried.trials, losses):
        assert tried.choice is None, "not all were tried"
        (run,) = one.runs
        run.file(tmp_path).write_text(json.dumps({**dict.fromkeys(RESULT), "valid": held_out, "test": test}))
    assert tried.choice == tried.rows[2] and len(tried.choice.runs) == 2
    assert "among 6" in tried.told and "0.300" in tried.told and "0.800" in tried.told


def test_the_page_of_results_is_made_from_their_files():
    if not all(row.able for row in kept.planned()):
        pytest.skip("the data of the world is not there, from which baselines are computed")
    assert kept.PAGE.read_text(encoding="utf-8") == kept.page()


def test_every_result_on_file_is_of_a_row():
    planned = {run.file(kept.RESULTS) for row in kept.planned() for run in row.runs}
    there = set(kept.RESULTS.glob("*.json"))
    assert there <= planned
    for path in there:
        facts = json.loads(path.read_text(encoding="utf-8"))
        assert facts["task"] in tasks and (facts["error"] or np.isfinite(facts["test"]))


# --- the search ---


def test_the_page_of_the_search_is_made_from_its_files():
    assert search.PAGE.read_text(encoding="utf-8") == search.page()


def test_what_is_told_of_the_search_holds_together():
    facts = json.loads((search.KEPT / "cells.json").read_text(encoding="utf-8"))
    scores = {name: found for name, _, found in facts["cells"]}
    assert len(scores) == len(facts["cells"]) == search.CELLS
    ranked = search.kept(search.KEPT)
    assert ranked and all(form(valid(one.text).system) == one.name for one in ranked)
    ranks = [rank(scores[one.name], facts["marks"]) for one in ranked]
    assert ranks == sorted(ranks, reverse=True)
    planned = {run.file(search.KEPT) for one in search.compared() for heat in search.COMPARISON
               for run in search.runs(one, heat)}
    assert set(search.KEPT.glob("*-*.json")) == planned
