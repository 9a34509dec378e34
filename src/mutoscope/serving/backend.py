"""Videos made by another server: a worker that sends jobs to a backend with OpenAI's video API and brings clips home.

Run by the server as `python -m mutoscope.serving.backend DATA URL NAME KEEP`. What the backend calls a job is noted on
disk as soon as it is known, and every attempt asks under the same idempotency key: after a kill the next worker goes
on with the job that is there. A job that is cancelled or deleted here is deleted there.
"""

import base64
import json
import logging
import sqlite3
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from mutoscope import __version__
from mutoscope.config import to_dict, write_json
from mutoscope.errors import InputError
from mutoscope.generation.request import file_sha256
from mutoscope.serving.adopt import Unfit, adopt
from mutoscope.serving.ingest import RAW
from mutoscope.serving.jobs import Job, Store
from mutoscope.serving.offer import Offer, folder_of, remembered
from mutoscope.serving.orders import Order
from mutoscope.serving.policy import read_policy
from mutoscope.serving.processes import die_with_parent
from mutoscope.serving.provenance import open_authority
from mutoscope.serving.remote import (
    Body,
    Declined,
    Remote,
    RemoteVideo,
    Trouble,
    create,
    delete,
    download,
    from_environment,
    quoted,
    retrieve,
    said_no,
    sentence,
)
from mutoscope.serving.tasks import Stopped, lineage
from mutoscope.serving.worker import Drain, Failed, Place, Progress, begin_log, opened, work
from mutoscope.watermark import number_of_record

R = TypeVar("R")

WAIT, LONGEST_WAIT = 0.5, 10.0
"""Seconds before the first and the later questions, for a backend that does not tell when to ask again."""

SILENCE = 3600.0
"""Seconds without any progress after which a job there is given up."""

SLICE = 0.2
"""Seconds between looks at whether the job is still wanted."""

TIDY_EVERY, TIDY_LATER = 2.0, 30.0
"""Seconds between two rounds of deleting there what was deleted here; later when the backend did not answer."""

SHARE = 90
"""Percent of the progress that the backend's work takes."""

POLICY_CODES = ("moderation_blocked", "content_policy_violation")

log = logging.getLogger("mutoscope.backend")


# --- how the backend names our jobs ---------------------------------------------------------------


@dataclass(frozen=True)
class Ledger:
    """For each job of ours the backend's id of it, one small file each; ids of other addresses do not count."""

    folder: Path
    url: str

    def get(self, job: str) -> str | None:
        try:
            told = json.loads(self._path(job).read_text())
        except (OSError, ValueError):
            return None
        return str(told["id"]) if told.get("url") == self.url else None

    def put(self, job: str, identifier: str) -> None:
        write_json(self._path(job), {"url": self.url, "id": identifier})

    def drop(self, job: str) -> None:
        self._path(job).unlink(missing_ok=True)

    def entries(self) -> Iterator[tuple[str, str]]:
        """Our id and the backend's, of every job that it knows from us."""
        for path in sorted(self.folder.glob("video_*.json")):
            identifier = self.get(path.stem)
            if identifier is not None:
                yield path.stem, identifier

    def _path(self, job: str) -> Path:
        return self.folder / f"{job}.json"


def tidy(remote: Remote, ledger: Ledger, store: Store) -> bool:
    """Delete at the backend what failed, was cancelled or deleted here; False when it did not answer."""
    answered = True
    for name, identifier in ledger.entries():
        job = store.find(name)
        if job is not None and job.status != "failed":
            continue
        try:
            delete(remote, identifier)
        except Trouble:
            answered = False
            continue
        except Declined as declined:  # gone already, or it deletes nothing
            log.info("the backend does not delete %s (HTTP %d)", name, declined.status)
        ledger.drop(name)
    return answered


def _keep_tidy(remote: Remote, ledger: Ledger, store: Store) -> None:
    while True:
        answered = False
        try:
            answered = tidy(remote, ledger, store)
        except (OSError, sqlite3.Error, InputError):
            log.exception("tidying")
        time.sleep(TIDY_EVERY if answered else TIDY_LATER)


# --- making one video -----------------------------------------------------------------------------


class Watch:
    """How far a job is, and whether it is still wanted."""

    def __init__(self, progress: Progress) -> None:
        self.progress, self.percent = progress, 0

    def goes_on(self) -> bool:
        return self.progress(self.percent, None)

    def reach(self, percent: int) -> None:
        """Tell how far it is. Raises Stopped when the job is not wanted any more."""
        self.percent = max(self.percent, percent)
        if not self.goes_on():
            raise Stopped

    def pause(self, seconds: float) -> None:
        """Wait. Raises Stopped as `reach` does, and when this worker is to end: the job goes on without it."""
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0:
            if self.progress.drain.is_asked:
                self.progress.is_given_back = True
                raise Stopped
            self.reach(0)
            time.sleep(min(SLICE, left))


@dataclass(frozen=True)
class Backend:
    """Has jobs drawn by another server (see `worker.Place.draw`)."""

    remote: Remote
    offer: Offer
    ledger: Ledger

    def draw(self, place: Place, job: Job, folder: Path, progress: Progress) -> None:
        """Write the files of a job into `folder`. Raises Stopped, and Failed with the sentence for its owner."""
        watch, order = Watch(progress), job.order
        try:
            identifier = self.ledger.get(job.id) or self._begun(place, job, watch)
            video = self._finished(identifier, watch)
            self._persist(lambda: download(self.remote, identifier, folder / RAW, watch.goes_on), watch)
            watch.reach(95)
        except Declined as declined:
            raise Failed(*_ending(declined)) from declined
        record = self._record(order, identifier)
        try:
            clip = adopt(folder, record, number_of_record(record), watch.goes_on)
        except Unfit as unfit:
            raise Failed(
                "backend_bad_video", f"What the backend sent as the video {unfit}; create it again."
            ) from unfit
        if clip is None:
            raise Stopped
        drawn = video.drawn or (clip.width, clip.height)
        before = min(order.source_frames, clip.frames - 1)
        made = replace(
            order,
            width=clip.width,
            height=clip.height,
            drawn_width=drawn[0],
            drawn_height=drawn[1],
            frames=clip.frames - before,
            source_frames=before,
            fps=clip.fps,
        )
        write_json(
            folder / "recipe.json",
            {
                "sha256": file_sha256(folder / "video.mp4"),
                "source": order.source or None,
                "order": to_dict(replace(made, inputs="")),
                **record,
            },
        )
        place.store.correct(job, made)

    def _begun(self, place: Place, job: Job, watch: Watch) -> str:
        """Ask for the video, in the first form that the backend takes, and note how it names it."""
        first: Declined | None = None
        ways = _ways(self.offer, job.order, place.shelf.inputs(job.order.inputs), self.ledger)
        for number, (path, body) in enumerate(ways):
            key = f"mutoscope-{job.id}-{number}"
            try:
                video = self._persist(lambda: create(self.remote, path, body, key), watch)  # noqa: B023
            except Declined as declined:
                first = first or declined
                if declined.status not in (400, 404, 415, 422) or declined.code in POLICY_CODES:
                    break
                continue
            self.ledger.put(job.id, video.id)
            return video.id
        assert first is not None
        raise first

    def _finished(self, identifier: str, watch: Watch) -> RemoteVideo:
        """The job there, as soon as it is completed."""
        wait, seen, since = WAIT, -1, time.monotonic()
        while True:
            try:
                video = self._persist(lambda: retrieve(self.remote, identifier), watch)
            except Declined as declined:
                if declined.status not in (404, 410):
                    raise
                raise Failed(
                    "backend_lost", "The backend does not know this video any more; create it again."
                ) from declined
            if video.state == "completed":
                return video
            if video.state == "failed":
                code = "moderation_blocked" if video.code in POLICY_CODES else "backend_failed"
                raise Failed(code, sentence("The backend failed to make this video", video.sentence))
            if video.progress != seen:
                seen, since = video.progress, time.monotonic()
            elif time.monotonic() - since > SILENCE:
                raise Failed(
                    "backend_stalled",
                    f"The backend has made no progress for {SILENCE / 60:.0f} minutes; create the video again.",
                )
            watch.reach(SHARE * video.progress // 100)
            watch.pause(video.poll_after or wait)
            wait = min(1.5 * wait, LONGEST_WAIT)

    def _persist(self, call: Callable[[], R], watch: Watch) -> R:
        """What a call comes to, tried again ever more slowly while the backend is in trouble."""
        until, wait = time.monotonic() + self.remote.patience, WAIT
        while True:
            try:
                return call()
            except Trouble as trouble:
                pause = min(30.0, max(wait, trouble.wait or 0.0))
                if time.monotonic() + pause > until:
                    raise Failed(
                        "backend_unavailable",
                        f"The backend {trouble}; look whether it runs, then create the video again.",
                    ) from trouble
                log.info("the backend %s; asking again in %.1f s", trouble, pause)
                watch.pause(pause)
                wait = min(2 * wait, LONGEST_WAIT)

    def _record(self, order: Order, identifier: str) -> dict[str, Any]:
        """What goes into the file: who made it, and what was asked of it."""
        return {
            "mutoscope": __version__,
            "model": {"name": self.offer.card.name, "sha256": ""},
            "backend": {"video": identifier},
            "asked": {
                "prompt": order.prompt,
                "expanded": order.expanded or None,
                "negative": order.negative,
                "size": order.size,
                "seconds": order.seconds,
                "seed": order.seed,
            },
            "served": {"marked": True, **lineage(order)},
        }


# --- what is asked --------------------------------------------------------------------------------


def _ways(offer: Offer, order: Order, inputs: Path, ledger: Ledger) -> Iterator[tuple[str, Body]]:
    """Paths and bodies that ask for an order, the best first; the next is for a backend that does not take it.

    Raises Failed for what the backend cannot be asked.
    """
    if not offer.is_kin:
        _check_plain(order)
    told = _told(offer, order)
    if order.task == "extend" or order.strength is not None:
        path = "/videos/extensions" if order.task == "extend" else "/videos/edits"
        named = ledger.get(order.source) if order.source else None
        if named is not None:
            yield path, Body({**told, "video": {"id": named}})
        clip = (inputs / "video.mp4").read_bytes()
        yield path, Body(told, {"video": ("video.mp4", "video/mp4", clip)})
        return
    if order.task == "remix" and not offer.is_kin:
        named = ledger.get(order.source)
        if named is not None:
            yield f"/videos/{quoted(named)}/remix", Body({"prompt": told["prompt"]})
    pictures = {
        name: (file, "image/png", (inputs / file).read_bytes())
        for name, file, is_there in (
            ("input_reference", "first.png", order.first_picture),
            ("last_frame", "last.png", order.last_picture),
        )
        if is_there
    }
    if order.storyboard:
        told["storyboard"] = {"cards": [_card(card, inputs) for card in order.cards]}
    if offer.is_kin:
        yield "/videos", Body(told, pictures)
        return
    unseeded = {name: value for name, value in told.items() if name != "seed"}
    yield "/videos", Body(told, pictures, is_form=True)
    yield "/videos", Body(unseeded, pictures, is_form=True)
    if not pictures:
        yield "/videos", Body(unseeded)


def _told(offer: Offer, order: Order) -> dict[str, Any]:
    """The fields of an order, in the words of another Mutoscope or in those that such servers share."""
    told: dict[str, Any] = {"prompt": order.expanded or order.prompt, "model": offer.card.name}
    is_new = order.task != "extend" and order.strength is None
    if order.task == "extend" or is_new:
        told["seconds"] = f"{order.frames / order.fps:.6f}".rstrip("0").rstrip(".")
    if is_new:
        told["size"] = order.size
    if not offer.is_kin:
        if is_new:
            told |= {"seed": order.seed}
            told |= {"fps": order.fps} if order.fps != offer.card.defaults.fps else {}
            told |= {"num_inference_steps": order.steps} if order.steps else {}
            told |= {"guidance_scale": order.guidance} if order.guidance else {}
            told |= {"negative_prompt": order.negative} if order.negative else {}
        return told
    told |= {
        "seed": order.seed,
        "steps": order.steps,
        "guidance": order.guidance,
        "sampler": order.sampler,
        "negative_prompt": order.negative,
    }
    if _is_special(order):  # a backend of an earlier version does not know the names
        told |= {
            "guidance_kind": order.guidance_kind,
            "guidance_interval": order.guidance_interval,
            "guidance_rescale": order.guidance_rescale,
            "step_cache": order.step_cache,
        }
    if order.task == "extend":
        return told | {"loop": order.loop, "backward": order.backward}
    if order.strength is not None:
        return told | {"strength": order.strength}
    return told | {"fps": order.fps, "loop": order.loop}


def _is_special(order: Order) -> bool:
    """Whether anything but the scale of the guidance was chosen, or a step cache."""
    chosen = order.guidance_kind, order.guidance_interval, order.guidance_rescale, order.step_cache
    return chosen != ("cfg", "0-1", 0.0, 0.0)


def _check_plain(order: Order) -> None:
    for name, is_asked in (
        ("storyboards", bool(order.storyboard)),
        ("loops", order.loop),
        ("characters", bool(order.characters)),
        ("extensions before the start", order.backward),
        ("last frames", order.last_picture),
        ("a choice of the sampler", bool(order.sampler)),
        ("other kinds of guidance and no step cache", _is_special(order)),
    ):
        if is_asked:
            raise Failed("not_supported", f"The backend of this server knows no {name}; leave it out.")


def _card(card: dict[str, Any], inputs: Path) -> dict[str, Any]:
    """A card as it is sent, its picture as a data URL."""
    if card["clip"]:
        raise Failed(
            "not_supported", "The backend of this server takes no clip in a card; give a picture or words."
        )
    told = {"at": card["at"], "prompt": card["expanded"] or card["prompt"], "cut": card["cut"]}
    if card["image"]:
        data = base64.b64encode((inputs / card["image"]).read_bytes()).decode()
        told["image"] = f"data:image/png;base64,{data}"
    return told


# --- words ----------------------------------------------------------------------------------------


def _ending(declined: Declined) -> tuple[str, str]:
    """The code and the sentence of a job that the backend did not take, or does not know any more."""
    if declined.code in POLICY_CODES:
        return "moderation_blocked", said_no(declined)
    return declined.code if declined.code.startswith("backend_") else "backend_refused", said_no(declined)


# --- the process ----------------------------------------------------------------------------------


def main(arguments: list[str]) -> int:
    data, url, name, keep = arguments
    die_with_parent()
    begin_log()
    drain = Drain()
    try:
        shelf, store = opened(data)
        remote = from_environment(url)
        policy, authority = read_policy(shelf.policy), open_authority(shelf.provenance)
        offer = remembered(folder_of(shelf))
        if offer is None or offer.url != url:
            raise InputError(f"Nothing is known of the backend {url!r}; run `mutoscope serve --backend`.")
    except (InputError, OSError) as error:
        print(error, file=sys.stderr)
        return 2
    ledger = Ledger(folder_of(shelf), url)
    owner = store.register(name, offer.card.name, "backend")
    threading.Thread(target=_keep_tidy, args=(remote, ledger, store), daemon=True).start()
    draw = Backend(remote, offer, ledger).draw
    kept = float(keep) if keep else None
    return work(Place(shelf, store, None, owner, kept, authority, policy, draw), drain)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
