"""A clip from a full-size Wan model of random weights: memory and time of each phase of `mutoscope generate`.

    python benchmarks/wan_full.py FOLDER [--depth N] [--text-layers N] [--words N] [--dtype bfloat16|float32]
        [--size 416x240] [--frames 17] [--steps 4] [--threads N] [--keep]

Writes Wan2.1-T2V-1.3B as diffusers publishes it (UMT5-XXL in bfloat16, 11 GB, transformer and VAE; 18 GB in all with
a transformer in float32) into FOLDER, shard by shard, so that it never lies in memory, makes a clip in a child process
and removes the model again unless told to keep it. --depth, --text-layers and --words make a smaller model, for a
rehearsal. Memory is what the process holds itself (RssAnon) and that with the pages of files that it has mapped, which
the kernel takes back when it needs them (VmHWM).
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from torch import Tensor

from mutoscope.models.dit import DIT_PRESETS
from mutoscope.models.umt5 import build_umt5
from mutoscope.models.wan_vae import WAN_VAE_PRESETS
from mutoscope.weights.convert import their_dit_config, their_vae_config
from mutoscope.weights.encoders import told_by
from mutoscope.weights.wan_layouts import dit_table, vae_table

SHARD = 2**30  # bytes
PHASES = "MUTOSCOPE_BENCHMARK_PHASES"
Shapes = Mapping[str, tuple[int, ...]]


def numbers() -> Callable[[int], Tensor]:
    """Normal values in any amount from one drawn table, which is faster than drawing them all."""
    table = torch.randn(2**24 + 1, generator=torch.Generator().manual_seed(0))

    def draw(count: int) -> Tensor:
        return table.repeat(-(-count // len(table)))[:count]

    return draw


def shards(shapes: Shapes, itemsize: int) -> Iterator[list[str]]:
    names: list[str] = []
    size = 0
    for name, shape in shapes.items():
        amount = torch.Size(shape).numel() * itemsize
        if names and size + amount > SHARD:
            yield names
            names, size = [], 0
        names.append(name)
        size += amount
    yield names


def write_part(folder: Path, stem: str, shapes: Shapes, dtype: torch.dtype, told: dict[str, Any]) -> None:
    """Random weights that keep activations near 1: norms of 1, matrices by their width, little else."""
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(told))
    draw, groups, places = numbers(), list(shards(shapes, dtype.itemsize)), {}
    for number, names in enumerate(groups, 1):
        file = f"{stem}-{number:05d}-of-{len(groups):05d}.safetensors"
        tensors = {}
        for name in names:
            shape = torch.Size(shapes[name])
            if "norm" in name and name.endswith(("weight", "gamma")):
                tensors[name] = torch.ones(shape, dtype=dtype)
            else:
                scale = 0.02 if len(shape) < 2 else shape[1:].numel() ** -0.5
                tensors[name] = draw(shape.numel()).view(shape).mul(scale).to(dtype)
        save_file(tensors, folder / file, {"format": "pt"})
        places |= dict.fromkeys(names, file)
    (folder / f"{stem}.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": places}))


def write_model(folder: Path, options: argparse.Namespace) -> None:
    """Wan2.1-T2V-1.3B, or a smaller model of its kind."""
    config = replace(DIT_PRESETS["wan2.1-t2v-1.3b"], depth=options.depth)
    vae = WAN_VAE_PRESETS["wan2.1-vae"]
    with torch.device("meta"):
        umt5 = build_umt5(
            {
                "vocab_size": options.words,
                "d_model": config.text_width,
                "d_kv": 64,
                "d_ff": 10240,
                "num_layers": options.text_layers,
                "num_heads": 64,
            }
        )
    text = {name: tuple(one.shape) for name, one in umt5.state_dict().items() if "embed_tokens" not in name}
    stem = "diffusion_pytorch_model"
    dtype = getattr(torch, options.dtype)
    shapes = {place.key: place.shape for place in dit_table(config, "diffusers").values()}
    write_part(folder / "transformer", stem, shapes, dtype, their_dit_config(config))
    shapes = {place.key: place.shape for place in vae_table(vae, "diffusers").values()}
    write_part(folder / "vae", stem, shapes, torch.float32, their_vae_config(vae))
    write_part(folder / "text_encoder", "model", text, torch.bfloat16, told_by(umt5))
    (folder / "scheduler").mkdir()
    (folder / "scheduler" / "scheduler_config.json").write_text(json.dumps({"flow_shift": 3.0}))
    (folder / "model_index.json").write_text(json.dumps({"_class_name": "WanPipeline"}))
    (folder / "tokenizer").mkdir()
    words = {
        word: index for index, word in enumerate(["<pad>", "</s>", "<unk>", "a", "red", "ball", "rolls"])
    }
    tokenizer = Tokenizer(models.WordLevel(words, "<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.post_processor = processors.TemplateProcessing("$A </s>", special_tokens=[("</s>", 1)])
    tokenizer.save(str(folder / "tokenizer" / "tokenizer.json"))


def child(arguments: list[str]) -> None:
    """`mutoscope` with these arguments, its phases timed into the file that PHASES names."""
    from mutoscope import cli
    from mutoscope.generation import sampling
    from mutoscope.models.umt5 import UMT5Text
    from mutoscope.models.wan_vae import WanVAE
    from mutoscope.weights import wan_folder

    path = Path(os.environ[PHASES])

    def tell(name: str, start: float) -> None:
        with path.open("a") as stream:
            stream.write(json.dumps({"phase": name, "from": start, "to": time.time()}) + "\n")

    def timed(name: str, work: Callable[..., Any]) -> Callable[..., Any]:
        def run(*given: Any, **named: Any) -> Any:
            start = time.time()
            try:
                return work(*given, **named)
            finally:
                tell(name, start)

        return run

    def streamed(self: WanVAE, latents: Any) -> Iterator[Tensor]:
        start = time.time()
        try:
            yield from decode(self, latents)
        finally:  # whoever has frames enough asks for no more
            tell("decode and write", start)

    decode, WanVAE.decode_stream = WanVAE.decode_stream, streamed  # type: ignore[method-assign]
    UMT5Text.encoded = timed("encode the prompts", UMT5Text.encoded)  # type: ignore[method-assign]
    sampling.Branches.__init__ = timed("read the transformer, its text", sampling.Branches.__init__)
    sampling.integrate = timed("sample", sampling.integrate)
    wan_folder.load_wan = timed("open the model, read the VAE", wan_folder.load_wan)
    sys.argv = ["mutoscope", *arguments]
    cli.main()


def status(process: int) -> dict[str, int]:
    """What the kernel tells of a process, in bytes."""
    try:
        lines = Path(f"/proc/{process}/status").read_text().splitlines()
    except OSError:
        return {}
    rows = (line.split() for line in lines if line.startswith(("Vm", "Rss")))
    return {row[0].rstrip(":"): int(row[1]) * 1024 for row in rows}


def measured(
    command: list[str], phases: Path
) -> tuple[list[tuple[float, dict[str, int]]], list[dict[str, Any]], float]:
    """Memory of a command over time, its phases, and the seconds of it all."""
    start = time.time()
    child = subprocess.Popen(command, env=os.environ | {PHASES: str(phases)})
    samples = []
    while child.poll() is None:
        samples.append((time.time(), status(child.pid)))
        time.sleep(0.05)
    if child.returncode:
        raise SystemExit(f"generate ended with {child.returncode}")
    found = [json.loads(line) for line in phases.read_text().splitlines()]
    return samples, found, time.time() - start


def main() -> None:
    if sys.argv[1:2] == ["--child"]:
        child(sys.argv[2:])
        return
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--depth", type=int, default=30)
    parser.add_argument("--text-layers", type=int, default=24)
    parser.add_argument("--words", type=int, default=256384)
    parser.add_argument("--dtype", choices=("bfloat16", "float32"), default="float32")
    parser.add_argument("--size", default="416x240")
    parser.add_argument("--frames", default="17")
    parser.add_argument("--steps", default="4")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--keep", action="store_true")
    options = parser.parse_args()
    model = options.folder / "wan2.1-t2v-1.3b-random"
    if not model.exists():
        start = time.time()
        write_model(model, options)
        size = sum(file.stat().st_size for file in model.rglob("*") if file.is_file())
        print(f"wrote {size / 2**30:.1f} GiB in {time.time() - start:.0f} s")
    os.environ["OMP_NUM_THREADS"] = str(options.threads)
    words = ["a red ball rolls", "-m", str(model), "--size", options.size, "--frames", options.frames]
    with tempfile.TemporaryDirectory() as folder:
        words += ["--steps", options.steps, "--seed", "1", "--no-expand", "-o", f"{folder}/clip.mp4"]
        command = [sys.executable, __file__, "--child", "generate", *words]
        try:
            samples, phases, took = measured(command, Path(folder) / "phases")
        finally:
            if not options.keep:
                shutil.rmtree(model)
    print(f"\n{'phase':32} {'seconds':>8} {'own GiB':>8} {'with files':>10}")
    for phase in [*phases, {"phase": "in all", "from": 0, "to": time.time()}]:
        inside = [each for moment, each in samples if each and phase["from"] <= moment <= phase["to"]]
        own = max((each.get("RssAnon", 0) for each in inside), default=0) / 2**30
        both = max((each.get("VmRSS", 0) for each in inside), default=0) / 2**30
        seconds = took if phase["phase"] == "in all" else phase["to"] - phase["from"]
        print(f"{phase['phase']:32} {seconds:8.1f} {own:8.2f} {both:10.2f}")
    peak = max(each.get("VmHWM", 0) for _, each in samples)
    print(f"peak (VmHWM): {peak / 2**30:.2f} GiB")


if __name__ == "__main__":
    main()
