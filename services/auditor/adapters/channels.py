"""Where alerts go: stdout, a file, a signed webhook (standardwebhooks.com), and everything that apprise speaks.

A channel raises ChannelError when it could not deliver; the message may then have arrived all the same.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import hashlib
import hmac
import json
import sys
from pathlib import Path
from typing import TextIO

import httpx

from services.auditor.domain.alert_book import as_text
from shared.clock import Clock
from shared.errors import ContractError, TransientError
from shared.events import Alert

_TIMEOUT_S = 5.0


class ChannelError(TransientError):
    code = "channel"


class Stdout:
    name = "stdout"

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = stream

    async def send(self, alert: Alert) -> None:
        print(as_text(alert), file=self._stream or sys.stdout, flush=True)


class AlertLog:
    """A file that grows by one paragraph an alert."""

    name = "file"

    def __init__(self, path: Path) -> None:
        self._path = path

    async def send(self, alert: Alert) -> None:
        try:
            await asyncio.to_thread(self._append, as_text(alert) + "\n\n")
        except OSError as fault:
            raise ChannelError(f"the alert file {self._path} cannot be written", cause=str(fault)) from fault

    def _append(self, text: str) -> None:
        with self._path.open("a", encoding="utf-8") as file:
            file.write(text)


class Webhook:
    """A POST of the alert as JSON, signed as Standard Webhooks says; anything but 2xx is a failure."""

    name = "webhook"

    def __init__(self, url: str, secret: str, client: httpx.AsyncClient, clock: Clock) -> None:
        self._url = url
        self._key = webhook_key(secret)
        self._client = client
        self._clock = clock

    async def send(self, alert: Alert) -> None:
        now = self._clock()
        data = alert.model_dump(mode="json", exclude_none=True)
        body = json.dumps({"type": f"alert.{alert.status}", "timestamp": now.isoformat(), "data": data}).encode()
        # The same alert again has the same id, so that a receiver can tell a repetition.
        message_id = f"msg_{alert.fingerprint}_{hashlib.sha256(as_text(alert).encode()).hexdigest()[:16]}"
        seconds = str(int(now.timestamp()))
        headers = {
            "content-type": "application/json",
            "webhook-id": message_id,
            "webhook-timestamp": seconds,
            "webhook-signature": signature(self._key, message_id, seconds, body),
        }
        try:
            answer = await self._client.post(self._url, content=body, headers=headers, timeout=_TIMEOUT_S)
        except httpx.HTTPError as fault:
            raise ChannelError("the webhook cannot be reached", cause=f"{type(fault).__name__}: {fault}") from fault
        if not answer.is_success:
            raise ChannelError("the webhook refused the alert", cause=f"HTTP {answer.status_code}")


class AppriseChannel:
    """Mail, chat and the rest, by apprise's URLs."""

    name = "apprise"

    def __init__(self, urls: list[str]) -> None:
        # It knows more than a hundred services and takes its time to import; few houses need it.
        import apprise

        self._apprise = apprise.Apprise()
        self._kinds = {"resolved": apprise.NotifyType.SUCCESS, "firing": apprise.NotifyType.FAILURE}
        for number, url in enumerate(urls, start=1):
            if not self._apprise.add(url):
                # The URL itself may hold a secret: name its line only.
                raise ContractError(f"line {number} of the apprise URLs is none", fix="see apprise's list of services")

    async def send(self, alert: Alert) -> None:
        title = f"asof: {alert.labels['alertname']} {alert.status}"
        delivered = await asyncio.to_thread(
            self._apprise.notify, body=as_text(alert), title=title, notify_type=self._kinds[alert.status]
        )
        if not delivered:
            raise ChannelError("apprise could not deliver the alert", cause="at least one of its services refused")


def webhook_key(secret: str) -> bytes:
    """The key in a `whsec_<base64>` secret."""
    try:
        key = base64.b64decode(secret.strip().removeprefix("whsec_"), validate=True)
    except binascii.Error as fault:
        raise ContractError("the webhook secret is no base64", cause=str(fault), fix="whsec_<base64>") from fault
    if not 24 <= len(key) <= 64:
        raise ContractError(f"the webhook secret has {len(key)} bytes", fix="use 24 to 64 random bytes")
    return key


def signature(key: bytes, message_id: str, seconds: str, body: bytes) -> str:
    signed = f"{message_id}.{seconds}.".encode() + body
    return "v1," + base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode()
