"""One clip as the command line makes it: what was decided is told before, what came of it after.

Layer: just below the command line; it imports torch.
"""

import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from mutoscope.errors import InputError
from mutoscope.generation.choice import after_trials, choose
from mutoscope.generation.continuations import carry_out, settled
from mutoscope.generation.forecast import forecast
from mutoscope.generation.generate import grid_of, resolve, save
from mutoscope.generation.journal import Job
from mutoscope.generation.large import drafted, enlarge_frames
from mutoscope.generation.naming import name_clip, unused
from mutoscope.generation.plan import Plan, plan, readable, refuse_what_the_disk_lacks, seconds
from mutoscope.generation.reproduce import read_record
from mutoscope.generation.request import Recipe, Request, Task, file_sha256, request_of
from mutoscope.terminal import Progress, Say, duration, listed
from mutoscope.video import STREAMS, Video, VideoWriter, read_recipe, read_video
from mutoscope.weights.store import Model, built_in, load
from mutoscope.world.captions import parse
from mutoscope.world.scene import BACKGROUNDS, COLOURS, DIRECTIONS, SHAPES, SIZES

SOURCES = " (the new file is encoded again, at crf 14)"


def make(
    model: Model, request: Request, output: Path | None, several: bool, say: Say, growing: bool = False
) -> Recipe:
    """Announce a clip, make it, tell what came of it; the recipe says `stopped` after Ctrl-C.

    What was made before a crash or Ctrl-C is not made again by the same request. `growing` writes a file that
    can be watched while it grows.
    """
    whole = not streams(output)
    refuse_what_the_disk_lacks(plan(model, resolve(model, request, whole), whole), _folder_of(output))
    with Job(model, request, _folder_of(output)) as job:
        recipe = resolve(model, job.request, whole)
        announce(model, recipe, say, plan(model, recipe, whole=False))
        if job.journal.found:
            say.note("resumes", f"what an earlier run left in {job.journal.folder}")
        start = time.perf_counter()
        with Progress(say, model.vae) as progress:
            (recipe,) = choose(model, [recipe], progress)
            path = name_clip(output, recipe, several)
            replaces = path.exists()
            on_step = after_trials(progress, recipe)
            recipe = save(model, recipe, path, on_step, progress.written, job.journal, growing)
        tell_result(model, recipe, path, time.perf_counter() - start, say, replaces)
        if recipe.stopped is None:
            job.done()
        elif job.keeps():
            say.note("next", f"the same command goes on from here; {job.journal.folder} holds what was made")
    return recipe


def make_larger(
    clip: Path, width: int, height: int, output: Path, model: str | None, say: Say, growing: bool
) -> Recipe | None:
    """A clip at another size.

    One with a recipe that this model can follow is drawn again and enlarged before it is rounded to 8 bits. Of
    any other the frames are enlarged as they are, and the new file has no recipe (None).
    """
    if read_recipe(clip) is not None:
        made = read_record(clip)
        loaded = open_model(model or made.model.name, say, made.model.weights, made.machine.compiled)
        if (
            made.recipe.task is None
            and made.recipe.stopped is None
            and loaded.card.sha256 == made.model.sha256
        ):
            draft = made.recipe.draft or (made.recipe.width, made.recipe.height)
            asked = replace(request_of(made.recipe), width=width, height=height, draft=draft)
            return make(loaded, asked, output, False, say, growing)
    video, start = read_video(clip), time.perf_counter()
    if video.width > width or video.height > height:
        raise InputError(
            f"{clip} is {video.width}x{video.height}, larger than {width}x{height}; upscale to a larger size."
        )
    say.note("note", f"{clip} cannot be drawn again from a recipe; its frames are enlarged as they are")
    pieces = enlarge_frames(video.frames_THWC, height, width)
    if streams(output):
        with VideoWriter(output, width, height, video.fps, growing=growing) as writer:
            for frames_THWC in pieces:
                writer.write(frames_THWC)
    else:
        Video(np.concatenate(list(pieces)), video.fps).save(output)
    took = time.perf_counter() - start
    line = {"path": str(output), "sha256": file_sha256(output), "size": f"{width}x{height}"}
    say.result(output, {**line, "frames": video.frames, "fps": video.fps, "took_s": round(took, 3)})
    say.note("saved", f"{output} in {took:.1f} s")
    return None


def streams(output: Path | None) -> bool:
    """Whether a clip is written as it comes, or must be held whole first."""
    return output is None or output.is_dir() or output.suffix.lower() in STREAMS


def _folder_of(output: Path | None) -> Path:
    """The folder that a clip goes into."""
    if output is None:
        return Path()
    return output if output.is_dir() else output.parent


def make_from(model: Model, request: Request, task: Task, output: Path | None, say: Say) -> Recipe:
    """As `make`, for what is made from clips; a file that was not named is called after the first clip."""
    recipe, staying = settled(model, request, task)
    into_folder = output is None or output.is_dir()
    name = f"{Path(task.clip).stem}-{task.verb}-{recipe.seed}.mp4"
    path = unused((output or Path()) / name) if into_folder else name_clip(output, recipe, several=False)
    if any(source and path.exists() and path.samefile(source) for source in (task.clip, task.second)):
        raise InputError(f"{path} is the clip itself; write the new one elsewhere with -o.")
    announce(model, recipe, say, forecast(model, recipe, staying))
    replaces = path.exists()
    start = time.perf_counter()
    with Progress(say, model.vae) as progress:
        carry_out(model, recipe, progress).save(path)
    tell_result(model, recipe, path, time.perf_counter() - start, say, replaces)
    return recipe


def tell_result(model: Model, recipe: Recipe, path: Path, took: float, say: Say, replaces: bool) -> None:
    """What came of a clip: one line of JSON, its path, or a sentence."""
    line = {
        "path": str(path),
        "sha256": file_sha256(path),
        "seed": recipe.seed,
        "model": model.card.name,
        "size": recipe.size,
        "frames": recipe.frames,
        "fps": recipe.fps,
        "steps": recipe.steps,
        "guidance": recipe.guidance,
        "sampler": recipe.sampler,
        "candidates": recipe.candidates,
        "kept": recipe.kept,
        "prompt": recipe.prompt,
        "expanded_prompt": recipe.expanded_prompt,
        "took_s": round(took, 3),
    }
    say.result(path, line)
    if recipe.stopped is not None:
        say.note("stopped", f"after step {recipe.stopped} of {recipe.steps}; the clip so far is in {path}")
    else:
        several = recipe.candidates > 1 and recipe.task is None
        chosen = f", candidate {recipe.kept + 1} of {recipe.candidates}" if several else ""
        was_there = ", in place of the file that was there" if replaces else ""
        say.note("saved", f"{path} in {took:.1f} s (seed {recipe.seed}{chosen}, recipe inside{was_there})")


def announce(model: Model, recipe: Recipe, say: Say, cost: Plan) -> None:
    """What was decided for a clip, and what it will cost."""
    if not say.for_people:
        return
    frames, height, width = grid_of(model, drafted(recipe)).pixels
    frames -= recipe.lead
    made = (frames, height, width) != (recipe.frames, recipe.height, recipe.width)
    if recipe.task is not None:
        say.note("from", " and ".join(filter(None, (recipe.task.clip, recipe.task.second))) + SOURCES)
    say.note("prompt", recipe.expanded_prompt or "(none)")
    if recipe.negative:
        say.note("avoid", recipe.negative)
    say.note(
        "plan",
        f"{recipe.size}, {recipe.frames} frames at {recipe.fps:g} fps ({recipe.seconds:.1f} s)"
        + (f", made as {width}x{height} with {frames} frames" if made else "")
        + (" and enlarged" if recipe.draft else " and cropped" if made else "")
        + (f", after {recipe.lead} frames for its reference" if recipe.lead else "")
        + f"; {recipe.steps} steps of {recipe.sampler}, {recipe.manner}, seed {recipe.seed}"
        + (f", the {_best(recipe)} {recipe.candidates} candidates" if recipe.candidates > 1 else "")
        + f"; {expected(cost)}",
    )


def _best(recipe: Recipe) -> str:
    return "best of" if recipe.task is None else "smoothest of at most"


def expected(cost: Plan) -> str:
    """Time, memory and disk that a clip is likely to take, in words."""
    return (
        f"about {duration(seconds(cost))}, {readable(cost.memory)} of memory, {readable(cost.disk)} of disk"
    )


def open_model(name: str, say: Say, weights: str = "exact", compiled: bool = False) -> Model:
    """Load a model and say which it is and where it runs."""
    model = load(name, weights=weights, compiled=compiled)
    weight = model.vae.latent_mean
    parameters = sum(
        p.numel() for part in (model.vae, model.dit, model.text.encoder) for p in part.parameters()
    )
    say.note(
        "model",
        f"{model.card.name}, {parameters / 1e6:.1f} M parameters, on {weight.device}, "
        f"{str(weight.dtype).removeprefix('torch.')}, {torch.get_num_threads()} threads"
        + (", the transformer's weights in 8 bits" if model.weights == "int8" else "")
        + (", compiled at its first step (about a minute)" if model.compiled else ""),
    )
    return model


def tell_what_is_not_read(model: Model, prompt: str, say: Say) -> None:
    """Words that the built-in world does not have, and the end of a prompt that is too long."""
    unknown = parse(prompt)[1] if model.card.name in built_in() else ()
    if unknown:
        words = ", ".join(repr(word) for word in unknown)
        say.note(
            "note",
            f"{model.card.name} does not know {words}. Its world is small: {listed(SHAPES)}; "
            f"in {listed(COLOURS)}; before {listed(BACKGROUNDS)}; {listed(SIZES)}; moving {listed(DIRECTIONS)}.",
        )
    if ignored := model.text.ignored(prompt):
        say.note("note", f"The prompt is too long for {model.card.name}; not read: {ignored!r}")
