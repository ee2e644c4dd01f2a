"""One piece of work: a cell, its sizes, a number type; what is given to every system, and how results are compared."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from cells import LAYERS, cell, output

from autograd_rnn import zoo

SEED = 0
TOLERANCE = {"float32": 1e-4, "float64": 1e-10}


class Work(NamedTuple):
    """Forward and backward of sum(h) over every step, or of the cell's loss: gradients of all parameters and of the
    inputs."""

    cell: str
    B: int
    T: int
    I: int
    H: int
    dtype: str = "float32"

    @property
    def sizes(self) -> str:
        return f"{self.B} {self.T} {self.I} {self.H}" + (" float64" if self.dtype == "float64" else "")

    def __str__(self):
        return f"{self.cell} {self.sizes}"


def lengths(work: Work) -> dict[str, int]:
    """Dimension -> its size. There are as many classes as inputs."""
    c = cell(work.cell)
    given = {"x", *c.system.classes}
    wide = {d: LAYERS if d in c.system.model else work.H if given.isdisjoint(names) else work.I
            for d, names in c.dims.items()}
    return c.system.sizes({d: size for d, size in wide.items() if d not in dict(c.system.inferred.sums)})


def shapes(work: Work) -> dict[str, tuple[int, ...]]:
    """Of parameters and constants, a layer's in front."""
    c, sizes = cell(work.cell), lengths(work)
    return {name: tuple(sizes[d] for d in (*c.system.axes[name], *c.shapes[name]))
            for name in (*c.parameters, *c.system.having("const"))}


def rows(work: Work, name: str) -> tuple[int, ...]:
    """The shape of an input or output of a step."""
    c, sizes = cell(work.cell), lengths(work)
    lead = tuple(sizes[i] if i in c.system.model else work.T for i in c.system.axes[name])
    return (*lead, work.B, *(sizes[d] for d in c.shapes[name]))


def data(work: Work) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """(parameters and constants, inputs) by name: the same in every process."""
    c, rng = cell(work.cell), np.random.default_rng(SEED)
    params = {name: rng.uniform(-1, 1, shape) / work.H**0.5 for name, shape in shapes(work).items()}
    constants = zoo[work.cell].init(**lengths(work)) if c.constants else {}
    params |= {name: constants[name] for name in c.constants}
    inputs = {n: rng.integers(work.I, size=rows(work, n)) if n in c.system.classes
              else rng.standard_normal(rows(work, n)).astype(work.dtype) for n in c.inputs}
    return {name: p.astype(work.dtype) for name, p in params.items()}, inputs


def floating(work: Work) -> int:
    """Floating point operations of the matrix products: forward, what arrives below, and the weight's gradient."""
    c = cell(work.cell)
    matrices = [(name, np.prod(shape)) for name, shape in shapes(work).items() if len(c.shapes[name]) == 2]
    return int(sum((6 if name in c.parameters else 4) * work.B * work.T * size for name, size in matrices))


def handed(work: Work) -> float:
    """Megabytes of what is given beside parameters and inputs, the cotangent of h, and of the gradients."""
    outside = (rows(work, name) for name in (*cell(work.cell).inputs, output(work.cell)))
    return sum(float(np.prod(shape)) for shape in (*shapes(work).values(), *outside)) * np.dtype(
        work.dtype).itemsize / 2**20


def apart(found: dict[str, np.ndarray], truth: dict[str, np.ndarray]) -> float:
    """The largest difference in any array, over that array's largest entry; infinite where one is missing."""
    if missing := truth.keys() - found.keys():
        print("missing:", *sorted(missing))
        return float("inf")
    errors = [0.0]
    for name, exact in truth.items():
        if np.shape(found[name]) != exact.shape or not np.isfinite(found[name]).all():
            return float("inf")
        scale = float(np.max(np.abs(exact), initial=0)) or 1.0
        errors.append(float(np.max(np.abs(found[name] - exact), initial=0)) / scale)
    return max(errors)
