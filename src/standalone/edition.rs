//! Which edition of the user's files is served: the newest that is not worse than the one before.

use std::collections::{BTreeMap, BTreeSet};

use crate::compile::{CompileOptions, Compiled};
use crate::diagnostics::{Diagnostic, Diagnostics};
use crate::resources::{Memory, Source};

use super::input;

/// One edition: the texts, what they compile to, and the errors in them that are lived with.
pub(super) struct Edition {
    sources: Vec<Source>,
    errors: BTreeSet<Problem>,
    pub(super) compiled: Compiled,
}

/// An error, apart from the line it is on: lines move when something else is edited.
type Problem = (String, Option<String>, Option<String>);

/// What became of an attempt to read the files again.
pub(super) struct Attempt {
    /// What is to be served now; nothing if that is what is served already.
    pub(super) edition: Option<Edition>,
    /// Everything there is to say about the files as they are.
    pub(super) findings: Diagnostics,
    /// Why not all of them are served as they are, if so.
    pub(super) kept: Option<String>,
}

impl Edition {
    /// The first edition: errors take out what they are in and nothing else.
    pub(super) fn first(
        sources: Vec<Source>,
        options: &CompileOptions,
        memory: &mut Memory,
    ) -> (Self, Diagnostics) {
        let (snapshot, mut findings) = input::parse_again(sources.clone(), memory);
        let (compiled, more) = input::compile(&snapshot, options);
        findings.extend(more);
        (Self { sources, errors: problems(&findings), compiled }, findings)
    }

    /// The edition that follows this one, given the files as they are. A file with an error it did not have before counts as
    /// it was; if the rest then does not fit together, everything stays as it is.
    pub(super) fn next(
        &self,
        sources: Vec<Source>,
        unread: Diagnostics,
        options: &CompileOptions,
        memory: &mut Memory,
    ) -> Attempt {
        let mut kept_files = BTreeSet::new();
        let mut sources = sources;
        if unread.has_errors() {
            // A file that cannot be read is not one that was removed.
            let known: BTreeSet<String> = sources.iter().map(|source| source.name().to_owned()).collect();
            let lost = self.sources.iter().filter(|source| !known.contains(source.name()));
            for source in lost {
                kept_files.insert(source.name().to_owned());
                sources.push(source.clone());
            }
        }
        let (mut snapshot, found) = input::parse_again(sources.clone(), memory);
        let bad: BTreeSet<&str> =
            found.errors().filter(|error| !self.errors.contains(&problem(error))).filter_map(file).collect();
        if !bad.is_empty() {
            let before: BTreeMap<&str, &Source> =
                self.sources.iter().map(|source| (source.name(), source)).collect();
            for source in &mut sources {
                if bad.contains(source.name())
                    && let Some(before) = before.get(source.name())
                {
                    kept_files.insert(source.name().to_owned());
                    *source = (*before).clone();
                }
            }
            snapshot = input::parse_again(sources.clone(), memory).0;
        }
        let (compiled, more) = input::compile(&snapshot, options);
        let mut findings = unread;
        findings.extend(found);
        let worse = more.errors().any(|error| !self.errors.contains(&problem(error)));
        findings.extend(more);
        if worse || !compiled.serves() {
            let kept = "the configuration stays as it was: the files do not fit together".to_owned();
            return Attempt { edition: None, findings, kept: Some(kept) };
        }
        let same = compiled.envoy == self.compiled.envoy && compiled.config_equals(&self.compiled);
        let errors = problems(&findings);
        let edition = (!same).then(|| Self { sources, errors, compiled });
        let kept = (!kept_files.is_empty()).then(|| {
            let files: Vec<String> = kept_files.into_iter().collect();
            format!("what was in force before is kept of: {}", files.join(", "))
        });
        Attempt { edition, findings, kept }
    }
}

fn problems(findings: &Diagnostics) -> BTreeSet<Problem> {
    findings.errors().map(problem).collect()
}

fn problem(error: &Diagnostic) -> Problem {
    (error.message.clone(), error.resource.clone(), error.field.clone())
}

fn file(error: &Diagnostic) -> Option<&str> {
    error.at.as_ref().map(|at| &*at.file)
}
