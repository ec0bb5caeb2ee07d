//! `box build --shell-on-error` and `--shell-at`: who is let in, and how that ends.

use box_builder::exec::ExecStatus;
use box_builder::request::BuildRequest;

use crate::build_log::{How, Keeper};
use crate::cli::{BuildArgs, ProgressMode, ShellArgs};
use crate::error::Failure;
use crate::terminal::Screen;
use crate::ui;

/// The option that is there.
fn option(args: &ShellArgs) -> Option<&'static str> {
    match (&args.shell_at, args.shell_on_error) {
        (Some(_), _) => Some("--shell-at"),
        (None, true) => Some("--shell-on-error"),
        (None, false) => None,
    }
}

/// For a command that builds nothing.
///
/// # Errors
/// A shell is asked for.
pub(super) fn refuse(args: &ShellArgs) -> Result<(), Failure> {
    option(args).map_or(Ok(()), |option| {
        Err(Failure::own(format!(
            "{option} opens a shell in a build, and box plan builds nothing"
        ))
        .hint(format!("leave {option} out, or ask box build")))
    })
}

/// The user's terminal, if one is needed.
///
/// # Errors
/// There is none.
pub(super) fn seat(args: &ShellArgs) -> Result<Option<Screen>, Failure> {
    let Some(option) = option(args) else {
        return Ok(None);
    };
    let screen = Screen::find();
    screen.map(Some).ok_or_else(|| {
        Failure::own(format!(
            "{option} opens a shell, and standard input, or both outputs, are no terminal"
        ))
        .hint(format!(
            "leave {option} out here, or run box in a terminal (`ssh -t`, `docker exec -it`)"
        ))
    })
}

/// Asks the build for it.
///
/// # Errors
/// Two targets.
pub(super) fn ask(args: &BuildArgs, request: &mut BuildRequest) -> Result<(), Failure> {
    request.shell_on_error = args.shell.shell_on_error;
    let Some(point) = &args.shell.shell_at else {
        return Ok(());
    };
    request.shell_at = Some(point.at);
    if let Some(stage) = &point.stage {
        if let Some(target) = &args.target {
            return Err(Failure::own(format!(
                "--shell-at names the stage {stage}, and --target {target}: the build goes to one of them"
            ))
            .hint("leave --target out, or the stage"));
        }
        request.target = Some(stage.clone());
    }
    Ok(())
}

/// The end of a build that was for a shell: its exit code is the shell's.
pub(super) fn over(
    visited: Result<ExecStatus, Failure>,
    log: Keeper<'_>,
    mode: ProgressMode,
) -> Result<u8, Failure> {
    let status = visited.map_err(|failure| ui::build_failed(mode, failure))?;
    log.over(How::Done, None, None);
    let code = match status {
        ExecStatus::Exited(code) => code,
        ExecStatus::Signaled(signal) => 128 + signal,
    };
    Ok(u8::try_from(code).unwrap_or(u8::MAX))
}
