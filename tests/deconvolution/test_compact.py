"""Expression that is kept compact and built in parts: ``materialize=False`` and ``output_cell_types``."""

import pickle
import tracemalloc

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.base import clone

from skenigma import L2MaxDeconvolver, TraceNormDeconvolver
from skenigma.core.optimize import basis
from skenigma.core.optimize.basis import SpanBasis
from skenigma.core.optimize.penalties import MaxL2Norm
from skenigma.datasets import make_cohort
from skenigma.deconvolution._solving import suited

# The same products in other block sizes: rounding.
ROUNDING = {"rtol": 1e-11, "atol": 1e-11}

MODELS = {
    "proximal": L2MaxDeconvolver(renorm_size=None),
    "accelerated": L2MaxDeconvolver(solver="accelerated"),
    "l2max admm": L2MaxDeconvolver(solver="admm"),
    "trace norm": TraceNormDeconvolver(solver="admm", epsilon=1e-3),
    "log": L2MaxDeconvolver(renorm_size=None, preprocess="log", beta=1.0),
    "frac": L2MaxDeconvolver(renorm_size=None, normalize="frac"),
    "pc": L2MaxDeconvolver(renorm_size=None, normalize="pc"),
    "quantile": TraceNormDeconvolver(epsilon=1e-2, normalize="quantile"),
}


@pytest.fixture(scope="module")
def cohort():
    cohort = make_cohort(30, 90, 4, as_frame=True, random_state=0)
    # positive values, so that every scale is allowed and clipping acts
    cohort.bulk, cohort.reference = cohort.bulk + 12, cohort.reference + 12
    return cohort


@pytest.fixture(params=MODELS, scope="module")
def pair(request, cohort):
    """The same model with the tensor and without."""
    model = clone(MODELS[request.param]).set_params(reference=cohort.reference)
    whole = model.fit(cohort.bulk, proportions=cohort.proportions)
    compact = clone(model).set_params(materialize=False).fit(cohort.bulk, proportions=cohort.proportions)
    return whole, compact


SELECTIONS = {
    "all": (None, None),
    "positions": ([5, 2, -1], [7, 0]),
    "slices": (slice(3, 9), slice(None, None, 4)),
    "masks": (np.arange(30) % 3 == 0, np.arange(90) > 80),
    "names": (["sample7", "sample2"], ["gene90", "gene1", "gene5"]),
    "one": (4, "gene3"),
}


def positions(selection, labels):
    """What ``iloc`` takes for a selection."""
    if selection is None:
        return slice(None)
    if isinstance(selection, slice):
        return selection
    chosen = np.atleast_1d(selection)
    return labels.get_indexer(chosen) if chosen.dtype.kind == "U" else chosen


class TestWithoutTensor:
    def test_no_tensor_is_kept(self, pair):
        whole, compact = pair
        assert whole.cse_.shape == (30, 4, 90)
        assert not hasattr(compact, "cse_")
        assert not hasattr(compact, "cse_normalized_")

    @pytest.mark.parametrize("selection", SELECTIONS.values(), ids=SELECTIONS)
    @pytest.mark.parametrize("cell_type", ["celltype3", 0])
    def test_parts_are_those_of_the_tensor(self, pair, cohort, cell_type, selection):
        samples, genes = selection
        position = 2 if cell_type == "celltype3" else 0
        frame = pd.DataFrame(pair[0].cse_[:, position], cohort.sample_names, cohort.gene_names)
        frame = frame.iloc[positions(samples, frame.index), positions(genes, frame.columns)]
        for model in pair:
            found = model.cell_type_expression(cell_type, samples=samples, genes=genes)
            pd.testing.assert_frame_equal(found, frame, rtol=1e-11, atol=1e-11)

    def test_outputs_are_the_same(self, pair, cohort):
        whole, compact = pair
        assert_allclose(compact.transform(cohort.bulk), whole.transform(cohort.bulk), **ROUNDING)
        again = clone(compact)
        assert_allclose(
            again.fit_transform(cohort.bulk, proportions=cohort.proportions),
            clone(whole).fit_transform(cohort.bulk, proportions=cohort.proportions),
            **ROUNDING,
        )

    def test_survives_pickling(self, pair):
        _, compact = pair
        restored = pickle.loads(pickle.dumps(compact))
        for cell_type in compact.cell_types_:
            pd.testing.assert_frame_equal(
                restored.cell_type_expression(cell_type), compact.cell_type_expression(cell_type)
            )

    @pytest.mark.slow
    @pytest.mark.parametrize("dtype", [np.float64, np.float32])
    def test_the_bulk_is_not_copied(self, dtype, monkeypatch):
        """Neither to fit, compressed or not, nor to predict: a state of few directions is all there is beside it."""
        # reserved for directions that may join, and counted although it is hardly written to
        monkeypatch.setattr("skenigma.core.optimize.part.ROOM", 0)
        cohort = make_cohort(400, 6000, 2, random_state=0)
        bulk, reference = cohort.bulk.astype(dtype), cohort.reference.astype(dtype)
        model = L2MaxDeconvolver(reference, materialize=False, renorm_size=None, max_iter=10)
        with pytest.warns(UserWarning, match="did not converge"):
            clone(model).fit(bulk[:250], proportions=cohort.proportions[:250])  # compiles what is compiled
        with pytest.warns(UserWarning, match="did not converge"):
            peak = peak_memory(lambda: model.fit(bulk, proportions=cohort.proportions))
        # blocks of up to 4 MB, of float32 some in float64 beside these: a copy of 10 or 19 MB would come on top
        assert peak < 0.9 * cohort.bulk.nbytes
        peak = peak_memory(lambda: model.predict_expression(bulk, proportions=cohort.proportions))
        assert peak < 0.9 * cohort.bulk.nbytes

    def test_refit_with_the_tensor_and_back(self, cohort):
        model = L2MaxDeconvolver(cohort.reference, renorm_size=None).fit(cohort.bulk)
        model.set_params(materialize=False).fit(cohort.bulk)
        assert not hasattr(model, "cse_")
        model.set_params(materialize=True).fit(cohort.bulk)
        assert_array_equal(model.cell_type_expression("celltype2"), model.cse_[:, 1])

    def test_absent_cell_types_have_the_reference(self, cohort):
        shares = cohort.proportions.to_numpy().copy()
        shares[:, 2] = 0
        shares /= shares.sum(axis=1, keepdims=True)
        model = L2MaxDeconvolver(cohort.reference, materialize=False, renorm_size=None)
        with pytest.warns(UserWarning, match="celltype3"):
            model.fit(cohort.bulk, proportions=shares)
        found = model.cell_type_expression("celltype3", genes=["gene4", "gene2"])
        assert_array_equal(found, np.tile(cohort.reference.loc["celltype3", ["gene4", "gene2"]], (30, 1)))

    def test_memory(self):
        n_samples, n_types, n_genes = 60, 12, 4000
        cohort = make_cohort(n_samples, n_genes, n_types, random_state=0)
        model = L2MaxDeconvolver(cohort.reference, materialize=False, renorm_size=None, max_iter=3)
        tensor = n_samples * n_types * n_genes * 8
        with pytest.warns(UserWarning, match="did not converge"):
            peak = peak_memory(lambda: model.fit(cohort.bulk, proportions=cohort.proportions))
        assert peak < 0.5 * tensor
        assert peak_memory(lambda: model.cell_type_expression(3)) < 0.25 * tensor
        assert peak_memory(lambda: model.cell_type_expression(3, genes=[1, 2])) < 0.01 * tensor


def peak_memory(run):
    """Most memory that ``run`` held at once beyond what there was, in bytes; NumPy's arrays are traced."""
    tracemalloc.start()
    try:
        run()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


COMPRESSIBLE = {
    "proximal": L2MaxDeconvolver(renorm_size=20.0, max_iter=30),
    "proximal, two runs": L2MaxDeconvolver(renorm_size="auto", max_iter=30),
    "accelerated": L2MaxDeconvolver(solver="accelerated", epsilon=1e-9, max_iter=60),
}


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize("name", COMPRESSIBLE)
def test_genes_as_they_are_give_the_same_as_a_basis_of_their_span(name, monkeypatch):
    cohort, found = make_cohort(150, 400, 3, random_state=0), []
    for worth in (0, 1000):
        monkeypatch.setattr(basis, "WORTH_SAMPLES", worth)
        model = clone(COMPRESSIBLE[name]).set_params(reference=cohort.reference)
        found.append(model.fit(cohort.bulk, proportions=cohort.proportions))
    plain, compressed = found
    # rounding of another order of sums, which the iterations do not amplify
    assert_allclose(plain.cse_, compressed.cse_, rtol=1e-10, atol=1e-10)
    assert_allclose(plain.loss_history_[1:], compressed.loss_history_[1:], rtol=1e-10)
    assert_allclose(plain.gradient_norm_[1:], compressed.gradient_norm_[1:], rtol=1e-10)
    assert_allclose(
        plain.transform(cohort.bulk[:9]), compressed.transform(cohort.bulk[:9]), rtol=1e-9, atol=1e-9
    )


class TestWhereCompressionPays:
    """Of a solver that reads its rows: few samples, or many runs; and nothing is decided for the others."""

    @pytest.mark.parametrize(
        ("n_samples", "n_runs", "compressed"), [(20, 1, True), (700, 1, False), (700, 20, True)]
    )
    def test_the_basis(self, n_samples, n_runs, compressed):
        rng = np.random.default_rng(0)
        found = SpanBasis(rng.random((n_samples, 2000)), rng.random((5, 2000)))
        assert found.pays(n_runs) == compressed
        chosen = suited(found, "proximal", MaxL2Norm(1.0), n_runs=n_runs)
        assert chosen.rows.shape[1] == (n_samples + 5 if compressed else 2000)
        assert suited(found, "admm", MaxL2Norm(1.0), n_runs=n_runs) is found

    def test_a_factorisation_that_takes_long_has_to_pay_more(self):
        """Repeated samples have no Cholesky factor."""
        rows = np.random.default_rng(0).random((100, 500))
        different, repeated = (
            SpanBasis(bulk, rows[:3]) for bulk in (rows[3:], np.repeat(rows[3:50], 2, axis=0))
        )
        assert different.pays()
        assert not repeated.pays()
        assert repeated.pays(n_runs=10)

    def test_the_bulk_itself_is_read(self):
        bulk = np.random.default_rng(0).random((50, 30))
        assert np.shares_memory(SpanBasis(bulk, bulk[:2]).for_rows().samples.values, bulk)


class TestOutputCellTypes:
    CHOSEN = ("celltype4", "celltype2")

    @pytest.mark.parametrize("materialize", [True, False])
    def test_only_these_in_this_order(self, pair, cohort, materialize):
        whole, _ = pair
        few = clone(whole).set_params(output_cell_types=self.CHOSEN, materialize=materialize)
        expected = whole.transform(cohort.bulk).reshape(30, 4, 90)[:, [3, 1]].reshape(30, -1)
        found = few.fit_transform(cohort.bulk, proportions=cohort.proportions)
        fitted = clone(whole).fit_transform(cohort.bulk, proportions=cohort.proportions).reshape(30, 4, 90)
        assert_allclose(found, fitted[:, [3, 1]].reshape(30, -1), **ROUNDING)
        assert_allclose(few.transform(cohort.bulk), expected, **ROUNDING)
        names = [f"{kind}:{gene}" for kind in self.CHOSEN for gene in cohort.gene_names]
        assert few.get_feature_names_out().tolist() == names

    def test_frames(self, cohort):
        model = L2MaxDeconvolver(cohort.reference, output_cell_types=["celltype3"], renorm_size=None)
        frame = model.set_output(transform="pandas").fit(cohort.bulk).transform(cohort.bulk[:5])
        assert frame.shape == (5, 90)
        assert frame.columns[0] == "celltype3:gene1"

    def test_the_others_are_not_built(self):
        cohort = make_cohort(60, 4000, 12, random_state=0)
        model = L2MaxDeconvolver(
            cohort.reference, output_cell_types=["celltype1"], materialize=False, renorm_size=None, max_iter=3
        )
        with pytest.warns(UserWarning, match="did not converge"):
            model.fit(cohort.bulk, proportions=cohort.proportions)
        run = lambda: model.transform(cohort.bulk, proportions=cohort.proportions)  # noqa: E731
        assert peak_memory(run) < 0.5 * 60 * 12 * 4000 * 8


@pytest.fixture(scope="module")
def fitted(cohort):
    return L2MaxDeconvolver(cohort.reference, renorm_size=None).fit(cohort.bulk)


class TestBadSelections:
    def test_unknown_output_cell_type(self, cohort):
        model = L2MaxDeconvolver(cohort.reference, output_cell_types=["celltype1", "B cell", "NK"])
        with pytest.raises(ValueError, match=r"no cell type named 'B cell', 'NK'\. There are 'celltype1'"):
            model.fit(cohort.bulk)

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ({"cell_type": "T cell"}, "no cell type named 'T cell'"),
            ({"cell_type": 4}, "no cell type at position 4: there are 4"),
            ({"cell_type": 0, "genes": ["gene1", "TP53"]}, "no gene named 'TP53'"),
            ({"cell_type": 0, "samples": ["s1"]}, "no sample named 's1'"),
            ({"cell_type": 0, "samples": [0, 30]}, "no sample at position 30: there are 30"),
            ({"cell_type": 0, "genes": [True, False]}, "mask of genes has length 2"),
        ],
    )
    def test_message(self, fitted, arguments, message):
        with pytest.raises(ValueError, match=message):
            fitted.cell_type_expression(**arguments)

    def test_samples_without_names(self, cohort):
        model = L2MaxDeconvolver(cohort.reference, renorm_size=None).fit(cohort.bulk.to_numpy())
        with pytest.raises(ValueError, match="samples have no names here"):
            model.cell_type_expression(0, samples=["sample1"])
