"""A question in the making: the program so far, what its nodes mean in this scene, and random choices that fit."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from random import Random

from multiscale.vqa.clevr.phrases import Words, noun, say
from multiscale.vqa.clevr.programs import SUBSETS, Node, Program, SceneIndex, Value, apply, objects_of
from multiscale.vqa.clevr.vocabulary import ATTRIBUTES, RELATIONS

IDLE_SHARE = 0.1
"""At most this share of the options may make a relation that does no work."""


@cache
def _naming_none_of(attributes: tuple[str, ...]) -> list[int]:
    """Which `SUBSETS` have none of the attributes."""
    return [i for i, subset in enumerate(SUBSETS) if not any(a in attributes for a in subset)]


class NoChoiceError(Exception):
    """Nothing in the scene fits; the draft is thrown away."""


@dataclass(frozen=True)
class Thing:
    """One object: the node that finds it, the object, and what the question calls it (without article)."""

    node: int
    object: int
    text: str


@dataclass(frozen=True)
class Group:
    """A set of objects: its node, and its description in the singular and the plural."""

    node: int
    mask: int
    singular: str
    plural: str


class Draft:
    def __init__(self, scene: SceneIndex, rng: Random):
        self.scene, self.rng = scene, rng
        self.program: Program = []
        self.values: list[Value] = []

    def add(self, function: str, *inputs: int, value: str | None = None) -> int:
        node = Node(function, inputs, value)
        self.program.append(node)
        self.values.append(apply(self.scene, node, [self.values[i] for i in inputs]))
        return len(self.program) - 1

    def pick(self, options):
        if not options:
            raise NoChoiceError
        return self.rng.choice(options)

    # ---- single objects ---------------------------------------------------------------------------------------

    def thing(self, hops: int = 0, unnamed: tuple[str, ...] = ()) -> Thing:
        """An object told by its description and, with `hops`, by its relation to another. `unnamed`: see `_only_one`."""
        if hops == 0:
            start = self.add("scene")
            words, found = self._only_one(self.scene.everything, unnamed, related=False)
            return Thing(self._filtered(start, words, unique=True), found, noun(self.rng, words))
        return self.only(*self.related(self.thing(hops - 1)), unnamed)

    def related(self, thing: Thing) -> tuple[int, str]:
        """Everything in a random relation to a thing: the node and "left of the cube"."""
        relation = self.rng.choice(RELATIONS)
        return self.add("relate", thing.node, value=relation), f"{say(self.rng, relation)} the {thing.text}"

    def only(self, node: int, place: str, unnamed: tuple[str, ...] = (), both: str = "") -> Thing:
        """The one object of a related set that a description fits."""
        words, found = self._only_one(self._mask(node), unnamed, related=True)
        text = f"{noun(self.rng, words)} that is {both}{place}"
        return Thing(self._filtered(node, words, unique=True), found, text)

    def only_other(self, node: int, unnamed: tuple[str, ...]) -> tuple[Thing, Words]:
        """As `only`, of a set that no relation made."""
        words, found = self._only_one(self._mask(node), unnamed, related=False)
        return Thing(self._filtered(node, words, unique=True), found, noun(self.rng, words)), words

    def _only_one(self, among: int, unnamed: tuple[str, ...], related: bool) -> tuple[Words, int]:
        """A description that fits exactly one object of a set and names none of the attributes `unnamed`."""
        working, idle = [], []
        allowed = _naming_none_of(unnamed)
        for k in objects_of(among):
            alike, only = self.scene.alike[k], 1 << k
            for i in allowed:
                if alike[i] & among == only:
                    (idle if related and alike[i] == only else working).append((k, SUBSETS[i]))
        k, subset = self.pick(self._mostly(working, idle))
        return {attribute: self.scene.words[k][attribute] for attribute in subset}, k

    def _mostly(self, working: list, idle: list) -> list:
        """Either list, so that options of `idle` come up at most in a tenth of the cases."""
        share = min(IDLE_SHARE, len(idle) / max(1, len(idle) + len(working)))
        return idle if self.rng.random() < share else working

    # ---- sets -------------------------------------------------------------------------------------------------

    def group(self, hops: int = 0, unnamed: tuple[str, ...] = ()) -> Group:
        """A described set, in relation to a thing if `hops` > 0."""
        if hops == 0:
            return self.described(self.add("scene"), unnamed)
        node, place = self.related(self.thing(hops - 1))
        group = self.described(node, unnamed, related=True)
        return Group(group.node, group.mask, f"{group.singular} that is {place}", f"{group.plural} that are {place}")

    def described(
        self, node: int, unnamed: tuple[str, ...] = (), related: bool = False, other: str = "", empty: bool = True
    ) -> Group:
        """The objects of a set that a random description fits (possibly none). `empty`: it may name nothing at all."""
        among = self._mask(node)
        for _ in range(8):
            words = self._random_words(among, unnamed)
            found = self.scene.described(words)
            is_idle = related and found & among == found
            names_enough = bool(words) or (empty and related)
            if names_enough and (not is_idle or self.rng.random() < IDLE_SHARE):
                singular, plural = (other + noun(self.rng, words, many) for many in (False, True))
                return Group(self._filtered(node, words), found & among, singular, plural)
        raise NoChoiceError

    def _random_words(self, among: int, unnamed: tuple[str, ...]) -> Words:
        """Of an object in the set, of one anywhere, or of none: so that answers of every kind come up."""
        rng = self.rng
        named = [a for a in rng.choice(SUBSETS) if a not in unnamed]
        kind = rng.random()
        if kind < 0.8:
            inside = objects_of(among) if kind < 0.5 else []
            source = self.scene.words[rng.choice(inside) if inside else rng.randrange(self.scene.count)]
            return {a: source[a] for a in named}
        return {a: rng.choice(ATTRIBUTES[a]) for a in named}

    # ---- nodes ------------------------------------------------------------------------------------------------

    def _filtered(self, node: int, words: Words, unique: bool = False) -> int:
        for attribute in ATTRIBUTES:
            if attribute in words:
                node = self.add(f"filter_{attribute}", node, value=words[attribute])
        return self.add("unique", node) if unique else node

    def _mask(self, node: int) -> int:
        mask = self.values[node]
        assert isinstance(mask, int)
        return mask
