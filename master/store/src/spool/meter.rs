//! How much of a spool is output, counted from its frames' lengths as they come: what a run's cap is held against. Pure.

use aot_proto::frame::{HEADER_BYTES, MAX_FRAME_BYTES};

/// Bytes of a frame that need not be output: its length, its time, keys and the payload's length (protobuf encoding).
const OVERHEAD: u64 = 24;

/// Bytes of a spool past its cap that need not be output: the frames of its start, its end and its cut, with their texts.
pub(super) const SLACK: u64 = 64 << 10;

/// Counts one spool. Every frame counts for its length without the overhead, and for one byte at least: a shim writes no
/// empty ones. So a spool of `n` bytes counts for n / 25 at least.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Meter {
    counted: u64,
    /// Bytes of the frame under way that have not come.
    rest: u64,
    header: [u8; HEADER_BYTES],
    /// Bytes of the header that have come.
    headed: usize,
    /// Where frames begin is not known.
    blind: bool,
}

/// What was sent is not a spool: a frame that is longer than any.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a frame of {0} bytes; at most {MAX_FRAME_BYTES} are allowed")]
pub(super) struct TooLong(u32);

impl Meter {
    /// Of a spool that begins.
    pub(super) fn new() -> Self {
        Self {
            counted: 0,
            rest: 0,
            header: [0; HEADER_BYTES],
            headed: 0,
            blind: false,
        }
    }

    /// Of one that has this many bytes, and whose frames were not counted: never more than it would have come to.
    pub(super) fn resumed(bytes: u64) -> Self {
        Self {
            blind: bytes > 0,
            ..Self::new()
        }
        .plus_blind(bytes)
    }

    /// With these bytes.
    ///
    /// # Errors
    /// When they can't be frames.
    pub(super) fn plus(mut self, mut data: &[u8]) -> Result<Self, TooLong> {
        if self.blind {
            return Ok(self.plus_blind(data.len() as u64));
        }
        while !data.is_empty() {
            if self.rest > 0 {
                let passed = self.rest.min(data.len() as u64);
                self.rest -= passed;
                data = &data[usize::try_from(passed).unwrap_or(data.len())..];
                continue;
            }
            let more = (HEADER_BYTES - self.headed).min(data.len());
            self.header[self.headed..self.headed + more].copy_from_slice(&data[..more]);
            self.headed += more;
            data = &data[more..];
            if self.headed == HEADER_BYTES {
                self.begin(u32::from_le_bytes(self.header))?;
            }
        }
        Ok(self)
    }

    /// Bytes of output, at least.
    pub(super) fn counted(&self) -> u64 {
        self.counted
    }

    fn begin(&mut self, len: u32) -> Result<(), TooLong> {
        if len as usize > MAX_FRAME_BYTES {
            return Err(TooLong(len));
        }
        self.headed = 0;
        self.rest = u64::from(len);
        let bytes = HEADER_BYTES as u64 + self.rest;
        self.counted += bytes.saturating_sub(OVERHEAD).max(1);
        Ok(())
    }

    fn plus_blind(mut self, bytes: u64) -> Self {
        self.counted += bytes / (OVERHEAD + 1);
        self
    }
}

#[cfg(test)]
mod tests {
    use aot_proto::frame;
    use aot_proto::v1::{Frame, frame::Body};
    use proptest::prelude::*;

    use super::*;

    fn spool(payloads: &[usize]) -> Vec<u8> {
        let mut bytes = Vec::new();
        for len in payloads {
            let body = Some(Body::Stdout(vec![b'x'; *len].into()));
            let frame = Frame {
                unix_ms: u64::MAX,
                body,
            };
            frame::encode(&frame, &mut bytes);
        }
        bytes
    }

    proptest! {
        /// However it is cut: never more than its output, and of long frames nearly as much.
        #[test]
        fn an_honest_spool_never_counts_for_more_than_its_output(
            payloads in prop::collection::vec(1usize..3000, 1..40),
            cut in 1usize..500,
        ) {
            let bytes = spool(&payloads);
            let mut meter = Meter::new();
            for piece in bytes.chunks(cut) {
                meter = meter.plus(piece).expect("frames");
            }
            let output: usize = payloads.iter().sum();
            prop_assert!(meter.counted() <= output as u64);
            prop_assert!(meter.counted() + payloads.len() as u64 * OVERHEAD >= output as u64);
            prop_assert!(meter.counted() >= bytes.len() as u64 / (OVERHEAD + 1));
            prop_assert!(Meter::resumed(bytes.len() as u64).counted() <= output as u64);
        }
    }

    #[test]
    fn frames_without_output_count_too() {
        let empty = Meter::new().plus(&[0; 4 * 1000]).expect("empty frames");
        assert_eq!(empty.counted(), 1000);
        assert_eq!(
            Meter::new().plus(b"text"),
            Err(TooLong(u32::from_le_bytes(*b"text")))
        );
    }

    #[test]
    fn a_spool_that_was_here_before_is_counted_by_its_length() {
        let meter = Meter::resumed(2500)
            .plus(b"any bytes of any frame...")
            .expect("not looked at");
        assert_eq!(meter.counted(), 101);
    }
}
