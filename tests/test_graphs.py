"""The rolled and the unrolled graph as NetworkX graphs, the order, and what each step contributes."""

import networkx as nx
import numpy as np
import pytest
import systems

from autograd_rnn import Cell, CellError, zoo
from autograd_rnn.equations import Equation
from autograd_rnn.order import Loop


@pytest.mark.parametrize("name", list(zoo))
def test_rolled_graph(name):
    cell = zoo[name]
    graph = cell.graph
    assert isinstance(graph, nx.DiGraph)
    for _, facts in graph.nodes(data=True):
        assert {"op", "variable", "equation", "indices", "shape"} <= set(facts)
        assert facts["equation"] in cell.equations
    defined = {n for n, facts in graph.nodes(data=True) if facts["op"] == "define"}
    assert defined == set(cell.equations)
    delays = {d["distance"]["t"] for _, _, d in graph.edges(data=True) if "t" in d["distance"]}
    assert {0, -1, "*"} <= delays <= {0, -1, 1, "*"}
    steps = lambda d: [v for v in d["distance"].values() if v in (-1, 1)]
    carried = nx.DiGraph((a, b) for a, b, d in graph.edges(data=True) if not steps(d))
    assert nx.is_directed_acyclic_graph(carried) and not nx.is_directed_acyclic_graph(graph)


@pytest.mark.parametrize("T", [1, 2, 7])
@pytest.mark.parametrize("name", list(zoo))
def test_unrolled_graph(name, T):
    cell = zoo[name]
    params, inputs = systems.draw(cell, T=T)
    others = {i.upper(): n for i, n in systems.extents(cell, T).items() if i != "t"}
    graph = cell.unroll(T=T, **others).graph
    assert nx.is_directed_acyclic_graph(graph)
    for _, facts in graph.nodes(data=True):
        assert {"op", "time", "gate", "shape"} <= set(facts)
    state = cell.states[-1]
    steps = {facts["time"] for _, facts in graph.nodes(data=True)
             if facts["op"] == "variable" and facts["gate"] == state}
    assert steps - {None} == set(range(1, T + 1))  # a first state that the text defines has no step
    assert nx.utils.graphs_equal(graph, cell.unroll(params, **inputs).graph)


def test_unroll_asks_for_what_it_needs():
    with pytest.raises(CellError, match="how far to unroll"):
        zoo["rnn"].unroll()
    with pytest.raises(CellError, match="at least one step"):
        zoo["rnn"].unroll(T=0)


@pytest.mark.parametrize("name", systems.SHORT_FIRST)
def test_contributions_of_steps_sum_to_the_gradient(name):
    cell = systems.with_loss(zoo[name])
    params, inputs = systems.draw(cell, T=6)
    backward = cell.unroll(params, **inputs).backward()
    _, gradient = cell.gradient(params, **inputs)
    for parameter in cell.parameters:
        steps = backward.steps(parameter)
        assert steps.shape == (6, *params[parameter].shape)
        np.testing.assert_allclose(steps.sum(axis=0), gradient[parameter], rtol=1e-11, atol=1e-13)
    with pytest.raises(CellError, match="no parameter"):
        backward.steps("x")


def test_the_last_step_contributes_what_one_step_gives():
    """The contribution of step T alone is the gradient with everything before it held fixed."""
    cell = Cell(zoo["rnn"].text + "\nL = sum(h[T])")
    params, inputs = systems.draw(cell, T=5)
    steps = cell.unroll(params, **inputs).backward().steps("U")
    before = {"h": cell.run(params, x=inputs["x"][:-1]).final["h"]}
    _, last = cell.gradient(params, initial=before, x=inputs["x"][-1:])
    np.testing.assert_allclose(steps[-1], last["U"], rtol=1e-13)


def flat(steps):
    for s in steps:
        yield from flat(s.body) if isinstance(s, Loop) else [s]


def in_loops(cell):
    return [v for s in cell.schedule if isinstance(s, Loop) for v in flat([s])]


def test_only_what_lies_on_a_cycle_stays_in_the_loop():
    backward = Cell(zoo["lstm"].text + "\ny[t] = V @ h[t]\nL = sum_t(cross_entropy(y[t], k[t]))").backward()
    loops = [s for s in backward.schedule if isinstance(s, Loop)]
    assert [(s.index, s.sign) for s in loops] == [("t", 1), ("t", -1)]
    inside = in_loops(backward)
    products = [v for v in inside if not isinstance(v, Equation) and v.op.name == "matmul"]
    assert len(products) == 8, "four recurrent products forward, four backward"
    assert not any(v.op.name in ("outer", "cross_entropy") for v in inside if not isinstance(v, Equation))
    assert {str(v) for v in inside if isinstance(v, Equation)}.isdisjoint({"y[t]", "dW_i", "dU_i", "dx[t]", "dV"})


def test_recurrences_that_do_not_feed_each_other_are_two_loops():
    cell = Cell("a[t] = tanh(U @ a[t-1] + x[t])\nb[t] = tanh(V @ b[t+1] + x[t])\ny[t] = a[t] + b[t]")
    assert [(s.index, s.sign) for s in cell.schedule if isinstance(s, Loop)] == [("t", 1), ("t", -1)]


def test_depth_is_an_index_like_time():
    cell = Cell("l: axis\nh[t,0] = x[t]\nh[t,l] = tanh(W[l] @ h[t,l-1] + U[l] @ h[t-1,l])")
    (outer,) = [s for s in cell.schedule if isinstance(s, Loop)]
    (inner,) = [s for s in outer.body if isinstance(s, Loop)]
    assert (outer.index, inner.index) == ("t", "l")


@pytest.mark.parametrize("text, words", [
    ("a[t] = tanh(b[t])\nb[t] = tanh(a[t] + x[t])", "b[t] -> a[t]"),
    ("a[t] = tanh(b[t+1] + x[t])\nb[t] = tanh(a[t-1])\nc[t] = a[t] + b[t]", "wait for each other"),
    ("h[t] = tanh(h[t-1] + h[t+1] + x[t])", "h[t]"),
    ("h[t] = x[t] + mean_t(h[t])", "h[t]"),
    ("h[t] = x[t] + h[T]", "h[t]"),
])
def test_cycles_are_refused_by_name(text, words):
    with pytest.raises(CellError, match="wait for each other") as caught:
        Cell(text)
    assert words in str(caught.value) or words.replace("b[t] -> a[t]", "a[t] -> b[t]") in str(caught.value)
    assert caught.value.line is not None
