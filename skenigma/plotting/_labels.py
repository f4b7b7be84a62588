"""Labels of points, placed where they hide nothing."""

import numpy as np

from ._style import text_style

# Where a label may stand, seen from its point: directions, from the best on, and distances in points.
DIRECTIONS = np.deg2rad([20, 160, 60, 120, -20, 200, 90, -60, 240, -90])
DISTANCES = (3, 8)
# Free space around a label, in points.
PADDING = 1.5
# How many points a label may hide.
HIDDEN = 1


class Room:
    """Free places for labels in axes that are laid out; all extents in pixels."""

    def __init__(self, ax, points, taken):
        self._ax, self._points, self._taken = ax, points, list(taken)
        self._scale = ax.figure.dpi / 72.0  # pixels per point

    def place(self, text, position, pixel, options):
        """A label beside a point where it hides least, or None if there is no room."""
        centred = {"fontsize": "x-small", "horizontalalignment": "center", "verticalalignment": "center"}
        style = {"textcoords": "offset points", "annotation_clip": True, **text_style(centred, options)}
        label = self._ax.annotate(text, position, (0, 0), **style)
        extent = label.get_window_extent()
        size = np.array([extent.width, extent.height]) + 2 * PADDING * self._scale
        found = min(self._candidates(size, pixel), key=lambda candidate: candidate[0], default=None)
        if found is None:
            label.remove()
            return None
        _, offset, box = found
        label.set_position(offset / self._scale)
        self._taken.append(box)
        return label

    def _candidates(self, size, pixel):
        """Number of hidden points, offset and extent of every place that is free, the best direction first."""
        from matplotlib.transforms import Bbox

        for distance in DISTANCES:
            for direction in np.column_stack([np.cos(DIRECTIONS), np.sin(DIRECTIONS)]):
                # the distance is that of the label's edge, so half of its size is added
                offset = direction * (distance * self._scale + np.abs(direction) * size / 2)
                box = Bbox.from_bounds(*(pixel + offset - size / 2), *size)
                hidden = np.sum(np.all((self._points > box.min) & (self._points < box.max), axis=1))
                inside = np.all(box.min >= self._ax.bbox.min) and np.all(box.max <= self._ax.bbox.max)
                if inside and hidden <= HIDDEN and not box.count_overlaps(self._taken):
                    yield hidden, offset, box
