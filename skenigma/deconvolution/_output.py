"""What a fitted model tells: its expression as a tensor, as tables, and as the columns of ``transform``."""

import numpy as np
from sklearn.utils.validation import check_is_fitted

from .._parameters import documented
from .._transformers import ProportionsTransformer
from ..checks.memory import check_result
from ..checks.unchanged import Unchanged
from ..cohort import is_lazy
from ..expression import CellTypeExpression
from ..expression._sources import Converted


@documented
class FittedExpression(ProportionsTransformer):
    """Base of an estimator that has the attribute ``expression_`` once it is fitted."""

    @property
    def cse_(self):
        """Cell-type-specific expression of the cohort, (n_samples, n_cell_types, n_genes)."""
        return self._tensor("expression_")

    @property
    def cse_normalized_(self):
        """The same, normalised."""
        return self._tensor("expression_normalized_")

    @property
    def cse_std_(self):
        """Standard deviation of every value of ``cse_``, built whenever it is asked for."""
        if not self.expression_.has_std:
            raise AttributeError(f"{type(self).__name__} has no cse_std_: it estimates no deviations.")
        return self.expression_.std()

    def _tensor(self, name):
        expression = getattr(self, name)
        if not expression.is_materialized:
            raise AttributeError(
                f"This {type(self).__name__} holds no tensor, because it was fitted with materialize=False: use "
                f"{name}, which builds any part of it."
            )
        return expression.values()

    def cell_type_expression(self, cell_type, *, samples=None, genes=None, std=False):
        """Expression of one cell type in the fitted cohort, or a part of it.

        After a fit with ``materialize=False`` only what is asked for is built.

        Parameters
        ----------
        cell_type : str or int
            Name of a cell type, or its position in ``cell_types_``.
        samples, genes : None, slice, or array-like of str, int or bool, default=None
            Which of them: names, positions or a mask; None is all. Samples have names if X was a DataFrame with
            named rows.
        std : bool, default=False
            Whether to return standard deviations as well.

        Returns
        -------
        expression : DataFrame of shape (n_samples, n_genes)
            On the scale of X; before ``normalize``, like ``cse_``.
        std : DataFrame of shape (n_samples, n_genes)
            Standard deviation of every value. Only if ``std``.

        Raises
        ------
        ValueError
            If a cell type, sample or gene is not there (the message names the first), or the model has no standard
            deviations.
        """
        check_is_fitted(self)
        frame = self.expression_.to_frame(cell_type, samples=samples, genes=genes)
        if not std:
            return frame
        return frame, self.expression_.to_frame(cell_type, samples=samples, genes=genes, std=True)

    def get_feature_names_out(self, input_features=None):
        """Names of the columns of ``transform``: "cell type:gene", the cell type slowest.

        Parameters
        ----------
        {input_features}

        Returns
        -------
        names : ndarray of str
            One name per column.
        """
        genes = self._genes_out(input_features)
        cell_types = self.cell_types_[self._outcome.output_types]
        return np.array([f"{kind}:{gene}" for kind in cell_types for gene in genes], dtype=object)

    def _fitted_output(self):
        return self._flat(getattr(self, "expression_normalized_", self.expression_))

    def _flat(self, expression):
        if not expression.is_materialized:
            n_types = len(self.cell_types_[self._outcome.output_types])
            check_result((expression.shape[0], n_types, expression.shape[2]), expression.proportions.itemsize)
        values = expression.values(cell_types=self._outcome.output_types)
        return values.reshape(len(values), -1)

    def _as_expression(self, state, conversion, proportions, sample_names, bulk, *, at_once=False):
        """Expression of a state, of which all that depends on X is built ``at_once``, or whenever it is asked for."""
        # no copy of the bulk, which may be all that memory holds: what is built later tells whether X was changed
        watched = not at_once and conversion.preprocess is None and not is_lazy(bulk)  # which watches itself
        unchanged = Unchanged(bulk, sample_names) if watched else None
        source = Converted(state, conversion, bulk.dtype, unchanged)
        names = self.cell_types_, self.gene_names_, sample_names
        return CellTypeExpression(source, proportions, *names, conversion.preprocess)
