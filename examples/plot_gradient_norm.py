"""
Why the gradients are renormalised to 200
=========================================

The published algorithm of the maximum-L2-norm model rescales its two gradients to one fixed size in every
iteration, and 200 is the size it uses. The document that the ENIGMA authors published with it, "Why fixed
renormalized gradient norm size = 200", gives the reason: without rescaling, the gradients have about this
size by themselves.

This example repeats that analysis on a cohort simulated by the published recipe. The truth is then known,
so it also shows what the choice does to the result.
"""

import warnings

import numpy as np
import pandas as pd
from matplotlib import pyplot as plt

from skenigma import L2MaxDeconvolver, ProportionEstimator
from skenigma.datasets import make_cohort
from skenigma.exceptions import LevelWarning
from skenigma.metrics import per_gene_correlation, per_sample_correlation, root_mean_squared_error
from skenigma.plotting import GradientNormDisplay, LossCurveDisplay

# The published settings shrink the expression far below the level of the bulk, and each fit would warn of it. The
# correlations by which the fits are judged here do not depend on the level.
warnings.filterwarnings("ignore", category=LevelWarning)

# %%
# A cohort with a known answer
# ----------------------------
#
# 100 bulk samples of 1,000 genes are mixtures of 5 cell types. In every cell type, 100 genes change in the
# second half of the samples, the cases. Samples are rows, as everywhere in scikit-learn.
cohort = make_cohort(as_frame=True, random_state=0)
cohort.bulk.iloc[:3, :4]

# %%
# Proportions
# -----------
#
# How much of each cell type does a sample contain? Robust regression of the sample on the reference
# profiles answers that.
estimator = ProportionEstimator(reference=cohort.reference).set_output(transform="pandas")
proportions = estimator.fit_transform(cohort.bulk)
proportions.head(3)

# %%
# Without renormalisation
# -----------------------
#
# Now the expression of every cell type in every sample, with the gradients as they are. With ``verbose=1``
# the fit prints the same trace as the original.
plain = L2MaxDeconvolver(reference=cohort.reference, renorm_size=None)
plain.fit(cohort.bulk, proportions=proportions)

# %%
# The fit records the norms of both gradients, of the reconstruction term and of the reference term, in
# every iteration. The published figure is the density of their mean.
display = GradientNormDisplay.from_estimator(plain)
display.figure_.savefig("gradient_norm.png", dpi=150)

# %%
# Most gradients have a norm a little above 200. The first iterations differ: the fit starts where every
# cell type expresses what the bulk does, which reconstructs the bulk exactly, so the first gradient of the
# reconstruction is zero. The mean over all iterations is the published argument for 200. On the published
# data it is 201.1; here it differs a little, as the data do.
mean_norm = plain.gradient_norm_.mean()
reconstruction_norm, reference_norm = plain.gradient_norm_.mean(axis=0)

# %%
# With renormalisation
# --------------------
#
# 200 is the default of ``renorm_size``. For data on another scale it would be another number:
# ``renorm_size="auto"`` finds it, as the mean of a first fit without renormalisation.
renormalised = L2MaxDeconvolver(reference=cohort.reference, renorm_size=200)
renormalised.fit(cohort.bulk, proportions=proportions)

automatic = L2MaxDeconvolver(reference=cohort.reference, renorm_size="auto")
automatic.fit(cohort.bulk, proportions=proportions)

# %%
# The two fits descend differently. The mean of the two gradient norms hides that they are far from equal:
# the gradient of the reference term is some thirty times smaller. Rescaling both to 200 makes it count much
# more, and the result is closer to the reference.
figure, axes = plt.subplots(1, 2, figsize=(10, 4), sharey=True, layout="constrained")
for ax, fit, title in zip(
    axes, (plain, renormalised), ("gradients as they are", "renormalised to 200"), strict=True
):
    LossCurveDisplay.from_estimator(fit, ax=ax)
    ax.set_title(title)
axes[1].set_ylabel("")

# %%
# What is recovered
# -----------------
#
# Two baselines need no model, and every method should be compared with them: the bulk itself in place of
# every cell type, and the reference profile in place of every sample. Three questions are asked:
#
# - per gene: does the estimate follow the gene over the samples? (correlation, mean over cell types and
#   genes; and over the changed genes only). The reference is the same for all samples and cannot answer.
# - per sample: does it follow the cell type's profile over the genes?
# - error: how far is it from the truth (root mean square)?


def recovery(estimate):
    """Agreement of an estimate with the true cell-type-specific expression."""
    estimate = np.broadcast_to(estimate, cohort.cse.shape)
    per_gene = per_gene_correlation(cohort.cse, estimate)
    return {
        "per gene": per_gene.mean(),
        "changed genes": per_gene[cohort.changed.to_numpy() != 0].mean(),
        "per sample": per_sample_correlation(cohort.cse, estimate).mean(),
        "error": root_mean_squared_error(cohort.cse, estimate),
    }


summary = pd.DataFrame(
    {
        "bulk itself": recovery(cohort.bulk.to_numpy()[:, None, :]),
        "reference itself": recovery(cohort.reference.to_numpy()[None]),
        "renorm_size=None": recovery(plain.cse_),
        "renorm_size=200": recovery(renormalised.cse_),
        "renorm_size='auto'": recovery(automatic.cse_),
    }
).T

share_error = np.abs(proportions - cohort.proportions).to_numpy().mean()
print("cohort: {} samples, {} cell types, {} genes".format(*cohort.cse.shape))
print(f"proportions: mean absolute error {share_error:.3f}")
print(f"iterations: {plain.n_iter_} without renormalisation, {renormalised.n_iter_} with size 200")
print(f"mean gradient norm: {mean_norm:.1f} (published data: 201.1)")
print(f"    reconstruction {reconstruction_norm:.1f}, reference {reference_norm:.1f}")
print("figure: gradient_norm.png")
print("\nagreement with the truth (correlation; error: root mean square)")
print(summary.to_string(float_format="{:.3f}".format, na_rep="-"))

# %%
# The renormalised fit needs fewer iterations and follows genes over samples, and profiles over genes, better
# than the plain one and either baseline. The margin over the better baseline is small in both, and by the
# error the reference itself is still the better answer: expression in single samples is hard to estimate, so
# look at correlations and baselines before you trust a gene. The size itself hardly matters near 200:
# ``"auto"`` finds a slightly different one, with almost the same result.
