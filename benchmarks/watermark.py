"""How much of the invisible number survives: world clips of several sizes through real x264, at several qualities.

    python benchmarks/watermark.py [CLIPS]

Prints, for each size, the distance of the marked clip from the unmarked one (worst and mean PSNR), the time that
marking takes, and how many clips are still read after each treatment.
"""

import io
import sys
import time

import av
import numpy as np

from mutoscope.video import to_frames
from mutoscope.watermark import find, marked
from mutoscope.world.render import render
from mutoscope.world.scene import EVERYTHING, View, sample_scene

SIZES = (View(64, 64, 17, 8.0), View(96, 96, 17, 8.0), View(128, 96, 33, 8.0), View(256, 256, 33, 8.0))
TREATMENTS = {
    "none": (None, 1.0),
    "crf 28": (28, 1.0),
    "crf 34": (34, 1.0),
    "half, crf 18": (18, 0.5),
    "half, crf 23": (23, 0.5),
    "half, crf 28": (28, 0.5),
}


def x264(frames_THWC: np.ndarray, crf: int, scale: float) -> np.ndarray:
    """The clip after scaling (bicubic) and H.264 at the usual preset."""
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=8, options={"crf": str(crf)})
        height, width = (round(side * scale) for side in frames_THWC.shape[1:3])
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        for frame_HWC in frames_THWC:
            picture = av.VideoFrame.from_ndarray(frame_HWC, "rgb24").reformat(format="yuv420p")
            container.mux(stream.encode(picture.reformat(width, height, interpolation="BICUBIC")))
        container.mux(stream.encode(None))
    buffer.seek(0)
    with av.open(buffer) as container:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])


def main(clips: int) -> None:
    for view in SIZES:
        kept, distances, took = dict.fromkeys(TREATMENTS, 0), list[float](), 0.0
        for seed in range(clips):
            clip = to_frames(render([sample_scene(seed, EVERYTHING)], view)[0])
            number = int(np.random.default_rng(seed).integers(2**32))
            start = time.perf_counter()
            after = np.concatenate(list(marked([clip], view.fps, number)))
            took += time.perf_counter() - start
            distances.append(10 * np.log10(255**2 / np.square(after.astype(np.float32) - clip).mean()))
            for name, (crf, scale) in TREATMENTS.items():
                found = find(after if crf is None else x264(after, crf, scale), view.fps)
                kept[name] += found is not None and found.number == number
        survived = ", ".join(f"{name} {count}" for name, count in kept.items())
        print(
            f"{view.width}x{view.height}x{view.frames}: {min(distances):.1f} / {np.mean(distances):.1f} dB, "
            f"{1000 * took / clips / view.frames:.2f} ms a frame; of {clips} survive: {survived}",
            flush=True,
        )


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 40)
