//! Where AWS answers: under the names that it has for a region, or at an address of the settings. Pure.

use std::str::FromStr;

use aot_proto::v1::AwsService;

/// `https://HOST[:PORT]`; also `http://`, which sends values in the clear: for tests, and what runs on the machine itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct AwsEndpoint {
    pub(super) is_tls: bool,
    /// A v6 address stands in brackets.
    host: String,
    port: u16,
}

/// An address that can't be one.
#[derive(Debug, thiserror::Error)]
#[error("{0:?} is not the address of a service: write https://HOST or https://HOST:PORT")]
pub(crate) struct BadEndpoint(String);

/// What the settings say; what they don't is AWS's own.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct AwsEndpoints {
    pub(crate) ssm: Option<AwsEndpoint>,
    pub(crate) secrets_manager: Option<AwsEndpoint>,
}

impl AwsEndpoints {
    /// Where a service of a region answers; `domain` is AWS's own in this partition, such as `amazonaws.com`.
    pub(super) fn of(&self, service: AwsService, region: &str, domain: &str) -> AwsEndpoint {
        let (said, name) = match service {
            AwsService::SecretsManager => (&self.secrets_manager, "secretsmanager"),
            AwsService::Ssm | AwsService::Unspecified => (&self.ssm, "ssm"),
        };
        said.clone().unwrap_or_else(|| AwsEndpoint {
            is_tls: true,
            host: format!("{name}.{region}.{domain}"),
            port: 443,
        })
    }
}

impl AwsEndpoint {
    /// Without brackets.
    pub(super) fn host(&self) -> &str {
        let inner = self.host.strip_prefix('[');
        inner
            .and_then(|host| host.strip_suffix(']'))
            .unwrap_or(&self.host)
    }

    pub(super) fn port(&self) -> u16 {
        self.port
    }

    /// As the Host header has it: the usual port is left out.
    pub(super) fn authority(&self) -> String {
        match (self.is_tls, self.port) {
            (true, 443) | (false, 80) => self.host.clone(),
            (_, port) => format!("{}:{port}", self.host),
        }
    }

    /// As a person writes it.
    pub(super) fn url(&self) -> String {
        let scheme = if self.is_tls { "https" } else { "http" };
        format!("{scheme}://{}", self.authority())
    }
}

impl FromStr for AwsEndpoint {
    type Err = BadEndpoint;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let bad = || BadEndpoint(text.chars().take(200).collect());
        let (is_tls, rest) = match (text.strip_prefix("https://"), text.strip_prefix("http://")) {
            (Some(rest), _) => (true, rest),
            (None, Some(rest)) => (false, rest),
            (None, None) => return Err(bad()),
        };
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        let usual = if is_tls { 443 } else { 80 };
        let (host, port) = match rest.rsplit_once(':') {
            Some((host, port)) if !port.ends_with(']') => (host, port.parse().map_err(|_| bad())?),
            _ => (rest, usual),
        };
        let is_good = |c: char| c.is_ascii_alphanumeric() || "-._".contains(c);
        let is_v6 = host
            .strip_prefix('[')
            .and_then(|host| host.strip_suffix(']'))
            .is_some_and(|host| host.parse::<std::net::Ipv6Addr>().is_ok());
        let is_name = !host.is_empty() && host.chars().all(is_good);
        if port == 0 || !(is_v6 || is_name) {
            return Err(bad());
        }
        Ok(Self {
            is_tls,
            host: host.to_ascii_lowercase(),
            port,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_region_has_its_own_names_unless_the_settings_say_others() {
        let plain = AwsEndpoints::default();
        for (service, domain, want) in [
            (
                AwsService::Ssm,
                "amazonaws.com",
                "https://ssm.eu-west-1.amazonaws.com",
            ),
            (
                AwsService::SecretsManager,
                "amazonaws.com.cn",
                "https://secretsmanager.eu-west-1.amazonaws.com.cn",
            ),
        ] {
            assert_eq!(plain.of(service, "eu-west-1", domain).url(), want);
        }
        let fips = AwsEndpoints {
            ssm: "https://ssm-fips.us-east-1.amazonaws.com".parse().ok(),
            ..plain
        };
        let of = |service| fips.of(service, "us-east-1", "amazonaws.com").url();
        assert_eq!(
            of(AwsService::Ssm),
            "https://ssm-fips.us-east-1.amazonaws.com"
        );
        assert_eq!(
            of(AwsService::SecretsManager),
            "https://secretsmanager.us-east-1.amazonaws.com"
        );
    }

    #[test]
    fn an_address_is_a_scheme_a_host_and_a_port() {
        for (text, host, port, url) in [
            ("https://A.example", "a.example", 443, "https://a.example"),
            (
                "http://10.0.0.1:5000/",
                "10.0.0.1",
                5000,
                "http://10.0.0.1:5000",
            ),
            ("http://[::1]:5000", "::1", 5000, "http://[::1]:5000"),
            ("https://[::1]", "::1", 443, "https://[::1]"),
            ("https://a:443", "a", 443, "https://a"),
        ] {
            let endpoint: AwsEndpoint = text.parse().unwrap();
            assert_eq!((endpoint.host(), endpoint.port()), (host, port), "{text}");
            assert_eq!(endpoint.url(), url);
        }
        for bad in [
            "",
            "a.example",
            "ftp://a",
            "https://",
            "https://:443",
            "https://a:b",
            "https://a:0",
            "https://a/b",
            "https://user@a",
            "https://a b",
            "https://[x]",
        ] {
            assert!(bad.parse::<AwsEndpoint>().is_err(), "{bad}");
        }
    }
}
