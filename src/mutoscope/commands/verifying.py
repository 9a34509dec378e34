"""The verb that tells where a clip came from."""

import json
from dataclasses import asdict
from typing import Annotated

import typer

from mutoscope.commands.options import Clip, ServerData


def verify(
    file: Clip,
    folder: ServerData = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Tell where a clip came from, and if it was tampered with.

    Checks its recipe, sidecar, C2PA manifest and watermark. Exit code 1 when one is broken or none is
    there. The CA in the server's folder is the one that is trusted.
    """
    from mutoscope.serving.provenance import trace
    from mutoscope.serving.server import default_data
    from mutoscope.serving.shelf import Shelf
    from mutoscope.terminal import Say

    anchor = Shelf(folder or default_data()).provenance / "ca.pem"
    findings = trace(file, anchor.read_text() if anchor.exists() else "")
    states = {finding.state for finding in findings}
    verdict = "broken" if "broken" in states else "no trace" if states == {"absent"} else "holds"
    if as_json:
        print(
            json.dumps({"path": str(file), "verdict": verdict, "traces": [asdict(each) for each in findings]})
        )
    else:
        Say().table({finding.kind: f"{finding.state}: {finding.says}" for finding in findings})
    if verdict != "holds":
        raise typer.Exit(1)
