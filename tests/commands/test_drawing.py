"""Groups of options: what typer shows and checks is what stands in the dataclasses."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import pytest
import typer
from typer.testing import CliRunner

from mutoscope.commands.drawing import Drawing, Framing, spread
from mutoscope.errors import InputError
from mutoscope.generation.request import KeyFrame


@dataclass(frozen=True)
class Paper:
    size: Annotated[str, typer.Option("--size", help="How large it is.")] = "A4"
    sheets: Annotated[int | None, typer.Option("--sheets")] = None


def test_a_group_becomes_options_and_comes_back_as_a_group() -> None:
    seen: list[tuple[str, Paper, bool]] = []

    @spread
    def fold(what: Annotated[str, typer.Argument()], *, paper: Paper, twice: bool = False) -> None:
        """Fold paper."""
        seen.append((what, paper, twice))

    app = typer.Typer()
    app.command()(fold)
    run = CliRunner()
    told = run.invoke(app, ["--help"]).output
    for word in ("Fold paper.", "what", "--size", "How large it is.", "A4", "--sheets", "--twice"):
        assert word in told
    assert run.invoke(app, ["boat", "--sheets", "3", "--twice"]).exit_code == 0
    assert run.invoke(app, ["hat"]).exit_code == 0
    assert seen == [("boat", Paper("A4", 3), True), ("hat", Paper(), False)]
    assert run.invoke(app, ["boat", "--sheets", "x"]).exit_code == 2


def test_requests_are_what_the_options_say() -> None:
    drawing = Drawing(size="48x32", fps=12.0, steps=3, guidance=2.0, sampler="heun", seed=5, negative=" mud ")
    request = Framing(frames=9, at=["0.5s=a.png"], draft="16x16").of(drawing.request(" a ball "))
    assert (request.width, request.height, request.frames, request.fps) == (48, 32, 9, 12.0)
    assert (request.steps, request.guidance, request.sampler, request.seed) == (3, 2.0, "heun", 5)
    assert (request.prompt, request.negative, request.draft) == ("a ball", "mud", (16, 16))
    assert request.at == (KeyFrame(0.5, "a.png"),)
    assert Drawing().request("a", 2.5).seconds == 2.5
    pictures = [Path("a.png"), Path("b.png")]
    assert Framing(reference=pictures).of(Drawing().request("a")).references == tuple(pictures)
    with pytest.raises(InputError, match="drop one"):
        Framing(seconds=1.0, frames=5).of(Drawing().request("a"))


def test_the_options_of_guidance_are_read_and_refused_by_name() -> None:
    plain = Drawing().request("a ball")
    assert (plain.guidance_kind, plain.guidance_interval, plain.guidance_rescale, plain.step_cache) == (
        "cfg",
        (0.0, 1.0),
        0.0,
        0.0,
    )
    drawing = Drawing(guidance_kind="apg", guidance_interval="0.2-0.9", guidance_rescale=0.7, step_cache=0.05)
    request = drawing.request("a ball")
    assert (request.guidance_kind, request.guidance_interval) == ("apg", (0.2, 0.9))
    assert (request.guidance_rescale, request.step_cache) == (0.7, 0.05)
    for given, says in (
        (Drawing(guidance_kind="zero"), "did you mean 'zero-star'"),
        (Drawing(guidance_interval="0.2"), "LOW-HIGH"),
        (Drawing(guidance_interval="0.9-0.2"), "LOW-HIGH"),
        (Drawing(guidance_interval="a-b"), "LOW-HIGH"),
        (Drawing(guidance_rescale=2.0), "guidance rescale is 2"),
        (Drawing(step_cache=float("nan")), "step cache is nan"),
    ):
        with pytest.raises(InputError, match=says):
            given.request("a ball")


def test_few_steps_are_those_of_the_preset_unless_said_otherwise() -> None:
    request = Drawing(few_steps="lightx2v").request("a ball")
    assert request.sigmas == (1.0, 15 / 16, 5 / 6, 5 / 8)
    assert (request.guidance, request.sampler, request.steps) == (1.0, "euler", None)
    request = Drawing(few_steps="fastwan", guidance=2.0, sampler="euler").request("a ball")
    assert (len(request.sigmas), request.guidance, request.sampler) == (3, 2.0, "euler")
    with pytest.raises(InputError, match="choose one of lightx2v"):
        Drawing(few_steps="turbo").request("a ball")
    with pytest.raises(InputError, match="4 noise levels and 8 steps"):
        Drawing(few_steps="lightx2v", steps=8).request("a ball")
