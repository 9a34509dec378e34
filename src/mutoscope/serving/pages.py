"""What is not about one video: the models, health, metrics and the parts of the web page."""

from pathlib import Path

from fastapi import Request
from fastapi.responses import FileResponse, JSONResponse, Response

from mutoscope.serving.desk import desk_of, if_unchanged
from mutoscope.serving.metrics import health, metrics
from mutoscope.serving.protocol import ALIASES, ModelReply, ModelsReply, check_model, spoken
from mutoscope.weights.card import ModelCard

UI = Path(__file__).parent / "ui"
PROMETHEUS = "text/plain; version=0.0.4; charset=utf-8"


async def list_models(request: Request) -> ModelsReply:
    """The models that this server draws with, and the names of the old API that they answer to."""
    return ModelsReply(data=[_model(desk_of(request).card)])


async def retrieve_model(request: Request, model: str) -> ModelReply:
    """A model by its name or one that it answers to."""
    card = desk_of(request).card
    check_model(card, model)
    return _model(card)


def _model(card: ModelCard) -> ModelReply:
    own = card.defaults
    return ModelReply(
        id=card.name,
        aliases=list(ALIASES),
        size=f"{own.width}x{own.height}",
        seconds=spoken(own.frames / own.fps),
        fps=own.fps,
        steps=own.steps,
        guidance=own.guidance,
        sampler=own.sampler,
    )


async def get_health(request: Request) -> JSONResponse:
    """Whether the server can make videos: 200 while a worker's heart beats, else 503."""
    desk = desk_of(request)
    state = await desk.read(health, desk.store, desk.door)
    return JSONResponse(state.model_dump(), 200 if state.status == "ok" else 503)


async def get_metrics(request: Request) -> Response:
    """Counters and gauges in Prometheus' text format."""
    desk = desk_of(request)
    text = await desk.read(metrics, desk.store, desk.door)
    return Response(text, media_type=PROMETHEUS)


async def asset(request: Request) -> Response:
    """The page and its parts."""
    path = UI / (request.url.path.removeprefix("/") or "index.html")
    answer = FileResponse(path, stat_result=path.stat(), headers={"cache-control": "no-cache"})
    return if_unchanged(request, answer) or answer
