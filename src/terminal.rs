//! The terminal of `box run -t`, and of a shell in a build: keys go in, output comes out, and the user's own terminal is itself again at the end.

use std::sync::{Arc, Mutex, PoisonError};
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

/// Where a container's terminal is shown.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Screen {
    /// On standard output.
    Stdout,
    /// On standard error.
    Stderr,
}

impl Screen {
    /// The one that is a terminal; none is if neither is, or there is nobody to type.
    pub(crate) fn find() -> Option<Self> {
        use std::io::IsTerminal;
        match std::io::stdin().is_terminal() {
            true if std::io::stdout().is_terminal() => Some(Self::Stdout),
            true if std::io::stderr().is_terminal() => Some(Self::Stderr),
            _ => None,
        }
    }
}

/// The container's terminal that is shown, for changes of the window's size; and how the user's own was before.
#[derive(Debug, Clone)]
pub(crate) struct Window {
    shown: Arc<Mutex<Option<Arc<Terminal>>>>,
    before: Arc<Mutex<Option<Termios>>>,
}

impl Default for Window {
    fn default() -> Self {
        Self {
            shown: Arc::default(),
            before: Arc::new(Mutex::new(tcgetattr(std::io::stdin()).ok())),
        }
    }
}

impl Window {
    /// Before box ends without its last words: the user's terminal must not stay as the container has it.
    pub(crate) fn restore(&self) {
        let shown = self.shown.try_lock().is_ok_and(|shown| shown.is_some());
        if let (true, Ok(before)) = (shown, self.before.try_lock())
            && let Some(before) = &*before
        {
            let _ = tcsetattr(std::io::stdin(), SetArg::TCSANOW, before);
        }
    }

    /// Shows this one, or none.
    pub(crate) fn show(&self, terminal: Option<Arc<Terminal>>) {
        *self.shown.lock().unwrap_or_else(PoisonError::into_inner) = terminal;
    }

    /// The user's terminal has another size.
    pub(crate) fn resized(&self) {
        let shown = self.shown.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(terminal) = &*shown {
            // A size that can't be set is the old one.
            let _ = terminal.copy_size(std::io::stdin());
        }
    }
}

impl Session {
    /// Connects them; keys are passed on only if `interactive`.
    pub(crate) fn attach(terminal: Terminal, interactive: bool) -> Result<Self, RunnerError> {
        terminal.copy_size(std::io::stdout())?;
        Self::on(terminal, Screen::Stdout, interactive)
    }

    /// Connects them for whoever sits there.
    pub(crate) fn on_screen(terminal: Terminal, screen: Screen) -> Result<Self, RunnerError> {
        terminal.copy_size(std::io::stdin())?;
        Self::on(terminal, screen, true)
    }

    fn on(terminal: Terminal, screen: Screen, interactive: bool) -> Result<Self, RunnerError> {
        let terminal = Arc::new(terminal);
        let raw = if interactive {
            RawMode::enter(std::io::stdin())?
        } else {
            None
        };
        let master = terminal.file()?;
        let output = std::thread::spawn(move || match screen {
            Screen::Stdout => copy(master, &mut std::io::stdout()),
            Screen::Stderr => copy(master, &mut std::io::stderr()),
        });
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
