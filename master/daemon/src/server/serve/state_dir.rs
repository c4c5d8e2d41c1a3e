//! The state folder: its owner's alone, and of one master at a time. Knows nothing of what lies in it but a few names.

use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;
use std::time::Duration;

use super::error::{Error, io};

/// What lies in a state folder, or is given a name that belongs in one.
const OF_A_STATE: [&str; 4] = ["aot.sqlite", "lock", "ca.pem", "master.log"];

/// A state folder is its owner's alone. One that was made by someone else, with the usual mode, is shut; one that holds other
/// things is not ours to shut.
pub(super) fn own_state(dir: &Path) -> Result<(), Error> {
    let mode = std::fs::metadata(dir)
        .map_err(io("look at", dir))?
        .permissions()
        .mode();
    if mode & 0o077 == 0 {
        return Ok(());
    }
    let mut entries = std::fs::read_dir(dir).map_err(io("look into", dir))?;
    let is_ours = OF_A_STATE.iter().any(|name| dir.join(name).exists());
    if !is_ours && entries.next().is_some() {
        return Err(Error::Shared(dir.to_owned()));
    }
    std::fs::set_permissions(dir, std::fs::Permissions::from_mode(0o700))
        .map_err(io("shut to others the folder", dir))?;
    tracing::warn!(state = %dir.display(), mode = format!("{:o}", mode & 0o777), "the state folder was open to others; it is 0700 now");
    Ok(())
}

/// One state folder, one master: the lock ends with the process, however it ends.
fn lock(state_dir: &Path) -> Result<std::fs::File, Error> {
    let path = state_dir.join("lock");
    let file = std::fs::File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .mode(0o600)
        .open(&path);
    let file = file.map_err(io("open", &path))?;
    aot_host::files::private_file(&path).map_err(io("set the mode of", &path))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(std::fs::TryLockError::WouldBlock) => Err(Error::Running(state_dir.to_owned())),
        Err(std::fs::TryLockError::Error(source)) => Err(io("lock", &path)(source)),
    }
}

/// The lock of a folder whose records are to be brought elsewhere: no master works on it, and none starts.
///
/// # Errors
/// [`Error::StillRuns`] when one does; when there are no records.
pub fn lock_to_move(state_dir: &Path) -> Result<std::fs::File, Error> {
    let path = state_dir.join(aot_store::sqlite::FILE);
    if !path.is_file() {
        return Err(aot_store::Error::NoRecords { path }.into());
    }
    lock(state_dir).map_err(|error| match error {
        Error::Running(dir) => {
            let socket = std::fs::read(state_dir.join("lock")).unwrap_or_default();
            let socket = Path::new(std::ffi::OsStr::from_bytes(&socket)).to_owned();
            Error::StillRuns { dir, socket }
        }
        other => other,
    })
}

/// How long a master that is ending may hold on to its state.
const ENDING: Duration = Duration::from_secs(8);

/// How often the state is tried until then: nothing reports an unlock.
const TRY_EVERY: Duration = Duration::from_millis(20);

/// The lock. Of a master that is killed or stops, its end is waited for; one that answers is not.
pub(super) async fn lock_in_time(state_dir: &Path, socket: &Path) -> Result<std::fs::File, Error> {
    let deadline = tokio::time::Instant::now() + ENDING;
    loop {
        let locked = lock(state_dir);
        if let Ok(mut file) = locked {
            // For whoever finds it locked.
            let socket = socket.as_os_str().as_encoded_bytes();
            if std::fs::read(state_dir.join("lock")).is_ok_and(|written| written == socket) {
                return Ok(file); // as at the last start: a full disk is not in the way
            }
            let written = file.set_len(0).and_then(|()| file.write_all(socket));
            written.map_err(io("write", &state_dir.join("lock")))?;
            return Ok(file);
        }
        let held = matches!(locked, Err(Error::Running(_)));
        if !held || answers(state_dir) || tokio::time::Instant::now() >= deadline {
            return locked;
        }
        tokio::time::sleep(TRY_EVERY).await;
    }
}

/// Whether the master that holds the lock answers on its socket.
fn answers(state_dir: &Path) -> bool {
    let socket = std::fs::read(state_dir.join("lock")).unwrap_or_default();
    let socket = std::ffi::OsStr::from_bytes(&socket);
    std::os::unix::net::UnixStream::connect(socket).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_that_others_can_read_is_shut_and_a_shared_folder_is_refused() {
        let mode = |path: &Path| {
            let meta = std::fs::metadata(path).expect("is there");
            meta.permissions().mode() & 0o777
        };
        let dir = tempfile::tempdir().expect("a folder");
        let open = || std::fs::Permissions::from_mode(0o755);
        std::fs::set_permissions(dir.path(), open()).expect("opens");
        own_state(dir.path()).expect("an empty one");
        assert_eq!(mode(dir.path()), 0o700);
        lock(dir.path()).expect("is free");
        assert_eq!(mode(&dir.path().join("lock")), 0o600);
        std::fs::set_permissions(dir.path(), open()).expect("opens");
        own_state(dir.path()).expect("one of ours");
        assert_eq!(mode(dir.path()), 0o700);
        let shared = tempfile::tempdir().expect("a folder");
        std::fs::set_permissions(shared.path(), open()).expect("opens");
        std::fs::write(shared.path().join("thesis.tex"), "").expect("writes");
        let refused = own_state(shared.path()).expect_err("it is not ours");
        assert!(matches!(refused, Error::Shared(_)), "{refused}");
        assert_eq!(mode(shared.path()), 0o755);
    }

    #[test]
    fn one_state_folder_has_one_master() {
        let dir = tempfile::tempdir().expect("a folder");
        let first = lock(dir.path()).expect("is free");
        assert!(matches!(lock(dir.path()), Err(Error::Running(_))));
        drop(first);
        assert!(lock(dir.path()).is_ok());
    }

    #[tokio::test]
    async fn a_folder_is_moved_only_when_its_master_has_stopped() {
        let dir = tempfile::tempdir().expect("a folder");
        let none = lock_to_move(dir.path()).expect_err("it has no records");
        assert!(none.to_string().contains("aot.sqlite"), "{none}");
        assert_eq!(std::fs::read_dir(dir.path()).expect("reads").count(), 0);
        std::fs::write(dir.path().join("aot.sqlite"), "").expect("writes");
        let socket = Path::new("/run/aot.sock");
        let running = lock_in_time(dir.path(), socket).await.expect("is free");
        let text = lock_to_move(dir.path()).expect_err("it runs").to_string();
        for part in [
            &*dir.path().display().to_string(),
            "/run/aot.sock",
            "stop it",
        ] {
            assert!(text.contains(part), "{text}");
        }
        drop(running);
        let moving = lock_to_move(dir.path()).expect("is free");
        assert!(matches!(lock(dir.path()), Err(Error::Running(_))));
        drop(moving);
    }
}
