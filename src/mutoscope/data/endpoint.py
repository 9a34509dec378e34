"""Captions from any OpenAI-compatible vision model: frames go out as JPEG, three captions come back as JSON.

Nothing here is called unless a user names an endpoint. Needs the extra `llm`; the key is read from the environment
($OPENAI_API_KEY) and nowhere else.
"""

import json
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from mutoscope.chat import KEY, check_address, connect, jpeg_url, within
from mutoscope.data.recaption import Captions
from mutoscope.errors import InputError
from mutoscope.models.captioner import LENGTHS
from mutoscope.video import Video

FAILURES = 5  # clips in a row after which the endpoint is given up
PAUSE = 8.0  # seconds, the longest of the client between two tries
BROKEN = (
    ValueError,
    AttributeError,
    IndexError,
    TypeError,
)  # what the client makes of an answer in no known form
QUESTION = """These {count} pictures are frames of one video clip of {seconds:.1f} seconds, in order of time.
Describe the clip for the training of a text-to-video model: what is seen (colours, shapes, sizes, how many), how it
moves and in which direction, where things are to each other, the background, the style, and how the camera moves.
State only what is visible. Answer with one JSON object and nothing else:
{{"short": "3 to 8 words", "medium": "one sentence", "detailed": "two to six sentences"}}"""


@dataclass(frozen=True)
class Endpoint:
    """Where to ask, and how. url: the part before /chat/completions. model: None takes the first that is offered.

    price: dollars per million tokens read and written, for the bill.
    """

    url: str
    model: str | None = None
    timeout: float = 60.0  # seconds for one answer
    retries: int = 3  # of requests that were refused, cut off or timed out, with growing pauses
    parallel: int = 4
    frames: int = 8  # of a clip that are shown
    side: int = 512  # pixels; larger frames are shrunk
    price: tuple[float, float] = (0.0, 0.0)

    def __post_init__(self) -> None:
        check_address(self.url)
        if self.timeout <= 0 or self.retries < 0 or min(self.parallel, self.frames, self.side) < 1:
            raise InputError(
                "timeout must be above 0, retries 0 or more, parallel, frames and side at least 1."
            )
        if min(self.price) < 0:
            raise InputError(f"price is {self.price}: give dollars per million tokens, 0 or more.")


@dataclass
class Bill:
    """What was asked so far. Tokens are those that the endpoint reports."""

    price: tuple[float, float]
    requests: int = 0
    read: int = 0
    written: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def add(self, usage: Any) -> None:
        with self.lock:
            self.requests += 1
            self.read += getattr(usage, "prompt_tokens", 0) or 0
            self.written += getattr(usage, "completion_tokens", 0) or 0

    @property
    def dollars(self) -> float:
        return (self.read * self.price[0] + self.written * self.price[1]) / 1e6

    def __str__(self) -> str:
        cost = f", {self.dollars:.4f} dollars" if any(self.price) else ""
        return f"{self.requests} answers, {self.read} tokens read, {self.written} written{cost}"


class EndpointWriter:
    """Writes captions of clips by asking an endpoint (see `recaption.Writer`).

    A clip that gets no usable answer gives its error. An endpoint that is not there, refuses the key or the model, or
    fails FAILURES clips in a row is given up: the clips not yet asked get that as their error, so that what others of
    the batch got is kept, and the next call raises it.
    """

    def __init__(self, endpoint: Endpoint) -> None:
        self.endpoint, self.bill = endpoint, Bill(endpoint.price)
        self.client = connect(endpoint.url, endpoint.timeout, endpoint.retries, "Endpoints need")
        self.model = endpoint.model or self._first_model()
        self.by = f"{self.model} at {urlsplit(endpoint.url).netloc}"
        self._failed = 0
        self._over: InputError | None = None
        self._lock = threading.Lock()

    def __call__(self, videos: Sequence[Video]) -> list[Captions | InputError]:
        if self._over:
            raise self._over
        with ThreadPoolExecutor(self.endpoint.parallel) as pool:
            return list(pool.map(self._captions_or_error, videos))

    def _captions_or_error(self, video: Video) -> Captions | InputError:
        if self._over:
            return self._over
        try:
            answer = self._captions(video)
        except InputError as error:
            self._over = error
            return error
        with self._lock:
            self._failed = self._failed + 1 if isinstance(answer, InputError) else 0
            if isinstance(answer, InputError) and self._failed >= FAILURES:
                self._over = InputError(
                    f"{self.endpoint.url} failed {FAILURES} clips in a row, the last one thus: {answer} "
                    "What was written before is kept; the same command goes on from there."
                )
        return answer

    def _first_model(self) -> str:
        import openai

        try:
            offered = [model.id for model in within(self._patience, self.client.models.list).data]
        except (openai.OpenAIError, TimeoutError, *BROKEN) as error:
            raise self._hopeless(error) from error
        if not offered:
            raise InputError(f"{self.endpoint.url} offers no model; name one with --with-model.")
        return offered[0]

    def _captions(self, video: Video) -> Captions | InputError:
        import openai

        urls = pictures_of(video, self.endpoint)
        question = QUESTION.format(count=len(urls), seconds=video.seconds)
        content: list[Any] = [{"type": "text", "text": question}]
        content += [{"type": "image_url", "image_url": {"url": url}} for url in urls]
        heard = ""
        for _ in range(2):  # nonsense is asked once more
            try:
                answer = within(self._patience, lambda: self._asked(content))
                self.bill.add(answer.usage)
                heard = (answer.choices[0].message.content or "") if answer.choices else ""
            except (
                openai.APITimeoutError,
                openai.InternalServerError,
                openai.RateLimitError,
                TimeoutError,
            ) as error:
                return InputError(f"no answer ({_brief(error)}) after {self.endpoint.retries} retries.")
            except openai.OpenAIError as error:
                raise self._hopeless(error) from error
            except BROKEN as error:
                heard = f"({_brief(error)})"
            captions = captions_in(heard)
            if captions is not None:
                return captions
        return InputError(f"the answer holds no captions: {heard[:80]!r}.")

    def _asked(self, content: list[Any]) -> Any:
        return self.client.chat.completions.create(
            model=self.model, messages=[{"role": "user", "content": content}]
        )

    @property
    def _patience(self) -> float:
        """Seconds for one answer with all tries."""
        return (self.endpoint.timeout + PAUSE) * (1 + self.endpoint.retries)

    def _hopeless(self, error: Exception) -> InputError:
        return InputError(
            f"{self.endpoint.url} cannot be used ({_brief(error)}); check the address, the model and ${KEY}; what was "
            "written before is kept."
        )


def pictures_of(video: Video, endpoint: Endpoint) -> list[str]:
    """Frames evenly from the first to the last, as data URLs of JPEG pictures."""
    from PIL import Image

    count = min(endpoint.frames, video.frames)
    moments = [round(i * (video.frames - 1) / max(count - 1, 1)) for i in range(count)]
    return [jpeg_url(Image.fromarray(video.frames_THWC[moment]), endpoint.side) for moment in moments]


def captions_in(answer: str) -> Captions | None:
    """The captions in an answer, which may put words or a fence around the JSON; None when they are not there."""
    begin, end = answer.find("{"), answer.rfind("}")
    try:
        found = json.loads(answer[begin : end + 1]) if begin >= 0 else None
    except ValueError:
        return None
    if not isinstance(found, dict):
        return None
    captions: Captions = {
        kind: " ".join(text.split())
        for kind in LENGTHS
        if isinstance(text := found.get(kind), str) and text.strip()
    }
    return captions if len(captions) == len(LENGTHS) else None


def _brief(error: Exception) -> str:
    return " ".join(str(error).split())[:160].rstrip(".")
