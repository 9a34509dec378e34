"""The options of the verbs that draw, each group written once, and the requests that they make."""

import inspect
from collections.abc import Callable
from dataclasses import dataclass, fields, is_dataclass, replace
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_type_hints

import typer

from mutoscope.commands.options import (
    Compile,
    Draft,
    Follow,
    Fps,
    Json,
    ModelName,
    Output,
    Quiet,
    Sampler,
    Seed,
    Size,
    Steps,
    Weights,
)
from mutoscope.errors import InputError

if TYPE_CHECKING:
    from mutoscope.generation.request import Request, Task


@dataclass(frozen=True)
class Drawing:
    """How anything is drawn, from words or from clips."""

    size: Size = None
    fps: Fps = None
    steps: Steps = None
    guidance: Follow = None
    sampler: Sampler = None
    seed: Seed = None
    negative: Annotated[str, typer.Option("--negative", metavar="TEXT", help="What is not to be seen.")] = ""
    guidance_kind: Annotated[
        str, typer.Option("--guidance-kind", metavar="cfg|zero-star|apg", help="In which way to follow it.")
    ] = "cfg"
    guidance_interval: Annotated[
        str,
        typer.Option(
            "--guidance-interval", metavar="LOW-HIGH", help="Noise levels between which to follow it; faster."
        ),
    ] = "0-1"
    guidance_rescale: Annotated[
        float,
        typer.Option(
            "--guidance-rescale", metavar="N", help="0 to 1, against washed-out colours; 0.7 is usual."
        ),
    ] = 0.0
    step_cache: Annotated[
        float,
        typer.Option(
            "--step-cache", metavar="N", help="Faster, less exact: skip steps that change less; 0.05 is mild."
        ),
    ] = 0.0
    few_steps: Annotated[
        str | None,
        typer.Option(
            "--few-steps",
            metavar="lightx2v|fastwan|causvid",
            help="Steps of a distilled model or LoRA; guidance off.",
        ),
    ] = None

    def request(self, prompt: str, seconds: float | None = None) -> "Request":
        """The request of a prompt. Raises InputError for values outside their range."""
        from mutoscope.generation.request import Request, parse_interval, parse_size

        width, height = parse_size(self.size) if self.size is not None else (None, None)
        guidance, sampler = self.guidance, self.sampler
        sigmas: tuple[float, ...] = ()
        if self.few_steps is not None:
            from mutoscope.weights.few_steps import few_steps

            preset = few_steps(self.few_steps)
            sigmas = preset.sigmas
            guidance = 1.0 if guidance is None else guidance
            sampler = preset.sampler if sampler is None else sampler
        return Request(
            prompt=prompt.strip(),
            width=width,
            height=height,
            fps=self.fps,
            steps=self.steps,
            guidance=guidance,
            sampler=sampler,
            seed=self.seed,
            negative=self.negative.strip(),
            seconds=seconds,
            guidance_kind=self.guidance_kind,  # type: ignore[arg-type]  # Request checks the word
            guidance_interval=parse_interval(self.guidance_interval),
            guidance_rescale=self.guidance_rescale,
            step_cache=self.step_cache,
            sigmas=sigmas,
        )


@dataclass(frozen=True)
class Framing:
    """How long a clip from words is, and the pictures that it shows."""

    seconds: Annotated[float | None, typer.Option("--seconds", metavar="N", help="Length in seconds.")] = None
    frames: Annotated[
        int | None, typer.Option("--frames", metavar="N", help="Length in frames instead; 1 is a picture.")
    ] = None
    image: Annotated[
        Path | None,
        typer.Option("--image", metavar="FILE", help="A picture to begin with: the first frame."),
    ] = None
    last_image: Annotated[
        Path | None,
        typer.Option("--last-image", metavar="FILE", help="A picture to end with: the last frame."),
    ] = None
    at: Annotated[
        list[str] | None,
        typer.Option(
            "--at",
            metavar="TIME=FILE",
            help="A picture to show at a time, as 1.5s=a.png; may be given again.",
        ),
    ] = None
    reference: Annotated[
        list[Path] | None,
        typer.Option(
            "--reference",
            metavar="FILE",
            help="A picture of whom the clip is about (VACE: of who or what is seen; may be given again).",
        ),
    ] = None
    draft: Draft = None

    def of(self, request: "Request") -> "Request":
        """The request with this length and these pictures."""
        from mutoscope.generation.request import parse_at, parse_size

        return replace(
            request,
            seconds=self.seconds,
            frames=self.frames,
            image=self.image,
            last_image=self.last_image,
            at=tuple(parse_at(text) for text in self.at or ()),
            references=tuple(self.reference or ()),
            draft=parse_size(self.draft) if self.draft is not None else None,
        )


@dataclass(frozen=True)
class Making:
    """Who makes a clip, where it goes, and what is told of it."""

    output: Output = None
    model: ModelName = "tiny"
    weights: Weights = "exact"
    compiled: Compile = False
    as_json: Json = False
    quiet: Quiet = False


def spread(verb: Callable[..., None]) -> Callable[..., None]:
    """The verb as typer sees it: each of its parameters that is a dataclass becomes one option a field."""
    groups: dict[str, type] = {}
    parameters: list[inspect.Parameter] = []
    for parameter in inspect.signature(verb).parameters.values():
        group = parameter.annotation
        if not isinstance(group, type) or not is_dataclass(group):
            parameters.append(parameter.replace(kind=parameter.KEYWORD_ONLY))
            continue
        groups[parameter.name] = group
        hints = get_type_hints(group, include_extras=True)
        parameters += [
            inspect.Parameter(
                field.name, parameter.KEYWORD_ONLY, default=field.default, annotation=hints[field.name]
            )
            for field in fields(group)
        ]

    @wraps(verb)
    def command(**given: Any) -> None:
        for name, group in groups.items():
            given[name] = group(**{field.name: given.pop(field.name) for field in fields(group)})
        verb(**given)

    command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    return command


def make_from_clips(request: "Request", task: "Task", making: Making) -> None:
    """Make a clip from clips, and say so. A character in the prompt is put in words: the clip shows who it is."""
    from mutoscope.generation.naming import check_place
    from mutoscope.terminal import Say

    if "@" in request.prompt:
        from mutoscope.generation.characters import named

        request = replace(request, prompt=named(request.prompt)[0])
    check_place(making.output)
    from mutoscope.making import make_from, open_model, tell_what_is_not_read

    say = Say(making.as_json, making.quiet)
    loaded = open_model(making.model, say, making.weights, making.compiled)
    tell_what_is_not_read(loaded, request.prompt, say)
    make_from(loaded, request, task, making.output, say)


def need_words(prompt: str, example: str) -> None:
    """Raise InputError when nothing is said."""
    if not prompt:
        raise InputError(f'The prompt is empty; say what is to be seen, for example "{example}".')
