"""
Choosing parameters without the truth
=====================================

The bulk does not tell how well its cell-type-specific expression was recovered, so ordinary cross-validation
cannot choose parameters: a model that reproduces the bulk perfectly can be wrong in every cell type.
:class:`~skenigma.L2MaxDeconvolverCV` tries its settings on a cohort that resembles the bulk and whose truth
is known, and fits the best of them to the bulk. This example does so for a bulk whose truth is known as well,
and checks whether the choice was right.
"""

import warnings

import numpy as np
import pandas as pd
from matplotlib import pyplot as plt
from sklearn.exceptions import ConvergenceWarning

from skenigma import L2MaxDeconvolver, L2MaxDeconvolverCV
from skenigma.datasets import make_cohort
from skenigma.exceptions import LevelWarning
from skenigma.metrics import recovery_score
from skenigma.plotting import RecoveryDisplay

# Each fit would warn that it has lost the level; the correlations over samples compared here do not depend on it.
warnings.filterwarnings("ignore", category=LevelWarning)

# %%
# A cohort that the published settings do not suit
# ------------------------------------------------
#
# Twice as many samples as in the published analysis, and expression ten times as large, as if it had been measured in
# other units. The size 200 of the published analysis belongs to its units, and its ``beta`` to its number of samples:
# with ``renorm_size="auto"``, which finds the size, and ``beta=50`` the fit oscillates and does not converge.
cohort = make_cohort(n_samples=200, n_genes=600, n_cell_types=3, as_frame=True, random_state=0)
bulk, reference, truth = 10 * cohort.bulk, 10 * cohort.reference, 10 * cohort.cse

# %%
# The choice
# ----------
#
# Without cells to mix, the tuning cohort is simulated from the bulk and its reference: the same proportions, the same
# means, about the same variances. With annotated cells, pass ``cells`` and ``labels``, and it is mixed from those.
grid = {"alphas": [0.1, 0.5], "betas": [5, 10, 20, 50, 200], "renorm_sizes": [None, "auto"]}
model = L2MaxDeconvolverCV(reference, **grid, random_state=0)
model.fit(bulk)

# %%
# All settings, best first. The score is the correlation per gene over the samples, on the tuning cohort.
columns = ["param_alpha", "param_beta", "param_renorm_size", "mean_test_score", "converged"]
results = pd.DataFrame(model.cv_results_)
best_first = results.sort_values("mean_test_score", ascending=False)[columns]
best_first.head(5)

# %%
# Was it right?
# -------------
#
# Every setting is now fitted to the bulk itself and compared with its truth, which no user has.


def recovery(params):
    """Correlation per gene over samples with the truth, mean over genes and cell types."""
    fit = L2MaxDeconvolver(reference, **params, max_iter=75)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # the search stops there, too
        return recovery_score(truth, fit.fit(bulk, proportions=model.proportions_).cse_)


achieved = results["params"].map(recovery)
free = recovery_score(truth, np.repeat(bulk.to_numpy()[:, None], len(reference), axis=1))

figure, ax = plt.subplots(figsize=(6, 4.2), layout="constrained")
for name, shown, color in (
    ("converged", results["converged"], "#0072B2"),
    ("not within 75 iterations", ~results["converged"], "0.65"),
):
    ax.scatter(
        results["mean_test_score"][shown], achieved[shown], s=32, color=color, linewidths=0, label=name
    )
best = model.best_index_
outline = {"s": 130, "facecolors": "none", "edgecolors": "#D55E00", "linewidths": 2}
ax.scatter(results["mean_test_score"][best], achieved[best], label="chosen", **outline)
ax.axhline(free, color="0.4", linewidth=1, linestyle="--", label="bulk itself, no model")
ax.set(xlabel="score on the tuning cohort", ylabel="recovery of the truth")
ax.legend(loc="upper left", frameon=False, fontsize="small")
figure.savefig("choose_parameters.png", dpi=150)

# %%
# The expression with the chosen setting against the truth, one panel per cell type. It is much smaller than the
# truth: with renormalised gradients its size is set by ``renorm_size`` and ``beta``, so read its pattern, not its
# size. The correlation per sample is high because highly expressed genes are found to be so, which the reference
# tells as well; the correlation per gene says how well samples are told apart.
display = RecoveryDisplay.from_estimator(model, truth)
display.figure_.savefig("choose_parameters_recovery.png", dpi=150)

print("chosen:", model.best_params_)
print(f"recovery by the chosen setting {achieved[best]:.3f}, by the best of the grid {achieved.max():.3f}")
print(
    f"by the bulk itself {free:.3f}; {(~results['converged']).sum()} of {len(results)} settings take longer"
)

# %%
# The score on the tuning cohort puts the settings in nearly the order that the truth would, and the chosen
# one is as good as the best. The value of the score need not hold for the bulk: the simulation can be easier
# than real data. So compare it with the scores, on the same cohort, of the baselines that need no model. (The
# third is a ratio of bulk and reference, and NaN for signed values as here.)
pd.Series(model.baseline_scores_).to_frame("score")
