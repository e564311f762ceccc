"""Rays against spheres, cubes and upright cylinders on a ground plane: many scenes and rays at once.

Shapes: B scenes, R rays per scene, n places for objects. A ray is an origin and a unit direction, both (B, R, 3).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from multiscale.vqa.clevr.scenes import Scenes
from multiscale.vqa.clevr.vocabulary import COLORS, SHAPES

FAR = 1e4
NEAR = 1e-3
COMPILED_SCENES = 64
"""From so many scenes at once on, a GPU runs compiled code: one kernel for an object instead of a hundred."""


class Solids(NamedTuple):
    """The objects of B scenes, as tensors (B, n, …)."""

    kind: Tensor
    """Index into `SHAPES`; -1 where there is no object."""
    radius: Tensor
    center: Tensor
    turn: Tensor
    """Cosine and sine of the rotation about the vertical axis (B, n, 2)."""
    color: Tensor
    """Linear RGB in [0, 1]."""
    metal: Tensor
    """1 for metal, 0 for rubber."""


class Hit(NamedTuple):
    distance: Tensor
    """Along the ray (B, R); FAR where nothing is hit."""
    index: Tensor
    """Which object (B, R), -1 for the ground or nothing."""
    normal: Tensor
    """(B, R, 3)."""


def solids(scenes: Scenes, device: torch.device | str) -> Solids:
    """With as many places as the fullest scene has objects, but at least one."""
    places = max(1, int(scenes.count.max()))

    def tensor(array: np.ndarray) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(array[:, :places], np.float32)).to(device)

    colors = np.array(list(COLORS.values()), np.float32) / 255
    angle = scenes.rotation  # CLEVR hands its "degrees" to a field that is in radians
    kind = np.where(scenes.present, scenes.attributes[..., 3], -1)
    assert SHAPES == ("cube", "sphere", "cylinder")
    return Solids(
        kind=torch.from_numpy(kind[:, :places]).to(device),
        radius=tensor(scenes.radius),
        center=tensor(scenes.centers),
        turn=tensor(np.stack([np.cos(angle), np.sin(angle)], -1)),
        color=tensor(colors[scenes.attributes[..., 1]]),
        metal=tensor(scenes.attributes[..., 2] == 1),
    )


def closest_hit(objects: Solids, origin: Tensor, direction: Tensor) -> Hit:
    """The first object along each ray (the ground is not one)."""
    distance = torch.full_like(origin[..., 0], FAR)
    hit = Hit(distance, torch.full_like(distance, -1, dtype=torch.int64), torch.zeros_like(origin))
    nearer = _for_many(_nearer, origin)
    for k in range(objects.kind.shape[1]):
        hit = nearer(hit, torch.tensor(k, device=origin.device), _object(objects, k), origin, direction)
    return hit


def is_blocked(objects: Solids, origin: Tensor, direction: Tensor, limit: Tensor) -> Tensor:
    """Whether an object is nearer than `limit` (B, R); (B, R) bool."""
    blocked = torch.zeros_like(limit, dtype=torch.bool)
    blocks = _for_many(_blocks, origin)
    for k in range(objects.kind.shape[1]):
        blocked = blocks(blocked, _object(objects, k), origin, direction, limit)
    return blocked


def _for_many(function: Callable, origin: Tensor) -> Callable:
    return _compiled(function) if origin.is_cuda and len(origin) >= COMPILED_SCENES else function


@cache
def _compiled(function: Callable) -> Callable:
    return torch.compile(function, dynamic=False)


def _object(objects: Solids, k: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Kind, radius, centre and turn of object k of every scene, for all rays: (B, 1, …)."""
    return objects.kind[:, k, None], objects.radius[:, k, None], objects.center[:, k, None], objects.turn[:, k, None]


def _nearer(hit: Hit, k: Tensor, one: tuple[Tensor, ...], origin: Tensor, direction: Tensor) -> Hit:
    """`hit`, or object k where that is nearer."""
    there, surface = _hit_object(*one, origin, direction)
    closer = there < hit.distance
    distance = torch.where(closer, there, hit.distance)
    return Hit(distance, torch.where(closer, k, hit.index), torch.where(closer[..., None], surface, hit.normal))


def _blocks(blocked: Tensor, one: tuple[Tensor, ...], origin: Tensor, direction: Tensor, limit: Tensor) -> Tensor:
    return blocked | (_hit_object(*one, origin, direction)[0] < limit)


def _hit_object(
    kind: Tensor, radius: Tensor, center: Tensor, turn: Tensor, origin: Tensor, direction: Tensor
) -> tuple[Tensor, Tensor]:
    """Distance to an object of every scene (B, R), FAR for a miss, and the normal there (B, R, 3)."""
    # In the object's frame: centred, turned, scaled to a half-size of one.
    cos, sin = turn.unbind(-1)
    o = _turned((origin - center) / radius[..., None], cos, -sin)
    d = _turned(direction / radius[..., None], cos, -sin)
    cube, cube_normal = _slabs(o, d, 3)
    sphere, sphere_normal = _quadric(o, d, 3)
    tube, tube_normal = _cylinder(o, d)
    distance = torch.where(kind == 0, cube, torch.where(kind == 1, sphere, tube))
    distance = torch.where((kind < 0) | (distance < NEAR), FAR, distance)
    kind = kind[..., None]
    normal = torch.where(kind == 0, cube_normal, torch.where(kind == 1, sphere_normal, tube_normal))
    return distance, _turned(normal, cos, sin)


def _turned(v: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    x, y, z = v.unbind(-1)
    return torch.stack((cos * x - sin * y, sin * x + cos * y, z), -1)


def _quadric(o: Tensor, d: Tensor, axes: int) -> tuple[Tensor, Tensor]:
    """Entry into the unit sphere (axes = 3) or the endless unit tube (axes = 2)."""
    o_, d_ = o[..., :axes], d[..., :axes]
    a, b, c = (d_ * d_).sum(-1).clamp(min=1e-9), (o_ * d_).sum(-1), (o_ * o_).sum(-1) - 1
    root = b * b - a * c
    distance = torch.where(root > 0, (-b - root.clamp(min=0).sqrt()) / a, FAR)
    normal = o + distance.clamp(max=100)[..., None] * d
    if axes == 2:
        normal = torch.cat((normal[..., :2], torch.zeros_like(normal[..., 2:])), -1)
    return distance, normal


def _slabs(o: Tensor, d: Tensor, axes: int) -> tuple[Tensor, Tensor]:
    """Entry into the box [-1, 1] along the last `axes` axes."""
    o_, d_ = o[..., 3 - axes :], d[..., 3 - axes :]
    d_ = torch.where(d_.abs() < 1e-7, 1e-7, d_)
    one, other = (-1 - o_) / d_, (1 - o_) / d_
    entry, axis = torch.minimum(one, other).max(-1)
    leave = torch.maximum(one, other).min(-1).values
    distance = torch.where(entry < leave, entry, FAR)
    chosen = torch.arange(3 - axes, 3, device=o.device) == axis[..., None] + 3 - axes
    side = torch.where(chosen, -d_.sign(), 0.0)
    return distance, torch.nn.functional.pad(side, (3 - axes, 0))


def _cylinder(o: Tensor, d: Tensor) -> tuple[Tensor, Tensor]:
    """Entry into the unit tube between the planes z = -1 and 1."""
    side, side_normal = _quadric(o, d, 2)
    side = torch.where((o[..., 2] + side * d[..., 2]).abs() <= 1, side, FAR)
    dz = torch.where(d[..., 2].abs() < 1e-7, 1e-7, d[..., 2])
    cap = (-dz.sign() - o[..., 2]) / dz
    at_cap = o[..., :2] + cap[..., None] * d[..., :2]
    cap = torch.where((at_cap * at_cap).sum(-1) <= 1, cap, FAR)
    cap = torch.where(cap < NEAR, FAR, cap)
    side = torch.where(side < NEAR, FAR, side)
    up = torch.zeros_like(o)
    up[..., 2] = -dz.sign()
    return torch.minimum(side, cap), torch.where((cap < side)[..., None], up, side_normal)
