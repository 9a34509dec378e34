"""The choice among candidates: the trial that the captioner likes best, made as if it had been named."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from mutoscope.diffusion.sampler import StepInfo
from mutoscope.errors import InputError
from mutoscope.generation.cards import Card, Storyboard
from mutoscope.generation.choice import choose, usual_candidates, with_candidates
from mutoscope.generation.generate import generate, generate_many, resolve, sample
from mutoscope.generation.plan import plan
from mutoscope.generation.request import TRIAL_STEPS, Recipe, Request, request_of
from mutoscope.generation.sampling import Sampled
from mutoscope.generation.storyboard import make_storyboard
from mutoscope.models.captioner import Captioner, CaptionerConfig, Narrator
from mutoscope.weights.store import Model, load, load_captioner, load_vae, read_card, save_model

ASKED = Request("a red ball", 32, 32, 9, seed=5, candidates=4)


@pytest.fixture(scope="module")
def model(model_folder: Path) -> Model:
    """A model that comes with a captioner, both of random weights."""
    model = load(model_folder)
    sizes = CaptionerConfig(width=16, heads=2, encoder_depth=1, decoder_depth=1, vocab=300, max_tokens=8)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        model.narrator = Narrator(model.text.tokenizer, Captioner(sizes).eval())
    return model


def test_the_best_trial_wins(model: Model) -> None:
    assert model.narrator is not None
    recipe = resolve(model, ASKED)
    tried = [replace(recipe, kept=index) for index in range(4)]
    assert tried[0].noise_seed == recipe.seed == 5
    assert len({one.noise_seed for one in tried}) == 4
    trials = [sample(model, [one]).latent_BCTHW for one in tried]
    scores = [float(model.narrator.agreement(trial, ["a red ball"])) for trial in trials]
    (chosen,) = choose(model, [recipe])
    assert chosen == tried[int(np.argmax(scores))]
    assert chosen.kept != 0  # else this test tells nothing: take another seed


def test_the_clip_is_that_of_its_noise_alone(model: Model) -> None:
    video = generate(model, ASKED)
    (chosen,) = choose(model, [resolve(model, ASKED)])
    alone = generate(model, replace(ASKED, seed=chosen.noise_seed, candidates=1))
    assert np.array_equal(video.frames_THWC, alone.frames_THWC)
    assert video.recipe is not None
    assert video.recipe["recipe"]["seed"] == 5
    assert video.recipe["recipe"]["candidates"] == 4
    assert video.recipe["recipe"]["kept"] == chosen.kept
    assert generate(model, request_of(chosen)).recipe == video.recipe


def test_a_shot_of_words_alone_is_the_clip_of_its_words(model: Model) -> None:
    """With the noise that `generate` keeps, which is not the first one; later shots have noises of their own."""
    several = with_candidates(model, 4)
    video = generate(several, replace(ASKED, candidates=None))

    def board(shots: int) -> Storyboard:
        cards = tuple(Card(1.125 * shot, "a red ball", cut=True) for shot in range(shots))
        return Storyboard(cards, 1.125 * shots, 32, 32, 8.0, seed=5)

    alone = make_storyboard(several, board(1)).frames_THWC
    assert np.abs(alone.astype(int) - video.frames_THWC).max() <= 1
    assert np.abs(make_storyboard(model, board(1)).frames_THWC.astype(int) - alone).max() > 1
    steps: list[StepInfo] = []
    both = make_storyboard(several, board(2), on_step=lambda info: steps.append(info) is None).frames_THWC
    assert np.array_equal(both[:9], alone)
    assert not np.array_equal(both[9:], alone)
    assert [info.step / info.steps for info in steps[-2:]] == [7 / 8, 1.0]  # 4 of trials, 4 of the clip


def test_of_several_clips_each_gets_its_own(model: Model) -> None:
    asked = [
        ASKED,
        replace(ASKED, seed=9),
        replace(ASKED, prompt="a blue box", width=48),
        replace(ASKED, candidates=1),
    ]
    chosen = choose(model, [resolve(model, one) for one in asked])
    assert chosen == [choose(model, [resolve(model, one)])[0] for one in asked]
    assert chosen[3].kept == 0
    videos = generate_many(model, asked)
    assert [video.recipe and video.recipe["recipe"]["kept"] for video in videos] == [
        one.kept for one in chosen
    ]


def test_one_candidate_costs_nothing(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mutoscope.generation.choice.sample", lambda *_: pytest.fail("drew a trial"))
    recipe = resolve(model, replace(ASKED, candidates=1))
    assert choose(model, [recipe]) == [recipe]


def test_trials_are_few_steps_of_the_first_window(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Recipe] = []

    def watched(model: Model, parts: list[Recipe], on_step: object, frame0: int) -> Sampled:
        seen.extend(parts)
        return sample(model, parts)

    monkeypatch.setattr("mutoscope.generation.choice.sample", watched)
    long = replace(ASKED, frames=101, steps=40, width=64, height=64, draft=(32, 32))
    choose(model, [resolve(model, long)])
    assert {(part.steps, part.size) for part in seen} == {(TRIAL_STEPS, "32x32")}
    assert {part.frames for part in seen} == {17}


def test_progress_runs_once_from_start_to_end(model: Model) -> None:
    told: list[StepInfo] = []
    generate(model, replace(ASKED, steps=3), on_step=told.append)
    assert [info.step for info in told] == [1, 2, 3, 4, 5, 6]
    assert {info.steps for info in told} == {6}


def test_ctrl_c_among_trials_leaves_nothing(model: Model) -> None:
    def press(_: StepInfo) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt) as caught:
        choose(model, [resolve(model, ASKED)], press)
    assert type(caught.value) is KeyboardInterrupt


def test_when_nobody_says(model: Model) -> None:
    several = with_candidates(model, 3)
    default = model.card.defaults
    assert resolve(several, Request("a red ball")).candidates == 3
    assert resolve(several, Request("")).candidates == 1
    assert resolve(several, Request("a red ball", frames=default.frames + 40)).candidates == 3
    assert resolve(several, Request("a red ball", width=default.width + 16)).candidates == 1
    assert resolve(several, Request("a red ball", 128, 128, draft=(32, 32))).candidates == 3
    assert resolve(several, Request("a red ball", candidates=2)).candidates == 2
    assert usual_candidates(model, resolve(model, Request("a red ball"))) == 1


def test_nobody_to_choose(model_folder: Path) -> None:
    blind = load(model_folder)
    for refused in (lambda: resolve(blind, ASKED), lambda: with_candidates(blind, 2)):
        with pytest.raises(InputError, match="no captioner to choose among"):
            refused()
    with pytest.raises(InputError, match="candidates is 0"):
        with_candidates(blind, 0)


def test_the_plan_counts_trials(model: Model) -> None:
    one, four = (plan(model, resolve(model, replace(ASKED, candidates=count))) for count in (1, 4))
    assert four.sampling == 5 * one.sampling  # four trials of its 4 steps, and the clip
    assert four.memory == one.memory


def test_a_model_comes_with_its_captioner(model: Model, tmp_path: Path) -> None:
    assert model.narrator is not None
    folder = save_model(
        tmp_path / "both",
        vae=load_vae(model.folder),
        dit=model.dit,
        text=model.text,
        narrator=model.narrator,
        process=model.process,
        card=read_card(model.folder),
    )
    both = load(folder)
    assert both.narrator is not None
    assert generate(both, ASKED).recipe == generate(load(folder), ASKED).recipe
    assert load_captioner(folder).narrator.captioner.config == both.narrator.captioner.config
