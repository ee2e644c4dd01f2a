"""What must not change a number, a row each: names, the order of lines, padding, where a sequence is cut, ...

    LAWS[name](case) -> what the law says and what came out;   broken(case, name) -> where they differ

A law gives two answers that must be the same, or None for a case it does not speak of. They are judged as paths are.
"""

from __future__ import annotations

import importlib.util
import pickle
import re
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
from generated import DATA, Case
from paths import Answer, Rounding, differences, outcome, program, reference

from autograd_rnn import Cell, CellError

STEM = re.compile(r"[A-Za-z]+\d+")  # every name of a generated text; what a call makes of it goes on with `_`


def rng_of(case: Case) -> np.random.Generator:
    return np.random.default_rng([case.seed, 1])


def gradients(case: Case) -> Answer:
    """The reference's value and gradients."""
    found = reference(case)
    return Answer(found.value, found.gradients)


def with_text(case: Case, text: str, **changes) -> Case:
    """The case with another text, whose loss is named: which number is the loss may hang on the order of lines."""
    options = dict(changes.pop("options", case.options))
    if "loss" not in options and "cotangents" not in options:
        options["loss"] = case.cell.loss
    return replace(case, text=text, options=options, **changes)


def definitions(case: Case) -> dict[str, str]:
    """Left side -> right side of the lines that define something."""
    pairs = [line.split(" = ", 1) for line in case.text.splitlines() if " = " in line]
    return {left: right for left, right in pairs if not left.startswith(("own(", "twice("))}


# --- the text --------------------------------------------------------------------------------------------------------


def renaming(case: Case):
    """Names mean nothing."""
    stems = sorted(set(STEM.findall(case.text)))
    new = dict(zip(stems, (f"v{k}" for k in rng_of(case).permutation(len(stems)))))
    change = lambda s: STEM.sub(lambda m: new.get(m[0], m[0]), s)
    keys = lambda d: {change(n): v for n, v in d.items()}
    options = {k: keys(v) if k in ("initial", "cotangents") else change(v) if k == "loss" else v
               for k, v in case.options.items()}
    other = replace(case, text=change(case.text), params=keys(case.params), inputs=keys(case.inputs), options=options)
    true, found = gradients(case), gradients(other)
    return Answer(true.value, keys(true.gradients)), found


def reordering(case: Case):
    """Lines are a set."""
    lines = case.text.splitlines()
    shuffled = "\n".join(lines[k] for k in rng_of(case).permutation(len(lines)))
    return gradients(case), gradients(with_text(case, shuffled))


def inlining(case: Case):
    """An intermediate that is read at its own position may stand for itself."""
    lines = definitions(case)
    kept = {*case.options.get("cotangents", ()), case.options.get("loss", case.cell.loss)}
    found = []
    declared = " ".join(line for line in case.text.splitlines() if " = " not in line)
    for left, right in lines.items():
        name = STEM.match(left)[0] if STEM.match(left) else ""
        places = re.findall(rf"\b{name}\b(?:\[[^]]*\])?", case.text)
        if name and name not in kept and len(places) > 1 and set(places) == {left} and not re.search(
                rf"\b{name}\b", f"{right}\n{declared}") and right.split("(")[0] not in case.cells:
            found.append((left, right))
    if not found:
        return None
    left, right = found[rng_of(case).integers(len(found))]
    text = "\n".join(line.replace(left, f"({right})") for line in case.text.splitlines()
                     if not line.startswith(f"{left} = "))
    return gradients(case), gradients(with_text(case, text))


def joined(case: Case):
    """U @ a + W @ b = concat of both, times concat(a, b); its gradient's columns are those of U and W."""
    term = r"([A-Za-z]+\d+) @ ([A-Za-z]+\d+(?:\[[^]]*\])?)"
    found = [m for m in re.finditer(rf"(?:= |\+ |\(){term} \+ {term}", case.text)
             if all(len(re.findall(rf"\b{m[k]}\b", case.text)) == 1 and m[k] in case.params for k in (1, 3))]
    if not found:
        return None
    m = found[0]
    u, a, w, b = m.groups()
    text = case.text[:m.start(1)] + f"{u}x{w} @ concat({a}, {b})" + case.text[m.end():]
    params = {n: v for n, v in case.params.items() if n not in (u, w)}
    params[f"{u}x{w}"] = np.concatenate([case.params[u], case.params[w]], axis=1)
    true, other = gradients(case), gradients(with_text(case, text, params=params))
    whole = other.gradients.pop(f"{u}x{w}")
    cut = case.params[u].shape[1]
    return true, Answer(other.value, {**other.gradients, u: whole[:, :cut], w: whole[:, cut:]})


# --- the run ---------------------------------------------------------------------------------------------------------


def arrays(case: Case, change, per_example=False) -> Case:
    """The case with `change(array, axes, name)` for every array that has indices or a batch; axes in their order."""
    def of(label, array):
        name = label.split("[")[0]
        inside = re.search(r"\[(.*)\]", label)
        known = case.names[name]
        axes = [i for k, i in enumerate(known.axes) if not inside or inside[1].split(",")[k] == i]
        if case.batch is not None and not known.shared:
            axes.append("batch")
        return change(np.asarray(array), axes)

    options = {k: {n: of(n, v) for n, v in found.items()} if k in ("initial", "cotangents") else found
               for k, found in case.options.items()}
    inputs = {n: of(n, v) for n, v in case.inputs.items()}
    return replace(case, inputs=inputs, options=options)


def padding(case: Case):
    """What stands behind the end of an example changes nothing."""
    data = {i: n for i, n in case.extents.items() if i in DATA}
    if not case.batch or not data:
        return None

    def longer(array, axes):
        for k, i in enumerate(axes):
            if i in data:
                array = np.concatenate([array, np.full_like(np.take(array, [0, 0], axis=k), 77)], axis=k)
        return array if array.dtype.kind != "i" else np.minimum(array, case.sizes["c"] - 1)

    lengths = {i: case.options.get("lengths", {}).get(i, np.full(case.batch, n)) for i, n in data.items()}
    other = arrays(case, longer)
    options = {**other.options, "lengths": lengths}
    if "steps" in options:
        options["steps"] = {i: n + 2 for i, n in options["steps"].items()}
    found = gradients(replace(other, options=options))
    true = gradients(case)

    def cut(name, array):
        return array[tuple(slice(n) for n in np.shape(true.gradients[name]))]

    return true, Answer(found.value, {n: cut(n, g) for n, g in found.gradients.items()})


def examples_alone(case: Case):
    """A batch is its examples: each alone, as long as it is."""
    if not case.batch or case.batch > 9 or "_batch(" in case.text or any((n == 0).any() for n in case.options.get(
            "lengths", {}).values()):
        return None
    value, total = 0.0, {}
    lengths = {i: case.options.get("lengths", {}).get(i, np.full(case.batch, n)) for i, n in case.extents.items()
               if i in DATA}
    true = gradients(case)
    shared = {n: array for n, array in case.options.get("cotangents", {}).items() if case.names[n].shared}
    for b in range(case.batch):
        def alone(array, axes, b=b):
            where = tuple(slice(lengths[i][b]) if i in DATA else b if i == "batch" else slice(None) for i in axes)
            return array[where]

        one = arrays(case, alone)
        options = {k: v for k, v in one.options.items() if k != "lengths"}
        if "steps" in options:
            options["steps"] = {i: int(lengths[i][b]) for i in options["steps"]}
        if b and shared:  # what all share counts once
            options["cotangents"] = {n: 0 * v if n in shared else v for n, v in options["cotangents"].items()}
        found = gradients(replace(one, batch=None, options=options))
        value += found.value
        for n in case.params:
            if n in found.gradients:
                total[n] = total.get(n, 0) + found.gradients[n]
    if case.options.get("cotangents") is None and loss_is_shared(case):
        return None
    return Answer(true.value, {n: g for n, g in true.gradients.items() if n in total}), Answer(value, total)


def loss_is_shared(case: Case) -> bool:
    return case.names[case.options.get("loss") or case.cell.loss].shared


def stretches(case: Case):
    """A sequence may be cut anywhere: `final` of the first part is `initial` of the second."""
    T = case.extents.get("t", 0)
    if T < 2 or "lengths" in case.options:
        return None
    cut = int(rng_of(case).integers(1, T))

    def part(first, last):
        other = arrays(case, lambda array, axes: array[tuple(slice(first, last) if i == "t" else slice(None)
                                                             for i in axes)])
        options = {k: v for k, v in other.options.items() if k not in ("cotangents", "loss")}
        if "steps" in options:
            options["steps"] = {**options["steps"], **({"t": last - first} if "t" in options["steps"] else {})}
        return replace(other, options=options)

    first = part(0, cut)
    begun = case.cell.run(first.params, **first.run_arguments())
    rest = part(cut, T)
    ends = {n: v for n, v in rest.options.get("initial", {}).items() if "[0" not in n.replace("[t,0", "")}
    rest = replace(rest, options={**rest.options, "initial": {**ends, **begun.final}})
    try:
        second = case.cell.run(rest.params, **rest.run_arguments())
    except CellError as error:
        if "stretch" in str(error):
            return None
        raise
    whole = case.cell.run(case.params, **case.run_arguments())
    over = [n for n in whole if n in case.names and "t" in case.names[n].axes]
    along = lambda n: case.names[n].axes.index("t")
    true = {n: np.take(whole[n], range(cut, T), axis=along(n)) for n in over}
    return Answer(np.nan, {}, true), Answer(np.nan, {}, {n: second[n] for n in over})


def order_of_examples(case: Case):
    """Examples do not know each other's places."""
    if not case.batch or case.batch < 2:
        return None
    order = rng_of(case).permutation(case.batch)

    def permuted(array, axes):
        return np.take(array, order, axis=axes.index("batch")) if "batch" in axes else array

    other = arrays(case, permuted)
    if "lengths" in other.options:
        other.options["lengths"] = {i: n[order] for i, n in other.options["lengths"].items()}
    true, found = gradients(case), gradients(other)
    return (Answer(true.value, {n: g for n, g in true.gradients.items() if n in case.params}),
            Answer(found.value, {n: g for n, g in found.gradients.items() if n in case.params}))


def order_of_units(case: Case):
    """Components of one size change places together, where nothing counts them."""
    if re.search(r"\b(concat|split|slice|cumsum)\(", case.text) or "max(" in case.text:
        return None
    order = rng_of(case).permutation(case.sizes["h"])

    def permuted(label, array):
        of = case.names.get(label.split("[")[0])
        array = np.asarray(array)
        for k, d in enumerate(reversed(of.dims if of and of.role != "class" else ())):
            if d == "h":
                array = np.take(array, order, axis=array.ndim - 1 - k)
        return array

    every = lambda d: {n: permuted(n, v) for n, v in d.items()}
    options = {k: every(v) if k in ("initial", "cotangents") else v for k, v in case.options.items()}
    other = replace(case, params=every(case.params), inputs=every(case.inputs), options=options)
    true, found = gradients(case), gradients(other)
    ours = [n for n in true.gradients if n.split("[")[0] in case.names]  # not of the copies that a far read makes
    return (Answer(true.value, {n: permuted(n, true.gradients[n]) for n in ours}),
            Answer(found.value, {n: found.gradients[n] for n in ours}))


def linear_in_cotangents(case: Case):
    """A gradient is linear in what it starts from."""
    first = case.options.get("cotangents")
    if first is None:
        return None
    rng = rng_of(case)
    second = {n: rng.normal(size=c.shape) for n, c in first.items()}
    start = lambda c: gradients(replace(case, options={**case.options, "cotangents": c}))
    a, b, both = start(first), start(second), start({n: 2 * first[n] - 3 * second[n] for n in first})
    return Answer(2 * a.value - 3 * b.value, {n: 2 * g - 3 * b.gradients[n] for n, g in a.gradients.items()}), both


# --- out of the process and back -------------------------------------------------------------------------------------


def printed(case: Case):
    """The adjoint's text is the adjoint: run as a cell, it gives the gradients."""
    cotangents = case.options.get("cotangents")
    ends = set(definitions(case)) & {*case.options.get("initial", ())}  # the adjoint of a defined end, given instead
    if ends or (cotangents is not None and "lengths" in case.options):
        return None
    outputs = cotangents or ([case.options["loss"]] if "loss" in case.options else None)
    adjoint = case.cell.backward(outputs)
    again = Cell(adjoint.text)
    assert again == adjoint, "the adjoint's text means another system"
    seeds = {f"Delta_{n}": v for n, v in (cotangents or {}).items()}
    if outputs is not None and cotangents is None:
        return None
    inputs = {n: v for n, v in {**case.inputs, **seeds}.items() if n in again.inputs}
    run = {k: v for k, v in case.run_arguments().items() if k not in case.inputs}
    weights = {n: v for n, v in {**case.params, **seeds}.items() if n in (*again.parameters, *again.constants, "l")}
    found = again.run(weights, **inputs, **run)
    true = gradients(case)
    return (Answer(np.nan, {n: true.gradients[n] for n in case.params if f"d{n}" in found}),
            Answer(np.nan, {n: np.asarray(found[f"d{n}"]) for n in case.params if f"d{n}" in found}))


def pickled(case: Case):
    """A cell that was pickled is the cell."""
    again = pickle.loads(pickle.dumps(case.cell))
    assert again == case.cell
    value, found = again.gradient(case.params, **case.arguments())
    value_, true = case.cell.gradient(case.params, **case.arguments())
    return Answer(value_, true), Answer(value, found)


def saved(case: Case):
    """A file of NumPy gives the program's numbers."""
    if "lengths" in case.options or not case.batch or "loss" in case.options or "steps" in case.options:
        return None
    cotangents = case.options.get("cotangents", {})
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "saved.py"
        case.cell.compile(outputs=tuple(cotangents) or None, backend="numpy").save(path)
        spec = importlib.util.spec_from_file_location("saved", path)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    initial = case.options.get("initial", {})
    if any((n := k.split("[")[0]) and any(left.startswith(n + "[") and left == k for left in definitions(case))
           for k in initial):
        return None  # the text says what it is
    labels = gradients(case).gradients
    short = {k: k if k in labels else f"{k.split('[')[0]}[{re.search(r'0|[TJ][+]1', k)[0]}]" for k in initial}
    found = module.gradient({**case.params, **case.inputs, **{short[k]: v for k, v in initial.items()},
                             **{f"Delta_{n}": v for n, v in cotangents.items()}})
    true = program(backend="numpy")(case)
    names = [n for n in true.gradients if n in found]
    return Answer(np.nan, {n: true.gradients[n] for n in names}), Answer(np.nan, {n: found[n] for n in names})


LAWS = {
    "renaming": renaming, "reordering lines": reordering, "inlining": inlining, "concat against two products": joined,
    "padding": padding, "examples alone": examples_alone, "stretches": stretches,
    "order of examples": order_of_examples, "order of units": order_of_units,
    "linear in cotangents": linear_in_cotangents, "printed and parsed": printed, "pickled": pickled,
    "a saved file": saved,
}


def broken(case: Case, name: str) -> list[tuple[str, float, str]] | None:
    """Where a law does not hold; None where it says nothing, or the run is refused."""
    if isinstance(outcome(reference, case).refused, CellError):
        return None
    with np.errstate(all="ignore"):
        both = LAWS[name](case)
    if both is None:
        return None
    return list(differences(case, *both, "float64", Rounding(case)))
