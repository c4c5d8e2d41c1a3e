//! What the master reads alone: requests to join, sessions, and texts of operators.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant, SystemTime};

use aot_daemon::enrol;
use aot_daemon::enrol::attest::{certificates::Certificate, document, message};
use aot_daemon::{Protocol, SessionInput};
use aot_model::hash::JoinKey;
use aot_model::selector;
use aot_proto::{hostname, v1};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use prost::Message;

/// A function of bytes.
pub type Entry = fn(&[u8]);

/// Every target here, by its name.
pub const TARGETS: [(&str, Entry); 7] = [
    ("enrol", enrol),
    ("identity", identity),
    ("attach", attach),
    ("proxy_header", proxy_header),
    ("cluster_file", cluster_file),
    ("target", target),
    ("user_data", user_data),
];

/// A stranger's request to join: before it, nothing is known of who sends it.
pub fn enrol(data: &[u8]) {
    if let Ok(request) = v1::EnrolRequest::decode(data) {
        let _ = enrol::ca::read_request(&request.csr_der);
        let _ = enrol::attest::examine(&request, "0".repeat(64));
    }
    let _ = enrol::ca::read_request(data);
}

/// An EC2 identity document: its signed message, as it is and in base64, its text, and a region's certificate.
pub fn identity(data: &[u8]) {
    // 2030, inside of the certificate's time.
    let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_900_000_000);
    let certificate = Certificate::from_pem("us-west-2", include_bytes!("identity.pem"), now)
        .expect("the certificate beside this file");
    let text = String::from_utf8_lossy(data);
    for base64 in [text.into_owned(), STANDARD.encode(data)] {
        let content = message::content(&base64, &certificate);
        assert!(content.is_err(), "nobody has signed that");
    }
    let _ = document::read(data);
    let _ = Certificate::from_pem("us-west-2", data, now);
}

/// How a connection begins that another master is said to pass on.
pub fn proxy_header(data: &[u8]) {
    let key = JoinKey::new(&[7; 32]);
    assert!(!aot_daemon::is_header(data, &key, 1_800_000_000_000));
    assert!(!aot_daemon::is_header(data, &key, 0));
}

/// What an agent sends in its session: messages, each behind its length in two bytes.
pub fn attach(mut data: &[u8]) {
    let mut protocol = Protocol::new(Instant::now());
    while let Some((length, rest)) = data.split_first_chunk::<2>() {
        let length = usize::from(u16::from_be_bytes(*length)).min(rest.len());
        let (message, rest) = rest.split_at(length);
        data = rest;
        let Ok(message) = v1::AgentMessage::decode(message) else {
            continue;
        };
        let _ = protocol.step(SessionInput::Agent(Box::new(message)), Instant::now());
    }
    let _ = protocol.step(SessionInput::Tick, Instant::now());
}

/// The text of a cluster.yml: read or refused, with a place for each problem.
pub fn cluster_file(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    match aot_cluster_file::parse(&text, Path::new("/clusters/cluster.yml")) {
        Ok(parsed) => {
            for (_, member) in parsed.spec.instances() {
                assert_eq!(hostname::check(&member.hostname), Ok(()));
            }
        }
        Err(report) => {
            assert!(!report.problems().is_empty());
            for problem in report.problems() {
                assert!(text.get(problem.span.clone()).is_some(), "{problem:?}");
            }
            let _ = (report.render(true), report.to_json(), report.to_string());
        }
    }
}

/// A target expression, as operators type it.
pub fn target(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    if let Err(error) = selector::parse(&text, &BTreeMap::new()) {
        let _ = (error.hint(&text), error.to_string());
    }
}

/// A cloud_config with its variables.
pub fn user_data(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let text = format!("#cloud-config\n{text}");
    let _ = aot_user_data::check_part(&text, "cluster", &[]);
}
