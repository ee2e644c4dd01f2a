"""Learning: data, optimisers, training and checkpoints, as functions on plain dicts of arrays.

    cell = character_model(zoo["lstm"])
    text = encode(python_topics())
    params = cell.init(seed=0, dtype=np.float32, **character_sizes(cell, text.alphabet, size=128, embedding=64))
    for point in train(cell, params, character_batches(cell, text.train, 32, 64), steps=1000, optimiser=adam(2e-3)):
        print(point.step, point.loss)
"""

from .charlm import character_batches, character_model, character_sizes, sample
from .data import Batch, Batches, shuffled, streams, stretches
from .decode import beam, greedy
from .optimisers import OPTIMISERS, Optimiser, adam, adamw, clip_norm, clip_value, rmsprop, sgd
from .schedules import constant, cosine, exponential, stepwise
from .store import load, load_point, save, save_point
from .text import Text, decode, encode, ngram_floors, python_topics, read_text
from .train import Point, advance, fit, mean_loss, stalled, train

__all__ = [
    "OPTIMISERS", "Batch", "Batches", "Optimiser", "Point", "Text", "adam", "adamw", "advance", "beam",
    "character_batches", "character_model", "character_sizes", "clip_norm", "clip_value", "constant", "cosine",
    "decode", "encode", "exponential", "fit", "greedy", "load", "load_point", "mean_loss", "ngram_floors",
    "python_topics", "read_text", "rmsprop", "sample", "save", "save_point", "sgd", "shuffled", "stalled",
    "stepwise", "streams", "stretches", "train",
]
