"""TraceNormDeconvolver, and the ADMM of L2MaxDeconvolver: the original's runs, replay, scores, options, ends."""

import json
import pickle
import re
from functools import partial
from types import SimpleNamespace

import joblib
import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from skenigma import L2MaxDeconvolver, ProportionEstimator, TraceNormDeconvolver
from skenigma.core.optimize import splitting
from skenigma.core.optimize.basis import SpanBasis
from skenigma.datasets import make_cohort
from skenigma.deconvolution import _solving
from tests.deconvolution.support import NamedOracle, Recorder, assert_close
from tests.deconvolution.support import objective as max_norm_objective

N_SAMPLES, N_GENES = 30, 50
CELL_TYPES = ["T cell", "B cell", "monocyte"]
# Step and γ within which every solver below converges in a few dozen iterations.
MODELS = {
    "admm": partial(TraceNormDeconvolver, beta=4.0, tao_k="auto"),
    "admm_fast": partial(TraceNormDeconvolver, beta=4.0, tao_k="auto", solver="admm_fast"),
    "proximal": partial(TraceNormDeconvolver, beta=4.0, tao_k="auto", solver="proximal"),
    "max norm, admm": partial(L2MaxDeconvolver, beta=20.0, solver="admm"),
    "max norm, proximal": partial(L2MaxDeconvolver, beta=20.0, tao_k="auto", renorm_size=None),
}
TRACE_NORM = ["admm", "admm_fast", "proximal"]
SPLIT = [*TRACE_NORM, "max norm, admm"]

silent_about_convergence = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")


def relative_difference(got, expected):
    return np.linalg.norm(got - expected) / np.linalg.norm(expected)


@pytest.fixture(scope="module")
def cohort():
    """Signed, as standardised expression is; the last half of the samples are cases."""
    found = make_cohort(N_SAMPLES, N_GENES, len(CELL_TYPES), changed=0.2, random_state=0, as_frame=True)
    for table in (found.reference, found.proportions.T):
        table.index = CELL_TYPES
    found.proportions.columns = CELL_TYPES
    return found


@pytest.fixture(scope="module")
def bulk(cohort):
    return cohort.bulk


@pytest.fixture(scope="module")
def reference(cohort):
    return cohort.reference


@pytest.fixture(scope="module")
def theta(cohort):
    return cohort.proportions


@pytest.fixture(scope="module")
def lifted(bulk, reference):
    """Bulk and reference without negative values."""
    least = min(bulk.min().min(), reference.min().min())
    return bulk - least, reference - least


@pytest.fixture(params=list(MODELS))
def model(request):
    return MODELS[request.param]


def trace_norm_objective(P, X, R, theta, alpha, beta, weights):
    """F of the model, term by term."""
    misfit = np.sum((X - np.einsum("jk,jkg->jg", theta, P)) ** 2)
    offset = np.sum((P.mean(axis=0) - R) ** 2)
    norms = [np.linalg.norm(rows, "nuc") for rows in P.swapaxes(0, 1)]
    return alpha / 2 * misfit + (1 - alpha) / 2 * offset + beta * np.dot(weights, norms)


def expected_score(fitted, P, X, theta):
    """Minus F per entry of X, at P."""
    arrays = P, np.asarray(X), fitted.reference_, np.asarray(theta)
    if isinstance(fitted, L2MaxDeconvolver):
        value = max_norm_objective(*arrays, fitted.alpha, fitted.beta)
    else:
        weights = fitted.proportions_.mean(axis=0)
        value = trace_norm_objective(*arrays, fitted.alpha, fitted.beta_, weights)
    return -value / np.size(X)


# ------------------------------------------------------------------------------------- the original's runs


@pytest.fixture(scope="module")
def published(vignette):
    """Bulk, reference and proportions of the published data."""
    tables = vignette.table("bulk.csv.gz").T, vignette.table("reference.csv.gz").T
    return *tables, vignette.table("theta.csv.gz")


@pytest.fixture(scope="module", params=TRACE_NORM)
def trace_run(request, published, vignette):
    """One recorded run of the trace-norm model, and the same by the estimator.

    The original's ``proximalpoint`` with β and tao_k is this F with β/2 and 2·tao_k.
    """
    bulk, reference, _ = published
    name = {"proximal": "trace_proximalpoint"}.get(request.param, f"trace_{request.param}")
    beta = 0.5 if request.param == "proximal" else 1.0
    estimator = TraceNormDeconvolver(reference, alpha=0.1, beta=beta, tao_k=2.0, solver=request.param)
    settings = json.loads(vignette.path("manifest.json").read_text())["runs"][name]
    return SimpleNamespace(fitted=estimator.fit(bulk), recorded=vignette.run(name), settings=settings)


@pytest.mark.slow
class TestTraceNormRuns:
    def test_iterations(self, trace_run):
        assert trace_run.fitted.n_iter_ == len(trace_run.recorded["loss_history"])
        assert trace_run.fitted.converged_

    def test_cse(self, trace_run):
        got, expected = trace_run.fitted.cse_, trace_run.recorded["X_k"]
        # measured 4e-14: the rounding of 180 iterations; proportions are estimated, to 1e-15 as R does
        assert relative_difference(got, expected) < 1e-11
        assert_allclose(got, expected, rtol=0, atol=1e-10)  # no gene hides behind the norm

    def test_losses(self, trace_run):
        got, expected = trace_run.fitted.loss_history_, trace_run.recorded["loss_history"]
        # the first residual is zero but for rounding, in the original too
        assert_allclose(got[:, :2], expected[:, :2], rtol=1e-11, atol=1e-20)
        # rounding decides whether a singular value of √(n·u)·σ₁, the limit of R's fast.svd, counts in the
        # trace norm: each is worth 4e-9 of it
        assert_allclose(got[:, 2] / trace_run.fitted.beta, expected[:, 2], rtol=1e-8)

    def test_automatic_settings(self, trace_run):
        fitted, settings = trace_run.fitted, trace_run.settings
        assert fitted.epsilon_ == settings["epsilon_auto"]
        assert getattr(fitted, "gamma_", None) == (
            None if fitted.solver == "proximal" else settings["gamma_auto"]
        )
        assert not fitted.positive_  # signed data

    def test_change_is_compared_per_entry(self, trace_run):
        per_entry = trace_run.fitted.delta_history_.max(axis=1) / (100 * 1000)
        assert per_entry[-1] < trace_run.fitted.epsilon_ <= per_entry[-2]


@pytest.mark.slow
@pytest.mark.parametrize("beta", [1, 5, 10, 50])
def test_max_norm_runs(published, vignette, beta):
    """The original's ADMM has data terms with 1/2: its β and γ are this F with twice of both."""
    bulk, reference, theta = published
    recorded = vignette.run(f"admm_l2max_beta{beta}")
    fitted = L2MaxDeconvolver(reference, alpha=0.1, beta=2 * beta, gamma=2, solver="admm")
    fitted.fit(bulk, proportions=theta)
    assert fitted.n_iter_ == len(recorded["loss_history"])
    # measured 1e-14 in both: rounding of up to 754 iterations
    assert_allclose(fitted.loss_history_, recorded["loss_history"], rtol=1e-12, atol=1e-20)
    whole = "X_k" in recorded
    cse = fitted.cse_ if whole else fitted.cse_[:, :, recorded["X_gene_index"]]
    assert_allclose(cse, recorded["X_k" if whole else "X_k_sub"], rtol=0, atol=1e-11)
    assert_allclose(np.linalg.norm(fitted.cse_, axis=2), recorded["X_k_sample_norm"], rtol=1e-11)


class TestPackageEdition:
    """Its runs that start at the bulk; those that start at zero are another iteration, see test_splitting."""

    RUNS = (
        "trace_admm_log_init_bulk",
        "trace_admm_fast_log_init_bulk",
        "trace_proximalpoint_log_init_bulk",
    )

    @pytest.fixture(params=RUNS)
    def recorded(self, request, package):
        return package.run(request.param)

    @pytest.fixture
    def settings(self, request, package, recorded):
        runs = json.loads(package.path("manifest.json").read_text())["runs"]
        return runs[request.node.callspec.params["recorded"]]

    @pytest.fixture
    def fitted(self, package, settings):
        is_gradient = settings["solver"] == "proximalpoint"
        estimator = TraceNormDeconvolver(
            package.table("inputs/reference_cpm.csv.gz").T,
            alpha=settings["alpha"],
            beta=settings["beta"] / 2 if is_gradient else settings["beta"],
            tao_k=2 * settings["tao_k"],
            max_iter=settings["max_iter"],
            solver="proximal" if is_gradient else settings["solver"],
            preprocess=settings["preprocess"],
            normalize="frac",
        )
        bulk = package.table("outputs/bmode_bulk_corrected.csv.gz").T
        return estimator.fit(bulk, proportions=package.table("outputs/theta_rlr_bmode.csv.gz"))

    def test_expression(self, fitted, recorded, settings):
        assert fitted.n_iter_ == settings["n_ratio_rows"] == len(recorded["ratio"])
        # R itself moves by 6e-14 when the bulk changes in the last bit; 2^x multiplies what differs in x
        assert relative_difference(fitted.cse_, recorded["CSE"]) < 1e-11
        assert relative_difference(fitted.cse_normalized_, recorded["CSE_norm"]) < 1e-11

    def test_changes(self, fitted, recorded):
        # differences of nearly equal expressions lose digits
        assert_allclose(fitted.delta_history_ / (40 * 300), recorded["ratio"], rtol=1e-9)

    def test_losses(self, fitted, recorded):
        # printed with 6 decimals; the package's second term is n_samples times what it minimises, and its
        # third counts all cell types alike
        first, second, _ = recorded["loss_printed"].T
        assert_allclose(fitted.loss_history_[:, 0], first, rtol=1e-9, atol=1e-6)
        assert_allclose(fitted.loss_history_[:, 1], second / 40, rtol=1e-9, atol=1e-6)

    def test_automatic_settings(self, fitted, settings):
        """Both are found on the scale on which the model is fitted."""
        assert fitted.epsilon_ == settings["epsilon_used"]
        if fitted.solver != "proximal":
            assert fitted.gamma_ == settings["gamma_used"]


# -------------------------------------------------------------------------------------------------- replay


@pytest.fixture(scope="module", params=["compressed", "few genes"])
def n_genes(request):
    """More genes than samples and cell types together, or fewer."""
    return {"compressed": N_GENES, "few genes": 12}[request.param]


@pytest.fixture(scope="module", params=["recorded", "repeated"])
def mode(request):
    """Whether the updates of the cohort are kept, or, as for a large one, the cohort itself."""
    return request.param


@pytest.fixture(scope="module")
def narrow(bulk, reference, n_genes):
    return bulk.iloc[:, :n_genes], reference.iloc[:, :n_genes]


@pytest.fixture(scope="module", params=SPLIT)
def fitted(request, narrow, theta, mode):
    with pytest.MonkeyPatch.context() as patch:
        if mode == "repeated":
            patch.setitem(splitting.solve.__kwdefaults__, "record_limit", 0)
        estimator = MODELS[request.param](narrow[1]).fit(narrow[0], proportions=theta)
    assert estimator.n_iter_ > 5
    return estimator


@pytest.fixture(scope="module")
def unseen(n_genes):
    """Rows with a part outside the span of the cohort, where there is an outside, and their proportions."""
    values = make_cohort(6, N_GENES, len(CELL_TYPES), random_state=7, as_frame=True)
    return values.bulk.iloc[:, :n_genes], values.proportions.to_numpy()


class TestReplay:
    """``transform`` repeats the fit row by row: all that cross-validation relies on."""

    @pytest.fixture
    def seen(self, narrow):
        return narrow[0]

    def test_mode(self, fitted, mode, seen):
        """The two ways are taken: the one holds the updates, the other the coordinates of the cohort."""
        held = fitted._outcome.map.iteration.iteration.nbytes
        dimensions = min(seen.shape[1], N_SAMPLES + len(CELL_TYPES))
        numbers = (N_SAMPLES + len(CELL_TYPES)) * dimensions + N_SAMPLES * len(CELL_TYPES)
        assert (held == 8 * numbers) == (mode == "repeated")

    def test_transform_returns_the_stored_tensor(self, fitted, seen, theta):
        assert_close(fitted.transform(seen, proportions=theta).reshape(fitted.cse_.shape), fitted.cse_)

    def test_fit_transform_equals_transform(self, fitted, seen, theta):
        assert_close(
            clone(fitted).fit_transform(seen, proportions=theta), fitted.transform(seen, proportions=theta)
        )

    def test_rows_do_not_see_each_other(self, fitted, seen, theta):
        rows = [17, 3, 29, 8]
        got = fitted.transform(seen.iloc[rows], proportions=theta.iloc[rows])
        assert_close(got, fitted.cse_.reshape(N_SAMPLES, -1)[rows])
        alone = fitted.transform(seen.iloc[[5]], proportions=theta.iloc[[5]])
        assert_close(alone, fitted.cse_[5].reshape(1, -1))

    def test_unseen_rows_do_not_depend_on_their_company(self, fitted, seen, unseen, theta):
        rows, shares = unseen
        together = fitted.transform(rows, proportions=shares)
        assert np.isfinite(together).all()
        order = [4, 0, 5, 2]
        assert_close(fitted.transform(rows.iloc[order], proportions=shares[order]), together[order])
        mixed = fitted.transform(
            pd.concat([seen.iloc[:9], rows]), proportions=np.vstack([theta.iloc[:9], shares])
        )
        assert_close(mixed[9:], together)

    def test_unseen_rows_in_genes(self, fitted, narrow, theta, unseen, monkeypatch):
        """Compression changes nothing, outside the span of the cohort neither."""
        monkeypatch.setattr(_solving, "SpanBasis", partial(SpanBasis, compress=False))
        plain = clone(fitted).fit(narrow[0], proportions=theta)
        expected = plain.transform(unseen[0], proportions=unseen[1])
        assert_close(fitted.transform(unseen[0], proportions=unseen[1]), expected, 1e-10)
        score = fitted.score(unseen[0], proportions=unseen[1])
        # a Gram matrix knows singular values that are zero only up to 1e-8 of the largest
        assert score == pytest.approx(plain.score(unseen[0], proportions=unseen[1]), rel=1e-7)

    def test_pickled_copy_gives_the_same(self, fitted, unseen):
        copy = pickle.loads(pickle.dumps(fitted))
        rows, shares = unseen
        assert_array_equal(
            copy.transform(rows, proportions=shares), fitted.transform(rows, proportions=shares)
        )
        assert copy.score(rows, proportions=shares) == fitted.score(rows, proportions=shares)

    def test_nothing_changes_the_fitted_estimator(self, fitted, seen, theta, unseen):
        before = joblib.hash(fitted.__dict__)
        fitted.transform(seen, proportions=theta)[:] = np.nan
        fitted.transform(unseen[0], proportions=unseen[1])
        fitted.score(seen.iloc[3:9], proportions=theta.iloc[3:9])
        fitted.get_feature_names_out()
        assert joblib.hash(fitted.__dict__) == before

    def test_score_is_minus_the_objective_per_entry(self, fitted, seen, theta):
        # the trace norm leaves out singular values below 1e-7 of the largest
        expected = expected_score(fitted, fitted.cse_, seen, theta)
        assert fitted.score(seen, proportions=theta) == pytest.approx(expected, rel=1e-7)

    @pytest.mark.parametrize("copies", [1, 11], ids=["few rows", "more rows than dimensions"])
    def test_score_of_unseen_rows(self, fitted, unseen, copies):
        """The trace norm of new rows is that of their matrix with what lies outside the span of the cohort."""
        rows, shares = pd.concat([unseen[0]] * copies), np.tile(unseen[1], (copies, 1))
        P = fitted.transform(rows, proportions=shares).reshape(len(rows), len(CELL_TYPES), -1)
        expected = expected_score(fitted, P, rows, shares)
        assert fitted.score(rows, proportions=shares) == pytest.approx(expected, rel=1e-7)  # as above


@silent_about_convergence
@pytest.mark.parametrize("solver", ["admm", "admm_fast"])
def test_score_counts_what_lies_outside_the_span(bulk, reference, theta, solver):
    """An ADMM that was stopped early still holds much of it; proximal gradient drops it in every step."""
    fitted = TraceNormDeconvolver(reference, solver=solver, max_iter=3).fit(bulk, proportions=theta)
    rows = make_cohort(6, N_GENES, len(CELL_TYPES), random_state=7, as_frame=True).bulk
    shares = theta.to_numpy()[:6]
    P = fitted.transform(rows, proportions=shares).reshape(6, len(CELL_TYPES), -1)
    expected = expected_score(fitted, P, rows, shares)
    # the trace norm leaves out singular values below 1e-7 of the largest
    assert fitted.score(rows, proportions=shares) == pytest.approx(expected, rel=1e-7)


class TestReplayOfOptions:
    @pytest.mark.parametrize(
        "parameters",
        [
            {"preprocess": "sqrt"},
            {"preprocess": "log", "beta": "auto"},
            {"positive": False},
            {"normalize": "frac"},
            {"normalize": "frac", "preprocess": "log"},
            {"proportion_estimator": ProportionEstimator(method="nnls")},
            {"reference": None, "n_components": 3},
        ],
        ids=str,
    )
    @pytest.mark.parametrize("solver", TRACE_NORM)
    @silent_about_convergence
    def test_transform_repeats_the_fit(self, lifted, solver, parameters):
        X, profiles = lifted
        settings = {"reference": profiles, "solver": solver, "tao_k": "auto", "max_iter": 30, **parameters}
        fitted = TraceNormDeconvolver(**settings).fit(X)
        stored = fitted.cse_ if fitted.normalize is None else fitted.cse_normalized_
        assert_close(fitted.transform(X).reshape(stored.shape), stored)
        assert_close(fitted.transform(X.iloc[[9, 2]]), stored[[9, 2]].reshape(2, -1))
        assert np.isfinite(stored).all()


def test_input_is_not_changed(model, bulk, reference, theta):
    arrays = bulk.to_numpy(copy=True), reference.to_numpy(copy=True), theta.to_numpy(copy=True)
    for array in arrays:
        array.flags.writeable = False
    X, profiles, shares = arrays
    fitted = model(profiles, preprocess=None, normalize="frac").fit(X, proportions=shares)
    fitted.transform(X, proportions=shares)
    fitted.score(X, proportions=shares)
    assert_array_equal(X, bulk)


# --------------------------------------------------------------------------------------- one model, one answer


@pytest.mark.slow
class TestAgreementOfSolvers:
    @pytest.mark.parametrize("alpha", [0.1, 0.5])
    @pytest.mark.parametrize("names", [TRACE_NORM, ["max norm, admm", "max norm, proximal"]], ids=len)
    def test_objective(self, bulk, reference, theta, names, alpha):
        scores = []
        for name in names:
            fitted = MODELS[name](reference, alpha=alpha, epsilon=1e-13, max_iter=20_000)
            scores.append(fitted.fit(bulk, proportions=theta).score(bulk, proportions=theta))
        assert_allclose(scores, scores[0], rtol=1e-6)
        start = MODELS[names[0]](reference, alpha=alpha, epsilon=1e6).fit(bulk, proportions=theta)
        assert start.n_iter_ == 1
        assert start.score(bulk, proportions=theta) < 1.01 * scores[0]  # scores are negative: there was work

    def test_nothing_near_is_better(self, model, bulk, reference, theta):
        fitted = model(reference, epsilon=1e-13, max_iter=20_000).fit(bulk, proportions=theta)
        best = expected_score(fitted, fitted.cse_, bulk, theta)
        rng = np.random.default_rng(0)
        for size in (1e-2, 1.0):
            moved = fitted.cse_ + size * rng.standard_normal(fitted.cse_.shape)
            assert expected_score(fitted, moved, bulk, theta) < best

    @pytest.mark.parametrize("name", TRACE_NORM)
    def test_trace_norm_lowers_the_rank(self, bulk, reference, theta, name):
        few, many = (
            MODELS[name](reference, beta=beta, epsilon=1e-8).fit(bulk, proportions=theta).cse_
            for beta in (8.0, 4.0)
        )
        for k in range(len(CELL_TYPES)):
            # directions above a share of the largest that is far above what an ADMM iterate has left of them
            ranks = [np.linalg.matrix_rank(P[:, k], tol=1e-2 * np.linalg.norm(P[:, k])) for P in (few, many)]
            assert 1 <= ranks[0] < ranks[1] < N_SAMPLES


# ------------------------------------------------------------------------------------------- automatic settings


def gavish_donoho(X):
    """Noise level, and the largest singular value that this noise reaches."""
    ratio, longer = min(X.shape) / max(X.shape), max(X.shape)
    threshold = (0.56 * ratio**3 - 0.95 * ratio**2 + 1.82 * ratio + 1.43) * np.median(
        np.linalg.svd(X, compute_uv=False)
    )
    known = np.sqrt(2 * (ratio + 1) + 8 * ratio / (ratio + 1 + np.sqrt(ratio**2 + 14 * ratio + 1)))
    level = threshold / (known * np.sqrt(longer))
    return level, level * (np.sqrt(longer) + np.sqrt(min(X.shape)))


class TestAutomaticSettings:
    @pytest.mark.parametrize("solver", TRACE_NORM)
    @pytest.mark.parametrize("alpha", [0.1, 0.5])
    def test_beta(self, narrow, theta, solver, alpha):
        X, profiles = narrow
        fitted = TraceNormDeconvolver(profiles, alpha=alpha, beta="auto", solver=solver)
        fitted.fit(X, proportions=theta)
        expected = alpha * gavish_donoho(X.to_numpy())[1]
        assert fitted.beta_ == pytest.approx(expected, rel=1e-12)  # rounding
        given = TraceNormDeconvolver(profiles, alpha=alpha, beta=fitted.beta_, solver=solver)
        assert_array_equal(given.fit(X, proportions=theta).cse_, fitted.cse_)

    @pytest.mark.parametrize("solver", TRACE_NORM)
    def test_beta_scales_with_the_data(self, bulk, reference, theta, solver):
        model = partial(TraceNormDeconvolver, beta="auto", gamma=1.0, solver=solver)
        small = model(reference, epsilon=1e-6).fit(bulk, proportions=theta)
        large = model(16 * reference, epsilon=256e-6).fit(16 * bulk, proportions=theta)
        assert large.beta_ == pytest.approx(16 * small.beta_, rel=1e-12)  # rounding
        assert large.n_iter_ == small.n_iter_
        assert_close(large.cse_, 16 * small.cse_)

    def test_beta_is_found_on_the_scale_of_the_model(self, lifted, theta):
        X, profiles = lifted
        fitted = TraceNormDeconvolver(profiles, beta="auto", preprocess="log").fit(X, proportions=theta)
        expected = 0.5 * gavish_donoho(np.log2(X.to_numpy() + 1))[1]
        assert fitted.beta_ == pytest.approx(expected, rel=1e-12)  # rounding

    @silent_about_convergence
    @pytest.mark.parametrize("size", [0.05, 0.2, 1.0, 5.0])
    def test_gamma(self, narrow, theta, size):
        X, profiles = size * narrow[0], size * narrow[1]
        fitted = TraceNormDeconvolver(profiles, max_iter=3).fit(X, proportions=theta)
        # as the original has it: samples over genes, whichever there are more of
        ratio = X.shape[0] / X.shape[1]
        omega = 0.56 * ratio**3 - 0.95 * ratio**2 + 1.82 * ratio + 1.43
        root = np.sqrt(ratio**2 + 14 * ratio + 1)
        known = np.sqrt(2 * (ratio + 1) + 8 * ratio / (ratio + 1 + root))
        median = np.median(np.linalg.svd(X.to_numpy(), compute_uv=False))
        edge = (1 + np.sqrt(ratio)) * omega * median / (known * np.sqrt(X.shape[1]))
        assert fitted.gamma_ == (2.0 if edge < 1 else 0.5)
        assert (edge < 1) == (size < 0.1 or (size < 1 and ratio < 1))  # both sides are tested

    @silent_about_convergence
    @pytest.mark.parametrize("power", [-7, -1, 0, 3])
    def test_epsilon(self, bulk, reference, theta, power):
        median = np.median(np.abs(bulk))
        X, profiles = (table * (3 * 10.0**power / median) for table in (bulk, reference))
        fitted = TraceNormDeconvolver(profiles, max_iter=3).fit(X, proportions=theta)
        assert fitted.epsilon_ == pytest.approx(10.0 ** (power - 4), rel=1e-12)

    @pytest.mark.parametrize("alpha", [0.0, 0.3, 1.0])
    def test_step(self, bulk, reference, theta, alpha):
        """The model's data terms carry 1/2, so its safe step is twice that of the maximum-L2-norm model."""
        settings = {"alpha": alpha, "beta": 1.0, "epsilon": 1e-2}
        fitted = TraceNormDeconvolver(reference, tao_k="auto", solver="proximal", **settings)
        fitted.fit(bulk, proportions=theta)
        largest = (theta.to_numpy() ** 2).sum(axis=1).max()
        assert fitted.tao_k_ == pytest.approx(1 / (alpha * largest + (1 - alpha) / N_SAMPLES), rel=1e-12)
        other = L2MaxDeconvolver(reference, alpha=alpha, tao_k="auto", renorm_size=None)
        assert fitted.tao_k_ == pytest.approx(2 * other.fit(bulk, proportions=theta).tao_k_, rel=1e-12)

    def test_values_in_use_are_floats_as_given(self, bulk, reference, theta):
        fitted = TraceNormDeconvolver(reference, beta=3.0, gamma=0.7, epsilon=1e-3)
        fitted.fit(bulk, proportions=theta)
        assert (fitted.beta_, fitted.gamma_, fitted.epsilon_) == (3.0, 0.7, 1e-3)
        automatic = TraceNormDeconvolver(reference, beta="auto").fit(bulk, proportions=theta)
        assert {type(v) for v in (automatic.beta_, automatic.gamma_, automatic.epsilon_)} == {float}

    def test_no_noise_no_penalty(self, reference, theta):
        """A bulk that the profiles explain wholly has no noise edge to speak of."""
        fitted = TraceNormDeconvolver(reference, beta="auto").fit(theta @ reference, proportions=theta)
        assert 0 <= fitted.beta_ < 1e-12


class TestParameters:
    @pytest.mark.parametrize(
        ("estimator", "parameters", "fitting"),
        [
            (TraceNormDeconvolver, {"solver": "newton"}, ["'admm'", "'admm_fast'", "'proximal'"]),
            (TraceNormDeconvolver, {"gamma": 0}, [r"range \(0.0, inf\)", "'auto'"]),
            (TraceNormDeconvolver, {"gamma": "best"}, [r"range \(0.0, inf\)", "'auto'"]),
            (TraceNormDeconvolver, {"beta": -1}, [r"range \[0.0, inf\)", "'auto'"]),
            (TraceNormDeconvolver, {"beta": np.nan}, [r"range \[0.0, inf\)", "'auto'"]),
            (TraceNormDeconvolver, {"epsilon": -1e-3}, [r"range \[0.0, inf\)", "'auto'"]),
            (TraceNormDeconvolver, {"tao_k": 0}, [r"range \(0.0, inf\)", "'auto'"]),
            (L2MaxDeconvolver, {"solver": "newton"}, ["'admm'", "'proximal'"]),
            (L2MaxDeconvolver, {"beta": "auto"}, [r"range \[0.0, inf\)"]),
            (L2MaxDeconvolver, {"gamma": "auto"}, [r"range \(0.0, inf\)"]),
            (L2MaxDeconvolver, {"gamma": 0}, [r"range \(0.0, inf\)"]),
            (L2MaxDeconvolver, {"epsilon": "auto"}, [r"range \[0.0, inf\)"]),
        ],
        ids=lambda value: getattr(value, "__name__", str(value)),
    )
    def test_wrong_ones_are_refused_with_what_fits(self, bulk, reference, estimator, parameters, fitting):
        (name,) = parameters
        with pytest.raises(ValueError, match=f"'{name}' parameter of {estimator.__name__}") as refusal:
            estimator(reference, **parameters).fit(bulk)
        for text in fitting:
            assert re.search(text, str(refusal.value))

    def test_trace_norm_has_no_renormalisation(self, reference):
        with pytest.raises(TypeError, match="renorm_size"):
            TraceNormDeconvolver(reference, renorm_size=200.0)

    @pytest.mark.parametrize("name", list(MODELS))
    def test_refit_leaves_nothing_stale(self, bulk, reference, theta, name):
        """Whatever solver an estimator was fitted with before, it looks as if fitted afresh."""
        fresh = MODELS[name](reference).fit(bulk, proportions=theta)
        for other in MODELS.values():
            again = other(reference)
            if type(again) is not type(fresh):
                continue
            again.set_params(normalize="frac").fit(bulk, proportions=theta)
            again.set_params(**fresh.get_params()).fit(bulk, proportions=theta)
            public = [{key for key in vars(x) if key.endswith("_")} for x in (again, fresh)]
            assert public[0] == public[1]
            assert_array_equal(again.cse_, fresh.cse_)

    @pytest.mark.parametrize(
        ("name", "present"),
        [
            ("admm", {"gamma_", "beta_", "epsilon_"}),
            ("admm_fast", {"gamma_", "beta_", "epsilon_"}),
            ("proximal", {"tao_k_", "beta_", "epsilon_"}),
            ("max norm, admm", {"gamma_"}),
            ("max norm, proximal", {"tao_k_", "renorm_size_", "gradient_norm_"}),
        ],
    )
    def test_attributes_of_each_solver(self, bulk, reference, theta, name, present):
        fitted = MODELS[name](reference).fit(bulk, proportions=theta)
        particular = {"gamma_", "tao_k_", "beta_", "epsilon_", "renorm_size_", "gradient_norm_"}
        assert particular & set(vars(fitted)) == present
        assert fitted.loss_history_.shape == (fitted.n_iter_, 3)
        assert fitted.delta_history_.shape == (fitted.n_iter_, len(CELL_TYPES))

    def test_loss_rows_are_the_terms_of_the_objective(self, bulk, reference, theta):
        for name in TRACE_NORM:
            fitted = MODELS[name](reference, alpha=0.3).fit(bulk, proportions=theta)
            score = fitted.score(bulk, proportions=theta)
            # the trace norm leaves out singular values below 1e-7 of the largest
            assert fitted.loss_history_[-1].sum() == pytest.approx(-score * bulk.size, rel=1e-7)


# -------------------------------------------------------------------------------------------------------- ends


class TestEnds:
    @pytest.mark.parametrize("name", list(MODELS))
    def test_not_converged(self, bulk, reference, theta, name):
        remedy = "smaller tao_k" if "proximal" in name else "another gamma"
        pattern = rf"did not converge in 3 iterations.*larger beta.*{remedy}.*larger max_iter or epsilon"
        with pytest.warns(ConvergenceWarning, match=pattern):
            fitted = MODELS[name](reference, max_iter=3).fit(bulk, proportions=theta)
        assert (fitted.n_iter_, fitted.converged_) == (3, False)
        assert_close(fitted.transform(bulk, proportions=theta), fitted.cse_.reshape(N_SAMPLES, -1))

    @silent_about_convergence
    def test_one_iteration_applies_no_update(self, model, bulk, reference, theta):
        fitted = model(reference, max_iter=1).fit(bulk, proportions=theta)
        assert_close(fitted.cse_, np.repeat(bulk.to_numpy()[:, None], len(CELL_TYPES), axis=1))
        assert_close(fitted.transform(bulk, proportions=theta), fitted.cse_.reshape(N_SAMPLES, -1))

    @pytest.mark.parametrize("gamma", [1e-12, 1e-3])
    def test_divergence_of_admm_fast(self, bulk, reference, theta, gamma):
        """One system per cell type at a time does not converge for every γ."""
        estimator = TraceNormDeconvolver(reference, alpha=1.0, gamma=gamma, beta=0.01, solver="admm_fast")
        with pytest.raises(ValueError, match=r"TraceNormDeconvolver diverged.*larger gamma"):
            estimator.fit(bulk, proportions=theta)
        assert estimator.set_params(gamma=1.0).fit(bulk, proportions=theta).converged_  # the remedy is one
        exact = clone(estimator).set_params(gamma=gamma, solver="admm").fit(bulk, proportions=theta)
        assert exact.converged_

    @pytest.mark.parametrize("beta", [0.01, 1.0, 100.0, 1e4])
    def test_divergence_of_admm_fast_is_not_laid_to_beta(self, bulk, reference, theta, beta):
        """A larger penalty does not cure it, so it is no remedy to offer."""
        estimator = TraceNormDeconvolver(reference, alpha=1.0, gamma=0.01, beta=beta, solver="admm_fast")
        with pytest.raises(ValueError, match="diverged") as refusal:
            estimator.fit(bulk, proportions=theta)
        assert "beta" not in str(refusal.value)

    @pytest.mark.parametrize("tao_k", [1e3, 1e150])
    def test_divergence_of_proximal(self, bulk, reference, theta, tao_k):
        estimator = TraceNormDeconvolver(reference, beta=0.01, tao_k=tao_k, solver="proximal")
        with pytest.raises(ValueError, match=r"diverged.*smaller tao_k.*tao_k='auto'"):
            estimator.fit(bulk, proportions=theta)
        assert estimator.set_params(tao_k="auto").fit(bulk, proportions=theta).converged_

    def test_remedies_name_parameters_that_exist(self, bulk, reference, theta):
        """The trace-norm model has no renorm_size."""
        estimator = TraceNormDeconvolver(reference, beta=0.01, solver="proximal")
        with pytest.warns(ConvergenceWarning) as warned:
            clone(estimator).set_params(max_iter=3).fit(bulk, proportions=theta)
        assert "renorm" not in str(warned[0].message)
        with pytest.raises(ValueError, match="diverged") as refusal:
            clone(estimator).set_params(tao_k=1e3).fit(bulk, proportions=theta)
        assert "renorm" not in str(refusal.value)

    @pytest.mark.parametrize("gamma", [1e-6, 1e-3, 1.0, 1e3])
    @pytest.mark.parametrize("name", ["admm", "max norm, admm"])
    @silent_about_convergence
    def test_exact_admm_stays_finite(self, bulk, reference, theta, name, gamma):
        for beta in (0.0, 1e-9, 1e12):
            fitted = MODELS[name](reference, beta=beta, gamma=gamma, max_iter=60).fit(bulk, proportions=theta)
            assert np.isfinite(fitted.cse_).all()
            assert np.isfinite(fitted.loss_history_).all()

    def test_verbose_prints_the_trace(self, model, bulk, reference, theta, capsys):
        fitted = model(reference, verbose=1).fit(bulk, proportions=theta)
        lines = capsys.readouterr().out.splitlines()
        assert re.fullmatch(r".*\d{4} Optimizing cell type specific expression profile\.\.\.", lines[0])
        ranges = [f"Ratio ranges from: {row.min():.6f} - {row.max():.6f}" for row in fitted.delta_history_]
        assert lines[1 : fitted.n_iter_ + 1] == ranges
        assert lines[-2:] == ["Done!", f"Converge in {fitted.n_iter_} steps"]
        parts = [float(part.split(":")[1]) for part in lines[-3].split()]
        assert_allclose(parts, fitted.loss_history_[-1], rtol=1e-13)  # 15 digits
        if isinstance(fitted, TraceNormDeconvolver):
            first, last = fitted.loss_history_[[0, -1]].sum(axis=1)
            assert lines[-4].startswith(f"Total delta_loss: {abs(last - first):.6f}, ")

    @silent_about_convergence
    def test_verbose_says_when_it_did_not_converge(self, model, bulk, reference, theta, capsys):
        model(reference, verbose=1, max_iter=3).fit(bulk, proportions=theta)
        assert capsys.readouterr().out.endswith("Not converged in 3 steps\n")

    def test_silent_by_default(self, model, bulk, reference, theta, capsys):
        model(reference).fit(bulk, proportions=theta)
        assert capsys.readouterr().out == ""


class TestCallbacks:
    @pytest.fixture(autouse=True)
    def callbacks(self):
        return pytest.importorskip("sklearn.callback", reason="scikit-learn has callbacks from 1.9 on")

    def test_see_every_iteration(self, model, bulk, reference, theta):
        recorder = Recorder()
        fitted = model(reference).set_callbacks(recorder).fit(bulk, proportions=theta)
        assert recorder.begun.count("iteration") == recorder.ended.count("iteration") == fitted.n_iter_
        assert (recorder.setups, recorder.teardowns) == (1, 1)
        assert_array_equal(fitted.cse_, model(reference).fit(bulk, proportions=theta).cse_)

    @silent_about_convergence
    def test_may_stop_early(self, model, bulk, reference, theta):
        fitted = model(reference).set_callbacks(Recorder(stop_after=4)).fit(bulk, proportions=theta)
        assert (fitted.n_iter_, fitted.converged_) == (4, False)
        limited = model(reference, max_iter=4).fit(bulk, proportions=theta)
        assert_array_equal(fitted.cse_, limited.cse_)


# ---------------------------------------------------------------------------------------------- kinds of input


class TestKindsOfInput:
    def test_float32(self, model, bulk, reference, theta):
        double = model(reference, normalize="frac").fit(bulk, proportions=theta)
        single = model(reference, normalize="frac").fit(bulk.astype(np.float32), proportions=theta)
        for name in ("cse_", "cse_normalized_", "proportions_", "reference_"):
            assert getattr(single, name).dtype == np.float32
            # 6e-8 of input precision, grown in a few dozen iterations
            assert_close(getattr(single, name), getattr(double, name), 1e-5)
        new = single.transform(bulk.astype(np.float32), proportions=theta)
        assert new.dtype == np.float32
        assert_close(new, double.transform(bulk, proportions=theta), 1e-5)  # as above
        score = single.score(bulk.astype(np.float32), proportions=theta)
        assert score == pytest.approx(double.score(bulk, proportions=theta), rel=1e-5)  # as above

    @pytest.mark.parametrize("preprocess", ["sqrt", "log"])
    @pytest.mark.parametrize("positive", [True, False])
    def test_preprocess(self, model, lifted, theta, preprocess, positive):
        X, profiles = lifted
        forward, back = {
            "sqrt": (np.sqrt, lambda P: np.sign(P) * P**2),
            "log": (lambda X: np.log2(X + 1), lambda P: np.sign(P) * (2 ** np.abs(P) - 1)),
        }[preprocess]
        settings = {"beta": 0.2, "epsilon": 1e-3}
        P = model(forward(profiles), positive=False, **settings).fit(forward(X), proportions=theta).cse_
        fitted = model(profiles, preprocess=preprocess, positive=positive, **settings)
        fitted.fit(X, proportions=theta)
        assert_close(fitted.cse_, back(np.maximum(P, 0) if positive else P))

    def test_positive_clips_the_end_result_only(self, model, bulk, reference, theta):
        free = model(reference).fit(bulk, proportions=theta)
        clipped = model(reference, positive=True).fit(bulk, proportions=theta)
        assert (free.cse_ < 0).any()
        assert_array_equal(clipped.cse_, np.maximum(free.cse_, 0))
        assert_array_equal(clipped.loss_history_, free.loss_history_)
        assert clipped.score(bulk, proportions=theta) == free.score(bulk, proportions=theta)

    def test_positive_is_found(self, model, lifted, bulk, reference, theta):
        assert model(lifted[1], max_iter=2000).fit(lifted[0], proportions=theta).positive_ is True
        assert model(reference).fit(bulk, proportions=theta).positive_ is False

    def test_normalised_tensor_has_no_slope_left(self, model, bulk, reference, theta):
        fitted = model(reference, normalize="frac").fit(bulk, proportions=theta)
        share = (theta - theta.mean()).to_numpy()
        before = np.einsum("jk,jkg->kg", share, fitted.cse_)
        after = np.einsum("jk,jkg->kg", share, fitted.cse_normalized_)
        assert np.abs(after).max() < 1e-12 * np.abs(before).max()  # rounding

    def test_absent_cell_type(self, model, bulk, reference, theta):
        """A type that no sample holds has no weight in the trace norm; its answer is its profile."""
        shares = theta.assign(monocyte=0.0)
        shares = shares.div(shares.sum(axis=1), axis=0)
        estimator = model(reference, max_iter=5000)
        with pytest.warns(UserWarning, match="'monocyte' is 0 in every sample.*reference profile"):
            estimator.fit(bulk, proportions=shares)
        cse = estimator.transform(bulk, proportions=shares).reshape(estimator.cse_.shape)
        for tensor in (estimator.cse_, cse):
            assert np.isfinite(tensor).all()
            assert_array_equal(tensor[:, 2], np.broadcast_to(reference.loc["monocyte"], bulk.shape))
        assert_close(cse, estimator.cse_)

    def test_proportion_estimator(self, model, bulk, reference, theta):
        oracle = NamedOracle(theta[["monocyte", "B cell", "T cell"]])
        fitted = model(reference, proportion_estimator=oracle).fit(bulk)
        assert_array_equal(fitted.proportions_, theta)
        assert_close(fitted.cse_, model(reference).fit(bulk, proportions=theta).cse_)
        nnls = ProportionEstimator(method="nnls")
        shares = ProportionEstimator(reference, method="nnls").fit_transform(bulk)
        assert_close(model(reference, proportion_estimator=nnls).fit(bulk).proportions_, shares)

    def test_genes_are_matched_by_name(self, model, bulk, reference, theta):
        shuffled = reference.sample(frac=1, axis=1, random_state=0).assign(other=1e6)
        fitted = model(shuffled).fit(bulk.assign(another=1e6), proportions=theta)
        assert_close(fitted.cse_, model(reference).fit(bulk, proportions=theta).cse_)

    @pytest.mark.parametrize(("n_samples", "n_cell_types"), [(2, 3), (2, 1), (3, 8), (30, 1), (5, 5)])
    @pytest.mark.parametrize("n_genes", [8, N_GENES])
    @silent_about_convergence
    def test_small(self, model, bulk, n_samples, n_cell_types, n_genes):
        rng = np.random.default_rng(n_samples)
        profiles = rng.standard_normal((n_cell_types, n_genes))
        shares = rng.dirichlet(np.full(n_cell_types, 3.0), n_samples)
        X = bulk.to_numpy()[:n_samples, :n_genes]
        fitted = model(profiles, max_iter=200).fit(X, proportions=shares)
        assert fitted.cse_.shape == (n_samples, n_cell_types, n_genes)
        assert np.isfinite(fitted.cse_).all()
        assert_close(fitted.transform(X, proportions=shares), fitted.cse_.reshape(n_samples, -1))
        assert fitted.score(X, proportions=shares) == pytest.approx(
            expected_score(fitted, fitted.cse_, X, shares), rel=1e-7
        )

    def test_repeated_and_empty_samples(self, model, bulk, reference, theta):
        """The cohort's Gram matrix is singular."""
        X, shares = np.repeat(bulk.to_numpy()[:6], 5, axis=0), np.repeat(theta.to_numpy()[:6], 5, axis=0)
        X[:5] = 0.0
        fitted = model(reference.to_numpy()).fit(X, proportions=shares)
        assert np.isfinite(fitted.cse_).all()
        assert_close(fitted.cse_[::5], fitted.cse_[4::5])
        assert_close(fitted.transform(X, proportions=shares), fitted.cse_.reshape(len(X), -1))

    def test_order_of_samples_and_genes(self, model, bulk, reference, theta):
        rng = np.random.default_rng(0)
        rows, columns = rng.permutation(N_SAMPLES), rng.permutation(N_GENES)
        straight = model(reference).fit(bulk, proportions=theta)
        mixed = model(reference).fit(bulk.iloc[rows, columns], proportions=theta.iloc[rows])
        assert mixed.n_iter_ == straight.n_iter_
        assert_close(mixed.cse_, straight.cse_[rows][:, :, columns])

    def test_number_of_threads(self, model, bulk, reference, theta):
        threadpoolctl = pytest.importorskip("threadpoolctl")
        results = []
        for count in (1, 2):
            with threadpoolctl.threadpool_limits(count):
                fitted = model(reference).fit(bulk, proportions=theta)
                results.append((fitted.cse_, fitted.transform(bulk, proportions=theta)))
        for one, two in zip(*results, strict=True):
            assert_close(two, one, 1e-10)  # sums in another order


class TestComposition:
    @silent_about_convergence
    def test_grid_search_over_solver_and_penalty(self, bulk, reference, cohort):
        pipeline = make_pipeline(
            TraceNormDeconvolver(reference, max_iter=15), StandardScaler(), LogisticRegression(max_iter=1000)
        )
        grid = {
            "tracenormdeconvolver__solver": TRACE_NORM,
            "tracenormdeconvolver__beta": [1.0, "auto"],
        }
        search = GridSearchCV(pipeline, grid, cv=3).fit(bulk, cohort.phenotype)
        assert len(search.cv_results_["params"]) == 6
        assert np.isfinite(search.cv_results_["mean_test_score"]).all()
        assert search.best_score_ > 0.8  # chance is 0.5; the effect is plain in the bulk itself

    def test_scores_of_grid_search_are_those_of_held_out_rows(self, bulk, reference):
        search = GridSearchCV(MODELS["admm"](reference), {"solver": TRACE_NORM}, cv=2, refit=False)
        means = search.fit(bulk).cv_results_["mean_test_score"]
        half = N_SAMPLES // 2
        halves = bulk.iloc[:half], bulk.iloc[half:]
        for solver, mean in zip(TRACE_NORM, means, strict=True):
            by_hand = [MODELS[solver](reference).fit(a).score(b) for a, b in (halves, halves[::-1])]
            assert mean == pytest.approx(np.mean(by_hand), rel=1e-10)  # rounding
        assert len(set(means)) == len(means)

    def test_feature_names_out(self, model, bulk, reference, theta):
        fitted = model(reference).set_output(transform="pandas").fit(bulk, proportions=theta)
        frame = fitted.transform(bulk, proportions=theta)
        names = [f"{kind}:{gene}" for kind in CELL_TYPES for gene in bulk.columns]
        assert list(frame.columns) == list(fitted.get_feature_names_out()) == names
        assert_close(frame.to_numpy(), fitted.cse_.reshape(N_SAMPLES, -1))
