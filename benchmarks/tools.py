"""Programs of a benchmark that are no dependencies of Hearth: fetched once, into a folder of their own."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

PACKAGES = (
    "wrk",
    "libluajit-5.1-2",
    "libluajit-5.1-common",
    "nginx",
    "nginx-common",
    "libnginx-mod-http-echo",
)
ROUTERS = Path(__file__).with_name("routers.txt")
DEFAULT_FOLDER = Path(tempfile.gettempdir()) / "hearth-benchmark-tools"


@dataclass(frozen=True)
class Tools:
    """A load generator, a web server to stand in for engines, and the routers to compare with."""

    folder: Path

    @classmethod
    def at(cls, folder: Path, *, routers: bool) -> Tools:
        """What is not in the folder yet is fetched from Debian and PyPI; nothing is installed elsewhere."""
        tools = cls(folder.absolute())
        if not tools.wrk.exists():
            tools._unpack()
        if routers and not (tools.router.exists() and tools.litellm.exists()):
            tools._install_routers()
        return tools

    @property
    def environment(self) -> dict[str, str]:
        return {"LD_LIBRARY_PATH": str(self.folder / "root/usr/lib/x86_64-linux-gnu")}

    @property
    def wrk(self) -> Path:
        return self.folder / "root/usr/bin/wrk"

    @property
    def nginx(self) -> Path:
        return self.folder / "root/usr/sbin/nginx"

    @property
    def echo_module(self) -> Path:
        return self.folder / "root/usr/lib/nginx/modules/ngx_http_echo_module.so"

    @property
    def router(self) -> Path:
        return self.folder / "routers/bin/vllm-router"

    @property
    def litellm(self) -> Path:
        return self.folder / "routers/bin/litellm"

    def _unpack(self) -> None:
        archives = self.folder / "archives"
        archives.mkdir(parents=True, exist_ok=True)
        _run(["apt-get", "download", "--quiet", *PACKAGES], archives)
        for archive in archives.glob("*.deb"):
            _run(["dpkg", "--extract", str(archive), str(self.folder / "root")], archives)

    def _install_routers(self) -> None:
        environment = self.folder / "routers"
        _run([sys.executable, "-m", "venv", str(environment)], self.folder)
        _run([str(environment / "bin/pip"), "install", "--quiet", "-r", str(ROUTERS)], self.folder)


def _run(command: list[str], folder: Path) -> None:
    try:
        subprocess.run(command, cwd=folder, check=True, stdout=subprocess.DEVNULL)
    except (OSError, subprocess.CalledProcessError) as error:
        raise SystemExit(f"a tool of the benchmark cannot be had: {error}") from None
