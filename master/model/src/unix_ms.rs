//! Time as records carry it.

/// Milliseconds since 1970: the only clock that records carry.
pub type UnixMs = u64;
