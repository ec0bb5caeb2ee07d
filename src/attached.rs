//! The user's terminal, or pipes, joined with a container by way of its monitor.

use std::io::{self, IsTerminal, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use box_runner::RawMode;
use nix::sys::signal::Signal;

use crate::app::App;
use crate::containers::{self, Container};
use crate::error::{EXIT_BOX, Failure, runner_failure};
use crate::monitor::{Frame, Request, connect_in, exit_code};
use crate::{signals, ui};

/// How often the user must ask before the container is killed, as in Docker.
const PATIENCE: u32 = 3;
/// What a client says whose container was killed with its monitor.
const KILLED: i32 = 137;

/// How it is joined.
pub(crate) struct Joining<'a> {
    /// The container, to which signals go by lines of their own: input that nobody reads must not hold them up.
    pub(crate) container: &'a Container,
    /// Standard input is passed on.
    pub(crate) input: bool,
    /// The container has a terminal.
    pub(crate) tty: bool,
    /// What detaches, in that case.
    pub(crate) keys: &'a [u8],
}

/// How it ended.
pub(crate) enum End {
    /// The container, with this exit code.
    Exited(i32),
    /// The user has detached; the container goes on.
    Detached,
    /// The monitor has closed the line, or is gone.
    Lost,
}

impl End {
    /// The exit code that tells it; why a line was lost is said.
    pub(crate) fn exit_code(self, app: &App, id: &str) -> Result<u8, Failure> {
        match self {
            Self::Detached => {
                // The command's last line is not ended.
                let id = containers::short(id);
                ui::note(&format!("\nnote: detached; `box attach {id}` connects again"));
                Ok(0)
            }
            Self::Exited(code) => Ok(exit_code(code)),
            Self::Lost => match containers::get(app, id)? {
                Some(container) if container.state.is_active() => {
                    Err(Failure::own("the container's monitor has closed the line, since nothing was read from it for too long")
                        .hint("the container goes on; `box attach` connects again, `box logs` shows what it printed"))
                }
                found => {
                    ui::note("note: the container's monitor was killed, and the container with it");
                    Ok(exit_code(found.map_or(KILLED, |container| container.state.exit_code)))
                }
            },
        }
    }
}

/// Passes everything on, both ways, until either side ends. Signals that come are the container's. To be called with signals held.
pub(crate) fn join(app: &App, line: UnixStream, joining: &Joining<'_>) -> Result<End, Failure> {
    let failed = |e: io::Error| Failure::new(EXIT_BOX, format!("cannot attach to the container: {e}"));
    let dir = app.store.container_dir(&joining.container.id)?;
    let line = Arc::new(Line {
        stream: line,
        writing: Mutex::new(()),
    });
    let raw = match joining.tty && joining.input {
        true => RawMode::enter(io::stdin()).map_err(|e| runner_failure(&e))?,
        false => None,
    };
    if joining.tty {
        send_size(&line);
    }
    let detached = Arc::new(AtomicBool::new(false));
    forward_signals(&line, dir, joining.tty, &detached).map_err(|e| Failure::of(EXIT_BOX, &e))?;
    if joining.input {
        let (line, detached) = (Arc::clone(&line), Arc::clone(&detached));
        let keys = if joining.tty {
            joining.keys.to_vec()
        } else {
            Vec::new()
        };
        // It ends with the program: a read from a terminal can't be called off.
        std::thread::spawn(move || send_input(&line, &keys, &detached));
    }
    let end = receive(&line.stream, &detached).map_err(failed);
    drop(raw);
    end
}

/// Writes what comes until the container has ended.
fn receive(line: &UnixStream, detached: &AtomicBool) -> io::Result<End> {
    let mut reader = io::BufReader::with_capacity(64 << 10, line);
    loop {
        let frame = match Frame::read(&mut reader) {
            Ok(Some(frame)) => frame,
            _ if detached.load(Ordering::Acquire) => return Ok(End::Detached),
            // In the middle of a frame, too.
            Ok(None) => return Ok(End::Lost),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(End::Lost),
            Err(error) => return Err(error),
        };
        let written = match frame {
            Frame::Stdout(bytes) => write(io::stdout(), &bytes),
            Frame::Stderr(bytes) => write(io::stderr(), &bytes),
            Frame::Exit(code) => return Ok(End::Exited(code)),
            _ => Ok(()),
        };
        // Where nobody reads, the container goes on, as with Docker.
        match written {
            Err(error) if error.kind() != io::ErrorKind::BrokenPipe => return Err(error),
            _ => {}
        }
    }
}

fn write(mut to: impl Write, bytes: &[u8]) -> io::Result<()> {
    to.write_all(bytes)?;
    to.flush()
}

/// Sends standard input; the keys that detach end the connection instead.
fn send_input(line: &Line, keys: &[u8], detached: &AtomicBool) {
    let mut buffer = [0; 16 * 1024];
    let mut seen = Detaching { keys, count: 0 };
    let mut stdin = io::stdin();
    loop {
        let count = match stdin.read(&mut buffer) {
            Ok(count @ 1..) => count,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
            _ => break,
        };
        let Some(bytes) = seen.pass(&buffer[..count]) else {
            line.detach(detached);
            return;
        };
        if !bytes.is_empty() && line.send(&Frame::Stdin(bytes)).is_err() {
            return;
        }
    }
    let _ = line.send(&Frame::StdinEnd);
}

/// Looks for the keys that detach.
struct Detaching<'a> {
    keys: &'a [u8],
    /// How many of them have come.
    count: usize,
}

impl Detaching<'_> {
    /// What of these bytes is the container's; none if the keys are complete. Keys that may be the first ones are held back.
    fn pass(&mut self, bytes: &[u8]) -> Option<Vec<u8>> {
        if self.keys.is_empty() {
            return Some(bytes.to_vec());
        }
        let mut passed = Vec::with_capacity(bytes.len());
        for byte in bytes {
            if *byte != self.keys[self.count] {
                passed.extend_from_slice(&self.keys[..self.count]);
                self.count = 0;
            }
            if *byte == self.keys[self.count] {
                self.count += 1;
            } else {
                passed.push(*byte);
            }
            if self.count == self.keys.len() {
                return None;
            }
        }
        Some(passed)
    }
}

fn send_size(line: &Line) {
    // While input waits that nobody reads, the size can't matter.
    if let Some((rows, columns)) = console::Term::stdout().size_checked()
        && let Ok(_writing) = line.writing.try_lock()
    {
        let _ = Frame::Size(rows, columns).write(&line.stream);
    }
}

/// The connection; frames are written one at a time.
struct Line {
    stream: UnixStream,
    writing: Mutex<()>,
}

impl Line {
    fn send(&self, frame: &Frame) -> io::Result<()> {
        let _writing = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        frame.write(&self.stream)
    }

    /// Goes on purpose; the container goes on.
    fn detach(&self, detached: &AtomicBool) {
        detached.store(true, Ordering::Release);
        if let Ok(_writing) = self.writing.try_lock() {
            let _ = Frame::Detach.write(&self.stream);
        }
        let _ = self.stream.shutdown(std::net::Shutdown::Both);
    }
}

/// Signals go to the container's first process; a change of the window's size goes to its terminal. A process 1 may ignore
/// what it has no handler for, so the third request to end kills the container.
fn forward_signals(line: &Arc<Line>, dir: PathBuf, tty: bool, detached: &Arc<AtomicBool>) -> nix::Result<()> {
    let (line, detached) = (Arc::clone(line), Arc::clone(detached));
    let mut asked = 0;
    signals::take(move |signal| {
        if signal == Signal::SIGWINCH {
            if tty {
                send_size(&line);
            }
            return;
        }
        // A terminal that goes away is not the container's.
        if signal == Signal::SIGHUP {
            return line.detach(&detached);
        }
        asked += u32::from(matches!(
            signal,
            Signal::SIGINT | Signal::SIGTERM | Signal::SIGQUIT
        ));
        let number = match asked >= PATIENCE {
            true => Signal::SIGKILL as i32,
            false => signal as i32,
        };
        // A container that is gone needs no signal.
        if let Ok(Some(connection)) = connect_in(&dir) {
            let _ = connection.tell(&Request::Signal(number), &[]);
        }
        if asked == PATIENCE - 1 {
            ui::note(
                "note: the command goes on after two signals; one more kills it (--init makes it heed the first)",
            );
        }
    })
}

/// Without a terminal to connect to there is nothing to pass through.
pub(crate) fn check_terminal(tty: bool, interactive: bool) -> Result<(), Failure> {
    if tty && interactive && !io::stdin().is_terminal() {
        return Err(Failure::own("the input device is not a terminal")
            .hint("leave -t away, or run box in a terminal"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_that_detach_are_held_back_until_it_is_clear() {
        let mut seen = Detaching {
            keys: &[16, 17],
            count: 0,
        };
        assert_eq!(seen.pass(b"ab").as_deref(), Some(&b"ab"[..]));
        assert_eq!(seen.pass(&[16]).as_deref(), Some(&b""[..]));
        assert_eq!(seen.pass(b"x").as_deref(), Some(&b"\x10x"[..]));
        assert_eq!(seen.pass(&[16, 16]).as_deref(), Some(&b"\x10"[..]));
        assert_eq!(seen.pass(&[17]), None);
        let mut none = Detaching { keys: &[], count: 0 };
        assert_eq!(none.pass(&[16, 17]).as_deref(), Some(&[16, 17][..]));
    }
}
