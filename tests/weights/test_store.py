"""Model folders: what is saved is loaded bit for bit, what is damaged or foreign is named."""

import json
import os
import resource
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from mutoscope.diffusion.process import Process
from mutoscope.errors import InputError
from mutoscope.models.captioner import Captioner, CaptionerConfig, Narrator
from mutoscope.models.dit import DIT_PRESETS, DiT, DiTConfig
from mutoscope.models.text import TEXT_PRESETS, Text, TextConfig, TextEncoder, train_tokenizer
from mutoscope.models.unet import UNet, UNetConfig
from mutoscope.models.vae import VAE, VAE_PRESETS, VAEConfig
from mutoscope.weights import store
from mutoscope.weights.card import Defaults, ModelCard
from mutoscope.weights.store import Model, built_in, load, load_captioner, load_vae, read_card, save_model

CARD = ModelCard("speck", defaults=Defaults(width=32, steps=4), training={"steps": 3, "config": {"lr": 1e-3}})
PROCESS = Process(path="vp", prediction="epsilon")


@pytest.fixture(scope="module")
def made() -> Model:
    """A model of a few thousand random weights."""
    torch.manual_seed(0)
    vae = VAE(VAEConfig(4, 8, 16, (1, 1), (1, 1)))
    dit = DiT(DiTConfig(width=24, depth=1, heads=2, mlp_width=32, text_width=16, channels=4))
    text = TextEncoder(TextConfig(width=16, depth=1, heads=2, vocab=300, max_tokens=12))
    for module in (vae, dit, text):
        for tensor in module.state_dict().values():
            tensor.copy_(torch.randn_like(tensor) * 0.1 + 0.5)
    tokenizer = train_tokenizer(["a red ball rolls to the right", "a blue box"], 300)
    return Model(vae.eval(), dit.eval(), Text(tokenizer, text.eval()), PROCESS, CARD, Path())


def save(made: Model, folder: Path, **storage: Any) -> Path:
    return save_model(
        folder, vae=made.vae, dit=made.dit, text=made.text, process=PROCESS, card=CARD, storage=storage
    )


@pytest.fixture
def folder(made: Model, tmp_path: Path) -> Path:
    return save(made, tmp_path / "speck")


def parts(model: Model) -> list[nn.Module]:
    return [model.vae, model.dit, model.text.encoder]


def weights(model: Model) -> dict[str, Tensor]:
    return {
        f"{index}.{name}": tensor
        for index, part in enumerate(parts(model))
        for name, tensor in part.state_dict().items()
    }


def predict(model: Model) -> Tensor:
    """One pass through all modules."""
    with torch.no_grad():
        latent = model.vae.encode(torch.linspace(-1, 1, 3 * 5 * 16 * 16).view(1, 3, 5, 16, 16))
        text, mask = model.text(["a red box"])
        return model.vae.decode(model.dit(latent, torch.tensor([500.0]), text, mask))


def test_a_saved_model_loads_bit_for_bit(made: Model, folder: Path) -> None:
    model = load(folder)
    before, after = weights(made), weights(model)
    assert before.keys() == after.keys()
    assert [name for name in before if not torch.equal(before[name], after[name])] == []
    assert torch.equal(predict(model), predict(made))
    assert (model.process, model.folder) == (PROCESS, folder)
    assert (model.card.name, model.card.defaults, model.card.training) == (
        CARD.name,
        CARD.defaults,
        CARD.training,
    )
    assert not any(part.training for part in parts(model))
    assert sorted(path.name for path in folder.parent.iterdir()) == ["speck"]
    assert "speck" in (folder / "README.md").read_text()


def test_saving_is_deterministic_and_the_identity_follows_the_weights(made: Model, tmp_path: Path) -> None:
    one, two = save(made, tmp_path / "a"), save(made, tmp_path / "b")
    assert {path.name: path.read_bytes() for path in one.iterdir()} == {
        path.name: path.read_bytes() for path in two.iterdir()
    }
    half = save(made, tmp_path / "c", dit="fp16")
    assert read_card(one).sha256 == read_card(two).sha256 != read_card(half).sha256


def test_a_u_net_comes_back_as_one(made: Model, tmp_path: Path) -> None:
    config = UNetConfig((16, 16), 1, 2, made.text.encoder.config.width, made.vae.latent_channels)
    unet = UNet(config)
    save_model(tmp_path / "unet", vae=made.vae, dit=unet, text=made.text, process=PROCESS, card=CARD)
    back = load(tmp_path / "unet").dit
    assert isinstance(back, UNet)
    assert back.config == config
    for name, tensor in unet.state_dict().items():
        assert torch.equal(back.state_dict()[name], tensor)


def test_a_model_from_before_a_field_was_there_loads(made: Model, folder: Path) -> None:
    """Its identity is that of the table as it was written; the new field has its default."""
    data = json.loads((folder / "model.json").read_text())
    del data["dit"]["modulation"]
    data["card"]["sha256"] = store._identity(data)
    (folder / "model.json").write_text(json.dumps(data))
    assert load(folder).dit.config == made.dit.config


def test_loaded_weights_do_not_hang_on_the_file(made: Model, folder: Path) -> None:
    model = load(folder)
    for path in folder.glob("*.safetensors"):
        os.truncate(path, 0)
    assert torch.equal(predict(model), predict(made))


@pytest.mark.parametrize(("storage", "error"), [("fp16", 5e-4), ("int8", 4e-3)])
def test_narrow_storage_is_close_and_small(made: Model, tmp_path: Path, storage: str, error: float) -> None:
    whole = save(made, tmp_path / "whole")
    narrow = save(made, tmp_path / "narrow", vae=storage, dit=storage, text=storage)
    before, after = weights(made), weights(load(narrow))
    for name, tensor in before.items():
        assert after[name].dtype == torch.float32
        if tensor.ndim < 2:
            assert torch.equal(after[name], tensor), name
        assert float((after[name] - tensor).abs().max()) <= error * float(tensor.abs().max()), name
    sizes = [(root / "dit.safetensors").stat().st_size for root in (narrow, whole)]
    assert sizes[0] < 0.75 * sizes[1]


def test_device_and_type_are_chosen_and_checked(folder: Path) -> None:
    model = load(folder, device="cpu", dtype="bfloat16")
    assert {tensor.dtype for tensor in weights(model).values()} == {torch.bfloat16}
    assert next(load(folder, dtype=torch.float32).dit.parameters()).dtype == torch.float32
    with pytest.raises(InputError, match="no device tpu"):
        load(folder, device="tpu")
    with pytest.raises(InputError, match="float7"):
        load(folder, dtype="float7")


def test_a_vae_alone_is_a_model_folder(made: Model, tmp_path: Path) -> None:
    folder = save_model(tmp_path / "vae", vae=made.vae, card=CARD)
    video = torch.zeros(1, 3, 5, 16, 16)
    with torch.no_grad():
        assert torch.equal(load_vae(folder).encode(video), made.vae.encode(video))
    with pytest.raises(InputError, match="VAE only"):
        load(folder)


@pytest.mark.parametrize("config", [*VAE_PRESETS.values(), *DIT_PRESETS.values(), *TEXT_PRESETS.values()])
def test_every_preset_builds_without_memory(config: VAEConfig | DiTConfig | TextConfig) -> None:
    kinds: dict[type, Callable[[Any], nn.Module]] = {VAEConfig: VAE, DiTConfig: DiT, TextConfig: TextEncoder}
    module = store._on_meta(kinds[type(config)], config)
    everything = {*module.parameters(), *module.buffers()}
    assert all(tensor.is_meta for tensor in everything)
    assert len(module.state_dict()) == len(everything)  # a tensor outside the state would stay empty


# --- folders


def test_a_model_is_replaced_and_other_folders_are_not(made: Model, folder: Path, tmp_path: Path) -> None:
    assert save(made, folder, dit="int8") == folder
    assert read_card(folder).name == "speck"
    precious = tmp_path / "precious"
    precious.mkdir()
    assert save(made, precious) == precious  # an empty folder is free
    (precious / "model.json").unlink()
    with pytest.raises(InputError, match="not a model"):
        save(made, precious)
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="not a model"):
        save(made, tmp_path / "file")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "precious", "speck"]


def test_a_failed_save_leaves_the_old_model(
    made: Model, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    for call in ("os.fsync", "mutoscope.weights.store.save_file", "os.replace"):
        with monkeypatch.context() as patch:
            patch.setattr(call, full)
            with pytest.raises(InputError, match="no space left"):
                save(made, folder, dit="int8")
        assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
        assert [path.name for path in folder.parent.iterdir()] == ["speck"]


def test_a_full_disk_leaves_the_old_model(made: Model, folder: Path) -> None:
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, hard))
    try:
        with pytest.raises(InputError, match="Cannot write"):
            save(made, folder, dit="fp16")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    assert [path.name for path in folder.parent.iterdir()] == ["speck"]


def test_weights_that_are_no_numbers_are_not_saved(made: Model, tmp_path: Path) -> None:
    dit = DiT(made.dit.config)
    with torch.no_grad():
        dit.table[0, 0] = torch.nan
    with pytest.raises(FloatingPointError, match="table"):
        save_model(tmp_path / "a", vae=made.vae, dit=dit, text=made.text, process=PROCESS, card=CARD)
    assert list(tmp_path.iterdir()) == []


def test_an_unknown_name_lists_what_there_is(
    tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(InputError, match="smal is neither a built-in model nor a folder; built-in models: "):
        load("smal")
    with pytest.raises(InputError, match=r"no model\.json"):
        load(tmp_path)
    with pytest.raises(InputError, match="is a file"):
        load(folder / "dit.safetensors")
    monkeypatch.setattr(store, "BUILT_IN", folder.parent)
    assert built_in() == ["speck"]
    assert load("speck").card.name == "speck"
    for name in ("", ".", "..", "nul\0byte"):
        with pytest.raises(InputError):
            load(name)


# --- damage


@pytest.mark.parametrize("name", ["vae.safetensors", "dit.safetensors", "text.safetensors", "tokenizer.json"])
def test_a_flipped_bit_anywhere_is_named(folder: Path, name: str) -> None:
    path = folder / name
    data = path.read_bytes()
    for position in range(0, len(data), max(1, len(data) // 20)):
        path.write_bytes(data[:position] + bytes([data[position] ^ 1]) + data[position + 1 :])
        with pytest.raises(InputError, match=rf"{name} is not the file of this model.*sha256"):
            load(folder)
    for length in (0, 7, len(data) // 2, len(data) - 1):
        path.write_bytes(data[:length])
        with pytest.raises(InputError, match=name):
            load(folder)
    path.unlink()
    with pytest.raises(InputError, match=rf"Cannot read .*{name}: no such file"):
        load(folder)


def test_a_flipped_bit_in_the_record_never_changes_the_pixels(made: Model, folder: Path) -> None:
    path = folder / "model.json"
    data = path.read_bytes()
    refused = 0
    for position in range(0, len(data), max(1, len(data) // 60)):
        path.write_bytes(data[:position] + bytes([data[position] ^ 1]) + data[position + 1 :])
        try:
            model = load(folder)
        except InputError:
            refused += 1
        else:
            assert torch.equal(model.dit.table, made.dit.table)
            assert (model.dit.config, model.process) == (made.dit.config, PROCESS)
    assert refused > 30


def forge(folder: Path, name: str, write: Callable[[Path], None]) -> None:
    """Replace a file and make the record agree with it, as someone with another model would."""
    write(folder / name)
    data = json.loads((folder / "model.json").read_text())
    data["files"][name] = store._sha256(folder / name)
    data["card"]["sha256"] = store._identity(data)
    (folder / "model.json").write_text(json.dumps(data))


def tensors(change: Callable[[dict[str, Tensor]], object]) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        found = load_file(path)
        change(found)
        save_file(found, path)

    return write


@pytest.mark.parametrize(
    ("write", "words"),
    [
        (tensors(lambda found: found.pop("head.weight")), "lacks head.weight"),
        (tensors(lambda found: found.clear()), r"lacks \S+ and \d+ more"),
        (tensors(lambda found: found.update(alien=torch.zeros(2))), "has alien too many"),
        (tensors(lambda found: found.update(table=torch.zeros(3, 3))), r"table has shape \(3, 3\)"),
        (tensors(lambda found: found.update(table=found["table"].to(torch.uint8))), "table is stored as U8"),
        (
            tensors(lambda found: found.update(table=found["table"].to(torch.int8))),
            r"lacks table\.int8_scale",
        ),
        (lambda path: torch.save({"table": torch.zeros(2)}, path), "not a safetensors file"),
        (lambda path: path.write_bytes(struct.pack("<Q", 2**62) + b"{}"), "not a safetensors file"),
        (lambda path: path.write_bytes(b""), "not a safetensors file"),
        (lambda path: path.write_bytes(b"a red ball" * 100), "not a safetensors file"),
    ],
)
def test_foreign_weights_are_named(folder: Path, write: Callable[[Path], None], words: str) -> None:
    forge(folder, "dit.safetensors", write)
    with pytest.raises(InputError, match=rf"dit\.safetensors.*{words}"):
        load(folder)


def test_a_foreign_tokenizer_is_named(folder: Path) -> None:
    forge(folder, "tokenizer.json", lambda path: path.write_text("{}") and None)
    with pytest.raises(InputError, match=r"tokenizer\.json is not a tokenizer"):
        load(folder)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda data: data.update(format=9), "format 9"),
        (lambda data: data["dit"].update(depth=2), "sha256 does not fit"),
        (lambda data: data["dit"].update(dept=2), "dit.depth"),
        (lambda data: data["process"].update(path="flo"), "process.path"),
        (lambda data: data.pop("vae"), "vae is missing"),
        (lambda data: data["files"].pop("dit.safetensors"), "sha256 does not fit"),
    ],
)
def test_an_edited_record_is_named(
    folder: Path, change: Callable[[dict[str, Any]], object], words: str
) -> None:
    path = folder / "model.json"
    data = json.loads(path.read_text())
    change(data)
    path.write_text(json.dumps(data))
    with pytest.raises(InputError, match=rf"model\.json.*{words}"):
        load(folder)


def test_defaults_may_be_edited(folder: Path) -> None:
    path = folder / "model.json"
    data = json.loads(path.read_text())
    data["card"]["defaults"]["steps"] = 12
    path.write_text(json.dumps(data))
    assert load(folder).card.defaults.steps == 12


def narrator() -> Narrator:
    sizes = CaptionerConfig(width=16, heads=2, encoder_depth=1, decoder_depth=1, vocab=300, channels=4)
    return Narrator(train_tokenizer(["a red ball"], 300), Captioner(sizes).eval())


def test_a_captioner_comes_back_and_changes_no_pixels(made: Model, tmp_path: Path) -> None:
    parts = {"vae": made.vae, "dit": made.dit, "text": made.text, "process": PROCESS, "card": CARD}
    save_model(tmp_path / "without", **parts)
    teller = narrator()
    save_model(tmp_path / "with", **parts, narrator=teller, storage={"captioner": "fp32"})
    assert read_card(tmp_path / "with").sha256 == read_card(tmp_path / "without").sha256
    found = load_captioner(tmp_path / "with", "cpu")
    latent = torch.randn(2, 4, 3, 4, 4)
    assert found.narrator(latent) == teller(latent)
    for name, tensor in teller.captioner.state_dict().items():
        assert torch.equal(found.narrator.captioner.state_dict()[name], tensor)
    assert load(tmp_path / "with", "cpu").card.name == CARD.name
    with pytest.raises(InputError, match="no captioner"):
        load_captioner(tmp_path / "without", "cpu")


@pytest.mark.parametrize("name", ["captioner.safetensors", "captioner-tokenizer.json"])
def test_a_damaged_captioner_is_named(made: Model, tmp_path: Path, name: str) -> None:
    save_model(tmp_path / "m", vae=made.vae, narrator=narrator(), card=CARD)
    data = bytearray((tmp_path / "m" / name).read_bytes())
    data[-9] ^= 1
    (tmp_path / "m" / name).write_bytes(data)
    with pytest.raises(InputError, match=name):
        load_captioner(tmp_path / "m", "cpu")
