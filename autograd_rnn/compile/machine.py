"""A system as machine code: its schedule cut into stages, what no stage can do left to the reference.

    system -> passes -> schedule -> stages (LLVM functions) and steps of the reference, over the same arrays
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from .. import primitives as P
from ..arrays import Arrays, Given, bordered_shape
from ..equations import BATCH, Equation, System
from ..evaluate import plan
from ..graph import LEAVES, READ, Node
from ..order import Loop, contraction, operands, reach
from ..shapes import carry_over
from .native import Code, cores, registers, share
from .passes import gate_values, name_exports, optimised, stack_gradients, stack_products, stack_sums
from .stages import LEAVE, Place, Rows, Spot, Totals, Weights, Writer, native, summed, weight

PASSES = (gate_values, stack_products, stack_sums, stack_gradients, name_exports)
VIEWS = (P.split, P.slice)
ALIGN = 64


@dataclass(eq=False)
class Item:
    """A step of the schedule, or a loop with what was moved into it.

    kind: "rows", "totals" or "reference"; over: the index that its values vary with.
    """

    kind: str
    steps: list
    over: str | None = None
    loop: Loop | None = None
    needs: set = field(default_factory=set)


class Machine:
    """A system as stages for one float type."""

    def __init__(self, system: System, keep: Iterable[str] | None, double: bool):
        self.system = optimised(system, PASSES, keep)
        self.keep = set(self.system.axes) if keep is None else set(keep)
        self.plan = plan(self.system)
        self.bytes = 8 if double else 4
        vector, rows = registers()
        self.writer = Writer(self.system, double, vector // self.bytes, rows)
        items = self.ordered(self.items())
        self.steps = self.stages(items)
        self.code = Code(self.writer.module, [n for kind, names in self.steps if kind != "reference" for n in names])
        self.spaces: dict[tuple, list[Space]] = {}
        self.sizes: dict[tuple, dict[str, int]] = {}

    # --- the schedule cut into items ---------------------------------------------------------------------------------

    def items(self) -> list[Item]:
        """The steps of the schedule by kind; pointwise work that only feeds one loop goes into it."""
        writer, order = self.writer, self.plan.order
        kinds: dict[Any, str] = {}
        for s in order:
            if isinstance(s, Loop):
                kinds[s] = "rows" if self.loops(s) else "reference"
            elif isinstance(s, Equation):
                kinds[s] = "rows" if self.rows_of(s, ()) else "reference"
            elif self.looked_at(s):
                kinds[s] = "leaf"
            elif summed(writer, s):
                kinds[s] = "totals"
            elif native(writer, s, ()):
                kinds[s] = "rows"
            else:
                kinds[s] = "reference"
        owner = {inner: s for s in order if isinstance(s, Loop) for inner in _flat(s)}
        moved: dict[Loop, list] = {}
        for s in reversed(order):
            if isinstance(s, Node) and kinds[s] == "rows" and s.op is not P.matmul:
                homes = {owner.get(c, c) for c in self.users(s)}
                home = next(iter(homes)) if len(homes) == 1 else None
                if isinstance(home, Loop) and kinds[home] == "rows" and (
                        self.system.free(s) <= {home.index, BATCH}):
                    owner[s] = home
                    moved.setdefault(home, []).insert(0, s)
        items = []
        for s in order:
            if s in owner or kinds[s] == "leaf":
                continue
            if isinstance(s, Loop):
                items.append(Item(kinds[s], [*moved.get(s, ()), *_flat(s)] if kinds[s] == "rows" else [s], s.index, s))
            else:
                free = s.free if isinstance(s, Equation) else self.system.free(s) - {BATCH}
                items.append(Item(kinds[s], [s], next(iter(free), None)))
        return items

    def users(self, n: Node) -> list:
        """What reads a node's value, through the parts that are only looked at."""
        found = []
        for c in self.plan._consumers.get(n, ()):
            if isinstance(c, Node) and c.op in VIEWS and self.looked_at(c):
                found += self.users(c)
            else:
                found.append(c)
        return found

    def looked_at(self, n: Node) -> bool:
        """What has no values of its own: leaves, parts of a value, weights as they are packed."""
        return n.op in LEAVES or weight(n) is not None or n.op in VIEWS and native(self.writer, n, ())

    def loops(self, s: Loop) -> bool:
        inner = list(_flat(s))
        return all(not isinstance(x, Loop) for x in s.body) and all(
            self.rows_of(x, (s.index,)) if isinstance(x, Equation) else native(self.writer, x, (s.index,))
            for x in inner)

    def rows_of(self, eq: Equation, fixed: tuple[str, ...]) -> bool:
        """Whether an equation's value is written row by row."""
        value = eq.value
        fits = value.op in LEAVES or native(self.writer, value, fixed) or BATCH not in self.system.free(value)
        if value.op is READ and self.system.roles[value.params[0]] == "class":
            return False
        return fits and eq.name in self.system.per_example and len(set(eq.free) - set(fixed)) <= (not fixed) and (
            self.system.rank(value) in (0, len(self.system.shapes[eq.name])))

    def ordered(self, items: list[Item]) -> list[Item]:
        """What must be done by rows first, then totals, then the reference, each as soon as what it needs is there."""
        makers: dict[Any, Item] = {s: item for item in items for s in item.steps}
        for item in items:
            if isinstance(item.steps[0], Loop):
                makers.update((s, item) for s in _flat(item.steps[0]))
        for item in items:
            stack = [a for s in (_flat(item.steps[0]) if isinstance(item.steps[0], Loop) else item.steps)
                     for a in ([s.value] if isinstance(s, Equation) else operands(s) if s.args else [s])]
            seen = set()
            while stack:
                n = stack.pop()
                if n in seen:
                    continue
                seen.add(n)
                if n in makers and makers[n] is not item and n.op not in LEAVES:
                    item.needs.add(makers[n])
                elif n.op is READ:
                    item.needs |= {makers[eq] for eq in self.system.definitions.get(n.params[0], ())
                                   if reach(eq, n) is not None and makers[eq] is not item}
                elif n not in makers:
                    stack.extend(operands(n))
        left, done, found, over = list(items), set(), [], None
        rank = {"rows": 0, "totals": 1, "reference": 2}
        while left:
            ready = [k for k, item in enumerate(left) if item.needs <= done]
            k = min(ready, key=lambda k: (rank[left[k].kind], left[k].loop is not None or left[k].over != over, k))
            item = left.pop(k)
            over = item.over
            done.add(item)
            found.append(item)
        return found

    # --- the stages --------------------------------------------------------------------------------------------------

    def stages(self, items: list[Item]) -> list[tuple[str, list]]:
        """Runs of items as stages: by rows, those of one index together."""
        groups: list[list[Item]] = []
        for item in items:
            last = groups[-1] if groups else None
            joins = last is not None and last[0].kind == item.kind == "rows" and item.loop is None is last[0].loop and (
                last[0].over == item.over) and not self.shifts(item, last)
            if joins or (last is not None and last[0].kind == item.kind == "totals"):
                last.append(item)  # type: ignore[union-attr]
            else:
                groups.append([item])
        home = {s: k for k, group in enumerate(groups) for item in group for s in item.steps}
        for k, group in enumerate(groups):
            if isinstance(group[0].steps[0], Loop):
                home.update((s, k) for s in _flat(group[0].steps[0]))
        self.settle(groups, home)
        steps: list[tuple[str, list]] = []
        packed: set[Node] = set()
        made: set[Node] = set()
        for group in groups:
            inner = [s for item in group for s in item.steps]
            if group[0].kind == "reference":
                steps.append(("reference", self.reference(inner[0])))
                continue
            if group[0].kind == "totals":
                steps.append(("totals", [Totals(self.writer, inner, self.spot).name]))
                continue
            weights = [s.args[0] for s in inner if isinstance(s, Node) and s.op is P.matmul]
            new = [n for n in dict.fromkeys(weights) if n not in packed]
            if new:
                packed.update(new)
                steps.append(("weights", [Weights(self.writer, new).name]))
            loop = group[0].loop
            stage = Rows(self.writer, inner, group[0].over, loop.sign if loop else None)
            made |= stage.inside
            if steps and steps[-1][0] == "rows":
                steps[-1][1].append(stage.name)
            else:
                steps.append(("rows", [stage.name]))
        return steps

    def shifts(self, item: Item, group: list[Item]) -> bool:
        """Whether an item reads, at another position, what the group defines."""
        defined = {(s.name, s.at) for other in group for s in other.steps if isinstance(s, Equation)}
        names = {name for name, _ in defined}
        for s in item.steps:
            stack = [s.value] if isinstance(s, Equation) else [s]
            while stack:
                n = stack.pop()
                if n.op is READ and n.params[0] in names and n.params not in defined:
                    return True
                if isinstance(s, Equation) and n is s.value or n is s or n.op in VIEWS:
                    stack.extend(operands(n))
        return False

    def settle(self, groups: list[list[Item]], home: dict) -> None:
        """Which variables have an array, and which values are read outside the stage that makes them."""
        writer = self.writer
        equations = {(eq.name, eq.at): home[eq] for eq in self.system.equations if eq in home}
        writer.stored |= self.keep & self.system.defined | {eq.name for eq in self.system.equations
                                                            if eq.name in self.keep}
        reference = {k for k, group in enumerate(groups) if group[0].kind == "reference"}
        writer.stored |= {eq.name for eq in self.system.equations if home.get(eq) in reference}
        for n in self.system.nodes:
            if n.op is READ and n.params[0] not in writer.stored:
                at_home = equations.get(n.params)
                if any(home.get(c, -1) != at_home or at_home in reference for c in self.users(n)):
                    writer.stored.add(n.params[0])
        for n in {m for m in home if isinstance(m, Node)}:
            if self.looked_at(n) or groups[home[n]][0].kind == "totals":
                continue
            others = [c for c in self.users(n) if home.get(c, -1) != home[n]]
            if others and not (home[n] in reference and all(home.get(c, -1) in reference for c in others)):
                writer.outside[n] = Place("node", n, self.plan.axes(n, (BATCH,)), BATCH in self.system.free(n))

    def spot(self, n: Node) -> Spot:
        """Where a value lies that a sum over all rows reads."""
        from ..graph import Position

        if n.op is READ:
            return Spot(self.writer.store(n.params[0]), n.params[1])
        if n.op is P.split:
            whole = self.spot(n.args[0])
            before = tuple(d for a in n.args[1:n.params[0]] for d in self.writer.dims(a))
            return Spot(whole.place, whole.at, whole.skipped + before)
        if n.op is P.slice:
            whole = self.spot(n.args[0])
            return Spot(whole.place, whole.at, (*whole.skipped, n.params[0]))
        place = self.writer.outside[n]
        return Spot(place, tuple(map(Position, place.axes)))

    def reference(self, step) -> list:
        """The reference's own functions for a step, and before it for the leaves it reads."""
        used = self.plan.uses(step)[0]
        inner = set(_flat(step)) if isinstance(step, Loop) else set()
        before: list[Node] = []
        stack = sorted((n for n in used if n not in inner), key=id)
        while stack:
            n = stack.pop()
            if n is not step and n.op.name != "const" and self.looked_at(n) and n not in before:
                before.insert(0, n)
                stack.extend(operands(n))
        return [(n, self.plan.step(n, ())) for n in [*before, step]]

    # --- running -----------------------------------------------------------------------------------------------------

    def __call__(self, system: System, given: Given, keep: Iterable[str], threads: int | None = None
                 ) -> dict[str, np.ndarray]:
        """The bordered arrays of the names in `keep`, from sizes and arrays as `system` has them."""
        own = self.system
        key = tuple(sorted(given.sizes.items()))
        if key not in self.sizes:
            self.sizes[key] = carry_over(given.sizes, system.inferred, own.inferred)
        given_here = replace(given, sizes=self.sizes[key])
        run = Arrays(own, given_here)
        shape = (key, tuple(given.extents.items()), given.batch)
        waiting = self.spaces.setdefault(shape, [])
        space = waiting.pop() if waiting else Space(self, given_here)
        space.run(run, threads or cores())
        found = {n: run.store(n) for n in keep if n in own.axes}
        rest = Arrays(system, given)
        waiting.append(space)
        return {n: found[n] if n in found else rest.store(n) for n in keep}


def _flat(s):
    for x in s.body if isinstance(s, Loop) else [s]:
        if isinstance(x, Loop):
            yield from _flat(x)
        else:
            yield x


class Space:
    """The memory of one run of a program at given sizes: context, weights in panels, what is not handed on, scratch."""

    def __init__(self, machine: Machine, given: Given):
        self.machine, self.given = machine, given
        writer, system = machine.writer, machine.system
        self.words = writer.context.words
        self.dtype = np.dtype(np.float64 if machine.bytes == 8 else np.float32)
        self.context = np.zeros(len(self.words) + 1, np.int64)
        self.bound: list[tuple[int, Place]] = []
        self.block = max(1, LEAVE // given.batch)
        self.scratch = 0
        self.layout: dict[Any, tuple[int, tuple[int, ...]]] = {}  # offset and shape of what lies in the block
        self.total = 0
        places: dict[Place, int] = {}
        written = {eq.name for kind, group in ((k, g) for k, g in machine.steps) if kind == "reference"
                   for step, _ in group for eq in ([step] if isinstance(step, Equation) else
                                                   [s for s in _flat(step) if isinstance(s, Equation)]
                                                   if isinstance(step, Loop) else [])}
        self.late = {n for n in written if not system.axes[n]}  # made whole when the reference comes to them
        self.inner = [n for n in system.defined if n in writer.stored and n not in machine.keep and n not in written]
        for n in self.inner:
            self.reserve(("store", n), bordered_shape(system, n, given))
        for n, place in writer.outside.items():
            self.reserve(("node", n), self.shape(n, place))
        for key in self.words:
            if key[0] == "panels":
                depth, width = self.size(writer.dims(key[1])[1]), self.size(writer.dims(key[1])[0])
                panel = writer.products.panel
                self.reserve(key, (-(-width // panel), depth, panel))
            elif key[0] == "matrix":
                _, u, v = contraction(key[1])
                rows, panel = writer.products.rows, writer.products.panel
                height, width = self.size(writer.dims(u)[0]), self.size(writer.dims(v)[0])
                self.reserve(key, (-(-height // rows) * rows, -(-width // panel) * panel))
                self.scratch = max(self.scratch, writer.products.correlate_scratch(width))
        self.memory = np.zeros(self.total + ALIGN, np.uint8)
        self.start = -self.memory.ctypes.data % ALIGN
        self.base = self.memory.ctypes.data + self.start
        own = 0
        for key, k in self.words.items():
            kind = key[0]
            if kind == "size":
                self.context[k] = self.size(key[1])
            elif kind == "extent":
                self.context[k] = given.extents[key[1]]
            elif kind == "batch":
                self.context[k] = given.batch
            elif kind == "block":
                self.context[k] = self.block
            elif kind in ("panels", "matrix"):
                self.context[k] = self.base + self.layout[key][0]
            elif kind == "panel count":
                self.context[k] = -(-self.size(writer.dims(key[1])[0]) // writer.products.panel)
            elif kind == "address":
                places[key[1]] = k
        for place, k in places.items():
            if place.kind == "own":
                width = self.width(place.of)
                count = given.batch * (self.block if place.axes else 1)
                self.context[k] = own
                own += -(-count * width * machine.bytes // ALIGN) * ALIGN
            elif (place.kind, place.of) in self.layout and self.made_here(place):
                offset, shape = self.layout[place.kind, place.of]
                self.context[k] = self.base + offset
                if place.kind == "node":
                    self.context[k] -= sum(self.strides(place).values()) * machine.bytes if place.axes else 0
                    if place.axes and place.batched:
                        self.context[k] += self.strides(place)[BATCH] * machine.bytes
            else:
                self.bound.append((k, place))
        for key, k in self.words.items():
            if key[0] == "stride":
                self.context[k] = self.strides(key[1]).get(key[2], 0)
        self.scratch = -(-max(self.scratch, own) // ALIGN) * ALIGN + ALIGN

    def made_here(self, place: Place) -> bool:
        """Whether stages make the value: what the reference makes lies where it puts it."""
        return place.kind == "store" or not self.by_reference(place.of)

    def by_reference(self, n: Node) -> bool:
        return any(n is step for kind, group in self.machine.steps if kind == "reference" for step, _ in group)

    def size(self, d) -> int:
        return d if isinstance(d, int) else int(d) if str(d).isdigit() else self.given.sizes[d]

    def width(self, n: Node) -> int:
        """The numbers of one row of a value; of a product, whole panels."""
        width = int(np.prod([self.size(d) for d in self.machine.writer.dims(n)], initial=1))
        panel = self.machine.writer.products.panel
        return -(-width // panel) * panel if n.op is P.matmul else width

    def shape(self, n: Node, place: Place) -> tuple[int, ...]:
        lead = tuple(self.given.extents[i] for i in place.axes) + ((self.given.batch,) if place.batched else ())
        return (*lead, self.width(n))

    def strides(self, place: Place) -> dict[str, int]:
        """How many numbers further the next position of each index lies, and the next example."""
        if place.kind == "store":
            shape = bordered_shape(self.machine.system, place.of, self.given)  # type: ignore[arg-type]
            axes = (*place.axes, *((BATCH,) if place.batched else ()))
            inner = int(np.prod(shape[len(axes):], initial=1))
            counts = shape[:len(axes)]
        elif place.kind == "node":
            axes = (*place.axes, *((BATCH,) if place.batched else ()))
            *counts, inner = self.shape(place.of, place)  # type: ignore[arg-type]
        else:
            axes, inner, counts = (*place.axes, BATCH), self.width(place.of), (self.block, self.given.batch)  # type: ignore
            counts = counts[-len(axes):]
        found = {}
        for axis, count in zip(reversed(axes), reversed(tuple(counts))):
            found[axis] = inner
            inner *= count
        return found

    def reserve(self, key, shape: tuple[int, ...]) -> None:
        self.layout[key] = self.total, shape
        count = int(np.prod(shape, initial=1)) * self.machine.bytes
        self.total += -(-count // ALIGN) * ALIGN

    def view(self, key) -> np.ndarray:
        offset, shape = self.layout[key]
        return np.ndarray(shape, self.dtype, self.memory, self.start + offset)

    def run(self, run: Arrays, threads: int) -> None:
        machine, given = self.machine, run.given
        system = machine.system
        for n in self.inner:
            store = self.view(("store", n))
            store[...] = 0 if not system.axes[n] else store
            for axis in range(len(system.axes[n])):
                np.moveaxis(store, axis, 0)[[0, -1]] = 0
            for (owner, at), value in given.ends.items():
                if owner == n:
                    run.write_end(store, n, at, value, ())
            run.stores[n] = store
        values: dict[Node, np.ndarray] = {n: np.asarray(n.params[0], run.real) for n in machine.plan.constants}
        for n, place in machine.writer.outside.items():
            if not self.by_reference(n):
                dims = tuple(self.size(d) for d in machine.writer.dims(n))
                whole = self.view(("node", n))[..., :int(np.prod(dims, initial=1))]
                values[n] = whole.reshape(*whole.shape[:-1], *dims)
        for key in self.words:
            if key[0] == "matrix":
                _, u, v = contraction(key[1])
                values[key[1]] = self.view(key)[:self.size(machine.writer.dims(u)[0]), :self.size(
                    machine.writer.dims(v)[0])]
            elif key[0] == "offset":
                self.context[self.words[key]] = given.offsets.get(key[1], 0)
        scratch = np.empty(threads * self.scratch + ALIGN, np.uint8)
        first = scratch.ctypes.data + -scratch.ctypes.data % ALIGN
        address = self.context.ctypes.data
        pending = list(self.bound)
        keepers = []
        with np.errstate(all="ignore"):
            for kind, names in machine.steps:
                if kind == "reference":
                    for _, step in names:
                        step(run, values, {})
                    continue
                left = []
                for k, place in pending:
                    array = values.get(place.of) if place.kind == "node" else run.stores.get(
                        place.of) if place.of in self.late else run.store(place.of)
                    if array is None:
                        left.append((k, place))
                        continue
                    keepers.append(self.bind(k, place, array))
                pending = left
                functions = [machine.code.functions[n] for n in names]
                batch = given.batch if kind == "rows" else 0
                parts = min(threads, given.batch) if kind == "rows" else threads

                def work(part, functions=functions, batch=batch, parts=parts):
                    low, high = (batch * part // parts, batch * (part + 1) // parts) if batch else (part, parts)
                    for function in functions:
                        function(address, first + part * self.scratch, low, high)

                share(work, parts)

    def bind(self, k: int, place: Place, array: np.ndarray) -> np.ndarray:
        """An array that lies elsewhere gets its address; what is not in order is copied."""
        array = np.ascontiguousarray(array, self.dtype)
        self.context[k] = array.ctypes.data
        if place.kind == "node":  # an axis of one position stands for all
            lead = (*place.axes, *((BATCH,) if place.batched else ()))
            step = int(np.prod(array.shape[len(lead):], initial=1))
            for axis, count in reversed(list(zip(lead, array.shape))):
                word = self.words.get(("stride", place, axis))
                if word is not None:
                    self.context[word] = 0 if count == 1 else step
                if axis != BATCH and count != 1:
                    self.context[k] -= step * self.machine.bytes
                step *= count
        return array
