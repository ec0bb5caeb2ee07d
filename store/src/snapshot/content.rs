//! Copying and comparing bytes.

use std::fs::File;
use std::io::{Read, Write};
use std::path::Path;

use crate::digest::{Digest, Hasher};
use crate::error::{IoContext, Result};

const BUFFER: usize = 128 << 10;

/// Copies all of `source`; gives the digest of the bytes. `path` is for errors, `buffer` any that can be used again.
pub(super) fn copy(
    source: &mut dyn Read,
    file: &mut File,
    path: &Path,
    buffer: &mut Vec<u8>,
) -> Result<Digest> {
    let mut hasher = Hasher::new();
    buffer.resize(BUFFER, 0);
    loop {
        match source.read(buffer) {
            Ok(0) => return Ok(hasher.finish()),
            Ok(read) => {
                hasher.update(&buffer[..read]);
                file.write_all(&buffer[..read]).at("write", path)?;
            }
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error).at("read the source of", path),
        }
    }
}

/// Whether both give the same bytes.
pub(super) fn equal(a: &mut impl Read, b: &mut impl Read) -> std::io::Result<bool> {
    let (mut left, mut right) = (vec![0; BUFFER], vec![0; BUFFER]);
    loop {
        let length = fill(a, &mut left)?;
        if length != fill(b, &mut right)? || left[..length] != right[..length] {
            return Ok(false);
        }
        if length == 0 {
            return Ok(true);
        }
    }
}

fn fill(source: &mut impl Read, buffer: &mut [u8]) -> std::io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match source.read(&mut buffer[filled..]) {
            Ok(0) => break,
            Ok(read) => filled += read,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}
