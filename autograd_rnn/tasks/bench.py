"""A task for a cell and a seed: trained, tested, and kept in a file of its own; many at once, each done only once.

    Run -> file;   Runs, folder, workers -> the results of those that are missing, as they come

What changes an outcome is in the file's name, as a digest, the task's definition and the cell's equations too: a run
whose file is there is not done again. A run that was interrupted goes on from its checkpoint.
"""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field, replace
from functools import lru_cache
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from ..atomic import written
from ..cell import Cell
from ..compile.program import Program
from ..errors import CellError
from ..init import Rule, biases, uniform
from ..learn.session import OPTIMISERS, SCHEDULES, Settings, bar_of
from ..learn.store import load_point, save_point
from ..learn.train import Point, fit
from ..zoo import zoo
from . import Data, Task, tasks

SAVED = 60.0  # seconds between checkpoints
RESULT = {"task", "cell", "text", "values", "settings", "weights", "steps", "sequences", "solved", "valid", "test",
          "error", "seconds"}  # what is told of a run
ONE_THREAD = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "VECLIB_MAXIMUM_THREADS")


@dataclass(frozen=True)
class Run:
    """A task, a cell (of the zoo, or with its text), settings with their seed, and values by name.

    values: the task's numbers (T=200), sizes of the model (h1_i=2), and where parameters start: h1_b_i=-3, a list with
    one number for each component, or default=0.1, which draws all that are no biases from U(-0.1, 0.1).
    """

    task: str
    cell: str
    settings: Settings
    text: str | None = None
    values: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, task: str, cell: str, text: str | None = None, values: Mapping[str, Any] | None = None, **settings
           ) -> Run:
        """A run with the task's own settings where none are given."""
        return cls(task, cell, Settings(**{**tasks.named(task).settings, **settings}), text, dict(values or {}))

    @property
    def facts(self) -> dict[str, Any]:
        """What is told of a run; of a file, its name."""
        values = {name: Path(v).name if name == "path" else v for name, v in self.values.items()}
        return {"task": self.task, "cell": self.cell, "text": self.text, "values": values,
                "settings": asdict(self.settings)}

    def file(self, folder: str | Path) -> Path:
        """Where its result is kept."""
        text = zoo.named(self.cell).text if self.text is None else self.text
        digest = digest_of(replace(self, settings=replace(self.settings, seed=0)).facts, tasks.named(self.task), text)
        return Path(folder) / f"{self.task}-{self.cell}-{digest}-{self.settings.seed}.json"

    @property
    def numbers(self) -> dict[str, Any]:
        """The task's."""
        numbers = tasks.named(self.task).numbers
        return {**numbers, **{n: v for n, v in self.values.items() if n in numbers}}

    @property
    def made_of(self) -> tuple[str, str, str | None, int, float]:
        """What its model is made of."""
        return self.task, self.cell, self.text, self.settings.layers, self.settings.dropout

    def begin(self) -> tuple[Task, Cell, Data, dict[str, np.ndarray]]:
        """(task, model, data, first parameters): values go where their names belong."""
        task, s, numbers = tasks.named(self.task), self.settings, self.numbers
        model = model_of(self.made_of)
        data = task.data(batch=s.batch, length=s.length, seed=s.seed, **numbers)
        weights = set(model.parameters) - biases(model.system) if "default" in self.values else ()
        rules: dict[str, Rule] = {n: uniform(self.values["default"]) for n in weights}
        rules.update({n: _filled(v) for n, v in self.values.items() if n in model.parameters})
        sizes = {n: v for n, v in self.values.items() if n not in (*numbers, *rules, "default")}
        return task, model, data, first(model.initialised(**rules), data, sizes, s)


def digest_of(facts: Mapping[str, Any], task: Task, equations: str) -> str:
    """Of all that an outcome depends on but the seed: another task by the same name is another task."""
    said = {**facts, "task": [facts["task"], task.definition, task.text, task.goal], "text": equations}
    return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()[:8]


@lru_cache(maxsize=1)
def model_of(made_of: tuple[str, str, str | None, int, float]) -> Cell:
    """A run's model; runs one after another that differ in their numbers alone share it."""
    task, name, text, layers, dropout = made_of
    return tasks.named(task).model(zoo.named(name) if text is None else Cell(text, name), layers, dropout)


@lru_cache(maxsize=1)
def program_of(made_of: tuple[str, str, str | None, int, float], backend: str) -> Program:
    """A run's model as a program of one thread, shared likewise."""
    return model_of(made_of).compile(threads=1, backend=backend)


def _filled(value) -> Rule:
    """One number for all components, or one for each."""
    return lambda rng, shape: np.broadcast_to(np.asarray(value, float), shape)


def first(model: Cell, data: Data, sizes: Mapping[str, int], settings: Settings) -> dict[str, np.ndarray]:
    """Parameters: y has the task's size, e the embedding's, an input its own; every other size is `settings.size`."""
    inputs = data.train(0).inputs
    strange = [n for n in inputs if n not in model.inputs]
    if strange:
        raise CellError(f"The task gives `{strange[0]}`, which {model!r} does not take.",
                        remedy="Its inputs: " + ", ".join(inputs) + ".")
    known = {"y": data.outputs} if "y" in model.shapes else {}
    for n in inputs:
        axes = (*model.system.axes[n], "batch", *model.shapes[n])
        known |= {d: size for d, size in zip(axes, np.shape(inputs[n])) if d in model.dims}
    taken = {name for one in (*known, *sizes) for names in model.dims.values() if one in names for name in names}
    parts = dict(model.system.inferred.sums)  # what is put together is as large as its parts
    rest = {d: settings.embedding if d == "e" else settings.size for d in model.dims
            if d not in taken and not d.isdigit() and d not in parts}
    return model.init(seed=settings.seed, dtype=np.dtype(settings.dtype), **{**rest, **known, **sizes})


def carry_out(run: Run, folder: str | Path, backend: str = "auto") -> dict[str, Any]:
    """Train, test, write the result's file, and return what is in it. That training failed is a result too."""
    task, model, data, params = run.begin()
    s, path, point = run.settings, run.file(folder), Point(params, seed=run.settings.seed)
    checkpoint, program = path.with_suffix(".npz"), program_of(run.made_of, backend)
    began, before = time.monotonic(), 0.0
    if checkpoint.exists():
        _, point, about = load_point(checkpoint)
        before = float(about.get("seconds", 0.0))
    saved = time.monotonic()

    def seconds() -> float:
        return before + time.monotonic() - began

    def keep(now: Point) -> None:
        nonlocal saved, point
        point, interrupted = now, now.step % s.every != 0
        if interrupted or time.monotonic() - saved > SAVED:
            save_point(checkpoint, model, now, {"seconds": seconds()})
            saved = time.monotonic()

    make, rate = OPTIMISERS[s.optimiser]
    rate, error = s.lr or rate, None
    steps = max(1, round(s.epochs * data.train.count)) if s.epochs else s.steps
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        fit(program, point, data.train, steps, make(rate), SCHEDULES[s.schedule](rate, steps), s.clip or None,
            lambda params: task.measured(program, params, data, data.valid), s.every, s.patience or None, keep=keep,
            goal=task.goal)
    except CellError as e:
        error = str(e)
    params = point.params if task.goal is not None else point.best or point.params
    valid = [loss for _, loss in point.history]
    result = {
        **run.facts, "weights": sum(np.size(point.params[n]) for n in model.parameters), "steps": point.step,
        "sequences": point.step * s.batch, "solved": bool(valid and task.goal is not None and valid[-1] <= task.goal),
        "valid": min(valid, default=None) if error is None else None,
        "test": task.measured(program, params, data, data.test) if error is None else None,
        "error": error, "seconds": round(seconds(), 1)}
    written(path, json.dumps(result, indent=1).encode())
    checkpoint.unlink(missing_ok=True)
    return result


def missing(runs: Iterable[Run], folder: str | Path) -> list[Run]:
    """Those whose result is not there yet."""
    return [run for run in runs if not run.file(folder).exists()]


def found(runs: Iterable[Run], folder: str | Path) -> list[dict[str, Any]]:
    """The results of those that are done."""
    files = (run.file(folder) for run in runs)
    return [result_in(file) for file in files if file.exists()]


def result_in(file: Path) -> dict[str, Any]:
    """What `carry_out` has written."""
    with suppress(ValueError, RecursionError):
        result = json.loads(file.read_bytes())
        if isinstance(result, dict) and set(result) >= RESULT:
            return result
    raise CellError(f"The file `{file}` holds no result of a run.", remedy="Remove it: then the run is done again.")


def carry_out_all(runs: Iterable[Run], folder: str | Path, workers: int = 1) -> Iterator[dict[str, Any]]:
    """The results of what is missing, as they come; what is done is in its file, what was under way in its checkpoint.
    """
    return side_by_side(carry_out, ((run, folder) for run in missing(runs, folder)), workers)


def side_by_side(work: Callable[..., Any], jobs: Iterator[tuple], workers: int) -> Iterator[Any]:
    """What `work(*job)` returns for each job, as it comes, by processes of one thread each.

    No more is begun than there are workers, so that an interruption has nothing to call back, and a job may be made
    from what came before.
    """
    if workers < 1:
        raise CellError(f"There are {workers} workers.", remedy="Give a whole number from 1.")
    with one_thread(), ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"), end_with_parent) as pool:
        pending = {pool.submit(work, *job) for job in islice(jobs, workers)}
        while pending:
            done, pending = wait(pending, return_when=FIRST_COMPLETED)
            for future in done:
                yield future.result()
            pending |= {pool.submit(work, *job) for job in islice(jobs, len(done))}


def end_with_parent() -> None:
    """A worker whose parent was killed ends too: its run goes on from its checkpoint another time."""
    def watch(parent):
        parent.join()
        os._exit(1)

    threading.Thread(target=watch, args=(multiprocessing.parent_process(),), daemon=True).start()


def completed(runs: Sequence[Run], folder: str | Path, workers: int = 1) -> None:
    """All of them done; the progress goes to stderr, as a bar on a terminal, else as a line for each run."""
    todo = len(missing(runs, folder))
    with bar_of(len(runs), len(runs) - todo, "run") as bar:
        for result in carry_out_all(runs, folder, workers):
            line = (f"{result['task']} {result['cell']} seed {result['settings']['seed']}: "
                    + (result["error"] or f"{result['test']:.4g} after {result['steps']:,} steps").splitlines()[0]
                    + f", {result['seconds']} s")
            if bar is None:
                print(line, file=sys.stderr, flush=True)
            else:
                bar.write(line, file=sys.stderr)
                bar.update()


@contextmanager
def one_thread():
    """Processes that are started here have libraries of one thread."""
    before = {name: os.environ.get(name) for name in ONE_THREAD}
    os.environ.update(dict.fromkeys(ONE_THREAD, "1"))
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})
