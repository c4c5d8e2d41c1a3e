"""Ansible's way to machines through aot's agents: no ssh, no open port.

Commands are `aot-master exec`, files are `aot-master cp`; both are jobs on record. Needs nothing but the standard library, and
a Python on the machine, as Ansible's modules do.
"""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
import uuid

from ansible.errors import AnsibleConnectionFailure, AnsibleError, AnsibleFileNotFound
from ansible.module_utils.common.text.converters import to_bytes, to_text
from ansible.plugins.connection import ConnectionBase
from ansible.utils.display import Display

DOCUMENTATION = """
    name: aot
    short_description: run modules through aot's agents
    description:
        - Commands go through C(aot-master exec), files through C(aot-master cp).
        - Everything runs as root unless I(remote_user) is set, whatever C(ansible_user) says, which is for ssh.
          To become root is then nothing to do. To become others, the machine needs su or sudo, as with any connection.
    author: the aot project
    version_added: "1.0"
    options:
        instance:
            description: Name of the instance.
            vars:
                - name: inventory_hostname
                - name: aot_instance
                - name: ansible_aot_instance
        cluster:
            description: Its cluster; without it, the only one that there is.
            vars:
                - name: aot_cluster
                - name: ansible_aot_cluster
            env:
                - name: AOT_CLUSTER
        remote_user:
            description: User to run commands as.
            default: root
            vars:
                - name: ansible_aot_user
        pipelining:
            description: Modules are sent as the input of their interpreter, not as a file.
            default: true
            type: boolean
            vars:
                - name: ansible_pipelining
                - name: ansible_aot_pipelining
            env:
                - name: ANSIBLE_PIPELINING
            ini:
                - section: defaults
                  key: pipelining
                - section: connection
                  key: pipelining
        executable:
            description: The aot-master to call.
            default: aot-master
            vars:
                - name: ansible_aot_executable
            env:
                - name: AOT_MASTER
"""

# More input than this goes by a file: exec takes no more (docs/exec.md).
MAX_STDIN = 1 << 20

# Outcomes that say that the command may not have run, or not to its end, for a reason that is the connection's.
NOT_THERE = ("absent", "lost_contact", "rejected")

display = Display()


class Connection(ConnectionBase):
    """One instance of one cluster. Nothing stays open between two commands."""

    transport = "aot"
    has_pipelining = True

    def _connect(self):
        self._connected = True
        return self

    def close(self):
        self._connected = False

    def reset(self):
        """There is nothing to open anew."""
        self.close()

    def exec_command(self, cmd, in_data=None, sudoable=True):
        super().exec_command(cmd, in_data=in_data, sudoable=sudoable)
        self._refuse_passwords(sudoable)
        # Where a login begins; exec itself begins at the root.
        line = f"cd 2>/dev/null; {to_text(cmd, errors='surrogateescape')}"
        data = to_bytes(in_data) if in_data is not None else b""
        if len(data) > MAX_STDIN:
            path = self._brought(data)
            line, data = f"exec < {path}; rm -f {path}; {line}", b""
        with tempfile.TemporaryDirectory(prefix="ansible-aot-") as folder:
            ended = self._run(line, data, folder)
            out, err = (read(folder, f"{self._instance()}.{end}") for end in ("out", "err"))
        return self._status(ended), out, err + self._reason(ended)

    def put_file(self, in_path, out_path):
        super().put_file(in_path, out_path)
        if not os.path.exists(to_bytes(in_path)):
            raise AnsibleFileNotFound(f"there is no {in_path}")
        self._copy(os.path.abspath(in_path), f"{self._target()}:{out_path}")
        if not self._is_root():
            # Files belong to whoever unpacks them, which is root.
            user = self.get_option("remote_user")
            self._well(["exec", self._target(), "--", "chown", "-h", "--", user, out_path])

    def fetch_file(self, in_path, out_path):
        super().fetch_file(in_path, out_path)
        # By its name alone: from what may be several, each has a folder of its own.
        self._copy(f"{self._instance()}:{in_path}", os.path.abspath(out_path))

    def _run(self, line, data, folder):
        """One run of a line of the shell; gives its end. What it printed is in the folder, whatever its size."""
        words = ["--json", "exec", self._target(), "--out", folder, "--stdin"]
        if not self._is_root():
            words += ["--user", self.get_option("remote_user")]
        status, out, err = self._call([*words, "--", "/bin/sh", "-c", line], data)
        for answer in map(json.loads, out.splitlines()):
            if "outcome" in answer:
                return answer
        raise AnsibleConnectionFailure(said(err) or f"aot-master exec ended with {status}")

    def _status(self, ended):
        """The exit status of a run."""
        if ended["outcome"] in NOT_THERE:
            detail = ended.get("detail") or ""
            raise AnsibleConnectionFailure(f"{self._instance()}: {ended['outcome']}: {detail}")
        if ended.get("truncated"):
            raise AnsibleError(f"{self._instance()}: the command printed more than is kept: {ended.get('detail') or ''}")
        status = ended.get("exit_code")
        # A signal or a timeout has no exit status, and is no success.
        return 255 if status is None else status

    @staticmethod
    def _reason(ended):
        """Why there is no exit status, to be read below what the command said itself."""
        if ended.get("exit_code") is not None:
            return b""
        return to_bytes(f"{ended['outcome']}: {ended.get('detail') or ''}\n")

    def _refuse_passwords(self, sudoable):
        """The input of a command is given as a whole, so that there is no waiting for a prompt. Root is asked for none."""
        if sudoable and self.become and self.become.expect_prompt() and not self._is_root():
            raise AnsibleError(
                "a password to become another user cannot be given through aot's agents: "
                "let commands run as root (no ansible_aot_user), which needs none"
            )

    def _brought(self, data):
        """The path of a file on the machine that holds this, for the user's eyes alone."""
        path = f"/var/tmp/.ansible-aot-{uuid.uuid4().hex}"
        with tempfile.NamedTemporaryFile(prefix="ansible-aot-") as file:
            file.write(data)
            file.flush()
            self.put_file(file.name, path)
        return path

    def _copy(self, source, destination):
        self._well(["cp", source, destination])

    def _well(self, words):
        status, _, err = self._call(words)
        if status != 0:
            raise AnsibleError(said(err) or f"aot-master {words[0]} ended with {status}")

    def _call(self, words, stdin=b""):
        """Runs aot-master; gives its exit status and what it printed."""
        command = [self.get_option("executable")]
        if self.get_option("cluster"):
            command += ["--cluster", self.get_option("cluster")]
        command += words
        display.vvv(f"AOT {command!r}", host=self._instance())
        try:
            ran = subprocess.run(
                [to_bytes(word, errors="surrogateescape") for word in command],
                input=stdin,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                check=False,
            )
        except OSError as error:
            raise AnsibleError(f"cannot run {command[0]}: {error}") from error
        return ran.returncode, ran.stdout, ran.stderr

    def _instance(self):
        return self.get_option("instance")

    def _target(self):
        """The instance alone, also where a pool has this name."""
        return f"name:{self._instance()}"

    def _is_root(self):
        return self.get_option("remote_user") == "root"


def read(folder, name):
    """What a command printed; there is no file where it never ran."""
    try:
        with open(os.path.join(folder, name), "rb") as file:
            return file.read()
    except FileNotFoundError:
        return b""


def said(err):
    """What aot-master has to say, in one line."""
    lines = to_text(err, errors="replace").splitlines()
    return "; ".join(line.strip() for line in lines if line.strip())
