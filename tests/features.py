"""What the notation has, a row each: a function that adds lines of its kind to a text, and how often it is drawn.

    FEATURES["carries that rotate"](draft)

Values stay moderate: what is carried is squashed, or read through a sine; logarithms, roots and quotients get positive
arguments. A new feature is one function here and one row in the table at the end.
"""

from __future__ import annotations

from draft import Draft, Name

OFFSETS = (-5, -4, -3, -2, -1, 1, 2, 3, 4, 5)
REDUCTIONS = ("sum", "mean", "max", "logsumexp", "softmax", "cumsum")


def scope(d: Draft) -> tuple[str, ...]:
    """Indices of a new value: mostly time."""
    return d.pick(("t",), ("t",), ("t",), ("t", "j"), ("j",), ("t", "l"), ("t", "j", "l") if d.chance(0.2) else ("l",))


def shift(d: Draft, far: float = 0.3) -> int:
    return d.pick(*OFFSETS) if d.chance(far) else d.pick(-1, -1, 1)


def ends_of(d: Draft, name: str, i: str) -> str:
    return d.pick("0", "1", i.upper(), i.upper() + "+1")


# --- states ----------------------------------------------------------------------------------------------------------


def layer(d: Draft):
    """A recurrent layer along t, forward or backward."""
    way = d.pick(-1, -1, 1)
    h = d.new("h", ("t",), ("h",))
    u = d.parameter(("h", "h"))
    bias = f" + {d.parameter(('h',))}" if d.chance(0.6) else ""
    d.define(h, d.squash(f"{u} @ {d.at(h, t=way)} + {d.vector('h', ('t',), exact=True)}{bias}"))


def gated(d: Draft):
    """Gates over a cell, and a hidden state read by all of them."""
    way = d.pick(-1, 1)
    h, c = d.new("h", ("t",), ("h",)), d.new("c", ("t",), ("h",))

    def gate():
        x = d.source(("t",))
        u, w = d.parameter(("h", d.names[x].dims[0])), d.parameter(("h", "h"))
        return f"{u} @ {d.at(x)} + {w} @ {d.at(h, t=way)}"

    f = d.value("f", ("t",), ("h",), f"sigmoid({gate()} + {d.parameter(('h',))} * {d.at(c, t=way)})")
    d.define(c, f"{d.at(f)} * {d.at(c, t=way)} + (1 - {d.at(f)}) * tanh({gate()})")
    d.define(h, f"sigmoid({gate()}) * tanh({d.at(c)})")


def number_state(d: Draft):
    """A state that is a number."""
    n = d.new("n", ("t",), ())
    way = shift(d)
    d.define(n, f"0.6 * {d.at(n, t=way)} + tanh({d.parameter()} * {d.number(('t',), exact=True)} + {d.parameter()})")


def far_state(d: Draft):
    """A state that reads itself far away, and near too or not."""
    i = d.pick("t", "t", "j")
    h, way = d.new("h", (i,), ("h",)), d.pick(*OFFSETS)
    near = f" + {d.parameter(('h',))} * {d.at(h, **{i: 1 if way > 0 else -1})}" if d.chance(0.5) else ""
    u, v = d.parameter(("h", "h")), d.vector("h", (i,), exact=True)
    d.define(h, d.squash(f"{u} @ {d.at(h, **{i: way})}{near} + {v}"))


def grid(d: Draft):
    """A state over t and j, in one of four directions, with diagonals and far reads; of numbers or of vectors."""
    a, b = d.pick(-1, -1, 1), d.pick(-1, -1, 1)
    dims = d.pick((), ("h",))
    g = d.new("g", ("t", "j"), dims)
    if dims:
        weight = lambda: d.pick(lambda: f"{d.parameter(('h', 'h'))} @ ", lambda: f"{d.parameter(('h',))} * ")()
    else:
        weight = lambda: f"{d.parameter()} * "
    terms = [weight() + d.at(g, t=a), weight() + d.at(g, j=b)]
    if d.chance(0.5):
        terms.append(weight() + d.at(g, t=a * int(d.rng.integers(1, 3)), j=b * int(d.rng.integers(1, 3))))
        d.mark("a diagonal in a grid")
    if d.chance(0.3):
        terms.append(weight() + d.at(g, t=a * int(d.rng.integers(2, 6))))
    if d.chance(0.2):
        terms.append(weight() + d.at(g, t=a, j=-b))
    d.mark(f"a grid of {'vectors' if dims else 'numbers'}", f"a grid swept {a:+d}, {b:+d}")
    d.define(g, d.squash(" + ".join([*terms, d.operand(dims, ("t", "j"), exact=d.chance(0.8))])))


def stack(d: Draft):
    """Layers by an index of their own, upward or downward, tied or not, with far reads over both."""
    way, up = d.pick(-1, -1, 1), d.pick(-1, -1, 1)
    s = d.new("s", ("t", "l"), ("h",))
    axes = lambda: ("l",) if d.chance(0.6) else ()
    w, u = d.parameter(("h", "h"), axes()), d.parameter(("h", "h"), axes())
    d.mark("a weight for each layer" if "[l]" in w + u else "tied layers")
    far = d.chance(0.4)
    below = d.at(s, **d.pick(dict(t=way * d.pick(1, 2, 3), l=up), dict(l=2 * up)) if far else dict(l=up))
    extra = d.pick(*[lambda: ""] * 3, lambda: f" + {d.parameter(('h',), ('l',))}", lambda: " + 0.1 * l * like(1 / L, "
                   f"{d.at(s, t=way)})", lambda: f" + {d.parameter(('h',))} * {d.at(s, t=way, l=-up)}")()
    d.lines.append(f"{s}[t,{'0' if up < 0 else 'L+1'}] = {d.vector('h', ('t',), exact=True)}")
    d.defined_ends.add((s, "l", "0" if up < 0 else "L+1"))
    d.define(s, d.squash(f"{w} @ {below} + {u} @ {d.at(s, t=way)}{extra}"))
    d.value("y", ("t",), ("h",), d.squash(f"{d.parameter(('h', 'h'))} @ {d.at(s, l=d.pick('L', '1'))}"))


def carries(d: Draft, kind: str):
    """States that only hand on what they are given: h[t-2], an exchange, a ring of three, a shift register."""
    i, way = d.pick("t", "t", "j"), d.pick(-1, -1, 1)
    dims = d.pick(("h",), ("h",), ())
    x = lambda: d.operand(dims, (i,), exact=True)
    names = [d.new(s, (i,), dims) for s in {"pass on": "a", "exchange": "ab"}.get(kind, "abc")]
    before = [d.at(n, **{i: way}) for n in names]
    if kind == "pass on":
        d.define(names[0], f"{x()} + {d.at(names[0], **{i: way * int(d.rng.integers(1, 6))})}", pool=False)
    elif kind == "exchange":
        d.define(names[0], d.pick(before[1], f"0.9 * {before[1]}", f"{before[1]} + {x()}"), pool=False)
        d.define(names[1], f"{before[0]} + {x()}", pool=False)
    elif kind == "rotate":
        for n, b in zip(names, (before[1], before[2], f"{before[0]} + {x()}")):
            d.define(n, b, pool=False)
    else:  # a shift register
        d.define(names[0], x(), pool=False)
        d.define(names[1], before[0], pool=False)
        d.define(names[2], before[1], pool=False)
    shown = [d.at(n, **({i: way} if d.chance(0.3) else {})) for n in names]
    d.value("o", (i,), dims, f"sin(0.3 * ({' + '.join(shown)}))")


def matrix_state(d: Draft):
    """A memory of outer products, written, forgotten and read; its transpose; products around it."""
    way, c = d.pick(-1, -1, 1), d.new("C", ("t",), ("h", "h"))
    before = d.at(c, t=way)
    k, v = (d.vector("h", ("t",), exact=True) for _ in range(2))
    q = d.vector("h", ("t",))
    a = lambda: d.parameter(("h", "h"), declare=True)
    kept = d.pick(
        lambda: f"{d.squash(d.number(('t',)))} * {before}", lambda: f"sigmoid({a()}) * {before}",
        lambda: f"0.5 * ({a()} @ {before} @ {a()})", lambda: f"0.7 * {before}.T", lambda: f"0.5 * ({a()} @ {before})",
        lambda: f"{before} - 0.3 * outer({before} @ {d.at(d.value('k', ('t',), ('h',), 'tanh(' + k + ')'))}, {v})",
        lambda: f"0.4 * ({before} @ diag(tanh({q})))", lambda: f"0.5 * ({before}.T @ {a()})")()
    d.define(c, d.pick(f"{kept} + outer({k}, {v})", f"tanh({kept} + outer({k}, {v}))"))
    d.value("r", ("t",), ("h",), d.pick(
        f"tanh({d.at(c)} @ {q})", f"tanh({d.at(c)}.T @ {q})", f"sin(diagonal({d.at(c)}))",
        f"tanh(({d.at(c)} @ {q}) / maximum(abs(sum({k} * {q})), 1))"))


# --- reads -----------------------------------------------------------------------------------------------------------


def far_read(d: Draft):
    """A value that reads another far away along one index."""
    found = [n for n in d.pool if d.names[n].axes]
    name = d.recent(found) if found and d.chance(0.8) else d.source(d.pick(("t",), ("j",), ("l",), ("t", "l")))
    of = d.names[name]
    i, offset = d.pick(*of.axes), d.pick(*OFFSETS)
    other = d.operand(of.dims, of.axes) if of.dims != (("h", "x")) else ""
    d.value("f", of.axes, of.dims, f"{d.pick('', '0.5 * ', '-')}{d.at(name, **{i: offset})} + 0.3 * {other}"
            if d.chance(0.7) else f"tanh({d.at(name, **{i: offset})} - {d.at(name, **{i: -offset})})")


def mixed_read(d: Draft):
    """A value that reads another with shifts along two indices at once."""
    axes = d.pick(("t", "j"), ("t", "j"), ("t", "l"), ("j", "l"))
    found = [n for n in d.pool if set(axes) <= set(d.names[n].axes)]
    name = d.recent(found) if found and d.chance(0.8) else d.source(axes)
    of = d.names[name]
    d.value("f", of.axes, of.dims, f"0.8 * {d.at(name, **{i: d.pick(*OFFSETS) for i in axes})} - 0.2 * {d.at(name)}")


def end_read(d: Draft):
    """A value that reads another at an inside or an outside end."""
    found = [n for n in d.pool if set(d.names[n].axes) & {"t", "j", "l"}]
    name = d.recent(found) if found and d.chance(0.8) else d.source(d.pick(("t",), ("j",), ("t", "j")))
    of = d.names[name]
    i = d.pick(*of.axes)
    rest = tuple(a for a in of.axes if a != i)
    axes = of.axes if of.role == "input" or d.chance(0.5) else rest
    here = d.at(name) if of.role == "input" else d.operand(of.dims, axes)
    d.value("f", axes, of.dims, f"sin({d.at(name, **{i: ends_of(d, name, i)})} + 0.5 * {here})")


def delayed_input(d: Draft):
    """Inputs at other steps beside their own."""
    x = d.source(("t",))
    size = d.names[x].dims[0]
    terms = [f"{d.parameter(('h', size))} @ {d.at(x, t=o)}" for o in (0, shift(d, 0.8), shift(d, 0.8))]
    d.value("z", ("t",), ("h",), d.squash(" + ".join(terms)))


# --- products --------------------------------------------------------------------------------------------------------


def shared_product(d: Draft):
    """A product of weights with weights, by itself or before a vector of each step."""
    h, r = "h", d.pick("r", "h")
    p = lambda *dims: d.parameter(dims, declare=True)
    square = p(h, h)
    forms = {
        "two matrices": lambda: f"{p(h, r)} @ {p(r, h)}",
        "low rank": lambda: f"{p(h, 'r')} @ {p('r', h)}",
        "first transposed": lambda: f"{p(r, h)}.T @ {p(r, h)}",
        "second transposed": lambda: f"{p(h, r)} @ {p(h, r)}.T",
        "both transposed": lambda: f"({p(h, r)} @ {p(r, h)}).T",
        "a matrix with itself": lambda: f"{square} @ {square}",
        "a matrix with its transpose": lambda: d.pick(f"{square} @ {square}.T", f"{square}.T @ {square}"),
        "diag on the right": lambda: f"{square} @ diag({p(h)})",
        "diag on the left": lambda: f"diag({p(h)}) @ {square}",
        "diag of both sides": lambda: f"diag({p(h)}) @ {square} @ diag({p(h)})",
        "outer of matrices": lambda: f"outer({p(h, r)}, {p(h, r)})",
        "outer of vectors": lambda: f"outer({p(h)}, {p(h)})",
        "several deep": lambda: f"{square} @ {p(h, r)} @ {p(r, h)} @ {square}",
        "of a function of weights": lambda: f"tanh({square}) @ {p(h, h)}",
        "antisymmetric": lambda: f"({square} - {square}.T) @ {p(h, h)}",
        "a mask": lambda: f"(abs({square}) * {p(h, h)}) @ {p(h, h)}",
    }
    kind = d.pick(*forms)
    d.mark(f"product of weights: {kind}")
    made = forms[kind]()
    use = d.pick("named", "inline", "loss", "state", "vector", "with a step's matrix")
    d.mark(f"product of weights used: {use}")
    if use in ("named", "state", "loss", "with a step's matrix"):
        e = d.value("E", (), (h, h), d.pick(made, f"tanh({made})"), pool=d.chance(0.5))
        made = d.at(e)
    if use == "loss":
        d.value("y", (), (), f"sum({made} * {p(h, h)})")
    elif use == "state":
        s = d.new("h", ("t",), (h,))
        d.define(s, d.squash(f"{made} @ {d.at(s, t=d.pick(-1, 1))} + {d.vector(h, ('t',), exact=True)}"))
    elif use == "with a step's matrix":
        m = d.matrix(h, h, ("t",), exact=True)
        d.value("M", ("t",), (h, h), d.pick(f"tanh({made} @ {m})", f"tanh({m} @ {made})", f"tanh({made}.T @ {m})",
                                            f"{made} * {m}", f"tanh({m}.T @ {made})"))
    elif use == "vector":
        d.value("y", (), (h,), f"tanh({'(' + made + ')'} @ {p(h)})")
    else:
        d.value("y", ("t",), (h,), d.squash(f"({made}) @ {d.vector(h, ('t',), exact=True)}"))


def step_product(d: Draft):
    """Products of the matrices of a step with each other, with weights and with vectors."""
    axes = d.pick(("t",), ("t",), ("t", "j"), ("t", "l"))
    m, n = (d.matrix("h", "h", axes, exact=True) for _ in range(2))
    v, w = d.vector("h", axes), d.parameter(("h", "h"), declare=True)
    forms = {
        "two of a step": f"tanh({m} @ {n})", "transposes of a step": f"tanh({m}.T @ {n}.T)",
        "diag of a step": f"diag(tanh({v})) @ {m}", "diagonal of a step": f"outer(diagonal({m}), {v})",
        "outer of a step's matrices": f"tanh(outer({m}, {n}))", "a weight between": f"tanh({m} @ {w} @ {n})",
        "a square of a step": f"tanh({m} @ {m})", "a symmetric one of a step": f"tanh({m} @ {m}.T)",
    }
    kind = d.pick(*forms)
    d.mark(f"product: {kind}")
    made = d.value("M", axes, ("h", "h"), forms[kind])
    d.value("y", axes, ("h",), d.pick(f"tanh({d.at(made)} @ {v})", f"tanh({d.at(made)}.T @ {v})"))


def layers_of_weights(d: Draft):
    """Weights by an index of their own, multiplied and summed over it."""
    w = d.value("G", ("l",), ("h", "h"), d.pick(
        lambda: f"tanh({d.parameter(('h', 'h'), ('l',), declare=True)})",
        lambda: f"{d.parameter(('h', 'r'), ('l',), declare=True)} @ {d.parameter(('r', 'h'), declare=True)}",
        lambda: f"outer({d.parameter(('h',), ('l',), declare=True)}, {d.parameter(('h',), declare=True)})")())
    v = d.vector("h", ("t",), exact=True)
    d.value("y", ("t",), ("h",), d.pick(f"tanh(sum_l({d.at(w)} @ {v}))", f"mean_l(tanh({d.at(w)} @ {v}))",
                                        f"max_l(tanh({d.at(w)} @ {v}))"))


# --- reductions over an index ----------------------------------------------------------------------------------------


def reduction(d: Draft):
    """A reduction over one index of a number, a vector or a matrix: dropped, kept, or read again at each position."""
    i, kind, dims = d.pick("t", "j", "l"), d.pick(*REDUCTIONS), d.pick((), ("h",), ("h", "h"))
    others = d.pick((), (), ("j",) if i == "t" else ("t",))
    axes = tuple(a for a in ("t", "j", "l") if a in (i, *others))
    grows = kind in ("cumsum", "sum")
    made = f"{kind}_{i}({'0.3 * ' if grows else ''}{d.operand(dims, axes, exact=True)})"
    made = f"sin({made})" if grows else made
    rest = tuple(a for a in axes if a != i)
    how = "kept" if kind in ("softmax", "cumsum") else d.pick("dropped", "spread", "inside")
    d.mark(f"{kind}_{i} of {('numbers', 'vectors', 'matrices')[len(dims)]}", f"{kind}_{i} {how}")
    if how in ("kept", "spread"):
        d.value("y", axes, dims, d.pick(made, f"{made} * {d.operand(dims, axes)}", f"{d.operand(dims, axes)} - {made}"))
    elif how == "dropped":
        d.value("m", rest, dims, made)
    else:  # dropped, then used where the index runs again
        m = d.value("m", rest, dims, made)
        d.value("y", axes, dims, f"tanh({d.at(m)} + {d.operand(dims, axes, exact=True)})")


def reductions(d: Draft):
    """A few of them."""
    for _ in range(int(d.rng.integers(1, 4))):
        reduction(d)


def nested_reduction(d: Draft):
    """A reduction of a reduction, over two indices and over components."""
    g = d.source(("t", "j"), d.pick((), ("h",))) if d.chance(0.5) else None
    found = [n for n in d.pool if {"t", "j"} <= set(d.names[n].axes) and "l" not in d.names[n].axes]
    name = g or (d.recent(found) if found else d.source(("t", "j")))
    dims, e = d.names[name].dims, d.at(name)
    if d.chance(0.4) and len(dims) == 1:
        e, dims = f"{d.pick('sum', 'mean', 'logsumexp', 'max')}({d.pick('softmax', 'tanh', 'cumsum')}({e}))", ()
    a, b = d.pick(("t", "j"), ("j", "t"))
    outer, inner = d.pick("sum", "mean", "max", "logsumexp"), d.pick("sum", "mean", "max", "logsumexp")
    d.mark(f"nested: {outer}_{a} of {inner}_{b}")
    if d.chance(0.3):
        d.value("m", (), dims, f"sin({outer}_{a}({inner}_{b}(0.3 * {e})))")
    elif d.chance(0.5):
        d.value("y", (a,), dims, f"{inner}_{b}({e} * softmax_{b}({e}))")
        d.mark("a reduction of a softmax over the same index")
    else:
        d.value("y", ("t", "j"), dims, f"tanh({e} - {outer}_{a}({inner}_{b}(0.5 * {e})))")


def attention(d: Draft):
    """Annotations over a second index, or over time itself, read through a softmax of energies."""
    i = d.pick("j", "j", "t")
    if i == "j":
        an = d.value("an", ("j",), ("h",), f"tanh({d.vector('h', ('j',), exact=True)})")
        b, v = d.parameter(("h",)), d.vector("h", ("t",), exact=True)
        e = d.value("en", ("t", "j"), (), f"sum({b} * tanh({d.at(an)} + {v}))")
        if d.chance(0.5):
            al = d.value("al", ("t", "j"), (), f"softmax_j({d.at(e)})")
            d.value("y", ("t",), ("h",), f"sum_j({d.at(al)} * {d.at(an)})")
        else:
            d.value("y", ("t",), ("h",), f"sum_j(softmax_j({d.at(e)}) * {d.at(an)})")
    else:  # pooling over time
        v = d.value("an", ("t",), ("h",), f"tanh({d.vector('h', ('t',), exact=True)})")
        al = d.value("al", ("t",), (), f"softmax_t(sum({d.parameter(('h',))} * {d.at(v)}))")
        d.value("m", (), ("h",), f"sum_t({d.at(al)} * {d.at(v)})")
    d.mark(f"attention over {i}")


def over_the_batch(d: Draft):
    """What the examples share: a sum or a mean over the batch."""
    kind, v = d.pick("sum", "mean"), d.vector("h", ("t",), exact=True)
    d.mark(f"{kind}_batch")
    m = d.value("m", ("t",), ("h",), f"{kind}_batch(0.3 * {v})")
    d.value("y", ("t",), ("h",), f"tanh({v} - {d.at(m)})")


# --- functions -------------------------------------------------------------------------------------------------------

POINTWISE = {
    "exp": "exp(tanh({}))", "log": "log(1.6 + ({})**2)", "sqrt": "sqrt(0.3 + ({})**2)", "sin": "sin({})",
    "cos": "cos({})", "tanh": "tanh({})", "sech": "sech({})", "sigmoid": "sigmoid({})", "softplus": "softplus({})",
    "abs": "abs({})", "sign": "0.5 * sign({})", "floor": "0.5 * floor({})", "mod": "mod(0.7 * {}, 1.3 + abs({}))",
    "maximum": "maximum({}, {})", "minimum": "minimum({}, 0.2)", "where": "where({} > 0.1, {}, {})",
    "stop_gradient": "0.5 * stop_gradient({}) + {}", "relu": "relu({})", "leaky_relu": "leaky_relu({})",
    "elu": "elu({})", "silu": "silu({})", "gelu": "gelu({})", "hard_sigmoid": "hard_sigmoid({})",
    "a power": "({})**3 / (1 + ({})**2)", "a negative power": "(1.2 + ({})**2)**-1",
    "a broken power": "(1.1 + ({})**2)**0.5", "a quotient": "({}) / (1.5 + ({})**2)", "%": "({} + 3) % 2.3",
    "a square": "0.5 * ({})**2", "minus": "-{}", "log of a sigmoid": "0.5 * log(sigmoid({}))",
    "conditions": "where(({} < 0.3) * ({} >= -0.4), {}, 0)", "<=": "where({} <= {}, {}, 0.3)", "!=": "({} != 0) * {}",
    "a condition as a number": "({} > 0) * {}", "of a literal": "{} + tanh(0.5)", "minus literal": "{} - 1.5 + 0.5",
}
OF_VECTORS = {
    "softmax": "softmax({})", "layer_norm": "0.4 * layer_norm({})", "cumsum": "tanh(cumsum({}))",
    "like": "like(mean({}), {})", "mean": "{} - like(mean({}), {})", "max": "{} * max({})",
    "logsumexp": "{} - like(logsumexp({}), {})", "mse": "{} * exp(-mse({}, {}))", "outer": "outer({}, {}) @ {}",
    "diag": "diag({}) @ {}", "bce": "{} * (0.2 * bce({}, sigmoid({})))",
}


def pointwise(d: Draft):
    """A function of each component."""
    axes, dims = scope(d), d.pick(("h",), ("h",), ("x",), (), ("h", "h"))
    for _ in range(int(d.rng.integers(1, 3))):
        kind = d.pick(*POINTWISE)
        form = POINTWISE[kind]
        d.mark(f"function: {kind}")
        d.value("p", axes, dims, form.format(*(f"({d.operand(dims, axes)})" if k else f"({d.operand(dims, axes, True)})"
                                               for k in range(form.count("{}")))))


def of_vectors(d: Draft):
    """A function of the components of a vector."""
    axes = scope(d)
    kind = d.pick(*OF_VECTORS)
    form = OF_VECTORS[kind]
    d.mark(f"function: {kind} of components")
    v = f"({d.vector('h', axes, exact=True)})"
    d.value("p", axes, ("h",), form.format(*(v if k < 2 or d.chance(0.5) else f"({d.vector('h', axes)})"
                                             for k in range(form.count("{}")))))


def parts(d: Draft):
    """What is concatenated, split and sliced."""
    axes = d.pick(("t",), ("t",), ("t", "j"), ())
    a, b = d.vector("h", axes), d.vector("x", axes, exact=bool(axes))
    kind = d.pick("concat", "split", "slice", "concat of three", "concat is named", "recurrent concat")
    d.mark(f"parts: {kind}")
    if kind == "concat":
        d.value("y", axes, ("h",), d.squash(f"{d.parameter(('h', ('h', 'x')))} @ concat({a}, {b})"))
    elif kind == "concat of three":
        w = d.parameter(("h", ("h", "x", "h")))
        d.value("y", axes, ("h",), d.squash(f"{w} @ concat({a}, {b}, {d.vector('h', axes)})"))
    elif kind == "concat is named":
        v = d.value("cat", axes, (("h", "x"),), f"concat({a}, tanh({b}))", pool=False)
        d.value("y", axes, ("h",), d.squash(f"{d.parameter(('h', ('h', 'x')))} @ {d.at(v)}"))
    elif kind == "recurrent concat":
        h, x = d.new("h", ("t",), ("h",)), d.at(d.source(("t",)))
        size = d.names[x.split("[")[0]].dims[0]
        d.define(h, d.squash(f"{d.parameter(('h', ('h', size)))} @ concat({d.at(h, t=d.pick(-1, 1))}, {x})"))
    elif kind == "split":
        v = d.value("cat", axes, (("h", "x"),), f"concat({a}, tanh({b}))", pool=False)
        d.value("y", axes, ("h",), f"tanh(split({d.at(v)}, {a}, {b}, 1))")
        d.value("y", axes, ("x",), f"split({d.at(v)}, {a}, {b}, 2)")
    else:
        start = int(d.rng.integers(0, 2))
        d.least["h"] = max(d.least.get("h", 1), start + 2)
        d.value("y", axes, ("h",), d.squash(f"{d.parameter(('h', 2))} @ slice({a}, {start}, {start + 2})"))


def functions(d: Draft):
    """Functions of the text's own, called in each other."""
    if not d.functions:
        d.functions += ["own(a, b) = a * sigmoid(b) - 0.2 * b", "twice(v) = own(own(v, v), tanh(v))"]
    axes = scope(d)
    v = d.vector("h", axes, exact=True)
    d.value("y", axes, ("h",), d.pick(f"twice({v})", f"own({v}, {d.vector('h', axes)})", f"tanh(own(twice({v}), {v}))"))


CALLEES = {  # text, what it is given, its states in order, its weights
    "layer": ("h[t] = tanh(W @ x[t] + U @ h[t-1] + b)", ("h",), {"W": ("h", "x"), "U": ("h", "h"), "b": ("h",)}),
    "cell": ("c[t] = sigmoid(F @ x[t]) * c[t-1] + tanh(G @ x[t] + R @ h[t-1])\nh[t] = tanh(c[t]) * sigmoid(O @ x[t])",
             ("h", "c"), {"F": ("h", "x"), "G": ("h", "x"), "R": ("h", "h"), "O": ("h", "x")}),
    "forward": ("y[t] = tanh(V @ x[t] + d)", (), {"V": ("h", "x"), "d": ("h",)}),
    "far": ("h[t] = tanh(W @ x[t] + p * h[t-2])", (), {"W": ("h", "x"), "p": ("h",)}),
}


def calls(d: Draft):
    """A cell called in a cell, along the sequence or against it, with weights of its own or shared ones."""
    key = d.pick(*CALLEES)
    text, states, weights = CALLEES[key]
    d.cells[key] = text
    v = d.at(d.recent(d.readable(None, ("t",), exact=True) or [d.source(("t",))]))
    size = d.names[v.split("[")[0]].dims[0]
    way = d.pick(-1, -1, 1)
    if not states or d.chance(0.4):
        left, states, passed = [d.new("q", ("t",), ("h",))], (), ""
    else:
        left = [d.new("q", ("t",), ("h",)) for _ in states]
        passed = "".join(f", {s}={d.at(n, t=way)}" for s, n in zip(states, left))
        d.mark("a call backward" if way > 0 else "a call with its state")
    for w, dims in weights.items():
        dims = tuple(size if n == "x" else n for n in dims)
        if d.chance(0.15):
            passed += f", {w}={d.parameter(dims, declare=True)}"
            d.mark("a call with a shared weight")
        else:
            d.names[f"{left[0]}_{w}"] = Name((), dims, "parameter", True)
    d.lines.append(f"{', '.join(map(d.at, left))} = {key}(x={v}{passed})")
    d.pool += left
    d.mark(f"a call of {key}")


def own_position(d: Draft):
    """The index and its extent as numbers, in conditions and in arithmetic."""
    i = d.pick("t", "t", "j", "l")
    axes = tuple(a for a in ("t", "j", "l") if a == i or (a == "t" and d.chance(0.5)))
    n, v = i.upper(), d.vector("h", axes, exact=True)
    forms = {"index over extent": f"({i} / {n}) * {v}", "where by parity": f"where({i} % 2 == 0, {v}, 0.3)",
             "where by the end": f"where({i} == {n}, {v}, 0.1 * {v})", "where from": f"where({i} > 2, {v}, 0)",
             "where until": f"where({i} <= {n} - 2, {v}, -{v})", "an extent": f"{v} / {n}",
             "an index under a function": f"sin(0.3 * {i}) * {v}"}
    kind = d.pick(*forms)
    d.mark(f"position: {kind}", f"position: {i}")
    d.value("y", axes, ("h",), forms[kind])


def classes(d: Draft):
    """Classes: embedded, also at the step before, and as targets."""
    axes = d.pick(("t",), ("t",), ("t",), (), ("j",), ("t", "j"))
    k = d.given(axes, ("c",), "class")
    kind = d.pick("onehot", "onehot at another step", "cross_entropy", "cross_entropy") if axes else d.pick(
        "onehot", "cross_entropy")
    d.mark(f"class: {kind}", f"class over {','.join(axes) or 'nothing'}")
    if kind == "cross_entropy":
        v = d.vector("h", axes, exact=bool(axes))
        d.value("ce", axes, (), f"cross_entropy({d.parameter(('c', 'h'))} @ {v}, {d.at(k)})")
        return
    moved = d.at(k, **({d.pick(*axes): d.pick(-1, 1)} if kind == "onehot at another step" else {}))
    d.value("y", axes, ("h",), d.squash(f"{d.parameter(('h', 'c'))} @ onehot({moved})"))


def noise(d: Draft):
    """Noise that is given, and dropout."""
    if d.chance(0.5):
        e = d.given(d.pick(("t",), ()), ("h",), "noise")
        axes = d.names[e].axes or ("t",)
        d.value("y", axes, ("h",), f"{d.vector('h', axes, exact=True)} + 0.3 * {d.at(e)}")
        d.mark("noise")
    else:
        keep = d.given(("t",), ("h",), "bernoulli")
        d.value("y", ("t",), ("h",), f"dropout({d.vector('h', ('t',), exact=True)}, {d.at(keep)}, 0.7)")
        d.mark("dropout")


def constants(d: Draft):
    """Constants that are given and have no gradient."""
    n = d.at(d.given((), ("h",), "const"))
    v = d.vector("h", ("t",), exact=True)
    d.value("y", ("t",), ("h",), d.pick(f"where(t % {n} == 0, {v}, 0.5 * {v})", f"{v} / {n}", f"sin({n}) * {v}"))


def static(d: Draft):
    """What each example has once: an input without an index, and what is computed from it."""
    z = d.given((), (d.pick("h", "x"),))
    y = d.value("y", (), ("h",), f"tanh({d.parameter(('h', d.names[z].dims[0]))} @ {d.at(z)})")
    d.value("y", ("t",), ("h",), f"tanh({d.at(y)} * {d.vector('h', ('t',), exact=True)})")


def shared_values(d: Draft):
    """What weights alone make."""
    a, b = d.parameter(("h",), declare=True), d.parameter(("h",), declare=True)
    forms = {"a softmax of weights": f"softmax({a})", "a norm of weights": f"{a} / sqrt(0.1 + sum({a}**2))",
             "a difference of weights": f"tanh({a} - {b})", "a number of weights": f"like(sum({a} * {b}), {a})",
             "exp of weights": f"exp(-softplus({a}))", "a sum of a cumsum of weights": f"{b} * sum(cumsum({a}))"}
    kind = d.pick(*forms)
    d.mark(f"shared: {kind}")
    d.value("v", (), ("h",), forms[kind])


def apart(d: Draft):
    """An output that has nothing to do with the rest: whole parameters do not reach the others."""
    x = d.source(d.pick(("t",), ("t",), ("j",)))
    of = d.names[x]
    d.value("g", of.axes, ("h",), f"sigmoid({d.parameter(('h', of.dims[0]))} @ {d.at(x)})", pool=d.chance(0.3))


def means(d: Draft):
    """Two means or sums of components side by side, which are not pointwise."""
    f = d.pick("mean", "sum", "max", "logsumexp")
    p, q = (d.value("n", ("t",), (), f"{f}({d.parameter(('h', d.names[x].dims[0]))} @ {d.at(x)})")
            for x in (d.source(("t",)), d.source(("t",))))
    h = d.new("h", ("t",), ("h",))
    d.define(h, f"tanh({d.parameter(('h',))} * {d.at(h, t=-1)} + {d.at(p)} * {d.parameter(('h',))} + "
                f"{d.at(q)} * {d.vector('h', ('t',))})")


def long_sum(d: Draft):
    """Many terms, and terms that stand in it twice."""
    v = [d.vector("h", ("t",)) for _ in range(5)]
    d.value("y", ("t",), ("h",), f"tanh({v[0]} + {v[1]} - {v[2]} + 0.5 * ({v[3]} - {v[4]}) + {v[0]} - "
                                 f"({v[1]} + {d.parameter(('h',))}))")


FEATURES = {
    "a layer": (layer, 5), "gates": (gated, 3), "a state of numbers": (number_state, 2), "a far state": (far_state, 4),
    "a grid": (grid, 5), "a stack of layers": (stack, 5),
    "carries that pass on": (lambda d: carries(d, "pass on"), 3),
    "carries that exchange": (lambda d: carries(d, "exchange"), 3),
    "carries that rotate": (lambda d: carries(d, "rotate"), 3),
    "a shift register": (lambda d: carries(d, "shift"), 3),
    "a matrix state": (matrix_state, 4), "a far read": (far_read, 6), "a mixed read": (mixed_read, 5),
    "a read of an end": (end_read, 4), "inputs at other steps": (delayed_input, 3),
    "a product of weights": (shared_product, 8), "a product of a step's matrices": (step_product, 4),
    "layers of weights": (layers_of_weights, 2), "a reduction over an index": (reductions, 9),
    "nested reductions": (nested_reduction, 4), "attention": (attention, 3), "sums over the batch": (over_the_batch, 2),
    "pointwise functions": (pointwise, 9), "functions of components": (of_vectors, 5), "parts": (parts, 5),
    "functions of the text": (functions, 2), "calls": (calls, 4), "positions as numbers": (own_position, 4),
    "classes": (classes, 4), "noise and dropout": (noise, 2), "constants": (constants, 2),
    "static inputs": (static, 2), "values of weights": (shared_values, 3), "an output apart": (apart, 3),
    "means side by side": (means, 2), "a long sum": (long_sum, 1),
}
