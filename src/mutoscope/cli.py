"""The command line: one function per command, which parses, calls one function and prints.

torch and everything above it are imported inside the commands, so that `--help` and mistakes answer at once.
Exit codes: 0 done, 1 our fault, 2 a mistake in the input, 130 stopped by Ctrl-C (what was made is kept).
"""

import json
import os
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mutoscope import __version__
from mutoscope.errors import InputError

if TYPE_CHECKING:
    from mutoscope.generation.request import Request, Task

PROGRESS_SECONDS = 5.0

app = typer.Typer(
    name="mutoscope",
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)

train = typer.Typer(help="Train a model.", rich_markup_mode=None)
data = typer.Typer(help="Prepare clips for training.", rich_markup_mode=None)
models = typer.Typer(help="List and show models.", rich_markup_mode=None)
jobs = typer.Typer(help="See and stop the jobs of the server.", rich_markup_mode=None)
keys = typer.Typer(help="Make and end the API keys of the server.", rich_markup_mode=None)
app.add_typer(train, name="train")
app.add_typer(data, name="data")
app.add_typer(models, name="models")
app.add_typer(jobs, name="jobs")
app.add_typer(keys, name="keys")

Clip = Annotated[Path, typer.Argument(metavar="FILE", help="A video that Mutoscope made.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object per clip, on one line.")]
ModelName = Annotated[str, typer.Option("-m", "--model", metavar="MODEL", help="A name, or a model folder.")]
Output = Annotated[Path | None, typer.Option("-o", "--output", metavar="FILE", help="Where to write it.")]
Quiet = Annotated[bool, typer.Option("-q", "--quiet", help="Print nothing but the path.")]
Config = Annotated[Path, typer.Argument(metavar="CONFIG", help="A TOML file.")]
Resume = Annotated[str | None, typer.Option(help='"auto", or a checkpoint folder.')]
Set = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Override one value of it.")
]
ServerData = Annotated[
    Path | None,
    typer.Option("--data", metavar="DIR", help="The server's folder; else $MUTOSCOPE_DATA, or your own."),
]
Size = Annotated[str | None, typer.Option("--size", metavar="WxH", help="Pixels, for example 64x64.")]
Source = Annotated[Path, typer.Argument(metavar="CLIP", help="A video of any kind.")]
Second = Annotated[Path, typer.Argument(metavar="CLIP2", help="The video that follows; fitted to the first.")]
Prompt = Annotated[str, typer.Argument(metavar="[PROMPT]", help="What is to be seen, in quotes.")]
Seconds = Annotated[float | None, typer.Option("--seconds", help="Length of what is made anew.")]
Fps = Annotated[float | None, typer.Option("--fps", help="Frames per second; else those of the clip.")]
Steps = Annotated[int | None, typer.Option("--steps", help="Steps of the sampler.")]
Follow = Annotated[float | None, typer.Option("--guidance", help="How strictly to follow the prompt.")]
Seed = Annotated[int | None, typer.Option("--seed", help="Same seed, same clip; drawn when left out.")]


@app.callback(invoke_without_command=True)
def start(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False,
) -> None:
    """Make videos from prompts, and train the models that make them."""
    if version:
        print(f"mutoscope {__version__}")
        raise typer.Exit
    if context.invoked_subcommand is None:
        print(context.get_help())
        raise typer.Exit


@app.command()
def generate(
    prompt: Annotated[str, typer.Argument(help="What is to be seen, in quotes.")],
    output: Output = None,
    model: ModelName = "tiny",
    size: Size = None,
    seconds: Annotated[float | None, typer.Option(help="Length in seconds.")] = None,
    frames: Annotated[int | None, typer.Option(help="Length in frames.")] = None,
    fps: Annotated[float | None, typer.Option(help="Frames per second.")] = None,
    steps: Annotated[int | None, typer.Option(help="Steps of the sampler.")] = None,
    guidance: Annotated[
        float | None, typer.Option(help="How strictly to follow the prompt; 1 = off.")
    ] = None,
    sampler: Annotated[
        str | None, typer.Option(help="euler, heun, ddim, dpmpp_1, dpmpp_2m, dpmpp_3m or unipc.")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Same seed, same clip; drawn when left out.")] = None,
    negative: Annotated[str, typer.Option(metavar="TEXT", help="What is not to be seen.")] = "",
    count: Annotated[int, typer.Option("-n", "--count", help="How many clips, the seed rising by one.")] = 1,
    image: Annotated[
        Path | None, typer.Option(metavar="FILE", help="A picture to begin with: the first frame.")
    ] = None,
    last_image: Annotated[
        Path | None, typer.Option(metavar="FILE", help="A picture to end with: the last frame.")
    ] = None,
    no_expand: Annotated[
        bool,
        typer.Option("--no-expand", help="Take the prompt word for word (the built-in model always does)."),
    ] = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Make a clip from a prompt."""
    from mutoscope.generation.naming import check_place
    from mutoscope.generation.request import Request, parse_size
    from mutoscope.terminal import Say

    width, height = parse_size(size) if size is not None else (None, None)
    request = Request(
        prompt=prompt.strip(),
        width=width,
        height=height,
        frames=frames,
        fps=fps,
        steps=steps,
        guidance=guidance,
        sampler=sampler,
        seed=seed,
        negative=negative.strip(),
        seconds=seconds,
        image=image,
        last_image=last_image,
    )
    if not request.prompt and image is None and last_image is None:
        raise InputError('The prompt is empty; say what is to be seen, for example "a red ball rolls".')
    if not 1 <= count <= 1000:
        raise InputError(f"-n is {count}; ask for 1 to 1000 clips.")
    check_place(output)
    from mutoscope.making import make, open_model, tell_what_is_not_read  # torch, once nothing is amiss

    say = Say(as_json, quiet)
    loaded = open_model(model, say)
    tell_what_is_not_read(loaded, request.prompt, say)
    recipe = make(loaded, request, output, count > 1, say)
    for _ in range(count - 1):
        if recipe.stopped is None:
            recipe = make(loaded, replace(request, seed=recipe.seed + 1), output, count > 1, say)
    if recipe.stopped is not None:
        raise typer.Exit(130)
    say.note(
        "next", f"another take: --seed {recipe.seed + 1}; four of them: -n 4; the recipe: mutoscope info FILE"
    )


@app.command()
def extend(
    clip: Source,
    prompt: Prompt = "",
    seconds: Seconds = None,
    backward: Annotated[
        bool, typer.Option("--backward", help="Before the clip instead of after it.")
    ] = False,
    history_noise: Annotated[
        float, typer.Option(help="Noise on the known frames, 0 to 0.5; some makes long clips steadier.")
    ] = 0.0,
    output: Output = None,
    model: ModelName = "tiny",
    size: Size = None,
    fps: Fps = None,
    steps: Steps = None,
    guidance: Follow = None,
    seed: Seed = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Go on with a clip, after its end or before its start."""
    from mutoscope.generation.request import Task, file_sha256

    request = _request(prompt, seconds, size, fps, steps, guidance, seed)
    task = Task("extend", str(clip), file_sha256(clip), backward=backward, history_noise=history_noise)
    _make_from(request, task, output, model, as_json, quiet)


@app.command()
def interpolate(
    clip: Source,
    second: Second,
    prompt: Prompt = "",
    seconds: Seconds = None,
    output: Output = None,
    model: ModelName = "tiny",
    size: Size = None,
    fps: Fps = None,
    steps: Steps = None,
    guidance: Follow = None,
    seed: Seed = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Lead from the end of one clip to the start of another."""
    from mutoscope.generation.request import join

    request = _request(prompt, seconds, size, fps, steps, guidance, seed)
    _make_from(request, join("interpolate", clip, second), output, model, as_json, quiet)


@app.command()
def blend(
    clip: Source,
    second: Second,
    prompt: Prompt = "",
    seconds: Seconds = None,
    output: Output = None,
    model: ModelName = "tiny",
    size: Size = None,
    fps: Fps = None,
    steps: Steps = None,
    guidance: Follow = None,
    seed: Seed = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Turn what one clip shows into what another shows."""
    from mutoscope.generation.request import join

    request = _request(prompt, seconds, size, fps, steps, guidance, seed)
    _make_from(request, join("blend", clip, second), output, model, as_json, quiet)


@app.command()
def loop(
    clip: Source,
    prompt: Prompt = "",
    seconds: Seconds = None,
    output: Output = None,
    model: ModelName = "tiny",
    size: Size = None,
    fps: Fps = None,
    steps: Steps = None,
    guidance: Follow = None,
    seed: Seed = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Lead a clip from its end back to its start, so that it can repeat."""
    from mutoscope.generation.request import Task, file_sha256

    request = _request(prompt, seconds, size, fps, steps, guidance, seed)
    _make_from(request, Task("loop", str(clip), file_sha256(clip)), output, model, as_json, quiet)


@app.command()
def edit(
    clip: Source,
    prompt: Annotated[str, typer.Argument(help="What is to be seen, in quotes.")],
    strength: Annotated[str, typer.Option(help="0 to 1, or subtle, mild or strong.")] = "mild",
    output: Output = None,
    model: ModelName = "tiny",
    size: Size = None,
    fps: Fps = None,
    steps: Steps = None,
    guidance: Follow = None,
    seed: Seed = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Draw a clip again to another prompt, near to how it is."""
    from mutoscope.generation.request import Task, file_sha256, parse_strength

    request = _request(prompt, None, size, fps, steps, guidance, seed)
    if not request.prompt:
        raise InputError('The prompt is empty; say what is to be seen, for example "a blue ball rolls".')
    task = Task("edit", str(clip), file_sha256(clip), strength=parse_strength(strength))
    _make_from(request, task, output, model, as_json, quiet)


@app.command()
def recut(
    clip: Source,
    prompt: Prompt = "",
    *,
    keep: Annotated[str, typer.Option(metavar="FROM-TO", help="Seconds to keep, for example 1.0-2.5.")],
    output: Output = None,
    model: ModelName = "tiny",
    size: Size = None,
    fps: Fps = None,
    steps: Steps = None,
    guidance: Follow = None,
    seed: Seed = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Keep a part of a clip and make what comes before and after anew."""
    from mutoscope.generation.request import Task, file_sha256, parse_keep

    request = _request(prompt, None, size, fps, steps, guidance, seed)
    task = Task("recut", str(clip), file_sha256(clip), keep=parse_keep(keep))
    _make_from(request, task, output, model, as_json, quiet)


def _request(
    prompt: str,
    seconds: float | None,
    size: str | None,
    fps: float | None,
    steps: int | None,
    guidance: float | None,
    seed: int | None,
) -> "Request":
    """What is asked for besides the clips."""
    from mutoscope.generation.request import Request, parse_size

    width, height = parse_size(size) if size is not None else (None, None)
    return Request(prompt.strip(), width, height, None, fps, steps, guidance, seed=seed, seconds=seconds)


def _make_from(
    request: "Request", task: "Task", output: Path | None, model: str, as_json: bool, quiet: bool
) -> None:
    """Make a clip from clips, and say so."""
    from mutoscope.generation.naming import check_place
    from mutoscope.terminal import Say

    check_place(output)
    from mutoscope.making import make_from, open_model, tell_what_is_not_read

    say = Say(as_json, quiet)
    loaded = open_model(model, say)
    tell_what_is_not_read(loaded, request.prompt, say)
    make_from(loaded, request, task, output, say)


@app.command()
def info(
    file: Clip, as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False
) -> None:
    """Show what a clip is, and the recipe inside."""
    from mutoscope.terminal import Say, flat
    from mutoscope.video import read_recipe, read_video

    video, recipe = read_video(file), read_recipe(file)
    facts: dict[str, object] = {
        "path": str(file),
        "size": f"{video.width}x{video.height}",
        "frames": video.frames,
        "fps": round(video.fps, 3),
        "seconds": round(video.seconds, 3),
        "bytes": file.stat().st_size,
    }
    if as_json:
        print(json.dumps({**facts, "recipe": recipe}, ensure_ascii=False))
    elif recipe is None:
        Say().table({**facts, "recipe": "none inside; only files that Mutoscope wrote carry one"})
    else:
        Say().table({**facts, **flat(recipe)})


@app.command()
def reproduce(
    file: Clip,
    output: Output = None,
    model: Annotated[
        str | None, typer.Option("-m", "--model", help="The model's folder, if it has no name here.")
    ] = None,
    quiet: Quiet = False,
) -> None:
    """Make a clip again from its recipe; compare the bytes."""
    from mutoscope.generation.naming import check_place, unused
    from mutoscope.generation.reproduce import differences, read_record, remake
    from mutoscope.making import open_model
    from mutoscope.terminal import Progress, Say

    made = read_record(file)
    check_place(output)
    say = Say(quiet=quiet)
    loaded = open_model(model or made.model.name, say)
    path = output if output is not None else unused(Path(f"{file.stem}-again{file.suffix}"))
    if path.exists() and path.samefile(file):
        raise InputError(f"{path} is the clip itself; write the new one elsewhere with -o.")
    with Progress(say, loaded.vae) as progress:
        remake(loaded, made, path, progress)
    reasons = differences(loaded, made, file, path)
    if not reasons:
        say.result(path, {})
        say.note("saved", f"{path}: the same bytes as {file}")
        return
    print(f"{path} was made again but its bytes differ: {'; '.join(reasons)}.", file=sys.stderr)
    raise typer.Exit(1)


@app.command()
def world(
    count: Annotated[int, typer.Option("-n", "--count", help="How many clips.")] = 10,
    size: Annotated[str, typer.Option("--size", metavar="WxH", help="Pixels.")] = "128x128",
    frames: Annotated[int, typer.Option(help="Length in frames.")] = 33,
    fps: Annotated[float, typer.Option(help="Frames per second.")] = 8.0,
    seed: Annotated[int, typer.Option(help="Seed of the first scene; they count up.")] = 0,
    output: Annotated[Path, typer.Option("-o", "--output", metavar="DIR", help="Folder to write.")] = Path(
        "world"
    ),
    quiet: Quiet = False,
) -> None:
    """Write clips of the built-in world with true captions."""
    from mutoscope.data.world_clips import write_clips
    from mutoscope.generation.request import Request, parse_size
    from mutoscope.terminal import Say
    from mutoscope.world.scene import View

    width, height = parse_size(size)
    Request(width=width, height=height, frames=frames, fps=fps, seed=seed)  # for its checks
    if count < 1:
        raise InputError(f"-n is {count}; ask for 1 clip or more.")
    say = Say(quiet=quiet)
    view = View(width, height, frames, fps)
    write_clips(
        output, range(seed, seed + count), view, lambda done: say.note("written", f"{done} of {count}")
    )
    say.result(output, {})
    say.note("saved", f"{count} clips in {output}, each with a .json of its captions and its truth")


@train.command("vae")
def train_vae(config: Config, set_: Set = None, resume: Resume = None) -> None:
    """Train a video VAE."""
    from mutoscope.config import load_config
    from mutoscope.training.train_vae import TrainVAEConfig
    from mutoscope.training.train_vae import train_vae as run

    print(run(load_config(TrainVAEConfig, config, set_ or ()), resume))


@train.command("dit")
def train_dit(config: Config, set_: Set = None, resume: Resume = None) -> None:
    """Train a diffusion transformer and its text encoder."""
    from mutoscope.config import load_config
    from mutoscope.training.train_dit import TrainDiTConfig
    from mutoscope.training.train_dit import train_dit as run

    print(run(load_config(TrainDiTConfig, config, set_ or ()), resume))


@data.command("encode")
def data_encode(config: Config, set_: Set = None) -> None:
    """Encode clips, from the world or a folder, into a cache of latents."""
    from mutoscope.config import load_config
    from mutoscope.data.latents import EncodeConfig, encode
    from mutoscope.terminal import Say, duration
    from mutoscope.weights.store import load_vae

    asked = load_config(EncodeConfig, config, set_ or ())
    say = Say()
    start = time.perf_counter()

    def report(done: int, total: int, skipped: str) -> None:
        pace = (time.perf_counter() - start) / done
        left = f"{pace * 1e3:.1f} ms a clip, {duration(pace * (total - done))} left"
        say.note("encoded", f"{done} of {total}, {left}" + (f"; skipped: {skipped}" if skipped else ""))

    say.note("saved", str(encode(load_vae(asked.model), asked, report)))


@data.command("stats")
def data_stats(folder: Annotated[Path, typer.Argument(help="A cache of latents.")]) -> None:
    """Show what a cache of latents holds."""
    from mutoscope.data.latents import Latents
    from mutoscope.terminal import Say

    latents = Latents(folder)
    rows = {str(size): f"{latents.count(size)} clips of {size.tokens} tokens" for size in latents.sizes}
    tokens = sum(latents.count(size) * size.tokens for size in latents.sizes)
    clips = sum(latents.count(size) for size in latents.sizes)
    example = latents.caption(latents.sizes[0], 0, "detailed", 0)
    Say().table(
        {**rows, "all": f"{clips} clips, {tokens} tokens, {len(latents.skipped)} skipped", "example": example}
    )


@app.command()
def evaluate(
    model: Annotated[str, typer.Argument(help="A name, or a model folder.")],
    suite: Annotated[str, typer.Option(help="quick or full.")] = "quick",
    output: Annotated[
        Path | None, typer.Option("-o", "--output", metavar="DIR", help="Folder of the report.")
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="End with one JSON object on the last line.")
    ] = False,
) -> None:
    """Score a model with the oracle, on prompts of several kinds."""
    from mutoscope.evaluation.suite import evaluate as run
    from mutoscope.making import open_model
    from mutoscope.terminal import Say, duration, flat

    say = Say(as_json)
    loaded = open_model(model, say)
    folder = output or Path(f"evaluation-{loaded.card.name}-{suite}")
    start = shown = time.perf_counter()

    def report(done: int, total: int) -> None:
        nonlocal shown
        now = time.perf_counter()
        if now - shown >= PROGRESS_SECONDS or done == total:
            shown = now
            say.note("clips", f"{done} of {total}, {duration((now - start) / done * (total - done))} left")

    result = run(loaded, suite, folder, on_clip=report)
    say.result(folder, result)
    if say.for_people:
        say.table(flat(result))
    say.note("saved", f"{folder}, with report.html and contact_sheet.png")


@models.command("list")
def models_list() -> None:
    """Name the models that come with the package."""
    from mutoscope.terminal import Say
    from mutoscope.weights.store import built_in, read_card

    names = built_in()
    cards = [read_card(name) for name in names]
    Say().table(
        {
            card.name: f"{card.defaults.width}x{card.defaults.height}, {card.licence}, built in"
            for card in cards
        }
        or {"none": "no model is built in; train one, or name a model folder with -m"}
    )


@models.command("show")
def models_show(model: Annotated[str, typer.Argument(help="A name, or a model folder.")]) -> None:
    """Show what a model says of itself."""
    from mutoscope.config import to_dict
    from mutoscope.terminal import Say, flat
    from mutoscope.weights.store import read_card

    Say().table(flat(to_dict(read_card(model))))


@app.command()
def serve(
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen on; 0 takes a free one.")] = 8000,
    model: ModelName = "tiny",
    folder: ServerData = None,
    workers: Annotated[int, typer.Option(help="Processes that make videos, each with the model.")] = 1,
    device: Annotated[str | None, typer.Option(help="cpu, cuda or mps; else the best there is.")] = None,
    allow_host: Annotated[list[str] | None, typer.Option(help="Another name of this server.")] = None,
    allow_origin: Annotated[list[str] | None, typer.Option(help="A site whose pages may use it.")] = None,
    keep_hours: Annotated[float | None, typer.Option(help="Delete finished videos after this time.")] = None,
    webhook: Annotated[
        str | None,
        typer.Option(
            metavar="URL", help="Tell this address of finished videos; $MUTOSCOPE_WEBHOOK_SECRET signs."
        ),
    ] = None,
) -> None:
    """Serve videos over HTTP: the OpenAI video API, and a page for people."""
    from mutoscope.serving.server import ServeConfig, default_data
    from mutoscope.serving.server import serve as run
    from mutoscope.serving.webhooks import Webhook
    from mutoscope.terminal import Say

    if not 1 <= workers <= 64:
        raise InputError(f"--workers is {workers}; choose 1 to 64.")
    if not 0 <= port <= 65535:
        raise InputError(f"--port is {port}; choose 0 to 65535.")
    say = Say()
    data_folder = folder or default_data()

    def announce(url: str) -> None:
        say.note("page", url)
        say.note("api", f"{url}/v1 (OpenAI video API)")
        say.note("data", f"{data_folder}; Ctrl-C stops, queued jobs stay")

    secret = os.environ.get("MUTOSCOPE_WEBHOOK_SECRET", "")
    run(
        ServeConfig(
            data=data_folder,
            model=model,
            host=host,
            port=port,
            workers=workers,
            device=device,
            hosts=tuple(allow_host or ()),
            origins=tuple(allow_origin or ()),
            keep_hours=keep_hours,
            webhook=None if webhook is None else Webhook(webhook, secret),
        ),
        announce,
    )


@jobs.command("list")
def jobs_list(
    folder: ServerData = None, count: Annotated[int, typer.Option("-n", help="How many, newest first.")] = 20
) -> None:
    """Show the newest jobs of all tenants."""
    from mutoscope.serving.server import open_store
    from mutoscope.terminal import Say

    rows = {
        job.id: f"{job.status} {job.progress} %, {job.order.size}, {job.order.seconds:g} s, of {job.tenant}"
        for job in open_store(folder).all_jobs(count)
    }
    Say().table(dict(rows) or {"none": "no jobs yet"})


@jobs.command("cancel")
def jobs_cancel(job: Annotated[str, typer.Argument(help="Its id.")], folder: ServerData = None) -> None:
    """Stop a waiting or running job."""
    from mutoscope.serving.server import open_store

    store = open_store(folder)
    found = store.find(job)
    if found is None:
        raise InputError(f"There is no job {job!r}; `mutoscope jobs list` shows them.")
    ended = store.cancel(found.tenant, found.id)
    print(found.status if ended is None else ended.status)


@keys.command("create")
def keys_create(
    name: Annotated[str, typer.Argument(help="Whose key it is.")],
    tenant: Annotated[str | None, typer.Option(help="Whose videos it sees; else those of NAME.")] = None,
    folder: ServerData = None,
) -> None:
    """Make a key and show it, this once."""
    from mutoscope.serving.keys import create_key
    from mutoscope.serving.server import open_store

    print(create_key(open_store(folder), name, tenant)[1])


@keys.command("list")
def keys_list(folder: ServerData = None) -> None:
    """Show the keys, without their secrets."""
    from mutoscope.serving.keys import list_keys
    from mutoscope.serving.server import open_store
    from mutoscope.terminal import Say

    found = list_keys(open_store(folder))
    rows = {
        key.id: f"{key.name}, tenant {key.tenant}" + (", revoked" if key.revoked_at else "") for key in found
    }
    Say().table(dict(rows) or {"none": "no keys yet; the server only lets this machine in"})


@keys.command("revoke")
def keys_revoke(
    key: Annotated[str, typer.Argument(help="Its id, as `keys list` shows it.")], folder: ServerData = None
) -> None:
    """End a key; the server notices within a second."""
    from mutoscope.serving.keys import revoke_key
    from mutoscope.serving.server import open_store

    revoke_key(open_store(folder), key)


@app.command()
def doctor() -> None:
    """Check this installation; say what to mend and how."""
    from mutoscope.doctor import examine
    from mutoscope.terminal import Say

    findings = examine()
    Say().table({finding.name: finding.found for finding in findings})
    wrong = [f"{finding.name}: {finding.remedy}" for finding in findings if finding.remedy]
    if wrong:
        print(*wrong, sep="\n", file=sys.stderr)
        raise typer.Exit(1)


def main() -> None:
    """Run the command line; every failure is one sentence on stderr and an exit code."""
    try:
        code = app(standalone_mode=False)
    except InputError as error:
        code = complain(str(error), 2)
    except typer.TyperException as error:
        code = complain(usage(error), 2)
    except (KeyboardInterrupt, typer.Abort):
        code = complain("Stopped; nothing was written.", 130)
    except BrokenPipeError:  # the reader of our output went away, e.g. `| head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 1
    except Exception as error:
        if os.environ.get("MUTOSCOPE_DEBUG") == "1":
            raise
        code = complain(
            f"Mutoscope failed: {type(error).__name__}: {' '.join(str(error).split())[:300]}; this is our "
            "fault, please report it with what the same command prints after `export MUTOSCOPE_DEBUG=1`.",
            1,
        )
    sys.exit(code)


def complain(sentence: str, code: int) -> int:
    print(sentence, file=sys.stderr)
    return code


def usage(error: typer.TyperException) -> str:
    """A mistake in the options, as one sentence with its remedy."""
    sentence = " ".join(error.format_message().split()).rstrip(".")
    if "unexpected extra argument" in sentence:
        return f"{sentence}; put a prompt of several words in quotes."
    return f"{sentence}; see `mutoscope --help`, or `--help` after a command."


if __name__ == "__main__":
    main()
