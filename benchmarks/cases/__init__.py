"""The cases; importing this package registers them all, in the order in which they run."""

from . import models, passes, proportions, cells, findings, growth, by_rows, cluster  # noqa: F401, I001 - the order is that of the report
