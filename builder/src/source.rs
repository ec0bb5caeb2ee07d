//! Source texts and positions in them.
//!
//! A [`Span`] is small and `Copy`; it names its file by [`FileId`], an index into [`Sources`], so that
//! an `INCLUDE`d file can stand beside the Boxfile without strings being copied around.

use std::ops::Deref;
use std::sync::Arc;

/// One text: its name as shown to the user, and its bytes. Cloning is cheap.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    name: Arc<str>,
    bytes: Arc<[u8]>,
}

impl Source {
    /// A source called `name` (a path, for diagnostics alone) with the given bytes.
    pub fn new(name: impl Into<Arc<str>>, bytes: impl Into<Arc<[u8]>>) -> Self {
        Source {
            name: name.into(),
            bytes: bytes.into(),
        }
    }

    /// The name shown in diagnostics.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The text as it was read.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }
}

/// Index of a file in [`Sources`]; 0 is the Boxfile itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FileId(pub u16);

/// All texts of one build, in the order in which they were read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sources {
    files: Vec<Source>,
}

impl Sources {
    /// The sources of a Boxfile that includes nothing.
    pub fn single(source: Source) -> Self {
        Sources { files: vec![source] }
    }

    /// Adds a file; `None` when there are more than 65,536 of them.
    pub fn add(&mut self, source: Source) -> Option<FileId> {
        let id = u16::try_from(self.files.len()).ok()?;
        self.files.push(source);
        Some(FileId(id))
    }

    /// The file with that id.
    pub fn get(&self, id: FileId) -> Option<&Source> {
        self.files.get(usize::from(id.0))
    }

    /// How many files there are.
    pub fn len(&self) -> usize {
        self.files.len()
    }

    /// Whether there is no file.
    pub fn is_empty(&self) -> bool {
        self.files.is_empty()
    }
}

/// A place in a source: never longer than its line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Span {
    /// The file it is in.
    pub file: FileId,
    /// Offset of its first byte in the file.
    pub offset: u32,
    /// Line, counted from 1.
    pub line: u32,
    /// Column in bytes, counted from 1. (Diagnostics show characters.)
    pub column: u32,
    /// Length in bytes; 0 marks a place between two characters.
    pub len: u32,
}

/// A value with the place it was written at.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Spanned<T> {
    /// The value.
    pub value: T,
    /// Where it stands.
    pub span: Span,
}

impl<T> Spanned<T> {
    /// `value`, written at `span`.
    pub fn new(value: T, span: Span) -> Self {
        Spanned { value, span }
    }
}

impl<T> Deref for Spanned<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.value
    }
}
