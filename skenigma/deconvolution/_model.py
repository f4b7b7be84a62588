"""What a model is given, what it answers, and what is kept of the answer."""

from dataclasses import dataclass, field, replace

import numpy as np

from ..expression._sources import Conversion


@dataclass(frozen=True)
class Cohort:
    """What a model estimates from: a cohort on the scale of the model, its genes matched and its values checked.

    Parameters
    ----------
    bulk : ndarray of shape (n_samples, n_genes)
        May be the caller's memory: not to be written to.
    reference : ndarray of shape (n_cell_types, n_genes)
        Profiles.
    proportions : ndarray of shape (n_samples, n_cell_types)
        Rows sum to 1, up to 0.05.
    cell_types, gene_names : ndarray of str
        Names of the cell types and genes.
    sample_names : ndarray of str, or None
        None where X has none.
    X : array-like
        What ``fit`` was given, for callbacks.
    raw : ndarray of shape (n_samples, n_genes), or None
        The bulk on the scale of X.
    given : dict, default={}
        What else the model was told of the samples: by name, as ``map.replay`` takes it.
    """

    bulk: np.ndarray
    reference: np.ndarray
    proportions: np.ndarray
    cell_types: np.ndarray
    gene_names: np.ndarray
    sample_names: np.ndarray | None = None
    X: object = None
    raw: np.ndarray | None = None
    given: dict = field(default_factory=dict)

    def select(self, samples):
        """Take some of its samples.

        Parameters
        ----------
        samples : slice or ndarray of int
            Which ones.

        Returns
        -------
        cohort : Cohort
            Of these.
        """
        names = None if self.sample_names is None else self.sample_names[samples]
        return replace(
            self,
            bulk=self.bulk[samples],
            proportions=self.proportions[samples],
            sample_names=names,
            raw=None if self.raw is None else self.raw[samples],
        )


@dataclass(frozen=True)
class Estimate:
    """What a model answers.

    Parameters
    ----------
    map : object
        ``map.replay(bulk, proportions)`` gives the state of any samples, each on its own and those of the cohort as
        they were fitted, on the scale of the model. A state answers ``expand(samples, cell_types, genes)``, where
        each argument is a slice or an array of positions: a new array of expression. It may also answer
        ``deviations(...)`` and ``interval(level, ...)``, see
        :class:`skenigma.expression.Converted`. Both must be picklable.
    state : callable or None, default=None
        Makes the state of the cohort from its bulk, where that is less work than to replay it.
    record : dict, default={}
        Fitted attributes by name, such as ``n_iter_``, ``converged_`` and histories; names end in an underscore.
    """

    map: object
    state: object = None
    record: dict = field(default_factory=dict)


@dataclass(frozen=True)
class Outcome:
    """What a fitted estimator keeps for new samples.

    Attributes
    ----------
    map : object
        Of the :class:`Estimate`.
    conversion : Conversion
    normalization : list or None
        A fitted normalisation per cell type.
    output_types : slice or ndarray of int
        Positions of ``output_cell_types``.
    recorded : tuple of str
        Attributes that came with the estimate; another fit may not set them.
    """

    map: object
    conversion: Conversion
    normalization: list | None
    output_types: object
    recorded: tuple
