//! Manual pages of every command, for packages: `aot-master man DIR`.

use std::fs;
use std::io;
use std::path::Path;

/// Writes `aot-master.1` and `aot-master-COMMAND.1` into a folder, which is made if need be.
///
/// # Errors
/// When it can't be written to.
pub fn write(dir: &Path) -> io::Result<()> {
    fs::create_dir_all(dir)?;
    clap_mangen::generate_to(super::command(), dir)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_command_has_a_page_and_no_hidden_one() {
        let dir = tempfile::tempdir().expect("a folder");
        let dir = dir.path().join("man1");
        write(&dir).expect("written");
        let page = |name: &str| fs::read_to_string(dir.join(name));
        let exec = page("aot-master-exec.1").expect("a page");
        assert!(
            exec.contains("\\-\\-canary") && exec.contains("Examples"),
            "{exec}"
        );
        assert!(page("aot-master.1").is_ok() && page("aot-master-jobs-show.1").is_ok());
        assert!(page("aot-master-machine-run.1").is_err());
    }
}
