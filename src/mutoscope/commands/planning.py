"""The verb that tells what a clip will cost, before anything is made."""

import json
from pathlib import Path
from typing import Annotated

import typer

from mutoscope.commands.drawing import Drawing, Framing, spread
from mutoscope.commands.options import Json, ModelName, Output


@spread
def plan(
    prompt: Annotated[
        str, typer.Argument(metavar="PROMPT", help="As for generate; it changes no cost.")
    ] = "",
    *,
    output: Output = None,
    model: ModelName = "tiny",
    framing: Framing,
    drawing: Drawing,
    stream: Annotated[bool, typer.Option("--stream", help="As for generate; it changes no cost.")] = False,
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
    from mutoscope.generation.plan import free_disk, free_memory, plan, readable, refuse_what_the_disk_lacks
    from mutoscope.generation.plan import seconds as expected
    from mutoscope.generation.windows import windows_of
    from mutoscope.making import open_model, streams

    say = Say(as_json)
    loaded = open_model(model, say)
    folder = Path() if output is None else output if output.is_dir() else output.parent
    whole = not streams(output)
    recipe = resolve(loaded, request, whole)
    cost = plan(loaded, recipe, whole)
    refuse_what_the_disk_lacks(cost, folder)
    windows, took = windows_of(loaded, recipe), expected(cost)
    if as_json:
        facts = {"size": recipe.size, "frames": recipe.frames, "fps": recipe.fps, "windows": windows}
        costs = {"memory_bytes": cost.memory, "disk_bytes": cost.disk, "seconds": round(took, 2)}
        print(json.dumps({**facts, **costs, "sampling_flop": cost.sampling, "decoding_flop": cost.decoding}))
        return
    drawn = f", drawn at {recipe.draft[0]}x{recipe.draft[1]} and enlarged" if recipe.draft else ""
    free = free_memory(loaded.vae.latent_mean.device)
    say.table(
        {
            "clip": f"{recipe.size}, {recipe.frames} frames ({recipe.seconds:.1f} s at {recipe.fps:g} fps){drawn}",
            "work": f"{windows} window{'s' * (windows > 1)} of {recipe.steps} steps, "
            f"{cost.sampling / 1e12:.3g} TFLOP; decoding {cost.decoding / 1e12:.3g} TFLOP",
            "memory": f"about {readable(cost.memory)} beside the model; {readable(free)} are free",
            "time": f"about {duration(took)} on this machine as busy as it is now",
            "disk": f"about {readable(cost.disk)}; {readable(free_disk(folder))} are free",
        }
    )
