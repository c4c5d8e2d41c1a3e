//! Terminals that operators open on this machine: each on a connection of its own, so that no control message waits behind
//! it. Opened by the session; outlive it when only the session breaks, never the connection or the agent.

pub(crate) mod keeper;
mod login;
mod splice;
mod terminal;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use aot_host::chain::Chain;
use aot_proto::limits::MAX_MESSAGE_BYTES;
use aot_proto::v1::agent_link_client::AgentLinkClient;
use aot_proto::v1::{OpenShell, ShellDown, ShellEnd, ShellHello, ShellUp, shell_up};
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::{Response, Streaming};

use crate::identity::ClientIdentity;
use crate::let_in::{self, let_in};
use crate::link::Link;
use login::Login;
use splice::{Splice, SpliceEnd};

/// Terminals at once; one more is refused.
const MOST: usize = 64;
/// How long the last message may take to leave.
const LAST_MESSAGE: Duration = Duration::from_secs(2);
/// How long a terminal may take to end when the agent stops: its keeper kills what does not hang up in time, what is left
/// of its output is read, and the last message leaves.
const END: Duration = keeper::GRACE.saturating_add(LAST_MESSAGE.saturating_mul(2));

/// What terminals need of their agent.
#[derive(Clone)]
pub(crate) struct Context {
    pub etc_dir: PathBuf,
    pub root_home: PathBuf,
    pub link: Link,
    /// The certificate of the day; `None` until enrolled.
    pub identity: watch::Receiver<Option<Arc<ClientIdentity>>>,
}

/// Every terminal of this agent.
pub(crate) struct Shells {
    context: Context,
    slots: Arc<Semaphore>,
    tasks: TaskTracker,
    stop: CancellationToken,
}

impl Shells {
    /// None yet.
    pub(crate) fn new(context: Context) -> Self {
        Self {
            context,
            slots: Arc::new(Semaphore::new(MOST)),
            tasks: TaskTracker::new(),
            stop: CancellationToken::new(),
        }
    }

    /// Opens one in the background. Whatever goes wrong is reported to the master, or seen by it as an end.
    pub(crate) fn open(&self, open: OpenShell) {
        let shell = Shell {
            context: self.context.clone(),
            stop: self.stop.clone(),
            open,
        };
        let slot = self.slots.clone().try_acquire_owned().ok();
        self.tasks.spawn(async move {
            let job = shell.open.job_id.clone();
            tracing::info!(job, user = shell.open.user, "a terminal was requested");
            match shell.run(slot.is_some()).await {
                Ok(()) => tracing::info!(job, "a terminal has ended"),
                Err(error) => tracing::warn!(job, error = %Chain(&error), "no terminal"),
            }
        });
    }

    /// Hangs up all of them; waits a short while for their last messages to leave.
    pub(crate) async fn close(&self) {
        self.stop.cancel();
        self.tasks.close();
        if timeout(END, self.tasks.wait()).await.is_err() {
            tracing::warn!("some terminals did not end in time; what runs there will be killed");
        }
    }
}

struct Shell {
    context: Context,
    stop: CancellationToken,
    open: OpenShell,
}

impl Shell {
    async fn run(self, has_slot: bool) -> Result<(), let_in::Error> {
        let hello = message(shell_up::Body::Hello(ShellHello {
            shell_id: self.open.shell_id.clone(),
        }));
        let identity = self.context.identity.borrow().clone();
        let link = &self.context.link;
        let (up, mut down) = let_in(link, identity.as_deref(), hello, async |channel, up| {
            let client = AgentLinkClient::new(channel);
            let mut client = client.max_decoding_message_size(MAX_MESSAGE_BYTES);
            client.shell(up).await.map(Response::into_inner)
        })
        .await?;
        // Nothing is started before the master has taken the terminal: one that nobody waits for is never opened.
        let ended = if has_slot {
            self.serve(&up, &mut down, identity.as_deref()).await
        } else {
            SpliceEnd::Over(not_opened(format!("this agent has {MOST} terminals open")))
        };
        if let SpliceEnd::Over(end) = ended {
            let last = async {
                let _ = up.send(message(shell_up::Body::End(end))).await;
                drop(up);
                // The master ends its half when it has read ours.
                while let Ok(Some(_)) = down.message().await {}
            };
            let _ = timeout(LAST_MESSAGE, last).await; // it had the time to read
        }
        Ok(())
    }

    async fn serve(
        &self,
        up: &mpsc::Sender<ShellUp>,
        down: &mut Streaming<ShellDown>,
        identity: Option<&ClientIdentity>,
    ) -> SpliceEnd {
        let (open, context) = (self.open.clone(), self.context.clone());
        let name = identity.map(|identity| identity.name.clone());
        let login = tokio::task::spawn_blocking(move || {
            Login::of(&open, name.as_ref(), &context.etc_dir, &context.root_home)
        });
        let login = match login.await {
            Ok(Ok(login)) => login,
            Ok(Err(detail)) => return SpliceEnd::Over(not_opened(detail)),
            Err(_) => {
                return SpliceEnd::Over(not_opened(
                    "looking up the user was interrupted".to_owned(),
                ));
            }
        };
        let (id, size) = (&self.open.shell_id, (self.open.columns, self.open.rows));
        match terminal::open(&login, id, size).await {
            Ok((terminal, keeper)) => {
                let splice = Splice { terminal, up };
                splice.run(down, keeper, &self.stop).await
            }
            Err(detail) => SpliceEnd::Over(not_opened(detail)),
        }
    }
}

fn not_opened(detail: String) -> ShellEnd {
    ShellEnd {
        detail,
        ..ShellEnd::default()
    }
}

fn message(body: shell_up::Body) -> ShellUp {
    ShellUp { body: Some(body) }
}
