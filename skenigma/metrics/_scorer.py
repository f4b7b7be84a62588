"""Recovery of expression as a scorer for model selection."""

from collections.abc import Callable

import numpy as np
import pandas as pd
from sklearn.pipeline import Pipeline

from ..checks.labels import match_rows, row_labels
from ..checks.names import listing
from ._checks import check_choice
from ._expression import METHODS, recovery_score, root_mean_squared_error


def recovery_scorer(kind: str = "per_gene", *, method: str = "pearson", undefined: str = "zero") -> Callable:
    """Make a scorer for scikit-learn's model selection that takes the true expression as ``y``.

    Parameters
    ----------
    kind : {"per_gene", "per_sample", "neg_rmse"}, default="per_gene"
        :func:`recovery_score` per gene or per sample, or minus :func:`root_mean_squared_error`. Per gene needs
        several samples in every test fold.
    method : {"pearson", "spearman"}, default="pearson"
        Kind of correlation; not for "neg_rmse".
    undefined : {"zero", "omit", "nan"}, default="zero"
        What an estimate that does not vary counts for, see :func:`recovery_score`; not for "neg_rmse".

    Returns
    -------
    scorer : callable
        ``scorer(estimator, X, y)``, larger is better, for the parameter ``scoring`` of
        :class:`~sklearn.model_selection.GridSearchCV` and its like. ``estimator`` is a deconvolver, or a Pipeline
        that ends in one; y is the truth for the rows of X, of shape (n_samples, n_cell_types, n_genes)
        or flattened to (n_samples, n_cell_types * n_genes). Columns of a frame are matched by name
        ("cell type:gene"), others by position.

    Examples
    --------
    >>> from sklearn.model_selection import GridSearchCV
    >>> from skenigma import L2MaxDeconvolver
    >>> from skenigma.datasets import make_cohort
    >>> from skenigma.metrics import recovery_scorer
    >>> cohort = make_cohort(n_samples=40, n_genes=200, random_state=0)
    >>> search = GridSearchCV(
    ...     L2MaxDeconvolver(reference=cohort.reference, renorm_size=None),
    ...     {"alpha": [0.1, 0.9]},
    ...     scoring=recovery_scorer("per_gene"),
    ...     cv=2,
    ... )
    >>> search.fit(cohort.bulk, cohort.cse).best_params_
    {'alpha': 0.1}
    """
    check_choice(kind, ("per_gene", "per_sample", "neg_rmse"), "kind")
    check_choice(method, METHODS, "method")
    check_choice(undefined, ("zero", "omit", "nan"), "undefined")
    return _RecoveryScorer(kind, method, undefined)


class _RecoveryScorer:
    """Scorer of :func:`recovery_scorer`; a class, so that it can be pickled and shows its settings."""

    def __init__(self, kind, method, undefined):
        self.kind, self.method, self.undefined = kind, method, undefined

    def __repr__(self):
        return f"recovery_scorer({self.kind!r}, method={self.method!r}, undefined={self.undefined!r})"

    def __call__(self, estimator, X, y):
        found = estimator.transform(X)
        # with set_output, transform returns a frame, which has names
        names = getattr(found, "columns", None)
        found = np.asarray(found)
        final = estimator[-1] if isinstance(estimator, Pipeline) else estimator
        if isinstance(y, pd.DataFrame):
            y = y.iloc[match_rows(y, row_labels(X), "rows of y")]
            y = _match_columns(y, final.get_feature_names_out() if names is None else names)
        shape = (len(found), -1, len(final.gene_names_))
        truth = np.asarray(y)
        if truth.ndim == 2 and truth.shape == found.shape:
            truth = truth.reshape(shape)
        return self.score(truth, found.reshape(shape))

    def score(self, cse_true, cse_pred):
        """Score of an estimate, larger is better."""
        if self.kind == "neg_rmse":
            return -root_mean_squared_error(cse_true, cse_pred)
        per = self.kind.removeprefix("per_")
        return recovery_score(cse_true, cse_pred, per=per, method=self.method, undefined=self.undefined)


def _match_columns(frame, names):
    missing = pd.Index(names).difference(frame.columns)
    if len(missing):
        raise ValueError(
            f"y does not name {listing(list(missing))} of what transform returns: name its columns "
            f"'cell type:gene', or pass an array to match by position."
        )
    return frame.loc[:, list(names)]
