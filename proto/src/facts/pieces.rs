//! Cluster facts on their way: packed once, cut into pieces that all sessions share, and put together again.

use std::io::{Read, Write};
use std::sync::Arc;

use prost::Message;
use prost::bytes::Bytes;

use crate::limits::MAX_CLUSTER_FACTS_BYTES;
use crate::v1::{ClusterFacts, ClusterFactsPiece};

/// Length of a piece. Bounds what a ping waits behind, and what a session holds for its agent.
pub const PIECE_BYTES: usize = 64 << 10;
/// What instances have in common is told once as far as it is in this window (2 MiB at this level of zstd).
const LEVEL: i32 = 3;

/// Pieces that are not what was promised: the session is broken, and the next one begins anew.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadPiece {
    /// It does not follow the one before it.
    #[error("a piece of the cluster facts is missing")]
    Missing,
    /// More than anybody takes.
    #[error("the cluster facts are larger than {MAX_CLUSTER_FACTS_BYTES} bytes")]
    TooLarge,
    /// Together they are nothing.
    #[error("the cluster facts are garbled")]
    Garbled,
}

/// The pieces of one message, in order: shared by all that send it, a copy of one is a few words.
pub type Pieces = Arc<[ClusterFactsPiece]>;

/// Packs the facts (zstd) and cuts them.
pub fn pieces(facts: &ClusterFacts) -> Pieces {
    // Writing to memory does not fail.
    let packed = packed(facts).unwrap_or_default();
    let total_bytes = packed.iter().map(|data| data.len() as u64).sum();
    let piece = |(number, data)| ClusterFactsPiece {
        generation: facts.generation,
        offset: (number * PIECE_BYTES) as u64,
        total_bytes,
        data,
    };
    packed.into_iter().enumerate().map(piece).collect()
}

/// Entry by entry, since all of them together may be a large part of the memory: messages one after the other are one
/// message with the fields of all (Protocol Buffers, "Encoding", "Last One Wins").
fn packed(facts: &ClusterFacts) -> std::io::Result<Vec<Bytes>> {
    let mut encoder = zstd::Encoder::new(Cutter::default(), LEVEL)?;
    encoder.include_checksum(true)?;
    let head = ClusterFacts {
        generation: facts.generation,
        complete: facts.complete,
        missing: facts.missing.clone(),
        ssh: facts.ssh.clone(),
        base: facts.base,
        entries: Vec::new(),
        removed: facts.removed.clone(),
        digest: facts.digest.clone(),
    };
    encoder.write_all(&head.encode_to_vec())?;
    for entry in &facts.entries {
        let one = ClusterFacts {
            entries: vec![entry.clone()],
            ..ClusterFacts::default()
        };
        encoder.write_all(&one.encode_to_vec())?;
    }
    Ok(encoder.finish()?.cut())
}

/// Cuts what is written to it as it comes: in one stretch it would be copied whenever that has to grow, and be there twice.
#[derive(Default)]
struct Cutter {
    whole: Vec<Bytes>,
    last: Vec<u8>,
}

impl Cutter {
    fn cut(mut self) -> Vec<Bytes> {
        if !self.last.is_empty() {
            self.last.shrink_to_fit();
            self.whole.push(self.last.into());
        }
        self.whole
    }
}

impl Write for Cutter {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        if self.last.capacity() == 0 {
            self.last.reserve_exact(PIECE_BYTES);
        }
        let taken = bytes.len().min(PIECE_BYTES - self.last.len());
        self.last.extend_from_slice(&bytes[..taken]);
        if self.last.len() == PIECE_BYTES {
            self.whole.push(std::mem::take(&mut self.last).into());
        }
        Ok(taken)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// Puts the pieces of one generation after the other together.
#[derive(Debug, Default)]
pub struct Joiner {
    generation: u64,
    packed: Vec<u8>,
}

impl Joiner {
    /// Adds the next piece; gives the facts with the last one. A first piece begins anew, whatever was there.
    ///
    /// # Errors
    /// When it is not the next one, or all together are not cluster facts.
    pub fn step(&mut self, piece: &ClusterFactsPiece) -> Result<Option<ClusterFacts>, BadPiece> {
        if piece.total_bytes > MAX_CLUSTER_FACTS_BYTES {
            return Err(BadPiece::TooLarge);
        }
        if piece.offset == 0 {
            self.packed = Vec::new();
            self.generation = piece.generation;
        }
        let follows = piece.offset == self.packed.len() as u64;
        if !follows || piece.generation != self.generation || piece.data.is_empty() {
            return Err(BadPiece::Missing);
        }
        self.packed.extend_from_slice(&piece.data);
        match (self.packed.len() as u64).cmp(&piece.total_bytes) {
            std::cmp::Ordering::Less => Ok(None),
            std::cmp::Ordering::Equal => unpacked(&std::mem::take(&mut self.packed)).map(Some),
            std::cmp::Ordering::Greater => Err(BadPiece::Garbled),
        }
    }
}

fn unpacked(packed: &[u8]) -> Result<ClusterFacts, BadPiece> {
    let mut bytes = Vec::new();
    let decoder = zstd::Decoder::new(packed).map_err(|_| BadPiece::Garbled)?;
    let read = decoder
        .take(MAX_CLUSTER_FACTS_BYTES + 1)
        .read_to_end(&mut bytes);
    read.map_err(|_| BadPiece::Garbled)?;
    if bytes.len() as u64 > MAX_CLUSTER_FACTS_BYTES {
        return Err(BadPiece::TooLarge);
    }
    ClusterFacts::decode(bytes.as_slice()).map_err(|_| BadPiece::Garbled)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn facts(generation: u64, entry: Vec<u8>) -> ClusterFacts {
        ClusterFacts {
            generation,
            base: 3,
            complete: true,
            missing: vec!["web9".to_owned()],
            ssh: "users".to_owned(),
            entries: vec![entry.into(), Bytes::from_static(b"another")],
            removed: vec!["web8".to_owned()],
            digest: vec![7; 32],
        }
    }

    /// Bytes that can't be packed: so there are many pieces.
    fn noise(len: usize) -> Vec<u8> {
        let mut state = 1u64;
        let next = move || {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            state.to_be_bytes()[0]
        };
        std::iter::repeat_with(next).take(len).collect()
    }

    fn joined(
        joiner: &mut Joiner,
        pieces: &[ClusterFactsPiece],
    ) -> Result<Option<ClusterFacts>, BadPiece> {
        let (last, first) = pieces.split_last().expect("there is one at least");
        for piece in first {
            assert_eq!(joiner.step(piece)?, None);
        }
        joiner.step(last)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]
        #[test]
        fn what_is_cut_is_put_together(len in 0..6 * PIECE_BYTES, generation in any::<u64>()) {
            let facts = facts(generation, noise(len));
            let pieces = pieces(&facts);
            prop_assert_eq!(pieces.len(), pieces[0].total_bytes.div_ceil(PIECE_BYTES as u64) as usize);
            prop_assert!(pieces.iter().all(|piece| piece.encoded_len() < PIECE_BYTES + 64));
            prop_assert_eq!(joined(&mut Joiner::default(), &pieces), Ok(Some(facts)));
        }
    }

    #[test]
    fn a_new_generation_takes_the_place_of_one_that_was_cut_off() {
        let mut joiner = Joiner::default();
        let old = pieces(&facts(1, noise(3 * PIECE_BYTES)));
        assert_eq!(joiner.step(&old[0]), Ok(None));
        let new = facts(2, noise(2 * PIECE_BYTES));
        assert_eq!(joined(&mut joiner, &pieces(&new)), Ok(Some(new)));
        assert_eq!(joiner.step(&old[1]), Err(BadPiece::Missing));
    }

    #[test]
    fn what_is_not_whole_is_no_facts() {
        let good = pieces(&facts(1, noise(3 * PIECE_BYTES))).to_vec();
        let twice = [good[0].clone(), good[0].clone(), good[2].clone()];
        assert_eq!(
            joined(&mut Joiner::default(), &twice),
            Err(BadPiece::Missing)
        );
        assert_eq!(Joiner::default().step(&good[1]), Err(BadPiece::Missing));
        let mut other = good.clone();
        other[1].generation = 2;
        assert_eq!(
            joined(&mut Joiner::default(), &other),
            Err(BadPiece::Missing)
        );
        let mut short = good.clone();
        for piece in &mut short {
            piece.total_bytes -= 1;
        }
        assert_eq!(
            joined(&mut Joiner::default(), &short),
            Err(BadPiece::Garbled)
        );
        let mut garbled = good.clone();
        garbled[1].data = vec![0; PIECE_BYTES].into();
        assert_eq!(
            joined(&mut Joiner::default(), &garbled),
            Err(BadPiece::Garbled)
        );
        let mut huge = good;
        huge[0].total_bytes = MAX_CLUSTER_FACTS_BYTES + 1;
        assert_eq!(Joiner::default().step(&huge[0]), Err(BadPiece::TooLarge));
        // Little that unpacks to too much.
        let bomb =
            zstd::encode_all(std::io::repeat(0).take(MAX_CLUSTER_FACTS_BYTES + 1), 1).unwrap();
        assert_eq!(unpacked(&bomb), Err(BadPiece::TooLarge));
    }
}
