"""Numbers of a server for Prometheus, at `http://HOST:PORT/metrics`."""

from __future__ import annotations

from collections.abc import Iterator, Sized
from typing import Any

from gadgets.gather import taken
from gadgets.hosts.totals import TOTALS
from mrnets.errors import InputError
from mrnets.extras import install

__all__ = ["publish"]


def publish(host: str, port: int, connections: Sized) -> Any:
    """Answer Prometheus from now on, in a thread. Returns the HTTP server.

    Raises InputError without the package prometheus-client, and for an address that cannot be had."""
    try:
        import prometheus_client as prometheus
    except ImportError:
        raise InputError(f"--metrics needs the package prometheus-client: {install('metrics')}") from None
    registry = prometheus.CollectorRegistry()
    registry.register(_Collector(connections))
    try:
        return prometheus.start_http_server(port, host, registry)[0]
    except OSError as error:
        raise InputError(f"Cannot listen on {host} port {port} for --metrics: {error}.") from error


class _Collector:
    """The numbers of a server, as prometheus-client collects them."""

    def __init__(self, connections: Sized) -> None:
        self._connections = connections

    def collect(self) -> Iterator[Any]:
        """Yield the numbers."""
        from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

        for name, value, words in TOTALS.told():
            yield CounterMetricFamily(f"gadgets_{name}", words, value=value)
        yield GaugeMetricFamily("gadgets_connections", "Connections that are open", value=len(self._connections))
        yield GaugeMetricFamily("gadgets_memory_bytes", "Memory that the scans in work take", value=taken())
