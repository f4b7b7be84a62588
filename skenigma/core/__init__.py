"""Numerical core: NumPy and SciPy arrays in, arrays out; no names, frames or estimators."""
