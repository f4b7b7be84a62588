"""Transformers that match genes to a reference and take or estimate proportions: what estimators have in common."""

import warnings

import numpy as np
import pandas as pd
from sklearn.base import BaseEstimator, TransformerMixin, clone
from sklearn.frozen import FrozenEstimator
from sklearn.pipeline import Pipeline
from sklearn.utils.validation import check_is_fitted

from ._pickles import VersionedPickle
from ._repr import ShortRepr
from .checks.facts import examine
from .checks.genes import match_genes
from .checks.labels import row_labels
from .checks.names import column_names, listing, numbered, refuse_repeats, row_names
from .checks.profiles import profile_findings
from .checks.samples import sample_findings
from .checks.tables import as_pandas
from .checks.units import scale_findings
from .checks.validation import check_bulk, check_lazy_bulk, check_profiles, check_proportions
from .checks.warning import warn
from .cohort import is_lazy
from .core.profiles import successive_projection
from .exceptions import ReferenceWarning, SampleWarning, ScaleWarning


class GeneTransformer(ShortRepr, VersionedPickle, TransformerMixin, BaseEstimator):
    """Transformer that works on the genes that X shares with something else.

    Fitting sets ``cell_types_`` and ``gene_names_``.
    """

    def _match_genes(self, profiles, names, X, shape):
        """Set the genes in use; returns where they stand in the profiles."""
        n_features = shape[1]
        in_bulk, in_reference = match_genes(profiles, names, shape, row_names(X))
        if names is None:
            names = numbered("x", n_features)
        self.cell_types_ = profiles.cell_types
        self.gene_names_ = names[in_bulk]
        self._gene_positions = None if len(in_bulk) == n_features else in_bulk
        return in_reference

    def _new_bulk(self, X):
        """Validated X, on the genes of the fit."""
        check_is_fitted(self)
        if not is_lazy(X):
            return self._align(check_bulk(self, X, reset=False))
        check_lazy_bulk(self, X, reset=False)
        return self._examined(X)

    def _with_genes_of_fit(self, X):
        """X with the columns of the fit, found by name where both are named; others are left out."""
        check_is_fitted(self)
        given, known = column_names(X, "X"), getattr(self, "feature_names_in_", None)
        if given is None or known is None or np.array_equal(given, known):
            return X
        # an estimator of proportions of the user's sees all columns; those that are not in use are 0 otherwise
        needed = self.gene_names_ if getattr(self, "proportion_estimator", None) is None else known
        missing = pd.Index(needed).difference(given, sort=False)
        if len(missing):
            raise ValueError(
                f"X lacks {len(missing)} of the {len(needed)} genes of the fit: {listing(list(missing))}."
            )
        kept = np.isin(given, known)
        refuse_repeats(given[kept], "Genes of X", "Sum, average or drop the repeated columns first.")
        if is_lazy(X):
            positions = pd.Index(given).get_indexer(known)
            missing = known[positions < 0]
            if len(missing):
                raise ValueError(
                    f"X lacks {len(missing)} of the {len(known)} genes of the fit: {listing(list(missing))}."
                )
            return X.select(positions)
        X = as_pandas(X)
        return X.loc[:, kept].reindex(columns=known, fill_value=0.0)

    def _align(self, bulk):
        return bulk if self._gene_positions is None else bulk[:, self._gene_positions]

    def _examined(self, X):
        """A matrix that is not in memory, on the genes of the fit, after one reading in which it was checked."""
        bulk = X.select(self._gene_positions)
        expressed = self.reference_.max(axis=0) > 0
        examine(bulk, names=column_names(X, "X"), expressed=expressed)
        return bulk

    def _genes_out(self, input_features):
        """Names of the genes in use, for transformers that put out genes."""
        check_is_fitted(self)
        if not self._check_input_features(input_features):
            return self.gene_names_
        return self._align(np.asarray(input_features, dtype=object)[None])[0]

    def _check_input_features(self, names):
        """Whether ``names`` are given; a ValueError if they are not the genes of the fit."""
        if names is None:
            return False
        known = getattr(self, "feature_names_in_", None)
        if known is not None and not np.array_equal(names, known):
            raise ValueError("input_features is not equal to feature_names_in_")
        if len(names) != self.n_features_in_:
            raise ValueError(
                f"input_features should have length equal to the number of features ({self.n_features_in_}), "
                f"got {len(names)}"
            )
        return True

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        return tags


class ReferenceTransformer(GeneTransformer):
    """Transformer whose ``reference`` is matched to the genes of X.

    Subclasses have the parameters ``reference`` and ``n_components``; fitting sets ``reference_``, too.
    """

    # what to do with a bulk that is not in memory, of what needs all of it at once
    _instead_of_rows: str | None = None

    def _fit_genes(self, X, min_samples=1):
        """Validated X on the genes it shares with the reference."""
        lazy = is_lazy(X)
        if lazy and self._instead_of_rows:
            raise ValueError(
                f"{type(self).__name__} needs all of X in memory, and this X is read by rows. {self._instead_of_rows}"
            )
        bulk = (check_lazy_bulk if lazy else check_bulk)(self, X, reset=True, min_samples=min_samples)
        bulk = X if lazy else bulk
        names = getattr(self, "feature_names_in_", None)
        if lazy and self.reference is None:
            raise ValueError(
                "Profiles are learned from a bulk in memory: pass a reference with an X that is not."
            )
        reference = self._learn_reference(bulk, names) if self.reference is None else self.reference
        profiles = check_profiles(reference, bulk.dtype)
        in_reference = self._match_genes(profiles, names, X, bulk.shape)
        self.reference_ = np.ascontiguousarray(profiles.values[:, in_reference])
        return self._examined(X) if lazy else self._align(bulk)

    def _warn_of_data(self, X, bulk, **options):
        """Say what speaks against samples, profiles, and the scales of both."""
        found = (
            (SampleWarning, sample_findings(bulk, row_names(X))),
            (ReferenceWarning, profile_findings(self.reference_, self.cell_types_)),
            (ScaleWarning, scale_findings(bulk, self.reference_, row_names(X), **options)),
        )
        for category, findings in found:
            for finding in findings:
                warn(finding.message, category)

    def _match_like(self, fitted):
        """Take over the reference, and the genes of X in use, of another fitted estimator."""
        self.cell_types_, self.reference_ = fitted.cell_types_, fitted.reference_
        self.gene_names_, self._gene_positions = fitted.gene_names_, fitted._gene_positions
        self.n_features_in_ = fitted.n_features_in_
        if hasattr(fitted, "feature_names_in_"):
            self.feature_names_in_ = fitted.feature_names_in_

    def _learn_reference(self, bulk, names):
        if self.n_components > len(bulk):
            raise ValueError(
                f"n_components={self.n_components} profiles cannot be learned from n_samples = {len(bulk)}: "
                f"give a reference, more samples, or fewer components."
            )
        warn(
            f"No reference was given: {self.n_components} profiles were learned from X, its purest samples, and "
            f"called celltype0, celltype1 and so on. They are not cell types that anyone has identified: pass "
            f"reference=, a profile per cell type.",
            ReferenceWarning,
        )
        return bulk[successive_projection(bulk, self.n_components)]


class ProportionsTransformer(ReferenceTransformer):
    """Transformer whose fit needs the proportions of its samples, given or by ``proportion_estimator``.

    A subclass provides ``_default_proportion_estimator()``.

    Notes
    -----
    What is asked of an estimator of proportions:

    - ``fit(X)``, and ``transform(X)`` or else ``predict(X)`` for an array of shape (n_samples, n_cell_types), with X
      as it was given. Columns are matched by name where the result is a DataFrame, or ``cell_types_`` or
      ``get_feature_names_out`` name them; else they are in the order of the cell types. A parameter ``reference``
      that is None is set to the profiles in use. What is in a :class:`~sklearn.frozen.FrozenEstimator` is not fitted.
    - It may offer ``fit_matched(model, bulk, sample_names, estimate)`` and ``transform_matched(bulk, sample_names)``.
      Unless it has a ``reference`` of its own, it is then given what the model has checked and matched already:
      ``model.reference_`` with ``model.cell_types_`` and ``model.gene_names_``, and the bulk on these genes.
      ``fit_matched`` leaves ``proportions_`` of the bulk, unless ``estimate`` is False because they are known.
      ``transform_matched`` returns those of other samples. Columns are in the order of ``cell_types_``.
    - It may leave ``proportions_std_`` and ``shares_of_``, as :class:`~skenigma.ProportionEstimator` does, beside
      ``proportions_``.
    """

    def _fit_proportions(self, X, bulk, proportions):
        """Proportions of the cohort; fits ``proportion_estimator_``."""
        given = self.proportion_estimator
        estimator = self._default_proportion_estimator() if given is None else clone(given, safe=False)
        self.proportion_estimator_ = estimator
        if _takes_matched(estimator):
            estimator.fit_matched(self, bulk, row_names(X), estimate=proportions is None)
            proportions = estimator.proportions_ if proportions is None else proportions
        elif not isinstance(estimator, FrozenEstimator):
            if getattr(estimator, "reference", self) is None:
                estimator.set_params(reference=reference_frame(self))
            with warnings.catch_warnings():
                # this estimator has looked at the same values
                for category in (SampleWarning, ScaleWarning):
                    warnings.simplefilter("ignore", category)
                estimator.fit(X)
        return self._new_proportions(X, bulk, proportions)

    def _new_proportions(self, X, bulk, proportions):
        """Given or estimated proportions of the rows of X, checked."""
        estimator = self.proportion_estimator_
        if proportions is None and _takes_matched(estimator):
            proportions = estimator.transform_matched(bulk, row_names(X))
        elif proportions is None:
            found = estimator.transform(X) if hasattr(estimator, "transform") else estimator.predict(X)
            columns = _output_names(estimator, found, self.cell_types_)
            # of the rows of X, in their order
            return check_proportions(
                pd.DataFrame(np.asarray(found), columns=columns), self.cell_types_, len(bulk), None
            )
        return check_proportions(proportions, self.cell_types_, len(bulk), row_labels(X))


def _takes_matched(estimator):
    """Whether an estimator of proportions is given what a model has matched, see :class:`ProportionsTransformer`."""
    # a frozen estimator passes on what it is asked
    offers = hasattr(estimator, "fit_matched") and not isinstance(estimator, FrozenEstimator)
    return offers and getattr(estimator, "reference", None) is None


def reference_frame(fitted):
    """The profiles in use of a fitted estimator, named as far as its X was, to be given to another."""
    genes = fitted.gene_names_ if hasattr(fitted, "feature_names_in_") else None
    return pd.DataFrame(fitted.reference_, index=fitted.cell_types_, columns=genes)


def proportions_std(fitted):
    """Standard errors of the proportions of a fitted model or estimator, None where they are not known."""
    return getattr(_estimated_by(fitted), "proportions_std_", None)


def shares_of(fitted):
    """What the proportions of a fitted model or estimator are shares of: "RNA", "cells", or None: not known."""
    return getattr(_estimated_by(fitted), "shares_of_", None)


def _estimated_by(fitted):
    """The estimator whose answer the proportions of a fit are, None where they were given."""
    estimator = getattr(fitted, "proportion_estimator_", fitted)
    found = getattr(estimator, "proportions_", None)
    same = found is not None and np.shape(found) == np.shape(fitted.proportions_)
    # a model may hold them in another type
    return estimator if same and np.allclose(found, fitted.proportions_, rtol=0, atol=1e-6) else None


def aligned_bulk(fitted, X):
    """Validated X on the genes of a fitted estimator."""
    return fitted._new_bulk(X)


def gene_positions(fitted):
    """Where the genes in use stand in X, as a slice or an array."""
    return slice(None) if fitted._gene_positions is None else fitted._gene_positions


def _output_names(estimator, output, cell_types):
    """Names of the columns that ``estimator`` put out, None if they have none to be matched by."""
    if isinstance(estimator, Pipeline):
        estimator = estimator[-1]
    for named in (getattr(output, "columns", None), getattr(estimator, "cell_types_", None)):
        if named is not None:
            return named
    names = getattr(estimator, "get_feature_names_out", lambda: ())()
    return names if set(names) == set(cell_types) else None
