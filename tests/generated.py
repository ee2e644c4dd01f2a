"""Texts over the whole notation with everything that runs them, each from a seed, and what they cover.

    seed -> draft -> features, ends, a loss or cotangents -> Case: text, arrays, lengths, the way it is run

    python tests/generated.py 500        the coverage of 500 texts

`tests/features.py` has a row for each feature. The library is not asked: shapes, ends and roles are known from how a
text was made. `tests/paths.py` says on what paths a case is run, and how answers are compared.
"""

from __future__ import annotations

import sys
from collections import Counter
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
from draft import DATA, Draft, Name
from features import FEATURES, OFFSETS, REDUCTIONS

from autograd_rnn import Cell

SMALL, LARGE = (1, 2, 3, 4, 5), (15, 16, 17, 33)
WORK = (1, 2, 15, 16, 17, 127, 128, 129, 130, 257, 513)  # steps times batch, beside the boundaries of machine code
FACTORS = (1, 2, 3, 5, 7, 10, 13, 17, 19, 43, 127, 171)


@dataclass(frozen=True)
class Case:
    """A text and one run of it. Arrays are float64; inputs are (T, ..., batch, size), or without a batch: None.

    options: initial, lengths, steps, loss, cotangents, as `Cell.gradient` takes them.
    """

    seed: int
    text: str
    params: dict[str, np.ndarray]
    inputs: dict[str, np.ndarray]
    options: dict[str, Any]
    names: dict[str, Name]
    marks: frozenset[str]
    extents: dict[str, int]
    sizes: dict[str, int]
    batch: int | None
    single: bool = False  # in float32 as well
    threads: int = 1
    budget: bool = False  # within a budget of memory as well
    cells: dict[str, str] = field(default_factory=dict)

    @cached_property
    def cell(self) -> Cell:
        return Cell(self.text, **{key: Cell(text) for key, text in self.cells.items()})

    @property
    def work(self) -> int:
        return int(np.prod([self.batch or 1, *(n for i, n in self.extents.items() if i in DATA)]))

    def arguments(self) -> dict[str, Any]:
        """What `Cell.gradient` takes beside the parameters."""
        return {**self.inputs, **self.options}

    def run_arguments(self) -> dict[str, Any]:
        """What `Cell.run` takes beside the parameters."""
        return {n: v for n, v in self.arguments().items() if n not in ("loss", "cotangents")}

    def astype(self, dtype) -> Case:
        """The same run in another precision."""
        cast = lambda v: {n: cast(a) for n, a in v.items()} if isinstance(v, dict) else (
            v.astype(dtype) if isinstance(v, np.ndarray) and v.dtype.kind == "f" else v)
        return replace(self, params=cast(self.params), inputs=cast(self.inputs), options=cast(self.options))

    def __str__(self):
        shown = {**self.sizes, **self.extents, "batch": self.batch}
        options = {k: {n: a.tolist()[:9] if k == "lengths" else getattr(a, "shape", a) for n, a in v.items()}
                   if isinstance(v, dict) else v for k, v in self.options.items()}
        return f"seed {self.seed}, {shown}, {options}\n" + "\n".join(
            [f"  {k} = Cell({t!r})" for k, t in self.cells.items()] + [self.text])


# --- the text --------------------------------------------------------------------------------------------------------


def text_of(seed: int) -> str:
    """The text of case `seed`; what it calls is in the case."""
    return case_of(seed).text


def ends(d: Draft) -> None:
    """Some of the ends that shifts reach are defined, by a literal or by what does not come back to them."""
    for name, i, side in d.ends():
        of = d.names[name]
        if of.role not in ("value", "input") or (name, i, side) in d.defined_ends or not d.chance(
                0.25 if i in DATA else 0.6):
            continue
        rest = tuple(a for a in of.axes if a != i)
        literal = d.chance(0.3)
        index = d.pick(*rest) if rest and not literal and d.chance(0.3) else None
        if literal:
            value = d.pick("0", "0.3", "-0.5", "1 / 2")
        elif index and not of.dims:
            value = f"{d.parameter()} * {index} / {index.upper()}"
        else:
            names = [n for n in d.names if d.names[n].role == "input" and d.names[n].dims == of.dims
                     and set(d.names[n].axes) <= set(rest)]
            value = d.at(d.pick(*names)) if names and d.chance(0.6) else d.parameter(of.dims, declare=True)
            inside = [n for n, of_ in d.names.items() if of_ == of._replace(axes=(i,), role="input", shared=False)
                      and (n, {i: i}) in d.reads()]
            if inside and not rest and d.chance(0.5):
                value = f"{d.at(inside[0], **{i: d.pick('1', i.upper())})} - {value}"
                d.mark("an end made of an inside end")
            value = d.pick(value, f"tanh({value})")
        where = ",".join(side if a == i else a for a in of.axes)
        d.lines.append(f"{name}[{where}] = {value}")
        d.defined_ends.add((name, i, side))
        kind = "a literal" if literal else "computed"
        d.mark(f"end {i}={side} {kind}", "an end of an input" if of.role == "input" else "an end of a state")


def term(d: Draft, name: str) -> str:
    """A number from a value: its components, then its indices, reduced in one way or another."""
    of = d.names[name]
    e = d.at(name)
    if of.dims:
        e = d.pick(f"sum({e}**2)", f"sum({d.parameter(of.dims, declare=True)} * {e})", f"mean({e})",
                   *([f"logsumexp({e})", f"max({e})", f"sum({e} * softmax({e}))"] if len(of.dims) == 1 else []))
    else:
        e = d.pick(e, f"{e}**2", f"tanh({e} * {d.parameter()})")
    for i in d.rng.permutation(list(of.axes)):
        kind = d.pick("sum", "sum", "sum", "mean", "max", "logsumexp")
        d.mark(f"{kind}_{i} in a loss")
        e = f"{kind}_{i}({e})"
    return e


def ending(d: Draft) -> tuple[str, tuple[str, ...]]:
    """How the text ends: ("loss", nothing), ("named", its name) or ("cotangents", of these values)."""
    values = [n for n, of in d.names.items() if of.role == "value" and all(isinstance(s, str) for s in of.dims)]
    unread = [n for n in values if n in d.unread()] or values[-1:]
    kind = d.pick("loss", "loss", "loss", "loss", "cotangents", "cotangents", "both", "named")
    d.mark(f"ends with: {kind}")
    if kind != "cotangents":
        terms = [term(d, n) for n in unread]
        if d.chance(0.3):
            n = d.pick(*values)
            terms.append(f"tanh({term(d, n)}) * tanh({term(d, d.pick(*values))})")
        if d.chance(0.2):
            state = [n for n, i, _ in d.ends() if i in d.names[n].axes and d.names[n].axes == (i,) and i in DATA
                     and len(d.names[n].dims) == 1 and d.names[n].role == "value"]
            terms += [f"sum({d.at(n, **{d.names[n].axes[0]: d.names[n].axes[0].upper()})}**2)" for n in state[:1]]
        loss = d.new("Loss", (), ())
        d.define(loss, " + ".join(terms[:1] + [d.pick("", "0.5 * ", f"{d.parameter()} * ") + e for e in terms[1:]]))
        if kind == "loss":
            return kind, ()
    if kind == "named":
        other = d.value("Other", (), (), f"{term(d, d.pick(*unread))} + 0.1 * {term(d, d.pick(*values))}", pool=False)
        return kind, (d.pick(loss, other),)
    count = int(d.rng.integers(1, 4))
    among = unread if d.chance(0.5) else values
    chosen = [n for n in among if d.chance(count / len(among))] or [d.pick(*among)]
    if any(n not in chosen for n in unread):
        d.mark("an output that some parameters do not reach")
    return kind, tuple(chosen)


def positions(d: Draft) -> None:
    """Marks for where the text reads: how far along which index, along two at once, at which ends."""
    for _, at in d.reads():
        moved = {i: int(p[1:]) for i, p in at.items() if p.startswith(i) and p != i}
        d.mark(*(f"reads {i}{o:+d}" for i, o in moved.items()))
        d.mark(*(f"reads at {p}" for i, p in at.items() if not p.startswith(i)))
        if len(moved) > 1:
            d.mark(f"reads mixed over {','.join(sorted(moved, key='tjl'.index))}",
                   *["reads far and mixed"] * any(abs(o) > 1 for o in moved.values()))


def draft_of(seed: int) -> tuple[Draft, str, tuple[str, ...]]:
    d = Draft(seed)
    weights = np.array([w for _, w in FEATURES.values()], float)
    count = d.pick(1, 2, 2, 3, 3, 4, 5)
    for name in d.rng.choice(list(FEATURES), size=count, p=weights / weights.sum()):
        d.mark(str(name))
        FEATURES[name][0](d)
    kind, chosen = ending(d)
    d.prune()
    ends(d)
    d.prune()
    positions(d)
    if d.chance(0.3):
        d.rng.shuffle(d.lines)
        d.mark("lines in any order")
    return d, kind, chosen


# --- the run ---------------------------------------------------------------------------------------------------------


def shape_of(of: Name, extents, sizes, batch: int | None, without: str | None = None) -> tuple[int, ...]:
    """(T, ..., batch, size) of a name; of an end of it, without that index."""
    size = lambda s: s if isinstance(s, int) else sum(map(size, s)) if isinstance(s, tuple) else sizes[s]
    lead = tuple(extents[i] for i in of.axes if i != without)
    components = () if of.role == "class" else tuple(map(size, of.dims))
    return lead + (() if of.shared or batch is None else (batch,)) + components


def work_of(d: Draft, data: list[str]) -> tuple[dict[str, int], int | None]:
    """Extents of the data indices and the batch: mostly small, sometimes beside a boundary."""
    if d.chance(0.62):
        T, batch = int(d.rng.integers(1, 8)), d.pick(None, 1, 2, 2, 3, 4)
    else:
        work = int(d.rng.choice(WORK, p=np.array([2, 2, 2, 2, 2, 2, 2, 3, 2, 1, 0.5]) / 20.5))
        T = d.pick(*[n for n in {*FACTORS, work} if work % n == 0])
        batch = work // T
        d.mark(f"T x B = {work}")
    if batch is not None and d.chance(0.01):
        batch = 0
    return {i: T if i == data[0] else int(d.rng.integers(1, 5)) for i in data}, batch


def case_of(seed: int) -> Case:
    """Case number `seed`: everything of it is drawn from that number."""
    d, kind, chosen = draft_of(seed)
    rng, text = d.rng, d.text()
    used = [i for i in ("t", "j", "l") if i in {a for of in d.names.values() for a in of.axes}]
    extents, batch = work_of(d, [i for i in used if i in DATA] or ["t"])
    extents = {i: n for i, n in extents.items() if i in used}
    extents |= {i: int(rng.integers(1, 4)) for i in used if i not in DATA}
    work = int(np.prod([batch or 1, *(extents[i] for i in used if i in DATA)]))
    sizes = {s: int(d.pick(*SMALL)) for s in ("h", "x", "e", "r", "c")}
    if work < 300 and d.chance(0.25):
        s, n = d.pick("h", "h", "x", "r", "c"), int(d.pick(*LARGE))
        sizes[s] = n
        d.mark(f"size {n}")
    sizes |= {s: max(sizes[s], n) for s, n in d.least.items()}
    for s, n in sizes.items():
        d.mark(*[f"size {n}"] * (n in (1, 2, 3) and s == "h"))

    def draw(of: Name, without=None) -> np.ndarray:
        shape = shape_of(of, extents, sizes, batch, without)
        if of.role == "class":
            return rng.integers(0, sizes["c"], shape)
        if of.role == "const":
            return rng.integers(1, 4, shape).astype(float)
        if of.role == "bernoulli":
            return (rng.random(shape) < 0.7).astype(float)
        spread = 1.0 if of.role != "parameter" else 0.9 / np.sqrt(shape[-1]) if len(of.dims) == 2 else 0.6
        return spread * rng.normal(size=shape)

    given = {n: draw(of) for n, of in d.names.items() if of.role not in ("value",)}
    params = {n: v for n, v in given.items() if d.names[n].role in ("parameter", "const")}
    inputs = {n: v for n, v in given.items() if n not in params}
    if "l" in used and not any("l" in d.names[n].axes for n in given):
        params["l"] = np.asarray(extents["l"])  # a size that no array shows
    options: dict[str, Any] = {}
    hidden = {i: extents[i] for i in used if i in DATA and not any(i in d.names[n].axes for n in given)}
    if hidden:
        options["steps"] = hidden
        d.mark("steps that no input shows")
    begun = {}
    if d.chance(0.5):
        for name, i, side in d.ends(near=True):
            of = d.names[name]
            if i in DATA and of.role in ("value", "input") and d.chance(0.6):
                begun[f"{name}[{','.join(side if a == i else a for a in of.axes)}]"] = 0.5 * draw(of, without=i)
                d.mark(f"initial {i}={side}", *["initial over a defined end"] * ((name, i, side) in d.defined_ends))
    if begun:
        options["initial"] = begun
    data = [i for i in used if i in DATA]
    if batch and data and d.chance(0.35):
        least = 0 if d.chance(0.05) else 1
        lengths = {i: rng.integers(least, extents[i] + 1, batch) for i in data if d.chance(0.8)}
        for i in lengths:
            if not d.chance(0.3):
                lengths[i][rng.integers(batch)] = extents[i]
        if lengths:
            options["lengths"] = lengths
            d.mark("ragged", *["ragged with 0"] * any((n == 0).any() for n in lengths.values()),
                   *["ragged, none full"] * any((n < extents[i]).all() for i, n in lengths.items()))
    if kind == "named":
        options["loss"] = chosen[0]
    elif kind != "loss":
        options["cotangents"] = {n: rng.normal(size=shape_of(d.names[n], extents, sizes, batch)) for n in chosen}
    single, threads, budget = d.chance(0.2), d.pick(1, 2, 8), d.chance(0.12)
    d.mark(*["float32"] * single, *["a budget of memory"] * budget, f"threads {threads}", f"along {','.join(used)}",
           "no batch axis" if batch is None else f"batch {batch}" if batch < 2 else "a batch")
    return Case(seed, text, params, inputs, options, d.names, frozenset(d.marks), extents, sizes, batch, single,
                threads, budget, d.cells)


# --- what they cover -------------------------------------------------------------------------------------------------

WANTED = (*FEATURES, *(f"reads {i}{o:+d}" for i in ("t", "j", "l") for o in OFFSETS),
          *(f"{kind}_{i} of {rank}" for kind in REDUCTIONS for i in ("t", "j", "l")
            for rank in ("numbers", "vectors", "matrices")),
          *(f"end {i}={side} {how}" for i in ("t", "j", "l") for side in ("0", i.upper() + "+1")
            for how in ("a literal", "computed")),
          *(f"T x B = {n}" for n in WORK), *(f"size {n}" for n in (1, 2, 3, *LARGE)), "batch 0", "batch 1",
          "ragged with 0", "float32", "a budget of memory", *(f"threads {n}" for n in (1, 2, 8)))


def coverage(seeds) -> Counter[str]:
    """How many of these cases have each feature; what is wanted and none has counts zero."""
    found: Counter[str] = Counter(dict.fromkeys(WANTED, 0))
    for seed in seeds:
        found.update(case_of(seed).marks)
    return found


def table(found: Counter[str], count: int) -> str:
    """The coverage, feature by feature."""
    width = max(map(len, found))
    rows = [f"{name:<{width}} {n:>7}" for name, n in sorted(found.items())]
    return "\n".join([*rows, f"{len(found)} features in {count} texts; the rarest is in {min(found.values())}"])


if __name__ == "__main__":
    texts = int(sys.argv[1]) if len(sys.argv) > 1 else 500
    print(table(coverage(range(texts)), texts))
