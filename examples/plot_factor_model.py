"""
Hidden factors, and changed genes without noise in the reference
================================================================

For signed, centred or standardised values, :class:`~skenigma.FactorDeconvolver` estimates hidden factors of the
samples, expression with standard deviations, and, once it is told the groups, the genes that change in a cell type.
This example shows each of them on a simulated cohort whose truth is known.
"""

import numpy as np
from matplotlib import pyplot as plt
from sklearn.metrics import precision_recall_curve

from skenigma import FactorDeconvolver
from skenigma.datasets import make_cohort
from skenigma.differential import differential_expression

# %%
# One factor, found without a phenotype
# -------------------------------------
#
# 100 samples, the second half of them cases; in each of 5 cell types 100 of 1,000 genes change.
cohort = make_cohort(as_frame=True, random_state=0)
model = FactorDeconvolver(cohort.reference).fit(cohort.bulk, proportions=cohort.proportions)
print(model.n_factors_, "factor")

# %%
# The factor is the phenotype, although the model was not told about it. Its loadings are the changes of the
# genes: on the right, those of one cell type, divided by their standard deviations, separately for genes that
# change and genes that do not.
first = cohort.cell_types[0]
figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.5), layout="constrained")
left.scatter(cohort.phenotype + np.random.default_rng(0).uniform(-0.1, 0.1, 100), model.scores_[:, 0], s=12)
left.set(xticks=[0, 1], xticklabels=["control", "case"], ylabel="score of the factor")
strength = np.abs(model.loadings_[0, 0] / model.loadings_std_[0, 0])
changed = cohort.changed.loc[first].to_numpy() != 0
right.hist([strength[~changed], strength[changed]], 40, density=True, label=["unchanged", "changed"])
right.set(xlabel=f"|loading| / deviation, {first}", ylabel="density")
right.legend()

# %%
# Every value has an interval
# ---------------------------
#
# One changed gene in all samples: the truth, the estimate, and the interval that should hold 95 % of the truth.
gene = int(np.flatnonzero(changed)[0])
low, high = (bound[:, 0, 0] for bound in model.expression_.interval(0.95, cell_types=[first], genes=[gene]))
figure, ax = plt.subplots(figsize=(8, 3), layout="constrained")
ax.fill_between(range(100), low, high, alpha=0.3, label="95 %")
ax.plot(model.cse_[:, 0, gene], label="estimate")
ax.plot(cohort.cse[:, 0, gene], ".", label="truth")
ax.set(xlabel="sample", ylabel=f"{cohort.gene_names[gene]} in {first}")
ax.legend(ncols=3)

# %%
# Changed genes
# -------------
#
# With the groups as known columns, the same model tests which genes change in which cell type. The reference
# describes the controls, which the model finds out: their profiles do not deviate from it.
table = differential_expression(model, cohort.phenotype, X=cohort.bulk, method="factor")
print(table.attrs["factor_model"]["deviation"])
table.head()

# %%
# Compared with the interaction test, which uses the bulk alone and not the reference:
figure, ax = plt.subplots(figsize=(4.5, 4), layout="constrained")
truth = cohort.changed.stack() != 0
for method in ("factor", "interaction"):
    found = differential_expression(model, cohort.phenotype, X=cohort.bulk, method=method)
    evidence = -np.log10(np.maximum(found.set_index(["cell_type", "gene"]).p_value, 1e-300))
    precision, recall, _ = precision_recall_curve(truth, evidence.loc[truth.index])
    calls = found[found.q_value < 0.05]
    ax.plot(recall, precision, label=f"{method}: {len(calls)} calls at q < 0.05")
ax.set(xlabel="recall", ylabel="precision", xlim=(0, 1), ylim=(0, 1.02))
ax.legend()
plt.show()
