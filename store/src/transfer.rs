//! Bytes in and out: files fetched over HTTP, and images as OCI layouts.

pub mod archive;
pub(crate) mod document;
mod encoder;
mod fetch;
mod gzip;
pub mod http;
pub(crate) mod manifest;
pub(crate) mod packed;
mod progress;
mod times;

pub use document::DocumentError;
pub use packed::{PackError, Packing};
pub use progress::{NoProgress, Progress};
pub(crate) use times::logical_times;
