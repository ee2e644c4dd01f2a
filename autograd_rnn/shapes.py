"""Shapes by unification: what each primitive's signature says, over all equations at once, names every size.

A shape is a tuple of dimensions: () a number, (n) a vector, (m n) a matrix. Literals, indices and extents fit anywhere.
`infer` settles the shape of every variable and of every node; `solve` turns a few known sizes into all of them.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from heapq import heappop, heappush
from itertools import chain
from typing import Any

from .errors import CellError
from .graph import CONST, EXTENT, INDEX, READ, Node, topological
from .signature import PARTS, class_operands, tokens


class Dim:
    """One size, shared by everything that has been unified with it."""

    __slots__ = ("names", "parent", "size", "where")

    def __init__(self, where, size=None):
        self.parent, self.size, self.where, self.names = None, size, where, []

    def root(self):
        d = self
        while d.parent is not None:
            d.parent, d = d.parent.parent or d.parent, d.parent
        return d


class Shape:
    """A tuple of dimensions, or not known yet; `waiting` are the places of the nodes that want to know."""

    __slots__ = ("dims", "parent", "waiting", "where")

    def __init__(self, where, dims=None):
        self.parent, self.dims, self.where, self.waiting = None, dims, where, []

    def root(self):
        s = self
        while s.parent is not None:
            s.parent, s = s.parent.parent or s.parent, s.parent
        return s

    @property
    def known(self):
        return self.root().dims

    @property
    def rank(self):
        return None if self.known is None else len(self.known)


_WORDS = ("a number", "a vector", "a matrix")


def describe(dims) -> str:
    if dims is None:
        return "of unknown shape"
    names = [str(d.root().size or (d.root().names or ["?"])[0]) for d in dims]
    return _WORDS[len(dims)] + (f" ({', '.join(names)})" if names else "")


@dataclass
class Inferred:
    variables: dict[str, tuple[str | int, ...]]
    nodes: dict[Node, tuple[str | int, ...]]
    aliases: dict[str, tuple[str, ...]]
    sums: tuple[tuple[str | int, tuple[str | int, ...]], ...]
    least: tuple[tuple[str | int, int], ...]  # sizes that a slice reads up to
    classes: dict[str, str | int]  # how many classes a class has


class _Inference:
    def __init__(self, system):
        self.system = system
        self.variables = {name: Shape(None) for name in system.axes}
        self.nodes: dict[Node, Any] = {}  # a Shape, or None for what fits anywhere
        self.sums = []
        self.least = []
        self.declaring: set[str] = set()
        self.classes: dict[str, Dim] = {}
        self.guess: str | None = None  # the name that was last given its usual shape, for want of anything that says it
        self.site = None  # the equation under way: errors and new dimensions name it
        self.told: list[int] = []  # the places of nodes that have learnt something

    # --- unification ---------------------------------------------------------------------------------------------

    def fail(self, fact, remedy=None, other=None):
        line = getattr(self.site, "line", None)
        if self.guess is not None:
            name = self.guess
            remedy = (f"Nothing says what shape `{name}` has; the usual one does not fit. Declare it, for instance "
                      f"`{name}: ()`, a number, or `{name}: (h, x)`, a matrix.")
        if other is not None and getattr(other, "line", None) is not None and other is not self.site:
            if getattr(other, "shape", None) == ():
                remedy = "If it is a vector, leave out the `()` of its declaration, or name its size there."
            remedy = f"It was fixed by line {other.line.number}: {other.line.source.strip()}" + (
                f"\n{remedy}" if remedy else "")
        if line is not None:
            raise line.error(fact, self.column(line.source, fact), remedy)
        raise CellError(fact, remedy=remedy)

    @staticmethod
    def column(source: str, fact: str) -> int | None:
        """Where the operation that a fact names stands, if it stands once in the line."""
        named = re.search(r" in `([^`]+)`", fact)
        places = [] if named is None else [m.start() for m in re.finditer(
            rf"(?<![\w*]){re.escape(named[1])}(?![\w*])" if named[1].isidentifier() else
            rf"(?<!\*){re.escape(named[1])}(?!\*)", source.split("#")[0])]
        return places[0] if len(places) == 1 else None

    def same_dim(self, a: Dim, b: Dim, what=""):
        a, b = a.root(), b.root()
        if a is b:
            return
        if a.size is not None and b.size is not None and a.size != b.size:
            self.fail(f"Sizes {a.size} and {b.size} meet{what}.", "Give both sides the same size.", other=b.where)
        a.size = a.size if a.size is not None else b.size
        a.names += b.names
        b.parent = a

    def same(self, a: Shape, b: Shape, what=""):
        a, b = a.root(), b.root()
        if a is b:
            return
        if a.dims is not None and b.dims is not None:
            if len(a.dims) != len(b.dims):
                self.fail(f"{describe(a.dims).capitalize()} meets {describe(b.dims)}{what}.",
                          "Equal shapes are wanted here; spread a number with `like(a, b)` or multiply by it.",
                          other=b.where)
            for x, y in zip(a.dims, b.dims):
                self.same_dim(x, y, what)
        waiting = sorted((a.waiting, b.waiting), key=len)
        if (a.dims is None) != (b.dims is None):  # those who wait for the one that was open may go on
            self.told += a.waiting if a.dims is None else b.waiting
            a.waiting = []
        else:
            a.waiting = waiting[1]
            a.waiting += waiting[0]
        if a.dims is None:
            a.dims, a.where = b.dims, b.where
        b.parent = a

    def fix(self, shape: Shape, dims: tuple[Dim, ...], what=""):
        self.same(shape, Shape(self.site, dims), what)

    # --- one node ------------------------------------------------------------------------------------------------

    def settle(self, n: Node) -> bool:
        """Apply the node's signature as far as its operands are known; True when nothing is left to do."""
        operands, result = tokens(n)
        what = f" in `{n.op.infix[0] if n.op.infix else n.op.name}`"
        shapes = [self.nodes[a] for a in n.args]
        out = self.nodes[n]
        if n.op.name in PARTS:
            return self.settle_parts(n, shapes, out, what)
        dims: dict[str, Dim] = {}
        rest: tuple[Dim, ...] | None = None
        pairs = [*zip(operands, shapes), (result, out)]
        for token, shape in pairs:  # the optional trailing dimensions of `...`, once one bearer is known
            if "..." in token and shape is None:
                self.fail(f"A number stands{what} where a vector or a matrix belongs.", "Spread it with `like(a, b)`.")
            if "..." in token and shape.known is not None:
                lead = len(token.strip("()").split()) - 1
                if len(shape.known) < lead:
                    self.fail(f"{describe(shape.known).capitalize()} stands{what} where a vector or a matrix belongs.",
                              "Spread a number with `like(a, b)`.", other=shape.root().where)
                rest = shape.known[lead:]
        done = True
        for token, shape in pairs:
            if token == "k":
                if shape is not None:
                    self.fix(shape, (), what)
            elif token.startswith("("):
                names = token.strip("()").split()
                if "..." in names:
                    if rest is None:
                        done = False
                        continue
                    names = names[:-1]
                    tail = rest
                else:
                    tail = ()
                wanted = tuple(dims.setdefault(x, Dim(self.site)) for x in names) + tail
                if shape is None:
                    if wanted:
                        self.fail(f"A number stands{what} where {_WORDS[len(wanted)]} belongs.",
                                  "Spread it with `like(a, b)`.")
                    continue
                if shape.known is not None and len(shape.known) != len(wanted):
                    self.fail(f"{describe(shape.known).capitalize()} stands{what} where {_WORDS[len(wanted)]} belongs.",
                              "Left of `@` and under `.T` stands a matrix.", other=shape.root().where)
                self.fix(shape, wanted, what)
        for k in class_operands(n):  # a class has one number of classes, wherever it stands
            if k.op is READ and "n" in dims:
                count = self.classes.setdefault(k.params[0], Dim(self.site))
                self.same_dim(count, dims["n"], f": the number of classes of `{k.params[0]}`")
        return self.settle_pointwise(n, operands, result, shapes, out, what) and done

    def settle_pointwise(self, n, operands, result, shapes, out, what) -> bool:
        strict = [s for s, token in zip(shapes, operands) if token == "s" and s is not None]
        loose = [s for s, token in zip(shapes, operands) if token == "s?" and s is not None]
        if result == "s" and out is not None and (strict or not loose):
            strict = [*strict, out]
        for s in strict[1:]:
            self.same(strict[0], s, what)
        if not loose:
            return True
        if result != "s" or strict:  # a condition: a number, or the shape of the rest
            target = strict[0] if strict else None
            for s in loose:
                if s.rank and target is not None:
                    self.same(s, target, what)
            return all(s.rank == 0 or s.rank is not None for s in loose)
        if out is None:
            return True
        open_ = [s for s in loose if s.rank is None]
        wide = [s for s in loose if s.rank]
        for s in wide[1:]:
            self.same(wide[0], s, what)
        if wide:
            self.same(out, wide[0], what)
        if not open_:
            if not wide:
                self.fix(out, (), what)
            return True
        if out.rank == 0:
            for s in open_:
                self.fix(s, (), what)
            return True
        if len(open_) == 1 and not wide and all(s.rank == 0 for s in loose if s is not open_[0]):
            self.same(out, open_[0], what)
            return True
        return False

    def settle_parts(self, n, shapes, out, what) -> bool:
        """Parts add up along their first dimension; parts of a matrix share their second. Columns go by vectors."""
        if n.op.name == "columns":
            height, whole, part = Dim(self.site), Dim(self.site), Dim(self.site)
            self.fix(shapes[0], (height, whole), what)
            self.fix(out, (height, part), what)
            for s in shapes[1:]:
                self.fix(s, (s.known[0] if s.known else Dim(self.site),), what)
            self.sums.append((whole, tuple(s.known[0] for s in shapes[1:]), self.site))
            self.same_dim(part, shapes[n.params[0]].known[0], what)
            return True
        sizes, width = [], (Dim(self.site),) if n.op.name.endswith("rows") else ()
        for s in (*shapes, out):
            if s is None:
                self.fail(f"A bare number stands{what} where a vector belongs.", "Spread it with `like(a, b)`.")
            if s.rank not in (None, 1 + len(width)):
                self.fail(f"{describe(s.known).capitalize()} stands{what} where a vector belongs.",
                          "Parts are vectors; spread a number with `like(a, b)`.")
            self.fix(s, (s.known[0] if s.known else Dim(self.site), *width), what)
            sizes.append(s.known[0])
        if n.op.name in ("concat", "rows"):
            self.sums.append((sizes[-1], tuple(sizes[:-1]), self.site))
        elif n.op.name in ("split", "split_rows"):
            self.sums.append((sizes[0], tuple(sizes[1:-1]), self.site))
            self.same_dim(sizes[-1], sizes[n.params[0]], what)
        elif n.op.name == "unslice":
            part, whole, out_size = sizes
            start, stop = n.params
            self.least.append((whole, stop, self.site))
            self.same_dim(part, Dim(self.site, stop - start), what)
            self.same_dim(whole, out_size, what)
        else:
            start, stop = n.params
            self.least.append((sizes[0], stop, self.site))
            self.same_dim(sizes[-1], Dim(self.site, stop - start), what)
        return True

    # --- all nodes -----------------------------------------------------------------------------------------------

    def run(self) -> Inferred:
        system = self.system
        sites: dict[Node, object] = {}  # each node and the first equation that it stands in, operands first
        for eq in system.equations:
            new = topological([eq.value], lambda n: [a for a in n.args if a not in sites])
            sites.update((n, eq) for n in new if n not in sites)
        order = list(sites)
        for n in order:
            if n.op in (CONST, INDEX, EXTENT):
                self.nodes[n] = None
            elif n.op is READ:
                self.nodes[n] = self.variables[n.params[0]]
            else:
                free = all(self.nodes[a] is None for a in n.args) and not tokens(n)[1].startswith("(")
                free = free or (n.op.name == "like" and self.nodes[n.args[1]] is None)
                self.nodes[n] = None if free else Shape(sites[n])
        for d in system.declarations.values():
            if d.name in self.variables and d.shape is not None:
                self.declare(d)
        literals = []
        for eq in system.equations:
            self.site = eq
            if self.nodes[eq.value] is None:
                literals += [eq] * (not eq.end)  # at an end it fits whatever the name is elsewhere
            else:
                self.same(self.variables[eq.name], self.nodes[eq.value], f" in the definition of `{eq.name}`")
        for place, n in enumerate(order):
            for m in (n, *n.args) if n.args else ():
                shape = self.nodes[m]
                if shape is not None and shape.known is None:
                    shape.root().waiting.append(place)
        self.told = [place for place, n in enumerate(order) if n.args]
        defaults = _Defaults(self, order, sites, literals)
        settled: set[Node] = set()
        while True:
            defaults.hear(self.propagate(order, sites, settled))
            if not defaults.give():
                break
        for d, stop, site in self.least:
            self.site = site
            if d.root().size is not None and d.root().size < stop:
                self.fail(f"A slice reads up to component {stop} of a vector of size {d.root().size} in `slice`.",
                          "Slice less, or declare a larger size.")
        return self.result(order)

    def propagate(self, order, sites, settled) -> set[int]:
        """Settle the nodes that have learnt something, in order, until nobody learns more; all that have."""
        heard: set[int] = set()
        later: set[int] = set()
        ahead: list[int] = []
        queued: set[int] = set()
        at = -1
        while True:
            for place in self.told:
                if place > at and place not in queued:
                    heappush(ahead, place)
                    queued.add(place)
                elif place <= at:
                    later.add(place)
            heard.update(self.told)
            self.told = []
            if not ahead:
                if not later:
                    return heard
                self.told, later, at = sorted(later), set(), -1
                continue
            at = heappop(ahead)
            queued.discard(at)
            n = order[at]
            if n not in settled:
                self.site = sites[n]
                if self.settle(n):
                    settled.add(n)

    def declare(self, d):
        """The declared shape; a name in it stands for that name's own dimensions."""
        self.site = d
        self.declaring.add(d.name)
        dims: tuple[Dim, ...] = ()
        if len(d.shape) == 1 and d.shape[0] in self.variables and d.shape[0] != d.name:
            self.same(self.variables[d.name], self.variables[d.shape[0]], f" in the declaration of `{d.name}`")
            return
        for entry in d.shape:
            if isinstance(entry, int) or "." in entry:  # a number, or a size of the name's own: see System.keeping
                dims += (Dim(d, entry if isinstance(entry, int) else None),)
                continue
            if entry not in self.variables:
                names = set(self.variables)
                raise d.line.error(f"`{entry}` in the shape of `{d.name}` is no variable of this text.",
                                   d.line.source.find(entry), f"Name one of {', '.join(sorted(names))}, or a number."
                                   ) if d.line else CellError(f"`{entry}` is no variable of this text.")
            other = self.variables[entry]
            if other.known is None:
                of = self.system.declarations.get(entry)
                if of is not None and of.shape is not None and entry not in self.declaring:
                    self.declare(of)
                    self.site = d
            if other.known is None:
                self.fix(other, (Dim(d),))
            dims += other.known
        if len(dims) > 2:
            self.fail(f"The shape of `{d.name}` has {len(dims)} dimensions.",
                      "A value is a number, a vector or a matrix; further axes are indices, like `W[l]`.")
        self.fix(self.variables[d.name], dims, f" in the declaration of `{d.name}`")

    def result(self, order) -> Inferred:
        named = sorted(self.variables, key=self.system.rank_of_name)
        for name in named:
            if self.variables[name].rank == 1 and name not in self.system.copies:
                self.variables[name].known[0].root().names.append(name)
        for name, d in self.classes.items():  # a class also names the number of its classes
            d.root().names.append(name)
        for name in named:
            for k, d in enumerate(self.variables[name].known):
                if not d.root().names and d.root().size is None:
                    d.root().names.append(f"{name}.{k}")

        def key(d):
            d = d.root()
            if not d.names and d.size is None:
                d.names.append(f"size{id(d)}")
            return d.size if d.size is not None else d.names[0]

        variables = {name: tuple(key(d) for d in self.variables[name].known) for name in self.system.axes}
        roots = [d.root() for name in named for d in self.variables[name].known if d.root().names]
        roots += [d.root() for d in self.classes.values()]
        names = {d: tuple(dict.fromkeys(d.names)) for d in dict.fromkeys(roots)}
        aliases = {str(key(d)): names[d] for d in roots}
        nodes = {n: tuple(key(d) for d in self.nodes[n].known) if self.nodes[n] is not None else () for n in order}
        sums = tuple((key(t), tuple(key(p) for p in parts)) for t, parts, _ in self.sums)
        return Inferred(variables, nodes, aliases, sums, tuple((key(d), stop) for d, stop, _ in self.least),
                        {name: key(d) for name, d in self.classes.items()})


class _Defaults:
    """The usual shapes of names that are still open, one at a time: what is settled never opens again."""

    def __init__(self, inference: _Inference, order, sites, literals):
        self.of, self.order, self.sites = inference, order, sites
        reads = [n for n in order if n.op is READ]
        undefined = [n for n in reads if n.params[0] not in inference.system.defined]
        self.undefined = set(undefined)
        self.vectors = iter([n for n in order if n.op.name == "matmul" and n.args[1] in self.undefined])
        self.factors: list[int] = []  # places of products that may tell an operand the shape of the other
        self.likenesses: list[int] = []  # places of what may tell an operand its own shape
        self.literals = iter(literals)
        self.open = chain(undefined, reads, (n for n in order if inference.nodes[n] is not None))
        self.rest = iter(inference.variables.values())

    def hear(self, places: Iterable[int]) -> None:
        """Nodes in these places have learnt something."""
        for place in places:
            if self.order[place].op.name in ("mul", "div"):
                heappush(self.factors, place)
            if "s?" in tokens(self.order[place])[0]:
                heappush(self.likenesses, place)

    def give(self) -> bool:
        """Right of `@` a vector, else the shape of the factor's company, else a number for a literal, else the result's
        shape, else a vector; False when nothing is open."""
        of, nodes = self.of, self.of.nodes
        of.guess = None
        for n in self.vectors:
            if nodes[n.args[1]].known is None:
                of.site, of.guess = self.sites[n], n.args[1].params[0]
                of.fix(nodes[n.args[1]], (Dim(of.site),))
                return True
        while self.factors:
            n = self.order[heappop(self.factors)]
            for a, b in (n.args, n.args[::-1]):
                if a in self.undefined and nodes[a].known is None and nodes[b] is not None and nodes[b].rank:
                    of.site, of.guess = self.sites[n], a.params[0]
                    of.same(nodes[a], nodes[b])
                    return True
        for eq in self.literals:
            if of.variables[eq.name].known is None:
                of.site = eq
                of.fix(of.variables[eq.name], ())
                return True
        while self.likenesses:  # what might be a number in a product, or as a condition, is like the result
            place = heappop(self.likenesses)
            n = self.order[place]
            for a, token in zip(n.args, tokens(n)[0]) if nodes[n] is not None and nodes[n].rank else ():
                if token == "s?" and nodes[a] is not None and nodes[a].known is None:
                    heappush(self.likenesses, place)  # its other operand may be open too
                    of.site = self.sites[n]
                    of.same(nodes[a], nodes[n])
                    return True
        for n in self.open:
            if nodes[n].known is None:
                of.site, of.guess = self.sites[n], n.params[0] if n.op is READ else None
                of.fix(nodes[n], (Dim(of.site),))
                return True
        for shape in self.rest:
            if shape.known is None:
                of.fix(shape, (Dim(None),))
                return True
        return False


def infer(system) -> Inferred:
    return _Inference(system).run()


def solve(inferred: Inferred, known: dict[str, int]) -> dict[str, int]:
    """All sizes from a few: a concatenation's size is the sum of its parts'."""
    sizes: dict[Any, int] = dict(known)

    def value(d):
        return d if isinstance(d, int) else sizes.get(d)

    changed = True
    while changed:
        changed = False
        for whole, parts in inferred.sums:
            unknown = [d for d in (whole, *parts) if value(d) is None]
            if len(set(unknown)) > 1:
                continue
            if not unknown:
                if value(whole) != sum(value(p) for p in parts):
                    raise CellError(f"The size of `{whole}` is {value(whole)}, but its parts " + " + ".join(
                        f"`{p}`" for p in parts) + f" have {sum(value(p) for p in parts)}.",
                        remedy="Give sizes that add up.")
                continue
            if unknown[0] == whole:
                if whole in parts:
                    continue
                sizes[whole] = sum(value(p) for p in parts)
            else:
                rest, times = value(whole) - sum(value(p) or 0 for p in parts), parts.count(unknown[0])
                if rest <= 0 or rest % times:
                    raise CellError(f"The size of `{whole}` is {value(whole)}; nothing is left for `{unknown[0]}`.",
                                    remedy="Give a larger size.")
                sizes[unknown[0]] = rest // times
            changed = True
    for d, stop in inferred.least:
        if value(d) is not None and value(d) < stop:
            raise CellError(f"A slice reads up to component {stop} of a vector of size {value(d)} (`{d}`).",
                            remedy="Slice less, or give a larger size.")
    return sizes


def carry_over(sizes: dict[str, int], old: Inferred, new: Inferred) -> dict[str, int]:
    """The sizes of a system under the names they have in a system made from it."""
    before, after = ({**of.variables, **{k: (d,) for k, d in of.classes.items()}} for of in (old, new))
    known = {}
    for name, dims in before.items():
        for d, e in zip(dims, after.get(name, ())):
            if isinstance(e, str) and (isinstance(d, int) or d in sizes):
                known[e] = d if isinstance(d, int) else sizes[d]
    return solve(new, known)
