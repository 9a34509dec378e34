"""Make docs/gallery.md: every verb carried out by the built-in model, with its command and a strip of what it made.

python runs/gallery.py [-o docs]

The commands run one after the other in an empty folder; each strip shows eight frames of its clip, the first and the
last among them. Only the strips are kept.
"""

import argparse
import os
import shlex
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from mutoscope.video import Video, read_video, write_video

SHOWN = 8  # frames of a strip
BOARD = """seconds = 6.0
seed = 7
[[cards]]
at = 0.0
prompt = "@rolf moves to the right by the ocean"
[[cards]]
at = 2.0
prompt = "@rolf stands still at night"
cut = true
[[cards]]
at = 4.0
prompt = "@rolf slides to the left in the snow"
cut = true
"""
HEAD = """# What the verbs make

Every line was carried out by the built-in model, in this order, once, and nothing is left out; `mutoscope` stands
before each. A strip shows eight frames of a clip, evenly spaced, the first and the last among them. Made by
`python runs/gallery.py`; what the verbs do: [gallery-of-verbs.md](gallery-of-verbs.md).

| What | Command |
| --- | --- |
"""
TAIL = "`mask.png` is white in its upper 36 of 64 rows. `rolf.toml`:\n\n"
VERBS = (
    ("a clip from words", 'generate "a red ball rolls to the right" --seed 2 -o ball.mp4'),
    ("another", 'generate "a blue box slides to the left" --seed 2 -o box.mp4'),
    ("a picture", 'generate "a large purple star stands still" --frames 1 --seed 4 -o star.png'),
    ("animate it", 'generate "a large purple star floats up" --image star.png --seed 1 -o up.mp4'),
    ("there and back", 'generate "a purple star floats" --image star.png --last-image star.png --seed 1 -o back.mp4'),
    ("go on with a clip", "extend box.mp4 --seconds 1 --seed 1 -o longer.mp4"),
    ("what came before it", "extend box.mp4 --seconds 1 --backward --seed 1 -o before.mp4"),
    ("a loop", "loop ball.mp4 --seconds 1.5 --seed 1 -o loop.mp4"),
    ("from one clip to another", "interpolate ball.mp4 box.mp4 --seconds 1.5 --seed 1 -o between.mp4"),
    ("one subject into another", "blend ball.mp4 box.mp4 --seconds 1.5 --seed 1 -o blend.mp4"),
    ("another prompt", 'edit ball.mp4 "a green ball rolls to the right" --seed 1 -o green.mp4'),
    ("another look", 'restyle box.mp4 "at night" --seed 1 -o night.mp4'),
    (
        "a part of the picture",
        'inpaint box.mp4 "a yellow ball in the air" --mask mask.png --seed 1 -o inpainted.mp4',
    ),
    ("a part of the time", "recut box.mp4 --keep 0.5-1.25 --seed 1 -o recut.mp4"),
    (
        "cards from a long prompt",
        'storyboard --plan "A red ball rolls to the right, cut to: it stands still at night." -o plan.mp4',
    ),
    ("somebody to name in prompts", 'character add rolf star.png --as "a large purple star"'),
    ("who is in all shots", "storyboard rolf.toml -o rolf.mp4"),
    (
        "somebody, unnamed",
        'generate "a purple star slides to the left in the desert" --reference star.png --seed 1 -o desert.mp4',
    ),
)


def main(out: Path) -> None:
    strips = out / "images" / "verbs"
    strips.mkdir(parents=True, exist_ok=True)
    rows = []
    with TemporaryDirectory() as folder:
        place = Path(folder)
        (place / "rolf.toml").write_text(BOARD)
        mask_HWC = np.zeros((64, 64, 3), np.uint8)
        mask_HWC[:36] = 255
        write_video(place / "mask.png", Video(mask_HWC[None], 1.0))
        for what, command in VERBS:
            words = shlex.split(command)
            run(words, place)
            shown = ""
            if "-o" in words:
                made = place / words[words.index("-o") + 1]
                name = f"{made.stem}.png"
                write_video(strips / name, Video(strip(made)[None], 1.0))
                shown = f'<br><img src="images/verbs/{name}" alt="{what}">'
            rows.append(f"| {what} | `{command}`{shown} |")
            print(rows[-1], flush=True)
    (out / "gallery.md").write_text(HEAD + "\n".join(rows) + f"\n\n{TAIL}```toml\n{BOARD}```\n")


def run(words: list[str], place: Path) -> None:
    """One command of mutoscope in the folder, with characters of its own."""
    beside = {**os.environ, "MUTOSCOPE_DATA": str(place / "data")}
    subprocess.run(
        [str(Path(sys.executable).with_name("mutoscope")), *words],
        cwd=place,
        env=beside,
        check=True,
        capture_output=True,
    )


def strip(file: Path) -> np.ndarray:
    """Eight frames side by side; all of them where there are fewer (H, frames x W, 3)."""
    frames_THWC = read_video(file).frames_THWC
    places = np.unique(np.linspace(0, len(frames_THWC) - 1, SHOWN).round().astype(int))
    joined: np.ndarray = np.concatenate(list(frames_THWC[places]), axis=1)
    return joined


if __name__ == "__main__":
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("-o", "--out", type=Path, default=Path("docs"))
    main(options.parse_args().out)
