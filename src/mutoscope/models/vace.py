"""Wan's transformers for editing (VACE): copies of some blocks read the clip to be edited and give hints to the rest.

The control of a clip has 96 channels: the latent of what is kept, the latent of what is to be replaced, and the
mask folded 8 x 8 (Jiang et al. 2025, arXiv 2503.07598). References are frames put in front.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import cast

from einops import rearrange
from torch import Tensor, nn

from mutoscope.errors import InputError
from mutoscope.models.dit import DIT_PRESETS, Block, DiT, DiTConfig, TextCache
from mutoscope.models.layers import Layout, modulated_norm
from mutoscope.models.wan_image import repeated


@dataclass(frozen=True)
class VaceConfig(DiTConfig):
    """A DiT with control. hinted: the blocks whose output a hint is added to, the first among them."""

    hinted: tuple[int, ...] = (0,)
    control_channels: int = 96

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.hinted or self.hinted[0] != 0 or max(self.hinted) >= self.depth:
            raise InputError(
                f"Hints for the blocks {self.hinted} do not fit a DiT of {self.depth} blocks; they begin with 0."
            )


@dataclass(frozen=True)
class ControlCache(TextCache):
    """As TextCache, with keys and values of the control blocks after those of the others, and the control.

    control_BCTHW: of as many latent frames as the latent. strength: what the hints are multiplied by.
    """

    control_BCTHW: Tensor
    strength: float = 1.0


class ControlBlock(Block):
    """A block of the control stream; the first takes in the main one, each gives a hint."""

    def __init__(self, config: DiTConfig, first: bool) -> None:
        super().__init__(config)
        self.before = nn.Linear(config.width, config.width) if first else None
        self.after = nn.Linear(config.width, config.width)


class VaceDiT(DiT):
    """As DiT, called with the cache of `cache_control` in place of the text."""

    def __init__(self, config: VaceConfig) -> None:
        super().__init__(config)
        p, q, r = config.patch
        self.hinted = config.hinted
        self.control_embed = nn.Linear(config.control_channels * p * q * r, config.width)
        self.control_blocks = nn.ModuleList(
            ControlBlock(config, index == 0) for index in range(len(config.hinted))
        )

    def cache_control(
        self, text_BLD: Tensor, mask_BL: Tensor | None, control_BCTHW: Tensor, strength: float = 1.0
    ) -> ControlCache:
        """Keys and values of all blocks, and the control, which serves several texts when there are fewer of it."""
        cache = self.cache_text(text_BLD, mask_BL)
        return ControlCache(cache.keys, cache.values, None, cache.layout, control_BCTHW, strength)

    def _project(self, text_LD: Tensor, layout: Layout) -> TextCache:
        text_SD = self.text(text_LD.to(self.embed.weight.dtype))
        blocks = [*self._blocks(), *self._control_blocks()]
        pairs = [block.text_attention.keys_values(text_SD) for block in blocks]
        keys, values = zip(*pairs, strict=True)
        return TextCache(keys, values, None, layout)

    def _run(
        self, x_SD: Tensor, condition_FD: Tensor, layout: Layout, rope: Tensor, text: TextCache
    ) -> Tensor:
        if not isinstance(text, ControlCache):
            raise InputError("This model edits clips; give it a control, with `cache_control`.")
        modulation_F6D = self._modulate(condition_FD)
        y_SD, hints = self._embed_control(text.control_BCTHW, layout.groups[0][0]), []
        pairs = list(zip(text.keys, text.values, strict=True))
        for block, pair in zip(self._control_blocks(), pairs[self.config.depth :], strict=True):
            if block.before is not None:
                y_SD = block.before(y_SD) + x_SD
            y_SD = block(y_SD, modulation_F6D, layout, rope, *pair, text.layout)
            hints.append(block.after(y_SD) * text.strength)
        for index, plain in enumerate(self._blocks()):
            x_SD = plain(x_SD, modulation_F6D, layout, rope, *pairs[index], text.layout)
            if index in self.hinted:
                x_SD = x_SD + hints[self.hinted.index(index)]
        shift_FD, scale_FD = (condition_FD[:, None] + self.table).unbind(1)
        patches_SC: Tensor = self.head(modulated_norm(x_SD, shift_FD, scale_FD, layout))
        return patches_SC

    def _embed_control(self, control_BCTHW: Tensor, batch: int) -> Tensor:
        p, q, r = self.config.patch
        pattern = "b c (t p) (h q) (w r) -> (b t h w) (c p q r)"
        patches_SC = rearrange(repeated(control_BCTHW, batch), pattern, p=p, q=q, r=r)
        y_SD: Tensor = self.control_embed(patches_SC.to(self.embed.weight.dtype))
        return y_SD

    def _control_blocks(self) -> Iterable[ControlBlock]:
        return cast(Iterable[ControlBlock], self.control_blocks)


def _vace(preset: str, hinted: range) -> VaceConfig:
    shape = DIT_PRESETS[preset]
    return VaceConfig(
        **{name: getattr(shape, name) for name in DiTConfig.__dataclass_fields__}, hinted=tuple(hinted)
    )


VACE_PRESETS: dict[str, VaceConfig] = {
    "wan2.1-vace-1.3b": _vace("wan2.1-t2v-1.3b", range(0, 30, 2)),
    "wan2.1-vace-14b": _vace("wan2.1-t2v-14b", range(0, 40, 5)),
}
