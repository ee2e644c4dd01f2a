"""The storage of a program, checked without running it: every read finds the value that it wants.

The stages of a program are gone through in order, at a few positions of each index. Memory maps an address (an array,
positions, a component) to what was written there last; a value is known by the operation that makes it and by where it
is made. So it is shown, and not only seen in numbers, that no value is replaced before its last read and that no read
comes before its write, in blocks of positions and for values that lie in one place for all steps too.
"""

from itertools import product
from math import prod

from autograd_rnn import primitives as P
from autograd_rnn.compile.llvm.chains import Nest
from autograd_rnn.compile.llvm.machine import Machine
from autograd_rnn.compile.llvm.partition import steps_of
from autograd_rnn.compile.llvm.reduce import reads, taken_whole
from autograd_rnn.compile.llvm.rows import Cluster
from autograd_rnn.compile.llvm.totals import in_memory, summand
from autograd_rnn.derivation.points import small_sizes
from autograd_rnn.equations import BATCH, Equation
from autograd_rnn.graph import CONST, EXTENT, INDEX, READ, Node, Position, topological
from autograd_rnn.order import contraction, operands

COUNTED = (CONST, INDEX, EXTENT)  # what is in no memory
BLOCK = 2  # positions of a chain that are taken at once


class Wrong(AssertionError):
    """A read that finds another value than it wants."""


class Storage:
    def __init__(self, machine: Machine, length: int = 5):
        self.machine, self.system, self.writer = machine, machine.system, machine.writer
        self.sizes = small_sizes(self.system)
        self.extents = {i: self.sizes[i] if i in self.system.model else length for i in self.system.indices}
        self.memory: dict[tuple, tuple] = {}
        self.base, self.count = 1, 0

    # --- which value is meant ----------------------------------------------------------------------------------------

    def size(self, d) -> int:
        return d if isinstance(d, int) else int(d) if str(d).isdigit() else self.sizes[d]

    def width(self, n: Node) -> int:
        return prod(map(self.size, self.system.inferred.nodes.get(n, ())))

    def at(self, p: Position, env: dict[str, int]) -> int:
        if p.base == "i":
            return env[p.index] + p.offset
        return p.offset + (1 if p.base == "1" else self.extents[p.index])

    def defined_at(self, name: str, where: tuple[int, ...]) -> tuple[Equation, dict[str, int]] | None:
        """The equation that defines a variable at some positions, and where its indices stand there."""
        for eq in self.system.definitions.get(name, ()):
            if all(1 <= k <= self.extents[p.index] if p.base == "i" else k == self.at(p, {})
                   for p, k in zip(eq.at, where)):
                return eq, {p.index: k for p, k in zip(eq.at, where) if p.base == "i"}
        return None

    def value(self, n: Node, env: dict[str, int], c: int) -> tuple:
        """A component of a value by the operation that makes it, and where; what is given, by its name."""
        while True:
            if n.op is READ:
                name, at = n.params
                where = tuple(self.at(p, env) for p in at)
                found = self.defined_at(name, where)
                if found is None:
                    return "given", name, where, c
                eq, env = found
                c = c if self.system.rank(eq.value) == len(self.system.shapes[name]) else 0
                n = eq.value
            elif n.op is P.split and self.system.rank(n) == 1:
                c += sum(self.width(a) for a in n.args[1:n.params[0]])
                n = n.args[0]
            elif n.op is P.slice:
                c, n = c + n.params[0], n.args[0]
            elif n.op is P.concat:
                for a in n.args:
                    if c < self.width(a):
                        break
                    c -= self.width(a)
                n = a
            else:
                return n, tuple(sorted((i, env[i]) for i in self.system.free(n) - {BATCH} if i in env)), c

    # --- memory ------------------------------------------------------------------------------------------------------

    def address(self, spot, env: dict[str, int], c: int) -> tuple:
        where = [self.at(p, env) for p in spot.at]
        if spot.place.kind == "own" and where:
            where[0] -= self.base
            assert 0 <= where[0] < BLOCK, f"{spot.place.of} is read or written outside its block"
        return spot.place.kind, spot.place.of, tuple(where), c + sum(map(self.size, spot.skipped))

    def read(self, n: Node, spot, env: dict[str, int], where: str) -> None:
        for c in range(self.width(n)):
            wanted, address = self.value(n, env, c), self.address(spot, env, c)
            found = self.memory.get(address)
            self.count += 1
            if found != wanted and not (found is None and wanted[0] == "given"):
                raise Wrong(f"{where} wants {wanted} and finds {found} in {address}")

    def write(self, n: Node, spot, env: dict[str, int], width: int) -> None:
        for c in range(width):
            self.memory[self.address(spot, env, c)] = self.value(n, env, c if self.width(n) > 1 else 0)

    # --- the program -------------------------------------------------------------------------------------------------

    def check(self) -> int:
        """The number of reads, all of which find what they want. Raises Wrong."""
        for kind, x in self.machine.phases:
            if kind == "rows":
                for chain in x:
                    self.chain(chain)
            elif kind == "totals":
                for n in x:
                    self.total(n)
            elif kind in ("reference", "shared"):
                self.whole([s for step in (x if kind == "shared" else [x]) for s in steps_of(step)])
        self.kept()
        return self.count

    def chain(self, chain) -> None:
        if chain.over is None:
            for stage in chain.stages:
                self.stage(stage, {}, 1, 1)
            return
        n = self.extents[chain.over]
        for k in range(1, n + 1, BLOCK):
            after = min(k + BLOCK, n + 1)
            low, high = (k, after) if chain.sign != -1 else (n + 2 - after, n + 2 - k)
            self.base = low
            for stage in chain.stages:
                self.stage(stage, {}, low, high)

    def stage(self, stage, env: dict[str, int], low: int, high: int) -> None:
        if isinstance(stage, Nest):
            positions = range(low, high) if stage.loop.sign == 1 else range(high - 1, low - 1, -1)
            for k in positions:
                for inner in stage.stages:
                    end = self.extents[inner.over[0]] + 1 if inner.over else 1
                    self.stage(inner, {**env, stage.loop.index: k}, 1, end)
            return
        for step in stage.passes:
            index = None if isinstance(step, Cluster) else taken_whole(step)
            over = [i for i in stage.over if i != index]
            ranges = [range(low, high) if i == stage.over[0] else range(1, self.extents[i] + 1) for i in over]
            for where in product(*ranges):
                self.passed(stage, step, {**env, **dict(zip(over, where))}, index)

    def passed(self, stage, step, env: dict[str, int], index: str | None) -> None:
        """One pass at one position: all that it reads, then what it writes."""
        if isinstance(step, Cluster):
            needed = {a: None for n in step.nodes for a in operands(n)} | dict.fromkeys(step.targets)
            for a in needed:
                source = stage.resolved(a)
                if stage.made.get(source) is not step and source.op not in COUNTED:
                    self.read(a, stage.locate(source), env, str(step.dims))
            for n, spots in step.targets.items():
                for spot in spots:
                    self.write(n, spot, env, prod(map(self.size, step.dims)))
            return
        everywhere = [env] if index is None else [{**env, index: k} for k in range(1, self.extents[index] + 1)]
        for a in [step.args[1]] if step.op is P.matmul else reads(stage, step):
            source = stage.resolved(a)
            of_class = source.op is READ and self.system.roles[source.params[0]] == "class"
            for at in everywhere if not of_class and source.op not in COUNTED else ():
                self.read(a, stage.locate(source, rows=step.op is P.matmul), at, repr(step))
        for at in everywhere if index in self.system.free(step) else [env]:
            self.write(step, stage.spots[step], at, self.width(step))

    def total(self, n: Node) -> None:
        """A sum over all rows reads what it sums at every position."""
        fused = contraction(n)
        for root in fused[1:] if fused else summand(n)[1:]:
            for a in topological([root], lambda a: () if in_memory(self.writer, a) else operands(a)):
                if in_memory(self.writer, a):
                    for env in self.everywhere(root):
                        self.read(a, self.writer.locate(a), env, repr(n))

    def everywhere(self, n: Node):
        free = [i for i in self.system.indices if i in self.system.free(n)]
        for where in product(*(range(1, self.extents[i] + 1) for i in free)):
            yield dict(zip(free, where))

    def whole(self, made: list) -> None:
        """What the reference does, or is made of weights alone, reads whole arrays and writes whole arrays."""
        own = {eq.name for eq in made if isinstance(eq, Equation)}
        for s in made:
            if isinstance(s, Node) and s.op is READ and s.params[0] in self.writer.stored - own:
                assert s.params[0] not in self.writer.resting, f"{s.params[0]} is read whole and lies in one place"
                for env in self.everywhere(s):
                    self.read(s, self.writer.locate(s), env, "the reference")
        for s in made:
            if isinstance(s, Equation):
                width = prod(map(self.size, self.system.shapes[s.name]))
                ranges = [range(1, self.extents[p.index] + 1) if p.base == "i" else [self.at(p, {})] for p in s.at]
                for where in product(*ranges):
                    env = {p.index: k for p, k in zip(s.at, where) if p.base == "i"}
                    self.write(s.value, self.writer.spot(s.name, s.at), env, width)
            elif s in self.writer.outside:
                for env in self.everywhere(s):
                    self.write(s, self.writer.locate(s), env, self.width(s))

    def kept(self) -> None:
        """What is handed out is there in the end."""
        for name, whole in self.machine.keep.items():
            for eq in self.system.definitions.get(name, ()):
                if name in self.writer.stored and name in self.system.per_example and (whole or eq.end):
                    ranges = [range(1, self.extents[p.index] + 1) if p.base == "i" else [self.at(p, {})] for p in eq.at]
                    for where in product(*ranges):
                        env = {p.index: k for p, k in zip(eq.at, where) if p.base == "i"}
                        for c in range(prod(map(self.size, self.system.shapes[name]))):
                            at = self.address(self.writer.spot(name, eq.at), env, c)
                            wanted = self.value(eq.value, env, c if self.system.rank(eq.value) else 0)
                            if self.memory.get(at) != wanted and wanted[0] != "given":
                                raise Wrong(f"{name} at {env} is {self.memory.get(at)}")
