"""What people read of an exam: one HTML file that needs nothing else, and a contact sheet."""

import base64
import html
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from textwrap import wrap
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from mutoscope.evaluation.examinee import ideal_clips
from mutoscope.evaluation.exams import Question
from mutoscope.world.facts import Fact

Frames = npt.NDArray[np.uint8]  # (T, H, W, 3)

PER_SET = 24  # clips of each set in the report
STRIP = 6  # frames of a clip in a row
PAPER, INK, FAINT = (246, 243, 236), (52, 48, 44), (128, 121, 112)
SHARES = {
    "all", "both", "colour", "shape", "size", "direction", "relation", "count", "background", "material", "event",
    "camera", "style", "permanence", "cuts", "identity", "colour_kept", "shape_kept", "hat_kept", "in_view",
    "identity_kept", "answered",
}  # fmt: skip
MEANINGS = {
    "velocity_error": "of the true velocity",
    "gravity_error": "of true gravity",
    "restitution_error": "difference of the coefficients",
    "momentum_error": "of what came in",
    "colour_drift": "CIELAB distance, first to last second",
    "strangers": "per minute",
    "velocity_jump": "of the velocity before the seam",
    "seam_ratio": "of the usual change between frames",
    "first_frame_loss": "dB below what the VAE makes of the picture",
}


@dataclass(frozen=True)
class Answer:
    """One question, the clip made of it, which of its facts hold, and what else was measured.

    `floor`: in the ground truth of its scene; `chance`: in the ground truth of another scene.
    """

    question: Question
    clip: Frames
    verdict: Mapping[Fact, bool]
    floor: Mapping[Fact, bool]
    chance: Mapping[Fact, bool]
    measures: Mapping[str, float] = field(default_factory=dict)
    floor_measures: Mapping[str, float] = field(default_factory=dict)

    @property
    def right(self) -> bool:
        return all(self.verdict.values())


def write_report(out: Path, result: Mapping[str, Any], answers: Sequence[Answer]) -> Path:
    """Write report.html and contact_sheet.png to the folder `out`; returns the path of the report.

    result: what `suite.evaluate` returns. Clips are shown in the order they were made, good or bad.
    """
    first = answers[0].question.exam.name if answers else ""
    shown = [answer for answer in answers if answer.question.exam.name == first][:PER_SET]
    contact_sheet([answer.clip for answer in shown], [answer.question.prompt for answer in shown]).save(
        out / "contact_sheet.png", optimize=True
    )
    sets = {
        name: scores for name, scores in result.items() if isinstance(scores, dict) and "intervals" in scores
    }
    sections = [_section(name, scores, answers) for name, scores in sets.items()]
    sections += [
        _section(f"baseline: {name}", scores, ()) for name, scores in result.get("baselines", {}).items()
    ]
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
    """One set: a bar per share, a row per other number, then clips, each above its ground truth."""
    shown = [answer for answer in answers if answer.question.exam.name == name][:PER_SET]
    shares = "".join(_bar(kind, scores) for kind in scores["intervals"] if kind in SHARES)
    numbers = "".join(_row(kind, scores) for kind in scores["intervals"] if kind not in SHARES)
    return (
        f"<section><h2>{html.escape(name)} <small>{TITLES.get(name.split('_')[0], '')} "
        f"{scores['n']} prompts</small></h2><table>{shares}{numbers}</table>"
        f'<div class="clips">{"".join(map(_figure, shown))}</div></section>'
    )


def _bar(kind: str, scores: Mapping[str, Any]) -> str:
    low, high = scores["intervals"][kind]
    floor, chance = scores["floor"].get(kind, 0.0), scores["chance"].get(kind)
    luck = "" if chance is None else f'<u class=chance style="left:{chance:.1%}" title="another scene"></u>'
    said = "" if chance is None else f", chance {chance:.1%}"
    return (
        f"<tr><th>{kind.replace('_', ' ')}</th><td><div class=track>"
        f'<i style="width:{scores[kind]:.1%}"></i><b style="left:{low:.1%};width:{max(0.0, high - low):.1%}"></b>'
        f'<u style="left:{floor:.1%}" title="oracle on ground truth"></u>{luck}</div></td>'
        f"<td>{scores[kind]:.1%}</td><td class=faint>{low:.1%} to {high:.1%}</td>"
        f"<td class=faint>floor {floor:.1%}{said}</td></tr>"
    )


def _row(kind: str, scores: Mapping[str, Any]) -> str:
    low, high = scores["intervals"][kind]
    return (
        f"<tr><th>{kind.replace('_', ' ')}</th><td class=faint>{MEANINGS.get(kind, '')}</td>"
        f"<td>{scores[kind]:.3g}</td><td class=faint>{low:.3g} to {high:.3g}</td>"
        f"<td class=faint>floor {scores['floor'][kind]:.3g}</td></tr>"
    )


def _figure(answer: Answer) -> str:
    missed = [f"{fact.kind}: {fact.value}" for fact, holds in answer.verdict.items() if not holds]
    missed += [f"{name.replace('_', ' ')} {value:.2f}" for name, value in answer.measures.items()]
    marks = "".join(f" <em>{html.escape(text)}</em>" for text in missed)
    (real,) = ideal_clips([answer.question])
    return (
        f'<figure class="{"right" if answer.right else "wrong"}"><img alt="made" src="{_png(answer.clip)}">'
        f'<img alt="ground truth" class="truth" src="{_png(real)}">'
        f"<figcaption>{html.escape(answer.question.prompt)}{marks}</figcaption></figure>"
    )


def _png(clip: Frames) -> str:
    file = io.BytesIO()
    _strip(clip, STRIP, clip.shape[1], gap=1).save(file, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()


def _numbers(result: Mapping[str, Any]) -> str:
    vae, speed = result["vae"], result["speed"]
    rows: tuple[tuple[str, str], ...] = (
        ("VAE", f"{vae['psnr']:.2f} dB; {vae['facts']:.1%} of facts kept (floor {vae['floor']:.1%})"),
        (
            "speed",
            f"{speed['seconds_per_clip']:.2f} s per clip in batches, {speed['alone']:.2f} s for one alone",
        ),
    )
    if like := result.get("likeness"):
        copies = like["memorisation"]
        rows += (
            (
                "Frechet distance",
                f"{like['frechet']:.3f} to real clips (floor, real to real: {like['floor']:.3f})",
            ),
            ("copies", f"nearest training clip at {copies['ratio']:.2f} of the distance of a fresh real one"),
        )
    if (second := result.get("judge")) and second["n"]:
        words = f"agrees with the oracle on {second['agree']:.1%} of {second['n']} facts"
        rows += (("second judge", f"{words} ({second['floor']:.1%} in the ground truth)"),)
    return "".join(f"<tr><th>{name}</th><td>{value}</td></tr>" for name, value in rows)


TITLES = {
    "P0": "fresh scenes of the trained kind,",
    "P1": "combinations never trained,",
    "P2": "minimal pairs,",
    "P3": "five or six objects,",
    "P4": "words never trained,",
    "P5": "physics,",
    "P6": "out of sight,",
    "P7": "stories of several shots,",
    "P8": "aspects,",
    "P9": "sizes, lengths, rates,",
    "P10": "from pictures and clips,",
    "P11": "odd prompts,",
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
.truth {{ opacity: .75; }}
figcaption {{ font-size: 13px; }} em {{ font-style: normal; background: #f3d9d0; border-radius: 3px;
  margin-left: .4rem; padding: 0 .3rem; white-space: nowrap; }}
</style>
<h1>{name}</h1><p class="faint">{about}</p>
<table>{facts}</table>
<p>Bars: share of facts that the oracle finds in the pixels; the line is the 95 % interval. Dark tick: the same
oracle on the ground truth, which is shown below each clip. Red tick: on the ground truth of another scene.</p>
{sections}
</html>
"""
