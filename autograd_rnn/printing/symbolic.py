"""Equations as SymPy, in three forms: whole vectors as a paper prints them, component by component, or all sizes 1.

The matrix form is for reading: vectors are plain Symbols, a product of a matrix and a vector is a small Function that
prints as one, and terms stay in the author's order (print with `order="none"`: SymPy sorts them otherwise). The other
two are for computing: see components.py.
"""

from __future__ import annotations

from functools import cache
from typing import Any

from .. import primitives as P
from ..equations import System, tokens_reduce
from ..errors import CellError
from ..graph import Node, Primitive, option
from .components import Components, Total, as_number, key
from .latex import Operand, filled

FORMS = ("matrix", "elementwise", "scalar")
# How what is not a named function prints: operands with the strength they need, as in LaTeX templates.
TEXT = {P.matmul: "{0:2} {1:3}", P.mul: "{0:2} ⊙ {1:3}", P.div: "{0:2} ⊘ {1:3}", P.transpose: "{0:9}.T",
        P.outer: "{0:3} {1:9}.T"}
LATEX = {P.matmul: "{0:2} {1:3}", P.mul: r"{0:2} \odot {1:3}", P.div: r"{0:2} \oslash {1:3}"}


def sympy_equations(system: System, form: str = "matrix") -> dict:
    """Name -> sympy.Eq, in the author's order; an end goes by its position, "h[0]"."""
    if form not in FORMS:
        raise CellError(f"`{form}` is no form of equations.", remedy="Forms: " + ", ".join(FORMS) + ".")
    reader = Matrices(system) if form == "matrix" else Components(system, form == "scalar")
    return {key(eq): reader.equation(eq) for eq in system.equations}


class Matrices(Components):
    """Whole vectors and matrices, in the author's order; an index is summed over as in the scalar form."""

    def __init__(self, system: System):
        super().__init__(system, scalar=True)
        self.symbols.ordered = True

    def apply(self, n: Node, comps: tuple):
        s, op = self.symbols.sympy, n.op
        over = option(n) if op.fill is not None else None
        if over and op.sympy is not None:
            here = None if tokens_reduce(n) else self.component(n.args[0], ())
            return op.sympy(self, here, Total(self, n.args[0], over, ()))
        if over:
            return self.unknown(n, (), over)
        x = [self.component(a, ()) for k, a in enumerate(n.args) if k not in op.shape_only or op is P.like]
        if op in (P.mul, P.div) and all(map(self.system.rank, n.args)):
            return function(op)(*x)
        if op is P.where:
            return op.sympy(self, *x)
        x = [as_number(s, v) for v in x]
        if op is P.add:
            return s.Add(*x, evaluate=False)
        if op is P.neg:
            return s.Mul(-1, *x, evaluate=False)
        if op is P.mul:
            return s.Mul(*x, evaluate=False)
        if op is P.div:
            return s.Mul(x[0], s.Pow(x[1], -1, evaluate=False), evaluate=False)
        if op in (P.pow, P.sqrt):
            return s.Pow(x[0], *(n.params or [s.Rational(1, 2)]), evaluate=False)
        if op.infix and op is not P.matmul:
            return op.sympy(self, *x)
        return function(op)(*x, *n.params, evaluate=False)


@cache
def function(op: Primitive):
    """The SymPy function of a primitive: SymPy's own where there is one of that name, else one that prints as we do."""
    import sympy

    own = getattr(sympy, op.name, None)
    known = P.PRIMITIVES.get(op.name) is op and op.pointwise and op.sympy is not None
    if known and isinstance(own, type) and issubclass(own, sympy.Function):
        return own
    text, latex = TEXT.get(op), LATEX.get(op, op.latex)

    def _sympystr(self, printer):
        if text is None:
            return f"{op.name}({', '.join(map(printer._print, self.args))})"
        return filled(text, _operands(self, printer)).text

    def _latex(self, printer, exp=None):
        if latex is None:
            name = op.name.replace("_", r"\_")
            printed = Operand(rf"\operatorname{{{name}}}({', '.join(map(printer._print, self.args))})")
        else:
            printed = filled(latex, _operands(self, printer))
        return printed.text if exp is None else f"{printed:9}^{{{exp}}}"

    body: dict[str, Any] = {"_sympystr": _sympystr, "_latex": _latex}
    if text is not None:
        body["precedence"] = 50  # of a product
    return type(op.name, (sympy.Function,), body)


def _operands(call, printer) -> list[Operand]:
    """Arguments as printed, with their strength among ours."""
    from sympy.printing.precedence import precedence

    ours = ((40, 0), (50, 1), (60, 2), (70, 4))
    return [Operand(printer._print(arg), next((s for p, s in ours if precedence(arg) < p), 9)) for arg in call.args]
