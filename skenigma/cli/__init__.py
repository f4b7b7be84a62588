"""The command line: ``skenigma reference | proportions | deconvolve | differential | simulate | report``."""

from ._main import main
from ._parser import help_texts

__all__ = ["help_texts", "main"]
