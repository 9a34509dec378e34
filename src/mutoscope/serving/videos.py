"""New videos: from words and pictures, or from a video (remix, edit, extension)."""

import asyncio
import hashlib
import json
import secrets
from dataclasses import replace
from typing import Any

from fastapi import Request
from fastapi.responses import Response
from pydantic import BaseModel

from mutoscope.config import to_dict
from mutoscope.errors import InputError
from mutoscope.generation.cards import Card, Storyboard, shots_of
from mutoscope.generation.expand import expand
from mutoscope.generation.request import bridge
from mutoscope.serving import orders
from mutoscope.serving.cast import seen_character
from mutoscope.serving.desk import Desk, desk_of, finished_job_of
from mutoscope.serving.inputs import Inputs, picture
from mutoscope.serving.orders import Order
from mutoscope.serving.protocol import (
    LONGEST,
    ApiError,
    CreateVideo,
    EditVideo,
    ExtendVideo,
    Knobs,
    RemixVideo,
    Story,
    VideoReference,
    check_model,
    level,
    spoken,
)
from mutoscope.serving.receive import Received, data_url, receive

PIXELS = 300_000_000
"""Pixels of all frames of a clip."""

SHORTEST = 5
"""Frames that a clip needs to be extended: fewer do not show how it moves."""

BRIDGE = 4
"""Frames of a latent frame: what leads back to the start of a clip is made of whole ones."""

SHORTEST_LOOP = SHORTEST + BRIDGE - 1
"""Frames of a new loop: a clip and what leads back to its start."""

LONGEST_EXPANDED = 1000
"""Characters of a prompt that is expanded; who wrote more has said what is to be seen."""


async def create_video(request: Request) -> Response:
    """Queue a new video."""
    desk, received = desk_of(request), await receive(request)
    received.only_files("input_reference", "last_frame")
    _check_cards(received)
    asked = received.parse(CreateVideo)
    check_model(desk.card, asked.model)
    defaults = desk.card.defaults
    width, height = asked.sides or (defaults.width, defaults.height)
    fps = asked.fps or defaults.fps
    frames = (
        defaults.frames if asked.seconds is None else orders.whole_frames(float(asked.seconds), fps, LONGEST)
    )
    order = await _told(asked, _order(desk, asked.prompt, asked.model, frames, fps))
    order = replace(_fitting(desk.sized(order, width, height)), loop=asked.loop)
    if asked.loop and frames < SHORTEST_LOOP and asked.storyboard is None:
        raise ApiError(
            409,
            "too_short",
            f"A loop of {frames} frames is too short; ask for {SHORTEST_LOOP} or more, {SHORTEST_LOOP / fps:g} s.",
            "seconds",
        )
    if asked.storyboard is not None:
        return await _create_storyboard(request, desk, received, asked, order)
    cast = [
        await seen_character(request, one.id, f"characters.{i}.id") for i, one in enumerate(asked.characters)
    ]
    async with Inputs(desk) as inputs:
        for index, (_, data) in enumerate(cast):
            await inputs.add_picture(data, f"character-{index}.png", f"characters.{index}.id")
        first = await picture(request, received, asked.input_reference, "input_reference")
        last = await picture(request, received, asked.last_frame, "last_frame")
        if first is not None:
            await inputs.add_picture(first, "first.png", "input_reference")
        if last is not None:
            await inputs.add_picture(last, "last.png", "last_frame")
        order = replace(
            order,
            inputs=inputs.token,
            first_picture=first is not None,
            last_picture=last is not None,
            characters=tuple(name for name, _ in cast),
        )
        files = [None if data is None else hashlib.sha256(data).hexdigest() for data in (first, last)]
        return await inputs.submit(
            request, order, {"create": _as_asked(asked), "files": files}, asked.webhook_url
        )


async def _create_storyboard(
    request: Request, desk: Desk, received: Received, asked: CreateVideo, order: Order
) -> Response:
    """Queue a video of cards. Raises ApiError for cards that do not go together, or with what else was asked."""
    story = asked.storyboard
    assert story is not None
    for name, is_there in (
        ("loop", asked.loop),
        ("characters", bool(asked.characters)),
        ("input_reference", asked.input_reference is not None or "input_reference" in received.files),
        ("last_frame", asked.last_frame is not None or "last_frame" in received.files),
    ):
        if is_there:
            raise ApiError(
                400,
                "invalid_value",
                f"The parameter {name!r} does not go with a storyboard; leave it out or put it into a card.",
                name,
            )
    board = await asyncio.to_thread(_board, story, order, asked.expand)
    async with Inputs(desk) as inputs:
        for index, (asked_card, card) in enumerate(zip(story.cards, board.cards, strict=True)):
            at = f"storyboard.cards.{index}"
            if asked_card.image is not None and card.image is not None:
                await inputs.add_picture(data_url(asked_card.image, f"{at}.image"), card.image, f"{at}.image")
            if asked_card.clip is not None and card.clip is not None:
                inputs.link_video(await finished_job_of(request, asked_card.clip), card.clip)
        text = json.dumps(to_dict(board), ensure_ascii=False)
        order = replace(order, inputs=inputs.token, storyboard=text, expanded="")
        return await inputs.submit(
            request, order, {"create": _as_asked(asked), "files": []}, asked.webhook_url
        )


def _board(story: Story, order: Order, is_expanded: bool) -> Storyboard:
    """The cards with the settings of the order, their files named as they are to lie in the inputs."""
    try:
        cards = tuple(
            Card(
                card.at,
                card.prompt,
                None if card.image is None else f"card-{index}.png",
                None if card.clip is None else f"card-{index}.mp4",
                card.cut,
                _expansion(card.prompt, order.seed, False) if is_expanded and card.prompt else "",
            )
            for index, card in enumerate(story.cards)
        )
        board = Storyboard(
            cards,
            order.frames / order.fps,
            order.drawn_width,
            order.drawn_height,
            order.fps,
            order.steps,
            order.guidance,
            order.seed,
            order.negative,
            order.sampler,
        )
        shots_of(board, order.fps)
    except InputError as error:
        raise ApiError(400, "invalid_value", str(error), "storyboard") from error
    return board


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
                await _told(asked, replace(order, prompt=asked.prompt)),
                task="remix",
                inputs=inputs.token,
                source=source.id,
            )
            return await inputs.submit(
                request, order, {"remix": video_id, "asked": _as_asked(asked)}, asked.webhook_url
            )
    if source.order.storyboard:
        raise ApiError(
            409,
            "cannot_remix_storyboard",
            "A storyboard is not remixed as a whole; send it with other cards, or give a strength such as 'mild'.",
            "strength",
        )
    if source.order.source_frames:
        raise ApiError(
            409,
            "cannot_remix_extension",
            "An extended video can only be remixed from its own frames; give a strength such as 'mild'.",
            "strength",
        )
    base = replace(source.order, task="remix", prompt=asked.prompt, source=source.id)
    order = await _told(asked, base)
    if "negative_prompt" not in asked.model_fields_set:
        order = replace(order, negative=base.negative)
    async with Inputs(desk, desk.shelf.copy_inputs(source.order.inputs)) as inputs:
        order = replace(order, inputs=inputs.token)
        return await inputs.submit(
            request, order, {"remix": video_id, "asked": _as_asked(asked)}, asked.webhook_url
        )


async def extend_video(request: Request) -> Response:
    """Go on from the end of a video (or before its start, or back to it); the result holds both."""
    desk, received = desk_of(request), await receive(request)
    received.only_files("video")
    asked = received.parse(ExtendVideo)
    check_model(desk.card, asked.model)
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
            frames = bridge(frames, BRIDGE)
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
            characters=(),
            source=asked.video.id if asked.video else "",
            source_frames=whole.all_frames,
            strength=None,
            loop=asked.loop,
            backward=asked.backward,
            storyboard="",
        )
        order = _fitting(await _told(asked, order))
        if order.seconds > LONGEST:
            raise ApiError(
                409,
                "too_long",
                f"The whole would last {spoken(order.seconds)} s, more than {LONGEST:g} s.",
                "seconds",
            )
        return await inputs.submit(
            request, order, {"extend": _as_asked(asked), "file": digest}, asked.webhook_url
        )


async def edit_video(request: Request) -> Response:
    """Draw a video again as the prompt says, from its own frames with noise added (SDEdit)."""
    desk, received = desk_of(request), await receive(request)
    received.only_files("video")
    asked = received.parse(EditVideo)
    check_model(desk.card, asked.model)
    async with Inputs(desk) as inputs:
        whole, digest = await _source(request, inputs, received, asked)
        whole = replace(_redrawn(desk, whole, level(asked.strength)), prompt=asked.prompt)
        order = replace(
            await _told(asked, whole),
            task="edit",
            model=asked.model,
            inputs=inputs.token,
            source=asked.video.id if asked.video else "",
        )
        return await inputs.submit(
            request, order, {"edit": _as_asked(asked), "file": digest}, asked.webhook_url
        )


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
    return _fitting(inputs.desk.sized(whole, media.width, media.height)), digest


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
        characters=(),
        loop=False,
        backward=False,
        storyboard="",
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


async def _told(asked: Knobs, order: Order) -> Order:
    """The order with the settings that were asked for, and its prompt expanded where that was."""
    order = replace(
        order,
        seed=order.seed if asked.seed is None else asked.seed,
        steps=asked.steps or order.steps,
        guidance=order.guidance if asked.guidance is None else asked.guidance,
        sampler=asked.sampler or order.sampler,
        guidance_kind=asked.guidance_kind or order.guidance_kind,
        guidance_interval=asked.guidance_interval or order.guidance_interval,
        guidance_rescale=order.guidance_rescale if asked.guidance_rescale is None else asked.guidance_rescale,
        step_cache=order.step_cache if asked.step_cache is None else asked.step_cache,
        negative=asked.negative_prompt,
        expanded="",
    )
    if not asked.expand:
        return order
    text = await asyncio.to_thread(_expansion, order.prompt, order.seed, order.all_frames == 1)
    return replace(order, expanded=text)


def _expansion(prompt: str, seed: int, is_picture: bool) -> str:
    """What the model is told for a prompt; empty when it is the prompt itself."""
    if len(prompt) > LONGEST_EXPANDED:
        return ""
    text = expand(prompt, seed, picture=is_picture).text
    return "" if text == prompt else text


def _as_asked(asked: BaseModel) -> dict[str, Any]:
    return asked.model_dump(mode="json", exclude_unset=True)


def _check_cards(received: Received) -> None:
    """Raises ApiError for cards as form fields such as storyboard[cards][][at]: which belong together is lost."""
    if not received.strict and _came_in_fields(received.fields.get("storyboard")):
        raise ApiError(
            400,
            "invalid_value",
            "Form fields do not tell which values belong to one card; send the storyboard as JSON text.",
            "storyboard",
        )


def _came_in_fields(story: Any) -> bool:
    """Whether a card's time is text, or not there: as in a form field, not as in JSON."""
    cards = story.get("cards") if isinstance(story, dict) else None
    some = cards if isinstance(cards, list) else []
    return any(isinstance(card, dict) and isinstance(card.get("at", ""), str) for card in some)


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
