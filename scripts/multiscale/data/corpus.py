"""Files as one long, memory-mapped byte sequence."""

from __future__ import annotations

import fnmatch
import functools
import hashlib
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from multiscale.data.whole_files import Span


def find_files(root: str | Path) -> list[Path]:
    """All regular, non-empty, non-hidden files of a folder (recursively) or the file itself, sorted by path."""
    root = Path(root)
    if root.is_file():
        return [root]
    if not root.is_dir():
        raise ValueError(f"data: {root} is neither a file nor a folder")
    files = sorted(
        path
        for path in root.rglob("*")
        if path.is_file()
        and path.stat().st_size > 0
        and not any(part.startswith(".") for part in path.relative_to(root).parts)
    )
    if not files:
        raise ValueError(f"data: {root} holds no files")
    return files


def split_files(
    files: Sequence[Path], exclude: Iterable[str], validation: Iterable[str], validation_every: int | None
) -> tuple[list[Path], list[Path]]:
    """(training, validation) files. Files whose name matches an `exclude` pattern are in neither.

    A file is for validation if its name matches a `validation` pattern, or, with `validation_every` = n, if a hash of its
    name says so: about one in n, the same ones on every machine and however many files are added.
    """

    def matches(path: Path, patterns: Iterable[str]) -> bool:
        return any(fnmatch.fnmatch(path.name, pattern) for pattern in patterns)

    def chosen(path: Path) -> bool:
        if validation_every is None:
            return False
        digest = hashlib.sha256(path.name.encode()).digest()
        return int.from_bytes(digest[:8], "big") % validation_every == 0

    kept = [path for path in files if not matches(path, exclude)]
    held_out = [path for path in kept if matches(path, validation) or chosen(path)]
    return [path for path in kept if path not in set(held_out)], held_out


MAX_OPEN_FILES = 256
"""Maps held open at once: data sets have more files than a process may open."""


class Corpus:
    """Concatenation of files; nothing is read before it is asked for."""

    def __init__(self, files: Sequence[Path]):
        self.files = list(files)
        self._ends = np.cumsum([path.stat().st_size for path in self.files], dtype=np.int64)
        self._map = functools.lru_cache(MAX_OPEN_FILES)(self._open)

    def __len__(self) -> int:
        """Total bytes."""
        return int(self._ends[-1]) if len(self._ends) else 0

    @property
    def sizes(self) -> list[int]:
        """Bytes of each file."""
        return np.diff(self._ends, prepend=0).tolist()

    def read(self, start: int, length: int) -> np.ndarray:
        """`length` bytes from `start`, across file borders; (length,) uint8."""
        if start < 0 or start + length > len(self):
            raise IndexError(f"[{start}, {start + length}) is outside the corpus of {len(self)} bytes")
        parts: list[np.ndarray] = []
        index = int(np.searchsorted(self._ends, start, side="right"))
        while length > 0:
            offset = start - (int(self._ends[index - 1]) if index else 0)
            part = self._map(index)[offset : offset + length]
            parts.append(np.array(part))  # a view would hold its file open
            start, length, index = start + len(part), length - len(part), index + 1
        return np.concatenate(parts) if parts else np.empty(0, np.uint8)

    def _open(self, index: int) -> np.ndarray:
        mapped = np.memmap(self.files[index], dtype=np.uint8, mode="r")
        if len(mapped) != self._ends[index] - (self._ends[index - 1] if index else 0):
            raise ValueError(f"data: {self.files[index]} has changed its size during the run")
        return mapped

    def gather(self, starts: np.ndarray, length: int) -> Tensor:
        """Windows (len(starts), length) as int64 ids."""
        return torch.from_numpy(np.stack([self.read(int(start), length) for start in starts]).astype(np.int64))

    def gather_spans(self, windows: Sequence[Sequence[Span]], length: int, padding: int) -> Tensor:
        """Windows (len(windows), length) of spans one behind another, then padding; int64 ids."""
        ids = np.full((len(windows), length), padding, np.int64)
        for row, spans in zip(ids, windows, strict=True):
            content = np.concatenate([self.read(start, size) for start, size in spans])
            row[: len(content)] = content
        return torch.from_numpy(ids)


class DeviceCorpus:
    """A corpus held as one uint8 tensor on a device, so that no batch crosses the bus. Same windows as `Corpus`."""

    def __init__(self, corpus: Corpus, device: torch.device):
        self._bytes = torch.from_numpy(corpus.read(0, len(corpus))).to(device)

    def __len__(self) -> int:
        return self._bytes.numel()

    def gather(self, starts: np.ndarray, length: int) -> Tensor:
        first = torch.from_numpy(starts).to(self._bytes.device, non_blocking=True)
        return self._bytes[first[:, None] + torch.arange(length, device=first.device)].long()
