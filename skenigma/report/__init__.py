"""One self-contained page of HTML on a run or a fitted model."""

from ._contents import flag_samples, history_frame
from ._page import build_report

__all__ = ["build_report", "flag_samples", "history_frame"]
