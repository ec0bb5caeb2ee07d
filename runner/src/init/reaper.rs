//! Our own init: pid 1 of containers that ask for one. It passes signals on to the command, reaps
//! whatever ends, and ends as the command does.

use super::exec;
use super::{Command, Context, failed};
use crate::channel::Failure;
use crate::sys::{self, Ended};

/// Starts the command and stays; returns only when it could not be started.
pub(super) fn run(ctx: &mut Context, command: &Command) -> Failure {
    sys::block_signals();
    // This process stays: the container's processes must not look into it, whoever they are, and find nothing open if they do.
    if let Err(e) = sys::set_undumpable() {
        return failed("hide init from the container's processes")(e);
    }
    ctx.let_go();
    // In a pid namespace of others orphans would go to whoever is first there.
    if let Err(e) = sys::become_reaper() {
        return failed("reap orphans")(e);
    }
    match sys::fork() {
        Err(e) => failed("start the command below init")(e),
        Ok(None) => {
            // A session of its own, with the terminal when there is one; see `exec::terminal`.
            if ctx.terminal.is_none() {
                let _ = rustix::process::setsid();
            } else {
                let _ = rustix::process::setpgid(None, None);
                let _ = rustix::termios::tcsetpgrp(rustix::stdio::stdin(), rustix::process::getpid());
            }
            sys::reset_signals();
            exec::exec(command)
        }
        Ok(Some(pid)) => sys::exit_now(serve(ctx, pid)),
    }
}

/// Gives the exit code.
fn serve(ctx: &mut Context, command: i32) -> i32 {
    ctx.terminal = None;
    // The command's own copy tells the runner whether exec succeeded.
    ctx.report = None;
    // Whatever else there was; a system call filter of the caller's may forbid it, so the dangerous ones are gone already.
    let _ = sys::close_from(3);
    loop {
        if let Some(code) = reap(command) {
            return code;
        }
        match sys::wait_signal() {
            Ok(libc::SIGCHLD) => {}
            // Those of our own doing are not for the command.
            Ok(libc::SIGTTIN | libc::SIGTTOU | libc::SIGTSTP) => {}
            Ok(signal) => drop(sys::signal(command, signal)),
            Err(_) => return 125,
        }
    }
}

/// Reaps all that has ended; the command's exit code when it was among them.
fn reap(command: i32) -> Option<i32> {
    let mut code = None;
    while let Ok(Some(ended)) = sys::wait_for(-1, true) {
        if ended.pid == command {
            code = Some(exit_code(&ended));
        }
    }
    code
}

fn exit_code(ended: &Ended) -> i32 {
    if libc::WIFEXITED(ended.status) {
        libc::WEXITSTATUS(ended.status)
    } else {
        128 + libc::WTERMSIG(ended.status)
    }
}
