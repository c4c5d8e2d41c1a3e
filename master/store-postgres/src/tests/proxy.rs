//! A wire to the server that can be cut: what is sent arrives, and no answer comes back, or nothing arrives at all.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

/// Bytes pass.
pub(super) const OPEN: u8 = 0;
/// What is sent arrives, and its connection breaks before an answer comes back.
pub(super) const NO_ANSWER: u8 = 1;
/// What is sent does not arrive, and its connection breaks.
pub(super) const NO_REQUEST: u8 = 2;
/// What is sent arrives, and the answer is held back; the connection stays.
pub(super) const HELD: u8 = 3;
/// As `NO_ANSWER`, but for the end of a transaction.
pub(super) const NO_COMMIT_ANSWER: u8 = 4;

/// The wire; ends with the value.
pub(super) struct Proxy {
    pub(super) port: u16,
    state: Arc<Wire>,
    _tasks: JoinSet<()>,
}

#[derive(Default)]
struct Wire {
    mode: AtomicU8,
    broken: AtomicU64,
}

impl Proxy {
    pub(super) async fn to(port: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback");
        let own = listener.local_addr().expect("it is bound").port();
        let state = Arc::new(Wire::default());
        let mut tasks = JoinSet::new();
        let wire = state.clone();
        tasks.spawn(async move {
            let mut wires = JoinSet::new();
            while let Ok((client, _)) = listener.accept().await {
                wires.spawn(pass(client, port, wire.clone()));
            }
        });
        Self {
            port: own,
            state,
            _tasks: tasks,
        }
    }

    /// From the next bytes on.
    pub(super) fn set(&self, mode: u8) {
        self.state.mode.store(mode, Ordering::SeqCst);
    }

    /// How often a connection was broken or an answer held.
    pub(super) fn broken(&self) -> u64 {
        self.state.broken.load(Ordering::SeqCst)
    }
}

impl Wire {
    fn mode(&self) -> u8 {
        self.mode.load(Ordering::SeqCst)
    }

    /// Once: from then on bytes pass again.
    fn uses_up(&self, mode: u8) -> bool {
        let used = self
            .mode
            .compare_exchange(mode, OPEN, Ordering::SeqCst, Ordering::SeqCst);
        if used.is_ok() {
            self.broken.fetch_add(1, Ordering::SeqCst);
        }
        used.is_ok()
    }
}

async fn pass(client: TcpStream, port: u16, wire: Arc<Wire>) {
    let Ok(server) = TcpStream::connect(("127.0.0.1", port)).await else {
        return;
    };
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_server, mut to_server) = server.into_split();
    let (mut asked, mut answered) = (vec![0; 64 << 10], vec![0; 64 << 10]);
    let mut is_held = false;
    loop {
        tokio::select! {
            read = from_client.read(&mut asked) => {
                let Ok(bytes @ 1..) = read else { return };
                // A statement that is bound to values is one that writes or asks; setting up a session is not cut.
                let is_statement = asked[0] == b'B';
                let is_commit = asked[..bytes].windows(6).any(|it| it == b"COMMIT");
                if is_statement && wire.uses_up(NO_REQUEST) {
                    return;
                }
                if to_server.write_all(&asked[..bytes]).await.is_err() {
                    return;
                }
                let lost = match wire.mode() {
                    NO_ANSWER => is_statement,
                    NO_COMMIT_ANSWER => is_commit,
                    _ => false,
                };
                if lost {
                    // It was taken once its answer is there, which nobody is given.
                    let _ = from_server.read(&mut answered).await;
                    wire.uses_up(wire.mode());
                    return;
                }
                is_held |= is_statement && wire.uses_up(HELD);
            }
            read = from_server.read(&mut answered) => {
                let Ok(bytes @ 1..) = read else { return };
                if !is_held && to_client.write_all(&answered[..bytes]).await.is_err() {
                    return;
                }
            }
        }
    }
}
