"""LoRAs in every style change the weights by strength x alpha / r x B A, and come out again bit for bit."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from mutoscope.errors import InputError
from mutoscope.models.dit import DiT
from mutoscope.models.experts import Experts
from mutoscope.weights.lora import (
    experts_of,
    fuse,
    fuse_when_read,
    parse_lora,
    read_lora,
    unfuse,
    with_loras,
)
from mutoscope.weights.quantise import quantise
from mutoscope.weights.residence import fill
from mutoscope.weights.store import load
from mutoscope.weights.wan_layouts import dit_table, to_theirs
from mutoscope.weights.wan_modules import prepare_dit
from wan_models import DIT, SMALL, diffusers, write_model

RANK, ALPHA = 3, 6.0
LAYERS = (
    "blocks.0.attention.query", "blocks.1.attention.out", "blocks.0.text_attention.key", "blocks.1.mlp.up",
    "blocks.0.mlp.down", "time_in", "modulation", "head", "text.up", "embed",
)  # fmt: skip
Halves = dict[str, tuple[Tensor, Tensor]]


@pytest.fixture
def dit() -> DiT:
    torch.manual_seed(0)
    return DiT(SMALL)


def halves(dit: DiT) -> Halves:
    """A (r, in) and B (out, r) for the layers that LoRAs touch."""
    generator = torch.Generator().manual_seed(1)
    weights = dict(dit.named_parameters())
    shapes = {layer: weights[f"{layer}.weight"].shape for layer in LAYERS}
    return {
        layer: (torch.randn(RANK, inner, generator=generator), torch.randn(outer, RANK, generator=generator))
        for layer, (outer, inner) in shapes.items()
    }


def theirs(layer: str, layout: str) -> str:
    return dit_table(SMALL, layout)[f"{layer}.weight"].key.removesuffix(".weight")  # type: ignore[arg-type]


def written(
    path: Path,
    pairs: Halves,
    names: Callable[[str], str],
    endings: tuple[str, str],
    alpha: str | None,
    metadata: dict[str, str] | None = None,
) -> Path:
    tensors = {}
    for layer, (down, up) in pairs.items():
        if layer == "embed":  # a convolution in the files
            down, up = down.reshape(RANK, SMALL.channels, *SMALL.patch), up.reshape(*up.shape, 1, 1, 1)
        tensors[f"{names(layer)}.{endings[0]}"] = down.contiguous()
        tensors[f"{names(layer)}.{endings[1]}"] = up.contiguous()
        if alpha:
            tensors[f"{names(layer)}.{alpha}"] = torch.tensor(ALPHA)
    save_file(tensors, path, metadata)
    return path


AB, DOWN_UP = ("lora_A.weight", "lora_B.weight"), ("lora_down.weight", "lora_up.weight")
DEFAULT = ("lora_A.default.weight", "lora_B.default.weight")
TOLD = {"lora_adapter_metadata": json.dumps({"transformer.lora_alpha": ALPHA, "transformer.r": RANK})}


def style(name: str, folder: Path, pairs: Halves) -> tuple[Path, float]:
    """A file of a style, and the alpha / r that it tells."""
    path, scale = folder / f"{name}.safetensors", ALPHA / RANK

    def original(layer: str) -> str:
        return theirs(layer, "original")

    def diffusers(layer: str) -> str:
        return theirs(layer, "diffusers")

    match name:
        case "peft":
            path = folder / "adapter"
            path.mkdir()
            written(
                path / "adapter_model.safetensors",
                pairs,
                lambda x: f"base_model.model.{original(x)}",
                AB,
                None,
            )
            (path / "adapter_config.json").write_text(json.dumps({"r": RANK, "lora_alpha": ALPHA}))
        case "peft rslora":
            path = folder / "adapter"
            path.mkdir()
            written(
                path / "adapter_model.safetensors",
                pairs,
                lambda x: f"base_model.model.{diffusers(x)}",
                AB,
                None,
            )
            told = {"r": RANK, "lora_alpha": ALPHA, "use_rslora": True}
            (path / "adapter_config.json").write_text(json.dumps(told))
            scale = ALPHA / RANK**0.5
        case "diffusers":
            written(path, pairs, lambda x: f"transformer.{diffusers(x)}", AB, None, TOLD)
        case "diffusers plain":
            written(path, pairs, lambda x: f"transformer.{diffusers(x)}", AB, None)
            scale = 1.0
        case "diffusers old":
            written(path, pairs, diffusers, ("lora.down.weight", "lora.up.weight"), "alpha")
        case "kohya":
            written(path, pairs, lambda x: f"lora_unet_{original(x).replace('.', '_')}", DOWN_UP, "alpha")
        case "comfy":
            written(path, pairs, lambda x: f"diffusion_model.{original(x)}", DOWN_UP, "alpha")
        case "diffsynth":
            written(path, pairs, original, DEFAULT, None)
            scale = 1.0
        case "diffsynth pipe":
            written(path, pairs, lambda x: f"pipe.dit.{original(x)}", DEFAULT, None)
            scale = 1.0
        case "ours":
            written(path, pairs, lambda x: x, AB, "alpha")
    return path, scale


STYLES = (
    "peft", "peft rslora", "diffusers", "diffusers plain", "diffusers old", "kohya", "comfy", "diffsynth",
    "diffsynth pipe", "ours",
)  # fmt: skip


@pytest.mark.parametrize("name", STYLES)
def test_every_style_adds_what_the_paper_says(name: str, dit: DiT, tmp_path: Path) -> None:
    pairs, before = halves(dit), {key: value.clone() for key, value in dit.state_dict().items()}
    path, scale = style(name, tmp_path, pairs)
    lora = read_lora(path, dit)
    fused = fuse(dit, [(lora, 0.7)])
    for key, value in dit.state_dict().items():
        layer = key.removesuffix(".weight")
        expected = before[key]
        if layer in pairs and key != layer:
            down, up = pairs[layer]
            expected = before[key] + 0.7 * scale * up @ down
            assert not torch.equal(value, before[key])
        torch.testing.assert_close(value, expected, rtol=1e-5, atol=1e-5)
    unfuse(dit, fused)
    assert all(torch.equal(value, before[key]) for key, value in dit.state_dict().items())


def test_several_add_up_and_half_precision_is_rounded_once(dit: DiT, tmp_path: Path) -> None:
    dit = dit.bfloat16()
    pairs = halves(dit)
    paths = [style("comfy", tmp_path, pairs)[0], style("diffsynth", tmp_path, pairs)[0]]
    before = dit.head.weight.detach().clone()
    fused = fuse(dit, [(read_lora(paths[0], dit), 0.5), (read_lora(paths[1], dit), -0.25)])
    down, up = pairs["head"]
    expected = before.float() + (0.5 * 2.0 - 0.25) * up @ down
    torch.testing.assert_close(dit.head.weight.float(), expected.bfloat16().float(), rtol=0.01, atol=1e-3)
    assert dit.head.weight.dtype == torch.bfloat16
    unfuse(dit, fused)
    assert torch.equal(dit.head.weight, before)


def test_whole_differences_of_weights_and_biases(dit: DiT, tmp_path: Path) -> None:
    before = {key: value.clone() for key, value in dit.state_dict().items()}
    change = {
        "diffusion_model.blocks.0.norm3.diff": torch.randn(48),
        "diffusion_model.blocks.0.norm3.diff_b": torch.randn(48),
        "diffusion_model.blocks.1.self_attn.q.diff_b": torch.randn(48),
        "diffusion_model.blocks.1.modulation.diff": torch.randn(1, 6, 48),
        "diffusion_model.blocks.0.diff_m": torch.randn(1, 6, 48),
        "diffusion_model.head.diff_m": torch.randn(1, 2, 48),
    }
    save_file(change, tmp_path / "x.safetensors")
    fuse(dit, [(read_lora(tmp_path / "x.safetensors", dit), 2.0)])
    after = dit.state_dict()
    for name, key in (
        ("blocks.0.text_norm.weight", "blocks.0.norm3.diff"), ("blocks.0.text_norm.bias", "blocks.0.norm3.diff_b"),
        ("blocks.1.attention.query.bias", "blocks.1.self_attn.q.diff_b"),
        ("blocks.1.table", "blocks.1.modulation.diff"),
        ("blocks.0.table", "blocks.0.diff_m"), ("table", "head.diff_m"),
    ):  # fmt: skip
        moved = 2 * change[f"diffusion_model.{key}"].reshape(before[name].shape)
        torch.testing.assert_close(after[name], before[name] + moved)


def test_unmatched_keys_are_an_error_unless_allowed(dit: DiT, tmp_path: Path) -> None:
    pairs = halves(dit)
    path, _ = style("comfy", tmp_path, pairs)
    from safetensors.torch import load_file

    more = {
        "diffusion_model.blocks.7.self_attn.q.lora_up.weight": torch.zeros(48, RANK),
        "junk": torch.zeros(1),
    }
    save_file({**load_file(path), **more}, path)
    with pytest.raises(InputError, match=r"2 keys without a place.*blocks\.7.*junk"):
        read_lora(path, dit)
    lora = read_lora(path, dit, allow_unmatched=True)
    assert set(lora.unmatched) == set(more)
    assert len(lora.changes) == len(pairs)


@pytest.mark.parametrize(
    ("tensors", "told"),
    [
        ({"blocks.0.self_attn.q.lora_A.weight": (4, 64), "blocks.0.self_attn.q.lora_B.weight": (64, 4)},
         "another model: its blocks.0.attention.query.weight is 64x64 and this model's is 48x48"),
        ({"unet.down.0.lora_A.weight": (4, 64), "unet.down.0.lora_B.weight": (64, 4)}, "another model: none"),
        ({"blocks.0.self_attn.q.lora_A.weight": (4, 48)}, "only the A half"),
        ({"blocks.0.ffn.2.lora_A.weight": (4, 80), "blocks.0.ffn.2.lora_B.weight": (48, 5)}, "ranks 4 and 5"),
        ({"blocks.0.self_attn.q.hada_w1_a": (4, 48)}, "not read"),
        ({"blocks.0.self_attn.q.dora_scale": (48,)}, "not read"),
        ({"blocks.0.self_attn.q.weight": (48, 48)}, "another model: none"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_one_sentence(
    tensors: dict[str, tuple[int, ...]], told: str, dit: DiT, tmp_path: Path
) -> None:
    path = tmp_path / "bad.safetensors"
    save_file({key: torch.ones(shape) for key, shape in tensors.items()}, path)
    with pytest.raises(InputError, match=told) as caught:
        read_lora(path, dit)
    assert "\n" not in str(caught.value)


def test_pickles_and_other_files_are_refused(dit: DiT, tmp_path: Path) -> None:
    for name, told in (("x.pt", "pickle"), ("x.safetensors", "cannot be read")):
        (tmp_path / name).write_bytes(b"not a lora")
        with pytest.raises(InputError, match=told):
            read_lora(tmp_path / name, dit)
    with pytest.raises(InputError, match="cannot be read"):
        read_lora(tmp_path / "missing.safetensors", dit)


def test_file_and_strength(tmp_path: Path) -> None:
    assert parse_lora("a/style.safetensors") == (Path("a/style.safetensors"), 1.0)
    assert parse_lora("style.safetensors:-0.5") == (Path("style.safetensors"), -0.5)
    for text in ("style.safetensors:much", "style.safetensors:99", "style.safetensors:nan"):
        with pytest.raises(InputError, match="strength"):
            parse_lora(text)


def test_a_model_with_a_lora_has_an_identity_of_its_own(model_folder: Path, tmp_path: Path) -> None:
    model = load(model_folder)
    weight = model.dit.head.weight
    before = weight.detach().clone()
    pair = {
        "head.lora_A.weight": torch.ones(2, weight.shape[1]),
        "head.lora_B.weight": torch.ones(len(weight), 2),
    }
    save_file(pair, tmp_path / "a.safetensors")
    with_lora = with_loras(model, [(tmp_path / "a.safetensors", 0.5)])
    torch.testing.assert_close(with_lora.dit.head.weight, before + 1.0)
    other = with_loras(load(model_folder), [(tmp_path / "a.safetensors", 0.25)])
    assert len({model.card.sha256, with_lora.card.sha256, other.card.sha256}) == 3


def test_of_two_experts_the_name_tells_which_one_is_meant(
    model_folder: Path, tmp_path: Path, dit: DiT
) -> None:
    model = load(model_folder)
    model.dit = Experts(dit, DiT(SMALL), 0.875)  # type: ignore[assignment]
    assert experts_of(model.dit, Path("style.safetensors")) == [model.dit.high, model.dit.low]
    assert experts_of(model.dit, Path("wan_low_noise.safetensors")) == [model.dit.low]
    assert experts_of(dit, Path("wan_low_noise.safetensors")) == [dit]
    before = [expert.head.weight.detach().clone() for expert in (model.dit.high, model.dit.low)]
    path = tmp_path / "a_high_noise.safetensors"
    style("comfy", tmp_path, halves(dit))[0].rename(path)
    with_loras(model, [(path, 1.0)])
    assert not torch.equal(model.dit.high.head.weight, before[0])
    assert torch.equal(model.dit.low.head.weight, before[1])


def test_a_lora_goes_into_weights_before_they_are_rounded(tmp_path: Path, dit: DiT) -> None:
    """As into exact ones, which are rounded then; biases, norms and what is outside the blocks stay exact."""
    tensors = to_theirs(dit.state_dict(), dit_table(SMALL, "diffusers"))
    save_file({key: one.contiguous() for key, one in tensors.items()}, tmp_path / "dit.safetensors")
    lora, extra = style("comfy", tmp_path, halves(dit))[0], tmp_path / "extra.safetensors"
    save_file({"blocks.0.self_attn.q.diff_b": torch.ones(48)}, extra)

    def read(kept: Literal["plain", "int8"]) -> tuple[DiT, Callable[[], object]]:
        module, states = prepare_dit(tmp_path / "dit.safetensors", heads=2, kept=kept)
        return module, lambda: fill(module, states())

    (exact, read_exact), (rounded, read_rounded) = read("plain"), read("int8")
    read_exact()
    fuse(exact, [(read_lora(path, exact), 0.7) for path in (lora, extra)])
    fuse_when_read(rounded, [(read_lora(path, rounded), 0.7) for path in (lora, extra)])
    read_rounded()
    found = rounded.state_dict()
    for name, expected in exact.state_dict().items():
        if name in found:
            assert torch.equal(found[name], expected), name
        else:
            above = name.removesuffix("weight")
            codes, scale = quantise(expected)
            assert torch.equal(found[f"{above}codes"], codes), name
            assert torch.equal(found[f"{above}scale"], scale), name
    assert len(found) > len(exact.state_dict())


def test_a_lora_comes_too_late_for_weights_that_have_been_rounded(tmp_path: Path) -> None:
    pytest.importorskip("transformers")
    transformer = diffusers().WanTransformer3DModel(**DIT)
    folder = write_model(tmp_path / "T2V", {"_class_name": "WanPipeline"}, transformer=transformer)
    exact, rounded = load(folder), load(folder, weights="int8")
    weight = exact.dit.head.weight.detach().clone()
    pair = {
        "head.lora_A.weight": torch.ones(2, weight.shape[1]),
        "head.lora_B.weight": torch.ones(len(weight), 2),
    }
    save_file(pair, tmp_path / "a.safetensors")
    given = [(tmp_path / "a.safetensors", 0.5)]
    with_lora = with_loras(rounded, given)
    assert with_lora.dit.head.weight.is_meta  # nothing was read for it
    assert with_lora.card.sha256 not in (rounded.card.sha256, with_loras(exact, given).card.sha256)
    assert with_lora.wake is not None
    with_lora.wake()
    torch.testing.assert_close(with_lora.dit.head.weight, weight + 1.0)
    with pytest.raises(InputError, match="rounded to 8 bits already"):
        with_loras(with_lora, given)
