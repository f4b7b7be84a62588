"""Batch correction between bulk and reference: two platforms measure the same expression differently."""

from ._bulk import BulkBatchCorrector
from ._reference import ReferenceBatchCorrector

__all__ = ["BulkBatchCorrector", "ReferenceBatchCorrector"]
