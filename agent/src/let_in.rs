//! A call that a master has asked for, of a terminal or of a forwarded connection: on a connection of its own to the master, which says
//! whether it is still wanted before anything is opened for it.

use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;
use tonic::transport::Channel;

use crate::identity::ClientIdentity;
use crate::link::{self, Link};

/// How long the master may take to answer.
const ANSWER: Duration = Duration::from_secs(10);
/// Messages to the master that may wait, past HTTP/2's own window. When full, what they come from is not read.
const UP: usize = 4;

/// Why there is no call.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("no master was reached")]
    Link(#[from] link::Error),
    /// It does not want it any more, or never did.
    #[error("refused by the master: {}", .0.message())]
    Refused(Box<Status>),
    #[error("the master did not answer in 10 s")]
    Silent,
}

/// Makes the call by `call`, with `hello` as its first message; when this returns, the master has taken it.
///
/// # Errors
/// When no master is reached, or it does not take the call.
pub(crate) async fn let_in<Up, Down>(
    link: &Link,
    identity: Option<&ClientIdentity>,
    hello: Up,
    call: impl AsyncFnOnce(Channel, ReceiverStream<Up>) -> Result<Down, Status>,
) -> Result<(mpsc::Sender<Up>, Down), Error> {
    let (up, rest) = mpsc::channel(UP);
    let _ = up.try_send(hello); // the channel is empty
    let channel = link.connect(identity).await?;
    let answer = timeout(ANSWER, call(channel, ReceiverStream::new(rest))).await;
    let down = answer.map_err(|_| Error::Silent)?;
    Ok((up, down.map_err(|status| Error::Refused(Box::new(status)))?))
}
