//! The shapes of cluster.yml as people write it, before `extends`, `defaults` and templates. Read by `build`.

use std::borrow::Cow;
use std::collections::BTreeMap;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};

use super::node::{Body, Node, ScalarKind};
use super::read::{Free, FromNode, LineOrWords, Located, Loosely, OneOrMany, Reader, Span, Text};
use super::record::record;

record! {
    /// One file describes one cluster.
    RawFile {
        /// Name of the cluster, [a-z][a-z0-9-]{0,62}; also the value of the Cluster tag. Stands for $cluster_name everywhere.
        cluster: Text => "cluster", required;
        /// Variables by name: ${name} in any value stands for one, ${net.subnet} for one inside a mapping, $$ for a dollar. --set and --vars override them.
        vars: RawVars => "vars";
        /// Secrets by name: where the value of each comes from. A value is in no record, log or output.
        secrets: BTreeMap<String, Located<RawSecret>> => "secrets";
        /// What provides the machines: ec2 (default) or local.
        provider: Text => "provider";
        /// EC2 region; else AWS_REGION, else the profile's.
        region: Text => "region";
        /// When a launch counts as done, and what to do when it is not.
        launch: RawLaunch => "launch";
        /// What machines must prove to join: auto (default), document, challenge, both, or token, their join token alone.
        attestation: Text => "attestation";
        /// Any instance key; pools and instances override it, `extends` sits between.
        defaults: RawCommon => "defaults";
        /// Security groups that this cluster needs.
        security_groups: Vec<RawGroup> => "security_groups";
        /// Where a new $discovery_token is fetched, once per cluster; by default https://discovery.etcd.io/new?size=N for N instances.
        discovery_url: Text => "discovery_url";
        /// Whose ssh keys are exchanged: root (default: root and the main user of each log in to all others as root), users (main user to main user), none.
        ssh: Text => "ssh";
        /// What the machines learn of each other: full (default), or addresses: all but `node`, what each has found of itself, which is most of it.
        cluster_facts: Text => "cluster_facts";
        /// Single instances.
        instances: Vec<RawInstance> => "instances";
        /// A group of identical instances.
        pools: Vec<RawPool> => "pools";
        /// Saved targets by name, used as @name.
        groups: BTreeMap<String, Located<Text>> => "groups";
    }
}

record! {
    /// When a launch counts as done.
    RawLaunch {
        /// all, a number, or a percentage: fewer than this ready by the timeout is a failed launch.
        min_ready: Loosely => "min_ready";
        /// keep (leave the machines for inspection) or rollback (terminate what this launch created).
        on_failure: Text => "on_failure";
        /// From the first API call until every instance has enrolled, as in 30m.
        timeout: Span => "timeout";
        /// How many times a machine that never calls home is terminated and replaced: 0 (default) to 10.
        replace: u32 => "replace";
    }
}

record! {
    /// One instance.
    RawInstance {
        /// Its name, unique in the cluster.
        name: Text => "name", required;
        /// Another instance or pool: every key that is not given here is inherited, except name and hostname.
        extends: Text => "extends";
        flatten common: RawCommon;
    }
}

record! {
    /// A group of identical instances.
    RawPool {
        /// The pool's name; members are NAME1, NAME2, ... {id} or {id:02} sets the place and the form of the number.
        name: Text => "name", required;
        /// How many members, 0 to 20000.
        size: u32 => "size" | "instances_count" | "count";
        /// Or the first and last number of the members, as in 2..4.
        ids: Text => "ids";
        /// Another instance or pool: every key that is not given here is inherited, except name and hostname.
        extends: Text => "extends";
        flatten common: RawCommon;
    }
}

record! {
    /// Keys of an instance or pool.
    RawCommon {
        /// ami-..., a known alias (debian-12, ubuntu-24.04, al2023, flatcar-stable), ssm:/aws/service/..., or name:PATTERN@OWNER.
        ami: Text => "ami" | "image";
        /// Instance type, or a list: the next one is used when one has no capacity.
        ec2_size: OneOrMany<Located<Text>> => "ec2_size" | "instance_type" | "instance_size";
        /// EC2 key pair; optional, as ssh is not needed.
        ssh_key: Text => "ssh_key" | "key_pair" | "key-pair";
        /// Ids or names of security groups.
        security_groups: OneOrMany<Located<Text>> => "security_groups";
        /// Id or Name tag of a subnet, or a list: the next one is used when one has no capacity.
        subnet: OneOrMany<Located<Text>> => "subnet";
        /// Owner tag.
        owner: Text => "owner";
        /// Main login user of the image.
        user: Text => "user";
        /// Host name; the instance's name by default. In a pool it must have {id}.
        hostname: Text => "hostname";
        /// Disks.
        ebs: Vec<RawVolume> => "ebs" | "volumes" | "block_device_mappings";
        /// Public address on the first interface.
        auto_assign_ip: bool => "auto_assign_ip";
        /// An Elastic IP of its own, released at cleanup.
        allocate_ip_address: bool => "allocate_ip_address" | "elastic_ip";
        /// EBS-optimized.
        ebs_optimized: bool => "ebs_optimized";
        /// Placement group's name.
        placement_group: Text => "placement_group";
        /// IAM instance profile's name.
        instance_profile_name: Text => "instance_profile_name";
        /// More tags.
        tags: BTreeMap<String, Located<Free>> => "tags";
        /// Spot market: true, or its options.
        spot: RawSpot => "spot";
        /// spot or on-demand.
        billing: Text => "billing";
        /// Map the instance store drives of the type.
        ephemeral_drives: bool => "ephemeral_drives";
        /// Path of a cloud-config file that is merged into the user-data.
        cloud_config: Text => "cloud_config";
        /// How instances that are ready are changed when their stages are others: all at once, or at this pace.
        update: RawUpdate => "update";
        /// What an instance must pass after such a change, before others are changed: ping, a line for /bin/sh that must exit with 0, or its options.
        health: RawHealth => "health";
        /// Bundles to run, one after the other.
        bootstrap_sequence: Vec<Located<RawStage>> => "bootstrap_sequence" | "stages";
        /// Accepted and ignored: nothing is done over ssh.
        private_key_file: Text => "private_key_file";
    }
}

record! {
    /// A pace. What is not given has no limit, but for max_errors.
    RawUpdate {
        /// At most this many instances at a time: a number, or a percentage of the pool (rounded up).
        concurrency: Loosely => "concurrency";
        /// The first N go alone; the others only if all of them come through.
        canary: u32 => "canary";
        /// No more instances are changed after more than this many have not come through: a number (0 by default), or a percentage of the pool.
        max_errors: Loosely => "max_errors";
        /// From the end of one batch of `concurrency` to the next, as in 30s.
        batch_wait: Span => "batch_wait";
    }
}

record! {
    /// What is asked of an instance, and how often.
    RawHealthOptions {
        /// A line for /bin/sh, run as root, that must exit with 0; ping (default) asks only whether the agent starts a process.
        command: Text => "command";
        /// How many times more it is asked after a try that failed; 5 by default.
        retries: u32 => "retries";
        /// Between two tries; 5s by default.
        wait: Span => "wait";
        /// Longest try; 30s by default.
        timeout: Span => "timeout";
    }
}

record! {
    /// One EBS volume.
    RawVolume {
        /// Device name in the mapping, as in /dev/sdf.
        device: Text => "device" | "name" | "device_name", required;
        /// GiB.
        size: u32 => "size" | "volume_size";
        /// gp3, gp2, io2, io1, st1, sc1 or standard.
        kind: Text => "type" | "volume_type";
        /// Provisioned operations per second (gp3, io1, io2).
        iops: u32 => "iops";
        /// MiB per second (gp3).
        throughput: u32 => "throughput";
        /// Snapshot id.
        snapshot: Text => "snapshot" | "snapshot_id";
        /// Encrypted at rest.
        encrypted: bool => "encrypted";
        /// Deleted with its instance; true by default.
        delete_on_termination: bool => "delete_on_termination";
        /// Folder to mount it on.
        mount: Text => "mount";
        /// File system to make if the volume has none; ext4 by default, if it is mounted.
        fs: Text => "fs";
    }
}

record! {
    /// Options of the spot market.
    RawSpotOptions {
        /// Highest price, in dollars per hour.
        max_price: Loosely => "max_price";
        /// Use on-demand if there is no spot capacity.
        fallback: bool => "fallback";
    }
}

record! {
    /// One stage: a bundle with a bootstrap.sh, from a tar file or from a folder.
    RawStage {
        /// Path of a tar file: plain, gzip or zstd.
        tar: Text => "tar";
        /// Path of a folder.
        dir: Text => "dir";
        /// Name to show; the file's name by default.
        name: Text => "name";
        /// Arguments of bootstrap.sh.
        args: Vec<Located<Free>> => "args";
        /// More environment.
        env: BTreeMap<String, Located<Free>> => "env";
        /// Longest run, as in 20m.
        timeout: Span => "timeout";
        /// Longest time without output, as in 5m.
        silence_timeout: Span => "silence_timeout";
        /// Stages that must have succeeded first: INSTANCE/STAGE or pool:POOL/STAGE (all members). A stage is a number from 0 or a name; without it, all stages.
        needs: OneOrMany<Located<Text>> => "needs";
        /// Secrets that it is given as files in the folder $AOT_SECRETS, by name, or with a variable besides.
        secrets: OneOrMany<Located<RawSecretUse>> => "secrets";
        /// Run it again when one of its secrets has another value; false by default.
        rerun_on_secret: bool => "rerun_on_secret";
    }
}

record! {
    /// Where the value of a secret comes from: one of these.
    RawSecret {
        /// A variable of the environment in which launch is run.
        env: Text => "env";
        /// Path of a file, which launch reads byte for byte.
        file: Text => "file";
        /// A command whose output it is, run by launch in the folder of cluster.yml: a line for /bin/sh, or a program and its arguments as a list, without a shell.
        command: LineOrWords => "command";
        /// Name or ARN of a parameter in AWS Systems Manager, as in /prod/db/password.
        ssm: Text => "ssm";
        /// Name or ARN of a secret in AWS Secrets Manager.
        secrets_manager: Text => "secrets_manager";
        /// Region of ssm or secrets_manager; else that of its ARN, else the cluster's, else the master's own.
        region: Text => "region";
        /// Version of ssm (a number or a label) or secrets_manager (an id or a staging label); the current one by default.
        version: Loosely => "version";
        /// Who reads ssm or secrets_manager: master (default), or machine: each machine by itself, with its instance profile.
        on: Text => "on";
    }
}

record! {
    /// A secret that is a variable, too.
    RawSecretVariable {
        /// Name of the secret.
        name: Text => "name", required;
        /// Variable of bootstrap.sh's environment that has its value.
        env: Text => "env";
    }
}

record! {
    /// A security group that the cluster needs.
    RawGroup {
        /// Its name.
        name: Text => "name", required;
        /// create, find or find_or_create (default).
        action: Text => "action";
        /// Members may talk to each other on every port.
        allow_all_own_traffic: bool => "allow_all_own_traffic";
        /// Networks that may ssh in.
        allow_ssh_from: OneOrMany<Located<Text>> => "allow_ssh_from";
        /// More rules.
        allow_inbound: Vec<RawRule> => "allow_inbound";
    }
}

record! {
    /// One inbound rule.
    RawRule {
        /// tcp, udp, icmp, icmpv6 or all.
        protocol: Loosely => "protocol", required;
        /// First port.
        from_port: u32 => "from_port";
        /// Last port; the first by default.
        to_port: u32 => "to_port";
        /// A network, as in 10.0.0.0/8.
        ip: Text => "ip" | "cidr";
        /// Or a source group, id or name.
        group: Text => "group";
    }
}

/// The values of all variables.
#[derive(Debug, Clone)]
pub(crate) struct RawVars(pub serde_json::Map<String, serde_json::Value>);

impl FromNode for RawVars {
    fn from_node(node: &Node, reader: &mut Reader) -> Option<Self> {
        match serde_json::to_value(node) {
            Ok(serde_json::Value::Object(map)) => Some(Self(map)),
            Ok(serde_json::Value::Null) => Some(Self(serde_json::Map::new())),
            _ => reader.wrong(node, "a mapping of names to values"),
        }
    }
}

impl JsonSchema for RawVars {
    fn inline_schema() -> bool {
        true
    }
    fn schema_name() -> Cow<'static, str> {
        "Vars".into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"type": "object"})
    }
}

/// `health: ping`, a line for a shell, or its options.
#[derive(Debug, Clone)]
pub(crate) enum RawHealth {
    /// What is asked, as often as by default.
    Plain(Located<Text>),
    /// With options.
    Options(RawHealthOptions),
}

impl FromNode for RawHealth {
    fn from_node(node: &Node, reader: &mut Reader) -> Option<Self> {
        match &node.body {
            Body::Scalar {
                kind: ScalarKind::Text,
                ..
            } => FromNode::from_node(node, reader).map(Self::Plain),
            Body::Map(_) => RawHealthOptions::from_node(node, reader).map(Self::Options),
            _ => reader.wrong(
                node,
                "ping, a command, or command, retries, wait and timeout",
            ),
        }
    }
}

impl JsonSchema for RawHealth {
    fn inline_schema() -> bool {
        true
    }
    fn schema_name() -> Cow<'static, str> {
        "Health".into()
    }
    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let options = generator.subschema_for::<RawHealthOptions>();
        json_schema!({"anyOf": [{"type": "string", "minLength": 1}, options]})
    }
}

/// The name of a secret, or that with a variable.
#[derive(Debug, Clone)]
pub(crate) enum RawSecretUse {
    /// As a file alone.
    Plain(Text),
    /// As a variable, too.
    Variable(RawSecretVariable),
}

impl FromNode for RawSecretUse {
    fn from_node(node: &Node, reader: &mut Reader) -> Option<Self> {
        match &node.body {
            Body::Map(_) => RawSecretVariable::from_node(node, reader).map(Self::Variable),
            Body::Scalar { .. } => Text::from_node(node, reader).map(Self::Plain),
            _ => reader.wrong(node, "the name of a secret, or name and env"),
        }
    }
}

impl JsonSchema for RawSecretUse {
    fn inline_schema() -> bool {
        true
    }
    fn schema_name() -> Cow<'static, str> {
        "SecretUse".into()
    }
    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let variable = generator.subschema_for::<RawSecretVariable>();
        json_schema!({"anyOf": [{"type": "string", "minLength": 1}, variable]})
    }
}

/// `spot: true` or its options.
#[derive(Debug, Clone)]
pub(crate) enum RawSpot {
    /// On or off.
    Plain(bool),
    /// On, with options.
    Options(RawSpotOptions),
}

impl FromNode for RawSpot {
    fn from_node(node: &Node, reader: &mut Reader) -> Option<Self> {
        match &node.body {
            Body::Scalar {
                kind: ScalarKind::Bool(on),
                ..
            } => Some(Self::Plain(*on)),
            Body::Map(_) => RawSpotOptions::from_node(node, reader).map(Self::Options),
            _ => reader.wrong(node, "true, false, or max_price and fallback"),
        }
    }
}

impl JsonSchema for RawSpot {
    fn inline_schema() -> bool {
        true
    }
    fn schema_name() -> Cow<'static, str> {
        "Spot".into()
    }
    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let options = generator.subschema_for::<RawSpotOptions>();
        json_schema!({"anyOf": [{"type": "boolean"}, options]})
    }
}
