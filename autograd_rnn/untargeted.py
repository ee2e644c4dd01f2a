"""A system without its targets: what only leads to the loss is left out where its inputs are not given.

System, loss, missing inputs -> System, and the names left out with the input that each of them wants. So a model runs,
steps and predicts from the inputs that it has then; whatever a state or another output needs is needed still.
"""

from __future__ import annotations

from collections.abc import Iterable

from .equations import System
from .graph import READ, topological


def untargeted(system: System, loss: str | None, missing: Iterable[str]) -> tuple[System, dict[str, str]]:
    """(system, left out): without the equations of what depends on `missing`, where that only leads to the loss.

    Left out are the missing inputs and what depends on them: name -> missing input. A missing input that a state, an
    output beside the loss or the shape of another name depends on stays, and with it everything that it leads to;
    so does one without which nothing is left.
    """
    key = loss, tuple(missing)
    return system.once("_untargeted", key, lambda: _untargeted(system, *key))


def _untargeted(system, loss, missing) -> tuple[System, dict[str, str]]:
    readers = _readers(system)
    shapes = {name for d in system.declarations.values() for name in d.shape or ()}  # what lends its shape is needed
    left_out: dict[str, str] = {}
    for target in missing:
        reached = _reached(target, readers)
        beside = {name for name in reached if name != loss and not readers[name]}
        if loss in reached and not beside and not reached & {*system.delayed, *shapes}:
            left_out = {target: target, **dict.fromkeys(reached, target), **left_out}
    if not left_out or system.defined & system.per_example <= left_out.keys():  # nothing would be left to run
        return system, {}
    return system.keeping(eq for eq in system.equations if eq.name not in left_out), left_out


def _readers(system: System) -> dict[str, set[str]]:
    """Name -> the names whose equations read it."""
    readers: dict[str, set[str]] = {name: set() for name in system.axes}
    for eq in system.equations:
        for n in topological([eq.value]):
            if n.op is READ:
                readers[n.params[0]].add(eq.name)
    return readers


def _reached(name: str, readers: dict[str, set[str]]) -> set[str]:
    """Every name that depends on `name`."""
    reached: set[str] = set()
    pending = [name]
    while pending:
        new = readers[pending.pop()] - reached
        reached |= new
        pending += new
    return reached
