//! "Did you mean …?"

/// Longest word that is compared: longer ones are no typing errors.
const LONGEST: usize = 64;

/// More candidates are not looked at: a search must not take long where there are many to be made.
const MOST: usize = 1000;

/// The candidate nearest to `word`, if one is near enough to have been meant. Case is ignored.
pub fn nearest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    if word.is_empty() || word.len() > LONGEST {
        return None;
    }
    let lower = word.to_lowercase();
    let limit = lower.chars().count().div_ceil(3).clamp(1, 3);
    candidates
        .into_iter()
        .take(MOST)
        .filter(|c| c.len() <= LONGEST && *c != word)
        .map(|c| (c.to_lowercase(), c))
        .map(|(l, c)| (distance(&lower, &l).min(prefix(&lower, &l)), c))
        .filter(|(d, _)| *d <= limit)
        .min_by_key(|(d, _)| *d)
        .map(|(_, c)| c)
}

/// "did you mean X?" for the nearest candidate.
pub fn did_you_mean<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<String> {
    nearest(word, candidates).map(|found| format!("did you mean {found}?"))
}

/// 1 when one of the two is just the beginning of the other.
fn prefix(a: &str, b: &str) -> usize {
    let shorter = a.len().min(b.len());
    if shorter >= 3 && (a.starts_with(b) || b.starts_with(a)) {
        1
    } else {
        usize::MAX
    }
}

/// Edits between two words, where swapping two neighbours counts as one (optimal string alignment).
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let mut rows = [
        vec![0; b.len() + 1],
        (0..=b.len()).collect::<Vec<_>>(),
        vec![0; b.len() + 1],
    ];
    for i in 1..=a.len() {
        let [before, previous, current] = &mut rows;
        current[0] = i;
        for j in 1..=b.len() {
            let cost = usize::from(a[i - 1] != b[j - 1]);
            let mut best = (previous[j] + 1)
                .min(current[j - 1] + 1)
                .min(previous[j - 1] + cost);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                best = best.min(before[j - 2] + 1);
            }
            current[j] = best;
        }
        rows.rotate_left(1);
    }
    rows[1][b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_what_was_meant() {
        let check = |word: &str, among: &[&str], want: Option<&str>| {
            assert_eq!(nearest(word, among.iter().copied()), want, "{word}");
        };
        check("COPPY", &["COPY", "RUN"], Some("COPY"));
        check("FORM", &["FROM", "RUN"], Some("FROM"));
        check("bulid", &["build", "base"], Some("build"));
        check("PAHT", &["PATH", "HOME"], Some("PATH"));
        check("typ", &["type", "from"], Some("type"));
        check("tmp", &["tmpfs", "bind"], Some("tmpfs"));
        check("BOGUS", &["COPY", "FROM", "RUN", "USER"], None);
        check("", &["a"], None);
    }
}
