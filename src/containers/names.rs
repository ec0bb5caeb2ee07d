//! Names of containers.

use super::{find_named, new_id};
use crate::app::App;
use crate::error::Failure;

const FIRST: &str = "able bold brave bright brisk busy calm clear clever cosy crisp curious eager early easy fair fine fond free fresh \
                     gentle glad grand happy honest jolly keen kind lively lucky merry mild neat nimble noble patient plain proud \
                     quick quiet ready sharp shy smart soft steady sunny swift tidy warm wise witty young";
const SECOND: &str = "acorn anchor apple badger barrel basket beacon beaver birch bridge brook cedar cloud comet copper crane crate dune \
                      ember falcon fern finch forest fox garden glacier harbor hazel heron island juniper kettle lantern larch lark \
                      maple meadow moon mountain oak otter owl parcel pebble pine pond raven reed river robin sail shell sparrow \
                      spruce stone swan thistle tower trunk valley wagon willow wren";

/// Docker's grammar.
pub(crate) fn check_name(name: &str) -> Result<(), Failure> {
    let good = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-');
    let first = name.starts_with(|c: char| c.is_ascii_alphanumeric());
    if name.is_empty() || name.len() > 128 || !first || !name.chars().all(good) {
        return Err(Failure::own(format!("{name:?} can't name a container"))
            .hint("up to 128 letters, digits, '_', '.' and '-', the first a letter or digit"));
    }
    Ok(())
}

/// Checks that nobody has the name; makes one up where it is empty. The names must be locked.
pub(super) fn claim(app: &App, name: &mut String, is_transient: bool) -> Result<(), Failure> {
    if name.is_empty() && is_transient {
        // So long that nobody needs to look whether somebody has it.
        let random = new_id()?;
        *name = format!(
            "{}_{}",
            made_up(&random, 0),
            random.get(12..20).unwrap_or_default()
        );
        return Ok(());
    }
    if !name.is_empty() {
        check_name(name)?;
        return match find_named(app, name)? {
            Some(id) => Err(Failure::own(format!(
                "the name {name:?} is in use by container {}",
                super::short(&id)
            ))
            .hint(format!(
                "remove that one (box rm {name}), take another name, or replace it (--replace)"
            ))),
            None => Ok(()),
        };
    }
    for round in 0.. {
        let made = made_up(&new_id()?, round);
        if find_named(app, &made)?.is_none() {
            *name = made;
            break;
        }
    }
    Ok(())
}

/// Two words that a random text chooses; from the tenth round on with a number.
fn made_up(random: &str, round: u32) -> String {
    let number = |part: Option<&str>| {
        part.and_then(|hex| usize::from_str_radix(hex, 16).ok())
            .unwrap_or(0)
    };
    let pick = |words: &str, number: usize| {
        let words: Vec<&str> = words.split_whitespace().collect();
        words[number % words.len()].to_owned()
    };
    let (first, second) = (number(random.get(..6)), number(random.get(6..12)));
    let name = format!("{}_{}", pick(FIRST, first), pick(SECOND, second));
    match round {
        0..10 => name,
        _ => format!("{name}{round}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        for good in ["ab", "a", "a.b-c_1", "0a"] {
            check_name(good).unwrap();
        }
        for bad in ["", "-a", "a/b", "a b", "ä1", &"x".repeat(129)] {
            assert!(check_name(bad).is_err(), "{bad}");
        }
        check_name(&made_up("00000000000000ff", 3)).unwrap();
        check_name(&made_up("fffffffffffffff", 12)).unwrap();
    }
}
