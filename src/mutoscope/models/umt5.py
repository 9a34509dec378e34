"""Wan's text encoder: prompts to the embeddings of UMT5 (Chung et al. 2023), whose module is transformers'.

Wan lets every token of its 512 be seen, the padding too, whose embeddings are zeros. All padding tokens share
one key and one value, so a few of them stand for all when the logarithm of how many each stands for is added to
its score: the softmax is the same, and 24 real tokens cost 25 keys instead of 512.
"""

from __future__ import annotations

import html
import math
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from tokenizers import Tokenizer
from torch import Tensor, nn

from mutoscope.errors import InputError

MAX_TOKENS = 512
MENDED = (
    dict.fromkeys([0x2BC, *range(0x2018, 0x201C)], "'")
    | dict.fromkeys(range(0x201C, 0x2020), '"')
    | {
        code: unicodedata.normalize("NFKC", chr(code))
        for code in (*range(0xFB00, 0xFB07), *range(0xFF01, 0xFFF0))
    }
    | dict.fromkeys([*range(9), 11, *range(14, 32), 0x7F, 0xFEFF, *range(0xFFF9, 0xFFFD)])
)
"""What becomes of single characters of a prompt; None drops them."""

REMEMBERED = 64  # prompts whose embeddings are kept, so that the negative one is encoded once


def build_umt5(config: Mapping[str, Any]) -> nn.Module:
    """The encoder that a config.json of transformers describes, in evaluation mode.

    Raises InputError when transformers is not installed, and for a config.json of something else.
    """
    try:
        from transformers import UMT5Config, UMT5EncoderModel
    except ImportError as error:
        raise InputError(
            'Wan\'s text encoder needs transformers, which is not installed; pip install "mutoscope[wan]".'
        ) from error
    try:
        encoder: nn.Module = UMT5EncoderModel(UMT5Config.from_dict(dict(config)))
    except Exception as error:  # of several kinds of transformers' own
        told = " ".join(str(error).split())
        raise InputError(
            f"The config.json of the text encoder is none of UMT5 ({told}); fetch it again."
        ) from error
    return encoder.eval()


class UMT5Text:
    """Prompts to embeddings, as `models.text.Text`; the encoder is read when it is needed and let go after.

    encoder: one without memory (on the meta device), for its sizes. read: gives the same one with its weights.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        encoder: nn.Module,
        read: Callable[[], nn.Module],
        device: torch.device,
        dtype: torch.dtype,
    ) -> None:
        self.tokenizer, self.encoder, self.read = tokenizer, encoder, read
        self.device, self.dtype = device, dtype
        self.known: dict[str, Tensor] = {}

    def __call__(self, prompts: Sequence[str]) -> tuple[Tensor, Tensor]:
        """(text_BLD, bias_BL): embeddings, zero in the padding, and what is added to the scores of the keys.

        L is the longest prompt and one token of padding, at most 512; real tokens have the bias 0.
        """
        rows = self.embeddings(prompts)
        length = min(MAX_TOKENS, 1 + max(len(row) for row in rows))
        text_BLD = rows[0].new_zeros(len(rows), length, rows[0].shape[-1])
        bias_BL = torch.zeros(len(rows), length)
        for index, row_LD in enumerate(rows):
            real = len(row_LD)
            text_BLD[index, :real] = row_LD
            if real < length:
                bias_BL[index, real:] = math.log((MAX_TOKENS - real) / (length - real))
        return text_BLD.to(self.device, self.dtype), bias_BL.to(self.device, self.dtype)

    def embeddings(self, prompts: Sequence[str]) -> list[Tensor]:
        """(L, D) of the real tokens of each prompt, on the CPU."""
        new = [prompt for prompt in dict.fromkeys(prompts) if prompt not in self.known]
        fresh = dict(zip(new, self.encoded(new), strict=True)) if new else {}
        rows = [fresh[prompt] if prompt in fresh else self.known[prompt] for prompt in prompts]
        self.known = dict([*self.known.items(), *fresh.items()][-REMEMBERED:])
        return rows

    @torch.no_grad()
    def encoded(self, prompts: Sequence[str]) -> list[Tensor]:
        """As `embeddings`, all of them computed."""
        ids = [self.tokens(prompt) for prompt in prompts]
        longest = max(map(len, ids))
        encoder = self.read()
        device = next(encoder.parameters()).device
        ids_BL = torch.tensor([row + [0] * (longest - len(row)) for row in ids], device=device)
        mask_BL = torch.tensor([[1] * len(row) + [0] * (longest - len(row)) for row in ids], device=device)
        text_BLD = encoder(input_ids=ids_BL, attention_mask=mask_BL).last_hidden_state
        return [text_LD[: len(row)].cpu() for text_LD, row in zip(text_BLD, ids, strict=True)]

    def tokens(self, prompt: str) -> list[int]:
        """Ids of a prompt as Wan reads it: entities resolved, white space joined, at most 512 with the end mark."""
        ids = self.ids(prompt)
        return ids if len(ids) <= MAX_TOKENS else [*ids[: MAX_TOKENS - 1], ids[-1]]

    def ids(self, prompt: str) -> list[int]:
        found: list[int] = self.tokenizer.encode(cleaned(prompt)).ids
        return found or [0]

    def ignored(self, prompt: str) -> str:
        """The end of a prompt that is not read because it is too long; "" when all of it is."""
        ids = self.ids(prompt)
        return str(self.tokenizer.decode(ids[MAX_TOKENS - 1 :])).strip() if len(ids) > MAX_TOKENS else ""


def cleaned(prompt: str) -> str:
    """As Wan's authors clean it: entities of HTML resolved (twice), runs of white space made one space.

    Before that they mend the text with ftfy, which makes curly quotes straight, letters and marks of full width and
    ligatures plain, and drops control characters; so does this, by the table MENDED.
    """
    mended = (prompt if "<" in prompt else html.unescape(prompt)).translate(MENDED)
    text = unicodedata.normalize("NFC", mended)
    return " ".join(html.unescape(html.unescape(text)).split())
