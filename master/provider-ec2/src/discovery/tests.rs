//! A discovery service that behaves, and those that do not.

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use super::*;

/// Answers one connection after the other with these texts; hands back the paths that were asked for.
async fn service(answers: Vec<String>) -> (String, JoinHandle<Vec<String>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/new?size=3", listener.local_addr().unwrap());
    let serve = async move {
        let mut asked = Vec::new();
        for answer in answers {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = Vec::new();
            while !request.ends_with(b"\r\n\r\n") {
                let mut byte = [0];
                if stream.read(&mut byte).await.unwrap() == 0 {
                    break;
                }
                request.push(byte[0]);
            }
            let line = String::from_utf8_lossy(&request);
            asked.push(line.lines().next().unwrap_or_default().to_owned());
            stream.write_all(answer.as_bytes()).await.unwrap();
        }
        asked
    };
    #[expect(clippy::disallowed_methods, reason = "the test awaits it")]
    let task = tokio::spawn(serve);
    (url, task)
}

fn answer(status: &str, body: &str) -> String {
    format!(
        "HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    )
}

#[tokio::test]
async fn a_token_is_fetched() {
    let (url, task) = service(vec![answer("200 OK", "https://discovery.example/abc\n")]).await;
    assert_eq!(fetch(&url).await.unwrap(), "https://discovery.example/abc");
    assert_eq!(task.await.unwrap(), ["GET /new?size=3 HTTP/1.1"]);
}

#[tokio::test]
async fn it_is_asked_three_times_and_no_more() {
    let broken = "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nabc".to_owned();
    let (url, task) = service(vec![
        answer("503 Busy", ""),
        broken,
        answer("200 OK", "tok"),
    ])
    .await;
    assert_eq!(fetch(&url).await.unwrap(), "tok");
    assert_eq!(task.await.unwrap().len(), 3);
    let (url, task) = service(vec![answer("500 Oh", "secret"); 3]).await;
    let error = fetch(&url).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Unavailable);
    assert_eq!(error.leftovers, Leftovers::None);
    assert!(error.message.contains("status 500") && error.message.contains("discovery_url"));
    assert!(!error.message.contains("secret") && !error.message.contains("size=3"));
    assert_eq!(task.await.unwrap().len(), 3);
}

#[tokio::test]
async fn what_is_no_token_is_refused_at_once() {
    for (status, body) in [
        ("404 Not Found", "gone".to_owned()),
        ("200 OK", "<html>two words</html>".to_owned()),
        ("200 OK", "x".repeat(MAX_BYTES + 1)),
    ] {
        let (url, task) = service(vec![answer(status, &body)]).await;
        let error = fetch(&url).await.unwrap_err();
        assert_eq!(error.kind, ErrorKind::Invalid, "{error}");
        assert!(!error.message.contains("two words"), "{error}");
        assert_eq!(task.await.unwrap().len(), 1);
    }
    let error = fetch("ftp://x/").await.unwrap_err();
    assert!(error.message.contains("http or https"), "{error}");
}

#[test]
fn tokens_are_one_plain_line() {
    assert_eq!(token(b" tok-1\r\n").as_deref(), Ok("tok-1"));
    let long = "x".repeat(MAX_TOKEN + 1);
    for bad in [
        "",
        " \n",
        "a b",
        "a\nb",
        "'a'",
        "\"a\"",
        "`a`",
        "{{a}}",
        "\u{e4}",
        "$(a)",
        "a\\",
        long.as_str(),
    ] {
        assert_eq!(token(bad.as_bytes()), Err(Error::NotToken), "{bad:?}");
    }
    assert_eq!(token(b"\xff"), Err(Error::NotToken));
}

#[test]
fn the_default_knows_the_size() {
    assert_eq!(default_url(7), "https://discovery.etcd.io/new?size=7");
}
