"""New captions for a cache of latents: our captioner reads the latents, nothing is decoded or encoded again.

The new cache has the clips of the old one in the same order. Its detailed, medium and short captions are the
captioner's, its alt captions those of the old cache, so that training can mix the two (Betker et al. 2023: 95 to 5 %).
A run that was stopped goes on with the first piece that is missing.
"""

import hashlib
import time
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from mutoscope.config import write_json
from mutoscope.data.latents import KINDS, Encoded, Latents, Size, packed, read_index
from mutoscope.data.recaption import State, written_by
from mutoscope.errors import InputError
from mutoscope.files import unwritable, write_atomically
from mutoscope.models.captioner import LENGTHS
from mutoscope.weights.store import CaptionModel


def recaption_latents(
    model: CaptionModel,
    cache: Path,
    out: Path,
    wordings: int = 1,
    report: Callable[[State], None] = lambda state: None,
    batch: int = 64,
) -> Path:
    """Write the cache `out`, or go on with it; returns it.

    wordings: of each kind; the first is the likeliest, the others are drawn by the clip's id. Raises InputError for a
    cache of another VAE than the captioner's, and for a folder that holds something else.
    """
    if wordings < 1 or batch < 1:
        raise InputError(f"wordings is {wordings}, batch {batch}: both must be 1 or more.")
    latents = Latents(cache, vae=model.vae)
    old, begin = read_index(cache), time.perf_counter()
    new = _begin(model, cache, out, old, wordings)
    total = sum(latents.count(size) for size in latents.sizes)
    first = dict.fromkeys(latents.sizes, 0)
    written = passed = 0
    for number in sorted(old["pieces"], key=int):
        for entry in old["pieces"][number]["files"]:
            size, clips = Size(*entry["size"]), entry["clips"]
            rows = range(first[size], first[size] + clips)
            first[size] += clips
            if number in new["pieces"]:
                passed += clips
            else:
                told = _told_anew(model, latents, size, rows, wordings, batch)
                write_atomically(out / entry["file"], packed(told))
                written += clips
        if number not in new["pieces"]:
            new["pieces"][number] = old["pieces"][number]
            write_json(out / "index.json", new)
            report(State(written, passed, 0, total, time.perf_counter() - begin, ()))
    write_json(out / "index.json", new | {"complete": True})
    return out


def _begin(model: CaptionModel, cache: Path, out: Path, old: dict[str, Any], wordings: int) -> dict[str, Any]:
    """The index of a new cache, or of the one to go on with."""
    if out.resolve() == cache.resolve():
        raise InputError(f"{out} is the cache that is read: name another folder for the new one.")
    digest = hashlib.sha256((cache / "index.json").read_bytes()).hexdigest()
    asked = old["asked"] | {
        "variants": dict.fromkeys(LENGTHS, wordings) | {"alt": old["asked"]["variants"]["alt"]},
        "recaptioned": {"by": written_by(model), "cache": digest},
    }
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise unwritable(out, error) from error
    if not (out / "index.json").exists():
        return {**old, "asked": asked, "pieces": {}, "complete": False}
    found = read_index(out)
    if found["asked"] != asked:
        raise InputError(
            f"{out} holds another cache, or captions by another captioner: give an empty folder, or delete it."
        )
    return found


def _told_anew(
    model: CaptionModel, latents: Latents, size: Size, rows: range, wordings: int, batch: int
) -> Encoded:
    """The clips of one file with their new captions."""
    texts = [
        text
        for start in range(0, len(rows), batch)
        for text in _written(model, latents, size, rows[start : start + batch], wordings)
    ]
    return Encoded(
        size, latents.latents(size, rows), latents.fps(size, rows).tolist(), latents.ids(size, rows), texts
    )


def _written(
    model: CaptionModel, latents: Latents, size: Size, rows: range, wordings: int
) -> Iterator[list[str]]:
    """All wordings of each clip, in the order of a cache."""
    latent_BCTHW, ids = latents.latents(size, rows).to(model.vae.latent_mean), latents.ids(size, rows)
    of_kind: dict[str, list[list[str]]] = {}
    for kind in LENGTHS:
        for wording in range(wordings):
            seeds = None
            if wording:
                seeds = [zlib.crc32(f"{number} {kind} {wording}".encode()) for number in ids]
            of_kind.setdefault(kind, []).append(model.narrator(latent_BCTHW, kind, seeds=seeds))
    of_kind["alt"] = [
        [latents.caption(size, row, "alt", i) for row in rows] for i in range(latents.variants["alt"])
    ]
    for place in range(len(rows)):
        yield [told[place] for kind in KINDS for told in of_kind[kind]]
