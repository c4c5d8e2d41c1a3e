//! A bucket of S3 in memory, which can be away: what masters with `AOT_BLOBS` ask of it and nothing else. It speaks HTTP/1.1 by
//! hand, checks no signature, and takes no objects in parts. What S3 really answers is the lab's and `aot-s3`'s to test.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Its name.
const NAME: &str = "fleet";

/// Longest line of a head, and longest object: nothing of these tests comes near.
const MOST_LINE: u64 = 64 << 10;
const MOST_BYTES: usize = 256 << 20;

/// The bucket, until it is dropped.
pub struct Bucket {
    address: SocketAddr,
    shared: Arc<BucketParts>,
}

#[derive(Default)]
struct BucketParts {
    objects: Mutex<BTreeMap<String, Vec<u8>>>,
    is_away: AtomicBool,
    has_ended: AtomicBool,
    open: Mutex<Vec<TcpStream>>,
    /// Requests that came while it was away.
    failed: AtomicUsize,
}

/// A request, as far as it matters.
struct BucketRequest {
    method: String,
    /// Name of the object; empty where the request is about the bucket.
    key: String,
    query: BTreeMap<String, String>,
    /// First byte that is asked for.
    from: usize,
    body: Vec<u8>,
}

struct BucketAnswer {
    status: &'static str,
    headers: Vec<(&'static str, String)>,
    body: Vec<u8>,
}

impl Bucket {
    /// An empty one.
    ///
    /// # Panics
    /// When there is no port.
    pub fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port for the bucket");
        let address = listener.local_addr().expect("it is bound");
        let shared = Arc::new(BucketParts::default());
        let theirs = shared.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                if theirs.has_ended.load(Ordering::SeqCst) {
                    return;
                }
                let this = theirs.clone();
                std::thread::spawn(move || this.serve(&stream));
            }
        });
        Self { address, shared }
    }

    /// For `AOT_BLOBS`.
    pub fn place(&self) -> String {
        format!("s3://{NAME}/aot")
    }

    /// For `AWS_ENDPOINT_URL_S3`.
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// It is away from now on: what it is asked amid that fails, every other time with an answer.
    pub fn go_away(&self) {
        self.shared.is_away.store(true, Ordering::SeqCst);
        self.shared.end_all();
    }

    /// It is there again, with all that it had.
    pub fn come_back(&self) {
        self.shared.is_away.store(false, Ordering::SeqCst);
    }

    /// How many requests have failed because it was away.
    pub fn failed(&self) -> usize {
        self.shared.failed.load(Ordering::SeqCst)
    }

    /// Its objects by their names.
    pub fn objects(&self) -> BTreeMap<String, Vec<u8>> {
        locked(&self.shared.objects).clone()
    }
}

impl Drop for Bucket {
    fn drop(&mut self) {
        self.shared.has_ended.store(true, Ordering::SeqCst);
        let _ = TcpStream::connect(self.address); // wakes whoever accepts
        self.shared.end_all();
    }
}

impl BucketParts {
    fn end_all(&self) {
        for stream in locked(&self.open).drain(..) {
            let _ = stream.shutdown(Shutdown::Both); // it may have ended
        }
    }

    /// One request after the other, until the connection breaks.
    fn serve(&self, stream: &TcpStream) {
        let _ = stream.set_nodelay(true); // only makes it quicker
        if let Ok(copy) = stream.try_clone() {
            locked(&self.open).push(copy);
        }
        let mut reader = BufReader::new(stream);
        while let Some(request) = read(&mut reader, stream) {
            let answer = match self.is_away.load(Ordering::SeqCst) {
                false => self.answer(&request),
                true if self.failed.fetch_add(1, Ordering::SeqCst).is_multiple_of(2) => {
                    failure("503 Slow Down", "SlowDown")
                }
                true => break,
            };
            if write(stream, &answer, request.method == "HEAD").is_none() {
                break;
            }
        }
        let _ = stream.shutdown(Shutdown::Both); // its copy is among those that are open
    }

    fn answer(&self, request: &BucketRequest) -> BucketAnswer {
        let mut objects = locked(&self.objects);
        match (&*request.method, request.key.is_empty()) {
            ("GET", true) if request.query.contains_key("uploads") => page(
                "ListMultipartUploadsResult",
                "<IsTruncated>false</IsTruncated>",
            ),
            ("GET", true) => {
                let prefix = request.query.get("prefix").map_or("", String::as_str);
                let of = objects.iter().filter(|(key, _)| key.starts_with(prefix));
                let entry = |(key, bytes): (&String, &Vec<u8>)| {
                    let size = bytes.len();
                    format!("<Contents><Key>{key}</Key><Size>{size}</Size></Contents>")
                };
                let all: String = of.map(entry).collect();
                page(
                    "ListBucketResult",
                    &format!("<IsTruncated>false</IsTruncated>{all}"),
                )
            }
            ("PUT", false) if request.query.is_empty() || is_named(&request.query, "PutObject") => {
                objects.insert(request.key.clone(), request.body.clone());
                found(Vec::new(), 0)
            }
            ("DELETE", false) => {
                objects.remove(&request.key);
                found(Vec::new(), 0)
            }
            ("GET" | "HEAD", false) => match objects.get(&request.key) {
                Some(bytes) => found(bytes.clone(), request.from),
                None => failure("404 Not Found", "NoSuchKey"),
            },
            _ => failure("501 Not Implemented", "NotImplemented"),
        }
    }
}

/// Whether a request says nothing but which operation it is (`x-id`).
fn is_named(query: &BTreeMap<String, String>, operation: &str) -> bool {
    query.len() == 1 && query.get("x-id").is_some_and(|id| id == operation)
}

fn found(bytes: Vec<u8>, from: usize) -> BucketAnswer {
    if from == 0 {
        return BucketAnswer {
            status: "200 OK",
            headers: vec![("etag", "\"1\"".to_owned())],
            body: bytes,
        };
    }
    let total = bytes.len();
    if from >= total {
        return failure("416 Range Not Satisfiable", "InvalidRange");
    }
    let range = format!("bytes {from}-{}/{total}", total - 1);
    BucketAnswer {
        status: "206 Partial Content",
        headers: vec![("content-range", range)],
        body: bytes[from..].to_vec(),
    }
}

fn page(name: &str, inner: &str) -> BucketAnswer {
    let text = format!("<?xml version=\"1.0\" encoding=\"UTF-8\"?><{name}>{inner}</{name}>");
    BucketAnswer {
        status: "200 OK",
        headers: vec![("content-type", "application/xml".to_owned())],
        body: text.into_bytes(),
    }
}

fn failure(status: &'static str, code: &str) -> BucketAnswer {
    let inner = format!("<Code>{code}</Code><Message>{status}</Message>");
    let body = page("Error", &inner);
    BucketAnswer { status, ..body }
}

/// The next request; `None` when the connection has ended, or brings what is no request.
fn read(reader: &mut BufReader<&TcpStream>, stream: &TcpStream) -> Option<BucketRequest> {
    let first = line(reader)?;
    let mut words = first.split(' ');
    let (method, target) = (words.next()?.to_owned(), words.next()?.to_owned());
    let mut headers = BTreeMap::new();
    loop {
        let text = line(reader)?;
        if text.is_empty() {
            break;
        }
        let (name, value) = text.split_once(':')?;
        headers.insert(name.to_ascii_lowercase(), value.trim().to_owned());
    }
    let length = match headers.get("content-length") {
        Some(length) => length.parse().ok().filter(|it| *it <= MOST_BYTES)?,
        None => 0,
    };
    let is_plain = !headers.contains_key("transfer-encoding")
        && headers.get("content-encoding").is_none_or(String::is_empty);
    assert!(is_plain, "an object is put as it is: {headers:?}");
    if headers.contains_key("expect") {
        let mut stream = stream;
        stream.write_all(b"HTTP/1.1 100 Continue\r\n\r\n").ok()?;
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    let from = headers.get("range").map_or(Some(0), |range| {
        range
            .strip_prefix("bytes=")?
            .strip_suffix('-')?
            .parse()
            .ok()
    })?;
    let (path, query) = target.split_once('?').unwrap_or((&target, ""));
    let path = path.strip_prefix('/')?.strip_prefix(NAME)?;
    let parts = query.split('&').filter(|part| !part.is_empty());
    let pair = |part: &str| {
        let (name, value) = part.split_once('=').unwrap_or((part, ""));
        (decoded(name), decoded(value))
    };
    Some(BucketRequest {
        method,
        key: decoded(path.strip_prefix('/').unwrap_or(path)),
        query: parts.map(pair).collect(),
        from,
        body,
    })
}

fn line(reader: &mut BufReader<&TcpStream>) -> Option<String> {
    let mut text = String::new();
    reader.take(MOST_LINE).read_line(&mut text).ok()?;
    text.strip_suffix("\r\n").map(str::to_owned)
}

fn write(mut stream: &TcpStream, answer: &BucketAnswer, is_head: bool) -> Option<()> {
    let mut head = format!("HTTP/1.1 {}\r\n", answer.status);
    for (name, value) in &answer.headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    head.push_str(&format!("content-length: {}\r\n\r\n", answer.body.len()));
    stream.write_all(head.as_bytes()).ok()?;
    match is_head {
        true => Some(()),
        false => stream.write_all(&answer.body).ok(),
    }
}

/// A text of a URL as it was before it was encoded.
fn decoded(text: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let [first, after @ ..] = rest {
        let digits = (*first == b'%').then(|| after.get(..2)).flatten();
        let digits = digits.and_then(|it| std::str::from_utf8(it).ok());
        match digits.and_then(|it| u8::from_str_radix(it, 16).ok()) {
            Some(byte) => {
                bytes.push(byte);
                rest = &after[2..];
            }
            None => {
                bytes.push(*first);
                rest = after;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

fn locked<T>(of: &Mutex<T>) -> MutexGuard<'_, T> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One request on a connection of its own; what comes back.
    fn asked(bucket: &Bucket, head: &str, body: &str) -> String {
        let mut stream = TcpStream::connect(bucket.address).expect("it listens");
        let length = body.len();
        let text = format!("{head} HTTP/1.1\r\nContent-Length: {length}\r\n\r\n{body}");
        stream.write_all(text.as_bytes()).expect("it reads");
        stream.shutdown(Shutdown::Write).expect("it is open");
        let mut answer = String::new();
        let _ = stream.read_to_string(&mut answer); // it may be broken off
        answer
    }

    #[test]
    fn objects_are_put_listed_read_and_removed_unless_it_is_away() {
        let bucket = Bucket::start();
        let put = || asked(&bucket, "PUT /fleet/aot/x/a%20b?x-id=PutObject", "text");
        assert!(put().starts_with("HTTP/1.1 200 "));
        let objects = BTreeMap::from([("aot/x/a b".to_owned(), b"text".to_vec())]);
        assert_eq!(bucket.objects(), objects);
        let read = asked(&bucket, "GET /fleet/aot/x/a%20b", "");
        assert!(read.ends_with("\r\n\r\ntext"), "{read}");
        let list = |prefix| {
            let ask = format!("GET /fleet?list-type=2&prefix={prefix}");
            asked(&bucket, &ask, "").contains("<Key>aot/x/a b</Key><Size>4</Size>")
        };
        assert_eq!((list("aot%2Fx%2F"), list("aot%2Fy")), (true, false));
        bucket.go_away();
        assert!(put().starts_with("HTTP/1.1 503 "), "every other time");
        assert_eq!((put().as_str(), bucket.failed()), ("", 2));
        bucket.come_back();
        assert!(asked(&bucket, "DELETE /fleet/aot/x/a%20b", "").contains(" 200 "));
        assert!(asked(&bucket, "GET /fleet/aot/x/a%20b", "").contains("NoSuchKey"));
    }
}
