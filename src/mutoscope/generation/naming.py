"""Where a clip goes: a file named after its prompt and seed, never over another one."""

import os
import re
from pathlib import Path

from mutoscope.errors import InputError
from mutoscope.generation.request import Recipe
from mutoscope.video import STILLS, STREAMS

SLUG_WORDS = 5
SLUG_CHARACTERS = 80


def check_place(output: Path | None) -> None:
    """Refuse a file (or folder, or the current one) that cannot be written, before any work is done."""
    into_folder = output is not None and output.is_dir()
    folder = Path.cwd() if output is None else output if into_folder else output.parent
    if output is not None and not into_folder and output.suffix.lower() not in (*STREAMS, *STILLS, ".gif"):
        known = " ".join((*STREAMS, ".gif", *STILLS))
        raise InputError(f"The name {str(output)!r} has no ending that can be written; use one of {known}.")
    if not folder.is_dir():
        raise InputError(
            f"There is no folder {str(folder)!r} to write into; make it, or choose another with -o."
        )
    if not os.access(folder, os.W_OK):
        raise InputError(f"The folder {str(folder)!r} cannot be written; choose another place with -o.")


def name_clip(output: Path | None, recipe: Recipe, several: bool) -> Path:
    """The file of a clip: `output`, with the seed added if one of several; or five words and the seed.

    A name made from the prompt avoids files that are there; a name that was given does not. Raises InputError
    when a clip of several frames would go into a picture.
    """
    if output is None or output.is_dir():
        words = re.findall(r"\w+", recipe.prompt.lower())[:SLUG_WORDS]
        slug = "-".join(words)[:SLUG_CHARACTERS] or "clip"
        return unused((output or Path()) / f"{slug}-{recipe.seed}.mp4")
    if output.suffix.lower() in STILLS and recipe.frames != 1:
        raise InputError(f"{output} is one picture and the clip has {recipe.frames} frames; add --frames 1.")
    return output.with_stem(f"{output.stem}-{recipe.seed}") if several else output


def unused(path: Path) -> Path:
    """The path, or the first of NAME-2, NAME-3 ... that no file has."""
    number, free = 2, path
    while free.exists():
        free = path.with_stem(f"{path.stem}-{number}")
        number += 1
    return free
