"""What a backend serves: asked when the server starts, remembered for when it is down. Needs no torch."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from mutoscope.config import from_dict, read_table, write_json
from mutoscope.errors import InputError
from mutoscope.serving.protocol import ModelReply
from mutoscope.serving.remote import Declined, Remote, Trouble, models, said_no
from mutoscope.serving.shelf import Shelf
from mutoscope.weights.card import Defaults, ModelCard

UNSAID = Defaults(width=1280, height=720, frames=96, fps=24.0, steps=0, guidance=0.0, sampler="")
"""What is asked of a backend that does not tell its own: four seconds; 0 and "" leave the choice to it."""


@dataclass(frozen=True)
class Offer:
    """The model of a backend that draws; `is_kin` when it is another Mutoscope and knows our additions."""

    url: str
    card: ModelCard
    is_kin: bool


def folder_of(shelf: Shelf) -> Path:
    """Where it is noted what the backend offers and how it names the jobs."""
    return shelf.root / "backend"


def learn(remote: Remote, name: str, folder: Path) -> Offer:
    """Ask a backend for its model of this name ("": the first), or remember what it said the last time.

    Raises InputError when it does not answer and never did, refuses the key, or has no such model.
    """
    note = folder / "offer.json"
    try:
        listed = models(remote)
    except Trouble as trouble:
        known = remembered(folder)
        if known is None or known.url != remote.url or name not in ("", known.card.name):
            raise InputError(
                f"The backend {remote.url} {trouble}; start it first, or correct the address."
            ) from trouble
        return known
    except Declined as declined:
        if declined.status not in (404, 405, 501):
            raise InputError(f"The backend {remote.url}: {said_no(declined)}") from declined
        listed = []
    offer = _chosen(remote, listed, name)
    folder.mkdir(parents=True, exist_ok=True)
    write_json(note, offer)
    return offer


def remembered(folder: Path) -> Offer | None:
    """What a backend offered the last time."""
    note = folder / "offer.json"
    return from_dict(Offer, read_table(note), str(note)) if note.exists() else None


def _chosen(remote: Remote, listed: list[dict[str, Any]], name: str) -> Offer:
    names = [entry["id"] for entry in listed if isinstance(entry.get("id"), str)]
    if name and names and name not in names:
        raise InputError(f"The backend {remote.url} has no model {name!r}; it offers {', '.join(names[:8])}.")
    chosen = name or (names[0] if names else "sora-2")
    for entry in listed:
        if entry.get("id") == chosen and entry.get("owned_by") == "mutoscope":
            try:
                told = ModelReply.model_validate(entry)
                width, height = (int(side) for side in told.size.split("x"))
                frames = round(float(told.seconds) * told.fps)
            except (ValidationError, ValueError):
                break
            own = Defaults(width, height, frames, told.fps, told.steps, told.guidance, told.sampler)
            return Offer(remote.url, ModelCard(chosen, defaults=own), True)
    return Offer(remote.url, ModelCard(chosen, licence="", defaults=UNSAID), False)
