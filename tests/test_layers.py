"""Imports go one way, heavy packages are imported on use, the project speaks of itself alone."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

import autograd_rnn

HOME = Path(autograd_rnn.__file__).parent
ROOT = HOME.parent

# Each file imports only from those above it.
LAYERS = [
    "errors", "atomic", "graph", "primitives", "parse", "signature", "shapes", "equations", "naming", "reader", "call",
    "elaborate", "order", "arrays", "evaluate", "gradient", "adjoint", "init", "stretch", "bind", "trace", "culprit",
    "untargeted", "backpropagate", "unroll", "tape", "check", "printing", "substitute", "derivation", "compile",
    "cell", "zoo", "comparison", "learn", "tasks", "search", "__init__", "__main__",
]

OPTIONAL = {"compile.llvm.machine", "compile.llvm.guarded", "compile.llvm.replay"}  # what is built on an extra


def layer(module: str) -> int:
    return LAYERS.index(module.split(".")[0])


def files():
    return sorted(HOME.rglob("*.py"))


def imports(path: Path):
    """(module inside the package, at the top level of the file?, line) of every import of our own."""
    own = path.relative_to(HOME).with_suffix("").parts
    tree = ast.parse(path.read_text())
    top = set(map(id, tree.body))
    typing_only = {id(n) for block in tree.body if isinstance(block, ast.If) and "TYPE_CHECKING" in ast.dump(block.test)
                   for n in ast.walk(block)}
    for n in ast.walk(tree):
        if id(n) in typing_only or not isinstance(n, ast.ImportFrom) or not n.level:
            continue
        base = own[:len(own) - n.level]
        stems = [n.module] if n.module else [a.name for a in n.names]
        for stem in stems:
            yield ".".join([*base, *stem.split(".")]) or "__init__", id(n) in top, n.lineno


@pytest.mark.parametrize("path", files(), ids=lambda p: str(p.relative_to(HOME)))
def test_imports_go_one_way(path):
    own = path.relative_to(HOME).with_suffix("").parts
    for module, top, line in imports(path):
        name = module.split(".")[0]
        if name not in LAYERS:
            continue  # a name imported from the package itself
        same_folder = own[0] == name
        assert same_folder or layer(name) < layer(own[0]), f"{path.name}:{line} imports {module}, which lies below it"
        assert top or module in OPTIONAL, f"{path.name}:{line} hides an import of {module} inside a function"


def test_every_file_has_its_layer_and_its_docstring():
    for path in files():
        own = path.relative_to(HOME).with_suffix("").parts
        assert own[0] in LAYERS, f"{path} stands in no layer"
        assert ast.get_docstring(ast.parse(path.read_text())), f"{path} does not say what it lets you do"


def test_heavy_packages_are_imported_on_use():
    code = "import sys, autograd_rnn; print([m for m in ('sympy', 'networkx', 'llvmlite', 'tqdm') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


FORBIDDEN = re.compile(r"/work/|/root/|pypi\.org|shared/(?!data)|\bTODO\b|\bFIXME\b|\bXXX\b")


def test_the_project_speaks_of_itself_alone():
    listed = subprocess.run(["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True)
    if listed.returncode:
        pytest.skip("not a git checkout")
    for name in listed.stdout.split():
        path = ROOT / name
        if path.suffix in {".py", ".md", ".toml", ".cell", ""} and path.is_file() and path.name != Path(__file__).name:
            found = FORBIDDEN.search(path.read_text(errors="ignore"))
            assert not found, f"{name}: {found.group()}"
