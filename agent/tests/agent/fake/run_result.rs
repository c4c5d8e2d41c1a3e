//! A run as its spool has it.

use aot_proto::v1::{Ended, Frame};

/// What its frames come to.
#[derive(Debug, Default)]
pub(crate) struct RunResult {
    pub(crate) started: usize,
    pub(crate) stdout: Vec<u8>,
    pub(crate) stderr: Vec<u8>,
    pub(crate) truncated: usize,
    pub(crate) ended: Ended,
}

impl RunResult {
    pub(crate) fn of(frames: Vec<Frame>) -> Self {
        use aot_proto::v1::frame::Body;
        let mut result = Self::default();
        let last = frames.len() - 1;
        for (n, frame) in frames.into_iter().enumerate() {
            match frame.body.unwrap() {
                Body::Started(_) => result.started += 1,
                Body::Stdout(bytes) => result.stdout.extend_from_slice(&bytes),
                Body::Stderr(bytes) => result.stderr.extend_from_slice(&bytes),
                Body::Truncated(_) => result.truncated += 1,
                Body::Ended(ended) => {
                    assert_eq!(n, last, "frames after the end");
                    result.ended = ended;
                }
            }
        }
        result
    }

    pub(crate) fn stdout(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }
}
