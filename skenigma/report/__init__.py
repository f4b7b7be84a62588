"""One self-contained page of HTML on a run or a fitted model."""

from ._contents import history_frame
from ._page import build_report

__all__ = ["build_report", "history_frame"]
