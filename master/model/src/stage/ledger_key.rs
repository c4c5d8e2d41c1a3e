//! What makes a run of a stage the same run: its ledger key. Computed by `run`, compared by `plan`.

use std::collections::BTreeMap;

use aws_lc_rs::digest::{Context, SHA256};

use crate::hash::hex;
use crate::secret::{SecretUse, SecretVersions};

/// Lower-case hex SHA-256 over bundle, arguments and environment of a stage. A stage that succeeded under a key is not
/// run again under the same key. Every part goes in with its length, so that no two inputs read alike.
pub fn ledger_key(bundle_sha256: &str, args: &[String], env: &BTreeMap<String, String>) -> String {
    let mut hash = Context::new(&SHA256);
    let mut part = |text: &str| {
        hash.update(&(text.len() as u64).to_le_bytes());
        hash.update(text.as_bytes());
    };
    part("aot stage 1");
    part(bundle_sha256);
    part(&args.len().to_string());
    args.iter().for_each(|arg| part(arg));
    for (key, value) in env {
        part(key);
        part(value);
    }
    hex(hash.finish().as_ref())
}

/// The key of a stage that is given secrets: which they are, and, where another value is to run it again, their versions. One
/// that is given none keeps its key.
pub fn key_with_secrets(key: String, secrets: &[SecretUse], versions: &SecretVersions) -> String {
    if secrets.is_empty() && versions.is_empty() {
        return key;
    }
    let mut hash = Context::new(&SHA256);
    let mut part = |text: &str| {
        hash.update(&(text.len() as u64).to_le_bytes());
        hash.update(text.as_bytes());
    };
    let mut secrets: Vec<&SecretUse> = secrets.iter().collect();
    secrets.sort_by(|a, b| a.name.cmp(&b.name)); // their order means nothing
    part("aot stage secrets 1");
    part(&key);
    part(&secrets.len().to_string());
    for secret in secrets {
        part(&secret.name);
        part(secret.env.as_deref().unwrap_or_default());
    }
    for (name, version) in versions {
        part(name);
        part(version);
    }
    hex(hash.finish().as_ref())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn key(sha: &str, args: &[&str], env: &[(&str, &str)]) -> String {
        let args: Vec<String> = args.iter().map(|arg| (*arg).to_owned()).collect();
        let env = env
            .iter()
            .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
            .collect();
        ledger_key(sha, &args, &env)
    }

    #[test]
    fn every_part_counts_and_none_runs_into_the_next() {
        let keys = [
            key("ab", &[], &[]),
            key("cd", &[], &[]),
            key("ab", &["x"], &[]),
            key("ab", &["x", ""], &[]),
            key("ab", &["", "x"], &[]),
            key("ab", &["x", "y"], &[]),
            key("ab", &["xy"], &[]),
            key("ab", &[], &[("x", "y")]),
            key("ab", &[], &[("xy", "")]),
            key("ab", &["x"], &[("y", "")]),
        ];
        for (index, key) in keys.iter().enumerate() {
            assert_eq!(key.len(), 64);
            assert!(!keys[..index].contains(key), "case {index} repeats a key");
        }
    }

    #[test]
    fn the_key_is_the_same_in_every_version() {
        // The store keeps keys: another encoding would run every stage of every cluster again.
        let known = key("ab", &["--level", "0"], &[("A", "1")]);
        assert_eq!(
            known,
            "3afb854385c18da1a8bdce3c294c946f13e6a189cdaffef81043a502af6783c5"
        );
    }

    #[test]
    fn what_a_stage_is_given_in_secret_counts_and_its_value_where_that_is_wanted() {
        let given = |name: &str, env: Option<&str>| SecretUse {
            name: name.to_owned(),
            env: env.map(str::to_owned),
        };
        let versions = |pairs: &[(&str, &str)]| -> SecretVersions {
            let owned =
                |(name, version): &(&str, &str)| ((*name).to_owned(), (*version).to_owned());
            pairs.iter().map(owned).collect()
        };
        let of = |secrets: &[SecretUse], pairs: &[(&str, &str)]| {
            key_with_secrets("key".to_owned(), secrets, &versions(pairs))
        };
        let none = of(&[], &[]);
        assert_eq!(
            none, "key",
            "stages of before there were secrets keep their key"
        );
        let keys = [
            none,
            of(&[given("db", None)], &[]),
            of(&[given("db", Some("DB"))], &[]),
            of(&[given("db", None), given("tls", None)], &[]),
            of(&[given("db", None)], &[("db", "1")]),
            of(&[given("db", None)], &[("db", "2")]),
        ];
        for (index, key) in keys.iter().enumerate() {
            assert!(!keys[..index].contains(key), "case {index} repeats a key");
        }
        let other_order = of(&[given("tls", None), given("db", None)], &[]);
        assert_eq!(other_order, keys[3], "their order means nothing");
    }

    proptest! {
        #[test]
        fn same_input_same_key(sha in "[0-9a-f]{8}", args in prop::collection::vec(".*", 0..4), other in ".*") {
            let env = BTreeMap::new();
            let first = ledger_key(&sha, &args, &env);
            prop_assert_eq!(&first, &ledger_key(&sha, &args, &env));
            let mut more = args.clone();
            more.push(other);
            prop_assert_ne!(&first, &ledger_key(&sha, &more, &env));
        }
    }
}
