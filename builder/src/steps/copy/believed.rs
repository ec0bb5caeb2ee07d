//! What caches elsewhere say of copied files.

use box_store::digest::Digest;

use super::Reading;
use crate::cache::Input;
use crate::error::StepError;
use crate::files::FilesError;

impl Reading<'_> {
    /// What a cache elsewhere says. It may lead to what the key has there; before anything is made under that key, it is held against what is
    /// really here. For a mount nobody would do that.
    pub(super) fn believe(&self, key: Digest) -> Option<Vec<Input>> {
        let imports = self.tools.request.imports.as_ref()?;
        if self.shows_root {
            return None;
        }
        let record = imports.record("tree", &key)?;
        let inputs = serde_json::from_slice(&record.bytes).ok()?;
        self.believed.get_or_init(|| (key, record));
        Some(inputs)
    }

    /// Reads what was only believed.
    ///
    /// # Errors
    /// [`FilesError::Changed`] if it is not so; it is not believed again.
    pub(super) fn verify(&self) -> Result<(), StepError> {
        let (Some((key, record)), Some(imports)) = (self.believed.get(), &self.tools.request.imports) else {
            return Ok(());
        };
        let inputs = self.hash_inputs()?;
        if serde_json::to_vec(&inputs).unwrap_or_default() == record.bytes {
            return Ok(());
        }
        imports.refuse(key, record, "what it says of a stage's files is not so");
        Err(FilesError::Changed {
            path: "/".into(),
            tree: "a stage, by a cache's word,".to_owned(),
        }
        .into())
    }
}
