"""The instance metadata service, versions 1 and 2, for the machines of the lab.

It knows its caller by source address. The identity documents are signed with a key made for this lab; its certificate is
handed to the tests, who give it to the master in place of AWS's. The message has AWS's form: BER with indefinite lengths,
signed attributes, no certificate inside. Tests may have single machines lied to, see Spoilt. Started by region.py as a
thread."""
import base64
import datetime
import hashlib
import json
import re
import secrets
import textwrap
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa

VERSIONS = ["1.0", "2009-04-04", "2016-09-02", "2018-09-24", "2021-03-23", "latest"]
TOKEN, TOKEN_TTL, LONGEST_TTL = "X-aws-ec2-metadata-token", "X-aws-ec2-metadata-token-ttl-seconds", 21600


def tlv(tag, *parts):
    """A DER value."""
    content = b"".join(parts)
    size = len(content)
    length = bytes([size]) if size < 128 else (lambda n: bytes([0x80 | len(n)]) + n)(size.to_bytes((size.bit_length() + 7) // 8, "big"))
    return bytes([tag]) + length + content


def ber(tag, *parts):
    """A constructed value of indefinite length, as AWS writes the outer ones."""
    return bytes([tag, 0x80]) + b"".join(parts) + b"\0\0"


def oid(text):
    first, second, *rest = map(int, text.split("."))
    octets = [40 * first + second]
    for arc in rest:
        groups = [arc & 0x7F]
        while arc := arc >> 7:
            groups.insert(0, 0x80 | arc & 0x7F)
        octets += groups
    return tlv(6, bytes(octets))


DATA, SIGNED_DATA = oid("1.2.840.113549.1.7.1"), oid("1.2.840.113549.1.7.2")
CONTENT_TYPE, MESSAGE_DIGEST, SIGNING_TIME = (oid(f"1.2.840.113549.1.9.{n}") for n in (3, 4, 5))
SHA256, RSA_SHA256 = (tlv(0x30, oid(name), tlv(5)) for name in ("2.16.840.1.101.3.4.2.1", "1.2.840.113549.1.1.11"))


class Signer:
    """Makes the three signatures that AWS gives with an identity document."""

    def __init__(self, certificate_path):
        name = x509.Name([x509.NameAttribute(x509.NameOID.COUNTRY_NAME, "US"),
                          x509.NameAttribute(x509.NameOID.ORGANIZATION_NAME, "aot test lab")])
        today, day = datetime.datetime.now(datetime.timezone.utc), datetime.timedelta(days=1)
        self.key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        self.certificate = (
            x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(self.key.public_key())
            .serial_number(x509.random_serial_number()).not_valid_before(today - day).not_valid_after(today + 365 * day)
            .sign(self.key, hashes.SHA256()))
        certificate_path.write_bytes(self.certificate.public_bytes(serialization.Encoding.PEM))

    def signature(self, document):
        """`signature`: RSA PKCS #1 v1.5 with SHA-256 over the document's bytes."""
        return fold(self.key.sign(document.encode(), padding.PKCS1v15(), hashes.SHA256()))

    def pkcs7(self, document, key=None):
        """`pkcs7` and `rsa2048`: a PKCS #7 message that holds the document, but not the certificate (RFC 5652)."""
        content, stamp = document.encode(), time.strftime("%y%m%d%H%M%SZ", time.gmtime()).encode()
        attributes = b"".join(tlv(0x30, name, tlv(0x31, value)) for name, value in (
            (CONTENT_TYPE, DATA), (SIGNING_TIME, tlv(0x17, stamp)),
            (MESSAGE_DIGEST, tlv(4, hashlib.sha256(content).digest()))))
        signature = (key or self.key).sign(tlv(0x31, attributes), padding.PKCS1v15(), hashes.SHA256())
        serial = self.certificate.serial_number
        number = tlv(2, serial.to_bytes(serial.bit_length() // 8 + 1, "big"))
        signer = tlv(0x30, tlv(2, b"\1"), tlv(0x30, self.certificate.issuer.public_bytes(), number), SHA256,
                     tlv(0xA0, attributes), RSA_SHA256, tlv(4, signature))
        data = ber(0x30, tlv(2, b"\1"), tlv(0x31, SHA256), ber(0x30, DATA, ber(0xA0, ber(0x24, tlv(4, content)))),
                   tlv(0x31, signer))
        return fold(ber(0x30, SIGNED_DATA, ber(0xA0, data)))


class Spoilt:
    """What single machines are lied to about, by their Name tag, as a test sets it: `forged` (signed with another key),
    `elsewhere` (by the certificate of another region), `account` (another account's), `of` (that of the machine with this id),
    `tag` (the challenge's tag has another value), `no-tag` (it is not there)."""

    def __init__(self, state):
        self.lies, self.state = {}, state

    def keys(self):
        """Another key, and another region's signer: made when first needed, as keys take long."""
        if not hasattr(self, "key"):
            self.key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
            self.other = Signer(self.state / "imds-elsewhere.pem")
        return self.key, self.other

    def lie(self, instance):
        tags = {tag["Key"]: tag["Value"] for tag in instance.get("Tags", [])}
        return self.lies.get(tags.get("Name"), "")

    def message(self, instance, region, signer, instance_of):
        """The document and its message for a machine."""
        lie = self.lie(instance)
        if lie.startswith("of "):
            instance = instance_of(lie[3:]) or instance
        if lie == "account":
            instance = instance | {"_owner": "999999999999"}
        document = identity_document(instance, region)
        if lie == "forged":
            return signer.pkcs7(document, self.keys()[0])
        return (self.keys()[1] if lie == "elsewhere" else signer).pkcs7(document)

    def tags(self, instance):
        tags, lie = {tag["Key"]: tag["Value"] for tag in instance.get("Tags", [])}, self.lie(instance)
        value = tags.get("aot:challenge")
        if value and lie == "no-tag":
            del tags["aot:challenge"]
        elif value and lie == "tag":
            tags["aot:challenge"] = value[:-1] + ("0" if value[-1] != "0" else "1")
        return tags


def fold(raw):
    """Base64 in lines, as AWS gives it: without -----BEGIN----- and -----END-----."""
    return "\n".join(textwrap.wrap(base64.b64encode(raw).decode(), 76))


def iso(seconds):
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))


def identity_document(instance, region):
    return json.dumps({
        "accountId": instance["_owner"], "architecture": instance["Architecture"],
        "availabilityZone": instance["Placement"]["AvailabilityZone"], "billingProducts": None,
        "devpayProductCodes": None, "marketplaceProductCodes": None, "imageId": instance["ImageId"],
        "instanceId": instance["InstanceId"], "instanceType": instance["InstanceType"], "kernelId": None,
        "pendingTime": iso(instance["LaunchTime"].timestamp()), "privateIp": instance["PrivateIpAddress"],
        "ramdiskId": None, "region": region, "version": "2017-09-30"}, indent=2, separators=(",", " : "))


def interfaces(instance):
    """Below meta-data/network/interfaces/macs: every card by its address."""
    return {card["MacAddress"]: {
        "device-number": str(card["Attachment"]["DeviceIndex"]), "interface-id": card["NetworkInterfaceId"],
        "local-hostname": instance["PrivateDnsName"], "local-ipv4s": card["PrivateIpAddress"],
        "mac": card["MacAddress"], "owner-id": instance["_owner"],
        "security-groups": "\n".join(group["GroupName"] for group in instance["SecurityGroups"]),
        "security-group-ids": "\n".join(group["GroupId"] for group in instance["SecurityGroups"]),
        "subnet-id": card["SubnetId"], "subnet-ipv4-cidr-block": instance["_subnet"], "vpc-id": card["VpcId"],
        "vpc-ipv4-cidr-block": instance["_vpc"], "vpc-ipv4-cidr-blocks": instance["_vpc"],
    } for card in instance["NetworkInterfaces"]}


def meta_data(instance, region, tags):
    host, root = instance["PrivateDnsName"], instance["RootDeviceName"]
    cards = interfaces(instance)
    disks = [disk["DeviceName"] for disk in instance["BlockDeviceMappings"] if disk["DeviceName"] != root]
    placement = instance["Placement"]
    meta = {
        "ami-id": instance["ImageId"], "ami-launch-index": str(instance["AmiLaunchIndex"]),
        "ami-manifest-path": "(unknown)", "hostname": host, "instance-action": "none",
        "instance-id": instance["InstanceId"], "instance-life-cycle": instance.get("InstanceLifecycle", "on-demand"),
        "instance-type": instance["InstanceType"], "local-hostname": host, "local-ipv4": instance["PrivateIpAddress"],
        "mac": instance["NetworkInterfaces"][0]["MacAddress"], "profile": "default-hvm",
        "reservation-id": instance["_reservation"],
        "security-groups": "\n".join(group["GroupName"] for group in instance["SecurityGroups"]),
        "block-device-mapping": {"ami": root, "root": root, **{f"ebs{n}": d for n, d in enumerate(disks, 1)}},
        "network": {"interfaces": {"macs": cards}},
        "placement": {"availability-zone": placement["AvailabilityZone"], "region": region,
                      **({"group-name": placement["GroupName"]} if placement.get("GroupName") else {})},
        "services": {"domain": "amazonaws.com", "partition": "aws"},
    }
    if instance.get("PublicIpAddress"):
        meta |= {"public-ipv4": instance["PublicIpAddress"], "public-hostname": instance.get("PublicDnsName", "")}
    if instance.get("_public_key"):
        meta["public-keys"] = {f"0={instance['KeyName']}": {"openssh-key": instance["_public_key"]}}
    if instance["MetadataOptions"].get("InstanceMetadataTags") == "enabled":
        meta["tags"] = {"instance": tags}
    if instance.get("IamInstanceProfile"):          # the API here takes any credentials
        role = instance["IamInstanceProfile"]["Arn"].rsplit("/", 1)[-1]
        meta["iam"] = {"security-credentials": {role: json.dumps({
            "Code": "Success", "Type": "AWS-HMAC", "AccessKeyId": "ASIALAB", "SecretAccessKey": "lab", "Token": "lab",
            "LastUpdated": iso(time.time()), "Expiration": iso(time.time() + 6 * 3600)})}}
    return meta


def tree(instance, region, signer, spoilt, instance_of):
    """All that is below a version, as nested dicts. Leaves are text or bytes; dear ones are functions that give it."""
    document = identity_document(instance, region)
    message = lambda: spoilt.message(instance, region, signer, instance_of)      # noqa: E731
    root = {"meta-data": meta_data(instance, region, spoilt.tags(instance)), "dynamic": {"instance-identity": {
        "document": document, "signature": lambda: signer.signature(document), "pkcs7": message, "rsa2048": message}}}
    if instance.get("_user_data"):
        root["user-data"] = instance["_user_data"]
    return root


def look_up(node, parts):
    """Walk down. `public-keys` lists its entries as `0=name`, and they are asked for as `0`."""
    for part in parts:
        if not isinstance(node, dict):
            return None
        node = node.get(part) or next((value for key, value in node.items() if key.startswith(part + "=")), None)
    if callable(node):
        return node()
    if isinstance(node, dict):
        return "\n".join(key + ("/" if isinstance(value, dict) and "=" not in key else "")
                         for key, value in sorted(node.items()))
    return node


class Handler(BaseHTTPRequestHandler):
    protocol_version, server_version, sys_version = "HTTP/1.1", "EC2ws", ""

    def log_message(self, *args):
        pass

    def answer(self, status, body=b"", **headers):
        body = body.encode() if isinstance(body, str) else body
        self.send_response(status)
        for name, value in {"Content-Type": "text/plain", "Content-Length": len(body), **headers}.items():
            self.send_header(name, str(value))
        self.end_headers()
        self.wfile.write(body)

    def do_PUT(self):
        caller, ttl = self.client_address[0], self.headers.get(TOKEN_TTL, "")
        if self.path != "/latest/api/token" or not self.server.instance_at(caller):
            return self.answer(404)
        if "X-Forwarded-For" in self.headers:       # a proxy: the reason why there is a token at all
            return self.answer(403)
        if not ttl.isdigit() or not 1 <= int(ttl) <= LONGEST_TTL:
            return self.answer(400)
        token = secrets.token_urlsafe(40) + "=="
        self.server.tokens[token] = caller, time.time() + int(ttl)
        self.answer(200, token, **{TOKEN_TTL: ttl})

    def do_GET(self):
        caller, token = self.client_address[0], self.headers.get(TOKEN)
        instance = self.server.instance_at(caller)
        if not instance:
            return self.answer(404)
        options = instance["MetadataOptions"]
        if options.get("HttpEndpoint") == "disabled":
            return self.answer(403)
        owner, until = self.server.tokens.get(token, (None, 0))
        if (owner != caller or until < time.time()) if token else options.get("HttpTokens") == "required":
            return self.answer(401)
        version, *parts = [p for p in self.path.split("?")[0].split("/") if p] or [""]
        if not version:
            return self.answer(200, "\n".join(VERSIONS))
        if version not in VERSIONS and not re.fullmatch(r"20\d\d-\d\d-\d\d", version):
            return self.answer(404)
        server = self.server
        if "tags" in parts:
            instance = instance | {"Tags": server.tags_of(instance["InstanceId"])}
        found = look_up(tree(instance, server.region, server.signer, server.spoilt, server.instance_of), parts)
        self.answer(404) if found is None else self.answer(200, found)


def serve(address, region, signer, spoilt, instance_at, instance_of, tags_of):
    """`instance_at(ip)` gives the DescribeInstances entry of the machine there, with what region.py adds to it;
    `instance_of(id)` that of any machine that the API knows, `tags_of(id)` its tags as they are now."""
    server = ThreadingHTTPServer(address, Handler)
    server.daemon_threads, server.tokens = True, {}
    server.region, server.signer, server.spoilt = region, signer, spoilt
    server.instance_at, server.instance_of, server.tags_of = instance_at, instance_of, tags_of
    server.serve_forever()
