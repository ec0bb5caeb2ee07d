//! Passing on what comes from pipes.

use std::fs::File;
use std::io::Read;
use std::os::fd::AsFd;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

/// Passes on what comes from these pipes until all have ended.
pub(crate) fn pump<T: Copy>(mut pipes: Vec<(File, T)>, mut output: impl FnMut(T, &[u8])) {
    let mut buffer = vec![0; 64 * 1024];
    while !pipes.is_empty() {
        let ready = ready(&pipes);
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

/// Waits until some of them can be read, and says which.
fn ready<T>(pipes: &[(File, T)]) -> Vec<bool> {
    let mut polled: Vec<PollFd<'_>> = pipes
        .iter()
        .map(|(pipe, _)| PollFd::new(pipe.as_fd(), PollFlags::POLLIN))
        .collect();
    // Should waiting itself fail, reading waits.
    let failed = !matches!(poll(&mut polled, PollTimeout::NONE), Ok(_) | Err(Errno::EINTR));
    polled
        .iter()
        .map(|fd| failed || fd.any().unwrap_or(true))
        .collect()
}
