"""The verb of evaluation."""

import time
from pathlib import Path
from typing import Annotated

import typer

PROGRESS_SECONDS = 5.0


def evaluate(
    model: Annotated[str, typer.Argument(help="A name, or a model folder.")],
    suite: Annotated[str, typer.Option(help="quick or full.")] = "quick",
    output: Annotated[
        Path | None, typer.Option("-o", "--output", metavar="DIR", help="Folder of the report.")
    ] = None,
    sets: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="SET", help="Only this one, as P5 or P5_fall; repeat."),
    ] = None,
    most: Annotated[int | None, typer.Option("--most", help="Prompts a set, at most.")] = None,
    seed: Annotated[int, typer.Option(help="Of scenes and noise.")] = 0,
    candidates: Annotated[
        int | None,
        typer.Option(
            "--candidates", metavar="N", help="Noises tried for a clip; 1 for none; else the model's default."
        ),
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="End with one JSON object on the last line.")
    ] = False,
) -> None:
    """Score a model with the oracle, on prompts of several kinds."""
    from mutoscope.evaluation.suite import evaluate as run
    from mutoscope.generation.choice import with_candidates
    from mutoscope.making import open_model
    from mutoscope.terminal import Say, duration, flat

    say = Say(as_json)
    loaded = open_model(model, say)
    if candidates is not None:
        loaded = with_candidates(loaded, candidates)
    folder = output or Path(f"evaluation-{loaded.card.name}-{suite}")
    start = shown = time.perf_counter()

    def report(done: int, total: int) -> None:
        nonlocal shown
        now = time.perf_counter()
        if now - shown >= PROGRESS_SECONDS or done == total:
            shown = now
            say.note("clips", f"{done} of {total}, {duration((now - start) / done * (total - done))} left")

    result = run(loaded, suite, folder, seed, report, sets or (), most)
    say.result(folder, result)
    if say.for_people:
        say.table(flat(result))
    say.note("saved", f"{folder}, with report.html and contact_sheet.png")
