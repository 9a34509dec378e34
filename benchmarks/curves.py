"""Success against sampling steps, for flow and epsilon, and against the guidance scale: tables and plots.

    python benchmarks/curves.py FLOW_MODEL EPSILON_MODEL [--clips 48] [--frames 17] [-o docs/images]

Prompts are short captions of fresh one-object scenes; a clip succeeds when the oracle finds every stated fact. The same
prompts and seeds serve every point of every curve.
"""

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from mutoscope.evaluation.suite import FRESH, Frames, shares, stated
from mutoscope.evaluation.truth import judge, observe
from mutoscope.generation.generate import generate_many
from mutoscope.generation.request import Request
from mutoscope.weights.store import Model, load
from mutoscope.world.captions import caption
from mutoscope.world.scene import SceneMix, View, sample_scene

STEPS = (4, 8, 16, 32, 64)
SCALES = (1.0, 2.0, 3.0, 4.0, 6.0, 8.0, 10.0)
SCALE_STEPS = 16  # of the sampler, for the curve against guidance
BATCH = 16
WIDTH, HEIGHT, LEFT, TOP = 520, 300, 52, 20
COLOURS = ("#c0392b", "#2471a3", "#1e8449", "#b7950b", "#7d3c98")

Point = Mapping[str, float]  # share of clips with every fact right ("all"), and of facts by kind


def prompts_of(count: int, seed: int, view: View) -> list[str]:
    """Short captions of fresh one-object scenes."""
    mix = SceneMix(objects=(1.0,))
    first = FRESH + (seed << 32)
    return [caption(sample_scene(first + i, mix), view, "short", i) for i in range(count)]


def measure(model: Model, prompts: Sequence[str], view: View, steps: int, guidance: float) -> Point:
    """What the oracle says of one clip for each prompt; the seed is the prompt's number."""
    verdicts = []
    for start in range(0, len(prompts), BATCH):
        requests = [
            Request(
                prompt,
                view.width,
                view.height,
                view.frames,
                view.fps,
                steps=steps,
                guidance=guidance,
                seed=start + i,
                candidates=1,
            )
            for i, prompt in enumerate(prompts[start : start + BATCH])
        ]
        clips: list[Frames] = [video.frames_THWC for video in generate_many(model, requests)]
        verdicts += [
            judge(observe(clip, view.fps), stated(request.prompt))
            for clip, request in zip(clips, requests, strict=True)
        ]
    return shares(verdicts)


def plot(path: Path, title: str, across: Sequence[float], curves: Mapping[str, Sequence[float]]) -> None:
    """An SVG chart: one line per curve, shares from 0 to 1 upwards, the values of `across` evenly spaced."""

    def place(index: int, value: float) -> str:
        x = LEFT + (WIDTH - LEFT - 20) * index / (len(across) - 1)
        return f"{x:.1f},{TOP + (HEIGHT - TOP - 60) * (1 - value):.1f}"

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" '
        'font-family="sans-serif" font-size="12">',
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>',
    ]
    for value in (0.0, 0.25, 0.5, 0.75, 1.0):
        y = place(0, value).split(",")[1]
        parts.append(f'<path d="M{LEFT},{y} H{WIDTH - 20}" stroke="#ddd"/>')
        parts.append(
            f'<text x="{LEFT - 8}" y="{y}" text-anchor="end" dominant-baseline="middle">{value:.0%}</text>'
        )
    for index, value in enumerate(across):
        x = place(index, 0).split(",")[0]
        parts.append(f'<text x="{x}" y="{HEIGHT - 42}" text-anchor="middle">{value:g}</text>')
    for number, (name, values) in enumerate(curves.items()):
        colour = COLOURS[number % len(COLOURS)]
        line = " ".join(place(index, value) for index, value in enumerate(values))
        parts.append(f'<polyline points="{line}" fill="none" stroke="{colour}" stroke-width="2"/>')
        parts.append(f'<text x="{LEFT + 105 * number}" y="{HEIGHT - 8}" fill="{colour}">{name}</text>')
    parts.append(f'<text x="{WIDTH / 2}" y="{HEIGHT - 25}" text-anchor="middle">{title}</text></svg>')
    path.write_text("\n".join(parts) + "\n")


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("flow")
    options.add_argument("epsilon")
    options.add_argument("--clips", type=int, default=48)
    options.add_argument("--frames", type=int, default=17)
    options.add_argument("--seed", type=int, default=1)
    options.add_argument("-o", "--out", type=Path, default=Path("docs/images"))
    chosen = options.parse_args()
    chosen.out.mkdir(parents=True, exist_ok=True)
    view = View(64, 64, chosen.frames)
    prompts = prompts_of(chosen.clips, chosen.seed, view)
    models = {"flow": load(chosen.flow), "epsilon": load(chosen.epsilon)}
    scale = models["flow"].card.defaults.guidance
    by_steps: dict[str, list[Point]] = {}
    for name, model in models.items():
        by_steps[name] = []
        for steps in STEPS:
            by_steps[name].append(measure(model, prompts, view, steps, scale))
            print(f"{name} {steps} steps: {json.dumps(by_steps[name][-1])}", flush=True)
    by_scale = []
    for guidance in SCALES:
        by_scale.append(measure(models["flow"], prompts, view, SCALE_STEPS, guidance))
        print(f"guidance {guidance:g}: {json.dumps(by_scale[-1])}", flush=True)
    plot(
        chosen.out / "steps.svg",
        f"all facts right against sampler steps (guidance {scale:g}, {chosen.clips} one-object prompts)",
        STEPS,
        {name: [point["all"] for point in points] for name, points in by_steps.items()},
    )
    plot(
        chosen.out / "guidance.svg",
        f"share of facts against guidance ({SCALE_STEPS} steps, flow, {chosen.clips} one-object prompts)",
        SCALES,
        {kind: [point[kind] for point in by_scale] for kind in ("all", "colour", "shape", "direction")},
    )
    (chosen.out / "curves.json").write_text(
        json.dumps({"steps": STEPS, "by_steps": by_steps, "scales": SCALES, "by_scale": by_scale}, indent=1)
        + "\n"
    )


if __name__ == "__main__":
    main()
