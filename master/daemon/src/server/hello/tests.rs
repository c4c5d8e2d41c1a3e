//! Connections that begin well, slowly, endlessly, or otherwise.

use std::sync::Arc;

use aot_model::hash::JoinKey;
use aot_proto::ids::ClusterName;
use rustls::{ClientConfig, ClientConnection, RootCertStore};
use rustls_pki_types::ServerName;
use tokio::net::TcpListener;

use super::*;

fn key() -> PurposeKey {
    proxy_header::key(&JoinKey::new(&[1; 32]))
}

fn web() -> Route {
    let name: ClusterName = "web".parse().expect("a name");
    Route::of(&name)
}

/// The first message of a client that names this server.
fn client_hello(server_name: &str) -> Vec<u8> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .expect("is spoken")
        .with_root_certificates(RootCertStore::empty())
        .with_no_client_auth();
    let name = ServerName::try_from(server_name.to_owned()).expect("a name");
    let mut client = ClientConnection::new(Arc::new(config), name).expect("begins");
    let mut bytes = Vec::new();
    client.write_tls(&mut bytes).expect("writes");
    bytes
}

async fn pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("binds");
    let address = listener.local_addr().expect("is bound");
    let (dialled, accepted) = tokio::join!(TcpStream::connect(address), listener.accept());
    (dialled.expect("connects"), accepted.expect("accepts").0)
}

/// What is made of a connection on which these pieces come, each once the one before is there, and which then ends.
async fn said(pieces: &[&[u8]]) -> (Result<Hello, BadHello>, Vec<u8>) {
    let (mut client, mut server) = pair().await;
    let says = async {
        for piece in pieces {
            if client.write_all(piece).await.is_err() {
                break; // it heard enough
            }
            tokio::task::yield_now().await;
        }
        let _ = client.shutdown().await; // as above
        let mut answer = Vec::new();
        let _ = client.read_to_end(&mut answer).await; // what came before a reset counts
        answer
    };
    let hears = async {
        let read = read(&mut server, &key()).await;
        drop(server);
        read
    };
    let (answer, read) = tokio::join!(says, hears);
    (read, answer)
}

#[tokio::test]
async fn a_hello_says_its_route_and_all_that_was_read_is_there_to_be_passed_on() {
    let hello = client_hello(&web().server_name());
    let (whole, _) = said(&[&hello]).await;
    let whole = whole.expect("is one");
    assert_eq!((whole.route, whole.machine), (Some(web()), None));
    assert_eq!(whole.bytes, hello);
    let bytes: Vec<&[u8]> = hello.chunks(1).collect();
    let (slow, _) = said(&bytes).await;
    assert_eq!(slow.expect("is one").route, Some(web()), "byte by byte");
    let more = [&hello[..], b"more"].concat();
    let (followed, _) = said(&[&more]).await;
    assert_eq!(followed.expect("is one").bytes, more, "what follows too");
    for other in ["master.example", "10.0.0.1", "r0.aot.alt"] {
        let (other, _) = said(&[&client_hello(other)]).await;
        assert_eq!(other.expect("is one").route, None);
    }
}

#[tokio::test]
async fn a_header_before_it_names_the_machine_and_is_no_part_of_the_hello() {
    let machine: SocketAddr = "10.1.2.3:4567".parse().expect("an address");
    let header = proxy_header::written(machine, machine, &key(), now_ms());
    let hello = client_hello(&web().server_name());
    let together = [&header[..], &hello].concat();
    let (first, second) = together.split_at(20);
    for pieces in [&[&together[..]][..], &[&header, &hello], &[first, second]] {
        let (read, _) = said(pieces).await;
        let read = read.expect("is one");
        assert_eq!(read.machine, Some(machine));
        assert_eq!((read.route, read.bytes), (Some(web()), hello.clone()));
    }
    let (cut_off, _) = said(&[first]).await;
    assert!(matches!(cut_off, Err(BadHello::Short)));
}

#[tokio::test]
async fn what_is_not_tls_is_refused_in_its_words() {
    let (read, answer) = said(&[b"GET / HTTP/1.1\r\n\r\n"]).await;
    assert!(matches!(read, Err(BadHello::Tls(_))));
    assert_eq!(answer.first(), Some(&21), "an alert: {answer:?}");
    let (nothing, _) = said(&[]).await;
    assert!(matches!(nothing, Err(BadHello::Short)));
    let header = [&b"\r\n\r\n\0\r\nQUIT\n\x21\x11\x00\x0c"[..], &[0; 12]].concat();
    let (read, _) = said(&[&header, &client_hello("m.example")]).await;
    assert!(matches!(read, Err(BadHello::Header(BadHeader::Foreign))));
}

#[tokio::test]
async fn a_load_balancers_question_is_known_without_tls() {
    let question = b"GET /v1/health HTTP/1.1\r\nHost: 10.0.0.1:7440\r\nConnection: close\r\n\r\n";
    let slow: Vec<&[u8]> = question.chunks(1).collect();
    for pieces in [&[&question[..]][..], &slow] {
        let (read, answer) = said(pieces).await;
        assert!(matches!(read, Err(BadHello::HealthCheck)));
        assert!(answer.is_empty(), "no alert of TLS: {answer:?}");
    }
    let (cut_off, _) = said(&[&question[..20]]).await;
    assert!(matches!(cut_off, Err(BadHello::Short)));
    let (other, _) = said(&[b"GET /v1/healthy HTTP/1.1\r\n\r\n"]).await;
    assert!(matches!(other, Err(BadHello::Tls(_))));
    let endless = [&question[..25], &[b'x'; MAX_BYTES]].concat();
    let (endless, _) = said(&[&endless]).await;
    assert!(matches!(endless, Err(BadHello::Long)));
}

#[tokio::test]
async fn a_hello_without_end_is_not_read_without_end() {
    // A ClientHello of 65,535 bytes, in records of 1,000.
    let mut endless = Vec::new();
    let mut message = vec![1, 0, 0xff, 0xff];
    message.resize(65_535, 0);
    for piece in message.chunks(1_000) {
        let length = u16::try_from(piece.len()).expect("is short");
        endless.extend([22, 3, 1]);
        endless.extend(length.to_be_bytes());
        endless.extend(piece);
    }
    let (read, _) = said(&[&endless]).await;
    assert!(matches!(read, Err(BadHello::Long | BadHello::Tls(_))));
}
