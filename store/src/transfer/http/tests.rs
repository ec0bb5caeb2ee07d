//! Against a server that does what a script says.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use super::*;
use crate::digest::Digest;

/// What the server does, in order; at the end it closes the connection.
#[derive(Clone)]
enum Act {
    Send(Vec<u8>),
    Wait(u64),
}

/// Answers the n-th request.
type Script = dyn Fn(usize, &str) -> Vec<Act> + Send + Sync;

struct Server {
    address: std::net::SocketAddr,
    requests: Arc<Mutex<Vec<String>>>,
    stop: Arc<AtomicBool>,
}

impl Server {
    fn new(script: impl Fn(usize, &str) -> Vec<Act> + Send + Sync + 'static) -> Server {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (requests, stop) = (Arc::new(Mutex::new(Vec::new())), Arc::new(AtomicBool::new(false)));
        let (seen, ended, script) = (requests.clone(), stop.clone(), Arc::new(script));
        std::thread::spawn(move || {
            for connection in listener.incoming() {
                if ended.load(Ordering::SeqCst) {
                    return;
                }
                let (seen, script) = (seen.clone(), script.clone());
                std::thread::spawn(move || serve(connection.unwrap(), &seen, &*script));
            }
        });
        Server {
            address,
            requests,
            stop,
        }
    }

    fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    fn requests(&self) -> Vec<String> {
        self.requests.lock().unwrap().clone()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        let _ = TcpStream::connect(self.address);
    }
}

fn serve(mut connection: TcpStream, seen: &Mutex<Vec<String>>, script: &Script) {
    let mut request = Vec::new();
    let mut byte = [0];
    while !request.ends_with(b"\r\n\r\n") {
        if connection.read(&mut byte).unwrap_or(0) == 0 {
            return;
        }
        request.push(byte[0]);
    }
    let request = String::from_utf8(request).unwrap();
    let number = {
        let mut seen = seen.lock().unwrap();
        seen.push(request.clone());
        seen.len() - 1
    };
    for act in script(number, &request) {
        match act {
            Act::Wait(ms) => std::thread::sleep(Duration::from_millis(ms)),
            Act::Send(bytes) => {
                if connection.write_all(&bytes).is_err() {
                    return;
                }
            }
        }
    }
}

fn answer(status: &str, headers: &[&str], body: &[u8]) -> Vec<Act> {
    let mut text = format!("HTTP/1.1 {status}\r\nconnection: close\r\n");
    for header in headers {
        text += &format!("{header}\r\n");
    }
    let head = [text.as_bytes(), b"\r\n", body].concat();
    vec![Act::Send(head)]
}

fn whole(body: &[u8]) -> Vec<Act> {
    answer("200 OK", &[&format!("content-length: {}", body.len())], body)
}

fn quick() -> FetchOptions {
    let mut options = FetchOptions::default();
    options.limits.retry_delay = Duration::from_millis(5);
    options.limits.patience = Duration::from_millis(400);
    options.limits.connect_timeout = Duration::from_secs(2);
    options
}

fn get(url: &str, options: &FetchOptions) -> Result<Fetched, FetchError> {
    fetch_blocking(
        url,
        options,
        tempfile::tempfile().unwrap(),
        &crate::transfer::NoProgress,
    )
}

/// The bytes, or the error's text.
fn text(result: Result<Fetched, FetchError>) -> Result<Vec<u8>, String> {
    match result.map_err(|e| e.to_string())? {
        Fetched::NotModified => Err("not modified".to_owned()),
        Fetched::File(mut fetched) => {
            let mut bytes = Vec::new();
            fetched.file.read_to_end(&mut bytes).unwrap();
            assert_eq!(fetched.digest, Digest::of(&bytes));
            assert_eq!(fetched.size, bytes.len() as u64);
            Ok(bytes)
        }
    }
}

#[track_caller]
fn fails(result: Result<Fetched, FetchError>, piece: &str) {
    let error = text(result).expect_err("an error");
    assert!(error.contains(piece), "expected {piece:?} in {error:?}");
}

#[test]
fn a_file_comes_with_digest_and_validators() {
    let server = Server::new(|_, _| {
        let headers = [
            "content-length: 5",
            "etag: \"v1\"",
            "last-modified: Mon, 01 Jan 2024 00:00:00 GMT",
        ];
        answer("200 OK", &headers, b"hello")
    });
    let Fetched::File(file) = get(&server.url("/x.tar"), &quick()).unwrap() else {
        panic!("not modified")
    };
    assert_eq!(file.digest, Digest::of(b"hello"));
    assert_eq!(file.validators.etag.as_deref(), Some("\"v1\""));
    assert_eq!(
        file.validators.last_modified.as_deref(),
        Some("Mon, 01 Jan 2024 00:00:00 GMT")
    );
    assert!(server.requests()[0].contains("accept-encoding: identity"));
    assert!(server.requests()[0].contains("user-agent: box/"));
}

#[test]
fn chunked_and_unannounced_lengths_are_read_to_the_end() {
    let server = Server::new(|_, request| match request.starts_with("GET /chunked") {
        true => answer(
            "200 OK",
            &["transfer-encoding: chunked"],
            b"3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n",
        ),
        false => answer("200 OK", &[], b"abcde"),
    });
    assert_eq!(
        text(get(&server.url("/chunked"), &quick())),
        Ok(b"abcde".to_vec())
    );
    assert_eq!(text(get(&server.url("/close"), &quick())), Ok(b"abcde".to_vec()));
}

#[test]
fn unchanged_files_are_not_sent_again() {
    let server = Server::new(|_, request| match request.contains("if-none-match: \"v1\"") {
        true => answer("304 Not Modified", &[], b""),
        false => whole(b"new"),
    });
    let validators = Validators {
        etag: Some("\"v1\"".into()),
        last_modified: Some("yesterday".into()),
        is_at_rest: true,
    };
    let options = FetchOptions {
        validators: Some(validators),
        ..quick()
    };
    assert!(matches!(
        get(&server.url("/"), &options),
        Ok(Fetched::NotModified)
    ));
    assert!(
        !server.requests()[0].contains("if-modified-since"),
        "an ETag says it better"
    );
    let options = FetchOptions {
        validators: Some(Validators {
            etag: Some("\"v0\"".into()),
            ..Validators::default()
        }),
        ..quick()
    };
    assert_eq!(text(get(&server.url("/"), &options)), Ok(b"new".to_vec()));
}

/// Many servers say that a file did not change since a time whenever it is older: after a rollback, too.
#[test]
fn a_time_is_believed_only_if_it_is_the_same() {
    const OLD: &str = "last-modified: Mon, 01 Jan 2024 00:00:00 GMT";
    const NEW: &str = "last-modified: Sat, 01 Jun 2024 00:00:00 GMT";
    const DATE: &str = "date: Sat, 01 Jun 2024 00:02:00 GMT";
    let asked_with = |headers: &'static [&'static str]| {
        let server = Server::new(move |_, _| answer("200 OK", headers, b"x"));
        let Ok(Fetched::File(file)) = get(&server.url("/"), &quick()) else {
            panic!("no file")
        };
        file.validators
    };
    let fetched = asked_with(&["content-length: 1", NEW, DATE]);
    let again = |answer_with: &'static [&'static str], validators: &Validators| {
        let server = Server::new(move |_, request| {
            match request.contains("if-modified-since: Sat, 01 Jun 2024 00:00:00 GMT") {
                true => answer("304 Not Modified", answer_with, b""),
                false => whole(b"new"),
            }
        });
        let options = FetchOptions {
            validators: Some(validators.clone()),
            ..quick()
        };
        let fetched = get(&server.url("/"), &options).unwrap();
        (matches!(fetched, Fetched::NotModified), server.requests().len())
    };
    assert_eq!(again(&[NEW], &fetched), (true, 1));
    assert_eq!(again(&[OLD], &fetched), (false, 2));
    assert_eq!(again(&[], &fetched), (false, 2));
    // A file that was written a moment before may change again within the second.
    for young in [
        asked_with(&["content-length: 1", NEW, "date: Sat, 01 Jun 2024 00:00:30 GMT"]),
        asked_with(&["content-length: 1", NEW]),
    ] {
        assert_eq!(again(&[NEW], &young), (false, 1));
    }
}

#[test]
fn a_304_that_nobody_asked_for_is_an_error() {
    let server = Server::new(|_, _| answer("304 Not Modified", &[], b""));
    fails(get(&server.url("/"), &quick()), "304 though nothing was asked");
}

#[test]
fn a_cut_body_is_an_error_after_bounded_retries() {
    let server = Server::new(|_, _| answer("200 OK", &["content-length: 100"], b"too short"));
    fails(get(&server.url("/"), &quick()), "broke off after 9 bytes");
    assert_eq!(server.requests().len(), 5);
}

#[test]
fn a_cut_chunked_body_is_an_error() {
    let server = Server::new(|_, _| {
        answer(
            "200 OK",
            &["transfer-encoding: chunked"],
            b"5\r\nabcde\r\n5\r\nab",
        )
    });
    fails(get(&server.url("/"), &quick()), "broke off");
}

#[test]
fn a_broken_transfer_goes_on_where_it_stopped() {
    let server = Server::new(|number, request| match number {
        0 => answer("200 OK", &["content-length: 10", "etag: \"v1\""], b"01234"),
        1 if request.contains("range: bytes=5-") && request.contains("if-range: \"v1\"") => answer(
            "206 Partial Content",
            &["content-range: bytes 5-9/10", "content-length: 5", "etag: \"v1\""],
            b"56",
        ),
        2 if request.contains("range: bytes=7-") => answer(
            "206 Partial Content",
            &["content-range: bytes 7-9/10", "content-length: 3"],
            b"789",
        ),
        _ => answer("500 Oops", &[], b""),
    });
    let options = FetchOptions {
        checksum: Some(Digest::of(b"0123456789")),
        ..quick()
    };
    assert_eq!(text(get(&server.url("/"), &options)), Ok(b"0123456789".to_vec()));
    assert_eq!(server.requests().len(), 3);
}

#[test]
fn a_file_that_changed_meanwhile_begins_anew() {
    let server = Server::new(|number, _| match number {
        0 => answer("200 OK", &["content-length: 10", "etag: \"v1\""], b"01234"),
        _ => answer("200 OK", &["content-length: 3", "etag: \"v2\""], b"new"),
    });
    assert_eq!(text(get(&server.url("/"), &quick())), Ok(b"new".to_vec()));
}

#[test]
fn wrong_parts_are_never_put_together() {
    let parts: [(&str, &[&str], &[u8]); 4] = [
        (
            "206 Partial Content",
            &["content-range: bytes 4-9/10", "content-length: 6"],
            b"456789",
        ),
        ("206 Partial Content", &["content-length: 5"], b"56789"),
        (
            "206 Partial Content",
            &["content-range: bytes 5-9/10", "content-length: 5", "etag: \"v2\""],
            b"xxxxx",
        ),
        ("416 Range Not Satisfiable", &["content-length: 0"], b""),
    ];
    for (status, headers, body) in parts {
        let server = Server::new(move |number, request| match number {
            0 => answer("200 OK", &["content-length: 10", "etag: \"v1\""], b"01234"),
            _ if request.contains("range: bytes=") => answer(status, headers, body),
            _ => whole(b"0123456789"),
        });
        assert_eq!(
            text(get(&server.url("/"), &quick())),
            Ok(b"0123456789".to_vec()),
            "{status} {headers:?}"
        );
    }
    let server = Server::new(|number, _| match number {
        0 => answer("200 OK", &["content-length: 10"], b"01234"),
        _ => whole(b"0123456789"),
    });
    assert_eq!(text(get(&server.url("/"), &quick())), Ok(b"0123456789".to_vec()));
    assert!(
        !server.requests()[1].contains("range:"),
        "no strong ETag, no range"
    );
}

#[test]
fn a_part_that_nobody_asked_for_is_an_error() {
    let server = Server::new(|_, _| {
        answer(
            "206 Partial Content",
            &["content-range: bytes 0-1/9", "content-length: 2"],
            b"ab",
        )
    });
    fails(get(&server.url("/"), &quick()), "though the whole was asked for");
}

#[test]
fn checksums_are_checked() {
    let server = Server::new(|_, _| whole(b"evil"));
    let options = FetchOptions {
        checksum: Some(Digest::of(b"good")),
        ..quick()
    };
    let error = text(get(&server.url("/f"), &options)).unwrap_err();
    for piece in [
        "checksum is wrong",
        &Digest::of(b"good").to_string(),
        &Digest::of(b"evil").to_string(),
        "/f",
    ] {
        assert!(error.contains(piece), "{piece} in {error}");
    }
    assert_eq!(server.requests().len(), 1, "asking again does not help");
}

#[test]
fn sizes_are_bounded_announced_or_not() {
    let mut options = quick();
    options.limits.max_size = 1000;
    let server = Server::new(|_, request| match request.starts_with("GET /announced") {
        true => answer("200 OK", &["content-length: 99999999999999"], b"x"),
        false => answer("200 OK", &[], &[b'x'; 5000]),
    });
    fails(
        get(&server.url("/announced"), &options),
        "larger than the limit of 1000 bytes",
    );
    fails(
        get(&server.url("/endless"), &options),
        "larger than the limit of 1000 bytes",
    );
    assert_eq!(server.requests().len(), 2);
}

#[test]
fn a_byte_now_and_then_is_too_slow() {
    let server = Server::new(|_, _| {
        let mut acts = answer("200 OK", &["content-length: 100000"], b"");
        acts.extend((0..100).flat_map(|_| [Act::Send(b"x".to_vec()), Act::Wait(100)]));
        acts
    });
    let begin = Instant::now();
    fails(get(&server.url("/"), &quick()), "fewer than 4096 bytes came in");
    assert!(begin.elapsed() < Duration::from_secs(3), "{:?}", begin.elapsed());
}

#[test]
fn silence_is_too_slow() {
    let server = Server::new(|_, _| {
        let mut acts = answer("200 OK", &["content-length: 100"], b"x");
        acts.push(Act::Wait(5000));
        acts
    });
    fails(get(&server.url("/"), &quick()), "fewer than");
}

#[test]
fn a_server_that_never_answers_is_given_up() {
    let server = Server::new(|_, _| vec![Act::Wait(8000)]);
    let mut options = quick();
    options.limits.retries = 0;
    options.limits.connect_timeout = Duration::from_millis(300);
    fails(get(&server.url("/"), &options), "no answer");
}

#[test]
fn redirects_are_followed_and_bounded() {
    let server = Server::new(|_, request| {
        let path = request.split(' ').nth(1).unwrap();
        match path {
            "/loop" => answer("302 Found", &["location: /loop"], b""),
            "/end" => whole(b"there"),
            path => {
                let n: usize = path[1..].parse().unwrap();
                let to = if n == 0 {
                    "location: end".to_owned()
                } else {
                    format!("location: /{}", n - 1)
                };
                answer(
                    [
                        "301 Moved",
                        "302 Found",
                        "303 See Other",
                        "307 Temporary",
                        "308 Permanent",
                    ][n % 5],
                    &[&to],
                    b"",
                )
            }
        }
    });
    assert_eq!(text(get(&server.url("/9"), &quick())), Ok(b"there".to_vec()));
    fails(get(&server.url("/10"), &quick()), "more than 10 redirects");
    let before = server.requests().len();
    fails(get(&server.url("/loop"), &quick()), "more than 10 redirects");
    assert_eq!(server.requests().len(), before + 11);
}

#[test]
fn redirects_lead_to_http_only() {
    for to in [
        "file:///etc/passwd",
        "ftp://127.0.0.1/x",
        "data:text/plain,x",
        "http://",
        "gopher://x",
    ] {
        let header = format!("location: {to}");
        let server = Server::new(move |_, _| answer("302 Found", &[&header], b""));
        fails(get(&server.url("/"), &quick()), "redirects, but not to a URL");
    }
    let server = Server::new(|_, _| answer("302 Found", &[], b""));
    fails(get(&server.url("/"), &quick()), "redirects, but not to a URL");
}

#[test]
fn cve_2020_15157_credentials_stay_with_their_origin() {
    let other = Server::new(|_, _| whole(b"elsewhere"));
    let to = format!("location: {}", other.url("/x"));
    let server = Server::new(move |_, request| match request.starts_with("GET /same") {
        true => answer("302 Found", &["location: /away"], b""),
        false => answer("302 Found", &[&to], b""),
    });
    let url = server.url("/same").replace("http://", "http://user:secret@");
    let Fetched::File(file) = get(&url, &quick()).unwrap() else {
        panic!("not modified")
    };
    assert!(
        server
            .requests()
            .iter()
            .all(|r| r.contains("authorization: Basic dXNlcjpzZWNyZXQ=")),
        "same origin"
    );
    assert!(!other.requests()[0].to_lowercase().contains("authorization"));
    assert!(!file.url.contains("secret"));
}

#[test]
fn errors_do_not_show_credentials() {
    let server = Server::new(|_, _| answer("403 Forbidden", &[], b""));
    let url = server.url("/f").replace("http://", "http://user:secret@");
    let error = text(get(&url, &quick())).unwrap_err();
    assert!(
        error.contains("403 (no access)") && !error.contains("secret"),
        "{error}"
    );
    for url in [
        "http://user:secret@127.0.0.1:1/x",
        "ftp://user:secret@x/y",
        "http://user:secret@[bad/",
    ] {
        let mut options = quick();
        options.limits.retries = 0;
        let error = text(get(url, &options)).unwrap_err();
        assert!(!error.contains("secret"), "{error}");
    }
}

#[test]
fn temporary_failures_are_tried_again_and_others_not() {
    for (status, tries) in [
        ("503 Busy", 5),
        ("429 Slow", 5),
        ("502 Bad", 5),
        ("404 None", 1),
        ("401 No", 1),
        ("501 No", 1),
        ("418 T", 1),
    ] {
        let server = Server::new(move |_, _| answer(status, &["content-length: 0"], b""));
        fails(get(&server.url("/"), &quick()), &status[..3]);
        assert_eq!(server.requests().len(), tries, "{status}");
    }
    let server = Server::new(|number, _| match number {
        0 => answer("503 Busy", &["retry-after: 1"], b""),
        1 => vec![],
        _ => whole(b"at last"),
    });
    let begin = Instant::now();
    assert_eq!(text(get(&server.url("/"), &quick())), Ok(b"at last".to_vec()));
    assert!(begin.elapsed() >= Duration::from_secs(1));
}

#[test]
fn what_is_no_url_is_said_to_be_none() {
    for url in [
        "",
        "x",
        "/etc/passwd",
        "file:///etc/passwd",
        "ftp://h/x",
        "http://",
        "https://[::1/",
    ] {
        fails(get(url, &quick()), "cannot be fetched");
    }
    let mut options = quick();
    options.limits.retries = 1;
    fails(
        get("http://127.0.0.1:1/", &options),
        "cannot connect to 127.0.0.1:1",
    );
}

#[test]
fn garbage_instead_of_http_is_an_error() {
    let mut options = quick();
    options.limits.retries = 0;
    let server = Server::new(|_, _| vec![Act::Send(b"SSH-2.0-OpenSSH\r\n".to_vec())]);
    assert!(text(get(&server.url("/"), &options)).is_err());
    let server = Server::new(|_, _| answer("200 OK", &["content-length: 3", "content-length: 5"], b"abcde"));
    assert!(text(get(&server.url("/"), &options)).is_err());
    let server = Server::new(|_, _| {
        vec![Act::Send(
            [b"HTTP/1.1 200 OK\r\nx: ".to_vec(), vec![b'y'; 1 << 20]].concat(),
        )]
    });
    assert!(text(get(&server.url("/"), &options)).is_err());
}

#[test]
fn progress_is_told_and_can_cancel() {
    #[derive(Default)]
    struct Watch {
        total: AtomicU64,
        bytes: AtomicU64,
        finished: AtomicBool,
        cancel_at: u64,
    }
    impl Progress for Watch {
        fn start(&self, total: Option<u64>) {
            self.total.store(total.unwrap_or(0), Ordering::SeqCst);
        }
        fn advance(&self, bytes: u64) {
            self.bytes.fetch_add(bytes, Ordering::SeqCst);
        }
        fn finish(&self) {
            self.finished.store(true, Ordering::SeqCst);
        }
        fn cancelled(&self) -> bool {
            self.cancel_at > 0 && self.bytes.load(Ordering::SeqCst) >= self.cancel_at
        }
    }
    let server = Server::new(|_, _| {
        let mut acts = answer("200 OK", &["content-length: 10"], b"01234");
        acts.extend([Act::Wait(200), Act::Send(b"56789".to_vec())]);
        acts
    });
    let watch = Watch::default();
    let file = || tempfile::tempfile().unwrap();
    fetch_blocking(&server.url("/"), &quick(), file(), &watch).unwrap();
    assert_eq!(watch.total.into_inner(), 10);
    assert_eq!(watch.bytes.into_inner(), 10);
    assert!(watch.finished.into_inner());
    let watch = Watch {
        cancel_at: 5,
        ..Watch::default()
    };
    let result = fetch_blocking(&server.url("/"), &quick(), file(), &watch);
    assert!(matches!(result, Err(FetchError::Cancelled)), "{result:?}");
}
