//! Hooks: programs of the caller that are run at points of a container's life.

use std::fs::File;
use std::io::{self, Seek, Write};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rustix::fs::{MemfdFlags, memfd_create};
use serde::{Deserialize, Serialize};

/// How often it is looked whether one has ended.
const TURN: Duration = Duration::from_millis(5);

/// A program that is run at a point of a container's life.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hook {
    /// The program, absolute.
    pub path: PathBuf,
    /// Its arguments, the first being its own name.
    pub args: Vec<String>,
    /// Its whole environment.
    pub env: Vec<(String, String)>,
    /// Seconds it may take.
    pub timeout: Option<u64>,
}

impl Hook {
    /// Runs it with `state` on its standard input, and waits for its end. Why it failed, in words, otherwise.
    pub fn run(&self, state: &str) -> Result<(), String> {
        use std::os::unix::process::CommandExt;
        let told = |e: io::Error| format!("hook {}: {e}", self.path.display());
        let mut command = Command::new(&self.path);
        if let Some((name, args)) = self.args.split_first() {
            command.arg0(name).args(args);
        }
        command.env_clear().envs(self.env.iter().map(|(k, v)| (k, v)));
        command.stdin(Stdio::from(readable(state).map_err(told)?));
        let mut child = command.spawn().map_err(told)?;
        let begun = Instant::now();
        let limit = self.timeout.map(Duration::from_secs);
        let status = loop {
            match child.try_wait().map_err(told)? {
                Some(status) => break status,
                None if limit.is_some_and(|limit| begun.elapsed() > limit) => {
                    child.kill().and_then(|()| child.wait()).map_err(told)?;
                    return Err(format!(
                        "hook {}: not done within {} s",
                        self.path.display(),
                        self.timeout.unwrap_or(0)
                    ));
                }
                None => std::thread::sleep(TURN),
            }
        };
        match status.success() {
            true => Ok(()),
            false => Err(format!("hook {}: {status}", self.path.display())),
        }
    }
}

/// A file in memory rather than a pipe: a hook that reads nothing stops nobody then.
fn readable(text: &str) -> io::Result<File> {
    let mut file = File::from(memfd_create("state", MemfdFlags::CLOEXEC)?);
    file.write_all(text.as_bytes())?;
    file.rewind()?;
    Ok(file)
}
