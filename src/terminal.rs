//! The terminal of `box run -t`: keys go in, output comes out, and the user's own terminal is itself again at the end.

use std::sync::Arc;
use std::thread::JoinHandle;

use box_runner::{Handle, RawMode, RunnerError, Terminal};
use nix::sys::signal::Signal;
use nix::sys::termios::{LocalFlags, SetArg, Termios, tcgetattr, tcsetattr};

use crate::error::{EXIT_BOX, Failure};
use crate::streams::copy;
use crate::{signals, ui};

/// How often the user must ask before the container is killed, as in Docker.
const PATIENCE: u32 = 3;

/// The container's terminal connected with the user's. Dropping it restores the user's.
pub(crate) struct Session {
    terminal: Arc<Terminal>,
    output: Option<JoinHandle<()>>,
    raw: Option<RawMode>,
}

impl Session {
    /// Connects them; keys are passed on only if `interactive`.
    pub(crate) fn attach(terminal: Terminal, interactive: bool) -> Result<Self, RunnerError> {
        let terminal = Arc::new(terminal);
        terminal.copy_size(std::io::stdout())?;
        let raw = if interactive {
            RawMode::enter(std::io::stdin())?
        } else {
            None
        };
        let master = terminal.file()?;
        let output = std::thread::spawn(move || copy(master, &mut std::io::stdout()));
        if interactive {
            let master = terminal.file()?;
            // It ends with the program: a read from a terminal can't be called off.
            let mut master = master;
            std::thread::spawn(move || copy(std::io::stdin(), &mut master));
        }
        Ok(Self {
            terminal,
            output: Some(output),
            raw,
        })
    }

    /// The container's terminal, for changes of the window's size.
    pub(crate) fn terminal(&self) -> Arc<Terminal> {
        self.terminal.clone()
    }

    /// Waits for the last output; the container must have ended.
    pub(crate) fn finish(mut self) {
        if let Some(output) = self.output.take() {
            // A thread that panicked has lost output, which nothing can bring back.
            let _ = output.join();
        }
        drop(self.raw.take());
    }
}

/// Signals go to the container's first process; a change of the window's size goes to its terminal. A process 1 may ignore
/// what it has no handler for, so the third request to end, or a terminal that hangs up, kills the container.
pub(crate) fn forward_signals(container: Handle, terminal: Option<Arc<Terminal>>) -> Result<(), Failure> {
    let mut asked = 0;
    let forward = move |signal: Signal| {
        asked += u32::from(matches!(
            signal,
            Signal::SIGINT | Signal::SIGTERM | Signal::SIGQUIT
        ));
        // A container that is gone needs no signal; a size that can't be set is the old one.
        let _ = match (signal, &terminal) {
            (Signal::SIGWINCH, Some(terminal)) => terminal.copy_size(std::io::stdout()),
            (Signal::SIGWINCH, None) => Ok(()),
            (Signal::SIGHUP, _) => container.kill(),
            _ if asked >= PATIENCE => container.kill(),
            _ => container.signal(signal as i32),
        };
        if asked == PATIENCE - 1 {
            ui::note(
                "note: the command goes on after two signals; one more kills it (--init makes it heed the first)",
            );
        }
    };
    signals::take(forward).map_err(|e| Failure::of(EXIT_BOX, &e))
}

/// The user's terminal without echo, for a password. Dropping it restores it, and so does a signal that ends box.
pub(crate) struct Silent {
    before: Termios,
}

impl Silent {
    /// Turns the echo off.
    pub(crate) fn enter() -> nix::Result<Self> {
        let before = tcgetattr(std::io::stdin())?;
        let mut silent = before.clone();
        silent.local_flags.remove(LocalFlags::ECHO);
        let restored = before.clone();
        crate::signals::take(move |signal| {
            if matches!(
                signal,
                Signal::SIGINT | Signal::SIGTERM | Signal::SIGHUP | Signal::SIGQUIT
            ) {
                restore(&restored);
                std::process::exit(128 + signal as i32);
            }
        })?;
        tcsetattr(std::io::stdin(), SetArg::TCSAFLUSH, &silent)?;
        Ok(Self { before })
    }
}

impl Drop for Silent {
    fn drop(&mut self) {
        restore(&self.before);
    }
}

fn restore(before: &Termios) {
    // There is nothing to be done about a terminal that went away.
    let _ = tcsetattr(std::io::stdin(), SetArg::TCSAFLUSH, before);
}
