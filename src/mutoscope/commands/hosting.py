"""The verbs of the server, its jobs and its keys."""

import os
from typing import Annotated

import typer

from mutoscope.commands.options import ServerData
from mutoscope.errors import InputError


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
    workers: Annotated[int, typer.Option(help="Processes that make videos, each with the model.")] = 1,
    device: Annotated[str | None, typer.Option(help="cpu, cuda or mps; else the best there is.")] = None,
    allow_host: Annotated[list[str] | None, typer.Option(help="Another name of this server.")] = None,
    allow_origin: Annotated[list[str] | None, typer.Option(help="A site whose pages may use it.")] = None,
    keep_hours: Annotated[float | None, typer.Option(help="Delete finished videos after this time.")] = None,
    webhook: Annotated[
        str | None,
        typer.Option(
            metavar="URL", help="Tell this address of finished videos; $MUTOSCOPE_WEBHOOK_SECRET signs."
        ),
    ] = None,
) -> None:
    """Serve the OpenAI video API, and a web page, over HTTP."""
    from mutoscope.serving.server import ServeConfig, default_data
    from mutoscope.serving.server import serve as run
    from mutoscope.serving.webhooks import Webhook
    from mutoscope.terminal import Say

    if not 1 <= workers <= 64:
        raise InputError(f"--workers is {workers}; choose 1 to 64.")
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
            hosts=tuple(allow_host or ()),
            origins=tuple(allow_origin or ()),
            keep_hours=keep_hours,
            webhook=None if webhook is None else Webhook(webhook, secret),
            backend=backend or "",
        ),
        announce,
    )


def jobs_list(
    folder: ServerData = None, count: Annotated[int, typer.Option("-n", help="How many, newest first.")] = 20
) -> None:
    """Show the newest jobs of all tenants."""
    from mutoscope.serving.server import open_store
    from mutoscope.terminal import Say

    rows = {
        job.id: f"{job.status} {job.progress} %, {job.order.size}, {job.order.seconds:g} s, of {job.tenant}"
        for job in open_store(folder).all_jobs(count)
    }
    Say().table(dict(rows) or {"none": "no jobs yet"})


def jobs_cancel(job: Annotated[str, typer.Argument(help="Its id.")], folder: ServerData = None) -> None:
    """Stop a waiting or running job."""
    from mutoscope.serving.server import open_store

    store = open_store(folder)
    found = store.find(job)
    if found is None:
        raise InputError(f"There is no job {job!r}; `mutoscope jobs list` shows them.")
    ended = store.cancel(found.tenant, found.id)
    print(found.status if ended is None else ended.status)


def keys_create(
    name: Annotated[str, typer.Argument(help="Whose key it is.")],
    tenant: Annotated[str | None, typer.Option(help="Whose videos it sees; else those of NAME.")] = None,
    folder: ServerData = None,
) -> None:
    """Make a key and show it, this once."""
    from mutoscope.serving.keys import create_key
    from mutoscope.serving.server import open_store

    print(create_key(open_store(folder), name, tenant)[1])


def keys_list(folder: ServerData = None) -> None:
    """Show the keys, without their secrets."""
    from mutoscope.serving.keys import list_keys
    from mutoscope.serving.server import open_store
    from mutoscope.terminal import Say

    found = list_keys(open_store(folder))
    rows = {
        key.id: f"{key.name}, tenant {key.tenant}" + (", revoked" if key.revoked_at else "") for key in found
    }
    Say().table(dict(rows) or {"none": "no keys yet; the server only lets this machine in"})


def keys_revoke(
    key: Annotated[str, typer.Argument(help="Its id, as `keys list` shows it.")], folder: ServerData = None
) -> None:
    """End a key; the server notices within a second."""
    from mutoscope.serving.keys import revoke_key
    from mutoscope.serving.server import open_store

    revoke_key(open_store(folder), key)
