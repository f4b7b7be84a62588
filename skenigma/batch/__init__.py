"""Correction of batch effects between bulk and reference."""

from ._correctors import BulkBatchCorrector, ReferenceBatchCorrector

__all__ = ["BulkBatchCorrector", "ReferenceBatchCorrector"]
