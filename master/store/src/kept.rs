//! What jobs that are over take, in the store and in files. Pure.

use std::collections::{HashMap, HashSet};

use aot_model::retention::EndedJob;
use aot_proto::ids::RunId;

use crate::{ClosedJob, StoredOutputs};

/// Jobs that are over, with the bytes that they take, in the order of `jobs`. `needed` runs are left out; `files` are the
/// sizes of spools that are files.
pub fn kept(
    jobs: &[ClosedJob],
    mut stored: StoredOutputs,
    needed: &HashSet<RunId>,
    files: &HashMap<RunId, u64>,
) -> Vec<EndedJob> {
    let one = |job: &ClosedJob| {
        let mut outputs = stored.remove(&job.id).unwrap_or_default();
        let all = outputs.len();
        outputs.retain(|(run, _)| !needed.contains(run));
        for (run, bytes) in &mut outputs {
            *bytes += files.get(run).copied().unwrap_or(0);
        }
        EndedJob {
            id: job.id,
            ended_ms: job.ended_ms,
            needed: outputs.len() < all,
            outputs,
        }
    };
    jobs.iter().map(one).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use aot_proto::ids::JobId;

    #[test]
    fn a_job_takes_what_the_store_and_the_files_have_and_what_is_needed_stays() {
        let [small, file, needed] = [1, 2, 3].map(|id| RunId::from_parts(id, 0));
        let job = |id| ClosedJob {
            id: JobId::from_parts(id, 0),
            ended_ms: id,
        };
        let stored = HashMap::from([
            (job(1).id, vec![(small, 6), (file, 0)]),
            (job(2).id, vec![(needed, 9)]),
        ]);
        let files = HashMap::from([(file, 100), (needed, 7)]);
        let all = kept(
            &[job(1), job(2), job(3)],
            stored,
            &HashSet::from([needed]),
            &files,
        );
        assert_eq!(all[0].outputs, [(small, 6), (file, 100)]);
        assert!(!all[0].needed);
        assert_eq!((all[1].outputs.len(), all[1].needed), (0, true));
        assert_eq!((all[2].outputs.len(), all[2].needed), (0, false));
    }
}
