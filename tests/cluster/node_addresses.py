"""Which loopback addresses a cluster's pods, services and gateways have.

Kubernetes refuses loopback addresses in EndpointSlices, and adding others to a machine takes privileges. So the
address that the API shows is 10.A.x.y where the process really listens on 127.A.x.y: `loopback` turns one into the
other, and whoever connects (gateway, probes, Prometheus by relabelling) asks the latter. Inside a pod, the field
`status.podIP` gives the address to listen on.
"""

from __future__ import annotations

import random
import socket

_CLAIM_PORT = 10255
_FIRST, _LAST = 128, 254
"""Those below are for ClusterIPs and for pods."""


class AddressBlock:
    """127.A.0.0/16 for one program, as long as it lives: others on this machine take another A."""

    def __init__(self, first: int = _FIRST, last: int = _LAST) -> None:
        numbers = random.sample(range(first, last), last - first)
        for number in numbers:
            claim = socket.socket()
            try:
                claim.bind((f"127.{number}.0.1", _CLAIM_PORT))
                claim.listen()
            except OSError:
                claim.close()
                continue
            self.number, self._claim, self._next = number, claim, 256
            return
        raise RuntimeError("every block of loopback addresses is taken")

    def take(self) -> str:
        """Return a loopback address that was not handed out for a long time."""
        self._next = self._next + 1 if self._next < 0xFFFE else 257
        return self.at(self._next)

    def at(self, place: int) -> str:
        """Return the address at a place of the block, 0 to 65535."""
        return f"127.{self.number}.{place >> 8}.{place & 255}"

    def close(self) -> None:
        """Give the block up."""
        self._claim.close()


def loopback(shown: str) -> str:
    """Return where the process listens whose address the API shows as `shown`."""
    first, _, rest = shown.partition(".")
    return f"127.{rest}" if first == "10" else shown


def shown(address: str) -> str:
    """Return what the API is told of a loopback address."""
    first, _, rest = address.partition(".")
    return f"10.{rest}" if first == "127" else address


def unprivileged(port: int) -> int:
    """Return the port that stands for one that only root may listen on."""
    return port if port >= 1024 else port + 10000
