"""From prompts to text embeddings: our own byte-level tokenizer and a small encoder trained with the DiT.

A larger encoder takes the same place by offering the same call: prompts to (text_BLD, mask_BL).
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from torch import Tensor, nn

from mutoscope.errors import InputError
from mutoscope.models.layers import EPSILON, MLP, Attention, Layout, rotary_table, xavier_init

PAD, NULL = 0, 1


def train_tokenizer(texts: Iterable[str], vocab_size: int) -> Tokenizer:
    """Byte-level BPE (Sennrich et al. 2016; Radford et al. 2019) of lower-cased text; it spells any prompt.

    vocab_size: at least 258, the bytes and the two special tokens (padding 0, null text 1).
    """
    if vocab_size < 258:
        raise InputError(
            f"A vocabulary of {vocab_size} is too small: 256 bytes and 2 special tokens need 258 or more."
        )
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.NFKC(), normalizers.Lowercase(), normalizers.Strip()]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=["<pad>", "<null>"],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


@dataclass(frozen=True)
class TextConfig:
    """Sizes of the text encoder; `width` is the DiT's `text_width`. max_tokens: longer prompts are cut."""

    width: int = 192
    depth: int = 3
    heads: int = 3
    vocab: int = 2048
    max_tokens: int = 128
    theta: float = 100.0


class TextBlock(nn.Module):
    """Pre-norm attention in both directions and an MLP."""

    def __init__(self, config: TextConfig) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(config.width, eps=EPSILON)
        self.attention = Attention(config.width, config.heads)
        self.mlp_norm = nn.LayerNorm(config.width, eps=EPSILON)
        self.mlp = MLP(config.width, 4 * config.width, config.width)

    def forward(self, x_SD: Tensor, layout: Layout, rope: Tensor) -> Tensor:
        y = self.norm(x_SD)
        x = x_SD + self.attention(y, *self.attention.keys_values(y, rope), layout, layout, rope)
        out_SD: Tensor = x + self.mlp(self.mlp_norm(x))
        return out_SD


class TextEncoder(nn.Module):
    """Small bidirectional transformer over token ids; the null token has a learned embedding of its own."""

    def __init__(self, config: TextConfig) -> None:
        super().__init__()
        self.config = config
        self.embed = nn.Embedding(config.vocab, config.width)
        self.blocks = nn.ModuleList(TextBlock(config) for _ in range(config.depth))
        self.norm = nn.LayerNorm(config.width, eps=EPSILON)
        self.null = nn.Parameter(torch.randn(config.width))  # the size of a normed token
        xavier_init(self)

    def forward(self, ids_BL: Tensor, mask_BL: Tensor) -> Tensor:
        """Text embeddings (B, L, D) of ids; rows of padding (mask false) are without meaning."""
        batch, length = ids_BL.shape
        layout = Layout(((batch, length),), (mask_BL[:, None, None, :],))
        positions = torch.arange(length, device=ids_BL.device, dtype=torch.float32)
        rope = rotary_table([positions], self.config.width // self.config.heads, self.config.theta)
        x_SD = self.embed(ids_BL).flatten(0, 1)
        for block in self.blocks:
            x_SD = block(x_SD, layout, rope)
        text_BLD = self.norm(x_SD).view(batch, length, -1)
        return torch.where(ids_BL[..., None] == NULL, self.null, text_BLD)


@dataclass(frozen=True)
class Text:
    """Prompts to embeddings; the empty prompt is the null text."""

    tokenizer: Tokenizer
    encoder: TextEncoder

    def __post_init__(self) -> None:
        self.tokenizer.encode_special_tokens = True  # "<null>" typed by a user is plain text
        if self.tokenizer.get_vocab_size() > self.encoder.config.vocab:
            raise InputError(
                f"A tokenizer of {self.tokenizer.get_vocab_size()} tokens needs an encoder that knows as "
                f"many, this one knows {self.encoder.config.vocab}; take both from the same model."
            )

    def __call__(self, prompts: Sequence[str], multiple: int = 1) -> tuple[Tensor, Tensor]:
        """(text_BLD, mask_BL), padded to a multiple of so many tokens; see `ignored` for what does not fit."""
        ids_BL, mask_BL = self.tokens(prompts, multiple)
        return self.encoder(ids_BL, mask_BL), mask_BL

    def tokens(self, prompts: Sequence[str], multiple: int = 1) -> tuple[Tensor, Tensor]:
        """Token ids (B, L) on the encoder's device and their mask, at most `max_tokens` of them real.

        L: the least multiple of `multiple` that holds the longest prompt.
        """
        encoded = self.tokenizer.encode_batch(list(prompts), add_special_tokens=False)
        rows = [encoding.ids[: self.encoder.config.max_tokens] or [NULL] for encoding in encoded]
        longest = -(-max(map(len, rows)) // multiple) * multiple
        ids_BL = torch.tensor([row + [PAD] * (longest - len(row)) for row in rows])
        lengths_B1 = torch.tensor([len(row) for row in rows])[:, None]
        device = self.encoder.null.device
        return ids_BL.to(device), (torch.arange(longest) < lengths_B1).to(device)

    def ignored(self, prompt: str) -> str:
        """The end of a prompt that the encoder does not read because it is too long; "" when it reads all."""
        encoding = self.tokenizer.encode(prompt, add_special_tokens=False)
        return str(self.tokenizer.decode(encoding.ids[self.encoder.config.max_tokens :])).strip()


TEXT_PRESETS: dict[str, TextConfig] = {
    "tiny": TextConfig(),
    "small": TextConfig(width=256, depth=4, heads=4, vocab=4096),
    "base": TextConfig(width=512, depth=6, heads=8, vocab=8192),
}
