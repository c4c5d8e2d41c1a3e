//! The loop that accepts connections on a port, until the master stops. What becomes of each is the port's own.

use std::net::SocketAddr;
use std::time::Duration;

use aot_host::chain::Chain;
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;

/// How long nothing is accepted after that failed.
const BACK_OFF: Duration = Duration::from_millis(100);

/// Gives each connection to `met`, until `stop` fires. `port` says whose they are. `failed` is asked for room when none can be
/// accepted: out of descriptors, most likely. Accepting at once again would only spin.
pub(super) async fn accept_all(
    listener: TcpListener,
    port: &'static str,
    stop: &CancellationToken,
    met: impl Fn(TcpStream, SocketAddr),
    failed: impl Fn(),
) {
    let mut is_told = false;
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = stop.cancelled() => return,
        };
        match accepted {
            Ok((stream, address)) => {
                is_told = false;
                met(stream, address);
            }
            Err(error) => {
                if !std::mem::replace(&mut is_told, true) {
                    tracing::error!(port, error = %Chain(&error), "cannot accept connections for the moment");
                }
                failed();
                tokio::time::sleep(BACK_OFF).await;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    #[tokio::test]
    async fn each_connection_is_given_on_until_the_stop() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("binds");
        let address = listener.local_addr().expect("is bound");
        let (stop, met) = (CancellationToken::new(), Cell::new(0));
        let count = |_, from: SocketAddr| {
            assert_eq!(from.ip(), address.ip());
            met.set(met.get() + 1);
            if met.get() == 3 {
                stop.cancel();
            }
        };
        let accept = accept_all(listener, "test", &stop, count, || panic!("none fails"));
        let dial = async {
            let mut held = Vec::new();
            for _ in 0..3 {
                held.push(TcpStream::connect(address).await.expect("connects"));
            }
            held
        };
        let ((), held) = tokio::join!(accept, dial);
        assert_eq!((met.get(), held.len()), (3, 3));
    }
}
