//! The console of a clone: a file that never grows past two times its bound.

use std::fs::{File, OpenOptions};
use std::io::{self, PipeReader, Read, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

/// The file is set aside as `console.log.1` when it would grow past this.
pub(crate) const CONSOLE_BYTES: u64 = 1 << 20;
/// Most that is shown to a person.
pub(crate) const SHOWN_BYTES: u64 = 4 << 10;

/// Appends to the file, turning it over at the bound.
pub(crate) struct Console {
    path: PathBuf,
    file: File,
    size: u64,
}

impl Console {
    /// Opens it for appending.
    pub(crate) fn open(path: PathBuf) -> io::Result<Self> {
        let file = append(&path)?;
        let size = file.metadata()?.len();
        Ok(Self { path, file, size })
    }

    /// Takes one read's worth from the pipe.
    pub(crate) fn copy(&mut self, pipe: &mut PipeReader) -> io::Result<usize> {
        let mut bytes = [0_u8; 8192];
        let count = pipe.read(&mut bytes)?;
        self.write(&bytes[..count])?;
        Ok(count)
    }

    /// Takes what is left in a pipe that nobody writes to any more.
    pub(crate) fn drain(&mut self, pipe: &mut PipeReader) -> io::Result<()> {
        while self.copy(pipe)? > 0 {}
        Ok(())
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        if self.size + bytes.len() as u64 > CONSOLE_BYTES {
            std::fs::rename(&self.path, self.path.with_extension("log.1"))?;
            self.file = append(&self.path)?;
            self.size = 0;
        }
        self.file.write_all(bytes)?;
        self.size += bytes.len() as u64;
        Ok(())
    }
}

fn append(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .append(true)
        .create(true)
        .mode(0o600)
        .open(path)
}

/// The last part of a console file; empty when there is none.
pub(crate) fn tail(path: &Path) -> io::Result<String> {
    let mut file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(String::new()),
        Err(error) => return Err(error),
    };
    let size = file.metadata()?.len();
    file.seek(SeekFrom::Start(size.saturating_sub(SHOWN_BYTES)))?;
    let mut bytes = Vec::new();
    file.take(SHOWN_BYTES).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_is_turned_over_and_its_end_is_shown() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("console.log");
        assert_eq!(tail(&path).unwrap(), "");
        let mut console = Console::open(path.clone()).unwrap();
        for number in 0..300 {
            console.write(&[b'x'; 8192]).unwrap();
            console
                .write(format!("line {number}\n").as_bytes())
                .unwrap();
        }
        assert!(path.metadata().unwrap().len() <= CONSOLE_BYTES);
        assert!(path.with_extension("log.1").metadata().unwrap().len() <= CONSOLE_BYTES);
        let shown = tail(&path).unwrap();
        assert!(shown.ends_with("line 299\n"));
        assert_eq!(shown.len() as u64, SHOWN_BYTES);
    }
}
