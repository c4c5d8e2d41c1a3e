#![expect(
    clippy::disallowed_methods,
    reason = "a test's tasks end with its runtime"
)]

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::*;

const TAG: &str = "get /latest/meta-data/tags/instance/aot:challenge ";

/// A metadata service that gives these values of the tag in turn, the last one again and again; an empty one is a 404.
async fn serve(listener: TcpListener, values: Vec<&'static str>, asked: Arc<AtomicUsize>) {
    while let Ok((mut stream, _)) = listener.accept().await {
        let mut bytes = vec![0; 4096];
        let mut len = 0;
        while !bytes[..len].ends_with(b"\r\n\r\n") {
            match stream.read(&mut bytes[len..]).await {
                Ok(read) if read > 0 => len += read,
                _ => return,
            }
        }
        let text = String::from_utf8_lossy(&bytes[..len]).to_lowercase();
        let value = match text.as_str() {
            text if text.starts_with("put ") => "t0k",
            text if text.starts_with("get /latest/meta-data/instance-id ") => "i-0abc\n",
            text if text.starts_with(TAG) => {
                let turn = asked.fetch_add(1, Ordering::Relaxed);
                values[turn.min(values.len() - 1)]
            }
            _ => "",
        };
        let status = if value.is_empty() {
            "404 Not Found"
        } else {
            "200 OK"
        };
        let answer = format!(
            "HTTP/1.1 {status}\r\ncontent-length: {}\r\n\r\n{value}",
            value.len()
        );
        stream.write_all(answer.as_bytes()).await.unwrap();
    }
}

async fn service(values: Vec<&'static str>) -> (Config, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let asked = Arc::new(AtomicUsize::new(0));
    let address = listener.local_addr().unwrap();
    let text = format!(
        "master = [\"10.0.0.1:7440\"]\nca_pem = \"x\"\nprovider = \"ec2\"\nimds = \"http://{address}\"\n"
    );
    let config = Config::parse(&text, std::path::Path::new("agent.toml")).unwrap();
    tokio::spawn(serve(listener, values, asked.clone()));
    (config, asked)
}

fn challenge(left_ms: u64) -> Challenge {
    Challenge {
        tag: "aot:challenge".to_owned(),
        id: "c2".to_owned(),
        left_ms,
    }
}

#[tokio::test]
async fn a_machine_without_a_document_says_so() {
    let (config, _) = service(vec![""]).await;
    let proof = IdentityProof::gather(&config).await.unwrap();
    assert_eq!(
        (proof.machine_id.as_str(), proof.message.as_str()),
        ("i-0abc", "")
    );
}

#[tokio::test]
async fn the_tag_of_this_challenge_is_waited_for() {
    let (config, asked) = service(vec!["", "c1.old", "c22.other", "c2.secret"]).await;
    let value = answer(&config, &challenge(60_000)).await.unwrap();
    assert_eq!(value.as_deref(), Some("c2.secret"));
    assert_eq!(asked.load(Ordering::Relaxed), 4);
}

#[tokio::test]
async fn a_tag_that_does_not_show_up_in_time_is_given_up() {
    let (config, asked) = service(vec!["c1.old"]).await;
    assert_eq!(answer(&config, &challenge(100)).await.unwrap(), None);
    assert_eq!(asked.load(Ordering::Relaxed), 1);
    let strange = Challenge {
        tag: "../../iam/security-credentials/role".to_owned(),
        ..challenge(60_000)
    };
    assert_eq!(answer(&config, &strange).await.unwrap(), None);
    assert_eq!(asked.load(Ordering::Relaxed), 1, "nothing is asked for it");
}
