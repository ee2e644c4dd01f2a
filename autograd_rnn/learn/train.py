"""Training: from a Point to the next, through a generator of Points, to a fit with validation and early stopping.

Point, Batch -> Point. A Point holds all that training has become, so it can be saved, and a run that goes on from it
gives the same bits as one that was never interrupted. The loss and its gradient are divided by the number of targets.

What is trained may be a Cell or a Program. A Cell is compiled: its gradient will be taken thousands of times, whatever
the work of one. A Program is a Cell compiled otherwise, with another number of threads, say.
"""

from __future__ import annotations

import reprlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from numbers import Integral, Real

import numpy as np

from ..arrays import inside
from ..bind import bind, whole
from ..cell import Cell
from ..compile.program import Program
from ..equations import System
from ..errors import CellError
from ..trace import Trace
from .data import Batch, Batches
from .optimisers import Arrays, Optimiser, State, clip_norm
from .schedules import Schedule


@dataclass(frozen=True)
class Point:
    """Where training stands after `step` steps.

    params: by name. state: the optimiser's. carried: the cell's, into the next stretch. seed: of the noise, drawn anew
    for each step from (seed, step). loss, norm, rate: per target, of the gradient before clipping, and of the learning,
    in the step that led here. history: (step, validation loss); best: the parameters of the lowest. optimiser: the name
    of the one whose state this is.
    """

    params: Arrays
    state: State = field(default_factory=dict)
    carried: dict | None = None
    step: int = 0
    seed: int = 0
    loss: float = float("nan")
    norm: float = float("nan")
    rate: float = float("nan")
    history: tuple[tuple[int, float], ...] = ()
    best: Arrays | None = None
    optimiser: str | None = None


def program_of(cell: Cell | Program) -> Program:
    """What is trained, compiled."""
    return cell.compile() if isinstance(cell, Cell) else cell


def advance(cell: Cell | Program, point: Point, batch: Batch, optimiser: Optimiser, schedule: Schedule | None = None,
            clip: float | None = None) -> Point:
    """One step of truncated BPTT: gradient of the mean loss, clipped to norm `clip`, and the optimiser's update.

    Raises CellError, naming variable and step, where data, parameters, loss or gradients are not finite; naming both
    optimisers where the Point's state is another's.
    """
    if (point.state or point.optimiser) and point.optimiser != optimiser.name:
        raise CellError(f"The Point was trained with {point.optimiser or 'an optimiser that it does not name'}; it is "
                        f"to go on with {optimiser.name}, which would read the state in its own way.",
                        remedy="Go on with it, or begin the state anew: replace(point, state={}, optimiser=None).")
    step, program = point.step + 1, program_of(cell)
    try:
        initial = None if batch.fresh else point.carried
        _refuse_nan("parameter", point.params)
        _refuse_nan("input", batch.inputs, lambda name: _inside(program.system, point.params, batch, initial, name))
        value, gradients, final = program.gradient_and_final(
            point.params, initial=initial, lengths=batch.lengths, steps=batch.steps,
            noise=np.random.default_rng((point.seed, point.step)), **batch.inputs)
        mean = {name: g / batch.targets for name, g in gradients.items() if name in point.params}
        clipped, norm = clip_norm(mean, np.inf if clip is None else clip)
        rate = optimiser.rate if schedule is None else schedule(point.step)
        params, state = optimiser.update(point.params, clipped, point.state, rate)
        _refuse_nan("updated parameter", params)
    except CellError as e:
        raise CellError(f"Training stopped at step {step}. {e.fact}", e.line, e.number, e.column, e.remedy) from e
    return replace(point, params=params, state=state, carried=final, step=step, loss=float(value) / batch.targets,
                   norm=norm, rate=rate, optimiser=optimiser.name)


def train(cell: Cell | Program, start: Point | Mapping[str, np.ndarray], batches: Batches, steps: int,
          optimiser: Optimiser, schedule: Schedule | None = None, clip: float | None = None) -> Iterator[Point]:
    """The Points after each step, from `start` (a Point, or parameters) until `steps` steps are done in all.

    >>> from .optimisers import sgd
    >>> cell = Cell("y[t] = w * x[t]\\nL = sum_t((y[t] - 2 * x[t])**2)\\nx: input()\\nw: ()")
    >>> one = Batches(1, lambda step: Batch({"x": np.array([1.0])}, targets=1))
    >>> [round(float(p.params["w"]), 3) for p in train(cell, {"w": np.array(0.0)}, one, 3, sgd(0.25))]
    [1.0, 1.5, 1.75]
    """
    _refuse_unfit(start=start, batches=batches, steps=steps, optimiser=optimiser, schedule=schedule, clip=clip)
    point, program = start if isinstance(start, Point) else Point(dict(start)), program_of(cell)
    while point.step < steps:
        point = advance(program, point, batches(point.step), optimiser, schedule, clip)
        yield point


def fit(cell: Cell | Program, start: Point | Mapping[str, np.ndarray], batches: Batches, steps: int,
        optimiser: Optimiser, schedule: Schedule | None = None, clip: float | None = None,
        validate: Callable[[Arrays], float] | None = None, every: int = 100, patience: int | None = None,
        report: Callable[[Point], object] | None = None, keep: Callable[[Point], object] | None = None,
        goal: float | None = None) -> Point:
    """Train, validating after `every` steps and at the end; returns the last Point.

    patience: stop after so many validations without a new lowest loss. goal: stop at a validation loss of that or less.
    report: called with the Point of each step.
    keep: called where the Point is worth saving: after each validation (or `every` steps), at the end, when
    interrupted, and, if training diverges, with the last Point that gave a finite loss, before the error is raised.
    """
    _refuse_unfit(start=start, batches=batches, steps=steps, optimiser=optimiser, schedule=schedule, clip=clip,
                  validate=validate, every=every, patience=patience, goal=goal)
    good = point = start if isinstance(start, Point) else Point(dict(start))
    points = train(cell, point, batches, steps, optimiser, schedule, clip)
    try:
        while not over([loss for _, loss in point.history], patience, goal):
            try:
                following = next(points, None)
            except CellError:
                if keep:
                    keep(good)
                raise
            if following is None:
                break
            following = replace(following, history=point.history, best=point.best)
            due = following.step % every == 0 or following.step == steps
            if due and validate:
                loss = float(validate(following.params))
                best = following.params if loss < min((v for _, v in point.history), default=np.inf) else point.best
                following = replace(following, history=(*point.history, (following.step, loss)), best=best)
            good, point = point, following  # a step counts when it has been judged: else it is done again
            if report:
                report(point)
            if due and keep:
                keep(point)
    except KeyboardInterrupt:
        if keep:
            keep(point)
        raise
    return point


def over(losses: list[float], patience: int | None, goal: float | None) -> bool:
    """Whether the validations so far end training, by patience or by reaching the goal."""
    if goal is not None and losses and losses[-1] <= goal:
        return True
    return patience is not None and stalled(losses, patience)


def stalled(losses: list[float], patience: int) -> bool:
    """Whether the last `patience` losses are all no lower than the lowest before them.

    >>> stalled([3.0, 2.0, 2.1, 2.0], 2), stalled([3.0, 2.0, 2.1, 1.9], 2)
    (True, False)
    """
    return len(losses) > patience and min(losses[-patience:]) >= min(losses[:-patience])


def mean_loss(cell: Cell | Program, params: Mapping[str, np.ndarray], batches: Batches) -> float:
    """The loss per target over one epoch of `batches`, state carried from stretch to stretch, noise as in `runs`."""
    if cell.loss is None:
        raise CellError("The cell has no loss equation.", remedy="Add one, like `L = sum_t(sum(h[t]**2))`.")
    total, targets = 0.0, 0
    for batch, trace in runs(cell, params, batches):
        total += float(np.sum(trace[cell.loss], dtype=np.float64))
        targets += batch.targets
    return total / targets


def runs(cell: Cell | Program, params: Mapping[str, np.ndarray], batches: Batches) -> Iterator[tuple[Batch, Trace]]:
    """Each batch of an epoch with its trace, state carried from stretch to stretch, noise at its mean or as it says."""
    _refuse_unfit(batches=batches)
    program, carried = program_of(cell), None
    for n in range(batches.count):
        batch = batches(n)
        trace = program.forward(params, initial=None if batch.fresh else carried, lengths=batch.lengths,
                                steps=batch.steps, noise="mean" if batch.noise is None else batch.noise,
                                **batch.inputs)
        carried = trace.final
        yield batch, trace


WANTED: dict[str, tuple[Callable[[object], bool], str]] = {
    "start": (lambda v: isinstance(v, (Point, Mapping)), "a Point, or parameters by name"),
    "batches": (lambda v: isinstance(v, Batches), "Batches, like those of `stretches` or `shuffled`"),
    "steps": (lambda v: isinstance(v, Integral), "a whole number: the steps in all"),
    "optimiser": (lambda v: isinstance(v, Optimiser), "an optimiser, like `adam(1e-3)`"),
    "schedule": (lambda v: v is None or callable(v), "a function of the step, like `cosine(1e-3, steps)`"),
    "clip": (lambda v: v is None or isinstance(v, Real), "a positive number, or None"),
    "validate": (lambda v: v is None or callable(v), "a function of the parameters, like "
                 "`lambda params: mean_loss(cell, params, held_out)`"),
    "every": (lambda v: bool(whole(v)), "a whole number from 1"),
    "goal": (lambda v: v is None or isinstance(v, Real), "a number, or None"),
    "patience": (lambda v: v is None or bool(whole(v)), "a whole number from 1, or None"),
}


def _refuse_unfit(**given) -> None:
    """Arguments of the wrong kind, by name, before anything is trained."""
    for name, value in given.items():
        fits, wanted = WANTED[name]
        if not fits(value):
            raise CellError(f"`{name}` is {reprlib.repr(value)}.", remedy=f"Give {wanted}.")


def _inside(system: System, params: Arrays, batch: Batch, initial: Mapping | None, name: str) -> np.ndarray | bool:
    """Where an input lies inside every example."""
    bound = bind(system, params, batch.inputs, initial, batch.lengths, batch.steps, noise="mean")
    axes = system.axes[name]
    mask = inside(axes, len(system.shapes[name]), bound.given)
    return True if mask is None else mask if bound.batched else mask.take(0, axis=len(axes))


def _refuse_nan(what: str, arrays: Mapping[str, np.ndarray],
                within: Callable[[str], np.ndarray | bool] = lambda name: True) -> None:
    """What is not finite is named, with its place; padding past an example's end may hold anything."""
    for name, array in arrays.items():
        array = np.asarray(array)
        if array.dtype.kind not in "fc" or np.isfinite(array).all():
            continue
        bad = ~np.isfinite(array) & within(name)
        if bad.any():
            where = ", ".join(map(str, np.argwhere(bad)[0]))
            raise CellError(f"The {what} `{name}` is not finite{f' at [{where}]' if where else ''}.",
                            remedy="Lower the learning rate, or clip the gradients." if what.startswith("updated")
                            else "Nothing can be learnt from it: repair it first.")
