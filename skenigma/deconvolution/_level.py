"""The level of an expression: whether, mixed by the proportions, it makes up the bulk, and a warning where not."""

import numpy as np

from ..checks.warning import warn
from ..cohort import is_lazy
from ..core.blocks import row_blocks, row_products, spaced
from ..exceptions import LevelWarning

# Genes that the level is measured on, those with most of the bulk: of 20,000 they hold some 80 % of it.
GENES = 2000
# Samples, evenly spaced, by which these genes are found.
LOOKED_AT = 16
# Levels whose median over samples is not warned of.
LOWEST, HIGHEST = 0.5, 2.0
# Numbers of a block of mixtures: few, so that its memory is used again, and more where genes are picked for each.
BLOCK, PICKED_BLOCK = 2**16, 2**18


def measure_level(expression, bulk):
    """Size of the mixture against the bulk along it, per sample.

    Parameters
    ----------
    expression : CellTypeExpression
    bulk : ndarray of shape (n_samples, n_genes)
        On the scale of the expression.

    Returns
    -------
    level : ndarray of shape (n_samples,)
        Σ|m| / Σ s x over genes, m the mixture Σ_k θ_k p_k and s its sign, or that of x where it is 0. NaN for a
        sample without expression.
    """
    if not is_lazy(bulk):
        return _measured(expression, bulk, _largest(bulk), slice(0, len(bulk)))
    genes, found = _largest(bulk), []
    for rows in row_blocks(bulk):
        with bulk.held(rows):  # expression is built of the same rows
            found.append(_measured(expression, bulk, genes, rows))
    return np.concatenate(found)


def _measured(expression, bulk, genes, rows):
    """Levels of a stretch of samples."""
    level = np.empty(rows.stop - rows.start)
    shares = expression.proportions.astype(np.float64, copy=False)
    step = max(1, BLOCK // bulk.shape[1] if bulk.shape[1] <= GENES else PICKED_BLOCK // GENES)
    for start in range(rows.start, rows.stop, step):
        some = slice(start, min(start + step, rows.stop))
        mixed = expression.source.mixed(shares[some], some, genes)
        known = bulk[some, genes].astype(np.float64, copy=False)
        level[start - rows.start : some.stop - rows.start] = level_of(mixed, known)
    return level


def level_of(mixed, bulk):
    """The level of mixtures against the bulk, both of shape (n_samples, n_genes), as :func:`measure_level` has it."""
    sizes = np.abs(mixed)
    length = sizes.sum(axis=1)
    with np.errstate(invalid="ignore"):
        signs = np.divide(sizes, mixed, out=sizes)  # takes half as long as NumPy's functions for signs
    along = row_products(signs, bulk)
    if np.isnan(along).any():  # a mixture of 0
        # s x has the sign of m x; a product of 0 counts as positive, which is what a mixture of 0 calls for
        along = np.copysign(bulk, mixed * bulk + 0.0).sum(axis=1)
    # what points away from the bulk reconstructs nothing of it
    found = np.divide(length, along, out=np.zeros(len(bulk)), where=along > 0)
    nothing = np.flatnonzero(along <= 0)
    found[nothing[~bulk[nothing].any(axis=1)]] = np.nan
    return found


def _largest(bulk):
    """The genes with most of the bulk, in order."""
    n_samples, n_genes = bulk.shape
    if n_genes <= GENES:
        return slice(None)
    sizes = np.abs(bulk[spaced(n_samples, LOOKED_AT)]).sum(axis=0)
    return np.sort(np.argpartition(-sizes, GENES)[:GENES])


def median_level(level):
    """Median over the samples that have a level; None if none has."""
    known = level[~np.isnan(level)]
    return float(np.median(known)) if len(known) else None


def warn_of_level(name, level, remedy):
    """Warn of a fit whose expression has not the level of the bulk.

    Parameters
    ----------
    name : str
        Of the model.
    level : float or None
        Median over samples.
    remedy : str
        What to do.
    """
    if level is None or LOWEST <= level <= HIGHEST:
        return
    warn(
        f"The expression of this {name} does not have the level of the bulk: mixed by the proportions, it adds up "
        f"to {level:.2g} of it (median over samples). Its variation over samples and genes may be right, but "
        f"its size is not. {remedy}",
        LevelWarning,
    )
