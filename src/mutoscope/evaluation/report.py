"""What people read of an exam: one HTML file that needs nothing else, and a contact sheet."""

import base64
import html
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from textwrap import wrap
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from mutoscope.world.facts import Fact

Frames = npt.NDArray[np.uint8]  # (T, H, W, 3)

PER_SET = 24  # clips of each set in the report
STRIP = 6  # frames of a clip in a row
PAPER, INK, FAINT = (246, 243, 236), (52, 48, 44), (128, 121, 112)
KINDS = ("all", "colour", "shape", "size", "direction", "relation", "count", "background")


@dataclass(frozen=True)
class Answer:
    """One prompt of a set, the clip made of it, and which of its facts hold.

    `floor`: in the ground truth of its scene; `chance`: in the ground truth of another scene.
    """

    exam: str
    prompt: str
    clip: Frames
    verdict: Mapping[Fact, bool]
    floor: Mapping[Fact, bool]
    chance: Mapping[Fact, bool]

    @property
    def right(self) -> bool:
        return all(self.verdict.values())


def write_report(out: Path, result: Mapping[str, Any], answers: Sequence[Answer]) -> Path:
    """Write report.html and contact_sheet.png to the folder `out`; returns the path of the report.

    result: what `suite.evaluate` returns. Clips are shown in the order they were made, good or bad.
    """
    first = list(dict.fromkeys(answer.exam for answer in answers))[:1]
    shown = [answer for answer in answers if answer.exam in first][:PER_SET]
    contact_sheet([answer.clip for answer in shown], [answer.prompt for answer in shown]).save(
        out / "contact_sheet.png", optimize=True
    )
    sets = {name: scores for name, scores in result.items() if isinstance(scores, dict) and "floor" in scores}
    sets = {name: scores for name, scores in sets.items() if "n" in scores}
    sections = [_section(name, scores, answers) for name, scores in sets.items()]
    page = PAGE.format(
        name=html.escape(result["model"]["name"]),
        about=html.escape(f"{result['date']} · {result['hardware']} · {result['model']['sha256'][:12]}"),
        facts=_numbers(result),
        sections="\n".join(sections),
    )
    path = out / "report.html"
    path.write_text(page, encoding="utf-8")
    return path


def contact_sheet(
    clips: Sequence[Frames], captions: Sequence[str], frames: int = 5, columns: int = 2, side: int = 128
) -> Image.Image:
    """Clips as strips of `frames` pictures in time order, each with its caption below, on paper.

    side: height of a picture in pixels (whole multiples of the clip's are sharpest).
    """
    font = ImageFont.load_default(size=15)
    strips = [_strip(clip, frames, side) for clip in clips]
    wide = max((strip.width for strip in strips), default=side)
    gap, text = 22, 40
    rows = -(-len(strips) // columns)
    size = (columns * (wide + gap) + gap, rows * (side + text + gap) + gap)
    sheet = Image.new("RGB", size, PAPER)
    draw = ImageDraw.Draw(sheet)
    for index, (strip, caption) in enumerate(zip(strips, captions, strict=True)):
        x = gap + index % columns * (wide + gap)
        y = gap + index // columns * (side + text + gap)
        sheet.paste(strip, (x, y))
        for line, words in enumerate(wrap(caption, max(12, wide // 8))[:2]):
            draw.text((x + 1, y + side + 4 + 18 * line), words, INK, font)
    return sheet


def _strip(clip: Frames, frames: int, height: int, gap: int = 3) -> Image.Image:
    """Frames spread evenly over the clip, side by side."""
    chosen = np.unique(np.linspace(0, len(clip) - 1, frames).round().astype(int))
    width = max(1, round(height * clip.shape[2] / clip.shape[1]))
    strip = Image.new("RGB", (len(chosen) * (width + gap) - gap, height), PAPER)
    for place, index in enumerate(chosen):
        picture = Image.fromarray(clip[index]).resize((width, height), Image.Resampling.LANCZOS)
        strip.paste(picture, (place * (width + gap), 0))
    return strip


def _section(name: str, scores: Mapping[str, Any], answers: Sequence[Answer]) -> str:
    """One set: a bar per kind of fact, then its clips."""
    shown = [answer for answer in answers if answer.exam == name][:PER_SET]
    bars = "".join(_bar(kind, scores) for kind in KINDS if kind in scores)
    return (
        f"<section><h2>{html.escape(name)} <small>{TITLES.get(name.split('_')[0], '')} "
        f"{scores['n']} prompts</small></h2><table>{bars}</table>"
        f'<div class="clips">{"".join(map(_figure, shown))}</div></section>'
    )


def _bar(kind: str, scores: Mapping[str, Any]) -> str:
    low, high = scores["intervals"][kind]
    floor, chance = scores["floor"].get(kind, 0.0), scores["chance"].get(kind, 0.0)
    return (
        f"<tr><th>{kind}</th><td><div class=track>"
        f'<i style="width:{scores[kind]:.1%}"></i><b style="left:{low:.1%};width:{max(0.0, high - low):.1%}"></b>'
        f'<u style="left:{floor:.1%}" title="oracle on ground truth"></u>'
        f'<u class=chance style="left:{chance:.1%}" title="another scene"></u></div></td>'
        f"<td>{scores[kind]:.1%}</td><td class=faint>{low:.1%} to {high:.1%}</td>"
        f"<td class=faint>floor {floor:.1%}, chance {chance:.1%}</td></tr>"
    )


def _figure(answer: Answer) -> str:
    missed = [f"{fact.kind}: {fact.value}" for fact, holds in answer.verdict.items() if not holds]
    marks = "".join(f" <em>{html.escape(text)}</em>" for text in missed)
    return (
        f'<figure class="{"right" if answer.right else "wrong"}"><img alt="" src="{_png(answer.clip)}">'
        f"<figcaption>{html.escape(answer.prompt)}{marks}</figcaption></figure>"
    )


def _png(clip: Frames) -> str:
    file = io.BytesIO()
    _strip(clip, STRIP, clip.shape[1], gap=1).save(file, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()


def _numbers(result: Mapping[str, Any]) -> str:
    vae, speed = result["vae"], result["speed"]
    rows = (
        ("VAE", f"{vae['psnr']:.2f} dB; {vae['facts']:.1%} of facts kept (floor {vae['floor']:.1%})"),
        (
            "speed",
            f"{speed['seconds_per_clip']:.2f} s per clip in batches, {speed['alone']:.2f} s for one alone",
        ),
    )
    return "".join(f"<tr><th>{name}</th><td>{value}</td></tr>" for name, value in rows)


TITLES = {
    "P0": "fresh scenes of the trained kind,",
    "P1": "combinations never trained,",
    "P4": "words never trained,",
    "P9": "sizes and lengths,",
}

PAGE = """<!doctype html>
<html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>{name}: report</title>
<style>
body {{ margin: 2rem auto; max-width: 68rem; padding: 0 1rem; background: #f6f3ec; color: #34302c;
  font: 15px/1.5 system-ui, sans-serif; }}
h1, h2 {{ font-weight: 600; }} h2 {{ margin-top: 3rem; }} small, .faint {{ color: #807970; font-weight: 400; }}
table {{ border-collapse: collapse; }} th {{ text-align: left; font-weight: 500; padding-right: 1rem; }}
td {{ padding: 2px 1rem 2px 0; font-variant-numeric: tabular-nums; }}
.track {{ position: relative; width: 20rem; height: 12px; background: #e7e1d5; border-radius: 3px; }}
.track * {{ position: absolute; top: 0; height: 12px; }}
.track i {{ left: 0; background: #2c8a6c; border-radius: 3px; }}
.track b {{ top: 5px; height: 2px; background: #34302c; }}
.track u {{ width: 2px; background: #34302c; }} .track .chance {{ background: #c2553d; }}
.clips {{ display: grid; grid-template-columns: repeat(auto-fill, minmax(24rem, 1fr)); gap: 1rem;
  margin-top: 1.5rem; }}
figure {{ margin: 0; padding: .5rem; background: #fffdf8; border-left: 4px solid #2c8a6c; }}
figure.wrong {{ border-color: #c2553d; }} figure img {{ width: 100%; image-rendering: pixelated; }}
figcaption {{ font-size: 13px; }} em {{ font-style: normal; background: #f3d9d0; border-radius: 3px;
  margin-left: .4rem; padding: 0 .3rem; white-space: nowrap; }}
</style>
<h1>{name}</h1><p class="faint">{about}</p>
<table>{facts}</table>
<p>Bars: share of facts that the oracle finds in the pixels; the line is the 95 % interval. Dark tick: the same
oracle on the ground truth. Red tick: on the ground truth of another scene.</p>
{sections}
</html>
"""
