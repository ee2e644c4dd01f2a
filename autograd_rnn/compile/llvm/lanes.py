"""Vectors of numbers as LLVM instructions: arithmetic, the exponential family, loads and stores.

A primitive says in `Primitive.machine` how it is computed from these: `lambda v, a, b: a * b`. Everything else that
emits machine code is written in terms of `Lanes` and `Vector`, so that one text serves every float type and width.
"""

from __future__ import annotations

from collections.abc import Callable
from math import factorial, log

from llvmlite import ir

I32, I64, POINTER = ir.IntType(32), ir.IntType(64), ir.PointerType()


class Vector:
    """A value of one number a lane, with Python's operators; a plain number stands for that number in every lane."""

    def __init__(self, lanes: Lanes, value):
        self.lanes, self.value = lanes, value

    def __add__(self, other):
        return self.lanes.instruction("fadd", self, other)

    def __sub__(self, other):
        return self.lanes.instruction("fsub", self, other)

    def __mul__(self, other):
        return self.lanes.instruction("fmul", self, other)

    def __truediv__(self, other):
        return self.lanes.instruction("fdiv", self, other)

    def __rsub__(self, other):
        return self.lanes.constant(other) - self

    def __rtruediv__(self, other):
        return self.lanes.constant(other) / self

    def __neg__(self):
        return Vector(self.lanes, self.lanes.builder.fneg(self.value))

    __radd__, __rmul__ = __add__, __mul__


class Lanes:
    """The instructions of vectors of `width` lanes, written where `builder` stands."""

    def __init__(self, builder: ir.IRBuilder, double: bool, width: int):
        self.builder, self.double, self.width = builder, double, width
        self.scalar = ir.DoubleType() if double else ir.FloatType()
        self.integer = I64 if double else I32
        self.type, self.integers = ir.VectorType(self.scalar, width), ir.VectorType(self.integer, width)
        self.bytes = 8 if double else 4

    # --- making ------------------------------------------------------------------------------------------------------

    def constant(self, x) -> Vector:
        if isinstance(x, Vector):
            return x
        return Vector(self, ir.Constant(self.type, [ir.Constant(self.scalar, float(x))] * self.width))

    def _whole(self, n: int):
        return ir.Constant(self.integers, [ir.Constant(self.integer, n)] * self.width)

    def splat(self, scalar) -> Vector:
        """One number in every lane."""
        one = self.builder.insert_element(ir.Constant(self.type, ir.Undefined), scalar, ir.Constant(I32, 0))
        mask = ir.Constant(ir.VectorType(I32, self.width), [ir.Constant(I32, 0)] * self.width)
        return Vector(self, self.builder.shuffle_vector(one, ir.Constant(self.type, ir.Undefined), mask))

    def instruction(self, name: str, a, b) -> Vector:
        a, b = self.constant(a).value, self.constant(b).value
        return Vector(self, getattr(self.builder, name)(a, b, flags=("contract",)))

    def call(self, name: str, *x) -> Vector:
        """An intrinsic of LLVM, on whole vectors."""
        values = [self.constant(v).value for v in x]
        suffix = f".v{self.width}f{8 * self.bytes}"
        function = self._function(f"llvm.{name}{suffix}", ir.FunctionType(self.type, [self.type] * len(values)))
        return Vector(self, self.builder.call(function, values))

    def each(self, name: str, *x) -> Vector:
        """A function of the C library, lane by lane: what is rare need not be fast."""
        function = self._function(name if self.double else name + "f",
                                  ir.FunctionType(self.scalar, [self.scalar] * len(x)))
        found = ir.Constant(self.type, ir.Undefined)
        values = [self.constant(v).value for v in x]
        for k in range(self.width):
            at = ir.Constant(I32, k)
            one = self.builder.call(function, [self.builder.extract_element(v, at) for v in values])
            found = self.builder.insert_element(found, one, at)
        return Vector(self, found)

    def _function(self, name: str, kind: ir.FunctionType):
        module = self.builder.module
        return module.globals.get(name) or ir.Function(module, kind, name)

    # --- memory ------------------------------------------------------------------------------------------------------

    def address(self, pointer, offset):
        """`offset` numbers further on."""
        return self.builder.gep(pointer, [offset], source_etype=self.scalar)

    def load_one(self, pointer) -> Vector:
        """One number, in every lane."""
        return self.splat(self.builder.load(pointer, typ=self.scalar))

    def load(self, pointer, mask=None) -> Vector:
        if mask is None:
            return Vector(self, self.builder.load(pointer, typ=self.type, align=self.bytes))
        kind = ir.FunctionType(self.type, [POINTER, mask.type, self.type])
        function = self._function(f"llvm.masked.load.v{self.width}f{8 * self.bytes}.p0", kind)
        return Vector(self, self.builder.call(function, [pointer, mask, ir.Constant(self.type, None)]))

    def store(self, x: Vector, pointer, mask=None) -> None:
        if mask is None:
            self.builder.store(x.value, pointer, align=self.bytes)
            return
        kind = ir.FunctionType(ir.VoidType(), [self.type, POINTER, mask.type])
        function = self._function(f"llvm.masked.store.v{self.width}f{8 * self.bytes}.p0", kind)
        self.builder.call(function, [x.value, pointer, mask])

    def first(self, count) -> ir.Value:
        """The mask of the first `count` lanes."""
        steps = ir.Constant(ir.VectorType(I64, self.width), [ir.Constant(I64, k) for k in range(self.width)])
        one = self.builder.insert_element(ir.Constant(steps.type, ir.Undefined), count, ir.Constant(I32, 0))
        zeros = ir.Constant(ir.VectorType(I32, self.width), [ir.Constant(I32, 0)] * self.width)
        counts = self.builder.shuffle_vector(one, ir.Constant(steps.type, ir.Undefined), zeros)
        return self.builder.icmp_signed("<", steps, counts)

    # --- choosing ----------------------------------------------------------------------------------------------------

    def compare(self, relation: str, a, b):
        """A truth a lane; false beside NaN, but for `!=`."""
        a, b = self.constant(a).value, self.constant(b).value
        return (self.builder.fcmp_unordered if relation == "!=" else self.builder.fcmp_ordered)(relation, a, b)

    def choose(self, truth, a, b) -> Vector:
        return Vector(self, self.builder.select(truth, self.constant(a).value, self.constant(b).value))

    def truth(self, relation: str, a, b) -> Vector:
        return self.choose(self.compare(relation, a, b), 1, 0)

    def where(self, c, a, b) -> Vector:
        return self.choose(self.compare("!=", c, 0), a, b)

    def maximum(self, a, b) -> Vector:
        """The larger; a where they are equal, NaN where either is."""
        a, b = self.constant(a), self.constant(b)
        either = self.choose(self.compare("!=", b, b), b, a)
        return self.choose(self.compare("<", a, b), b, either)

    def minimum(self, a, b) -> Vector:
        a, b = self.constant(a), self.constant(b)
        either = self.choose(self.compare("!=", b, b), b, a)
        return self.choose(self.compare(">", a, b), b, either)

    def absolute(self, x) -> Vector:
        return self.call("fabs", x)

    # --- the exponential family --------------------------------------------------------------------------------------

    def _reduced(self, x: Vector) -> tuple[Vector, ir.Value]:
        """e**x = 2**n (1 + p) with |r| <= log(2)/2 and p = e**r - 1 by its series: p and the whole number n.

        n is found by adding 1.5 * 2**(digits - 1), which leaves it in the lowest bits; log(2) in two parts
        (Cody and Waite 1980), the first short enough that its product with n is exact.
        """
        digits, terms = (53, 13) if self.double else (24, 7)
        magic = 1.5 * 2.0 ** (digits - 1)
        high, low = self._log_two()
        t = self.call("fma", x, 1 / log(2), magic)
        n = t - magic
        r = self.call("fma", n, -low, self.call("fma", n, -high, x))
        p: Vector = self.constant(1 / factorial(terms))
        for k in range(terms - 1, 1, -1):
            p = self.call("fma", p, r, 1 / factorial(k))
        p = self.call("fma", p, r * r, r)
        whole = self.builder.sub(self.builder.bitcast(t.value, self.integers),
                                 self.builder.bitcast(self.constant(magic).value, self.integers))
        return p, whole

    def _log_two(self) -> tuple[float, float]:
        """log(2) in two parts."""
        return ((float.fromhex("0x1.62e42fee00000p-1"), 1.90821492927058770002e-10) if self.double else
                (float.fromhex("0x1.62e400p-1"), 1.428606765330187045e-06))

    def _power_of_two(self, n: ir.Value) -> Vector:
        bias, shift = (1023, 52) if self.double else (127, 23)
        bits = self.builder.shl(self.builder.add(n, self._whole(bias)), self._whole(shift))
        return Vector(self, self.builder.bitcast(bits, self.type))

    def exp(self, x) -> Vector:
        """e**x; the scale in two factors, so that neither over- nor underflows before the result does."""
        most, least = (710.0, -746.0) if self.double else (89.0, -104.0)
        x = self.constant(x)
        x = self.choose(self.compare(">", x, most), most, x)
        x = self.choose(self.compare("<", x, least), least, x)
        p, n = self._reduced(x)
        half = self.builder.ashr(n, self._whole(1))
        return (p + 1) * self._power_of_two(half) * self._power_of_two(self.builder.sub(n, half))

    def sigmoid(self, x) -> Vector:
        """1 / (1 + e**-x), with e**-|x| so that nothing overflows and small values keep their digits."""
        x = self.constant(x)
        e = self.exp(-self.absolute(x))
        return self.choose(self.compare("<", x, 0), e, 1) / (e + 1)

    def tanh(self, x) -> Vector:
        """-m / (m + 2) with m = e**(-2 |x|) - 1, with the sign of x."""
        x = self.constant(x)
        least = -40.0 if self.double else -20.0
        y = self.absolute(x) * -2.0
        y = self.choose(self.compare("<", y, least), least, y)
        p, n = self._reduced(y)
        scale = self._power_of_two(n)
        m = self.call("fma", scale, p, scale - 1)
        return self.call("copysign", m / (m + 2.0), x)

    def sech(self, x) -> Vector:
        e = self.exp(-self.absolute(x))
        return 2 * e / self.call("fma", e, e, 1)

    def log(self, x, rest=0.0) -> Vector:
        """log x + rest, for a small rest: x = 2**n (1 + f) with sqrt(1/2) <= 1 + f < sqrt(2), s = f / (2 + f), and

        log(1 + f) = 2 atanh(s) = f - (f**2 / 2 - s (f**2 / 2 + 2 s**2 / 3 + 2 s**4 / 5 + ...)), as in fdlibm.
        """
        shift, terms, least = (52, 9, 2.0 ** -1022) if self.double else (23, 4, 2.0 ** -126)
        b, x, half = self.builder, self.constant(x), self.constant(0.5 ** 0.5)
        small = self.compare("<", x, least)  # too small for a whole exponent
        scaled = self.choose(small, x * 2.0 ** (shift + 2), x)
        root = b.bitcast(half.value, self.integers)
        above = b.sub(b.bitcast(scaled.value, self.integers), root)
        whole = b.ashr(above, self._whole(shift))
        fraction = b.add(b.sub(above, b.shl(whole, self._whole(shift))), root)
        n = Vector(self, b.sitofp(whole, self.type)) - self.choose(small, shift + 2, 0)
        f = Vector(self, b.bitcast(fraction, self.type)) - 1
        s = f / (f + 2)
        z, square = s * s, f * f * 0.5
        series: Vector = self.constant(2 / (2 * terms + 1))
        for k in range(terms - 1, 0, -1):
            series = self.call("fma", series, z, 2 / (2 * k + 1))
        high, low = self._log_two()
        inner = self.call("fma", s, self.call("fma", series, z, square), self.call("fma", n, low, rest))
        found = self.call("fma", n, high, f - (square - inner))
        usual = b.and_(self.compare(">", x, 0), self.compare("<", x, float("inf")))
        return self.choose(usual, found, self.choose(self.compare("==", x, 0), float("-inf"), self.choose(
            self.compare(">", x, 0), x, float("nan"))))

    def log1p(self, x) -> Vector:
        """log(1 + x) for x >= 0, with what 1 + x has lost."""
        x = self.constant(x)
        one_more = x + 1
        return self.log(one_more, (x - (one_more - 1)) / one_more)

    def power(self, x: Vector, exponent: float) -> Vector:
        """Whole powers by squaring, as the reference does."""
        if exponent == 0.5:
            return self.call("sqrt", x)
        if not float(exponent).is_integer():
            return self.each("pow", x, exponent)
        found, count = None, abs(int(exponent))
        while count:
            if count & 1:
                found = x if found is None else found * x
            count >>= 1
            x = x * x if count else x
        found = self.constant(1) if found is None else found
        return found if exponent >= 0 else 1 / found

    def modulus(self, a, b) -> Vector:
        """a - b floor(a / b): with the sign of b, as Python and NumPy have it."""
        rest = self.each("fmod", a, b)
        apart = self.builder.xor(self.compare("<", rest, 0), self.compare("<", b, 0))
        wrong = self.builder.and_(apart, self.compare("!=", rest, 0))
        return self.choose(wrong, rest + b, rest)


def loop(builder: ir.IRBuilder, start, stop, step, body: Callable) -> None:
    """for k = start, start + step, ... < stop: body(k)."""
    function = builder.function
    before, head, inside, after = builder.block, *(function.append_basic_block(n) for n in ("head", "body", "after"))
    builder.branch(head)
    builder.position_at_end(head)
    k = builder.phi(I64)
    k.add_incoming(start, before)
    builder.cbranch(builder.icmp_signed("<", k, stop), inside, after)
    builder.position_at_end(inside)
    body(k)
    k.add_incoming(builder.add(k, ir.Constant(I64, step) if isinstance(step, int) else step), builder.block)
    builder.branch(head)
    builder.position_at_end(after)


def folded(lanes: Lanes, low, high, begin: Vector, step: Callable) -> Vector:
    """step(high - 1, ... step(low, begin))"""
    b = lanes.builder
    before, head, inside, after = b.block, *(b.function.append_basic_block(n) for n in ("fold", "next", "folded"))
    b.branch(head)
    b.position_at_end(head)
    k, total = b.phi(I64), b.phi(begin.value.type)
    k.add_incoming(low, before)
    total.add_incoming(begin.value, before)
    b.cbranch(b.icmp_signed("<", k, high), inside, after)
    b.position_at_end(inside)
    found = step(k, Vector(lanes, total))
    total.add_incoming(found.value, b.block)
    k.add_incoming(b.add(k, ir.Constant(I64, 1)), b.block)
    b.branch(head)
    b.position_at_end(after)
    return Vector(lanes, total)
