"""EmpiricalBayesDeconvolver as an estimator: what the flow, names, covariates and donors add to the posterior."""

import pickle

import numpy as np
import pandas as pd
import pytest
import sklearn
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.base import clone
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from skenigma import EmpiricalBayesDeconvolver
from skenigma.baselines import baselines
from skenigma.core.posterior.fit import fit_posterior
from skenigma.core.posterior.model import Settings
from skenigma.metrics import per_gene_correlation, recovery_score

GENES = [f"gene{g}" for g in range(120)]
TYPES = ["B", "NK", "T"]
# One path computes a block of rows at a time, the other another block.
SAME = {"rtol": 1e-12, "atol": 1e-12}


@pytest.fixture(scope="module")
def cohort():
    """Bulk, reference, proportions and truth, by name."""
    rng = np.random.default_rng(0)
    reference = pd.DataFrame(rng.gamma(0.7, 80.0, (3, 120)), TYPES, GENES)
    samples = [f"s{j}" for j in range(24)]
    theta = pd.DataFrame(rng.dirichlet(np.full(3, 4.0), 24), samples, TYPES)
    truth = reference.to_numpy() * np.exp(rng.normal(0, 0.3, (24, 3, 120)))
    bulk = np.einsum("jk,jkg->jg", theta, truth) * np.exp(
        0.4 * rng.normal(size=(24, 1)) * rng.normal(size=120)
    )
    bulk = 2.0 * rng.poisson(bulk * np.exp(0.6 * rng.normal(size=120)) / 2)
    return pd.DataFrame(bulk, samples, GENES), reference, theta, truth


@pytest.fixture(scope="module")
def model(cohort):
    bulk, reference, theta, _ = cohort
    return EmpiricalBayesDeconvolver(reference).fit(bulk, proportions=theta)


def test_it_is_the_posterior_of_the_arrays(cohort, model):
    bulk, reference, theta, _ = (np.asarray(part) for part in cohort)
    posterior, rows = fit_posterior(bulk, reference, theta)
    assert_allclose(model.cse_, posterior.expand(rows), **SAME)
    assert_allclose(model.cse_std_, posterior.deviations(rows), **SAME)
    assert_allclose(model.reliability_, posterior.reliability(), **SAME)
    low, high = model.expression_.interval(0.8)
    bounds = posterior.quantiles(rows, 0.8)
    assert_allclose(low, np.maximum(bounds[0], 0), **SAME)
    assert_allclose(high, bounds[1], **SAME)
    assert (low <= model.cse_).all()
    assert (model.cse_ <= high).all()
    assert model.mismatch_ == posterior.delta2
    assert model.variance_components_.index.tolist() == TYPES
    assert_allclose(
        model.hidden_directions_["gain"], 1 / (1 + model.hidden_directions_["share"] / model.hidden_share_)
    )


def test_transform_is_row_wise_and_equal_to_the_fit(cohort, model):
    bulk, _, theta, _ = cohort
    again = model.transform(bulk, proportions=theta)
    assert_allclose(again, model.cse_.reshape(24, -1), **SAME)
    few = model.transform(bulk.iloc[[5, 2]], proportions=theta.iloc[[5, 2]])
    assert_allclose(few, again[[5, 2]], **SAME)
    found = model.predict_expression(bulk.iloc[[5, 2]], proportions=theta.iloc[[5, 2]])
    assert_allclose(found.std(), model.cse_std_[[5, 2]], rtol=1e-9)
    restored = pickle.loads(pickle.dumps(model))
    assert_array_equal(restored.transform(bulk, proportions=theta), again)


def test_without_a_tensor_any_part_is_the_same(cohort, model):
    bulk, reference, theta, _ = cohort
    compact = EmpiricalBayesDeconvolver(reference, materialize=False).fit(bulk, proportions=theta)
    frame, std = compact.cell_type_expression("NK", samples=["s3", "s1"], genes=["gene7", "gene2"], std=True)
    part = np.ix_([3, 1], [1], [7, 2])
    assert_allclose(frame, model.cse_[part][:, 0], **SAME)
    assert_allclose(std, model.cse_std_[part][:, 0], **SAME)
    assert not hasattr(compact, "cse_")


def test_it_follows_genes_better_than_what_is_free(cohort, model):
    bulk, reference, theta, truth = cohort
    answers = {**baselines(bulk, reference, theta), "model": model.cse_}
    scores = {name: recovery_score(truth, answer) for name, answer in answers.items()}
    assert max(scores, key=scores.get) == "model"


@pytest.mark.parametrize(
    "parameters", [{"platform": "bulk"}, {"measured": False}, {"composition": 0.0}, {"shared": 0.4}]
)
def test_parameters_reach_the_posterior(cohort, model, parameters):
    bulk, reference, theta, _ = cohort
    fitted = EmpiricalBayesDeconvolver(reference, **parameters).fit(bulk, proportions=theta)
    names = {"platform": "on_platform"}
    given = {
        names.get(name, name): (value == "bulk" if name == "platform" else value)
        for name, value in parameters.items()
    }
    posterior, rows = fit_posterior(
        bulk.to_numpy(), reference.to_numpy(), theta.to_numpy(), settings=Settings(**given)
    )
    assert_allclose(fitted.cse_, posterior.expand(rows), **SAME)
    assert_allclose(fitted.cse_std_, posterior.deviations(rows), **SAME)
    assert np.abs(fitted.cse_std_ - model.cse_std_).max() > 1e-3


def test_an_infinite_hidden_share_keeps_everything(cohort):
    bulk, reference, theta, _ = cohort
    model = EmpiricalBayesDeconvolver(reference, hidden_share=np.inf).fit(bulk, proportions=theta)
    assert model.hidden_directions_.empty


def test_single_precision_stays(cohort, model):
    bulk, reference, theta, _ = cohort
    single = EmpiricalBayesDeconvolver(reference).fit(bulk.astype(np.float32), proportions=theta)
    assert single.cse_.dtype == single.cse_std_.dtype == np.float32
    assert_allclose(single.cse_, model.cse_, rtol=2e-3, atol=2e-3)


def test_proportions_are_estimated_by_what_the_data_are(cohort):
    bulk, reference, _, _ = cohort
    model = EmpiricalBayesDeconvolver(reference).fit(bulk)
    assert model.proportion_estimator_.method_ == "log"
    assert_allclose(model.transform(bulk), model.cse_.reshape(24, -1), rtol=1e-9, atol=1e-9)


def test_normalisation_and_output_cell_types(cohort):
    bulk, reference, theta, _ = cohort
    model = EmpiricalBayesDeconvolver(reference, normalize="frac", output_cell_types=["T", "B"])
    found = model.fit_transform(bulk, proportions=theta)
    assert_allclose(found, model.cse_normalized_[:, [2, 0]].reshape(24, -1), **SAME)
    assert list(model.get_feature_names_out()[[0, 120]]) == ["T:gene0", "B:gene0"]


# Covariates


@pytest.fixture(scope="module")
def dominated():
    """Stimulated and control samples: the stimulus moves a gene in all types, and more than anything else does."""
    rng = np.random.default_rng(1)
    reference = rng.gamma(0.7, 80.0, (4, 600))
    stimulated = np.tile([False, True], 12)
    effect = rng.normal(0, 1.5, 600) * (rng.random(600) < 0.4)
    theta = rng.dirichlet(np.full(4, 4.0), 24)
    donor = rng.normal(0, 0.2, (24, 4, 600))
    truth = reference * np.exp2(donor + (stimulated[:, None] * effect)[:, None])
    platform = 0.7 * rng.normal(size=600)
    bulk = np.einsum("jk,jkg->jg", theta, truth) * np.exp2(platform)
    samples = [f"s{j}" for j in range(24)]
    covariates = pd.DataFrame({"stimulus": np.where(stimulated, "IFN", "control")}, samples)
    return pd.DataFrame(bulk, samples), reference, theta, covariates, effect


def effect_found(model, covariates, effect):
    logs = np.log2(model.cse_ + 1)
    treated = (covariates["stimulus"] == "IFN").to_numpy()
    found = logs[treated].mean(axis=0) - logs[~treated].mean(axis=0)
    return np.array([np.polyfit(effect, of_type, 1)[0] for of_type in found])


def test_protected_covariates_keep_their_effect(dominated):
    bulk, reference, theta, covariates, effect = dominated
    model = EmpiricalBayesDeconvolver(reference)
    without = effect_found(clone(model).fit(bulk, proportions=theta), covariates, effect).mean()
    model.fit(bulk, proportions=theta, covariates=covariates.iloc[::-1])  # matched by name
    protected = effect_found(model, covariates, effect).mean()
    assert without < 0.6 * protected
    assert protected > 0.5  # the part of an effect that is common to all types is believed less than whole
    again = model.transform(bulk, proportions=theta, covariates=covariates)
    assert_allclose(again, model.cse_.reshape(24, -1), **SAME)
    few = model.predict_expression(bulk.iloc[[4]], proportions=theta[[4]], covariates=covariates.iloc[[4]])
    assert_allclose(few.values()[0], model.cse_[4], **SAME)


def test_new_samples_without_the_covariates_of_the_fit_are_noticed(dominated):
    bulk, reference, theta, covariates, _ = dominated
    model = EmpiricalBayesDeconvolver(reference).fit(bulk, proportions=theta, covariates=covariates)
    with pytest.warns(UserWarning, match=r"fitted with covariates \('stimulus'\)"):
        model.transform(bulk, proportions=theta)
    plain = EmpiricalBayesDeconvolver(reference).fit(bulk, proportions=theta)
    with pytest.raises(ValueError, match="fitted without covariates"):
        plain.transform(bulk, proportions=theta, covariates=covariates)


@pytest.mark.parametrize(
    ("message", "change"),
    [
        ("covariates have 23 rows, but there are 24", lambda frame: frame.iloc[1:].reset_index(drop=True)),
        ("missing or infinite values: 'stimulus'", lambda frame: frame.mask(frame["stimulus"] == "IFN")),
        ("same value in every sample: 'stimulus'", lambda frame: frame.assign(stimulus="IFN")),
        ("covariates must be a table", lambda frame: np.zeros((24, 1, 1))),
    ],
)
def test_bad_covariates_are_refused(dominated, message, change):
    bulk, reference, theta, covariates, _ = dominated
    with pytest.raises(ValueError, match=message):
        EmpiricalBayesDeconvolver(reference).fit(bulk, proportions=theta, covariates=change(covariates))


def test_covariates_of_new_samples_must_be_those_of_the_fit(dominated):
    bulk, reference, theta, covariates, _ = dominated
    model = EmpiricalBayesDeconvolver(reference).fit(bulk, proportions=theta, covariates=covariates)
    with pytest.raises(ValueError, match="fitted with 'stimulus'"):
        model.transform(bulk, proportions=theta, covariates=covariates.rename(columns={"stimulus": "other"}))
    with pytest.raises(ValueError, match="values that it did not have in the fit: 'LPS'"):
        model.transform(bulk, proportions=theta, covariates=covariates.assign(stimulus="LPS"))


def test_covariates_are_routed_through_a_pipeline(dominated):
    bulk, reference, theta, covariates, _ = dominated
    y = (covariates["stimulus"] == "IFN").to_numpy()
    with sklearn.config_context(enable_metadata_routing=True):
        routed = EmpiricalBayesDeconvolver(reference)
        routed.set_fit_request(covariates=True, proportions=True).set_transform_request(
            covariates=True, proportions=True
        )
        chain = make_pipeline(routed, StandardScaler(), LogisticRegression())
        chain.fit(bulk, y, covariates=covariates, proportions=theta)
    direct = EmpiricalBayesDeconvolver(reference).fit(bulk, covariates=covariates, proportions=theta)
    assert_allclose(chain[0].cse_, direct.cse_, **SAME)


# Donors of the reference


def test_variance_between_donors_is_matched_by_name(cohort, model):
    bulk, reference, theta, _ = cohort
    variance = pd.DataFrame(np.random.default_rng(0).gamma(2, 0.1, (3, 120)), TYPES, GENES)
    shuffled = variance.sample(frac=1, random_state=0).sample(frac=1, axis=1, random_state=0)
    donors = pd.Series([3, 4, 5], ["T", "NK", "B"])
    known = EmpiricalBayesDeconvolver(reference, reference_variance=shuffled, reference_donors=donors)
    known.fit(bulk, proportions=theta)
    settings = Settings(variance=variance.to_numpy(), n_donors=np.array([5, 4, 3]))
    arrays = bulk.to_numpy(), reference.to_numpy(), theta.to_numpy()
    posterior, rows = fit_posterior(*arrays, settings=settings)
    assert_allclose(known.cse_std_, posterior.deviations(rows), **SAME)
    assert_array_equal(known.cse_, model.cse_)
    assert clone(known).reference_variance is not None


@pytest.mark.parametrize(
    ("message", "parameters"),
    [
        (
            "columns of reference_variance do not name gene 'gene119'",
            {"reference_variance": pd.DataFrame(np.ones((3, 119)), TYPES, GENES[:-1])},
        ),
        (
            "do not name cell type 'T'",
            {"reference_variance": pd.DataFrame(np.ones((2, 120)), TYPES[:2], GENES)},
        ),
        ("has shape .3, 5., but .3, 120. is needed", {"reference_variance": np.ones((3, 5))}),
        ("Variances must be at least 0", {"reference_variance": -np.ones((3, 120))}),
        (
            "rows of reference_donors do not name cell type 'NK', 'T'",
            {"reference_donors": pd.Series([2], ["B"])},
        ),
        ("reference_donors has shape .2,.", {"reference_donors": [2, 3]}),
        ("must be at least 1; it is not for 'T'", {"reference_donors": [2, 3, 0]}),
        ("must be at least 1; it is not for 'NK'", {"reference_donors": [2, np.nan, 3]}),
    ],
)
def test_variance_and_donors_that_do_not_fit_are_refused(cohort, message, parameters):
    bulk, reference, theta, _ = cohort
    with pytest.raises(ValueError, match=message):
        EmpiricalBayesDeconvolver(reference, **parameters).fit(bulk, proportions=theta)


# Contract


def test_score_prefers_the_right_proportions_on_samples_that_were_not_fitted(cohort):
    bulk, reference, theta, _ = cohort
    model = EmpiricalBayesDeconvolver(reference).fit(bulk.iloc[:16], proportions=theta.iloc[:16])
    right = model.score(bulk.iloc[16:], proportions=theta.iloc[16:])
    wrong = model.score(bulk.iloc[16:], proportions=theta.iloc[16:].to_numpy()[:, ::-1])
    assert right > wrong


def test_grid_search(cohort):
    bulk, reference, _, _ = cohort
    grid = {"composition": [0.0, 1.0], "reference_donors": [None, 3]}
    search = GridSearchCV(EmpiricalBayesDeconvolver(reference), grid, cv=3).fit(bulk)
    assert np.isfinite(search.cv_results_["mean_test_score"]).all()


@pytest.mark.parametrize(
    ("message", "change"),
    [
        (
            "1 sample.s. of X are zero in every gene in use: 's3'",
            lambda bulk: bulk.mul(bulk.index != "s3", axis=0),
        ),
        ("Negative values in data", lambda bulk: bulk - 5),
    ],
)
@pytest.mark.filterwarnings("ignore::skenigma.exceptions.SampleWarning")
def test_bulks_without_a_logarithm_are_refused(cohort, model, message, change):
    bulk, reference, theta, _ = cohort
    with pytest.raises(ValueError, match=message):
        EmpiricalBayesDeconvolver(reference).fit(change(bulk), proportions=theta)
    with pytest.raises(ValueError, match=message):
        model.transform(change(bulk), proportions=theta)


def test_other_units_and_a_foreign_reference_are_noticed(cohort):
    bulk, reference, theta, _ = cohort
    with pytest.warns(UserWarning, match="different units: X is .* times the reference"):
        EmpiricalBayesDeconvolver(reference / 100).fit(bulk, proportions=theta)
    shuffled = pd.DataFrame(np.random.default_rng(0).permuted(reference, axis=1), TYPES, GENES)
    with pytest.warns(UserWarning, match="hardly match"):
        EmpiricalBayesDeconvolver(shuffled).fit(bulk, proportions=theta)


@pytest.mark.filterwarnings("ignore:The proportion of")
def test_a_type_that_no_sample_holds_keeps_its_profile(cohort):
    bulk, reference, theta, _ = cohort
    absent = theta.assign(T=0.0)
    absent = absent.div(absent.sum(axis=1), axis=0)
    model = EmpiricalBayesDeconvolver(reference).fit(bulk, proportions=absent)
    assert_allclose(model.cse_[:, 2], np.broadcast_to(reference.loc["T"], (24, 120)))
    low, high = model.expression_.interval(0.9)
    assert (low[:, 2] <= model.cse_[:, 2]).all()
    assert (model.cse_[:, 2] <= high[:, 2]).all()


def test_many_types_and_one(cohort):
    reference = cohort[1]
    rng = np.random.default_rng(0)
    alone = reference.to_numpy()[0] * rng.lognormal(0, 0.3, (24, 120))
    one = EmpiricalBayesDeconvolver(reference.to_numpy()[[0]]).fit(alone, proportions=np.ones((24, 1)))
    assert np.isfinite(one.cse_std_).all()
    many, theta = rng.gamma(0.7, 80.0, (40, 120)), rng.dirichlet(np.ones(40), 24)
    model = EmpiricalBayesDeconvolver(many).fit(
        theta @ many * rng.lognormal(0, 0.2, (24, 120)), proportions=theta
    )
    assert np.isfinite(model.cse_).all()
    assert np.isfinite(model.cse_std_).all()


# Real donors


def test_real_blood_beats_the_bulk(truth_folder):
    with np.load(truth_folder / "gse60424.npz") as file:
        bulk, reference, truth = (file[name].astype(float) for name in ("bulk", "reference", "cse"))
    model = EmpiricalBayesDeconvolver(reference).fit(bulk)
    found = model.mismatch_, model.composition_, model.hidden_share_
    # recorded to three digits
    assert_allclose(found, [0.321, 0.561, 0.0815], atol=6e-4)
    components = model.variance_components_
    # recorded with an earlier edition of the ridge: to 0.005
    assert_allclose(components["own"] / 0.9, [0.207, 0.129, 0.188, 0.194, 0.188], atol=6e-3)
    level = np.einsum("jk,jkg->j", model.proportions_, model.cse_) / bulk.sum(axis=1)
    assert_allclose(level, 1, atol=0.1)
    correlation = per_gene_correlation(truth, model.cse_, method="spearman")
    by_bulk = per_gene_correlation(truth, np.broadcast_to(bulk[:, None], truth.shape), method="spearman")
    assert np.nanmean(correlation) > np.nanmean(by_bulk) + 0.04
    low, high = model.expression_.interval(0.95)
    assert_allclose(((low <= truth) & (truth <= high)).mean(), 0.95, atol=0.03)


def test_a_tidy_table_has_a_row_per_value_with_its_bounds(model):
    table = model.expression_.to_tidy(
        samples=["s3", "s1"], cell_types=["T"], genes=["gene7", "gene2"], level=0.8
    )
    assert table.columns.tolist() == ["sample", "cell_type", "gene", "value", "std", "lower", "upper"]
    assert table[["sample", "gene"]].to_numpy().tolist()[:3] == [
        ["s3", "gene7"],
        ["s3", "gene2"],
        ["s1", "gene7"],
    ]
    part = np.ix_([3, 1], [2], [7, 2])
    lower, upper = model.expression_.interval(0.8)
    expected = {"value": model.cse_, "std": model.cse_std_, "lower": lower, "upper": upper}
    for name, values in expected.items():
        assert_allclose(table[name], values[part].ravel(), **SAME)
    assert len(model.expression_.to_tidy()) == model.cse_.size
