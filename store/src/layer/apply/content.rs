//! A file's bytes, with its holes.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};

use rustix::io::Errno;

use super::error::Problem;
use super::member::{Content, Members};
use super::trouble::Trouble;

/// Writes the content of the present entry.
pub(super) fn fill<R: Read>(
    file: &mut File,
    content: &Content,
    members: &mut Members<'_, R>,
) -> Result<(), Trouble> {
    let Some(map) = &content.map else {
        return copy(file, content.stored, members);
    };
    let io = |e: std::io::Error| Trouble::Failed(("write", Errno::from_io_error(&e).unwrap_or(Errno::IO)));
    for segment in map {
        file.seek(SeekFrom::Start(segment.offset)).map_err(io)?;
        copy(file, segment.length, members)?;
    }
    file.set_len(content.size).map_err(io)
}

fn copy<R: Read>(file: &mut File, mut length: u64, members: &mut Members<'_, R>) -> Result<(), Trouble> {
    const BUFFER: u64 = 128 << 10;
    let mut buf = vec![0; length.min(BUFFER) as usize];
    while length > 0 {
        let want = length.min(BUFFER) as usize;
        let n = members.read_data(&mut buf[..want])?;
        if n == 0 {
            return Err(Problem::BadSparse("the data is too short").into());
        }
        file.write_all(&buf[..n])
            .map_err(|e| Trouble::Failed(("write", Errno::from_io_error(&e).unwrap_or(Errno::IO))))?;
        length -= n as u64;
    }
    Ok(())
}
