"""The verbs of training and of its data."""

import time
from pathlib import Path
from typing import Annotated

import typer

from mutoscope.commands.options import Config, Resume, Set


def train_vae(config: Config, set_: Set = None, resume: Resume = None) -> None:
    """Train a video VAE."""
    from mutoscope.config import load_config
    from mutoscope.training.train_vae import TrainVAEConfig
    from mutoscope.training.train_vae import train_vae as run

    print(run(load_config(TrainVAEConfig, config, set_ or ()), resume))


def train_dit(config: Config, set_: Set = None, resume: Resume = None) -> None:
    """Train a diffusion transformer and its text encoder."""
    from mutoscope.config import load_config
    from mutoscope.training.train_dit import TrainDiTConfig
    from mutoscope.training.train_dit import train_dit as run

    print(run(load_config(TrainDiTConfig, config, set_ or ()), resume))


def train_judge(config: Config, set_: Set = None, resume: Resume = None) -> None:
    """Train the second judge of `evaluate`, which reads facts from pixels without the oracle's rules."""
    from mutoscope.config import load_config
    from mutoscope.training.train_judge import TrainJudgeConfig
    from mutoscope.training.train_judge import train_judge as run

    print(run(load_config(TrainJudgeConfig, config, set_ or ()), resume))


def train_expander(config: Config, set_: Set = None, resume: Resume = None) -> None:
    """Train the small model that expands prompts to captions of the world."""
    from mutoscope.config import load_config
    from mutoscope.training.train_expander import TrainExpanderConfig
    from mutoscope.training.train_expander import train_expander as run

    print(run(load_config(TrainExpanderConfig, config, set_ or ()), resume))


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
