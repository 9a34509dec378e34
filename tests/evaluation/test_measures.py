"""Physics, permanence, cuts, framing, drift and seams: the truth passes, each kind of sabotage is noticed."""

from dataclasses import replace

import numpy as np
import pytest

from mutoscope.evaluation import cuts, drift, framing, laws, permanence, seams
from mutoscope.evaluation.examinee import Frames, ideal_clips, true_clips
from mutoscope.evaluation.exams import SUITES, Question, questions
from mutoscope.evaluation.truth import observe
from mutoscope.world.scene import View

VIEW = View(64, 64, 17)


def asked(name: str, seed: int = 11) -> tuple[Question, Frames]:
    exam = next(exam for exam in SUITES["full"] if exam.name == name)
    (question,) = questions(replace(exam, count=1), VIEW, seed)
    return question, ideal_clips([question])[0]


def frozen(clip: Frames, after: int) -> Frames:
    return np.concatenate([clip[:after], np.repeat(clip[after - 1 : after], len(clip) - after, 0)])


@pytest.mark.parametrize(
    ("name", "measure"),
    [("P5_glide", "velocity_error"), ("P5_fall", "gravity_error"), ("P5_meet", "momentum_error")],
)
def test_a_clip_that_stands_still_breaks_physics(name: str, measure: str) -> None:
    # Of two that meet with equal momenta, both may stop: in this one, the other was at rest.
    question, clip = asked(name, seed=12 if name == "P5_meet" else 11)
    fps = question.view.fps
    assert laws.errors(observe(clip, fps), question)[measure] < 0.05
    still = frozen(clip, 1 if name == "P5_fall" else 5)
    assert laws.errors(observe(still, fps), question)[measure] > 0.8
    empty = np.full_like(clip, 128)
    assert laws.errors(observe(empty, fps), question)[measure] == laws.LOST


def test_half_the_speed_is_half_the_error() -> None:
    question, clip = asked("P5_glide")
    slow = clip[np.arange(17) // 2]
    error = laws.errors(observe(slow, 8.0), question)["velocity_error"]
    assert error == pytest.approx(0.5, abs=0.06)


def test_who_goes_behind_and_stays_there_is_not_permanent() -> None:
    question, clip = asked("P6_told")
    assert permanence.kept(observe(clip, 8.0), question) == {"permanence": 1.0}
    assert permanence.kept(observe(frozen(clip, 9), 8.0), question) == {"permanence": 0.0}


def test_another_character_after_the_cut_is_noticed() -> None:
    question, clip = asked("P7", seed=3)
    other_question, other = asked("P7", seed=4)
    shots = cuts.shots_of(clip)
    takes = question.scene.takes(question.view)
    assert [len(shot) for shot in shots] == [span.stop - span.start for _, span in takes]
    assert cuts.identity(clip, question)["identity"] == 1.0
    assert question.scene.shots[0].bodies[0].colour != other_question.scene.shots[0].bodies[0].colour
    border = len(shots[0])
    changed = cuts.identity(np.concatenate([clip[:border], other[border:]]), question)
    assert changed["identity"] == 0.0
    assert changed["colour_kept"] < 1.0
    assert cuts.identity(clip[:border], question)["cuts"] == 0.0


def test_a_character_from_another_clip_keeps_its_size() -> None:
    """Doubled in area is one octave apart; gone is as far as can be."""
    question, clip = asked("P7_named", seed=5)
    assert question.source is not None
    body, first = question.scene.shots[0].bodies[0], question.source.shots[0].bodies[0]
    assert (body.colour, body.shape, body.hat) == (first.colour, first.shape, first.hat)
    octaves = abs(2 * np.log2(body.diameter / first.diameter))
    measured = cuts.identity(clip, question)
    assert measured["identity"] == measured["hat_kept"] == 1.0
    assert measured["size_apart"] == pytest.approx(octaves, abs=0.25)
    twice = replace(body, diameter=first.diameter * 2**0.5)
    grown = replace(question.scene, shots=(replace(question.scene.shots[0], bodies=(twice,)),))
    (larger,) = true_clips([replace(question, scene=grown)])
    assert cuts.identity(larger, question)["size_apart"] == pytest.approx(1.0, abs=0.25)
    assert cuts.identity(np.full_like(clip, 200), question)["size_apart"] == cuts.GONE


def test_a_character_that_stays_where_its_picture_is_is_noticed() -> None:
    question, clip = asked("P7_named", seed=5)
    assert question.source is not None
    assert question.source.shots[0].background != question.scene.shots[0].background
    (stayed,) = true_clips([replace(question, scene=question.source)])
    assert cuts.identity(clip, question)["elsewhere"] == 1.0
    measured = cuts.identity(stayed[: len(cuts.shots_of(stayed)[0])], question)
    assert (measured["elsewhere"], measured["identity"]) == (0.0, 1.0)


def test_a_square_crop_cuts_the_subject() -> None:
    exam = next(exam for exam in SUITES["full"] if exam.name == "P8_21by9")
    wide = questions(replace(exam, count=6), VIEW, 11)
    shares = []
    for question, clip in zip(wide, true_clips(wide), strict=True):
        assert framing.subject_in_view(observe(clip, 8.0), question) == {"in_view": 1.0}
        shifted = np.roll(clip, 50, axis=2)
        shares.append(framing.subject_in_view(observe(shifted, 8.0), question)["in_view"])
    assert np.mean(shares) < 0.8


def test_what_fades_and_what_comes_is_drift() -> None:
    question, clip = asked("P9_long2x")
    kept = drift.drift(clip, question)
    assert kept["identity_kept"] == 1.0
    assert kept["colour_drift"] < 1.0
    assert kept["strangers"] == 0.0
    faded = clip.copy()
    share = np.linspace(0, 0.6, len(clip))[:, None, None, None]
    faded[:] = (clip * (1 - share) + 128 * share).astype(np.uint8)
    assert drift.drift(faded, question)["colour_drift"] > 10
    gone = drift.drift(np.full_like(clip, 128), question)
    assert gone["identity_kept"] == 0.0
    assert gone["colour_drift"] == drift.WORST


def test_seams() -> None:
    question, clip = asked("P10_extend")
    turned = np.concatenate([clip[:9], clip[8:0:-1]])  # it turns back at the seam
    codec = np.array
    for made, low, high in ((clip, 0.0, 0.1), (turned, 1.5, 2.5)):
        jump = seams.joined(made, clip, observe(made, 8.0), question, codec)["velocity_jump"]
        assert low <= jump <= high
    (shot,) = question.scene.shots
    (body,) = shot.bodies
    swollen = replace(shot, bodies=(replace(body, diameter=1.2 * body.diameter),))
    larger = true_clips([replace(question, scene=replace(question.scene, shots=(swollen,)))])[0]
    made = np.concatenate([clip[:9], larger[9:]])  # another area from the seam on, the same motion
    assert seams.joined(made, clip, observe(made, 8.0), question, codec)["velocity_jump"] < 0.1
    moving, forward = asked("P10_loop")
    there_and_back = seams.seam_ratio(forward)
    assert there_and_back == pytest.approx(1.0, abs=0.3)
    assert seams.seam_ratio(true_clips([moving])[0]) > 2 * there_and_back
    picture, real = asked("P10_picture")
    noisy = np.clip(real.astype(int) + np.random.default_rng(0).integers(-20, 21, real.shape), 0, 255)
    lost = seams.joined(noisy.astype(np.uint8), real, observe(real, 8.0), picture, codec)["first_frame_loss"]
    assert lost > 20
