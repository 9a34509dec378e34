"""Scenes to pixels: analytic signed distances, painter's order, anti-aliased over one pixel.

A pure function of (scene, time, view). Everything is tensor code on any device; loops run over chunks of
scenes, layers, painter's ranks and shapes, never over pixels.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from mutoscope.world.palette import BACKDROPS, PALETTE, Rgb
from mutoscope.world.physics import positions
from mutoscope.world.scene import EXTENTS, FLOOR, SHAPES, Body, Scene, View

CPU_CHUNK = 4  # scenes at a time: keeps a clip's planes in the cache
OUTLINE = 0.020  # width of the darker rim, stage units
SHADOW_SHIFT = (0.018, -0.026)
SHADOW_BLUR = 0.05
SHADOW_DEPTH = 0.34
RIDGES = ("hills", "waves", "peaks", "flat")


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
    chunk = CPU_CHUNK if target.type == "cpu" else 64
    for first in range(0, len(scenes), chunk):
        part = slice(first, first + chunk)
        _paint(scenes[part], view, video[part], mask[part])
    return video.clamp_(0, 1).mul_(2).sub_(1), mask


def _paint(scenes: Sequence[Scene], view: View, video: Tensor, mask: Tensor) -> None:
    """Fill video (0..1) and mask for a chunk of scenes."""
    device = video.device
    x_W = (torch.arange(view.width, device=device) + 0.5 - view.width / 2) / view.unit
    y_H = 0.5 - (torch.arange(view.height, device=device) + 0.5 - view.height / 2) / view.unit
    video.copy_(_backdrop(scenes, x_W, y_H, view.unit))
    times = np.arange(view.frames) / view.fps
    ranks = max(len(scene.shots[0].bodies) for scene in scenes)
    for rank in range(ranks):
        for shape in SHAPES:
            rows = [
                row
                for row, scene in enumerate(scenes)
                if rank < len(scene.shots[0].bodies) and scene.shots[0].bodies[rank].shape == shape
            ]
            if rows:
                bodies = [scenes[row].shots[0].bodies[rank] for row in rows]
                _paint_bodies(shape, bodies, rows, times, (x_W, y_H), view, video, mask)


def _paint_bodies(
    shape: str,
    bodies: Sequence[Body],
    rows: list[int],
    times: np.ndarray,
    grid: tuple[Tensor, Tensor],
    view: View,
    video: Tensor,
    mask: Tensor,
) -> None:
    """Blend bodies of one shape, one per row of the chunk, inside the window that they ever touch."""
    places = positions([body.path for body in bodies], times)
    diameter = np.array([body.diameter for body in bodies])
    window = _window(shape, places, diameter, view)
    if window is None:
        return
    rows_slice, columns = window
    device = video.device
    place_NT3 = torch.from_numpy(places.astype(np.float32)).to(device)
    size = torch.from_numpy(diameter.astype(np.float32)).to(device)[:, None, None, None]
    cos = torch.cos(place_NT3[..., 2])[..., None, None]
    sin = torch.sin(place_NT3[..., 2])[..., None, None]
    dx = grid[0][columns] - place_NT3[:, :, 0, None, None]
    dy = grid[1][rows_slice, None] - place_NT3[:, :, 1, None, None]
    u, v = dx * cos + dy * sin, dy * cos - dx * sin
    distance = signed_distance(shape, u, v, size)
    sx, sy = dx - SHADOW_SHIFT[0], dy - SHADOW_SHIFT[1]
    shade = signed_distance(shape, sx * cos + sy * sin, sy * cos - sx * sin, size)
    shade = (0.5 - shade / SHADOW_BLUR).clamp_(0, 1)
    shade = shade * shade * (3 - 2 * shade) * SHADOW_DEPTH
    cover = (0.5 - distance * view.unit).clamp_(0, 1)
    rim = (0.5 + (distance + OUTLINE) * view.unit).clamp_(0, 1)
    light = ((dy * 0.8 - dx * 0.6) / size).clamp_(-0.6, 0.6) * 0.22
    if shape == "ball":
        band = (0.5 - (v.abs() - 0.10 * size) * view.unit).clamp_(0, 1)
        light = light - 0.10 * band
    for channel in range(3):
        fill = _per_row([PALETTE[body.colour][channel] for body in bodies], device)
        dark = _per_row([_darker(PALETTE[body.colour])[channel] for body in bodies], device)
        paint = fill + light
        paint += (dark - paint) * rim
        for place, row in enumerate(rows):
            canvas = video[row, channel, :, rows_slice, columns]
            canvas.mul_(1 - shade[place])
            canvas.add_((paint[place] - canvas) * cover[place])
    for place, row in enumerate(rows):
        covered = mask[row, 0, :, rows_slice, columns]
        torch.maximum(covered, cover[place], out=covered)


def _per_row(values: Sequence[int], device: torch.device) -> Tensor:
    return torch.tensor(values, device=device, dtype=torch.float32)[:, None, None, None] / 255


def _darker(paint: Rgb) -> Rgb:
    """The rim of a cut-out: the same hue, darker; black gets a lighter rim so that it still reads."""
    if sum(paint) < 200:
        return (78, 78, 90)
    red, green, blue = paint
    return (int(red * 0.66), int(green * 0.66), int(blue * 0.68))


def _window(shape: str, places: np.ndarray, diameter: np.ndarray, view: View) -> tuple[slice, slice] | None:
    """Rows and columns that hold every body and shadow at every time; None when all are out of view."""
    reach = (max(EXTENTS[shape]) * diameter)[:, None] + SHADOW_BLUR + 0.03
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


def _backdrop(scenes: Sequence[Scene], x_W: Tensor, y_H: Tensor, unit: int) -> Tensor:
    """The theatre without its actors: (B, 3, 1, H, W) in 0..1."""
    device = x_W.device
    drops = [BACKDROPS[scene.shots[0].background] for scene in scenes]
    phase = torch.tensor([scene.shots[0].phase for scene in scenes], device=device)[:, None]

    def paint(colours: Sequence[Rgb]) -> Tensor:
        return torch.tensor(colours, device=device, dtype=torch.float32)[:, :, None, None] / 255

    y = y_H[:, None]
    height = ((y - FLOOR) / (1 - FLOOR)).clamp(0, 1)
    bottom = paint([drop.sky_bottom for drop in drops])
    canvas = bottom + (paint([drop.sky_top for drop in drops]) - bottom) * height
    glow = torch.tensor([drop.glow_place for drop in drops], device=device)[:, :, None, None]
    away = torch.sqrt((x_W - glow[:, 0]) ** 2 + (y - glow[:, 1]) ** 2) / glow[:, 2]
    halo = ((1 - away).clamp_(min=0) ** 2)[:, None] * 0.8
    canvas = canvas + (paint([drop.glow for drop in drops]) - canvas) * halo
    for ridge, colours in (
        ("far_shape", [drop.far for drop in drops]),
        ("near_shape", [drop.near for drop in drops]),
    ):
        shape = torch.tensor([getattr(drop, ridge) for drop in drops], device=device)
        kinds = torch.tensor([RIDGES.index(drop.ridge) for drop in drops], device=device)[:, None]
        top = _ridge(x_W, shape, phase, kinds)
        canvas = _layer(canvas, y - top[:, None, :], paint(colours), unit)
        phase = phase * 1.7 + 1
    floor = paint([drop.floor for drop in drops]) * (1.0 - 0.10 * ((FLOOR - y) / FLOOR).clamp(0, 1))
    canvas = _layer(canvas, (y - FLOOR).expand(len(scenes), -1, x_W.numel()), floor, unit)
    lit = 1 + 0.05 * ((y - 0.5).clamp(-1, 1) - x_W.clamp(-1, 1))
    return (canvas * lit)[:, :, None]


def _ridge(x_W: Tensor, shape: Tensor, phase: Tensor, kinds: Tensor) -> Tensor:
    """Upper edge of a paper ridge, (B, W)."""
    mean, swing, frequency = shape[:, :1], shape[:, 1:2], shape[:, 2:3]
    turn = x_W * frequency + phase
    hills = torch.sin(turn) + 0.35 * torch.sin(2.1 * turn + 1.3)
    waves = 1 - 2 * torch.sin(turn / 2).abs()
    peaks = (2 / torch.pi) * torch.asin(0.985 * torch.sin(turn)) + 0.3 * torch.sin(1.6 * turn + 0.7)
    wave = torch.where(kinds == 1, waves, torch.where(kinds == 2, peaks, hills))
    return mean + swing * torch.where(kinds == 3, torch.zeros_like(wave), wave)


def _layer(canvas: Tensor, above_BHW: Tensor, paint: Tensor, unit: int) -> Tensor:
    """Lay a sheet of paper whose edge is at above = 0: soft shadow behind it, light rim along it."""
    above = above_BHW[:, None]
    shadow = (1 - above / 0.05).clamp_(0, 1) ** 2 * 0.16
    rim = (1 - (above + 0.006).abs() / 0.012).clamp_(0, 1) * 0.35
    sheet = paint + (1 - paint) * rim
    cover = (0.5 - above * unit).clamp_(0, 1)
    canvas = canvas * (1 - shadow)
    return canvas + (sheet - canvas) * cover
