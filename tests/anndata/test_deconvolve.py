"""AnnData in and out, by way of files."""

import anndata
import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy import sparse

from skenigma import EmpiricalBayesDeconvolver, L2MaxDeconvolver, ProportionEstimator, TraceNormDeconvolver
from skenigma._stored import Deconvolved
from skenigma.anndata import _write, cse_to_anndata, deconvolve
from skenigma.checks import memory
from skenigma.proportions import fit_quality
from skenigma.reference import make_pseudobulk, make_reference, select_markers
from skenigma.reference._cells import layer_names

TYPES = ["B cell", "CD4+/T cell", "monocyte"]
GENES = [f"gene{g}" for g in range(40)]
SIZES = [30, 60, 40]
N_SAMPLES = 15


def refused(*parts, error=ValueError):
    """Expect an error whose message holds all ``parts``, in this order."""
    return pytest.raises(error, match="(?s)" + ".*".join(parts))


@pytest.fixture
def cells():
    rng = np.random.default_rng(0)
    profiles = rng.gamma(0.7, 10, (len(TYPES), len(GENES))) + 0.5
    counts = rng.poisson(np.repeat(profiles, SIZES, axis=0)).astype(np.float32)
    obs = pd.DataFrame(
        {"cell_type": pd.Categorical(np.repeat(TYPES, SIZES))}, index=[f"cell{i}" for i in range(sum(SIZES))]
    )
    return anndata.AnnData(sparse.csr_matrix(counts), obs, pd.DataFrame(index=GENES))


@pytest.fixture
def cohort(cells):
    return make_pseudobulk(cells, "cell_type", N_SAMPLES, n_cells=200, random_state=0)


@pytest.fixture
def bulk(cohort):
    """Five genes of its own between those of the cells, which it has in another order."""
    frame = 300 * cohort.bulk[GENES[::-1]]
    for i in range(5):
        frame.insert(3 * i, f"own{i}", 100.0 + i)
    obs = pd.DataFrame({"age": np.arange(N_SAMPLES), "cell_type": "blood"}, index=frame.index)
    return anndata.AnnData(frame.to_numpy(), obs, pd.DataFrame({"length": 1000}, index=frame.columns))


def same(one, two):
    """Equality of what an AnnData holds, nested or not."""
    if isinstance(one, dict):
        assert set(one) == set(two)
        for name in one:
            same(one[name], two[name])
    elif isinstance(one, pd.DataFrame):
        pd.testing.assert_frame_equal(one, two, check_index_type=False, check_column_type=False)
    else:
        assert_array_equal(one, two)


class TestDeconvolve:
    def test_is_what_the_estimators_do(self, bulk, cells):
        adata, model = deconvolve(bulk, cells, return_model=True)
        shared = GENES[::-1]
        assert list(adata.var_names) == shared
        profiles = make_reference(cells, "cell_type", normalize=1e6)[shared]
        table = bulk.to_df()[shared]
        estimator = ProportionEstimator(method="log")  # what "auto" is here
        expected = EmpiricalBayesDeconvolver(profiles, platform="bulk", proportion_estimator=estimator)
        expected.fit(table.mul(1e6 / table.sum(axis=1), axis=0))
        # the same numbers, summed in another order
        assert_allclose(model.cse_, expected.cse_, rtol=1e-7)
        assert_allclose(adata.obsm["proportions"], expected.proportions_, rtol=1e-9)
        for k, name in enumerate(["B cell", "CD4+|T cell", "monocyte"]):
            assert_array_equal(adata.layers[f"cse_{name}"], model.cse_[:, k])
            assert_allclose(adata.layers[f"cse_std_{name}"], model.cse_std_[:, k], rtol=1e-12)
        assert list(adata.obsm["proportions"].index) == list(bulk.obs_names)
        assert list(adata.obsm["proportions"].columns) == ["B cell", "CD4+|T cell", "monocyte"]
        assert_allclose(adata.varm["reference"].T, model.reference_, rtol=1e-12)

    def test_standard_errors_of_proportions(self, bulk, cells):
        adata, model = deconvolve(bulk, cells, return_model=True)
        std = adata.obsm["proportions_std"]
        assert_array_equal(std, model.proportion_estimator_.proportions_std_)
        assert list(std.columns) == list(adata.obsm["proportions"].columns)
        assert list(std.index) == list(adata.obs_names)
        assert adata.uns["skenigma"]["shares_of"] == "RNA"
        again = deconvolve(adata, cells, model=ProportionEstimator(method="nnls"))
        assert "proportions_std" not in again.obsm
        known = deconvolve(bulk, cells, proportions=np.full((N_SAMPLES, 3), 1 / 3))
        assert "proportions_std" not in known.obsm
        assert known.uns["skenigma"]["shares_of"] == ""

    def test_both_sides_have_the_total(self, bulk, cells):
        # both lack genes of the other
        adata = deconvolve(bulk[:, bulk.var_names[:30]].copy(), cells, normalize=5e4)
        # float64, but for the profiles' rounding
        assert_allclose(adata.layers["normalized"].sum(axis=1), 5e4, rtol=1e-12)
        assert_allclose(adata.varm["reference"].sum(), 5e4, rtol=1e-12)

    def test_recovers_shares_of_rna(self, bulk, cells, cohort):
        adata = deconvolve(bulk, cells, model=ProportionEstimator(method="nnls"))
        rna = cohort.rna_proportions.to_numpy()
        assert np.abs(adata.obsm["proportions"].to_numpy() - rna).max() < 0.06

    def test_without_scaling(self, bulk, cells):
        bulk.X /= 300
        adata, model = deconvolve(bulk, cells, normalize=None, return_model=True)
        assert "normalized" not in adata.layers
        assert_allclose(model.reference_, make_reference(cells, "cell_type")[GENES[::-1]], rtol=1e-12)

    def test_input_is_left_as_it_was(self, bulk, cells):
        before = bulk.copy(), cells.copy()
        deconvolve(bulk, cells, n_markers=5)
        for now, then in zip((bulk, cells), before, strict=True):
            assert (now.X != then.X).sum() == 0
            assert layer_names(now) == layer_names(then)
            pd.testing.assert_frame_equal(now.var, then.var)
            assert not now.uns
            assert not now.obsm

    def test_in_place(self, bulk, cells):
        bulk = bulk[:, GENES].copy()
        assert deconvolve(bulk, cells, copy=False) is bulk
        expected = deconvolve(bulk, cells)
        same(dict(bulk.layers), dict(expected.layers))

    def test_in_place_loses_no_gene(self, bulk, cells):
        with refused(r"lacks 5 gene", "'own0', 'own1'", "copy=True"):
            deconvolve(bulk, cells, copy=False)
        assert not bulk.obsm

    def test_genes_not_in_use_are_named(self, bulk, cells):
        adata = deconvolve(bulk, cells)
        assert_array_equal(adata.uns["skenigma"]["unused_genes"], [f"own{i}" for i in range(5)])
        assert not any(np.isnan(layer).any() for layer in adata.layers.values())
        assert list(adata.obs.columns) == ["age", "cell_type"]

    def test_given_model_is_cloned(self, bulk, cells):
        model = TraceNormDeconvolver(beta=0.1, preprocess="log", epsilon=1e-2)
        adata = deconvolve(bulk, cells, model=model, key="trace")
        assert not hasattr(model, "cse_")
        assert model.reference is None
        assert adata.uns["trace"]["model"] == "TraceNormDeconvolver"
        assert adata.uns["trace"]["params"]["beta"] == 0.1

    def test_proportions_alone(self, bulk, cells):
        adata = deconvolve(bulk, cells, model=ProportionEstimator(method="nnls"))
        assert layer_names(adata) == ["normalized"]
        assert not len(adata.uns["skenigma"]["layers"])
        with refused("names no layers"):
            cse_to_anndata(adata)

    @pytest.mark.parametrize("stored", [True, False])
    def test_known_proportions(self, bulk, cells, cohort, stored):
        known = cohort.rna_proportions
        bulk.obsm["facs"] = known
        _, model = deconvolve(bulk, cells, proportions="facs" if stored else known, return_model=True)
        assert_array_equal(model.proportions_, known)

    def test_normalized_expression_is_written_where_the_model_returns_it(self, bulk, cells):
        adata, model = deconvolve(
            bulk, cells, model=L2MaxDeconvolver(normalize="frac", renorm_size=None), return_model=True
        )
        assert_array_equal(adata.layers["cse_B cell"], model.cse_normalized_[:, 0])

    @pytest.mark.parametrize(
        "model",
        [
            None,
            ProportionEstimator(method="nnls"),
            L2MaxDeconvolver(renorm_size=None, proportion_estimator=ProportionEstimator()),
        ],
    )
    def test_markers_are_for_the_proportions(self, bulk, cells, model):
        bulk = bulk[:, GENES[5:]].copy()
        adata, fitted = deconvolve(bulk, cells, model=model, n_markers=3, return_model=True)
        markers = select_markers(cells, "cell_type", 3, among=GENES[5:], normalize=1e6)
        estimator = getattr(fitted, "proportion_estimator_", fitted)
        assert set(estimator.gene_names_) == set(markers.gene)
        marked = adata.var["marker_of"]
        assert dict(marked[marked != ""]) == dict(markers.set_index("gene").cell_type)
        if fitted is not estimator:
            assert len(fitted.gene_names_) == 35
        # varm holds the profiles, and files no tables among parameters
        assert not [name for name in adata.uns["skenigma"]["params"] if name.endswith("reference")]

    def test_markers_are_those_of_cells_of_one_total_and_of_types_with_enough(self, bulk, cells):
        deep = sparse.diags(np.repeat([1.0, 30.0, 1.0], SIZES))
        cells.X = (deep @ cells.X).tocsr()
        with pytest.warns(UserWarning, match="left out: 'B cell'"):
            adata = deconvolve(bulk, cells, model=ProportionEstimator(), n_markers=3, min_cells=35)
        marked = adata.var["marker_of"]
        kept = cells[SIZES[0] :]
        expected, others = (
            dict(select_markers(kept, "cell_type", 3, normalize=total).set_index("gene").cell_type)
            for total in (1e6, None)
        )
        assert dict(marked[marked != ""]) == expected != others

    def test_profiles_instead_of_cells(self, bulk, cells):
        profiles = make_reference(cells, "cell_type", normalize=1e6)
        # by default the platform of the bulk is asked for where there are cells, and that of profiles where not
        model = EmpiricalBayesDeconvolver()
        one, two = deconvolve(bulk, cells, model=model), deconvolve(bulk, profiles)
        same(dict(one.layers), dict(two.layers))
        with refused("n_markers needs annotated cells"):
            deconvolve(bulk, profiles, n_markers=3)

    def test_layers_are_chosen(self, bulk, cells):
        expected = deconvolve(bulk, cells)
        bulk.layers["counts"] = sparse.csr_matrix(bulk.X)
        bulk.X = np.log1p(bulk.X)
        cells.raw = cells
        cells = cells[:, :10].copy()
        adata = deconvolve(bulk, cells, layer="counts", reference_layer="raw")
        for name in layer_names(expected):
            assert_allclose(adata.layers[name], expected.layers[name], rtol=1e-12)
        assert adata.uns["skenigma"]["reference_layer"] == "raw"

    def test_rare_types_are_recorded(self, bulk, cells):
        with pytest.warns(UserWarning, match=r"left out: 'B cell' \(30\)"):
            adata = deconvolve(bulk, cells, min_cells=35)
        assert_array_equal(adata.uns["skenigma"]["dropped_cell_types"], ["B cell"])


class TestFile:
    @pytest.mark.parametrize("part", [slice(None), slice(0, 5)])
    def test_open_as_a_file(self, bulk, cells, tmp_path, part):
        bulk.write_h5ad(tmp_path / "bulk.h5ad")
        opened = anndata.read_h5ad(tmp_path / "bulk.h5ad", backed="r")
        found = deconvolve(opened[part], cells)
        expected = deconvolve(bulk[part].copy(), cells)
        assert_allclose(found.layers["normalized"], expected.layers["normalized"])
        assert_allclose(found.obsm["proportions"], expected.obsm["proportions"])
        opened.file.close()

    @pytest.mark.parametrize(
        "model",
        [
            None,
            L2MaxDeconvolver(solver="admm", proportion_estimator=ProportionEstimator(method="nusvr")),
            TraceNormDeconvolver(beta="auto", preprocess="sqrt"),
            ProportionEstimator(),
        ],
        ids=lambda model: type(model).__name__,
    )
    def test_round_trip(self, tmp_path, bulk, cells, model):
        adata = deconvolve(bulk, cells, model=model, n_markers=10)
        adata.write_h5ad(tmp_path / "result.h5ad")
        read = anndata.read_h5ad(tmp_path / "result.h5ad")
        for part in ("layers", "obsm", "varm", "uns"):
            same(dict(getattr(adata, part)), dict(getattr(read, part)))
        pd.testing.assert_frame_equal(read.var, adata.var, check_index_type=False, check_dtype=False)

    def test_histories_and_parameters_are_kept(self, tmp_path, bulk, cells):
        published = L2MaxDeconvolver(preprocess="sqrt", renorm_size="auto")
        adata, model = deconvolve(bulk, cells, model=published, return_model=True)
        adata.write_h5ad(tmp_path / "result.h5ad")
        stored = anndata.read_h5ad(tmp_path / "result.h5ad").uns["skenigma"]
        for name in ("loss_history", "gradient_norm", "delta_history"):
            assert_array_equal(stored[name], getattr(model, f"{name}_"))
        assert stored["n_iter"] == model.n_iter_
        assert stored["converged"]
        assert stored["renorm_size"] == model.renorm_size_
        assert stored["params"]["renorm_size"] == "auto"
        assert stored["params"]["normalize"] == "None"
        assert "reference" not in stored["params"]
        assert list(stored["cell_types"]) == TYPES

    def test_what_the_default_model_found_is_kept(self, tmp_path, bulk, cells):
        adata, model = deconvolve(bulk, cells, return_model=True)
        adata.write_h5ad(tmp_path / "result.h5ad")
        stored = anndata.read_h5ad(tmp_path / "result.h5ad").uns["skenigma"]
        assert stored["model"] == "EmpiricalBayesDeconvolver"
        assert stored["params"]["platform"] == "bulk"
        assert stored["mismatch"] == model.mismatch_
        assert stored["hidden_share"] == model.hidden_share_

    def test_rows_for_every_sample_and_type(self, tmp_path, bulk, cells):
        rows = cse_to_anndata(deconvolve(bulk, cells))
        rows.write_h5ad(tmp_path / "rows.h5ad")
        read = anndata.read_h5ad(tmp_path / "rows.h5ad")
        assert_array_equal(read.X, rows.X)
        pd.testing.assert_frame_equal(read.obs, rows.obs, check_index_type=False, check_dtype=False)


class TestRows:
    def test_of_an_anndata(self, bulk, cells):
        adata, model = deconvolve(bulk, cells, return_model=True)
        rows = cse_to_anndata(adata)
        assert rows.shape == (N_SAMPLES * 3, 40)
        for j, sample in enumerate(adata.obs_names):
            for k, cell_type in enumerate(TYPES):
                name = f"{sample}:{cell_type}"
                assert_array_equal(rows[name].X[0], model.cse_[j, k])
                assert rows.obs.loc[name, "proportion"] == model.proportions_[j, k]
                assert rows.obs.loc[name, ["sample", "cell_type"]].tolist() == [sample, cell_type]
                assert rows.obs.loc[name, "age"] == j
        assert list(rows.obs["cell_type"].cat.categories) == TYPES
        assert set(rows.obs["cell_type_of_bulk"]) == {"blood"}
        assert list(rows.var_names) == list(adata.var_names)

    def test_of_a_model(self, bulk, cells):
        adata, model = deconvolve(bulk, cells, return_model=True)
        rows = cse_to_anndata(model, sample_names=adata.obs_names)
        assert_array_equal(rows.X, cse_to_anndata(adata).X)
        assert list(rows.obs_names) == list(cse_to_anndata(adata).obs_names)
        assert cse_to_anndata(model).obs_names[3] == "sample2:B cell"

    def test_of_proportions(self, bulk, cells):
        _, model = deconvolve(bulk, cells, model=ProportionEstimator(), return_model=True)
        with refused("ProportionEstimator does not estimate"):
            cse_to_anndata(model)

    def test_of_anything_else(self, bulk):
        with refused("uns\\['skenigma'\\] names no layers", "deconvolve first"):
            cse_to_anndata(bulk)

    def test_after_samples_were_chosen(self, bulk, cells):
        adata = deconvolve(bulk, cells)
        rows = cse_to_anndata(adata[[4, 2]])
        assert_array_equal(rows.X, cse_to_anndata(adata)[rows.obs_names].X)


@pytest.fixture(scope="module")
def sets():
    """Ten cells per type, and a bulk with a column of groups and its colours."""
    rng = np.random.default_rng(0)
    profiles = rng.gamma(0.7, 20, (3, 30)) + 1
    kinds = pd.Categorical(np.repeat(TYPES, 10))
    cells = anndata.AnnData(rng.poisson(np.repeat(profiles, 10, axis=0)).astype(float), {"kind": kinds})
    cells.uns["kind_colors"] = ["#1f77b4", "#ff7f0e", "#2ca02c"]
    counts = rng.poisson(500 * rng.dirichlet([3, 3, 3], 12) @ profiles).astype(float)
    bulk = anndata.AnnData(counts, {"disease": pd.Categorical(["ill", "well"] * 6), "sample": "blood"})
    bulk.obs["sample"] = bulk.obs["sample"].astype("category")
    bulk.uns.update(disease_colors=["red", "blue"], sample_colors=["black"])
    return deconvolve(bulk, cells, "kind", return_model=True, verbose=False)


class TestAgain:
    """A second fit of the same AnnData leaves nothing of the first that could pass for its own."""

    @pytest.fixture
    def cells(self, sets):
        return anndata.AnnData(
            sets[1].reference.to_numpy().repeat(10, axis=0), {"kind": np.repeat(TYPES, 10)}
        )

    def test_layers_that_the_second_model_lacks_are_gone(self, sets, cells):
        adata = deconvolve(sets[0], cells[10:].copy(), "kind", model="l2max", verbose=False)
        assert sorted(adata.layers) == ["cse_CD4+|T cell", "cse_monocyte", "normalized"]
        assert "reliability" in sets[0].varm
        assert "reliability" not in adata.varm

    def test_the_layer_that_is_read_is_left(self, sets, cells):
        """Be it what an earlier fit wrote, or the user's own under that name."""
        scaled = sets[0].layers["normalized"]
        adata = deconvolve(sets[0], cells, "kind", layer="normalized", normalize=None, verbose=False)
        assert_array_equal(Deconvolved.of(adata, "skenigma").bulk, scaled)
        again = deconvolve(adata, cells, "kind", normalize=None, verbose=False)
        assert_array_equal(again.layers["normalized"], scaled)

    def test_proportions_that_it_wrote_are_known_by_their_names(self, sets, cells):
        adata = sets[0].copy()
        adata.obsm["known"] = adata.obsm["proportions"].iloc[:, ::-1]
        _, model = deconvolve(
            adata, cells, "kind", proportions="known", normalize=None, return_model=True, verbose=False
        )
        assert_array_equal(model.proportions_, adata.obsm["proportions"])

    def test_unscaled_after_scaled(self, sets, cells):
        adata = deconvolve(sets[0], cells, "kind", normalize=None, verbose=False)
        assert "normalized" not in adata.layers
        assert_array_equal(Deconvolved.of(adata, "skenigma").bulk, adata.X)

    def test_a_layer_of_that_name_is_the_users(self, sets, cells):
        bulk = anndata.AnnData(sets[0].X.copy())
        bulk.layers["normalized"] = np.log1p(bulk.X)
        for _ in range(2):
            bulk = deconvolve(bulk, cells, "kind", normalize=None, verbose=False)
            assert_array_equal(Deconvolved.of(bulk, "skenigma").bulk, bulk.X)
            assert_array_equal(bulk.layers["normalized"], np.log1p(bulk.X))

    def test_another_key_is_refused_before_anything_is_changed(self, sets, cells):
        adata = sets[0].copy()
        with refused(r"holds a result under uns\['skenigma'\]", "overwrite", "key='skenigma'"):
            deconvolve(adata, cells, "kind", key="b", copy=False, verbose=False)
        assert "b" not in adata.uns
        assert_array_equal(adata.layers["cse_monocyte"], sets[0].layers["cse_monocyte"])

    def test_other_entries_of_uns_are_no_results(self, sets, cells):
        bulk = anndata.AnnData(sets[0].X.copy(), uns={"pca": {"params": {}}, "layers": ["a"], "n": 1})
        deconvolve(bulk, cells, "kind", model="l2max", key="b", copy=False, verbose=False)
        assert "cse_monocyte" in bulk.layers

    def test_files_that_do_not_say_which_layer(self, sets):
        adata = sets[0].copy()
        del adata.uns["skenigma"]["bulk_layer"]
        assert_array_equal(Deconvolved.of(adata, "skenigma").bulk, adata.layers["normalized"])

    def test_no_bulk(self, sets):
        adata = sets[0].copy()
        del adata.uns["skenigma"]["bulk_layer"], adata.layers["normalized"]
        adata.X = None
        with refused("holds no bulk", "into X"):
            Deconvolved.of(adata, "skenigma").bulk  # noqa: B018


class TestForOtherTools:
    """Which scale values are on is written where scanpy and others look for it."""

    def test_logarithms_stand_beside_the_values(self, sets):
        rows = cse_to_anndata(sets[0], log1p=True)
        values = sets[1].cse_.reshape(-1, 30)
        assert_array_equal(rows.layers["linear"], values)
        assert_array_equal(rows.X, np.log1p(values))
        assert rows.uns["skenigma"]["X"] == "log1p"

    def test_linear_unless_asked(self, sets):
        adata, model = sets
        for rows in (cse_to_anndata(adata), cse_to_anndata(model)):
            assert "log1p" not in rows.uns
            assert rows.uns["skenigma"]["X"] == "linear"
            assert rows.uns["skenigma"]["counts"] is False
            assert rows.uns["skenigma"]["is_posterior_mean"] is True
            assert rows.uns["skenigma"]["model"] == "EmpiricalBayesDeconvolver"
            assert_array_equal(rows.X, model.cse_.reshape(-1, 30))
        assert (
            cse_to_anndata(adata)
            .uns["skenigma"]["scale"]
            .startswith("bulk and reference to a total of 1,000,000")
        )

    @pytest.mark.slow  # loading scanpy takes seconds
    @pytest.mark.parametrize("saved", [False, True])
    def test_logarithms_are_those_of_scanpy(self, sets, tmp_path, saved):
        scanpy = pytest.importorskip("scanpy")
        expected = cse_to_anndata(sets[0])
        scanpy.pp.log1p(expected)
        rows = cse_to_anndata(sets[0], log1p=True)
        if saved:
            rows.write_h5ad(tmp_path / "rows.h5ad")
            rows = anndata.read_h5ad(tmp_path / "rows.h5ad")
        assert_array_equal(rows.X, expected.X)
        assert rows.uns["log1p"].get("base") is expected.uns["log1p"]["base"] is None
        assert_array_equal(rows.layers["linear"], cse_to_anndata(sets[0]).X)
        assert rows.uns["skenigma"]["X"] == "log1p"

    @pytest.mark.slow
    def test_scanpy_ranks_genes_and_knows_their_fold_changes(self, sets):
        scanpy = pytest.importorskip("scanpy")
        rows = cse_to_anndata(sets[0], log1p=True)
        scanpy.tl.rank_genes_groups(rows, "cell_type", method="t-test")
        found = scanpy.get.rank_genes_groups_df(rows, group=TYPES[2]).set_index("names")
        members = (rows.obs["cell_type"] == TYPES[2]).to_numpy()
        means = [np.expm1(rows.X[part].mean(axis=0)) for part in (members, ~members)]
        expected = pd.Series(np.log2((means[0] + 1e-9) / (means[1] + 1e-9)), rows.var_names)
        # scanpy keeps them in single precision
        assert_allclose(found["logfoldchanges"], expected[found.index], rtol=1e-5)

    def test_negative_values_have_no_logarithm(self, sets):
        adata = sets[0].copy()
        adata.layers["cse_monocyte"][0, 0] = -1
        with refused(
            "The expression contains negative values", "sample 0:monocyte|'0:monocyte'", "log1p=False"
        ):
            cse_to_anndata(adata, log1p=True)

    def test_colours_come_along(self, sets):
        rows = cse_to_anndata(sets[0])
        assert rows.uns["cell_type_colors"] == ["#1f77b4", "#ff7f0e", "#2ca02c"]
        assert rows.uns["disease_colors"] == ["red", "blue"]
        assert rows.uns["sample_of_bulk_colors"] == ["black"]
        assert "sample_colors" not in rows.uns

    def test_as_pseudobulk_for_counts(self, sets):
        """The guide's way to what takes counts alone: whole numbers that add up to the counts of the bulk."""
        adata = sets[0]
        rows = cse_to_anndata(adata)
        totals = adata.X.sum(axis=1)[rows.obs["sample"].cat.codes]
        counts = np.rint(rows.X * (rows.obs["proportion"] * totals / 1e6).to_numpy()[:, None]).astype(int)
        by_sample = counts.reshape(adata.n_obs, 3, -1).sum(axis=(1, 2))
        # the expression makes up the bulk but for what the model leaves out
        assert_allclose(by_sample / adata.X.sum(axis=1), 1, atol=0.1)
        pydeseq2 = pytest.importorskip("pydeseq2.dds")
        one = rows[rows.obs["cell_type"] == TYPES[2]].copy()
        one.X = counts[(rows.obs["cell_type"] == TYPES[2]).to_numpy()]
        fitted = pydeseq2.DeseqDataSet(adata=one, design="~disease", quiet=True)
        fitted.deseq2()
        assert np.isfinite(fitted.varm["LFC"].to_numpy()).all()

    def test_decoupler_scores_rows(self, sets):
        decoupler = pytest.importorskip("decoupler")
        rows = cse_to_anndata(sets[0], log1p=True)
        net = pd.DataFrame({"source": "up", "target": rows.var_names[:10], "weight": 1.0})
        decoupler.mt.ulm(rows, net, tmin=5)
        assert rows.obsm["score_ulm"].shape == (len(rows), 1)


class TestBadInput:
    def test_transposed_bulk(self, bulk, cells):
        with refused("share 0 gene", "X looks transposed"):
            deconvolve(bulk.T.copy(), cells)

    def test_transposed_cells(self, bulk, cells):
        with refused("obs has no column 'cell_type'", "It has none", "looks transposed"):
            deconvolve(bulk, cells.T.copy())

    def test_rows_of_samples_with_one_name(self, bulk, cells):
        model = deconvolve(bulk, cells, return_model=True)[1]
        with refused("Samples named more than once", "'a'", "sample_names that differ"):
            cse_to_anndata(model, sample_names=["a"] * bulk.n_obs)

    def test_sample_with_zero_total(self, bulk, cells):
        bulk.X[3] = 0
        bulk.X[3, 0] = 10  # a gene that the reference lacks
        with refused("Bulk samples with a total of zero", "40 genes in use", "'sample4'", "Drop"):
            deconvolve(bulk, cells)

    def test_repeated_samples(self, bulk, cells):
        bulk.obs_names = ["sample1", *bulk.obs_names[:-1]]
        with refused("Bulk samples named more than once: 'sample1'", "obs_names_make_unique"):
            deconvolve(bulk, cells)

    def test_repeated_genes(self, bulk, cells):
        bulk.var_names = ["gene0"] * 2 + list(bulk.var_names[2:])
        with refused("Genes of the bulk named more than once: 'gene0'"):
            deconvolve(bulk, cells)

    def test_other_identifiers(self, bulk, cells):
        bulk.var_names = [f"ENSG{i:011d}" for i in range(45)]
        with refused("share 0 gene", "'ENSG00000000000'", "X seems to have Ensembl gene identifiers"):
            deconvolve(bulk, cells)

    def test_scaled_bulk(self, bulk, cells):
        bulk.layers["counts"] = bulk.X.copy()
        bulk.X -= 200
        with refused("bulk contains negative values", "before scaling", "'counts'"):
            deconvolve(bulk, cells)

    def test_bulk_of_logarithms(self, bulk, cells):
        bulk.X = np.log1p(bulk.X)
        with pytest.warns(UserWarning, match="largest value of bulk is .*logarithm"):
            deconvolve(bulk, cells)
        bulk.uns["log1p"] = {}
        with refused(r"uns\['log1p'\]", "X of bulk"):
            deconvolve(bulk, cells)

    def test_not_finite(self, bulk, cells):
        bulk.X[3, 2] = np.nan
        with refused("bulk contains NaN", "row 'sample4', column 'gene38'"):
            deconvolve(bulk, cells)

    def test_raw_of_the_bulk(self, bulk, cells):
        bulk.raw = bulk
        with refused(r"raw\.to_adata"):
            deconvolve(bulk, cells, layer="raw")

    def test_tables(self, bulk, cells):
        with refused("bulk_adata must be an AnnData", "DataFrame"):
            deconvolve(bulk.to_df(), cells)
        with refused("reference_adata must be an AnnData or a DataFrame", "ndarray"):
            deconvolve(bulk, np.ones((3, 4)))
        with refused("columns of the reference must be named"):
            deconvolve(bulk, pd.DataFrame(np.ones((3, 45))))

    @pytest.mark.parametrize("model", [L2MaxDeconvolver(np.ones((3, 40))), object()])
    def test_model_with_a_reference(self, bulk, cells, model):
        with refused("whose reference is None"):
            deconvolve(bulk, cells, model=model)

    def test_known_proportions_for_an_estimator_of_them(self, bulk, cells, cohort):
        with refused("a ProportionEstimator has nothing"):
            deconvolve(bulk, cells, model=ProportionEstimator(), proportions=cohort.proportions)

    def test_no_such_proportions(self, bulk, cells):
        bulk.obsm["facs"] = np.ones((N_SAMPLES, 3))
        with refused("obsm has no entry 'FACS'", "'facs'"):
            deconvolve(bulk, cells, proportions="FACS")

    def test_types_that_a_file_cannot_tell_apart(self, bulk, cells):
        cells.obs["cell_type"] = np.repeat(["a/b", "a|b", "c"], SIZES)
        bulk = bulk[:, GENES].copy()
        with refused("Cell types", r"'a\|b'", "Rename"):
            deconvolve(bulk, cells, copy=False)
        assert not layer_names(bulk)

    def test_total_out_of_range(self, bulk, cells):
        with refused("normalize == 0"):
            deconvolve(bulk, cells, normalize=0)


class TestQualityAndCompactModels:
    def test_quality_of_every_sample_is_written(self, bulk, cells):
        adata, model = deconvolve(bulk, cells, return_model=True)
        quality = adata.obsm["proportion_quality"]
        assert list(quality.index) == list(adata.obs_names)
        frame = pd.DataFrame(adata.layers["normalized"], adata.obs_names, adata.var_names)
        reference = adata.varm["reference"].T
        pd.testing.assert_frame_equal(quality, fit_quality(frame, reference, model.proportions_))

    @pytest.mark.parametrize("normalize", [None, "frac"])
    def test_a_model_without_the_tensor_writes_the_same(self, bulk, cells, normalize):
        model = L2MaxDeconvolver(normalize=normalize, renorm_size=None)
        whole = deconvolve(bulk, cells, model=model)
        compact, fitted = deconvolve(
            bulk, cells, model=model.set_params(materialize=False), return_model=True
        )
        assert not hasattr(fitted, "cse_")
        for name in whole.uns["skenigma"]["layers"]:
            # the same products in other blocks
            assert_allclose(compact.layers[name], whole.layers[name], rtol=1e-9, atol=1e-9)
        assert_allclose(cse_to_anndata(fitted).X, cse_to_anndata(whole).X, rtol=1e-9, atol=1e-9)
        assert list(cse_to_anndata(fitted).obs["sample"].cat.categories) == list(bulk.obs_names)

    @pytest.mark.parametrize("dtype", [np.float64, np.float32])
    @pytest.mark.parametrize("model", ["bayes", L2MaxDeconvolver(normalize="frac", renorm_size=None)])
    def test_blocks_of_samples_are_the_tensor(self, bulk, cells, monkeypatch, model, dtype):
        """Without ``return_model`` no tensor is built; values and records are those of a fit with one."""
        bulk.X = bulk.X.astype(dtype)
        whole, fitted = deconvolve(bulk, cells, model=model, return_model=True)
        # the last block has three of the fifteen samples
        monkeypatch.setattr(_write, "BLOCK_SIZE", 4 * len(TYPES) * len(GENES))
        compact = deconvolve(bulk, cells, model=model)
        # the same products in other blocks
        rtol = 1e-9 if dtype is np.float64 else 1e-4
        tensor = fitted.cse_normalized_ if fitted.normalize else fitted.cse_
        for k, name in enumerate(compact.uns["skenigma"]["layers"]):
            assert compact.layers[name].dtype == tensor.dtype
            assert_allclose(compact.layers[name], tensor[:, k], rtol=rtol, atol=rtol)
        for k, name in enumerate(compact.uns["skenigma"]["std_layers"]):
            assert_allclose(compact.layers[name], fitted.cse_std_[:, k], rtol=rtol, atol=rtol)
        assert list(compact.layers) == list(whole.layers)
        assert compact.uns["skenigma"]["params"] == whole.uns["skenigma"]["params"]
        assert compact.uns["skenigma"]["params"]["materialize"] is True

    def test_layers_are_arrays_of_their_own(self, bulk, cells):
        adata, model = deconvolve(bulk, cells, return_model=True)
        before = model.cse_.copy()
        for name in adata.layers:
            adata.layers[name][:] = -1
        assert_array_equal(model.cse_, before)
        assert (model.cse_std_ >= 0).all()  # built from a bulk that is the model's own
        layers = [adata.layers[name] for name in adata.uns["skenigma"]["layers"]]
        assert all(layer.flags.c_contiguous and layer.base is None for layer in layers)

    def test_layers_that_memory_cannot_hold(self, bulk, cells, monkeypatch):
        monkeypatch.setattr(memory, "SMALL", 0)
        n_bytes = N_SAMPLES * len(TYPES) * len(GENES) * 8
        monkeypatch.setattr(memory, "available_memory", lambda: n_bytes - 1)
        with refused("Layers of the expression of 15 samples, 3 cell types and 40 genes", error=MemoryError):
            deconvolve(bulk, cells, model=UnfittedModel())
        # values alone would fit
        monkeypatch.setattr(memory, "available_memory", lambda: 2 * n_bytes - 1)
        with refused("Layers of the expression", error=MemoryError):
            deconvolve(bulk, cells)


class UnfittedModel(L2MaxDeconvolver):
    """A model that must not be fitted."""

    def fit(self, X, y=None, *, proportions=None):
        raise AssertionError("fitted before memory was looked at")
