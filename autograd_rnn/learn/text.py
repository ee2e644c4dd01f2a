"""Text as data: an alphabet, whole numbers for its characters, a split for validation, and n-gram floors.

str -> Text. A character model that does not beat the bigram floor has learnt nothing that a table of pairs does not
hold.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from ..errors import CellError


@dataclass(frozen=True)
class Text:
    """A text as classes 0, 1, ... into its `alphabet`; the last tenth is for validation.

    >>> text = encode("hello world " * 5)
    >>> text.alphabet, len(text.train), len(text.validation), decode(text.alphabet, text.train[:5])
    (' dehlorw', 54, 6, 'hello')
    """

    alphabet: str
    train: np.ndarray = field(repr=False)
    validation: np.ndarray = field(repr=False)


def encode(text: str, alphabet: str | None = None, held_out: float = 0.1) -> Text:
    """The text's characters as places in the alphabet, by default all its characters in order.

    held_out: the share at the end that is kept for validation. Raises CellError for a character outside the alphabet.
    """
    if not isinstance(text, str):
        raise CellError(f"A text is a str, not {type(text).__name__}.", remedy="Read one with `read_text(path)`.")
    found = "".join(sorted(set(text)))
    alphabet = found if alphabet is None else alphabet
    strange = sorted(set(found) - set(alphabet))
    if strange:
        raise CellError(f"The text has the character {strange[0]!r}, which is not in the alphabet {alphabet!r}.",
                        remedy="Go on with the text that the model was trained on.")
    place = {c: n for n, c in enumerate(alphabet)}
    codes = np.fromiter((place[c] for c in text), np.int64, len(text))
    split = len(codes) - int(len(codes) * held_out)
    if not 0 < split < len(codes):
        raise CellError(f"A text of {len(codes)} characters cannot be split for training and validation.",
                        remedy="Give a longer text.")
    return Text(alphabet, codes[:split], codes[split:])


def decode(alphabet: str, codes) -> str:
    """The characters at these places of the alphabet."""
    return "".join(alphabet[n] for n in codes)


def read_text(path: str | Path) -> str:
    """A file's text, which must be UTF-8."""
    try:
        return Path(path).read_text(encoding="utf-8")
    except UnicodeDecodeError as e:
        raise CellError(f"The file `{path}` is not UTF-8 text: byte {e.start}.", remedy="Convert it first.") from e


def python_topics(rarest: int = 100) -> str:
    """The English text that every CPython carries: the topics of its `help()`, about 460,000 characters.

    Characters that occur less than `rarest` times are left out.
    """
    from pydoc_data.topics import topics  # type: ignore[import-not-found]

    text = "\n\n".join(topics[name] for name in sorted(topics))
    counts = Counter(text)
    return "".join(c for c in text if counts[c] >= rarest)


def ngram_floors(text: Text) -> tuple[float, float]:
    """(unigram, bigram): nats per character of the validation text under counts of the training text.

    Interpolated Witten-Bell: p(c | before) = (n(before c) + d p(c)) / (n(before) + d), d the number of distinct
    characters seen after `before`; p(c) likewise, over the uniform distribution. Witten and Bell, IEEE Transactions on
    Information Theory 37(4), 1991.

    >>> unigram, bigram = ngram_floors(encode("ab" * 500))
    >>> round(unigram, 2), bigram < 0.01
    (0.69, True)
    """
    size, train = len(text.alphabet), text.train
    single = np.bincount(train, minlength=size)
    pairs = np.bincount(train[:-1] * size + train[1:], minlength=size * size).reshape(size, size)
    seen = np.count_nonzero(single)
    p1 = (single + seen / size) / (single.sum() + seen)
    distinct = np.count_nonzero(pairs, axis=1)[:, None]
    total = pairs.sum(axis=1, keepdims=True)
    p2 = np.where(total > 0, (pairs + distinct * p1) / np.maximum(total + distinct, 1), p1)
    before = np.concatenate([train[-1:], text.validation[:-1]])
    return float(-np.log(p1[text.validation]).mean()), float(-np.log(p2[before, text.validation]).mean())
