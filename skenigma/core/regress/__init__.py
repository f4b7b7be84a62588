"""Regression: robust and weighted, many genes or samples at once, and ComBat."""
