from mutoscope.evaluation.baselines import retrieval, training_scenes, wordless
from mutoscope.evaluation.examinee import true_clips
from mutoscope.evaluation.exams import FRESH, Exam, questions
from mutoscope.evaluation.truth import judge, observe
from mutoscope.world.scene import View

VIEW = View(64, 64, 17)


def test_retrieval_finds_the_clip_whose_caption_fits() -> None:
    asked = questions(Exam("P0", 8), VIEW, 21)
    pool = training_scenes(VIEW, 40)
    assert all(scene.seed < FRESH for scene in pool)
    with_answers = [*pool, *(question.scene for question in asked)]
    best = retrieval(with_answers, VIEW)(asked)
    right = [all(judge(observe(clip, 8.0), one.told).values()) for one, clip in zip(asked, best, strict=True)]
    assert sum(right) >= 7
    poor = retrieval(pool[:3], VIEW)(asked)
    assert (
        sum(all(judge(observe(clip, 8.0), one.told).values()) for one, clip in zip(asked, poor, strict=True))
        <= 3
    )


def test_the_wordless_one_hears_nothing() -> None:
    heard: list[str] = []

    def listen(asked):  # type: ignore[no-untyped-def]
        heard.extend(question.prompt for question in asked)
        return true_clips(asked)

    wordless(listen)(questions(Exam("P0", 3), VIEW, 1))
    assert heard == ["", "", ""]
