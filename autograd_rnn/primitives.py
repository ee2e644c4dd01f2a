"""The closed set of primitives: each operation's value, derivative, shapes and typesetting side by side.

Derivatives are written in the primitives themselves, so a gradient is a graph like any other. To add an operation,
add one declaration here; to bring one of your own, pass it to the cell: `Cell(text, erf=Primitive(...))`.
Every value is right for complex arguments with a tiny imaginary part: it branches, shifts and compares by real part.
"""

from __future__ import annotations

import builtins
from functools import reduce

import numpy as np

from .graph import CONST, Node, Primitive, const, node, option

# --- values ------------------------------------------------------------------------------------------------------


SQUARE = 1e-190  # more than the square of a complex step, which is no number's real part


def _real(x):
    """What decides between cases: where x is zero, the square of a complex step must not pass for a negative number."""
    return np.where(np.abs(x.real) < SQUARE, 0, x.real) if np.iscomplexobj(x) else x


def _negative(x):
    """x or -x, whichever has the real part <= 0: the safe argument of exp."""
    return np.where(np.real(x) >= 0, -x, x)


def _sigmoid(x):
    e = np.exp(_negative(x))
    return np.where(np.real(x) >= 0, 1, e) / (1 + e)


def _sech(x):
    e = np.exp(_negative(x))
    return 2 * e / (1 + e * e)


def _log1p(z):
    """log(1 + z); NumPy's complex log1p rounds small real parts away."""
    if np.iscomplexobj(z):
        return np.log1p(z.real) + 1j * np.angle(1 + z)
    return np.log1p(z)


def _log(x):
    with np.errstate(divide="ignore", invalid="ignore"):
        value = np.log(_real(x))  # NaN below zero, as for real data, also where x is complex
        return np.where(np.isnan(value), np.nan, np.log(x)) if np.iscomplexobj(x) else value


def _sqrt(x):
    with np.errstate(invalid="ignore"):
        return np.where(_real(x) < 0, np.nan, np.sqrt(x)) if np.iscomplexobj(x) else np.sqrt(x)


def _power(x, exponent):
    if isinstance(exponent, int) or float(exponent).is_integer():
        power, count = None, builtins.abs(int(exponent))
        square = x
        while count:  # by squaring: exact for complex x too
            if count & 1:
                power = square if power is None else power * square
            count >>= 1
            square = square * square if count else square
        power = np.ones_like(x) if power is None else power
        return power if exponent >= 0 else 1 / power
    if exponent == 0.5:
        return _sqrt(x)
    value = np.exp(exponent * _log(x))
    return np.where(_real(x) == 0, np.zeros_like(value.real) ** exponent, value) if np.iscomplexobj(x) else value


def _softplus(x):
    return _maximum(x, 0) + _log1p(np.exp(_negative(x)))


def _sign(x):
    return np.sign(_real(x))


def _abs(x):
    return _sign(x) * x if np.iscomplexobj(x) else np.abs(x)


def _maximum(a, b):
    if np.iscomplexobj(a) or np.iscomplexobj(b):
        return np.where((_real(a) >= _real(b)) | np.isnan(np.real(a)), a, b)
    return np.maximum(a, b)


def _minimum(a, b):
    return -_maximum(-a, -b)


def _mod(a, b):
    if np.iscomplexobj(a) or np.iscomplexobj(b):
        return np.mod(np.real(a), np.real(b)) + 1j * (np.imag(a) - np.imag(b) * np.floor(np.real(a) / np.real(b)))
    return np.mod(a, b)


def _compare(relation):
    return lambda a, b: relation(_real(a), _real(b)).astype(np.real(a).dtype)


def _matmul(a, b):
    """Matrix times vector or matrix; the leading axes of both line up, the last of them being the batch."""
    if a.ndim == b.ndim:
        return np.matmul(a, b)
    if a.ndim == 2 or a.size == a.shape[-1] * a.shape[-2]:  # one matrix for all rows: one product
        return (b.reshape(-1, b.shape[-1]) @ a.reshape(a.shape[-2:]).T).reshape(*b.shape[:-1], a.shape[-2])
    if a.shape[-3] == 1:  # the same matrix for the whole batch
        return np.matmul(b, np.swapaxes(a[..., 0, :, :], -1, -2))
    return np.matmul(a, b[..., None])[..., 0]


def _outer(a, b, rank):
    """a b' for vectors; sum of the columns' outer products, A B', for matrices."""
    return np.matmul(a, np.swapaxes(b, -1, -2)) if rank == 2 else a[..., :, None] * b[..., None, :]


def _shift(x, axis):
    return np.max(np.real(x), axis=axis, keepdims=True)


def _logsumexp(x, axis):
    """top + log(sum_j exp(x_j - top)), where the largest is finite: of -inf alone -inf, of +inf among others +inf."""
    top = _shift(x, axis)
    top = np.where(np.isinf(top), 0, top)
    return np.squeeze(top, axis) + _log(np.sum(np.exp(x - top), axis=axis))


def _softmax(x, axis):
    e = np.exp(x - _shift(x, axis))
    return e / np.sum(e, axis=axis, keepdims=True)


def _first_top(x, axis):
    best = np.argmax(_real(x), axis=axis, keepdims=True)
    position = np.arange(x.shape[axis]).reshape([-1 if k == axis % x.ndim else 1 for k in range(x.ndim)])
    return (position == best).astype(np.real(x).dtype)


def _max(x, axis):
    return np.squeeze(np.take_along_axis(x, np.argmax(_real(x), axis=axis, keepdims=True), axis), axis)


def _onehot(k, shape, dtype=bool):
    return (np.asarray(k)[..., None] == np.arange(shape[0])).astype(dtype)


def _like(x, shape):
    return np.broadcast_to(x, x.shape[:x.ndim - len(shape)] + tuple(shape))


def _diag(x):
    return np.where(np.eye(x.shape[-1], dtype=bool), x[..., None], 0)


def _concat(*x):
    lead = np.broadcast_shapes(*(v.shape[:-1] for v in x))
    return np.concatenate([np.broadcast_to(v, (*lead, v.shape[-1])) for v in x], axis=-1)


def _split(g, *shapes_and_part):
    *shapes, part = shapes_and_part
    start = builtins.sum(s[0] for s in shapes[:part - 1])
    return g[..., start:start + shapes[part - 1][0]]


def _unslice(g, shape, start, stop):
    out = np.zeros((*g.shape[:-1], *shape), g.dtype)
    out[..., start:stop] = g
    return out


def _cross_entropy(y, k):
    """log sum_j exp(y_j) - y_k, keeping every digit where the margin is large."""
    target = _onehot(k, y.shape[-1:])
    margin = y - np.sum(np.where(target, y, 0), axis=-1, keepdims=True)
    top = np.maximum(np.max(np.real(margin), axis=-1), 0)
    others = np.sum(np.where(target, 0, np.exp(margin - top[..., None])), axis=-1)
    return top + np.where(top > 0, np.log(np.exp(-top) + others), _log1p(others))


def _softmax_error(y, k):
    """softmax(y) - onehot(k), keeping every digit where the two nearly agree."""
    target = _onehot(k, y.shape[-1:])
    p = _softmax(y, -1)
    return np.where(target, -np.sum(np.where(target, 0, p), axis=-1, keepdims=True), p)


def _bce(y, x):
    return np.sum(_maximum(y, 0) - x * y + _log1p(np.exp(_negative(y))), axis=-1)


def _concat_component(e, i, *x):
    """Component i of the first operand that reaches so far, counted from its own start."""
    cases, start = [], 0
    for a in x:
        cases.append((a(i[0] - start), i[0] <= start + e.size(a.dims[0])))
        start = start + e.size(a.dims[0])
    return e.Piecewise(*cases[:-1], (cases[-1][0], True))


def _split_component(e, i, g, *x_and_part):
    *x, part = x_and_part
    return g(i[0] + builtins.sum(e.size(a.dims[0]) for a in x[:part - 1]))


def _wide(axis, x, total):
    """The total over an index fits as it is; over components it is spread to x's shape."""
    return total if axis else like(total, x)


# --- the table ---------------------------------------------------------------------------------------------------
# Strength of operators, as in Python: comparison 0, sum 1, product 2, sign 3, power 4.

add = Primitive("add", lambda *x: reduce(np.add, x), lambda g, y, *x: tuple(g for _ in x),
                shape="s* -> s", sympy=lambda e, *x: e.Add(*x, evaluate=False), infix=("+", 1, "+"),
                machine=lambda v, *x: builtins.sum(x[1:], x[0]))
neg = Primitive("neg", np.negative, lambda g, y, x: (-g,), sympy=lambda e, x: -x, infix=("-", 3, "-"),
                machine=lambda v, x: -x)
mul = Primitive("mul", np.multiply, lambda g, y, a, b: (g * b, g * a),
                shape="s?, s? -> s", sympy=lambda e, a, b: a * b, infix=("*", 2, r"\odot"),
                machine=lambda v, a, b: a * b)
div = Primitive("div", lambda a, b: np.divide(a, b), lambda g, y, a, b: (g / b, -(g * y) / b),
                shape="s?, s? -> s", sympy=lambda e, a, b: a / b, infix=("/", 2, r"\oslash"),
                machine=lambda v, a, b: a / b)
pow = Primitive("pow", _power, lambda g, y, x: (g * (y.params[0] * x ** (y.params[0] - 1)),),
                sympy=lambda e, x, exponent: x ** exponent, infix=("**", 4, ""),
                machine=lambda v, x, exponent: v.power(x, exponent))
matmul = Primitive("matmul", _matmul, lambda g, y, a, b: (outer(g, b), a.T @ g), shape="(m n), (n ...) -> (m ...)",
                   sympy=lambda e, i, a, b: e.sum(a.dims[1], lambda k: a(i[0], k) * b(k, *i[1:])), infix=("@", 2, ""))
transpose = Primitive("transpose", lambda a: np.swapaxes(a, -1, -2), lambda g, y, a: (g.T,), shape="(m n) -> (n m)",
                      sympy=lambda e, i, a: a(i[1], i[0]), latex=r"{0:9}^{{\top}}")
outer = Primitive("outer", _outer, lambda g, y, a, b: (g @ b, g.T @ a), shape="(m ...), (n ...) -> (m n)",
                  wants="rank", sympy=lambda e, i, a, b: a(i[0]) * b(i[1]) if len(a.dims) == 1 else e.sum(
                      a.dims[1], lambda k: a(i[0], k) * b(i[1], k)), latex=r"{0:3} \, {1:9}^{{\top}}")
diag = Primitive("diag", _diag, lambda g, y, x: (diagonal(g),), shape="(n) -> (n n)",
                 sympy=lambda e, i, x: e.KroneckerDelta(i[0], i[1]) * x(i[0]), latex=r"\operatorname{{diag}}{0:10}")
diagonal = Primitive("diagonal", lambda x: np.diagonal(x, axis1=-2, axis2=-1), lambda g, y, x: (diag(g),),
                     shape="(n n) -> (n)", sympy=lambda e, i, x: x(i[0], i[0]),
                     numpy="np.diagonal({0}, axis1=-2, axis2=-1)")
like = Primitive("like", _like, lambda g, y, a, b: (g, None), shape="_, s -> s", shape_only=(1,),
                 sympy=lambda e, a, b: a, latex=r"{0:3} \, \mathbf{{1}}")

sum = Primitive("sum", lambda x, axis: np.sum(x, axis=axis), lambda g, y, x: (_wide(option(y), x, g),),
                shape="s -> ()", fill=0.0, sympy=lambda e, x, total: total(lambda v: v), numpy="np.sum({0}, axis={1})")
mean = Primitive("mean", lambda x, axis: np.mean(x, axis=axis),
                 lambda g, y, x: (like(g / sum(like(const(1), x)), x),),
                 shape="s -> ()", fill=0.0, sympy=lambda e, x, total: total(lambda v: v) / total(lambda v: 1),
                 numpy="np.mean({0}, axis={1})")
max = Primitive("max", _max, lambda g, y, x: (_wide(option(y), x, g) * node(first_top, x, params=y.params),),
                shape="(n) -> ()", fill=-np.inf, numpy="np.max({0}, axis={1})")
first_top = Primitive("first_top", _first_top, None, shape="(n) -> (n)", fill=-np.inf)
softmax = Primitive("softmax", _softmax, lambda g, y, x: (
    y * (g - _wide(option(y), x, node(sum, g * y, params=y.params))),), shape="(n) -> (n)", fill=-np.inf,
    sympy=lambda e, x, total: e.exp(x) / total(lambda v: e.exp(v)))
logsumexp = Primitive("logsumexp", _logsumexp, lambda g, y, x: (
    _wide(option(y), x, g) * node(softmax, x, params=y.params),), shape="(n) -> ()", fill=-np.inf,
    sympy=lambda e, x, total: e.log(total(lambda v: e.exp(v))))
cumsum = Primitive("cumsum", lambda x, axis: np.cumsum(x, axis=axis), lambda g, y, x: (
    node(cumsum_right, g, params=y.params),), shape="(n) -> (n)", fill=0.0,
    sympy=lambda e, x, total: total(lambda v: v, last=total.here), numpy="np.cumsum({0}, axis={1})")
cumsum_right = Primitive("cumsum_right", lambda x, axis: np.flip(np.cumsum(np.flip(x, axis), axis=axis), axis),
                         lambda g, y, x: (node(cumsum, g, params=y.params),), shape="(n) -> (n)", fill=0.0,
                         sympy=lambda e, x, total: total(lambda v: v, first=total.here),
                         numpy="np.flip(np.cumsum(np.flip({0}, {1}), axis={1}), {1})")

concat = Primitive("concat", _concat, lambda g, y, *x: tuple(
    node(split, g, *x, params=(k,)) for k in range(1, len(x) + 1)), shape="(n)* -> (n)", sympy=_concat_component)
split = Primitive("split", _split, lambda g, y, whole, *x: (concat(*(
    g if k == y.params[0] else like(const(0), v) for k, v in enumerate(x, 1))), *(None for _ in x)),
    shape="(n), (n)* -> (n)", shape_only=tuple(range(1, 64)), statics=1, sympy=_split_component)
slice = Primitive("slice", lambda x, start, stop: x[..., start:stop], lambda g, y, x: (
    node(unslice, g, x, params=y.params),), shape="(n) -> (n)", statics=2,
    sympy=lambda e, i, x, start, stop: x(i[0] + start), latex=r"[{0}]_{{{1}:{2}}}", numpy="{0:9}[..., {1}:{2}]")
unslice = Primitive("unslice", _unslice, lambda g, y, part, x: (node(slice, g, params=y.params), None),
                    shape="_, s -> s", shape_only=(1,), statics=2, sympy=lambda e, i, g, x, start, stop: e.Piecewise(
                        (g(i[0] - start), e.And(i[0] > start, i[0] <= stop)), (0, True)))

exp = Primitive("exp", np.exp, lambda g, y, x: (g * y,), sympy=lambda e, x: e.exp(x), latex=r"\exp{0:10}",
                machine=lambda v, x: v.exp(x))
log = Primitive("log", _log, lambda g, y, x: (g / x,), sympy=lambda e, x: e.log(x), latex=r"\log{0:10}",
                numpy="np.log({0})", machine=lambda v, x: v.log(x))
sqrt = Primitive("sqrt", _sqrt, lambda g, y, x: (g / (2 * y),), sympy=lambda e, x: e.sqrt(x), latex=r"\sqrt{{{0}}}",
                 numpy="np.sqrt({0})", machine=lambda v, x: v.call("sqrt", x))
sin = Primitive("sin", np.sin, lambda g, y, x: (g * cos(x),), sympy=lambda e, x: e.sin(x), latex=r"\sin{0:10}",
                machine=lambda v, x: v.each("sin", x))
cos = Primitive("cos", np.cos, lambda g, y, x: (-(g * sin(x)),), sympy=lambda e, x: e.cos(x), latex=r"\cos{0:10}",
                machine=lambda v, x: v.each("cos", x))
tanh = Primitive("tanh", np.tanh, lambda g, y, x: (g * sech(x) ** 2,), sympy=lambda e, x: e.tanh(x),
                 latex=r"\tanh{0:10}", machine=lambda v, x: v.tanh(x))
sech = Primitive("sech", _sech, lambda g, y, x: (-(g * (y * tanh(x))),), sympy=lambda e, x: e.sech(x),
                 latex=r"\operatorname{{sech}}{0:10}", numpy="(1 / np.cosh({0}))",
                 inplace="np.cosh({0}, out={out})\nnp.divide(1, {out}, out={out})",
                 machine=lambda v, x: v.sech(x))
sigmoid = Primitive("sigmoid", _sigmoid, lambda g, y, x: (g * (y * sigmoid(-x)),),
                    sympy=lambda e, x: 1 / (1 + e.exp(-x)), latex=r"\sigma{0:10}", numpy="(1 / (1 + np.exp(-{0:9})))",
                    inplace="np.negative({0}, out={out})\nnp.exp({out}, out={out})\n"
                            "np.add({out}, 1, out={out})\nnp.divide(1, {out}, out={out})",
                    machine=lambda v, x: v.sigmoid(x))
softplus = Primitive("softplus", _softplus, lambda g, y, x: (g * sigmoid(x),),
                     sympy=lambda e, x: e.log(1 + e.exp(x)), latex=r"\operatorname{{softplus}}{0:10}",
                     numpy="np.logaddexp(0, {0})",
                     machine=lambda v, x: v.maximum(x, 0) + v.log1p(v.exp(-v.absolute(x))))
abs = Primitive("abs", _abs, lambda g, y, x: (g * sign(x),), sympy=lambda e, x: e.Abs(x), latex=r"\lvert {0} \rvert",
                numpy="np.abs({0})", machine=lambda v, x: v.absolute(x))
sign = Primitive("sign", _sign, None, sympy=lambda e, x: e.sign(x), latex=r"\operatorname{{sign}}{0:10}",
                 numpy="np.sign({0})", machine=lambda v, x: v.choose(
                     v.compare(">", x, 0), 1, v.choose(v.compare("<", x, 0), -1, x)))
floor = Primitive("floor", lambda x: np.floor(np.real(x)), None, sympy=lambda e, x: e.floor(x),
                  latex=r"\lfloor {0} \rfloor", numpy="np.floor({0})",
                  machine=lambda v, x: v.call("floor", x))
mod = Primitive("mod", _mod, lambda g, y, a, b: (g, -(g * floor(a / b))), shape="s, s -> s",
                sympy=lambda e, a, b: e.Mod(a, b), infix=("%", 2, r"\bmod"), numpy="np.mod({0}, {1})",
                machine=lambda v, a, b: v.modulus(a, b))
maximum = Primitive("maximum", _maximum, lambda g, y, a, b: (
    where(node(ge, a, b), g, 0), where(node(ge, a, b), 0, g)), shape="s, s -> s",
    sympy=lambda e, a, b: e.Max(a, b), latex=r"\max({0}, {1})", numpy="np.maximum({0}, {1})",
                    machine=lambda v, a, b: v.maximum(a, b))
minimum = Primitive("minimum", _minimum, lambda g, y, a, b: (
    where(node(le, a, b), g, 0), where(node(le, a, b), 0, g)), shape="s, s -> s",
    sympy=lambda e, a, b: e.Min(a, b), latex=r"\min({0}, {1})", numpy="np.minimum({0}, {1})",
                    machine=lambda v, a, b: v.minimum(a, b))
where = Primitive("where", lambda c, a, b: np.where(_real(c) != 0, a, b), lambda g, y, c, a, b: (
    None, where(c, g, 0), where(c, 0, g)), shape="s?, s, s -> s",
    sympy=lambda e, c, a, b: e.Piecewise((a, c if c.is_Boolean or c.is_Relational else e.Ne(c, 0)), (b, True)),
    latex=r"\begin{{cases}} {1:1} & \text{{if }} {0} \\ {2:1} & \text{{otherwise}} \end{{cases}}",
                  numpy="np.where({0}, {1}, {2})", machine=lambda v, c, a, b: v.where(c, a, b))
lt = Primitive("lt", _compare(np.less), None, "s, s -> s", lambda e, a, b: e.Lt(a, b), infix=("<", 0, "<"),
               numpy="np.less({0}, {1}).astype(dtype)", machine=lambda v, a, b: v.truth("<", a, b))
le = Primitive("le", _compare(np.less_equal), None, "s, s -> s", lambda e, a, b: e.Le(a, b), infix=("<=", 0, r"\le"),
               numpy="np.less_equal({0}, {1}).astype(dtype)", machine=lambda v, a, b: v.truth("<=", a, b))
gt = Primitive("gt", _compare(np.greater), None, "s, s -> s", lambda e, a, b: e.Gt(a, b), infix=(">", 0, ">"),
               numpy="np.greater({0}, {1}).astype(dtype)", machine=lambda v, a, b: v.truth(">", a, b))
ge = Primitive("ge", _compare(np.greater_equal), None, "s, s -> s", lambda e, a, b: e.Ge(a, b), infix=(">=", 0, r"\ge"),
               numpy="np.greater_equal({0}, {1}).astype(dtype)", machine=lambda v, a, b: v.truth(">=", a, b))
eq = Primitive("eq", _compare(np.equal), None, "s, s -> s", lambda e, a, b: e.Eq(a, b), infix=("==", 0, "="),
               numpy="np.equal({0}, {1}).astype(dtype)", machine=lambda v, a, b: v.truth("==", a, b))
ne = Primitive("ne", _compare(np.not_equal), None, "s, s -> s", lambda e, a, b: e.Ne(a, b), infix=("!=", 0, r"\ne"),
               numpy="np.not_equal({0}, {1}).astype(dtype)", machine=lambda v, a, b: v.truth("!=", a, b))
stop_gradient = Primitive("stop_gradient", lambda x: np.real(x), None, sympy=lambda e, x: x,
                          latex=r"\operatorname{{stop}}{0:10}", numpy="({0})", machine=lambda v, x: x)

onehot = Primitive("onehot", _onehot, None, shape="k -> (n)", wants="shape",
                   sympy=lambda e, i, k: e.KroneckerDelta(k() + 1, i[0]), latex=r"\mathbf{{e}}_{{{0}}}")
cross_entropy = Primitive("cross_entropy", _cross_entropy, lambda g, y, logits, k: (
    g * softmax_error(logits, k), None), shape="(n), k -> ()",
    sympy=lambda e, i, y, k: e.log(e.sum(y.dims[0], lambda j: e.exp(y(j)))) - y(k() + 1),
    latex=r"\operatorname{{CE}}({0}, {1})")
softmax_error = Primitive("softmax_error", _softmax_error, lambda g, y, logits, k: (
    softmax(logits) * (g - like(sum(g * softmax(logits)), logits)), None), shape="(n), k -> (n)",
    sympy=lambda e, i, y, k: e.exp(y(i[0])) / e.sum(y.dims[0], lambda j: e.exp(y(j))) - e.KroneckerDelta(k() + 1, i[0]),
    latex=r"(\operatorname{{softmax}}({0}) - \mathbf{{e}}_{{{1}}})")
bce = Primitive("bce", _bce, lambda g, y, logits, x: (
    g * ((1 - x) * sigmoid(logits) - x * sigmoid(-logits)), -(g * logits)), shape="(n), (n) -> ()",
    sympy=lambda e, i, y, x: e.sum(y.dims[0], lambda j: e.log(1 + e.exp(y(j))) - x(j) * y(j)),
    latex=r"\operatorname{{BCE}}({0}, {1})")

PRIMITIVES = {p.name: p for p in tuple(vars().values()) if isinstance(p, Primitive) and p.value is not None}

# Written in the notation itself. relu(0) has derivative 0: a tie in maximum goes to the first argument.
LIBRARY = """
relu(v) = maximum(0, v)
leaky_relu(v) = where(v > 0, v, 0.01 * v)
elu(v) = maximum(0, v) + tanh(minimum(v, 0) / 2) * (exp(minimum(v, 0)) + 1)
silu(v) = v * sigmoid(v)
gelu(v) = v * sigmoid(1.5957691216057308 * (v + 0.044715 * v**3))
hard_sigmoid(v) = minimum(maximum(0.2 * v + 0.5, 0), 1)
mse(a, b) = sum((a - b)**2)
layer_norm(v) = (v - like(mean(v), v)) / sqrt(mean((v - like(mean(v), v))**2) + 0.00001)
dropout(v, keep, p) = v * keep / p
"""


# --- arithmetic on nodes, so that a rule reads like its law; zeros and ones fold away ----------------------------


def _is(n, value):
    return n.op is CONST and n.params[0] == value


def total(*terms: Node) -> Node:
    """a + b + ..., flat, without zeros."""
    flat: list[Node] = []
    for n in terms:
        if not _is(n, 0):
            flat.extend(n.args if n.op is add else [n])
    return const(0) if not flat else flat[0] if len(flat) == 1 else node(add, *flat)


def _times(a: Node, b: Node) -> Node:
    if _is(a, 0) or _is(b, 0):
        return const(0)
    if _is(a, 1) or _is(b, 1):
        return b if _is(a, 1) else a
    if a.op is CONST and b.op is CONST:
        return const(a.params[0] * b.params[0])
    if a.op is neg:
        return -(a.args[0] * b)
    return -(a * b.args[0]) if b.op is neg else node(mul, a, b)


def _negated(a: Node) -> Node:
    if a.op is CONST:
        return const(-a.params[0])
    return a.args[0] if a.op is neg else node(neg, a)


def _raised(a: Node, exponent: float) -> Node:
    return a if exponent == 1 else const(1) if exponent == 0 else node(pow, a, params=(exponent,))


def _node(x) -> Node:
    return x if isinstance(x, Node) else const(x)


for _name, _operation in {
    "__add__": lambda a, b: total(a, _node(b)), "__radd__": lambda a, b: total(_node(b), a),
    "__sub__": lambda a, b: total(a, -_node(b)), "__rsub__": lambda a, b: total(_node(b), -a),
    "__mul__": lambda a, b: _times(a, _node(b)), "__rmul__": lambda a, b: _times(_node(b), a),
    "__truediv__": lambda a, b: a if _is(_node(b), 1) else const(0) if _is(a, 0) else node(div, a, b),
    "__matmul__": lambda a, b: node(matmul, a, b), "__pow__": _raised, "__neg__": _negated,
    "T": property(lambda a: a.args[0] if a.op is transpose else -a.args[0].T if a.op is neg else node(transpose, a)),
}.items():
    setattr(Node, _name, _operation)
