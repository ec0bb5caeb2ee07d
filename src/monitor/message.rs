//! What is said between commands and whoever runs a container. A connection begins with one [`Request`] and its [`Reply`]; after an attach it goes
//! on with frames, after an exec with further requests and one last reply.

use std::ffi::OsString;
use std::io::{self, Read, Write};
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::containers::Limits;

/// The first words to a monitor, from whoever starts it.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Start {
    pub(super) root: PathBuf,
    pub(super) cgroup_parent: Option<PathBuf>,
    /// The ordinary user, and the ids of its namespace, which the monitor is in already: first and number.
    pub(super) rootless: Option<(u32, Vec<(u32, u32)>)>,
    pub(super) id: String,
    /// Who starts it, by its id in the store: the container may be taken by that one.
    pub(super) owner: String,
    /// The connection goes on as that of an attached client.
    pub(super) attach: bool,
}

/// What is wanted of a running container.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) enum Request {
    /// For its first process.
    Signal(i32),
    /// Ask it to end, and kill it after so many seconds; answered when it has ended.
    Stop {
        signal: Option<i32>,
        timeout: Option<u64>,
    },
    Pause,
    Resume,
    /// Another process; standard input, output and errors come along unless it has a terminal of its own.
    Exec(Exec),
    /// The output from now on, and the input.
    Attach,
    Stats,
    Top,
    /// Answered when it has ended.
    Wait,
    /// Other limits.
    Update(Limits),
    /// Its namespaces, for another container.
    Share,
    /// The user namespace that its monitor is in.
    Home,
}

/// Another process in a container.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Exec {
    pub(crate) args: Vec<OsString>,
    /// Over the container's own.
    pub(crate) env: Vec<(OsString, OsString)>,
    pub(crate) cwd: Option<PathBuf>,
    pub(crate) user: Option<String>,
    pub(crate) tty: bool,
    /// It has every right that there is in the container's user namespace.
    pub(crate) privileged: bool,
    /// It goes on when the connection ends, and its output goes nowhere.
    pub(crate) detach: bool,
    /// Instead of all that but the streams.
    pub(crate) copy: Option<box_runner::FileCopy>,
}

impl Exec {
    /// A process that copies between the standard streams.
    pub(crate) fn copying(copy: box_runner::FileCopy) -> Self {
        Self {
            args: Vec::new(),
            env: Vec::new(),
            cwd: None,
            user: None,
            tty: false,
            privileged: false,
            detach: false,
            copy: Some(copy),
        }
    }
}

/// An answer.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) enum Reply {
    Done,
    /// It could not be done; the exit code that tells it.
    Failed {
        message: String,
        /// The cure.
        hint: Option<String>,
        code: u8,
    },
    /// It runs. Of an exec with a terminal the terminal comes along.
    Started,
    Stats(Figures),
    Top(Vec<Process>),
    /// With the descriptors of its first process, its user namespace, and what keeps the ids of that from others.
    Shared(Box<Shared>),
    /// It has ended.
    Exited {
        code: i32,
        error: String,
    },
}

/// A run of ids: the first inside, the first outside, how many.
pub(crate) type Extent = (u32, u32, u32);

/// A container as one is told of it that joins its namespaces.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Shared {
    /// The user namespace that its monitor is in, by device and inode.
    pub(crate) home: (u64, u64),
    pub(crate) users: Vec<Extent>,
    pub(crate) groups: Option<Vec<Extent>>,
    pub(crate) keeps_owners: bool,
    /// Its user namespace is box's own.
    pub(crate) is_runners: bool,
    pub(crate) is_network_hosts: bool,
    pub(crate) is_pid_hosts: bool,
    pub(crate) is_uts_hosts: bool,
    /// None: its IPC is for nobody else.
    pub(crate) is_ipc_hosts: Option<bool>,
    pub(crate) hostname: String,
    /// `resolv.conf`, `hosts` and `hostname` as it was started with.
    pub(crate) files: [Vec<u8>; 3],
}

/// As [`box_runner::Stats`].
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Figures {
    pub(crate) memory: Option<u64>,
    pub(crate) memory_limit: Option<u64>,
    /// Nanoseconds.
    pub(crate) cpu: u64,
    pub(crate) pids: Option<u64>,
    pub(crate) io: Option<(u64, u64)>,
    pub(crate) net: Option<(u64, u64)>,
}

/// As [`box_runner::ProcessInfo`]; times are milliseconds.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Process {
    pub(crate) pid: i32,
    pub(crate) parent: i32,
    pub(crate) uid: u32,
    pub(crate) cpu: u64,
    pub(crate) started: u64,
    pub(crate) terminal: u64,
    pub(crate) command: String,
}

/// What goes over an attached connection, both ways.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Frame {
    Stdout(Vec<u8>),
    Stderr(Vec<u8>),
    /// The container has ended with this exit code.
    Exit(i32),
    Stdin(Vec<u8>),
    /// No more input comes.
    StdinEnd,
    /// The size of the client's terminal: rows and columns.
    Size(u16, u16),
    /// The client goes on purpose: its standard input has not ended.
    Detach,
}

/// The longest frame.
const LONGEST: usize = 1 << 20;

impl Frame {
    /// Bytes that it carries.
    pub(super) fn len(&self) -> usize {
        match self {
            Self::Stdout(bytes) | Self::Stderr(bytes) | Self::Stdin(bytes) => bytes.len(),
            _ => 0,
        }
    }

    /// Writes it whole.
    pub(crate) fn write(&self, mut to: impl Write) -> io::Result<()> {
        let number;
        let (kind, bytes): (u8, &[u8]) = match self {
            Self::Stdout(bytes) => (1, bytes),
            Self::Stderr(bytes) => (2, bytes),
            Self::Exit(code) => {
                number = code.to_le_bytes();
                (3, &number)
            }
            Self::Stdin(bytes) => (4, bytes),
            Self::StdinEnd => (5, &[]),
            Self::Size(rows, columns) => {
                let (r, c) = (rows.to_le_bytes(), columns.to_le_bytes());
                number = [r[0], r[1], c[0], c[1]];
                (6, &number)
            }
            Self::Detach => (7, &[]),
        };
        let mut whole = Vec::with_capacity(5 + bytes.len());
        whole.push(kind);
        whole.extend_from_slice(&u32::try_from(bytes.len()).unwrap_or(u32::MAX).to_le_bytes());
        whole.extend_from_slice(bytes);
        to.write_all(&whole)
    }

    /// The next one; none at the end of the connection.
    pub(crate) fn read(mut from: impl Read) -> io::Result<Option<Self>> {
        let mut head = [0; 5];
        match from.read_exact(&mut head) {
            Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
            other => other?,
        }
        let [kind, len @ ..] = head;
        let len = u32::from_le_bytes(len) as usize;
        let garbled = || io::Error::new(io::ErrorKind::InvalidData, "garbled frame");
        if len > LONGEST {
            return Err(garbled());
        }
        let mut bytes = vec![0; len];
        from.read_exact(&mut bytes)?;
        let four = || <[u8; 4]>::try_from(bytes.as_slice()).map_err(|_| garbled());
        Ok(Some(match kind {
            1 => Self::Stdout(bytes),
            2 => Self::Stderr(bytes),
            3 => Self::Exit(i32::from_le_bytes(four()?)),
            4 => Self::Stdin(bytes),
            5 => Self::StdinEnd,
            6 => {
                let [a, b, c, d] = four()?;
                Self::Size(u16::from_le_bytes([a, b]), u16::from_le_bytes([c, d]))
            }
            7 => Self::Detach,
            _ => return Err(garbled()),
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_arrive_as_they_were() {
        let all = [
            Frame::Stdout(b"out\0\xff".to_vec()),
            Frame::Stderr(vec![]),
            Frame::Exit(-1),
            Frame::Stdin(b"in".to_vec()),
            Frame::StdinEnd,
            Frame::Size(24, 80),
            Frame::Detach,
        ];
        let mut bytes = Vec::new();
        all.iter().for_each(|frame| frame.write(&mut bytes).unwrap());
        let mut from = bytes.as_slice();
        for frame in all {
            assert_eq!(Frame::read(&mut from).unwrap(), Some(frame));
        }
        assert_eq!(Frame::read(&mut from).unwrap(), None);
        for wrong in [
            &[9u8, 0, 0, 0, 0][..],
            &[1, 255, 255, 255, 255],
            &[3, 1, 0, 0, 0, 7],
        ] {
            assert!(Frame::read(wrong).is_err());
        }
    }
}
