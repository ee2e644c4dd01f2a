"""A run within a budget of memory: forward once, keeping what crosses from one stretch of the sequence to the next;
then, from the last stretch to the first, forward again and backward.

A stretch is a whole number of the blocks of rows that sums are made of, and sums begin with the last of them: so the
gradients have the bits of a run without a budget.
"""

from __future__ import annotations

from collections.abc import Collection
from math import gcd
from typing import TYPE_CHECKING

import numpy as np

from ... import primitives as P
from ...arrays import Arrays, Given
from ...equations import BATCH, Equation
from ...graph import EXTENT, READ, Node, option
from ...order import contraction
from .products import BLOCK
from .space import Space
from .totals import summand

if TYPE_CHECKING:
    from .chains import Chain
    from .machine import Machine


class Stretches(Space):
    """The memory of one stretch at a time, and of what crosses."""

    @classmethod
    def within(cls, machine: Machine, given: Given, threads: int, memory: int) -> Stretches | str:
        """The longest stretches that fit, or why there are none."""
        reason = obstacle(machine, given)
        if reason:
            return reason
        step = BLOCK // gcd(BLOCK, given.batch)
        one, two = cls(machine, given, step), cls(machine, given, 2 * step)
        most = -(-given.extents[machine.system.time or ""] // step)
        each, crossing = two.bytes(threads) - one.bytes(threads), one.crossing_bytes()
        fixed = one.bytes(threads) - each
        count = next((n for n in range(most, 0, -1) if fixed + n * each + -(-most // n) * crossing <= memory), None)
        if count is None:
            least = min(fixed + n * each + -(-most // n) * crossing for n in range(1, most + 1))
            return f"stretches of {step} steps need {least / 2**20:.2f} MB"
        return cls(machine, given, count * step)

    def __init__(self, machine: Machine, given: Given, stretch: int):
        super().__init__(machine, given, stretch)
        self.stretch, time = stretch, self.system.time
        sweeps, chain = [name for kind, name in machine.steps if kind == "rows"], machine.order
        back = next((k for k, name in enumerate(sweeps) if chain[name].sign == -1), len(sweeps))
        self.forward, self.backward = sweeps[:back], sweeps[back:]
        self.outside = [name for name in sweeps if chain[name].over is None]  # of time
        sums = {id(chain_of(machine, n)) for n in self.system.nodes if n.op is P.sum and option(n) == time}
        first = next((k for k, name in enumerate(self.forward) if id(chain[name]) in sums), back)
        self.grown = [name for name in self.forward[first:] if name in self.outside]  # by each stretch
        ahead = {id(chain[name]) for name in self.forward}
        made = {eq.name: id(found) in ahead for eq in self.system.equations if not eq.end
                for found in [chain_of(machine, eq)] if found is not None}
        self.crossing = {end: [n for n in self.arrays if made.get(n) is (end == "1")
                               and any(p.index == time and p.base == end for p in self.system.delayed.get(n, ()))]
                         for end in ("1", "T")}
        self.crossing["T"] = [n for n in self.crossing["T"] if n not in self.writer.resting]  # it goes on as it is

    def crossing_bytes(self) -> int:
        """What is kept at the beginning of a stretch."""
        return sum(int(np.prod(self.kept(n)[1:])) for n in self.crossing["1"]) * self.machine.bytes

    def told(self) -> str:
        return f"{super().told()}, in stretches of {self.stretch}, and {self.crossed / 2**20:.2f} MB between them"

    def run(self, run: Arrays, lease: np.ndarray) -> None:
        running = self.begin(run, lease)
        self.ended = True  # by what crosses
        time = self.system.time or ""
        total, machine = run.given.extents[time], self.machine
        starts = range(0, total, self.stretch)
        counts = [min(self.stretch, total - start) for start in starts]
        steps = list(machine.steps)
        end = max(k for k, (kind, name) in enumerate(steps) if kind == "rows")
        with np.errstate(all="ignore"):
            for kind, step in steps[:end]:
                if kind != "rows":  # weights, and what they are made of
                    self.step(kind, step, running)
            self.reach(running)
            self.long = [(k, int(self.context[k]), place) for k, place, *_ in self.bound if time in place.axes]
            crossed: list[dict[str, np.ndarray]] = []
            last: dict[str, np.ndarray] = {}
            begun = {n: self.at(n, 0).copy() for n in self.crossing["1"] if n in self.writer.resting}
            for start, count in zip(starts, counts):
                self.stand(start, count, run)
                if crossed:
                    self.put(crossed[-1], 0)
                self.begun(start > 0)
                self.sweep(self.forward, self.grown if start else self.outside)
                if not crossed:
                    crossed.append({**self.take("1", 0), **begun})
                crossed.append(self.take("1", count))
                self.finish(last, start, count, run)
            self.crossed = sum(value.nbytes for values in crossed for value in values.values())
            later = {n: run.stores[n][self.stretch + 1].copy() for n in self.crossing["T"]}
            for k in range(len(starts) - 1, -1, -1):
                if k < len(starts) - 1:
                    self.stand(starts[k], counts[k], run)
                    self.put(crossed[k], 0)
                    self.sweep(self.forward, ())
                self.put(later, counts[k] + 1)
                self.sweep(self.backward, () if k else self.outside)
                self.begun(k < len(starts) - 1)
                for kind, name in steps:
                    if kind == "parts" and name in machine.sums:
                        self.call(kind, name)
                later = self.take("T", 1)
            self.begun(False)
            for kind, step in steps[end:]:
                if kind != "rows" and not (kind == "parts" and step in machine.sums):
                    self.step(kind, step, running)
        for n, value in last.items():
            run.stores[n] = np.broadcast_to(value, (total + 2, *value.shape))

    def stand(self, start: int, count: int, run: Arrays) -> None:
        """The context of one stretch. What lies past an example's end is nothing, whatever was there before."""
        time = self.system.time or ""
        if start and run.given.lengths:
            for kind, of in self.layout:
                axes = self.system.axes[of] if kind == "store" else (
                    self.writer.outside[of].axes if kind == "node" else ())
                if time in axes and of not in self.writer.resting:
                    self.view((kind, of), self.memory, self.start).fill(0)
        for key in (("extent", time), ("offset", time)):
            if key in self.words:
                self.context[self.words[key]] = count if key[0] == "extent" else run.given.offsets.get(time, 0) + start
        if time in self.lengths:
            self.lengths[time][...] = np.clip(self.last_steps(run) - start, 0, count)
        for k, address, place in self.long:
            size = 8 if self.system.roles.get(place.of) == "class" else self.machine.bytes
            self.context[k] = address + start * self.strides(place)[time] * size

    def last_steps(self, run: Arrays) -> np.ndarray:
        """The number of steps of each example."""
        time, given = self.system.time or "", run.given
        return np.broadcast_to(given.lengths.get(time, given.extents[time]), given.batch)

    def finish(self, last: dict[str, np.ndarray], start: int, count: int, run: Arrays) -> None:
        """The carried values of the examples that end in this stretch."""
        steps = self.last_steps(run)
        done = np.flatnonzero(((start < steps) | (start == 0)) & (steps <= start + count))
        for n in self.system.carried:
            if n in self.arrays:
                batch = len(self.system.axes[n])
                values = np.moveaxis(run.stores[n], batch, 1)[steps[done] - start, done]
                kept = last.setdefault(n, np.empty_like(run.stores[n][0]))
                np.moveaxis(kept, batch - 1, 0)[done] = values

    def begun(self, truth: bool) -> None:
        """Whether sums go on with what they have."""
        if ("begun",) in self.words:
            self.context[self.words["begun",]] = truth

    def sweep(self, names: list[str], outside: Collection[str]) -> None:
        """Chains of functions, and of those that stand outside of time these."""
        for name in names:
            if name in outside or name not in self.outside:
                self.call("rows", name)

    def take(self, end: str, position: int) -> dict[str, np.ndarray]:
        return {n: self.at(n, position).copy() for n in self.crossing[end]}

    def put(self, values: dict[str, np.ndarray], position: int) -> None:
        for n, value in values.items():
            self.at(n, position)[...] = value

    def at(self, name: str, position: int) -> np.ndarray:
        """A variable at a position; one that rests has one."""
        return self.view(("store", name), self.memory, self.start)[0 if name in self.writer.resting else position]


def chain_of(machine: Machine, s: Node | Equation) -> Chain | None:
    """The chain that a value or an equation is made in, where rows make it."""
    home = machine.partition.home.get(s)
    return machine.partition.chains[home.top] if home is not None and home.kind == "rows" else None


def obstacle(machine: Machine, given: Given) -> str:
    """Why a program cannot go in stretches; empty where it can."""
    system, time = machine.system, machine.system.time
    if set(given.lengths) - {time}:
        return "examples differ in more than their number of steps"
    if given.lengths and any(p.base == "T" and p.index == time for _, at in given.ends for p in at):
        return "examples of different lengths have values given beyond their last steps"
    chains = list(machine.order.values())
    if time is None or not any(chain.sign == -1 for chain in chains):
        return "it has no sweep back through time"
    if any(time in axes and axes[0] != time for axes in system.axes.values()):
        return f"`{time}` is not the first index of every variable"
    back = next(k for k, chain in enumerate(chains) if chain.sign == -1)
    if any(chain.over not in (time, None) for chain in chains) or any(chain.sign == 1 for chain in chains[back:]):
        return "it has more than one sweep forward and one back"
    for n in system.nodes:
        if (n.op is EXTENT and n.params[0] == time) or (n.op is READ and any(
                p.index == time and p.base == "T" and not p.offset for p in n.params[1])):
            return f"it reads `{time.upper()}`, the end of the sequence"
    whole = [(n, chain) for n in system.nodes if n.op.fill is not None and option(n) == time
             for chain in [chain_of(machine, n)] if chain is not None]
    if any(n.op is not P.sum for n, _ in whole):
        return f"it takes more than a sum over all of `{time}` for each example"
    places = [chains.index(chain) for _, chain in whole]
    ends = {id(chain_of(machine, eq)) for eq in system.equations if eq.end}
    if max(places, default=0) > back or any(chain.sign == 1 or (chain.over is None and id(chain) in ends)
                                            for chain in chains[min(places, default=back):back]):
        return f"it sums over `{time}` for each example before the last sweep"
    for kind, step in machine.steps:
        if kind == "reference" and any(time in system.free(s.value if isinstance(s, Equation) else s)
                                       for s in machine.references[id(step)]):
            return "the reference computes some of its values for all steps at once"
    kinds = ["sums" if step in machine.sums else kind for kind, step in machine.steps if isinstance(step, str)]
    if "rows" in kinds[kinds.index("sums"):] if "sums" in kinds else False:
        return "a sum over all steps is read at every step"
    for n in machine.summed:
        bound = contraction(n)[0] if contraction(n) else summand(n)[0]  # type: ignore[index]
        if time not in bound or BATCH not in bound:
            return f"it sums over something else than `{time}` and the examples"
    return ""
