"""Every code block of README and docs runs and prints what it says; every docstring's example too."""

import doctest
import importlib
import os
import pkgutil
import re
import subprocess
import sys
from pathlib import Path

import pytest

import autograd_rnn

ROOT = Path(__file__).parents[1]
PAGES = sorted([ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").glob("*.md")])
OPTIONS = doctest.ELLIPSIS
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.M | re.S)


def blocks(page: Path, language: str) -> str:
    """All blocks of one language, one after another: later ones see what earlier ones defined."""
    return "\n".join(body for kind, body in FENCE.findall(page.read_text()) if kind == language)


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_python_blocks(page):
    source = blocks(page, "python")
    if not source:
        pytest.skip("no Python on this page")
    assert ">>>" in source
    test = doctest.DocTestParser().get_doctest(source, {}, page.name, str(page), 0)
    assert test.examples
    out: list[str] = []
    doctest.DocTestRunner(optionflags=OPTIONS).run(test, out=out.append)
    assert not out, "".join(out)


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_console_blocks(page):
    """`$ command` lines with the output below them; `...` stands for anything."""
    source = blocks(page, "console")
    if not source:
        pytest.skip("no console on this page")
    for chunk in re.split(r"^\$ ", source, flags=re.M)[1:]:
        command, _, wanted = chunk.partition("\n")
        assert command.startswith(("python -m autograd_rnn ", "python examples/")), command
        words = [sys.executable, *command.split()[1:]]
        done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=200,
                              env={**os.environ, "PYTHONPATH": str(ROOT)})
        assert done.returncode == 0, done.stderr
        same = doctest.OutputChecker().check_output(wanted.strip() + "\n", done.stdout.strip() + "\n", OPTIONS)
        assert same, done.stdout


MODULES = sorted(m.name for m in pkgutil.walk_packages(autograd_rnn.__path__, "autograd_rnn.")
                 if not m.name.endswith("__main__"))


@pytest.mark.parametrize("name", MODULES)
def test_docstring_examples(name):
    result = doctest.testmod(importlib.import_module(name), optionflags=OPTIONS)
    assert result.failed == 0


def test_the_architecture_page_lists_every_file():
    column = blocks(ROOT / "docs" / "architecture.md", "")
    listed = {line.split()[0].rstrip("/") for line in column.splitlines() if line.strip()}
    aside = {"__init__.py", "__pycache__", "py.typed"}
    present = {p.name for p in (ROOT / "autograd_rnn").iterdir()} - aside
    assert listed == present


def test_public_names_have_docstrings():
    for name in autograd_rnn.__all__:
        thing = getattr(autograd_rnn, name)
        assert thing.__doc__, name
    for name, member in vars(autograd_rnn.Cell).items():
        if not name.startswith("_") and callable(member):
            assert member.__doc__, f"Cell.{name}"
