"""Serves metrics over HTTP, from threads of its own."""

from __future__ import annotations

import socket
import socketserver
import threading
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer

from prometheus_client import make_wsgi_app

from rtqec.errors import ConfigError
from rtqec.service.metrics import make_registry
from rtqec.service.reader import ServiceReader

_CONNECTIONS_MAX = 8
"""At once: a stranger who opens more is turned away, and gets no thread of the supervisor."""
_TIMEOUT_S = 5.0
_LOOK_S = 0.1
"""How often to look whether to stop."""
_PORT_MAX = 65535


class MetricsServer:
    """Serves until `close`.

    Attributes:
        address: Host and port that it listens on.
    """

    def __init__(self, endpoint: str, reader: ServiceReader) -> None:
        host, _, port = endpoint.rpartition(":")
        try:
            if int(port) > _PORT_MAX:
                raise OSError(0, f"a port is at most {_PORT_MAX}")
            host = host.removeprefix("[").removesuffix("]")
            family, _, _, _, address = socket.getaddrinfo(host, int(port), type=socket.SOCK_STREAM)[0]
            self._server = _Server(family, address[:2])
        except (OSError, UnicodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "that is no name of a host"
            raise ConfigError(
                "[metrics] endpoint", f"is {endpoint!r}, but it cannot be bound: {reason}.",
                "Prometheus would find nothing there.",
                'Name an address of this machine and a port that nobody uses, for example "127.0.0.1:9464".',
            ) from error  # fmt: skip
        self._server.set_app(make_wsgi_app(make_registry(reader)))
        bound = self._server.server_address
        self.address = str(bound[0]), int(bound[1])
        self._thread = threading.Thread(target=self._server.serve_forever, args=(_LOOK_S,), name="metrics", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop listening. A scrape that is under way is left alone."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def serve_metrics(endpoint: str, reader: ServiceReader) -> MetricsServer:
    """Serve the metrics of a deployment.

    Args:
        endpoint: `[metrics] endpoint`, host:port; port 0 takes one that is free.
        reader: Of the deployment; used by nobody else.

    Raises:
        ConfigError: It cannot be bound.
    """
    return MetricsServer(endpoint, reader)


class _Server(socketserver.ThreadingMixIn, WSGIServer):
    """Answers a few scrapes at once."""

    daemon_threads = True
    block_on_close = False
    request_queue_size = 64

    def __init__(self, family: socket.AddressFamily, address: tuple[Any, ...]) -> None:
        self.address_family = family
        self._places = threading.BoundedSemaphore(_CONNECTIONS_MAX)
        super().__init__((str(address[0]), int(address[1])), _Handler)

    def server_bind(self) -> None:
        """As its base, but without asking the name service, which may take its time."""
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = str(self.server_address[0]), int(self.server_address[1])
        self.setup_environ()

    def process_request(self, request: Any, client_address: Any) -> None:
        """Serve it in a thread, if one may still be made."""
        if not self._places.acquire(blocking=False):
            self.shutdown_request(request)
            return
        try:
            super().process_request(request, client_address)
        except BaseException:
            self._places.release()
            raise

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """Runs in that thread."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._places.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that goes away, or says nothing, is no error of ours."""


class _Handler(WSGIRequestHandler):
    timeout = _TIMEOUT_S

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 (the name is the base's)
        """A scrape a second is nothing to log."""
