"""The text encoder against transformers' own way with it, and Wan's 512 tokens in a few keys."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from mutoscope.models.clip import MEAN, STD, PictureEncoder, build_clip
from mutoscope.models.dit import DIT_PRESETS, DiT, DiTConfig
from mutoscope.models.umt5 import MAX_TOKENS, UMT5Text, build_umt5, cleaned
from wan_models import CONFIG, word_tokenizer


def random_text() -> tuple[UMT5Text, nn.Module, list[int]]:
    """The text, its encoder, and a list that grows by one whenever the weights are read."""
    pytest.importorskip("transformers")
    torch.manual_seed(0)
    encoder = build_umt5(CONFIG)
    with torch.no_grad():
        for parameter in encoder.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.3)
    reads: list[int] = []

    def read() -> nn.Module:
        reads.append(1)
        return encoder

    return UMT5Text(word_tokenizer(), encoder, read, torch.device("cpu"), torch.float32), encoder, reads


@torch.no_grad()
def padded_to_512(encoder: nn.Module, ids: list[int]) -> Tensor:
    """What Wan and diffusers give to the DiT: 512 tokens, the padding masked and then set to zero."""
    row = torch.tensor([ids + [0] * (MAX_TOKENS - len(ids))])
    mask = (torch.arange(MAX_TOKENS) < len(ids)).long()[None]
    text = encoder(input_ids=row, attention_mask=mask).last_hidden_state
    return text * mask[..., None]


PROMPTS = ["a red ball rolls  behind the &amp; box", "", "the blue ball"]


def test_embeddings_are_those_of_512_padded_tokens() -> None:
    text, encoder, _ = random_text()
    text_BLD, bias_BL = text(PROMPTS)
    lengths = [9, 1, 4]
    assert text_BLD.shape == (3, 10, 14)
    for row, length in enumerate(lengths):
        expected = padded_to_512(encoder, text.tokens(PROMPTS[row]))[0]
        assert (text_BLD[row] - expected[:10]).abs().max() <= 1e-4 * expected.abs().max()
        assert not text_BLD[row, length:].any()
        assert bias_BL[row].exp().sum().item() == pytest.approx(MAX_TOKENS, rel=1e-5)
        assert not bias_BL[row, :length].any()


@torch.no_grad()
def test_few_keys_give_what_512_give() -> None:
    text, encoder, _ = random_text()
    shape = {name: getattr(DIT_PRESETS["wan2.1-t2v-1.3b"], name) for name in DiTConfig.__dataclass_fields__}
    torch.manual_seed(0)
    sizes = {"width": 36, "depth": 2, "heads": 2, "mlp_width": 40, "text_width": 14, "channels": 4}
    dit = DiT(DiTConfig(**shape | sizes)).eval()
    latent, timestep = torch.randn(3, 4, 2, 4, 4), torch.tensor([5.0, 500.0, 999.0])
    full = torch.cat([padded_to_512(encoder, text.tokens(prompt)) for prompt in PROMPTS])
    expected = dit(latent, timestep, full)
    found = dit(latent, timestep, *text(PROMPTS))
    assert (found - expected).abs().max() <= 1e-5 * expected.abs().max()
    wrong = dit(latent, timestep, text(PROMPTS)[0])
    assert (wrong - expected).abs().max() > 1e-3 * expected.abs().max()


def test_prompts_are_encoded_once() -> None:
    text, _, reads = random_text()
    first, _ = text(["a ball", "a box"])
    again, _ = text(["a box", "a ball"])
    assert len(reads) == 1
    assert torch.equal(first.flip(0), again)
    text(["a red box"])
    assert len(reads) == 2


def test_long_prompts_keep_their_end_mark_and_tell_what_is_lost() -> None:
    text, _, _ = random_text()
    prompt = "red " * 520 + "box"
    ids = text.tokens(prompt)
    assert len(ids) == MAX_TOKENS
    assert ids[-1] == 1
    assert text.ignored(prompt).endswith("box")
    assert text.ignored("a red box") == ""
    assert text(["red " * 600])[0].shape[1] == MAX_TOKENS
    assert cleaned(" a\n\tred &lt;b&gt;  ball ") == "a red <b> ball"


@pytest.mark.parametrize(
    ("written", "read"),  # as ftfy 6.3 mends them
    [
        ("a cat\u2019s \u201chat\u201d", 'a cat\'s "hat"'),
        ("l&rsquo;\u00e9t\u00e9", "l'\u00e9t\u00e9"),
        ("\u8272\u8c03\uff0c\u9759\u6001 \uff21\u3000\uff15\uff10\uff05", "\u8272\u8c03,\u9759\u6001 A 50%"),
        ("\ufb01re and \ufb02ame", "fire and flame"),
        ("cafe\u0301 x\x07y", "caf\u00e9 xy"),
        ("<b> &rsquo;", "<b> \u2019"),
        ("a \u2013 b \u2026", "a \u2013 b \u2026"),
    ],
)
def test_prompts_are_mended_as_before_training(written: str, read: str) -> None:
    assert cleaned(written) == read


@torch.no_grad()
def test_pictures_become_the_tokens_of_the_last_layer_but_one() -> None:
    pytest.importorskip("transformers")
    torch.manual_seed(0)
    sizes = {"hidden_size": 20, "intermediate_size": 24, "num_hidden_layers": 3, "num_attention_heads": 2}
    encoder = build_clip(sizes | {"image_size": 28, "patch_size": 7, "hidden_act": "gelu"})
    picture = torch.rand(2, 3, 28, 28) * 2 - 1
    pixels = (picture / 2 + 0.5 - torch.tensor(MEAN)[:, None, None]) / torch.tensor(STD)[:, None, None]
    expected = encoder(pixel_values=pixels, output_hidden_states=True).hidden_states[-2]
    found = PictureEncoder(encoder, 28)(picture)
    assert found.shape == (2, 17, 20)
    assert (found - expected).abs().max() <= 1e-4 * expected.abs().max()
    assert PictureEncoder(encoder, 28)(torch.rand(1, 3, 40, 64)).shape == (1, 17, 20)
