"""Windows that begin where a file begins, so that a place in a window is a place in a book."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np

Span = tuple[int, int]
"""(first byte in the corpus, bytes)."""


class WholeFileSchedule:
    """Files packed into windows of `length` bytes, every byte once an epoch.

    A window holds whole files one behind another; what is left of it is padding. A longer file is cut at multiples of `length`
    from its beginning, and its last piece is packed like a file. Every epoch shuffles the files and packs them anew: the first
    window with enough room takes the next one. The schedule is a pure function of (seed, number of windows drawn so far).
    """

    def __init__(self, sizes: Sequence[int], length: int, seed: int | None):
        """`sizes`: bytes of each file of a corpus, in its order. seed None: files stay in order, in every epoch."""
        self._length, self._seed = length, seed
        ends = np.cumsum([0, *sizes], dtype=np.int64).tolist()
        self._pieces: list[Span] = [
            (start, min(length, end - start))
            for first, end in itertools.pairwise(ends)
            for start in range(first, end, length)
        ]
        self._epoch, self._begins, self._windows = -1, 0, []  # the epoch that is packed, and its first window's number

    def windows(self, first: int, count: int) -> list[list[Span]]:
        """What the windows number first … first+count-1 hold."""
        return [self._window(index) for index in range(first, first + count)]

    def one_epoch(self) -> list[list[Span]]:
        """All windows of the first epoch."""
        return self._pack(0)

    def _window(self, index: int) -> list[Span]:
        if index < self._begins:
            self._epoch, self._begins, self._windows = -1, 0, []
        while index >= self._begins + len(self._windows):
            self._epoch, self._begins = self._epoch + 1, self._begins + len(self._windows)
            self._windows = self._pack(self._epoch)
        return self._windows[index - self._begins]

    def _pack(self, epoch: int) -> list[list[Span]]:
        pieces, generator = self._pieces, None
        if self._seed is not None:
            generator = np.random.default_rng((self._seed, epoch))
            pieces = [pieces[k] for k in generator.permutation(len(pieces))]
        windows: list[list[Span]] = []
        room: list[int] = []
        for piece in pieces:
            index = next((k for k, left in enumerate(room) if left >= piece[1]), len(room))
            if index == len(room):
                windows.append([])
                room.append(self._length)
            windows[index].append(piece)
            room[index] -= piece[1]
        # Early windows are the fullest ones.
        return windows if generator is None else [windows[k] for k in generator.permutation(len(windows))]
