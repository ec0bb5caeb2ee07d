//! What a fetch gives.

use std::fs::File;

use super::options::Validators;
use crate::digest::Digest;

/// What a fetch came to.
#[derive(Debug)]
pub enum Fetched {
    /// The server says that what the validators belong to is still what it has (304).
    NotModified,
    /// The file is there, whole.
    File(FetchedFile),
}

/// A file that was fetched.
#[derive(Debug)]
pub struct FetchedFile {
    /// The file, to be read from its beginning.
    pub file: File,
    /// SHA-256 of its bytes.
    pub digest: Digest,
    /// Its length in bytes.
    pub size: u64,
    /// To ask again with, later.
    pub validators: Validators,
    /// Where it was in the end, after redirects, without credentials.
    pub url: String,
}

/// Where the body came from.
pub(super) struct Part {
    pub(super) url: String,
}
