"""A real SLURM cluster on this one machine, for tests and for trying things out. Standard library only.

    python tests/slurm/cluster.py start DIR     # prints: export SLURM_CONF=DIR/etc/slurm.conf
    python tests/slurm/cluster.py stop DIR

munged, MariaDB with slurmdbd (accounting), slurmctld and two slurmd with two made-up GPUs each, all from Debian's or
Ubuntu's packages, no init system, any user. Everything lies under DIR, every folder above which must be open to
others (mode o+x: munged insists). Only processes that were started here, by process id and start time, are ended.

    apt-get install -y --no-install-recommends slurm-wlm slurmdbd mariadb-server-core mariadb-client-core
"""

from __future__ import annotations

import contextlib
import getpass
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

from daemons import STARTED, Daemons, until

PACKAGES = "slurm-wlm slurmdbd mariadb-server-core mariadb-client-core"
INSTALL = f"apt-get update && apt-get install -y --no-install-recommends {PACKAGES}"
PROGRAMS = (
    *("munged", "munge", "mariadbd", "mariadb-install-db", "mariadb", "slurmdbd"),
    *("sacctmgr", "slurmctld", "slurmd", "sinfo", "squeue"),
)
SYSTEM_PATHS = ("/usr/sbin", "/usr/local/sbin", "/sbin")  # daemons' folders, not on every user's PATH
NODES, CPUS, GPUS, MEMORY_MB = 2, 4, 2, 16000  # per node; neither CPUs nor memory need exist
PORTS = range(16817, 20000, 20)  # slurmctld's, one that is free; +1 slurmdbd; +1+i the i-th slurmd
TEMPLATES = Path(__file__).parent / "conf"
WAIT_SECONDS = 90.0


class ClusterError(RuntimeError):
    """The cluster cannot be started; the message says why, with the log's last lines."""


def missing_programs() -> list[str]:
    """Programs that are not installed; the packages to install are in INSTALL."""
    return [name for name in PROGRAMS if shutil.which(name, path=_path()) is None]


class Cluster:
    """One cluster in one folder."""

    def __init__(self, folder: Path | str) -> None:
        self.dir = Path(os.path.abspath(folder))
        self.conf = self.dir / "etc" / "slurm.conf"
        self.environment = {**os.environ, "PATH": _path(), "SLURM_CONF": str(self.conf)}
        self.daemons = Daemons(self.dir, self.environment)

    # ---- start and stop

    def start(self) -> None:
        """Start everything and wait until all nodes are idle. What is left of an earlier start is stopped first."""
        self._check()
        self.stop()
        self._write_files()
        self._start_munge()
        self._start_accounting()
        self.start_controller()
        for index in range(1, NODES + 1):
            self.start_node(f"node{index}")
        self.wait_idle()

    def stop(self) -> None:
        """Cancel the jobs, end the daemons, and end what jobs left behind. Does nothing where nothing is up."""
        if not (self.dir / STARTED).is_file():
            return
        if self.daemons.alive("slurmctld"):
            self.run("scancel", "--user", getpass.getuser(), check=False)
            until(lambda: not self.run("squeue", "-h", check=False).stdout.strip(), 15)
        for name in (
            *(f"slurmd-node{i}" for i in range(1, NODES + 1)),
            "slurmctld",
            "slurmdbd",
            "mariadbd",
            "munged",
        ):
            self.daemons.end(name)
        self._end_leftovers()

    def start_controller(self) -> None:
        self.daemons.launch("slurmctld", "slurmctld", "-D", "-f", str(self.conf))
        self._await("slurmctld", "scontrol", "ping", says="UP")

    def start_node(self, name: str) -> None:
        self.daemons.launch(f"slurmd-{name}", "slurmd", "-D", "-N", name, "-f", str(self.conf))

    def wait_idle(self) -> None:
        """Wait until every node is free and takes jobs; one that was set aside, for a test's doing, is taken back."""
        self.run("scontrol", "update", f"NodeName=node[1-{NODES}]", "State=RESUME", check=False)

        def idle() -> bool:
            shown = self.run("sinfo", "-h", "-N", "-p", "main", "-o", "%T", check=False).stdout.split()
            return len(shown) == NODES and all(state == "idle" for state in shown)

        if not until(idle, WAIT_SECONDS):
            shown = self.run("sinfo", "-N", "-l", check=False).stdout
            raise ClusterError(
                f"the nodes are not idle after {WAIT_SECONDS:.0f} s\n{shown}{self.daemons.tail('slurmctld')}"
            )

    def run(self, *command: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """One of SLURM's tools on this cluster."""
        answer = subprocess.run(command, capture_output=True, text=True, timeout=60, env=self.environment)
        if check and answer.returncode != 0:
            raise ClusterError(f"{' '.join(command)}: {answer.stderr or answer.stdout}")
        return answer

    # ---- pieces

    def _check(self) -> None:
        missing = missing_programs()
        if missing:
            raise ClusterError(f"not installed: {', '.join(missing)}. As root: {INSTALL}")
        if not re.fullmatch(r"[A-Za-z0-9_./-]{1,80}", str(self.dir)):
            raise ClusterError(
                f"choose a folder of at most 80 plain characters (sockets are made in it): {self.dir}"
            )
        if self.dir.exists() and any(self.dir.iterdir()) and not (self.dir / STARTED).is_file():
            raise ClusterError(f"{self.dir} is not empty, and not one of ours")
        self.dir.mkdir(parents=True, exist_ok=True)
        closed = [
            str(folder) for folder in (self.dir, *self.dir.parents) if not folder.stat().st_mode & 0o001
        ]
        if closed:
            raise ClusterError(
                f"munged needs folders that are open to others (chmod o+x): {', '.join(closed)}"
            )

    def _write_files(self) -> None:
        for name in ("state", "spool", "dev", "db", "log", "pids", "etc", "munge"):
            shutil.rmtree(self.dir / name, ignore_errors=True)
            (self.dir / name).mkdir(mode=0o700 if name == "db" else 0o755)
        (self.dir / STARTED).write_text("{}")
        key = self.dir / "munge" / "munge.key"
        key.write_bytes(os.urandom(1024))
        key.chmod(0o400)
        host = socket.gethostname().split(".")[0]
        # Not the first free ones: clusters started at one moment would all choose those.
        begin = os.getpid() % len(PORTS)
        ports = [*PORTS[begin:], *PORTS[:begin]]
        port = next((port for port in ports if all(_is_free(port + i) for i in range(2 + NODES))), ports[0])
        nodes = []
        for index in range(1, NODES + 1):
            (self.dir / "spool" / f"node{index}").mkdir()
            nodes.append(
                f"NodeName=node{index} NodeHostname={host} NodeAddr=127.0.0.1 Port={port + 1 + index} "
                f"CPUs={CPUS} RealMemory={MEMORY_MB} Gres=gpu:{GPUS} State=UNKNOWN"
            )
        # Told so, daemons and srun listen on the address of this host's name only: good where that is 127.0.0.1,
        # while with any other srun would wait for ever for slurmd, which calls back on 127.0.0.1.
        local = _address(host) == "127.0.0.1"
        values = {
            "dir": self.dir,
            "host": host,
            "user": getpass.getuser(),
            "port": port,
            "dbd_port": port + 1,
            "first_job": int(time.time() * 10) % 60_000_000 + 1,
            "nodes": "\n".join(nodes),
            "count": NODES,
        }
        listen = "CommunicationParameters=NoCtldInAddrAny,NoInAddrAny" if local else ""
        self.conf.write_text((TEMPLATES / "slurm.conf").read_text().format(**values, listen=listen))
        # slurmd takes only character devices for GPUs: links to /dev/null are, and need no privilege.
        for index in range(GPUS):
            (self.dir / "dev" / f"nvidia{index}").symlink_to("/dev/null")
        (self.dir / "etc" / "gres.conf").write_text(f"Name=gpu File={self.dir}/dev/nvidia[0-{GPUS - 1}]\n")
        # Nothing here uses cgroups, yet slurmd looks for them and dies where they are mixed, missing or read-only.
        version = float(re.search(r"\d+\.\d+", self.run("slurmctld", "-V").stdout).group())
        plugin = "disabled" if version >= 23.02 else "cgroup/v1"
        (self.dir / "etc" / "cgroup.conf").write_text(f"CgroupPlugin={plugin}\n")
        dbd = self.dir / "etc" / "slurmdbd.conf"  # found beside SLURM_CONF
        dbd.touch(mode=0o600)
        listen = "CommunicationParameters=NoInAddrAny" if local else ""
        dbd.write_text((TEMPLATES / "slurmdbd.conf").read_text().format(**values, listen=listen))

    def _start_munge(self) -> None:
        at = self.dir / "munge"
        self.daemons.launch(
            *(
                "munged",
                "munged",
                "--foreground",
                f"--key-file={at}/munge.key",
                f"--socket={at}/munge.socket",
            ),
            *(
                f"--pid-file={at}/munged.pid",
                f"--log-file={self.dir}/log/munged.log",
                f"--seed-file={at}/seed",
            ),
        )
        self._await("munged", "munge", "-n", "-S", f"{at}/munge.socket")

    def _start_accounting(self) -> None:
        database = self.dir / "db"
        user = f"--user={getpass.getuser()}"
        self.run(
            *("mariadb-install-db", "--no-defaults", user, f"--datadir={database}/data", "--skip-test-db"),
            *("--auth-root-authentication-method=socket", "--innodb-log-file-size=16M"),
        )
        self.daemons.launch(
            *("mariadbd", "mariadbd", "--no-defaults", user, f"--datadir={database}/data"),
            *(
                f"--socket={database}/sock",
                f"--pid-file={database}/pid",
                "--skip-networking",
                "--skip-grant-tables",
            ),
            *(
                "--innodb-buffer-pool-size=64M",
                "--innodb-log-file-size=16M",
                "--innodb-flush-log-at-trx-commit=0",
            ),
        )
        self._await("mariadbd", "mariadb", "--no-defaults", "-S", f"{database}/sock", "-e", "select 1")
        # libmariadb's variable: SLURM has no option for the socket.
        self.daemons.launch("slurmdbd", "slurmdbd", "-D", MYSQL_UNIX_PORT=f"{database}/sock")
        self._await("slurmdbd", "sacctmgr", "-n", "show", "cluster")
        self.run("sacctmgr", "-i", "add", "cluster", "lab")

    def _await(self, name: str, *probe: str, says: str = "") -> None:
        def up() -> bool:
            answer = self.run(*probe, check=False)
            return answer.returncode == 0 and says in answer.stdout

        if not until(lambda: up() or not self.daemons.alive(name), WAIT_SECONDS) or not up():
            raise ClusterError(f"{name} did not come up\n{self.daemons.tail(name)}")

    def _end_leftovers(self) -> None:
        """A slurmstepd outlives its slurmd, and so do a job's processes; ours know this cluster by its file."""
        mark = f"SLURM_CONF={self.conf}".encode()
        for folder in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError, ValueError):
                environment = (folder / "environ").read_bytes().split(b"\0")
                of_job = any(entry.startswith(b"SLURM_JOB_ID=") for entry in environment)
                of_job = of_job or (folder / "comm").read_text().strip() == "slurmstepd"
                if mark in environment and of_job and int(folder.name) != os.getpid():
                    os.kill(int(folder.name), signal.SIGKILL)


def _path() -> str:
    return os.pathsep.join([os.environ.get("PATH", os.defpath), *SYSTEM_PATHS])


def _address(host: str) -> str | None:
    try:
        return socket.gethostbyname(host)
    except OSError:
        return None


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind(("", port))
        except OSError:
            return False
    return True


def main(arguments: list[str]) -> int:
    if len(arguments) != 2 or arguments[0] not in ("start", "stop"):
        print(f"usage: {Path(__file__).name} start|stop DIR", file=sys.stderr)
        return 2
    cluster = Cluster(arguments[1])
    try:
        if arguments[0] == "stop":
            cluster.stop()
        else:
            cluster.start()
            print(f"export SLURM_CONF={cluster.conf}")
    except ClusterError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
