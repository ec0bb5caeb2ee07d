//! Letting a person into a step's container: the step's shell, on their terminal.

use crate::error::StepError;
use crate::exec::{ExecStatus, Limits, Visit};
use crate::plan::RunStep;

use super::bind::Source;
use super::run::Room;
use super::{At, Tools, mounts};

/// The variable that holds what the step's shell is told to do.
const VARIABLE: &str = "BOX_STEP";
/// What the terminal is, where the step does not say: what every terminal can do.
const TERM: &str = "xterm";
/// A longer command may be none that a variable can hold, in bytes.
const LONGEST: usize = 100_000;

/// The container that a step would have on these layers.
///
/// # Errors
/// As for running it.
pub(crate) fn room(
    tools: &Tools<'_>,
    at: At<'_>,
    step: &RunStep,
    sources: &[Option<Source<'_>>],
) -> Result<Room, StepError> {
    let ready = mounts::prepare(tools, at, step, sources)?;
    Room::new(tools, at, step, ready)
}

impl Room {
    /// Makes it ready for a shell after its command has ended.
    ///
    /// # Errors
    /// What the store says.
    pub(crate) fn again(mut self) -> Result<Room, StepError> {
        self.active.mount_again()?;
        self.ready.mount_again()?;
        Ok(self)
    }

    /// Runs the step's shell in it until that ends; what it wrote is thrown away. Nobody is hurried by a time limit. `opened` is called
    /// when it runs, before the terminal is the shell's.
    ///
    /// # Errors
    /// It could not be run.
    pub(crate) fn visit(
        self,
        tools: &Tools<'_>,
        step: &RunStep,
        opened: &dyn Fn(),
    ) -> Result<ExecStatus, StepError> {
        let mut request = self.request(tools, step);
        request.args = program(&step.shell).iter().map(Into::into).collect();
        request.limits = Limits {
            time: None,
            ..request.limits
        };
        if request.env.iter().all(|(name, _)| name != "TERM") {
            request.env.push(("TERM".into(), TERM.into()));
        }
        if let Some(text) = shell_text(step) {
            request.env.retain(|(name, _)| name != VARIABLE);
            request.env.push((VARIABLE.into(), text.into()));
        }
        let visit = Visit {
            opened,
            cancel: &tools.request.cancel,
        };
        Ok(tools.executor.visit(&request, visit)?)
    }
}

/// How the step's command is run in its shell, on one line where it can be; none if there is none.
pub(crate) fn command(step: &RunStep) -> Option<String> {
    let words = match shell_text(step) {
        Some(_) => step.shell.as_slice(),
        None => step.args.as_slice(),
    };
    let mut words: Vec<String> = words.iter().map(|word| quoted(word)).collect();
    if shell_text(step).is_some() {
        words.push(format!("\"${VARIABLE}\""));
    }
    (!words.is_empty()).then(|| words.join(" "))
}

/// SHELL without its options: with them it would expect a command, or end at the first that fails.
fn program(shell: &[String]) -> &[String] {
    let count = shell.iter().take_while(|word| !word.starts_with('-')).count();
    &shell[..count.max(1).min(shell.len())]
}

/// What a step in shell form has its shell do.
fn shell_text(step: &RunStep) -> Option<&str> {
    match step.args.strip_prefix(step.shell.as_slice()) {
        Some([text]) if !step.shell.is_empty() && text.len() <= LONGEST => Some(text),
        _ => None,
    }
}

/// A word as a shell reads it.
fn quoted(word: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "_-./:=+,@%^".contains(c);
    match !word.is_empty() && word.chars().all(is_plain) {
        true => word.to_owned(),
        false => format!("'{}'", word.replace('\'', "'\\''")),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use crate::exec::NetworkMode;
    use crate::plan::Reuse;

    use super::*;

    fn step(shell: &[&str], args: &[&str]) -> RunStep {
        let owned = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect();
        RunStep {
            args: owned(args),
            shell: owned(shell),
            env: BTreeMap::new(),
            declared: BTreeSet::new(),
            user: String::new(),
            workdir: "/".to_owned(),
            mounts: Vec::new(),
            network: NetworkMode::None,
            limits: Limits::default(),
            reuse: Reuse::Always,
        }
    }

    #[test]
    fn commands_to_try_again() {
        let check = |shell: &[&str], args: &[&str], expected: Option<&str>| {
            assert_eq!(command(&step(shell, args)).as_deref(), expected);
        };
        let sh = ["/bin/sh", "-c"];
        check(
            &sh,
            &["/bin/sh", "-c", "make\nmake install"],
            Some("/bin/sh -c \"$BOX_STEP\""),
        );
        check(&sh, &["/bin/sh", "-c", "a", "b"], Some("/bin/sh -c a b"));
        check(
            &sh,
            &["/usr/bin/it's", "", "$x"],
            Some("'/usr/bin/it'\\''s' '' '$x'"),
        );
        check(
            &["bash", "-o", "pipefail", "-c"],
            &["bash", "-o", "pipefail", "-c", "a | b"],
            Some("bash -o pipefail -c \"$BOX_STEP\""),
        );
        check(&sh, &[], None);
        let long = "x".repeat(LONGEST + 1);
        check(
            &sh,
            &["/bin/sh", "-c", &long],
            Some(&format!("/bin/sh -c {long}")),
        );
    }

    #[test]
    fn a_shell_is_opened_without_its_options() {
        let check = |shell: &[&str], expected: &[&str]| {
            assert_eq!(program(&step(shell, &[]).shell), expected);
        };
        check(&["/bin/sh", "-c"], &["/bin/sh"]);
        check(&["/bin/bash", "-euo", "pipefail", "-c"], &["/bin/bash"]);
        check(&["/usr/bin/env", "zsh", "-c"], &["/usr/bin/env", "zsh"]);
        check(&["-c"], &["-c"]);
        check(&[], &[]);
    }
}
