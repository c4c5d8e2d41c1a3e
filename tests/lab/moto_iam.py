"""The part of moto_plus.py that decides who may do what: moto 5.2.5 asks for one permission on the resource `*` and takes
every condition that it can't look up for a denial, so a policy with resources or conditions could not be tried on it.

This follows the evaluation of AWS: a call is a list of (action, resource, context), each of which some statement has to
allow and none may deny. Contexts hold what EC2's service authorization reference gives for the call: aws:RequestTag,
aws:ResourceTag, aws:TagKeys, ec2:CreateAction, ec2:InstanceProfile, iam:PassedToService. A condition key that has no value
here does not match (unless its operator ends in IfExists), as on AWS. Only identity policies, only what calls of a master to
EC2, SSM, IAM, S3 and KMS need. Imported by moto_plus.py."""
import fnmatch
import html
import ipaddress
import json

from faults import error_page
from moto.core.exceptions import JsonRESTError
from moto.ec2.models import ec2_backends
from moto.iam import access_control
from moto.iam.models import iam_backends
from moto.kms.models import kms_backends

ACCOUNT, REGION = "123456789012", "us-east-1"
KINDS = {"i": "instance", "vol": "volume", "eni": "network-interface", "sg": "security-group", "subnet": "subnet",
         "eipalloc": "elastic-ip", "pg": "placement-group", "snap": "snapshot", "ami": "image", "sgr": "security-group-rule"}
# What a call makes, by what RunInstances and its like name in TagSpecification.
MADE_BY = {"RunInstances": ("instance", "volume", "network-interface"), "CreateSecurityGroup": ("security-group",),
           "AllocateAddress": ("elastic-ip",), "CreatePlacementGroup": ("placement-group",), "CreateVolume": ("volume",),
           "CreateSnapshot": ("snapshot",), "AuthorizeSecurityGroupIngress": (), "AuthorizeSecurityGroupEgress": ()}
NETWORK = ("CreateSecurityGroup",)              # these name their VPC as a resource too


class NotAllowed(JsonRESTError):
    """403 as each service words it: EC2 and S3 in their own XML, the others in JSON."""
    code = 403

    def __init__(self, service, user, action):
        text = f"User: {user} is not authorized to perform: {action}"
        super().__init__("AccessDeniedException", text)
        if service == "ec2":
            self.error_type, self.content_type = "UnauthorizedOperation", "text/xml"
            self.description = error_page("UnauthorizedOperation", f"You are not authorized to perform this operation. {text}").decode()
        if service == "s3":
            self.error_type, self.content_type = "AccessDenied", "text/xml"
            self.description = f"<?xml version='1.0' encoding='UTF-8'?><Error><Code>AccessDenied</Code><Message>{html.escape(text)}</Message></Error>"


def arn(kind, name="*"):
    account = "" if kind in ("image", "snapshot") else ACCOUNT
    return f"arn:aws:ec2:{REGION}:{account}:{kind}/{name}"


def numbered(data, name):
    """The values of `Name.1`, `Name.2`, ... of a query, whatever comes behind the number."""
    return [value for key, value in data.items() if key.split(".")[0] == name and key.split(".")[-1].isdigit()]


def request_tags(data):
    """Tags to be given, by kind; those of CreateTags under None."""
    found = {}
    for key, value in data.items():
        parts = key.split(".")
        if parts[0] == "TagSpecification" and parts[-1] == "Key":
            kind = data.get(f"TagSpecification.{parts[1]}.ResourceType")
            found.setdefault(kind, {})[value] = data.get(".".join([*parts[:-1], "Value"]), "")
        elif parts[0] == "Tag" and parts[-1] == "Key":
            found.setdefault(None, {})[value] = data.get(f"Tag.{parts[1]}.Value", "")
    return found


def tagging(tags):
    return {**{f"aws:requesttag/{key}": [value] for key, value in tags.items()}, "aws:tagkeys": list(tags)}


def existing(resource_id, backend):
    """An EC2 resource that a call names: its ARN and context."""
    prefix = resource_id.rsplit("-", 1)[0]
    tags = backend.tags.get(resource_id, {})
    return arn(KINDS.get(prefix, prefix), resource_id), {f"aws:resourcetag/{key}": [value] for key, value in tags.items()}


def named(action, data, backend):
    """Every existing EC2 resource in a call's parameters, with placement groups and key pairs by name. The groups in a
    group's rules are none: only the group that has the rules is."""
    if action.endswith(("SecurityGroupIngress", "SecurityGroupEgress")):
        data = {key: value for key, value in data.items() if key == "GroupId"}
    found = [existing(value, backend) for value in data.values() if value.rsplit("-", 1)[0] in KINDS and value.count("-") == 1]
    found += [existing(address.allocation_id, backend) for address in backend.addresses
              if address.association_id and address.association_id == data.get("AssociationId")]
    groups = backend.__dict__.get("lab_placement_groups", {})
    name = data.get("Placement.GroupName") or data.get("GroupName")
    if name in groups:
        found.append((arn("placement-group", name), existing(groups[name].id, backend)[1]))
    if data.get("KeyName"):
        found.append((arn("key-pair", data["KeyName"]), {}))
    return found


def asked(action, data, backend):
    """What a call of EC2 needs to be allowed: (action, resource, context)."""
    if action.startswith("Describe"):
        return [(f"ec2:{action}", "*", {})]
    tags, needs = request_tags(data), []
    if action in ("CreateTags", "DeleteTags"):
        return [(f"ec2:{action}", *resource_with(existing(value, backend), tagging(tags.get(None, {}))))
                for value in numbered(data, "ResourceId")]
    for kind in MADE_BY.get(action, ()):
        needs.append((f"ec2:{action}", arn(kind), tagging(tags.get(kind, {}))))
    for name, context in named(action, data, backend):
        needs.append((f"ec2:{action}", name, context))
    if action == "RunInstances" and not any(":subnet/" in name for _, name, _ in needs):
        needs.append((f"ec2:{action}", arn("subnet"), {}))
    if action in NETWORK:
        needs.append((f"ec2:{action}", arn("vpc", data.get("VpcId", "*")), {}))
    for kind, given in tags.items():
        needs.append(("ec2:CreateTags", arn(kind), {**tagging(given), "ec2:createaction": [action]}))
    profile = data.get("IamInstanceProfile.Name") or data.get("IamInstanceProfile.Arn", "").rsplit("/", 1)[-1]
    for role in roles_of(profile) if profile else ():
        needs.append(("iam:PassRole", role, {"iam:passedtoservice": ["ec2.amazonaws.com"]}))
    return needs or [(f"ec2:{action}", "*", {})]


def resource_with(resource, more):
    name, context = resource
    return name, {**context, **more}


def roles_of(profile):
    profiles = iam_backends[ACCOUNT]["aws"].instance_profiles.values()
    return [role.arn for p in profiles if p.name == profile for role in p.roles]


# ---- policies --------------------------------------------------------------------------------------------------------

def many(value):
    return value if isinstance(value, list) else [value]


def like(patterns, text, fold=False):
    pairs = [(str(p).replace("[", "[[]"), text) for p in many(patterns)]
    return any(fnmatch.fnmatchcase(t.lower() if fold else t, p.lower() if fold else p) for p, t in pairs)


def holds(operator, wanted, values):
    """One condition key: `values` is None when the call has no such key."""
    name, _, quantifier = operator.rpartition(":")[2], None, operator.partition(":")[0] if ":" in operator else ""
    optional = name.endswith("IfExists")
    name = name.removesuffix("IfExists")
    wanted = [str(w).lower() if isinstance(w, bool) else str(w) for w in many(wanted)]
    if name == "Null":
        return (values is None) == (wanted[0] == "true")
    if values is None:
        return optional or quantifier == "ForAllValues" or name.startswith(("StringNot", "ArnNot"))
    test = {"StringEquals": lambda v: v in wanted, "StringLike": lambda v: like(wanted, v), "ArnLike": lambda v: like(wanted, v),
            "ArnEquals": lambda v: like(wanted, v), "StringNotEquals": lambda v: v not in wanted,
            "StringNotLike": lambda v: not like(wanted, v), "Bool": lambda v: v.lower() in wanted,
            "StringEqualsIgnoreCase": lambda v: v.lower() in [w.lower() for w in wanted],
            "IpAddress": lambda v: any(ipaddress.ip_address(v) in ipaddress.ip_network(w) for w in wanted)}[name]
    return all(map(test, values)) if quantifier == "ForAllValues" or "Not" in name else any(map(test, values))


def applies(statement, action, resource, context):
    if not (like(statement["Action"], action, fold=True) if "Action" in statement else not like(statement["NotAction"], action, fold=True)):
        return False
    if not (like(statement["Resource"], resource) if "Resource" in statement else not like(statement["NotResource"], resource)):
        return False
    return all(holds(operator, wanted, context.get(key.lower() if key.lower() in context else key_of(key)))
               for operator, keys in statement.get("Condition", {}).items() for key, wanted in keys.items())


def key_of(key):
    """Names of condition keys don't mind case; a tag's own key behind the slash does."""
    prefix, slash, tag = key.partition("/")
    return prefix.lower() + slash + tag


def allows(documents, action, resource, context):
    statements = [s for document in documents for s in many(document["Statement"])]
    effects = {s["Effect"] for s in statements if applies(s, action, resource, context)}
    return "Allow" in effects and "Deny" not in effects


def check_action_permitted(self, resource):
    """In place of moto's: every part of the call has to be allowed."""
    if self._action == "sts:GetCallerIdentity":
        return
    documents = [json.loads(p if isinstance(p, str) else p["policy_document"] if isinstance(p, dict) else p.document)
                 for p in map(plain_policy, self._access_key.collect_policies())]
    service, action = self._action.split(":", 1)
    if service == "ec2":
        data = {key: value[0] if isinstance(value, list) else value for key, value in self._data.items()}
        needs = asked(action, data, ec2_backends[ACCOUNT][REGION])
    elif service == "ssm":
        needs = [(self._action, f"arn:aws:ssm:{REGION}:{account}:parameter{name}", {}) for name, account in parameters(self._body)]
    elif service == "kms":
        body, keys = json.loads(self._body or "{}"), kms_backends[ACCOUNT][REGION]
        given = body.get("EncryptionContext", {})
        key = keys.keys.get(keys.any_id_to_key_id(body["KeyId"])) if "KeyId" in body else None
        needs = [(self._action, key.arn if key else "*", {f"kms:encryptioncontext:{name}": [value] for name, value in given.items()})]
    elif service == "s3":
        prefix = self._data.get("prefix")
        needs = [(self._action, resource, {} if prefix is None else {"s3:prefix": many(prefix)})]
    else:
        needs = [(self._action, resource, {})]
    for name, what, context in needs:
        if not allows(documents, name, what, context):
            raise NotAllowed(service, self._access_key.arn, f"{name} on resource: {what}")


def parameters(body):
    """Names of SSM parameters, with the account in their ARN: AWS's own public ones have none."""
    asked_for = json.loads(body or "{}")
    names = [asked_for["Name"]] if "Name" in asked_for else asked_for.get("Names", [asked_for.get("Path", "/*")])
    return [(name, "" if name.startswith("/aws/service/") else ACCOUNT) for name in names]


def plain_policy(policy):
    """Moto's collect_policies gives inline policies as dicts or text, managed ones as objects."""
    versions = getattr(policy, "versions", None)
    return next(v.document for v in versions if v.is_default) if versions else policy


# In the class that all services share: S3 has one of its own beside IAMRequest.
access_control.IAMRequestBase.check_action_permitted = check_action_permitted
# moto signs its own rendering of the form again, which differs from what came as soon as there is a blank in it.
access_control.IAMRequest.check_signature = lambda self: None
