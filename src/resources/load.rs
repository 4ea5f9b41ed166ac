//! Reads what the command line names: files, folders, globs and standard input. The only part that touches the disk.
//!
//! A folder stands for the files in it that end in `.yaml`, `.yml` or `.json`, by name; folders inside it are not entered
//! (as `kubectl -f` does it). A glob is expanded only where no file of that very name exists. `-` is standard input. A
//! file that is named twice is read once.

use std::{
    collections::BTreeSet,
    fs::{self, File},
    io::{self, Read},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    time::SystemTime,
};

use super::Source;
use crate::diagnostics::{Diagnostic, Diagnostics};

/// Larger files are refused.
const MAX_BYTES: u64 = 16 << 20;
/// The endings by which files in folders are recognised.
const ENDINGS: [&str; 3] = ["yaml", "yml", "json"];

/// The texts that the arguments name, in the order of the arguments, and what could not be read.
#[must_use]
pub fn load(arguments: &[String], stdin: &mut dyn Read) -> (Vec<Source>, Diagnostics) {
    let (named, mut findings) = expand(arguments);
    let mut sources = Vec::with_capacity(named.len());
    for named in named {
        let (name, text) = match named {
            Named::Stdin => ("<stdin>".to_owned(), read(&mut *stdin)),
            Named::File(path) => {
                let file = File::open(&path).map_err(|error| Unreadable::from(&error));
                (path.display().to_string(), file.and_then(|mut file| read(&mut file)))
            }
        };
        match text {
            Ok(text) => sources.push(Source::new(&name, text)),
            Err(Unreadable { message, help }) => findings.push(failure(&name, &message, help)),
        }
    }
    (sources, findings)
}

/// How a file looked from outside when it was last looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stamp {
    path: PathBuf,
    /// Nothing, if it could not be looked at.
    state: Option<(SystemTime, u64, u64)>,
}

/// The files that the arguments name, as they look from outside: whoever sees two different answers should [`load`] again. The
/// system's clock for files has to tick between two writes of the same length for both to be seen.
#[must_use]
pub fn stamps(arguments: &[String]) -> Vec<Stamp> {
    let files = expand(arguments).0.into_iter().filter_map(|named| match named {
        Named::Stdin => None,
        Named::File(path) => Some(path),
    });
    let state = |path: &Path| {
        let metadata = fs::metadata(path).ok()?;
        Some((metadata.modified().ok()?, metadata.len(), metadata.ino()))
    };
    files.map(|path| Stamp { state: state(&path), path }).collect()
}

/// One thing to be read.
enum Named {
    Stdin,
    File(PathBuf),
}

/// What the arguments name, each once.
fn expand(arguments: &[String]) -> (Vec<Named>, Diagnostics) {
    let mut expansion = Expansion { named: Vec::new(), findings: Diagnostics::new(), seen: BTreeSet::new() };
    for argument in arguments {
        match argument.as_str() {
            "-" if !expansion.seen.insert(PathBuf::from("-")) => {}
            "-" => expansion.named.push(Named::Stdin),
            path => expansion.path(path),
        }
    }
    (expansion.named, expansion.findings)
}

struct Expansion {
    named: Vec<Named>,
    findings: Diagnostics,
    seen: BTreeSet<PathBuf>,
}

impl Expansion {
    fn path(&mut self, argument: &str) {
        let path = Path::new(argument);
        if path.is_dir() {
            return self.folder(path);
        }
        if path.exists() || !argument.contains(['*', '?', '[']) {
            return self.file(path);
        }
        let matches: Vec<PathBuf> = match glob::glob(argument) {
            Ok(matches) => matches.filter_map(Result::ok).collect(),
            Err(error) => {
                return self.fail(argument, &error.to_string(), "write a pattern such as `config/*.yaml`");
            }
        };
        if matches.is_empty() {
            return self.fail(argument, "nothing matches", "check the pattern and the current directory");
        }
        for path in matches {
            if path.is_dir() { self.folder(&path) } else { self.file(&path) }
        }
    }

    fn folder(&mut self, path: &Path) {
        let name = path.display().to_string();
        let entries = match fs::read_dir(path).and_then(Iterator::collect::<io::Result<Vec<_>>>) {
            Ok(entries) => entries,
            Err(error) => return self.fail(&name, &error.to_string(), "check that it can be read"),
        };
        let mut files: Vec<PathBuf> =
            entries.into_iter().map(|entry| entry.path()).filter(|path| is_resource(path)).collect();
        files.sort();
        if files.is_empty() {
            let help = "files must end in .yaml, .yml or .json; folders inside it are not entered";
            return self.fail(&name, "there are no resource files in this folder", help);
        }
        files.iter().for_each(|file| self.file(file));
    }

    fn file(&mut self, path: &Path) {
        if self.seen.insert(path.canonicalize().unwrap_or_else(|_| path.to_owned())) {
            self.named.push(Named::File(path.to_owned()));
        }
    }

    fn fail(&mut self, name: &str, message: &str, help: &str) {
        self.findings.push(failure(name, message, help));
    }
}

fn failure(name: &str, message: &str, help: &str) -> Diagnostic {
    Diagnostic::error(format!("{name}: {message}")).help(help)
}

/// Why a file has no text.
struct Unreadable {
    message: String,
    help: &'static str,
}

impl From<&io::Error> for Unreadable {
    fn from(error: &io::Error) -> Self {
        Self { message: error.to_string(), help: "check the name and that it can be read" }
    }
}

fn read(reader: &mut dyn Read) -> Result<String, Unreadable> {
    let mut bytes = Vec::new();
    reader.take(MAX_BYTES + 1).read_to_end(&mut bytes).map_err(|error| Unreadable::from(&error))?;
    if bytes.len() as u64 > MAX_BYTES {
        return Err(Unreadable {
            message: "the file is larger than 16 MiB".to_owned(),
            help: "split it, or name the files that hold resources",
        });
    }
    String::from_utf8(bytes).map_err(|_| Unreadable {
        message: "the file is not UTF-8 text".to_owned(),
        help: "resources are written in YAML or JSON",
    })
}

fn is_resource(path: &Path) -> bool {
    path.is_file()
        && path.extension().and_then(|ending| ending.to_str()).is_some_and(|ending| ENDINGS.contains(&ending))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(arguments: &[&str], stdin: &str) -> (Vec<String>, Diagnostics) {
        let arguments: Vec<String> = arguments.iter().map(|argument| (*argument).to_owned()).collect();
        let (sources, findings) = load(&arguments, &mut stdin.as_bytes());
        (sources.iter().map(|source| source.name().to_owned()).collect(), findings)
    }

    fn folder(files: &[&str]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for file in files {
            let path = folder.path().join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "a: 1\n").unwrap();
        }
        folder
    }

    #[test]
    fn folder_stands_for_its_resource_files_by_name() {
        let folder = folder(&["b.yml", "a.yaml", "c.json", "notes.md", "deep/d.yaml"]);
        let path = folder.path().to_str().unwrap();
        let (found, findings) = names(&[path], "");
        assert!(findings.is_empty());
        assert_eq!(found, ["a.yaml", "b.yml", "c.json"].map(|name| format!("{path}/{name}")));
    }

    #[test]
    fn file_named_twice_is_read_once() {
        let folder = folder(&["a.yaml"]);
        let path = folder.path().to_str().unwrap();
        let (found, _) = names(&[path, &format!("{path}/a.yaml"), &format!("{path}/*.yaml")], "");
        assert_eq!(found.len(), 1);
    }

    #[test]
    fn glob_is_expanded_unless_a_file_has_that_name() {
        let folder = folder(&["x[1].yaml", "x1.yaml", "x2.yaml"]);
        let path = folder.path().to_str().unwrap();
        assert_eq!(names(&[&format!("{path}/x[1].yaml")], "").0, [format!("{path}/x[1].yaml")]);
        assert_eq!(names(&[&format!("{path}/x?.yaml")], "").0.len(), 2);
    }

    #[test]
    fn dash_is_standard_input() {
        let (found, findings) = names(&["-", "-"], "a: 1");
        assert!(findings.is_empty());
        assert_eq!(found, ["<stdin>"]);
    }

    #[test]
    fn everything_that_cannot_be_read_is_named() {
        let folder = folder(&["empty/notes.md"]);
        let path = folder.path().to_str().unwrap();
        fs::write(folder.path().join("latin1.yaml"), [b'a', 0xe9]).unwrap();
        let arguments = [
            &format!("{path}/gone.yaml"),
            &format!("{path}/*.toml"),
            &format!("{path}/empty"),
            &format!("{path}/latin1.yaml"),
        ];
        let (found, findings) = names(&arguments.map(String::as_str), "");
        assert!(found.is_empty());
        let messages = findings.render(false);
        for expected in
            ["gone.yaml: No such file", "*.toml: nothing matches", "no resource files", "not UTF-8"]
        {
            assert!(messages.contains(expected), "{expected} is not in\n{messages}");
        }
    }

    #[test]
    fn huge_input_is_refused_without_being_held() {
        let mut endless = io::repeat(b'#');
        let (sources, findings) = load(&["-".to_owned()], &mut endless);
        assert!(sources.is_empty());
        assert!(findings.render(false).contains("larger than 16 MiB"));
    }
}
