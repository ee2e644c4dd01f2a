"""LSTM, GRU and tanh RNN by hand in NumPy, as a careful engineer writes them for speed.

    prepare[cell](params, X) -> run() -> (outputs, gradients by name)

Input products of all steps are one product, weights of all gates one matrix, weight gradients one product after the
loop; every array is made once and written in place (a run's results last until the next). sigmoid(a) is
(tanh(a/2) + 1) / 2 with the half in the weights, so that all gates are one call. What the backward loop multiplies with
is computed for a few steps at once: enough to save calls, few enough to stay in cache.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

BLOCK = 32768  # numbers of one gate that are handled at once


def blocks(T: int, size: int) -> Iterator[slice]:
    """The steps from the last to the first, a few at a time."""
    few = max(1, BLOCK // size)
    for end in range(T, 0, -few):
        yield slice(max(0, end - few), end)


def stack(params: dict, letter: str, gates: str, halved: int) -> np.ndarray:
    """The gates' weights below each other; the first ones, which are sigmoids, halved."""
    whole = np.concatenate([params[f"{letter}_{gate}"] for gate in gates])
    whole[:halved * len(whole) // len(gates)] *= 0.5
    return whole


def unstack(wholes: dict[str, np.ndarray], gates: str, halved: int) -> dict[str, np.ndarray]:
    """Gradients by name, of weights that were stacked."""
    found = {}
    for letter, whole in wholes.items():
        whole[:halved * len(whole) // len(gates)] *= 0.5
        found |= {f"{letter}_{gate}": part for gate, part in zip(gates, np.split(whole, len(gates)))}
    return found


def lstm(params: dict, X: np.ndarray) -> Callable:
    """Gates in the order o, i, f, g: the sigmoids are neighbours, and so are those that c depends on."""
    (T, B, I), H, dtype = X.shape, len(params["b_i"]), X.dtype
    flat, ones = X.reshape(T * B, I), np.ones((1, T * B), dtype)
    A, D, F = np.empty((T, B, 4, H), dtype), np.empty((T, B, 4, H), dtype), np.empty((T, B, 4, H), dtype)
    h, c, s = (np.zeros((T + 1, B, H), dtype) for _ in range(3))  # s: tanh(c)
    dX, K = np.empty_like(flat), np.empty((T, B, H), dtype)
    R, tmp, dh, dc, carry = np.empty((B, 4 * H), dtype), *(np.empty((B, H), dtype) for _ in range(4))

    def run():
        W, U, b = (stack(params, letter, "oifg", 3) for letter in "WUb")
        UT = U.T.copy()
        rows = A.reshape(T * B, 4 * H)
        np.matmul(flat, W.T, out=rows)
        rows += b
        for t in range(T):
            a = A[t]
            np.matmul(h[t], UT, out=R)
            a += R.reshape(B, 4, H)
            np.tanh(a, out=a)
            gates = a[:, :3]
            gates *= 0.5
            gates += 0.5
            np.multiply(a[:, 2], c[t], out=c[t + 1])
            np.multiply(a[:, 1], a[:, 3], out=tmp)
            c[t + 1] += tmp
            np.tanh(c[t + 1], out=s[t + 1])
            np.multiply(a[:, 0], s[t + 1], out=h[t + 1])
        carry.fill(0)
        dc.fill(0)
        for few in blocks(T, B * H):
            o, i, g = (A[few, :, k] for k in (0, 1, 3))
            sigmoids, tanhs, G = A[few, :, :3], s[1:][few], F[few]
            np.subtract(1, sigmoids, out=G[:, :, :3])  # by the halved pre-activation: 2 s (1 - s)
            G[:, :, :3] *= sigmoids
            G[:, :, :3] *= 2
            G[:, :, 0] *= tanhs
            G[:, :, 1] *= g
            G[:, :, 2] *= c[few]
            np.multiply(g, g, out=G[:, :, 3])
            np.subtract(1, G[:, :, 3], out=G[:, :, 3])
            G[:, :, 3] *= i
            L = K[few]
            np.multiply(tanhs, tanhs, out=L)
            np.subtract(1, L, out=L)
            L *= o
            for t in range(few.stop - 1, few.start - 1, -1):
                np.add(carry, 1, out=dh)
                np.multiply(dh, K[t], out=tmp)
                np.add(dc, tmp, out=dc)
                np.multiply(dh, F[t, :, 0], out=D[t, :, 0])
                np.multiply(dc[:, None], F[t, :, 1:], out=D[t, :, 1:])
                np.multiply(dc, A[t, :, 2], out=dc)
                np.matmul(D[t].reshape(B, 4 * H), U, out=carry)
        deltas = D.reshape(T * B, 4 * H)
        wholes = {"W": deltas.T @ flat, "U": deltas.T @ h[:-1].reshape(T * B, H), "b": (ones @ deltas)[0]}
        np.matmul(deltas, W, out=dX)
        return h[1:], unstack(wholes, "oifg", 3) | {"x": dX.reshape(T, B, I)}

    return run


def gru_reset_after(params: dict, X: np.ndarray) -> Callable:
    """dh times a factor is the delta of n, r, z and of the product inside n (q), in this order: the first three go to
    the inputs, the last three to the state."""
    (T, B, I), H, dtype = X.shape, len(params["b_n"]), X.dtype
    flat, ones = X.reshape(T * B, I), np.ones((1, T * B), dtype)
    A, Q, F, D = (np.empty((T, B, k, H), dtype) for k in (3, 3, 4, 4))  # A: r, z, n; Q: the products with h
    h, dX = np.zeros((T + 1, B, H), dtype), np.empty_like(flat)
    tmp, dh, carry = (np.empty((B, H), dtype) for _ in range(3))

    def run():
        W, U, b = (stack(params, letter, "rzn", 2) for letter in "WUb")
        UT, b_Rn, rows = U.T.copy(), params["b_Rn"], A.reshape(T * B, 3 * H)
        np.matmul(flat, W.T, out=rows)
        rows += b
        for t in range(T):
            a, q = A[t], Q[t]
            np.matmul(h[t], UT, out=q.reshape(B, 3 * H))
            rz, n = a[:, :2], a[:, 2]
            rz += q[:, :2]
            np.tanh(rz, out=rz)
            rz *= 0.5
            rz += 0.5
            q[:, 2] += b_Rn
            np.multiply(a[:, 0], q[:, 2], out=tmp)
            n += tmp
            np.tanh(n, out=n)
            np.subtract(h[t], n, out=tmp)
            np.multiply(tmp, a[:, 1], out=tmp)
            np.add(tmp, n, out=h[t + 1])
        carry.fill(0)
        for few in blocks(T, B * H):
            (r, z, n), G = (A[few, :, k] for k in range(3)), F[few]
            N, rest = G[:, :, 0], Q[few, :, 0]  # what Q held of r is not needed again
            np.multiply(n, n, out=N)
            np.subtract(1, N, out=N)
            np.subtract(1, z, out=rest)
            N *= rest
            np.multiply(N, r, out=G[:, :, 3])
            np.subtract(1, r, out=G[:, :, 1])
            G[:, :, 1] *= G[:, :, 3]
            G[:, :, 1] *= Q[few, :, 2]
            np.subtract(h[few], n, out=G[:, :, 2])
            G[:, :, 2] *= rest
            G[:, :, 2] *= z
            G[:, :, 1:3] *= 2  # by the halved pre-activation
            for t in range(few.stop - 1, few.start - 1, -1):
                np.add(carry, 1, out=dh)
                np.multiply(dh[:, None], F[t], out=D[t])
                np.matmul(D[t].reshape(B, 4 * H)[:, H:], U, out=carry)
                np.multiply(dh, A[t, :, 1], out=tmp)
                np.add(carry, tmp, out=carry)
        deltas = D.reshape(T * B, 4 * H)
        sums = (ones @ deltas)[0]
        down, back = deltas[:, :3 * H], deltas[:, H:]
        V = np.concatenate([W[2 * H:], W[:2 * H]])  # n, r, z, as the deltas
        dV = np.roll(down.T @ flat, 2 * H, axis=0)  # r, z, n again
        np.matmul(down, V, out=dX)
        wholes = {"W": dV, "U": back.T @ h[:-1].reshape(T * B, H), "b": np.roll(sums[:3 * H], 2 * H)}
        return h[1:], unstack(wholes, "rzn", 2) | {"b_Rn": sums[3 * H:], "x": dX.reshape(T, B, I)}

    return run


def rnn(params: dict, X: np.ndarray) -> Callable:
    """The states themselves are where the pre-activations stood."""
    (T, B, I), H, dtype = X.shape, len(params["b"]), X.dtype
    flat, ones = X.reshape(T * B, I), np.ones((1, T * B), dtype)
    h, D, F = np.zeros((T + 1, B, H), dtype), np.empty((T, B, H), dtype), np.empty((T, B, H), dtype)
    R, carry, dX = np.empty((B, H), dtype), np.empty((B, H), dtype), np.empty_like(flat)

    def run():
        W, U, b = params["W"], params["U"], params["b"]
        UT, rows = U.T.copy(), h[1:].reshape(T * B, H)
        np.matmul(flat, W.T, out=rows)
        rows += b
        for t in range(T):
            np.matmul(h[t], UT, out=R)
            new = h[t + 1]
            new += R
            np.tanh(new, out=new)
        carry.fill(0)
        for few in blocks(T, B * H):
            np.multiply(h[1:][few], h[1:][few], out=F[few])
            np.subtract(1, F[few], out=F[few])
            for t in range(few.stop - 1, few.start - 1, -1):
                np.add(carry, 1, out=carry)
                np.multiply(carry, F[t], out=D[t])
                np.matmul(D[t], U, out=carry)
        deltas = D.reshape(T * B, H)
        np.matmul(deltas, W, out=dX)
        return h[1:], {"W": deltas.T @ flat, "U": deltas.T @ h[:-1].reshape(T * B, H), "b": (ones @ deltas)[0],
                       "x": dX.reshape(T, B, I)}

    return run


prepare = {"lstm": lstm, "gru_reset_after": gru_reset_after, "rnn": rnn}
