"""What expansion does to prompts as people type them, and to success: the same scenes and seeds, raw and expanded.

    python benchmarks/expansion.py [--model tiny] [-n 64] [--kinds short terse ...] [--rules] [--words-only]

Prints one line of JSON per kind of prompt. kept: share of prompts all of whose facts are in the expansion; expand_ms:
median, 95th percentile and worst of CPU time. raw, expanded: shares of successful clips, in which every fact that the
prompt states holds and nothing else is there, as in the exams; difference: its bootstrap interval (95 %) over the
paired clips. --words-only makes no clips.
"""

import argparse
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass

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
from mutoscope.generation.stated import lost
from mutoscope.weights.store import Model, load
from mutoscope.world.captions import caption, parse
from mutoscope.world.facts import Fact
from mutoscope.world.scene import Scene, View

KINDS = ("short", "terse", "strange", "typos", "run-on", "detailed")


@dataclass(frozen=True)
class Asked:
    """A prompt, what it states, and what is made of it."""

    scene: Scene
    told: tuple[Fact, ...]
    prompt: str
    text: str
    seconds: float

    @property
    def kept(self) -> bool:
        told = [fact for fact in self.told if fact.kind != "count"]
        return not lost(told, parse(self.text)[0])


def ask(kind: str, index: int, scene: Scene, view: View, choose: np.random.Generator) -> Asked:
    plain = caption(scene, view, "detailed" if kind == "detailed" else "short", seed=index)
    told, prompt = stated(plain), plain
    match kind:
        case "terse":
            prompt, told = terse(told)
        case "strange":
            prompt = with_strange_words(plain)
        case "typos":
            prompt = with_typos(plain, choose)
        case "run-on":
            prompt = running_on(plain)
    start = time.process_time()
    text = expansion.expand(prompt, scene.seed % 2**32).text
    return Asked(scene, told, prompt, text, time.process_time() - start)


def successes(model: Model, asked: Sequence[Asked], view: View, expanded: bool, steps: int) -> list[bool]:
    requests = [
        Request(prompt=one.text if expanded else one.prompt, seed=one.scene.seed, steps=steps)
        for one in asked
    ]
    clips = generate_many(model, requests)
    return [
        all(judge(observe(clip.frames_THWC, view.fps), one.told).values())
        for clip, one in zip(clips, asked, strict=True)
    ]


def main() -> None:
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("--model", default="tiny")
    options.add_argument("-n", type=int, default=64, help="scenes for each kind of prompt")
    options.add_argument("--steps", type=int, default=30)
    options.add_argument("--seed", type=int, default=7)
    options.add_argument("--kinds", nargs="+", default=list(KINDS), choices=KINDS)
    options.add_argument("--rules", action="store_true", help="without the trained expander")
    options.add_argument("--words-only", action="store_true", help="make no clips")
    given = options.parse_args()
    if given.rules:
        expansion.LEARNED = ()
    model = load(given.model)
    defaults = model.card.defaults
    view = View(defaults.width, defaults.height, defaults.frames, defaults.fps)
    scenes = fresh_scenes(Exam("P0", given.n), view, given.seed)
    for kind in given.kinds:
        choose = np.random.default_rng(given.seed)
        asked = [ask(kind, index, scene, view, choose) for index, scene in enumerate(scenes)]
        taken = np.quantile([one.seconds for one in asked], (0.5, 0.95, 1.0))
        line: dict[str, object] = {
            "kind": kind, "n": len(asked), "kept": round(float(np.mean([one.kept for one in asked])), 4),
            "expand_ms": [round(1e3 * seconds, 1) for seconds in taken],
        }  # fmt: skip
        if not given.words_only:
            raw, expanded = (
                np.array(successes(model, asked, view, side, given.steps), float) for side in (False, True)
            )
            draws = np.random.default_rng(0).integers(0, len(raw), (2000, len(raw)))
            apart = np.quantile((expanded - raw)[draws].mean(1), (0.025, 0.975))
            line |= {"raw": round(raw.mean(), 4), "expanded": round(expanded.mean(), 4)}
            line["difference"] = [round(bound, 4) for bound in apart]
        print(json.dumps(line), flush=True)


if __name__ == "__main__":
    main()
