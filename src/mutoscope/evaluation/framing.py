"""Framing: whether the subject is in the picture, all of it and all the time."""

import numpy as np

from mutoscope.evaluation.exams import Question
from mutoscope.evaluation.truth import Observation

MOSTLY = 0.9  # share of the frames


def subject_in_view(seen: Observation, question: Question) -> dict[str, float]:
    """{"in_view": share of the told subjects that no border cuts in nine of ten frames}.

    A subject is found by its colour; Videos as world simulators (2024) shows how training on square crops cuts it.
    """
    colours = [fact.value for fact in question.told if fact.kind == "colour"]
    shown = []
    for colour in colours:
        one = next((found for found in seen.objects if found.colour == colour), None)
        uncut = 0 if one is None else sum(not patch.cut for patch in one.track.patches)
        shown.append(uncut >= MOSTLY * question.view.frames)
    return {"in_view": float(np.mean(shown))} if shown else {}
