"""Labelled rows match by str(label), nameless ones by position, and nothing is matched by guess: one rule for all."""

import numpy as np
import pandas as pd
import pytest
import sklearn
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.model_selection import GridSearchCV

from skenigma import EmpiricalBayesDeconvolver, L2MaxDeconvolver
from skenigma.baselines import scaled_reference
from skenigma.batch import BulkBatchCorrector
from skenigma.checks.labels import (
    cell_types_of,
    column_labels,
    match_cell_types,
    match_labels,
    match_rows,
    read_per_cell_type,
    row_labels,
)
from skenigma.datasets import make_cohort
from skenigma.differential import (
    differential_expression,
    factor_test,
    interaction_test,
    log_fold_change_test,
    marginal_test,
)
from skenigma.metrics import concordance, recovery_scorer
from skenigma.proportions import fit_quality, unexplained_genes
from skenigma.reference import make_reference
from skenigma.reliability import gene_significance

IDS = np.arange(101, 141)
SHUFFLED = np.random.default_rng(5).permutation(len(IDS))


@pytest.fixture(scope="module")
def cohort():
    """Samples whose numbers are strings, as a header gives them."""
    cohort = make_cohort(n_samples=len(IDS), n_genes=60, n_cell_types=3, random_state=0, as_frame=True)
    names = [str(number) for number in IDS]
    bulk = np.abs(cohort.bulk) + 1
    reference = np.abs(cohort.reference) + 1
    phenotype = pd.Series(np.where(cohort.phenotype == 1, "case", "control"), names)
    covariates = pd.DataFrame({"age": np.random.default_rng(1).normal(size=len(IDS))}, names)
    return bulk.set_axis(names), reference, cohort.proportions.set_axis(names), phenotype, covariates


@pytest.fixture(scope="module")
def model(cohort):
    bulk, reference, proportions, *_ = cohort
    return L2MaxDeconvolver(reference, renorm_size=None, max_iter=5, epsilon=1e9).fit(
        bulk, proportions=proportions
    )


def numbered(table):
    """The table as a clinic has it: numbers as index, in an order of its own."""
    return table.set_axis(IDS).iloc[SHUFFLED]


class TestRule:
    def test_numbers_are_their_strings(self):
        assert_array_equal(
            match_rows(pd.Series([1, 2, 3], [7, 5, 6]), np.array(["5", "6", "7"], object), "x"), [1, 2, 0]
        )

    @pytest.mark.parametrize(
        "nameless",
        [np.zeros(3), pd.Series(0, pd.RangeIndex(3)), pd.Series(0, pd.RangeIndex(5, 8)), [0, 0, 0]],
    )
    def test_nameless_rows_match_by_position(self, nameless):
        names = np.array(["b", "a", "c"], dtype=object)
        assert match_rows(nameless, names, "x") == slice(None)
        assert match_rows(pd.Series(0, names), row_labels(nameless), "x") == slice(None)

    def test_equal_ranges_match_and_others_are_refused(self):
        assert match_labels(pd.RangeIndex(3), pd.RangeIndex(3), "x", "sample") == slice(None)
        with pytest.raises(ValueError, match=r"numbered 1 to 3, those of X 0 to 2.*reset_index\(drop=True\)"):
            match_labels(pd.RangeIndex(1, 4), pd.RangeIndex(3), "rows of y", "sample")

    def test_the_numbers_of_a_range_in_another_order_are_refused(self):
        """Whether the labels or the order are meant is not said."""
        labels = row_labels(pd.Series(0, [2, 0, 1]))
        for sides in ((labels, pd.RangeIndex(3)), (pd.RangeIndex(3), labels)):
            with pytest.raises(ValueError, match="the same numbers, in another order"):
                match_labels(*sides, "rows of y", "sample")
        assert match_labels(row_labels(pd.Series(0, [0, 1, 2])), pd.RangeIndex(3), "y", "sample") == slice(
            None
        )

    def test_equal_labels_may_repeat(self):
        """As in a bootstrap of both."""
        assert match_rows(pd.Series(0, [1, 1, 2]), np.array(["1", "1", "2"], object), "x") == slice(None)
        with pytest.raises(ValueError, match="named more than once: '1'"):
            match_rows(pd.Series(0, [1, 1, 2]), np.array(["1", "2", "3"], object), "x")

    @pytest.mark.parametrize(
        ("given", "message"),
        [
            (["a", "b", "d"], "do not name sample 'c'; they are 'a', 'b', 'd'"),
            (["a", "b", "c", "d"], "name samples that X does not have: 'd'"),
            (["a ", "b", "c"], "differ only in spaces"),
            (["A", "B", "C"], "differ only in case"),
        ],
    )
    def test_other_labels_are_refused_with_the_reason(self, given, message):
        with pytest.raises(ValueError, match=message):
            match_rows(pd.Series(0, given), np.array(["a", "b", "c"], dtype=object), "rows of y")

    @pytest.mark.parametrize(
        ("given", "wanted", "reason"),
        [
            ([1.0, 2.0], ["1", "2"], "decimals"),
            (["S.01", "S.02"], ["S-01", "S-02"], "what R makes of names"),
            (["X1", "X2"], ["1", "2"], "what R makes of names"),
        ],
    )
    def test_what_programs_do_to_names(self, given, wanted, reason):
        with pytest.raises(ValueError, match=f"differ only in {reason}"):
            match_rows(pd.Series(0, given), np.array(wanted, dtype=object), "rows of y")

    def test_a_superset_where_it_is_asked_for(self):
        found = match_rows(pd.Series(0, ["c", "b", "a"]), np.array(["a", "b"], object), "x", superset=True)
        assert_array_equal(found, [2, 1])

    @pytest.mark.parametrize("index", [pd.CategoricalIndex(["b", "a"]), pd.Index(["b", "a"], dtype="string")])
    def test_indices_of_pandas(self, index):
        assert_array_equal(match_rows(pd.Series(0, index), np.array(["a", "b"], object), "x"), [1, 0])
        assert_array_equal(column_labels(pd.DataFrame(0, [0], index)), ["b", "a"])


# Each answers an array that depends on which row belongs to which; all take (cohort, change), and change what is
# matched to the bulk.
CALLS = {
    "proportions": lambda c, change, model: L2MaxDeconvolver(c[1], renorm_size=None, max_iter=2, epsilon=1e9)
    .fit(c[0], proportions=change(c[2])).proportions_,
    "proportions of new samples": lambda c, change, model: model.transform(c[0], proportions=change(c[2])),
    "phenotype": lambda c, change, model: interaction_test(c[0], c[2], change(c[3])).p_value,
    "phenotype of factor_test": lambda c, change, model: factor_test(
        c[0], c[2], change(c[3]), reference=c[1]).p_value,
    "phenotype of log_fold_change_test": lambda c, change, model: log_fold_change_test(
        c[0], c[2], change(c[3]), reference=c[1], n_permutations=0).p_value,
    "phenotype of a model": lambda c, change, model: differential_expression(
        model, change(c[3]), method="marginal").p_value,
    "phenotype of an expression": lambda c, change, model: marginal_test(model.expression_, change(c[3])).p_value,
    "bulk of a model": lambda c, change, model: differential_expression(
        model, c[3], X=change(c[0]), method="interaction").p_value,
    "covariates": lambda c, change, model: interaction_test(
        c[0], c[2], c[3], covariates=change(c[4])).p_value,
    "one covariate": lambda c, change, model: interaction_test(
        c[0], c[2], c[3], covariates=change(c[4]["age"])).p_value,
    "covariates by the phenotype": lambda c, change, model: interaction_test(
        c[0].to_numpy(), c[2].to_numpy(), c[3], covariates=change(c[4])).p_value,
    "covariates of a fit": lambda c, change, model: EmpiricalBayesDeconvolver(c[1]).fit(
        c[0], proportions=c[2], covariates=change(c[4])).cse_,
    "proportions of a batch corrector": lambda c, change, model: BulkBatchCorrector(c[1]).fit(
        c[0], proportions=change(c[2])).slope_,
    "proportions of baselines": lambda c, change, model: scaled_reference(c[0], c[1], change(c[2])),
    "proportions of quality": lambda c, change, model: fit_quality(c[0], c[1], change(c[2])),
    "proportions of unexplained genes": lambda c, change, model: unexplained_genes(
        c[0], c[1], change(c[2]), minimum=-9).excess,
    "proportions of significance": lambda c, change, model: gene_significance(c[0], change(c[2])).p_value,
    "concordance": lambda c, change, model: concordance(c[2], change(c[2])),
    "scorer": lambda c, change, model: recovery_scorer()(model, c[0], change(pd.DataFrame(
        np.asarray(model.cse_).reshape(len(IDS), -1), c[0].index, model.get_feature_names_out()))),
}  # fmt: skip


@pytest.mark.parametrize("name", CALLS)
@pytest.mark.filterwarnings("ignore")
def test_numbers_match_names_wherever_tables_meet(cohort, model, name):
    """A table numbered by integers, in another order, gives what the same table gives in the order of the bulk."""
    right = np.asarray(CALLS[name](cohort, lambda table: table, model), dtype=float)
    assert_allclose(np.asarray(CALLS[name](cohort, numbered, model), dtype=float), right, rtol=1e-9)


@pytest.mark.parametrize("name", [name for name in CALLS if "by the phenotype" not in name])
@pytest.mark.filterwarnings("ignore")
def test_other_samples_are_refused_wherever_tables_meet(cohort, model, name):
    with pytest.raises(ValueError, match="do not name sample '101'"):
        CALLS[name](cohort, lambda table: table.set_axis(IDS + 1), model)


def test_cell_types_that_are_numbers(cohort):
    """Clusters: columns of the proportions and rows of the reference, in different orders."""
    bulk, reference, proportions, *_ = cohort
    clusters = reference.set_axis([0, 1, 2])
    shuffled = proportions.set_axis([0, 1, 2], axis=1)[[2, 0, 1]]
    fitted = L2MaxDeconvolver(clusters, renorm_size=None, max_iter=2, epsilon=1e9).fit(
        bulk, proportions=shuffled
    )
    assert_array_equal(fitted.cell_types_, ["0", "1", "2"])
    assert_allclose(fitted.proportions_, proportions)
    # a test that has no reference takes the names from the proportions
    table = interaction_test(bulk, shuffled, cohort[3])
    assert set(table.cell_type) == {"0", "1", "2"}


def test_a_nameless_reference_takes_named_proportions_by_position(cohort):
    bulk, reference, proportions, *_ = cohort
    fitted = L2MaxDeconvolver(reference.to_numpy(), renorm_size=None, max_iter=2, epsilon=1e9)
    named = proportions.set_axis(["B", "T", "NK"], axis=1)
    assert_allclose(fitted.fit(bulk, proportions=named).proportions_, proportions)


def test_numbered_cell_types_are_matched_by_name_where_both_have_them():
    wanted = cell_types_of(np.zeros((3, 2)))
    assert_array_equal(match_cell_types(wanted[::-1], wanted, "columns of proportions"), [1, 0])
    others = np.array(["B", "T"], dtype=object)
    assert match_cell_types(others, wanted, "columns of proportions") == slice(None)


def test_a_number_per_cell_type_is_matched_by_name():
    wanted = np.array(["T", "B"], dtype=object)
    found = read_per_cell_type(pd.Series({"B": 1.0, "more": 2.0, "T": 3.0}), wanted, "rna_content")
    assert_array_equal(found, [3.0, 1.0])


def test_labels_of_cells_that_are_numbers():
    cells = pd.DataFrame(np.arange(12.0).reshape(6, 2), [str(i) for i in range(10, 16)], ["g1", "g2"])
    labels = pd.Series(["a", "a", "a", "b", "b", "b"], np.arange(10, 16))
    right = make_reference(cells, labels, min_cells=1, normalize=None)
    assert_allclose(make_reference(cells, labels[::-1], min_cells=1, normalize=None), right)
    one_column = labels[::-1].to_frame("cell_type")
    assert_allclose(make_reference(cells, one_column, min_cells=1, normalize=None), right)
    with pytest.raises(ValueError, match="labels is a table of 2 columns"):
        make_reference(cells, one_column.assign(more=1), min_cells=1)


@pytest.mark.slow
@pytest.mark.parametrize("index", ["names", "numbers", "range"])
@pytest.mark.parametrize("table", ["frame", "array"])
def test_grid_search_slices_proportions_with_the_bulk(cohort, index, table):
    """A slice of a RangeIndex is an Index of integers, or a RangeIndex that starts elsewhere."""
    bulk, reference, proportions, *_ = cohort
    new = {"names": bulk.index, "numbers": IDS, "range": pd.RangeIndex(len(IDS))}[index]
    bulk, proportions = bulk.set_axis(new), proportions.set_axis(new)
    proportions = proportions.to_numpy() if table == "array" else proportions
    with sklearn.config_context(enable_metadata_routing=True):
        model = L2MaxDeconvolver(reference, renorm_size=None, max_iter=2, epsilon=1e9)
        model.set_fit_request(proportions=True).set_score_request(proportions=True)
        search = GridSearchCV(model, {"max_iter": [2, 3]}, cv=3, error_score="raise")
        search.fit(bulk, proportions=proportions)
    assert_allclose(search.best_estimator_.proportions_, proportions)
    assert np.isfinite(search.cv_results_["mean_test_score"]).all()
