"""How often the clip that is kept shows what it was told, against the number of candidates.

    python benchmarks/candidates.py tiny [--clips 64] [--seed 5] [--candidates 1 2 4 8]

Prompts are short and medium captions, by turns, of fresh scenes with one or two objects; the captioner chooses, the
oracle judges. The same prompts and seeds serve every number.
"""

import argparse
import time
from collections.abc import Mapping, Sequence

from mutoscope.evaluation.suite import FRESH, shares, stated
from mutoscope.evaluation.truth import judge, observe
from mutoscope.generation.choice import with_candidates
from mutoscope.generation.generate import generate_many
from mutoscope.generation.request import Request
from mutoscope.weights.store import Model, load
from mutoscope.world.captions import Fact, caption
from mutoscope.world.scene import SceneMix, View, sample_scene

VIEW = View(64, 64, 17)
BATCH = 16


def prompts_of(count: int, seed: int) -> list[str]:
    """Captions of fresh scenes."""
    first, mix = FRESH + (seed << 32), SceneMix()
    return [caption(sample_scene(first + i, mix), VIEW, ("short", "medium")[i % 2], i) for i in range(count)]


def measure(model: Model, prompts: Sequence[str]) -> tuple[dict[str, dict[str, float]], float]:
    """Shares of facts that hold, of all prompts and by the number of their objects; seconds a clip."""
    verdicts: dict[str, list[Mapping[Fact, bool]]] = {"all": [], "one": [], "two": []}
    spent = 0.0
    for start in range(0, len(prompts), BATCH):
        requests = [
            Request(prompt, VIEW.width, VIEW.height, VIEW.frames, VIEW.fps, seed=start + i)
            for i, prompt in enumerate(prompts[start : start + BATCH])
        ]
        began = time.perf_counter()
        videos = generate_many(model, requests)
        spent += time.perf_counter() - began
        for video, request in zip(videos, requests, strict=True):
            told = stated(request.prompt)
            verdict = judge(observe(video.frames_THWC, VIEW.fps), told)
            number = len({fact.subject for fact in told if fact.subject is not None})
            for name in ("all", "one" if number == 1 else "two"):
                verdicts[name].append(verdict)
    return {name: shares(some) for name, some in verdicts.items() if some}, spent / len(prompts)


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("model")
    options.add_argument("--clips", type=int, default=64)
    options.add_argument("--seed", type=int, default=5)
    options.add_argument("--candidates", type=int, nargs="+", default=(1, 2, 4, 8))
    chosen = options.parse_args()
    model, prompts = load(chosen.model), prompts_of(chosen.clips, chosen.seed)
    for count in chosen.candidates:
        scores, seconds = measure(with_candidates(model, count), prompts)
        told = "; ".join(
            f"{name} " + " ".join(f"{kind} {share:.0%}" for kind, share in kinds.items())
            for name, kinds in scores.items()
        )
        print(f"{count} candidates, {seconds:.2f} s a clip: {told}", flush=True)


if __name__ == "__main__":
    main()
