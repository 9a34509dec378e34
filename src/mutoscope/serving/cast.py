"""Characters: clips of somebody, kept under a name."""

import os
import secrets

from fastapi import Request

from mutoscope.serving.desk import desk_of, finished_job_of, tenant_of
from mutoscope.serving.inputs import Inputs
from mutoscope.serving.protocol import ApiError, CharacterReply, CreateCharacter, character_reply
from mutoscope.serving.receive import receive


async def create_character(request: Request) -> CharacterReply:
    """Keep a clip of somebody under a name: an uploaded file, or a video of this server."""
    desk, received = desk_of(request), await receive(request)
    received.only_files("video")
    asked = received.parse(CreateCharacter)
    identifier = f"char_{secrets.token_hex(16)}"
    async with Inputs(desk) as inputs:
        if asked.video is not None:
            inputs.link_video(await finished_job_of(request, asked.video.id))
        else:
            await inputs.add_video(received)
        home = desk.shelf.character(identifier)
        home.parent.mkdir(parents=True, exist_ok=True)
        os.replace(desk.shelf.inputs(inputs.token), home)
    character = await desk.write(desk.store.add_character, tenant_of(request), identifier, asked.name)
    return character_reply(character)


async def get_character(request: Request, character_id: str) -> CharacterReply:
    """A character by its id."""
    desk = desk_of(request)
    character = await desk.read(desk.store.character, tenant_of(request), character_id)
    if character is None:
        raise ApiError(404, "not_found", "There is no character with this id.")
    return character_reply(character)
