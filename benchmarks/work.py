"""One piece of work: a cell, its sizes, a number type; what is given to every system, and how results are compared."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from cells import LAYERS, cell

from autograd_rnn import zoo

SEED = 0
TOLERANCE = {"float32": 1e-4, "float64": 1e-10}


class Work(NamedTuple):
    """Forward and backward of sum(h) over every step: gradients of all parameters and of the inputs."""

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
    """Dimension -> its size."""
    c = cell(work.cell)
    return {d: LAYERS if d in c.system.model else work.I if "x" in names else work.H for d, names in c.dims.items()}


def shapes(work: Work) -> dict[str, tuple[int, ...]]:
    """Of parameters and constants, a layer's in front."""
    c, sizes = cell(work.cell), lengths(work)
    return {name: tuple(sizes[d] for d in (*c.system.axes[name], *c.shapes[name]))
            for name in (*c.parameters, *c.system.having("const"))}


def data(work: Work) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """(parameters and constants by name, inputs): the same in every process."""
    c, rng = cell(work.cell), np.random.default_rng(SEED)
    params = {name: rng.uniform(-1, 1, shape) / work.H**0.5 for name, shape in shapes(work).items()}
    constants = zoo[work.cell].init(**lengths(work)) if c.constants else {}
    params |= {name: constants[name] for name in c.constants}
    X = rng.standard_normal((work.T, work.B, work.I))
    return {name: p.astype(work.dtype) for name, p in params.items()}, X.astype(work.dtype)


def floating(work: Work) -> int:
    """Floating point operations of the matrix products: forward, what arrives below, and the weight's gradient."""
    c = cell(work.cell)
    matrices = [(name, np.prod(shape)) for name, shape in shapes(work).items() if len(c.shapes[name]) == 2]
    return int(sum((6 if name in c.parameters else 4) * work.B * work.T * size for name, size in matrices))


def handed(work: Work) -> float:
    """Megabytes of what is given beside parameters and inputs, the cotangent of h, and of the gradients."""
    rows = [(work.T, work.B, work.I), (work.T, work.B, work.H)]
    sizes = [np.prod(shape) for shape in (*shapes(work).values(), *rows)]
    return float(sum(sizes)) * np.dtype(work.dtype).itemsize / 2**20


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
