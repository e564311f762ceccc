"""Whether distance helps: bits per byte by position in a file, and facts asked for far behind where they were told."""

from __future__ import annotations

import itertools
import math
import random
from dataclasses import dataclass

import numpy as np
import torch

from multiscale.data.facts import DIGITS, SLOT_BYTES, draw_fact, fact, question
from multiscale.model.network import MultiscaleByteModel
from multiscale.train.chunked import Chunking, byte_losses, last_logits


@torch.inference_mode()
def bits_of_bytes(model: MultiscaleByteModel, content: bytes, device: str) -> np.ndarray:
    """Bits that the model needs for every byte, each after all before it: (len(content),)."""
    ids = torch.frombuffer(bytearray(content), dtype=torch.uint8).long()[None].to(device)
    return byte_losses(model, ids, chunking_of(model)).cpu().double().numpy() / math.log(2)


def bits_in_windows(model: MultiscaleByteModel, content: bytes, window: int, device: str) -> np.ndarray:
    """As `bits_of_bytes`, but a byte is predicted from no more than `window` bytes before it, and from half of them at least.

    Windows overlap by half; what both halves of a pair hold is counted where more is known.
    """
    half = window // 2
    parts = [bits_of_bytes(model, content[:window], device)]
    for first in range(half, len(content) - window + half, half):
        parts.append(bits_of_bytes(model, content[first : first + window], device)[window - half :])
    return np.concatenate(parts)


def chunking_of(model: MultiscaleByteModel) -> Chunking:
    """For evaluation: a few GiB at most, whatever the context."""
    return Chunking((2**14,) * max(1, model.config.num_stages - 1), None, 2**18)


def position_bins(length: int, first: int = 1024) -> list[tuple[int, int]]:
    """[0, 1024), [1024, 2048), [2048, 4096), … up to `length`."""
    ends = [0]
    while ends[-1] < length:
        ends.append(min(length, max(first, 2 * ends[-1])))
    return list(itertools.pairwise(ends))


def bits_by_position(bits: list[np.ndarray], bins: list[tuple[int, int]]) -> list[dict[str, float]]:
    """Mean over all files that reach a bin, with how many bytes of how many files that are."""
    rows = []
    for first, end in bins:
        parts = [part for each in bits if len(part := each[first:end])]
        if parts:
            values = np.concatenate(parts)
            row = {"from": first, "to": end, "files": len(parts), "bytes": len(values)}
            rows.append({**row, "bits_per_byte": float(values.mean())})
    return rows


@dataclass(frozen=True)
class Needle:
    """A text in which a number is told once and asked for at the end."""

    text: bytes
    """Up to the question's end: what comes next should be `digits`."""
    digits: bytes


def plant(haystack: bytes, distance: int, length: int, digits: int, seed: int, others: int = 0) -> Needle:
    """`length` bytes, in which a fact stands `distance` bytes before the question's end.

    `others`: so many facts of other names, of as many digits, are told behind it: the number told last is then not what is
    asked for.
    """
    rng = random.Random(seed)
    name, number = draw_fact(rng, digits)
    told, asked = fact(name, number), question(name)
    between = distance - len(asked)
    before = length - len(told) - distance
    if between < 0 or before < 0:
        room = f"{len(told)} bytes of fact and {len(asked)} of question"
        raise ValueError(f"--distance: {distance} does not fit: {room} in {length}")
    if len(haystack) < before + between:
        raise ValueError(f"--data: {len(haystack)} bytes are fewer than the {before + between} to hide the fact in")
    behind = bytearray(haystack[before : before + between])
    # Slots as in training, and each begins at a place in the text that is a multiple of theirs if the question does.
    slot = max(SLOT_BYTES, len(told) + -len(told) % 8)
    slots = range(between % slot, between, slot)
    if others > len(slots):
        raise ValueError(f"--others: {distance} bytes have room for {len(slots)} other facts, not for {others}")
    for start in rng.sample(slots, others):
        other = fact(*draw_fact(rng, digits))
        behind[start : start + len(other)] = other
    return Needle(haystack[:before] + told + bytes(behind) + asked, number)


@torch.inference_mode()
def ask(model: MultiscaleByteModel, needle: Needle, device: str) -> tuple[int, int]:
    """(digits right, digits), each after the right ones before it, chosen among the ten digits: by chance one in ten."""
    text = needle.text + needle.digits
    ids = torch.frombuffer(bytearray(text), dtype=torch.uint8).long()[None].to(device)
    logits = last_logits(model, ids, len(needle.digits), chunking_of(model)).float()
    chosen = logits[:, list(DIGITS)].argmax(1)
    right = sum(DIGITS[int(k)] == digit for k, digit in zip(chosen, needle.digits, strict=True))
    return right, len(needle.digits)


def interval(right: int, total: int) -> tuple[float, float]:
    """95 % interval of a share (Wilson)."""
    z, share = 1.96, right / total
    middle = (share + z * z / (2 * total)) / (1 + z * z / total)
    half = z * math.sqrt(share * (1 - share) / total + z * z / (4 * total * total)) / (1 + z * z / total)
    return middle - half, middle + half
