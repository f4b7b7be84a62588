"""What the tests on a tensor of expression share."""

import numpy as np
from sklearn.utils import check_array

from ..checks.numbers import check_magnitude, refuse_masked
from ..expression import CellTypeExpression
from ..normalization import normalize
from ._bulk import Strips
from ._names import names_or_count, refuse_nonfinite
from ._study import Study


def tensor_test(test, cse, phenotype, covariates, options, cell_types, gene_names):
    """A test on a tensor, checked and named."""
    samples = None
    if isinstance(cse, CellTypeExpression):
        refuse_posterior_means(cse.is_posterior_mean, "this model")
        cell_types = cse.cell_types if cell_types is None else cell_types
        gene_names = cse.gene_names if gene_names is None else gene_names
        samples = cse.sample_names
        if cse.reads_rows:
            study = Study(phenotype, covariates, cse.shape[0], samples, options)
            return test(Strips(cse), study, cell_types, gene_names)
        cse = cse.values()
    refuse_masked(cse, "cse")
    cse = check_array(
        cse, dtype=[np.float64, np.float32], allow_nd=True, ensure_all_finite=False, input_name="cse"
    )
    if cse.ndim != 3:
        raise ValueError(f"cse must have the axes samples, cell types and genes, got the shape {cse.shape}.")
    n_samples, n_cell_types, n_genes = cse.shape
    cell_types = names_or_count(cell_types, n_cell_types, "celltype", "cell_types")
    gene_names = names_or_count(gene_names, n_genes, "x", "gene_names")
    # by cell type: a mask of the whole tensor would be large
    for name, of_type in zip(cell_types, cse.swapaxes(0, 1), strict=True):
        refuse_nonfinite(~np.isfinite(of_type.sum(axis=0)), gene_names, f"cse of '{name}'", "gene")
    check_magnitude(cse, "cse")
    study = Study(phenotype, covariates, n_samples, samples, options)
    return test(lambda genes: cse[:, :, genes], study, cell_types, gene_names)


def refuse_posterior_means(found, what):
    """Refuse to test values that a model has filled in from other samples."""
    if found:
        raise ValueError(
            f"The expression of {what} is a posterior mean: where the bulk has too little information, the model "
            f"has filled in what it expects, and samples are not independent observations. Of unchanged genes, 89 to "
            f"94 % had p < 0.05 in such a test. Choose method='factor' or 'interaction', which test the bulk."
        )


def tested_expression(model):
    """Function of a slice of genes: the expression to test, without what it owes to the proportions."""
    refuse_posterior_means(model.expression_.is_posterior_mean, type(model).__name__)
    if model.normalize in (None, "frac"):
        # gene by gene, so no normalised tensor is needed where the model keeps none
        of = by_genes_of(model.expression_)
        return lambda genes: normalize("frac", of(genes), model.proportions_)
    normalized = model.expression_normalized_.values()
    return lambda genes: normalized[:, :, genes]


def by_genes_of(expression):
    """Function of a slice of genes: their expression."""
    if expression.reads_rows:
        return Strips(expression)
    return lambda genes: expression.values(genes=genes)


def effects_on(study, values):
    """Effects on expression of shape (n_samples, K, g)."""
    return study.effects(values.reshape(study.n_samples, -1)).reshape(values.shape[1:])
