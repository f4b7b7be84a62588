"""How estimators are shown: tables among their parameters by their shape."""

from functools import cache

import numpy as np

# A table of more numbers than this is shown by its shape.
SHOWN_NUMBERS = 20


class Shape:
    """Stands for a table where an estimator is shown."""

    def __init__(self, table):
        self._text = f"<{type(table).__name__} of {' × '.join(f'{size}' for size in table.shape)}>"

    def __repr__(self):
        return self._text


class ShortRepr:
    """Estimators that show tables among their parameters by their shape."""

    @classmethod
    @cache
    def _get_param_names(cls):
        # scikit-learn reads the signature whenever it is asked, a few times in every fit
        return super()._get_param_names()

    def __repr__(self, N_CHAR_MAX=700):
        shown = object.__new__(type(self))
        vars(shown).update(vars(self))
        for name in self._get_param_names():
            value = vars(self).get(name)
            if hasattr(value, "shape") and np.size(value) > SHOWN_NUMBERS:
                vars(shown)[name] = Shape(value)
        return super(ShortRepr, shown).__repr__(N_CHAR_MAX)
