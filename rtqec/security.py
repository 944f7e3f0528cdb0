"""Who may reach the daemon: the server's key, the clients' rights, and the endpoints that must ask for them.

Over ipc file permissions decide. Over tcp keys do (CURVE, ZeroMQ RFC 26) as soon as `[security] server_key` is set, on
the loopback too; without it tcp is for the loopback, or for whoever accepts plain tcp by name.

Whoever comes in is a *caller*, whom libzmq names with every message (`User-Id`): by the public key over CURVE, else
`local uid N` over ipc, `plain tcp ADDRESS` over plain tcp. A key has no space, so that nobody can pass for the latter.
"""

from __future__ import annotations

import errno
import ipaddress
import os
import stat
from collections.abc import Collection, Iterable
from enum import StrEnum
from pathlib import Path

from rtqec.config import LANE_PLACE, ClientTable, Config, expand_variables
from rtqec.curve import SERVER_KEY, TCP, is_key, is_tcp, load_server_key
from rtqec.errors import ConfigError

LOCAL, PLAIN = "local uid ", "plain tcp "
_FOLDER_MODE = 0o750


class Right(StrEnum):
    """What a client may do with a patch; the keys of `[[client]]`."""

    FEED = "feed"
    READ = "read"
    CHANGE = "change"


class Rights:
    """The allow-list. Never changed, only replaced as a whole, so that threads may share it.

    Args:
        clients: `[[client]]`.
    """

    def __init__(self, clients: Iterable[ClientTable] = ()) -> None:
        self._clients = {client.public_key: client for client in clients}

    @classmethod
    def of(cls, config: Config) -> Rights:
        """The allow-list of a deployment.

        Raises:
            ConfigError: A public key is none.
        """
        for client in config.client:
            if not is_key(client.public_key):
                raise ConfigError(
                    f"[[client]] {client.name} public_key", f"is {client.public_key!r}, which is not a key in Z85.",
                    "Nobody could ever hold its secret half.",
                    "Paste it from the client's NAME.key; rtqec keys show FILE prints it.",
                )  # fmt: skip
        return cls(config.client)

    def client(self, caller: str) -> ClientTable | None:
        """The client with this key, if it is let in at all."""
        return self._clients.get(caller)

    def may(self, caller: str, right: Right, patch_ids: Collection[int]) -> bool:
        """Whether a caller has a right on every one of the patches; whoever comes without a key was let in for all."""
        if caller.startswith((LOCAL, PLAIN)):
            return True
        client = self._clients.get(caller)
        return client is not None and not missing(client, right, patch_ids)

    def describe(self, caller: str) -> str:
        """A caller for people and for the audit log: the name with the key, as a name may change hands."""
        client = self._clients.get(caller)
        return f"{client.name} {caller}" if client is not None else caller

    def holders(self, right: Right, patch_ids: Collection[int]) -> list[str]:
        """The names of the clients that have a right on every one of the patches."""
        return [client.name for client in self._clients.values() if not missing(client, right, patch_ids)]

    def __len__(self) -> int:
        return len(self._clients)


def missing(client: ClientTable, right: Right, patch_ids: Collection[int]) -> list[int]:
    """The patches on which a client lacks a right."""
    granted = getattr(client, right.value)
    return [] if granted == "all" else sorted(set(patch_ids) - set(granted))


def on_loopback(endpoint: str) -> bool:
    """Whether a tcp endpoint is one that only this machine reaches. Names are not looked up: they may change."""
    host = endpoint.removeprefix(TCP).rpartition(":")[0].removeprefix("[").removesuffix("]")
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def check_endpoints(config: Config) -> None:
    """Refuse endpoints that strangers could reach, and those that nobody could.

    Args:
        config: A whole deployment. Where it leaves open which lane carries a patch, ask `check_lane` later.

    Raises:
        ConfigError: Such an endpoint, a key that cannot work, or keys that nobody would ask for.
    """
    _check_listener(config)
    rights, server_key = Rights.of(config), load_server_key(config)
    endpoints = _endpoints(config)
    for where, endpoint in endpoints:
        _check_address(config, where, endpoint, server_key is not None)
    tcp = [where for where, endpoint in endpoints if is_tcp(endpoint)]
    if server_key is not None and config.security.accept_plain_tcp:
        raise ConfigError(
            "[security] accept_plain_tcp", "is true, but [security] server_key is set.",
            "With a server key every tcp socket asks for keys, so that there is no plain tcp to accept.",
            "Remove one of the two.",
        )  # fmt: skip
    if server_key is None and tcp and len(rights):
        raise ConfigError(
            SERVER_KEY, f"is not set, but there are [[client]] tables, and {tcp[0]} is on tcp.",
            "Without the server's own key no socket asks for keys, and the clients' rights would not hold.",
            "Make one (rtqec keys new server) and name it, or remove the [[client]] tables.",
        )  # fmt: skip
    if server_key is not None and "[control] endpoint" in tcp and not len(rights):
        raise _nobody("[control] endpoint", "there is no [[client]]", "Add one, with its public_key.")
    for index, patch_ids in enumerate(_known_lanes(config)):
        check_lane(config.of_lane(index, patch_ids), rights)


def check_lane(config: Config, rights: Rights) -> None:
    """Refuse a lane that nobody could feed, or whose corrections nobody could read.

    Args:
        config: Narrowed to the lane.
        rights: Who may do what.

    Raises:
        ConfigError: There is a server key, and no client has the right on all patches of the lane.
    """
    if config.security.server_key is None:
        return
    patch_ids = [patch.id for patch in config.patch]
    for where, endpoint, right in (
        ("[feed] endpoint", config.feed.endpoint, Right.FEED),
        ("[publish] endpoint", config.publish.endpoint, Right.READ),
    ):
        if is_tcp(expand_variables(where, endpoint)) and not rights.holders(right, patch_ids):
            raise _nobody(
                where, f"no [[client]] may {right} all patches of {config.lane_name}: {_listed(patch_ids)}",
                f"Give a client {right} = {patch_ids} (or \"all\"), or patches of different clients lanes of their own "
                "([[patch]] lane).",
            )  # fmt: skip


def make_folder(path: Path) -> None:
    """Make a folder for the daemon and its group (0750), or take one that is there, if no stranger made it.

    Raises:
        OSError: It cannot be made, or others may put into it what they like.
    """
    path.mkdir(mode=_FOLDER_MODE, parents=True, exist_ok=True)
    found = path.stat()
    if os.geteuid() and found.st_uid not in (0, os.geteuid()):
        raise PermissionError(errno.EPERM, "it belongs to another user")
    if found.st_mode & stat.S_IWOTH:
        raise PermissionError(errno.EPERM, "everybody may write there")


def _endpoints(config: Config) -> list[tuple[str, str]]:
    """Every endpoint that the daemon will bind, with its key."""
    written = [("[feed] endpoint", config.feed.endpoint), ("[publish] endpoint", config.publish.endpoint)]
    if config.listen.cudaq is not None:
        written = []
    found = [
        (where, expand_variables(where, endpoint.replace(LANE_PLACE, str(index))))
        for index in range(config.lane.count)
        for where, endpoint in written
    ]
    if config.control.endpoint is not None:
        found.append(("[control] endpoint", expand_variables("[control] endpoint", config.control.endpoint)))
    return found


def _check_listener(config: Config) -> None:
    """Refuse a UDP address that strangers could reach."""
    cudaq = config.listen.cudaq
    if cudaq is not None and not cudaq.on_loopback and not cudaq.accept_remote:
        raise ConfigError(
            "[listen.cudaq] address", f"is {cudaq.address!r}, which is not on the loopback.",
            "CUDA-Q's requests carry no key: whoever reaches the port could decode, reset and read any decoder of its "
            "lane.",
            "Use 127.0.0.1, or, on a network of the experiment's own, accept it by name with accept_remote = true.",
        )  # fmt: skip


def _check_address(config: Config, where: str, endpoint: str, keyed: bool) -> None:
    """Refuse an address that cannot be guarded, or is not."""
    path = endpoint.removeprefix("ipc://")
    if path != endpoint and path and path[0] not in "@*":
        return
    if not is_tcp(endpoint):
        raise ConfigError(
            where, f"is {endpoint!r}, which is neither ipc:///path nor tcp://host:port.",
            "Only a file has permissions, and only tcp can ask for keys.",
            "Use ipc:///path, whose file permissions decide, or tcp://host:port.",
        )  # fmt: skip
    if not keyed and not on_loopback(endpoint) and not config.security.accept_plain_tcp:
        raise ConfigError(
            where, f"is {endpoint!r}, which is not on the loopback, and [security] server_key is not set.",
            "Whoever reaches it could feed, read or change what the daemon does, and it asks for no key.",
            "Set [security] server_key and [[client]] tables (rtqec keys new NAME makes keys), or use ipc:///path or "
            "tcp://127.0.0.1:port, or accept it by name with [security] accept_plain_tcp = true.",
        )  # fmt: skip


def _known_lanes(config: Config) -> list[list[int]]:
    """The patches of each lane, where the configuration says them; otherwise none."""
    if config.lane.count == 1:
        return [[patch.id for patch in config.patch]]
    if any(patch.lane is None for patch in config.patch):
        return []
    return [[patch.id for patch in config.patch if patch.lane == lane] for lane in range(config.lane.count)]


def _nobody(where: str, lacking: str, remedy: str) -> ConfigError:
    return ConfigError(
        where, f"is on tcp and asks for keys, but {lacking}.", "Nobody could ever connect to it.", remedy
    )


def _listed(patch_ids: Collection[int]) -> str:
    return ", ".join(str(patch_id) for patch_id in patch_ids)
