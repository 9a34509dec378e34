"""Whether what goes out of sight is still there: someone passes behind a screen and comes out as the same."""

from mutoscope.evaluation.exams import Question
from mutoscope.evaluation.truth import Observation, judge
from mutoscope.world.facts import Fact


def kept(seen: Observation, question: Question) -> dict[str, float]:
    """{"permanence": 1 or 0}: the actor is seen on both sides of the screen, with its colour and shape, and was hidden.

    The scene is one of the play "behind": the actor first, the screen second.
    """
    actor, screen = question.scene.shots[0].bodies
    way = "right" if actor.path[0][3] > 0 else "left"
    wanted = (
        Fact("colour", 0, actor.colour),
        Fact("shape", 0, actor.shape),
        Fact("direction", 0, way),
        Fact("colour", 1, screen.colour),
        Fact("relation", 0, "behind 1"),
    )
    return {"permanence": float(all(judge(seen, wanted).values()))}
