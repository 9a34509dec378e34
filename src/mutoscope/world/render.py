"""Scenes to pixels: analytic signed distances, painter's order, anti-aliased over one pixel.

A pure function of (scene, time, view). Everything is tensor code on any device; loops run over chunks of
scenes, layers, painter's ranks and shapes, never over pixels.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from mutoscope.world.backdrop import paint_backdrop
from mutoscope.world.palette import BACKDROPS, PALETTE, Rgb
from mutoscope.world.physics import Path, positions
from mutoscope.world.stage import EXTENTS, SHAPES, Body, Scene, Shot, View

CPU_CHUNK = 4  # scenes at a time: keeps a clip's planes in the cache
OUTLINE = 0.020  # width of the darker rim, stage units
RIM = {"paper": OUTLINE, "outline": 0.034, "neon": 0.030}  # the same by style
SHADOW_SHIFT = (0.018, -0.026)
SHADOW_BLUR = 0.05
SHADOW_DEPTH = 0.34
HAT = 0.46  # diameter of a hat, in diameters of its wearer
EYE, PUPIL = (252, 252, 252), (24, 24, 30)


def render(scenes: Sequence[Scene], view: View, device: torch.device | str = "cpu") -> Tensor:
    """video_BCTHW in [-1, 1], one clip per scene, all in one view."""
    return render_with_mask(scenes, view, device)[0]


def object_mask(scenes: Sequence[Scene], view: View, device: torch.device | str = "cpu") -> Tensor:
    """mask_B1THW in [0, 1]: how much of a pixel the objects cover."""
    return render_with_mask(scenes, view, device)[1]


def render_with_mask(
    scenes: Sequence[Scene], view: View, device: torch.device | str = "cpu"
) -> tuple[Tensor, Tensor]:
    """The clips, video_BCTHW in [-1, 1], and their objects' coverage, mask_B1THW in [0, 1]."""
    target = torch.device(device)
    shape = (view.frames, view.height, view.width)
    video = torch.empty((len(scenes), 3, *shape), device=target)
    mask = torch.zeros((len(scenes), 1, *shape), device=target)
    alike: dict[tuple[int, int, bool, str], list[tuple[int, Shot]]] = {}
    for row, scene in enumerate(scenes):
        for shot, span in scene.takes(view):
            moving = shot.camera.kind != "static"
            alike.setdefault((span.start, span.stop, moving, scene.style), []).append((row, shot))
    chunk = CPU_CHUNK if target.type == "cpu" else 64
    for (start, stop, moving, style), takes in alike.items():
        for first in range(0, len(takes), chunk):
            rows, shots = zip(*takes[first : first + chunk], strict=True)
            painted = _paint(shots, style, moving, np.arange(stop - start) / view.fps, view, target)
            video[list(rows), :, start:stop] = painted[0]
            mask[list(rows), :, start:stop] = painted[1]
    return video.clamp_(0, 1).mul_(2).sub_(1), mask


def _paint(
    shots: Sequence[Shot], style: str, moving: bool, times: np.ndarray, view: View, device: torch.device
) -> tuple[Tensor, Tensor]:
    """Some shots in one style: video (B, 3, T, H, W) in 0..1 and mask (B, 1, T, H, W)."""
    x_W = (torch.arange(view.width, device=device) + 0.5 - view.width / 2) / view.unit
    y_H = 0.5 - (torch.arange(view.height, device=device) + 0.5 - view.height / 2) / view.unit
    shape = (len(times), view.height, view.width)
    video = torch.empty((len(shots), 3, *shape), device=device)
    mask = torch.zeros((len(shots), 1, *shape), device=device)
    cameras_BT3 = np.stack([shot.camera.at(times if moving else times[:1]) for shot in shots])
    looks = torch.from_numpy(cameras_BT3.astype(np.float32)).to(device) if moving else None
    backdrop = paint_backdrop(
        [BACKDROPS[shot.background] for shot in shots],
        [shot.phase for shot in shots],
        x_W,
        y_H,
        looks,
        view.unit,
    )
    video.copy_(restyled(backdrop, style))
    parts = [_parts(shot.bodies) for shot in shots]
    for rank in range(max((len(row) for row in parts), default=0)):
        for kind in ((shape_name, flat) for shape_name in SHAPES for flat in (False, True)):
            rows = [
                r
                for r, row in enumerate(parts)
                if rank < len(row) and (row[rank].shape, row[rank].flat) == kind
            ]
            if rows:
                chosen = [parts[row][rank] for row in rows]
                places = positions([part.path for part in chosen], times)
                places[..., :2] += np.array([part.offset for part in chosen])[:, None]
                scales = np.ones(places.shape[:2])
                if moving:
                    look = cameras_BT3[rows]
                    scales = look[..., 2]
                    centre = np.array([0.0, 0.5])
                    places[..., :2] = (places[..., :2] - centre - look[..., :2]) * scales[..., None] + centre
                _paint_parts(chosen, rows, places, scales, (x_W, y_H), view, style, video, mask)
    return video, mask


@dataclass(frozen=True)
class _Part:
    """One sheet of paper: a body, or a piece of its face or hat at an offset from the body's centre."""

    shape: str
    fill: Rgb
    rim: Rgb
    diameter: float
    path: Path
    offset: tuple[float, float] = (0.0, 0.0)
    flat: bool = False  # no shadow, no light, no outline


def _parts(bodies: Sequence[Body]) -> list[_Part]:
    """Painter's order; hats and eyes stay upright."""
    parts: list[_Part] = []
    for body in bodies:
        parts.append(_Part(body.shape, *_paints(body.colour), body.diameter, body.path))
        size = body.diameter
        if body.hat is not None:
            shape, colour = body.hat
            brim = EXTENTS[body.shape][2] * size - (0.16 if body.shape == "triangle" else 0.06) * size
            lift = brim + EXTENTS[shape][1] * HAT * size
            parts.append(_Part(shape, *_paints(colour), HAT * size, body.path, (0.0, lift)))
        facing = math.copysign(0.03 * size, body.path[0][3]) if body.path[0][3] else 0.0
        level = 0.395 * size if body.shape == "ring" else 0.06 * size
        for eye in range(body.eyes):
            across = (eye - (body.eyes - 1) / 2) * 0.27 * size
            white = _Part("ball", EYE, EYE, 0.24 * size, body.path, (across, level), flat=True)
            pupil = _Part("ball", PUPIL, PUPIL, 0.12 * size, body.path, (across + facing, level), flat=True)
            parts += [white, pupil]
    return parts


def _paint_parts(
    parts: Sequence[_Part],
    rows: list[int],
    places: np.ndarray,
    scales: np.ndarray,
    grid: tuple[Tensor, Tensor],
    view: View,
    style: str,
    video: Tensor,
    mask: Tensor,
) -> None:
    """Blend parts of one shape, one per row of the chunk, inside the window that they ever touch.

    places (N, T, 3) and scales (N, T) are in frame coordinates, after the camera.
    """
    shape = parts[0].shape
    diameters = np.array([part.diameter for part in parts])
    window = _window(shape, places, diameters[:, None] * scales, view)
    if window is None:
        return
    rows_slice, columns = window
    device = video.device
    place_NT3 = torch.from_numpy(places.astype(np.float32)).to(device)
    scale = torch.from_numpy(scales.astype(np.float32)).to(device)[..., None, None]
    size = torch.from_numpy(diameters.astype(np.float32)).to(device)[:, None, None, None] * scale
    cos = torch.cos(place_NT3[..., 2])[..., None, None]
    sin = torch.sin(place_NT3[..., 2])[..., None, None]
    dx = grid[0][columns] - place_NT3[:, :, 0, None, None]
    dy = grid[1][rows_slice, None] - place_NT3[:, :, 1, None, None]
    u, v = dx * cos + dy * sin, dy * cos - dx * sin
    distance = signed_distance(shape, u, v, size)
    cover = (0.5 - distance * view.unit).clamp_(0, 1)
    flat = parts[0].flat
    shade = None
    if not flat:
        sx, sy = dx - SHADOW_SHIFT[0] * scale, dy - SHADOW_SHIFT[1] * scale
        shade = signed_distance(shape, sx * cos + sy * sin, sy * cos - sx * sin, size)
        shade = (0.5 - shade / (SHADOW_BLUR * scale)).clamp_(0, 1)
        shade = shade * shade * (3 - 2 * shade) * SHADOW_DEPTH
    rim = (0.5 + (distance + RIM[style] * scale) * view.unit).clamp_(0, 1)
    light = ((dy * 0.8 - dx * 0.6) / size).clamp_(-0.6, 0.6) * (0.0 if flat else 0.22)
    if shape == "ball" and not flat:
        band = (0.5 - (v.abs() - 0.10 * size) * view.unit).clamp_(0, 1)
        light = light - 0.10 * band
    inks = [(part.fill, part.rim) if flat else ink(part.fill, part.rim, style) for part in parts]
    for channel in range(3):
        fill = _per_row([fill[channel] for fill, _ in inks], device)
        dark = _per_row([rim[channel] for _, rim in inks], device)
        paint = fill + light
        paint += (dark - paint) * rim
        for place, row in enumerate(rows):
            canvas = video[row, channel, :, rows_slice, columns]
            if shade is not None:
                canvas.mul_(1 - shade[place])
            canvas.add_((paint[place] - canvas) * cover[place])
    for place, row in enumerate(rows):
        covered = mask[row, 0, :, rows_slice, columns]
        torch.maximum(covered, cover[place], out=covered)


def _per_row(values: Sequence[int], device: torch.device) -> Tensor:
    return torch.tensor(values, device=device, dtype=torch.float32)[:, None, None, None] / 255


def _paints(colour: str) -> tuple[Rgb, Rgb]:
    """Fill and rim. The rim has the same hue, darker; black gets a lighter one so that it still reads."""
    red, green, blue = fill = PALETTE[colour]
    return fill, (78, 78, 90) if sum(fill) < 200 else (int(red * 0.66), int(green * 0.66), int(blue * 0.68))


def ink(fill: Rgb, rim: Rgb, style: str) -> tuple[Rgb, Rgb]:
    """Fill and rim in a style: outlines are pale inside, neon is dark inside and bright at the rim."""
    if style == "outline":
        red, green, blue = (value + round((252 - value) * 0.72) for value in fill)
        return (red, green, blue), fill
    if style == "neon":
        red, green, blue = (round(value * 0.34) for value in fill)
        return (red, green, blue), fill
    return fill, rim


def restyled(backdrop: Tensor, style: str) -> Tensor:
    """The backdrop of a style: outlines stand before faded paper, neon before the same stage with the lights off."""
    if style == "outline":
        return backdrop + (0.97 - backdrop) * 0.62
    if style == "neon":
        return backdrop * torch.tensor([0.16, 0.16, 0.24], device=backdrop.device)[:, None, None, None]
    return backdrop


def _window(
    shape: str, places: np.ndarray, diameters_NT: np.ndarray, view: View
) -> tuple[slice, slice] | None:
    """Rows and columns that hold every body and shadow at every time; None when all are out of view."""
    reach = max(EXTENTS[shape]) * diameters_NT + SHADOW_BLUR + 0.03
    left = (places[..., 0] - reach).min() * view.unit + view.width / 2
    right = (places[..., 0] + reach).max() * view.unit + view.width / 2
    top = (0.5 - (places[..., 1] + reach).max()) * view.unit + view.height / 2
    bottom = (0.5 - (places[..., 1] - reach).min()) * view.unit + view.height / 2
    rows = slice(max(0, int(np.floor(top))), min(view.height, int(np.ceil(bottom))))
    columns = slice(max(0, int(np.floor(left))), min(view.width, int(np.ceil(right))))
    return (rows, columns) if rows.start < rows.stop and columns.start < columns.stop else None


def signed_distance(shape: str, u: Tensor, v: Tensor, size: Tensor) -> Tensor:
    """Distance to the edge of a shape of diameter `size` at (u, v) from its centre; negative inside.

    Formulas after Inigo Quilez, "2D distance functions"; the triangle's is exact inside, mitred outside.
    """
    if shape == "ball":
        return torch.sqrt(u * u + v * v) - 0.5 * size
    if shape == "ring":
        return (torch.sqrt(u * u + v * v) - 0.395 * size).abs_() - 0.125 * size
    if shape == "box":
        a, b = u.abs() - 0.41 * size, v.abs() - 0.41 * size
        outside = torch.sqrt(a.clamp(min=0) ** 2 + b.clamp(min=0) ** 2)
        return outside + torch.maximum(a, b).clamp_(max=0) - 0.04 * size
    if shape == "capsule":
        a = (u.abs() - 0.32 * size).clamp_(min=0)
        return torch.sqrt(a * a + v * v) - 0.30 * size
    if shape == "triangle":
        return torch.maximum(u.abs() * 0.8660254 + v * 0.5, -v) - 0.325 * size
    return _star(u, v, 0.62 * size)


def _star(u: Tensor, v: Tensor, radius: Tensor) -> Tensor:
    """Five points, inner radius 0.5 of the outer one."""
    u = u.abs()
    fold = (0.80901699 * u - 0.58778525 * v).clamp_(min=0) * 2
    u, v = u - fold * 0.80901699, v + fold * 0.58778525
    fold = (-0.80901699 * u - 0.58778525 * v).clamp_(min=0) * 2
    u, v = (u + fold * 0.80901699).abs_(), v + fold * 0.58778525 - radius
    edge_u, edge_v = 0.5 * 0.58778525, 0.5 * 0.80901699 - 1
    along = ((u * edge_u + v * edge_v) / (edge_u**2 + edge_v**2)).clamp_(min=0)
    along = torch.minimum(along, radius)
    a, b = u - edge_u * along, v - edge_v * along
    return torch.sqrt(a * a + b * b) * torch.sign(v * edge_u - u * edge_v)
