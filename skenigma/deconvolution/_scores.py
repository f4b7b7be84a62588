"""Scores whose unit depends on parameters, and searches that compare them nevertheless."""

from ..checks.warning import is_called_by, warn


class ScoreOnOwnScale:
    """Mixed into a model, in front of it, whose ``score`` has a unit that some parameters change."""

    # these parameters
    _score_depends_on: tuple = ()

    def set_params(self, **params):
        """Set the parameters of this estimator, and of those within it.

        Parameters
        ----------
        **params : dict
            Parameters by name; ``proportion_estimator__method`` is one of a nested estimator.

        Returns
        -------
        self : object
            This estimator.
        """
        searched = [name for name in self._score_depends_on if name in params]
        # a search sets parameters before it fits; what the user sets is no comparison
        if searched and is_called_by("sklearn.model_selection"):
            self._searched = searched
        return super().set_params(**params)

    def _warn_of_incomparable_scores(self):
        """Say so where a search compares scores that have no common unit."""
        if getattr(self, "_searched", None):
            warn(
                f"This search compares scores of {type(self).__name__} across {', '.join(self._searched)}. Its score "
                f"is on a scale that these parameters change, so that such scores cannot be compared. Pass a scorer "
                f"of skenigma.metrics.recovery_scorer, for a cohort whose expression is known, or use "
                f"L2MaxDeconvolverCV."
            )
