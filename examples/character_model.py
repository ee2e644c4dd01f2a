"""A character model of two GRU layers, printed, checked, trained and sampled.

    python examples/character_model.py [FILE]        # a UTF-8 text; without one, Python's own help. About a minute
"""

import sys

import numpy as np

from autograd_rnn import zoo
from autograd_rnn.learn import (
    adam,
    character_batches,
    character_model,
    character_sizes,
    cosine,
    encode,
    mean_loss,
    ngram_floors,
    python_topics,
    read_text,
    sample,
    train,
)

UPDATES = 600

text = encode(read_text(sys.argv[1]) if len(sys.argv) > 1 else python_topics())
model = character_model(zoo["gru"], layers=2, dropout=0.1)
print(model, end="\n\n")

small = model.init(seed=0, e=2, h1=3, h2=3, y=5)
print(model.check_gradients(small, k=np.array([0, 3, 1, 4]), noise=0), end="\n\n")

params = model.init(seed=0, dtype=np.float32, **character_sizes(model, text.alphabet, size=96, embedding=32))
batches = character_batches(model, text.train, batch=32, length=48)
glance = character_batches(model, text.validation[:5000], batch=1, length=1000)
print("floors in nats per character: unigram {:.3f}, bigram {:.3f}".format(*ngram_floors(text)))
for point in train(model, params, batches, UPDATES, adam(), cosine(6e-3, UPDATES, warmup=20), clip=1.0):
    if point.step % 100 == 0:
        judged = mean_loss(model, point.params, glance)
        print(f"step {point.step:>5}  training {point.loss:.3f}  validation {judged:.3f}", flush=True)
print("\n" + sample(model, point.params, text.alphabet, 300, temperature=0.8, prompt="\n"))
