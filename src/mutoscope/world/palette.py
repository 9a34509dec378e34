"""Colours of the paper theatre: the ten paints, the eight backdrops, and who may be seen before whom."""

from dataclasses import dataclass

import numpy as np

Rgb = tuple[int, int, int]

PALETTE: dict[str, Rgb] = {
    "red": (222, 48, 44),
    "orange": (245, 134, 24),
    "yellow": (255, 213, 46),
    "green": (44, 160, 72),
    "cyan": (24, 190, 210),
    "blue": (34, 98, 220),
    "purple": (142, 48, 178),
    "pink": (255, 122, 182),
    "white": (250, 250, 246),
    "black": (36, 36, 42),
}


@dataclass(frozen=True)
class Backdrop:
    """One backdrop: sky gradient, a glow, two cut-paper ridges, the stage floor. Lengths in stage units."""

    sky_top: Rgb
    sky_bottom: Rgb
    glow: Rgb
    glow_place: tuple[float, float, float]  # x, y, radius
    far: Rgb
    near: Rgb
    floor: Rgb
    ridge: str  # "hills", "waves", "peaks" or "flat"
    far_shape: tuple[float, float, float]  # mean height, amplitude, spatial frequency (radians per unit)
    near_shape: tuple[float, float, float]


BACKDROPS: dict[str, Backdrop] = {
    "day": Backdrop(
        (132, 192, 232), (206, 232, 244), (255, 250, 225), (-0.28, 0.86, 0.34),
        (164, 208, 196), (138, 190, 168), (226, 208, 172), "hills", (0.36, 0.050, 4.2), (0.27, 0.035, 6.0),
    ),
    "sunset": Backdrop(
        (150, 110, 156), (250, 196, 160), (255, 232, 196), (0.16, 0.42, 0.36),
        (196, 132, 142), (160, 104, 128), (116, 78, 104), "hills", (0.36, 0.040, 3.4), (0.28, 0.030, 5.2),
    ),
    "night": Backdrop(
        (22, 28, 62), (58, 70, 118), (128, 140, 184), (0.30, 0.84, 0.22),
        (46, 56, 100), (36, 44, 82), (74, 76, 116), "hills", (0.38, 0.055, 3.8), (0.28, 0.035, 5.6),
    ),
    "desert": Backdrop(
        (246, 220, 172), (252, 240, 214), (255, 250, 232), (0.24, 0.80, 0.30),
        (232, 202, 150), (220, 184, 126), (202, 160, 104), "hills", (0.37, 0.060, 2.6), (0.28, 0.045, 3.6),
    ),
    "meadow": Backdrop(
        (198, 230, 226), (238, 246, 226), (255, 252, 230), (0.26, 0.84, 0.30),
        (190, 220, 158), (168, 206, 134), (142, 186, 112), "hills", (0.36, 0.050, 3.6), (0.27, 0.030, 5.0),
    ),
    "ocean": Backdrop(
        (170, 214, 218), (226, 240, 232), (255, 250, 230), (-0.24, 0.80, 0.30),
        (128, 184, 194), (98, 158, 178), (70, 128, 156), "waves", (0.35, 0.030, 9.0), (0.28, 0.030, 12.0),
    ),
    "lavender": Backdrop(
        (204, 188, 228), (228, 218, 242), (244, 238, 252), (-0.2, 0.70, 0.50),
        (190, 172, 218), (190, 172, 218), (158, 134, 190), "flat", (0.34, 0.0, 1.0), (0.30, 0.0, 1.0),
    ),
    "snow": Backdrop(
        (158, 182, 212), (206, 220, 236), (236, 242, 248), (0.22, 0.78, 0.30),
        (222, 230, 240), (234, 240, 246), (246, 248, 250), "peaks", (0.38, 0.080, 5.0), (0.27, 0.030, 7.0),
    ),
}  # fmt: skip


def to_lab(rgb: np.ndarray) -> np.ndarray:
    """sRGB in 0..255, shape (..., 3), to CIELAB (D65), shape (..., 3). Source: CIE 15, IEC 61966-2-1."""
    value = np.asarray(rgb, np.float64) / 255
    linear = np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4)
    xyz = linear @ np.array(
        [
            [0.4124564, 0.2126729, 0.0193339],
            [0.3575761, 0.7151522, 0.1191920],
            [0.1804375, 0.0721750, 0.9503041],
        ]
    )
    ratio = xyz / np.array([0.95047, 1.0, 1.08883])
    root = np.where(ratio > (6 / 29) ** 3, np.cbrt(ratio), ratio * (29 / 6) ** 2 / 3 + 4 / 29)
    x, y, z = root[..., 0], root[..., 1], root[..., 2]
    return np.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], -1)


def _contrasting(backdrop: Backdrop) -> tuple[str, ...]:
    """Paints at least MIN_CONTRAST away (CIELAB) from every colour of the backdrop."""
    places = [backdrop.sky_top, backdrop.sky_bottom, backdrop.far, backdrop.near, backdrop.floor]
    lab_places = to_lab(np.array(places))
    return tuple(
        name
        for name, paint in PALETTE.items()
        if np.linalg.norm(lab_places - to_lab(np.array(paint)), axis=-1).min() >= MIN_CONTRAST
    )


MIN_CONTRAST = 24.0
VISIBLE_ON: dict[str, tuple[str, ...]] = {
    name: _contrasting(backdrop) for name, backdrop in BACKDROPS.items()
}
