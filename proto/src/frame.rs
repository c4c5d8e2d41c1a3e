//! Frames of a spool, between bytes and messages. A spool is a file of frames: `u32` little-endian length, message.

use prost::Message;
use prost::bytes::Bytes;

use crate::limits::FRAME_BYTES;
use crate::v1::Frame;

/// Bytes of the length in front of each frame.
pub const HEADER_BYTES: usize = 4;

/// Longest frame that a reader takes: the largest payload and room for what goes with it.
pub const MAX_FRAME_BYTES: usize = FRAME_BYTES + 4096;

/// A spool that can't have been written by us.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadSpool {
    /// The length in front of a frame is past any that a shim writes.
    #[error("a frame of {0} bytes; at most {MAX_FRAME_BYTES} are allowed")]
    TooLong(usize),
    /// The bytes of a frame are not a message.
    #[error("a frame that is not a message")]
    Garbled,
}

/// Appends the frame's bytes to `out`.
pub fn encode(frame: &Frame, out: &mut Vec<u8>) {
    let len = u32::try_from(frame.encoded_len()).expect("a frame is at most MAX_FRAME_BYTES long");
    out.extend_from_slice(&len.to_le_bytes());
    frame.encode(out).expect("a Vec grows");
}

/// Appends what comes before the payload of a frame of output: header, time, and the payload's length. `frame` has the
/// kind of output with an empty payload; `payload_bytes` follow. Together they are what [`encode`] makes of the same frame
/// with that payload, without a copy of it.
///
/// # Panics
/// When the frame has no output in it.
pub fn encode_head(frame: &Frame, payload_bytes: usize, out: &mut Vec<u8>) {
    let start = out.len();
    out.extend_from_slice(&[0; HEADER_BYTES]);
    frame.encode(out).expect("a Vec grows");
    // The payload comes last, and an empty one is its key and a zero (the length, a varint).
    assert_eq!(out.pop(), Some(0), "a frame of output, still empty");
    prost::encoding::encode_varint(payload_bytes as u64, out);
    let len = out.len() - start - HEADER_BYTES + payload_bytes;
    let len = u32::try_from(len).expect("a frame is at most MAX_FRAME_BYTES long");
    out[start..start + HEADER_BYTES].copy_from_slice(&len.to_le_bytes());
}

/// The first frame of `bytes` and how many bytes it takes; `None` when it is cut off.
///
/// # Errors
/// When the bytes can't be the start of a spool.
pub fn decode(bytes: &[u8]) -> Result<Option<(Frame, usize)>, BadSpool> {
    let Some((header, rest)) = bytes.split_first_chunk::<HEADER_BYTES>() else {
        return Ok(None);
    };
    let len = u32::from_le_bytes(*header) as usize;
    if len > MAX_FRAME_BYTES {
        return Err(BadSpool::TooLong(len));
    }
    let Some(body) = rest.get(..len) else {
        return Ok(None);
    };
    let frame = Frame::decode(body).map_err(|_| BadSpool::Garbled)?;
    Ok(Some((frame, HEADER_BYTES + len)))
}

/// Length of the longest run of whole frames at the start of `bytes` that is not longer than `most`.
///
/// # Errors
/// When the bytes can't be the start of a spool.
pub fn complete_frames(bytes: &[u8], most: usize) -> Result<usize, BadSpool> {
    let mut end = 0;
    while let Some((header, rest)) = bytes[end..].split_first_chunk::<HEADER_BYTES>() {
        let len = u32::from_le_bytes(*header) as usize;
        if len > MAX_FRAME_BYTES {
            return Err(BadSpool::TooLong(len));
        }
        if rest.len() < len || end + HEADER_BYTES + len > most {
            break;
        }
        end += HEADER_BYTES + len;
    }
    Ok(end)
}

/// Every whole frame at the start of `bytes`, in order, and the bytes that they take.
///
/// # Errors
/// When the bytes can't be the start of a spool.
pub fn decode_all(bytes: &[u8]) -> Result<(Vec<Frame>, usize), BadSpool> {
    let mut frames = Vec::new();
    let mut at = 0;
    while let Some((frame, len)) = decode(&bytes[at..])? {
        frames.push(frame);
        at += len;
    }
    Ok((frames, at))
}

/// Every whole frame at the start of `bytes`, in order, sharing its memory; `bytes` is what is left.
///
/// # Errors
/// When the bytes can't be the start of a spool.
pub fn split_off_all(bytes: &mut Bytes) -> Result<Vec<Frame>, BadSpool> {
    let mut whole = bytes.split_to(complete_frames(bytes, usize::MAX)?);
    let mut frames = Vec::new();
    while let Some(header) = whole.first_chunk::<HEADER_BYTES>() {
        let len = u32::from_le_bytes(*header) as usize;
        let mut body = whole.split_to(HEADER_BYTES + len);
        let frame = Frame::decode(body.split_off(HEADER_BYTES));
        frames.push(frame.map_err(|_| BadSpool::Garbled)?);
    }
    Ok(frames)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::v1::frame::Body;
    use proptest::prelude::*;

    fn frames(parts: &[Vec<u8>]) -> Vec<Frame> {
        parts
            .iter()
            .enumerate()
            .map(|(n, data)| Frame {
                unix_ms: n as u64,
                body: Some(Body::Stdout(data.clone().into())),
            })
            .collect()
    }

    proptest! {
        #[test]
        fn a_head_and_its_payload_are_the_frame(
            unix_ms in any::<u64>(), data in prop::collection::vec(any::<u8>(), 0..40_000), stderr in any::<bool>(),
        ) {
            let body = |data: Bytes| if stderr { Body::Stderr(data) } else { Body::Stdout(data) };
            let frame = |data| Frame { unix_ms, body: Some(body(data)) };
            let (mut whole, mut parts) = (Vec::new(), b"before".to_vec());
            encode(&frame(data.clone().into()), &mut whole);
            encode_head(&frame(Bytes::new()), data.len(), &mut parts);
            parts.extend(data);
            prop_assert_eq!(&parts[b"before".len()..], &whole[..]);
        }

        #[test]
        fn what_is_written_is_read_whatever_is_cut_off(
            parts in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..200), 0..20), cut in 0usize..5000,
        ) {
            let frames = frames(&parts);
            let mut bytes = Vec::new();
            let mut ends = vec![0];
            for frame in &frames {
                encode(frame, &mut bytes);
                ends.push(bytes.len());
            }
            bytes.truncate(cut);
            let whole = ends.iter().filter(|end| **end <= bytes.len()).count() - 1;
            let (read, len) = decode_all(&bytes).expect("our own bytes");
            prop_assert_eq!(&read[..], &frames[..whole]);
            prop_assert_eq!(len, ends[whole]);
            prop_assert_eq!(complete_frames(&bytes, usize::MAX).expect("our own bytes"), len);
            let mut shared = Bytes::from(bytes.clone());
            prop_assert_eq!(split_off_all(&mut shared).expect("our own bytes"), read);
            prop_assert_eq!(&shared[..], &bytes[len..]);
        }

        #[test]
        fn any_bytes_are_read_without_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let _ = decode_all(&bytes);
            let _ = complete_frames(&bytes, 100);
            let _ = split_off_all(&mut bytes.into());
        }
    }

    #[test]
    fn a_frame_that_is_too_long_is_refused() {
        assert_eq!(
            decode(&[0xff; 8]),
            Err(BadSpool::TooLong(u32::MAX as usize))
        );
        assert!(complete_frames(&[0xff; 8], 100).is_err());
    }
}
