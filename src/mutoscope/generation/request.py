"""What is asked for: a Request with gaps, and the Recipe in which every gap is filled.

Nothing here needs torch, so that a mistake is told before any weights are read.
"""

import hashlib
import math
import re
import secrets
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, get_args

from mutoscope.errors import InputError
from mutoscope.weights.card import Defaults

RENOISE = "renoise"  # diffusion.sampler.renoise, of distilled models
# With the names of diffusion.sampler.SAMPLERS (a test compares them); listed here to be checked without torch.
SAMPLERS = ("euler", "heun", "ddim", "dpmpp_1", "dpmpp_2m", "dpmpp_3m", "unipc", RENOISE)

# Those of diffusion.guidance.Kind, likewise.
Kind = Literal["cfg", "zero-star", "apg"]
KINDS: tuple[Kind, ...] = get_args(Kind)

SIDES = (16, 8192)
FRAMES = (1, 100_000)
FPS = (0.1, 240.0)
STEPS = (1, 1000)
GUIDANCE = (0.0, 100.0)
SEEDS = (0, 2**63 - 1)
PROMPT_CHARACTERS = 20_000
CANDIDATES = (1, 64)
TRIAL_STEPS = 15  # who is where, and of what shape, is decided by then
MOTION_STEPS = 6  # how fast what is known goes on is
REFERENCES = 8  # each costs as much as a latent frame

STRENGTHS = {"subtle": 0.6, "mild": 0.75, "strong": 0.9}
"""Noise levels from which a clip is drawn again. Of 12 clips told another colour the built-in model recolours 79 % from
0.6, 92 % from 0.75 and all from 0.85; from less, what it half recolours is neither. Another place needs 0.9."""
HISTORY_NOISE = (0.0, 0.5)


@dataclass(frozen=True)
class KeyFrame:
    """A picture that a clip shows at `seconds` from its start; `sha256` of the file is known in a recipe."""

    seconds: float
    image: str
    sha256: str | None = None

    def __post_init__(self) -> None:
        if not (math.isfinite(self.seconds) and self.seconds >= 0):
            raise InputError(f"A key frame stands at {self.seconds:g} s; a time is 0 s or later.")


@dataclass(frozen=True)
class Reference:
    """A picture of who or what is to be seen, without being a frame; `sha256` of the file is known in a recipe."""

    image: str
    sha256: str | None = None


@dataclass(frozen=True)
class Request:
    """One clip that somebody wants; None means the model's own default.

    `width` and `height` are pixels of the result; sizes off the model's grid are rounded up for the model and
    cropped afterwards. The length is `frames`, or `seconds` times `fps` (one frame or more), not both.
    `guidance` is the classifier-free guidance scale, 1 = none. `negative` takes the place of the null text.
    `seed` None draws one; the recipe of the clip tells it. `image` and `last_image` are files whose picture
    becomes the first and the last frame; `at` are pictures at other times. `draft` (width, height) draws the
    clip at that size and enlarges it.
    `expanded` is what the model is given instead of the prompt, None for the prompt itself.
    `guidance_kind`, `guidance_interval` (noise levels between which it acts) and `guidance_rescale` are those of
    `diffusion.guidance`; `step_cache` is the threshold of `diffusion.step_cache`, 0 for none. `references` are
    pictures of what the clip shows, for the models that look at some (VACE). `sigmas` are the noise levels of a
    distilled model (see `weights.few_steps`), falling, without the 0 at the end; so many are its steps.
    `candidates` are the noises that are tried, of which one is kept: of a clip made from nothing by the model's
    captioner (see `generation.choice`), of each window of one that goes on by its motion (see `generation.motion`).
    `character` is a picture of whom the clip is about, which the model is shown as a reference or as its first frame,
    whichever it knows; there are no other pictures then.
    Raises InputError for values outside their range.
    """

    prompt: str = ""
    width: int | None = None
    height: int | None = None
    frames: int | None = None
    fps: float | None = None
    steps: int | None = None
    guidance: float | None = None
    sampler: str | None = None
    seed: int | None = None
    negative: str = ""
    seconds: float | None = None
    image: Path | None = None
    last_image: Path | None = None
    draft: tuple[int, int] | None = None
    expanded: str | None = None
    at: tuple[KeyFrame, ...] = ()
    guidance_kind: Kind = "cfg"
    guidance_interval: tuple[float, float] = (0.0, 1.0)
    guidance_rescale: float = 0.0
    step_cache: float = 0.0
    references: tuple[Path, ...] = ()
    sigmas: tuple[float, ...] = ()
    candidates: int | None = None
    character: Path | None = None

    def __post_init__(self) -> None:
        _check_text("prompt", self.prompt)
        _check_text("expanded prompt", self.expanded or "")
        _check_text("negative prompt", self.negative)
        if self.frames is not None and self.seconds is not None:
            raise InputError(
                f"Both frames ({self.frames}) and seconds ({self.seconds:g}) are given; "
                "a clip has one length, drop one."
            )
        _check_whole("width", self.width, SIDES)
        _check_whole("height", self.height, SIDES)
        _check_whole("frames", self.frames, FRAMES)
        _check_whole("steps", self.steps, STEPS)
        _check_whole("seed", self.seed, SEEDS)
        _check_whole("candidates", self.candidates, CANDIDATES)
        for side, value in zip(("draft width", "draft height"), self.draft or ()):
            _check_whole(side, value, SIDES)
        _check_real("fps", self.fps, FPS)
        _check_real("guidance", self.guidance, GUIDANCE)
        if self.seconds is not None and not (math.isfinite(self.seconds) and self.seconds > 0):
            raise InputError(f"seconds is {self.seconds:g}; a clip lasts more than 0 seconds, for example 2.")
        if self.sampler is not None and self.sampler not in SAMPLERS:
            raise InputError(f"There is no sampler {self.sampler!r}; {suggestion(self.sampler, SAMPLERS)}")
        if self.guidance_kind not in KINDS:
            raise InputError(
                f"There is no guidance kind {self.guidance_kind!r}; {suggestion(self.guidance_kind, KINDS)}"
            )
        low, high = self.guidance_interval
        if not 0 <= low <= high <= 1:
            raise InputError(
                f"The guidance interval {low:g} to {high:g} is not rising within 0 to 1; 0 to 1 is always."
            )
        _check_real("guidance rescale", self.guidance_rescale, (0.0, 1.0))
        _check_real("step cache", self.step_cache, (0.0, 1.0))
        _check_levels(self.sigmas, self.steps)
        if len(self.references) > REFERENCES:
            raise InputError(
                f"There are {len(self.references)} reference pictures; give at most {REFERENCES}."
            )


@dataclass(frozen=True)
class Task:
    """What is done to a clip, or to two, by `generation.continuations`.

    Clips are named by path and by the sha256 of the file. `backward` puts what an extension adds in front.
    `strength` is the noise level, 0 to 1, from which an edit starts. `keep` are the seconds of the clip that a
    recut keeps, from and to. `history_noise` is the noise level at which the model sees the known frames.
    `mask` is a picture or clip, white where an inpainting draws anew.
    Raises InputError for values outside their range.
    """

    verb: Literal["extend", "interpolate", "blend", "loop", "edit", "recut", "inpaint", "restyle"]
    clip: str
    clip_sha256: str
    second: str | None = None
    second_sha256: str | None = None
    backward: bool = False
    strength: float | None = None
    keep: tuple[float, float] | None = None
    history_noise: float = 0.0
    mask: str | None = None
    mask_sha256: str | None = None

    def __post_init__(self) -> None:
        _check_real("strength", self.strength, (0.0, 1.0))
        _check_real("history noise", self.history_noise, HISTORY_NOISE)


@dataclass(frozen=True)
class Recipe:
    """A request with nothing left open: together with the weights it determines every pixel of the clip.

    Images are named by path and by the sha256 of the file. `stopped` is the number of steps after which a
    clip was stopped early, None for a finished one. `task` tells what it was made from, None for nothing. `kept` is
    the candidate that was chosen, of 0 to `candidates` - 1; candidate 0 has the noise of the seed itself. With a task
    each window keeps its own, which are found again when it is carried out again. `lead` frames before the clip are
    for its reference, with models that see it so (see `generation.shown`); they are not part of the clip.
    """

    prompt: str
    expanded_prompt: str
    negative: str
    width: int
    height: int
    frames: int
    fps: float
    steps: int
    guidance: float
    sampler: str
    seed: int
    image: str | None = None
    image_sha256: str | None = None
    last_image: str | None = None
    last_image_sha256: str | None = None
    stopped: int | None = None
    task: Task | None = None
    draft: tuple[int, int] | None = None
    at: tuple[KeyFrame, ...] = ()
    guidance_kind: Kind = "cfg"
    guidance_interval: tuple[float, float] = (0.0, 1.0)
    guidance_rescale: float = 0.0
    step_cache: float = 0.0
    references: tuple[Reference, ...] = ()
    sigmas: tuple[float, ...] = ()
    candidates: int = 1
    kept: int = 0
    lead: int = 0

    @property
    def noise_seed(self) -> int:
        """The seed of the noise: each candidate has its own, which depends on nothing but the seed."""
        if self.kept == 0:
            return self.seed
        digest = hashlib.sha256(f"{self.seed} {self.kept}".encode()).digest()
        return int.from_bytes(digest[:8]) % SEEDS[1]

    @property
    def seconds(self) -> float:
        return self.frames / self.fps

    @property
    def size(self) -> str:
        return f"{self.width}x{self.height}"

    @property
    def trial_steps(self) -> int:
        """Steps in which each candidate is tried: none for a single one, those of a distilled model as they are."""
        if self.candidates == 1:
            return 0
        return self.steps if self.sigmas else min(self.steps, MOTION_STEPS if self.task else TRIAL_STEPS)

    @property
    def manner(self) -> str:
        """How it is guided and sped up, in words."""
        low, high = self.guidance_interval
        words = f"guidance {self.guidance:g}"
        words += f" ({self.guidance_kind})" if self.guidance_kind != "cfg" else ""
        words += f" from noise {high:g} to {low:g}" if (low, high) != (0, 1) else ""
        words += f", rescaled by {self.guidance_rescale:g}" if self.guidance_rescale else ""
        return words + (f", step cache {self.step_cache:g}" if self.step_cache else "")


@dataclass(frozen=True)
class Grid:
    """Latent frames, rows and columns that cover a clip, and how many pixels each covers.

    The first latent frame holds one frame, every other `strides[0]`; axes are multiples of the model's patch.
    """

    frames: int
    height: int
    width: int
    strides: tuple[int, int, int]

    @property
    def pixels(self) -> tuple[int, int, int]:
        """Frames, height and width of the decoded clip before it is cropped."""
        time, rows, columns = self.strides
        return 1 + (self.frames - 1) * time, self.height * rows, self.width * columns


def cover(recipe: Recipe, strides: tuple[int, int, int], patch: tuple[int, int, int]) -> Grid:
    """The smallest grid that holds the clip and its lead: each axis rounded up to whole patches of latents."""
    frames = 1 + _ceil(recipe.lead + recipe.frames - 1, strides[0])
    return Grid(
        frames=_ceil(frames, patch[0]) * patch[0],
        height=_ceil(recipe.height, strides[1] * patch[1]) * patch[1],
        width=_ceil(recipe.width, strides[2] * patch[2]) * patch[2],
        strides=strides,
    )


def fill(request: Request, defaults: Defaults) -> Recipe:
    """The recipe of a request: defaults for what is open, a drawn seed, seconds turned into frames.

    Raises InputError when the length is out of range or an image file cannot be read.
    """
    fps = defaults.fps if request.fps is None else float(request.fps)
    if request.seconds is not None:
        if request.seconds * fps > FRAMES[1]:
            raise InputError(
                f"{request.seconds:g} seconds at {fps:g} fps are {request.seconds * fps:.6g} frames; "
                f"ask for at most {FRAMES[1]} frames."
            )
        frames = max(1, round(request.seconds * fps))
    else:
        frames = defaults.frames if request.frames is None else request.frames
    width = defaults.width if request.width is None else request.width
    height = defaults.height if request.height is None else request.height
    if request.draft is not None and (request.draft[0] > width or request.draft[1] > height):
        raise InputError(
            f"The draft {request.draft[0]}x{request.draft[1]} is larger than the clip, {width}x{height}; "
            "a draft is enlarged: make it smaller, or --size larger."
        )
    sigmas = request.sigmas
    if not sigmas and request.steps in (None, len(defaults.sigmas)):
        sigmas = defaults.sigmas
    return Recipe(
        prompt=request.prompt,
        expanded_prompt=request.prompt if request.expanded is None else request.expanded,
        negative=request.negative or defaults.negative,
        width=width,
        height=height,
        frames=frames,
        fps=fps,
        steps=len(sigmas) or (defaults.steps if request.steps is None else request.steps),
        guidance=defaults.guidance if request.guidance is None else float(request.guidance),
        sampler=defaults.sampler if request.sampler is None else request.sampler,
        seed=secrets.randbelow(1_000_000) if request.seed is None else request.seed,
        image=None if request.image is None else str(request.image),
        image_sha256=None if request.image is None else file_sha256(request.image),
        last_image=None if request.last_image is None else str(request.last_image),
        last_image_sha256=None if request.last_image is None else file_sha256(request.last_image),
        draft=request.draft,
        at=known_files(request.at),
        guidance_kind=request.guidance_kind,
        guidance_interval=request.guidance_interval,
        guidance_rescale=request.guidance_rescale,
        step_cache=request.step_cache,
        references=tuple(Reference(str(path), file_sha256(path)) for path in request.references),
        sigmas=sigmas,
        candidates=request.candidates or 1,
    )


def known_files(at: Sequence[KeyFrame]) -> tuple[KeyFrame, ...]:
    """Key frames with the sha256 of their files, in order. Raises InputError for a file that cannot be read."""
    ordered = sorted(at, key=lambda frame: frame.seconds)
    return tuple(replace(frame, sha256=file_sha256(Path(frame.image))) for frame in ordered)


def request_of(recipe: Recipe) -> Request:
    """The request that leads to this recipe again (hashes, early stop and the choice aside)."""
    return Request(
        prompt=recipe.prompt,
        width=recipe.width,
        height=recipe.height,
        frames=recipe.frames,
        fps=recipe.fps,
        steps=recipe.steps,
        guidance=recipe.guidance,
        sampler=recipe.sampler,
        seed=recipe.seed,
        negative=recipe.negative,
        image=None if recipe.image is None else Path(recipe.image),
        last_image=None if recipe.last_image is None else Path(recipe.last_image),
        draft=recipe.draft,
        at=recipe.at,
        expanded=None if recipe.expanded_prompt == recipe.prompt else recipe.expanded_prompt,
        guidance_kind=recipe.guidance_kind,
        guidance_interval=recipe.guidance_interval,
        guidance_rescale=recipe.guidance_rescale,
        step_cache=recipe.step_cache,
        references=tuple(Path(reference.image) for reference in recipe.references),
        sigmas=recipe.sigmas,
        candidates=recipe.candidates,
    )


def parse_size(text: str) -> tuple[int, int]:
    """Width and height from "WxH". Raises InputError for anything else."""
    parts = text.lower().replace("×", "x").split("x")
    if len(parts) != 2 or not all(re.fullmatch(r"\s*[+-]?\d{1,9}\s*", part) for part in parts):
        raise InputError(f"The size {text!r} is not WIDTHxHEIGHT in pixels; write for example 64x64.")
    width, height = (int(part) for part in parts)
    _check_whole("width", width, SIDES)
    _check_whole("height", height, SIDES)
    return width, height


def join(verb: Literal["interpolate", "blend"], first: Path, second: Path) -> Task:
    """The task of joining two clips. Raises InputError when one cannot be read."""
    return Task(verb, str(first), file_sha256(first), str(second), file_sha256(second))


def bridge(frames: int, stride: int) -> int:
    """The length of a bridge next to so many frames: with the first frame after it, whole latent frames."""
    return stride * max(1, (frames + 1 + stride // 2) // stride) - 1


def repaint(clip: Path, mask: Path, strength: float) -> Task:
    """The task of an inpainting. Raises InputError when a file cannot be read."""
    return Task(
        "inpaint",
        str(clip),
        file_sha256(clip),
        strength=strength,
        mask=str(mask),
        mask_sha256=file_sha256(mask),
    )


def parse_strength(text: str) -> float:
    """A strength from 0 to 1, or one of the names in STRENGTHS. Raises InputError for anything else."""
    if text.lower() in STRENGTHS:
        return STRENGTHS[text.lower()]
    try:
        strength = float(text)
    except ValueError as error:
        names = ", ".join(STRENGTHS)
        raise InputError(f"The strength {text!r} is neither a number from 0 to 1 nor {names}.") from error
    _check_real("strength", strength, (0.0, 1.0))
    return strength


def parse_at(text: str) -> KeyFrame:
    """A key frame from "1.5s=FILE" (the s may be left out). Raises InputError for anything else."""
    time, equals, file = text.partition("=")
    try:
        seconds = float(time.strip().removesuffix("s"))
    except ValueError:
        seconds = math.nan
    if not equals or not file or not math.isfinite(seconds):
        raise InputError(f"The key frame {text!r} is not TIME=FILE; write for example 1.5s=picture.png.")
    return KeyFrame(seconds, file)


def parse_keep(text: str) -> tuple[float, float]:
    """From and to, in seconds, from "1.0-2.5". Raises InputError unless 0 <= from < to."""
    start, _, stop = text.partition("-")
    try:
        keep = float(start), float(stop)
    except ValueError as error:
        raise InputError(
            f"The part {text!r} is not FROM-TO in seconds; write for example 1.0-2.5."
        ) from error
    if not 0 <= keep[0] < keep[1] < math.inf:
        raise InputError(f"The part {text!r} is empty; it runs from one second to a later one, as 1.0-2.5.")
    return keep


def parse_interval(text: str) -> tuple[float, float]:
    """The noise levels of a guidance interval from "0.2-0.9". Raises InputError for anything else."""
    low, dash, high = text.partition("-")
    try:
        interval = float(low), float(high)
    except ValueError:
        interval = math.nan, math.nan
    if not dash or not 0 <= interval[0] <= interval[1] <= 1:
        raise InputError(
            f"The guidance interval {text!r} is not LOW-HIGH, two noise levels from 0 (clean) to 1 (noise); write "
            "for example 0.2-0.9."
        )
    return interval


def suggestion(name: str, known: Sequence[str]) -> str:
    """The end of a sentence about an unknown name: the nearest known one, and all of them."""
    from difflib import get_close_matches  # slow to import, needed only for a mistake

    near = get_close_matches(name.lower(), known, n=1, cutoff=0.5)
    names = ", ".join(known)
    return f"did you mean {near[0]!r}? Known: {names}." if near else f"choose one of {names}."


def file_sha256(path: Path) -> str:
    """Hexadecimal sha256 of a file. Raises InputError when it cannot be read, or has no end."""
    try:
        if path.exists() and not path.is_file() and not path.is_dir():
            raise InputError(f"{path} is not a regular file; give a video or picture file.")
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        reason = error.strerror or str(error)
        raise InputError(
            f"Cannot read {str(path)!r} ({reason}); check the name and the permissions."
        ) from error


def _ceil(value: int, step: int) -> int:
    return -(-value // step)


def _check_text(name: str, text: str) -> None:
    if len(text) > PROMPT_CHARACTERS:
        raise InputError(
            f"The {name} has {len(text)} characters, at most {PROMPT_CHARACTERS} are read; shorten it."
        )
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise InputError(f"The {name} {text!r} is not valid Unicode; retype it in UTF-8.") from error


def _check_levels(sigmas: tuple[float, ...], steps: int | None) -> None:
    if not all(high > low for high, low in zip((1.0001, *sigmas), (*sigmas, 0.0))) or len(sigmas) > STEPS[1]:
        levels = " ".join(f"{sigma:g}" for sigma in sigmas)
        raise InputError(
            f"The noise levels {levels} do not fall from 1 or less to above 0; put them in order."
        )
    if sigmas and steps not in (None, len(sigmas)):
        raise InputError(
            f"There are {len(sigmas)} noise levels and {steps} steps; leave the steps out, the levels are steps."
        )


def _check_whole(name: str, value: int | None, limits: tuple[int, int]) -> None:
    low, high = limits
    if value is None:
        return
    if isinstance(value, bool) or not isinstance(value, int):
        raise InputError(f"{name} is {value!r}; it must be a whole number from {low} to {high}.")
    if not low <= value <= high:
        raise InputError(f"{name} is {value}; choose a whole number from {low} to {high}.")


def _check_real(name: str, value: float | None, limits: tuple[float, float]) -> None:
    low, high = limits
    if value is None:
        return
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise InputError(f"{name} is {value!r}; it must be a number from {low:g} to {high:g}.")
    if not low <= value <= high:  # false for nan too
        raise InputError(f"{name} is {value:g}; choose a number from {low:g} to {high:g}.")
