//! Secrets in the output of a step are shown as `***`.
//!
//! One automaton (Aho and Corasick's) goes over the stream byte by byte. How deep it is in its tree is how many of the last
//! bytes may be the beginning of a secret: those wait, all before them is passed on.

use std::collections::{HashMap, VecDeque};

/// What a secret is shown as.
const MASK: &[u8] = b"***";
/// Lines of a secret that are shorter than this are too common to be masked on their own.
const SHORTEST_LINE: usize = 4;

/// The secrets of a step, as one tree.
pub(crate) struct Patterns {
    nodes: Vec<Node>,
}

#[derive(Default)]
struct Node {
    next: HashMap<u8, usize>,
    /// The longest proper end of what leads here that is a beginning of a pattern, too.
    fallback: usize,
    /// Bytes from the root to here.
    depth: usize,
    /// The longest pattern that ends here; 0 for none.
    ends: usize,
}

impl Patterns {
    /// These secrets, without the line ends around them, and each of their lines.
    pub(crate) fn new<'a>(secrets: impl Iterator<Item = &'a [u8]>) -> Patterns {
        let mut patterns = Patterns {
            nodes: vec![Node::default()],
        };
        for secret in secrets {
            patterns.add(secret.trim_ascii());
            let lines = secret.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii);
            for line in lines.filter(|line| line.len() >= SHORTEST_LINE) {
                patterns.add(line);
            }
        }
        patterns.link();
        patterns
    }

    fn add(&mut self, pattern: &[u8]) {
        let mut at = 0;
        for byte in pattern {
            at = match self.nodes[at].next.get(byte) {
                Some(next) => *next,
                None => {
                    let new = self.nodes.len();
                    let depth = self.nodes[at].depth + 1;
                    self.nodes[at].next.insert(*byte, new);
                    self.nodes.push(Node {
                        depth,
                        ..Node::default()
                    });
                    new
                }
            };
        }
        self.nodes[at].ends = pattern.len();
    }

    /// Finds the fallbacks, nodes nearer to the root first.
    fn link(&mut self) {
        let mut queue: VecDeque<usize> = self.nodes[0].next.values().copied().collect();
        while let Some(at) = queue.pop_front() {
            let children: Vec<(u8, usize)> = self.nodes[at].next.iter().map(|(b, n)| (*b, *n)).collect();
            for (byte, child) in children {
                let fallback = self.step(self.nodes[at].fallback, byte);
                self.nodes[child].fallback = fallback;
                self.nodes[child].ends = self.nodes[child].ends.max(self.nodes[fallback].ends);
                queue.push_back(child);
            }
        }
    }

    fn step(&self, mut at: usize, byte: u8) -> usize {
        loop {
            match self.nodes[at].next.get(&byte) {
                Some(next) => return *next,
                None if at == 0 => return 0,
                None => at = self.nodes[at].fallback,
            }
        }
    }

    fn is_empty(&self) -> bool {
        self.nodes.len() == 1
    }
}

/// One stream of a step's output.
#[derive(Default)]
pub(crate) struct Masked {
    at: usize,
    /// Bytes that wait, and whether each is known to be part of a secret.
    waiting: VecDeque<(u8, bool)>,
    /// Whether the last byte passed on was part of a secret.
    in_mask: bool,
}

impl Masked {
    /// Takes the next piece; gives what can be shown by now.
    pub(crate) fn push(&mut self, patterns: &Patterns, bytes: &[u8]) -> Vec<u8> {
        if patterns.is_empty() {
            return bytes.to_vec();
        }
        let mut shown = Vec::with_capacity(bytes.len());
        for byte in bytes {
            self.at = patterns.step(self.at, *byte);
            let Node { depth, ends, .. } = patterns.nodes[self.at];
            self.waiting.push_back((*byte, false));
            let first = self.waiting.len() - ends;
            self.waiting
                .range_mut(first..)
                .for_each(|(_, is_secret)| *is_secret = true);
            while self.waiting.len() > depth {
                self.show_one(&mut shown);
            }
        }
        shown
    }

    /// What waited, when nothing comes any more.
    pub(crate) fn finish(&mut self) -> Vec<u8> {
        let mut shown = Vec::new();
        while !self.waiting.is_empty() {
            self.show_one(&mut shown);
        }
        self.at = 0;
        shown
    }

    fn show_one(&mut self, shown: &mut Vec<u8>) {
        match self.waiting.pop_front() {
            Some((_, true)) if self.in_mask => {}
            Some((_, true)) => {
                shown.extend(MASK);
                self.in_mask = true;
            }
            Some((byte, false)) => {
                shown.push(byte);
                self.in_mask = false;
            }
            None => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whole, in every two pieces and byte by byte, it is shown alike.
    #[track_caller]
    fn check(secrets: &[&str], output: &str, expected: &str) {
        let patterns = Patterns::new(secrets.iter().map(|secret| secret.as_bytes()));
        let show = |pieces: &[&[u8]]| {
            let mut stream = Masked::default();
            let mut shown: Vec<u8> = pieces
                .iter()
                .flat_map(|piece| stream.push(&patterns, piece))
                .collect();
            shown.extend(stream.finish());
            String::from_utf8(shown).unwrap()
        };
        let bytes = output.as_bytes();
        for cut in 0..=bytes.len() {
            let (a, b) = bytes.split_at(cut);
            assert_eq!(show(&[a, b]), expected);
        }
        assert_eq!(show(&bytes.chunks(1).collect::<Vec<_>>()), expected);
    }

    #[test]
    fn secrets_are_masked() {
        check(&[], "all of it", "all of it");
        check(&["hunter2\n"], "a hunter2 b\n", "a *** b\n");
        check(&["hunter2"], "hunter hunter2hunter2 hunt", "hunter *** hunt");
        check(&["aab"], "aaab aaaab", "a*** aa***");
        check(&["abc", "bcd"], "abcd", "***");
        check(&["abcd", "bc"], "abce xbcy", "a***e x***y");
        check(&["first line\nsecond\n"], "second\nfirst line\n", "***\n***\n");
        check(&["first\nab\n"], "ab", "ab");
        check(&["ab"], "ab", "***");
        check(&["", "\n"], "text\n", "text\n");
    }

    #[test]
    fn what_is_no_secret_does_not_wait() {
        let patterns = Patterns::new([b"hunter2".as_slice()].into_iter());
        let mut stream = Masked::default();
        assert_eq!(stream.push(&patterns, b"password: hunt"), b"password: ");
        assert_eq!(stream.push(&patterns, b"ing"), b"hunting");
    }
}
