//! Disks: bounds and combinations of EBS (EC2 User Guide, "Amazon EBS volume types"), checked before a call is paid for.

use std::collections::BTreeMap;

use aot_model::spec::VolumeSpec;

use super::{Build, text};
use crate::raw::{RawCommon, RawVolume};
use crate::read::{At, Located};

/// Largest volume, GiB (64 TiB: io2 Block Express and gp3).
const MAX_GIB: u32 = 65_536;
/// Disks of one instance; EC2 attaches fewer to most types.
const MAX_VOLUMES: usize = 128;
const KINDS: [(&str, ()); 7] = [
    ("gp3", ()),
    ("gp2", ()),
    ("io2", ()),
    ("io1", ()),
    ("st1", ()),
    ("sc1", ()),
    ("standard", ()),
];
const FILE_SYSTEMS: [(&str, ()); 5] = [
    ("ext4", ()),
    ("xfs", ()),
    ("btrfs", ()),
    ("ext3", ()),
    ("ext2", ()),
];

impl Build {
    pub(super) fn volumes(&mut self, common: &RawCommon) -> Vec<VolumeSpec> {
        let Some(list) = &common.ebs else {
            return Vec::new();
        };
        if list.value.len() > MAX_VOLUMES {
            self.problems.push(
                list.at
                    .problem(format!("has more than {MAX_VOLUMES} volumes")),
            );
        }
        let mut devices = BTreeMap::new();
        let mut mounts = BTreeMap::new();
        let volumes = list.value.iter().filter_map(|volume| {
            let spec = self.volume(volume)?;
            let device = volume.device.as_ref()?;
            self.once(&mut devices, &spec.device, &device.at);
            if let (Some(mount), Some(given)) = (&spec.mount, &volume.mount) {
                self.once(&mut mounts, mount, &given.at);
            }
            Some(spec)
        });
        volumes.collect()
    }

    fn once(&mut self, taken: &mut BTreeMap<String, At>, name: &str, at: &At) {
        if let Some(first) = taken.get(name) {
            let problem = at.problem(format!("{name:?} is used twice"));
            self.problems
                .push(problem.other(first.span.clone(), "first here"));
        }
        taken.entry(name.to_owned()).or_insert_with(|| at.clone());
    }

    fn volume(&mut self, raw: &RawVolume) -> Option<VolumeSpec> {
        let device = raw.device.as_ref()?;
        let name = &device.value.0;
        let good = name.strip_prefix("/dev/").is_some_and(|rest| {
            !rest.is_empty()
                && rest
                    .chars()
                    .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '/')
        });
        if !good {
            let problem = device.at.problem(format!("{name:?} is not a device name"));
            self.problems.push(problem.help("as in /dev/sdf"));
        }
        if raw.size.is_none() && raw.snapshot.is_none() {
            let problem = device.at.problem(format!("the volume {name} has no size"));
            self.problems
                .push(problem.help("add `size` (GiB), or the snapshot to create it from"));
        }
        self.performance(raw);
        self.one_of(raw.fs.as_ref(), &FILE_SYSTEMS);
        self.mount(raw);
        let plain_mount = raw.mount.is_some() && raw.snapshot.is_none();
        Some(VolumeSpec {
            device: name.clone(),
            size_gib: self.bounded(raw.size.as_ref(), 1, MAX_GIB, " GiB"),
            kind: text(&raw.kind),
            iops: raw.iops.as_ref().map(|iops| iops.value),
            throughput: raw.throughput.as_ref().map(|throughput| throughput.value),
            snapshot: text(&raw.snapshot),
            encrypted: raw.encrypted.as_ref().map(|encrypted| encrypted.value),
            delete_on_termination: raw
                .delete_on_termination
                .as_ref()
                .is_none_or(|delete| delete.value),
            mount: text(&raw.mount),
            fs: text(&raw.fs).or_else(|| plain_mount.then(|| "ext4".to_owned())),
        })
    }

    fn performance(&mut self, raw: &RawVolume) {
        self.one_of(raw.kind.as_ref(), &KINDS);
        let kind = raw.kind.as_ref().map_or("", |kind| kind.value.0.as_str());
        self.bounded(raw.iops.as_ref(), 100, 256_000, "");
        self.bounded(raw.throughput.as_ref(), 125, 2_000, " MiB/s");
        self.only_with(raw.iops.as_ref(), "iops", kind, &["gp3", "io1", "io2"]);
        self.only_with(raw.throughput.as_ref(), "throughput", kind, &["gp3"]);
        if let Some(given) = raw
            .kind
            .as_ref()
            .filter(|_| matches!(kind, "io1" | "io2") && raw.iops.is_none())
        {
            self.problems.push(
                given
                    .at
                    .problem(format!("{kind} needs iops"))
                    .help("add `iops`"),
            );
        }
    }

    fn only_with(&mut self, given: Option<&Located<u32>>, key: &str, kind: &str, kinds: &[&str]) {
        if let Some(given) = given.filter(|_| !kinds.contains(&kind)) {
            let with = if kind.is_empty() {
                "a volume without a type"
            } else {
                kind
            };
            let problem = given.at.problem(format!("{key} can't be set for {with}"));
            self.problems.push(problem.help(format!(
                "it goes with `type: {}`",
                kinds.join("` or `type: ")
            )));
        }
    }

    fn mount(&mut self, raw: &RawVolume) {
        let Some(mount) = &raw.mount else { return };
        let path = &mount.value.0;
        let inside = path.split('/').all(|part| part != "..");
        if !path.starts_with('/')
            || path.trim_matches('/').is_empty()
            || !inside
            || path.contains(' ')
        {
            let problem = mount
                .at
                .problem(format!("{path:?} is not a folder to mount on"));
            self.problems
                .push(problem.help("an absolute path without spaces, as in /media/ebs"));
        }
    }
}
