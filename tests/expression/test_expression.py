"""Expression as an object: what holds whatever the model, and what becomes of deviations on every scale."""

import pickle
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy.stats import norm
from sklearn.base import clone

from skenigma.datasets import make_cohort
from skenigma.expression import CellTypeExpression
from skenigma.expression._sources import Conversion, Converted
from tests.models import MODELS, documented

N_SAMPLES, N_GENES, CELL_TYPES = 15, 40, ["B", "T", "NK"]
# fit and replay differ by rounding; solvers gather it over some hundred iterations
SAME = {"rtol": 1e-9, "atol": 1e-10}


@pytest.fixture(scope="module")
def data():
    cohort = make_cohort(N_SAMPLES, N_GENES, len(CELL_TYPES), random_state=0, as_frame=True)
    frame = {"columns": cohort.bulk.columns}
    bulk = pd.DataFrame(np.exp(0.3 * cohort.bulk.to_numpy()), cohort.bulk.index, **frame)
    reference = pd.DataFrame(np.exp(0.3 * cohort.reference.to_numpy()), CELL_TYPES, **frame)
    return bulk, reference


@pytest.fixture(scope="module", params=list(MODELS))
def fitted(request, data):
    bulk, reference = data
    return clone(MODELS[request.param]).set_params(reference=reference).fit(bulk)


@pytest.fixture(scope="module")
def compact(fitted, data):
    return clone(fitted).set_params(materialize=False).fit(data[0])


def gaussian(reference, **params):
    return documented("model_example").GaussianDeconvolver(reference, **params)


def test_values_are_the_fitted_tensor(fitted, data):
    expression = fitted.expression_
    assert expression.shape == (N_SAMPLES, len(CELL_TYPES), N_GENES)
    assert expression.values() is fitted.cse_
    assert fitted.cse_.dtype == np.float64
    assert list(expression.cell_types) == CELL_TYPES
    assert list(expression.sample_names) == list(data[0].index)
    assert list(expression.gene_names) == list(data[0].columns)
    assert_array_equal(expression.proportions, fitted.proportions_)
    assert expression.scale is None


def test_compact_form_builds_the_same(fitted, compact):
    assert not hasattr(compact, "cse_")
    assert_allclose(compact.expression_.values(), fitted.cse_, **SAME)


# what is asked for, and where that stands
SELECTIONS = [
    ((["sample3", "sample1"], "T", None), ([2, 0], [1], range(N_GENES))),
    (([2, 0], [1], slice(5, 9)), ([2, 0], [1], range(5, 9))),
    ((np.arange(N_SAMPLES) % 2 == 0, None, ["gene7"]), (range(0, N_SAMPLES, 2), range(3), [6])),
    ((slice(3, 4), ["NK", "B"], [0, 3, 39]), ([3], [2, 0], [0, 3, 39])),
]


@pytest.mark.parametrize(("asked", "positions"), SELECTIONS)
def test_any_part_is_that_of_the_whole(fitted, compact, asked, positions):
    place = np.ix_(*positions)
    for expression in (fitted.expression_, compact.expression_):
        assert_allclose(expression.values(*asked), fitted.cse_[place], **SAME)
        if expression.has_std:
            assert_allclose(expression.std(*asked), fitted.cse_std_[place], **SAME)


def test_blocks_are_the_whole_in_bounded_pieces(compact):
    bound = 5 * 8 * len(CELL_TYPES) * N_GENES
    seen = list(compact.expression_.blocks(max_bytes=bound))
    assert [values.nbytes for _, values in seen] == [bound] * 3
    whole = compact.expression_.values()
    for samples, values in seen:
        assert_allclose(values, whole[samples], **SAME)
    assert sum(len(values) for _, values in seen) == N_SAMPLES
    # at least one sample, however little memory
    assert len(list(compact.expression_.blocks(max_bytes=1))) == N_SAMPLES


def test_frames_are_those_of_the_estimator(fitted):
    frame = fitted.expression_.to_frame("T", samples=["sample2"], genes=["gene1", "gene5"])
    assert_array_equal(frame.to_numpy(), fitted.cse_[1:2, 1][:, [0, 4]])
    pd.testing.assert_frame_equal(
        frame, fitted.cell_type_expression("T", samples=["sample2"], genes=["gene1", "gene5"])
    )


def test_rows_of_a_frame_are_numbered_as_samples_are(fitted):
    nameless = replace(fitted.expression_, sample_names=None)
    assert list(nameless.to_frame("T", samples=[12, 3]).index) == [12, 3]


def test_deviations_arrive_where_the_model_has_them_and_nowhere_else(fitted):
    if not fitted.expression_.has_std:
        assert not hasattr(fitted, "cse_std_")
        for ask in (
            fitted.expression_.std,
            fitted.expression_.interval,
            lambda: fitted.cell_type_expression("T", std=True),
        ):
            with pytest.raises(ValueError, match="no standard deviations"):
                ask()
        return
    mean, std = fitted.cell_type_expression("T", std=True, genes=["gene2"])
    assert_array_equal(mean.to_numpy(), fitted.cse_[:, 1, [1]])
    # a part may be computed by other products than the whole
    assert_allclose(std.to_numpy(), fitted.cse_std_[:, 1, [1]], rtol=1e-12)
    assert fitted.cse_std_.shape == fitted.cse_.shape
    assert np.all(fitted.cse_std_ > 0)
    low, high = fitted.expression_.interval(0.5)
    lower, higher = fitted.expression_.interval(0.95)
    assert np.all((lower <= low) & (low <= fitted.cse_) & (fitted.cse_ <= high) & (high <= higher))
    with pytest.raises(ValueError, match="level"):
        fitted.expression_.interval(95)


def test_new_samples_have_the_same_as_those_of_the_cohort(fitted, data):
    bulk, _ = data
    found = fitted.predict_expression(bulk.iloc[4:7])
    assert list(found.sample_names) == list(bulk.index[4:7])
    assert_allclose(found.values().reshape(3, -1), fitted.transform(bulk.iloc[4:7]), **SAME)
    assert_allclose(found.values(), fitted.cse_[4:7], **SAME)
    if found.has_std:
        assert_allclose(found.std(), fitted.cse_std_[4:7], **SAME)


def test_a_tensor_does_not_hang_on_the_callers_array(fitted, data):
    X = data[0].to_numpy(copy=True)
    # by position: names of genes cannot be matched to an array
    model = clone(fitted).set_params(reference=data[1].to_numpy()).fit(X)
    read = [model.expression_.values] + ([model.expression_.std] if model.expression_.has_std else [])
    before = [np.array(build()) for build in read]
    X[:] = 1.0
    for build, expected in zip(read, before, strict=True):
        assert_array_equal(build(), expected)


def test_what_is_built_from_the_callers_array_tells_that_it_changed(fitted, data):
    """A compact fit keeps X without a copy: other numbers than before would be worse than none."""
    X = data[0].to_numpy(copy=True)
    model = clone(fitted).set_params(materialize=False, reference=data[1].to_numpy()).fit(X)
    new = model.predict_expression(X[4:7])
    X[5] *= 2.0
    for found, kept, lost in ((model.expression_, slice(0, 5), 5), (new, [0, 2], 1)):
        assert np.isfinite(found.values(samples=kept)).all()
        builders = [found.values, found.std, lambda found=found, **part: found.interval(0.9, **part)]
        for build in builders if found.has_std else builders[:1]:
            with pytest.raises(ValueError, match=rf"X was changed after the fit, at least in sample {lost}"):
                build(samples=[0, lost])


def test_pickled_expression_is_the_same(compact):
    again = pickle.loads(pickle.dumps(compact.expression_))
    assert_array_equal(again.values(), compact.expression_.values())
    assert again.has_std == compact.expression_.has_std


@pytest.mark.parametrize("method", ["frac", "quantile"])
def test_normalised_expression_is_what_transform_returns(fitted, data, method):
    bulk, _ = data
    model = clone(fitted).set_params(normalize=method).fit(bulk)
    flat = model.transform(bulk).reshape(model.cse_.shape)
    assert_allclose(model.expression_normalized_.values(), flat, **SAME)
    assert model.expression_normalized_.values() is model.cse_normalized_
    assert not model.expression_normalized_.has_std
    assert not np.allclose(flat, model.cse_)
    compact = clone(model).set_params(materialize=False).fit(bulk)
    part = compact.expression_normalized_.values(cell_types=["T"], genes=[3])
    assert_allclose(part, flat[:, [1]][:, :, [3]], **SAME)


def test_a_refit_without_them_leaves_no_values_of_an_earlier_fit(fitted, data):
    bulk, _ = data
    model = clone(fitted).set_params(normalize="frac").fit(bulk)
    model.set_params(normalize=None, materialize=False).fit(bulk)
    assert not hasattr(model, "expression_normalized_")
    assert not hasattr(model, "cse_")


def test_to_anndata_has_a_row_per_sample_and_cell_type(fitted):
    pytest.importorskip("anndata")
    adata = fitted.expression_.to_anndata()
    assert adata.shape == (N_SAMPLES * len(CELL_TYPES), N_GENES)
    assert list(adata.obs_names[:2]) == ["sample1:B", "sample1:T"]
    assert_array_equal(adata.X, fitted.cse_.reshape(adata.shape))
    assert ("std" in adata.layers) == fitted.expression_.has_std
    if fitted.expression_.has_std:
        assert_array_equal(adata.layers["std"], fitted.cse_std_.reshape(adata.shape))


@pytest.mark.parametrize("preprocess", [None, "sqrt", "log"])
def test_intervals_are_quantiles_transformed_back(data, preprocess):
    """A normal posterior on the scale of the model is not one on that of X: quantiles go over, means ± z do not."""
    bulk, reference = data
    forward = {None: lambda x: x, "sqrt": np.sqrt, "log": lambda x: np.log2(x + 1)}[preprocess]
    back = {None: lambda x: x, "sqrt": np.square, "log": lambda x: 2**x - 1}[preprocess]
    model = gaussian(reference, preprocess=preprocess).fit(bulk)
    inner = gaussian(forward(reference), positive=False).fit(forward(bulk), proportions=model.proportions_)
    middle, std = inner.cse_, inner.cse_std_
    low, high = model.expression_.interval(0.999)
    z = norm.ppf(0.9995)
    # clipped before they are transformed back, which is monotone from there on
    assert_allclose(low, back(np.maximum(middle - z * std, 0)), rtol=1e-10, atol=1e-12)
    assert_allclose(high, back(np.maximum(middle + z * std, 0)), rtol=1e-10, atol=1e-12)
    assert low.min() == 0
    assert (low > 0).any()
    assert model.expression_.scale == preprocess


def test_deviations_of_a_transformed_scale_are_those_of_small_steps(data):
    """For a deviation that is small beside the value, that of x² is 2x times that of x, and so on."""
    bulk, reference = data
    for preprocess, slope in (("sqrt", lambda x: 2 * np.sqrt(x)), ("log", lambda x: np.log(2) * (x + 1))):
        model = gaussian(reference, preprocess=preprocess).fit(bulk)
        scale = {"sqrt": np.sqrt, "log": lambda x: np.log2(x + 1)}[preprocess]
        inner = gaussian(scale(reference)).fit(scale(bulk), proportions=model.proportions_)
        small = inner.cse_std_ < 0.1 * inner.cse_
        assert small.any()
        # the next term of the expansion is σ²/x² or (σ log 2)²/6
        assert_allclose(model.cse_std_[small], (slope(model.cse_) * inner.cse_std_)[small], rtol=0.02)


@pytest.fixture(params=[1, 10**9], ids=["by blocks", "at once"])
def mixed_at_once(request, monkeypatch):
    monkeypatch.setattr("skenigma.expression._sources.MIXED", request.param)


@pytest.mark.parametrize("genes", [slice(None), np.array([30, 2, 7])], ids=["all", "some"])
@pytest.mark.parametrize("whole", [0, N_GENES])
def test_mixtures_are_those_of_the_tensor(fitted, compact, mixed_at_once, monkeypatch, genes, whole):
    monkeypatch.setattr("skenigma.expression._sources.MIXED_WHOLE", whole)
    weights = np.random.default_rng(0).uniform(0.1, 1.0, (7, len(CELL_TYPES)))
    expected = np.einsum("jk,jkg->jg", weights, fitted.cse_[4:11])[:, genes]
    for expression in (fitted.expression_, compact.expression_):
        assert_allclose(expression.source.mixed(weights, slice(4, 11), genes), expected, **SAME)


def test_mixtures_hold_what_is_made_of_the_values(compact):
    source = compact.expression_.source
    changed = replace(
        source.conversion, absent=np.array([False, True, False]), factors=np.array([0.5, 2.0, 3.0])
    )
    weights = np.random.default_rng(0).uniform(0.1, 1.0, (7, len(CELL_TYPES)))
    for positive in (False, True):
        found = replace(source, conversion=replace(changed, positive=positive))
        values = found.values(slice(4, 11), slice(None), slice(5, 20))
        expected = np.einsum("jk,jkg->jg", weights, values)
        assert_allclose(found.mixed(weights, slice(4, 11), slice(5, 20)), expected, **SAME)


class OwnInterval:
    """State of one value with an interval that is not normal."""

    def expand(self, samples, cell_types, genes):
        return np.ones((1, 1, 1))

    def deviations(self, samples, cell_types, genes):
        return np.ones((1, 1, 1))

    def interval(self, level, samples, cell_types, genes):
        return np.full((1, 1, 1), -level), np.full((1, 1, 1), 2 + level)


def test_a_model_may_know_its_intervals():
    conversion = Conversion("sqrt", True, np.array([False]), np.ones((1, 1)))
    source = Converted(OwnInterval(), conversion, np.dtype(float))
    names = np.array(["a"], dtype=object)
    expression = CellTypeExpression(source, np.ones((1, 1)), names, names)
    low, high = expression.interval(0.5)
    assert (low.item(), high.item()) == (0.0, 2.5**2)


def test_absent_cell_types_have_the_profile(data):
    bulk, reference = data
    theta = np.tile([0.6, 0.4, 0.0], (N_SAMPLES, 1))
    with pytest.warns(UserWarning, match="0 in every sample"):
        model = gaussian(reference, preprocess="sqrt").fit(bulk, proportions=theta)
    assert_array_equal(model.expression_.values(cell_types=["NK"])[3, 0], reference.loc["NK"])


def test_names_that_are_not_there_are_refused(fitted):
    with pytest.raises(ValueError, match="no gene named 'TP53'"):
        fitted.expression_.values(genes=["TP53"])
    with pytest.raises(ValueError, match="no cell type named 'mast'"):
        fitted.expression_.to_frame("mast")
