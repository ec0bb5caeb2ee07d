//! Points in time as the file system keeps them.

use std::fmt;

use rustix::fs::Timespec;
use rustix::time::ClockId;
use serde::{Deserialize, Serialize};

/// Seconds and nanoseconds since 1970, UTC; `nsec` is below 10⁹ and counts forward also before 1970.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(from = "(i64, u32)", into = "(i64, u32)")]
pub struct Stamp {
    /// Whole seconds.
    pub sec: i64,
    /// Nanoseconds within the second.
    pub nsec: u32,
}

impl Stamp {
    /// A time from its parts.
    pub const fn new(sec: i64, nsec: u32) -> Stamp {
        Stamp { sec, nsec }
    }

    /// The real time now.
    pub fn now() -> Stamp {
        rustix::time::clock_gettime(ClockId::Realtime).into()
    }

    /// The time that a file written now gets: the clock of the kernel's last tick, up to 10 ms behind [`Stamp::now`].
    pub fn file_clock() -> Stamp {
        rustix::time::clock_gettime(ClockId::RealtimeCoarse).into()
    }

    /// This time, so many seconds later.
    pub fn plus(self, seconds: i64) -> Stamp {
        Stamp::new(self.sec.saturating_add(seconds), self.nsec)
    }

    /// This time, so many nanoseconds later (less than a second).
    pub(crate) fn after(self, nanoseconds: u32) -> Stamp {
        match self.nsec.saturating_add(nanoseconds) {
            nsec @ 0..1_000_000_000 => Stamp::new(self.sec, nsec),
            more => Stamp::new(
                self.sec.saturating_add(1),
                (more - 1_000_000_000).min(999_999_999),
            ),
        }
    }

    /// As the system calls take it.
    pub(crate) fn timespec(self) -> Timespec {
        Timespec {
            tv_sec: self.sec,
            tv_nsec: self.nsec.into(),
        }
    }
}

impl From<Timespec> for Stamp {
    fn from(time: Timespec) -> Stamp {
        Stamp::new(time.tv_sec, u32::try_from(time.tv_nsec).unwrap_or(0))
    }
}

impl From<(i64, u32)> for Stamp {
    fn from((sec, nsec): (i64, u32)) -> Stamp {
        Stamp::new(sec, nsec.min(999_999_999))
    }
}

impl From<Stamp> for (i64, u32) {
    fn from(stamp: Stamp) -> (i64, u32) {
        (stamp.sec, stamp.nsec)
    }
}

impl fmt::Display for Stamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:09}", self.sec, self.nsec)
    }
}
