//! The wall as a table: every text, every run of bytes and every list in what machines send, and what becomes of it. The test
//! beside it demands a row for each field of the protocol, and of the wall that it keeps to the rows.

use aot_model::text::{MAX_NAME_BYTES, MAX_TEXT_BYTES};
use aot_proto::limits::{MAX_FACTS_BYTES, MAX_RUNS, SPOOL_CHUNK_BYTES, TUNNEL_DATA_BYTES};

use super::{
    MAX_ANSWER_BYTES, MAX_CSR_BYTES, MAX_DOCUMENT_BYTES, MAX_HEX_BYTES, MAX_HOST_KEYS,
    MAX_KEY_BYTES, MAX_SHELL_BYTES, MAX_TOKEN_BYTES, MAX_USER_BYTES,
};

/// What becomes of a field.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum FieldBound {
    /// One harmless line of at most this many bytes: what is longer is cut.
    Text(usize),
    /// Only letters, digits and little else, and at most this many bytes: another value is refused or left out.
    Id(usize),
    /// At most this many bytes, as they are: what is longer is refused or left out. Made harmless where it is shown.
    Bytes(usize),
    /// At most this many entries.
    Count(usize),
}

/// Every text, run of bytes and list in what machines send, and what becomes of it.
pub(super) const FIELDS: &[(&str, FieldBound)] = &[
    ("Hello.agent_version", FieldBound::Text(MAX_NAME_BYTES)),
    ("Hello.boot_id", FieldBound::Text(MAX_NAME_BYTES)),
    ("Hello.architecture", FieldBound::Text(MAX_NAME_BYTES)),
    ("Hello.process_id", FieldBound::Text(MAX_NAME_BYTES)),
    ("Hello.runs", FieldBound::Count(MAX_RUNS)),
    ("RunState.run_id", FieldBound::Id(30)),
    ("FactsReport.node_json", FieldBound::Bytes(MAX_FACTS_BYTES)),
    (
        "FactsReport.ssh_host_keys",
        FieldBound::Count(MAX_HOST_KEYS),
    ),
    ("FactsReport.ssh_host_keys[]", FieldBound::Id(MAX_KEY_BYTES)),
    ("FactsReport.root_public_key", FieldBound::Id(MAX_KEY_BYTES)),
    ("FactsReport.user_public_key", FieldBound::Id(MAX_KEY_BYTES)),
    ("FactsReport.main_user", FieldBound::Id(MAX_USER_BYTES)),
    (
        "ClusterFactsApplied.sha256",
        FieldBound::Text(MAX_NAME_BYTES),
    ),
    (
        "ClusterFactsApplied.error",
        FieldBound::Text(MAX_TEXT_BYTES),
    ),
    ("RunAnswer.run_id", FieldBound::Id(30)),
    ("RunAnswer.reason", FieldBound::Text(MAX_TEXT_BYTES)),
    ("SpoolData.run_id", FieldBound::Id(30)),
    ("SpoolData.data", FieldBound::Bytes(SPOOL_CHUNK_BYTES)),
    ("BuiltinReply.json", FieldBound::Bytes(MAX_ANSWER_BYTES)),
    ("BuiltinReply.error", FieldBound::Text(MAX_TEXT_BYTES)),
    ("RenewRequest.csr_der", FieldBound::Bytes(MAX_CSR_BYTES)),
    ("GoingAway.reason", FieldBound::Text(MAX_TEXT_BYTES)),
    ("VolumesMounted.error", FieldBound::Text(MAX_TEXT_BYTES)),
    ("CopyProgress.run_id", FieldBound::Id(30)),
    ("EnrolRequest.token", FieldBound::Id(MAX_TOKEN_BYTES)),
    ("EnrolRequest.csr_der", FieldBound::Bytes(MAX_CSR_BYTES)),
    ("EnrolRequest.machine_id", FieldBound::Id(64)),
    (
        "EnrolRequest.identity_signature",
        FieldBound::Bytes(MAX_DOCUMENT_BYTES),
    ),
    (
        "EnrolRequest.challenge_answer",
        FieldBound::Id(MAX_TOKEN_BYTES),
    ),
    (
        "EnrolRequest.agent_version",
        FieldBound::Text(MAX_NAME_BYTES),
    ),
    (
        "EnrolRequest.architecture",
        FieldBound::Text(MAX_NAME_BYTES),
    ),
    ("ShellHello.shell_id", FieldBound::Id(MAX_HEX_BYTES)),
    ("ShellUp.data", FieldBound::Bytes(MAX_SHELL_BYTES)),
    ("ShellEnd.detail", FieldBound::Text(MAX_TEXT_BYTES)),
    ("TunnelHello.tunnel_id", FieldBound::Id(MAX_HEX_BYTES)),
    ("TunnelAnswer.refused", FieldBound::Text(MAX_TEXT_BYTES)),
    ("TunnelPiece.data", FieldBound::Bytes(TUNNEL_DATA_BYTES)),
    ("TunnelReset.detail", FieldBound::Text(MAX_TEXT_BYTES)),
    ("FetchRequest.sha256", FieldBound::Id(MAX_HEX_BYTES)),
];
