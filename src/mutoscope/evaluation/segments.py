"""Pixels to patches: which backdrop a clip shows, and the connected patches of paint in front of it.

Colour decides, in CIELAB. For every backdrop a table over a coarse RGB cube holds the distance to the nearest
colour that the empty stage can show (sky, glow, ridges and their lit edges, floor; in and out of shadow); another
holds the distance to each paint (fill, its shading, its rim). A pixel far from the stage's colours is an object.
"""

import math
from dataclasses import dataclass
from functools import cache

import numpy as np
import numpy.typing as npt

from mutoscope.world.palette import BACKDROPS, PALETTE, Backdrop, to_lab
from mutoscope.world.render import OUTLINE
from mutoscope.world.scene import BACKGROUNDS, COLOURS, FLOOR

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]

LEVELS = 32  # of each channel in a table
STEP = 256 // LEVELS
SHADOWS = np.linspace(0.60, 1.06, 9)  # brightness of the stage, in and out of shadow
FOREIGN = 12.0  # CIELAB distance from the stage at which a pixel belongs to an object
NOISE = 3.0  # CIELAB distance that means nothing
SMALLEST = 0.06  # side of the smallest patch kept, in stage units
LARGEST = 0.3  # area of the largest patch kept, in square stage units
SECOND = 0.04  # share of a patch's inner pixels that a second paint needs to be a second object
CORE = 0.03  # and the side of a square of that many pixels, in stage units
SKY_FROM = 0.62  # above this height the stage shows sky only
SKY, HILLS, BOARDS, ANY = range(4)


@dataclass(frozen=True)
class Patch:
    """A connected patch of one frame. `x`, `y` in stage units (y upwards), `area` in square stage units."""

    frame: int
    x: float
    y: float
    area: float
    paint: int  # index into COLOURS
    cover_HW: Floats  # soft coverage 0..1 in a window around the patch
    corner: tuple[int, int]  # row and column of that window
    row: float  # centre of mass in pixels
    column: float
    cut: bool  # whether the border of the frame cuts it


def segment(frames_THWC: npt.NDArray[np.uint8]) -> tuple[str, float, list[list[Patch]]]:
    """The backdrop, how badly it fits (mean CIELAB distance), and the patches of each frame."""
    index_THW = _table_index(frames_THWC)
    background, misfit = _find_background(index_THW)
    part_H = _part_of_rows(*index_THW.shape[1:])
    stage_THW = _stage_table(background)[part_H[:, None], index_THW]
    foreign_THW = stage_THW > FOREIGN
    labels_THW, count = connected(_grown(foreign_THW))
    return background, misfit, _patches(index_THW, stage_THW, np.where(foreign_THW, labels_THW, 0), count)


def connected(mask_THW: npt.NDArray[np.bool_]) -> tuple[Ints, int]:
    """4-connected components of each frame: labels 1..count (0 outside), numbered in reading order.

    Runs of each row are found at once, linked to the overlapping runs of the row below, and merged by
    minimum-label propagation with pointer jumping.
    """
    frames, height, width = mask_THW.shape
    padded = np.zeros((frames, height + 1, width + 2), np.int8)
    padded[:, :height, 1:-1] = mask_THW
    edges = np.diff(padded.reshape(-1, width + 2), axis=1)
    rows, starts = np.nonzero(edges == 1)
    _, ends = np.nonzero(edges == -1)
    stride = width + 1
    first, last = rows * stride + starts, rows * stride + ends  # half-open, on one long line
    low = np.searchsorted(last, first + stride, side="right")
    high = np.searchsorted(first, last + stride, side="left")
    links = np.maximum(high - low, 0)
    above = np.repeat(np.arange(len(first)), links)
    below = np.arange(links.sum()) - np.repeat(np.cumsum(links) - links, links) + np.repeat(low, links)
    parent = np.arange(len(first))
    while True:
        smaller = np.minimum(parent[above], parent[below])
        merged = parent.copy()
        np.minimum.at(merged, parent[above], smaller)
        np.minimum.at(merged, parent[below], smaller)
        merged = merged[merged]
        if np.array_equal(merged, parent):
            break
        parent = merged
    _, run_labels = np.unique(parent, return_inverse=True)
    lengths = ends - starts
    labels = np.zeros((frames * (height + 1), width), np.int64)
    cells = np.arange(lengths.sum()) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    labels[np.repeat(rows, lengths), cells + np.repeat(starts, lengths)] = np.repeat(run_labels + 1, lengths)
    count = int(run_labels.max()) + 1 if len(run_labels) else 0
    return labels.reshape(frames, height + 1, width)[:, :height], count


def _patches(index_THW: Ints, stage_THW: Floats, labels_THW: Ints, count: int) -> list[list[Patch]]:
    """The patches of each frame that are large enough; a patch of two paints is two patches."""
    frames, height, width = labels_THW.shape
    unit = min(height, width)
    margin = 2 + math.ceil(OUTLINE * unit)
    patches: list[list[Patch]] = [[] for _ in range(frames)]
    inside = np.nonzero(labels_THW)
    label = labels_THW[inside] - 1
    sizes = np.bincount(label, minlength=count)
    order = np.argsort(label, kind="stable")
    borders = np.concatenate([[0], np.cumsum(sizes)])
    fits = (sizes >= (SMALLEST * unit) ** 2) & (sizes <= 2 * LARGEST * unit**2)  # two may touch
    for which in np.nonzero(fits)[0]:
        t, y, x = (axis[order[borders[which] : borders[which + 1]]] for axis in inside)
        rows = slice(max(0, y.min() - margin), min(height, y.max() + margin + 1))
        columns = slice(max(0, x.min() - margin), min(width, x.max() + margin + 1))
        window = (int(t[0]), rows, columns)
        own_HW = labels_THW[window] == which + 1
        others_HW = (labels_THW[window] > 0) & ~own_HW
        for paint, part_HW in _paints(index_THW[window], own_HW, unit):
            near_HW = part_HW
            for _ in range(margin - 1):
                near_HW = _grown(near_HW)
            free_HW = near_HW & ~others_HW & ~(own_HW & ~part_HW)
            cover_HW = np.where(free_HW, _cover(index_THW[window], stage_THW[window], paint), 0)
            patches[window[0]].append(
                _patch(window[0], cover_HW, (rows.start, columns.start), paint, (height, width))
            )
    return patches


def _paints(
    index_HW: Ints, own_HW: npt.NDArray[np.bool_], unit: int
) -> list[tuple[int, npt.NDArray[np.bool_]]]:
    """The paints of a patch with the pixels of each, one for each object: some touch, some lie in pieces."""
    labels_HW, count = connected(own_HW[None])
    parts: dict[int, npt.NDArray[np.bool_]] = {}
    for label in range(1, count + 1):
        for paint, part_HW in _touching(index_HW, labels_HW[0] == label, unit):
            parts[paint] = parts[paint] | part_HW if paint in parts else part_HW
    least, most = (SMALLEST * unit) ** 2, LARGEST * unit**2
    return [(paint, part_HW) for paint, part_HW in parts.items() if least <= part_HW.sum() <= most]


def _touching(
    index_HW: Ints, own_HW: npt.NDArray[np.bool_], unit: int
) -> list[tuple[int, npt.NDArray[np.bool_]]]:
    """The paints of a connected patch with the pixels of each.

    Only pixels whose four neighbours are of the same paint count, so that a rim of another hue is no object.
    """
    nearest_HW = np.where(own_HW, _paint_table()[0][index_HW], -1)
    votes = np.bincount(nearest_HW[own_HW & _surrounded(nearest_HW)], minlength=len(COLOURS))
    if not votes.any():
        votes = np.bincount(nearest_HW[own_HW], minlength=len(COLOURS))
    strong = np.nonzero((votes > SECOND * votes.sum()) & (votes >= (CORE * unit) ** 2))[0]
    if len(strong) < 2:
        return [(int(votes.argmax()), own_HW)]
    owner_HW = strong[_paint_table()[1][strong][:, index_HW].argmin(0)]
    parts = []
    for paint in strong:
        labels, count = connected((own_HW & (owner_HW == paint))[None])
        sizes = np.bincount(labels.ravel(), minlength=count + 1)[1:]
        if count:
            parts.append((int(paint), labels[0] == sizes.argmax() + 1))
    return parts


def _cover(index_HW: Ints, stage_HW: Floats, paint: int) -> Floats:
    """How much of each pixel is paint, 0..1: its distances to the stage and to the paint, weighed."""
    away = np.maximum(stage_HW - NOISE, 0)
    cover: Floats = away / (away + np.maximum(_paint_table()[1][paint][index_HW] - NOISE, 0) + 1e-3)
    return cover


def _patch(frame: int, cover_HW: Floats, corner: tuple[int, int], paint: int, size: tuple[int, int]) -> Patch:
    unit = min(size)
    total = max(float(cover_HW.sum()), 1e-6)
    rows, columns = (np.arange(length) + 0.5 for length in cover_HW.shape)
    row = float(cover_HW.sum(1) @ rows) / total + corner[0]
    column = float(cover_HW.sum(0) @ columns) / total + corner[1]
    half = cover_HW > 0.5
    cut = bool(
        (corner[0] == 0 and half[0].any())
        or (corner[1] == 0 and half[:, 0].any())
        or (corner[0] + len(half) == size[0] and half[-1].any())
        or (corner[1] + len(half[0]) == size[1] and half[:, -1].any())
    )
    x, y = (column - size[1] / 2) / unit, 0.5 - (row - size[0] / 2) / unit
    return Patch(frame, x, y, total / unit**2, paint, cover_HW, corner, row, column, cut)


def _surrounded(label_HW: Ints) -> npt.NDArray[np.bool_]:
    """Where the four neighbours carry the same label."""
    around = np.pad(label_HW, 1, constant_values=-1)
    same: npt.NDArray[np.bool_] = (
        (around[:-2, 1:-1] == label_HW)
        & (around[2:, 1:-1] == label_HW)
        & (around[1:-1, :-2] == label_HW)
        & (around[1:-1, 2:] == label_HW)
    )
    return same


def _grown(mask: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """The mask (..., H, W) grown by one pixel to all eight sides."""
    padded = np.pad(mask, [(0, 0)] * (mask.ndim - 2) + [(1, 1), (1, 1)])
    wide = padded[..., :-2] | padded[..., 1:-1] | padded[..., 2:]
    grown: npt.NDArray[np.bool_] = wide[..., :-2, :] | wide[..., 1:-1, :] | wide[..., 2:, :]
    return grown


def _find_background(index_THW: Ints) -> tuple[str, float]:
    """The backdrop whose floor, sky and ridges explain the pixels where they should be, and its misfit."""
    frames, height, width = index_THW.shape
    some = index_THW[:: max(1, frames // 4), ::2, ::2]
    part_H = _part_of_rows(height, width)[::2, None]
    misfits = [np.minimum(_stage_table(name)[part_H, some], 30.0).mean() for name in BACKGROUNDS]
    best = int(np.argmin(misfits))
    return BACKGROUNDS[best], float(misfits[best])


def _part_of_rows(height: int, width: int) -> Ints:
    """Which part of the stage each row can show: SKY, HILLS (anything but the floor), BOARDS, or ANY."""
    unit = min(height, width)
    y = 0.5 - (np.arange(height) + 0.5 - height / 2) / unit
    slack = 1.0 / unit + 0.005
    return np.select([y < FLOOR - slack, y < FLOOR + slack, y > SKY_FROM], [BOARDS, ANY, SKY], HILLS)


def _table_index(frames_THWC: npt.NDArray[np.uint8]) -> Ints:
    level = frames_THWC.astype(np.int64) // STEP
    index: Ints = (level[..., 0] * LEVELS + level[..., 1]) * LEVELS + level[..., 2]
    return index


@cache
def _cells_lab() -> Floats:
    """CIELAB of the centres of the cells of the RGB cube, (LEVELS**3, 3)."""
    level = (np.arange(LEVELS) + 0.5) * STEP
    rgb = np.stack(np.meshgrid(level, level, level, indexing="ij"), -1).reshape(-1, 3)
    return to_lab(rgb).astype(np.float32)


def _distance_to(colours_N3: npt.NDArray[np.float64]) -> Floats:
    """CIELAB distance of every cell to the nearest of some RGB colours in 0..255, (LEVELS**3,)."""
    cells, lab = _cells_lab(), to_lab(np.clip(colours_N3, 0, 255)).astype(np.float32)
    square = (cells**2).sum(1)[:, None] + (lab**2).sum(1) - 2 * cells @ lab.T
    nearest: Floats = np.sqrt(np.maximum(square.min(1), 0))
    return nearest


@cache
def _stage_table(name: str) -> Floats:
    """Distance of every cell to the sky, to sky and ridges, to the floor, to any of them: (4, LEVELS**3)."""
    drop: Backdrop = BACKDROPS[name]
    top, bottom, glow, far, near, floor = (
        np.array(paint, np.float64)
        for paint in (drop.sky_top, drop.sky_bottom, drop.glow, drop.far, drop.near, drop.floor)
    )
    height, halo = (axis.reshape(-1, 1) for axis in np.meshgrid(np.linspace(0, 1, 6), np.linspace(0, 0.8, 4)))
    sky = bottom + (top - bottom) * height
    sky = sky + (glow - sky) * halo
    lit = np.linspace(0, 0.35, 3)[:, None]
    ridges = np.concatenate([paint + (255 - paint) * lit for paint in (far, near)])
    boards = (floor + (255 - floor) * lit) * np.linspace(0.9, 1, 2)[:, None, None]
    boards = boards.reshape(-1, 3)
    parts = [
        _distance_to(np.concatenate([part * shade for shade in SHADOWS])) for part in (sky, ridges, boards)
    ]
    above = np.minimum(parts[0], parts[1])
    return np.stack([parts[0], above, parts[2], np.minimum(above, parts[2])])


@cache
def _paint_table() -> tuple[Ints, Floats]:
    """For every cell the nearest paint and the distance to each, (LEVELS**3,) and (colours, LEVELS**3)."""
    distances = []
    for name in COLOURS:
        fill = np.array(PALETTE[name], np.float64)
        rim = fill * 0.66 if fill.sum() >= 200 else np.array([78.0, 78.0, 90.0])
        shades = [fill + 255 * light for light in np.linspace(-0.2, 0.13, 5)]
        distances.append(_distance_to(np.stack([*shades, rim, (fill + rim) / 2])))
    stacked = np.stack(distances)
    return stacked.argmin(0), stacked
