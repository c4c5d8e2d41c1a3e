//! For how long a master was seen without a beat.

use std::time::Duration;

use tokio::time::Instant;

/// Only time between two readings that worked counts, and no more of it than a master takes for a beat: after an outage of the
/// engine, or a pause of whoever asks, nobody is dead for what was not seen.
#[derive(Debug, Clone, Default)]
pub(crate) struct Silence {
    /// The start of the master, and its beat.
    last_beat: Option<(i64, i64)>,
    last_read: Option<Instant>,
    counted: Duration,
}

impl Silence {
    /// What it comes to with this reading.
    pub(crate) fn read(&mut self, beat: (i64, i64), now: Instant, most: Duration) -> Duration {
        match self.last_read {
            Some(last) if self.last_beat == Some(beat) => {
                self.counted += now.duration_since(last).min(most);
            }
            _ => self.counted = Duration::ZERO,
        }
        self.last_beat = Some(beat);
        self.last_read = Some(now);
        self.counted
    }

    /// As of the last reading.
    pub(crate) fn counted(&self) -> Duration {
        self.counted
    }

    /// Whether this is what the last reading showed.
    pub(crate) fn is_of(&self, beat: (i64, i64)) -> bool {
        self.last_beat == Some(beat)
    }

    /// A reading did not work: what is known is no longer of now.
    pub(crate) fn interrupt(&mut self) {
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BEAT: Duration = Duration::from_secs(2);

    #[test]
    fn only_time_between_readings_that_worked_counts() {
        let begun = Instant::now();
        let mut silence = Silence::default();
        let mut read = |seconds: u64, beat, is_interrupted: bool| {
            if is_interrupted {
                silence.interrupt();
            }
            let counted = silence.read((1, beat), begun + Duration::from_secs(seconds), BEAT);
            counted.as_secs()
        };
        assert_eq!(read(0, 5, false), 0);
        assert_eq!(read(1, 5, false), 1);
        assert_eq!(read(3, 5, false), 3);
        // Whoever asks was paused: what it did not see is no more than a beat.
        assert_eq!(read(60, 5, false), 5);
        // The engine was away: all anew.
        assert_eq!(read(61, 5, true), 0);
        assert_eq!(read(62, 5, false), 1);
        // It beats.
        assert_eq!(read(63, 6, false), 0);
        assert_eq!(read(64, 6, false), 1);
    }
}
