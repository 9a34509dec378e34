"""How each of Wan's models is sampled: steps, shift, guidance, negative prompt, boundary between experts.

Values are those of the configurations and commands that its authors published (Wan-Video/Wan2.1 and Wan2.2).
"""

from __future__ import annotations

from dataclasses import dataclass

from mutoscope.models.dit import DiTConfig
from mutoscope.models.vace import VaceConfig
from mutoscope.models.wan_image import ImageDiTConfig
from mutoscope.weights.card import Defaults

NEGATIVE = (
    "色调艳丽，过曝，静态，细节模糊不清，字幕，风格，作品，画作，画面，静止，整体发灰，最差质量，低质量，"
    "JPEG压缩残留，丑陋的，残缺的，多余的手指，画得不好的手部，画得不好的脸部，畸形的，毁容的，形态畸形的肢体，"
    "手指融合，静止不动的画面，杂乱的背景，三条腿，背景人很多，倒着走"
)


@dataclass(frozen=True)
class Setting:
    """What a model makes of a request that names only a prompt.

    shift: of the noise levels. boundary: the noise level below which the second expert works, for two experts;
    low_share: guidance beyond 1 in the low noise, as a share of that in the high.
    """

    width: int
    height: int
    frames: int = 81
    fps: float = 16.0
    steps: int = 50
    shift: float = 5.0
    guidance: float = 5.0
    boundary: float | None = None
    low_share: float = 1.0

    @property
    def defaults(self) -> Defaults:
        return Defaults(
            width=self.width,
            height=self.height,
            frames=self.frames,
            fps=self.fps,
            steps=self.steps,
            guidance=self.guidance,
            sampler="unipc",
            negative=NEGATIVE,
        )


SETTINGS: dict[str, Setting] = {
    "wan2.1-t2v-1.3b": Setting(832, 480, shift=8.0, guidance=6.0),
    "wan2.1-t2v-14b": Setting(1280, 720),
    "wan2.1-i2v-14b": Setting(1280, 720, steps=40),
    "wan2.1-flf2v-14b": Setting(1280, 720, shift=16.0),
    "wan2.1-vace-1.3b": Setting(832, 480, shift=16.0),
    "wan2.1-vace-14b": Setting(1280, 720, shift=16.0),
    "wan2.2-t2v-a14b": Setting(
        1280, 720, steps=40, shift=12.0, guidance=4.0, boundary=0.875, low_share=2 / 3
    ),
    "wan2.2-i2v-a14b": Setting(1280, 720, steps=40, guidance=3.5, boundary=0.9),
    "wan2.2-ti2v-5b": Setting(1280, 704, frames=121, fps=24.0),
}


def name_of(config: DiTConfig, experts: int) -> str:
    """Which of Wan's models this is, by the kind of its transformer, its size and the number of experts."""
    small = config.width < 3072
    if isinstance(config, VaceConfig):
        return "wan2.1-vace-1.3b" if small else "wan2.1-vace-14b"
    if isinstance(config, ImageDiTConfig):
        if config.image_tokens is not None:
            return "wan2.1-flf2v-14b"
        return "wan2.1-i2v-14b" if config.image_width is not None else "wan2.2-i2v-a14b"
    if experts == 2:
        return "wan2.2-t2v-a14b"
    if config.channels == 48:
        return "wan2.2-ti2v-5b"
    return "wan2.1-t2v-1.3b" if small else "wan2.1-t2v-14b"
