"""What is measured: the cells and sizes of each comparison, and the options that choose among them."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from itertools import product
from typing import NamedTuple

from peers import OURS, PEERS
from work import TOLERANCE, Work

from autograd_rnn import zoo

SMALL, MIDDLE, LARGE, LONG = (1, 50, 10, 16), (32, 100, 64, 128), (64, 100, 256, 512), (8, 10_000, 16, 64)
ZOO = (16, 50, 32, 64)
SIZES = (SMALL, ZOO, MIDDLE, LARGE, LONG)
LAYERS = ("lstm", "gru_reset_after", "rnn")
CUSTOM = ("lstm_peephole", "lstm_coupled", "gru_cho", "mut1", "antisymmetric")
FIRST = {"lstm": ("torch layer", "JAX scan", "torch loop", "PyTensor scan"),
         "lstm_peephole": ("JAX scan", "torch loop")}
GROWTH, GROWTH_STEPS = ("lstm", 8, 16, 64), (1_000, 10_000, 100_000)
SQUARE = 3072  # rows of the product that says what the machine can do
TINY = (2, 6, 3, 4)


class Options(NamedTuple):
    sections: tuple[str, ...]
    cells: tuple[str, ...] | None
    sizes: tuple[tuple[int, ...], ...] | None
    peers: tuple[str, ...] | None  # parts of names
    threads: tuple[int, ...]
    dtype: str | None
    rounds: int
    budget: float
    quick: bool
    pythons: tuple[tuple[str, str], ...] = ()  # part of a name, the interpreter that has it

    @property
    def narrowed(self) -> bool:
        """Whether some works or systems of the sections are left out."""
        return self.quick or any(choice is not None for choice in (self.cells, self.sizes, self.peers, self.dtype))

    def named(self, cells) -> list[str]:
        return [name for name in cells if self.cells is None or name in self.cells]

    def sized(self, sizes) -> tuple[tuple[int, ...], ...]:
        return (TINY,) if self.quick else tuple(s for s in sizes if s in self.sizes) if self.sizes else sizes

    def wanted(self, name: str) -> bool:
        return self.peers is None or any(part.lower() in name.lower() for part in self.peers)

    def python(self, name: str) -> str:
        return next((path for part, path in self.pythons if part.lower() in name.lower()), sys.executable)


def layers(o: Options) -> Iterator[Work]:
    """The cells that a vendor has by hand, beside all peers."""
    for name, sizes in product(o.named(LAYERS), o.sized(SIZES)):
        yield Work(name, *sizes, o.dtype or "float32")
    if o.dtype is None:
        yield from (Work(name, *sizes, "float64") for name in o.named(["lstm"]) for sizes in o.sized((MIDDLE,)))


def custom(o: Options) -> Iterator[Work]:
    """Cells that nobody fused."""
    for name, sizes in product(o.named(CUSTOM), o.sized((SMALL, MIDDLE, LARGE))):
        yield Work(name, *sizes, o.dtype or "float32")


def whole_zoo(o: Options) -> Iterator[Work]:
    """Every cell of the zoo, at one size."""
    for name, sizes in product(o.named(zoo), o.sized((ZOO,))):
        yield Work(name, *sizes, o.dtype or "float32")


COMPARISONS = {"layers": (layers, None), "custom": (custom, None),
               "zoo": (whole_zoo, ("torch layer", "JAX scan", "torch loop", *(peer.name for peer in OURS)))}


def parsed(argv: list[str], doc: str, sections: tuple[str, ...]) -> argparse.Namespace:
    """The command line."""
    def words(text: str) -> tuple[str, ...]:
        return tuple(word.strip() for word in text.split(","))

    p = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--sections", type=words, default=sections, help=",".join(sections))
    p.add_argument("--cells", type=words, help="names, with commas between")
    p.add_argument("--sizes", type=lambda s: tuple(tuple(map(int, w.split())) for w in words(s)),
                   help='of the table, "B T I H, B T I H"')
    p.add_argument("--peers", type=words, help="parts of names: " + ", ".join(PEERS))
    p.add_argument("--threads", type=lambda s: tuple(map(int, words(s))), default=(1, 2))
    p.add_argument("--dtype", choices=list(TOLERANCE))
    p.add_argument("--rounds", type=int, default=15)
    p.add_argument("--budget", type=float, default=15.0, help="seconds of one comparison after its third round")
    p.add_argument("--quick", action="store_true", help="tiny sizes, two rounds, one thread")
    p.add_argument("--python", action="append", default=[], dest="pythons", type=lambda s: tuple(s.split("=", 1)),
                   help="PART_OF_NAME=PATH, an interpreter that has a peer in an environment of its own")
    p.add_argument("--merge", action="store_true", help="replace the same rows in speed.json, write the page")
    p.add_argument("--render", action="store_true", help="write the page from speed.json")
    return p.parse_args(argv)


def chosen(given: argparse.Namespace) -> Options:
    o = Options(**{k: getattr(given, k) for k in Options._fields})._replace(pythons=tuple(given.pythons))
    return o._replace(rounds=2, threads=(1,)) if o.quick else o
