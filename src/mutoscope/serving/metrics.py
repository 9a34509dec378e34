"""How the server is: health for load balancers, numbers for Prometheus."""

from mutoscope.serving.gate import Door
from mutoscope.serving.jobs import LEASE, Store
from mutoscope.serving.protocol import HealthReply


def health(store: Store, door: Door) -> HealthReply:
    """ok while a heart has beaten within a lease; starting before the first worker, degraded after the last."""
    workers, counts = store.workers(), store.counts()
    silent = min((worker["silent"] for worker in workers), default=None)
    alive = [worker for worker in workers if worker["silent"] < LEASE]
    return HealthReply(
        status="draining"
        if door.draining
        else "ok"
        if alive
        else "starting"
        if silent is None
        else "degraded",
        workers=len(alive),
        heartbeat_s=None if silent is None else round(silent, 3),
        queued=counts.get("queued", 0),
        in_progress=counts.get("in_progress", 0),
    )


def metrics(store: Store, door: Door) -> str:
    """Prometheus' text format; sums over all tenants, no names and no prompts."""
    counts = store.counts()
    workers = store.workers()
    lines = ["# TYPE mutoscope_jobs gauge"]
    lines += [
        f'mutoscope_jobs{{status="{status}"}} {counts.get(status, 0)}'
        for status in ("queued", "in_progress", "completed", "failed")
    ]
    lines += [
        "# TYPE mutoscope_oldest_queued_seconds gauge",
        f"mutoscope_oldest_queued_seconds {store.oldest_queued():.3f}",
        "# TYPE mutoscope_workers gauge",
        f"mutoscope_workers {len(workers)}",
        "# TYPE mutoscope_worker_silent_seconds gauge",
    ]
    lines += [
        f'mutoscope_worker_silent_seconds{{worker="{worker["name"]}",device="{worker["device"]}"}} '
        f"{worker['silent']:.3f}"
        for worker in workers
    ]
    lines.append("# TYPE mutoscope_http_responses_total counter")
    lines += [
        f'mutoscope_http_responses_total{{method="{method}",status="{status}"}} {number}'
        for (method, status), number in sorted(door.answers.items())
        if method in ("GET", "POST", "DELETE", "HEAD")
    ]
    return "\n".join(lines) + "\n"
