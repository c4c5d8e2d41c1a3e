//! The name by which a machine's connections find the master that has its cluster: the server name of the agent's TLS
//! ClientHello (RFC 6066, section 3), which whoever takes the connection can read without a key.

use std::fmt;
use std::str::FromStr;

use crate::ids::{BadId, ClusterName};

/// Digits of a route.
const DIGITS: usize = 20;

/// Behind a route, where it is a server's name. Nothing resolves it (RFC 9476 keeps `alt` out of the DNS).
const DOMAIN: &str = ".aot.alt";

/// The label of a cluster: `r` and 20 hexadecimal digits of the hash of its name. It says which cluster a connection is for,
/// and nothing of who may use it: that is shown by certificates and tokens.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Route(String);

impl Route {
    /// Of the cluster with this name.
    pub fn of(cluster: &ClusterName) -> Self {
        let hashed = format!("aot route\n{cluster}");
        let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, hashed.as_bytes());
        let hex = digest.as_ref().iter().map(|byte| format!("{byte:02x}"));
        let digits: String = hex.take(DIGITS / 2).collect();
        Self(format!("r{digits}"))
    }

    /// As the name of a server.
    pub fn server_name(&self) -> String {
        format!("{self}{DOMAIN}")
    }

    /// The route that a server's name is; `None` for every other name.
    pub fn of_server_name(name: &str) -> Option<Self> {
        name.strip_suffix(DOMAIN)?.parse().ok()
    }
}

impl FromStr for Route {
    type Err = BadId;

    fn from_str(text: &str) -> Result<Self, BadId> {
        let digits = text.strip_prefix('r').unwrap_or_default();
        let is_digit = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
        match digits.len() == DIGITS && digits.bytes().all(is_digit) {
            true => Ok(Self(text.to_owned())),
            false => Err(BadId {
                text: text.to_owned(),
                what: "a route",
                why: "r and 20 hexadecimal digits are wanted",
            }),
        }
    }
}

impl fmt::Display for Route {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_route_is_a_label_that_is_found_again_in_a_server_name() {
        let web = Route::of(&"web".parse().expect("a name"));
        let other = Route::of(&"web2".parse().expect("a name"));
        assert_ne!(web, other);
        assert_eq!(web.to_string().len(), 21);
        assert_eq!(web.to_string().parse(), Ok(web.clone()));
        assert_eq!(Route::of_server_name(&web.server_name()), Some(web.clone()));
        for strange in [
            "example.com",
            &web.to_string(),
            ".aot.alt",
            "r0.aot.alt",
            &web.server_name().to_uppercase(),
        ] {
            assert_eq!(Route::of_server_name(strange), None, "{strange}");
        }
    }
}
