//! Why a build failed.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use box_store::digest::Digest;
use box_store::error::StoreError;
use box_store::layer::apply::ApplyError;
use box_store::transfer::archive::ArchiveError;
use box_store::transfer::http::FetchError;

use crate::diagnostic::Diagnostic;
use crate::exec::ExecError;
use crate::files::FilesError;
use crate::git::GitError;
use crate::plan::Place;
use crate::source::Sources;

/// Why a build failed. Nothing of the failed step is left; what was done before it stays in the cache.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BuildError {
    /// The Boxfile is wrong, or asks for what this version can't do.
    #[error("{}", render(diagnostics, sources))]
    Boxfile {
        /// What is wrong, in the order of the text. At least one.
        diagnostics: Vec<Diagnostic>,
        /// What they point into.
        sources: Sources,
    },
    /// A step failed.
    #[error("{place}: {source}")]
    Step {
        /// Which one.
        place: Box<Place>,
        /// Why.
        source: Box<StepError>,
    },
    /// Nobody could be let in where that was asked for.
    #[error("{place}: no shell was opened: {reason}")]
    NoShell {
        /// The step that it was to be at.
        place: Box<Place>,
        /// Why not, in words.
        reason: String,
        /// What happened.
        source: Box<StepError>,
    },
    /// The build was cancelled.
    #[error("the build was cancelled")]
    Cancelled,
    /// A Boxfile without any stage.
    #[error("nothing is to be built")]
    Empty,
    /// A stage that is to be built anew, and is none.
    #[error("--no-cache-filter {name}: there is no such stage; the stages are {stages}")]
    NoSuchStage {
        /// As asked for.
        name: String,
        /// What there is.
        stages: String,
    },
    /// What was to be locked can't be had.
    #[error("{place}: {source}")]
    Lock {
        /// Where it is named.
        place: Box<Place>,
        /// Why not.
        source: Box<StepError>,
    },
    /// A forecast of what only a build loads.
    #[error("{what} is loaded by a build alone")]
    OnlyBuilt {
        /// What.
        what: String,
    },
    /// A named context that is no OCI layout with such an image.
    #[error("cannot load an image of {}: {source}", directory.display())]
    Layout {
        /// The layout.
        directory: PathBuf,
        /// Why not.
        source: Box<ArchiveError>,
    },
    /// The context can't be read.
    #[error(transparent)]
    Files(#[from] FilesError),
    /// The store can't be read or written.
    #[error(transparent)]
    Store(#[from] StoreError),
}

fn render(diagnostics: &[Diagnostic], sources: &Sources) -> String {
    let rendered: Vec<String> = diagnostics
        .iter()
        .map(|diagnostic| diagnostic.render(sources))
        .collect();
    rendered.join("\n").trim_end().to_owned()
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.file, self.span.line, self.text)
    }
}

/// Why a step failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StepError {
    /// Its command exited with another code than 0.
    #[error("exit code {code}")]
    Exited {
        /// The code.
        code: i32,
    },
    /// A signal ended its command.
    #[error("killed by {}", signal_name(*signal))]
    Signaled {
        /// The signal's number.
        signal: i32,
    },
    /// The kernel killed it for memory.
    #[error("out of memory: the limit is {}, the peak was {}", size(*limit), size(*peak))]
    OutOfMemory {
        /// Its memory limit in bytes; none if the machine itself ran out.
        limit: Option<u64>,
        /// The most it had, in bytes, where that is known.
        peak: Option<u64>,
    },
    /// Its time was over.
    #[error("stopped after its time limit of {}", duration(*limit))]
    TimedOut {
        /// The limit.
        limit: Option<Duration>,
    },
    /// The build was cancelled.
    #[error("cancelled")]
    Cancelled,
    /// Its command could not be run.
    #[error(transparent)]
    Exec(#[from] ExecError),
    /// What it reads can't be read.
    #[error(transparent)]
    Files(#[from] FilesError),
    /// Where it writes can't be written so.
    #[error(transparent)]
    Place(#[from] PlaceError),
    /// A cache that lies on something, twice in a step.
    #[error("the cache {id} with from= is mounted twice in one step: mount it once")]
    CacheTwice {
        /// The cache.
        id: String,
    },
    /// A git repository can't be had.
    #[error(transparent)]
    Git(#[from] GitError),
    /// Something that would have to be fetched, and must not be.
    #[error("{what} is not here, and --offline forbids to fetch it")]
    Offline {
        /// What, in words.
        what: String,
    },
    /// The layers of an image could not be had.
    #[error("cannot pull {name}: {reason}")]
    Pull {
        /// The image, as the Boxfile names it.
        name: String,
        /// Why not.
        reason: String,
    },
    /// A base could not be fetched.
    #[error(transparent)]
    Fetch(#[from] FetchError),
    /// A base is not what its checksum says.
    #[error("the checksum of {what} does not match: expected {expected}, found {found}")]
    Checksum {
        /// The archive.
        what: String,
        /// As FROM says.
        expected: Digest,
        /// As it is.
        found: Digest,
    },
    /// A base that is no file.
    #[error("{what} is not a regular file")]
    NotAFile {
        /// The archive.
        what: String,
    },
    /// A base can't be unpacked.
    #[error("cannot unpack {what}: {source}")]
    Archive {
        /// The archive.
        what: String,
        /// Why not.
        source: ApplyError,
    },
    /// A layer can't be written once more with newer times.
    #[error("cannot give a layer the times that its place needs: {source}")]
    Order {
        /// Why not.
        source: ApplyError,
    },
    /// A secret that the step requires was not given.
    #[error(
        "the secret {id} is required and was not given; add --secret id={id},src=FILE or --secret id={id},env=VARIABLE"
    )]
    NoSecret {
        /// Its name.
        id: String,
    },
    /// A secret that no variable can hold.
    #[error("the secret {id} holds a NUL byte, so it can't be in the variable {name}; mount it as a file")]
    SecretWithNul {
        /// Its name.
        id: String,
        /// The variable.
        name: String,
    },
    /// An SSH agent that the step requires was not given.
    #[error("the SSH agent {id} is required and was not given; add --ssh {id}")]
    NoAgent {
        /// Its name.
        id: String,
    },
    /// A stage that is needed was not built before.
    #[error("stage {stage} was not built before")]
    StageNotBuilt {
        /// Its place in the Boxfile.
        stage: usize,
    },
    /// A forecast that needs what only a build fetches or unpacks.
    #[error("{what} is not known before a build")]
    OnlyBuilt {
        /// What.
        what: String,
    },
    /// The store can't be read or written.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Why something can't be put where it is wanted.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PlaceError {
    /// A directory is wanted where something else is.
    #[error("{} is not a directory in the image, so nothing can be put into it", path.display())]
    NotADirectory {
        /// The path in the rootfs.
        path: PathBuf,
    },
    /// A file is wanted where a directory is.
    #[error("{} is a directory in the image and can't be replaced by a file", path.display())]
    IsADirectory {
        /// The path in the rootfs.
        path: PathBuf,
    },
    /// A user that the rootfs does not know.
    #[error("user {name} is not in the image's /etc/passwd; add it, or give a number")]
    UnknownUser {
        /// As asked for.
        name: String,
    },
    /// A group that the rootfs does not know.
    #[error("group {name} is not in the image's /etc/group; add it, or give a number")]
    UnknownGroup {
        /// As asked for.
        name: String,
    },
    /// passwd or group is too large to be one.
    #[error("{} of the image is larger than {limit} bytes", path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// The limit.
        limit: u64,
    },
    /// A passwd or group that can't be read.
    #[error("cannot read {} of the image: {source}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// The system's answer.
        source: std::io::Error,
    },
}

/// Bytes as people write them.
fn size(bytes: Option<u64>) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let Some(bytes) = bytes else {
        return "unknown".to_owned();
    };
    let unit = (bytes.checked_ilog2().unwrap_or(0) / 10).min(4);
    let whole = bytes >> (10 * unit);
    let tenths = ((bytes >> (10 * unit).saturating_sub(10)) & 1023) * 10 / 1024;
    match (unit, tenths) {
        (0, _) | (_, 0) => format!("{whole} {}", UNITS[unit as usize]),
        _ => format!("{whole}.{tenths} {}", UNITS[unit as usize]),
    }
}

fn duration(time: Option<Duration>) -> String {
    time.map_or_else(|| "unknown length".to_owned(), |time| format!("{time:?}"))
}

fn signal_name(signal: i32) -> String {
    const NAMES: [&str; 15] = [
        "SIGHUP", "SIGINT", "SIGQUIT", "SIGILL", "SIGTRAP", "SIGABRT", "SIGBUS", "SIGFPE", "SIGKILL",
        "SIGUSR1", "SIGSEGV", "SIGUSR2", "SIGPIPE", "SIGALRM", "SIGTERM",
    ];
    let name = usize::try_from(signal - 1)
        .ok()
        .and_then(|index| NAMES.get(index));
    name.map_or_else(
        || format!("signal {signal}"),
        |name| format!("signal {signal} ({name})"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_readable() {
        let cases = [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1 KiB"),
            (1536, "1.5 KiB"),
            (64 << 20, "64 MiB"),
            ((64 << 20) + (300 << 10), "64.2 MiB"),
            (u64::MAX, "16777215.9 TiB"),
        ];
        for (bytes, expected) in cases {
            assert_eq!(size(Some(bytes)), expected);
        }
    }

    #[test]
    fn failures_name_what_happened() {
        let oom = StepError::OutOfMemory {
            limit: Some(64 << 20),
            peak: Some(64 << 20),
        };
        assert_eq!(
            oom.to_string(),
            "out of memory: the limit is 64 MiB, the peak was 64 MiB"
        );
        assert_eq!(
            StepError::Signaled { signal: 9 }.to_string(),
            "killed by signal 9 (SIGKILL)"
        );
        let late = StepError::TimedOut {
            limit: Some(Duration::from_secs(2)),
        };
        assert_eq!(late.to_string(), "stopped after its time limit of 2s");
    }
}
