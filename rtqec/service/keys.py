"""`rtqec keys`: make and show the keys by which daemon and clients know each other over tcp."""

from __future__ import annotations

import os
import re
import stat
import tempfile
from pathlib import Path
from typing import Annotated

import typer
import zmq.auth

from rtqec.curve import load_key
from rtqec.errors import ConfigError

_NAME = re.compile(r"[A-Za-z0-9_.-]{1,64}")
"""As in `[[client]]`, and safe in a file name."""
_PUBLIC_SUFFIX, _SECRET_SUFFIX = ".key", ".key_secret"

keys_app = typer.Typer(
    no_args_is_help=True, help="Keys by which the daemon and its clients know each other over tcp (CURVE)."
)


@keys_app.command()
def new(
    name: Annotated[str, typer.Argument(help="Whose key it is, for example server or fpga1.")],
    folder: Annotated[Path, typer.Option(help="Where to write it.")] = Path(),
) -> None:
    """Make a key: NAME.key, which anybody may see, and NAME.key_secret (mode 0600). Never overwrites one."""
    public_file, secret_file = new_key(name, folder)
    public, _ = load_key("NAME", public_file)
    typer.echo(
        f"{secret_file}: the secret half, for {name} alone\n"
        f"{public_file}: the public half, for everybody else\n\n"
        f"If this is the daemon's key, in its configuration:\n\n{server_table(secret_file)}\n"
        f"and {public_file.name} goes to the clients, beside their own keys.\n\n"
        f"If it is a client's, {secret_file.name} stays with the client, and in the daemon's configuration:\n\n"
        f"{client_table(name, public)}"
    )


@keys_app.command()
def show(file: Annotated[Path, typer.Argument(help="NAME.key or NAME.key_secret.")]) -> None:
    """Show the public half of a key, and what is wrong with its file. Never shows the secret half."""
    public, secret = load_key("FILE", file)
    mode = stat.S_IMODE(file.stat().st_mode)
    typer.echo(f"{file}: {'both halves' if secret else 'the public half'} of a key, mode {mode:04o}")
    if secret and mode & (stat.S_IRWXG | stat.S_IRWXO):
        typer.echo(f"Others may read the secret half; the daemon refuses such a file. Change it: chmod 600 {file}")
    typer.echo(f"\n{client_table(file.stem, public)}", nl=False)


def new_key(name: str, folder: Path) -> tuple[Path, Path]:
    """Make a key.

    Args:
        name: Of its two files.
        folder: Made with mode 0700 if it is not there.

    Returns:
        The file with the public half, and the one with both.

    Raises:
        ConfigError: There is one of this name already, the name is none, or nothing can be written there.
    """
    if not _NAME.fullmatch(name) or name.startswith("."):
        raise ConfigError(
            "NAME", f"is {name!r}, but must be 1 to 64 of A-Z a-z 0-9 _ . - and not begin with a dot.",
            "It names the files, and the client in [[client]].", "Choose another one, for example fpga1.",
        )  # fmt: skip
    public_file, secret_file = folder / f"{name}{_PUBLIC_SUFFIX}", folder / f"{name}{_SECRET_SUFFIX}"
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        # Nobody else can open the files until their modes are right, and a link never replaces what is there.
        with tempfile.TemporaryDirectory(dir=folder, prefix=".new-key-") as private:
            made_public, made_secret = (Path(made) for made in zmq.auth.create_certificates(private, name))
            made_secret.chmod(0o600)
            made_public.chmod(0o644)
            os.link(made_secret, secret_file)
            try:
                os.link(made_public, public_file)
            except OSError:
                secret_file.unlink()
                raise
    except FileExistsError as error:
        raise ConfigError(
            "NAME", f"is {name!r}, but there is a key of that name in {str(folder)!r}.",
            "Whoever has the old one would be locked out, or let in no more, without a word.",
            "Choose another name, or move the old files away first.",
        ) from error  # fmt: skip
    except OSError as error:
        raise ConfigError(
            "--folder", f"is {str(folder)!r}, but no key can be written there: {error.strerror}.",
            "A key that is not kept is of no use.", "Name a folder that this user may write.",
        ) from error  # fmt: skip
    return public_file, secret_file


def server_table(secret_file: Path) -> str:
    """What the daemon's configuration says of its own key."""
    return f'[security]\nserver_key = "{secret_file.resolve()}"\n'


def client_table(name: str, public: bytes) -> str:
    """What the daemon's configuration says of a client; its rights are for the operator to choose."""
    return (
        f'[[client]]\nname = "{name}"\npublic_key = "{public.decode()}"\n'
        'feed = []    # patches whose rounds it may send: a list of ids, or "all"\n'
        "read = []    # patches whose corrections and state it may read\n"
        "change = []  # patches that it may reset, swap, drain\n"
    )
