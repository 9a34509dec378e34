"""What may be made here: a hook before a job is queued and before its video is published, with reasons.

Off unless the data folder has a policy.toml: rules of refused words and patterns, an HTTP endpoint that is asked, or
both (rules first). The endpoint gets a POST of JSON {stage: "queue" or "publish", task, model, prompt,
negative_prompt, images: [JPEG sheet of the video's frames, base64]} and answers {allowed: true or false, reason}.

    [[rules]]
    words = ["somebody famous"]
    patterns = ["nu(de|dity)"]
    reason = "Real people are not shown here."

    [endpoint]
    url = "http://127.0.0.1:9000/judge"
    timeout_s = 5.0
    fail_closed = true
"""

import base64
import json
import re
import unicodedata
import urllib.error
import urllib.request
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

from mutoscope.config import from_dict, read_table
from mutoscope.errors import InputError
from mutoscope.serving.orders import Order

Stage = Literal["queue", "publish"]

REASON = "The policy of this server does not allow it."
LONGEST = 500
"""Characters of a reason that are passed on."""

ANSWER_BYTES = 65_536


@dataclass(frozen=True)
class Rule:
    """Prompts with one of the words (whole, in any case) or patterns (Python's `re`) are refused."""

    words: tuple[str, ...] = ()
    patterns: tuple[str, ...] = ()
    reason: str = REASON

    def __post_init__(self) -> None:
        for pattern in self.patterns:
            try:
                re.compile(pattern)
            except re.error as error:
                raise InputError(
                    f"The policy's pattern {pattern!r} is not valid ({error}); mend it."
                ) from error

    @cached_property
    def refused(self) -> re.Pattern[str]:
        words = [rf"(?<!\w){re.escape(plain(word))}(?!\w)" for word in self.words if plain(word)]
        return re.compile("|".join([*words, *(f"(?:{pattern})" for pattern in self.patterns)]), re.IGNORECASE)

    def refuses(self, text: str) -> bool:
        return bool(self.refused.pattern) and self.refused.search(plain(text)) is not None


@dataclass(frozen=True)
class Endpoint:
    """Who is asked; without an answer within `timeout_s` seconds a video is refused if `fail_closed`."""

    url: str
    timeout_s: float = 5.0
    fail_closed: bool = True

    def __post_init__(self) -> None:
        parts = urlsplit(self.url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise InputError(f"The policy's endpoint {self.url!r} is no address; write https://HOST/PATH.")
        if not 0 < self.timeout_s <= 60:
            raise InputError(f"The policy's timeout_s is {self.timeout_s:g}; choose up to 60 seconds.")


@dataclass(frozen=True)
class Policy:
    """All rules and who is asked; the empty one allows everything."""

    rules: tuple[Rule, ...] = field(default=())
    endpoint: Endpoint | None = None


@dataclass(frozen=True)
class Refusal:
    """Why not: "moderation_blocked" for good, "policy_unavailable" when nobody could be asked."""

    code: Literal["moderation_blocked", "policy_unavailable"]
    reason: str


class Refused(Exception):
    """A video that is not published."""

    def __init__(self, refusal: Refusal) -> None:
        super().__init__(refusal.reason)
        self.refusal = refusal


def read_policy(path: Path) -> Policy:
    """The policy of a server; the empty one when there is no file. Raises InputError for one that is not valid."""
    return from_dict(Policy, read_table(path), str(path)) if path.exists() else Policy()


def judge(policy: Policy, stage: Stage, order: Order, sheet: Path | None = None) -> Refusal | None:
    """Whether an order, or the video made of it (`sheet`: a JPEG of its frames), is refused; waits for the endpoint.

    What is not to be seen may be named: rules look at the prompt alone.
    """
    for rule in policy.rules:
        if rule.refuses(order.words):
            return Refusal("moderation_blocked", rule.reason)
    if policy.endpoint is None:
        return None
    images = [base64.b64encode(sheet.read_bytes()).decode()] if sheet is not None else []
    told = {
        "stage": stage,
        "task": order.task,
        "model": order.served_by,
        "prompt": order.words,
        "negative_prompt": order.negative,
        "images": images,
    }
    answer = _ask(policy.endpoint, told)
    if answer is None:
        if not policy.endpoint.fail_closed:
            return None
        return Refusal(
            "policy_unavailable", "The policy of this server cannot be asked now; try again later."
        )
    if answer["allowed"]:
        return None
    reason = answer.get("reason")
    return Refusal("moderation_blocked", reason[:LONGEST] if isinstance(reason, str) and reason else REASON)


def plain(text: str) -> str:
    """Letters as they are compared: compatible forms made one, accents and invisible characters left out."""
    letters = unicodedata.normalize("NFKD", text).casefold()
    kept = "".join(letter for letter in letters if unicodedata.category(letter) not in ("Mn", "Cf"))
    return " ".join(kept.split())


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """An endpoint does not send prompts elsewhere."""

    def redirect_request(self, *_: object) -> None:
        return None


_opener = urllib.request.build_opener(_NoRedirect, urllib.request.ProxyHandler({}))


def _ask(endpoint: Endpoint, told: dict[str, Any]) -> dict[str, Any] | None:
    """The endpoint's answer, None when it gives none that can be understood."""
    headers = {"content-type": "application/json", "user-agent": "mutoscope"}
    request = urllib.request.Request(endpoint.url, json.dumps(told).encode(), headers, method="POST")
    try:
        with _opener.open(request, timeout=endpoint.timeout_s) as reply:
            answer = json.loads(reply.read(ANSWER_BYTES))
    except (urllib.error.URLError, OSError, ValueError):
        return None
    return answer if isinstance(answer, dict) and isinstance(answer.get("allowed"), bool) else None
