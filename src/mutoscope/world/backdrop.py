"""The theatre without its actors: sky, glow, two cut-paper ridges and the floor, with parallax."""

from collections.abc import Sequence

import torch
from torch import Tensor

from mutoscope.world.palette import Backdrop, Rgb
from mutoscope.world.stage import FLOOR

RIDGES = ("hills", "waves", "peaks", "flat")
PARALLAX = {
    "sky": 0.15,
    "far": 0.45,
    "near": 0.7,
    "floor": 1.0,
}  # share of the camera's way that a layer shows


def paint_backdrop(
    drops: Sequence[Backdrop],
    phases: Sequence[float],
    x_W: Tensor,
    y_H: Tensor,
    looks_BT3: Tensor | None,
    unit: int,
) -> Tensor:
    """The empty stage, (B, 3, T, H, W) in 0..1; T = 1 when looks_BT3 (camera x, y, zoom) is None: a camera at rest.

    x_W and y_H are the pixels' places in frame coordinates, unit the pixels per stage unit.
    """
    device = x_W.device
    phase = torch.tensor(phases, device=device)[:, None, None]
    sharp: Tensor | int = unit if looks_BT3 is None else unit * looks_BT3[:, None, :, 2, None, None]

    def paint(colours: Sequence[Rgb]) -> Tensor:
        return torch.tensor(colours, device=device, dtype=torch.float32)[:, :, None, None, None] / 255

    def place(layer: str) -> tuple[Tensor, Tensor]:
        """Stage coordinates of the pixels on a layer: (B, T, 1, W) and (B, T, H, 1)."""
        x, y = x_W[None, None, None, :], y_H[None, None, :, None]
        if looks_BT3 is None:
            return x, y
        look = looks_BT3[..., None, None, :]
        share = PARALLAX[layer]
        return x / look[..., 2] + share * look[..., 0], (y - 0.5) / look[..., 2] + 0.5 + share * look[..., 1]

    x, y = place("sky")
    height = ((y - FLOOR) / (1 - FLOOR)).clamp(0, 1)[:, None]
    bottom = paint([drop.sky_bottom for drop in drops])
    canvas = bottom + (paint([drop.sky_top for drop in drops]) - bottom) * height
    glow = torch.tensor([drop.glow_place for drop in drops], device=device)[:, :, None, None, None]
    away = torch.sqrt((x - glow[:, 0]) ** 2 + (y - glow[:, 1]) ** 2) / glow[:, 2]
    halo = ((1 - away).clamp_(min=0) ** 2)[:, None] * 0.8
    canvas = canvas + (paint([drop.glow for drop in drops]) - canvas) * halo
    kinds = torch.tensor([RIDGES.index(drop.ridge) for drop in drops], device=device)[:, None, None]
    for layer, shapes, colours in (
        ("far", [drop.far_shape for drop in drops], [drop.far for drop in drops]),
        ("near", [drop.near_shape for drop in drops], [drop.near for drop in drops]),
    ):
        x, y = place(layer)
        top_BTW = _ridge(x[:, :, 0], torch.tensor(shapes, device=device), phase, kinds)
        canvas = _layer(canvas, y - top_BTW[:, :, None, :], paint(colours), sharp)
        phase = phase * 1.7 + 1
    x, y = place("floor")
    floor = paint([drop.floor for drop in drops]) * (1.0 - 0.10 * ((FLOOR - y) / FLOOR).clamp(0, 1))[:, None]
    canvas = _layer(canvas, (y - FLOOR).expand(-1, -1, -1, x_W.numel()), floor, sharp)
    lit = 1 + 0.05 * ((y_H[:, None] - 0.5).clamp(-1, 1) - x_W.clamp(-1, 1))
    return canvas * lit


def _ridge(x_BTW: Tensor, shape: Tensor, phase: Tensor, kinds: Tensor) -> Tensor:
    """Upper edge of a paper ridge at x, (B, T, W)."""
    mean, swing, frequency = shape[:, None, :, None].unbind(2)
    turn = x_BTW * frequency + phase
    hills = torch.sin(turn) + 0.35 * torch.sin(2.1 * turn + 1.3)
    waves = 1 - 2 * torch.sin(turn / 2).abs()
    peaks = (2 / torch.pi) * torch.asin(0.985 * torch.sin(turn)) + 0.3 * torch.sin(1.6 * turn + 0.7)
    wave = torch.where(kinds == 1, waves, torch.where(kinds == 2, peaks, hills))
    return mean + swing * torch.where(kinds == 3, torch.zeros_like(wave), wave)


def _layer(canvas: Tensor, above_BTHW: Tensor, paint: Tensor, sharp: Tensor | int) -> Tensor:
    """Lay a sheet of paper whose edge is at above = 0: soft shadow behind it, light rim along it."""
    above = above_BTHW[:, None]
    shadow = (1 - above / 0.05).clamp_(0, 1) ** 2 * 0.16
    rim = (1 - (above + 0.006).abs() / 0.012).clamp_(0, 1) * 0.35
    sheet = paint + (1 - paint) * rim
    cover = (0.5 - above * sharp).clamp_(0, 1)
    canvas = canvas * (1 - shadow)
    return canvas + (sheet - canvas) * cover
