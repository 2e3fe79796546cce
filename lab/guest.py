"""The guest's first file system: busybox, the runner, the scenarios, the kernel's modules and the probes.

Contract: an archive in the format newc (Documentation/driver-api/early-userspace/buffer-format.rst), the same bytes for
the same input. Modules are put in the order in which they have to be loaded, and uncompressed, for busybox.
"""

from __future__ import annotations

import gzip
import lzma
import re
import shutil
import stat
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from lab.errors import LabError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

HERE = Path(__file__).resolve().parent
DIRECTORIES = ("bin", "dev", "lab", "lab/scenarios", "lib", "mnt", "out", "proc", "sys", "tmp")
# Disks, swap in memory and the work file system; built-in ones and those that a kernel does not have are left out.
MODULES = ("virtio_pci", "virtio_blk", "lzo_rle", "zram", "crc32c_generic", "crc32c_cryptoapi", "ext4")
DEPENDS = re.compile(rb"\0depends=([^\0]*)\0")


@dataclass(frozen=True, slots=True)
class Kernel:
    """An image and the directory of its modules, if it has any."""

    image: Path
    modules: Path | None


def _unzstd(data: bytes) -> bytes:
    if shutil.which("zstd") is None:
        raise LabError("found modules compressed with zstd, expected the program zstd to be installed")
    return subprocess.run(["zstd", "-dcq"], input=data, capture_output=True, check=True).stdout  # noqa: S607


_DECOMPRESS: Mapping[str, Callable[[bytes], bytes]] = {
    ".ko": bytes,
    ".gz": gzip.decompress,
    ".xz": lzma.decompress,
    ".zst": _unzstd,
}


def modules_of(directory: Path) -> dict[str, bytes]:
    """The modules that a guest needs, by file name, each after those that it depends on."""
    paths = {}
    for path in sorted(directory.rglob("*.ko*")):
        if path.suffix in _DECOMPRESS:
            paths[path.name.partition(".")[0].replace("-", "_")] = path
    loaded: dict[str, bytes] = {}

    def load(name: str) -> None:
        path = paths.get(name.replace("-", "_"))
        if path is None or f"{name}.ko" in loaded:
            return
        content = _DECOMPRESS[path.suffix](path.read_bytes())
        depends = DEPENDS.search(content)
        for needed in depends[1].decode().split(",") if depends and depends[1] else []:
            load(needed.replace("-", "_"))
        loaded[f"{name}.ko"] = content

    for name in MODULES:
        load(name)
    return loaded


def _entry(number: int, name: str, mode: int, content: bytes) -> bytes:
    encoded = name.encode() + b"\0"
    fields = (number, mode, 0, 0, 1, 0, len(content), 0, 0, 0, 0, len(encoded), 0)
    header = b"070701" + b"".join(b"%08X" % value for value in fields)
    padded = header + encoded
    padded += b"\0" * (-len(padded) % 4)
    return padded + content + b"\0" * (-len(content) % 4)


def archive(files: Mapping[str, tuple[int, bytes]]) -> bytes:
    """The archive of directories and of files by name, each with its permissions."""
    entries = [(name, stat.S_IFDIR | 0o755, b"") for name in DIRECTORIES]
    entries += [(name, stat.S_IFREG | permissions, content) for name, (permissions, content) in files.items()]
    entries.append(("TRAILER!!!", 0, b""))
    packed = b"".join(_entry(number, *entry) for number, entry in enumerate(entries, 1))
    return gzip.compress(packed, compresslevel=4, mtime=0)


def initramfs(kernel: Kernel, busybox: Path, runner: Path, probes: list[str], scenarios: Mapping[str, str]) -> bytes:
    """The guest's file system, compressed."""
    modules = modules_of(kernel.modules) if kernel.modules is not None else {}
    files = {
        "init": (0o755, (HERE / "guest" / "init.sh").read_bytes()),
        "bin/busybox": (0o755, busybox.read_bytes()),
        "bin/tlbw": (0o755, runner.read_bytes()),
        "lab/probes": (0o644, "".join(probe + "\n" for probe in probes).encode()),
        "lab/modules": (0o644, "".join(name + "\n" for name in modules).encode()),
    }
    files |= {f"lab/scenarios/{name}.scn": (0o644, text.encode()) for name, text in scenarios.items()}
    files |= {f"lib/{name}": (0o644, content) for name, content in modules.items()}
    return archive(files)
