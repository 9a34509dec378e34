"""Storyboards: cards at times, each a text, a picture or a clip, made into one clip shot after shot.

Within a shot the model is told, for each latent frame, the prompts of the cards around it: one estimate per prompt,
mixed by nearness in time. Shots longer than a window are made in windows that share latent frames. A shot about a
character is led by its picture (see `shown.led`); one of words alone has candidates, as `generate` has. The latents of
each shot are saved under a name that is a hash of all that decides them: what is there already is not made again.
"""

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save
from torch import Tensor

from mutoscope.config import to_dict
from mutoscope.diffusion.sampler import OnStep
from mutoscope.errors import InputError
from mutoscope.files import write_atomically
from mutoscope.generation import conditions
from mutoscope.generation.cards import Card, Shot, Storyboard, plan_shots, read_storyboard, shots_of
from mutoscope.generation.choice import after_trials, choose, usual_candidates
from mutoscope.generation.conditions import Condition, onto_grid
from mutoscope.generation.continuations import LEAST, fitted, seamless, windows
from mutoscope.generation.generate import record
from mutoscope.generation.request import KeyFrame, Recipe, Reference, Request, file_sha256, fill
from mutoscope.generation.sampling import (
    STEP_APART,
    Branches,
    address_noise,
    decode,
    encode_text,
    grid_of,
    integrate,
    told_exactly,
)
from mutoscope.generation.shown import guide_by, led
from mutoscope.generation.windows import counted, window
from mutoscope.video import Video, fit_frames_rate, read_video, to_tensor
from mutoscope.weights.store import Model

__all__ = ["Card", "Storyboard", "make_storyboard", "plan_shots", "read_storyboard", "shots_of"]

HISTORY = 3
"""Latent frames that a window of a shot knows from the one before."""


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
    recipe = recipe_of(model, board)
    board = settled(model, board, recipe)
    shots, made, leads = shots_of(board, recipe.fps), [], 0
    placed = [[(card, clip_of(card, shot, recipe)) for card in shot.cards] for shot in shots]  # checks first
    for index, (shot, cards) in enumerate(zip(shots, placed)):
        part = part_of(model, recipe, shot)
        frame0 = shot.start // model.vae.strides[0] + leads  # of its noise, which shots do not share
        leads += -(-part.lead // model.vae.strides[0])
        saved = None if folder is None else folder / f"{shot_key(model, part, shot, frame0)}.safetensors"
        there = saved is not None and saved.exists()
        if on_shot:
            on_shot(index + 1, len(shots), there)
        if saved is not None and there:
            latent_BCTHW = load_file(saved)["latent"].to(model.vae.latent_mean)
        else:
            latent_BCTHW = make_shot(model, part, shot, cards, on_step, frame0)
            if saved is not None:
                saved.parent.mkdir(parents=True, exist_ok=True)
                write_atomically(saved, save({"latent": latent_BCTHW.contiguous().cpu()}))
        frames_THWC = np.concatenate(list(decode(model, part, latent_BCTHW[0])))
        made.append(with_clips(frames_THWC, shot, cards, recipe.fps))
    told = {**record(model, recipe), "storyboard": to_dict(board)}
    return Video(np.concatenate(made), recipe.fps, told)


def recipe_of(model: Model, board: Storyboard) -> Recipe:
    """Size, rate, length and settings of the whole film; what the board leaves open is the model's default."""
    return fill(
        Request(
            width=board.width,
            height=board.height,
            seconds=board.seconds,
            fps=board.fps,
            steps=board.steps,
            guidance=board.guidance,
            seed=board.seed,
            negative=board.negative,
            sampler=board.sampler,
        ),
        model.card.defaults,
    )


def settled(model: Model, board: Storyboard, recipe: Recipe) -> Storyboard:
    """The board with nothing left open, its files named by their sha256 too.

    For models that know no leaders, a character is the first frame of its shot.

    Raises InputError for a file that cannot be read or is not the one that the board was made from.
    """
    cards = []
    for card in board.cards:
        name = card.file
        digest = None if name is None else file_sha256(Path(name))
        if card.sha256 is not None and digest != card.sha256:
            raise InputError(
                f"{name} of the card at {card.at:g} s is not the file that the clip was made from; put that back."
            )
        if card.character is not None and not model.card.led:
            card = replace(card, image=card.character, character=None)
        cards.append(replace(card, at=float(card.at), sha256=digest))
    return Storyboard(
        tuple(cards),
        float(board.seconds),
        recipe.width,
        recipe.height,
        recipe.fps,
        recipe.steps,
        recipe.guidance,
        recipe.seed,
        recipe.negative,
        recipe.sampler,
    )


def part_of(model: Model, recipe: Recipe, shot: Shot) -> Recipe:
    """The recipe of a shot, with the lead of its character; a shot of words alone has candidates."""
    first = shot.cards[0]
    part = replace(
        recipe, frames=shot.stop - shot.start, prompt=first.told, expanded_prompt=first.told, candidates=1
    )
    if first.character is not None:
        part = led(model, replace(part, references=(Reference(first.character, first.sha256),)))
    if len(shot.cards) == 1 and first.image is None and first.clip is None:
        part = replace(part, candidates=usual_candidates(model, part))
    return part


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
    frame0: int,
) -> Tensor:
    """Latents of one shot and its lead, BCTHW, window after window."""
    grid, stride = grid_of(model, part), model.vae.strides[0]
    known: dict[int, Tensor] = {0: conditions.lead(part, grid)} if part.lead else {}
    for card, frames_THWC in cards:
        begin = round(card.at * part.fps) - shot.start
        if frames_THWC is not None:
            begin += part.lead
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
    (part,) = choose(model, [part], on_step, frame0)
    on_step = after_trials(on_step, part)
    share_PT, prompts = shares(shot, grid.frames, stride, part.fps, part.lead)
    spans = windows(mask_BT[0].tolist(), window(model, LEAST), HISTORY)
    for index, span in enumerate(spans):
        told = Condition(latent_BCTHW[:, :, span].clone(), mask_BT[:, span].clone())
        whole = replace(part, frames=1 + stride * (span.stop - span.start - 1), lead=0, references=())
        report = counted(on_step, index, len(spans))
        made_BCTHW = mixed(model, whole, prompts, share_PT[:, span], told, report, frame0 + span.start)
        unknown_B1T11 = ~mask_BT[:, None, span, None, None]
        latent_BCTHW[:, :, span] = torch.where(unknown_B1T11, made_BCTHW, latent_BCTHW[:, :, span])
        mask_BT[:, span] = True
    return latent_BCTHW


def shares(shot: Shot, frames: int, stride: int, fps: float, lead: int = 0) -> tuple[Tensor, list[str]]:
    """How much of each prompt each latent frame is told, (prompts, T) adding up to 1, and the prompts.

    `lead` frames before the shot are told what its beginning is.
    Between the times of two cards the share passes from one to the other in the middle half of the way.
    """
    cards = [card for card in shot.cards if card.prompt] or [shot.cards[0]]
    share_PT = torch.zeros(len(cards), frames)
    for index in range(frames):
        moment = (shot.start + max(0, stride * index - stride / 2 - lead)) / fps
        before = max((place for place, card in enumerate(cards) if card.at <= moment), default=0)
        share_PT[before, index] = 1.0
        if before + 1 < len(cards):
            way = (moment - cards[before].at) / (cards[before + 1].at - cards[before].at)
            passed = min(1.0, max(0.0, 2 * way - 0.5))
            share_PT[before, index], share_PT[before + 1, index] = 1 - passed, passed
    return share_PT, [card.told for card in cards]


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
    model = told_exactly(model, recipe)
    grid = grid_of(model, recipe)

    def fresh(step: int) -> Tensor:
        return address_noise(model, [recipe], grid, frame0 + step * STEP_APART)

    noise_BCTHW, parts = fresh(0), []
    for prompt, share_T in zip(prompts, share_PT):
        if share_T.any():
            text = encode_text(model, [replace(recipe, expanded_prompt=prompt)])
            branches = Branches(model, text, condition, recipe.fps, noise_BCTHW)
            weight_T11 = share_T.to(noise_BCTHW)[:, None, None]
            parts.append((guide_by(model, branches, recipe, condition.unknown), weight_T11))

    def denoise(latent_BCTHW: Tensor, sigma: Tensor) -> Tensor:
        total_BCTHW = torch.zeros_like(latent_BCTHW)
        for estimate, weight_T11 in parts:
            total_BCTHW += weight_T11 * estimate(latent_BCTHW, sigma)
        return total_BCTHW

    sampled = integrate(model, recipe, denoise, fresh, on_step)
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


def shot_key(model: Model, part: Recipe, shot: Shot, frame0: int) -> str:
    """16 hexadecimal digits of what decides the latents of a shot."""
    facts = [model.identity, to_dict(part), to_dict(shot), frame0, str(model.vae.latent_mean.device)]
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:16]
