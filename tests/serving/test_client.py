"""The unmodified openai client against a running server: every method, sync and async."""

import asyncio
import base64
import json
import warnings
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from mutoscope.serving.client import repair
from mutoscope.video import Video, read_recipe, read_video, write_video

if TYPE_CHECKING:
    from openai import OpenAI

    from .conftest import Live

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore::DeprecationWarning")]


@pytest.fixture(scope="module")
def client(live: "Live", patience: float) -> Iterator["OpenAI"]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from openai import OpenAI

    with OpenAI(base_url=f"{live.url}/v1", api_key="local", timeout=patience) as client:
        yield client


@pytest.fixture(scope="module")
def made(client: "OpenAI") -> Any:
    video = client.videos.create_and_poll(prompt="a red ball", seconds="1", extra_body={"seed": 3})
    assert video.status == "completed", video.error
    return video


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    frames_THWC = np.full((1, 40, 60, 3), 200, np.uint8)
    return write_video(tmp_path / "picture.png", Video(frames_THWC, 8.0))


def test_create_and_poll_says_what_was_made(made: Any) -> None:
    assert (made.object, made.model, made.progress, made.seconds) == ("video", "sora-2", 100, "1")
    assert (made.served_by, made.seed, made.frames, made.size) == ("random", 3, 8, "64x64")
    assert made.error is None
    assert made.completed_at >= made.created_at


def test_download_every_variant(client: "OpenAI", made: Any, tmp_path: Path) -> None:
    path = tmp_path / "video.mp4"
    client.videos.download_content(made.id).write_to_file(path)
    video = read_video(path)
    assert (video.frames, video.height, video.width, video.fps) == (8, 64, 64, 8.0)
    recipe = read_recipe(path)
    assert recipe is not None
    assert (recipe["recipe"]["prompt"], recipe["recipe"]["seed"]) == ("a red ball", 3)
    thumbnail = client.videos.download_content(made.id, variant="thumbnail").read()
    assert (thumbnail[:4], thumbnail[8:12]) == (b"RIFF", b"WEBP")
    assert client.videos.download_content(made.id, variant="spritesheet").read()[:3] == b"\xff\xd8\xff"


def shown(client: "OpenAI", identifier: str, folder: Path) -> bytes:
    """The frames of a video; its signature is another one each time."""
    path = folder / f"{identifier}.mp4"
    client.videos.download_content(identifier).write_to_file(path)
    return read_video(path).frames_THWC.tobytes()


def test_the_same_order_gives_the_same_frames(client: "OpenAI", made: Any, tmp_path: Path) -> None:
    again = client.videos.create_and_poll(prompt="a red ball", seconds="1", extra_body={"seed": 3})
    assert again.id != made.id
    first, second = (shown(client, video.id, tmp_path) for video in (made, again))
    assert first == second


def test_retrieve_list_and_delete(client: "OpenAI") -> None:
    import openai

    ids = [client.videos.create(prompt=f"ball {n}", seconds="0.2").id for n in range(3)]
    listed = [video.id for video in client.videos.list(limit=2)]  # pages by itself
    assert listed[:3] == ids[::-1]
    assert [video.id for video in client.videos.list(limit=2, order="asc")] == listed[::-1]
    for identifier in ids:
        assert client.videos.retrieve(identifier).id == identifier
        gone = client.videos.delete(identifier)
        assert (gone.id, gone.deleted, gone.object) == (identifier, True, "video.deleted")
        with pytest.raises(openai.NotFoundError) as caught:
            client.videos.retrieve(identifier)
        assert caught.value.code == "not_found"
        with pytest.raises(openai.NotFoundError):
            client.videos.delete(identifier)


def test_remix_keeps_seed_and_shape(client: "OpenAI", made: Any) -> None:
    remixed = client.videos.poll(client.videos.remix(made.id, prompt="a blue box").id)
    assert (remixed.status, remixed.remixed_from_video_id, remixed.prompt) == (
        "completed",
        made.id,
        "a blue box",
    )
    assert (remixed.seed, remixed.size, remixed.seconds) == (3, made.size, made.seconds)


def test_extend_by_id_holds_the_source(client: "OpenAI", made: Any, tmp_path: Path) -> None:
    from openai.types import Video as VideoType

    started = client.post(
        "/videos/extensions",
        body={"prompt": "and on", "seconds": "1", "video": {"id": made.id}},
        cast_to=VideoType,
    )
    extended = client.videos.poll(started.id)
    assert (extended.status, extended.seconds, extended.frames) == ("completed", "2", 16)
    paths = [tmp_path / f"{video.id}.mp4" for video in (made, extended)]
    for path in paths:
        client.videos.download_content(path.stem).write_to_file(path)
    before, after = (read_video(path).frames_THWC.astype(int) for path in paths)
    assert after.shape[0] == 16
    assert np.abs(after[:8] - before).mean() < 16  # the model's noise, coded once more
    assert np.abs(after[:8] - before[::-1]).mean() > 32


def test_extend_an_uploaded_video_and_a_bracketed_id(client: "OpenAI", made: Any, tmp_path: Path) -> None:
    frames_THWC = np.zeros((12, 48, 80, 3), np.uint8)
    frames_THWC[:, :24] = 255
    path = write_video(tmp_path / "mine.mp4", Video(frames_THWC, 12.0))
    with path.open("rb") as file:
        extended = client.videos.poll(client.videos.extend(prompt="on", seconds="0.5", video=file).id)
    assert (extended.status, extended.size, extended.fps, extended.seconds) == (
        "completed",
        "80x48",
        8.0,
        "1.5",
    )
    by_id = client.videos.extend(
        prompt="on", seconds="0.5", video=("empty", b""), extra_body={"video": {"id": made.id}}
    )
    assert by_id.extended_from_video_id == made.id  # type: ignore[attr-defined]


def test_edit_by_id_by_file_and_by_the_repaired_client(
    client: "OpenAI", live: "Live", made: Any, patience: float
) -> None:
    from openai import OpenAI

    data = client.videos.download_content(made.id).read()
    with OpenAI(base_url=f"{live.url}/v1", api_key="local", timeout=patience) as fresh:
        repaired = repair(fresh)
        edits = [
            client.videos.edit(prompt="x", video=("mine.mp4", data), extra_body={"strength": "strong"}),
            client.videos.edit(prompt="x", video=("empty", b""), extra_body={"video": {"id": made.id}}),
            repaired.videos.edit(prompt="x", video={"id": made.id}),
        ]
    assert [edit.edited_from_video_id for edit in edits] == [None, made.id, made.id]  # type: ignore[attr-defined]
    assert [edit.strength for edit in edits] == [0.9, 0.75, 0.75]  # type: ignore[attr-defined]
    for edit in edits:
        done = client.videos.poll(edit.id)
        assert (done.status, done.seconds, done.size) == ("completed", made.seconds, made.size), done.error


def test_a_remix_with_a_strength_and_a_loop(client: "OpenAI", made: Any) -> None:
    strong = client.videos.remix(made.id, prompt="snow", extra_body={"strength": 0.3})
    looped = client.videos.extend(
        prompt="on", seconds="0.6", video=("empty", b""), extra_body={"video": {"id": made.id}, "loop": True}
    )
    done, closed = client.videos.poll(strong.id), client.videos.poll(looped.id)
    assert (done.status, done.strength, done.remixed_from_video_id) == ("completed", 0.3, made.id)  # type: ignore[attr-defined]
    assert (closed.status, closed.seconds, closed.loop) == ("completed", "1.875", True)  # type: ignore[attr-defined]


def test_the_repaired_client_sends_a_data_url(
    client: "OpenAI", live: "Live", picture: Path, patience: float
) -> None:
    from openai import OpenAI

    url = "data:image/png;base64," + base64.b64encode(picture.read_bytes()).decode()
    with OpenAI(base_url=f"{live.url}/v1", api_key="local", timeout=patience) as fresh:
        asked = repair(fresh).videos.create(prompt="x", seconds="0.5", input_reference={"image_url": url})
    assert client.videos.poll(asked.id).status == "completed"


def test_a_storyboard_of_words_a_picture_and_a_clip(client: "OpenAI", made: Any, picture: Path) -> None:
    url = f"data:image/png;base64,{base64.b64encode(picture.read_bytes()).decode()}"
    cards = [
        {"at": 0, "clip": made.id},
        {"at": 1.25, "prompt": "a red ball", "cut": True},
        {"at": 1.5, "image": url, "cut": False},
    ]
    with pytest.raises(Exception, match="send the storyboard as JSON text"):
        client.videos.create(prompt="a film", extra_body={"storyboard": {"cards": cards}})
    board = {"storyboard": json.dumps({"cards": cards}), "expand": True, "steps": 2, "seed": 1}
    video: Any = client.videos.create_and_poll(prompt="a film", seconds="2.5", extra_body=board)
    assert (video.status, video.seconds, video.prompt) == ("completed", "2.5", "a film")
    shown = [(card["at"], card["shows"], card["cut"]) for card in video.storyboard["cards"]]
    assert shown == [(0, "clip", None), (1.25, None, True), (1.5, "image", False)]
    assert "red ball" in video.storyboard["cards"][1]["expanded_prompt"]
    with pytest.raises(Exception, match="A storyboard is not remixed as a whole"):
        client.videos.remix(video.id, prompt="another")


def test_prompts_are_expanded_where_that_is_asked(client: "OpenAI", made: Any) -> None:
    assert made.expanded_prompt is None
    longer: Any = client.videos.extend(
        prompt="a red ball",
        seconds="0.6",
        video=("empty", b""),
        extra_body={"video": {"id": made.id}, "expand": True},
    )
    assert longer.prompt == "a red ball"
    assert len(longer.expanded_prompt) > len("a red ball")
    done = client.videos.poll(longer.id)
    assert done.status == "completed", done.error
    recipe = client.get(f"/videos/{longer.id}/recipe", cast_to=object)
    assert recipe["recipe"]["expanded_prompt"] == longer.expanded_prompt  # type: ignore[index]


def test_a_character_is_shown_to_the_model(client: "OpenAI", made: Any) -> None:
    data = client.videos.download_content(made.id).read()
    character = client.videos.create_character(name="Red", video=("red.mp4", data))
    assert client.videos.get_character(character.id).name == "Red"
    video = client.videos.create_and_poll(
        prompt="Red rolls to the left", seconds="1", extra_body={"characters": [{"id": character.id}]}
    )
    assert video.status == "completed", video.error
    recipe = client.get(f"/videos/{video.id}/recipe", cast_to=object)["recipe"]  # type: ignore[index]
    assert recipe["prompt"] == "Red rolls to the left"
    assert [reference["image"] for reference in recipe["references"]] == ["character-0.png"]
    assert recipe["expanded_prompt"] == "Red rolls to the left"  # this model has no captioner to describe it


def test_a_first_frame_as_a_file_and_as_a_data_url(client: "OpenAI", picture: Path, tmp_path: Path) -> None:
    with picture.open("rb") as file:
        by_file = client.videos.create_and_poll(
            prompt="x", input_reference=file, seconds="1", size="64x64", extra_body={"seed": 1}
        )
    url = "data:image/png;base64," + base64.b64encode(picture.read_bytes()).decode()
    by_url = client.videos.create_and_poll(
        prompt="x",
        seconds="1",
        size="64x64",
        extra_body={"seed": 1, "input_reference": {"image_url": url}},
    )
    assert (by_file.status, by_url.status) == ("completed", "completed")
    first, second = (shown(client, video.id, tmp_path) for video in (by_file, by_url))
    assert first == second


def test_an_old_size_is_drawn_small_and_said_so(client: "OpenAI", tmp_path: Path) -> None:
    video = client.videos.create_and_poll(prompt="x", seconds="0.25", size="720x1280", model="sora-2-pro")
    assert (video.status, video.size, video.model) == ("completed", "720x1280", "sora-2-pro")
    assert video.drawn_size != "720x1280"  # type: ignore[attr-defined]
    assert "scaled up" in video.note  # type: ignore[attr-defined]
    client.videos.download_content(video.id).write_to_file(tmp_path / "v.mp4")
    assert read_video(tmp_path / "v.mp4").frames_THWC.shape[1:3] == (1280, 720)


def test_mistakes_are_typed_errors(client: "OpenAI") -> None:
    import openai

    with pytest.raises(openai.NotFoundError, match="no model"):
        client.videos.create(prompt="x", model="wan2.1")
    for fields, param in (
        ({"seed": -1}, "seed"),
        ({"sampler": "magic"}, "sampler"),
        ({"bogus": 1}, "bogus"),
        ({"guidance": "nan"}, "guidance"),
        ({"input_reference": {"image_url": "http://127.0.0.1/x.png"}}, "input_reference.image_url"),
    ):
        with pytest.raises(openai.BadRequestError) as caught:
            client.videos.create(prompt="x", extra_body=fields)
        assert caught.value.param == param
    with pytest.raises(openai.BadRequestError):
        client.videos.create(prompt="x", input_reference=("x.png", b"no picture"))
    with pytest.raises(openai.BadRequestError):
        client.videos.create(prompt="x", size="nonsense")  # type: ignore[arg-type]
    with pytest.raises(openai.BadRequestError):
        client.videos.create(prompt="  ")


def test_the_async_client_too(live: "Live", patience: float) -> None:
    from openai import AsyncOpenAI

    async def all_methods() -> None:
        async with AsyncOpenAI(base_url=f"{live.url}/v1", api_key="local", timeout=patience) as client:
            video = await client.videos.create_and_poll(prompt="a star", seconds="0.5")
            assert video.status == "completed"
            content = await client.videos.download_content(video.id)
            assert (await content.aread())[4:8] == b"ftyp"
            remixed = await client.videos.remix(video.id, prompt="a ring")
            assert (await client.videos.retrieve(remixed.id)).remixed_from_video_id == video.id
            assert video.id in [item.id async for item in client.videos.list(limit=3)]
            assert (await client.videos.delete(video.id)).deleted

    asyncio.run(all_methods())


def test_one_idempotency_key_is_one_job(client: "OpenAI") -> None:
    def ask(_: int) -> str:
        headers = {"Idempotency-Key": "one"}
        return client.videos.create(prompt="once", seconds="0.2", extra_headers=headers).id

    with ThreadPoolExecutor(8) as pool:
        assert len(set(pool.map(ask, range(8)))) == 1
    import openai

    with pytest.raises(openai.UnprocessableEntityError):
        client.videos.create(prompt="twice", extra_headers={"Idempotency-Key": "one"})
