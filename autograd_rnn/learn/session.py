"""A whole session of character training: settings in; model, progress, log, checkpoints and a sample out.

The command line and a notebook start the same session. Results are returned; progress goes to stderr.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field, fields
from numbers import Integral, Real
from pathlib import Path

import numpy as np

from ..cell import Cell
from ..errors import CellError
from .charlm import character_batches, character_model, character_sizes, sample
from .optimisers import Optimiser, adam, adamw, rmsprop, sgd
from .schedules import Schedule, constant, cosine, exponential, stepwise
from .store import load_point, save_point
from .text import Text, encode, ngram_floors
from .train import Point, fit, mean_loss

OPTIMISERS: dict[str, tuple[Callable[[float], Optimiser], float]] = {  # with the rate that is used where none is given
    "adam": (adam, 1e-2),
    "adamw": (adamw, 1e-2),
    "rmsprop": (rmsprop, 2e-3),
    "sgd": (lambda rate: sgd(rate, momentum=0.9), 0.5),
    "sgd_plain": (sgd, 0.5),
}
SCHEDULES: dict[str, Callable[[float, int], Schedule]] = {  # of a rate and the number of steps
    "constant": lambda rate, steps: constant(rate),
    "stepwise": lambda rate, steps: stepwise(rate, max(1, steps // 4), 0.5),
    "exponential": lambda rate, steps: exponential(rate, steps, 0.05),
    "cosine": lambda rate, steps: cosine(rate, steps, warmup=min(20, steps // 10)),
}
GLANCE = 5000  # characters of the validation text that are looked at while training; at the end, all are
STRETCH = 1000  # characters of a validation stream that are run at a time


FIXED = ("layers", "size", "embedding", "dropout", "dtype", "optimiser")  # what training that was begun cannot change


def _setting(default, help: str, choices=None, least=0):
    return field(default=default, metadata={"help": help, "choices": choices, "least": least})


@dataclass(frozen=True)
class Settings:
    """What a session can be told, each with its default."""

    layers: int = _setting(1, "layers of the cell", least=1)
    size: int = _setting(128, "hidden size of each layer", least=1)
    embedding: int = _setting(32, "size of the characters' vectors", least=1)
    dropout: float = _setting(0.0, "share of each layer's output that the next one does not see")
    batch: int = _setting(32, "streams side by side", least=1)
    length: int = _setting(64, "steps of a stretch: how far gradients reach back", least=1)
    steps: int = _setting(2000, "steps of training in all")
    epochs: float = _setting(0.0, "passes over the text in all, in place of steps")
    optimiser: str = _setting("adam", "the optimiser; sgd has momentum 0.9, sgd_plain none", tuple(OPTIMISERS))
    lr: float = _setting(0.0, "learning rate; 0: the optimiser's own, " + ", ".join(
        f"{name} {rate:g}" for name, (_, rate) in OPTIMISERS.items()))
    schedule: str = _setting("cosine", "the learning rate's course", tuple(SCHEDULES))
    clip: float = _setting(1.0, "largest norm of the gradient of the mean loss; 0: no clipping")
    every: int = _setting(200, "steps between validations and checkpoints", least=1)
    patience: int = _setting(0, "validations without a new lowest loss after which training stops; 0: never")
    seed: int = _setting(0, "of parameters, dropout and samples")
    dtype: str = _setting("float32", "of all numbers", ("float32", "float64"))

    def __post_init__(self):
        for f in fields(self):
            value, choices, least = getattr(self, f.name), f.metadata["choices"], f.metadata["least"]
            if choices and value not in choices:
                raise CellError(f"The setting `{f.name}` is {value!r}.", remedy=f"It is one of {', '.join(choices)}.")
            kind = Integral if f.type == "int" else Real
            if not choices and not (isinstance(value, kind) and least <= value < float("inf")):
                wanted = "whole number" if kind is Integral else "number"
                raise CellError(f"The setting `{f.name}` is {value!r}.", remedy=f"Give a {wanted} from {least}.")


@dataclass(frozen=True)
class Result:
    """A trained model, its losses in nats per character, and the floors of the same text.

    params: those of the lowest validation loss. validation: over the whole validation text, as one stream.
    """

    model: Cell
    params: dict[str, np.ndarray]
    alphabet: str
    point: Point
    validation: float
    unigram: float
    bigram: float

    def __str__(self):
        def against(name, floor):
            return f"{name} floor  {floor:.4f}  {'passed' if self.validation < floor else 'NOT passed'}"

        return "\n".join([f"validation     {self.validation:.4f} nats per character after {self.point.step} steps, over"
                          " the whole validation text",
                          against("unigram", self.unigram), against("bigram ", self.bigram)])


def begin(cell: Cell, text: str, settings: Settings) -> tuple[Cell, Point, Text]:
    """A model around the cell (or the cell itself, where it has a loss), and its first Point."""
    model = cell if cell.loss else character_model(cell, settings.layers, settings.dropout)
    data = encode(text)
    sizes = character_sizes(model, data.alphabet, settings.size, settings.embedding)
    params = model.init(seed=settings.seed, dtype=np.dtype(settings.dtype), **sizes)
    return model, Point(params, seed=settings.seed), data


def resume(path: str | Path, text: str) -> tuple[Cell, Point, Text, dict]:
    """(model, point, data, settings) of a checkpoint; the text must keep to the model's alphabet."""
    model, point, about = load_point(path)
    alphabet, settings = about.get("alphabet"), about.get("settings")
    if not isinstance(alphabet, str) or not isinstance(settings, dict) or set(settings) != {
            f.name for f in fields(Settings)}:
        raise CellError(f"The file `{path}` holds no character model with its settings.",
                        remedy="Go on from a file that `train --save` has written.")
    return model, point, encode(text, alphabet), settings


def characters(model: Cell, start: Point, data: Text, settings: Settings, log: str | Path | None = None,
               save: str | Path | None = None, progress: bool = True) -> Result:
    """Train a character model from `start`, and judge it.

    log: a file that gets one JSON line for each step. save: a checkpoint, written now, after each validation, at the
    end, and before an error is raised because training diverged. progress: a line for each
    validation to stderr, and on a terminal a bar (with tqdm).
    """
    batches = character_batches(model, data.train, settings.batch, settings.length)
    steps = max(1, round(settings.epochs * batches.count)) if settings.epochs else settings.steps
    make, rate = OPTIMISERS[settings.optimiser]
    rate = settings.lr or rate
    about = {"alphabet": data.alphabet, "settings": asdict(settings)}
    glance = character_batches(model, data.validation[:GLANCE], 1, STRETCH)
    part = f" (its first {GLANCE:,} characters)" * (len(data.validation) > GLANCE)
    began = time.monotonic()

    def keep(point: Point) -> None:
        if save:
            save_point(save, model, point, about)

    keep(start)
    with bar_of(steps, start.step, "step", progress) as bar, _lines(log) as lines:
        def report(point: Point) -> None:
            judged = point.history[-1][1] if point.history and point.history[-1][0] == point.step else None
            if lines:
                facts = {"step": point.step, "loss": point.loss, "norm": point.norm, "rate": point.rate,
                         "seconds": round(time.monotonic() - began, 3)}
                lines.write(json.dumps(facts if judged is None else {**facts, "validation": judged}) + "\n")
                lines.flush()
            if bar is not None:
                bar.update()
                bar.set_postfix(loss=f"{point.loss:.3f}", refresh=False)
            if progress and judged is not None:
                line = f"step {point.step:>6}  loss {point.loss:.4f}  validation {judged:.4f}{part}"
                print(line, file=sys.stderr) if bar is None else bar.write(line, file=sys.stderr)

        point = fit(model, start, batches, steps, make(rate), SCHEDULES[settings.schedule](rate, steps),
                    settings.clip or None, lambda params: mean_loss(model, params, glance), settings.every,
                    settings.patience or None, report, keep)
    params = point.best or point.params
    whole = mean_loss(model, params, character_batches(model, data.validation, 1, STRETCH))
    return Result(model, params, data.alphabet, point, whole, *ngram_floors(data))


def excerpt(result: Result, length: int = 300, temperature: float = 0.8) -> str:
    """A text drawn from the trained model."""
    prompt = "\n" if "\n" in result.alphabet else ""  # a line begins; nothing before it is rare in training
    return sample(result.model, result.params, result.alphabet, length, temperature, result.point.seed, prompt)


def merged(saved: dict, given: dict) -> Settings:
    """Settings of a resumed session: what is given now, else what was saved."""
    for name in FIXED:
        if given.get(name, saved[name]) != saved[name]:
            raise CellError(f"The saved model has {name} {saved[name]}, not {given[name]}.",
                            remedy="Go on with what was begun, or begin another.")
    return Settings(**{**saved, **given})


def _lines(path):
    """A file to append lines to, each of them in one write; half a line that a killed session left is ended first."""
    if not path:
        return nullcontext()
    if Path(path).is_file() and Path(path).stat().st_size:
        with open(path, "r+b") as file:
            file.seek(-1, os.SEEK_END)
            if file.read() != b"\n":
                file.write(b"\n")
    return open(path, "a", encoding="utf-8")


def bar_of(total: int, done: int, unit: str, shown: bool = True):
    """tqdm's bar on a terminal; None elsewhere, and without tqdm: there the lines that are printed are the progress."""
    try:
        from tqdm import tqdm
    except ImportError:
        return nullcontext()
    shown = shown and sys.stderr.isatty()
    return tqdm(total=total, initial=done, unit=unit, file=sys.stderr) if shown else nullcontext()
