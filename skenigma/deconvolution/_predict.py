"""What a fitted model makes of new samples: each is mapped on its own, as those of the cohort were."""

from dataclasses import replace

from .._parameters import documented
from ..checks.names import row_names
from ..checks.scales import SCALES
from ..checks.validation import few_blas_threads
from ..cohort import is_lazy, open_bulk
from ..expression._derived import normalized
from ._level import measure_level
from ._output import FittedExpression
from ._rows import replay, transform_by_rows

# Numbers of a result up to which threads of the BLAS cost more in a whole fit than they give: the threads of a
# product spin for a while after it, and where two share a core they slow down what follows.
SMALL_RESULT = 2**24


def few_threads(model, bulk):
    """Context in which the BLAS runs on one thread, if the expression of ``bulk`` is small."""
    return few_blas_threads(bulk.size * len(model.cell_types_) <= SMALL_RESULT)


@documented
class ExpressionPredictor(FittedExpression):
    """Base of an estimator that maps samples it was not fitted to."""

    def transform(self, X, *, proportions=None):
        """Cell-type-specific expression of any samples, each mapped on its own as the cohort was.

        Parameters
        ----------
        {X_new}
        {proportions}

        Returns
        -------
        {cse}
        """
        return self._transform(X, proportions)

    def _transform(self, X, proportions, **given):
        X = open_bulk(X)
        if is_lazy(X):
            return transform_by_rows(self, X, proportions, given)
        return self._transform_bulk(X, self._new_bulk(X), proportions, given)

    def _transform_bulk(self, X, bulk, proportions, given):
        with few_threads(self, bulk):
            found = self._predict(X, bulk, proportions, **given)
            if self.normalize is not None:
                found = normalized(found, self._outcome.normalization)
            return self._flat(found)

    def predict_expression(self, X, *, proportions=None):
        """Expression of any samples as an object, each mapped on its own as the cohort was.

        Parameters
        ----------
        {X_named}
        {proportions}

        Returns
        -------
        expression : CellTypeExpression
            Before ``normalize``, like ``expression_``; values are built when they are asked for.
        """
        return self._predict_expression(X, proportions)

    def _predict_expression(self, X, proportions, **given):
        X = self._with_genes_of_fit(open_bulk(X))
        bulk = self._new_bulk(X)
        with few_threads(self, bulk):
            found = self._predict(X, bulk, proportions, **given)
            return replace(found, level=measure_level(found, bulk))

    def _predict(self, X, bulk, proportions, **given):
        """Expression of new samples, from their bulk on the genes in use."""
        state, proportions = self._predict_state(X, bulk, proportions, **given)
        shares = proportions.astype(bulk.dtype, copy=False)
        return self._as_expression(state, self._outcome.conversion, shares, row_names(X), bulk)

    def _predict_state(self, X, bulk, proportions, **given):
        """State of new samples on the scale of the model, and their proportions."""
        proportions = self._new_proportions(X, bulk, proportions)
        return replay(self._outcome.map, self._to_model_scale(X, bulk), proportions, **given), proportions

    def _to_model_scale(self, X, bulk):
        """Bulk on the scale on which the model is fitted."""
        return self._scaled(bulk, "X", row_names(X))

    def _reference_on_model_scale(self):
        """The profiles on the same scale."""
        return self._scaled(self.reference_, "reference", self.cell_types_)

    def _scaled(self, values, what, names):
        """Rows on the scale of the model; ``what`` they are and their names, or None, for messages."""
        return SCALES[self.preprocess].apply(values, what, names, self.gene_names_)
