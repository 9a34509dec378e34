"""The wire: what clients of the OpenAI video API send and receive, as objects. OpenAI's words live here only.

Requests are checked strictly when they come as JSON; a form knows only strings, there "7" is also a number.
What clients add through `extra_body` (seed, steps, ...) is declared here as well; unknown names are refused.
"""

import re
import unicodedata
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    model_validator,
)

from mutoscope.generation.request import STRENGTHS
from mutoscope.serving.jobs import Character, Job
from mutoscope.serving.orders import Order
from mutoscope.weights.card import ModelCard

ALIASES = ("sora-2", "sora-2-pro", "sora-2-2025-10-06", "sora-2-2025-12-08", "sora-2-pro-2025-10-06")
"""Model names of the old API; the server's own model answers to them and `served_by` says so."""

PROMPT_CHARACTERS = 20_000
CARDS = 60
"""Cards that a storyboard may have."""

LONGEST = 120.0
"""Seconds that a video may last."""

_CONTROL = r"\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f"
PLAIN = f"^[^{_CONTROL}]*$"
SAID = rf"^[^{_CONTROL}]*[^\s{_CONTROL}][^{_CONTROL}]*$"
SECONDS = r"(?:[1-9][0-9]?|1[01][0-9])(?:\.[0-9]{1,6})?|120(?:\.0{1,6})?|0\.[0-9]{0,5}[1-9]"
LEVEL = r"0(?:\.[0-9]{1,6})?|1(?:\.0{1,6})?"
SIDE = r"(?:1[6-9]|[2-9][0-9]|[1-9][0-9]{2}|[1-3][0-9]{3}|40[0-8][0-9]|409[0-6])"
DATA_URL = (
    "^data:image/(?:png|jpeg|webp);base64,(?:[A-Za-z0-9+/]{4})+(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?$"
)


class ApiError(Exception):
    """An answer other than success: HTTP status and the members of OpenAI's error object."""

    def __init__(
        self,
        status: int,
        code: str,
        message: str,
        param: str | None = None,
        headers: dict[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status, self.code, self.message, self.param = status, code, message, param
        self.headers = {} if status in (429, 500, 503, 507) else {"x-should-retry": "false"}
        self.headers |= headers or {}

    @property
    def type(self) -> str:
        kinds = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}
        return kinds.get(self.status, "server_error" if self.status >= 500 else "invalid_request_error")

    def body(self) -> dict[str, Any]:
        return {"error": {"message": self.message, "type": self.type, "param": self.param, "code": self.code}}


def store_is_busy() -> ApiError:
    return ApiError(503, "busy", "The job store is busy; try again.", headers={"retry-after": "1"})


class ErrorDetail(BaseModel):
    message: str
    type: str
    param: str | None
    code: str | None


class ErrorReply(BaseModel):
    """The one form of every failure."""

    error: ErrorDetail


def _readable(text: str) -> str:
    """Normal form C without control characters; empty text is none."""
    text = unicodedata.normalize("NFC", text).strip()
    if any(unicodedata.category(letter) in ("Cs", "Cc") and letter not in "\n\r\t" for letter in text):
        raise ValueError("must be plain text without control characters")
    return text


def _said(text: str) -> str:
    text = _readable(text)
    if not text:
        raise ValueError("must say what is to be seen")
    return text


def _length(text: str) -> str:
    if re.fullmatch(SECONDS, text) is None:
        raise ValueError(f"{text[:20]} is no length in seconds above 0 and up to {LONGEST:g}")
    return text


def _true_or_false(value: Any) -> Any:
    """A form writes them as words; 0, 1, yes and no are not among them."""
    if isinstance(value, str) and value not in ("true", "false"):
        raise ValueError("must be true or false")
    return value


def _whole(value: Any) -> Any:
    """In JSON 13.0 is a whole number too."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _two_sides(text: str) -> str:
    if re.fullmatch(f"{SIDE}x{SIDE}", text) is None:
        raise ValueError(f"{text[:20]} is not of the form WIDTHxHEIGHT with sides of 16 to 4096 pixels")
    return text


def _rising(text: str) -> str:
    """The lower level first, whichever was."""
    if re.fullmatch(f"(?:{LEVEL})-(?:{LEVEL})", text) is None:
        raise ValueError(f"{text[:20]} is not of the form LOW-HIGH with noise levels of 0 to 1")
    return "-".join(sorted(text.split("-"), key=float))


Prompt = Annotated[
    str,
    Field(min_length=1, max_length=PROMPT_CHARACTERS, json_schema_extra={"pattern": SAID}),
    AfterValidator(_said),
]
Text = Annotated[
    str,
    Field(max_length=PROMPT_CHARACTERS, json_schema_extra={"pattern": PLAIN}),
    AfterValidator(_readable),
]
Seconds = (
    Annotated[str, Field(json_schema_extra={"pattern": f"^(?:{SECONDS})$"}), AfterValidator(_length)]
    | Annotated[float, Field(gt=0, le=LONGEST, allow_inf_nan=False)]
)
Size = Annotated[str, Field(json_schema_extra={"pattern": f"^{SIDE}x{SIDE}$"}), AfterValidator(_two_sides)]
Interval = Annotated[
    str, Field(json_schema_extra={"pattern": f"^(?:{LEVEL})-(?:{LEVEL})$"}), AfterValidator(_rising)
]
Flag = Annotated[bool, BeforeValidator(_true_or_false)]
Name = Annotated[str, Field(min_length=1, max_length=200)]
Id = Annotated[str, Field(min_length=1, max_length=100)]


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid")


def _one_of_both(schema: dict[str, Any]) -> None:
    schema["oneOf"] = [{"required": [name]} for name in schema["properties"]]
    for field in schema["properties"].values():
        del field["default"]


class PictureReference(Strict):
    """A picture as a data URL, or the id of one that was uploaded or made here. Other URLs are not fetched."""

    model_config = ConfigDict(extra="forbid", json_schema_extra=_one_of_both)

    image_url: Annotated[
        str, Field(max_length=32 * 2**20, json_schema_extra={"pattern": DATA_URL, "format": "picture-url"})
    ] = ""
    file_id: Annotated[str, Field(min_length=1, max_length=200)] = ""

    @model_validator(mode="after")
    def _has_one(self) -> Self:
        if len(self.model_fields_set) != 1:
            raise ValueError("must hold either image_url or file_id")
        return self


class VideoReference(Strict):
    """A video of this server."""

    id: Id


class CharacterReference(Strict):
    id: Id


Share = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]


class Knobs(Strict):
    """Our additions to the old API, for `extra_body`. guidance_interval: two noise levels, as "0.2-0.9"."""

    seed: Annotated[int, Field(ge=0, le=2**53 - 1), BeforeValidator(_whole)] | None = None
    negative_prompt: Text = ""
    guidance: Annotated[float, Field(ge=0, le=100, allow_inf_nan=False)] | None = None
    steps: Annotated[int, Field(ge=1, le=1000), BeforeValidator(_whole)] | None = None
    sampler: Literal["euler", "heun", "ddim", "dpmpp_1", "dpmpp_2m", "dpmpp_3m", "unipc"] | None = None
    expand: Flag = False
    guidance_kind: Literal["cfg", "zero-star", "apg"] | None = None
    guidance_interval: Interval | None = None
    guidance_rescale: Share | None = None
    step_cache: Share | None = None
    webhook_url: (
        Annotated[str, Field(max_length=2000, json_schema_extra={"pattern": "^https?://[A-Za-z0-9]"})] | None
    ) = None


class StoryCard(Strict):
    """What is seen from `at` seconds on: words, a picture (a data URL) or a clip (the id of a video here).

    With `cut` a new shot begins, without it what the card before shows turns into this; null leaves it to the spacing.
    """

    at: Annotated[float, Field(ge=0, le=LONGEST, allow_inf_nan=False)]
    prompt: Text = ""
    image: (
        Annotated[
            str,
            Field(max_length=32 * 2**20, json_schema_extra={"pattern": DATA_URL, "format": "picture-url"}),
        ]
        | None
    ) = None
    clip: Id | None = None
    cut: Flag | None = None


class Story(Strict):
    """Cards in time, the first at 0 s, as in the files of `mutoscope storyboard`."""

    cards: Annotated[list[StoryCard], Field(min_length=1, max_length=CARDS)]


Strength = Literal["subtle", "mild", "strong"] | Annotated[float, Field(gt=0, le=1, allow_inf_nan=False)]
"""How far a video is drawn anew from its own frames: their noise level, or a word for it."""


def level(strength: str | float) -> float:
    """The noise level of a strength."""
    return STRENGTHS[strength] if isinstance(strength, str) else strength


class CreateVideo(Knobs):
    """POST /v1/videos. A file may stand for `input_reference` (the first frame) and `last_frame`.

    With `loop` the video ends where it began. With a storyboard it is made from the cards, and the prompt is its name.
    """

    prompt: Prompt
    model: Name = "sora-2"
    seconds: Seconds | None = None
    size: Size | None = None
    fps: Annotated[float, Field(ge=0.1, le=240, allow_inf_nan=False)] | None = None
    input_reference: PictureReference | None = None
    last_frame: PictureReference | None = None
    characters: Annotated[list[CharacterReference], Field(max_length=2)] = []
    loop: Flag = False
    storyboard: Story | None = None

    @property
    def sides(self) -> tuple[int, int] | None:
        """Width and height in pixels."""
        if self.size is None:
            return None
        width, height = self.size.split("x")
        return int(width), int(height)


class RemixVideo(Knobs):
    """POST /v1/videos/{id}/remix: the same clip with another prompt; the seed stays unless it is given.

    Without a strength the clip is drawn from the same noise, with one from its own frames.
    """

    prompt: Prompt
    strength: Strength | None = None


class ExtendVideo(Knobs):
    """POST /v1/videos/extensions: `seconds` more of a video of this server, or of an uploaded file.

    They follow its end, come before its start (`backward`), or lead from the end to the start (`loop`).
    """

    prompt: Prompt
    seconds: Seconds
    video: VideoReference | None = None
    model: Name = "sora-2"
    loop: Flag = False
    backward: Flag = False


class EditVideo(Knobs):
    """POST /v1/videos/edits: a video of this server, or an uploaded file, changed as the prompt says."""

    prompt: Prompt
    video: VideoReference | None = None
    model: Name = "sora-2"
    strength: Strength = "mild"


class CreateCharacter(Strict):
    """POST /v1/videos/characters: a name for who is seen in an uploaded file or a video of this server."""

    name: Annotated[
        str, Field(min_length=1, max_length=80, json_schema_extra={"pattern": SAID}), AfterValidator(_said)
    ]
    video: VideoReference | None = None


class CreateFile(Strict):
    """POST /v1/files: a file of requests, one JSON object a line, for a batch; or a picture for new videos."""

    purpose: Literal["batch", "vision", "user_data"]


class CreateBatch(Strict):
    """POST /v1/batches: make all videos that the lines of a file ask for."""

    input_file_id: Id
    endpoint: Literal["/v1/videos", "/v1/videos/edits", "/v1/videos/extensions"]
    completion_window: Literal["24h"]
    metadata: (
        Annotated[
            dict[Annotated[str, Field(max_length=64)], Annotated[str, Field(max_length=512)]],
            Field(max_length=16),
        ]
        | None
    ) = None


def check_model(card: ModelCard, name: str) -> None:
    """Raises ApiError (404) for a name that the server's model does not answer to."""
    if name not in (card.name, *ALIASES):
        raise ApiError(
            404,
            "model_not_found",
            f"There is no model {name!r} here; use {card.name!r}, which also answers to 'sora-2'.",
            "model",
        )


class JobError(BaseModel):
    code: str
    message: str


class CardReply(BaseModel):
    """A card of a storyboard; `shows` tells whether it came with a picture or a clip."""

    at: float
    prompt: str
    expanded_prompt: str | None
    cut: bool | None
    shows: Literal["image", "clip"] | None


class StoryReply(BaseModel):
    cards: list[CardReply]


class VideoReply(BaseModel):
    """A job as OpenAI's `Video`, with our additions below `error`."""

    id: str
    object: Literal["video"] = "video"
    model: str
    status: Literal["queued", "in_progress", "completed", "failed"]
    progress: int
    prompt: str
    created_at: int
    completed_at: int | None
    expires_at: int | None
    seconds: str
    size: str
    remixed_from_video_id: str | None
    error: JobError | None
    served_by: str
    task: Literal["create", "remix", "extend", "edit"]
    extended_from_video_id: str | None
    edited_from_video_id: str | None
    drawn_size: str
    frames: int
    fps: float
    seed: int
    steps: int
    guidance: float
    sampler: str
    negative_prompt: str
    strength: float | None
    loop: bool
    backward: bool
    expanded_prompt: str | None
    storyboard: StoryReply | None
    note: str | None


class PageReply(BaseModel):
    object: Literal["list"] = "list"
    data: list[VideoReply]
    first_id: str | None
    last_id: str | None
    has_more: bool


class DeletedReply(BaseModel):
    id: str
    object: Literal["video.deleted"] = "video.deleted"
    deleted: Literal[True] = True


class CharacterReply(BaseModel):
    id: str
    object: Literal["character"] = "character"
    created_at: int
    name: str


class FileReply(BaseModel):
    id: str
    object: Literal["file"] = "file"
    bytes: int
    created_at: int
    filename: str
    purpose: Literal["batch", "batch_output", "vision", "user_data"]
    status: Literal["processed"] = "processed"


class FilesReply(BaseModel):
    object: Literal["list"] = "list"
    data: list[FileReply]
    first_id: str | None
    last_id: str | None
    has_more: bool


class DeletedFileReply(BaseModel):
    id: str
    object: Literal["file"] = "file"
    deleted: Literal[True] = True


class BatchFault(BaseModel):
    """Why a file cannot be a batch, and in which line (None: as a whole)."""

    code: str
    line: int | None
    message: str
    param: str | None = None


class BatchFaults(BaseModel):
    object: Literal["list"] = "list"
    data: list[BatchFault]


class BatchCounts(BaseModel):
    total: int
    completed: int
    failed: int


class BatchReply(BaseModel):
    id: str
    object: Literal["batch"] = "batch"
    endpoint: str
    input_file_id: str
    completion_window: Literal["24h"] = "24h"
    status: Literal["in_progress", "completed", "failed", "cancelling", "cancelled", "expired"]
    errors: BatchFaults | None
    output_file_id: str | None
    error_file_id: str | None
    created_at: int
    in_progress_at: int | None
    expires_at: int
    completed_at: int | None
    failed_at: int | None
    cancelling_at: int | None
    cancelled_at: int | None
    expired_at: int | None
    request_counts: BatchCounts
    metadata: dict[str, str] | None


class BatchesReply(BaseModel):
    object: Literal["list"] = "list"
    data: list[BatchReply]
    first_id: str | None
    last_id: str | None
    has_more: bool


class ModelReply(BaseModel):
    """A model as OpenAI's `Model`, with what it makes of a bare prompt."""

    id: str
    object: Literal["model"] = "model"
    created: int = 0
    owned_by: Literal["mutoscope"] = "mutoscope"
    aliases: list[str]
    size: str
    seconds: str
    fps: float
    steps: int
    guidance: float
    sampler: str


class ModelsReply(BaseModel):
    object: Literal["list"] = "list"
    data: list[ModelReply]


class HealthReply(BaseModel):
    status: Literal["ok", "starting", "degraded", "draining"]
    workers: int
    heartbeat_s: float | None
    queued: int
    in_progress: int


def video_reply(job: Job) -> VideoReply:
    order = job.order
    return VideoReply(
        id=job.id,
        model=order.model,
        status=job.status,
        progress=job.progress,
        prompt=order.prompt,
        created_at=job.created_at,
        completed_at=job.completed_at if job.status == "completed" else None,
        expires_at=job.expires_at,
        seconds=spoken(order.seconds),
        size=order.size,
        remixed_from_video_id=order.source if order.task == "remix" else None,
        error=None if job.error is None else JobError(**job.error),
        served_by=order.served_by,
        task=order.task,
        extended_from_video_id=(order.source or None) if order.task == "extend" else None,
        edited_from_video_id=(order.source or None) if order.task == "edit" else None,
        drawn_size=order.drawn_size,
        frames=order.all_frames,
        fps=order.fps,
        seed=order.seed,
        steps=order.steps,
        guidance=order.guidance,
        sampler=order.sampler,
        negative_prompt=order.negative,
        strength=order.strength,
        loop=order.loop,
        backward=order.backward,
        expanded_prompt=order.expanded or None,
        storyboard=StoryReply(cards=[_card_reply(card) for card in order.cards]) if order.cards else None,
        note=_note(order),
    )


def _card_reply(card: dict[str, Any]) -> CardReply:
    return CardReply(
        at=card["at"],
        prompt=card["prompt"],
        expanded_prompt=card["expanded"] or None,
        cut=card["cut"],
        shows="image" if card["image"] else "clip" if card["clip"] else None,
    )


def _note(order: Order) -> str | None:
    """What the caller would not expect: who draws in place of an old name, and at which size."""
    sentences = []
    if order.model != order.served_by:
        sentences.append(
            f"{order.model} is no longer served anywhere; {order.served_by} drew this in its place."
        )
    if order.size != order.drawn_size:
        sentences.append(f"Drawn at {order.drawn_size} and scaled up to {order.size}.")
    return " ".join(sentences) or None


def character_reply(character: Character) -> CharacterReply:
    return CharacterReply(id=character.id, created_at=character.created_at, name=character.name)


def spoken(seconds: float) -> str:
    """Seconds as the API writes them: a string, "4", "2.125"."""
    return f"{seconds:.3f}".rstrip("0").rstrip(".")


def complaint(error: ValidationError) -> ApiError:
    """The first mistake of a request, naming its parameter."""
    first = error.errors(include_url=False, include_context=False)[0]
    param = ".".join(str(part) for part in first["loc"] if part not in ("str", "float")) or None
    match first["type"]:
        case "missing":
            return ApiError(
                400, "missing_required_parameter", f"The parameter {param!r} is missing; give it.", param
            )
        case "extra_forbidden":
            return ApiError(
                400, "unknown_parameter", f"There is no parameter {param!r} here; leave it out.", param
            )
    if first["type"] in ("model_type", "dict_type", "model_attributes_type"):
        return ApiError(400, "invalid_value", f"The parameter {param!r} is no object; write {{...}}.", param)
    reason = first["msg"].removeprefix("Value error, ").removesuffix(".")
    subject = f"The parameter {param!r}" if param else "The request"
    return ApiError(400, "invalid_value", f"{subject} is not valid: {reason[0].lower()}{reason[1:]}.", param)
