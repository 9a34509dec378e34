"""The latent cache: clips rendered or read once, encoded once, then trained on many times.

    index.json                  what was asked for, the VAE's fingerprint, the pieces done, the clips skipped
    piece-00003-0.safetensors   clips of one size: latent (fp16), fps, id, captions as bytes with offsets

A piece is a range of the source that is encoded in one go and appears whole; a killed encoding continues with
the first piece that is missing. The reader maps the files: latents stay on the disk until a row is asked for.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as to_safetensors
from torch import Tensor

from mutoscope.config import read_table, to_dict, write_json
from mutoscope.errors import InputError
from mutoscope.files import unwritable, write_atomically
from mutoscope.models.vae import VAE
from mutoscope.video import Video, fit, fit_frames_rate, leader, read_video, to_tensor
from mutoscope.world.captions import Kind, caption, colourless
from mutoscope.world.portrait import last_shot, plainer, portrait
from mutoscope.world.render import render
from mutoscope.world.scene import Scene, SceneMix, View, sample_scene

KINDS: tuple[Kind, ...] = ("detailed", "medium", "short", "alt")
DECODING = ("decoder.", "shortcut_out.")  # parts of a VAE that latents do not depend on
GREY = 4  # frames between the portrait of a led clip and the clip: a latent frame
ADDED = {"crop": 1.0, "led": 0}  # what caches that were begun before these options have
CLIP_SUFFIXES = (".mp4", ".webm", ".mov", ".mkv", ".gif", ".png", ".jpg", ".jpeg", ".webp")


class Size(NamedTuple):
    """Size of a clip in pixels; the key of a bucket."""

    frames: int
    height: int
    width: int

    def __str__(self) -> str:
        return f"{self.width}x{self.height}x{self.frames}"

    @property
    def tokens(self) -> int:
        """Visual tokens of the clip: 4 x 8 x 8 in the VAE, 1 x 2 x 2 in the DiT."""
        return (1 + (self.frames - 1) // 4) * (self.height // 16) * (self.width // 16)


@dataclass(frozen=True)
class Bucket:
    """So many clips of one size and frame rate. `clips` counts world clips; a folder gives what it holds."""

    frames: int
    height: int
    width: int
    clips: int = 0
    fps: float = 8.0

    def __post_init__(self) -> None:
        if self.frames < 1 or self.frames % 4 != 1:
            raise InputError(
                f"a bucket of {self.frames} frames is off the grid: frames must be 1 + 4k, e.g. 17."
            )
        if self.height < 16 or self.width < 16 or self.height % 16 or self.width % 16:
            raise InputError(f"a bucket of {self.width}x{self.height} is off the grid: use multiples of 16.")
        if self.clips < 0 or not 0 < self.fps <= 1000:
            raise InputError(f"bucket {self}: clips must be 0 or more, fps above 0.")

    @property
    def size(self) -> Size:
        return Size(self.frames, self.height, self.width)


@dataclass(frozen=True)
class EncodeConfig:
    """What `mutoscope data encode` makes.

    source is "world" or a folder of clips with captions. World scenes have the seeds (seed << 32) + 0, 1,
    2, ..., so that different `seed`s never share a scene. variants: how many wordings of each kind of
    caption to keep. crop: square clips of the world are cut from frames so many times as wide, or as high by
    turns, at a place that the seed draws, as in a training set of square crops; 1 cuts nothing. led: each clip of the
    world begins with a `leader`, a portrait of somebody in it for so many frames (1 + 4k; 0 is none), which training
    takes as known. A story is its last shot. Every second wording leaves hats and eyes to the portrait, and of every
    second scene with one body the colour, too.
    """

    model: str
    out: str
    buckets: tuple[Bucket, ...]
    source: str = "world"
    seed: int = 1
    mix: SceneMix = field(default_factory=SceneMix)
    variants: Mapping[str, int] = field(
        default_factory=lambda: {"detailed": 2, "medium": 2, "short": 3, "alt": 1}
    )
    piece: int = 1024  # clips (or files of a folder) encoded between two savings
    batch: int = 32  # clips in the VAE at once
    bad: float = 0.3  # largest share of unreadable files that is put up with
    crop: float = 1.0
    led: int = 0

    def __post_init__(self) -> None:
        if not self.buckets:
            raise InputError(
                "encode: buckets is empty: name at least one, e.g. frames=17 height=64 width=64 clips=1000."
            )
        if set(self.variants) != set(KINDS) or min(self.variants.values()) < 1:
            raise InputError(f"encode: variants must give at least 1 for each of {', '.join(KINDS)}.")
        if self.piece < 1 or self.batch < 1 or not 0 <= self.seed < 2**30:
            raise InputError("encode: piece and batch must be at least 1, seed from 0 to 2**30 - 1.")
        if not 1 <= self.crop <= 4:
            raise InputError(f"encode: crop is {self.crop:g}: it lies in 1 (whole frames) to 4.")
        if self.led and (self.crop != 1 or self.source != "world"):
            raise InputError(
                'encode: led is for whole frames of the world: leave crop out, and source at "world".'
            )
        if self.led < 0 or (self.led and self.led % 4 != 1):
            raise InputError(f"encode: led is {self.led}: a portrait is held for 1 + 4k frames, 0 is none.")
        if self.led and min(bucket.frames for bucket in self.buckets) <= self.leader:
            raise InputError(
                f"encode: led clips need more than the {self.leader} frames of their leader: take longer ones."
            )

    @property
    def leader(self) -> int:
        """Frames before a led clip: the portrait and the grey ones."""
        return self.led + GREY if self.led else 0


class Encoded(NamedTuple):
    """Clips of one size on their way to a file. texts: per clip, the wordings of all kinds in order."""

    size: Size
    latent_BCTHW: Tensor
    fps: list[float]
    ids: list[int]
    texts: list[list[str]]


Report = Callable[[int, int, str], None]  # clips done, clips in all, what was skipped since


def fingerprint(vae: VAE) -> str:
    """SHA-256 over the weights that make latents, which fit no other VAE; its decoder may be trained on."""
    digest = hashlib.sha256()
    for name, tensor in sorted(vae.state_dict().items()):
        if name.startswith(DECODING):
            continue
        digest.update(name.encode() + str(tuple(tensor.shape)).encode())
        digest.update(tensor.detach().float().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


# --- writing


@torch.no_grad()
def encode(vae: VAE, config: EncodeConfig, report: Report = lambda done, total, skipped: None) -> Path:
    """Fill the cache `config.out`, or continue to; returns its folder.

    Unreadable files of a folder are skipped, counted, and named in the index. Raises InputError when the
    folder holds latents of another VAE or another config, or when too many files are bad.
    """
    folder = Path(config.out)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise unwritable(folder, error) from error
    index = _begin(folder, config, fingerprint(vae))
    pieces = _pieces(config)
    total = sum(len(piece) for piece in pieces)
    done = 0
    device = next(vae.parameters()).device
    for number, piece in enumerate(pieces):
        done += len(piece)
        if str(number) not in index["pieces"]:
            skipped: list[str] = []
            entries = []
            for part, encoded in enumerate(piece.encoded(vae, device, config, skipped)):
                name = f"piece-{number:05d}-{part}.safetensors"
                write_atomically(folder / name, packed(encoded))
                entries.append({"file": name, "size": list(encoded.size), "clips": len(encoded.ids)})
            index["pieces"][str(number)] = {"files": entries, "skipped": skipped}
            _stop_if_bad(index, done, config.bad)
            write_json(folder / "index.json", index)
            report(done, total, "; ".join(skipped))
    index["complete"] = True
    write_json(folder / "index.json", index)
    return folder


def _begin(folder: Path, config: EncodeConfig, vae_sha256: str) -> dict[str, Any]:
    """The index of a new cache, or of the one to continue."""
    asked = {
        key: value for key, value in to_dict(config).items() if key not in ("model", "out", "batch", "bad")
    }
    if config.source != "world":
        names = "\n".join(str(path) for path in _clip_files(Path(config.source)))
        asked["files"] = hashlib.sha256(names.encode()).hexdigest()
    index_path = folder / "index.json"
    if not index_path.exists():
        return {"version": 1, "vae_sha256": vae_sha256, "asked": asked, "pieces": {}, "complete": False}
    index = read_index(folder)
    if index["vae_sha256"] != vae_sha256:
        raise InputError(f"{folder} holds latents of another VAE: give an empty folder, or delete this one.")
    begun = ADDED | index["asked"]
    if differing := sorted(key for key in asked if begun.get(key) != asked[key]):
        raise InputError(
            f"{folder} was begun with another {', '.join(differing)}: give an empty folder, or delete it."
        )
    return index


def read_index(folder: Path) -> dict[str, Any]:
    """What index.json says. Raises InputError when it is missing, damaged or of another version."""
    try:
        index = json.loads((folder / "index.json").read_bytes())
        if index["version"] != 1:
            raise InputError(
                f"{folder} is a cache of version {index['version']}, this program reads 1: encode anew."
            )
        return dict(index)
    except FileNotFoundError as error:
        raise InputError(
            f"{folder} has no index.json: make a latent cache with `mutoscope data encode`."
        ) from error
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{folder}/index.json is damaged ({error}): delete the folder and encode anew."
        ) from error


def _stop_if_bad(index: Mapping[str, Any], seen: int, bad: float) -> None:
    skipped = [line for piece in index["pieces"].values() for line in piece["skipped"]]
    if len(skipped) > max(bad * seen, 2):
        raise InputError(
            f"{len(skipped)} of {seen} files could not be used (first: {skipped[0]}): mend or remove them, "
            f"or raise bad above {bad}."
        )


@dataclass(frozen=True)
class WorldPiece:
    """Scenes `first`, `first` + 1, ... of one bucket."""

    bucket: Bucket
    seeds: range

    def __len__(self) -> int:
        return len(self.seeds)

    def encoded(
        self, vae: VAE, device: torch.device, config: EncodeConfig, skipped: list[str]
    ) -> Iterator[Encoded]:
        bucket = self.bucket
        view = View(bucket.width, bucket.height, bucket.frames, bucket.fps)
        # Motions are staged for as long as the clip lasts, so that longer clips stay as lively and in view.
        mix = replace(config.mix, seconds=max(config.mix.seconds, (bucket.frames - 1) / bucket.fps))
        told_view = replace(view, frames=view.frames - config.leader)
        latents, texts = [], []
        for start in range(0, len(self.seeds), config.batch):
            scenes = [sample_scene(seed, mix) for seed in self.seeds[start : start + config.batch]]
            if config.led:
                video_BCTHW = with_leader(scenes, view, config.led, device)
                scenes = [last_shot(scene) for scene in scenes]
            else:
                video_BCTHW = filmed(scenes, view, config.crop, device)
            latents.append(vae.encode(video_BCTHW).half().cpu())
            texts += [
                [
                    led_caption(scene, told_view, kind, variant)
                    if config.led
                    else caption(scene, told_view, kind, variant)
                    for kind in KINDS
                    for variant in range(config.variants[kind])
                ]
                for scene in scenes
            ]
        yield Encoded(bucket.size, torch.cat(latents), [bucket.fps] * len(self), list(self.seeds), texts)


def with_leader(scenes: Sequence[Scene], view: View, held: int, device: torch.device) -> Tensor:
    """video_BCTHW of the last shots of scenes, each behind a portrait of somebody in it for so many frames."""
    portrait_BCTHW = render([portrait(scene) for scene in scenes], replace(view, frames=1), device)
    rest = replace(view, frames=view.frames - held - GREY)
    clip_BCTHW = render([last_shot(scene) for scene in scenes], rest, device)
    return torch.cat([leader(portrait_BCTHW.expand(-1, -1, held, -1, -1), GREY), clip_BCTHW], dim=2)


def led_caption(scene: Scene, view: View, kind: Kind, variant: int) -> str:
    """A caption of a clip behind a portrait, which every second wording leaves some of what is to be seen to."""
    if variant % 2 == 0:
        return caption(scene, view, kind, variant)
    text = caption(plainer(scene), view, kind, variant)
    alone = len(scene.shots[0].bodies) == 1
    return colourless(text) if alone and scene.seed % 2 else text


def filmed(scenes: Sequence[Scene], view: View, crop: float, device: torch.device) -> Tensor:
    """video_BCTHW of the scenes: whole frames, or squares cut from wider and higher ones by turns."""
    long = round(crop * view.width)
    if view.height != view.width or long == view.width:
        return render(scenes, view, device)
    clips = []
    for scene in scenes:
        start = int(np.random.default_rng((scene.seed, 4)).integers(long - view.width + 1))
        wide = replace(view, width=long) if scene.seed % 2 else replace(view, height=long)
        clips.append(render([scene], wide, device).narrow(4 if scene.seed % 2 else 3, start, view.width))
    return torch.cat(clips)


def _pieces(config: EncodeConfig) -> Sequence[WorldPiece | FolderPiece]:
    return _world_pieces(config) if config.source == "world" else _folder_pieces(config)


def _world_pieces(config: EncodeConfig) -> list[WorldPiece]:
    first, pieces = config.seed << 32, []
    for bucket in config.buckets:
        for start in range(0, bucket.clips, config.piece):
            seeds = range(first + start, first + min(start + config.piece, bucket.clips))
            pieces.append(WorldPiece(bucket, seeds))
        first += bucket.clips
    return pieces


@dataclass(frozen=True)
class FolderPiece:
    """Some files of a folder, with their places in its sorted list."""

    files: tuple[tuple[int, Path], ...]

    def __len__(self) -> int:
        return len(self.files)

    def encoded(
        self, vae: VAE, device: torch.device, config: EncodeConfig, skipped: list[str]
    ) -> Iterator[Encoded]:
        by_size: dict[Size, list[tuple[Tensor, float, int, list[str]]]] = {}
        for number, path in self.files:
            try:
                texts = _worded(read_captions(path), config.variants)
                bucket, video_BCTHW = _cut_to_a_bucket(path, read_video(path), config.buckets)
            except InputError as error:
                skipped.append(str(error))
                continue
            latent_BCTHW = vae.encode(video_BCTHW.to(device)).half().cpu()
            by_size.setdefault(bucket.size, []).append((latent_BCTHW, bucket.fps, number, texts))
        for size, clips in sorted(by_size.items()):
            latents, fps, ids, worded = zip(*clips)
            yield Encoded(size, torch.cat(latents), list(fps), list(ids), list(worded))


def _folder_pieces(config: EncodeConfig) -> list[FolderPiece]:
    files = _clip_files(Path(config.source))
    numbered = list(enumerate(files))
    starts = range(0, len(files), config.piece)
    return [FolderPiece(tuple(numbered[start : start + config.piece])) for start in starts]


def _clip_files(source: Path) -> list[Path]:
    if not source.is_dir():
        raise InputError(f'source {source} is not a folder: give one with clips, or "world".')
    files = sorted(path for path in source.rglob("*") if path.suffix.lower() in CLIP_SUFFIXES)
    if not files:
        raise InputError(f"{source} holds no clips: put {', '.join(CLIP_SUFFIXES)} files there.")
    return files


def read_captions(clip: Path) -> dict[str, list[str]]:
    """The captions beside a clip: NAME.json with {"caption": text} or {"captions": {kind: text or list}},
    or NAME.txt.

    Raises InputError when there are none.
    """
    beside = clip.with_suffix(".json")
    if beside.is_file():
        data = read_table(beside)
        found = data.get("captions", {"detailed": data.get("caption", "")})
        kinds = dict(found) if isinstance(found, Mapping) else {"detailed": found}
    elif (beside := clip.with_suffix(".txt")).is_file():
        kinds = {"detailed": beside.read_text("utf-8", "replace")}
    else:
        raise InputError(f"{clip} has no caption: put one into {clip.with_suffix('.txt').name} beside it.")
    texts = {kind: [value] if isinstance(value, str) else list(value) for kind, value in kinds.items()}
    texts = {kind: [str(text).strip() for text in each if str(text).strip()] for kind, each in texts.items()}
    if not any(texts.get(kind) for kind in KINDS):
        raise InputError(f"{beside} holds no caption: give one as {', '.join(KINDS)} or as plain text.")
    return texts


def _worded(captions: Mapping[str, list[str]], variants: Mapping[str, int]) -> list[str]:
    """As many wordings of each kind as the cache keeps; a kind that is missing borrows the one before or
    after.
    """
    present = [kind for kind in KINDS if captions.get(kind)]
    texts = []
    for place, kind in enumerate(KINDS):
        nearest = min(present, key=lambda other: abs(KINDS.index(other) - place))
        texts += [captions[nearest][i % len(captions[nearest])] for i in range(variants[kind])]
    return texts


def _cut_to_a_bucket(path: Path, video: Video, buckets: Sequence[Bucket]) -> tuple[Bucket, Tensor]:
    """The longest bucket that the video fills, nearest in aspect, then in size; and the video cut to it."""
    seconds = video.frames / video.fps
    fitting = [
        b for b in buckets if b.frames == 1 or (video.frames > 1 and b.frames <= round(seconds * b.fps))
    ]
    if video.frames > 1:  # a clip becomes a still only if nothing else is asked for
        fitting = [bucket for bucket in fitting if bucket.frames > 1] or fitting
    if not fitting:
        raise InputError(f"{path} has {video.frames} frames, too few for every bucket: add shorter buckets.")
    aspect, area = video.width / video.height, video.width * video.height
    bucket = min(
        fitting,
        key=lambda b: (
            -b.frames,
            abs(math.log(b.width / b.height / aspect)),
            abs(math.log(b.width * b.height / area)),
        ),
    )
    if bucket.frames > 1:
        video = fit_frames_rate(video, bucket.fps)
    video_BCTHW = to_tensor(video.frames_THWC[: bucket.frames])[None]
    return bucket, fit(video_BCTHW, bucket.height, bucket.width)


def packed(encoded: Encoded) -> bytes:
    """Safetensors bytes of clips of one size."""
    texts = [text.encode() for clip in encoded.texts for text in clip]
    return to_safetensors(
        {
            "latent": encoded.latent_BCTHW.half().contiguous(),
            "fps": torch.tensor(encoded.fps, dtype=torch.float32),
            "id": torch.tensor(encoded.ids, dtype=torch.int64),
            "text": torch.frombuffer(bytearray(b"".join(texts) or b" "), dtype=torch.uint8),
            "text_end": torch.tensor(np.cumsum([len(text) for text in texts]), dtype=torch.int64),
        }
    )


# --- reading


@dataclass(frozen=True)
class Shard:
    """One mapped file: B clips of one size."""

    latent_BCTHW: Tensor  # float16
    fps_B: Tensor
    id_B: Tensor
    text: Tensor  # bytes of all wordings, one after the other
    text_end: Tensor  # where each ends


class Latents:
    """Random access to a finished cache, or to several as if they were one.

    `sizes` lists the sizes present, `count(size)` the clips of one; rows are numbered from 0 within a size,
    in the order of the folders and of encoding. Raises InputError when a cache is missing, unfinished, damaged or
    of another VAE than the others or than `vae`.
    """

    def __init__(self, *folders: Path, vae: VAE | None = None) -> None:
        if not folders:
            raise InputError("latents names no folder: give one of `mutoscope data encode`, or several.")
        indices = [read_index(folder) for folder in folders]
        self.name = ", ".join(str(folder) for folder in folders)
        self.vae_sha256: str = fingerprint(vae) if vae is not None else indices[0]["vae_sha256"]
        self.asked: list[dict[str, Any]] = [index["asked"] for index in indices]  # the configs
        self.variants: dict[str, int] = self.asked[0]["variants"]
        self.skipped: list[str] = []
        self._files: dict[Size, list[tuple[Path, int]]] = {}
        for folder, index in zip(folders, indices):
            self._add(folder, index)
        self._starts = {
            size: np.cumsum([0, *(clips for _, clips in files)]) for size, files in self._files.items()
        }
        self._shards: dict[Path, Shard] = {}
        self._led = {folder: int(index["asked"].get("led", 0)) for folder, index in zip(folders, indices)}
        self._first = dict(zip(KINDS, np.cumsum([0, *(self.variants[kind] for kind in KINDS)])))
        if not self._files:
            raise InputError(
                f"{self.name} holds no clips: give it buckets with clips, or a folder with readable files."
            )

    def _add(self, folder: Path, index: Mapping[str, Any]) -> None:
        if not index.get("complete"):
            raise InputError(f"{folder} is not finished: run `mutoscope data encode` again, it continues.")
        if index["vae_sha256"] != self.vae_sha256:
            raise InputError(f"{folder} holds latents of another VAE than this model's: encode anew.")
        if index["asked"]["variants"] != self.variants:
            raise InputError(
                f"{folder} keeps {index['asked']['variants']} wordings of a clip, {self.name} begins with "
                f"{self.variants}: caches that are read together must keep as many."
            )
        for number in sorted(index["pieces"], key=int):
            self.skipped += index["pieces"][number]["skipped"]
            for entry in index["pieces"][number]["files"]:
                files = self._files.setdefault(Size(*entry["size"]), [])
                files.append((folder / entry["file"], entry["clips"]))

    @staticmethod
    def named(names: str | Sequence[str], vae: VAE) -> Latents:
        """The cache or the caches that a config names."""
        return Latents(*map(Path, [names] if isinstance(names, str) else names), vae=vae)

    @property
    def led(self) -> bool:
        """Whether there are clips with a leader."""
        return any(self._led.values())

    @property
    def sizes(self) -> list[Size]:
        return sorted(self._files)

    @cached_property
    def channels(self) -> int:
        return self._shard(self._files[self.sizes[0]][0][0]).latent_BCTHW.shape[1]

    def count(self, size: Size) -> int:
        return int(self._starts[size][-1])

    def latents(self, size: Size, rows: Sequence[int]) -> Tensor:
        """float32 latent_BCTHW of the rows."""
        places = [self._place(size, row) for row in rows]
        return torch.stack([shard.latent_BCTHW[i].float() for shard, i in places])

    def fps(self, size: Size, rows: Sequence[int]) -> Tensor:
        """Frames per second of the videos, (B,)."""
        return torch.stack([shard.fps_B[i] for shard, i in (self._place(size, row) for row in rows)])

    def known(self, size: Size, rows: Sequence[int]) -> Tensor:
        """Latent frames at the beginning that are never made, those of a leader, (B,)."""
        led_B = torch.tensor([self._led[self._file(size, row)[0].parent] for row in rows])
        return torch.where(led_B > 0, (led_B - 1 + GREY) // 4 + 1, 0)

    def ids(self, size: Size, rows: Sequence[int]) -> list[int]:
        """World seeds, or numbers of files."""
        return [int(shard.id_B[i]) for shard, i in (self._place(size, row) for row in rows)]

    def caption(self, size: Size, row: int, kind: str, variant: int) -> str:
        """One wording; `variant` counts from 0 and wraps round at the number stored."""
        shard, i = self._place(size, row)
        place = i * sum(self.variants.values()) + int(self._first[kind]) + variant % self.variants[kind]
        begin = int(shard.text_end[place - 1]) if place else 0
        return bytes(shard.text[begin : int(shard.text_end[place])].numpy()).decode()

    def captions(self, size: Size, rows: Iterable[int]) -> Iterator[str]:
        """Every wording of the rows."""
        for row in rows:
            for kind in KINDS:
                for variant in range(self.variants[kind]):
                    yield self.caption(size, row, kind, variant)

    def _place(self, size: Size, row: int) -> tuple[Shard, int]:
        path, place = self._file(size, row)
        return self._shard(path), place

    def _file(self, size: Size, row: int) -> tuple[Path, int]:
        """The file of a row, and its place there."""
        starts = self._starts[size]
        if not 0 <= row < starts[-1]:
            raise IndexError(f"row {row} of {starts[-1]} clips of {size}")
        number = int(np.searchsorted(starts, row, side="right")) - 1
        return self._files[size][number][0], int(row - starts[number])

    def _shard(self, path: Path) -> Shard:
        if path not in self._shards:
            try:
                with safe_open(path, "pt") as file:
                    latent, fps, ids, text, end = (
                        file.get_tensor(key) for key in ("latent", "fps", "id", "text", "text_end")
                    )
            except (OSError, SafetensorError) as error:
                raise InputError(
                    f"{path} is damaged ({error}): delete the folder and encode anew."
                ) from error
            self._shards[path] = Shard(latent, fps, ids, text, end)
        return self._shards[path]
