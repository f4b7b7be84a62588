"""What AnnData decides by the data: the model, and what counts are brought to."""

import anndata
import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from skenigma import FactorDeconvolver, L2MaxDeconvolver, TraceNormDeconvolver
from skenigma._library_size import choose_total, divide_by_length, scale_to_total
from skenigma.anndata import deconvolve
from skenigma.anndata._deconvolve import _choose
from skenigma.deconvolution._choice import CHOSEN, MODELS, choose_model

GENES = [f"gene{g}" for g in range(60)]
TYPES = ["B", "T", "NK"]


@pytest.fixture(scope="module")
def profiles():
    """On a total of a million, as of counts per million."""
    found = np.random.default_rng(0).gamma(0.7, 1, (3, 60))
    return pd.DataFrame(found / found.sum(axis=1, keepdims=True) * 1e6, TYPES, GENES)


@pytest.fixture(scope="module")
def per_million(profiles):
    rng = np.random.default_rng(1)
    mixed = rng.dirichlet([3, 2, 1], 12) @ profiles.to_numpy() * rng.lognormal(0, 0.3, (12, 60))
    return anndata.AnnData(
        mixed / mixed.sum(axis=1, keepdims=True) * 1e6,
        pd.DataFrame(index=[f"sample{j}" for j in range(12)]),
        pd.DataFrame({"length": np.linspace(500, 5000, 60)}, index=GENES),
    )


@pytest.fixture(scope="module")
def counts(per_million):
    depth = np.geomspace(0.02, 0.1, 12)[:, None]
    return anndata.AnnData(
        np.random.default_rng(2).poisson(per_million.X * depth), per_million.obs, per_million.var
    )


def total_of(bulk, reference, asked="auto"):
    return choose_total(bulk.to_df(), reference, asked).total


class TestTotal:
    def test_counts_come_to_a_million(self, counts, profiles, capsys):
        adata = deconvolve(counts, profiles)
        assert_allclose(adata.layers["normalized"].sum(axis=1), 1e6, rtol=1e-12)
        assert_allclose(adata.varm["reference"].sum(), 1e6, rtol=1e-12)
        said = capsys.readouterr().out.splitlines()
        reason = "the bulk holds whole numbers, counts"
        scale = f"bulk and reference to a total of 1,000,000 over the shared genes: {reason}"
        assert said[0] == f"scale: {scale}"
        assert adata.uns["skenigma"]["scale"] == scale
        assert adata.uns["skenigma"]["normalize"] == "1000000.0"

    def test_one_scale_stays(self, per_million, profiles, capsys):
        adata, model = deconvolve(per_million, profiles, return_model=True)
        assert "normalized" not in adata.layers
        assert_array_equal(model.reference_, profiles)
        assert "as they are" in capsys.readouterr().out
        assert adata.uns["skenigma"]["normalize"] == "None"

    def test_silent(self, per_million, profiles, capsys):
        deconvolve(per_million, profiles, verbose=False)
        assert capsys.readouterr().out == ""

    @pytest.mark.parametrize(
        ("factor", "scaled"), [(2.9, False), (3.1, True), (1 / 2.9, False), (1 / 3.1, True)]
    )
    def test_totals_apart_are_of_other_units(self, per_million, profiles, factor, scaled):
        # both sums are a million but for rounding, so the limit is 3
        assert (total_of(per_million, profiles * factor) == 1e6) is scaled
        deep = per_million.copy()
        deep.X = deep.X * np.where(np.arange(12) == 4, max(factor, 1 / factor), 1)[:, None]
        assert (total_of(deep, profiles) == 1e6) is scaled

    def test_whole_numbers_on_either_side_are_counts(self, per_million, profiles):
        assert total_of(per_million, profiles) is None
        assert total_of(per_million, np.rint(profiles)) == 1e6

    def test_as_asked(self, counts, profiles):
        assert total_of(counts, profiles, None) is None
        assert total_of(counts, profiles, 5e4) == 5e4

    def test_centred_values_have_no_total(self, counts, profiles):
        assert total_of(counts, profiles - profiles.mean()) is None

    def test_sample_without_expression(self):
        frame = pd.DataFrame([[1.0, 2.0], [0.0, 0.0]], ["one", "two"], ["a", "b"])
        with pytest.raises(
            ValueError, match="Bulk samples with a total of zero over the 2 genes in use: 'two'"
        ):
            scale_to_total(frame, 1e6, "Bulk samples")


class TestLengths:
    @pytest.mark.parametrize("given", ["column", "series"])
    def test_tpm(self, counts, profiles, given):
        lengths = counts.var["length"]
        adata = deconvolve(counts, profiles, gene_lengths="length" if given == "column" else lengths[::-1])
        rates = counts.X / lengths.to_numpy()
        # the definition of TPM
        assert_allclose(
            adata.layers["normalized"], rates / rates.sum(axis=1, keepdims=True) * 1e6, rtol=1e-12
        )
        assert "TPM, by the lengths of genes" in adata.uns["skenigma"]["scale"]

    def test_without_a_total_they_are_divided_all_the_same(self, counts, profiles):
        lengths = pd.Series(np.linspace(500, 5000, counts.n_vars), counts.var_names)
        adata = deconvolve(counts, profiles, gene_lengths=lengths, normalize=None, verbose=False)
        genes = lengths[adata.var_names].to_numpy()
        shares = adata.layers["normalized"] * genes / np.maximum(adata.X, 1)
        assert_allclose(shares[adata.X > 0], shares.max(), rtol=1e-12)
        assert adata.uns["skenigma"]["bulk_layer"] == "normalized"

    def test_unit_does_not_matter(self, counts, profiles):
        metres = counts.var["length"] / 1000
        one = deconvolve(counts, profiles, gene_lengths="length")
        two = deconvolve(counts, profiles, gene_lengths=metres)
        assert_allclose(two.layers["cse_B"], one.layers["cse_B"], rtol=1e-9)

    def test_genes_without_one_are_left_out(self, counts, profiles):
        lengths = counts.var["length"].drop(GENES[3])
        with pytest.warns(UserWarning, match="1 gene.* without a length are left out: 'gene3'"):
            adata = deconvolve(counts, profiles, gene_lengths=lengths)
        assert list(adata.uns["skenigma"]["unused_genes"]) == ["gene3"]

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            (
                lambda lengths: lengths.rename("x{}".format),
                "60 of 60 genes of the bulk have no length: 'gene0'",
            ),
            (
                lambda lengths: lengths.where(lengths.index != "gene5", 0),
                "must be positive and finite; those of 'gene5'",
            ),
            (lambda lengths: pd.concat([lengths, lengths[:1]]), "more than once: 'gene0'"),
        ],
    )
    def test_refused(self, counts, change, message):
        with pytest.raises(ValueError, match=message):
            divide_by_length(counts.to_df(), change(counts.var["length"]))

    def test_no_such_column(self, counts, profiles):
        with pytest.raises(ValueError, match=r"var has no column 'bp'\. It has 'length'"):
            deconvolve(counts, profiles, gene_lengths="bp")


class TestModel:
    def test_linear_values(self, per_million, profiles, capsys):
        adata = deconvolve(per_million, profiles)
        assert adata.uns["skenigma"]["model"] == "EmpiricalBayesDeconvolver"
        choice = "EmpiricalBayesDeconvolver, because values are linear and not negative"
        assert adata.uns["skenigma"]["model_choice"] == choice
        assert capsys.readouterr().out.splitlines()[1] == f"model: {choice}"

    def test_centred_values(self, per_million, profiles):
        centre = np.log2(profiles + 1).mean()
        centred = anndata.AnnData(np.log2(per_million.to_df() + 1) - centre)
        adata, model = deconvolve(centred, np.log2(profiles + 1) - centre, return_model=True)
        assert type(model) is FactorDeconvolver
        assert "normalized" not in adata.layers
        assert "negative" in adata.uns["skenigma"]["model_choice"]

    def test_one_centred_and_the_other_not(self, per_million, profiles):
        centred = anndata.AnnData(per_million.to_df() - 1e4)
        with pytest.raises(ValueError, match="bulk contains negative values"):
            deconvolve(centred, profiles)
        with pytest.raises(ValueError, match="The reference has negative values, and the bulk has none"):
            deconvolve(per_million, profiles - 1e4)

    @pytest.mark.parametrize(
        ("name", "published"),
        [("l2max", L2MaxDeconvolver(renorm_size=200.0)), ("tracenorm", TraceNormDeconvolver(beta=1.0))],
    )
    def test_published_models_by_name(self, per_million, profiles, name, published):
        model, choice = _choose(name, per_million.to_df(), profiles, from_cells=True)
        assert type(model) is type(published)
        assert model.get_params() == published.get_params()
        assert choice == f"{type(published).__name__}, as named"

    def test_no_such_model(self, per_million, profiles):
        with pytest.raises(ValueError, match=r"no model 'l2'.*'auto' or one of 'l2max'"):
            deconvolve(per_million, profiles, model="l2")

    def test_stray_negatives_switch_nothing(self, per_million, profiles):
        values = per_million.X.copy()
        values[0, 3], values[2, 5] = -1.0, -7.5
        with pytest.raises(ValueError, match=r"2 of 720 values of the bulk are negative, the smallest -7\.5"):
            choose_model(values, profiles.to_numpy())

    def test_logarithms_are_not_taken_twice(self, per_million, profiles):
        small = np.log2(per_million.X + 1), np.log2(profiles.to_numpy() + 1)
        assert choose_model(*small).name == "factor"
        assert set(CHOSEN) < set(MODELS)
