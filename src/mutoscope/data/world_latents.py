"""Clips of the world rendered and encoded when a step asks for them: a latent cache without files.

Row r of a size is a scene with a seed of its own, so a batch is a function of its rows, and rows are a function of
(seed, step): nothing is stored, nothing repeats, and a resumed run meets the same clips.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from mutoscope.data.latents import KINDS, Size, fingerprint
from mutoscope.data.world_rows import Row, RowMaker
from mutoscope.errors import InputError
from mutoscope.models.vae import VAE
from mutoscope.world.captions import Kind
from mutoscope.world.render import render
from mutoscope.world.scene import SceneMix, View


@dataclass(frozen=True)
class WorldData:
    """What the world shows. clips: scenes of each size before any comes twice. batch: clips in the VAE at once.

    Scenes have the seeds (seed << 32) + 0, 1, 2, ..., so different `seed`s never share one. workers: processes that
    sample the scenes of the next step and word them; 0 does it in between.
    """

    seed: int = 1
    clips: int = 1_000_000
    fps: float = 8.0
    mix: SceneMix = field(default_factory=SceneMix)
    batch: int = 64
    workers: int = 0

    def __post_init__(self) -> None:
        if not 0 <= self.seed < 2**30 or not 1 <= self.clips <= 2**26:
            raise InputError("world: seed lies in 0 to 2**30 - 1, clips in 1 to 2**26.")
        if self.batch < 1 or not 0 <= self.workers <= 256 or not 0 < self.fps <= 1000:
            raise InputError(
                "world: batch must be at least 1, workers 0 to 256, fps above 0 and at most 1000."
            )


class WorldLatents:
    """Reads like data.latents.Latents; latents come out on the device of the VAE."""

    def __init__(self, data: WorldData, sizes: Sequence[Size], vae: VAE) -> None:
        self.data, self.vae = data, vae
        self.name = "world"
        self.sizes = sorted(set(sizes))
        self.variants = dict.fromkeys(KINDS, 1)
        self.skipped: list[str] = []
        self.led = False  # no clip is behind a portrait
        self.vae_sha256 = fingerprint(vae)
        self.channels = vae.latent_channels
        self._maker = RowMaker(data.workers, KINDS)
        self._known: dict[
            tuple[Size, int], Row
        ] = {}  # of the latest latents, for the captions that go with them

    def count(self, size: Size) -> int:
        return self.data.clips

    def expect(self, size: Size, rows: Sequence[int]) -> None:
        """Begin to prepare rows that will be asked for next."""
        self._maker.expect(self.ids(size, rows), self._mix(size), self._view(size))

    @torch.no_grad()
    def latents(self, size: Size, rows: Sequence[int]) -> Tensor:
        """float32 latent_BCTHW of the rows, rounded to half precision as a cache would."""
        made = self._made(size, rows)
        self._known = {(size, row): one for row, one in zip(rows, made, strict=True)}
        parts = []
        for start in range(0, len(rows), self.data.batch):
            scenes = [one.scene for one in made[start : start + self.data.batch]]
            video_BCTHW = render(scenes, self._view(size), self.vae.latent_mean.device)
            parts.append(self.vae.encode(video_BCTHW).half().float())
        return torch.cat(parts)

    def fps(self, size: Size, rows: Sequence[int]) -> Tensor:
        """Frames per second of the videos, (B,)."""
        return torch.full((len(rows),), self.data.fps)

    def known(self, size: Size, rows: Sequence[int]) -> Tensor:
        """Latent frames at the beginning that are never made: none here, (B,)."""
        return torch.zeros(len(rows), dtype=torch.int64)

    def ids(self, size: Size, rows: Sequence[int]) -> list[int]:
        """World seeds."""
        first = (self.data.seed << 32) + self.sizes.index(size) * self.data.clips
        return [first + row for row in rows]

    def caption(self, size: Size, row: int, kind: Kind, variant: int) -> str:
        """The one wording of a kind, whatever the variant."""
        known = self._known.get((size, row))
        return (known or self._made(size, [row])[0]).texts[kind]

    def captions(self, size: Size, rows: Iterable[int]) -> Iterator[str]:
        """Every wording of the rows."""
        for one in self._made(size, list(rows)):
            yield from one.texts.values()

    def close(self) -> None:
        self._maker.close()

    def _made(self, size: Size, rows: Sequence[int]) -> list[Row]:
        return self._maker.rows(self.ids(size, rows), self._mix(size), self._view(size))

    def _view(self, size: Size) -> View:
        return View(size.width, size.height, size.frames, self.data.fps)

    def _mix(self, size: Size) -> SceneMix:
        """Motions are staged for as long as the clip lasts, as in a cache."""
        return replace(self.data.mix, seconds=max(self.data.mix.seconds, (size.frames - 1) / self.data.fps))
