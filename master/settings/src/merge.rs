//! Every setting from its sources, strongest first: flags, variables, files, defaults. Pure but for the variables that it is
//! given; reads no files.

use std::path::PathBuf;

use aot_host::log::LogFormat;
use aot_model::retention::RetentionLimits;

use crate::check::{check, check_log};
use crate::defaults::{certificate_folders, default_socket, default_state_dir, set};
use crate::{
    BlobSetting, DEFAULT_LISTEN, DEFAULT_PEER_LISTEN, FleetKeySetting, Partial, Settings,
    SettingsError, StoreUrl, TextOrList,
};

/// Decides every setting. `files` are the settings of files, strongest first. Empty variables count as not set.
///
/// # Errors
/// Values that make no sense, and no place for state or socket.
pub(crate) fn merge(
    flags: &Partial,
    env: &dyn Fn(&str) -> Option<String>,
    files: &[Partial],
    uid: u32,
) -> Result<Settings, SettingsError> {
    let text = |pick: fn(&Partial) -> &Option<String>, variable: &str| {
        let file = || files.iter().find_map(|file| pick(file).clone());
        pick(flags)
            .clone()
            .or_else(|| set(env, variable))
            .or_else(file)
    };
    let path = |pick: fn(&Partial) -> &Option<PathBuf>, variable: &str| {
        let file = || files.iter().find_map(|file| pick(file).clone());
        pick(flags)
            .clone()
            .or_else(|| set(env, variable).map(PathBuf::from))
            .or_else(file)
    };
    let file_advertise = || files.iter().find_map(|file| file.advertise.clone());
    let from_env = || set(env, "AOT_ADVERTISE").map(TextOrList::One);
    let advertise = flags
        .advertise
        .clone()
        .or_else(from_env)
        .or_else(file_advertise);
    let state_dir = match path(|from| &from.state_dir, "AOT_STATE_DIR") {
        Some(dir) => dir,
        None => default_state_dir(env, uid)?,
    };
    let named = path(
        |from| &from.attestation.certificates,
        "AOT_ATTESTATION_CERTIFICATES",
    );
    let blobs = text(|from| &from.blobs, "AOT_BLOBS");
    let settings = Settings {
        certificates: certificate_folders(named.clone(), env, uid),
        named_certificates: named,
        listen: text(|from| &from.listen, "AOT_LISTEN")
            .unwrap_or_else(|| DEFAULT_LISTEN.to_owned()),
        advertise: advertise.map(addresses).unwrap_or_default(),
        socket: path(|from| &from.socket, "AOT_SOCKET")
            .unwrap_or_else(|| default_socket(env, uid, &state_dir)),
        state_dir,
        agent_dir: path(|from| &from.agent_dir, "AOT_AGENT_DIR"),
        keep: retention(
            text(|from| &from.keep_jobs, "AOT_KEEP_JOBS"),
            text(|from| &from.keep_output, "AOT_KEEP_OUTPUT"),
        )?,
        keep_free: text(|from| &from.keep_free, "AOT_KEEP_FREE")
            .map(|text| size(text, "AOT_KEEP_FREE (--keep-free, keep_free)"))
            .transpose()?,
        store: flags
            .store
            .clone()
            .or_else(|| set(env, "AOT_STORE").map(StoreUrl))
            .or_else(|| files.iter().find_map(|file| file.store.clone())),
        fleet_key: path(|from| &from.fleet_key, "AOT_FLEET_KEY")
            .map(|text| FleetKeySetting::read(&text))
            .transpose()?,
        peer_listen: text(|from| &from.peer_listen, "AOT_PEER_LISTEN")
            .unwrap_or_else(|| DEFAULT_PEER_LISTEN.to_owned()),
        peer_advertise: text(|from| &from.peer_advertise, "AOT_PEER_ADVERTISE"),
        blobs: blobs.as_deref().map(BlobSetting::read).transpose()?,
        named_blobs: blobs,
        log: text(|from| &from.log, "AOT_LOG"),
        log_format: log_format(text(|from| &from.log_format, "AOT_LOG_FORMAT"))?,
        cluster: text(|from| &from.cluster, "AOT_CLUSTER"),
    };
    check(&settings)?;
    if let Some(filter) = &settings.log {
        check_log(filter)?;
    }
    Ok(settings)
}

fn retention(
    age: Option<String>,
    output: Option<String>,
) -> Result<RetentionLimits, SettingsError> {
    let mut limits = RetentionLimits::default();
    let bad = |from: &str, value: String, why| SettingsError::Value {
        from: from.to_owned(),
        value,
        why,
    };
    if let Some(text) = age {
        limits.age = humantime::parse_duration(&text).map_err(|_| {
            bad(
                "AOT_KEEP_JOBS (--keep-jobs, keep_jobs)",
                text,
                "expected a time, such as 30d or 12h",
            )
        })?;
    }
    if let Some(text) = output {
        limits.output_bytes = size(text, "AOT_KEEP_OUTPUT (--keep-output, keep_output)")?;
    }
    Ok(limits)
}

fn log_format(named: Option<String>) -> Result<LogFormat, SettingsError> {
    let Some(text) = named else {
        return Ok(LogFormat::default());
    };
    LogFormat::from_name(&text).ok_or_else(|| SettingsError::Value {
        from: "AOT_LOG_FORMAT (log_format)".to_owned(),
        value: text,
        why: LogFormat::EXPECTED,
    })
}

fn size(text: String, from: &str) -> Result<u64, SettingsError> {
    match text.parse::<bytesize::ByteSize>() {
        Ok(size) => Ok(size.as_u64()),
        Err(_) => Err(SettingsError::Value {
            from: from.to_owned(),
            value: text,
            why: "expected a size, such as 10GiB or 500MiB",
        }),
    }
}

fn addresses(given: TextOrList) -> Vec<String> {
    let all = match given {
        TextOrList::One(text) => vec![text],
        TextOrList::Many(texts) => texts,
    };
    let parts = all
        .iter()
        .flat_map(|text| text.split(','))
        .map(|part| part.trim().to_owned());
    parts.filter(|part| !part.is_empty()).collect()
}
