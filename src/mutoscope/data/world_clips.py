"""A folder of clips from the built-in world, each with its captions and its truth beside it."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path

from mutoscope.config import write_json
from mutoscope.errors import InputError
from mutoscope.video import Video, to_frames, write_video
from mutoscope.world.captions import Kind, caption, truth
from mutoscope.world.render import render
from mutoscope.world.scene import PLAIN, SceneMix, View, sample_scene

KINDS: tuple[Kind, ...] = ("detailed", "medium", "short", "alt")
PIXELS_AT_ONCE = 2**25


def write_clips(
    folder: Path,
    seeds: Sequence[int],
    view: View,
    report: Callable[[int], None] = lambda done: None,
    mix: SceneMix = PLAIN,
) -> None:
    """Write NAME.mp4 and NAME.json ({"captions": {kind: text}, "truth", "seed"}) for every seed, scenes drawn from mix.

    The layout is the one that `data encode` reads. `report` hears how many clips are done. Raises InputError
    when the folder cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        reason = error.strerror or str(error)
        raise InputError(f"Cannot make the folder {folder}: {reason}; choose another with -o.") from error
    # Motions are staged for as long as the clip lasts, so that longer clips stay as lively.
    mix = replace(mix, seconds=max(mix.seconds, (view.frames - 1) / view.fps))
    batch = max(1, PIXELS_AT_ONCE // (view.width * view.height * view.frames))
    for start in range(0, len(seeds), batch):
        part = seeds[start : start + batch]
        scenes = [sample_scene(seed, mix) for seed in part]
        for seed, scene, video_CTHW in zip(part, scenes, render(scenes, view), strict=True):
            path = folder / f"world-{seed:06d}.mp4"
            write_video(path, Video(to_frames(video_CTHW), view.fps))
            captions = {kind: caption(scene, view, kind, seed) for kind in KINDS}
            beside = {"captions": captions, "truth": asdict(truth(scene, view)), "seed": seed}
            write_json(path.with_suffix(".json"), beside)
        report(start + len(part))
