"""The notation said a second time: docs/notation.md as an evaluator in PyTorch that shares no line with the library.

A value is asked for at a position of an example, `h` at t = 5 of the third, and answered by evaluating the right side
of its equation there, which asks for others. There is no graph, no order of loops and no rule of differentiation: torch
differentiates. Inputs and results are laid out as the library lays them out: indices, batch, components. `batch` says
how many examples there are, None where arrays have no axis for them.
"""

import ast
import re
import sys
import threading
from itertools import product

import numpy as np
import torch
from oracle_notation import REDUCTION, Text, index_of, names, shift, subscript
from torch.nn import functional as F

NUMBER = "number"  # the shape of a literal, an index or an extent: it fits anywhere
INPUTS = "the inputs"  # what shows the number of examples

# ---- the meaning of the functions ----


def where(condition, a, b):
    return torch.where(condition != 0, a, b)


def mod(a, b):
    return a - b * torch.round((a - torch.remainder(a, b)) / b).detach()


def softplus(v):
    return torch.logaddexp(v, torch.zeros_like(v))


def softmax(v):
    return torch.softmax(v.flatten(), 0).reshape(v.shape)


def cross_entropy(y, k):
    others = torch.cat([y[:k], y[k + 1 :]]) - y[k]
    return softplus(torch.logsumexp(others, 0)) if len(others) else 0 * y.sum()


def bce(a, p):
    return (p * softplus(-a) + (1 - p) * softplus(a)).sum()


def outer(a, b):
    return torch.outer(a, b) if a.ndim == 1 else a @ b.T


def split(g, *rest):
    *parts, which = rest
    sizes = [p.numel() for p in parts]
    return torch.split(g, sizes)[int(which) - 1]


def layer_norm(v, gain=None, bias=None):
    centred = v - v.mean()
    unit = centred / torch.sqrt((centred**2).mean() + 1e-5)
    return unit if gain is None else gain * unit + bias


POINTWISE = {
    "exp": torch.exp,
    "log": torch.log,
    "sqrt": torch.sqrt,
    "sin": torch.sin,
    "cos": torch.cos,
    "tanh": torch.tanh,
    "sech": lambda v: 2 * torch.exp(-torch.abs(v)) / (1 + torch.exp(-2 * torch.abs(v))),
    "sigmoid": torch.sigmoid,
    "softplus": softplus,
    "abs": torch.abs,
    "sign": torch.sign,
    "floor": torch.floor,
    "mod": mod,
    "maximum": lambda a, b: where(a >= b, a, b),
    "minimum": lambda a, b: where(a <= b, a, b),
    "where": where,
    "stop_gradient": torch.Tensor.detach,
    "relu": lambda v: where(v > 0, v, torch.zeros_like(v)),
    "leaky_relu": lambda v, slope=0.01: where(v > 0, v, slope * v),
    "elu": lambda v: where(v > 0, v, torch.exp(v) - 1),
    "silu": lambda v: v * torch.sigmoid(v),
    "gelu": lambda v: F.gelu(v, approximate="tanh"),
    "hard_sigmoid": lambda v: torch.clamp(0.2 * v + 0.5, 0, 1),
    "dropout": lambda v, keep, rate: v * keep / rate,
    "softmax": softmax,
    "cumsum": lambda v: torch.cumsum(v, 0),
    "layer_norm": layer_norm,
}
TO_NUMBER = {
    "sum": torch.sum,
    "mean": torch.mean,
    "max": lambda v: v.flatten().max(0).values,
    "logsumexp": lambda v: torch.logsumexp(v.flatten(), 0),
    "mse": lambda a, b: ((a - b) ** 2).sum(),
    "bce": bce,
}
OTHERS = {
    "concat": lambda *vs: torch.cat([v.reshape(-1) for v in vs]),
    "split": split,
    "slice": lambda v, a, b: v[int(a) : int(b)],
    "outer": outer,
    "diag": torch.diag,
    "diagonal": torch.diagonal,
    "like": lambda a, b: a.expand(b.shape),
}
FUNCTIONS = POINTWISE | TO_NUMBER | OTHERS
OPERATORS = {
    ast.Add: lambda a, b: a + b,
    ast.Sub: lambda a, b: a - b,
    ast.Mult: lambda a, b: a * b,
    ast.Div: lambda a, b: a / b,
    ast.Pow: lambda a, b: a**b,
    ast.Mod: lambda a, b: mod(a, b) if torch.is_tensor(a) or torch.is_tensor(b) else a % b,
    ast.MatMult: lambda a, b: a @ b,
    ast.Eq: lambda a, b: a == b,
    ast.NotEq: lambda a, b: a != b,
    ast.Lt: lambda a, b: a < b,
    ast.LtE: lambda a, b: a <= b,
    ast.Gt: lambda a, b: a > b,
    ast.GtE: lambda a, b: a >= b,
}
REDUCE = {
    "sum": lambda e, at: e.sum(0),
    "mean": lambda e, at: e.mean(0),
    "max": lambda e, at: e.max(0).values if len(e) else e.sum(0) - torch.inf,
    "logsumexp": lambda e, at: torch.logsumexp(e, 0),
    "softmax": lambda e, at: torch.softmax(e, 0)[at - 1],
    "cumsum": lambda e, at: e[:at].sum(0),
}


class Oracle(Text):
    """The equations of a text, and their values."""

    def gradient(self, params, loss=None, cotangents=None, dtype=torch.float64, **given):
        """(value, gradients, values) of a loss summed over the batch, or of cotangents' inner product with outputs.

        Gradients are by name and by position for what lies outside ("h[0]", "h[-1]", "x[T+1]"); `sizes` of them holds
        the sum of the absolute contributions. values: every equation's, zero where an example has no such position."""
        return deeply(lambda: Run(self, params, dtype, **given).gradient(loss, cotangents))


def deeply(work):
    """What recursion as deep as a sequence is long gives, in a thread with the stack for it."""
    out = []

    def target():
        try:
            out.append(work())
        except BaseException as e:  # handed to the caller
            out.append(e)

    before = sys.getrecursionlimit(), threading.stack_size(512 * 2**20)
    sys.setrecursionlimit(10**6)
    try:
        thread = threading.Thread(target=target)
        thread.start()
        thread.join()
    finally:
        sys.setrecursionlimit(before[0])
        threading.stack_size(before[1])
    if isinstance(out[0], BaseException):
        raise out[0]
    return out[0]


class Run:
    """One evaluation: examples by number, values by example, name and position."""

    def __init__(self, oracle, params, dtype, initial=None, lengths=None, steps=None, batch=INPUTS, **inputs):
        self.oracle, self.dtype, self.offset = oracle, dtype, (initial or {}).get("t", 0)
        alone = oracle.axes | oracle.names  # sizes that no array shows travel with the parameters
        self.params = {n: self.tensor(v) for n, v in params.items() if n not in alone}
        self.known = {n: (int(params[n]),) for n in oracle.names if n in params}
        self.inputs = {n: np.asarray(v) for n, v in inputs.items()}
        self.initial = {n: np.asarray(v) for n, v in (initial or {}).items() if n != "t"}
        self.equations = {}
        for name, slots, right in oracle.equations:
            self.equations.setdefault(name, []).append((slots, right))
        self.classes = {n for n, v in self.inputs.items() if v.dtype.kind in "iu" and self.is_class(n)}
        for name, lines in self.equations.items():
            if len(lines) == 1 and isinstance(lines[0][1], ast.Subscript) and subscript(lines[0][1])[0] in self.classes:
                self.classes.add(name)  # a class handed to a call
        extents = {i: int(params[i]) for i in oracle.axes if i in params}
        for name, array in (self.params | self.inputs).items():
            extents |= {i: array.shape[n] for n, i in enumerate(oracle.slots.get(name, [])) if i}
        extents |= steps if isinstance(steps, dict) else {"t": steps} if steps else {}
        self.most = extents
        data = [i for i in extents if i not in oracle.axes]
        if lengths is not None and not isinstance(lengths, dict):
            lengths = dict.fromkeys(data, lengths)
        if batch == INPUTS:  # as many examples as the inputs have, and where there are none no axis for them
            sizes = {v.shape[len(oracle.slots.get(n, []))] for n, v in self.inputs.items()}
            batch = sizes.pop() if sizes else None
        self.batched, self.batch = batch is not None, 1 if batch is None else batch
        self.lengths = {i: np.full(self.batch, extents[i]) for i in data} | {
            i: np.asarray(v) for i, v in (lengths or {}).items()
        }
        self.per_example = self.varying()
        self.memo, self.uses = {}, {}
        self.wanted = [n for n in (*self.params, *self.inputs) if self.differentiable(n)]
        self.shape = self.shapes()

    def tensor(self, value):
        return torch.as_tensor(np.asarray(value), dtype=self.dtype)

    def extent(self, index, b):
        return int(self.lengths[index][b]) if index in self.lengths else self.most[index]

    def is_class(self, name):
        """Whether a name stands where a class is wanted."""
        for n in (n for _, _, right in self.oracle.equations for n in ast.walk(right) if isinstance(n, ast.Call)):
            if n.func.id in ("onehot", "cross_entropy") and subscript(n.args[-1])[0] == name:
                return True
        return self.oracle.declared.get(name) == "input" or any(
            isinstance(right, ast.Subscript) and subscript(right)[0] == name and Run.is_class(self, target)
            for target, _, right in self.oracle.equations
        )

    def varying(self):
        """The names that have a value for each example: all but those computed from parameters alone."""
        found = set(self.inputs)
        while True:
            more = {n for n, slots, right in self.oracle.equations if self.varies(right, found) or self.at_data(slots)}
            if more <= found:
                return found
            found |= more

    def at_data(self, slots):
        return any((index_of(s) or "").lower() in self.lengths for s in slots)

    def varies(self, node, found):
        if isinstance(node, ast.Call) and node.func.id.endswith("_batch"):
            return False
        if isinstance(node, ast.Name):
            return node.id in found or (node.id.lower() in self.lengths and node.id not in self.equations)
        if isinstance(node, ast.Call) and REDUCTION.match(node.func.id) and node.func.id.split("_")[-1] in self.lengths:
            return True
        return any(self.varies(n, found) for n in ast.iter_child_nodes(node))

    # ---- shapes: a zero outside must know its own ----

    def shapes(self):
        """Name -> shape at a position, from both sides of every equation, until nothing new is learnt."""
        slots = self.oracle.slots
        self.known |= {n: tuple(v.shape[len(slots.get(n, [])) :]) for n, v in self.params.items()}
        self.known |= {n: v.shape[len(slots.get(n, [])) + self.batched :] for n, v in self.inputs.items()}
        for self.guess in (False, True):
            before = None
            while before != self.known:
                before = dict(self.known)
                for name, lines in self.equations.items():
                    for _, right in lines:
                        found = self.learn(right, self.known.get(name))
                        if found not in (None, NUMBER) and name not in self.known:
                            self.known[name] = found
        return self.known

    def learn(self, node, want=None):
        """The shape of an expression, None while unknown; what is wanted of it tells of its parts."""
        if isinstance(node, ast.Constant):
            return NUMBER
        if isinstance(node, (ast.Name, ast.Subscript)):
            name = subscript(node)[0]
            if isinstance(node, ast.Name) and self.is_number(name):
                return NUMBER
            if name not in self.known and want not in (None, NUMBER):
                self.known[name] = want
            return self.known.get(name)
        if isinstance(node, ast.Attribute):
            found = self.learn(node.value, want and want[::-1])
            return found and found[::-1]
        if isinstance(node, ast.UnaryOp):
            return self.learn(node.operand, want)
        if isinstance(node, ast.Compare):
            return self.alike([node.left, *node.comparators], None)
        if isinstance(node, ast.BinOp):
            if isinstance(node.op, ast.MatMult):
                return self.product(node, want)
            if isinstance(node.op, (ast.Mult, ast.Div)):
                return self.factors(node.left, node.right, want)
            return self.alike([node.left] if isinstance(node.op, ast.Pow) else [node.left, node.right], want)
        return self.call_shape(node, node.func.id, want)

    def alike(self, nodes, want):
        found = [self.learn(n, want) for n in nodes]
        known = [s for s in found if s not in (None, NUMBER)]
        if known:
            for n in nodes:
                self.learn(n, known[0])
            return known[0]
        return None if None in found else NUMBER

    def factors(self, left, right, want):
        a, b = self.learn(left), self.learn(right)
        if None not in (a, b):
            return max((a, b), key=lambda s: -1 if s == NUMBER else len(s))
        open_, other = (left, b) if a is None else (right, a)
        if other in (NUMBER, ()):
            return self.learn(open_, want)
        if other and self.guess:
            self.learn(open_, other)
        return other or want

    def product(self, node, want):
        a, b = self.learn(node.left), self.learn(node.right)
        if a and b is None:
            if want and len(want) == 2:
                b = self.learn(node.right, (a[1], want[1]))
            elif want or self.guess or getattr(getattr(node.right, "func", None), "id", None) == "onehot":
                b = self.learn(node.right, (a[1],))
        elif b and a is None and want:
            a = self.learn(node.left, (want[0], b[0]))
        return (a[0], *b[1:]) if a and b else want

    def call_shape(self, node, name, want):
        args = node.args
        if REDUCTION.match(name) and name not in FUNCTIONS:
            return self.learn(args[0], want)
        if name == "onehot":
            key = "#" + subscript(args[0])[0]
            if want:
                self.known[key] = want
            return self.known.get(key)
        if name == "cross_entropy":
            key = "#" + subscript(args[1])[0]
            found = self.learn(args[0], self.known.get(key))
            if found:
                self.known[key] = found
            return ()
        if name == "where":
            found = self.alike(args[1:], want)
            condition = self.learn(args[0])
            return found if found != NUMBER else condition
        if name == "like":
            self.learn(args[0])
            return self.learn(args[1], want)
        if name == "dropout":
            return self.alike(args[:2], want)
        if name == "outer" and want and not any(self.learn(a) and len(self.learn(a)) == 2 for a in args):
            return tuple((self.learn(a, (n,)) or (n,))[0] for a, n in zip(args, want, strict=True))
        if name in TO_NUMBER:
            self.alike(args, None)
            return ()
        if name in POINTWISE:
            return self.alike(args, want)
        found = [self.learn(a) for a in args]
        if name == "concat" and want and found.count(None) == 1:
            rest = want[0] - sum(s[0] for s in found if s)
            found = [self.learn(a, (rest,)) if s is None else s for a, s in zip(args, found, strict=True)]
        if name == "slice":
            return (args[2].value - args[1].value,)
        if name == "split":
            return found[args[-1].value]
        if None in found:
            return None
        return tuple(self.function(name)(*[torch.ones(() if s == NUMBER else s) for s in found]).shape)

    # ---- values ----

    def is_number(self, name):
        index = name.lower()
        return index in self.oracle.indices and name not in self.equations and name not in self.inputs

    def function(self, name):
        return self.oracle.primitives.get(name) or FUNCTIONS[name]

    def number(self, name, env):
        if name in env:
            return env[name] + (self.offset if name == "t" else 0)
        return self.extent(name.lower(), env["batch"])

    def position(self, slot, env):
        if isinstance(slot, ast.Constant):
            return slot.value
        name = index_of(slot)
        return (env[name] if name in env else self.extent(name.lower(), env["batch"])) + shift(slot)

    def value(self, name, places, b, moves=()):
        """v at a position: its equation there; what initial says or zero outside."""
        key = (b, name, places, self.outside(name, places, b, moves))
        if key not in self.memo:
            self.memo[key] = self.compute(*key)
        found = self.memo[key]
        if isinstance(found, torch.Tensor) and (key[-1] or name in self.wanted):
            found = found.clone()
            self.uses.setdefault(key, []).append(found)
        return found

    def compute(self, b, name, places, outside):
        indices = self.oracle.slots.get(name, [])
        if outside and (given := self.given(b, name, places, *outside)) is not None:
            return self.leaf(given)
        for slots, right in self.equations.get(name, []):
            env = {"batch": b}
            for slot, p, i in zip(slots, places, indices, strict=True):
                if isinstance(slot, ast.Name) and slot.id == i:
                    if not 1 <= p <= self.extent(i, b):
                        break
                    env[i] = p
                elif self.position(slot, {"batch": b}) != p:
                    break
            else:
                found = self.evaluate(right, env)
                if name in self.classes:
                    return found
                found = self.whole(found).expand(self.shape.get(name, ()))
                return found if found.requires_grad else self.leaf(found)  # a literal end has a gradient too
        if name in self.params:
            return self.leaf(self.params[name][tuple(p - 1 for p in places)])
        if self.out(indices, places, b):
            return None if name in self.classes else self.leaf(torch.zeros(self.shape[name], dtype=self.dtype))
        found = self.inputs[name][self.place(name, places, b)]
        return int(found) if name in self.classes else self.leaf(self.tensor(found))

    def leaf(self, value):
        return value.clone().requires_grad_()

    def out(self, indices, places, b):
        """Along which of its indices a position is outside."""
        along = enumerate(zip(places, indices, strict=True))
        return [n for n, (p, i) in along if i and not 1 <= p <= self.extent(i, b)]

    def outside(self, name, places, b, moves):
        """What a read meets outside, as it is written, along which index, and at which positions of the others.

        A read shifted along two indices goes by steps, the longer way first, and stops where it leaves: "y[-1,j-1]"."""
        indices = self.oracle.slots.get(name, [])
        if not (out := self.out(indices, places, b)):
            return None
        left = [0 for _ in places]
        if sum(map(bool, moves)) > 1:
            here, left = [p - m for p, m in zip(places, moves, strict=True)], list(moves)
            while not self.out(indices, here, b):
                step = [(m > 0) - (m < 0) if abs(m) == max(map(abs, left)) else 0 for m in left]
                here, left = ([x + k * y for x, y in zip(xs, step, strict=True)] for xs, k in ((here, 1), (left, -1)))
            out = self.out(indices, here, b)
        if len(out) > 1:
            return None
        words = [f"{i}{by:+d}" if by else i for i, by in zip(indices, left, strict=True)]
        over = places[out[0]] - self.extent(indices[out[0]], b)
        words[out[0]] = f"{indices[out[0]].upper()}+{over}" if over > 0 else str(places[out[0]])
        rest = tuple(p - by - 1 for n, (p, by) in enumerate(zip(places, left, strict=True)) if n != out[0])
        return f"{name}[{','.join(words)}]", out[0], rest

    def given(self, b, name, places, label, n, rest):
        just = places[n] in (0, self.extent(self.oracle.slots[name][n], b) + 1)
        for key in (label, name if just else None):
            if key in self.initial:
                return self.tensor(self.initial[key][(*rest, *[b] * self.has_batch(name))])
        return None

    def whole(self, value):
        return value if isinstance(value, torch.Tensor) else torch.tensor(float(value), dtype=self.dtype)

    def evaluate(self, node, env):
        if isinstance(node, ast.Constant):
            return node.value
        if isinstance(node, ast.Name):
            return self.number(node.id, env) if self.is_number(node.id) else self.value(node.id, (), env["batch"])
        if isinstance(node, ast.Subscript):
            name, slots = subscript(node)
            moves = [shift(s) if index_of(s) in env else 0 for s in slots]
            return self.value(name, tuple(self.position(s, env) for s in slots), env["batch"], moves)
        if isinstance(node, ast.Attribute):
            return self.evaluate(node.value, env).T
        if isinstance(node, ast.UnaryOp):
            found = self.evaluate(node.operand, env)
            return -found if isinstance(node.op, ast.USub) else found
        if isinstance(node, ast.Compare):
            left, right = self.evaluate(node.left, env), self.evaluate(node.comparators[0], env)
            return self.whole(OPERATORS[type(node.ops[0])](left, right)).to(self.dtype)
        if isinstance(node, ast.BinOp):
            return OPERATORS[type(node.op)](self.evaluate(node.left, env), self.evaluate(node.right, env))
        name = node.func.id
        if name == "onehot":
            k = self.evaluate(node.args[0], env)
            found = torch.zeros(self.shape["#" + subscript(node.args[0])[0]], dtype=self.dtype)
            return found if k is None else found.index_fill(0, torch.tensor(k), 1.0)
        if name == "cross_entropy":
            return cross_entropy(self.evaluate(node.args[0], env), self.evaluate(node.args[1], env))
        if (found := REDUCTION.match(name)) and name not in FUNCTIONS:
            kind, index = found.groups()
            return REDUCE[kind](self.items(node.args[0], index, env), env.get(index))
        return self.function(name)(*[self.whole(self.evaluate(a, env)) for a in node.args])

    def items(self, node, index, env):
        """What a reduction goes over, which is the same wherever the index that it binds stands."""
        key = (node, *((i, p) for i, p in env.items() if i != index and i in names(node) | {"batch"}))
        if key not in self.memo:
            run = range(1, self.extent(index, env["batch"]) + 1) if index != "batch" else self.there(node, env)
            if items := [self.whole(self.evaluate(node, env | {index: p})) for p in run]:
                self.memo[key] = torch.stack(torch.broadcast_tensors(*items))
            else:
                shape = self.learn(node)
                self.memo[key] = torch.zeros((0, *(() if shape in (None, NUMBER) else shape)), dtype=self.dtype)
        return self.memo[key]

    def there(self, node, env):
        """The examples that an expression has a value for at a step: all, where it does not speak of the step."""
        named = names(node) & set(self.lengths) & set(env)
        return [b for b in range(self.batch) if all(env[i] <= self.extent(i, b) for i in named)]

    # ---- what is asked for ----

    def positions(self, name, b):
        return product(*(range(1, self.extent(i, b) + 1) for i in self.oracle.slots.get(name, [])))

    def examples(self, name):
        return range(self.batch) if name in self.per_example else range(1)

    def place(self, name, places, b):
        where = tuple(p - 1 for p in places)
        return (*where, b) if self.has_batch(name) else where

    def has_batch(self, name):
        return self.batched and name in self.per_example

    def gradient(self, loss, cotangents):
        total = torch.zeros((), dtype=self.dtype)
        if cotangents is None:
            for b in self.examples(loss):
                total = total + self.whole(self.value(loss, (), b))
        else:
            for name, g in cotangents.items():
                for b in self.examples(name):
                    for p in self.positions(name, b):
                        total = total + (self.tensor(g[self.place(name, p, b)]) * self.value(name, p, b)).sum()
        uses = [(key, use) for key, found in self.uses.items() for use in found if use.requires_grad]
        grads = torch.autograd.grad(total, [u for _, u in uses], allow_unused=True) if total.requires_grad else []
        found, sizes = ({n: self.array(n) for n in self.wanted} for _ in "ab")
        for (key, _), g in zip(uses, grads, strict=bool(grads)):
            self.add(found, sizes, *key, g)
        values = {}
        for name in self.equations:
            if name not in self.classes:
                values[name] = self.array(name)
                for b in self.examples(name):
                    for p in self.positions(name, b):
                        values[name][self.place(name, p, b)] = self.value(name, p, b).detach().numpy()
        self.sizes = sizes
        return float(total.detach()), Gradients(found, sizes), values

    def differentiable(self, name):
        return name not in self.classes and not re.match("const|noise|bernoulli", self.oracle.declared.get(name, ""))

    def array(self, name, without=None):
        extents = [self.most[i] for n, i in enumerate(self.oracle.slots.get(name, [])) if n != without]
        batch = [self.batch] * self.has_batch(name)
        return np.zeros((*extents, *batch, *self.shape.get(name, ())))

    def add(self, found, sizes, b, name, places, outside, g):
        """A use's share of a gradient: of a parameter, of an input, or of what lies outside along a data index."""
        indices = self.oracle.slots.get(name, [])
        if outside and indices[outside[1]] in self.lengths:
            key, n, rest = outside
            where = (*rest, b) if self.has_batch(name) else rest
        elif not self.out(indices, places, b) and name in self.wanted:
            key, n, where = name, None, self.place(name, places, b)
        else:
            return
        for into, share in ((found, g), (sizes, None if g is None else g.abs())):
            if key not in into:
                into[key] = self.array(name, n)
            if share is not None:
                into[key][where] += share.numpy()


class Gradients(dict):
    """Gradients by name; `.sizes` has the sums of the absolute values of what was added up in each."""

    def __init__(self, found, sizes):
        super().__init__(found)
        self.sizes = sizes
