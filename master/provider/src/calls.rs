//! Every call to a provider's API, for whoever wants to see them (`-v`). Written by the providers, read by `server`;
//! never holds user-data or a secret.

use std::fmt;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use tokio::sync::broadcast;

/// Calls that may wait for one reader; a slower one misses the oldest.
const BACKLOG: usize = 4096;
/// Longest text of a call's parameters.
pub const MAX_PARAMETERS_BYTES: usize = 2 << 10;

/// One call, after its last try.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ApiCall {
    /// Counts up by one, over all calls of this master.
    pub number: u64,
    /// When it was over, milliseconds since 1970.
    pub unix_ms: u64,
    /// `EC2`, `SSM`.
    pub service: String,
    /// `RunInstances`.
    pub operation: String,
    /// Where.
    pub region: String,
    /// As they were sent, without user-data or secrets; at most [`MAX_PARAMETERS_BYTES`].
    pub parameters: String,
    /// The service's own number for the call, to ask its support with.
    pub request_id: String,
    /// With all tries and the waits between them.
    pub ms: u64,
    /// Tries after the first.
    pub retries: u32,
    /// Code and message; empty when it worked.
    pub error: String,
}

/// Where calls are recorded, and followed. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Calls(Arc<CallsState>);

#[derive(Debug)]
struct CallsState {
    sender: broadcast::Sender<ApiCall>,
    last: Mutex<u64>,
    permit: OnceLock<Permit>,
}

/// Says whether a call may be sent now.
struct Permit(Box<dyn Fn() -> bool + Send + Sync>);

impl fmt::Debug for Permit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Permit")
    }
}

impl Default for Calls {
    fn default() -> Self {
        Self(Arc::new(CallsState {
            sender: broadcast::channel(BACKLOG).0,
            last: Mutex::new(0),
            permit: OnceLock::new(),
        }))
    }
}

impl Calls {
    /// From now on calls are sent only while this says so. The first that is given counts.
    pub fn send_while(&self, permit: impl Fn() -> bool + Send + Sync + 'static) {
        let _ = self.0.permit.set(Permit(Box::new(permit))); // one master asks for it, once
    }

    /// Whether a call may be sent now: asked by providers right before each try, as time may have passed since it was decided on.
    pub fn may_be_sent(&self) -> bool {
        self.0.permit.get().is_none_or(|permit| (permit.0)())
    }

    /// Tells of a call; gives it its number.
    pub fn record(&self, mut call: ApiCall) {
        // Numbered and sent under one lock: whoever has seen a number has been sent all before it.
        let mut last = self.0.last.lock().unwrap_or_else(PoisonError::into_inner);
        *last += 1;
        call.number = *last;
        let _ = self.0.sender.send(call); // nobody may be listening
    }

    /// Calls from now on, and the number of the last one before.
    pub fn listen(&self) -> (u64, broadcast::Receiver<ApiCall>) {
        let last = self.0.last.lock().unwrap_or_else(PoisonError::into_inner);
        (*last, self.0.sender.subscribe())
    }

    /// Number of the last call so far.
    pub fn last(&self) -> u64 {
        *self.0.last.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_are_sent_while_they_may_be() {
        let calls = Calls::default();
        assert!(calls.may_be_sent(), "nobody has asked for a permit");
        let is_good = Arc::new(std::sync::atomic::AtomicBool::new(true));
        let asked = is_good.clone();
        calls.send_while(move || asked.load(std::sync::atomic::Ordering::SeqCst));
        assert!(calls.clone().may_be_sent());
        is_good.store(false, std::sync::atomic::Ordering::SeqCst);
        assert!(!calls.clone().may_be_sent());
    }

    #[tokio::test]
    async fn a_listener_gets_every_call_after_it_came_in_order() {
        let calls = Calls::default();
        calls.record(ApiCall::default());
        let (last, mut heard) = calls.listen();
        assert_eq!((last, calls.last()), (1, 1));
        for operation in ["A", "B"] {
            calls.record(ApiCall {
                operation: operation.into(),
                ..ApiCall::default()
            });
        }
        let (a, b) = (heard.recv().await.unwrap(), heard.recv().await.unwrap());
        assert_eq!((a.number, a.operation.as_str()), (2, "A"));
        assert_eq!((b.number, b.operation.as_str()), (3, "B"));
        assert_eq!(calls.last(), 3);
    }
}
