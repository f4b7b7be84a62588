"""Many jobs on one cohort: a process draws and holds it, and every job runs in a process forked from that one.

So a cohort is drawn once, what comes before a job (a fitted model) is made once, and a job still begins with the same
memory as any other, and leaves nothing behind.
"""

import multiprocessing
import resource  # not on Windows, where nothing forks
import signal
import time
import warnings

from threadpoolctl import threadpool_limits

from .fresh import memory, release, reset_peak
from .jobs import JOBS, Cohort

# Samples, genes and cell types of the cohort on which a job is done first, so that what a first call loads and
# compiles does not count.
SMALL = 12, 60, 3


class Holder:
    """The process that holds a cohort, from outside; a context manager.

    Parameters
    ----------
    threads : int or None
        Limit for the threads of BLAS and OpenMP.
    """

    def __init__(self, threads=None):
        context = multiprocessing.get_context("spawn")
        self._connection, other = context.Pipe()
        self._process = context.Process(target=_serve, args=(other, threads))

    def __enter__(self):
        self._process.start()
        return self

    def __exit__(self, *_):
        self._connection.send(None)
        self._process.join()

    def measure(self, name, shape, limit):
        """Seconds of processor time of a job, and megabytes that it takes beyond its input.

        Parameters
        ----------
        name : str
            One of ``JOBS``.
        shape : tuple of int
            Samples, genes and cell types. The cohort of the last call is kept, to be used if it has this shape.
        limit : int
            Seconds of processor time after which the job is ended.

        Returns
        -------
        tuple of float or None
            None if the job was ended, for its time or by the system for its memory.
        """
        self._connection.send((name, shape, limit))
        while not self._connection.poll(1.0):
            if not self._process.is_alive():
                raise RuntimeError(f"The process of {name!r} at {shape} ended without an answer; see above.")
        return self._connection.recv()


def _serve(connection, threads):
    """Answer what a ``Holder`` asks, until it sends None."""
    warnings.simplefilter("ignore")
    small, held, warm = Cohort(*SMALL), None, set()
    with threadpool_limits(threads):
        while (asked := connection.recv()) is not None:
            name, shape, limit = asked
            if held is None or held.shape != shape:
                held = None  # before the next is drawn
                held = Cohort(*shape)
            connection.send(_measure(name, small, held, limit, warm))


def _measure(name, small, cohort, limit, warm):
    job = JOBS[name]
    _prepare(job, small)
    # threads do not survive a fork: a job that starts them does so in its own process only
    if name not in warm and not job.own_threads:
        job.run(small)
        warm.add(name)
    _prepare(job, cohort)
    return apart(_run, job, small, cohort, limit=limit)


def _prepare(job, cohort):
    """Make what comes before the job, once for all jobs that need it."""
    if job.prepare and job.prepare not in cohort.prepared:
        job.prepare(cohort)
        cohort.prepared.add(job.prepare)


def _run(job, small, cohort):
    # again: the pages of libraries are a process's own, and would be counted
    job.run(small)
    release()
    reset_peak()
    before, start = memory()[0], time.process_time()
    job.run(cohort)
    seconds = time.process_time() - start
    return seconds, max(memory()[1] - before, 0.1)


def apart(function, *arguments, limit=None):
    """What a function returns in a process forked from this one; None if that was ended for its time or memory."""
    context = multiprocessing.get_context("fork")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_answer, args=(sender, limit, function, *arguments))
    process.start()
    sender.close()
    try:
        found = receiver.recv()
    except EOFError:
        found = None
    process.join()
    if process.exitcode not in (0, -signal.SIGXCPU, -signal.SIGKILL):
        raise RuntimeError(f"A process forked for {arguments[0]} ended with {process.exitcode}.")
    return found


def _answer(sender, limit, function, *arguments):
    if limit:
        resource.setrlimit(resource.RLIMIT_CPU, (limit, limit))
    sender.send(function(*arguments))
