"""A key is made once, kept from everybody else, and refused where it is not."""

from __future__ import annotations

import os
import stat
import tomllib
from pathlib import Path

import pytest
import zmq
from typer.testing import CliRunner

from rtqec.curve import KeyPair, is_key, load_client_keys, load_key, load_secret, load_server_key
from rtqec.errors import ConfigError
from rtqec.service.keys import client_table, keys_app, new_key
from tests.harness import make_config


def mode(path: Path) -> int:
    """Its permissions."""
    return stat.S_IMODE(path.stat().st_mode)


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077])
def test_a_new_key_is_for_its_owner_alone(tmp_path: Path, umask: int) -> None:
    """Whatever the umask: the folder 0700 if it is new, the secret half 0600, the public one readable; nothing else is
    left there, and ZeroMQ's own loader reads both."""
    folder = tmp_path / "keys"
    before = os.umask(umask)
    try:
        public_file, secret_file = new_key("fpga1", folder)
    finally:
        os.umask(before)
    assert (mode(folder), mode(secret_file), mode(public_file)) == (0o700, 0o600, 0o644)
    assert sorted(path.name for path in folder.iterdir()) == ["fpga1.key", "fpga1.key_secret"]
    public, nothing = zmq.auth.load_certificate(public_file)
    assert nothing is None
    assert load_secret("--key", secret_file).public == public
    assert "secret" not in public_file.read_text().lower().replace("curve public", "")


@pytest.mark.parametrize("there", ["fpga1.key", "fpga1.key_secret"])
def test_a_key_is_never_overwritten(tmp_path: Path, there: str) -> None:
    """Where one of its two files exists, nothing is written, and the message says what to do."""
    (tmp_path / there).write_text("precious")
    with pytest.raises(ConfigError, match="Choose another name"):
        new_key("fpga1", tmp_path)
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [(there, "precious")]


@pytest.mark.parametrize("name", ["", "../up", "a/b", ".hidden", "x" * 65, "new\nline", "ü"])
def test_a_name_cannot_leave_the_folder(tmp_path: Path, name: str) -> None:
    """Only what [[client]] takes, and no path."""
    with pytest.raises(ConfigError, match="NAME"):
        new_key(name, tmp_path / "keys")
    assert list(tmp_path.iterdir()) == []


def test_what_is_printed_can_be_pasted(tmp_path: Path) -> None:
    """The tables are TOML with the key that was made; the secret half is never shown."""
    runner = CliRunner()
    made = runner.invoke(keys_app, ["new", "fpga1", "--folder", str(tmp_path)])
    shown = runner.invoke(keys_app, ["show", str(tmp_path / "fpga1.key_secret")])
    secret = load_secret("--key", tmp_path / "fpga1.key_secret")
    for output in (made.output, shown.output):
        assert secret.secret.decode() not in output
        tables = tomllib.loads(output[output.index("[[client]]") :])
        client = {"name": "fpga1", "public_key": secret.public.decode(), "feed": [], "read": [], "change": []}
        assert tables["client"] == [client]
        make_config(client=tables["client"])
    (tmp_path / "fpga1.key_secret").chmod(0o640)
    assert "chmod 600" in runner.invoke(keys_app, ["show", str(tmp_path / "fpga1.key_secret")]).output


def test_any_key_can_be_pasted() -> None:
    """Z85 has neither quotes nor backslashes: each of a thousand keys survives TOML."""
    for _ in range(1000):
        public, _ = zmq.curve_keypair()
        assert is_key(public.decode())
        assert tomllib.loads(client_table("x", public))["client"][0]["public_key"] == public.decode()


def test_a_secret_is_not_shown_by_accident(tmp_path: Path) -> None:
    """Neither the key nor what holds it prints its secret half."""
    public_file, secret_file = new_key("fpga1", tmp_path)
    keys = load_client_keys(secret_file, public_file)
    assert keys.own.secret.decode() not in repr(keys)
    assert keys.own.public == keys.server_public


def spoil_missing(secret_file: Path) -> None:
    secret_file.unlink()


def spoil_folder(secret_file: Path) -> None:
    secret_file.unlink()
    secret_file.mkdir()


def spoil_public_only(secret_file: Path) -> None:
    secret_file.write_text(secret_file.with_suffix(".key").read_text())


def spoil_group(secret_file: Path) -> None:
    secret_file.chmod(0o640)


def spoil_others(secret_file: Path) -> None:
    secret_file.chmod(0o604)


def spoil_halves(secret_file: Path) -> None:
    other, _ = zmq.curve_keypair()
    secret_file.write_text(f'public-key = "{other.decode()}"\nsecret-key = "{other.decode()}"\n')


def spoil_short(secret_file: Path) -> None:
    secret_file.write_text('public-key = "abc"\nsecret-key = "abc"\n')


def spoil_binary(secret_file: Path) -> None:
    secret_file.write_bytes(b"public-key = \xff\xfe\x00\nsecret-key\n")


def spoil_empty(secret_file: Path) -> None:
    secret_file.write_text("")


SPOILT = {
    spoil_missing: "there is no such file",
    spoil_folder: "cannot be read",
    spoil_public_only: "only the public half",
    spoil_group: "chmod 600",
    spoil_others: "chmod 600",
    spoil_halves: "do not belong together",
    spoil_short: "holds no key",
    spoil_binary: "holds no key",
    spoil_empty: "holds no key",
}


@pytest.mark.parametrize("spoil", SPOILT, ids=lambda spoil: spoil.__name__.removeprefix("spoil_"))
def test_a_key_that_cannot_work_is_refused(tmp_path: Path, spoil: object) -> None:
    """A server key that is missing, damaged, half, or readable by others keeps the daemon from starting."""
    _, secret_file = new_key("server", tmp_path)
    assert callable(spoil)
    spoil(secret_file)
    with pytest.raises(ConfigError) as refused:
        load_server_key(make_config(security={"server_key": str(secret_file)}))
    assert "[security] server_key" in str(refused.value)
    assert SPOILT[spoil] in str(refused.value)  # type: ignore[index]


def test_a_server_key_is_found_beside_the_configuration(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A relative path is relative to the file that says it; variables are replaced; none is none."""
    _, secret_file = new_key("server", tmp_path / "keys")
    beside = make_config(security={"server_key": "keys/server.key_secret"}, folder=str(tmp_path))
    key = load_server_key(beside)
    assert key == load_secret("x", secret_file)
    monkeypatch.setenv("KEYS", str(tmp_path / "keys"))
    assert load_server_key(make_config(security={"server_key": "${KEYS}/server.key_secret"})) == key
    assert load_server_key(make_config()) is None


def test_a_credential_of_the_service_manager_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """systemd's credentials show the mask of their access list as group bits, and are guarded by their folder."""
    _, secret_file = new_key("server", tmp_path)
    secret_file.chmod(0o440)
    with pytest.raises(ConfigError, match="chmod 600"):
        load_secret("--key", secret_file)
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    assert isinstance(load_secret("--key", secret_file), KeyPair)


def test_only_z85_of_32_bytes_is_a_key() -> None:
    """Anything else is none, whatever its length."""
    public, _ = zmq.curve_keypair()
    assert is_key(public.decode())
    for text in ("", "x" * 39, "x" * 41, "x" * 45, "#" * 40, " " * 40, "é" * 40, "_" * 40, "\0" * 40):
        assert not is_key(text), text


def test_the_public_half_is_all_that_a_client_needs(tmp_path: Path) -> None:
    """The server's file may be either one; of NAME.key_secret only the public half is taken."""
    server_public, server_secret = new_key("server", tmp_path)
    _, client_secret = new_key("fpga1", tmp_path)
    assert load_client_keys(client_secret, server_public) == load_client_keys(client_secret, server_secret)
    assert load_key("x", server_public)[0] == load_client_keys(client_secret, server_public).server_public
    with pytest.raises(ConfigError, match="--server-key"):
        load_client_keys(client_secret, tmp_path / "nowhere.key")
