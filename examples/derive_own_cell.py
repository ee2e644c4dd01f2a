"""The backpropagation through time of a cell of your own: derived, proved, and written out as text, LaTeX and HTML."""

import sys
from pathlib import Path

import autograd_rnn as ar

cell = ar.Cell("""
    z[t] = sigmoid(W_z @ x[t] + U_z @ h[t-1] + b_z)
    q[t] = tanh(W_q @ x[t] + A @ h[t-1] + b_q)
    A = U - U.T                                         # shared by all steps
    h[t] = h[t-1] + z[t] * q[t]
""", name="gated antisymmetric cell")

derivation = cell.derivation()
print(derivation.text("dh", "da_q", "dA", "dU"))
print(derivation.check())                               # every step, every printed equation
print()
print(ar.compare(cell, cell.substitute(z=1)))           # what the gate costs

folder = Path(sys.argv[1] if len(sys.argv) > 1 else ".")
for form in ("latex", "html"):
    path = folder / f"derivation.{'tex' if form == 'latex' else form}"
    path.write_text(getattr(derivation, form)(), encoding="utf-8")
    print(f"wrote {path}")
