"""Opening a place by path or URL, with what this user knows of it."""

from __future__ import annotations

from collections.abc import Mapping

from vimgvc.backends import protocol, rates, registry
from vimgvc.monitor import Monitor, NullMonitor
from vimgvc.repo import places

_SILENT = NullMonitor()


def open_backend(
    location: str,
    environment: Mapping[str, str],
    monitor: Monitor = _SILENT,
    *,
    create: bool = False,
    look: bool = True,
    durable: bool = True,
) -> protocol.Backend:
    """As of `registry`; what was found of places over the network is remembered for the user."""
    rates.Limits.of(environment)  # what is mistyped is told of any place
    memory = places.Places.of_user(environment, monitor)
    backend = registry.open_backend(
        location, create=create, look=look, durable=durable, environ=environment, memory=memory
    )
    if registry.scheme_of(location) and not backend.capabilities.durable:
        monitor.note(f"{backend.url} is not power-safe: its server offers no fsync, so a power cut there may lose work")
    return backend
