//! Typed messages between the runner and the processes it starts: a length, then JSON, over a
//! stream socket; descriptors travel with the length.
//!
//! Lifecycle: the runner sends the two parts of the description. The keeper answers [`FromKeeper`] on the same socket;
//! the container's first process uses a second one, [`FromInit`], which closes itself at exec.

use std::ffi::{CString, OsStr};
use std::fmt;
use std::io::{self, IoSlice, IoSliceMut, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::UnixStream;
use std::path::Path;

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags,
};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Most bytes of one message; an environment and argument list fit many times over.
const MAX_MESSAGE: usize = 64 << 20;
/// Most descriptors with one message.
const MAX_FDS: usize = 32;

/// Bytes that are mostly text: paths, arguments, file contents.
///
/// As JSON each byte is the character of the same number, so that any byte survives.
#[derive(Clone, PartialEq, Eq, Hash, Default)]
pub(crate) struct Raw(pub(crate) Vec<u8>);

impl Raw {
    pub(crate) fn as_path(&self) -> &Path {
        Path::new(OsStr::from_bytes(&self.0))
    }

    /// The bytes as a C string; one with a NUL inside is refused.
    pub(crate) fn to_c(&self) -> io::Result<CString> {
        CString::new(self.0.clone()).map_err(|_| io::ErrorKind::InvalidInput.into())
    }
}

impl<T: AsRef<OsStr> + ?Sized> From<&T> for Raw {
    fn from(text: &T) -> Raw {
        Raw(text.as_ref().as_bytes().to_vec())
    }
}

impl fmt::Debug for Raw {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", String::from_utf8_lossy(&self.0))
    }
}

impl fmt::Display for Raw {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&String::from_utf8_lossy(&self.0))
    }
}

impl Serialize for Raw {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let text: String = self.0.iter().map(|b| char::from(*b)).collect();
        serializer.serialize_str(&text)
    }
}

impl<'de> Deserialize<'de> for Raw {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Raw, D::Error> {
        let text = String::deserialize(deserializer)?;
        let bytes: Result<Vec<u8>, _> = text.chars().map(u8::try_from).collect();
        bytes.map(Raw).map_err(|_| serde::de::Error::custom("not a byte"))
    }
}

/// Why setting up failed, as the child tells it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Failure {
    pub(crate) kind: FailureKind,
    /// The step, command, user or path it is about.
    pub(crate) what: String,
    /// The kernel's error number, where there is one.
    pub(crate) errno: Option<i32>,
}

/// What sort of failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum FailureKind {
    Setup,
    Forbidden,
    BindSource,
    BindNotMappable,
    /// The part, a line end, and what it is a part of.
    MountPart,
    NotADevice,
    RootFsRefused,
    NoSuchUser,
    Hook,
    CommandNotFound,
    CommandNotExecutable,
}

/// What the keeper tells the runner.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum FromKeeper {
    /// The container's first process is there; its pidfd comes along.
    Spawned,
    /// Setting up failed before there was one.
    Failed(Failure),
    /// The container is gone, and with it every process of its pid namespace.
    Exited {
        timed_out: bool,
        status: i32,
        user_us: u64,
        system_us: u64,
        blocks_in: u64,
        blocks_out: u64,
        max_rss_kib: u64,
    },
}

/// What the container's first process tells the runner before it execs.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum FromInit {
    /// Setting up failed.
    Failed(Failure),
    /// The container's terminal; its master side comes along.
    Terminal,
    /// Of a bundle: its namespaces are there, and it waits for an answer before it enters its root.
    Prepared,
    /// Of a bundle: all is made, and it waits to be started.
    Ready,
}

/// Sends one message and the given descriptors.
pub fn send<T: Serialize>(to: &UnixStream, message: &T, fds: &[BorrowedFd<'_>]) -> io::Result<()> {
    let body = serde_json::to_vec(message).map_err(io::Error::other)?;
    let len = u32::try_from(body.len())
        .map_err(|_| io::ErrorKind::InvalidInput)?
        .to_le_bytes();
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !fds.is_empty() && !control.push(SendAncillaryMessage::ScmRights(fds)) {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let parts = [IoSlice::new(&len), IoSlice::new(&body)];
    let sent =
        rustix::io::retry_on_intr(|| rustix::net::sendmsg(to, &parts, &mut control, SendFlags::NOSIGNAL))?;
    let mut to = to;
    match sent.checked_sub(len.len()) {
        Some(of_body) => to.write_all(body.get(of_body..).unwrap_or_default()),
        None => Err(io::ErrorKind::WriteZero.into()),
    }
}

/// Receives one message and its descriptors. `Ok(None)` is the other side's orderly end.
pub fn recv<T: DeserializeOwned>(from: &UnixStream) -> io::Result<Option<(T, Vec<OwnedFd>)>> {
    let mut len = [0u8; 4];
    let (got, fds) = recv_with_fds(from, &mut len)?;
    if got == 0 {
        return Ok(None);
    }
    let mut from = from;
    from.read_exact(len.get_mut(got..).unwrap_or_default())?;
    let len = u32::from_le_bytes(len) as usize;
    if len > MAX_MESSAGE {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "message too long"));
    }
    let mut body = vec![0; len];
    from.read_exact(&mut body)?;
    let message = serde_json::from_slice(&body).map_err(io::Error::other)?;
    Ok(Some((message, fds)))
}

fn recv_with_fds(from: &UnixStream, into: &mut [u8]) -> io::Result<(usize, Vec<OwnedFd>)> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut parts = [IoSliceMut::new(into)];
    let got = rustix::io::retry_on_intr(|| {
        rustix::net::recvmsg(from, &mut parts, &mut control, RecvFlags::CMSG_CLOEXEC)
    });
    let got = match got {
        Err(rustix::io::Errno::CONNRESET) => 0,
        other => other?.bytes,
    };
    let mut fds = Vec::new();
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(received) = message {
            fds.extend(received);
        }
    }
    Ok((got, fds))
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use super::*;

    #[test]
    fn messages_and_descriptors_arrive() {
        let (a, b) = UnixStream::pair().unwrap();
        let file = std::fs::File::open("/dev/null").unwrap();
        let all: Vec<u8> = (0..=255).collect();
        send(&a, &vec![Raw(all.clone())], &[file.as_fd(), file.as_fd()]).unwrap();
        drop(a);
        let (message, fds): (Vec<Raw>, _) = recv(&b).unwrap().unwrap();
        assert_eq!(message, [Raw(all)]);
        assert_eq!(fds.len(), 2);
        assert!(recv::<Vec<Raw>>(&b).unwrap().is_none());
    }

    #[test]
    fn long_messages_arrive_whole() {
        let (a, b) = UnixStream::pair().unwrap();
        let big = Raw(vec![b'x'; 3 << 20]);
        let copy = big.clone();
        let sender = std::thread::spawn(move || send(&a, &copy, &[]).unwrap());
        assert_eq!(recv::<Raw>(&b).unwrap().unwrap().0, big);
        sender.join().unwrap();
    }

    #[test]
    fn nonsense_is_an_error() {
        let (mut a, b) = UnixStream::pair().unwrap();
        a.write_all(&[0xff; 8]).unwrap();
        assert!(recv::<Raw>(&b).is_err());
        let (mut a, b) = UnixStream::pair().unwrap();
        a.write_all(&[2, 0, 0, 0, b'{', b'x']).unwrap();
        assert!(recv::<Raw>(&b).is_err());
    }
}
