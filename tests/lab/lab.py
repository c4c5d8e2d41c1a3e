#!/usr/bin/env python3
"""EC2 in a box, for tests: see README.md.

This file is the command line. `up` makes the namespaces and starts region.py in them; the other commands speak to that."""
import argparse
import ctypes
import fcntl
import hashlib
import json
import os
import re
import select
import shutil
import signal
import socket
import sys
import threading
from pathlib import Path

sys.dont_write_bytecode = True

import cgroups  # noqa: E402
from prepare import CACHE, prepare, venv  # noqa: E402
from volume import wait_until  # noqa: E402

HOST_IP, API_PORT, REGION = "198.51.100.1", 5000, "us-east-1"
AMI = "ami-0aa0debd12aa00002"               # the newest x86_64 of Debian 12 in amis.json
AWS_ENV = {"AWS_ENDPOINT_URL": f"http://{HOST_IP}:{API_PORT}", "AWS_REGION": REGION, "AWS_DEFAULT_REGION": REGION,
           "AWS_ACCESS_KEY_ID": "lab", "AWS_SECRET_ACCESS_KEY": "lab", "AWS_EC2_METADATA_DISABLED": "true"}
MACHINE_ENV = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/root", "USER": "root",
               "LOGNAME": "root", "SHELL": "/bin/bash", "LANG": "C.UTF-8"}
MARK = "aot-lab"                            # a file that says: this folder is a lab's, and may be deleted
INOTIFY, INOTIFY_NEED = Path("/proc/sys/fs/inotify/max_user_instances"), 8192     # a machine takes 7; the default is 128
INOTIFY_WAS = Path("/run/aot-lab-inotify")
CLONE_NEWNS, CLONE_NEWNET, CLONE_NEWPID = 0x20000, 0x40000000, 0x20000000
MS_RDONLY, MS_REMOUNT, MS_BIND, MS_REC, MS_PRIVATE = 0x1, 0x20, 0x1000, 0x4000, 0x40000
libc = ctypes.CDLL(None, use_errno=True)


def fail(message):
    sys.exit(f"lab: {message}")


def unshare(flags):
    if libc.unshare(flags):
        raise OSError(ctypes.get_errno(), "unshare: are you root?")


def lab_name(state):
    return hashlib.sha256(str(state).encode()).hexdigest()[:12]


def pid_of(state):
    """The lab's process 1, as the host numbers it; None when it is not up."""
    try:
        pid = int((state / "pid").read_text())
        command = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        return pid if b"init" in command and str(state).encode() in command else None
    except (OSError, ValueError):
        return None


def has_ended(pid):
    """Ended to the last: a process 1 becomes a zombie only after all others of its namespace are gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in "ZX"
    except OSError:
        return True


# ---- up --------------------------------------------------------------------------------------------------------------

def up(state, foreground, moto_delay, policy, no_machines):
    prepare(image_too=not no_machines)
    policy = policy and policy.read_text()
    if pid_of(state):
        fail(f"{state} is up already")
    if state.exists() and any(state.iterdir()) and not (state / MARK).exists():
        fail(f"{state} is neither empty nor a lab's")
    down(state)
    state.mkdir(parents=True)
    (state / MARK).touch()
    raise_inotify_limit()
    lifeline, held = os.pipe()
    spawn(state, {"moto_delay": moto_delay, "policy": policy, "has_machines": not no_machines}, lifeline if foreground else None)
    os.close(lifeline)
    if not foreground:
        os.close(held)
    ready = state / "ready"
    wait_until(lambda: ready.exists() and ready.read_text() or (state / "pid").exists() and not pid_of(state), 90)
    if not ready.exists():
        log = (state / "lab.log").read_text()
        down(state)
        fail(f"did not start:\n{log}")
    answer = json.loads(ready.read_text())
    environments = {name: aws_env(state, name) for name in ("env", "admin_env")}
    print(json.dumps({"pid": pid_of(state), "host_ip": HOST_IP, "api": AWS_ENV["AWS_ENDPOINT_URL"], "ami": AMI,
                      "imds_cert": str(state / "imds.pem"), "state": str(state), "python": str(venv() / "bin/python"),
                      **answer, **environments}), flush=True)
    if foreground:
        stay(state)


def aws_env(state, which):
    """The AWS variables: `env` for whoever is under test, `admin_env` for whoever looks on. They differ with a policy."""
    return AWS_ENV | json.loads((state / "ready").read_text()).get(which, {})


def stay(state):
    """Until standard input ends, a signal comes or the lab does; then clear away. If this process is killed, the other
    end of its pipe tells the lab."""
    signals = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
    for number in signals:
        signal.signal(number, lambda *_: sys.exit(0))
    try:
        pid = pid_of(state)
        fds = [0, os.pidfd_open(pid)] if pid else []
        while fds:
            readable, _, _ = select.select(fds, [], [])
            if fds[1] in readable or not os.read(0, 4096):
                break
    finally:
        for number in signals:
            signal.signal(number, signal.SIG_IGN)
        down(state)


def spawn(state, settings, lifeline):
    """Start `init` as process 1 of new namespaces, out of our session."""
    child = os.fork()
    if child:
        if os.waitpid(child, 0)[1]:
            fail("could not make the namespaces: are you root?")
        return
    os.setsid()
    unshare(CLONE_NEWNS | CLONE_NEWNET | CLONE_NEWPID)
    if os.fork():
        os._exit(0)
    log = os.open(state / "lab.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.dup2(os.open(os.devnull, os.O_RDONLY) if lifeline is None else lifeline, 0)
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.execv(venv() / "bin/python", [str(venv() / "bin/python"), str(Path(__file__).resolve()), "--state", str(state), "init",
                                     json.dumps(settings), "lifeline" if lifeline is not None else "free"])


def init(state, settings, lifeline):
    """Process 1 of the lab. Whatever ends it, the kernel then takes all the lab's processes, mounts, interfaces and loop
    devices away. It does nothing but wait for its child, for orphans, and for the end of the lifeline."""
    (state / "pid.new").write_text(os.readlink("/proc/self"))       # /proc is still the host's
    (state / "pid.new").rename(state / "pid")
    cgroups.mount("none", "/", None, MS_REC | MS_PRIVATE)
    cgroups.mount("proc", "/proc", "proc")
    os.makedirs("/run/systemd", exist_ok=True)
    cgroups.mount("tmpfs", "/run/systemd", "tmpfs")
    cgroups.mount(None, "/sys", None, MS_REMOUNT | MS_BIND | MS_RDONLY)     # else nspawn waits for udev to see eth0
    worker = os.fork()
    if worker == 0:
        from region import Region
        Region(state, lab_name(state), **settings).run()
    if lifeline:
        threading.Thread(target=lambda: (os.read(0, 1), os._exit(0)), daemon=True).start()
    while os.wait()[0] != worker:
        pass


# ---- down ------------------------------------------------------------------------------------------------------------

def down(state):
    """End it and clear away what outlives its process 1. Safe to repeat."""
    pid = pid_of(state)
    if pid:
        os.kill(pid, signal.SIGKILL)
        wait_until(lambda: has_ended(pid), 30)
    if (state / MARK).exists():
        with open(state / MARK) as mark:
            fcntl.flock(mark, fcntl.LOCK_EX)        # `up --foreground` and a `down` may do this at once
            if state.exists():
                clear(state)


def clear(state):
    if not wait_until(lambda: not attached(state), 30):
        print(f"lab: loop devices remain: {attached(state)}", file=sys.stderr)
    in_private_mounts(lambda: forget_cgroups(state))
    restore_inotify_limit()
    shutil.rmtree(state)


def attached(state):
    """Loop devices whose file is in `state`."""
    found = []
    for path in Path("/sys/block").glob("loop*/loop/backing_file"):
        try:
            if path.read_text().startswith(f"{state}/"):
                found.append(path.parts[3])
        except OSError:
            pass
    return found


def in_private_mounts(work):
    """Do it in a child with a mount namespace of its own: a host with cgroup v1 alone has no v2 tree mounted."""
    child = os.fork()
    if child == 0:
        unshare(CLONE_NEWNS)
        cgroups.mount("none", "/", None, MS_REC | MS_PRIVATE)
        os._exit(0 if work() else 1)
    if os.waitpid(child, 0)[1]:
        print("lab: control groups remain", file=sys.stderr)


def forget_cgroups(state):
    tree = state / "cgroup"
    tree.mkdir(exist_ok=True)
    cgroups.mount("none", tree, "cgroup2")
    return wait_until(lambda: cgroups.forget(tree, lab_name(state)), 10)


def locked():
    lock = open(CACHE / "lock-limits", "w")
    fcntl.flock(lock, fcntl.LOCK_EX)
    return lock


def raise_inotify_limit():
    with locked():
        now = int(INOTIFY.read_text())
        if now < INOTIFY_NEED:
            INOTIFY_WAS.write_text(str(now))
            INOTIFY.write_text(str(INOTIFY_NEED))


def restore_inotify_limit():
    """After the last lab."""
    with locked():
        others = [p for p in Path("/proc").glob("[0-9]*/cmdline") if is_init(p)]
        if INOTIFY_WAS.exists() and not others:
            INOTIFY.write_text(INOTIFY_WAS.read_text())
            INOTIFY_WAS.unlink()


def is_init(cmdline):
    try:
        words = cmdline.read_bytes().split(b"\0")
    except OSError:
        return False
    return b"init" in words and any(word.endswith(b"/lab.py") for word in words)


# ---- the others ------------------------------------------------------------------------------------------------------

def need_pid(state):
    return pid_of(state) or fail(f"{state} is not up")


def ask(state, **request):
    need_pid(state)
    folder = os.open(state, os.O_PATH)
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(f"/proc/self/fd/{folder}/control")
        with connection.makefile("rw") as stream:
            stream.write(json.dumps(request) + "\n")
            stream.flush()
            answer = json.loads(stream.readline() or '{"error": "the lab went away"}')
    if "error" in answer:
        fail(answer["error"])
    return answer["ok"]


def run_inside(state, as_admin, command):
    """Become the command, in the lab's network."""
    with open(f"/proc/{need_pid(state)}/ns/net") as namespace:
        if libc.setns(namespace.fileno(), CLONE_NEWNET):
            fail(f"setns: {os.strerror(ctypes.get_errno())}")
    try:
        os.execvpe(command[0], command, {**os.environ, **aws_env(state, "admin_env" if as_admin else "env")})
    except OSError as error:
        print(f"lab: {command[0]}: {error.strerror}", file=sys.stderr)
        sys.exit(127)


def exec_in_machine(state, instance_id, command):
    """Become nsenter, twice: once to see the lab's process numbers, once to enter the machine."""
    pid = need_pid(state)
    place = ask(state, verb="exec", id=instance_id)
    for entrance in place["entrances"]:
        Path(f"/proc/{pid}/root{entrance}").write_text(str(os.getpid()))
    env = {**MACHINE_ENV, "TERM": os.environ.get("TERM", "dumb")}
    os.execvpe("nsenter", ["nsenter", "-t", str(pid), "-m", "-p", "--", "nsenter", "-t", str(place["leader"]), "-a", "--",
                           *command], env)


def arguments():
    parser = argparse.ArgumentParser(description="EC2 in a box, for tests: see README.md")
    parser.add_argument("--state", type=Path, default=Path("/var/lib/aot-lab/default"), help="the folder of this lab")
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="COMMAND")

    def verb(name, text, *options):
        sub = verbs.add_parser(name, help=text)
        for names, settings in options:
            sub.add_argument(*names, **settings)

    machine, peer = (["id"], {}), (["--peer"], {"metavar": "IP", "help": "only the traffic with this address"})
    command = (["cmd"], {"nargs": argparse.REMAINDER})
    verb("prepare", "make what `up` needs")
    verb("up", "start the lab", (["--foreground"], {"action": "store_true", "help": "end it when standard input ends"}),
         (["--moto-delay"], {"type": float, "default": 0.5, "metavar": "S", "help": "how long pending and such last"}),
         (["--policy"], {"type": Path, "metavar": "FILE", "help": "calls need this IAM policy's permission"}),
         (["--no-machines"], {"action": "store_true", "help": "the API alone: nothing boots"}))
    verb("down", "end it; leaves nothing")
    verb("run", "run a command in the lab's network",
         (["--admin"], {"action": "store_true", "help": "as one who may all, where --policy restricts"}), command)
    verb("exec", "run a command in a machine", machine, command)
    verb("ps", "list the instances and their machines")
    verb("account", "print what there is, but for what is terminated", (["cluster"], {"nargs": "?", "default": ""}))
    verb("console", "print a machine's console", machine)
    verb("partition", "drop a machine's packets", machine, peer)
    verb("heal", "drop them no more", machine, peer)
    verb("kill", "power loss: what was not synced is lost", machine)
    verb("power-on", "after a kill", machine)
    verb("freeze", "stop all of a machine's processes", machine)
    verb("thaw", "let them go on", machine)
    seconds, key = {"type": float, "default": 10.0, "metavar": "S"}, (["--key"], {"metavar": "ID", "help": "only calls signed with it"})
    seed = (["--seed"], {"type": int, "default": 0, "help": "of the rule's own dice"})
    verb("fault", "let API calls of an action (`*`: of all) suffer", (["action"], {}), (["code"], {"nargs": "?"}),
         (["--count"], {"type": int, "help": "so many calls; 1, with --probability no limit"}),
         (["--status"], {"type": int, "help": "HTTP status; 503 for throttling, else 400"}),
         (["--probability"], {"type": float, "default": 1.0, "metavar": "P", "help": "a share of them"}), seed, key,
         (["--drop-answer"], {"action": "store_true", "help": "the call is made, its answer is lost"}),
         (["--truncate"], {"action": "store_true", "help": "half of its answer comes, as a whole HTTP message"}),
         (["--delay"], {"type": float, "default": 0.0, "metavar": "S", "help": "the answer is held so long"}),
         (["--when"], {"action": "append", "default": [], "metavar": "KEY=VALUE", "help":
                       "only calls with this parameter; type, subnet and zone are known by these names"}))
    verb("forget", "let DescribeInstances leave an instance out", machine, (["--seconds"], seconds))
    verb("forget-some", "let it leave out a share of those it shows for the first time",
         (["--probability"], {"type": float, "default": 0.5, "metavar": "P"}), (["--seconds"], seconds), seed, key)
    verb("late", "let new groups, placement groups, addresses and instances be unknown for a while to the calls that use them",
         (["seconds"], {"type": float, "metavar": "S", "help": "0 ends it for what is made from now on"}))
    verb("reap", "terminate an instance and forget it for good, with its tags", machine)
    verb("age", "let an instance have been launched earlier", machine, (["seconds"], {"type": float, "metavar": "S"}))
    verb("metadata-default", "the account's default for machines' metadata service, for launches that do not say it",
         (["how"], {"choices": ["on", "off"]}))
    verb("clear-faults", "let them fail no more", key)
    verb("impair", "let an instance's status checks fail", machine)
    verb("repair", "let them be ok again", machine)
    verb("bad-requests", "print what EC2's own model objects to in the requests so far")
    verb("api-log", "print the API calls, one JSON object a line")
    verb("init", argparse.SUPPRESS, (["settings"], {"type": json.loads}), (["lifeline"], {}))
    return parser, vars(parser.parse_args())


def main():
    parser, options = arguments()
    state, verb = options.pop("state").resolve(), options.pop("verb")
    if os.geteuid():
        fail("this needs root")
    if not re.fullmatch(r"[\w./+@-]+", str(state)):         # it goes into mount options
        fail(f"{state}: only letters, digits and ./+@-_ please")
    command = options.pop("cmd", None)
    if command is not None:
        command = command[1:] if command[:1] == ["--"] else command
        if not command:
            parser.error("no command is given")
    if verb == "prepare":
        prepare()
    elif verb == "up":
        up(state, **options)
    elif verb == "init":
        init(state, options["settings"], options["lifeline"] == "lifeline")
    elif verb == "down":
        down(state)
    elif verb == "run":
        run_inside(state, options["admin"], command)
    elif verb == "exec":
        exec_in_machine(state, options["id"], command)
    elif verb == "console":
        path = state / "consoles" / f"{Path(options['id']).name}.log"
        sys.stdout.buffer.write(path.read_bytes().replace(b"\r", b"") if path.exists() else fail("no such machine"))
    elif verb == "api-log":
        need_pid(state)
        sys.stdout.write((state / "api.log").read_text())
    elif verb == "bad-requests":
        need_pid(state)
        path = state / "bad-requests.log"
        sys.stdout.write(path.read_text() if path.exists() else "")
    elif verb == "fault" and not any(options[how] for how in ("code", "drop_answer", "truncate", "delay")):
        parser.error("fault: give an error code, --drop-answer, --truncate or --delay")
    else:
        if verb == "fault":
            options["when"] = dict(pair.split("=", 1) for pair in options["when"])
        answer = ask(state, verb=verb.replace("-", "_"), **options)
        if answer is not None:
            print(json.dumps(answer))


if __name__ == "__main__":
    main()
