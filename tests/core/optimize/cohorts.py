"""Cohorts for the solvers, ordinary and awkward, and what their results are held to."""

import numpy as np


def draw(n, genes, n_cell_types, seed=0):
    rng = np.random.default_rng(seed)
    R = rng.standard_normal((n_cell_types, genes))
    theta = rng.dirichlet(np.ones(n_cell_types), n)
    return theta @ R + 0.5 * rng.standard_normal((n, genes)), R, theta


def assert_same(got, expected, rtol):
    np.testing.assert_allclose(np.linalg.norm(got - expected), 0, atol=rtol * np.linalg.norm(expected))


def awkward(kind, seed=0):
    """Cohorts that break bases: too few of something, or too much of the same."""
    X, R, theta = draw(12, 40, 3, seed)
    if kind == "rank-deficient bulk":
        X = X[:, :2] @ R[:2]
    elif kind == "duplicated samples":
        X[6:], theta[6:] = X[:6], theta[:6]
    elif kind == "duplicated profiles":
        R[1] = R[0]
    elif kind == "nearly dependent samples":
        X = R[0] + 1e-9 * X
    elif kind == "constant genes":
        X[:, ::2], R[:, ::2] = 3.0, 3.0
    elif kind == "zero genes":
        X[:, ::2], R[:, ::2] = 0.0, 0.0
    elif kind == "a zero sample":
        X[3] = 0.0
    elif kind == "bulk equal to one profile":
        X[:] = R[0]
    elif kind == "samples of very different size":
        X *= np.geomspace(1e-6, 1e6, len(X))[:, None]
    elif kind == "reference far from the bulk":
        R *= 1e6
    elif kind == "all zero":
        X[:], R[:] = 0.0, 0.0
    return X, R, theta


KINDS = [
    "rank-deficient bulk",
    "duplicated samples",
    "duplicated profiles",
    "nearly dependent samples",
    "constant genes",
    "zero genes",
    "a zero sample",
    "bulk equal to one profile",
    "samples of very different size",
    "reference far from the bulk",
    "all zero",
]


def value_of_f(P, X, R, theta, alpha, beta):
    """F of the maximum-L2-norm model, as its formula reads."""
    e = np.einsum("jk,jkg->jg", theta, P) - X
    largest = np.max(np.sum(P**2, axis=2), axis=0)
    return (
        alpha * np.sum(e**2) + (1 - alpha) * np.sum((P.mean(axis=0) - R) ** 2) + 0.5 * beta * np.sum(largest)
    )
