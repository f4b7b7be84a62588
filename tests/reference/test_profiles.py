"""Reference profiles and marker genes from annotated cells."""

import itertools

import anndata
import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy import sparse

from skenigma import ProportionEstimator
from skenigma.core.posterior.donors import moderated_variance
from skenigma.reference import _cells as cells_module
from skenigma.reference import make_reference, select_markers

N_CELLS, N_GENES = 90, 40
GENES = [f"gene{g}" for g in range(N_GENES)]
BARCODES = [f"cell{i}" for i in range(N_CELLS)]
LABELS = np.array(["T cell", "B cell", "monocyte"])[np.arange(N_CELLS) % 3]
TYPES = ["B cell", "T cell", "monocyte"]


def refused(*parts, error=ValueError):
    """Expect an error whose message holds all ``parts``, in this order."""
    return pytest.raises(error, match="(?s)" + ".*".join(parts))


@pytest.fixture
def counts():
    """Sparse-like counts; gene 0 is not expressed, genes 1 to 3 are high in one type each."""
    rng = np.random.default_rng(0)
    rates = np.tile(0.2 + rng.gamma(0.5, 2, N_GENES), (N_CELLS, 1))
    rates[:, 1:4] = 1
    for gene, cell_type in enumerate(TYPES, start=1):
        rates[cell_type == LABELS, gene] = 40
    rates[:, 0] = 0
    return rng.poisson(rates)


@pytest.fixture
def adata(counts):
    obs = pd.DataFrame({"cell_type": pd.Categorical(LABELS)}, index=BARCODES)
    return anndata.AnnData(sparse.csr_matrix(counts.astype(np.float32)), obs, pd.DataFrame(index=GENES))


def test_profile_is_the_mean_of_the_cells(counts):
    reference = make_reference(counts, LABELS, gene_names=GENES)
    assert list(reference.index) == TYPES
    assert list(reference.columns) == GENES[1:]
    for cell_type in TYPES:
        # sums of whole numbers in float64
        assert_allclose(reference.loc[cell_type], counts[cell_type == LABELS, 1:].mean(axis=0), rtol=1e-14)


CONTAINERS = {
    "array": lambda x: x,
    "float32": lambda x: x.astype(np.float32),
    "csr_matrix": sparse.csr_matrix,
    "csr_array": sparse.csr_array,
    "csc_matrix": sparse.csc_matrix,
    "coo_array": sparse.coo_array,
    "float32 csr": lambda x: sparse.csr_matrix(x.astype(np.float32)),
    "DataFrame": lambda x: pd.DataFrame(x, BARCODES, GENES),
    "sparse DataFrame": lambda x: pd.DataFrame.sparse.from_spmatrix(sparse.csr_matrix(x), BARCODES, GENES),
    "AnnData": lambda x: anndata.AnnData(
        sparse.csr_matrix(x.astype(float)), pd.DataFrame(index=BARCODES), pd.DataFrame(index=GENES)
    ),
}


@pytest.mark.parametrize("normalize", [None, 1e4, "median"])
@pytest.mark.parametrize("container", CONTAINERS.values(), ids=CONTAINERS)
def test_every_container_gives_the_same(monkeypatch, counts, container, normalize):
    settings = {"gene_names": GENES, "normalize": normalize, "n_markers": 5}
    expected = make_reference(counts, LABELS, **settings)
    monkeypatch.setattr(cells_module, "BLOCK_SIZE", 500)  # several blocks
    reference = make_reference(container(counts), LABELS, **settings)
    # sums in another order
    pd.testing.assert_frame_equal(reference, expected, rtol=1e-13)


def test_sparse_is_never_made_dense(monkeypatch, counts):
    """Products of a block with the indicator are all that is ever made dense."""
    largest = []
    densify = sparse.csr_matrix.toarray
    monkeypatch.setattr(
        sparse.csr_matrix, "toarray", lambda self: largest.append(self.shape[0]) or densify(self)
    )
    make_reference(sparse.csr_matrix(counts), LABELS, gene_names=GENES, n_markers=5, normalize=1e4)
    assert largest
    assert max(largest) == len(TYPES)


def test_cells_are_left_as_they_were(counts):
    matrix = sparse.csr_matrix(counts)
    before = matrix.copy()
    make_reference(matrix, LABELS, gene_names=GENES, normalize=1e4, n_markers=3)
    assert (matrix != before).nnz == 0


@pytest.mark.parametrize("normalize", [1e4, "median"])
def test_normalized_cells_weigh_the_same(counts, normalize):
    reference = make_reference(counts, LABELS, gene_names=GENES, normalize=normalize)
    totals = counts.sum(axis=1)
    target = np.median(totals) if normalize == "median" else normalize
    scaled = counts / totals[:, None] * target
    for cell_type in TYPES:
        assert_allclose(reference.loc[cell_type], scaled[cell_type == LABELS, 1:].mean(axis=0), rtol=1e-13)
    assert_allclose(reference.sum(axis=1), target, rtol=1e-13)


class TestAnnData:
    def test_column_of_obs(self, adata, counts):
        expected = make_reference(counts, LABELS, gene_names=GENES)
        pd.testing.assert_frame_equal(make_reference(adata, "cell_type"), expected, rtol=1e-14)

    def test_order_of_categories(self, adata):
        order = ["monocyte", "empty", "T cell", "B cell"]
        adata.obs["cell_type"] = pd.Categorical(LABELS, categories=order)
        assert list(make_reference(adata, "cell_type").index) == ["monocyte", "T cell", "B cell"]

    def test_layer(self, adata):
        adata.layers["counts"] = adata.X.copy() * 2
        doubled = make_reference(adata, "cell_type", layer="counts")
        assert_allclose(doubled, 2 * make_reference(adata, "cell_type"), rtol=1e-14)

    def test_raw(self, adata):
        adata.raw = adata
        expected = make_reference(adata, "cell_type")
        few = adata[:, :5].copy()
        pd.testing.assert_frame_equal(make_reference(few, "cell_type", layer="raw"), expected)

    def test_backed(self, adata, tmp_path):
        adata.write_h5ad(tmp_path / "cells.h5ad")
        backed = anndata.read_h5ad(tmp_path / "cells.h5ad", backed="r")
        pd.testing.assert_frame_equal(
            make_reference(backed, "cell_type"), make_reference(adata, "cell_type"), check_names=False
        )
        backed.file.close()

    def test_labels_of_another_order_are_matched_by_barcode(self, adata):
        shuffled = adata.obs["cell_type"].sample(frac=1, random_state=0)
        pd.testing.assert_frame_equal(make_reference(adata, shuffled), make_reference(adata, "cell_type"))

    def test_no_such_layer(self, adata):
        adata.layers["counts"] = adata.X.copy()
        with refused("no layer 'raw'", "It has: 'counts'"):
            make_reference(adata, "cell_type", layer="raw")

    def test_no_such_column(self, adata):
        with refused("no column 'celltype'", "'cell_type'"):
            make_reference(adata, "celltype")

    def test_no_x(self, adata):
        adata.layers["counts"] = adata.X.copy()
        adata.X = None
        with refused("no X", "'counts'"):
            make_reference(adata, "cell_type")


class TestReport:
    def test_all_is_accounted_for(self, counts):
        labels = LABELS.copy()
        labels[:4] = "rare"
        with pytest.warns(UserWarning, match=r"min_cells=10 cells are left out: 'rare' \(4\)"):
            reference, report = make_reference(counts, labels, gene_names=GENES, return_report=True)
        assert list(report.cell_types.index) == ["B cell", "T cell", "monocyte", "rare"]
        assert list(report.cell_types.n_cells) == [29, 28, 29, 4]
        assert list(report.cell_types.kept) == [True, True, True, False]
        assert report.cell_types.reason["rare"] == "fewer than 10 cells"
        assert list(report.genes.index) == GENES
        assert list(report.genes.index[report.genes.kept]) == list(reference.columns)
        assert report.genes.reason["gene0"] == "no cell of these types expresses it"
        assert report.genes.reason[1:].eq("").all()
        assert report.markers is None
        assert repr(report).splitlines() == [
            "cell types: 3 of 4 kept, 1 left out (fewer than 10 cells)",
            "genes: 39 of 40 kept, 1 left out (no cell of these types expresses it)",
        ]

    def test_markers(self, counts):
        reference, report = make_reference(counts, LABELS, gene_names=GENES, n_markers=1, return_report=True)
        assert list(reference.columns) == ["gene1", "gene2", "gene3"]
        assert report.genes.reason["gene4"] == "not a marker"
        pd.testing.assert_frame_equal(report.markers, select_markers(counts, LABELS, 1, gene_names=GENES))

    def test_genes_without_names_all_stay(self, counts):
        reference, report = make_reference(counts, LABELS, return_report=True)
        assert_array_equal(reference.columns, np.arange(N_GENES))
        assert report.genes.kept.all()
        ProportionEstimator(reference, method="nnls").fit(reference.to_numpy())


class TestMarkers:
    def test_pairs(self, counts):
        """The documented formula, pair by pair."""
        markers = select_markers(counts, LABELS, 100, gene_names=GENES)
        means = np.array([counts[cell_type == LABELS].mean(axis=0) for cell_type in TYPES])
        variances = np.array([counts[cell_type == LABELS].var(axis=0, ddof=1) for cell_type in TYPES])
        level = means + 0.03 * means.mean()
        expected = np.zeros(N_GENES)
        for one, other in itertools.combinations(range(3), 2):
            ratio = np.abs(np.log(level[one] / level[other]))
            relative = variances / 30 / level**2
            cubes = np.maximum(ratio - 2 * np.sqrt(relative[one] + relative[other]), 0) ** 3
            expected += cubes / cubes.mean()
        expected /= expected.mean()
        assert set(markers.gene) == {GENES[gene] for gene in np.flatnonzero(expected)}
        for row in markers.itertuples():
            gene = GENES.index(row.gene)
            low, high = np.argsort(means[:, gene])[-2:]
            assert (row.cell_type, row.next_type) == (TYPES[high], TYPES[low])
            assert_allclose((row.mean, row.next_mean), means[[high, low], gene], rtol=1e-12)
            assert_allclose(row.score, expected[gene], rtol=1e-10)  # cubes of differences

    def test_pairs_tell_related_types_apart(self):
        """Two types that differ in genes that a third expresses most are told apart by them."""
        rng = np.random.default_rng(1)
        rates = np.full((3, 30), 5.0)
        rates[0, :20] = 60  # the first type differs from both others in many genes
        rates[1, :5] = 30  # which differ from one another in five of these
        rates[1, 28] = rates[2, 29] = 12
        cells, labels = rng.poisson(np.repeat(rates, 40, axis=0)), np.repeat(["A", "B1", "B2"], 40)
        genes = [f"gene{g}" for g in range(30)]
        pairs, fold = (
            set(select_markers(cells, labels, 5, rule=rule, gene_names=genes, min_cells=5).gene)
            for rule in ("pairs", "fold")
        )
        assert set(genes[:5]) <= pairs
        assert not set(genes[:5]) & fold

    def test_types_that_are_alike_are_named(self, counts):
        labels = LABELS.copy()
        twice = np.vstack([counts, counts[labels == "monocyte"]])
        labels = np.concatenate([labels, ["twin"] * 30])
        with pytest.warns(UserWarning, match="apart: 'monocyte and twin'. Merge"):
            select_markers(twice, labels, gene_names=GENES)

    def test_unknown_rule(self, counts):
        with refused("rule='best' must be one of 'pairs', 'fold'"):
            select_markers(counts, LABELS, rule="best", gene_names=GENES)

    def test_fold(self, counts):
        """The documented formula, gene by gene."""
        markers = select_markers(counts, LABELS, 100, rule="fold", gene_names=GENES)
        means = np.array([counts[cell_type == LABELS].mean(axis=0) for cell_type in TYPES])
        variances = np.array([counts[cell_type == LABELS].var(axis=0, ddof=1) for cell_type in TYPES])
        offset, expected = means.mean(), {}
        for gene in range(N_GENES):
            low, high = np.argsort(means[:, gene])[-2:]
            relative = variances[:, gene] / 30 / (means[:, gene] + offset) ** 2
            ratio = np.log2((means[high, gene] + offset) / (means[low, gene] + offset))
            score = ratio - 2 / np.log(2) * np.sqrt(relative[high] + relative[low])
            if score > 0:
                expected[GENES[gene]] = (TYPES[high], score, TYPES[low])
        assert set(markers.gene) == set(expected)
        assert not markers.gene.duplicated().any()
        for row in markers.itertuples():
            assert (row.cell_type, row.next_type) == expected[row.gene][::2]
            assert_allclose(row.score, expected[row.gene][1], rtol=1e-12)

    @pytest.mark.parametrize("rule", ["pairs", "fold"])
    def test_order(self, counts, rule):
        markers = select_markers(counts, LABELS, 2, rule=rule, gene_names=GENES)
        assert list(markers.cell_type.drop_duplicates()) == TYPES
        for _, of_type in markers.groupby("cell_type"):
            assert len(of_type) <= 2
            assert of_type.score.is_monotonic_decreasing
        assert list(markers.gene[~markers.cell_type.duplicated()]) == ["gene1", "gene2", "gene3"]

    def test_among_some_genes(self, counts):
        every = select_markers(counts, LABELS, rule="fold", gene_names=GENES)
        some = every.gene[1::2].to_numpy()
        with pytest.warns(UserWarning, match="No gene tells 'B cell'"):
            found = select_markers(
                counts, LABELS, rule="fold", gene_names=GENES, among=["no such gene", *some]
            )
        expected = every[every.gene.isin(some)].reset_index(drop=True)
        pd.testing.assert_frame_equal(found, expected)

    def test_pairs_among_some_genes(self, counts):
        """As if there were no others, but for the offset, whose mean is that of all."""
        some = GENES[1::2]
        found = select_markers(counts, LABELS, gene_names=GENES, among=["no such gene", *some])
        alone = select_markers(counts[:, 1::2], LABELS, gene_names=some)
        assert set(found.gene) == set(alone.gene)
        assert_allclose(found.set_index("gene").score, alone.set_index("gene").score[found.gene], rtol=0.2)

    @pytest.mark.parametrize("rule", ["pairs", "fold"])
    def test_unit_does_not_matter(self, counts, rule):
        plain = select_markers(counts, LABELS, rule=rule, gene_names=GENES)
        scaled = select_markers(counts * 1e3, LABELS, rule=rule, gene_names=GENES)
        assert_array_equal(plain.gene, scaled.gene)
        assert_allclose(plain.score, scaled.score, rtol=1e-9)

    def test_cells_are_scaled_before(self, counts):
        scaled = counts / counts.sum(axis=1, keepdims=True) * 1e4
        pd.testing.assert_frame_equal(
            select_markers(counts, LABELS, gene_names=GENES, normalize=1e4),
            select_markers(scaled, LABELS, gene_names=GENES),
        )

    def test_gene_stored_in_parts(self, counts):
        """Sparse matrices may hold one entry as a sum of several."""
        whole = sparse.csr_matrix(counts)
        parts = sparse.csr_matrix(
            (np.repeat(whole.data, 2), np.repeat(whole.indices, 2), 2 * whole.indptr), shape=counts.shape
        )
        parts.data[1::2] -= 1
        parts.data[::2] = 1
        assert_array_equal(parts.toarray(), counts)
        expected = select_markers(counts, LABELS, gene_names=GENES)
        pd.testing.assert_frame_equal(select_markers(parts, LABELS, gene_names=GENES), expected)

    def test_one_cell_takes_the_variance_of_the_others(self, counts):
        labels = LABELS.copy()
        labels[0] = "single"
        counts[0, 5] = 500
        # its cell type of before loses its marker to it
        with pytest.warns(UserWarning, match="No gene tells 'T cell' from the other cell types: merge"):
            markers = select_markers(counts, labels, rule="fold", gene_names=GENES, min_cells=1)
        score = markers.set_index("gene").score["gene5"]
        assert np.isfinite(score)
        # a cell without any variance would be trusted completely
        offset = np.array([counts[labels == t].mean(axis=0) for t in np.unique(labels)]).mean()
        assert score < np.log2((500 + offset) / (counts[1:, 5].mean() + offset))

    @pytest.mark.parametrize("rule", ["pairs", "fold"])
    def test_no_marker(self, counts, rule):
        same = np.tile(counts[0], (N_CELLS, 1))
        with refused("No gene tells", "'B cell', 'T cell', 'monocyte'"):
            select_markers(same, LABELS, rule=rule, gene_names=GENES)

    def test_needs_names(self, counts):
        with refused("Markers need gene names"):
            select_markers(counts, LABELS)

    def test_needs_two_types(self, counts):
        with refused("only 'T cell'"):
            select_markers(counts, ["T cell"] * N_CELLS, gene_names=GENES)


class TestBadCells:
    def test_missing_labels_are_named(self, adata):
        labels = adata.obs["cell_type"].astype(object)
        labels.iloc[[3, 8]] = np.nan
        with refused("labels of 2 cell", "NaN", "'cell3', 'cell8'", "Drop or label"):
            make_reference(adata, labels)

    def test_missing_labels_of_nameless_cells(self, counts):
        labels = LABELS.astype(object)
        labels[7] = None
        with refused("labels of 1 cell", ": 7. "):
            make_reference(counts, labels)

    def test_repeated_barcodes(self, counts):
        cells = pd.DataFrame(counts, BARCODES, GENES).rename(index={"cell1": "cell0"})
        with refused("Cells named more than once: 'cell0'", "obs_names_make_unique"):
            make_reference(cells, LABELS)

    def test_repeated_genes(self, counts):
        with refused("Genes of cells named more than once: 'gene1'", "var_names_make_unique"):
            make_reference(counts, LABELS, gene_names=["gene1", *GENES[1:]])

    def test_one_cell(self, counts):
        labels = LABELS.copy()
        labels[0] = "single"
        with pytest.warns(UserWarning, match=r"left out: 'single' \(1\)"):
            make_reference(counts, labels)

    def test_no_type_is_left(self, counts):
        with refused("No cell type has min_cells=31", r"'B cell' \(30\)", "lower min_cells"):
            make_reference(counts, LABELS, min_cells=31)

    @pytest.mark.parametrize("container", [np.asarray, sparse.csr_matrix])
    def test_negative(self, counts, container):
        counts = counts.astype(float)
        counts[4, 2] = -1.5
        with refused("negative values in 1 place", "row 4, column 'gene2'", "before scaling"):
            make_reference(container(counts), LABELS, gene_names=GENES)

    def test_scaled_cells_say_where_the_counts_may_be(self, adata):
        adata.layers["counts"] = adata.X.copy()
        adata.X = adata.X.toarray() - 1
        with refused("negative values", "before scaling", "may hold them", "'counts'"):
            make_reference(adata, "cell_type")

    @pytest.mark.parametrize("container", [np.asarray, sparse.csr_matrix])
    @pytest.mark.parametrize(("value", "word"), [(np.nan, "NaN"), (np.inf, "infinity")])
    def test_not_finite(self, counts, container, value, word):
        counts = counts.astype(float)
        counts[4, 2] = value
        with refused(word, "row 4, column 'gene2'", "Drop these cells"):
            make_reference(container(counts), LABELS, gene_names=GENES)

    def test_logarithms_by_the_word_of_the_data(self, adata):
        adata.X = adata.X.log1p()
        adata.uns["log1p"] = {}
        with refused(r"uns\['log1p'\]", "linear scale"):
            make_reference(adata, "cell_type")

    def test_word_of_the_data_is_of_x_only(self, adata):
        adata.layers["counts"] = adata.X.copy()
        adata.X = adata.X.log1p()
        adata.uns["log1p"] = {}
        make_reference(adata, "cell_type", layer="counts")
        adata.layers["tenths"] = adata.layers["counts"] / 100
        with pytest.warns(UserWarning, match="is this the logarithm"):
            make_reference(adata, "cell_type", layer="tenths")

    def test_likely_logarithms_warn(self, counts):
        with pytest.warns(UserWarning, match=r"largest value of cells is 4\.\d+: is this the logarithm"):
            make_reference(np.log1p(counts), LABELS)

    def test_small_counts_do_not(self, counts):
        make_reference(np.minimum(counts, 20), LABELS)
        make_reference(np.minimum(counts, 20).astype(np.float32), LABELS)

    def test_nothing_expressed(self, counts):
        with refused("all zero"):
            make_reference(counts * 0, LABELS)

    def test_empty_cell_cannot_be_normalized(self, counts):
        counts[6] = 0
        make_reference(counts, LABELS)
        with refused("1 cell", "rows 6"):
            make_reference(counts, LABELS, normalize=1e4)

    def test_labels_of_other_cells(self, adata):
        labels = adata.obs["cell_type"].iloc[:-2]
        with refused("do not name cell 'cell88', 'cell89'"):
            make_reference(adata, labels)

    def test_wrong_number_of_labels(self, counts):
        with refused("89 entries", "90 cells"):
            make_reference(counts, LABELS[:-1])

    def test_transposed(self, counts):
        with refused("40 names", "90 columns", "transpose"):
            make_reference(counts.T, LABELS, gene_names=GENES)

    def test_layer_of_an_array(self, counts):
        with refused("layer='counts'", "AnnData", "ndarray"):
            make_reference(counts, LABELS, layer="counts")

    def test_column_of_an_array(self, counts):
        with refused("labels='cell_type'", "AnnData", "ndarray"):
            make_reference(counts, "cell_type")

    def test_not_a_table(self):
        with refused("table of numbers"):
            make_reference(np.array([["a", "b"]]), ["T"])

    @pytest.mark.parametrize(
        ("name", "value"), [("min_cells", 0), ("n_markers", 0), ("normalize", 0), ("normalize", -1.0)]
    )
    def test_parameter_out_of_range_is_named(self, counts, name, value):
        with refused(f"{name} == {value}"):
            make_reference(counts, LABELS, gene_names=GENES, **{name: value})


# Donors


def donor_cells(n_donors=6, n_cells=40, n_genes=300, seed=0):
    """Cells of two types whose genes vary between donors, most in the first type's first half."""
    rng = np.random.default_rng(seed)
    base = rng.gamma(1.0, 60.0, (2, n_genes)) + 20
    deviation = np.full((2, n_genes), 0.2)
    deviation[0, : n_genes // 2] = 1.0
    donors = base * np.exp2(rng.normal(0, 1, (n_donors, 2, n_genes)) * deviation)
    labels = np.tile(np.repeat(["B", "T"], n_cells), n_donors)
    donor = np.repeat(np.arange(n_donors), 2 * n_cells)
    profiles = donors[donor, (labels == "T").astype(int)]
    names = np.array([f"donor{number}" for number in donor])
    return rng.poisson(profiles), labels, names, deviation**2


def test_variance_between_donors_is_found_and_moderated():
    cells, labels, donors, truth = donor_cells()
    reference, report = make_reference(cells, labels, donors=donors, return_report=True)
    plain = make_reference(cells, labels)
    pd.testing.assert_frame_equal(reference, plain)
    assert report.variance.shape == reference.shape
    assert report.cell_types["n_donors"].tolist() == [6, 6]
    profiles = np.array(
        [[cells[(donors == name) & (labels == "B")].mean(axis=0)] for name in np.unique(donors)]
    )[:, 0]
    raw = np.log2(profiles + 1).var(axis=0, ddof=1)
    found = report.variance.loc["B"].to_numpy()
    assert ((found - truth[0]) ** 2).mean() < ((raw - truth[0]) ** 2).mean()
    assert np.corrcoef(np.log(found), np.log(raw))[0, 1] > 0.9
    # 5 degrees of freedom a gene, and noise of 40 cells
    assert_allclose(report.variance.loc["T"].mean(), 0.04, rtol=0.25)


def test_donors_with_few_cells_do_not_count_and_types_with_few_donors_take_the_mean():
    cells, labels, donors, _ = donor_cells(n_donors=3)
    few = np.flatnonzero((labels == "T") & (donors != "donor0"))[5:]  # 5 cells of donor1, none of donor2
    left = np.setdiff1d(np.arange(len(labels)), few)
    with pytest.warns(UserWarning, match=r"fewer than two donors of min_cells=10 cells.*'T' \(1\)"):
        _, report = make_reference(cells[left], labels[left], donors=donors[left], return_report=True)
    assert report.cell_types["n_donors"].tolist() == [3, 1]
    assert_allclose(report.variance.loc["T"], report.variance.loc["B"])
    with pytest.raises(ValueError, match="No cell type has two donors with min_cells=10"):
        make_reference(cells, labels, donors=np.full(len(labels), "one"), return_report=True)


def test_donors_are_one_per_cell():
    cells, labels, donors, _ = donor_cells(n_donors=2)
    with pytest.raises(ValueError, match="donors has 3 entries"):
        make_reference(cells, labels, donors=donors[:3])
    with pytest.raises(ValueError, match="donors='donor' names a column of obs"):
        make_reference(cells, labels, donors="donor")


def test_variance_of_few_genes_or_none_varying_is_finite():
    same = np.tile([[5.0, 7.0, 0.0]], (3, 1))
    assert_allclose(moderated_variance(same), 0)
    assert np.isfinite(moderated_variance(np.random.default_rng(0).normal(size=(2, 1)))).all()


def test_rna_content_is_the_mean_total_of_counts():
    rng = np.random.default_rng(0)
    cells = np.vstack([rng.poisson(2, (30, 50)), rng.poisson(6, (20, 50))])
    labels = np.repeat(["small", "large"], [30, 20])
    for given in (cells, sparse.csr_matrix(cells.astype(float))):
        report = make_reference(given, labels, normalize=1e4, return_report=True)[1]
        # sums of whole numbers
        assert_allclose(report.cell_types.rna_content["small"], cells[:30].sum(axis=1).mean(), rtol=1e-12)
        assert_allclose(report.cell_types.rna_content["large"], cells[30:].sum(axis=1).mean(), rtol=1e-12)
    # what is not counts does not tell
    report = make_reference(cells * 3.3, labels, return_report=True)[1]
    assert report.cell_types.rna_content.isna().all()
