"""Uploads are decoded in a child that cannot harm the server."""

import asyncio
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest

from mutoscope.serving import ingest
from mutoscope.serving.ingest import Kind, Media, normalise
from mutoscope.serving.protocol import ApiError
from mutoscope.video import Video, read_video, write_video

NOISE_THWC = np.random.default_rng(0).integers(0, 256, (12, 40, 56, 3), np.uint8)


def take(folder: Path, data: bytes, kind: Kind) -> Media:
    (folder / ingest.RAW).write_bytes(data)
    return asyncio.run(normalise(folder, kind, "input_reference", 8.0))


def png_header(width: int, height: int) -> bytes:
    head = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    data = b"IDAT" + zlib.compress(b"\0" * 1000)
    parts = [
        struct.pack(">I", len(part) - 4) + part + struct.pack(">I", zlib.crc32(part))
        for part in (head, data, b"IEND")
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def test_a_picture_and_a_clip_become_their_normal_forms(tmp_path: Path) -> None:
    source = write_video(tmp_path / "a.png", Video(NOISE_THWC[:1], 8.0))
    picture = take(tmp_path, source.read_bytes(), "picture")
    assert (picture.width, picture.height, picture.frames) == (56, 40, 1)
    assert np.array_equal(read_video(picture.path).frames_THWC, NOISE_THWC[:1])
    source = write_video(tmp_path / "a.webm", Video(NOISE_THWC, 24.0))
    clip = take(tmp_path, source.read_bytes(), "video")
    assert (clip.width, clip.height, clip.frames, clip.fps) == (56, 40, 4, 8.0)
    assert read_video(clip.path).frames == 4


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"no picture at all",
        b"#EXTM3U\nhttp://127.0.0.1:1/x.ts\n",
        b"ffconcat version 1.0\nfile /etc/passwd\n",
        png_header(100_000, 100_000),
        png_header(30_000, 30_000),
        b"GIF89a" + b"\xff" * 50,
    ],
    ids=["empty", "text", "playlist", "concat", "huge", "large", "gif"],
)
@pytest.mark.slow
def test_what_is_no_media_is_refused_in_one_sentence(tmp_path: Path, data: bytes) -> None:
    with pytest.raises(ApiError) as caught:
        take(tmp_path, data, "picture")
    assert (caught.value.status, caught.value.param) == (400, "input_reference")
    assert str(tmp_path) not in caught.value.message
    assert caught.value.message.endswith(".")


@pytest.mark.slow
def test_a_child_that_hangs_or_eats_memory_is_only_a_refusal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = write_video(tmp_path / "a.png", Video(NOISE_THWC[:1], 8.0))
    monkeypatch.setattr(ingest, "WALL_SECONDS", 0.0)
    with pytest.raises(ApiError, match="limits of memory and time"):
        take(tmp_path, source.read_bytes(), "picture")
