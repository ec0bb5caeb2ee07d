//! Servers of a test's own: files, and repositories among them.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

/// A server of files on the loopback interface.
pub struct Server {
    child: Child,
    port: u16,
}

impl Server {
    pub fn start(directory: &Path) -> Server {
        let mut child = Command::new("python3")
            .args(["-u", "-m", "http.server", "--bind", "127.0.0.1", "0"])
            .current_dir(directory)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap())
            .read_line(&mut line)
            .unwrap();
        let after = line.split(" port ").nth(1).unwrap();
        let port = after.split(' ').next().unwrap().parse().unwrap();
        Server { child, port }
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}/{path}", self.port)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

/// A repository of these files that any file server can serve.
pub fn repository(context: &Path, to: &Path) {
    let script = "set -e; git init -q -b main \"$1\"; cp -a \"$0\"/. \"$1\"; cd \"$1\"; git add -A; \
                  git -c user.name=a -c user.email=a@b commit -qm x; mv .git ../bare; cd ..; rm -r \"$1\"; mv bare \"$1\"; cd \"$1\"; \
                  git config core.bare true; git update-server-info";
    let status = Command::new("sh")
        .args(["-c", script])
        .args([context, to])
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .status()
        .unwrap();
    assert!(status.success());
}
