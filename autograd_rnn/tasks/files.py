"""Data of the world: polyphonic music, characters of a text, handwritten digits pixel by pixel."""

from __future__ import annotations

from functools import cache
from zipfile import ZipFile

import numpy as np

from ..errors import CellError
from ..learn.charlm import CHARACTERS
from ..learn.data import Batch, Batches, shuffled, streams, stretches
from ..learn.session import GLANCE, STRETCH
from ..learn.text import encode, ngram_floors, read_text
from .task import Data, Task

FRAMES = """
h[t] = cell(x=v[t-1])
y[t] = V @ h[t] + c
L = sum_t(bce(y[t], v[t]))
"""
PIXELS = """
h[t] = cell(x=x[t])
y = V @ h[T] + c
L = cross_entropy(y, k)
"""
NOTES = 88
LARGEST = 2**24  # bytes of an array of a music file


@cache
def pieces(path: str) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """train, valid, test: (frames (T, pieces, 88), lengths) of an npz file.

    The file has `train_lengths`, the frames of each piece, and `train_packed`, np.packbits of all frames one after
    another; valid and test likewise.
    """
    if not path:
        raise CellError("No music is given.", remedy="Give an npz file: --set path=FILE; see docs/results.md.")
    wanted = [f"{part}_{what}" for part in ("train", "valid", "test") for what in ("lengths", "packed")]
    arrays, found = arrays_of(path, wanted), {}
    for part in ("train", "valid", "test"):
        lengths, packed = arrays[f"{part}_lengths"], arrays[f"{part}_packed"]
        if lengths.ndim != 1 or lengths.dtype.kind not in "iu" or not lengths.size or lengths.min() < 1:
            raise CellError(f"The file `{path}` has `{part}_lengths` that are no lengths of pieces.",
                            remedy="They are whole numbers from 1, one for each piece.")
        lengths = lengths.astype(int)
        if packed.dtype != np.uint8 or packed.shape != (lengths.sum(), NOTES // 8):
            raise CellError(f"The file `{path}` has `{part}_packed` of shape {packed.shape} and dtype {packed.dtype}.",
                            remedy=f"By its lengths it is {(int(lengths.sum()), NOTES // 8)}, and uint8.")
        rows = np.split(np.unpackbits(packed, axis=1), np.cumsum(lengths)[:-1])
        frames = np.zeros((lengths.max(), len(lengths), NOTES))
        for n, piece in enumerate(rows):
            frames[:len(piece), n] = piece
        found[part] = frames, lengths
    return found


def arrays_of(path: str, wanted: list[str]) -> dict[str, np.ndarray]:
    """Arrays of an npz file by name; none is unpacked that would take more than `LARGEST` bytes."""
    with open(path, "rb") as opened:
        try:
            sizes = {m.filename: m.file_size for m in ZipFile(opened).infolist()}
            opened.seek(0)
            file = np.load(opened, allow_pickle=False)
            found = {name: file[name] for name in wanted if 0 < sizes.get(f"{name}.npy", 0) <= LARGEST}
        except Exception as e:  # zip and npy fail in a dozen ways
            raise CellError(f"The file `{path}` cannot be read as an npz file: {type(e).__name__}.",
                            remedy="Give one that numpy.savez has written, with " + ", ".join(wanted) + ".") from e
    for name in wanted:
        if name not in found:
            raise CellError(f"The file `{path}` has no `{name}` of at most {LARGEST:,} bytes.",
                            remedy="It wants " + ", ".join(wanted) + ".")
    return found


def music(batch: int, length: int, seed: int, path: str) -> Data:
    """Whole pieces, each from its beginning; every frame counts, the first too, which is told from nothing."""
    def whole(part: str) -> Batches:
        frames, lengths = pieces(path)[part]
        return Batches(1, lambda step: Batch({"v": frames}, int(lengths.sum()), lengths=lengths))

    frames, lengths = pieces(path)["train"]
    train = shuffled({"v": frames}, batch, seed, lengths, lambda chosen: int(lengths[chosen].sum()))
    return Data(train, whole("valid"), whole("test"), NOTES)


def note_unigram(path: str) -> float:
    """Nats per test frame when each note sounds as often as in the training set, counted from one half."""
    (frames, lengths), (test, test_lengths) = (pieces(path)[part] for part in ("train", "test"))
    p = (frames.sum(axis=(0, 1)) + 0.5) / (lengths.sum() + 1)
    sounded = test.sum(axis=(0, 1)) / test_lengths.sum()
    return float(-(sounded * np.log(p) + (1 - sounded) * np.log1p(-p)).sum())


def characters(batch: int, length: int, seed: int, path: str) -> Data:
    """A text's first nine tenths in streams side by side; judged on the first characters held out, tested on all."""
    if not path:
        raise CellError("No text is given.", remedy="Give a file of UTF-8 text: --set path=FILE.")
    text = encode(read_text(path))

    def held_out(codes: np.ndarray) -> Batches:
        return stretches({"k": streams(codes, 1)}, STRETCH)

    return Data(stretches({"k": streams(text.train, batch)}, length), held_out(text.validation[:GLANCE]),
                held_out(text.validation), len(text.alphabet))


def digit_images() -> tuple[np.ndarray, np.ndarray]:
    """(pixels in [0, 1], (64, 1797), row by row from the top left; which digits they are)."""
    try:
        from sklearn.datasets import load_digits
    except ImportError:
        raise CellError("The digits are those of scikit-learn, which is not installed.",
                        remedy="Install it: pip install scikit-learn.") from None
    given = load_digits()
    return given.data.T / 16, given.target.astype(np.int64)


def digits(batch: int, length: int, seed: int) -> Data:
    """8 x 8 pixels, row by row from the top left, each in [0, 1]; the last 500 of the 1,797 digits are held out."""
    pixels, k = digit_images()
    x = pixels[:, :, None]
    last, total = len(k) - 250, len(k)
    first = last - 250

    def whole(part: slice) -> Batches:
        return Batches(1, lambda step: Batch({"x": x[:, part], "k": k[part]}, len(k[part])))

    chosen = shuffled({"x": x[:, :first], "k": k[None, :first]}, batch, seed)
    train = Batches(chosen.count, lambda step: flat(chosen(step)))
    return Data(train, whole(slice(first, last)), whole(slice(last, total)), 10)


def flat(batch: Batch) -> Batch:
    """A class for each example, without an axis of time."""
    return Batch({**batch.inputs, "k": batch.inputs["k"][0]}, batch.targets)


CHUNG = "Chung, Gulcehre, Cho, Bengio, arXiv:1412.3555, 2014, table 2"
BAI = "Bai, Kolter, Koltun, arXiv:1803.01271, 2018, table 1, first frames left out"
TASKS = {
    "music": Task(
        source="Boulanger-Lewandowski, Bengio, Vincent, Modeling temporal dependencies in high-dimensional sequences, "
               "ICML 2012",
        definition="88 notes that sound or do not, frame by frame; each frame is to be told from those before it, the "
                   "first from nothing. Sum of the notes' negative log-likelihoods in nats, the mean over all frames "
                   "of all pieces. Chosen on the validation pieces, reported on the test pieces.",
        text=FRAMES, data=music, measure="nats per frame", numbers=dict(path=""),
        baselines={"each note as often as in the training set": note_unigram},
        published={f"GRU, 46 units, JSB ({CHUNG})": "8.54", f"LSTM, 36 units, JSB ({CHUNG})": "8.67",
                   f"RNN, 100 units, JSB ({CHUNG})": "9.10 or 9.19",
                   f"GRU, JSB ({BAI})": "8.43", f"LSTM, JSB ({BAI})": "8.45", f"RNN, JSB ({BAI})": "8.91",
                   "best LSTM variant, JSB (Greff et al., arXiv:1503.04069, 2015)": "about 8.38",
                   "RNN, JSB (Boulanger-Lewandowski et al., table 1)": "8.71"},
        settings=dict(size=46, batch=16, steps=3000, every=14, patience=20, lr=5e-3, schedule="constant"),
        recalled="the RNN's figures of 9.10 (9.19 as others quote it) and 8.71, and Greff's. That all frames count is "
                 "no memory: only so does the unigram come out as it is printed.",
    ),
    "characters": Task(
        source="Karpathy, The unreasonable effectiveness of recurrent neural networks, 2015; nanoGPT's 90/10 split",
        definition="Each character of a text is to be told from those before it: nats per character on its last tenth, "
                   "as one stream.",
        text=CHARACTERS, data=characters, measure="nats per character", numbers=dict(path=""),
        baselines={"unigram": lambda path: ngram_floors(encode(read_text(path)))[0],
                   "bigram": lambda path: ngram_floors(encode(read_text(path)))[1]},
        published={"nanoGPT, tinyshakespeare, its best model on a GPU (its README)": "1.4697",
                   "nanoGPT, tinyshakespeare, its recipe for a CPU (its README)": "1.88"},
    ),
    "digits": Task(
        source="as sequential MNIST in Le, Jaitly, Hinton, arXiv:1504.00941, 2015, on scikit-learn's digits",
        definition="The 64 pixels of a handwritten digit one after another; which digit it was is to be told at the "
                   "end.",
        text=PIXELS, data=digits, measure="share wrong",
        wrong=lambda trace, batch: (trace["y"].argmax(axis=-1) != batch.inputs["k"]).astype(float),
        baselines={"one of ten": lambda: 0.9},
        settings=dict(size=32, batch=32, steps=4000, every=40, patience=25, lr=5e-3),
    ),
}
