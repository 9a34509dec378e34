"""Exams: sets of fresh scenes, what a model makes of their captions, and what the oracle says of it."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from mutoscope.evaluation.quality import psnr
from mutoscope.evaluation.truth import judge, observe
from mutoscope.models.vae import VAE
from mutoscope.video import to_frames
from mutoscope.world.captions import Fact, facts, truth
from mutoscope.world.render import render
from mutoscope.world.scene import Scene, SceneMix, View, sample_scene

Frames = npt.NDArray[np.uint8]  # (T, H, W, 3)
FRESH = 2**62  # scenes from this seed on are for exams: training stays below
PLAIN = SceneMix()


@dataclass
class Tally:
    """Verdicts of many clips: one row per clip, kinds of facts with their verdicts."""

    clips: list[dict[Fact, bool]] = field(default_factory=list)

    def share(self, kind: str | None = None) -> float:
        """Share of the facts (of one kind) that hold; NaN when there are none."""
        held = [holds for clip in self.clips for fact, holds in clip.items() if kind in (None, fact.kind)]
        return float(np.mean(held)) if held else float("nan")

    def kinds(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(fact.kind for clip in self.clips for fact in clip))

    def all_share(self) -> float:
        """Share of the clips of which every fact holds."""
        return float(np.mean([all(clip.values()) for clip in self.clips])) if self.clips else float("nan")


def fresh_scenes(count: int, seed: int, mix: SceneMix = PLAIN) -> list[Scene]:
    """Scenes that no training run draws: those of seeds from FRESH + (seed << 32) on."""
    first = FRESH + (seed << 32)
    return [sample_scene(first + index, mix) for index in range(count)]


def tally(clips: Sequence[Frames], fps: float, stated: Sequence[Sequence[Fact]]) -> Tally:
    """The oracle's verdict on the facts stated of each clip."""
    return Tally([judge(observe(clip, fps), told) for clip, told in zip(clips, stated, strict=True)])


@torch.inference_mode()
def vae_facts(vae: VAE, view: View, count: int, seed: int, batch: int = 16) -> dict[str, float]:
    """What survives the VAE, on `count` fresh world clips of the view (T = 1 + 4k, sides multiples of 8).

    psnr: the mean over clips, dB. facts: share of the true facts that the oracle still finds after the round
    trip. floor: the same before it. kept_<kind>: the same by kind of fact.
    """
    scenes = fresh_scenes(count, seed)
    before, after, decibels = Tally(), Tally(), []
    device = next(vae.parameters()).device
    for start in range(0, count, batch):
        part = scenes[start : start + batch]
        video_BCTHW = render(part, view)
        decoded_BCTHW = vae.decode(vae.encode(video_BCTHW.to(device))).float().cpu().clamp(-1, 1)
        decibels.append(psnr(decoded_BCTHW, video_BCTHW))
        stated = [facts(truth(scene, view)) for scene in part]
        before.clips += tally(_clips(video_BCTHW), view.fps, stated).clips
        after.clips += tally(_clips(decoded_BCTHW), view.fps, stated).clips
    return {
        "psnr": float(torch.cat(decibels).mean()),
        "facts": after.share(),
        "floor": before.share(),
        **{f"kept_{kind}": after.share(kind) for kind in after.kinds()},
    }


def _clips(video_BCTHW: Tensor) -> list[Frames]:
    return [to_frames(video_CTHW) for video_CTHW in video_BCTHW]
