//! Terminals: the container's, seen from outside, and the caller's own in raw mode.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};

use rustix::termios::{
    OptionalActions, Termios, Winsize, isatty, tcgetattr, tcgetwinsize, tcsetattr, tcsetwinsize,
};

use crate::error::{Result, RunnerError};

/// The master side of a container's terminal.
#[derive(Debug)]
pub struct Terminal {
    master: OwnedFd,
}

impl Terminal {
    pub(crate) fn new(master: OwnedFd) -> Terminal {
        Terminal { master }
    }

    /// A handle to read from or write to. Reading gives EIO once the container has ended.
    pub fn file(&self) -> Result<File> {
        self.master
            .try_clone()
            .map(File::from)
            .map_err(|e| RunnerError::os("duplicate the terminal", e))
    }

    /// Takes over the window size of `from`, when that is a terminal; to be called at the start
    /// and at each SIGWINCH.
    pub fn copy_size(&self, from: impl AsFd) -> Result<()> {
        match tcgetwinsize(from) {
            Ok(size) => self.set(size),
            Err(_) => Ok(()),
        }
    }

    /// Sets the window size in characters.
    pub fn set_size(&self, rows: u16, columns: u16) -> Result<()> {
        self.set(Winsize {
            ws_row: rows,
            ws_col: columns,
            ws_xpixel: 0,
            ws_ypixel: 0,
        })
    }

    fn set(&self, size: Winsize) -> Result<()> {
        tcsetwinsize(&self.master, size).map_err(|e| RunnerError::os("set the window size", e))
    }
}

impl From<OwnedFd> for Terminal {
    /// From its master side.
    fn from(master: OwnedFd) -> Terminal {
        Terminal { master }
    }
}

/// Keeps the caller's terminal in raw mode while it lives; dropping it restores what was before.
#[derive(Debug)]
pub struct RawMode {
    terminal: OwnedFd,
    before: Termios,
}

impl RawMode {
    /// Puts `terminal` in raw mode; `None` when it is no terminal.
    pub fn enter(terminal: impl AsFd) -> Result<Option<RawMode>> {
        if !isatty(&terminal) {
            return Ok(None);
        }
        let failed = |e: io::Error| RunnerError::os("put the terminal in raw mode", e);
        let before = tcgetattr(&terminal).map_err(|e| failed(e.into()))?;
        let own = terminal.as_fd().try_clone_to_owned().map_err(failed)?;
        let mut raw = before.clone();
        raw.make_raw();
        tcsetattr(&own, OptionalActions::Drain, &raw).map_err(|e| failed(e.into()))?;
        Ok(Some(RawMode {
            terminal: own,
            before,
        }))
    }
}

impl Drop for RawMode {
    fn drop(&mut self) {
        // Nothing can be done about a terminal that is gone.
        let _ = tcsetattr(&self.terminal, OptionalActions::Drain, &self.before);
    }
}
