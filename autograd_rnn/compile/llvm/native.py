"""LLVM modules as machine code of this processor, kept in a folder of the user's, and the threads that run it."""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import cache
from hashlib import sha256
from pathlib import Path

import llvmlite
import llvmlite.binding as llvm

from ...atomic import written


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
    """The functions of a module by name, each `(context, scratch, first, last)` over addresses and whole numbers."""

    def __init__(self, module, names: Sequence[str]):
        text = str(module)
        key = sha256(f"{llvmlite.__version__} {llvm.llvm_version_info} {_processor()}\n{text}".encode()).hexdigest()
        binary = _kept(key)
        if binary is None:
            binary = _assembled(text, _target())
            _keep(key, binary)
        self._engine = llvm.create_mcjit_compiler(llvm.parse_assembly(""), _target())
        self._engine.add_object_file(llvm.ObjectFileRef.from_data(binary))
        self._engine.finalize_object()
        kind = ctypes.CFUNCTYPE(None, *[ctypes.c_int64] * 4)  # a foreign call gives the interpreter's lock away
        self.functions: dict[str, Callable] = {n: kind(self._engine.get_function_address(n)) for n in names}


def _assembled(text: str, machine) -> bytes:
    module = llvm.parse_assembly(text)
    module.verify()
    options = llvm.create_pipeline_tuning_options(speed_level=2)
    options.loop_vectorization = options.slp_vectorization = options.loop_unrolling = False
    builder = llvm.create_pass_builder(machine, options)
    builder.getModulePassManager().run(module, builder)
    return machine.emit_object(module)


def _kept(key: str) -> bytes | None:
    """The code kept under a key, where it is whole and nobody else can have written it: LLVM takes what it is given."""
    home = folder()
    try:
        if home is None or not _private(os.stat(home)):
            return None
        with open(home / f"{key}.o", "rb") as file:
            found = file.read() if _private(os.fstat(file.fileno())) else b""
    except OSError:
        return None
    return found[32:] if found[:32] == _digest(key, found[32:]) else None


def _keep(key: str, binary: bytes) -> None:
    """Code for the next process; a folder that is not the user's own, or cannot be written, is no error."""
    home = folder()
    with suppress(OSError):
        if home is not None:
            home.mkdir(mode=0o700, parents=True, exist_ok=True)
            if _private(os.stat(home)):
                written(home / f"{key}.o", _digest(key, binary) + binary)
                (home / f"{key}.o").chmod(0o600)


def _digest(key: str, binary: bytes) -> bytes:
    """Of key and code together, so that one cell's code under another's key is found out."""
    return sha256(key.encode() + binary).digest()


def _private(found: os.stat_result) -> bool:
    """Whether this user owns it and nobody else may write to it; Windows gives each user a folder of his own."""
    return not hasattr(os, "geteuid") or (found.st_uid == os.geteuid() and not found.st_mode & 0o022)


def cores() -> int:
    """The processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@cache
def _pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(max(1, cores() - 1), thread_name_prefix="autograd_rnn")


def share(work: Callable[[int], None], parts: int) -> None:
    """work(0), ..., work(parts - 1), side by side."""
    if parts == 1:
        work(0)
        return
    others = [_pool().submit(work, k) for k in range(1, parts)]
    work(0)
    for other in others:
        other.result()
