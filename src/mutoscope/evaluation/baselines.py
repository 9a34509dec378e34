"""What a model must beat: the training clip with the nearest caption, and the same model without words."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

from mutoscope.evaluation.examinee import AnswerClips, Frames, true_clips
from mutoscope.evaluation.exams import Question
from mutoscope.world.facts import Fact, facts, truth
from mutoscope.world.scene import PLAIN, Scene, View, sample_scene

TRAINED = 1 << 32  # the first seed that training draws


def training_scenes(view: View, count: int) -> list[Scene]:
    """Scenes of the plain mix as training draws them, staged for the length of the view."""
    mix = replace(PLAIN, seconds=max(PLAIN.seconds, (view.frames - 1) / view.fps))
    return [sample_scene(TRAINED + i, mix) for i in range(count)]


def retrieval(pool: Sequence[Scene], view: View) -> AnswerClips:
    """One who answers with the clip of the pool whose facts overlap most with those asked for, the first of equals."""
    bags = [_bag(facts(truth(scene, view))) for scene in pool]

    def answer(questions: Sequence[Question]) -> list[Frames]:
        nearest = []
        for question in questions:
            asked = _bag(question.told)
            overlaps = [(asked & bag).total() for bag in bags]
            nearest.append(pool[overlaps.index(max(overlaps))])
        return true_clips([replace(one, scene=scene) for one, scene in zip(questions, nearest, strict=True)])

    return answer


def wordless(answers: AnswerClips) -> AnswerClips:
    """The same one, who hears no prompt."""
    return lambda questions: answers([replace(question, prompt="") for question in questions])


def _bag(told: Sequence[Fact]) -> Counter[tuple[str, str]]:
    """Kinds and values of facts; colour and shape of one object also together."""
    bag = Counter((fact.kind, fact.value.rstrip(" 0123456789") or fact.value) for fact in told)
    looks: dict[int, dict[str, str]] = {}
    for fact in told:
        if fact.subject is not None and fact.kind in ("colour", "shape"):
            looks.setdefault(fact.subject, {})[fact.kind] = fact.value
    bag.update(("look", " ".join(look.values())) for look in looks.values() if len(look) == 2)
    return bag
