"""The small sequence model that writes captions of the world from facts in plain words, run in numpy.

Prompts are expanded where torch is not loaded (the command line, the server), and for one prompt of a 0.8 M parameter
model numpy takes less time than torch. The network is models/expander.py, trained by training/train_expander.py.
"""

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load
from tokenizers import Tokenizer

from mutoscope.errors import InputError

Array = NDArray[np.float32]
WEIGHTS, RECORD, TOKENIZER = "expander.safetensors", "expander.json", "tokenizer.json"
KINDS = ("short", "medium", "detailed")  # in the order of their first tokens, as in models/captioner.py
EPSILON = 1e-6
TEMPERATURE = 0.5  # of the draws: facts want a cold hand, wording some warmth


@dataclass(frozen=True)
class Sizes:
    """What the sums need to know of the network; see models/expander.py."""

    width: int
    heads: int
    encoder_depth: int
    decoder_depth: int
    vocab: int
    max_tokens: int
    theta: float


class Author:
    """Words to captions. Arrays: L words read, D width, N heads, K head width, V ids."""

    def __init__(self, weights: Mapping[str, NDArray[Any]], sizes: Sizes, tokenizer: Tokenizer) -> None:
        self.sizes, self.tokenizer = sizes, tokenizer
        self._weights = {name: array.astype(np.float32) for name, array in weights.items()}
        pairs = sizes.width // sizes.heads // 2
        rates = sizes.theta ** -(np.arange(pairs, dtype=np.float32) / pairs)
        angles = np.arange(max(512, sizes.max_tokens), dtype=np.float32)[:, None] * rates
        self._turns = np.exp(1j * angles).astype(np.complex64)  # of each position, (positions, K/2)

    def write(
        self,
        source: str,
        kind: Literal["short", "medium", "detailed", "alt"],
        seed: tuple[int, ...],
        temperature: float = TEMPERATURE,
    ) -> str:
        """One caption, drawn by the seed."""
        rng, sizes = np.random.default_rng(seed), self.sizes
        seen = self.read(self.tokenizer.encode(source, add_special_tokens=False).ids)
        token, end = sizes.vocab + KINDS.index(kind), sizes.vocab + len(KINDS)
        past: list[tuple[Array, Array]] = []
        ids: list[int] = []
        while len(ids) < sizes.max_tokens:
            logits_V = self.next(token, len(ids), past, seen)
            logits_V[[0, *range(sizes.vocab, end)]] = -np.inf  # neither padding nor a kind
            noise_V = -np.log(-np.log(rng.random(len(logits_V)).clip(1e-20, 1 - 1e-7)))
            token = int((logits_V / temperature + noise_V).argmax())
            if token == end:
                break
            ids.append(token)
        return in_sentences(self.tokenizer.decode(ids).strip())

    def read(self, ids: list[int]) -> list[tuple[Array, Array]]:
        """Keys and values (N, L, K) of the words for each block that writes."""
        turns = self._turns[: len(ids)]
        x_LD = self._weights["embed.weight"][ids]
        for i in range(self.sizes.encoder_depth):
            block = f"encoder.{i}"
            y_LD = self._norm(f"{block}.norm", x_LD)
            keys_values = self._keys_values(f"{block}.attention", y_LD, turns)
            x_LD = x_LD + self._attention(f"{block}.attention", y_LD, keys_values, turns)
            x_LD = x_LD + self._mlp(block, x_LD)
        y_LD = self._norm("seen_norm", x_LD)
        depth = range(self.sizes.decoder_depth)
        return [self._keys_values(f"decoder.{i}.cross", y_LD, None) for i in depth]

    def next(
        self, token: int, position: int, past: list[tuple[Array, Array]], seen: list[tuple[Array, Array]]
    ) -> Array:
        """Logits (V,) after one more token; the past, keys and values of each block, takes it in."""
        turns = self._turns[position : position + 1]
        x_LD = self._weights["embed.weight"][[token]]
        for i in range(self.sizes.decoder_depth):
            block = f"decoder.{i}"
            y_LD = self._norm(f"{block}.norm", x_LD)
            new = self._keys_values(f"{block}.attention", y_LD, turns)
            if i == len(past):
                past.append(new)
            else:
                past[i] = np.concatenate((past[i][0], new[0]), 1), np.concatenate((past[i][1], new[1]), 1)
            x_LD = x_LD + self._attention(f"{block}.attention", y_LD, past[i], turns)
            x_LD = x_LD + self._attention(f"{block}.cross", self._norm(f"{block}.cross_norm", x_LD), seen[i])
            x_LD = x_LD + self._mlp(block, x_LD)
        logits_V: Array = self._weights["embed.weight"] @ self._norm("norm", x_LD)[0]
        return logits_V

    def _keys_values(
        self, name: str, x_LD: Array, turns: NDArray[np.complex64] | None
    ) -> tuple[Array, Array]:
        key_LD = self._rms(f"{name}.key_norm", self._linear(f"{name}.key", x_LD))
        return self._heads(key_LD, turns), self._heads(self._linear(f"{name}.value", x_LD), None)

    def _attention(
        self,
        name: str,
        x_LD: Array,
        keys_values: tuple[Array, Array],
        turns: NDArray[np.complex64] | None = None,
    ) -> Array:
        key_NLK, value_NLK = keys_values
        query_LD = self._rms(f"{name}.query_norm", self._linear(f"{name}.query", x_LD))
        score_NSL = self._heads(query_LD, turns) @ key_NLK.swapaxes(1, 2)
        score_NSL *= (self.sizes.width // self.sizes.heads) ** -0.5
        weight_NSL = np.exp(score_NSL - score_NSL.max(-1, keepdims=True))
        weight_NSL /= weight_NSL.sum(-1, keepdims=True)
        return self._linear(f"{name}.out", (weight_NSL @ value_NLK).swapaxes(0, 1).reshape(x_LD.shape))

    def _heads(self, x_LD: Array, turns: NDArray[np.complex64] | None) -> Array:
        """(N, L, K), with neighbouring pairs rotated by the position."""
        x_LNK = x_LD.reshape(len(x_LD), self.sizes.heads, -1)
        if turns is not None:
            x_LNK = (np.ascontiguousarray(x_LNK).view(np.complex64) * turns[:, None]).view(np.float32)
        return x_LNK.swapaxes(0, 1)

    def _linear(self, name: str, x_LD: Array) -> Array:
        out_LD: Array = x_LD @ self._weights[f"{name}.weight"].T + self._weights[f"{name}.bias"]
        return out_LD

    def _norm(self, name: str, x_LD: Array) -> Array:
        x_LD = self._rms(name, x_LD - x_LD.mean(-1, keepdims=True))
        x_LD += self._weights[f"{name}.bias"]
        return x_LD

    def _rms(self, name: str, x_LD: Array) -> Array:
        size_L1 = np.sqrt(np.square(x_LD).mean(-1, keepdims=True) + EPSILON)
        out_LD: Array = x_LD / size_L1 * self._weights[f"{name}.weight"]
        return out_LD

    def _mlp(self, block: str, x_LD: Array) -> Array:
        up = self._linear(f"{block}.mlp.up", self._norm(f"{block}.mlp_norm", x_LD))
        return self._linear(f"{block}.mlp.down", up * (0.5 + 0.5 * erf(up * np.float32(0.5**0.5))))


def erf(x: Array) -> Array:
    """The error function to 1.5e-7 (Abramowitz and Stegun 1964, 7.1.26)."""
    t = 1 / (1 + 0.3275911 * np.abs(x))
    series = t * (0.254829592 + t * (-0.284496736 + t * (1.421413741 + t * (-1.453152027 + t * 1.061405429))))
    value: Array = np.sign(x) * (1 - series * np.exp(-x * x))
    return value


def in_sentences(text: str) -> str:
    """The text with a capital at the start of every sentence, if it has any; the tokenizer knows small letters only."""
    if not text.endswith("."):
        return text
    return re.sub(r"(?:^|(?<=\. ))\w", lambda letter: letter[0].upper(), text)


def read_author(folder: Path) -> Author:
    """The model of a folder that `mutoscope train expander` made. Raises InputError when it is damaged."""
    try:
        record = json.loads((folder / RECORD).read_bytes())
        data = (folder / WEIGHTS).read_bytes()
        if hashlib.sha256(data).hexdigest() != record["sha256"]:
            raise ValueError("its sha256 does not fit")
        return Author(load(data), Sizes(**record["config"]), Tokenizer.from_file(str(folder / TOKENIZER)))
    except Exception as error:  # of which the tokenizer raises the bare kind
        raise InputError(
            f"{folder} holds no usable expander ({error}); train one, or install again."
        ) from error


@cache
def shipped() -> Author | None:
    """The model that comes with the package, read once; None in a package without one."""
    folder = Path(str(files("mutoscope.weights") / "expander"))
    return read_author(folder) if (folder / RECORD).is_file() else None
