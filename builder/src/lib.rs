//! The builder of box.

pub mod ast;
pub mod diagnostic;
pub mod expand;
pub mod graph;
pub mod ignore;
pub mod lint;
pub mod parse;
pub mod source;
pub mod suggest;
