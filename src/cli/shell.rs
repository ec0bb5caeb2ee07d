//! Shells in a build: where one is opened.

use std::str::FromStr;

use box_builder::request::ShellAt;
use clap::Args;

// Options of `box build` that let somebody in.
#[derive(Debug, Args)]
pub(crate) struct ShellArgs {
    /// When a RUN fails, open its SHELL in its container, as the command left it: with its files, mounts, environment, user, directory,
    /// network and limits (but that of time; tmpfs mounts are empty again). Other steps are stopped. When the shell ends, the build fails.
    #[arg(long, conflicts_with_all = ["check", "call"])]
    pub(crate) shell_on_error: bool,
    /// Build up to a point, with the cache, and open a shell there; make no image, and throw away what is written (but into cache mounts). N is a step of the
    /// target as it is shown ([build 3/7]), and the shell is where that would begin: with its mounts, if it is a RUN, and the environment,
    /// user and directory that it would have. STAGE:N is one of another stage, STAGE the end of it. The exit code is the shell's.
    #[arg(long, value_name = "[STAGE:]N|STAGE", conflicts_with_all = [
        "tags", "outputs", "iidfile", "metadata_file", "report", "caches_to", "check_reproducible", "check", "call",
    ])]
    pub(crate) shell_at: Option<ShellPoint>,
}

/// `--shell-at`
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ShellPoint {
    /// The stage; none: the target.
    pub(crate) stage: Option<String>,
    /// Where in it.
    pub(crate) at: ShellAt,
}

impl FromStr for ShellPoint {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (stage, step) = match text.split_once(':') {
            Some((stage, step)) => (Some(stage), Some(step)),
            None if text.bytes().all(|byte| byte.is_ascii_digit()) => (None, Some(text)),
            None => (Some(text), None),
        };
        let number = step.map(str::parse).transpose();
        match (stage, number) {
            (Some(""), _) | (_, Err(_)) => Err(format!(
                "'{text}' is no place in a build; write a step's number, STAGE:NUMBER or a stage's name"
            )),
            (stage, Ok(number)) => Ok(Self {
                stage: stage.map(str::to_owned),
                at: number.map_or(ShellAt::End, ShellAt::Step),
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn points_are_read() {
        let point = |stage: Option<&str>, at| {
            Ok(ShellPoint {
                stage: stage.map(str::to_owned),
                at,
            })
        };
        let check = |text: &str, expected: Result<ShellPoint, ()>| {
            assert_eq!(text.parse::<ShellPoint>().map_err(drop), expected, "{text}");
        };
        check("3", point(None, ShellAt::Step(3)));
        check("build", point(Some("build"), ShellAt::End));
        check("build:3", point(Some("build"), ShellAt::Step(3)));
        check("0:3", point(Some("0"), ShellAt::Step(3)));
        check("stage-0", point(Some("stage-0"), ShellAt::End));
        for wrong in ["", ":", ":3", "build:", "build:x", "99999999999999999999"] {
            check(wrong, Err(()));
        }
    }
}
