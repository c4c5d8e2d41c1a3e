"""The control groups of a machine, on hosts with cgroup v1, both, or v2 alone.

A machine always sees pure v2 inside, as Debian does on EC2: the v2 tree exists on every host with Linux 4.5, mounted or
not, and the lab mounts it for itself. It needs no controller to freeze and to kill. The memory limit comes from v2's
memory controller where the host has it there, else from v1's.

The groups are PLACE/<lab>/<machine> in each tree, and below that what systemd-nspawn makes. They outlive the processes,
so `down` removes them; `forget` therefore works from outside the lab too."""
import ctypes
import os
from pathlib import Path

PLACE = "aot-lab"
libc = ctypes.CDLL(None, use_errno=True)


def mount(source, at, kind=None, flags=0, options=None):
    text = [None if t is None else str(t).encode() for t in (source, at, kind, options)]
    if libc.mount(text[0], text[1], text[2], flags, text[3]):
        error = ctypes.get_errno()
        raise OSError(error, f"mount {kind or ''} on {at}: {os.strerror(error)}")


def v1_trees():
    """Where the v1 hierarchies are that concern us: memory, and systemd's own, whose place nspawn copies to v2 on a host
    that has no v2 tree mounted."""
    found = []
    for line in Path("/proc/self/mounts").read_text().splitlines():
        _, at, kind, options, *_ = line.split()
        if kind == "cgroup" and {"memory", "name=systemd"} & set(options.split(",")):
            found.append(Path(at))
    return found


class Cgroup:
    """One machine's groups. `v2` is where the v2 tree is mounted."""

    def __init__(self, v2, lab, machine):
        self.v2, self.lab, self.name = v2, f"{PLACE}/{lab}", f"{PLACE}/{lab}/{machine}"
        self.dir = v2 / self.name
        self.v1 = [tree / self.name for tree in v1_trees()]

    def create(self, memory_mib):
        for path in (self.dir, *self.v1):
            path.mkdir(parents=True, exist_ok=True)
        for path in (self.v2, self.v2 / PLACE, self.v2 / self.lab):     # hand the controllers down, if there are any
            for name in (path / "cgroup.controllers").read_text().split():
                try:
                    (path / "cgroup.subtree_control").write_text(f"+{name}")
                except OSError:                 # in a container whose root group has processes: it goes without
                    pass
        for limit in (self.dir / "memory.max", *(path / "memory.limit_in_bytes" for path in self.v1)):
            if limit.exists():
                limit.write_text(str(memory_mib << 20))

    def entrances(self):
        """A process that writes its id to each of these is in."""
        return [path / "cgroup.procs" for path in (self.dir, *self.v1)]

    def freeze(self, on):
        (self.dir / "cgroup.freeze").write_text("1" if on else "0")

    def is_frozen(self):
        return "frozen 1" in (self.dir / "cgroup.events").read_text()

    def kill(self):
        (self.dir / "cgroup.kill").write_text("1")

    def remove(self):
        for path in (self.dir, *self.v1):
            remove_tree(path)


def remove_tree(path):
    """Remove a group and those below it; True when it is gone. Busy ones stay."""
    for folder, _, _ in os.walk(path, topdown=False):
        try:
            os.rmdir(folder)
        except OSError:
            pass
    return not path.exists()


def forget(v2, lab):
    """Remove all groups of a lab; True when none is left."""
    gone = [remove_tree(tree / PLACE / lab) for tree in (v2, *v1_trees())]
    for tree in (v2, *v1_trees()):              # and the place, after the last lab
        try:
            (tree / PLACE).rmdir()
        except OSError:
            pass
    return all(gone)
