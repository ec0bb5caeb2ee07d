//! A registry that misbehaves as a test says.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use box_store::Digest;

/// A request, as far as tests look at it.
#[derive(Debug, Clone)]
pub struct Request {
    pub method: String,
    /// With the query.
    pub path: String,
    pub headers: BTreeMap<String, String>,
    pub body: Vec<u8>,
}

impl Request {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(String::as_str)
    }

    pub fn is_blob(&self) -> bool {
        self.method == "GET" && self.path.contains("/blobs/sha256:")
    }
}

/// What happens instead of the right answer.
#[derive(Debug, Clone)]
pub enum Act {
    /// A status with headers and a body.
    Answer(u16, Vec<(&'static str, String)>, Vec<u8>),
    /// The right answer's beginning, then the end of the connection.
    Cut(usize),
    /// The right answer with other bytes.
    Other(Vec<u8>),
    /// The right answer, byte by byte, with this pause between.
    Slow(Duration),
    /// Nothing, for this long.
    Silence(Duration),
    /// The whole answer, whatever part was asked for.
    Whole,
    /// These bytes (status line and headers), then others again and again until so many were sent or nobody listens.
    Flood(String, Vec<u8>, u64),
}

/// What is to happen to the n-th request (counted from 0).
pub type Script = dyn Fn(usize, &Request) -> Option<Act> + Send + Sync;

/// What a registry has: paths below `/v2/` with type and content; uploads are added.
pub type Content = BTreeMap<String, (String, Vec<u8>)>;

pub struct FakeRegistry {
    pub address: SocketAddr,
    pub content: Arc<Mutex<Content>>,
    pub requests: Arc<Mutex<Vec<Request>>>,
}

impl FakeRegistry {
    pub fn start(
        content: Content,
        script: impl Fn(usize, &Request) -> Option<Act> + Send + Sync + 'static,
    ) -> FakeRegistry {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let registry = FakeRegistry {
            address: listener.local_addr().unwrap(),
            content: Arc::new(Mutex::new(content)),
            requests: Arc::default(),
        };
        let (content, requests) = (Arc::clone(&registry.content), Arc::clone(&registry.requests));
        let script: Arc<Script> = Arc::new(script);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let (content, requests, script) =
                    (Arc::clone(&content), Arc::clone(&requests), Arc::clone(&script));
                std::thread::spawn(move || serve(stream.unwrap(), &content, &requests, &*script));
            }
        });
        registry
    }

    pub fn requests(&self) -> Vec<Request> {
        self.requests.lock().unwrap().clone()
    }

    /// A name of an image there.
    pub fn name(&self, rest: &str) -> box_store::Reference {
        box_store::Reference::parse(&format!("{}/{rest}", self.address)).unwrap()
    }
}

fn serve(stream: TcpStream, content: &Mutex<Content>, requests: &Mutex<Vec<Request>>, script: &Script) {
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    let mut stream = stream;
    while let Some(request) = read(&mut reader) {
        let number = {
            let mut requests = requests.lock().unwrap();
            requests.push(request.clone());
            requests.len() - 1
        };
        if !answer(&mut stream, &request, content, script(number, &request)) {
            return;
        }
    }
}

/// The next request of a connection; none at its end (or if it speaks TLS).
fn read(reader: &mut impl BufRead) -> Option<Request> {
    let mut line = String::new();
    reader.read_line(&mut line).ok().filter(|count| *count > 0)?;
    let mut words = line.split(' ');
    let (method, path) = (words.next()?.to_owned(), words.next()?.to_owned());
    let mut headers = BTreeMap::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok().filter(|count| *count > 0)?;
        match line.trim_end().split_once(": ") {
            Some((name, value)) => headers.insert(name.to_ascii_lowercase(), value.to_owned()),
            None => break,
        };
    }
    let length = headers
        .get("content-length")
        .and_then(|length| length.parse().ok());
    let mut body = Vec::new();
    reader.take(length.unwrap_or(0)).read_to_end(&mut body).ok()?;
    Some(Request {
        method,
        path,
        headers,
        body,
    })
}

/// Answers; says whether the connection goes on.
fn answer(stream: &mut TcpStream, request: &Request, content: &Mutex<Content>, act: Option<Act>) -> bool {
    let ignores_range = matches!(act, Some(Act::Whole));
    let (status, headers, body) = right(request, content, ignores_range);
    let send = |stream: &mut TcpStream, status: u16, headers: &[(&str, String)], body: &[u8]| {
        let mut head = format!("HTTP/1.1 {status} X\r\n");
        for (name, value) in headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        if !headers.iter().any(|(name, _)| *name == "Content-Length") {
            head.push_str(&format!("Content-Length: {}\r\n", body.len()));
        }
        let bytes = [
            head.as_bytes(),
            b"\r\n",
            if request.method == "HEAD" { b"" } else { body },
        ]
        .concat();
        stream.write_all(&bytes).is_ok()
    };
    match act {
        None | Some(Act::Whole) => send(stream, status, &headers, &body),
        Some(Act::Answer(status, headers, body)) => send(stream, status, &headers, &body),
        Some(Act::Other(body)) => send(stream, status, &headers, &body),
        Some(Act::Cut(at)) => {
            let mut headers = headers;
            headers.push(("Content-Length", body.len().to_string()));
            send(stream, status, &headers, &body[..at.min(body.len())]);
            false
        }
        Some(Act::Slow(pause)) => {
            let mut headers = headers;
            headers.push(("Content-Length", body.len().to_string()));
            if !send(stream, status, &headers, b"") {
                return false;
            }
            body.iter().all(|byte| {
                std::thread::sleep(pause);
                stream.write_all(&[*byte]).is_ok()
            })
        }
        Some(Act::Silence(pause)) => {
            std::thread::sleep(pause);
            false
        }
        Some(Act::Flood(head, again, total)) => {
            let times = total / again.len() as u64;
            let _ = stream.write_all(head.as_bytes());
            (0..times).all(|_| stream.write_all(&again).is_ok());
            false
        }
    }
}

type Answer = (u16, Vec<(&'static str, String)>, Vec<u8>);

/// What a good registry says.
fn right(request: &Request, content: &Mutex<Content>, ignores_range: bool) -> Answer {
    let path = request.path.trim_start_matches("/v2/");
    let (path, query) = path.split_once('?').unwrap_or((path, ""));
    let mut content = content.lock().unwrap();
    match request.method.as_str() {
        "POST" if path.ends_with("/blobs/uploads/") => {
            (202, vec![("Location", format!("/v2/{path}1"))], Vec::new())
        }
        "PUT" if path.contains("/blobs/uploads/") => {
            let digest = Digest::of(&request.body);
            if !query.contains(&format!("digest=sha256%3A{}", digest.hex())) {
                return (
                    400,
                    Vec::new(),
                    br#"{"errors":[{"message":"digest invalid"}]}"#.to_vec(),
                );
            }
            let repository = path.split("/blobs/").next().unwrap();
            let blob = format!("{repository}/blobs/{digest}");
            content.insert(
                blob,
                ("application/octet-stream".to_owned(), request.body.clone()),
            );
            (201, Vec::new(), Vec::new())
        }
        "PUT" => {
            let kind = request.header("content-type").unwrap_or_default().to_owned();
            let (repository, _) = path.split_once("/manifests/").unwrap();
            let by_digest = format!("{repository}/manifests/{}", Digest::of(&request.body));
            content.insert(by_digest, (kind.clone(), request.body.clone()));
            content.insert(path.to_owned(), (kind, request.body.clone()));
            (201, Vec::new(), Vec::new())
        }
        _ => match content.get(path) {
            _ if path.is_empty() => (200, Vec::new(), b"{}".to_vec()),
            None => (
                404,
                Vec::new(),
                br#"{"errors":[{"code":"UNKNOWN","message":"unknown"}]}"#.to_vec(),
            ),
            Some((kind, bytes)) => {
                let kind = ("Content-Type", kind.clone());
                let from = request.header("range").and_then(|range| {
                    let from = range.strip_prefix("bytes=")?.strip_suffix('-')?;
                    from.parse::<usize>().ok()
                });
                match from.filter(|_| !ignores_range) {
                    None => (200, vec![kind], bytes.clone()),
                    Some(from) => {
                        let range = format!("bytes {from}-{}/{}", bytes.len() - 1, bytes.len());
                        (
                            206,
                            vec![kind, ("Content-Range", range)],
                            bytes.get(from..).unwrap_or_default().to_vec(),
                        )
                    }
                }
            }
        },
    }
}
