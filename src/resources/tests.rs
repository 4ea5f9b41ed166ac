//! Tests of the reader as a whole.

use std::{fs, path::PathBuf};

use super::{Snapshot, Source, parse};
use crate::diagnostics::Diagnostics;

/// The folder of test data beside the checkout, if it is there.
fn shared(folder: &str) -> Option<PathBuf> {
    let root = std::env::var_os("AIGW_SHARED_DATA")
        .map_or_else(|| PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../shared/data")), PathBuf::from);
    let folder = root.join(folder);
    let there = folder.is_dir();
    if !there {
        println!("SKIPPED: {} is not there", folder.display());
    }
    there.then_some(folder)
}

fn yaml_files(folder: PathBuf) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![folder];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "yaml") {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}

fn read(path: &PathBuf) -> (Snapshot, Diagnostics) {
    let name = path.file_name().unwrap().to_str().unwrap();
    parse([Source::new(name, fs::read_to_string(path).unwrap())], &|_| None)
}

#[test]
fn every_example_loads_without_errors() {
    for folder in ["examples", "seed"] {
        let Some(folder) = shared(folder) else { continue };
        for path in yaml_files(folder) {
            // Helm values are no resources.
            if path.to_str().unwrap().contains("values-addon") {
                continue;
            }
            let (_, findings) = read(&path);
            assert!(!findings.has_errors(), "{}:\n{}", path.display(), findings.render(false));
            println!("{}\n{}", path.display(), findings.render(false));
        }
    }
}
