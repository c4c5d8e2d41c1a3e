//! A way to a unix socket that can be cut, muted, and led elsewhere. Cut: what goes through it breaks at once, and nobody gets
//! through meanwhile. Muted: whatever is said waits, and nobody is told. Led elsewhere: what is dialled from now on.

use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

/// The way, until it is dropped; threads that wait for a connection end with the process.
#[derive(Debug)]
pub struct Cuttable {
    shared: Arc<CuttableParts>,
    path: PathBuf,
}

#[derive(Debug)]
struct CuttableParts {
    to: Mutex<PathBuf>,
    is_cut: AtomicBool,
    open: Mutex<Vec<UnixStream>>,
    is_muted: Mutex<bool>,
    changed: Condvar,
}

impl Cuttable {
    /// From a socket that is made here to this one.
    ///
    /// # Panics
    /// When it can't be made.
    pub fn new(path: &Path, to: &Path) -> Self {
        let listener = UnixListener::bind(path).expect("makes the socket");
        let shared = Arc::new(CuttableParts {
            to: Mutex::new(to.to_owned()),
            is_cut: AtomicBool::new(false),
            open: Mutex::default(),
            is_muted: Mutex::new(false),
            changed: Condvar::new(),
        });
        let theirs = shared.clone();
        std::thread::spawn(move || {
            for near in listener.incoming().map_while(Result::ok) {
                theirs.accept(near);
            }
        });
        let path = path.to_owned();
        Self { shared, path }
    }

    /// Nothing passes from now on.
    pub fn cut(&self) {
        self.shared.is_cut.store(true, Ordering::SeqCst);
        self.shared.end_all();
    }

    /// What is said from now on waits, for as long as it is muted; connections stay, and can be made.
    pub fn mute(&self) {
        *locked(&self.shared.is_muted) = true;
    }

    /// What is dialled from now on gets through, and so does what has waited.
    pub fn mend(&self) {
        self.shared.is_cut.store(false, Ordering::SeqCst);
        *locked(&self.shared.is_muted) = false;
        self.shared.changed.notify_all();
    }

    /// Leads to another socket: what was connected breaks, as when an address goes to another host.
    pub fn lead_to(&self, to: &Path) {
        *locked(&self.shared.to) = to.to_owned();
        self.shared.end_all();
    }
}

impl Drop for Cuttable {
    fn drop(&mut self) {
        self.cut();
        let _ = std::fs::remove_file(&self.path); // its folder goes anyway
    }
}

impl CuttableParts {
    fn accept(self: &Arc<Self>, near: UnixStream) {
        // Held until it is among those that are open: one that is dialled amid a cut is cut too.
        let mut open = locked(&self.open);
        if self.is_cut.load(Ordering::SeqCst) {
            return; // dropped
        }
        let to = locked(&self.to).clone();
        let Ok(far) = UnixStream::connect(to) else {
            return;
        };
        for (from, to) in [(&near, &far), (&far, &near)] {
            let pair = from
                .try_clone()
                .and_then(|from| Ok((from, to.try_clone()?)));
            let (from, to) = pair.expect("copies a descriptor");
            let this = self.clone();
            std::thread::spawn(move || this.copy(from, to));
        }
        open.extend([near, far]);
    }

    fn end_all(&self) {
        for stream in locked(&self.open).drain(..) {
            let _ = stream.shutdown(Shutdown::Both); // it may have ended
        }
    }

    fn copy(&self, mut from: UnixStream, mut to: UnixStream) {
        let mut bytes = [0; 16 << 10];
        while let Ok(count @ 1..) = from.read(&mut bytes) {
            let muted = locked(&self.is_muted);
            let heard = self.changed.wait_while(muted, |is_muted| *is_muted);
            drop(heard.unwrap_or_else(PoisonError::into_inner));
            if to.write_all(&bytes[..count]).is_err() {
                break;
            }
        }
        let _ = to.shutdown(Shutdown::Both); // the other side may be gone
    }
}

fn locked<T>(of: &Mutex<T>) -> MutexGuard<'_, T> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::heard::{Heard, SOON, WHILE, heard};

    /// Answers each connection with its name, then with what it hears.
    fn server(dir: &Path, name: &'static str) -> PathBuf {
        let path = dir.join(name);
        let listener = UnixListener::bind(&path).expect("binds");
        std::thread::spawn(move || {
            for mut stream in listener.incoming().map_while(Result::ok) {
                std::thread::spawn(move || {
                    let _ = stream.write_all(name.as_bytes());
                    let mut byte = [0];
                    while let Ok(1) = stream.read(&mut byte) {
                        let _ = stream.write_all(&byte);
                    }
                });
            }
        });
        path
    }

    fn dial(path: &Path) -> UnixStream {
        UnixStream::connect(path).expect("connects")
    }

    fn next(stream: &mut UnixStream, limit: Duration) -> Heard {
        stream.set_read_timeout(Some(limit)).expect("a socket");
        heard(stream)
    }

    #[test]
    fn a_way_is_cut_muted_mended_and_led_elsewhere() {
        let dir = tempfile::tempdir().expect("a folder");
        let (a, b) = (server(dir.path(), "a"), server(dir.path(), "b"));
        let path = dir.path().join("way");
        let way = Cuttable::new(&path, &a);
        let mut first = dial(&path);
        assert_eq!(next(&mut first, SOON), Heard::Byte(b'a'));
        way.mute();
        first.write_all(b"x").expect("it is open");
        assert_eq!(next(&mut first, WHILE), Heard::Silence, "it waits");
        way.mend();
        assert_eq!(next(&mut first, SOON), Heard::Byte(b'x'), "it is not lost");
        way.cut();
        assert_eq!(next(&mut first, SOON), Heard::End);
        assert_eq!(next(&mut dial(&path), SOON), Heard::End);
        way.lead_to(&b);
        way.mend();
        assert_eq!(next(&mut dial(&path), SOON), Heard::Byte(b'b'));
    }
}
