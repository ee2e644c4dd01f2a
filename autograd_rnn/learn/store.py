"""Parameters and checkpoints in npz files without pickle: the cell's text travels with its arrays.

Cell, Point -> file -> Cell, Point. A file ends with its version and the digest of all that stands before, so that what
is not as it was written is refused; it is written whole or not at all (`atomic.py`).
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import fields
from hashlib import sha256
from io import BytesIO
from numbers import Integral, Real
from pathlib import Path
from typing import Any
from zipfile import ZIP_STORED, ZipFile

import numpy as np

from ..atomic import written
from ..bind import numbers, whole
from ..cell import Cell
from ..errors import CellError
from ..graph import Primitive
from ..printing.text import system_text
from .train import Point

VERSION = 2
SEAL = re.compile(rb"autograd_rnn (\d+) sha256 ([0-9a-f]{64})\Z")  # a file's last bytes, to zip a comment
FACTS: dict[str, Callable[[Any], bool]] = {  # of a Point, as JSON: what is no array
    "step": lambda v: whole(v) is not None,
    "seed": lambda v: whole(v) is not None,
    "loss": lambda v: isinstance(v, Real),
    "norm": lambda v: isinstance(v, Real),
    "rate": lambda v: isinstance(v, Real),
    "history": lambda v: all(whole(step) is not None and isinstance(loss, Real) for step, loss in v),
    "optimiser": lambda v: v is None or isinstance(v, str),
    "offsets": lambda v: v is None or all(whole(count) is not None for count in v.values()),
    "about": lambda v: isinstance(v, dict),
}


def save(path: str | Path, cell: Cell, params: Mapping[str, np.ndarray]) -> None:
    """A cell and its parameters; `numpy.load` reads the file too, as "params/W" and so on.

    The text is that of the whole system, called cells included. What is saved is the model as it stands: rules of
    `initialised` only say how one begins, are functions, and are not saved; training that goes on needs none. To begin
    anew with them, make the cell anew. Raises OSError where the file cannot be written.
    """
    _write(path, cell, {"params": params})


def load(path: str | Path, **primitives: Primitive) -> tuple[Cell, dict[str, np.ndarray]]:
    """(cell, params) from a file of `save`, or of `save_point`: then the best validated parameters, else the last.

    primitives: those of your own that the text calls. The cell's `init` has the usual rules, see `save`. Raises
    CellError for a file that is not as it was written.
    """
    with _read(path) as arrays:
        return _cell_of(arrays, primitives), _under("best", arrays) or _under("params", arrays)


def save_point(path: str | Path, cell: Cell, point: Point, about: Mapping | None = None) -> None:
    """A checkpoint: everything `train` needs to go on. about: facts of your own that JSON can hold."""
    offsets = {k: v for k, v in (point.carried or {}).items() if isinstance(v, Integral)}
    facts = {f.name: getattr(point, f.name) for f in fields(point) if f.name in FACTS}
    facts |= {"offsets": None if point.carried is None else offsets, "about": about or {}}
    _refuse_unfit(facts)
    try:
        told = json.dumps(facts, default=lambda v: v.item() if isinstance(v, np.generic) else _no_json(v))
    except (TypeError, ValueError, RecursionError) as e:
        raise CellError(f"What is told about a Point cannot be saved: {e}.",
                        remedy="`about` takes what JSON holds: texts, numbers, lists, dicts with texts as keys.") from e
    _write(path, cell, {
        "params": point.params, "best": point.best or {},
        "carried": {k: v for k, v in (point.carried or {}).items() if k not in offsets},
        **{f"state/{name}": slots for name, slots in point.state.items()}}, point=told)


def load_point(path: str | Path, **primitives: Primitive) -> tuple[Cell, Point, dict]:
    """(cell, point, about) from a file of `save_point`. Raises CellError for a file that is not as it was written."""
    with _read(path) as arrays:
        if "point" not in arrays:
            raise CellError("It holds parameters, but not where training stood.",
                            remedy="Go on from a file written while training.")
        facts = json.loads(_text(arrays, "point"))
        _refuse_unfit(facts)
        about, offsets = facts.pop("about"), facts.pop("offsets")
        state: dict[str, dict[str, np.ndarray]] = {}
        for key, array in _under("state", arrays).items():
            name, slot = key.split("/")
            state.setdefault(name, {})[slot] = array
        point = Point(
            _under("params", arrays), state, None if offsets is None else {**_under("carried", arrays), **offsets},
            **{**facts, "history": tuple((n, float(v)) for n, v in facts["history"])},
            best=_under("best", arrays) or None)
        return _cell_of(arrays, primitives), point, about


def _refuse_unfit(facts: Mapping[str, Any]) -> None:
    for name, fits in FACTS.items():
        if not fits(facts[name]):
            raise CellError(f"The Point's `{name}` is {facts[name]!r:.60}.")


def _no_json(value):
    raise TypeError(f"a {type(value).__name__}")


def _cell_of(arrays: Mapping[str, np.ndarray], primitives: Mapping[str, Primitive]) -> Cell:
    return Cell(_text(arrays, "cell"), _text(arrays, "name") or None, **primitives)


def _text(arrays: Mapping[str, np.ndarray], name: str) -> str:
    if arrays[name].dtype.kind != "U" or arrays[name].shape:
        raise CellError(f"Its `{name}` is no text.")
    return str(arrays[name])


def _under(prefix: str, arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The arrays of a group by their names in it."""
    found = {key[len(prefix) + 1:]: array for key, array in arrays.items() if key.startswith(prefix + "/")}
    for name, array in found.items():
        _refuse_strange(name, array)
    return found


def _refuse_strange(name: str, array: np.ndarray | None) -> None:
    """What is trained is real: such arrays are neither written nor read otherwise."""
    if array is None or array.dtype.kind not in "biuf":
        raise CellError(f"`{name}` holds {'no numbers' if array is None else f'{array.dtype}'}, not real numbers.",
                        remedy="Give arrays of floats or whole numbers.")


def _write(path: str | Path, cell: Cell, groups: Mapping[str, Mapping[str, Any]], **texts: str) -> None:
    """Arrays by group and name, stored and not compressed, and at the end the digest of all that stands before it."""
    told = {"cell": system_text(cell.system), "name": cell.name or "", **texts}
    arrays: dict[str, Any] = {name: np.array(text) for name, text in told.items()}
    for group, given in groups.items():
        for name, value in given.items():
            array = numbers(value)
            _refuse_strange(name, array)
            arrays[f"{group}/{name}"] = array
    buffer = BytesIO()
    np.savez(buffer, **arrays)
    with ZipFile(buffer, "a") as file:
        file.comment = b"autograd_rnn %d sha256 %064d" % (VERSION, 0)
    content = buffer.getvalue()[:-64]
    written(path, content + sha256(content).hexdigest().encode())


@contextmanager
def _read(path: str | Path) -> Iterator[dict[str, np.ndarray]]:
    """The arrays of a file that is as it was written; what is wrong with it, or with their use, names the file.

    Nothing in it is compressed, so that reading takes three times the file's size at most, whatever it claims.
    """
    with open(path, "rb") as file:
        file.seek(max(0, file.seek(0, os.SEEK_END) - 200))
        seal = SEAL.search(file.read())
        file.seek(0)
        content = file.read() if seal else b""
    remedy = "Give one that `save` or training has written, or an older copy."
    if not seal:
        raise CellError(f"The file `{path}` does not end with a digest: it is cut short, of version 1, or not ours.",
                        remedy=remedy + " Files of version 1 have no digest; numpy.load still reads their arrays.")
    if int(seal[1]) != VERSION:
        raise CellError(f"The file `{path}` is of version {int(seal[1])}; this library reads version {VERSION}.",
                        remedy="Read it with the library that wrote it.")
    if sha256(memoryview(content)[:-64]).hexdigest().encode() != seal[2]:
        raise CellError(f"The file `{path}` is damaged: it has another digest than it says.", remedy=remedy)
    try:
        yield _arrays(content)
    except CellError as e:
        raise CellError(f"The file `{path}` cannot be used. {e.fact}", e.line, e.number, e.column, e.remedy) from e
    except Exception as e:  # digest and all can be made up, and zip, npy and JSON fail in a dozen ways
        raise CellError(f"The file `{path}` does not hold what `save` writes: {type(e).__name__}.",
                        remedy=remedy) from e


def _arrays(content: bytes) -> dict[str, np.ndarray]:
    """A zip's arrays by name, each as large as what stands in the file for it."""
    with ZipFile(BytesIO(content)) as file:
        members = file.infolist()
        if any(m.compress_type != ZIP_STORED or m.compress_size != m.file_size for m in members):
            raise CellError("Something in it is compressed.")
        if sum(m.file_size for m in members) > len(content) or len({m.filename for m in members}) < len(members):
            raise CellError("Something in it stands there twice.")
        return {m.filename.removesuffix(".npy"): _array(file.read(m)) for m in members}


def _array(content: bytes) -> np.ndarray:
    file = BytesIO(content)
    if np.lib.format.read_magic(file) != (1, 0):
        raise CellError("An array in it is of a later format.")
    shape, fortran, dtype = np.lib.format.read_array_header_1_0(file)
    flat = np.frombuffer(content, dtype, offset=file.tell())  # no more than is there, and no objects
    return flat.reshape(shape, order="F" if fortran else "C").copy(order="K")
