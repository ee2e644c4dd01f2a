"""The command line: `python -m autograd_rnn {demo,show,derive,grade,compare,check,train,bench,search} ...`.

A cell argument is a name of the zoo, a `.cell` file, or `-` for stdin. Results go to stdout, progress to stderr. What
is wrong with a cell or its data is printed as text, and the exit status is 2.
"""

from __future__ import annotations

import argparse
import os
import sys
from dataclasses import fields
from pathlib import Path

import numpy as np

from .atomic import written
from .cell import Cell
from .comparison import compare as compared
from .derivation.document import LEVELS
from .derivation.points import small_sizes
from .errors import CellError
from .init import generator
from .learn.session import Settings, begin, characters, excerpt, merged, resume
from .learn.text import python_topics, read_text
from .printing.names import ADJOINTS
from .search.rank import best, ranking
from .search.rank import search as searched
from .tasks import tasks
from .tasks.bench import Run, completed, found
from .tasks.results import failures, table
from .zoo import zoo


def cell_of(argument: str) -> Cell:
    """A cell of the zoo by its name, or the text of a `.cell` file or of stdin."""
    if argument == "-":
        try:
            return Cell(sys.stdin.read(), "stdin")
        except UnicodeDecodeError as e:
            raise CellError(f"What stdin gives is no {e.encoding} text: byte {e.start}.") from e
    if argument.endswith(".cell"):
        return Cell(read_text(argument), Path(argument).stem)
    try:
        return zoo.named(argument)
    except CellError as e:
        raise CellError(e.fact, remedy=f"{e.remedy} A file is named *.cell.") from None


def described(cell: Cell) -> str:
    """Equations, then each name with its role and its shape."""
    width = max(map(len, cell.shapes))
    rows = [f"{name:<{width}}  {cell.system.roles[name]:<9}  ({', '.join([*axes, *map(str, cell.shapes[name])])})"
            for name, axes in ((n, [i.upper() for i in cell.system.axes[n]]) for n in cell.shapes)]
    return "\n".join([str(cell), "", *rows])


def example(cell: Cell, seed: int, steps: int = 5, batch: int = 2) -> tuple[dict, dict]:
    """(params, inputs), random at small sizes, with weights so moderate that no gate saturates."""
    rng = generator(seed, "seed")
    system = cell.system
    known = small_sizes(system)

    def shape(name: str) -> tuple[int, ...]:
        axes = tuple(known[i] if i in system.model else steps for i in system.axes[name])
        lead = (batch,) if name in system.per_example else ()
        return axes + lead + tuple(d if isinstance(d, int) else known[d] for d in system.shapes[name])

    constants = {n: rng.integers(1, 4, shape(n)).astype(float) for n in cell.constants}
    params = cell.init(seed=seed, **{**known, **constants})
    params.update({n: params[n] + rng.uniform(-0.5, 0.5, shape(n)) / np.sqrt(max(shape(n)[-1:], default=1))
                   for n in cell.parameters})
    given: dict = {n: rng.integers(0, 2, shape(n)) if system.roles[n] == "class" else rng.normal(0, 0.5, shape(n))
             for n in system.having("input", "class")}
    if system.having("noise"):
        given["noise"] = seed
    if not any(i not in system.model for n in given if n != "noise" for i in system.axes[n]):
        given["steps"] = steps
    return params, given


def show(args) -> int:
    cell = cell_of(args.cell)
    if args.cell in zoo:
        entry = zoo.entry(args.cell)
        print("\n".join(f"# {line}" for line in (entry.citation, entry.notes) if line) + "\n")
    print(described(cell))
    return 0


def derive(args) -> int:
    derivation = cell_of(args.cell).derivation()
    told = {"level": args.level, "notation": args.notation}
    printed = {"text": derivation.text, "latex": derivation.latex, "html": derivation.html}[args.format](**told)
    if args.output is None:
        print(printed, end="")
    else:
        written(args.output, printed.encode())
    return 0


def grade(args) -> int:
    result = cell_of(args.cell).grade(read_text(args.file))
    print(result)
    return 0 if result.ok else 1


def compare(args) -> int:
    found = compared(cell_of(args.cell), cell_of(args.other))
    print({"text": found.text, "latex": found.latex}[args.format]().rstrip())
    return 0


def check(args) -> int:
    cell = cell_of(args.cell)
    if args.steps < 1:
        raise CellError(f"A sequence of {args.steps} steps cannot be checked.", remedy="Give --steps from 1.")
    params, given = example(cell, args.seed, args.steps)
    report = cell.check_gradients(params, **given)
    print(report)
    return 0 if report.ok else 1


def settings_in(args) -> dict:
    """The settings that were given."""
    return {f.name: getattr(args, f.name) for f in fields(Settings) if hasattr(args, f.name)}


def train(args) -> int:
    told = settings_in(args)
    text = python_topics() if args.text is None else read_text(args.text)
    if args.resume:
        if args.cell:
            raise CellError("Both a cell and a file to resume from are given.", remedy="The file has its own cell.")
        model, start, data, saved = resume(args.resume, text)
        settings = merged(saved, told)
    else:
        settings = Settings(**told)
        model, start, data = begin(cell_of(args.cell or "lstm"), text, settings)
    result = characters(model, start, data, settings, args.log, args.save or args.resume)
    print(f"{result}\n\n{excerpt(result)}")
    return 0


def numbered(text: str) -> list[int]:
    """Seeds from "0-9" or "0,3,5"."""
    try:
        parts = [[int(end) for end in part.split("-")] for part in text.split(",")]
    except ValueError:
        raise CellError(f"The seeds are {text!r}.", remedy="Give whole numbers: 0-9, or 0,3,5.") from None
    return [seed for first, *last in parts for seed in range(first, (last or [first])[0] + 1)]


def assigned(texts: list[str]) -> dict:
    """Values by name from NAME=VALUE: a number, several with commas between, or a text."""
    def value(text: str):
        for kind in (int, float):
            try:
                numbers = [kind(part) for part in text.split(",")]
                return numbers if len(numbers) > 1 else numbers[0]
            except ValueError:
                continue
        return {"True": True, "False": False}.get(text, text)

    pairs = [text.partition("=") for text in texts]
    for name, equals, _ in pairs:
        if not equals:
            raise CellError(f"`{name}` has no value.", remedy="Give NAME=VALUE: --set T=200.")
    return {name: value(text) for name, _, text in pairs}


def runs_of(args) -> list[Run]:
    """Every cell with every seed."""
    told, values = settings_in(args), assigned(args.set)
    texts = {name: None if name in zoo else str(cell_of(name)) for name in args.cell.split(",")}
    return [Run.of(args.task, Path(name).stem, text, values, **told, seed=seed)
            for name, text in texts.items() for seed in numbered(args.seeds)]


def bench(args) -> int:
    runs = runs_of(args)
    for run in {run.cell: run for run in runs}.values():
        run.begin()  # what cannot be is refused before anything is trained
    completed(runs, args.results, args.workers)
    results = found(runs, args.results)
    print(table(args.task, results, [runs[0].numbers]))
    print(*failures(results), sep="\n", end="")
    return 0


def search(args) -> int:
    start = {name: str(cell_of(name)) for name in args.start.split(",")}
    cells, marks = searched(args.folder, start, args.cells, args.workers, args.seed)
    found = best(cells, marks)
    print(ranking(found[:args.shown], marks))
    print(f"\n{found[0].text}")
    return 0


def demo(args) -> int:
    cell = cell_of(args.cell)
    settings = Settings(steps=args.steps, every=max(1, args.steps // 8))
    params, given = example(cell, seed=0)
    print(f"{cell}\n\nIts backward pass:\n\n{cell.backward()}\n\nChecked against the complex step and the tape:\n")
    print(f"{cell.check_gradients(params, **given)}\n\nA character model of it learns Python's own help:\n", flush=True)
    model, start, data = begin(cell, python_topics(), settings)
    print(f"{model}\n", flush=True)
    result = characters(model, start, data, settings)
    print(f"{result}\n\n{excerpt(result)}")
    return 0


def parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser("python -m autograd_rnn", description="Write the recurrence; get everything else.")
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def command(run, help: str, cell: str | None = None) -> argparse.ArgumentParser:
        sub = commands.add_parser(run.__name__, help=help, description=help)
        sub.set_defaults(run=run)
        sub.add_argument("cell", metavar="CELL", nargs=None if cell is None else "?", default=cell,
                         help="a zoo name, a .cell file, or - for stdin")
        return sub

    sub = command(demo, "derive a cell, check it, and train it for about a minute", "lstm")
    sub.add_argument("--steps", type=int, default=1000, help="steps of training (default: %(default)s)")
    command(show, "print equations, roles and shapes")
    sub = command(derive, "print backpropagation through time, derived step by step")
    sub.add_argument("--format", choices=("text", "latex", "html"), default="text", help="(default: %(default)s)")
    sub.add_argument("--level", choices=LEVELS, default="normal", help="how much is told (default: %(default)s)")
    sub.add_argument("--notation", choices=tuple(ADJOINTS), default="d",
                     help="gradients as dv, as delta v, or as partial derivatives (default: %(default)s)")
    sub.add_argument("--output", metavar="FILE", help="write to a file")
    sub = command(grade, "judge a student's backward equations, line by line; exit status 1 where one is wrong")
    sub.add_argument("file", metavar="FILE", help="the equations, as text")
    sub = command(compare, "print what differs between two cells, forward and backward")
    sub.add_argument("other", metavar="CELL", help="the cell to compare with")
    sub.add_argument("--format", choices=("text", "latex"), default="text", help="(default: %(default)s)")
    sub = command(check, "compare the gradients with the complex step; exit status 1 where they disagree")
    sub.add_argument("--seed", type=int, default=0, help="of parameters and inputs (default: %(default)s)")
    sub.add_argument("--steps", type=int, default=5, help="length of the sequence (default: %(default)s)")
    sub = command(train, "train a character model of a cell on a text", "")
    sub.epilog = "At these sizes one BLAS thread is the fastest: set OMP_NUM_THREADS=1."
    sub.add_argument("--text", metavar="FILE", help="UTF-8 text (default: the topics of Python's own help)")
    add_settings(sub)
    sub.add_argument("--log", metavar="FILE", help="append one JSON line for each step")
    sub.add_argument("--save", metavar="FILE", help="npz file to keep the state of training in")
    sub.add_argument("--resume", metavar="FILE", help="go on from such a file, with its settings, and save to it again")
    sub = commands.add_parser(bench.__name__, help="run a task of the literature for cells and seeds")
    sub.set_defaults(run=bench)
    sub.description = ("Train and test cells on a task, and print the table beside what was published. Each run writes "
                       "a file of its own and is not done again; what was interrupted goes on. Settings that are not "
                       "given are the task's own.")
    sub.add_argument("task", metavar="TASK", help=", ".join(tasks))
    sub.add_argument("--cell", default="lstm", help="zoo names or .cell files, with commas between (default: lstm)")
    sub.add_argument("--seeds", default="0-4", help="0-9, or 0,3,5 (default: %(default)s)")
    sub.add_argument("--set", action="append", default=[], metavar="NAME=VALUE",
                     help="a number of the task (T=200), a file (path=FILE), a size of the model (h1_i=2), or where "
                          "parameters start (h1_b_i=-3,-6; default=0.1 draws weights within 0.1)")
    sub.add_argument("--results", default="runs", metavar="FOLDER", help="where results are kept (default: runs)")
    sub.add_argument("--workers", type=int, default=os.cpu_count(), help="processes (default: all processors)")
    add_settings(sub, ("seed",), "the task's own")
    sub = commands.add_parser(search.__name__, help="search for cells: mutate equations, rank them on tasks")
    sub.set_defaults(run=search)
    sub.description = ("Mutate the equations of cells, keep what is valid and new, and judge it on one task after the "
                       "other. Prints the equations of each cell that passes all, and saves it in FOLDER/best; at the "
                       "end, the best as a table. What was interrupted goes on.")
    sub.add_argument("--start", default="lstm,gru", help="zoo names or .cell files, with commas between (default: "
                                                         "%(default)s)")
    sub.add_argument("--cells", type=int, default=1000, help="different cells in all (default: %(default)s)")
    sub.add_argument("--folder", default="search", help="where all is kept (default: %(default)s)")
    sub.add_argument("--workers", type=int, default=os.cpu_count(), help="processes (default: all processors)")
    sub.add_argument("--seed", type=int, default=0, help="of the mutations (default: %(default)s)")
    sub.add_argument("--shown", type=int, default=20, help="rows of the table (default: %(default)s)")
    return top


def add_settings(sub: argparse.ArgumentParser, without: tuple[str, ...] = (), default: str | None = None) -> None:
    """An option for each setting."""
    for f in fields(Settings):
        if f.name not in without:
            kind = {"int": int, "float": float, "str": str}[str(f.type)]
            sub.add_argument(f"--{f.name}", type=kind, default=argparse.SUPPRESS, choices=f.metadata["choices"],
                             help=f"{f.metadata['help']} (default: {default or f.default})")


def main(argv: list[str] | None = None) -> int:
    """Run a command and return its exit status: 1 where a check fails, 2 where what was given cannot be used."""
    args = parser().parse_args(argv)
    try:
        status = args.run(args)
        sys.stdout.flush()
        return status
    except BrokenPipeError:  # whoever read our output has left, as `head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as e:
        print(f"{e.filename}: {e.strerror}" if e.filename else e, file=sys.stderr)
        return 2
    except CellError as e:
        print(e, file=sys.stderr)
        return 2
    except MemoryError as e:
        print(f"There is not enough memory: {e}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("Interrupted.", file=sys.stderr)  # what was saved stands at the last step that was done
        return 130


if __name__ == "__main__":
    sys.exit(main())
