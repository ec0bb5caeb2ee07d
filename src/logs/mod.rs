//! What containers print, kept as lines in files: `TIME stdout|stderr F|P CONTENT`, as Kubernetes' runtimes keep it. `P` is a part of a line whose
//! rest comes with the next entry of that stream, so that every byte can be given back as it came.

mod read;
mod write;

pub(crate) use read::{Entry, LogReader};
pub(crate) use write::LogWriter;

/// Where a container's log is, in its directory; older files have `.1`, `.2` and so on behind it.
pub(crate) const FILE: &str = "log";

/// One of the two streams.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum LogStream {
    Stdout,
    Stderr,
}

impl LogStream {
    fn word(self) -> &'static str {
        match self {
            Self::Stdout => "stdout",
            Self::Stderr => "stderr",
        }
    }
}
