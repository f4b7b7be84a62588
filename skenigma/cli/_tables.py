"""Tables that several commands write."""

import pandas as pd


def proportion_frame(fitted, samples):
    """Proportions of a fitted estimator, named."""
    return pd.DataFrame(fitted.proportions_, index=samples.rename("sample"), columns=list(fitted.cell_types_))


def quality_frame(estimator, samples):
    """Quality of the proportions per sample, None where the estimator measured none."""
    quality = getattr(estimator, "quality_", None)
    if quality is None:
        return None
    return pd.DataFrame(quality).set_axis(samples.rename("sample"), axis=0)
