//! What an operator asks for that came with a later level of records than those of the cluster have.

use super::input::Input;
use super::refusal::OpError;
use crate::level::Addition;

impl Input {
    /// Why it is not decided on where records are of this level; `None` where it is.
    pub fn refusal_at(&self, level: i32) -> Option<OpError> {
        let addition = self.addition()?;
        let refusal = addition.refusal(level)?;
        Some(OpError::Conflict(refusal.to_string()))
    }

    /// What in it came latest.
    fn addition(&self) -> Option<Addition> {
        let found = match self {
            Self::Launch(ask) => [
                Addition::of_file(&ask.spec),
                Addition::of_pace(&ask.pace),
                Addition::of_stages(&ask.stages),
            ],
            Self::Apply(ask) => [
                ask.file.as_ref().and_then(|it| Addition::of_file(&it.spec)),
                Addition::of_pace(&ask.pace),
                Addition::of_stages(&ask.stages),
            ],
            Self::Exec(ask) => [Addition::of_task(&ask.task), None, None],
            Self::Record(job) => [Addition::of_job(job), None, None],
            _ => return None, // of what was begun before, or of nothing new
        };
        // The first of those of the latest level.
        let found = found.into_iter().flatten();
        found.rev().max_by_key(|addition| addition.level)
    }
}
