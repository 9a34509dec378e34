"""Which shape a patch is: the world's own signed distances, rendered at every angle and blur, compared.

Patches and templates are brought to one frame: centre of mass at the origin, unit area. What is left to search is
(shape, blur, angle) and a little of the scale, since blur eats area. A shape is judged at one blur and one scale for
the whole track, each frame at its best angle, by the squared difference of coverage.
"""

import math
from functools import cache

import numpy as np
import numpy.typing as npt
import torch

from mutoscope.evaluation.segments import Floats, Patch
from mutoscope.world.render import signed_distance
from mutoscope.world.scene import SHAPES

GRID = 20  # cells a side of the common frame
FINE = 4  # samples a side of each cell of a template
REACH = 1.2  # half the width of the common frame, in units of the square root of the area
PERIOD = {"ball": 0.0, "box": 90.0, "triangle": 120.0, "star": 72.0, "ring": 0.0, "capsule": 180.0}  # degrees
ANGLE_STEP = 8.0  # degrees
BLURS = (0.05, 0.10, 0.15, 0.20)  # standard deviations in the common frame
SCALES = (0.96, 1.04, 1.12)
ENOUGH = 8  # patches looked at


def shape_scores(patches: list[Patch], unit: int) -> Floats:
    """How well the patches fit each shape: (shapes,), 1 = exactly. Zeros when there is nothing to see."""
    places = np.unique(np.linspace(0, len(patches) - 1, ENOUGH).astype(int)) if patches else ()
    covers = [_normalised(patches[place], unit) for place in places]
    covers = [cover for cover in covers if cover.any()]  # a wisp falls between the points of the frame
    if not covers:
        return np.zeros(len(SHAPES), np.float32)
    covers_NG = np.stack(covers)
    templates_MG, squares_M, starts = _templates()
    squares_N1 = (covers_NG**2).sum(1, keepdims=True)
    misfit_NM = (squares_N1 + squares_M - 2 * covers_NG @ templates_MG.T) / squares_N1
    best_angle_NK = np.minimum.reduceat(misfit_NM, starts, axis=1)
    scores: Floats = 1 - best_angle_NK.mean(0).reshape(len(SHAPES), -1).min(1)
    return scores


@cache
def shape_area(shape: str) -> float:
    """Area of a shape of diameter 1."""
    distance, cell = _distances(shape)
    return float((distance < 0).sum()) * cell**2


@cache
def _templates() -> tuple[Floats, Floats, npt.NDArray[np.int64]]:
    """Coverages in the common frame, (M, GRID**2), their squared norms, (M,), and where each group begins.

    A group is one (shape, scale, blur) at all its angles; the groups of a shape follow each other.
    """
    count = GRID * FINE
    line = (np.arange(count) + 0.5) / count * 2 * REACH - REACH
    x, y = np.meshgrid(line, -line)
    one = torch.tensor(1.0, dtype=torch.float64)
    covers: list[npt.NDArray[np.float64]] = []
    starts = []
    for shape in SHAPES:
        steps = max(1, round(PERIOD[shape] / ANGLE_STEP))
        angles = np.arange(steps) * math.radians(PERIOD[shape]) / steps
        for scale in SCALES:
            side = math.sqrt(shape_area(shape)) / scale
            inside = []
            for angle in angles:
                u = (x * math.cos(angle) + y * math.sin(angle)) * side
                v = (y * math.cos(angle) - x * math.sin(angle)) * side + centre_height(shape)
                distance = signed_distance(shape, torch.from_numpy(u), torch.from_numpy(v), one)
                inside.append((distance < 0).numpy().astype(np.float64))
            for blur in BLURS:
                starts.append(len(covers))
                kernel = _blur(line, blur)
                covers += [(kernel @ cover @ kernel.T).ravel() for cover in inside]
    templates_MG = np.stack(covers).astype(np.float32)
    return templates_MG, (templates_MG**2).sum(1), np.array(starts)


def _blur(line: npt.NDArray[np.float64], blur: float) -> npt.NDArray[np.float64]:
    """The matrix that blurs along one axis and takes the mean of every FINE samples, (GRID, GRID * FINE)."""
    step = line[1] - line[0]
    kernel = np.exp(-0.5 * ((line[:, None] - line) / blur) ** 2) * step / (blur * math.sqrt(2 * math.pi))
    mean: npt.NDArray[np.float64] = kernel.reshape(GRID, FINE, -1).mean(1)
    return mean


def _normalised(patch: Patch, unit: int) -> Floats:
    """The patch's cover in the common frame, (GRID**2,), sampled bilinearly."""
    height, width = patch.cover_HW.shape
    side = math.sqrt(patch.area) * unit * patch.zoom
    line = ((np.arange(GRID) + 0.5) / GRID * 2 * REACH - REACH) * side
    padded = np.pad(patch.cover_HW, 1)
    columns = np.clip(patch.column - patch.corner[1] + line + 0.5, 0, width + 0.999)
    rows = np.clip(patch.row - patch.corner[0] + line + 0.5, 0, height + 0.999)
    left, top = columns.astype(np.int64), rows.astype(np.int64)
    across, down = (columns - left).astype(np.float32), (rows - top).astype(np.float32)[:, None]
    upper = padded[top][:, left] * (1 - across) + padded[top][:, left + 1] * across
    lower = padded[top + 1][:, left] * (1 - across) + padded[top + 1][:, left + 1] * across
    return (upper * (1 - down) + lower * down).ravel().astype(np.float32)


@cache
def _distances(shape: str) -> tuple[npt.NDArray[np.float64], float]:
    """Signed distance of a shape of diameter 1 on a fine grid over [-0.8, 0.8], and the width of a cell."""
    line = torch.linspace(-0.8, 0.8, 401, dtype=torch.float64)
    v, u = torch.meshgrid(line, line, indexing="ij")
    field = signed_distance(shape, u, v, torch.tensor(1.0, dtype=torch.float64))
    return field.numpy(), 1.6 / 400


@cache
def centre_height(shape: str) -> float:
    """How far above its origin the centre of mass of an upright shape of diameter 1 lies."""
    distance, _ = _distances(shape)
    v = np.linspace(-0.8, 0.8, 401)
    rows = (distance < 0).sum(1)
    return float((rows * v).sum() / rows.sum())
