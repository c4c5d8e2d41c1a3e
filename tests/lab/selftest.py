#!/usr/bin/env python3
"""Shows that the lab does what README.md says: `python3 selftest.py`, as root, about a minute.

Starts a lab, runs itself again inside it (`selftest.py inside`) for all that needs the API, then ends labs in each of the
ways there are and looks for what they left behind."""
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

LAB = [sys.executable, str(Path(__file__).resolve().parent / "lab.py"), "--state"]
STATE = Path(os.environ.get("SELFTEST_STATE", "/nonexistent"))
HOST, PORT = "198.51.100.1", 8080
USER_DATA = f"""#!/bin/bash
curl -s --data "" http://{HOST}:{PORT}/user-data
cat > /usr/local/bin/reporter <<'END'
#!/bin/bash
imds=http://169.254.169.254/latest
token=$(curl -s -X PUT -H 'X-aws-ec2-metadata-token-ttl-seconds: 60' $imds/api/token)
id=$(curl -s -H "X-aws-ec2-metadata-token: $token" $imds/meta-data/instance-id)
curl -s --data "$id" http://{HOST}:{PORT}/up
exec sleep infinity
END
chmod +x /usr/local/bin/reporter
cat > /etc/systemd/system/reporter.service <<'END'
[Unit]
Wants=network-online.target
After=network-online.target
[Service]
ExecStart=/usr/local/bin/reporter
Restart=always
RestartSec=100ms
[Install]
WantedBy=multi-user.target
END
systemctl enable reporter
sync
systemctl start reporter
"""
heard = []              # (path, sender's address, body)


def lab(*command, check=True):
    done = subprocess.run([*LAB, STATE, *command], text=True, capture_output=True)
    if check and done.returncode:
        raise AssertionError(f"{command}: {done.returncode} {done.stderr}")
    return done


def until(condition, what, seconds=60):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"not within {seconds} s: {what}"
        time.sleep(0.02)


class Home(BaseHTTPRequestHandler):
    def do_POST(self):
        heard.append((self.path, self.client_address[0], self.rfile.read(int(self.headers["Content-Length"])).decode()))
        self.send_response(204)
        self.end_headers()

    def log_message(self, *args):
        pass


def refused(code, call, **parameters):
    from botocore.exceptions import ClientError
    try:
        call(**parameters)
    except ClientError as error:
        assert error.response["Error"]["Code"] == code, error
    else:
        raise AssertionError(f"{code} was expected")


class Inside:
    """The checks, in this order: each is a method, its doc says what it shows."""

    def __init__(self, ami):
        import boto3
        from botocore.config import Config
        self.ec2, self.ami = boto3.client("ec2"), ami
        self.impatient = boto3.client("ec2", config=Config(retries={"total_max_attempts": 1}))
        threading.Thread(target=ThreadingHTTPServer((HOST, PORT), Home).serve_forever, daemon=True).start()

    def ups(self, n):
        return sum(path == "/up" and ip == self.ips[n] for path, ip, _ in heard)

    def state(self, n):
        return self.ec2.describe_instances(InstanceIds=[self.ids[n]])["Reservations"][0]["Instances"][0]["State"]["Name"]

    def launch(self):
        """three instances launch, run their user-data and report from a systemd service"""
        self.group = self.ec2.create_security_group(GroupName="selftest", Description="selftest")["GroupId"]
        self.asked = {
            "ImageId": self.ami, "InstanceType": "t3.small", "MinCount": 1, "MaxCount": 3, "ClientToken": "launch-1",
            "UserData": USER_DATA, "SecurityGroupIds": [self.group],
            "KeyName": self.ec2.create_key_pair(KeyName="selftest", KeyType="ed25519")["KeyName"],
            "MetadataOptions": {"HttpTokens": "required", "InstanceMetadataTags": "enabled"},
            "BlockDeviceMappings": [{"DeviceName": "/dev/sdf", "Ebs": {"VolumeSize": 2, "VolumeType": "gp3", "Iops": 4000,
                                                                       "Throughput": 250}}],
            "TagSpecifications": [{"ResourceType": kind, "Tags": [{"Key": "Name", "Value": "web"}]}
                                  for kind in ("instance", "volume", "network-interface")]}
        answer = self.ec2.run_instances(**self.asked)
        self.reservation, instances = answer["ReservationId"], answer["Instances"]
        self.ids, self.ips = [i["InstanceId"] for i in instances], [i["PrivateIpAddress"] for i in instances]
        assert len(self.ids) == 3, "MaxCount is what is launched"
        assert self.state(0) == "pending"
        for n in range(3):
            until(lambda: self.ups(n), f"{self.ids[n]} reports")
            assert ("/up", self.ips[n], self.ids[n]) in heard
        assert self.state(0) == "running"

    def idempotency(self):
        """a ClientToken gives the same instances again, and refuses other parameters"""
        again = self.ec2.run_instances(**self.asked)
        assert [i["InstanceId"] for i in again["Instances"]] == self.ids and again["ReservationId"] == self.reservation
        refused("IdempotentParameterMismatch", self.ec2.run_instances, **{**self.asked, "MaxCount": 2})

    def lost_answer(self):
        """a lost answer and the SDK's retry make one instance"""
        lab("fault", "RunInstances", "--drop-answer")
        made = self.ec2.run_instances(ImageId=self.ami, InstanceType="t3.micro", MinCount=1, MaxCount=1, ClientToken="lost",
                                      InstanceInitiatedShutdownBehavior="terminate")["Instances"]
        found = self.ec2.describe_instances(Filters=[{"Name": "client-token", "Values": ["lost"]}])["Reservations"]
        assert [i["InstanceId"] for r in found for i in r["Instances"]] == [i["InstanceId"] for i in made]
        calls = [json.loads(line) for line in lab("api-log").stdout.splitlines()]
        assert [c["injected"] for c in calls if c["action"] == "RunInstances"][-2:] == ["dropped answer", None]
        self.ids += [made[0]["InstanceId"]]

    def faults(self):
        """a made-up error comes as often as asked, and what moto lacks is an error that is not retried"""
        lab("fault", "DescribeVolumes", "InsufficientInstanceCapacity", "--status", "500", "--count", "2")
        for _ in range(2):
            refused("InsufficientInstanceCapacity", self.impatient.describe_volumes)
        self.impatient.describe_volumes()
        lab("fault", "DescribeInstances", "InternalError", "--when", "InstanceId.1=i-0", "--count", "99")
        self.state(0)
        refused("InternalError", self.impatient.describe_instances, InstanceIds=["i-0"])
        lab("clear-faults")
        refused("NotInThisLab", self.impatient.get_console_screenshot, InstanceId=self.ids[0])

    def limits(self):
        """RunInstances refuses what EC2 refuses, and leaves nothing when it does"""
        few = {"ImageId": self.ami, "InstanceType": "t3.micro", "MinCount": 1, "MaxCount": 1}
        count = len(json.loads(lab("ps").stdout))
        run = self.ec2.run_instances
        refused("InvalidParameterValue", run, **few, UserData="#" * 16385)
        refused("InvalidParameterValue", run, **{**few, "InstanceType": "t4g.micro"})
        refused("InvalidParameterValue", run, **{**few, "InstanceType": "z9.nano"})
        refused("InvalidParameterValue", run, **few, IamInstanceProfile={"Name": "nobody"})
        refused("InvalidGroup.NotFound", run, **few, SecurityGroups=["nobody"])
        refused("InvalidAMIID.NotFound", run, **{**few, "ImageId": "ami-0123456789abcdef0"})
        refused("InvalidPlacementGroup.Unknown", run, **few, Placement={"GroupName": "nobody"})
        refused("DryRunOperation", run, **few, UserData="#" * 16384, DryRun=True)
        assert len(json.loads(lab("ps").stdout)) == count

    def groups(self):
        """a group in use can't be deleted; placement groups come and go"""
        refused("DependencyViolation", self.ec2.delete_security_group, GroupId=self.group)
        self.ec2.create_placement_group(GroupName="near", Strategy="cluster")
        refused("InvalidPlacementGroup.Duplicate", self.ec2.create_placement_group, GroupName="near", Strategy="cluster")
        assert self.ec2.describe_placement_groups(GroupNames=["near"])["PlacementGroups"][0]["State"] == "available"
        self.ec2.delete_placement_group(GroupName="near")

    def launched_as_asked(self):
        """disks and cards have the tags, sizes and DeleteOnTermination of EC2"""
        instance = self.ec2.describe_instances(InstanceIds=[self.ids[1]])["Reservations"][0]["Instances"][0]
        disks = {d["DeviceName"]: d["Ebs"] for d in instance["BlockDeviceMappings"]}
        assert set(disks) == {"/dev/xvda", "/dev/sdf"} and all(d["DeleteOnTermination"] for d in disks.values())
        volume = self.ec2.describe_volumes(VolumeIds=[disks["/dev/sdf"]["VolumeId"]])["Volumes"][0]
        assert (volume["Size"], volume["Iops"], volume["Throughput"]) == (2, 4000, 250)
        card = self.ec2.describe_network_interfaces(Filters=[
            {"Name": "network-interface-id", "Values": [instance["NetworkInterfaces"][0]["NetworkInterfaceId"]]},
            {"Name": "tag:Name", "Values": ["web"]}])["NetworkInterfaces"][0]
        assert card["Attachment"]["DeleteOnTermination"] and volume["Tags"] == [{"Key": "Name", "Value": "web"}]
        by_id = "/dev/disk/by-id/nvme-Amazon_Elastic_Block_Store_" + volume["VolumeId"].replace("-", "")
        script = (f"mkfs.ext4 -q {by_id} && mkdir -p /data && mount {by_id} /data && echo kept > /data/synced && sync -f /data"
                  " && readlink -f /dev/sdf && cat /data/synced")
        assert lab("exec", self.ids[1], "--", "sh", "-c", script).stdout == "/dev/xvdf\nkept\n"

    def metadata(self):
        """IMDSv2 is demanded; launch index, tags, keys and signed documents are there"""
        url = "http://169.254.169.254/latest/"
        assert self.curl("-o", "/dev/null", "-w", "%{http_code}", url + "meta-data/ami-id") == "401"
        token = self.curl("-X", "PUT", "-H", "X-aws-ec2-metadata-token-ttl-seconds: 60", url + "api/token")
        get = lambda path: self.curl("-H", f"X-aws-ec2-metadata-token: {token}", url + path)      # noqa: E731
        assert get("meta-data/ami-launch-index") == "1" and get("meta-data/tags/instance/Name") == "web"
        assert get("meta-data/public-keys/") == "0=selftest"
        key = get("meta-data/public-keys/0/openssh-key")
        assert key.startswith("ssh-ed25519 ")
        assert key.split()[1] in lab("exec", self.ids[1], "--", "cat", "/home/admin/.ssh/authorized_keys").stdout
        document = get("dynamic/instance-identity/document")
        assert json.loads(document)["instanceId"] == self.ids[1]
        self.verify(document, get("dynamic/instance-identity/signature"), get("dynamic/instance-identity/rsa2048"))

    def curl(self, *arguments):
        return lab("exec", self.ids[1], "--", "curl", "-s", *arguments).stdout

    def verify(self, document, signature, message):
        import base64
        from cryptography import x509
        from cryptography.hazmat.primitives import hashes
        from cryptography.hazmat.primitives.asymmetric import padding
        certificate = STATE / "imds.pem"
        x509.load_pem_x509_certificate(certificate.read_bytes()).public_key().verify(
            base64.b64decode(signature), document.encode(), padding.PKCS1v15(), hashes.SHA256())
        if shutil.which("openssl"):
            pem = f"-----BEGIN PKCS7-----\n{message}\n-----END PKCS7-----\n"
            done = subprocess.run(["openssl", "smime", "-verify", "-inform", "PEM", "-certfile", certificate, "-nointern",
                                   "-noverify"], input=pem, text=True, capture_output=True)
            assert done.returncode == 0 and done.stdout == document, done.stderr

    def inside_a_machine(self):
        """scopes, Restart=always and exit codes work in a machine; its console is the API's"""
        assert lab("exec", self.ids[0], "--", "systemd-run", "--scope", "-q", "true").returncode == 0
        assert lab("exec", self.ids[0], "--", "sh", "-c", "exit 7", check=False).returncode == 7
        before = self.ups(0)
        lab("exec", self.ids[0], "--", "pkill", "sleep")
        until(lambda: self.ups(0) > before, "the service is started again")
        output = self.ec2.get_console_output(InstanceId=self.ids[0])["Output"]
        assert "DataSourceEc2Local" in output and "DataSourceEc2Local" in lab("console", self.ids[0]).stdout

    def partition(self):
        """a partition cuts a machine off, but not from its metadata; healing ends it"""
        home = ["--max-time", "1", "--data", "", f"http://{HOST}:{PORT}/ping"]
        lab("partition", self.ids[1])
        assert lab("exec", self.ids[1], "--", "curl", "-s", *home, check=False).returncode == 28
        assert self.curl("-o", "/dev/null", "-w", "%{http_code}", "http://169.254.169.254/") == "401"
        lab("heal", self.ids[1])
        assert lab("exec", self.ids[1], "--", "curl", "-s", *home).returncode == 0

    def freeze(self):
        """a frozen machine does nothing until it is thawed"""
        lab("freeze", self.ids[2])
        before = self.ups(2)
        time.sleep(0.3)
        assert self.ups(2) == before
        lab("thaw", self.ids[2])
        lab("exec", self.ids[2], "--", "true")

    def stop_start(self):
        """stop and start: the same machine boots again, its user-data does not run again"""
        before = self.ups(0)
        self.ec2.stop_instances(InstanceIds=self.ids[:1])
        assert self.state(0) == "stopping"
        refused("IncorrectInstanceState", self.impatient.start_instances, InstanceIds=self.ids[:1])
        until(lambda: self.state(0) == "stopped", "stopped")
        refused("IncorrectInstanceState", self.impatient.reboot_instances, InstanceIds=self.ids[:1])
        self.ec2.start_instances(InstanceIds=self.ids[:1])
        until(lambda: self.ups(0) > before, "it reports after start")
        assert sum(path == "/user-data" and ip == self.ips[0] for path, ip, _ in heard) == 1

    def reboot(self):
        """a reboot by the API, and one from inside"""
        for act in (lambda: self.ec2.reboot_instances(InstanceIds=self.ids[:1]),
                    lambda: lab("exec", self.ids[0], "--", "systemctl", "reboot", check=False)):
            before = self.ups(0)
            act()
            until(lambda: self.ups(0) > before, "it reports after reboot")
        assert next(m["boots"] for m in json.loads(lab("ps").stdout) if m["id"] == self.ids[0]) == 4

    def kill(self):
        """power loss: synced writes stay, others go, the API still says running, and power-on boots it again"""
        lab("exec", self.ids[1], "--", "sh", "-c", "echo gone > /data/unsynced; echo gone > /root/unsynced; "
            "echo kept > /root/synced; sync /root/synced /root")
        lab("exec", self.ids[1], "--", "sh", "-c", "echo gone > /data/unsynced; echo gone > /root/unsynced2")
        before = self.ups(1)
        lab("kill", self.ids[1])
        entry = next(m for m in json.loads(lab("ps").stdout) if m["id"] == self.ids[1])
        assert (entry["state"], entry["running"]) == ("running", False)
        lab("power-on", self.ids[1])
        until(lambda: self.ups(1) > before, "it reports after power-on")
        got = lab("exec", self.ids[1], "--", "sh", "-c", "mount /dev/xvdf /data; cd /root; cat synced /data/synced; "
                  "ls unsynced2 /data/unsynced", check=False)
        assert got.stdout == "kept\nkept\n", got

    def shutdown_inside(self):
        """`shutdown` inside stops the instance, or terminates it when it was launched so"""
        until(lambda: lab("exec", self.ids[3], "--", "systemctl", "is-system-running", check=False).stdout == "running\n",
              "the fourth has booted")
        lab("exec", self.ids[3], "--", "shutdown", "-h", "now", check=False)
        until(lambda: self.state(3) == "terminated", "terminated")
        lab("exec", self.ids[2], "--", "shutdown", "-h", "now", check=False)
        until(lambda: self.state(2) == "stopped", "stopped")

    def terminate(self):
        """terminated instances take their machines, disks and cards along; their token is spent, the group is free"""
        self.ec2.terminate_instances(InstanceIds=self.ids)
        assert self.state(0) == "shutting-down"
        refused("DependencyViolation", self.impatient.delete_security_group, GroupId=self.group)
        until(lambda: all(self.state(n) == "terminated" for n in range(4)), "terminated")
        until(lambda: not any(m["running"] for m in json.loads(lab("ps").stdout)), "machines are gone")
        refused("IdempotentInstanceTerminated", self.ec2.run_instances, **self.asked)
        self.ec2.delete_security_group(GroupId=self.group)
        assert not self.ec2.describe_volumes()["Volumes"] and not self.ec2.describe_network_interfaces()["NetworkInterfaces"]
        until(lambda: not list((STATE / "volumes").iterdir()) and not list((STATE / "machines").iterdir()), "disks are gone")

    def images(self):
        """Debian's images have dates of their own; SSM names the newest"""
        import boto3
        images = self.ec2.describe_images(Owners=["136693071363"])["Images"]
        amd = sorted((i["CreationDate"], i["ImageId"]) for i in images if i["Name"].startswith("debian-12-amd64"))
        assert len(amd) == 2 and amd[0][0] < amd[1][0] and any(i["Architecture"] == "arm64" for i in images)
        name = "/aws/service/debian/release/12/latest/amd64"
        assert boto3.client("ssm").get_parameter(Name=name)["Parameter"]["Value"] == amd[1][1] == self.ami


def inside(ami):
    checks = Inside(ami)
    for name, check in [(n, c) for n, c in vars(Inside).items() if getattr(c, "__doc__", None) and n[0] != "_"]:
        start = time.monotonic()
        check(checks)
        print(f"ok {time.monotonic() - start:5.1f} s  {name}: {check.__doc__}", flush=True)


# ---- from outside ----------------------------------------------------------------------------------------------------

def traces():
    """All on this host that could be a lab's: processes, mounts, loop devices, bridges' namespaces, control groups."""
    found = {("mount", line.split()[1]) for line in Path("/proc/self/mounts").read_text().splitlines()}
    for path in Path("/sys/block").glob("loop*/loop/backing_file"):
        found.add(("loop", path.read_text().strip()))
    for top in Path("/sys/fs/cgroup").rglob("aot-lab"):
        found |= {("cgroup", str(path)) for path in [top, *top.rglob("*")] if path.is_dir()}
    for process in Path("/proc").glob("[0-9]*"):
        try:
            command = (process / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            for kind in ("net", "mnt", "pid"):
                found.add((f"{kind} namespace", os.readlink(process / "ns" / kind)))
        except OSError:
            continue
        if any(word in command for word in ("systemd-nspawn", "dnsmasq", "moto_plus", "lab.py")):
            found.add(("process", command))
    found.add(("inotify", Path("/proc/sys/fs/inotify/max_user_instances").read_text()))
    return found


def start(state):
    """Start a lab as a test does: in the foreground, with a pipe for its standard input."""
    process = subprocess.Popen([*LAB, state, "up", "--foreground", "--moto-delay", "1"],
                               stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    return process, json.loads(process.stdout.readline())


def check_gone(before, state, what, folder_too=True):
    until(lambda: not traces() - before and not (folder_too and state.exists()),
          f"{what} leaves nothing: {traces() - before}", 20)
    print(f"ok          {what} leaves nothing", flush=True)


def main():
    folder = Path(tempfile.mkdtemp(prefix="aot-lab-"))
    state, before = folder / "state", traces()
    try:
        for n in range(3):
            begin = time.monotonic()
            process, answer = start(state)
            print(f"ok {time.monotonic() - begin:5.1f} s  up", flush=True)
            command = [answer["python"], "-B", __file__, "inside", answer["ami"]]
            if n:               # once is enough for the long part
                command = [answer["python"], "-c", "import boto3; boto3.client('ec2').run_instances(ImageId=%r, InstanceType="
                           "'t3.micro', MinCount=2, MaxCount=2)" % answer["ami"]]
            subprocess.run([*LAB, state, "run", "--", *command], check=True, env={**os.environ, "SELFTEST_STATE": str(state)})
            time.sleep(n)       # ended with machines that are off, starting and up
            begin = time.monotonic()
            end(n, process, answer, state)
            print(f"ok {time.monotonic() - begin:5.1f} s  down", flush=True)
            check_gone(before, state, ["down", "the end of its input", "kill -9 of `up`, then down"][n])
            subprocess.run([*LAB, state, "down"], check=True)
    finally:
        subprocess.run([*LAB, state, "down"], check=False)
        shutil.rmtree(folder, ignore_errors=True)


def end(n, process, answer, state):
    if n == 0:
        subprocess.run([*LAB, state, "down"], check=True)
        process.wait(20)
    elif n == 1:
        process.stdin.close()
        process.wait(20)
    else:
        process.send_signal(signal.SIGKILL)
        process.wait()
        until(lambda: not Path(f"/proc/{answer['pid']}").exists(), "the lab ends with `up`", 20)
        subprocess.run([*LAB, state, "down"], check=True)


if __name__ == "__main__":
    inside(sys.argv[2]) if sys.argv[1:2] == ["inside"] else main()
