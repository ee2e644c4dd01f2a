"""What each told symbol owes to each symbol of the source: attention that has learnt to turn sequences round.

Bahdanau, Cho, Bengio, arXiv:1409.0473, 2014, figure 3. Writes alignment.pgm, an image that most viewers open: a row for
each symbol told, a column for each of the source.

    python examples/alignment.py        # about half a minute
"""

from pathlib import Path

import numpy as np

from autograd_rnn.learn import adam, beam, cosine, train
from autograd_rnn.tasks.bench import Run

UPDATES, PIXELS = 300, 16
run = Run.of("reverse", "bahdanau", values={"S": 12})
_, model, data, params = run.begin()
for point in train(model, params, data.train, UPDATES, adam(), cosine(0.005, UPDATES, warmup=20), clip=1.0):
    if point.step % 100 == 0:
        print(f"step {point.step:>4}  loss {point.loss:.4f} nats per symbol", flush=True)

source = np.array([3, 1, 4, 1, 5, 0, 2, 6, 5, 3, 7, 2])
x = np.eye(8)[source]
told, value = beam(model, point.params, end=8, longest=20, width=3, x=x)
print("source", *source)
print("told  ", *told, f"  log-probability {value:.3f}")
alpha = model.run(point.params, x=x, k=np.array(told))["alpha"]
for row in alpha:
    print(" ".join(f"{a:.1f}" if a >= 0.05 else " . " for a in row))
shades = np.kron((255 * alpha).astype(np.uint8), np.ones((PIXELS, PIXELS), np.uint8))
Path("alignment.pgm").write_bytes(b"P5 %d %d 255\n" % shades.shape[::-1] + shades.tobytes())
