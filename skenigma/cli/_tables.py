"""Tables that several commands write."""

import pandas as pd

from ..checks.validation import listing
from ..proportions import fit_quality
from ..report import flag_samples


def proportion_frame(fitted, samples):
    """Proportions of a fitted estimator, named."""
    return pd.DataFrame(fitted.proportions_, index=samples.rename("sample"), columns=list(fitted.cell_types_))


def quality_frame(fitted, bulk, reference):
    """How well the profiles, mixed by the proportions in use, reproduce each sample, with a flag."""
    quality = fit_quality(bulk, reference, fitted.proportions_)
    return flag_samples(quality).rename_axis("sample")


def warn_flagged(quality, console):
    """Warn of samples that are no good mixtures of the profiles."""
    flagged = quality.index[quality["flag"] != ""]
    if len(flagged):
        console.warn(
            f"{len(flagged)} of {len(quality)} samples are no good mixtures of the profiles: "
            f"{listing(list(flagged))}. See quality.tsv."
        )
