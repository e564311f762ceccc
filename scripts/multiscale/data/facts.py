"""Facts to remember: sentences that tell a number, planted in text once and again further on.

The first time, the number is new; again, it is known to who remembered it. Places are drawn so that
distances are spread evenly over orders of magnitude, from one slot to the whole window.
"""

from __future__ import annotations

import math
import random

import numpy as np

DIGITS = b"0123456789"
LETTERS = b"abcdefghijklmnopqrstuvwxyz"
QUESTION = b" The secret number of %s is "
NAME_LETTERS, NUMBER_DIGITS = 6, 5
NUMBER_BEGINS = len(QUESTION) - 2 + NAME_LETTERS
SENTENCE_BYTES = NUMBER_BEGINS + NUMBER_DIGITS + 2
SLOT_BYTES = 64
"""A window is divided into slots, each of which holds one sentence at most."""
ALIGNMENT = 8
"""Unless told otherwise, sentences begin at multiples of it in a window, and so do their numbers: what falls into patches is then
alike each time."""


def question(name: bytes) -> bytes:
    return QUESTION % name


def fact(name: bytes, number: bytes) -> bytes:
    return question(name) + number + b". "


def draw_fact(rng: random.Random, digits: int = NUMBER_DIGITS) -> tuple[bytes, bytes]:
    """(name, number)."""
    return bytes(rng.choices(LETTERS, k=NAME_LETTERS)), bytes(rng.choices(DIGITS, k=digits))


def plant_facts(
    window: np.ndarray, rng: random.Random, told: int, at_once: int = 1, alignment: int = ALIGNMENT
) -> list[int]:
    """Writes sentences over a window (L,), in place. Returns where numbers begin that were told before, in order.

    One fact after another: each is told at both ends of a stretch of slots, and up to `told` - 2 times between. Stretches'
    lengths are drawn evenly over the orders of magnitude, and so are the distances inside them. With `at_once` > 1 there are
    one to so many such rows of facts over one another: which number is asked for is then told by its name alone.
    Sentences begin at multiples of `alignment` bytes.
    """
    taken: set[int] = set()
    known: list[int] = []
    for _ in range(rng.randint(1, at_once) if at_once > 1 else 1):
        known += _plant_row(window, rng, told, alignment, taken)
    return sorted(known)


def _plant_row(window: np.ndarray, rng: random.Random, told: int, alignment: int, taken: set[int]) -> list[int]:
    """Facts one after another, in slots that are not `taken` yet."""
    slots, first, known = len(window) // SLOT_BYTES, 0, []
    while first < slots:
        stretch = min(slots - first, int(math.exp(rng.uniform(math.log(2), math.log(slots + 2)))))
        between = (int(math.exp(rng.uniform(0, math.log(stretch)))) for _ in range(told - 2)) if stretch > 2 else ()
        sentence = np.frombuffer(fact(*draw_fact(rng)), np.uint8)
        places = sorted({first, first + stretch - 1, *(first + place for place in between)} - taken)
        for place in places:
            start = place * SLOT_BYTES + rng.randrange(0, SLOT_BYTES - SENTENCE_BYTES, alignment)
            window[start : start + SENTENCE_BYTES] = sentence
            known += [start + NUMBER_BEGINS] if place != places[0] else []
        taken.update(places)
        first += stretch
    return known
