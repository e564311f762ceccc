"""How things are said. `rng` picks among synonyms."""

from __future__ import annotations

from random import Random

from multiscale.vqa.clevr.vocabulary import ATTRIBUTES, SYNONYMS

Words = dict[str, str]
"""A description: attribute → word, for the attributes that it names."""


def say(rng: Random, word: str) -> str:
    options = SYNONYMS.get(word)
    return rng.choice(options) if options else word


def noun(rng: Random, words: Words, plural: bool = False) -> str:
    """ "big red rubber cubes"."""
    parts = [say(rng, words[a]) for a in ATTRIBUTES if a in words and a != "shape"]
    head = say(rng, words.get("shape", "thing"))
    return " ".join([*parts, head + "s" * plural])


def asking(rng: Random, attribute: str, thing: str) -> str:
    """A question for an attribute of the one `thing` (a noun phrase without article)."""
    return rng.choice(_QUERIES[attribute]).format(x=thing)


_COMMON = (
    "What {a} is the {{x}}?",
    "What is the {a} of the {{x}}?",
    "The {{x}} is what {a}?",
    "The {{x}} has what {a}?",
    "There is a {{x}}; what {a} is it?",
    "There is a {{x}}; what is its {a}?",
)
_QUERIES = {name: tuple(text.format(a=name) for text in _COMMON) for name in ("size", "color", "shape")}
_QUERIES["size"] += ("How big is the {x}?", "There is a {x}; how big is it?")
_QUERIES["material"] = (
    "What is the {x} made of?",
    "What material is the {x}?",
    "What material is the {x} made of?",
    "What is the material of the {x}?",
    "The {x} is made of what material?",
    "There is a {x}; what is it made of?",
    "There is a {x}; what material is it made of?",
)

HOW_MANY = ("How many {x} are there?", "What number of {x} are there?")
HOW_MANY_ARE = ("How many {x} are {y}?", "What number of {x} are {y}?")
ARE_ANY = ("Are there any {xs}?", "Is there a {x}?", "Is there any {x}?")

SAME = {
    "size": ("the same size as", "of the same size as"),
    "color": ("the same color as", "of the same color as"),
    "material": ("made of the same material as", "of the same material as"),
    "shape": ("the same shape as", "of the same shape as"),
}
"""After "is" or "are": "things that are … the cube"."""
HAVE_SAME = ("that {have} the same {a} as", "with the same {a} as")

_COMPARE = (
    "Do the {{x}} and the {{y}} have the same {a}?",
    "Does the {{x}} have the same {a} as the {{y}}?",
    "Is the {a} of the {{x}} the same as the {{y}}?",
    "Is the {a} of the {{x}} the same as that of the {{y}}?",
    "There is a {{x}}; does it have the same {a} as the {{y}}?",
)
COMPARE = {name: tuple(text.format(a=name) for text in _COMPARE) for name in ATTRIBUTES}
for _name in ("size", "color", "shape"):
    COMPARE[_name] += (
        f"Is the {{x}} the same {_name} as the {{y}}?",
        f"There is a {{x}}; is it the same {_name} as the {{y}}?",
    )
COMPARE["material"] += (
    "Are the {x} and the {y} made of the same material?",
    "Is the {x} made of the same material as the {y}?",
)
NUMBERS = {
    "equal_integer": (
        "Are there an equal number of {x} and {y}?",
        "Are there the same number of {x} and {y}?",
        "Is the number of {x} the same as the number of {y}?",
        "Is the number of {x} equal to the number of {y}?",
    ),
    "less_than": (
        "Are there fewer {x} than {y}?",
        "Is the number of {x} less than the number of {y}?",
        "Is the number of {x} smaller than the number of {y}?",
    ),
    "greater_than": (
        "Are there more {x} than {y}?",
        "Is the number of {x} greater than the number of {y}?",
        "Is the number of {x} larger than the number of {y}?",
    ),
}
