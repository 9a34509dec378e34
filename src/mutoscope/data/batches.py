"""Batches: which clips, which words, which noise, which frames are known - all a pure function of (seed,
step).

There is no sampler state to save: step 1234 of a run is the same batch after any number of kills, and every
clip of a size comes once before any comes twice. A step is made of groups; a group holds clips of one size.
The three layouts give the same losses and differ in cost only: `bucketed` runs group after group, `packed`
lays all tokens in one row, `padded` fills every clip up to the longest (the reference).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import astuple, dataclass, field
from functools import lru_cache
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from mutoscope.data.latents import KINDS, Latents, Size
from mutoscope.data.world_latents import WorldLatents
from mutoscope.diffusion.process import Process
from mutoscope.errors import InputError
from mutoscope.models.dit import DiT
from mutoscope.world.captions import Kind, shortened, shuffled

ROUND = 64  # groups after which the sizes have had their shares, as far as whole numbers allow


@dataclass(frozen=True)
class Share:
    """One size of the mix: its probability, and from which share of the run on it takes part."""

    frames: int
    height: int
    width: int
    probability: float
    after: float = 0.0

    @property
    def size(self) -> Size:
        return Size(self.frames, self.height, self.width)


@dataclass(frozen=True)
class CaptionMix:
    """Share of clips trained without words (for guidance), and weights of the kinds among groups.

    shuffle, drop: shares of the detailed and medium captions that tell their facts in another order, and that leave
    some of them out, so that their lengths vary.
    """

    null: float = 0.1
    detailed: float = 0.60
    medium: float = 0.25
    short: float = 0.10
    alt: float = 0.05
    shuffle: float = 0.0
    drop: float = 0.0

    def __post_init__(self) -> None:
        if min(astuple(self)) < 0 or max(self.null, self.shuffle, self.drop) > 1 or sum(self.weights) <= 0:
            raise InputError(
                f"batches.captions {self}: null, shuffle and drop lie in 0 to 1, weights are 0 or more, not all 0."
            )

    @property
    def weights(self) -> tuple[float, ...]:
        """Of the kinds, in the order of KINDS."""
        return tuple(getattr(self, kind) for kind in KINDS)

    def rearranged(self, text: str, kind: Kind, rng: np.random.Generator) -> str:
        """The caption, or, by the shares, a shorter one or one in another order."""
        drop, shuffle = rng.random(2) < (self.drop, self.shuffle)
        if kind not in ("detailed", "medium"):
            return text
        text = shortened(text, rng) if drop else text
        return shuffled(text, rng) if shuffle else text


@dataclass(frozen=True)
class ConditionMix:
    """Weights of what is known of a clip besides its text.

    first: its first latent frame; first_k: 2 or more from the start; last: 1 or more at the end; both: all but a
    gap between the first and the last; random: any; and independent: a noise level of its own for every frame
    (diffusion forcing, Chen et al. 2024). Known frames are clean, or, in a share `noisy` of clips, carry a little
    noise up to `noise` (so that rollouts bear their own errors).
    """

    text: float = 0.60
    first: float = 0.15
    first_k: float = 0.08
    last: float = 0.02
    both: float = 0.02
    random: float = 0.03
    independent: float = 0.10
    noisy: float = 0.5
    noise: float = 0.1

    def __post_init__(self) -> None:
        if min(astuple(self)) < 0 or sum(self.weights) <= 0 or self.noisy > 1 or self.noise >= 1:
            raise InputError(
                f"batches.conditions {self}: weights are 0 or more, not all 0; noisy, noise below 1."
            )

    @property
    def weights(self) -> tuple[float, ...]:
        return astuple(self)[: len(MODES)]


MODES = ("text", "first", "first_k", "last", "both", "random", "independent")


@dataclass(frozen=True)
class BatchConfig:
    """tokens: visual tokens a step, divided by the size of a clip. groups: of how many sizes a step is made.

    held_out: clips of every size (its last rows, at most a tenth) that are never trained on.
    """

    buckets: tuple[Share, ...]
    tokens: int = 5120
    groups: int = 1
    layout: Literal["bucketed", "packed", "padded"] = "bucketed"
    held_out: int = 64
    captions: CaptionMix = field(default_factory=CaptionMix)
    conditions: ConditionMix = field(default_factory=ConditionMix)

    def __post_init__(self) -> None:
        if self.tokens < 1 or self.groups < 1 or self.held_out < 0:
            raise InputError("batches: tokens and groups must be at least 1, held_out at least 0.")
        if not any(share.after <= 0 and share.probability > 0 for share in self.buckets):
            raise InputError("batches.buckets: at least one bucket must have probability > 0 and after = 0.")
        if min(share.probability for share in self.buckets) < 0:
            raise InputError("batches.buckets: a probability is negative; 0 leaves a bucket out.")


@dataclass(frozen=True)
class Group:
    """Clips of one size, ready for the loss."""

    size: Size
    rows: tuple[int, ...]
    prompts: tuple[str, ...]  # "" is the null text
    latent_BCTHW: Tensor
    noise_BCTHW: Tensor
    sigma_BT: Tensor  # noise level of every latent frame, 0 or little where it is known
    unknown_BT: Tensor  # True where the loss counts
    fps_B: Tensor


class Batches:
    """The groups of every step from 1 to `steps`, on a device. Raises InputError when the cache lacks a bucket.

    What is drawn is drawn on the CPU, so that a step is the same on every device. share: which clips of every group
    are for this process; each gets the words and the noise that it gets where all are drawn.
    """

    def __init__(
        self,
        latents: Latents | WorldLatents,
        config: BatchConfig,
        process: Process,
        seed: int,
        steps: int,
        device: torch.device | str = "cpu",
        share: slice = slice(None),
    ) -> None:
        self.latents, self.config, self.process, self.seed = latents, config, process, seed
        self.device, self.share = torch.device(device), share
        self.sizes = [share.size for share in config.buckets]
        if missing := [str(size) for size in self.sizes if size not in latents.sizes]:
            raise InputError(
                f"{latents.name} has no clips of {', '.join(missing)}: it holds "
                f"{', '.join(map(str, latents.sizes))}; change batches.buckets or encode those sizes."
            )
        self.draws = plan_draws(config.buckets, steps * config.groups, seed)
        self.nth = occurrence(self.draws)
        self._order = lru_cache(maxsize=2 * len(self.sizes))(self._shuffled)

    def held_out(self, size: Size) -> range:
        """Rows of a size that training never sees."""
        count = self.latents.count(size)
        return range(count - min(self.config.held_out, count // 10), count)

    def clips(self, size: Size) -> int:
        """Clips in a group of this size."""
        return max(1, round(self.config.tokens / self.config.groups / size.tokens))

    def clips_through(self, step: int) -> int:
        """Clips trained on in steps 1 to `step`, repeats counted."""
        drawn = np.bincount(self.draws[: step * self.config.groups], minlength=len(self.sizes))
        return sum(int(count) * self.clips(size) for count, size in zip(drawn, self.sizes))

    def rows(self, step: int) -> list[tuple[Size, tuple[int, ...]]]:
        """Size and rows of each group of a step."""
        groups = []
        for draw in range((step - 1) * self.config.groups, step * self.config.groups):
            bucket = int(self.draws[draw])
            size = self.sizes[bucket]
            clips, trained = self.clips(size), self.held_out(size).start
            begin = int(self.nth[draw]) * clips
            places = [divmod(place, trained) for place in range(begin, begin + clips)]
            groups.append((size, tuple(int(self._order(bucket, epoch)[i]) for epoch, i in places)))
        return groups

    def _shuffled(self, bucket: int, epoch: int) -> np.ndarray:
        trained = self.held_out(self.sizes[bucket]).start
        return np.random.default_rng((self.seed, 1, bucket, epoch)).permutation(trained)

    def groups(self, step: int) -> list[Group]:
        """The batch of a step."""
        groups = self._groups(step)
        if isinstance(self.latents, WorldLatents) and (step + 1) * self.config.groups <= len(self.draws):
            for size, rows in self.rows(step + 1):
                self.latents.expect(size, rows[self.share])
        return groups

    def _groups(self, step: int) -> list[Group]:
        return [self._group(step, part, size, rows) for part, (size, rows) in enumerate(self.rows(step))]

    def _group(self, step: int, part: int, size: Size, rows: tuple[int, ...]) -> Group:
        choose = np.random.default_rng((self.seed, 2, step, part))
        generator = torch.Generator().manual_seed(int(choose.integers(2**62)))
        mine = rows[self.share]
        latent_BCTHW = self.latents.latents(size, mine).to(self.device)
        sigma_BT, unknown_BT = self._noise_levels(
            self.latents.known(size, rows), latent_BCTHW.shape[2], size.tokens, choose, generator
        )
        prompts = self._prompts(size, rows, choose, np.random.SeedSequence((self.seed, 3, step, part)))
        noise_BCTHW = torch.randn((len(rows), *latent_BCTHW.shape[1:]), generator=generator)
        return Group(
            size,
            mine,
            prompts,
            latent_BCTHW,
            noise_BCTHW[self.share].to(self.device),
            sigma_BT[self.share].to(self.device),
            unknown_BT[self.share].to(self.device),
            self.latents.fps(size, mine).to(self.device),
        )

    def _prompts(
        self, size: Size, rows: Sequence[int], choose: np.random.Generator, wording: np.random.SeedSequence
    ) -> tuple[str, ...]:
        """Of the clips of the share. wording: draws of its own, so that it changes nothing else that is drawn."""
        # One kind for all clips of a group: texts are padded to the longest, and a detailed caption is four times
        # as long as a short one.
        mix = self.config.captions
        weights = np.array(mix.weights)
        kind = KINDS[choose.choice(len(KINDS), p=weights / weights.sum())]
        unworded = stratified_choice((1 - mix.null, mix.null), len(rows), choose)
        variants = choose.integers(1 << 30, size=len(rows))
        clips = list(zip(rows, unworded, variants, map(np.random.default_rng, wording.spawn(len(rows)))))
        return tuple(
            "" if null else mix.rearranged(self.latents.caption(size, row, kind, int(variant)), kind, rng)
            for row, null, variant, rng in clips[self.share]
        )

    def _noise_levels(
        self, led_B: Tensor, frames: int, tokens: int, choose: np.random.Generator, generator: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        """sigma_BT and unknown_BT. Of clips with a leader, led_B latent frames, that is all that is known."""
        mix, clips = self.config.conditions, len(led_B)
        modes = [MODES[i] for i in stratified_choice(mix.weights, clips, choose)]
        known_BT = torch.from_numpy(np.stack([known_frames(mode, frames, choose) for mode in modes]))
        led_BT = torch.arange(frames) < led_B[:, None]
        known_BT = torch.where(led_B[:, None] > 0, led_BT, known_BT)
        sigma_B = self.process.sample_sigma(clips, generator, tokens)
        own_BT = self.process.sample_sigma(clips * frames, generator, tokens).view(clips, frames)
        independent_B = torch.tensor([mode == "independent" for mode in modes])
        little_B = torch.from_numpy(
            (choose.random(clips) < mix.noisy) * choose.random(clips) * mix.noise
        ).float()
        sigma_BT = torch.where(independent_B[:, None], own_BT, sigma_B[:, None].expand(-1, frames))
        return torch.where(known_BT, little_B[:, None], sigma_BT), ~known_BT


def known_frames(mode: str, frames: int, choose: np.random.Generator) -> np.ndarray:
    """Which of `frames` latent frames are known (bool); at least one stays unknown."""
    known = np.zeros(frames, dtype=bool)
    if frames == 1 or mode in ("text", "independent"):
        return known
    if mode == "first_k":
        known[: choose.integers(min(2, frames - 1), frames)] = True
    if mode == "first" or (mode == "both" and frames == 2):
        known[0] = True
    if mode == "last":
        known[choose.integers(1, frames) :] = True
    if mode == "both" and frames > 2:
        start, stop = np.sort(choose.choice(np.arange(1, frames), 2, replace=False))
        known[:start] = known[stop:] = True
    if mode == "random":
        known = choose.random(frames) < choose.uniform(0.1, 0.9)
        known[choose.integers(frames)] = False
    return known


def stratified_choice(weights: Sequence[float], n: int, choose: np.random.Generator) -> np.ndarray:
    """n indices into `weights`, each as often as its share says, up to rounding; in random order."""
    edges = np.cumsum(weights) / np.sum(weights)
    places = (choose.permutation(n) + choose.random()) / n
    return np.minimum(np.searchsorted(edges, places, side="right"), len(weights) - 1)


def plan_draws(buckets: Sequence[Share], draws: int, seed: int) -> np.ndarray:
    """Which bucket each draw of the run takes, (draws,): shares exact over time, order shuffled within
    rounds.
    """
    owed, rounds = np.zeros(len(buckets)), []
    for number in range(-(-draws // ROUND)):
        now = number * ROUND / draws
        weights = np.array([share.probability * (share.after <= now) for share in buckets])
        owed += ROUND * weights / weights.sum()
        counts = np.maximum(np.floor(owed), 0).astype(int)
        rest = np.argsort(counts - owed, kind="stable")
        counts[rest[: ROUND - counts.sum()]] += 1
        owed -= counts
        shuffle = np.random.default_rng((seed, 0, number))
        rounds.append(shuffle.permutation(np.repeat(np.arange(len(buckets)), counts)))
    return np.concatenate(rounds)[:draws]


def occurrence(draws: np.ndarray) -> np.ndarray:
    """How many earlier draws took the same bucket, (draws,)."""
    nth = np.zeros(len(draws), dtype=np.int64)
    for bucket in np.unique(draws):
        where = draws == bucket
        nth[where] = np.arange(where.sum())
    return nth


# --- the three layouts


def predict(
    dit: DiT, groups: Sequence[Group], process: Process, text_BLD: Tensor, mask_BL: Tensor, layout: str
) -> list[Tensor]:
    """Prediction of every group, shaped like its latents. `text_BLD` has a row for each clip, group after
    group.
    """
    noised = [process.noised(group.latent_BCTHW, group.noise_BCTHW, group.sigma_BT) for group in groups]
    clips = [len(group.rows) for group in groups]
    if layout == "bucketed":
        texts, masks = torch.split(text_BLD, clips), torch.split(mask_BL, clips)
        return [
            dit(z_BCTHW, process.timestep(group.sigma_BT), text, mask, group.fps_B)
            for z_BCTHW, group, text, mask in zip(noised, groups, texts, masks)
        ]
    forward = dit.forward_packed if layout == "packed" else dit.forward_padded
    predictions = forward(
        [z_CTHW for z_BCTHW in noised for z_CTHW in z_BCTHW],
        [timestep_T for group in groups for timestep_T in process.timestep(group.sigma_BT)],
        [text_LD[mask_L] for text_LD, mask_L in zip(text_BLD, mask_BL)],
        torch.cat([group.fps_B for group in groups]),
    )
    parts, begin = [], 0
    for count in clips:
        parts.append(torch.stack(predictions[begin : begin + count]))
        begin += count
    return parts


def diffusion_loss(
    process: Process, groups: Sequence[Group], predictions: Sequence[Tensor], change: float = 0.0
) -> Tensor:
    """Weighted squared error, averaged over all unknown values of the step.

    change: weight of the squared error of the change from one unknown latent frame to the next. An error that all
    frames share moves a thing; one that differs between them makes it jump. What is best of all is the same with any
    weight: the mean of what may be.
    """
    total, values = predictions[0].new_zeros((), dtype=torch.float32), 0.0
    for group, prediction_BCTHW in zip(groups, predictions):
        target_BCTHW = process.target(group.latent_BCTHW, group.noise_BCTHW, group.sigma_BT)
        error_BCTHW = prediction_BCTHW - target_BCTHW
        # At sigma 0, of known frames, the weight of an x0 prediction is infinite.
        weight_BT = torch.where(group.unknown_BT, process.loss_weight(group.sigma_BT), 0)
        total = total + (weight_BT * error_BCTHW.square().sum(dim=(1, 3, 4))).sum()
        if change:
            pair_BT = torch.minimum(weight_BT[:, 1:], weight_BT[:, :-1])
            total = total + change * (pair_BT * error_BCTHW.diff(dim=2).square().sum(dim=(1, 3, 4))).sum()
        values += float(group.unknown_BT.sum()) * (prediction_BCTHW[0, :, 0].numel())
    return total / values
