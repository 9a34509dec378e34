"""Weights that take turns or stay in their file give the clip that weights in memory give; those in 8 bits nearly."""

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
from mutoscope.models.vace import VaceConfig, VaceDiT
from mutoscope.models.wan_image import ImageDiTConfig
from mutoscope.models.wan_vae import WanVAE
from mutoscope.weights import residence
from mutoscope.weights.quantise import QuantisedLinear
from mutoscope.weights.residence import MappedLinear, chosen, fill, linear_layers, unread_bytes
from mutoscope.weights.tensor_files import opened, read_shapes
from mutoscope.weights.wan_layouts import blank_dit, dit_table, to_theirs
from mutoscope.weights.wan_modules import prepare_dit
from wan_models import DIT, PROMPT, SIZE, SMALL, diffusers, psnr, write_model

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
    monkeypatch.setattr(residence, "chosen", lambda *_: where)
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
    monkeypatch.setattr(residence, "chosen", lambda *_: "late")
    model = load(t2v)
    assert model.wake is not None
    model.wake()
    assert unread_bytes(model.dit) == 0
    before = model.dit.embed.weight
    sample(model, [resolve(model, REQUEST)])
    assert model.dit.embed.weight is before


@pytest.fixture(scope="module")
def wider(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As t2v, with rows long enough for runs of 16, and odd ones."""
    torch.manual_seed(0)
    dit = diffusers().WanTransformer3DModel(**DIT | {"attention_head_dim": 34, "ffn_dim": 150})
    return write_model(
        tmp_path_factory.mktemp("wan") / "T2V", {"_class_name": "WanPipeline"}, transformer=dit
    )


@pytest.mark.parametrize("where", ["memory", "file"])
def test_weights_in_8_bits_draw_nearly_the_same_clip(
    where: str, wider: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    exact = load(wider)
    expected = sample(exact, [resolve(exact, REQUEST)]).latent_BCTHW
    monkeypatch.setattr(residence, "chosen", lambda *_: where)
    model = load(wider, weights="int8")
    assert model.card.sha256 != exact.card.sha256
    assert model.placement is not None
    assert model.placement.residence == ("memory" if where == "memory" else "late")
    recipe = resolve(model, REQUEST)
    before = planning.plan(model, recipe).memory
    unread = unread_bytes(model.dit)
    assert unread == pytest.approx(model.placement.transformer, rel=0.02)  # rows here end in short runs
    found = sample(model, [recipe]).latent_BCTHW
    assert psnr(found, expected) > 50
    assert 0 < (found - expected).norm() / expected.norm() < 0.01
    assert unread_bytes(model.dit) == 0
    assert before - planning.plan(model, recipe).memory == unread
    kept = [module for module in model.dit.modules() if isinstance(module, QuantisedLinear)]
    assert len(kept) == 2 * 10
    rest = {one.dtype for name, one in model.dit.named_parameters() if name.endswith((".bias", "table"))}
    assert rest == {torch.float32}
    assert model.dit.head.weight.dtype == model.dit.embed.weight.dtype == torch.float32


def test_only_the_matrices_of_a_block_lie_exact_beside_its_codes(wider: Path) -> None:
    """The weights of the file are read block by block, and mapped where its type is theirs."""
    parts = prepare_dit(wider / "transformer", kept="int8")[1]()
    names = [set(part) for part in parts]
    assert len(names) == 1 + DIT["num_layers"]
    assert all(len({name.split(".")[1] for name in part}) == 1 for part in names if "blocks." in min(part))


@pytest.mark.parametrize("kind", ["i2v", "i2v-a14b", "vace"])
@torch.no_grad()
def test_every_kind_of_transformer_works_in_8_bits(kind: str, tmp_path: Path) -> None:
    torch.manual_seed(1)
    shape = {name: getattr(SMALL, name) for name in SMALL.__dataclass_fields__}
    configs = {
        "i2v": ImageDiTConfig(**shape | {"channels": 9}, out_channels=4, image_width=10),
        "i2v-a14b": ImageDiTConfig(**shape | {"channels": 9}, out_channels=4),
        "vace": VaceConfig(**shape, hinted=(0,), control_channels=11),
    }
    blank = blank_dit(configs[kind])
    state = {name: torch.randn(one.shape) * 0.2 for name, one in blank.state_dict().items()}
    tensors = to_theirs(state, dit_table(configs[kind], "original"))
    save_file({key: one.contiguous() for key, one in tensors.items()}, tmp_path / "w.safetensors")
    (tmp_path / "config.json").write_text('{"num_heads": 2, "vace_layers": [0]}')
    latent, timestep, text = torch.randn(1, 4, 2, 4, 6), torch.tensor([500.0]), torch.randn(1, 7, 20)
    beside = torch.randn(1, 11 if kind == "vace" else 5, 2, 4, 6)
    outputs = []
    for kept in ("plain", "int8"):
        dit, read = prepare_dit(tmp_path / "w.safetensors", kept=kept)
        fill(dit, read())
        if isinstance(dit, VaceDiT):
            cache = dit.cache_control(text, None, beside)
        else:
            image = torch.ones(1, 3, 10) if kind == "i2v" else None
            cache = dit.cache_pictures(text, None, beside, image)
        outputs.append(dit(latent, timestep, cache))
        assert bool(linear_layers(dit)) == (kept == "plain")
    assert psnr(outputs[1], outputs[0]) > 35


def test_two_experts_work_in_8_bits(tmp_path: Path) -> None:
    torch.manual_seed(1)
    dits = [diffusers().WanTransformer3DModel(**DIT) for _ in range(2)]
    told = {"_class_name": "WanPipeline", "boundary_ratio": 0.7}
    folder = write_model(tmp_path / "A14B", told, transformer=dits[0], transformer_2=dits[1])
    exact, rounded = load(folder), load(folder, weights="int8")
    expected = sample(exact, [resolve(exact, REQUEST)]).latent_BCTHW
    assert 45 < psnr(sample(rounded, [resolve(rounded, REQUEST)]).latent_BCTHW, expected) < 120
    assert exact.placement is not None
    counts = [one.numel() for one in exact.dit.parameters()]
    assert exact.placement.numbers == sum(counts)
    linears = [layer.weight.numel() for _, layer in linear_layers(exact.dit)]  # type: ignore[arg-type]
    assert exact.placement.matrices == sum(linears)


def test_weights_that_no_model_has_are_refused(model_folder: Path, wider: Path) -> None:
    with pytest.raises(InputError, match=r"no Wan transformer.*leave out 'int8'"):
        load(model_folder, weights="int8")
    with pytest.raises(InputError, match="no weights 'fp8'; use exact or int8"):
        load(wider, weights="fp8")
    with pytest.raises(InputError, match="neither a built-in model nor a folder"):
        load("nothing", weights="int8")


def test_what_cannot_fit_is_refused_before_it_is_read(t2v: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(residence, "chosen", lambda *_: "late")
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
