//! How far a transfer is.

/// Is told how a transfer goes on; called from whatever thread does it.
pub trait Progress: Send + Sync {
    /// It begins, or begins again from zero. `total` is its length in bytes, where that is known.
    fn start(&self, total: Option<u64>);

    /// So many more bytes are there.
    fn advance(&self, bytes: u64);

    /// It is over, well or not.
    fn finish(&self);

    /// Whether to give up; asked several times a second.
    fn cancelled(&self) -> bool {
        false
    }
}

/// Nobody wants to know.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoProgress;

impl Progress for NoProgress {
    fn start(&self, _total: Option<u64>) {}
    fn advance(&self, _bytes: u64) {}
    fn finish(&self) {}
}
