//! Secrets that AWS has, as both sides call them: the services that have some, names and ARNs, and what IAM calls reading one.

use crate::v1::AwsService;

impl AwsService {
    /// What it has, for a person.
    #[must_use]
    pub fn thing(self) -> &'static str {
        match self {
            Self::Unspecified => "unknown secret",
            Self::Ssm => "parameter",
            Self::SecretsManager => "secret",
        }
    }

    /// What one has to be allowed to read it.
    #[must_use]
    pub fn action(self) -> &'static str {
        match self {
            Self::Unspecified => "",
            Self::Ssm => "ssm:GetParameter",
            Self::SecretsManager => "secretsmanager:GetSecretValue",
        }
    }

    /// What a policy calls the one with this name or ARN; any account's, where that is not known.
    #[must_use]
    pub fn resource(self, id: &str, partition: &str, region: &str) -> String {
        if id.starts_with("arn:") {
            return id.to_owned();
        }
        match self {
            Self::Unspecified => String::new(),
            Self::Ssm => {
                // A version may stand behind the name: policies know none.
                let name = id.split(':').next().unwrap_or(id);
                let name = name.strip_prefix('/').unwrap_or(name);
                format!("arn:{partition}:ssm:{region}:*:parameter/{name}")
            }
            // The service puts six characters of its own behind a name.
            Self::SecretsManager => {
                format!("arn:{partition}:secretsmanager:{region}:*:secret:{id}-??????")
            }
        }
    }

    /// The statement of a policy that allows an action on a resource, as JSON in one line.
    #[must_use]
    pub fn statement(action: &str, resource: &str) -> String {
        format!(r#"{{"Effect":"Allow","Action":"{action}","Resource":"{resource}"}}"#)
    }
}

/// The region in an ARN (`arn:PARTITION:SERVICE:REGION:...`); `None` in a name, and where there is none.
#[must_use]
pub fn region_of_arn(id: &str) -> Option<&str> {
    let region = id.strip_prefix("arn:")?.split(':').nth(2)?;
    is_region(region).then_some(region)
}

/// Whether a region may be called so: it becomes a part of a host's name.
#[must_use]
pub fn is_region(text: &str) -> bool {
    let good = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    (1..=32).contains(&text.len()) && text.chars().all(good) && text.contains('-')
}

/// Whether a version of Secrets Manager is an id, and no label that may move to another value.
#[must_use]
pub fn is_uuid(text: &str) -> bool {
    let lengths = text.split('-').map(str::len);
    let is_hex = |c: char| c.is_ascii_hexdigit() || c == '-';
    lengths.eq([8, 4, 4, 4, 12]) && text.chars().all(is_hex)
}

/// The partition of a region, which begins its ARNs.
#[must_use]
pub fn partition_of_region(region: &str) -> &'static str {
    match region.split('-').next() {
        Some("cn") => "aws-cn",
        _ if region.starts_with("us-gov-") => "aws-us-gov",
        _ => "aws",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_policy_names_what_has_a_name_or_an_arn() {
        let arn = "arn:aws:secretsmanager:eu-west-1:1:secret:a-AbCdEf";
        for (service, id, want) in [
            (
                AwsService::Ssm,
                "/prod/token",
                "arn:aws:ssm:eu-1:*:parameter/prod/token",
            ),
            (
                AwsService::Ssm,
                "token:3",
                "arn:aws:ssm:eu-1:*:parameter/token",
            ),
            (
                AwsService::SecretsManager,
                "prod/creds",
                "arn:aws:secretsmanager:eu-1:*:secret:prod/creds-??????",
            ),
            (AwsService::SecretsManager, arn, arn),
        ] {
            assert_eq!(service.resource(id, "aws", "eu-1"), want);
        }
        assert_eq!(
            AwsService::statement("a:B", "arn:x"),
            r#"{"Effect":"Allow","Action":"a:B","Resource":"arn:x"}"#
        );
    }

    #[test]
    fn a_region_is_found_in_an_arn_and_nothing_else_is_one() {
        for (id, want) in [
            ("arn:aws:ssm:eu-west-1:1:parameter/a", Some("eu-west-1")),
            (
                "arn:aws-cn:secretsmanager:cn-north-1:1:secret:a",
                Some("cn-north-1"),
            ),
            ("arn:aws:ssm::1:parameter/a", None),
            ("arn:aws:ssm:evil.example/:1:parameter/a", None),
            ("arn:", None),
            ("/a/b:c:d:eu-west-1", None),
        ] {
            assert_eq!(region_of_arn(id), want, "{id}");
        }
        let uuid = "6f1b0d8e-3c52-4a43-9c4e-0a1b2c3d4e5f";
        assert!(is_uuid(uuid) && !is_uuid("AWSCURRENT") && !is_uuid(&uuid.replace('f', "g")));
        for (region, want) in [
            ("cn-north-1", "aws-cn"),
            ("us-gov-west-1", "aws-us-gov"),
            ("us-east-1", "aws"),
        ] {
            assert_eq!(partition_of_region(region), want);
        }
    }
}
