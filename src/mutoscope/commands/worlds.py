"""The verb of the built-in world."""

from pathlib import Path
from typing import Annotated

import typer

from mutoscope.commands.options import Quiet
from mutoscope.errors import InputError


def world(
    count: Annotated[int, typer.Option("-n", "--count", metavar="N", help="How many clips.")] = 10,
    size: Annotated[str, typer.Option("--size", metavar="WxH", help="Pixels.")] = "128x128",
    frames: Annotated[int, typer.Option(metavar="N", help="Length in frames.")] = 33,
    fps: Annotated[float, typer.Option(metavar="N", help="Frames per second.")] = 8.0,
    seed: Annotated[int, typer.Option(metavar="N", help="Seed of the first scene; they count up.")] = 0,
    mix: Annotated[
        str, typer.Option(help="plain: one or two objects in uniform motion; or everything.")
    ] = "plain",
    output: Annotated[Path, typer.Option("-o", "--output", metavar="DIR", help="Folder to write.")] = Path(
        "world"
    ),
    quiet: Quiet = False,
) -> None:
    """Write clips of the built-in world with true captions."""
    from mutoscope.data.world_clips import write_clips
    from mutoscope.generation.request import Request, parse_size
    from mutoscope.terminal import Say
    from mutoscope.world.scene import EVERYTHING, PLAIN, View

    mixes = {"plain": PLAIN, "everything": EVERYTHING}
    if mix not in mixes:
        raise InputError(f"--mix is {mix!r}; choose {' or '.join(mixes)}.")
    width, height = parse_size(size)
    Request(width=width, height=height, frames=frames, fps=fps, seed=seed)  # for its checks
    if count < 1:
        raise InputError(f"-n is {count}; ask for 1 clip or more.")
    say = Say(quiet=quiet)
    view = View(width, height, frames, fps)
    seeds = range(seed, seed + count)
    write_clips(output, seeds, view, lambda done: say.note("written", f"{done} of {count}"), mixes[mix])
    say.result(output, {})
    say.note("saved", f"{count} clips in {output}, each with a .json of its captions and its truth")
