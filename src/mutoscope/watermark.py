"""An invisible number of 32 bits in a clip that needs no metadata and survives compression and a smaller size.

Each stretch of SECONDS says the whole number by itself, so that a cut of a clip still does. Of the mean luminance of a
stretch, the DCT coefficients of low frequency (periods above 1/5 of a side: no codec drops them, a smaller picture
keeps them) are turned by a fixed random rotation into BITS projections. Each projection is moved to the nearest
point of one of two combs, offset by half a step, that say 0 and 1: quantisation index modulation (Chen and Wornell,
IEEE Trans. Information Theory 47, 2001). So the picture itself does not disturb the reading, as it would in spread
spectrum, and neither the original nor a key is needed. What is added stands still within a stretch, which a video
codec keeps at no cost. Half of the message is a CRC; the reader adds up the evidence of all stretches and turns round
the bits of which it is least certain until the CRC agrees.

Measured on clips of the built-in world: H.264 at crf 28 and half the size, each alone, is survived from 64x64 with 17
frames up, both together from 128x96 up (at 64x64 the 32x32 pixels that are left keep about 35 bits).

The mark is no proof: whoever reads this file can write one, or rub it out. It tells where a clip came from when its
metadata are gone; the signed manifest (serving/provenance.py) is the proof.
"""

import hashlib
import json
import zlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from itertools import combinations
from typing import Any

import numpy as np

NUMBER_BITS = 32
BITS = 64
"""Bits of the message: the number and its CRC-32."""

SECONDS = 1.0
"""Length of a stretch."""

STEP = 1.0
"""Distance of two points of a comb, in levels of 255 of amplitude. The distortion is BITS STEP^2 / 12 per pixel."""

SIDE = 10
"""Half waves per side among which the coefficients are chosen; a marked frame has 2 SIDE pixels per side or more."""

OFFSETS = 8
"""Beginnings of the first stretch that a reader tries, for clips that were cut."""

TURNED = (3, 12)
"""Up to 3 of the 12 least certain bits are turned round, 299 messages; (2, 8), 37 messages, for clips that were cut.

All in all 299 + 7 * 37 = 558 tries of a CRC-32: a clip without a mark is taken for one with in 1.3e-7 of cases.
"""

TURNED_IF_CUT = (2, 8)
ROUNDS = 4
"""Corrections of what rounding and clipping took from a mark."""

MARGINS = (0, 4, 8)
"""Levels by which black and white are moved inwards, the first that gives the mark room."""

LUMA = np.array((0.2126, 0.7152, 0.0722), np.float32)
"""ITU-R BT.709."""

WHITENING = 0x6D75746F
"""Keeps the message of number 0 from being all zeros."""


@dataclass(frozen=True)
class Mark:
    """A number that was found; `certainty` 1 means a clip as it was written, 0.3 one that can just be read."""

    number: int
    certainty: float


def can_carry(width: int, height: int) -> bool:
    """Whether frames of this size have room for a mark."""
    return min(width, height) >= 2 * SIDE


def stretch(fps: float) -> int:
    """Frames that are marked together."""
    return max(1, round(SECONDS * fps))


def embed(frames_THWC: np.ndarray, number: int) -> np.ndarray:
    """The frames (uint8, T H W 3) of one stretch with the number in them.

    They change by 2.3 levels on average (41 dB), a faint unevenness of light. A mark that was there is replaced.
    Pictures of mostly pure black and white have no room for it and are made a little greyer first.
    """
    marked_THWC = frames_THWC
    for margin in MARGINS:
        squeezed_THWC = _squeeze(frames_THWC, margin)
        marked_THWC, missing = _embed(squeezed_THWC, _message(number))
        if missing < STEP / 8:
            break
    return marked_THWC


def marked(pieces: Iterable[np.ndarray], fps: float, number: int) -> Iterator[np.ndarray]:
    """A clip that comes in pieces of uint8 frames, with the number in each stretch of it; holds one stretch."""
    length, waiting = stretch(fps), list[np.ndarray]()
    for piece_THWC in pieces:
        for frame_HWC in piece_THWC:
            waiting.append(frame_HWC)
            if len(waiting) == length:
                yield embed(np.stack(waiting), number)
                waiting.clear()
    if waiting:
        yield embed(np.stack(waiting), number)


def find(frames_THWC: np.ndarray, fps: float) -> Mark | None:
    """The number in a clip (uint8, T H W 3), None when there is none or it cannot be read any more."""
    frames, height, width, _ = frames_THWC.shape
    if not can_carry(2 * width, 2 * height):
        return None
    projected_TN = np.concatenate(
        [_project_each(frames_THWC[start : start + 16]) for start in range(0, frames, 16)]
    )
    length = stretch(fps)
    for cut in range(OFFSETS):
        first = length - cut * length // OFFSETS
        if cut and (first >= frames or first == length):
            continue
        mark = _read(projected_TN, first, length, TURNED_IF_CUT if cut else TURNED)
        if mark is not None:
            return mark
    return None


def number_of(digest: bytes) -> int:
    """The number for something with a digest: its first 32 bits."""
    return int.from_bytes(digest[: NUMBER_BITS // 8])


def number_of_record(record: Mapping[str, Any]) -> int:
    """The number for the record inside a file (see `generation.generate.record`)."""
    return number_of(hashlib.sha256(json.dumps(record, sort_keys=True).encode()).digest())


# --- the message ----------------------------------------------------------------------------------


def _message(number: int) -> np.ndarray:
    """BITS bits (0 or 1): the number and its CRC."""
    return _bits(number << NUMBER_BITS | _check(number))


def _check(number: int) -> int:
    return zlib.crc32((number ^ WHITENING).to_bytes(4))


def _bits(word: int) -> np.ndarray:
    return np.unpackbits(np.frombuffer(word.to_bytes(BITS // 8), np.uint8)).astype(np.float32)


def _read(projected_TN: np.ndarray, first: int, length: int, turned: tuple[int, int]) -> Mark | None:
    """The mark of a clip whose first stretch ends at frame `first`."""
    ends = [*range(first, len(projected_TN), length), len(projected_TN)]
    evidence_N = np.zeros(BITS)
    for start, end in zip([0, *ends], ends, strict=False):
        mean_N = projected_TN[start:end].mean(0)
        evidence_N += (end - start) * np.cos(2 * np.pi * (mean_N / STEP - _plan().dither_N))
    word = int.from_bytes(np.packbits(evidence_N < 0).tobytes())
    depth, width = turned
    doubtful = [BITS - 1 - int(place) for place in np.argsort(np.abs(evidence_N))[:width]]
    for count in range(depth + 1):
        for places in combinations(doubtful, count):
            number, check = divmod(word ^ sum(1 << place for place in places), 1 << NUMBER_BITS)
            if check == _check(number):
                signs_N = 1 - 2 * _message(number)
                return Mark(number, round(float((evidence_N * signs_N).mean() / len(projected_TN)), 3))
    return None


# --- the picture ----------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class _Plan:
    """Which coefficients are used, how they are mixed, where the combs begin (in steps)."""

    places: tuple[np.ndarray, np.ndarray]
    mix_CN: np.ndarray
    dither_N: np.ndarray


@cache
def _plan() -> _Plan:
    """The BITS coefficients of lowest frequency, the mean and the first tilts left out; the rest drawn once for all."""
    coefficients = [(u, v) for u in range(SIDE) for v in range(SIDE) if u + v >= 2]
    coefficients.sort(key=lambda place: (place[0] ** 2 + place[1] ** 2, place))
    rows, columns = np.array(coefficients[:BITS]).T
    random = np.random.RandomState(1897)  # of all generators, the one whose stream is frozen for good
    mix_CN = np.linalg.qr(random.standard_normal((BITS, BITS)))[0]
    signs_N = np.sign(mix_CN[0])  # LAPACKs differ in the signs of columns
    dither_N = random.random_sample(BITS)
    return _Plan((rows, columns), (mix_CN * signs_N).astype(np.float32), dither_N)


@cache
def _waves(length: int) -> np.ndarray:
    """The first SIDE vectors of the DCT-II over `length` pixels, each of mean square 1, (SIDE, length)."""
    half_waves = np.arange(SIDE)[:, None] * (np.arange(length) + 0.5) / length
    waves: np.ndarray = (np.sqrt(2) * np.cos(np.pi * half_waves)).astype(np.float32)
    waves[0] = 1
    return waves


def _project_each(frames_THWC: np.ndarray) -> np.ndarray:
    """The projections (T, BITS) of every frame, in levels of amplitude whatever the size of the frame."""
    _, height, width, _ = frames_THWC.shape
    luma_THW = frames_THWC.astype(np.float32) @ LUMA
    waves_TKK = _waves(height) @ luma_THW @ _waves(width).T / (height * width)
    rows, columns = _plan().places
    projected_TN: np.ndarray = waves_TKK[:, rows, columns] @ _plan().mix_CN
    return projected_TN


def _project(frames_THWC: np.ndarray) -> np.ndarray:
    """The projections (BITS,) of the mean of some frames, a few frames at a time."""
    total_N = sum(
        _project_each(frames_THWC[start : start + 8]).sum(0) for start in range(0, len(frames_THWC), 8)
    )
    mean_N: np.ndarray = np.asarray(total_N) / len(frames_THWC)
    return mean_N


def _embed(frames_THWC: np.ndarray, bits_N: np.ndarray) -> tuple[np.ndarray, float]:
    """The marked frames, and how far off its comb the worst projection remains, in levels."""
    rows_KH, columns_KW = (_waves(side) for side in frames_THWC.shape[1:3])
    offset_N = (_plan().dither_N + bits_N / 2) * STEP
    before_N = _project(frames_THWC)
    target_N = np.round((before_N - offset_N) / STEP) * STEP + offset_N
    change_HW = np.zeros(frames_THWC.shape[1:3], np.float32)
    marked_THWC, missing_N = frames_THWC, target_N - before_N
    for _ in range(ROUNDS):
        change_HW += rows_KH.T @ _spread(missing_N) @ columns_KW
        marked_THWC = _add(frames_THWC, change_HW)
        missing_N = target_N - _project(marked_THWC)
    return marked_THWC, float(np.abs(missing_N).max())


def _squeeze(frames_THWC: np.ndarray, margin: int) -> np.ndarray:
    """The frames with levels 0 to 255 mapped to margin to 255 - margin."""
    levels = np.rint(margin + np.arange(256) * (255 - 2 * margin) / 255).astype(np.uint8)
    squeezed_THWC: np.ndarray = levels[frames_THWC] if margin else frames_THWC
    return squeezed_THWC


def _spread(projected_N: np.ndarray) -> np.ndarray:
    """Coefficients (SIDE, SIDE) that change the projections by so much."""
    coefficients_KK = np.zeros((SIDE, SIDE), np.float32)
    coefficients_KK[_plan().places] = _plan().mix_CN @ projected_N
    return coefficients_KK


def _add(frames_THWC: np.ndarray, change_HW: np.ndarray) -> np.ndarray:
    """The frames, every channel lighter by `change_HW`, rounded and clipped to uint8."""
    marked_THWC = np.empty_like(frames_THWC)
    for index, frame_HWC in enumerate(frames_THWC):
        marked_THWC[index] = np.clip(np.rint(frame_HWC + change_HW[..., None]), 0, 255)
    return marked_THWC
