"""What the lab is made of: Debian packages, a virtual environment with moto, and the image its machines boot.

Each part is made once and kept in the cache, in a folder named for a hash of its recipe: change a recipe and the next
`prepare` makes a new one beside the old. Callers: `lab.py prepare` and `lab.py up`. Runs outside the lab's namespaces."""
import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

CACHE = Path(os.environ.get("AOT_LAB_CACHE", "/var/cache/aot-lab"))

# A program that must be there: the Debian package that brings it.
TOOLS = {"systemd-nspawn": "systemd-container", "mmdebstrap": "mmdebstrap", "dnsmasq": "dnsmasq-base",
         "nft": "nftables", "ip": "iproute2", "mkfs.ext4": "e2fsprogs"}
# moto_plus.py patches moto's inside, so moto's version is exact; the others are those it was tried with.
REQUIREMENTS = ["moto[server,ec2,s3,ssm,iam]==5.2.5", "boto3==1.44.5", "botocore==1.44.5", "cryptography==50.0.2"]

SUITE = "bookworm"
PACKAGES = ["systemd", "systemd-sysv", "dbus", "udev", "cloud-init", "openssh-server", "openssh-client", "curl",
            "ca-certificates", "python3", "sudo", "e2fsprogs", "procps", "iproute2", "netbase"]
FILES = {
    # `admin` is the login user of Debian's own AMIs, and those let cloud-init write /etc/hosts.
    "etc/cloud/cloud.cfg.d/90_lab.cfg": """\
datasource_list: [ Ec2 ]
system_info: { default_user: { name: admin, gecos: Debian } }
manage_etc_hosts: true
ssh_genkeytypes: [ ecdsa, ed25519 ]
locale: false
""",
    "etc/systemd/journald.conf.d/lab.conf": "[Journal]\nForwardToConsole=yes\nMaxLevelConsole=info\n",
    "etc/sysctl.d/lab.conf": "net.ipv6.conf.*.accept_dad=0\n",
    "etc/resolv.conf": "nameserver 169.254.169.253\n",
    "etc/machine-id": "",               # empty: systemd makes one at the first boot
}
# Run in the image by chroot, each as it stands: never through a shell, whose quoting slips would reach the host.
COMMANDS = [
    ["systemctl", "enable", "systemd-networkd", "systemd-networkd-wait-online"],
    ["systemctl", "mask", "console-getty.service", "getty@.service", "systemd-udevd.service", "apt-daily.timer",
     "apt-daily-upgrade.timer", "e2scrub_all.timer", "e2scrub_reap.service", "fstrim.timer", "dpkg-db-backup.timer"],
    ["rm", "-f", "/etc/hostname", "/etc/ssh/ssh_host_ecdsa_key", "/etc/ssh/ssh_host_ecdsa_key.pub",
     "/etc/ssh/ssh_host_ed25519_key", "/etc/ssh/ssh_host_ed25519_key.pub", "/etc/ssh/ssh_host_rsa_key",
     "/etc/ssh/ssh_host_rsa_key.pub"],
]


def place(name, *recipe):
    return CACHE / f"{name}-{hashlib.sha256(repr(recipe).encode()).hexdigest()[:12]}"


def venv():
    """The folder of the virtual environment. It is bound to the interpreter that made it."""
    return place("venv", REQUIREMENTS, sys.version_info[:2], sys.base_prefix)


def image():
    """The folder with the root file system that every machine has as its lower layer."""
    return place("image", SUITE, PACKAGES, FILES, COMMANDS)


def sh(*cmd, **kw):
    """Run a command; what it prints is shown only when it fails."""
    cmd = [str(c) for c in cmd]
    done = subprocess.run(cmd, text=True, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, **kw)
    if done.returncode:
        raise RuntimeError(f"{' '.join(cmd)}: exit code {done.returncode}\n{done.stdout}")


def install_tools():
    missing = [package for tool, package in TOOLS.items() if not shutil.which(tool)]
    try:
        import ensurepip  # noqa: F401  (Debian's python3 comes without it)
    except ImportError:
        missing.append("python3-venv")
    if missing:
        env = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
        sh("apt-get", "update", env=env)
        sh("apt-get", "install", "-y", "--no-install-recommends", *missing, env=env)


def make_venv(at):
    sh(sys.executable, "-m", "venv", at)
    sh(at / "bin/python", "-m", "pip", "install", "--quiet", *REQUIREMENTS)


def make_image(at):
    sh("mmdebstrap", "--variant=minbase", "--include=" + ",".join(PACKAGES), SUITE, at)
    for path, text in FILES.items():
        (at / path).parent.mkdir(parents=True, exist_ok=True)
        (at / path).unlink(missing_ok=True)
        (at / path).write_text(text)
    for command in COMMANDS:
        sh("chroot", at, *command)


def prepare(image_too=True):
    """Make what is missing. Several may call this at once: one works, the others wait."""
    CACHE.mkdir(parents=True, exist_ok=True)
    with open(CACHE / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        install_tools()
        for at, make in ((venv(), make_venv), (image(), make_image))[:1 + image_too]:
            done = at.with_name(at.name + ".done")      # a venv can't be renamed into place, so a mark says it is whole
            if not done.exists():
                shutil.rmtree(at, ignore_errors=True)
                make(at)
                done.touch()
