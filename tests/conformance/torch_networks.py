"""torch.nn's recurrent modules as (Cell, parameters), and the comparison of outputs and all gradients.

module -> layout, layers, directions -> Cell and parameters -> outputs and gradients, in torch's names and shapes
"""

from dataclasses import dataclass

import numpy as np
from networks import Layout, agree, network, places

from autograd_rnn import Cell, zoo

LAYOUTS = {
    "RNN_TANH": Layout(zoo["rnn"], ("",)),
    "RNN_RELU": Layout(zoo["rnn_relu"], ("",)),
    "LSTM": Layout(zoo["lstm"], ("i", "f", "g", "o")),
    "LSTM_PROJECTED": Layout(zoo["lstm"].substitute(h="P @ (o[t] * tanh(c[t]))"), ("i", "f", "g", "o")),
    "GRU": Layout(zoo["gru_reset_after"], ("r", "z", "n"), apart="n"),
}
ARRAYS = {"W": "weight_ih", "U": "weight_hh", "b_W": "bias_ih", "b_U": "bias_hh", "projection": "weight_hr"}


@dataclass(frozen=True)
class Network:
    """A torch module in our equations: the cell, its parameters, and torch's suffix for each layer and direction."""

    cell: Cell
    params: dict[str, np.ndarray]
    layout: Layout
    suffixes: dict[str, str]


def layout_of(module) -> Layout:
    """The layout of a module's weights, from its class and its options."""
    kind = type(module).__name__.removesuffix("Cell")
    if kind == "RNN":
        kind = f"RNN_{module.nonlinearity.upper()}"
    if getattr(module, "proj_size", 0):
        kind = "LSTM_PROJECTED"
    return LAYOUTS[kind] if module.bias else LAYOUTS[kind].without_bias()


def from_torch(module, layout: Layout | None = None) -> Network:
    """A recurrent module, or a module of one step (RNNCell and its kin), as equations and parameters."""
    layout = layout or layout_of(module)
    layers = getattr(module, "num_layers", 0)
    directions = "fb" if getattr(module, "bidirectional", False) else "f"
    suffixes = {place: f"_l{int(place[:-1]) - 1}" + ("_reverse" if place[-1] == "b" else "") if layers else ""
                for place in places(layers or 1, directions)}
    params = {}
    for place, suffix in suffixes.items():
        arrays = {ours: getattr(module, name + suffix, None) for ours, name in ARRAYS.items()}
        own = layout.split(**{k: v.detach().numpy() for k, v in arrays.items() if v is not None})
        params.update({f"h{place}_{name}": value for name, value in own.items()})
    return Network(network(layout.cell, layout.states, layers or 1, directions), params, layout, suffixes)


def gradients_by_torch_name(net: Network, gradients: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Our gradients as torch names, stacks and shapes them."""
    found = {}
    for place, suffix in net.suffixes.items():
        prefix = f"h{place}_"
        own = {n.removeprefix(prefix): g for n, g in gradients.items() if n.startswith(prefix)}
        found.update({ARRAYS[ours] + suffix: g for ours, g in net.layout.join(own).items()})
    return found


def compare(torch, module, x, initial=None, lengths=None, layout=None, tolerance=1e-12, seed=0,
            by_step=True) -> int:
    """Outputs, last states, and the gradients of their inner product with random cotangents; gives how many arrays.

    x: as the module takes it. initial: a tuple of states (h,) or (h, c), or None. lengths: packs the sequences.
    by_step: each step of the input's gradient is measured by itself, as some are small.
    """
    net = from_torch(module, layout)
    states, single = net.layout.states, not hasattr(module, "num_layers")
    x = x.detach().clone().requires_grad_()
    initial = None if initial is None else tuple(s.detach().clone().requires_grad_() for s in initial)
    swap = not single and module.batch_first and x.ndim == 3
    y, last = _torch_outputs(torch, module, x, initial, lengths, swap)

    def steps(tensor):
        """Time first, as an array; a module of one step has no time axis."""
        array = tensor.detach().numpy()
        return array[None] if single else np.swapaxes(array, 0, 1) if swap else array

    def by_place(tensor):
        """(place, its states) of torch's stack over layers and directions; a module of one step has no such axis."""
        array = tensor.detach().numpy()
        return zip(net.suffixes, array[None] if single else array)

    rng = np.random.default_rng(seed)
    seeds = [torch.from_numpy(rng.normal(size=v.shape)) for v in (y, *last)]
    value = sum((s * v).sum() for s, v in zip(seeds, (y, *last)))
    value.backward()

    given = {"x": steps(x), "lengths": lengths}
    if initial is not None:
        given["initial"] = {s + place: v for s, both in zip(states, initial) for place, v in by_place(both)}
    cotangents = {"y": steps(seeds[0])}
    for s, both in zip(states, seeds[1:]):
        cotangents.update({f"{s}{place}_last": v for place, v in by_place(both)})
    trace = net.cell.run(net.params, **given)
    found, gradients = net.cell.gradient(net.params, cotangents=cotangents, **given)

    total = sum((s * v).abs().sum() for s, v in zip(seeds, (y, *last))).item()
    agree(found, value.item(), tolerance, "value", floor=total)
    pairs = [("y", trace["y"], steps(y))]
    dx = gradients["x"], steps(x.grad)
    slices = enumerate(zip(*dx, strict=True), start=1) if by_step else [("1 to T", dx)]
    pairs += [(f"dx at step {k}", *both) for k, both in slices]
    for s, both in zip(states, last):
        for place, v in by_place(both):
            pairs.append((f"{s}{place}_last", trace[f"{s}{place}_last"], v))
            if place.endswith("f"):
                pairs.append((f"final {s}{place}", trace.final[s + place], v))
    for s, both in zip(states, initial or ()):
        ends = {"f": "0", "b": "T+1"}
        pairs += [(f"d{s}{place}", gradients[f"{s}{place}[{ends[place[-1]]}]"], v) for place, v in by_place(both.grad)]
    ours, theirs = gradients_by_torch_name(net, gradients), dict(module.named_parameters())
    assert set(ours) == set(theirs)
    pairs += [(f"d{name}", ours[name], p.grad.numpy()) for name, p in theirs.items()]
    for what, a, b in pairs:
        agree(a, b, tolerance, what)
    return len(pairs)


def _torch_outputs(torch, module, x, initial, lengths, swap):
    """(y, last states) of any of the six modules; y zero past an example's end."""
    hidden = None if initial is None else initial if len(initial) == 2 else initial[0]
    if not hasattr(module, "num_layers"):
        out = module(x, hidden)
        last = out if isinstance(out, tuple) else (out,)
        return last[0], last
    pack = torch.nn.utils.rnn
    if lengths is not None:
        packed = pack.pack_padded_sequence(x, torch.as_tensor(lengths), batch_first=swap, enforce_sorted=False)
        y, last = module(packed, hidden)
        y, _ = pack.pad_packed_sequence(y, batch_first=swap, total_length=x.shape[1 if swap else 0])
    else:
        y, last = module(x, hidden)
    return y, last if isinstance(last, tuple) else (last,)
