"""A text costs what it says: what is made and printed from it grows with its length, or a CellError names the limit.

    python tests/test_cost.py 20 1000      20 shards of 1,000 mutated texts, each in a process of its own; the worst
"""

from __future__ import annotations

import pickle
import random
import re
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import systems

from autograd_rnn import Cell, CellError, zoo
from autograd_rnn.naming import LONGEST, repeated
from autograd_rnn.printing.text import system_text

INNER = Cell("h[t] = tanh(W @ x[t] + U @ h[t-1])")

# name -> a text of size n: what once took gigabytes or minutes, at sizes that took a moment
FAMILIES = {
    "gelu": lambda n: "h[t] = " + "gelu(" * n + "x[t]" + ")" * n,
    "layer_norm": lambda n: "h[t] = " + "layer_norm(" * n + "x[t]" + ")" * n,
    "silu": lambda n: "h[t] = " + "silu(" * n + "x[t] + h[t-1]" + ")" * n,
    "softmax": lambda n: "h[t] = " + "softmax(" * n + "W @ x[t]" + ")" * n,
    "tanh": lambda n: "h[t] = " + "tanh(" * n + "x[t]" + ")" * n,
    "functions": lambda n: "\n".join(f"f{k}(v) = f{k + 1}(v) * tanh(v)" for k in range(n)) + (
        f"\nf{n}(v) = sin(v)\nh[t] = f0(x[t])"),
    "product": lambda n: "h[t] = " + " * ".join(f"x{k}[t]" for k in range(n)),
    "terms": lambda n: "h[t] = u * h[t-1] + " + " + ".join(f"w{k} * x[t]" for k in range(n)),
    "chain": lambda n: "a0[t] = x[t]\n" + "\n".join(f"a{k}[t] = tanh(a{k - 1}[t])" for k in range(1, n)),
    "backward chain": lambda n: "\n".join(f"a{k} = tanh(a{k + 1})" for k in range(n)) + "\nh[t] = a0 * x[t]",
    "calls": lambda n: "h0[t] = inner(x=x[t])\n" + "\n".join(f"h{k}[t] = inner(x=h{k - 1}[t])" for k in range(1, n)),
    "far": lambda n: "h[t] = x[t] + " + " + ".join(f"{k} * h[t-{n}]" for k in range(1, n)),
    "diagonals": lambda n: "y[t,j] = x[t,j] + " + " + ".join(f"y[t-{k},j-{k}]" for k in range(1, n)),
    "states": lambda n: "\n".join(f"a{k}[t] = a{(k + 1) % n}[t-1] * x[t]" for k in range(n)),
    "blank": lambda n: "\n" * (100 * n) + "h[t] = x[t]",
}


def cell_of(text: str) -> Cell:
    return Cell(text, inner=INNER) if "inner(" in text else Cell(text)


def everything(cell: Cell) -> int:
    """All that is printed of a cell and its derivatives; how many characters that is, MathML apart."""
    backward, tangent, derivation = cell.backward(), cell.tangent(), cell.derivation()
    printed = [str(cell), *cell.equations.values(), cell.latex(), backward.text, backward.latex(), tangent.text,
               derivation.text(), derivation.latex()]
    for form in ("matrix", "scalar"):
        assert len(backward.sympy(form)) == len(backward.system.equations)
    assert pickle.loads(pickle.dumps(cell)) == cell
    return sum(map(len, printed))


@pytest.mark.parametrize("name", FAMILIES)
def test_twice_the_text_is_printed_as_twice_as_much(name):
    """Counted: characters printed, and operations of the adjoint."""
    size = 48 if name == "product" else 8  # a product of forty factors is short enough to be written out
    small, large = (cell_of(FAMILIES[name](n)) for n in (size, 2 * size))
    assert len(large.backward().system.nodes) <= 2.7 * len(small.backward().system.nodes)
    assert everything(large) <= 2.7 * everything(small)


@pytest.mark.parametrize("name", FAMILIES)
def test_parts_with_names_parse_back_and_compute_the_same(name):
    cell = cell_of(FAMILIES[name](6))
    backward = cell.backward()
    for one in (cell, backward, cell.tangent()):
        assert Cell(system_text(one.system)) == one
    assert not repeated(cell.system.equations) and not repeated(backward.system.equations)
    params, inputs = systems.draw(cell, T=3)
    assert cell.check_gradients(params, **inputs).ok
    assert cell.derivation().check(points=2).ok


def test_eight_gelus_within_each_other():
    """The text that once was printed in gigabytes: its value, and its printed adjoint."""
    cell = Cell(FAMILIES["gelu"](8))
    x = np.linspace(-2, 2, 5)[:, None]
    value = x
    for _ in range(8):
        value = value / (1 + np.exp(-1.5957691216057308 * (value + 0.044715 * value**3)))
    np.testing.assert_allclose(cell.run({}, x=x)["h"], value, rtol=1e-13)
    assert len(cell.backward().text) < 5_000


def test_what_is_short_is_written_out():
    """A name is given where the text would pass LONGEST characters and double, and nowhere else."""
    assert list(Cell("h[t] = gelu(x[t])").equations) == ["h[t]"]
    assert list(Cell("h[t] = gelu(gelu(x[t]))").equations) == ["h_part[t]", "h[t]"]
    plain = "h[t] = " + " + ".join(f"w{k} * x[t]" for k in range(60))
    assert list(Cell(plain).equations) == ["h[t]"] and len(plain) > LONGEST
    said = "h[t] = " + " + ".join(["tanh(w_1 * x[t] + w_2 * x[t])"] * 9)  # the author's own repetitions stay
    assert list(Cell(said).equations) == ["h[t]"]
    for name in ("lstm", "gru", "rnn"):
        assert not any("_part" in n for n in zoo[name].backward().system.names)


LIMITS = {
    "equations": "\n".join(f"a{k}[t] = x[t]" for k in range(2_001)),
    "copies": "h[t] = " + " + ".join(f"x{k}[t-100]" for k in range(25)),
    "operations": "\n".join(f"f{k}(v) = f{k + 1}(v) * f{k + 1}(-v)" for k in range(18)) + (
        "\nf18(v) = tanh(v)\nh[t] = f0(x[t])"),
    "characters": "#" * 200_001,
}


@pytest.mark.parametrize("what", LIMITS)
def test_a_limit_is_named(what):
    with pytest.raises(CellError, match=what) as caught:
        Cell(LIMITS[what])
    assert re.search(r"\d{3}", caught.value.fact)


def test_the_derivative_has_the_same_limits_and_its_text_is_read_back():
    with pytest.raises(CellError, match=r"derivative of this cell has .* equations"):
        Cell(FAMILIES["chain"](1_900)).backward()
    backward = Cell(FAMILIES["chain"](400)).backward()
    assert pickle.loads(pickle.dumps(backward)) == backward


# --- fuzzed texts ------------------------------------------------------------------------------------------------

TEXTS = [*systems.TEXTS.values(), *(zoo[name].text for name in zoo)]
PIECES = ("tanh(", "gelu(", "layer_norm(", "softmax(", "sum_t(", ")", " * ", " @ ", " + ", "-", "[t-1]", "[t]", "[t-3]",
          "[T]", "x[t]", "h[t-1]", "concat(", ", ", "**2", ".T", "\n", "(", "1 / ", "j: axis\n", "[t,j]", "=", "0.5")


def fuzzed(seed: int) -> str:
    """A text of ours with a few characters, tokens or lines dropped, doubled, exchanged, nested or put in."""
    rng = random.Random(seed)
    tokens = re.findall(r"\w+|\s|[^\w\s]", rng.choice(TEXTS))
    for _ in range(rng.randint(1, 2)):
        k, j = rng.randrange(len(tokens)), rng.randrange(len(tokens))
        match rng.randrange(7):
            case 0:
                del tokens[k]
            case 1:
                tokens[k], tokens[j] = tokens[j], tokens[k]
            case 2:
                tokens.insert(k, rng.choice(PIECES))
            case 3:
                tokens[k] = tokens[j]
            case 4:
                tokens[k:k] = tokens[min(j, k):max(j, k)][:200]
            case 5:
                tokens[k] = "".join(rng.sample(tokens[k], len(tokens[k])))
            case 6:
                name, depth = rng.choice(("gelu", "layer_norm", "tanh", "silu")), rng.randint(1, 12)
                tokens[k:k + 1] = [f"{name}(" * depth, tokens[k], ")" * depth]
        tokens = tokens or ["h"]
    return "".join(tokens)


def tried(text: str) -> str:
    """What becomes of a text: "refused", or made and printed in every way, within what its length allows."""
    try:
        cell = Cell(text)
        printed = everything(cell)
    except CellError as error:
        assert len(str(error)) < 3_000
        return "refused"
    assert printed <= 4_000 * (len(text) + 100)
    return "made"


def test_fuzzed_texts_are_refused_or_printed_in_bounds():
    found = [tried(fuzzed(seed)) for seed in range(150)]
    assert 15 < found.count("made") < 135


def shard(first: int, count: int) -> None:
    """Try texts in this process; print the slowest, in seconds, and the memory that it all took, in MB."""
    slowest = (0.0, -1)
    signal.signal(signal.SIGALRM, lambda *_: (_ for _ in ()).throw(TimeoutError()))
    wrong = []
    for seed in range(first, first + count):
        signal.alarm(60)
        begun = time.process_time()
        try:
            tried(fuzzed(seed))
        except Exception as error:
            wrong.append(f"{seed} {type(error).__name__}")
        slowest = max(slowest, (time.process_time() - begun, seed))
    signal.alarm(0)
    print(f"{first}: slowest {slowest[0]:.2f} s (seed {slowest[1]}), "
          f"{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024} MB, wrong {wrong}", flush=True)


@pytest.mark.long
@pytest.mark.parametrize("part", range(50))
def test_fifty_thousand_fuzzed_texts(part):
    """A thousand texts in a process of its own: each within a minute, all within two gigabytes, none raises anything
    but CellError."""
    script = f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r}); import resource; import test_cost\n" \
             f"resource.setrlimit(resource.RLIMIT_AS, (2 << 30, 2 << 30)); test_cost.shard({part * 1000}, 1000)"
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert result.returncode == 0 and result.stdout.strip().endswith("wrong []"), result.stdout + result.stderr


if __name__ == "__main__":
    shards, size = map(int, sys.argv[1:3])
    for number in range(shards):
        subprocess.run([sys.executable, "-c", "import sys; sys.path[:0] = sys.argv[1:3]; import test_cost; "
                        f"test_cost.shard({number * size}, {size})", str(Path(__file__).parent), "."], check=True)
