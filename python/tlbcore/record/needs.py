"""What a recording needs and this machine lacks, each with what to do about it, in one line."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from tlbcore.record.events import HELPFUL, NEEDED, TRUTH

__all__ = ["Host", "Lack", "has_strace", "lacks"]

_CAP_SYS_ADMIN, _CAP_PERFMON = 21, 38
#: All users may record whatever they like.
_PARANOID_OPEN: Final = -1
_VERSION_SECONDS: Final = 20


@dataclass(frozen=True)
class Lack:
    """Something that is missing."""

    what: str
    #: What to do about it.
    advice: str
    #: Without it there is no recording; else there is one that knows less.
    stops: bool = True

    def __str__(self) -> str:
        """One line."""
        return f"{self.what}: {self.advice}"


@dataclass(frozen=True)
class Host:
    """Where to look; a test has folders of its own."""

    tracefs: tuple[Path, ...] = (Path("/sys/kernel/tracing"), Path("/sys/kernel/debug/tracing"))
    paranoid: Path = Path("/proc/sys/kernel/perf_event_paranoid")
    status: Path = Path("/proc/self/status")
    uid: int = field(default_factory=os.geteuid)
    machine: str = field(default_factory=platform.machine)
    release: str = field(default_factory=platform.release)

    @property
    def is_privileged(self) -> bool:
        """Root, or a user with the capability to watch everybody."""
        if self.uid == 0:
            return True
        try:
            lines = self.status.read_text(encoding="utf-8").splitlines()
        except OSError:
            return False
        held = next((int(line.split()[1], 16) for line in lines if line.startswith("CapEff:")), 0)
        return bool(held >> _CAP_SYS_ADMIN & 1 or held >> _CAP_PERFMON & 1)

    def events(self) -> Path | None:
        """The folder of the kernel's events; none if no tracefs is mounted.

        Raises:
            PermissionError: It may not be looked into.

        """
        for folder in self.tracefs:
            if os.access(folder, os.F_OK) and not os.access(folder, os.X_OK):
                raise PermissionError(folder)
            if (folder / "events").is_dir():
                return folder / "events"
        return None


def lacks(host: Host | None = None) -> list[Lack]:
    """What is missing for a recording with `perf`, what stops it first; empty if all is there."""
    host = host or Host()
    found = []
    if host.machine != "x86_64":
        found.append(Lack(f"machine {host.machine}", "record on x86_64, whose system calls and faults are understood"))
    found += _perf()
    found += _tracefs(host)
    if not host.is_privileged:
        try:
            paranoid = int(host.paranoid.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            found.append(Lack("perf_event_paranoid", "this kernel was built without CONFIG_PERF_EVENTS; boot another"))
        else:
            if paranoid > _PARANOID_OPEN:
                advice = "run as root, or `sudo sysctl kernel.perf_event_paranoid=-1`"
                found.append(Lack(f"perf_event_paranoid is {paranoid}", advice))
    return sorted(found, key=lambda lack: not lack.stops)


def _perf() -> list[Lack]:
    path = shutil.which("perf")
    install = "install it (Debian: linux-perf, Ubuntu: linux-tools-generic, Fedora: perf)"
    if path is None:
        return [Lack("perf", install)]
    try:
        done = subprocess.run(  # noqa: S603  # the system's own perf
            [path, "--version"], capture_output=True, text=True, check=False, timeout=_VERSION_SECONDS
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return [Lack(f"perf ({path})", f"it does not run ({error}); {install}")]
    if done.returncode:
        # Ubuntu's wrapper says that there is none for this kernel.
        said = next(
            (line.strip() for line in (done.stderr + done.stdout).splitlines() if line.strip()), "it does not run"
        )
        return [Lack(f"perf ({path})", f"{said}; {install}")]
    return []


def _tracefs(host: Host) -> list[Lack]:
    try:
        events = host.events()
    except PermissionError as error:
        return [Lack("tracefs", f"{error} may not be read by this user; run as root")]
    if events is None:
        return [Lack("tracefs", f"not mounted; `mount -t tracefs nodev {host.tracefs[0]}` as root")]
    found = []
    for name in (*NEEDED, TRUTH, *HELPFUL):
        if (events / name.replace(":", "/")).exists():
            continue
        if name == TRUTH:
            advice = f"Linux {host.release} lacks it (x86 has it since 3.17); flushes will not be recorded"
            found.append(Lack(f"event {name}", advice, stops=False))
        elif name in HELPFUL:
            found.append(Lack(f"event {name}", f"Linux {host.release} lacks it; recorded without", stops=False))
        else:
            found.append(
                Lack(f"event {name}", f"Linux {host.release} lacks it; needs CONFIG_FTRACE_SYSCALLS and CONFIG_TRACING")
            )
    return found


def has_strace() -> bool:
    """Whether the lesser source is there."""
    return shutil.which("strace") is not None
