//! Handing a container's terminal to whoever asked for it.

use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::path::Path;

use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};

use crate::Terminal;
use crate::error::{Result, RunnerError};

/// What the message says besides: the terminal's name, as other runtimes have it.
const NAME: &[u8] = b"/dev/ptmx";

/// Sends the master side to a socket that listens under this path.
pub fn send_terminal(terminal: &Terminal, socket: &Path) -> Result<()> {
    let file = terminal.file()?;
    let send = || -> io::Result<()> {
        let to = UnixStream::connect(socket)?;
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        let fds = [file.as_fd()];
        if !control.push(SendAncillaryMessage::ScmRights(&fds)) {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let sent = rustix::io::retry_on_intr(|| {
            sendmsg(&to, &[IoSlice::new(NAME)], &mut control, SendFlags::NOSIGNAL)
        });
        Ok(sent.map(drop)?)
    };
    send().map_err(|e| RunnerError::os(format!("send the terminal to {}", socket.display()), e))
}
