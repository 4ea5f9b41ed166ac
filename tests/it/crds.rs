//! The definitions of the gateway's kinds: those in `manifests/crds` are those of the types, and they say what upstream's say.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use ai_gateway::resources::crd;
use serde_json::{Map, Value};

use crate::support::shared_data;

/// Differences from upstream's definitions that are meant, and why.
const MEANT: &[(&str, &str)] = &[
    // A field of our own: whether quotas are held to before or after a request.
    ("QuotaPolicy v1alpha1.spec.admission", "is not upstream's"),
    // Upstream has "at least one" and "exactly one"; the second says both.
    ("MCPRoute v1alpha1.spec.securityPolicy.extAuth", "has 1 rule, and not 2"),
    ("MCPRoute v1beta1.spec.securityPolicy.extAuth", "has 1 rule, and not 2"),
];

#[test]
fn the_files_in_manifests_are_those_of_the_types() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("manifests/crds");
    let mut expected = BTreeSet::new();
    for definition in crd::all() {
        let name = crd::file_name(&definition);
        let kept = fs::read_to_string(folder.join(&name)).unwrap_or_default();
        let made = crd::yaml(&definition).unwrap();
        let line = kept.lines().zip(made.lines()).take_while(|(kept, made)| kept == made).count() + 1;
        assert!(kept == made, "manifests/crds/{name} is not of today, from line {line} on: run `make crds`");
        expected.insert(name);
    }
    let there = fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    assert_eq!(there.collect::<BTreeSet<_>>(), expected, "files without a kind, or kinds without a file");
}

#[test]
fn what_is_written_is_read_as_it_was_meant() {
    for definition in crd::all() {
        let read = parse(&crd::yaml(&definition).unwrap());
        assert!(read == definition, "{} is read as something else", crd::file_name(&definition));
    }
}

/// Walks upstream's definitions and ours side by side.
#[test]
fn the_definitions_say_what_upstreams_say() {
    let Some(data) = shared_data() else { return };
    let ours = crd::all();
    let mut differences = Vec::new();
    let mut compared = 0;
    for file in files(&data.join("crds")) {
        let theirs = parse(&fs::read_to_string(&file).unwrap());
        let name = &theirs["metadata"]["name"];
        let ours = ours.iter().find(|definition| &definition["metadata"]["name"] == name);
        let ours = ours.unwrap_or_else(|| panic!("{name} is missing"));
        compared += compare_definitions(&theirs, ours, &mut differences);
    }
    println!("{} differences in {compared} schemas", differences.len());
    assert!(compared > 3000, "only {compared} schemas were compared");
    let meant: BTreeSet<_> = MEANT.iter().map(|(place, what)| format!("{place} {what}")).collect();
    let found: BTreeSet<_> = differences.into_iter().collect();
    let unmeant: Vec<_> = found.difference(&meant).collect();
    assert!(unmeant.is_empty(), "{} differences that are not meant: {unmeant:#?}", unmeant.len());
    let gone: Vec<_> = meant.difference(&found).collect();
    assert!(gone.is_empty(), "differences that are meant and gone: {gone:#?}");
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let mut files: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}

fn parse(text: &str) -> Value {
    let options = serde_saphyr::options! { budget: None };
    serde_saphyr::from_str_with_options(text, options).unwrap()
}

/// Returns how many schemas were compared.
fn compare_definitions(theirs: &Value, ours: &Value, differences: &mut Vec<String>) -> usize {
    let kind = theirs["spec"]["names"]["kind"].as_str().unwrap();
    for place in
        ["/apiVersion", "/metadata/labels", "/spec/group", "/spec/names", "/spec/scope", "/spec/conversion"]
    {
        if theirs.pointer(place) != ours.pointer(place) {
            differences.push(format!("{kind} {place} differs"));
        }
    }
    let versions = |definition: &Value| definition["spec"]["versions"].as_array().cloned().unwrap();
    assert_eq!(versions(theirs).len(), versions(ours).len(), "versions of {kind}");
    let mut compared = 0;
    for (theirs, ours) in versions(theirs).iter().zip(&versions(ours)) {
        let path = format!("{kind} {}", theirs["name"].as_str().unwrap());
        for key in ["name", "served", "storage", "deprecated", "additionalPrinterColumns", "subresources"] {
            if theirs[key] != ours[key] {
                differences.push(format!("{path} has another `{key}`"));
            }
        }
        if theirs["deprecationWarning"].is_null() != ours["deprecationWarning"].is_null() {
            differences.push(format!("{path} differs in having a warning"));
        }
        let schema = |version: &Value| version["schema"]["openAPIV3Schema"].clone();
        compared += compare(&schema(theirs), &schema(ours), &path, differences);
    }
    compared
}

/// A schema in one form of several that mean the same, without what is for people.
fn normal(schema: &Value) -> Map<String, Value> {
    let mut schema = schema.as_object().unwrap().clone();
    if schema.get("description").is_some_and(Value::is_string) {
        schema.remove("description");
    }
    // A field with a default is never missing.
    if let Some(Value::Array(names)) = schema.remove("required") {
        let defaulted = |name: &Value| !schema["properties"][name.as_str().unwrap()]["default"].is_null();
        let mut names: Vec<_> =
            names.iter().filter(|name| !defaulted(name)).map(ToString::to_string).collect();
        names.sort();
        if !names.is_empty() {
            schema.insert("required".to_owned(), names.into());
        }
    }
    // An enumeration twice over, or a pattern that holds whenever the one after it does.
    if let Some(Value::Array(all)) = schema.remove("allOf")
        && let Some(Value::Object(last)) = all.last()
    {
        let implied = all.iter().all(|part| part == &all[0] && part["pattern"].is_null())
            || all.iter().all(|part| !part["pattern"].is_null());
        assert!(implied, "an allOf that this comparison does not know: {all:?}");
        schema.extend(last.clone());
    }
    if let Some(Value::Array(values)) = schema.get_mut("enum") {
        values.sort_by_key(ToString::to_string);
    }
    schema
}

fn compare(theirs: &Value, ours: &Value, path: &str, differences: &mut Vec<String>) -> usize {
    let mut compared = 1;
    let (theirs, ours) = (normal(theirs), normal(ours));
    let keys: BTreeSet<_> = theirs.keys().chain(ours.keys()).collect();
    let nothing = Value::Null;
    for key in keys {
        let (theirs, ours) = (theirs.get(key).unwrap_or(&nothing), ours.get(key).unwrap_or(&nothing));
        match key.as_str() {
            "properties" => compared += compare_fields(theirs, ours, path, differences),
            "items" if theirs.is_object() && ours.is_object() => {
                compared += compare(theirs, ours, &format!("{path}[]"), differences);
            }
            "additionalProperties" if theirs.is_object() && ours.is_object() => {
                compared += compare(theirs, ours, &format!("{path}{{}}"), differences);
            }
            // What rules mean, an API server has to say; here it counts that they stand in the same places.
            "x-kubernetes-validations" => {
                let count = |rules: &Value| rules.as_array().map_or(0, Vec::len);
                let (theirs, ours) = (count(theirs), count(ours));
                if theirs != ours {
                    let plural = if ours == 1 { "" } else { "s" };
                    differences.push(format!("{path} has {ours} rule{plural}, and not {theirs}"));
                }
            }
            _ if theirs == ours => {}
            _ => differences.push(format!("{path} has `{key}` {ours}, and not {theirs}")),
        }
    }
    compared
}

fn compare_fields(theirs: &Value, ours: &Value, path: &str, differences: &mut Vec<String>) -> usize {
    let nothing = Map::new();
    let (theirs, ours) = (theirs.as_object().unwrap_or(&nothing), ours.as_object().unwrap_or(&nothing));
    let mut compared = 0;
    for (name, field) in theirs {
        match ours.get(name) {
            Some(own) => compared += compare(field, own, &format!("{path}.{name}"), differences),
            None => differences.push(format!("{path}.{name} is missing")),
        }
    }
    let more = ours.keys().filter(|name| !theirs.contains_key(*name));
    differences.extend(more.map(|name| format!("{path}.{name} is not upstream's")));
    compared
}
