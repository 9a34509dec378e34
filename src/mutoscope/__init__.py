"""Mutoscope: an open, self-hosted text-to-video system.

    import mutoscope
    model = mutoscope.load("tiny")
    mutoscope.generate(model, mutoscope.Request("a red ball rolls to the right")).save("ball.mp4")

The names below are imported when they are first used, so that `import mutoscope` does not import torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mutoscope.errors import InputError as InputError
    from mutoscope.generation.continuations import blend as blend
    from mutoscope.generation.continuations import edit as edit
    from mutoscope.generation.continuations import extend as extend
    from mutoscope.generation.continuations import interpolate as interpolate
    from mutoscope.generation.continuations import loop as loop
    from mutoscope.generation.continuations import recut as recut
    from mutoscope.generation.generate import generate as generate
    from mutoscope.generation.generate import generate_many as generate_many
    from mutoscope.generation.request import Request as Request
    from mutoscope.video import Video as Video
    from mutoscope.video import read_video as read_video
    from mutoscope.video import write_video as write_video
    from mutoscope.weights.store import Model as Model
    from mutoscope.weights.store import load as load

__version__ = "0.1.0"

_HOMES = {
    "InputError": "mutoscope.errors",
    "Model": "mutoscope.weights.store",
    "Request": "mutoscope.generation.request",
    "Video": "mutoscope.video",
    "blend": "mutoscope.generation.continuations",
    "edit": "mutoscope.generation.continuations",
    "extend": "mutoscope.generation.continuations",
    "generate": "mutoscope.generation.generate",
    "generate_many": "mutoscope.generation.generate",
    "interpolate": "mutoscope.generation.continuations",
    "load": "mutoscope.weights.store",
    "loop": "mutoscope.generation.continuations",
    "read_video": "mutoscope.video",
    "recut": "mutoscope.generation.continuations",
    "write_video": "mutoscope.video",
}

__all__ = [
    "InputError",
    "Model",
    "Request",
    "Video",
    "__version__",
    "blend",
    "edit",
    "extend",
    "generate",
    "generate_many",
    "interpolate",
    "load",
    "loop",
    "read_video",
    "recut",
    "write_video",
]


def __getattr__(name: str) -> object:
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'mutoscope' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
