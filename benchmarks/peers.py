"""Everything that is measured, one row each in `PEERS`: how it prepares a piece of work, what it needs, what it can do.

    prepare(work, params, X) -> Prepared: run() once forward and backward; its gradients and outputs by our names, NumPy

A new peer is a function and a row. Whatever it cannot do it says by an exception, which the report shows.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from types import SimpleNamespace
from typing import Any, NamedTuple

import handwritten
import numpy as np
from cells import STEPS, cell, layers, states
from work import Work


class Prepared(NamedTuple):
    run: Callable[[], Any]  # the work, its results ready when it returns
    gradients: Callable[[Any], dict[str, np.ndarray]]  # of a run's results: parameters, and inputs as "x"
    outputs: Callable[[], np.ndarray]  # h at every step


def differentiated(name: str, params: dict) -> tuple[dict, dict]:
    """(parameters, constants) of a cell."""
    wanted = cell(name).parameters
    return {n: params[n] for n in wanted}, {n: p for n, p in params.items() if n not in wanted}


# --- ours --------------------------------------------------------------------------------------------------------


def ours(backend: str, memory: str | None = None) -> Callable[..., Prepared]:
    def prepare(work: Work, params: dict, X: np.ndarray) -> Prepared:
        program = cell(work.cell).compile(backend=backend, memory=memory)
        ones = {"h": np.ones((work.T, *layers(work.cell), work.B, work.H), work.dtype)}
        return Prepared(lambda: program.gradient(params, cotangents=ones, x=X)[1], dict,
                        lambda: program.forward(params, x=X)["h"])

    return prepare


# --- by hand -----------------------------------------------------------------------------------------------------


def by_hand(work: Work, params: dict, X: np.ndarray) -> Prepared:
    run = handwritten.prepare[work.cell](params, X)
    return Prepared(run, lambda found: found[1], lambda: run()[0])


# --- PyTorch -----------------------------------------------------------------------------------------------------

# Our gates in the order of torch's rows. The second bias of its LSTM and RNN stays zero.
LAYERS = {"lstm": ("LSTM", ("_i", "_f", "_g", "_o")), "gru_reset_after": ("GRU", ("_r", "_z", "_n")),
          "rnn": ("RNN", ("",))}


def torch_layer(work: Work, params: dict, X: np.ndarray) -> Prepared:
    import torch

    kind, gates = LAYERS[work.cell]
    layer = getattr(torch.nn, kind)(work.I, work.H, dtype=getattr(torch, work.dtype))
    rows = {letter: np.concatenate([params[letter + gate] for gate in gates]) for letter in "WUb"}
    second = np.zeros_like(rows["b"])
    if "b_Rn" in params:
        second[-work.H:] = params["b_Rn"]
    with torch.no_grad():
        for p, value in zip(layer.parameters(), (rows["W"], rows["U"], rows["b"], second)):
            p.copy_(torch.from_numpy(value))
    x = torch.from_numpy(X).requires_grad_()
    leaves = [*layer.parameters(), x]

    def gradients(found):
        W, U, b, second, dx = (g.numpy() for g in found)
        split = {letter + gate: part for letter, whole in zip("WUb", (W, U, b))
                 for gate, part in zip(gates, np.split(whole, len(gates)))}
        return split | {"x": dx} | ({"b_Rn": second[-work.H:]} if "b_Rn" in params else {})

    return Prepared(lambda: torch.autograd.grad(layer(x)[0].sum(), leaves), gradients,
                    lambda: layer(x)[0].detach().numpy())


def torch_loop(work: Work, params: dict, X: np.ndarray) -> Prepared:
    import torch

    xp = SimpleNamespace(sigmoid=torch.sigmoid, tanh=torch.tanh, relu=torch.relu, concat=torch.cat,
                         split=lambda a, n: torch.chunk(a, n, -1), stack=torch.stack, where=torch.where,
                         cut=torch.Tensor.detach)
    p, constants = ({n: torch.from_numpy(v) for n, v in group.items()} for group in differentiated(work.cell, params))
    x = torch.from_numpy(X).requires_grad_()
    leaves = {**{n: v.requires_grad_() for n, v in p.items()}, "x": x}

    def outputs():
        before, step = STEPS[work.cell](xp, {**p, **constants})
        shape = (*layers(work.cell), work.B, work.H)
        state, found = tuple(x.new_zeros(shape) for _ in range(states(work.cell))), []
        for given in zip(*(a.unbind() for a in before(x))):
            state = step(state, *given)
            found.append(state[0])
        return torch.stack(found)

    return Prepared(lambda: torch.autograd.grad(outputs().sum(), list(leaves.values())),
                    lambda found: {n: g.numpy() for n, g in zip(leaves, found)}, lambda: outputs().detach().numpy())


def torchscript(work: Work, params: dict, X: np.ndarray) -> Prepared:
    """The loop of an LSTM, compiled; the product with the inputs outside."""
    import torch
    from scripted import lstm_loop

    loop = torch.jit.script(lstm_loop)
    p = {n: torch.from_numpy(v).requires_grad_() for n, v in params.items()}
    x = torch.from_numpy(X).requires_grad_()

    def outputs():
        W, U, b = (torch.cat([p[f"{letter}_{gate}"] for gate in "ifog"]) for letter in "WUb")
        return loop(x @ W.T + b, U.T, x.new_zeros(work.B, work.H), x.new_zeros(work.B, work.H))

    leaves = {**p, "x": x}
    return Prepared(lambda: torch.autograd.grad(outputs().sum(), list(leaves.values())),
                    lambda found: {n: g.numpy() for n, g in zip(leaves, found)}, lambda: outputs().detach().numpy())


# --- JAX ---------------------------------------------------------------------------------------------------------


def jax_scan(hoisted: bool) -> Callable[..., Prepared]:
    """hoisted: what needs no state is computed for all steps before the scan; otherwise in each."""

    def prepare(work: Work, params: dict, X: np.ndarray) -> Prepared:
        import jax
        import jax.numpy as jnp

        jax.config.update("jax_enable_x64", work.dtype == "float64")
        xp = SimpleNamespace(sigmoid=jax.nn.sigmoid, tanh=jnp.tanh, relu=jax.nn.relu, concat=jnp.concatenate,
                             split=lambda a, n: jnp.split(a, n, -1), stack=jnp.stack, where=jnp.where,
                             cut=jax.lax.stop_gradient)
        p, constants = ({n: jnp.asarray(v) for n, v in part.items()} for part in differentiated(work.cell, params))
        x, zeros = jnp.asarray(X), jnp.zeros((*layers(work.cell), work.B, work.H), work.dtype)

        def outputs(p, x):
            before, step = STEPS[work.cell](xp, {**p, **constants})

            def scanned(state, given):
                state = step(state, *(given if hoisted else before(given)))
                return state, state[0]

            return jax.lax.scan(scanned, (zeros,) * states(work.cell), before(x) if hoisted else x)[1]

        gradient = jax.jit(jax.value_and_grad(lambda p, x: outputs(p, x).sum(), argnums=(0, 1)))
        return Prepared(lambda: jax.block_until_ready(gradient(p, x)),
                        lambda found: {n: np.asarray(g) for n, g in {**found[1][0], "x": found[1][1]}.items()},
                        lambda: np.asarray(jax.jit(outputs)(p, x)))

    return prepare


# --- HIPS autograd -----------------------------------------------------------------------------------------------


def hips(work: Work, params: dict, X: np.ndarray) -> Prepared:
    """The products with the inputs before the loop; what indexing returns is added into one array."""
    import autograd.numpy as anp
    from autograd import value_and_grad
    from autograd.tracer import getval

    xp = SimpleNamespace(sigmoid=lambda a: 0.5 * (anp.tanh(0.5 * a) + 1), tanh=anp.tanh,
                         relu=lambda a: anp.maximum(a, 0), concat=anp.concatenate,
                         split=lambda a, n: anp.split(a, n, -1), stack=anp.stack, where=anp.where, cut=getval)
    p, constants = differentiated(work.cell, params)
    zeros = np.zeros((*layers(work.cell), work.B, work.H), work.dtype)

    def outputs(p, X):
        before, step = STEPS[work.cell](xp, {**p, **constants})
        state, found, given = (zeros,) * states(work.cell), [], before(X)
        for t in range(work.T):
            state = step(state, *(a[t] for a in given))
            found.append(state[0])
        return found

    gradient = value_and_grad(lambda leaves: sum(anp.sum(h) for h in outputs(leaves, leaves["x"])))
    leaves = {**p, "x": X}
    return Prepared(lambda: gradient(leaves), lambda found: found[1], lambda: np.stack(outputs(p, X)))


# --- PyTensor ----------------------------------------------------------------------------------------------------


def pytensor_scan(work: Work, params: dict, X: np.ndarray) -> Prepared:
    """It pins a Numba older than others need: give it an environment of its own, `speed.py --python PyTensor=PATH`."""
    import pytensor
    import pytensor.tensor as pt

    xp = SimpleNamespace(sigmoid=pt.sigmoid, tanh=pt.tanh, relu=lambda a: pt.maximum(a, 0), concat=pt.concatenate,
                         split=lambda a, n: [a[..., k * work.H:(k + 1) * work.H] for k in range(n)])
    p, constants = differentiated(work.cell, params)
    values = {**p, "x": X}
    leaves = {n: pt.tensor(n, dtype=work.dtype, shape=v.shape) for n, v in values.items()}
    before, step = STEPS[work.cell](xp, {**leaves, **constants})
    given, states_ = list(before(leaves["x"])), [pt.zeros((work.B, work.H), dtype=work.dtype)] * states(work.cell)
    found = pytensor.scan(lambda *a: list(step(a[len(given):len(given) + len(states_)], *a[:len(given)])),
                          sequences=given, outputs_info=states_, return_updates=False)
    h = found[0] if isinstance(found, list | tuple) else found
    gradient = pytensor.function(list(leaves.values()), pytensor.grad(h.sum(), list(leaves.values())))
    return Prepared(lambda: gradient(*values.values()), lambda found: dict(zip(leaves, found)),
                    lambda: pytensor.function(list(leaves.values()), h)(*values.values()))


# --- the table ---------------------------------------------------------------------------------------------------


class Peer(NamedTuple):
    """A system: what it is called, how it prepares, what it imports, the cells it has."""

    name: str
    prepare: Callable[..., Prepared]
    imports: tuple[str, ...]
    cells: Collection[str] = STEPS


OURS = (Peer("autograd_rnn, llvm", ours("llvm"), ("autograd_rnn", "llvmlite")),
        Peer("autograd_rnn, numpy", ours("numpy"), ("autograd_rnn",)))
BUDGETED = Peer("autograd_rnn, llvm, 64MB", ours("llvm", "64MB"), ("autograd_rnn", "llvmlite"), ())  # growth alone
PEERS = {peer.name: peer for peer in (
    Peer("torch layer", torch_layer, ("torch",), LAYERS),
    Peer("JAX scan", jax_scan(hoisted=False), ("jax",)),
    Peer("JAX scan, hoisted", jax_scan(hoisted=True), ("jax",)),
    Peer("torch loop", torch_loop, ("torch",)),
    Peer("TorchScript loop", torchscript, ("torch",), ("lstm",)),
    Peer("NumPy by hand", by_hand, ("numpy",), handwritten.prepare),
    Peer("HIPS autograd", hips, ("autograd",)),
    Peer("PyTensor scan", pytensor_scan, ("pytensor",), ("lstm",)),
    *OURS, BUDGETED,
)}
