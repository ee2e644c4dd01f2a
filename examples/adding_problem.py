"""The adding problem: remember two marked numbers of a long sequence and give their sum.

Each step shows a number from U[0, 1] and a mark; two of the marks are 1, one in each half. Whoever ignores the sequence
and answers 1 has a mean squared error of 1/6 (the variance of a sum of two such numbers). Hochreiter and Schmidhuber,
Long short-term memory, Neural Computation 9(8), 1997, in the form of Le, Jaitly, Hinton, arXiv:1504.00941.

    python examples/adding_problem.py        # about half a minute
"""

import numpy as np

from autograd_rnn import Cell, zoo
from autograd_rnn.learn import Batch, Batches, adam, cosine, mean_loss, train

STEPS, BATCH, HIDDEN, UPDATES = 100, 32, 32, 1500

model = Cell("""
h[t], c[t] = lstm(x=x[t], h=h[t-1], c=c[t-1])
y = sum(v * h[T]) + b
L = (y - goal)**2
goal: input()
b: ()
""", lstm=zoo["lstm"])


def draw(seed: tuple[int, ...], examples: int) -> Batch:
    """Numbers and marks (T, batch, 2), and their sums (batch,)."""
    rng = np.random.default_rng(seed)
    numbers = rng.uniform(size=(STEPS, examples))
    marks = np.zeros((STEPS, examples))
    half = STEPS // 2
    for start in (0, half):
        marks[start + rng.integers(half, size=examples), np.arange(examples)] = 1
    return Batch({"x": np.stack([numbers, marks], axis=-1), "goal": (numbers * marks).sum(axis=0)}, targets=examples)


params = model.init(seed=0, dtype=np.float32, x=2, h=HIDDEN)
fresh = Batches(1, lambda step: draw((1, step), BATCH))
held_out = Batches(1, lambda step: draw((2,), 500))

print(model, end="\n\n")
print(f"always 1    mean squared error {np.mean((held_out(0).inputs['goal'] - 1)**2):.5f}   (1/6 = {1 / 6:.5f})")
for point in train(model, params, fresh, UPDATES, adam(), cosine(0.01, UPDATES, warmup=20), clip=1.0):
    if point.step % 100 == 0:
        print(f"step {point.step:>5}  mean squared error {mean_loss(model, point.params, held_out):.5f}", flush=True)
