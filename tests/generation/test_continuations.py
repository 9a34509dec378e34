"""Clips made from clips: what is kept is kept bit for bit, lengths are exact, the same seed gives the same."""

from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch

from mutoscope.config import from_dict
from mutoscope.diffusion.sampler import StepInfo
from mutoscope.errors import InputError
from mutoscope.generation import conditions, continuations
from mutoscope.generation.conditions import Condition
from mutoscope.generation.continuations import (
    blend,
    carry_out,
    crossfade,
    edit,
    encode_whole,
    extend,
    gap,
    geometry,
    grow,
    interpolate,
    loop,
    recut,
    seamless,
    settle,
    windows,
)
from mutoscope.generation.generate import Start, grid_of, sample
from mutoscope.generation.reproduce import Record
from mutoscope.generation.request import Recipe, Request, Task, bridge, file_sha256
from mutoscope.models.vae import VAE
from mutoscope.video import Video, read_video, to_frames, to_tensor, write_video
from mutoscope.weights.card import Defaults
from mutoscope.weights.store import Model, load

ASKED = Request("a ball", seed=3, steps=2, frames=6)
KEPT = replace(ASKED, frames=None)


@pytest.fixture(scope="module")
def model(model_folder: Path) -> Model:
    return load(model_folder, device="cpu")


def write(path: Path, frames: int = 11, size: tuple[int, int] = (32, 32), fps: float = 8.0) -> Path:
    """A clip of smooth random colours that move."""
    height, width = size
    x, y = np.arange(width) / width, np.arange(height)[:, None] / height
    phase = np.random.default_rng(len(path.stem) + frames).uniform(0, 6, 3)
    moments = np.arange(frames)[:, None, None, None] / 5
    wave = np.sin(6 * (x + y)[None, :, :, None] + moments + phase)
    return write_video(path, Video((127.5 + 120 * wave).astype(np.uint8), fps))


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("clips") / "first.mp4")


@pytest.fixture(scope="module")
def second(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("clips") / "second.mp4", frames=9, size=(40, 64), fps=10.0)


def recipe_of(model: Model, clip: Path, request: Request = ASKED) -> Recipe:
    return settle(model, request, Task("extend", str(clip), file_sha256(clip)))


@pytest.mark.parametrize(
    ("known", "backward", "expected"),
    [
        ("...", False, [(0, 3)]),
        ("kkk......", False, [(0, 5), (2, 7), (4, 9)]),
        ("kkk.....", False, [(0, 5), (2, 7), (3, 8)]),
        ("kk..kk", False, [(0, 5)]),
        ("kkk....kk", False, [(0, 5), (2, 7)]),
        ("........kk", True, [(5, 10), (4, 9), (3, 8), (2, 7), (1, 6), (0, 5)]),
        ("...kk", True, [(0, 5)]),
        ("kkk", False, []),
    ],
)
def test_windows_reach_everything(known: str, backward: bool, expected: list[tuple[int, int]]) -> None:
    spans = windows([letter == "k" for letter in known], 5, 3, backward)
    assert [(span.start, span.stop) for span in spans] == expected


@pytest.mark.parametrize("frames", [1, 6, 40])
@pytest.mark.parametrize("backward", [False, True])
def test_an_extension_keeps_the_clip_and_has_the_length(
    model: Model, clip: Path, frames: int, backward: bool
) -> None:
    video = extend(model, clip, replace(ASKED, frames=frames), backward)
    source = read_video(clip)
    assert video.frames_THWC.shape == (11 + frames, 32, 32, 3)
    assert np.array_equal(video.frames_THWC[-11:] if backward else video.frames_THWC[:11], source.frames_THWC)
    assert video.fps == source.fps


def test_the_same_seed_gives_the_same_bytes_and_another_does_not(model: Model, clip: Path) -> None:
    once, again = (extend(model, clip, ASKED) for _ in range(2))
    other = extend(model, clip, replace(ASKED, seed=4))
    assert np.array_equal(once.frames_THWC, again.frames_THWC)
    assert not np.array_equal(once.frames_THWC, other.frames_THWC)


@pytest.mark.parametrize("backward", [False, True])
def test_a_longer_extension_is_seen_by_the_model_window_after_window(
    model: Model, clip: Path, monkeypatch: pytest.MonkeyPatch, backward: bool
) -> None:
    """Each later window is told latents that an earlier one made: they are known, clean, and the same."""
    seen, plain = [], sample

    def spy(*words: object) -> object:
        condition = words[3]
        assert isinstance(condition, Condition)
        told = Condition(condition.latent_BCTHW.clone(), condition.mask_BT.clone())  # views are written to
        sampled = plain(*words)  # type: ignore[arg-type]
        seen.append((told, words[5], sampled.latent_BCTHW))
        return sampled

    monkeypatch.setattr(continuations, "sample", spy)
    extend(model, clip, replace(ASKED, frames=24), backward)
    assert len(seen) > 1
    for (_, start, made_BCTHW), (condition, next_start, _) in pairwise(seen):
        for index in torch.nonzero(condition.mask_BT[0]).flatten().tolist():
            place = next_start + index - start
            if 0 <= place < made_BCTHW.shape[2]:
                told_BCHW = condition.latent_BCTHW[:, :, index]
                torch.testing.assert_close(told_BCHW, made_BCTHW[:, :, place])


@pytest.mark.parametrize("noise", [0.0, 0.1])
def test_known_latents_are_untouched(model: Model, clip: Path, noise: float) -> None:
    recipe = recipe_of(model, clip)
    grid = grid_of(model, replace(recipe, frames=33))
    video_BCTHW = to_tensor(read_video(clip).frames_THWC[:9])[None]
    with torch.inference_mode():
        condition = replace(conditions.frames(model.vae, grid, {0: video_BCTHW}), sigma=noise)
        latent_BCTHW = grow(model, recipe, condition, None, None, {})
    assert torch.equal(latent_BCTHW[:, :, :3], condition.latent_BCTHW[:, :, :3])
    assert latent_BCTHW[:, :, 3:].std() > 0.1


def test_history_noise_reaches_the_model(model: Model, clip: Path) -> None:
    clean, noisy = (extend(model, clip, ASKED, history_noise=noise) for noise in (0.0, 0.3))
    assert np.array_equal(clean.frames_THWC[:11], noisy.frames_THWC[:11])
    assert not np.array_equal(clean.frames_THWC, noisy.frames_THWC)


@pytest.mark.parametrize("join", [interpolate, blend])
def test_a_bridge_stands_between_its_clips(
    model: Model, clip: Path, second: Path, join: "type[object]"
) -> None:
    """The second clip is fitted to size and rate of the first; 6 frames become 7."""
    video = join(model, clip, second, ASKED)  # type: ignore[call-arg]
    assert isinstance(video, Video)
    assert video.recipe is not None
    assert (video.width, video.height, video.fps) == (32, 32, 8.0)
    after = continuations.sources(from_dict(Record, video.recipe, "").recipe)[1]
    assert video.frames == 11 + 7 + after.frames
    assert np.array_equal(video.frames_THWC[:11], read_video(clip).frames_THWC)
    assert np.array_equal(video.frames_THWC[18:], after.frames_THWC)


@pytest.mark.parametrize(("asked", "made"), [(1, 3), (4, 3), (5, 7), (8, 7), (9, 11), (16, 15), (32, 31)])
def test_a_bridge_has_the_next_length_that_there_is(asked: int, made: int) -> None:
    assert bridge(asked, 4) == made


def test_a_bridge_depends_on_both_ends(model: Model, clip: Path) -> None:
    recipe = recipe_of(model, clip)
    frames_THWC = read_video(clip).frames_THWC
    with torch.inference_mode():
        bridges = [
            gap(model, recipe, before, after, 3, None)
            for before, after in (
                (frames_THWC, frames_THWC),
                (frames_THWC, 255 - frames_THWC),
                (255 - frames_THWC, frames_THWC),
            )
        ]
    assert len({bridge.tobytes() for bridge in bridges}) == 3
    assert bridges[0].shape == (3, 32, 32, 3)


def test_a_blend_is_not_an_interpolation(model: Model, clip: Path, second: Path) -> None:
    blended, led = blend(model, clip, second, ASKED), interpolate(model, clip, second, ASKED)
    assert not np.array_equal(blended.frames_THWC[11:18], led.frames_THWC[11:18])


def test_only_a_blend_starts_from_a_crossfade(
    model: Model, clip: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The subject of a loop moves from its end to its start: it is not dissolved in one place and shown in another."""
    starts, plain = [], sample

    def spy(*words: object) -> object:
        starts.append(words[4])
        return plain(*words)  # type: ignore[arg-type]

    monkeypatch.setattr(continuations, "sample", spy)
    loop(model, clip, ASKED)
    interpolate(model, clip, clip, ASKED)
    blend(model, clip, clip, ASKED)
    assert [start is not None for start in starts] == [False, False, True]


def test_a_crossfade_is_even() -> None:
    latent_BCTHW = torch.tensor([1.0, 0, 0, 0, 5]).view(1, 1, 5, 1, 1)
    assert crossfade(latent_BCTHW, 1, 4).flatten().tolist() == [1, 2, 3, 4, 5]


def test_a_seam_keeps_what_stands_and_leaves_what_moves() -> None:
    """New frames drawn 6 levels too dark join the clip within 1; an object that moved by its width stays put."""
    clip_THWC = np.full((5, 16, 16, 3), 100, np.uint8)
    clip_THWC[:, 4:8, 4:8] = 220
    made_THWC = np.full((20, 16, 16, 3), 94, np.uint8)
    made_THWC[:, 4:8, 8:12] = 220
    joined_THWC = seamless(made_THWC, clip_THWC, None)
    assert np.abs(joined_THWC[0, 0].astype(int) - 100).max() == 0
    assert np.array_equal(joined_THWC[:, 4:8, 8:12], made_THWC[:, 4:8, 8:12])
    assert np.array_equal(joined_THWC[12:], made_THWC[12:])
    changes = np.abs(np.diff(joined_THWC[:, 0, 0, 0].astype(int)))
    assert changes.max() <= 1
    backward_THWC = seamless(made_THWC[::-1], None, clip_THWC[::-1])
    assert np.array_equal(backward_THWC, joined_THWC[::-1])


def test_a_loop_leads_from_its_end_to_its_start(
    model: Model, clip: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def note(vae: VAE, grid: object, known: dict[int, torch.Tensor]) -> Condition:
        asked.append(known)
        return frames(vae, grid, known)  # type: ignore[arg-type]

    frames = conditions.frames
    monkeypatch.setattr(conditions, "frames", note)
    video = loop(model, clip, ASKED)
    source_THWC = read_video(clip).frames_THWC
    assert video.frames == 11 + 7
    assert np.array_equal(video.frames_THWC[:11], source_THWC)
    (known,) = asked
    end_BCTHW, start_BCTHW = known[0], known[5]
    assert np.array_equal(to_frames(end_BCTHW[0]), source_THWC[-9:])
    assert np.array_equal(to_frames(start_BCTHW[0]), source_THWC[:9])


@torch.inference_mode()
def test_an_edit_of_strength_0_is_the_reconstruction(model: Model, clip: Path) -> None:
    video = edit(model, clip, KEPT, 0.0)
    latent_BCTHW = encode_whole(model.vae, to_tensor(read_video(clip).frames_THWC)[None])
    reconstructed_CTHW = model.vae.decode(latent_BCTHW)[0, :, :11]
    difference = np.abs(video.frames_THWC.astype(int) - to_frames(reconstructed_CTHW))
    assert difference.max() <= 1


def test_a_stronger_edit_goes_further(model: Model, clip: Path) -> None:
    frames = [edit(model, clip, KEPT, strength).frames_THWC.astype(float) for strength in (0.0, 0.2, 1.0)]
    assert frames[0].shape == (11, 32, 32, 3)
    assert 0 < np.abs(frames[1] - frames[0]).mean() < np.abs(frames[2] - frames[0]).mean()


@torch.inference_mode()
def test_an_edit_of_strength_1_forgets_the_clip(model: Model, clip: Path) -> None:
    """Flow matching at sigma 1 holds nothing of the clip: what comes out is what noise alone gives."""
    recipe = recipe_of(model, clip)
    nothing = conditions.text(model.vae, grid_of(model, replace(recipe, frames=9)))
    start = Start(torch.ones_like(nothing.latent_BCTHW), 1.0)
    with_start, without = (grow(model, recipe, nothing, begin, None, {}) for begin in (start, None))
    torch.testing.assert_close(with_start, without)


@pytest.mark.parametrize(
    ("keep", "same"), [((0.25, 1.0), (2, 8)), ((0.0, 0.75), (0, 6)), ((0.5, 1.375), (4, 11))]
)
def test_a_recut_keeps_its_part(
    model: Model, clip: Path, keep: tuple[float, float], same: tuple[int, int]
) -> None:
    video, source = recut(model, clip, KEPT, keep), read_video(clip)
    unchanged = (video.frames_THWC == source.frames_THWC).all(axis=(1, 2, 3))
    assert np.flatnonzero(unchanged).tolist() == list(range(*same))


def test_the_recipe_tells_the_task_and_makes_it_again(model: Model, clip: Path, tmp_path: Path) -> None:
    video = recut(model, clip, KEPT, (0.0, 1.0))
    path = video.save(tmp_path / "recut.mp4")
    made = read_video(path).recipe
    assert made is not None
    recipe = from_dict(Record, made, "the recipe").recipe
    assert recipe.task == Task("recut", str(clip), file_sha256(clip), keep=(0.0, 1.0))
    assert np.array_equal(carry_out(model, recipe).frames_THWC, video.frames_THWC)
    changed = replace(recipe, task=replace(recipe.task, clip_sha256="0"))
    with pytest.raises(InputError, match=r"first\.mp4.*sha256"):
        carry_out(model, changed)


def test_a_clip_goes_on_with_its_own_prompt(model: Model, tmp_path: Path, clip: Path) -> None:
    own = replace(read_video(clip), recipe={"recipe": {"prompt": "a green box"}})
    path = own.save(tmp_path / "own.mp4")
    assert recipe_of(model, path, replace(ASKED, prompt="")).prompt == "a green box"
    assert recipe_of(model, path).prompt == "a ball"
    assert recipe_of(model, clip, replace(ASKED, prompt="")).prompt == ""


@pytest.mark.parametrize(
    ("size", "fps", "expected"),
    [
        ((48, 80), 8, (80, 48, 8)),
        ((128, 128), 16, (128, 128, 16)),
        ((1080, 1920), 30, (85, 48, 8)),
        ((4, 400), 2, (400, 16, 2)),
    ],
)
def test_the_size_and_rate_of_sources(
    size: tuple[int, int], fps: float, expected: tuple[int, int, float]
) -> None:
    source = Video(np.zeros((5, *size, 3), np.uint8), fps)
    assert geometry(source, Request(), Defaults()) == expected
    asked = Request(width=20, height=24, fps=5)
    assert geometry(source, asked, Defaults()) == (20, 24, 5)


def test_a_large_fast_clip_is_made_smaller_and_slower(model: Model, tmp_path: Path) -> None:
    path = write(tmp_path / "screen.mp4", frames=30, size=(150, 200), fps=30.0)
    video = extend(model, path, replace(ASKED, frames=4))
    assert (video.width, video.height, video.fps, video.frames) == (74, 55, 8.0, 12)


def test_progress_counts_over_all_windows_and_stopping_leaves_nothing(model: Model, clip: Path) -> None:
    steps: list[tuple[int, int]] = []
    request = replace(ASKED, frames=24)

    def note(info: StepInfo) -> bool:
        steps.append((info.step, info.steps))
        return True

    extend(model, clip, request, on_step=note)
    assert [step for step, _ in steps] == list(range(1, steps[0][1] + 1))
    assert steps[0][1] > 2
    with pytest.raises(KeyboardInterrupt):
        extend(model, clip, request, on_step=lambda info: False)


def test_what_cannot_be_done(model: Model, clip: Path, tmp_path: Path) -> None:
    short = write(tmp_path / "short.mp4", frames=3)
    with pytest.raises(InputError, match=r"short\.mp4 has 3 frames.*needs 5"):
        extend(model, short, ASKED)
    with pytest.raises(InputError, match=r"short\.mp4 has 3 frames"):
        interpolate(model, clip, short, ASKED)
    with pytest.raises(InputError, match=r"strength is 1\.2.*0 to 1"):
        edit(model, clip, KEPT, 1.2)
    with pytest.raises(InputError, match="keeps the length"):
        edit(model, clip, ASKED)
    with pytest.raises(InputError, match="history noise"):
        extend(model, clip, ASKED, history_noise=0.9)
    with pytest.raises(InputError, match=r"0\.5-9 s .* cannot be kept"):
        recut(model, clip, KEPT, (0.5, 9))
    with pytest.raises(InputError, match="whole clip"):
        recut(model, clip, KEPT, (0, 11 / 8))
    with pytest.raises(InputError, match="at most 100000"):
        extend(model, clip, replace(ASKED, frames=99_995))
    with pytest.raises(InputError, match="no pictures"):
        extend(model, clip, replace(ASKED, image=clip))
    with pytest.raises(InputError, match="check the name"):
        loop(model, tmp_path / "none.mp4", ASKED)


def test_a_size_that_does_not_fit_is_refused_before_the_sources_are_scaled_to_it(
    model: Model, clip: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(continuations, "fitted", lambda *_: pytest.fail("scaled"))
    huge = replace(ASKED, width=8192, height=8192)
    with pytest.raises(InputError, match=r"8192x8192 .* needs about"):
        settle(model, huge, Task("extend", str(clip), file_sha256(clip)))
