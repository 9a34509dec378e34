"""Batches are a pure function of (seed, step), visit every clip, keep their shares; all layouts give one
loss.
"""

from dataclasses import replace

import numpy as np
import pytest
import torch

from mutoscope.data.batches import (
    MODES,
    BatchConfig,
    Batches,
    CaptionMix,
    ConditionMix,
    Share,
    diffusion_loss,
    known_frames,
    plan_draws,
    predict,
    stratified_choice,
)
from mutoscope.data.latents import KINDS, Size
from mutoscope.diffusion.process import Process
from mutoscope.errors import InputError
from mutoscope.models.dit import DiT, DiTConfig


class FixedLatents:
    """A cache in memory: the latent of a row is a function of the row."""

    name = "cache"

    def __init__(self, counts: dict[Size, int]) -> None:
        self.counts = counts

    @property
    def sizes(self):
        return sorted(self.counts)

    def count(self, size):
        return self.counts[size]

    def latents(self, size, rows):
        shape = (4, 1 + (size.frames - 1) // 4, size.height // 8, size.width // 8)
        return torch.stack(
            [torch.randn(shape, generator=torch.Generator().manual_seed(int(row))) for row in rows]
        )

    def known(self, size, rows):
        """Rows of LONG that are multiples of 4 have a leader."""
        return torch.tensor([2 * (size == LONG and row % 4 == 0) for row in rows])

    def fps(self, size, rows):
        return torch.tensor([8.0 if row % 3 else 12.0 for row in rows])

    def caption(self, size, row, kind, variant):
        return f"{kind} {row} {variant % 2}"


SMALL, LONG, STILL = Size(9, 32, 32), Size(17, 32, 48), Size(1, 32, 32)
SHARES = (Share(*SMALL, 0.5), Share(*LONG, 0.3), Share(*STILL, 0.2))


def batches(seed: int = 0, **change) -> Batches:
    config = replace(BatchConfig(buckets=SHARES, tokens=96, groups=2), **change)
    return Batches(FixedLatents({SMALL: 50, LONG: 31, STILL: 40}), config, Process(), seed, steps=300)


def same(a, b) -> bool:
    return all(
        torch.equal(x, y) if isinstance(x, torch.Tensor) else x == y
        for g, h in zip(a, b, strict=True)
        for x, y in zip(vars(g).values(), vars(h).values(), strict=True)
    )


def test_a_batch_is_a_pure_function_of_seed_and_step():
    one, other = batches(), batches()
    late = other.groups(200)
    for step in (1, 2, 64, 65):
        assert same(one.groups(step), other.groups(step))
    assert same(one.groups(200), late)
    assert not same(one.groups(1), batches(seed=1).groups(1))


def test_every_trained_clip_comes_once_before_any_comes_twice_and_held_out_ones_never():
    all_of = batches(held_out=3)
    seen: dict[Size, list[int]] = {}
    for step in range(1, 301):
        for size, rows in all_of.rows(step):
            seen.setdefault(size, []).extend(rows)
    assert sum(map(len, seen.values())) == all_of.clips_through(300)
    for size, rows in seen.items():
        trained = all_of.held_out(size).start
        assert trained == all_of.latents.count(size) - 3
        for epoch in range(len(rows) // trained):
            assert sorted(rows[epoch * trained : (epoch + 1) * trained]) == list(range(trained))
        assert rows[:trained] != rows[trained : 2 * trained]


def test_sizes_keep_their_shares_and_wait_for_their_time():
    shares = (Share(*SMALL, 0.62), Share(*LONG, 0.37), Share(*STILL, 0.01))
    draws = plan_draws(shares, 6400, seed=3)
    assert np.abs(np.bincount(draws) - 6400 * np.array([0.62, 0.37, 0.01])).max() <= 2
    waiting = plan_draws((Share(*SMALL, 0.5), Share(*LONG, 0.5, after=0.4)), 6400, seed=3)
    assert not waiting[: int(0.39 * 6400)].any()
    assert waiting[3200:].mean() == pytest.approx(0.5, abs=0.01)
    assert len(np.unique(draws[:64])) == 3 or len(np.unique(draws[:128])) == 3


def test_tokens_of_a_step_are_what_was_asked_for():
    all_of = batches(tokens=960)
    for step in range(1, 50):
        tokens = sum(len(group.rows) * group.size.tokens for group in all_of.groups(step))
        assert tokens == pytest.approx(960, abs=60)


@pytest.mark.parametrize("frames", [1, 2, 3, 5])
@pytest.mark.parametrize("mode", MODES)
def test_known_frames_are_those_of_the_mode(mode, frames):
    choose = np.random.default_rng(0)
    for _ in range(40):
        known = known_frames(mode, frames, choose)
        assert not known.all()
        assert known.shape == (frames,)
        if frames == 1 or mode in ("text", "independent"):
            assert not known.any()
        elif mode in ("first", "both", "first_k"):
            assert known[0]
        elif mode == "last":
            assert known[-1]
            assert not known[0]
            assert (np.diff(known.astype(int)) >= 0).all()
        if mode == "both" and frames > 2:
            assert known[-1]
            assert (np.diff(known.astype(int)) < 0).sum() == 1  # one gap
    if frames == 5:
        for mode in ("last", "both"):
            assert {int(known_frames(mode, 5, choose).sum()) for _ in range(60)} >= {2, 3, 4}
        counts = {int(known_frames("first_k", 5, choose).sum()) for _ in range(60)}
        assert counts == {2, 3, 4}


def test_of_clips_with_a_leader_that_alone_is_known():
    seen = 0
    for step in range(1, 60):
        for group in batches().groups(step):
            for row, unknown_T, sigma_T in zip(group.rows, group.unknown_BT, group.sigma_BT, strict=True):
                if group.size == LONG and row % 4 == 0:
                    assert unknown_T.tolist() == [False] * 2 + [True] * 3
                    assert sigma_T[:2].max() <= ConditionMix().noise
                    seen += 1
    assert seen > 10


def test_known_frames_carry_little_noise_and_no_loss():
    levels = []
    for step in range(1, 120):
        for group in batches(conditions=ConditionMix(noisy=0.5, noise=0.1)).groups(step):
            known_BT = ~group.unknown_BT
            assert (group.sigma_BT[known_BT] <= 0.1).all()
            assert (group.sigma_BT[group.unknown_BT] > 0).all()
            levels += group.sigma_BT[known_BT].tolist()
    assert 0.3 < np.mean(np.array(levels) == 0) < 0.7
    clean = batches(conditions=ConditionMix(noisy=0.0))
    assert all((g.sigma_BT[~g.unknown_BT] == 0).all() for step in range(1, 20) for g in clean.groups(step))


def test_mixes_are_kept_with_one_kind_of_caption_to_a_group():
    count = null = 0
    kinds = []
    sample = batches(tokens=960, groups=4)
    for step in range(1, 201):
        for group in sample.groups(step):
            null += group.prompts.count("")
            count += len(group.prompts)
            spoken = {prompt.split()[0] for prompt in group.prompts if prompt}
            assert len(spoken) <= 1
            kinds += spoken
    assert null / count == pytest.approx(0.1, abs=0.02)
    for kind, share in (("detailed", 0.6), ("medium", 0.25), ("short", 0.1), ("alt", 0.05)):
        assert kinds.count(kind) / len(kinds) == pytest.approx(share, abs=0.06)
    choice = stratified_choice((0.6, 0.25, 0.15), 40, np.random.default_rng(0))
    assert np.bincount(choice).tolist() == pytest.approx([24, 10, 6], abs=1)


class Worded(FixedLatents):
    """A cache with captions of several sentences."""

    def caption(self, size, row, kind, variant):
        return (
            " ".join(f"{word} ball rolls." for word in ("A", "The red", "The blue", "The last")) + f" {kind}."
        )


def worded(share: slice = slice(None), **mix: float) -> Batches:
    config = BatchConfig(buckets=SHARES, tokens=960, captions=CaptionMix(**mix))
    cache = Worded({SMALL: 50, LONG: 31, STILL: 40})
    return Batches(cache, config, Process(), 0, steps=60, share=share)


def test_captions_are_rearranged_in_their_share_and_nothing_else_changes():
    plain, mixed = worded(), worded(shuffle=0.5, drop=0.3)
    others = shorter = count = 0
    for step in range(1, 41):
        (before,), (after,) = plain.groups(step), mixed.groups(step)
        assert same([replace(before, prompts=())], [replace(after, prompts=())])
        for text, other in zip(before.prompts, after.prompts, strict=True):
            assert (text == "") == (other == "")
            if not text.endswith(("detailed.", "medium.")):
                assert other == text
                continue
            count += 1
            others += other != text
            shorter += len(other) < len(text)
    assert count > 200
    assert 0.4 < others / count < 0.75
    assert 0.15 < shorter / count < 0.35


def test_a_process_gets_the_words_it_would_get_among_all():
    (whole,), (half,) = (
        worded(part, shuffle=0.5, drop=0.5).groups(3) for part in (slice(None), slice(1, None, 2))
    )
    assert half.prompts == whole.prompts[1::2]


def test_by_default_every_caption_is_as_it_was_stored():
    stored = Worded({}).caption
    for step in range(1, 30):
        for group in worded().groups(step):
            assert {*group.prompts} - {""} <= {stored(group.size, 0, kind, 0) for kind in KINDS}


def tiny_dit() -> DiT:
    torch.manual_seed(0)
    dit = DiT(DiTConfig(width=48, depth=2, heads=2, mlp_width=96, text_width=16, channels=4))
    with torch.no_grad():  # past the zero initialisation, so that every branch counts
        for parameter in dit.parameters():
            parameter += 0.05 * torch.randn_like(parameter)
    return dit


@pytest.mark.parametrize(
    "process", [Process(), Process(path="vp", prediction="epsilon")], ids=["flow", "epsilon"]
)
def test_layouts_give_one_loss_and_one_gradient(process):
    dit = tiny_dit()
    candidates = map(batches(groups=3).groups, range(1, 99))
    groups = next(groups for groups in candidates if len({group.size for group in groups}) == 3)
    clips = sum(len(group.rows) for group in groups)
    text_BLD = torch.randn(clips, 7, 16)
    mask_BL = torch.arange(7) < torch.randint(1, 8, (clips, 1))
    found = {}
    for layout in ("bucketed", "packed", "padded"):
        dit.zero_grad()
        loss = diffusion_loss(process, groups, predict(dit, groups, process, text_BLD, mask_BL, layout))
        loss.backward()
        found[layout] = (
            loss.item(),
            torch.cat([p.grad.flatten() for p in dit.parameters() if p.grad is not None]),
        )
    for layout in ("packed", "padded"):
        assert found[layout][0] == pytest.approx(found["bucketed"][0], rel=1e-5)
        assert (found[layout][1] - found["bucketed"][1]).abs().max() < 1e-5 * found["bucketed"][
            1
        ].abs().max() + 1e-6


def test_loss_counts_unknown_values_only():
    process, groups = Process(), batches(groups=1, conditions=ConditionMix(text=0, independent=0)).groups(1)
    right = [process.target(g.latent_BCTHW, g.noise_BCTHW, g.sigma_BT) for g in groups]
    spoiled = [torch.where(g.unknown_BT[:, None, :, None, None], r, r + 9) for g, r in zip(groups, right)]
    wrong = [torch.where(g.unknown_BT[:, None, :, None, None], r + 2, r) for g, r in zip(groups, right)]
    assert diffusion_loss(process, groups, spoiled).item() == 0
    assert diffusion_loss(process, groups, wrong).item() == pytest.approx(4, rel=1e-5)
    x0 = Process(path="vp", prediction="x0")
    guesses = [torch.zeros_like(g.latent_BCTHW, requires_grad=True) for g in groups]
    diffusion_loss(x0, groups, guesses).backward()
    assert all(torch.isfinite(guess.grad).all() for guess in guesses)


def test_a_jump_costs_more_than_a_shift():
    text = ConditionMix(text=1, first=0, first_k=0, last=0, both=0, random=0, independent=0)
    process, groups = Process(), batches(groups=1, conditions=text).groups(1)
    right = [process.target(g.latent_BCTHW, g.noise_BCTHW, g.sigma_BT) for g in groups]
    frames = right[0].shape[2]
    assert frames > 1
    sign_T = torch.tensor([(-1.0) ** frame for frame in range(frames)]).view(1, 1, -1, 1, 1)
    shifted, jumping = ([one + 2 * sign for one in right] for sign in (torch.ones_like(sign_T), sign_T))
    for change in (0.0, 0.5):
        assert diffusion_loss(process, groups, shifted, change).item() == pytest.approx(4, rel=1e-5)
        expected = 4 + change * 16 * (frames - 1) / frames
        assert diffusion_loss(process, groups, jumping, change).item() == pytest.approx(expected, rel=1e-5)


def test_the_border_to_known_frames_is_no_jump():
    process, groups = Process(), batches(groups=1, conditions=ConditionMix(text=0, first=1)).groups(1)
    right = [process.target(g.latent_BCTHW, g.noise_BCTHW, g.sigma_BT) for g in groups]
    spoiled = [torch.where(g.unknown_BT[:, None, :, None, None], r, r + 9) for g, r in zip(groups, right)]
    assert not all(bool(group.unknown_BT.all()) for group in groups)
    assert diffusion_loss(process, groups, spoiled, 1.0).item() == 0


def test_mistakes_are_named():
    with pytest.raises(InputError, match="16x16x5"):
        batches(buckets=(Share(5, 16, 16, 1.0),))
    with pytest.raises(InputError, match="after = 0"):
        BatchConfig(buckets=(Share(*SMALL, 1.0, after=0.5),))
    with pytest.raises(InputError, match="negative"):
        BatchConfig(buckets=(Share(*SMALL, 1.0), Share(*LONG, -1.0)))
    with pytest.raises(InputError, match="null"):
        CaptionMix(null=2)
    with pytest.raises(InputError, match="shuffle"):
        CaptionMix(shuffle=1.5)
    with pytest.raises(InputError, match="conditions"):
        ConditionMix(text=-1)
