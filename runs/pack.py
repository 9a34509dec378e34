"""Pack a trained model for the package: weights in half precision, with the VAE and the training records of both.

python runs/pack.py out/dit-tiny-leg9/model out/decoder-tiny-leg9/model out/tiny-nine --guidance 2 \
    --captioner out/captioner-tiny-leg2/model --candidates 4

The VAE may be the one that the DiT was trained on, or that one with its decoder trained on. VAE and captioner may come
from a packed model.
"""

import argparse
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from mutoscope.models.captioner import Narrator
from mutoscope.models.vae import VAE
from mutoscope.weights.store import Part, Storage, load, load_captioner, load_vae, read_card, save_model


def main(
    model_folder: str,
    vae_folder: str,
    out: str,
    captioner_folder: str | None,
    matrices: Storage,
    guidance: float,
    candidates: int,
) -> None:
    model = load(model_folder, "cpu")
    vae = load_vae(vae_folder, "cpu")
    refuse_another_encoder(model.vae, vae, model_folder)
    training = {"dit": model.card.training, "vae": record_of(vae_folder, "vae")}
    if "decoder" in read_card(vae_folder).training:
        training["decoder"] = record_of(vae_folder, "decoder")
    elif training["vae"]["config"].get("decoder_of"):  # its encoder came about elsewhere
        training["decoder"] = training["vae"]
        training["vae"] = record_of(model.card.training["config"]["vae"], "vae")
    narrator: Narrator | None = None
    if captioner_folder is not None:
        captioner = load_captioner(captioner_folder, "cpu")
        refuse_another_encoder(captioner.vae, vae, captioner_folder)
        narrator, training["captioner"] = captioner.narrator, record_of(captioner_folder, "captioner")
    defaults = replace(model.card.defaults, guidance=guidance, candidates=candidates)
    storage: dict[Part, Storage] = {"vae": "fp16", "dit": matrices, "text": matrices, "captioner": "fp16"}
    path = save_model(
        Path(out),
        vae=vae,
        dit=model.dit,
        text=model.text,
        narrator=narrator,
        process=model.process,
        card=replace(model.card, training=training, defaults=defaults),
        storage=storage,
    )
    size = sum(file.stat().st_size for file in path.iterdir())
    print(f"{path}: {size / 1e6:.1f} MB")


def record_of(folder: str, part: str) -> dict[str, Any]:
    """The training record of a part: that of a run, or the one that a packed model keeps."""
    training = read_card(folder).training
    return dict(training.get(part, training))


def refuse_another_encoder(theirs: VAE, vae: VAE, folder: str) -> None:
    """End unless both make the same latents, once they are packed in half precision, as one of them may have been."""
    named = vae.encoder.state_dict()
    if any(
        not torch.equal(value.half(), named[name].half())
        for name, value in theirs.encoder.state_dict().items()
    ):
        sys.exit(f"{folder} was not trained on latents of the VAE that is given: name the one that it was.")


if __name__ == "__main__":
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    for name in ("model", "vae", "out"):
        options.add_argument(name)
    options.add_argument("--captioner", help="its folder; what comes with the model chooses among candidates")
    options.add_argument("--candidates", type=int, default=1, help="the model's default")
    options.add_argument("--storage", choices=("fp16", "int8"), default="fp16")
    options.add_argument("--guidance", type=float, default=4.0, help="the model's default")
    chosen = options.parse_args()
    main(
        chosen.model,
        chosen.vae,
        chosen.out,
        chosen.captioner,
        chosen.storage,
        chosen.guidance,
        chosen.candidates,
    )
