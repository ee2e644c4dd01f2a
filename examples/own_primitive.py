"""A primitive of one's own, passed like a cell: value and derivative side by side, checked like all others."""

import numpy as np

import autograd_rnn as ar
from autograd_rnn import primitives as P

# Gaussian bump: exp(-x^2). Its derivative is written in primitives, so it can be printed and differentiated again.
bump = ar.Primitive(
    "bump",
    lambda x: np.exp(-x * x),
    vjp=lambda g, y, x: (g * (-2 * x * P.exp(-(x**2))),),
    sympy=lambda e, x: e.exp(-(x**2)),
    latex=r"e^{{-({0})^2}}",
)
cell = ar.Cell("h[t] = bump(W @ x[t] + U @ h[t-1] + b)", name="bump", bump=bump)
params = cell.init(x=2, h=3, seed=0)
X = np.random.default_rng(0).normal(size=(20, 4, 2))

print(cell.backward(), end="\n\n")
print(cell.check_gradients(params, x=X))
