"""New videos: from words and pictures, or from a video (remix, edit, extension)."""

import hashlib
import secrets
from dataclasses import replace
from typing import Any

from fastapi import Request
from fastapi.responses import Response
from pydantic import BaseModel

from mutoscope.serving import orders
from mutoscope.serving.desk import Desk, desk_of, finished_job_of
from mutoscope.serving.inputs import Inputs, picture
from mutoscope.serving.orders import Order
from mutoscope.serving.protocol import (
    ALIASES,
    LONGEST,
    ApiError,
    CreateVideo,
    EditVideo,
    ExtendVideo,
    Knobs,
    RemixVideo,
    VideoReference,
    level,
    spoken,
)
from mutoscope.serving.receive import Received, receive

PIXELS = 300_000_000
"""Pixels of all frames of a clip."""

SHORTEST = 5
"""Frames that a clip needs to be extended: fewer do not show how it moves."""

BRIDGE = 4
"""Frames of a latent frame: what leads back to the start of a clip is made of whole ones."""

NO_CHARACTERS = (
    "This version cannot put a character into a new video yet; describe how it looks in the prompt instead."
)


async def create_video(request: Request) -> Response:
    """Queue a new video."""
    desk, received = desk_of(request), await receive(request)
    received.only_files("input_reference", "last_frame")
    asked = received.parse(CreateVideo)
    _check_model(desk, asked.model)
    defaults = desk.card.defaults
    width, height = asked.sides or (defaults.width, defaults.height)
    fps = asked.fps or defaults.fps
    frames = (
        defaults.frames if asked.seconds is None else orders.whole_frames(float(asked.seconds), fps, LONGEST)
    )
    order = _with_knobs(asked, _order(desk, asked.prompt, asked.model, frames, fps))
    order = replace(_fitting(orders.resized(order, width, height, desk.card)), loop=asked.loop)
    if asked.characters:
        order = replace(order, unsupported=NO_CHARACTERS)
    async with Inputs(desk) as inputs:
        first = await picture(received, asked.input_reference, "input_reference")
        last = await picture(received, asked.last_frame, "last_frame")
        if first is not None:
            await inputs.add_picture(first, "first.png", "input_reference")
        if last is not None:
            await inputs.add_picture(last, "last.png", "last_frame")
        order = replace(
            order, inputs=inputs.token, first_picture=first is not None, last_picture=last is not None
        )
        files = [None if data is None else hashlib.sha256(data).hexdigest() for data in (first, last)]
        return await inputs.submit(request, order, {"create": _as_asked(asked), "files": files})


async def remix_video(request: Request, video_id: str) -> Response:
    """Make a finished video again with another prompt, from the same noise, or from its own frames (strength)."""
    desk, received = desk_of(request), await receive(request)
    received.only_files()
    asked = received.parse(RemixVideo)
    source = await finished_job_of(request, video_id)
    if asked.strength is not None:
        async with Inputs(desk) as inputs:
            inputs.link_video(source)
            order = _redrawn(desk, source.order, level(asked.strength))
            order = replace(
                _with_knobs(asked, order),
                task="remix",
                prompt=asked.prompt,
                inputs=inputs.token,
                source=source.id,
            )
            return await inputs.submit(request, order, {"remix": video_id, "asked": _as_asked(asked)})
    if source.order.source_frames:
        raise ApiError(
            409,
            "cannot_remix_extension",
            "An extended video can only be remixed from its own frames; give a strength such as 'mild'.",
            "strength",
        )
    base = replace(source.order, task="remix", prompt=asked.prompt, source=source.id, unsupported="")
    order = _with_knobs(asked, base)
    if "negative_prompt" not in asked.model_fields_set:
        order = replace(order, negative=base.negative)
    async with Inputs(desk, desk.shelf.copy_inputs(source.order.inputs)) as inputs:
        order = replace(order, inputs=inputs.token)
        return await inputs.submit(request, order, {"remix": video_id, "asked": _as_asked(asked)})


async def extend_video(request: Request) -> Response:
    """Go on from the end of a video (or before its start, or back to it); the result holds both."""
    desk, received = desk_of(request), await receive(request)
    received.only_files("video")
    asked = received.parse(ExtendVideo)
    _check_model(desk, asked.model)
    async with Inputs(desk) as inputs:
        whole, digest = await _source(request, inputs, received, asked)
        if whole.all_frames < SHORTEST:
            raise ApiError(
                409,
                "too_short",
                f"The video has {whole.all_frames} frames; one of at least {SHORTEST} can be extended.",
                "video",
            )
        frames = orders.whole_frames(float(asked.seconds), whole.fps, LONGEST)
        if asked.loop:
            frames = -(-frames // BRIDGE) * BRIDGE
        order = replace(
            whole,
            task="extend",
            prompt=asked.prompt,
            model=asked.model,
            frames=frames,
            seed=secrets.randbelow(1_000_000),
            inputs=inputs.token,
            first_picture=False,
            last_picture=False,
            source=asked.video.id if asked.video else "",
            source_frames=whole.all_frames,
            strength=None,
            loop=asked.loop,
            backward=asked.backward,
        )
        order = _fitting(_with_knobs(asked, order))
        if order.seconds > LONGEST:
            raise ApiError(
                409,
                "too_long",
                f"The whole would last {spoken(order.seconds)} s, more than {LONGEST:g} s.",
                "seconds",
            )
        return await inputs.submit(request, order, {"extend": _as_asked(asked), "file": digest})


async def edit_video(request: Request) -> Response:
    """Draw a video again as the prompt says, from its own frames with noise added (SDEdit)."""
    desk, received = desk_of(request), await receive(request)
    received.only_files("video")
    asked = received.parse(EditVideo)
    _check_model(desk, asked.model)
    async with Inputs(desk) as inputs:
        whole, digest = await _source(request, inputs, received, asked)
        order = replace(
            _with_knobs(asked, _redrawn(desk, whole, level(asked.strength))),
            task="edit",
            prompt=asked.prompt,
            model=asked.model,
            inputs=inputs.token,
            source=asked.video.id if asked.video else "",
        )
        return await inputs.submit(request, order, {"edit": _as_asked(asked), "file": digest})


async def _source(
    request: Request, inputs: Inputs, received: Received, asked: EditVideo | ExtendVideo
) -> tuple[Order, str]:
    """The order of the video that is built on, made or uploaded, and the sha256 of an uploaded file."""
    reference: VideoReference | None = asked.video
    if reference is not None:
        source = await finished_job_of(request, reference.id)
        inputs.link_video(source)
        return source.order, ""
    media, digest = await inputs.add_video(received)
    whole = _order(inputs.desk, asked.prompt, asked.model, media.frames, media.fps)
    return _fitting(orders.resized(whole, media.width, media.height, inputs.desk.card)), digest


def _redrawn(desk: Desk, whole: Order, strength: float) -> Order:
    """A video of the same size and length, drawn from the noised frames of the one in the inputs."""
    return replace(
        whole,
        frames=whole.all_frames,
        source_frames=0,
        served_by=desk.card.name,
        seed=secrets.randbelow(1_000_000),
        first_picture=False,
        last_picture=False,
        unsupported="",
        loop=False,
        backward=False,
        strength=strength,
    )


def _order(desk: Desk, prompt: str, model: str, frames: int, fps: float) -> Order:
    """An order of the model's own size and settings, with a drawn seed."""
    own = desk.card.defaults
    return Order(
        task="create",
        prompt=prompt,
        model=model,
        served_by=desk.card.name,
        width=own.width,
        height=own.height,
        drawn_width=own.width,
        drawn_height=own.height,
        frames=frames,
        fps=fps,
        steps=own.steps,
        guidance=own.guidance,
        sampler=own.sampler,
        seed=secrets.randbelow(1_000_000),
    )


def _with_knobs(asked: Knobs, order: Order) -> Order:
    return replace(
        order,
        seed=order.seed if asked.seed is None else asked.seed,
        steps=asked.steps or order.steps,
        guidance=order.guidance if asked.guidance is None else asked.guidance,
        sampler=asked.sampler or order.sampler,
        negative=asked.negative_prompt,
    )


def _as_asked(asked: BaseModel) -> dict[str, Any]:
    return asked.model_dump(mode="json", exclude_unset=True)


def _check_model(desk: Desk, name: str) -> None:
    if name not in (desk.card.name, *ALIASES):
        raise ApiError(
            404,
            "model_not_found",
            f"There is no model {name!r} here; use {desk.card.name!r}, which also answers to 'sora-2'.",
            "model",
        )


def _fitting(order: Order) -> Order:
    """The order. Raises ApiError (403) when size times length is beyond what this server makes."""
    if order.width * order.height * order.all_frames > PIXELS:
        raise ApiError(
            403,
            "too_large",
            f"{order.size} with {order.all_frames} frames is more than {PIXELS} pixels; ask for less.",
            "size",
        )
    return order
