"""The 90 families of questions: each makes a draft's program and says it.

A family's function adds the nodes of a random question to a draft and returns its text; the last node is the answer.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from multiscale.vqa.clevr.drafting import Draft, Group, NoChoiceError, Thing
from multiscale.vqa.clevr.phrases import (
    ARE_ANY,
    COMPARE,
    HAVE_SAME,
    HOW_MANY,
    HOW_MANY_ARE,
    NUMBERS,
    SAME,
    asking,
)
from multiscale.vqa.clevr.vocabulary import ATTRIBUTES

YES_NO = ("yes", "no")
NUMBERS_TO_10 = tuple(str(n) for n in range(11))


@dataclass(frozen=True)
class Family:
    name: str
    kind: str
    """exist, count, compare_integer, compare_attribute or query_attribute: the rows of the published tables."""
    answers: tuple[str, ...]
    write: Callable[[Draft], str]


# ---- hops: a chain of relations, then a number, a yes or no, or an attribute ---------------------------------------


def count_hops(hops: int, draft: Draft) -> str:
    if hops and draft.rng.random() < 0.5:
        node, place = draft.related(draft.thing(hops - 1))
        group = draft.described(node, related=True)
        draft.add("count", group.node)
        return draft.rng.choice(HOW_MANY_ARE).format(x=group.plural, y=place)
    group = draft.group(hops)
    draft.add("count", group.node)
    return draft.rng.choice(HOW_MANY).format(x=group.plural)


def exist_hops(hops: int, draft: Draft) -> str:
    group = draft.group(hops)
    draft.add("exist", group.node)
    return draft.rng.choice(ARE_ANY).format(x=group.singular, xs=group.plural)


def query_hops(hops: int, attribute: str, draft: Draft) -> str:
    thing = draft.thing(hops, (attribute,))
    draft.add(f"query_{attribute}", thing.node)
    return asking(draft.rng, attribute, thing.text)


# ---- and, or ------------------------------------------------------------------------------------------------------


def _two_places(draft: Draft) -> tuple[int, int, str, str]:
    first, second = draft.thing(), draft.thing()
    if first.object == second.object:
        raise NoChoiceError
    (one, place), (two, other_place) = draft.related(first), draft.related(second)
    return one, two, place, other_place


def count_and(draft: Draft) -> str:
    one, two, place, other = _two_places(draft)
    group = draft.described(draft.add("intersect", one, two), related=True)
    draft.add("count", group.node)
    return draft.rng.choice(HOW_MANY_ARE).format(x=group.plural, y=f"both {place} and {other}")


def query_and(attribute: str, draft: Draft) -> str:
    one, two, place, other = _two_places(draft)
    thing = draft.only(draft.add("intersect", one, two), f"{place} and {other}", (attribute,), both="both ")
    draft.add(f"query_{attribute}", thing.node)
    return asking(draft.rng, attribute, thing.text)


def count_or(hops: tuple[int, int], is_filtered: bool, draft: Draft) -> str:
    first, second = draft.group(hops[0]), draft.group(hops[1])
    node = draft.add("union", first.node, second.node)
    either = f"either {first.plural} or {second.plural}"
    if is_filtered:
        group = draft.described(node)
        if group.mask == draft.values[node]:
            raise NoChoiceError  # the description does no work
        subject = group.plural
        node = group.node
    else:
        subject = draft.rng.choice(("things", "objects"))
    draft.add("count", node)
    return draft.rng.choice((*HOW_MANY_ARE, "How many {x} are there that are {y}?")).format(x=subject, y=either)


# ---- the same attribute -------------------------------------------------------------------------------------------


def _same(draft: Draft, attribute: str) -> tuple[int, Thing]:
    thing = draft.thing(0, (attribute,))
    return draft.add(f"same_{attribute}", thing.node), thing


def _others(draft: Draft, attribute: str, is_filtered: bool) -> tuple[Group, Thing]:
    node, thing = _same(draft, attribute)
    if is_filtered:
        return draft.described(node, (attribute,), other="other "), thing
    mask = draft.values[node]
    assert isinstance(mask, int)
    word = draft.rng.choice(("thing", "object"))
    return Group(node, mask, f"other {word}", f"other {word}s"), thing


def _alike(draft: Draft, attribute: str, have: str, thing: Thing) -> str:
    """ "that are the same size as the cube", in one way or another."""
    be = "is" if have == "has" else "are"
    options = [f"that {be} {same}" for same in SAME[attribute]]
    options += [same.format(have=have, a=attribute) for same in HAVE_SAME]
    return f"{draft.rng.choice(options)} the {thing.text}"


def count_same(attribute: str, is_filtered: bool, draft: Draft) -> str:
    group, thing = _others(draft, attribute, is_filtered)
    draft.add("count", group.node)
    if draft.rng.random() < 0.5:
        same = f"{draft.rng.choice(SAME[attribute])} the {thing.text}"
        return draft.rng.choice(HOW_MANY_ARE).format(x=group.plural, y=same)
    return draft.rng.choice(HOW_MANY).format(x=f"{group.plural} {_alike(draft, attribute, 'have', thing)}")


def exist_same(attribute: str, is_filtered: bool, draft: Draft) -> str:
    group, thing = _others(draft, attribute, is_filtered)
    draft.add("exist", group.node)
    if draft.rng.random() < 0.5:
        return f"Are there any {group.plural} {_alike(draft, attribute, 'have', thing)}?"
    return f"Is there any{group.singular} {_alike(draft, attribute, 'has', thing)}?".replace("anyother", "another")


def query_same(attribute: str, asked: str, draft: Draft) -> str:
    node, thing = _same(draft, attribute)
    found, _ = draft.only_other(node, (attribute, asked))
    draft.add(f"query_{asked}", found.node)
    return asking(draft.rng, asked, f"other {found.text} {_alike(draft, attribute, 'has', thing)}").replace(
        "There is a other", "There is another"
    )


# ---- comparisons --------------------------------------------------------------------------------------------------


def compare_attribute(attribute: str, hops: tuple[int, int], draft: Draft) -> str:
    first, second = draft.thing(hops[0], (attribute,)), draft.thing(hops[1], (attribute,))
    if first.object == second.object:
        raise NoChoiceError
    values = [draft.add(f"query_{attribute}", thing.node) for thing in (first, second)]
    draft.add(f"equal_{attribute}", *values)
    return draft.rng.choice(COMPARE[attribute]).format(x=first.text, y=second.text)


def compare_integer(function: str, hops: tuple[int, int], draft: Draft) -> str:
    first, second = draft.group(hops[0]), draft.group(hops[1])
    if first.plural == second.plural:
        raise NoChoiceError
    draft.add(function, draft.add("count", first.node), draft.add("count", second.node))
    return draft.rng.choice(NUMBERS[function]).format(x=first.plural, y=second.plural)


# ---- all of them --------------------------------------------------------------------------------------------------


def _hops() -> list[Family]:
    families = []
    for hops, name in enumerate(("zero_hop", "one_hop", "two_hop", "three_hop")):
        families.append(Family(name, "count", NUMBERS_TO_10, partial(count_hops, hops)))
        families.append(Family(name, "exist", YES_NO, partial(exist_hops, hops)))
        families += [Family(name, "query_attribute", ATTRIBUTES[a], partial(query_hops, hops, a)) for a in ATTRIBUTES]
    return families


def _and_or() -> list[Family]:
    families = [Family("single_and", "count", NUMBERS_TO_10, count_and)]
    families += [Family("single_and", "query_attribute", ATTRIBUTES[a], partial(query_and, a)) for a in ATTRIBUTES]
    for is_filtered in (False, True):
        for hops in ((0, 0), (1, 0), (0, 1), (1, 1)):
            families.append(Family("single_or", "count", NUMBERS_TO_10, partial(count_or, hops, is_filtered)))
    return families


def _same_relate() -> list[Family]:
    families, name = [], "same_relate"
    for a in ATTRIBUTES:
        for is_filtered in (False, True):
            families.append(Family(name, "count", NUMBERS_TO_10, partial(count_same, a, is_filtered)))
            families.append(Family(name, "exist", YES_NO, partial(exist_same, a, is_filtered)))
        others = [b for b in ATTRIBUTES if b != a]
        families += [Family(name, "query_attribute", ATTRIBUTES[b], partial(query_same, a, b)) for b in others]
    return families


def _comparisons() -> list[Family]:
    families = []
    for hops in ((0, 0), (1, 0), (0, 1), (1, 1)):
        families += [
            Family("comparison", "compare_attribute", YES_NO, partial(compare_attribute, a, hops)) for a in ATTRIBUTES
        ]
    for hops in ((0, 0), (0, 1), (1, 1)):
        families += [
            Family("compare_integer", "compare_integer", YES_NO, partial(compare_integer, f, hops)) for f in NUMBERS
        ]
    return families


FAMILIES: tuple[Family, ...] = (*_hops(), *_and_or(), *_same_relate(), *_comparisons())
KINDS = ("exist", "count", "compare_integer", "compare_attribute", "query_attribute")
