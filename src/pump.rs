//! Passing on what comes from pipes.

use std::fs::File;
use std::io::{PipeReader, Read};
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

/// How long those are listened to that hold a pipe of a container that has ended.
const LAST_WORDS: Duration = Duration::from_secs(1);
/// How long they may be silent then.
const SILENCE: Duration = Duration::from_millis(20);

/// Passes on what comes from these pipes until all have ended. When `end` does (its other side is closed), nobody is waited for any more
/// who may hold one of them open elsewhere: what is there is taken, and that is all.
pub(crate) fn pump<T: Copy>(
    mut pipes: Vec<(File, T)>,
    end: Option<&PipeReader>,
    mut output: impl FnMut(T, &[u8]),
) {
    let mut buffer = vec![0; 64 * 1024];
    let mut ended: Option<Instant> = None;
    while !pipes.is_empty() {
        let ready = ready(&pipes, end.filter(|_| ended.is_none()), ended.map(|_| SILENCE));
        if let (Some(end), None) = (end, ended)
            && is_over(end)
        {
            ended = Some(Instant::now());
        }
        let is_silent = ready.iter().all(|ready| !ready);
        if ended.is_some_and(|at| is_silent && at.elapsed() >= SILENCE || at.elapsed() >= LAST_WORDS) {
            return;
        }
        let mut ready = ready.into_iter();
        pipes.retain_mut(|(pipe, tag)| {
            if !ready.next().unwrap_or(true) {
                return true;
            }
            match pipe.read(&mut buffer) {
                Ok(count @ 1..) => {
                    output(*tag, &buffer[..count]);
                    true
                }
                Err(error) => error.kind() == std::io::ErrorKind::Interrupted,
                // A pipe that breaks ends the output, too; how the container ended is told by wait.
                Ok(0) => false,
            }
        });
    }
}

/// Whether the other side is closed.
fn is_over(end: &PipeReader) -> bool {
    let mut polled = [PollFd::new(end.as_fd(), PollFlags::POLLIN)];
    matches!(poll(&mut polled, PollTimeout::ZERO), Ok(1..))
}

/// Waits until some of them can be read, or `end` ends, at most so long, and says which.
fn ready<T>(pipes: &[(File, T)], end: Option<&PipeReader>, longest: Option<Duration>) -> Vec<bool> {
    let timeout = longest
        .and_then(|time| PollTimeout::try_from(time).ok())
        .unwrap_or(PollTimeout::NONE);
    let mut polled: Vec<PollFd<'_>> = pipes
        .iter()
        .map(|(pipe, _)| PollFd::new(pipe.as_fd(), PollFlags::POLLIN))
        .collect();
    polled.extend(end.map(|end| PollFd::new(end.as_fd(), PollFlags::POLLIN)));
    // Should waiting itself fail, reading waits.
    let failed = !matches!(poll(&mut polled, timeout), Ok(_) | Err(Errno::EINTR));
    polled
        .iter()
        .take(pipes.len())
        .map(|fd| failed || fd.any().unwrap_or(true))
        .collect()
}
