"""The captioner: what is written step by step is what the whole caption says, for any size, and search searches."""

import pytest
import torch

from mutoscope.errors import InputError
from mutoscope.models.captioner import (
    CAPTIONER_PRESETS,
    LENGTHS,
    Captioner,
    CaptionerConfig,
    Narrator,
    Past,
    coordinates,
    sentences,
    write,
)
from mutoscope.models.text import PAD, train_tokenizer

TEXTS = ["a red ball rolls to the right.", "a blue box stands still. it takes place at night."]
SMALL = CaptionerConfig(width=32, heads=2, encoder_depth=1, decoder_depth=2, vocab=300, max_tokens=24)


@pytest.fixture(scope="module")
def narrator() -> Narrator:
    torch.manual_seed(0)
    return Narrator(train_tokenizer(TEXTS, SMALL.vocab), Captioner(SMALL).eval())


def latents(clips: int, *extent: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(clips, 16, *extent, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("extent", [(5, 8, 8), (1, 4, 6), (9, 6, 4)])
def test_step_by_step_equals_at_once(narrator: Narrator, extent: tuple[int, int, int]) -> None:
    captioner, latent = narrator.captioner, latents(2, *extent)
    ids = narrator.tokens(TEXTS, ["medium", "detailed"])
    with torch.no_grad():
        whole = captioner(latent, ids)
        seen, past = captioner.see(latent), Past()
        steps = [captioner.next(ids[:, i], i, past, seen) for i in range(ids.shape[1])]
    torch.testing.assert_close(torch.stack(steps, 1), whole, atol=1e-4, rtol=1e-4)


def test_agreement_is_the_chance_of_the_text_under_any_kind(narrator: Narrator) -> None:
    """Written out: the next token's chance, one after the other, the end included; one third for each kind."""
    latent, captioner, chances = latents(1, 5, 8, 8), narrator.captioner, []
    for kind in LENGTHS:
        ids, past, total = narrator.tokens(TEXTS[:1], [kind])[0], Past(), 0.0
        with torch.no_grad():
            seen = captioner.see(latent)
            for i in range(len(ids) - 1):
                chance = captioner.next(ids[i : i + 1], i, past, seen).log_softmax(-1)
                total += float(chance[0, ids[i + 1]])
        chances.append(total)
    expected = torch.tensor(chances).logsumexp(0) - torch.tensor(3.0).log()
    padded = narrator.agreement(torch.cat([latent, latent]), TEXTS)  # the second is longer
    torch.testing.assert_close(padded[0], expected, atol=1e-3, rtol=1e-4)


def test_no_token_sees_what_comes_after_it(narrator: Narrator) -> None:
    ids = narrator.tokens(TEXTS[:1], ["short"])
    changed = ids.clone()
    changed[:, 5:] = 7
    with torch.no_grad():
        one, other = (narrator.captioner(latents(1, 2, 4, 4), each) for each in (ids, changed))
    torch.testing.assert_close(one[:, :5], other[:, :5])
    assert not torch.allclose(one[:, 5:], other[:, 5:])


def test_the_video_and_the_kind_matter(narrator: Narrator) -> None:
    with torch.no_grad():
        ids = narrator.tokens(TEXTS[:1], ["short"])
        plain = narrator.captioner(latents(1, 2, 4, 4), ids)
        assert not torch.allclose(plain, narrator.captioner(latents(1, 2, 4, 4, seed=1), ids))
        detailed = narrator.tokens(TEXTS[:1], ["detailed"])
        assert not torch.allclose(plain, narrator.captioner(latents(1, 2, 4, 4), detailed))


def test_where_something_is_can_be_told(narrator: Narrator) -> None:
    """Rotary positions alone would not tell a clip from one whose content lies elsewhere."""
    latent = torch.zeros(1, 16, 1, 4, 8)
    latent[..., :2, :2] = 3
    with torch.no_grad():
        ids = narrator.tokens(TEXTS[:1], ["short"])
        here, there = (narrator.captioner(each, ids) for each in (latent, latent.flip(-1)))
    assert not torch.allclose(here, there, atol=1e-3)
    assert coordinates((1, 2, 4), torch.device("cpu"))[0, 0, :, 6].tolist() == [-1.5, -0.5, 0.5, 1.5]


def log_chance(narrator: Narrator, latent: torch.Tensor, ids: list[int]) -> float:
    """Log-probability of a caption as a whole, divided as the search does."""
    captioner = narrator.captioner
    row = torch.tensor([[captioner.start("short"), *ids]])
    with torch.no_grad():
        logits = captioner(latent, row)[0]
    logits[:, [PAD, *range(SMALL.vocab, SMALL.vocab + 3)]] = -torch.inf
    ends = [captioner.end] if len(ids) < SMALL.max_tokens else []
    targets = torch.tensor([*ids, *ends])
    total = logits[: len(targets)].log_softmax(-1).gather(1, targets[:, None]).sum()
    return float(total) / (len(ids) + 1) ** 0.7


def test_more_beams_find_likelier_captions(narrator: Narrator) -> None:
    found = {beams: [] for beams in (1, 4)}
    for seed in range(6):
        latent = latents(1, 2, 4, 4, seed=seed)
        for beams in found:
            (ids,) = write(narrator.captioner, latent, "short", beams)
            found[beams].append(log_chance(narrator, latent, ids))
    assert sum(found[4]) > sum(found[1])


@pytest.mark.parametrize("beams", [1, 3])
def test_a_caption_does_not_depend_on_the_other_clips(narrator: Narrator, beams: int) -> None:
    batch = latents(3, 2, 4, 4)
    together = write(narrator.captioner, batch, "medium", beams)
    assert together == [write(narrator.captioner, clip[None], "medium", beams)[0] for clip in batch]


def test_drawn_captions_vary_with_the_seed_and_repeat(narrator: Narrator) -> None:
    batch = latents(2, 2, 4, 4)
    drawn = write(narrator.captioner, batch, "short", seeds=[1, 2])
    assert drawn == write(narrator.captioner, batch, "short", seeds=[1, 2])
    assert drawn[1] == write(narrator.captioner, batch[1:], "short", seeds=[2])[0]
    assert drawn != write(narrator.captioner, batch, "short", seeds=[3, 4])
    with pytest.raises(InputError, match="beams"):
        write(narrator.captioner, batch, "short", beams=2, seeds=[1, 2])


def test_it_learns_two_clips_by_heart(narrator: Narrator) -> None:
    torch.manual_seed(0)
    learner = Narrator(narrator.tokenizer, Captioner(SMALL))
    latent, ids = latents(2, 2, 4, 4), narrator.tokens(TEXTS, ["detailed", "detailed"])
    optimizer = torch.optim.AdamW(learner.captioner.parameters(), lr=3e-3)
    for _ in range(60):
        logits = learner.captioner(latent, ids[:, :-1])
        loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten(), ignore_index=PAD)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert learner(latent, "detailed") == [sentences(text) for text in TEXTS]
    assert learner(latent, "detailed", beams=3) == [sentences(text) for text in TEXTS]


def test_sentences_begin_with_capitals() -> None:
    assert sentences("a red ball rolls. the scene is set at night.") == (
        "A red ball rolls. The scene is set at night."
    )


def test_foreign_latents_are_named(narrator: Narrator) -> None:
    with pytest.raises(InputError, match="16 channels"):
        narrator.captioner.see(torch.zeros(1, 4, 1, 4, 4))
    with pytest.raises(InputError, match="multiples"):
        narrator.captioner.see(torch.zeros(1, 16, 1, 5, 4))


def test_the_tiny_one_is_small() -> None:
    with torch.device("meta"):
        sizes = {
            name: sum(p.numel() for p in Captioner(config).parameters())
            for name, config in CAPTIONER_PRESETS.items()
        }
    assert 1.5e6 < sizes["tiny"] < 2.5e6 < sizes["small"] < sizes["base"]
