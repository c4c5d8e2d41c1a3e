//! The role of the machine's instance profile, as its metadata service says it (EC2 User Guide, "Retrieve security credentials from
//! instance metadata"): whose credentials requests are signed with, and where AWS is for this machine.

use aot_proto::aws::{is_region, partition_of_region};
use aws_credential_types::Credentials;
use serde::Deserialize;

use super::failure::Error;
use crate::imds::Imds;

const ROLES: &str = "/latest/meta-data/iam/security-credentials/";
const REGION: &str = "/latest/meta-data/placement/region";
const DOMAIN: &str = "/latest/meta-data/services/domain";
const PARTITION: &str = "/latest/meta-data/services/partition";

/// Who asks, and where.
pub(super) struct MachineRole {
    pub name: String,
    pub credentials: Credentials,
    /// The machine's own.
    pub region: String,
    /// How the names of services end here.
    pub domain: String,
    /// How ARNs begin here.
    pub partition: String,
}

/// As the metadata service has them. Never printed.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct ServedCredentials {
    code: String,
    #[serde(default)]
    access_key_id: String,
    #[serde(default)]
    secret_access_key: String,
    #[serde(default)]
    token: String,
}

/// Asks for all of it.
///
/// # Errors
/// When the service does not answer, or the machine has no role.
pub(super) async fn read(base: &str) -> Result<MachineRole, Error> {
    let imds = Imds::open(base).await?;
    // One a line; there is one.
    let roles = imds.find(ROLES).await?.unwrap_or_default();
    let name = roles.lines().next().unwrap_or_default().trim();
    if name.is_empty() {
        return Err(Error::NoProfile);
    }
    if !is_role_name(name) {
        return Err(Error::Metadata("its role"));
    }
    let served = imds.get(&format!("{ROLES}{name}")).await?;
    let credentials = credentials(name, &served)?;
    let region = imds.get(REGION).await?.trim().to_owned();
    if !is_region(&region) {
        return Err(Error::Metadata("its region"));
    }
    let domain = imds.find(DOMAIN).await?.unwrap_or_default();
    let partition = imds.find(PARTITION).await?.unwrap_or_default();
    Ok(MachineRole {
        name: name.to_owned(),
        credentials,
        domain: checked(&domain, usual_domain(&region)),
        partition: checked(&partition, partition_of_region(&region)),
        region,
    })
}

/// What is said, where it can be a part of a name; else what is usual.
fn checked(said: &str, usual: &str) -> String {
    let said = said.trim();
    let is_good = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "-.".contains(c);
    let is_good = !said.is_empty() && said.len() <= 64 && said.chars().all(is_good);
    if is_good { said } else { usual }.to_owned()
}

fn usual_domain(region: &str) -> &'static str {
    match partition_of_region(region) {
        "aws-cn" => "amazonaws.com.cn",
        _ => "amazonaws.com",
    }
}

/// IAM's own rule for names.
fn is_role_name(text: &str) -> bool {
    let is_good = |c: char| c.is_ascii_alphanumeric() || "+=,.@_-".contains(c);
    text.len() <= 64 && text.chars().all(is_good)
}

fn credentials(role: &str, served: &str) -> Result<Credentials, Error> {
    let bad = || Error::Metadata("its credentials");
    // Nothing of the text may get into an error.
    let served: ServedCredentials = serde_json::from_str(served).map_err(|_| bad())?;
    if served.code != "Success" {
        let is_good = |c: &char| c.is_ascii_alphanumeric();
        return Err(Error::NoCredentials {
            role: role.to_owned(),
            code: served.code.chars().filter(is_good).take(64).collect(),
        });
    }
    let parts = [
        &served.access_key_id,
        &served.secret_access_key,
        &served.token,
    ];
    // They become headers.
    let is_good = |part: &&String| !part.is_empty() && part.chars().all(|c| c.is_ascii_graphic());
    if !parts.iter().all(is_good) {
        return Err(bad());
    }
    Ok(Credentials::new(
        served.access_key_id,
        served.secret_access_key,
        Some(served.token),
        None,
        "instance profile",
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_are_those_that_are_served_and_no_failure_shows_any() {
        let good = r#"{"Code": "Success", "AccessKeyId": "ASIA1", "SecretAccessKey": "hush/+=", "Token": "t0k=="}"#;
        let read = credentials("web", good).map_err(|why| why.to_string());
        let read = read.unwrap();
        assert_eq!(
            (read.access_key_id(), read.secret_access_key()),
            ("ASIA1", "hush/+=")
        );
        assert_eq!(read.session_token(), Some("t0k=="));
        for (bad, said) in [
            (
                good.replace("Success", "AssumeRoleUnauthorizedAccess"),
                "AssumeRoleUnauthorizedAccess",
            ),
            (good.replace("t0k==", ""), "its credentials"),
            (good.replace("hush", "hush\\r\\n"), "its credentials"),
            (good[..60].to_owned(), "its credentials"),
            (String::new(), "its credentials"),
        ] {
            let Err(why) = credentials("web", &bad) else {
                panic!("{said}");
            };
            let why = why.to_string();
            assert!(why.contains(said) && !why.contains("hush"), "{why}");
        }
    }

    #[test]
    fn what_the_service_says_of_names_is_taken_where_it_can_be_one() {
        for (said, want) in [
            ("amazonaws.com.cn\n", "amazonaws.com.cn"),
            ("c2s.ic.gov", "c2s.ic.gov"),
            ("", "usual"),
            ("evil/x", "usual"),
            ("a b", "usual"),
        ] {
            assert_eq!(checked(said, "usual"), want);
        }
        assert_eq!(usual_domain("cn-north-1"), "amazonaws.com.cn");
        assert_eq!(usual_domain("eu-west-1"), "amazonaws.com");
        for (name, want) in [
            ("web_1+=,.@-", true),
            ("../x", false),
            ("a b", false),
            (&*"x".repeat(65), false),
        ] {
            assert_eq!(is_role_name(name), want, "{name}");
        }
    }
}
