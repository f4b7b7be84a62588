"""Every display, out of an AnnData that a deconvolution was written to, and the colours that scanpy keeps there."""

import anndata
import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose, assert_array_equal

import skenigma.plotting
from skenigma import FactorDeconvolver, L2MaxDeconvolver, ProportionEstimator
from skenigma.anndata import cse_to_anndata, deconvolve
from skenigma.plotting import (
    DifferentialExpressionDisplay,
    GeneExpressionDisplay,
    GradientNormDisplay,
    LossCurveDisplay,
    ProportionDisplay,
    RecoveryDisplay,
)

plt = pytest.importorskip("matplotlib.pyplot")

from matplotlib.colors import to_rgba  # noqa: E402

TYPES = ["monocyte", "CD4+/T cell", "B cell"]
COLOURS = {"B cell": "#1f77b4", "CD4+/T cell": "#ff7f0e", "monocyte": "#2ca02c"}
N_SAMPLES, N_GENES = 16, 50


@pytest.fixture(scope="module")
def cells():
    """Cells with a colour per category, of which the first has no cells."""
    rng = np.random.default_rng(0)
    profiles = rng.gamma(0.7, 20, (3, N_GENES)) + 0.5
    labels = pd.Categorical(np.repeat(TYPES, 20), categories=["platelet", *TYPES])
    counts = rng.poisson(np.repeat(profiles, 20, axis=0)).astype(float)
    data = anndata.AnnData(counts, obs=pd.DataFrame({"kind": labels}, index=[f"c{i}" for i in range(60)]))
    data.var_names = [f"g{g}" for g in range(N_GENES)]
    data.uns["kind_colors"] = ["#000000", *(COLOURS[name] for name in TYPES)]
    return data


@pytest.fixture(scope="module")
def theta():
    return pd.DataFrame(
        np.random.default_rng(1).dirichlet([3, 3, 3], N_SAMPLES), [f"s{j}" for j in range(N_SAMPLES)], TYPES
    )


@pytest.fixture(scope="module")
def bulk(cells, theta):
    rng = np.random.default_rng(2)
    profiles = pd.DataFrame(cells.X).groupby(np.asarray(cells.obs["kind"])).mean().loc[TYPES].to_numpy()
    counts = rng.poisson(300 * theta.to_numpy() @ profiles * rng.lognormal(0, 0.2, (N_SAMPLES, N_GENES)))
    groups = pd.Categorical(["ill", "well"] * (N_SAMPLES // 2), categories=["well", "ill"])
    obs = pd.DataFrame({"disease": groups, "age": np.arange(N_SAMPLES) % 5}, index=theta.index)
    data = anndata.AnnData(
        counts.astype(float),
        obs=obs,
        obsm={"facs": theta.rename(columns=lambda name: name.replace("/", "|"))},
    )
    data.var_names = cells.var_names
    return data


@pytest.fixture(scope="module")
def deconvolved(bulk, cells):
    """The fit by default, and the model."""
    return deconvolve(bulk, cells, "kind", return_model=True, verbose=False)


@pytest.fixture(scope="module")
def published(bulk, cells):
    """A fit that records its histories, under another key."""
    model = L2MaxDeconvolver(renorm_size=150.0, epsilon=1.0)
    return deconvolve(bulk, cells, "kind", model=model, key="l2max", return_model=True, verbose=False)


@pytest.fixture
def adata(deconvolved):
    return deconvolved[0].copy()


# How each display is made of the AnnData of a fit: by default, or by a published model. A display that is not here
# fails below.
MADE = {
    DifferentialExpressionDisplay: lambda one, _: DifferentialExpressionDisplay.from_anndata(
        one, "disease", cell_type="monocyte"
    ),
    GeneExpressionDisplay: lambda one, _: GeneExpressionDisplay.from_anndata(one, "g3"),
    GradientNormDisplay: lambda _, two: GradientNormDisplay.from_anndata(two, key="l2max"),
    LossCurveDisplay: lambda _, two: LossCurveDisplay.from_anndata(two, key="l2max"),
    ProportionDisplay: lambda one, _: ProportionDisplay.from_anndata(one),
    RecoveryDisplay: lambda one, _: RecoveryDisplay.from_anndata(one, "facs"),
}


@pytest.mark.parametrize("name", skenigma.plotting.__all__)
def test_every_display_is_made_of_a_saved_anndata(name, deconvolved, published, tmp_path):
    one, two = (
        _saved(data, tmp_path / f"{number}.h5ad") for number, (data, _) in enumerate((deconvolved, published))
    )
    display = MADE[getattr(skenigma.plotting, name)](one, two)
    assert isinstance(display, getattr(skenigma.plotting, name))
    assert display.figure_.axes


def _saved(data, path):
    data.write_h5ad(path)
    return anndata.read_h5ad(path)


@pytest.mark.parametrize(
    "make",
    [
        GradientNormDisplay.from_anndata,
        LossCurveDisplay.from_anndata,
        ProportionDisplay.from_anndata,
        lambda data, **key: GeneExpressionDisplay.from_anndata(data, "g3", **key),
        lambda data, **key: RecoveryDisplay.from_anndata(data, "facs", **key),
        lambda data, **key: DifferentialExpressionDisplay.from_anndata(
            data, "disease", cell_type="B cell", **key
        ),
    ],
)
def test_what_holds_no_deconvolution_is_refused(make, bulk, adata):
    with pytest.raises(ValueError, match=r"uns\['other'\].*hold no deconvolution"):
        make(adata, key="other")
    with pytest.raises(ValueError, match="hold no deconvolution"):
        make(bulk)
    with pytest.raises(ValueError, match="must be an AnnData, got DataFrame"):
        make(pd.DataFrame())


class TestTheSameAsOfTheModel:
    def test_histories(self, published):
        data, model = published
        display = GradientNormDisplay.from_anndata(data, key="l2max")
        assert_array_equal(display.gradient_norm, model.gradient_norm_)
        assert display.renorm_size == 150
        assert_array_equal(LossCurveDisplay.from_anndata(data, key="l2max").loss_history, model.loss_history_)

    def test_histories_that_are_not_there(self, adata):
        with pytest.raises(ValueError, match=r"has no gradient_norm: .*EmpiricalBayesDeconvolver"):
            GradientNormDisplay.from_anndata(adata)
        with pytest.raises(ValueError, match="has no loss_history"):
            LossCurveDisplay.from_anndata(adata)

    def test_proportions(self, adata, deconvolved):
        model = deconvolved[1]
        display = ProportionDisplay.from_anndata(adata)
        expected = ProportionDisplay.from_estimator(model)
        assert_array_equal(display.proportions, model.proportions_)
        assert_array_equal(display.std, expected.std)
        assert display.shares_of == expected.shares_of == "RNA"
        assert display.cell_types == TYPES
        assert list(display.sample_names) == list(expected.sample_names)

    def test_a_gene_and_its_interval(self, adata, deconvolved):
        model = deconvolved[1]
        display = GeneExpressionDisplay.from_anndata(
            adata, "g3", cell_types=["monocyte", "B cell"], level=0.8
        )
        expected = GeneExpressionDisplay.from_estimator(
            model, "g3", cell_types=["monocyte", "B cell"], level=0.8
        )
        assert_array_equal(display.values, expected.values)
        # normal quantiles of the deviations that were written, where the model has those of Student's t: at a level
        # of 0.8 they differ by less than a tenth of the width for 4 degrees of freedom and more
        width = expected.high - expected.low
        assert np.max(np.abs(display.low - expected.low) / width) < 0.1
        assert np.max(np.abs(display.high - expected.high) / width) < 0.1
        assert_array_equal(display.reference, expected.reference)

    def test_without_deviations_there_is_no_band(self, published):
        assert GeneExpressionDisplay.from_anndata(published[0], 3, key="l2max").bands_ == []

    def test_proportions_against_their_truth(self, adata, theta, deconvolved):
        expected = RecoveryDisplay.from_estimator(deconvolved[1], theta)
        for true in ("facs", theta, theta.iloc[::-1, ::-1], theta.to_numpy()):
            found = RecoveryDisplay.from_anndata(adata, true).correlations_
            pd.testing.assert_frame_equal(found.loc[TYPES], expected.correlations_.loc[TYPES])

    def test_expression_against_sorted_samples(self, adata, deconvolved):
        truth = deconvolved[1].cse_ * np.random.default_rng(0).lognormal(0, 0.2, (N_SAMPLES, 3, N_GENES))
        measured = cse_to_anndata(adata)
        measured.X = truth.reshape(len(measured), -1)
        shuffled = measured[np.random.default_rng(1).permutation(len(measured)), ::-1].copy()
        expected = RecoveryDisplay.from_anndata(adata, truth).correlations_
        found = RecoveryDisplay.from_anndata(adata, shuffled).correlations_
        pd.testing.assert_frame_equal(found, expected)
        with pytest.raises(ValueError, match=r"lacks the rows \('s0', 'monocyte'\)"):
            RecoveryDisplay.from_anndata(adata, measured[1:])
        with pytest.raises(ValueError, match="lacks the genes 'g0'"):
            RecoveryDisplay.from_anndata(adata, measured[:, 1:])
        with pytest.raises(ValueError, match="obs of the truth has no column 'sample', 'cell_type'"):
            RecoveryDisplay.from_anndata(adata, adata)

    def test_the_test_of_the_bulk(self, adata, deconvolved):
        display = DifferentialExpressionDisplay.from_anndata(
            adata, "disease", cell_type="monocyte", covariates=["age"], reference_level="ill"
        )
        frame = pd.DataFrame(adata.layers["normalized"], adata.obs_names, adata.var_names)
        expected = skenigma.differential.log_fold_change_test(
            frame,
            pd.DataFrame(deconvolved[1].proportions_, adata.obs_names, TYPES),
            adata.obs["disease"],
            reference=adata.varm["reference"].T.set_axis(TYPES),
            covariates=adata.obs[["age"]],
            reference_level="ill",
        )
        expected = expected[expected["cell_type"] == "monocyte"]
        assert_allclose(display.p_value, expected["p_value"])
        assert display.contrast == "log2(well / ill)"

    def test_signed_values_have_the_factor_test(self, bulk, cells):
        centred = bulk.copy()
        centred.X = np.log2(bulk.X + 1) - np.log2(bulk.X + 1).mean(axis=0)
        profiles = pd.DataFrame(np.random.default_rng(0).normal(size=(3, N_GENES)), TYPES, cells.var_names)
        signed = deconvolve(
            centred, profiles, model=FactorDeconvolver(n_factors=0), proportions="facs", verbose=False
        )
        with pytest.warns(
            UserWarning, match="reference describes none of the groups"
        ):  # which only that test looks at
            display = DifferentialExpressionDisplay.from_anndata(signed, "disease", cell_type="B cell")
        assert display.contrast == "ill - well"
        assert np.isfinite(display.p_value).all()

    def test_what_cannot_be_tested_is_refused(self, adata):
        with pytest.raises(ValueError, match=r"obs has no column 'illness'\. It has 'disease', 'age'"):
            DifferentialExpressionDisplay.from_anndata(adata, "illness", cell_type="monocyte")
        with pytest.raises(ValueError, match=r"method must be one of 'auto', 'log_fold_change'.*'joint'"):
            DifferentialExpressionDisplay.from_anndata(adata, "disease", cell_type="monocyte", method="joint")
        with pytest.raises(ValueError, match="no entry 'flow'"):
            RecoveryDisplay.from_anndata(adata, "flow")

    def test_proportions_alone_have_no_expression(self, bulk, cells):
        alone = deconvolve(bulk, cells, "kind", model=ProportionEstimator(method="nnls"), verbose=False)
        assert len(ProportionDisplay.from_anndata(alone).bars_) == 3
        with pytest.raises(ValueError, match="ProportionEstimator estimated none"):
            GeneExpressionDisplay.from_anndata(alone, "g3")


def bar_colours(display):
    return {bars.get_label(): bars[0].get_facecolor() for bars in display.bars_}


EXPECTED = {name: to_rgba(colour) for name, colour in COLOURS.items()}


class TestColours:
    """Each cell type has the colour of its category in the cells, whatever the order there."""

    def test_of_the_cells(self, adata):
        assert bar_colours(ProportionDisplay.from_anndata(adata)) == EXPECTED
        panels = GeneExpressionDisplay.from_anndata(adata, "g3", cell_types=["monocyte", "B cell"])
        assert [line.get_color() for line in panels.lines_] == [COLOURS["monocyte"], COLOURS["B cell"]]
        assert_allclose(panels.bands_[0].get_facecolor()[0][:3], EXPECTED["monocyte"][:3])
        points = RecoveryDisplay.from_anndata(adata, "facs").points_
        for name, drawn in zip(TYPES, points, strict=True):
            assert_allclose(drawn.get_facecolor()[0][:3], EXPECTED[name][:3])

    def test_after_a_file(self, adata, tmp_path):
        assert bar_colours(ProportionDisplay.from_anndata(_saved(adata, tmp_path / "a.h5ad"))) == EXPECTED

    def test_a_call_decides(self, adata):
        drawn = ProportionDisplay.from_anndata(adata, colours=["red", "blue", "black"])
        assert bar_colours(drawn)["B cell"] == to_rgba("black")

    def test_colours_set_afterwards_come_first(self, adata):
        adata.uns["kind_colors"] = ["red", "blue", "black"]
        assert bar_colours(ProportionDisplay.from_anndata(adata))["monocyte"] == to_rgba("red")
        # they are those of a column of the bulk, if there is one of this name
        adata.obs["kind"] = "blood"
        assert bar_colours(ProportionDisplay.from_anndata(adata)) == EXPECTED

    def test_too_few_are_not_used(self, adata):
        adata.uns["kind_colors"] = ["red", "blue"]
        with pytest.warns(UserWarning, match=r"uns\['kind_colors'\] is of shape \(2,\) for 3 cell types"):
            assert bar_colours(ProportionDisplay.from_anndata(adata)) == EXPECTED

    def test_without_any_they_are_our_own(self, bulk, cells):
        plain = cells.copy()
        del plain.uns["kind_colors"]
        found = deconvolve(bulk, plain, "kind", verbose=False)
        assert "cell_type_colors" not in found.uns["skenigma"]
        own = ProportionDisplay.from_anndata(found)
        assert bar_colours(own) == bar_colours(
            ProportionDisplay.from_proportions(found.obsm["proportions"].set_axis(TYPES, axis=1))
        )
