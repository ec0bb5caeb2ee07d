//! An S3 server of a test's own: objects in memory, lists in pages of two, and as many failures as are asked for.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

const PAGE: usize = 2;

type Objects = Arc<Mutex<BTreeMap<String, Vec<u8>>>>;

/// The server; it ends with the test.
pub struct Bucket {
    pub objects: Objects,
    pub endpoint: String,
    /// Every how many requests one fails with 500; 0 for none.
    pub fails_every: Arc<AtomicUsize>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Bucket {
    pub fn start() -> Bucket {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let (objects, fails_every, stop) = (
            Objects::default(),
            Arc::new(AtomicUsize::new(0)),
            Arc::new(AtomicBool::new(false)),
        );
        let (shared, fails, stopped) = (objects.clone(), fails_every.clone(), stop.clone());
        let counted = Arc::new(AtomicUsize::new(0));
        let thread = std::thread::spawn(move || {
            for stream in listener.incoming() {
                if stopped.load(Ordering::SeqCst) {
                    return;
                }
                let (objects, fails, counted) = (shared.clone(), fails.clone(), counted.clone());
                std::thread::spawn(move || serve(&stream.unwrap(), &objects, &fails, &counted));
            }
        });
        Bucket {
            objects,
            endpoint,
            fails_every,
            stop,
            thread: Some(thread),
        }
    }

    /// What follows `type=s3` for the bucket.
    pub fn options(&self) -> String {
        format!(
            "type=s3,bucket=cache,prefix=team/app,region=eu-1,endpoint_url={},access_key_id=KEY,secret_access_key=SECRET",
            self.endpoint
        )
    }
}

impl Drop for Bucket {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        let _ = TcpStream::connect(self.endpoint.trim_start_matches("http://"));
        self.thread.take().unwrap().join().unwrap();
    }
}

struct Request {
    method: String,
    path: String,
    query: BTreeMap<String, String>,
    headers: BTreeMap<String, String>,
    body: Vec<u8>,
}

fn read(reader: &mut BufReader<&TcpStream>) -> Option<Request> {
    let mut line = String::new();
    if reader.read_line(&mut line).ok()? == 0 {
        return None;
    }
    let mut words = line.split_whitespace();
    let (method, target) = (words.next()?.to_owned(), words.next()?.to_owned());
    let mut headers = BTreeMap::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        let Some((name, value)) = line.trim_end().split_once(':') else {
            break;
        };
        headers.insert(name.to_ascii_lowercase(), value.trim().to_owned());
    }
    let length = headers
        .get("content-length")
        .map_or(0, |length| length.parse().unwrap());
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    let (path, query) = target.split_once('?').unwrap_or((&target, ""));
    let pairs = query.split('&').filter_map(|pair| pair.split_once('='));
    Some(Request {
        method,
        path: path.to_owned(),
        query: pairs
            .map(|(name, value)| (name.to_owned(), value.replace("%2F", "/")))
            .collect(),
        headers,
        body,
    })
}

fn serve(stream: &TcpStream, objects: &Objects, fails: &AtomicUsize, counted: &AtomicUsize) {
    let mut reader = BufReader::new(stream);
    while let Some(request) = read(&mut reader) {
        let every = fails.load(Ordering::SeqCst);
        let number = counted.fetch_add(1, Ordering::SeqCst);
        let (status, headers, body) = match every {
            0 => answer(&request, objects),
            every if number.is_multiple_of(every) => (500, String::new(), Vec::new()),
            _ => answer(&request, objects),
        };
        // A body that nobody expects would be taken for the next answer.
        let (length, body) = match request.method.as_str() {
            "HEAD" => (String::new(), Vec::new()),
            _ => (format!("content-length: {}\r\n", body.len()), body),
        };
        let head = format!("HTTP/1.1 {status} x\r\n{length}{headers}\r\n");
        let mut out = stream;
        if out
            .write_all(head.as_bytes())
            .and_then(|()| out.write_all(&body))
            .is_err()
        {
            return;
        }
    }
}

fn answer(request: &Request, objects: &Objects) -> (u16, String, Vec<u8>) {
    let authorization = request.headers.get("authorization").map_or("", String::as_str);
    if !authorization.starts_with("AWS4-HMAC-SHA256 Credential=KEY/") {
        return (
            403,
            String::new(),
            b"<Error><Code>AccessDenied</Code></Error>".to_vec(),
        );
    }
    let mut objects = objects.lock().unwrap();
    let Some(key) = request.path.strip_prefix("/cache") else {
        return (404, String::new(), Vec::new());
    };
    let key = key.trim_start_matches('/').to_owned();
    let facts = |size: usize| {
        format!(
            "etag: \"x\"\r\nlast-modified: Sat, 28 Nov 2026 10:00:00 GMT\r\naccept-ranges: bytes\r\nx-size: {size}\r\n"
        )
    };
    match (request.method.as_str(), objects.get(&key)) {
        ("GET", _) if key.is_empty() => (200, String::new(), list(request, &objects).into_bytes()),
        ("PUT", _) => {
            objects.insert(key, request.body.clone());
            (200, facts(0), Vec::new())
        }
        ("DELETE", _) => {
            objects.remove(&key);
            (204, String::new(), Vec::new())
        }
        (_, None) => (
            404,
            String::new(),
            b"<Error><Code>NoSuchKey</Code></Error>".to_vec(),
        ),
        ("HEAD", Some(object)) => (
            200,
            format!("content-length: {}\r\n{}", object.len(), facts(0)),
            Vec::new(),
        ),
        (_, Some(object)) => match request.headers.get("range") {
            None => (200, facts(object.len()), object.clone()),
            Some(range) => {
                let (first, last) = range.trim_start_matches("bytes=").split_once('-').unwrap();
                let (first, last): (usize, usize) = (first.parse().unwrap(), last.parse().unwrap());
                if first >= object.len() {
                    return (416, String::new(), Vec::new());
                }
                let last = last.min(object.len() - 1);
                let range = format!("content-range: bytes {first}-{last}/{}\r\n", object.len());
                (206, range + &facts(0), object[first..=last].to_vec())
            }
        },
    }
}

fn list(request: &Request, objects: &BTreeMap<String, Vec<u8>>) -> String {
    let get = |name: &str| request.query.get(name).map_or("", String::as_str);
    let (prefix, after) = (get("prefix"), get("continuation-token"));
    let found = objects
        .iter()
        .filter(|(key, _)| key.starts_with(prefix) && key.as_str() > after);
    let found: Vec<_> = found.collect();
    let page = &found[..found.len().min(PAGE)];
    let contents: String = page
        .iter()
        .map(|(key, object)| {
            format!(
                "<Contents><Key>{key}</Key><LastModified>2026-11-28T10:00:00.000Z</LastModified><ETag>\"x\"</ETag><Size>{}</Size></Contents>",
                object.len()
            )
        })
        .collect();
    let next = match page.last() {
        Some((key, _)) if found.len() > PAGE => {
            format!("<NextContinuationToken>{key}</NextContinuationToken>")
        }
        _ => String::new(),
    };
    format!("<?xml version=\"1.0\"?><ListBucketResult>{next}{contents}</ListBucketResult>")
}
