"""Writes the systemd units, and what they need, into a file system.

The files lie in `systemd/` of the sources, and beside this module in an installed package. They are written for
`/opt/rtqec/bin` and for a configuration called `example`; both are replaced on the way. A file that somebody has
changed since is not overwritten: each ends with the checksum of what was written.
"""

from __future__ import annotations

import hashlib
import os
import re
import sysconfig
from collections.abc import Sequence
from pathlib import Path

from rtqec import __version__
from rtqec.errors import ConfigError

UNITS_DIR = Path("etc/systemd/system")
DROP_INS = ("cores", "realtime", "gpu", "network")
_BIN = "/opt/rtqec/bin/"
_EXAMPLE = "example"
_PROGRAMS = ("rtqec", "firmware-sim")
_TARGETS = {
    "rtqec@.service": UNITS_DIR / "rtqec@.service",
    "firmware-sim@.service": UNITS_DIR / "firmware-sim@.service",
    "rtqec.sysusers.conf": Path("etc/sysusers.d/rtqec.conf"),
    "rtqec.tmpfiles.conf": Path("etc/tmpfiles.d/rtqec.conf"),
}
_HIDDEN = {
    "ProtectHome=yes": ("/home", "/root", "/run/user"),
    "PrivateTmp=yes": ("/tmp", "/var/tmp"),  # noqa: S108 (named to be refused)
}
"""Folders that the service cannot see, by the line of the unit that hides them."""
_MARK = "# Written by install-systemd of rtqec {version}; sha256 of the lines above: {digest}\n"
_MARKED = re.compile(r"(?s)(.*)# Written by install-systemd of rtqec \S+; sha256 of the lines above: ([0-9a-f]{64})\n")
_NAME = re.compile(r"[A-Za-z0-9_-]{1,32}")


def install_systemd(
    prefix: Path, bin_folder: Path | None = None, *, name: str = _EXAMPLE, drop_ins: Sequence[str] = (),
    force: bool = False,
) -> list[str]:  # fmt: skip
    """Write the units, the user, the folders and a first configuration.

    Args:
        prefix: Root of the file system that is written to: `/`, or the folder in which an image is made.
        bin_folder: Where the service finds `rtqec` and `firmware-sim`; the running interpreter's own by default.
        name: Of the configuration: `/etc/rtqec/NAME.toml`, run by `rtqec@NAME.service`.
        drop_ins: Of `DROP_INS`, for all configurations.
        force: Overwrite files that somebody has changed, and keep what they were beside them. Never the configuration.

    Returns:
        What was done, then what to do next, line by line.

    Raises:
        ConfigError: The service could not start from there, a file was changed, or cannot be written.
    """
    _check_names(name, drop_ins)
    folder = bin_folder if bin_folder is not None else Path(sysconfig.get_path("scripts"))
    _check_programs(prefix, folder)
    texts = {target: _source(source) for source, target in _TARGETS.items()}
    texts |= {UNITS_DIR / f"rtqec@.service.d/{each}.conf": _source(f"drop-ins/{each}.conf") for each in drop_ins}
    texts = {target: _marked(text.replace(_BIN, f"{folder}/")) for target, text in texts.items()}
    changed = [prefix / target for target in texts if _is_changed(prefix / target)]
    if changed and not force:
        raise ConfigError(
            "install-systemd", f"finds {', '.join(map(str, changed))}, changed since it was written, or by others.",
            "What somebody has set there would be lost.",
            "Move your lines into a drop-in (systemctl edit) and give --force, which keeps the old file as NAME.old.",
        )  # fmt: skip
    configuration = Path(f"etc/rtqec/{name}.toml")
    said = [_write(prefix / target, text) for target, text in texts.items()]
    said.append(_write_configuration(prefix / configuration, name))
    return [*said, "", *_next_steps(prefix, name)]


def _next_steps(prefix: Path, name: str) -> list[str]:
    where = "" if prefix == Path("/") else f", in the system whose root is {prefix}"
    return [
        f"Next{where}, as root:",
        "  systemd-sysusers rtqec.conf && systemd-tmpfiles --create rtqec.conf",
        "  systemctl daemon-reload",
        f"  systemctl enable --now rtqec@{name}",
        "To remove it again:",
        f"  systemctl disable --now rtqec@{name}",
        f"  rm -rf {' '.join(f'/{target}' for target in _TARGETS.values())} /{UNITS_DIR}/rtqec@.service.d",
        "  systemctl daemon-reload",
        "  rm -rf /etc/rtqec /var/lib/rtqec /var/cache/rtqec && userdel rtqec",
    ]


def _source(name: str) -> str:
    """One of the files as this package carries it."""
    packaged = Path(__file__).with_name("units")
    folder = packaged if packaged.is_dir() else Path(__file__).parents[2] / "systemd"
    return (folder / name).read_text()


def _marked(text: str) -> str:
    return text + _MARK.format(version=__version__, digest=_digest(text))


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _is_changed(path: Path) -> bool:
    """Whether there is a file that is not as some version of this function wrote it."""
    if not path.exists():
        return False
    found = _MARKED.fullmatch(path.read_text(errors="replace"))
    return found is None or _digest(found[1]) != found[2]


def _write(path: Path, text: str) -> str:
    """Write one file, and say so."""
    if path.exists() and path.read_text(errors="replace") == text:
        return f"unchanged  {path}"
    did = "replaced  " if path.exists() else "wrote     "
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if _is_changed(path):
            path.replace(path.with_name(path.name + ".old"))
            did = "forced    "
        new = path.with_name(path.name + ".new")
        new.write_text(text)
        new.chmod(0o644)
        new.replace(path)
    except OSError as error:
        raise ConfigError(
            "--prefix", f"leads to {path}, which cannot be written: {error.strerror}.",
            "systemd reads its units from there.", "Run it as root (sudo), or name another folder.",
        ) from error  # fmt: skip
    return f"{did} {path}"


def _write_configuration(path: Path, name: str) -> str:
    """The first configuration, where there is none: it is the operator's from then on."""
    if path.exists():
        return f"kept       {path}"
    text = _source("example.toml")
    for before in (f'"{_EXAMPLE}"', f"rtqec/{_EXAMPLE}", f"@{_EXAMPLE}."):
        text = text.replace(before, before.replace(_EXAMPLE, name))
    return _write(path, text)


def _check_names(name: str, drop_ins: Sequence[str]) -> None:
    if not _NAME.fullmatch(name):
        raise ConfigError(
            "--name", f"is {name!r}, but must be 1 to 32 letters, digits, _ or -.",
            "It names a unit, folders and files.", "Take another name, for example lab.",
        )  # fmt: skip
    unknown = [each for each in drop_ins if each not in DROP_INS]
    if unknown:
        raise ConfigError(
            "--drop-in", f"is {unknown[0]!r}, but there are only {', '.join(DROP_INS)}.",
            "Each opens one thing that the unit by itself keeps closed.", "systemd/README.md says what each is for.",
        )  # fmt: skip


def _check_programs(prefix: Path, folder: Path) -> None:
    """Refuse programs that the service could not start.

    They may be there only in the file system that is written to, or (an image is being made) only in this one.
    """
    if not folder.is_absolute():
        raise ConfigError(
            "--bin", f"is {str(folder)!r}, but must be an absolute path.",
            "systemd does not know the folder in which you are.", f"Give {str(folder.absolute())!r}.",
        )  # fmt: skip
    for name in _PROGRAMS:
        found = [path for path in (prefix / folder.relative_to("/") / name, folder / name) if path.is_file()]
        if not found:
            raise ConfigError(
                "--bin", f"is {str(folder)!r}, but there is no {name}.",
                "The units start it from there.", "Name the folder that holds both: the bin of a virtual environment.",
            )  # fmt: skip
        for path in (folder / name, *_interpreters(found[0])):
            _check_visible(path)


def _interpreters(script: Path) -> list[Path]:
    """What the first line of a script starts: as written, and what that leads to."""
    with script.open("rb") as opened:
        line = opened.readline(4096)
    words = line.removeprefix(b"#!").split()
    if not line.startswith(b"#!") or not words:
        return []
    interpreter = Path(os.fsdecode(words[0]))
    return [interpreter, interpreter.resolve()]


def _check_visible(path: Path) -> None:
    """Refuse what the sandbox of the units hides, or what only some users may reach."""
    remedy = "Install it where services may look: python3 -m venv /opt/rtqec && /opt/rtqec/bin/pip install rtqec"
    for line, folders in _HIDDEN.items():
        for hidden in folders:
            if path.is_relative_to(hidden):
                raise ConfigError(
                    "--bin", f"leads to {path}, but {hidden} is hidden from the service ({line}).",
                    "It would not start.", f"{remedy}, with a Python that lies elsewhere, too.",
                )  # fmt: skip
    for parent in path.parents:
        if parent.is_dir() and not parent.stat().st_mode & 0o001:
            raise ConfigError(
                "--bin", f"leads to {path}, but {parent} may not be entered by every user.",
                "The service runs as the user rtqec.", f"chmod a+x {parent}. Or: {remedy}",
            )  # fmt: skip
