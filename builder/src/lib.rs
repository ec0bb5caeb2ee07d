//! The builder of box: what a Boxfile means.
//!
//! ```text
//! text ──parse──► Boxfile ──graph──► StageGraph ──lower──► Plan ──build──► layers, image
//! ```
//!
//! [`build::build`] is the way in. A command is run by whoever implements [`exec::Executor`]; this crate knows neither
//! namespaces nor cgroups, never prints and never reads the environment.

pub mod ast;
mod base;
pub mod build;
pub mod cache;
pub mod context;
#[cfg(test)]
mod corpus;
pub mod diagnostic;
pub mod error;
pub mod exec;
pub mod expand;
pub mod explain;
pub mod files;
pub mod git;
pub mod git_ref;
pub mod graph;
pub mod ignore;
pub mod lint;
pub mod lockfile;
pub mod lower;
pub mod parse;
pub mod plan;
pub mod ports;
pub mod progress;
pub mod request;
pub mod source;
mod steps;
pub mod suggest;
pub mod survey;
pub mod url;
