//! Which jobs and outputs are kept: never an open one, and the newest up to a time and a size. Asked now and then by `run`.
//! Pure.

use std::time::Duration;

use aot_proto::ids::{JobId, RunId};

use super::unix_ms::UnixMs;

/// How much is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RetentionLimits {
    /// Jobs that ended longer ago are dropped, with what they printed.
    pub age: Duration,
    /// Bytes of output in all; past it the oldest jobs' outputs are dropped, and their records say so.
    pub output_bytes: u64,
}

impl Default for RetentionLimits {
    /// 30 days, 10 GiB.
    fn default() -> Self {
        Self {
            age: Duration::from_secs(30 * 24 * 3600),
            output_bytes: 10 << 30,
        }
    }
}

/// A job that is over, and what is on disk of it. Output that something else still needs is not in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EndedJob {
    /// Its id; ids sort by when jobs began.
    pub id: JobId,
    /// When it ended.
    pub ended_ms: UnixMs,
    /// Its runs that may be dropped, with the bytes of their spools.
    pub outputs: Vec<(RunId, u64)>,
    /// Something else needs a part of it: its record stays.
    pub needed: bool,
}

/// What is to be dropped.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Sweep {
    /// Whole jobs, with their runs.
    pub jobs: Vec<JobId>,
    /// Jobs that lose what they printed and stay on record.
    pub emptied: Vec<JobId>,
    /// Spools of either.
    pub spools: Vec<RunId>,
}

impl Sweep {
    /// Nothing to do.
    pub fn is_empty(&self) -> bool {
        self.jobs.is_empty() && self.emptied.is_empty() && self.spools.is_empty()
    }
}

/// Decides, given all jobs that are over, oldest first.
pub fn sweep(kept: &[EndedJob], limits: &RetentionLimits, now: UnixMs) -> Sweep {
    let age_ms = u64::try_from(limits.age.as_millis()).unwrap_or(u64::MAX);
    let too_old = |job: &&EndedJob| job.ended_ms.saturating_add(age_ms) <= now;
    let size = |job: &EndedJob| job.outputs.iter().map(|(_, bytes)| bytes).sum::<u64>();
    let mut sweep = Sweep::default();
    let mut total: u64 = kept.iter().map(size).sum();
    for job in kept.iter().filter(too_old) {
        total -= size(job);
        sweep.spools.extend(job.outputs.iter().map(|(run, _)| *run));
        if !job.needed {
            sweep.jobs.push(job.id);
        } else if size(job) > 0 {
            sweep.emptied.push(job.id);
        }
    }
    for job in kept.iter().filter(|job| !too_old(job)) {
        if total <= limits.output_bytes {
            break;
        }
        let bytes = size(job);
        if bytes > 0 {
            total -= bytes;
            sweep.emptied.push(job.id);
            sweep.spools.extend(job.outputs.iter().map(|(run, _)| *run));
        }
    }
    sweep
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn job(id: u64, ended_ms: UnixMs, bytes: &[u64]) -> EndedJob {
        let output = |(n, bytes): (usize, &u64)| (RunId::from_parts(id, n as u128), *bytes);
        EndedJob {
            id: JobId::from_parts(id, 0),
            ended_ms,
            outputs: bytes.iter().enumerate().map(output).collect(),
            needed: false,
        }
    }

    fn limits(age_ms: u64, output_bytes: u64) -> RetentionLimits {
        RetentionLimits {
            age: Duration::from_millis(age_ms),
            output_bytes,
        }
    }

    #[test]
    fn old_jobs_go_whole_and_the_oldest_outputs_go_first() {
        let kept = [job(1, 0, &[5]), job(2, 50, &[4, 4]), job(3, 60, &[4])];
        let swept = sweep(&kept, &limits(60, 4), 100);
        assert_eq!(swept.jobs, [kept[0].id]);
        assert_eq!(swept.emptied, [kept[1].id]);
        assert_eq!(swept.spools.len(), 3);
    }

    #[test]
    fn what_something_else_needs_stays_on_record() {
        let mut needed = job(1, 0, &[]);
        needed.needed = true;
        assert!(sweep(&[needed], &limits(1, 0), 100).is_empty());
    }

    proptest! {
        /// Never more than allowed stays, nothing that is young enough goes whole, and nothing goes for no reason.
        #[test]
        fn the_limits_hold(
            jobs in prop::collection::vec((0u64..100, prop::collection::vec(0u64..50, 0..4)), 0..20),
            age in 0u64..120, most in 0u64..300,
        ) {
            let kept: Vec<EndedJob> = jobs.iter().enumerate().map(|(n, (ended, bytes))| job(n as u64, *ended, bytes)).collect();
            let swept = sweep(&kept, &limits(age, most), 100);
            let gone = |job: &&EndedJob| swept.jobs.contains(&job.id) || swept.emptied.contains(&job.id);
            let left: u64 = kept.iter().filter(|job| !gone(job)).flat_map(|job| &job.outputs).map(|(_, bytes)| bytes).sum();
            prop_assert!(left <= most);
            for job in &kept {
                prop_assert_eq!(swept.jobs.contains(&job.id), job.ended_ms + age <= 100);
            }
            let all: u64 = kept.iter().filter(|job| job.ended_ms + age > 100).flat_map(|job| &job.outputs).map(|(_, bytes)| bytes).sum();
            prop_assert!(all > most || swept.emptied.is_empty());
        }
    }
}
