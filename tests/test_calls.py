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

from autograd_rnn import Cell, zoo
from autograd_rnn.compile.llvm import machine, native
from autograd_rnn.graph import Position, Primitive, node, read
from autograd_rnn.primitives import PRIMITIVES

SHAPES = [(20, 2, 5), (3, 7, 5), (150, 2, 5), (11, 1, 9), (20, 2, 9), (1, 4, 3)]  # T, batch, size
PATHS = {
    "llvm": {"backend": "llvm", "threads": 1},
    "8 threads": {"backend": "llvm", "threads": 8},
    "budget": {"backend": "llvm", "threads": 2, "memory": "300KB"},
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
        found[n].shape == true[n].shape and abs(found[n] - true[n]).max(initial=0) <= tolerance for n in true)


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
    """SIGALRM after a while, once or again and again, inside of `Case.right` alone: so no test ends by it."""

    def __init__(self, handler, delay: float, again: float = 0.0):
        self.handler, self.times, self.count = handler, (delay, again), 0

    def __enter__(self):
        self.before = signal.signal(signal.SIGALRM, self.ring)
        signal.setitimer(signal.ITIMER_REAL, *self.times)
        return self

    def ring(self, _, frame):
        while frame is not None and frame.f_code is not Case.right.__code__:
            frame = frame.f_back
        if frame is not None:
            self.count += 1
            self.handler()

    def __exit__(self, kind, *_):
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, self.before)
        return kind is KeyboardInterrupt


def interrupt():
    raise KeyboardInterrupt


@POSIX
@pytest.mark.parametrize("interrupts", few(200))
@pytest.mark.parametrize("path", PATHS)
def test_after_an_interrupt_at_any_moment_all_is_right(path, interrupts):
    case, draw, hit = Case(path, shapes=SHAPES[:3]), random.Random(0), 0
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


def timed(case: Case, k: int) -> float:
    began = time.perf_counter()
    assert case.right(k)
    return time.perf_counter() - began


@POSIX
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
