"""What a media file is, read from its own bytes before any decoder sees it.

The name of a file proves nothing: its first bytes choose the one format it may be opened as, so that a
playlist or a script with the name clip.mp4 is refused. Its outer structure (boxes, elements, chunks) tells
whether the whole file is here. Sources: ISO/IEC 14496-12 (boxes), RFC 8794 (EBML), GIF89a, W3C PNG, RIFF.
"""

import os
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Literal

from mutoscope.errors import InputError

Kind = Literal["mp4", "matroska", "gif", "png", "jpeg", "webp"]
PICTURES: tuple[Kind, ...] = ("gif", "png", "jpeg", "webp")
READABLE = "MP4, MOV, WebM, MKV, GIF, PNG, JPEG or WebP"


@dataclass(frozen=True)
class Limits:
    """How much of a file we are willing to decode; checked against what it promises and while it decodes."""

    bytes: int = 2 * 2**30
    frames: int = 20_000
    pixels: int = 64_000_000  # of one frame
    total_pixels: int = 1_000_000_000  # of all frames; three bytes of memory each

    def check(self, path: Path, width: int, height: int, frames: int = 1) -> None:
        """Raise InputError when a video of this size, or this many frames of it, is more than allowed."""
        if width < 1 or height < 1:
            raise InputError(f"{path} has frames of {width}x{height} pixels; it shows nothing.")
        if width * height > self.pixels:
            raise InputError(
                f"{path} has frames of {width}x{height}, more than the limit of {self.pixels} pixels; "
                "make it smaller first."
            )
        if frames > self.frames:
            raise InputError(f"{path} has more than the limit of {self.frames} frames; cut it first.")
        if width * height * frames > self.total_pixels:
            raise InputError(
                f"{path} has {frames} or more frames of {width}x{height}, over the limit of "
                f"{self.total_pixels} pixels in all; cut it or make it smaller first."
            )


ORDINARY = Limits()


def examine(path: Path, limits: Limits, strict: bool = True) -> Kind:
    """The kind of media in a regular file that is not too long and, if `strict`, not cut short.

    Raises InputError naming the file otherwise.
    """
    try:
        status = path.stat()
    except OSError as error:
        raise _unreadable(path, error) from error
    if not stat.S_ISREG(status.st_mode):
        raise InputError(f"{path} is not a regular file; give a video or picture file.")
    if status.st_size == 0:
        raise InputError(f"{path} is empty; give a video or picture file.")
    if status.st_size > limits.bytes:
        raise InputError(f"{path} has {status.st_size} bytes; the limit is {limits.bytes}; cut it first.")
    try:
        with path.open("rb") as file:
            kind = _kind(file.read(64))
            if kind is None:
                raise InputError(f"{path} is not a video or picture that can be read; give {READABLE}.")
            try:
                whole = _is_whole(kind, file, limits)
            except (EOFError, IndexError):
                whole = False
    except OSError as error:
        raise _unreadable(path, error) from error
    if strict and not whole:
        raise InputError(f"{path} is cut short or damaged; get the whole {kind} file again.")
    return kind


def _kind(head: bytes) -> Kind | None:
    if head[4:8] in (b"ftyp", b"moov", b"mdat", b"free", b"skip", b"wide", b"pnot"):
        return "mp4"
    if head.startswith(b"\x1a\x45\xdf\xa3"):
        return "matroska"
    if head[:6] in (b"GIF87a", b"GIF89a"):
        return "gif"
    if head.startswith(b"\x89PNG\r\n\x1a\n"):
        return "png"
    if head.startswith(b"\xff\xd8\xff"):
        return "jpeg"
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "webp"
    return None


def _is_whole(kind: Kind, file: BinaryIO, limits: Limits) -> bool:
    """Whether the outermost pieces lie inside the file and the last one that must be there is."""
    end = file.seek(0, os.SEEK_END)
    file.seek(0)
    match kind:
        case "mp4":
            return _boxes_are_whole(file, end)
        case "matroska":
            return _elements_are_whole(file, end)
        case "gif":
            return _gif_is_whole(file, limits)
        case "png":
            return _chunks_are_whole(file, end)
        case "webp":
            return int.from_bytes(_exactly(file, 8)[4:], "little") + 8 <= end
        case "jpeg":  # its decoder notices a cut by itself
            return True


def _boxes_are_whole(file: BinaryIO, end: int) -> bool:
    position, names = 0, set()
    while position < end:
        file.seek(position)
        head = _exactly(file, 8)
        size = int.from_bytes(head[:4])
        if size == 1:
            size = int.from_bytes(_exactly(file, 8))
        elif size == 0:
            size = end - position
        if size < 8 or position + size > end:
            return False
        names.add(head[4:])
        position += size
    return b"moov" in names


def _elements_are_whole(file: BinaryIO, end: int) -> bool:
    segment = False
    while file.tell() < end:
        identifier = _varint(file, keep_marker=True)
        size = _varint(file)
        if size is None:  # a live stream: it ends where the file ends
            return True
        segment = segment or identifier == 0x18538067
        if file.seek(size, os.SEEK_CUR) > end:
            return False
    return segment


def _varint(file: BinaryIO, keep_marker: bool = False) -> int | None:
    """RFC 8794 section 4: as many further bytes as leading zero bits; all ones means unknown (None)."""
    first = _exactly(file, 1)[0]
    length = 9 - first.bit_length()
    value = int.from_bytes(bytes([first]) + _exactly(file, length - 1))
    marker = 1 << (7 * length)
    return value if keep_marker else None if value == 2 * marker - 1 else value - marker


def _gif_is_whole(file: BinaryIO, limits: Limits) -> bool:
    """Walk the blocks to the trailer; also refuses a GIF of too many pictures before one is decoded."""
    head = _exactly(file, 13)
    _skip_colours(file, head[10])
    width, height = int.from_bytes(head[6:8], "little"), int.from_bytes(head[8:10], "little")
    frames = 0
    while (mark := _exactly(file, 1)) != b"\x3b":
        if mark == b"\x21":
            file.seek(1, os.SEEK_CUR)
        elif mark == b"\x2c":
            _skip_colours(file, _exactly(file, 9)[8])
            file.seek(1, os.SEEK_CUR)
            frames += 1
            limits.check(Path(file.name), width, height, frames)
        else:
            return False
        while length := _exactly(file, 1)[0]:
            file.seek(length, os.SEEK_CUR)
    return frames > 0


def _skip_colours(file: BinaryIO, flags: int) -> None:
    if flags & 0x80:
        file.seek(3 * 2 ** ((flags & 7) + 1), os.SEEK_CUR)


def _chunks_are_whole(file: BinaryIO, end: int) -> bool:
    file.seek(8)
    while True:
        head = _exactly(file, 8)
        if file.seek(int.from_bytes(head[:4]) + 4, os.SEEK_CUR) > end:
            return False
        if head[4:] == b"IEND":
            return True


def _exactly(file: BinaryIO, count: int) -> bytes:
    data = file.read(count)
    if len(data) < count:
        raise EOFError
    return data


def _unreadable(path: Path, error: OSError) -> InputError:
    return InputError(f"Cannot read {path}: {(error.strerror or str(error)).lower()}; check the name.")
