"""What every test shares: folders of tests and benchmarks on the path, quiet BLAS threads, what runs when."""

import os
import sys
from hashlib import sha256
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[1] / "benchmarks")]

ROWS = 4  # of each table in the plain run


def pytest_collection_modifyitems(items):
    """Of each table a few rows, drawn by their names, are the plain run; the others are run with -m "not long"."""
    tables = {}
    for item in items:
        tables.setdefault(item.nodeid.partition("[")[0], []).append(item)
    for rows in tables.values():
        rows.sort(key=lambda item: sha256(item.nodeid.encode()).digest())
        for item in rows[ROWS:]:
            item.add_marker("rest")
