"""A self-contained web page on a run, a fitted model or an AnnData."""

from ._contents import flag_samples, history_frame
from ._page import Report, build_report, show

__all__ = ["Report", "build_report", "flag_samples", "history_frame", "show"]
