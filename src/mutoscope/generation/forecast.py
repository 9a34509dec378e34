"""What a task on given clips, or a storyboard, will cost: what it draws is planned as clips of their own."""

import math
from dataclasses import replace

from mutoscope.generation.cards import Storyboard, shots_of
from mutoscope.generation.continuations import AFTER, BEFORE, BLEND
from mutoscope.generation.motion import USUAL
from mutoscope.generation.plan import PIXEL_DISK, Plan, plan
from mutoscope.generation.request import Recipe
from mutoscope.generation.sampling import grid_of
from mutoscope.generation.shown import levels
from mutoscope.generation.storyboard import part_of, recipe_of
from mutoscope.generation.storyboard import settled as settled_board
from mutoscope.weights.store import Model


def forecast(model: Model, recipe: Recipe, staying: int) -> Plan:
    """Memory, operations and disk of a settled task of whose frames so many stay as they are."""
    assert recipe.task is not None
    sides = {"extend": BEFORE, "edit": 0, "restyle": 0, "inpaint": 0}.get(recipe.task.verb, BEFORE + AFTER)
    beside = 1 + model.vae.strides[0] * sides if sides else 0  # frames that are drawn and not shown
    drawn = replace(recipe, frames=recipe.frames - staying + beside, candidates=min(USUAL, recipe.candidates))
    level = BLEND if recipe.task.verb == "blend" else recipe.task.strength
    if level is not None:
        grid = grid_of(model, drawn)
        tokens = grid.frames * grid.height * grid.width // math.prod(model.dit.config.patch)
        sigmas = levels(model.process, recipe, tokens)[:-1]
        share = float((sigmas < level).float().mean())  # of the steps, and of those of every trial
        candidates = max(1, round(share * drawn.candidates))
        drawn = replace(drawn, steps=1 + round(share * recipe.steps), candidates=candidates)
    pixels = recipe.frames * recipe.height * recipe.width
    return replace(plan(model, drawn), written=pixels, disk=int(PIXEL_DISK * pixels))


def forecast_storyboard(model: Model, board: Storyboard) -> Plan:
    """Memory, operations and disk of a storyboard, as if no shot of it were there yet."""
    recipe = recipe_of(model, board)
    shots = shots_of(settled_board(model, board, recipe), recipe.fps)
    costs = [plan(model, part_of(model, recipe, shot)) for shot in shots]
    told = [max(1, sum(bool(card.prompt) for card in shot.cards)) for shot in shots]  # prompts that are mixed
    pixels = recipe.frames * recipe.height * recipe.width
    return Plan(
        memory=max(cost.memory for cost in costs),
        sampling=sum(cost.sampling * prompts for cost, prompts in zip(costs, told)),
        decoding=sum(cost.decoding for cost in costs),
        calling=sum(cost.calling * prompts for cost, prompts in zip(costs, told)),
        disk=int(PIXEL_DISK * pixels),
        written=pixels,
        enlarged=False,
    )
