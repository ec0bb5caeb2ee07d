//! How a failure reaches the user: what failed, the causes below it, a hint with the cure, and the exit code.

use std::error::Error;
use std::fmt;

/// box's own failure (as `docker run` has it): bad options, a store that can't be opened, a sandbox that can't be made.
pub(crate) const EXIT_BOX: u8 = 125;
/// A container's command can't be executed, or is not there.
const EXIT_NOT_EXECUTABLE: u8 = 126;
const EXIT_NOT_FOUND: u8 = 127;
/// A build step failed, an image or an input is at fault.
pub(crate) const EXIT_INPUT: u8 = 1;

/// A failure on its way to the terminal.
#[derive(Debug)]
pub(crate) struct Failure {
    /// The process' exit code.
    pub(crate) code: u8,
    message: String,
    hint: Option<String>,
    prefix: &'static str,
    /// What a step that failed printed last, shown before the message.
    pub(crate) log: Vec<String>,
    /// The build whose log has all of it.
    pub(crate) build: Option<u64>,
    /// Whether the user has been told already.
    pub(crate) is_shown: bool,
}

impl Failure {
    /// A failure with this exit code and message.
    pub(crate) fn new(code: u8, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
            hint: None,
            prefix: "error: ",
            log: Vec::new(),
            build: None,
            is_shown: false,
        }
    }

    /// A failure of box itself.
    pub(crate) fn own(message: impl Into<String>) -> Self {
        Self::new(EXIT_BOX, message)
    }

    /// A failure that the given input is to blame for.
    pub(crate) fn input(message: impl Into<String>) -> Self {
        Self::new(EXIT_INPUT, message)
    }

    /// The error with all its causes, as one message.
    pub(crate) fn of(code: u8, error: &dyn Error) -> Self {
        if is_full(error) {
            // No input is at fault.
            return Self::new(EXIT_BOX, chain(error)).hint(
                "the disk of the store is full; free some space there, or choose another place with --root",
            );
        }
        Self::new(code, chain(error))
    }

    /// What failed, without the hint.
    pub(crate) fn message(&self) -> &str {
        &self.message
    }

    /// What the user can do about it.
    pub(crate) fn cure(&self) -> Option<&str> {
        self.hint.as_deref()
    }

    /// A message that is a rendered diagnostic: it says itself what it is.
    pub(crate) fn rendered(mut self) -> Self {
        self.prefix = "";
        self
    }

    /// Message and hints, without the log.
    pub(crate) fn described(&self) -> String {
        let mut text = format!("{}{}", self.prefix, self.message);
        if let Some(hint) = &self.hint {
            text.push_str(&format!("\nhint: {hint}"));
        }
        if let Some(build) = &self.build {
            text.push_str(&format!(
                "\nhint: box build logs {build} shows all that it printed"
            ));
        }
        text
    }

    /// Adds what the user can do about it.
    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

/// A failure to start a container, or to do something to it.
pub(crate) fn runner_failure(error: &box_runner::RunnerError) -> Failure {
    use box_runner::RunnerError;
    let code = match error {
        RunnerError::CommandNotFound { .. } => EXIT_NOT_FOUND,
        RunnerError::CommandNotExecutable { .. } => EXIT_NOT_EXECUTABLE,
        _ => EXIT_BOX,
    };
    Failure::of(code, error)
}

impl From<box_store::StoreError> for Failure {
    fn from(error: box_store::StoreError) -> Self {
        Self::of(EXIT_BOX, &error)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for line in &self.log {
            writeln!(f, "  | {line}")?;
        }
        f.write_str(&self.described())
    }
}

/// Whether a full disk, or a quota, is at the bottom of it.
fn is_full(error: &dyn Error) -> bool {
    let mut cause = error.source();
    while let Some(inner) = cause {
        let kind = inner.downcast_ref::<std::io::Error>().map(std::io::Error::kind);
        if matches!(
            kind,
            Some(std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded)
        ) {
            return true;
        }
        cause = inner.source();
    }
    false
}

/// An error and its causes in one line; a cause whose text the error above already holds is not said twice.
pub(crate) fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        let line = inner.to_string();
        if !text.contains(&line) {
            text.push_str(": ");
            text.push_str(&line);
        }
        cause = inner.source();
    }
    text
}
