"""The command line: one function per command, which parses, calls one function and prints.

torch and everything above it are imported inside the commands, so that `--help` and mistakes answer at once.
Exit codes: 0 done, 1 our fault, 2 a mistake in the input, 130 stopped by Ctrl-C (what was made is kept).
"""

import json
import os
import re
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mutoscope import __version__
from mutoscope.errors import InputError

if TYPE_CHECKING:
    from mutoscope.generation.request import Recipe, Request
    from mutoscope.terminal import Say
    from mutoscope.weights.store import Model

SLUG_WORDS = 5

app = typer.Typer(
    name="mutoscope",
    help="Make videos from prompts, and train the models that make them.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)

Clip = Annotated[Path, typer.Argument(metavar="FILE", help="A video that Mutoscope made.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object per clip, on one line.")]
ModelName = Annotated[str, typer.Option("-m", "--model", metavar="MODEL", help="A name, or a model folder.")]
Output = Annotated[Path | None, typer.Option("-o", "--output", metavar="FILE", help="Where to write it.")]
Quiet = Annotated[bool, typer.Option("-q", "--quiet", help="Print nothing but the path.")]
Size = Annotated[str | None, typer.Option("--size", metavar="WxH", help="Pixels, for example 64x64.")]


@app.command()
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
    no_expand: Annotated[
        bool,
        typer.Option("--no-expand", help="Take the prompt word for word (the built-in model always does)."),
    ] = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Make a clip from a prompt."""
    from mutoscope.generation.request import Request, parse_size
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
    )
    if not request.prompt and image is None and last_image is None:
        raise InputError('The prompt is empty; say what is to be seen, for example "a red ball rolls".')
    if not 1 <= count <= 1000:
        raise InputError(f"-n is {count}; ask for 1 to 1000 clips.")
    check_output(output)
    say = Say(as_json, quiet)
    loaded = open_model(model, say)
    tell_what_is_not_understood(loaded, request.prompt, say)
    for _ in range(count):
        recipe = make(loaded, request, output, count > 1, say)
        request = replace(request, seed=recipe.seed + 1)


def make(model: "Model", request: "Request", output: Path | None, several: bool, say: "Say") -> "Recipe":
    """One clip: announce it, make it, tell what came of it. Raises typer.Exit(130) after Ctrl-C."""
    from mutoscope.generation.generate import resolve, save
    from mutoscope.generation.request import file_sha256
    from mutoscope.terminal import Progress

    recipe = resolve(model, request)
    path = name_output(output, recipe, several)
    announce(model, recipe, say)
    replaces = path.exists()
    start = time.perf_counter()
    with Progress(say, model.vae) as progress:
        recipe = save(model, recipe, path, progress)
    took = time.perf_counter() - start
    line = {
        "path": str(path),
        "sha256": file_sha256(path),
        "seed": recipe.seed,
        "model": model.card.name,
        "size": recipe.size,
        "frames": recipe.frames,
        "fps": recipe.fps,
        "steps": recipe.steps,
        "guidance": recipe.guidance,
        "sampler": recipe.sampler,
        "prompt": recipe.prompt,
        "expanded_prompt": recipe.expanded_prompt,
        "took_s": round(took, 3),
    }
    say.result(path, line)
    if recipe.stopped is not None:
        say.note("stopped", f"after step {recipe.stopped} of {recipe.steps}; the clip so far is in {path}")
        raise typer.Exit(130)
    was_there = ", in place of the file that was there" if replaces else ""
    say.note("saved", f"{path} in {took:.1f} s (seed {recipe.seed}, recipe inside{was_there})")
    return recipe


def announce(model: "Model", recipe: "Recipe", say: "Say") -> None:
    """What was decided for a clip, and what it will cost."""
    from mutoscope.generation.generate import grid_of
    from mutoscope.generation.plan import gibibytes, plan, seconds

    if not say.for_people:
        return
    cost = plan(model, recipe)
    frames, height, width = grid_of(model, recipe).pixels
    made = (frames, height, width) != (recipe.frames, recipe.height, recipe.width)
    say.note("prompt", recipe.expanded_prompt or "(none)")
    if recipe.negative:
        say.note("avoid", recipe.negative)
    say.note(
        "plan",
        f"{recipe.size}, {recipe.frames} frames at {recipe.fps:g} fps ({recipe.seconds:.1f} s)"
        + (f", made as {width}x{height} with {frames} frames and cropped" if made else "")
        + f"; {recipe.steps} steps of {recipe.sampler}, guidance {recipe.guidance:g}, seed {recipe.seed}; "
        f"about {duration(seconds(cost))}, {gibibytes(cost.memory)}",
    )


@app.command()
def info(
    file: Clip, as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False
) -> None:
    """Show what a clip is, and the recipe inside."""
    from mutoscope.terminal import Say
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


@app.command()
def reproduce(
    file: Clip,
    output: Output = None,
    model: Annotated[
        str | None, typer.Option("-m", "--model", help="The model's folder, if it has no name here.")
    ] = None,
    quiet: Quiet = False,
) -> None:
    """Make a clip again from the recipe inside, and compare the bytes."""
    from mutoscope.generation.reproduce import differences, read_record, remake
    from mutoscope.terminal import Progress, Say

    made = read_record(file)
    check_output(output)
    say = Say(quiet=quiet)
    loaded = open_model(model or made.model.name, say)
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


def open_model(name: str, say: "Say") -> "Model":
    """Load a model and say which it is and where it runs."""
    import torch

    from mutoscope.weights.store import load

    model = load(name)
    weight = model.vae.latent_mean
    parameters = sum(
        p.numel() for part in (model.vae, model.dit, model.text.encoder) for p in part.parameters()
    )
    say.note(
        "model",
        f"{model.card.name}, {parameters / 1e6:.1f} M parameters, on {weight.device}, "
        f"{str(weight.dtype).removeprefix('torch.')}, {torch.get_num_threads()} threads",
    )
    return model


def check_output(output: Path | None) -> None:
    """Refuse a place that cannot be written before any work is done."""
    from mutoscope.video import STILLS, STREAMS

    folder = Path.cwd() if output is None else output if output.is_dir() else output.parent
    if (
        output is not None
        and not output.is_dir()
        and output.suffix.lower() not in (*STREAMS, *STILLS, ".gif")
    ):
        known = " ".join((*STREAMS, ".gif", *STILLS))
        raise InputError(f"The name {str(output)!r} has no known ending; use one of {known}.")
    if not folder.is_dir():
        raise InputError(
            f"There is no folder {str(folder)!r} to write into; make it, or choose another with -o."
        )
    if not os.access(folder, os.W_OK):
        raise InputError(f"The folder {str(folder)!r} cannot be written; choose another place with -o.")


def name_output(output: Path | None, recipe: "Recipe", several: bool) -> Path:
    """Where a clip goes: FILE, FILE with the seed when there are several, or prompt and seed in a folder."""
    if output is None or output.is_dir():
        words = re.findall(r"\w+", recipe.prompt.lower())[:SLUG_WORDS]
        name = "-".join(words)[:80] or "clip"
        return unused((output or Path()) / f"{name}-{recipe.seed}.mp4")
    return output.with_stem(f"{output.stem}-{recipe.seed}") if several else output


def unused(path: Path) -> Path:
    """The path, or the first of NAME-2, NAME-3 ... that no file has."""
    number, free = 2, path
    while free.exists():
        free = path.with_stem(f"{path.stem}-{number}")
        number += 1
    return free


def duration(seconds: float) -> str:
    """Seconds for people: "3 s", "2 min", "1.5 h"."""
    if seconds < 90:
        return f"{max(seconds, 1):.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def flat(table: dict[str, Any]) -> dict[str, object]:
    """A table of tables as one: inner keys alone, those without a value left out."""
    rows: dict[str, object] = {}
    for key, value in table.items():
        if isinstance(value, dict):
            rows.update({f"{key} {k}" if k in rows else k: v for k, v in flat(value).items()})
        elif value not in (None, ""):
            rows[key] = value
    return rows


def main() -> None:
    """Run the command line; every failure is one sentence on stderr and an exit code."""
    try:
        code = app(standalone_mode=False)
    except InputError as error:
        code = complain(str(error), 2)
    except typer.TyperException as error:
        code = complain(usage(error), 2)
    except (KeyboardInterrupt, typer.Abort):
        code = complain("Stopped; nothing was written.", 130)
    except BrokenPipeError:  # the reader of our output went away, e.g. `| head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 1
    except Exception as error:
        if os.environ.get("MUTOSCOPE_DEBUG") == "1":
            raise
        code = complain(
            f"Mutoscope failed: {type(error).__name__}: {' '.join(str(error).split())[:300]}. This is our fault; "
            "please report it with the output of the same command after `export MUTOSCOPE_DEBUG=1`.",
            1,
        )
    sys.exit(code)


def complain(sentence: str, code: int) -> int:
    print(sentence, file=sys.stderr)
    return code


def usage(error: typer.TyperException) -> str:
    """A mistake in the options, as one sentence with its remedy."""
    sentence = " ".join(error.format_message().split()).rstrip(".")
    if "unexpected extra argument" in sentence:
        return f"{sentence}; put a prompt of several words in quotes."
    return f"{sentence}; see `mutoscope --help`, or `--help` after a command."


if __name__ == "__main__":
    main()
