//! Why a secret could not be read, for a person: what, on which thing, and the way out. Nothing of a value or of credentials is in it.

use std::time::SystemTime;

use aot_proto::secret::BadValue;
use aot_proto::v1::{AwsService, MachineSecret};

use super::answer::{AwsRefusal, RefusalKind};
use super::tries::Endurance;
use crate::imds;

/// From here on a clock is the reason for a signature that is not taken: AWS allows five minutes.
const SKEW_SECONDS: u64 = 240;

/// Longest name of a secret's place that is shown.
const PLACE_CHARS: usize = 200;

/// What happened.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    #[error(
        "this machine is a clone and has no instance profile: leave out `on: machine`, and the master reads it"
    )]
    Clone,
    #[error(
        "the machine has no instance profile: name one as `instance_profile_name`, or leave out `on: machine`"
    )]
    NoProfile,
    #[error("{0}: {way_out}", way_out = imds_way_out(.0))]
    Imds(imds::Error),
    #[error("the metadata service says {0} in a form that is not known here")]
    Metadata(&'static str),
    #[error(
        "the metadata service has no credentials of the role {role}: {code}; may ec2.amazonaws.com assume it, and is it in the instance profile?"
    )]
    NoCredentials { role: String, code: String },
    #[error("the request could not be signed")]
    Unsigned,
    #[error(
        "the machine has no root certificates to know AWS by: install the package ca-certificates"
    )]
    NoRoots,
    #[error(
        "cannot reach {url}: {why}; the subnet needs a way there (a NAT gateway or a VPC endpoint), or another address in agent.toml"
    )]
    Unreachable { url: String, why: String },
    #[error(
        "the certificate of {url} is not believed: {why}; are the machine's clock and its package ca-certificates up to date?"
    )]
    Untrusted { url: String, why: String },
    #[error("the connection to {url} broke: {why}")]
    Broken { url: String, why: String },
    #[error("the role {role} may not read it ({said}); it needs {statement}")]
    Denied {
        role: String,
        said: String,
        statement: String,
    },
    #[error(
        "the role {role} may not use the key that it is sealed with ({said}); it needs {statement}, with the key's ARN, and the key's own policy has to let it"
    )]
    NoKey {
        role: String,
        said: String,
        statement: String,
    },
    #[error(
        "there is none, or not that version ({said}); compare the name, which minds capitals, the region and the account"
    )]
    NotFound { said: String },
    #[error(
        "too many ask for secrets at once ({said}): launch at a pace (`update: {{concurrency}}`), or have SSM's throughput raised"
    )]
    Throttled { said: String },
    #[error(
        "the machine's clock is {minutes} min {way} AWS's: have it set, by chrony or systemd-timesyncd"
    )]
    Clock { minutes: u64, way: &'static str },
    #[error("AWS answers {said}")]
    Refused { said: String, is_passing: bool },
    #[error("what answers is not AWS, or the secret has no value")]
    Garbled,
    #[error("it has more than {0} KiB")]
    TooLong(usize),
    #[error(transparent)]
    Bad(#[from] BadValue),
}

/// Who was refused, and where.
pub(super) struct RefusedAt<'a> {
    pub role: &'a str,
    pub partition: &'a str,
    pub region: &'a str,
}

/// What happened with a secret.
#[derive(Debug)]
pub(super) struct FetchFailure {
    pub why: Error,
    /// Where it was looked for; empty where it did not come to that.
    pub region: String,
}

impl From<imds::Error> for Error {
    fn from(error: imds::Error) -> Self {
        Self::Imds(error)
    }
}

impl From<Error> for FetchFailure {
    fn from(why: Error) -> Self {
        let region = String::new();
        Self { why, region }
    }
}

impl FetchFailure {
    /// In one line, with the secret's name and place.
    pub(super) fn about(&self, secret: &MachineSecret) -> String {
        let (thing, why) = (secret.service().thing(), &self.why);
        let service = match secret.service() {
            AwsService::Ssm => "SSM ",
            AwsService::SecretsManager => "Secrets Manager ",
            AwsService::Unspecified => "",
        };
        let mut place: String = secret.id.chars().take(PLACE_CHARS).collect();
        if !secret.version.is_empty() {
            place = format!("{place}, version {}", secret.version);
        }
        let region = match self.region.as_str() {
            "" => String::new(),
            region => format!(" in {region}"),
        };
        format!(
            "cannot read the secret {:?} ({service}{thing} {place}{region}): {why}",
            secret.name
        )
    }
}

impl Error {
    /// Of an answer.
    pub(super) fn of_refusal(
        refusal: AwsRefusal,
        secret: &MachineSecret,
        at: &RefusedAt<'_>,
        now: SystemTime,
    ) -> Self {
        let said = match refusal.message.as_str() {
            "" => refusal.code.clone(),
            message => format!("{}: {}", refusal.code, of_any_machine(message, at.role)),
        };
        let (service, role) = (secret.service(), at.role.to_owned());
        match refusal.kind {
            RefusalKind::Denied => {
                let resource = service.resource(&secret.id, at.partition, at.region);
                let statement = AwsService::statement(service.action(), &resource);
                Self::Denied {
                    role,
                    said,
                    statement,
                }
            }
            RefusalKind::NoKey => {
                let key = format!("arn:{}:kms:{}:ACCOUNT:key/ID", at.partition, at.region);
                let statement = AwsService::statement("kms:Decrypt", &key);
                Self::NoKey {
                    role,
                    said,
                    statement,
                }
            }
            RefusalKind::NotFound => Self::NotFound { said },
            RefusalKind::Throttled => Self::Throttled { said },
            RefusalKind::Time => Self::of_time(refusal.at, said, now),
            RefusalKind::Passing => Self::Refused {
                said,
                is_passing: true,
            },
            RefusalKind::Other => Self::Refused {
                said,
                is_passing: false,
            },
            RefusalKind::Garbled => Self::Garbled,
        }
    }

    /// A signature that was not taken: the clock is the reason where it is that far from AWS's.
    fn of_time(at: Option<i64>, said: String, now: SystemTime) -> Self {
        let now = now.duration_since(SystemTime::UNIX_EPOCH);
        let now = now.map_or(0, |since| since.as_secs().cast_signed());
        let ahead = at.map_or(0, |at| now - at);
        match ahead.unsigned_abs() {
            seconds if seconds >= SKEW_SECONDS => Self::Clock {
                minutes: seconds.div_ceil(60),
                way: if ahead > 0 { "ahead of" } else { "behind" },
            },
            _ => Self::Refused {
                said,
                is_passing: false,
            },
        }
    }

    /// How long it is worth trying again.
    pub(super) fn endurance(&self) -> Endurance {
        match self {
            Self::Throttled { .. } => Endurance::Long,
            // A role that was just given to a machine is there some seconds later.
            Self::NoProfile
            | Self::NoCredentials { .. }
            | Self::Imds(_)
            | Self::Unreachable { .. }
            | Self::Broken { .. }
            | Self::Refused {
                is_passing: true, ..
            } => Endurance::Short,
            _ => Endurance::None,
        }
    }
}

/// What AWS says, without this machine's own id: those that fail alike are shown as one.
fn of_any_machine(message: &str, role: &str) -> String {
    let session = format!("assumed-role/{role}/");
    let Some((before, rest)) = message.split_once(&session) else {
        return message.to_owned();
    };
    let end = rest.find(' ').unwrap_or(rest.len());
    format!("{before}assumed-role/{role}{}", &rest[end..])
}

fn imds_way_out(error: &imds::Error) -> &'static str {
    match error {
        imds::Error::Status { status: 403, .. } => "is it switched off (`HttpEndpoint: disabled`)?",
        imds::Error::Timeout { .. } | imds::Error::Broken { .. } => {
            "is it switched off, or the hop limit too low (HttpPutResponseHopLimit: an agent in a container needs 2)?"
        }
        imds::Error::Status { .. } => "what answers there may not be EC2's",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn secret(service: AwsService) -> MachineSecret {
        MachineSecret {
            name: "db".to_owned(),
            service: service.into(),
            id: "/prod/db".to_owned(),
            version: "3".to_owned(),
            ..MachineSecret::default()
        }
    }

    #[test]
    fn a_failure_names_the_secret_its_place_and_the_way_out() {
        let failure = FetchFailure::from(Error::NoProfile);
        let said = failure.about(&secret(AwsService::Ssm));
        let want = "cannot read the secret \"db\" (SSM parameter /prod/db, version 3): the machine has no instance profile: ";
        assert!(said.starts_with(want), "{said}");
        let failure = FetchFailure {
            why: Error::NotFound {
                said: "ResourceNotFoundException".to_owned(),
            },
            region: "eu-west-1".to_owned(),
        };
        let said = failure.about(&secret(AwsService::SecretsManager));
        let want = "cannot read the secret \"db\" (Secrets Manager secret /prod/db, version 3 in eu-west-1): there is none";
        assert!(said.starts_with(want), "{said}");
    }

    #[test]
    fn a_clock_is_the_reason_only_where_it_is_off() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(10_000);
        for (at, said) in [
            (Some(10_000 - 590), "10 min ahead of AWS's"),
            (Some(10_000 + 3_600), "60 min behind AWS's"),
            (Some(10_000 - 5), "AWS answers x"),
            (None, "AWS answers x"),
        ] {
            let why = Error::of_time(at, "x".to_owned(), now).to_string();
            assert!(why.contains(said), "{why}");
        }
    }

    #[test]
    fn machines_that_are_refused_alike_say_the_same() {
        let said = |machine: &str| {
            let message = format!(
                "User: arn:aws:sts::1:assumed-role/web/{machine} is not authorized to perform: x"
            );
            of_any_machine(&message, "web")
        };
        let want = "User: arn:aws:sts::1:assumed-role/web is not authorized to perform: x";
        assert_eq!(
            (said("i-0a"), said("i-0b")),
            (want.to_owned(), want.to_owned())
        );
        assert_eq!(of_any_machine("no", "web"), "no");
        assert_eq!(
            of_any_machine("assumed-role/web/i-0", "web"),
            "assumed-role/web"
        );
    }

    #[test]
    fn what_passes_is_tried_again_and_what_stays_is_not() {
        let refused = |is_passing| Error::Refused {
            said: String::new(),
            is_passing,
        };
        assert_eq!(refused(true).endurance(), Endurance::Short);
        assert_eq!(refused(false).endurance(), Endurance::None);
        assert_eq!(Error::NoRoots.endurance(), Endurance::None);
        let throttled = Error::Throttled {
            said: String::new(),
        };
        assert_eq!(throttled.endurance(), Endurance::Long);
    }
}
