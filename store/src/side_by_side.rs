//! Many small things of one kind, done on all processors.

use std::num::NonZero;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread::available_parallelism;

/// As much as the program's first thread usually has: directories are walked in here, however deep.
const STACK: usize = 8 << 20;

/// So many files are best taken at once: those of one directory stay together.
pub const FILES: usize = 64;
/// More than this many threads only wait for the file system.
const MOST: usize = 8;

/// Does `work` for each number below `count`, `piece` at a time and in no order, and gives what it gave, in order; none after the first error.
///
/// # Errors
/// Of all that were met, that of the lowest number.
pub fn each<T: Send, E: Send>(
    count: usize,
    piece: usize,
    work: impl Fn(usize) -> Result<T, E> + Sync,
) -> Result<Vec<T>, E> {
    let threads = available_parallelism().map_or(1, NonZero::get).min(MOST);
    let length = piece.max(1);
    let threads = threads.min(count.div_ceil(length));
    if threads < 2 {
        return (0..count).map(work).collect();
    }
    let next = AtomicUsize::new(0);
    let done = Mutex::new(Vec::with_capacity(count.div_ceil(length)));
    let worker = || {
        loop {
            let first = next.fetch_add(length, Ordering::Relaxed);
            if first >= count {
                return;
            }
            let piece: Result<Vec<T>, E> = (first..count.min(first + length)).map(&work).collect();
            if piece.is_err() {
                // Those before it are done or being done; those after it need not be begun.
                next.fetch_max(count, Ordering::Relaxed);
            }
            let mut done = done.lock().unwrap_or_else(PoisonError::into_inner);
            done.push((first, piece));
        }
    };
    std::thread::scope(|scope| {
        for _ in 1..threads {
            // Those that can't be had are not needed.
            let thread = std::thread::Builder::new().stack_size(STACK);
            let _ = thread.spawn_scoped(scope, worker);
        }
        worker();
    });
    let mut done = done.into_inner().unwrap_or_else(PoisonError::into_inner);
    done.sort_unstable_by_key(|(first, _)| *first);
    let mut all = Vec::with_capacity(count);
    for (_, piece) in done {
        all.extend(piece?);
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_come_in_order() {
        for (count, piece) in [(0, 1), (1, 0), (64, 64), (65, 64), (10_000, 64), (10_000, 7)] {
            let squares = each(count, piece, |number| Ok::<_, ()>(number * number)).unwrap();
            assert!(
                squares
                    .iter()
                    .copied()
                    .eq((0..count).map(|number| number * number))
            );
            assert_eq!(squares.len(), count);
        }
    }

    #[test]
    fn the_first_error_is_told() {
        let odd = |number: usize| match number % 1000 {
            500 => Err(number),
            _ => Ok(()),
        };
        for _ in 0..20 {
            assert_eq!(each(10_000, 64, odd), Err(500));
        }
    }
}
