//! What EBS takes of each type of volume. Pure; called by `preflight`. Amazon EBS User Guide, "Amazon EBS volume types".

use std::ops::RangeInclusive;

use aot_model::spec::VolumeSpec;

/// The limits of one type of volume.
struct VolumeLimits {
    name: &'static str,
    size_gib: RangeInclusive<u32>,
    /// `None`: it takes no such number.
    iops: Option<RangeInclusive<u32>>,
    /// It has to be said.
    iops_needed: bool,
    /// Operations for each GiB at most.
    iops_per_gib: u32,
    /// MiB per second.
    throughput: Option<RangeInclusive<u32>>,
}

/// Operations that a gp3 volume has unless more are asked for.
const GP3_IOPS: u32 = 3000;
/// Operations per second that a gp3 volume needs for each MiB per second.
const GP3_IOPS_PER_MIB: u32 = 4;

const KINDS: [VolumeLimits; 7] = [
    VolumeLimits {
        name: "gp3",
        size_gib: 1..=65_536,
        iops: Some(GP3_IOPS..=80_000),
        iops_needed: false,
        iops_per_gib: 500,
        throughput: Some(125..=2000),
    },
    plain("gp2", 1..=16_384),
    VolumeLimits {
        name: "io1",
        size_gib: 4..=16_384,
        iops: Some(100..=64_000),
        iops_needed: true,
        iops_per_gib: 50,
        throughput: None,
    },
    VolumeLimits {
        name: "io2",
        size_gib: 4..=65_536,
        iops: Some(100..=256_000),
        iops_needed: true,
        iops_per_gib: 1000,
        throughput: None,
    },
    plain("st1", 125..=16_384),
    plain("sc1", 125..=16_384),
    plain("standard", 1..=1024),
];

const fn plain(name: &'static str, size_gib: RangeInclusive<u32>) -> VolumeLimits {
    VolumeLimits {
        name,
        size_gib,
        iops: None,
        iops_needed: false,
        iops_per_gib: 0,
        throughput: None,
    }
}

/// What is wrong with a volume, and the way out of each. One without a type is left to EC2.
pub(crate) fn wrongs(volume: &VolumeSpec) -> Vec<(String, String)> {
    let Some(text) = volume.kind.as_deref() else {
        return Vec::new();
    };
    let mut found = Vec::new();
    let mut say =
        |why: String, hint: String| found.push((format!("volume {}: {why}", volume.device), hint));
    let Some(kind) = KINDS.iter().find(|kind| kind.name == text) else {
        let known: Vec<&str> = KINDS.iter().map(|kind| kind.name).collect();
        say(
            format!("no volume type {text:?}"),
            format!("set `type` to one of {}", known.join(", ")),
        );
        return found;
    };
    if let Some(size) = volume.size_gib.filter(|size| !kind.size_gib.contains(size)) {
        say(
            format!("{size} GiB is not a valid size of {text}"),
            within("size", &kind.size_gib),
        );
    }
    match (volume.iops, &kind.iops) {
        (Some(iops), Some(range)) if !range.contains(&iops) => {
            say(
                format!("{text} does not take {iops} iops"),
                within("iops", range),
            );
        }
        (Some(_), None) => say(
            format!("{text} takes no iops"),
            "leave `iops` out, or set `type` to gp3, io1 or io2".into(),
        ),
        (None, Some(range)) if kind.iops_needed => {
            say(format!("{text} needs iops"), within("iops", range));
        }
        (Some(iops), Some(range)) => {
            let most = volume
                .size_gib
                .map(|size| size.saturating_mul(kind.iops_per_gib));
            if let Some(most) = most.filter(|most| iops > *most.max(range.start())) {
                say(
                    format!(
                        "{iops} iops are too many for its size: {text} has {} per GiB, so {most}",
                        kind.iops_per_gib
                    ),
                    "make `size` larger or `iops` smaller".into(),
                );
            }
        }
        (None, _) => {}
    }
    match (volume.throughput, &kind.throughput) {
        (Some(rate), Some(range)) if !range.contains(&rate) => {
            say(
                format!("{text} does not take a throughput of {rate} MiB/s"),
                within("throughput", range),
            );
        }
        (Some(rate), Some(_)) if rate * GP3_IOPS_PER_MIB > volume.iops.unwrap_or(GP3_IOPS) => say(
            format!(
                "a throughput of {rate} MiB/s needs {} iops",
                rate * GP3_IOPS_PER_MIB
            ),
            "make `iops` larger or `throughput` smaller".into(),
        ),
        (Some(_), None) => say(
            format!("{text} takes no throughput"),
            "leave `throughput` out, or set `type: gp3`".into(),
        ),
        _ => {}
    }
    found
}

fn within(key: &str, range: &RangeInclusive<u32>) -> String {
    format!("set `{key}` within {} to {}", range.start(), range.end())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn volume(
        kind: Option<&str>,
        size: Option<u32>,
        iops: Option<u32>,
        throughput: Option<u32>,
    ) -> VolumeSpec {
        VolumeSpec {
            device: "/dev/sdf".into(),
            size_gib: size,
            kind: kind.map(str::to_owned),
            iops,
            throughput,
            snapshot: None,
            encrypted: None,
            delete_on_termination: true,
            mount: None,
            fs: None,
        }
    }

    #[test]
    fn what_each_type_takes() {
        for (kind, size, iops, throughput, said) in [
            (None, Some(1), Some(1), Some(1), &[][..]),
            (Some("gp3"), Some(10), None, None, &[]),
            (Some("gp3"), Some(1), Some(3000), Some(750), &[]),
            (Some("gp3"), None, Some(16_000), Some(1000), &[]),
            (Some("gp3"), Some(200), Some(80_000), Some(2000), &[]),
            (Some("gp3"), Some(10), Some(2999), None, &["2999"]),
            (Some("gp3"), Some(200), Some(80_001), None, &["80001"]),
            (Some("gp3"), Some(10), Some(6000), None, &["per GiB"]),
            (Some("gp3"), Some(10), None, Some(751), &["3004 iops"]),
            (Some("gp3"), Some(10), None, Some(100), &["100 MiB/s"]),
            (
                Some("gp2"),
                Some(10),
                Some(3000),
                Some(125),
                &["no iops", "no throughput"],
            ),
            (Some("io1"), Some(10), None, None, &["needs iops"]),
            (Some("io1"), Some(10), Some(500), None, &[]),
            (Some("io1"), Some(4), Some(201), None, &["so 200"]),
            (Some("io2"), Some(4), Some(4000), None, &[]),
            (Some("io2"), Some(1), Some(100), None, &["1 GiB"]),
            (Some("st1"), Some(100), None, None, &["100 GiB"]),
            (Some("ssd"), Some(100), None, None, &["gp3"]),
        ] {
            let found = wrongs(&volume(kind, size, iops, throughput));
            assert_eq!(
                found.len(),
                said.len(),
                "{kind:?} {size:?} {iops:?}: {found:?}"
            );
            for ((message, hint), word) in found.iter().zip(said) {
                assert!(message.starts_with("volume /dev/sdf: "), "{message}");
                assert!(
                    format!("{message} {hint}").contains(word),
                    "{message}: {hint}"
                );
            }
        }
    }
}
