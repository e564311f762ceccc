"""Functional programs of questions, executed on scenes.

Sets of objects are bit masks in an integer: bit k is object k. A program is a list of nodes; the last one's value is the answer.
"""

from __future__ import annotations

from itertools import combinations
from typing import Any, NamedTuple

import numpy as np

from multiscale.vqa.clevr.scenes import relation_matrix
from multiscale.vqa.clevr.vocabulary import ATTRIBUTES, RELATIONS

Value = int | str | bool | None
"""A set (of `filter_*`, `unique`, …), a number, a word, a truth value; None where `unique` does not see exactly one object."""


class Node(NamedTuple):
    function: str
    inputs: tuple[int, ...] = ()
    value: str | None = None


Program = list[Node]
SUBSETS = [subset for size in range(len(ATTRIBUTES) + 1) for subset in combinations(ATTRIBUTES, size)]
"""Every set of attributes that a description may name."""


class SceneIndex:
    """One scene, prepared for questions."""

    def __init__(self, attributes: np.ndarray, centers: np.ndarray):
        """attributes (n, 4): index of each attribute's value; centers (n, 3)."""
        self.count = len(attributes)
        self.everything = (1 << self.count) - 1
        names = list(ATTRIBUTES)
        self.words = [{a: ATTRIBUTES[a][i] for a, i in zip(names, row, strict=True)} for row in attributes.tolist()]
        """Per object: attribute → word."""
        self.having = {word: 0 for values in ATTRIBUTES.values() for word in values}
        """Word → objects that have it."""
        for k, words in enumerate(self.words):
            for word in words.values():
                self.having[word] |= 1 << k
        self.related = {r: [_mask(row) for row in relation_matrix(centers, r).tolist()] for r in RELATIONS}
        """Relation → per object the objects that are so related to it."""

        self.alike = [self._alike(words) for words in self.words]
        """Per object: for each of `SUBSETS`, the objects that share all those attributes with it."""

    def _alike(self, words: dict[str, str]) -> list[int]:
        return [self.described({a: words[a] for a in subset}) for subset in SUBSETS]

    def described(self, words: dict[str, str]) -> int:
        """Objects that have all the words (attribute → word)."""
        found = self.everything
        for word in words.values():
            found &= self.having[word]
        return found


def _mask(flags: list[bool]) -> int:
    return sum(1 << k for k, flag in enumerate(flags) if flag)


def objects_of(mask: int) -> list[int]:
    return [k for k in range(mask.bit_length()) if mask >> k & 1]


def apply(scene: SceneIndex, node: Node, inputs: list[Value]) -> Value:
    """The node's value; None if any input is None."""
    name, _, attribute = node.function.partition("_")
    if None in inputs:
        return None
    first: Any = inputs[0] if inputs else None
    match name:
        case "scene":
            return scene.everything
        case "filter":
            return first & scene.having[node.value]
        case "unique":
            return first if first.bit_count() == 1 else None
        case "relate":
            return scene.related[node.value][first.bit_length() - 1]
        case "same":
            return scene.having[scene.words[first.bit_length() - 1][attribute]] & ~first
        case "union":
            return first | inputs[1]
        case "intersect":
            return first & inputs[1]
        case "count":
            return first.bit_count()
        case "exist":
            return first != 0
        case "query":
            return scene.words[first.bit_length() - 1][attribute]
        case "equal":
            return first == inputs[1]
        case "less":
            return first < inputs[1]
        case "greater":
            return first > inputs[1]
    raise ValueError(f"unknown function {node.function!r}")


def run(scene: SceneIndex, program: Program, skipped: int | None = None) -> list[Value]:
    """Every node's value. The node number `skipped`, a `relate`, is taken to see the whole scene."""
    values: list[Value] = []
    for index, node in enumerate(program):
        whole = index == skipped
        values.append(scene.everything if whole else apply(scene, node, [values[i] for i in node.inputs]))
    return values


def execute(scene: SceneIndex, program: Program, skipped: int | None = None) -> Value:
    """The program's value."""
    return run(scene, program, skipped)[-1]


def is_degenerate(scene: SceneIndex, program: Program) -> bool:
    """Whether some relation could be left out and the answer stayed.

    A yes or no is about sets or numbers: there, what it is drawn from must change ("yes, there are some" would always stay).
    """
    relations = [index for index, node in enumerate(program) if node.function == "relate"]
    if not relations:
        return False
    evidence = _evidence(scene, program, None)
    return any(_evidence(scene, program, index) == evidence for index in relations)


def _evidence(scene: SceneIndex, program: Program, skipped: int | None) -> list[Value]:
    *_, last = program
    if last.function in ("exist", "equal_integer", "less_than", "greater_than"):
        values = run(scene, program, skipped)
        return [values[i] for i in last.inputs]
    return [execute(scene, program, skipped)]


def answer_word(value: Value) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return str(value)


def program_to_json(program: Program) -> list[dict[str, Any]]:
    return [
        {
            "inputs": list(node.inputs),
            "function": node.function,
            "value_inputs": [] if node.value is None else [node.value],
        }
        for node in program
    ]


def program_from_json(nodes: list[dict[str, Any]]) -> Program:
    """Also of the original files, which say `type` or `function` and `value_inputs` or `side_inputs`."""
    program = []
    for node in nodes:
        values = node.get("value_inputs") or node.get("side_inputs") or [None]
        program.append(Node(node.get("function") or node["type"], tuple(node["inputs"]), values[0]))
    return program
