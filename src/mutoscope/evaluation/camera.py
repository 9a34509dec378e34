"""How the camera moves: the empty stage, filmed in every way the world knows, laid beside the backdrop of a clip."""

from dataclasses import replace
from functools import lru_cache

import numpy as np
import numpy.typing as npt
import torch

from mutoscope.evaluation.segments import FOREIGN, Bytes, Patch, Segments, segment
from mutoscope.world.backdrop import paint_backdrop
from mutoscope.world.palette import BACKDROPS
from mutoscope.world.plays import cameras
from mutoscope.world.render import restyled
from mutoscope.world.scene import PLAIN, Camera, View

SIDE = 32  # rows or columns looked at on the shorter side
MOMENTS = 4  # frames looked at
PHASES = 48  # beginnings of the hills tried
AWAKE = 1.2  # mean change of the backdrop, of 255, from which a camera may have moved
CLEARLY = 0.85  # share of the misfit of a camera at rest that another one must stay below
OUTLIER = 48.0  # largest difference of a pixel that counts, of 255
CENTRED = 0.06  # distance from the middle of the frame at which a subject is followed, stage units


def filmed(frames_THWC: Bytes, fps: float) -> tuple[Segments, str]:
    """The segments of a clip, their patches in the coordinates of the stage, and the kind of camera."""
    parts = segment(frames_THWC)
    frames, height, width = frames_THWC.shape[:3]
    chosen = np.unique(np.linspace(0, frames - 1, MOMENTS).round().astype(int))
    step = max(1, min(height, width) // SIDE)
    some = frames_THWC[chosen][:, step // 2 :: step, step // 2 :: step].astype(np.float32)
    stage = parts.stage_THW[chosen][:, step // 2 :: step, step // 2 :: step] < FOREIGN
    both = stage[0] & stage[-1]
    if frames < 3 or not both.any() or np.abs(some[0] - some[-1])[both].mean() < AWAKE:
        return parts, "static"
    free = segment(frames_THWC, level=False)
    seen = (free.stage_THW[chosen][:, step // 2 :: step, step // 2 :: step] < FOREIGN)[..., None]
    view = View(width, height, frames, fps)
    misfits = {}
    for kind in _cameras(view):
        stages = _empty_stages(free.background, free.style, kind, view, tuple(chosen.tolist()), step)
        gaps = np.minimum(np.abs(stages - some), OUTLIER) * seen
        misfits[kind] = float(gaps.sum((1, 2, 3, 4)).min())
    kind = min(misfits, key=lambda name: misfits[name])
    if misfits[kind] > CLEARLY * misfits["static"]:
        return parts, "static"
    camera = _cameras(view)[kind]
    if kind.startswith("pan") and _centred(free.patches, frames):
        kind = "follow"
    looks_T3 = camera.at(np.arange(frames) / fps)
    patches = [[_on_stage(patch, looks_T3[patch.frame]) for patch in found] for found in free.patches]
    return replace(free, patches=patches), kind


def _cameras(view: View) -> dict[str, Camera]:
    """The cameras of the world, staged for the length of the clip; one that follows looks like a pan."""
    return cameras(max(PLAIN.seconds, (view.frames - 1) / view.fps))


@lru_cache(maxsize=128)
def _empty_stages(
    background: str, style: str, kind: str, view: View, chosen: tuple[int, ...], step: int
) -> npt.NDArray[np.float32]:
    """The empty stage at every phase, at the chosen frames and every `step` pixels: (PHASES, T, H, W, 3), 0..255."""
    columns = torch.arange(view.width)[step // 2 :: step]
    rows = torch.arange(view.height)[step // 2 :: step]
    x_W = (columns + 0.5 - view.width / 2) / view.unit
    y_H = 0.5 - (rows + 0.5 - view.height / 2) / view.unit
    looks_T3 = _cameras(view)[kind].at(np.array(chosen) / view.fps)
    looks_BT3 = torch.from_numpy(looks_T3.astype(np.float32)).expand(PHASES, -1, -1)
    phases = [2 * np.pi * index / PHASES for index in range(PHASES)]
    stages_BCTHW = paint_backdrop([BACKDROPS[background]] * PHASES, phases, x_W, y_H, looks_BT3, view.unit)
    stages: npt.NDArray[np.float32] = (restyled(stages_BCTHW, style) * 255).permute(0, 2, 3, 4, 1).numpy()
    return stages


def _centred(patches: list[list[Patch]], frames: int) -> bool:
    """Whether some object keeps the middle of the frame throughout."""
    return sum(any(abs(patch.x) < CENTRED for patch in found) for found in patches) >= 0.9 * frames


def _on_stage(patch: Patch, look: npt.NDArray[np.float64]) -> Patch:
    """A patch where it is on the stage, seen by a camera at (x, y) with a zoom."""
    x, y, zoom = look
    return replace(
        patch, x=patch.x / zoom + x, y=(patch.y - 0.5) / zoom + 0.5 + y, area=patch.area / zoom**2, zoom=zoom
    )
