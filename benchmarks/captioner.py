"""How many clips a second the captioner describes, from pixels to words, by kind of caption and batch.

    python benchmarks/captioner.py out/captioner-tiny/model [--threads 2] [--clips 128]

Random weights (no model given) write captions of the longest length: the slowest there can be.
"""

import argparse
import time
from pathlib import Path

import torch

from mutoscope.models.captioner import CAPTIONER_PRESETS, LENGTHS, Captioner, Narrator
from mutoscope.models.text import train_tokenizer
from mutoscope.weights.store import CaptionModel, load_captioner, load_vae, read_card
from mutoscope.world.render import render
from mutoscope.world.scene import View, sample_scene


def opened(name: str | None) -> CaptionModel:
    if name is not None:
        return load_captioner(name, "cpu")
    captioner = Captioner(CAPTIONER_PRESETS["tiny"]).eval()
    narrator = Narrator(train_tokenizer(["a red ball"], 300), captioner)
    return CaptionModel(load_vae("tiny", "cpu"), narrator, read_card("tiny"), Path(), "")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", nargs="?")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--clips", type=int, default=128)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    model = opened(options.model)
    videos = render([sample_scene(2**62 + seed) for seed in range(options.clips)], View(64, 64, 17))
    print(f"{options.clips} clips of 64x64x17, {options.threads} threads, torch {torch.__version__}")
    for batch in (1, 8, 32):
        row = []
        for kind in LENGTHS:
            best = 0.0
            for _ in range(3):
                begin = time.perf_counter()
                for part in torch.split(videos, batch):
                    with torch.inference_mode():
                        model.narrator(model.vae.encode(part), kind)
                best = max(best, options.clips / (time.perf_counter() - begin))
            row.append(f"{kind} {best:7.1f}")
        print(f"batch {batch:3d}   " + "   ".join(row) + "   clips/s")


if __name__ == "__main__":
    main()
