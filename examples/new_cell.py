"""A cell nobody has written before: equations in, checked gradients and its own backward pass out."""

import numpy as np

import autograd_rnn as ar

cell = ar.Cell("""
    z[t] = sigmoid(W_z @ x[t] + U_z @ h[t-1] + b_z)
    q[t] = tanh(W_q @ x[t] + U_q @ (z[t] * h[t-2]) + b_q)      # looks two steps back
    h[t] = layer_norm(z[t] * h[t-1] + (1 - z[t]) * q[t])
    L = sum_t(sum((V @ h[t] - y[t])**2))
    y: input(y)
""", name="two-step")
params = cell.init(x=3, h=4, y=2, seed=0)
rng = np.random.default_rng(0)
data = {"x": rng.normal(size=(10, 2, 3)), "y": rng.normal(size=(10, 2, 2))}

print(cell.backward(), end="\n\n")
print(cell.check_gradients(params, **data), end="\n\n")
for step in range(201):
    loss, gradients = cell.gradient(params, **data)
    for name in params:
        params[name] -= 0.01 * gradients[name]
    if step % 50 == 0:
        print(f"step {step:3}  loss {loss:.4f}")
