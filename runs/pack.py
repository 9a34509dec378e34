"""Pack a trained model for the package: weights in half precision, with the VAE and the training records of both.

python runs/pack.py out/dit-tiny-leg5/model out/decoder-tiny/model src/mutoscope/weights/tiny --guidance 2

The VAE may be the one that the DiT was trained on, or that one with its decoder trained on.
"""

import argparse
import sys
from dataclasses import replace
from pathlib import Path

import torch

from mutoscope.weights.store import Part, Storage, load, load_vae, read_card, save_model


def main(model_folder: str, vae_folder: str, out: str, matrices: Storage, guidance: float) -> None:
    model = load(model_folder, "cpu")
    vae = load_vae(vae_folder, "cpu")
    theirs = vae.encoder.state_dict()
    if any(not torch.equal(value, theirs[name]) for name, value in model.vae.encoder.state_dict().items()):
        sys.exit(
            f"{model_folder} was not trained on latents of the VAE in {vae_folder}: name the one that it was."
        )
    training = {"dit": model.card.training, "vae": read_card(vae_folder).training}
    if training["vae"]["config"].get("decoder_of"):  # its encoder came about elsewhere
        training["decoder"] = training["vae"]
        training["vae"] = read_card(model.card.training["config"]["vae"]).training
    storage: dict[Part, Storage] = {"vae": "fp16", "dit": matrices, "text": matrices}
    path = save_model(
        Path(out),
        vae=vae,
        dit=model.dit,
        text=model.text,
        process=model.process,
        card=replace(model.card, training=training, defaults=replace(model.card.defaults, guidance=guidance)),
        storage=storage,
    )
    size = sum(file.stat().st_size for file in path.iterdir())
    print(f"{path}: {size / 1e6:.1f} MB")


if __name__ == "__main__":
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    for name in ("model", "vae", "out"):
        options.add_argument(name)
    options.add_argument("--storage", choices=("fp16", "int8"), default="fp16")
    options.add_argument("--guidance", type=float, default=4.0, help="the model's default")
    chosen = options.parse_args()
    main(chosen.model, chosen.vae, chosen.out, chosen.storage, chosen.guidance)
