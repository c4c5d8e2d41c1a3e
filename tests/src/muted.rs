//! A way to a master's socket on which the master can be made silent from its second answer on: whoever asks is greeted, and then
//! hears nothing of what it has asked for, until the way is cut.

use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

/// Before each frame of HTTP/2 (RFC 9113, section 4.1): three bytes of length, a type, flags, and the stream in four bytes.
const HEAD: usize = 9;

/// The first stream that a client opens; the next one is 3.
const FIRST_STREAM: u32 = 1;

/// The way, until it is dropped; threads that wait for a connection end with the process.
#[derive(Debug)]
pub struct Muted {
    is_mute: Arc<AtomicBool>,
    open: Arc<Mutex<Vec<UnixStream>>>,
    path: PathBuf,
}

impl Muted {
    /// From a socket that is made here to this one; connections end while nobody listens there.
    ///
    /// # Panics
    /// When it can't be made.
    pub fn new(path: &Path, to: &Path) -> Self {
        let listener = UnixListener::bind(path).expect("makes the socket");
        let way = Self {
            is_mute: Arc::new(AtomicBool::new(true)),
            open: Arc::default(),
            path: path.to_owned(),
        };
        let (is_mute, open, to) = (way.is_mute.clone(), way.open.clone(), to.to_owned());
        std::thread::spawn(move || {
            for near in listener.incoming().map_while(Result::ok) {
                let Ok(far) = UnixStream::connect(&to) else {
                    continue; // dropped
                };
                let copies = [&near, &near, &far, &far].map(UnixStream::try_clone);
                let [near_in, near_out, far_in, far_out] =
                    copies.map(|copy| copy.expect("copies a descriptor"));
                let is_mute = is_mute.clone();
                std::thread::spawn(move || pass(near_in, far_out, None));
                std::thread::spawn(move || pass(far_in, near_out, Some(is_mute)));
                let mut all = open.lock().expect("nobody panics with it");
                all.extend([near, far]);
            }
        });
        way
    }

    /// Ends all connections; those that are opened from now on pass everything.
    ///
    /// # Panics
    /// When a thread here has panicked.
    pub fn cut_and_mend(&self) {
        self.is_mute.store(false, Ordering::SeqCst);
        for stream in self.open.lock().expect("nobody panics with it").drain(..) {
            let _ = stream.shutdown(Shutdown::Both); // it may have ended
        }
    }
}

impl Drop for Muted {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path); // its folder may be gone
    }
}

/// Copies until one side ends; with `is_mute`, frames of later streams are left out while that is so.
fn pass(mut from: UnixStream, mut to: UnixStream, is_mute: Option<Arc<AtomicBool>>) {
    let mut held = Vec::new();
    let mut piece = [0; 16 << 10];
    while let Ok(len @ 1..) = from.read(&mut piece) {
        let passed = match &is_mute {
            None => to.write_all(&piece[..len]),
            Some(is_mute) => {
                held.extend_from_slice(&piece[..len]);
                to.write_all(&heard(&mut held, is_mute.load(Ordering::SeqCst)))
            }
        };
        if passed.is_err() {
            break;
        }
    }
    for stream in [from, to] {
        let _ = stream.shutdown(Shutdown::Both); // the other side may have ended
    }
}

/// The whole frames of what has come, but for those that are not to be heard; what follows them stays.
fn heard(held: &mut Vec<u8>, is_mute: bool) -> Vec<u8> {
    let mut out = Vec::new();
    while held.len() >= HEAD {
        let number = |bytes: &[u8]| {
            bytes
                .iter()
                .fold(0, |sum, byte| sum << 8 | u32::from(*byte))
        };
        let len = HEAD + number(&held[..3]) as usize;
        if held.len() < len {
            break;
        }
        let stream = number(&held[5..HEAD]) & !(1 << 31);
        let frame: Vec<u8> = held.drain(..len).collect();
        if !is_mute || stream <= FIRST_STREAM {
            out.extend(frame);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_frames_of_later_streams_are_left_out_however_they_are_cut() {
        let frame = |stream: u8, text: &str| {
            let mut bytes = vec![0, 0, text.len() as u8, 0, 0, 0, 0, 0, stream];
            bytes.extend(text.as_bytes());
            bytes
        };
        let all: Vec<u8> = [(0, "set"), (1, "greeting"), (3, "answer"), (1, ""), (3, "")]
            .iter()
            .flat_map(|(stream, text)| frame(*stream, text))
            .collect();
        let (mut held, mut out) = (Vec::new(), Vec::new());
        for byte in &all {
            held.push(*byte);
            out.extend(heard(&mut held, true));
        }
        let want = [frame(0, "set"), frame(1, "greeting"), frame(1, "")].concat();
        assert_eq!((out, held.len()), (want, 0));
        assert_eq!(heard(&mut all.clone(), false), all);
    }
}
