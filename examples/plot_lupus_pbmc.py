"""
Lupus: which patients respond to interferon, and in which cells
===============================================================

Blood of eight patients with lupus (:func:`~skenigma.datasets.fetch_lupus_pbmc`). Its cells were sequenced one
by one, and their sum per patient is the bulk here. So the truth is known: how much of a sample comes from
each cell type, and what that cell type expresses in that patient. This page goes from tables to figures and
to sentences for a paper, as you would with real blood samples, and compares every step with the truth and
with baselines that need no model.

If the data are not stored here and cannot be downloaded, this page uses simulated counts instead and says so.
"""

import numpy as np
import pandas as pd
from matplotlib import pyplot as plt

from skenigma import EmpiricalBayesDeconvolver, ProportionEstimator
from skenigma.baselines import bulk_itself, scaled_reference
from skenigma.datasets import fetch_lupus_pbmc, make_counts
from skenigma.metrics import concordance, per_gene_correlation
from skenigma.plotting import GeneExpressionDisplay, ProportionDisplay, RecoveryDisplay

# Genes that interferon switches on.
RESPONSE = ["ISG15", "IFI6", "LY6E"]


def stand_in():
    """Simulated counts with the parts of the real cohort that are used here."""
    cohort = make_counts(n_samples=8, n_genes=1300, n_cell_types=6, random_state=0)
    bulk = np.einsum("jk,jkg->jg", cohort.proportions, cohort.cse)
    cohort.bulk = pd.DataFrame(bulk, cohort.sample_names, cohort.gene_names)
    cohort.reference = pd.DataFrame(cohort.cse.mean(axis=0), cohort.cell_types, cohort.gene_names)
    cohort.proportions = pd.DataFrame(np.asarray(cohort.proportions), cohort.sample_names, cohort.cell_types)
    return cohort


try:
    lupus = fetch_lupus_pbmc()
except OSError as error:
    print(f"Simulated samples in the place of lupus: {error}")
    lupus = stand_in()
samples, types, genes = lupus.bulk.index, lupus.reference.index, lupus.bulk.columns
lupus.bulk.iloc[:3, :4].round(1)

# %%
# How much of each cell type
# --------------------------
#
# Your reference comes from cells of other people, and so does this one: the patients are dealt into two halves, and
# the profiles for each half are means over the other. What is estimated are shares of RNA.
half = np.arange(len(samples)) % 2
parts = []
for side in (0, 1):
    profiles = pd.DataFrame(lupus.cse[half != side].mean(axis=0), types, genes)
    estimator = ProportionEstimator(profiles, method="log").fit(lupus.bulk[half == side])
    parts.append(pd.DataFrame(estimator.proportions_, samples[half == side], types))
shares = pd.concat(parts).loc[samples]
display = ProportionDisplay.from_proportions(shares, shares_of="RNA")
display.figure_.set_size_inches(8, 4.2)

# %%
# Compared with the truth: r says how well the estimates follow the patients, and CCC, the concordance, also
# whether they have the right size. If both are low, the mean may be right, but the estimates do not show
# which patient has more of the cell type.
display = RecoveryDisplay.from_predictions(lupus.proportions, shares)
agreement = pd.Series(concordance(lupus.proportions, shares), types)
always_the_mean = (lupus.proportions - lupus.proportions.mean()).abs().to_numpy().mean()
error = (shares - lupus.proportions).abs().to_numpy().mean()
print(f"mean error {error:.3f}; the cohort's true mean for everyone would have {always_the_mean:.3f}")

# %%
# What each cell type expresses
# -----------------------------
#
# How the patients differ is asked with one reference for all, the mean over them: it is the same for every patient
# and so cannot tell who has more. (With the two references from above every patient's own half would be left out,
# which by itself makes estimate and truth run against each other.)
model = EmpiricalBayesDeconvolver(lupus.reference).fit(lupus.bulk)
found = {
    "empirical Bayes": model.cse_,
    "bulk itself": bulk_itself(lupus.bulk, lupus.reference),
    "scaled reference": scaled_reference(lupus.bulk, lupus.reference, model.proportions_),
}
correlation = {
    name: np.nan_to_num(per_gene_correlation(lupus.cse, cse, method="spearman"))
    for name, cse in found.items()
}
by_type = pd.DataFrame({name: values.mean(axis=1) for name, values in correlation.items()}, types)
by_type.round(2)

# %%
# The mean over all genes is low, and the gain over the reference scaled to each sample is small. But the
# model also says for which genes to expect more. The reliability of a gene is the correlation that the model
# expects; here it is compared with the correlation that was found:
bins = pd.cut(np.ravel(model.reliability_), [0, 0.3, 0.5, 0.7, 0.85, 1])
by_bin = pd.DataFrame({name: np.ravel(values) for name, values in correlation.items()}).groupby(
    bins, observed=True
)

figure, ax = plt.subplots(figsize=(6, 3.6), layout="constrained")
for name, marker in zip(found, "osd", strict=True):
    ax.plot(by_bin[name].mean().index.astype(str), by_bin[name].mean(), marker=marker, label=name)
ax.set(xlabel="reliability, as estimated", ylabel="correlation with the truth, mean")
ax.legend(frameon=False)
low, high = model.expression_.interval(0.95)
inside = ((lupus.cse >= low) & (lupus.cse <= high)).mean()
print(f"{inside:.0%} of the true values are within the interval of 95 %")
by_bin.size().to_frame("genes × cell types")

# %%
# Who responds to interferon
# --------------------------
#
# In lupus, interferon switches on a set of genes, more in some patients than in others. Monocytes are where these
# genes can be read here: their reliability is high there and low in the rarer cell types.
reliability = pd.DataFrame(model.reliability_, types, genes)
response = [gene for gene in RESPONSE if gene in genes] or list(reliability.iloc[0].nlargest(3).index)
cell_type = reliability[response].mean(axis=1).idxmax()
reliability[response].round(2)

# %%
place = types.get_loc(cell_type)
display = GeneExpressionDisplay.from_estimator(
    model, response[0], cell_types=[cell_type], true=lupus.cse[:, [place], genes.get_loc(response[0])]
)

# %%
# One score per patient, the mean of the logarithms of these genes. The true one is that of the patient's own cells
# of this type; on the same axis stand the score from the model and the one from the bulk.
columns = genes.get_indexer(response)


def score(cse):
    """Mean logarithm of the genes of the response in the cell type, per patient, less its mean over patients."""
    values = np.log2(cse[:, place, columns] + 1).mean(axis=1)
    return values - values.mean()


truth = score(lupus.cse)
figure, axes = plt.subplots(1, 3, figsize=(9, 3.3), layout="constrained", sharey=True)
followed = {}
for ax, (name, cse) in zip(axes, found.items(), strict=True):
    followed[name] = np.corrcoef(truth, score(cse))[0, 1]
    ax.axline((0, 0), slope=1, color="black", linestyle="--", linewidth=1)
    ax.scatter(truth, score(cse))
    ax.set(title=f"{name}, r = {followed[name]:.2f}", xlabel=f"true score, {cell_type}")
axes[0].set_ylabel("estimated score (log2)")

# %%
# What you can write
# ------------------
#
# Sentences with the results from above, which claim no more than these support:
enough = (reliability > 0.5).sum(axis=1)
sure = agreement[agreement > 0.8].index
counts = ", ".join(f"{count} in {kind}" for kind, count in enough.items())
mean_reliability = reliability[response].mean(axis=1)
worst = mean_reliability.idxmin()
print(
    f"Proportions (shares of RNA) of {len(types)} cell types in {len(samples)} samples were estimated by a fit on "
    f"the logarithmic scale, with a reference from other patients (skenigma); differences between patients are "
    f"interpreted for {', '.join(sure)}. Cell-type-specific expression was estimated by empirical Bayes and "
    f"interpreted for genes with a reliability above 0.5: {counts}. The response score ({', '.join(response)}) of "
    f"{cell_type} has a mean reliability of {mean_reliability[cell_type]:.2f}; that of {worst}, "
    f"{mean_reliability[worst]:.2f}, is not reported."
)

# %%
# What you cannot write: that the model found responders which the bulk did not show. Where one cell type
# contributes most of a gene's expression, the bulk tells as much, as the panels show, and with eight patients
# such high correlations cannot be told apart. What the model adds is the information for which cell types
# this can be said.
