"""The first value that is not finite: its name, its step, the author's line.

    system + arrays that gave one -> every value, in the order in which the evaluator makes them -> CellError
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace

import numpy as np

from .adjoint import Derived, active_nodes
from .arrays import Given
from .equations import Equation, System
from .errors import CellError
from .evaluate import evaluate
from .gradient import Typing, vjp
from .graph import READ, Position, const, read, topological
from .order import Loop, schedule
from .parse import Line
from .shapes import carry_over
from .trace import at_end


def name_culprit(written: System, derived: Derived, given: Given) -> None:
    """Raise CellError with the first value that is not finite: of what is given, then forward, then backward."""
    system = derived.system
    stores = evaluate(system, given)
    suspects = {name for name, store in stores.items() if not np.isfinite(store).all()}
    old = set(derived.forward.equations)
    executed = sorted(_executed(schedule(system), {}, given), key=lambda done: done[0] not in old)
    order: list[tuple[str, tuple[Position, ...], Mapping[str, int], Equation | None]] = [
        *((name, tuple(map(Position, system.axes[name])), {}, None) for name in system.given),
        *((name, at, {}, None) for name, at in given.ends), *((eq.name, eq.at, fixed, eq) for eq, fixed in executed)]
    literal = None  # an infinity that the text itself states
    for name, place, fixed, eq in order:
        where = _first_bad(system, given, stores[name], name, place, fixed) if name in suspects else None
        if where is None:
            continue
        if eq is not None and all(n.op is not READ for n in topological([eq.value])):
            literal = eq
            continue
        line = None if eq is None else eq.line or _line_of(derived, given, eq)
        outside = next((p for p in place if p.outside), None)
        told = name if outside is None else written.labels.get(
            (name, outside), f"{name}[{','.join(map(str, place))}]")
        steps = ", ".join(f"{i} = {k}" for i, k in where.items())
        role = "initial value" if (name, place) in given.ends else written.roles.get(
            name, "value" if eq in old else "gradient")
        fact = f"`{told}`{f' at {steps}' if steps else ''} is not finite (its role: {role})."
        before = f"Everything before it but `{literal}` is finite" if literal else "Everything before it is finite"
        remedy = "Look at the data or the parameters given." if eq is None else (
            f"{before}: lower the learning rate, clip, or guard the equation.")
        raise line.error(fact, None, remedy) if line else CellError(fact, remedy=remedy)
    raise CellError("The gradient is not finite.", remedy="Its terms overflow when summed: scale the loss down.")


def _executed(steps, at: dict[str, int], given: Given) -> Iterator[tuple[Equation, dict[str, int]]]:
    """Equations as they are evaluated, with the positions of the loops around them."""
    for step in steps:
        if isinstance(step, Loop):
            count = given.extents[step.index]
            for k in range(1, count + 1) if step.sign > 0 else range(count, 0, -1):
                yield from _executed(step.body, {**at, step.index: k}, given)
        elif isinstance(step, Equation):
            yield step, at


def _first_bad(system: System, given: Given, store: np.ndarray, name: str, place: tuple[Position, ...],
               fixed: Mapping[str, int]) -> dict[str, int] | None:
    """Where an array is not finite at a position, the indices that loops hold `fixed` apart; None: nowhere."""
    ragged = next((p.index for p in place if p.base == "T" and p.index in given.lengths), None)
    if ragged is not None:  # each example's own end
        values = at_end(system, name, store, ragged, given.lengths[ragged] + 1, batched=True)
    else:
        values = store[tuple(slice(fixed[p.index], fixed[p.index] + 1) if p.index in fixed and p.base == "i" else
                             slice(1, -1) if p.base == "i" else 0 if p.base == "1" else -1 for p in place)]
    bad = np.argwhere(~np.isfinite(values))
    if not len(bad):
        return None
    free = [p.index for p in place if p.base == "i"]
    example = int(bad[0][len(free)]) if name in system.per_example else 0
    before = {i: int(np.broadcast_to(n, given.batch)[example]) for i, n in given.offsets.items()}
    return {i: (fixed[i] if i in fixed and ragged is None else int(k) + 1) + before.get(i, 0)
            for i, k in zip(free, bad[0])}


def _line_of(derived: Derived, given: Given, eq: Equation) -> Line | None:
    """The author's line through which a gradient that is not finite came back."""
    variable = {adj: name for name, adj in derived.names.items()}.get(eq.name)
    carried = derived.carries.get(eq.name)
    typing = Typing(derived.system)
    for user in derived.forward.equations:
        reads = [n for n in topological([user.value]) if n.op is READ and (
            n is carried if carried is not None else n.params[0] == variable)]
        if not reads or user.name not in derived.names:
            continue
        active = active_nodes([user.value], {n.params[0] for n in reads})
        found, _ = vjp([(user.value, read(derived.names[user.name], user.at))], typing, active.__contains__)
        for n in reads:
            part = found.get(n, const(0))
            axes = tuple(i for i in derived.system.indices if i in typing.free(part))
            mine = Equation("#", tuple(map(Position, axes)), part)
            system = System([*derived.system.equations, mine], {**derived.system.axes, "#": axes},
                            derived.system.model, derived.system.declarations)
            sizes = carry_over(given.sizes, derived.system.inferred, system.inferred)
            if not np.isfinite(evaluate(system, replace(given, sizes=sizes), ["#"])["#"]).all():
                return user.line
    return None
