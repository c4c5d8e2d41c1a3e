//! Is a run over, and if its shim died without a word of it, its end. Used by the runner at start and ever after. Safe
//! against a shim that comes up at the same time: both take the run's lock first.

use std::io;
use std::path::Path;

use aot_proto::plural;
use aot_proto::v1::EndKind;

use super::cancellation::{self, NOT_STARTED};
use super::journal::{Spec, Work, lock_if_free, pid_in};
use super::spool::{SPOOL, SpoolWriter, ended, stat};
use super::tree;

/// True when the run is over; writes an INTERRUPTED end when its shim is dead. `spec` is `None` when it can't be read.
///
/// # Errors
/// As open(2), flock(2), write(2).
pub(crate) fn end_if_abandoned(dir: &Path, spec: Option<&Spec>, boot_id: &str) -> io::Result<bool> {
    let same_boot = spec.is_some_and(|spec| spec.boot_id == boot_id);
    // A power cut may leave the mark and take the end.
    let is_marked = || same_boot && stat(&dir.join(SPOOL)).is_ok_and(|stat| stat.marked);
    if is_marked() {
        return Ok(true);
    }
    let Some(lock) = lock_if_free(dir)? else {
        return Ok(false);
    };
    // Its shim may have come to its end just now.
    if is_marked() {
        return Ok(true);
    }
    let (mut writer, scan) = SpoolWriter::open(dir)?;
    if scan.is_ended() {
        writer.mark();
        return Ok(true);
    }
    let shim = pid_in(dir);
    let detail = match (shim, same_boot) {
        (None, true) => "the agent stopped before it could start this run: it never started",
        // A power cut may have taken the traces of a start.
        (None, false) => "the machine restarted; it is not known whether this run had been started",
        // The same may have taken its end.
        (Some(_), false) => "the machine restarted while it ran or as it ended",
        // Of another boot the number means nothing; of this one the session is still ours.
        (Some(shim), true) => &format!(
            "its shim was killed, and so was what it left behind ({})",
            plural::count(tree::kill_session(shim), "process")
        ),
    };
    // What someone wanted ended is not to be tried again.
    let record = match (cancellation::is_requested(dir), shim) {
        (true, None) => ended(EndKind::Cancelled, NOT_STARTED),
        (true, Some(_)) => ended(EndKind::Cancelled, format!("cancelled; {detail}")),
        // A stage is tried again by the master; a command is for its operator to give once more.
        (false, None) if same_boot && !is_stage(spec) => ended(EndKind::NotStarted, detail),
        (false, _) => ended(EndKind::Interrupted, detail),
    };
    writer.end(record)?;
    drop(lock);
    Ok(true)
}

/// What can't be read may be one.
fn is_stage(spec: Option<&Spec>) -> bool {
    spec.is_none_or(|spec| matches!(spec.what, Work::Stage { .. }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runner::cancellation::CANCEL;
    use crate::runner::journal::SPEC;
    use crate::runner::spool::scan;
    use aot_proto::ids::RunId;
    use aot_proto::v1::frame::Body;
    use aot_proto::v1::{Ended, Started};
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    fn spec(boot_id: &str) -> Spec {
        Spec {
            run_id: RunId::from_parts(1, 1),
            job_id: String::new(),
            boot_id: boot_id.into(),
            timeout_ms: 0,
            silence_timeout_ms: 0,
            output_cap_bytes: 0,
            env: std::collections::BTreeMap::new(),
            what: Work::Exec {
                argv: vec!["true".into()],
                cwd: String::new(),
                user: String::new(),
            },
        }
    }

    fn end_of(dir: &Path) -> Ended {
        match scan(&dir.join(SPOOL))
            .unwrap()
            .last
            .and_then(|frame| frame.body)
        {
            Some(Body::Ended(ended)) => ended,
            other => panic!("no end but {other:?}"),
        }
    }

    #[test]
    fn a_run_that_never_started_is_recorded_as_such() {
        let dir = tempfile::tempdir().unwrap();
        assert!(end_if_abandoned(dir.path(), Some(&spec("b1")), "b1").unwrap());
        let end = end_of(dir.path());
        assert_eq!(
            end.kind(),
            EndKind::NotStarted,
            "a command is not tried again"
        );
        assert!(end.detail.contains("never started"), "{}", end.detail);
        assert!(
            end_if_abandoned(dir.path(), Some(&spec("b1")), "b1").unwrap(),
            "safe to repeat"
        );
        assert_eq!(
            fs::read(dir.path().join(SPOOL)).unwrap().len() as u64,
            scan(&dir.path().join(SPOOL)).unwrap().whole_bytes
        );
    }

    #[test]
    fn what_was_cancelled_is_not_recorded_as_interrupted() {
        let table = [
            (None, "b1", "cancelled before it was started"),
            (None, "b2", "cancelled before it was started"),
            (
                Some("4194303"),
                "b2",
                "cancelled; the machine restarted while it ran or as it ended",
            ),
        ];
        for (shim, boot, detail) in table {
            let dir = tempfile::tempdir().unwrap();
            fs::write(dir.path().join(CANCEL), "0").unwrap();
            if let Some(pid) = shim {
                fs::write(dir.path().join(SPEC), format!("{{}}\n{pid}")).unwrap();
            }
            assert!(end_if_abandoned(dir.path(), Some(&spec("b1")), boot).unwrap());
            let end = end_of(dir.path());
            assert_eq!((end.kind(), &*end.detail), (EndKind::Cancelled, detail));
        }
    }

    #[test]
    fn after_a_reboot_a_recycled_pid_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let mut other = std::process::Command::new("sleep")
            .arg("600")
            .spawn()
            .unwrap();
        let (mut writer, _) = SpoolWriter::open(dir.path()).unwrap();
        writer.append(Body::Started(Started::default())).unwrap();
        let whole = fs::metadata(dir.path().join(SPOOL)).unwrap().len();
        let torn = [&fs::read(dir.path().join(SPOOL)).unwrap()[..], &[77, 0]].concat();
        fs::write(dir.path().join(SPOOL), torn).unwrap();
        // The pid of a session leader of this boot, and the record of another.
        let stat = tree::stat(other.id().cast_signed()).unwrap();
        fs::write(dir.path().join(SPEC), format!("{{}}\n{}", stat.session)).unwrap();
        assert!(end_if_abandoned(dir.path(), Some(&spec("b1")), "b2").unwrap());
        assert!(end_of(dir.path()).detail.contains("restarted"));
        assert!(other.try_wait().unwrap().is_none(), "it was killed");
        assert!(fs::metadata(dir.path().join(SPOOL)).unwrap().len() > whole);
        other.kill().unwrap();
        other.wait().unwrap();
    }

    #[test]
    fn a_mark_of_another_boot_is_not_believed() {
        let dir = tempfile::tempdir().unwrap();
        let spool = dir.path().join(SPOOL);
        let (mut writer, _) = SpoolWriter::open(dir.path()).unwrap();
        writer.append(Body::Started(Started::default())).unwrap();
        fs::write(dir.path().join(SPEC), "{}\n4194303").unwrap();
        fs::set_permissions(&spool, fs::Permissions::from_mode(0o400)).unwrap();
        assert!(end_if_abandoned(dir.path(), Some(&spec("b1")), "b2").unwrap());
        let end = end_of(dir.path());
        assert_eq!(end.kind(), EndKind::Interrupted);
        let after = stat(&spool).unwrap();
        assert!(after.marked, "now it is true");
        for boot in ["b1", "b2"] {
            assert!(end_if_abandoned(dir.path(), Some(&spec("b1")), boot).unwrap());
            assert_eq!(stat(&spool).unwrap(), after, "there is one end");
        }
    }

    #[test]
    fn a_live_shim_keeps_its_run() {
        let dir = tempfile::tempdir().unwrap();
        let lock = lock_if_free(dir.path()).unwrap();
        assert!(!end_if_abandoned(dir.path(), Some(&spec("b1")), "b1").unwrap());
        drop(lock);
        assert!(end_if_abandoned(dir.path(), Some(&spec("b1")), "b1").unwrap());
    }
}
