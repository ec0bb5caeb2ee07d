//! Files fetched into the store's temporary directory.

use std::fs::{self, File};

use crate::store::Store;
use crate::transfer::http::{self, FetchError, FetchOptions, Fetched};
use crate::transfer::progress::Progress;

impl Store {
    /// Fetches a URL. The file it gives has no name: it is gone when it is closed. Must not be called from within a
    /// tokio runtime.
    ///
    /// # Errors
    /// See [`FetchError`]; nothing is left then.
    pub fn fetch_blocking(
        &self,
        url: &str,
        options: &FetchOptions,
        progress: &dyn Progress,
    ) -> Result<Fetched, FetchError> {
        let local = |source| FetchError::Local {
            action: "make a temporary file",
            source,
        };
        let path = self
            .parts()
            .0
            .temp_path()
            .map_err(|e| local(std::io::Error::other(e)))?;
        let file = File::options()
            .read(true)
            .write(true)
            .create_new(true)
            .open(&path)
            .map_err(local)?;
        fs::remove_file(&path).map_err(local)?;
        http::fetch_blocking(url, options, file, progress)
    }
}
