"""Latent variables that explain what is seen: a bound on its probability is learnt from, and falls.

A task here wants a whole model, whose noise is drawn anew in training and from a seed where it is judged: the bound
holds in expectation. Images and pixels are handwritten digits of scikit-learn; music is that of `files`.
"""

from __future__ import annotations

from functools import partial

import numpy as np

from ..learn.data import Batch, Batches, shuffled
from .files import NOTES, digit_images, note_unigram, pieces
from .task import Data, Task

JUDGED_BY = 1  # the seed of the noise where it is judged
DIGITS = "scikit-learn's digits; Gregor and others, DRAW, arXiv:1502.04623, 2015, on MNIST"
PIXELS = 64
NOISE = 0.1  # of the waves, a deviation


def images(batch: int, length: int, seed: int, glimpses: int, flat: bool) -> Data:
    """8 x 8 pixels in [0, 1], as a vector or as rows and columns; the last 500 of the 1,797 digits are held out."""
    x, _ = digit_images()
    x = x.T if flat else x.T.reshape(-1, 8, 8)
    last, total = len(x) - 250, len(x)
    first = last - 250

    def some(part: slice | np.ndarray) -> Batch:
        return Batch({"x": x[part] if flat else np.moveaxis(x[part], 0, -1)}, len(x[part]), steps=glimpses,
                     noise=JUDGED_BY)

    def at(step: int) -> Batch:
        epoch, k = divmod(step, first // batch)
        return some(np.random.default_rng((seed, epoch)).permutation(first)[k * batch:(k + 1) * batch])

    return Data(Batches(first // batch, at), Batches(1, lambda step: some(slice(first, last))),
                Batches(1, lambda step: some(slice(last, total))), PIXELS)


def rows(batch: int, length: int, seed: int) -> Data:
    """Digits row by row from the top: x[t] are the 8 pixels of a row."""
    x, _ = digit_images()
    x = x.reshape(8, 8, -1).transpose(0, 2, 1)
    last, total = x.shape[1] - 250, x.shape[1]
    first = last - 250

    def whole(part: slice) -> Batches:
        return Batches(1, lambda step: Batch({"x": x[:, part]}, x[:, part].shape[1], noise=JUDGED_BY))

    return Data(shuffled({"x": x[:, :first]}, batch, seed), whole(slice(first, last)), whole(slice(last, total)), 8)


def music(batch: int, length: int, seed: int, path: str) -> Data:
    """Whole pieces of `files.music`, as x[t]."""
    def whole(part: str) -> Batches:
        frames, lengths = pieces(path)[part]
        return Batches(1, lambda step: Batch({"x": frames}, int(lengths.sum()), lengths=lengths, noise=JUDGED_BY))

    frames, lengths = pieces(path)["train"]
    train = shuffled({"x": frames}, batch, seed, lengths, lambda chosen: int(lengths[chosen].sum()))
    return Data(train, whole("valid"), whole("test"), NOTES)


def waves(batch: int, length: int, seed: int, T: int) -> Data:
    """A sine of a period from 8 to 16 with any phase, and noise of deviation 0.1: drawn anew for each step."""
    def some(rng: np.random.Generator, count: int) -> Batch:
        period, phase = rng.uniform(8, 16, count), rng.uniform(0, 2 * np.pi, count)
        x = np.sin(2 * np.pi * np.arange(T)[:, None] / period + phase) + rng.normal(0, NOISE, (T, count))
        return Batch({"x": x[..., None]}, T * count, noise=JUDGED_BY)

    def batches(which: int, size: int) -> Batches:
        return Batches(1, lambda step: some(np.random.default_rng((seed, which, step)), size))

    return Data(batches(0, batch), batches(1, 500), batches(2, 500), 1)


def pixel_unigram(**_) -> float:
    """Nats per image when each pixel is lit as often as in the training set."""
    x, _labels = digit_images()
    p = (x[:, :-500].sum(axis=1) + 0.5) / (x.shape[1] - 500 + 1)
    seen = x[:, -250:].mean(axis=1)
    return float(-(seen * np.log(p) + (1 - seen) * np.log1p(-p)).sum())


def gaussian(T: int) -> float:
    """Nats per step when each number is told from N(0, 1/2 + 0.01), the signal's own variance."""
    return float(0.5 * np.log(2 * np.pi * np.e * (0.5 + NOISE**2)))


def glimpsed(definition: str, flat: bool, steps: int) -> Task:
    return Task(
        source=DIGITS, definition=definition, text=None, data=partial(images, flat=flat), measure="nats per image",
        numbers=dict(glimpses=6), baselines={"each pixel as often as in the training set": pixel_unigram},
        settings=dict(size=32, batch=32, steps=steps, every=100, lr=5e-3))


BOUND = "The negative bound is measured, in nats, by one draw of the latent variables for each example."
TASKS = {
    "image_bound": glimpsed(
        "8 x 8 pixels of handwritten digits, each in [0, 1], told by Bernoulli variables after a number of "
        "glimpses. The first 1,297 digits are learnt from, the last 250 tested. " + BOUND, flat=True, steps=1500),
    "image_bound_attention": glimpsed(
        "As image_bound, with x[b,a] as rows and columns, for models that look at a part of the image.", flat=False,
        steps=1000),
    "row_bound": Task(
        source="scikit-learn's digits, row by row",
        definition="A handwritten digit as 8 rows of 8 pixels, each row told from those above it and from a latent "
                   "variable of its own. " + BOUND,
        text=None, data=rows, measure="nats per image",
        baselines={"each pixel as often as in the training set": pixel_unigram},
        settings=dict(size=32, batch=32, steps=1500, every=100, lr=3e-3)),
    "wave_bound": Task(
        source="a synthetic signal, for models with Gaussian outputs",
        definition="A sine of a period from 8 to 16 steps with any phase, and Gaussian noise of deviation 0.1, T "
                   "steps. " + BOUND,
        text=None, data=waves, measure="nats per step", numbers=dict(T=40),
        baselines={"a Gaussian variable for each step": gaussian,
                   "the noise alone": lambda T: float(0.5 * np.log(2 * np.pi * np.e * NOISE**2))},
        settings=dict(size=16, batch=16, steps=1000, every=100, lr=3e-3)),
    "music_bound": Task(
        source="Bayer, Osendorfer, arXiv:1411.7610, 2014, on the data of Boulanger-Lewandowski and others, 2012",
        definition="The chorales and other pieces of `music`, each frame told from those before it and from a latent "
                   "variable of its own. " + BOUND,
        text=None, data=music, measure="nats per frame", numbers=dict(path=""),
        baselines={"each note as often as in the training set": note_unigram},
        published={"STORN, JSB, bound (Bayer and Osendorfer)": "6.91",
                   "deep Markov model, JSB, bound (clinicalml/structuredinference, ST-R)": "7.03"},
        settings=dict(size=64, batch=8, steps=600, every=58, lr=3e-3)),
}
