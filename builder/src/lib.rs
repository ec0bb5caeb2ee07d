//! The builder of box.

pub mod ast;
#[cfg(test)]
mod corpus;
pub mod diagnostic;
pub mod exec;
pub mod expand;
pub mod graph;
pub mod ignore;
pub mod lint;
pub mod parse;
pub mod progress;
pub mod request;
pub mod source;
pub mod suggest;
