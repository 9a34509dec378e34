"""The verb that makes a clip larger."""

from pathlib import Path
from typing import Annotated

import typer

from mutoscope.commands.options import Json, Output, Quiet, Source
from mutoscope.errors import InputError


def upscale(
    clip: Source,
    size: Annotated[str, typer.Option("--size", metavar="WxH", help="Pixels, for example 1920x1080.")],
    output: Output = None,
    model: Annotated[
        str | None,
        typer.Option("-m", "--model", metavar="MODEL", help="The model's folder, if it has no name here."),
    ] = None,
    stream: Annotated[
        bool, typer.Option("--stream", help="Write an MP4 that can be watched while it grows.")
    ] = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Make a clip larger.

    One that Mutoscope made is drawn again from its recipe, with the same seed and composition; of any other the
    frames are enlarged as they are.
    """
    from mutoscope.generation.naming import check_place, unused
    from mutoscope.generation.request import parse_size
    from mutoscope.terminal import Say

    width, height = parse_size(size)
    check_place(output)
    if output is None or output.is_dir():
        output = unused((output or Path()) / f"{clip.stem}-{width}x{height}{_ending(clip)}")
    if output.exists() and output.samefile(clip):
        raise InputError(f"{output} is the clip itself; write the new one elsewhere with -o.")
    from mutoscope.making import make_larger

    recipe = make_larger(clip, width, height, output, model, Say(as_json, quiet), stream)
    if recipe is not None and recipe.stopped is not None:
        raise typer.Exit(130)


def _ending(clip: Path) -> str:
    """The ending of the clip's own name where a clip of its length can be written so, else .mp4."""
    from mutoscope.video import STILLS, STREAMS, read_video

    ending = clip.suffix.lower()
    same = ending in (*STREAMS, ".gif") or (ending in STILLS and read_video(clip).frames == 1)
    return clip.suffix if same else ".mp4"
