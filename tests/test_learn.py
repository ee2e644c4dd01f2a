"""Learning: optimisers against their equations and torch, clipping, schedules, truncated BPTT, checkpoints, text."""

import itertools
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from autograd_rnn import Cell, CellError, zoo
from autograd_rnn.learn import (
    Batch,
    Batches,
    Point,
    adam,
    adamw,
    advance,
    character_batches,
    character_model,
    character_sizes,
    clip_norm,
    clip_value,
    constant,
    cosine,
    decode,
    encode,
    exponential,
    fit,
    load,
    load_point,
    mean_loss,
    ngram_floors,
    python_topics,
    read_text,
    rmsprop,
    sample,
    save,
    save_point,
    sgd,
    shuffled,
    stalled,
    stepwise,
    streams,
    stretches,
    train,
)
from autograd_rnn.learn.session import Settings, begin, characters, merged, resume

CORPUS = Path(__file__).resolve().parents[2] / "shared" / "data" / "tinyshakespeare" / "input.txt"
RNG = np.random.default_rng(0)
TEXT = "the cat sat on the mat; the dog sat on the log. " * 12

OPTIMISERS = {  # ours, and the same in torch.optim
    "sgd": (sgd(0.1), "SGD", {"lr": 0.1}),
    "sgd decay": (sgd(0.1, decay=0.2), "SGD", {"lr": 0.1, "weight_decay": 0.2}),
    "momentum": (sgd(0.1, momentum=0.9), "SGD", {"lr": 0.1, "momentum": 0.9}),
    "nesterov": (sgd(0.1, 0.9, nesterov=True, decay=0.1), "SGD", {"lr": 0.1, "momentum": 0.9, "nesterov": True,
                                                                     "weight_decay": 0.1}),
    "rmsprop": (rmsprop(0.05), "RMSprop", {"lr": 0.05}),
    "rmsprop momentum": (rmsprop(0.02, 0.9, 1e-6, 0.8, 0.1), "RMSprop", {
        "lr": 0.02, "alpha": 0.9, "eps": 1e-6, "momentum": 0.8, "weight_decay": 0.1}),
    "adam": (adam(0.1), "Adam", {"lr": 0.1}),
    "adam decay": (adam(0.1, 0.8, 0.9, 1e-3, 0.3), "Adam", {
        "lr": 0.1, "betas": (0.8, 0.9), "eps": 1e-3, "weight_decay": 0.3}),
    "adamw": (adamw(0.1), "AdamW", {"lr": 0.1}),
    "adamw decay": (adamw(0.1, decay=0.5), "AdamW", {"lr": 0.1, "weight_decay": 0.5}),
}

# --- optimisers ---------------------------------------------------------------------------------------------------

GRADIENTS = RNG.normal(size=(7, 2, 3)) * np.logspace(-3, 2, 7)[:, None, None]


def by_equation(name: str, p: np.ndarray) -> np.ndarray:
    """The update equations written out, without state: sums over the history of gradients."""
    history: list[np.ndarray] = []
    for n, g in enumerate(GRADIENTS, 1):
        if name in ("sgd", "momentum"):
            history.append(g)
            mu = 0.9 if name == "momentum" else 0.0
            p = p - 0.1 * sum(mu**(n - 1 - k) * h for k, h in enumerate(history))
        elif name == "nesterov":
            history.append(g + 0.1 * p)
            v = sum(0.9**(n - 1 - k) * h for k, h in enumerate(history))
            p = p - 0.1 * (history[-1] + 0.9 * v)
        elif name == "rmsprop":
            history.append(g)
            s = sum(0.01 * 0.99**(n - 1 - k) * h**2 for k, h in enumerate(history))
            p = p - 0.05 * g / (np.sqrt(s) + 1e-8)
        else:
            history.append(g)
            if name == "adamw":
                p = p - 0.1 * 0.01 * p
            m = sum(0.1 * 0.9**(n - 1 - k) * h for k, h in enumerate(history)) / (1 - 0.9**n)
            v = sum(0.001 * 0.999**(n - 1 - k) * h**2 for k, h in enumerate(history)) / (1 - 0.999**n)
            p = p - 0.1 * m / (np.sqrt(v) + 1e-8)
    return p


def updated(optimiser, p, gradients, dtype=np.float64):
    params, state = {"w": p.astype(dtype)}, {}
    for g in gradients:
        params, state = optimiser.update(params, {"w": g.astype(dtype)}, state)
    return params["w"], state


@pytest.mark.parametrize("name", ["sgd", "momentum", "nesterov", "rmsprop", "adam", "adamw"])
def test_optimisers_follow_their_equations(name):
    start = RNG.normal(size=(2, 3))
    ours, _ = updated(OPTIMISERS[name][0], start, GRADIENTS)
    np.testing.assert_allclose(ours, by_equation(name, start), rtol=1e-12)


@pytest.mark.parametrize("name", OPTIMISERS)
def test_optimisers_agree_with_torch(name):
    torch = pytest.importorskip("torch", reason="torch is not installed")
    ours, kind, options = OPTIMISERS[name]
    start = RNG.normal(size=(2, 3))
    w = torch.tensor(start, dtype=torch.float64, requires_grad=True)
    theirs = getattr(torch.optim, kind)([w], **options)
    for g in GRADIENTS:
        w.grad = torch.tensor(g)
        theirs.step()
    np.testing.assert_allclose(updated(ours, start, GRADIENTS)[0], w.detach().numpy(), rtol=1e-12)


@pytest.mark.parametrize("name", OPTIMISERS)
def test_optimisers_keep_dtypes_and_leave_the_rest_alone(name):
    optimiser = OPTIMISERS[name][0]
    params = {"w": np.ones(3, np.float32), "b": np.asarray(2, np.float32), "l": np.asarray(4),
              "period": np.array([1.0, 2.0])}
    kept = {n: p.copy() for n, p in params.items()}
    state: dict = {}
    new = params
    for _ in range(3):
        new, state = optimiser.update(new, {"w": np.ones(3, np.float32), "b": np.ones((), np.float32),
                                            "h[0]": np.ones(3, np.float32), "x": np.ones((5, 3))}, state)
    assert new["w"].dtype == new["b"].dtype == np.float32 and set(new) == set(params)
    assert all(isinstance(p, np.ndarray) for p in new.values())
    assert new["l"] is params["l"] and new["period"] is params["period"]
    assert (new["w"] < 1).all() and new["b"] < 2
    assert all((params[n] == kept[n]).all() for n in params), "what was given has changed"
    assert all(array.dtype == np.float32 or slot == "steps" for s in state.values() for slot, array in s.items())


@pytest.mark.parametrize("name", OPTIMISERS)
def test_optimisers_find_the_bottom_of_a_bowl(name):
    optimiser, kind, options = OPTIMISERS[name]
    scale, bottom = np.array([1.0, 3.0, 0.3]), np.array([1.0, -2.0, 0.5])
    params, state = {"w": np.zeros(3)}, {}
    for n in range(600):
        gradient = scale * (params["w"] - bottom)
        params, state = optimiser.update(params, {"w": gradient}, state, optimiser.rate * 0.995**n)
    decay = options.get("weight_decay", 0.0)
    if kind == "AdamW":  # its decay is none of the gradient, and pulls with the strength of Adam's own steps
        assert (np.abs(params["w"]) <= np.abs(bottom)).all() and (np.sign(params["w"]) == np.sign(bottom)).all()
    else:
        np.testing.assert_allclose(params["w"], scale * bottom / (scale + decay), atol=2e-3)


def test_a_gradient_of_another_shape_is_refused():
    with pytest.raises(CellError, match=r"`w` has shape \(3,\)"):
        sgd(0.1).update({"w": np.ones((3, 1))}, {"w": np.ones(3)}, {})


# --- clipping and schedules ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("size", [1e-40, 1e-30, 1e-3, 1.0, 1e18, 1e25, 1e38])
@pytest.mark.parametrize("limit", [1e-3, 1.0, 1e30])
def test_clipping_by_norm_at_any_size(size, limit, dtype):
    given = {"a": (np.array([3.0, 0.0]) * size / 5).astype(dtype), "b": np.array([[4.0 * size / 5]]).astype(dtype)}
    clipped, norm = clip_norm(given, limit)
    tolerance = 1e-4 if size < 1e-38 and dtype == np.float32 else 1e-6  # the numbers themselves are that coarse
    assert norm == pytest.approx(size, rel=tolerance)
    assert all(clipped[n].dtype == dtype and clipped[n].shape == given[n].shape for n in given)
    if size < limit:
        assert all((clipped[n] == given[n]).all() for n in given)
    else:
        np.testing.assert_allclose(clipped["a"], [0.6 * limit, 0], rtol=1e-6)
        np.testing.assert_allclose(clipped["b"], [[0.8 * limit]], rtol=1e-6)


@pytest.mark.parametrize("clip", [lambda g, **o: clip_norm(g, 1.0, **o)[0], lambda g, **o: clip_value(g, 1.0, **o)])
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_clipping_refuses_what_is_not_finite(clip, bad):
    given = {"fine": np.ones(2), "bad": np.array([1.0, bad])}
    with pytest.raises(CellError, match="`bad` is not finite"):
        clip(given)
    assert not np.isnan(clip(given, finite=False)["fine"]).any()


def test_clipping_of_nothing_and_by_nothing():
    zero = {"a": np.zeros(3)}
    assert clip_norm(zero, 1.0)[1] == 0 and (clip_norm(zero, 1.0)[0]["a"] == 0).all()
    for clip in (clip_norm, clip_value):
        for limit in (0.0, -1.0, np.nan):
            with pytest.raises(CellError, match="limit"):
                clip({"a": np.ones(2)}, limit)


SCHEDULES = {
    "constant": (constant(0.5), {0: 0.5, 1000: 0.5}),
    "stepwise": (stepwise(0.8, 10, 0.5), {0: 0.8, 9: 0.8, 10: 0.4, 19: 0.4, 20: 0.2}),
    "exponential": (exponential(1.0, 10, 0.01), {0: 1.0, 5: 0.1, 10: 0.01, 20: 1e-4}),
    "cosine": (cosine(2.0, 100), {0: 2.0, 25: 1 + np.sqrt(0.5), 50: 1.0, 75: 1 - np.sqrt(0.5), 100: 0.0, 500: 0.0}),
    "warm-up": (cosine(2.0, 110, warmup=10, floor=1.0), {0: 0.2, 4: 1.0, 9: 2.0, 10: 2.0, 60: 1.5, 110: 1.0, 300: 1.0}),
}


@pytest.mark.parametrize("name", SCHEDULES)
def test_schedules(name):
    schedule, expected = SCHEDULES[name]
    assert {n: schedule(n) for n in expected} == pytest.approx(expected, abs=1e-15)


@pytest.mark.parametrize("make", [lambda: stepwise(1.0, 0), lambda: exponential(1.0, 0), lambda: cosine(1.0, 0),
                                  lambda: cosine(1.0, 10, warmup=10)])
def test_schedules_that_cannot_be(make):
    with pytest.raises(CellError):
        make()


# --- data ---------------------------------------------------------------------------------------------------------


def test_streams_are_contiguous_and_stretches_join_up():
    codes = np.arange(103)
    side_by_side = streams(codes, 4)
    assert side_by_side.shape == (25, 4)
    assert (side_by_side.T.ravel() == codes[:100]).all()
    batches = stretches({"k": side_by_side}, 7)
    parts = [batches(n) for n in range(batches.count)]
    assert (np.concatenate([p.inputs["k"] for p in parts]) == side_by_side).all()
    assert [p.fresh for p in parts] == [True, False, False, False]
    assert sum(p.targets for p in parts) == 100
    assert (batches(batches.count + 1).inputs["k"] == parts[1].inputs["k"]).all()


def test_shuffled_sequences_are_each_seen_once_an_epoch():
    x, lengths = np.arange(33.0).reshape(3, 11), np.arange(11)
    batches = shuffled({"x": x}, 3, seed=4, lengths=lengths, targets=lambda chosen: int(lengths[chosen].sum()))
    epochs = [[batches(e * batches.count + n) for n in range(batches.count)] for e in range(2)]
    orders = [np.concatenate([b.lengths for b in epoch]) for epoch in epochs]
    assert all(len(set(order)) == 9 for order in orders) and (orders[0] != orders[1]).any()
    for batch in epochs[0]:
        assert (batch.inputs["x"] == x[:, batch.lengths]).all() and batch.targets == batch.lengths.sum()
    again = shuffled({"x": x}, 3, seed=4, lengths=lengths)
    assert (again(4).lengths == epochs[1][1].lengths).all()


@pytest.mark.parametrize("make", [
    lambda: streams(np.arange(3), 4), lambda: streams(np.arange(3), 0), lambda: stretches({}, 2),
    lambda: stretches({"a": np.zeros((4, 2)), "b": np.zeros((5, 2))}, 2), lambda: stretches({"a": np.zeros((4, 2))}, 0),
    lambda: shuffled({"a": np.zeros((4, 2))}, 3, seed=0)])
def test_data_that_cannot_be_cut(make):
    with pytest.raises(CellError):
        make()


# --- truncated BPTT -----------------------------------------------------------------------------------------------

CARRIED = Cell("""
    h[t] = tanh(W @ x[t] + V @ x[t-1] + U @ h[t-1] + a) * (1 + sin(t) / 2)
    q[t] = R @ onehot(k[t-1]) + h[t]
    L = sum_t(cross_entropy(q[t], k[t]))
""")


def carried_problem(steps=23, batch=3):
    rng = np.random.default_rng(5)
    params = CARRIED.init(seed=1, x=2, h=4)
    return params, {"x": rng.normal(size=(steps, batch, 2)), "k": rng.integers(0, 4, (steps, batch))}


def test_stretches_give_the_values_of_one_long_run():
    params, inputs = carried_problem()
    whole = CARRIED.run(params, **inputs)
    still = sgd(0.0)
    points = list(train(CARRIED, params, stretches(inputs, 5), 5, still))
    assert sum(p.loss * n * 3 for p, n in zip(points, (5, 5, 5, 5, 3))) == pytest.approx(whole["L"].sum(), rel=1e-13)
    final = points[-1].carried
    assert final["t"] == whole.final["t"] == 23
    for name in ("h", "x", "k"):
        np.testing.assert_allclose(final[name], whole.final[name], rtol=1e-13)
    assert mean_loss(CARRIED, params, stretches(inputs, 5)) == pytest.approx(whole["L"].sum() / 69, rel=1e-13)
    sixth = advance(CARRIED, points[-1], stretches(inputs, 5)(5), still)
    assert sixth.loss == pytest.approx(points[0].loss, rel=1e-13), "the stream begins anew, so must its state"


def test_gradient_and_final_is_gradient_and_the_trace_of_run():
    params, inputs = carried_problem()
    value, gradients, final = CARRIED.gradient_and_final(params, **inputs)
    plain_value, plain = CARRIED.gradient(params, **inputs)
    trace = CARRIED.run(params, **inputs)
    assert value == plain_value and set(gradients) == set(plain)
    assert all((gradients[n] == plain[n]).all() for n in plain)
    assert set(final) == set(trace.final)
    assert all((np.asarray(final[n]) == trace.final[n]).all() for n in final)


def test_a_stretch_as_long_as_the_stream_has_the_whole_gradient():
    params, inputs = carried_problem()
    _, whole = CARRIED.gradient(params, **inputs)
    for length, equal in ((23, True), (22, False)):
        moved = next(train(CARRIED, params, stretches(inputs, length), 1, sgd(1.0)))
        step = (params["U"] - moved.params["U"]) * min(length, 23) * 3
        assert np.allclose(step, whole["U"], rtol=1e-10) == equal


def test_each_step_divides_by_its_targets_and_clips():
    params, inputs = carried_problem()
    _, gradients = CARRIED.gradient(params, **inputs)
    norm = np.sqrt(sum(np.sum(gradients[n]**2) for n in CARRIED.parameters)) / 69
    point = next(train(CARRIED, params, stretches(inputs, 23), 1, sgd(1.0), clip=norm / 4))
    assert point.norm == pytest.approx(norm)
    for name in CARRIED.parameters:
        np.testing.assert_allclose(params[name] - point.params[name], gradients[name] / 69 / 4, rtol=1e-9, atol=1e-15)


# --- what is not finite -------------------------------------------------------------------------------------------


def test_nan_is_named_and_never_trained_on():
    params, inputs = carried_problem()
    for name in ("x", "W"):
        bad_params, bad_inputs = dict(params), dict(inputs)
        source = bad_inputs if name == "x" else bad_params
        source[name] = source[name].copy()
        source[name][1, 1] = np.nan
        with pytest.raises(CellError, match=rf"step 1\..*`{name}` is not finite at \[1, 1"):
            next(train(CARRIED, bad_params, stretches(bad_inputs, 5), 1, sgd(0.1)))


def test_nan_that_the_loss_does_not_see_is_refused_too():
    cell = Cell("y[t] = w * where(x[t] > 0, 1, 0)\nL = sum_t(y[t]**2)\nx: input()\nw: ()")
    x = np.array([[1.0], [np.nan]])
    value, _ = cell.gradient({"w": 1.0}, x=x)
    assert np.isfinite(value)
    one = Batches(1, lambda step: Batch({"x": x}, 2))
    with pytest.raises(CellError, match="`x` is not finite"):
        next(train(cell, {"w": np.array(1.0)}, one, 1, sgd(0.1)))
    padded = Batches(1, lambda step: Batch({"x": x}, 1, lengths=np.array([1])))
    assert next(train(cell, {"w": np.array(1.0)}, padded, 1, sgd(0.1))).params["w"] == pytest.approx(0.8)


def test_divergence_names_variable_and_step_and_keeps_the_last_good_point():
    cell = Cell("h[t] = w * h[t-1] + x[t]\nL = sum_t(h[t]**2)\nx: input()\nw: ()")
    one = Batches(1, lambda step: Batch({"x": np.ones(40)}, 40))
    kept: list[Point] = []
    with pytest.raises(CellError, match=r"Training stopped at step (\d+).*`\w+`") as error:
        fit(cell, {"w": np.array(1.5)}, one, 50, sgd(1.0), keep=kept.append)
    (good,) = kept
    assert f"step {good.step + 2}" in str(error.value) or good.step == 0
    assert np.isfinite(cell.gradient(good.params, x=np.ones(40))[0])


# --- fit ----------------------------------------------------------------------------------------------------------

LINE = Cell("y[t] = w * x[t] + b\nL = sum_t((y[t] - 2 * x[t] - 1)**2)\nx: input()\nw: ()\nb: ()")
POINTS = Batches(1, lambda step: Batch({"x": np.linspace(-1, 1, 9)}, 9))
AT_ZERO = {"w": np.array(0.0), "b": np.array(0.0)}


def test_fit_learns_a_line():
    seen: list[int] = []
    point = fit(LINE, AT_ZERO, POINTS, 200, adam(0.1), cosine(0.1, 200), report=lambda p: seen.append(p.step))
    assert seen == list(range(1, 201)) and point.step == 200
    assert point.params["w"] == pytest.approx(2, abs=1e-3) and point.params["b"] == pytest.approx(1, abs=1e-3)


def test_fit_stops_early_and_remembers_the_best():
    losses = iter([5.0, 3.0, 4.0, 3.5, 3.0, 1.0])
    params_at: list[dict] = []

    def validate(params):
        params_at.append(params)
        return next(losses)

    point = fit(LINE, AT_ZERO, POINTS, 100, sgd(0.01), validate=validate, every=2, patience=3)
    assert point.history == ((2, 5.0), (4, 3.0), (6, 4.0), (8, 3.5), (10, 3.0)) and point.step == 10
    assert point.best is params_at[1]


@pytest.mark.parametrize("losses, patience, stop", [
    ([], 1, False), ([1.0], 1, False), ([1.0, 1.0], 1, True), ([1.0, 0.9], 1, False), ([1.0, 2.0, 3.0], 3, False),
    ([1.0, 2.0, 3.0, 4.0], 3, True), ([1.0, 2.0, 3.0, 0.5], 3, False)])
def test_stalled(losses, patience, stop):
    assert stalled(losses, patience) is stop


def test_an_interrupt_keeps_where_training_stands():
    kept: list[Point] = []

    def at(step):
        if step == 3:
            raise KeyboardInterrupt
        return POINTS(step)

    with pytest.raises(KeyboardInterrupt):
        fit(LINE, AT_ZERO, Batches(1, at), 10, sgd(0.1), keep=kept.append)
    assert [p.step for p in kept] == [3]


# --- files --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.longdouble])
def test_parameters_come_back_with_their_cell(tmp_path, dtype):
    model = character_model(zoo["gru"], layers=2, dropout=0.5)
    params = model.init(seed=3, dtype=dtype, e=2, h1=3, h2=4, y=5)
    save(tmp_path / "m.npz", model, params)
    cell, found = load(tmp_path / "m.npz")
    assert cell == model and cell.name == model.name
    assert list(found) == list(params)
    assert all(found[n].dtype == dtype and (found[n] == params[n]).all() for n in params)
    k = np.arange(4)
    assert cell.run(found, k=k, noise=1)["L"] == model.run(params, k=k, noise=1)["L"]


def test_sizes_of_model_indices_come_back_as_whole_numbers(tmp_path):
    params = {**AT_ZERO, "l": np.asarray(3)}
    save(tmp_path / "m.npz", LINE, params)
    assert load(tmp_path / "m.npz")[1]["l"].dtype.kind == "i"


def test_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "m.npz"
    save(path, LINE, AT_ZERO)
    before = path.read_bytes()
    monkeypatch.setattr(os, "replace", lambda *_: (_ for _ in ()).throw(OSError("killed")))
    with pytest.raises(OSError, match="killed"):
        save(path, LINE, {"w": np.array(9.0), "b": np.array(9.0)})
    assert path.read_bytes() == before and os.listdir(tmp_path) == ["m.npz"]


def test_files_that_are_none_of_ours(tmp_path):
    path = tmp_path / "m.npz"
    for content in (b"", b"hello", b"PK\x03\x04 broken"):
        path.write_bytes(content)
        with pytest.raises(CellError, match="does not end with a digest"):
            load(path)
    np.savez(path, w=np.ones(3))
    with pytest.raises(CellError, match="does not end with a digest"):
        load(path)
    save(path, LINE, AT_ZERO)
    with pytest.raises(CellError, match="not where training stood"):
        load_point(path)
    with pytest.raises(FileNotFoundError):
        load(tmp_path / "none.npz")


@pytest.mark.parametrize("optimiser", [sgd(0.1, momentum=0.9), rmsprop(0.01), adam(0.01)], ids=lambda o: o.name)
def test_a_resumed_run_gives_the_same_bits(tmp_path, optimiser):
    model = character_model(zoo["lstm"], layers=2, dropout=0.3)
    text = encode(TEXT)
    params = model.init(seed=0, dtype=np.float32, **character_sizes(model, text.alphabet, 5, 4))
    batches = character_batches(model, text.train, 3, 7)
    schedule = cosine(optimiser.rate, 12, warmup=2)
    whole = list(train(model, Point(params, seed=11), batches, 12, optimiser, schedule, clip=0.1))
    half = list(train(model, Point(params, seed=11), batches, 5, optimiser, schedule, clip=0.1))[-1]
    half = replace(half, history=((5, 1.25),), best={n: p + 1 for n, p in half.params.items()})
    save_point(tmp_path / "p.npz", model, half, {"note": 1})
    cell, point, about = load_point(tmp_path / "p.npz")
    assert cell == model and about == {"note": 1} and point.history == half.history
    assert all((point.best[n] == half.best[n]).all() for n in half.best)
    _, shown = load(tmp_path / "p.npz")
    assert all((shown[n] == half.best[n]).all() for n in half.best)
    rest = list(train(cell, point, batches, 12, optimiser, schedule, clip=0.1))
    assert [p.loss for p in rest] == [p.loss for p in whole[5:]]
    assert all((rest[-1].params[n] == whole[-1].params[n]).all() for n in params)
    other = list(train(cell, replace(point, seed=12), batches, 12, optimiser, schedule, clip=0.1))
    assert other[-1].loss != rest[-1].loss, "dropout is not drawn from the seed"


# --- text and character models ------------------------------------------------------------------------------------


def test_text_is_split_and_comes_back():
    text = encode(TEXT)
    assert decode(text.alphabet, text.train) + decode(text.alphabet, text.validation) == TEXT
    assert len(text.validation) == len(TEXT) // 10
    with pytest.raises(CellError, match="'c'"):
        encode("abcd", alphabet="abd")
    with pytest.raises(CellError, match="cannot be split"):
        encode("ab")


def test_a_file_that_is_no_text(tmp_path):
    (tmp_path / "t.txt").write_bytes(b"caf\xe9")
    with pytest.raises(CellError, match=r"not UTF-8 text: byte 3"):
        read_text(tmp_path / "t.txt")


def test_the_default_text_is_clean():
    text = python_topics()
    assert len(text) > 100_000
    assert min(text.count(c) for c in set(text)) >= 90 and set("etaoin .\n") < set(text)


def test_floors_by_hand():
    text = encode("abab" * 25, held_out=0.1)  # 90 characters to count, 10 to judge
    counts = np.array([45, 45])
    p1 = (counts + 2 / 2) / 92
    after_a, after_b = (45 + p1[1]) / 46, (44 + p1[0]) / 45
    unigram, bigram = ngram_floors(text)
    assert unigram == pytest.approx(-np.log(p1).mean())
    first = text.validation[0]
    assert first == 0 and bigram == pytest.approx(-(5 * np.log(after_b) + 5 * np.log(after_a)) / 10)


def test_floors_where_more_than_one_character_follows():
    text = encode("aab" * 30)
    train = [text.alphabet[n] for n in text.train]
    pairs = list(itertools.pairwise(train))
    single = {c: (train.count(c) + 2 / 2) / (len(train) + 2) for c in "ab"}
    nats = []
    for before, c in zip([train[-1], *decode(text.alphabet, text.validation)], decode(text.alphabet, text.validation)):
        followers = [d for b, d in pairs if b == before]
        kinds = len(set(followers))
        nats.append(-np.log((followers.count(c) + kinds * single[c]) / (len(followers) + kinds)))
    assert ngram_floors(text)[1] == pytest.approx(np.mean(nats), rel=1e-12)


def test_floors_of_tinyshakespeare():
    if not CORPUS.exists():
        pytest.skip(f"{CORPUS} is not there")
    unigram, bigram = ngram_floors(encode(read_text(CORPUS)))
    assert unigram == pytest.approx(3.347, abs=0.005) and bigram == pytest.approx(2.486, abs=0.005)


@pytest.mark.parametrize("name", ["rnn", "lstm", "gru", "lstm_peephole"])
@pytest.mark.parametrize("layers, dropout", [(1, 0.0), (2, 0.5)])
def test_character_models_are_right(name, layers, dropout):
    model = character_model(zoo[name], layers, dropout)
    params = model.init(seed=0, **character_sizes(model, "abcd", size=3, embedding=2))
    assert params["E"].shape == (2, 4) and params["V"].shape == (4, 3)
    given = {"noise": 3} if dropout else {}
    report = model.check_gradients(params, k=np.array([[0, 1], [2, 3], [1, 1]]), **given)
    assert report.ok and report.count > 10, report


@pytest.mark.parametrize("text", ["h[t] = tanh(x[t] + z[t])", "h[t] = tanh(w * t)", "y[t] = sum(x[t])",
                                  "h[t] = tanh(W @ onehot(k[t]) + U @ h[t-1])", "h[t] = x[t]\nL = sum_t(sum(h[t]))"])
def test_what_is_no_layer_is_refused(text):
    with pytest.raises(CellError):
        character_model(Cell(text))


def test_dropout_is_of_equations():
    model = character_model(zoo["rnn"], dropout=0.25)
    params = model.init(seed=0, e=3, h1=400, y=5)
    k = np.zeros((20, 8), int)
    drawn, mean = model.run(params, k=k, noise=0), model.run(params, k=k, noise="mean")
    assert (drawn["keep1"] == 1).mean() == pytest.approx(0.75, abs=0.01)
    assert set(np.unique(drawn["keep1"])) == {0.0, 1.0}
    np.testing.assert_allclose(drawn["d1"], drawn["h1"] * drawn["keep1"] / 0.75)
    np.testing.assert_allclose(mean["d1"], mean["h1"], rtol=1e-12)
    batches = stretches({"k": k}, 20)
    assert mean_loss(model, params, batches) == pytest.approx(mean["L"].sum() / k.size, rel=1e-12)
    first, second = (p.loss for p in train(model, params, batches, 2, sgd(0.0)))
    assert first != second, "each step draws its own noise"


def test_a_goal_ends_training_when_it_is_reached():
    cell = Cell("y[t] = w * x[t]\nL = sum_t((y[t] - 2 * x[t])**2)\nx: input()\nw: ()")
    batches = Batches(1, lambda step: Batch({"x": np.array([1.0])}, targets=1))
    told = dict(validate=lambda params: mean_loss(cell, params, batches), every=2)
    ended = fit(cell, {"w": np.array(0.0)}, batches, 100, sgd(0.1), goal=1e-3, **told)
    losses = [loss for _, loss in ended.history]
    assert ended.step < 100 and losses[-1] <= 1e-3 < losses[-2]
    assert fit(cell, {"w": np.array(0.0)}, batches, 100, sgd(0.1), **told).step == 100


def test_a_program_trains_as_its_cell_does():
    cell = Cell("h[t] = tanh(W @ x[t] + U @ h[t-1])\nL = sum_t(mse(h[t], goal[t]))")
    params = cell.init(seed=0, x=2, h=3)
    batches = stretches({"x": RNG.normal(size=(8, 2, 2)), "goal": RNG.normal(size=(8, 2, 3))}, 3)
    ours, program = (list(train(c, params, batches, 5, adam(0.1)))[-1] for c in (cell, cell.compile(threads=1)))
    assert all((ours.params[n] == program.params[n]).all() for n in params) and ours.loss == program.loss


def test_training_lowers_the_loss_below_the_bigram_floor():
    text = encode(TEXT)
    model = character_model(zoo["gru"])
    params = model.init(seed=0, dtype=np.float32, **character_sizes(model, text.alphabet, 24, 8))
    points = list(train(model, params, character_batches(model, text.train, 4, 16), 120, adam(0.02), clip=1.0))
    assert points[0].loss == pytest.approx(np.log(len(text.alphabet)), rel=0.1)
    held_out = mean_loss(model, points[-1].params, character_batches(model, text.validation, 1, 20))
    assert held_out < ngram_floors(text)[1] < points[0].loss
    drawn = sample(model, points[-1].params, text.alphabet, 40, temperature=0, prompt="the cat ")
    assert drawn.startswith("sat on the ")


def test_sampling_steps_as_the_run_does():
    text = encode(TEXT)
    model = character_model(zoo["lstm"], layers=2, dropout=0.2)
    params = model.init(seed=2, **character_sizes(model, text.alphabet, 6, 4))
    params["V"] = params["V"] * 20
    drawn = sample(model, params, text.alphabet, 12, temperature=0, prompt="the")
    codes = np.array([text.alphabet.index(c) for c in "the" + drawn])
    assert (model.run(params, k=codes, noise="mean")["y"].argmax(axis=1)[3:] == codes[3:]).all()
    assert sample(model, params, text.alphabet, 12, temperature=1e-6, prompt="the") == drawn
    first, other, again = (sample(model, params, text.alphabet, 12, 2.0, seed=seed) for seed in (1, 2, 1))
    assert first == again != other
    with pytest.raises(CellError, match="prompt"):
        sample(model, params, text.alphabet, 1, prompt="?")
    with pytest.raises(CellError, match="temperature"):
        sample(model, params, text.alphabet, 1, temperature=-1.0)


# --- sessions -----------------------------------------------------------------------------------------------------

SMALL = Settings(size=6, embedding=4, batch=3, length=8, steps=8, every=4, dropout=0.2)


def test_a_resumed_session_gives_the_same_bits(tmp_path):
    straight = characters(*begin(zoo["gru"], TEXT, SMALL), SMALL, save=tmp_path / "a.npz", progress=False)
    first = replace(SMALL, steps=5, schedule="constant", lr=0.01)
    rest = replace(first, steps=8)
    characters(*begin(zoo["gru"], TEXT, first), first, save=tmp_path / "b.npz", progress=False)
    whole = characters(*begin(zoo["gru"], TEXT, rest), rest, progress=False)
    model, point, text, saved = resume(tmp_path / "b.npz", TEXT)
    assert point.step == 5 and merged(saved, {"steps": 8}) == rest
    again = characters(model, point, text, merged(saved, {"steps": 8}), progress=False)
    assert again.point.loss == whole.point.loss
    assert all((again.point.params[n] == whole.point.params[n]).all() for n in whole.point.params)
    assert straight.point.loss != whole.point.loss
    cell, params = load(tmp_path / "a.npz")
    assert cell == straight.model and all((params[n] == straight.params[n]).all() for n in params)
    with pytest.raises(CellError, match="size 6, not 7"):
        merged(saved, {"size": 7})
    with pytest.raises(CellError, match="alphabet"):
        resume(tmp_path / "b.npz", "ABC" * 40)


def test_a_session_gives_the_best_validated_parameters():
    wild = replace(SMALL, every=1, steps=6, lr=1.0, schedule="constant", clip=0.0, dropout=0.0)
    result = characters(*begin(zoo["gru"], TEXT, wild), wild, progress=False)
    losses = [loss for _, loss in result.point.history]
    assert min(losses) < losses[-1], "the session was to get worse"
    assert result.validation == pytest.approx(min(losses), rel=1e-6), "the whole validation text is short here"
    tame = replace(wild, lr=0.01, optimiser="sgd")
    still = replace(tame, clip=1e-9)
    moved, held = (characters(*begin(zoo["gru"], TEXT, s), s, progress=False).params["V"] for s in (tame, still))
    start = begin(zoo["gru"], TEXT, wild)[1].params["V"]
    assert np.abs(moved - start).max() > 1e-5 > np.abs(held - start).max()


@pytest.mark.parametrize("wrong", [{"every": 0}, {"batch": 0}, {"size": -1}, {"lr": -1.0}, {"clip": np.nan},
                                   {"optimiser": "sdg"}, {"dtype": "float16"}, {"patience": -1}])
def test_settings_that_cannot_be(wrong):
    with pytest.raises(CellError, match=next(iter(wrong))):
        Settings(**wrong)


# --- slips ------------------------------------------------------------------------------------------------------------

SLIPS = {"optimiser": ["adam", adam, 0.1, None], "batches": [[], {}, Batch({}, 1)], "start": [None, "m.npz"],
         "steps": ["3", 1.5], "schedule": [0.1, "cosine"], "clip": ["1"], "validate": [0.3], "every": [0, -1, 2.0],
         "patience": [0, -1]}


@pytest.mark.parametrize("name, value", [(n, v) for n, values in SLIPS.items() for v in values])
def test_a_wrong_argument_of_fit_is_named_before_anything_is_trained(name, value):
    batches = Batches(1, lambda step: Batch({"x": np.ones(2)}, 1))
    good = dict(cell=LINE, start=AT_ZERO, batches=batches, steps=2, optimiser=sgd(0.1))
    kept = []
    with pytest.raises(CellError, match=f"^`{name}` is "):
        fit(**{**good, name: value}, keep=kept.append)
    assert not kept
    if name in good or name in ("schedule", "clip"):
        with pytest.raises(CellError, match=f"^`{name}` is "):
            next(train(**{**good, name: value}))


def test_other_slips_of_learning_are_named():
    model = character_model(zoo["rnn"])
    params = model.init(**character_sizes(model, "abc", 4, 3))
    for slip, message in [
            (lambda: character_model("lstm"), "no cell"),
            (lambda: character_model(zoo["rnn"], layers=1.5), "1.5 layers"),
            (lambda: sample(model, params, "abc", 2, temperature=float("nan")), "temperature"),
            (lambda: sample(model, params, "abc", 2, seed=-1), "seed=-1"),
            (lambda: sample(model, params, "ab", 2), "alphabet has 2"),
            (lambda: encode(b"abc"), "not bytes"), (lambda: stretches(np.ones((3, 2)), 1), "ndarray"),
            (lambda: shuffled({"x": np.ones(3)}, 1, 0), "number of examples"),
            (lambda: shuffled({"x": np.ones((3, 2))}, 1, -1), "seed=-1"),
            (lambda: mean_loss(model, params, Batch({}, 1)), "`batches` is")]:
        with pytest.raises(CellError, match=message):
            slip()


def test_a_loss_without_its_targets_says_so():
    cell = Cell("h[t] = W @ x[t]\nL = sum_t(mse(h[t], y[t]))")
    batches = stretches({"x": np.ones((4, 2, 2))}, 2)
    with pytest.raises(CellError, match="`y` is missing"):
        mean_loss(cell, cell.init(x=2, h=3), batches)


def test_rules_are_not_saved_and_training_that_goes_on_needs_none(tmp_path):
    cell = Cell("h[t] = w * x[t] + b\nL = sum_t(sum((h[t] - y[t])**2))\nb: (h)").initialised(b=3.0)
    params = cell.init(h=2)
    assert (params["b"] == 3).all()
    save(tmp_path / "m.npz", cell, params)
    again, loaded = load(tmp_path / "m.npz")
    assert again == cell and (loaded["b"] == 3).all() and (again.init(h=2)["b"] == 0).all()
    batches = stretches({n: RNG.normal(size=(6, 2, 2)) for n in "xy"}, 2)
    one, two = (list(train(c, p, batches, 4, adam(0.1)))[-1] for c, p in ((cell, params), (again, loaded)))
    assert all((one.params[n] == two.params[n]).all() for n in params)


def test_a_called_cell_brings_all_its_rules():
    inner = Cell("h[t] = tanh(W @ x[t] + U @ h[t-1] + b)").initialised(default=2.0, U=3.0)
    outer = Cell("y[t] = inner(x=x[t])\nz[t] = V @ y[t]", inner=inner)
    params = outer.init(x=1, y=2, z=1)
    assert {n: float(p.flat[0]) for n, p in params.items() if n != "V"} == {"y_W": 2.0, "y_U": 3.0, "y_b": 0.0}
    assert abs(params["V"]).max() < 1
