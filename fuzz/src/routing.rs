//! Lines. The first is a host name, the second the model, the third another header; each other line is an entry: one byte
//! that says what it compares, then the value. The matcher must agree with trying every entry.

use ai_gateway::routing::{Condition, Entry, Hosts, INDEX_HEADER, Matcher, Router};

pub fn run(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let mut lines = text.lines();
    let (Some(host), Some(model), Some(other)) = (lines.next(), lines.next(), lines.next()) else { return };
    let header = |name: &str| {
        let value = if name == INDEX_HEADER { model } else { other };
        if value.is_empty() { Vec::new() } else { vec![value.as_bytes()] }
    };

    let mut conditions = Vec::new();
    let mut names = Vec::new();
    for line in lines.take(16) {
        let Some(kind) = line.chars().next() else { continue };
        let value = &line[kind.len_utf8()..];
        names.push((value.to_owned(), names.len()));
        conditions.push(match kind {
            'm' => vec![Condition::exact(INDEX_HEADER, value)],
            'b' => vec![Condition::exact("x-other", value), Condition::exact(INDEX_HEADER, value)],
            'r' => {
                Condition::regex(INDEX_HEADER, value).map_or_else(|_| Vec::new(), |condition| vec![condition])
            }
            'o' => {
                Condition::regex("x-other", value).map_or_else(|_| Vec::new(), |condition| vec![condition])
            }
            _ => vec![Condition::exact("x-other", value)],
        });
    }
    let entries = |conditions: &[Vec<Condition>]| {
        let entry =
            |(rule, conditions): (usize, &Vec<Condition>)| Entry { conditions: conditions.clone(), rule };
        conditions.iter().enumerate().map(entry).collect::<Vec<_>>()
    };
    let alone = |conditions: &Vec<Condition>| {
        let entry = Entry { conditions: conditions.clone(), rule: 0 };
        Matcher::new(vec![entry]).find(header).is_some()
    };
    assert_eq!(Matcher::new(entries(&conditions)).find(header), conditions.iter().position(alone));

    let (hosts, _) = Hosts::new(names);
    let _ = hosts.find(host);
    let (router, _) = Router::new(vec![(host.to_owned(), entries(&conditions))]);
    let _ = router.select(host, header);
}
