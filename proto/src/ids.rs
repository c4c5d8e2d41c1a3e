//! Names and ids as types, so that one can't be passed for another.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Why a text is not the id or name that it should be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not {what}: {why}")]
pub struct BadId {
    /// The text that was refused.
    pub text: String,
    /// What it should have been, with its article.
    pub what: &'static str,
    /// The rule that it breaks.
    pub why: &'static str,
}

/// A label as in RFC 1123: lower-case letters, digits and hyphens, a letter first, at most 63 characters.
fn check_label(text: &str, what: &'static str) -> Result<(), BadId> {
    let bad = |why| {
        Err(BadId {
            text: text.to_owned(),
            what,
            why,
        })
    };
    if text.is_empty() {
        return bad("it is empty");
    }
    if text.len() > 63 {
        return bad("it has more than 63 characters");
    }
    if !text.starts_with(|c: char| c.is_ascii_lowercase()) {
        return bad("it must start with a lower-case letter");
    }
    if !text
        .chars()
        .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-')
    {
        return bad("only lower-case letters, digits and hyphens are allowed");
    }
    Ok(())
}

macro_rules! label {
    ($(#[$doc:meta])* $name:ident, $what:literal) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(String);

        impl $name {
            /// The text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = BadId;
            fn from_str(text: &str) -> Result<Self, BadId> {
                check_label(text, $what)?;
                Ok(Self(text.to_owned()))
            }
        }

        impl TryFrom<String> for $name {
            type Error = BadId;
            fn try_from(text: String) -> Result<Self, BadId> {
                text.parse()
            }
        }

        impl From<$name> for String {
            fn from(value: $name) -> Self {
                value.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

label! {
    /// Name of a cluster; also the value of its `Cluster` tag.
    ClusterName, "a cluster name"
}
label! {
    /// Name of an instance, unique in its cluster; also its default host name.
    InstanceName, "an instance name"
}
label! {
    /// Name of a pool, unique in its cluster.
    PoolName, "a pool name"
}

macro_rules! ulid_id {
    ($(#[$doc:meta])* $name:ident, $prefix:literal, $what:literal) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(ulid::Ulid);

        impl $name {
            /// From its parts: milliseconds since 1970 and 80 random bits. Ids made later sort later.
            pub fn from_parts(unix_ms: u64, random: u128) -> Self {
                Self(ulid::Ulid::from_parts(unix_ms, random))
            }
        }

        impl $name {
            /// When it was made, in milliseconds since 1970.
            pub fn unix_ms(self) -> u64 {
                self.0.timestamp_ms()
            }
        }

        impl FromStr for $name {
            type Err = BadId;
            fn from_str(text: &str) -> Result<Self, BadId> {
                let bad = |why| BadId { text: text.to_owned(), what: $what, why };
                let rest = text.strip_prefix($prefix).ok_or_else(|| bad(concat!("it must start with ", $prefix)))?;
                ulid::Ulid::from_string(rest).map(Self).map_err(|_| bad("what follows the prefix is not a ULID"))
            }
        }

        impl TryFrom<String> for $name {
            type Error = BadId;
            fn try_from(text: String) -> Result<Self, BadId> {
                text.parse()
            }
        }

        impl From<$name> for String {
            fn from(value: $name) -> Self {
                value.to_string()
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!($prefix, "{}"), self.0)
            }
        }
    };
}

ulid_id! {
    /// One asked-for run over a target: an exec, a launch, an apply.
    JobId, "job-", "a job id"
}
ulid_id! {
    /// One start of one process on one machine: a job's command there, or one attempt of one stage.
    RunId, "run-", "a run id"
}

/// The provider's id of a machine: `i-0ab...` on EC2, `local-...` here. Opaque; at most 64 characters.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct MachineId(String);

impl MachineId {
    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for MachineId {
    type Err = BadId;
    fn from_str(text: &str) -> Result<Self, BadId> {
        let good = !text.is_empty()
            && text.len() <= 64
            && text.chars().all(|c| c.is_ascii_alphanumeric() || c == '-');
        if good {
            return Ok(Self(text.to_owned()));
        }
        Err(BadId {
            text: text.to_owned(),
            what: "a machine id",
            why: "1 to 64 letters, digits and hyphens are allowed",
        })
    }
}

impl TryFrom<String> for MachineId {
    type Error = BadId;
    fn try_from(text: String) -> Result<Self, BadId> {
        text.parse()
    }
}

impl From<MachineId> for String {
    fn from(value: MachineId) -> Self {
        value.0
    }
}

impl fmt::Display for MachineId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What a certificate says of its holder (SPIFFE-ID, section 2):
/// `spiffe://<master id>/cluster/<cluster>/instance/<name>/<machine id>`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct SpiffeId {
    /// The master's own id: the trust domain.
    pub master: String,
    /// The cluster.
    pub cluster: ClusterName,
    /// The instance's name: a label.
    pub instance: InstanceName,
    /// The identity proper.
    pub machine: MachineId,
}

impl fmt::Display for SpiffeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            master,
            cluster,
            instance,
            machine,
        } = self;
        write!(
            f,
            "spiffe://{master}/cluster/{cluster}/instance/{instance}/{machine}"
        )
    }
}

impl FromStr for SpiffeId {
    type Err = BadId;
    fn from_str(text: &str) -> Result<Self, BadId> {
        let bad = || BadId {
            text: text.to_owned(),
            what: "a SPIFFE id of an agent",
            why: "spiffe://MASTER/cluster/C/instance/NAME/MACHINE is wanted",
        };
        let rest = text.strip_prefix("spiffe://").ok_or_else(bad)?;
        let parts: Vec<&str> = rest.split('/').collect();
        let [master, "cluster", cluster, "instance", instance, machine] = parts[..] else {
            return Err(bad());
        };
        Ok(Self {
            master: master.to_owned(),
            cluster: cluster.parse()?,
            instance: instance.parse()?,
            machine: machine.parse()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_keep_to_the_rule() {
        for good in [
            "a",
            "web1",
            "web-1",
            "a23456789012345678901234567890123456789012345678901234567890123",
        ] {
            assert_eq!(good.parse::<InstanceName>().expect(good).as_str(), good);
        }
        for bad in [
            "",
            "1a",
            "-a",
            "A",
            "a_b",
            "a.b",
            "a/b",
            "a234567890123456789012345678901234567890123456789012345678901234",
        ] {
            assert!(bad.parse::<InstanceName>().is_err(), "{bad:?} was taken");
        }
    }

    #[test]
    fn ids_print_and_parse_back() {
        let job = JobId::from_parts(1_700_000_000_000, 7);
        assert_eq!(job.to_string().parse::<JobId>(), Ok(job));
        assert!(
            job.to_string()
                .replace("job-", "run-")
                .parse::<JobId>()
                .is_err()
        );
        assert!(JobId::from_parts(1, 0) < JobId::from_parts(2, 0));
    }

    #[test]
    fn spiffe_ids_print_and_parse_back() {
        let text = "spiffe://m1/cluster/hadoop/instance/web1/i-0abc";
        let id: SpiffeId = text.parse().expect("as in the design");
        assert_eq!(id.to_string(), text);
        for bad in [
            "",
            "spiffe://m1",
            "spiffe://m1/cluster/h/instance/web1/i-0abc/more",
            "https://m1/cluster/h/instance/w/i-0",
        ] {
            assert!(bad.parse::<SpiffeId>().is_err(), "{bad:?} was taken");
        }
    }
}
