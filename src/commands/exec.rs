//! `box exec`: another command in a container that runs.

use std::io;
use std::os::fd::AsFd;

use box_runner::Terminal;

use crate::app::App;
use crate::cli::ExecArgs;
use crate::containers;
use crate::error::{EXIT_BOX, EXIT_INPUT, Failure, runner_failure};
use crate::monitor::{self, Connection, Exec, Reply, Request, exit_code};
use crate::streams::Passing;
use crate::terminal::Session;
use crate::values::BuildArg;
use crate::{attached, signals};

const SIGHUP: i32 = 1;

/// Runs it; its exit code is box's.
pub(super) fn run(app: &App, args: &ExecArgs) -> Result<u8, Failure> {
    attached::check_terminal(args.tty, args.interactive)?;
    let container = containers::find(app, &args.container)?;
    let not_running = || {
        Failure::new(
            EXIT_INPUT,
            format!("container {} does not run", container.config.name),
        )
        .hint("`box start` starts it, `box ps -a` lists all")
    };
    signals::hold().map_err(|e| Failure::of(EXIT_BOX, &e))?;
    let connection = monitor::connect(app, &container)?.ok_or_else(not_running)?;
    let exec = Request::Exec(exec(args)?);
    let null =
        std::fs::File::open("/dev/null").map_err(|e| Failure::own(format!("cannot open /dev/null: {e}")))?;
    let (given, mut passing) = match args.tty || args.detach {
        true => (Vec::new(), Passing::default()),
        false => Passing::new(args.interactive, null)
            .map_err(|e| Failure::own(format!("cannot make pipes: {e}")))?,
    };
    let fds: Vec<_> = given.iter().map(AsFd::as_fd).collect();
    let (_, fds) = connection.ask(&exec, &fds)?.ok_or_else(not_running)?;
    drop(given);
    passing.begin();
    if args.detach {
        return Ok(0);
    }
    let terminal = fds.into_iter().next().map(Terminal::from);
    let code = until_end(&connection, terminal, args.interactive)?;
    passing.finish();
    Ok(exit_code(code))
}

fn exec(args: &ExecArgs) -> Result<Exec, Failure> {
    let mut env = Vec::new();
    for file in &args.env_files {
        env.extend(containers::env_file(file)?);
    }
    env.extend(args.env.iter().filter_map(BuildArg::resolved));
    if args.tty {
        env.insert(0, ("TERM".to_owned(), "xterm".to_owned()));
    }
    Ok(Exec {
        args: args.command.clone(),
        env: env
            .into_iter()
            .map(|(name, value)| (name.into(), value.into()))
            .collect(),
        cwd: args.workdir.clone(),
        user: args.user.clone(),
        tty: args.tty,
        privileged: args.privileged,
        detach: args.detach,
        copy: None,
    })
}

/// Passes signals on until it has ended.
fn until_end(connection: &Connection, terminal: Option<Terminal>, input: bool) -> Result<i32, Failure> {
    let line = connection.stream.try_clone();
    let line = Connection {
        stream: line.map_err(|e| Failure::own(format!("cannot follow the command: {e}")))?,
    };
    let session = terminal.map(|terminal| Session::attach(terminal, input));
    let session = session.transpose().map_err(|e| runner_failure(&e))?;
    let of_session = session.as_ref().map(Session::terminal);
    let forward = move |signal: nix::sys::signal::Signal| {
        // What has ended needs neither a signal nor a size.
        let _ = match (&of_session, signal as i32) {
            (Some(terminal), nix::libc::SIGWINCH) => {
                terminal.copy_size(io::stdout()).map_err(|e| runner_failure(&e))
            }
            (None, nix::libc::SIGWINCH) => Ok(()),
            (_, SIGHUP) => {
                let _ = line.stream.shutdown(std::net::Shutdown::Both);
                Ok(())
            }
            (_, number) => line.tell(&Request::Signal(number), &[]),
        };
    };
    signals::take(forward).map_err(|e| Failure::of(EXIT_BOX, &e))?;
    let reply = connection.answer();
    if let Some(session) = session {
        session.finish();
    }
    match reply? {
        Some((Reply::Exited { code, .. }, _)) => Ok(code),
        _ => Err(Failure::own(
            "whoever runs the container was killed, and the container with it",
        )),
    }
}
