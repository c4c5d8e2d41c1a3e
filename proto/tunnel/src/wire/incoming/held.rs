//! What has come of messages, as one run of bytes: long frames as they came, short ones copied together.

use std::collections::VecDeque;

use prost::bytes::{Buf, Bytes, BytesMut};

/// A frame holds on to all of the connection's buffer that it was read to, which may be as long as the longest frame. So what is
/// shorter than this is copied: what is held is at most some times as long as it looks.
const KEPT_BYTES: usize = 16 << 10;

/// Bytes in the order in which they came.
#[derive(Debug, Default)]
pub(super) struct Held {
    frames: VecDeque<Bytes>,
    /// What came after those.
    short: BytesMut,
    len: usize,
}

impl Held {
    /// The next frame.
    pub(super) fn push(&mut self, frame: Bytes) {
        self.len += frame.len();
        if frame.len() < KEPT_BYTES {
            self.short.extend_from_slice(&frame);
            return;
        }
        if !self.short.is_empty() {
            self.frames
                .push_back(std::mem::take(&mut self.short).freeze());
        }
        self.frames.push_back(frame);
    }
}

impl Buf for Held {
    fn remaining(&self) -> usize {
        self.len
    }

    fn chunk(&self) -> &[u8] {
        self.frames
            .front()
            .map_or(&self.short[..], |first| &first[..])
    }

    fn advance(&mut self, mut count: usize) {
        self.len -= count;
        while let Some(first) = self.frames.front_mut() {
            if count < first.len() {
                return first.advance(count);
            }
            count -= first.len();
            self.frames.pop_front();
        }
        self.short.advance(count);
        if self.short.is_empty() {
            self.short = BytesMut::new();
        }
    }

    /// Without a copy where they are in one frame that was kept.
    fn copy_to_bytes(&mut self, len: usize) -> Bytes {
        match self.frames.front_mut() {
            Some(first) if first.len() >= len && len >= KEPT_BYTES => {
                let bytes = first.split_to(len);
                if first.is_empty() {
                    self.frames.pop_front();
                }
                self.len -= len;
                bytes
            }
            _ => {
                let mut bytes = BytesMut::with_capacity(len);
                while bytes.len() < len {
                    let chunk = self.chunk();
                    let some = chunk.len().min(len - bytes.len());
                    bytes.extend_from_slice(&chunk[..some]);
                    self.advance(some);
                }
                bytes.freeze()
            }
        }
    }
}
