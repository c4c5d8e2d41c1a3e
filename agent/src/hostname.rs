//! Gives the machine the host name that cluster.yml gives its instance. All members of a pool share one user-data, so
//! only the master's welcome can say it. Called by the session; never on clones, whose supervisor has named them.

use std::io;
use std::path::Path;

use aot_host::files::write_atomic;
use aot_proto::hostname;

/// Keeps cloud-init from putting its own name back at the next boot (cloud-init, "Set Hostname").
const PRESERVE: &str = "# Written by aot-agent.\npreserve_hostname: true\n";

/// Why the name was not given.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("{name:?} is not a host name: {why}")]
    Invalid {
        name: String,
        /// The rule that it breaks.
        why: &'static str,
    },
    /// The system refused.
    #[error("cannot set the host name")]
    Io(#[from] io::Error),
}

/// Sets the name for good, when it is another; whether it was.
///
/// # Errors
/// When it is not a host name, or the system refuses.
pub(crate) fn ensure(etc_dir: &Path, wanted: &str) -> Result<bool, Error> {
    hostname::check(wanted).map_err(|why| Error::Invalid {
        name: wanted.to_owned(),
        why,
    })?;
    let file = etc_dir.join("hostname");
    let written = std::fs::read_to_string(&file).is_ok_and(|text| text.trim() == wanted);
    let named = rustix::system::uname().nodename().to_bytes() == wanted.as_bytes();
    if written && named {
        return Ok(false);
    }
    let cloud = etc_dir.join("cloud/cloud.cfg.d");
    if cloud.is_dir() {
        write_atomic(
            &cloud.join("99-aot-hostname.cfg"),
            PRESERVE.as_bytes(),
            0o644,
        )?;
    }
    write_atomic(&file, format!("{wanted}\n").as_bytes(), 0o644)?;
    if !named {
        rustix::system::sethostname(wanted.as_bytes()).map_err(io::Error::from)?;
    }
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_host_names_are_taken() {
        let long = "a".repeat(65);
        for bad in [
            "",
            "-a",
            "a..b",
            "a\nb",
            "a/b",
            "localhost",
            "10.0.0.1",
            &long,
        ] {
            let dir = tempfile::tempdir().unwrap();
            assert!(matches!(
                ensure(dir.path(), bad),
                Err(Error::Invalid { .. })
            ));
            assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
        }
    }

    #[test]
    fn a_name_that_is_there_already_changes_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let name = rustix::system::uname()
            .nodename()
            .to_string_lossy()
            .into_owned();
        std::fs::write(dir.path().join("hostname"), format!("{name}\n")).unwrap();
        std::fs::create_dir_all(dir.path().join("cloud/cloud.cfg.d")).unwrap();
        assert!(!ensure(dir.path(), &name).unwrap());
        assert!(
            !dir.path()
                .join("cloud/cloud.cfg.d/99-aot-hostname.cfg")
                .exists()
        );
        std::fs::write(dir.path().join("hostname"), "other\n").unwrap();
        assert!(ensure(dir.path(), &name).unwrap(), "the file had another");
        let text = std::fs::read_to_string(dir.path().join("hostname")).unwrap();
        assert_eq!(text.trim(), name);
        assert!(
            dir.path()
                .join("cloud/cloud.cfg.d/99-aot-hostname.cfg")
                .exists()
        );
    }
}
