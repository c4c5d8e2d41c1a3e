//! Names that a machine can have. Asked by the reading of cluster.yml and by the agent that gives its machine the name, so
//! that what the one takes the other can do. Pure.

/// Longest name of a machine on Linux (`HOST_NAME_MAX`, sethostname(2)).
pub const MAX_BYTES: usize = 64;
/// Longest part of one between dots (RFC 1123, 2.1; RFC 1035, 2.3.4).
const MAX_LABEL_BYTES: usize = 63;

/// Names of the machine itself, and of groups of machines, in the usual /etc/hosts: with another meaning they would lead
/// programs elsewhere, or everybody here.
const RESERVED: [&str; 15] = [
    "localhost",
    "localhost4",
    "localhost6",
    "localhost.localdomain",
    "localhost4.localdomain4",
    "localhost6.localdomain6",
    "loopback",
    "broadcasthost",
    "ip6-localhost",
    "ip6-loopback",
    "ip6-localnet",
    "ip6-mcastprefix",
    "ip6-allnodes",
    "ip6-allrouters",
    "ip6-allhosts",
];

/// Whether a machine may have this name: labels of letters, digits and inner hyphens with dots between (RFC 1123, 2.1), at
/// most 64 characters in all, no address, and none of the names that mean the machine itself.
///
/// # Errors
/// The rule that it breaks, as the end of "NAME is not a host name: ...".
pub fn check(name: &str) -> Result<(), &'static str> {
    if name.is_empty() {
        return Err("it is empty");
    }
    if name.len() > MAX_BYTES {
        return Err("it has more than 64 characters, the most that Linux allows");
    }
    for label in name.split('.') {
        if label.is_empty() {
            return Err("a part between dots is empty");
        }
        if label.len() > MAX_LABEL_BYTES {
            return Err("it has more than 63 characters between dots");
        }
        if !label
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b == b'-')
        {
            return Err("only letters, digits, hyphens and dots are allowed");
        }
        if label.starts_with('-') || label.ends_with('-') {
            return Err("a hyphen may not be its first or last character, nor stand beside a dot");
        }
    }
    if name.split('.').all(is_number) {
        return Err("it would be read as an address");
    }
    let lower = name.to_ascii_lowercase();
    // RFC 6761, 6.3: every name below localhost means the machine itself.
    if RESERVED.contains(&lower.as_str()) || lower.ends_with(".localhost") {
        return Err("it means the machine itself, or all machines, everywhere");
    }
    Ok(())
}

/// A part of an address, as inet_aton(3) reads it: decimal, octal or hexadecimal.
fn is_number(label: &str) -> bool {
    let hex = label
        .strip_prefix("0x")
        .or_else(|| label.strip_prefix("0X"));
    match hex {
        Some(digits) => digits.bytes().all(|b| b.is_ascii_hexdigit()),
        None => label.bytes().all(|b| b.is_ascii_digit()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_a_machine_can_have_pass() {
        let (label, all) = (
            "a".repeat(63),
            format!("{}.{}", "a".repeat(63 - 32), "b".repeat(32)),
        );
        assert_eq!(all.len(), 64);
        for good in [
            "a",
            "1a",
            "A-b",
            "node1.example.com",
            "10.0.0.1a",
            "3com",
            "local",
            &label,
            &all,
        ] {
            assert_eq!(check(good), Ok(()), "{good}");
        }
    }

    #[test]
    fn names_that_no_machine_can_have_are_refused() {
        let (label, all) = (
            "a".repeat(64),
            format!("{}.{}", "a".repeat(32), "b".repeat(32)),
        );
        for bad in [
            "",
            "a..b",
            ".a",
            "a.",
            "-a",
            "a-",
            "a-.b",
            "a.-b",
            "a_b",
            "a b",
            "a\n",
            "é",
            "10.0.0.1",
            "1234",
            "0x7f.1",
            "localhost",
            "LocalHost",
            "localhost.localdomain",
            "ip6-localhost",
            "ip6-allhosts",
            "web.localhost",
            &label,
            &all,
        ] {
            assert!(check(bad).is_err(), "{bad:?}");
        }
    }
}
