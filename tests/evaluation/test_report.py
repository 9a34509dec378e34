import numpy as np

from mutoscope.evaluation.report import contact_sheet


def test_contact_sheet_shows_every_clip_in_its_aspect() -> None:
    rng = np.random.default_rng(0)
    clips = [rng.integers(0, 256, (9, 16, 32, 3), dtype=np.uint8) for _ in range(3)]
    sheet = contact_sheet(clips, ["one", "two", "a long caption " * 8], frames=4, columns=2, side=64)
    assert sheet.width > 2 * 4 * 128
    assert sheet.height > 2 * 64
    picture = np.asarray(sheet)
    left = np.abs(picture[22:86, 22:150].astype(int) - np.repeat(np.repeat(clips[0][0], 4, 0), 4, 1)).mean()
    other = np.abs(picture[22:86, 22:150].astype(int) - np.repeat(np.repeat(clips[1][0], 4, 0), 4, 1)).mean()
    assert left < 0.7 * other


def test_a_picture_is_a_strip_of_one() -> None:
    clip = np.zeros((1, 16, 16, 3), np.uint8)
    one = contact_sheet([clip], ["black"], columns=1, side=32)
    many = contact_sheet([np.repeat(clip, 9, 0)], ["black"], columns=1, side=32)
    assert one.width < many.width
