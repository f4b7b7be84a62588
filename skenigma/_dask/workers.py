"""Partitions of a cohort on the workers of a dask cluster: they keep or read the rows, and this process gets sums.

Each worker has an actor, :class:`Holder`, with some of the partitions. A call of a method of all partitions is one
message to every worker. What changes partitions is remembered: when a worker is lost, its partitions are made again
on the others, from the same sources, and follow the same calls, so that the fit goes on where it was.
"""

import asyncio
import pkgutil
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import numpy as np

from .._version import __version__
from ..checks.names import listing

# Seconds after which a call without an answer is taken as a reason to ask whether its worker is still there.
PATIENCE = 2.0
# Seconds that a cluster without workers has to start one, and between looks whether it has.
WAIT_FOR_WORKERS, EVERY = 60.0, 0.1
# So many workers may be lost with the same partition: then it is the partition that ends them.
MOST_LOSSES = 3


class Holder:
    """The partitions that one worker has.

    Parameters
    ----------
    sources : dict of int to object
        What they are made of, by their number.
    n_threads : int
    """

    def __init__(self, sources, n_threads):
        self._sources, self._n_threads = sources, n_threads
        self._parts = None

    def call(self, method, args, entering):
        """Call a method of all partitions.

        Parameters
        ----------
        method : str
        args : tuple
        entering : tuple of (callable, list), or None
            What makes a partition of a source, and the calls that it has to follow first: of the first call.

        Returns
        -------
        answers : dict of int to object, or None
            Of the partitions, by number.
        error : Exception or None
            What one of them raised. So what :mod:`distributed` raises is about the worker, never about the data.
        """
        try:
            with ThreadPoolExecutor(self._n_threads) as pool:
                if self._parts is None:
                    self._parts = list(pool.map(partial(_entered, *entering), self._sources.values()))
                answers = pool.map(partial(_answer, method, args), self._parts)
                return dict(zip(self._sources, answers, strict=True)), None
        except Exception as error:
            return None, error


def _entered(make, past, source):
    with _quiet():
        part = make(source)
    for method, args in past:
        _answer(method, args, part)
    return part


def _answer(method, args, part):
    with _quiet():
        return getattr(part, method)(*args)


def _quiet():
    """What overflows is refused as divergence; every thread has settings of its own."""
    return np.errstate(over="ignore", invalid="ignore")


class Held:
    """A :class:`Holder` on its worker, seen from here.

    Parameters
    ----------
    numbers : list of int
        The partitions that it holds.
    address : str
        Of its worker.
    future : distributed.Future
        Of the actor.
    entering : tuple
        Of its first call.
    """

    def __init__(self, numbers, address, future, entering):
        self.numbers, self.address = numbers, address
        self._future, self._entering, self._actor = future, entering, None

    def ask(self, method, args, is_there):
        """Send a call; a function that waits for its answer, None if the worker is lost.

        Parameters
        ----------
        method : str
        args : tuple
        is_there : callable
            Whether a worker is known to the scheduler.
        """
        if self._actor is None:
            try:
                self._actor = self._wait_for(self._future, is_there)
            except Exception:
                if is_there(self.address):
                    raise  # it could not be made
        if self._actor is None:
            return lambda: None
        entering, self._entering = self._entering, None
        # answers carry the errors of the partitions: all others are about the worker
        try:
            call = self._actor.call(method, args, entering)
        except Exception:
            return lambda: None

        def answer():
            try:
                return self._wait_for(call, is_there)
            except Exception:
                return None

        return answer

    def _wait_for(self, result, is_there):
        while True:
            try:
                return result.result(timeout=PATIENCE)
            except asyncio.TimeoutError:  # the built-in one from Python 3.11 on
                if not is_there(self.address):
                    return None


class Workers:
    """Partitions on the workers of a cluster, called together: an executor, see :mod:`.core.optimize.partitions`.

    Parameters
    ----------
    client : distributed.Client
    make : callable
        Makes a partition of a source.
    sources : list
        What the partitions are made of. Futures in a list arrive as what they stand for.
    asking : collection of str, default=()
        Methods that change nothing of a partition: one that is made again need not follow them.

    Raises
    ------
    RuntimeError
        If workers lack this package, or have another version of it.
    """

    def __init__(self, client, make, sources, asking=()):
        self._client, self._make, self._sources, self._asking = client, make, sources, asking
        self._past, self._losses = [], [0] * len(sources)
        check_workers(client)
        self._held = self._place(range(len(sources)))

    def all(self, method, *args):
        """Call a method of every partition.

        Parameters
        ----------
        method : str
        *args : object

        Returns
        -------
        answers : list
            In the order of the partitions, whatever worker they are on: a sum over them does not depend on who was
            first.

        Raises
        ------
        RuntimeError
            If no worker is left, or the same partitions were lost again and again.
        """
        answers, asked = {}, self._held
        while asked:
            waiting = [held.ask(method, args, self._is_there) for held in asked]
            found = [answer() for answer in waiting]  # of all: none is still at work when an error is raised
            for values, error in filter(None, found):
                if error is not None:
                    raise error
                answers.update(values)
            asked = self._replaced([held for held, of_it in zip(asked, found, strict=True) if of_it is None])
        if method not in self._asking:
            self._past.append((method, args))
        return [answers[number] for number in range(len(self._sources))]

    def close(self):
        """Let the partitions go."""
        self._held = []

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.close()

    def _is_there(self, address):
        return address in self._threads()

    def _threads(self):
        """Number of threads by worker."""
        cause = None
        if self._client.status == "running":
            try:
                return self._client.nthreads()
            except (OSError, asyncio.TimeoutError) as error:  # a lost connection is an OSError
                cause = error
        raise RuntimeError(
            "The connection to the dask scheduler is lost: the fit cannot go on. Nothing was written; restart the "
            "cluster and fit again."
        ) from cause

    def _replaced(self, lost):
        """Place the partitions of lost workers on others."""
        if not lost:
            return []
        numbers = sorted(number for held in lost for number in held.numbers)
        addresses = sorted({held.address for held in lost})
        for number in numbers:
            self._losses[number] += 1
        if max(self._losses[number] for number in numbers) >= MOST_LOSSES:
            raise RuntimeError(
                f"{MOST_LOSSES} workers of the dask cluster were lost with the same samples, the last at "
                f"{listing(addresses)}. Too little memory is the usual reason: use more or larger workers, or "
                f"smaller chunks, and fit again."
            )
        self._held = [held for held in self._held if held not in lost]
        placed = self._place(numbers, addresses)
        self._held += placed
        return placed

    def _place(self, numbers, lost=()):
        """Make partitions on the workers that there are, as many per thread everywhere."""
        threads = self._threads_of_workers(lost)
        slots = [address for address in sorted(threads) for _ in range(threads[address])]
        shares = {}
        for position, number in enumerate(numbers):
            shares.setdefault(slots[position * len(slots) // len(numbers)], []).append(number)
        return [self._hold(address, share, threads[address]) for address, share in shares.items()]

    def _threads_of_workers(self, lost):
        """Threads by worker, but for the lost ones, which the scheduler may still know; waits for the first."""
        end = time.monotonic() + WAIT_FOR_WORKERS
        while True:
            threads = {address: count for address, count in self._threads().items() if address not in lost}
            if threads:
                return threads
            if time.monotonic() > end:
                break
            time.sleep(EVERY)
        of_them = f": {listing(lost)} was lost, and no other came" if lost else ""
        raise RuntimeError(
            f"The dask cluster has no worker{of_them} within {WAIT_FOR_WORKERS:g} seconds. Start workers and fit "
            f"again, or close the Client to fit in this process."
        )

    def _hold(self, address, numbers, n_threads):
        sources = {number: self._sources[number] for number in numbers}
        future = self._client.submit(
            Holder,
            sources,
            n_threads,
            actor=True,
            workers=[address],
            allow_other_workers=False,
            pure=False,
        )
        return Held(numbers, address, future, (self._make, list(self._past)))


def check_workers(client):
    """Refuse workers that cannot hold partitions.

    Raises
    ------
    RuntimeError
        If some lack this package, or have another version of it.
    """
    # a function that every worker has: one of this package would not arrive where the package is missing
    found = client.run(pkgutil.resolve_name, f"{__name__.partition('.')[0]}:__version__", on_error="return")
    lacking = sorted(address for address, version in found.items() if not isinstance(version, str))
    if lacking:
        raise RuntimeError(
            f"Workers of the dask cluster cannot import skenigma: {listing(lacking)}. The first says "
            f"{found[lacking[0]]!r}. Install skenigma {__version__} in the environment of the workers, or close the "
            f"Client to fit in this process."
        )
    other = sorted(address for address, version in found.items() if version != __version__)
    if other:
        versions = ", ".join(sorted({found[address] for address in other}))
        raise RuntimeError(
            f"Workers of the dask cluster have skenigma {versions}, and here it is {__version__}: {listing(other)}. "
            f"Install one version everywhere."
        )
