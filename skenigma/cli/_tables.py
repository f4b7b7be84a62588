"""Tables that several commands write."""

import pandas as pd

from .._transformers import proportions_std, shares_of
from ..checks.names import listing
from ..io._runs import PROPORTIONS, PROPORTIONS_STD
from ..proportions import fit_quality
from ..report import flag_samples
from ..report._contents import SHARES


def proportion_frame(fitted, samples):
    """Proportions of a fitted estimator, named."""
    return _frame(fitted.proportions_, fitted, samples)


def std_frame(fitted, samples):
    """Standard errors of these, named, or None where they are not known."""
    std = proportions_std(fitted)
    return None if std is None else _frame(std, fitted, samples)


def _frame(values, fitted, samples):
    return pd.DataFrame(values, index=samples.rename("sample"), columns=list(fitted.cell_types_))


def write_proportions(job, fitted, samples):
    """Write proportions of a fitted estimator, and their standard errors if they are known; say what they are of."""
    write_shares(job, proportion_frame(fitted, samples), std_frame(fitted, samples), shares_of(fitted))


def write_shares(job, proportions, std, shared):
    """Write ``proportions.tsv``, and ``proportions_std.tsv`` unless None; say what they are shares of."""
    job.write(proportions, PROPORTIONS)
    if std is not None:
        job.write(std, PROPORTIONS_STD)
    if shared is not None:
        job.result["shares_of"] = shared
        job.console.facts([("proportions", SHARES[shared])])


def quality_frame(proportions, bulk, reference):
    """How well the profiles, mixed by the proportions in use, reproduce each sample, with a flag."""
    quality = fit_quality(bulk, reference, proportions)
    return flag_samples(quality).rename_axis("sample")


def warn_flagged(quality, console):
    """Warn of samples that are no good mixtures of the profiles."""
    flagged = quality.index[quality["flag"] != ""]
    if len(flagged):
        console.warn(
            f"{len(flagged)} of {len(quality)} samples are poorly described as mixtures of the profiles: "
            f"{listing(list(flagged))}. See quality.tsv."
        )
