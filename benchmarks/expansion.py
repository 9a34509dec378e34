"""What expansion does to success: the same scenes and seeds, prompts as people type them, raw and expanded.

    python benchmarks/expansion.py [--model tiny] [-n 64] [--steps 30] [--kinds short terse ...] [--rules]

A clip succeeds when every fact that its prompt states holds, and nothing else is there, as in the exams. Prints one
line of JSON per kind of prompt: shares of successful clips, raw and expanded, and the bootstrap interval (95 %) of
the difference over the paired clips.
"""

import argparse
import json
import time

import numpy as np

from mutoscope.evaluation.exams import (
    Exam,
    fresh_scenes,
    running_on,
    stated,
    terse,
    with_strange_words,
    with_typos,
)
from mutoscope.evaluation.truth import judge, observe
from mutoscope.generation import expand as expansion
from mutoscope.generation.generate import generate_many
from mutoscope.generation.request import Request
from mutoscope.weights.store import load
from mutoscope.world.captions import caption
from mutoscope.world.scene import View

KINDS = ("short", "terse", "strange", "typos", "run-on", "detailed")


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--model", default="tiny")
    options.add_argument("-n", type=int, default=64, help="scenes for each kind of prompt")
    options.add_argument("--steps", type=int, default=30)
    options.add_argument("--seed", type=int, default=7)
    options.add_argument("--kinds", nargs="+", default=list(KINDS), choices=KINDS)
    options.add_argument(
        "--rules", action="store_true", help="without the trained expander, if one is shipped"
    )
    given = options.parse_args()
    if given.rules:
        expansion.LEARNED = ()
    model = load(given.model)
    defaults = model.card.defaults
    view = View(defaults.width, defaults.height, defaults.frames, defaults.fps)
    scenes = fresh_scenes(Exam("P0", given.n), view, given.seed)
    for kind in given.kinds:
        choose, rows, taken = np.random.default_rng(given.seed), [], []
        asked = []
        for index, scene in enumerate(scenes):
            plain = caption(scene, view, "detailed" if kind == "detailed" else "short", seed=index)
            told = stated(plain)
            match kind:
                case "terse":
                    prompt, told = terse(told)
                case "strange":
                    prompt = with_strange_words(plain)
                case "typos":
                    prompt = with_typos(plain, choose)
                case "run-on":
                    prompt = running_on(plain)
                case _:
                    prompt = plain
            start = time.process_time()
            text = expansion.expand(prompt, scene.seed % 2**32).text
            taken.append(time.process_time() - start)
            asked.append((scene.seed, told, prompt, text))
        for column in (2, 3):
            requests = [
                Request(prompt=one[column], seed=one[0], steps=given.steps)  # type: ignore[arg-type]
                for one in asked
            ]
            clips = generate_many(model, requests)
            rows.append(
                [
                    all(judge(observe(clip.frames_THWC, view.fps), one[1]).values())
                    for clip, one in zip(clips, asked, strict=True)
                ]
            )
        raw, expanded = np.array(rows, float)
        draws = np.random.default_rng(0).integers(0, len(raw), (2000, len(raw)))
        low, high = np.quantile((expanded - raw)[draws].mean(1), (0.025, 0.975))
        line = {
            "kind": kind, "n": len(raw), "raw": round(raw.mean(), 4), "expanded": round(expanded.mean(), 4),
            "difference": [round(low, 4), round(high, 4)], "expand_ms": round(1e3 * max(taken), 1),
        }  # fmt: skip
        print(json.dumps(line), flush=True)


if __name__ == "__main__":
    main()
