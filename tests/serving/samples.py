"""Hooks of schemathesis: what no schema can describe, pictures and clips that can be decoded, and cards in order.

Valid requests get real files in the place of random bytes, and a storyboard that goes with the rest of them; requests
meant to be invalid stay as they are.
"""

import base64
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import schemathesis
from hypothesis import strategies as st
from schemathesis.transport.serialization import Binary

from mutoscope.video import Video, write_video


def sample(name: str, frames: int) -> bytes:
    frames_THWC = np.random.default_rng(0).integers(0, 255, (frames, 32, 48, 3), np.uint8)
    with tempfile.TemporaryDirectory() as folder:
        return write_video(Path(folder) / name, Video(frames_THWC, 8.0)).read_bytes()


PICTURE, CLIP = sample("picture.png", 1), sample("clip.mp4", 6)
LINE = b'{"custom_id": "a", "method": "POST", "url": "/v1/videos", "body": {"prompt": "x"}}'
FILES = {"input_reference": PICTURE, "last_frame": PICTURE, "video": CLIP, "file": LINE}

schemathesis.openapi.format(
    "picture-url", st.just(f"data:image/png;base64,{base64.b64encode(PICTURE).decode()}")
)


@schemathesis.hook
def before_call(context: Any, case: Any, kwargs: dict[str, Any]) -> None:
    if not isinstance(case.body, dict) or case.meta is None or not case.meta.generation.mode.is_positive:
        return
    for name, data in FILES.items():
        if case.media_type == "multipart/form-data" and name in case.body:
            case.body[name] = Binary(data)
    if case.body.get("storyboard"):
        cards = case.body["storyboard"]["cards"][:2]
        case.body["storyboard"] = {
            "cards": [{"at": at, "prompt": card.get("prompt") or "x"} for at, card in zip((0, 0.5), cards)]
        }
        case.body |= {"loop": False, "seconds": "1", "fps": 8}
        for name in ("input_reference", "last_frame"):
            case.body.pop(name, None)
    case._sync_validated_hashes()  # else any request with a file, which no schema judges, counts as invalid
