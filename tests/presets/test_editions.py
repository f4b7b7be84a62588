"""What the editions of the R package do beside minimising, against their formulas: of 0.1.6 no output is recorded."""

from contextlib import nullcontext
from functools import partial

import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy.stats import spearmanr

from benchmarks.plain import squash_caps
from skenigma import L2MaxDeconvolver
from skenigma.normalization import normalize
from skenigma.presets import (
    PackageL2MaxDeconvolver,
    enigma_l2_max_norm,
    enigma_losses,
    enigma_trace_norm,
)

N, K, G = 12, 3, 40
L2 = partial(enigma_l2_max_norm, edition="0.1.6", tao_k=1e-4, beta=1e-3)
FORWARD = {"sqrt": np.sqrt, "log": lambda X: np.log2(X + 1)}
BACK = {"sqrt": np.square, "log": lambda Y: 2**Y - 1}


@pytest.fixture(scope="module")
def cohort():
    """Counts with zeros, of library sizes far apart, and their proportions."""
    rng = np.random.default_rng(1)
    reference = rng.gamma(0.7, 8.0, (K, G))
    theta = rng.dirichlet([2.0] * K, N)
    bulk = rng.poisson(theta @ reference * rng.uniform(0.1, 1, (N, 1))).astype(float)
    assert 0.1 < np.mean(bulk == 0) < 0.5
    return bulk, reference, theta


def with_total(X):
    return 1e5 * X / X.sum(axis=1, keepdims=True)


def calibrated(expression, bulk):
    """Every cell type's mean total brought to that of the bulk as it was given."""
    return expression * (bulk.sum(axis=1).mean() / expression.sum(axis=2).mean(axis=0))[:, None]


def published_steps(X, R, theta, alpha, tao_k, beta, n_steps, size=1e5):
    """``n_steps`` iterations of edition 0.1.6, literally; the expression and, before each step, its three losses."""
    kept, losses = (X != 0)[:, None, :], []
    P = np.repeat(X[:, None], K, axis=1)
    for step in range(n_steps + 1):
        e, m = np.einsum("jk,jkg->jg", theta, P) - X, P.mean(axis=0) - R
        largest = np.sum(P**2, axis=2).max(axis=0).sum()
        losses.append([alpha / 2 * np.sum(e**2), (1 - alpha) / 2 * np.sum(m**2), beta / 2 * largest])
        if step == n_steps:
            return P, np.array(losses)
        G1 = 2 * theta[:, :, None] * e[:, None] * kept
        G2 = 2 / len(X) * m * kept
        # the first of G1 is rounding noise, which R steps along and we do not
        G1 = G1 * (0.0 if step == 0 else size / np.linalg.norm(G1))
        V = P - tao_k * (alpha * G1 + (1 - alpha) * size / np.linalg.norm(G2) * G2)
        lengths = np.linalg.norm(V, axis=2)
        P = V * np.minimum(1, squash_caps(lengths, tao_k * beta * size) / lengths)[:, :, None]


@pytest.mark.parametrize("scale", ["sqrt", "log"])
def test_expression_and_losses(cohort, scale):
    bulk, reference, theta = cohort
    model = L2(reference, preprocess=scale, max_iter=21)
    with pytest.warns(UserWarning, match="did not converge"):
        model.fit(bulk, proportions=theta)
    X, R = FORWARD[scale](with_total(bulk)), FORWARD[scale](with_total(reference))
    P, losses = published_steps(X, R, theta, 0.5, 1e-4, 1e-3, 20)
    expected = calibrated(BACK[scale](np.maximum(P, 0)), bulk)
    # rounding of 20 iterations, which 2^x multiplies
    assert_allclose(model.cse_, expected, rtol=1e-9, atol=1e-9 * expected.max())
    found = enigma_losses(model, bulk, proportions=theta)
    # the last of the second column is a difference to the objective; at the start the residual is rounding
    assert_allclose(found[:, 1:], losses[:, 1:], rtol=1e-8)
    assert_allclose(found[1:, 0], losses[1:, 0], rtol=1e-8)


@pytest.mark.parametrize("edition", ["0.1.5", "0.1.6"])
@pytest.mark.parametrize("preset", [enigma_l2_max_norm, partial(enigma_trace_norm, solver="admm")])
def test_unseen_rows_are_mapped_as_the_cohort_was(cohort, preset, edition):
    bulk, reference, theta = cohort
    model = preset(reference, preprocess="log", edition=edition, max_iter=200, beta=1.0)
    fitted = model.fit_transform(bulk, proportions=theta)
    assert_allclose(model.transform(bulk, proportions=theta), fitted, rtol=1e-9, atol=1e-6)
    some = [7, 2]
    alone = model.transform(bulk[some], proportions=theta[some])
    assert_allclose(alone, fitted[some], rtol=1e-9, atol=1e-6)
    expression = model.cse_
    held = (expression[np.broadcast_to(bulk[:, None] == 0, expression.shape)] == 0).all()
    assert held == (edition == "0.1.6")


def test_totals_make_library_sizes_equal(cohort):
    """A sample ten times as deep has the same result, and so have the others."""
    bulk, reference, theta = cohort
    model = L2(reference, preprocess="sqrt", max_iter=5, calibrate=False)
    deeper = bulk.copy()
    deeper[3] *= 10
    with pytest.warns(UserWarning, match="did not converge"):
        first = model.fit(bulk, proportions=theta).cse_
    with pytest.warns(UserWarning, match="did not converge"):
        second = model.fit(deeper, proportions=theta).cse_
    assert_allclose(second, first, rtol=1e-10, atol=1e-8)


def test_rows_without_a_total_are_named(cohort):
    bulk, reference, theta = cohort
    empty = bulk.copy()
    empty[4] = 0
    with pytest.raises(ValueError, match=r"X has no positive total in 4: edition 0\.1\.6 divides by it"):
        L2(reference, preprocess="sqrt").fit(empty, proportions=theta)


def test_calibration_is_of_the_later_edition_and_of_values_of_at_least_zero():
    assert L2(preprocess="sqrt").calibrate
    assert not L2(preprocess="sqrt", pos=False).calibrate
    assert not L2(preprocess="sqrt", calibrate=False).calibrate
    assert not enigma_l2_max_norm(preprocess="sqrt").calibrate
    assert enigma_trace_norm(preprocess="log", edition="0.1.6").calibrate
    assert not enigma_trace_norm(preprocess="log").calibrate


class TestComponentsThatFollowNoProportion:
    def fit(self, theta, expression, edition="0.1.6"):
        """A fit whose expression is as given: the start, that is the bulk, of profiles that leave it alone."""
        bulk = np.einsum("jk,jkg->jg", theta, expression)
        options = {
            "normalize": "pc",
            "edition": edition,
            "do_cpm": False,
            "renorm_size": None,
            "epsilon": 1e30,
        }
        model = PackageL2MaxDeconvolver(bulk[:K], positive=False, init=lambda *_: expression, **options)
        return model, bulk

    def expression(self, theta, rng, follow):
        noise = 0.05 if follow else 3.0
        return 5 + theta[:, :, None] * rng.uniform(1, 2, G) + noise * rng.standard_normal((N, K, G))

    @pytest.mark.parametrize("follow", [True, False])
    def test_become_frac(self, follow):
        rng = np.random.default_rng(0)
        theta = rng.dirichlet([2.0] * K, N)
        model, bulk = self.fit(theta, self.expression(theta, rng, follow))
        warned = pytest.warns(UserWarning, match="follows its proportion.*as by 'frac'")
        with nullcontext() if follow else warned:
            model.fit(bulk, proportions=theta)
        expected = normalize("pc" if follow else "frac", model.cse_, theta)
        assert_allclose(model.cse_normalized_, expected, rtol=1e-12)
        # what decides: the best rank correlation of a component's scores
        scores = np.linalg.svd(standardised(model.cse_[:, 0]))[0][:, 0]
        assert (abs(spearmanr(scores, theta[:, 0]).statistic) >= 0.9) == follow

    def test_stay_in_edition_0_1_5(self):
        rng = np.random.default_rng(0)
        theta = rng.dirichlet([2.0] * K, N)
        model, bulk = self.fit(theta, self.expression(theta, rng, False), "0.1.5")
        model.fit(bulk, proportions=theta)
        assert_allclose(model.cse_normalized_, normalize("pc", model.cse_, theta), rtol=1e-12)


def standardised(expression):
    return (expression - expression.mean(axis=0)) / expression.std(axis=0, ddof=1)


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize("edition", ["0.1.5", "0.1.6"])
def test_a_type_that_no_sample_contains_is_left_to_the_model(cohort, edition):
    bulk, reference, theta = cohort
    without = theta.copy()
    without[:, 1] = 0
    without /= without.sum(axis=1, keepdims=True)
    options = {"tao_k": 1e-4, "beta": 1e-3, "max_iter": 21}
    model = enigma_l2_max_norm(reference, preprocess="sqrt", edition=edition, **options)
    with pytest.warns(UserWarning, match="'celltype1' is 0 in every sample.*as in the R package"):
        model.fit(bulk, proportions=without)
    if edition == "0.1.6":
        X, R = np.sqrt(with_total(bulk)), np.sqrt(with_total(reference))
        P, _ = published_steps(X, R, without, 0.5, 1e-4, 1e-3, 20)
        assert_allclose(model.cse_, calibrated(np.maximum(P, 0) ** 2, bulk), rtol=1e-9, atol=1e-6)
    assert np.isfinite(model.cse_).all()
    assert np.isfinite(model.cse_normalized_).all()
    assert np.abs(model.cse_[:, 1] / reference[1] - 1).max() > 0.1
    kept = L2MaxDeconvolver(reference, preprocess="sqrt", renorm_size=None, max_iter=3)
    with pytest.warns(UserWarning, match="its expression is the reference profile"):
        kept.fit(bulk, proportions=without)
    assert_allclose(kept.cse_[:, 1], np.broadcast_to(reference[1], (N, G)))
