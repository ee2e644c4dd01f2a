"""A thousand generated texts: by PyTorch, the adjoint, the tape and the complex step; every fourth by NumPy."""

import pytest
from generated import case_of
from oracle import Oracle
from paths import CHEAP, Answer, Path, compare

COUNT, BLOCK = 1000, 25


def by_torch(case) -> Answer:
    """What the oracle makes of a case: it shares no line with the library."""
    value, gradients, _ = Oracle(case.text, **case.cells).gradient(case.params, **case.arguments())
    return Answer(value, gradients)


PATHS = {"PyTorch": Path(by_torch), **CHEAP}


@pytest.mark.parametrize("block", range(COUNT // BLOCK))
def test_generated_texts(block):
    for seed in range(block * BLOCK, block * BLOCK + BLOCK):
        case = case_of(seed)
        paths = {n: p for n, p in PATHS.items() if "NumPy" not in n or seed % 4 == 0}
        faults = compare(case, paths)[1]
        assert not faults, f"{case}\n" + "\n".join(map(str, faults))
