"""What a person reads: labelled notes, and while a clip is made a bar with a moving picture above it."""

import json
import re
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from textwrap import wrap
from types import TracebackType
from typing import TYPE_CHECKING, Any

from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

if TYPE_CHECKING:
    import numpy as np

    from mutoscope.diffusion.sampler import StepInfo
    from mutoscope.models.vae import VAE

PICTURE = (44, 24)  # columns and pixel rows of the preview; two pixel rows share a line
COMMANDS = re.compile(r"[\x00-\x08\x0e-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
PLAIN_SECONDS = 5.0  # a plain line at most this often
LIVE_SECONDS = 0.1  # the picture at most this often


class Say:
    """Prints notes for people, or only paths (`quiet`), or only one JSON object per line (`as_json`)."""

    def __init__(self, as_json: bool = False, quiet: bool = False) -> None:
        self.as_json, self.quiet = as_json, quiet
        self.console = Console(highlight=False, soft_wrap=False)

    @property
    def for_people(self) -> bool:
        return not (self.as_json or self.quiet)

    def note(self, label: str, text: str) -> None:
        """A label and a text that wraps beside it."""
        if self.for_people:
            self.table({label: text})

    def table(self, rows: Mapping[str, object]) -> None:
        """Labels and values, one line each."""
        widest = max(8, *map(len, rows))
        room = max(20, self.console.width - widest - 1)
        for label, value in rows.items():
            lines = wrap(printable(str(value)), room, break_long_words=False, break_on_hyphens=False) or [""]
            margin = "\n" + " " * (widest + 1)
            text = Text.assemble((f"{label:<{widest}} ", "bold"), margin.join(lines))
            self.console.print(text, soft_wrap=True)

    def result(self, path: Path, line: Mapping[str, object]) -> None:
        """The file that was made: its path when quiet, `line` as JSON when asked for."""
        if self.as_json:
            print(json.dumps(line, ensure_ascii=False), flush=True)
        elif self.quiet:
            print(path, flush=True)


class Progress:
    """Step, time a step, time left and, in a colour terminal, what the clip looks like so far.

    A context; call it with every StepInfo.
    """

    def __init__(self, say: Say, vae: "VAE") -> None:
        self.console, self.vae, self.shown = say.console, vae, say.for_people
        self.colours = self.console.color_system is not None and not self.console.no_color
        self.live: Live | None = None
        self.picture: Text | None = None
        self.start = self.last = time.perf_counter()
        self.writing: tuple[float, int] | None = None  # when the first frames were written, and how many
        self.before: int | None = None  # steps that an earlier run had made, which took no time now

    def __enter__(self) -> "Progress":
        if self.shown and self.console.is_terminal:
            self.live = Live(console=self.console, transient=not self.colours, auto_refresh=False)
            self.live.start()
        self.start = self.last = time.perf_counter()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.live:
            if self.picture:
                self.live.update(self.picture)  # the picture stays, the bar goes
            self.live.stop()

    def __call__(self, info: "StepInfo") -> None:
        if not self.shown:
            return
        now = time.perf_counter()
        if self.before is None:
            self.before = info.step - 1
        if now - self.last < (LIVE_SECONDS if self.live else PLAIN_SECONDS) and info.step < info.steps:
            return
        self.last = now
        width = self.console.width if self.live else 0
        line = progress_line(info.step, info.steps, now - self.start, width, self.before)
        if not self.live:
            self.console.print(line)
        elif self.colours:
            self.picture = self.look(info)
            self.live.update(Group(self.picture, Text(line, no_wrap=True)), refresh=True)
        else:
            self.live.update(Text(line, no_wrap=True), refresh=True)

    def written(self, frames: int, total: int) -> None:
        """Frames written to the file so far, and the time left for the rest."""
        now = time.perf_counter()
        if self.writing is None:
            self.writing = now, frames
        first, before = self.writing
        if not self.shown or now - self.last < (LIVE_SECONDS if self.live else PLAIN_SECONDS):
            return
        self.last = now
        left = round((now - first) / max(1, frames - before) * (total - frames))
        line = f"frame {frames}/{total}" + (f"  left {left // 60}:{left % 60:02d}" if frames > before else "")
        if self.live:
            self.live.update(Text(line, no_wrap=True), refresh=True)
        else:
            self.console.print(line)

    def look(self, info: "StepInfo") -> Text:
        """The next latent frame of the clip, so that the picture moves with the steps."""
        from mutoscope.generation.preview import shrink, thumbnail

        image_HWC = thumbnail(self.vae, info.x0[0], info.step % info.x0.shape[2])
        return half_blocks(shrink(image_HWC, min(PICTURE[0], self.console.width - 1), PICTURE[1]))


def progress_line(step: int, steps: int, elapsed: float, width: int, before: int = 0) -> str:
    """ "[####----] 9/20  0.05 s/step  left 0:01", the bar as wide as `width` columns allow (0: no bar).

    The first `before` steps took no part of `elapsed`.
    """
    pace = elapsed / (step - before)
    left = round(pace * (steps - step))
    words = f"{step}/{steps}  {pace:.2f} s/step  left {left // 60}:{left % 60:02d}"
    cells = min(30, width - len(words) - 4)
    if cells < 5:
        return f"step {words}"
    done = cells * step // steps
    return f"[{'#' * done}{'-' * (cells - done)}] {words}"


def half_blocks(image_HWC: "np.ndarray") -> Text:
    """An image as coloured half blocks: each character shows two pixels, one above the other."""
    lines = []
    rows = len(image_HWC) // 2 * 2
    for upper, lower in zip(image_HWC[0:rows:2].tolist(), image_HWC[1:rows:2].tolist(), strict=True):
        line = Text(no_wrap=True)
        for (r, g, b), (r2, g2, b2) in zip(upper, lower, strict=True):
            line.append("▀", style=f"rgb({r},{g},{b}) on rgb({r2},{g2},{b2})")
        lines.append(line)
    return Text("\n").join(lines)


def printable(text: str) -> str:
    """The text without power over a terminal: what moves the cursor, or turns the reading, is written as its code.

    Prompts and names of files come from strangers, in the recipes of clips.
    """
    return "".join(f"\\u{ord(sign):04x}" if COMMANDS.match(sign) else sign for sign in text)


def listed(words: Iterable[str]) -> str:
    """ "a, b or c"."""
    *first, last = words
    return f"{', '.join(first)} or {last}" if first else last


def duration(seconds: float) -> str:
    """Seconds for people: "3 s", "2 min", "1.5 h"."""
    if seconds < 90:
        return f"{max(seconds, 1):.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def flat(table: dict[str, Any]) -> dict[str, object]:
    """A table of tables as one: inner keys alone, those without a value left out."""
    rows: dict[str, object] = {}
    for key, value in table.items():
        if isinstance(value, dict):
            rows.update({f"{key} {k}" if k in rows else k: v for k, v in flat(value).items()})
        elif value not in (None, ""):
            rows[key] = value
    return rows
