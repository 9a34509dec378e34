"""Hooks of schemathesis: what no schema can describe, a picture and a clip that can be decoded."""

import base64
import tempfile
from pathlib import Path

import numpy as np
import schemathesis
from hypothesis import strategies as st

from mutoscope.video import Video, write_video


def sample(name: str, frames: int) -> bytes:
    frames_THWC = np.random.default_rng(0).integers(0, 255, (frames, 32, 48, 3), np.uint8)
    with tempfile.TemporaryDirectory() as folder:
        return write_video(Path(folder) / name, Video(frames_THWC, 8.0)).read_bytes()


picture = base64.b64encode(sample("picture.png", 1)).decode()
schemathesis.openapi.format("picture-url", st.just(f"data:image/png;base64,{picture}"))
schemathesis.openapi.media_type("video/mp4", st.just(sample("clip.mp4", 6)))
