"""Weights that take turns or stay in their file give the clip that weights in memory give, in less memory."""

from __future__ import annotations

import resource
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import save_file

from mutoscope import Request, load
from mutoscope.errors import InputError
from mutoscope.generation import plan as planning
from mutoscope.generation.generate import resolve
from mutoscope.generation.sampling import sample
from mutoscope.models.wan_vae import WanVAE
from mutoscope.weights import residence, wan_folder
from mutoscope.weights.residence import MappedLinear, chosen, unread_bytes
from mutoscope.weights.tensor_files import opened, read_shapes
from wan_models import DIT, PROMPT, SIZE, diffusers, write_model

pytest.importorskip("transformers")
REQUEST = Request(PROMPT, negative="a ball", **SIZE | {"steps": 2})
GIB = 2**30


@pytest.fixture(scope="module")
def t2v(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    dit = diffusers().WanTransformer3DModel(**DIT).bfloat16()
    return write_model(
        tmp_path_factory.mktemp("wan") / "T2V", {"_class_name": "WanPipeline"}, transformer=dit
    )


def test_what_fits_is_held_and_what_does_not_takes_turns_or_stays() -> None:
    text, transformer, vae = 11 * GIB, 6 * GIB, GIB // 2
    assert chosen(text, transformer, vae, 64 * GIB) == "memory"
    assert chosen(text, transformer, vae, 20 * GIB) == "late"
    assert chosen(text, transformer, vae, 8 * GIB) == "file"
    assert chosen(text, 57 * GIB, vae, 20 * GIB) == "file"


@pytest.mark.parametrize("where", ["late", "file"])
def test_the_clip_is_the_same_wherever_the_weights_lie(
    where: str, t2v: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = load(t2v)
    assert unread_bytes(held.dit) == 0
    expected = sample(held, [resolve(held, REQUEST)]).latent_BCTHW
    monkeypatch.setattr(wan_folder, "chosen", lambda *_: where)
    model = load(t2v)
    unread = unread_bytes(model.dit)
    matrices = sum(
        each.weight.numel() + each.bias.numel()
        for each in held.dit.blocks.modules()
        if isinstance(each, torch.nn.Linear)
    )
    whole = sum(parameter.numel() for parameter in held.dit.parameters())
    assert unread == 4 * (whole - (matrices if where == "file" else 0))
    assert model.placement is not None
    recipe = resolve(model, REQUEST)
    assert planning.plan(model, recipe).memory - planning.plan(held, recipe).memory == unread
    assert torch.equal(sample(model, [recipe]).latent_BCTHW, expected)
    assert unread_bytes(model.dit) == 0
    mapped = [module for module in model.dit.modules() if isinstance(module, MappedLinear)]
    assert len(mapped) == (0 if where == "late" else 2 * 10)
    assert {module.weight.dtype for module in mapped} <= {torch.bfloat16}


def test_waking_reads_the_weights_once(t2v: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wan_folder, "chosen", lambda *_: "late")
    model = load(t2v)
    assert model.wake is not None
    model.wake()
    assert unread_bytes(model.dit) == 0
    before = model.dit.embed.weight
    sample(model, [resolve(model, REQUEST)])
    assert model.dit.embed.weight is before


def test_what_cannot_fit_is_refused_before_it_is_read(t2v: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wan_folder, "chosen", lambda *_: "late")
    model = load(t2v)
    monkeypatch.setattr(planning, "free_memory", lambda _: unread_bytes(model.dit))
    with pytest.raises(InputError, match="needs about"):
        resolve(model, REQUEST)
    assert unread_bytes(model.dit) > 0


def test_file_pages_of_a_container_count_as_free(tmp_path: Path) -> None:
    (tmp_path / "memory.stat").write_text("anon 700\ninactive_file 30\nactive_file 5\nslab 9\n")
    assert residence.cached_files(tmp_path / "memory.stat") == 35


def test_headers_alone_take_no_memory(tmp_path: Path) -> None:
    """A file of 2 GiB that has no blocks on disk: its header is read, its zeros are not."""
    path = tmp_path / "w.safetensors"
    header = b'{"w":{"dtype":"F32","shape":[536870912],"data_offsets":[0,2147483648]}}'
    with path.open("wb") as file:
        file.write(len(header).to_bytes(8, "little") + header)
        file.truncate(8 + len(header) + 2 * GIB)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert read_shapes(path) == {"w": (2**29,)}
    assert residence.weight_bytes(path, torch.bfloat16) == GIB
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100 * 1024


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
def test_a_change_of_mapped_weights_stays_out_of_the_file(suffix: str, tmp_path: Path) -> None:
    """A LoRA is added in place."""
    path, weights = tmp_path / f"w{suffix}", {"w": torch.arange(4096.0)}
    if suffix == ".pth":
        torch.save(weights, path)
    else:
        save_file(weights, path)
    before = path.read_bytes()
    with opened(path) as file:
        tensor = file.get("w")
    tensor.add_(1)
    assert tensor[5] == 6
    assert path.read_bytes() == before


def test_the_decoder_of_wan_is_planned_by_its_own_size(t2v: Path) -> None:
    """A wider one takes more memory and time; so do more pixels, as long as one latent frame is decoded at a time."""
    model = load(t2v)
    one, more = (
        planning.plan(model, resolve(model, replace(REQUEST, width=side, height=side)))
        for side in (512, 1024)
    )
    assert more.decoding / one.decoding == pytest.approx(4)
    assert 3 < more.memory / one.memory < 4.5
    wide = SimpleNamespace(**vars(model) | {"vae": WanVAE(replace(model.vae.config, decoder_width=32))})
    recipe = resolve(model, replace(REQUEST, width=512, height=512))
    assert planning.plan(wide, recipe).decoding == pytest.approx(16 * planning.plan(model, recipe).decoding)
