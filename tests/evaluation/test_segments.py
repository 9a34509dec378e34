import numpy as np
import pytest

from mutoscope.evaluation.segments import connected


def flood(mask_HW: np.ndarray) -> np.ndarray:
    """Labels by flood fill, in reading order: the slow way."""
    labels = np.zeros(mask_HW.shape, int)
    for start in zip(*np.nonzero(mask_HW), strict=True):
        if labels[start]:
            continue
        label, todo = labels.max() + 1, [start]
        while todo:
            y, x = todo.pop()
            inside = 0 <= y < mask_HW.shape[0] and 0 <= x < mask_HW.shape[1]
            if inside and mask_HW[y, x] and not labels[y, x]:
                labels[y, x] = label
                todo += [(y - 1, x), (y + 1, x), (y, x - 1), (y, x + 1)]
    return labels


@pytest.mark.parametrize("density", [0.0, 0.3, 0.5, 0.6, 1.0])
def test_components_are_those_of_a_flood_fill(density: float) -> None:
    mask_THW = np.random.default_rng(1).random((3, 24, 31)) < density
    labels_THW, count = connected(mask_THW)
    offset = 0
    for mask_HW, labels_HW in zip(mask_THW, labels_THW, strict=True):
        expected = flood(mask_HW)
        assert np.array_equal(np.where(labels_HW, labels_HW - offset, 0), expected)
        offset += expected.max()
    assert count == offset


def test_a_spiral_is_one_component() -> None:
    """The longest chain of merges: labels must travel all the way."""
    spiral = np.zeros((41, 41), bool)
    y, x, dy, dx, length = 20, 20, 0, 1, 2
    spiral[y, x] = True
    for turn in range(36):
        for _ in range(length):
            y, x = y + dy, x + dx
            if 0 <= y < 41 and 0 <= x < 41:
                spiral[y, x] = True
        dy, dx = dx, -dy
        length += 2 * (turn % 2)
    assert connected(spiral[None])[1] == 1
