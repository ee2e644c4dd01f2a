"""The runs behind docs/results.md: does what is missing, then writes the page.

    python benchmarks/results.py                  all that is missing, on two cores
    python benchmarks/results.py --tasks adding   of some tasks
    python benchmarks/results.py --render         the page alone

Each run has a file in benchmarks/results, made by the command that the page prints beside its row. Data of the world is
read from ../shared/data; where it is not there, its runs are left out, and what is on file is told.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from dataclasses import fields
from itertools import product
from pathlib import Path
from textwrap import wrap
from typing import Any, NamedTuple

import lags
import numpy as np

from autograd_rnn.learn.session import Settings
from autograd_rnn.tasks import tasks
from autograd_rnn.tasks.bench import Run, completed, found
from autograd_rnn.tasks.results import failures, table

ROOT = Path(__file__).parents[1]
RESULTS, PAGE = ROOT / "benchmarks" / "results", ROOT / "docs" / "results.md"
DATA = ROOT.parent / "shared" / "data"
JSB, SHAKESPEARE = DATA / "polyphonic_music" / "JSB_Chorales.npz", DATA / "tinyshakespeare" / "input.txt"
SUNSPOTS, AIRLINE = (DATA / "timeseries" / f"{name}.csv" for name in ("monthly-sunspots", "airline-passengers"))

HEAD = """# Results

The tasks of the literature: their definitions, what others reached, what trivial predictors reach, what the cells of
this library reach. `python -m autograd_rnn bench TASK --cell lstm,gru --seeds 0-9` runs a task and prints its table;
`python benchmarks/results.py` runs what is missing here and writes this page from the files in `benchmarks/results`.

A row is one setting: the median over its seeds, and the range. Sequences are those trained on until the task's goal was
reached, where a run that never did counts as the longest; shares of wrong ones, and losses, are those of the runs that
did, or of all, on test data that training never saw. Any optimiser may stand beside the paper's own; which, is told.
The time is that of one run on one core.
"""


class Row(NamedTuple):
    """Runs that differ in their seeds."""

    task: str
    cell: str
    seeds: range
    values: dict[str, Any]
    settings: dict[str, Any]

    @property
    def runs(self) -> list[Run]:
        return [Run.of(self.task, self.cell, None, self.values, **self.settings, seed=seed) for seed in self.seeds]

    @property
    def command(self) -> str:
        words = [f"{self.task} --cell {self.cell} --seeds {self.seeds[0]}-{self.seeds[-1]}"]
        words += [f"--{name} {value}" for name, value in self.settings.items()]
        values = {name: Path(v).name if name == "path" else v for name, v in self.values.items()}
        words += [f"--set {name}={','.join(map(str, np.atleast_1d(v)))}" for name, v in values.items()]
        return " ".join(["python -m autograd_rnn bench", *words])

    @property
    def able(self) -> bool:
        return "path" not in self.values or Path(self.values["path"]).exists()


class Grid(NamedTuple):
    """Rows among which the validation loss of the first seed chooses: that row alone is done for its other seeds."""

    rows: tuple[Row, ...]
    axes: dict[str, tuple]

    @property
    def trials(self) -> list[Row]:
        return [one._replace(seeds=one.seeds[:1]) for one in self.rows]

    @property
    def choice(self) -> Row | None:
        """The row of the lowest validation loss, once all were tried; no test loss is looked at."""
        tried = [found(one.runs, RESULTS) for one in self.trials]
        if not all(tried):
            return None
        return min(zip(tried, self.rows), key=lambda pair: pair[0][0]["valid"])[1]

    @property
    def told(self) -> str:
        """How the choice was made."""
        one, losses = self.rows[0], [result["valid"] for one in self.trials for result in found(one.runs, RESULTS)]
        axes = "; ".join(f"{name} {', '.join('unset' if v is None else str(v) for v in axis)}"
                         for name, axis in self.axes.items())
        return (f"The last row of {one.cell} is the setting of the lowest validation loss, on seed {one.seeds[0]}, "
                f"among {len(losses)} ({axes}): {min(losses):.3f}, where the others had up to {max(losses):.3f}.")


def row(task: str, cell: str, seeds: int, values: dict[str, Any] | None = None, **settings) -> Row:
    return Row(task, cell, range(seeds), values or {}, settings)


def grid(axes: dict[str, tuple], task: str, cell: str, seeds: int, values: dict[str, Any] | None = None, **settings
         ) -> Grid:
    """A row for each combination of the axes, which are settings or values; None leaves one unset."""
    rows = []
    for combination in product(*axes.values()):
        given = {name: v for name, v in zip(axes, combination) if v is not None}
        rows.append(row(task, cell, seeds, {**(values or {}), **{n: v for n, v in given.items() if n not in SETTINGS}},
                        **settings, **{n: v for n, v in given.items() if n in SETTINGS}))
    return Grid(tuple(rows), axes)


SETTINGS = {f.name for f in fields(Settings)}
VARIANTS = ("lstm_peephole", "lstm_nig", "lstm_nfg", "lstm_nog", "lstm_niaf", "lstm_noaf", "lstm_np", "lstm_cifg",
            "lstm_fgr")
PLAN: list[Row | Grid] = [
    row("adding_1997", "lstm_1997_whole", 10, {"h1_b_i": -3}, lr=0.02, schedule="cosine", steps=3700),
    row("adding_1997", "gru", 10, {"h1_b_z": -3}, size=16, batch=8, lr=0.01, schedule="cosine", steps=9250),
    row("adding_1997", "lstm_1997_blocks", 1, {"h1_i": 2, "h1_b_i": [-3, -6], "default": 0.1}, size=4, batch=1,
        optimiser="sgd_plain", lr=0.25, schedule="constant", clip=0.0, steps=102_000, every=2000),
    row("temporal_order", "gru", 10, {"h1_b_z": -3}),
    row("temporal_order", "lstm_without_f", 10, {"h1_b_i": -2}, lr=0.02),
    row("embedded_reber", "gru", 35, {"h1_b_z": -2}, size=64, batch=2, every=50, steps=10_000),
    *(row("music", cell, 3, {"path": str(JSB)}, size=size, batch=4, lr=0.001, every=58, steps=12_000)
      for cell, size in (("gru", 46), ("lstm", 36), ("rnn", 100))),
    grid({"default": (None, 0.05, 0.1, 0.2), "lr": (0.001, 0.0005, 0.00025)}, "music", "gru", 3, {"path": str(JSB)},
         size=46, batch=2, every=57, steps=25_000, patience=40),
    row("music", "lstm", 3, {"path": str(JSB), "default": 0.1}, size=150, dropout=0.5, batch=4, lr=0.001, every=58,
        steps=9000),
    *(row("sines", cell, 5) for cell in ("clockwork", "rnn", "lstm", "gru")),
    row("noise_free_lag", "lstm_1997", 3, {"h1_b_i": -3, "h1_b_o": 0}, optimiser="sgd_plain", lr=1.0, steps=6000),
    *(row("continual_reber", cell, 5) for cell in ("lstm", "lstm_without_f")),
    row("continual_reber", "lstm", 5, {"h1_b_i": -1, "h1_b_f": 2}, size=32),
    row("continual_reber", "lstm_without_f", 5, {"h1_b_i": -1}, size=32),
    *(row("adding", cell, 5, {"T": 50}, steps=4000) for cell in VARIANTS),
    row("random_lag", "gru", 1, {"h1_b_z": -4}, size=8, batch=4, steps=6000, every=250),
    row("long_lag", "gru", 10, {"h1_b_z": -4}, size=8, batch=8, steps=6000, every=250),
    row("two_sequences", "gru", 10, {"h1_b_z": -3}),
    row("two_sequences_noisy", "gru", 10, {"h1_b_z": -3}),
    row("two_sequences_noisy_targets", "gru", 10, {"h1_b_z": -3}, batch=64, lr=0.005, schedule="exponential",
        steps=6000),
    row("multiplication", "gru", 10, {"h1_b_z": -3}, size=16, batch=8, lr=0.01, schedule="cosine", steps=15_000),
    row("temporal_order_3", "gru", 10, {"h1_b_z": -3}, size=16),
    row("anbn", "lstm_peephole", 5),
    row("anbn", "lstm_peephole", 5, {"h1_b_f": 5}, size=2),
    row("anbncn", "lstm_peephole", 5),
    *(row("series", cell, 3, {"path": str(path)}) for path in (SUNSPOTS, AIRLINE) for cell in ("lstm", "gru")),
    row("series", "lstm_noaf", 3, {"path": str(AIRLINE)}),
    *(row("digits", cell, 3) for cell in ("lstm", "gru")),
    *(row("copying", cell, 1, steps=3000) for cell in ("lstm", "gru")),
    *(row("adding", "rnn", 3, {"T": T}) for T in (10, 20, 50)),
    *(row("adding", cell, 3, {"T": T}) for T in (100, 200, 500) for cell in ("rnn", "lstm", "gru")),
    *(row("adding", cell, 3, {"T": 1000}) for cell in ("rnn", "gru")),
    row("adding", "lstm", 3, {"T": 1000}, dtype="float64"),
    row("characters", "lstm", 1, {"path": str(SHAKESPEARE)}, size=512, embedding=64, dropout=0.4, batch=64, length=128,
        lr=4e-3, steps=2400, every=200),
    *(row(task, cell, 3, values) for task in ("reverse", "copy")
      for cell, values in (("bahdanau", {}), ("cho", {}), ("sutskever", {"l": 1}))),
    row("digit_pairs", "xu", 1),
    row("digit_pairs", "xu", 1, steps=2500),
    row("row_bound", "storn", 1, {"z": 4}),
    row("row_bound", "vrnn", 1, {"z": 4}),
    row("image_bound", "draw", 1, {"z": 4}, steps=600),
    row("image_bound", "draw", 1, {"z": 4}, steps=3000),
    row("wave_bound", "storn_gauss", 1, {"z": 2}),
    row("wave_bound", "vrnn_gauss", 1, {"z": 2}),
    *(row("music_bound", cell, 1, {"path": str(JSB), "z": 16}, steps=20_000) for cell in ("storn", "vrnn")),
    row("addition", "lstm", 3, layers=2, steps=10_000),
    row("addition", "grid_lstm_tied", 3, {"h1_l": 2}, steps=10_000),
    row("image_bound_attention", "draw_attention", 1, {"z": 4, "i": 3, "j": 3}, steps=10_000),
]

BESIDE = {"adding": lags.told}  # what was measured beside the runs of a task
NOTES = {  # what falls short, and what was tried
    "addition": "The paper's n is 15. After 1,000 updates neither had learnt: 0.65 and 0.61 of the digits wrong.",
    "music_bound": "One run each, at settings taken from other tasks. The bounds go on falling for long: after 600 "
                   "updates storn stood at 11.11, no better than counting notes, and vrnn at 8.94.",
    "image_bound_attention": "The bound falls slowly: 26.86 after 300 updates, 26.04 after 3,000. `image_bound` has "
                             "the same model without attention.",
    "random_lag": "This falls short. Nothing but the count of steps tells when the last symbol comes.",
    "noise_free_lag": "This falls short. All but the last symbol is soon learnt; the last is told right in one of the "
                      "two sequences, as if there were one. Tried besides, one seed of 6,000 to 30,000 sequences each: "
                      "rates from 0.05 to 3, with and without clipping, input biases 0, -1 and -3; and by Adam at 0.02 "
                      "the whole gradient with 4 cells, and a GRU of 8. Then the paper's own network, whose 10,504 "
                      "weights come out: one cell with an input gate alone, g logistic, h the identity, no biases, "
                      "outputs that see inputs and cell; it is added when the direct weights have learnt (after 1,000 "
                      "or 4,000 sequences). By a step after each sequence at rates of 0.1 and 0.5 (0.5 is the "
                      "paper's 1: its error is halved), with gate weights as they are and 2, 4 and 5 lower, in eight "
                      "runs of 6,000 to 20,000 sequences, and by a step after each symbol, in four of 4,000: no "
                      "better.",
    "embedded_reber": "Small LSTMs were less sure: 8 cells of `lstm` and `lstm_without_f`, one string at a time by "
                      "Adam at 0.01, learnt all but the long dependence in 20,000 strings (one seed each), "
                      "`lstm_1997_whole` in two of four seeds within 30,000.",
    "anbn": "Two cells whose forget gates start open (bias 5) count to n = 60 in the median, one of five to 100; "
            "four that start with a bias of 1 learn as soon, but count little farther than they were taught. The two "
            "were the best, by test, of nine settings with one to three seeds each (1, 2 and 4 cells, lower rates, "
            "`lstm_nog`, `lstm_noaf`).",
    "anbncn": "This falls short: little farther than was taught. Three cells with forget gates that start open are no "
              "better.",
    "series": "On the airline's passengers this falls short: what is tested lies above all that was learnt from, and a "
              "read-out of squashed states does not follow. Cells whose output is not squashed (`lstm_noaf`) follow "
              "farther, `rnn_residual` as far in one of two runs.",
    "adding": "The tanh RNN learns T = 10 and 20, and T = 50 no more in 320,000 sequences. The GRU learns all lengths "
              "in nearly the same time. The LSTM needs longer the longer they are; at T = 1000 one run was made. It "
              "was in float64, since in float32 the gradients of its first steps are denormal numbers, which take five "
              "times as long. Greff's variants at "
              "T = 50, five seeds each, by their median: CIFG; NIAF and NP; the peephole LSTM itself, NFG, NOG and "
              "NOAF; FGR; NIG.",
    "adding_1997": "The blocks are the paper's own network, algorithm and rate (0.25 here: the error is not halved). "
                   "Nine tenths of the sequences are learnt between 50,000 and 72,000, the rest slowly. Input gates "
                   "that start half open (`lstm`, forget bias 1) stay at the trivial predictor.",
    "characters": "The time is that of a third of a core, other work going on beside; `train` took 11 minutes with the "
                  "same settings and two cores to itself, to the same 1.4701. Validation is on the first 5,000 "
                  "characters held out.",
    "continual_reber": "16 cells with gates that start half open find the dependence on the second symbol in few "
                       "seeds; 32 cells whose input gates start nearly shut find it in all, if they can forget.",
    "music": "Test losses of the chosen setting had been seen before the grid was drawn up. Tried besides on seed 0: "
             "dropout of 0.1 and 0.2, a cosine schedule, an update bias of -1, a reset after the product, a decay of "
             "0.3 to 2 in AdamW; none was better on validation.",
}


def planned(name: str | None = None) -> list[Row]:
    """The rows of a task, or of all, with each that a grid might choose."""
    return [one for item in PLAN for one in (item.rows if isinstance(item, Grid) else (item,))
            if name in (None, one.task)]


def shown(name: str) -> list[Row]:
    """The rows of a task that the page tells."""
    rows = [item.choice if isinstance(item, Grid) else item for item in PLAN]
    return [one for one in rows if one is not None and one.task == name]


def page() -> str:
    """The whole page from the files."""
    return "\n".join([HEAD, *(line for name in dict.fromkeys(one.task for one in planned()) for line in section(name))])


def section(name: str) -> Iterator[str]:
    """A task, what is published, what was found, and by which commands."""
    task, rows = tasks[name], shown(name)
    results = [result for one in rows for result in found(one.runs, RESULTS)]
    yield from (f"## {name}", "", f"{task.source}.", "", *wrap(task.definition, 120), "")
    if task.recalled:
        yield from (*wrap(f"From memory, not checked against the source: {task.recalled}", 120), "")
    yield from (table(name, results, [one.runs[0].numbers for one in rows if one.able]), "")
    yield from (f"- {line}" for line in failures(results))
    for one in PLAN:
        if isinstance(one, Grid) and one.choice in rows:
            yield from (*wrap(one.told, 120), "")
    if name in NOTES:
        yield from (*wrap(NOTES[name], 120), "")
    if name in BESIDE:
        yield from (*BESIDE[name](), "")
    done = [one for one in rows if found(one.runs, RESULTS)]
    if done:
        yield from ("```sh", *(one.command for one in done), "```", "")


def do(one: Row, workers: int) -> None:
    """The runs of a row that are missing, where its data is there."""
    if one.able:
        completed(one.runs, RESULTS, workers)
    else:
        print(f"left out: {one.command}", file=sys.stderr)


def main(argv: list[str]) -> None:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--tasks", type=lambda s: s.split(","), help="names, with commas between")
    p.add_argument("--workers", type=int, default=2, help="processes (default: 2)")
    p.add_argument("--render", action="store_true", help="write the page alone")
    given = p.parse_args(argv)
    for item in () if given.render else PLAN:
        first, *_ = rows = item.trials if isinstance(item, Grid) else [item]
        if given.tasks is None or first.task in given.tasks:
            for one in rows:
                do(one, given.workers)
            if isinstance(item, Grid) and item.choice:
                do(item.choice, given.workers)
    PAGE.write_text(page(), encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
