"""Stacked and bidirectional networks from our equations, and how frameworks lay out the weights of one cell.

a zoo cell + layers + directions -> text of calls -> Cell
a framework's stacked arrays <-> the cell's parameters by name, gate by gate
"""

from dataclasses import dataclass
from functools import cache

import numpy as np

from autograd_rnn import Cell

DIRECTIONS = {"forward": "f", "reverse": "b", "bidirectional": "fb"}


@dataclass(frozen=True)
class Layout:
    """A cell, and its gates in the order in which a framework stacks their rows.

    gates: their subscripts, ("",) where there is one and it has none. apart: the gate whose recurrent bias cannot be
    added to its other one (b_Rn inside the reset). peepholes: gates in the order of P's rows.
    """

    cell: Cell
    gates: tuple[str, ...]
    apart: str = ""
    peepholes: tuple[str, ...] = ()

    @property
    def states(self) -> tuple[str, ...]:
        """h first: the order in which frameworks return them."""
        return tuple(sorted(self.cell.states, reverse=True))

    def without_bias(self) -> "Layout":
        biases = {n: 0 for n in self.cell.parameters if n.startswith("b")}
        return Layout(self.cell.substitute(**biases), self.gates, self.apart, self.peepholes)

    def split(self, W, U, b_W=None, b_U=None, P=None, projection=None) -> dict[str, np.ndarray]:
        """The cell's parameters from stacked arrays: rows of gate after gate; two biases are added."""
        count = len(self.gates)
        params = {}
        for k, gate in enumerate(self.gates):
            params[_name("W", gate)], params[_name("U", gate)] = np.split(W, count)[k], np.split(U, count)[k]
            if b_W is not None:
                inner, outer = np.split(b_W, count)[k], np.split(b_U, count)[k]
                params[_name("b", gate)] = inner if gate and gate == self.apart else inner + outer
                if gate and gate == self.apart:
                    params[f"b_R{gate}"] = outer
        for k, gate in enumerate(self.peepholes):
            params[f"p_{gate}"] = np.split(P, len(self.peepholes))[k]
        if projection is not None:
            params["P"] = projection
        assert set(params) == set(self.cell.parameters)
        return params

    def join(self, gradients: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Gradients of the stacked arrays from those of the cell's parameters: both biases get that of their sum."""
        def stack(letter, rename=None):
            names = [(rename or {}).get(g, _name(letter, g)) for g in self.gates]
            return np.concatenate([gradients[n] for n in names]) if names[0] in gradients else None

        recurrent = {self.apart: f"b_R{self.apart}"} if self.apart else {}
        joined = {"W": stack("W"), "U": stack("U"), "b_W": stack("b"), "b_U": stack("b", recurrent),
                  "projection": gradients.get("P")}
        return {name: array for name, array in joined.items() if array is not None}


def _name(letter: str, gate: str) -> str:
    return f"{letter}_{gate}" if gate else letter


def places(layers: int, directions: str) -> list[str]:
    """What follows a state's letter in each layer and direction, in the order of torch and ONNX: 1f, 1b, 2f, ..."""
    return [f"{layer}{d}" for layer in range(1, layers + 1) for d in directions]


@cache
def network(cell: Cell, states: tuple[str, ...], layers: int, directions: str) -> Cell:
    """Layers of a cell, each forward ("f"), backward ("b") or both; outputs: y, and the last value of every state.

    >>> print(network(zoo["rnn"], ("h",), 1, "fb"))
    h1f[t] = cell(x=x[t], h=h1f[t-1])
    h1b[t] = cell(x=x[t], h=h1b[t+1])
    y[t] = concat(h1f[t], h1b[t])
    h1f_last = h1f[T]
    h1b_last = h1b[1]
    """
    lines, source = [], "x"
    for layer in range(1, layers + 1):
        for d in directions:
            targets = [f"{s}{layer}{d}" for s in states]
            back = "t-1" if d == "f" else "t+1"
            passed = ", ".join(f"{s}={target}[{back}]" for s, target in zip(states, targets))
            lines.append(", ".join(f"{n}[t]" for n in targets) + f" = cell(x={source}[t], {passed})")
        heads = [f"h{layer}{d}[t]" for d in directions]
        source = "y" if layer == layers else f"y{layer}"
        lines.append(f"{source}[t] = " + (f"concat({', '.join(heads)})" if len(heads) > 1 else heads[0]))
    for place in places(layers, directions):
        lines += [f"{s}{place}_last = {s}{place}[{'T' if place[-1] == 'f' else '1'}]" for s in states]
    return Cell("\n".join(lines), cell=cell)


def agree(ours, theirs, tolerance: float, what: str, floor: float = 0.0) -> None:
    """The largest difference is at most `tolerance` of the largest entry (or of `floor`, where that is larger)."""
    ours, theirs = np.asarray(ours), np.asarray(theirs)
    assert ours.shape == theirs.shape, f"{what}: shape {ours.shape}, theirs {theirs.shape}"
    assert np.isfinite(theirs).all() and np.isfinite(ours).all(), f"{what} is not finite"
    scale = max(np.abs(theirs).max(), floor)
    error = np.abs(ours - theirs).max()
    assert error <= tolerance * scale, f"{what}: they differ by {error:.3g}; the largest entry is {scale:.3g}"
