"""Prompts rewritten by any OpenAI-compatible chat model, with instructions written for the video model at hand.

Nothing is asked unless the user asks for it. The address is $OPENAI_BASE_URL, the chat model $MUTOSCOPE_LLM_MODEL
(else the first that is offered), the key $OPENAI_API_KEY and nowhere else. Needs the extra `llm`.
"""

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import urlsplit

from mutoscope.chat import check_address, connect, jpeg_url, within
from mutoscope.errors import InputError
from mutoscope.generation.stated import lost
from mutoscope.world.captions import parse
from mutoscope.world.stage import COLOURS, SHAPES, SIZES
from mutoscope.world.words import BACKGROUND_WORDS, CAMERA_WORDS, STYLE_WORDS

if TYPE_CHECKING:
    from openai import OpenAI

Kind = Literal["world", "film"]
URL, MODEL = "OPENAI_BASE_URL", "MUTOSCOPE_LLM_MODEL"
LONGEST = 2500  # characters of an answer
SIDE = 768  # pixels of a picture that is shown
REFUSAL = re.compile(r"^\W*(?:i(?:'m| am) sorry|sorry|i can(?:not|'t)|as an ai)", re.IGNORECASE)

WORLD = f"""You rewrite prompts for a small video model that was trained on captions of a paper theatre.
It knows only these words. Shapes: {", ".join(SHAPES)}. Colours: {", ".join(COLOURS)}. Sizes: {", ".join(SIZES)}.
Motion: rolls, slides, drifts, moves (to the left, to the right); rises, sinks, falls, bounces; stands still.
Relations: left of, right of, above, below, behind, in front of; "bumps into".
Places: {"; ".join(words[0] for words in BACKGROUND_WORDS.values())}.
Camera: {"; ".join(words[0] for words in CAMERA_WORDS.values())}.
Style: {"; ".join(words[0] for words in STYLE_WORDS.values())}.
Write one sentence of at most 30 words, as in: "A red ball rolls to the right, and a blue box stands still at night."
Keep every fact of the prompt, in these words. Add a colour, a motion and a place where none is given, and no more
objects. Answer with the sentence alone."""

FILM = """You rewrite prompts for Wan, a text-to-video model that was trained on long, cinematic captions.
Keep the intent and every fact of the prompt: who, how many, colours, actions, places, written words in quotes.
Add what the prompt leaves open: the look of the subject, where things stand, light and colour, the setting, the style
(a realistic film unless the prompt says otherwise), the shot size and the angle. Say the motion in plain verbs, in the
order in which it happens, and how the camera moves. Describe only what can be seen. Answer with one paragraph of 80
to 120 English words and nothing else."""

PICTURED = """
The clip begins with the picture that is attached: describe what it shows, then how it goes on moving as the prompt
says. Do not contradict the picture."""


class Unanswered(InputError):
    """The endpoint is down, slow, or talks nonsense; whoever asked may go on without it."""


@dataclass(frozen=True)
class Chat:
    """Where to ask. model None takes the first that is offered. timeout: seconds for one answer."""

    url: str
    model: str | None = None
    timeout: float = 20.0

    def __post_init__(self) -> None:
        check_address(self.url)


def chat_of_environment() -> Chat:
    """The endpoint that the environment names. Raises InputError when it names none."""
    url = os.environ.get(URL, "")
    if not url:
        raise InputError(
            f"No chat endpoint is named: set ${URL}, for example to http://localhost:8080/v1, or leave out "
            "--expander llm."
        )
    return Chat(url, os.environ.get(MODEL) or None)


def rewrite(chat: Chat, prompt: str, kind: Kind, picture: Path | None = None) -> str:
    """The prompt in the words of the model's training captions; nonsense is asked once more.

    kind: "world" for the built-in model, whose answers are checked to keep every stated fact; "film" for Wan.
    Raises Unanswered when no usable answer comes, InputError when the openai package or the picture is missing.
    """
    client = connect(chat.url, chat.timeout, 0, "--expander llm needs")
    import openai

    told = (WORLD if kind == "world" else FILM) + (PICTURED if picture else "")
    content: list[Any] = [{"type": "text", "text": prompt}]
    if picture:
        content.append({"type": "image_url", "image_url": {"url": shown(picture)}})
    messages: list[Any] = [
        {"role": "system", "content": told},
        {"role": "user", "content": content if picture else prompt},
    ]
    fault = ""
    try:
        model = chat.model or within(2 * chat.timeout, lambda: _first_model(client))
        for _ in range(2):
            answer = within(
                2 * chat.timeout, lambda: client.chat.completions.create(model=model, messages=messages)
            )
            choices = getattr(answer, "choices", None)
            text = cleaned((choices[0].message.content or "") if choices else "")
            fault = fault_of(text, prompt, kind)
            if not fault:
                return text
    except (openai.OpenAIError, TimeoutError, ValueError, AttributeError, IndexError, TypeError) as error:
        fault = " ".join(str(error).split())[:160].rstrip(".") or type(error).__name__
    raise Unanswered(f"{urlsplit(chat.url).netloc} gave no usable answer ({fault}).")


def _first_model(client: "OpenAI") -> str:
    offered = [model.id for model in client.models.list().data]
    if not offered:
        raise ValueError(f"it offers no model; name one with ${MODEL}")
    return offered[0]


def shown(picture: Path) -> str:
    """A picture as the data URL of a JPEG, at most SIDE pixels long. Raises InputError when it cannot be read."""
    from PIL import Image

    try:
        with Image.open(picture) as opened:
            image = opened.convert("RGB")
    except (OSError, ValueError) as error:
        raise InputError(f"{picture} cannot be read as a picture; give a PNG or JPEG file.") from error
    return jpeg_url(image, SIDE)


def cleaned(answer: str) -> str:
    """The text without thoughts, fences, quotes around it and line breaks."""
    answer = re.sub(r"<think>.*?</think>", "", answer, flags=re.DOTALL)
    answer = re.sub(r"^```\w*|```$", "", answer.strip()).strip()
    if len(answer) > 1 and answer[0] in "\"'“" and answer[-1] in "\"'”":
        answer = answer[1:-1]
    return " ".join(answer.split())


def fault_of(text: str, prompt: str, kind: Kind) -> str:
    """Why an answer cannot be used; "" when it can."""
    if len(re.findall(r"[^\W\d_]{2,}", text)) < 3:
        return f"it said {text[:60]!r}"
    if len(text) > LONGEST:
        return f"it wrote {len(text)} characters"
    if text[0] in "<{[":
        return f"it is no sentence: {text[:60]!r}"
    if REFUSAL.match(text):
        return f"it refused: {text[:60]!r}"
    if kind == "world":
        said, unknown = parse(text)
        if gone := lost(parse(prompt)[0], said):
            return f"it lost the {gone[0].kind} {gone[0].value!r}"
        if unknown:
            return f"it used {unknown[0]!r}, which the model does not know"
    return ""
