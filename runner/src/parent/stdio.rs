//! The standard streams of a container.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};

use rustix::fs::{FileType, Mode, OFlags, fstat};
use rustix::pipe::{PipeFlags, pipe_with};

/// Where one standard stream goes.
#[derive(Debug)]
pub enum Stream {
    /// Nowhere: /dev/null.
    Null,
    /// Where the caller's own goes. A terminal or file of the caller keeps its owner, so the
    /// container can use it but not open it anew as /dev/stdout.
    Inherit,
    /// To this descriptor.
    Fd(OwnedFd),
    /// To a pipe whose other end [`Running`](crate::Running) has.
    Piped,
}

/// The three standard streams. With a terminal they are the terminal and this is not used.
#[derive(Debug)]
pub struct Stdio {
    /// What the command reads.
    pub stdin: Stream,
    /// Its output.
    pub stdout: Stream,
    /// Its errors.
    pub stderr: Stream,
}

impl Stdio {
    /// The caller's own streams.
    pub fn inherit() -> Stdio {
        Stdio {
            stdin: Stream::Inherit,
            stdout: Stream::Inherit,
            stderr: Stream::Inherit,
        }
    }

    /// Nothing to read, output and errors by pipes; what a build step has.
    pub fn captured() -> Stdio {
        Stdio {
            stdin: Stream::Null,
            stdout: Stream::Piped,
            stderr: Stream::Piped,
        }
    }

    /// All three nowhere.
    pub fn null() -> Stdio {
        Stdio {
            stdin: Stream::Null,
            stdout: Stream::Null,
            stderr: Stream::Null,
        }
    }
}

/// What three streams are, where a process that was started ahead can have the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Kinds([Kind; 3]);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Null,
    Inherit,
    Piped,
}

impl Kinds {
    /// None when one of them is a certain descriptor.
    pub(super) fn of(stdio: &Stdio) -> Option<Kinds> {
        let kind = |stream: &Stream| match stream {
            Stream::Null => Some(Kind::Null),
            Stream::Inherit => Some(Kind::Inherit),
            Stream::Piped => Some(Kind::Piped),
            Stream::Fd(_) => None,
        };
        let streams = [&stdio.stdin, &stdio.stdout, &stdio.stderr];
        let [stdin, stdout, stderr] = streams.map(kind);
        Some(Kinds([stdin?, stdout?, stderr?]))
    }
}

/// A stream made ready: the container's end and ours.
pub(super) struct Ends {
    /// `None` is the caller's own descriptor of this number.
    theirs: Option<OwnedFd>,
    number: RawFd,
    pub(super) ours: Option<OwnedFd>,
}

impl Ends {
    pub(super) fn open(stream: Stream, number: RawFd) -> io::Result<Ends> {
        let (theirs, ours) = match stream {
            Stream::Null => {
                let null = rustix::fs::open("/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())?;
                (Some(null), None)
            }
            Stream::Inherit => (None, None),
            Stream::Fd(fd) => (Some(fd), None),
            Stream::Piped => {
                let (read, write) = pipe_with(PipeFlags::CLOEXEC)?;
                if number == 0 {
                    (Some(read), Some(write))
                } else {
                    (Some(write), Some(read))
                }
            }
        };
        let ends = Ends { theirs, number, ours };
        ends.check()?;
        Ok(ends)
    }

    /// A directory of the caller's would be a way out of the container's root.
    fn check(&self) -> io::Result<()> {
        let stat = match (&self.theirs, self.number) {
            (Some(fd), _) => fstat(fd),
            (None, 0) => fstat(rustix::stdio::stdin()),
            (None, 1) => fstat(rustix::stdio::stdout()),
            (None, _) => fstat(rustix::stdio::stderr()),
        };
        match stat {
            Ok(stat) if FileType::from_raw_mode(stat.st_mode) == FileType::Directory => Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "a standard stream is a directory, which would lead out of the container",
            )),
            // One that is closed is found out when it is handed over.
            _ => Ok(()),
        }
    }

    pub(super) fn raw(&self) -> RawFd {
        self.theirs.as_ref().map_or(self.number, AsRawFd::as_raw_fd)
    }
}
