"""Clockwork networks: groups of units that run at rates of their own."""

import numpy as np

from ..init import Rule

CLOCKWORK = """
period: const(h)
one = like(1, period)
R = where(outer(period, one) <= outer(one, period), U, 0)      # a unit sees those of its own period and slower ones
h[t] = where(t % period == 0, tanh(W @ x[t] + R @ h[t-1] + b), h[t-1])
"""
FROM_ZERO = "where((t - 1) % period == 0, tanh(W @ x[t] + R @ h[t-1] + b), h[t-1])"
PAPER = "Koutnik, Greff, Gomez, Schmidhuber, A clockwork RNN, ICML 2014, arXiv:1402.3511"


def doubling(groups: int) -> Rule:
    """Periods 1, 2, 4, ...: as many units in one group as in another, fast ones first."""
    return lambda rng, shape: 2.0 ** (np.arange(shape[0]) * min(groups, shape[0]) // shape[0])


RULES = dict(period=doubling(8))

CELLS = {
    "clockwork": dict(
        text=CLOCKWORK, citation=PAPER, rules=RULES,
        notes="A unit sees those of its own period and of slower ones: R is triangular where periods ascend. t counts "
              "from 1, so that step 1 runs the units of period 1 alone. init gives periods 1, 2, 4, ..., 128 (our "
              "choice), or those given: init(x=3, h=4, period=[1, 1, 3, 9]). The paper reads out by one more layer.",
    ),
    "clockwork_from_zero": dict(
        base="clockwork", changes=dict(h=FROM_ZERO), citation=PAPER + ", counting steps from 0",
        notes="All units run on the first step.",
    ),
    "clockwork_full": dict(
        base="clockwork", changes=dict(R="U", h=FROM_ZERO),
        citation="Brainstorm, IDSIA, ClockworkLayer, 2015: " + PAPER,
        notes="The layer of the authors' laboratory: units see faster ones too, and all run on the first step.",
    ),
}
