"""The inside of the lab: one region of EC2, with its network, its API, its metadata service and its machines.

Runs in the lab's own namespaces, started by lab.py, which talks to it through a unix socket. What it does is level-
triggered: once a second, and whenever the API front saw a change or a machine went off, it compares DescribeInstances with
the machines and acts on the differences. Without machines it is only the network, the API and what goes wrong there."""
import base64
import ipaddress
import json
import os
import re
import socket
import subprocess
import threading
import time
import traceback
import urllib.request
from pathlib import Path

import boto3

import cgroups
import faults
import front
import imds
import request_model
from machine import REBOOT_EXIT, Machine
from prepare import venv
from volume import wait_until

HOST_IP, IMDS_IP, DNS_IP = "198.51.100.1", "169.254.169.254", "169.254.169.253"
API_PORT, MOTO_PORT, REGION = 5000, 4999, "us-east-1"
PRIVATE_ZONE, PRIVATE_RANGE, SMALL_RANGE = "us-east-1b", "172.31.96.0/20", "172.31.112.0/28"    # beside the default subnets
HERE = Path(__file__).resolve().parent
FROM_BOOT = ("_user_data", "_public_key")       # what is learned once, when a machine boots
PASS_SECONDS, BUSY_PASS_SECONDS = 1, 0.05

# What a partition drops. The link stays up and the metadata service answers, as on EC2; ARP is let through as well, so
# that only packets are lost.
FIREWALL = "table bridge lab {\n set cut { type ifname; }\n set pairs { type ifname . ipv4_addr; }\n" + "".join(f"""
 chain {hook} {{
  type filter hook {hook} priority 0
  ether type arp accept
  ip daddr {IMDS_IP} accept
  ip saddr {IMDS_IP} accept
  iifname @cut drop
  oifname @cut drop
  iifname . ip daddr @pairs drop
  oifname . ip saddr @pairs drop
 }}""" for hook in ("forward", "input", "output")) + "\n}\n"


def run(*command, **kw):
    subprocess.run([str(c) for c in command], check=True, stdin=None if "input" in kw else subprocess.DEVNULL, **kw)


class Network:
    """A bridge with the lab's addresses, and dnsmasq for DHCP and names."""

    def __init__(self, state, machines):
        self.state, self.subnets, self.dnsmasq = state, {}, None
        for name in ("dhcp", "dns"):
            (state / name).mkdir()
        # The bridge has an address of its own: else it takes that of a port, and neighbours remember it when that is gone.
        for command in ("link set lo up", "link add br0 address 0a:00:00:00:00:01 type bridge forward_delay 0",
                        f"addr add {HOST_IP}/32 dev br0", f"addr add {IMDS_IP}/32 dev br0",
                        f"addr add {DNS_IP}/32 dev br0", "link set br0 up"):
            run("ip", *command.split())
        if not machines:
            return
        Path("/proc/sys/net/ipv4/ip_forward").write_text("1")
        run("nft", "-f", "-", input=FIREWALL, text=True)

    def serve(self, subnets):
        """Have a router's address and a DHCP range for each subnet: id -> address range."""
        if subnets == self.subnets:
            return
        self.subnets, ranges = subnets, []
        for tag, text in subnets.items():
            net = ipaddress.ip_network(text)
            run("ip", "addr", "replace", f"{net[1]}/{net.prefixlen}", "dev", "br0")
            ranges += [f"--dhcp-range=set:{tag},{net[0]},static,{net.netmask},infinite",
                       f"--dhcp-option=tag:{tag},option:router,{net[1]}"]
        if self.dnsmasq:
            self.dnsmasq.kill()
            self.dnsmasq.wait()
        with open(self.state / "dnsmasq.log", "a") as log:
            self.dnsmasq = subprocess.Popen(
                ["dnsmasq", "--keep-in-foreground", "--user=root", "--conf-file=/dev/null", "--no-resolv", "--no-hosts",
                 "--interface=br0", "--pid-file=", "--leasefile-ro", "--no-ping", "--dhcp-authoritative", "--log-facility=-",
                 f"--dhcp-hostsdir={self.state}/dhcp", f"--hostsdir={self.state}/dns",
                 f"--dhcp-option=option:dns-server,{DNS_IP}", "--dhcp-option=option:domain-name,ec2.internal", *ranges],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log)

    def add(self, instance_id, mac, ip, name):
        (self.state / "dhcp" / instance_id).write_text(f"{mac},{ip},infinite\n")
        (self.state / "dns" / instance_id).write_text(f"{ip} {name}\n")

    def remove(self, instance_id):
        for kind in ("dhcp", "dns"):
            (self.state / kind / instance_id).unlink(missing_ok=True)

    def cut(self, port, peer, on):
        element = f"pairs {{ {port} . {peer} }}" if peer else f"cut {{ {port} }}"
        lines = [f"{verb} element bridge lab {element}\n" for verb in (["add"] if on else ["add", "delete"])]
        run("nft", "-f", "-", input="".join(lines), text=True)      # to add twice is legal, to delete what is absent not


class Region:
    def __init__(self, state, name, moto_delay, policy, has_machines):
        self.state, self.name, self.has_machines = state, name, has_machines
        self.machines, self.known, self.by_ip, self.volumes, self.kinds, self.subnets = {}, {}, {}, {}, {}, {}
        self.faults, self.forgetting, self.lateness = faults.Faults(), faults.Forgetting(), faults.Lateness()
        self.forms = set()
        self.lock, self.wake, self.log_lock = threading.RLock(), threading.Event(), threading.Lock()
        self.vpcs, self.v2 = {}, state / "cgroup"
        for folder in ("machines", "volumes", "snapshots", "consoles", "impaired", "reap", "cgroup"):
            (state / folder).mkdir()
        if has_machines:
            cgroups.mount("none", self.v2, "cgroup2")
        self.network = Network(state, has_machines)
        self.api_log = open(state / "api.log", "a", buffering=1)
        self.start_moto(moto_delay)
        self.places = self.make_places()
        self.keys = self.enforce(policy) if policy else {}
        signer, self.spoilt = imds.Signer(state / "imds.pem"), imds.Spoilt(state)
        for target, args in ((front.serve, ((HOST_IP, API_PORT), MOTO_PORT, self)), (self.control, ()),
                             (imds.serve, ((IMDS_IP, 80), REGION, signer, self.spoilt, lambda ip: self.by_ip.get(ip), lambda i: self.known.get(i), self.tags_of))):
            threading.Thread(target=target, args=args, daemon=True).start()

    def start_moto(self, delay):
        on = {name: "true" for name in ("MOTO_ENABLE_AMI_VALIDATION", "MOTO_ENABLE_KEYPAIR_VALIDATION",
                                        "MOTO_EC2_ENABLE_INSTANCE_TYPE_VALIDATION")}
        with open(self.state / "moto.log", "w") as log:
            moto = subprocess.Popen([venv() / "bin/python", "-B", HERE / "moto_plus.py", "-H", "127.0.0.1", "-p", str(MOTO_PORT)],
                             stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                             env={**os.environ, **on, "MOTO_EC2_DELAY": str(delay), "MOTO_LAB_STATE": str(self.state),
                                  "MOTO_AMIS_PATH": str(HERE / "amis.json")})
        self.ec2 = self.client("ec2")
        wait_until(lambda: socket.socket().connect_ex(("127.0.0.1", MOTO_PORT)) == 0 or moto.poll() is not None, 60)
        if moto.poll() is not None:
            raise RuntimeError((self.state / "moto.log").read_text())

    def client(self, service, id="lab", secret="lab"):
        return boto3.client(service, REGION, endpoint_url=f"http://127.0.0.1:{MOTO_PORT}",
                            aws_access_key_id=id, aws_secret_access_key=secret)

    def make_places(self):
        """What a region has besides default subnets: a way out to the internet, a subnet without, and one that is nearly
        full. All but the internet gateway are tagged with a Name."""
        vpc = self.ec2.describe_vpcs(Filters=[{"Name": "is-default", "Values": ["true"]}])["Vpcs"][0]
        subnets = {s["AvailabilityZone"]: s["SubnetId"] for s in self.ec2.describe_subnets()["Subnets"] if s["DefaultForAz"]}
        gateway = self.ec2.create_internet_gateway()["InternetGateway"]["InternetGatewayId"]
        self.ec2.attach_internet_gateway(InternetGatewayId=gateway, VpcId=vpc["VpcId"])
        main = self.ec2.describe_route_tables(Filters=[{"Name": "vpc-id", "Values": [vpc["VpcId"]]}])["RouteTables"][0]
        self.ec2.create_route(RouteTableId=main["RouteTableId"], DestinationCidrBlock="0.0.0.0/0", GatewayId=gateway)
        inside = self.ec2.create_route_table(VpcId=vpc["VpcId"])["RouteTable"]["RouteTableId"]
        more = {}
        for name, cidr in (("private", PRIVATE_RANGE), ("small", SMALL_RANGE)):
            more[name] = self.ec2.create_subnet(
                VpcId=vpc["VpcId"], CidrBlock=cidr, AvailabilityZone=PRIVATE_ZONE, TagSpecifications=[
                    {"ResourceType": "subnet", "Tags": [{"Key": "Name", "Value": name}]}])["Subnet"]["SubnetId"]
        self.ec2.associate_route_table(RouteTableId=inside, SubnetId=more["private"])
        return {"vpc": vpc["VpcId"], "vpc_cidr": vpc["CidrBlock"], "subnets": subnets,
                "private_subnet": more["private"], "small_subnet": more["small"]}

    def enforce(self, policy):
        """From now on every call needs a permission. Two users: one with this policy and no other, one who may all."""
        iam, keys = self.client("iam"), {}
        for user, document in (("master", policy), ("lab", '{"Version": "2012-10-17", "Statement": [{"Effect": "Allow", '
                                                           '"Action": "*", "Resource": "*"}]}')):
            iam.create_user(UserName=user)
            iam.put_user_policy(UserName=user, PolicyName=user, PolicyDocument=document)
            key = iam.create_access_key(UserName=user)["AccessKey"]
            keys[user] = {"AWS_ACCESS_KEY_ID": key["AccessKeyId"], "AWS_SECRET_ACCESS_KEY": key["SecretAccessKey"]}
        self.ec2 = self.client("ec2", *keys["lab"].values())
        reset = f"http://127.0.0.1:{MOTO_PORT}/moto-api/reset-auth"
        urllib.request.urlopen(urllib.request.Request(reset, b"0", {"Content-Type": "text/plain"})).close()
        return {"env": keys["master"], "admin_env": keys["lab"]}

    def run(self):
        self.look()
        (self.state / "ready").write_text(json.dumps({"subnet": self.default_subnet(), **self.places, **self.keys}))
        if not self.has_machines:
            threading.Event().wait()
        looked = 0
        while True:
            self.wake.clear()
            try:
                with self.lock:
                    if fresh := time.monotonic() > looked + PASS_SECONDS:
                        self.look()
                        looked = time.monotonic()
                    self.reconcile(fresh)
            except Exception:
                traceback.print_exc()
            busy = any(m.stopping_since or m.is_on() and not m.leader() for m in self.machines.values())
            if self.wake.wait(BUSY_PASS_SECONDS if busy else PASS_SECONDS):
                looked = 0

    # ---- what the API says

    def look(self):
        """Read all that the API knows."""
        self.vpcs = {vpc["VpcId"]: vpc["CidrBlock"] for vpc in self.ec2.describe_vpcs()["Vpcs"]}
        self.subnets = {subnet["SubnetId"]: subnet for subnet in self.ec2.describe_subnets()["Subnets"]}
        if self.has_machines:
            self.network.serve({i: subnet["CidrBlock"] for i, subnet in self.subnets.items()})
        self.volumes = {volume["VolumeId"]: volume for volume in self.ec2.describe_volumes()["Volumes"]}
        known = {}
        for page in self.ec2.get_paginator("describe_instances").paginate():
            for reservation in page["Reservations"]:
                for instance in reservation["Instances"]:
                    known[instance["InstanceId"]] = instance | {
                        "_owner": reservation["OwnerId"], "_reservation": reservation["ReservationId"],
                        "_subnet": self.subnets.get(instance.get("SubnetId"), {}).get("CidrBlock", ""),
                        "_vpc": self.vpcs.get(instance.get("VpcId"), "")}
        self.known = known

    def default_subnet(self):
        return min((s["AvailabilityZone"], i) for i, s in self.subnets.items() if s["DefaultForAz"])[1]

    def memory_of(self, kind):
        if kind not in self.kinds:
            found = self.ec2.describe_instance_types(InstanceTypes=[kind])["InstanceTypes"][0]
            self.kinds[kind] = found["MemoryInfo"]["SizeInMiB"]
        return self.kinds[kind]

    def attribute(self, instance_id, name):
        answer = self.ec2.describe_instance_attribute(InstanceId=instance_id, Attribute=name)
        return answer[name[0].upper() + name[1:]].get("Value", "")

    # ---- what follows from it

    def reconcile(self, fresh):
        for instance_id, instance in self.known.items():
            if instance_id not in self.machines and instance["State"]["Name"] != "terminated":
                folder = self.state / "machines" / instance_id
                self.machines[instance_id] = Machine(instance_id, folder, self.console(instance_id), self.v2, self.name)
            if instance_id in self.machines:
                try:
                    self.settle(self.machines[instance_id], instance)
                except Exception:
                    print(instance_id, traceback.format_exc(), flush=True)
        in_use = {volume.path for m in self.machines.values() for volume in (m.root, *m.volumes.values()) if volume}
        for path in (self.state / "volumes").iterdir() if fresh else ():
            if path.stem not in self.volumes and path not in in_use:
                path.unlink()

    def settle(self, machine, instance):
        """Bring one machine nearer to what the API says of it."""
        state = instance["State"]["Name"]
        wanted = state in ("pending", "running")
        if machine.process and not machine.is_on():
            asked = machine.stopping_since is not None
            code = machine.release()
            if wanted and not asked and code != REBOOT_EXIT:        # `shutdown` inside, or it fell over
                self.ended_by_itself(machine.id)
                return
        machine.lost_power = machine.lost_power and wanted
        if machine.is_on() and wanted and machine.stopping_since is None:
            disks = self.disks(instance)
            machine.attach(disks, self.volume_path)
            if machine.ip in self.by_ip:                            # tags and such may have changed
                kept = {key: self.by_ip[machine.ip][key] for key in FROM_BOOT if key in self.by_ip[machine.ip]}
                self.by_ip[machine.ip] = instance | kept
        elif machine.is_on():
            machine.power_off()
        elif wanted and not machine.lost_power:
            self.boot(machine, instance)
        elif state == "terminated":
            machine.delete()
            del self.machines[machine.id]
            self.network.remove(machine.id)
            self.by_ip.pop(machine.ip, None)

    def ended_by_itself(self, instance_id):
        how = self.attribute(instance_id, "instanceInitiatedShutdownBehavior")
        (self.ec2.terminate_instances if how == "terminate" else self.ec2.stop_instances)(InstanceIds=[instance_id])

    def boot(self, machine, instance):
        card, ip = instance["NetworkInterfaces"][0], instance["PrivateIpAddress"]
        more = {"_user_data": base64.b64decode(self.attribute(machine.id, "userData"))}
        if instance.get("KeyName"):
            pair = self.ec2.describe_key_pairs(KeyNames=[instance["KeyName"]], IncludePublicKey=True)["KeyPairs"][0]
            more["_public_key"] = pair["PublicKey"].strip() + "\n"
        if instance.get("MetadataOptions", {}).get("HttpEndpoint") != "disabled":
            self.by_ip[ip] = instance | more
        self.network.add(machine.id, card["MacAddress"], ip, instance["PrivateDnsName"])
        root = next((disk["Ebs"]["VolumeId"] for disk in instance["BlockDeviceMappings"]
                     if disk["DeviceName"] == instance["RootDeviceName"]), None)
        if root is None:
            raise RuntimeError("no root volume is attached")
        process = machine.boot(self.volume_path(root), self.volumes[root]["Size"], self.memory_of(instance["InstanceType"]),
                               card["MacAddress"], ip)
        threading.Thread(target=lambda: (process.wait(), self.wake.set()), daemon=True).start()

    def disks(self, instance):
        found = {disk["Ebs"]["VolumeId"]: (disk["DeviceName"], self.volumes[disk["Ebs"]["VolumeId"]]["Size"])
                 for disk in instance["BlockDeviceMappings"] if disk["DeviceName"] != instance["RootDeviceName"]}
        for volume_id in found:
            self.fill(volume_id)
        return found

    def fill(self, volume_id):
        """A volume made from a snapshot that was made here begins as its copy."""
        path, content = self.volume_path(volume_id), self.snapshot_path(self.volumes[volume_id].get("SnapshotId") or "none")
        if content.exists() and not path.exists():
            run("cp", "--sparse=always", content, path)

    def volume_path(self, volume_id):
        return self.state / "volumes" / f"{volume_id}.img"

    def snapshot_path(self, snapshot_id):
        return self.state / "snapshots" / f"{Path(snapshot_id).name}.img"

    # ---- what the API front asks and tells

    def console(self, instance_id):
        return self.state / "consoles" / f"{Path(instance_id).name}.log"

    def changed(self, action, ids, form=None, answer=b""):
        with self.lock:
            for machine in [self.machines[i] for i in ids if i in self.machines]:
                if action == "StopInstances" and machine.is_on():
                    machine.power_off()
                elif action in ("StartInstances", "RebootInstances"):
                    machine.lost_power = False
                if action == "RebootInstances":
                    machine.reboot()
            volume = self.volume_path((form or {}).get("VolumeId", ""))
            if action == "CreateSnapshot" and volume.exists():
                made = re.search(rb"<snapshotId>([^<]+)</snapshotId>", answer)[1].decode()
                run("cp", "--sparse=always", volume, self.snapshot_path(made))
        self.wake.set()

    def zone_of(self, subnet_id):
        """A subnet's zone, for rules about zones; those made after the last look are asked for."""
        if subnet_id not in self.subnets:
            self.subnets = {subnet["SubnetId"]: subnet for subnet in self.ec2.describe_subnets()["Subnets"]}
        return self.subnets.get(subnet_id, {}).get("AvailabilityZone")

    def take_fault(self, action, form, key):
        with self.log_lock:
            return self.faults.take(action, form, key, self.zone_of)

    def forget(self, form, answer, key):
        with self.log_lock:
            return self.forgetting.describe(form, answer, key, time.monotonic())

    def too_new(self, action, form):
        with self.log_lock:
            return self.lateness.refusal(action, form, time.monotonic())

    def made(self, action, form, answer):
        with self.log_lock:
            self.lateness.made(action, form, answer, time.monotonic())

    def check_request(self, action, form):
        """Each form of EC2's requests once, against EC2's own model: what is wrong is in `bad-requests.log`. Requests to
        IAM and STS, which tests themselves make, carry other versions."""
        if form.get("Version") != request_model.VERSION:
            return
        shape = request_model.signature(action, form)
        with self.log_lock:
            if not form or shape in self.forms:
                return
            self.forms.add(shape)
        for text in request_model.check(action, form):
            with self.log_lock, open(self.state / "bad-requests.log", "a") as log:
                log.write(text + "\n")

    def log_call(self, entry):
        with self.log_lock:
            self.api_log.write(json.dumps(entry) + "\n")

    # ---- what the command line asks

    def control(self):
        """One JSON object a line in, one out: {"ok": answer} or {"error": text}."""
        folder = os.open(self.state, os.O_PATH)
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(f"/proc/self/fd/{folder}/control")          # a socket's path may have 107 characters, no more
            server.listen()
            while True:
                connection, _ = server.accept()
                threading.Thread(target=self.converse, args=(connection,), daemon=True).start()

    def converse(self, connection):
        with connection, connection.makefile("rw") as stream:
            try:
                request = json.loads(stream.readline())
                answer = {"ok": getattr(self, "do_" + request.pop("verb"))(**request)}
            except Exception as error:
                answer = {"error": str(error) or repr(error)}
            stream.write(json.dumps(answer) + "\n")

    def machine(self, instance_id, must_be_on=True):
        if instance_id not in self.machines:
            raise RuntimeError(f"no machine {instance_id}")
        machine = self.machines[instance_id]
        if must_be_on and not machine.leader():
            raise RuntimeError(f"{instance_id} is not running")
        return machine

    def tags_of(self, instance_id):
        """Its tags as they are now: what CreateTags sets shows in the metadata service at once."""
        named = [{"Name": "resource-id", "Values": [instance_id]}]
        return [{"Key": tag["Key"], "Value": tag["Value"]} for tag in self.ec2.describe_tags(Filters=named)["Tags"]]

    def do_spoil(self, lies):
        """What machines are lied to by the metadata service, by their Name tag; see imds.Spoilt."""
        self.spoilt.lies = lies
        self.spoilt.keys()
        return True

    def do_ps(self):
        with self.lock:
            self.look()
            return [{"id": i, "state": instance["State"]["Name"],
                     "running": bool(m and m.leader()), "ip": instance.get("PrivateIpAddress"),
                     "boots": m.boots if m else None, "lost_power": bool(m and m.lost_power)}
                    for i, instance in self.known.items() for m in [self.machines.get(i)]]

    def do_account(self, cluster):
        """What costs money or takes up a name, of a cluster (by its Cluster tag) or of all."""
        ec2, mine = self.ec2, [{"Name": "tag:Cluster", "Values": [cluster]}] if cluster else []
        tags = lambda thing: {t["Key"]: t["Value"] for t in thing.get("Tags", [])}      # noqa: E731
        instances = [i for page in ec2.get_paginator("describe_instances").paginate(Filters=mine)
                     for r in page["Reservations"] for i in r["Instances"]]
        groups = ec2.describe_security_groups(Filters=mine)["SecurityGroups"]
        cards = ec2.describe_network_interfaces(Filters=mine)["NetworkInterfaces"]
        return {"instances": [{"id": i["InstanceId"], "state": i["State"]["Name"], "pool": tags(i).get("aot:pool", ""),
                               "cluster": tags(i).get("Cluster", "")} for i in instances
                              if i["State"]["Name"] not in ("terminated", "shutting-down")],
                "volumes": [v["VolumeId"] for v in ec2.describe_volumes(Filters=mine)["Volumes"]],
                "interfaces": [card["NetworkInterfaceId"] for card in cards],
                "addresses": [a["AllocationId"] for a in ec2.describe_addresses(Filters=mine)["Addresses"]],
                "groups": [g["GroupId"] for g in groups if g["GroupName"] != "default"],
                "placement_groups": [g["GroupName"] for g in ec2.describe_placement_groups(Filters=mine)["PlacementGroups"]]}

    def do_exec(self, id):
        machine = self.machine(id)
        entrance = machine.cgroup.dir / "exec"                      # so that freeze and kill reach the command too
        entrance.mkdir(exist_ok=True)
        return {"leader": machine.leader(),
                "entrances": [str(path / "cgroup.procs") for path in (entrance, *machine.cgroup.v1)]}

    def do_fault(self, **rule):
        with self.log_lock:
            self.faults.add(**rule)

    def do_forget(self, id, seconds):
        with self.log_lock:
            self.forgetting.name(id, seconds, time.monotonic())

    def do_forget_some(self, probability, seconds, seed, key):
        with self.log_lock:
            self.forgetting.some(probability, seconds, seed, key)

    def do_late(self, seconds):
        with self.log_lock:
            self.lateness.seconds = seconds

    def do_metadata_default(self, how):
        path = self.state / "metadata-off"
        path.touch() if how == "off" else path.unlink(missing_ok=True)

    def do_age(self, id, seconds):
        """An instance that was launched so much earlier."""
        self.tell_moto(f"age {id} {seconds}")

    def do_reap(self, id):
        """Terminate an instance and forget it for good, tags and all, as EC2 does after an hour."""
        self.ec2.terminate_instances(InstanceIds=[id])
        self.changed("TerminateInstances", [id])
        wait_until(lambda: id not in self.machines, 60)
        self.tell_moto(f"reap {id}")
        with self.lock:
            self.known.pop(id, None)

    def tell_moto(self, wish):
        """moto_plus.py does what files in this folder say, and takes them away."""
        path = self.state / "reap" / wish.replace(" ", "_")
        path.touch()
        if not wait_until(lambda: not path.exists(), 20):
            raise RuntimeError(f"moto does not {wish}")

    def do_clear_faults(self, key):
        with self.log_lock:
            self.faults.clear(key)
            self.forgetting.clear(key)

    def do_impair(self, id):
        (self.state / "impaired" / Path(id).name).touch()

    def do_repair(self, id):
        (self.state / "impaired" / Path(id).name).unlink(missing_ok=True)

    def do_partition(self, id, peer):
        self.network.cut(self.machine(id, must_be_on=False).port, peer, True)

    def do_heal(self, id, peer):
        self.network.cut(self.machine(id, must_be_on=False).port, peer, False)

    def do_freeze(self, id):
        self.machine(id).freeze(True)

    def do_thaw(self, id):
        self.machine(id).freeze(False)

    def do_kill(self, id):
        with self.lock:
            self.machine(id).kill()

    def do_power_on(self, id):
        self.changed("StartInstances", [self.machine(id, must_be_on=False).id])
