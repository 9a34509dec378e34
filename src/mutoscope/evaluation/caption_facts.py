"""How true captions are: precision, recall and F1 of the facts that they state, by kind of fact.

A caption is read by the world's own parser and compared with the truth of its clip. Its subjects come in the order of
the text, the truth's in the order of the stage: they are matched so that most facts agree.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import permutations
from typing import Any

import torch

from mutoscope.evaluation.quality import bootstrap_interval
from mutoscope.models.captioner import Narrator
from mutoscope.models.vae import VAE
from mutoscope.world.captions import Fact, caption, facts, parse, truth
from mutoscope.world.facts import OPPOSITE
from mutoscope.world.render import render
from mutoscope.world.scene import PLAIN, Scene, SceneMix, View, is_hole, sample_scene

FRESH = 2**62 + 2**61  # scenes from this seed on are for captions to be judged by: no training draws them
KINDS = (
    "colour", "shape", "size", "direction", "relation", "count", "background", "material", "event", "hat", "eyes",
    "shots", "camera", "style",
)  # fmt: skip
MOST_SUBJECTS = 4  # of a caption that are matched; more are invented anyway
BATCH = 32


@dataclass(frozen=True)
class Verdict:
    """Facts of one caption by kind: `right` of those `stated` are true, of the `true` ones that there are."""

    right: Mapping[str, int]
    stated: Mapping[str, int]
    true: Mapping[str, int]


def judge_caption(text: str, true: Iterable[Fact]) -> Verdict:
    """Compare what a caption states with what is true. A relation counts once, from whichever side it is told."""
    told, known = _normal(parse(text)[0]), _normal(true)
    subjects = sorted({subject for fact in told for subject in _subjects(fact)})[:MOST_SUBJECTS]
    places = sorted({subject for fact in known for subject in _subjects(fact)})
    places += [-1 - i for i in range(len(subjects))]  # subjects that the clip does not have
    casts = (dict(zip(subjects, choice, strict=True)) for choice in permutations(places, len(subjects)))
    right = max((_normal(_recast(fact, cast) for fact in told) & known for cast in casts), key=len)
    count = [Counter(fact.kind for fact in group) for group in (right, told, known)]
    return Verdict(*count)


def _subjects(fact: Fact) -> list[int]:
    """The subjects that a fact names: its own, and the other one of a relation or a collision."""
    named = [] if fact.subject is None else [fact.subject]
    return [*named, int(fact.value.split()[-1])] if _is_mutual(fact) else named


def _is_mutual(fact: Fact) -> bool:
    return fact.kind == "relation" or fact.value.startswith("collide ")


def _recast(fact: Fact, cast: Mapping[int, int]) -> Fact:
    """The fact about other subjects."""
    if fact.subject is None:
        return fact
    recast = replace(fact, subject=cast.get(fact.subject, fact.subject + 100))
    if not _is_mutual(fact):
        return recast
    *words, other = fact.value.split()
    return replace(recast, value=" ".join([*words, str(cast.get(int(other), int(other) + 100))]))


def _normal(found: Iterable[Fact]) -> set[Fact]:
    """Facts that say the same made equal: "left of" and "above" only, collisions from the lower index."""
    normal = set()
    for fact in found:
        if _is_mutual(fact) and fact.subject is not None:
            *words, other = fact.value.split()
            word, index = " ".join(words), int(other)
            turn = fact.subject > index if word == "collide" else word in ("right of", "below", "in front of")
            if turn:
                fact = Fact(fact.kind, index, f"{OPPOSITE.get(word, word)} {fact.subject}")
        normal.add(fact)
    return normal


def f1_scores(verdicts: Sequence[Verdict]) -> dict[str, Any]:
    """{"all" and each kind: precision, recall, f1, true facts}, and the 95 % interval of f1 over all facts."""
    scores: dict[str, Any] = {}
    for kind in ("all", *KINDS):
        right, stated, true = (
            [_sum(counts, kind) for counts in column]
            for column in zip(*((v.right, v.stated, v.true) for v in verdicts))
        )
        if not sum(stated) + sum(true):
            continue
        scores[kind] = {
            "precision": round(sum(right) / max(sum(stated), 1), 4),
            "recall": round(sum(right) / max(sum(true), 1), 4),
            "f1": round(2 * sum(right) / (sum(stated) + sum(true)), 4),
            "n": sum(true),
        }
        if kind == "all":
            twice, both = 2 * torch.tensor(right), torch.tensor(stated) + torch.tensor(true)
            scores[kind]["interval"] = [round(bound, 4) for bound in bootstrap_interval(twice, both)]
    return scores


def _sum(counts: Mapping[str, int], kind: str) -> int:
    return sum(counts.values()) if kind == "all" else counts.get(kind, 0)


@torch.inference_mode()
def report_on_world(
    narrator: Narrator, vae: VAE, view: View, count: int, mix: SceneMix = PLAIN, beams: int = 1
) -> dict[str, Any]:
    """Scores of detailed captions of fresh clips of the world, `count` of known and of held-out compositions each.

    "exact" in each is the F1 of the world's own captions of the same clips: what a perfect captioner would get.
    """
    result: dict[str, Any] = {}
    device = next(vae.parameters()).device
    for name, holes in (("in-range", False), ("held-out", True)):
        scenes = fresh_scenes(count, view, mix, holes)
        texts: list[str] = []
        for start in range(0, count, BATCH):
            latent_BCTHW = vae.encode(render(scenes[start : start + BATCH], view, device))
            texts += narrator(latent_BCTHW, "detailed", beams)
        known = [facts(truth(scene, view)) for scene in scenes]
        exact = [caption(scene, view, "detailed", 0) for scene in scenes]
        perfect = f1_scores([judge_caption(*pair) for pair in zip(exact, known, strict=True)])
        result[name] = f1_scores([judge_caption(*pair) for pair in zip(texts, known, strict=True)])
        result[name] |= {"exact": perfect["all"]["f1"], "examples": texts[:3]}
    return result


def fresh_scenes(count: int, view: View, mix: SceneMix, holes: bool) -> list[Scene]:
    """Scenes that no training draws; with holes, each has a composition that none shows.

    Motion is staged for the length of the view, as in training.
    """
    mix = replace(mix, seconds=max(mix.seconds, (view.frames - 1) / view.fps), allow_holes=holes)
    scenes: list[Scene] = []
    seed = FRESH
    while len(scenes) < count:
        scene = sample_scene(seed, mix)
        things = truth(scene, view).things
        if not holes or any(is_hole(thing.colour, thing.shape, thing.direction) for thing in things):
            scenes.append(scene)
        seed += 1
    return scenes


def taught(captions: Iterable[str]) -> dict[str, list[str]]:
    """The facts that captions tell, as values by kind; relations without their subjects."""
    values: dict[str, set[str]] = {}
    for text in captions:
        for fact in parse(text)[0]:
            value = fact.value.rsplit(" ", 1)[0] if _is_mutual(fact) else fact.value
            values.setdefault(fact.kind, set()).add(value)
    return {kind: sorted(values[kind]) for kind in KINDS if kind in values}


def not_taught(known: Mapping[str, Sequence[str]]) -> list[str]:
    """Kinds of facts that a captioner cannot know, because no caption that it learned from told one."""
    return [kind for kind in KINDS if kind not in known]
