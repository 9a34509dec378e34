"""Tokenizer and text encoder."""

import pytest
import torch

from mutoscope.errors import InputError
from mutoscope.models.text import NULL, PAD, Text, TextConfig, TextEncoder, train_tokenizer

CORPUS = [
    f"a {colour} {shape} {verb} to the {side}"
    for colour in ("red", "blue", "green")
    for shape in ("ball", "box", "star")
    for verb in ("rolls", "moves")
    for side in ("left", "right")
]


@pytest.fixture(scope="module")
def text() -> Text:
    torch.manual_seed(0)
    return Text(train_tokenizer(CORPUS, 320), TextEncoder(TextConfig(width=48, heads=2, vocab=320)).eval())


def test_tokenizer_is_a_pure_function_of_its_texts() -> None:
    assert train_tokenizer(CORPUS, 300).to_str() == train_tokenizer(iter(CORPUS), 300).to_str()


@pytest.mark.parametrize(
    "prompt", ["a red ball", "ein Ball rollt über Öl", "漢字 and 🎈", "a\tb\nc", "<null> <pad>"]
)
def test_any_prompt_is_spelt_out_and_special_tokens_cannot_be_typed(text: Text, prompt: str) -> None:
    (ids,), (mask,) = text.tokens([prompt])
    assert not {PAD, NULL} & set(ids.tolist())
    assert bool(mask.all())
    assert text.tokenizer.decode(ids.tolist()).strip() == prompt.lower()


def test_case_and_surrounding_space_do_not_matter(text: Text) -> None:
    ids = text.tokens(["a red ball", "  A RED Ball\n"])[0]
    assert torch.equal(ids[0], ids[1])


def test_empty_prompt_is_the_null_text(text: Text) -> None:
    embedded, mask = text(["", "  ", "a red ball"])
    assert mask.sum(1).tolist()[:2] == [1, 1]
    for row in embedded[:2]:
        assert torch.equal(row[0], text.encoder.null)
    assert not torch.allclose(embedded[2, 0], text.encoder.null)


def test_padding_changes_nothing(text: Text) -> None:
    short = "a blue box"
    with torch.no_grad():
        alone, (mask,) = text([short])
        together, _ = text([short, "a red ball rolls to the left " * 3])
    torch.testing.assert_close(together[0, : len(mask)], alone[0], rtol=1e-4, atol=1e-5)


def test_word_order_matters(text: Text) -> None:
    with torch.no_grad():
        embedded, _ = text(["red ball blue box", "blue ball red box"])
    assert (embedded.mean(1)[0] - embedded.mean(1)[1]).abs().max() > 1e-3


def test_long_prompts_are_cut_and_the_rest_can_be_named(text: Text) -> None:
    prompt = "a red ball rolls " * 60
    embedded, mask = text([prompt])
    limit = text.encoder.config.max_tokens
    assert embedded.shape == (1, limit, 48)
    assert bool(mask.all())
    ignored = text.ignored(prompt)
    assert ignored
    assert prompt.strip().endswith(ignored)
    assert text.ignored("a red ball") == ""


def test_every_parameter_learns(text: Text) -> None:
    encoder = TextEncoder(TextConfig(width=48, heads=2, vocab=320))
    ids, mask = text.tokens([*CORPUS, ""])
    (encoder(ids, mask) * mask[..., None]).pow(3).sum().backward()
    for name, parameter in encoder.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().max() > 0, name


def test_bad_sizes_are_refused() -> None:
    with pytest.raises(InputError, match="258"):
        train_tokenizer(CORPUS, 100)
    with pytest.raises(InputError, match="same model"):
        Text(train_tokenizer(CORPUS, 320), TextEncoder(TextConfig(width=48, heads=2, vocab=258)))
