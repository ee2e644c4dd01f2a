"""Files that are written whole or not at all; what a killed process left behind is removed by the next one.

    bytes -> a file beside the path -> the path
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from secrets import token_hex

try:
    import fcntl
except ImportError:  # Windows has no such locks: there nothing is removed
    fcntl = None  # type: ignore[assignment]


def written(path: str | Path, content: bytes) -> None:
    """At every moment the path holds the old content or the new.

    Raises OSError where the file cannot be written; the old content stays. What is no regular file (a pipe, a
    terminal) is written to as it is, and a link goes on pointing to its file.
    """
    path = Path(path)
    if path.exists() and not path.is_file():
        path.write_bytes(content)
        return
    path = Path(os.path.realpath(path))
    _remove_abandoned(path)
    with _claimed(path) as part:
        try:
            with open(part, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            with suppress(OSError):  # a first file has no mode to keep
                shutil.copymode(path, part)
            os.replace(part, path)
        except BaseException:
            part.unlink(missing_ok=True)
            raise


@contextmanager
def _claimed(path: Path) -> Iterator[Path]:
    """A new file beside the path, locked while it is in use: the system itself gives up the locks of the dead."""
    while True:
        part = path.with_name(f"{path.name}.{token_hex(4)}.part")
        if not fcntl:
            yield part
            return
        with open(part, "xb") as lock:
            with suppress(OSError):  # a file system without locks, where nobody can take the file for abandoned
                fcntl.flock(lock, fcntl.LOCK_EX)
            if part.exists():  # else it was taken for abandoned before it was locked
                yield part
                return


def _remove_abandoned(path: Path) -> None:
    """Files that were to become this one and that no living process holds."""
    if not fcntl:
        return
    name = re.compile(re.escape(path.name) + r"\.[0-9a-f]{8}\.part")
    with suppress(OSError):
        for part in path.parent.iterdir():
            if name.fullmatch(part.name):
                with suppress(OSError), open(part, "r+b") as file:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    part.unlink()
