"""Still pictures and animated ones (GIF, PNG, JPEG, WebP) through Pillow."""

import io
from collections.abc import Iterator
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Literal

import numpy as np
from PIL import ExifTags, Image, ImageOps, PngImagePlugin

from mutoscope.containers import Kind, Limits
from mutoscope.errors import InputError
from mutoscope.files import write_atomically

GIF_MAX_FPS = 50  # viewers slow anything faster down to 10
DESCRIPTION = ExifTags.Base.ImageDescription


def read_pictures(path: Path, kind: Kind, limits: Limits) -> tuple[list[np.ndarray], list[Fraction], str]:
    """Every picture of a file as uint8 (H, W, 3) with its seconds on screen (0 for a still), and the comment.

    Turned as EXIF says; what is transparent is shown on white; 16-bit grey keeps its upper 8 bits. Raises
    InputError beyond the limits; Pillow's own errors pass through.
    """
    frames, milliseconds = [], []
    with Image.open(path, formats=[kind]) as image:
        limits.check(path, image.width, image.height)
        comment = _comment(image)
        for index in _indices(image):
            image.seek(index)
            limits.check(path, image.width, image.height, index + 1)
            frames.append(_rgb(image))
            milliseconds.append(round(image.info.get("duration", 0)))
    unsaid = 0 if len(frames) == 1 else 100  # as browsers show it
    return frames, [Fraction(wait or unsaid, 1000) for wait in milliseconds], comment


def read_comment(path: Path, kind: Kind, limits: Limits) -> str:
    """The comment in a picture file, "" when it has none."""
    with Image.open(path, formats=[kind]) as image:
        limits.check(path, image.width, image.height)
        return _comment(image)


def write_still(
    path: Path, frame_HWC: np.ndarray, kind: Literal["png", "jpeg", "webp"], comment: str
) -> Path:
    """Save one picture with a comment inside: PNG exactly, JPEG and WebP at high quality."""
    image, data = Image.fromarray(frame_HWC), io.BytesIO()
    if kind == "png":
        text = PngImagePlugin.PngInfo()
        text.add_text("comment", comment)
        image.save(data, "PNG", pnginfo=text)
        return write_atomically(path, data.getvalue())
    exif = Image.Exif()
    exif[DESCRIPTION] = comment
    if len(exif.tobytes()) > 65_000:
        raise InputError(f"The recipe of {path} is too long for a {kind} file; save it as .png.")
    if kind == "jpeg":
        image.save(data, "JPEG", quality=95, subsampling=0, exif=exif)
    else:
        image.save(data, "WEBP", quality=95, method=4, exif=exif)
    return write_atomically(path, data.getvalue())


def write_gif(path: Path, frames_THWC: np.ndarray, fps: Fraction, comment: str) -> Path:
    """Save an endless GIF: one palette for the whole clip, so that still areas stay still; ordered dither.

    Delays are whole hundredths of a second, spread so that no frame is off its time by more than half of one.
    """
    if fps > GIF_MAX_FPS:
        raise InputError(
            f"A GIF plays at most {GIF_MAX_FPS} frames a second, not {float(fps):g}; save an .mp4."
        )
    palette = _palette(frames_THWC)
    ticks = [round(100 * index / fps) for index in range(len(frames_THWC) + 1)]
    pictures = (_indexed(frame, palette) for frame in frames_THWC)
    data = io.BytesIO()
    next(pictures).save(
        data,
        "GIF",
        save_all=True,
        append_images=pictures,
        duration=[10 * (after - before) for before, after in pairwise(ticks)],
        loop=0,
        comment=comment.encode(),
        optimize=True,
    )
    return write_atomically(path, data.getvalue())


def _indices(image: Image.Image) -> Iterator[int]:
    """0, 1, ... for as long as the file has another picture; a JPEG's extra pictures are thumbnails."""
    index = 0
    while True:
        try:
            image.seek(index)
        except EOFError:
            return
        yield index
        if image.format not in ("GIF", "PNG", "WEBP"):
            return
        index += 1


def _rgb(image: Image.Image) -> np.ndarray:
    upright = ImageOps.exif_transpose(image)
    if upright.mode.startswith("I"):
        grey = np.asarray(upright).astype(np.int64) >> 8
        return np.repeat(grey.clip(0, 255).astype(np.uint8)[..., None], 3, axis=-1)
    if upright.has_transparency_data:
        upright = upright.convert("RGBA")
        upright = Image.alpha_composite(Image.new("RGBA", upright.size, "white"), upright)
    return np.asarray(upright.convert("RGB"))


def _comment(image: Image.Image) -> str:
    comment = image.info.get("comment", "")
    text = comment.decode("utf-8", "replace") if isinstance(comment, bytes) else str(comment)
    return text or str(image.getexif().get(DESCRIPTION, ""))


def _palette(frames_THWC: np.ndarray) -> Image.Image:
    """256 colours for the whole clip, from at most a million of its pixels."""
    chosen = frames_THWC[:: -(-len(frames_THWC) // 32)]
    step = max(1, int((chosen.size / 3_000_000) ** 0.5 + 0.999))
    sample = np.ascontiguousarray(chosen[:, ::step, ::step]).reshape(-1, chosen[:, :, ::step].shape[2], 3)
    return Image.fromarray(sample).quantize(255, Image.Quantize.MEDIANCUT, kmeans=1)


def _indexed(frame_HWC: np.ndarray, palette: Image.Image) -> Image.Image:
    """The nearest colours of the palette after a 4 x 4 Bayer pattern (the same in every frame)."""
    height, width, _ = frame_HWC.shape
    bayer = np.array([[0, 8, 2, 10], [12, 4, 14, 6], [3, 11, 1, 9], [15, 7, 13, 5]]) / 16 - 15 / 32
    pattern = np.tile(bayer * 4, (-(-height // 4), -(-width // 4)))[:height, :width, None]
    dithered = (frame_HWC + pattern).round().clip(0, 255).astype(np.uint8)
    return Image.fromarray(dithered).quantize(palette=palette, dither=Image.Dither.NONE)
