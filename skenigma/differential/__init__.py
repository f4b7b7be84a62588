"""Differential expression per cell type."""

from ._tests import differential_expression, interaction_test, joint_test, marginal_test

__all__ = ["differential_expression", "interaction_test", "joint_test", "marginal_test"]
