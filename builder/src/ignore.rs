//! Ignore files.
