//! Whether there is room, and for how long an answer.

use crate::quota::{Ask, Bound, Claim, Group, MAX_AMOUNT, Mode};

/// What is left in a bucket: its amount without what is spent and held. Nothing: it is overdrawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Room(pub Option<u64>);

/// How long the answer may get, at most what is wanted and at least the least that is taken, so that there is room for all groups;
/// else the first claim that there is no room for. `rooms` are those of the claims, in their order.
pub fn admit(ask: &Ask, rooms: &[Room]) -> Result<u64, usize> {
    let wanted = ask.output.wanted.min(MAX_AMOUNT);
    let least = ask.output.least.min(wanted);
    let mut output = wanted;
    let mut refused: Option<usize> = None;
    // By group: the first claim, and the longest answer that any has room for.
    let mut any: Vec<Option<(usize, Option<u64>)>> = vec![None; ask.groups.len()];
    for (index, (claim, room)) in
        ask.claims.iter().zip(rooms).enumerate().filter(|(_, (claim, _))| !claim.shadow)
    {
        let fits = longest(claim, *room).filter(|longest| *longest >= least);
        match (ask.groups.get(claim.group), any.get_mut(claim.group)) {
            (Some(Group::Any), Some(best)) => {
                let (first, longest) = best.unwrap_or((index, None));
                *best = Some((first, longest.max(fits)));
            }
            _ => match fits {
                Some(longest) => output = output.min(longest),
                None => refused = refused.or(Some(index)),
            },
        }
    }
    for (first, longest) in any.into_iter().flatten() {
        match longest {
            Some(longest) => output = output.min(longest),
            None => refused = Some(refused.map_or(first, |refused| refused.min(first))),
        }
    }
    refused.map_or(Ok(output), Err)
}

/// The longest answer that there is room for; nothing where there is none for the shortest.
fn longest(claim: &Claim, room: Room) -> Option<u64> {
    let room = room.0?;
    match claim.mode {
        Mode::Record => (room > 0).then_some(MAX_AMOUNT),
        Mode::Reserve => within(&claim.bound, room),
    }
}

/// The greatest `n` with `bound.at(n) <= room`.
fn within(bound: &Bound, room: u64) -> Option<u64> {
    let rest = u128::from(room.checked_sub(bound.fixed)?);
    let per = bound.per_output;
    // An answer of n tokens costs the fraction rounded up, so n may be the fraction's inverse rounded down.
    let longest = (rest * u128::from(per.denominator.max(1))).checked_div(u128::from(per.numerator));
    Some(longest.map_or(MAX_AMOUNT, |longest| u64::try_from(longest).unwrap_or(MAX_AMOUNT).min(MAX_AMOUNT)))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::quota::PerOutput;

    proptest! {
        #[test]
        fn the_longest_answer_fits_and_one_more_token_does_not(
            fixed in 0..1000u64, numerator in 0..50u64, denominator in 1..50u64, room in 0..5000u64,
        ) {
            let bound = Bound { fixed, per_output: PerOutput { numerator, denominator } };
            match within(&bound, room) {
                None => prop_assert!(bound.at(0) > room),
                Some(MAX_AMOUNT) => prop_assert!(bound.at(u64::MAX) <= room || numerator == 0),
                Some(longest) => {
                    prop_assert!(bound.at(longest) <= room);
                    prop_assert!(bound.at(longest + 1) > room);
                }
            }
        }

        #[test]
        fn the_largest_numbers_are_exact(
            fixed in 0..=MAX_AMOUNT, numerator in 1..=1_000_000_000u64, denominator in 1..=1_000_000_000u64, room in 0..=MAX_AMOUNT,
        ) {
            let bound = Bound { fixed, per_output: PerOutput { numerator, denominator } };
            if let Some(longest) = within(&bound, room) {
                prop_assert!(bound.at(longest) <= room);
            }
        }
    }
}
