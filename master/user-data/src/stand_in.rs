//! User-data before anything is known of the batch: whether a cloud_config will be taken, and will fit.

use std::path::PathBuf;

use aot_model::spec::MemberSpec;
use aot_proto::ids::ClusterName;
use aot_proto::route::Route;
use aot_provider::BootSpec;

use super::{Error, SAMPLE_TOKEN, for_batch};

/// A stand-in of about the size of a real one. `advertise`: where agents dial in; none = not known yet.
pub fn stand_in(advertise: &[String], user_part: Option<String>) -> BootSpec {
    let hash = "0".repeat(64);
    let longest = || vec!["255.255.255.255:65535".to_owned(); 2];
    BootSpec {
        master: if advertise.is_empty() {
            longest()
        } else {
            advertise.to_vec()
        },
        route: Route::of(&sample_cluster()),
        ca_pem: format!(
            "-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n",
            "A".repeat(800)
        ),
        join_token: hash.clone(),
        agent_sha256: [
            ("aarch64".to_owned(), hash.clone()),
            ("x86_64".to_owned(), hash),
        ]
        .into(),
        agent_path: PathBuf::new(),
        user_part,
    }
}

/// Any will do: all routes are of one length.
fn sample_cluster() -> ClusterName {
    "c".parse().expect("a name")
}

/// Whether a launch would take this cloud_config for these members.
///
/// # Errors
/// Those of [`super::render`].
pub fn check_part(text: &str, cluster: &str, members: &[MemberSpec]) -> Result<(), Error> {
    let boot = stand_in(&[], Some(text.to_owned()));
    for_batch(&boot, cluster, members, Some(SAMPLE_TOKEN)).map(drop)
}
