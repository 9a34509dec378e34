"""The verbs of storyboards, characters and repainting."""

import time
from pathlib import Path
from typing import Annotated

import typer

from mutoscope.commands.drawing import Drawing, Making, make_from_clips, spread
from mutoscope.commands.options import Compile, ModelName, Prompt, Quiet, Source, Weights
from mutoscope.errors import InputError


@spread
def inpaint(
    clip: Source,
    prompt: Prompt = "",
    *,
    mask: Annotated[
        Path, typer.Option(metavar="FILE", help="A picture or clip of the clip's size, white = draw anew.")
    ],
    strength: Annotated[
        str, typer.Option(metavar="N", help="0 to 1; below 1 what was there shines through.")
    ] = "1",
    making: Making,
    drawing: Drawing,
) -> None:
    """Draw a part of a clip anew and leave the rest as it is.

    mutoscope inpaint ball.mp4 "a green box" --mask mask.png -o box.mp4
    """
    from mutoscope.generation.request import parse_strength, repaint

    request = drawing.request(prompt)
    make_from_clips(request, repaint(clip, mask, parse_strength(strength)), making)


@spread
def restyle(
    clip: Source,
    style: Annotated[str, typer.Argument(metavar="STYLE", help="How it is to look, in quotes.")],
    *,
    strength: Annotated[
        str, typer.Option(metavar="N", help="How much to change: 0 to 1, or subtle, mild or strong.")
    ] = "strong",
    making: Making,
    drawing: Drawing,
) -> None:
    """Draw a clip again with its own prompt and another look.

    mutoscope restyle ball.mp4 "at night in the snow" -o night.mp4
    """
    from mutoscope.generation.request import Task, file_sha256, parse_strength

    request = drawing.request(style)
    if not request.prompt:
        raise InputError('The style is empty; say how the clip is to look, for example "at night".')
    task = Task("restyle", str(clip), file_sha256(clip), strength=parse_strength(strength))
    make_from_clips(request, task, making)


def storyboard(
    file: Annotated[
        Path | None, typer.Argument(metavar="FILE", help="Cards at times, as TOML or JSON.")
    ] = None,
    plan: Annotated[
        str | None, typer.Option(metavar="PROMPT", help='Cards from a prompt: "First ..., then ...".')
    ] = None,
    seconds: Annotated[float, typer.Option(metavar="N", help="Length of the clip that --plan makes.")] = 6.0,
    write: Annotated[
        Path | None, typer.Option(metavar="FILE.json", help="Write the cards of --plan and make no clip.")
    ] = None,
    output: Annotated[
        Path, typer.Option("-o", "--output", metavar="FILE", help="Where to write the clip.")
    ] = Path("storyboard.mp4"),
    model: ModelName = "tiny",
    weights: Weights = "exact",
    compiled: Compile = False,
    quiet: Quiet = False,
) -> None:
    """Make a clip from cards: shots, cuts and morphs.

    mutoscope storyboard --plan "First a ball rolls, then it stops." -o story.mp4
    """
    from mutoscope.config import write_json
    from mutoscope.generation.naming import check_place
    from mutoscope.terminal import Say
    from mutoscope.video import STILLS

    if (file is None) == (plan is None):
        raise InputError("storyboard takes a FILE of cards or --plan PROMPT; give one of them.")
    check_place(output)
    if output.is_dir() or output.suffix.lower() in STILLS:
        raise InputError(f"A storyboard makes a film and {output} cannot hold one; name it .mp4.")
    from mutoscope.generation.characters import cast_board
    from mutoscope.generation.storyboard import make_storyboard, plan_shots, read_storyboard

    board = read_storyboard(file) if file is not None else plan_shots(plan or "", seconds)
    say = Say(quiet=quiet)
    if write is not None:
        say.result(write_json(write, board), {})
        say.note(
            "saved", f"{len(board.cards)} cards in {write}; make them with `mutoscope storyboard {write}`"
        )
        return
    from mutoscope.generation.forecast import forecast_storyboard
    from mutoscope.making import expected, open_model
    from mutoscope.terminal import Progress

    loaded = open_model(model, say, weights, compiled)
    board = cast_board(board, board.fps or loaded.card.defaults.fps)
    if say.for_people:
        cost = expected(forecast_storyboard(loaded, board))
        say.note("plan", f"{len(board.cards)} cards in {board.seconds:g} s; {cost}")
    parts = output.with_name(f".{output.stem}.shots")
    start = time.perf_counter()

    def tell(shot: int, shots: int, there: bool) -> None:
        say.note("shot", f"{shot} of {shots}" + (", made by an earlier run" if there else ""))

    with Progress(say, loaded.vae) as progress:
        make_storyboard(loaded, board, parts, progress, tell).save(output)
    say.result(output, {})
    say.note(
        "saved", f"{output} in {time.perf_counter() - start:.1f} s; {parts} keeps its shots for the next run"
    )


def character_add(
    name: Annotated[str, typer.Argument(help="A word; prompts say @NAME.")],
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A picture or clip; its first frame is kept.")],
    description: Annotated[
        str | None,
        typer.Option("--as", metavar="TEXT", help='As in "a small red ball"; else the model looks itself.'),
    ] = None,
    model: ModelName = "tiny",
) -> None:
    """Keep a character under a name, for @NAME in prompts."""
    from mutoscope.generation.characters import add_character
    from mutoscope.generation.request import Request
    from mutoscope.terminal import Say

    say = Say()
    if description is None:
        from mutoscope.generation.description import described
        from mutoscope.making import open_model

        description = described(open_model(model, say), file)
    Request(prompt=description)  # for its checks
    made = add_character(name, file, description)
    say.note("saved", f"@{made.name}: {made.description}, {made.picture}")


def character_list() -> None:
    """Show the characters."""
    from mutoscope.generation.characters import list_characters
    from mutoscope.terminal import Say

    rows = {f"@{character.name}": character.description for character in list_characters()}
    Say().table(dict(rows) or {"none": "no characters yet; `mutoscope character add NAME FILE`"})


def character_rm(name: Annotated[str, typer.Argument(help="Its name.")]) -> None:
    """Forget a character."""
    from mutoscope.generation.characters import remove_character

    remove_character(name.removeprefix("@"))
