"""A table of numbers that comes by rows and is held by columns, in about the memory that it takes in the end."""

import numpy as np

# By how much room grows where there is too little: at most a fifth of it is empty.
GROWTH = 1.25


class TurnedTable:
    """Rows of numbers, appended by the block, of which the columns lie together: samples × genes from a text.

    Blocks are copied into one array, which grows in place, so that the table is never there twice.

    Parameters
    ----------
    width : int
        Numbers of a row.
    """

    def __init__(self, width):
        self._width, self._length, self._room = width, 0, 0
        self._flat = np.empty(0)

    def append(self, rows):
        """Take a block of rows, of any type of number."""
        end = self._length + len(rows)
        if end > self._room:
            self._stretch(max(end, int(GROWTH * self._room)))
        self._columns()[:, self._length : end] = rows.T
        self._length = end

    def finish(self):
        """All rows, shape (n_rows, width), without room for more: an array in Fortran order."""
        self._stretch(self._length)
        return self._columns().T

    def _columns(self):
        return self._flat.reshape(self._width, self._room)

    def _stretch(self, room):
        """Give every column room for so many numbers."""
        old, self._room = self._room, room
        if room > old:
            # grown by the allocator, which moves pages and not their content; nothing else refers to it
            self._flat.resize(self._width * room, refcheck=False)
        places = range(1, self._width)
        for column in places if room < old else reversed(places):
            self._flat[column * room :][: self._length] = self._flat[column * old :][: self._length]
        if room < old:
            self._flat.resize(self._width * room, refcheck=False)
