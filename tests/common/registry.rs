//! A registry of a test's own.

use std::fs;
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use super::sh;

/// `user` with the password `secret`, as bcrypt.
const HTPASSWD: &str = "user:$2y$05$abcdefghijklmnopqrstuuOQiyCxlgf/oeuTqixKmWdcYUh4Hjl0a\n";

/// Docker's registry on the loopback interface; it ends with the test.
pub struct Registry {
    child: Child,
    pub host: String,
    pub dir: tempfile::TempDir,
}

impl Registry {
    pub fn start() -> Registry {
        Registry::with("", |_| String::new())
    }

    /// With TLS by a certificate of its own, and a login.
    pub fn guarded() -> Registry {
        let auth = "auth: {htpasswd: {realm: test, path: DIR/htpasswd}}\n";
        Registry::with(auth, |dir| {
            fs::write(dir.join("htpasswd"), HTPASSWD).unwrap();
            sh(&format!(
                "openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=localhost -addext basicConstraints=critical,CA:FALSE -addext subjectAltName=DNS:localhost,IP:127.0.0.1 \
                 -keyout {0}/key.pem -out {0}/cert.pem 2>/dev/null",
                dir.display()
            ));
            "tls: {certificate: DIR/cert.pem, key: DIR/key.pem}".to_owned()
        })
    }

    fn with(more: &str, prepare: impl FnOnce(&Path) -> String) -> Registry {
        let dir = tempfile::tempdir().unwrap();
        let port = TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap()
            .port();
        let http = prepare(dir.path());
        let http = if http.is_empty() {
            http
        } else {
            format!(", {http}")
        };
        let config = format!(
            "version: 0.1\nlog: {{level: error, accesslog: {{disabled: true}}}}\nstorage: {{filesystem: {{rootdirectory: DIR/data}}}}\n\
             http: {{addr: '127.0.0.1:{port}'{http}}}\n{more}"
        );
        let place = dir.path().join("config.yml");
        fs::write(&place, config.replace("DIR", dir.path().to_str().unwrap())).unwrap();
        let child = Command::new("docker-registry")
            .arg("serve")
            .arg(&place)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("docker-registry is needed (scripts/install-deps.sh installs it)");
        let registry = Registry {
            child,
            host: format!("127.0.0.1:{port}"),
            dir,
        };
        let is_up = (0..500).any(|_| {
            std::thread::sleep(Duration::from_millis(10));
            TcpStream::connect(&registry.host).is_ok()
        });
        assert!(is_up, "the registry does not start");
        registry
    }

    /// Ends it before the test does.
    pub fn stop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    pub fn name(&self, rest: &str) -> String {
        format!("{}/{rest}", self.host)
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        // It may have been ended.
        let _ = self.child.kill();
        self.child.wait().unwrap();
    }
}
