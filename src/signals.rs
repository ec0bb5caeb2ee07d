//! Signals: blocked for the whole program at its start and taken by one thread, so that Ctrl-C is an ordinary event and every
//! cleanup runs.

use nix::sys::signal::{SigSet, Signal};

const TAKEN: [Signal; 7] = [
    Signal::SIGINT,
    Signal::SIGTERM,
    Signal::SIGHUP,
    Signal::SIGQUIT,
    Signal::SIGUSR1,
    Signal::SIGUSR2,
    Signal::SIGWINCH,
];

/// Holds the program's signals back until [`take`] delivers them.
///
/// Must be called before any other thread is started: a mask is inherited, and one thread without it is enough for the
/// kernel to end the program.
pub(crate) fn hold() -> nix::Result<()> {
    TAKEN.into_iter().collect::<SigSet>().thread_block()
}

/// Gives each signal that was held back, and each one from now on, to `handler` on a thread of its own.
pub(crate) fn take(mut handler: impl FnMut(Signal) + Send + 'static) -> nix::Result<()> {
    hold()?;
    let set: SigSet = TAKEN.into_iter().collect();
    let deliver = move || {
        while let Ok(signal) = set.wait() {
            handler(signal);
        }
    };
    std::thread::Builder::new()
        .name("signals".into())
        .spawn(deliver)
        .map_err(|_| nix::Error::EAGAIN)?;
    Ok(())
}
