"""The expander: padding changes nothing, and it writes step by step what it says at once."""

import pytest
import torch

from mutoscope.models.captioner import Past, token_rows, write
from mutoscope.models.expander import Expander, ExpanderConfig, source_rows
from mutoscope.models.text import PAD, train_tokenizer

SOURCES = ["a red ball moves left. it is night.", "a box."]
TEXTS = ["a small red ball rolls to the left at night.", "a blue box stands still."]
SMALL = ExpanderConfig(width=32, heads=2, vocab=300, max_tokens=24)
TOKENIZER = train_tokenizer(SOURCES + TEXTS, SMALL.vocab)


@pytest.fixture(scope="module")
def expander() -> Expander:
    torch.manual_seed(0)
    return Expander(SMALL).eval()


@torch.no_grad()
def test_step_by_step_equals_at_once_beside_a_longer_prompt(expander: Expander) -> None:
    sources, texts = (
        source_rows(TOKENIZER, SOURCES),
        token_rows(TOKENIZER, expander, TEXTS, ["medium", "detailed"]),
    )
    assert (sources[1] == PAD).sum() > 3
    whole_BLV = expander(sources, texts)
    for row in range(2):
        alone, past = expander.see(sources[row : row + 1, : int((sources[row] != PAD).sum())]), Past()
        for i in range(int((texts[row] != PAD).sum())):
            logits_V = expander.next(texts[row : row + 1, i], i, past, alone)[0]
            assert torch.allclose(logits_V, whole_BLV[row, i], atol=1e-5)


def test_what_is_drawn_depends_on_its_seed_alone(expander: Expander) -> None:
    sources = source_rows(TOKENIZER, SOURCES)
    both = write(expander, sources, "detailed", seeds=[5, 6])
    assert both == write(expander, sources, "detailed", seeds=[5, 6])
    assert both[1] == write(expander, sources[[1, 1]], "detailed", seeds=[4, 6])[1]


def test_the_shipped_size_is_below_a_million() -> None:
    with torch.device("meta"):
        made = Expander(ExpanderConfig(vocab=678))
    assert sum(parameter.numel() for parameter in made.parameters()) < 1e6
