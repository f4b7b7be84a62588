"""The published trace, number by number, against what the original R code recorded."""

import re

import numpy as np
import pytest
from numpy.testing import assert_allclose
from sklearn.exceptions import ConvergenceWarning

from skenigma import L2MaxDeconvolver, ProportionEstimator

RENORM_SIZES = [50, 100, 200]
# Every run of the published text clips nothing: its data are signed.
PUBLISHED = {"alpha": 0.1, "beta": 50, "epsilon": 1e-3, "tao_k": 1, "max_iter": 1000, "positive": False}
WEIGHTS = np.array([1, 0.1, 50])  # of the three losses in the "Total delta_loss" of the text


@pytest.fixture(scope="module")
def bulk(vignette):
    return vignette.table("bulk.csv.gz").T


@pytest.fixture(scope="module")
def reference(vignette):
    return vignette.table("reference.csv.gz").T


@pytest.fixture(scope="module")
def theta(vignette):
    return vignette.table("theta.csv.gz")


@pytest.fixture(scope="module")
def plain(bulk, reference):
    return L2MaxDeconvolver(reference, renorm_size=None, **PUBLISHED).fit(bulk)


@pytest.fixture(scope="module")
def text(vignette):
    """Lines that the published document shows as printed by R."""
    lines = vignette.path("why-200.txt").read_text().splitlines()
    return [line.removeprefix("## ") for line in lines]


def printed_ranges(lines):
    return [line for line in lines if line.startswith("Ratio ranges from:")]


def relative_difference(got, expected):
    return np.linalg.norm(got - expected) / np.linalg.norm(expected)


def recorded_part(model, run):
    """The model's CSE and the recorded one, on the genes that were recorded."""
    if "X_k" in run:
        return model.cse_, run["X_k"]
    return model.cse_[:, :, run["X_gene_index"]], run["X_k_sub"]


def test_proportions(bulk, reference, theta):
    proportions = ProportionEstimator(reference).fit(bulk).transform(bulk)
    # the same iteration and stopping rule as R's rlm: what is left is the rounding of a dozen linear solves
    assert_allclose(proportions, theta, rtol=0, atol=1e-9)


def test_deconvolver_estimates_the_same_proportions(plain, theta):
    assert_allclose(plain.proportions_, theta, rtol=0, atol=1e-9)  # as above
    assert list(plain.cell_types_) == list(theta.columns)


def test_iterations_and_shapes(plain):
    assert plain.n_iter_ == 38
    assert plain.converged_
    assert plain.loss_history_.shape == (38, 3)
    assert plain.gradient_norm_.shape == (37, 2)
    assert plain.delta_history_.shape == (38, 5)
    assert plain.cse_.shape == (100, 5, 1000)


def test_printed_ranges(plain, text):
    published = printed_ranges(text)
    assert len(published) == 38
    ours = [f"Ratio ranges from: {row.min():.6f} - {row.max():.6f}" for row in plain.delta_history_]
    assert ours == published


def test_recorded_ranges(plain, vignette):
    ranges = np.column_stack([plain.delta_history_.min(axis=1), plain.delta_history_.max(axis=1)])
    # a squared change is the difference of nearly equal expressions: rounding of 1e-16 of ‖P‖² (1e6 at the
    # start) against changes down to 1e-3
    assert_allclose(ranges, vignette.run("l2max_none")["ratio"], rtol=1e-9)


def test_losses(plain, vignette):
    # sums of 1e5 squares each, in another order than R's
    assert_allclose(plain.loss_history_[1:], vignette.run("l2max_none")["loss_history"][1:], rtol=1e-12)
    # the first residual is zero but for rounding, in the original too
    assert plain.loss_history_[0, 0] < 1e-20
    assert_allclose(plain.loss_history_[0, 1:], vignette.run("l2max_none")["loss_history"][0, 1:], rtol=1e-12)


def test_published_final_losses(plain, text):
    (line,) = [line for line in text if line.startswith("part1:")]
    published = [float(part.split(":")[1]) for part in line.split()]
    assert_allclose(plain.loss_history_[-1], published, rtol=1e-12)  # the text shows 15 digits


def test_published_total_change_of_loss(plain, text):
    (line,) = [line for line in text if line.startswith("Total delta_loss:")]
    change = abs(plain.loss_history_[-1] @ WEIGHTS - plain.loss_history_[0] @ WEIGHTS)
    assert line.startswith(f"Total delta_loss: {change:.6f},")


def test_gradient_norms(plain, vignette):
    expected = vignette.run("l2max_none")["gradient_norm"]
    # rtol: rounding of 38 iterations; atol: the first norm is 3e-14 of pure rounding in R
    assert_allclose(plain.gradient_norm_, expected, rtol=1e-10, atol=1e-10)


def test_published_mean_gradient_norm(plain, text):
    published = text[text.index("mean(grad_avg)") :]
    (line,) = [line for line in published if line.startswith("[1]")]
    assert f"[1] {plain.gradient_norm_.mean():.4f}" == line


def test_cse(plain, vignette):
    # entries are of size 1; R itself moves by 3e-16 when the bulk changes in the last bit
    assert_allclose(plain.cse_, vignette.run("l2max_none")["X_k"], rtol=0, atol=1e-11)


@pytest.mark.parametrize("size", RENORM_SIZES)
def test_renormalised(bulk, reference, vignette, size):
    run = vignette.run(f"l2max_renorm{size}")
    model = L2MaxDeconvolver(reference, renorm_size=size, **PUBLISHED).fit(bulk)
    assert model.n_iter_ == len(run["loss_history"]) == 22
    # the original's first step goes along rounding noise: it moves by 7e-6 itself when the bulk does by a bit
    assert relative_difference(*recorded_part(model, run)) < 1e-5
    norms = np.linalg.norm(model.cse_, axis=2)
    assert_allclose(norms, run["X_k_sample_norm"], rtol=1e-4)  # single samples move more than the whole


@pytest.mark.parametrize("alpha", [0.3, 0.5, 0.9])
def test_renormalised_with_other_alpha(bulk, reference, vignette, alpha):
    run = vignette.run(f"l2max_renorm200_alpha{alpha}")
    model = L2MaxDeconvolver(reference, renorm_size=200, **{**PUBLISHED, "alpha": alpha}).fit(bulk)
    assert model.n_iter_ == len(run["loss_history"])
    # as above, but the original's step along noise is alpha * 200 long, so it moves the result more: a plain
    # re-implementation that takes this step, too, stays up to 1.8e-5 away from the recorded runs
    assert relative_difference(*recorded_part(model, run)) < 3e-5


def test_renormalised_without_rounding_noise(bulk, reference, theta, vignette):
    run = vignette.run("l2max_renorm200_theta2dp")
    # rows miss 1 by up to 0.02, so the first gradient is a true one; R itself moves by 1e-16 here
    model = L2MaxDeconvolver(reference, renorm_size=200, **PUBLISHED).fit(bulk, proportions=theta.round(2))
    assert_allclose(model.cse_, run["X_k"], rtol=0, atol=1e-11)
    assert_allclose(model.loss_history_, run["loss_history"], rtol=1e-10)
    assert_allclose(model.gradient_norm_, run["gradient_norm"], rtol=1e-10)


def test_automatic_renorm_size_is_the_published_mean(bulk, reference, plain):
    model = L2MaxDeconvolver(reference, **{**PUBLISHED, "renorm_size": "auto"}).fit(bulk)
    assert f"{model.renorm_size_:.4f}" == "201.1309"
    assert model.renorm_size_ == pytest.approx(plain.gradient_norm_.mean(), rel=1e-14)  # the very same run
    given = L2MaxDeconvolver(reference, renorm_size=model.renorm_size_, **PUBLISHED).fit(bulk)
    assert_allclose(model.cse_, given.cse_, rtol=0, atol=1e-13)  # rounding of entries of size 1


def test_size_400_oscillates_as_in_the_original(bulk, reference, vignette):
    run = vignette.run("l2max_renorm400")
    assert len(run["loss_history"]) == 1000  # the original hit max_iter
    with pytest.warns(
        ConvergenceWarning, match=r"did not converge in 1000 iterations.*smaller tao_k or renorm_size"
    ):
        model = L2MaxDeconvolver(reference, renorm_size=400, **PUBLISHED).fit(bulk)
    assert not model.converged_
    assert model.n_iter_ == 1000
    assert np.isfinite(model.cse_).all()


def test_verbose_prints_the_published_trace(bulk, reference, text, capsys):
    L2MaxDeconvolver(reference, renorm_size=None, verbose=1, **PUBLISHED).fit(bulk)
    ours = capsys.readouterr().out.splitlines()
    assert re.fullmatch(r".*\d{4} Optimizing cell type specific expression profile\.\.\.", ours[0])
    assert printed_ranges(ours) == ours[1:39] == printed_ranges(text)
    assert re.fullmatch(r"Total delta_loss: 740834\.134902, .*\d{4}", ours[39])
    assert re.fullmatch(r"part1:158048\.1060109\d* part2:452794\.4339565\d* part3:64\.17267183\d*", ours[40])
    assert ours[41:] == ["Done!", "Converge in 38 steps"]
    assert {"Done!", "Converge in 38 steps"} < set(text)


def test_silent_by_default(bulk, reference, capsys):
    L2MaxDeconvolver(reference, renorm_size=None, max_iter=1000, positive=False).fit(bulk)
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("size", RENORM_SIZES)
class TestNoFirstStepTrap:
    """The first gradient is zero but for rounding: blown up to renorm_size, it would show in the results.

    The original moves by 7e-6 under these changes; 1e-10 leaves room for rounding in 22 iterations alone.
    """

    def fitted(self, bulk, reference, size):
        return L2MaxDeconvolver(reference, renorm_size=size, **PUBLISHED).fit(bulk)

    def test_order_of_samples(self, bulk, reference, size):
        order = np.random.default_rng(0).permutation(len(bulk))
        straight = self.fitted(bulk, reference, size)
        shuffled = self.fitted(bulk.iloc[order], reference, size)
        assert relative_difference(shuffled.cse_, straight.cse_[order]) < 1e-10

    def test_last_bit_of_the_bulk(self, bulk, reference, size):
        jitter = 1e-15 * np.random.default_rng(1).choice([-1, 1], bulk.shape)
        straight = self.fitted(bulk, reference, size)
        moved = self.fitted(bulk * (1 + jitter), reference, size)
        assert (moved.proportions_ != straight.proportions_).any()  # the change has an effect at all
        assert relative_difference(moved.cse_, straight.cse_) < 1e-10

    def test_largest_single_change(self, bulk, reference, size):
        """No single gene hides behind the norm of the tensor."""
        jitter = 1e-15 * np.random.default_rng(2).choice([-1, 1], bulk.shape)
        straight = self.fitted(bulk, reference, size).cse_
        moved = self.fitted(bulk * (1 + jitter), reference, size).cse_
        assert np.abs(moved - straight).max() < 1e-10 * np.abs(straight).max()
