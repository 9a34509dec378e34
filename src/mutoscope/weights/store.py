"""A model as a folder: model.json, one safetensors file per module, tokenizer.json, README.md.

model.json holds the architecture, the process, the defaults, the training record and the sha256 of every
file. Nothing is unpickled, and nothing is allocated before hashes, names and shapes have been checked.
"""

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, TypeVar, cast, get_args

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from tokenizers import Tokenizer
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from mutoscope.config import from_dict, read_table, to_dict, write_json
from mutoscope.diffusion.process import Process
from mutoscope.errors import InputError
from mutoscope.files import replacing_folder
from mutoscope.models.captioner import Captioner, CaptionerConfig, Narrator
from mutoscope.models.clip import PictureEncoder
from mutoscope.models.compilation import compile_blocks, require_compiler
from mutoscope.models.dit import DiT, DiTConfig
from mutoscope.models.text import Text, TextConfig, TextEncoder
from mutoscope.models.unet import UNet, UNetConfig
from mutoscope.models.vae import VAE, VAEConfig
from mutoscope.weights.card import ModelCard
from mutoscope.weights.library import located, recorded_hashes
from mutoscope.weights.quantise import dequantise, quantise, scale_shape
from mutoscope.weights.residence import Placement, Weights

Storage = Literal["fp32", "fp16", "int8"]
Part = Literal["vae", "dit", "text", "captioner"]
M = TypeVar("M", bound=nn.Module)
C = TypeVar("C")

FORMAT = 1
BUILT_IN = Path(__file__).parent
TOKENIZER = "tokenizer.json"
CAPTIONER_TOKENIZER = "captioner-tokenizer.json"
SCALE = ".int8_scale"  # a weight stored in 8 bits has its scales under its name with this ending
STORED = ("F32", "F16", "BF16", "I64")


@dataclass
class Model:
    """Everything that turns a prompt into a video, and the folder that it came from."""

    vae: VAE
    dit: DiT
    text: Text
    process: Process
    card: ModelCard
    folder: Path
    read_picture_encoder: Callable[[], PictureEncoder] | None = (
        None  # of models that look at pictures with CLIP
    )
    wake: Callable[[], object] | None = None  # reads what would be read when the transformer is first used
    narrator: Narrator | None = None  # of models that come with a captioner
    placement: Placement | None = None  # of models whose parts may take turns in memory
    compiled: bool = False

    @property
    def weights(self) -> Weights:
        """Whether the transformer's weights are those of its file, or rounded to 8 bits."""
        return "exact" if self.placement is None else self.placement.weights

    @property
    def identity(self) -> str:
        """Of what computes: models that make other clips of the same request are told apart by it."""
        marks = ("int8" if self.weights == "int8" else "", "compiled" if self.compiled else "")
        return "-".join([self.card.sha256, *filter(None, marks)])


@dataclass
class CaptionModel:
    """Everything that turns a video into a caption, and the folder that it came from."""

    vae: VAE
    narrator: Narrator
    card: ModelCard
    folder: Path
    sha256: str  # of the captioner's weights


@dataclass(frozen=True)
class Record:
    """The contents of model.json. `files` maps the name of each file to its sha256."""

    format: int
    card: ModelCard
    vae: VAEConfig
    dit: DiTConfig | UNetConfig | None
    text: TextConfig | None
    process: Process | None
    files: dict[str, str]
    captioner: CaptionerConfig | None = None


def load(
    name_or_path: str | Path,
    device: str | torch.device | None = None,
    dtype: str | torch.dtype | None = None,
    weights: str = "exact",
    compiled: bool = False,
) -> Model:
    """Load a built-in model by name, or a model folder, ready to generate (evaluation mode).

    device: None takes cuda, else mps, else cpu. dtype: None means float32, for Wan's transformers bfloat16 unless
    on a CPU. weights: "int8" rounds those of the blocks of Wan's transformers to 8 bits, which halves their memory in
    bfloat16 and changes the clip a little. compiled: torch.compile takes the transformer's blocks, which costs about a
    minute at the first use and for each further shape, and changes last bits. Raises InputError for an unknown name,
    for a folder that is incomplete, damaged or not a model, and where nothing can be compiled.
    """
    model = _loaded(name_or_path, device, dtype, weights)
    if compiled:
        require_compiler(model.vae.latent_mean.device)
        compile_blocks([model.dit])
    return replace(model, compiled=compiled)


def _loaded(
    name_or_path: str | Path, device: str | torch.device | None, dtype: str | torch.dtype | None, weights: str
) -> Model:
    check_weights(name_or_path, weights)
    if (theirs := _wan(name_or_path)) is not None:
        from mutoscope.weights.wan_folder import load_wan  # stands on this file

        kind = None if dtype is None else _dtype(dtype)
        return load_wan(theirs, _device(device), kind, cast(Weights, weights))
    folder, record = _open(name_or_path)
    if record.dit is None or record.text is None or record.process is None:
        raise InputError(f"{folder} holds a VAE only; give a model with a DiT and a text encoder.")
    place = _device(device), _dtype(dtype)
    vae = _load_module(folder, record, "vae", _on_meta(VAE, record.vae), place)
    dit = _load_module(folder, record, "dit", _network(record.dit), place)
    encoder = _load_module(folder, record, "text", _on_meta(TextEncoder, record.text), place)
    text = Text(_load_tokenizer(folder, record), encoder)
    narrator = None if record.captioner is None else _narrator(folder, record, place)
    return Model(vae, dit, text, record.process, record.card, folder, narrator=narrator)


def check_weights(name_or_path: str | Path, weights: str) -> None:
    """Raise InputError for weights of a kind that there is not, or that this model cannot have."""
    if weights not in get_args(Weights):
        raise InputError(f"There are no weights {weights!r}; use exact or int8.")
    if weights != "exact" and _place(name_or_path).is_dir() and _wan(name_or_path) is None:
        raise InputError(
            f"{name_or_path} has no Wan transformer: its weights are used as its file has them; leave out {weights!r}."
        )


def load_vae(
    name_or_path: str | Path, device: str | torch.device | None = None, dtype: str | torch.dtype | None = None
) -> VAE:
    """Load only the VAE of a model; like `load`."""
    folder, record = _open(name_or_path)
    return _load_module(folder, record, "vae", _on_meta(VAE, record.vae), (_device(device), _dtype(dtype)))


def load_captioner(
    name_or_path: str | Path, device: str | torch.device | None = None, dtype: str | torch.dtype | None = None
) -> CaptionModel:
    """Load the captioner of a model and the VAE that it sees through; like `load`."""
    folder, record = _open(name_or_path)
    if record.captioner is None:
        raise InputError(
            f"{name_or_path} has no captioner; train one with `mutoscope train captioner` and name its folder."
        )
    place = _device(device), _dtype(dtype)
    vae = _load_module(folder, record, "vae", _on_meta(VAE, record.vae), place)
    narrator = _narrator(folder, record, place)
    return CaptionModel(vae, narrator, record.card, folder, record.files["captioner.safetensors"])


def built_in() -> list[str]:
    """Names of the models that come with the package."""
    return sorted(path.parent.name for path in BUILT_IN.glob("*/model.json"))


def read_card(name_or_path: str | Path) -> ModelCard:
    """What a model says of itself, without its weights."""
    if (theirs := _wan(name_or_path)) is not None:
        from mutoscope.weights.wan_folder import wan_card  # stands on this file

        return wan_card(theirs)
    return _open(name_or_path)[1].card


def save_model(
    folder: str | Path,
    *,
    vae: VAE,
    dit: DiT | UNet | None = None,
    text: Text | None = None,
    narrator: Narrator | None = None,
    process: Process | None = None,
    card: ModelCard,
    storage: Mapping[Part, Storage] | None = None,
) -> Path:
    """Write a model folder, whole or not at all; one that is there is replaced if it is a model.

    storage: per module "fp32" (the default; loads again bit for bit), "fp16" or "int8" (see `quantise.py`)
    for weights of two or more axes; smaller ones stay float32. Raises InputError when the place cannot be
    written or another folder is there, FloatingPointError when a weight is not finite.
    """
    folder = Path(folder)
    if folder.exists() and not _may_be_replaced(folder):
        raise InputError(f"{folder} exists and is not a model; choose another folder for the model.")
    modules: dict[Part, nn.Module] = {"vae": vae}
    if dit is not None:
        modules["dit"] = dit
    if text is not None:
        modules["text"] = text.encoder
    if narrator is not None:
        modules["captioner"] = narrator.captioner
    with replacing_folder(folder) as partial:
        for part, module in modules.items():
            tensors = _stored(module, (storage or {}).get(part, "fp32"))
            try:
                save_file(tensors, partial / f"{part}.safetensors")
            except SafetensorError as error:  # how the library tells of a full disk
                raise InputError(f"Cannot write {folder}: {error}; free some space.") from error
        if text is not None:
            (partial / TOKENIZER).write_text(text.tokenizer.to_str(pretty=True), "utf-8")
        if narrator is not None:
            (partial / CAPTIONER_TOKENIZER).write_text(narrator.tokenizer.to_str(pretty=True), "utf-8")
        files = {path.name: _sha256(path) for path in sorted(partial.iterdir())}
        record = Record(
            format=FORMAT,
            card=card,
            vae=vae.config,
            dit=None if dit is None else dit.config,
            text=None if text is None else text.encoder.config,
            process=process,
            files=files,
            captioner=None if narrator is None else narrator.captioner.config,
        )
        record = replace(record, card=replace(card, sha256=_identity(to_dict(record))))
        write_json(partial / "model.json", record)
        (partial / "README.md").write_text(_readme(record), "utf-8")
    return folder


def _may_be_replaced(folder: Path) -> bool:
    """A model, or an empty folder."""
    return folder.is_dir() and ((folder / "model.json").is_file() or not any(folder.iterdir()))


def _place(name_or_path: str | Path) -> Path:
    """The folder of a model; it is not looked into."""
    return BUILT_IN / name_or_path if str(name_or_path) in built_in() else located(name_or_path)


def recorded_files(folder: Path) -> dict[str, str]:
    """sha256 of the files of a model as they were when it was made or came."""
    return _open(folder)[1].files if (folder / "model.json").is_file() else recorded_hashes(folder)


def _wan(name_or_path: str | Path) -> Path | None:
    """The folder, when it holds Wan's weights and not a model of ours."""
    folder = _place(name_or_path)
    if not folder.is_dir() or (folder / "model.json").is_file():
        return None
    from mutoscope.weights.wan_folder import looks_like_wan  # stands on this file

    return folder if looks_like_wan(folder) else None


def _open(name_or_path: str | Path) -> tuple[Path, Record]:
    """The folder of a model and its checked model.json."""
    known = built_in()
    folder = _place(name_or_path)
    if folder.is_file():
        raise InputError(f"{folder} is a file; a model is a folder with a model.json, give that folder.")
    if not (folder / "model.json").is_file():
        names = ", ".join(known) or "none yet"
        what = "holds no model.json" if folder.is_dir() else "is neither a built-in model nor a folder"
        raise InputError(f"{name_or_path} {what}; built-in models: {names}.")
    path = folder / "model.json"
    data = read_table(path)
    if data.get("format") != FORMAT:
        raise InputError(
            f"{path} has format {data.get('format')!r}; this version reads format {FORMAT}: update it."
        )
    record = from_dict(Record, data, str(path))
    if record.card.sha256 != _identity(data):
        raise InputError(f"{path} is damaged or was edited (its sha256 does not fit); get the model again.")
    return folder, record


def _identity(data: Mapping[str, Any]) -> str:
    """sha256 of what decides the pixels: architecture, process and files; not the words, defaults and captioner.

    Of the table as it is written, so that a field that came later changes no older model.
    """
    files = {name: sum_ for name, sum_ in data["files"].items() if not name.startswith("captioner")}
    decisive = {key: value for key, value in data.items() if key not in ("card", "captioner")}
    return hashlib.sha256(json.dumps(decisive | {"files": files}, sort_keys=True).encode()).hexdigest()


def _checked_file(folder: Path, record: Record, name: str) -> Path:
    """The path of a file that is what model.json says it is."""
    path = folder / name
    if name not in record.files:
        raise InputError(f"{folder / 'model.json'} lists no {name}; get the model again.")
    try:
        found = _sha256(path)
    except OSError as error:
        raise InputError(
            f"Cannot read {path}: {(error.strerror or '').lower()}; get the model again."
        ) from error
    if found != record.files[name]:
        raise InputError(
            f"{path} is not the file of this model: its sha256 is {found[:12]}..., model.json says "
            f"{record.files[name][:12]}...; get the model again."
        )
    return path


def _narrator(folder: Path, record: Record, place: tuple[torch.device, torch.dtype]) -> Narrator:
    """The captioner of a model that has one, with its words."""
    assert record.captioner is not None
    captioner = _load_module(folder, record, "captioner", _on_meta(Captioner, record.captioner), place)
    return Narrator(_load_tokenizer(folder, record, CAPTIONER_TOKENIZER), captioner)


def _load_module(
    folder: Path, record: Record, part: Part, module: M, place: tuple[torch.device, torch.dtype]
) -> M:
    """Fill a module that was built on the meta device; its tensors exist once, on the device."""
    path = _checked_file(folder, record, f"{part}.safetensors")
    try:
        with safe_open(path, framework="pt") as file:
            _check_tensors(path, file, {name: tensor.shape for name, tensor in module.state_dict().items()})
            names = set(file.keys())
            tensors = {name: _read(file, name, names, place) for name in module.state_dict()}
    except SafetensorError as error:
        raise InputError(f"{path} is not a safetensors file ({error}); get the model again.") from error
    module.load_state_dict(tensors, assign=True)
    return module.eval()


def _check_tensors(path: Path, file: Any, wanted: Mapping[str, torch.Size]) -> None:
    """Names, shapes and types from the header alone. Raises InputError naming the first that is wrong."""
    found = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
    shapes = {name: tuple(entry.get_shape()) for name, entry in found.items()}
    expected = {name: tuple(shape) for name, shape in wanted.items()}
    in_8_bits = {name for name in wanted if name in found and found[name].get_dtype() == "I8"}
    expected |= {name + SCALE: scale_shape(wanted[name]) for name in in_8_bits}
    missing, foreign = sorted(expected.keys() - shapes.keys()), sorted(shapes.keys() - expected.keys())
    if missing:
        raise InputError(f"{path} lacks {_some(missing)}; it belongs to another model, get the right one.")
    if foreign:
        raise InputError(
            f"{path} has {_some(foreign)} too many; it belongs to another model, get the right one."
        )
    for name, shape in expected.items():
        if shapes[name] != shape:
            raise InputError(
                f"{path}: {name} has shape {shapes[name]}, the architecture says {shape}; get the right one."
            )
        if found[name].get_dtype() not in (*STORED, "I8"):
            raise InputError(
                f"{path}: {name} is stored as {found[name].get_dtype()}; use {', '.join(STORED)} or I8."
            )


def _read(file: Any, name: str, names: set[str], place: tuple[torch.device, torch.dtype]) -> Tensor:
    """One tensor on its device: a copy, so that the file may change or go away later."""
    tensor: Tensor = file.get_tensor(name)
    if name + SCALE in names:
        tensor = dequantise(tensor, file.get_tensor(name + SCALE))
    device, dtype = place
    return tensor.to(device, dtype if tensor.is_floating_point() else tensor.dtype, copy=True)


def _stored(module: nn.Module, storage: Storage) -> dict[str, Tensor]:
    """The tensors of a module as its file holds them."""
    tensors = {}
    for name, tensor in module.state_dict().items():
        value = tensor.detach().cpu()
        if value.is_floating_point() and not value.isfinite().all():
            raise FloatingPointError(f"The weights of {name} are not finite; they are not saved.")
        if not value.is_floating_point():
            tensors[name] = value.contiguous()
        elif storage == "int8" and value.ndim >= 2:
            tensors[name], tensors[name + SCALE] = quantise(value)
        elif storage == "fp16" and value.ndim >= 2:
            tensors[name] = value.half().contiguous()
        else:
            tensors[name] = value.float().contiguous()
    return {name: tensor.clone() for name, tensor in tensors.items()}  # safetensors refuses shared memory


def _load_tokenizer(folder: Path, record: Record, name: str = TOKENIZER) -> Tokenizer:
    path = _checked_file(folder, record, name)
    try:
        return Tokenizer.from_file(str(path))
    except Exception as error:  # the library raises bare Exception
        raise InputError(f"{path} is not a tokenizer ({error}); get the model again.") from error


def _network(config: DiTConfig | UNetConfig) -> DiT:
    """The network on the meta device; a U-Net is called as a DiT is."""
    if isinstance(config, UNetConfig):
        return cast(DiT, _on_meta(UNet, config))
    return _on_meta(DiT, config)


def _on_meta(cls: Callable[[C], M], config: C) -> M:
    """Build a module without memory for its weights, and without drawing them."""
    with torch.device("meta"), _Undrawn():
        return cls(config)


class _Undrawn(TorchFunctionMode):
    """Skips initialisation: the first draw or division on the meta device costs a second of imports."""

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if getattr(func, "__module__", "") == "torch.nn.init":
            return args[0] if args else kwargs["tensor"]
        if getattr(func, "__name__", "") in ("div", "__truediv__"):
            return args[0]
        return (torch.empty if func is torch.randn else func)(*args, **kwargs)


def _device(device: str | torch.device | None) -> torch.device:
    if device is None:
        device = (
            "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
        )
    try:
        place = torch.device(device)
        torch.empty(0, device=place)
    except (RuntimeError, AssertionError) as error:
        raise InputError(f"There is no device {device} here; use cpu, cuda or mps.") from error
    return place


def _dtype(dtype: str | torch.dtype | None) -> torch.dtype:
    names = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
    for name, choice in names.items():
        if dtype in (name, choice) or dtype is None:
            return choice
    raise InputError(f"Models do not run in {dtype}; use {', '.join(names)}.")


def _readme(record: Record) -> str:
    card = record.card
    facts = {"Licence": card.licence, "sha256": card.sha256} | {
        key.capitalize(): value
        for key, value in card.training.items()
        if isinstance(value, str | int | float)
    }
    lines = [
        f"# {card.name}",
        "",
        "A Mutoscope model. Load it with `mutoscope.load(PATH_OF_THIS_FOLDER)`.",
        "",
    ]
    return "\n".join([*lines, *(f"- {key}: {value}" for key, value in facts.items())]) + "\n"


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _some(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{names[0]} and {len(names) - 1} more tensors"
