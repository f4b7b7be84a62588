"""Numbers and lists of names as a reader wants them."""

import re

import numpy as np
import pandas as pd

# p-values of a page go down to this: single precision has none much smaller
LEAST_P = 1e-36


def counted(number, noun, plural=None):
    """As "1 gene" and "20,000 genes"."""
    return f"{number:,} {noun if number == 1 else plural or noun + 's'}"


def named(names, shown=5):
    """As "A, B and C", or the first few and how many more there are."""
    names = [str(name) for name in names]
    if len(names) > shown:
        return f"{', '.join(names[:shown])} and {len(names) - shown:,} more"
    return " and ".join([", ".join(names[:-1]), names[-1]]) if len(names) > 1 else "".join(names)


def percent(share):
    """A share with two digits, and with enough of them where it is small."""
    value = 100 * float(share)
    if not np.isfinite(value):
        return "–"
    if value != 0 and abs(value) < 0.1:
        text = f"{value:.1g}%"
    else:
        text = f"{value:.1f}%" if abs(value) < 10 else f"{value:,.0f}%"
    return text.replace("-", "−")


def number(value):
    """A number with three digits; a dash where there is none."""
    if value is None or pd.isna(value):
        return "–"
    if isinstance(value, (int, np.integer)):
        return f"{value:,}"
    if value != 0 and (abs(value) >= 1e5 or abs(value) < 1e-3):
        return _powers(f"{value:.2e}")
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def p_text(value):
    """A p-value: never "0"."""
    if pd.isna(value):
        return "–"
    if value < LEAST_P:
        return f"< {LEAST_P:.0e}"
    return f"{value:.2g}" if value >= 1e-3 else _powers(f"{value:.1e}")


def _powers(text):
    """Powers of ten as the script writes them, "9.2e-4"."""
    return re.sub(r"e([+-])0*(\d)", r"e\1\2", text)
