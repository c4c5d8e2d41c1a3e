"""A disk of a machine: a sparse file behind a loop device.

Loop devices are made with AUTOCLEAR: each goes by itself when nobody has it open or mounted any more, so nothing has to
clean up after a lab that was killed. Callers: machine.py. Runs inside the lab's namespaces."""
import fcntl
import os
import stat
import struct
import time
from pathlib import Path

LOOP_CTL_GET_FREE, LOOP_CONFIGURE, AUTOCLEAR, LOOP_MAJOR = 0x4C82, 0x4C0A, 4, 7
FS_IOC_SHUTDOWN, NO_LOG_FLUSH = 0x8004587D, 2      # ext4 and xfs: stop writing to the disk, here and now


def wait_until(condition, seconds):
    """Poll a condition; its last value."""
    end = time.monotonic() + seconds
    while True:
        value = condition()
        if value or time.monotonic() > end:
            return value
        time.sleep(0.01)


class Volume:
    def __init__(self, path, gib):
        self.path, self.is_new, self.nodes = path, not path.exists(), []
        with open(path, "ab") as file:
            file.truncate(max(gib << 30, file.tell()))
        with open(path, "r+b") as file, open("/dev/loop-control") as control:
            while True:
                self.minor = fcntl.ioctl(control, LOOP_CTL_GET_FREE)
                self.device = Path(f"/dev/loop{self.minor}")
                if not self.device.exists():                            # a container's /dev may lack them
                    os.mknod(self.device, stat.S_IFBLK | 0o660, os.makedev(LOOP_MAJOR, self.minor))
                self.fd = os.open(self.device, os.O_RDWR)
                try:                                                    # struct loop_config: only fd and lo_flags are set
                    fcntl.ioctl(self.fd, LOOP_CONFIGURE, struct.pack("<II52xI240x", file.fileno(), 0, AUTOCLEAR))
                    return
                except OSError:                                         # another process was quicker to take this one
                    os.close(self.fd)

    def appear(self, dev, name, volume_id):
        """Show the disk in a machine's /dev as `name`, under its other prefix too, and as Nitro's by-id link."""
        letters = name.removeprefix("/dev/").removeprefix("xvd").removeprefix("sd")
        by_id = dev / "disk/by-id" / ("nvme-Amazon_Elastic_Block_Store_" + volume_id.replace("-", ""))
        node, other = dev / f"xvd{letters}", dev / f"sd{letters}"
        by_id.parent.mkdir(parents=True, exist_ok=True)
        self.nodes = [by_id, other, node]
        os.mknod(node, stat.S_IFBLK | 0o660, os.makedev(LOOP_MAJOR, self.minor))
        other.symlink_to(node.name)
        by_id.symlink_to(f"../../{node.name}")

    def close(self, wait=True):
        """Let go of it. A file system can outlive its last umount by a moment: attached again before that moment has
        passed, the disk would have two writers, so a caller that will boot from it waits."""
        for node in self.nodes:
            node.unlink(missing_ok=True)
        os.close(self.fd)
        if wait and not wait_until(lambda: not self.is_attached(), 30):
            print(f"{self.path} is still attached to {self.device}", flush=True)

    def is_attached(self):
        try:
            return Path(f"/sys/block/loop{self.minor}/loop/backing_file").read_text().strip() == str(self.path)
        except OSError:
            return False


def cut_power(pid, minors):
    """Stop all writing of the file systems that the process `pid` sees on these loop devices: what was not synced yet
    is lost, as when the power goes."""
    for line in Path(f"/proc/{pid}/mountinfo").read_text().splitlines():
        _, _, device, _, at, *_ = line.split()
        if device in {f"{LOOP_MAJOR}:{minor}" for minor in minors}:
            fd = os.open(f"/proc/{pid}/root{at.encode().decode('unicode_escape')}", os.O_RDONLY)
            try:
                fcntl.ioctl(fd, FS_IOC_SHUTDOWN, struct.pack("I", NO_LOG_FLUSH))
            except OSError as error:                                    # shut down already, or of another kind
                print(f"cut_power: {at}: {error}", flush=True)
            finally:
                os.close(fd)
