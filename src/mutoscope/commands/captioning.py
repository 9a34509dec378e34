"""The verbs of captions: write one for a clip, write them for a folder, train the captioner."""

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from mutoscope.commands.options import Config, Json, ModelName, Quiet, Resume, Set, Source
from mutoscope.errors import InputError

if TYPE_CHECKING:
    from mutoscope.data.endpoint import EndpointWriter
    from mutoscope.data.recaption import State
    from mutoscope.terminal import Say

Beams = Annotated[
    int, typer.Option("--beams", min=1, max=64, help="Candidates that the search keeps, 1 to 64.")
]
FOREIGN_BELOW = 24.0  # dB: a clip that the VAE shows worse than this is unlike what it was trained on


def caption(
    clip: Source,
    kind: Annotated[
        Literal["short", "medium", "detailed"], typer.Option("--kind", help="How much to tell.")
    ] = "detailed",
    model: ModelName = "tiny",
    beams: Beams = 1,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Describe a clip in words."""
    import torch

    from mutoscope.config import to_dict
    from mutoscope.data.recaption import as_trained
    from mutoscope.evaluation.quality import psnr
    from mutoscope.terminal import Say, listed
    from mutoscope.video import read_video
    from mutoscope.weights.store import load_captioner
    from mutoscope.world.captions import parse

    loaded = load_captioner(model)
    video = read_video(clip)
    begin = time.perf_counter()
    with torch.inference_mode():
        video_BCTHW = as_trained(loaded, video)
        latent_BCTHW = loaded.vae.encode(video_BCTHW.to(loaded.vae.latent_mean.device))
        (text,) = loaded.narrator(latent_BCTHW, kind, beams)
        seen = float(psnr(loaded.vae.decode(latent_BCTHW).cpu().clamp(-1, 1), video_BCTHW))
    took, foreign = time.perf_counter() - begin, seen < FOREIGN_BELOW
    cannot_know = list(loaded.card.training.get("cannot_know", []))
    if as_json:
        line = {
            "path": str(clip),
            "kind": kind,
            "caption": text,
            "facts": [to_dict(fact) for fact in parse(text)[0]],
            "model": loaded.card.name,
            "familiar": not foreign,
            "cannot_know": cannot_know,
            "took_s": round(took, 3),
        }
        print(json.dumps(line, ensure_ascii=False))
        return
    print(text)
    say = Say(quiet=quiet)
    if foreign:
        say.note(
            "note",
            f"{loaded.card.name} has seen nothing like this clip (its VAE shows it with {seen:.0f} dB): do not trust "
            "the caption.",
        )
    if cannot_know:
        say.note("note", f"{loaded.card.name} was never told of {listed(cannot_know)}.")


def data_recaption(
    folder: Annotated[
        Path,
        typer.Argument(
            metavar="FOLDER",
            help="A folder of clips, a manifest (.txt, .csv, .jsonl), or a cache of latents.",
        ),
    ],
    model: ModelName = "tiny",
    out: Annotated[
        Path | None, typer.Option("-o", "--out", metavar="NEW", help="Of a cache: where the new one goes.")
    ] = None,
    wordings: Annotated[
        int, typer.Option(help="Of a cache: captions of each kind; all but the first are drawn.")
    ] = 1,
    url: Annotated[
        str | None,
        typer.Option("--with", metavar="URL", help="Ask this OpenAI-compatible vision endpoint instead."),
    ] = None,
    url_model: Annotated[
        str | None, typer.Option("--with-model", metavar="NAME", help="The endpoint's model; else its first.")
    ] = None,
    price: Annotated[
        str, typer.Option(metavar="IN,OUT", help="Dollars per million tokens read and written.")
    ] = "0,0",
    timeout: Annotated[float, typer.Option(help="Seconds that an endpoint may take to answer.")] = 60.0,
    retries: Annotated[int, typer.Option(help="Of requests that an endpoint does not answer.")] = 3,
    parallel: Annotated[int, typer.Option(help="Requests at the same time.")] = 4,
    beams: Beams = 1,
    variety: Annotated[
        int | None, typer.Option(metavar="SEED", help="Draw wording and order, by this seed.")
    ] = None,
    batch: Annotated[int, typer.Option(help="Clips at once.")] = 32,
    again: Annotated[bool, typer.Option("--again", help="Also clips that it has captioned before.")] = False,
    quiet: Quiet = False,
) -> None:
    """Write new captions beside clips, or into a new cache of latents; the original ones are kept."""
    from mutoscope.data.endpoint import Endpoint, EndpointWriter
    from mutoscope.data.recaption import Writer, find_clips, our_writer, recaption, written_by
    from mutoscope.data.recaption_latents import recaption_latents
    from mutoscope.terminal import Say
    from mutoscope.weights.store import load_captioner

    say = Say(quiet=quiet)
    endpoint: EndpointWriter | None = None
    if (folder / "index.json").is_file() or out is not None:
        if out is None or url is not None or variety is not None or again or beams != 1:
            raise InputError(
                f"{folder}: captions of a cache of latents are written with --out NEW, and without --with, --beams, "
                "--variety and --again."
            )
        written = recaption_latents(load_captioner(model), folder, out, wordings, _teller(say), batch)
        say.note("saved", str(written))
        return
    if wordings != 1:
        raise InputError(
            f"--wordings {wordings} is for a cache of latents, and {folder} is none; leave it out."
        )
    clips = find_clips(folder)
    write: Writer
    if url is not None:
        asked = Endpoint(url, url_model, timeout, retries, parallel, price=_price(price))
        write = endpoint = EndpointWriter(asked)
        by = endpoint.by
    else:
        loaded = load_captioner(model)
        write, by = our_writer(loaded, beams=beams, variety=variety), written_by(loaded)
    say.note("captions", f"of {len(clips)} clips by {by}")
    try:
        outcome = recaption(clips, write, by, _teller(say, endpoint), batch, again)
    except KeyboardInterrupt as stop:
        say.note("stopped", "what was written is kept; the same command goes on from there")
        raise typer.Exit(130) from stop
    finally:
        if endpoint:
            say.note("cost", str(endpoint.bill))
    if outcome.skipped and not outcome.written and not outcome.passed:
        raise InputError(f"None of {len(clips)} clips could be captioned; the first: {outcome.skipped[0]}")
    say.note(
        "saved",
        f"{outcome.written} written, {outcome.passed} were there, {len(outcome.skipped)} skipped; the captions are in "
        "the .json beside each clip",
    )


def _teller(say: "Say", endpoint: "EndpointWriter | None" = None) -> Callable[["State"], None]:
    """Tells how far a run is, what it has cost, and what was skipped."""
    from mutoscope.terminal import duration

    def tell(state: "State") -> None:
        done = state.written + state.passed + state.failed
        bill = f"; {endpoint.bill}" if endpoint else ""
        text = f"{done} of {state.total}, {state.pace:.1f} clips/s, {duration(state.left)} left{bill}"
        say.note("written", text)
        for sentence in state.skipped:
            say.note("skipped", sentence)

    return tell


def _price(text: str) -> tuple[float, float]:
    try:
        read, written = (float(part) for part in text.split(","))
    except ValueError as error:
        raise InputError(f"--price {text!r} is not two numbers; write --price 0.15,0.60.") from error
    return read, written


def train_captioner(config: Config, set_: Set = None, resume: Resume = None) -> None:
    """Train a captioner on a few labelled clips."""
    from mutoscope.config import load_config
    from mutoscope.training.train_captioner import TrainCaptionerConfig
    from mutoscope.training.train_captioner import train_captioner as run

    print(run(load_config(TrainCaptionerConfig, config, set_ or ()), resume))
