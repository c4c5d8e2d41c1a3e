//! What can go wrong between a fleet's parts, besides what befalls a master alone.

use std::time::Duration;

use aot_postgres::server::Missing;

use super::master::socket;
use super::{Fleet, sockets};
use crate::bucket::Bucket;
use crate::proxy::Parting;
use crate::rig::LIMIT;
use crate::wait;

impl Fleet {
    /// Parts two masters: their calls to each other break or wait, whoever asks. Both reach the database, and all the rest. What
    /// machines have between them is another matter, see [`Fleet::break_passed_on`].
    ///
    /// # Panics
    /// When one of them does not run, or the fleet was started without ways that can be parted.
    pub fn part(&self, one: usize, other: usize, how: Parting) {
        self.masters[one].relay().part(other, how);
        self.masters[other].relay().part(one, how);
    }

    /// Breaks the connections of machines that one of these two masters passes on to the other; how many they were. Machines dial
    /// again, and are passed on again.
    ///
    /// # Panics
    /// When one of them does not run.
    pub fn break_passed_on(&self, one: usize, other: usize) -> usize {
        let of = |from: usize, to: usize| {
            sockets::break_all(self.masters[from].pid(), self.masters[to].port())
        };
        of(one, other) + of(other, one)
    }

    /// They reach each other again.
    ///
    /// # Panics
    /// As [`Fleet::part`].
    pub fn join(&self, one: usize, other: usize) {
        self.masters[one].relay().join(other);
        self.masters[other].relay().join(one);
    }

    /// How many connections between these two [`Fleet::part`] has broken or held.
    ///
    /// # Panics
    /// As [`Fleet::part`].
    pub fn parted(&self, one: usize, other: usize) -> u64 {
        let of = |at: usize| self.masters[at].relay().parted();
        of(one) + of(other)
    }

    /// Where the masters put what is long.
    ///
    /// # Panics
    /// When the fleet was started without.
    pub fn bucket(&self) -> &Bucket {
        self.place.bucket.as_ref().expect("it was asked for")
    }

    /// A synchronous standby is made, follows for so long, and takes the place of the database's server, which is killed. The
    /// masters reach it where they reached that one, as with a managed database.
    ///
    /// # Errors
    /// When PostgreSQL's programs are not here.
    ///
    /// # Panics
    /// When it does not follow.
    pub fn fail_over(&mut self, after: Duration) -> Result<(), Missing> {
        let standby = self.place.server.standby()?;
        let follows = || self.place.server.has_standby();
        wait::until(follows, LIMIT, "the standby has all that is written");
        let _ = wait::maybe(|| None::<()>, after); // it follows for so long
        self.place.server.kill();
        standby.promote();
        for master in &self.masters {
            master.way().lead_to(&standby.dir().join(socket(&standby)));
        }
        self.place.server = standby;
        Ok(())
    }
}
