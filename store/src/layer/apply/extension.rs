//! What the headers before an entry say about it, and who is believed.

use tar::Header;

use super::error::{ApplyError, EntryName, Problem};
use super::header::{self, text};
use super::pax::{Pax, Time};

/// The extension headers met before an entry.
#[derive(Default)]
pub(super) struct Extensions {
    pub(super) pax: Option<Pax>,
    pub(super) long_name: Option<Vec<u8>>,
    pub(super) long_link: Option<Vec<u8>>,
}

impl Extensions {
    pub(super) fn is_empty(&self) -> bool {
        self.pax.is_none() && self.long_name.is_none() && self.long_link.is_none()
    }
}

/// An error whose entry is named later.
pub(super) fn unnamed(problem: Problem) -> ApplyError {
    ApplyError::Entry {
        entry: EntryName::new(*b""),
        problem,
    }
}

impl ApplyError {
    /// Names the entry, where the place of the error did not know it.
    pub(super) fn named(self, name: &[u8]) -> ApplyError {
        match self {
            ApplyError::Entry { entry, problem } if entry.as_bytes().is_empty() => ApplyError::Entry {
                entry: EntryName::new(name),
                problem,
            },
            other => other,
        }
    }
}

/// There is at most one of each before an entry.
pub(super) fn once<T>(slot: &mut Option<T>, value: T, what: &'static str) -> Result<(), ApplyError> {
    match slot.replace(value) {
        Some(_) => Err(unnamed(Problem::TwoHeaders(what))),
        None => Ok(()),
    }
}

/// GNU's and PAX' word for the same thing.
pub(super) fn agree(
    what: &'static str,
    gnu: Option<Vec<u8>>,
    pax: Option<Vec<u8>>,
) -> Result<Option<Vec<u8>>, Problem> {
    match (gnu, pax) {
        (Some(a), Some(b)) if a != b => Err(Problem::Conflict(what)),
        (a, b) => Ok(b.or(a)),
    }
}

/// Where a link leads.
pub(super) fn link_target(
    header: &Header,
    gnu: Option<Vec<u8>>,
    pax: Option<Vec<u8>>,
) -> Result<Vec<u8>, ApplyError> {
    let target = agree("link target", gnu, pax).map_err(unnamed)?;
    let target = target.unwrap_or_else(|| text(&header.as_old().linkname).to_vec());
    match target.is_empty() {
        true => Err(unnamed(Problem::NoLinkTarget)),
        false => Ok(target),
    }
}

/// What the header itself says.
pub(super) fn plain_size(header: &Header) -> Result<u64, Problem> {
    let size = header::number(&header.as_old().size).ok_or(Problem::NotANumber("size"))?;
    u64::try_from(size).map_err(|_| Problem::Range("size"))
}

/// The PAX size counts (POSIX). Where the header's own field could have held it and says something else, a reader
/// without PAX would see other entries, hidden in this one's data.
pub(super) fn size(header: &Header, pax: &Pax) -> Result<u64, Problem> {
    const FIELD: u64 = 0o77_777_777_777;
    let plain = plain_size(header)?;
    match pax.size {
        Some(size) if size <= FIELD && size != plain => Err(Problem::ConflictingSizes {
            header: plain,
            pax: size,
        }),
        Some(size) => Ok(size),
        None => Ok(plain),
    }
}

/// As the header gives times.
pub(super) fn whole_seconds(seconds: i128) -> Time {
    Time {
        seconds: i64::try_from(seconds).unwrap_or(i64::MIN),
        nanoseconds: 0,
    }
}
