"""A few evenly spaced frames of a clip, made small: its thumbnail and its sprite sheet. Needs no torch."""

import numpy as np
from PIL import Image

SHEET = (4, 4)
"""Rows and columns of a sprite sheet."""

SMALL = 320
"""Longest side of a thumbnail and of a picture in the sprite sheet, in pixels."""


class Sheet:
    """Keeps a few evenly spaced frames of a stream, made small."""

    def __init__(self, frames: int) -> None:
        rows, columns = SHEET
        count = min(frames, rows * columns)
        self.wanted = [index * (frames - 1) // max(1, count - 1) for index in range(count)]
        self.seen, self.kept = 0, list[np.ndarray]()

    def add(self, frames_THWC: np.ndarray) -> None:
        for frame_HWC in frames_THWC:
            if len(self.kept) < len(self.wanted) and self.seen == self.wanted[len(self.kept)]:
                self.kept.append(_small(frame_HWC))
            self.seen += 1

    def thumbnail(self) -> np.ndarray:
        """The frame in the middle."""
        return self.kept[len(self.kept) // 2]

    def picture(self) -> np.ndarray:
        """All kept frames as one picture, row by row, at most SHEET of them; unused places are black."""
        columns = min(SHEET[1], len(self.kept))
        rows = -(-len(self.kept) // columns)
        height, width, _ = self.kept[0].shape
        sheet_HWC = np.zeros((rows * height, columns * width, 3), np.uint8)
        for index, frame_HWC in enumerate(self.kept):
            top, left = index // columns * height, index % columns * width
            sheet_HWC[top : top + height, left : left + width] = frame_HWC
        return sheet_HWC


def _small(frame_HWC: np.ndarray) -> np.ndarray:
    """The frame within SMALL x SMALL, its shape kept; each pixel is the mean of what it covers."""
    height, width, _ = frame_HWC.shape
    scale = min(SMALL / width, SMALL / height, 1.0)
    size = max(1, round(width * scale)), max(1, round(height * scale))
    return np.asarray(Image.fromarray(frame_HWC).resize(size, Image.Resampling.BOX))
