"""What models of pictures are shown: diffusers' pipelines from the same noise, for every kind; the command line."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from mutoscope import Request, load
from mutoscope.errors import InputError
from mutoscope.generation import conditions
from mutoscope.generation.conditions import Condition
from mutoscope.generation.generate import generate, generate_many, resolve, roll, save
from mutoscope.generation.request import KeyFrame, request_of
from mutoscope.generation.sampling import REFERENCES_FRAME, address_noise, decode, grid_of, sample
from mutoscope.generation.shown import beside, control, of_condition, of_recipe
from mutoscope.video import read_video
from wan_models import DIT, PROMPT, SIZE, psnr, their_latents, their_parts, write_model

pytest.importorskip("transformers")
diffusers = pytest.importorskip("diffusers")

SHOWN = DIT | {"in_channels": 12}  # the latent, four marks, the latent of what is known


def drawn(path: Path, seed: int) -> Path:
    """A picture of the size of the clips, all noise."""
    pixels = torch.randint(
        0, 256, (SIZE["height"], SIZE["width"], 3), generator=torch.Generator().manual_seed(seed)
    )
    Image.fromarray(pixels.to(torch.uint8).numpy()).save(path)
    return path


def picture_model(folder: Path, **more: Any) -> tuple[Any, Any]:
    """A model folder of a transformer that is shown pictures, loaded, and diffusers' pipeline of it."""
    torch.manual_seed(5)
    dit = diffusers.WanTransformer3DModel(**SHOWN | more)
    model = load(write_model(folder, {"_class_name": "WanImageToVideoPipeline"}, transformer=dit))
    return model, diffusers.WanImageToVideoPipeline(transformer=dit, **their_parts(folder))


def test_a_picture_gives_what_diffusers_pipeline_gives(tmp_path: Path) -> None:
    model, pipeline = picture_model(tmp_path / "i2v")
    image = drawn(tmp_path / "first.png", 1)
    request = Request(PROMPT, negative="the box", image=image, **SIZE)
    found = sample(model, [resolve(model, request)]).latent_BCTHW
    expected = their_latents(pipeline, model, request, image=Image.open(image))
    assert psnr(found, expected) >= 60
    with pytest.raises(InputError, match="give it --image"):
        sample(model, [resolve(model, Request(PROMPT, **SIZE))])


def test_first_and_last_picture_with_clip_give_what_diffusers_pipeline_gives(tmp_path: Path) -> None:
    sizes = {"image_dim": 20, "added_kv_proj_dim": 36, "pos_embed_seq_len": 34}
    model, pipeline = picture_model(tmp_path / "flf2v", **sizes)
    from transformers import CLIPVisionConfig, CLIPVisionModel

    told = {"hidden_size": 20, "intermediate_size": 24, "num_hidden_layers": 3, "num_attention_heads": 2}
    config = CLIPVisionConfig(**told, image_size=28, patch_size=7, hidden_act="gelu")
    torch.manual_seed(2)
    CLIPVisionModel(config).eval().save_pretrained(tmp_path / "flf2v" / "image_encoder")
    model = load(tmp_path / "flf2v")
    first, last = drawn(tmp_path / "first.png", 1), drawn(tmp_path / "last.png", 2)
    request = Request(PROMPT, negative="the box", image=first, last_image=last, **SIZE)
    encoder = model.read_picture_encoder()
    pictures = [torch.from_numpy(read_video(path).frames_THWC).permute(0, 3, 1, 2) for path in (first, last)]
    with torch.no_grad():
        tokens = encoder(torch.cat(pictures) / 127.5 - 1)
    assert tokens.shape == (2, 17, 20)
    found = sample(model, [resolve(model, request)]).latent_BCTHW
    pipeline.encode_image = lambda images, device: (
        tokens
    )  # its own way from a file to CLIP's square is another
    expected = their_latents(pipeline, model, request, image=Image.open(first), last_image=Image.open(last))
    assert psnr(found, expected) >= 60
    with pytest.raises(InputError, match="--last-image"):
        sample(model, [resolve(model, Request(PROMPT, image=first, **SIZE))])


def test_a_first_frame_in_place_gives_what_diffusers_pipeline_gives(tmp_path: Path) -> None:
    torch.manual_seed(6)
    dit = diffusers.WanTransformer3DModel(**DIT)
    told = {"_class_name": "WanImageToVideoPipeline", "expand_timesteps": True}
    model = load(write_model(tmp_path / "ti2v", told, transformer=dit))
    pipeline = diffusers.WanImageToVideoPipeline(
        transformer=dit, expand_timesteps=True, **their_parts(tmp_path / "ti2v")
    )
    image = drawn(tmp_path / "first.png", 1)
    request = Request(PROMPT, negative="the box", image=image, **SIZE)
    found = sample(model, [resolve(model, request)]).latent_BCTHW
    assert psnr(found, their_latents(pipeline, model, request, image=Image.open(image))) >= 60


def test_frames_known_from_before_are_shown_clean_as_in_training(tmp_path: Path) -> None:
    torch.manual_seed(6)
    told = {"_class_name": "WanPipeline", "expand_timesteps": True}
    dit = diffusers.WanTransformer3DModel(**DIT)
    model = load(write_model(tmp_path / "ti2v", told, transformer=dit))
    recipe = resolve(model, Request(PROMPT, negative="the box", **SIZE))
    known = Condition(torch.randn(1, 4, 3, 6, 4), torch.tensor([[True, False, False]]))
    clean = sample(model, [recipe], condition=known).latent_BCTHW
    assert torch.equal(sample(model, [recipe], condition=replace(known, sigma=0.05)).latent_BCTHW, clean)
    assert torch.equal(clean[:, :, :1], known.latent_BCTHW[:, :, :1])


def test_a_clip_of_several_windows_is_refused_by_a_model_of_prompts(tmp_path: Path) -> None:
    """Before the first one is made, which takes hours at full size."""
    told = {"_class_name": "WanPipeline"}
    dit = diffusers.WanTransformer3DModel(**DIT)
    model = load(write_model(tmp_path / "t2v", told, transformer=dit))
    assert resolve(model, Request(PROMPT, **SIZE | {"frames": 161})).frames == 161
    with pytest.raises(InputError, match="at most 161 frames; ask for 162"):
        resolve(model, Request(PROMPT, **SIZE | {"frames": 162}))


def vace_model(folder: Path) -> tuple[Any, Any]:
    torch.manual_seed(7)
    sizes = {"vace_layers": [0, 1], "vace_in_channels": 4 + 4 + 64}
    dit = diffusers.WanVACETransformer3DModel(**DIT | sizes)
    model = load(write_model(folder, {"_class_name": "WanVACEPipeline"}, transformer=dit))
    return model, diffusers.WanVACEPipeline(transformer=dit, **their_parts(folder))


def test_a_known_frame_gives_what_diffusers_editing_pipeline_gives(tmp_path: Path) -> None:
    model, pipeline = vace_model(tmp_path / "vace")
    image = drawn(tmp_path / "first.png", 1)
    request = Request(PROMPT, negative="the box", image=image, **SIZE)
    found = sample(model, [resolve(model, request)]).latent_BCTHW
    video = torch.zeros(1, 3, 9, 48, 32)
    video[:, :, 0] = pipeline.video_processor.preprocess(Image.open(image))
    mask = torch.ones_like(video)
    mask[:, :, 0] = 0
    pipeline.preprocess_conditions = lambda *parts: (video, mask, [[]])  # grey is no colour of 8 bits
    expected = their_latents(pipeline, model, request)
    assert psnr(found, expected) >= 60


def referring(tmp_path: Path, count: int) -> Request:
    """A request with references of several shapes."""
    paths = []
    for index, (width, height) in enumerate([(50, 20), (32, 48), (21, 90)][:count]):
        pixels = torch.randint(
            0, 256, (height, width, 3), generator=torch.Generator().manual_seed(index), dtype=torch.uint8
        )
        paths.append(tmp_path / f"reference-{index}.png")
        Image.fromarray(pixels.numpy()).save(paths[-1])
    return Request(PROMPT, negative="the box", references=tuple(paths), **SIZE)


@pytest.mark.parametrize("count", [1, 3])
def test_references_give_what_diffusers_editing_pipeline_gives(tmp_path: Path, count: int) -> None:
    model, pipeline = vace_model(tmp_path / "vace")
    request = referring(tmp_path, count)
    recipe = resolve(model, request)
    seen: list[Any] = []
    found = sample(model, [recipe], lambda info: seen.append(info.x0.shape)).latent_BCTHW
    grid = grid_of(model, recipe)
    before = address_noise(model, [recipe], replace(grid, frames=count), REFERENCES_FRAME)
    noise = torch.cat([before, address_noise(model, [recipe], grid)], dim=2)
    pictures = [Image.open(path) for path in reversed(request.references)]  # the last is the first there
    expected = their_latents(pipeline, model, request, noise, reference_images=pictures)[:, :, count:]
    assert found.shape == expected.shape == seen[0] == (1, 4, 3, 6, 4)
    assert psnr(found, expected) >= 60
    other = sample(model, [resolve(model, replace(request, references=()))]).latent_BCTHW
    assert psnr(other, expected) < 60


def test_references_are_refused_where_nobody_looks_at_them(tmp_path: Path, model_folder: Path) -> None:
    model, _ = picture_model(tmp_path / "i2v")
    with pytest.raises(InputError, match="looks at no reference pictures"):
        sample(model, [resolve(model, referring(tmp_path, 1))])
    own = load(model_folder, device="cpu")
    with pytest.raises(InputError, match="one reference picture, and 2 are given"):
        resolve(own, referring(tmp_path, 2))
    both = referring(tmp_path, 1)
    with pytest.raises(InputError, match="a reference picture or frames of the clip"):
        resolve(own, replace(both, image=both.references[0]))
    with pytest.raises(InputError, match=r"none\.png"):
        resolve(own, Request("a", references=(tmp_path / "none.png",)))
    with pytest.raises(InputError, match="at most 8"):
        Request("a", references=(tmp_path / "none.png",) * 9)
    recipe = resolve(vace_model(tmp_path / "vace")[0], referring(tmp_path, 2))
    assert [path.name for path in request_of(recipe).references] == ["reference-0.png", "reference-1.png"]
    assert all(reference.sha256 for reference in recipe.references)


def test_a_model_of_ours_sees_a_reference_as_the_shot_before_the_clip(
    tmp_path: Path, model_folder: Path
) -> None:
    own = load(model_folder, device="cpu")
    request = Request("a red ball", 32, 32, 9, seed=1, references=referring(tmp_path, 1).references)
    recipe = resolve(own, request)
    assert (recipe.lead, recipe.frames, grid_of(own, recipe).frames) == (14, 9, 7)
    assert resolve(own, request_of(recipe)) == recipe
    condition = conditions.of_recipe(own.vae, recipe, grid_of(own, recipe))
    assert condition.mask_BT.tolist() == [[True] * 4 + [False] * 3]
    video = generate(own, request)
    assert video.frames_THWC.shape == (9, 32, 32, 3)
    whole = replace(recipe, lead=0, frames=23)  # the same clip with what is in front of it
    latent_CTHW = roll(own, recipe).latent_BCTHW[0]
    frames_THWC = np.concatenate(list(decode(own, whole, latent_CTHW)))
    assert np.array_equal(video.frames_THWC, frames_THWC[14:])
    other = replace(request, references=referring(tmp_path, 2).references[1:])
    assert not np.array_equal(generate(own, other).frames_THWC, video.frames_THWC)
    alone = generate(own, replace(request, references=()))
    assert not np.array_equal(alone.frames_THWC, video.frames_THWC)
    (batched,) = generate_many(own, [request])
    assert np.array_equal(batched.frames_THWC, video.frames_THWC)
    for frames in (1, 2, 61):  # a picture, and more than a window
        asked = replace(request, frames=frames, width=64, height=64, draft=(32, 32))
        assert generate(own, asked).frames_THWC.shape == (frames, 64, 64, 3)
        kept = save(own, resolve(own, asked), tmp_path / "clip.mp4")
        assert kept.lead == 14
        assert len(read_video(tmp_path / "clip.mp4").frames_THWC) == frames


def test_a_character_is_shown_as_the_model_knows_it(tmp_path: Path, model_folder: Path) -> None:
    picture = referring(tmp_path, 1).references[0]
    request = Request("a red ball", character=picture, **SIZE)
    own, vace, i2v = (
        load(model_folder),
        vace_model(tmp_path / "vace")[0],
        picture_model(tmp_path / "i2v")[0],
    )
    assert resolve(own, request).lead
    assert [
        (resolve(model, request).lead, len(resolve(model, request).references)) for model in (vace, i2v)
    ] == [
        (0, 1),
        (0, 0),
    ]
    assert resolve(i2v, request).image == str(picture)


@pytest.mark.parametrize(
    "options", [{"guidance_interval": (0.5, 0.9)}, {"guidance_kind": "apg"}, {"step_cache": 1.0, "steps": 40}]
)
@pytest.mark.parametrize("kind", ["vace", "i2v", "experts"])
def test_options_of_sampling_work_with_every_kind_of_folder(
    tmp_path: Path, kind: str, options: dict[str, Any]
) -> None:
    request = Request(PROMPT, negative="the box", **SIZE)
    if kind == "vace":
        model, _ = vace_model(tmp_path / kind)
        request = referring(tmp_path, 1)
    elif kind == "i2v":
        model, _ = picture_model(tmp_path / kind)
        request = replace(request, image=drawn(tmp_path / "first.png", 1))
    else:
        torch.manual_seed(1)
        dits = [diffusers.WanTransformer3DModel(**DIT) for _ in range(2)]
        told = {"_class_name": "WanPipeline", "boundary_ratio": 0.7}
        model = load(write_model(tmp_path / kind, told, transformer=dits[0], transformer_2=dits[1]))
    request = replace(request, steps=options.get("steps", 10))
    plain = sample(model, [resolve(model, request)]).latent_BCTHW
    changed = sample(model, [resolve(model, replace(request, **options))]).latent_BCTHW
    assert changed.shape == plain.shape
    assert psnr(changed, plain) < 100


def test_control_of_a_region_is_diffusers(tmp_path: Path) -> None:
    model, pipeline = vace_model(tmp_path / "vace")
    generator = torch.Generator().manual_seed(3)
    video = torch.rand(1, 3, 9, 48, 32, generator=generator) * 2 - 1
    mask = (torch.rand(1, 1, 9, 48, 32, generator=generator) > 0.5).float()
    with torch.no_grad():
        latents = pipeline.prepare_video_latents(video, mask.expand(-1, 3, -1, -1, -1), [[]], None, "cpu")
        expected = torch.cat([latents, pipeline.prepare_masks(mask, [[]])], dim=1)
        found = control(model.vae, video, mask)
    assert (found - expected).abs().max() <= 1e-4 * expected.abs().max()


@torch.no_grad()
def test_known_latent_frames_are_shown_as_the_frames_that_they_hold(tmp_path: Path) -> None:
    model, _ = picture_model(tmp_path / "i2v")
    recipe = resolve(model, Request(PROMPT, image=drawn(tmp_path / "first.png", 1), **SIZE))
    grid = grid_of(model, recipe)
    marks = beside(model.vae, of_recipe(recipe, grid))[:, :4, :, 0, 0]
    assert marks[0, :, 0].tolist() == [1, 1, 1, 1]
    assert not marks[0, :, 1:].any()
    condition = conditions.of_recipe(model.vae, recipe, grid)
    held = Condition(condition.latent_BCTHW, torch.tensor([[True, False, True]]))
    known = of_condition(model.vae, held)
    assert known.known_BT[0].tolist() == [True] + [False] * 4 + [True] * 4
    assert not known.video_BCTHW[:, :, 1:5].any()


def test_a_region_to_redraw_gives_what_diffusers_editing_pipeline_gives(tmp_path: Path) -> None:
    """What is kept is shown as it is, what is to be redrawn as grey, with the mask of the region."""
    model, pipeline = vace_model(tmp_path / "vace")
    request = Request(PROMPT, negative="the box", **SIZE)
    recipe = resolve(model, request)
    latent = torch.randn(1, 4, 3, 6, 4, generator=torch.Generator().manual_seed(3)) / 2
    redraw = torch.zeros(1, 3, 6, 4, dtype=torch.bool)
    redraw[:, 1:, 2:5, 1:3] = True
    condition = Condition(latent, torch.zeros(1, 3, dtype=torch.bool), redraw_BTHW=redraw)
    found = sample(model, [recipe], condition=condition).latent_BCTHW
    mask = torch.zeros(1, 3, 9, 48, 32)
    mask[:, :, 1:, 16:40, 8:24] = 1
    video = model.vae.decode(latent) * (1 - mask)
    pipeline.preprocess_conditions = lambda *parts: (video, mask, [[]])
    assert psnr(found, their_latents(pipeline, model, request)) >= 60
    assert psnr(found, sample(model, [recipe]).latent_BCTHW) < 60


def test_key_frames_are_shown_to_those_who_look_and_refused_by_the_others(tmp_path: Path) -> None:
    image = drawn(tmp_path / "first.png", 1)
    key = (KeyFrame(0.25, drawn(tmp_path / "key.png", 2)),)
    request = Request(PROMPT, negative="the box", at=key, fps=16, **SIZE)
    model, pipeline = vace_model(tmp_path / "vace")
    video, mask = torch.zeros(1, 3, 9, 48, 32), torch.ones(1, 3, 9, 48, 32)
    video[:, :, 4] = pipeline.video_processor.preprocess(Image.open(tmp_path / "key.png"))
    mask[:, :, 4] = 0
    pipeline.preprocess_conditions = lambda *parts: (video, mask, [[]])
    found = sample(model, [resolve(model, request)]).latent_BCTHW
    assert psnr(found, their_latents(pipeline, model, request)) >= 60
    late = replace(request, at=(KeyFrame(9.0, key[0].image),))
    with pytest.raises(InputError, match="outside the clip"):
        sample(model, [resolve(model, late)])
    model, _ = picture_model(tmp_path / "i2v")
    with pytest.raises(InputError, match="no pictures at other times"):
        sample(model, [resolve(model, replace(request, image=image))])
    folder = write_model(tmp_path / "t2v", {}, transformer=diffusers.WanTransformer3DModel(**DIT))
    model = load(folder)
    with pytest.raises(InputError, match="prompts alone"):
        sample(model, [resolve(model, request)])


def test_the_command_line_runs_a_folder_of_diffusers(tmp_path: Path) -> None:
    torch.manual_seed(0)
    dit = diffusers.WanTransformer3DModel(**DIT)
    folder = write_model(tmp_path / "Small", {"_class_name": "WanPipeline"}, transformer=dit)
    clip = tmp_path / "clip.mp4"
    words = ["generate", PROMPT, "-m", str(folder), "--size", "32x48", "--frames", "5", "--steps", "2"]
    run = subprocess.run(
        [sys.executable, "-m", "mutoscope.cli", *words, "--seed", "1", "-o", str(clip), "--json"],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    told = json.loads(run.stdout.splitlines()[-1])
    assert (told["model"], told["frames"], told["sampler"]) == ("Small", 5, "unipc")
    assert read_video(clip).frames_THWC.shape == (5, 48, 32, 3)
