"""Storyboards: cards at times, each a text, a picture or a clip, made into one clip shot after shot.

A card begins a new shot (a hard cut) when it stands closer than NEAR seconds after the one before, or says so
with `cut = true`; else what the card before shows turns into it. Within a shot the model is told, for each
latent frame, the prompts of the cards around it: one estimate per prompt, mixed by nearness in time. Shots
longer than a window are made in windows that share latent frames. The latents of each shot are saved under a
name that is a hash of all that decides them: what is there already is not made again.
"""

import hashlib
import json
import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save
from torch import Tensor

from mutoscope.config import load_config, to_dict
from mutoscope.diffusion.sampler import OnStep
from mutoscope.errors import InputError
from mutoscope.files import write_atomically
from mutoscope.generation import conditions
from mutoscope.generation.conditions import Condition, onto_grid
from mutoscope.generation.continuations import fitted, seamless, window, windows
from mutoscope.generation.generate import record
from mutoscope.generation.request import KeyFrame, Recipe, Request, file_sha256, fill
from mutoscope.generation.sampling import Branches, address_noise, decode, encode_text, grid_of, integrate
from mutoscope.generation.shown import guide_by
from mutoscope.video import Video, fit_frames_rate, read_video, to_tensor
from mutoscope.weights.store import Model

NEAR = 1.0
"""A card closer than this after the one before, in seconds, is a hard cut."""

HISTORY = 3
"""Latent frames that a window of a shot knows from the one before."""

SPLIT = re.compile(
    r"[.;,]?\s*\b(?:and\s+)?(?:then|next|after that|afterwards|finally|cut to|at last)\b[,:]?\s*|\n+", re.I
)
LEAD = re.compile(r"^\s*(?:first(?:ly)?|to begin with|shot \d+|\d+[.)])\s*[,:]?\s*", re.I)


@dataclass(frozen=True)
class Card:
    """What is seen from `at` seconds on: words, a picture that is shown at that moment, or a whole clip.

    `cut` decides whether a new shot begins here; None leaves it to the spacing.
    """

    at: float
    prompt: str = ""
    image: str | None = None
    clip: str | None = None
    cut: bool | None = None

    def __post_init__(self) -> None:
        if not (math.isfinite(self.at) and self.at >= 0):
            raise InputError(f"A card stands at {self.at:g} s; a time is 0 s or later.")
        if self.image is not None and self.clip is not None:
            raise InputError(f"The card at {self.at:g} s has an image and a clip; give it one of them.")
        if not (self.prompt or self.image or self.clip):
            raise InputError(f"The card at {self.at:g} s is empty; give it a prompt, an image or a clip.")


@dataclass(frozen=True)
class Storyboard:
    """Cards in time, and the settings of the whole clip; None means the model's default.

    The same JSON serves the command line, HTTP and the page. Raises InputError for cards out of order, at the
    same moment, or outside the clip.
    """

    cards: tuple[Card, ...]
    seconds: float
    width: int | None = None
    height: int | None = None
    fps: float | None = None
    steps: int | None = None
    guidance: float | None = None
    seed: int = 0
    negative: str = ""

    def __post_init__(self) -> None:
        if not self.cards:
            raise InputError("The storyboard has no cards; give it at least one.")
        if self.cards[0].at != 0:
            raise InputError(f"The first card stands at {self.cards[0].at:g} s; a storyboard begins at 0 s.")
        for before, card in pairwise(self.cards):
            if card.at <= before.at:
                raise InputError(
                    f"The cards at {before.at:g} s and {card.at:g} s overlap; each stands later than the one before."
                )
        if not (math.isfinite(self.seconds) and self.seconds > self.cards[-1].at):
            raise InputError(
                f"The card at {self.cards[-1].at:g} s is outside the storyboard of {self.seconds:g} s; "
                "move it or lengthen the storyboard."
            )


@dataclass(frozen=True)
class Shot:
    """Cards without a cut between them, and the frames of the clip that they fill."""

    cards: tuple[Card, ...]
    start: int
    stop: int


def read_storyboard(path: Path) -> Storyboard:
    """A storyboard from TOML or JSON, its files named from its folder. Raises InputError for bad ones."""
    board = load_config(Storyboard, path)
    cards = tuple(
        replace(
            card,
            image=card.image and str(path.parent / card.image),
            clip=card.clip and str(path.parent / card.clip),
        )
        for card in board.cards
    )
    return replace(board, cards=cards)


def plan_shots(prompt: str, seconds: float) -> Storyboard:
    """A long prompt, "First ..., then ...", as cards of equal length; "cut to" makes a cut.

    Raises InputError for an empty prompt.
    """
    pieces, begin, cut = [], 0, False
    for mark in [*SPLIT.finditer(prompt), None]:
        text = LEAD.sub("", prompt[begin : mark.start() if mark else None]).strip(" .,;\n")
        if text:
            pieces.append((text, cut))
        if mark:
            begin, cut = mark.end(), "cut to" in mark.group().lower()
    if not pieces:
        raise InputError("The prompt holds no shot; say what is to be seen, as in 'First ..., then ...'.")
    length = seconds / len(pieces)
    cards = [
        Card(round(index * length, 3), text, cut=cut or None) for index, (text, cut) in enumerate(pieces)
    ]
    return Storyboard(tuple(cards), seconds)


def shots_of(board: Storyboard, fps: float) -> list[Shot]:
    """The board cut into shots: each begins at a card that says so or stands near the one before."""
    groups: list[list[Card]] = []
    for card in board.cards:
        near = bool(groups) and card.at - groups[-1][-1].at < NEAR
        if not groups or (near if card.cut is None else card.cut):
            groups.append([])
        groups[-1].append(card)
    starts = [round(group[0].at * fps) for group in groups] + [max(1, round(board.seconds * fps))]
    for start, stop in pairwise(starts):
        if stop <= start:
            raise InputError(
                f"The shot at {start / fps:g} s has no frame at {fps:g} fps; space its cards wider."
            )
    return [Shot(tuple(group), start, stop) for group, start, stop in zip(groups, starts, starts[1:])]


@torch.inference_mode()
def make_storyboard(
    model: Model,
    board: Storyboard,
    folder: Path | None = None,
    on_step: OnStep | None = None,
    on_shot: Callable[[int, int, bool], None] | None = None,
) -> Video:
    """The clip of a storyboard. The frames of its clips come out bit for bit.

    `folder` keeps the latents of finished shots. `on_shot` is called with the number of a shot, how many
    there are, and whether it was there already. Raises KeyboardInterrupt when `on_step` returns False.
    """
    recipe = fill(
        Request(
            width=board.width,
            height=board.height,
            seconds=board.seconds,
            fps=board.fps,
            steps=board.steps,
            guidance=board.guidance,
            seed=board.seed,
            negative=board.negative,
        ),
        model.card.defaults,
    )
    shots, made = shots_of(board, recipe.fps), []
    placed = [[(card, clip_of(card, shot, recipe)) for card in shot.cards] for shot in shots]  # checks first
    for index, (shot, cards) in enumerate(zip(shots, placed)):
        part = replace(recipe, frames=shot.stop - shot.start, prompt=shot.cards[0].prompt)
        saved = None if folder is None else folder / f"{shot_key(model, part, shot)}.safetensors"
        there = saved is not None and saved.exists()
        if on_shot:
            on_shot(index + 1, len(shots), there)
        if saved is not None and there:
            latent_BCTHW = load_file(saved)["latent"].to(model.vae.latent_mean)
        else:
            latent_BCTHW = make_shot(model, part, shot, cards, on_step)
            if saved is not None:
                saved.parent.mkdir(parents=True, exist_ok=True)
                write_atomically(saved, save({"latent": latent_BCTHW.contiguous().cpu()}))
        frames_THWC = np.concatenate(list(decode(model, part, latent_BCTHW[0])))
        made.append(with_clips(frames_THWC, shot, cards, recipe.fps))
    told = {**record(model, recipe), "storyboard": to_dict(board)}
    return Video(np.concatenate(made), recipe.fps, told)


def clip_of(card: Card, shot: Shot, recipe: Recipe) -> np.ndarray | None:
    """The frames of a card's clip at the size and rate of the whole, None without one.

    Raises InputError when it runs into the next card or beyond its shot.
    """
    if card.clip is None:
        return None
    frames_THWC = fit_frames_rate(read_video(card.clip), recipe.fps).frames_THWC
    begin = round(card.at * recipe.fps)
    later = [round(other.at * recipe.fps) for other in shot.cards if other.at > card.at]
    end = min([*later, shot.stop])
    if begin + len(frames_THWC) > end:
        raise InputError(
            f"The clip {card.clip} of {len(frames_THWC) / recipe.fps:g} s at {card.at:g} s overlaps what comes at "
            f"{end / recipe.fps:g} s; cut it shorter or move the next card."
        )
    return fitted(frames_THWC, recipe.width, recipe.height)


def make_shot(
    model: Model,
    part: Recipe,
    shot: Shot,
    cards: Sequence[tuple[Card, np.ndarray | None]],
    on_step: OnStep | None,
) -> Tensor:
    """Latents of one shot, BCTHW, window after window."""
    grid, stride = grid_of(model, part), model.vae.strides[0]
    known: dict[int, Tensor] = {}
    for card, frames_THWC in cards:
        begin = round(card.at * part.fps) - shot.start
        if frames_THWC is not None:
            place = -(-begin // stride)
            skip = 0 if begin == 0 else 1 + stride * (place - 1) - begin
            if skip < 0:
                place, skip = place + 1, skip + stride
            usable = len(frames_THWC) - skip
            count = 1 + stride * ((usable - 1) // stride) if place == 0 else stride * (usable // stride)
            if count > 0:
                known[place] = onto_grid(to_tensor(frames_THWC[skip : skip + count])[None], part, grid)
        elif card.image is not None:
            frame = KeyFrame(begin / part.fps, card.image)
            known[conditions.key_place(part, frame, grid)] = conditions.picture(card.image, None, part, grid)
    condition = conditions.frames(model.vae, grid, known)
    latent_BCTHW, mask_BT = condition.latent_BCTHW, condition.mask_BT
    share_PT, prompts = shares(shot, grid.frames, stride, part.fps)
    for span in windows(mask_BT[0].tolist(), window(model, part), HISTORY):
        told = Condition(latent_BCTHW[:, :, span].clone(), mask_BT[:, span].clone())
        whole = replace(part, frames=1 + stride * (span.stop - span.start - 1))
        offset = shot.start // stride + span.start  # no two shots share their noise
        made_BCTHW = mixed(model, whole, prompts, share_PT[:, span], told, on_step, offset)
        unknown_B1T11 = ~mask_BT[:, None, span, None, None]
        latent_BCTHW[:, :, span] = torch.where(unknown_B1T11, made_BCTHW, latent_BCTHW[:, :, span])
        mask_BT[:, span] = True
    return latent_BCTHW


def shares(shot: Shot, frames: int, stride: int, fps: float) -> tuple[Tensor, list[str]]:
    """How much of each prompt each latent frame is told, (prompts, T) adding up to 1, and the prompts.

    Between the times of two cards the share passes from one to the other in the middle half of the way.
    """
    cards = [card for card in shot.cards if card.prompt] or [shot.cards[0]]
    share_PT = torch.zeros(len(cards), frames)
    for index in range(frames):
        moment = (shot.start + max(0, stride * index - stride / 2)) / fps
        before = max((place for place, card in enumerate(cards) if card.at <= moment), default=0)
        share_PT[before, index] = 1.0
        if before + 1 < len(cards):
            way = (moment - cards[before].at) / (cards[before + 1].at - cards[before].at)
            passed = min(1.0, max(0.0, 2 * way - 0.5))
            share_PT[before, index], share_PT[before + 1, index] = 1 - passed, passed
    return share_PT, [card.prompt for card in cards]


def mixed(
    model: Model,
    recipe: Recipe,
    prompts: Sequence[str],
    share_PT: Tensor,
    condition: Condition,
    on_step: OnStep | None,
    frame0: int,
) -> Tensor:
    """Latents of one window, its frames told different prompts: the estimates are mixed at every step."""
    noise_BCTHW = address_noise(model, [recipe], grid_of(model, recipe), frame0)
    parts = []
    for prompt, share_T in zip(prompts, share_PT):
        if share_T.any():
            text = encode_text(model, [replace(recipe, expanded_prompt=prompt)])
            branches = Branches(model, text, condition, recipe.fps, noise_BCTHW)
            weight_T11 = share_T.to(noise_BCTHW)[:, None, None]
            parts.append((guide_by(model, branches, recipe.guidance, condition.unknown), weight_T11))

    def denoise(latent_BCTHW: Tensor, sigma: Tensor) -> Tensor:
        total_BCTHW = torch.zeros_like(latent_BCTHW)
        for estimate, weight_T11 in parts:
            total_BCTHW += weight_T11 * estimate(latent_BCTHW, sigma)
        return total_BCTHW

    sampled = integrate(model, recipe, denoise, noise_BCTHW, on_step)
    if sampled.stopped is not None:
        raise KeyboardInterrupt
    return sampled.latent_BCTHW


def with_clips(
    frames_THWC: np.ndarray, shot: Shot, cards: Sequence[tuple[Card, np.ndarray | None]], fps: float
) -> np.ndarray:
    """The frames of a shot with those of its clips in their places, and no jump beside them."""
    for card, clip_THWC in cards:
        if clip_THWC is None:
            continue
        begin = round(card.at * fps) - shot.start
        end = begin + len(clip_THWC)
        if begin:
            frames_THWC[:begin] = seamless(frames_THWC[:begin], None, clip_THWC)
        if end < len(frames_THWC):
            frames_THWC[end:] = seamless(frames_THWC[end:], clip_THWC, None)
        frames_THWC[begin:end] = clip_THWC
    return frames_THWC


def shot_key(model: Model, part: Recipe, shot: Shot) -> str:
    """16 hexadecimal digits of what decides the latents of a shot."""
    files = [file_sha256(Path(name)) for card in shot.cards for name in (card.image, card.clip) if name]
    facts = [model.card.sha256, to_dict(part), to_dict(shot), files, str(model.vae.latent_mean.device)]
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:16]
