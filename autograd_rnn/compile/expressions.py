"""Values as NumPy expressions: what a line of a program may say of a value, where the writing stands."""

from __future__ import annotations

from typing import Any

from .. import primitives as P
from ..equations import BATCH, System
from ..evaluate import plan
from ..graph import CONST, EXTENT, INDEX, READ, Node, Position, Primitive, option
from ..order import contraction, operands
from ..printing.text import ATOM
from ..signature import tokens
from .algebra import at_home, totals

HELPERS = ("""def spread(x, axis, n):
    '''x with n positions along an axis, where it has one that stands for all.'''
    return x if x.shape[axis] == n else np.broadcast_to(x, (*x.shape[:axis], n, *x.shape[axis + 1:]))
""", """def contract(u, v, lead, kept, summed):
    '''The sum of u v' over the axes `summed`, as one product for each position of the axes `kept`.'''
    sides = []
    for x in (u, v):
        comps = x.shape[len(lead):]
        x = np.broadcast_to(x, lead + comps).transpose(*kept, *summed, *range(len(lead) + 1, x.ndim), len(lead))
        sides.append(x.reshape(*(lead[k] for k in kept), -1, comps[0]))
    return np.matmul(np.swapaxes(sides[0], -1, -2), sides[1])
""")


class Text:
    """Source of a value and how strongly it binds: 1 sums, 2 products, 4 powers, 9 what needs no brackets."""

    def __init__(self, text: str, strength: int = ATOM):
        self.text, self.strength = text, strength

    def at_least(self, strength: int) -> str:
        return self.text if self.strength >= strength else f"({self.text})"

    def __format__(self, spec: str) -> str:
        return self.at_least(int(spec or 0))


def bare(system: System) -> frozenset[str]:
    """What is given and read at its own positions alone, so that its array needs no ends."""
    away = {n.params[0] for n in system.reads if not at_home(system, n)}
    return frozenset(n for n in system.given if system.axes[n] and n not in away)


class Expressions:
    """Values of one system as text, by slots for arrays, sizes and values."""

    def __init__(self, system: System):
        self.system, self.plan = system, plan(system)
        self.fixed: tuple[str, ...] = ()
        self.stores: dict[str, str] = {}  # a variable's array, by its slot
        self.sizes: dict[str, str] = {}
        self.bare = bare(system)
        self.resting: dict[str, str] = {}  # carries that lie in one place while a loop runs
        self.known: dict[Node, tuple[Text, tuple[str, ...]]] = {}  # value, and the indices that stood still there
        self.turned: dict[Node, str] = {}  # weights that were transposed before a loop
        self.functions: dict[str, Any] = {}
        self.silent: set[Node] = set()  # values without a line of their own: what they read is read with them
        self.foreign: set[str] = set()  # primitives whose source is not the library's

    def store(self, name: str) -> str:
        """The slot of a variable's array."""
        return self.stores.setdefault(name, f"a{len(self.stores)}")

    def size(self, d) -> str:
        """A size by its slot."""
        return str(d) if isinstance(d, int) or str(d).isdigit() else self.sizes.setdefault(d, f"n{len(self.sizes)}")

    def place(self, i: str) -> str:
        """The loop variable of an index."""
        return f"k{self.system.indices.index(i)}"

    def extent(self, i: str) -> str:
        return f"e{self.system.indices.index(i)}"

    def value(self, n: Node) -> Text:
        """A node's value at the place where the writing stands."""
        if n.op is CONST:
            value = repr(n.params[0]).replace("inf", "np.inf")
            return Text(value, 3 if value.startswith("-") else ATOM)
        if n not in self.known and not n.args:
            return self.read(n) if n.op is READ else self.counted(n)
        text, fixed = self.known[n]
        axes = self.plan.axes(n, fixed)
        here = [f"{self.place(i)} - 1" if i in self.fixed else ":" for i in axes]
        while here and here[-1] == ":":
            here.pop()
        return Text(f"{text.at_least(ATOM)}[{', '.join(here)}]") if here else text

    # --- expressions ---------------------------------------------------------------------------------------------

    def expression(self, n: Node) -> Text:
        fused = contraction(n)
        if fused:
            return self.contraction(n, *fused)
        if n.op.fill is not None:
            return self.reduction(n)
        return self.applied(n)

    def lined(self, a: Node, axes: tuple[str, ...], rank: int | None, bare: bool = False) -> Text:
        """An operand with the axes of its consumer; NumPy itself adds what is missing in front, where `bare`."""
        text = self.value(a)
        if a.op is CONST:
            return text
        subscript = self.plan.line_up(a, axes, self.fixed, rank)
        if subscript is None:
            return text
        parts = ["None" if s is None else ":" for s in subscript]
        if bare:
            while parts and parts[0] == "None":
                parts.pop(0)
            if "None" not in parts:
                return text
        return Text(f"{text.at_least(ATOM)}[{', '.join(parts)}]")

    def applied(self, n: Node) -> Text:
        """A primitive by its operator, its template or its function."""
        axes, rank = self.plan.axes(n, self.fixed), self.system.rank(n)
        if n.op is P.matmul:
            return self.product(n, axes)
        if n.op is P.transpose:
            return Text(f"np.swapaxes({self.value(n.args[0]).text}, -1, -2)" if self.plan.axes(n.args[0], self.fixed)
                        else f"{self.value(n.args[0]).at_least(ATOM)}.T")
        x = [self.lined(a, axes, rank if n.op.pointwise else None, bare=n.op.pointwise) for a in operands(n)]
        if n.op is P.neg:
            return Text(f"-{x[0].at_least(4)}", 3)
        if n.op is P.pow:
            return Text(f"{x[0].at_least(ATOM)}**{n.params[0]!r}", 4)
        if n.op is P.add:
            return Text(" + ".join(t.at_least(2 if k else 1) for k, t in enumerate(x)).replace("+ -", "- "), 1)
        if n.op in (P.mul, P.div):
            return Text(f"{x[0].at_least(2)} {'*' if n.op is P.mul else '/'} {x[1].at_least(3)}", 2)
        if not (n.op.pointwise and n.op.numpy):  # a function wants arrays
            x = [Text(f"np.asarray({t.text}, dtype)") if a.op is CONST else t for a, t in zip(operands(n), x)]
        if n.op.name in ("split", "split_rows", "columns"):
            return self.part(n, x[0])
        if n.op is P.concat and all(a.args or a.op is READ for a in n.args) and len(
                {self.plan.axes(a, self.fixed) for a in n.args}) == 1 and not self.counts(n):
            return Text(f"np.concatenate(({', '.join(t.text for t in x)}), axis=-1)")
        if n.op.numpy is not None:
            return Text(n.op.numpy.format(*x, *n.params, all=", ".join(t.text for t in x)))
        arguments = [t.text for t in x]
        arguments += [self.shape(n.args[k]) for k in n.op.shape_only if k < len(n.args)]
        arguments += [repr(p) for p in n.params]
        if n.op.wants == "rank":
            arguments.append(str(self.system.rank(n.args[-1])))
        if n.op.wants == "shape":
            arguments += [self.shape(n), "dtype"]
        return Text(f"{self.function(n.op)}({', '.join(arguments)})")

    def part(self, n: Node, whole: Text) -> Text:
        """One of the parts that follow one another along the first dimension."""
        dims, k = [self.system.inferred.nodes[a][0] for a in n.args[1:]], n.params[0]
        tail = ", :" if n.op.name == "split_rows" else ""
        return Text(f"{whole.at_least(ATOM)}[..., {self.sum(dims[:k - 1]) or ''}:{self.sum(dims[:k])}{tail}]")

    def sum(self, dims) -> str:
        """A sum of sizes: n0 + 2 * n1."""
        counts: dict[str, int] = {}
        for d in map(self.size, dims):
            counts[d] = counts.get(d, 0) + 1
        return " + ".join(d if many == 1 else f"{many} * {d}" for d, many in counts.items())

    def shape(self, n: Node) -> str:
        dims = self.system.inferred.nodes[n]
        return "(" + "".join(f"{self.size(d)}, " for d in dims).rstrip() + ")" if dims else "()"

    def function(self, op: Primitive) -> str:
        """The name of a primitive's function in the source."""
        value: Any = op.value
        name = getattr(value, "__name__", "")
        if getattr(value, "__module__", None) == "numpy" or isinstance(value, type(P.np.tanh)):
            return f"np.{name}"
        own = getattr(P, name, None) is value
        name = name.lstrip("_") if own else f"f{len(self.functions)}"
        found = next((k for k, f in self.functions.items() if f is value), None)
        if found is None:
            self.functions[name] = value
            self.foreign |= set() if own else {op.name}
        return found or name

    def product(self, n: Node, axes) -> Text:
        """W h for rows of h: h @ W.T; all positions of a shared weight as one product."""
        a, b = n.args
        own = self.plan.axes(a, self.fixed)
        if own or self.system.rank(b) == 2:
            x = [self.lined(t, axes, None) for t in (a, b)]
            return Text(f"{self.function(n.op)}({x[0].text}, {x[1].text})")
        lead = self.plan.axes(b, self.fixed)
        vector = self.value(b)
        weight = f"{self.value(a.args[0]).at_least(ATOM)}" if a.op is P.transpose and not self.plan.axes(
            a.args[0], self.fixed) else f"{self.value(a).at_least(ATOM)}.T"
        if len(lead) < 2:
            return Text(f"{vector.at_least(2)} @ {weight}", 2)
        return Text(f"{self.function(n.op)}({self.value(a).text}, {vector.text})")

    def contraction(self, n: Node, bound, u: Node, v: Node) -> Text:
        own = self.plan.axes(n, self.fixed)
        axes = tuple(sorted({*own, *bound}, key=self.plan.canonical.__getitem__))
        same = all(self.plan.axes(x, self.fixed) == axes and self.system.rank(x) == 1 and not self.counts(x)
                   for x in (u, v))
        if not own and same:
            return Text(f"{self.rows(u)}.T @ {self.rows(v)}", 2)
        lead = "(" + "".join(f"{self.span(i)}, " for i in axes) + ")"
        kept, summed = [axes.index(i) for i in axes if i not in bound], [axes.index(i) for i in bound]
        x = [self.lined(t, axes, None) for t in (u, v)]
        return Text(f"contract({x[0].text}, {x[1].text}, {lead}, {kept}, {summed})")

    def rows(self, n: Node) -> str:
        """A vector's values at all positions, below each other."""
        return f"{self.value(n).at_least(ATOM)}.reshape(-1, {self.size(self.system.inferred.nodes[n][0])})"

    def counts(self, n: Node) -> bool:
        """Whether an index itself stands below a node: its array has one example for all."""
        stack, seen = [n], set()
        while stack:
            m = stack.pop()
            if m.op is INDEX:
                return True
            if m not in seen:
                seen.add(m)
                stack.extend(m.args)
        return False

    def span(self, i: str) -> str:
        return "batch" if i == BATCH else self.extent(i)

    def reduction(self, n: Node) -> Text:
        over, a = option(n), n.args[0]
        comps = self.system.rank(a)
        if over is None:
            if not comps:
                return self.value(a)
            axis: Any = tuple(range(-comps, 0)) if tokens(n)[0][0] == "s" else -1
            return self.reduced(n, self.value(a).text, axis)
        bound, u = totals(n)
        if (not self.plan.axes(n, self.fixed) and {*bound} == {*self.plan.axes(u, self.fixed)} and not self.counts(u)
                and self.system.rank(u) == 1 and (a is u or a in self.silent)):
            return Text(f"np.ones({' * '.join(map(self.span, bound))}, dtype) @ {self.rows(u)}", 2)
        axes = tuple(sorted({*self.plan.axes(n, self.fixed), over}, key=self.plan.canonical.__getitem__))
        text, axis = self.lined(a, axes, None).text, axes.index(over)
        if a.op is CONST:
            text = f"np.full({(1,) * len(axes)}, {text}, dtype)"
        if over not in self.plan.axes(a, self.fixed) or self.counts(a):
            text = f"spread({text}, {axis}, {self.span(over)})"
        if BATCH in axes and over != BATCH and (BATCH not in self.plan.axes(a, self.fixed) or self.counts(a)):
            text = f"spread({text}, {axes.index(BATCH)}, batch)"
        return self.reduced(n, text, axis)

    def reduced(self, n: Node, text: str, axis) -> Text:
        if n.op.numpy is not None:
            return Text(n.op.numpy.format(Text(text), axis))
        return Text(f"{self.function(n.op)}({text}, {axis})")

    def counted(self, n: Node) -> Text:
        """The number of a position, or of the last."""
        i = n.params[0]
        model = i in self.system.model
        if n.op is EXTENT:
            return Text(f"np.full({'()' if model else 'batch'}, {self.extent(i)}, dtype)")
        at = f"np.asarray({self.place(i)})" if i in self.fixed else f"np.arange(1, {self.extent(i)} + 1)"
        column, known = "" if model else "[..., None]", self.system.indices.index(i)
        return Text(f"({at}{column} + offset.get({known}, 0)).astype(dtype)")

    # --- variables -----------------------------------------------------------------------------------------------

    def position(self, p: Position) -> str:
        shift = f" {'+' if p.offset > 0 else '-'} {abs(p.offset)}" if p.offset else ""
        if p.base == "i":
            return f"{self.place(p.index)}{shift}"
        return str(1 + p.offset) if p.base == "1" else f"{self.extent(p.index)}{shift}"

    def read(self, n: Node) -> Text:
        """A variable at a position: a slice of its array, which has its ends at 0 and T + 1."""
        name, at = n.params
        if name in self.resting:
            return Text(self.resting[name])
        store = self.store(name)
        if not at:
            return Text(store)
        parts = []
        for p in at:
            if p.base == "i" and p.index not in self.fixed:
                low, high = (0, 0) if name in self.bare else (1 + p.offset, -1 + p.offset)
                parts.append(f"{low or ''}:{high or ''}")
            else:
                parts.append(self.position(p) + " - 1" * (name in self.bare))
        while parts and parts[-1] == ":":
            parts.pop()
        kept = [p.index for p in at if p.base == "i" and p.index not in self.fixed]
        turn = [kept.index(i) for i in sorted(kept, key=self.plan.canonical.__getitem__)]
        text = f"{store}[{', '.join(parts)}]" if parts else store
        if turn != sorted(turn):
            rest = len(self.system.shapes[name]) + (name in self.system.per_example)
            text += f".transpose({', '.join(map(str, [*turn, *range(len(turn), len(turn) + rest)]))})"
        return Text(text)
