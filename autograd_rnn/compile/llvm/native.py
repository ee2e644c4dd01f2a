"""LLVM modules as machine code of this processor, kept in a folder of the user's, and the threads that run it."""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from hashlib import sha256
from pathlib import Path

import llvmlite
import llvmlite.binding as llvm


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


def folder() -> Path:
    """Where compiled code is kept: the user's cache folder."""
    if sys.platform == "win32":
        base = os.environ.get("LOCALAPPDATA", "~/AppData/Local")
    else:
        base = os.environ.get("XDG_CACHE_HOME", "~/Library/Caches" if sys.platform == "darwin" else "~/.cache")
    return Path(base).expanduser() / "autograd_rnn"


class Code:
    """The functions of a module by name, each `(context, scratch, first, last)` over addresses and whole numbers."""

    def __init__(self, module, names: Sequence[str]):
        text = str(module)
        key = sha256(f"{llvmlite.__version__} {llvm.llvm_version_info} {_processor()}\n{text}".encode()).hexdigest()
        path = folder() / f"{key}.o"
        binary = _kept(path)
        if binary is None:
            binary = _assembled(text, _target())
            _keep(path, binary)
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


def _kept(path: Path) -> bytes | None:
    """The code in a file that is whole: LLVM takes what it is given."""
    try:
        found = path.read_bytes()
    except OSError:
        return None
    return found[32:] if found[:32] == sha256(found[32:]).digest() else None


def _keep(path: Path, binary: bytes) -> None:
    """Written aside and moved, so that nobody reads half a file; a folder that cannot be written is no error."""
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        aside = path.with_name(f"{path.name}.{os.getpid()}")
        aside.write_bytes(sha256(binary).digest() + binary)
        aside.replace(path)
    except OSError:
        pass


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
