"""Video files to frames and back; frames to tensors in [-1, 1] and back. The only file that imports av.

What is read comes out in one normal form: uint8 RGB frames (T, H, W, 3), upright, square pixels, constant
frame rate. What is written is H.264 in MP4 (or VP9 in WebM), tagged BT.709 and limited range, exact in time,
with the recipe inside, and the same bytes for the same frames. 4:2:0 pictures have even sides: an odd side is
padded by repeating its last row or column; the true size is kept in the file and restored by `read_video`.
"""

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from fractions import Fraction
from itertools import accumulate
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, BinaryIO, Literal, Self

import av
import numpy as np
from av.video.reformatter import (
    ColorPrimaries,
    ColorRange,
    Colorspace,
    ColorTrc,
    Interpolation,
    VideoReformatter,
)

from mutoscope.containers import ORDINARY, PICTURES, Kind, Limits, examine
from mutoscope.errors import InputError
from mutoscope.files import commit, discard, partial_name, sync, unwritable
from mutoscope.pictures import read_comment, read_pictures, write_gif, write_still
from mutoscope.rates import Timing, exact_rate, steady

if TYPE_CHECKING:
    from torch import Tensor

STILL_FPS = 8.0  # a still has no rate; at the house's default it stays one frame
CODECS = ("h264", "hevc", "vp8", "vp9", "av1", "libdav1d", "mpeg4", "mjpeg", "prores")
STREAMS = {
    ".mp4": ("mp4", "libx264"),
    ".mov": ("mov", "libx264"),
    ".webm": ("webm", "libvpx-vp9"),
}
GROWING = (".mp4", ".mov")
GROWTH = 1  # seconds of a fragment: how far a player may be behind, beside the coder's look ahead
STILLS: dict[str, Literal["png", "jpeg", "webp"]] = {
    ".png": "png",
    ".jpg": "jpeg",
    ".jpeg": "jpeg",
    ".webp": "webp",
}
# swscale's default loses 8 dB on the way back to RGB by rounding (measured: 44.6 dB of a smooth 720p picture, as
# fast as 3000 frames a second); TO_RGB keeps 53.0 dB at 330 where it is bilinear, TO_YUV 52.2 dB at 510. Bicubic is
# 0.7 times as fast, and what clips are made of again and again needs it: 10 files on, 46 dB are left and not 35.
TO_YUV = Interpolation.BICUBIC | Interpolation.FULL_CHR_H_INP | Interpolation.ACCURATE_RND
TO_RGB = Interpolation.BICUBIC | Interpolation.FULL_CHR_H_INT | Interpolation.ACCURATE_RND
BITEXACT = 1024  # AVFMT_FLAG_BITEXACT: no dates, versions or random identifiers in the file
UNSPECIFIED = 2  # of a colour matrix, ITU-T H.273 table 4
BRIGHTER_THAN_SDR = (ColorTrc.SMPTE2084, ColorTrc.ARIB_STD_B67)


@dataclass(frozen=True, eq=False)
class Video:
    """Frames (T, H, W, 3) uint8 RGB, T >= 1, shown at a constant `fps`; `recipe` tells how it was made."""

    frames_THWC: np.ndarray
    fps: float
    recipe: dict[str, Any] | None = None

    def __post_init__(self) -> None:
        _need_frames(self.frames_THWC)
        if self.frames == 0:
            raise InputError("A video has at least one frame; this one has none.")
        exact_rate(self.fps)

    @property
    def frames(self) -> int:
        return int(self.frames_THWC.shape[0])

    @property
    def height(self) -> int:
        return int(self.frames_THWC.shape[1])

    @property
    def width(self) -> int:
        return int(self.frames_THWC.shape[2])

    @property
    def seconds(self) -> float:
        return self.frames / self.fps

    def save(self, path: str | Path) -> Path:
        """Write to `path` in the format of its suffix; see `write_video`."""
        return write_video(path, self)


def write_video(path: str | Path, video: Video, crf: int = 14) -> Path:
    """Write .mp4 .mov .webm, .gif, or one frame as .png .jpg .webp; whole or not at all.

    `crf` is the codec's constant quality, 0 best to 51. Raises InputError for an unknown suffix, a place that
    cannot be written, several frames for a still.
    """
    path = Path(path)
    suffix = path.suffix.lower()
    if suffix in STREAMS:
        with VideoWriter(path, video.width, video.height, video.fps, video.recipe, crf) as writer:
            writer.write(video.frames_THWC)
        return path
    rate = exact_rate(video.fps)
    comment = _comment(video.width, video.height, rate, video.recipe)
    if suffix == ".gif":
        return write_gif(path, video.frames_THWC, rate, comment)
    if suffix not in STILLS:
        raise _unknown_suffix(path, [*STREAMS, ".gif", *STILLS])
    if video.frames != 1:
        raise InputError(f"{path} holds one picture, not {video.frames} frames; save it as .mp4 or .gif.")
    return write_still(path, video.frames_THWC[0], STILLS[suffix], comment)


class VideoWriter:
    """Writes frames to .mp4 .mov or .webm as they come, in constant memory; a context manager.

    The file appears under its name when the block ends without an exception, else nothing remains. With
    `growing` (.mp4 and .mov) it has its name from the start and can be played while it grows: fragments of
    GROWTH seconds, each flushed when it is whole; after an exception what was written stays. Raises InputError
    when the place cannot be written or a frame has another size.
    """

    def __init__(
        self,
        path: str | Path,
        width: int,
        height: int,
        fps: float,
        recipe: Mapping[str, Any] | None = None,
        crf: int = 14,
        growing: bool = False,
    ) -> None:
        self.path, self.width, self.height, self.crf = Path(path), width, height, crf
        if self.path.suffix.lower() not in STREAMS:
            raise _unknown_suffix(self.path, list(STREAMS))
        if not (1 <= width <= 16384 and 1 <= height <= 16384):
            raise InputError(f"A video of {width}x{height} cannot be written; sides are 1 to 16384 pixels.")
        if not 0 <= crf <= 51:
            raise InputError(f"crf is {crf}; it is 0 (best) to 51 (smallest file).")
        if growing and self.path.suffix.lower() not in GROWING:
            raise InputError(f"{self.path} cannot be watched while it grows; name it .mp4.")
        self.rate, self.frames, self.growing = exact_rate(fps), 0, growing
        self._comment = _comment(width, height, self.rate, recipe)
        self._reformatter = VideoReformatter()

    def __enter__(self) -> Self:
        self._partial = partial_name(self.path)
        muxer, codec = STREAMS[self.path.suffix.lower()]
        options = {} if muxer == "webm" else {"movflags": "+faststart"}
        if self.growing:
            self._partial = self.path
            options = {"movflags": "+frag_keyframe+empty_moov+default_base_moof", "flush_packets": "1"}
        try:
            self._container = av.open(f"file:{self._partial}", "w", format=muxer, container_options=options)
        except OSError as error:
            if not self.growing:
                discard(self._partial)
            raise unwritable(self.path, error) from error
        self._container.flags |= BITEXACT
        self._container.metadata["comment"] = self._comment
        self._stream = self._new_stream(codec)
        return self

    def write(self, frames_THWC: np.ndarray) -> None:
        """Append uint8 frames (T, height, width, 3), T >= 0."""
        _need_frames(frames_THWC)
        if frames_THWC.shape[1:3] != (self.height, self.width):
            size = f"{frames_THWC.shape[2]}x{frames_THWC.shape[1]}"
            raise InputError(f"{self.path} holds frames of {self.width}x{self.height}, not {size}.")
        odd = ((0, self.height % 2), (0, self.width % 2), (0, 0))
        for frame_HWC in frames_THWC:
            picture = av.VideoFrame.from_ndarray(np.pad(frame_HWC, odd, mode="edge"), "rgb24")
            picture = self._reformatter.reformat(
                picture,
                format="yuv420p",
                dst_colorspace=Colorspace.ITU709,
                dst_color_range=ColorRange.MPEG,
                interpolation=TO_YUV,
                threads=1,
            )
            picture.pts, picture.time_base = self.frames, 1 / self.rate
            picture.color_primaries, picture.color_trc = ColorPrimaries.BT709, ColorTrc.BT709
            self._mux(picture)
            self.frames += 1

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if error is not None:
                with suppress(Exception):
                    if self.growing:
                        self._mux(None)
                    self._container.close()
                return
            if self.frames == 0:
                raise InputError(f"{self.path} would have no frames; write at least one.")
            self._mux(None)
            self._container.close()
            if self.growing:
                sync(self.path)
            else:
                commit(self._partial, self.path)
        except OSError as failure:
            raise unwritable(self.path, failure) from failure
        finally:
            if not self.growing:
                discard(self._partial)

    def _new_stream(self, codec: str) -> av.VideoStream:
        options = {"crf": str(self.crf)}
        if codec == "libx264":
            # x264's macroblock tree reads memory that it did not write: other bytes each run at most sizes.
            # TO_YUV puts colours between two pixels: of a file that does not say so they are read half a pixel off.
            options |= {"preset": "veryfast", "x264-params": "mbtree=0:chromaloc=1"}
            if self.growing:
                options |= {"g": str(max(1, round(GROWTH * self.rate)))}
        else:
            options |= {"b": "0", "deadline": "good", "cpu-used": "4", "row-mt": "1"}
        stream = self._container.add_stream(codec, rate=self.rate, options=options)
        assert isinstance(stream, av.VideoStream)
        stream.width, stream.height = self.width + self.width % 2, self.height + self.height % 2
        stream.pix_fmt = "yuv420p"
        context = stream.codec_context
        context.time_base = 1 / self.rate
        context.thread_count = 2  # fixed, since the bytes depend on it
        context.colorspace, context.color_range = Colorspace.ITU709, ColorRange.MPEG
        context.color_primaries, context.color_trc = ColorPrimaries.BT709, ColorTrc.BT709
        context.flags |= av.codec.context.Flags.bitexact
        return stream

    def _mux(self, picture: av.VideoFrame | None) -> None:
        try:
            for packet in self._stream.encode(picture):
                self._container.mux(packet)
        except OSError as error:
            raise unwritable(self.path, error) from error


def read_video(path: str | Path, limits: Limits = ORDINARY, strict: bool = True) -> Video:
    """Read a whole video or picture file, in the normal form told at the top of this file.

    Sound is ignored. Frames at varying times are put on a constant rate, each moment showing the frame that a
    player would. `strict` refuses files that are cut short or whose decoder reports damage; without it what
    decodes is kept. Raises InputError, and nothing else, for a bad file or one over `limits`.
    """
    path = Path(path)
    kind = examine(path, limits, strict)
    try:
        if kind in PICTURES:
            frames, timing, comment = _read_pictures(path, kind, limits)
        else:
            frames, timing, comment = _read_stream(path, kind, limits, strict)
        note = _read_note(comment)
        rate = note.rate if note.rate and timing.suits(note.rate) else timing.constant_rate(STILL_FPS)
        height, width, _ = frames[0].shape
        limits.check(path, width, height, timing.count(rate))
        if note.size and (width, height) == tuple(side + side % 2 for side in note.size):
            width, height = note.size
        return Video(_gather(frames, timing.shown(rate), width, height), float(rate), note.recipe)
    except InputError:
        raise
    except (
        Exception
    ) as error:  # decoders raise many kinds: EOFError, IndexError, PermissionError, MemoryError
        raise InputError(f"{path} cannot be decoded ({_reason(error)}); get the file again.") from error


def read_recipe(path: str | Path, limits: Limits = ORDINARY) -> dict[str, Any] | None:
    """The recipe that `write_video` put into a file, None when there is none; decodes no frame.

    Raises InputError for a file that is no video or picture.
    """
    path = Path(path)
    kind = examine(path, limits, strict=False)
    try:
        if kind in PICTURES:
            return _read_note(read_comment(path, kind, limits)).recipe
        with path.open("rb") as file, _open(file, kind) as container:
            return _read_note(_container_comment(container)).recipe
    except InputError:
        raise
    except Exception as error:
        raise InputError(f"{path} cannot be read ({_reason(error)}); get the file again.") from error


def to_tensor(frames_THWC: np.ndarray) -> "Tensor":
    """uint8 (T, H, W, 3) to float32 (3, T, H, W) in [-1, 1]: x / 127.5 - 1."""
    import torch

    _need_frames(frames_THWC)
    frames_CTHW = np.ascontiguousarray(frames_THWC.transpose(3, 0, 1, 2))
    return torch.from_numpy(frames_CTHW).float().div_(127.5).sub_(1)


def to_frames(video_CTHW: "Tensor") -> np.ndarray:
    """(3, T, H, W) in [-1, 1] to uint8 (T, H, W, 3): the nearest level, clamped; undoes `to_tensor` exactly.

    Raises FloatingPointError when a value is not a number, rather than show a black picture.
    """
    if bool(video_CTHW.isnan().any()):
        raise FloatingPointError("The video holds values that are not numbers.")
    levels = video_CTHW.detach().float().add(1).mul_(127.5).round_().clamp_(0, 255)
    return np.ascontiguousarray(levels.byte().permute(1, 2, 3, 0).cpu().numpy())


def leader(picture_BCTHW: "Tensor", grey: int) -> "Tensor":
    """The strip before a film that tells whom it is about: a picture, held or not, then so many grey frames.

    The grey ones say that what comes is another shot, as a clip that goes on from the picture has none.
    """
    import torch

    blank_BCTHW = torch.zeros_like(picture_BCTHW[:, :, :1]).expand(-1, -1, grey, -1, -1)
    return torch.cat([picture_BCTHW, blank_BCTHW], dim=2)


def fit(video_BCTHW: "Tensor", height: int, width: int) -> "Tensor":
    """Scale to cover (height, width), without aliasing, and cut out the middle; stays in [-1, 1]."""
    import torch.nn.functional as F

    if height < 1 or width < 1:
        raise InputError(f"A video cannot be fitted to {width}x{height}; sides are at least 1 pixel.")
    batch, channels, frames, old_height, old_width = video_BCTHW.shape
    scale = max(height / old_height, width / old_width)
    size = max(height, round(old_height * scale)), max(width, round(old_width * scale))
    flat = video_BCTHW.transpose(1, 2).reshape(batch * frames, channels, old_height, old_width)
    if size != (old_height, old_width):
        flat = F.interpolate(flat, size, mode="bicubic", antialias=True).clamp(-1, 1)
    top, left = (size[0] - height) // 2, (size[1] - width) // 2
    flat = flat[..., top : top + height, left : left + width]
    return flat.reshape(batch, frames, channels, height, width).transpose(1, 2)


def fit_frames_rate(video: Video, fps: float) -> Video:
    """The same moments at another rate: each new frame is the one nearest in time, none is blended."""
    old, new = exact_rate(video.fps), exact_rate(fps)
    timing = steady(video.frames, old)
    if old == new or video.frames == 1:
        return Video(video.frames_THWC, float(new), video.recipe)
    return Video(video.frames_THWC[list(timing.shown(new))], float(new), video.recipe)


# --- the note inside a file: its true size and rate, and the recipe -------------------------------


@dataclass(frozen=True)
class _Note:
    size: tuple[int, int] | None = None
    rate: Fraction | None = None
    recipe: dict[str, Any] | None = None


def _comment(width: int, height: int, rate: Fraction, recipe: Mapping[str, Any] | None) -> str:
    return json.dumps({"mutoscope": 1, "size": [width, height], "fps": str(rate), "recipe": recipe})


def _read_note(comment: str) -> _Note:
    """The note in a comment; an empty one when somebody else wrote the comment."""
    try:
        data = json.loads(comment)
        width, height = (int(side) for side in data["size"])
        rate, recipe = exact_rate(float(Fraction(data["fps"]))), data["recipe"]
        return _Note((width, height), rate, recipe if isinstance(recipe, dict) else None)
    except (ValueError, KeyError, TypeError, ArithmeticError, RecursionError):
        return _Note()


def _container_comment(container: av.container.InputContainer) -> str:
    return next((text for key, text in container.metadata.items() if key.lower() == "comment"), "")


# --- decoding -------------------------------------------------------------------------------------


def _read_pictures(path: Path, kind: Kind, limits: Limits) -> tuple[list[np.ndarray], Timing, str]:
    frames, seconds, comment = read_pictures(path, kind, limits)
    times = [Fraction(0), *accumulate(seconds)]
    end = times.pop() or 1 / exact_rate(STILL_FPS)
    return frames, Timing(tuple(times), end, exact_rate(float(len(frames) / end)), Fraction(1, 100)), comment


def _read_stream(
    path: Path, kind: Kind, limits: Limits, strict: bool
) -> tuple[list[np.ndarray], Timing, str]:
    """The frames of the first real video stream, upright in RGB."""
    frames: list[np.ndarray] = []
    clock: list[Fraction] = []
    end = Fraction(0)
    with path.open("rb") as file, _open(file, kind) as container:
        stream = _picture_stream(path, container, limits)
        reformatter = VideoReformatter()
        for frame, time, duration in _decoded(path, container, stream, strict):
            if clock and time < clock[-1]:
                if strict:
                    raise InputError(f"{path} has frames that go back in time; re-encode it.")
                continue
            if clock and time == clock[-1]:  # the one before is shown for no time at all
                frames.pop()
                clock.pop()
            limits.check(path, frame.width, frame.height, len(frames) + 1)
            frames.append(_upright_rgb(frame, stream.sample_aspect_ratio, reformatter, limits, path))
            if frames[-1].shape != frames[0].shape:
                raise InputError(f"{path} changes its size at frame {len(frames)}; cut it there.")
            clock.append(time)
            end = time + duration
        if not frames:
            raise InputError(f"{path} holds no picture that decodes; get the file again.")
        times = tuple(time - clock[0] for time in clock)
        timing = Timing(times, end - clock[0], stream.average_rate, stream.time_base or Fraction(0))
        return frames, timing, _container_comment(container)


def _open(file: BinaryIO, kind: Kind) -> av.container.InputContainer:
    """Open a file object as one given format: nothing in it can make FFmpeg open another file or address."""
    return av.open(
        file, "r", format=kind, metadata_errors="replace", container_options={"protocol_whitelist": "none"}
    )


def _picture_stream(path: Path, container: av.container.InputContainer, limits: Limits) -> av.VideoStream:
    """The first video stream that is no cover picture, set up to decode, its promises within the limits."""
    streams = [
        stream
        for stream in container.streams.video
        if not stream.disposition & av.stream.Disposition.attached_pic
    ]
    if not streams:
        raise InputError(f"{path} holds no video stream; give a file with pictures.")
    stream = streams[0]
    context = stream.codec_context
    if context.name not in CODECS:
        raise InputError(f"{path} is coded as {context.name}; re-encode it as H.264, e.g. with ffmpeg.")
    limits.check(path, stream.width, stream.height, max(1, stream.frames))
    context.thread_type, context.thread_count = "AUTO", min(4, os.cpu_count() or 1)
    context.options = {"max_pixels": str(limits.pixels)}
    return stream


def _decoded(
    path: Path, container: av.container.InputContainer, stream: av.VideoStream, strict: bool
) -> Iterator[tuple[av.VideoFrame, Fraction, Fraction]]:
    """Frames in the order of showing, when each appears and for how long (0 = unknown).

    `strict`: any sign of damage is an InputError; else what decodes is kept.
    """
    if strict:
        stream.codec_context.options |= {"err_detect": "explode"}
    found = unshown = 0
    for packet in container.demux(stream):
        unshown += packet.is_discard
        try:
            frames = packet.decode()
        except av.FFmpegError:
            if strict:
                raise
            continue
        for frame in frames:
            if strict and (frame.is_corrupt or packet.is_corrupt):
                raise InputError(f"{path} is damaged at frame {found}; get the file again.")
            found += 1
            if frame.pts is not None and (base := frame.time_base):
                yield frame, frame.pts * base, (frame.duration or 0) * base
    if strict and found + unshown < stream.frames:
        raise InputError(f"{path} promises {stream.frames} frames and {found} decode; get the file again.")


def _upright_rgb(
    frame: av.VideoFrame, aspect: Fraction | None, reformatter: VideoReformatter, limits: Limits, path: Path
) -> np.ndarray:
    """(H, W, 3) uint8: square pixels (the shorter measure is stretched), turned as the file says."""
    if frame.color_trc in BRIGHTER_THAN_SDR:
        raise InputError(f"{path} is HDR; convert it to SDR (BT.709) first.")
    width, height = frame.width, frame.height
    if aspect and aspect > 0:
        width, height = round(width * max(1.0, float(aspect))), round(height * max(1.0, float(1 / aspect)))
        limits.check(path, width, height)
    source = None
    if frame.colorspace == UNSPECIFIED:
        source = Colorspace.ITU709 if frame.height >= 720 else Colorspace.ITU601  # as players guess
    picture = reformatter.reformat(
        frame, width, height, "rgb24", src_colorspace=source, interpolation=TO_RGB, threads=1
    )
    return np.rot90(picture.to_ndarray(), round(frame.rotation / 90))


def _gather(frames: list[np.ndarray], indices: Sequence[int], width: int, height: int) -> np.ndarray:
    """One array of the chosen frames; `frames` is emptied on the way, so that memory holds them once."""
    chosen_THWC = np.empty((len(indices), height, width, 3), np.uint8)
    last = 0
    for place, index in enumerate(indices):
        chosen_THWC[place] = frames[index][:height, :width]
        if index > last:
            frames[last:index] = [frames[index]] * (index - last)
            last = index
    return chosen_THWC


# --- words ----------------------------------------------------------------------------------------


def _need_frames(frames_THWC: np.ndarray) -> None:
    if frames_THWC.ndim != 4 or frames_THWC.shape[3] != 3 or frames_THWC.dtype != np.uint8:
        raise InputError(
            f"Frames are uint8 of shape (T, H, W, 3), not {frames_THWC.dtype} {frames_THWC.shape}; "
            "to_frames makes them of tensors."
        )


def _unknown_suffix(path: Path, known: list[str]) -> InputError:
    return InputError(f"{path} has no ending that can be written; use one of {' '.join(known)}.")


def _reason(error: Exception) -> str:
    text = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return text.splitlines()[0][:120].lower()
