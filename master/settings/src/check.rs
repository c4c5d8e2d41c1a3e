//! Whether settings make sense by themselves: addresses, paths, the log's filter. Pure.

use aot_host::log;

use crate::{Settings, SettingsError};

/// Longest path of a unix socket (unix(7): sun_path has 108 bytes, the last is NUL).
const MAX_SOCKET_PATH: usize = 107;

pub(crate) fn check(settings: &Settings) -> Result<(), SettingsError> {
    let bad = |from: &str, value: String, why| {
        Err(SettingsError::Value {
            from: from.to_owned(),
            value,
            why,
        })
    };
    if !is_address(&settings.listen, 0) {
        return bad(
            "listen",
            settings.listen.clone(),
            "expected host:port, as in 0.0.0.0:7440",
        );
    }
    if !is_address(&settings.peer_listen, 0) {
        return bad(
            "peer_listen",
            settings.peer_listen.clone(),
            "expected host:port, as in 0.0.0.0:7441",
        );
    }
    let peer = settings.peer_advertise.as_ref();
    if let Some(wrong) = peer.filter(|address| !is_address(address, 1)) {
        return bad(
            "peer_advertise",
            wrong.clone(),
            "expected host:port, as in 10.0.0.5:7441",
        );
    }
    if let Some(wrong) = settings
        .advertise
        .iter()
        .find(|address| !is_address(address, 1))
    {
        return bad(
            "advertise",
            wrong.clone(),
            "expected host:port, as in 10.0.0.5:7440",
        );
    }
    for (from, path) in [
        ("state_dir", &settings.state_dir),
        ("socket", &settings.socket),
    ] {
        if !path.is_absolute() && path.as_os_str().is_empty() {
            return bad(from, String::new(), "expected a path");
        }
    }
    if let Some(key) = settings
        .fleet_key
        .as_ref()
        .filter(|_| settings.store.is_none())
    {
        return bad(
            "AOT_FLEET_KEY (fleet_key)",
            key.named().display().to_string(),
            "masters share keys by their database: name that in AOT_STORE (store) too",
        );
    }
    if settings.socket.as_os_str().len() > MAX_SOCKET_PATH {
        let value = settings.socket.display().to_string();
        return bad("socket", value, "a socket's path has 107 bytes at most");
    }
    Ok(())
}

/// A filter is a list of levels and `TARGET=LEVEL`.
pub(crate) fn check_log(filter: &str) -> Result<(), SettingsError> {
    let bad = |value: &str, why| SettingsError::Value {
        from: "AOT_LOG (log)".to_owned(),
        value: value.to_owned(),
        why,
    };
    if let Some(part) = log::without_level(filter) {
        return Err(bad(part, log::LEVEL_EXPECTED));
    }
    tracing_subscriber::EnvFilter::try_new(filter)
        .map(|_| ())
        .map_err(|_| {
            bad(
                filter,
                "not a filter of tracing-subscriber: info,aot_master=debug",
            )
        })
}

/// `host:port`, `[v6]:port`; the port from `lowest` on.
fn is_address(text: &str, lowest: u16) -> bool {
    let Some((host, port)) = text.rsplit_once(':') else {
        return false;
    };
    let v6 = host
        .strip_prefix('[')
        .and_then(|host| host.strip_suffix(']'));
    let host_good = match v6 {
        Some(v6) => v6.parse::<std::net::Ipv6Addr>().is_ok(),
        None => !host.is_empty() && !host.contains([':', '/', ' ', '[', ']']),
    };
    host_good && port.parse::<u16>().is_ok_and(|port| port >= lowest)
}
