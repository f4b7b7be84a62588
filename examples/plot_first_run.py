"""
From counts to proportions, expression and findings
===================================================

The whole way in a minute: counts of bulk samples and of annotated cells go in; proportions, a table of genes that
change, and figures come out. The counts are simulated, so that the answer is known; with your own, replace the first
step. At the end stands the published argument for gradients of norm 200, which this project started from.

It writes ``proportions.csv``, ``findings.csv``, ``findings.png`` and ``gradient_norm.png`` into the folder it is run
in.
"""

import warnings

import numpy as np
import pandas as pd
from matplotlib import pyplot as plt

from skenigma import EmpiricalBayesDeconvolver, L2MaxDeconvolver
from skenigma.datasets import make_cohort, make_counts
from skenigma.differential import differential_expression
from skenigma.exceptions import LevelWarning
from skenigma.plotting import GradientNormDisplay, ProportionDisplay
from skenigma.reference import make_reference

# The published settings shrink the expression far below the level of the bulk, of which a fit warns.
warnings.filterwarnings("ignore", category=LevelWarning)

# %%
# Counts of cells and of bulk samples
# -----------------------------------
#
# 60 bulk samples, half of them cases, and 1,200 cells of six types from another platform. In the cases 100 genes of
# the most common cell type are three times as high or as low.
cohort = make_counts(random_state=0)
cohort.bulk.iloc[:3, :6]

# %%
# Both are brought to counts per million: the cells on their way to a profile per cell type, the bulk by its totals.
reference = make_reference(cohort.cells, cohort.labels, normalize=1e6)
bulk = 1e6 * cohort.bulk.div(cohort.bulk.sum(axis=1), axis=0)

# %%
# Proportions and expression
# --------------------------
#
# ``platform="bulk"``: the expression is wanted as the platform of the bulk sees it.
model = EmpiricalBayesDeconvolver(reference, platform="bulk").fit(bulk)
proportions = pd.DataFrame(model.proportions_, bulk.index, model.cell_types_)
proportions.round(4).to_csv("proportions.csv")
error = (proportions - cohort.proportions[model.cell_types_]).abs().to_numpy().mean()
print(f"proportions: off by {error:.3f} on average; level of the expression: {model.level_:.2f}")

# %%
# The first gene of the most common cell type, in the first three samples, with its interval of 95 %:
common = cohort.cell_types[0]
model.expression_.to_tidy(samples=[0, 1, 2], cell_types=[common], genes=[cohort.gene_names[0]]).round(2)

# %%
# Which genes change, and in which cell type
# ------------------------------------------
findings = differential_expression(model, cohort.phenotype, X=bulk)
findings.to_csv("findings.csv", index=False)
calls = findings[findings["q_value"] < 0.05]
truth = cohort.changed.stack()
found = calls.set_index(["cell_type", "gene"])["effect"]
right = found * truth.reindex(found.index) > 0
print(f"{len(calls)} genes at q < 0.05, {right.sum()} of them changed in that cell type and direction")
calls.head()

# %%
# What a biologist would show: who is made of what, and which genes differ.
figure, (left, middle) = plt.subplots(1, 2, figsize=(11, 4.5), width_ratios=[3, 2], layout="constrained")
ProportionDisplay.from_estimator(model, ax=left)
of_type = findings[findings["cell_type"] == common]
called = of_type["q_value"] < 0.05
strength = -np.log10(of_type["p_value"].clip(lower=1e-300))
middle.scatter(of_type["effect"], strength, s=8, color="0.7", linewidths=0, label="not significant")
middle.scatter(
    of_type["effect"][called], strength[called], s=12, color="#D55E00", linewidths=0, label="q < 0.05"
)
middle.set(xlabel="log2 fold change, case / control", ylabel="-log10 p", title=f"genes of {common}")
middle.legend(frameon=False)
figure.savefig("findings.png", dpi=150)

# %%
# The published argument for 200
# ------------------------------
#
# The published model rescales its gradients to one norm in each iteration. Without rescaling, on the data that it was
# published with, they have a norm of about 200 by themselves: :doc:`the whole argument <plot_gradient_norm>`.
published = make_cohort(as_frame=True, random_state=0)
plain = L2MaxDeconvolver(published.reference, renorm_size=None).fit(published.bulk)
display = GradientNormDisplay.from_estimator(plain)
display.figure_.savefig("gradient_norm.png", dpi=150)
print(f"mean norm of the gradients: {plain.gradient_norm_.mean():.0f}")
