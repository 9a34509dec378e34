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
from mutoscope.world.render import OUTLINE, ink
from mutoscope.world.scene import BACKGROUNDS, COLOURS, FLOOR, STYLES

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]
Bytes = npt.NDArray[np.uint8]

LEVELS = 32  # of each channel in a table
STEP = 256 // LEVELS
SHADOWS = np.linspace(0.60, 1.06, 9)  # brightness of the stage, in and out of shadow
FOREIGN = 12.0  # CIELAB distance from the stage at which a pixel belongs to an object
NOISE = 3.0  # CIELAB distance that means nothing
SMALLEST = 0.06  # side of the smallest patch kept, in stage units
LARGEST = 0.3  # area of the largest patch kept, in square stage units
SECOND = 0.04  # share of a patch's inner pixels that a second paint needs to be a second object
CORE = 0.03  # and the side of a square of that many pixels, in stage units
FAR = 60.0  # CIELAB distance of what cannot be the stage at all
FADED = 0.38  # contrast of an outlined stage, which distances to it are free of
SLACK = 12.0  # of 255, in a backdrop brought back to paper
UNUSUAL = 0.25  # added misfit of a style that is not paper: it must explain clearly more
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
    zoom: float = 1.0  # pixels of its window per pixel of a camera at rest


@dataclass(frozen=True)
class Segments:
    """What a clip is made of: style, backdrop, how badly it fits (mean CIELAB distance), patches of each frame."""

    style: str
    background: str
    misfit: float
    patches: list[list[Patch]]
    stage_THW: Floats  # CIELAB distance of each pixel to the stage


def segment(frames_THWC: Bytes, level: bool = True) -> Segments:
    """Find backdrop and patches. level: whether the camera rests, so that rows show their own part of the stage."""
    part_H = _part_of_rows(*frames_THWC.shape[1:3]) if level else np.full(frames_THWC.shape[1], ANY)
    style, background, misfit = _find_stage(frames_THWC, part_H)
    stage_THW = _from_stage(frames_THWC, style, background, part_H)
    foreign_THW = stage_THW > FOREIGN
    labels_THW, count = connected(_grown(foreign_THW))
    labels_THW = np.where(foreign_THW, labels_THW, 0)
    patches = _patches(_Pixels(_table_index(frames_THWC), stage_THW, style), labels_THW, count)
    return Segments(style, background, misfit, patches, stage_THW)


def _from_stage(frames_THWC: Bytes, style: str, name: str, part_H: Ints) -> Floats:
    """CIELAB distance of every pixel to what a backdrop can show in its row, as it would look on paper.

    Undoes what `render.restyled` does to the backdrop; what no backdrop becomes in this style is FAR.
    """
    if style == "paper":
        return _stage_table(name)[part_H[:, None], _table_index(frames_THWC)]
    if style == "outline":
        paper_THWC = (frames_THWC - 0.62 * 0.97 * 255) / 0.38
    else:
        paper_THWC = frames_THWC / np.array([0.16, 0.16, 0.24])
    index = _table_index(np.clip(paper_THWC, 0, 255).astype(np.uint8))
    impossible = ((paper_THWC < -SLACK) | (paper_THWC > 255 + SLACK)).any(-1)
    return np.where(impossible, np.float32(FAR), _stage_table(name)[part_H[:, None], index])


@dataclass(frozen=True)
class _Pixels:
    """Cells of the paint table, distances to the stage, and the style: of a clip or of a window of one frame."""

    index: Ints
    stage: Floats
    style: str

    def window(self, where: tuple[int, slice, slice]) -> "_Pixels":
        return _Pixels(self.index[where], self.stage[where], self.style)


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


def _patches(pixels: _Pixels, labels_THW: Ints, count: int) -> list[list[Patch]]:
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
        here = pixels.window(window)
        for paint, part_HW in _paints(here, own_HW, unit):
            near_HW = part_HW if here.style == "paper" else np.ones_like(part_HW)  # else the inside is pale
            for _ in range(margin - 1):
                near_HW = _grown(near_HW)
            free_HW = near_HW & ~others_HW & ~(own_HW & ~part_HW)
            cover_HW = np.where(free_HW, _cover(here, paint), 0)
            corner = (rows.start, columns.start)
            patches[window[0]].append(_patch(window[0], cover_HW, corner, paint, (height, width)))
    return patches


def _paints(
    pixels: _Pixels, own_HW: npt.NDArray[np.bool_], unit: int
) -> list[tuple[int, npt.NDArray[np.bool_]]]:
    """The paints of a patch with the pixels of each, one for each object: some touch, some lie in pieces."""
    labels_HW, count = connected(own_HW[None])
    parts: dict[int, npt.NDArray[np.bool_]] = {}
    for label in range(1, count + 1):
        for paint, part_HW in _touching(pixels, labels_HW[0] == label, unit):
            parts[paint] = parts[paint] | part_HW if paint in parts else part_HW
    least, most = (SMALLEST * unit) ** 2, LARGEST * unit**2
    return [(paint, part_HW) for paint, part_HW in parts.items() if least <= part_HW.sum() <= most]


def _touching(
    pixels: _Pixels, own_HW: npt.NDArray[np.bool_], unit: int
) -> list[tuple[int, npt.NDArray[np.bool_]]]:
    """The paints of a connected patch with the pixels of each.

    Only pixels whose four neighbours are of the same paint count, so that a rim of another hue is no object.
    """
    nearest, distances = _paint_table(pixels.style)
    nearest_HW = np.where(own_HW, nearest[pixels.index], -1)
    votes = np.bincount(nearest_HW[own_HW & _surrounded(nearest_HW)], minlength=len(COLOURS))
    if not votes.any():
        votes = np.bincount(nearest_HW[own_HW], minlength=len(COLOURS))
    strong = np.nonzero((votes > SECOND * votes.sum()) & (votes >= (CORE * unit) ** 2))[0]
    if len(strong) < 2:
        return [(int(votes.argmax()), own_HW)]
    owner_HW = strong[distances[strong][:, pixels.index].argmin(0)]
    parts = []
    for paint in strong:
        labels, count = connected((own_HW & (owner_HW == paint))[None])
        sizes = np.bincount(labels.ravel(), minlength=count + 1)[1:]
        if count:
            parts.append((int(paint), labels[0] == sizes.argmax() + 1))
    return parts


def _cover(pixels: _Pixels, paint: int) -> Floats:
    """How much of each pixel is paint, 0..1: its distances to the stage and to the paint, weighed."""
    away = np.maximum(pixels.stage - NOISE, 0) * (FADED if pixels.style == "outline" else 1.0)
    distance = _paint_table(pixels.style)[1][paint][pixels.index]
    cover: Floats = away / (away + np.maximum(distance - NOISE, 0) + 1e-3)
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


def _find_stage(frames_THWC: Bytes, part_H: Ints) -> tuple[str, str, float]:
    """Style and backdrop whose floor, sky and ridges explain the pixels where they should be, and the misfit."""
    some = frames_THWC[:: max(1, len(frames_THWC) // 4), ::2, ::2]
    found = []
    for style in STYLES:
        for name in BACKGROUNDS:
            away = _from_stage(some, style, name, part_H[::2])
            doubt = float(np.minimum(away, FOREIGN).mean()) + (0.0 if style == "paper" else UNUSUAL)
            found.append((doubt, style, name, float(np.minimum(away, 30.0).mean())))
    _, style, name, misfit = min(found)
    return style, name, misfit


def _part_of_rows(height: int, width: int) -> Ints:
    """Which part of the stage each row can show: SKY, HILLS (anything but the floor), BOARDS, or ANY."""
    unit = min(height, width)
    y = 0.5 - (np.arange(height) + 0.5 - height / 2) / unit
    slack = 1.0 / unit + 0.005
    return np.select([y < FLOOR - slack, y < FLOOR + slack, y > SKY_FROM], [BOARDS, ANY, SKY], HILLS)


def _table_index(frames_THWC: Bytes) -> Ints:
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
    steps = np.meshgrid(np.linspace(0, 1, 6), np.linspace(0, 0.8, 4))
    height, halo = (axis.reshape(-1, 1) for axis in steps)
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
def _paint_table(style: str) -> tuple[Ints, Floats]:
    """For every cell the nearest paint and the distance to each, (LEVELS**3,) and (colours, LEVELS**3)."""
    distances = []
    for name in COLOURS:
        red, green, blue = PALETTE[name]
        dark = (78, 78, 90) if red + green + blue < 200 else (red * 2 // 3, green * 2 // 3, blue * 2 // 3)
        fill, rim = (np.array(paint, np.float64) for paint in ink(PALETTE[name], dark, style))
        shades = [fill + 255 * light for light in np.linspace(-0.2, 0.13, 5)]
        distances.append(_distance_to(np.stack([*shades, rim, (fill + rim) / 2])))
    stacked = np.stack(distances)
    return stacked.argmin(0), stacked
