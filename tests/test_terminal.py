"""Progress in a terminal is a picture and a bar, in a file plain lines, and nothing at all when quiet."""

import io
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from rich.console import Console

from mutoscope.diffusion.sampler import StepInfo
from mutoscope.models.vae import VAE
from mutoscope.terminal import PICTURE, Progress, Say, half_blocks, printable, progress_line
from mutoscope.weights.store import load_vae


@pytest.fixture(scope="module")
def vae(model_folder: Path) -> VAE:
    return load_vae(model_folder, device="cpu")


def shown(say: Say, vae: VAE, terminal: bool, colours: bool) -> str:
    """What five steps print on a console of 80 columns."""
    file = io.StringIO()
    system = "truecolor" if colours else None
    say.console = Console(file=file, force_terminal=terminal, color_system=system, width=80)  # type: ignore[arg-type]
    with Progress(say, vae) as progress:
        for step in range(1, 6):
            progress(StepInfo(step, 5, 0.5, torch.zeros(1, 16, 3, 8, 12)))
    return file.getvalue()


def test_a_file_gets_plain_lines(vae: VAE) -> None:
    text = shown(Say(), vae, terminal=False, colours=False)
    assert re.fullmatch(r"step 5/5  \d+\.\d\d s/step  left 0:00\n", text)


def test_a_colour_terminal_gets_a_picture_that_stays(vae: VAE) -> None:
    text = shown(Say(), vae, terminal=True, colours=True)
    assert "38;2;" in text
    assert "5/5" in text
    last = text[text.rindex("5/5") :]
    rows = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", last).splitlines()
    picture = [row for row in rows if "▀" in row]
    assert max(len(row.strip("\r")) for row in picture) <= PICTURE[0]
    assert len(picture) >= PICTURE[1] // 2


def test_a_terminal_without_colours_gets_a_bar(vae: VAE) -> None:
    text = shown(Say(), vae, terminal=True, colours=False)
    assert "[#" in text
    assert "▀" not in text


@pytest.mark.parametrize("say", [Say(quiet=True), Say(as_json=True)], ids=["quiet", "json"])
def test_scripts_see_nothing(vae: VAE, say: Say) -> None:
    assert shown(say, vae, terminal=True, colours=True) == ""


def test_notes_wrap_beside_their_label() -> None:
    say, file = Say(), io.StringIO()
    say.console = Console(file=file, width=40)
    say.note("plan", "word " * 20 + "[not markup]")
    lines = file.getvalue().splitlines()
    assert lines[0].startswith("plan     word")
    assert all(line.startswith(" " * 9) for line in lines[1:])
    assert max(map(len, lines)) <= 40
    assert "[not markup]" in file.getvalue()


def test_half_blocks_hold_two_pixels_each() -> None:
    image_HWC = np.arange(5 * 3 * 3, dtype=np.uint8).reshape(5, 3, 3)
    text = half_blocks(image_HWC)
    assert text.plain == "▀▀▀\n▀▀▀"
    assert str(text.spans[0].style) == "rgb(0,1,2) on rgb(9,10,11)"


def test_the_progress_line() -> None:
    assert progress_line(9, 20, 18.0, 80) == "[#############-----------------] 9/20  2.00 s/step  left 0:22"
    assert progress_line(20, 20, 18.0, 80).endswith("left 0:00")
    assert all(len(progress_line(5, 9, 9999.0, width)) < width for width in range(45, 200))
    assert progress_line(1, 2, 1.0, 0) == "step 1/2  1.00 s/step  left 0:01"


def test_what_others_wrote_has_no_power_over_the_terminal() -> None:
    assert printable("a\x1b[2Jb\x07\x9b31m\u202ec\udcff") == "a\\u001b[2Jb\\u0007\\u009b31m\\u202ec\\udcff"
    plain = "Ünïcode 🎈 👩‍🚀\nnext\tline"
    assert printable(plain) == plain
