"""Pack a trained model for the package: weights in half precision, the VAE's training record beside the DiT's.

python runs/pack.py out/dit-tiny-leg4/model out/vae-tiny/model src/mutoscope/weights/tiny
"""

import argparse
from dataclasses import replace
from pathlib import Path

from mutoscope.weights.store import Part, Storage, load, read_card, save_model


def main(model_folder: str, vae_folder: str, out: str, matrices: Storage) -> None:
    model = load(model_folder, "cpu")
    training = {"dit": model.card.training, "vae": read_card(vae_folder).training}
    storage: dict[Part, Storage] = {"vae": "fp16", "dit": matrices, "text": matrices}
    path = save_model(
        Path(out),
        vae=model.vae,
        dit=model.dit,
        text=model.text,
        process=model.process,
        card=replace(model.card, training=training),
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
    chosen = options.parse_args()
    main(chosen.model, chosen.vae, chosen.out, chosen.storage)
