"""A character in words: what a model's captioner sees in its picture."""

from collections.abc import Iterable
from pathlib import Path

import torch

from mutoscope.errors import InputError
from mutoscope.video import fit, read_video, to_tensor
from mutoscope.weights.store import Model
from mutoscope.world.captions import Fact, parse

SAID = ("size", "colour", "shape")  # in this order; a medium size goes without saying


@torch.inference_mode()
def described(model: Model, picture: Path) -> str:
    """Who is in the first frame of a picture or clip, such as "a small red ball".

    Raises InputError when the model has no captioner, or sees nothing there that it has a word for.
    """
    if model.narrator is None:
        raise InputError(f"{model.card.name} has no captioner to describe {picture}; say what it looks like.")
    defaults = model.card.defaults
    video_BCTHW = to_tensor(read_video(picture).frames_THWC[:1])[None]
    video_BCTHW = fit(video_BCTHW, defaults.height, defaults.width).to(model.vae.latent_mean)
    (caption,) = model.narrator(model.vae.encode(video_BCTHW), "medium")
    words = noun(parse(caption)[0])
    if not words:
        raise InputError(f"{model.card.name} sees nobody in {picture} that it knows; say what it looks like.")
    return words


def noun(facts: Iterable[Fact]) -> str:
    """The first thing that facts tell of, with its article; empty when they tell of none."""
    looks: dict[int, dict[str, str]] = {}
    for fact in facts:
        if fact.subject is not None and fact.kind in SAID:
            looks.setdefault(fact.subject, {})[fact.kind] = fact.value
    first = next((look for _, look in sorted(looks.items()) if "shape" in look), {})
    words = " ".join(first[kind] for kind in SAID if first.get(kind, "medium") != "medium")
    return words and f"{'an' if words[0] in 'aeiou' else 'a'} {words}"
