"""The verbs of the server, its workers, its jobs and its keys."""

import os
import socket
from pathlib import Path
from typing import Annotated

import typer

from mutoscope.commands.options import ServerData, Weights
from mutoscope.errors import InputError

Database = Annotated[
    str | None,
    typer.Option(
        "--database",
        metavar="URL",
        envvar="MUTOSCOPE_DATABASE",
        help="Keep jobs and keys in this PostgreSQL, postgresql://USER@HOST/NAME; other users see what is "
        "written here, so give a password in the variable.",
    ),
]
Bucket = Annotated[
    str | None,
    typer.Option(
        "--objects",
        metavar="s3://BUCKET",
        envvar="MUTOSCOPE_OBJECTS",
        help="Keep videos in this S3-compatible bucket; $AWS_ENDPOINT_URL is its server.",
    ),
]


def serve(
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen on; 0 takes a free one.")] = 8000,
    model: Annotated[
        str | None,
        typer.Option(
            "-m",
            "--model",
            metavar="MODEL",
            help="A name of `mutoscope models list`, or a folder: tiny; with --backend a name there: its first.",
        ),
    ] = None,
    backend: Annotated[
        str | None,
        typer.Option(
            metavar="URL",
            help="Have videos made by this OpenAI-compatible video server; $MUTOSCOPE_BACKEND_KEY is its key.",
        ),
    ] = None,
    folder: ServerData = None,
    workers: Annotated[int, typer.Option(help="Processes that make videos; 0 with --database.")] = 1,
    device: Annotated[str | None, typer.Option(help="cpu, cuda or mps; else the best there is.")] = None,
    weights: Weights = "exact",
    allow_host: Annotated[list[str] | None, typer.Option(help="Another name of this server.")] = None,
    allow_origin: Annotated[list[str] | None, typer.Option(help="A site whose pages may use it.")] = None,
    keep_hours: Annotated[float | None, typer.Option(help="Delete finished videos after this time.")] = None,
    webhook: Annotated[
        str | None,
        typer.Option(
            metavar="URL", help="Tell this address of finished videos; $MUTOSCOPE_WEBHOOK_SECRET signs."
        ),
    ] = None,
    allow_webhook: Annotated[
        list[str] | None,
        typer.Option(metavar="URL", help="Where a video's own webhook_url may be: https://HOST."),
    ] = None,
    database: Database = None,
    objects: Bucket = None,
) -> None:
    """Serve the OpenAI video API, and a web page, over HTTP."""
    from mutoscope.serving.server import ServeConfig, default_data
    from mutoscope.serving.server import serve as run
    from mutoscope.serving.webhooks import Webhook
    from mutoscope.terminal import Say

    fewest = 0 if database and objects else 1
    if not fewest <= workers <= 64:
        raise InputError(f"--workers is {workers}; choose {fewest} to 64.")
    if not 0 <= port <= 65535:
        raise InputError(f"--port is {port}; choose 0 to 65535.")
    say = Say()
    data_folder = folder or default_data()

    def announce(url: str) -> None:
        say.note("page", url)
        say.note("api", f"{url}/v1 (OpenAI video API)")
        say.note("data", f"{data_folder}; Ctrl-C stops, queued jobs stay")

    secret = os.environ.get("MUTOSCOPE_WEBHOOK_SECRET", "")
    run(
        ServeConfig(
            data=data_folder,
            model=model or ("" if backend else "tiny"),
            host=host,
            port=port,
            workers=workers,
            device=device,
            weights=weights,
            hosts=tuple(allow_host or ()),
            origins=tuple(allow_origin or ()),
            keep_hours=keep_hours,
            webhook=Webhook(webhook or "", secret, tuple(allow_webhook or ()))
            if webhook or allow_webhook
            else None,
            backend=backend or "",
            database=database or "",
            objects=objects or "",
        ),
        announce,
    )


def worker(
    database: Database = None,
    objects: Bucket = None,
    model: Annotated[
        str, typer.Option("-m", "--model", metavar="MODEL", help="That of the server.")
    ] = "tiny",
    device: Annotated[str | None, typer.Option(help="cpu, cuda or mps; else the best there is.")] = None,
    weights: Weights = "exact",
    folder: Annotated[
        Path | None, typer.Option("--data", metavar="DIR", help="A folder of its own; else one in your data.")
    ] = None,
    name: Annotated[
        str | None, typer.Option(help="What /metrics calls it; else this machine's name.")
    ] = None,
    keep_hours: Annotated[float | None, typer.Option(help="As the server's.")] = None,
) -> None:
    """Make videos here for a server on another machine: same PostgreSQL, same bucket, same model."""
    if not database or not objects:
        missing = "--objects (or $MUTOSCOPE_OBJECTS)" if database else "--database (or $MUTOSCOPE_DATABASE)"
        raise InputError(f"A worker needs {missing}; give it what the server was given.")
    from mutoscope.serving.server import default_data
    from mutoscope.serving.worker import Alone, work_alone

    code = work_alone(
        Alone(
            data=folder or default_data() / "worker",
            database=database,
            objects=objects,
            model=model,
            device=device or "",
            weights=weights,
            name=name or socket.gethostname(),
            keep_seconds=None if keep_hours is None else keep_hours * 3600,
        )
    )
    raise typer.Exit(code)


def jobs_list(
    folder: ServerData = None,
    count: Annotated[int, typer.Option("-n", help="How many, newest first.")] = 20,
    database: Database = None,
) -> None:
    """Show the newest jobs of all tenants."""
    from mutoscope.serving.server import open_store
    from mutoscope.terminal import Say

    rows = {
        job.id: f"{job.status} {job.progress} %, {job.order.size}, {job.order.seconds:g} s, of {job.tenant}"
        for job in open_store(folder, database).all_jobs(count)
    }
    Say().table(dict(rows) or {"none": "no jobs yet"})


def jobs_cancel(
    job: Annotated[str, typer.Argument(help="Its id.")],
    folder: ServerData = None,
    database: Database = None,
) -> None:
    """Stop a waiting or running job."""
    from mutoscope.serving.server import open_store

    store = open_store(folder, database)
    found = store.find(job)
    if found is None:
        raise InputError(f"There is no job {job!r}; `mutoscope jobs list` shows them.")
    ended = store.cancel(found.tenant, found.id)
    print(found.status if ended is None else ended.status)


def keys_create(
    name: Annotated[str, typer.Argument(help="Whose key it is.")],
    tenant: Annotated[str | None, typer.Option(help="Whose videos it sees; else those of NAME.")] = None,
    folder: ServerData = None,
    database: Database = None,
) -> None:
    """Make a key and show it, this once."""
    from mutoscope.serving.keys import create_key
    from mutoscope.serving.server import open_store

    print(create_key(open_store(folder, database), name, tenant)[1])


def keys_list(folder: ServerData = None, database: Database = None) -> None:
    """Show the keys, without their secrets."""
    from mutoscope.serving.keys import list_keys
    from mutoscope.serving.server import open_store
    from mutoscope.terminal import Say

    found = list_keys(open_store(folder, database))
    rows = {
        key.id: f"{key.name}, tenant {key.tenant}" + (", revoked" if key.revoked_at else "") for key in found
    }
    Say().table(dict(rows) or {"none": "no keys yet; the server only lets this machine in"})


def keys_revoke(
    key: Annotated[str, typer.Argument(help="Its id, as `keys list` shows it.")],
    folder: ServerData = None,
    database: Database = None,
) -> None:
    """End a key; the server notices within a second."""
    from mutoscope.serving.keys import revoke_key
    from mutoscope.serving.server import open_store

    revoke_key(open_store(folder, database), key)
