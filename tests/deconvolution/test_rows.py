"""Models of a bulk that is not in memory: the results of one that is, in few readings, whatever the blocks."""

import pickle

import numpy as np
import pytest

from skenigma import L2MaxDeconvolver, L2MaxDeconvolverCV, ProportionEstimator, TraceNormDeconvolver
from skenigma.cohort import LazyMatrix, lazy_matrix
from skenigma.datasets import make_cohort

N_SAMPLES, N_GENES = 150, 400
COHORT = make_cohort(n_samples=N_SAMPLES, n_genes=N_GENES, random_state=0, as_frame=True)
# sums over blocks are rounded in another order: the promise
ROUNDING = 1e-10
ROW = 8 * N_GENES


def lazy(frame=COHORT.bulk, rows=40):
    """A named matrix that is read by so many rows."""
    source = lazy_matrix(frame.to_numpy())._source
    return LazyMatrix(source, index=frame.index, columns=frame.columns, block_bytes=ROW * rows)


def model(**params):
    given = {"reference": COHORT.reference, "materialize": False, "n_samples_of_settings": 100}
    return L2MaxDeconvolver(**{**given, **params})


def assert_same(found, expected):
    np.testing.assert_allclose(found, expected, rtol=0, atol=ROUNDING * np.abs(expected).max())


VARIANTS = {
    "published": {},
    "plain": {"renorm_size": None},
    "auto": {"renorm_size": "auto"},
    "accelerated": {"solver": "accelerated"},
    "sqrt": {"preprocess": "sqrt"},
    "profiles": {"init": "reference"},
    "normalize": {"normalize": "frac"},
}


def positive(frame):
    return frame.clip(lower=0.0)


# without renormalisation this cohort takes more iterations than it is given, and its level is low
@pytest.mark.filterwarnings("ignore::skenigma.exceptions.LevelWarning")
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize("name", VARIANTS)
def test_results_are_those_in_memory_whatever_the_blocks(name):
    params, frame = VARIANTS[name], COHORT.bulk
    if name == "sqrt":
        frame, params = positive(frame), {**params, "reference": positive(COHORT.reference)}
    expected = model(**params).fit(frame)
    values = expected.expression_.values()
    for rows in (7, 400):
        found = model(**params).fit(lazy(frame, rows))
        assert found.n_iter_ == expected.n_iter_
        assert_same(found.proportions_, expected.proportions_)
        assert_same(found.expression_.values(), values)
        assert_same(found.loss_history_[-1], expected.loss_history_[-1])
        assert found.level_ == pytest.approx(expected.level_)
        assert list(found.expression_.sample_names) == list(frame.index)
    new = lazy(frame.iloc[20:90], 30)
    assert_same(found.transform(new), expected.transform(frame.iloc[20:90]))
    assert_same(found.predict_expression(new).values(), values[20:90])
    assert found.score(new) == pytest.approx(expected.score(frame.iloc[20:90]), rel=ROUNDING)


@pytest.fixture(scope="module")
def fitted():
    return model().fit(lazy())


@pytest.mark.parametrize("renorm_size", [200.0, None, "auto"])
def test_a_whole_fit_takes_eight_readings(renorm_size):
    """Checks, proportions, start, two looks ahead and the level; a few rows are looked at besides.

    The second fit of "auto" begins in the frame of the first, which has looked ahead for both.
    """
    rng, n_samples, n_genes = np.random.default_rng(0), 600, 300
    reference, theta = rng.gamma(0.3, 1.0, (5, n_genes)), rng.dirichlet(np.ones(5), n_samples)
    reference *= 1000 / reference.sum(axis=1, keepdims=True)
    X = (theta @ reference) * rng.lognormal(0.0, 0.3, (n_samples, n_genes))
    matrix = lazy_matrix(X, block_bytes=8 * n_genes * 100)
    found = model(reference=reference, renorm_size=renorm_size).fit(matrix)
    assert found.converged_
    assert matrix.readings < 8 + 100 / n_samples


def test_two_fits_of_few_genes_are_those_in_memory():
    """Their frame is the whole space, in which the second fit begins anew."""
    X, known = COHORT.bulk.iloc[:, :60], {"proportions": COHORT.proportions}
    params = {"reference": COHORT.reference.iloc[:, :60], "renorm_size": "auto"}
    expected, found = model(**params).fit(X, **known), model(**params).fit(lazy(X), **known)
    assert found.n_iter_ == expected.n_iter_
    assert_same(found.expression_.values(), expected.expression_.values())


@pytest.mark.parametrize(("method", "most"), [("transform", 1), ("score", 1), ("predict_expression", 4)])
def test_a_fitted_model_reads_once(fitted, method, most):
    matrix = lazy(rows=30)
    getattr(fitted, method)(matrix)
    # those that are evenly spaced, for checks, are most of so few rows; of one that is read once they are in memory
    assert matrix.readings <= most


def test_parts_of_the_expression_read_what_they_need(fitted):
    matrix = lazy(rows=10)
    expression = fitted.predict_expression(matrix)
    before = matrix.readings
    expression.values(samples=slice(20, 35), genes=[3, 5])
    assert matrix.readings - before == pytest.approx(15 / N_SAMPLES)


def test_samples_may_be_asked_for_in_any_order(fitted):
    some = [120, 3, 4, 0, 119]
    expected = fitted.expression_.values()[some]
    assert_same(fitted.predict_expression(lazy(rows=3)).values(samples=some), expected)


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_genes_are_matched_by_name(fitted):
    shuffled = np.random.default_rng(0).permutation(N_GENES)
    assert_same(
        fitted.predict_expression(lazy(COHORT.bulk.iloc[:, shuffled])).values(),
        fitted.expression_.values(),
    )
    with pytest.raises(ValueError, match="X lacks 5 of the 400 genes of the fit"):
        fitted.predict_expression(lazy(COHORT.bulk.iloc[:, 5:]))
    fewer = model(max_iter=5).fit(lazy(COHORT.bulk.iloc[:, 40:]))
    expected = model(max_iter=5).fit(COHORT.bulk.iloc[:, 40:])
    assert_same(fewer.expression_.values(), expected.expression_.values())


def test_given_proportions_are_matched_by_name():
    shuffled = COHORT.proportions.iloc[::-1, ::-1]
    expected = model().fit(COHORT.bulk, proportions=COHORT.proportions)
    found = model().fit(lazy(), proportions=shuffled)
    assert_same(found.expression_.values(), expected.expression_.values())
    assert_same(
        found.transform(lazy(rows=20), proportions=shuffled),
        expected.transform(COHORT.bulk, proportions=COHORT.proportions),
    )


def test_the_tensor_is_built_where_it_fits():
    found = model(materialize=True).fit(lazy())
    assert_same(found.cse_, model(materialize=True).fit(COHORT.bulk).cse_)


@pytest.mark.parametrize(
    ("refused", "message"),
    [
        (
            model(solver="admm"),
            r"solver='admm' of L2MaxDeconvolver .* Use solver='proximal' or 'accelerated'",
        ),
        (model(solver="admm_fast"), r"solver='admm_fast' of L2MaxDeconvolver"),
        (TraceNormDeconvolver(COHORT.reference), r"solver='admm' of TraceNorm.*Use L2MaxDeconvolver"),
        (model(init=lambda bulk, proportions: bulk), r"solver='proximal' of L2MaxDeconvolver"),
        (L2MaxDeconvolverCV(COHORT.reference), r"L2MaxDeconvolverCV needs all of X in memory.*best_params_"),
        (L2MaxDeconvolver(), "Profiles are learned from a bulk in memory"),
    ],
)
def test_what_needs_all_of_it_is_refused_by_name(refused, message):
    matrix = lazy()
    with pytest.raises(ValueError, match=message):
        refused.fit(matrix)
    assert matrix.readings == 0


@pytest.mark.filterwarnings("ignore::skenigma.exceptions.LevelWarning")
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_a_solver_that_needs_all_of_it_takes_a_memory_map_as_the_array_it_is(tmp_path, monkeypatch):
    monkeypatch.setattr("skenigma.cohort._open.MAPPED_BYTES", 0)
    np.save(tmp_path / "x.npy", COHORT.bulk.to_numpy())
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
    reference = COHORT.reference.to_numpy()
    for params in ({"solver": "admm"}, {"materialize": False}):
        found, expected = (
            L2MaxDeconvolver(reference, max_iter=5, **params).fit(X).expression_.values()
            for X in (mapped, np.array(mapped))
        )
        assert_same(found, expected)


def test_a_missing_value_is_named_by_sample_and_gene():
    bad = COHORT.bulk.copy()
    bad.iloc[70, 5] = np.nan
    for call in (model().fit, fitted_transform):
        with pytest.raises(ValueError, match=r"NaN in 1 place\(s\): \(row 'sample71', column 'gene6'\)"):
            call(lazy(bad))


def fitted_transform(X):
    return model().fit(COHORT.bulk).transform(X)


def test_a_bulk_that_changes_after_a_fit_is_refused():
    frame = COHORT.bulk.copy()
    found = model().fit(lazy(frame))
    frame.iloc[3] *= 2.0
    with pytest.raises(ValueError, match="X has changed, at least in sample 'sample4'"):
        found.expression_.values()


def test_a_bulk_that_changes_during_a_fit_is_refused():
    frame = COHORT.bulk.copy()

    class Changing(ProportionEstimator):
        def fit_matched(self, *args, **kwargs):
            super().fit_matched(*args, **kwargs)
            frame.iloc[3] *= 2.0
            return self

    with pytest.raises(ValueError, match="X has changed, at least in sample 'sample4'"):
        model(proportion_estimator=Changing()).fit(lazy(frame))


def test_replayed_expression_can_be_pickled(fitted):
    expression = fitted.predict_expression(lazy())
    assert_same(pickle.loads(pickle.dumps(expression)).values(), expression.values())


@pytest.mark.filterwarnings("ignore::skenigma.exceptions.LevelWarning")
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize("kind", [L2MaxDeconvolver, TraceNormDeconvolver])
def test_models_fitted_in_memory_take_new_samples_by_rows(kind):
    """Whatever the solver: a row depends on no other."""
    found = kind(COHORT.reference, solver="admm", max_iter=3).fit(COHORT.bulk.iloc[:30])
    new = COHORT.bulk.iloc[30:]
    assert_same(found.transform(lazy(new)), found.transform(new))
    assert_same(found.predict_expression(lazy(new)).values(), found.predict_expression(new).values())
    if kind is L2MaxDeconvolver:
        assert found.score(lazy(new)) == pytest.approx(found.score(new), rel=ROUNDING)
    else:
        with pytest.raises(ValueError, match="needs all of its samples at once"):
            found.score(lazy(new))
