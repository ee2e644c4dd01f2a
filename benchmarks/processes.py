"""Systems in processes of their own, and measurements that take turns between them.

    with System("JAX scan", threads=1) as system:
        gradients, outputs = system.prepare(work)
        seconds = taking_turns({"JAX scan": system, ...}, rounds, budget)

A process is started with its number of threads in every variable that a library reads, and on as many cores, before it
imports anything. Parent and child talk in pickles over the child's standard input and output.
"""

from __future__ import annotations

import gc
import importlib
import os
import pickle
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path
from threading import Timer
from types import SimpleNamespace
from typing import Any

ROOT = Path(__file__).parents[1]
THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS", "VECLIB_MAXIMUM_THREADS")
KERNELS = ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE")  # taken out: the library knows the machine
CACHES = ("XDG_CACHE_HOME", "NUMBA_CACHE_DIR", "JAX_COMPILATION_CACHE_DIR")
ALWAYS = {"JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0", "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1"}
LONG, SHORT = 2.0, 0.02  # seconds of a run: longer ones are measured three times at most, shorter ones several together
LIMIT = 300  # seconds for an answer
REST = 0.25  # seconds in which the threads of the system before go to sleep


class Skipped(Exception):
    """A system cannot do this work; the message says why."""


def environment(threads: int, caches: str | None = None) -> dict[str, str]:
    """The variables of a process with so many threads; all its caches in one folder, if that is given."""
    eigen = f"--xla_cpu_multi_thread_eigen={'true' if threads > 1 else 'false'}"
    found = {k: v for k, v in os.environ.items() if k not in KERNELS}
    found |= {k: str(threads) for k in THREADS} | {"XLA_FLAGS": eigen, "JAX_PLATFORMS": "cpu", "PYTHONPATH": str(ROOT)}
    if caches is not None:
        found |= dict.fromkeys(CACHES, caches) | ALWAYS | {"PYTENSOR_FLAGS": f"base_compiledir={caches}"}
    return found


class System:
    """A peer in a process of its own, which ends with the `with`. Its methods are those of `answers`, called there."""

    def __init__(self, peer: str, threads: int, caches: str | None = None, python: str = sys.executable):
        self.threads, self.command = threads, [python, __file__, peer, str(threads)]
        self.environment = environment(threads, caches)
        self.start()

    def start(self) -> None:
        self.child = subprocess.Popen(self.command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=self.environment)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for stream in (self.child.stdin, self.child.stdout):
            with suppress(BrokenPipeError):
                stream.close()
        self.child.wait()

    def __getattr__(self, verb: str) -> Callable:
        """Raises Skipped with what went wrong."""
        def call(*args):
            limit = Timer(LIMIT, self.child.kill)
            limit.start()
            try:
                pickle.dump((verb, args), self.child.stdin)
                self.child.stdin.flush()
                done, told = pickle.load(self.child.stdout)
            except (EOFError, BrokenPipeError):
                code, late = self.child.wait(), not limit.is_alive()
                self.start()  # for the next piece of work
                raise Skipped(f"no answer in {LIMIT} s" if late else f"its process ended with {code}") from None
            finally:
                limit.cancel()
            if not done:
                raise Skipped(told)
            return told

        return call


def taking_turns(systems: Mapping[str, System], rounds: int, budget: float) -> dict[str, list[float]]:
    """A B A B: seconds of one run of each system, round by round; fewer rounds where the budget of seconds is spent.

    A system that ends on the way has fewer, or none.
    """
    found: dict[str, list[float]] = {name: [] for name in systems}
    ended, start = set(), time.perf_counter()
    for k in range(rounds):
        if k >= 3 and time.perf_counter() - start > budget:
            break
        for name, system in systems.items():
            if name not in ended and (k < 3 or min(found[name]) < LONG):
                time.sleep(REST)
                try:
                    found[name].append(system.seconds())
                except Skipped:
                    ended.add(name)
    return found


def importing(modules: tuple[str, ...], threads: int, python: str = sys.executable) -> float:
    """Seconds to import modules in a new process."""
    code = f"import time; s = time.perf_counter(); import {', '.join(modules)}; print(time.perf_counter() - s)"
    told = subprocess.run([python, "-c", code], capture_output=True, text=True, env=environment(threads))
    if told.returncode:
        raise Skipped(told.stderr.strip().splitlines()[-1])
    return float(told.stdout)


# --- the child ---------------------------------------------------------------------------------------------------


def peak(reset: bool = False) -> float:
    """Megabytes that this process had at its largest, since its start or since the last reset."""
    try:
        if reset:
            Path("/proc/self/clear_refs").write_text("5")
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1024
    except OSError:
        import resource

        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)


def answers(name: str, threads: int) -> dict[str, Callable]:
    """What a process can be asked, by name."""
    import numpy as np
    from peers import PEERS
    from work import data

    peer, now = PEERS[name], SimpleNamespace(prepared=None, runs=1)
    for module in peer.imports:
        importlib.import_module(module)
    if "torch" in peer.imports:
        import torch

        torch.set_num_threads(threads)

    def versions() -> dict[str, str]:
        return {module: version(module) for module in peer.imports}

    def ready(work) -> None:
        """Everything done once, and how many runs make a measurement."""
        now.prepared = None
        gc.collect()
        now.prepared = peer.prepare(work, *data(work))
        now.prepared.run()
        now.runs = 1
        once = min(seconds() for _ in range(2))
        now.runs = max(1, int(SHORT / once))

    def prepare(work) -> tuple[dict, Any]:
        ready(work)
        return now.prepared.gradients(now.prepared.run()), now.prepared.outputs()

    def seconds() -> float:
        """Of one run: the mean of several after one that is not counted, where they are short."""
        run = now.prepared.run
        gc.collect()
        gc.disable()
        if now.runs > 1:
            run()
        start = time.perf_counter()
        for _ in range(now.runs):
            run()
        told = (time.perf_counter() - start) / now.runs
        gc.enable()
        return told

    def first(work) -> dict[str, float]:
        """From the call to the first gradient, and what the process grew by until a third."""
        given = data(work)
        before = peak(reset=True)
        start = time.perf_counter()
        now.prepared = peer.prepare(work, *given)
        now.prepared.run()
        told = time.perf_counter() - start
        for _ in range(2):
            now.prepared.run()
        return {"seconds": told, "megabytes": peak() - before}

    def rate(size: int, dtype: str) -> float:
        """Floating point operations a second in the product of two large square matrices, the best of several."""
        a = np.ones((size, size), dtype)
        multiply, out, best = np.matmul, np.empty_like(a), float("inf")
        if "torch" in peer.imports:
            multiply, a, out = torch.mm, torch.from_numpy(a), torch.from_numpy(out)
        for _ in range(8):
            start = time.perf_counter()
            multiply(a, a, out=out)
            best = min(best, time.perf_counter() - start)
        return 2 * size**3 / best

    return {f.__name__: f for f in (versions, ready, prepare, seconds, first, rate)}


def attempt(f: Callable, *args) -> tuple[bool, Any]:
    """(True, what it gives) or (False, why not), in a line."""
    try:
        return True, f(*args)
    except ModuleNotFoundError as e:
        return False, f"{e.name} is not installed"
    except NotImplementedError as e:
        return False, str(e)
    except Exception as e:
        return False, f"{type(e).__name__}: {e}".splitlines()[0]


def main(name: str, threads: int) -> None:
    """Answer questions until there are no more. What a library prints goes to standard error."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:threads])
    replies = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    able, known = attempt(answers, name, threads)
    while True:
        try:
            verb, args = pickle.load(sys.stdin.buffer)
        except EOFError:
            return
        pickle.dump(attempt(known[verb], *args) if able else (False, known), replies)
        replies.flush()


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
