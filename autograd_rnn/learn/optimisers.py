"""Optimisers as equations on plain arrays: SGD, RMSProp, Adam, AdamW, and gradient clipping.

parameters, gradients, state -> parameters, state. The update equations are those of torch.optim (version 2), so the two
can be compared step by step. State is a dict name -> slot -> array, empty at the start; what has no gradient (sizes,
constants) passes through untouched.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from ..errors import CellError

Arrays = dict[str, np.ndarray]
State = dict[str, Arrays]
Rule = Callable[[np.ndarray, np.ndarray, Arrays, float], tuple[np.ndarray, Arrays]]


@dataclass(frozen=True)
class Optimiser:
    """A learning rate and a rule (p, g, slots, rate) -> (p, slots), applied to each array that has a gradient.

    name: of what the state means. Optimisers that differ in their numbers alone share it.
    """

    name: str
    rate: float
    rule: Rule

    def update(self, params: Mapping[str, np.ndarray], gradients: Mapping[str, np.ndarray], state: State,
               rate: float | None = None) -> tuple[Arrays, State]:
        """One step: new parameters and new state; what was given is left as it was.

        gradients: by name, each of its parameter's shape; names that are no parameters (inputs, "h[0]") are passed
        over. state: {} at the start. rate: of this step, where a schedule says so.

        >>> w, state = sgd(0.1).update({"w": np.array([1.0, 2.0])}, {"w": np.array([1.0, -1.0])}, {})
        >>> w["w"]
        array([0.9, 2.1])
        """
        new, slots = dict(params), dict(state)
        for name, p in params.items():
            if name not in gradients:
                continue
            p, g = np.asarray(p), np.asarray(gradients[name])
            if p.dtype.kind not in "fc":
                raise CellError(f"The parameter `{name}` has dtype {p.dtype}: a step would be cut to whole numbers.",
                                remedy=f"Give it as floats: np.asarray({name}, float).")
            if g.shape != p.shape:
                raise CellError(f"The gradient of `{name}` has shape {g.shape}; `{name}` has shape {p.shape}.")
            with np.errstate(over="ignore", under="ignore", invalid="ignore"):
                value, kept = self.rule(p, g, state.get(name, {}), float(self.rate if rate is None else rate))
            new[name] = np.asarray(value, p.dtype)
            slots[name] = {k: v if k == "steps" else np.asarray(v, p.dtype) for k, v in kept.items()}
        return new, slots


def sgd(rate: float, momentum: float = 0.0, nesterov: bool = False, decay: float = 0.0) -> Optimiser:
    """v = momentum v + g; p -= rate v, or rate (g + momentum v) with Nesterov; g includes decay p."""
    def rule(p, g, slots, rate):
        g = g + decay * p if decay else g
        if not momentum:
            return p - rate * g, {}
        v = momentum * slots["v"] + g if slots else g
        return p - rate * (g + momentum * v if nesterov else v), {"v": v}

    if nesterov and not momentum:
        raise CellError("Nesterov's step needs momentum.", remedy="Give momentum=0.9, for instance.")
    kind = " with Nesterov momentum" if nesterov else " with momentum" if momentum else ""
    return Optimiser("sgd" + kind, rate, rule)


def rmsprop(rate: float = 0.01, alpha: float = 0.99, eps: float = 1e-8, momentum: float = 0.0,
            decay: float = 0.0) -> Optimiser:
    """s = alpha s + (1 - alpha) g^2; p -= rate g / (sqrt(s) + eps) (Tieleman and Hinton, 2012)."""
    def rule(p, g, slots, rate):
        g = g + decay * p if decay else g
        s = alpha * slots.get("s", 0.0) + (1 - alpha) * g**2
        step = g / (np.sqrt(s) + eps)
        if not momentum:
            return p - rate * step, {"s": s}
        v = momentum * slots.get("v", 0.0) + step
        return p - rate * v, {"s": s, "v": v}

    return Optimiser("rmsprop" + (" with momentum" if momentum else ""), rate, rule)


def adam(rate: float = 1e-3, beta1: float = 0.9, beta2: float = 0.999, eps: float = 1e-8,
         decay: float = 0.0) -> Optimiser:
    """m, v = averages of g and g^2; p -= rate m' / (sqrt(v') + eps), m' and v' freed of their bias towards zero.

    Kingma and Ba, arXiv:1412.6980. decay: added to the gradient, as decay p.
    """
    def rule(p, g, slots, rate):
        return _adam(p, g + decay * p if decay else g, slots, rate, beta1, beta2, eps)

    return Optimiser("adam", rate, rule)


def adamw(rate: float = 1e-3, beta1: float = 0.9, beta2: float = 0.999, eps: float = 1e-8,
          decay: float = 0.01) -> Optimiser:
    """p shrinks by 1 - rate decay, then takes Adam's step (Loshchilov and Hutter, arXiv:1711.05101)."""
    def rule(p, g, slots, rate):
        return _adam(p * (1 - rate * decay), g, slots, rate, beta1, beta2, eps)

    return Optimiser("adamw", rate, rule)


def _adam(p, g, slots, rate, beta1, beta2, eps):
    n = int(slots.get("steps", 0)) + 1
    m = beta1 * slots.get("m", 0.0) + (1 - beta1) * g
    v = beta2 * slots.get("v", 0.0) + (1 - beta2) * g**2
    step = (rate / (1 - beta1**n)) * m / (np.sqrt(v) / (1 - beta2**n)**0.5 + eps)
    return p - step, {"m": m, "v": v, "steps": np.asarray(n)}


OPTIMISERS: dict[str, Callable[..., Optimiser]] = {"sgd": sgd, "rmsprop": rmsprop, "adam": adam, "adamw": adamw}


def clip_norm(gradients: Mapping[str, np.ndarray], limit: float, finite: bool = True) -> tuple[Arrays, float]:
    """(gradients scaled so that their common norm is at most `limit`, their norm before).

    Right for norms from 1e-40 to 1e38 in float32: the largest entry is taken out before anything is squared. Raises
    CellError naming the first gradient that is not finite; finite=False lets such gradients through as they are
    (Pascanu, Mikolov, Bengio, arXiv:1211.5063).

    >>> clipped, norm = clip_norm({"w": np.array([3e38, 4e38])}, 1.0)
    >>> clipped["w"], norm
    (array([0.6, 0.8]), 5e+38)
    """
    _positive(limit)
    if finite:
        _finite(gradients)
    top = float(np.max([np.max(np.abs(g), initial=0) for g in gradients.values()], initial=0))
    if not top or not np.isfinite(top):
        return dict(gradients), top
    wide = {name: np.asarray(g, np.result_type(g, np.float64)) / top for name, g in gradients.items()}
    root = float(np.sqrt(sum(np.sum(g**2) for g in wide.values())))
    with np.errstate(over="ignore"):
        fits = root <= np.float64(limit) / top
    if fits:
        return dict(gradients), top * root
    return {name: (g * (limit / root)).astype(gradients[name].dtype) for name, g in wide.items()}, top * root


def clip_value(gradients: Mapping[str, np.ndarray], limit: float, finite: bool = True) -> Arrays:
    """Each entry held within [-limit, limit]; entries that are not finite raise, unless finite=False.

    >>> clip_value({"w": np.array([-3.0, 0.5])}, 1.0)["w"]
    array([-1. ,  0.5])
    """
    _positive(limit)
    if finite:
        _finite(gradients)
    return {name: np.clip(g, -limit, limit) for name, g in gradients.items()}


def _positive(limit) -> None:
    if not limit > 0:
        raise CellError(f"The limit of clipping is {limit}.", remedy="Give a positive number.")


def _finite(gradients: Mapping[str, np.ndarray]) -> None:
    for name, g in gradients.items():
        if not np.isfinite(g).all():
            raise CellError(f"The gradient of `{name}` is not finite.",
                            remedy="Clipping cannot mend it: lower the learning rate, or look at the data.")
