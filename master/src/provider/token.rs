//! Client tokens: what makes a repeated launch find its machines. Called by `run` before it writes its intent; pure.

use aws_lc_rs::digest;

use super::ClientToken;

/// Characters of the hash in a token; with its prefix it stays below RunInstances' 64.
const HASH_CHARS: usize = 56;

/// The token of one launch call: the same arguments give the same token, any other argument gives another.
///
/// `generation` counts the cluster's launches, `attempt` the tries of these members (see `LaunchSpec::attempt`). At most
/// 64 ASCII characters (EC2 API Reference, "Ensuring idempotency").
pub fn client_token(
    cluster_uuid: &str,
    pool_label: &str,
    generation: u64,
    attempt: u32,
    instance_type: Option<&str>,
    subnet: Option<&str>,
) -> ClientToken {
    let (generation, attempt) = (generation.to_string(), attempt.to_string());
    let parts = [
        Some(cluster_uuid),
        Some(pool_label),
        Some(generation.as_str()),
        Some(attempt.as_str()),
        instance_type,
        subnet,
    ];
    let hash = hash_hex(&parts);
    ClientToken(format!("aot-{}", &hash[..HASH_CHARS]))
}

/// Lower-case hex SHA-256 over the parts, each with its length before it, so that no two lists read the same.
pub(super) fn hash_hex(parts: &[Option<&str>]) -> String {
    let mut context = digest::Context::new(&digest::SHA256);
    for part in parts {
        match part {
            Some(text) => {
                context.update(&(text.len() as u64 + 1).to_be_bytes());
                context.update(text.as_bytes());
            }
            None => context.update(&0_u64.to_be_bytes()),
        }
    }
    hex(context.finish().as_ref())
}

/// Lower-case hex.
pub(super) fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes
        .iter()
        .fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
            write!(text, "{byte:02x}").expect("writing to a string cannot fail");
            text
        })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn every_argument_counts() {
        let base = client_token("u", "web", 1, 1, Some("m5.large"), Some("a"));
        let others = [
            client_token("v", "web", 1, 1, Some("m5.large"), Some("a")),
            client_token("u", "db", 1, 1, Some("m5.large"), Some("a")),
            client_token("u", "web", 2, 1, Some("m5.large"), Some("a")),
            client_token("u", "web", 1, 2, Some("m5.large"), Some("a")),
            client_token("u", "web", 1, 1, Some("m5.xlarge"), Some("a")),
            client_token("u", "web", 1, 1, Some("m5.large"), None),
            client_token("u", "web", 1, 1, None, Some("m5.large")),
            client_token("u", "web", 1, 1, None, None),
            client_token("u", "web", 1, 1, None, Some("")),
        ];
        for (index, other) in others.iter().enumerate() {
            assert_ne!(&base, other, "case {index}");
        }
        assert_ne!(others[7], others[8]);
    }

    proptest! {
        #[test]
        fn fits_run_instances(uuid in ".*", label in ".*", generation: u64, attempt: u32) {
            let token = client_token(&uuid, &label, generation, attempt, None, None);
            prop_assert!(token.0.len() <= 64 && token.0.is_ascii());
            prop_assert_eq!(token, client_token(&uuid, &label, generation, attempt, None, None));
        }
    }
}
