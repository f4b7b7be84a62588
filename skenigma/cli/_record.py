"""``run.json``."""

import json
import re

import numpy as np

# JSON allows them as they are, terminals obey some of them, and UTF-8 has no bytes for surrogates
HIDDEN = re.compile("[\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ud800-\udfff]")


def write_record(record, folder):
    """Write the record of a run into its folder."""
    (folder / "run.json").write_text(to_json(record) + "\n", encoding="utf-8")


def to_json(value, ascii_only=False):
    """JSON with NumPy's numbers as numbers; what JSON has no number for becomes null."""
    text = json.dumps(_plain(value), indent=2, ensure_ascii=ascii_only, allow_nan=False)
    return HIDDEN.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


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
