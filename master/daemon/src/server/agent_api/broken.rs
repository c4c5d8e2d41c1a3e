//! Why an agent's stream broke off, in words for an operator: the transport's own say nothing to them. Pure.

use tonic::{Code, Status};

/// How tonic begins what it says of HTTP/2 (tonic, `Status::from_error`): also where the connection below it was cut.
const HTTP2: &str = "h2 protocol error";

/// What has happened, as the end of "the connection broke: ...".
pub(super) fn in_words(status: &Status) -> &'static str {
    let is_http2 = status.message().starts_with(HTTP2);
    match status.code() {
        Code::Cancelled => "the agent gave it up",
        // hyper says so when a ping of its keep-alive gets no answer.
        Code::Unavailable if !is_http2 => "the machine did not answer",
        Code::OutOfRange => "the agent sent a message that is too large",
        Code::Internal if !is_http2 => "the agent sent what cannot be read",
        _ => "it was cut off",
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    #[test]
    fn an_operator_reads_what_happened_and_no_jargon() {
        let cut = io::Error::from(io::ErrorKind::ConnectionReset);
        for (status, words) in [
            (
                Status::unknown("h2 protocol error: error reading a body from connection"),
                "it was cut off",
            ),
            (
                Status::internal("h2 protocol error: error reading a body from connection"),
                "it was cut off",
            ),
            (
                Status::unavailable("h2 protocol error: refused stream"),
                "it was cut off",
            ),
            (Status::from_error(cut.into()), "it was cut off"),
            (
                Status::cancelled("h2 protocol error: stream no longer needed"),
                "the agent gave it up",
            ),
            (
                Status::unavailable("keep-alive timed out"),
                "the machine did not answer",
            ),
            (
                Status::out_of_range("Error, decoded message length too large: found 5 bytes"),
                "the agent sent a message that is too large",
            ),
            (
                Status::internal("failed to decode Protobuf message"),
                "the agent sent what cannot be read",
            ),
            (Status::ok(""), "it was cut off"),
        ] {
            assert_eq!(in_words(&status), words, "{status:?}");
        }
    }
}
