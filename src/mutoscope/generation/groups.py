"""Groups of recipes that one call can sample together: of one shape and one setting, as many as memory holds."""

from collections.abc import Sequence
from dataclasses import replace

from mutoscope.generation.plan import free_memory, plan
from mutoscope.generation.request import Recipe
from mutoscope.weights.store import Model

LARGEST = 16  # larger ones are no faster, on a CPU or for clips of hundreds of tokens on a GPU


def groups(model: Model, recipes: Sequence[Recipe]) -> list[list[int]]:
    """The places of the recipes, in groups of at most LARGEST.

    With a step cache each is alone: which steps are skipped must not depend on the others.
    """
    alike: dict[Recipe, list[int]] = {}
    for index, recipe in enumerate(recipes):
        alike.setdefault(_shape_and_setting(recipe), []).append(index)
    return [group for indices in alike.values() for group in _cut(model, recipes, indices)]


def _cut(model: Model, recipes: Sequence[Recipe], indices: list[int]) -> list[list[int]]:
    """Places of one shape and setting, cut into groups that fit into memory."""
    if recipes[indices[0]].step_cache:
        return [[index] for index in indices]
    free = free_memory(model.vae.latent_mean.device)
    size = max(1, min(LARGEST, free // plan(model, recipes[indices[0]]).memory))
    return [indices[start : start + size] for start in range(0, len(indices), size)]


def _shape_and_setting(recipe: Recipe) -> Recipe:
    """What recipes must share to be sampled as one: everything but words, seed and pictures."""
    return replace(
        recipe,
        prompt="",
        expanded_prompt="",
        negative="",
        seed=0,
        image=None,
        image_sha256=None,
        last_image=None,
        last_image_sha256=None,
        at=(),
        candidates=1,
        kept=0,
    )
