"""Differential expression: recorded R outputs, the formulas, what is flagged, what is refused."""

import re
from contextlib import nullcontext
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from pandas.testing import assert_frame_equal
from scipy import stats
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.metrics import average_precision_score

from skenigma import L2MaxDeconvolver, TraceNormDeconvolver, differential
from skenigma.core.regress import generalized
from skenigma.datasets import make_cohort
from skenigma.differential import differential_expression, interaction_test, joint_test, marginal_test
from skenigma.differential._study import Options, Study
from skenigma.exceptions import SampleWarning
from skenigma.normalization import normalize

# Two ways of solving the same well-conditioned systems in double precision.
ROUNDING = 1e-9
COLUMNS = ["cell_type", "gene", "effect", "statistic", "p_value", "q_value", "flag", "contrast"]
CELL_TYPES, GENES = ["B cell", "monocyte", "T cell"], [f"gene{i}" for i in range(8)]


def refused(*parts, error=ValueError):
    """Expect an error whose message holds all ``parts``, in this order."""
    return pytest.raises(error, match="(?s)" + ".*".join(parts))


def wide(table, column):
    """One column of a table as cell types × genes, both sorted."""
    return table.pivot(index="cell_type", columns="gene", values=column)


def rows_of(table, **conditions):
    keep = np.logical_and.reduce([table[column] == value for column, value in conditions.items()])
    return table[keep]


# ------------------------------------------------------------------------------------- the original's outputs


def recorded_calls():
    for model in ("l2_mild_sqrt_frac", "trace_admm_log_init_zero"):
        for fdr_control in (True, False):
            yield model, fdr_control, True, "none"
            # with its false discovery rates, the original fails on a covariate in a data frame
            for covariate in ("none", "age_matrix", *([] if fdr_control else ["age_dataframe"])):
                yield model, fdr_control, False, covariate


@pytest.mark.parametrize(("model", "fdr_control", "fold_change", "covariate"), list(recorded_calls()))
def test_recorded_outputs(package, model, fdr_control, fold_change, covariate):
    """FindCSE_DEG with FDR_control is the joint test, without it the marginal one."""
    call = f"deg_{model}_fdr{fdr_control}_fc{fold_change}_cov_{covariate}".replace("True", "TRUE")
    recorded = package.table(f"outputs/{call.replace('False', 'FALSE')}.csv.gz").reset_index()
    phenotype = package.table("inputs/phenotype.csv.gz")
    covariates = {
        "none": None,
        "age_matrix": phenotype[["age"]].to_numpy(),
        "age_dataframe": phenotype[["age"]],
    }
    test = joint_test if fdr_control else marginal_test
    table = test(
        package.run(model)["CSE_norm"],
        phenotype.y,
        covariates=covariates[covariate],
        fold_change=fold_change,
        cell_types=recorded.cell_type.unique(),
        gene_names=recorded.gene.unique(),
    )
    ours = recorded[["cell_type", "gene"]].merge(table, validate="one_to_one")
    # measured 2e-13 for p, 4e-14 for q, 5e-12 for effects that are small differences: rounding, which separation
    # amplifies to the 2e-13
    assert_allclose(ours.p_value, recorded.pvalue, rtol=1e-10)
    assert_allclose(ours.q_value, recorded.qvalue, rtol=1e-10)
    assert_allclose(ours.effect, recorded.effect, rtol=1e-9)
    undefined = ~np.isfinite(recorded.effect)
    assert_array_equal(ours.flag == "zero_mean", undefined)


def test_separated_gene_of_the_recorded_outputs(package):
    """R warns that fitted probabilities are numerically 0 or 1, and that the fit did not converge, of one gene."""
    y = package.table("inputs/phenotype.csv.gz").y
    table = joint_test(package.run("l2_mild_sqrt_frac")["CSE_norm"], y)
    separated = table[table.flag == "separated"]
    assert separated.gene.nunique() == 1
    assert len(separated) == 4
    assert separated.p_value.min() > 0.99
    assert set(table.flag) == {"", "separated"}


@pytest.fixture(scope="module")
def published(vignette):
    """The published data, its proportions, phenotype and changed genes."""
    theta, listed = vignette.table("theta.csv.gz"), vignette.table("deg_truth.csv.gz")
    bulk = vignette.table("bulk.csv.gz").T
    changed = pd.DataFrame(0, theta.columns, bulk.columns)
    for cell_type, gene, sign in zip(listed.index, listed.gene, listed.sign, strict=True):
        changed.loc[cell_type, gene] = sign
    phenotype = np.repeat(["first half", "second half"], 50)
    return SimpleNamespace(bulk=bulk, theta=theta, changed=changed, phenotype=phenotype)


@pytest.mark.parametrize("run", ["trace_admm", "l2max_renorm200", "l2max_none"])
def test_recorded_joint_test_of_the_published_data(vignette, published, run):
    """The analysis script has the joint test too, on expression without the effect of proportions."""
    recorded, names = vignette.run(run), names_of(published)
    table = joint_test(adjusted(recorded["X_k"], published), published.phenotype, **names)
    ours = {
        column: wide(table, column).loc[names["cell_types"], names["gene_names"]]
        for column in ("p_value", "q_value")
    }
    # measured 3e-11 where classes are separated, which amplifies rounding, else 6e-14
    assert_allclose(ours["p_value"], recorded["deg_pval"], rtol=1e-8)
    assert_allclose(ours["q_value"], recorded["deg_qval"], rtol=1e-8)


def names_of(published):
    return {"cell_types": published.theta.columns, "gene_names": published.bulk.columns}


def adjusted(cse, published):
    """Expression without the linear effect of proportions."""
    return normalize("frac", cse, published.theta.to_numpy())


def signed_average_precision(table, changed):
    """Mean over cell types and directions: genes that go up ranked by the statistic, down by its negative."""
    statistic = wide(table, "statistic").loc[changed.index, changed.columns].to_numpy()
    return np.mean(
        [
            average_precision_score(truth == sign, sign * score)
            for truth, score in zip(changed.to_numpy(), statistic, strict=True)
            for sign in (1, -1)
        ]
    )


class TestPublishedData:
    """The figures in the documentation: ranking, and what is called at a false discovery rate below 5 %."""

    @pytest.fixture
    def hold(self, published):
        def hold(table, precision_of_ranking, n_called, precision):
            changed = published.changed
            assert_allclose(signed_average_precision(table, changed), precision_of_ranking, atol=0.0006)
            called = table[table.q_value < 0.05]
            truth = [changed.loc[row.cell_type, row.gene] for row in called.itertuples()]
            assert len(called) == n_called
            assert_allclose(np.mean(np.sign(called.statistic) == truth), precision, atol=0.0006)

        return hold

    def test_interaction(self, published, hold):
        given = published.bulk, published.theta, published.phenotype
        hold(interaction_test(*given, errors="ols"), 0.825, 233, 0.953)

    def test_weighted_interaction(self, published):
        """Ranks better than least squares, and makes more right calls."""
        table = interaction_test(published.bulk, published.theta, published.phenotype)
        assert signed_average_precision(table, published.changed) > 0.825
        called = table[table.q_value < 0.05]
        truth = [published.changed.loc[row.cell_type, row.gene] for row in called.itertuples()]
        assert np.sum(np.sign(called.statistic) == truth) >= 0.953 * 233

    def test_bulk_in_the_place_of_every_cell_type(self, published, hold):
        bulk = np.repeat(published.bulk.to_numpy()[:, None], 5, axis=1)
        hold(marginal_test(bulk, published.phenotype, **names_of(published)), 0.292, 1790, 0.222)

    @pytest.mark.parametrize(
        ("test", "run", "figures"),
        [
            (marginal_test, "trace_admm", (0.569, 1971, 0.232)),
            (marginal_test, "l2max_renorm200", (0.490, 1553, 0.274)),
            (marginal_test, "l2max_none", (0.361, 1639, 0.242)),
            (joint_test, "trace_admm", (0.825, 362, 0.881)),
            (joint_test, "l2max_renorm200", (0.685, 161, 0.950)),
            (joint_test, "l2max_none", (0.398, 65, 0.831)),
        ],
    )
    def test_tensors(self, vignette, published, hold, test, run, figures):
        cse = adjusted(vignette.run(run)["X_k"], published)
        hold(test(cse, published.phenotype, **names_of(published)), *figures)


# ------------------------------------------------------------------------------------- formulas


@pytest.fixture
def cohort():
    """A small cohort: bulk and proportions as frames, expression, and a phenotype that some genes go with."""
    rng = np.random.default_rng(0)
    cse = rng.gamma(4.0, 5.0, (24, 3, 8))
    cse[12:, 1, :4] += 12
    theta = rng.dirichlet(np.full(3, 3.0), 24)
    samples = [f"donor{j}" for j in range(24)]
    bulk = np.einsum("jk,jkg->jg", theta, cse) + rng.standard_normal((24, 8))
    phenotype = pd.Series(np.repeat(["control", "case"], 12), samples).astype(
        pd.CategoricalDtype(["control", "case"])
    )
    return SimpleNamespace(
        cse=cse,
        bulk=pd.DataFrame(bulk, samples, GENES),
        theta=pd.DataFrame(theta, samples, CELL_TYPES),
        phenotype=phenotype,
        covariates=pd.DataFrame(
            {
                "age": rng.uniform(20, 80, 24),
                "sex": rng.choice(["f", "m"], 24),
                "site": pd.Categorical(rng.choice(["x", "y", "z"], 24), ["w", "x", "y", "z"]),
            },
            index=samples,
        ),
    )


def untested(*cell_types):
    """A warning that names cell types without any test."""
    named = ", ".join(f"'{name}'" for name in cell_types)
    return pytest.warns(UserWarning, match=f"No gene could be tested in {named}: ")


OPTIONS = ("covariates", "fold_change", "levels", "reference_level", "missing", "errors", "min_proportion")


def call(test, cohort, **changes):
    """One of the three tests on a cohort, with changes."""
    given = {**vars(cohort), **changes}
    options = {name: given[name] for name in OPTIONS if name in changes}
    if test is interaction_test:
        # the formulas here are those of least squares; weights and moderation have tests of their own
        return test(given["bulk"], given["theta"], given["phenotype"], **{"errors": "ols"} | options)
    return test(given["cse"], given["phenotype"], cell_types=CELL_TYPES, gene_names=GENES, **options)


each_test = pytest.mark.parametrize("test", [interaction_test, marginal_test, joint_test])
linear_tests = pytest.mark.parametrize("test", [interaction_test, marginal_test])


def plain_regression(design, target, columns):
    """F and p of some columns, from sums of squares, and all coefficients."""
    coefficients, full, *_ = np.linalg.lstsq(design, target, rcond=None)
    _, reduced, *_ = np.linalg.lstsq(np.delete(design, columns, axis=1), target, rcond=None)
    residual = len(target) - design.shape[1]
    statistic = (reduced - full) / len(columns) / (full / residual)
    return statistic[0], stats.f.sf(statistic[0], len(columns), residual), coefficients


def coded(cohort):
    """Phenotype and covariates as columns of numbers, without the first of the categories that occur."""
    table = cohort.covariates
    indicators = [table.sex == "m", table.site == "y", table.site == "z"]
    return (cohort.phenotype == "case").to_numpy(float), np.column_stack([table.age, *indicators])


def test_interaction_is_a_regression_of_the_bulk(cohort):
    case, covariates = coded(cohort)
    theta = cohort.theta.to_numpy()
    design = np.column_stack([theta, theta * case[:, None], covariates])
    table = call(interaction_test, cohort, covariates=cohort.covariates)
    for k, cell_type in enumerate(CELL_TYPES):
        for gene in GENES:
            row = rows_of(table, cell_type=cell_type, gene=gene).iloc[0]
            squared, p_value, coefficients = plain_regression(design, cohort.bulk[gene], [3 + k])
            assert_allclose(row.statistic, np.sign(coefficients[3 + k]) * np.sqrt(squared), rtol=ROUNDING)
            assert_allclose(row.p_value, p_value, rtol=ROUNDING)
            assert_allclose(row.effect, coefficients[3 + k], rtol=ROUNDING)


def test_marginal_is_a_regression_of_the_expression(cohort):
    case, covariates = coded(cohort)
    design = np.column_stack([np.ones(24), case, covariates])
    table = call(marginal_test, cohort, covariates=cohort.covariates)
    for k, cell_type in enumerate(CELL_TYPES):
        for g, gene in enumerate(GENES):
            row = rows_of(table, cell_type=cell_type, gene=gene).iloc[0]
            squared, p_value, coefficients = plain_regression(design, cohort.cse[:, k, g], [1])
            assert_allclose(row.statistic, np.sign(coefficients[1]) * np.sqrt(squared), rtol=ROUNDING)
            assert_allclose(row.p_value, p_value, rtol=ROUNDING)
            difference = np.diff([cohort.cse[case == group, k, g].mean() for group in (0, 1)])
            assert_allclose(row.effect, difference[0], rtol=ROUNDING)


def test_quantity(cohort):
    """More than two numbers: slopes."""
    dose = np.random.default_rng(1).uniform(2000, 2010, 24)
    theta = cohort.theta.to_numpy()
    table = call(interaction_test, cohort, phenotype=dose)
    design = np.column_stack([theta, theta * (dose - dose.mean())[:, None]])
    squared, p_value, coefficients = plain_regression(design, cohort.bulk["gene3"], [4])
    row = rows_of(table, cell_type="monocyte", gene="gene3").iloc[0]
    assert_allclose(row[["effect", "p_value"]].astype(float), [coefficients[4], p_value], rtol=ROUNDING)
    assert_allclose(row.statistic**2, squared, rtol=ROUNDING)

    expected = stats.linregress(dose, cohort.cse[:, 1, 3])
    row = rows_of(call(marginal_test, cohort, phenotype=dose), cell_type="monocyte", gene="gene3").iloc[0]
    assert_allclose(row[["effect", "p_value"]].astype(float), [expected.slope, expected.pvalue], rtol=1e-8)

    design = np.column_stack([np.ones(24), cohort.cse[:, :, 3]])
    squared, p_value, coefficients = plain_regression(design, dose - dose.mean(), [2])
    row = rows_of(call(joint_test, cohort, phenotype=dose), cell_type="monocyte", gene="gene3").iloc[0]
    assert_allclose(row.statistic, np.sign(coefficients[2]) * np.sqrt(squared), rtol=1e-8)
    assert_allclose([row.effect, row.p_value], [expected.slope, p_value], rtol=1e-8)


def test_more_than_two_classes(cohort):
    groups = np.tile(["a", "b", "c"], 8)
    theta = cohort.theta.to_numpy()
    indicators = np.column_stack([groups == "b", groups == "c"])
    products = [theta * indicators[:, [column]] for column in range(2)]
    design = np.column_stack([theta, *products])
    row = rows_of(call(interaction_test, cohort, phenotype=groups), cell_type="T cell", gene="gene5").iloc[0]
    statistic, p_value, coefficients = plain_regression(design, cohort.bulk["gene5"], [5, 8])
    effect = np.ptp([0, coefficients[5], coefficients[8]])
    assert_allclose([row.statistic, row.p_value, row.effect], [statistic, p_value, effect], rtol=ROUNDING)

    row = rows_of(call(marginal_test, cohort, phenotype=groups), cell_type="T cell", gene="gene5").iloc[0]
    samples = [cohort.cse[groups == group, 2, 5] for group in "abc"]
    expected = stats.f_oneway(*samples)
    assert_allclose([row.statistic, row.p_value], [expected.statistic, expected.pvalue], rtol=ROUNDING)
    assert_allclose(row.effect, np.ptp([values.mean() for values in samples]), rtol=ROUNDING)


def test_fold_change(cohort):
    case = (cohort.phenotype == "case").to_numpy()
    cse = cohort.cse - 15
    expected = np.maximum(cse[case], 0).mean(axis=0) / np.maximum(cse[~case], 0).mean(axis=0)
    for test in (marginal_test, joint_test):
        table = call(test, cohort, cse=cse, fold_change=True)
        assert_allclose(wide(table, "effect").loc[CELL_TYPES, GENES], expected, rtol=ROUNDING)

    theta = cohort.theta.to_numpy()
    design = np.hstack([theta, theta * case[:, None]])
    coefficients = np.linalg.lstsq(design, cohort.bulk.to_numpy(), rcond=None)[0]
    fitted = np.maximum(coefficients[:3] + coefficients[3:], 0) / np.maximum(coefficients[:3], 0)
    table = call(interaction_test, cohort, fold_change=True)
    assert_allclose(wide(table, "effect").loc[CELL_TYPES, GENES], fitted, rtol=ROUNDING)
    below_zero = call(interaction_test, cohort, bulk=cohort.bulk - 18, fold_change=True).effect.dropna()
    assert (below_zero >= 0).all()
    assert (below_zero == 0).any()
    assert np.isinf(below_zero).any()
    for column in ("statistic", "p_value", "q_value"):
        assert_array_equal(table[column], call(interaction_test, cohort)[column])


def benjamini_hochberg(p_value):
    order = np.argsort(p_value)
    raw = p_value[order] * len(p_value) / np.arange(1, len(p_value) + 1)
    adjusted = np.empty(len(p_value))
    adjusted[order] = np.minimum.accumulate(raw[::-1])[::-1]
    return adjusted


@linear_tests
def test_false_discovery_rate_goes_over_the_genes_of_a_cell_type(cohort, test):
    cohort.bulk["gene6"] = 1.0  # no p-value: does not count
    cohort.cse[:, :, 6] = 1.0
    for _, rows in call(test, cohort).groupby("cell_type"):
        there = rows.p_value.notna()
        assert there.sum() == 7
        assert_allclose(rows.q_value[there], benjamini_hochberg(rows.p_value[there].to_numpy()), rtol=1e-14)
        assert rows.q_value[~there].isna().all()


def test_joint_calls_at_most_one_cell_type_per_gene():
    simulated = make_cohort(effect=1, n_genes=300, random_state=0)
    table = joint_test(simulated.cse, simulated.phenotype)
    given = table[table.q_value < 1]
    assert 10 < len(given) < 290
    assert given.gene.is_unique
    smallest = table.groupby("gene").p_value.min()
    assert_array_equal(given.p_value, smallest[given.gene])
    assert given.p_value.max() < 0.05 / 5
    assert_array_equal(np.sort(smallest[smallest < 0.05 / 5].index), np.sort(given.gene))


@each_test
def test_no_more_false_positives_than_promised(test):
    """Without any change, p-values are uniform; the logistic Wald test is conservative."""
    simulated = make_cohort(effect=0, n_genes=400, random_state=0)
    if test is interaction_test:
        table = test(simulated.bulk, simulated.proportions, simulated.phenotype)
    else:
        table = test(simulated.cse, simulated.phenotype)
    share = np.mean(table.p_value < 0.05)  # of 2,000: standard error 0.5 %
    assert 0.03 < share < 0.065
    # of each cell type's genes, any at all are called with a probability of 5 %
    assert (table.q_value < 0.05).sum() <= 2


# ------------------------------------------------------------------------------------- the table


@each_test
def test_table(cohort, test):
    table = call(test, cohort)
    assert list(table.columns) == COLUMNS
    assert_array_equal(table.index, np.arange(24))
    assert not table.duplicated(["cell_type", "gene"]).any()
    assert set(table.cell_type) == set(CELL_TYPES)
    assert set(table.gene) == set(GENES)
    assert table.p_value.is_monotonic_increasing
    assert (table.flag == "").all()


@each_test
def test_rows_without_a_test_come_last(cohort, test):
    cohort.bulk["gene6"] = 7.0
    cohort.cse[:, :, 6] = 7.0
    table = call(test, cohort)
    assert_array_equal(table.gene[-3:], ["gene6"] * 3)
    assert_array_equal(table.flag[-3:], ["constant"] * 3)
    assert (table.flag[:-3] == "").all()
    assert table.iloc[-3:, 3:6].isna().all(axis=None)
    assert table.iloc[:-3, 2:6].notna().all(axis=None)


@each_test
@pytest.mark.parametrize(
    "coding",
    [
        {"control": 0, "case": 1},
        {"control": 1, "case": 2},
        {"control": False, "case": True},
        {"control": "a", "case": "b"},
        {"control": -3.5, "case": 1e6},
    ],
)
def test_coding_of_two_classes_does_not_matter(cohort, test, coding):
    recoded = [coding[label] for label in cohort.phenotype]
    plain = call(test, cohort).drop(columns="contrast")
    for given in (recoded, np.array(recoded, dtype=object)):
        table = call(test, cohort, phenotype=given)
        assert_frame_equal(table.drop(columns="contrast"), plain)
        assert (table.contrast == f"{coding['case']} - {coding['control']}").all()


@each_test
def test_order_of_the_classes(cohort, test):
    """Sorted, or that of the categories; categories that do not occur are no classes."""
    plain = call(test, cohort)
    as_strings = call(test, cohort, phenotype=cohort.phenotype.astype(str))  # "case" is first
    assert_allclose(as_strings.p_value, plain.p_value, rtol=1e-8)
    assert_allclose(as_strings.effect, -plain.effect, rtol=ROUNDING)
    assert_allclose(as_strings.statistic, -plain.statistic, rtol=1e-8)
    more = cohort.phenotype.cat.add_categories(["unknown"])
    assert_frame_equal(call(test, cohort, phenotype=more), plain)


@each_test
def test_rows_are_matched_by_name(cohort, test):
    shuffled = np.random.default_rng(3).permutation(24)
    plain = call(test, cohort, covariates=cohort.covariates)
    covariates = cohort.covariates.iloc[shuffled]
    assert_frame_equal(call(test, cohort, covariates=covariates), plain)
    if test is interaction_test:
        changes = {"phenotype": cohort.phenotype.iloc[shuffled], "theta": cohort.theta.iloc[shuffled]}
        assert_frame_equal(call(test, cohort, covariates=covariates, **changes), plain)


@each_test
def test_scale_and_origin_of_covariates_do_not_matter(cohort, test):
    age = cohort.covariates[["age"]]
    plain = call(test, cohort, covariates=age)
    far = call(test, cohort, covariates=1e6 + 1e3 * age.to_numpy()[:, 0])
    for column in ("effect", "statistic", "p_value", "q_value"):
        assert_allclose(far[column], plain[column], rtol=1e-7)
    assert not np.allclose(plain.statistic, call(test, cohort).statistic)


@each_test
def test_origin_of_covariates_does_not_matter_for_fold_changes(cohort, test):
    age = cohort.covariates.age
    near, far = (call(test, cohort, covariates=column, fold_change=True) for column in (age, age + 1000))
    assert_allclose(far.effect, near.effect, rtol=1e-7)


@each_test
def test_blocks_do_not_matter(cohort, test, monkeypatch):
    plain = call(test, cohort, covariates=cohort.covariates.age)
    monkeypatch.setattr(generalized, "BLOCK_ENTRIES", 1)
    monkeypatch.setattr(generalized, "FEWEST_GENES", 3)  # of 8
    alone = call(test, cohort, covariates=cohort.covariates.age)
    assert_frame_equal(alone, plain, check_exact=False, rtol=ROUNDING)


@each_test
def test_float32(cohort, test):
    single = call(
        test, cohort, cse=cohort.cse.astype(np.float32), bulk=cohort.bulk.astype(np.float32)
    ).sort_values(["cell_type", "gene"])
    double = call(test, cohort).sort_values(["cell_type", "gene"])
    assert_allclose(single.statistic, double.statistic, rtol=1e-4, atol=1e-5)  # 24 bits of the data


@each_test
def test_arguments_are_left_as_they_are(cohort, test):
    before = {name: value.copy() for name, value in vars(cohort).items()}
    call(test, cohort, covariates=cohort.covariates)
    for name, value in vars(cohort).items():
        assert np.array_equal(np.asarray(before[name], dtype=object), np.asarray(value, dtype=object)), name


def test_names_are_counted_where_none_are_given(cohort):
    case = (cohort.phenotype == "case").to_numpy()
    table = interaction_test(cohort.bulk.to_numpy(), cohort.theta.to_numpy(), case, errors="ols")
    assert set(table.cell_type) == {"celltype0", "celltype1", "celltype2"}
    assert set(table.gene) == {f"x{i}" for i in range(8)}
    assert_frame_equal(table[COLUMNS[2:7]], call(interaction_test, cohort)[COLUMNS[2:7]])


@each_test
@pytest.mark.parametrize("dtype", ["Int64", "boolean", "string", "float32", "object"])
def test_types_of_the_phenotype(cohort, test, dtype):
    case = (cohort.phenotype == "case").astype(int)
    as_type = case.astype(bool).astype(dtype) if dtype == "boolean" else case.astype(dtype)
    table, plain = call(test, cohort, phenotype=as_type), call(test, cohort)
    assert_frame_equal(table.drop(columns="contrast"), plain.drop(columns="contrast"))


@each_test
def test_polars(cohort, test):
    polars = pytest.importorskip("polars")
    phenotype = polars.Series(cohort.phenotype.astype(str).replace("control", "a control").tolist())
    covariates = polars.DataFrame(
        {"age": cohort.covariates.age.to_numpy(), "sex": cohort.covariates.sex.tolist()}
    )
    plain = call(test, cohort, covariates=cohort.covariates[["age", "sex"]])
    table = call(test, cohort, phenotype=phenotype, covariates=covariates)
    assert_frame_equal(table.drop(columns="contrast"), plain.drop(columns="contrast"))
    with refused("Collinear covariates: 'months'"):
        call(test, cohort, covariates=covariates.with_columns(months=12 * polars.col("age")))


# ------------------------------------------------------------------------------------- flags


def test_gene_that_is_constant_in_one_cell_type_is_left_out_of_its_model_only(cohort):
    cohort.cse[:, 0, 2] = 5.0
    table = call(joint_test, cohort)
    others = joint_test(
        cohort.cse[:, 1:, [2]], cohort.phenotype, cell_types=CELL_TYPES[1:], gene_names=["gene2"]
    )
    constant = rows_of(table, cell_type="B cell", gene="gene2").iloc[0]
    assert constant.flag == "constant"
    assert np.isnan(constant.p_value)
    assert constant.effect == 0
    rest = rows_of(table, gene="gene2").dropna()
    assert_allclose(rest.p_value, others.p_value, rtol=ROUNDING)
    assert list(rest.cell_type) == list(others.cell_type)
    assert (table.flag != "").sum() == 1


def test_cell_type_that_is_constant_in_all_genes(cohort):
    """As of a cell type that no sample holds, whose expression is the reference profile."""
    cohort.cse[:, 2] = cohort.cse[0, 2]
    for test in (marginal_test, joint_test):
        with untested("T cell"):
            table = call(test, cohort)
        assert_array_equal(table.flag == "constant", table.cell_type == "T cell")
        assert_array_equal(table.p_value.isna(), table.cell_type == "T cell")


def test_constant_but_for_rounding(cohort):
    cohort.cse[:, 0, 2] = 0.1 + 1e-17 * np.arange(24)
    cohort.cse[:, 0, 2] *= 3 / 3.0000000000000004
    assert rows_of(call(marginal_test, cohort), cell_type="B cell", gene="gene2").flag.item() == "constant"


def test_small_variation_on_a_large_level_is_tested(cohort):
    """A gene that varies in its 12th digit varies: what is tested is the variation, not its share of the level."""
    small = np.round(cohort.cse[:, 0, 2] / np.abs(cohort.cse[:, 0, 2]).max() * 1000) * 2.0**-50
    cohort.cse[:, 0, 2] = small
    expected = rows_of(call(marginal_test, cohort), cell_type="B cell", gene="gene2")
    cohort.cse[:, 0, 2] = 1 + small  # exact: multiples of four times the spacing of numbers about 1
    got = rows_of(call(marginal_test, cohort), cell_type="B cell", gene="gene2")
    assert got.flag.item() == expected.flag.item() == ""
    # the mean over 24 samples is rounded to a 2000th of the spread
    assert_allclose(got.p_value, expected.p_value, rtol=0.05)


def test_dependent_cell_types(cohort):
    cohort.cse[:, 0, 2] = 2 * cohort.cse[:, 1, 2] + 1
    table = call(joint_test, cohort)
    assert_array_equal(table.flag == "singular", table.gene == "gene2")
    assert_array_equal(table.p_value.isna(), table.gene == "gene2")
    assert_array_equal(table.q_value.isna(), table.gene == "gene2")
    assert table.effect.notna().all()


def test_gene_that_a_covariate_explains_does_not_count():
    simulated, age = (
        make_cohort(effect=1, n_genes=30, random_state=0),
        np.random.default_rng(0).uniform(size=100),
    )
    simulated.cse[:, 0, 2] = age
    genes = simulated.gene_names
    table = joint_test(simulated.cse, simulated.phenotype, covariates=age, gene_names=genes)
    dependent = table.gene == genes[2]
    assert_array_equal(table.flag == "singular", dependent)
    without = joint_test(
        np.delete(simulated.cse, 2, axis=2),
        simulated.phenotype,
        covariates=age,
        gene_names=np.delete(genes, 2),
    )
    assert (without.q_value < 1).any()
    assert_frame_equal(table[~dependent], without)


def test_separated_genes_keep_their_numbers(cohort):
    cohort.cse[12:, 1, 3] += 1000
    table = call(joint_test, cohort)
    assert_array_equal(table.flag == "separated", table.gene == "gene3")
    assert rows_of(table, gene="gene3").p_value.min() > 0.9
    assert_array_equal(rows_of(table, gene="gene3").q_value, [1, 1, 1])
    assert rows_of(call(marginal_test, cohort), cell_type="monocyte", gene="gene3").p_value.item() < 1e-10


def test_fold_change_by_zero(cohort):
    cohort.cse[:12, 0, 2] = -1.0
    table = call(marginal_test, cohort, fold_change=True)
    row = rows_of(table, cell_type="B cell", gene="gene2").iloc[0]
    assert row.flag == "zero_mean"
    assert np.isinf(row.effect)
    assert row.p_value < 0.05
    assert (table.flag != "").sum() == 1


def test_absent_cell_type(cohort):
    cohort.theta["T cell"] = 0.0
    cohort.theta = cohort.theta.div(cohort.theta.sum(axis=1), axis=0)
    with untested("T cell"):
        table = call(interaction_test, cohort)
    absent = table.cell_type == "T cell"
    assert_array_equal(table.flag == "constant", absent)
    assert_array_equal(table.p_value.isna(), absent)
    assert_array_equal(table.effect.isna(), absent)
    without = interaction_test(cohort.bulk, cohort.theta[CELL_TYPES[:2]], cohort.phenotype, errors="ols")
    assert_allclose(table[~absent].p_value, without.p_value, rtol=ROUNDING)


def test_cell_type_absent_in_one_class(cohort):
    cohort.theta.iloc[:12, 2] = 0.0
    cohort.theta = cohort.theta.div(cohort.theta.sum(axis=1), axis=0)
    with untested("T cell"):
        table = call(interaction_test, cohort)
    assert_array_equal(table.flag == "singular", table.cell_type == "T cell")
    assert_array_equal(table.p_value.isna(), table.cell_type == "T cell")


def test_proportion_that_does_not_vary_takes_the_others_along(cohort):
    """The others' proportions then sum to a constant, so their effects can be traded for its."""
    cohort.theta["T cell"] = 0.25
    cohort.theta[CELL_TYPES[:2]] *= 0.75 / cohort.theta[CELL_TYPES[:2]].sum(axis=1).to_numpy()[:, None]
    with untested(*CELL_TYPES):
        table = call(interaction_test, cohort)
    assert table.p_value.isna().all()
    assert_array_equal(table.flag, np.where(table.cell_type == "T cell", "constant", "singular"))


def test_proportion_that_does_not_vary_beside_rounded_ones(cohort):
    """Rows that sum to 1 nearly would determine its effect, by their rounding alone."""
    cohort.theta["T cell"] = 0.25
    cohort.theta[CELL_TYPES[:2]] *= 0.75 / cohort.theta[CELL_TYPES[:2]].sum(axis=1).to_numpy()[:, None]
    cohort.theta["B cell"] += 0.01 * (-1.0) ** np.arange(24)
    with untested("T cell"):
        table = call(interaction_test, cohort)
    constant = table.cell_type == "T cell"
    assert_array_equal(table.flag, np.where(constant, "constant", ""))
    assert table[constant][["effect", "p_value"]].isna().all(axis=None)
    assert table[~constant].p_value.notna().all()


# ------------------------------------------------------------------------------------- refusals


@each_test
class TestPhenotype:
    def test_length(self, cohort, test):
        with refused("phenotype has 23 values", "24 samples"):
            call(test, cohort, phenotype=np.arange(23) % 2)

    @pytest.mark.parametrize("phenotype", [["case"] * 24, [1.5] * 24, [True] * 24])
    def test_one_class(self, cohort, test, phenotype):
        with refused("only one class", str(phenotype[0])):
            call(test, cohort, phenotype=phenotype)

    @pytest.mark.parametrize("missing", [np.nan, None, np.inf])
    def test_missing(self, cohort, test, missing):
        phenotype = pd.Series(np.arange(24.0), cohort.bulk.index)
        phenotype.iloc[[3, 5]] = missing
        with refused("phenotype is NaN or infinite in 2 sample", "'donor3', 'donor5'", "Drop"):
            call(test, cohort, phenotype=phenotype)

    def test_missing_label(self, cohort, test):
        with refused("phenotype is NaN", r"1 sample\(s\): 'donor1'"):
            call(test, cohort, phenotype=cohort.phenotype.where(np.arange(24) != 1))

    def test_table(self, cohort, test):
        with refused("one value per sample", r"\(24, 2\)"):
            call(test, cohort, phenotype=np.ones((24, 2)))

    def test_single_column(self, cohort, test):
        assert_frame_equal(call(test, cohort, phenotype=cohort.phenotype.to_frame()), call(test, cohort))

    def test_mixed_types(self, cohort, test):
        with refused("mixes types", "strings or numbers"):
            call(test, cohort, phenotype=["case", 1] * 12)

    def test_a_class_per_sample(self, cohort, test):
        error = (
            ("24 classes", "'interaction' or 'marginal'") if test is joint_test else ("24 samples cannot",)
        )
        with refused(*error):
            call(test, cohort, phenotype=cohort.bulk.index)

    def test_a_single_sample_in_a_class(self, cohort, test):
        """Not a word of classes of two."""
        state = pd.Series(["control"] * 22 + ["case"] * 2, cohort.bulk.index)
        call(marginal_test, cohort, phenotype=state)
        state.iloc[-1] = "control"
        with (
            pytest.warns(SampleWarning, match="phenotype has a single sample of 'case': .*levels"),
            # one sample cannot tell cell types apart by a regression of the bulk
            pytest.warns(UserWarning, match="No gene could be tested")
            if test is interaction_test
            else nullcontext(),
        ):
            call(test, cohort, phenotype=state)

    def test_fold_change_of_a_quantity(self, cohort, test):
        with refused("fold_change=True", "is a quantity", "fold_change=False"):
            call(test, cohort, phenotype=np.arange(24), fold_change=True)


def test_sample_that_the_phenotype_does_not_name(cohort):
    renamed = cohort.phenotype.rename({"donor4": "donor four"})
    with refused("rows of phenotype", "'donor4'"):
        call(interaction_test, cohort, phenotype=renamed)


def test_fold_change_of_three_classes(cohort):
    with refused("fold_change=True", "has 3 classes"):
        call(marginal_test, cohort, phenotype=["a", "b", "c"] * 8, fold_change=True)


@each_test
class TestCovariates:
    def test_length(self, cohort, test):
        with refused("covariates have 23 rows", "24 samples"):
            call(test, cohort, covariates=cohort.covariates.iloc[:-1].reset_index(drop=True))

    def test_axes(self, cohort, test):
        with refused("samples × covariates", r"\(24, 1, 1\)"):
            call(test, cohort, covariates=np.ones((24, 1, 1)))

    @pytest.mark.parametrize(("column", "value"), [("age", np.nan), ("age", np.inf), ("sex", None)])
    def test_missing(self, cohort, test, column, value):
        cohort.covariates.loc["donor2", column] = value
        with refused(
            f"covariates contain NaN or infinity in column '{column}'", "'donor2'", "missing='drop'"
        ):
            call(test, cohort, covariates=cohort.covariates)

    def test_samples_without_a_covariate_can_be_left_out(self, cohort, test):
        """As if they were not there."""
        kept = np.arange(24) != 2
        cohort.covariates.loc["donor2", "age"] = np.nan
        phenotype = cohort.phenotype.where(np.arange(24) != 7)
        table = call(test, cohort, phenotype=phenotype, covariates=cohort.covariates, missing="drop")
        kept[7] = False
        expected = call(
            test,
            cohort,
            phenotype=cohort.phenotype.where(kept),
            covariates=cohort.covariates.fillna({"age": 0.0}),
            missing="drop",
        )
        pd.testing.assert_frame_equal(table, expected, rtol=1e-9)  # rounding

    def test_the_unit_of_a_covariate_makes_no_difference(self, cohort, test):
        table = call(test, cohort, covariates=cohort.covariates)
        scaled = cohort.covariates.assign(age=cohort.covariates["age"] * 1e17 + 1e20)
        found = call(test, cohort, covariates=scaled)
        merged = table.merge(found, on=["cell_type", "gene"])
        assert len(merged) == len(table)
        # 1e20 leaves the ages four digits
        assert_allclose(merged.p_value_x, merged.p_value_y, rtol=1e-2)

    @pytest.mark.parametrize("unit", ["datetime64[ns]", "timedelta64[ns]"])
    def test_dates_are_refused(self, cohort, test, unit):
        dates = np.arange(24).astype(unit)
        with refused("covariate 'visit' holds dates", r"dt.days"):
            call(test, cohort, covariates=pd.DataFrame({"visit": dates}, cohort.bulk.index))
        with refused("phenotype holds dates"):
            call(test, cohort, phenotype=pd.Series(dates, cohort.bulk.index))

    def test_constant(self, cohort, test):
        table = cohort.covariates.assign(batch="one", run=3)
        with refused("Collinear covariates: 'batch', 'run'", "same value in every sample"):
            call(test, cohort, covariates=table)

    def test_collinear_with_each_other(self, cohort, test):
        table = cohort.covariates.assign(
            months=12 * cohort.covariates.age + 5, female=cohort.covariates.sex == "f"
        )
        with refused("Collinear covariates: 'months', 'sex_m'", "other covariates", "Drop"):
            call(test, cohort, covariates=table)

    def test_collinear_with_the_phenotype(self, cohort, test):
        with refused("Collinear covariates: 'disease'", "phenotype"):
            call(test, cohort, covariates=pd.DataFrame({"disease": np.repeat([5, 7], 12)}))

    def test_too_many(self, cohort, test):
        with refused("24 samples cannot estimate", "Use fewer covariates"):
            call(test, cohort, covariates=np.random.default_rng(0).standard_normal((24, 23)))

    def test_unknown_sample(self, cohort, test):
        if test is not interaction_test:
            cohort.phenotype = cohort.phenotype.copy()
        with refused("rows of covariates", "'donor4'"):
            call(test, cohort, covariates=cohort.covariates.rename({"donor4": "x"}))

    def test_a_series_and_an_array_of_one_column(self, cohort, test):
        age = cohort.covariates.age
        assert_frame_equal(call(test, cohort, covariates=age), call(test, cohort, covariates=age.to_numpy()))


def test_covariate_collinear_with_the_proportions(cohort):
    with refused("Collinear covariates: 'share'", "proportions"):
        call(interaction_test, cohort, covariates=pd.DataFrame({"share": cohort.theta["T cell"]}))


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_expression_and_bulk_must_be_finite(cohort, value):
    cohort.cse[3, 1, 5] = value
    cohort.bulk.iloc[3, 5] = value
    for test in (marginal_test, joint_test):
        with refused("cse of 'monocyte' contains NaN or infinity in gene 'gene5'"):
            call(test, cohort)
    with refused("bulk contains NaN or infinity in gene 'gene5'"):
        call(interaction_test, cohort)


def test_axes_of_the_expression(cohort):
    with refused("samples, cell types and genes", r"\(24, 8\)"):
        marginal_test(cohort.cse[:, 0], cohort.phenotype)


def test_number_of_names(cohort):
    with refused("cell_types has 2 names for 3"):
        marginal_test(cohort.cse, cohort.phenotype, cell_types=["a", "b"])
    with refused("gene_names has 1 names for 8"):
        interaction_test(cohort.bulk, cohort.theta, cohort.phenotype, gene_names=["a"])


def test_proportions_are_checked(cohort):
    with refused("do not sum to 1", "'donor0'"):
        call(interaction_test, cohort, theta=2 * cohort.theta)


# ------------------------------------------------------------------------------------- from a fitted model


@pytest.fixture(scope="module")
def simulated():
    return make_cohort(n_samples=60, n_genes=80, n_cell_types=3, random_state=0, as_frame=True)


@pytest.fixture(
    scope="module",
    params=[L2MaxDeconvolver(renorm_size=None), TraceNormDeconvolver(alpha=0.1)],
    ids=["L2-max", "trace norm"],
)
def model(request, simulated):
    return clone(request.param).set_params(reference=simulated.reference).fit(simulated.bulk)


class TestModel:
    def test_interaction(self, simulated, model):
        table = differential_expression(model, simulated.phenotype, X=simulated.bulk)
        proportions = pd.DataFrame(model.proportions_, simulated.bulk.index, model.cell_types_)
        assert_frame_equal(table, interaction_test(simulated.bulk, proportions, simulated.phenotype))

    @pytest.mark.slow
    @pytest.mark.parametrize(("method", "test"), [("marginal", marginal_test), ("joint", joint_test)])
    @pytest.mark.parametrize("materialize", [True, False])
    @pytest.mark.parametrize("asked", [None, "frac", "pc"])
    def test_expression_is_tested_as_the_model_normalizes_it(
        self, simulated, model, method, test, asked, materialize
    ):
        """By default, and that is the original's, without the effect of proportions."""
        fitted = clone(model).set_params(normalize=asked, materialize=materialize).fit(simulated.bulk)
        table = differential_expression(fitted, simulated.phenotype, method=method)
        cse = normalize(asked or "frac", model.cse_, model.proportions_)
        expected = test(cse, simulated.phenotype, cell_types=model.cell_types_, gene_names=model.gene_names_)
        keys = ["cell_type", "gene"]
        both = table.merge(expected, on=keys, suffixes=("", "_expected"))
        for column in ("effect", "statistic", "p_value", "q_value"):
            assert_allclose(both[column], both[f"{column}_expected"], rtol=1e-6)

    def test_finds_the_changed_genes(self, simulated, model):
        for method, least in (("interaction", 0.9), ("marginal", 0.4), ("joint", 0.4)):
            table = differential_expression(model, simulated.phenotype, method=method, X=simulated.bulk)
            assert signed_average_precision(table, simulated.changed) > least

    def test_genes_and_order_of_a_model_that_shares_some(self, simulated):
        reference = simulated.reference[simulated.gene_names[::-2]]
        model = L2MaxDeconvolver(reference, renorm_size=None).fit(simulated.bulk)
        table = differential_expression(model, simulated.phenotype, X=simulated.bulk)
        assert set(table.gene) == set(reference.columns)
        whole = interaction_test(
            simulated.bulk[model.gene_names_],
            pd.DataFrame(model.proportions_, simulated.bulk.index, model.cell_types_),
            simulated.phenotype,
        )
        both = table.merge(whole, on=["cell_type", "gene"])
        assert_allclose(both.p_value_x, both.p_value_y, rtol=ROUNDING)

    @pytest.mark.parametrize("method", ["interaction", "marginal", "joint"])
    def test_samples_are_matched_by_name(self, simulated, model, method):
        plain = differential_expression(model, simulated.phenotype, method=method, X=simulated.bulk)
        shuffled = np.random.default_rng(0).permutation(60)
        table = differential_expression(
            model, simulated.phenotype.iloc[shuffled], method=method, X=simulated.bulk.iloc[shuffled]
        )
        assert_frame_equal(table, plain)

    def test_x_lends_the_names_where_the_fit_had_none(self, simulated, model):
        unnamed = clone(model).fit(simulated.bulk.reset_index(drop=True))
        options = {"method": "marginal", "X": simulated.bulk}
        table = differential_expression(unnamed, simulated.phenotype.iloc[::-1], **options)
        assert_frame_equal(table, differential_expression(model, simulated.phenotype, **options))

    @pytest.mark.parametrize("method", ["marginal", "joint"])
    def test_model_that_keeps_no_tensor(self, simulated, model, method, monkeypatch):
        """Expression is then asked for, block by block."""
        monkeypatch.setattr(generalized, "BLOCK_ENTRIES", 60 * 5 * 7)
        lazy = clone(model).set_params(materialize=False).fit(simulated.bulk)
        assert not hasattr(lazy, "cse_")
        expected = differential_expression(model, simulated.phenotype, method=method)
        table = differential_expression(lazy, simulated.phenotype, method=method)
        both = expected.merge(table, on=["cell_type", "gene"], suffixes=("", "_lazy"))
        # separated genes amplify the rounding that the two forms of the expression differ by
        assert_allclose(both.p_value_lazy, both.p_value, rtol=1e-6)
        assert_array_equal(both.flag_lazy, both.flag)

    def test_interaction_needs_the_bulk(self, simulated, model):
        with refused("regresses the bulk", "pass the X", "'marginal'"):
            differential_expression(model, simulated.phenotype)

    def test_another_bulk(self, simulated, model):
        with refused("X has 59 samples", "fitted to 60"):
            differential_expression(model, simulated.phenotype, X=simulated.bulk.iloc[1:])

    def test_unknown_method(self, simulated, model):
        with refused("method must be one of 'auto', 'log_fold_change', 'factor'", "'wald'"):
            differential_expression(model, simulated.phenotype, method="wald")

    def test_unfitted(self, simulated):
        with refused("not fitted", error=NotFittedError):
            differential_expression(L2MaxDeconvolver(), simulated.phenotype)


def test_public_names():
    assert set(differential.__all__) == {
        "differential_expression",
        "factor_test",
        "interaction_test",
        "joint_test",
        "log_fold_change_test",
        "marginal_test",
        "untested",
    }


def classes_of(phenotype, **options):
    """Classes of a phenotype."""
    return Study(phenotype, None, len(phenotype), None, Options(**options)).classes


class TestClassesThatAreNone:
    @pytest.mark.parametrize("other", ["Case ", " case", "CASE", "case\u00a0"])
    def test_two_spellings_of_one_class_are_refused(self, other):
        with refused("differ only in case or spaces", repr(other)):
            classes_of(["case", "control", other] * 4)

    @pytest.mark.parametrize("code", ["not reported", "[Not Available]", "unknown", "NA", "Unknown"])
    def test_words_for_missing_values(self, code):
        with pytest.warns(UserWarning, match=rf"phenotype is '{re.escape(code)}' in 2 sample\(s\).*levels"):
            classes_of(["dead", "alive", code] * 2)
        assert classes_of(["dead", "alive", code] * 2, levels=("alive", "dead")) == ["alive", "dead"]

    @pytest.mark.parametrize(
        ("numbers", "code"), [([0, 1, 9], 9), ([0, 1, -9], -9), ([1, 2, 99], 99), ([1, 2, 3, 4, 999], 999)]
    )
    def test_numbers_for_missing_values(self, numbers, code):
        with pytest.warns(UserWarning, match=rf"phenotype is {code} in 3 sample\(s\)"):
            assert classes_of(numbers * 3) is None

    @pytest.mark.parametrize(
        "values",
        [
            [0, 1],
            [1, 2, 3],
            [7, 8, 9],
            [5, 9, 12],
            [0, 3, 6, 9],
            list(range(99)),
            [-1, 0, 1],
            ["case", "none"],
        ],
    )
    def test_what_is_none(self, values):
        classes_of(values * 3)
