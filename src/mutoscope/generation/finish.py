"""The last touch to a clip that a server publishes: the size that was asked for, and the mark of its record."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np

from mutoscope.video import fit, to_frames, to_tensor
from mutoscope.watermark import can_carry, marked, number_of_record

PIECE = 8_000_000
"""Pixels that are scaled and written at a time."""


def finished(
    pieces: Iterable[np.ndarray], size: tuple[int, int], fps: float, record: Mapping[str, Any]
) -> Iterator[np.ndarray]:
    """The frames (uint8 THWC, a few at a time) at `size` (width, height), with the number of the record in them.

    A size that is too small for a mark has none.
    """
    frames = (part for piece in pieces for part in scaled(piece, *size))
    return marked(frames, fps, number_of_record(record)) if can_carry(*size) else frames


def scaled(frames_THWC: np.ndarray, width: int, height: int) -> Iterator[np.ndarray]:
    """The frames scaled to cover the size, as many at a time as PIECE pixels hold."""
    step = max(1, PIECE // (width * height))
    for start in range(0, len(frames_THWC), step):
        piece_THWC = frames_THWC[start : start + step]
        if piece_THWC.shape[1:3] == (height, width):
            yield piece_THWC
        else:
            yield to_frames(fit(to_tensor(piece_THWC)[None], height, width)[0])
