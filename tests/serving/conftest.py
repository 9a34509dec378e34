"""What the tests of the server share: orders, an application without workers, and whole servers."""

import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import pytest

from mutoscope.serving.api import build
from mutoscope.serving.desk import Desk
from mutoscope.serving.gate import Door, Gate
from mutoscope.serving.jobs import Job, QueueLimits, Store, Submission
from mutoscope.serving.keys import Keyring
from mutoscope.serving.orders import Order
from mutoscope.serving.shelf import FILES, Shelf
from mutoscope.weights.card import ModelCard

PATIENCE = float(os.environ.get("MUTOSCOPE_TEST_PATIENCE", "60"))
"""Seconds that a test waits for something that takes a fraction of one; more on a crowded machine."""

ORDER = Order("create", "a red ball", "sora-2", "tiny", 64, 64, 64, 64, 9, 8.0, 4, 3.0, "euler", 7)

START = """
import sys
from pathlib import Path
from mutoscope.serving.jobs import QueueLimits
from mutoscope.serving.server import ServeConfig, serve
from mutoscope.serving.webhooks import Webhook
data, model, port, webhook, secret, backend = sys.argv[1:]
serve(
    ServeConfig(
        data=Path(data),
        model="" if backend else model,
        port=int(port),
        device="cpu",
        webhook=Webhook(webhook, secret) if webhook else None,
        backend=backend,
    ),
    lambda url: print(url, flush=True),
)
"""


@pytest.fixture
def order() -> Order:
    return ORDER


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "data" / "jobs.sqlite3")


@pytest.fixture(scope="session")
def cluster() -> Iterator[str]:
    """The URL of a PostgreSQL of our own, on a socket in a folder that goes with it."""
    pytest.importorskip("psycopg")
    if not all(map(shutil.which, ("initdb", "postgres"))):
        pytest.skip("no PostgreSQL is installed here")
    folder = tempfile.mkdtemp(prefix="pg")
    nobody = []
    if os.geteuid() == 0:  # PostgreSQL does not run as root
        os.chown(folder, 65534, 65534)
        nobody = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]
    made = [
        *nobody,
        "initdb",
        "-A",
        "trust",
        "-U",
        "tester",
        "-D",
        f"{folder}/data",
        "--no-sync",
        "-E",
        "UTF8",
    ]
    running = ["postgres", "-F", "-D", f"{folder}/data", "-k", folder, "-c", "listen_addresses="]
    try:
        subprocess.run(made, check=True, cwd=folder, stdout=subprocess.DEVNULL)
        with open(f"{folder}/log", "wb") as log:
            process = subprocess.Popen([*nobody, *running], cwd=folder, stdout=log, stderr=log)
        try:
            url = f"postgresql://tester@/postgres?host={folder}"
            _wait_for_postgres(url)
            yield url
        finally:
            process.send_signal(signal.SIGQUIT)
            process.wait()
    finally:
        shutil.rmtree(folder)


def _wait_for_postgres(url: str) -> None:
    import psycopg

    until = time.monotonic() + PATIENCE
    while True:
        try:
            psycopg.connect(url).close()
            return
        except psycopg.OperationalError:
            if time.monotonic() > until:
                raise
            time.sleep(0.1)


@pytest.fixture
def postgres(cluster: str) -> str:
    """A store that nobody has used, as a URL."""
    import psycopg

    name = f"s{secrets.token_hex(4)}"
    with psycopg.connect(cluster, autocommit=True) as db:
        db.execute(f"CREATE SCHEMA {name}")
    return f"{cluster}&options=-csearch_path%3D{name}"


@pytest.fixture(scope="session")
def s3_server() -> Iterator[str]:
    """The address of an S3 server of our own, in a process of its own."""
    pytest.importorskip("boto3")
    pytest.importorskip("moto")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        until = time.monotonic() + PATIENCE
        while True:
            with suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                break
            assert time.monotonic() < until, "the S3 server did not start"
            time.sleep(0.1)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.kill()
        process.wait()


@pytest.fixture
def bucket(s3_server: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """A bucket of the test's own."""
    import boto3

    monkeypatch.setenv("AWS_ENDPOINT_URL", s3_server)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "tester")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hunter2")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    name = f"b{secrets.token_hex(4)}"
    client = boto3.client("s3")
    client.create_bucket(Bucket=name)
    client.close()
    return f"s3://{name}"


Submit = Callable[..., Job]


@pytest.fixture
def submit(store: Store, submit_to: Submit) -> Submit:
    """Queue an order for a tenant."""
    return partial(submit_to, store)


@pytest.fixture
def submit_to() -> Submit:
    """Queue an order in a store for a tenant."""

    def queue(store: Store, tenant: str = "local", **changes: object) -> Job:
        number = replace(ORDER, **changes)  # type: ignore[arg-type]
        return store.submit(Submission(tenant, number, "print"), QueueLimits())[0]

    return queue


@pytest.fixture
def desk(store: Store) -> Iterator[Desk]:
    """A desk over the store, for an application in this process; nobody works on its jobs."""
    desk = Desk(Shelf(store.path.parent), store, ModelCard("tiny"), Door(Keyring(store), ("testserver",)))
    yield desk
    desk.reads.shutdown()
    desk.writes.shutdown()


@pytest.fixture
def app(desk: Desk) -> Gate:
    return Gate(build(desk), desk.door)  # type: ignore[arg-type]


@pytest.fixture
def finish(desk: Desk) -> Callable[[Job], None]:
    """Publish a job as a worker would, with files that say their names."""

    def publish(job: Job) -> None:
        claimed = desk.store.claim("boot:1:1")
        assert claimed is not None
        assert claimed.id == job.id
        folder = desk.shelf.attempt(claimed)
        folder.mkdir(parents=True)
        for name, _ in FILES.values():
            (folder / name).write_bytes(name.encode() * 100)
        (folder / "recipe.json").write_text("{}")
        assert desk.store.complete(claimed, None)

    return publish


@dataclass
class Live:
    """A server in a process group of its own."""

    data: Path
    model: Path
    webhook: str = ""
    secret: str = ""
    port: int = 0
    url: str = ""
    process: subprocess.Popen[str] | None = None
    backend: str = ""

    @property
    def log(self) -> Path:
        """What the server and its workers wrote to stderr."""
        return self.data.with_suffix(".log")

    def start(self) -> "Live":
        """Start (again, on the same port) and wait until it answers."""
        arguments = [str(self.data), str(self.model), str(self.port), self.webhook, self.secret, self.backend]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-c", START, *arguments],
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                start_new_session=True,
            )
        assert self.process.stdout is not None
        self.url = self.process.stdout.readline().strip()
        assert self.url, "the server did not start"
        self.port = int(self.url.rpartition(":")[2])
        return self

    def wait_for_worker(self) -> None:
        until = time.monotonic() + PATIENCE
        while time.monotonic() < until:
            with (
                suppress(urllib.error.HTTPError),
                urllib.request.urlopen(f"{self.url}/health", timeout=PATIENCE),
            ):
                return
            time.sleep(0.1)
        raise AssertionError("no worker came up")

    def kill(self) -> None:
        """kill -9 of the server and its workers."""
        assert self.process is not None
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.communicate()

    def end(self) -> None:
        """Leave nothing running."""
        if self.process is not None and self.process.poll() is None:
            self.kill()

    def stop(self) -> int:
        """SIGTERM; returns the exit code."""
        assert self.process is not None
        self.process.terminate()
        self.process.communicate(timeout=PATIENCE)
        return self.process.returncode


@pytest.fixture(scope="session")
def live(model_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    """One server with a worker for all tests that only use it."""
    server = Live(tmp_path_factory.mktemp("live"), model_folder)
    try:
        server.start().wait_for_worker()
        yield server
    finally:
        server.end()


@pytest.fixture
def fresh(model_folder: Path, tmp_path: Path) -> Iterator[Live]:
    """A server of its own for a test that harms it; not yet started."""
    server = Live(tmp_path / "fresh", model_folder)
    try:
        yield server
    finally:
        server.end()


@pytest.fixture(scope="session")
def patience() -> float:
    return PATIENCE
