//! Memory of this process.

use std::io;

use super::check;

/// Lets go of the pages of program text that are mapped here now; those that are needed again come back from the file. A process that
/// waits for days needs few of what it was started with.
pub(crate) fn drop_text() -> io::Result<()> {
    for line in std::fs::read_to_string("/proc/self/maps")?.lines() {
        let mut fields = line.split_whitespace();
        let (Some(range), Some("r-xp"), Some(path)) = (fields.next(), fields.next(), fields.nth(3)) else {
            continue;
        };
        // Of a file: the kernel's own code is no mapping of one.
        let Some((start, end)) = range.split_once('-').filter(|_| path.starts_with('/')) else {
            continue;
        };
        let (Ok(start), Ok(end)) = (usize::from_str_radix(start, 16), usize::from_str_radix(end, 16)) else {
            continue;
        };
        // SAFETY: a private mapping of a file that was never writable holds nothing but what the file does; a page that is let go is
        // read again when it is touched, also by the code that runs here.
        check(unsafe { libc::madvise(start as *mut libc::c_void, end - start, libc::MADV_DONTNEED) }.into())?;
    }
    Ok(())
}
