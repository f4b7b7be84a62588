"""Benchmarks, and the plain iteration that the package is measured against."""
