//! Several connections to write on, so that no cluster waits for another's write. The engine makes one sync of many.

use std::hash::{DefaultHasher, Hash, Hasher};

use aot_store::HoldPosition;

use crate::commit::FencedWriter;
use crate::connect::EngineLink;
use crate::parts::SqlPart;
use crate::{Error, PostgresUrl};

/// Connections. More gain little: the engine's disk is what writes wait for.
const WRITERS: usize = 8;

/// All of them.
pub(crate) struct FencedWriters([FencedWriter; WRITERS]);

impl FencedWriters {
    /// To this database; each connects when it is needed.
    pub(crate) fn new(url: &PostgresUrl) -> Result<Self, Error> {
        let link = || EngineLink::new(url).map(FencedWriter::new);
        Ok(Self([
            link()?,
            link()?,
            link()?,
            link()?,
            link()?,
            link()?,
            link()?,
            link()?,
        ]))
    }

    /// As [`FencedWriter::write`], on a connection that is free.
    ///
    /// # Errors
    /// As that.
    pub(crate) async fn write(
        &self,
        hold: &str,
        position: &mut HoldPosition,
        parts: Vec<SqlPart>,
    ) -> Result<(), Error> {
        let free = self.0.iter().find_map(|it| Some((it, it.try_turn()?)));
        let (writer, turn) = match free {
            Some(free) => free,
            None => {
                let writer = self.of(hold);
                (writer, writer.turn().await)
            }
        };
        let written = writer.write(hold, position, parts).await;
        drop(turn);
        written
    }

    /// The one that is waited for when none is free.
    fn of(&self, hold: &str) -> &FencedWriter {
        let mut hasher = DefaultHasher::new();
        hold.hash(&mut hasher);
        let number = hasher.finish() % (WRITERS as u64);
        let number = usize::try_from(number).unwrap_or_default();
        &self.0[number]
    }

    /// A connection for statements that stand by themselves.
    pub(crate) fn link(&self) -> &EngineLink {
        &self.0[0].link
    }

    /// How often it was asked what became of a write, and how often it was not made.
    #[cfg(test)]
    pub(crate) fn counts(&self) -> (u64, u64) {
        use std::sync::atomic::Ordering::SeqCst;
        let sum = |of: fn(&FencedWriter) -> u64| self.0.iter().map(of).sum();
        let asked = |it: &FencedWriter| it.asked.load(SeqCst);
        let unmade = |it: &FencedWriter| it.unmade.load(SeqCst);
        (sum(asked), sum(unmade))
    }
}
