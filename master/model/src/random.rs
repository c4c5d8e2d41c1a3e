//! Random numbers for ids: each is HMAC-SHA256 of a count under a secret seed, a pseudo-random function. Whoever has seen
//! any number of ids knows nothing of the others (an id is not a password, but must not be computable by the machines that
//! get one). No I/O: the seed comes from outside, so tests get the same ids again.

use aws_lc_rs::hmac;

/// Makes the random part of ids.
#[derive(Clone)]
pub(crate) struct Ids {
    key: hmac::Key,
    drawn: u64,
}

impl Ids {
    /// From 32 bytes of the system's random numbers, of this start of the master alone.
    pub(crate) fn new(seed: &[u8; 32]) -> Self {
        Self {
            key: hmac::Key::new(hmac::HMAC_SHA256, seed),
            drawn: 0,
        }
    }

    /// The next 80 bits: the random part of a ULID.
    pub(crate) fn draw(&mut self) -> u128 {
        let tag = hmac::sign(&self.key, &self.drawn.to_le_bytes());
        self.drawn += 1;
        let bytes = tag.as_ref().iter().take(10);
        bytes.fold(0, |sum, byte| sum << 8 | u128::from(*byte))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drawn(seed: u8) -> Vec<u128> {
        let mut ids = Ids::new(&[seed; 32]);
        (0..1000).map(|_| ids.draw()).collect()
    }

    #[test]
    fn the_same_seed_gives_the_same_ids_and_another_gives_others() {
        assert_eq!(drawn(1), drawn(1));
        let mut all = drawn(1);
        all.extend(drawn(2));
        all.sort_unstable();
        all.dedup();
        assert_eq!(all.len(), 2000);
        assert!(
            all.iter().all(|id| id >> 80 == 0),
            "an id has 80 random bits"
        );
        assert!(
            all.last().is_some_and(|id| id >> 79 == 1),
            "all 80 are used"
        );
    }

    #[test]
    fn one_id_says_nothing_of_the_next() {
        // A generator whose state is its output (SplitMix64, xorshift) has a fixed difference, or a fixed function, between
        // its steps. A keyed one differs with the key, also after the same output bits.
        let step = |seed| {
            let ids = drawn(seed);
            ids[1].wrapping_sub(ids[0])
        };
        let mut steps: Vec<_> = (0..=255).map(step).collect();
        steps.sort_unstable();
        steps.dedup();
        assert_eq!(steps.len(), 256);
    }
}
