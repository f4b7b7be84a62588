"""
Whole blood, and what can be said about its cells
=================================================

From a table of whole-blood samples to figures, and to sentences that they support. The samples are real:
twenty visits of healthy people and of patients, and from each visit five cell types that were sorted and
sequenced separately (:func:`~skenigma.datasets.fetch_whole_blood`). So every result can be compared with the
truth, which is not possible with your own data.

If the data are not stored here and cannot be downloaded, this page uses simulated counts instead and says so.
"""

import numpy as np
import pandas as pd
from matplotlib import pyplot as plt

from skenigma import EmpiricalBayesDeconvolver
from skenigma.baselines import bulk_itself, scaled_reference
from skenigma.datasets import fetch_whole_blood, make_counts
from skenigma.differential import log_fold_change_test
from skenigma.metrics import per_gene_correlation
from skenigma.plotting import GeneExpressionDisplay, ProportionDisplay


def stand_in():
    """Simulated counts with the parts of the real cohort that are used here."""
    cohort = make_counts(n_samples=20, n_genes=3000, n_cell_types=5, random_state=0)
    cohort.bulk = cohort.bulk.div(cohort.bulk.sum(axis=1), axis=0) * 1e6
    cohort.reference = pd.DataFrame(cohort.cse.mean(axis=0), cohort.cell_types, cohort.gene_names)
    cohort.phenotype = cohort.phenotype.map({0: "Healthy Control", 1: "Sepsis"})
    return cohort


try:
    blood = fetch_whole_blood()
except OSError as error:
    print(f"Simulated samples in the place of whole blood: {error}")
    blood = stand_in()
blood.bulk.iloc[:3, :4].round(1)

# %%
# How much of each cell type
# --------------------------
#
# Bulk and reference are both counts per million. The model also estimates the proportions; they are shares of
# RNA, not of cells.
model = EmpiricalBayesDeconvolver(blood.reference).fit(blood.bulk)
display = ProportionDisplay.from_estimator(model)
display.figure_.set_size_inches(9, 4.8)
pd.DataFrame(model.proportions_, blood.sample_names, model.cell_types_).mean().round(2).to_frame("mean share")

# %%
# Does the fit explain the bulk? The estimates, mixed by the proportions, should add up to the measured bulk:
# a level of 1.
print(f"level of the expression: {model.level_:.2f}")

# %%
# What each cell type expresses
# -----------------------------
#
# Every value has a standard deviation, and every gene of a cell type a reliability: how well its estimates are
# expected to follow the truth over samples. For most genes of most cell types that is little: 5 % of a sample's RNA
# leave few traces in it. So the genes are sorted by it, and the best are looked at.
reliability = pd.DataFrame(model.reliability_, model.cell_types_, blood.gene_names)
share = pd.DataFrame(
    {"above 0.5": (reliability > 0.5).mean(axis=1), "above 0.7": (reliability > 0.7).mean(axis=1)}
)
share.round(3)

# %%
common = reliability.index[0]
gene = reliability.loc[common].idxmax()
sorted_cells = blood.cse[:, [list(blood.cell_types).index(common)], list(blood.gene_names).index(gene)]
display = GeneExpressionDisplay.from_estimator(model, gene, cell_types=[common], true=sorted_cells)

# %%
# Was it right to trust it? Here the sorted cells tell. Genes of which more was expected are followed better, and over
# all genes the model is compared with two answers that need none: the bulk itself, and the reference scaled to it.
found = {
    "empirical Bayes": model.cse_,
    "bulk itself": bulk_itself(blood.bulk, blood.reference),
    "scaled reference": scaled_reference(blood.bulk, blood.reference, model.proportions_),
}
correlation = {
    name: np.nan_to_num(per_gene_correlation(blood.cse, cse, method="spearman"))
    for name, cse in found.items()
}
bins = pd.qcut(np.ravel(model.reliability_), 5, precision=2)
by_bin = pd.DataFrame({name: np.ravel(values) for name, values in correlation.items()}).groupby(
    bins, observed=True
)

figure, ax = plt.subplots(figsize=(6, 3.6), layout="constrained")
for name, marker in zip(found, "osd", strict=True):
    ax.plot(by_bin[name].mean().index.astype(str), by_bin[name].mean(), marker=marker, label=name)
ax.set(xlabel="reliability, as estimated", ylabel="correlation with the sorted cells, mean")
ax.legend(frameon=False)
by_bin.size().to_frame("genes × cell types")

# %%
# And the intervals?
low, high = model.expression_.interval(0.95)
inside = (blood.cse >= low) & (blood.cse <= high)
print(f"{inside.mean():.0%} of the sorted values are within the interval of 95 %")

# %%
# Which genes differ, and in which cell type
# ------------------------------------------
#
# Three of the visits are of patients with sepsis. The test asks of every gene and cell type whether its expression
# differs there, with the proportions held equal.
sepsis = (blood.phenotype == "Sepsis").map({True: "sepsis", False: "others"})
table = log_fold_change_test(
    blood.bulk,
    pd.DataFrame(model.proportions_, blood.sample_names, model.cell_types_),
    sepsis,
    reference=blood.reference,
    reference_level="others",
)
calls = table[table["q_value"] < 0.05]
calls.groupby("cell_type").size().reindex(model.cell_types_, fill_value=0).to_frame("genes at q < 0.05")

# %%
# Again the sorted cells are asked: of the genes called, how many differ there by more than a third, in the same
# direction?
logs = np.log2(blood.cse + 1)
cases = (sepsis == "sepsis").to_numpy()
truth = pd.DataFrame(
    logs[cases].mean(axis=0) - logs[~cases].mean(axis=0), model.cell_types_, blood.gene_names
)
agree = [
    np.sign(effect) == np.sign(truth.loc[kind, gene]) and abs(truth.loc[kind, gene]) > np.log2(4 / 3)
    for kind, gene, effect in zip(calls["cell_type"], calls["gene"], calls["effect"], strict=True)
]
print(f"{np.sum(agree)} of {len(calls)} calls")

# %%
# What may be written
# -------------------
#
# Filled in from the results above, and no more than they support:
enough = (reliability > 0.5).sum(axis=1)
print(
    f"Proportions (shares of RNA) and cell-type-specific expression of {len(blood.bulk)} samples were estimated by "
    f"empirical Bayes on the logarithmic scale (skenigma); the estimates added up to {model.level_:.0%} of the "
    f"measured expression (median over samples). Expression was interpreted for genes with a reliability above 0.5: "
    f"{', '.join(f'{count} in {kind}' for kind, count in enough.items())}. At a false discovery rate of 5 %, "
    f"{len(calls)} genes differed between sepsis and the others, "
    f"{', '.join(f'{count} in {kind}' for kind, count in calls.groupby('cell_type').size().items()) or 'none'}."
)
