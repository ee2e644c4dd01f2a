"""Tasks: what each draws is what its definition says, baselines are what is measured, all train; runs are kept."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import replace
from itertools import groupby
from pathlib import Path

import numpy as np
import pytest

from autograd_rnn import Cell, CellError, zoo
from autograd_rnn.__main__ import main
from autograd_rnn.learn import advance
from autograd_rnn.learn.session import Settings
from autograd_rnn.tasks import arithmetic, files, grammars, lags, series, tasks
from autograd_rnn.tasks.bench import Run, carry_out, carry_out_all, digest_of, first, found, missing
from autograd_rnn.tasks.results import failures, groups, table

ROOT = Path(__file__).parents[1]
RNG = np.random.default_rng
COUNT = 300


@pytest.fixture(scope="module")
def paths(tmp_path_factory) -> dict[str, str]:
    """Small files for the tasks that read one."""
    folder = tmp_path_factory.mktemp("data")
    rng, parts = RNG(0), {}
    for part, lengths in (("train", [5, 9, 7, 6]), ("valid", [4, 8]), ("test", [6, 3])):
        parts[f"{part}_lengths"] = np.array(lengths, np.int32)
        parts[f"{part}_packed"] = np.packbits(rng.random((sum(lengths), 88)) < 0.1, axis=1)
    np.savez(folder / "music.npz", **parts)
    (folder / "text.txt").write_text("the cat sat on the mat; the dog sat on the log. " * 20)
    rows = [f'"1990-{k:02}",{100 + k % 12 + 0.1 * k}' for k in range(120)]
    (folder / "series.csv").write_text("\n".join(['"Month","Number"', *rows]))
    return {"music": str(folder / "music.npz"), "characters": str(folder / "text.txt"),
            "series": str(folder / "series.csv")}


def numbers_of(name: str, paths: dict[str, str], **given) -> dict:
    return {**tasks[name].numbers, **({"path": paths[name]} if name in paths else {}), **given}


SMALL = {"adding": dict(T=12), "adding_1997": dict(T=30), "multiplication": dict(T=30), "noise_free_lag": dict(p=6),
         "random_lag": dict(p=6), "long_lag": dict(q=5, p=4), "copying": dict(T=5), "embedded_reber": dict(strings=20),
         "memorization": dict(N=3, symbols=4),
         "continual_reber": dict(symbols=200), "anbn": dict(n=3, farthest=5), "anbncn": dict(n=3, farthest=5),
         "sines": dict(T=40, count=2)}


def data_of(name: str, paths, batch=4, seed=0):
    if name == "digits":
        pytest.importorskip("sklearn", reason="the digits are scikit-learn's")
    return tasks[name].data(batch=batch, length=20, seed=seed, **numbers_of(name, paths, **SMALL.get(name, {})))


LAYERED = [name for name in tasks if tasks[name].text is not None]  # the others want whole models: test_models.py


@pytest.mark.parametrize("name", tasks)
def test_a_row_says_what_a_task_is(name):
    task = tasks[name]
    assert task.source and task.definition.endswith(".") and task.measure
    assert task.published or task.baselines, "nothing to hold a result against"
    assert (task.text is None or task.text.count("= cell(x=") == 1) and Settings(**task.settings)
    assert (task.goal is None) or task.settings["steps"] > task.settings["every"]


@pytest.mark.parametrize("name", LAYERED)
def test_what_is_drawn_fits_the_model(name, paths):
    task, data = tasks[name], data_of(name, paths)
    model = task.model(zoo["rnn"])
    settings = Settings(size=5, embedding=3)
    for batches in (data.train, data.valid, data.test):
        batch = batches(0)
        params = first(model, data, {}, settings)
        assert set(batch.inputs) == {*model.system.having("input", "class")} and batch.targets > 0
        trace = model.run(params, lengths=batch.lengths, **batch.inputs)
        assert trace["y"].shape[-1] == data.outputs and np.isfinite(trace[model.loss]).all()
        if task.wrong:
            wrong = task.wrong(trace, batch)
            assert wrong.ndim == 1 and ((wrong >= 0) & (wrong <= 1)).all()
    again, other = data_of(name, paths), data_of(name, paths, seed=1)
    same = {k: (again.train(3).inputs[k] == data.train(3).inputs[k]).all() for k in batch.inputs}
    assert all(same.values()), "data is a function of seed and step"
    if name not in ("series", "characters", "continual_reber"):
        parts = (other.train(3).inputs, data.train(4).inputs)
        assert any(np.shape(a) != np.shape(b) or (a != b).any() for a, b in (
            (parts[0][k], data.train(3).inputs[k]) for k in batch.inputs)), "another seed, other data"


@pytest.mark.parametrize("name", LAYERED)
def test_every_task_trains(name, paths, tmp_path):
    if name == "digits":
        pytest.importorskip("sklearn", reason="the digits are scikit-learn's")
    values = {**SMALL.get(name, {}), **({"path": paths[name]} if name in paths else {})}
    run = Run.of(name, "lstm", values=values, steps=2, every=1, size=3, batch=2, length=10)
    result = carry_out(run, tmp_path)
    assert result["error"] is None and np.isfinite(result["test"]) and np.isfinite(result["valid"])
    assert result["steps"] == 2 or result["solved"]
    _, model, _, params = run.begin()
    assert result["weights"] == sum(np.size(params[n]) for n in model.parameters)
    assert params["V"].shape[-1] == 3 and params["h1_U_i"].shape == (3, 3)


# --- definitions, each against another way to the same -------------------------------------------------------------


def test_adding():
    batch = arithmetic.adding(RNG(1), COUNT, T=20)
    x, goal = batch.inputs["x"], batch.inputs["goal"]
    assert (x[:10, :, 1].sum(axis=0) == 1).all() and (x[10:, :, 1].sum(axis=0) == 1).all()
    assert (x[..., 0] >= 0).all() and (x[..., 0] < 1).all()
    assert np.allclose(goal[:, 0], [sum(u for u, mark in column if mark) for column in x.transpose(1, 0, 2)])


@pytest.mark.parametrize("T", [20, 100])
@pytest.mark.parametrize("draw, low, combine, neutral", [
    (arithmetic.adding_1997, -1, lambda a, b: 0.5 + (a + b) / 4, 0),
    (arithmetic.multiplication, 0, lambda a, b: a * b, 1)])
def test_marked_pairs(draw, low, combine, neutral, T):
    batch, at_first = draw(RNG(1), 10 * COUNT, T=T), 0
    for n, length in enumerate(batch.lengths):
        x = batch.inputs["x"][:length, n]
        marks, others = np.flatnonzero(x[:, 1] == 1), x[1:-1, 1] * (x[1:-1, 1] != 1)
        low_, high = marks
        assert T <= length <= T * 11 // 10 and (high < T // 2 - 1 if low_ < 10 <= high else high < max(10, T // 2 - 1))
        assert x[-1, 1] == -1 and x[0, 1] == (1 if low_ == 0 else -1) and not others.any()
        at_first += low_ == 0
        assert np.isclose(batch.inputs["goal"][n, 0], combine(*x[marks, 0])) and x[:, 0].min() >= low
        assert (x[0, 0] == neutral) == (low_ == 0)
    assert at_first, "the rare case was drawn"


@pytest.mark.parametrize("draw", [lags.noise_free, lags.random_between])
def test_noise_free_lags(draw):
    batch = draw(RNG(0), COUNT, p=7)
    x, goal = batch.inputs["x"].argmax(axis=-1), batch.inputs["goal"].argmax(axis=-1)
    assert x.shape == (7, COUNT) and (x[1:] == goal[:-1]).all() and (x[0] == goal[-1]).all()
    assert set(x[0]) == {6, 7} and (x[1:] < 6).all() and abs((x[0] == 6).mean() - 0.5) < 0.1
    assert len({tuple(column) for column in x.T}) == (2 if draw is lags.noise_free else len({*map(tuple, x.T)}))
    assert draw is lags.random_between or (x[1:] == np.arange(6)[:, None]).all()


def test_long_lag():
    batch = lags.long_lag(RNG(0), COUNT, q=9, p=4)
    for n, length in enumerate(batch.lengths):
        s = batch.inputs["x"][:length, n].argmax(axis=-1)
        assert s[0] == 4 and s[-1] == 5 and s[1] == 6 + batch.inputs["goal"][n].argmax() and (s[2:-1] < 4).all()
        assert 9 <= len(s) - 3 <= 69
    assert abs(np.mean(batch.lengths) - (9 + 3 + 9)) < 2, "a geometric number more, of mean 9"


@pytest.mark.parametrize("name", ["two_sequences", "two_sequences_noisy", "two_sequences_noisy_targets"])
def test_two_sequences(name):
    batch = tasks[name].data(batch=4000, length=0, seed=0, T=30, N=3).train(0)
    x, goal = batch.inputs["x"][..., 0], batch.inputs["goal"][:, 0]
    sign = np.sign(x[:3].mean(axis=0))
    assert x[3:].var() == pytest.approx(0.2, rel=0.05)
    noise = (x[:3] - sign).var()
    assert noise == (pytest.approx(0.2, rel=0.1) if name == "two_sequences_noisy" else 0)
    if name == "two_sequences_noisy_targets":
        assert (goal - 0.5 + 0.3 * sign).var() == pytest.approx(0.1, rel=0.1)
    else:
        assert set(goal) == {0.0, 1.0} and (name != "two_sequences" or (goal == (x[0] > 0)).all())


@pytest.mark.parametrize("name, windows", [("temporal_order", [(10, 20), (50, 60)]),
                                           ("temporal_order_3", [(10, 20), (33, 43), (66, 76)])])
def test_temporal_order(name, windows):
    batch = tasks[name].data(batch=COUNT, length=0, seed=0).train(0)
    for n, length in enumerate(batch.lengths):
        s = "".join("abcdEBXY"[k] for k in batch.inputs["x"][:length, n].argmax(axis=-1))
        assert s[0] == "E" and s[-1] == "B" and 100 <= length <= 110 and not {*s[1:-1]} & {"E", "B"}
        places = [k for k, symbol in enumerate(s) if symbol in "XY"]
        assert len(places) == len(windows) and all(a <= k <= b for k, (a, b) in zip(places, windows))
        told = int("".join(str("XY".index(s[k])) for k in places), 2)
        assert batch.inputs["goal"][n].tolist() == np.eye(2 ** len(windows))[told].tolist()


def test_copying():
    batch = lags.copying(RNG(0), COUNT, T=12)
    seen, k = batch.inputs["x"].argmax(axis=-1), batch.inputs["k"]
    assert len(seen) == len(k) == 32 and (k[-10:] == seen[:10]).all() and (k[:-10] == 0).all()
    assert (seen[10:21] == 0).all() and (seen[21:] == 9).all() and set(seen[:10].ravel()) == set(range(1, 9))
    assert batch.targets == k.size


def test_memorization():
    batch = lags.memorization(RNG(0), COUNT, N=5, symbols=26)
    seen, k, asked = batch.inputs["x"].argmax(axis=-1), batch.inputs["k"], batch.inputs["asked"]
    assert len(seen) == 10 and (seen[5] == 26).all() and set(seen[:5].ravel()) == set(range(26))
    assert (k[5:] == seen[:5]).all() and (seen[6:] == k[5:-1]).all() and (asked.sum(axis=0) == 5).all()
    assert (asked[5:] == 1).all() and batch.targets == 5 * COUNT


@pytest.mark.parametrize(("digits", "letters"), [(1, 0), (3, 0), (2, 3)])
def test_arithmetic(digits, letters):
    """What is spelled says what Python says; what is asked is all of the result, each once it was told."""
    batch = arithmetic.spelled(RNG(0), COUNT, digits, letters)
    x, k, asked = (batch.inputs[name] for name in ("x", "k", "asked"))
    longest, added = 0, set()
    for n in range(COUNT):
        text = "".join(arithmetic.SYMBOLS[s] for s in x[:, n].argmax(axis=-1)[x[:, n].any(axis=-1)])
        told = "".join(arithmetic.SYMBOLS[s] for s in k[asked[:, n] > 0, n])
        question, _, before = text.partition("=")
        plain = re.sub("[a-z]", "", question)
        numbers = re.fullmatch(r"(\d+)[+-](\d+)", plain)
        assert told == f"{eval(plain)}." and before == told[:-1]
        assert asked[:, n].argmax() == len(question) and all(len(part) <= digits for part in numbers.groups())
        assert re.fullmatch(rf"(.[a-z]{{0,{letters}}})+", question)
        longest, added = max(longest, *map(len, numbers.groups())), added | {len(question) - len(plain)}
    assert longest == digits and (max(added) > 0) == (letters > 0)
    assert batch.targets == asked.sum() and x.shape[-1] == arithmetic.outputs(letters)
    widest = (2 * digits + 1) * (letters + 1) + 1 + digits + 2
    assert len(x) == widest - 1


@pytest.mark.parametrize(("name", "guess"), [("memorization", "0"), ("arithmetic", arithmetic.END)])
def test_the_share_told_wrong_is_of_what_is_asked(name, guess):
    batch = tasks[name].data(batch=20, length=0, seed=0, **tasks[name].numbers).train(0)
    k, asked = batch.inputs["k"], batch.inputs["asked"]
    right = np.eye(64)[k]
    assert (lags.wrongly_told({"y": right}, batch) == 0).all()
    assert (lags.wrongly_told({"y": np.where(asked[..., None] > 0, right, -right)}, batch) == 0).all()
    assert (lags.wrongly_told({"y": np.where(asked[..., None] > 0, -right, right)}, batch) == 1).all()
    many = tasks[name].data(batch=5000, length=0, seed=1, **tasks[name].numbers).train(0)
    always = np.broadcast_to(np.eye(64)[arithmetic.SYMBOLS.index(guess)], (*many.inputs["k"].shape, 64))
    (formula,) = tasks[name].baselines.values()
    assert lags.wrongly_told({"y": always}, many).mean() == pytest.approx(formula(**tasks[name].numbers), rel=0.02)


def automaton(string: str) -> bool:
    """Whether a string is of the embedded Reber grammar, by all paths at once."""
    match = re.fullmatch(r"B([TP])(B.*E)\1E", string)
    if not match:
        return False
    states = {0}
    edges = {(0, "T"): 1, (0, "P"): 2, (1, "S"): 1, (1, "X"): 3, (2, "T"): 2, (2, "V"): 4, (3, "X"): 2, (3, "S"): 5,
             (4, "P"): 3, (4, "V"): 5, (5, "E"): 6}
    for symbol in match[2][1:]:
        states = {edges[s, symbol] for s in states if (s, symbol) in edges}
    return states == {6}


def test_reber_strings():
    strings = [grammars.embedded(RNG(k)) for k in range(COUNT)]
    assert all(map(automaton, strings)) and len(set(strings)) > 50
    assert not any(automaton(s[:1] + ("T" if s[1] == "P" else "P") + s[2:]) for s in strings)
    for string in strings:
        for may, symbol in zip(grammars.legal(string + "B"), string[1:] + "B"):
            assert symbol in may
    after = {}
    for string in strings:
        for k in range(1, len(string)):
            after.setdefault(string[:k], set()).add(string[k])
    assert all(after[p] <= {*grammars.legal(p)[-1]} for p in after)
    assert sum(after[p] == {*grammars.legal(p)[-1]} for p in after if len(p) < 5) >= 8, "what may follow does"


def test_reber_data_and_its_judge():
    data = grammars.reber(batch=1, length=0, seed=0, strings=30)
    learnt, tested, both = (b.inputs["x"] for b in (data.train(0), data.test(0), data.valid(0)))
    assert both.shape[1] == 60 and tested.shape[1] == 30 and learnt.shape[1] == 1
    batch = data.valid(0)
    perfect = {"y": grammars.may_follow(grammars.seen(batch)).astype(float)}
    judge = tasks["embedded_reber"].wrong
    assert judge(perfect, batch).sum() == 0
    spoilt = {"y": perfect["y"].copy()}
    spoilt["y"][2, 7] = 1 - spoilt["y"][2, 7]
    assert np.flatnonzero(judge(spoilt, batch)).tolist() == [7]


def test_continual_strings_and_their_judge():
    data = grammars.continual(batch=3, length=20, seed=0, symbols=200)
    assert [data.train(n).fresh for n in (0, 1, 9, 10)] == [True, False, False, True]
    batch = data.test(0)
    symbols = "".join(grammars.ALPHABET[k] for k in grammars.seen(batch)[:, 0])
    whole = symbols[:symbols.rindex("EB") + 1].replace("EB", "E B").split()
    pieces = ["".join(g) for _, g in groupby("|".join(whole), lambda c: c == "|")]
    assert len(pieces) > 50
    may = grammars.may_follow(grammars.seen(batch))
    judge = tasks["continual_reber"].wrong
    assert judge({"y": may.astype(float)}, batch).max() == 0
    blind = may.astype(float)
    blind[..., [1, 2]] = blind[..., [1, 2]].max(axis=-1, keepdims=True)  # T and P told apart nowhere
    assert judge({"y": blind}, batch).min() == 1


@pytest.mark.parametrize("name, letters", [("anbn", "ab"), ("anbncn", "abc")])
def test_counting(name, letters):
    data = tasks[name].data(batch=50, length=0, seed=0, n=4, farthest=7)
    symbols = "S" + letters + "E"
    language = {"S" + "".join(letter * n for letter in letters) + "E" for n in range(1, 60)}
    for batches, longest in ((data.train, 4), (data.valid, 4), (data.test, 7)):
        batch = batches(0)
        for n, length in enumerate(batch.lengths):
            s = "".join(symbols[k] for k in batch.inputs["x"][:length, n].argmax(axis=-1))
            assert s + "E" in language and s.count("a") <= longest
            for t in range(length):
                may = {w[t + 1] for w in language if w.startswith(s[:t + 1]) and len(w) > t + 1}
                assert {symbols[k] for k in np.flatnonzero(batch.inputs["goal"][t, n])} == may
        right = {"y": batch.inputs["goal"] * 2 - 1}
        assert tasks[name].wrong(right, batch).sum() == 0
        right["y"][batch.lengths[0] - 1, 0] *= -1
        assert tasks[name].wrong(right, batch).tolist() == [1.0] + [0.0] * (len(batch.lengths) - 1)


def test_sines():
    wave = series.sines(1, 0, 3, T=200, count=4).train(0).inputs["goal"].ravel()
    assert wave.mean() == pytest.approx(0, abs=1e-12) and wave.var() == pytest.approx(1)


def test_a_series_is_scaled_by_what_is_learnt_from(paths):
    data, values = data_of("series", paths), series.column(paths["series"])
    test = data.test(0)
    counted = test.inputs["w"].ravel() > 0
    assert counted.sum() == test.targets == len(values) - int(0.67 * len(values)) and not data.train(0).inputs["w"][0]
    cut = len(data.train(0).inputs["v"])
    back = test.inputs["v"].ravel() * values[:cut].std() + values[:cut].mean()
    assert np.allclose(back, values)
    before = np.concatenate([[0], back[:-1]])
    rmse = np.sqrt(np.mean((back - before)[counted] ** 2))
    assert series.persistence(paths["series"]) == pytest.approx(rmse)
    loss = np.mean(((back - before)[counted] / values[:cut].std()) ** 2)
    assert data.in_units(loss) == pytest.approx(rmse)


# --- baselines: the formula is what is measured on what is drawn ---------------------------------------------------


def copying_guess(batch):
    y = np.full((*batch.inputs["k"].shape, 10), -40.0)
    y[:-10, :, 0] = 0
    y[-10:, :, 1:9] = 0
    return y


def unigram_guess(paths):
    frames, lengths = files.pieces(paths["music"])["train"]
    p = (frames.sum(axis=(0, 1)) + 0.5) / (lengths.sum() + 1)
    return lambda batch: np.broadcast_to(np.log(p / (1 - p)), batch.inputs["v"].shape)


def loss_of(batch, y, name) -> float:
    """The task's loss per target, for these outputs."""
    text = tasks[name].text.strip().splitlines()
    lines = [line for line in text if not line.startswith(("h[t]", "y"))]
    given = "y: input" if "y[t]" not in tasks[name].text else ""
    cell = Cell("\n".join([*lines, given]))
    return cell.run({}, lengths=batch.lengths, y=y, **{n: batch.inputs[n] for n in cell.inputs if n != "y"})[
        cell.loss] / batch.targets


@pytest.mark.parametrize("name", ["adding", "copying", "sines", "music"])
def test_a_baseline_is_what_is_measured(name, paths):
    guesses = {"adding": lambda batch: np.ones((batch.targets, 1)), "copying": copying_guess,
               "sines": lambda batch: np.zeros_like(batch.inputs["goal"]), "music": unigram_guess(paths)}
    numbers = numbers_of(name, paths, **({"T": 30} if name in ("adding", "copying") else {}))
    data = tasks[name].data(batch={"adding": 20_000, "copying": 50}.get(name, 2), length=0, seed=0, **numbers)
    batch = (data.test if name == "music" else data.train)(0)
    (formula,) = tasks[name].baselines.values()
    assert loss_of(batch, guesses[name](batch), name).sum() == pytest.approx(formula(**numbers), rel=0.02)


JSB = ROOT.parent / "shared" / "data" / "polyphonic_music" / "JSB_Chorales.npz"


@pytest.mark.skipif(not JSB.exists(), reason="the chorales are not there")
def test_the_protocol_of_the_chorales():
    """All frames count, the first too: then the unigram of Boulanger-Lewandowski et al., table 1, comes out."""
    assert tasks["music"].baselines["each note as often as in the training set"](str(JSB)) == pytest.approx(
        11.06, abs=0.005)


@pytest.mark.parametrize("name, lag, printed", [("monthly-sunspots", 1, 18.40), ("airline-passengers", 1, 48.04),
                                                ("airline-passengers", 12, 41.85)])
def test_persistence_on_known_series(name, lag, printed):
    path = ROOT.parent / "shared" / "data" / "timeseries" / f"{name}.csv"
    if not path.exists():
        pytest.skip("the series are not there")
    assert series.persistence(str(path), lag) == pytest.approx(printed, abs=0.005)


# --- runs ----------------------------------------------------------------------------------------------------------

TINY = dict(size=3, batch=4, steps=6, every=2)


def tiny(task="adding", cell="rnn", seeds=(0,), **given) -> list[Run]:
    return [Run.of(task, cell, given.get("text"), {"T": 10, **given.get("values", {})},
                   **{**TINY, **given.get("settings", {}), "seed": seed}) for seed in seeds]


def test_a_run_is_done_once(tmp_path):
    runs = tiny(seeds=(0, 1))
    assert missing(runs, tmp_path) == runs and not found(runs, tmp_path)
    kept = carry_out(runs[0], tmp_path)
    assert missing(runs, tmp_path) == runs[1:] and found(runs, tmp_path) == [kept]
    made = list(carry_out_all(runs, tmp_path, workers=1))
    assert [one["settings"]["seed"] for one in made] == [1] and not list(carry_out_all(runs, tmp_path))
    assert kept == json.loads(runs[0].file(tmp_path).read_text()) and not list(tmp_path.glob("*.npz"))
    assert os.path.sep not in json.dumps(kept), "no path of a machine"


@pytest.mark.parametrize("other", [dict(cell="gru"), dict(values={"T": 11}), dict(settings={"lr": 0.5}),
                                   dict(text="h[t] = tanh(W @ x[t])"), dict(seeds=(1,)), dict(task="copying")])
def test_what_changes_an_outcome_changes_the_file(other):
    assert tiny(**other)[0].file(".") != tiny()[0].file(".")


@pytest.mark.parametrize("other", [dict(definition="Another."), dict(text=arithmetic.LOGISTIC), dict(goal=0.5)])
def test_another_task_by_the_same_name_is_another_task(other):
    task, facts, text = tasks["adding"], tiny()[0].facts, zoo["rnn"].text
    assert digest_of(facts, task, text) == digest_of(facts, replace(task, source="", recalled="All."), text)
    assert digest_of(facts, replace(task, **other), text) != digest_of(facts, task, text)
    assert digest_of(facts, task, zoo["rnn_relu"].text) != digest_of(facts, task, text)


def test_a_run_gives_the_same_again_and_goes_on_where_it_was_stopped(tmp_path, monkeypatch):
    (run,) = tiny(settings={"steps": 40})
    whole = carry_out(run, tmp_path / "a")
    module = sys.modules[advance.__module__]
    steps = module.advance

    def stopped(cell, point, *args):
        if point.step == 21:
            raise KeyboardInterrupt
        return steps(cell, point, *args)

    monkeypatch.setattr(module, "advance", stopped)
    with pytest.raises(KeyboardInterrupt):
        carry_out(run, tmp_path / "b")
    assert [p.suffix for p in (tmp_path / "b").iterdir()] == [".npz"]
    seen = []
    monkeypatch.setattr(module, "advance", lambda cell, point, *args: seen.append(point.step) or steps(
        cell, point, *args))
    resumed = carry_out(run, tmp_path / "b")
    assert seen[0] == 21 and [p.suffix for p in (tmp_path / "b").iterdir()] == [".json"]
    assert {**whole, "seconds": 0} == {**resumed, "seconds": 0}


def test_training_that_fails_is_a_result(tmp_path):
    (run,) = tiny(cell="rnn_relu", settings={"lr": 1e30, "clip": 0.0, "optimiser": "sgd_plain", "steps": 20})
    result = carry_out(run, tmp_path)
    assert f"Training stopped at step {result['steps'] + 2}." in result["error"] and result["test"] is None
    assert "1 diverged" in table("adding", [result], [{"T": 10}]) and "rnn_relu, seed 0" in failures([result])[0]
    assert not missing([run], tmp_path)


def test_values_go_where_their_names_belong():
    run = Run.of("adding", "lstm_1997_blocks", values={
        "T": 17, "h1_i": 2, "h1_b_i": [-3, -6], "h1_b_o": -1, "default": 0.01}, size=4)
    _, _, data, params = run.begin()
    assert run.numbers == {"T": 17} and len(data.train(0).inputs["x"]) == 17
    assert params["h1_b_i"].tolist() == [-3, -6] and params["h1_b_o"].tolist() == [-1, -1]
    assert np.abs(params["h1_W_g"]).max() <= 0.01 and params["h1_U_g"].shape == (4, 4)
    with pytest.raises(CellError, match="nonsense"):
        replace(run, values={"nonsense": 3}).begin()


def test_a_table_has_a_row_for_each_setting(tmp_path):
    runs = [*tiny(seeds=(0, 1, 2)), *tiny(cell="gru", seeds=(0, 1))]
    results = [carry_out(run, tmp_path) for run in runs]
    assert [len(group) for group in groups(results)] == [3, 2]
    printed = table("adding", results, [{"T": 10}, {"T": 20}, {"T": 10}])
    assert printed.count("baseline") == 2 and printed.count("0.1667") == 2 and printed.count("**") == 4
    assert all(who in printed and value in printed for who, value in tasks["adding"].published.items())
    middle = sorted(r["test"] for r in results[:3])[1]
    assert f"{middle:.4f}" in printed or f"{middle:.3f}" in printed


# --- the command ---------------------------------------------------------------------------------------------------

ARGS = ["adding", "--cell", "rnn,gru", "--seeds", "0-1", "--set", "T=10", "--size", "3", "--batch", "4", "--steps", "4",
        "--every", "2", "--workers", "1"]


def test_bench_runs_what_is_missing_and_prints_the_table(tmp_path, capsys):
    folder = ["--results", str(tmp_path)]
    assert main(["bench", *ARGS, *folder]) == 0
    out, err = capsys.readouterr()
    assert "**rnn**" in out and "**gru**" in out and err.count("seed") == 4 and len(list(tmp_path.iterdir())) == 4
    next(tmp_path.glob("*gru*-1.json")).unlink()
    assert main(["bench", *ARGS, *folder]) == 0
    _, err = capsys.readouterr()
    assert err.count("seed") == 1 and "gru seed 1" in err
    (tmp_path / "mine.cell").write_text("h[t] = tanh(W @ x[t] + U @ h[t-1])")
    assert main(["bench", "adding", "--cell", str(tmp_path / "mine.cell"), "--seeds", "0", *ARGS[5:], *folder]) == 0
    assert "**mine**" in capsys.readouterr()[0]


@pytest.mark.parametrize("argv, message", [
    (["nothing"], "There is no task"), (["adding", "--cell", "lsmt"], "Did you mean"),
    (["adding", "--seeds", "x"], "The seeds are"), (["adding", "--set", "T"], "no value"),
    (["adding", "--set", "q=3"], "`q`"), (["adding", "--workers", "0"], "0 workers"), (["music"], "No music"),
    (["series", "--set", "path=nowhere.csv"], "nowhere.csv"), (["adding", "--steps", "-1"], "`steps` is -1"),
    (["adding", "--cell", "birnn"], "ahead of its step")])
def test_what_cannot_be_is_refused_before_anything_is_trained(argv, message, capsys, tmp_path):
    assert main(["bench", *argv, "--results", str(tmp_path), *([] if "--workers" in argv else ["--workers", "1"])]) == 2
    out, err = capsys.readouterr()
    assert message in err and not out and "Traceback" not in err and not list(tmp_path.iterdir())


@pytest.fixture
def running(tmp_path):
    """The command in a process of its own, with more runs than it can do, once two are done."""
    words = [sys.executable, "-m", "autograd_rnn", "bench", *ARGS, "--results", str(tmp_path)]
    words[words.index("0-1")] = "0-400"
    process = subprocess.Popen(words, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True,
                               env={**os.environ, "PYTHONPATH": str(ROOT)},  # in the background interrupts are ignored
                               preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL))
    while len(list(tmp_path.glob("*.json"))) < 2 and process.poll() is None:
        time.sleep(0.1)
    yield process
    if process.poll() is None:
        process.kill()


def test_an_interruption_keeps_what_is_done(running, tmp_path):
    os.killpg(running.pid, signal.SIGINT)
    _, err = running.communicate(timeout=60)
    kept = list(tmp_path.glob("*.json"))
    assert running.returncode == 130 and "Interrupted." in err and 2 <= len(kept) < 802
    assert all(json.loads(path.read_text())["task"] == "adding" for path in kept)


def test_no_worker_outlives_its_parent(running):
    listed = Path(f"/proc/{running.pid}/task/{running.pid}/children")
    if not listed.exists():
        pytest.skip("this system does not list a process's children")
    workers = [Path(f"/proc/{pid}") for pid in listed.read_text().split()]
    assert workers
    running.kill()
    running.wait()
    for _ in range(100):
        if not any(map(alive, workers)):
            return
        time.sleep(0.1)
    assert not any(map(alive, workers))


def alive(process: Path) -> bool:
    """Whether a process runs; one that has ended and that nobody asked for does not."""
    try:
        return (process / "stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
