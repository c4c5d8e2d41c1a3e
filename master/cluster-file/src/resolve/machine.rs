//! The provider's part of an instance's keys.

use std::collections::BTreeMap;

use aot_model::spec::{MachineSpec, ProviderKind, SpotSpec};

use super::extend::NamedEntry;
use super::{Build, text};
use crate::raw::{RawCommon, RawSpot};
use crate::read::{At, Free, Located, OneOrMany, Text};

/// Tags that a user may set: EC2 takes 50, and aot sets some of its own (EC2 User Guide, "Tag restrictions").
const MAX_TAGS: usize = 40;
/// Tags that aot sets from other keys.
const OWN_TAGS: [(&str, &str); 4] = [
    ("Name", "it is the instance's name"),
    ("Cluster", "it is the cluster's name"),
    ("Pool", "it is the pool's name"),
    ("Owner", "use the key `owner`"),
];

impl Build {
    pub(super) fn machine(&mut self, entry: &NamedEntry, provider: ProviderKind) -> MachineSpec {
        let common = &entry.common;
        if provider == ProviderKind::Ec2 && !self.provider_unknown {
            self.needed(entry, "ami", common.ami.is_none());
            self.needed(entry, "ec2_size", common.ec2_size.is_none());
        }
        if let Some(key) = &common.private_key_file {
            self.notice(key.at.clone(), "ignored: nothing is done over ssh");
        }
        MachineSpec {
            ami: self.ami(common),
            types: self.types(common),
            ssh_key: text(&common.ssh_key),
            security_groups: self.distinct(&common.security_groups),
            subnets: self.distinct(&common.subnet),
            volumes: self.volumes(common),
            auto_assign_ip: value(&common.auto_assign_ip),
            allocate_ip_address: value(&common.allocate_ip_address).unwrap_or(false),
            ebs_optimized: value(&common.ebs_optimized),
            placement_group: text(&common.placement_group),
            instance_profile_name: text(&common.instance_profile_name),
            tags: self.tags(common),
            spot: self.spot(common),
            ephemeral_drives: value(&common.ephemeral_drives).unwrap_or(false),
            cloud_config: common
                .cloud_config
                .as_ref()
                .map(|path| self.path(&path.value.0)),
        }
    }

    fn needed(&mut self, entry: &NamedEntry, key: &str, missing: bool) {
        if missing && !self.unread_of(entry) {
            let problem = entry
                .name
                .at
                .problem(format!("{:?} has no {key}", entry.label()));
            self.problems
                .push(problem.help(format!("add `{key}` here or under `defaults`")));
        }
    }

    /// The four forms of an image; whether it exists is the provider's to say.
    fn ami(&mut self, common: &RawCommon) -> Option<String> {
        let ami = common.ami.as_ref()?;
        let text = &ami.value.0;
        let good = if let Some(hex) = text.strip_prefix("ami-") {
            hex.len() >= 8 && hex.bytes().all(|b| b.is_ascii_hexdigit())
        } else if let Some(name) = text.strip_prefix("ssm:") {
            name.starts_with('/') && !name.contains(' ')
        } else if let Some(pattern) = text.strip_prefix("name:") {
            pattern
                .rsplit_once('@')
                .is_some_and(|(pattern, owner)| !pattern.is_empty() && !owner.is_empty())
        } else {
            text.chars().all(|c| {
                c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '-' | '.' | '_')
            })
        };
        if !good {
            let problem = ami.at.problem(format!("{text:?} is not an image"));
            self.problems.push(problem.help(
                "ami-0123456789abcdef0, debian-12, ssm:/aws/service/..., or name:PATTERN@OWNER",
            ));
        }
        Some(text.clone())
    }

    fn types(&mut self, common: &RawCommon) -> Vec<String> {
        let part = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        for given in common.ec2_size.iter().flat_map(|list| &list.value.0) {
            let text = &given.value.0;
            let good = text.split_once('.').is_some_and(|(family, size)| {
                !family.is_empty()
                    && !size.is_empty()
                    && family.chars().all(part)
                    && size.chars().all(part)
            });
            if !good {
                let problem = given
                    .at
                    .problem(format!("{text:?} is not an instance type"));
                self.problems.push(problem.help("as in m5.large"));
            }
        }
        self.distinct(&common.ec2_size)
    }

    /// A list without repetitions, of one thing at least.
    fn distinct(&mut self, given: &Option<Located<OneOrMany<Located<Text>>>>) -> Vec<String> {
        let Some(list) = given else { return Vec::new() };
        if list.value.0.is_empty() && self.problems.is_empty() {
            self.problems.push(
                list.at
                    .problem("is empty")
                    .help("give at least one, or remove the key"),
            );
        }
        let mut texts: Vec<String> = Vec::new();
        for item in &list.value.0 {
            if texts.contains(&item.value.0) {
                self.problems.push(
                    item.at
                        .problem(format!("{:?} is in the list twice", item.value.0)),
                );
            }
            texts.push(item.value.0.clone());
        }
        texts
    }

    fn tags(&mut self, common: &RawCommon) -> BTreeMap<String, String> {
        let Some(tags) = &common.tags else {
            return BTreeMap::new();
        };
        if tags.value.len() > MAX_TAGS {
            let message = format!(
                "has {} tags; at most {MAX_TAGS} are allowed",
                tags.value.len()
            );
            self.problems.push(tags.at.problem(message));
        }
        for (key, tag) in &tags.value {
            self.tag(key, tag);
        }
        tags.value
            .iter()
            .map(|(key, tag)| (key.clone(), tag.value.0.clone()))
            .collect()
    }

    fn tag(&mut self, key: &str, tag: &Located<Free>) {
        let lower = key.to_lowercase();
        let own = OWN_TAGS.iter().find(|(name, _)| *name == key);
        let problem = if let Some(prefix) = ["aws:", "aot:"]
            .iter()
            .find(|prefix| lower.starts_with(**prefix))
        {
            tag.at
                .problem(format!(
                    "tags that begin with {prefix:?} are not yours to set"
                ))
                .help("rename the tag")
        } else if let Some((name, why)) = own {
            tag.at
                .problem(format!("the tag {name:?} is set by aot"))
                .help(*why)
        } else if key.is_empty() || key.chars().count() > 128 {
            tag.at.problem("a tag's name has 1 to 128 characters")
        } else if tag.value.0.chars().count() > 256 {
            tag.at.problem("a tag's value has 256 characters at most")
        } else {
            return;
        };
        self.problems.push(problem);
    }

    fn spot(&mut self, common: &RawCommon) -> Option<SpotSpec> {
        let words = [("spot", true), ("on-demand", false), ("on_demand", false)];
        let billing = self.one_of(common.billing.as_ref(), &words);
        let wanted = match common.spot.as_ref().map(|spot| &spot.value) {
            None => billing.unwrap_or(false).then(SpotSpec::default),
            Some(RawSpot::Plain(on)) => on.then(SpotSpec::default),
            Some(RawSpot::Options(options)) => {
                let price = options.max_price.as_ref();
                if let Some(price) = price.filter(|price| !is_price(&price.value.0)) {
                    let problem = price
                        .at
                        .problem(format!("{:?} is not a price", price.value.0));
                    self.problems
                        .push(problem.help("dollars per hour, as in 0.05"));
                }
                Some(SpotSpec {
                    max_price: price.map(|price| price.value.0.clone()),
                    fallback: value(&options.fallback).unwrap_or(false),
                })
            }
        };
        if let (Some(billing), Some(given), Some(spot)) = (billing, &common.billing, &common.spot)
            && billing != wanted.is_some()
        {
            let problem = given.at.problem("billing and spot contradict each other");
            self.problems.push(
                problem
                    .other(spot.at.span.clone(), "spot is here")
                    .help("keep one of the two"),
            );
        }
        wanted
    }
}

/// The keys that mean something on EC2 only and are given here.
pub(super) fn ec2_only(common: &RawCommon) -> Vec<At> {
    fn at<T>(given: &Option<Located<T>>) -> Option<At> {
        given.as_ref().map(|given| given.at.clone())
    }
    let given = [
        at(&common.ami),
        at(&common.ec2_size),
        at(&common.ssh_key),
        at(&common.security_groups),
        at(&common.subnet),
        at(&common.ebs),
        at(&common.auto_assign_ip),
        at(&common.allocate_ip_address),
        at(&common.ebs_optimized),
        at(&common.placement_group),
        at(&common.instance_profile_name),
        at(&common.spot),
        at(&common.billing),
        at(&common.ephemeral_drives),
        at(&common.cloud_config),
    ];
    given.into_iter().flatten().collect()
}

fn value<T: Copy>(given: &Option<Located<T>>) -> Option<T> {
    given.as_ref().map(|given| given.value)
}

/// A decimal above nothing, without sign or exponent.
fn is_price(text: &str) -> bool {
    let digits = text.bytes().all(|b| b.is_ascii_digit() || b == b'.');
    digits && text.parse::<f64>().is_ok_and(|price| price > 0.0)
}
