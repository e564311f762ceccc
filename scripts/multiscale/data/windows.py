"""Which windows of a corpus are trained on, and in which order."""

from __future__ import annotations

import numpy as np


class WindowSchedule:
    """Shuffled windows; every byte is seen about once an epoch.

    Epoch e cuts the corpus into windows of `length` bytes from a random offset and shuffles them. The schedule is a pure
    function of (seed, number of windows drawn so far), so resuming needs one integer.
    """

    def __init__(self, corpus_bytes: int, length: int, seed: int):
        if corpus_bytes < length:
            raise ValueError(f"data: {corpus_bytes} bytes are fewer than one window of {length}")
        self._bytes, self._length, self._seed = corpus_bytes, length, seed
        # One window is given up to the random offset, unless there is only one.
        self.windows_per_epoch = max(1, corpus_bytes // length - 1)
        self._epoch, self._starts = -1, np.empty(0, np.int64)

    def starts(self, first: int, count: int) -> np.ndarray:
        """Byte offsets of the windows number first … first+count-1; (count,) int64."""
        return np.array([self._start(index) for index in range(first, first + count)], np.int64)

    def _start(self, index: int) -> int:
        epoch, position = divmod(index, self.windows_per_epoch)
        if epoch != self._epoch:
            self._epoch, self._starts = epoch, self._shuffle(epoch)
        return int(self._starts[position])

    def _shuffle(self, epoch: int) -> np.ndarray:
        generator = np.random.default_rng((self._seed, epoch))
        slack = self._bytes - self.windows_per_epoch * self._length
        offset = int(generator.integers(0, slack + 1))
        return offset + generator.permutation(self.windows_per_epoch).astype(np.int64) * self._length
