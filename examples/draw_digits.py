"""Digits that nobody wrote: DRAW learns scikit-learn's digits, and is then run on noise alone.

Gregor and others, arXiv:1502.04623, 2015. Writes digits.pgm: a row for each glimpse, the canvas as
it becomes ten digits.

    python examples/draw_digits.py        # about half a minute
"""

from pathlib import Path

import numpy as np

from autograd_rnn.learn import adam, cosine, train
from autograd_rnn.tasks.bench import Run

UPDATES, GLIMPSES, SIZE, PIXELS = 3000, 6, 4, 6
_, model, data, params = Run.of("image_bound", "draw", values={"z": SIZE, "glimpses": GLIMPSES}).begin()
for point in train(model, params, data.train, UPDATES, adam(), cosine(0.002, UPDATES, warmup=20), clip=1.0):
    if point.step % 500 == 0:
        print(f"step {point.step:>4}  bound {point.loss:.2f} nats per image", flush=True)

samples = model.substitute(z="eps[t]")
eps = np.random.default_rng(0).normal(size=(GLIMPSES, 10, SIZE))
canvas = samples.run(point.params, eps=eps, x=np.zeros((10, 64)))["C"]  # no image is read any more
lit = 1 / (1 + np.exp(-canvas))
for image in lit[-1, :3]:
    print("\n".join("".join(" .:*#"[min(4, int(5 * p))] * 2 for p in line) for line in image.reshape(8, 8)))
    print("-" * 16)
sheet = lit.reshape(GLIMPSES, 10, 8, 8).transpose(0, 2, 1, 3).reshape(GLIMPSES * 8, 80)
shades = np.kron((255 * sheet).astype(np.uint8), np.ones((PIXELS, PIXELS), np.uint8))
Path("digits.pgm").write_bytes(b"P5 %d %d 255\n" % shades.shape[::-1] + shades.tobytes())
