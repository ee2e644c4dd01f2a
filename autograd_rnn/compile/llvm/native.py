"""LLVM modules as machine code of this processor, kept in a folder of the user's, and the threads that run it."""

from __future__ import annotations

import ctypes
import os
import sys
from _thread import start_new_thread
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import cache
from hashlib import sha256
from pathlib import Path
from queue import SimpleQueue

import llvmlite
import llvmlite.binding as llvm

from ...atomic import written

DIGEST = 32  # bytes of a SHA-256


@cache
def _processor() -> tuple[str, str]:
    """This processor's name and features, as LLVM knows them."""
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    return llvm.get_host_cpu_name(), llvm.get_host_cpu_features().flatten()


def _target():
    """A target of this processor; an engine owns the one it is made with."""
    name, features = _processor()
    return llvm.Target.from_default_triple().create_target_machine(cpu=name, features=features, opt=3, jit=True)


@cache
def registers() -> tuple[int, int]:
    """(bytes of a vector, rows of a register block): what this processor has."""
    features = llvm.get_host_cpu_features()
    if features.get("avx512f"):
        return 64, 8
    return (32, 4) if features.get("avx2") else (16, 4)


def folder() -> Path | None:
    """Where compiled code is kept: the user's cache folder, or None where that is no absolute path."""
    if sys.platform == "win32":
        base = os.environ.get("LOCALAPPDATA") or "~/AppData/Local"
    else:
        base = os.environ.get("XDG_CACHE_HOME") or ("~/Library/Caches" if sys.platform == "darwin" else "~/.cache")
    path = Path(os.path.expanduser(base)) / "autograd_rnn"  # without a home the `~` stays
    return path if path.is_absolute() else None


class Code:
    """The functions of a module by name, each `(context, scratch, first, last)` over addresses and whole numbers.

    claim: what has been found out about this code, as a digest; zeros where nothing has.
    """

    def __init__(self, module, names: Sequence[str]):
        text = str(module)
        made_by = f"claim and code, {llvmlite.__version__} {llvm.llvm_version_info} {_processor()}"
        self._key = sha256(f"{made_by}\n{text}".encode()).hexdigest()
        self.claim, self._binary = _kept(self._key) or (bytes(DIGEST), b"")
        if not self._binary:
            self._binary = _assembled(text, _target())
            self.keep(self.claim)
        self._engine = llvm.create_mcjit_compiler(llvm.parse_assembly(""), _target())
        self._engine.add_object_file(llvm.ObjectFileRef.from_data(self._binary))
        self._engine.finalize_object()
        kind = ctypes.CFUNCTYPE(None, *[ctypes.c_int64] * 4)  # a foreign call gives the interpreter's lock away
        self.functions: dict[str, Callable] = {n: kind(self._engine.get_function_address(n)) for n in names}

    def keep(self, claim: bytes) -> None:
        """Keep the code for the next process, with what has been found out about it."""
        self.claim = claim
        _keep(self._key, claim + self._binary)


def _assembled(text: str, machine) -> bytes:
    module = llvm.parse_assembly(text)
    module.verify()
    options = llvm.create_pipeline_tuning_options(speed_level=2)
    options.loop_vectorization = options.slp_vectorization = options.loop_unrolling = False
    builder = llvm.create_pass_builder(machine, options)
    builder.getModulePassManager().run(module, builder)
    return machine.emit_object(module)


def _kept(key: str) -> tuple[bytes, bytes] | None:
    """The claim and the code kept under a key, where they are whole and nobody else can have written them: LLVM takes
    what it is given."""
    home = folder()
    try:
        if home is None or not _private(os.stat(home)):
            return None
        with open(home / f"{key}.o", "rb") as file:
            found = file.read() if _private(os.fstat(file.fileno())) else b""
    except OSError:
        return None
    rest = found[DIGEST:]
    return (rest[:DIGEST], rest[DIGEST:]) if found[:DIGEST] == _digest(key, rest) else None


def _keep(key: str, rest: bytes) -> None:
    """Code for the next process; a folder that is not the user's own, or cannot be written, is no error."""
    home = folder()
    with suppress(OSError):
        if home is not None:
            home.mkdir(mode=0o700, parents=True, exist_ok=True)
            if _private(os.stat(home)):
                written(home / f"{key}.o", _digest(key, rest) + rest)
                (home / f"{key}.o").chmod(0o600)


def _digest(key: str, rest: bytes) -> bytes:
    """Of key, claim and code together, so that one cell's code under another's key is found out."""
    return sha256(key.encode() + rest).digest()


def _private(found: os.stat_result) -> bool:
    """Whether this user owns it and nobody else may write to it; Windows gives each user a folder of his own."""
    return not hasattr(os, "geteuid") or (found.st_uid == os.geteuid() and not found.st_mode & 0o022)


def cores() -> int:
    """The processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class Job:
    """Parts of a piece of work: each is done once, by the thread that claims it first."""

    def __init__(self, work: Callable[[int], None], parts: int):
        self.work, self.parts = work, range(parts)
        self.owner: dict[int, object] = {}  # `setdefault` lets one claim a part; the job itself stands for its caller
        self.ended: dict[int, BaseException | None] = {}  # parts that other threads have ended, and what went wrong
        self.news: SimpleQueue[int] = SimpleQueue()

    def help(self) -> None:
        """In another thread: the parts that nobody has claimed."""
        thread = object()
        for k in self.parts:
            if self.owner.setdefault(k, thread) is thread:
                error: BaseException | None = None
                try:
                    self.work(k)
                except BaseException as e:  # the caller raises it
                    error = e
                self.ended[k] = error
                self.news.put(k)

    def lead(self) -> None:
        """In the caller's thread: the same."""
        for k in self.parts:
            if self.owner.setdefault(k, self) is self:
                self.work(k)

    def close(self) -> None:
        """Nobody claims a part any more, and whatever was claimed has ended."""
        try:
            for k in self.parts:
                self.owner.setdefault(k, self)
            while any(self.owner[k] is not self and k not in self.ended for k in self.parts):
                self.news.get()  # a part that has not ended will tell so
        except BaseException:  # Ctrl-C once more
            self.close()
            raise


def share(work: Callable[[int], None], parts: int) -> None:
    """work(0), ..., work(parts - 1), side by side. Whether it returns or raises: no part is running any more.

    The caller does itself what no other thread has claimed, so that nothing waits for a thread that is busy or gone.
    """
    if parts == 1:
        work(0)
        return
    job = Job(work, parts)
    try:
        jobs = _helpers(os.getpid())
        for _ in range(parts - 1):
            jobs.put(job)
        job.lead()
    finally:
        job.close()
    for error in job.ended.values():
        if error is not None:
            raise error


@cache
def _helpers(process: int) -> SimpleQueue[Job]:
    """The jobs that this process's threads take: a forked child has none of its parent's threads.

    Signal handlers and `__del__` may call at any moment, in the middle of a call of the same thread. SimpleQueue allows
    that and so does starting a thread here; the locks of `threading` and of an executor would wait for themselves.
    """
    jobs: SimpleQueue[Job] = SimpleQueue()
    with suppress(RuntimeError):  # no thread to be had: the caller does it all
        for _ in range(max(1, cores() - 1)):
            start_new_thread(_serve, (jobs,))
    return jobs


def _serve(jobs: SimpleQueue[Job]) -> None:
    while True:
        jobs.get().help()
