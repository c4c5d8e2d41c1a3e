"""What goes wrong at the API on demand: which of the rules applies to a call, and what it does to the answer.

Pure but for its counters: no sockets, no clock of its own. A rule with a probability decides by its seed, the action and
how many calls of that action it has seen: the same calls, in whatever order they are interleaved with others, fail again
in the same places. Used by front.py; the rules come from `lab.py fault`."""
import html
import json
import random
import re
import uuid
import xml.etree.ElementTree as ElementTree
from collections import Counter

# As EC2 sends them; 400 for the others. No capacity is a server error there, which SDKs take for one that passes.
STATUS = {"RequestLimitExceeded": 503, "Throttling": 503, "ThrottlingException": 400, "InternalError": 500,
          "InternalFailure": 500, "Unavailable": 503, "ServiceUnavailable": 503, "InsufficientInstanceCapacity": 500,
          "InsufficientHostCapacity": 500, "InsufficientAddressCapacity": 500, "InsufficientVolumeCapacity": 500,
          "UnauthorizedOperation": 403}


def error_page(code, message, json_protocol=False):
    if json_protocol:
        return json.dumps({"__type": code, "message": message}).encode()
    return (f"<?xml version='1.0' encoding='UTF-8'?><Response><Errors><Error><Code>{code}</Code><Message>"
            f"{html.escape(message)}</Message></Error></Errors><RequestID>{uuid.uuid4()}</RequestID></Response>").encode()


def matches(when, form, zone_of):
    """Whether a call's parameters are as a rule wants them. `type`, `subnet` and `zone` look wherever EC2 takes those;
    `dry` is yes or no."""
    subnets = {value for key, value in form.items() if re.fullmatch(r"(NetworkInterface\.\d+\.)?SubnetId", key)}
    places = {"type": {form.get("InstanceType")}, "subnet": subnets, "dry": {"yes" if form.get("DryRun") == "true" else "no"},
              "zone": {form.get("Placement.AvailabilityZone"), *map(zone_of, subnets)}}
    return all(value in places.get(key, {form.get(key)}) for key, value in when.items())


class Faults:
    """The rules, in the order they came; one call suffers from one of them at most, but for what is forgotten."""

    def __init__(self):
        self.rules = []

    def add(self, **rule):
        rule["status"] = rule["status"] or STATUS.get(rule["code"], 400)
        rule["left"] = rule.pop("count") or (None if rule["probability"] < 1 else 1)
        rule["seen"] = Counter()
        self.rules.append(rule)

    def clear(self, key=None):
        self.rules = [rule for rule in self.rules if key and rule["key"] != key]

    def take(self, action, form, key, zone_of):
        """The rule that this call suffers from, or None."""
        for rule in self.rules:
            if rule["action"] not in (action, "*") or rule["key"] not in (None, key) or not matches(rule["when"], form, zone_of):
                continue
            if rule["action"] == "RunInstances" and form.get("DryRun") == "true" and not {"DryRun", "dry"} & set(rule["when"]):
                continue                            # a fault of RunInstances is meant for the call that counts
            rule["seen"][action] += 1
            draw = random.Random(f"{rule['seed']} {action} {rule['seen'][action]}").random()
            if draw >= rule["probability"]:
                continue
            if rule["left"] is not None:
                rule["left"] -= 1
                self.rules = [other for other in self.rules if other["left"] != 0]
            return rule
        return None


# What a call that makes something says of it, and how EC2 says that it does not know it (yet).
MADE = {"CreateSecurityGroup": r"<groupId>(sg-\w+)", "AllocateAddress": r"<allocationId>(eipalloc-\w+)",
        "RunInstances": r"<instanceId>(i-\w+)"}
UNKNOWN = {"sg": "InvalidGroup.NotFound", "eipalloc": "InvalidAllocationID.NotFound", "i": "InvalidInstanceID.NotFound"}


class Lateness:
    """New things that the calls which use them do not know for a while. Listings show them at once: that is `forget`'s."""

    def __init__(self):
        self.seconds, self.known_at = 0.0, {}

    def made(self, action, form, answer, now):
        """A call has worked: what it made is late, if anything is."""
        if not self.seconds:
            return
        names = re.findall(MADE[action], answer.decode(errors="replace")) if action in MADE else []
        names += [form.get("GroupName")] if action == "CreatePlacementGroup" else []
        self.known_at.update({name: now + self.seconds for name in names})

    def refusal(self, action, form, now):
        """Code and message, if a call names something that is not known yet."""
        if action.startswith(("Describe", "Get", "Create")) and action != "CreateTags":
            return None
        late = {name for name, at in self.known_at.items() if now < at}
        for key, value in form.items():
            if value in late:
                kind = value.rsplit("-", 1)[0]
                code = "InvalidPlacementGroup.Unknown" if key.endswith("GroupName") else UNKNOWN.get(kind, "InvalidID")
                return code, f"'{value}' does not exist"
        return None


class Forgetting:
    """DescribeInstances that leaves instances out for a while: those named, and a share of those it meets."""

    def __init__(self):
        self.until, self.share, self.met = {}, [], set()

    def name(self, instance_id, seconds, now):
        self.until[instance_id] = now + seconds

    def some(self, probability, seconds, seed, key):
        self.share.append({"probability": probability, "seconds": seconds, "seed": seed, "key": key, "met": 0})

    def clear(self, key=None):
        self.share = [rule for rule in self.share if key and rule["key"] != key]
        if not key:
            self.until = {}

    def meet(self, ids, key, now):
        """Instances that a caller is about to be shown; each is decided about once."""
        for instance_id in ids:
            if instance_id in self.met:
                continue
            for rule in [rule for rule in self.share if rule["key"] in (None, key)]:
                self.met.add(instance_id)
                rule["met"] += 1
                if random.Random(f"{rule['seed']} {rule['met']}").random() < rule["probability"]:
                    self.until[instance_id] = now + rule["seconds"]

    def gone(self, now):
        return {instance_id for instance_id, until in self.until.items() if now < until}

    def describe(self, form, answer, key, now):
        """The answer of DescribeInstances without what is forgotten: status and text."""
        if not self.until and not self.share:
            return 200, answer
        page = ElementTree.fromstring(answer)
        space = page.tag.partition("}")[0] + "}"
        if space != "{}" and space[1:-1]:
            ElementTree.register_namespace("", space[1:-1])
        sets = page.iter(f"{space}instancesSet")
        items = [(parent, item, item.findtext(f"{space}instanceId")) for parent in sets for item in list(parent)]
        self.meet([instance_id for _, _, instance_id in items], key, now)
        gone = self.gone(now)
        asked = {value for name, value in form.items() if name.startswith("InstanceId.")}
        if asked & gone:
            return 400, error_page("InvalidInstanceID.NotFound", f"The instance IDs '{', '.join(sorted(asked & gone))}' do not exist")
        for parent, item, instance_id in items:
            if instance_id in gone:
                parent.remove(item)
        for reservations in page.iter(f"{space}reservationSet"):
            for item in list(reservations):
                if not len(item.find(f"{space}instancesSet")):
                    reservations.remove(item)
        return 200, ElementTree.tostring(page, encoding="utf-8", xml_declaration=True)
