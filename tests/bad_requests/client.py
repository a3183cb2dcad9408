"""Sending of a case to a running service, and its answer."""

from __future__ import annotations

import socket
from dataclasses import dataclass
from urllib.parse import urlsplit

import httpx

from bad_requests.case import Bad, Http, Wire

PATIENCE_S = 20


@dataclass(frozen=True)
class Answer:
    """The answer; of a body that is no JSON, the text."""

    status: int
    headers: httpx.Headers
    content: bytes


def send(case: Bad, client: httpx.Client) -> Answer:
    """Send a case, over a connection of its own if it is bytes."""
    match case.request:
        case Http(method, path, body, headers):
            request = client.build_request(method, path, content=body, headers=dict(headers))
            response = client.send(request)
            return Answer(response.status_code, response.headers, response.content)
        case Wire(sent):
            return _exchange(str(client.base_url), sent)


def _exchange(url: str, sent: bytes) -> Answer:
    """Send bytes and read until the server closes the connection."""
    address = urlsplit(url)
    assert address.hostname is not None
    with socket.create_connection((address.hostname, address.port or 80), PATIENCE_S) as connection:
        connection.sendall(sent)
        received = b""
        while part := connection.recv(65_536):
            received += part
    head, _, content = received.partition(b"\r\n\r\n")
    first, *lines = head.decode("latin-1").split("\r\n")
    pairs = [(name, value.strip()) for name, _, value in (line.partition(":") for line in lines)]
    return Answer(int(first.split()[1]), httpx.Headers(pairs), content)
