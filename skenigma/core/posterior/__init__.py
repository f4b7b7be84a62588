"""Posterior of cell-type-specific expression on the log scale."""
