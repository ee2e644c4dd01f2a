"""Whole models: their tasks draw what they say and train, decoding finds what is likeliest, samples have a law."""

from itertools import product
from pathlib import Path

import numpy as np
import pytest

from autograd_rnn import Cell, CellError, zoo
from autograd_rnn.learn.decode import beam, greedy
from autograd_rnn.tasks import latent, tasks, translation
from autograd_rnn.tasks.bench import Run, carry_out

JSB = Path(__file__).parents[2] / "shared" / "data" / "polyphonic_music" / "JSB_Chorales.npz"
RNG = np.random.default_rng
MODELS = {"reverse": ("bahdanau", {"S": 3}), "copy": ("sutskever", {"S": 3, "l": 1}), "digit_pairs": ("xu", {}),
          "row_bound": ("storn", {"z": 2}), "wave_bound": ("storn_gauss", {"z": 2, "T": 5}),
          "image_bound": ("draw", {"z": 2, "glimpses": 2}), "music_bound": ("storn", {"z": 2, "path": str(JSB)}),
          "image_bound_attention": ("draw_attention", {"z": 2, "glimpses": 2, "i": 2, "j": 2})}


def test_every_task_of_whole_models_is_here():
    assert set(MODELS) == {name for name in tasks if tasks[name].text is None}


@pytest.mark.parametrize("name", MODELS)
def test_a_task_trains_its_model(name, tmp_path):
    cell, values = MODELS[name]
    if name == "music_bound" and not JSB.exists():
        pytest.skip("the chorales are not there")
    if "digits" in tasks[name].source:
        pytest.importorskip("sklearn", reason="the digits are scikit-learn's")
    run = Run.of(name, cell, values=values, steps=2, every=2, size=3, embedding=2, batch=2)
    result = carry_out(run, tmp_path)
    assert result["error"] is None and np.isfinite(result["test"]) and result["steps"] == 2
    if "bound" in name:
        task, model, data, params = run.begin()
        judged = [task.measured(model, params, data, data.valid) for _ in range(2)]
        assert judged[0] == judged[1], "noise is that of a seed where it is judged"


def test_what_is_no_model_is_refused():
    with pytest.raises(CellError, match="has no loss"):
        tasks["reverse"].model(zoo["lstm"])
    with pytest.raises(CellError, match="no layers or dropout"):
        tasks["reverse"].model(zoo["cho"], layers=2)
    with pytest.raises(CellError, match="`goal`"):
        Run.of("adding", "cho").begin()


@pytest.mark.parametrize("name, turn", [("reverse", slice(None, None, -1)), ("copy", slice(None))])
def test_sequences_told_again(name, turn):
    data = tasks[name].data(batch=100, length=0, seed=0, S=6, symbols=4)
    assert (data.test(0).lengths["s"] == 6).all() and set(data.train(0).lengths["s"]) == set(range(1, 7))
    batch = data.train(1)
    for n, length in enumerate(batch.lengths["s"]):
        source, k = batch.inputs["x"][:length, n].argmax(axis=-1), batch.inputs["k"][:, n]
        assert k[:length].tolist() == source[turn].tolist() and k[length] == 4 == data.outputs - 1
    right = {"y": np.eye(5)[batch.inputs["k"]]}
    assert not translation.any_wrong(right, batch).any()
    right["y"][0, 7] = -right["y"][0, 7]
    right["y"][-1] = 0
    wrong = translation.any_wrong(right, batch)
    assert wrong[7] == 1 and not wrong[(batch.lengths["t"] < 7) & (np.arange(100) != 7)].any()


def test_addition():
    batch = translation.addition(RNG(0), 50, n=2)
    seen, k = batch.inputs["x"].argmax(axis=-1), batch.inputs["k"]
    for s, told in zip(seen.T, k.T):
        a, b, found = (int("".join(map(str, part))) for part in (s[1:3], s[4:6], told[7:10]))
        assert a + b == found and (told[:7] == 10).all() and told[10] == 10 and (s[[0, 3]] == 10).all()
    right = {"y": np.eye(11)[k]}
    assert not translation.sum_wrong(right, batch).any()
    right["y"][8, 3] *= -1
    assert np.flatnonzero(translation.sum_wrong(right, batch)).tolist() == [3]


def test_pairs_of_digits_lie_side_by_side():
    pytest.importorskip("sklearn", reason="the digits are scikit-learn's")
    batch = tasks["digit_pairs"].data(batch=5, length=0, seed=0).train(0)
    pixels, digit = latent.digit_images()
    x = batch.inputs["x"]
    left = x[:4, 2, :16].reshape(2, 2, 4, 4).transpose(0, 2, 1, 3).ravel()
    (found,) = np.flatnonzero((pixels == left[:, None]).all(axis=0))[:1]
    assert digit[found] == batch.inputs["k"][0, 2] and (np.arange(8) == x[:, :, 16:].argmax(axis=-1).T).all()


def test_the_baseline_of_waves():
    x = latent.waves(4000, 0, 0, T=10).train(0).inputs["x"]
    assert np.log(2 * np.pi * np.e * x.var()) / 2 == pytest.approx(tasks["wave_bound"].baselines[
        "a Gaussian variable for each step"](T=10), abs=0.02)


# --- decoding ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["cho", "bahdanau", "sutskever", "xu"])
def test_decoding(name):
    """Width 1 is greedy; a beam that keeps all finds the maximum over all sequences."""
    _, model, _, params = Run.of("reverse", name, values={"symbols": 2, **({"l": 1} if name == "sutskever" else {})},
                                 size=3, embedding=2, dtype="float64", seed=4).begin()
    params = {n: 3 * v if np.asarray(v).dtype.kind == "f" and n != "lam" else v for n, v in params.items()}
    x, end, longest = np.eye(2)[[0, 1, 1]], 2, 4

    def told(classes):
        y = model.run(params, x=x, k=np.array(classes))["y"]
        return float((y[np.arange(len(classes)), classes] - np.logaddexp.reduce(y, axis=-1)).sum())

    classes, value = greedy(model, params, end, longest, x=x)
    assert beam(model, params, end, longest, 1, x=x) == (classes, value) and value == pytest.approx(told(classes))
    for t in range(len(classes)):
        others = [told([*classes[:t], n]) for n in range(3)]
        assert np.argmax(others) == classes[t]
    every = [list(p) for size in range(1, longest + 1) for p in product(range(3), repeat=size)
             if end not in p[:-1] and (p[-1] == end or size == longest)]
    best = max(every, key=told)
    found, value = beam(model, params, end, longest, 3**longest, x=x)
    assert found == best and value == pytest.approx(told(best))


def test_what_cannot_be_decoded_is_refused():
    with pytest.raises(CellError, match="reads back no class"):
        greedy(zoo["lstm"], {}, 0, 3)
    model = Cell("y[t] = b + W @ onehot(k[t-1])\nL = sum_t(cross_entropy(y[t], k[t]))")
    with pytest.raises(CellError, match="`width` is 0"):
        beam(model, {}, 0, 3, 0)


# --- samples -------------------------------------------------------------------------------------------------------


def test_samples_of_draw_do_not_depend_on_the_image():
    cell = zoo["draw"].substitute(z="eps[t]")
    params = zoo["draw"].init(seed=0, x=6, z=2, he=3, hd=3)
    eps = RNG(0).normal(size=(4, 10, 2))
    canvas, other = (cell.run(params, eps=eps, x=np.full((10, 6), value))["C"] for value in (0.0, 1.0))
    assert (canvas == other).all()
    assert canvas.shape == (4, 10, 6) and len(np.unique(canvas[-1], axis=0)) == 10


@pytest.mark.parametrize("name, z", [("storn", "eps[t]"), ("vrnn", "mu0[t] + sigma0[t] * eps[t]")])
def test_samples_step_by_step(name, z):
    """A step tells y[t] without x[t]; the same step, given what was drawn from it, gives the state to go on from."""
    cell, rng = zoo[name].substitute(z=z), RNG(0)
    params = zoo[name].init(seed=0, x=5, z=2, **{d: 3 for d in zoo[name].dims if d in (
        "h", "dec", "enc", "q", "prior", "phi_x", "phi_z")})
    state, drawn, told, noise = None, [], [], rng.normal(size=(6, 50, 2))
    for eps in noise:
        values, _ = cell.step(params, state, eps=eps, x=np.zeros((50, 5)))
        told.append(values["y"])
        drawn.append((rng.random((50, 5)) < 1 / (1 + np.exp(-values["y"]))).astype(float))
        _, state = cell.step(params, state, eps=eps, x=drawn[-1])
    again = cell.run(params, eps=noise, x=np.array(drawn))["y"]
    assert np.allclose(again, told, rtol=1e-12, atol=1e-12), "what was told is what the whole sequence tells"
    p = 1 / (1 + np.exp(-again))
    assert abs(np.mean(drawn) - p.mean()) < 4 * np.sqrt((p * (1 - p)).sum()) / p.size


def test_the_law_of_samples():
    """y = 2 eps + 1 at each step: mean 1, deviation 2."""
    cell = Cell("z[t] = mu[t] + eps[t]\ny[t] = 2 * z[t] + 1\nmu[t] = W @ x[t]\nloss = sum_t(sum((y[t] - x[t])**2))\n"
                "eps: noise(z)").substitute(z="eps[t]")
    y = cell.run({}, eps=RNG(0).normal(size=(5000, 1)))["y"]
    assert y.mean() == pytest.approx(1, abs=0.12) and y.std() == pytest.approx(2, abs=0.1)
