//! Answering those who want something of a running container. Its socket lies in its directory, which is its owner's alone.

use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use box_runner::{RunnerError, Stdio, Stream, receive_message, send_message};
use box_store::disk::Durability;
use nix::sys::signal::Signal;

use super::life::{Life, Live};
use super::message::{Exec, Figures, Frame, Process, Reply, Request};
use super::{home, joins};
use crate::containers::{self, Status};
use crate::error::{EXIT_BOX, Failure, runner_failure};

/// The socket's name in the container's directory.
pub(super) const SOCKET: &str = "sock";
/// What a thread that answers needs of stack.
const STACK: usize = 256 << 10;

/// Begins to answer, on threads of its own.
pub(super) fn serve(life: &Arc<Life>, dir: &Path) -> Result<(), Failure> {
    let failed = |e: io::Error| {
        Failure::own(format!(
            "cannot make the container's socket in {}: {e}",
            dir.display()
        ))
    };
    let listener = bind(dir).map_err(failed)?;
    let life = Arc::clone(life);
    let listen = move || {
        for stream in listener.incoming() {
            let Ok(stream) = stream else {
                // Without a descriptor left it is worth nothing to ask again at once.
                std::thread::sleep(Duration::from_millis(50));
                continue;
            };
            let life = Arc::clone(&life);
            life.count(1);
            let answer = {
                let life = Arc::clone(&life);
                move || {
                    answer(&life, &stream);
                    box_runner::settle();
                    life.count(-1);
                }
            };
            if thread("answer", answer).is_err() {
                life.count(-1);
            }
        }
    };
    thread("listen", listen).map_err(failed)
}

/// By way of an open directory: the name of a socket may not be as long as a path.
fn bind(dir: &Path) -> io::Result<UnixListener> {
    match std::fs::remove_file(dir.join(SOCKET)) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
        _ => {}
    }
    let open = std::fs::File::open(dir)?;
    UnixListener::bind(format!("/proc/self/fd/{}/{SOCKET}", open.as_raw_fd()))
}

pub(super) fn thread(name: &str, work: impl FnOnce() + Send + 'static) -> io::Result<()> {
    let thread = std::thread::Builder::new().name(name.into()).stack_size(STACK);
    thread.spawn(work).map(drop)
}

fn answer(life: &Arc<Life>, stream: &UnixStream) {
    // Who says nothing wants nothing.
    let Ok(Some((request, fds))) = receive_message::<Request>(stream) else {
        return;
    };
    let reply = match request {
        Request::Exec(exec) => return another(life, exec, fds, stream),
        Request::Attach => return answer_attach(life, stream),
        Request::Share => return joins::answer(life, stream),
        Request::Home => return home::answer(stream),
        request => reply_to(life, request),
    };
    let reply = reply.unwrap_or_else(|failure| failed(&failure));
    // Whoever asked may have gone.
    let _ = send_message(stream, &reply, &[]);
}

pub(super) fn failed(failure: &Failure) -> Reply {
    Reply::Failed {
        message: failure.message().to_owned(),
        hint: failure.cure().map(ToOwned::to_owned),
        code: failure.code,
    }
}

fn reply_to(life: &Arc<Life>, request: Request) -> Result<Reply, Failure> {
    let of = |e: RunnerError| runner_failure(&e);
    match request {
        Request::Stop { signal, timeout } => {
            let signal = signal.unwrap_or(life.config.stop_signal);
            stop(life, signal, timeout.unwrap_or(life.config.stop_timeout))
        }
        Request::Wait => Ok(ended(life)),
        Request::Signal(number) => {
            let live = running(life)?;
            if number == nix::libc::SIGKILL {
                life.ask_to_stop(false);
            }
            live.handle.signal(number).map_err(of)?;
            life.note("kill", &[("signal", &number.to_string())]);
            Ok(Reply::Done)
        }
        Request::Pause => {
            running(life)?.handle.pause().map_err(of)?;
            // It is so, whether it can be written or not.
            let _ = life.set(Durability::Later, |state| state.status = Status::Paused);
            life.note("pause", &[]);
            Ok(Reply::Done)
        }
        Request::Resume => match life.live() {
            Some(live) if life.state().status == Status::Paused => {
                live.handle.resume().map_err(of)?;
                let _ = life.set(Durability::Later, |state| state.status = Status::Running);
                life.note("unpause", &[]);
                Ok(Reply::Done)
            }
            _ => Err(Failure::own("the container is not paused")),
        },
        Request::Stats => Ok(Reply::Stats(figures(&*live(life)?)?)),
        Request::Top => Ok(Reply::Top(processes(&*live(life)?)?)),
        Request::Update(limits) => {
            let mut config = life.config.clone();
            config.limits = limits;
            live(life)?
                .handle
                .update(&containers::limits(&config)?)
                .map_err(of)?;
            Ok(Reply::Done)
        }
        Request::Exec(_) | Request::Attach | Request::Share | Request::Home => {
            Err(Failure::own("misplaced request"))
        }
    }
}

fn ended(life: &Life) -> Reply {
    let (code, error) = life.wait();
    Reply::Exited { code, error }
}

pub(super) fn live(life: &Life) -> Result<Arc<Live>, Failure> {
    life.live()
        .ok_or_else(|| Failure::own("the container does not run at the moment"))
}

/// Not one that is paused.
fn running(life: &Life) -> Result<Arc<Live>, Failure> {
    match life.state().status {
        Status::Paused => Err(Failure::own("the container is paused").hint("`box unpause` lets it go on")),
        _ => live(life),
    }
}

/// A signal to the monitor, as a machine sends it that goes down: the container is ended in order, and started again with the machine if
/// that is its policy.
pub(super) fn heed(life: &Arc<Life>, signal: Signal) {
    if matches!(signal, Signal::SIGTERM | Signal::SIGINT | Signal::SIGQUIT) {
        life.end_for_now();
        // What can't be ended goes with the machine.
        let _ = end(life, life.config.stop_signal, life.config.stop_timeout);
    }
}

fn stop(life: &Life, signal: i32, timeout: u64) -> Result<Reply, Failure> {
    life.ask_to_stop(signal != nix::libc::SIGKILL);
    life.note("kill", &[("signal", &signal.to_string())]);
    end(life, signal, timeout)?;
    Ok(ended(life))
}

/// Has it end, whether it wants or not.
fn end(life: &Life, signal: i32, timeout: u64) -> Result<(), Failure> {
    if let Some(live) = life.live() {
        // One that is gone needs no signal. Those that are paused, maybe only now, heed none before they go on.
        let _ = live.handle.signal(signal);
        let _ = live.handle.resume_if_paused();
        if !life.has_ended_within(Duration::from_secs(timeout)) {
            live.handle.kill().map_err(|e| runner_failure(&e))?;
            let _ = live.handle.resume_if_paused();
        }
    }
    Ok(())
}

fn figures(live: &Live) -> Result<Figures, Failure> {
    let stats = live.handle.stats().map_err(|e| runner_failure(&e))?;
    Ok(Figures {
        memory: stats.memory,
        memory_limit: stats.memory_limit,
        cpu: u64::try_from(stats.cpu.as_nanos()).unwrap_or(u64::MAX),
        pids: stats.pids,
        io: stats.io,
        net: stats.net,
    })
}

fn processes(live: &Live) -> Result<Vec<Process>, Failure> {
    let milliseconds = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
    let found = live.handle.processes().map_err(|e| runner_failure(&e))?;
    let process = |process: box_runner::ProcessInfo| Process {
        pid: process.pid,
        parent: process.parent,
        uid: process.uid,
        cpu: milliseconds(process.cpu),
        started: milliseconds(process.started),
        terminal: process.terminal,
        command: process.command,
    };
    Ok(found.into_iter().map(process).collect())
}

/// Another process; the connection is its line of life, unless it is detached.
fn another(life: &Arc<Life>, exec: Exec, fds: Vec<OwnedFd>, stream: &UnixStream) {
    let started = start_another(life, &exec, fds);
    let mut running = match started {
        Ok(running) => running,
        Err(failure) => {
            let _ = send_message(stream, &failed(&failure), &[]);
            return;
        }
    };
    let terminal = running.take_terminal().and_then(|terminal| terminal.file().ok());
    let fds: Vec<_> = terminal.iter().map(AsFd::as_fd).collect();
    let told = send_message(stream, &Reply::Started, &fds);
    let command = note_exec(life, &exec);
    drop(terminal);
    let handle = running.handle();
    if let (Ok(line), false) = (stream.try_clone(), exec.detach) {
        let listen = move || {
            while let Ok(Some((Request::Signal(number), _))) = receive_message::<Request>(&line) {
                let _ = handle.signal(number);
            }
            let _ = handle.kill();
        };
        // Without it the process ends with the container, at the latest.
        let _ = thread("exec", listen);
    }
    if told.is_err() && !exec.detach {
        let _ = running.handle().kill();
    }
    let reply = match running.wait() {
        Ok(outcome) => {
            let code = outcome.status.code();
            life.note(
                &format!("exec_die: {command}"),
                &[("exitCode", &code.to_string())],
            );
            Reply::Exited {
                code,
                error: String::new(),
            }
        }
        Err(error) => failed(&runner_failure(&error)),
    };
    let _ = send_message(stream, &reply, &[]);
    let _ = stream.shutdown(std::net::Shutdown::Both);
}

/// Its command, as Docker shows it.
fn note_exec(life: &Life, exec: &Exec) -> String {
    let words: Vec<_> = exec.args.iter().map(|word| word.to_string_lossy()).collect();
    let command = words.join(" ");
    life.note(&format!("exec_start: {command}"), &[]);
    command
}

fn start_another(life: &Life, exec: &Exec, fds: Vec<OwnedFd>) -> Result<box_runner::Running, Failure> {
    let live = running(life)?;
    let mut spec = live.spec.clone();
    spec.process.args.clone_from(&exec.args);
    containers::merge(&mut spec.process.env, exec.env.clone());
    if let Some(cwd) = &exec.cwd {
        spec.process.cwd.clone_from(cwd);
    }
    if let Some(user) = &exec.user {
        spec.process.user.clone_from(user);
    }
    spec.terminal = exec.tty;
    if exec.privileged {
        containers::open(&mut spec);
    }
    // It would be an init of its own otherwise.
    spec.init = false;
    if let Some(copy) = &exec.copy {
        containers::copy_instead(&mut spec, copy.clone());
    }
    let mut fds = fds.into_iter().map(Stream::Fd);
    let stdio = match (exec.detach || exec.tty, fds.next(), fds.next(), fds.next()) {
        (false, Some(stdin), Some(stdout), Some(stderr)) => Stdio {
            stdin,
            stdout,
            stderr,
        },
        _ => Stdio::null(),
    };
    let started = live.runtime.exec(&live.handle, &spec, &live.ids.namespace, stdio);
    started.map_err(|e| runner_failure(&e))
}

fn answer_attach(life: &Arc<Life>, stream: &UnixStream) {
    let begun = attachable(life).and_then(|_| {
        stream
            .try_clone()
            .map_err(|e| Failure::new(EXIT_BOX, format!("cannot attach: {e}")))
    });
    match begun {
        Ok(client) => {
            if send_message(stream, &Reply::Started, &[]).is_ok() {
                life.outlet.add(client);
                life.note("attach", &[]);
                listen(life, stream, false);
            }
        }
        Err(failure) => {
            let _ = send_message(stream, &failed(&failure), &[]);
        }
    }
}

/// One that runs in the foreground has its output nowhere but there.
fn attachable(life: &Life) -> Result<Arc<Live>, Failure> {
    match life.is_foreground {
        true => Err(Failure::own(
            "the container runs in the foreground (--rm): its output goes to its terminal and to nobody else",
        )),
        false => running(life),
    }
}

/// Attaches a client that was told so; listens to it on a thread of its own.
pub(super) fn attach(life: &Arc<Life>, client: UnixStream) {
    let Ok(line) = client.try_clone() else { return };
    life.outlet.add(client);
    let life = Arc::clone(life);
    life.count(1);
    let counted = Arc::clone(&life);
    let listening = thread("attach", move || {
        listen(&life, &line, true);
        life.count(-1);
    });
    if listening.is_err() {
        counted.count(-1);
    }
}

/// Does what an attached client sends. The one that started the container is its standard input: when that one ends, or is killed, so
/// does the input; others only add to it.
fn listen(life: &Life, line: &UnixStream, is_first: bool) {
    let mut has_detached = false;
    while let Ok(Some(frame)) = Frame::read(line) {
        has_detached |= frame == Frame::Detach;
        let Some(live) = life.live() else { continue };
        if is_first || frame != Frame::StdinEnd {
            // What is sent to a process that has ended is lost.
            let _ = take(&live, frame);
        }
    }
    if let (true, false, Some(live)) = (is_first, has_detached, life.live()) {
        let _ = take(&live, Frame::StdinEnd);
    }
}

fn take(live: &Live, frame: Frame) -> io::Result<()> {
    use std::io::Write;
    let of = |e: RunnerError| io::Error::other(e.to_string());
    match (frame, &live.terminal) {
        (Frame::Stdin(bytes), Some(terminal)) => terminal.file().map_err(of)?.write_all(&bytes),
        (Frame::Stdin(bytes), None) => {
            let mut stdin = live.stdin.lock().unwrap_or_else(PoisonError::into_inner);
            stdin.as_mut().map_or(Ok(()), |stdin| stdin.write_all(&bytes))
        }
        (Frame::StdinEnd, _) => {
            drop(live.stdin.lock().unwrap_or_else(PoisonError::into_inner).take());
            Ok(())
        }
        (Frame::Size(rows, columns), Some(terminal)) => terminal.set_size(rows, columns).map_err(of),
        _ => Ok(()),
    }
}
