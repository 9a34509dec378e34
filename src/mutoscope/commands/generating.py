"""The verbs that make clips: generate, and all that start from a clip."""

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mutoscope.commands.expanding import check_expander, expanded
from mutoscope.commands.options import (
    Clip,
    Draft,
    Expander,
    Follow,
    Fps,
    Json,
    Loras,
    ModelName,
    Output,
    Prompt,
    Quiet,
    Second,
    Seconds,
    Seed,
    Size,
    Source,
    Steps,
)
from mutoscope.errors import InputError

if TYPE_CHECKING:
    from mutoscope.generation.request import Request, Task
    from mutoscope.terminal import Say
    from mutoscope.weights.store import Model


def generate(
    prompt: Annotated[str, typer.Argument(help="What is to be seen, in quotes.")],
    output: Output = None,
    model: ModelName = "tiny",
    size: Size = None,
    seconds: Annotated[float | None, typer.Option(help="Length in seconds.")] = None,
    frames: Annotated[int | None, typer.Option(help="Length in frames.")] = None,
    fps: Annotated[float | None, typer.Option(help="Frames per second.")] = None,
    steps: Annotated[int | None, typer.Option(help="Steps of the sampler.")] = None,
    guidance: Annotated[
        float | None, typer.Option(help="How strictly to follow the prompt; 1 = off.")
    ] = None,
    sampler: Annotated[
        str | None, typer.Option(help="euler, heun, ddim, dpmpp_1, dpmpp_2m, dpmpp_3m or unipc.")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Same seed, same clip; drawn when left out.")] = None,
    negative: Annotated[str, typer.Option(metavar="TEXT", help="What is not to be seen.")] = "",
    count: Annotated[int, typer.Option("-n", "--count", help="How many clips, the seed rising by one.")] = 1,
    image: Annotated[
        Path | None, typer.Option(metavar="FILE", help="A picture to begin with: the first frame.")
    ] = None,
    last_image: Annotated[
        Path | None, typer.Option(metavar="FILE", help="A picture to end with: the last frame.")
    ] = None,
    at: Annotated[
        list[str] | None,
        typer.Option(
            metavar="TIME=FILE", help="A picture to show at a time, as 1.5s=a.png; may be repeated."
        ),
    ] = None,
    no_expand: Annotated[
        bool,
        typer.Option("--no-expand", help="Take the prompt word for word."),
    ] = False,
    expander: Expander = "offline",
    lora: Loras = None,
    draft: Draft = None,
    stream: Annotated[
        bool, typer.Option("--stream", help="Write an MP4 that can be watched while it grows.")
    ] = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Make a clip from a prompt."""
    from mutoscope.generation.naming import check_place
    from mutoscope.generation.request import Request, parse_at, parse_size
    from mutoscope.terminal import Say

    width, height = parse_size(size) if size is not None else (None, None)
    request = Request(
        prompt=prompt.strip(),
        width=width,
        height=height,
        frames=frames,
        fps=fps,
        steps=steps,
        guidance=guidance,
        sampler=sampler,
        seed=seed,
        negative=negative.strip(),
        seconds=seconds,
        image=image,
        last_image=last_image,
        at=tuple(parse_at(text) for text in at or ()),
        draft=parse_size(draft) if draft is not None else None,
    )
    if not request.prompt and image is None and last_image is None and not at:
        raise InputError('The prompt is empty; say what is to be seen, for example "a red ball rolls".')
    if not 1 <= count <= 1000:
        raise InputError(f"-n is {count}; ask for 1 to 1000 clips.")
    check_place(output)
    check_expander(expander)
    say = Say(as_json, quiet)
    if "@" in request.prompt:
        from mutoscope.generation.characters import cast

        request = cast(request)
    if not no_expand:
        request = expanded(request, model, expander, say)
    from mutoscope.making import make, open_model, tell_what_is_not_read  # torch, once nothing is amiss

    loaded = _with_loras(open_model(model, say), lora, say)
    tell_what_is_not_read(loaded, request.prompt, say)
    recipe = make(loaded, request, output, count > 1, say, stream)
    for _ in range(count - 1):
        if recipe.stopped is None:
            recipe = make(loaded, replace(request, seed=recipe.seed + 1), output, count > 1, say, stream)
    if recipe.stopped is not None:
        raise typer.Exit(130)
    say.note(
        "next", f"another take: --seed {recipe.seed + 1}; four of them: -n 4; the recipe: mutoscope info FILE"
    )


def _with_loras(model: "Model", given: list[str] | None, say: "Say") -> "Model":
    """The model with the LoRAs of --lora, told."""
    from mutoscope.weights.lora import parse_lora, with_loras

    if not given:
        return model
    loras = [parse_lora(text) for text in given]
    say.note("lora", ", ".join(f"{path} at {strength:g}" for path, strength in loras))
    return with_loras(model, loras)


def extend(
    clip: Source,
    prompt: Prompt = "",
    seconds: Seconds = None,
    backward: Annotated[
        bool, typer.Option("--backward", help="Before the clip instead of after it.")
    ] = False,
    history_noise: Annotated[
        float, typer.Option(help="Noise on the known frames, 0 to 0.5; some makes long clips steadier.")
    ] = 0.0,
    output: Output = None,
    model: ModelName = "tiny",
    size: Size = None,
    fps: Fps = None,
    steps: Steps = None,
    guidance: Follow = None,
    seed: Seed = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Go on with a clip, after its end or before its start."""
    from mutoscope.generation.request import Task, file_sha256

    request = _request(prompt, seconds, size, fps, steps, guidance, seed)
    task = Task("extend", str(clip), file_sha256(clip), backward=backward, history_noise=history_noise)
    _make_from(request, task, output, model, as_json, quiet)


def interpolate(
    clip: Source,
    second: Second,
    prompt: Prompt = "",
    seconds: Seconds = None,
    output: Output = None,
    model: ModelName = "tiny",
    size: Size = None,
    fps: Fps = None,
    steps: Steps = None,
    guidance: Follow = None,
    seed: Seed = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Lead from the end of one clip to the start of another."""
    from mutoscope.generation.request import join

    request = _request(prompt, seconds, size, fps, steps, guidance, seed)
    _make_from(request, join("interpolate", clip, second), output, model, as_json, quiet)


def blend(
    clip: Source,
    second: Second,
    prompt: Prompt = "",
    seconds: Seconds = None,
    output: Output = None,
    model: ModelName = "tiny",
    size: Size = None,
    fps: Fps = None,
    steps: Steps = None,
    guidance: Follow = None,
    seed: Seed = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Turn what one clip shows into what another shows."""
    from mutoscope.generation.request import join

    request = _request(prompt, seconds, size, fps, steps, guidance, seed)
    _make_from(request, join("blend", clip, second), output, model, as_json, quiet)


def loop(
    clip: Source,
    prompt: Prompt = "",
    seconds: Seconds = None,
    output: Output = None,
    model: ModelName = "tiny",
    size: Size = None,
    fps: Fps = None,
    steps: Steps = None,
    guidance: Follow = None,
    seed: Seed = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Lead a clip from its end back to its start, so that it can repeat."""
    from mutoscope.generation.request import Task, file_sha256

    request = _request(prompt, seconds, size, fps, steps, guidance, seed)
    _make_from(request, Task("loop", str(clip), file_sha256(clip)), output, model, as_json, quiet)


def edit(
    clip: Source,
    prompt: Annotated[str, typer.Argument(help="What is to be seen, in quotes.")],
    strength: Annotated[str, typer.Option(help="0 to 1, or subtle, mild or strong.")] = "mild",
    output: Output = None,
    model: ModelName = "tiny",
    size: Size = None,
    fps: Fps = None,
    steps: Steps = None,
    guidance: Follow = None,
    seed: Seed = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Draw a clip again to another prompt, near to how it is."""
    from mutoscope.generation.request import Task, file_sha256, parse_strength

    request = _request(prompt, None, size, fps, steps, guidance, seed)
    if not request.prompt:
        raise InputError('The prompt is empty; say what is to be seen, for example "a blue ball rolls".')
    task = Task("edit", str(clip), file_sha256(clip), strength=parse_strength(strength))
    _make_from(request, task, output, model, as_json, quiet)


def recut(
    clip: Source,
    prompt: Prompt = "",
    *,
    keep: Annotated[str, typer.Option(metavar="FROM-TO", help="Seconds to keep, for example 1.0-2.5.")],
    output: Output = None,
    model: ModelName = "tiny",
    size: Size = None,
    fps: Fps = None,
    steps: Steps = None,
    guidance: Follow = None,
    seed: Seed = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Keep a part of a clip and make what comes before and after anew."""
    from mutoscope.generation.request import Task, file_sha256, parse_keep

    request = _request(prompt, None, size, fps, steps, guidance, seed)
    task = Task("recut", str(clip), file_sha256(clip), keep=parse_keep(keep))
    _make_from(request, task, output, model, as_json, quiet)


def _request(
    prompt: str,
    seconds: float | None,
    size: str | None,
    fps: float | None,
    steps: int | None,
    guidance: float | None,
    seed: int | None,
) -> "Request":
    """What is asked for besides the clips."""
    from mutoscope.generation.request import Request, parse_size

    width, height = parse_size(size) if size is not None else (None, None)
    if "@" in prompt:
        from mutoscope.generation.characters import named

        prompt = named(prompt)[0]  # in words; the clip itself shows who it is
    return Request(prompt.strip(), width, height, None, fps, steps, guidance, seed=seed, seconds=seconds)


def _make_from(
    request: "Request", task: "Task", output: Path | None, model: str, as_json: bool, quiet: bool
) -> None:
    """Make a clip from clips, and say so."""
    from mutoscope.generation.naming import check_place
    from mutoscope.terminal import Say

    check_place(output)
    from mutoscope.making import make_from, open_model, tell_what_is_not_read

    say = Say(as_json, quiet)
    loaded = open_model(model, say)
    tell_what_is_not_read(loaded, request.prompt, say)
    make_from(loaded, request, task, output, say)


def info(
    file: Clip, as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False
) -> None:
    """Show what a clip is, and the recipe inside."""
    from mutoscope.terminal import Say, flat
    from mutoscope.video import read_recipe, read_video

    video, recipe = read_video(file), read_recipe(file)
    facts: dict[str, object] = {
        "path": str(file),
        "size": f"{video.width}x{video.height}",
        "frames": video.frames,
        "fps": round(video.fps, 3),
        "seconds": round(video.seconds, 3),
        "bytes": file.stat().st_size,
    }
    if as_json:
        print(json.dumps({**facts, "recipe": recipe}, ensure_ascii=False))
    elif recipe is None:
        Say().table({**facts, "recipe": "none inside; only files that Mutoscope wrote carry one"})
    else:
        Say().table({**facts, **flat(recipe)})


def reproduce(
    file: Clip,
    output: Output = None,
    model: Annotated[
        str | None, typer.Option("-m", "--model", help="The model's folder, if it has no name here.")
    ] = None,
    lora: Loras = None,
    quiet: Quiet = False,
) -> None:
    """Make a clip again from its recipe; compare the bytes."""
    from mutoscope.generation.naming import check_place, unused
    from mutoscope.generation.reproduce import differences, read_record, remake
    from mutoscope.making import open_model
    from mutoscope.terminal import Progress, Say

    made = read_record(file)
    check_place(output)
    say = Say(quiet=quiet)
    loaded = _with_loras(open_model(model or made.model.name, say), lora, say)
    path = output if output is not None else unused(Path(f"{file.stem}-again{file.suffix}"))
    if path.exists() and path.samefile(file):
        raise InputError(f"{path} is the clip itself; write the new one elsewhere with -o.")
    with Progress(say, loaded.vae) as progress:
        remake(loaded, made, path, progress)
    reasons = differences(loaded, made, file, path)
    if not reasons:
        say.result(path, {})
        say.note("saved", f"{path}: the same bytes as {file}")
        return
    print(f"{path} was made again but its bytes differ: {'; '.join(reasons)}.", file=sys.stderr)
    raise typer.Exit(1)
