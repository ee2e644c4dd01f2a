"""Everything that is measured, one row each in `PEERS`: how it prepares a piece of work, what it needs, what it can do.

    prepare(work, params, inputs) -> Prepared: run(), forward and backward; gradients and outputs by our names, NumPy

A new peer is a function and a row. Whatever it cannot do it says by an exception, which the report shows.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from types import SimpleNamespace
from typing import Any, NamedTuple

import handwritten
import numpy as np
from cells import MODELS, STEPS, cell, layers, output, states
from work import Work, rows


class Prepared(NamedTuple):
    run: Callable[[], Any]  # the work, its results ready when it returns
    gradients: Callable[[Any], dict[str, np.ndarray]]  # of a run's results: parameters and inputs by name
    outputs: Callable[[], np.ndarray]  # h at every step, or the loss of each example


def differentiated(work: Work, values: dict) -> tuple[dict, dict]:
    """(parameters and inputs, constants and classes) of a cell."""
    leaves = {n: v for n, v in values.items() if n in cell(work.cell).system.having("parameter", "input")}
    return leaves, {n: v for n, v in values.items() if n not in leaves}


def modelled(work: Work, xp: Any, values: dict) -> Any:
    """What the cell gives, as the peer writes it."""
    return MODELS[work.cell](xp, values, *(values[n] for n in cell(work.cell).inputs))


# --- ours --------------------------------------------------------------------------------------------------------


def ours(backend: str, memory: str | None = None) -> Callable[..., Prepared]:
    def prepare(work: Work, params: dict, inputs: dict) -> Prepared:
        program, out = cell(work.cell).compile(backend=backend, memory=memory), output(work.cell)
        ones = {out: np.ones(rows(work, out), work.dtype)} if out == "h" else None
        return Prepared(lambda: program.gradient(params, cotangents=ones, **inputs)[1], dict,
                        lambda: program.forward(params, **inputs)[out])

    return prepare


# --- by hand -----------------------------------------------------------------------------------------------------


def by_hand(work: Work, params: dict, inputs: dict) -> Prepared:
    run = handwritten.prepare[work.cell](params, inputs["x"])
    return Prepared(run, lambda found: found[1], lambda: run()[0])


# --- PyTorch -----------------------------------------------------------------------------------------------------

# Our gates in the order of torch's rows. The second bias of its LSTM and RNN stays zero.
LAYERS = {"lstm": ("LSTM", ("_i", "_f", "_g", "_o")), "gru_reset_after": ("GRU", ("_r", "_z", "_n")),
          "rnn": ("RNN", ("",))}


def torch_layer(work: Work, params: dict, inputs: dict) -> Prepared:
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
    x = torch.from_numpy(inputs["x"]).requires_grad_()
    leaves = [*layer.parameters(), x]

    def gradients(found):
        W, U, b, second, dx = (g.numpy() for g in found)
        split = {letter + gate: part for letter, whole in zip("WUb", (W, U, b))
                 for gate, part in zip(gates, np.split(whole, len(gates)))}
        return split | {"x": dx} | ({"b_Rn": second[-work.H:]} if "b_Rn" in params else {})

    return Prepared(lambda: torch.autograd.grad(layer(x)[0].sum(), leaves), gradients,
                    lambda: layer(x)[0].detach().numpy())


def torch_loop(work: Work, params: dict, inputs: dict) -> Prepared:
    import torch

    def sweep(made, x, states=1, layers=(), reverse=False, first=None):
        before, step = made
        order = slice(None, None, -1 if reverse else 1)
        state, found = first or (x.new_zeros(*layers, work.B, work.H),) * states, []
        for given in list(zip(*(a.unbind() for a in before(x))))[order]:
            state = step(state, *given)
            found.append(state[0])
        return torch.stack(found[order])

    F, dtype = torch.nn.functional, getattr(torch, work.dtype)
    xp = SimpleNamespace(
        sigmoid=torch.sigmoid, tanh=torch.tanh, relu=torch.relu, concat=torch.cat, stack=torch.stack, where=torch.where,
        split=lambda a, n: torch.chunk(a, n, -1), cut=torch.Tensor.detach, join=lambda a: torch.cat(a, -1),
        onehot=lambda k, n: F.one_hot(k, n).to(dtype), sweep=sweep, softmax=lambda a: torch.softmax(a, 0),
        maximum=torch.maximum, softplus=F.softplus, log=torch.log,
        cross_entropy=lambda y, k: F.cross_entropy(y.flatten(0, 1), k.flatten(), reduction="none").view(k.shape))
    leaves, constants = ({n: torch.from_numpy(v) for n, v in group.items()}
                         for group in differentiated(work, {**params, **inputs}))
    for leaf in leaves.values():
        leaf.requires_grad_()

    def outputs():
        return modelled(work, xp, {**leaves, **constants})

    return Prepared(lambda: torch.autograd.grad(outputs().sum(), list(leaves.values())),
                    lambda found: {n: g.numpy() for n, g in zip(leaves, found)}, lambda: outputs().detach().numpy())


def torchscript(work: Work, params: dict, inputs: dict) -> Prepared:
    """The loop of an LSTM, compiled; the product with the inputs outside."""
    import torch
    from scripted import lstm_loop

    loop = torch.jit.script(lstm_loop)
    p = {n: torch.from_numpy(v).requires_grad_() for n, v in params.items()}
    x = torch.from_numpy(inputs["x"]).requires_grad_()

    def outputs():
        W, U, b = (torch.cat([p[f"{letter}_{gate}"] for gate in "ifog"]) for letter in "WUb")
        return loop(x @ W.T + b, U.T, x.new_zeros(work.B, work.H), x.new_zeros(work.B, work.H))

    leaves = {**p, "x": x}
    return Prepared(lambda: torch.autograd.grad(outputs().sum(), list(leaves.values())),
                    lambda found: {n: g.numpy() for n, g in zip(leaves, found)}, lambda: outputs().detach().numpy())


# --- JAX ---------------------------------------------------------------------------------------------------------


def jax_scan(hoisted: bool) -> Callable[..., Prepared]:
    """hoisted: what needs no state is computed for all steps before the scan; otherwise in each."""

    def prepare(work: Work, params: dict, inputs: dict) -> Prepared:
        import jax
        import jax.numpy as jnp

        jax.config.update("jax_enable_x64", work.dtype == "float64")
        def sweep(made, x, states=1, layers=(), reverse=False, first=None):
            before, step = made

            def scanned(state, given):
                state = step(state, *(given if hoisted else before(given)))
                return state, state[0]

            begun = first or (jnp.zeros((*layers, work.B, work.H), work.dtype),) * states
            return jax.lax.scan(scanned, begun, before(x) if hoisted else x, reverse=reverse)[1]

        def cross_entropy(y, k):
            return jax.nn.logsumexp(y, -1) - jnp.take_along_axis(y, k[..., None], -1)[..., 0]

        xp = SimpleNamespace(
            sigmoid=jax.nn.sigmoid, tanh=jnp.tanh, relu=jax.nn.relu, concat=jnp.concatenate, stack=jnp.stack,
            where=jnp.where, split=lambda a, n: jnp.split(a, n, -1), cut=jax.lax.stop_gradient,
            join=lambda a: jnp.concatenate(a, -1), onehot=lambda k, n: jax.nn.one_hot(k, n, dtype=work.dtype),
            cross_entropy=cross_entropy, sweep=sweep, softmax=lambda a: jax.nn.softmax(a, 0), maximum=jnp.maximum,
            softplus=jax.nn.softplus, log=jnp.log)
        leaves, constants = ({n: jnp.asarray(v) for n, v in group.items()}
                             for group in differentiated(work, {**params, **inputs}))

        def outputs(leaves):
            return modelled(work, xp, {**leaves, **constants})

        gradient = jax.jit(jax.value_and_grad(lambda leaves: outputs(leaves).sum()))
        return Prepared(lambda: jax.block_until_ready(gradient(leaves)),
                        lambda found: {n: np.asarray(g) for n, g in found[1].items()},
                        lambda: np.asarray(jax.jit(outputs)(leaves)))

    return prepare


# --- HIPS autograd -----------------------------------------------------------------------------------------------


def hips(work: Work, params: dict, inputs: dict) -> Prepared:
    """The products with the inputs before the loop; what indexing returns is added into one array."""
    import autograd.numpy as anp
    from autograd import value_and_grad
    from autograd.tracer import getval

    xp = SimpleNamespace(sigmoid=lambda a: 0.5 * (anp.tanh(0.5 * a) + 1), tanh=anp.tanh,
                         relu=lambda a: anp.maximum(a, 0), concat=anp.concatenate,
                         split=lambda a, n: anp.split(a, n, -1), stack=anp.stack, where=anp.where, cut=getval)
    leaves, constants = differentiated(work, {**params, **inputs})
    zeros = np.zeros((*layers(work.cell), work.B, work.H), work.dtype)

    def outputs(leaves):
        before, step = STEPS[work.cell](xp, {**leaves, **constants})
        state, found, given = (zeros,) * states(work.cell), [], before(leaves["x"])
        for t in range(work.T):
            state = step(state, *(a[t] for a in given))
            found.append(state[0])
        return found

    gradient = value_and_grad(lambda leaves: sum(anp.sum(h) for h in outputs(leaves)))
    return Prepared(lambda: gradient(leaves), lambda found: found[1], lambda: np.stack(outputs(leaves)))


# --- PyTensor ----------------------------------------------------------------------------------------------------


def pytensor_scan(work: Work, params: dict, inputs: dict) -> Prepared:
    """It pins a Numba older than others need: give it an environment of its own, `speed.py --python PyTensor=PATH`."""
    import pytensor
    import pytensor.tensor as pt

    xp = SimpleNamespace(sigmoid=pt.sigmoid, tanh=pt.tanh, relu=lambda a: pt.maximum(a, 0), concat=pt.concatenate,
                         split=lambda a, n: [a[..., k * work.H:(k + 1) * work.H] for k in range(n)])
    values, constants = differentiated(work, {**params, **inputs})
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
    cells: Collection[str] = MODELS


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
    Peer("HIPS autograd", hips, ("autograd",), STEPS),
    Peer("PyTensor scan", pytensor_scan, ("pytensor",), ("lstm",)),
    *OURS, BUDGETED,
)}
