"""MLflow's hooks, read as requests that anybody may send, and the log of what was decided about each."""

import asyncio
import base64
import contextlib
import hashlib
import hmac
import re
import time
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from fastapi import HTTPException, Request
from pydantic import AfterValidator, BaseModel, Field, ValidationError
from starlette.requests import ClientDisconnect

from medsam_helpers.mlops.journal import Journal, Record, read_records
from medsam_helpers.mlops.registry import check_model_name

PATIENCE_S = 20
_MAX_BODY = 1_000_000
_Word = Annotated[str, Field(pattern="^[a-z_]{1,40}$")]


class _Hook(BaseModel):
    entity: _Word
    action: _Word
    data: dict[str, Any]


class NewAlias(BaseModel):
    """What a hook says of an alias that was set; the version is written as the registry writes it."""

    name: Annotated[str, AfterValidator(check_model_name)]
    version: Annotated[str, Field(pattern="^[1-9][0-9]{0,8}$")]
    alias: Annotated[str, Field(max_length=256)]


def sign(secret: str, delivery: str, timestamp: str, body: bytes) -> str:
    """The signature that MLflow sends, `v1,` and the base64 of an HMAC-SHA256.

    Args:
        delivery: id of the request; `timestamp` is its time in seconds since 1970.
    Source: MLflow's documentation, "Webhooks", section on signature verification.

    >>> sign("secret", "1", "2", b"{}")
    'v1,72EbzgLDv52tyOY4YC27IQSjiGr5nutKKXvEM56cM3U='
    """
    signed = f"{delivery}.{timestamp}.".encode() + body
    return "v1," + base64.b64encode(hmac.new(secret.encode(), signed, hashlib.sha256).digest()).decode()


async def read_body(request: Request) -> bytes:
    """The body, counted as it comes, whatever its header says; 413 if it is too long, 408 if it does not come."""
    too_long, body = HTTPException(413, "the body is too long, or its length is not said"), bytearray()
    if "transfer-encoding" in request.headers:
        raise too_long
    try:
        async with asyncio.timeout(PATIENCE_S):
            async for part in request.stream():
                body += part
                if len(body) > _MAX_BODY:
                    raise too_long
    except (TimeoutError, ClientDisconnect) as error:
        raise HTTPException(408, "the body did not come whole in time") from error
    return bytes(body)


def read_hook(headers: Mapping[str, str], body: bytes, secret: str, tolerance_s: int) -> tuple[str, NewAlias | None]:
    """What happened, and the alias if one was set; 401 if the hook is forged or stale, 400 if it is none."""
    delivery, timestamp = (headers.get(f"x-mlflow-{name}", "") for name in ("delivery-id", "timestamp"))
    expected = sign(secret, delivery, timestamp, body)
    if not hmac.compare_digest(expected.encode(), headers.get("x-mlflow-signature", "").encode()):
        raise HTTPException(401, "the signature does not fit")
    if not re.fullmatch("[0-9]{1,12}", timestamp) or abs(time.time() - int(timestamp)) > tolerance_s:
        raise HTTPException(401, "the time is too far from now")
    if not (1 <= len(delivery) <= 80 and delivery.isprintable()):
        raise HTTPException(400, "the delivery's id is none of MLflow's")
    try:
        hook = _Hook.model_validate_json(body)
        happened = f"{hook.entity} {hook.action}"
        return happened, NewAlias.model_validate(hook.data) if happened == "model_version_alias created" else None
    except ValidationError as error:
        raise HTTPException(400, "the body is no hook of MLflow") from error


def read_decisions(log: Path) -> list[Record]:
    """What a relay has recorded, the oldest first: kind, time in milliseconds, delivery, what.

    Kinds: "accepted", written before anything is done; "failed", GitHub did not take it; "refused", of which `times`
    more came within the same minute.
    """
    return [record for record, _ in read_records(log)]


class Decisions:
    """The log of a relay, and what is known from it after a restart too."""

    def __init__(self, log: Path) -> None:
        self._journal, self._since = Journal(log), 0.0
        log.touch()
        log.chmod(0o600)
        self._accepted, self._refused = dict[str, Record](), Counter[str]()
        for record in read_decisions(log):
            if record.get("kind") == "accepted":
                self._accepted[record["delivery"]] = record
            elif record.get("kind") == "failed":
                self._accepted.pop(record["delivery"], None)

    def accept(self, delivery: str, what: str, model: tuple[str, str] | None = None) -> None:
        """Record it before it is done; 409 if it was accepted before, 507 if the record cannot be written."""
        if delivery in self._accepted:
            raise HTTPException(409, "this delivery was seen before")
        try:
            self._journal.write("accepted", delivery=delivery, what=what, model=model)
        except OSError as error:
            raise HTTPException(507, "the relay's log cannot be written") from error
        self._accepted[delivery] = {"time": time.time() * 1000, "model": model}

    def fail(self, delivery: str, what: str) -> None:
        """Record that GitHub did not take it: it may come again."""
        del self._accepted[delivery]
        with contextlib.suppress(OSError):
            self._journal.write("failed", delivery=delivery, what=what)

    def refuse(self, delivery: str, what: str) -> None:
        """Record the first refusal for a reason at once, and the number of others when a minute is over."""
        if time.monotonic() > self._since + 60:
            self.count()
        self._refused[what] += 1
        if self._refused[what] == 1:
            with contextlib.suppress(OSError):  # the answer is the same
                self._journal.write("refused", delivery=delivery[:80], what=what)

    def count(self) -> None:
        """Record how many refusals were not recorded."""
        more, self._refused, self._since = self._refused - Counter(self._refused.keys()), Counter(), time.monotonic()
        for what, times in more.items():
            with contextlib.suppress(OSError):
                self._journal.write("refused", delivery="", what=what, times=times)

    def lately(self, model: tuple[str, str]) -> bool:
        """Whether this version of a model was passed on within the hour."""
        since = (time.time() - 3600) * 1000
        return any(tuple(known["model"] or ()) == model and known["time"] > since for known in self._accepted.values())
