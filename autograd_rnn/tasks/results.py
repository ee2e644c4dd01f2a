"""Results as tables: what others reached, what a trivial predictor does, what our runs did.

    results of runs -> Markdown

Runs that differ in nothing but their seed are one row: median and range over the seeds.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from math import inf
from pathlib import Path
from statistics import median
from typing import Any

from ..learn.session import Settings
from . import Task, tasks

Result = dict[str, Any]
COLUMNS = ("", "result", "settings", "time of a run")
TOLD = ("optimiser", "lr", "schedule", "batch", "size", "layers", "dropout")  # settings that are always told, if not 0


def table(name: str, results: Iterable[Result], numbers: Iterable[dict[str, Any]]) -> str:
    """Published values, baselines for each choice of the task's numbers, and the results of a task."""
    task, chosen = tasks[name], {json.dumps(one, sort_keys=True): one for one in numbers}.values()
    rows = [(who, value, "", "") for who, value in task.published.items()]
    for who, formula in task.baselines.items():
        rows += [(f"baseline: {who}" + (f" ({words(one)})" if one else ""), number(formula(**one)), "", "")
                 for one in chosen]
    rows += [ours(task, group) for group in groups(results)]
    lines = ["| " + " | ".join(COLUMNS) + " |", "|---|---|---|---:|"]
    return "\n".join([*lines, *("| " + " | ".join(row) + " |" for row in rows)])


def words(values: dict[str, Any]) -> str:
    """Values by name; of a file, its name.

    >>> words({"T": 100, "path": "music/JSB.npz"})
    'T = 100, JSB.npz'
    """
    return ", ".join(Path(v).name if name == "path" else f"{name} = {v}" for name, v in values.items())


def groups(results: Iterable[Result]) -> list[list[Result]]:
    """Results that differ in their seed alone, together."""
    found: dict[str, list[Result]] = {}
    for result in results:
        others = {k: result[k] for k in ("task", "cell", "text", "values")}
        settings = {k: v for k, v in result["settings"].items() if k != "seed"}
        found.setdefault(json.dumps([others, settings], sort_keys=True), []).append(result)
    return list(found.values())


def ours(task: Task, group: list[Result]) -> tuple[str, str, str, str]:
    """One row: the cell, what its runs reached, with which settings, how long one took."""
    one, said = group[0], []
    good = [r for r in group if r["error"] is None]
    if task.goal is not None:
        solved = [r for r in group if r["solved"]]
        said.append(f"{len(solved)} of {len(group)} solved")
        if solved:
            said.append(f"{spread([r['sequences'] if r['solved'] else inf for r in group])} sequences")
        good = solved or good
    if good:
        said.append(f"{spread([r['test'] for r in good])} {task.measure}")
        if task.goal is None:  # settings are to be chosen by this
            said.append(f"validation {number(median(r['valid'] for r in good))}")
    if len(good) < len(group) and any(r["error"] for r in group):
        said.append(f"{sum(r['error'] is not None for r in group)} diverged")
    if task.goal is None:
        said.append(f"{len(group)} seed{'s' * (len(group) > 1)}")
    return f"**{one['cell']}**, {one['weights']:,} weights", "; ".join(said), settings(one), duration(
        median(r["seconds"] for r in group))


def spread(values: Sequence[float]) -> str:
    """Median, and range where there is one."""
    low, middle, high = min(values), median(values), max(values)
    return number(middle) if low == high else f"{number(middle)} ({number(low)} to {number(high)})"


def number(value: float) -> str:
    """Whole numbers whole, others to three or four places; what was not reached, never.

    >>> number(12800), number(0.1666666), number(11.0601), number(0.0), number(5.3e-5), number(inf)
    ('12,800', '0.1667', '11.060', '0', '5.3e-05', 'never')
    """
    if value == inf:
        return "never"
    if value == int(value):
        return f"{int(value):,}"
    return f"{value:.3f}" if abs(value) >= 1 else f"{value:.4f}" if abs(value) >= 1e-3 else f"{value:.1e}"


def settings(result: Result) -> str:
    """What was set, in words: the usual, then what differs from the defaults, then values by name."""
    given, usual = result["settings"], Settings()
    said = [f"{name} {given[name]}" if name != "optimiser" else str(given[name])
            for name in TOLD if given[name] and not (name == "layers" and given[name] == 1)]
    said += [f"{name} {value}" for name, value in given.items() if name not in (*TOLD, "seed", "steps", "every", "lr")
             and value != getattr(usual, name)]
    said += [words(result["values"])] if result["values"] else []
    if result["text"] is not None:
        said.append("equations of one's own")
    return ", ".join(said) + f"; at most {given['steps']:,} steps"


def duration(seconds: float) -> str:
    """
    >>> duration(12.3), duration(150), duration(7200)
    ('12 s', '2.5 min', '2.0 h')
    """
    return f"{seconds:.0f} s" if seconds < 100 else f"{seconds / 60:.1f} min" if seconds < 6000 else (
        f"{seconds / 3600:.1f} h")


def failures(results: Iterable[Result]) -> list[str]:
    """A line for each run that ended with an error."""
    return [f"{r['cell']}, seed {r['settings']['seed']}: {r['error'].splitlines()[0]}" for r in results if r["error"]]
