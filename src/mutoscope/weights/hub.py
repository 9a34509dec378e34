"""Models from the Hugging Face hub: what one is and weighs, then its files, resumed where a download stopped."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mutoscope.config import write_json
from mutoscope.errors import InputError
from mutoscope.weights.library import HASHES, library, new_place

WANTED = (".safetensors", ".pth", ".json", ".txt", ".model", ".md", "LICENSE")
OFFLINE = ("MUTOSCOPE_OFFLINE", "HF_HUB_OFFLINE")


@dataclass(frozen=True)
class Listing:
    """A model on the hub at one commit. files: bytes by name. hashes: sha256 by name, of the large ones."""

    repo: str
    commit: str
    licence: str
    files: dict[str, int]
    hashes: dict[str, str]

    @property
    def bytes(self) -> int:
        return sum(self.files.values())


def look(repo: str, hub: Any = None) -> Listing:
    """What a model of the hub is, without its weights. `hub`: None takes huggingface_hub.

    Raises InputError offline, for a name that is none, and when the hub does not give it.
    """
    refuse_offline(repo)
    if repo.count("/") != 1 or not all(repo.split("/")):
        raise InputError(f"{repo!r} is not the name of a model on the hub; write OWNER/NAME.")
    try:
        info = (hub or _hub()).model_info(repo, files_metadata=True)
    except Exception as error:  # many kinds, of several libraries
        raise InputError(_reason(repo, error)) from error
    told = info.card_data.to_dict() if info.card_data is not None else {}
    wanted = [file for file in info.siblings or [] if file.rfilename.endswith(WANTED)]
    if not any(file.rfilename.endswith(".safetensors") for file in wanted):
        raise InputError(f"{repo} has no safetensors weights; take a copy of the model that has.")
    return Listing(
        repo=repo,
        commit=info.sha,
        licence=str(told.get("license_name") or told.get("license") or "not told"),
        files={file.rfilename: file.size or 0 for file in wanted},
        hashes={file.rfilename: file.lfs.sha256 for file in wanted if file.lfs is not None},
    )


def pull(listing: Listing, name: str | None = None, hub: Any = None) -> Path:
    """Download a model into the library, and resume one that was stopped. Returns its place.

    Half a model has no sha256.json and is therefore none. Raises InputError as `look` does.
    """
    refuse_offline(listing.repo)
    called = name or listing.repo.split("/")[1]
    place = library() / called
    if not (place.is_dir() and (place / ".cache").is_dir() and not (place / HASHES).exists()):
        place = new_place(called)
    place.mkdir(parents=True, exist_ok=True)
    try:
        (hub or _hub()).snapshot_download(
            listing.repo, revision=listing.commit, local_dir=place, allow_patterns=list(listing.files)
        )
    except Exception as error:
        raise InputError(_reason(listing.repo, error)) from error
    lost = sorted(
        file
        for file, size in listing.files.items()
        if not (place / file).is_file() or (size and (place / file).stat().st_size != size)
    )
    if lost:
        raise InputError(f"{place} lacks {', '.join(lost[:5])}; pull it again, it goes on where it stopped.")
    write_json(place / HASHES, listing.hashes)
    return place


def refuse_offline(repo: str) -> None:
    """Raise InputError when the user has said that nothing may be fetched."""
    for variable in OFFLINE:
        if os.environ.get(variable, "").lower() in ("1", "true", "yes", "on"):
            raise InputError(f"{repo} is not fetched because {variable} is set; unset it, or import a copy.")


def _hub() -> Any:
    import huggingface_hub

    return huggingface_hub


def _reason(repo: str, error: Exception) -> str:
    """One sentence for what the hub said."""
    kind = type(error).__name__
    if kind == "GatedRepoError":
        return f"{repo} asks you to accept its licence; do so on its page, then log in with `hf auth login`."
    if kind in ("RepositoryNotFoundError", "HFValidationError"):
        return f"There is no model {repo} on the hub, or it is private; check the name or log in."
    told = " ".join(str(error).split())[:200]
    return f"{repo} could not be fetched ({kind}: {told}); check the connection, a second try goes on."
