//! `ApiCalls`: every call to a provider's API, for `-v`. Reads what the providers record; never calls anything itself.

use std::time::Duration;

use aot_proto::v1;
use aot_provider::calls::ApiCall;
use futures::{Stream, StreamExt};
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::Status;

use super::others::here;
use super::service::ApiCalls;
use super::{Asker, EVENTS, OperatorApi};

/// How long another master may take to say that it tells its calls.
const OPENED: Duration = Duration::from_secs(2);

impl OperatorApi {
    /// First the number of the last call so far, then each call, until the reader leaves or the daemon stops. With those of all
    /// masters, where they are asked for: their numbers come before the own one, so that all is told that is made after that.
    pub(super) async fn do_api_calls(
        &self,
        request: v1::ApiCallsRequest,
        asker: &Asker,
    ) -> ApiCalls {
        let (sender, stream) = mpsc::channel(EVENTS);
        if request.all && !asker.here {
            let others = self.ask_others(asker, OPENED, |mut other| async move {
                let request = here(v1::ApiCallsRequest::default());
                let mut calls = other.api_calls(request).await?.into_inner();
                let first = calls.message().await?;
                let first = first.ok_or_else(|| Status::unavailable("it tells none"))?;
                Ok(tonic::Response::new((first, calls)))
            });
            let others = others.await;
            for (master, why) in others.silent {
                let _ = sender.send(Ok(untold(&master, &why))).await; // read below, or nobody asks
            }
            for (master, (first, calls)) in others.given {
                let first = of(&master, first);
                let _ = sender.send(Ok(first)).await; // as above: no more than there are masters
                self.tasks
                    .spawn(pass_on(master, calls, sender.clone(), self.stop.clone()));
            }
        }
        let (last, heard) = self.calls.listen();
        self.tasks
            .spawn(send_calls(last, heard, sender, self.stop.clone()));
        ReceiverStream::new(stream).boxed()
    }
}

/// A call of another master.
fn of(master: &str, call: v1::ApiCall) -> v1::ApiCall {
    let master = master.to_owned();
    v1::ApiCall { master, ..call }
}

/// In the place of the calls of a master that tells none.
fn untold(master: &str, why: &str) -> v1::ApiCall {
    let error = format!("the calls of the master {master} are not shown: {why}");
    of(
        master,
        v1::ApiCall {
            error,
            ..v1::ApiCall::default()
        },
    )
}

/// Another master's calls, until it, the reader or this daemon ends.
async fn pass_on<S>(
    master: String,
    mut calls: S,
    sender: mpsc::Sender<Result<v1::ApiCall, Status>>,
    stop: CancellationToken,
) where
    S: Stream<Item = Result<v1::ApiCall, Status>> + Unpin,
{
    loop {
        let next = tokio::select! {
            next = calls.next() => next,
            () = sender.closed() => return,
            () = stop.cancelled() => return,
        };
        let (call, is_over) = match next {
            Some(Ok(call)) => (of(&master, call), false),
            Some(Err(status)) => (untold(&master, status.message()), true),
            None => (untold(&master, "it has stopped"), true),
        };
        let sent = tokio::select! {
            sent = sender.send(Ok(call)) => sent,
            () = stop.cancelled() => return,
        };
        if sent.is_err() || is_over {
            return;
        }
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
        master: String::new(), // whoever passes it on says which
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

    #[tokio::test]
    async fn what_another_master_calls_is_told_with_its_name_and_so_is_its_end() {
        let (sender, mut sent) = mpsc::channel(EVENTS);
        let call = |number| v1::ApiCall {
            number,
            operation: "RunInstances".to_owned(),
            ..v1::ApiCall::default()
        };
        let broken = Err(Status::unavailable("broke"));
        let calls = tokio_stream::iter([Ok(call(7)), broken, Ok(call(8))]);
        pass_on("b".to_owned(), calls, sender, CancellationToken::new()).await;
        let mut told = Vec::new();
        while let Some(Ok(call)) = sent.recv().await {
            told.push((call.master, call.number, call.error));
        }
        assert_eq!(
            told,
            [
                ("b".to_owned(), 7, String::new()),
                (
                    "b".to_owned(),
                    0,
                    "the calls of the master b are not shown: broke".to_owned()
                )
            ]
        );
    }
}
