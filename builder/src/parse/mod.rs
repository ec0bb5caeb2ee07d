//! Text → [`Boxfile`].

use crate::ast::Boxfile;
use crate::diagnostic::Diagnostic;
use crate::source::Source;

/// Parses a Boxfile. Pure: reads nothing but `source`.
///
/// # Errors
/// All syntax errors, in the order of the file.
pub fn parse(source: &Source) -> Result<Boxfile, Vec<Diagnostic>> {
    let _ = source;
    Err(Vec::new())
}
