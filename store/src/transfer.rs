//! Bytes in and out: files fetched over HTTP, and images as OCI layouts.

pub mod archive;
mod document;
mod fetch;
pub mod http;
mod packed;
mod progress;

pub use progress::{NoProgress, Progress};
