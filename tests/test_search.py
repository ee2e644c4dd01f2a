"""The search for cells: equality up to names and algebra, mutation, validity, ranking, going on after a kill."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import replace
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest

from autograd_rnn import Cell, CellError, zoo
from autograd_rnn import primitives as P
from autograd_rnn.__main__ import main
from autograd_rnn.equations import Equation, System
from autograd_rnn.graph import const, node, rewrite, topological
from autograd_rnn.printing.text import expression, system_text
from autograd_rnn.search import algebra
from autograd_rnn.search.canonical import Labelled, form, unfolded
from autograd_rnn.search.mutate import ACTIVATIONS, ELEMENTWISE, NOW, OPERATORS, Step, mutated
from autograd_rnn.search.rank import (
    HEATS,
    PASS,
    Candidate,
    Heat,
    best,
    judge,
    kept,
    rank,
    ranking,
    runs,
    score,
    search,
    setting,
    size_of,
)
from autograd_rnn.search.valid import valid
from autograd_rnn.tasks.bench import RESULT

RNG = np.random.default_rng
SAME = [{"lstm", "lstm_zero_bias", "lstm_np"}, {"gru", "mut2_projected"}]  # by other names, with other first values
START = {name: str(zoo[name]) for name in ("lstm", "gru")}
QUICK = (Heat("memorization", dict(N=2, symbols=3), 30, weights=200), Heat("adding", dict(T=4), 30, weights=200),
         Heat("arithmetic", dict(digits=1), 20, 1, weights=200))


# --- equality ------------------------------------------------------------------------------------------------------


def renamed(cell: Cell, rng) -> str:
    """Other names for all variables, the last equation's among them, and the others in another order."""
    system, text = cell.system, system_text(cell.system)
    names = {n: f"q{k}" for n, k in zip(system.names, rng.permutation(len(system.names)))}
    text = re.sub(r"\b[A-Za-z_]\w*\b", lambda m: names.get(m[0], m[0]), text)
    *lines, last = text.split("\n")
    return "\n".join([*(lines[k] for k in rng.permutation(len(lines))), last])


def rewritten(cell: Cell, rng) -> str:
    """Sums, products and constants in another form, that algebra says is the same."""
    system = cell.system

    def change(n, args):
        match n.op, int(rng.integers(4)):
            case P.add, 0:
                return node(P.add, *(args[k] for k in rng.permutation(len(args))))
            case P.add, 1 if len(args) > 2:
                return node(P.add, args[0], node(P.add, *args[1:]))
            case P.add, 2:
                return node(P.neg, node(P.add, *(node(P.neg, a) for a in args)))
            case P.add, 3:
                return node(P.add, *args, args[0], node(P.neg, args[0]))
            case P.mul, 0:
                return node(P.mul, args[1], args[0])
            case P.mul, 1:
                return node(P.neg, node(P.mul, node(P.neg, args[0]), args[1]))
            case P.mul, 2 if args[0].op is P.add:
                return node(P.add, *(node(P.mul, a, args[1]) for a in args[0].args))
            case P.mul, 3 if args[1].op is P.add:
                return node(P.add, *(node(P.mul, args[0], a) for a in args[1].args))
            case P.matmul, 0 if args[1].op is P.add:
                return node(P.add, *(node(P.matmul, args[0], a) for a in args[1].args))
            case (P.tanh | P.sigmoid), 0:
                return node(P.neg, node(P.neg, node(n.op, node(P.mul, const(2), node(P.mul, const(0.5), args[0])))))
        return None

    values = rewrite((eq.value for eq in system.equations), change)
    return system_text(System([Equation(eq.name, eq.at, values[eq.value]) for eq in system.equations], system.axes,
                              system.model, system.declarations))


def written_out(cell: Cell, rng) -> str:
    """Every gate written out where it is read, its own line kept only where it is the last or read elsewhere."""
    system, values = cell.system, unfolded(cell.system)
    needed = {n.params[0] for n in topological(values.values()) if n.op.name == "read"} | {system.equations[-1].name}
    declared = {n: replace(d, shape=None) if d.kind == "noise" else d for n, d in system.declarations.items()}
    return system_text(System([Equation(eq.name, eq.at, n) for eq, n in values.items()
                               if eq.end or eq.name in needed or eq.name not in {m.params[0] for m in system.reads}],
                              system.axes, system.model, declared))  # of what size noise is follows from its use


@pytest.mark.parametrize(("change", "name"), [
    (change, name) for change in (renamed, rewritten, written_out) for name in zoo
    if (change, name) != (written_out, "draw_attention")])  # which would be longer than a text may be
def test_names_and_algebra_leave_the_form(change, name):
    wanted = form(zoo[name].system)
    for seed in range(3):
        text = change(zoo[name], RNG(seed))
        assert form(Cell(text).system) == wanted, text


def test_different_cells_of_the_zoo_have_different_forms():
    forms = {name: form(cell.system) for name, cell in zoo.items()}
    for a, b in combinations(forms, 2):
        assert (forms[a] == forms[b]) == any({a, b} <= same for same in SAME), (a, b)


GATE = "z[t] = sigmoid(W @ x[t] + U @ h[t-1] + b)\nh[t] = {}"
SUMS = [  # the same?, one, other
    (True, "z[t] - h[t-1] + 1 - z[t] + h[t-1] + z[t]", "1 + z[t]"),
    (True, "(1 - z[t]) * h[t-1] + z[t] * z[t]", "h[t-1] + z[t] * (z[t] - h[t-1])"),
    (True, "(z[t] + h[t-1])**2", "z[t]**2 + 2 * h[t-1] * z[t] + h[t-1] * h[t-1]"),
    (True, "z[t] / h[t-1] * h[t-1]", "z[t]"),
    (True, "z[t] * h[t-1] / 4", "0.25 * (z[t] * h[t-1])"),
    (True, "V @ (z[t] - h[t-1])", "V @ z[t] - V @ h[t-1]"),
    (True, "z[t] - V @ h[t-1]", "z[t] + V @ h[t-1]"),
    (True, "z[t] * (p - q * h[t-1])", "-(p * z[t]) + h[t-1] * z[t] * q"),
    (True, "maximum(0, z[t])", "maximum(z[t], 0)"),
    (False, "z[t] - V @ (h[t-1] + z[t])", "z[t] + V @ (h[t-1] - z[t])"),
    (False, "V @ h[t-1] + V.T @ z[t]", "V @ h[t-1] - V.T @ z[t]"),
    (False, "V @ h[t-1] + V @ z[t]", "V @ h[t-1] + Q @ z[t]"),
    (False, "tanh(p * z[t]) - p * h[t-1]", "tanh(p * z[t]) + p * h[t-1]"),
    (False, "z[t] - h[t-1]", "h[t-1] - z[t]"),
    (False, "where(z[t] > h[t-1], z[t], 0)", "where(h[t-1] > z[t], z[t], 0)"),
    (False, "z[t] * h[t-1]", "z[t] * z[t]"),
    (False, "1.1 * z[t] + h[t-1]", "z[t] + h[t-1]"),
    (False, "z[t] / h[t-1]", "h[t-1] / z[t]"),
]


@pytest.mark.parametrize(("same", "one", "other"), SUMS)
def test_sums_and_products_are_told_apart_by_algebra_alone(same, one, other):
    first, second = (Cell(GATE.format(text)).system for text in (one, other))
    assert (form(first) == form(second)) == same


def test_the_output_is_told_from_the_other_states():
    lines = ["a[t] = tanh(W @ x[t] + a[t-1])", "h[t] = tanh(V @ x[t] + U @ h[t-1]) + a[t]"]
    assert form(Cell("\n".join(lines)).system) != form(Cell("\n".join(reversed(lines))).system)


def test_variables_that_are_alike_are_set_apart_in_turn():
    """Two gates that differ in nothing, crossed: what colours alone cannot tell."""
    gates = "a[t] = tanh(A @ {}[t-1])\nb[t] = tanh(B @ {}[t-1])\nh[t] = a[t] * b[t] + W @ x[t]"
    straight, crossed = (Cell(gates.format(*names)).system for names in ("ab", "ba"))
    assert form(straight) != form(crossed)
    graph = Labelled.of(crossed)
    assert len(set(graph.refined([0] * len(graph.labels)))) < len(graph.labels)
    assert form(crossed) == form(Cell(renamed(Cell(gates.format(*"ba")), RNG(0))).system)


def test_the_least_form_does_not_depend_on_the_order_of_choice():
    """Two states that follow each other, and four: no neighbour tells them apart, and they are not alike."""
    follow = dict(zip("abcdef", "badefc"))
    lines = [f"{one}[t] = tanh({other}[t-1])" for one, other in follow.items()]
    cell = Cell("\n".join([*lines, "h[t] = a[t] * b[t] * c[t] * d[t] * e[t] * f[t] + W @ x[t]"]))
    assert len({form(Cell(renamed(cell, RNG(seed))).system) for seed in range(12)}) == 1
    longer = Cell(cell.text.replace("b[t] = tanh(a", "b[t] = tanh(c").replace("f[t] = tanh(c", "f[t] = tanh(a"))
    assert form(longer.system) != form(cell.system)


def test_a_sum_with_too_many_terms_is_refused():
    factors = " * ".join(f"(p{k} + h[t-1] + x[t])" for k in range(12))
    with pytest.raises(CellError, match=f"more than {algebra.WIDEST} terms"):
        form(Cell(f"h[t] = {factors}").system)


# --- mutation ------------------------------------------------------------------------------------------------------

STEP = Cell("z[t] = sigmoid(W @ x[t] + U @ h[t-1])\nh[t] = z[t] * tanh(h[t-1])")
OUTCOMES = {  # operator -> node -> all that it may become, by the texts' beginnings
    "another_activation": ("tanh(h[t-1])", {"tanh", "sigmoid", "maximum", "M", "h[t-1]", "0.9", "1.1"}),
    "another_operation": ("W @ x[t] + U @ h[t-1]", {"W @ x[t] + U", "W @ x[t] - U", "(W @ x[t]) *"}),
    "inserted": ("tanh(h[t-1])", {"tanh(tanh", "tanh(sigmoid", "tanh(maximum", "tanh(M", "tanh(h", "tanh(0.9",
                                  "tanh(1.1"}),
    "removed": ("U @ h[t-1]", {"h[t-1]"}),
    "ancestor": ("tanh(h[t-1])", {"h[t-1]"}),
    "combined": ("tanh(h[t-1])", {"h[t-1]"}),
}


@pytest.mark.parametrize("operator", OPERATORS, ids=lambda f: f.__name__)
def test_an_operator_gives_what_it_says(operator):
    whole = unfolded(STEP.system)
    nodes = {expression(n): n for n in topological(whole.values())}
    vectors = {n: None for text, n in nodes.items() if text not in ("W", "U", "x[t]")}
    text, wanted = OUTCOMES[operator.__name__]
    step = Step(RNG(0), vectors, iter(range(1, 1000)))
    seen = {expression(operator(step, nodes[text])) for _ in range(200)}
    assert all(any(one.startswith(start) for start in wanted) for one in seen), seen
    assert all(any(one.startswith(start) for one in seen) for start in wanted), seen


def test_operators_pass_over_what_they_do_not_fit():
    nodes = {expression(n): n for n in topological(unfolded(STEP.system).values())}
    step = Step(RNG(0), {nodes["h[t-1]"]: None, nodes["U @ h[t-1]"]: None}, iter([]))
    by_name = {f.__name__: f for f in OPERATORS}
    for name, text in (("another_activation", "U @ h[t-1]"), ("another_operation", "tanh(h[t-1])"),
                       ("inserted", "W @ x[t]"), ("removed", "W @ x[t]")):
        assert by_name[name](step, nodes[text]) is None


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_an_activation_has_a_value(name):
    step = Step(RNG(0), {}, iter([1]))
    n = ACTIVATIONS[name](step, unfolded(STEP.system)[STEP.system.equations[1]])
    text = system_text(System([Equation("y", (NOW,), n)], {**STEP.system.axes, "y": ("t",), "M1": (), "d1": ()},
                              frozenset(), {}))
    cell = Cell(f"{STEP.text}\n{text}")
    sizes = dict(x=2, h=3, **({"y": 3} if "y" in cell.dims else {}))
    trace = cell.run({k: np.zeros(v.shape) for k, v in cell.init(**sizes).items()}, x=np.zeros((1, 2)))
    assert trace["y"].tolist() == [[{"sigmoid": 0.5, "plus one": 1, "minus one": -1}.get(name, 0)] * 3]


@pytest.mark.parametrize("name", ["lstm", "gru", "mut3", "lstm_peephole"])
def test_mutants_are_texts_and_come_from_their_seed(name):
    seen = set()
    for seed in range(40):
        text = mutated(zoo[name], RNG(seed))
        assert text == mutated(zoo[name], RNG(seed))
        try:
            cell = valid(text)
        except CellError:
            continue
        assert cell.system.equations[-1].name == "h" and cell.outputs
        seen.add(form(cell.system))
        for again in range(3):  # mutants of mutants
            mutated(cell, RNG(again))
    assert len(seen) > 10


def test_all_elementwise_operations_stand_between_vectors():
    a, b = const(2), const(3)
    assert {name: expression(f(a, b)) for name, f in ELEMENTWISE.items()} == {"+": "2 + 3", "-": "2 - 3", "*": "6"}


# --- validity ------------------------------------------------------------------------------------------------------

INVALID = [
    ("h[t] = tanh(W @ x[t] + U @", "h[t] = tanh(W @ x[t] + U @"),
    ("h[t] = tanh(x[t] + U @ h[t-1])", "must have the state's size"),
    ("h[t] = tanh(W @ x[t] + U @ h[t-1]) * y[t]", "does not read x[t], a vector, alone"),
    ("h[t] = tanh(w * x[t] + U @ h[t-1])\nx: input()\nw: (h)", "does not read x[t], a vector, alone"),
    ("h[t] = tanh(W @ x[t] + U @ h[t+1])", "no step `t` or before"),
    ("h[t] = tanh(W @ x[t] + U @ h[t-1])\nh[0] = h0", "no step `t` or before"),
    (str(zoo["lstm_stacked"]), "no step `t` or before"),
    ("h[t] = tanh(W @ x[t] + b)", "does not depend on the first input"),
    ("h[t] = tanh(U @ h[t-1] + W @ x[t]) * 0", "does not depend on the first input"),
    ("h[t] = tanh(U @ h[t-1] + W @ x[t]) + b - b", "No gradient reaches `b`"),
    ("h[t] = 2 * h[t-1] * h[t-1] + W @ x[t]", "finite"),
    ("h[t] = W @ x[t]" + "".join(f" + tanh(0.{k} * h[t-1])" for k in range(60)), "operations"),
]


@pytest.mark.parametrize(("text", "why"), INVALID)
def test_what_is_no_cell_that_could_learn_is_refused(text, why):
    with pytest.raises(CellError) as e:
        valid(text)
    assert why in str(e.value)


@pytest.mark.parametrize("name", ["rnn", "lstm", "lstm_peephole", "gru", "mut1_projected", "mut2_projected", "mut3"])
def test_cells_of_the_literature_are_valid(name):
    assert valid(str(zoo[name])).system == zoo[name].system


# --- rank ----------------------------------------------------------------------------------------------------------


def test_scores_count_from_the_trivial_predictor():
    given = {"task": "adding", "values": {"T": 10}}
    assert [round(score({**given, "test": v}), 6) for v in (0.0, 1 / 12, 1 / 6, 0.5, float("nan"))] == [1, 0.5, 0, 0, 0]
    assert score({**given, "test": None}) == 0
    assert score({"task": "memorization", "values": {"N": 2, "symbols": 4}, "test": 0.375}) == 0.5


@pytest.mark.parametrize("name", ["lstm", "gru", "mut1_projected"])
def test_a_size_is_the_largest_within_the_weights(name):
    cell = zoo[name]
    size = size_of(cell, 5, 1000)

    def weights(h):
        return sum(np.size(v) for v in cell.init(x=5, h=h).values())

    assert weights(size) <= 1000 < weights(size + 1)


def test_all_cells_meet_the_same_settings():
    one, other = ([run.settings for run in runs(Candidate(n, START[n], ""), HEATS[0])] for n in START)
    assert [(s.lr, s.clip, s.seed) for s in one] == [(s.lr, s.clip, s.seed) for s in other]
    assert setting(0) != setting(1)


def test_a_cell_is_tried_until_it_misses_a_mark(tmp_path):
    gru = Candidate("gru", START["gru"], "")
    scores = judge(gru, tmp_path, {}, QUICK)
    assert list(scores) == [heat.task for heat in QUICK]
    files = {path: path.stat().st_mtime_ns for path in (tmp_path / "runs").iterdir()}
    assert len(files) == sum(heat.draws for heat in QUICK)
    assert judge(gru, tmp_path, {}, QUICK) == scores
    low = dict.fromkeys(scores, 0.0)
    assert list(judge(gru, tmp_path, {**low, "adding": 9.0}, QUICK)) == ["memorization", "adding"]
    assert list(judge(gru, tmp_path, {**low, "memorization": 9.0}, QUICK)) == ["memorization"]
    assert files == {path: path.stat().st_mtime_ns for path in (tmp_path / "runs").iterdir()}


def test_the_rank_is_the_least_of_the_tasks():
    marks = dict(memorization=0.5, adding=0.5, arithmetic=0.8)
    assert rank(dict(memorization=0.1, adding=0.6, arithmetic=0.4), marks) == 0.5
    assert rank(dict(memorization=0.6, adding=0.3), marks) == 0
    some = [Candidate(str(k), "", "", dict(memorization=1, adding=1, arithmetic=k / 10)) for k in range(4)]
    assert [c.name for c in best(some, marks)] == ["3", "2", "1"]
    assert ranking(some[3:], marks).splitlines()[2] == "| 3 | 0.375 | 1.000 | 1.000 | 0.300 |  |"


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A small search, its cells and marks, and its folder."""
    folder = tmp_path_factory.mktemp("search")
    return *search(folder, START, 5, 1, 3, QUICK), folder


def test_a_search_finds_different_valid_cells(finished):
    cells, marks, folder = finished
    assert len({c.name for c in cells}) == 5 == len(list((folder / "cells").iterdir()))
    for c in cells:
        assert form(valid(c.text).system) == c.name
        assert c.origin.startswith("start: ") or re.fullmatch(r"mutant \d+ of [0-9a-f]{12}", c.origin)
        *passed, last = c.scores
        assert c.origin.startswith("start") or all(c.scores[task] >= PASS * marks[task] for task in passed), last
    assert kept(folder) == [Candidate(c.name, c.text, c.origin) for c in cells]
    saved = {path.stem for path in (folder / "best").iterdir()}
    assert saved == {c.name for c in best(cells, marks) if not c.origin.startswith("start")}


def test_a_search_that_was_killed_goes_on_where_it_stood(finished, tmp_path):
    """Killed while it trains the fourth cell; then what is on file is left as it is, and the end is the same."""
    cells, marks, _ = finished
    code = ("import sys; from test_search import QUICK, START; from autograd_rnn.search.rank import search; "
            f"search({str(tmp_path)!r}, START, 5, 1, 3, QUICK)")
    paths = os.pathsep.join([str(Path(__file__).parent), *filter(None, sys.path)])
    process = subprocess.Popen([sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": paths},
                               stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
    until = time.monotonic() + 200
    while not list((tmp_path / "cells").glob("00003-*.cell")):
        assert time.monotonic() < until and process.poll() is None
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    before = {path: path.read_bytes() for path in (tmp_path / "runs").glob("*.json")}
    assert before and search(tmp_path, START, 5, 1, 3, QUICK) == (cells, marks)
    assert all(path.read_bytes() == content for path, content in before.items())


def test_a_folder_keeps_to_its_start(finished):
    *_, folder = finished
    for start in ({"gru": START["gru"]}, {**START, "rnn": str(zoo["rnn"])}, {}):
        with pytest.raises(CellError, match="began otherwise"):
            search(folder, start, 5, heats=QUICK)


def test_the_command_line_goes_on_and_prints_the_best(tmp_path, capsys):
    """All that it needs is on file: the runs of the start cells, made here as they would come out."""
    for name, text in START.items():
        made = Candidate(form(Cell(text).system), text, "")
        for heat in HEATS:
            for run in runs(made, heat):
                path = run.file(tmp_path / "runs")
                path.parent.mkdir(exist_ok=True)
                path.write_text(json.dumps({**dict.fromkeys(RESULT), **run.facts,
                                             "test": 0.1 if name == "gru" else 0.12, "error": None}))
    assert main(["search", "--cells", "2", "--folder", str(tmp_path), "--workers", "1"]) == 0
    out, err = capsys.readouterr()
    assert out.splitlines()[2].startswith(f"| {form(zoo['gru'].system)} | 1.000 |") and out.rstrip().endswith(
        START["gru"])
    assert err.count("start: ") == 2
    assert main(["search", "--start", "nothing", "--folder", str(tmp_path)]) == 2
