"""Momentum of accelerated proximal gradient iterations.

It follows Nesterov's sequence as in FISTA [1]_, starts anew where the step leads uphill, the gradient scheme of [2]_,
and never exceeds the square of the ratio by which the last step was shorter than the one before: where plain steps
converge within a few iterations, momentum would overshoot.

References
----------
.. [1] A. Beck and M. Teboulle (2009). A fast iterative shrinkage-thresholding algorithm for linear inverse problems.
   SIAM Journal on Imaging Sciences 2(1), 183-202.
.. [2] B. O'Donoghue and E. Candès (2015). Adaptive restart for accelerated gradient schemes. Foundations of
   Computational Mathematics 15, 715-732.
"""

import numpy as np


class Momentum:
    """How far each step starts beyond the current expression.

    Attributes
    ----------
    value : float
        Factor ω of the last change.
    """

    def __init__(self):
        self.value = 0.0
        self._age, self._length = 1.0, 0.0

    def update(self, length, uphill):
        """Set the value for the next step.

        Parameters
        ----------
        length : float
            Length of the last change.
        uphill : bool
            Whether the change went against the step: momentum then starts anew.
        """
        contraction = min(1.0, length / self._length) if self._length > 0 else 0.0
        self._length = length
        self._age = 1.0 if uphill else _older(self._age)
        self.value = min((self._age - 1.0) / _older(self._age), contraction**2)


def _older(age):
    """Next term of Nesterov's sequence."""
    return 0.5 * (1.0 + np.sqrt(1.0 + 4.0 * age**2))
