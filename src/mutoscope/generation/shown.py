"""What models that are shown pictures get beside the latent: masks, latents of what is known, CLIP's tokens.

Our own models, and Wan's TI2V, take known frames in their place (see `conditions`). Wan's image-to-video and VACE
models make every frame anew and look at the known ones in channels of their own.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional

from mutoscope.diffusion.fixed_shift import FixedShift
from mutoscope.diffusion.guidance import Branches, Guidance, guide, zero_level
from mutoscope.diffusion.process import Process
from mutoscope.diffusion.sampler import Denoise
from mutoscope.diffusion.step_cache import StepCache
from mutoscope.errors import InputError
from mutoscope.generation.conditions import Condition, key_place, picture, still
from mutoscope.generation.request import Grid, Recipe, Request, cover
from mutoscope.models.dit import TextCache
from mutoscope.models.experts import Experts, ExpertsCache
from mutoscope.models.layers import Layout, join, split
from mutoscope.models.vace import VaceDiT
from mutoscope.models.vae import VAE
from mutoscope.models.wan_image import ImageDiT
from mutoscope.weights.store import Model


@dataclass(frozen=True)
class Known:
    """A clip of which some is known: video (B, 3, frames, H, W) in [-1, 1], and where that is.

    known_B1THW: bool; of one row and column when whole frames are known.
    """

    video_BCTHW: Tensor
    known_B1THW: Tensor

    @property
    def known_BT(self) -> Tensor:
        """The frames that are known as a whole."""
        return self.known_B1THW[:, 0].flatten(2).all(2)


@dataclass(frozen=True)
class Shown:
    """Channels for every step (B, C, T, H, W), and the tokens of the pictures for models with CLIP.

    references: so many latent frames in front of the clip are pictures of what it shows; they are drawn and dropped.
    """

    channels_BCTHW: Tensor
    image_BLD: Tensor | None = None
    references: int = 0


HELD = 2
"""Latent frames that a reference is held for, after the first. Training shows it once; held, it is kept better."""

FADED = 1
"""Frames behind a leader that are not shown either: the VAE mixes the first with the grey (28.9 dB, later ones 32)."""


def introduced(model: Model, request: Request) -> Request:
    """The request with its character as a reference, or as the first frame for models that know no references."""
    if request.character is None:
        return request
    dit: nn.Module = one_of(model.dit)
    if isinstance(dit, VaceDiT) or model.card.led:
        return replace(request, character=None, references=(request.character,))
    return replace(request, character=None, image=request.character)


def led(model: Model, recipe: Recipe) -> Recipe:
    """The recipe with the lead of its reference, for models that are shown it before the clip (see `video.leader`).

    Raises InputError for several references, or other pictures beside it.
    """
    if not recipe.references or not model.card.led:
        return recipe
    if len(recipe.references) > 1:
        raise InputError(
            f"{model.card.name} looks at one reference picture, and {len(recipe.references)} are given; leave one."
        )
    if recipe.image or recipe.last_image or recipe.at:
        raise InputError(
            f"{model.card.name} takes a reference picture or frames of the clip; leave one of them out."
        )
    return replace(recipe, lead=1 + (HELD + 1) * model.vae.strides[0] + FADED)


def shown(model: Model, recipes: Sequence[Recipe], grid: Grid, condition: Condition | None) -> Shown | None:
    """What this model is shown of the pictures of the recipes, or of a condition; None when it takes frames.

    Raises InputError when the model needs a picture that is missing, or has no way to see the ones that are there.
    """
    dit: nn.Module = one_of(model.dit)
    if recipes[0].references and not recipes[0].lead and not isinstance(dit, VaceDiT):
        raise InputError(
            f"{model.card.name} looks at no reference pictures here; take Wan's VACE, or --image."
        )
    if not isinstance(dit, ImageDiT | VaceDiT):
        refuse_pictures(model, recipes, condition)
        return None
    parts = [of_recipe(recipe, grid) for recipe in recipes]
    known = Known(
        torch.cat([part.video_BCTHW for part in parts]), torch.cat([part.known_B1THW for part in parts])
    )
    if condition is not None:
        known = of_condition(model.vae, condition)
    known = Known(
        known.video_BCTHW.to(model.vae.latent_mean), known.known_B1THW.to(model.vae.latent_mean.device)
    )
    if isinstance(dit, VaceDiT):
        replaced_B1THW = (~known.known_B1THW).to(known.video_BCTHW)
        control_BCTHW = control(model.vae, known.video_BCTHW, replaced_B1THW)
        before_BCTHW = [references_of(model.vae, recipe, grid, control_BCTHW) for recipe in recipes]
        count = before_BCTHW[0].shape[2]
        return Shown(torch.cat([torch.cat(before_BCTHW), control_BCTHW], dim=2), references=count)
    both = dit.image_config.image_tokens is not None
    needed = [0, -1] if both else [0]
    if not all(bool(known.known_BT[:, place].all()) for place in needed):
        options = "--image and --last-image" if both else "--image"
        raise InputError(f"{model.card.name} makes videos of pictures; give it {options}.")
    if recipes[0].at:
        raise InputError(
            f"{model.card.name} takes no pictures at other times; give them to Wan's VACE or TI2V."
        )
    image_BLD = None
    if model.read_picture_encoder is not None:
        encoder = model.read_picture_encoder()
        image_BLD = torch.cat([encoder(known.video_BCTHW[:, :, place]) for place in needed], dim=1)
    return Shown(beside(model.vae, known), image_BLD)


def refuse_pictures(model: Model, recipes: Sequence[Recipe], condition: Condition | None) -> None:
    """Raise InputError when a model that was trained on prompts alone is given known frames."""
    if sees_frames(model):
        return
    given = any(recipe.image or recipe.last_image or recipe.at for recipe in recipes)
    if given or (condition is not None and bool(condition.mask_BT.any())):
        raise InputError(
            f"{model.card.name} makes clips of prompts alone; take Wan's TI2V, I2V, FLF2V or VACE for pictures."
        )


def sees_frames(model: Model) -> bool:
    """Whether a model can be told frames of its clip, in their place or beside."""
    dit: nn.Module = one_of(model.dit)
    trained = not isinstance(model.process, FixedShift) or model.process.known_frames
    return trained or isinstance(dit, ImageDiT | VaceDiT)


def of_recipe(recipe: Recipe, grid: Grid) -> Known:
    """The pictures of a recipe as the first, the last and other frames of a clip that is grey otherwise."""
    frames, rows, columns = grid.pixels
    video_BCTHW = torch.zeros(1, 3, frames, rows, columns)
    known_BT = torch.zeros(1, frames, dtype=torch.bool)
    for frame in recipe.at:
        key_place(recipe, frame, grid)  # inside the clip
    for place, path, sha256 in (
        (0, recipe.image, recipe.image_sha256),
        (-1, recipe.last_image, recipe.last_image_sha256),
        *((round(frame.seconds * recipe.fps), frame.image, frame.sha256) for frame in recipe.at),
    ):
        if path is not None:
            video_BCTHW[:, :, place] = picture(path, sha256, recipe, grid)[:, :, 0]
            known_BT[:, place] = True
    return Known(video_BCTHW, known_BT[:, None, :, None, None])


def of_condition(vae: VAE, condition: Condition) -> Known:
    """The frames, or parts of them, that known latents decode to; all else is grey."""
    known_B1THW, latent_BCTHW = ~condition.unknown, condition.latent_BCTHW
    time, rows, columns = vae.strides
    if condition.redraw_BTHW is None:
        latent_BCTHW = latent_BCTHW * known_B1THW
    else:
        known_B1THW = known_B1THW.repeat_interleave(rows, dim=3).repeat_interleave(columns, dim=4)
    later_B1THW = known_B1THW[:, :, 1:].repeat_interleave(time, dim=2)
    known_B1THW = torch.cat([known_B1THW[:, :, :1], later_B1THW], dim=2)
    return Known(vae.decode(latent_BCTHW) * known_B1THW, known_B1THW)


def beside(vae: VAE, known: Known) -> Tensor:
    """For image-to-video models: which of the frames of each latent frame are known, and the latent of the clip.

    (B, stride + C, T, H, W); the first latent frame holds one frame, which counts for all of its mask.
    """
    latent_BCTHW = vae.encode(known.video_BCTHW * known.known_BT[:, None, :, None, None])
    marks_BT = known.known_BT.to(latent_BCTHW)
    marks_BT = torch.cat([marks_BT[:, :1].expand(-1, vae.strides[0] - 1), marks_BT], dim=1)
    marks_BCT = rearrange(marks_BT, "b (t s) -> b s t", s=vae.strides[0])
    marks_BCTHW = marks_BCT[..., None, None].expand(-1, -1, -1, *latent_BCTHW.shape[3:])
    return torch.cat([marks_BCTHW, latent_BCTHW], dim=1)


def control(vae: VAE, video_BCTHW: Tensor, replaced_B1THW: Tensor) -> Tensor:
    """For VACE: latents of what is kept and of what is to be replaced (1 in the mask), and the mask folded.

    (B, 2 C + rows x columns, T, H, W). replaced: may be of one row and column for whole frames.
    """
    replaced_B1THW = (replaced_B1THW > 0.5).to(video_BCTHW).expand(-1, -1, *video_BCTHW.shape[2:])
    kept_BCTHW = vae.encode(video_BCTHW * (1 - replaced_B1THW))
    other_BCTHW = vae.encode(video_BCTHW * replaced_B1THW)
    _, rows, columns = vae.strides
    pattern = "b 1 t (h r) (w c) -> b (r c) t h w"
    mask_BCTHW = rearrange(replaced_B1THW, pattern, r=rows, c=columns)
    size = kept_BCTHW.shape[2:]
    mask_BCTHW = functional.interpolate(mask_BCTHW, size=size, mode="nearest-exact")
    return torch.cat([kept_BCTHW, other_BCTHW, mask_BCTHW], dim=1)


def references_of(vae: VAE, recipe: Recipe, grid: Grid, like_BCTHW: Tensor) -> Tensor:
    """The control of the frames in front of a clip, (1, channels, references, H, W): pictures that are kept.

    Each is fitted inside the clip's size, on white, by bilinear sampling without a filter, in the order given: as
    Wan's authors do (diffusers puts the last one first).
    """
    _, rows, columns = grid.pixels
    before_BCTHW = like_BCTHW.new_zeros(1, like_BCTHW.shape[1], len(recipe.references), *like_BCTHW.shape[3:])
    for place, reference in enumerate(recipe.references):
        image_B3HW = still(reference.image, reference.sha256).to(like_BCTHW)
        scale = min(rows / image_B3HW.shape[2], columns / image_B3HW.shape[3])
        height, width = (max(1, int(side * scale)) for side in image_B3HW.shape[2:])
        fitted_B3HW = functional.interpolate(image_B3HW, (height, width), mode="bilinear")
        canvas_B3HW = fitted_B3HW.new_ones(1, 3, rows, columns)
        top, left = (rows - height) // 2, (columns - width) // 2
        canvas_B3HW[:, :, top : top + height, left : left + width] = fitted_B3HW
        before_BCTHW[:, : vae.latent_channels, place] = vae.encode(canvas_B3HW[:, :, None])[:, :, 0]
    return before_BCTHW


def cached(
    dit: nn.Module, text_BLD: Tensor, mask_BL: Tensor, given: Shown | None
) -> TextCache | ExpertsCache:
    """What the transformer, of any kind, needs of the texts and of what it is shown; computed once per request."""
    if isinstance(dit, Experts):
        high, low = (cached(expert, text_BLD, mask_BL, given) for expert in (dit.high, dit.low))
        assert isinstance(high, TextCache)
        assert isinstance(low, TextCache)
        return ExpertsCache(high, low)
    if isinstance(dit, ImageDiT) and given is not None:
        return dit.cache_pictures(text_BLD, mask_BL, given.channels_BCTHW, given.image_BLD)
    if isinstance(dit, VaceDiT) and given is not None:
        return dit.cache_control(text_BLD, mask_BL, given.channels_BCTHW)
    plain: TextCache = dit.cache_text(text_BLD, mask_BL)  # type: ignore[operator]
    return plain


def some_texts(cache: TextCache | ExpertsCache, which: slice) -> TextCache | ExpertsCache:
    """What the transformer needs of some of the texts: of the prompts, or of the negative ones that follow them."""
    if isinstance(cache, ExpertsCache):
        high, low = (some_texts(one, which) for one in (cache.high, cache.low))
        assert isinstance(high, TextCache)
        assert isinstance(low, TextCache)
        return ExpertsCache(high, low)

    def rows(row_SD: Tensor) -> Tensor:
        return join([part[which] for part in split(row_SD, cache.layout.groups)])

    layout = Layout(
        tuple((len(range(texts)[which]), tokens) for texts, tokens in cache.layout.groups),
        tuple(None if mask is None else mask[which] for mask in cache.layout.masks),
    )
    return replace(
        cache,
        keys=tuple(map(rows, cache.keys)),
        values=tuple(map(rows, cache.values)),
        pooled_BD=None if cache.pooled_BD is None else cache.pooled_BD[which],
        layout=layout,
    )


def guide_by(model: Model, branches: Branches, recipe: Recipe, unknown_B1THW: Tensor) -> Denoise:
    """The denoiser of a run as the recipe says: guided, and asking the model no more often than its step cache does.

    Of two experts each has a guidance and a cache of its own; the scale of the one for low noise goes with the other.
    """
    grid = cover(recipe, model.vae.strides, model.dit.config.patch)
    tokens = grid.frames * grid.height * grid.width // math.prod(model.dit.config.patch)
    zero_from = zero_level(levels(model.process, recipe, tokens))

    def guided_by(scale: float) -> Denoise:
        guidance = Guidance(
            scale, recipe.guidance_rescale, recipe.guidance_interval, recipe.guidance_kind, zero_from
        )
        asked = branches
        if recipe.step_cache:
            asked = StepCache(branches, model.process, recipe.step_cache)
        return guide(asked, guidance, model.process, unknown_B1THW)

    high, dit = guided_by(recipe.guidance), experts_of(model.dit)
    if dit is None:
        return high
    low = guided_by(1 + (recipe.guidance - 1) * dit.low_share)

    def denoise(latent_BCTHW: Tensor, sigma: Tensor) -> Tensor:
        noisy = dit.noisy(float(model.process.timestep(sigma)))
        return high(latent_BCTHW, sigma) if noisy else low(latent_BCTHW, sigma)

    return denoise


def levels(process: Process, recipe: Recipe, tokens: int) -> Tensor:
    """The noise levels of a run (steps + 1,), falling to 0: those of the recipe, or of the process."""
    if not recipe.sigmas:
        return process.sigmas(recipe.steps, tokens)
    given = torch.tensor([*recipe.sigmas, 0.0], dtype=torch.float64)
    return given.clamp(max=process.sigma_max)


def experts_of(dit: nn.Module) -> Experts | None:
    return dit if isinstance(dit, Experts) else None


def one_of(dit: nn.Module) -> nn.Module:
    """The transformer itself, or one of two experts."""
    return dit.high if isinstance(dit, Experts) else dit
