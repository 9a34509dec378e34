"""The choice among candidates: several noises are tried in few steps; the captioner keeps the one most like the prompt.

A model often draws what it was told with one noise and not with another. Which one it was can be read: the captioner
says how likely the prompt is as the caption of each trial (reranking, as Ramesh et al. 2021 did with CLIP). What is
made of the noise that is kept is a clip as any other: whichever others were tried does not show in it.
"""

import math
from collections.abc import Sequence
from dataclasses import replace

from mutoscope.diffusion.sampler import OnStep, StepInfo
from mutoscope.errors import InputError
from mutoscope.generation.groups import groups
from mutoscope.generation.large import drafted
from mutoscope.generation.request import Recipe, Request
from mutoscope.generation.sampling import Interrupted, grid_of, sample
from mutoscope.generation.windows import part_of, spans, window
from mutoscope.weights.store import Model


def usual_candidates(model: Model, recipe: Recipe) -> int:
    """How many there are when nobody says: the default for pictures up to the model's own size, 1 for larger ones."""
    chooses = model.narrator is not None and bool(recipe.expanded_prompt)
    return model.card.defaults.candidates if chooses and of_own_size(model, drafted(recipe)) else 1


def of_own_size(model: Model, recipe: Recipe) -> bool:
    """Whether the pictures of a recipe are as large as those that the model draws by default, or smaller."""
    defaults = model.card.defaults
    return recipe.width * recipe.height <= defaults.width * defaults.height


def refuse_to_choose_blindly(model: Model, candidates: int) -> None:
    """Raise InputError for several candidates and no captioner to tell them apart."""
    if candidates > 1 and model.narrator is None:
        raise InputError(
            f"{model.card.name} has no captioner to choose among {candidates} candidates; leave --candidates out."
        )


def with_candidates(model: Model, count: int) -> Model:
    """The model with another default. Raises InputError for a number out of range, or when nothing can choose."""
    Request(candidates=count)
    refuse_to_choose_blindly(model, count)
    defaults = replace(model.card.defaults, candidates=count)
    return replace(model, card=replace(model.card, defaults=defaults))


def choose(
    model: Model, recipes: Sequence[Recipe], on_step: OnStep | None = None, frame0: int = 0
) -> list[Recipe]:
    """The recipes, each with the best of its candidates kept; those of one candidate as they are.

    `frame0` is the place of the first latent frame in a longer clip, whose noise is tried.
    `on_step` is called as in `sample`; see `after_trials` for the steps of the clip itself. The model has a captioner
    if any recipe has candidates. Raises KeyboardInterrupt on Ctrl-C: nothing is made yet.
    """
    several = [(place, recipe) for place, recipe in enumerate(recipes) if recipe.candidates > 1]
    trials = [(place, replace(one, kept=index)) for place, one in several for index in range(one.candidates)]
    parts = [_trial(model, recipe) for _, recipe in trials]
    best = [(-math.inf, recipe) for recipe in recipes]
    for indices in groups(model, parts):
        report = as_trials(on_step, trials[indices[0]][1])
        scores = _scores(model, [parts[index] for index in indices], report, frame0)
        for index, score in zip(indices, scores, strict=True):
            place, recipe = trials[index]
            best[place] = max(best[place], (score, recipe), key=lambda pair: pair[0])
    return [recipe for _, recipe in best]


def after_trials(on_step: OnStep | None, recipe: Recipe) -> OnStep | None:
    """Progress of a clip, as that of its trials and of the clip."""
    if on_step is None or recipe.candidates == 1:
        return on_step
    before = recipe.trial_steps
    return lambda info: on_step(StepInfo(before + info.step, before + info.steps, info.sigma, info.x0))


def _trial(model: Model, recipe: Recipe) -> Recipe:
    """The first window of a clip, at the size that the model draws, in few steps."""
    recipe = drafted(replace(recipe, steps=recipe.trial_steps, candidates=1))
    grid = grid_of(model, recipe)
    span = spans(grid.frames, window(model))[0]
    return recipe if span.stop == grid.frames else part_of(recipe, span, 0, grid)


def _scores(model: Model, parts: Sequence[Recipe], on_step: OnStep | None, frame0: int) -> list[float]:
    """How well each trial shows what it was told; all in one batch."""
    assert model.narrator is not None
    try:
        sampled = sample(model, parts, on_step, frame0=frame0)
    except Interrupted as interrupt:
        raise KeyboardInterrupt from interrupt
    texts = [part.expanded_prompt for part in parts]
    lead = -(-parts[0].lead // model.vae.strides[0])
    return [float(score) for score in model.narrator.agreement(sampled.latent_BCTHW[:, :, lead:], texts)]


def as_trials(on_step: OnStep | None, recipe: Recipe) -> OnStep | None:
    """Progress of trials, as that of them and of the clip that follows."""
    if on_step is None:
        return None
    return lambda info: on_step(StepInfo(info.step, info.steps + recipe.steps, info.sigma, info.x0))
