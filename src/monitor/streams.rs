//! The standard streams of one start of a container, as whoever runs it has them.

use std::fs::File;
use std::io::{self, IsTerminal, PipeWriter};
use std::sync::Arc;
use std::thread::JoinHandle;

use box_runner::{RunnerError, Running, Stdio, Stream, Terminal};

use super::life::Life;
use super::supervise::Io;
use crate::containers::Config;
use crate::logs::LogStream;
use crate::pump::pump;
use crate::streams::copy;
use crate::terminal::Session;

/// Its standard streams; with a terminal of its own they are that. Where this is the user's command, files and pipes of the user's are
/// the container's as they are, but never a terminal: whoever has that can read from it and change it, also later.
pub(super) fn stdio(io: &Io, config: &Config) -> Stdio {
    if config.tty {
        return Stdio::null();
    }
    let own = |is_terminal: bool| match (io, is_terminal) {
        (Io::Own, false) => Stream::Inherit,
        (Io::Own, true) | (Io::Kept(_), _) => Stream::Piped,
    };
    Stdio {
        stdin: match config.interactive {
            true => own(io::stdin().is_terminal()),
            false => Stream::Null,
        },
        stdout: own(io::stdout().is_terminal()),
        stderr: own(io::stderr().is_terminal()),
    }
}

/// What goes with one start of a container.
#[derive(Default)]
pub(super) struct Attempt {
    pub(super) session: Option<Session>,
    outputs: Vec<(File, LogStream)>,
}

/// The streams while they are passed on.
pub(super) struct Streams {
    session: Option<Session>,
    copying: Option<(JoinHandle<()>, PipeWriter, Arc<Life>)>,
}

impl Attempt {
    /// What the container's output comes from, unless it goes where it should by itself.
    pub(super) fn take_outputs(
        &mut self,
        running: &mut Running,
        terminal: Option<&Terminal>,
    ) -> Result<(), RunnerError> {
        let pipes = [
            (running.take_stdout(), LogStream::Stdout),
            (running.take_stderr(), LogStream::Stderr),
        ];
        self.outputs = match terminal {
            Some(terminal) => vec![(terminal.file()?, LogStream::Stdout)],
            None => {
                let pipes = pipes.into_iter();
                pipes.filter_map(|(pipe, stream)| Some((pipe?, stream))).collect()
            }
        };
        Ok(())
    }

    /// Passes this command's input on, unless the container has it by itself.
    pub(super) fn take_input(&self, running: &mut Running) {
        if let Some(mut to) = running.take_stdin() {
            // It ends with the program: a read from a terminal can't be called off.
            std::thread::spawn(move || copy(io::stdin(), &mut to));
        }
    }

    /// Begins to pass its output on.
    pub(super) fn join(self, life: &Arc<Life>) -> Streams {
        let copying = match (self.outputs.is_empty(), io::pipe()) {
            (false, Ok((end, ending))) => {
                let (own, outputs) = (Arc::clone(life), self.outputs);
                let copy = move || pump(outputs, Some(&end), |stream, bytes| own.pass_on(stream, bytes));
                Some((std::thread::spawn(copy), ending, Arc::clone(life)))
            }
            _ => None,
        };
        Streams {
            session: self.session,
            copying,
        }
    }
}

impl Streams {
    /// Passes the last on; the container must have ended.
    pub(super) fn finish(self) {
        if let Some((copying, ending, life)) = self.copying {
            // Nobody is waited for who may have got hold of its streams, or does not read.
            drop(ending);
            life.outlet.hurry();
            // A thread that panicked has lost output, which nothing can bring back.
            let _ = copying.join();
        }
        if let Some(session) = self.session {
            session.finish();
        }
    }
}
