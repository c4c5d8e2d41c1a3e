//! The wall at the edge: nothing that a machine sends gets past it without a bound, nor a text that is not one harmless line.
//! What can be cut is cut; what can't is left out, or is a breach of the protocol. Pure.
//!
//! `fields` names every text, every run of bytes and every list of the messages that machines send. A test walks the
//! protocol's descriptors, sends each of them far too long and full of control characters, and demands of what gets past
//! that it keeps to its row.

use aot_model::text::{MAX_NAME_BYTES, clean, clean_to};
use aot_proto::ids::{MachineId, RunId};
use aot_proto::limits::{
    MAX_COPY_BYTES, MAX_ENROL_BYTES, MAX_FACTS_BYTES, MAX_RUNS, SPOOL_CHUNK_BYTES,
    TUNNEL_DATA_BYTES,
};
use aot_proto::v1::{self, agent_message::Body, shell_up, tunnel_piece, tunnel_up};

/// Longest certificate request (PKCS#10): RSA-8192 takes 2.2 KiB.
pub(crate) const MAX_CSR_BYTES: usize = 4096;
/// Longest join token, hex.
pub(crate) const MAX_TOKEN_BYTES: usize = 128;
/// Longest identity document, and longest signature of one.
pub(crate) const MAX_DOCUMENT_BYTES: usize = 8192;
/// Longest public key of ssh that is passed on to other machines: one of RSA-16384 takes 2.8 KiB (RFC 4253, 6.6).
pub(crate) const MAX_KEY_BYTES: usize = 4096;
/// Most host keys of a machine that are passed on: there are four kinds (ssh-keygen(1), `-A`).
pub(crate) const MAX_HOST_KEYS: usize = 16;
/// Longest answer of a built-in, a JSON value: a `tail` of 256 KiB, all of it escaped.
pub(crate) const MAX_ANSWER_BYTES: usize = 2 << 20;
/// Longest name of a login user (useradd(8)).
pub(crate) const MAX_USER_BYTES: usize = 32;
/// Most bytes of a terminal in one message. An agent sends what one read gives.
pub(crate) const MAX_SHELL_BYTES: usize = 256 << 10;
/// Longest id of a terminal and longest SHA-256, hex.
pub(crate) const MAX_HEX_BYTES: usize = 64;

/// Why a message is not taken, and its session ends.
pub(crate) type Breach = &'static str;

/// What gets past of a message of a session. `None`: it is left out, and the session continues.
///
/// # Errors
/// When an agent of ours could not have sent it.
pub(crate) fn admit(body: Body) -> Result<Option<Body>, Breach> {
    Ok(Some(match body {
        Body::Hello(hello) => Body::Hello(admit_hello(hello)?),
        Body::Facts(facts) => return Ok(admit_facts(facts).map(Body::Facts)),
        Body::Heartbeat(beat) => Body::Heartbeat(beat),
        Body::ClusterFactsApplied(mut applied) => {
            clean_to(&mut applied.sha256, MAX_NAME_BYTES);
            clean(&mut applied.error);
            Body::ClusterFactsApplied(applied)
        }
        Body::RunAnswer(mut answer) => {
            is_run(&answer.run_id).ok_or("it answers for an unknown run")?;
            clean(&mut answer.reason);
            Body::RunAnswer(answer)
        }
        Body::Spool(piece) => {
            is_run(&piece.run_id).ok_or("it sent output of an unknown run")?;
            if piece.data.len() > SPOOL_CHUNK_BYTES {
                return Err("it sent a piece of output that is too large");
            }
            Body::Spool(piece)
        }
        Body::BuiltinReply(reply) => Body::BuiltinReply(admit_answer(reply)),
        Body::Renew(renew) if renew.csr_der.len() > MAX_CSR_BYTES => {
            return Err("it sent a certificate request that is too large");
        }
        Body::Renew(renew) => Body::Renew(renew),
        Body::GoingAway(mut away) => {
            clean(&mut away.reason);
            Body::GoingAway(away)
        }
        Body::VolumesMounted(mut mounted) => {
            clean(&mut mounted.error);
            Body::VolumesMounted(mounted)
        }
        Body::CopyProgress(mut progress) => {
            is_run(&progress.run_id).ok_or("it copies for an unknown run")?;
            progress.total_bytes = progress.total_bytes.min(MAX_COPY_BYTES);
            progress.bytes = progress.bytes.min(progress.total_bytes);
            Body::CopyProgress(progress)
        }
    }))
}

fn is_run(text: &str) -> Option<RunId> {
    text.parse().ok()
}

fn admit_hello(mut hello: v1::Hello) -> Result<v1::Hello, Breach> {
    if hello.runs.len() > MAX_RUNS {
        return Err("it names more runs than an agent keeps");
    }
    hello.runs.retain(|state| is_run(&state.run_id).is_some());
    for name in [
        &mut hello.agent_version,
        &mut hello.boot_id,
        &mut hello.architecture,
        &mut hello.process_id,
    ] {
        clean_to(name, MAX_NAME_BYTES);
    }
    Ok(hello)
}

/// Facts, counted as a whole before any of them is read.
fn admit_facts(mut facts: v1::FactsReport) -> Option<v1::FactsReport> {
    let keys = |facts: &v1::FactsReport| -> usize {
        let host_keys = facts.ssh_host_keys.iter().map(String::len).sum::<usize>();
        host_keys + facts.root_public_key.len() + facts.user_public_key.len()
    };
    if facts.node_json.len() > MAX_FACTS_BYTES {
        return None;
    }
    facts.ssh_host_keys.truncate(MAX_HOST_KEYS);
    facts.ssh_host_keys.retain(|key| is_key(key));
    for key in [&mut facts.root_public_key, &mut facts.user_public_key] {
        if !is_key(key) {
            key.clear();
        }
    }
    if !is_user(&facts.main_user) {
        facts.main_user.clear();
    }
    (facts.node_json.len() + keys(&facts) <= MAX_FACTS_BYTES).then_some(facts)
}

/// A key goes into other machines' files: it must be one line of base64 and words.
fn is_key(key: &str) -> bool {
    let fits = !key.is_empty() && key.len() <= MAX_KEY_BYTES;
    fits && key.chars().all(|c| c == ' ' || c.is_ascii_graphic())
}

/// A login name that useradd(8), or a directory service, could have made; it goes to all machines of the cluster.
fn is_user(name: &str) -> bool {
    let ordinary = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
    name.len() <= MAX_USER_BYTES && name.chars().all(ordinary) && !name.starts_with(['-', '.'])
}

fn admit_answer(reply: v1::BuiltinReply) -> v1::BuiltinReply {
    let mut reply = reply;
    clean(&mut reply.error);
    if !reply.error.is_empty() {
        reply.json.clear();
    } else if reply.json.len() > MAX_ANSWER_BYTES {
        reply.json.clear();
        "its answer is too large".clone_into(&mut reply.error);
    } else if serde_json::from_str::<serde::de::IgnoredAny>(&reply.json).is_err() {
        reply.json.clear();
        "its answer is not JSON".clone_into(&mut reply.error);
    }
    reply
}

/// What gets past of a request to join, before anything of it is parsed, looked up or logged.
///
/// # Errors
/// When an agent of ours could not have sent it.
pub(crate) fn admit_enrolment(mut request: v1::EnrolRequest) -> Result<v1::EnrolRequest, Breach> {
    if prost::Message::encoded_len(&request) > MAX_ENROL_BYTES {
        return Err("the request is too large");
    }
    if request.token.len() > MAX_TOKEN_BYTES || !request.token.chars().all(|c| c.is_ascii_graphic())
    {
        return Err("invalid token");
    }
    let answer = &request.challenge_answer;
    if answer.len() > MAX_TOKEN_BYTES || !answer.chars().all(|c| c.is_ascii_graphic()) {
        return Err("invalid answer to the challenge");
    }
    if request.csr_der.len() > MAX_CSR_BYTES {
        return Err("the certificate request is too large");
    }
    if request.machine_id.parse::<MachineId>().is_err() {
        return Err("invalid machine id");
    }
    if request.identity_signature.len() > MAX_DOCUMENT_BYTES {
        return Err("the signed identity document is too large");
    }
    clean_to(&mut request.agent_version, MAX_NAME_BYTES);
    clean_to(&mut request.architecture, MAX_NAME_BYTES);
    Ok(request)
}

/// What gets past of a terminal's stream.
///
/// # Errors
/// As [`admit`].
pub(crate) fn admit_shell(up: v1::ShellUp) -> Result<v1::ShellUp, Breach> {
    let body = match up.body {
        Some(shell_up::Body::Hello(hello)) => {
            if !is_hex(&hello.shell_id) {
                return Err("invalid id of a terminal");
            }
            shell_up::Body::Hello(hello)
        }
        Some(shell_up::Body::Data(data)) if data.len() > MAX_SHELL_BYTES => {
            return Err("it sent too much at once");
        }
        Some(shell_up::Body::Data(data)) => shell_up::Body::Data(data),
        Some(shell_up::Body::End(mut end)) => {
            clean(&mut end.detail);
            shell_up::Body::End(end)
        }
        None => return Ok(up),
    };
    Ok(v1::ShellUp { body: Some(body) })
}

/// What gets past of a message of a forwarded connection's stream.
///
/// # Errors
/// As [`admit`].
pub(crate) fn admit_tunnel(mut up: v1::TunnelUp) -> Result<v1::TunnelUp, Breach> {
    use tunnel_piece::Body;
    match &mut up.body {
        Some(tunnel_up::Body::Hello(hello)) if !is_hex(&hello.tunnel_id) => {
            return Err("invalid id of a connection");
        }
        Some(tunnel_up::Body::Answer(answer)) => clean(&mut answer.refused),
        Some(tunnel_up::Body::Piece(piece)) => match &mut piece.body {
            Some(Body::Data(data)) if data.len() > TUNNEL_DATA_BYTES => {
                return Err("it sent too much at once");
            }
            Some(Body::Reset(reset)) => clean(&mut reset.detail),
            Some(Body::Data(_) | Body::End(_) | Body::Granted(_)) | None => {}
        },
        Some(tunnel_up::Body::Hello(_)) | None => {}
    }
    Ok(up)
}

/// What gets past of a request for a bundle or copy.
///
/// # Errors
/// When it names no SHA-256.
pub(crate) fn admit_fetch(request: v1::FetchRequest) -> Result<v1::FetchRequest, Breach> {
    match is_hex(&request.sha256) && request.sha256.len() == MAX_HEX_BYTES {
        true => Ok(request),
        false => Err("it is named by its SHA-256 in hex"),
    }
}

fn is_hex(text: &str) -> bool {
    let digit = |c: char| c.is_ascii_digit() || ('a'..='f').contains(&c);
    text.len() <= MAX_HEX_BYTES && text.chars().all(digit)
}

#[cfg(test)]
mod fields;
#[cfg(test)]
mod tests;
