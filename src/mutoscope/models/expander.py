"""The expander: what a prompt states, in plain words, to the tokens of a caption that says it all and more.

An encoder reads the words, the captioner's causal decoder writes with cross-attention to them. It is used where torch
is not loaded: `generation/author.py` does the same sums in numpy.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from tokenizers import Tokenizer
from torch import Tensor, nn

from mutoscope.models.captioner import LENGTHS, DecoderBlock, Seen, Writer, WriterConfig
from mutoscope.models.layers import EPSILON, Layout, xavier_init
from mutoscope.models.text import PAD, TextBlock, TextConfig


@dataclass(frozen=True)
class ExpanderConfig(WriterConfig):
    """Sizes of an expander: 0.8 M parameters over the tokenizer of the built-in model."""

    width: int = 128
    encoder_depth: int = 1
    decoder_depth: int = 2
    max_tokens: int = 160


class Expander(Writer):
    """Ids (B, L) of plain words, PAD last, to the logits of captions."""

    config: ExpanderConfig

    def __init__(self, config: ExpanderConfig) -> None:
        super().__init__()
        self.config = config
        block = TextConfig(width=config.width, heads=config.heads)
        self.embed = nn.Embedding(config.vocab + len(LENGTHS) + 1, config.width)
        self.encoder = nn.ModuleList(TextBlock(block) for _ in range(config.encoder_depth))
        self.seen_norm = nn.LayerNorm(config.width, eps=EPSILON)
        self.decoder = nn.ModuleList(
            DecoderBlock(config.width, config.heads) for _ in range(config.decoder_depth)
        )
        self.norm = nn.LayerNorm(config.width, eps=EPSILON)
        xavier_init(self)
        nn.init.normal_(self.embed.weight, std=config.width**-0.5)

    def see(self, source: Tensor) -> Seen:
        """Read the words of B prompts."""
        batch, length = source.shape
        layout = Layout(((batch, length),), ((source != PAD)[:, None, None],))
        rope = self._rope([torch.arange(length, device=source.device)])
        x_SD = self.embed(source).flatten(0, 1)
        for block in self.encoder:
            x_SD = block(x_SD, layout, rope)
        y_SD = self.seen_norm(x_SD)
        return Seen(tuple(block.cross.keys_values(y_SD) for block in self._blocks), layout)


def source_rows(tokenizer: Tokenizer, sources: Sequence[str]) -> Tensor:
    """Ids (B, L) of plain words, PAD last."""
    rows = [encoding.ids for encoding in tokenizer.encode_batch(list(sources), add_special_tokens=False)]
    longest = max(map(len, rows))
    return torch.tensor([row + [PAD] * (longest - len(row)) for row in rows])
