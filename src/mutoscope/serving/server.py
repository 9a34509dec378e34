"""`mutoscope serve`: the API, the page and the workers, until SIGTERM or Ctrl-C."""

import asyncio
import contextlib
import ipaddress
import logging
import os
import resource
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import uvicorn

from mutoscope.config import from_dict, read_table
from mutoscope.errors import InputError
from mutoscope.serving.api import build
from mutoscope.serving.bulk import feed_batches
from mutoscope.serving.desk import Desk
from mutoscope.serving.gate import LOOPBACK, Door, Gate, PunctualProtocol
from mutoscope.serving.jobs import LEASE, QueueLimits, Store
from mutoscope.serving.keys import Keyring, list_keys
from mutoscope.serving.objects import open_objects
from mutoscope.serving.offer import folder_of, learn
from mutoscope.serving.policy import read_policy
from mutoscope.serving.processes import owner_of
from mutoscope.serving.remote import from_environment
from mutoscope.serving.shelf import Shelf, alone
from mutoscope.serving.webhooks import Webhook, deliver_due
from mutoscope.weights import card as weights
from mutoscope.weights.card import ModelCard
from mutoscope.weights.library import located

STOP_SECONDS = 25.0
"""Time for workers to end after SIGTERM; then they are killed and their jobs go back to the queue."""

FILES = 8192
"""Open files wanted: connections and content."""

PAUSE = 2.0
"""Seconds between two tries to use a store that failed."""

BACKLOG = 2048
DATABASE, OBJECTS = "MUTOSCOPE_DATABASE", "MUTOSCOPE_OBJECTS"
"""Variables that tell where jobs and files are kept."""

log = logging.getLogger("mutoscope.server")


@dataclass(frozen=True)
class ServeConfig:
    """How to serve. `hosts` and `origins` are let in beside this machine's own names.

    `workers` processes each load the model onto `device` (None: the best there is), with `weights` as `load` takes
    them. Finished videos are kept for `keep_hours` (None: until they are deleted). `webhook` is told of finished
    videos. With a `backend` its model of this name ("": the first) draws, and each worker waits for one video at a
    time. `database` is the URL of a PostgreSQL and `objects` an s3://BUCKET for workers on other machines ("": files
    in `data`).
    """

    data: Path = field(default_factory=lambda: default_data())
    model: str = "tiny"
    host: str = "127.0.0.1"
    port: int = 8000
    workers: int = 1
    device: str | None = None
    weights: str = "exact"
    hosts: tuple[str, ...] = ()
    origins: tuple[str, ...] = ()
    limits: QueueLimits = field(default_factory=QueueLimits)
    keep_hours: float | None = None
    webhook: Webhook | None = None
    backend: str = ""
    database: str = field(default="", repr=False)
    objects: str = ""


def default_data() -> Path:
    """MUTOSCOPE_DATA, or the user's data folder."""
    home = os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share"
    return Path(os.environ.get("MUTOSCOPE_DATA") or Path(home) / "mutoscope")


def open_store(data: Path | None, database: str | None = None) -> Store:
    """The job store of a data folder (None: the default one) or of a URL, for commands beside the server."""
    return Store(database or Shelf((data or default_data()).absolute()).database)


def serve(config: ServeConfig, on_ready: Callable[[str], None] = lambda url: None) -> None:
    """Serve until SIGTERM or SIGINT; `on_ready` is called with the address once requests are answered.

    Raises InputError for a model or an address that cannot be used, for a data folder that another server
    uses, and for a bind beyond this machine without an API key.
    """
    if config.backend and (config.database or config.objects):
        raise InputError("A backend keeps its jobs here; leave out --database and --objects, or --backend.")
    if config.backend and config.weights != "exact":
        raise InputError(
            "A backend chooses the weights that it draws with; leave out --weights, or --backend."
        )
    objects = open_objects(config.objects) if config.objects else None
    shelf = Shelf(config.data.absolute(), objects)
    with contextlib.ExitStack() as held:
        held.enter_context(alone(shelf.root))
        model_card = _card(config, shelf)
        store = open_store(shelf.root, config.database)
        held.enter_context(store.database.alone())
        if not _is_loopback(config.host) and not any(key.revoked_at is None for key in list_keys(store)):
            raise InputError(
                f"Serving on {config.host} lets others in, and there is no API key; make one first: "
                "`mutoscope keys create NAME`."
            )
        store.rescue()
        store.forget_gone_workers()
        shelf.sweep(store)
        _raise_file_limit()
        with contextlib.closing(_listen(config.host, config.port)) as listener:
            asyncio.run(_run(config, shelf, store, model_card, listener, on_ready))


def _card(config: ServeConfig, shelf: Shelf) -> ModelCard:
    """The card of the model that draws, here or at the backend."""
    if not config.backend:
        if config.weights != "exact":
            from mutoscope.weights.store import check_weights  # torch

            check_weights(config.model, config.weights)
        return find_card(config.model)
    return learn(from_environment(config.backend), config.model, folder_of(shelf)).card


def find_card(name_or_path: str) -> ModelCard:
    """What a model says of itself; of a model of ours read without torch."""
    built_in = Path(weights.__file__).parent / name_or_path
    folder = built_in if (built_in / "model.json").exists() else Path(name_or_path)
    if not (folder / "model.json").exists():
        if located(name_or_path).is_dir():
            from mutoscope.weights.store import read_card  # torch, for the headers of Wan's files

            return read_card(name_or_path)
        raise InputError(f"There is no model {name_or_path!r}; give a built-in name or a model folder.")
    card = read_table(folder / "model.json").get("card")
    if not isinstance(card, dict):
        raise InputError(f"{folder / 'model.json'} has no card; get the model again.")
    return from_dict(ModelCard, card, str(folder / "model.json"))


async def _run(
    config: ServeConfig,
    shelf: Shelf,
    store: Store,
    model_card: ModelCard,
    listener: socket.socket,
    on_ready: Callable[[str], None],
) -> None:
    door = Door(Keyring(store), _hosts(config), config.origins)
    policy, is_relay = read_policy(shelf.policy), bool(config.backend)
    desk = Desk(shelf, store, model_card, door, config.limits, policy, is_relay, config.webhook)
    app = build(desk)
    crew = Crew(config, shelf, store)
    server = uvicorn.Server(
        uvicorn.Config(
            Gate(app, door),  # type: ignore[arg-type]
            http=PunctualProtocol,
            ws="none",
            lifespan="off",
            access_log=False,
            log_level="warning",
            backlog=BACKLOG,
            timeout_keep_alive=15,
            timeout_graceful_shutdown=5,
            server_header=False,
        )
    )
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    server.capture_signals = contextlib.nullcontext  # type: ignore[assignment, method-assign]
    crew.hire()
    serving = asyncio.create_task(server.serve([listener]))
    chores = [asyncio.create_task(_keep_house(desk, crew)), asyncio.create_task(feed_batches(app, desk))]
    if config.webhook is not None:
        chores.append(asyncio.create_task(_tell(store, config.webhook)))
    address, port = listener.getsockname()[:2]
    on_ready(f"http://{f'[{address}]' if ':' in address else address}:{port}")
    await asyncio.wait([serving, asyncio.create_task(stop.wait())], return_when=asyncio.FIRST_COMPLETED)
    door.draining = True
    for chore in chores:
        chore.cancel()
    await crew.dismiss()
    server.should_exit = True
    await serving


async def _tell(store: Store, webhook: Webhook) -> None:
    """Deliver events as they come; a slow receiver delays nothing else."""
    while True:
        try:
            await asyncio.to_thread(deliver_due, store, webhook)
        except Exception:
            log.exception("webhook")
        await asyncio.sleep(0.5)


async def _keep_house(desk: Desk, crew: "Crew") -> None:
    """Every half second: rescue lost jobs, replace lost workers, expire videos."""
    last = 0.0
    while True:
        try:
            await desk.write(desk.store.rescue)
            crew.mend()
            if time.monotonic() - last > 10:
                last = time.monotonic()
                for job in await desk.write(desk.store.expire):
                    await asyncio.to_thread(desk.shelf.drop, job)
        except sqlite3.Error as error:  # of a full disk one line now and then, not two pages a second
            log.error("cannot keep house: %s", error)
            await asyncio.sleep(PAUSE)
        except Exception:  # a broken row must not end the housekeeping
            log.exception("housekeeping")
        await asyncio.sleep(0.5)


class Crew:
    """The worker processes: replaced when they end, doubled by a fresh one when they fall silent."""

    def __init__(self, config: ServeConfig, shelf: Shelf, store: Store) -> None:
        self.config, self.shelf, self.store = config, shelf, store
        self.members: list[subprocess.Popen[bytes]] = []
        self.silent: list[subprocess.Popen[bytes]] = []
        self.hired_at: dict[int, float] = {}
        self.hired = 0
        self.not_before = 0.0

    def hire(self) -> None:
        """Start workers until there are as many as wanted."""
        while len(self.members) < self.config.workers and time.monotonic() >= self.not_before:
            keep = self.config.keep_hours
            self.hired += 1
            last = [f"worker-{self.hired}", "" if keep is None else str(keep * 3600)]
            if self.config.backend:
                started = ["mutoscope.serving.backend", str(self.shelf.root), self.config.backend, *last]
            else:
                model = [self.config.model, self.config.device or "", self.config.weights]
                started = ["mutoscope.serving.worker", str(self.shelf.root), *model, *last]
            shared = {DATABASE: self.config.database, OBJECTS: self.config.objects}  # others see arguments
            process = subprocess.Popen(
                [sys.executable, "-m", *started], stdin=subprocess.DEVNULL, env={**os.environ, **shared}
            )
            self.members.append(process)
            self.hired_at[process.pid] = time.monotonic()

    def mend(self) -> None:
        """Replace workers that ended or have been silent for a whole lease."""
        seen = {worker["owner"]: worker["silent"] for worker in self.store.workers()}
        for process in list(self.members):
            if process.poll() is not None:
                log.warning("worker %d ended with code %d", process.pid, process.returncode)
                self.members.remove(process)
                if time.monotonic() - self.hired_at.pop(process.pid) < 5:
                    self.not_before = time.monotonic() + 5  # it cannot even start: do not spin
                continue
            owner = owner_of(process.pid)
            if seen.get(owner, 0.0) > LEASE:
                log.warning("worker %d is silent; another takes its place", process.pid)
                self.store.write_off(owner)
                self.members.remove(process)
                self.silent.append(process)
        self.silent = [process for process in self.silent if process.poll() is None]
        self.store.forget_gone_workers()
        self.hire()

    async def dismiss(self) -> None:
        """Ask all to end, wait, kill who does not; their jobs go back to the queue."""
        for process in self.members:
            process.terminate()
        until = time.monotonic() + STOP_SECONDS
        while time.monotonic() < until and any(process.poll() is None for process in self.members):
            await asyncio.sleep(0.05)
        for process in (*self.members, *self.silent):
            if process.poll() is None:
                process.kill()
            process.wait()
        self.store.rescue()


def _hosts(config: ServeConfig) -> tuple[str, ...] | None:
    """Host names to answer to: on loopback only known ones, against pages that rebind a name of their own."""
    if _is_loopback(config.host) or config.hosts:
        return (*LOOPBACK, config.host.lower(), *(host.lower() for host in config.hosts))
    return None


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
        listener.listen(BACKLOG)
    except (OSError, OverflowError) as error:
        listener.close()
        reason = getattr(error, "strerror", None) or str(error)
        raise InputError(
            f"Cannot serve on {host} port {port}: {reason.lower()}; choose another port."
        ) from error
    return listener


def _raise_file_limit() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = FILES if hard == resource.RLIM_INFINITY else min(FILES, hard)
    if soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
