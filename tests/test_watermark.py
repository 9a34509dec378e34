"""The invisible number: read back after real x264, at half the size, from a cut; never found where there is none."""

import io
from collections.abc import Iterator
from math import comb
from pathlib import Path

import av
import numpy as np
import pytest

from mutoscope import watermark
from mutoscope.video import Video, fit_frames_rate, read_video, to_frames, write_video
from mutoscope.watermark import BITS, STEP, Mark, can_carry, embed, find, marked, number_of
from mutoscope.world.render import render
from mutoscope.world.scene import EVERYTHING, PLAIN, View, sample_scene

SMALL, LARGE = View(64, 64, 17, 8.0), View(128, 96, 33, 8.0)
LAYOUT = (0.71132272, 0.4947126, 0.15110981, 0.08483616)
NUMBERS = (0, 2**32 - 1, 0xDEADBEEF, 1, 123_456_789, 0x5A5A5A5A)


@pytest.fixture(scope="module")
def small() -> list[np.ndarray]:
    scenes = [
        *(sample_scene(seed, PLAIN) for seed in range(4)),
        *(sample_scene(seed, EVERYTHING) for seed in range(2)),
    ]
    return [to_frames(video_CTHW) for video_CTHW in render(scenes, SMALL)]


@pytest.fixture(scope="module")
def large() -> list[np.ndarray]:
    return [
        to_frames(video_CTHW) for video_CTHW in render([sample_scene(seed, PLAIN) for seed in (7, 8)], LARGE)
    ]


def mark(frames_THWC: np.ndarray, number: int, fps: float = 8.0) -> np.ndarray:
    return np.concatenate(list(marked([frames_THWC[:3], frames_THWC[3:]], fps, number)))


def x264(frames_THWC: np.ndarray, crf: int, scale: float = 1.0) -> np.ndarray:
    """The clip as `ffmpeg -vf scale=... -c:v libx264 -crf ...` leaves it, at the usual preset."""
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=8, options={"crf": str(crf)})
        assert isinstance(stream, av.VideoStream)
        height, width = (round(side * scale) for side in frames_THWC.shape[1:3])
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        stream.codec_context.thread_count = 1
        for frame_HWC in frames_THWC:
            picture = av.VideoFrame.from_ndarray(frame_HWC, "rgb24").reformat(format="yuv420p")
            container.mux(stream.encode(picture.reformat(width, height, interpolation="BICUBIC")))
        container.mux(stream.encode(None))
    buffer.seek(0)
    with av.open(buffer) as container:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])


def psnr(a: np.ndarray, b: np.ndarray) -> float:
    return float(10 * np.log10(255**2 / np.square(a.astype(np.float32) - b).mean()))


def read(frames_THWC: np.ndarray) -> int | None:
    found = find(frames_THWC, 8.0)
    return None if found is None else found.number


def test_it_is_invisible_and_read_back(small: list[np.ndarray], large: list[np.ndarray]) -> None:
    for clip, number in zip(small, NUMBERS, strict=True):
        after = mark(clip, number)
        assert psnr(clip, after) >= 40
        found = find(after, 8.0)
        assert found is not None
        assert found.number == number
        assert found.certainty > 0.9
    assert all(psnr(clip, mark(clip, 5)) >= 40 for clip in large)


def test_small_clips_survive_x264_at_crf_28(small: list[np.ndarray]) -> None:
    assert [read(x264(mark(clip, number), 28)) for clip, number in zip(small, NUMBERS, strict=True)] == list(
        NUMBERS
    )


def test_small_clips_survive_half_the_size(small: list[np.ndarray]) -> None:
    halves = [x264(mark(clip, number), 20, 0.5) for clip, number in zip(small, NUMBERS, strict=True)]
    assert [read(half) for half in halves] == list(NUMBERS)


def test_larger_clips_survive_both_at_once_and_twice(large: list[np.ndarray]) -> None:
    for clip in large:
        worse = x264(mark(clip, 77), 28, 0.5)
        assert worse.shape[1:3] == (48, 64)
        assert read(worse) == 77
        assert read(x264(worse, 28)) == 77


def test_a_cut_and_another_rate_are_survived(large: list[np.ndarray]) -> None:
    clip = mark(large[0], 4242)
    assert read(clip[5:]) == 4242
    faster = fit_frames_rate(Video(clip, 8.0), 24.0)
    assert find(faster.frames_THWC, 24.0) == Mark(4242, pytest.approx(1, abs=0.1))


def test_our_own_files_keep_it(tmp_path: Path, small: list[np.ndarray]) -> None:
    path = write_video(tmp_path / "clip.mp4", Video(mark(small[0], 9), 8.0))
    assert read(read_video(path).frames_THWC) == 9


def test_a_new_mark_replaces_the_old(small: list[np.ndarray]) -> None:
    assert read(mark(mark(small[1], 10), 11)) == 11


def test_nothing_is_found_where_nothing_is(small: list[np.ndarray], large: list[np.ndarray]) -> None:
    assert [read(clip) for clip in (*small, *large)] == [None] * 8
    flat = [np.full((9, 48, 80, 3), level, np.uint8) for level in (0, 128, 255)]
    noise = np.random.default_rng(0).integers(0, 256, (9, 40, 40, 3)).astype(np.uint8)
    assert [read(clip) for clip in (*flat, noise)] == [None] * 4


def test_false_alarms_are_rarer_than_one_in_a_million(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every try of a CRC-32 on a picture without a mark succeeds once in 2^32; count the tries of one reading."""
    tries, check = 0, watermark._check

    def counted(number: int) -> int:
        nonlocal tries
        tries += 1
        return check(number)

    monkeypatch.setattr(watermark, "_check", counted)
    assert find(np.random.default_rng(1).integers(0, 256, (40, 40, 40, 3)).astype(np.uint8), 8.0) is None
    assert sum(comb(12, n) for n in range(4)) <= tries <= 558
    assert tries / 2**32 < 1e-6


def test_bits_of_unmarked_clips_are_fair() -> None:
    """What the count above rests on: without a mark each bit is as often 0 as 1."""
    projected_TN = watermark._project_each(
        np.random.default_rng(2).integers(0, 256, (400, 20, 20, 3)).astype(np.uint8)
    )
    ones = (np.cos(2 * np.pi * (projected_TN / STEP - watermark._plan().dither_N)) < 0).mean()
    assert abs(ones - 0.5) < 4 * 0.5 / np.sqrt(400 * BITS)


def test_clipped_pictures_carry_it_too() -> None:
    frames_THWC = np.full((9, 64, 64, 3), 255, np.uint8)
    frames_THWC[:, 20:44, 20:44] = 0
    after = mark(frames_THWC, 99)
    assert read(after) == 99
    assert psnr(frames_THWC, after) > 30


def test_one_picture_and_odd_sizes() -> None:
    picture_THWC = np.random.default_rng(3).integers(60, 200, (1, 33, 57, 3)).astype(np.uint8)
    assert read(embed(picture_THWC, 8)) == 8
    assert not can_carry(19, 200)
    assert find(np.zeros((3, 4, 200, 3), np.uint8), 8.0) is None


def test_pieces_do_not_matter(small: list[np.ndarray]) -> None:
    def one_by_one() -> Iterator[np.ndarray]:
        for index in range(len(small[2])):
            yield small[2][index : index + 1]

    assert np.array_equal(np.concatenate(list(marked(one_by_one(), 8.0, 3))), mark(small[2], 3))


def test_the_layout_never_changes() -> None:
    """Files are marked for good: these values are part of the format."""
    plan = watermark._plan()
    assert [int(axis[-1]) for axis in plan.places] == [8, 3]
    assert plan.dither_N[:2] == pytest.approx(LAYOUT[:2], abs=1e-6)
    assert plan.mix_CN[0, :2] == pytest.approx(LAYOUT[2:], abs=1e-5)


def test_numbers_come_from_digests() -> None:
    assert number_of(bytes.fromhex("deadbeef00")) == 0xDEADBEEF
