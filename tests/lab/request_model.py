"""Whether a request is one that EC2's own model describes: names, required members, enums, lengths, ranges, patterns.

moto reads what it knows of a request and passes over the rest, so a misspelt parameter works here and nowhere else. The
model is botocore's, which AWS makes from the API. Pure but for reading it; used by front.py, which checks every form of
request that it sees for the first time. `python3 request_model.py FILE` checks a recording, one JSON object a line:
{"action": ..., "form": {...}}."""
import base64
import binascii
import json
import re
import sys
from functools import cache

from botocore import loaders
from botocore.model import ServiceModel

PROTOCOL = ("Action", "Version")
VERSION = "2016-11-15"                  # of EC2's API: each request says it
NUMBERS = {"integer": (-2 ** 31, 2 ** 31 - 1), "long": (-2 ** 63, 2 ** 63 - 1)}


@cache
def service():
    return ServiceModel(loaders.Loader().load_service_model("ec2", "service-2"), "ec2")


def signature(action, form):
    """What makes two requests the same form: the action and its parameters' names, whatever their number."""
    return action, tuple(sorted({re.sub(r"\.\d+", ".N", name) for name in form}))


def check(action, form):
    """What is wrong with a request; an empty list when nothing is."""
    if action not in service().operation_names:
        return [f"{action}: there is no such operation"]
    tree = {}
    for name, value in form.items():
        if name in PROTOCOL:
            continue
        place = tree
        for part in name.split("."):
            if not isinstance(place, dict):
                return [f"{action}: {name} is both a value and more"]
            last, place = place, place.setdefault(part, {})
        last[part] = value
    shape = service().operation_model(action).input_shape
    return [f"{action}: {text}" for text in structure(shape, tree, "")] if shape else [f"{action}: {n} is too much" for n in tree]


def query_name(member, shape):
    """As the EC2 protocol writes a member (botocore's serializer): queryName, else the name with a capital letter."""
    names = shape.serialization
    if "queryName" in names:
        return names["queryName"]
    return names["name"][:1].upper() + names["name"][1:] if "name" in names else member


def structure(shape, tree, path):
    if not isinstance(tree, dict):
        yield f"{path} is {tree!r}, not a structure"
        return
    members = {query_name(member, of): (member, of) for member, of in shape.members.items()}
    for name, value in tree.items():
        if name in members:
            yield from value_of(members[name][1], value, f"{path}.{name}".lstrip("."))
        else:
            yield f"{path}.{name}".lstrip(".") + " is not in the model"
    for name, (member, _) in members.items():
        if member in shape.required_members and name not in tree:
            yield f"{path}.{name}".lstrip(".") + " is missing"


def value_of(shape, value, path):
    if shape.type_name == "structure":
        yield from structure(shape, value, path)
    elif shape.type_name == "list":
        yield from list_of(shape, value, path)
    elif isinstance(value, dict):
        yield f"{path} is a structure, not a {shape.type_name}"
    else:
        yield from plain(shape, value, path)


def list_of(shape, tree, path):
    if not isinstance(tree, dict) or sorted(tree) != sorted(str(n) for n in range(1, len(tree) + 1)):
        yield f"{path} is not numbered from 1 on"
        return
    limits = shape.metadata
    if not limits.get("min", 0) <= len(tree) <= limits.get("max", len(tree)):
        yield f"{path} has {len(tree)} members"
    for index, value in tree.items():
        yield from value_of(shape.member, value, f"{path}.{index}")


def plain(shape, value, path):
    limits, kind = shape.metadata, shape.type_name
    size = len(value)
    if kind in NUMBERS:
        if not re.fullmatch(r"-?\d+", value):
            yield f"{path} is {value!r}, not a number"
            return
        size, (low, high) = int(value), NUMBERS[kind]
        if not low <= size <= high:
            yield f"{path} is {value}, out of range"
    elif kind == "boolean" and value not in ("true", "false"):
        yield f"{path} is {value!r}, not true or false"
    elif kind == "blob":
        try:
            base64.b64decode(value, validate=True)
        except binascii.Error:
            yield f"{path} is not base64"
    if kind != "blob" and not limits.get("min", size) <= size <= limits.get("max", size):
        yield f"{path} is {value!r}, out of {limits.get('min', '')}..{limits.get('max', '')}"
    if kind == "string" and limits.get("enum") and value not in limits["enum"]:
        yield f"{path} is {value!r}, which is none of the model's values"
    if kind == "string" and limits.get("pattern") and not re.search(limits["pattern"], value):
        yield f"{path} is {value!r}, which does not match {limits['pattern']}"


if __name__ == "__main__":
    wrong = [text for line in open(sys.argv[1], encoding="utf-8") for call in [json.loads(line)]
             for text in check(call["action"], call["form"])]
    print("\n".join(wrong))
    sys.exit(bool(wrong))
