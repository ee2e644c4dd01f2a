"""What a task is: where its examples come from, the model around a cell, what is measured, what others reached.

    name -> Task -> Data (what is learnt from, judged while training, judged at the end), model

A row says what the paper says. The model is a Cell like any other: the row's text with the cell called in it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..cell import Cell
from ..compile.program import Program
from ..errors import CellError
from ..init import normal
from ..learn.data import Batch, Batches
from ..learn.layers import model_of
from ..learn.train import mean_loss, runs
from ..trace import Trace

JUDGED = 2000  # examples that are judged while training, where a task draws as many as one likes
TEST = 2560  # and at the end: the test sets of Hochreiter and Schmidhuber 1997
TOGETHER = 500  # of them at a time

Draw = Callable[..., Batch]  # (rng, count, **numbers) -> Batch


@dataclass(frozen=True)
class Data:
    """What is learnt from, what is judged while training, what is judged at the end; and the size of y.

    in_units: from the mean loss to what is measured, in the data's own units.
    """

    train: Batches
    valid: Batches
    test: Batches
    outputs: int
    in_units: Callable[[float], float] = float


@dataclass(frozen=True)
class Task:
    """A task of the literature.

    source: paper and section. definition: what an example is, and when training ends. text: the model, which calls the
    cell in a line `h[t] = cell(x=...)` and ends with a loss; none where the cell is to bring its own. data: (batch,
    length, seed, **numbers) -> Data. numbers: what the definition leaves open, T for instance, each with its default.
    wrong: of a trace and its batch, a number
    for each example (0, right; 1, wrong), where not the loss is measured. goal: what is to be reached while training.
    baselines: by name, what a trivial predictor reaches, as a function of the numbers. published: who reached what,
    and where it is printed. settings: those of learn.session that differ from its defaults. recalled: what of the
    definition and of what is published comes from memory, unchecked against the source's own text.
    """

    source: str
    definition: str
    text: str | None
    data: Callable[..., Data]
    measure: str
    numbers: dict[str, Any] = field(default_factory=dict)
    wrong: Callable[[Trace, Batch], np.ndarray] | None = None
    goal: float | None = None
    baselines: dict[str, Callable[..., float]] = field(default_factory=dict)
    published: dict[str, str] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)
    recalled: str = ""

    def model(self, cell: Cell, layers: int = 1, dropout: float = 0.0) -> Cell:
        """The cell between the task's inputs and its loss; a cell that has a loss is a model itself."""
        if cell.loss is not None:
            if layers != 1 or dropout:
                raise CellError(f"{cell!r} is a whole model: no layers or dropout are put around it.",
                                remedy="Change its own equations, with `substitute`.")
            return cell
        if self.text is None:
            raise CellError(f"{cell!r} has no loss, and this task wants a whole model.",
                            remedy="Give one that ends with its loss, from the inputs of the task.")
        model = model_of(self.text, cell, layers, dropout, cell.name)
        return model.initialised(E=normal(1.0)) if "E" in model.parameters else model

    def measured(self, model: Cell | Program, params: Mapping[str, np.ndarray], data: Data, of: Batches) -> float:
        """The share of wrong examples, or the mean loss in the data's units."""
        if self.wrong is None:
            return float(data.in_units(mean_loss(model, params, of)))
        return float(np.mean(np.concatenate([self.wrong(trace, batch) for batch, trace in runs(model, params, of)])))


class Tasks(Mapping):
    """Name -> Task."""

    def __init__(self, *families: Mapping[str, Task]):
        self._rows = {name: row for family in families for name, row in family.items()}

    def __getitem__(self, name: str) -> Task:
        return self._rows[name]

    def __iter__(self):
        return iter(self._rows)

    def __len__(self) -> int:
        return len(self._rows)

    def named(self, name: str) -> Task:
        """The task of this name; where there is none, a CellError says which there are."""
        if name not in self._rows:
            raise CellError(f"There is no task `{name[:40]}`.", remedy="There are: " + ", ".join(self._rows) + ".")
        return self._rows[name]


def fresh(draw: Draw, outputs: int | Callable[..., int], judged: int = JUDGED, test: int = TEST
          ) -> Callable[..., Data]:
    """Data that is drawn anew for each step; what is judged is drawn once.

    >>> from .arithmetic import adding
    >>> data = fresh(adding, 1)(batch=3, length=0, seed=0, T=10)
    >>> data.train(5).inputs["x"].shape, data.train.count, data.valid.count
    ((10, 3, 2), 1, 4)
    """
    def data(batch: int, length: int, seed: int, **numbers) -> Data:
        def batches(which: int, count: int, size: int) -> Batches:
            return Batches(count, lambda step: draw(np.random.default_rng((seed, which, step)), size, **numbers))

        valid, final = (batches(which, -(-total // TOGETHER), min(total, TOGETHER))
                        for which, total in ((1, judged), (2, test)))
        return Data(batches(0, 1, batch), valid, final, outputs(**numbers) if callable(outputs) else outputs)

    return data


def off_by(margin: float) -> Callable[[Trace, Batch], np.ndarray]:
    """An example is wrong where any of its outputs is `margin` or more from its goal."""
    return lambda trace, batch: (np.abs(trace["y"] - batch.inputs["goal"]) >= margin).any(axis=-1).astype(float)


def one_hot(symbols: np.ndarray, count: int) -> np.ndarray:
    """Symbols 0, 1, ... as unit vectors, along a new last axis; below 0, zeros.

    >>> one_hot(np.array([1, -1]), 3)
    array([[0., 1., 0.],
           [0., 0., 0.]])
    """
    return (symbols[..., None] == np.arange(count)).astype(float)
