"""``run.json``."""

import json

import numpy as np


def write_record(record, folder):
    """Write the record of a run into its folder."""
    (folder / "run.json").write_text(to_json(record) + "\n", encoding="utf-8")


def to_json(value):
    """JSON with NumPy's numbers as numbers; what JSON has no number for becomes null."""
    return json.dumps(_plain(value), indent=2, ensure_ascii=False, allow_nan=False)


def _plain(value):
    if isinstance(value, dict):
        return {str(key): _plain(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple, np.ndarray)):
        return [_plain(entry) for entry in value]
    if isinstance(value, np.generic):
        return _plain(value.item())
    if isinstance(value, float) and not np.isfinite(value):
        return None
    return value if value is None or isinstance(value, (bool, int, float, str)) else str(value)
