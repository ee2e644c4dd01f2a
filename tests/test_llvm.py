"""Machine code below the level of systems: arithmetic against mpmath, products against NumPy, threads, memory."""

import ctypes
from concurrent.futures import ThreadPoolExecutor
from functools import cache, partial

import numpy as np
import pytest
import systems
from test_compile import cell_of, difference, gradients, problem

from autograd_rnn import Cell, CellError, zoo
from autograd_rnn import primitives as P
from autograd_rnn.backpropagate import adjoint_of, differentiate
from autograd_rnn.compile import program
from autograd_rnn.evaluate import evaluate
from autograd_rnn.learn.charlm import character_model
from autograd_rnn.order import Loop

ir = pytest.importorskip("llvmlite.ir", reason="machine code needs llvmlite")

from autograd_rnn.compile.llvm import machine, native  # noqa: E402
from autograd_rnn.compile.llvm.lanes import I64, POINTER, Lanes, loop  # noqa: E402
from autograd_rnn.compile.llvm.products import BLOCK, Products  # noqa: E402

DTYPES = [np.float32, np.float64]


# The cells that are one layer from x to h.
LAYERS = [n for n in zoo if zoo[n].inputs == ("x",) and zoo[n].outputs == ("h",) and not zoo[n].system.model
          and not zoo[n].constants and len(zoo[n].shapes["h"]) == 1]
SOME = ["rnn", "lstm_peephole", "lstm_coupled", "gru", "gru_reset_after"]


def width(dtype) -> int:
    return native.registers()[0] // np.dtype(dtype).itemsize


def address(array: np.ndarray) -> int:
    return array.ctypes.data


@cache
def applied(name: str, dtype):
    """A primitive's machine code as a function of arrays, whole vectors at a time."""
    primitive, module = P.PRIMITIVES[name], ir.Module(name)
    made = ir.Function(module, ir.FunctionType(ir.VoidType(), [POINTER, POINTER, I64, I64]), "apply")
    builder = ir.IRBuilder(made.append_basic_block())
    lanes = Lanes(builder, dtype is np.float64, width(dtype))

    def at(k):
        source, target = (lanes.address(a, k) for a in made.args[:2])
        lanes.store(primitive.machine(lanes, lanes.load(source)), target)

    loop(builder, ir.Constant(I64, 0), made.args[2], lanes.width, at)
    builder.ret_void()
    code = native.Code(module, ["apply"])

    def call(x: np.ndarray) -> np.ndarray:
        padded = np.zeros(-(-len(x) // lanes.width) * lanes.width, dtype)
        padded[:len(x)] = x
        y = np.empty_like(padded)
        code.functions["apply"](address(padded), address(y), len(padded), 0)
        return y[:len(x)]

    return call


def points(dtype) -> np.ndarray:
    """Numbers of every size: where exp is finite, tiny ones, and beside the steps of its reduction."""
    rng, top = np.random.default_rng(0), 88.0 if dtype is np.float32 else 709.0
    near = np.log(2) * (np.arange(-20, 21) + 0.5)
    tiny = 2.0 ** rng.uniform(-100, 0, 300)
    found = np.concatenate([rng.uniform(-top, top, 1500), rng.uniform(-3, 3, 1500), near, tiny, -tiny])
    return found.astype(dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", ["exp", "tanh", "sigmoid", "sech", "softplus", "log"])
def test_within_four_units_in_the_last_place(name, dtype):
    mpmath = pytest.importorskip("mpmath")
    true = {"exp": mpmath.exp, "tanh": mpmath.tanh, "sigmoid": lambda x: 1 / (1 + mpmath.exp(-x)),
            "sech": mpmath.sech, "softplus": lambda x: mpmath.log(1 + mpmath.exp(x)), "log": mpmath.log}[name]
    x, limit = points(dtype), 4
    if name == "log":  # of numbers of every size, subnormal ones too, and beside 1 and its own steps
        steps = np.outer(2.0 ** np.arange(-5, 6), np.sqrt(0.5) + np.linspace(-1e-6, 1e-6, 9)).ravel()
        least = np.finfo(dtype).smallest_subnormal * np.arange(1, 50)
        x = np.concatenate([np.exp(x / 1.01), 1 + 1e-3 * x[:300], steps, least]).astype(dtype)
        x = x[x > 0]
    worst = 0.0
    with mpmath.workdps(340):
        for xi, yi in zip(x, applied(name, dtype)(x)):
            exact = true(mpmath.mpf(float(xi)))
            unit = np.spacing(np.abs(dtype(exact))) or np.finfo(dtype).smallest_subnormal
            worst = max(worst, abs(float((mpmath.mpf(float(yi)) - exact) / mpmath.mpf(float(unit)))))
    print(f"{name} {np.dtype(dtype)}: {worst:.2f} ulp over {len(x)} points")
    assert worst <= limit


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("name", "at", "expected"), [
    ("exp", [0.0, np.inf, -np.inf, 1e4, -1e4], [1, np.inf, 0, np.inf, 0]),
    ("tanh", [0.0, -0.0, np.inf, -np.inf, 1e4, -1e4], [0.0, -0.0, 1, -1, 1, -1]),
    ("sigmoid", [0.0, np.inf, -np.inf, 1e4, -1e4], [0.5, 1, 0, 1, 0]),
    ("sech", [0.0, np.inf, -np.inf], [1, 0, 0]),
    ("softplus", [np.inf, -np.inf, 1e4], [np.inf, 0, 1e4]),
    ("abs", [-0.0, -3.0, -np.inf], [0.0, 3, np.inf]),
    ("sign", [0.0, 2.0, -2.0], [0, 1, -1]),
    ("sqrt", [4.0, 0.0, -1.0], [2, 0, np.nan]),
    ("log", [1.0, 0.0, -1.0, np.inf, -np.inf], [0, -np.inf, np.nan, np.inf, np.nan]),
    ("floor", [1.5, -1.5], [1, -2]),
])
def test_special_values(name, at, expected, dtype):
    found = applied(name, dtype)(np.array([*at, np.nan], dtype))
    np.testing.assert_array_equal(found, np.array([*expected, np.nan], dtype))
    zero = np.array(expected) == 0
    np.testing.assert_array_equal(np.signbit(found[:-1])[zero], np.signbit(np.array(expected, dtype))[zero])


@pytest.mark.parametrize("dtype", DTYPES)
def test_subnormals(dtype):
    least = -103.0 if dtype is np.float32 else -744.0
    assert applied("exp", dtype)(np.array([least], dtype))[0] == np.exp(dtype(least)) > 0
    assert applied("sigmoid", dtype)(np.array([least], dtype))[0] > 0


def test_every_primitive_says_how_it_is_computed_or_goes_to_the_reference():
    left = {name for name, p in P.PRIMITIVES.items() if p.pointwise and p.fill is None and not p.machine}
    assert left == {"like"}  # shapes, not numbers


# --- products ----------------------------------------------------------------------------------------------------


@cache
def product_code(dtype):
    module = ir.Module("products")
    products = Products(module, dtype is np.float64, width(dtype), native.registers()[1])
    exported = {f.name: f for f in (products.pack, products.product, products.correlate(2))}
    for function in exported.values():
        function.linkage = ""
    code = native.Code(module, list(exported))
    found = {}
    for name, function in exported.items():
        kind = ctypes.CFUNCTYPE(None, *[ctypes.c_int64] * len(function.args))
        found[name] = kind(ctypes.cast(code.functions[name], ctypes.c_void_p).value)
    return products, found, code


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("rows", "depth", "columns"), [
    (1, 1, 1), (5, 13, 37), (16, 64, 128), (9, 3, 33), (31, 17, 65)])
def test_products(rows, depth, columns, dtype):
    products, functions, _ = product_code(dtype)
    rng = np.random.default_rng(0)
    a, w = rng.normal(size=(rows, depth)).astype(dtype), rng.normal(size=(columns, depth)).astype(dtype)
    panel = products.panel
    for turned in (False, True):
        source = np.ascontiguousarray(w.T) if turned else w
        panels = np.zeros((-(-columns // panel), depth, panel), dtype)
        by = (1, columns) if turned else (depth, 1)
        functions["pack"](address(source), *by, address(panels), depth, 0, columns, 0, depth)
        c = np.full((rows, panels.shape[0] * panel), np.nan, dtype)
        functions["product"](address(a), depth, address(panels), address(c), c.shape[1], rows, depth, len(panels))
        np.testing.assert_allclose(c[:, :columns], a @ w.T, *[100 * np.finfo(dtype).eps] * 2)
        assert not c[:, columns:].any()


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_row_of_a_product_does_not_depend_on_its_neighbours(dtype):
    products, functions, _ = product_code(dtype)
    rng = np.random.default_rng(0)
    a, panels = rng.normal(size=(23, 40)).astype(dtype), rng.normal(size=(2, 40, products.panel)).astype(dtype)

    def product(part):
        part = np.ascontiguousarray(part)
        c = np.empty((len(part), 2 * products.panel), dtype)
        functions["product"](address(part), 40, address(panels), address(c), c.shape[1], len(part), 40, 2)
        return c

    whole = product(a)
    for first, last in ((0, 1), (3, 8), (8, 23), (22, 23)):
        assert (product(a[first:last]) == whole[first:last]).all()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("outer", "inner", "height", "widths"), [
    (1, 1, 1, (1, 1)), (7, 3, 19, (5, 40)), (2 * BLOCK + 3, 2, 33, (64, 3)), (BLOCK, 1, 16, (31, 33))])
def test_correlations(outer, inner, height, widths, dtype):
    products, functions, _ = product_code(dtype)
    rng = np.random.default_rng(1)
    u = rng.normal(size=(outer, inner, height)).astype(dtype)
    vs = [rng.normal(size=(outer, inner, w)).astype(dtype) for w in widths]
    starts = np.cumsum([0, *(-(-w // products.panel) * products.panel for w in widths)])
    down = -(-height // products.width) * products.width
    c, sums = np.full((down, starts[-1]), np.nan, dtype), np.full(down, np.nan, dtype)
    scratch = np.zeros(products.correlate_scratch(2, int(starts[-1])), np.uint8)
    half = products.width * (down // products.width // 2)
    for first, last in ((0, half), (half, down)):  # as two threads would
        functions["correlate2"](address(u), inner * height, height, address(vs[0]), inner * widths[0], widths[0],
                                address(vs[1]), inner * widths[1], widths[1], outer, inner, *widths, height, first,
                                last, 0, address(c), address(sums), address(scratch))
    tolerance = dict(rtol=1e3 * np.finfo(dtype).eps, atol=1e3 * np.finfo(dtype).eps * outer)
    for v, start in zip(vs, starts):
        np.testing.assert_allclose(c[:height, start:start + v.shape[-1]], np.einsum("oih,oiw->hw", u, v), **tolerance)
    np.testing.assert_allclose(sums[:height], u.sum((0, 1)), **tolerance)


# --- programs ----------------------------------------------------------------------------------------------------


def sized(cell: Cell, T: int, batch: int, dtype, size: int = 13):
    """(params, arguments of gradient): vectors of `size`, inputs somewhat longer."""
    names = {n for names in cell.dims.values() for n in names}
    sizes = systems.sizes(cell, **{n: size + 4 * (n == "x") for n in ("x", "h") if n in names})
    drawn, given = systems.draw(cell, T, batch, seed=2, **sizes)
    constants = {n: drawn[n] for n in cell.system.having("const")}
    params = cell.init(seed=1, dtype=dtype, **{**sizes, **constants})
    given = {n: v.astype(dtype) if v.dtype.kind == "f" else v for n, v in given.items()}
    if cell.loss is None:
        trace, rng = cell.run(params, **given), np.random.default_rng(3)
        given["cotangents"] = {n: rng.normal(size=trace[n].shape).astype(dtype) for n in cell.outputs}
    return params, given


@pytest.mark.parametrize("name", LAYERS)
def test_threads_change_no_bit(name, monkeypatch):
    monkeypatch.setattr(machine, "ALONE", 0)
    for dtype in DTYPES if name in SOME else [np.float32]:
        for batch in (1, 3, 8, 19):
            params, given = sized(zoo[name], 7, batch, dtype)
            value, found = zoo[name].compile(backend="llvm", threads=1).gradient(params, **given)
            for threads in (2, 3, 4):
                other_value, other = zoo[name].compile(backend="llvm", threads=threads).gradient(params, **given)
                assert value == other_value and all((found[n] == other[n]).all() for n in found), (batch, threads)


@pytest.mark.parametrize("size", [1, 2, 15, 16, 17, 33])
@pytest.mark.parametrize("name", ["lstm_peephole", "gru"])
def test_any_size(name, size):
    params, given = sized(zoo[name], 5, 2, np.float64, size)
    true = zoo[name].gradient(params, **given)[1]
    assert difference(zoo[name].compile(backend="llvm").gradient(params, **given)[1], true) <= 1e-12


@pytest.mark.parametrize("T, batch", [(6, 1), (1, 1), (1, 3), (6, 3)])
def test_what_the_reference_gathers_is_read_row_by_row(T, batch):
    """A column for each step, where there is one example too."""
    cell = Cell("e[t] = E @ onehot(k[t-1])\ny[t] = e[t] * e[t]\nL = sum_t(cross_entropy(y[t], k[t]))")
    params, k = cell.init(seed=0, k=5), np.random.default_rng(0).integers(0, 5, (T, batch))
    assert difference(cell.compile(backend="llvm").forward(params, k=k), cell.run(params, k=k)) <= 1e-12


def test_one_program_serves_every_length_batch_and_size():
    cell = Cell(zoo["lstm"].text)
    compiled = cell.compile(backend="llvm")
    for T, batch, size in ((3, 2, 5), (40, 1, 8), (1, 9, 20), (3, 2, 5)):
        params, given = sized(cell, T, batch, np.float64, size)
        assert difference(compiled.gradient(params, **given)[1], cell.gradient(params, **given)[1]) <= 1e-12
    made = [m for s in vars(cell.system)["_adjoints"].values() for m in vars(s.system)["_machines"].values()]
    assert len(made) == 1


def test_what_was_handed_out_stays_as_it_was():
    """Memory is used again only when nothing of it is left in the caller's hands."""
    cell = zoo["gru"]
    compiled = cell.compile(backend="llvm")
    params, given = sized(cell, 30, 4, np.float64)
    traces = []
    for k in range(4):
        trace = compiled.forward(params, x=given["x"] * k)
        traces.append((k, trace, trace["h"].copy()))
    for k, trace, h in traces:
        assert (trace["h"] == h).all()
        assert difference({"h": trace["h"]}, {"h": cell.run(params, x=given["x"] * k)["h"]}) <= 1e-12 or k == 0


def test_runs_from_several_threads_at_once(monkeypatch):
    monkeypatch.setattr(machine, "ALONE", 0)
    cell = zoo["lstm"]
    compiled = cell.compile(backend="llvm", threads=2)
    problems = [sized(cell, 20, batch, np.float64) for batch in (2, 5, 2, 7)]
    true = [compiled.gradient(p, **g)[1] for p, g in problems]
    wrong = []

    def work(k):
        for _ in range(20):
            found = compiled.gradient(problems[k][0], **problems[k][1])[1]
            if not all((found[n] == true[k][n]).all() for n in found):
                wrong.append(k)

    with ThreadPoolExecutor(4) as pool:  # what a thread raises is raised here
        list(pool.map(work, range(4)))
    assert not wrong


def test_code_is_kept_and_read_again(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("LOCALAPPDATA", str(tmp_path))
    if not str(native.folder()).startswith(str(tmp_path)):
        pytest.skip("the cache folder of this system is not taken from the environment")
    params, given = sized(zoo["lstm"], 5, 2, np.float64)
    assembled = []
    before = native._assembled
    monkeypatch.setattr(native, "_assembled", lambda *x: assembled.append(1) or before(*x))
    for expected in (1, 1):  # the second time from the folder
        cell = Cell(zoo["lstm"].text)
        cell.compile(backend="llvm").gradient(params, **given)
        assert len(assembled) == expected and len(list(native.folder().glob("*.o"))) == 1
    next(native.folder().glob("*.o")).write_bytes(b"")  # half a file is made anew
    Cell(zoo["lstm"].text).compile(backend="llvm").gradient(params, **given)
    assert len(assembled) == 2


def test_without_llvmlite(monkeypatch):
    monkeypatch.setattr(program, "has_llvm", lambda: False)
    with pytest.raises(CellError, match=r"llvmlite.*\n.*pip install 'autograd_rnn\[fast\]'"):
        zoo["lstm"].compile(backend="llvm")
    with pytest.warns(UserWarning, match="runs in NumPy"):
        compiled = zoo["lstm"].compile()
    params, given = problem(zoo["lstm"])
    assert difference(compiled.gradient(params, **given)[1], zoo["lstm"].gradient(params, **given)[1]) <= 1e-12


@pytest.mark.parametrize(("options", "message"), [
    (dict(backend="cuda"), "There is no backend 'cuda'"), (dict(threads=0), "`threads` is 0"),
    (dict(threads=1.5), "`threads` is 1.5"), (dict(threads=True), "`threads` is True")])
def test_bad_options(options, message):
    with pytest.raises(CellError, match=message):
        zoo["rnn"].compile(**options)


@pytest.mark.parametrize("name", [
    "two_layers", "depth_gated", "recurrent_highway", "grid_lstm", "clockwork", "lstm_1997", "bahdanau", "xu",
    "vrnn"])
def test_loops_in_loops_leave_nothing_of_the_loops_to_the_reference(name):
    cell = cell_of(name)
    params, given = problem(cell)
    cell.compile(backend="llvm").gradient(params, **given)
    derived = adjoint_of(cell.system, cell.outputs, "cotangents" not in given)
    machine = next(iter(vars(derived.system)["_machines"].values()))
    left = [g.steps[0] for g in machine.partition.groups if g.kind == "reference"]
    assert not any(isinstance(s, Loop) for s in left)


# --- the same shapes again ---------------------------------------------------------------------------------------


def again(cell: Cell) -> list:
    return [r for r in vars(cell.system).get("_replays", {}).values() if r is not None]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", SOME)
def test_a_replay_has_the_bits_of_the_long_way(name, dtype):
    cell, fresh = Cell(zoo[name].text), Cell(zoo[name].text)
    compiled = cell.compile(backend="llvm")
    for unbatched in (False, True):
        for seed in range(3):
            params, given = sized(cell, 9, 1 if unbatched else 3, dtype)
            params = {n: p * (1 + seed) for n, p in params.items()}
            if unbatched:
                given = {"x": given["x"][:, 0].copy(), "cotangents": {"h": given["cotangents"]["h"][:, 0].copy()}}
            value, found = compiled.gradient(params, **given)
            true_value, true = Cell(fresh.text).compile(backend="llvm").gradient(params, **given)
            assert value == true_value and set(found) == set(true)
            assert all(found[n].shape == true[n].shape and (found[n] == true[n]).all() for n in true)
    assert len(again(cell)) == 2


@pytest.mark.parametrize("name", SOME)
def test_no_run_sees_the_ends_that_were_given_to_the_one_before(name):
    cell = Cell(zoo[name].text)
    compiled = cell.compile(backend="llvm")
    params, given = sized(cell, 9, 3, np.float64)
    start = {n: np.full((3, 13), 0.5) for n in cell.states}
    true = compiled.gradient(params, **given)[1]
    for _ in range(3):
        assert not (compiled.gradient(params, initial=start, **given)[1]["h[0]"] == true["h[0]"]).all()
        assert all((compiled.gradient(params, **given)[1][n] == true[n]).all() for n in true)
    assert again(cell)


def test_what_a_replay_hands_out_is_the_callers():
    cell = Cell(zoo["lstm"].text)
    compiled = cell.compile(backend="llvm")
    params, given = sized(cell, 9, 3, np.float64)
    first = compiled.gradient(params, **given)[1]
    kept = {n: g.copy() for n, g in first.items()}
    second = compiled.gradient(params, **given)[1]
    for g in second.values():
        g += 1.0  # a caller may write to it
    third = compiled.gradient({n: p * 2 for n, p in params.items()}, **given)[1]
    assert again(cell) and all((first[n] == kept[n]).all() for n in first)
    assert any((third[n] != kept[n]).any() for n in third)
    assert all((compiled.gradient(params, **given)[1][n] == kept[n]).all() for n in kept)


def test_what_is_no_plain_array_goes_the_long_way():
    cell = Cell(zoo["gru"].text)
    compiled = cell.compile(backend="llvm")
    params, given = sized(cell, 9, 3, np.float64)
    true = compiled.gradient(params, **given)[1]
    compiled.gradient(params, **given)
    turned = {**params, "U_n": np.asfortranarray(params["U_n"]), "b_n": list(params["b_n"])}
    locked = {n: p.copy() for n, p in params.items()}
    for p in locked.values():
        p.flags.writeable = False
    start = {"h": np.ones((3, 13))}
    for other, options in ((turned, {}), (locked, {}), (params, {"initial": start}), (params, {"lengths": [9, 2, 3]})):
        found = compiled.gradient(other, **given, **options)[1]
        expected = Cell(cell.text).compile(backend="llvm").gradient(other, **given, **options)[1]
        assert all((found[n] == expected[n]).all() for n in true)
    assert all((compiled.gradient(params, **given)[1][n] == true[n]).all() for n in true)  # not a trace is left
    mixed = {**params, "b_n": params["b_n"].astype(np.float32)}
    assert difference(compiled.gradient(mixed, **given)[1], true) <= 1e-6


def test_what_is_not_finite_is_named():
    cell = Cell(zoo["lstm"].text)
    compiled = cell.compile(backend="llvm")
    params, given = sized(cell, 9, 3, np.float64)
    compiled.gradient(params, **given)
    spoiled = given["x"].copy()
    spoiled[4, 1, 2] = np.nan
    with pytest.raises(CellError, match="`x` at t = 5 is not finite"):
        compiled.gradient(params, x=spoiled, cotangents=given["cotangents"])
    with pytest.raises(CellError, match=r"`x` has shape"):
        compiled.gradient(params, x=given["x"][:, :, :4], cotangents=given["cotangents"])


@pytest.mark.parametrize("text", [
    "h[t] = tanh(W @ x[t] + like(sum(x[t]), h[t-1]))\ny[t] = h[t] * 2",
    "h[t] = tanh(W @ x[t] + U @ h[t+1])\nL = sum_t(mse(stop_gradient(h[t-2]), h[t]))"])  # reached at the other end
def test_an_end_that_nothing_reaches_has_no_gradient(text):
    cell = Cell(text)
    params, given = problem(cell, T=4)
    found = cell.compile(backend="llvm").gradient(params, **given)[1]
    assert not found["h[0]"].any() and found["W"].any()


SHARED = {  # what weights alone make
    "antisymmetric": "A = U - U.T - 0.1 * diagonal\nh[t] = tanh(W @ x[t] + A @ h[t-1])\ndiagonal: const(h, h)",
    "mask": """
        period: const(h)
        one = like(1, period)
        R = where(outer(period, one) <= outer(one, period), U, 0)
        h[t] = tanh(W @ x[t] + R @ h[t-1])
    """,
    "numbers": "s: ()\na = exp(s)\nb = a / 2\nh[t] = tanh(a * (W @ x[t]) + b * h[t-1])",
    "a long way": "\n".join(["a0 = tanh(p)", *(f"a{k} = sin(a{k - 1}) + a0" for k in range(1, 40)),
                             "h[t] = tanh(W @ x[t] + a39 * h[t-1])"]),
}


@pytest.mark.parametrize("name", SHARED)
def test_what_weights_alone_make_needs_no_reference(name):
    cell = Cell(SHARED[name])
    params, given = problem(cell, T=6)
    true = gradients(cell, params, given, evaluate)
    found = [cell.compile(backend="llvm", threads=threads).gradient(params, **given)[1] for threads in (1, 2)]
    assert difference(found[0], true) <= 1e-12 and all(np.array_equal(found[0][n], found[1][n]) for n in true)
    (derived,) = vars(cell.system)["_adjoints"].values()
    assert all(kind != "reference" for m in vars(derived.system)["_machines"].values() for kind, _ in m.steps)


# --- a budget of memory ------------------------------------------------------------------------------------------


def last_run(compiled) -> str:
    return compiled.report().splitlines()[-1]


def foreseen(told: str) -> float:
    """Bytes, of the report of a run."""
    return 2**20 * float(told.split(" MB foreseen")[0].split()[-1])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", SOME)
def test_a_budget_changes_no_bit(name, dtype):
    cell = Cell(zoo[name].text)
    for T, batch in ((100, 8), (37, 5)):
        params, given = sized(cell, T, batch, dtype)
        start = {n: np.full((batch, 13), 0.25, dtype) for n in cell.states}
        whole = cell.compile(backend="llvm")
        value, true = whole.gradient(params, initial=start, **given)
        for part in (0.5, 0.8):
            budget = int(part * foreseen(last_run(whole)))
            compiled = cell.compile(backend="llvm", memory=budget)
            try:
                found_value, found = compiled.gradient(params, initial=start, **given)
            except CellError as error:  # one stretch alone may be larger, and one example
                assert "The program needs" in str(error)
                continue
            if "share by share" in last_run(compiled):
                continue
            assert "in stretches of" in last_run(compiled)
            assert value == found_value and all((true[n] == found[n]).all() for n in true), budget


SUMMED = {  # over all steps of an example
    "characters": partial(character_model, zoo["lstm"], layers=2),
    "squares": partial(Cell, "h[t] = tanh(W @ x[t] + U @ h[t-1])\ny[t] = V @ h[t] + c\nL = sum_t(sum(y[t] * y[t]))"),
    "a vector": partial(Cell, "h[t] = tanh(W @ x[t] + U @ h[t-1])\ns = sum_t(h[t])\nL = sum(s * s)"),
}
REFUSED = {"wholes": "h[t] = tanh(W @ x[t] + U @ h[t-1])\nL = sum(max_t(h[t]))",
           "sums": "s = sum_t(x[t])\nh[t] = tanh(W @ x[t] + U @ (h[t-1] * s))\nL = sum_t(sum(h[t]))"}


@pytest.mark.parametrize("name", SUMMED)
def test_sums_over_all_steps_go_on_from_stretch_to_stretch(name):
    cell = SUMMED[name]()
    params, given = problem(cell, T=2000)
    whole = cell.compile(backend="llvm")
    value, true = whole.gradient(params, **given)
    budget = int(0.45 * foreseen(last_run(whole)))
    compiled = cell.compile(backend="llvm", memory=budget)
    found_value, found = compiled.gradient(params, **given)
    assert "in stretches of" in last_run(compiled)
    assert value == found_value and all((true[n] == found[n]).all() for n in true)


@pytest.mark.parametrize("name", systems.SHORT_FIRST)
def test_every_cell_keeps_to_a_budget(name):
    """In stretches with the bits of a run without one, or share by share with those of each example's own."""
    cell = Cell(zoo[name].text)  # its report tells of no other test's runs
    params, given = problem(cell, T=150)
    whole = cell.compile(backend="llvm", threads=1)
    value, true = whole.gradient(params, **given)
    ways = set()
    for part in (0.95, 0.7, 0.4):
        compiled = cell.compile(backend="llvm", threads=1, memory=int(part * foreseen(last_run(whole))))
        try:
            found_value, found = compiled.gradient(params, **given)
        except CellError as error:
            assert "MB for one example" in str(error)
            continue
        ways.add("stretches" if "in stretches of" in last_run(compiled) else "shares")
        same = set(true) if "in stretches of" in last_run(compiled) else set(true) & set(cell.system.per_example)
        assert all((true[n] == found[n]).all() for n in same), part
        assert difference({**found, "value": found_value}, {**true, "value": value}) <= 1e-12
    assert ways


IN_SHARES = {**{name: partial(cell_of, name) for name in ("bidirectional", "antisymmetric_penalty", "sutskever")},
          "attention": lambda: systems.with_loss(zoo["bahdanau"]), "outputs": partial(Cell, zoo["bilstm"].text),
          "whole": partial(Cell, "h[t] = tanh(W @ x[t] + U @ h[t-1])\nL = sum(max_t(h[t]))"),
          "layers": partial(cell_of, "two_layers")}


@pytest.mark.parametrize("ragged", [False, True])
@pytest.mark.parametrize("name", IN_SHARES)
def test_share_by_share(name, ragged):
    """Lengths and first states are each example's own; two threads; what is handed on."""
    cell = Cell(IN_SHARES[name]().text)
    params, given = systems.draw(cell, T=40, batch=6, h=16)
    more = {"lengths": systems.lengths(cell, 40, 6)} if ragged else {}
    outputs, cotangents = (), None
    if not cell.loss:
        trace = cell.run(params, **given)
        outputs, cotangents = cell.outputs, {n: np.cos(np.arange(trace[n].size)).reshape(trace[n].shape)
                                             for n in cell.outputs}
    found, last = [], ""
    for part in (None, 0.75):
        memory = None if part is None else int(part * foreseen(last))
        value, gradients, trace = differentiate(cell.system, cell.loss, outputs, params, None, cotangents, given,
                                                run=program.backend_of("llvm", 2, memory), **more)
        found.append({**gradients, **{f"final {n}": a for n, a in trace.final.items()}, "value": value})
        (derived,) = vars(cell.system)["_adjoints"].values()
        last = list(vars(derived.system)["_machines"].values())[-1].last
    assert "share by share" in last
    numeric = [{n: a for n, a in one.items() if np.asarray(a).dtype.kind == "f"} for one in found]
    assert found[0].keys() == found[1].keys() and difference(*numeric) <= 1e-12


def test_attention_keeps_to_a_budget():
    """Bahdanau's energies, source times target times examples, are most of what it keeps."""
    cell = Cell(zoo["bahdanau"].text)
    params, given = systems.draw(cell, T=60, batch=16, s=50, x=16, d=32, hf=32, hb=32, v=64)
    compiled = cell.compile(backend="llvm", threads=2, memory="8MB")
    value, _ = compiled.gradient(params, **given)
    told = last_run(compiled)
    planned, taken = (float(told.split(f" MB {word}")[0].split()[-1]) for word in ("foreseen", "taken"))
    assert "share by share" in told and taken <= planned + 0.01 and planned <= 8
    whole = cell.compile(backend="llvm", threads=2)
    assert abs(value - whole.gradient(params, **given)[0]) <= 1e-12 * value
    assert foreseen(last_run(whole)) > 16 * 2**20


def test_a_budget_is_kept():
    cell = zoo["lstm"]
    params, given = sized(cell, 2000, 4, np.float32)
    compiled = cell.compile(backend="llvm", memory="1MB")
    compiled.gradient(params, **given)
    told = last_run(compiled)
    planned, taken, between = (float(told.split(f" MB {word}")[0].split()[-1]) for word in (
        "foreseen", "taken", "between"))
    assert taken <= planned + 0.01 and taken + between <= 1
    assert int(told.split("stretches of ")[1].split(",")[0]) < 2000


@pytest.mark.parametrize("name", ["lstm", "gru"])
def test_what_a_run_in_stretches_hands_on(name):
    """The state after the last step is that of a run in one piece, whatever the budget."""
    cell = Cell(zoo[name].text)
    params, given = sized(cell, 300, 4, np.float64)
    finals = []
    for memory in (None, "500KB"):
        run = program.backend_of("llvm", 1, memory)
        finals.append(differentiate(cell.system, None, ("h",), params, None, given["cotangents"], {"x": given["x"]},
                                    run=run)[2].final)
    assert finals[0].keys() == finals[1].keys()
    assert all((np.asarray(finals[0][n]) == np.asarray(finals[1][n])).all() for n in finals[0])


RAGGED = {**{name: partial(Cell, zoo[name].text) for name in SOME}, **SUMMED,
          "read-out": partial(Cell, "h[t] = tanh(W @ x[t] + U @ h[t-1])\nz[t] = tanh(V @ h[t])"),
          "delayed": partial(Cell, "h[t] = tanh(W @ x[t] + V @ x[t-1] + U @ h[t-1])")}


@pytest.mark.parametrize("name", RAGGED)
def test_a_budget_changes_no_bit_of_a_ragged_batch(name):
    cell = RAGGED[name]()
    params, given = problem(cell, T=2000) if name == "characters" else sized(cell, 2000, 4, np.float64)
    steps, batch = given[cell.inputs[0]].shape[:2]
    lengths, found = np.array([steps, 130, 1, 64])[:batch], []
    cotangents = given.pop("cotangents", None)
    outputs = () if cell.loss else cell.outputs
    last = ""
    for part in (None, 0.5):
        memory = None if part is None else int(part * foreseen(last))
        value, gradients, trace = differentiate(cell.system, cell.loss, outputs, params, None, cotangents, given, None,
                                                lengths, run=program.backend_of("llvm", 1, memory))
        found.append({**gradients, **{f"final {n}": a for n, a in trace.final.items()}, "value": value})
        (derived,) = vars(cell.system)["_adjoints"].values()
        last = list(vars(derived.system)["_machines"].values())[-1].last
    assert "in stretches of" in last
    assert all(np.array_equal(found[0][n], found[1][n]) for n in found[0])


@pytest.mark.parametrize(("text", "bytes_"), [
    (None, None), (1000, 1000), ("64MB", 64 * 2**20), ("1.5 kB", 1536), ("2gb", 2 * 2**30), ("12B", 12)])
def test_sizes_of_memory(text, bytes_):
    assert program.memory_of(text) == bytes_


@pytest.mark.parametrize("text", ["64", "64 MiB", "-1MB", 0, -5, True, 1.5, "lots"])
def test_no_sizes_of_memory(text):
    with pytest.raises(CellError, match="`memory` is"):
        zoo["rnn"].compile(backend="llvm", memory=text)


@pytest.mark.parametrize(("name", "reason"), [
    ("bidirectional", "more than one sweep|for all steps at once"), ("last_loss", "the end of the sequence|at once"),
    ("wholes", "more than a sum over all of `t`"), ("sums", "before the last sweep")])
def test_what_allows_no_stretches_says_why(name, reason):
    cell = cell_of(name) if name not in REFUSED else Cell(REFUSED[name])
    params, given = problem(cell, T=40)
    with pytest.raises(CellError, match=f"for one example; .*It takes a sequence whole: .*({reason})"):
        cell.compile(backend="llvm", memory=1000).gradient(params, **given)


def test_examples_that_read_one_another_are_not_shared_out():
    """A penalty on a gradient: each example's cotangents are made from the sum over all."""
    cell = Cell(str(Cell("h[t] = tanh(W @ x[t] + U @ h[t-1])").backward()) + "\nP = sum(dU**2)")
    params, given = problem(cell, T=30)
    with pytest.raises(CellError, match=r"an example's values are made from other examples'.\nLeave out `memory`"):
        cell.compile(backend="llvm", memory=2000).gradient(params, **given)


def test_a_budget_too_small_says_what_is_needed():
    params, given = sized(zoo["lstm"], 50, 4, np.float64)
    with pytest.raises(CellError, match=r"needs .* MB for one example; .* stretches of .*\nGive memory="):
        zoo["lstm"].compile(backend="llvm", memory=1000).gradient(params, **given)
    with pytest.raises(CellError, match="A NumPy program keeps to no budget"):
        zoo["lstm"].compile(backend="numpy", memory=1000)
