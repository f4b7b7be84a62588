"""The published iteration as its formulas read: whole tensors over all genes, nothing clever.

Tests hold the package to it, benchmarks compare with it.
"""

import numpy as np

# Relative size up to which a gradient is rounding noise and not rescaled.
ROUNDING = 128 * np.finfo(np.float64).eps


def squash_caps(norms, weight):
    """Cap per column: with v sorted descending, (Σ_{i≤q} v_i) / (q + weight) for the largest q it leaves cut."""
    caps = np.empty(norms.shape[1])
    for k, column in enumerate(norms.T):
        v = np.sort(column)[::-1]
        candidates = np.cumsum(v) / (np.arange(1, len(v) + 1) + weight)
        caps[k] = candidates[np.flatnonzero(v >= candidates)[-1]]
    return caps


def l2max_proximal(X, R, theta, *, alpha, beta, tao_k, renorm_size, epsilon, max_iter, tick=None):
    """P (n, K, g), loss (iterations, 3), gradient norms (iterations - 1, 2), changes (iterations, K).

    ``tick()`` is called after each evaluation.
    """
    n, n_cell_types = theta.shape
    P = np.repeat(X[:, None], n_cell_types, axis=1)
    weight = np.sum(theta**2, axis=1)
    noise = ROUNDING * np.array(
        [
            2 * np.sqrt(weight @ np.sum(X**2, axis=1)),
            2 / np.sqrt(n) * (np.sqrt(n_cell_types / n) * np.linalg.norm(X) + np.linalg.norm(R)),
        ]
    )
    loss, gradient_norm, delta = [], [], []
    for iteration in range(max_iter):
        e = np.einsum("jk,jkg->jg", theta, P) - X
        m = P.mean(axis=0) - R
        norms = np.array([2 * np.sqrt(weight @ np.sum(e**2, axis=1)), 2 / np.sqrt(n) * np.linalg.norm(m)])
        factors = np.ones(2)
        if renorm_size is not None:
            factors = np.array([renorm_size / v if v > z else 0.0 for v, z in zip(norms, noise, strict=True)])
        loss.append([np.sum(e**2), np.sum((P - R) ** 2), np.sum(np.max(np.sum(P**2, axis=2), axis=0))])
        V = P - tao_k * alpha * factors[0] * 2 * theta[:, :, None] * e[:, None]
        V -= tao_k * (1 - alpha) * factors[1] * (2 / n) * m
        lengths = np.linalg.norm(V, axis=2)
        caps = squash_caps(lengths, tao_k * beta)
        V *= np.divide(caps, lengths, out=np.ones_like(lengths), where=lengths > caps)[:, :, None]
        delta.append(np.sum((V - P) ** 2, axis=(0, 2)))
        if tick is not None:
            tick()
        if np.max(delta[-1]) < epsilon or iteration + 1 == max_iter:
            break
        gradient_norm.append(norms)
        P = V
    return P, np.array(loss), np.reshape(gradient_norm, (-1, 2)), np.array(delta)
