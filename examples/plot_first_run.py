"""
From counts to proportions, expression and findings
===================================================

A complete analysis in a minute: from counts of bulk samples and of annotated cells to proportions, a table of
the genes that change, and figures. The counts are simulated, so the right answer is known; to use your own
data, replace the first step. The last section runs the published argument for gradients of norm 200, with
which this project began.

The script writes ``proportions.csv``, ``findings.csv``, ``findings.png`` and ``gradient_norm.png`` to the current
folder.
"""

import warnings

import pandas as pd
from matplotlib import pyplot as plt

from skenigma import EmpiricalBayesDeconvolver, L2MaxDeconvolver
from skenigma.datasets import make_cohort, make_counts
from skenigma.differential import differential_expression
from skenigma.exceptions import LevelWarning
from skenigma.plotting import DifferentialExpressionDisplay, GradientNormDisplay, ProportionDisplay
from skenigma.reference import make_reference

# The published settings shrink the expression far below the level of the bulk, and a fit warns of it.
warnings.filterwarnings("ignore", category=LevelWarning)

# %%
# Counts of cells and of bulk samples
# -----------------------------------
#
# 60 bulk samples, half of them cases, and 1,200 cells of six types, sequenced on another platform. In the cases, 100
# genes of the most common cell type are three times as high or as low.
cohort = make_counts(random_state=0)
state = cohort.phenotype.map({0: "control", 1: "case"}).rename("state")
cohort.bulk.iloc[:3, :6]

# %%
# Both are scaled to counts per million: the cells when they are averaged to one profile per cell type, the
# bulk by the totals of its samples.
reference = make_reference(cohort.cells, cohort.labels, normalize=1e6)
bulk = 1e6 * cohort.bulk.div(cohort.bulk.sum(axis=1), axis=0)

# %%
# Proportions and expression
# --------------------------
#
# ``platform="bulk"`` asks for the expression as the platform of the bulk would measure it.
model = EmpiricalBayesDeconvolver(reference, platform="bulk").fit(bulk)
proportions = pd.DataFrame(model.proportions_, bulk.index, model.cell_types_)
proportions.round(4).to_csv("proportions.csv")
error = (proportions - cohort.proportions[model.cell_types_]).abs().to_numpy().mean()
print(f"proportions: off by {error:.3f} on average; level of the expression: {model.level_:.2f}")

# %%
# The first gene of the most common cell type, in the first three samples, with its 95% interval:
common = cohort.cell_types[0]
model.expression_.to_tidy(samples=[0, 1, 2], cell_types=[common], genes=[cohort.gene_names[0]]).round(2)

# %%
# Which genes change, and in which cell type
# ------------------------------------------
findings = differential_expression(model, state, X=bulk, reference_level="control")
findings.to_csv("findings.csv", index=False)
calls = findings[findings["q_value"] < 0.05]
truth = cohort.changed.stack()
found = calls.set_index(["cell_type", "gene"])["effect"]
right = found * truth.reindex(found.index) > 0
print(f"{len(calls)} genes at q < 0.05; {right.sum()} of them do change in that cell type and direction")
calls.head()

# %%
# The picture to show: the composition of every sample, the genes that differ, and one of them in the cell type where
# it changes, sample by sample.
figure, (left, middle, last) = plt.subplots(
    1, 3, figsize=(16, 4.8), width_ratios=[4, 4, 3], layout="constrained"
)
ProportionDisplay.from_estimator(model, ax=left)
DifferentialExpressionDisplay.from_results(findings, common, ax=middle)

top = calls.iloc[0]
one = model.expression_.to_tidy(cell_types=[top["cell_type"]], genes=[top["gene"]]).set_index("sample")
order = one["value"].groupby(state).rank(method="first")
for group, colour, start in [("control", "0.45", 0), ("case", "#D55E00", 35)]:
    part = one[state.reindex(one.index) == group]
    bars = [part["value"] - part["lower"], part["upper"] - part["value"]]
    place = start + order[part.index]
    last.errorbar(place, part["value"], yerr=bars, fmt="o", ms=3, lw=0.8, color=colour, label=group)
last.set(
    xticks=[],
    xlabel="samples, each with its 95% interval",
    ylabel=f"{top['gene']} in {top['cell_type']}, counts per million",
    yscale="log",
)
last.legend(frameon=False, loc="upper left")
figure.savefig("findings.png", dpi=150)

# %%
# The published argument for 200
# ------------------------------
#
# The published model rescales its gradients to one norm in every iteration. Without rescaling, on data like
# those of the publication, their norm is about 200; this is where the value comes from.
# :doc:`The whole argument <plot_gradient_norm>`.
published = make_cohort(as_frame=True, random_state=0)
plain = L2MaxDeconvolver(published.reference, renorm_size=None).fit(published.bulk)
display = GradientNormDisplay.from_estimator(plain)
display.figure_.savefig("gradient_norm.png", dpi=150)
print(f"mean norm of the gradients: {plain.gradient_norm_.mean():.0f}")
