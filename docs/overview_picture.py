"""Draw the picture of the landing page and the README: ``python docs/overview_picture.py``.

A cohort is simulated and deconvolved. The picture shows what goes in, what comes out, and the truth that a
simulation knows, for samples in the order of their phenotype.
"""

import pathlib

import numpy as np
from matplotlib import pyplot as plt

from skenigma import FactorDeconvolver
from skenigma.datasets import make_cohort

PICTURE = pathlib.Path(__file__).resolve().parent / "_static" / "overview.png"
COLOURS = ["#0072B2", "#E69F00", "#009E73"]  # Okabe & Ito
GENES_PER_TYPE = 14


def cohort_and_model():
    """The six lines of the landing page."""
    cohort = make_cohort(n_cell_types=3, as_frame=True, random_state=0)
    model = FactorDeconvolver(reference=cohort.reference).fit(cohort.bulk)
    return cohort, model


def shown_genes(changed):
    """Per cell type, genes that change in it alone, in one direction, and in the end some that never do."""
    alone = (changed != 0).sum(axis=0) == 1
    groups = [np.flatnonzero(alone & (row > 0))[:GENES_PER_TYPE] for row in changed]
    return np.concatenate([*groups, np.flatnonzero((changed == 0).all(axis=0))[:GENES_PER_TYPE]])


def draw(cohort, model):
    genes = shown_genes(cohort.changed.to_numpy())
    figure = plt.figure(figsize=(11, 4.6), layout="constrained")
    grid = figure.add_gridspec(2, 6, width_ratios=[3, 0.9, 0.35, 3, 3, 3])
    bulk_ax = figure.add_subplot(grid[:, 0])
    share_ax = figure.add_subplot(grid[:, 1], sharey=bulk_ax)
    arrow_ax = figure.add_subplot(grid[:, 2])

    image = heatmap(bulk_ax, cohort.bulk.to_numpy()[:, genes], "bulk")
    bulk_ax.set_ylabel("samples: controls above, cases below")
    bulk_ax.set_xlabel("some genes")
    stacked_bars(share_ax, model.proportions_)
    share_ax.set_title("proportions", fontsize="medium")
    arrow_ax.axis("off")
    arrow_ax.annotate("", (1, 0.5), (0, 0.5), arrowprops={"arrowstyle": "->", "lw": 2})

    for row, (label, tensor) in enumerate({"estimated": model.cse_, "truth": cohort.cse}.items()):
        for k in range(len(cohort.cell_types)):
            ax = figure.add_subplot(grid[row, 3 + k])
            heatmap(ax, tensor[:, k][:, genes], f"cell type {k + 1}" if row == 0 else "")
            ax.title.set_color(COLOURS[k])
            if k == 0:
                ax.set_ylabel(label)
    figure.colorbar(image, ax=figure.axes, label="expression", shrink=0.5, ticks=[-6, 0, 6])
    return figure


def heatmap(ax, values, title):
    ax.set_title(title, fontsize="medium")
    ax.set(xticks=[], yticks=[])
    return ax.imshow(values, cmap="RdBu_r", vmin=-6, vmax=6, aspect="auto", interpolation="nearest")


def stacked_bars(ax, proportions):
    left = np.zeros(len(proportions))
    for share, colour in zip(proportions.T, COLOURS, strict=True):
        ax.barh(range(len(share)), share, height=1, left=left, color=colour)
        left += share
    ax.set(xlim=(0, 1), xticks=[], yticks=[])


if __name__ == "__main__":
    draw(*cohort_and_model()).savefig(PICTURE, dpi=120)
