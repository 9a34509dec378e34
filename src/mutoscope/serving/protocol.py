"""The wire: what clients of the OpenAI video API send and receive, as objects. OpenAI's words live here only.

Requests are checked strictly when they come as JSON; a form knows only strings, there "7" is also a number.
What clients add through `extra_body` (seed, steps, ...) is declared here as well; unknown names are refused.
"""

import unicodedata
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from mutoscope.serving.jobs import Character, Job

ALIASES = ("sora-2", "sora-2-pro", "sora-2-2025-10-06", "sora-2-2025-12-08", "sora-2-pro-2025-10-06")
"""Model names of the old API; the server's own model answers to them and `served_by` says so."""

PROMPT_CHARACTERS = 20_000
JOB_ID = r"^video_[0-9a-f]{32}$"
CHARACTER_ID = r"^char_[0-9a-f]{32}$"


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


Prompt = Annotated[str, Field(min_length=1, max_length=PROMPT_CHARACTERS), AfterValidator(_said)]
Text = Annotated[str, Field(max_length=PROMPT_CHARACTERS), AfterValidator(_readable)]
Seconds = Annotated[str, Field(max_length=20)] | Annotated[float, Field(gt=0, le=86_400, allow_inf_nan=False)]
Size = Annotated[str, Field(pattern=r"^[1-9][0-9]{0,4}x[1-9][0-9]{0,4}$")]
Name = Annotated[str, Field(min_length=1, max_length=200)]


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid")


class PictureReference(Strict):
    """A picture as a data URL. Other URLs are not fetched, and there is no file API."""

    image_url: Annotated[str, Field(max_length=32 * 2**20)] | None = None
    file_id: Annotated[str, Field(max_length=200)] | None = None

    @model_validator(mode="after")
    def _one_of_both(self) -> Self:
        if (self.image_url is None) == (self.file_id is None):
            raise ValueError("must hold either image_url or file_id")
        return self


class VideoReference(Strict):
    """A video of this server."""

    id: Annotated[str, Field(max_length=100)]


class CharacterReference(Strict):
    id: Annotated[str, Field(max_length=100)]


class Knobs(Strict):
    """Our additions to the old API, for `extra_body`."""

    seed: Annotated[int, Field(ge=0, le=2**63 - 1)] | None = None
    negative_prompt: Text = ""
    guidance: Annotated[float, Field(ge=0, le=100, allow_inf_nan=False)] | None = None
    steps: Annotated[int, Field(ge=1, le=1000)] | None = None
    sampler: Literal["euler", "heun", "ddim", "dpmpp_1", "dpmpp_2m", "dpmpp_3m", "unipc"] | None = None


class CreateVideo(Knobs):
    """POST /v1/videos. A file may stand for `input_reference` (the first frame) and `last_frame`."""

    prompt: Prompt
    model: Name = "sora-2"
    seconds: Seconds | None = None
    size: Size | None = None
    fps: Annotated[float, Field(ge=0.1, le=240, allow_inf_nan=False)] | None = None
    input_reference: PictureReference | None = None
    last_frame: PictureReference | None = None
    characters: Annotated[list[CharacterReference], Field(max_length=2)] = []


class RemixVideo(Knobs):
    """POST /v1/videos/{id}/remix: the same clip with another prompt; the seed stays unless it is given."""

    prompt: Prompt


class ExtendVideo(Knobs):
    """POST /v1/videos/extensions: `seconds` more of a video of this server, or of an uploaded file."""

    prompt: Prompt
    seconds: Seconds
    video: VideoReference | None = None
    model: Name = "sora-2"


class EditVideo(Knobs):
    """POST /v1/videos/edits: a video of this server, or an uploaded file, changed as the prompt says."""

    prompt: Prompt
    video: VideoReference | None = None
    model: Name = "sora-2"


class CreateCharacter(Strict):
    """POST /v1/videos/characters, beside a file `video`."""

    name: Annotated[str, Field(min_length=1, max_length=80), AfterValidator(_said)]


class JobError(BaseModel):
    code: str
    message: str


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
    drawn_size: str
    frames: int
    fps: float
    seed: int
    steps: int
    guidance: float
    sampler: str
    negative_prompt: str
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
        drawn_size=order.drawn_size,
        frames=order.all_frames,
        fps=order.fps,
        seed=order.seed,
        steps=order.steps,
        guidance=order.guidance,
        sampler=order.sampler,
        negative_prompt=order.negative,
        note=None
        if order.size == order.drawn_size
        else f"Drawn by {order.served_by} at {order.drawn_size} and scaled up to {order.size}.",
    )


def character_reply(character: Character) -> CharacterReply:
    return CharacterReply(id=character.id, created_at=character.created_at, name=character.name)


def spoken(seconds: float) -> str:
    """Seconds as the API writes them: a string, "4", "2.125"."""
    return f"{seconds:.3f}".rstrip("0").rstrip(".")


def parse_seconds(value: str | float) -> float:
    """A length from its string or number; raises ApiError for text that is none."""
    try:
        return float(value)
    except ValueError as error:
        raise ApiError(
            400, "invalid_value", f"seconds is {value!r}; give a number of seconds such as 4.", "seconds"
        ) from error


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
    reason = first["msg"].removeprefix("Value error, ").removesuffix(".")
    subject = f"The parameter {param!r}" if param else "The request"
    return ApiError(400, "invalid_value", f"{subject} is not valid: {reason[0].lower()}{reason[1:]}.", param)
