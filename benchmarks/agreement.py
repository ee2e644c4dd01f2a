"""Generated texts on every path, in shards; goes on where it stopped.

    python benchmarks/agreement.py --count 20000 --shard 0/4 --folder FOLDER     what is missing of this shard
    python benchmarks/agreement.py --count 20000 --folder FOLDER --summary       coverage, rates, what disagrees
    python benchmarks/agreement.py --seeds 17,203 --folder FOLDER                some texts again, printed
    python benchmarks/agreement.py --paths PyTorch --folder FOLDER               every text against the oracle alone

Each text has a line in a file of its shard: the seconds of its paths, and where they disagree with the reference. Texts
are run in processes of their own, some at a time, so that one that dies or hangs is a line too. `--machine 2` makes
machine code of every second text alone, where that takes too long; `--paths "tape,NumPy"` takes these paths.
Where torch is installed, the evaluator of tests/conformance/oracle.py is one of them, called PyTorch.
"""

from __future__ import annotations

import argparse
import faulthandler
import importlib.util
import json
import os
import re
import subprocess
import sys
import tempfile
from collections import defaultdict
from dataclasses import replace
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests"), str(ROOT / "tests" / "conformance")]
PIECE, LONGEST = 40, 900  # texts in one process, and seconds for one of them


def chosen(seed: int, paths: str | None, machine: int):
    """The paths of a text."""
    from paths import CHEAP, ORACLE, PATHS

    oracle = ORACLE if importlib.util.find_spec("torch") else {}
    if paths is not None:
        return {n: (PATHS | ORACLE)[n] for n in paths.split(",")}
    return (PATHS if machine and seed % machine == 0 else CHEAP) | oracle


def line_of(seed: int, paths: str | None, machine: int) -> dict:
    """What there is to say of a text."""
    from generated import case_of
    from paths import compare

    case = case_of(seed)
    try:
        case.cell  # noqa: B018
    except Exception as error:
        return {"seed": seed, "seconds": {}, "faults": [["text", "refused", str(error)[:500]]]}
    taken, faults = compare(case, chosen(seed, paths, machine))
    return {"seed": seed, "seconds": {n: round(s, 4) for n, s in taken.items()},
            "faults": [[f.path, f.where, f"{f.error:.1e} {f.note}"[:500]] for f in faults]}


def work(seeds: list[int], paths: str | None, machine: int) -> None:
    """In a process of its own: a line before each text and one after it, until machine code was wrong."""
    for seed in seeds:
        print("begin", seed, flush=True)
        faulthandler.dump_traceback_later(LONGEST, exit=True)
        line = line_of(seed, paths, machine)
        faulthandler.cancel_dump_traceback_later()
        print(json.dumps(line), flush=True)
        if any("machine" in path for path, *_ in line["faults"]):
            return  # it may have written where it should not


def run(seeds: list[int], file: Path, paths: str | None, machine: int) -> None:
    """Every text that the file has no line for."""
    from tqdm import tqdm

    done = {line["seed"] for line in lines(file)}
    left = [seed for seed in seeds if seed not in done]
    bar = tqdm(total=len(seeds), initial=len(seeds) - len(left))
    wrong = 0
    while left:
        with tempfile.TemporaryDirectory() as cache, file.open("a") as out:
            command = [sys.executable, __file__, "--work", ",".join(map(str, left[:PIECE])), "--machine", str(machine)]
            command += ["--paths", paths] if paths else []
            env = {**os.environ, "XDG_CACHE_HOME": cache, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
            begun = last = None
            with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=env) as child:
                for row in child.stdout:
                    if row.startswith("begin "):
                        begun = last = int(row.split()[1])
                        left.remove(begun)
                        bar.update()
                    elif row.startswith("{"):
                        out.write(row)
                        out.flush()
                        wrong += bool(json.loads(row)["faults"])
                        begun = None
                    bar.set_postfix(wrong=wrong)
                errors = child.stderr.read()
            if last is None:
                raise SystemExit(errors)
            if child.returncode:
                when = "in a text" if begun is not None else "at its end"
                row = {"seed": last, "seconds": {}, "faults": [["process", f"died {when}", errors[:700]]]}
                out.write(json.dumps(row) + "\n")
                wrong += 1


def lines(*files: Path) -> list[dict]:
    return [json.loads(row) for file in files if file.exists() for row in file.read_text().splitlines()]


def kind(path: str, where: str, note: str) -> str:
    """A fault without its names and numbers."""
    what = note if where in ("raised", "does not refuse", "refused") else where
    return f"{path}: {where} " + re.sub(r"[-+.\w]*\d[-+.\w]*", "#", what)[:90]


def smaller(case):
    """The case with a line, a term or an operand less."""
    used = lambda text, found: {n: v for n, v in found.items() if re.search(rf"\b{re.split('[[_]', n)[0]}\b", text)}
    rows = case.text.splitlines()
    for k, row in enumerate(rows):
        left, equals, right = row.partition(" = ")
        others = [None]
        if equals:
            terms = re.split(r" [+-] (?![^(]*\))", right)
            others += [" + ".join(t for t in terms if t is not u) for u in terms] if len(terms) > 1 else []
            others += [r[0] for r in re.finditer(r"\b[A-Za-z]+\d+\b(\[[^]]*\])?", right) if r[0] != right
                       and case.names.get(r[0].split("[")[0], left)[1] == case.names.get(left.split("[")[0], right)[1]]
        for other in others:
            changed = [r for i, r in enumerate(rows) if i != k] if other is None else [
                f"{left} = {other}" if i == k else r for i, r in enumerate(rows)]
            body = "\n".join(r for r in changed if " = " in r)
            text = "\n".join(r for r in changed if " = " in r or re.search(rf"\b{r.split(':')[0]}\b", body)
                             or re.search(rf"\[[^]]*\b{r.split(':')[0]}\b", body))
            options = {n: used(body, v) if n in ("initial", "cotangents") else v for n, v in case.options.items()}
            yield replace(case, text=text, params=used(body, case.params), inputs=used(body, case.inputs), options={
                n: v for n, v in options.items() if v is not None and (n != "initial" or v)})
    for option in ("initial", "lengths"):
        if option in case.options:
            yield replace(case, options={n: v for n, v in case.options.items() if n != option})


def reduced(case, paths):
    """The least case that disagrees in the same way."""
    from paths import compare

    def wrong(case):
        try:
            case.cell  # noqa: B018
        except Exception:
            return set()
        return {kind(f.path, f.where.split(" ")[0], f.note) for f in compare(case, paths)[1]}

    before = wrong(case)
    while True:
        found = next((c for c in smaller(case) if before & wrong(c)), None)
        if found is None:
            return case
        case = found


def summary(folder: Path, seeds: list[int], shown: bool) -> None:
    """Coverage, rates and disagreements of what has been run."""
    from generated import coverage, table

    found = [line for line in lines(*sorted(folder.glob("*.jsonl"))) if line["seed"] in set(seeds)]
    if shown:
        done = {line["seed"] for line in found}
        print(table(coverage(done), len(done)))
    seconds, faults = defaultdict(list), defaultdict(list)
    for line in found:
        for path, spent in line["seconds"].items():
            seconds[path].append(spent)
        for k in dict.fromkeys(kind(*f) for f in line["faults"]):
            faults[k].append(line["seed"])
    for path, spent in seconds.items():
        print(f"{path:<30} {len(spent):>6} texts  {60 * len(spent) / sum(spent):>8.0f} a minute")
    for k, where in sorted(faults.items(), key=lambda item: -len(item[1])):
        print(f"{len(where):>5}  {k}  seeds {where[:6]}")
    wrong = {line["seed"] for line in found if line["faults"]}
    print(f"{len({line['seed'] for line in found})} texts, {len(wrong)} of them disagree somewhere")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=20000)
    parser.add_argument("--shard", default="0/1", help="k/n: the texts whose number leaves k divided by n")
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--machine", type=int, default=1, help="machine code of every n-th text; 0: of none")
    parser.add_argument("--paths", help="these paths, by name")
    parser.add_argument("--seeds", help="these texts, again and printed")
    parser.add_argument("--reduce", action="store_true", help="with --seeds: the least text that disagrees likewise")
    parser.add_argument("--summary", action="store_true")
    parser.add_argument("--coverage", action="store_true", help="with --summary: the coverage too")
    parser.add_argument("--work", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.work:
        return work([int(s) for s in options.work.split(",")], options.paths, options.machine)
    if options.seeds:
        from generated import case_of

        for seed in map(int, options.seeds.split(",")):
            if options.reduce:
                print(reduced(case_of(seed), chosen(seed, options.paths, options.machine)), "\n")
                continue
            print(case_of(seed), *line_of(seed, options.paths, options.machine)["faults"], sep="\n")
        return None
    k, n = map(int, options.shard.split("/"))
    seeds = list(range(k, options.count, n))
    if not options.summary:
        options.folder.mkdir(parents=True, exist_ok=True)
        run(seeds, options.folder / f"shard-{k}-of-{n}.jsonl", options.paths, options.machine)
    return summary(options.folder, seeds if not options.summary else list(range(options.count)),
                   options.coverage or not options.summary)


if __name__ == "__main__":
    main()
