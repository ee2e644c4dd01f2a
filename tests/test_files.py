"""Files: written whole or not at all, read as they were written or refused by name; folders that are not the user's."""

from __future__ import annotations

import ctypes
import importlib.util
import itertools
import json
import os
import pwd
import re
import stat
import subprocess
import sys
import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, replace
from hashlib import sha256
from io import BytesIO
from pathlib import Path
from zipfile import ZIP_DEFLATED, ZIP_STORED, ZipFile, ZipInfo

import numpy as np
import pytest

from autograd_rnn import Cell, CellError, zoo
from autograd_rnn.__main__ import main
from autograd_rnn.atomic import written
from autograd_rnn.learn import (
    Batch,
    Batches,
    Point,
    adam,
    adamw,
    fit,
    load,
    load_point,
    rmsprop,
    save,
    save_point,
    sgd,
    train,
)
from autograd_rnn.learn.session import Settings, begin, characters, merged, resume
from autograd_rnn.tasks import files, series
from autograd_rnn.tasks.bench import Run, carry_out, found

ROOT = Path(__file__).parents[1]
LINE = Cell("y[t] = w * x[t] + b\nL = sum_t((y[t] - 2 * x[t] - 1)**2)\nx: input()\nw: ()\nb: ()")
POINTS = Batches(1, lambda step: Batch({"x": np.linspace(-1, 1, 9)}, 9))
AT_ZERO = {"w": np.array(0.0), "b": np.array(0.0)}


def trained(steps: int = 3, optimiser=None) -> Point:
    *_, point = train(LINE, AT_ZERO, POINTS, steps, optimiser or adam(0.1))
    return replace(point, carried={"t": 9}, history=((2, 1.5),), best=point.params)


# --- whole or not at all ------------------------------------------------------------------------------------------

KILLS = """
import json, os, random, signal, sys, time
from pathlib import Path
import numpy as np
from autograd_rnn import Cell
from autograd_rnn.learn import Point, load_point, save_point, store
{fault}
cell, path, draw = Cell("h[t] = tanh(W @ x[t])"), Path(sys.argv[1]) / "m.npz", random.Random(0)
state = lambda n: Point({{"W": np.full((60, 100), float(n)), "V": np.full(3, float(n))}}, step=n)
save_point(path, cell, state(0))
last, wrong, amid, began = 0, [], 0, time.monotonic()
for n in range(1, 21):  # how long a save takes
    save_point(path, cell, state(0))
usual = (time.monotonic() - began) / 20
for kill in range(int(sys.argv[2])):
    told, tell = os.pipe()
    child = os.fork()
    if not child:
        for n in range(last + 1, last + 1_000_000):
            save_point(path, cell, state(n))
            os.write(tell, b".")
    time.sleep(draw.uniform(0, 3 * usual))
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    os.close(tell)
    done = 0
    while part := os.read(told, 65536):
        done += len(part)
    os.close(told)
    amid += any(p.suffix == ".part" for p in path.parent.iterdir())
    try:
        _, point, _ = load_point(path)
        found = {{point.step, *np.unique(point.params["W"]), *np.unique(point.params["V"])}}
    except Exception as e:
        found = {{repr(e)}}
    if found not in ({{last + done}}, {{last + done + 1}}):
        wrong.append(str(found))
        save_point(path, cell, state(last + done))
    else:
        (last,) = map(int, found)
save_point(path, cell, state(last))
print(json.dumps({{"wrong": wrong, "amid": amid, "left": os.listdir(path.parent), "saves": last}}))
"""


def killed(folder: Path, kills: int, fault: str = "") -> dict:
    done = subprocess.run([sys.executable, "-c", KILLS.format(fault=fault), str(folder), str(kills)], cwd=ROOT,
                          capture_output=True, text=True, env={**os.environ, "PYTHONPATH": str(ROOT)})
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize("kills", [60, pytest.param(1000, marks=pytest.mark.long)])
def test_a_kill_at_any_moment_leaves_the_old_state_or_the_new_one(tmp_path, kills):
    found = killed(tmp_path, kills)
    print(found["amid"], "kills left a temporary file behind;", found["saves"], "saves were done in all")
    assert found["wrong"] == [] and found["left"] == ["m.npz"] and found["amid"] > kills // 10


def test_the_kills_see_a_save_in_place(tmp_path):
    assert killed(tmp_path, 60, "store.written = lambda path, content: Path(path).write_bytes(content)")["wrong"]


def test_a_write_that_fails_leaves_the_old_file(tmp_path, monkeypatch):
    path, program = tmp_path / "m.npz", tmp_path / "rnn.py"
    writes = [lambda: save(path, LINE, AT_ZERO), lambda: save_point(path, LINE, trained()),
              lambda: zoo["rnn"].compile(backend="numpy").save(program),
              lambda: main(["derive", "rnn", "--output", str(tmp_path / "derived.txt")])]
    for write in writes:
        write()
    before = {p: p.read_bytes() for p in tmp_path.iterdir()}
    monkeypatch.setattr(os, "fsync", lambda _: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    for write in writes[:3]:
        with pytest.raises(OSError, match="No space left"):
            write()
    assert writes[3]() == 2 and len(before) == 3
    assert {p: p.read_bytes() for p in tmp_path.iterdir()} == before


def test_what_dead_writers_left_is_removed_and_what_living_ones_write_is_not(tmp_path):
    path = tmp_path / "m.npz"
    others = [tmp_path / name for name in ("m.npz.part", "m.npz.backup.part", "n.npz.0123abcd.part", "m.npz.0123abcd")]
    dead, alive = tmp_path / "m.npz.0123abcd.part", tmp_path / "m.npz.4567abcd.part"
    for one in (*others, dead, alive):
        one.write_bytes(b"half")
    holder = subprocess.Popen([sys.executable, "-c", "import fcntl, sys; f = open(sys.argv[1]); fcntl.flock(f, "
                               "fcntl.LOCK_EX); print(flush=True); sys.stdin.read()", str(alive)],
                              stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    holder.stdout.readline()
    written(path, b"whole")
    assert not dead.exists() and alive.exists() and all(one.exists() for one in others)
    holder.kill()
    holder.communicate()
    written(path, b"whole")
    assert not alive.exists() and all(one.exists() for one in others) and path.read_bytes() == b"whole"


def test_threads_that_save_to_one_path_each_save(tmp_path):
    path = tmp_path / "m.npz"

    def work(k: int) -> None:
        for _ in range(20):
            save(path, LINE, {"w": np.array(float(k)), "b": np.array(float(k))})

    with ThreadPoolExecutor(4) as pool:  # what a thread raises is raised here
        list(pool.map(work, range(4)))
    _, params = load(path)
    assert params["w"] == params["b"] and os.listdir(tmp_path) == ["m.npz"]


def test_a_write_keeps_to_links_modes_and_what_is_no_file(tmp_path):
    path, link = tmp_path / "m", tmp_path / "link"
    written(path, b"1")
    path.chmod(0o600)
    link.symlink_to(path)
    written(link, b"2")
    assert link.is_symlink() and path.read_bytes() == b"2" and stat.S_IMODE(path.stat().st_mode) == 0o600
    written(os.devnull, b"3")
    assert not Path(os.devnull).is_file()
    with pytest.raises(IsADirectoryError):
        written(tmp_path, b"4")
    with pytest.raises(FileNotFoundError):
        written(tmp_path / "none" / "m", b"5")


# --- as it was written, or refused --------------------------------------------------------------------------------


def flips(content: bytes, each: int):
    for n in range(0, 8 * len(content), each):
        changed = bytearray(content)
        changed[n // 8] ^= 1 << n % 8
        yield n, bytes(changed)


@pytest.mark.parametrize("each", [53, pytest.param(1, marks=pytest.mark.long)])
def test_every_flipped_bit_of_a_checkpoint_is_refused(tmp_path, each):
    path, reached = tmp_path / "p.npz", []
    save_point(path, LINE, trained())
    for n, content in flips(path.read_bytes(), each):
        path.write_bytes(content)
        with pytest.raises(CellError, match=re.escape(f"The file `{path}`")):
            reached.append(n)
            load_point(path)
    print(len(reached), "bits flipped, all refused")
    assert len(reached) > 20_000 // each


def test_every_shorter_and_longer_file_is_refused(tmp_path):
    path = tmp_path / "p.npz"
    save_point(path, LINE, trained())
    content = path.read_bytes()
    for other in (*(content[:n] for n in range(0, len(content), 29)), content[1:], content + b"\0", content + b"\n",
                  content + content, content[:-1]):
        path.write_bytes(other)
        with pytest.raises(CellError, match=re.escape(f"The file `{path}`")):
            load(path)


def entries(path: Path) -> dict[str, bytes]:
    with ZipFile(path) as file:
        return {name: file.read(name) for name in file.namelist()}


def test_a_missing_or_renamed_entry_is_refused(tmp_path):
    path = tmp_path / "p.npz"
    save_point(path, LINE, trained())
    whole, seal = entries(path), ZipFile(path).comment
    for name in whole:
        others = {n: c for n, c in whole.items() if n != name}
        for kept in (others, {**others, "x" + name: whole[name]}):
            with ZipFile(path, "w") as file:
                for n, content in kept.items():
                    file.writestr(n, content)
                file.comment = seal
            with pytest.raises(CellError, match="damaged"):
                load_point(path)


def forged(path: Path, changed: dict[str, bytes | None], method: int = ZIP_STORED) -> None:
    """A checkpoint with other entries, and a digest that is right."""
    save_point(path, LINE, trained())
    buffer = BytesIO()
    with ZipFile(buffer, "w", method) as file:
        for name, content in {**entries(path), **changed}.items():
            if content is not None:
                file.writestr(name, content)
        file.comment = b"autograd_rnn 2 sha256 " + b"0" * 64
    sealed(path, buffer.getvalue())


def sealed(path: Path, content: bytes) -> None:
    path.write_bytes(content[:-64] + sha256(content[:-64]).hexdigest().encode())


def npy(array, **options) -> bytes:
    buffer = BytesIO()
    np.lib.format.write_array(buffer, np.asarray(array, **options))
    return buffer.getvalue()


def facts(**changed) -> dict[str, bytes]:
    told = {"step": 3, "seed": 0, "loss": 0.5, "norm": 0.5, "rate": 0.1, "history": [[2, 1.5]], "optimiser": "adam",
            "offsets": {"t": 9}, "about": {}}
    return {"point.npy": npy(json.dumps({k: v for k, v in {**told, **changed}.items() if v is not ...}))}


FOREIGN = {
    "step is a text": facts(step="x"), "step is negative": facts(step=-1), "step is missing": facts(step=...),
    "step is half": facts(step=1.5), "seed is a text": facts(seed="0"), "loss is a list": facts(loss=[1]),
    "history is a number": facts(history=3), "history is texts": facts(history=[["a", "b"]]),
    "optimiser is a number": facts(optimiser=3), "offsets are texts": facts(offsets={"t": "x"}),
    "about is a text": facts(about="x"), "a fact too many": facts(more=1), "no JSON": {"point.npy": npy("{")},
    "JSON of another kind": {"point.npy": npy("[1, 2]")}, "deep JSON": {"point.npy": npy("[" * 100_000)},
    "a number instead of JSON": {"point.npy": npy(1.0)}, "point is missing": {"point.npy": None},
    "cell is missing": {"cell.npy": None}, "cell is a number": {"cell.npy": npy(1.0)},
    "cell is no cell": {"cell.npy": npy("h[t] = __import__('os')")}, "cell is deep": {"cell.npy": npy("(" * 10_000)},
    "name is missing": {"name.npy": None}, "complex weights": {"params/w.npy": npy(1j)},
    "texts as weights": {"params/w.npy": npy("1.0")}, "dates as weights": {"params/w.npy": npy(0, dtype="M8[s]")},
    "objects as weights": {"params/w.npy": npy([1.0]).replace(b"'<f8'", b"'|O' ")},
    "a slot without its name": {"state/w.npy": npy(1.0)}, "complex state": {"state/w/m.npy": npy(1j)},
    "fewer numbers than the shape says": {"params/w.npy": npy([1.0, 2.0])[:-8]},
    "more numbers than the shape says": {"params/w.npy": npy([1.0, 2.0]) + b"12345678"},
    "no array": {"params/w.npy": b"hello"}, "nothing": {"params/w.npy": b""}, "no array at all": {"readme.txt": b"hi"},
    "a header that is no dict": {"params/w.npy": npy(1.0).replace(b"{'descr'", b"(((((((('")},
}


@pytest.mark.parametrize("change", FOREIGN)
def test_a_foreign_file_with_a_right_digest_is_refused(change, tmp_path):
    path = tmp_path / "p.npz"
    forged(path, FOREIGN[change])
    with pytest.raises(CellError, match=re.escape(f"The file `{path}`")) as caught:
        load_point(path)
    assert len(str(caught.value)) < 1000


def test_a_forged_file_that_is_right_is_read(tmp_path):
    """So what is refused above is refused for its change."""
    path = tmp_path / "p.npz"
    forged(path, facts())
    cell, point, _ = load_point(path)
    assert cell == LINE and point.step == 3 and point.params["w"] == trained().params["w"]


def test_nothing_is_inflated(tmp_path):
    """Compressed zeros, a shape that is not there, members that share their bytes: refused in little memory."""
    path, zeros = tmp_path / "p.npz", npy(np.zeros(2**21))
    small = npy(np.zeros(1))
    claim = small.replace(b"(1,), }" + b" " * 11, b"(999999999999,), }")
    assert len(claim) == len(small)
    cases = {"compressed": lambda: forged(path, {"params/w.npy": zeros}, ZIP_DEFLATED),
             "ValueError": lambda: forged(path, {"params/w.npy": claim}), "twice": lambda: shared(path)}
    for message, make in cases.items():
        make()
        assert path.stat().st_size < 2**21
        tracemalloc.start()
        with pytest.raises(CellError, match=message):
            load(path)
        assert tracemalloc.get_traced_memory()[1] < 2**22
        tracemalloc.stop()


def shared(path: Path) -> None:
    """A zip whose directory names the same megabyte a hundred times."""
    buffer = BytesIO()
    with ZipFile(buffer, "w") as file:
        file.writestr("params/w.npy", npy(np.zeros(2**17)))
        for n in range(100):
            other = ZipInfo(f"params/w{n}.npy")
            for slot in ("header_offset", "file_size", "compress_size", "CRC"):
                setattr(other, slot, getattr(file.filelist[0], slot))
            file.filelist.append(other)
        file.comment = b"autograd_rnn 2 sha256 " + b"0" * 64
    sealed(path, buffer.getvalue())


def test_a_file_of_version_1_is_refused_and_numpy_still_reads_it(tmp_path):
    path = tmp_path / "m.npz"
    np.savez(path, format=np.array("autograd_rnn 1"), cell=np.array(str(LINE)), name=np.array(""), **{"params/w": 2.0})
    with pytest.raises(CellError, match="version 1"):
        load(path)
    with np.load(path) as file:
        assert file["params/w"] == 2.0
    save(path, LINE, AT_ZERO)
    content = path.read_bytes().replace(b"autograd_rnn 2", b"autograd_rnn 3")
    sealed(path, content)
    with pytest.raises(CellError, match="is of version 3; this library reads version 2"):
        load(path)


def test_what_could_not_be_read_again_is_not_written(tmp_path):
    path = tmp_path / "m.npz"
    for write, message in [
            (lambda: save(path, LINE, {**AT_ZERO, "w": np.array(1j)}), "`w` holds complex128"),
            (lambda: save(path, LINE, {**AT_ZERO, "w": "2.0"}), "`w` holds <U3"),
            (lambda: save(path, LINE, {**AT_ZERO, "w": [[1.0], [1.0, 2.0]]}), "`w` holds no numbers"),
            (lambda: save(path, LINE, {**AT_ZERO, "w": np.array({})}), "`w` holds object"),
            (lambda: save_point(path, LINE, replace(trained(), step="x")), "`step` is 'x'"),
            (lambda: save_point(path, LINE, replace(trained(), seed=(1, 2))), r"`seed` is \(1, 2\)"),
            (lambda: save_point(path, LINE, trained(), {"a": np.ones(2)}), "ndarray"),
            (lambda: save_point(path, LINE, trained(), {"a": {1, 2}}), "set")]:
        with pytest.raises(CellError, match=message):
            write()
    assert not list(tmp_path.iterdir())


def test_a_point_comes_back_to_the_bit_whatever_kinds_of_numbers_it_holds(tmp_path):
    point = replace(trained(), step=np.int64(3), seed=np.int32(5), loss=np.float32(0.1), carried={
        "t": np.int64(7), "h": np.asfortranarray(np.arange(6.0).reshape(2, 3)), "k": np.array([1, 2])})
    save_point(tmp_path / "p.npz", LINE, point, {"share": np.float64(0.5)})
    _, again, about = load_point(tmp_path / "p.npz")
    assert about == {"share": 0.5} and (again.step, again.seed, again.loss) == (3, 5, float(np.float32(0.1)))
    assert again.carried["t"] == 7 and (again.carried["h"] == point.carried["h"]).all()
    assert again.carried["k"].tolist() == [1, 2] and again.optimiser == "adam" and again.history == point.history
    assert all((again.state[n][s] == a).all() for n, slots in point.state.items() for s, a in slots.items())


# --- going on -----------------------------------------------------------------------------------------------------

KINDS = {one.name: one for one in (sgd(0.1), sgd(0.1, 0.9), sgd(0.1, 0.9, nesterov=True), rmsprop(0.1),
                                   rmsprop(0.1, momentum=0.9), adam(0.1), adamw(0.1))}


@pytest.mark.parametrize("first, second", [*itertools.product(KINDS, KINDS)])
def test_another_optimiser_does_not_go_on_with_a_state(first, second, tmp_path):
    *_, whole = train(LINE, AT_ZERO, POINTS, 4, KINDS[first])
    *_, point = train(LINE, AT_ZERO, POINTS, 2, KINDS[first])
    save_point(tmp_path / "p.npz", LINE, point)
    for start in (point, load_point(tmp_path / "p.npz")[1]):
        if first == second:
            *_, last = train(LINE, start, POINTS, 4, KINDS[second])
            assert all((last.params[n] == whole.params[n]).all() for n in whole.params)
        else:
            with pytest.raises(CellError, match=re.escape(f"trained with {first}; it is to go on with {second},")):
                fit(LINE, start, POINTS, 4, KINDS[second])
            assert next(train(LINE, replace(start, state={}, optimiser=None), POINTS, 4, KINDS[second])).step == 3


def test_a_state_that_does_not_say_whose_it_is_is_refused():
    with pytest.raises(CellError, match="an optimiser that it does not name"):
        next(train(LINE, Point(AT_ZERO, {"w": {"v": np.array(1.0)}}), POINTS, 1, sgd(0.1, 0.9)))


TEXT = "the cat sat on the mat; the dog sat on the log. " * 12
SMALL = Settings(size=4, embedding=3, batch=3, length=8, steps=4, every=2)


def test_a_session_goes_on_with_its_own_optimiser_and_settings(tmp_path):
    path = tmp_path / "m.npz"
    characters(*begin(zoo["rnn"], TEXT, SMALL), SMALL, save=path, progress=False)
    saved = resume(path, TEXT)[3]
    with pytest.raises(CellError, match="optimiser adam, not sgd"):
        merged(saved, {"optimiser": "sgd"})
    _, point, about = load_point(path)
    for wrong in ({}, {"alphabet": 3, "settings": saved}, {"alphabet": "abc", "settings": 3},
                  {**about, "settings": {**saved, "more": 1}}, {"alphabet": about["alphabet"]}):
        save_point(path, LINE, point, wrong)
        with pytest.raises(CellError, match="no character model with its settings"):
            resume(path, TEXT)
    for name, value in (("steps", "x"), ("size", 1.5), ("lr", None)):
        with pytest.raises(CellError, match=f"`{name}` is"):
            Settings(**{**asdict(SMALL), name: value})


@pytest.mark.parametrize("moment", range(1, 14))
def test_an_interrupt_anywhere_and_going_on_gives_the_same_bits(moment, tmp_path):
    """At a step, within a validation, a report or a save: the history too is that of a run without interrupts."""
    def at(place: str) -> None:
        nonlocal calls
        calls += interrupting
        if interrupting and calls == moment:
            raise KeyboardInterrupt

    def judged(params) -> float:
        at("validation")
        return float((params["w"] - 1)**2)

    def keep(point: Point) -> None:
        save_point(tmp_path / "p.npz", LINE, point)
        at("save")

    batches = Batches(1, lambda step: at("step") or POINTS(step))
    options = dict(validate=judged, every=2, patience=2, report=lambda p: at("report"))
    calls, interrupting = 0, False
    whole = fit(LINE, AT_ZERO, batches, 40, adam(0.3), **options, keep=keep)
    interrupting = True
    with pytest.raises(KeyboardInterrupt):
        fit(LINE, AT_ZERO, batches, 40, adam(0.3), **options, keep=keep)
    last = fit(LINE, load_point(tmp_path / "p.npz")[1], batches, 40, adam(0.3), **options, keep=keep)
    assert last.history == whole.history and last.step == whole.step < 40
    assert all((last.params[n] == whole.params[n]).all() and (last.best[n] == whole.best[n]).all() for n in AT_ZERO)


def test_a_log_goes_on_after_half_a_line(tmp_path):
    log = tmp_path / "log.jsonl"
    log.write_bytes(b'{"step": 1}\n{"st')
    characters(*begin(zoo["rnn"], TEXT, SMALL), SMALL, log=log, progress=False)
    lines = log.read_text().splitlines()
    assert lines[:2] == ['{"step": 1}', '{"st'] and [json.loads(line)["step"] for line in lines[2:]] == [1, 2, 3, 4]


def test_damaged_files_of_runs_are_named(tmp_path):
    run = Run.of("adding", "rnn", None, {"T": 10}, size=3, batch=4, steps=4, every=2)
    for content in (b"", b"{", b"[1]", b'{"task": "adding"}', b"\xff", b"[" * 100_000):
        run.file(tmp_path).write_bytes(content)
        with pytest.raises(CellError, match=re.escape(f"`{run.file(tmp_path)}` holds no result")):
            found([run], tmp_path)
    run.file(tmp_path).unlink()
    run.file(tmp_path).with_suffix(".npz").write_bytes(b"PK\x03\x04")
    with pytest.raises(CellError, match=r"\.npz` does not end with a digest"):
        carry_out(run, tmp_path)


# --- data ---------------------------------------------------------------------------------------------------------

TABLES = {  # a file's text, and the line and column that are named
    "semicolons and decimal commas": ("Month;Number\n2001-01;1,5\n2001-02;2,5\n", 1, 1),
    "a comma in the heading too": ("Month;Number, millions\n2001-01;1,5\n", 1, 1),
    "tabs": ("Month\tNumber, millions\n2001-01\t1,5\n", 1, 1),
    "decimal commas alone": ("Number\n1\n1,5\n", 3, 2),
    "thousands": ("Month,Number\n2001-01,1,500\n", 2, 3),
    "thousands in quotes": ('Month,Number\n2001-01,"1,500"\n', 2, 2),
    "no heading": ("1.5\n2.5\n", 1, 1),
    "no number": ("Month,Number\n2001-01,1.5\n2001-02,?\n", 3, 2),
    "nothing": ("Month,Number\n2001-01,\n", 2, 2),
    "not a number": ("Month,Number\n2001-01,nan\n", 2, 2),
    "infinite": ("Month,Number\n2001-01,1\n2001-02,1e999\n", 3, 2),
    "a footer": ("Month,Number\n2001-01,1\n\nSource: somebody\n", 4, 1),
    "a quote without its end": ('Month,Number\n2001-01,"1\n', 2, 1),
}


@pytest.mark.parametrize("name", TABLES)
def test_a_table_that_may_be_meant_otherwise_is_refused(name, tmp_path):
    text, line, place = TABLES[name]
    path = tmp_path / "series.csv"
    path.write_text(text)
    with pytest.raises(CellError, match=re.escape(f"The file `{path}`, line {line}, column {place}: ")):
        series.column(str(path))


def test_a_table_is_read_as_it_stands(tmp_path):
    path = tmp_path / "series.csv"
    path.write_bytes(b'\xef\xbb\xbf"Month, year","Number"\r\n"January, 2001",1.5\r\n\r\n"May",-2e3\r\n')
    assert series.column(str(path)).tolist() == [1.5, -2000.0]
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(CellError, match="not UTF-8"):
        series.column(str(path))


@pytest.mark.parametrize("numbers, message", [
    ([1, 2, 3, 4, 5], "5 numbers is too short"), ([], "0 numbers is too short"), ([3] * 40, "deviation 0"),
    ([0.1] * 40, "cannot be scaled"), ([1e300, -1e300] * 20, "deviation inf"),
    ([2.0] * 22 + [1.0] * 18, "deviation 0")])
@pytest.mark.filterwarnings("error")
def test_a_series_that_cannot_be_learnt_from_is_refused_before_it_is_trained_on(numbers, message, tmp_path, capsys):
    path = tmp_path / "series.csv"
    path.write_text("\n".join(["Number", *map(str, numbers)]))
    words = ["bench", "series", "--set", f"path={path}", "--seeds", "0", "--workers", "1", "--results", str(tmp_path)]
    assert main(words) == 2
    assert message in capsys.readouterr().err and os.listdir(tmp_path) == ["series.csv"]


@pytest.mark.filterwarnings("error")
def test_the_shortest_series_has_every_baseline(tmp_path):
    path = tmp_path / "series.csv"
    path.write_text("\n".join(["Number", *map(str, np.arange(18) % 5)]))
    data = series.series(1, 0, 0, str(path))
    assert data.test(0).targets == 6 and np.isfinite(series.persistence(str(path), 12))
    path.write_text("\n".join(["Number", *map(str, np.arange(17) % 5)]))
    with pytest.raises(CellError, match="too short"):
        series.series(1, 0, 0, str(path))


def test_a_damaged_or_foreign_file_of_music_is_refused(tmp_path):
    path = tmp_path / "music.npz"
    good = {f"{part}_{what}": value for part in ("train", "valid", "test")
            for what, value in (("lengths", np.array([2, 3])), ("packed", np.ones((5, 11), np.uint8)))}
    np.savez_compressed(path, **good)
    whole = path.read_bytes()
    assert files.pieces(str(path))["train"][0].shape == (3, 2, 88)
    for name, value in [("train_lengths", np.array([2, 4])), ("train_lengths", np.array([[2, 3]])),
                        ("train_lengths", np.array([2.0, 3.0])), ("valid_lengths", np.array([0, 5])),
                        ("test_lengths", np.array([], int)), ("test_packed", np.ones((5, 11))),
                        ("test_packed", np.ones((5, 12), np.uint8)), ("test_packed", np.zeros(2**24, np.uint8)),
                        ("test_packed", np.array({}))]:
        np.savez_compressed(path, **{**good, name: value})
        files.pieces.cache_clear()
        with pytest.raises(CellError, match=re.escape(f"The file `{path}`")):
            files.pieces(str(path))
    for content in (b"", b"hello", whole[:-30], whole[:len(whole) // 2], whole.replace(b"\x08\x00", b"\x63\x00")):
        path.write_bytes(content)
        files.pieces.cache_clear()
        with pytest.raises(CellError, match=re.escape(f"The file `{path}`")):
            files.pieces(str(path))


# --- a program as a file ------------------------------------------------------------------------------------------


def test_a_saved_program_names_arrays_that_do_not_fit(tmp_path):
    cell, path = Cell("h[t] = tanh(W @ x[t] + U @ h[t-1] + E @ onehot(k[t]) + b)"), tmp_path / "saved.py"
    cell.compile(backend="numpy").save(path)
    spec = importlib.util.spec_from_file_location("saved_program", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    values = {**cell.init(x=3, h=4, k=5), "x": np.ones((6, 2, 3)), "k": np.zeros((6, 2), int),
              "Delta_h": np.ones((6, 2, 4)), "h[0]": np.ones((2, 4))}
    true = cell.gradient({n: values[n] for n in cell.parameters}, x=values["x"], k=values["k"],
                         initial={"h": values["h[0]"]}, cotangents={"h": values["Delta_h"]})[1]
    right = module.gradient(values)
    assert all(np.allclose(right[n], true[n], rtol=1e-12) for n in right)
    for name, value, message in [
            ("x", np.ones((6, 3)), r"'x' has shape \(6, 3\): its axes are \(T, batch, x\)"),
            ("Delta_h", np.ones((6, 4)), r"'Delta_h' has shape \(6, 4\): its axes are \(T, batch, h\)"),
            ("b", np.ones(1), r"'b' has shape \(1,\): its axis 'h' is 1, not 4"),
            ("W", np.ones((4, 4)), "axis 'x' is .*, not "), ("k", np.zeros((6, 2)), "'k' has dtype float64"),
            ("Delta_h", np.ones((5, 2, 4)), "axis 'T' is 5, not 6"),
            ("h[0]", np.ones(4), r"'h\[0\]' has shape \(4,\): the other arrays make it \(2, 4\)"),
            ("x", None, "'x' is missing"), ("Delta_h", None, "'Delta_h' is missing"), ("W", None, "'W' is missing")]:
        wrong = {n: v for n, v in {**values, name: value}.items() if v is not None}
        with pytest.raises(ValueError, match=message):
            module.gradient(wrong)


# --- code that is kept --------------------------------------------------------------------------------------------


@pytest.fixture
def native(tmp_path, monkeypatch):
    """The module that keeps code, with a folder of the test's own."""
    pytest.importorskip("llvmlite")
    from autograd_rnn.compile.llvm import native

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    if native.folder() != tmp_path / "autograd_rnn":
        pytest.skip("the cache folder of this system is not taken from the environment")
    return native


def writes(native, number: int) -> int:
    """What code that writes a number writes, be it made or read."""
    code = native.Code("define void @f(i64 %at, i64 %b, i64 %c, i64 %d) {\n  %p = inttoptr i64 %at to ptr\n"
                       f"  store i64 {number}, ptr %p\n  ret void\n}}", ["f"])
    place = ctypes.c_int64()
    code.functions["f"](ctypes.addressof(place), 0, 0, 0)
    return place.value


@pytest.fixture
def assembled(native, monkeypatch) -> list:
    """Grows by one with each module that is not read from the folder."""
    seen: list = []
    make = native._assembled
    monkeypatch.setattr(native, "_assembled", lambda *given: seen.append(1) or make(*given))
    return seen


def test_another_cells_code_under_this_cells_name_is_made_anew(native, assembled):
    """h = tanh(W x) and h = tanh(-W x) at W = x = 1: the slopes are 0.41997 and -0.41997."""
    def slope(sign: str) -> float:
        cell = Cell(f"h[t] = tanh({sign}w * x[t])\nx: input()\nw: ()")
        program = cell.compile(backend="llvm", threads=1)
        return program.gradient({"w": 1.0}, x=np.ones(1), cotangents={"h": np.ones(1)})[1]["w"]

    right = [pytest.approx(sign / np.cosh(1)**2, rel=1e-14) for sign in (1, -1)]
    assert [slope(""), slope("-")] == right and len(assembled) == 2
    assert [slope(""), slope("-")] == right and len(assembled) == 2
    first, second = native.folder().glob("*.o")
    contents = first.read_bytes(), second.read_bytes()
    first.write_bytes(contents[1])
    second.write_bytes(contents[0])
    assert [slope(""), slope("-")] == right and len(assembled) == 4
    assert (first.read_bytes(), second.read_bytes()) == contents


def test_code_with_a_flipped_bit_is_made_anew(native, assembled):
    assert writes(native, 7) == 7 and len(assembled) == 1
    (kept,) = native.folder().glob("*.o")
    whole = kept.read_bytes()
    for n, content in flips(whole, 8 * len(whole) // 25):
        kept.write_bytes(content)
        made = len(assembled)
        assert writes(native, 7) == 7 and len(assembled) == made + 1, n
        assert kept.read_bytes() == whole


@pytest.mark.parametrize("mode", [0o777, 0o770, 0o707, 0o1777])
def test_a_folder_that_others_may_write_to_is_no_cache(native, mode, assembled):
    native.folder().mkdir()
    native.folder().chmod(mode)
    for n in (1, 2):
        assert writes(native, 7) == 7 and len(assembled) == n and not list(native.folder().iterdir())


@pytest.mark.parametrize("what", ["folder", "file", "open file"])
def test_code_that_others_may_have_written_is_not_read(native, what, assembled):
    assert writes(native, 7) == 7
    (kept,) = native.folder().glob("*.o")
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600 and stat.S_IMODE(native.folder().stat().st_mode) == 0o700
    assert writes(native, 7) == 7 and len(assembled) == 1
    if what == "open file":
        kept.chmod(0o666)
    elif os.geteuid() != 0:
        pytest.skip("only root can give a file away")
    else:
        os.chown(kept if what == "file" else kept.parent, 12345, -1)
    assert writes(native, 7) == 7 and len(assembled) == 2


@pytest.mark.parametrize("value", ["", ".", "cache", "./cache"])
def test_a_cache_folder_that_is_empty_or_relative(native, value, monkeypatch, tmp_path):
    """Empty is as good as unset, as the XDG specification says; what is relative to the working folder is no cache."""
    monkeypatch.setenv("XDG_CACHE_HOME", value)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    assert writes(native, 7) == 7 and not list((tmp_path / "work").iterdir())
    assert native.folder() == (None if value else tmp_path / "home" / ".cache" / "autograd_rnn")


def test_without_a_home_nothing_is_kept_and_all_works(native, assembled, monkeypatch, tmp_path):
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.delenv("HOME")
    monkeypatch.setattr(pwd, "getpwuid", lambda uid: (_ for _ in ()).throw(KeyError(uid)))
    monkeypatch.chdir(tmp_path)
    for n in (1, 2):
        assert native.folder() is None and writes(native, 7) == 7 and len(assembled) == n
    assert not list(tmp_path.iterdir())


def test_a_folder_that_cannot_be_made_is_no_error(native, monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert writes(native, 7) == 7
