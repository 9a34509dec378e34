"""Clips made from clips: extend, interpolate, blend, loop, edit, recut, inpaint, restyle.

Most keep the frames of their sources and make others beside or between them: the frames next to the gap are
known to the model as clean latents. `edit`, `restyle` and, within its mask, `inpaint` start from the latents
of the whole clip with noise added.
What is longer than one window of the model is made window after window in latent space, each knowing the
latents of the one before; nothing is decoded and encoded again.

The result has the size and rate of its (first) source. A source with more than 4 times the pixels that the
model draws by default is scaled down to them, its shape kept; one at more than twice the default rate is
brought to it by dropping frames. `Request.width`, `height` and `fps` decide otherwise. Sources of another
shape are scaled to cover the size and cropped.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from mutoscope.diffusion.sampler import OnStep
from mutoscope.errors import InputError
from mutoscope.generation import conditions
from mutoscope.generation.choice import after_trials
from mutoscope.generation.conditions import Condition, onto_grid
from mutoscope.generation.generate import Start, decode, grid_of, record, sample
from mutoscope.generation.inpaint import composite, latent_mask, read_mask
from mutoscope.generation.motion import smoothest, usual_trials
from mutoscope.generation.plan import refuse_what_does_not_fit
from mutoscope.generation.request import (
    FPS,
    FRAMES,
    STRENGTHS,
    Recipe,
    Request,
    Task,
    bridge,
    file_sha256,
    fill,
    join,
    repaint,
)
from mutoscope.generation.windows import counted, window
from mutoscope.models.vae import VAE
from mutoscope.video import Video, fit, fit_frames_rate, read_video, to_frames, to_tensor
from mutoscope.weights.card import Defaults
from mutoscope.weights.store import Model

REDRAWING = ("edit", "recut", "inpaint", "restyle")
"""Verbs whose result is as long as their clip."""

MOST_PIXELS = 4.0
"""A source may have so many times the pixels of the model's default size before it is made smaller."""

FASTEST = 2.0
"""A source may have so many times the model's default rate before it is brought to that rate."""

BEFORE, AFTER = 2, 2
"""Latent frames that are known on either side of a gap, besides the first one, which holds one frame."""

LEAST = 1 + BEFORE + AFTER + 2
"""Latent frames of a window, or more: enough for known ones on both sides and some between."""

BLEND = 0.6
"""Noise level at which a blend starts from the crossfade of its sides. A loop does not: it has one subject, which
has to move back; a crossfade would dissolve it in one place and have it appear in the other."""

FADE = 12
"""Frames over which what is corrected at a seam fades out."""

STILL, MOVED = 16.0, 48.0
"""Levels of 255: what differs by less across a seam is the same thing, what differs by more has moved."""

FIT_PIXELS = 8_000_000
"""Pixels that are scaled at a time."""


def extend(
    model: Model,
    clip: Path,
    request: Request,
    backward: bool = False,
    history_noise: float = 0.0,
    on_step: OnStep | None = None,
) -> Video:
    """The clip and, after it (or before it, `backward`), what comes next: the length that `request` names.

    The frames of the clip come out bit for bit. Raises InputError for a clip of fewer than 5 frames.
    """
    task = Task("extend", str(clip), file_sha256(clip), backward=backward, history_noise=history_noise)
    return carry_out(model, settle(model, request, task), on_step)


def interpolate(
    model: Model, first: Path, second: Path, request: Request, on_step: OnStep | None = None
) -> Video:
    """First clip, a bridge of the length of `request` (the next of 3, 7, 11 ... frames), second clip."""
    return carry_out(model, settle(model, request, join("interpolate", first, second)), on_step)


def blend(model: Model, first: Path, second: Path, request: Request, on_step: OnStep | None = None) -> Video:
    """As `interpolate`, but the bridge starts from a crossfade, so that one subject turns into the other."""
    return carry_out(model, settle(model, request, join("blend", first, second)), on_step)


def loop(model: Model, clip: Path, request: Request, on_step: OnStep | None = None) -> Video:
    """The clip and a bridge from its end back to its start, so that it repeats without a seam."""
    return carry_out(model, settle(model, request, Task("loop", str(clip), file_sha256(clip))), on_step)


def edit(
    model: Model,
    clip: Path,
    request: Request,
    strength: float = STRENGTHS["mild"],
    on_step: OnStep | None = None,
) -> Video:
    """The clip drawn again to the prompt of `request`, from its latents noised to the level `strength`.

    0 gives the clip as the VAE reconstructs it, 1 a new clip. Raises InputError outside 0 to 1.
    """
    task = Task("edit", str(clip), file_sha256(clip), strength=strength)
    return carry_out(model, settle(model, request, task), on_step)


def inpaint(
    model: Model,
    clip: Path,
    request: Request,
    mask: Path,
    strength: float = 1.0,
    on_step: OnStep | None = None,
) -> Video:
    """The clip with what is white in `mask`, a picture or a clip of its size, drawn anew to the prompt.

    Where the mask is black the frames of the clip come out bit for bit; grey mixes the two. `strength` below 1
    starts from what was there. Raises InputError for a mask of another size or length, or all black.
    """
    return carry_out(model, settle(model, request, repaint(clip, mask, strength)), on_step)


def restyle(
    model: Model,
    clip: Path,
    request: Request,
    strength: float = STRENGTHS["strong"],
    on_step: OnStep | None = None,
) -> Video:
    """The clip drawn again with its own prompt, where it carries one, followed by the words of `request`."""
    task = Task("restyle", str(clip), file_sha256(clip), strength=strength)
    return carry_out(model, settle(model, request, task), on_step)


def recut(
    model: Model,
    clip: Path,
    request: Request,
    keep: tuple[float, float],
    on_step: OnStep | None = None,
) -> Video:
    """The clip with only the seconds `keep[0]` to `keep[1]` kept bit for bit; what lies around is made anew."""
    task = Task("recut", str(clip), file_sha256(clip), keep=keep)
    return carry_out(model, settle(model, request, task), on_step)


def settle(model: Model, request: Request, task: Task) -> Recipe:
    """The recipe of a task, as `settled`."""
    return settled(model, request, task)[0]


def settled(model: Model, request: Request, task: Task) -> tuple[Recipe, int]:
    """The recipe of a task: size and rate from its clip, the length of the result, gaps filled.

    Beside it how many frames of the clips stay as they are, with nothing drawn in their places. A request without a
    prompt takes the one in the clip's own recipe, where one clip is continued. Raises InputError for what cannot be
    made of the clips, or does not fit into memory.
    """
    if request.image is not None or request.last_image is not None or request.at:
        raise InputError(
            f"{task.verb} takes clips, no pictures; use generate to begin or end with a picture."
        )
    if task.verb in REDRAWING and (request.frames or request.seconds):
        raise InputError(
            f"{task.verb} keeps the length of its clip; leave frames and seconds out, or extend it."
        )
    source = read_video(task.clip)
    width, height, fps = geometry(source, request, model.card.defaults)
    prompt = request.prompt
    if not prompt and task.verb in ("extend", "loop", "recut", "inpaint"):
        prompt = told_prompt(source)
    if task.verb == "restyle":
        prompt = ", ".join(filter(None, (told_prompt(source).rstrip("."), prompt)))
    joins = task.verb in ("interpolate", "blend", "loop")
    defaults = replace(model.card.defaults, frames=max(1, model.card.defaults.frames - 1))  # whole latents
    asked = replace(request, prompt=prompt, width=width, height=height, fps=fps)
    recipe = replace(fill(asked, defaults), task=task)
    seams = task.verb not in ("edit", "restyle", "inpaint")
    recipe = replace(recipe, candidates=(request.candidates or usual_trials(model, recipe)) if seams else 1)
    stride = model.vae.strides[0]
    longest = 1 + stride * (window(model, LEAST) - 1)
    least = 1 if task.verb in REDRAWING else min(longest, recipe.frames)
    # Before the sources are scaled to such a size.
    refuse_what_does_not_fit(model, replace(recipe, frames=least))
    known = sum(clip.frames for clip in sources(recipe))
    staying = known if seams else 0
    if task.verb == "extend":
        recipe = replace(recipe, frames=known + recipe.frames)
    elif joins:
        recipe = replace(recipe, frames=known + bridge(recipe.frames, stride))
    else:
        recipe = replace(recipe, frames=known)
    if task.verb == "recut":
        start, stop = kept(recipe, known)
        staying = stop - start
    if task.verb == "inpaint":
        read_mask(recipe, known)
    if recipe.frames > FRAMES[1]:
        raise InputError(f"The result would have {recipe.frames} frames; ask for at most {FRAMES[1]} in all.")
    refuse_what_does_not_fit(model, replace(recipe, frames=min(longest, recipe.frames)))
    return recipe, staying


def geometry(source: Video, request: Request, defaults: Defaults) -> tuple[int, int, float]:
    """Width, height and rate of what is made from a clip: the rule at the top of this file."""
    fps = request.fps or (max(FPS[0], source.fps) if source.fps <= FASTEST * defaults.fps else defaults.fps)
    width, height = source.width, source.height
    pixels = defaults.width * defaults.height
    if width * height > MOST_PIXELS * pixels:
        scale = math.sqrt(pixels / (width * height))
        width, height = max(16, round(width * scale)), max(16, round(height * scale))
    return request.width or max(16, width), request.height or max(16, height), fps


def told_prompt(source: Video) -> str:
    """The prompt in a clip's recipe, "" when there is none."""
    recipe = (source.recipe or {}).get("recipe")
    prompt = recipe.get("prompt") if isinstance(recipe, dict) else None
    return prompt if isinstance(prompt, str) else ""


def sources(recipe: Recipe) -> list[Video]:
    """The clips of a recipe's task at its size and rate. Raises InputError when a file is not what it was."""
    assert recipe.task is not None
    task, clips = recipe.task, []
    for path, sha256 in ((task.clip, task.clip_sha256), (task.second, task.second_sha256)):
        if path is None:
            continue
        if file_sha256(Path(path)) != sha256:
            raise InputError(
                f"The clip {path!r} is not the one of the recipe; its sha256 should be {sha256}."
            )
        given = read_video(path)
        clip = fit_frames_rate(given, recipe.fps)
        shortest = 1 if task.verb in REDRAWING else 5
        if clip.frames < shortest:
            longer = "take a longer clip, or generate --image for a picture"
            remedy = longer if given.frames < shortest else "take a longer clip, or more fps"
            raise InputError(
                f"{path} has {clip.frames} frame{'s' * (clip.frames != 1)} at {recipe.fps:g} fps; {task.verb} needs "
                f"{shortest} to see how it moves: {remedy}."
            )
        clips.append(replace(clip, frames_THWC=fitted(clip.frames_THWC, recipe.width, recipe.height)))
    return clips


def fitted(frames_THWC: np.ndarray, width: int, height: int) -> np.ndarray:
    """Frames scaled to cover the size and cropped; the very same ones when they have it."""
    if frames_THWC.shape[1:3] == (height, width):
        return frames_THWC
    step = max(1, FIT_PIXELS // math.prod(frames_THWC.shape[1:3]))
    pieces = (frames_THWC[start : start + step] for start in range(0, len(frames_THWC), step))
    return np.concatenate([to_frames(fit(to_tensor(piece)[None], height, width)[0]) for piece in pieces])


@torch.inference_mode()
def carry_out(model: Model, recipe: Recipe, on_step: OnStep | None = None) -> Video:
    """Make what a settled recipe with a task says; the same recipe gives the same bytes.

    Raises KeyboardInterrupt on Ctrl-C, or when `on_step` returns False: half a task is no clip.
    """
    assert recipe.task is not None
    task = recipe.task
    clip, *others = (source.frames_THWC for source in sources(recipe))
    new = recipe.frames - len(clip) - sum(map(len, others))
    if task.verb == "extend":
        made = gap(
            model, recipe, None if task.backward else clip, clip if task.backward else None, new, on_step
        )
        pieces = [made, clip] if task.backward else [clip, made]
    elif task.verb == "inpaint":
        mask_THW = read_mask(recipe, len(clip))
        made = redrawn(model, recipe, clip, on_step, mask_THW)
        pieces = [composite(clip, made, mask_THW)]
    elif task.verb in ("edit", "restyle"):
        pieces = [redrawn(model, recipe, clip, on_step)]
    elif task.verb == "recut":
        start, stop = kept(recipe, len(clip))
        part = clip[start:stop]
        pieces = [part]
        if start:
            pieces.insert(0, gap(model, recipe, None, part, start, on_step))
        if stop < len(clip):
            pieces.append(gap(model, recipe, part, None, len(clip) - stop, on_step))
    else:
        second = others[0] if others else clip
        pieces = [clip, gap(model, recipe, clip, second, new, on_step), *others]
    return Video(np.concatenate(pieces), recipe.fps, record(model, recipe))


def kept(recipe: Recipe, frames: int) -> tuple[int, int]:
    """First frame and the one after the last that a recut keeps. Raises InputError for nothing, or for all."""
    assert recipe.task is not None
    assert recipe.task.keep is not None
    start, stop = (round(second * recipe.fps) for second in recipe.task.keep)
    part = f"{recipe.task.keep[0]:g}-{recipe.task.keep[1]:g}"
    if stop > frames or stop - start < 5:
        raise InputError(
            f"The part {part} s of a clip of {frames / recipe.fps:g} s cannot be kept; "
            f"name at least 5 frames ({5 / recipe.fps:.2g} s) inside the clip."
        )
    if start == 0 and stop == frames:
        raise InputError(f"The part {part} s is the whole clip, nothing is left to make; keep less of it.")
    return start, stop


def gap(
    model: Model,
    recipe: Recipe,
    before_THWC: np.ndarray | None,
    after_THWC: np.ndarray | None,
    frames: int,
    on_step: OnStep | None,
) -> np.ndarray:
    """So many new frames after the end of one clip, before the start of another, or between the two.

    The first latent frame of all holds one frame, each other one 4. The first frame of the clip after the gap is
    drawn too, as the last of a latent frame, and the true one takes its place: so the model makes whole latent frames,
    and those that it is told of that clip are encoded behind a frame of it. Between two, `frames` is a `bridge`.
    """
    assert recipe.task is not None
    stride = model.vae.strides[0]
    lead = 0 if before_THWC is None else 1 + min(BEFORE, (len(before_THWC) - 1) // stride)
    follow = 0 if after_THWC is None else min(AFTER, (len(after_THWC) - 1) // stride)
    drawn = frames + (after_THWC is not None)
    middle = math.ceil(drawn / stride) if lead else 1 + math.ceil((drawn - 1) / stride)
    total = lead + middle + follow
    whole = replace(recipe, frames=1 + stride * (total - 1))
    grid = grid_of(model, whole)
    first = 1 + stride * (lead - 1) if lead else 1 + stride * (middle - 1) - drawn
    known: dict[int, Tensor] = {}
    given: dict[int, np.ndarray] = {}
    if before_THWC is not None:
        given[0] = before_THWC[len(before_THWC) - 1 - stride * (lead - 1) :]
        known[0] = onto_grid(to_tensor(given[0])[None], recipe, grid)
    if after_THWC is not None:
        given[first + frames] = after_THWC[: 1 + stride * follow]
        known[lead + middle] = onto_grid(to_tensor(given[first + frames])[None], recipe, grid)
    condition = conditions.frames(model.vae, grid, known)
    start = None
    if recipe.task.verb == "blend":
        start = Start(crossfade(condition.latent_BCTHW, lead, lead + middle), BLEND)
    condition = replace(condition, sigma=recipe.task.history_noise)
    latent_BCTHW = grow(model, recipe, condition, start, on_step, given, before_THWC is None)
    drawn_THWC = np.concatenate(list(decode(model, whole, latent_BCTHW[0])))
    return seamless(drawn_THWC[first : first + frames], before_THWC, after_THWC)


def seamless(
    made_THWC: np.ndarray, before_THWC: np.ndarray | None, after_THWC: np.ndarray | None
) -> np.ndarray:
    """New frames without the small jump of colour and texture at their seams (uint8 THWC).

    The VAE draws what stands still a little different from how the clip shows it. That difference, taken where
    the frames at a seam are alike, is added to the new ones and fades out over FADE frames. What moves is
    left as it was drawn.
    """
    levels_THWC = made_THWC.astype(np.float32)
    corrected_THWC = levels_THWC.copy()
    for seam_HWC, order in (
        (None if before_THWC is None else before_THWC[-1], slice(None)),
        (None if after_THWC is None else after_THWC[0], slice(None, None, -1)),
    ):
        if seam_HWC is None:
            continue
        ordered_THWC, target_THWC = levels_THWC[order], corrected_THWC[order]
        difference_HWC = seam_HWC - ordered_THWC[0]
        difference_HWC = difference_HWC * alike(difference_HWC)
        for index in range(min(FADE, len(made_THWC))):
            same_HW1 = alike(ordered_THWC[index] - ordered_THWC[0])
            target_THWC[index] += difference_HWC * same_HW1 * (1 - index / min(FADE, len(made_THWC)))
    levels: np.ndarray = np.rint(corrected_THWC.clip(0, 255)).astype(np.uint8)
    return levels


def alike(difference_HWC: np.ndarray) -> np.ndarray:
    """1 where no channel differs by more than STILL levels, 0 where one does by MOVED, (H, W, 1)."""
    most_HW1 = np.abs(difference_HWC).max(axis=-1, keepdims=True)
    share_HW1: np.ndarray = np.clip((MOVED - most_HW1) / (MOVED - STILL), 0, 1)
    return share_HW1


def crossfade(latent_BCTHW: Tensor, start: int, stop: int) -> Tensor:
    """The latents with frames `start` to `stop` faded from the one before to the one after."""
    share_T = torch.linspace(0, 1, stop - start + 2, device=latent_BCTHW.device)[1:-1].to(latent_BCTHW)
    faded_BCTHW = latent_BCTHW.clone()
    left_BCTHW, right_BCTHW = latent_BCTHW[:, :, start - 1 : start], latent_BCTHW[:, :, stop : stop + 1]
    faded_BCTHW[:, :, start:stop] = torch.lerp(left_BCTHW, right_BCTHW, share_T[:, None, None])
    return faded_BCTHW


def redrawn(
    model: Model,
    recipe: Recipe,
    clip_THWC: np.ndarray,
    on_step: OnStep | None,
    mask_THW: np.ndarray | None = None,
) -> np.ndarray:
    """The clip drawn again from its noised latents, only where `mask_THW` (uint8) is not 0 if there is one."""
    assert recipe.task is not None
    assert recipe.task.strength is not None
    grid = grid_of(model, recipe)
    source_BCTHW = encode_whole(model.vae, onto_grid(to_tensor(clip_THWC)[None], recipe, grid))
    if recipe.task.strength > 0:
        start = Start(source_BCTHW, recipe.task.strength)
        condition = conditions.text(model.vae, grid)
        if mask_THW is not None:
            redraw_BTHW = latent_mask(mask_THW, recipe, grid).to(source_BCTHW.device)
            still_BT = ~redraw_BTHW.flatten(2).any(2)  # wholly kept frames are known to the model
            condition = Condition(source_BCTHW, still_BT, redraw_BTHW=redraw_BTHW)
        source_BCTHW = grow(model, recipe, condition, start, on_step, {})
    return np.concatenate(list(decode(model, recipe, source_BCTHW[0])))


def encode_whole(vae: VAE, video_BCTHW: Tensor) -> Tensor:
    """Latents of a clip of any length, its last frame held until a latent frame is full."""
    missing = (1 - video_BCTHW.shape[2]) % vae.strides[0]
    held_BCTHW = video_BCTHW[:, :, -1:].expand(-1, -1, missing, -1, -1)
    return vae.encode(torch.cat([video_BCTHW, held_BCTHW], dim=2).to(vae.latent_mean))


def grow(
    model: Model,
    recipe: Recipe,
    condition: Condition,
    start: Start | None,
    on_step: OnStep | None,
    given: Mapping[int, np.ndarray],
    backward: bool = False,
) -> Tensor:
    """Latents of any number of frames, made window after window; the known ones come out untouched.

    given: frames of the clip that are shown as they are (see `motion.smoothest`).
    """
    latent_BCTHW, mask_BT = condition.latent_BCTHW.clone(), condition.mask_BT.clone()
    spans = windows(mask_BT[0].tolist(), window(model, LEAST), 1 + BEFORE, backward)
    for index, span in enumerate(spans):
        known = replace(condition, latent_BCTHW=latent_BCTHW[:, :, span], mask_BT=mask_BT[:, span])
        if condition.redraw_BTHW is not None:
            known = replace(known, redraw_BTHW=condition.redraw_BTHW[:, span])
        begin = start and Start(start.latent_BCTHW[:, :, span], start.sigma)
        frames = 1 + model.vae.strides[0] * (span.stop - span.start - 1)
        report = counted(on_step, index, len(spans))
        part = smoothest(model, replace(recipe, frames=frames), known, begin, span.start, report, given)
        sampled = sample(model, [part], after_trials(report, part), known, begin, span.start)
        if sampled.stopped is not None:
            raise KeyboardInterrupt
        fixed = slice(first_that_lasts(span, backward), span.stop)
        known_B1T11 = mask_BT[:, None, span, None, None]
        made_BCTHW = torch.where(known_B1T11, latent_BCTHW[:, :, span], sampled.latent_BCTHW)
        latent_BCTHW[:, :, fixed] = made_BCTHW[:, :, fixed.start - span.start :]
        mask_BT[:, fixed] = True
    return latent_BCTHW


def windows(known: Sequence[bool], longest: int, history: int, backward: bool = False) -> list[slice]:
    """Which latent frames are made together, in order, until all are known.

    Each window holds `history` frames that are known by then, where there are so many. Forward, the first
    unknown frame is next, backward the last. A window that does not begin the clip gives up its first frame
    when it was made as a first one, which holds one frame of video and not four.
    """
    done, spans = list(known), []
    while not all(done):
        if backward:
            last = len(done) - 1 - done[::-1].index(False)
            stop = max(min(len(done), last + 1 + history), min(longest, len(done)))
            span = slice(max(0, stop - longest), stop)
        else:
            begin = max(0, min(done.index(False) - history, len(done) - longest))
            span = slice(begin, min(len(done), begin + longest))
        spans.append(span)
        fixed = range(first_that_lasts(span, backward), span.stop)
        done = [is_known or index in fixed for index, is_known in enumerate(done)]
    return spans


def first_that_lasts(span: slice, backward: bool) -> int:
    """The first frame of a window that stays: backward, the one that began it is made again."""
    start: int = span.start
    return start + 1 if backward and start else start
