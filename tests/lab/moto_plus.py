"""moto's server, with the rules of EC2 that a launcher leans on and moto leaves out.

Each section below replaces a piece of moto 5.2.5 and says which rule it brings; README.md has the table. Run by region.py
as a program of its own, with MOTO_EC2_DELAY in its environment: for how many seconds a change of state stays visible
as pending, stopping or shutting-down; and MOTO_LAB_STATE, the lab's folder, where `impaired/ID` spoils a status check."""
import copy
import datetime
import json
import os
import threading
import time
from pathlib import Path

import moto_iam  # noqa: F401  (patches moto)
from moto.core.responses import ActionResult, EmptyResult
from moto.core.utils import utcnow
from moto.ec2.exceptions import DryRunClientError
from moto.ec2.models import ec2_backends
from moto.ec2.models.amis import Ami
from moto.ec2.models.core import TaggedEC2Resource
from moto.ec2.models.elastic_block_store import EBSBackend
from moto.ec2.models.instance_types import INSTANCE_TYPES
from moto.ec2.models.instances import Instance, InstanceBackend, InstanceState
from moto.ec2.models.security_groups import SecurityGroupBackend
from moto.ec2.responses import EC2Response
from moto.ec2.utils import filter_dict_attribute_mapping
from moto.ssm.models import Parameter, ParameterDict
from moto_net import check_subnet, check_zone, refuse_if

DELAY = float(os.environ.get("MOTO_EC2_DELAY", "0.5"))
STATE, CHECKS = Path(os.environ.get("MOTO_LAB_STATE", "/nonexistent")), 2     # checks begin so many seconds after a start
USER_DATA_LIMIT, TOKEN_LIMIT, ROOT_GIB = 16384, 64, 8
LAUNCHING = threading.Lock()            # a retry may come while the call it repeats is still at work


# ---- RunInstances ----------------------------------------------------------------------------------------------------

plain_run_instances = EC2Response.run_instances


def run_instances(self):
    """RunInstances: idempotent by ClientToken, all or nothing, and strict about its parameters."""
    params, backend = self.params, self.ec2_backend
    token = params.get("ClientToken")
    asked = json.dumps({k: v for k, v in params.items() if k != "ClientToken"}, default=str, sort_keys=True)
    with LAUNCHING:
        tokens = backend.__dict__.setdefault("lab_tokens", {})
        if token in tokens:
            return repeat_launch(backend, asked, *tokens[token])
        check_launch(params, backend)
        before = set(backend.reservations)
        try:
            result = plain_run_instances(self)
            complete_launch(params, backend, result.result)
        except Exception as error:
            for key in set(backend.reservations) - before:
                for instance in backend.reservations[key].instances:
                    instance.terminate()
                del backend.reservations[key]
            refuse_if(getattr(error, "code", "") == "NoSuchEntity", "InvalidParameterValue",
                      f"Invalid IAM Instance Profile: {error}")
            raise
        if token:
            tokens[token] = asked, result.result.id, [instance.id for instance in result.result.instances]
        return result


def repeat_launch(backend, asked, first, reservation, ids):
    refuse_if(asked != first, "IdempotentParameterMismatch", "The request uses the same client token as a previous, "
              "but non-identical request. Do not reuse a client token with different requests, unless the requests are "
              "identical")
    states = {backend.get_instance(i)._state.name for i in ids}
    refuse_if(states <= {"terminated", "shutting-down"}, "IdempotentInstanceTerminated",
              "The instances of the request with this client token are terminated")
    return ActionResult(copy.copy(backend.reservations[reservation]))


def check_launch(params, backend):
    low, high = int(params.get("MinCount", 1)), int(params.get("MaxCount", params.get("MinCount", 1)))
    refuse_if(low < 1 or high < low, "InvalidParameterValue", f"Invalid value '{low}' for minCount with maxCount '{high}'")
    params["MinCount"] = high                       # moto launches MinCount
    refuse_if(len(params.get("ClientToken") or "") > TOKEN_LIMIT, "InvalidParameterValue",
              f"Length exceeds maximum of {TOKEN_LIMIT}: ClientToken")
    # moto keeps user-data as base64: 4 characters for 3 bytes
    data = str(params.get("UserData") or "").rstrip("=")
    refuse_if(len(data) * 3 // 4 > USER_DATA_LIMIT, "InvalidParameterValue",
              f"User data is limited to {USER_DATA_LIMIT} bytes")
    for name in params.get("SecurityGroups", []):
        refuse_if(not backend.get_security_group_by_name_or_id(name), "InvalidGroup.NotFound",
                  f"The security group '{name}' does not exist")
    cards = params.get("NetworkInterfaces", [])
    refuse_if(cards and (params.get("SecurityGroups") or params.get("SecurityGroupIds")), "InvalidParameterCombination",
              "Network interfaces and an instance-level security groups may not be specified on the same request")
    kind, image = params.get("InstanceType"), backend.amis.get(params.get("ImageId"))
    refuse_if(kind and kind not in INSTANCE_TYPES, "InvalidParameterValue",
              f"Invalid value '{kind}' for InstanceType.")
    if kind and image:
        fits = INSTANCE_TYPES[kind]["ProcessorInfo"]["SupportedArchitectures"]
        refuse_if(image.architecture not in fits, "InvalidParameterValue", f"The architecture '{','.join(fits)}' of the "
                  f"specified instance type does not match the architecture '{image.architecture}' of the specified AMI.")
    group = (params.get("Placement") or {}).get("GroupName")
    if group and not params.get("SubnetId") and not cards and not (params.get("Placement") or {}).get("AvailabilityZone"):
        params["Placement"] = {**params["Placement"], "AvailabilityZone": any_zone(backend)}
    refuse_if(group and group not in placement_groups(backend), "InvalidPlacementGroup.Unknown",
              f"The Placement Group '{group}' is unknown.")
    if not params.get("SubnetId") and not any("SubnetId" in c or "NetworkInterfaceId" in c for c in cards):
        choose_subnet(params, backend, cards)
    check_zone(backend, (params.get("Placement") or {}).get("AvailabilityZone"), kind)
    check_group_zone(params, backend, group)
    for place in ([params] if not cards else cards):
        if place.get("SubnetId"):
            groups = [*place.get("Groups", []), *place.get("SecurityGroupIds", [])]
            check_subnet(backend, place["SubnetId"], kind, high, [g for g in groups if isinstance(g, str)])
    for disk in params.get("BlockDeviceMappings", []):
        if disk.get("Ebs", {}).get("SnapshotId"):
            backend.describe_snapshots(snapshot_ids=[disk["Ebs"]["SnapshotId"]])
    if params.get("DryRun"):                        # what moto looks at only later
        backend.describe_images(ami_ids=[params["ImageId"]] if params.get("ImageId") else [])
        backend.describe_key_pairs(key_names=[params["KeyName"]] if params.get("KeyName") else [])
        if params.get("IamInstanceProfile"):
            return
        raise DryRunClientError()


def any_zone(backend):
    """The zone that EC2 chooses for a launch that names none: another one each time."""
    zones = sorted(backend.get_default_subnets())
    count = backend.__dict__["lab_zones"] = backend.__dict__.get("lab_zones", -1) + 1
    return zones[count % len(zones)]


def check_group_zone(params, backend, group):
    """The machines of a placement group of strategy cluster are all in one zone."""
    living = [i.placement.zone for i in backend.all_instances()
              if group and i.placement.group_name == group and i._state.name not in ("terminated", "shutting-down")]
    subnet = params.get("SubnetId")
    zone = backend.get_subnet(subnet).availability_zone if subnet else (params.get("Placement") or {}).get("AvailabilityZone")
    strategy = placement_groups(backend)[group].strategy if group else None
    refuse_if(strategy == "cluster" and living and zone and zone not in living, "InvalidPlacementGroup.InUse",
              f"The placement group '{group}' is in use in another availability zone.")


def choose_subnet(params, backend, cards):
    """The default subnet; without one moto makes up addresses that are in none."""
    zone, subnets = (params.get("Placement") or {}).get("AvailabilityZone"), backend.get_default_subnets()
    subnet = subnets.get(zone) if zone else subnets[min(subnets)] if subnets else None
    if subnet and cards:
        cards[0]["SubnetId"] = subnet.id
    elif subnet:
        params["SubnetId"] = subnet.id


def complete_launch(params, backend, reservation):
    """What moto leaves out of the instances it made."""
    cards = {int(c.get("DeviceIndex", 0)): c for c in params.get("NetworkInterfaces", [])}
    card_tags = {t["Key"]: t["Value"] for spec in params.get("TagSpecifications", [])
                 if spec["ResourceType"] == "network-interface" for t in spec["Tags"]}
    profile = params.get("IamInstanceProfile") or {}
    for index, instance in enumerate(reservation.instances):
        instance.placement.group_name = (params.get("Placement") or {}).get("GroupName", "")
        instance.placement.tenancy = (params.get("Placement") or {}).get("Tenancy", "default")
        if "HttpEndpoint" not in (params.get("MetadataOptions") or {}) and (STATE / "metadata-off").exists():
            instance.metadata_options.http_endpoint = "disabled"
        instance.disable_api_termination = bool(params.get("DisableApiTermination"))
        for place, card in instance.nics.items():
            asked = cards.get(place, {})
            if place == 0 and "NetworkInterfaceId" not in asked and "DeleteOnTermination" not in asked:
                card.delete_on_termination = True
            card.add_tags(card_tags)
        if not instance.security_groups and 0 in instance.nics:
            instance.security_groups = list(instance.nics[0]._group_set)
        if profile and index:                       # moto gives it to the first only
            backend.associate_iam_instance_profile(instance.id, iam_instance_profile_name=profile.get("Name"),
                                                   iam_instance_profile_arn=profile.get("Arn"))


def parse_block_device_mapping(self):
    """Block devices: the root is always there, DeleteOnTermination defaults to true, ephemeral ones are passed over."""
    backend, mappings = self.ec2_backend, []
    image = backend.amis.get(self.params.get("ImageId"))
    root = image.root_device_name if image else "/dev/sda1"
    for asked in self.params.get("BlockDeviceMappings", []):
        disk = {"DeleteOnTermination": True, "Encrypted": False, **asked.get("Ebs", {})}
        if asked["DeviceName"] == root and not disk.get("SnapshotId"):
            disk.setdefault("VolumeSize", ROOT_GIB)
        no_device = asked.get("NoDevice")
        if no_device is None and not asked.get("VirtualName"):
            refuse_if(not disk.get("VolumeSize") and not disk.get("SnapshotId"), "MissingParameter",
                      "The request must contain the parameter size or snapshotId")
        if not asked.get("VirtualName"):
            mappings.append({"DeviceName": asked["DeviceName"], "NoDevice": no_device, "Ebs": disk})
    if not self.params.get("LaunchTemplate") and root not in [m["DeviceName"] for m in mappings]:
        mappings.insert(0, {"DeviceName": root, "Ebs": {"VolumeSize": ROOT_GIB, "VolumeType": "gp3",
                                                        "DeleteOnTermination": True}})
    backend.lab_disks = {m["DeviceName"]: m["Ebs"] for m in mappings}       # for add_block_device, under LAUNCHING
    return mappings


def add_block_device(self, size, device_path, snapshot_id, encrypted, delete_on_termination, kms_key_id, volume_type):
    """Block devices: Iops and Throughput are kept."""
    more = getattr(self.ec2_backend, "lab_disks", {}).get(device_path, {})
    volume = self.ec2_backend.create_volume(
        size=size, zone_name=self.placement.zone, snapshot_id=snapshot_id, encrypted=encrypted, kms_key_id=kms_key_id,
        volume_type=volume_type, iops=more.get("Iops"), throughput=more.get("Throughput"))
    self.ec2_backend.attach_volume(volume.id, self.id, device_path, delete_on_termination)


EC2Response.run_instances = run_instances
EC2Response._parse_block_device_mapping = parse_block_device_mapping
Instance.add_block_device = add_block_device
Ami.block_device_mappings = property(lambda self: [{"DeviceName": self.root_device_name, "Ebs": {
    "SnapshotId": self.ebs_snapshot.id, "VolumeSize": ROOT_GIB, "DeleteOnTermination": True, "VolumeType": "gp3"}}])


filter_dict_attribute_mapping.update({"client-token": "client_token", "instance-lifecycle": "lifecycle",
                                      "placement-group-name": "placement.group_name"})


# ---- states ----------------------------------------------------------------------------------------------------------

class VisibleState(InstanceState):
    """A state as the API shows it: for DELAY seconds after a change, the one on the way there."""
    ON_THE_WAY = {"running": ("pending", 0), "stopped": ("stopping", 64), "terminated": ("shutting-down", 32)}

    def __init__(self):
        self.real, self.real_code, self.since = "running", 16, time.monotonic()

    def changing(self):
        return time.monotonic() < self.since + DELAY

    @property
    def name(self):
        return self.ON_THE_WAY[self.real][0] if self.changing() else self.real

    @name.setter
    def name(self, value):
        if value != self.real:
            self.real, self.since = value, time.monotonic()

    @property
    def code(self):
        return self.ON_THE_WAY[self.real][1] if self.changing() else self.real_code

    @code.setter
    def code(self, value):
        self.real_code = value


plain_init, plain_terminate = Instance.__init__, Instance.terminate


def init(self, *args, **kwargs):
    plain_init(self, *args, **kwargs)
    self._state = VisibleState()


def terminate(self):
    return copy.copy(self._state) if self._state.real == "terminated" else plain_terminate(self)


def only_from(states, plain, already=None):
    """An operation that is legal in some states; in the state it leads to it does nothing."""
    def operation(self, instance_ids):
        instances = self.get_multi_instances_by_id(instance_ids)
        for instance in instances:
            refuse_if(instance._state.name not in states, "IncorrectInstanceState", f"The instance '{instance.id}' is not "
                      f"in a state from which it can be so changed: it is {instance._state.name}.")
        todo = [instance for instance in instances if not already or instance._state.real != already]
        idle = [(instance, copy.copy(instance._state)) for instance in instances if instance not in todo]
        return idle + plain(self, [instance.id for instance in todo]) if todo else idle
    return operation


plain_start = Instance.start


def start(self):
    self.launch_time = utcnow()
    return plain_start(self)


def check(self, which):
    """A status check: for a while after the start `initializing`, then `ok`, or `impaired` where the lab says so."""
    if self._state.name != "running":
        return {"Status": "not-applicable"}
    if time.monotonic() < self._state.since + DELAY + CHECKS:
        status, detail = "initializing", "initializing"
    else:
        bad = which == "instance" and (STATE / "impaired" / self.id).exists()
        status, detail = ("impaired", "failed") if bad else ("ok", "passed")
    return {"Status": status, "Details": [{"Name": "reachability", "Status": detail}]}


Instance.instance_status = property(lambda self: check(self, "instance"))
Instance.system_status = property(lambda self: check(self, "system"))
Instance.__init__, Instance.terminate, Instance.start = init, terminate, start
InstanceBackend.start_instances = only_from(("stopped", "pending", "running"), InstanceBackend.start_instances, "running")
InstanceBackend.stop_instances = only_from(("pending", "running", "stopping", "stopped"), InstanceBackend.stop_instances,
                                           "stopped")
InstanceBackend.reboot_instances = only_from(("pending", "running"), InstanceBackend.reboot_instances)

# ---- security groups -------------------------------------------------------------------------------------------------

plain_delete_group = SecurityGroupBackend.delete_security_group


def delete_security_group(self, name=None, group_id=None):
    """DeleteSecurityGroup: refused while an instance, an interface or a rule of another group needs it."""
    group = self.get_security_group_from_id(group_id) if group_id else name and self.get_security_group_by_name_or_id(name)
    if group:
        refuse_if(group.name == "default", "CannotDelete", "the specified group: \"" + group.id + "\" name: \"default\" "
                  "cannot be deleted by a user")
        instances = [i for i in self.all_instances() if i._state.name != "terminated"]
        cards = [*self.enis.values(), *(card for i in instances for card in i.nics.values())]
        others = [g for groups in self.groups.values() for g in groups.values() if g.id != group.id]
        used = (any(group in i.security_groups for i in instances)
                or any(group in card.group_set for card in cards if not card.instance or card.instance in instances)
                or any(group.id in str(source) for g in others for rule in (*g.ingress_rules, *g.egress_rules)
                       for source in (rule.source_group,)))
        refuse_if(used, "DependencyViolation", f"resource {group.id} has a dependent object")
    return plain_delete_group(self, name, group_id)


SecurityGroupBackend.delete_security_group = delete_security_group
plain_create_group = SecurityGroupBackend.create_security_group


def create_security_group(self, name, description, vpc_id=None, *args, **kwargs):
    """CreateSecurityGroup: a name in other letters, capital or small, is the same name."""
    vpc = vpc_id or self.get_default_vpc().id
    twins = [g for g in self.groups[vpc].values() if g.name.lower() == str(name).lower()]
    refuse_if(twins and not kwargs.get("force"), "InvalidGroup.Duplicate", f"The security group '{name}' already exists for VPC '{vpc}'")
    return plain_create_group(self, name, description, vpc_id, *args, **kwargs)


SecurityGroupBackend.create_security_group = create_security_group

# ---- volumes ---------------------------------------------------------------------------------------------------------

plain_detach = EBSBackend.detach_volume


def detach_volume(self, volume_id, instance_id, device_path):
    """DetachVolume: the volume alone is enough."""
    attachment = self.get_volume(volume_id).attachment
    refuse_if(not attachment, "IncorrectState", f"Volume '{volume_id}' is in the 'available' state.")
    return plain_detach(self, volume_id, instance_id or attachment.instance.id, device_path)


EBSBackend.detach_volume = detach_volume

# ---- placement groups ------------------------------------------------------------------------------------------------


class PlacementGroup(TaggedEC2Resource):
    __module__ = "moto.ec2.models.placement_groups"     # moto files its objects by service

    def __init__(self, backend, name, strategy):
        self.ec2_backend, self.name, self.strategy = backend, name, strategy
        self.id = "pg-" + os.urandom(8).hex() + "0"

    def shown(self):
        return {"GroupName": self.name, "GroupId": self.id, "Strategy": self.strategy, "State": "available",
                "GroupArn": f"arn:aws:ec2:{self.ec2_backend.region_name}:{self.ec2_backend.account_id}"
                            f":placement-group/{self.name}",
                "Tags": [{"Key": t["key"], "Value": t["value"]} for t in self.get_tags()]}


def placement_groups(backend):
    return backend.__dict__.setdefault("lab_placement_groups", {})


def create_placement_group(self):
    self.error_on_dryrun()
    groups, name = placement_groups(self.ec2_backend), self.params.get("GroupName")
    refuse_if(name in groups, "InvalidPlacementGroup.Duplicate", f"The Placement Group '{name}' already exists.")
    groups[name] = PlacementGroup(self.ec2_backend, name, self.params.get("Strategy", "cluster"))
    groups[name].add_tags(self._parse_tag_specification().get("placement-group", {}))
    return ActionResult({"PlacementGroup": groups[name].shown()})


def describe_placement_groups(self):
    groups = placement_groups(self.ec2_backend)
    names, ids = self.params.get("GroupNames", []), self.params.get("GroupIds", [])
    for name in names:
        refuse_if(name not in groups, "InvalidPlacementGroup.Unknown", f"The Placement Group '{name}' is unknown.")
    found = [g for g in groups.values() if (not names or g.name in names) and (not ids or g.id in ids)]
    for key, values in self._filters_from_querystring().items():
        wanted = {"group-name": lambda g: g.name, "strategy": lambda g: g.strategy, "state": lambda g: "available"}.get(
            key, lambda g: g.get_filter_value(key))
        listed = lambda value: value if isinstance(value, list) else [value]    # `tag-key` is a list
        found = [g for g in found if set(listed(wanted(g))) & set(values)]
    return ActionResult({"PlacementGroups": [g.shown() for g in found]})


def delete_placement_group(self):
    self.error_on_dryrun()
    groups, name = placement_groups(self.ec2_backend), self.params.get("GroupName")
    refuse_if(name not in groups, "InvalidPlacementGroup.Unknown", f"The Placement Group '{name}' is unknown.")
    refuse_if(any(i.placement.group_name == name and i._state.name != "terminated"
                  for i in self.ec2_backend.all_instances()), "InvalidPlacementGroup.InUse",
              f"The placement group '{name}' is in use and may not be deleted.")
    del groups[name]
    return EmptyResult()


EC2Response.create_placement_group = create_placement_group
EC2Response.describe_placement_groups = describe_placement_groups
EC2Response.delete_placement_group = delete_placement_group

# ---- SSM: Debian's public parameters ---------------------------------------------------------------------------------

plain_check = ParameterDict._check_loading_status


def check_loading_status(self, key):
    """GetParameter /aws/service/debian/release/12/latest/amd64 and so on: the newest images of amis.json."""
    plain_check(self, key)
    if str(key or "").startswith("/aws/service/debian") and not getattr(self, "lab_loaded", False):
        self.lab_loaded = True
        with open(os.environ["MOTO_AMIS_PATH"], encoding="utf-8") as file:
            newest = {tuple(ami["name"].split("-")[1:3]): ami["ami_id"]
                      for ami in sorted(json.load(file), key=lambda ami: ami["creation_date"])}
        for (release, architecture), ami_id in newest.items():
            name = f"/aws/service/debian/release/{release}/latest/{architecture}"
            dict.setdefault(self, name, []).append(Parameter(
                account_id=self.account_id, name=name, value=ami_id, parameter_type="String", description=None,
                allowed_pattern=None, keyid=None, last_modified_date=utcnow(), version=1, data_type="text"))


ParameterDict._check_loading_status = check_loading_status

# ---- what the lab asks for ---------------------------------------------------------------------------------------------


def reap(backend, instance_id):
    """An instance is forgotten, tags and all."""
    for key, reservation in list(backend.reservations.items()):
        reservation.instances = [i for i in reservation.instances if i.id != instance_id]
        if not reservation.instances:
            del backend.reservations[key]
    backend.tags.pop(instance_id, None)


def age(backend, instance_id, seconds):
    instance = backend.get_instance(instance_id)
    instance.launch_time -= datetime.timedelta(seconds=float(seconds))


def obey():
    """Does what files in STATE/reap say, `reap_ID` or `age_ID_SECONDS`, and takes them away."""
    backend = ec2_backends[moto_iam.ACCOUNT][moto_iam.REGION]
    while True:
        for path in (STATE / "reap").glob("*_*"):
            verb, *words = path.name.split("_")
            {"reap": reap, "age": age}[verb](backend, *words)
            path.unlink()
        time.sleep(0.05)


if __name__ == "__main__":
    threading.Thread(target=obey, daemon=True).start()
    from moto.server import main
    main()
