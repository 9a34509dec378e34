"""How a clip moves, and the noise whose clip goes on as the given one moves.

A model that is shown the end of a clip goes on at a speed of its own with each noise. Which noises keep the speed shows
after a few steps: several are tried, and the one is kept whose motion changes least where the made meets the known.
"""

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from mutoscope.diffusion.sampler import OnStep
from mutoscope.generation.choice import as_trials, of_own_size
from mutoscope.generation.conditions import Condition
from mutoscope.generation.groups import groups
from mutoscope.generation.request import Recipe
from mutoscope.generation.sampling import Start, decode, sample
from mutoscope.video import to_tensor
from mutoscope.weights.store import Model

TRIALS, ROUND, SMOOTH = 24, 6, 0.06
"""So many noises at most, so many at a time, until the change of velocity of one is small enough, of the speed.

Trials of 24 extensions (and of 24 backwards), 13 % (18) with one noise: 7.6 (6.8) with 12, 6.8 (5.5) with 24,
7.3 (5.7) so, with 9 (9) on average.
"""

USUAL = 9
"""Noises that a window needs on average."""

SIDE = 64
"""Frames are scaled down until their longer side has so many pixels, before motion is looked for."""

FASTEST = 6
"""Pixels a frame at that scale: about a tenth of the picture."""

FINER = (0.5, 0.25, 0.125, 0.0625, 0.03125)
"""Pixels a frame: the steps in which the best displacement of whole pixels is made exact. An eighth is too coarse."""

CHANGED = 0.16
"""What differs by more, of a range from -1 to 1 and slightly blurred, has moved."""

CALM = 0.3
"""Pixels a frame below which a change of motion is measured against this speed."""

BLUR = (0.054, 0.242, 0.4, 0.242, 0.054)
"""A Gaussian of one pixel: without it displacements of whole pixels look better than those between."""


def usual_trials(model: Model, recipe: Recipe) -> int:
    """How many noises are tried at the seams of a window when nobody says: for large pictures and models, one."""
    return TRIALS if model.card.defaults.candidates > 1 and of_own_size(model, recipe) else 1


def smoothest(
    model: Model,
    recipe: Recipe,
    condition: Condition,
    start: Start | None,
    frame0: int,
    on_step: OnStep | None,
    given: Mapping[int, np.ndarray],
) -> Recipe:
    """The recipe of a window with that of its candidates kept whose motion changes least at its seams.

    A seam is where a known latent frame and one that is made are next to each other. Where there is none, there is
    one candidate. They are tried in rounds, until one is SMOOTH. `given`: frames of the clip that are shown as they
    are, whatever is drawn (uint8 THWC, by the frame where each piece begins). Raises KeyboardInterrupt when `on_step`
    returns False.
    """
    is_known, stride = condition.mask_BT[0].tolist(), model.vae.strides[0]
    smooth = SMOOTH * len(seams_of(is_known))
    if recipe.candidates == 1 or not smooth:
        return replace(recipe, candidates=1)
    jumps: dict[int, float] = {}
    while len(jumps) < recipe.candidates and min(jumps.values(), default=math.inf) > smooth:
        tried = range(len(jumps), min(len(jumps) + ROUND, recipe.candidates))
        trials = [replace(recipe, steps=recipe.trial_steps, candidates=1, kept=index) for index in tried]
        for indices in groups(model, trials):
            parts = [trials[index] for index in indices]
            report = as_trials(on_step, recipe)
            report = _held(report) if jumps else report
            for trial, drawn_THWC in zip(parts, _trials(model, parts, condition, start, frame0, report)):
                jumps[trial.kept] = _jumps(*shown_with(drawn_THWC, given, stride * frame0), is_known, stride)
    return replace(recipe, kept=min(jumps, key=lambda index: (jumps[index], index)))


def _held(report: OnStep | None) -> OnStep | None:
    """Progress of trials after the first ones: it waits where those ended."""
    return report and (lambda info: report(replace(info, step=info.steps)))


def _trials(
    model: Model,
    parts: Sequence[Recipe],
    condition: Condition,
    start: Start | None,
    frame0: int,
    on_step: OnStep | None,
) -> list[np.ndarray]:
    """The frames (uint8 THWC) that each trial of a window draws; all in one batch."""
    known = replace(
        condition,
        latent_BCTHW=condition.latent_BCTHW.expand(len(parts), -1, -1, -1, -1),
        mask_BT=condition.mask_BT.expand(len(parts), -1),
    )
    sampled = sample(model, parts, on_step, known, start, frame0)
    if sampled.stopped is not None:
        raise KeyboardInterrupt
    return [
        np.concatenate(list(decode(model, part, latent_CTHW)))
        for part, latent_CTHW in zip(parts, sampled.latent_BCTHW, strict=True)
    ]


def _jumps(frames_THWC: np.ndarray, given_T: np.ndarray, is_known: Sequence[bool], stride: int) -> float:
    """The changes of velocity at all seams of a window as it is seen, added up."""
    total = 0.0
    for seam in seams_of(is_known):
        place = 1 + stride * seam
        if given_T[place - 1] and not is_known[seam]:  # the first given frame takes the place of a drawn one
            place -= 1
        total += jump(frames_THWC, place, stride, is_known[seam])
    return total


def seams_of(known: Sequence[bool]) -> list[int]:
    """The latent frames that begin a seam; the first of all holds one frame, which shows no motion.

    >>> seams_of([True, True, True, False, False, True])
    [2, 4]
    """
    return [place for place in range(1, len(known) - 1) if known[place] != known[place + 1]]


def shown_with(
    drawn_THWC: np.ndarray, given: Mapping[int, np.ndarray], frame0: int
) -> tuple[np.ndarray, np.ndarray]:
    """What is seen of a window that begins at `frame0` when given frames take their places, and which these are.

    >>> given = {0: np.ones((5, 1, 1, 3)), 7: np.ones((9, 1, 1, 3))}
    >>> frames_THWC, given_T = shown_with(np.zeros((4, 1, 1, 3)), given, 4)
    >>> given_T.tolist(), frames_THWC[:, 0, 0, 0].tolist()
    ([True, False, False, True], [1.0, 0.0, 0.0, 1.0])
    """
    frames_THWC, given_T = drawn_THWC.copy(), np.zeros(len(drawn_THWC), bool)
    for place, piece_THWC in given.items():
        start, stop = max(place, frame0), min(place + len(piece_THWC), frame0 + len(drawn_THWC))
        if start < stop:
            frames_THWC[start - frame0 : stop - frame0] = piece_THWC[start - place : stop - place]
            given_T[start - frame0 : stop - frame0] = True
    return frames_THWC, given_T


def jump(frames_THWC: np.ndarray, seam: int, span: int, known_first: bool = True) -> float:
    """The change of velocity from `span` frames before frame `seam` to those from it on, by the speed of the known."""
    before, after = velocity(frames_THWC[seam - span : seam]), velocity(frames_THWC[seam : seam + span])
    return math.dist(before, after) / max(CALM, math.hypot(*(before if known_first else after)))


def velocity(frames_THWC: np.ndarray) -> tuple[float, float]:
    """The motion of most of what changes in a few frames (uint8): down and right, pixels a frame, of a side of SIDE.

    It is the displacement that makes the changed pixels of every two frames most alike: of whole pixels first, then in
    ever finer steps around the best (block matching). Where nothing changes it is (0, 0).
    """
    frames_TCHW = _small(to_tensor(frames_THWC).transpose(0, 1))
    pairs = list(itertools.combinations(range(len(frames_TCHW)), 2))
    cost = partial(_unlike, frames_TCHW, pairs)
    whole = torch.arange(-FASTEST, FASTEST + 1.0)
    tried_N2 = torch.cartesian_prod(whole, whole)
    tried_N2 = tried_N2[tried_N2.square().sum(1).argsort(stable=True)]  # of equal ones the slowest
    best_2 = tried_N2[cost(tried_N2).argmin()]
    for step in FINER:
        around_3 = torch.tensor([0.0, -step, step])
        tried_N2 = best_2 + torch.cartesian_prod(around_3, around_3)
        best_2 = tried_N2[cost(tried_N2).argmin()]
    return float(best_2[0]), float(best_2[1])


def _small(frames_TCHW: Tensor) -> Tensor:
    """Scaled down to SIDE and blurred."""
    scale = SIDE / max(frames_TCHW.shape[2:])
    if scale < 1:
        size = [max(1, round(side * scale)) for side in frames_TCHW.shape[2:]]
        frames_TCHW = F.interpolate(frames_TCHW, size=size, mode="area")
    channels = frames_TCHW.shape[1]
    kernel_1x5 = torch.tensor(BLUR).expand(channels, 1, 1, -1)
    rows_TCHW = F.conv2d(F.pad(frames_TCHW, (2, 2, 2, 2), mode="replicate"), kernel_1x5, groups=channels)
    return F.conv2d(rows_TCHW, kernel_1x5.transpose(2, 3), groups=channels)


def _unlike(frames_TCHW: Tensor, pairs: Sequence[tuple[int, int]], velocity_N2: Tensor) -> Tensor:
    """How unlike the changed pixels of pairs of frames are when each is moved onto the other, for each velocity."""
    cost_N = torch.zeros(len(velocity_N2))
    for a, b in pairs:
        changed_HW = (frames_TCHW[a] - frames_TCHW[b]).abs().amax(0) > CHANGED
        place_P2 = changed_HW.nonzero().float()
        moved_N12 = (b - a) * velocity_N2[:, None]
        cost_N += _error(frames_TCHW[a], frames_TCHW[b], place_P2, place_P2 - moved_N12)
        cost_N += _error(frames_TCHW[b], frames_TCHW[a], place_P2, place_P2 + moved_N12)
    return cost_N


def _error(from_CHW: Tensor, to_CHW: Tensor, place_P2: Tensor, source_NP2: Tensor) -> Tensor:
    """Squared error of pixels of one frame taken from between the pixels of another, summed, for each of N."""
    last_2 = torch.tensor(from_CHW.shape[1:]) - 1
    unit_NP2 = (2 * source_NP2 / last_2.clamp(min=1) - 1).flip(-1)
    taken_CNP = F.grid_sample(from_CHW[None], unit_NP2[None], padding_mode="border", align_corners=True)[0]
    rows_P, columns_P = place_P2.long().unbind(1)
    return (taken_CNP - to_CHW[:, None, rows_P, columns_P]).square().sum((0, 2))
