"""Names for parts of expressions, so that an equation's text stays near the size of its graph.

    system + parts of its expressions -> a system with a variable for each

A graph shares what repeats; its text would write it out each time, and twice as much at every level of nesting. So
where an equation would pass LONGEST characters, what stands in it more than once becomes a variable of its own.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace

from .equations import Equation, System, joined
from .graph import READ, Node, Position, node, read, topological

LONGEST = 200  # characters of an equation that is written out whatever it repeats
SHORTEST = 20  # characters that are as well written again as named
NAME = 10  # characters of a variable
MANY = 10**9  # of characters nobody counts more


class Names:
    """Fresh names: none that the text has, none twice."""

    def __init__(self, system: System):
        self.taken = set(system.axes) | set(system.indices) | {i.upper() for i in system.indices}

    def fresh(self, name: str) -> str:
        candidate, k = name, 2
        while candidate in self.taken:
            candidate, k = joined(name, str(k)), k + 1
        self.taken.add(candidate)
        return candidate

    def prefix(self, names: Iterable[str]) -> str:
        """`d`, or the first of d2_, d3_, ... that clashes with no name."""
        k, prefix = 2, "d"
        while any(prefixed(prefix, name) in self.taken for name in names):
            prefix, k = f"d{k}_", k + 1
        return prefix


def tag(at: tuple[Position, ...]) -> str:
    """How a position is told in a name: [t-1] tm1, [t+1] tp1, [T] T, [1] 1."""
    words = []
    for p in at:
        if p.base == "i" and p.offset:
            words.append(p.index + ("m" if p.offset < 0 else "p") + str(abs(p.offset)))
        elif p.base != "i":
            words.append(str(p).replace("+", "p"))
    return joined(*words) if words else ""


def prefixed(prefix: str, name: str) -> str:
    """dh, d2_h; of `_h` d_h, for no name has two underscores in a row."""
    return joined(prefix, name) if prefix.endswith("_") else prefix + name


def holders(system: System) -> dict[Node, Node]:
    """The variable that holds an expression's value, varying with just what the expression varies with."""
    held: dict[Node, Node] = {}
    for eq in system.equations:
        variable = read(eq.name, eq.at)
        if eq.value.args and system.free(variable) == system.free(eq.value):
            held.setdefault(eq.value, variable)
    return held


def images(roots: Iterable[Node], stand_ins: Mapping[Node, Node]) -> dict[Node, Node]:
    """Every node below the roots with whole subexpressions replaced, largest first."""
    new: dict[Node, Node] = {}
    for n in topological(roots, lambda n: () if n in stand_ins else n.args):
        new[n] = stand_ins[n] if n in stand_ins else node(n.op, *(new[a] for a in n.args), params=n.params)
    return new


def replaced(root: Node, stand_ins: Mapping[Node, Node]) -> Node:
    """The expression with whole subexpressions replaced, largest first."""
    return images([root], stand_ins)[root]


def with_names(system: System, homes: Mapping[Node, Equation], stem: Callable[[str], str]) -> System:
    """h = f(e), g = e + 1  ->  a_h = e, h = f(a_h), g = a_h + 1

    homes: each part and the equation that it stands before; where a variable holds it already, that one serves.
    """
    names, held = Names(system), holders(system)
    named: dict[Node, Node] = {}
    before: dict[Equation, list[Equation]] = {}
    axes = dict(system.axes)
    for n, eq in homes.items():
        if n in held:
            named[n] = held[n]
            continue
        free = system.free(n)
        order = tuple(i for i in dict.fromkeys((*eq.free, *system.indices)) if i in free)
        name = names.fresh(joined(stem(eq.name), tag(eq.at)) if eq.end else stem(eq.name))
        axes[name] = order
        named[n] = read(name, tuple(map(Position, order)))
        before.setdefault(eq, []).append(Equation(name, named[n].params[1], n, eq.line))
    if not named:
        return system
    equations = [e for eq in system.equations for e in (*before.get(eq, ()), eq)]
    values = images((a for eq in equations for a in eq.value.args), named)

    def worded(eq: Equation) -> Node:
        stands = named.get(eq.value)
        if stands is not None and stands is not read(eq.name, eq.at):
            return stands
        return node(eq.value.op, *(values[a] for a in eq.value.args), params=eq.value.params)

    return System([replace(eq, value=worded(eq)) for eq in equations], axes, system.model, system.declarations)


# --- what is worth a name ----------------------------------------------------------------------------------------


def first_homes(equations: Iterable[Equation]) -> dict[Node, Equation]:
    """Every node and the first equation that it stands in, operands first."""
    homes: dict[Node, Equation] = {}
    for eq in equations:
        new = topological([eq.value], lambda n: [a for a in n.args if a not in homes])
        homes.update((n, eq) for n in new if n not in homes)
    return homes


def name_parts(system: System, parts: Iterable[Node]) -> System:
    """y = e + f(e)  ->  y_part = e, y = y_part + f(y_part): so dy_part is a variable too.

    A mean over the batch that has a variable, which varies with the batch as all of an index do, gets no second one.
    """
    wanted = set(parts) - ({eq.value for eq in system.equations} - holders(system).keys())
    homes = {n: eq for n, eq in first_homes(system.equations).items() if n in wanted}
    return with_names(system, homes, lambda name: joined(name, "part"))


def repeated(equations: Iterable[Equation]) -> list[Node]:
    """What stands more than once in equations that are too long to be written out, operands first.

    Too long: past LONGEST characters, twice what it takes with names for what is repeated, and twice the line in which
    the author says it.
    """
    equations = tuple(equations)
    order = topological(eq.value for eq in equations)
    uses = Counter(a for n in order for a in n.args) + Counter(eq.value for eq in equations)
    full = written(eq.value for eq in equations)
    named: dict[Node, int] = {}  # characters with names for what is repeated
    short: dict[Node, int] = {}  # and of what stands for it elsewhere
    for n in order:
        own = _own(n)
        named[n] = own + sum(short[a] for a in n.args)
        short[n] = NAME if n.args and uses[n] > 1 and named[n] > SHORTEST else named[n]
    long = {eq.value for eq in equations if full[eq.value] > max(
        LONGEST, 2 * named[eq.value], 2 * len(eq.line.source) if eq.line else 0)}
    return [n for n in topological(long) if short[n] < named[n]]


def written(roots: Iterable[Node]) -> dict[Node, int]:
    """About how many characters each expression below the roots takes where it is written out."""
    full: dict[Node, int] = {}
    for n in topological(roots):
        full[n] = min(_own(n) + sum(full[a] for a in n.args), MANY)
    return full


def _own(n: Node) -> int:
    """Characters of a node beside its operands'."""
    if n.args:
        return 3 * len(n.args) if n.op.infix else len(n.op.name) + 2 * len(n.args)
    if n.op is READ:
        name, at = n.params
        return len(name) + (1 + sum(len(str(p)) + 1 for p in at) if at else 0)
    return len(str(n.params[0]))
