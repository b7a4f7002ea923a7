"""Which Ray cluster a run is computed by, and what of that can be wrong before anything is loaded."""

import importlib.util
import os
import re
import socket
import sys

from collapse_cli.config import Experiment
from collapse_cli.errors import ConfigError

HERE = ("", "local")  # addresses that stand for a Ray of our own
FOUND = "auto"  # Ray looks for a cluster that runs on this machine
SECONDS = 1.5  # to wait for an answer
NEEDED = "ray"


def address_of(config: Experiment) -> str:
    """`HOST:PORT` of the cluster's head, or `auto`; empty where Ray is to be started on this machine."""
    address = config.ray.address or os.environ.get("RAY_ADDRESS", "")
    return "" if address in HERE else address


def check(config: Experiment) -> None:
    """Whether Ray is installed, and something answers where the cluster should be. Imports nothing of Ray.

    Raises:
        ConfigError: where not.
    """
    if sys.platform == "win32":
        raise ConfigError("--executor ray does not work on Windows; leave it out, or run on Linux")
    spec = importlib.util.find_spec(NEEDED)
    if spec is None or spec.origin is None:  # no origin: only a folder of that name lies here
        raise ConfigError(
            "--executor ray, and ray is not installed: pip install 'collapse-cli[ray]', or leave --executor out"
        )
    address = address_of(config)
    if address not in (*HERE, FOUND):
        _check_address(address, "ray.address" if config.ray.address else "the environment variable RAY_ADDRESS")


def _check_address(address: str, said_by: str) -> None:
    if address.startswith("ray://"):
        raise ConfigError(
            f"{said_by} is {address!r:.80}, an address of Ray's client; start the run on a machine of the cluster, and give the address "
            "of its head as HOST:PORT (the port is 6379 unless it was chosen)"
        )
    found = re.fullmatch(r"(\[[0-9a-fA-F:.]+\]|[^\s:/\[\]]+):(\d{1,5})", address)
    if found is None or not 0 < int(found[2]) < 65536:
        raise ConfigError(f"{said_by} is {address!r:.80}, and must be HOST:PORT of the cluster's head, or auto")
    try:
        socket.create_connection((found[1].strip("[]"), int(found[2])), SECONDS).close()
    except (OSError, UnicodeError) as error:
        why = "no answer" if isinstance(error, TimeoutError) else getattr(error, "strerror", None) or "no such host"
        raise ConfigError(
            f"no Ray answers at {address} ({said_by}): {why}; start one there (ray start --head), correct the address, or leave it "
            "out to have Ray started on this machine"
        ) from None
