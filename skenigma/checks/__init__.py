"""Checks of what users pass in: validation, scales, warnings, optional imports."""
