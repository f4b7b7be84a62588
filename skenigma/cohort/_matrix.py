"""A bulk as a matrix that is read by rows."""

from contextlib import contextmanager
from copy import copy

import numpy as np
import pandas as pd
from joblib import cpu_count

from ..checks.memory import check_memory
from ..checks.names import name_at
from ..core.optimize.partitions import in_threads
from ._examined import Examined
from ._sources import ChangedError, Seen
from ._visits import Visited, visited, workers_of

# Bytes of a block of rows, in float64.
BLOCK_BYTES = 2**25
# Blocks grow to whole chunks of the store up to this many times their size: a chunk is decompressed as a whole.
LARGEST_CHUNK = 8
# Rows that are picked one by one where fewer than this share of a stretch is asked for.
PICKED = 0.25

FEWER = "What reads all of it at once needs fewer samples or genes."
NOT_KEPT = (
    "it is read again and again, during a fit and for expression that is built later. Leave it as it is."
)


class LazyMatrix(Examined):
    """A bulk that is read by blocks of samples whenever it is needed, and is never in memory as a whole.

    Made by :func:`lazy_matrix`. Slices of rows are arrays; a choice of columns is as lazy as the matrix.

    Parameters
    ----------
    source : object
        Answers ``read(start, stop)``, rows as a dense array, and ``check()``, and has ``shape``, ``dtype`` and
        ``chunk_rows``, the number of rows that are stored together.
    index, columns : Index or None
        Names of samples and genes; None where there are none.
    block_bytes : int
        Size of the blocks in which it is read, in bytes of float64 values.

    Attributes
    ----------
    dtype : dtype
        float32 if the source is, else float64: what rows are converted to as they are read.
    block_rows : int
        Rows of a block: whole chunks of the store where a chunk is not much larger than ``block_bytes``.
    readings : float
        How often the source has been read so far: rows read, over rows there are. Selections of one matrix count
        together.

    Raises
    ------
    ValueError
        When rows are read: if the source is gone, cannot be read, or has changed since it was first read. The
        message names the samples.
    """

    ndim = 2

    def __init__(self, source, *, index=None, columns=None, block_bytes=BLOCK_BYTES):
        self._source = source
        self.index, self.columns = index, columns
        self.dtype = np.dtype(np.float32 if source.dtype == np.float32 else np.float64)
        self._genes, self._function, self._start = None, None, 0
        self._all_columns = None
        self._n_rows, self._n_columns = source.shape
        self._seen = Seen(source.shape)
        self.facts = None
        step = max(1, int(block_bytes) // max(1, 8 * source.shape[1]))
        chunk = source.chunk_rows
        if chunk <= LARGEST_CHUNK * step:
            step = max(1, step // chunk) * chunk
        self.block_rows = step

    @property
    def shape(self):
        """Numbers of samples and genes."""
        return self._n_rows, self._n_columns

    @property
    def source_columns(self):
        """Names of all genes of the source, selected or not; None where there are none."""
        return self.columns if self._genes is None else self._all_columns

    @property
    def size(self):
        """Number of entries."""
        return self._n_rows * self._n_columns

    @property
    def itemsize(self):
        """Bytes of an entry as it is read."""
        return self.dtype.itemsize

    @property
    def nbytes(self):
        """Bytes of all entries."""
        return self.size * self.itemsize

    @property
    def first_row(self):
        """Where the first of its rows stands in the source."""
        return self._start

    @property
    def readings(self):
        """How often the source has been read."""
        return self._seen.n_rows_read / max(1, self._source.shape[0])

    def __len__(self):
        return self._n_rows

    def __repr__(self):
        return f"LazyMatrix(shape={self.shape}, dtype={self.dtype}, block_rows={self.block_rows})"

    def select(self, genes):
        """The same matrix of some of its genes.

        Parameters
        ----------
        genes : None or ndarray of int
            Positions, in the order wanted; None is all.

        Returns
        -------
        matrix : LazyMatrix
            Of these.
        """
        if genes is None:
            return self
        if self._function is not None:
            raise ValueError("Genes are selected before a matrix is transformed.")
        chosen = self._derived()
        chosen._all_columns = self.source_columns
        chosen._genes = genes if self._genes is None else self._genes[genes]
        chosen._n_columns = len(genes)
        chosen.columns = None if self.columns is None else self.columns[genes]
        return chosen

    def rows(self, start, stop):
        """The same matrix of a stretch of its rows.

        Parameters
        ----------
        start, stop : int
            Which ones.

        Returns
        -------
        matrix : LazyMatrix
            Of these.
        """
        part = self._derived()
        part._start, part._n_rows = self._start + start, max(0, min(stop, self._n_rows) - start)
        part.index = None if self.index is None else self.index[start:stop]
        return part

    def over(self, source):
        """The same rows, read from another source.

        Parameters
        ----------
        source : object or None
            Which holds these rows and no other, or None: then they cannot be read, and are small to send.

        Returns
        -------
        matrix : LazyMatrix
            That does not know what this one has seen.
        """
        moved = self._derived()
        if moved.index is None:  # messages call them by their number in the cohort
            moved.index = pd.RangeIndex(self._start, self._start + self._n_rows)
        moved._source, moved._start = source, 0
        moved._seen = None if source is None else Seen(source.shape)
        return moved

    def place(self):
        """Where the partitions of a fit are to be, see :mod:`skenigma.core.optimize.partitions`.

        Returns
        -------
        place : callable
            On the workers of the active client, for a dask array; else in threads.
        """
        return self._on_workers() or in_threads(cpu_count())

    def _on_workers(self):
        return workers_of(getattr(self._source, "store", None), len(self))

    def apply(self, function):
        """The same matrix with every block sent through a function that changes values, not the shape.

        Parameters
        ----------
        function : callable
            New array from an array.

        Returns
        -------
        matrix : LazyMatrix
            Of what it answers.
        """
        changed, before = self._derived(), self._function
        changed._function = function if before is None else lambda block: function(before(block))
        return changed

    def _derived(self):
        derived = copy(self)
        derived.facts = None
        return derived

    @contextmanager
    def held(self, rows):
        """Context in which a stretch of rows is read once, however often it, or a part of it, is asked for.

        Parameters
        ----------
        rows : slice
            Which ones.

        Yields
        ------
        None
        """
        start, stop = self._start + rows.start, self._start + rows.stop
        whole = self._read(rows.start, rows.stop)
        before, self._seen.held = self._seen.held, (start, stop, whole)
        try:
            yield
        finally:
            self._seen.held = before

    def blocks(self):
        """Read all of it.

        Yields
        ------
        rows : slice
            Which ones.
        block : ndarray of shape (n_rows, n_columns)
            Their values.
        """
        for start in range(0, self._n_rows, self.block_rows):
            rows = slice(start, min(start + self.block_rows, self._n_rows))
            yield rows, self[rows]

    def whole_blocks(self):
        """Read all of it with the genes that are not selected, for checks of the source as it is.

        Yields
        ------
        rows : slice
            Which ones.
        whole : ndarray of shape (n_rows, n_columns_of_the_source)
            All their values, before any function.
        block : ndarray of shape (n_rows, n_columns)
            Those of this matrix.
        """
        for start in range(0, self._n_rows, self.block_rows):
            rows = slice(start, min(start + self.block_rows, self._n_rows))
            whole = self._read(rows.start, rows.stop)
            yield rows, whole, self._chosen(whole)

    def each(self, function):
        """Answers of a function of every block, computed where the blocks are read.

        Parameters
        ----------
        function : callable
            Of the rows of a block as a slice, their names or numbers, and what :meth:`whole_blocks` has of them. Its
            answers are small; both can be pickled.

        Yields
        ------
        rows : slice
            Which ones.
        answer : object
            Of the function.
        """
        place = self._on_workers()
        if place is None:
            yield from visited(self, function)
            return
        with place(Visited, self, np.arange(self._n_rows)) as parts:
            for answers in parts.all("visit", function):
                yield from answers

    def __getitem__(self, key):
        if isinstance(key, tuple):
            rows, columns = key
            if columns is Ellipsis:  # as scikit-learn has them
                return self[rows]
            if np.ndim(rows) == 2:  # as numpy.ix_ has them
                rows, columns = np.ravel(rows), np.ravel(columns)
            elif np.ndim(rows) and np.ndim(columns):
                raise IndexError("A lazy matrix takes positions along one axis at a time: use numpy.ix_.")
            return self[rows][..., columns]
        if isinstance(key, slice):
            start, stop, step = key.indices(self._n_rows)
            if step == 1:
                return self._chosen(self._read(start, max(start, stop)))
            key = np.arange(start, stop, step)
        if np.ndim(key) == 0:
            position = range(self._n_rows)[key]
            return self[position : position + 1][0]
        return self._picked(np.arange(self._n_rows)[np.asarray(key)])

    def __array__(self, dtype=None, copy=None):
        check_memory(
            self.nbytes,
            f"A bulk of {self.shape[0]:,} samples and {self.shape[1]:,} genes as one array",
            FEWER,
        )
        values = self[:]
        return values if dtype is None else values.astype(dtype, copy=False)

    def _picked(self, positions):
        """Rows at any positions, in this order."""
        what = f"{len(positions):,} samples of a bulk that is read by rows, as one array,"
        check_memory(len(positions) * self._n_columns * self.itemsize, what, FEWER)
        found = np.empty((len(positions), self._n_columns), dtype=self.dtype)
        known = {} if self.facts is None else self.facts.spaced
        seen = np.array([position in known for position in positions], dtype=bool)
        for place in np.flatnonzero(seen):
            found[place] = known[positions[place]]
        block = positions // self.block_rows
        for number in np.unique(block[~seen]):
            where = np.flatnonzero((block == number) & ~seen)
            asked = positions[where]
            first, last = asked.min(), asked.max() + 1
            if len(asked) >= PICKED * (last - first):
                found[where] = self[first:last][asked - first]
            else:
                self._pick(asked, where, found)
        return found

    def _pick(self, positions, where, found):
        """Few rows that lie apart, written where they belong: what a chunk of the source has of them at a time."""
        chunk = (self._start + positions) // self._source.chunk_rows
        for number in np.unique(chunk):
            here = chunk == number
            first, last = positions[here].min(), positions[here].max() + 1
            found[where[here]] = self[first:last][positions[here] - first]

    def _chosen(self, whole):
        """Genes in use of whole rows, on the scale of this matrix."""
        block = whole if self._genes is None else whole[:, self._genes]
        return block if self._function is None else self._function(block)

    def _read(self, start, stop):
        """All columns of these rows, counted and compared with what they held before."""
        start, stop = self._start + start, self._start + stop
        if stop <= start:
            return np.empty((0, self._source.shape[1]), dtype=self.dtype)
        if self._seen.held is not None and self._seen.held[0] <= start and stop <= self._seen.held[1]:
            return self._seen.held[2][start - self._seen.held[0] : stop - self._seen.held[0]]
        try:
            self._source.check()
            block = np.asarray(self._source.read(start, stop))
        except ChangedError as error:
            raise ValueError(f"X {error}: {NOT_KEPT}") from error
        except Exception as error:
            raise ValueError(
                f"X could not be read at samples {self._named(start)} to {self._named(stop - 1)}, it is gone or "
                f"damaged: {type(error).__name__}: {error}"
            ) from error
        if block.shape != (stop - start, self._source.shape[1]):
            raise ValueError(f"X has changed its shape: {NOT_KEPT}")
        block = block.astype(self.dtype, copy=False)
        changed = self._seen.changed(start, block)
        if changed is not None:
            raise ValueError(f"X has changed, at least in sample {self._named(start + changed)}: {NOT_KEPT}")
        return block

    def _named(self, row):
        row -= self._start
        return name_at(self.index, row)
