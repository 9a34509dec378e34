"""Clips that other programs wrote, through every verb: a clip comes out, or one sentence and nothing half-written."""

import json
import sys
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from mutoscope import cli
from mutoscope.video import Video, read_video, write_video

FAST = "--steps 2 --seed 1 --size 32x32 -q"
DISPOSABLE = "sound truncated empty text ffv1 playlist hdr noise divx".split()
"""Files that no verb can use."""
SHORT = "single two still".split()
"""Too short to see how things move."""
VERBS = {
    "image": "generate ball --image {clip} --frames 9 {fast}",
    "last-image": "generate ball --last-image {clip} --frames 9 {fast}",
    "extend": "extend {clip} --seconds 0.5 {fast}",
    "backward": "extend {clip} ball --backward --seconds 0.5 {fast}",
    "loop": "loop {clip} --seconds 0.5 {fast}",
    "blend": "blend {clip} own.mp4 --fps 8 --seconds 0.5 {fast}",
    "interpolate": "interpolate own.mp4 {clip} --seconds 0.5 {fast}",
    "recut": "recut {clip} --keep 0-{keep} {fast}",
    "edit": "edit {clip} ball --strength 0.5 {fast}",
    "restyle": "restyle {clip} night {fast}",
    "inpaint": "inpaint {clip} ball --mask mask.png {fast}",
    "upscale": "upscale {clip} --size 704x384 -q",
    "info": "info {clip}",
    "reproduce": "reproduce {clip}",
    "caption": "caption {clip} -m {captioner} -q",
    "character": "character add rolf {clip} --as ball",
}
NEED_MOTION = "extend backward loop blend interpolate recut".split()


def moving(frames: int, height: int, width: int) -> np.ndarray:
    """A grey square that crosses a gradient, uint8 (T, H, W, 3)."""
    y, x = np.mgrid[0:height, 0:width]
    clip_THWC = np.empty((frames, height, width, 3), np.uint8)
    for index in range(frames):
        clip_THWC[index] = np.stack([40 + 100 * x / width, 60 + 90 * y / height, 90 + 0 * x], -1)
        left = index * (width - width // 4) // max(1, frames)
        clip_THWC[index, height // 3 : 2 * height // 3, left : left + width // 4] = 200
    return clip_THWC


def encode(
    path: Path,
    codec: str = "libx264",
    size: tuple[int, int] = (96, 64),
    frames: int = 12,
    form: str = "yuv420p",
    ticks: Callable[[int], int] = lambda index: 80 * index,
    options: dict[str, str] | None = None,
    prepare: Callable[[av.VideoStream], None] = lambda stream: None,
    muxer: str | None = None,
    sound: bool = False,
) -> None:
    """A clip as other programs write it; ticks are 600ths of a second."""
    with av.open(str(path), "w", format=muxer) as container:
        stream = container.add_stream(codec, rate=Fraction(600, 80), options=options or {})
        assert isinstance(stream, av.VideoStream)
        stream.width, stream.height = size
        stream.pix_fmt = form
        if codec != "mpeg4":
            stream.codec_context.time_base = Fraction(1, 600)
        prepare(stream)
        voice = container.add_stream("aac", rate=16000) if sound else None
        for index, frame_HWC in enumerate(moving(frames, size[1], size[0])):
            picture = av.VideoFrame.from_ndarray(frame_HWC, "rgb24").reformat(format=form)
            picture.pts, picture.time_base = ticks(index), Fraction(1, 600)
            container.mux(stream.encode(picture))
        container.mux(stream.encode(None))
        if voice is not None:
            wave = av.AudioFrame.from_ndarray(np.zeros((1, 16000), np.float32), "fltp", "mono")
            wave.sample_rate, wave.pts = 16000, 0
            container.mux([*voice.encode(wave), *voice.encode(None)])


def hear(path: Path) -> None:
    """Sound without a picture."""
    with av.open(str(path), "w") as container:
        voice = container.add_stream("aac", rate=16000)
        wave = av.AudioFrame.from_ndarray(np.zeros((1, 16000), np.float32), "fltp", "mono")
        wave.sample_rate, wave.pts = 16000, 0
        container.mux([*voice.encode(wave), *voice.encode(None)])


def animate(path: Path, form: str) -> None:
    """An animated picture with transparent parts and uneven delays."""
    pictures = [Image.fromarray(frame) for frame in moving(10, 64, 80)]
    if form == "GIF":
        pictures = [picture.quantize(32) for picture in pictures]
        pictures[0].info["transparency"] = 0
    pictures[0].save(
        path, form, save_all=True, append_images=pictures[1:], duration=[40, 120] * 5, loop=0, disposal=2
    )


def squeezed(stream: av.VideoStream) -> None:
    stream.codec_context.sample_aspect_ratio = Fraction(4, 3)


def turned(stream: av.VideoStream) -> None:
    stream.set_display_rotation(90)


def brilliant(stream: av.VideoStream) -> None:
    stream.codec_context.color_trc = av.video.reformatter.ColorTrc.SMPTE2084


def interlaced(stream: av.VideoStream) -> None:
    stream.codec_context.flags |= av.codec.context.Flags.interlaced_dct


def cut(path: Path) -> None:
    encode(path, muxer="mp4")
    path.write_bytes(path.read_bytes()[:-700])


def spoil(path: Path) -> None:
    """Noise where the pictures were, the index whole."""
    encode(path)
    data = bytearray(path.read_bytes())
    start = data.index(b"mdat") + 4
    stop = data.index(b"moov") - 4
    data[start:stop] = np.random.default_rng(0).bytes(stop - start)
    path.write_bytes(data)


QUIET_X265 = {"x265-params": "log-level=none:pools=1"}
QUIET_AV1 = {"preset": "12", "svtav1-params": "lp=1"}
CLIPS: dict[str, Callable[[Path], object]] = {
    "odd.mp4": lambda path: encode(path, size=(101, 67), form="yuv444p"),
    "odd.webm": lambda path: encode(path, "libvpx-vp9", size=(101, 67), options={"cpu-used": "8"}),
    "varying.mp4": lambda path: encode(path, ticks=lambda index: 25 * index * (index + 1)),
    "turned.mp4": lambda path: encode(path, prepare=turned, sound=True),
    "squeezed.mp4": lambda path: encode(path, prepare=squeezed),
    "hevc.mp4": lambda path: encode(path, "libx265", options=QUIET_X265),
    "hevc10.mov": lambda path: encode(path, "libx265", form="yuv420p10le", options=QUIET_X265),
    "av1.mp4": lambda path: encode(path, "libsvtav1", options=QUIET_AV1),
    "av1-10.webm": lambda path: encode(path, "libsvtav1", form="yuv420p10le", options=QUIET_AV1),
    "ten.mkv": lambda path: encode(path, form="yuv420p10le"),
    "422.mp4": lambda path: encode(path, form="yuv422p10le"),
    "grey.mp4": lambda path: encode(path, form="gray"),
    "screen.mp4": lambda path: encode(
        path, size=(640, 360), frames=8, ticks=lambda index: 600 * index, options={"tune": "stillimage"}
    ),
    "slow.mp4": lambda path: encode(path, frames=6, ticks=lambda index: 12000 * index),
    "fast.mp4": lambda path: encode(path, frames=120, ticks=lambda index: 5 * index),
    "long-gop.mkv": lambda path: encode(path, frames=40, options={"bf": "4", "g": "300"}),
    "negative.mp4": lambda path: encode(
        path, frames=20, options={"bf": "3"}, ticks=lambda index: 80 * index - 400
    ),
    "late.mp4": lambda path: encode(path, sound=True, ticks=lambda index: 3000 + 80 * index),
    "interlaced.mp4": lambda path: encode(path, "libx264", prepare=interlaced),
    "divx.avi": lambda path: encode(path, "mpeg4"),
    "asp.mp4": lambda path: encode(path, "mpeg4"),
    "motion.mov": lambda path: encode(path, "mjpeg", form="yuvj422p"),
    "prores.mov": lambda path: encode(path, "prores_ks", form="yuv422p10le"),
    "alpha.webm": lambda path: encode(path, "libvpx-vp9", form="yuva420p", options={"cpu-used": "8"}),
    "vp8.mkv": lambda path: encode(path, "libvpx"),
    "tiny.mp4": lambda path: encode(path, size=(2, 2)),
    "wide.mp4": lambda path: encode(path, size=(640, 4)),
    "fragments.mp4": lambda path: encode(path, muxer="mp4", options={"g": "4"}),
    "stream.webm": lambda path: encode(path, "libvpx", muxer="webm"),
    "animated.gif": lambda path: animate(path, "GIF"),
    "animated.webp": lambda path: animate(path, "WEBP"),
    "single.mp4": lambda path: encode(path, frames=1),
    "two.mp4": lambda path: encode(path, frames=2),
    "still.png": lambda path: Image.fromarray(moving(1, 67, 101)[0]).quantize(8).save(path),
    "sound.mp4": hear,
    "ffv1.mkv": lambda path: encode(path, "ffv1"),
    "hdr.mp4": lambda path: encode(
        path, "libx265", form="yuv420p10le", options=QUIET_X265, prepare=brilliant
    ),
    "truncated.mp4": cut,
    "noise.mp4": spoil,
    "empty.mp4": lambda path: path.write_bytes(b""),
    "text.mp4": lambda path: path.write_text("no clip at all\n" * 9),
    "playlist.mp4": lambda path: path.write_text("#EXTM3U\n#EXTINF:1,\nfile:///etc/passwd\n"),
}


@pytest.fixture(scope="session")
def foreign(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of all the clips."""
    folder = tmp_path_factory.mktemp("foreign")
    for name, make in CLIPS.items():
        make(folder / name)
    return folder


@pytest.fixture
def here(foreign: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder with one clip of our own, and a place for characters outside it."""
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    monkeypatch.setenv("MUTOSCOPE_DATA", str(tmp_path / "data"))
    write_video("own.mp4", Video(moving(9, 32, 32), 8.0))
    return folder


@pytest.fixture
def meet(
    here: Path,
    model_folder: Path,
    captioner_folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Callable[[Path, str], None]:
    """Run one verb on one clip and check what a user meets."""
    return lambda clip, verb: run(clip, verb, here, (model_folder, captioner_folder), monkeypatch, capsys)


def run(
    clip: Path,
    verb: str,
    here: Path,
    models: tuple[Path, Path],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    kind = clip.stem
    video = read_video("own.mp4" if kind in DISPOSABLE else clip)
    mask_THWC = np.zeros((1, video.height, video.width, 3), np.uint8)
    mask_THWC[:, video.height // 2 :] = 255
    write_video("mask.png", Video(mask_THWC, 8.0))
    before = sorted(path.name for path in here.iterdir())
    words = VERBS[verb].format(
        clip=clip, fast=f"{FAST} -m {models[0]}", captioner=models[1], keep=0.8 * video.seconds
    )
    monkeypatch.setattr(sys, "argv", ["mutoscope", *words.split()])
    with pytest.raises(SystemExit) as exit_:
        cli.main()
    told = capsys.readouterr()
    made = [path for path in here.iterdir() if path.name not in before]
    code = exit_.value.code or 0
    assert code == expected(kind, verb), told.err
    if code == 0:
        assert told.err == ""
        if verb not in ("info", "caption", "character"):
            (path,) = made
            assert path.name == told.out.strip()
            assert read_video(path).frames >= 1
        return
    assert told.err.count("\n") == 1, told.err
    assert "Traceback" not in told.err
    assert told.out == ""
    assert made == []


def expected(kind: str, verb: str) -> int:
    if kind in DISPOSABLE or verb == "reproduce":
        return 2
    if verb in NEED_MOTION and kind in SHORT:
        return 2
    return 0


CORE = list(zip(CLIPS, list(VERBS) * 4, strict=False))


@pytest.mark.parametrize(("name", "verb"), CORE)
def test_a_foreign_clip(name: str, verb: str, foreign: Path, meet: Callable[[Path, str], None]) -> None:
    meet(foreign / name, verb)


@pytest.mark.slow
@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize("name", CLIPS)
def test_every_verb_on_every_clip(
    name: str, verb: str, foreign: Path, meet: Callable[[Path, str], None]
) -> None:
    meet(foreign / name, verb)


def test_info_tells_what_a_player_shows(
    foreign: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Upright, in square pixels, at the pace of the file."""
    for name, size, seconds in (
        ("odd.mp4", "101x67", 1.6),
        ("turned.mp4", "64x96", 1.6),
        ("squeezed.mp4", "128x64", 1.6),
        ("screen.mp4", "640x360", 8.0),
        ("slow.mp4", "96x64", 120.0),
        ("negative.mp4", "96x64", 2.0),
        ("late.mp4", "96x64", 1.6),
        ("animated.gif", "80x64", 0.8),
    ):
        monkeypatch.setattr(sys, "argv", ["mutoscope", "info", str(foreign / name), "--json"])
        with pytest.raises(SystemExit) as exit_:
            cli.main()
        assert not exit_.value.code
        facts = json.loads(capsys.readouterr().out)
        assert (facts["size"], facts["recipe"]) == (size, None), name
        assert facts["seconds"] == pytest.approx(seconds, abs=0.06), name


def test_a_second_clip_too_short_for_the_pace_of_the_first(
    foreign: Path,
    here: Path,
    model_folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    words = ["mutoscope", "blend", str(foreign / "screen.mp4"), "own.mp4", "-m", str(model_folder)]
    monkeypatch.setattr(sys, "argv", words)
    with pytest.raises(SystemExit) as exit_:
        cli.main()
    assert exit_.value.code == 2
    assert "own.mp4 has 1 frame at 1 fps; blend needs 5" in (told := capsys.readouterr().err)
    assert "more fps" in told
