"""The verbs that make clips: generate, and all that start from a clip."""

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mutoscope.commands.drawing import Drawing, Framing, Making, make_from_clips, need_words, spread
from mutoscope.commands.expanding import check_expander, expanded
from mutoscope.commands.options import (
    Clip,
    Expander,
    Loras,
    Output,
    Prompt,
    Quiet,
    Second,
    Seconds,
    Source,
    Unmatched,
    Words,
)
from mutoscope.errors import InputError

if TYPE_CHECKING:
    from mutoscope.terminal import Say
    from mutoscope.weights.store import Model


@spread
def generate(
    prompt: Words,
    *,
    making: Making,
    framing: Framing,
    drawing: Drawing,
    count: Annotated[
        int, typer.Option("-n", "--count", metavar="N", help="How many clips, the seed rising by one.")
    ] = 1,
    candidates: Annotated[
        int | None,
        typer.Option(
            "--candidates",
            metavar="N",
            help="Noises to try for it; the captioner keeps the best; 1 for none.",
        ),
    ] = None,
    no_expand: Annotated[
        bool,
        typer.Option("--no-expand", help="Take the prompt word for word."),
    ] = False,
    expander: Expander = "offline",
    lora: Loras = None,
    allow_unmatched: Unmatched = False,
    stream: Annotated[
        bool, typer.Option("--stream", help="Write an MP4 that can be watched while it grows.")
    ] = False,
) -> None:
    """Make a clip from a prompt.

    mutoscope generate "a red ball rolls to the right" --seed 2 -o ball.mp4
    """
    from mutoscope.generation.naming import check_place
    from mutoscope.terminal import Say

    request, output, model = framing.of(drawing.request(prompt)), making.output, making.model
    request = replace(request, candidates=candidates)
    if not (request.image or request.last_image or request.at):
        need_words(request.prompt, "a red ball rolls")
    if not 1 <= count <= 1000:
        raise InputError(f"-n is {count}; ask for 1 to 1000 clips.")
    check_place(output)
    check_expander(expander)
    say = Say(making.as_json, making.quiet)
    if "@" in request.prompt:
        from mutoscope.generation.characters import cast

        request = cast(request)
    if not no_expand:
        request = expanded(request, model, expander, say)
    from mutoscope.making import make, open_model, tell_what_is_not_read  # torch, once nothing is amiss

    loaded = open_model(model, say, making.weights, making.compiled)
    loaded = _with_loras(loaded, lora, say, allow_unmatched)
    if not request.sigmas:
        _tell_of_few_steps([model, *(lora or [])], loaded, say)
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


def _with_loras(model: "Model", given: list[str] | None, say: "Say", allow_unmatched: bool) -> "Model":
    """The model with the LoRAs of --lora, told."""
    from mutoscope.weights.lora import parse_lora, with_loras

    if not given:
        return model
    loras = [parse_lora(text) for text in given]
    say.note("lora", ", ".join(f"{path} at {strength:g}" for path, strength in loras))
    return with_loras(model, loras, allow_unmatched)


def _tell_of_few_steps(names: list[str], model: "Model", say: "Say") -> None:
    """Say when the name of a LoRA or of a model is that of a distilled one and nothing else says so."""
    from mutoscope.weights.few_steps import preset_of

    for name in names:
        preset = preset_of(Path(name).name)
        if preset is not None and not model.card.defaults.sigmas:
            say.note(
                "note", f"{Path(name).name} is called as a distilled one; if it is, add --few-steps {preset}"
            )
            return


@spread
def extend(
    clip: Source,
    prompt: Prompt = "",
    *,
    seconds: Seconds = None,
    backward: Annotated[
        bool, typer.Option("--backward", help="Before the clip instead of after it.")
    ] = False,
    history_noise: Annotated[
        float,
        typer.Option(
            metavar="N", help="Noise on the known frames, 0 to 0.5; some makes long clips steadier."
        ),
    ] = 0.0,
    making: Making,
    drawing: Drawing,
) -> None:
    """Go on with a clip, after its end or before its start.

    mutoscope extend ball.mp4 --seconds 2 -o longer.mp4
    """
    from mutoscope.generation.request import Task, file_sha256

    request = drawing.request(prompt, seconds)
    task = Task("extend", str(clip), file_sha256(clip), backward=backward, history_noise=history_noise)
    make_from_clips(request, task, making)


@spread
def interpolate(
    clip: Source,
    second: Second,
    prompt: Prompt = "",
    *,
    seconds: Seconds = None,
    making: Making,
    drawing: Drawing,
) -> None:
    """Lead from the end of one clip to the start of another.

    mutoscope interpolate ball.mp4 box.mp4 --seconds 2 -o both.mp4
    """
    from mutoscope.generation.request import join

    make_from_clips(drawing.request(prompt, seconds), join("interpolate", clip, second), making)


@spread
def blend(
    clip: Source,
    second: Second,
    prompt: Prompt = "",
    *,
    seconds: Seconds = None,
    making: Making,
    drawing: Drawing,
) -> None:
    """Turn what one clip shows into what another shows.

    mutoscope blend ball.mp4 box.mp4 -o morph.mp4
    """
    from mutoscope.generation.request import join

    make_from_clips(drawing.request(prompt, seconds), join("blend", clip, second), making)


@spread
def loop(
    clip: Source,
    prompt: Prompt = "",
    *,
    seconds: Seconds = None,
    making: Making,
    drawing: Drawing,
) -> None:
    """Make a clip that repeats: lead its end back to its start.

    mutoscope loop ball.mp4 -o loop.mp4
    """
    from mutoscope.generation.request import Task, file_sha256

    request = drawing.request(prompt, seconds)
    make_from_clips(request, Task("loop", str(clip), file_sha256(clip)), making)


@spread
def edit(
    clip: Source,
    prompt: Words,
    *,
    strength: Annotated[
        str, typer.Option(metavar="N", help="How much to change: 0 to 1, or subtle, mild or strong.")
    ] = "mild",
    making: Making,
    drawing: Drawing,
) -> None:
    """Draw a clip again to another prompt, near to how it is.

    mutoscope edit ball.mp4 "a blue ball rolls" --strength strong -o blue.mp4
    """
    from mutoscope.generation.request import Task, file_sha256, parse_strength

    request = drawing.request(prompt)
    need_words(request.prompt, "a blue ball rolls")
    task = Task("edit", str(clip), file_sha256(clip), strength=parse_strength(strength))
    make_from_clips(request, task, making)


@spread
def recut(
    clip: Source,
    prompt: Prompt = "",
    *,
    keep: Annotated[str, typer.Option(metavar="FROM-TO", help="Seconds to keep, for example 1.0-2.5.")],
    making: Making,
    drawing: Drawing,
) -> None:
    """Keep a part of a clip; make the rest of it anew.

    mutoscope recut ball.mp4 --keep 0.5-1.5 -o recut.mp4
    """
    from mutoscope.generation.request import Task, file_sha256, parse_keep

    request = drawing.request(prompt)
    task = Task("recut", str(clip), file_sha256(clip), keep=parse_keep(keep))
    make_from_clips(request, task, making)


def info(
    file: Source, as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False
) -> None:
    """Show what a clip is, and the recipe inside if it has one."""
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
        str | None,
        typer.Option("-m", "--model", metavar="MODEL", help="The model's folder, if it has no name here."),
    ] = None,
    lora: Loras = None,
    allow_unmatched: Unmatched = False,
    quiet: Quiet = False,
) -> None:
    """Make a clip again from the recipe inside; compare the bytes."""
    from mutoscope.generation.naming import check_place, unused
    from mutoscope.generation.reproduce import differences, read_record, remake
    from mutoscope.making import open_model
    from mutoscope.terminal import Progress, Say

    made = read_record(file)
    check_place(output)
    say = Say(quiet=quiet)
    loaded = open_model(model or made.model.name, say, made.model.weights, made.machine.compiled)
    loaded = _with_loras(loaded, lora, say, allow_unmatched)
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
