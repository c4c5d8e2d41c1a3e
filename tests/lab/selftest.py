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


def works(call, **parameters):
    from botocore.exceptions import ClientError
    try:
        call(**parameters)
        return True
    except ClientError:
        return False


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

    def __init__(self, ami, place):
        import boto3
        from botocore.config import Config
        self.ec2, self.ami = boto3.client("ec2"), ami
        self.place = json.loads(place)      # what `up` said of subnets and such
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

    def dice(self):
        """a share of the calls fails, the same share again with the same seed; zones and types can be picked"""
        def pattern():
            lab("fault", "*", "RequestLimitExceeded", "--probability", "0.3", "--seed", "7")
            failed = [not works(self.impatient.describe_key_pairs) for _ in range(20)]
            lab("clear-faults")
            return failed
        first = pattern()
        assert first == pattern() and 2 <= sum(first) <= 10, first
        zones = self.place["subnets"]
        lab("fault", "RunInstances", "InsufficientInstanceCapacity", "--when", "zone=us-east-1b", "--count", "9")
        lab("fault", "RunInstances", "Unsupported", "--when", "type=m5.large", "--count", "9")
        few = {"ImageId": self.ami, "InstanceType": "t3.micro", "MinCount": 1, "MaxCount": 1, "DryRun": True}
        run = self.impatient.run_instances
        refused("InsufficientInstanceCapacity", run, **few, SubnetId=zones["us-east-1b"])
        refused("InsufficientInstanceCapacity", run, **few, NetworkInterfaces=[{"DeviceIndex": 0, "SubnetId": self.place["private_subnet"]}])
        refused("DryRunOperation", run, **few, SubnetId=zones["us-east-1a"])
        refused("Unsupported", run, **{**few, "InstanceType": "m5.large"})
        lab("clear-faults")

    def answers(self):
        """answers are cut, held, and leave instances out; a rule can be for one caller alone"""
        import xml.etree.ElementTree as ElementTree
        from botocore.parsers import ResponseParserError
        lab("fault", "DescribeInstances", "--truncate")
        try:
            self.impatient.describe_instances()
            raise AssertionError("half an answer is no XML")
        except (ResponseParserError, ElementTree.ParseError):
            pass
        lab("fault", "DescribeVolumes", "--delay", "0.5")
        began = time.monotonic()
        self.impatient.describe_volumes()
        assert time.monotonic() - began >= 0.5
        lab("fault", "DescribeVolumes", "InternalError", "--key", "somebody", "--count", "9")
        self.impatient.describe_volumes()
        lab("forget", self.ids[0], "--seconds", "60")
        seen = [i["InstanceId"] for r in self.ec2.describe_instances()["Reservations"] for i in r["Instances"]]
        assert self.ids[0] not in seen and self.ids[1] in seen
        refused("InvalidInstanceID.NotFound", self.ec2.describe_instances, InstanceIds=self.ids[:1])
        lab("clear-faults")
        assert self.state(0) == "running"
        lab("forget-some", "--probability", "1", "--seconds", "0.3")
        assert not self.ec2.describe_instances()["Reservations"]
        until(lambda: len(self.ec2.describe_instances()["Reservations"]) == 2, "they come back")
        lab("clear-faults")

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
        refused("InvalidAMIID.NotFound", run, **{**few, "ImageId": "ami-0123456789abcdef0"}, DryRun=True)
        refused("InvalidKeyPair.NotFound", run, **few, KeyName="nobody", DryRun=True)
        refused("InvalidSubnetID.NotFound", run, **few, SubnetId="subnet-0123456789abcdef0", DryRun=True)
        refused("InvalidGroup.NotFound", run, **few, SecurityGroupIds=["sg-0123456789abcdef0"], DryRun=True)
        refused("InsufficientFreeAddressesInSubnet", run, **{**few, "MaxCount": 12}, SubnetId=self.place["small_subnet"])
        refused("Unsupported", run, **few, SubnetId=self.place["subnets"]["us-east-1e"], DryRun=True)
        assert len(json.loads(lab("ps").stdout)) == count

    def groups(self):
        """a group in use can't be deleted; placement groups come and go"""
        refused("DependencyViolation", self.ec2.delete_security_group, GroupId=self.group)
        self.ec2.create_placement_group(GroupName="near", Strategy="cluster")
        refused("InvalidPlacementGroup.Duplicate", self.ec2.create_placement_group, GroupName="near", Strategy="cluster")
        assert self.ec2.describe_placement_groups(GroupNames=["near"])["PlacementGroups"][0]["State"] == "available"
        self.ec2.delete_placement_group(GroupName="near")

    def rules(self):
        """rules of a group come all or none, once each: addresses, IPv6, other groups"""
        one = {"IpProtocol": "tcp", "FromPort": 80, "ToPort": 80}
        both = [{**one, "IpRanges": [{"CidrIp": "0.0.0.0/0"}], "Ipv6Ranges": [{"CidrIpv6": "::/0"}]},
                {"IpProtocol": "-1", "UserIdGroupPairs": [{"GroupId": self.group}]}]
        call = self.ec2.authorize_security_group_ingress
        assert len(call(GroupId=self.group, IpPermissions=both)["SecurityGroupRules"]) == 3
        more = {**one, "ToPort": 81, "IpRanges": [{"CidrIp": "10.0.0.0/8"}]}
        refused("InvalidPermission.Duplicate", call, GroupId=self.group, IpPermissions=[more, both[0]])
        refused("InvalidPermission.Duplicate", call, GroupId=self.group, IpPermissions=both[1:])
        seen = self.ec2.describe_security_groups(GroupIds=[self.group])["SecurityGroups"][0]["IpPermissions"]
        assert sorted(r.get("ToPort", 0) for r in seen) == [0, 80], seen
        self.ec2.revoke_security_group_ingress(GroupId=self.group, IpPermissions=both)
        assert not self.ec2.describe_security_groups(GroupIds=[self.group])["SecurityGroups"][0]["IpPermissions"]

    def places(self):
        """zones, subnets and offerings: a public and a private one, free addresses, no t3 in us-east-1e"""
        shown = {s["SubnetId"]: s for s in self.ec2.describe_subnets()["Subnets"]}
        private, public = shown[self.place["private_subnet"]], shown[self.place["subnets"]["us-east-1a"]]
        assert public["MapPublicIpOnLaunch"] and not private["MapPublicIpOnLaunch"]
        assert private["AvailableIpAddressCount"] == 4091 and public["AvailableIpAddressCount"] == 4087, public
        assert self.ec2.describe_vpcs(VpcIds=[self.place["vpc"]])["Vpcs"][0]["CidrBlock"] == self.place["vpc_cidr"]
        offered = self.ec2.describe_instance_type_offerings(LocationType="availability-zone", Filters=[
            {"Name": "instance-type", "Values": ["t3.micro"]}])["InstanceTypeOfferings"]
        zones = {o["Location"] for o in offered}
        assert "us-east-1a" in zones and "us-east-1e" not in zones

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

    def status(self):
        """status checks are ok after a while, and impaired when told to be"""
        def checks(n):
            shown = self.ec2.describe_instance_status(InstanceIds=[self.ids[n]], IncludeAllInstances=True)["InstanceStatuses"][0]
            return shown["InstanceStatus"]["Status"], shown["SystemStatus"]["Status"]
        fresh = self.ec2.run_instances(ImageId=self.ami, InstanceType="t3.micro", MinCount=1, MaxCount=1)["Instances"][0]["InstanceId"]
        self.ids.append(fresh)
        until(lambda: self.state(4) == "running", "running")
        assert checks(4) == ("initializing", "initializing"), checks(4)
        until(lambda: checks(4) == ("ok", "ok"), "ok", 10)
        lab("impair", fresh)
        assert checks(4) == ("impaired", "ok") and checks(0) == ("ok", "ok")
        lab("repair", fresh)
        assert checks(4) == ("ok", "ok")

    def elastic(self):
        """an Elastic IP replaces the public address, stays over stop and start, and is not lost by accident"""
        ec2, machine = self.ec2, self.ids[4]
        address = lambda: ec2.describe_instances(InstanceIds=[machine])["Reservations"][0]["Instances"][0]      # noqa: E731
        before = address()["PublicIpAddress"]
        tags = [{"ResourceType": "elastic-ip", "Tags": [{"Key": "Name", "Value": "eip"}]}]
        lasting, other = (ec2.allocate_address(Domain="vpc", TagSpecifications=tags) for _ in range(2))
        pending = ec2.run_instances(ImageId=self.ami, InstanceType="t3.micro", MinCount=1, MaxCount=1)["Instances"][0]["InstanceId"]
        refused("InvalidInstanceID", ec2.associate_address, InstanceId=pending, AllocationId=lasting["AllocationId"])
        self.ids.append(pending)
        link = ec2.associate_address(InstanceId=machine, AllocationId=lasting["AllocationId"])["AssociationId"]
        assert ec2.associate_address(InstanceId=machine, AllocationId=lasting["AllocationId"])["AssociationId"] == link
        refused("Resource.AlreadyAssociated", ec2.associate_address, InstanceId=machine, AllocationId=other["AllocationId"])
        refused("Resource.AlreadyAssociated", ec2.associate_address, InstanceId=self.ids[0], AllocationId=lasting["AllocationId"])
        refused("InvalidIPAddress.InUse", ec2.release_address, AllocationId=lasting["AllocationId"])
        find = lambda name, value: [a["PublicIp"] for a in ec2.describe_addresses(      # noqa: E731
            Filters=[{"Name": name, "Values": [value]}])["Addresses"]]
        assert find("instance-id", machine) == [lasting["PublicIp"]] and len(find("tag:Name", "eip")) == 2
        assert address()["PublicIpAddress"] == lasting["PublicIp"] != before
        meta = ["exec", machine, "--", "curl", "-s", "http://169.254.169.254/latest/meta-data/public-ipv4"]
        until(lambda: lab(*meta, check=False).stdout == lasting["PublicIp"], "the metadata has it")
        private = self.restart(4)
        assert (address()["PublicIpAddress"], address()["PrivateIpAddress"]) == (lasting["PublicIp"], private)
        ec2.disassociate_address(AssociationId=link)
        assert address()["PublicIpAddress"] != lasting["PublicIp"]
        before = address()["PublicIpAddress"]
        assert self.restart(4) == address()["PrivateIpAddress"] and address()["PublicIpAddress"] != before
        ec2.associate_address(InstanceId=machine, AllocationId=other["AllocationId"])
        ec2.terminate_instances(InstanceIds=[machine])
        for one in (lasting, other):
            ec2.release_address(AllocationId=one["AllocationId"])
        assert not ec2.describe_addresses()["Addresses"]

    def restart(self, n):
        self.ec2.stop_instances(InstanceIds=[self.ids[n]])
        until(lambda: self.state(n) == "stopped", "stopped")
        private = self.ec2.describe_instances(InstanceIds=[self.ids[n]])["Reservations"][0]["Instances"][0]["PrivateIpAddress"]
        self.ec2.start_instances(InstanceIds=[self.ids[n]])
        until(lambda: self.state(n) == "running", "running")
        return private

    def snapshots(self):
        """a volume from a snapshot has its content"""
        instance = self.ec2.describe_instances(InstanceIds=[self.ids[1]])["Reservations"][0]["Instances"][0]
        disk = next(d["Ebs"]["VolumeId"] for d in instance["BlockDeviceMappings"] if d["DeviceName"] == "/dev/sdf")
        made = self.ec2.create_snapshot(VolumeId=disk)["SnapshotId"]
        assert self.ec2.describe_snapshots(SnapshotIds=[made])["Snapshots"][0]["State"] == "completed"
        again = self.ec2.create_volume(SnapshotId=made, Size=3, AvailabilityZone=instance["Placement"]["AvailabilityZone"])["VolumeId"]
        self.ec2.attach_volume(VolumeId=again, InstanceId=self.ids[1], Device="/dev/sdg")
        script = "mkdir -p /copy && mount /dev/xvdg /copy && cat /copy/synced; umount /copy; blockdev --getsize64 /dev/xvdg"
        until(lambda: lab("exec", self.ids[1], "--", "test", "-b", "/dev/xvdg", check=False).returncode == 0, "it is attached")
        assert lab("exec", self.ids[1], "--", "sh", "-c", script).stdout == f"kept\n{3 << 30}\n"
        self.ec2.detach_volume(VolumeId=again)
        self.ec2.delete_volume(VolumeId=again)

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
        until(lambda: all(self.state(n) == "terminated" for n in range(len(self.ids))), "terminated")
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


def inside(ami, place):
    checks = Inside(ami, place)
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


ALLOWED = {"Version": "2012-10-17", "Statement": [
    {"Effect": "Allow", "Action": ["ec2:Describe*", "ec2:RunInstances"], "Resource": "*"},
    {"Effect": "Allow", "Action": "ec2:CreateTags", "Resource": "*", "Condition": {"StringEquals": {"ec2:CreateAction": "RunInstances"}}},
    {"Effect": "Allow", "Action": "ec2:TerminateInstances", "Resource": "arn:aws:ec2:*:*:instance/*",
     "Condition": {"StringLike": {"aws:ResourceTag/Mine": "*"}}},
    {"Effect": "Allow", "Action": "ssm:GetParameter", "Resource": "arn:aws:ssm:*::parameter/aws/service/*"}]}
ENFORCED = """
import boto3, sys
from botocore.exceptions import ClientError
ec2, ssm, ami = boto3.client("ec2"), boto3.client("ssm"), sys.argv[1]
def refused(code, call, **parameters):
    try: call(**parameters)
    except ClientError as error: assert error.response["Error"]["Code"] == code, error
    else: raise AssertionError(code)
def launch(**more): return ec2.run_instances(ImageId=ami, InstanceType="t3.micro", MinCount=1, MaxCount=1, **more)
tags = [{"ResourceType": "instance", "Tags": [{"Key": "Mine", "Value": "yes"}]}]
mine = launch(TagSpecifications=tags)["Instances"][0]["InstanceId"]
others = launch()["Instances"][0]["InstanceId"]
assert len(ec2.describe_instances()["Reservations"]) == 2
refused("UnauthorizedOperation", ec2.create_tags, Resources=[others], Tags=tags[0]["Tags"])
refused("UnauthorizedOperation", ec2.terminate_instances, InstanceIds=[mine, others])
ec2.terminate_instances(InstanceIds=[mine])
ssm.get_parameter(Name="/aws/service/debian/release/12/latest/amd64")
refused("AccessDeniedException", ssm.get_parameter, Name="/mine")
refused("UnauthorizedOperation", ec2.allocate_address)
"""


def check_api_only(folder):
    """`up --no-machines --policy`: quick, nothing boots, and only what the policy allows is done."""
    state, policy = folder / "api", folder / "policy.json"
    policy.write_text(json.dumps(ALLOWED))
    began = time.monotonic()
    try:
        up = subprocess.run([*LAB, state, "up", "--no-machines", "--policy", policy], check=True, stdout=subprocess.PIPE, text=True)
        print(f"ok {time.monotonic() - began:5.1f} s  up without machines", flush=True)
        answer = json.loads(up.stdout)
        subprocess.run([*LAB, state, "run", "--", answer["python"], "-c", ENFORCED, answer["ami"]], check=True)
        many = "import boto3; boto3.client('ec2').run_instances(ImageId=%r, InstanceType='t3.micro', MinCount=%d, MaxCount=%d)"
        subprocess.run([*LAB, state, "run", "--admin", "--", answer["python"], "-c", many % (answer["ami"], 1000, 1000)], check=True)
        machines = json.loads(subprocess.run([*LAB, state, "ps"], check=True, stdout=subprocess.PIPE, text=True).stdout)
        assert len(machines) == 1002 and not any(m["running"] for m in machines)
        print(f"ok {time.monotonic() - began:5.1f} s  policies with resources and conditions are enforced; 1000 instances", flush=True)
    finally:
        subprocess.run([*LAB, state, "down"], check=False)


MANNERS = """
import boto3, subprocess, sys, time
from botocore.config import Config
from botocore.exceptions import ClientError
ec2, ami, lab = boto3.client("ec2", config=Config(retries={"max_attempts": 0})), sys.argv[1], sys.argv[2:]
def verb(*words): return subprocess.run([*lab, *words], check=True, stdout=subprocess.PIPE, text=True).stdout
def refused(code, call, status=400, **parameters):
    try: call(**parameters)
    except ClientError as error:
        seen = error.response["Error"]["Code"], error.response["ResponseMetadata"]["HTTPStatusCode"]
        assert seen == (code, status), seen
    else: raise AssertionError(code)
def launch(**more): return ec2.run_instances(ImageId=ami, InstanceType="t3.micro", MinCount=1, MaxCount=1, **more)["Instances"][0]
first = launch(TagSpecifications=[{"ResourceType": "instance", "Tags": [{"Key": "Mine", "Value": "yes"}]}])
verb("age", first["InstanceId"], "600")
asked = [{"Name": "instance-id", "Values": [first["InstanceId"]]}]
shown = ec2.describe_instances(Filters=asked)["Reservations"][0]["Instances"][0]
assert 590 < (first["LaunchTime"] - shown["LaunchTime"]).total_seconds() < 610
verb("reap", first["InstanceId"])
assert not ec2.describe_instances(Filters=asked)["Reservations"]
refused("InvalidInstanceID.NotFound", ec2.terminate_instances, InstanceIds=[first["InstanceId"]])
ec2.create_security_group(GroupName="Own", Description="x")
refused("InvalidGroup.Duplicate", ec2.create_security_group, GroupName="oWN", Description="x")
verb("late", "1.5")
group = ec2.create_security_group(GroupName="late", Description="x")["GroupId"]
address = ec2.allocate_address(Domain="vpc")["AllocationId"]
machine = launch()["InstanceId"]
assert ec2.describe_security_groups(GroupIds=[group])["SecurityGroups"]
refused("InvalidGroup.NotFound", launch, SecurityGroupIds=[group])
refused("InvalidAllocationID.NotFound", ec2.associate_address, AllocationId=address, InstanceId=machine)
refused("InvalidInstanceID.NotFound", ec2.create_tags, Resources=[machine], Tags=[{"Key": "a", "Value": "b"}])
time.sleep(1.6)
verb("late", "0")
launch(SecurityGroupIds=[group])
ec2.associate_address(AllocationId=address, InstanceId=machine)
ec2.create_placement_group(GroupName="near", Strategy="cluster")
zone = launch(Placement={"GroupName": "near"})["Placement"]["AvailabilityZone"]
refused("InvalidPlacementGroup.InUse", launch, Placement={"GroupName": "near"})
launch(Placement={"GroupName": "near", "AvailabilityZone": zone})
verb("metadata-default", "off")
assert launch()["MetadataOptions"]["HttpEndpoint"] == "disabled"
assert launch(MetadataOptions={"HttpEndpoint": "enabled"})["MetadataOptions"]["HttpEndpoint"] == "enabled"
verb("fault", "RunInstances", "InsufficientInstanceCapacity")
refused("InsufficientInstanceCapacity", launch, status=500)
assert verb("bad-requests") == ""
"""


def check_manners(folder):
    """What EC2 does and moto doesn't: things that go for good, come late, or are refused in EC2's own way."""
    state, began = folder / "manners", time.monotonic()
    try:
        up = subprocess.run([*LAB, state, "up", "--no-machines"], check=True, stdout=subprocess.PIPE, text=True)
        answer = json.loads(up.stdout)
        subprocess.run([*LAB, state, "run", "--", answer["python"], "-c", MANNERS, answer["ami"], *map(str, LAB), str(state)],
                       check=True)
        subprocess.run([answer["python"], "-B", "-c", WRONG_REQUESTS], check=True, cwd=Path(__file__).parent)
        print(f"ok {time.monotonic() - began:5.1f} s  reap, age, late, zones of placement groups; requests are checked", flush=True)
    finally:
        subprocess.run([*LAB, state, "down"], check=False)


WRONG_REQUESTS = """
from request_model import check
run = {"MinCount": "1", "MaxCount": "1"}
for action, form, wanted in [
        ("TerminateInstances", {"InstanceId.1": "i-1", "InstanceId.2": "i-2"}, ""), ("RunInstances", run, ""),
        ("TerminateInstances", {"InstanceIds.1": "i-1"}, "InstanceIds is not in the model"),
        ("TerminateInstances", {"InstanceId.2": "i-1"}, "not numbered from 1"),
        ("RunInstances", {"MinCount": "1"}, "MaxCount is missing"),
        ("RunInstances", {**run, "MetadataOptions.HttpTokens": "yes"}, "none of the model's values"),
        ("RunInstances", {**run, "EbsOptimized": "True"}, "not true or false"),
        ("RunInstances", {**run, "Placement": "x"}, "not a structure"),
        ("RunInstances", {**run, "MinCount": "one"}, "not a number"),
        ("DescribeSecurityGroups", {"MaxResults": "2000"}, "out of 5..1000"), ("MakeInstances", {}, "no such operation")]:
    found = check(action, form)
    assert wanted in found[0] if wanted else not found, (action, form, found)
"""


def main():
    folder = Path(tempfile.mkdtemp(prefix="aot-lab-"))
    state, before = folder / "state", traces()
    try:
        check_api_only(folder)
        check_manners(folder)
        for n in range(3):
            begin = time.monotonic()
            process, answer = start(state)
            print(f"ok {time.monotonic() - begin:5.1f} s  up", flush=True)
            command = [answer["python"], "-B", __file__, "inside", answer["ami"], json.dumps(answer)]
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
    inside(*sys.argv[2:]) if sys.argv[1:2] == ["inside"] else main()
