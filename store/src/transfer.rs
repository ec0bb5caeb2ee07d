//! Bytes in and out: files fetched over HTTP, and images as OCI layouts.

mod fetch;
pub mod http;
mod progress;

pub use progress::{NoProgress, Progress};
