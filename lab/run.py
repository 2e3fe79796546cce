"""Runs scenarios on a kernel in QEMU and converts what the guest recorded.

Contract: nothing outside of the build and the output directory is written; a kernel's package is unpacked, never
installed. All scenarios of a call run one after the other in one guest.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tarfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from lab import elf, guest, probes, recording, scenario
from lab.btf import Types
from lab.errors import LabError

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

DEFAULT_PACKAGE = "linux-image-6.1.0-56-amd64"
# No random layout, so that addresses repeat; no watchdogs, which a slow emulator would set off.
KERNEL_ARGUMENTS = (
    "console=ttyS0 quiet nokaslr norandmaps tsc=reliable nosoftlockup nowatchdog "
    "no_timer_check rcupdate.rcu_cpu_stall_suppress=1 panic=-1"
)
RESULT_BYTES = 2 << 30
WORK_BYTES = 256 << 20


@dataclass(frozen=True, slots=True)
class Machine:
    """What QEMU emulates."""

    label: str
    cpus: int
    cpu: str
    ceiling: int | None
    memory_mib: int
    arguments: str
    timeout_s: int


def _tool(name: str, package: str) -> str:
    found = shutil.which(name) or shutil.which(name, path="/usr/sbin:/sbin")
    if found is None:
        raise LabError(f"found no program {name}, expected it to be installed (Debian: apt-get install {package})")
    return found


def _run(command: Sequence[str | Path], what: str, cwd: Path | None = None) -> str:
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)
    if done.returncode:
        said = (done.stderr.strip() or done.stdout.strip()).splitlines()
        raise LabError(f"{what}: {said[-1] if said else f'status {done.returncode}'}")
    return done.stdout


def _only(found: list[Path], where: Path, expected: str) -> Path:
    if len(found) != 1:
        raise LabError(f"{where}: found {len(found)} files {expected}, expected one")
    return found[0]


def _fetch(package: str, build: Path) -> Path:
    """The file of a package, downloaded at its first use."""
    directory = build / "packages" / package
    if not directory.exists():
        partial = directory.with_suffix(".partial")
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        _run([_tool("apt-get", "apt"), "download", package], f"kernel package {package}", cwd=partial)
        partial.rename(directory)
    return _only(list(directory.glob("*.deb")), directory, "*.deb")


def _unpacked(package: Path, build: Path) -> guest.Kernel:
    root = build / "kernels" / package.stem
    if not root.exists():
        partial = root.with_name(root.name + ".partial")
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        _run([_tool("dpkg-deb", "dpkg"), "-x", package, partial], f"{package}")
        partial.rename(root)
    image = _only(list(root.glob("boot/vmlinuz-*")), root, "boot/vmlinuz-*")
    release = image.name.removeprefix("vmlinuz-")
    found = [path for path in (root / "lib/modules" / release, root / "usr/lib/modules" / release) if path.is_dir()]
    return guest.Kernel(image, found[0] if found else None)


def kernel_of(arguments: argparse.Namespace, build: Path) -> guest.Kernel:
    """The kernel that the command line asks for.

    Raises:
        LabError: it is not there.
    """
    for path in (arguments.kernel_image, arguments.kernel_deb, arguments.modules):
        if path is not None and not path.exists():
            raise LabError(f"{path}: found nothing, expected a kernel's file")
    if arguments.kernel_image is not None:
        return guest.Kernel(arguments.kernel_image, arguments.modules)
    if arguments.kernel_deb is not None:
        return _unpacked(arguments.kernel_deb, build)
    return _unpacked(_fetch(arguments.kernel_package, build), build)


def read_scenarios(paths: Sequence[Path], nr_cpus: int) -> dict[str, str]:
    """The text of the scenarios, by name; a directory stands for all in it.

    Raises:
        LabError: a mistake in one, or one that does not fit on the machine.
    """
    found: dict[str, str] = {}
    for given in paths:
        files = sorted(given.glob("*.scn")) if given.is_dir() else [given]
        if not files:
            raise LabError(f"{given}: found no *.scn, expected scenarios")
        for path in files:
            needed = scenario.load(path).nr_cpus
            if needed > nr_cpus:
                raise LabError(f"{path}: found CPU {needed - 1}, expected CPUs below {nr_cpus} (--cpus)")
            if path.stem in found:
                raise LabError(f"{path}: found a second scenario {path.stem}, expected different names")
            found[path.stem] = path.read_text(encoding="utf-8")
    return found


def build_runner(build: Path) -> Path:
    """Compiles the runner, static, as the guest has no libraries.

    Raises:
        LabError: there is no compiler, or it failed.
    """
    compiler = _tool(os.environ.get("CC", "cc"), "gcc libc6-dev")
    runner = build / "tlbw"
    sources = sorted((guest.HERE / "runner").glob("*.c"))
    _run([compiler, "-O1", "-Wall", "-Wextra", "-static", "-no-pie", "-pthread", "-o", runner, *sources], "the runner")
    return runner


def _busybox() -> Path:
    path = Path(_tool("busybox", "busybox-static"))
    if b"/ld-linux" in path.read_bytes():
        raise LabError(f"{path}: found a busybox with libraries, expected a static one (Debian: busybox-static)")
    return path


def boot(kernel: guest.Kernel, machine: Machine, archive: bytes, raw: Path) -> None:
    """Runs the guest until it ends and unpacks what it left into `raw`.

    Raises:
        LabError: it did not finish.
    """
    emulator = _tool("qemu-system-x86_64", "qemu-system-x86")
    shutil.rmtree(raw, ignore_errors=True)
    raw.mkdir(parents=True)
    (raw / "initramfs.gz").write_bytes(archive)
    result, work, console = raw / "result.tar", raw / "work.ext4", raw / "console"
    for path, size in ((result, RESULT_BYTES), (work, WORK_BYTES)):
        with path.open("wb") as file:
            file.truncate(size)
    _run([_tool("mke2fs", "e2fsprogs"), "-q", "-F", "-t", "ext4", work], f"{work}")
    ceiling = "" if machine.ceiling is None else f" ceiling={machine.ceiling}"
    command = [
        *(emulator, "-accel", "tcg,thread=multi", "-cpu", machine.cpu, "-smp", str(machine.cpus)),
        *("-m", str(machine.memory_mib), "-M", "pc", "-nographic", "-no-reboot", "-net", "none"),
        *("-kernel", str(kernel.image), "-initrd", str(raw / "initramfs.gz")),
        *("-append", f"{KERNEL_ARGUMENTS}{ceiling} {machine.arguments}".rstrip()),
        *("-drive", f"file={result},format=raw,if=virtio", "-drive", f"file={work},format=raw,if=virtio"),
    ]
    with console.open("wb") as file:
        try:
            subprocess.run(
                command, stdin=subprocess.DEVNULL, stdout=file, stderr=file, timeout=machine.timeout_s, check=False
            )
        except subprocess.TimeoutExpired:
            raise LabError(f"{console}: the guest did not end within {machine.timeout_s} s (--timeout)") from None
    said = [line for line in console.read_text(errors="replace").splitlines() if line.strip()]
    if not any(line.endswith("LAB done") for line in said):
        raise LabError(f"{console}: the guest did not finish, its last words are: {said[-1] if said else 'none'}")
    with tarfile.open(result) as archive_file:
        archive_file.extractall(raw, filter="data")
    for path in (result, work, raw / "initramfs.gz"):
        path.unlink()


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `python -m lab run`."""
    parser.add_argument(
        "scenarios", nargs="+", type=Path, metavar="SCENARIO", help="files *.scn, or directories of them"
    )
    kernel = parser.add_mutually_exclusive_group()
    kernel.add_argument(
        "--kernel-package",
        default=DEFAULT_PACKAGE,
        metavar="NAME",
        help="Debian package to download with apt-get and unpack (default %(default)s)",
    )
    kernel.add_argument("--kernel-deb", type=Path, metavar="FILE", help="a kernel's package as a file")
    kernel.add_argument("--kernel-image", type=Path, metavar="FILE", help="a bzImage or vmlinux of your own")
    parser.add_argument("--modules", type=Path, metavar="DIR", help="with --kernel-image: its lib/modules/RELEASE")
    parser.add_argument("--cpus", type=int, default=4, metavar="N", help="CPUs of the guest (default 4)")
    parser.add_argument("--cpu", default="max", metavar="MODEL", help="max: 5 levels (default), qemu64: 4 levels")
    parser.add_argument(
        "--ceiling", type=int, metavar="PAGES", help="tlb_single_page_flush_ceiling (default: kernel's)"
    )
    parser.add_argument("--memory", type=int, default=4096, metavar="MIB", help="memory of the guest (default 4096)")
    parser.add_argument("--append", default="", metavar="TEXT", help="more arguments for the kernel")
    parser.add_argument(
        "--label", default="lab", metavar="WORD", help="recordings are LABEL_NAME.jsonl.gz (default lab)"
    )
    parser.add_argument("--timeout", type=int, default=1500, metavar="S", help="seconds for the guest (default 1500)")
    parser.add_argument("--build", type=Path, default=Path("build/lab"), metavar="DIR", help="default %(default)s")
    parser.add_argument("--out", type=Path, default=Path("build"), metavar="DIR", help="default %(default)s")


def run(arguments: argparse.Namespace) -> int:
    """Does it; returns the exit status: 0 if the recordings are complete.

    Raises:
        LabError: it cannot be done.
    """
    if not 1 <= arguments.cpus <= scenario.MAX_CPUS:
        raise LabError(f"--cpus: found {arguments.cpus}, expected 1 to {scenario.MAX_CPUS}")
    # What costs nothing comes first: no download and no boot for a mistake in a scenario.
    texts = read_scenarios(arguments.scenarios, arguments.cpus)
    busybox = _busybox()
    emulator = _tool("qemu-system-x86_64", "qemu-system-x86")
    build: Path = arguments.build.resolve()
    build.mkdir(parents=True, exist_ok=True)
    runner = build_runner(build)
    image = elf.image(runner)
    kernel = kernel_of(arguments, build)
    types = Types.of_image(kernel.image)
    archive = guest.initramfs(kernel, busybox, runner, probes.definitions(types), texts)
    machine = Machine(
        label=arguments.label,
        cpus=arguments.cpus,
        cpu=arguments.cpu,
        ceiling=arguments.ceiling,
        memory_mib=arguments.memory,
        arguments=arguments.append,
        timeout_s=arguments.timeout,
    )
    raw = build / "raw" / arguments.label
    print(f"booting {kernel.image.name} with {machine.cpus} CPUs, {len(texts)} scenarios")
    boot(kernel, machine, archive, raw)
    (raw / "scenarios").mkdir()
    for name, text in texts.items():
        (raw / "scenarios" / f"{name}.scn").write_text(text, encoding="utf-8")
    about = {
        "label": machine.label,
        "cpu": machine.cpu,
        "smp": machine.cpus,
        "qemu": _run([emulator, "--version"], emulator).splitlines()[0],
        "gather_flags": probes.gather_flags(types),
        "runner": image,
    }
    (raw / "machine.json").write_text(json.dumps(about, indent=1) + "\n", encoding="utf-8")
    return report(recording.convert(raw, arguments.out), arguments.out, machine.label, sorted(texts))


def report(problems: list[str], out: Path, label: str, names: Sequence[str]) -> int:
    """Tells what was written and what is wrong with it; returns the exit status."""
    for name in names:
        print(out / f"{label}_{name}.jsonl.gz")
    for problem in problems:
        print(f"warning: {problem}")
    return 1 if problems else 0
