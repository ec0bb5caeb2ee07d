//! The port to whatever keeps a cache.

use serde::{Deserialize, Serialize};

use super::error::RemoteError;
use crate::digest::Digest;

/// An object by the digest of its bytes, and its length.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Object {
    /// SHA-256 of the bytes.
    pub digest: Digest,
    /// How many there are.
    pub size: u64,
}

/// Makes the new index of those that are there: its bytes, and the packs that it needs.
pub type Merge<'a> = dyn FnMut(&[Vec<u8>]) -> Result<(Vec<u8>, Vec<Object>), RemoteError> + 'a;

/// Keeps packs and indexes.
///
/// Contract: called from any thread, several at once. Packs never change; writing one that is there does nothing, or the same again. What
/// is handed out is not verified, since whoever asks does that anyway. A call that can't get further ends in an error after a while,
/// never in silence.
pub trait Backend: Send + Sync + std::fmt::Debug {
    /// What it is, for messages.
    fn describe(&self) -> String;

    /// The indexes that are there; none is fine. What can't be read of them is left out, and told with `warn`.
    ///
    /// # Errors
    /// When it can't be reached.
    fn indexes(&self, warn: &mut dyn FnMut(String)) -> Result<Vec<Vec<u8>>, RemoteError>;

    /// Those of these packs that are not there, or not as long as they should be.
    ///
    /// # Errors
    /// When it can't be reached.
    fn missing(&self, packs: &[Object]) -> Result<Vec<Object>, RemoteError>;

    /// `length` bytes of a pack from `at` on; fewer at its end, none if it is not there.
    ///
    /// # Errors
    /// When it can't be reached.
    fn read(&self, pack: &Object, at: u64, length: u64) -> Result<Option<Vec<u8>>, RemoteError>;

    /// Writes a pack; says whether it had to be sent.
    ///
    /// # Errors
    /// When it can't be written; nothing of that name is there then.
    fn write(&self, pack: &Object, bytes: Vec<u8>) -> Result<bool, RemoteError>;

    /// Removes a pack that is not what its name says, so that it is written anew; says whether it could: registries remove nothing.
    ///
    /// # Errors
    /// When it can't be reached.
    fn discard(&self, pack: &Object) -> Result<bool, RemoteError>;

    /// Puts a new index in the place of those that are there, and removes packs that nobody needs. Of writers at the same time none
    /// is lost for good: what one could not see, the other's next look finds, or both stay.
    ///
    /// # Errors
    /// When it can't be written; the indexes are those that were there, then.
    fn publish(&self, merge: &mut Merge<'_>) -> Result<(), RemoteError>;
}
