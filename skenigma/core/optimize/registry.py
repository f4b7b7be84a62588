"""Which function runs which solver."""

from functools import partial

from .accelerated import solve_accelerated
from .solvers import solve_framed, solve_split


def find_solver(name, penalty):
    """The function that runs solver ``name`` for ``penalty``.

    With a penalty of norms, "proximal" and "accelerated" run in the few directions that its samples share; every
    other name is a key of ``splitting.SOLVERS``, which take any penalty.
    """
    if hasattr(penalty, "caps"):
        framed = {"proximal": solve_framed, "accelerated": solve_accelerated}
        if name in framed:
            return framed[name]
    return partial(solve_split, solver=name)
