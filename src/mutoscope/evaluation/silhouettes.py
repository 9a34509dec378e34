"""Which shape a patch is: the world's own signed distances, rendered at every angle, compared by overlap.

Patches and templates are brought to one frame: centre of mass at the origin, unit area. What is left to search is
(shape, angle); the score is the soft intersection over union.
"""

import math
from functools import cache

import numpy as np
import numpy.typing as npt
import torch

from mutoscope.evaluation.segments import Floats, Patch
from mutoscope.world.render import signed_distance
from mutoscope.world.scene import SHAPES

GRID = 24  # cells a side of the common frame
REACH = 1.2  # half its width, in units of the square root of the area
PERIOD = {"ball": 0.0, "box": 90.0, "triangle": 120.0, "star": 72.0, "ring": 0.0, "capsule": 180.0}  # degrees
ANGLE_STEP = 8.0  # degrees
SOFTNESSES = (0.08, 0.12, 0.17, 0.24, 0.34)  # width of an edge in the common frame


def shape_scores(patches: list[Patch], unit: int) -> Floats:
    """Overlap of the patches with each shape at its best angle, the mean over patches: (shapes,) in 0..1."""
    if not patches:
        return np.zeros(len(SHAPES), np.float32)
    side = float(np.median([math.sqrt(patch.area) for patch in patches])) * unit  # pixels
    softness = SOFTNESSES[int(np.argmin([abs(math.log(soft * side / 1.5)) for soft in SOFTNESSES]))]
    templates_MG, shape_of_M = _templates(softness)
    covers_NG = np.stack([_normalised(patch, unit) for patch in patches])
    shared_NM = np.minimum(covers_NG[:, None], templates_MG).sum(-1)
    union_NM = covers_NG.sum(1)[:, None] + templates_MG.sum(1) - shared_NM
    overlap_NM = shared_NM / union_NM
    scores = [overlap_NM[:, shape_of_M == index].max(1).mean() for index in range(len(SHAPES))]
    return np.array(scores, np.float32)


@cache
def shape_area(shape: str) -> float:
    """Area of a shape of diameter 1."""
    distance, cell = _distances(shape)
    return float((distance < 0).sum()) * cell**2


@cache
def _templates(softness: float) -> tuple[Floats, npt.NDArray[np.int64]]:
    """Every shape at every angle in the common frame, (M, GRID**2), and the index of its shape, (M,)."""
    line = (np.arange(GRID) + 0.5) / GRID * 2 * REACH - REACH
    x, y = np.meshgrid(line, -line)
    covers, owners = [], []
    for index, shape in enumerate(SHAPES):
        side = math.sqrt(shape_area(shape))
        centre = centre_height(shape)
        steps = max(1, round(PERIOD[shape] / ANGLE_STEP))
        for angle in np.arange(steps) * math.radians(PERIOD[shape]) / steps:
            u = (x * math.cos(angle) + y * math.sin(angle)) * side
            v = (y * math.cos(angle) - x * math.sin(angle)) * side + centre
            distance = signed_distance(shape, torch.tensor(u), torch.tensor(v), torch.tensor(1.0)).numpy()
            covers.append(np.clip(0.5 - distance / side / softness, 0, 1).ravel())
            owners.append(index)
    return np.stack(covers).astype(np.float32), np.array(owners)


def _normalised(patch: Patch, unit: int) -> Floats:
    """The patch's cover in the common frame, (GRID**2,), sampled bilinearly."""
    height, width = patch.cover_HW.shape
    side = math.sqrt(patch.area) * unit
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
