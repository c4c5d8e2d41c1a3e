//! A machine's metadata service and AWS, at one address.

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use super::MACHINE;

/// What AWS answers.
pub(crate) type Answer = fn(&str) -> (u16, String);

/// Ends with this value.
pub(crate) struct FakeAws {
    url: String,
    _tasks: JoinSet<()>,
}

impl FakeAws {
    /// AWS answers so to the body of a request.
    pub(crate) async fn answering(answer: Answer) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                connections.spawn(serve(stream, answer));
            }
        });
        Self { url, _tasks: tasks }
    }

    /// What an agent is told of it.
    pub(crate) fn settings(&self) -> String {
        let url = &self.url;
        format!(
            "imds = \"{url}\"\nssm_endpoint = \"{url}\"\nsecrets_manager_endpoint = \"{url}\"\n"
        )
    }
}

async fn serve(stream: TcpStream, answer: Answer) {
    let mut stream = BufReader::new(stream);
    loop {
        let (mut what, mut length) = (String::new(), 0);
        loop {
            let mut line = String::new();
            match stream.read_line(&mut line).await {
                Ok(read) if read > 0 => {}
                _ => return,
            }
            let line = line.trim_end();
            if what.is_empty() {
                line.clone_into(&mut what);
            } else if let Some(text) = line.strip_prefix("content-length: ") {
                length = text.parse().unwrap();
            } else if line.is_empty() {
                break;
            }
        }
        let mut body = vec![0; length];
        if stream.read_exact(&mut body).await.is_err() {
            return;
        }
        let (status, text) = match what.split(' ').nth(1).unwrap_or_default() {
            "/" => answer(&String::from_utf8_lossy(&body)),
            path => metadata(path),
        };
        let head = format!(
            "HTTP/1.1 {status} X\r\ncontent-length: {}\r\n\r\n",
            text.len()
        );
        if stream
            .write_all(&[head, text].concat().into_bytes())
            .await
            .is_err()
        {
            return;
        }
    }
}

fn metadata(path: &str) -> (u16, String) {
    let credentials =
        r#"{"Code": "Success", "AccessKeyId": "ASIA1", "SecretAccessKey": "hush", "Token": "t0k"}"#;
    let text = match path {
        "/latest/api/token" => "t0k",
        "/latest/meta-data/instance-id" => MACHINE,
        "/latest/meta-data/placement/region" => "eu-west-1",
        "/latest/meta-data/iam/security-credentials/" => "web",
        "/latest/meta-data/iam/security-credentials/web" => credentials,
        _ => return (404, String::new()),
    };
    (200, text.to_owned())
}
