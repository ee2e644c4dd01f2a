"""Parameters and checkpoints in npz files without pickle: the cell's text travels with its arrays.

Cell, Point -> file -> Cell, Point. A file is written beside its place and then moved there, so that a kill at any
moment leaves either the old file or the new one.
"""

from __future__ import annotations

import errno
import json
import os
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import BinaryIO

import numpy as np

from ..cell import Cell
from ..errors import CellError
from ..graph import Primitive
from ..printing.text import system_text
from .train import Point

FORMAT = "autograd_rnn 1"


def save(path: str | Path, cell: Cell, params: Mapping[str, np.ndarray]) -> None:
    """A cell and its parameters; `numpy.load` reads the file too, as "params/W" and so on.

    The text is that of the whole system, called cells included. What is saved is the model as it stands: rules of
    `initialised` only say how one begins, are functions, and are not saved; training that goes on needs none. To begin
    anew with them, make the cell anew. Raises OSError where the file cannot be written.
    """
    _write(path, {**_cell(cell), **_flat("params", params)})


def load(path: str | Path, **primitives: Primitive) -> tuple[Cell, dict[str, np.ndarray]]:
    """(cell, params) from a file of `save`, or of `save_point`: then the best validated parameters, else the last.

    primitives: those of your own that the text calls. The cell's `init` has the usual rules, see `save`.
    """
    arrays = _read(path)
    params = _nested(arrays, "best") or _nested(arrays, "params")
    return _cell_of(arrays, primitives), params


def save_point(path: str | Path, cell: Cell, point: Point, about: Mapping | None = None) -> None:
    """A checkpoint: everything `train` needs to go on. about: facts of your own that JSON can hold."""
    numbers = {k: v for k, v in (point.carried or {}).items() if isinstance(v, int)}
    facts = {"step": point.step, "seed": point.seed, "loss": point.loss, "norm": point.norm, "rate": point.rate,
             "history": point.history, "numbers": numbers, "carries": point.carried is not None, "about": about or {}}
    arrays = {**_cell(cell), **_flat("params", point.params), **_flat("best", point.best or {}),
              **_flat("carried", {k: v for k, v in (point.carried or {}).items() if k not in numbers}),
              "point": np.array(json.dumps(facts))}
    for name, slots in point.state.items():
        arrays.update(_flat(f"state/{name}", slots))
    _write(path, arrays)


def load_point(path: str | Path, **primitives: Primitive) -> tuple[Cell, Point, dict]:
    """(cell, point, about) from a file of `save_point`."""
    arrays = _read(path)
    if "point" not in arrays:
        raise CellError(f"The file `{path}` holds parameters, but not where training stood.",
                        remedy="Go on from a file written while training.")
    facts = json.loads(str(arrays["point"]))
    state: dict[str, dict[str, np.ndarray]] = {}
    for key, array in _nested(arrays, "state").items():
        name, slot = key.split("/")
        state.setdefault(name, {})[slot] = array
    carried = {**_nested(arrays, "carried"), **facts["numbers"]} if facts["carries"] else None
    history = tuple((int(n), float(v)) for n, v in facts["history"])
    point = Point(_nested(arrays, "params"), state, carried, facts["step"], facts["seed"], facts["loss"], facts["norm"],
                  facts["rate"], history, _nested(arrays, "best") or None)
    return _cell_of(arrays, primitives), point, facts["about"]


def _cell(cell: Cell) -> dict[str, np.ndarray]:
    return {"format": np.array(FORMAT), "cell": np.array(system_text(cell.system)), "name": np.array(cell.name or "")}


def _cell_of(arrays, primitives) -> Cell:
    return Cell(str(arrays["cell"]), str(arrays["name"]) or None, **primitives)


def _flat(prefix: str, arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {f"{prefix}/{name}": np.asarray(array) for name, array in arrays.items()}


def _nested(arrays, prefix: str) -> dict[str, np.ndarray]:
    return {key[len(prefix) + 1:]: array for key, array in arrays.items() if key.startswith(prefix + "/")}


def _write(path, arrays: dict) -> None:
    written(path, lambda file: np.savez(file, **arrays))


def written(path: str | Path, write: Callable[[BinaryIO], object]) -> None:
    """A file that `write` fills, written beside its place and then moved there."""
    path = Path(path)
    if path.is_dir():
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        with open(part, "wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


def _read(path) -> dict[str, np.ndarray]:
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {key: file[key] for key in file.files}
    except (ValueError, EOFError, AttributeError, zipfile.BadZipFile) as e:
        raise CellError(f"The file `{path}` cannot be read as saved parameters.",
                        remedy="Give one that `save` or training has written.") from e
    if str(arrays.get("format")) != FORMAT or not {"cell", "name"} <= {*arrays}:
        raise CellError(f"The file `{path}` was not written by `save`.", remedy="Read it with numpy.load.")
    return arrays
