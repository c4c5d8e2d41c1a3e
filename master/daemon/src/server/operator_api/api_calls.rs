//! `ApiCalls`: every call to a provider's API, for `-v`. Reads what the providers record; never calls anything itself.

use aot_proto::v1;
use aot_provider::calls::ApiCall;
use futures::StreamExt;
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::Status;

use super::service::ApiCalls;
use super::{EVENTS, OperatorApi};

impl OperatorApi {
    /// First the number of the last call so far, then each call, until the reader leaves or the daemon stops.
    pub(super) fn do_api_calls(&self) -> ApiCalls {
        let (last, heard) = self.calls.listen();
        let (sender, stream) = mpsc::channel(EVENTS);
        self.tasks
            .spawn(send_calls(last, heard, sender, self.stop.clone()));
        ReceiverStream::new(stream).boxed()
    }
}

async fn send_calls(
    last: u64,
    mut heard: Receiver<ApiCall>,
    sender: mpsc::Sender<Result<v1::ApiCall, Status>>,
    stop: CancellationToken,
) {
    let mut next = v1::ApiCall {
        number: last,
        ..v1::ApiCall::default()
    };
    loop {
        tokio::select! {
            sent = sender.send(Ok(next)) => if sent.is_err() { return },
            () = stop.cancelled() => return,
        }
        let call = tokio::select! {
            call = heard.recv() => call,
            () = sender.closed() => return,
            () = stop.cancelled() => return,
        };
        next = match call {
            Ok(call) => on_the_wire(call),
            Err(RecvError::Lagged(missed)) => gap(missed),
            Err(RecvError::Closed) => return,
        };
    }
}

fn on_the_wire(call: ApiCall) -> v1::ApiCall {
    v1::ApiCall {
        number: call.number,
        unix_ms: call.unix_ms,
        service: call.service,
        operation: call.operation,
        parameters: call.parameters,
        request_id: call.request_id,
        ms: call.ms,
        retries: call.retries,
        error: call.error,
        region: call.region,
    }
}

/// In the place of calls that this reader was too slow for.
fn gap(missed: u64) -> v1::ApiCall {
    v1::ApiCall {
        error: format!("{missed} calls are not shown: they came too fast"),
        ..v1::ApiCall::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use aot_provider::calls::Calls;
    use tokio_util::task::TaskTracker;

    fn call(operation: &str) -> ApiCall {
        ApiCall {
            operation: operation.to_owned(),
            ..ApiCall::default()
        }
    }

    #[tokio::test]
    async fn the_number_comes_first_then_every_call_until_the_daemon_stops() {
        let (calls, stop) = (Calls::default(), CancellationToken::new());
        calls.record(call("Before"));
        let (last, heard) = calls.listen();
        let (sender, mut sent) = mpsc::channel(1);
        let task = TaskTracker::new().spawn(send_calls(last, heard, sender, stop.clone()));
        calls.record(call("RunInstances"));
        let mut next = async || sent.recv().await.map(|call| call.expect("no status"));
        let first = next().await.expect("the number");
        assert_eq!((first.number, first.operation.as_str()), (1, ""));
        let second = next().await.expect("the call");
        assert_eq!(
            (second.number, second.operation.as_str()),
            (2, "RunInstances")
        );
        stop.cancel();
        assert_eq!(next().await, None);
        task.await.expect("it ends");
    }

    #[tokio::test]
    async fn a_reader_that_is_too_slow_is_told_so() {
        let calls = Calls::default();
        let (last, heard) = calls.listen();
        for _ in 0..5000 {
            calls.record(call("DescribeInstances"));
        }
        let (sender, mut sent) = mpsc::channel(EVENTS);
        let task =
            TaskTracker::new().spawn(send_calls(last, heard, sender, CancellationToken::new()));
        sent.recv().await.expect("the number").expect("no status");
        let note = sent.recv().await.expect("the note").expect("no status");
        assert_eq!(note.operation, "");
        assert!(
            note.error.starts_with("904 calls are not shown"),
            "{note:?}"
        );
        let next = sent.recv().await.expect("a call").expect("no status");
        assert_eq!(next.number, 905);
        drop(sent);
        task.await.expect("it ends when nobody reads");
    }
}
