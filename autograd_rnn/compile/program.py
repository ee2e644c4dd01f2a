"""Compiled programs: the gradient of a cell as machine code, or as NumPy, in place of the reference evaluator.

    backend -> what evaluates a system;   what a backend cannot do goes to the reference
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Mapping
from functools import cache, partial
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from ..arrays import Given
from ..atomic import written
from ..backpropagate import Wanted, adjoint_of, differentiate, wanted
from ..bind import bind
from ..equations import System
from ..errors import CellError
from ..evaluate import evaluate
from ..trace import Trace
from .lease import keep
from .numpy_program import NumpyProgram
from .replay import Replay, signature
from .report import report
from .save import file_of
from .verify import IN_PARTS, SHAPES, claim, fault, needed

REPLAYS = 4  # shapes whose gradients are done again without another look
WORK = 500  # steps times batch from which a gradient is compiled
Run = Callable[..., dict[str, np.ndarray]]


@cache
def has_llvm() -> bool:
    return find_spec("llvmlite") is not None


def backend_of(name: str, threads: int | None = None, memory: str | int | None = None) -> Run:
    """What evaluates a system, as `evaluate` does: "llvm", machine code; "numpy"; "auto", the first that is there.

    Raises CellError for another name, or where llvmlite is missing that "llvm" needs.
    """
    size = memory_of(memory)
    if threads is not None and (isinstance(threads, bool) or not isinstance(threads, int) or threads < 1):
        raise CellError(f"`threads` is {threads!r}.", remedy="Give a whole number from 1, or None for all processors.")
    if name not in ("auto", "llvm", "numpy"):
        raise CellError(f"There is no backend {name!r}.", remedy='There are "auto", "llvm" and "numpy".')
    if name == "llvm" and not has_llvm():
        raise CellError("Machine code needs llvmlite, which is not installed.",
                        remedy="Install it: pip install 'autograd_rnn[fast]'.")
    if name == "numpy" or not has_llvm():
        if memory is not None:
            raise CellError("A NumPy program keeps to no budget of memory.",
                            remedy="Leave out `memory`, or use machine code: pip install 'autograd_rnn[fast]'.")
        return compiled
    return partial(as_machine_code, threads=threads, memory=size)


def memory_of(text: str | int | None) -> int | None:
    """Bytes from a number of them, or from "64MB"."""
    if text is None or (isinstance(text, int) and not isinstance(text, bool) and text > 0):
        return text
    found = re.fullmatch(r"\s*(\d+(?:\.\d*)?)\s*([KMG]?)B\s*", text, re.IGNORECASE) if isinstance(text, str) else None
    if not found:
        raise CellError(f"`memory` is {text!r}.", remedy='Give a number of bytes, or a text like "64MB".')
    return int(float(found[1]) * 1024 ** " KMG".index(found[2].upper() or " "))


def compiled(system: System, given: Given, keep: Wanted | None = None) -> dict[str, np.ndarray]:
    """What `evaluate` gives, by a NumPy program that is made once and lives as long as the system."""
    if given.lengths or given.lanes or given.empty or np.dtype(given.dtype).kind == "c":
        return evaluate(system, given, keep)
    made = program_of(system, keep)
    return evaluate(system, given, keep) if made.fault else made(
        system, given, list(system.axes) if keep is None else list(keep))


def as_machine_code(system: System, given: Given, keep: Wanted | None = None, threads: int | None = None,
                    memory: int | None = None) -> dict[str, np.ndarray]:
    """What `evaluate` gives, by machine code that is made once and lives as long as the system."""
    whole: Wanted = dict.fromkeys(system.axes, True) if keep is None else keep
    if given.lanes or given.empty or given.dtype not in (np.float32, np.float64) or any(
            isinstance(n, np.ndarray) for n in given.offsets.values()):
        return compiled(system, given, keep)
    made = machine_of(system, whole, given.dtype == np.float64, memory is not None)
    return evaluate(system, given, keep) if made.fault else made(system, given, whole, threads, memory)


def fastest(system: System, given: Given, keep: Wanted | None = None) -> dict[str, np.ndarray]:
    """What `evaluate` gives, compiled where there is work enough. Shapes alone decide, so that bits do not change."""
    steps = int(np.prod([n for i, n in given.extents.items() if i not in system.model], initial=1))
    return (backend_of("auto") if steps * given.batch >= WORK else evaluate)(system, given, keep)


def program_of(system: System, keep: Wanted | None) -> NumpyProgram:
    whole: Wanted = dict.fromkeys(system.axes, True) if keep is None else keep

    def make() -> NumpyProgram:
        made = NumpyProgram(system, keep)
        made.fault = fault(made, system, whole, lambda system, given, keep, shape: "" if given.lengths else made(
            system, given, needed(keep)), np.dtype(np.float64))
        made.spaces.clear()  # no run of the user's has these shapes
        return with_warning(made, system)

    return system.once("_programs", None if keep is None else frozenset(keep.items()), make)


def machine_of(system: System, keep: Wanted, double: bool, apart: bool):
    """The machine code; whether it agrees with the reference is asked once, and kept with the code."""
    from .llvm.guarded import guarded  # these need an extra
    from .llvm.machine import Machine

    def make() -> Machine:
        made = Machine(system, keep, double, apart=apart)
        shapes = IN_PARTS if apart else SHAPES
        claimed = claim(system, keep, made.dtype, shapes)
        if made.code.claim != claimed:
            made.fault = fault(made, system, keep, guarded(made), made.dtype, shapes)
            if not made.fault:
                made.code.keep(claimed)
        return with_warning(made, system)

    return system.once("_machines", (frozenset(keep.items()), double, apart), make)


def with_warning(made, system: System):
    """The program, after a warning where it differs from the reference."""
    if made.fault:
        first = next((eq.line.source for eq in system.equations if eq.line), "")
        warnings.warn(f"The compiled program of the cell that begins with `{first}` differs from the reference: "
                      f"{made.fault}. The reference is used instead. Please report the cell's text.",
                      RuntimeWarning, stacklevel=6)
    return made


def gradient(system: System, default: str | None, outputs: tuple[str, ...], params: Mapping, loss: str | None,
             cotangents: Mapping | None, inputs: Mapping, initial, lengths, steps, noise, run: Run
             ) -> tuple[float, dict[str, np.ndarray]]:
    """`differentiate`, by a replay of an earlier compiled run where there was one with arrays of these shapes."""
    replays, key = system.__dict__.setdefault("_replays", {}), None
    by_machine = isinstance(run, partial) and run.func is as_machine_code
    plain = all(isinstance(group, Mapping) for group in (params, cotangents)) and all(
        option is None for option in (loss, initial, lengths, steps, noise))
    if (by_machine or run is compiled) and plain and cotangents:
        arrays = signature(params, inputs, cotangents)
        key = arrays and (arrays, *(run.keywords.values() if by_machine else ()))  # type: ignore[attr-defined]
        again = replays.get(key)
        found = again({**params, **inputs}, cotangents) if again else None
        if found is not None:
            return found
    value, gradients = differentiate(system, default, outputs, params, loss, cotangents, inputs, initial, lengths,
                                     steps, noise, run)[:2]
    if key and key not in replays:
        keep(replays, key, replay_of(system, params, inputs, cotangents or {}, run), REPLAYS)
    return value, gradients


def replay_of(system: System, params: Mapping, inputs: Mapping, cotangents: Mapping, run: Run):
    """What does a run again that was just made with these arrays; None where something stands in the way."""
    forward, chosen = bind(system, params, inputs), tuple(cotangents)
    if forward.system is not system:
        return None
    derived = adjoint_of(system, chosen, False)
    kept = wanted(system, derived, chosen)
    if run is compiled:
        program = program_of(derived.system, kept)
        return None if program.fault else Replay.of(program, forward, derived, chosen, {**params, **inputs}, cotangents)
    from .llvm.replay import Replay as MachineReplay  # needs an extra

    options = run.keywords  # type: ignore[attr-defined]
    made = machine_of(derived.system, kept, forward.given.dtype == np.float64, options["memory"] is not None)
    return None if made.fault else MachineReplay.of(made, forward, derived, chosen, options, {**params, **inputs},
                                                    cotangents)


def unused(made) -> list[str]:
    """What a report says of a program that differs from the reference."""
    return [f"not used, the reference is: it differs from the reference in {made.fault}"] if made.fault else []


class Program:
    """A cell, compiled: `gradient` and `forward` take what the cell's `gradient` and `run` take, and give the same.

    See `Cell.compile`.
    """

    def __init__(self, system: System, loss: str | None, outputs: tuple[str, ...], name: str | None,
                 backend: str = "auto", threads: int | None = None, memory: str | int | None = None):
        self.system, self.loss, self.outputs, self.name = system, loss, outputs, name
        self._run, self._memory = backend_of(backend, threads, memory), memory
        if backend == "auto" and not has_llvm():
            warnings.warn("llvmlite is not installed: the program runs in NumPy. For machine code: "
                          "pip install 'autograd_rnn[fast]'", stacklevel=3)

    @property
    def _written(self) -> NumpyProgram:
        derived = adjoint_of(self.system, self.outputs, self.loss is not None)
        return program_of(derived.system, wanted(self.system, derived, self.outputs))

    def gradient(self, params: Mapping, loss: str | None = None, cotangents: Mapping | None = None,
                 initial: Mapping | None = None, lengths=None, noise=None, steps: int | None = None, **inputs
                 ) -> tuple[float, dict[str, np.ndarray]]:
        """(value, gradients), as `Cell.gradient`."""
        return gradient(self.system, self.loss, self.outputs, params, loss, cotangents, inputs, initial, lengths, steps,
                        noise, self._run)

    def gradient_and_final(self, params: Mapping, loss: str | None = None, cotangents: Mapping | None = None,
                           initial: Mapping | None = None, lengths=None, noise=None, steps: int | None = None, **inputs
                           ) -> tuple[float, dict[str, np.ndarray], dict[str, np.ndarray | int]]:
        """(value, gradients, final), as `Cell.gradient_and_final`."""
        value, gradients, trace = differentiate(self.system, self.loss, self.outputs, params, loss, cotangents, inputs,
                                                initial, lengths, steps, noise, self._run)
        return value, gradients, trace.final

    def forward(self, params: Mapping, initial: Mapping | None = None, lengths=None, steps: int | None = None,
                noise=None, **inputs) -> Trace:
        """Every named value, as `Cell.run`."""
        bound = bind(self.system, params, inputs, initial, lengths, steps, noise)
        return Trace(bound.system, bound.given, self._run(bound.system, bound.given), bound.batched)

    @property
    def source(self) -> str:
        """The program as NumPy: forward and backward, the author's equations in comments."""
        return self._written.source

    def save(self, path: str | Path) -> None:
        """Write the program to a file that needs nothing but NumPy, with a function `gradient(values, ...)`.

        Raises CellError where it calls a primitive of your own, whose source is not the library's.
        """
        compiled_ = self._written
        if compiled_.writer.foreign:
            names = ", ".join(f"`{name}`" for name in sorted(compiled_.writer.foreign))
            raise CellError(f"The program calls {names}, which a file of NumPy alone does not have.",
                            remedy="Write it with the library's own functions, or use the program here.")
        derived = adjoint_of(self.system, self.outputs, self.loss is not None)
        written(path, file_of(self.system, self.name, compiled_, derived).encode())

    def report(self, **sizes: int) -> str:
        """Which operations are in which loop and which happen for all steps at once, products, work, what is kept.

        sizes: numbers by name, as `Cell.init` takes them; the totals are then told too. What a run took of memory, and
        what was foreseen, is told once there was one.
        """
        derived = adjoint_of(self.system, self.outputs, self.loss is not None)
        keep, time = wanted(self.system, derived, self.outputs), self.system.time
        if self._run is compiled:
            program = program_of(derived.system, keep)
            kept = [n for n in program.writer.stores if n in program.system.defined and time in program.system.axes[n]]
            return "\n".join([*unused(program), report(program.system, kept, time, sizes, program.refused)])
        machines = derived.system.__dict__.get("_machines", {})
        apart = self._memory is not None
        ran = [m for (kept, _, split), m in machines.items() if kept == frozenset(keep.items()) and split == apart]
        made = ran[-1] if ran else machine_of(derived.system, keep, False, apart)
        return "\n".join([*unused(made), report(made.system, made.kept_along(time), time, sizes, made.refused),
                          *(m.last for m in ran if m.last)])

    def __repr__(self):
        return f"<Program of {self.name or 'a cell'}, {'NumPy' if self._run is compiled else 'machine code'}>"
