"""Pack a trained model for the package: weights in half precision, the VAE's training record beside the DiT's.

python runs/pack.py out/dit-tiny-leg3/model out/vae-tiny/model src/mutoscope/weights/tiny
"""

import sys
from dataclasses import replace
from pathlib import Path

from mutoscope.weights.store import Part, Storage, load, read_card, save_model


def main(model_folder: str, vae_folder: str, out: str) -> None:
    model = load(model_folder, "cpu")
    training = {"dit": model.card.training, "vae": read_card(vae_folder).training}
    storage: dict[Part, Storage] = {"vae": "fp16", "dit": "fp16", "text": "fp16"}
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
    if len(sys.argv) != 4:
        sys.exit(__doc__)
    main(*sys.argv[1:])
