"""Video files: what is written is read back, what is hostile is refused in one sentence."""

import contextlib
import json
import os
import resource
import struct
import subprocess
import sys
import zlib
from collections.abc import Callable
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from PIL import Image

from mutoscope.containers import Limits
from mutoscope.errors import InputError
from mutoscope.video import (
    Video,
    VideoWriter,
    fit,
    fit_frames_rate,
    read_recipe,
    read_video,
    to_frames,
    to_tensor,
    write_video,
)

RECIPE = {"prompt": 'a "red" ball — ünïcode \n', "seed": 7, "nested": {"list": [1, 2.5, None]}}


def smooth(frames: int = 9, height: int = 64, width: int = 64) -> np.ndarray:
    """A soft spot that crosses a gradient: what the world looks like to a codec."""
    y, x = np.mgrid[0:height, 0:width]
    clip = []
    for index in range(frames):
        spot = np.exp(
            -(((x - width * (0.2 + 0.6 * index / frames)) ** 2 + (y - height / 2) ** 2) / (height / 5) ** 2)
        )
        clip.append(np.stack([30 + 190 * spot, 40 + 120 * x / width, 80 + 90 * y / height - 50 * spot], -1))
    return np.stack(clip).round().clip(0, 255).astype(np.uint8)


def counted(frames: int, height: int = 32, width: int = 48) -> np.ndarray:
    """Frames that tell their number by their grey level, ten levels apart."""
    levels = (10 + 10 * np.arange(frames)).astype(np.uint8)
    return np.broadcast_to(levels[:, None, None, None], (frames, height, width, 3)).copy()


def numbers(video: Video) -> list[int]:
    return [round((float(frame.mean()) - 10) / 10) for frame in video.frames_THWC]


def psnr(one: np.ndarray, other: np.ndarray) -> float:
    with np.errstate(divide="ignore"):
        return float(10 * np.log10(255**2 / np.mean((one.astype(np.float64) - other) ** 2)))


def encode(
    path: Path,
    frames_THWC: np.ndarray,
    ticks: list[int] | None = None,
    base: Fraction = Fraction(1, 600),
    prepare: Callable[[av.VideoStream], None] = lambda stream: None,
    audio: bool = False,
    muxer: str = "mp4",
) -> Path:
    """An H.264 file as other programs write it: own times, rotation, sound."""
    with av.open(str(path), "w", format=muxer) as container:
        stream = container.add_stream("libx264", rate=30, options={"crf": "5"})
        assert isinstance(stream, av.VideoStream)
        _, stream.height, stream.width, _ = frames_THWC.shape
        stream.pix_fmt = "yuv420p"
        stream.codec_context.time_base = base
        prepare(stream)
        sound = container.add_stream("aac", rate=16000) if audio else None
        for index, frame in enumerate(frames_THWC):
            picture = av.VideoFrame.from_ndarray(frame, "rgb24")
            picture.pts, picture.time_base = ticks[index] if ticks else 20 * index, base
            container.mux(stream.encode(picture))
        container.mux(stream.encode(None))
        if sound is not None:
            silence = av.AudioFrame.from_ndarray(np.zeros((1, 16000), np.float32), "fltp", "mono")
            silence.sample_rate, silence.pts = 16000, 0
            container.mux(sound.encode(silence))
            container.mux(sound.encode(None))
    return path


# --- what is written is read back


@pytest.mark.parametrize("suffix", [".mp4", ".mov", ".webm", ".gif"])
@pytest.mark.parametrize(
    ("width", "height", "fps"), [(64, 64, 8.0), (63, 65, 29.97), (80, 112, 12.5), (1, 1, 24.0)]
)
def test_files_keep_size_rate_count_and_recipe(
    tmp_path: Path, suffix: str, width: int, height: int, fps: float
) -> None:
    clip = smooth(5, height, width)
    path = Video(clip, fps, RECIPE).save(tmp_path / f"a{suffix}")
    video = read_video(path)
    assert video.frames_THWC.shape == clip.shape
    assert video.frames_THWC.dtype == np.uint8
    assert video.fps == pytest.approx(30000 / 1001 if fps == 29.97 else fps, abs=1e-12)
    assert video.recipe == RECIPE == read_recipe(path)
    assert psnr(clip, video.frames_THWC) > (30 if suffix == ".gif" else 38)
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize(("suffix", "least"), [(".png", np.inf), (".jpg", 38), (".webp", 38)])
def test_stills_keep_their_picture_and_recipe(tmp_path: Path, suffix: str, least: float) -> None:
    clip = smooth(1, 33, 47)
    path = write_video(tmp_path / f"a{suffix}", Video(clip, 8, RECIPE))
    video = read_video(path)
    assert (video.frames, video.width, video.height) == (1, 47, 33)
    assert psnr(clip, video.frames_THWC) >= least
    assert video.recipe == RECIPE == read_recipe(path)


def test_files_without_a_recipe_have_none(tmp_path: Path) -> None:
    assert read_recipe(Video(smooth(2), 8).save(tmp_path / "a.mp4")) is None
    assert read_recipe(encode(tmp_path / "b.mp4", smooth(2))) is None


def test_a_long_recipe_fits_a_video_but_not_a_jpeg(tmp_path: Path) -> None:
    recipe = {"prompt": "x" * 200_000}
    assert read_recipe(Video(smooth(1), 8, recipe).save(tmp_path / "a.mp4")) == recipe
    assert read_recipe(Video(smooth(1), 8, recipe).save(tmp_path / "a.png")) == recipe
    with pytest.raises(InputError, match="too long"):
        Video(smooth(1), 8, recipe).save(tmp_path / "a.jpg")


def test_mp4_is_exact_in_time_tagged_and_streams_from_the_start(tmp_path: Path) -> None:
    path = Video(smooth(7), 29.97).save(tmp_path / "a.mp4")
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        times = [frame.pts * frame.time_base for frame in container.decode(stream)]
        context = stream.codec_context
        assert stream.average_rate == Fraction(30000, 1001)
        assert times == [index * Fraction(1001, 30000) for index in range(7)]
        assert (context.name, context.pix_fmt) == ("h264", "yuv420p")
        assert (context.colorspace, context.color_primaries, context.color_trc, context.color_range) == (
            1,
            1,
            1,
            1,
        )
    data = path.read_bytes()
    assert 0 < data.index(b"moov") < data.index(b"mdat")


def test_colours_keep_their_levels(tmp_path: Path) -> None:
    """A wrong matrix or range shifts pure colours by ten levels and more."""
    colours = [
        (255, 0, 0),
        (0, 255, 0),
        (0, 0, 255),
        (255, 255, 255),
        (0, 0, 0),
        (128, 128, 128),
        (250, 200, 30),
    ]
    clip = np.array(colours, np.uint8)[:, None, None].repeat(32, 1).repeat(32, 2)
    for suffix in (".mp4", ".webm"):
        back = read_video(Video(clip, 8).save(tmp_path / f"a{suffix}")).frames_THWC
        assert np.abs(back.astype(int) - clip).max() <= 4


@pytest.mark.parametrize("suffix", [".mp4", ".mov", ".webm"])
def test_colours_stay_in_their_place_through_ten_files(tmp_path: Path, suffix: str) -> None:
    """As when a clip is extended again and again; half a pixel each time would put them beside what they colour."""
    rows, columns = np.mgrid[:64, :64]
    disc_HW = 1 / (1 + np.exp(np.hypot(rows - 31.5, columns - 31.5) - 12))
    frame_HWC = np.rint(np.stack([60 + 180 * disc_HW, 60 + 20 * disc_HW, 60 - 30 * disc_HW], -1))
    frames_THWC = np.repeat(frame_HWC[None].astype(np.uint8), 5, axis=0)
    path = tmp_path / f"a{suffix}"
    for _ in range(10):
        write_video(path, Video(frames_THWC, 8.0))
        frames_THWC = read_video(path).frames_THWC
    last_HWC = frames_THWC[2].astype(float)
    redness_HW = np.clip(last_HWC[..., 0] - last_HWC[..., 2] - 40, 0, None)
    middle = [float((redness_HW * place).sum() / redness_HW.sum()) for place in (rows, columns)]
    assert middle == pytest.approx([31.5, 31.5], abs=0.15)
    assert np.square(last_HWC - frame_HWC).mean() < 6.5  # 40 dB


def test_the_same_frames_give_the_same_bytes(tmp_path: Path) -> None:
    """Also when fresh memory holds other garbage: x264's macroblock tree reads some."""
    code = (
        "import sys, numpy as np; from mutoscope.video import Video\n"
        "for w, h in ((80, 112), (64, 66)):\n"
        "    t, y, x, _ = np.ogrid[:10, :h, :w, :1]\n"
        "    clip = (128 + 100 * np.sin((x - 3 * t) / 9) * np.cos((y + t) / 7)).astype(np.uint8).repeat(3, 3)\n"
        "    for end in ('mp4', 'webm', 'gif'):\n"
        "        print(Video(clip, 8, {'seed': 1}).save(f'{sys.argv[1]}/{w}.{end}').read_bytes().hex())\n"
    )
    outputs = set()
    for filler in ("1", "170"):
        environment = os.environ | {"MALLOC_PERTURB_": filler}
        command = [sys.executable, "-c", code, str(tmp_path)]
        outputs.add(subprocess.run(command, env=environment, check=True, capture_output=True).stdout)
    assert len(outputs) == 1


def test_the_writer_streams_in_constant_memory(tmp_path: Path) -> None:
    """Twice the frames, no more memory: measured in a process of its own."""
    code = (
        "import sys, resource, numpy as np; from mutoscope.video import VideoWriter\n"
        "frame = np.zeros((1, 240, 320, 3), np.uint8)\n"
        "peaks = []\n"
        "with VideoWriter(sys.argv[1], 320, 240, 24) as writer:\n"
        "    for index in range(120):\n"
        "        frame[:, :, : 5 * index % 320] += 1\n"
        "        writer.write(frame)\n"
        "        peaks.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)\n"
        "print(peaks[-1] - peaks[59])\n"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "a.mp4")]
    growth = int(subprocess.run(command, check=True, capture_output=True).stdout)
    assert growth < 4_000  # kilobytes; 60 frames are 13,500
    assert read_video(tmp_path / "a.mp4").frames == 120


# --- what others wrote comes out in the normal form


def test_varying_rate_is_put_on_a_constant_one(tmp_path: Path) -> None:
    """At 10 per second with a pause of half a second after the third frame."""
    path = encode(tmp_path / "a.mp4", counted(6), ticks=[0, 60, 120, 420, 480, 540])
    video = read_video(path)
    assert video.fps == 10
    assert numbers(video) == [0, 1, 2, 2, 2, 2, 2, 3, 4, 5]


def test_of_frames_at_one_moment_the_last_is_shown(tmp_path: Path) -> None:
    """A recorder with a coarse clock writes two frames at the same time."""
    path = encode(
        tmp_path / "a.mkv", counted(6), [0, 100, 100, 200, 300, 300], Fraction(1, 1000), muxer="matroska"
    )
    video = read_video(path)
    assert video.fps == 10
    assert numbers(video) == [0, 2, 3, 5]


def test_jitter_of_a_phone_is_not_a_varying_rate(tmp_path: Path) -> None:
    ticks = [20 * index + (index * 7) % 3 for index in range(12)]
    video = read_video(encode(tmp_path / "a.mp4", counted(12), ticks))
    assert numbers(video) == list(range(12))
    assert video.fps == pytest.approx(30, rel=0.02)


@pytest.mark.parametrize("turn", [0, 90, 180, 270])
def test_rotation_is_applied(tmp_path: Path, turn: int) -> None:
    upright = np.zeros((3, 48, 80, 3), np.uint8)
    upright[:, :24, :40] = (250, 30, 30)  # red at the top left of what the viewer sees
    stored = np.rot90(upright, -turn // 90, axes=(1, 2)).copy()
    path = encode(tmp_path / "a.mp4", stored, prepare=lambda stream: stream.set_display_rotation(turn))
    video = read_video(path)
    assert (video.height, video.width) == (48, 80)
    assert psnr(upright, video.frames_THWC) > 25


def test_rotation_follows_the_matrix_of_the_standard(tmp_path: Path) -> None:
    """ISO 14496-12: (a b; c d) = (0 1; -1 0) turns the picture a quarter clockwise for showing."""
    stored = np.zeros((2, 48, 80, 3), np.uint8)
    stored[:, :24, :40] = 250
    path = encode(tmp_path / "a.mp4", stored)
    data = bytearray(path.read_bytes())
    matrix = data.index(b"tkhd") + 4 + 4 + 20 + 16
    assert struct.unpack(">9i", data[matrix : matrix + 36])[:2] == (65536, 0)
    data[matrix : matrix + 36] = struct.pack(">9i", 0, 65536, 0, -65536, 0, 0, 48 << 16, 0, 1 << 30)
    path.write_bytes(data)
    assert psnr(np.rot90(stored, -1, axes=(1, 2)), read_video(path).frames_THWC) > 25


def test_pixels_become_square(tmp_path: Path) -> None:
    def squeeze(stream: av.VideoStream) -> None:
        stream.codec_context.sample_aspect_ratio = Fraction(4, 3)

    video = read_video(encode(tmp_path / "a.mp4", smooth(2, 48, 60), prepare=squeeze))
    assert (video.width, video.height) == (80, 48)


@pytest.mark.parametrize("muxer", ["mp4", "mov", "matroska"])
def test_sound_is_ignored(tmp_path: Path, muxer: str) -> None:
    video = read_video(encode(tmp_path / "a.bin", counted(4), audio=True, muxer=muxer))
    assert numbers(video) == [0, 1, 2, 3]
    assert video.fps == 30


def test_cover_pictures_are_not_the_video(tmp_path: Path) -> None:
    cover = tmp_path / "cover.jpg"
    Image.new("RGB", (200, 100), "red").save(cover)
    source = encode(tmp_path / "a.mp4", counted(3))
    with (
        av.open(str(source)) as old,
        av.open(str(cover)) as art,
        av.open(str(tmp_path / "b.mp4"), "w") as new,
    ):
        picture = new.add_stream_from_template(art.streams.video[0])
        picture.disposition = av.stream.Disposition.attached_pic
        film = new.add_stream_from_template(old.streams.video[0])
        for packet in art.demux():
            if packet.dts is not None or packet.size:
                packet.stream, packet.pts, packet.dts = picture, 0, 0
                new.mux(packet)
        for packet in old.demux(old.streams.video[0]):
            if packet.dts is not None:
                packet.stream = film
                new.mux(packet)
    video = read_video(tmp_path / "b.mp4")
    assert (video.width, video.height, video.frames) == (48, 32, 3)


def test_one_frame_is_a_video(tmp_path: Path) -> None:
    assert read_video(encode(tmp_path / "a.mp4", counted(1))).frames == 1
    assert read_video(Video(counted(1), 8).save(tmp_path / "b.mp4")).fps == 8


def test_a_gif_of_others_keeps_its_pace(tmp_path: Path) -> None:
    pictures = [Image.fromarray(frame) for frame in counted(4)]
    pictures[0].save(
        tmp_path / "a.gif", save_all=True, append_images=pictures[1:], duration=[100, 100, 300, 100]
    )
    video = read_video(tmp_path / "a.gif")
    assert (video.fps, numbers(video)) == (10, [0, 1, 2, 2, 2, 3])


def test_pictures_of_all_modes_become_rgb(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    deep = np.full((8, 8), 200 * 256 + 17, np.uint16)
    for image, colour in [
        (Image.new("RGBA", (8, 8), (255, 0, 0, 0)), (255, 255, 255)),
        (Image.new("L", (8, 8), 77), (77, 77, 77)),
        (Image.fromarray(deep), (200, 200, 200)),
        (Image.new("P", (8, 8), 0), (0, 0, 0)),
    ]:
        image.save(path)
        assert read_video(path).frames_THWC[0, 4, 4].tolist() == list(colour)
    turned = Image.Exif()
    turned[0x0112] = 6  # turn a quarter clockwise to show
    Image.new("RGB", (20, 10)).save(tmp_path / "b.jpg", exif=turned)
    assert read_video(tmp_path / "b.jpg").width == 10


# --- what is bad is refused


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """One file of each kind that can be written."""
    folder = tmp_path_factory.mktemp("good")
    files = {end: Video(smooth(8), 8, RECIPE).save(folder / f"a.{end}") for end in ("mp4", "webm", "gif")}
    return files | {end: Video(smooth(1), 8).save(folder / f"a.{end}") for end in ("png", "jpg", "webp")}


@pytest.mark.parametrize("end", ["mp4", "webm", "gif", "png", "webp"])
def test_a_file_cut_anywhere_is_refused(tmp_path: Path, good: dict[str, Path], end: str) -> None:
    data = good[end].read_bytes()
    path = tmp_path / f"cut.{end}"
    for length in [*range(0, 64, 7), *range(64, len(data), max(1, len(data) // 25)), len(data) - 1]:
        path.write_bytes(data[:length])
        with pytest.raises(InputError) as caught:
            read_video(path)
        assert str(path) in str(caught.value)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("end", ["mp4", "webm", "gif", "png", "jpg", "webp"])
def test_damage_raises_input_errors_only(tmp_path: Path, good: dict[str, Path], end: str) -> None:
    data, random = good[end].read_bytes(), np.random.default_rng(0)
    path = tmp_path / f"bad.{end}"
    for _ in range(12):
        bad = bytearray(data)
        start = int(random.integers(len(bad)))
        bad[start : start + 16] = random.bytes(16)
        path.write_bytes(bad)
        for strict in (True, False):
            with contextlib.suppress(InputError):  # anything else fails the test
                read_video(path, strict=strict)
                read_recipe(path)


def test_damage_can_be_tolerated(tmp_path: Path) -> None:
    path = encode(tmp_path / "a.mp4", smooth(30))
    data = bytearray(path.read_bytes())
    middle = data.index(b"mdat") + len(data) // 2
    data[middle : middle + 200] = bytes(200)
    path.write_bytes(data)
    with pytest.raises(InputError):
        read_video(path)
    assert read_video(path, strict=False).frames > 3


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"hello",
        b"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nfile:///etc/passwd\n",
        b"ffconcat version 1.0\nfile /etc/passwd\n",
        b"<svg xmlns='http://www.w3.org/2000/svg'/>",
        b"v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\nm=video 5004 RTP/AVP 96\r\n",
    ],
)
def test_text_with_the_name_of_a_video_is_refused(tmp_path: Path, text: bytes) -> None:
    path = tmp_path / "clip.mp4"
    path.write_bytes(text)
    for read in (read_video, read_recipe):
        with pytest.raises(InputError, match=r"clip\.mp4"):
            read(path)


def test_what_is_no_regular_file_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.mp4")  # opening it would block
    for path in (tmp_path, tmp_path / "none.mp4", tmp_path / "pipe.mp4", Path("/dev/zero")):
        with pytest.raises(InputError):
            read_video(path)


def test_sound_alone_is_refused(tmp_path: Path) -> None:
    with av.open(str(tmp_path / "a.mp4"), "w") as container:
        sound = container.add_stream("aac", rate=16000)
        silence = av.AudioFrame.from_ndarray(np.zeros((1, 16000), np.float32), "fltp", "mono")
        silence.sample_rate, silence.pts = 16000, 0
        container.mux(sound.encode(silence))
        container.mux(sound.encode(None))
    with pytest.raises(InputError, match="no video stream"):
        read_video(tmp_path / "a.mp4")


@pytest.mark.parametrize(
    ("limits", "word"),
    [
        (Limits(bytes=1000), "bytes"),
        (Limits(frames=7), "7 frames"),
        (Limits(pixels=4000), "4000 pixels"),
        (Limits(total_pixels=30000), "30000 pixels"),
    ],
)
@pytest.mark.parametrize("end", ["mp4", "webm", "gif"])
def test_limits_hold_before_and_while_decoding(
    good: dict[str, Path], limits: Limits, word: str, end: str
) -> None:
    with pytest.raises(InputError, match=word):
        read_video(good[end], limits)


@pytest.mark.parametrize("side", [9_000, 100_000])
def test_a_picture_bomb_is_refused_by_its_header(tmp_path: Path, side: int) -> None:
    head = b"IHDR" + struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0)
    chunks = (head, b"IDAT" + zlib.compress(b""), b"IEND")
    data = b"".join(struct.pack(">I", len(c) - 4) + c + struct.pack(">I", zlib.crc32(c)) for c in chunks)
    (tmp_path / "bomb.png").write_bytes(b"\x89PNG\r\n\x1a\n" + data)
    with pytest.raises(InputError, match=r"9000x9000, more than|decompression bomb"):
        read_video(tmp_path / "bomb.png")


def test_a_pause_of_a_day_is_no_bomb(tmp_path: Path) -> None:
    path = encode(tmp_path / "a.mp4", counted(4), ticks=[0, 20, 40, 600 * 86_400])
    with pytest.raises(InputError, match="frames"):
        read_video(path)


# --- what cannot be written leaves nothing behind


@pytest.mark.parametrize("name", ["a.mp4", "a.webm", "a.gif", "a.png"])
def test_places_that_cannot_be_written_are_named(tmp_path: Path, name: str) -> None:
    video = Video(smooth(1), 8)
    with pytest.raises(InputError, match=r"none/a\.\w+: no such file"):
        video.save(tmp_path / "none" / name)
    (tmp_path / name).mkdir()
    with pytest.raises(InputError, match="a folder is there"):
        video.save(tmp_path / name)
    assert [entry.name for entry in tmp_path.iterdir()] == [name]


@pytest.mark.parametrize("end", ["mp4", "webm", "gif"])
def test_a_full_disk_leaves_the_old_file(tmp_path: Path, end: str) -> None:
    path = tmp_path / f"a.{end}"
    path.write_bytes(b"old")
    noise = np.random.default_rng(0).integers(0, 256, (12, 96, 96, 3), np.uint8)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, hard))
    try:
        with pytest.raises(InputError, match="Cannot write"):
            Video(noise, 8).save(path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert path.read_bytes() == b"old"
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]


def test_an_interrupted_writer_leaves_nothing(tmp_path: Path) -> None:
    def interrupted() -> None:
        with VideoWriter(tmp_path / "a.mp4", 64, 64, 8) as writer:
            writer.write(smooth(4))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    with pytest.raises(InputError, match="no frames"), VideoWriter(tmp_path / "a.mp4", 64, 64, 8):
        pass
    assert list(tmp_path.iterdir()) == []


def test_a_killed_writer_leaves_no_file_of_that_name(tmp_path: Path) -> None:
    code = (
        "import sys, os, numpy as np; from mutoscope.video import VideoWriter\n"
        "with VideoWriter(sys.argv[1], 64, 64, 8) as writer:\n"
        "    writer.write(np.zeros((200, 64, 64, 3), np.uint8))\n"
        "    os.kill(os.getpid(), 9)\n"
    )
    assert subprocess.run([sys.executable, "-c", code, str(tmp_path / "a.mp4")]).returncode == -9
    assert not (tmp_path / "a.mp4").exists()


@pytest.mark.parametrize(
    ("make", "word"),
    [
        (lambda folder: Video(smooth(2), 8).save(folder / "a.avi"), r"\.mp4"),
        (lambda folder: Video(smooth(2), 8).save(folder / "a.png"), "one picture"),
        (lambda folder: Video(smooth(2), 60).save(folder / "a.gif"), "at most 50"),
        (lambda folder: Video(smooth(2), 0), "out of range"),
        (lambda folder: Video(smooth(2).astype(np.float32), 8), "uint8"),
        (lambda folder: Video(smooth(2)[:0], 8), "at least one frame"),
        (lambda folder: write_video(folder / "a.mp4", Video(smooth(2), 8), crf=99), "crf"),
        (lambda folder: VideoWriter(folder / "a.mp4", 0, 64, 8), "0x64"),
        (lambda folder: VideoWriter(folder / "a.gif", 64, 64, 8), r"\.mp4"),
    ],
)
def test_wrong_requests_are_refused(tmp_path: Path, make: Callable[[Path], object], word: str) -> None:
    with pytest.raises(InputError, match=word):
        make(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_frames_of_another_size_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="not 32x16"), VideoWriter(tmp_path / "a.mp4", 64, 64, 8) as writer:
        writer.write(smooth(1, 16, 32))


# --- tensors


def test_tensors_and_frames_are_inverse() -> None:
    frames = np.arange(256, dtype=np.uint8).reshape(1, 16, 16, 1).repeat(3, -1)
    tensor = to_tensor(frames)
    assert tensor.shape == (3, 1, 16, 16)
    assert (float(tensor.min()), float(tensor.max())) == (-1.0, 1.0)
    assert np.array_equal(to_frames(tensor), frames)
    assert np.array_equal(to_frames(tensor.double() + 0.003), frames)
    assert to_frames(torch.tensor([-9.0, 9.0, 0.0]).view(3, 1, 1, 1)).ravel().tolist() == [0, 255, 128]
    with pytest.raises(FloatingPointError):
        to_frames(torch.full((3, 1, 2, 2), torch.nan))


def test_fit_covers_and_keeps_the_middle() -> None:
    video = torch.full((1, 3, 2, 40, 100), -1.0)
    video[..., 30:70] = 1.0
    fitted = fit(video, 20, 20)
    assert fitted.shape == (1, 3, 2, 20, 20)
    assert float(fitted[..., 2:-2].min()) > 0.99
    assert torch.equal(fit(video, 40, 100), video)
    stripes = torch.tensor([-1.0, 1.0]).repeat(64).expand(1, 3, 1, 128, 128)
    assert float(fit(stripes, 32, 32)[..., 2:-2].abs().max()) < 0.05  # no moire
    big = fit(torch.rand(1, 3, 1, 7, 5) * 2 - 1, 31, 33)
    assert big.shape[-2:] == (31, 33)
    assert float(big.abs().max()) <= 1.0
    with pytest.raises(InputError):
        fit(video, 0, 20)


def test_another_rate_keeps_the_moments() -> None:
    video = Video(counted(12), 24, RECIPE)
    slow = fit_frames_rate(video, 8)
    assert (slow.fps, numbers(slow), slow.recipe) == (8, [0, 3, 6, 9], RECIPE)
    assert slow.seconds == video.seconds
    assert all(after >= before for before, after in pairwise(numbers(fit_frames_rate(video, 25))))
    assert fit_frames_rate(video, 25).frames == 12


def test_reading_needs_no_torch() -> None:
    code = "import sys, mutoscope.video; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_the_note_is_plain_json(tmp_path: Path) -> None:
    path = Video(smooth(1, 33, 31), 8, RECIPE).save(tmp_path / "a.mp4")
    with av.open(str(path)) as container:
        note = json.loads(container.metadata["comment"])
    assert note == {"mutoscope": 1, "size": [31, 33], "fps": "8", "recipe": RECIPE}


# --- files that are watched while they grow


@pytest.mark.parametrize("suffix", [".mp4", ".mov"])
def test_a_growing_file_plays_while_it_is_written(tmp_path: Path, suffix: str) -> None:
    """Read by another opening of the file: more frames each time, at most a few seconds behind."""
    path, clip, seen = tmp_path / f"a{suffix}", smooth(96), []
    with VideoWriter(path, 64, 64, 8, RECIPE, growing=True) as writer:
        for start in range(0, 96, 24):
            writer.write(clip[start : start + 24])
            with av.open(str(path)) as container:
                seen.append(sum(1 for _ in container.decode(video=0)))
    assert seen == sorted(seen)
    assert seen[1] >= 16
    assert seen[-1] >= 64
    video = read_video(path)
    assert video.frames == 96
    assert video.recipe == RECIPE
    assert psnr(clip, video.frames_THWC) > 38


def test_a_growing_file_stays_after_an_error_and_plays(tmp_path: Path) -> None:
    writer = VideoWriter(tmp_path / "a.mp4", 64, 64, 8, growing=True)
    with contextlib.suppress(RuntimeError), writer:
        writer.write(smooth(20))
        raise RuntimeError
    assert read_video(tmp_path / "a.mp4").frames == 20


def test_a_growing_file_is_the_same_each_time(tmp_path: Path) -> None:
    for name in ("a.mp4", "b.mp4"):
        with VideoWriter(tmp_path / name, 64, 64, 8, RECIPE, growing=True) as writer:
            writer.write(smooth(30))
    assert (tmp_path / "a.mp4").read_bytes() == (tmp_path / "b.mp4").read_bytes()


@pytest.mark.parametrize("name", ["a.webm", "a.gif"])
def test_only_fragments_of_mp4_grow(tmp_path: Path, name: str) -> None:
    with pytest.raises(InputError, match=r"\.mp4"):
        VideoWriter(tmp_path / name, 64, 64, 8, growing=True)
