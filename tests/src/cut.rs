//! A way to a unix socket that can be cut and mended: what goes through it breaks at once, and nobody gets through meanwhile.

use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

/// The way, until it is dropped; threads that wait for a connection end with the process.
#[derive(Debug)]
pub struct Cuttable {
    is_cut: Arc<AtomicBool>,
    open: Arc<Mutex<Vec<UnixStream>>>,
    path: PathBuf,
}

impl Cuttable {
    /// From a socket that is made here to this one.
    ///
    /// # Panics
    /// When it can't be made.
    pub fn new(path: &Path, to: &Path) -> Self {
        let listener = UnixListener::bind(path).expect("makes the socket");
        let way = Self {
            is_cut: Arc::default(),
            open: Arc::default(),
            path: path.to_owned(),
        };
        let (is_cut, open, to) = (way.is_cut.clone(), way.open.clone(), to.to_owned());
        std::thread::spawn(move || {
            for near in listener.incoming().map_while(Result::ok) {
                if is_cut.load(Ordering::SeqCst) {
                    continue; // dropped
                }
                if let Ok(far) = UnixStream::connect(&to) {
                    let mut all = open.lock().expect("nobody panics with it");
                    for (from, to) in [(&near, &far), (&far, &near)] {
                        let pair = from
                            .try_clone()
                            .and_then(|from| Ok((from, to.try_clone()?)));
                        let (from, to) = pair.expect("copies a descriptor");
                        std::thread::spawn(move || copy(from, to));
                    }
                    all.extend([near, far]);
                }
            }
        });
        way
    }

    /// Nothing passes from now on.
    ///
    /// # Panics
    /// When a thread here has panicked.
    pub fn cut(&self) {
        self.is_cut.store(true, Ordering::SeqCst);
        for stream in self.open.lock().expect("nobody panics with it").drain(..) {
            let _ = stream.shutdown(Shutdown::Both); // it may have ended
        }
    }

    /// What is dialled from now on gets through.
    pub fn mend(&self) {
        self.is_cut.store(false, Ordering::SeqCst);
    }
}

impl Drop for Cuttable {
    fn drop(&mut self) {
        self.cut();
        let _ = std::fs::remove_file(&self.path); // its folder goes anyway
    }
}

fn copy(mut from: UnixStream, mut to: UnixStream) {
    let mut bytes = [0; 16 << 10];
    while let Ok(count @ 1..) = from.read(&mut bytes) {
        if to.write_all(&bytes[..count]).is_err() {
            break;
        }
    }
    let _ = to.shutdown(Shutdown::Both); // the other side may be gone
}
