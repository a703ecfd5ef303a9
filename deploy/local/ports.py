"""Which ports do the parts listen on, so that they are the same after a restart?"""

import secrets
import socket
from collections.abc import Iterable, Mapping
from pathlib import Path

from deploy.local.kept import load, save
from shared.errors import HoldfastError

HOST = "127.0.0.1"
# Below the ports that systems give to outgoing connections: otherwise, while a part is being started again, one of its
# own clients that tries to reconnect can be given the part's port, connect to itself, and keep the part from coming back.
_RANGE = range(20_000, 32_000)


class PortTaken(HoldfastError):
    """A port that Holdfast needs is taken by another program."""

    reason = "port_taken"


def free_port() -> int:
    """Return a port that nothing listens on at this moment."""
    return free_ports(1)[0]


def free_ports(count: int) -> list[int]:
    """Return different ports that nothing listens on at this moment."""
    candidates = iter(secrets.SystemRandom().sample(_RANGE, len(_RANGE)))
    return [next(port for port in candidates if is_free(port)) for _ in range(count)]


def choose_ports(names: Iterable[str], *, fixed: Mapping[str, int], kept_in: Path) -> dict[str, int]:
    """Give every part its port: the fixed one, else the one it had before if that is still free, else a new one.

    Raises:
        PortTaken: a fixed port is in use.
    """
    before: Mapping[str, int] = load(kept_in) or {}
    ports: dict[str, int] = {}
    for name in names:
        wanted = fixed.get(name, before.get(name, 0))
        if name in fixed and not is_free(wanted):
            detail = f"port {wanted} ({name}) is taken by another program: end that one, or start with --ports auto"
            raise PortTaken(detail)
        ports[name] = wanted if wanted and wanted not in ports.values() and is_free(wanted) else 0
    fresh = iter(free_ports(len(ports)))
    ports = {name: port or next(fresh) for name, port in ports.items()}
    save(kept_in, {**before, **ports})
    return ports


def is_free(port: int) -> bool:
    """Tell whether a program could listen on a port at this moment."""
    with socket.socket() as tried:
        # The parts themselves set this option: a connection that is still closing must not count as a listener.
        tried.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            tried.bind((HOST, port))
        except OSError:
            return False
    return True
