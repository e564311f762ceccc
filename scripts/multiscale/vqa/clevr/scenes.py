"""Random scenes: many at a time, as arrays, by the placement rules of CLEVR."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from multiscale.vqa.clevr import camera
from multiscale.vqa.clevr.vocabulary import ATTRIBUTES, RELATIONS, SIZES

MIN_OBJECTS, MAX_OBJECTS = 3, 10
MIN_GAP, MIN_MARGIN, RELATION_MARGIN = 0.25, 0.4, 0.2
LAMP_JITTER = 1.0
TRIES_PER_OBJECT = 50

_RIGHT, _BEHIND = np.array([0.65631127, 0.75449027, 0.0]), np.array([-0.75449027, 0.65631127, 0.0])
DIRECTIONS = {"left": -_RIGHT, "right": _RIGHT, "behind": _BEHIND, "front": -_BEHIND}
RADII = np.array(list(SIZES.values()))


@dataclass(frozen=True)
class Scenes:
    """A batch of B scenes with room for `MAX_OBJECTS` objects each; unused places hold zeros."""

    count: np.ndarray
    """Number of objects (B,)."""
    attributes: np.ndarray
    """Index of every attribute's value (B, 10, 4), in the order of `ATTRIBUTES`."""
    position: np.ndarray
    """Ground position (B, 10, 2)."""
    rotation: np.ndarray
    """Angle about the vertical axis in radians, from 0 to 360 (B, 10): CLEVR draws degrees and turns by radians."""
    camera: np.ndarray
    """Camera position (B, 3)."""
    lamps: np.ndarray
    """Displacement of the three lamps (B, 3, 3)."""

    def __len__(self) -> int:
        return len(self.count)

    def __getitem__(self, index: Any) -> Scenes:
        """A batch of the scenes at `index` (slice, mask or integers)."""
        return Scenes(*(getattr(self, field.name)[index] for field in fields(self)))

    @staticmethod
    def concatenate(parts: list[Scenes]) -> Scenes:
        return Scenes(*(np.concatenate([getattr(p, f.name) for p in parts]) for f in fields(Scenes)))

    @property
    def radius(self) -> np.ndarray:
        """(B, 10)."""
        return RADII[self.attributes[..., 0]]

    @property
    def centers(self) -> np.ndarray:
        """(B, 10, 3)."""
        return np.concatenate([self.position, self.radius[..., None]], -1)

    @property
    def present(self) -> np.ndarray:
        """(B, 10) bool: which places hold an object."""
        return np.arange(MAX_OBJECTS) < self.count[:, None]


def random_scenes(seeds: list[tuple[int, ...]], counts: np.ndarray) -> Scenes:
    """One scene for every seed, with `counts` (B,) objects. A scene depends on its own seed alone.

    Placement draws positions until one keeps its distance from every object that is there; a scene that gets stuck is
    begun anew. Whether every object is *visible* needs a rendering: see `bulk.visible_scenes`.
    """
    return Scenes.concatenate([_random_scene(np.random.default_rng(seed), int(n)) for seed, n in zip(seeds, counts)])  # noqa: B905


def _random_scene(rng: np.random.Generator, count: int) -> Scenes:
    attributes = np.zeros((MAX_OBJECTS, len(ATTRIBUTES)), np.int64)
    for column, values in enumerate(ATTRIBUTES.values()):
        attributes[:count, column] = rng.integers(0, len(values), count)
    radius = RADII[attributes[:, 0]]
    position = np.zeros((MAX_OBJECTS, 2))
    while (placed := _place(rng, radius[:count])) is None:
        pass
    position[:count] = placed
    rotation = np.zeros(MAX_OBJECTS)
    rotation[:count] = rng.uniform(0, 360, count)
    eye = camera.POSITION + rng.uniform(-camera.JITTER, camera.JITTER, 3)
    lamps = rng.uniform(-LAMP_JITTER, LAMP_JITTER, (3, 3))
    one = (np.array(count), attributes, position, rotation, eye, lamps)
    return Scenes(*(array[None] for array in one))


def _place(rng: np.random.Generator, radius: np.ndarray) -> np.ndarray | None:
    """Positions (n, 2), or None if an object found no room."""
    placed = np.zeros((len(radius), 2))
    for index in range(len(radius)):
        candidates = rng.uniform(-3, 3, (TRIES_PER_OBJECT, 2))
        fits = keeps_distance(candidates, radius[index], placed[:index], radius[:index])
        if not fits.any():
            return None
        placed[index] = candidates[fits.argmax()]
    return placed


def keeps_distance(points: np.ndarray, radius: float, others: np.ndarray, radii: np.ndarray) -> np.ndarray:
    """Which points (m, 2) are far enough from all others (n, 2), and clearly on one side of each; (m,) bool."""
    offset = points[:, None] - others
    gap = np.linalg.norm(offset, axis=-1) - radius - radii
    sideways = np.abs(offset @ np.stack([_RIGHT[:2], _BEHIND[:2]]).T)
    return (gap >= MIN_GAP).all(1) & (sideways >= MIN_MARGIN).all((1, 2))


def relation_matrix(centers: np.ndarray, relation: str) -> np.ndarray:
    """centers (..., n, 3) → (..., n, n) bool: entry [i, j] says that j is in `relation` to i."""
    along = centers @ DIRECTIONS[relation]
    return along[..., None, :] - along[..., :, None] > RELATION_MARGIN


def scene_to_json(scenes: Scenes, row: int, split: str, index: int, filename: str) -> dict[str, Any]:
    """One entry of `scenes.json`."""
    count = int(scenes.count[row])
    centers = scenes.centers[row, :count]
    pixels = camera.project(scenes.camera[row], centers)
    objects = []
    for k in range(count):
        words = {name: ATTRIBUTES[name][scenes.attributes[row, k, i]] for i, name in enumerate(ATTRIBUTES)}
        objects.append(
            {
                **words,
                "3d_coords": centers[k].tolist(),
                "rotation": float(scenes.rotation[row, k]),
                "pixel_coords": [round(float(pixels[k, 0])), round(float(pixels[k, 1])), float(pixels[k, 2])],
            }
        )
    related = {name: [np.flatnonzero(r).tolist() for r in relation_matrix(centers, name)] for name in RELATIONS}
    up = {"above": [0.0, 0.0, 1.0], "below": [0.0, 0.0, -1.0]}
    return {
        "split": split,
        "image_index": index,
        "image_filename": filename,
        "objects": objects,
        "relationships": related,
        "directions": {name: vector.tolist() for name, vector in DIRECTIONS.items()} | up,
    }


def scenes_from_json(entries: list[dict[str, Any]]) -> Scenes:
    """Annotations, also real ones, as arrays. The camera is found from the objects' pixel coordinates."""
    parts = []
    for entry in entries:
        objects = entry["objects"]
        count = len(objects)
        if not 1 <= count <= MAX_OBJECTS:
            raise ValueError(f"{entry['image_filename']}: {count} objects, there must be 1 to {MAX_OBJECTS}")
        attributes = np.zeros((MAX_OBJECTS, len(ATTRIBUTES)), np.int64)
        position, rotation = np.zeros((MAX_OBJECTS, 2)), np.zeros(MAX_OBJECTS)
        for k, item in enumerate(objects):
            attributes[k] = [values.index(item[name]) for name, values in ATTRIBUTES.items()]
            position[k], rotation[k] = item["3d_coords"][:2], item["rotation"]
        points = np.array([item["3d_coords"] for item in objects])
        eye = camera.locate(points, np.array([item["pixel_coords"] for item in objects], float))
        one = (np.array(count), attributes, position, rotation, eye, np.zeros((3, 3)))
        parts.append(Scenes(*(array[None] for array in one)))
    return Scenes.concatenate(parts)
