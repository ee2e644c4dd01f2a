"""The command line: what it prints where, and its exit statuses."""

import io
import json
import os
import subprocess
import sys

import numpy as np
import pytest
import systems

from autograd_rnn import Cell, compare, zoo
from autograd_rnn.__main__ import main
from autograd_rnn.learn import load, load_point

TEXT = "the cat sat on the mat; the dog sat on the log. " * 12
TINY = ["--size", "6", "--embedding", "4", "--batch", "3", "--length", "8", "--steps", "6", "--every", "3"]


@pytest.fixture
def text_file(tmp_path):
    path = tmp_path / "text.txt"
    path.write_text(TEXT)
    return str(path)


def outcome(capsys, *argv):
    status = main(list(argv))
    out, err = capsys.readouterr()
    return status, out, err


@pytest.mark.parametrize("name", list(zoo))
def test_show_prints_a_cell_with_its_source(name, capsys):
    status, out, err = outcome(capsys, "show", name)
    assert status == 0 and not err
    assert zoo.entry(name).citation in out and str(zoo[name]) in out
    for variable, role in zoo[name].system.roles.items():
        assert any(line.split()[:2] == [variable, role] for line in out.splitlines())


@pytest.mark.parametrize("name", systems.SHORT_FIRST)
def test_derive_prints_the_derivation(name, capsys, tmp_path):
    status, out, _ = outcome(capsys, "derive", name)
    assert status == 0 and out == zoo[name].derivation().text()
    for form, level in (("latex", "summary"), ("html", "every")):
        path = tmp_path / f"out.{form}"
        assert outcome(capsys, "derive", name, "--format", form, "--level", level, "--output", str(path))[:2] == (0, "")
        assert path.read_text(encoding="utf-8") == getattr(zoo[name].derivation(), form)(level=level)


def test_compare_prints_what_differs(capsys, tmp_path):
    found = compare(zoo["lstm"], zoo["lstm_coupled"])
    assert outcome(capsys, "compare", "lstm", "lstm_coupled") == (0, found.text(), "")
    assert outcome(capsys, "compare", "lstm", "lstm_coupled", "--format", "latex") == (0, found.latex() + "\n", "")
    path = tmp_path / "mine.cell"
    path.write_text(zoo["gru"].text)
    status, out, _ = outcome(capsys, "compare", str(path), "gru")
    assert status == 0 and out.count("the same") == 2


@pytest.mark.parametrize("argv", [["show", "lstmm"], ["compare", "lstm", "lstmm"]])
def test_a_name_that_the_zoo_lacks_may_be_a_file_s(argv, capsys):
    status, _, err = outcome(capsys, *argv)
    assert status == 2 and "Did you mean `lstm`" in err and err.endswith(" A file is named *.cell.\n")


@pytest.mark.parametrize("name", ["rnn", "gru", "lstm"])
@pytest.mark.parametrize("seed", ["0", "1"])
def test_check_reports_every_tensor(name, seed, capsys):
    status, out, _ = outcome(capsys, "check", name, "--seed", seed, "--steps", "3")
    assert status == 0 and "all within 1e-12" in out
    assert all(any(line.startswith(p + " ") for line in out.splitlines()) for p in zoo[name].parameters)


def test_check_fails_with_status_1_on_a_wrong_gradient(tmp_path, capsys):
    path = tmp_path / "kink.cell"
    path.write_text("h[t] = tanh(U @ h[t-1] + x[t])\n")
    assert outcome(capsys, "check", str(path))[0] == 0
    path.write_text("h[t] = tanh(U @ h[t-1] + x[t]) + stop_gradient(x[t])\n")
    assert outcome(capsys, "check", str(path))[0] == 0, "the complex step drops what stop_gradient drops"


SYSTEMS = {
    "class and loss": "y[t] = V @ onehot(k[t-1]) + b\nL = sum_t(cross_entropy(y[t], k[t]))",
    "constant": "h[t] = where(t % period == 0, tanh(U @ h[t-1] + x[t]), h[t-1])\nperiod: const(h)",
    "noise": "h[t] = tanh(U @ h[t-1] + e[t])\ne: noise(h)",
    "layers": "l: axis\nh[t,0] = x[t]\nh[t,l] = tanh(W[l] @ h[t,l-1] + U[l] @ h[t-1,l])",
    "no input": "h[t] = tanh(U @ h[t-1] + b)\nh[0] = a",
    "from the right": "h[t] = tanh(U @ h[t+1] + x[t])",
    "a slice": "h[t] = tanh(slice(x[t], 2, 7) + U @ h[t-1])",
    "parts": "h[t] = tanh(U @ h[t-1] + concat(x[t], y[t], x[t]))",
}


@pytest.mark.parametrize("name", SYSTEMS)
def test_check_finds_arrays_for_any_system(name, monkeypatch, capsys):
    monkeypatch.setattr(sys, "stdin", io.StringIO(SYSTEMS[name]))
    status, out, err = outcome(capsys, "check", "-")
    assert status == 0 and "all within 1e-12" in out, out + err


def test_a_cell_comes_from_a_file_or_stdin(tmp_path, monkeypatch, capsys):
    text = "h[t] = tanh(W @ x[t] + U @ h[t-1])"
    (tmp_path / "mine.cell").write_text(text)
    monkeypatch.setattr(sys, "stdin", io.StringIO(text))
    from_file, from_stdin = outcome(capsys, "derive", str(tmp_path / "mine.cell")), outcome(capsys, "derive", "-")
    assert from_file == from_stdin == (0, Cell(text).derivation().text(), "")


ERRORS = {
    "unknown": (["show", "lsmt"], "Did you mean `lstm`?"),
    "no file": (["derive", "nowhere.cell"], "nowhere.cell"),
    "no text": (["train", "lstm", "--text", "nowhere.txt"], "nowhere.txt"),
    "setting": (["train", "lstm", "--every", "0"], "`every` is 0"),
    "not a layer": (["train", "-"], "is no layer"),
    "resume and cell": (["train", "lstm", "--resume", "x.npz"], "its own cell"),
    "no checkpoint": (["train", "--resume", "x.npz"], "x.npz"),
    "seed": (["check", "lstm", "--seed", "-1"], "seed=-1"),
    "no steps": (["check", "lstm", "--steps", "0"], "0 steps"),
    "negative steps": (["check", "lstm", "--steps", "-3"], "-3 steps"),
    "demo without steps": (["demo", "rnn", "--steps", "-1"], "`steps` is -1"),
    "a directory as text": (["train", "lstm", "--text", "."], ".: Is a directory"),
    "a directory to save in": (["train", "lstm", "--save", "."], ".: Is a directory"),
    "too large": (["train", "rnn", "--size", "99999999999999"], "not enough memory"),
}


@pytest.mark.parametrize("name", ERRORS)
def test_errors_are_text_and_status_2(name, monkeypatch, capsys):
    argv, message = ERRORS[name]
    monkeypatch.setattr(sys, "stdin", io.StringIO("h[t] = x[t] + z[t]"))
    status, out, err = outcome(capsys, *argv)
    assert status == 2 and not out and message in err and "Traceback" not in err


@pytest.mark.parametrize("content, message", [(b"", "defines nothing"), (b"\xff\xfe", "not UTF-8"),
                                              (b"# only words\n", "defines nothing")])
def test_a_file_that_is_no_cell(content, message, tmp_path, capsys):
    path = tmp_path / "mine.cell"
    path.write_bytes(content)
    for command in ("show", "derive", "check", "demo", "train"):
        status, out, err = outcome(capsys, command, str(path))
        assert status == 2 and not out and message in err
    path.unlink()
    path.mkdir()
    assert outcome(capsys, "show", str(path))[::2] == (2, f"{path}: Is a directory\n")


def test_a_bad_cell_shows_its_line_and_a_caret_without_a_traceback():
    done = subprocess.run([sys.executable, "-m", "autograd_rnn", "show", "-"], input="h[t] = tanh(W @ x[t)\n",
                          capture_output=True, text=True, timeout=60)
    assert done.returncode == 2 and done.stdout == ""
    assert "h[t] = tanh(W @ x[t)" in done.stderr and "^" in done.stderr and "Traceback" not in done.stderr


def test_a_reader_that_leaves_is_no_error():
    done = subprocess.run(f"{sys.executable} -m autograd_rnn derive lstm | head -n 1", shell=True, capture_output=True,
                          text=True, timeout=60)
    assert done.stdout.count("\n") == 1 and done.stderr == ""
    closed = subprocess.Popen([sys.executable, "-m", "autograd_rnn", "show", "lstm"], stdout=subprocess.PIPE,
                              stderr=subprocess.PIPE, text=True)
    closed.stdout.close()
    assert closed.stderr.read() == "" and closed.wait(60) == 1


def test_stdin_that_is_no_text_is_named():
    done = subprocess.run([sys.executable, "-m", "autograd_rnn", "show", "-"], input=b"h[t] = x[t] # caf\xe9 \n",
                          capture_output=True, timeout=60, env={**os.environ, "PYTHONIOENCODING": "utf-8"})
    assert done.returncode == 2 and b"byte" in done.stderr and b"Traceback" not in done.stderr


def test_train_logs_saves_and_goes_on(tmp_path, text_file, capsys):
    log, saved = tmp_path / "log.jsonl", tmp_path / "m.npz"
    files = ["--log", str(log), "--save", str(saved)]
    status, out, err = outcome(capsys, "train", "gru", "--text", text_file, *TINY, *files)
    assert status == 0
    assert "nats per character after 6 steps" in out and "bigram" in out and "loss" not in out
    assert "step      3" in err and "validation" in err
    rows = [json.loads(line) for line in log.read_text().splitlines()]
    assert [row["step"] for row in rows] == [1, 2, 3, 4, 5, 6]
    assert [row["step"] for row in rows if "validation" in row] == [3, 6]
    assert all(np.isfinite([row["loss"], row["norm"], row["rate"]]).all() for row in rows)
    cell, params = load(saved)
    assert set(params) == set(cell.parameters)
    assert all(p.dtype == np.float32 for p in params.values())
    more = ["--text", text_file, "--steps", "9", "--log", str(log)]
    status, out, _ = outcome(capsys, "train", "--resume", str(saved), *more)
    assert status == 0 and "after 9 steps" in out
    assert [json.loads(line)["step"] for line in log.read_text().splitlines()] == list(range(1, 10))
    assert load_point(saved)[1].step == 9


@pytest.mark.parametrize("options", [["--layers", "2", "--dropout", "0.2"],
                                     ["--optimiser", "sgd", "--schedule", "stepwise"],
                                     ["--optimiser", "rmsprop", "--schedule", "exponential", "--clip", "0"],
                                     ["--optimiser", "adamw", "--dtype", "float64", "--schedule", "constant"],
                                     ["--epochs", "0.1", "--patience", "1"]])
def test_train_takes_its_options(options, text_file, capsys):
    status, out, err = outcome(capsys, "train", "rnn", "--text", text_file, *TINY, *options)
    assert status == 0 and "nats per character" in out, err


def test_train_takes_a_model_of_the_users_own(tmp_path, text_file, capsys):
    path = tmp_path / "own.cell"
    path.write_text("h[t] = tanh(W @ onehot(c[t-1]) + U @ h[t-1])\nz[t] = V @ h[t]\n"
                    "L = sum_t(cross_entropy(z[t], c[t]))\n")
    status, out, err = outcome(capsys, "train", str(path), "--text", text_file, *TINY)
    assert status == 0 and "nats per character" in out, err


def test_training_that_diverges_saves_the_last_good_parameters(tmp_path, text_file, capsys):
    path, saved = tmp_path / "wild.cell", tmp_path / "m.npz"
    path.write_text("h[t] = W @ x[t] + U @ h[t-1]\n")
    wild = ["--optimiser", "sgd", "--lr", "1e6", "--clip", "0", "--schedule", "constant", "--steps", "50"]
    status, out, err = outcome(capsys, "train", str(path), "--text", text_file, *TINY, *wild, "--save", str(saved))
    assert status == 2 and not out and "Traceback" not in err
    assert "Training stopped at step" in err and "is not finite" in err
    _, point, _ = load_point(saved)
    assert all(np.isfinite(p).all() for p in point.params.values())


def test_demo_shows_the_whole_way(capsys):
    status, out, err = outcome(capsys, "demo", "rnn", "--steps", "2")
    assert status == 0
    for part in (str(zoo["rnn"]), str(zoo["rnn"].backward()), "all within 1e-12", "unigram floor", "bigram  floor"):
        assert part in out
    assert "step      2" in err
    assert "(its first 5,000 characters)" in err and "over the whole validation text" in out


def test_help_names_every_command(capsys):
    with pytest.raises(SystemExit) as stop:
        main(["--help"])
    out = capsys.readouterr().out
    assert stop.value.code == 0 and all(name in out for name in (
        "demo", "show", "derive", "grade", "compare", "check", "train"))
