"""The search: cells are proposed by mutation and judged on one task after the other; the best are mutated further.

    cells to start from -> judged -> mutant of one of the best -> valid? new? -> filter -> tasks -> the best
    folder/cells/*.cell: all that was proposed;   folder/runs/*.json: all that was trained

After Jozefowicz, Zaremba, Sutskever 2015, told from memory: a list of the 100 best; a filter of remembering symbols;
the tasks in turn, each for cells that came within a share of the best start cell on those before; the rank of a cell is
the least, over the tasks, of its score over the best start cell's. Every cell meets the same settings, drawn once. All
that happened is in files, so that a search that was killed goes on where it stood.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cache, lru_cache
from itertools import count
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from ..atomic import written
from ..cell import Cell
from ..errors import CellError
from ..learn.session import bar_of
from ..learn.text import read_text
from ..tasks import tasks
from ..tasks.bench import Run, carry_out, found, side_by_side
from .canonical import form
from .mutate import mutated
from .valid import valid

LIST = 100  # cells that are mutated further
PASS = 0.8  # of the best start cell's score, to be tried on the next task
RATES, CLIPS, SCALES = (0.02, 0.04), (1.0, 5.0), (0.7, 1.0, 1.4)  # weights start within scale / sqrt(size)
Scores = dict[str, float]  # by task
Heats = tuple["Heat", ...]


@dataclass(frozen=True)
class Heat:
    """A task with its numbers, steps of training, and how many settings are tried."""

    task: str
    values: Mapping[str, Any]
    steps: int
    draws: int = 2
    weights: int = 1500  # of the cell: its size is the largest that has no more


HEATS = (Heat("memorization", dict(N=5, symbols=8), 100), Heat("adding", dict(T=10), 200),
         Heat("arithmetic", dict(digits=1), 300))


@dataclass
class Candidate:
    """A cell of the search: its form is its name; where it came from; its scores on the tasks that it was tried on."""

    name: str
    text: str
    origin: str
    scores: Scores = field(default_factory=dict)

    def __str__(self):
        return f"# {self.origin}\n{self.text}\n"


def setting(draw: int) -> dict[str, Any]:
    """The settings of a draw; every cell meets the same."""
    rng = np.random.default_rng(draw)
    return {"lr": RATES[rng.integers(len(RATES))], "clip": CLIPS[rng.integers(len(CLIPS))],
            "scale": SCALES[rng.integers(len(SCALES))], "seed": draw}


@cache
def input_size(task: str, **values) -> int:
    """How many components x has."""
    data = tasks[task].data(batch=1, length=0, seed=0, **{**tasks[task].numbers, **values})
    return data.train(0).inputs["x"].shape[-1]


def size_of(cell: Cell, x: int, weights: int) -> int:
    """The largest size of the state with which the cell has at most so many weights, and at least 1."""
    dims = [["x" if d == cell.shapes["x"][0] else "h" for d in cell.shapes[n]] for n in cell.parameters]
    sizes = (h for h in count(1) if sum(prod({"x": x, "h": h + 1}[d] for d in shape) for shape in dims) > weights)
    return next(sizes)


@lru_cache(maxsize=1)
def parsed(text: str) -> Cell:
    """A cell, once for all of its tasks."""
    return Cell(text)


def runs(candidate: Candidate, heat: Heat) -> list[Run]:
    """A cell's runs on a task, one for each draw."""
    size = size_of(parsed(candidate.text), input_size(heat.task, **heat.values), heat.weights)
    made = []
    for draw in range(heat.draws):
        given = setting(draw)
        scale = given.pop("scale") / size ** 0.5
        made.append(Run.of(heat.task, candidate.name, candidate.text, {**heat.values, "default": round(scale, 4)},
                           size=size, batch=20, steps=heat.steps, every=heat.steps, schedule="constant", **given))
    return made


def score(result: Mapping[str, Any]) -> float:
    """The share of a trivial predictor's error that is gone: 1 is perfect, 0 is no better."""
    task, values = tasks[result["task"]], result["values"]
    trivial = trivial_error(result["task"], **{n: values.get(n, v) for n, v in task.numbers.items()})
    return 0.0 if result["test"] is None else max(0.0, 1 - result["test"] / trivial)


@cache
def trivial_error(task: str, **numbers) -> float:
    (formula, *_) = tasks[task].baselines.values()
    return formula(**numbers)


def judge(candidate: Candidate, folder: Path, marks: Scores, heats: Heats = HEATS) -> Scores:
    """Scores on the tasks in turn, the best of the draws each, until one is below its mark.

    On the filter, the first task, no more is drawn once its mark is reached. What is on file is not run again.
    """
    scores: Scores = {}
    for heat in heats:
        mark, best = PASS * marks.get(heat.task, 0.0), 0.0
        for run in runs(candidate, heat):
            (result,) = found([run], folder / "runs") or [carry_out(run, folder / "runs", backend="numpy")]
            best = max(best, score(result))
            if heat is heats[0] and marks and best >= mark:
                break
        scores[heat.task] = best
        if best < mark:
            break
    return scores


def rank(scores: Scores, marks: Scores) -> float:
    """The least of the scores over the marks, the filter apart; 0 for a cell that was not tried on all.

    >>> rank({"memorization": 0.5, "adding": 0.9, "arithmetic": 0.5}, dict(memorization=1, adding=1, arithmetic=0.5))
    0.9
    """
    _, *tried = marks
    return min(scores.get(task, 0.0) / marks[task] for task in tried)


def judged(candidate: Candidate, folder: Path, marks: Scores, heats: Heats) -> Candidate:
    """The same with its scores; what overflows on the way is a bad score, not news."""
    with np.errstate(all="ignore"):
        return replace(candidate, scores=judge(candidate, folder, marks, heats))


def search(folder: str | Path, start: Mapping[str, str], cells: int, workers: int = 1, seed: int = 0,
           heats: Heats = HEATS) -> tuple[list[Candidate], Scores]:
    """(the cells, the marks): a search until `cells` different ones are judged; `best` orders those that passed.

    start: text by name of the cells to begin with, each with x[t] as its input and its output last. A folder in which a
    search has begun goes on. Each cell that passes is saved in folder/best. The marks are the best start cell's scores.
    Raises CellError for a start that is no cell, that is not that of the folder, or that learns nothing of a task.
    """
    folder = Path(folder)
    known = {c.name: c for c in kept(folder)}
    firsts = {form(cell.system): Candidate(form(cell.system), str(cell), f"start: {name}")
              for name, cell in ((name, valid(text, name)) for name, text in start.items())}
    begun = {name for name, c in known.items() if c.origin.startswith("start: ")}
    if not firsts or not begun <= {*firsts} or (begun < {*firsts} and len(known) > len(begun)):
        raise CellError(f"The search in `{folder}` began otherwise.", remedy="Give the same start, or another folder.")
    for one in firsts.values():
        if one.name not in known:
            keep(folder, known, one)
    waiting = [c for n, c in known.items() if n not in firsts]
    with bar_of(cells, 0, "cell") as bar:
        def judged_by(some: Iterable[Candidate], marks: Scores) -> None:
            for one in side_by_side(judged, ((c, folder, marks, heats) for c in some), workers):
                known[one.name] = one
                tell(one, rank(one.scores, marks) if marks else None, folder, bar)

        judged_by([known[n] for n in firsts], {})
        marks = {heat.task: max(known[n].scores[heat.task] for n in firsts) for heat in heats}
        if not all(marks.values()):
            task = min(marks, key=marks.__getitem__)
            raise CellError(f"No cell of the start learns anything of `{task}`.", remedy="Start from one that does.")

        def proposals() -> Iterator[Candidate]:
            yield from waiting
            while len(known) < cells:
                one = proposed(best(known.values(), marks)[:LIST], {*known}, seed)
                keep(folder, known, one)
                yield one

        judged_by(proposals(), marks)
    return list(known.values()), marks


def best(candidates: Iterable[Candidate], marks: Scores) -> list[Candidate]:
    """Those that were tried on all tasks, best first."""
    return sorted((c for c in candidates if rank(c.scores, marks)), key=lambda c: -rank(c.scores, marks))


def proposed(parents: list[Candidate], known: set[str], seed: int) -> Candidate:
    """A mutant of one of the parents, valid and not known; the same for the same number of known cells and seed."""
    for attempt in count(1):
        rng = np.random.default_rng((seed, len(known), attempt))
        parent = parents[rng.integers(len(parents))]
        try:
            cell = valid(mutated(Cell(parent.text), rng))
            name = form(cell.system)
        except CellError:
            continue
        if name not in known:
            break
    return Candidate(name, str(cell), f"mutant {attempt} of {parent.name}")


def keep(folder: Path, known: dict[str, Candidate], one: Candidate) -> None:
    """A new cell among those that are known, and in its file."""
    path = folder / "cells" / f"{len(known):05}-{one.name}.cell"
    path.parent.mkdir(parents=True, exist_ok=True)
    written(path, str(one).encode())
    known[one.name] = one


def kept(folder: Path) -> list[Candidate]:
    """The cells of a search, in the order in which they were proposed."""
    found = []
    for path in sorted((folder / "cells").glob("*.cell")):
        origin, _, text = read_text(path).partition("\n")
        found.append(Candidate(path.stem.partition("-")[2], text.strip(), origin.removeprefix("# ")))
    return found


def tell(one: Candidate, place: float | None, folder: Path, bar) -> None:
    """A line for each cell to stderr, or a bar; the equations of one that passed all tasks to stdout, and to a file."""
    line = f"{one.name}, {one.origin}: " + ", ".join(f"{task} {value:.3f}" for task, value in one.scores.items())
    if bar is not None:
        bar.update()
    else:
        print(line, file=sys.stderr, flush=True)
    if place:
        text = f"# {line}; {place:.3f} of the best start cell\n{one.text}\n"
        path = folder / "best" / f"{one.name}.cell"
        path.parent.mkdir(parents=True, exist_ok=True)
        written(path, text.encode())
        if bar is not None:
            bar.write(text, file=sys.stdout)
        else:
            print(text, flush=True)


def ranking(candidates: Iterable[Candidate], marks: Scores) -> str:
    """Cells as a Markdown table: the rank, the score on each task, where the cell came from."""
    head = ["cell", "rank", *marks, "origin"]
    rows = [[c.name, f"{rank(c.scores, marks):.3f}", *(f"{c.scores[task]:.3f}" for task in marks), c.origin]
            for c in candidates]
    return "\n".join("| " + " | ".join(row) + " |" for row in [head, ["---"] * len(head), *rows])
