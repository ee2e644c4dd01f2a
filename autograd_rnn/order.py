"""The order of a recurrence: only what lies on a cycle through time stays in a loop.

    equations -> the rolled dependence graph -> condensation -> a list of operations and (nested) loops

Every operation at a generic step is a vertex, and so is every equation; every use is an edge that carries its distance
along each index: -1, 0, +1, or "*" where all of the index is read, or an end. A component of the graph is looped over
an index whose distances all point one way; the edges it carries drop out, and what is left is ordered the same way.
(Reduced dependence graphs of uniform recurrence equations: Karp, Miller, Winograd, J. ACM 14(3), 1967.)
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from .equations import BATCH, Equation, System
from .errors import CellError
from .graph import CONST, READ, Node, option, topological

if TYPE_CHECKING:
    import networkx

Vertex = Node | Equation
ALL = "*"


@dataclass(frozen=True)
class Loop:
    """`body` once for each position of `index`, in the order of `sign`."""

    index: str
    sign: int
    body: tuple[Node | Equation | Loop, ...]


def contraction(n: Node) -> tuple[tuple[str, ...], Node, Node] | None:
    """sum_i(sum_j(outer(u, v))) as one product: the indices bound, u and v. It is never spread over i and j."""
    bound: list[str] = []
    while n.op.name == "sum" and option(n) is not None:
        bound.append(str(option(n)))
        n = n.args[0]
    return (tuple(bound), n.args[0], n.args[1]) if bound and n.op.name == "outer" else None


def operands(n: Node) -> tuple[Node, ...]:
    """The nodes whose values this node's value is made from."""
    fused = contraction(n)
    if fused:
        return fused[1:]
    return tuple(a for k, a in enumerate(n.args) if k not in n.op.shape_only)


def dependence_graph(system: System) -> networkx.DiGraph:
    """The rolled graph: operations and equations as vertices, uses as edges with their distances."""
    import networkx

    graph = networkx.DiGraph()
    for n in topological((eq.value for eq in system.equations), operands):
        if n.op is CONST:
            continue
        graph.add_node(n)
        for a in operands(n):
            if a.op is not CONST:
                graph.add_edge(a, n, distance=_distance(system, a, n))
    for eq in system.equations:
        graph.add_node(eq)
        if eq.value in graph:
            shared = _indices(system, eq.value)
            graph.add_edge(eq.value, eq, distance={i: 0 if i in shared else ALL for i in eq.free})
    for n in list(graph):
        if isinstance(n, Node) and n.op is READ:
            for eq in system.definitions.get(n.params[0], ()):
                distance = reach(eq, n)
                if distance is not None:
                    graph.add_edge(eq, n, distance=distance)
    return graph


def rolled_graph(system: System) -> networkx.DiGraph:
    """The same graph to look at: nodes "h[t]" or "mul 3" with op, variable, equation, indices and shape."""
    import networkx

    graph = dependence_graph(system)
    shown = networkx.DiGraph()
    label: dict[Vertex, str] = {}
    for k, v in enumerate(graph):
        if isinstance(v, Equation):
            label[v] = str(v)
            facts: dict[str, Any] = {"op": "define", "variable": v.name, "equation": str(v), "indices": v.free,
                     "shape": system.shapes[v.name]}
        else:
            label[v] = f"{v.op.name} {k}"
            facts = {"op": v.op.name, "variable": v.params[0] if v.op is READ else None, "equation": None,
                     "indices": tuple(sorted(_indices(system, v))), "shape": system.inferred.nodes[v]}
            if v.op is READ:
                facts["at"] = tuple(map(str, v.params[1]))
        shown.add_node(label[v], **facts)
    for eq in system.equations:  # each operation belongs to the first equation that needs it
        for n in topological([eq.value], operands):
            if n in label and shown.nodes[label[n]]["equation"] is None:
                shown.nodes[label[n]]["equation"] = str(eq)
    shown.add_edges_from((label[a], label[b], {"distance": d}) for a, b, d in graph.edges(data="distance"))
    return shown


def _indices(system: System, v: Vertex) -> frozenset[str]:
    return frozenset(v.free) if isinstance(v, Equation) else system.free(v) - {BATCH}


def _distance(system: System, a: Node, n: Node) -> dict[str, int | str]:
    """0 along what both vary with; a reduction reads all of its index."""
    mine, theirs = _indices(system, n), _indices(system, a)
    fused = contraction(n)
    bound = set(fused[0]) if fused else {option(n)} if n.op.fill is not None else set()
    return {i: 0 if i in mine & theirs and i not in bound else ALL for i in mine | theirs}


def reach(eq: Equation, n: Node) -> dict[str, int | str] | None:
    """The distances at which a read meets a definition, or None where it never does."""
    distance: dict[str, int | str] = {}
    for p, d in zip(n.params[1], eq.at):
        if d.base == "i":
            if p.outside:
                return None
            distance[p.index] = p.offset if p.base == "i" else ALL
        else:
            if not (p == d or (p.base == "i" and p.offset == (-1 if d.base == "1" else 1))):
                return None
            distance[p.index] = ALL
    return distance


def schedule(system: System) -> tuple[Node | Equation | Loop, ...]:
    """Operations and loops in an order in which everything is ready when it is read."""
    steps, stuck = _ordered(system)
    for component, edges in stuck:
        names, _ = _cycle(component, edges)
        fact = f"These equations wait for each other: {_path(names)}."
        remedy = "Every way around must step back (or forward) along one index: read one of them at `[t-1]`."
        raise names[0].line.error(fact, 0, remedy) if names[0].line else CellError(fact, remedy=remedy)
    return steps


def waiting(system: System) -> list[tuple[tuple[Equation, ...], bool, str]]:
    """Equations that wait for each other, so that no order runs through them; whether they do so within a step, and not
    by stepping both back and forward; a way round: a -> b -> a."""
    found = [(component, *_cycle(component, edges)) for component, edges in _ordered(system)[1]]
    return [(tuple(v for v in component if isinstance(v, Equation)), still, _path(names))
            for component, names, still in found]


def _ordered(system: System) -> tuple[tuple, list[tuple[list, list]]]:
    """The steps, and the components with their edges that no index carries."""
    graph = dependence_graph(system)
    rank = {v: k for k, v in enumerate(graph)}
    edges = [(a, b, d) for a, b, d in graph.edges(data="distance")]
    stuck: list[tuple[list, list]] = []
    return _order(system, list(graph), edges, rank, stuck), stuck


def _order(system, vertices, edges, rank, stuck) -> tuple:
    import networkx

    graph = networkx.DiGraph()
    graph.add_nodes_from(vertices)
    graph.add_edges_from((a, b) for a, b, _ in edges)
    condensed = networkx.condensation(graph)
    members = condensed.nodes(data="members")
    first = {c: min(rank[v] for v in vs) for c, vs in members}
    inner: dict[int, list] = {}
    where = condensed.graph["mapping"]
    for a, b, d in edges:
        if where[a] == where[b]:
            inner.setdefault(where[a], []).append((a, b, d))
    steps: list = []
    for c in networkx.lexicographical_topological_sort(condensed, key=first.__getitem__):
        component = sorted(members[c], key=rank.__getitem__)
        if c not in inner:
            steps.extend(component)
            continue
        way = _loop_index(system, inner[c])
        if way is None:
            stuck.append((component, inner[c]))
            continue
        index, sign = way
        left = [(a, b, d) for a, b, d in inner[c] if d[index] == 0]
        steps.append(Loop(index, sign, _order(system, component, left, rank, stuck)))
    return tuple(steps)


def _loop_index(system, edges) -> tuple[str, int] | None:
    """An index along which all of a component's distances point one way: data indices before model indices."""
    found = {i for _, _, d in edges for i in d}
    for i in sorted((i for i in system.indices if i in found), key=lambda i: i in system.model):
        distances = {d.get(i, ALL) for _, _, d in edges}
        if ALL not in distances and distances != {0} and (max(distances) <= 0 or min(distances) >= 0):
            return i, 1 if min(distances) < 0 else -1
    return None


def _cycle(component, edges) -> tuple[list[Equation], bool]:
    """The equations of one cycle, or of the component where a cycle has none; one that takes no step where there is."""
    import networkx

    stays = networkx.DiGraph([(a, b) for a, b, d in edges if not any(i in (-1, 1) for i in d.values())])
    still = not networkx.is_directed_acyclic_graph(stays)
    cycle = [a for a, _ in networkx.find_cycle(stays if still else networkx.DiGraph([(a, b) for a, b, _ in edges]))]
    found = [v for v in cycle if isinstance(v, Equation)] if still else []
    return found or [v for v in component if isinstance(v, Equation)], still


def _path(names: list[Equation]) -> str:
    shown = [str(v) for v in names[:8]] + ["..."] * (len(names) > 8)
    return " -> ".join([*shown, str(names[0])])
