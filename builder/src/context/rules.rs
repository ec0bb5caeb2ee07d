//! The ignore file of a context: its own, or the one that was given.

use std::io::Read;
use std::path::Path;

use crate::files::{EntryKind, FileTree, FilesError};
use crate::ignore::IgnoreRules;
use crate::source::Source;

use super::{Context, resolve};

/// The largest ignore file that is read.
const IGNORE_LIMIT: u64 = 4 << 20;
/// Names of a context's own ignore file, best first.
const IGNORE_FILES: [&str; 2] = [".boxignore", ".dockerignore"];

impl Context<'_> {
    /// Reads the ignore rules, if they have not been read; then says what is odd about them.
    ///
    /// # Errors
    /// When the ignore file can't be read or understood.
    pub fn load_rules(&self) -> Result<Option<String>, FilesError> {
        if self.rules.get().is_some() {
            return Ok(None);
        }
        let (source, others) = match &self.given_rules {
            Some(source) => (Some(source.clone()), Vec::new()),
            None => {
                let mut found = self.own_rules()?.into_iter();
                (found.next(), found.collect())
            }
        };
        let parsed = source
            .as_ref()
            .map(|source| (source, IgnoreRules::parse(source.bytes())));
        let rules = match parsed {
            None => IgnoreRules::default(),
            Some((source, rules)) => rules.map_err(|error| FilesError::Ignore {
                name: source.name().to_owned(),
                source: error,
            })?,
        };
        // Of several who read them at once one tells.
        let is_first = self.rules.set(rules).is_ok();
        if let Some(source) = &source {
            self.rules_name.get_or_init(|| source.name().to_owned());
        }
        let ignored = |other: &Source| {
            Some(format!(
                "{} is used, {} is not",
                source.as_ref()?.name(),
                other.name()
            ))
        };
        Ok(others.first().filter(|_| is_first).and_then(ignored))
    }

    /// The context's own ignore files, the one that counts first.
    fn own_rules(&self) -> Result<Vec<Source>, FilesError> {
        let mut found = Vec::new();
        for name in IGNORE_FILES {
            let entry = resolve(self, Path::new(name))?;
            let Some((path, meta)) = entry else { continue };
            // What can't be read must not be taken for nothing: then nothing would be left out.
            let odd = |what: &str| self.io("read", &path, std::io::Error::other(what));
            if meta.kind != EntryKind::File {
                return Err(odd("an ignore file must be a regular file"));
            }
            let mut text = Vec::new();
            let mut file = self.open(&path, &meta)?.take(IGNORE_LIMIT + 1);
            let read = file.read_to_end(&mut text);
            read.map_err(|error| self.io("read", &path, error))?;
            if text.len() as u64 > IGNORE_LIMIT {
                return Err(odd("an ignore file may have 4 MiB, and this one is longer"));
            }
            found.push(Source::new(name, text));
        }
        Ok(found)
    }

    /// What the ignore file is called; none before its rules were read, and where there is none.
    pub fn ignore_file(&self) -> Option<&str> {
        self.rules_name.get().map(String::as_str)
    }
}
