"""Images of scenes: three soft lamps, shadows, matte and mirror-like materials, grey ground.

Lamps and ground were fitted to the background of real images (mean error 3 of 255 levels, with the lamps' own jitter in it).
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from multiscale.vqa.clevr import camera
from multiscale.vqa.clevr.scenes import Scenes
from multiscale.vqa.clevr.tracer import FAR, Solids, closest_hit, is_blocked, solids

MIN_VISIBLE_PIXELS = 200

LAMP_POSITION = torch.tensor([[5.31, -2.26, 4.26], [-4.72, -3.30, 3.40], [-0.28, 3.31, 5.83]])
LAMP_AIM = torch.tensor([[-0.184, 0.152, -0.971], [0.740, 0.106, -0.665], [-0.242, -0.697, -0.675]])
LAMP_POWER = torch.tensor([[3.15, 2.89, 2.45], [1.05, 1.13, 1.40], [3.51, 3.47, 3.42]])
"""Times the ground's reflectance."""
LAMP_SIZE = 0.6
"""Half the width of a lamp: how soft shadows are."""
AMBIENT = 0.137
UPWARD = 0.05
"""How much more ambient light falls on what faces up."""
SKY = 0.15
"""What mirrors show above the horizon, times the ambient light."""
GROUND = 0.68
"""Reflectance of the ground, which relates its brightness to that of objects."""
GLOSS = (0.20, 0.76, 1.7)
"""Metal: share of its diffuse light, of its mirror image, of the lamps' highlights."""
HIGHLIGHT_POWER = 60.0
SHEEN, SHEEN_POWER = 0.03, 12.0
"""Rubber's faint, broad highlight."""


def pixel_rays(scenes: Scenes, columns: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
    """Rays through pixel coordinates (R,) of the 480x320 image: origin and direction (B, R, 3)."""
    device = columns.device
    frame = torch.from_numpy(camera.axes(scenes.camera).astype(np.float32)).to(device)
    across = (columns - camera.WIDTH / 2) / camera.FOCAL
    down = (rows - camera.HEIGHT / 2) / camera.FOCAL
    seen = torch.stack((across, down, torch.ones_like(across)), -1)
    direction = torch.nn.functional.normalize(seen @ frame, dim=-1)
    origin = torch.from_numpy(scenes.camera.astype(np.float32)).to(device)[:, None].expand_as(direction)
    return origin, direction


def pixel_grid(box: tuple[float, float, float, float], width: int, height: int, device: str) -> tuple[Tensor, Tensor]:
    """Centres of width x height cells of a box (left, top, right, bottom) of the image: columns and rows, flat."""
    left, top, right, bottom = box
    x = left + (torch.arange(width, device=device) + 0.5) * ((right - left) / width)
    y = top + (torch.arange(height, device=device) + 0.5) * ((bottom - top) / height)
    rows, columns = torch.meshgrid(y, x, indexing="ij")
    return columns.flatten(), rows.flatten()


def render(
    scenes: Scenes, box: tuple[float, float, float, float], width: int, height: int, device: str = "cpu", seed: int = 0
) -> Tensor:
    """sRGB in [0, 1], (B, 3, height, width): one sample per cell, each with its own point of every lamp."""
    columns, rows = pixel_grid(box, width, height, device)
    origin, direction = pixel_rays(scenes, columns, rows)
    generator = torch.Generator(device).manual_seed(seed)
    offsets = torch.rand((len(columns), 3, 3), generator=generator, device=device) * 2 - 1
    shift = torch.from_numpy(scenes.lamps.astype(np.float32)).to(device)
    light = trace(solids(scenes, device), origin, direction, shift, offsets * LAMP_SIZE)
    return srgb(light).transpose(1, 2).unflatten(-1, (height, width))


def trace(objects: Solids, origin: Tensor, direction: Tensor, lamp_shift: Tensor, lamp_offset: Tensor) -> Tensor:
    """Linear RGB seen along each ray (B, R, 3). lamp_shift (B, 3, 3) per scene, lamp_offset (R, 3, 3) per ray."""
    hit = closest_hit(objects, origin, direction)
    point, normal, color, metal = _surface(objects, hit, origin, direction)
    is_ground = hit.index < 0
    lamps = _lamps(lamp_shift, lamp_offset)
    lit, shine = _lighting(objects, point, normal, direction, lamps, metal, shadows=True)
    mirrored = direction - 2 * (direction * normal).sum(-1, keepdim=True) * normal
    start = point + 2e-3 * normal
    reflection = _reflected(objects, start, mirrored, lamps)
    diffuse, mirror, highlight = GLOSS
    matte = color * lit + SHEEN * shine * lit
    polished = color * (diffuse * lit / GROUND + mirror * reflection) + highlight * shine * (0.15 + 0.85 * color)
    light = torch.where(metal[..., None] > 0, polished, matte / GROUND)
    return torch.where(is_ground[..., None], lit, light)


def _surface(objects: Solids, hit, origin: Tensor, direction: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Point, normal, colour and metal flag of what each ray meets, the ground included."""
    down = direction[..., 2].clamp(max=-1e-4)
    to_ground = torch.where(direction[..., 2] < -1e-4, -origin[..., 2] / down, FAR).clamp(max=FAR)
    is_ground = hit.index < 0
    distance = torch.where(is_ground, to_ground, hit.distance)
    point = origin + distance[..., None] * direction
    up = torch.tensor([0.0, 0.0, 1.0], device=origin.device).expand_as(point)
    normal = torch.where(is_ground[..., None], up, hit.normal)
    at = hit.index.clamp(min=0)
    color = torch.gather(objects.color, 1, at[..., None].expand(-1, -1, 3))
    metal = torch.gather(objects.metal, 1, at) * ~is_ground
    return point, normal, color, metal


def _lamps(shift: Tensor, offset: Tensor) -> list[tuple[Tensor, Tensor, Tensor, Tensor]]:
    """Per lamp: its centre, the point of it that lights each ray (relative to the centre), its aim and its power."""
    device = shift.device
    return [
        (
            LAMP_POSITION[k].to(device) + shift[:, None, k],
            offset[None, :, k],
            LAMP_AIM[k].to(device),
            LAMP_POWER[k].to(device),
        )
        for k in range(3)
    ]


def _lighting(
    objects: Solids, point: Tensor, normal: Tensor, view: Tensor, lamps: list, metal: Tensor, shadows: bool
) -> tuple[Tensor, Tensor]:
    """Light that falls on each point, as the ground would reflect it (B, R, 3), and its highlight (B, R, 1)."""
    lit = AMBIENT * (0.95 + UPWARD * normal[..., 2:]).expand_as(point)
    shine = torch.zeros_like(point[..., :1])
    mirrored = view - 2 * (view * normal).sum(-1, keepdim=True) * normal
    power = torch.where(metal > 0, HIGHLIGHT_POWER, SHEEN_POWER)
    for center, offset, aim, color in lamps:
        way = center + offset - point
        square = (way * way).sum(-1, keepdim=True)
        toward = way * square.rsqrt()
        # A lamp is a flat panel: it shines to its front only.
        leaving = (-(toward * aim).sum(-1, keepdim=True)).clamp(min=0)
        facing = (toward * normal).sum(-1, keepdim=True).clamp(min=0)
        reach = leaving / square
        if shadows:
            blocked = is_blocked(objects, point + 2e-3 * normal, toward, square[..., 0].sqrt())
            reach = reach * ~blocked[..., None]
        lit = lit + color * (reach * facing)
        # From the centre: a narrow highlight of random points of the lamp would be noise.
        middle = torch.nn.functional.normalize(center - point, dim=-1)
        glint = (middle * mirrored).sum(-1).clamp(min=0) ** power
        shine = shine + glint[..., None] * leaving * (reach > 0) * color.mean() / 3
    return lit, shine


def _reflected(objects: Solids, start: Tensor, direction: Tensor, lamps: list) -> Tensor:
    """What a mirror shows: objects and ground without further shadows or mirrors (B, R, 3)."""
    hit = closest_hit(objects, start, direction)
    point, normal, color, metal = _surface(objects, hit, start, direction)
    lit, _ = _lighting(objects, point, normal, direction, lamps, metal, shadows=False)
    seen = torch.where((hit.index < 0)[..., None], lit, color * lit / GROUND)
    nothing = (hit.index < 0) & (direction[..., 2] >= -1e-4)
    return torch.where(nothing[..., None], SKY * AMBIENT, seen)


def srgb(light: Tensor) -> Tensor:
    """Linear light to display values, both in [0, 1]."""
    light = light.clamp(0, 1)
    return torch.where(light <= 0.0031308, 12.92 * light, 1.055 * light.clamp(min=1e-6) ** (1 / 2.4) - 0.055)


@torch.no_grad()
def all_visible(scenes: Scenes, device: str = "cpu", cell: int = 3) -> np.ndarray:
    """Whether every object of a scene shows at least `MIN_VISIBLE_PIXELS` pixels; (B,) bool. Counts cells of cell x cell."""
    columns, rows = pixel_grid((0, 0, camera.WIDTH, camera.HEIGHT), camera.WIDTH // cell, camera.HEIGHT // cell, device)
    origin, direction = pixel_rays(scenes, columns, rows)
    objects = solids(scenes, device)
    seen, places = closest_hit(objects, origin, direction).index, objects.kind.shape[1]
    counts = torch.stack([(seen == k).sum(1) for k in range(places)], 1).cpu().numpy()
    return ((counts * cell**2 >= MIN_VISIBLE_PIXELS) | ~scenes.present[:, :places]).all(1)
