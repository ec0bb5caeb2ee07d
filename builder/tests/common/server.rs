//! An HTTP server of one file, which may change.

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

/// What the server gives.
#[derive(Clone, Default)]
pub struct Served {
    bytes: Vec<u8>,
    etag: Option<String>,
    last_modified: Option<String>,
}

impl Served {
    pub fn new(bytes: &[u8]) -> Served {
        Served {
            bytes: bytes.to_vec(),
            ..Served::default()
        }
    }

    pub fn etag(mut self, etag: &str) -> Served {
        self.etag = Some(format!("\"{etag}\""));
        self
    }

    pub fn last_modified(mut self, time: &str) -> Served {
        self.last_modified = Some(time.to_owned());
        self
    }
}

/// A server on the loopback interface; it ends with the test.
pub struct Server {
    address: SocketAddr,
    served: Arc<Mutex<Served>>,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Server {
    pub fn start(served: Served) -> Server {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let server = Server {
            address: listener.local_addr().unwrap(),
            served: Arc::new(Mutex::new(served)),
            asked: Arc::default(),
        };
        let (served, asked) = (Arc::clone(&server.served), Arc::clone(&server.asked));
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let served = served.lock().unwrap().clone();
                answer(&mut stream.unwrap(), &served, &asked);
            }
        });
        server
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://{}/{path}", self.address)
    }

    /// Gives something else from now on.
    pub fn change(&self, served: Served) {
        *self.served.lock().unwrap() = served;
    }

    /// The paths that were asked for, with "unchanged" where nothing had to be sent.
    pub fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }
}

fn answer(stream: &mut TcpStream, served: &Served, asked: &Mutex<Vec<String>>) {
    let lines = BufReader::new(stream.try_clone().unwrap()).lines();
    let head: Vec<String> = lines
        .map(|line| line.unwrap())
        .take_while(|line| !line.is_empty())
        .collect();
    let path = head[0].split(' ').nth(1).unwrap().to_owned();
    let value = |name: &str| {
        let mut found = head.iter().filter_map(|line| line.split_once(": "));
        found
            .find(|(found, _)| found.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.to_owned())
    };
    let is_same = |asked: Option<String>, is: &Option<String>| asked.is_some() && asked == *is;
    let unchanged = is_same(value("if-none-match"), &served.etag)
        || is_same(value("if-modified-since"), &served.last_modified);
    let status = if unchanged { "304 Not Modified" } else { "200 OK" };
    let body: &[u8] = if unchanged { b"" } else { &served.bytes };
    let mut answer = format!("HTTP/1.1 {status}\r\nConnection: close\r\n");
    for (name, value) in [("ETag", &served.etag), ("Last-Modified", &served.last_modified)] {
        if let Some(value) = value {
            answer.push_str(&format!("{name}: {value}\r\n"));
        }
    }
    if !unchanged {
        answer.push_str(&format!("Content-Length: {}\r\n", body.len()));
    }
    let what = format!("{path}{}", if unchanged { " unchanged" } else { "" });
    asked.lock().unwrap().push(what);
    let _ = stream.write_all(&[answer.as_bytes(), b"\r\n", body].concat());
}
