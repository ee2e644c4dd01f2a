"""Calls from anywhere: threads, signal handlers, `__del__`, forked and spawned processes, Ctrl-C at any moment; arrays
of any kind, and of none. Each gives the right numbers or a CellError.
"""

from __future__ import annotations

import gc
import multiprocessing
import os
import random
import signal
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import systems

from autograd_rnn import Cell, CellError, learn, zoo
from autograd_rnn.compile.llvm import machine, native
from autograd_rnn.graph import Position, Primitive, node, read
from autograd_rnn.primitives import PRIMITIVES

SHAPES = [(20, 2, 5), (3, 7, 5), (150, 2, 5), (11, 1, 9), (20, 2, 9), (1, 4, 3)]  # T, batch, size
PATHS = {
    "llvm": {"backend": "llvm", "threads": 1},
    "8 threads": {"backend": "llvm", "threads": 8},
    "budget": {"backend": "llvm", "threads": 2, "memory": "150KB"},
    "numpy": {"backend": "numpy"},
}
POSIX = pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="needs signals as POSIX has them")


def few(count: int, marker=pytest.mark.long):
    """A small number of repetitions, and all of them behind the marker."""
    return [count // 10, pytest.param(count, marks=marker)]


@pytest.fixture(autouse=True)
def eight_cores(monkeypatch):
    """Work is shared among eight threads however small it is."""
    monkeypatch.setattr(machine, "ALONE", 0)
    monkeypatch.setattr(native, "cores", lambda: 8)
    native._helpers.cache_clear()
    yield
    native._helpers.cache_clear()


def problem(cell: Cell, T: int, batch: int, size: int, seed: int = 0) -> tuple[dict, dict]:
    rng = np.random.default_rng(seed)
    params = {n: rng.normal(scale=0.5, size=p.shape) for n, p in cell.init(x=3, h=size).items()}
    return params, {"x": rng.normal(size=(T, batch, 3)), "cotangents": {"h": rng.normal(size=(T, batch, size))}}


def same(found: dict, true: dict, tolerance: float = 1e-12) -> bool:
    return found.keys() == true.keys() and all(
        np.shape(found[n]) == np.shape(true[n]) and np.max(abs(found[n] - true[n]), initial=0) <= tolerance
        for n in true)


class Case:
    """A cell of its own, compiled, with problems of several shapes and what is right for each."""

    def __init__(self, path: str, cell: Cell = zoo["lstm"], shapes=SHAPES):
        cell, reference = (Cell(cell.text, **cell._called) for _ in range(2))
        self.program = cell.compile(**PATHS[path])
        self.problems = [problem(cell, *shape, seed) for seed, shape in enumerate(shapes)]
        self.true = [reference.gradient(params, **given) for params, given in self.problems]

    def right(self, k: int) -> bool:
        k %= len(self.problems)
        params, given = self.problems[k]
        value, found = self.program.gradient(params, **given)
        return abs(value - self.true[k][0]) <= 1e-12 * max(1, abs(value)) and same(found, self.true[k][1])


# --- threads -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("calls", few(480))
@pytest.mark.parametrize("path", PATHS)
def test_one_program_from_eight_threads_with_mixed_shapes(path, calls):
    """The program itself is made by all eight at once."""
    case = Case(path)
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        with ThreadPoolExecutor(8) as pool:
            right = list(pool.map(case.right, random.Random(0).choices(range(len(SHAPES)), k=calls)))
    finally:
        sys.setswitchinterval(before)
    assert all(right) and len(right) == calls
    assert all(case.right(k) for k in range(2 * len(SHAPES)))  # nor is anything left behind


def test_what_several_threads_make_at_once_is_one_node():
    """Identity is equality: two nodes for one operation would be two values."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    start = threading.Barrier(8)

    def make(_):
        start.wait()
        return [node(PRIMITIVES["tanh"], read(f"v{k}", (Position("t"),))) for k in range(300)]

    try:
        with ThreadPoolExecutor(8) as pool:
            for _ in range(20):
                made = list(pool.map(make, range(8)))
                assert all(len({id(n) for n in alike}) == 1 for alike in zip(*made))
                del made
    finally:
        sys.setswitchinterval(before)


# --- interrupts ----------------------------------------------------------------------------------------------------


class Alarm:
    """SIGALRM after a while, once or again and again, inside of one function alone: so no test ends by it."""

    def __init__(self, handler, delay: float, again: float = 0.0, within=Case.right):
        self.handler, self.times, self.within, self.count = handler, (delay, again), within.__code__, 0

    def __enter__(self):
        self.before = signal.signal(signal.SIGALRM, self.ring)
        signal.setitimer(signal.ITIMER_REAL, *self.times)
        return self

    def ring(self, _, frame):
        names = set()
        while frame is not None and frame.f_code is not self.within:
            names.add(frame.f_globals.get("__name__", "").split(".")[0])
            frame = frame.f_back
        if frame is not None and "_pytest" not in names:  # it looks at what `__del__` raised
            self.count += 1
            self.handler()

    def __exit__(self, kind, *_):
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, self.before)
        return kind is KeyboardInterrupt


def interrupt():
    raise KeyboardInterrupt


@POSIX
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("interrupts", few(200))
@pytest.mark.parametrize("path", PATHS)
def test_after_an_interrupt_at_any_moment_all_is_right(path, interrupts):
    shapes = [(40, 16, 32), (150, 2, 5), (30, 9, 24)] if path == "8 threads" else SHAPES[:3]  # parts that take a while
    case, draw, hit = Case(path, shapes=shapes), random.Random(0), 0
    assert all(case.right(k) for k in range(9))
    lasts = [timed(case, k) for k in range(3)]
    for n in range(20 * interrupts):
        with Alarm(interrupt, draw.uniform(1e-6, lasts[n % 3]), draw.choice([0, 3e-4])) as alarm:
            case.right(n)
        hit += alarm.count > 0
        assert case.right(n) and case.right(n + 1), (n, hit)
        if hit == interrupts:
            break
    assert hit == interrupts


@pytest.mark.parametrize("raised", [KeyboardInterrupt, MemoryError])
def test_no_part_is_left_running(raised):
    begun, running, ended = threading.Event(), [], []

    def work(k):
        if threading.current_thread() is threading.main_thread():
            assert begun.wait(10)
            raise raised
        running.append(k)
        begun.set()
        time.sleep(0.05)
        ended.append(k)

    for _ in range(5):
        with pytest.raises(raised):
            native.share(work, 8)
        assert running and sorted(running) == sorted(ended)
        begun.clear()
    assert len(ended) < 40  # what nobody had begun is left


def test_what_goes_wrong_in_another_thread_is_raised_here():
    def work(k):
        if threading.current_thread() is not threading.main_thread():
            raise OverflowError(k)
        time.sleep(0.05)  # so that another thread comes to it

    with pytest.raises(OverflowError):
        native.share(work, 8)


@POSIX
def test_interrupts_while_parts_are_waited_for():
    """Once and once more: it ends when all have ended."""
    ended = []

    def work(k):
        if threading.current_thread() is not threading.main_thread():
            time.sleep(0.2)
            ended.append(k)
        else:
            time.sleep(0.02)

    with Alarm(interrupt, 0.05, 0.02, native.share) as alarm:
        native.share(work, 4)
    assert alarm.count > 1 and ended and len(ended) == len(set(ended))
    before = list(ended)
    time.sleep(0.3)
    assert ended == before


def timed(case: Case, k: int) -> float:
    began = time.perf_counter()
    assert case.right(k)
    return time.perf_counter() - began


@POSIX
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_an_interrupt_while_a_program_is_made():
    """What is half made is not kept."""
    draw, hit = random.Random(0), 0
    for _ in range(10):
        case = Case("8 threads", zoo["rnn"], SHAPES[:1])
        with Alarm(interrupt, draw.uniform(1e-6, 0.3)) as alarm:
            case.right(0)
        hit += alarm.count
        assert case.right(0)
    assert hit


# --- calls within calls --------------------------------------------------------------------------------------------


@POSIX
@pytest.mark.parametrize("path", PATHS)
def test_a_signal_handler_takes_gradients_in_the_middle_of_a_gradient(path):
    """Of the same program, at the same shapes and at others."""
    case, draw, right = Case(path), random.Random(0), []
    assert all(case.right(k) for k in range(2 * len(SHAPES)))
    for n in range(60):
        with Alarm(lambda n=n: right.extend([case.right(n), case.right(n + 1)]), draw.uniform(1e-6, 2e-3)):
            right.append(case.right(n))
    assert all(right) and len(right) > 60


@pytest.mark.parametrize("path", PATHS)
def test_a_gradient_in_del(path):
    """Called by the garbage collector, wherever that may be."""
    case, right = Case(path), []

    class Last:
        def __init__(self):
            self.itself = self  # gone only when the collector comes

        def __del__(self):
            right.append(case.right(len(right)))

    for n in range(30):
        Last()
        if n % 5 == 4:
            gc.collect()
        right.append(case.right(n))
    gc.collect()
    assert all(right) and len(right) == 60


@pytest.mark.parametrize("path", PATHS)
def test_a_gradient_within_a_primitive(path):
    """A primitive of the user's own calls the program that it is part of."""
    def value(x):
        nonlocal deep, calls
        calls += 1
        if case and deep < 2 and calls % 40 == 0:
            deep += 1
            within.append(case.right(calls))
            deep -= 1
        return np.tanh(x)

    case, deep, calls, within = None, 0, 0, []
    tanh = Primitive("f", value, lambda g, y, x: (g * PRIMITIVES["sech"](x)**2,))
    case = Case(path, Cell("h[t] = f(W @ x[t] + U @ h[t-1])", f=tanh))
    assert all(case.right(k) for k in range(2 * len(SHAPES))) and all(within) and len(within) > 5


# --- processes -----------------------------------------------------------------------------------------------------


def in_a_child(method: str, case: Case, seconds: float = 60) -> bool:
    """Whether a child gets the right numbers, all of them, and ends."""
    child = multiprocessing.get_context(method).Process(target=works, args=(case,))
    child.start()
    child.join(seconds)
    if child.exitcode is None:
        child.kill()
    return child.exitcode == 0


def works(case: Case) -> None:
    os._exit(0 if all(case.right(k) for k in range(2 * len(SHAPES))) else 1)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
@pytest.mark.parametrize("forks", few(20))
@pytest.mark.parametrize("path", PATHS)
def test_a_forked_child_before_and_after(path, forks):
    """Its parent's threads are not there in the child; one that is forked in the middle of others' calls."""
    case = Case(path)
    assert in_a_child("fork", case)
    assert all(case.right(k) for k in range(2 * len(SHAPES)))
    on, right = True, []

    def work():
        k = 0
        while on:
            right.append(case.right(k := k + 1))

    for n in range(forks):
        on, thread = True, threading.Thread(target=work)
        if n % 2:
            thread.start()
        assert in_a_child("fork", case), n
        on = False
        if n % 2:
            thread.join()
    assert all(right) and case.right(0)


@pytest.mark.long
def test_a_spawned_child():
    """Cells and programs are handed over as their text."""
    assert in_a_child("spawn", Case("8 threads"))


# --- nothing -------------------------------------------------------------------------------------------------------

SOME = ["rnn_softmax", "lstm_peephole", "gru", "charlm", "lstm_stacked", "bahdanau", "grid_lstm", "clockwork"]
EVERY = [*SOME, *(pytest.param(name, marks=pytest.mark.long) for name in systems.BASES if name not in SOME)]
RUNS = {"reference": None, **{path: {**options, "memory": "64MB"} if path == "budget" else options
                              for path, options in PATHS.items()}}


def without(cell: Cell, inputs: dict, index: str | None, steps: dict) -> tuple[dict, dict]:
    """Inputs and steps, of which none are left along an index."""
    some = {n: x.take([], cell.system.axes[n].index(index)) if index in cell.system.axes[n] else x
            for n, x in inputs.items()}
    return some, {"steps": {i: 0 if i == index else k for i, k in steps["steps"].items()}} if steps else {}


def empties(name: str):
    """A cell with a loss, and (params, what is given) without examples, and without steps along each data index."""
    cell = systems.with_loss(zoo[name])
    yield "batch", cell, *systems.draw(cell, 4, 0), systems.steps(cell, 4)
    params, inputs = systems.draw(cell, 4, 3)
    for i in cell.system.indices:
        if i not in cell.system.model:
            yield i, cell, params, *without(cell, inputs, i, systems.steps(cell, 4))


@pytest.mark.parametrize("name", EVERY)
def test_a_sum_over_nothing_is_zero(name):
    """The value, each parameter's gradient, each initial value's: every path has the same answer."""
    for what, cell, params, inputs, steps in empties(name):
        lone = what not in ("batch", cell.system.time)  # other indices may be empty where time goes on
        for path, options in RUNS.items():
            run = cell if options is None else cell.compile(**options)
            try:
                for _ in range(2):
                    value, found, final = run.gradient_and_final(params, **steps, **inputs)
            except CellError as e:
                assert lone and ("not finite" in e.fact or "read at" in e.fact), (what, path, e)
                continue
            if options is None:
                true = value, found, final
            assert found.keys() == true[1].keys() and final.keys() == true[2].keys()
            assert abs(value - true[0]) <= 1e-12 and same(found, true[1], 1e-12) and same(final, true[2], 1e-12)
            assert all(found[n].shape == np.shape(x) for n, x in {**params, **inputs}.items() if n in found)
            if not lone:
                assert value == 0 and not any(g.any() for g in found.values()), (what, path)


@pytest.mark.parametrize("name", EVERY)
def test_an_example_without_steps_is_as_good_as_none(name):
    cell = systems.with_loss(zoo[name])
    (params, inputs), time = systems.draw(cell, 4, 3), cell.system.time
    given = {**systems.steps(cell, 4), "lengths": {time: np.array([4, 0, 2])}}
    batch = {n: len(cell.system.axes[n]) for n in cell.system.per_example if n in inputs}
    others = {n: x.take([0, 2], batch[n]) if n in batch else x for n, x in inputs.items()}
    try:
        value, true, last = cell.gradient_and_final(params, **{**given, "lengths": {time: np.array([4, 2])}}, **others)
    except CellError:  # a model that wants longer sequences
        return
    for path, options in RUNS.items():
        run = cell if options is None else cell.compile(**options)
        try:
            found, gradients, final = run.gradient_and_final(params, **given, **inputs)
        except CellError as e:
            assert "read at" in e.fact and any(p.base != "i" and not p.outside for n in cell.system.reads
                                               for p in n.params[1]), (path, e)
            continue
        assert abs(found - value) <= 1e-11 * max(1, abs(value))
        for n in params:
            assert n not in true or abs(gradients[n] - true[n]).max(initial=0) <= 1e-10, (path, n)
        for n in batch:
            assert n not in true or not gradients[n].take(1, batch[n]).any(), (path, n)
        for n, end in cell.system.carried.items():
            label = cell.system.labels[n, end]
            k = len(cell.system.axes[n]) - 1
            assert np.allclose(final[label].take([0, 2], k), last[label], 1e-10, 1e-10), (path, n)
        assert final[time].tolist() == [4, 0, 2]


def test_an_example_without_steps_within_a_budget():
    """In stretches: what is carried on is what it was given."""
    cell = Cell(zoo["lstm"].text)
    params, given = problem(cell, 200, 4, 5)
    start = {n: np.full((4, 5), 0.5) for n in ("h", "c")}
    given.update(lengths=[200, 0, 70, 64], initial=start)
    value, true, last = cell.gradient_and_final(params, **given)
    for memory in ("200KB", "400KB"):
        program = cell.compile(backend="llvm", threads=1, memory=memory)
        found, gradients, final = program.gradient_and_final(params, **given)
        assert "in stretches" in program.report()
        assert abs(found - value) < 1e-10 and same(gradients, true, 1e-10) and same(final, last)
        assert (final["h"][1] == 0.5).all()


CALLS = {
    "run": lambda cell, params, inputs: cell.run(params, **inputs),
    "unroll": lambda cell, params, inputs: cell.unroll(params, **inputs).backward(),
    "check_gradients": lambda cell, params, inputs: cell.check_gradients(params, **inputs),
    "mean_loss": lambda cell, params, inputs: learn.mean_loss(cell, params, batches(inputs)),
    "fit": lambda cell, params, inputs: learn.fit(cell, params, batches(inputs), 1, learn.sgd(0.1)),
    "forward": lambda cell, params, inputs: cell.compile().forward(params, **inputs),
}
REFUSED = {("unroll", 0): "nothing to unroll", ("mean_loss", 0): "0 targets", ("fit", 0): "0 targets",
           ("mean_loss", 4): "0 targets", ("fit", 4): "0 targets"}


def batches(inputs: dict) -> learn.Batches:
    return learn.Batches(1, lambda step: learn.Batch(inputs, targets=inputs["k"].size))


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize(("T", "batch"), [(4, 0), (0, 3), (0, 0), (0, None)])
def test_what_other_calls_say_of_nothing(call, T, batch):
    cell = zoo["rnn_softmax"]
    params, inputs = systems.draw(cell, max(T, 1), batch)
    inputs = {n: x[:T] for n, x in inputs.items()}
    if (call, T) in REFUSED:
        with pytest.raises(CellError, match=REFUSED[call, T]):
            CALLS[call](cell, params, inputs)
        return
    found = CALLS[call](cell, params, inputs)
    if call == "check_gradients":
        assert found.ok
    elif call in ("run", "forward"):
        assert found["L"].sum() == 0 and found["h"].shape == inputs["x"].shape[:-1] + params["b"].shape
        assert all((found.final["h"] == 0).ravel()) and found.final["t"] == T


def test_a_step_of_no_examples():
    cell = zoo["rnn_softmax"]
    params, inputs = systems.draw(cell, 1, 0)
    values, state = cell.step(params, x=inputs["x"][0])
    assert values["h"].shape == state["h"].shape == (0, len(params["b"])) and state["t"] == 1


def test_what_is_not_there_cannot_be_read():
    """The last step of no steps: the gradient would be the initial value's, or nobody's."""
    cell = Cell("h[t] = tanh(W @ x[t] + U @ h[t-1])\nL = sum(h[T]**2)")
    params, inputs = systems.draw(cell, 4, 2)
    for run in (cell, cell.compile(backend="numpy"), cell.compile(backend="llvm")):
        for given in ({"x": inputs["x"][:0]}, {**inputs, "lengths": [4, 0]}):
            with pytest.raises(CellError, match="`h` is read at `T` of a sequence that has no position"):
                run.gradient(params, **given)


# --- arrays of any kind --------------------------------------------------------------------------------------------


def padded(x):
    """Every second number of an array that is longer."""
    wide = np.full((*x.shape[:-1], 2 * x.shape[-1]), np.nan)
    wide[..., ::2] = x
    return wide[..., ::2]


def unaligned(x):
    raw = np.zeros(x.nbytes + 1, np.uint8)[1:].view(x.dtype).reshape(x.shape)
    raw[...] = x
    return raw


def locked(x):
    x = x.copy()
    x.flags.writeable = False
    return x


def mapped(x, folder):
    found = np.memmap(folder / f"{id(x)}", x.dtype, "w+", shape=x.shape)
    found[...] = x
    return found


class Own(np.ndarray):
    """A subclass whose arithmetic would give other numbers."""

    def __array_ufunc__(self, *args, **kwargs):
        raise AssertionError("its own arithmetic was used")


KINDS = {
    "Fortran order": np.asfortranarray,
    "reversed": lambda x: x[::-1].copy()[::-1],
    "turned": lambda x: x.T.copy().T,
    "padded": padded,
    "big-endian": lambda x: x.astype(">f8"),
    "unaligned": unaligned,
    "read-only": locked,
    "float32": lambda x: x.astype(np.float32).astype(np.float64).astype(np.float32),
    "list": lambda x: x.tolist(),
    "subclass": lambda x: x.view(Own),
    "masked, nothing of it": np.ma.array,
    "longdouble": lambda x: x.astype(np.longdouble),
}


@pytest.mark.parametrize("kind", [*KINDS, "memory-mapped"])
@pytest.mark.parametrize("path", PATHS)
def test_arrays_of_any_kind(path, kind, tmp_path):
    """All of them, then one among plain ones; called again and again, since a second call may go a shorter way."""
    case = Case(path, shapes=SHAPES[:2])
    change = KINDS.get(kind, lambda x: mapped(x, tmp_path))
    for k, (params, given) in enumerate(case.problems):
        value, true = case.true[k]
        tolerance = 1e-5 if kind == "float32" else 1e-12
        names = [*params, "x", "cotangents"]
        for some in (names, *([n] for n in names[::4] + names[-2:])):
            for _ in range(3):
                assert case.right(k)
                other = {n: change(x) if n in some else x for n, x in {**params, "x": given["x"]}.items()}
                delta = {"h": change(given["cotangents"]["h"]) if "cotangents" in some else given["cotangents"]["h"]}
                x = other.pop("x")
                found, gradients = case.program.gradient(other, x=x, cotangents=delta)
                assert abs(found - value) <= tolerance * max(1, abs(value)), (some, k)
                assert same(gradients, true, tolerance * 10), (some, k)


class Holding:
    """An array of another library that holds back its numbers, as a tensor with `requires_grad` does."""

    def __array__(self, dtype=None, copy=None):
        raise RuntimeError("Can't call numpy() on Tensor that requires grad. Use tensor.detach().numpy() instead.")


@pytest.mark.parametrize(("change", "message"), [
    (lambda given: given.update(x=Holding()), "`x` is no array: Can't call numpy.*detach"),
    (lambda given: given.update(W=Holding()), "`W` is no array: Can't call numpy.*detach"),
    (lambda given: given.update(cotangents={"h": Holding()}), "cotangent of `h` is no array"),
    (lambda given: given.update(cotangents={"h": [[1], [1, 2]]}), "cotangent of `h` is no array"),
    (lambda given: given.update(cotangents=np.ones((5, 2, 4))), "The cotangents are a ndarray"),
    (lambda given: given.update(loss=np.ones((5, 2, 3))), "The loss is a ndarray"),
    (lambda given: given.update(initial={"h": Holding()}), "initial value of `h` holds no numbers"),
    (lambda given: given.update(initial=np.ones((5, 2, 3))), "`initial` are a ndarray"),
    (lambda given: given.update(lengths=Holding()), "lengths along `t` are no list"),
    (lambda given: given.update(x=np.ma.masked_greater(given["x"], 0)), "`x` is no array: some of it is masked"),
    (lambda given: given.update(x=given["x"].astype(object)), "`x` has dtype object"),
    (lambda given: given.update(x=np.zeros((5, 2, 0))), "size"),
])
@pytest.mark.parametrize("path", RUNS)
def test_what_holds_no_numbers_is_refused(path, change, message):
    cell = Cell(zoo["rnn"].text)
    run = cell if RUNS[path] is None else cell.compile(**RUNS[path])
    params, given = problem(cell, 5, 2, 4)
    for _ in range(2):
        other = {**given, "W": params["W"]}
        change(other)
        with pytest.raises(CellError, match=message):
            run.gradient({**params, "W": other.pop("W")}, **other)
        run.gradient(params, **given)


@pytest.mark.parametrize("path", RUNS)
def test_lengths_of_any_kind(path):
    cell = Cell(zoo["gru"].text)
    run = cell if RUNS[path] is None else cell.compile(**RUNS[path])
    params, given = problem(cell, 5, 3, 4)
    true = run.gradient(params, lengths=[5, 1, 3], **given)
    for kind in (np.array, tuple, lambda n: np.array(n, ">i4"), lambda n: np.array(n, np.uint8), lambda n: {"t": n}):
        value, found = run.gradient(params, lengths=kind([5, 1, 3]), **given)
        assert value == true[0] and same(found, true[1], 0)
    full = run.gradient(params, **given)
    assert same(run.gradient(params, lengths=np.array([5, 5, 5]), **given)[1], full[1], 0)
