//! A small web service of the test in the lab's network: a discovery service that counts, and a switch for machines.

use std::path::Path;
use std::time::Duration;

use serde_json::Value;

use super::Lab;
use crate::process::Running;

/// Longest time to come up.
const UP: Duration = Duration::from_secs(120);

/// `/new...` answers with another token each time; `/once/NAME` is there the first time and then no more, `/always/NAME` always.
const SERVICE: &str = r#"
import http.server, json, sys
seen, root = [], f"http://198.51.100.1:{sys.argv[1]}"
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        fresh = self.path not in seen
        seen.append(self.path)
        there = self.path.startswith(("/new", "/always/")) or self.path.startswith("/once/") and fresh
        self.send_response(200 if there else 404)
        self.end_headers()
        self.wfile.write(f"{root}/token-{len(seen)}\n".encode())
        print(json.dumps({"path": self.path, "token": f"{root}/token-{len(seen)}"}), flush=True)
    def log_message(self, *_):
        pass
server = http.server.ThreadingHTTPServer(("198.51.100.1", int(sys.argv[1])), Handler)
print(json.dumps({"path": ""}), flush=True)
server.serve_forever()
"#;

/// The service; it goes with this value.
pub struct Web {
    running: Running,
    port: u16,
}

impl Web {
    /// Starts it; returns when it answers.
    pub fn start(lab: &Lab, port: u16) -> Self {
        let mut command = lab.inside(Path::new(lab.info("python")));
        command.args(["-c", SERVICE, &port.to_string()]);
        let mut running = Running::start(command);
        running.until(|line| line["path"] == "", UP, "the service is up");
        Self { running, port }
    }

    /// An address of it, as machines and the master reach it.
    pub fn url(&self, path: &str) -> String {
        format!("http://198.51.100.1:{}{path}", self.port)
    }

    /// Answers so far to requests for paths that begin so; each has its `path` and the `token` that was given.
    pub fn answers(&self, path: &str) -> Vec<Value> {
        let all = self.running.json().into_iter();
        all.filter(|line| {
            line["path"]
                .as_str()
                .is_some_and(|seen| seen.starts_with(path))
        })
        .filter(|line| line["path"] != "")
        .collect()
    }
}
