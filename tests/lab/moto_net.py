"""The part of moto_plus.py that is about addresses, subnets and the rules of security groups: rules of EC2 that moto 5.2.5
leaves out. Imported by it for what it patches; README.md has the table."""
import itertools

from moto.core.responses import ActionResult
from moto.ec2.exceptions import EC2ClientError
from moto.ec2.models.core import TaggedEC2Resource
from moto.ec2.models.elastic_ip_addresses import ElasticAddress, ElasticAddressBackend
from moto.ec2.models.elastic_network_interfaces import NetworkInterface
from moto.ec2.models.instance_types import INSTANCE_TYPE_OFFERINGS
from moto.ec2.models.instances import Instance, InstanceBackend
from moto.ec2.models.subnets import Subnet
from moto.ec2.responses import EC2Response

ELASTIC = (f"3.{a}.{b}.{c}" for a, b, c in itertools.product(range(1, 256), range(256), range(1, 255)))


def refuse_if(condition, code, message):
    if condition:
        raise EC2ClientError(code, message)


# ---- Elastic IPs -----------------------------------------------------------------------------------------------------

plain_address_init = ElasticAddress.__init__
plain_associate, plain_disassociate = ElasticAddressBackend.associate_address, ElasticAddressBackend.disassociate_address
plain_release, plain_stop, plain_terminate = ElasticAddressBackend.release_address, NetworkInterface.stop, Instance.terminate


def address_init(self, ec2_backend, domain, address=None, tags=None):
    """AllocateAddress: an address that looks like a public one, and is given once."""
    plain_address_init(self, ec2_backend, domain, address or next(ELASTIC), tags)


def elastic_of(card):
    """The Elastic IP of a network interface, or None."""
    return next((address for address in card.ec2_backend.addresses if address.eni is card), None)


def associate_address(self, instance=None, eni=None, address=None, allocation_id=None, reassociate=False):
    """AssociateAddress: not to a machine on its way, and not over another association unless asked to."""
    wanted = (self.address_by_ip([address]) if address else self.address_by_allocation([allocation_id]))[0]
    if instance:
        state = instance._state.name
        refuse_if(state not in ("running", "stopped", "stopping"), "InvalidInstanceID",
                  f"The {state} instance '{instance.id}' is not in a valid state for this operation.")
    card = eni or instance.nics[0]
    before = elastic_of(card)
    taken = wanted.eni is not None and wanted.eni is not card
    reassociate = str(reassociate).lower() == "true"
    refuse_if(taken and not reassociate, "Resource.AlreadyAssociated",
              f"resource {wanted.allocation_id} is already associated with associate-id {wanted.association_id}")
    refuse_if(before not in (None, wanted) and not reassociate, "Resource.AlreadyAssociated",
              f"resource {card.id} is already associated with associate-id {before and before.association_id}")
    if before is wanted:
        return wanted
    for old in [wanted] if taken else []:
        plain_disassociate(self, address=old.public_ip)
    if before:
        plain_disassociate(self, address=before.public_ip)
    made = plain_associate(self, instance=instance, eni=eni, address=address, allocation_id=allocation_id, reassociate=True)
    made.instance = instance or card.instance
    return made


def release_address(self, address=None, allocation_id=None):
    """ReleaseAddress: not while it is in use."""
    wanted = (self.address_by_ip([address]) if address else self.address_by_allocation([allocation_id]))[0]
    refuse_if(wanted.eni, "InvalidIPAddress.InUse", f"Address {wanted.public_ip} is in use.")
    plain_release(self, address=address, allocation_id=allocation_id)


def card_stop(self):
    """StopInstances: an Elastic IP stays."""
    if not elastic_of(self):
        plain_stop(self)


def card_start(self):
    """StartInstances: a new public address, unless it has an Elastic IP."""
    if not elastic_of(self):
        self.check_auto_public_ip()


def terminate(self):
    """TerminateInstances: its Elastic IP is free again."""
    for card in list(self.nics.values()):
        for address in [elastic_of(card)]:
            if address:
                plain_disassociate(self.ec2_backend, address=address.public_ip)
    return plain_terminate(self)


ElasticAddress.__init__ = address_init
ElasticAddressBackend.associate_address, ElasticAddressBackend.release_address = associate_address, release_address
NetworkInterface.stop, NetworkInterface.start, Instance.terminate = card_stop, card_start, terminate

# ---- subnets ---------------------------------------------------------------------------------------------------------


# An address that was given back is not given out again: its last owner may still be shutting down.
def del_subnet_ip(self, ip):
    self._subnet_ips.pop(ip, None)


Subnet.del_subnet_ip = del_subnet_ip


def check_subnet(backend, subnet_id, kind, count, group_ids):
    """RunInstances in a subnet: it is there, has addresses left, its zone has the type, the groups are of its network."""
    subnet = backend.get_subnet(subnet_id)
    refuse_if(subnet.available_ip_address_count < count, "InsufficientFreeAddressesInSubnet",
              f"The specified subnet does not have enough free addresses to satisfy the request: {subnet_id}")
    check_zone(backend, subnet.availability_zone, kind)
    for group_id in group_ids:
        group = backend.get_security_group_from_id(group_id)
        refuse_if(not group, "InvalidGroup.NotFound", f"The security group '{group_id}' does not exist")
        refuse_if(group.vpc_id != subnet.vpc_id, "InvalidParameter",
                  f"Security group {group_id} and subnet {subnet_id} belong to different networks.")


def check_zone(backend, zone, kind):
    offered = {o["InstanceType"] for o in INSTANCE_TYPE_OFFERINGS["availability-zone"][backend.region_name] if o["Location"] == zone}
    refuse_if(zone and kind and kind not in offered, "Unsupported", f"Your requested instance type ({kind}) is not supported in "
              f"your requested Availability Zone ({zone}). Please retry your request by not specifying an Availability Zone or "
              "choosing another.")


# ---- security groups' rules ------------------------------------------------------------------------------------------

plain_authorize, plain_revoke = EC2Response.authorize_security_group_ingress, EC2Response.revoke_security_group_ingress


def all_or_nothing(plain):
    """Authorize- and RevokeSecurityGroupIngress: one bad rule, and none is changed."""
    def call(self):
        name = self.params.get("GroupId") or self.params.get("GroupName")
        group = self.ec2_backend.get_security_group_by_name_or_id(name) if name else None
        before = list(group.ingress_rules) if group else []
        try:
            result = plain(self)
        except Exception:
            if group:
                group.ingress_rules = before
            raise
        added = [rule for rule in group.ingress_rules if rule not in before] if group else []
        return ActionResult({**result.result, "SecurityGroupRules": added}) if added else result
    return call


EC2Response.authorize_security_group_ingress = all_or_nothing(plain_authorize)
EC2Response.revoke_security_group_ingress = all_or_nothing(plain_revoke)

# ---- speed: a thousand instances -------------------------------------------------------------------------------------


def get_tags(self):
    """A resource's tags, without a walk through everybody's."""
    return [{"resource_id": self.id, "key": key, "value": value} for key, value in self.ec2_backend.tags.get(self.id, {}).items()]


def get_instance(self, instance_id):
    for reservation in list(self.reservations.values()):
        for instance in reservation.instances:
            if instance.id == instance_id:
                return instance
    return plain_get_instance(self, instance_id)


plain_get_instance = InstanceBackend.get_instance
TaggedEC2Resource.get_tags, InstanceBackend.get_instance = get_tags, get_instance
