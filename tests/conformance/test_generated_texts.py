"""A thousand generated texts: the adjoint, the tape, the complex step; NumPy programs of every fourth."""

import pytest
from generated import case_of
from paths import CHEAP, compare

COUNT, BLOCK = 1000, 25


@pytest.mark.parametrize("block", range(COUNT // BLOCK))
def test_generated_texts(block):
    for seed in range(block * BLOCK, block * BLOCK + BLOCK):
        case = case_of(seed)
        paths = {n: p for n, p in CHEAP.items() if "NumPy" not in n or seed % 4 == 0}
        faults = compare(case, paths)[1]
        assert not faults, f"{case}\n" + "\n".join(map(str, faults))
