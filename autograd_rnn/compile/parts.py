"""Which variables lie in another's array: what is concatenated lies side by side, what is split is split where it lies.

    concat(da_i[t], da_f[t])    da_i and da_f are written where the concatenation is read
    i[t] = part_1(s[t])         i is a part of the array of s
"""

from __future__ import annotations

from collections.abc import Container, Mapping
from typing import NamedTuple

from .. import primitives as P
from ..equations import Equation, System
from ..graph import READ, Node
from .algebra import at_home


class Part(NamedTuple):
    """Where a variable lies: the variable in whose array, after which sizes, and its own size."""

    whole: str
    before: tuple
    size: str | int


def parts(system: System, keep: Container[str], alone: Container[str], level: Mapping[Node | Equation, tuple]
          ) -> dict[str, Part]:
    """The variables that lie in another's array, those of inner loops first.

    keep: names whose arrays are handed out, which are no wholes; alone: those that are no parts either.
    """
    found: dict[str, Part] = {}
    wholes: set[str] = set()
    away = {n.params[0] for n in level if isinstance(n, Node) and n.op is READ and not at_home(system, n)}

    def can_be_whole(name: str) -> bool:
        return (name not in keep and name not in away and name not in found and name in system.defined
                and len(system.definitions[name]) == 1)

    def can_be_part(name: str, whole: str) -> bool:
        return (name not in alone and name not in found and name not in wholes and name in system.defined
                and len(system.shapes[name]) == 1 and system.axes[name] == system.axes[whole]
                and (name in system.per_example) == (whole in system.per_example))

    for eq in sorted(system.equations, key=lambda eq: -len(level[eq])):
        value = eq.value
        if not eq.at or not at_home(system, eq):
            continue
        if value.op is P.concat and can_be_whole(eq.name):
            names = [a.params[0] for a in value.args if a.op is READ and at_home(system, a)]
            if len(set(names)) == len(value.args) and all(
                    can_be_part(n, eq.name) and len(system.definitions[n]) == 1 for n in names):
                sizes = [system.shapes[n][0] for n in names]
                found.update((n, Part(eq.name, tuple(sizes[:k]), sizes[k])) for k, n in enumerate(names))
                wholes.add(eq.name)
        elif value.op is P.split and value.args[0].op is READ and at_home(system, value.args[0]):
            whole, k = value.args[0].params[0], value.params[0]
            if can_be_whole(whole) and can_be_part(eq.name, whole):
                sizes = [system.inferred.nodes[a][0] for a in value.args[1:]]
                found[eq.name] = Part(whole, tuple(sizes[:k - 1]), sizes[k - 1])
                wholes.add(whole)
    return found
