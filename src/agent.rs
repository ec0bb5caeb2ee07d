//! An SSH agent's socket for a container.
//!
//! An agent answers its own user alone, and a container's users are others outside. So box listens in the container's stead,
//! and passes on what comes, both ways.

use std::io;
use std::net::Shutdown;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::thread::JoinHandle;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

/// A socket that is served until it is dropped.
#[derive(Debug)]
pub(crate) struct Agent {
    path: PathBuf,
    stop: UnixStream,
    served: Option<JoinHandle<()>>,
}

impl Agent {
    /// Serves `name` in the directory with these permissions and this owner, by connections to the agent outside.
    pub(crate) fn serve(
        directory: &Path,
        name: &str,
        agent: &Path,
        mode: u32,
        (uid, gid): (u32, u32),
    ) -> io::Result<Agent> {
        // The name of a socket is short; that of the directory need not be.
        let opened = std::fs::File::open(directory)?;
        let short = PathBuf::from(format!("/proc/self/fd/{}/{name}", opened.as_raw_fd()));
        let listener = UnixListener::bind(&short)?;
        let path = directory.join(name);
        std::os::unix::fs::chown(&path, Some(uid), Some(gid))?;
        std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(mode))?;
        listener.set_nonblocking(true)?;
        let (stop, stopped) = UnixStream::pair()?;
        let agent = agent.to_owned();
        let served = std::thread::Builder::new()
            .name("ssh-agent".to_owned())
            .spawn(move || serve(&listener, &stopped, &agent))?;
        Ok(Agent {
            path,
            stop,
            served: Some(served),
        })
    }

    /// Where the socket is.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.stop.shutdown(Shutdown::Both);
        if let Some(served) = self.served.take() {
            let _ = served.join();
        }
        let _ = std::fs::remove_file(&self.path);
    }
}

/// Passes on connections until the other end of `stopped` is shut. Those that are open end with the container.
fn serve(listener: &UnixListener, stopped: &UnixStream, agent: &Path) {
    loop {
        let mut polled = [
            PollFd::new(listener.as_fd(), PollFlags::POLLIN),
            PollFd::new(stopped.as_fd(), PollFlags::POLLIN),
        ];
        match poll(&mut polled, PollTimeout::NONE) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(_) => return,
        }
        if polled[1].any().unwrap_or(false) {
            return;
        }
        let Ok((inside, _)) = listener.accept() else {
            continue;
        };
        // An agent that is gone is a connection that ends at once.
        if let Ok(outside) = UnixStream::connect(agent) {
            relay(inside, outside);
        }
    }
}

fn relay(inside: UnixStream, outside: UnixStream) {
    let (Ok(from_inside), Ok(from_outside)) = (inside.try_clone(), outside.try_clone()) else {
        return;
    };
    let _ = inside.set_nonblocking(false);
    for (mut from, mut to) in [(from_inside, outside), (from_outside, inside)] {
        std::thread::spawn(move || {
            let _ = io::copy(&mut from, &mut to);
            let _ = to.shutdown(Shutdown::Both);
            let _ = from.shutdown(Shutdown::Both);
        });
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};

    use super::*;

    #[test]
    fn what_is_said_is_passed_on() {
        let dir = std::env::temp_dir().join(format!("box-agent-{}", std::process::id()));
        // Longer than the name of a socket may be.
        let deep = dir.join("d".repeat(120));
        std::fs::create_dir_all(&deep).unwrap();
        let agent = dir.join("agent");
        let outside = UnixListener::bind(&agent).unwrap();
        let served = Agent::serve(&deep, "socket", &agent, 0o600, (0, 0)).unwrap();
        let answering = std::thread::spawn(move || {
            let (mut stream, _) = outside.accept().unwrap();
            let mut question = [0; 4];
            stream.read_exact(&mut question).unwrap();
            stream
                .write_all(&question.map(|b| b.to_ascii_uppercase()))
                .unwrap();
        });
        let opened = std::fs::File::open(&deep).unwrap();
        let short = format!("/proc/self/fd/{}/socket", opened.as_raw_fd());
        let mut inside = UnixStream::connect(&short).unwrap();
        inside.write_all(b"keys").unwrap();
        let mut answer = Vec::new();
        inside.read_to_end(&mut answer).unwrap();
        assert_eq!(answer, b"KEYS");
        answering.join().unwrap();
        drop(served);
        assert!(!deep.join("socket").exists());
        assert!(UnixStream::connect(&short).is_err());
        std::fs::remove_dir_all(dir).unwrap();
    }
}
