//! What stands in the way of a launch, as the checks of a file, of a provider and of the master's own place find it.
//! Shown by `check`, `plan` and `launch`; nothing is decided on it.

/// Something that would make a launch fail, found before anything was made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// What, and on which thing.
    pub message: String,
    /// The way out.
    pub hint: String,
}
