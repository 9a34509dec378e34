"""The verbs of models: list, pull, show, import, convert, rm, path, verify."""

import json
import sys
from pathlib import Path
from typing import Annotated, Literal

import typer

from mutoscope.errors import InputError

Named = Annotated[str, typer.Argument(metavar="MODEL", help="A name, or a model folder.")]
NewName = Annotated[
    str | None, typer.Option("--name", metavar="NAME", help="What to call it here; else its own name.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object per model, on one line.")]


def models_list(as_json: AsJson = False) -> None:
    """Name the models that come with the package, and the imported ones."""
    from mutoscope.terminal import Say
    from mutoscope.weights.library import installed, library
    from mutoscope.weights.store import built_in, read_card

    rows: dict[str, str] = {}
    for name in [*built_in(), *installed()]:
        origin = "built in" if name in built_in() else "imported"
        try:
            card = read_card(name)
        except InputError as error:  # one broken model does not hide the others
            rows[name], line = str(error), {"name": name, "error": str(error)}
        else:
            size = f"{card.defaults.width}x{card.defaults.height}"
            rows[name] = f"{size}, {card.licence}, {origin}"
            line = {
                "name": name,
                "size": size,
                "licence": card.licence,
                "origin": origin,
                "sha256": card.sha256,
            }
        if as_json:
            print(json.dumps(line, ensure_ascii=False))
    Say(as_json).note("folder", str(library()))
    if not as_json:
        Say().table(rows or {"none": "no model is built in; train one, or name a model folder with -m"})


def models_show(model: Named, as_json: AsJson = False) -> None:
    """Show what a model says of itself."""
    from mutoscope.config import to_dict
    from mutoscope.terminal import Say, flat
    from mutoscope.weights.store import read_card

    card = to_dict(read_card(model))
    if as_json:
        print(json.dumps(card, ensure_ascii=False))
    else:
        Say().table(flat(card))


def models_path(model: Named) -> None:
    """Print the folder of a model."""
    from mutoscope.weights.library import located
    from mutoscope.weights.store import read_card

    read_card(model)
    print(located(model).resolve())


def models_import(
    source: Annotated[
        Path, typer.Argument(metavar="FOLDER", help="A model folder, ours or Wan's of any layout.")
    ],
    name: NewName = None,
) -> None:
    """Copy a model folder to where models lie, so that -m NAME finds it."""
    from mutoscope.weights.library import import_model

    print(import_model(source, name))


def models_pull(
    repo: Annotated[str, typer.Argument(metavar="OWNER/NAME", help="A model of the Hugging Face hub.")],
    name: NewName = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Accept the size and the licence.")] = False,
) -> None:
    """Download a model; its size and licence are shown first, a stopped download goes on."""
    from mutoscope.terminal import Say
    from mutoscope.weights.hub import look, pull

    listing = look(repo)
    Say().table(
        {
            "model": f"{listing.repo} at {listing.commit[:12]}",
            "licence": listing.licence,
            "size": f"{listing.bytes / 2**30:.2f} GiB in {len(listing.files)} files",
        }
    )
    if not yes and not (sys.stdin.isatty() and typer.confirm("Download it under this licence?")):
        raise InputError(
            f"The licence of {repo} ({listing.licence}) is not accepted; say --yes to accept it."
        )
    print(pull(listing, name))


def models_convert(
    source: Annotated[
        Path, typer.Argument(metavar="MODEL", help="A Wan model of any layout: its name, or its folder.")
    ],
    target: Annotated[Path, typer.Argument(metavar="NEW_FOLDER", help="Where to write it.")],
    layout: Annotated[
        Literal["diffusers", "mutoscope"], typer.Option("--to", help="Whose names the tensors get.")
    ] = "diffusers",
) -> None:
    """Write a Wan model in diffusers' layout or under our names; no bit of a weight changes."""
    from mutoscope.weights.convert import convert

    print(convert(source, target, layout))


def models_rm(
    model: Annotated[str, typer.Argument(metavar="NAME", help="The name of an imported model.")],
) -> None:
    """Delete an imported model."""
    from mutoscope.weights.library import remove

    print(f"Removed {remove(model)}")


def models_verify(model: Named) -> None:
    """Read every byte of a model and compare it with what came."""
    from mutoscope.weights.library import verify

    checked = verify(model)
    told = (
        f"{len(checked)} files are what came" if checked else "its structure is whole, no hashes came with it"
    )
    print(f"{model} is sound: {told}.")
