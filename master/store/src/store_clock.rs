//! How this host's clock goes beside that of what keeps the records, where that is another host's. Engines compare; `doctor` shows it.

/// How well the wall clock is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum WallClock {
    /// The two agree.
    #[default]
    Well,
    /// They do not, by so little that nothing hangs on it.
    Off,
    /// It is the database's that is far off, as far as is known.
    DatabaseFarOff,
    /// One of the two is far off, and it is not known yet which.
    Unsure,
    /// This host's is far off.
    FarOff,
}

/// What was found when they were compared last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StoreClock {
    /// What that means.
    pub wall: WallClock,
    /// By how many milliseconds, at least, this host's is ahead.
    pub ahead_ms: i64,
}
