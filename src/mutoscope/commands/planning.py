"""The verb that tells what a clip will cost, before anything is made."""

import json
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from mutoscope.commands.drawing import Drawing, Framing, spread
from mutoscope.commands.options import Json, ModelName, Output, Weights
from mutoscope.errors import InputError


@spread
def plan(
    prompt: Annotated[
        str, typer.Argument(metavar="PROMPT", help="As for generate; it changes no cost.")
    ] = "",
    *,
    output: Output = None,
    model: ModelName = "tiny",
    weights: Weights = "exact",
    framing: Framing,
    drawing: Drawing,
    stream: Annotated[bool, typer.Option("--stream", help="As for generate; it changes no cost.")] = False,
    card: Annotated[
        float | None,
        typer.Option(
            "--card", metavar="GIB", help="Plan Wan's weights for a GPU with so much memory instead."
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Tell what a clip will cost: memory, time and disk.

    The options are those of generate, nothing is made. Exit code 2 when it does not fit.
    """
    from mutoscope.generation.naming import check_place
    from mutoscope.terminal import Say, duration

    request = framing.of(drawing.request(prompt))
    check_place(output)
    from mutoscope.generation.generate import resolve
    from mutoscope.generation.plan import (
        CARD_RESERVE,
        card_memory,
        free_disk,
        free_memory,
        in_8_bits,
        plan,
        readable,
        refuse_above,
        refuse_what_the_disk_lacks,
        told,
    )
    from mutoscope.generation.plan import seconds as expected
    from mutoscope.generation.request import fill
    from mutoscope.generation.windows import windows_of
    from mutoscope.making import open_model, streams
    from mutoscope.weights.residence import Placement, on_card, unread_bytes

    say = Say(as_json)
    loaded = open_model(model, say, weights)
    folder = Path() if output is None else output if output.is_dir() else output.parent
    whole = not streams(output)
    placement, limit = loaded.placement, None
    if card is None:
        recipe = resolve(loaded, request, whole)
        cost = plan(loaded, recipe, whole)
        need, took = cost.memory, expected(cost)
    else:
        if placement is None or not 1 <= card <= 1e4:
            raise InputError(
                f"--card {card:g} is for Wan's models, in GiB from 1 on; leave it out for {model}."
            )
        recipe, limit = fill(request, loaded.card.defaults), int(card * 2**30) - CARD_RESERVE
        placement, cost = on_card(placement, limit), plan(loaded, recipe, whole)
        needed = partial(card_memory, loaded, placement=placement, whole=whole)
        refuse_above(loaded, recipe, limit, needed)
        need, took = needed(recipe), None
    refuse_what_the_disk_lacks(cost, folder)
    windows = windows_of(loaded, recipe)
    if as_json:
        facts = {"size": recipe.size, "frames": recipe.frames, "fps": recipe.fps, "windows": windows}
        costs = {"memory_bytes": need, "disk_bytes": cost.disk, "seconds": took and round(took, 2)}
        places = (
            {} if placement is None else {"weights": placement.residence, "weight_type": placement.weights}
        )
        flop = {"sampling_flop": cost.sampling, "decoding_flop": cost.decoding}
        print(json.dumps({**facts, **costs, **flop, **places}))
        return
    drawn = f", drawn at {recipe.draft[0]}x{recipe.draft[1]} and enlarged" if recipe.draft else ""
    free = free_memory(loaded.vae.latent_mean.device) if limit is None else limit
    beside = cost.memory - unread_bytes(loaded.dit)

    def needed_so(placement: Placement) -> int:
        if card is None:
            return beside + placement.transformer
        return card_memory(loaded, recipe, placement, whole)

    choice = placement and in_8_bits(placement, free, needed_so)
    rows = {
        "clip": f"{recipe.size}, {recipe.frames} frames ({recipe.seconds:.1f} s at {recipe.fps:g} fps){drawn}",
        "work": f"{windows} window{'s' * (windows > 1)} of {recipe.steps} steps, "
        f"{cost.sampling / 1e12:.3g} TFLOP; decoding {cost.decoding / 1e12:.3g} TFLOP",
        "weights": "all in memory" if placement is None else told(placement),
        **({"or": choice} if choice else {}),
        "memory": f"about {readable(need)} {'beside the model' if limit is None else 'in all'}; "
        f"{readable(free)} are free",
        "time": "not foretold for another machine"
        if took is None
        else f"about {duration(took)} on this machine as busy as it is now",
        "disk": f"about {readable(cost.disk)}; {readable(free_disk(folder))} are free",
    }
    say.table(rows)
