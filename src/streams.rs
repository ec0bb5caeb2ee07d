//! This command's standard streams for a process of a container: files and pipes as they are, but never a terminal. Whoever has that can read
//! from it and change it, also when the command has ended.

use std::fs::File;
use std::io::{self, IsTerminal, PipeWriter, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::thread::JoinHandle;

use crate::pump::pump;

/// Which of the two outputs.
#[derive(Debug, Clone, Copy)]
enum Output {
    Stdout,
    Stderr,
}

/// What is passed on through pipes.
#[derive(Default)]
pub(crate) struct Passing {
    input: Option<PipeWriter>,
    outputs: Vec<(File, Output)>,
    copying: Option<(JoinHandle<()>, PipeWriter)>,
}

impl Passing {
    /// The three descriptors for the process, and what is to be passed on. Without input it reads from `null`.
    pub(crate) fn new(has_input: bool, null: File) -> io::Result<(Vec<OwnedFd>, Self)> {
        let mut passing = Self::default();
        let stdin = match (has_input, io::stdin().is_terminal()) {
            (false, _) => null.into(),
            (true, false) => io::stdin().as_fd().try_clone_to_owned()?,
            (true, true) => {
                let (theirs, ours) = io::pipe()?;
                passing.input = Some(ours);
                theirs.into()
            }
        };
        let stdout = passing.output(io::stdout(), Output::Stdout)?;
        let stderr = passing.output(io::stderr(), Output::Stderr)?;
        Ok((vec![stdin, stdout, stderr], passing))
    }

    fn output(&mut self, own: impl AsFd + IsTerminal, which: Output) -> io::Result<OwnedFd> {
        if !own.is_terminal() {
            return own.as_fd().try_clone_to_owned();
        }
        let (ours, theirs) = io::pipe()?;
        self.outputs.push((OwnedFd::from(ours).into(), which));
        Ok(theirs.into())
    }

    /// Begins, on threads of its own. The process must have its descriptors, and this one no copies of them.
    pub(crate) fn begin(&mut self) {
        if let Some(mut to) = self.input.take() {
            // It ends with the program: a read from a terminal can't be called off.
            std::thread::spawn(move || copy(io::stdin(), &mut to));
        }
        let outputs = std::mem::take(&mut self.outputs);
        if let (false, Ok((end, ending))) = (outputs.is_empty(), io::pipe()) {
            let copying = std::thread::spawn(move || pump(outputs, Some(&end), write));
            self.copying = Some((copying, ending));
        }
    }

    /// Passes the last on; the process must have ended. What it has started and left is not waited for.
    pub(crate) fn finish(self) {
        if let Some((copying, ending)) = self.copying {
            drop(ending);
            // A thread that panicked has lost output, which nothing can bring back.
            let _ = copying.join();
        }
    }
}

fn write(to: Output, bytes: &[u8]) {
    // Where nobody reads, the command goes on, as with Docker.
    let _ = match to {
        Output::Stdout => io::stdout().write_all(bytes).and_then(|()| io::stdout().flush()),
        Output::Stderr => io::stderr().write_all(bytes),
    };
}

/// Copies as it comes, without waiting for more, until either side ends.
pub(crate) fn copy(mut from: impl Read, to: &mut impl Write) {
    let mut buffer = [0; 16 * 1024];
    while let Ok(count @ 1..) = from.read(&mut buffer) {
        if to.write_all(&buffer[..count]).and_then(|()| to.flush()).is_err() {
            return;
        }
    }
}
