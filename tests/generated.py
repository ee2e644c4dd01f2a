"""Random well-formed systems over the whole notation: what nobody thought of listing.

Recurrent values are squashed and the domains of log, sqrt and division guarded, so that a random system is smooth where
it is evaluated; everything else is left to chance.
"""

from __future__ import annotations

import numpy as np

SQUASH = ("tanh", "sigmoid", "sin", "hard_sigmoid")
SMOOTH = ("tanh", "sigmoid", "softplus", "sin", "cos", "silu", "gelu", "elu", "relu", "leaky_relu", "abs", "cumsum",
          "softmax", "layer_norm")


class Generator:
    """One random text. Values are numbers "n", vectors of the hidden size "v" or of the input size "x"."""

    def __init__(self, seed: int):
        self.rng = np.random.default_rng(seed)
        self.count = 0
        self.declared: list[str] = []
        self.equations: list[str] = []
        self.known: dict[str, list[str]] = {"n": ["t / T", "0.5", "-0.3"], "v": [], "x": ["x[t]"]}

    def pick(self, *options):
        return options[self.rng.integers(len(options))]

    def chance(self, p: float) -> bool:
        return self.rng.random() < p

    def fresh(self, stem: str) -> str:
        self.count += 1
        return f"{stem}{self.count}"

    # --- expressions ---------------------------------------------------------------------------------------------

    def number(self, depth: int) -> str:
        if depth <= 0:
            if self.chance(0.2):
                name = self.fresh("q")
                self.declared.append(f"{name}: ()")
                return name
            return self.pick(*self.known["n"])
        a = self.vector(depth - 1)
        return self.pick(
            lambda: f"mean({a})", lambda: f"sum(({a}) * ({self.vector(depth - 1)}))", lambda: f"logsumexp({a})",
            lambda: f"tanh({self.number(depth - 1)})",
            lambda: f"({self.number(depth - 1)}) * ({self.number(depth - 1)})",
            lambda: f"sum(({a})**2) / (1.5 + ({self.number(depth - 1)})**2)", lambda: f"max({a})",
            lambda: f"where(t % 2 == 0, {self.number(depth - 1)}, {self.number(depth - 1)})",
            lambda: f"sqrt(0.3 + ({self.number(depth - 1)})**2)", lambda: f"mse({a}, {self.vector(depth - 1)})",
            lambda: f"minimum({self.number(depth - 1)}, {self.number(depth - 1)})",
        )()

    def vector(self, depth: int) -> str:
        if depth <= 0 or self.chance(0.1):
            return self.pick(*self.known["v"], self.affine())
        below = depth - 1
        return self.pick(
            lambda: f"{self.pick(*SMOOTH)}({self.vector(below)})", lambda: self.affine(),
            lambda: f"({self.vector(below)}) * ({self.vector(below)})",
            lambda: f"({self.vector(below)}) + ({self.vector(below)}) - {self.fresh('b')}",
            lambda: f"({self.number(below)}) * ({self.vector(below)})",
            lambda: f"({self.vector(below)}) / (1.4 + ({self.vector(below)})**2)",
            lambda: f"log(1.6 + ({self.vector(below)})**2)", lambda: f"exp(tanh({self.vector(below)}))",
            lambda: f"maximum({self.vector(below)}, {self.vector(below)})",
            lambda: f"where(({self.vector(below)}) > 0.1, {self.vector(below)}, {self.vector(below)})",
            lambda: f"where(t == T, {self.vector(below)}, 0.2)",
            lambda: f"like({self.number(below)}, {self.vector(below)})",
            lambda: f"outer({self.vector(below)}, {self.vector(below)}) @ ({self.vector(below)})",
            lambda: f"{self.fresh('W')} @ concat({self.vector(below)}, {self.pick(*self.known['x'])})",
            lambda: f"{self.fresh('W')}.T @ ({self.vector(below)})",
            lambda: f"own({self.vector(below)}, {self.vector(below)})",
            lambda: f"{self.fresh('W')} @ slice({self.vector(below)}, 0, 2)",
            lambda: f"{self.fresh('p')} * ({self.vector(below)})",
            lambda: f"{self.fresh('S')} @ stop_gradient({self.vector(below)})",
            lambda: f"-({self.vector(below)})",
            lambda: f"(0.7 - {self.fresh('b')} * ({self.vector(below)}))**2",
        )()

    def affine(self) -> str:
        terms = [f"{self.fresh('W')} @ {self.pick(*self.known['x'])}"]
        for v in self.known["v"]:
            if self.chance(0.5):
                terms.append(f"{self.fresh('U')} @ {v}" if self.chance(0.7) else f"{self.fresh('p')} * {v}")
        if self.chance(0.5):
            terms.append(self.fresh("b"))
        if "k" in self.known and self.chance(0.3):
            terms.append(f"{self.fresh('E')} @ onehot({self.pick('k[t-1]', 'k[t]')})")
        return " + ".join(terms)

    # --- equations -----------------------------------------------------------------------------------------------

    def sweep(self, shift: str, end: str, count: int, own_end: bool):
        """Recurrent vectors reading each other one step away, later ones also earlier ones at their own step."""
        states = [self.fresh("h") for _ in range(count)]
        before = list(self.known["v"])
        self.known["v"] = before + [f"{s}[{shift}]" for s in states]
        for s in states:
            body = f"{self.pick(*SQUASH)}({self.vector(2)})"
            if self.chance(0.4):
                body = f"0.6 * {s}[{shift}] + {body}"
            self.equations.append(f"{s}[t] = {body}")
            self.known["v"].append(f"{s}[t]")
        if own_end:
            self.equations.append(f"{states[0]}[{end}] = tanh({self.fresh('d')})")
        self.known["v"] = before + [f"{s}[t]" for s in states]

    def attention(self):
        """Annotations over a second data index, read through a softmax."""
        self.equations.append(f"an[j] = tanh({self.fresh('W')} @ src[j] + {self.fresh('U')} @ an[j-1])")
        query = self.pick(*self.known["v"])
        over = self.pick("softmax_j({})", "sigmoid({})", "cumsum_j(0.3 * {})")
        energy = f"sum({self.fresh('u')} * tanh({self.fresh('W')} @ {query} + {self.fresh('U')} @ an[j]))"
        self.equations.append(f"al[t,j] = {over.format(energy)}")
        reduce = self.pick("sum_j(al[t,j] * an[j])", "max_j(al[t,j] * an[j])", "logsumexp_j(al[t,j] * an[j])",
                           "mean_j(al[t,j] * an[j])")
        self.equations.append(f"ctx[t] = {reduce}")
        self.known["v"].append(f"({self.fresh('W')} @ ctx[t])")

    def stack(self):
        """Layers by an index of their own, tied or not."""
        self.declared.append("l: axis")
        w, u = self.pick("Wl[l]", "Wl"), self.pick("Ul[l]", "Ul")
        self.equations.append(f"st[t,0] = {self.fresh('W')} @ {self.pick(*self.known['v'])}")
        extra = self.pick("", " + bl[l]", " + 0.1 * l * st[t-1,l]")
        self.equations.append(f"st[t,l] = tanh({w} @ st[t,l-1] + {u} @ st[t-1,l]{extra} + Vl[l] * st[t-1,l])")
        self.known["v"].append(f"({self.fresh('W')} @ st[t,L])")

    def text(self) -> str:
        self.declared.append("own(a, b) = a * sigmoid(b) - 0.2 * b")
        if self.chance(0.4):
            self.known["k"] = ["k"]
        if self.chance(0.4):
            self.known["x"].append("x[t-1]")
        if self.chance(0.15):
            self.known["x"].append("x[t+1]")
        if self.chance(0.2):
            self.equations.append(f"sh = tanh({self.fresh('M')} - 0.3 * {self.fresh('M')})")
            self.equations.append(f"m[t] = sh @ x[t-1] + {self.fresh('b')}")
            self.known["v"].append("m[t]")
        self.sweep("t-1", "0", int(self.rng.integers(1, 4)), self.chance(0.3))
        if self.chance(0.3):
            self.sweep("t+1", "T+1", int(self.rng.integers(1, 3)), self.chance(0.3))
        if self.chance(0.25):
            self.stack()
        if self.chance(0.25):
            self.attention()
        if self.chance(0.2):
            self.known["v"].append(self.pick(*[v for v in self.known["v"] if v.startswith("h") and v.endswith("[t]")])
                                   .replace("[t]", "[t-2]"))
            self.equations.append(f"far[t] = {self.known['v'][-1]} * {self.fresh('p')}")
            self.known["v"].append("far[t]")
        if self.chance(0.3):
            self.sweep("t-1", "0", 1, self.chance(0.3))
        out = f"sum_t({self.number(2)})"
        if self.chance(0.3):
            state = self.pick(*[v for v in self.known["v"] if v.startswith("h") and v.endswith("[t]")])
            out += f" + sum({state.replace('[t]', '[T]')}**2)"
        if self.chance(0.2):
            out += f" + mean_t({self.number(1)}) * max_t({self.number(1)})"
        if "k" in self.known:
            out += f" + sum_t(cross_entropy({self.fresh('O')} @ ({self.vector(1)}), k[t]))"
        if self.chance(0.2):
            out += f" + sum_t(bce({self.fresh('O')} @ ({self.vector(1)}), sigmoid({self.vector(1)})))"
        self.equations.append(f"Loss = {out} + 0.01 * sum({self.fresh('R')}**2)")
        order = self.rng.permutation(len(self.equations)) if self.chance(0.5) else range(len(self.equations))
        body = "\n".join(self.equations[k] for k in order)
        return "\n".join([d for d in self.declared if d.split(":")[0] in body or "=" in d or "axis" in d] + [body])


def system(seed: int) -> str:
    """The text of random system number `seed`."""
    return Generator(seed).text()
