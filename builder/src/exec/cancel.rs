//! Stopping a build from outside.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// Cancels a build from another thread. Clones are one token.
#[derive(Clone, Default)]
pub struct CancelToken(Arc<Cancel>);

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
