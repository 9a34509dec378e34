"""The author: its sums are those of the network that was trained, its draws repeat, damage is told."""

import hashlib
import json
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from mutoscope.config import to_dict
from mutoscope.errors import InputError
from mutoscope.generation.author import (
    RECORD,
    TOKENIZER,
    WEIGHTS,
    Author,
    erf,
    in_sentences,
    read_author,
    shipped,
)
from mutoscope.models.captioner import token_rows
from mutoscope.models.expander import Expander, ExpanderConfig, source_rows
from mutoscope.models.text import train_tokenizer
from mutoscope.training.train_expander import passing, short_prompts
from mutoscope.weights.store import BUILT_IN

SOURCE, TEXT = (
    "A red ball moves left. The scene is set at night.",
    "a small red ball rolls to the left at night.",
)
WORDS = train_tokenizer([SOURCE, TEXT], 300)


@pytest.fixture(scope="module")
def network() -> Expander:
    torch.manual_seed(0)
    network = Expander(ExpanderConfig(width=32, heads=2, encoder_depth=2, vocab=300, max_tokens=30)).eval()
    with torch.no_grad():  # norms and biases that are not those of the start
        for parameter in network.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
    return network


@pytest.fixture(scope="module")
def folder(network: Expander, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("expander")
    save_file(network.state_dict(), folder / WEIGHTS)
    digest = hashlib.sha256((folder / WEIGHTS).read_bytes()).hexdigest()
    (folder / RECORD).write_text(json.dumps({"config": to_dict(network.config), "sha256": digest}))
    WORDS.save(str(folder / TOKENIZER))
    return folder


def test_sums_are_those_of_the_network(network: Expander, folder: Path) -> None:
    author = read_author(folder)
    source_BL, ids_BL = source_rows(WORDS, [SOURCE]), token_rows(WORDS, network, [TEXT], ["detailed"])
    with torch.no_grad():
        wanted_LV = network(source_BL, ids_BL)[0].numpy()
    seen, past = author.read(source_BL[0].tolist()), []
    found = [author.next(token, i, past, seen) for i, token in enumerate(ids_BL[0].tolist())]
    assert np.abs(np.stack(found) - wanted_LV).max() < 1e-4


def test_the_same_seed_writes_the_same_and_others_others(folder: Path) -> None:
    author: Author = read_author(folder)
    texts = [author.write(SOURCE, "detailed", (seed, 0), 1.0) for seed in range(6)]
    assert texts == [read_author(folder).write(SOURCE, "detailed", (seed, 0), 1.0) for seed in range(6)]
    assert len(set(texts)) == 6
    assert author.write(SOURCE, "detailed", (0, 1), 1.0) != texts[0]


def test_sentences_begin_with_a_capital() -> None:
    assert in_sentences("a ball rolls. it is night.") == "A ball rolls. It is night."
    assert in_sentences("a ball rolls") == "a ball rolls"
    x = np.linspace(-4, 4, 101, dtype=np.float32)
    assert np.abs(erf(x) - torch.erf(torch.from_numpy(x)).numpy()).max() < 1e-6


def test_a_damaged_folder_is_one_sentence(folder: Path, tmp_path: Path) -> None:
    for name in (RECORD, WEIGHTS, TOKENIZER):
        (tmp_path / name).write_bytes((folder / name).read_bytes())
    (tmp_path / WEIGHTS).write_bytes(b"x" * 100)
    with pytest.raises(InputError, match="no usable expander"):
        read_author(tmp_path)


@pytest.mark.slow
@pytest.mark.skipif(shipped() is None, reason="no expander is shipped yet: configs/expander-tiny.toml")
def test_what_is_shipped_is_small_quick_and_keeps_what_is_stated() -> None:
    author = shipped()
    assert author is not None
    assert (BUILT_IN / "expander" / WEIGHTS).stat().st_size <= 2 << 20
    prompts = short_prompts(200)
    for kind in ("medium", "detailed"):
        assert passing(author, prompts, kind) >= 0.95  # type: ignore[arg-type]
    took = []
    for one in prompts[:40]:
        begun = time.process_time()
        author.write(one.source, "detailed", (1,))
        took.append(time.process_time() - begun)
    assert np.median(took) < 0.15
