//! Errors on the way to the entry that they belong to.

use rustix::io::Errno;

use super::error::{ApplyError, EntryName, Problem};

/// What was being done when the kernel refused.
pub(super) type Failed = (&'static str, Errno);

/// An error that does not know its entry's name yet.
pub(super) enum Trouble {
    Problem(Problem),
    Failed(Failed),
    Whole(ApplyError),
}

impl From<Problem> for Trouble {
    fn from(problem: Problem) -> Trouble {
        Trouble::Problem(problem)
    }
}

impl From<Failed> for Trouble {
    fn from(failed: Failed) -> Trouble {
        Trouble::Failed(failed)
    }
}

impl From<ApplyError> for Trouble {
    fn from(error: ApplyError) -> Trouble {
        Trouble::Whole(error)
    }
}

impl Trouble {
    /// With the name.
    pub(super) fn of(self, name: &[u8]) -> ApplyError {
        let entry = EntryName::new(name);
        match self {
            Trouble::Problem(problem) => ApplyError::Entry { entry, problem },
            Trouble::Failed((action, errno)) => ApplyError::Write {
                entry,
                action,
                source: errno.into(),
            },
            Trouble::Whole(error) => error,
        }
    }
}

/// The kernel refused an action.
pub(super) fn failed(action: &'static str) -> impl Fn(Errno) -> Trouble {
    move |errno| Trouble::Failed((action, errno))
}
