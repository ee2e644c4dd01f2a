"""Every example runs from the command line and prints what it promises; the slow ones behind `-m long`."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
WORDS = {  # what each must print
    "new_cell.py": ["dh[t] =", "all within 1e-12", "step 200"],
    "own_primitive.py": ["da_h[t] =", "all within 1e-12"],
    "alignment.py": ["told"],
    "draw_digits.py": ["bound"],
    "adding_problem.py": ["mean squared error"],
    "character_model.py": ["validation"],
    "derive_own_cell.py": ["dA - dAᵀ", "all within 1e-12", "derivation.html"],
    "handout.py": ["handout.tex"],
    "grade_homework.py": ["`U_f` should be `U_f.T`", "not given"],
}
SLOW = {"draw_digits.py", "alignment.py", "adding_problem.py", "character_model.py"}


def test_every_example_is_here():
    assert set(WORDS) == {p.name for p in (ROOT / "examples").glob("*.py")}


@pytest.mark.parametrize("name", [pytest.param(n, marks=pytest.mark.long) if n in SLOW else n for n in WORDS])
def test_example(name, tmp_path):
    done = subprocess.run([sys.executable, ROOT / "examples" / name], cwd=tmp_path, capture_output=True, text=True,
                          timeout=500, env={**os.environ, "PYTHONPATH": str(ROOT)})
    assert done.returncode == 0, done.stderr
    for word in WORDS[name]:
        assert word in done.stdout + done.stderr


@pytest.mark.parametrize("name", sorted(SLOW))
def test_slow_examples_at_least_compile(name):
    compile((ROOT / "examples" / name).read_text(), name, "exec")
