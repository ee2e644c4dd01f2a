"""Character models assembled from equations: any cell with one input, stacked, between an embedding and a read-out.

Cell -> text of a model -> Cell. The model is text like any other: it prints, derives and checks as its cell does.
"""

from __future__ import annotations

from collections.abc import Mapping
from numbers import Real

import numpy as np

from ..cell import Cell
from ..errors import CellError
from ..graph import READ
from ..init import generator, normal
from .data import Batches, streams, stretches
from .layers import model_of

CHARACTERS = """
e[t] = E @ onehot(k[t-1])
h[t] = cell(x=e[t])
y[t] = V @ h[t] + c
L = sum_t(cross_entropy(y[t], k[t]))
"""


def character_model(cell: Cell, layers: int = 1, dropout: float = 0.0) -> Cell:
    """Predict the character k[t] from those before it: embedding, `layers` of the cell, read-out, loss L.

    dropout: the share of each layer's output that the next one does not see (Zaremba, Sutskever, Vinyals,
    arXiv:1409.2329). Sizes for `init`: e (embedding), h1, h2, ... (layers), y (alphabet); see `character_sizes`.

    >>> from ..zoo import zoo
    >>> print(character_model(zoo["lstm"], layers=2, dropout=0.25))
    e[t] = E @ onehot(k[t-1])
    h1[t] = cell(x=e[t])
    keep1: bernoulli(h1, 0.75)
    d1[t] = dropout(h1[t], keep1[t], 0.75)
    h2[t] = cell(x=d1[t])
    keep2: bernoulli(h2, 0.75)
    d2[t] = dropout(h2[t], keep2[t], 0.75)
    y[t] = V @ d2[t] + c
    L = sum_t(cross_entropy(y[t], k[t]))
    """
    name = f"{layers} x {getattr(cell, 'name', None) or 'cell'}, characters"
    return model_of(CHARACTERS, cell, layers, dropout, name).initialised(E=normal(1.0))


def roles(model: Cell) -> tuple[str, str]:
    """(class, logits): the names of a model's characters and of what it predicts them from.

    >>> roles(Cell("y[t] = W @ onehot(k[t-1])\\nL = sum_t(cross_entropy(y[t], k[t]))"))
    ('k', 'y')
    """
    found = class_and_logits(model)
    if found is None or model.system.having("input", "class") != found[:1]:
        raise CellError(f"{model!r} is no character model.", remedy="It takes one class, like k[t], and ends with a "
                        "loss, like L = sum_t(cross_entropy(y[t], k[t])).")
    return found


def class_and_logits(model: Cell) -> tuple[str, str] | None:
    """The names of the class that a model tells and of what it tells it from; None where there are not one of each."""
    found = {(n.args[1].params[0], n.args[0].params[0]) for n in model.system.nodes
             if n.op.name == "cross_entropy" and n.args[0].op is READ and n.args[1].op is READ}
    return found.pop() if len(found) == 1 and model.loss is not None else None


def character_sizes(model: Cell, alphabet: str, size: int, embedding: int) -> dict[str, int]:
    """Sizes for the model's `init`: the logits' is the alphabet's, that of `e` the embedding, every other `size`."""
    _, logits = roles(model)
    read_out = model.shapes[logits][0]
    sizes = {name: embedding if name == "e" else size for name in model.dims if not name.isdigit() and name != read_out}
    return {**sizes, logits: len(alphabet)}


def character_batches(model: Cell, codes: np.ndarray, batch: int, length: int) -> Batches:
    """Contiguous streams side by side, in stretches of `length` characters; the model carries its state along."""
    name, _ = roles(model)
    return stretches({name: streams(codes, batch)}, length)


def sample(model: Cell, params: Mapping[str, np.ndarray], alphabet: str, length: int, temperature: float = 1.0,
           seed=0, prompt: str = "") -> str:
    """`length` characters drawn from the model one after the other, after the prompt.

    temperature: logits are divided by it; 0 takes the likeliest character. Noise stands at its mean.
    """
    name, logits = roles(model)
    if not isinstance(temperature, Real) or not 0 <= temperature < np.inf:
        raise CellError(f"The temperature is {temperature}.", remedy="Give a number from 0.")
    strange = sorted(set(prompt) - set(alphabet))
    if strange:
        raise CellError(f"The prompt has the character {strange[0]!r}, which the model does not know.")
    rng = generator(seed, "seed")
    state, drawn = None, []
    for n in range(len(prompt) + length):
        values, state = model.step(params, state, noise="mean", **{name: np.asarray(0)})  # y[t] does not see k[t]
        scores = np.asarray(values[logits], np.float64)
        if len(scores) != len(alphabet):
            raise CellError(f"The alphabet has {len(alphabet)} characters; the model tells {len(scores)} apart.",
                            remedy="Give the alphabet that it was trained with.")
        if n < len(prompt):
            choice = alphabet.index(prompt[n])
        elif temperature:
            choice = int(np.argmax(scores / temperature + rng.gumbel(size=len(scores))))
        else:
            choice = int(np.argmax(scores))
        if n >= len(prompt):
            drawn.append(alphabet[choice])
        state[name] = np.asarray(choice)
    return "".join(drawn)
