"""The models of this machine by name: those of the package, and a folder of imported and pulled ones.

The folder is $MUTOSCOPE_MODELS, else `mutoscope/models` in the user's data folder. A file sha256.json in a model of
other people's making holds the hash of every file as it came, so that `verify` can tell damage.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from pathlib import Path

from mutoscope.config import write_json
from mutoscope.errors import InputError
from mutoscope.files import replacing_folder

HASHES = "sha256.json"
PACKAGE = Path(__file__).parent
LEFT_OUT = (".pt", ".bin", ".ckpt", ".pkl", ".tmp")


def library() -> Path:
    """The folder of imported models; it need not be there."""
    told = os.environ.get("MUTOSCOPE_MODELS")
    data = os.environ.get("XDG_DATA_HOME") or str(Path.home() / ".local" / "share")
    return Path(told) if told else Path(data) / "mutoscope" / "models"


def installed() -> list[str]:
    """Names of the imported models."""
    folder = library()
    return sorted(path.name for path in folder.iterdir() if is_model(path)) if folder.is_dir() else []


def is_model(folder: Path) -> bool:
    return not folder.name.startswith(".") and (
        (folder / "model.json").is_file() or (folder / HASHES).is_file()
    )


def located(name_or_path: str | Path) -> Path:
    """The folder of a model: built in, imported, or where the path says. It is not looked into."""
    name = str(name_or_path)
    if (PACKAGE / name / "model.json").is_file() and "/" not in name:
        return PACKAGE / name
    if not Path(name).exists() and plain(name) and is_model(library() / name):
        return library() / name
    return Path(name)


def plain(name: str) -> bool:
    """Whether a name is one, and no path."""
    return bool(name) and name == Path(name).name and not name.startswith(".")


def new_place(name: str) -> Path:
    """Where a model of this name will lie. Raises InputError for a name that is none, or taken."""
    if not plain(name):
        raise InputError(f"{name!r} is no name for a model; use letters, digits, dashes and dots.")
    if (PACKAGE / name / "model.json").is_file() or (library() / name).exists():
        raise InputError(f"There is a model {name!r} already; remove it first or choose another --name.")
    return library() / name


def import_model(source: Path, name: str | None = None) -> Path:
    """Copy a model folder into the library, whole or not at all; pickles other than `.pth` are left out.

    Returns its new place. Raises InputError for what is no model, by its headers, and for a name that is taken.
    """
    from mutoscope.weights.store import read_card  # stands on this file

    if not source.is_dir():
        raise InputError(f"{source} is not a folder; give the folder of a model.")
    read_card(source)
    check_structure(source)
    place = new_place(name or source.resolve().name)
    place.parent.mkdir(parents=True, exist_ok=True)
    with replacing_folder(place) as partial:
        shutil.copytree(source, partial, dirs_exist_ok=True, ignore=_left_out)
        if not (source / "model.json").is_file():
            write_json(partial / HASHES, hashes(partial))
    return place


def remove(name: str) -> Path:
    """Delete an imported model. Raises InputError for one that is built in, and for paths."""
    if not plain(name) or not is_model(library() / name):
        if (PACKAGE / name / "model.json").is_file():
            raise InputError(
                f"{name!r} belongs to the package and stays; only imported models can be removed."
            )
        known = ", ".join(installed()) or "none"
        raise InputError(f"There is no imported model {name!r}; imported models: {known}.")
    shutil.rmtree(library() / name)
    return library() / name


def verify(name_or_path: str | Path) -> dict[str, str]:
    """The hash of every file of a model, each compared with what was recorded when it came.

    Raises InputError naming the files that differ or are missing. Without a record only the structure is checked.
    """
    from mutoscope.weights.store import read_card, recorded_files  # stand on this file

    read_card(name_or_path)
    folder = located(name_or_path)
    check_structure(folder)
    recorded = recorded_files(folder)
    found = hashes(folder)
    wrong = sorted(name for name, sha256 in recorded.items() if found.get(name) != sha256)
    if wrong:
        raise InputError(
            f"{folder} is damaged: {', '.join(wrong)} {'are' if len(wrong) > 1 else 'is'} not what came with the "
            "model; get it again."
        )
    return {name: sha256 for name, sha256 in found.items() if name in recorded}


def check_structure(folder: Path) -> None:
    """Raise InputError when tensors of Wan's weights are missing, unexpected or of wrong shapes."""
    if not (folder / "model.json").is_file():
        from mutoscope.weights.wan_folder import check_weights  # stands on this file

        check_weights(folder)


def hashes(folder: Path) -> dict[str, str]:
    """sha256 of every file below a folder, by its path there."""
    found = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.is_file() and name != HASHES and not name.startswith("."):
            with path.open("rb") as file:
                found[name] = hashlib.file_digest(file, "sha256").hexdigest()
    return found


def recorded_hashes(folder: Path) -> dict[str, str]:
    """What sha256.json says; empty when it is not there. Raises InputError when it is damaged."""
    path = folder / HASHES
    if not path.is_file():
        return {}
    try:
        return {str(name): str(sha256) for name, sha256 in json.loads(path.read_text("utf-8")).items()}
    except (ValueError, AttributeError) as error:
        raise InputError(f"{path} is not a table of JSON; import the model again.") from error


def _left_out(_: str, names: list[str]) -> list[str]:
    return [name for name in names if name.startswith(".") or name.endswith(LEFT_OUT) or name == HASHES]
