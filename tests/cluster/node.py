# SPDX-License-Identifier: Apache-2.0
"""A node: containerd and kubelet in namespaces of their own, with a fake kernel instead of the machine's.

* Mounts, process ids, network, IPC and host name are the node's own (``keeper``), the rest is the machine's.
* What a kubelet changes for the whole machine is hidden from it: the sysctls that it sets are files that hold its
  values already, /run and /var/log are empty, what goes to /var/lib is written elsewhere.
* containerd, and so every Pod, sees a copy of these mounts in which the fake kernel stands at /sys, and at those files
  of /proc that it has. The kubelet's own view stays real: it counts the machine's NUMA nodes and processors. What the
  kubelet mounts for Pods reaches containerd, since its copy is a slave (mount_namespaces(7)).
* /sys is one mount but for the cgroups, so that a hostPath of /sys that is read only is so for every knob, as on a real
  node. Files of /proc/sys are mounts each; they are read only but within ``sysctls_writable``.
* Each Pod's own /sys and /proc are the machine's, as of any container.

Sources: the kubelet's setupKernelTunables (vm.overcommit_memory and others); KubeletConfiguration v1beta1; containerd's
docs/cri/config.md; CNI bridge plugin.
"""

from __future__ import annotations

import json
import os
import secrets
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import Final, Self

import yaml

from tests.cluster.needs import find_runc
from tests.testbed import processes
from tests.testbed.api import poll
from tests.testbed.binaries import ClusterBinaries
from tests.testbed.errors import BedError
from tests.testbed.processes import Server

KEEPER: Final = Path(__file__).with_name("keeper.py")

ADDRESS: Final = "10.213.0.1"
"""Of the node, in its own network; nobody else sees it."""

SERVICE: Final = "10.96.0.1"
"""Of the ``kubernetes`` Service: the first address of the control plane's range."""

POD_NETWORK: Final = "10.244.0.0/24"

STOP_SECONDS_MAX: Final = 150.0
"""More than the keeper's own bounds together; it took under a second."""

KILL_SECONDS_MAX: Final = 20.0
"""For the kernel to end a killed process-id namespace."""

SYSCTLS: Final[Mapping[str, int]] = MappingProxyType({
    "vm/overcommit_memory": 1,
    "vm/panic_on_oom": 0,
    "kernel/panic": 10,
    "kernel/panic_on_oops": 1,
    "kernel/keys/root_maxkeys": 1_000_000,
    "kernel/keys/root_maxbytes": 25_000_000,
})  # fmt: skip
"""What a kubelet sets, with its values."""

SHOWN_PROC_FILES: Final = (
    "vmstat",
    "cpuinfo",
    "config.gz",
    "pressure/cpu",
    "pressure/memory",
    "pressure/io",
    "sys/kernel/osrelease",
    "sys/kernel/random/boot_id",
)
"""Files of /proc that an agent reads."""

KNOB_PROC_FILES: Final = ("sys/kernel/numa_balancing", "sys/kernel/numa_balancing_promote_rate_limit_MBps")
"""Files of /proc that an agent may write."""

OWN_PLACES: Final = """\
mount --make-rshared /
mount -t tmpfs tmpfs /run
mount -t tmpfs tmpfs /var/log
mkdir -p /run/netns {folder}/var
mount -t tmpfs tmpfs {folder}/var
mkdir {folder}/var/upper {folder}/var/work
mount -t overlay overlay -o lowerdir=/var/lib,upperdir={folder}/var/upper,workdir={folder}/var/work /var/lib
"""

NETWORK: Final = """\
hostname {name}
ip link set lo up
ip addr add {service}/32 dev lo
ip link add node0 type bridge
ip addr add {address}/24 dev node0
ip link set node0 up
echo 1 >/proc/sys/net/ipv4/ip_forward
"""
"""The bridge has no port: it only carries the node's address."""

FAKE_SYS: Final = """\
mkdir -p {folder}/cgroup
mount --rbind /sys/fs/cgroup {folder}/cgroup
mount --bind {root}/sys /sys
mount --rbind {folder}/cgroup /sys/fs/cgroup
umount --recursive --lazy {folder}/cgroup
"""

CONTAINERD: Final = """\
version = 3
root = "{folder}/containerd"
state = "{folder}/containerd-state"
oom_score = 0
disabled_plugins = ["io.containerd.nri.v1.nri", "io.containerd.internal.v1.opt"]
[grpc]
  address = "{socket}"
[plugins."io.containerd.cri.v1.images"]
  snapshotter = "overlayfs"
  [plugins."io.containerd.cri.v1.images".pinned_images]
    sandbox = "{pause}"
[plugins."io.containerd.cri.v1.runtime"]
  restrict_oom_score_adj = true
  [plugins."io.containerd.cri.v1.runtime".cni]
    bin_dirs = {cni}
    conf_dir = "{folder}/cni"
  [plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc]
    runtime_type = "io.containerd.runc.v2"
    [plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc.options]
      BinaryName = "{runc}"
      SystemdCgroup = false
"""
"""oom_score and restrict_oom_score_adj: for machines on which even root may not lower an OOM score."""


class Keeper:
    """A node's namespaces and cgroup, from ``__enter__`` to ``__exit__``, which also removes `folder`.

    Attributes:
        cgroup: name of the node's cgroup.
        pid: the node's first process, once it is started.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.pid = 0
        self.cgroup = f"numamigration-{secrets.token_hex(4)}"

    def __enter__(self) -> Self:
        command: list[str | Path] = [sys.executable, "-I", "-S", KEEPER, self.cgroup, self.folder]
        pipe = subprocess.PIPE
        self._process = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, start_new_session=True)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        words = self._end()
        if self._process.returncode:
            raise BedError(f"something of the node is left on this machine: {words}")

    def start_node(self) -> None:
        """Make the namespaces: a mount that is made out here later does not come in any more.

        Raises:
            BedError: the machine gives none.
        """
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.write(b"start\n")
        self._process.stdin.flush()
        first = self._process.stdout.readline()
        if not first:
            raise BedError(f"no namespaces for a node: {self._end()}")
        self.pid = int(first)

    def kill_node(self) -> None:
        """End every process of the node at once, as if its machine had lost power; its cgroups and files stay."""
        with suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)

    def _end(self) -> str:
        _, words = self._process.communicate(timeout=STOP_SECONDS_MAX)
        return words.decode(errors="replace").strip()


class Node:
    """One node of a cluster.

    Args:
        name: of the Node object.
        keeper: holds its namespaces.
        binaries: containerd, kubelet and what they call.
        folder: for data, configuration and logs.
    """

    def __init__(self, name: str, keeper: Keeper, binaries: ClusterBinaries, folder: Path) -> None:
        self.name, self.folder = name, folder
        self._keeper, self._binaries = keeper, binaries
        self._socket = folder / "containerd.sock"
        self.servers: list[Server] = []

    def __repr__(self) -> str:
        return f"<Node {self.name} {self.servers}>"

    # --- what tests do -------------------------------------------------------------------------------------------

    @property
    def seccomp_folder(self) -> Path:
        """Where the kubelet looks for profiles of the type Localhost; an administrator makes it."""
        return self._kubelet_folder / "seccomp"

    def run(self, *command: str | Path, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run a program of the machine where Pods' hostPaths come from: there /sys is the fake kernel's.

        Raises:
            CalledProcessError: it failed, and `check` is set.
        """
        return subprocess.run(self._beside_containerd(command), capture_output=True, text=True, check=check)

    def read(self, path: str) -> str:
        """Return what a file holds, as Pods see it through a hostPath."""
        return self.run("cat", path).stdout

    @contextmanager
    def sysctls_writable(self) -> Iterator[None]:
        """Let Pods that start meanwhile write the fake kernel's files of /proc/sys, by whatever leads there.

        Otherwise a hostPath of /proc/sys/kernel finds them read only, as any other way does.
        """
        self._remount_knobs("rw")
        try:
            yield
        finally:
            self._remount_knobs("ro")

    @contextmanager
    def without(self, folder: str) -> Iterator[None]:
        """Let the kubelet, which looks whether hostPaths are there, find nothing in a folder."""
        subprocess.run(self._enter("mount", "-t", "tmpfs", "tmpfs", folder), check=True)
        try:
            yield
        finally:
            subprocess.run(self._enter("umount", folder), check=True)

    def images(self) -> set[str]:
        """Return the names of the images that containerd has."""
        return set(self._ctr("images", "list", "--quiet").split())

    def import_image(self, archive: Path) -> None:
        """Give containerd the images of an archive (Docker's or OCI's form)."""
        self._ctr("images", "import", "--local", archive)

    def kill(self) -> None:
        """Let the node lose power; its Node object stays, as that of any dead node."""
        self._keeper.kill_node()
        for server in self.servers:
            server.wait(KILL_SECONDS_MAX)

    def check_alive(self) -> None:
        """Raise ServerDiedError, with the end of its log, when containerd or kubelet has ended."""
        for server in self.servers:
            server.check_alive()

    # --- start ---------------------------------------------------------------------------------------------------

    def set_up(self) -> None:
        """Give the node its own places, network and sysctls."""
        script = [OWN_PLACES.format(folder=self.folder)]
        script.append(NETWORK.format(name=self.name, service=SERVICE, address=ADDRESS))
        for name, value in SYSCTLS.items():
            if Path("/proc/sys", name).exists():
                file = self.folder / f"sysctl-{name.replace('/', '.')}"
                file.write_text(f"{value}\n")
                script.append(f"mount --bind {file} /proc/sys/{name}\n")
        done = subprocess.run(self._enter("sh", "-ec", "".join(script)), capture_output=True, text=True, check=False)
        if done.returncode:
            raise BedError(f"a node cannot be set up: {done.stderr}")

    def start_containerd(self, root: Path, pause: str) -> None:
        """Start containerd, and return when it answers.

        Args:
            root: of the fake kernel.
            pause: name of the image whose container holds a Pod's namespaces.
        """
        self._root = root
        self._write_cni()
        config = self.folder / "containerd.toml"
        config.write_text(self._containerd_config(pause))
        script = f"{self._fake_mounts()}exec {self._binaries.containerd} --config {config}"
        apart = ["unshare", "--mount", "--propagation", "slave", "sh", "-ec", script]
        self._start("containerd", apart)
        poll(self._containerd_answers, f"containerd (log: {self.folder / 'containerd.log'})")

    def start_kubelet(self, kubeconfig: Path) -> None:
        """Start the kubelet; it makes the Node object."""
        config = self.folder / "kubelet.yaml"
        config.write_text(yaml.safe_dump(self._kubelet_config()))
        options = {
            "config": config,
            "kubeconfig": kubeconfig,
            "root-dir": self._kubelet_folder,
            "cert-dir": self.folder / "kubelet-pki",
            "hostname-override": self.name,
            "node-ip": ADDRESS,
            "v": 2,
        }
        self._start("kubelet", [self._binaries.kubelet, *(f"--{name}={value}" for name, value in options.items())])

    @property
    def _kubelet_folder(self) -> Path:
        return self.folder / "kubelet"

    def _start(self, name: str, command: Sequence[str | Path]) -> None:
        found = [str(self._binaries.shim.parent), os.environ["PATH"], "/usr/sbin", "/sbin"]
        env = {**os.environ, "PATH": os.pathsep.join(found), "AWS_EC2_METADATA_DISABLED": "true"}
        self.servers.append(processes.start(name, self._enter(*command), self.folder / f"{name}.log", env=env))

    def _containerd_answers(self) -> bool:
        self.check_alive()
        if not self._socket.exists():
            return False
        with suppress(subprocess.CalledProcessError):
            return bool(self._ctr("version"))
        return False

    def _fake_mounts(self) -> str:
        knobs = self._knobs()
        # A file that the machine has not cannot be mounted on; the node has it not either.
        there = [name for name in SHOWN_PROC_FILES if Path("/proc", name).exists()]
        shown = [*knobs, *(name for name in there if (self._root / "proc" / name).exists())]
        script = [FAKE_SYS.format(folder=self.folder, root=self._root)]
        script += [f"mount --bind {self._root}/proc/{name} /proc/{name}\n" for name in shown]
        script += [f"mount -o remount,bind,ro /proc/{name}\n" for name in knobs]
        return "".join(script)

    def _knobs(self) -> list[str]:
        return [name for name in KNOB_PROC_FILES if Path("/proc", name).exists()]

    def _remount_knobs(self, mode: str) -> None:
        for name in self._knobs():
            self.run("mount", "-o", f"remount,bind,{mode}", f"/proc/{name}")

    def _write_cni(self) -> None:
        ranges = [[{"subnet": POD_NETWORK}]]
        addresses = {"type": "host-local", "ranges": ranges, "routes": [{"dst": "0.0.0.0/0"}]}
        bridge = {
            "type": "bridge",
            "bridge": "cni0",
            "isGateway": True,
            "ipMasq": False,
            "ipam": {**addresses, "dataDir": str(self.folder / "cni-addresses")},
        }
        network = {"cniVersion": "1.0.0", "name": "bed", "plugins": [bridge]}
        (self.folder / "cni").mkdir()
        (self.folder / "cni" / "10-bed.conflist").write_text(json.dumps(network))

    def _containerd_config(self, pause: str) -> str:
        programs = (self._binaries.bridge, self._binaries.loopback, self._binaries.host_local)
        cni = json.dumps([str(program.parent) for program in programs])
        return CONTAINERD.format(folder=self.folder, socket=self._socket, pause=pause, cni=cni, runc=find_runc())

    def _kubelet_config(self) -> dict[str, object]:
        return {
            "apiVersion": "kubelet.config.k8s.io/v1beta1",
            "kind": "KubeletConfiguration",
            "address": ADDRESS,
            "readOnlyPort": 0,
            "healthzBindAddress": "127.0.0.1",
            # Its port is open in the node's own network alone, into which only the API server is led.
            "authentication": {"anonymous": {"enabled": True}, "webhook": {"enabled": False}},
            "authorization": {"mode": "AlwaysAllow"},
            "containerRuntimeEndpoint": f"unix://{self._socket}",
            "volumePluginDir": str(self.folder / "volume-plugins"),
            "failCgroupV1": False,
            "failSwapOn": False,
            "cgroupDriver": "cgroupfs",
            "cgroupRoot": f"/{self._keeper.cgroup}",
            "makeIPTablesUtilChains": False,
            "oomScoreAdj": 0,
            # Images are imported, not pulled: one that is collected would be gone.
            "imageGCHighThresholdPercent": 100,
            "evictionHard": {"nodefs.available": "1%", "imagefs.available": "1%", "memory.available": "100Mi"},
            "resolvConf": "",
            "clusterDNS": ["10.96.0.10"],
            "clusterDomain": "cluster.local",
            # A dead node is noticed in seconds, together with the controller manager's grace period.
            "nodeLeaseDurationSeconds": 8,
            "nodeStatusUpdateFrequency": "2s",
        }

    def _ctr(self, *arguments: str | Path) -> str:
        return self.run(self._binaries.ctr, "--address", self._socket, "--namespace", "k8s.io", *arguments).stdout

    def _enter(self, *command: str | Path, pid: int | None = None) -> list[str | Path]:
        spaces = ["--mount", "--net", "--pid", "--ipc", "--uts"]
        return ["nsenter", "--target", str(pid or self._keeper.pid), *spaces, "--", *command]

    def _beside_containerd(self, command: Sequence[str | Path]) -> list[str | Path]:
        # nsenter has become the parent of what it started in the node's process-id namespace.
        parent = self.servers[0].pid
        children = Path(f"/proc/{parent}/task/{parent}/children").read_text().split()
        if not children:
            raise BedError(f"containerd of {self.name} is gone")
        return self._enter(*command, pid=int(children[0]))
