//! L0. Edits in place.

use super::{Member, Members, NotAnObject, key_is, skip_space};

/// One change of a document.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Edit<'a> {
    /// The keys that lead to the member, from the top. An empty path changes nothing.
    pub path: &'a [&'a str],
    /// The member's new value, a JSON document that is inserted as it is; `None` removes the member.
    pub value: Option<&'a [u8]>,
}

/// Applies edits in order and keeps every other byte, white space and the order of members.
///
/// A member is set where it stands (each time, if it occurs several times), or else appended as the last one. On the way to
/// a nested member, absent objects are made, and values of other types are replaced by objects. Removing what is not there
/// changes nothing. One copy of the document is made, and one more for each edit whose first key an earlier edit has too.
///
/// # Errors
/// When the document is not an object. Nested values are looked at only where a path leads through them.
pub fn edit(doc: &[u8], edits: &[Edit<'_>]) -> Result<Vec<u8>, NotAnObject> {
    let mut result: Option<Vec<u8>> = None;
    let mut rest = edits;
    loop {
        let distinct = distinct_keys(rest);
        let source = result.as_deref().unwrap_or(doc);
        let added: usize = rest[..distinct].iter().map(added_bytes).sum();
        let mut out = Vec::with_capacity(source.len() + added);
        write_object(source, &rest[..distinct], &mut out)?;
        rest = &rest[distinct..];
        if rest.is_empty() {
            return Ok(out);
        }
        result = Some(out);
    }
}

/// Sets one top-level member; see [`edit`].
pub fn set_member(doc: &[u8], key: &str, value: &[u8]) -> Result<Vec<u8>, NotAnObject> {
    edit(doc, &[Edit { path: &[key], value: Some(value) }])
}

/// Sets one nested member; see [`edit`].
pub fn set_path(doc: &[u8], path: &[&str], value: &[u8]) -> Result<Vec<u8>, NotAnObject> {
    edit(doc, &[Edit { path, value: Some(value) }])
}

/// Removes one top-level member; see [`edit`].
pub fn remove_member(doc: &[u8], key: &str) -> Result<Vec<u8>, NotAnObject> {
    edit(doc, &[Edit { path: &[key], value: None }])
}

/// A text as a JSON string, quotes included.
#[must_use]
pub fn quoted(text: &str) -> Vec<u8> {
    serde_json::Value::from(text).to_string().into_bytes()
}

/// How many leading edits have first keys that differ, so that they do not affect each other.
fn distinct_keys(edits: &[Edit<'_>]) -> usize {
    let repeats = |index: &usize| {
        let key = edits[*index].path.first();
        key.is_some() && edits[..*index].iter().any(|earlier| earlier.path.first() == key)
    };
    (0..edits.len()).find(repeats).unwrap_or(edits.len())
}

/// About how much longer an edit makes the document.
fn added_bytes(edit: &Edit<'_>) -> usize {
    edit.value.map_or(0, <[u8]>::len) + edit.path.iter().map(|key| key.len() + 8).sum::<usize>()
}

/// Writes `doc` with the edits applied, whose first keys differ.
fn write_object(doc: &[u8], edits: &[Edit<'_>], out: &mut Vec<u8>) -> Result<(), NotAnObject> {
    let mut members = Members::new(doc)?;
    let first = skip_space(doc, members.at);
    let empty = doc.get(first) == Some(&b'}');
    // Up to where the document stands in `out`, or is dropped.
    let mut end = if empty { members.at } else { first };
    out.extend_from_slice(&doc[..end]);

    let mut kept = false;
    let mut met = vec![false; edits.len()];
    for member in &mut members {
        let Member { key, value } = member?;
        let name = &doc[key.start + 1..key.end - 1];
        let index =
            edits.iter().position(|edit| edit.path.first().is_some_and(|wanted| key_is(name, wanted)));
        let Some(index) = index else {
            let from = if kept { end } else { key.start };
            out.extend_from_slice(&doc[from..value.end]);
            (kept, end) = (true, value.end);
            continue;
        };
        met[index] = true;
        let Edit { path, value: new } = edits[index];
        if path.len() > 1 || new.is_some() {
            let from = if kept { end } else { key.start };
            out.extend_from_slice(&doc[from..value.start]);
            write_value(&doc[value.clone()], &path[1..], new, out)?;
            kept = true;
        }
        end = value.end;
    }
    for (edit, _) in edits.iter().zip(met).filter(|(_, met)| !met) {
        if let (Some((key, path)), Some(value)) = (edit.path.split_first(), edit.value) {
            if kept {
                out.push(b',');
            }
            out.extend_from_slice(&quoted(key));
            out.push(b':');
            write_new(path, value, out);
            kept = true;
        }
    }
    out.extend_from_slice(&doc[end..]);
    Ok(())
}

/// Writes a value with the member at `path` below it changed.
fn write_value(old: &[u8], path: &[&str], new: Option<&[u8]>, out: &mut Vec<u8>) -> Result<(), NotAnObject> {
    match new {
        _ if !path.is_empty() && old.first() == Some(&b'{') => {
            write_object(old, &[Edit { path, value: new }], out)?
        }
        Some(new) => write_new(path, new, out),
        None => out.extend_from_slice(old),
    }
    Ok(())
}

/// Writes a value inside of objects with one member each.
fn write_new(path: &[&str], value: &[u8], out: &mut Vec<u8>) {
    for key in path {
        out.push(b'{');
        out.extend_from_slice(&quoted(key));
        out.push(b':');
    }
    out.extend_from_slice(value);
    out.extend(path.iter().map(|_| b'}'));
}
