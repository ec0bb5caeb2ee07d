//! Stopping a build from outside.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// Cancels a build from another thread. Clones are one token.
#[derive(Clone, Default)]
pub struct CancelToken(Arc<Cancel>);

/// How long is waited before asking again.
const FIRST_PAUSE: Duration = Duration::from_millis(1);
const LONGEST_PAUSE: Duration = Duration::from_millis(20);

type Hook = Box<dyn Fn() + Send>;

#[derive(Default)]
struct Cancel {
    flag: AtomicBool,
    hooks: Mutex<Hooks>,
}

#[derive(Default)]
struct Hooks {
    next: u64,
    live: Vec<(u64, Hook)>,
}

impl CancelToken {
    /// A token that nobody has cancelled.
    pub fn new() -> CancelToken {
        CancelToken::default()
    }

    /// Whether the build is to stop.
    pub fn is_cancelled(&self) -> bool {
        self.0.flag.load(Ordering::SeqCst)
    }

    /// Stops the build: hooks are called, no further step begins. Idempotent. (Not for signal handlers.)
    pub fn cancel(&self) {
        let hooks = self.hooks();
        if !self.0.flag.swap(true, Ordering::SeqCst) {
            hooks.live.iter().for_each(|(_, hook)| hook());
        }
    }

    /// Asks again and again, ever less often, until there is an answer; none when it is cancelled before.
    ///
    /// # Errors
    /// The first that `ask` gives.
    pub fn poll<T, E>(&self, mut ask: impl FnMut() -> Result<Option<T>, E>) -> Result<Option<T>, E> {
        let mut pause = FIRST_PAUSE;
        while !self.is_cancelled() {
            if let Some(answer) = ask()? {
                return Ok(Some(answer));
            }
            std::thread::sleep(pause);
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
        Ok(None)
    }

    /// Has `hook` called by [`cancel`](Self::cancel) as long as the guard lives; at once if that has happened. The hook
    /// must not use this token.
    pub fn on_cancel(&self, hook: impl Fn() + Send + 'static) -> CancelHook<'_> {
        let mut hooks = self.hooks();
        if self.is_cancelled() {
            hook();
        }
        let id = hooks.next;
        hooks.next += 1;
        hooks.live.push((id, Box::new(hook)));
        CancelHook { token: self, id }
    }

    fn hooks(&self) -> std::sync::MutexGuard<'_, Hooks> {
        self.0.hooks.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for CancelToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("CancelToken").field(&self.is_cancelled()).finish()
    }
}

/// A registered hook; dropping it takes the hook away.
#[derive(Debug)]
pub struct CancelHook<'a> {
    token: &'a CancelToken,
    id: u64,
}

impl Drop for CancelHook<'_> {
    fn drop(&mut self) {
        let mut hooks = self.token.hooks();
        hooks.live.retain(|(id, _)| *id != self.id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn asking_ends_with_an_answer_or_the_build() {
        let token = CancelToken::new();
        let mut left = 3;
        let mut ask = || -> Result<Option<u32>, ()> {
            left -= 1;
            Ok((left == 0).then_some(7))
        };
        assert_eq!(token.poll(&mut ask), Ok(Some(7)));
        let stops = || -> Result<Option<u32>, ()> {
            token.cancel();
            Ok(None)
        };
        assert_eq!(token.poll(stops), Ok(None));
        assert_eq!(token.poll(|| Err::<Option<u32>, _>("not asked")), Ok(None));
    }

    #[test]
    fn hooks_are_called_once_and_while_they_live() {
        let token = CancelToken::new();
        let calls = Arc::new(Mutex::new(Vec::new()));
        let hook = |n: u32| {
            let calls = calls.clone();
            move || calls.lock().unwrap().push(n)
        };
        let kept = token.on_cancel(hook(1));
        drop(token.on_cancel(hook(2)));
        token.cancel();
        token.clone().cancel();
        let _late = token.on_cancel(hook(3));
        assert_eq!(*calls.lock().unwrap(), [1, 3]);
        drop(kept);
    }
}
