"""The options that several commands share, with their words."""

from pathlib import Path
from typing import Annotated

import typer

Clip = Annotated[Path, typer.Argument(metavar="FILE", help="A video that Mutoscope made.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object per clip, on one line.")]
ModelName = Annotated[
    str,
    typer.Option("-m", "--model", metavar="MODEL", help="A name of `mutoscope models list`, or a folder."),
]
Weights = Annotated[
    str,
    typer.Option(
        "--weights",
        metavar="exact|int8",
        help="Of Wan's transformers: as they are, or in 8 bits, which takes about half the memory.",
    ),
]
Compile = Annotated[
    bool,
    typer.Option(
        "--compile", help="Compile the transformer at its first step: pays for large or many clips."
    ),
]
Output = Annotated[
    Path | None,
    typer.Option("-o", "--output", metavar="FILE", help="As x.mp4 .mov .webm .gif .png, or a folder."),
]
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
Size = Annotated[
    str | None,
    typer.Option("--size", metavar="WxH", help="Pixels, as 64x64; else those of the clip, or the model."),
]
Source = Annotated[Path, typer.Argument(metavar="CLIP", help="A video of any kind.")]
Second = Annotated[Path, typer.Argument(metavar="CLIP2", help="The video that follows; fitted to the first.")]
Words = Annotated[str, typer.Argument(metavar="PROMPT", help="What is to be seen, in quotes.")]
Prompt = Annotated[str, typer.Argument(metavar="PROMPT", help="What is to be seen, in quotes.")]
Seconds = Annotated[float | None, typer.Option("--seconds", metavar="N", help="Length of what is made anew.")]
Fps = Annotated[
    float | None,
    typer.Option("--fps", metavar="N", help="Frames per second; else those of the clip, or the model."),
]
Steps = Annotated[
    int | None,
    typer.Option("--steps", metavar="N", help="Steps of the sampler: fewer are faster, more are finer."),
]
Follow = Annotated[
    float | None, typer.Option("--guidance", metavar="N", help="How strictly to follow the prompt; 1 = off.")
]
Sampler = Annotated[
    str | None,
    typer.Option(
        "--sampler", metavar="NAME", help="euler, heun, ddim, dpmpp_1, dpmpp_2m, dpmpp_3m or unipc."
    ),
]
Seed = Annotated[
    int | None, typer.Option("--seed", metavar="N", help="Same seed, same clip; drawn when left out.")
]
Expander = Annotated[
    str,
    typer.Option("--expander", metavar="offline|llm", help="Who expands: rules here, or $OPENAI_BASE_URL."),
]
Loras = Annotated[
    list[str] | None,
    typer.Option("--lora", metavar="FILE[:STRENGTH]", help="A LoRA for the model; may be given again."),
]
Unmatched = Annotated[
    bool, typer.Option("--allow-unmatched", help="Leave out what of a LoRA has no place in the model.")
]
Draft = Annotated[
    str | None, typer.Option("--draft", metavar="WxH", help="Draw at this size, then enlarge to --size.")
]
