//! One mutation of a good file a case; reports as people see them.

mod damaged;
mod files;
mod good;
mod mistakes;
mod names;
mod secrets;

use std::path::{Path, PathBuf};
use std::time::Duration;

use aot_model::spec::{BundleSource, GroupAction, MinReady, OnFailure, ProviderKind, SshAccess};
use aot_proto::ids::InstanceName;
use proptest::prelude::*;

use super::*;

const GOOD: &str = r#"cluster: hadoop
provider: ec2
region: us-west-2
launch: {min_ready: 90%, on_failure: rollback, timeout: 45m, replace: 2}
defaults:
  ami: debian-12
  ec2_size: m5.large
  ssh_key: orchestration
  security_groups: [default, $cluster_name]
  subnet: subnet-1bc5c46f
  owner: dkarapetyan
  user: admin
security_groups:
  - name: $cluster_name
    action: create
    allow_all_own_traffic: yes
    allow_ssh_from: 0.0.0.0/0
    allow_inbound: [{protocol: tcp, from_port: 8080, to_port: 8080, ip: 0.0.0.0/0}]
groups:
  edge: pool:hadoop and not name:hadoop2
instances:
  - name: manager
    ec2_size: [m5.2xlarge, m5a.2xlarge]
    auto_assign_ip: true
    ebs: [{device: /dev/sdf, size: 100, type: gp3, mount: /media/ebs, fs: ext4}]
    bootstrap_sequence:
      - tar: bundles/prerequisites.tar.gz
      - {dir: bundles/manager, args: [--level, "0"], timeout: 20m, silence_timeout: 5m}
pools:
  - name: hadoop
    size: 2
    extends: manager
    tags: {env: prod}
    bootstrap_sequence:
      - tar: bundles/prerequisites.tar.gz
      - {dir: bundles/node, needs: [manager/1, "pool:db/0"], env: {LEVEL: 007}}
  - name: db{id:02}
    ids: 2..4
    spot: {max_price: 0.05, fallback: true}
    hostname: database{id}
    bootstrap_sequence: [{dir: ./bundles/db, name: database}]
    update: {concurrency: 25%, canary: 1, max_errors: 1, batch_wait: 30s}
    health: {command: systemctl is-active db, retries: 3, wait: 2s}
"#;

fn parse(text: &str) -> Result<Parsed, Report> {
    super::parse(text, Path::new("/clusters/cluster.yml"))
}

/// The good file with one text replaced.
fn mutated(from: &str, to: &str) -> String {
    assert_eq!(
        GOOD.matches(from).count(),
        1,
        "{from:?} stands once in the good file"
    );
    GOOD.replacen(from, to, 1)
}

fn names(spec: &ClusterSpec) -> Vec<&str> {
    spec.instances()
        .map(|(_, member)| member.name.as_str())
        .collect()
}
