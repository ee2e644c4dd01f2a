"""Faults drawn by seed and put into machine code: how many of them does the comparison with the reference find?

    python tests/mutants.py --count 200

A mutant is one changed line of a program's LLVM text. It is caught (or crashes, or hangs: it is not silent); or it
survives, and is then run at many larger shapes: one that differs nowhere is equivalent and does not count. Each mutant
has a process of its own.
"""

import argparse
import os
import random
import re
import signal
import sys
from collections import Counter

from autograd_rnn import Cell, zoo
from autograd_rnn.backpropagate import adjoint_of, wanted
from autograd_rnn.compile import verify
from autograd_rnn.compile.llvm import guarded, machine, native

CELLS = {
    "lstm": zoo["lstm"], "gru": zoo["gru"], "peephole": zoo["lstm_peephole"], "layers": zoo["lstm_stacked"],
    "pooling": Cell("w[t] = softmax_t(sum(W@x[t]))\nh[t] = tanh(U@h[t-1] + V@h[t-3] + w[t]*x[t])\n"
                    "L = sum_t(cross_entropy(R@h[t], k[t]))"),
    "two indices": Cell("h[t,j] = tanh(W@x[t,j] + U@h[t,j-1] + V@h[t-1,j])\na[t,j] = softmax_j(sum(h[t,j]))\n"
                        "c[t] = sum_j(a[t,j]*h[t,j])\nL = sum_t(sum(c[t]*c[t]))"),
    "weights": Cell("A = U - U.T\nh[t] = tanh(A @ h[t-1] + W @ concat(x[t], h[t-1]))"),
}
WIDE = tuple(verify.Shape(batch, length, sizes, ragged, threads) for batch, length, sizes, ragged, threads in [
    (1, 1, (1, 2, 3), False, 1), (3, 50, (8, 4, 16, 2), False, 1), (33, 9, (16, 8, 32, 4), True, 3),
    (130, 2, (31, 7, 33, 15), False, 2), (257, 3, (5, 6, 7, 8), True, 2), (8, 33, (24, 12, 1, 10), True, 1),
    (2, 70, (15, 13, 11, 9), True, 2), (16, 16, (64, 40, 20, 48), False, 4)])
# kind -> (the lines that it changes, how): each change keeps the text valid LLVM
KINDS = {
    "offset": (r"= add i64 (%\S+), (-?\d+)$", lambda m: f"= add i64 {m[1]}, {int(m[2]) + 1}"),
    "stride": (r"= mul i64 (%\S+), (%\S+)$", lambda m: f"= mul i64 {m[1]}, {m[1]}"),
    "address": (r"= add i64 (%\S+), (%\S+)$", lambda m: f"= add i64 {m[1]}, {m[1]}"),
    "operand": (r"= (f(?:add|sub|mul|div) contract .*) (%\S+), (%\S+)$", lambda m: f"= {m[1]} {m[2]}, {m[2]}"),
    "operation": (r"= f(add|sub|mul) (contract .*)$", lambda m:
                  f"= f{dict(add='sub', sub='add', mul='add')[m[1]]} {m[2]}"),
    "tail": (r"= icmp slt (i64|<\d+ x i64>) (.*)$", lambda m: f"= icmp sle {m[1]} {m[2]}"),
    "choice": (r"= select (\S+ x i1>|i1|<.*? x i1>) (%\S+), (.*?) (\S+), (.*?) (\S+)$", lambda m:
               f"= select {m[1]} {m[2]}, {m[3]} {m[6]}, {m[5]} {m[4]}" if m[3] == m[5] else None),
    "store": (r"^(\s*)store <.*$", lambda m: m[1] + "; nothing is stored"),
    "stage": (r"^(\s*)call void @(\"?stage\d+\"?)\(.*$", lambda m: m[1] + "; this stage is left out"),
}


def mutated(text: str, seed: int) -> tuple[str, str]:
    """The text with one line changed, and what was changed."""
    rng, lines = random.Random(seed), text.split("\n")
    for kind in rng.sample(list(KINDS), len(KINDS)):
        pattern, change = KINDS[kind]
        places = [(k, m) for k, line in enumerate(lines) for m in [re.search(pattern, line)] if m]
        rng.shuffle(places)
        for k, m in places:
            new = change(m)
            if new is not None and lines[k] != (new := lines[k][:m.start()] + new):
                told = f"{kind}: {lines[k].strip()} -> {new.strip()}"
                lines[k] = new
                return "\n".join(lines), told
    raise AssertionError("no line to change")


class Text:
    """A module as its text."""

    def __init__(self, text: str):
        self.text = text

    def __str__(self):
        return self.text


def tried(cell: Cell, seed: int, told: list[str]) -> str:
    """A mutant's fate: caught, equivalent or survived."""
    def code(module, names):
        text, what = mutated(str(module), seed)
        told.append(what)
        return native.Code(Text(text), names)

    machine.Code = code
    derived = adjoint_of(cell.system, cell.outputs, cell.loss is not None)
    keep = wanted(cell.system, derived, cell.outputs)
    made = machine.Machine(derived.system, keep, True)
    arguments = made, derived.system, keep, guarded.guarded(made), made.dtype
    if verify.fault(*arguments):
        return "caught"
    return "survived" if verify.fault(*arguments, WIDE) else "equivalent"


def fate(seed: int, seconds: int = 60) -> tuple[str, str]:
    """What became of a mutant, tried in a child of this process, and what it was."""
    name = sorted(CELLS)[seed % len(CELLS)]
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        signal.alarm(seconds)
        told: list[str] = []
        try:
            found = tried(CELLS[name], seed, told)
        except RuntimeError as refused:  # LLVM does not take the text
            found = "no program" if "LLVM" in str(refused) or "parsing" in str(refused) else "caught"
        os.write(writing, f"{found}\n{name}, {told[0] if told else ''}".encode())
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as answer:
        text = answer.read()
    _, status = os.waitpid(child, 0)
    if not text:
        return ("hung" if os.WTERMSIG(status) == signal.SIGALRM else "crashed"), f"{name}, seed {seed}"
    found, what = text.split("\n", 1)
    return found, what


def score(count: int, first: int = 0) -> tuple[Counter, list[str]]:
    """How many mutants had which fate, until `count` of them count; the survivors."""
    from tqdm import tqdm

    fates, survivors, seed = Counter(), [], first
    with tqdm(total=count, disable=None) as bar:
        while fates.total() - fates["equivalent"] - fates["no program"] < count:
            found, what = fate(seed)
            fates[found] += 1
            bar.update(found not in ("equivalent", "no program"))
            if found == "survived":
                survivors.append(f"seed {seed}, {what}")
            seed += 1
    return fates, survivors


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=200)
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    arguments = parser.parse_args()
    fates, survivors = score(arguments.count, arguments.first)
    noticed = fates["caught"] + fates["crashed"] + fates["hung"]
    print(", ".join(f"{n} {name}" for name, n in fates.most_common()))
    print(f"{noticed} of {noticed + fates['survived']} found: {noticed / (noticed + fates['survived']):.1%}")
    print("\n".join(survivors))
    sys.exit(bool(noticed < 0.95 * (noticed + fates["survived"])))
