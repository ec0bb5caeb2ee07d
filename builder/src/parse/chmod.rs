//! `--chmod`: octal, or symbolic as chmod(1) has it (`u=rwX,go=rX`).

/// A parsed mode change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Chmod {
    /// The mode itself, 0 to 07777.
    Octal(u32),
    /// Changes, one after the other.
    Symbolic(Vec<Clause>),
}

/// `who` `operator` `permissions`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Clause {
    /// The bits of those meant: user, group, others, and their special bits.
    who: u32,
    operator: Operator,
    /// The permissions, for everybody.
    bits: u32,
    /// `X`: execute for directories and where anybody may already.
    conditional_execute: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Operator {
    Add,
    Remove,
    Set,
}

impl Chmod {
    /// The mode bits that an entry with `mode` gets.
    pub fn apply(&self, mode: u32, is_directory: bool) -> u32 {
        match self {
            Chmod::Octal(mode) => *mode,
            Chmod::Symbolic(clauses) => clauses
                .iter()
                .fold(mode & 0o7777, |m, c| c.apply(m, is_directory)),
        }
    }
}

impl Clause {
    fn apply(self, mode: u32, is_directory: bool) -> u32 {
        let execute = self.conditional_execute && (is_directory || mode & 0o111 != 0);
        let bits = (self.bits | if execute { 0o111 } else { 0 }) & self.who;
        match self.operator {
            Operator::Add => mode | bits,
            Operator::Remove => mode & !bits,
            Operator::Set => (mode & !self.who) | bits,
        }
    }
}

/// Parses the value of `--chmod`; `None` where it is neither octal nor symbolic.
pub fn parse_chmod(text: &str) -> Option<Chmod> {
    if text.starts_with(|c: char| c.is_ascii_digit()) {
        let octal = text.len() <= 16 && text.bytes().all(|b| (b'0'..=b'7').contains(&b));
        let mode = u32::from_str_radix(text, 8)
            .ok()
            .filter(|m| octal && *m <= 0o7777)?;
        return Some(Chmod::Octal(mode));
    }
    let mut clauses = Vec::new();
    for part in text.split(',') {
        parse_part(part, &mut clauses)?;
    }
    Some(Chmod::Symbolic(clauses))
}

/// `who(operator permissions)+`
fn parse_part(part: &str, clauses: &mut Vec<Clause>) -> Option<()> {
    let start = part.find(['+', '-', '='])?;
    let (who, mut rest) = part.split_at(start);
    let who = parse_who(who)?;
    while let Some(operator) = rest.chars().next() {
        let operator = match operator {
            '+' => Operator::Add,
            '-' => Operator::Remove,
            _ => Operator::Set,
        };
        let end = rest[1..].find(['+', '-', '=']).map_or(rest.len(), |i| i + 1);
        clauses.push(parse_permissions(&rest[1..end], who, operator)?);
        rest = &rest[end..];
    }
    Some(())
}

fn parse_who(text: &str) -> Option<u32> {
    let mut who = 0;
    for c in text.chars() {
        who |= match c {
            'u' => 0o4700,
            'g' => 0o2070,
            'o' => 0o1007,
            'a' => 0o7777,
            _ => return None,
        };
    }
    Some(if who == 0 { 0o7777 } else { who })
}

fn parse_permissions(text: &str, who: u32, operator: Operator) -> Option<Clause> {
    let mut clause = Clause {
        who,
        operator,
        bits: 0,
        conditional_execute: false,
    };
    for c in text.chars() {
        match c {
            'r' => clause.bits |= 0o444,
            'w' => clause.bits |= 0o222,
            'x' => clause.bits |= 0o111,
            'X' => clause.conditional_execute = true,
            's' => clause.bits |= 0o6000,
            't' => {
                clause.bits |= 0o1000;
                clause.who |= 0o1000;
            }
            _ => return None,
        }
    }
    Some(clause)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_modes() {
        let check = |text: &str, mode: u32, dir: bool, want: Option<u32>| {
            let got = parse_chmod(text).map(|c| c.apply(mode, dir));
            assert_eq!(got, want, "{text} on {mode:o}");
        };
        check("755", 0o600, false, Some(0o755));
        check("07777", 0, false, Some(0o7777));
        check("10000", 0, false, None);
        check("64a", 0, false, None);
        check("8", 0, false, None);
        check("u=rwX,go=rX", 0o600, false, Some(0o644));
        check("u=rwX,go=rX", 0o700, false, Some(0o755));
        check("u=rwX,go=rX", 0o600, true, Some(0o755));
        check("a+x", 0o644, false, Some(0o755));
        check("+x", 0o644, false, Some(0o755));
        check("go-rwx", 0o755, false, Some(0o700));
        check("u+s", 0o755, false, Some(0o4755));
        check("+t", 0o777, true, Some(0o1777));
        check("u=", 0o755, false, Some(0o055));
        check("u+r-w", 0o200, false, Some(0o400));
        check("", 0, false, None);
        check("rwx", 0, false, None);
        check("z=r", 0, false, None);
    }
}
