"""Writes each task's result on each host as a line of JSON into the file of RECORDS, without what differs from run to run."""

from __future__ import annotations

import json
import os
import re

from ansible.plugins.callback import CallbackBase

# Times, numbers that the kernel gives out, and names that are drawn by lot.
PASSING = {
    "ansible_date_time", "ansible_job_id", "ansible_loadavg", "atime", "attempts", "ctime", "ctx", "delta", "end", "finished", "inode",
    "invocation", "mtime", "results_file", "start", "started", "uuid",
}  # fmt: skip

# Of a login's variables, those that no way to a machine may change.
LOGIN = {"HOME", "LOGNAME", "PWD", "SHELL", "USER"}

TEMPORARY = re.compile(r"ansible-(module)?tmp-[0-9.]+(-[0-9]+)*-[a-z0-9_]+|ansible_[A-Za-z0-9_]{8}\b|ansible-local-\w+|tmp[a-z0-9_]{8}\b")


def lasting(value):
    """The same without what passes."""
    if isinstance(value, dict):
        named = {str(key): each for key, each in value.items() if not str(key).startswith("_ansible")}
        named = {key: each for key, each in named.items() if key not in PASSING}
        if isinstance(named.get("ansible_env"), dict):
            named["ansible_env"] = {key: each for key, each in named["ansible_env"].items() if key in LOGIN}
        return {key: lasting(each) for key, each in named.items()}
    if isinstance(value, (list, tuple)):
        return [lasting(each) for each in value]
    if isinstance(value, (bool, int, float)) or value is None:
        return value
    # Bytes that are no UTF-8 are in Python's text as lone surrogates, which JSON does not have.
    text = str(value).encode("utf-8", "backslashreplace").decode("utf-8")
    return TEMPORARY.sub("TEMPORARY", text)


class CallbackModule(CallbackBase):
    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "aggregate"
    CALLBACK_NAME = "records"

    def __init__(self):
        super().__init__()
        self.file = open(os.environ["RECORDS"], "w", encoding="utf-8", buffering=1)

    def write(self, outcome, result):
        line = {
            "task": result.task.get_name(),
            "host": result.host.get_name(),
            "outcome": outcome,
            "result": lasting(result.result),
        }
        print(json.dumps(line, sort_keys=True), file=self.file)

    def v2_runner_on_ok(self, result):
        self.write("ok", result)

    def v2_runner_on_failed(self, result, ignore_errors=False):
        self.write("failed", result)

    def v2_runner_on_skipped(self, result):
        self.write("skipped", result)

    def v2_runner_on_unreachable(self, result):
        self.write("unreachable", result)
