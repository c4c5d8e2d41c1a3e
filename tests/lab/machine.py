"""One instance: a systemd-nspawn machine with its own root disk, network card and control groups.

It is switched on and off as region.py finds fit; it never talks to the API. Each boot is a process of its own, in a mount
and a network namespace of its own, for two reasons: a mount made in the lab's namespace would be copied into every later
machine and held there after the machine it was made for has gone; and nspawn takes eth0 from where it is started."""
import hashlib
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

from cgroups import Cgroup
from prepare import image
from volume import Volume, cut_power, wait_until

REBOOT_EXIT = 133                           # of nspawn, with EXIT_ON_REBOOT
SYSTEMD_POWEROFF, SYSTEMD_REBOOT = signal.SIGRTMIN + 4, signal.SIGRTMIN + 5
LEAST_MEMORY_MIB, POWEROFF_LIMIT = 256, 60

# Arguments: root device, folder, image, MAC address, bridge port, the lab's process id; from $7 on: the command.
START = """set -e
mount -t ext4 "$1" "$2/disk"
mkdir -p "$2/disk/upper" "$2/disk/work"
mount -t overlay overlay -o "lowerdir=$3,upperdir=$2/disk/upper,workdir=$2/disk/work" "$2/root"
ip link add eth0 address "$4" type veth peer name "$5" netns "$6"
nsenter -t "$6" -n ip link set "$5" master br0 up
shift 6
exec "$@"
"""


class Machine:
    def __init__(self, instance_id, folder, console, v2, lab):
        self.id, self.dir, self.console = instance_id, folder, console
        self.port = "v" + instance_id[-12:]             # interface names have 15 characters at most
        self.cgroup = Cgroup(v2, lab, instance_id)
        self.process = self.root = self.stopping_since = self.ip = None
        self.volumes, self.boots, self.lost_power = {}, 0, False
        for name in ("disk", "root", "hypervisor"):
            (folder / name).mkdir(parents=True, exist_ok=True)
        # In a container cloud-init does not look at DMI, but it takes this, a Xen host's mark, for proof of EC2.
        (folder / "hypervisor/uuid").write_text("ec2" + self.uuid()[3:] + "\n")

    def uuid(self):
        return hashlib.md5(self.id.encode()).hexdigest()

    def is_on(self):
        return self.process is not None and self.process.poll() is None

    def leader(self):
        """The machine's own process 1, by its number in the lab; None while it is not there."""
        try:
            children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
            for pid in children:
                status = dict(line.split(":\t", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines()
                              if ":\t" in line)
                if status["NSpid"].split()[1:] == ["1"] and status["Name"] == "systemd":
                    return int(pid)
        except (OSError, AttributeError, KeyError):
            pass
        return None

    def boot(self, disk, gib, memory_mib, mac, ip):
        self.root, self.ip = Volume(disk, gib), ip
        if self.root.is_new:
            subprocess.run(["mkfs.ext4", "-q", "-E", "lazy_itable_init=1,lazy_journal_init=1,nodiscard", self.root.device],
                           check=True)
        self.cgroup.create(max(memory_mib, LEAST_MEMORY_MIB))
        enter = "".join(f"echo $$ > '{path}'\n" for path in self.cgroup.entrances())
        nspawn = ["systemd-nspawn", "--quiet", "--boot", f"--directory={self.dir}/root", f"--machine={self.id}",
                  f"--uuid={self.uuid()}", "--settings=no", "--register=no", "--keep-unit", "--private-network",
                  "--network-interface=eth0", "--console=read-only", "--resolv-conf=off", "--timezone=off",
                  "--link-journal=no", f"--bind-ro={self.dir}/hypervisor:/sys/hypervisor"]
        with open(self.console, "ab") as log:
            log.write(f"--- boot {self.boots} at {time.time():.3f}\n".encode())
            log.flush()
            self.process = subprocess.Popen(
                ["unshare", "--mount", "--net", "sh", "-c", enter + START, "sh", self.root.device, self.dir, image(), mac,
                 self.port, str(os.getpid()), *nspawn],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
                env={"PATH": os.environ["PATH"], "EXIT_ON_REBOOT": "1", "SYSTEMD_NSPAWN_LOCK": "0",
                     "UNIFIED_CGROUP_HIERARCHY": "1", "SYSTEMD_NSPAWN_UNIFIED_HIERARCHY": "1"})
        self.boots += 1
        return self.process

    def attach(self, wanted, path_of):
        """Attach and detach, until the machine has the volumes `wanted`: id -> (device name, GiB)."""
        leader = self.leader()
        for volume_id in set(self.volumes) - set(wanted):
            self.volumes.pop(volume_id).close(wait=False)
        for volume_id in set(wanted) - set(self.volumes) if leader else ():
            device, gib = wanted[volume_id]
            self.volumes[volume_id] = Volume(path_of(volume_id), gib)
            self.volumes[volume_id].appear(Path(f"/proc/{leader}/root/dev"), device, volume_id)

    def signal(self, number):
        leader = self.leader()
        if leader:
            os.kill(leader, number)
        return bool(leader)

    def power_off(self):
        """Ask it to shut down; later calls see to it that it does."""
        if self.stopping_since is None:
            self.stopping_since = time.monotonic()
            self.cgroup.freeze(False)
        if time.monotonic() > self.stopping_since + POWEROFF_LIMIT:
            self.cgroup.kill()
        else:                                           # a systemd that has only just started does not hear it
            self.signal(SYSTEMD_POWEROFF)

    def reboot(self):
        self.signal(SYSTEMD_REBOOT)

    def freeze(self, on):
        self.cgroup.freeze(on)
        wait_until(lambda: self.cgroup.is_frozen() == on, 5)

    def kill(self):
        """Power loss: nothing more leaves it, on the wire or to its disks, and then it is gone."""
        subprocess.run(["ip", "link", "set", self.port, "down"], check=False)
        self.freeze(True)
        leader, minors = self.leader(), [v.minor for v in (self.root, *self.volumes.values())]
        if leader:
            cut_power(leader, minors)                   # the disks that it mounted itself
        cut_power(self.process.pid, minors)             # its root
        self.lost_power = True
        self.cgroup.kill()
        self.process.wait()
        self.release()

    def release(self):
        """It is off: let go of what it held, but keep its disks. Returns nspawn's exit code."""
        code = self.process.wait()
        for volume in [v for v in (self.root, *self.volumes.values()) if v]:
            volume.close()
        subprocess.run(["ip", "link", "del", self.port], stderr=subprocess.DEVNULL, check=False)
        wait_until(lambda: not Path(f"/proc/self/net/dev_snmp6/{self.port}").exists(), 10)
        self.cgroup.remove()
        self.process = self.root = self.stopping_since = None
        self.volumes = {}
        return code

    def delete(self):
        shutil.rmtree(self.dir)
