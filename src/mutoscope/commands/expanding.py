"""The verb that shows how a prompt is expanded, and the expansion that `generate` uses."""

import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mutoscope.commands.options import Expander, ModelName, Words
from mutoscope.errors import InputError

if TYPE_CHECKING:
    from mutoscope.generation.request import Request
    from mutoscope.terminal import Say

EXPANDERS = ("offline", "llm")


def expand(
    prompt: Words,
    seed: Annotated[
        int, typer.Option("--seed", metavar="N", help="What the prompt leaves open is filled by this.")
    ] = 0,
    detailed: Annotated[bool, typer.Option("--detailed", help="Say all there is to say.")] = False,
    model: ModelName = "tiny",
    image: Annotated[
        Path | None, typer.Option(metavar="FILE", help="A picture to begin with, described too (llm).")
    ] = None,
    expander: Expander = "offline",
    no_fallback: Annotated[
        bool, typer.Option("--no-fallback", help="Fail when the endpoint does not answer.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
    quiet: Annotated[bool, typer.Option("-q", "--quiet", help="Print nothing but the text.")] = False,
) -> None:
    """Show the text that a model is given for a prompt."""
    from mutoscope.generation.expand import expand as expand_offline
    from mutoscope.generation.request import Request
    from mutoscope.terminal import Say
    from mutoscope.weights.library import located

    Request(prompt=prompt, seed=seed)  # for its checks
    if not prompt.strip():
        raise InputError('The prompt is empty; say what is to be seen, for example "a red ball rolls".')
    if not located(model).exists():
        raise InputError(
            f"{model} is neither a built-in model nor a folder; `mutoscope models list` shows all."
        )
    say = Say(as_json, quiet)
    offline = expand_offline(prompt.strip(), seed, "detailed" if detailed else "medium")
    world = knows_the_world(model)
    text, by = (offline.text if world else offline.prompt), "offline"
    if check_expander(expander) == "llm":
        answer = ask(offline.prompt, world, image, say, may_fall_back=not no_fallback)
        text, by = (answer, "llm") if answer is not None else (text, by)
    if as_json:
        facts = {
            name: [" ".join(map(str, (fact.kind, fact.subject, fact.value))) for fact in facts]
            for name, facts in (
                ("stated", offline.stated),
                ("added", offline.added if by == "offline" else ()),
            )
        }
        line = {"prompt": prompt, "expanded_prompt": text, "by": by, "seed": seed, **facts}
        print(json.dumps({**line, "unknown": offline.unknown, "notes": offline.notes}, ensure_ascii=False))
    elif quiet:
        print(text)
    else:
        say.note("asked", prompt)
        say.note("expanded", text)
        for sentence in offline.notes if world else ():
            say.note("note", sentence)


def expanded(request: "Request", model: str, expander: str, say: "Say") -> "Request":
    """The request with the text that the model is given, told when it is not the prompt.

    A built-in model gets a caption of its world; not beside a picture, which the words might contradict. Other models
    get the prompt itself, unless a chat model is to rewrite it.
    """
    from mutoscope.generation.expand import expand as expand_offline

    world = knows_the_world(model)
    text: str | None = None
    if not request.prompt:
        return request
    if expander == "llm":
        text = ask(request.prompt, world, request.image, say, may_fall_back=True)
    if text is None and world and request.image is None and request.last_image is None:
        text = expand_offline(request.prompt, request.seed or 0, picture=request.frames == 1).text
    if text is None or text == request.prompt:
        return request
    say.note("asked", request.prompt)
    return replace(request, expanded=text)


def ask(prompt: str, world: bool, image: Path | None, say: "Say", may_fall_back: bool) -> str | None:
    """What the chat model makes of a prompt; None, and a sentence, when it makes nothing and that is allowed."""
    from mutoscope.generation.rewrite import Unanswered, chat_of_environment, rewrite

    chat = chat_of_environment()
    try:
        return rewrite(chat, prompt, "world" if world else "film", image)
    except Unanswered as error:
        if not may_fall_back:
            raise
        say.note("note", f"{error} The {'offline expander' if world else 'prompt itself'} is used instead.")
        return None


def knows_the_world(model: str) -> bool:
    """Whether a model was trained on the captions of the world alone: the built-in ones were."""
    from importlib.resources import files

    return "/" not in model and (files("mutoscope.weights") / model / "model.json").is_file()


def check_expander(name: str) -> str:
    """The name. Raises InputError when there is no such expander."""
    if name not in EXPANDERS:
        raise InputError(f"There is no expander {name!r}; choose {' or '.join(EXPANDERS)}.")
    return name
