"""Input that cannot be meant: each is refused with the first offenders' names and a remedy."""

import re

import numpy as np
import pandas as pd
import pytest
from scipy import sparse
from sklearn.pipeline import Pipeline

from skenigma import L2MaxDeconvolver, ProportionEstimator
from skenigma.differential import differential_expression, interaction_test
from skenigma.reliability import bootstrap_reliability, gene_significance

N_SAMPLES, N_GENES = 12, 30
CELL_TYPES = ["B cell", "monocyte", "T cell"]
GENES = [f"gene{i}" for i in range(N_GENES)]
SAMPLES = [f"donor{j}" for j in range(N_SAMPLES)]
BOTH = [ProportionEstimator, L2MaxDeconvolver]

both = pytest.mark.parametrize("estimator_class", BOTH)


def refused(*parts, error=ValueError):
    """Expect an error whose message holds all ``parts``, in this order."""
    return pytest.raises(error, match="(?s)" + ".*".join(parts))


@pytest.fixture
def reference():
    values = np.random.default_rng(0).gamma(2, 50, (len(CELL_TYPES), N_GENES))
    return pd.DataFrame(values, index=CELL_TYPES, columns=GENES)


@pytest.fixture
def proportions():
    values = np.random.default_rng(1).dirichlet(np.full(len(CELL_TYPES), 5.0), N_SAMPLES)
    return pd.DataFrame(values, index=SAMPLES, columns=CELL_TYPES)


@pytest.fixture
def bulk(reference, proportions):
    noise = np.random.default_rng(2).gamma(100, 0.01, (N_SAMPLES, N_GENES))
    return proportions @ reference * noise


def test_good_input_is_accepted(bulk, reference, proportions):
    """The cohort that every other test here spoils in one way."""
    L2MaxDeconvolver(reference).fit(bulk, proportions=proportions)
    ProportionEstimator(reference).fit(bulk)


@both
class TestGenes:
    def test_no_shared_gene(self, estimator_class, bulk, reference):
        foreign = reference.rename(columns=lambda gene: gene.replace("gene", "ENSG"))
        with refused("share 0 gene", "'gene0', 'gene1'", "'ENSG0', 'ENSG1'", "same kind of gene identifier"):
            estimator_class(foreign).fit(bulk)

    def test_fewer_shared_genes_than_cell_types(self, estimator_class, bulk, reference):
        with refused(
            r"share 2 gene\(s\)", "too few for 3 cell types", "'gene0'", "same kind of gene identifier"
        ):
            estimator_class(reference[["gene4", "gene7"]]).fit(bulk)

    def test_transposed_reference_with_names(self, estimator_class, bulk, reference):
        with refused("'gene0'", "'B cell', 'monocyte', 'T cell'", "transposed", r"reference\.T"):
            estimator_class(reference.T).fit(bulk)

    def test_transposed_reference_without_names(self, estimator_class, bulk, reference):
        with refused(f"X has {N_GENES} genes", "reference has 3", "transposed", r"reference\.T"):
            estimator_class(reference.to_numpy().T).fit(bulk.to_numpy())

    @pytest.mark.parametrize(
        ("bulk_named", "reference_named", "nameless"),
        [(False, False, "X and reference"), (True, False, "reference"), (False, True, "X")],
    )
    def test_unequal_widths_without_names(
        self, estimator_class, bulk, reference, bulk_named, reference_named, nameless
    ):
        narrow = reference.iloc[:, 1:]
        X = bulk if bulk_named else bulk.to_numpy()
        profiles = narrow if reference_named else narrow.to_numpy()
        with refused(f"X has {N_GENES} genes", "reference has 29", f"names on {nameless} they", "Give both"):
            estimator_class(profiles).fit(X)

    def test_repeated_genes_of_bulk(self, estimator_class, bulk, reference):
        doubled = pd.concat([bulk, bulk[["gene3", "gene5"]]], axis=1)
        with refused("Genes of X", "more than once", "'gene3', 'gene5'", "[Ss]um, average or drop"):
            estimator_class(reference).fit(doubled)

    def test_repeated_genes_of_reference(self, estimator_class, bulk, reference):
        doubled = pd.concat([reference, reference[["gene3"]]], axis=1)
        with refused("Genes of reference", "more than once", "'gene3'", "[Ss]um, average or drop"):
            estimator_class(doubled).fit(bulk)

    def test_repeated_cell_types(self, estimator_class, bulk, reference):
        reference.index = ["T cell", "monocyte", "T cell"]
        with refused("Cell types of reference", "more than once", "'T cell'", "name of its own"):
            estimator_class(reference).fit(bulk)

    def test_long_lists_of_names_are_cut(self, estimator_class, bulk, reference):
        doubled = pd.concat([bulk, bulk], axis=1)
        with refused("'gene0'", f"and {N_GENES - 5} more") as caught:
            estimator_class(reference).fit(doubled)
        assert "'gene5'" not in str(caught.value)


@both
class TestColumnNames:
    """Names that are no strings are never matched by position in silence."""

    ENTREZ = tuple(range(7157, 7157 + N_GENES))

    def test_numbers_as_genes_of_bulk(self, estimator_class, bulk, reference):
        bulk.columns = self.ENTREZ
        with refused("column names of X", "7157, 7158", r"columns\.astype\(str\)"):
            estimator_class(reference).fit(bulk)

    def test_numbers_as_genes_of_reference(self, estimator_class, bulk, reference):
        reference.columns = self.ENTREZ
        with refused("column names of reference", "7157, 7158", r"columns\.astype\(str\)"):
            estimator_class(reference).fit(bulk)

    def test_numbers_on_both_sides(self, estimator_class, bulk, reference):
        bulk.columns = self.ENTREZ
        reference.columns = self.ENTREZ[::-1]
        with refused("column names of", r"columns\.astype\(str\)"):
            estimator_class(reference).fit(bulk)

    def test_default_numbering_in_another_order(self, estimator_class, bulk, reference):
        bulk.columns = range(N_GENES)
        with refused("column names of X", r"columns\.astype\(str\)"):
            estimator_class(reference.to_numpy()).fit(bulk.iloc[:, ::-1])

    def test_default_numbering_is_no_name(self, estimator_class, bulk, reference):
        numbered = pd.DataFrame(bulk.to_numpy())
        by_position = estimator_class(reference.to_numpy()).fit_transform(bulk.to_numpy())
        np.testing.assert_array_equal(estimator_class(reference).fit_transform(numbered), by_position)

    @pytest.mark.parametrize("side", ["X", "reference"])
    def test_mixed_types(self, estimator_class, bulk, reference, side):
        mixed = [*GENES[:-1], 7157]
        if side == "X":
            bulk.columns = mixed
        else:
            reference.columns = mixed
        # scikit-learn has words of its own for X, and they say to convert to str as well
        with refused("names|feature names", "str", error=(ValueError, TypeError)):
            estimator_class(reference).fit(bulk)

    def test_other_genes_in_transform(self, estimator_class, bulk, reference):
        fitted = estimator_class(reference).fit(bulk)
        with refused("feature names should match", "gene29"):
            fitted.transform(bulk.rename(columns={"gene29": "gene31"}))

    def test_other_number_of_genes_in_transform(self, estimator_class, bulk, reference):
        fitted = estimator_class(reference.to_numpy()).fit(bulk.to_numpy())
        with refused("29 features", f"expecting {N_GENES} features"):
            fitted.transform(bulk.to_numpy()[:, 1:])


@pytest.mark.parametrize("kind", ["pipeline", "proportions"])
def test_what_is_no_deconvolver_is_refused_by_what_needs_one(bulk, reference, kind):
    model = (
        ProportionEstimator(reference)
        if kind == "proportions"
        else Pipeline([("m", L2MaxDeconvolver(reference))])
    )
    model.fit(bulk)
    with refused(
        type(model).__name__, "does not estimate cell-type-specific expression", "fitted deconvolver"
    ):
        differential_expression(model, np.arange(N_SAMPLES) % 2, X=bulk)
    with refused(type(model).__name__, "does not estimate cell-type-specific expression"):
        bootstrap_reliability(model, bulk)


@pytest.mark.parametrize("test", [lambda b, p: interaction_test(b, p, np.arange(12) % 2), gene_significance])
def test_tables_of_functions_are_as_those_of_estimators(test, bulk, proportions):
    with refused("bulk has 1 column", "'index'", "index_col=0"):
        test(bulk.reset_index(), proportions)
    found = test(bulk.astype(pd.SparseDtype(float, 0.0)), proportions)
    expected = test(bulk, proportions)
    # another order in memory, another order of sums
    np.testing.assert_allclose(found["statistic"], expected["statistic"], rtol=1e-9)


def test_samples_of_one_name_are_not_selected_by_it(bulk, reference):
    model = L2MaxDeconvolver(reference).fit(bulk.set_axis(["donor1"] * 2 + SAMPLES[2:]))
    with refused("Samples named more than once: 'donor1'", "by position"):
        model.cell_type_expression("B cell", samples=["donor2"])
    assert len(model.cell_type_expression("B cell", samples=[0, 1])) == 2


@both
@pytest.mark.parametrize(("value", "word"), [(np.nan, "NaN"), (np.inf, "inf"), (-np.inf, "inf")])
class TestNotFinite:
    def test_bulk(self, estimator_class, bulk, reference, value, word):
        bulk.loc["donor3", "gene4"] = value
        with refused("X contains", word, "donor3", "gene4", "drop these"):
            estimator_class(reference).fit(bulk)

    def test_bulk_without_names(self, estimator_class, bulk, reference, value, word):
        bulk.loc["donor3", "gene4"] = value
        with refused("X contains", word, "row 3", "column 4", "drop these"):
            estimator_class(reference.to_numpy()).fit(bulk.to_numpy())

    def test_bulk_in_transform(self, estimator_class, bulk, reference, value, word):
        fitted = estimator_class(reference).fit(bulk)
        bulk.loc["donor3", "gene4"] = value
        with refused("X contains", word, "donor3", "gene4", "drop these"):
            fitted.transform(bulk)

    def test_reference(self, estimator_class, bulk, reference, value, word):
        reference.loc["monocyte", "gene4"] = value
        with refused("reference contains", word, "monocyte", "gene4", "drop"):
            estimator_class(reference).fit(bulk)


@both
def test_number_and_first_places_of_nan(estimator_class, bulk, reference):
    bulk.iloc[2:4, 5:10] = np.nan
    with refused(r"10 place", "donor2", "gene5", "and 5 more"):
        estimator_class(reference).fit(bulk)


@pytest.mark.parametrize("preprocess", ["sqrt", "log"])
class TestNegativeInput:
    def test_bulk(self, bulk, reference, preprocess):
        bulk.loc["donor5", "gene6"] = -0.5
        with refused(
            "X contains negative", "donor5", "gene6", f"preprocess='{preprocess}'", "pass untransformed"
        ):
            L2MaxDeconvolver(reference, preprocess=preprocess).fit(bulk)

    def test_bulk_in_transform(self, bulk, reference, preprocess):
        fitted = L2MaxDeconvolver(reference, preprocess=preprocess, max_iter=1, epsilon=1e9).fit(bulk)
        bulk.loc["donor5", "gene6"] = -0.5
        with refused(
            "X contains negative", "donor5", "gene6", f"preprocess='{preprocess}'", "pass untransformed"
        ):
            fitted.transform(bulk)

    def test_reference(self, bulk, reference, preprocess):
        reference.loc["T cell", "gene6"] = -0.5
        with refused(
            "reference contains negative", "T cell", "gene6", f"'{preprocess}'", "pass untransformed"
        ):
            L2MaxDeconvolver(reference, preprocess=preprocess).fit(bulk)


class TestProportions:
    """Every refusal in ``fit`` holds in ``transform`` and ``score``: all three take proportions."""

    @pytest.fixture(params=["fit", "fit_transform", "transform", "score"])
    def take(self, request, bulk, reference):
        model = L2MaxDeconvolver(reference)
        if request.param in ("transform", "score"):
            model.fit(bulk)
        return lambda proportions: getattr(model, request.param)(bulk, proportions=proportions)

    def test_too_few_rows(self, take, proportions):
        with refused(r"\(11, 3\)", r"\(12, 3\)", "one row per sample"):
            take(proportions.to_numpy()[1:])

    def test_too_few_columns(self, take, proportions):
        with refused(
            r"\(12, 2\)", r"\(12, 3\)", "one column per cell type", "'B cell', 'monocyte', 'T cell'"
        ):
            take(proportions.to_numpy()[:, 1:])

    def test_a_cell_type_is_missing(self, take, proportions):
        with refused("columns of proportions do not name cell type 'monocyte'", "'B cell', 'T cell'"):
            take(proportions.drop(columns="monocyte"))

    def test_names_of_the_samples_in_a_column(self, take, proportions):
        with refused("proportions has 1 column", "'index'", "index_col=0"):
            take(proportions.reset_index())

    def test_sparse_frame(self, take, proportions):
        take(proportions.astype(pd.SparseDtype(float, 0.0)))

    def test_negative(self, take, proportions):
        proportions.loc["donor4"] = [-0.1, 0.6, 0.5]
        with refused("proportions", "negative", "donor4", "B cell", "at least 0"):
            take(proportions)

    @pytest.mark.parametrize(("value", "word"), [(np.nan, "NaN"), (np.inf, "inf")])
    def test_not_finite(self, take, proportions, value, word):
        proportions.loc["donor4", "monocyte"] = value
        with refused("proportions contains", word, "donor4", "monocyte", "[Ii]mpute or drop"):
            take(proportions)

    def test_sums_off(self, take, proportions):
        proportions.loc["donor4"] *= 1.06
        proportions.loc["donor7"] *= 0.94
        with refused("2 sample", "do not sum to 1", "donor4.*1.06", "donor7.*0.94", "[Dd]ivide every row"):
            take(proportions)

    def test_sums_within_rounding_of_tables(self, take, proportions):
        proportions.loc["donor4"] *= 1.04
        take(proportions)

    def test_percentages(self, take, proportions):
        with refused("12 sample", "do not sum to 1", "100", "[Dd]ivide every row by its sum"):
            take(100 * proportions.to_numpy())

    def test_other_cell_types(self, take, proportions):
        with refused("columns of proportions", "'monocyte'", "'Monocytes'", "[Rr]ename"):
            take(proportions.rename(columns={"monocyte": "Monocytes"}))

    def test_repeated_cell_types(self, take, proportions):
        proportions.columns = ["T cell", "T cell", "B cell"]
        with refused("columns of proportions", "'T cell'", "unique"):
            take(proportions)

    def test_other_samples(self, take, proportions):
        with refused("rows of proportions", "'donor4'", "'patient4'|'donor0'", "[Rr]ename"):
            take(proportions.rename(index={"donor4": "patient4"}))

    def test_repeated_samples(self, take, proportions):
        proportions.index = ["donor0", *SAMPLES[:-1]]
        with refused("rows of proportions", "'donor0'", "unique"):
            take(proportions)


class TestTooFewSamples:
    def test_one_sample_has_no_cohort(self, bulk, reference):
        with refused("1 sample", "minimum of 2"):
            L2MaxDeconvolver(reference).fit(bulk.iloc[:1])

    def test_one_sample_is_enough_for_proportions(self, bulk, reference):
        assert ProportionEstimator(reference).fit_transform(bulk.iloc[:1]).shape == (1, 3)

    def test_one_new_sample_is_enough(self, bulk, reference):
        assert L2MaxDeconvolver(reference).fit(bulk).transform(bulk.iloc[:1]).shape == (1, 3 * N_GENES)

    @both
    def test_more_profiles_to_learn_than_samples(self, estimator_class, bulk):
        with refused(
            "n_components=13", "n_samples = 12", "give a reference, more samples, or fewer components"
        ):
            estimator_class(n_components=13).fit(bulk)


@both
class TestKindsOfInput:
    # scikit-learn refuses sparse input with a TypeError; both words are clear
    SPARSE = (ValueError, TypeError)

    @pytest.mark.parametrize("make", [sparse.csr_matrix, sparse.csc_array], ids=["matrix", "array"])
    def test_sparse_bulk(self, estimator_class, bulk, reference, make):
        with refused("[Ss]parse", r"dense|toarray", error=self.SPARSE):
            estimator_class(reference.to_numpy()).fit(make(bulk.to_numpy()))

    def test_sparse_bulk_in_transform(self, estimator_class, bulk, reference):
        fitted = estimator_class(reference.to_numpy()).fit(bulk.to_numpy())
        with refused("[Ss]parse", r"dense|toarray", error=self.SPARSE):
            fitted.transform(sparse.csr_matrix(bulk.to_numpy()))

    @pytest.mark.parametrize("make", [sparse.csr_matrix, sparse.csc_array], ids=["matrix", "array"])
    def test_sparse_reference(self, estimator_class, bulk, reference, make):
        with refused("reference", "[Ss]parse|dense", r"dense|toarray", error=self.SPARSE):
            estimator_class(make(reference.to_numpy())).fit(bulk.to_numpy())

    def test_strings_in_bulk(self, estimator_class, bulk, reference):
        spoilt = bulk.astype(object)
        spoilt.loc["donor2", "gene1"] = "n/a"
        with refused(r"X has 1 column\(s\) that are not numbers", r"'gene1' \('n/a'\)"):
            estimator_class(reference).fit(spoilt)

    def test_names_of_the_samples_in_a_column(self, estimator_class, bulk, reference):
        with refused(r"X has 1 column\(s\) that are not numbers", "'index'", "donor0", "index_col=0"):
            estimator_class(reference).fit(bulk.reset_index())

    def test_names_of_the_samples_in_a_column_of_polars(self, estimator_class, bulk, reference):
        polars = pytest.importorskip("polars")
        with refused("not numbers", "'sample'", "donor0"):
            estimator_class(reference).fit(polars.DataFrame({"sample": SAMPLES, **bulk.to_dict("list")}))

    def test_reference_that_is_no_table(self, estimator_class, bulk, reference):
        with refused("reference must be a table of numbers, cell types × genes"):
            estimator_class(reference.T.to_dict("list")).fit(bulk)

    def test_sparse_frames(self, estimator_class, bulk, reference):
        kind = pd.SparseDtype(float, 0.0)
        found = estimator_class(reference.astype(kind)).fit_transform(bulk.astype(kind))
        expected = estimator_class(reference).fit_transform(bulk)
        # the same numbers in another order of memory
        np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-9)

    def test_strings_in_reference(self, estimator_class, bulk, reference):
        """A table read without ``index_col=0`` has its names in the first column."""
        with refused("reference must be a table of numbers", "names in the index", "B cell"):
            estimator_class(reference.reset_index()).fit(bulk)

    def test_no_sample(self, estimator_class, bulk, reference):
        with refused("0 sample", "minimum of"):
            estimator_class(reference).fit(bulk.iloc[:0])

    def test_no_gene(self, estimator_class, bulk, reference):
        with refused("0 feature", "minimum of"):
            estimator_class(reference).fit(bulk.iloc[:, :0])

    def test_empty_reference(self, estimator_class, bulk, reference):
        with refused("reference", "0 sample|no cell type", "minimum of|at least"):
            estimator_class(reference.iloc[:0]).fit(bulk)

    def test_one_dimension(self, estimator_class, bulk, reference):
        with refused("Expected 2D array, got 1D", "[Rr]eshape"):
            estimator_class(reference.to_numpy()).fit(bulk.to_numpy()[0])

    def test_one_dimension_of_reference(self, estimator_class, bulk, reference):
        with refused("reference must be a table", "2D"):
            estimator_class(reference.to_numpy()[0]).fit(bulk.to_numpy())

    def test_three_dimensions(self, estimator_class, bulk, reference):
        with refused("dim 3|3D"):
            estimator_class(reference.to_numpy()).fit(np.stack([bulk, bulk]))

    def test_complex_bulk(self, estimator_class, bulk, reference):
        with refused("Complex data not supported"):
            estimator_class(reference.to_numpy()).fit(bulk.to_numpy() + 1j)

    def test_complex_reference(self, estimator_class, bulk, reference):
        with refused("reference", "Complex data not supported"):
            estimator_class(reference.to_numpy() + 1j).fit(bulk.to_numpy())


@both
class TestHostileNumbers:
    """What an error message is about must not end the process that makes it."""

    @pytest.mark.parametrize("text", ["3e8123456789012345", "1e4294967296"])
    def test_text_that_overflows_a_parser(self, estimator_class, bulk, reference, text):
        spoilt = bulk.astype(object)
        spoilt.iloc[:2, 1] = [text, "x"]
        with refused(r"X has 1 column\(s\) that are not numbers: 'gene1' \('x'\)"):
            estimator_class(reference).fit(spoilt)
        spoilt = reference.astype(object)
        spoilt.iloc[:2, 1] = [text, "x"]
        with refused("reference has 1 column", r"'gene1' \('x'\)"):
            estimator_class(spoilt).fit(bulk)

    @pytest.mark.parametrize("digits", [400, 10_000])
    def test_integers_beyond_floats(self, estimator_class, bulk, reference, digits):
        spoilt = bulk.astype(object)
        spoilt.iloc[2, 1] = 10**digits
        with refused(r"X has 1 column", r"'gene1' \(an integer of [0-9,]+ bits\)"):
            estimator_class(reference).fit(spoilt)
        for X in (spoilt.to_numpy(), spoilt.to_numpy().tolist()):
            with refused("X holds integers that no float can hold", "Divide"):
                estimator_class(reference.to_numpy()).fit(X)


def ensembl(gene):
    return f"ENSG00000{100000 + int(gene[4:])}"


class TestIdentifiersThatDoNotMatch:
    """The message shows five of each side and names the likely cause."""

    @pytest.mark.parametrize(
        ("rename_bulk", "rename_reference", "cause"),
        [
            (ensembl, str, "X seems to have Ensembl gene identifiers, but reference gene symbols: translate"),
            (str, ensembl, "X seems to have gene symbols, but reference Ensembl gene identifiers"),
            (
                lambda gene: ensembl(gene).replace("ENSG", "ENST"),
                ensembl,
                "X seems to have Ensembl transcript identifiers, but reference Ensembl gene",
            ),
            (lambda gene: gene[4:], str, "X seems to have numbers as of Entrez, but reference gene symbols"),
            (
                lambda gene: ensembl(gene) + ".12",
                ensembl,
                "Ignoring version suffixes such as '.12', they share 30",
            ),
            (lambda gene: ensembl(gene) + ".12", lambda gene: ensembl(gene) + ".3", "version suffixes"),
            (str.capitalize, str.upper, "Ignoring case, they share 30: make the spelling the same"),
            (lambda gene: gene + " ", str, "Ignoring spaces around the names, they share 30"),
            (lambda gene: "GRCh38_" + gene, str, "Ignoring genome prefixes such as 'GRCh38_', they share 30"),
            (lambda gene: gene + "|" + gene[4:], str, "Ignoring what follows '|', they share 30"),
        ],
    )
    @both
    def test_likely_cause(self, estimator_class, bulk, reference, rename_bulk, rename_reference, cause):
        bulk, reference = bulk.rename(columns=rename_bulk), reference.rename(columns=rename_reference)
        shown = [re.escape(", ".join(f"'{gene}'" for gene in side.columns[:5])) for side in (bulk, reference)]
        with refused("share 0 gene", *shown, re.escape(cause), "same kind of gene identifier"):
            estimator_class(reference).fit(bulk)

    @both
    def test_few_shared_genes_warn(self, estimator_class, bulk, reference):
        rename = {gene: gene.upper() for gene in GENES[5:]}
        with pytest.warns(
            UserWarning, match=r"only 5 genes, of 30 in X and 30 in reference.*Ignoring case, they share 30"
        ) as caught:
            estimator_class(reference.rename(columns=rename)).fit(bulk)
        assert caught[0].filename == __file__

    def test_no_cause_is_made_up(self, bulk, reference):
        foreign = reference.rename(columns={gene: f"{gene}x" for gene in GENES[5:]})
        with pytest.warns(UserWarning, match=r"only 5 genes.*and 25 more\. Use the same kind"):
            ProportionEstimator(foreign).fit(bulk)

    def test_a_panel_of_genes_does_not_warn(self, bulk, reference):
        ProportionEstimator(reference.iloc[:, :4]).fit(bulk)
        ProportionEstimator(reference).fit(bulk.iloc[:, :4])


class TestTransposedBulk:
    """Files of the field are genes × samples: the commonest mistake of all."""

    @both
    def test_with_names(self, estimator_class, bulk, reference):
        with refused("share 0 gene", "'donor0'", "'gene0'", "X looks transposed", r"pass X\.T"):
            estimator_class(reference).fit(bulk.T)

    @both
    def test_reference_as_well(self, estimator_class, bulk, reference):
        with refused(r"pass X\.T", r"pass reference\.T"):
            estimator_class(reference.T).fit(bulk.T)

    @both
    def test_without_names(self, estimator_class, bulk, reference):
        with refused(f"X has {N_SAMPLES} genes", f"reference has {N_GENES}", r"pass X\.T"):
            estimator_class(reference.to_numpy()).fit(bulk.to_numpy().T)


@pytest.mark.parametrize("nu", [[], [0.0], [0.5, 1.5], [-0.1]])
def test_impossible_nu(bulk, reference, nu):
    with refused("nu=", "above 0 and up to 1"):
        ProportionEstimator(reference, method="nusvr", nu=nu).fit(bulk)


@pytest.mark.parametrize(
    ("estimator_class", "name", "value"),
    [
        (L2MaxDeconvolver, "alpha", 1.5),
        (L2MaxDeconvolver, "alpha", -0.1),
        (L2MaxDeconvolver, "beta", -1),
        (L2MaxDeconvolver, "epsilon", -1),
        (L2MaxDeconvolver, "tao_k", 0),
        (L2MaxDeconvolver, "tao_k", "safe"),
        (L2MaxDeconvolver, "renorm_size", 0),
        (L2MaxDeconvolver, "renorm_size", "mean"),
        (L2MaxDeconvolver, "max_iter", 0),
        (L2MaxDeconvolver, "solver", "newton"),
        (L2MaxDeconvolver, "n_components", 0),
        (L2MaxDeconvolver, "preprocess", "log2"),
        (L2MaxDeconvolver, "positive", "yes"),
        (L2MaxDeconvolver, "normalize", "fraction"),
        (L2MaxDeconvolver, "proportion_estimator", "rlm"),
        (ProportionEstimator, "method", "ols"),
        (ProportionEstimator, "n_components", 0),
        (ProportionEstimator, "max_iter", 0),
        (ProportionEstimator, "tol", 0),
    ],
)
def test_impossible_parameters(bulk, reference, estimator_class, name, value):
    with refused(f"'{name}' parameter of {estimator_class.__name__} must be", f"Got {value!r}"):
        estimator_class(reference, **{name: value}).fit(bulk)
