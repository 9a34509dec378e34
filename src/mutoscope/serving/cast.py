"""Characters: clips of somebody, kept under a name."""

import asyncio
import os
import secrets
import shutil
import time
from pathlib import Path
from tempfile import TemporaryDirectory

from fastapi import Request

from mutoscope.serving import orders
from mutoscope.serving.desk import desk_of, finished_job_of, key_reused, repetition, tenant_of
from mutoscope.serving.inputs import Inputs
from mutoscope.serving.jobs import Character, KeyReused
from mutoscope.serving.protocol import ApiError, CharacterReply, CreateCharacter, character_reply
from mutoscope.serving.receive import receive
from mutoscope.video import Video, read_video, write_video


async def create_character(request: Request) -> CharacterReply:
    """Keep a clip of somebody under a name: an uploaded file, or a video of this server."""
    desk, received = desk_of(request), await receive(request)
    received.only_files("video")
    asked = received.parse(CreateCharacter)
    identifier = f"char_{secrets.token_hex(16)}"
    key, is_retry = repetition(request)
    home, kept = desk.shelf.character(identifier), False
    async with Inputs(desk) as inputs:
        if asked.video is not None:
            inputs.link_video(await finished_job_of(request, asked.video.id))
            shown = asked.video.id
        else:
            _, shown = await inputs.add_video(received)
        home.parent.mkdir(parents=True, exist_ok=True)
        os.replace(desk.shelf.inputs(inputs.token), home)
    same = (orders.fingerprint({"character": asked.name, "video": shown}), key, is_retry)
    try:
        made = Character(identifier, asked.name, int(time.time()))
        character = await desk.write(desk.store.add_character, tenant_of(request), made, same)
        kept = character.id == identifier
    except KeyReused as error:
        raise key_reused() from error
    finally:
        if not kept:
            await asyncio.to_thread(shutil.rmtree, home, True)
    return character_reply(character)


async def get_character(request: Request, character_id: str) -> CharacterReply:
    """A character by its id."""
    desk = desk_of(request)
    character = await desk.read(desk.store.character, tenant_of(request), character_id)
    if character is None:
        raise ApiError(404, "not_found", "There is no character with this id.")
    return character_reply(character)


async def seen_character(request: Request, identifier: str, param: str) -> tuple[str, bytes]:
    """Name and first frame (PNG) of a character. Raises ApiError (404) for an unknown one."""
    desk = desk_of(request)
    character = await desk.read(desk.store.character, tenant_of(request), identifier)
    if character is None:
        raise ApiError(404, "not_found", "There is no character with this id.", param)
    clip = desk.shelf.character(identifier) / "video.mp4"
    return character.name, await asyncio.to_thread(_first_frame, clip)


def _first_frame(clip: Path) -> bytes:
    with TemporaryDirectory() as folder:
        return write_video(
            Path(folder) / "first.png", Video(read_video(clip).frames_THWC[:1], 1.0)
        ).read_bytes()
