"""Captions for a folder of clips, from our captioner or another writer: resumable, the old caption kept beside.

What is known of NAME.mp4 lies in NAME.json; a new caption goes there:

    captions      {"short", "medium", "detailed": the new ones; "alt": what the clip came with, noisy or not}
    original      the captions that the clip came with, as they were
    recaptioned   {"by": who wrote the new ones}

This is the layout that `data encode` reads, so that training can mix new captions with a share of original ones. A
clip that its writer has captioned already is passed over, which is how a run that was stopped goes on.
"""

import json
import time
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import torch

from mutoscope.config import read_table, write_json
from mutoscope.data.latents import CLIP_SUFFIXES
from mutoscope.errors import InputError
from mutoscope.models.captioner import LENGTHS, Length
from mutoscope.video import Video, fit, fit_frames_rate, read_video, to_tensor
from mutoscope.weights.store import CaptionModel

LONGEST = 2  # times the frames that a captioner was trained for; longer clips are seen at a lower rate
GRID = 16  # pixels that sides are multiples of

Captions = Mapping[Length, str]
Writer = Callable[[Sequence[Video]], Sequence[Captions | InputError]]  # a clip that fails gives its error


class State(NamedTuple):
    """How far a run is. skipped: what was skipped since the last report, as sentences."""

    written: int
    passed: int  # captioned by the same writer before
    failed: int
    total: int
    seconds: float
    skipped: tuple[str, ...]

    @property
    def pace(self) -> float:
        """Clips a second, failed ones included."""
        return (self.written + self.failed) / max(self.seconds, 1e-9)

    @property
    def left(self) -> float:
        """Seconds to go at this pace."""
        return (self.total - self.written - self.passed - self.failed) / max(self.pace, 1e-9)


@dataclass
class Outcome:
    """What became of the clips."""

    written: int = 0
    passed: int = 0
    skipped: list[str] = field(default_factory=list)


def recaption(
    clips: Sequence[Path],
    write: Writer,
    by: str,
    report: Callable[[State], None] = lambda state: None,
    batch: int = 32,
    again: bool = False,
) -> Outcome:
    """Caption every clip and put the captions into the NAME.json beside it, each file whole or untouched.

    by: who writes; clips that the same one has captioned are passed over unless `again`. Clips that cannot be read
    are skipped and told. Raises InputError when a place cannot be written or the writer gives up.
    """
    if batch < 1:
        raise InputError(f"batch is {batch}: give 1 or more.")
    begin, outcome = time.perf_counter(), Outcome()
    todo = [clip for clip in clips if again or author(clip) != by]
    outcome.passed = len(clips) - len(todo)
    for start in range(0, len(todo), batch):
        known = len(outcome.skipped)
        read = list(_read(todo[start : start + batch], outcome.skipped))
        written = write([video for _, _, video in read]) if read else []
        for (clip, beside, _), captions in zip(read, written, strict=True):
            if isinstance(captions, InputError):
                outcome.skipped.append(f"{clip}: {captions}")
            else:
                write_json(clip.with_suffix(".json"), recaptioned(beside, captions, by))
                outcome.written += 1
        state = State(
            outcome.written,
            outcome.passed,
            len(outcome.skipped),
            len(clips),
            time.perf_counter() - begin,
            tuple(outcome.skipped[known:]),
        )
        report(state)
    return outcome


def _read(clips: Sequence[Path], skipped: list[str]) -> Iterator[tuple[Path, dict[str, Any], Video]]:
    for clip in clips:
        try:
            yield clip, known_of(clip), read_video(clip)
        except InputError as error:
            skipped.append(str(error))


def find_clips(source: Path) -> list[Path]:
    """The clips of a folder, in order, or those that a manifest names: a .txt or .csv of paths, one per line, or a
    .jsonl with a "path" per line; relative ones are relative to the manifest.

    Raises InputError when there are none, or the manifest cannot be read.
    """
    if source.is_dir():
        found = sorted(path for path in source.rglob("*") if path.suffix.lower() in CLIP_SUFFIXES)
        found = [path for path in found if not path.name.startswith(".")]
    elif source.is_file() and source.suffix.lower() in (".txt", ".csv", ".jsonl"):
        found = [source.parent / name for name in _listed(source)]
    else:
        raise InputError(
            f"{source} is neither a folder nor a manifest (.txt, .csv, .jsonl); give one of them."
        )
    if not found:
        raise InputError(f"{source} holds no clips: put {', '.join(CLIP_SUFFIXES)} files there.")
    twins = {path.with_suffix("") for path in found}
    if len(twins) < len(found):
        raise InputError(
            f"{source} has clips that differ only in their endings and would share a .json; rename them."
        )
    return found


def _listed(manifest: Path) -> Iterator[str]:
    try:
        lines = manifest.read_text("utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{manifest} cannot be read as text ({error}); give a manifest in UTF-8.") from error
    for number, line in enumerate(lines, 1):
        name = line.strip()
        if manifest.suffix.lower() == ".jsonl" and name:
            try:
                name = str(json.loads(name)["path"])
            except (ValueError, KeyError, TypeError) as error:
                raise InputError(
                    f'{manifest}, line {number} is not a JSON object with a "path"; mend that line.'
                ) from error
        if name and not name.startswith("#"):
            yield name


def author(clip: Path) -> str | None:
    """Who wrote the captions of a clip, None if nobody did or its file is damaged."""
    try:
        found = json.loads(clip.with_suffix(".json").read_bytes())["recaptioned"]["by"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return str(found)


def known_of(clip: Path) -> dict[str, Any]:
    """What NAME.json says, or the caption in NAME.txt. Raises InputError when it is damaged, rather than lose it."""
    beside = clip.with_suffix(".json")
    if beside.is_file():
        return read_table(beside)
    if (text := clip.with_suffix(".txt")).is_file():
        return {"caption": text.read_text("utf-8", "replace").strip()}
    return {}


def recaptioned(beside: Mapping[str, Any], captions: Captions, by: str) -> dict[str, Any]:
    """What is to be in NAME.json. The original is what was there before the first captioning."""
    original = beside.get("original", beside.get("captions", beside.get("caption")))
    new: dict[str, Any] = {kind: captions[kind] for kind in captions}
    kinds = original if isinstance(original, Mapping) else {"alt": original}
    for kind in ("alt", "detailed", "medium", "short"):  # the noisiest there is
        if kinds.get(kind):
            new["alt"] = kinds[kind]
            break
    kept = {key: value for key, value in beside.items() if key != "caption"}
    return {**kept, "captions": new, "original": original, "recaptioned": {"by": by}}


# --- our captioner as a writer


def written_by(model: CaptionModel) -> str:
    """The name under which a captioner signs."""
    return f"{model.card.name} {model.sha256[:12]}"


def our_writer(
    model: CaptionModel, kinds: Sequence[Length] = LENGTHS, beams: int = 1, variety: int | None = None
) -> Writer:
    """The captioner as a writer. variety: a seed; wording and order are then drawn, each clip's from its content."""

    @torch.inference_mode()
    def write(videos: Sequence[Video]) -> list[Captions | InputError]:
        captions: list[dict[Length, str]] = [{} for _ in videos]
        for places, latent_BCTHW in latents_of(model, videos):
            seeds = None
            if variety is not None:
                seeds = [variety + zlib.crc32(videos[place].frames_THWC.tobytes()) for place in places]
            for kind in kinds:
                texts = model.narrator(latent_BCTHW, kind, beams, seeds)
                for place, text in zip(places, texts, strict=True):
                    captions[place][kind] = text
        return list(captions)

    return write


def latents_of(model: CaptionModel, videos: Sequence[Video]) -> Iterator[tuple[list[int], torch.Tensor]]:
    """Latents of the clips as the captioner is used to see them, one batch per size, with their places."""
    by_size: dict[torch.Size, list[tuple[int, torch.Tensor]]] = {}
    for place, video in enumerate(videos):
        fitted = as_trained(model, video)
        by_size.setdefault(fitted.shape, []).append((place, fitted))
    device = next(model.vae.parameters()).device
    for group in by_size.values():
        places, clips = zip(*group)
        yield list(places), model.vae.encode(torch.cat(clips).to(device))


def as_trained(model: CaptionModel, video: Video) -> torch.Tensor:
    """video_BCTHW of one clip at the rate and about the size that the captioner was trained on.

    The aspect stays, up to the grid; a clip of more than LONGEST times the trained length is seen at a lower rate.
    """
    usual = model.card.defaults
    video = fit_frames_rate(video, usual.fps)
    most, frames_THWC = LONGEST * (usual.frames - 1) + 1, video.frames_THWC
    if len(frames_THWC) > most:
        frames_THWC = frames_THWC[[round(i * (len(frames_THWC) - 1) / (most - 1)) for i in range(most)]]
    frames = 1 + 4 * ((len(frames_THWC) - 1) // 4)
    side = min(usual.width, usual.height)
    scale = side / min(video.width, video.height)
    width, height = (
        max(side, GRID * round(min(scale * n, 4 * side) / GRID)) for n in (video.width, video.height)
    )
    return fit(to_tensor(frames_THWC[:frames])[None], height, width)
