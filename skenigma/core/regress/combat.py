r"""ComBat: location and scale of every gene in every batch, shrunk towards what the batch's genes have in common.

Parametric empirical Bayes of Johnson, Li and Rabinovic (2007), without covariates. The model of gene g in sample j of
batch i is

.. math:: x_{ijg} = \mu_g + \sigma_g \gamma_{ig} + \sigma_g \sqrt{\delta_{ig}}\, \epsilon_{ijg},

and the corrected value puts γ = 0 and δ = 1. That is one affine map per batch and gene: it needs no more of the data
than means and variances within batches, and any further sample of a batch can be sent through it.
"""

from dataclasses import dataclass

import numpy as np

# The relative change of the estimates at which the original stops; exact ones differ by less than 1e-6.
TOLERANCE = 1e-4
# Far beyond need: each of the two updates is a weighted mean, and they converge in a handful of rounds.
MAX_ROUNDS = 1000
# A spread within this many units of rounding of the values is none.
ROUNDING_MARGIN = 64


def combat(batches, *, anchor=None, mean_only=False, tol=TOLERANCE):
    r"""Affine maps that bring the genes of several batches to one location and scale.

    Parameters
    ----------
    batches : sequence of array-like, each of shape (n_samples of the batch, n_genes)
        Values on a scale on which batch effects add, as log expression. At least two samples in each.
    anchor : int, default=None
        Batch to bring the others to. None brings all to what they are together: the mean over all samples and the
        variance pooled within batches.
    mean_only : bool, default=False
        Correct the location and leave every batch its variance (δ = 1).
    tol : float, default=1e-4
        Relative change of every γ and δ at which to stop.

    Returns
    -------
    slope, intercept : ndarray of shape (n_batches, n_genes), float64
        Corrected values of batch i are ``slope[i] * values + intercept[i]``.

    Raises
    ------
    ValueError
        If a batch has fewer than two samples, or batches differ in their number of genes.

    Notes
    -----
    A gene that is constant within a batch (but for rounding) tells nothing about its scale there; it keeps its values
    in all batches (slope exactly 1, intercept exactly 0) and does not enter the priors, as in R's ``sva::ComBat``.
    With the defaults the numbers are those of that function, with the same stopping rule, for batches without missing
    values. With a single gene there is nothing to shrink towards, and γ and δ are the plain estimates.

    References
    ----------
    .. [1] Johnson, Li and Rabinovic (2007), Adjusting batch effects in microarray expression data using empirical
       Bayes methods. Biostatistics 8.

    Examples
    --------
    >>> import numpy as np
    >>> from skenigma.core.regress.combat import combat
    >>> rng = np.random.default_rng(0)
    >>> first, second = rng.normal(size=(20, 200)), rng.normal(size=(30, 200)) + np.linspace(-3, 3, 200)
    >>> slope, intercept = combat([first, second])
    >>> corrected = slope[0] * first + intercept[0], slope[1] * second + intercept[1]
    >>> before = abs(second.mean(axis=0) - first.mean(axis=0)).mean()
    >>> after = abs(corrected[1].mean(axis=0) - corrected[0].mean(axis=0)).mean()
    >>> bool(after < before / 10)
    True
    """
    return alignment(Moments.of(batches), anchor=anchor, mean_only=mean_only, tol=tol)


def alignment(moments, *, anchor=None, mean_only=False, tol=TOLERANCE):
    """The maps of :func:`combat`, from the :class:`Moments` of the batches."""
    size, mean, variance = moments.size, moments.mean, moments.variance
    genes = ~moments.constant.any(axis=0)
    slope, intercept = np.ones(mean.shape), np.zeros(mean.shape)
    if not genes.any():
        return slope, intercept
    mean, variance = mean[:, genes], variance[:, genes]
    location, scale = _common(size, mean, variance, anchor)
    for i in range(len(mean)):
        if i == anchor:
            continue
        estimates = (mean[i] - location) / scale, variance[i] / scale**2
        shift, spread = _shrink(size[i], *estimates, mean_only, tol)
        slope[i, genes] = 1 / np.sqrt(spread)
        intercept[i, genes] = location - slope[i, genes] * (location + scale * shift)
    return slope, intercept


@dataclass(frozen=True)
class Moments:
    """All that the maps take of several batches.

    Attributes
    ----------
    size : ndarray of shape (n_batches,)
        Numbers of samples.
    mean, variance : ndarray of shape (n_batches, n_genes), float64
    constant : ndarray of bool, shape (n_batches, n_genes)
        Which genes are constant within a batch.
    """

    size: np.ndarray
    mean: np.ndarray
    variance: np.ndarray
    constant: np.ndarray

    @classmethod
    def of(cls, batches):
        """Moments of batches, as of :func:`combat`."""
        batches = [np.asarray(batch) for batch in batches]
        widths = {batch.shape[1:] for batch in batches}
        if len(widths) > 1 or any(batch.ndim != 2 for batch in batches):
            raise ValueError(
                f"Batches must be two-dimensional with the same genes; shapes: {[b.shape for b in batches]}."
            )
        size = np.array([len(batch) for batch in batches])
        if size.min() < 2:
            raise ValueError(f"Every batch needs at least two samples; they have {size.tolist()}.")
        mean = np.array([batch.mean(axis=0, dtype=np.float64) for batch in batches])
        variance = np.array([batch.var(axis=0, ddof=1, dtype=np.float64) for batch in batches])
        rounding = ROUNDING_MARGIN * np.array([_precision(batch) for batch in batches])[:, None]
        return cls(size, mean, variance, variance <= (rounding * np.abs(mean)) ** 2)

    @classmethod
    def of_blocks(cls, blocks, n_samples):
        """The same of batches of as many samples each, from blocks of their samples.

        Parameters
        ----------
        blocks : callable
            Iterator over lists of blocks, one of each batch. Called twice.
        n_samples : int
            At least two.
        """
        sums = squares = 0.0
        for parts in blocks():
            sums = sums + np.array([part.sum(axis=0, dtype=np.float64) for part in parts])
            rounding = ROUNDING_MARGIN * np.array([_precision(part) for part in parts])[:, None]
        mean = sums / n_samples
        for parts in blocks():
            squares = squares + np.array(
                [np.square(part - centre).sum(axis=0) for part, centre in zip(parts, mean, strict=True)]
            )
        variance = squares / (n_samples - 1)
        size = np.full(len(mean), n_samples)
        return cls(size, mean, variance, variance <= (rounding * np.abs(mean)) ** 2)

    @classmethod
    def joined(cls, parts):
        """Moments of all genes, from those of parts of them."""
        tables = ("mean", "variance", "constant")
        return cls(parts[0].size, *(np.hstack([getattr(part, name) for part in parts]) for name in tables))


def _precision(batch):
    return np.finfo(batch.dtype).eps if np.issubdtype(batch.dtype, np.floating) else 0.0


def _common(size, mean, variance, anchor):
    """Location and scale (maximum likelihood) that all batches are brought to."""
    rows = slice(None) if anchor is None else [anchor]
    total = size[rows].sum()
    location = size[rows] @ mean[rows] / total
    return location, np.sqrt((size[rows] - 1) @ variance[rows] / total)


def _shrink(n, shift, spread, mean_only, tol):
    """Posterior means of a batch's γ and δ, given their estimates, by alternating between the two."""
    centre, width = shift.mean(), _variance(shift)
    if mean_only:
        return _shrunk_shift(n, shift, 1.0, centre, width), np.ones_like(spread)
    gamma, delta = shift, spread
    for _ in range(MAX_ROUNDS):
        previous = gamma, delta
        gamma = _shrunk_shift(n, shift, delta, centre, width)
        squares = (n - 1) * spread + n * (shift - gamma) ** 2
        delta = _shrunk_spread(n, squares, spread.mean(), _variance(spread))
        if all(
            np.all(np.abs(a - b) <= tol * np.abs(b)) for a, b in zip((gamma, delta), previous, strict=True)
        ):
            break
    return gamma, delta


def _shrunk_shift(n, shift, delta, centre, width):
    """Posterior mean of γ under a normal prior; a prior without width leaves its centre."""
    return (n * width * shift + delta * centre) / (n * width + delta)


def _shrunk_spread(n, squares, centre, width):
    r"""Posterior mean of δ under an inverse gamma prior with this mean and variance.

    With the prior's parameters :math:`a = m^2/v + 2`, :math:`b = m^3/v + m` put into
    :math:`(b + \mathrm{squares} / 2) / (n/2 + a - 1)` and multiplied by v, which may be 0.
    """
    return (width * (squares / 2 + centre) + centre**3) / (width * (n / 2 + 1) + centre**2)


def _variance(values):
    return values.var(ddof=1) if len(values) > 1 else 0.0
