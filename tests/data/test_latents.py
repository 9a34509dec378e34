"""The cache returns what was encoded, continues where it was cut, refuses what does not fit, survives bad
files.
"""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from mutoscope.data.latents import (
    KINDS,
    Bucket,
    EncodeConfig,
    Latents,
    Size,
    encode,
    filmed,
    fingerprint,
    read_captions,
    with_leader,
)
from mutoscope.errors import InputError
from mutoscope.models.vae import VAE, VAEConfig
from mutoscope.video import Video, to_frames, write_video
from mutoscope.world.captions import caption, colourless
from mutoscope.world.portrait import last_shot, plainer, portrait
from mutoscope.world.render import render
from mutoscope.world.scene import SceneMix, View, sample_scene


@pytest.fixture(scope="module")
def vae() -> VAE:
    torch.manual_seed(0)
    vae = VAE(
        VAEConfig(quarter_width=16, eighth_width=16, encoder_blocks=(1, 1), decoder_blocks=(1, 1))
    ).eval()
    vae.fit_shortcut(render([sample_scene(seed) for seed in range(8)], View(32, 32, 5)))
    return vae


def config(out: Path, **change) -> EncodeConfig:
    buckets = (Bucket(5, 32, 32, 11), Bucket(1, 32, 48, 6), Bucket(5, 32, 32, 4, fps=12.0))
    return replace(EncodeConfig(model="", out=str(out), buckets=buckets, piece=4, batch=3), **change)


def test_rows_are_the_encoded_scenes_with_their_captions(vae, tmp_path):
    cache = Latents(encode(vae, config(tmp_path)), vae=vae)
    assert cache.sizes == [Size(1, 32, 48), Size(5, 32, 32)]
    assert (cache.count(Size(5, 32, 32)), cache.count(Size(1, 32, 48)), cache.channels) == (15, 6, 16)
    size, rows = Size(5, 32, 32), [0, 10, 11, 14]
    seeds = cache.ids(size, rows)
    assert seeds[0] == 1 << 32
    assert len(set(cache.ids(size, range(15)))) == 15
    assert cache.fps(size, rows).tolist() == [8, 8, 12, 12]
    for row, seed, fps in zip(rows, seeds, (8.0, 8.0, 12.0, 12.0)):
        view, scene = View(32, 32, 5, fps), sample_scene(seed)
        with torch.no_grad():
            expected = vae.encode(render([scene], view))
        assert (cache.latents(size, [row]) - expected).abs().max() < 4e-3 * expected.abs().max()
        for kind, variant in (("detailed", 1), ("medium", 0), ("short", 2), ("alt", 0)):
            assert cache.caption(size, row, kind, variant) == caption(scene, view, kind, variant)
        assert cache.caption(size, row, "short", 3) == cache.caption(size, row, "short", 0)
    assert len(list(cache.captions(size, [0]))) == sum(cache.variants.values())
    with pytest.raises(IndexError):
        cache.latents(size, [15])


class Killed(Exception):
    pass


def test_a_cut_encoding_continues_to_the_same_files(vae, tmp_path):
    whole = encode(vae, config(tmp_path / "whole"))

    def cut(done: int, total: int, skipped: str) -> None:
        assert total == 21
        if done >= 8:
            raise Killed

    with pytest.raises(Killed):
        encode(vae, config(tmp_path / "cut"), cut)
    with pytest.raises(InputError, match="not finished"):
        Latents(tmp_path / "cut")
    before = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "cut").glob("*.safetensors")}
    continued = encode(vae, config(tmp_path / "cut"))
    for path in whole.iterdir():
        assert (continued / path.name).read_bytes() == path.read_bytes()
    assert before
    assert all((continued / name).stat().st_mtime_ns == time for name, time in before.items())


def test_several_caches_read_as_one(vae, tmp_path):
    small = (Bucket(5, 32, 32, 3),)
    folders = [
        encode(vae, config(tmp_path / "first", buckets=small)),
        encode(vae, config(tmp_path / "second", seed=2)),
    ]
    (first, second), both = [Latents(folder) for folder in folders], Latents(*folders, vae=vae)
    size = Size(5, 32, 32)
    assert both.sizes == second.sizes
    assert both.count(size) == 3 + 15
    assert both.ids(size, range(18)) == first.ids(size, range(3)) + second.ids(size, range(15))
    assert torch.equal(
        both.latents(size, [2, 3]), torch.cat([first.latents(size, [2]), second.latents(size, [0])])
    )
    assert both.caption(size, 17, "short", 1) == second.caption(size, 14, "short", 1)
    fewer = encode(vae, config(tmp_path / "third", buckets=small, variants={**first.variants, "short": 1}))
    assert Latents.named([str(folder) for folder in folders], vae).name == both.name
    with pytest.raises(InputError, match="names no folder"):
        Latents.named([], vae)
    with pytest.raises(InputError, match=r"third keeps .* wordings"):
        Latents(folders[0], fewer)


def test_led_clips_are_behind_a_portrait_that_is_known(vae, tmp_path):
    led = config(
        tmp_path / "led",
        led=5,
        mix=SceneMix(plays={"plain": 0.5, "story": 0.5}),
        buckets=(Bucket(17, 32, 32, 6),),
    )
    plain = encode(vae, config(tmp_path / "plain", buckets=(Bucket(17, 32, 32, 2),)))
    cache, size = Latents(plain, encode(vae, led), vae=vae), Size(17, 32, 32)
    assert cache.led
    assert not Latents(plain).led
    assert cache.known(size, range(8)).tolist() == [0] * 2 + [3] * 6
    hats = uncoloured = 0
    for row in range(2, 8):
        (seed,) = cache.ids(size, [row])
        scene = sample_scene(seed, led.mix)
        video_BCTHW = with_leader([scene], View(32, 32, 17), 5, torch.device("cpu"))
        assert video_BCTHW.shape == (1, 3, 17, 32, 32)
        still_BCTHW = render([portrait(scene)], View(32, 32, 1))
        assert torch.equal(video_BCTHW[:, :, :5], still_BCTHW.expand(-1, -1, 5, -1, -1))
        assert not video_BCTHW[:, :, 5:9].any()
        assert torch.equal(video_BCTHW[:, :, 9:], render([last_shot(scene)], View(32, 32, 8)))
        with torch.no_grad():
            expected = vae.encode(video_BCTHW)
        assert (cache.latents(size, [row]) - expected).abs().max() < 4e-3 * expected.abs().max()
        told, view = last_shot(scene), View(32, 32, 8)
        assert cache.caption(size, row, "medium", 0) == caption(told, view, "medium", 0)
        open_to_the_portrait = cache.caption(size, row, "medium", 1)
        plain_caption = caption(plainer(told), view, "medium", 1)
        if len(told.shots[0].bodies) == 1 and seed % 2:
            uncoloured += open_to_the_portrait != plain_caption
            assert open_to_the_portrait == colourless(plain_caption)
        else:
            assert open_to_the_portrait == plain_caption
        hats += "hat" in cache.caption(size, row, "detailed", 0)
        assert "hat" not in cache.caption(size, row, "detailed", 1)
    assert hats
    assert uncoloured
    with pytest.raises(InputError, match="more than the 13 frames of their leader"):
        config(tmp_path, led=9)
    with pytest.raises(InputError, match=r"led is 4: a portrait is held for 1 \+ 4k frames"):
        config(tmp_path, led=4)
    with pytest.raises(InputError, match="led is for whole frames of the world"):
        config(tmp_path, led=1, crop=1.5)


def test_a_cache_that_was_begun_before_an_option_goes_on(vae, tmp_path):
    folder = encode(vae, config(tmp_path))
    index = json.loads((folder / "index.json").read_text())
    index["asked"] = {name: value for name, value in index["asked"].items() if name not in ("crop", "led")}
    (folder / "index.json").write_text(json.dumps(index))
    assert encode(vae, config(tmp_path)) == folder
    with pytest.raises(InputError, match="another crop"):
        encode(vae, config(tmp_path, crop=1.5))


def test_what_does_not_fit_is_refused(vae, tmp_path):
    folder = encode(vae, config(tmp_path))
    other = VAE(vae.config)
    assert fingerprint(other) != fingerprint(vae)
    for attempt in (lambda: Latents(folder, vae=other), lambda: encode(other, config(folder))):
        with pytest.raises(InputError, match="another VAE"):
            attempt()
    with pytest.raises(InputError, match="another seed"):
        encode(vae, config(folder, seed=2))
    with pytest.raises(InputError, match=r"no index\.json|has no index"):
        Latents(tmp_path / "nowhere")
    shard, cache = next(folder.glob("*.safetensors")), Latents(folder)
    shard.write_bytes(shard.read_bytes()[:100])
    with pytest.raises(InputError, match=shard.name):
        [cache.latents(size, range(cache.count(size))) for size in cache.sizes]
    (folder / "index.json").write_text("{")
    with pytest.raises(InputError, match="damaged"):
        Latents(folder)


def test_a_folder_of_clips_is_cut_to_buckets_and_bad_files_are_skipped_and_named(vae, tmp_path):
    source = tmp_path / "clips"
    source.mkdir()
    scenes = [sample_scene(seed) for seed in range(4)]
    for i, video_CTHW in enumerate(render(scenes, View(48, 32, 9))):
        write_video(source / f"clip-{i}.mp4", Video(to_frames(video_CTHW), 8.0))
        (source / f"clip-{i}.txt").write_text(f"clip number {i}")
    write_video(source / "still.png", Video(np.full((1, 40, 40, 3), 90, np.uint8), 8.0))
    (source / "still.json").write_text(
        json.dumps({"captions": {"detailed": ["one", "two"], "short": "grey"}})
    )
    (source / "empty.mp4").write_bytes(b"")
    (source / "empty.txt").write_text("nothing")
    (source / "silent.mp4").write_bytes((source / "clip-0.mp4").read_bytes())
    cut = config(tmp_path / "out", source=str(source), buckets=(Bucket(5, 32, 32), Bucket(1, 32, 32)))
    cache = Latents(encode(vae, cut), vae=vae)
    assert cache.count(Size(5, 32, 32)) == 4
    assert cache.count(Size(1, 32, 32)) == 1
    assert {cache.caption(Size(5, 32, 32), row, kind, 0) for row in range(4) for kind in KINDS} == {
        f"clip number {i}" for i in range(4)
    }
    assert cache.caption(Size(1, 32, 32), 0, "detailed", 1) == "two"
    assert cache.caption(Size(1, 32, 32), 0, "short", 2) == "grey"
    assert len(cache.skipped) == 2
    assert "empty.mp4" in cache.skipped[0]
    assert "silent.mp4" in cache.skipped[1]
    for i in range(8):
        (source / f"bad-{i}.mp4").write_bytes(b"no video")
    with pytest.raises(InputError, match="could not be used"):
        encode(vae, replace(cut, out=str(tmp_path / "more"), piece=64))


def test_captions_beside_a_clip(tmp_path):
    clip = tmp_path / "a.mp4"
    with pytest.raises(InputError, match=r"a\.txt"):
        read_captions(clip)
    (tmp_path / "a.txt").write_text(" words \n")
    assert read_captions(clip) == {"detailed": ["words"]}
    (tmp_path / "a.json").write_text('{"caption": "better"}')
    assert read_captions(clip) == {"detailed": ["better"]}
    (tmp_path / "a.json").write_text('{"captions": {"short": ""}}')
    with pytest.raises(InputError, match="holds no caption"):
        read_captions(clip)


@pytest.mark.parametrize(
    ("make", "named"),
    [
        (lambda: Bucket(16, 32, 32), "16 frames"),
        (lambda: Bucket(5, 24, 32), "32x24"),
        (lambda: config(Path("x"), buckets=()), "buckets"),
        (lambda: config(Path("x"), variants={"detailed": 1}), "variants"),
    ],
)
def test_impossible_settings_are_named(make, named):
    with pytest.raises(InputError, match=named):
        make()


def test_squares_are_cut_from_wide_and_high_frames_by_turns(vae, tmp_path):
    """Some subjects leave the picture; every seed gives the same cut; other shapes and captions stay as they are."""
    view, cpu = View(32, 32, 5), torch.device("cpu")
    scenes = [sample_scene(seed) for seed in range(8)]
    squares, whole = filmed(scenes, view, 1.6, cpu), filmed(scenes, view, 1.0, cpu)
    assert squares.shape == whole.shape
    assert not torch.equal(squares, whole)
    assert torch.equal(whole, render(scenes, view))
    for scene, square in zip(scenes, squares, strict=True):
        wide = View(51, 32, 5) if scene.seed % 2 else View(32, 51, 5)
        frames, axis = render([scene], wide)[0], 3 if scene.seed % 2 else 2
        assert any(torch.equal(square, frames.narrow(axis, start, 32)) for start in range(20))
    assert torch.equal(filmed(scenes[3:5], view, 1.6, cpu), squares[3:5])
    assert torch.equal(filmed(scenes, View(48, 32, 5), 1.6, cpu), render(scenes, View(48, 32, 5)))
    native, cut = (
        Latents(encode(vae, config(tmp_path / str(crop), crop=crop)), vae=vae) for crop in (1.0, 1.6)
    )
    square, other = Size(5, 32, 32), Size(1, 32, 48)
    assert list(native.captions(square, range(15))) == list(cut.captions(square, range(15)))
    assert not torch.equal(native.latents(square, range(15)), cut.latents(square, range(15)))
    assert torch.equal(native.latents(other, range(6)), cut.latents(other, range(6)))
    with pytest.raises(InputError, match="crop"):
        config(tmp_path, crop=0.5)
