//! The rules that keep the crate in layers. `src/lib.rs` lists the modules and names the layers in comments; a module uses
//! only its own folder and lower layers, or its own layer as long as that goes one way.
//!
//! The rules read source text, without comments, texts and tests. Each has a test with a snippet that breaks it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use regex::Regex;

/// The layer from which on I/O is allowed.
const EDGES: u8 = 4;

/// The most lines of a file, tests not counted.
const LINES: usize = 600;

#[test]
fn the_crate_keeps_its_rules() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let layers = Layers::parse(&fs::read_to_string(root.join("src/lib.rs")).unwrap());
    assert!(layers.0.len() > 10, "lib.rs lists modules under comments such as `// L0: data`: {layers:?}");
    let mut problems = Vec::new();
    let mut uses = Uses::new();
    for directory in ["src", "tests", "benches", "fuzz"] {
        for path in rust_files(&root.join(directory)) {
            let name = path.strip_prefix(root).unwrap().to_str().unwrap().to_owned();
            problems.extend(check_name(&name));
            if directory == "src" {
                problems.extend(check_file(&name, &fs::read_to_string(&path).unwrap(), &layers, &mut uses));
            }
        }
    }
    problems.extend(check_circles(&uses));
    assert!(problems.is_empty(), "\n{}\n", problems.join("\n"));
}

fn rust_files(directory: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(directory) else { return Vec::new() };
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    let skip = |path: &PathBuf| path.ends_with("target");
    let (directories, files): (Vec<PathBuf>, Vec<PathBuf>) =
        paths.into_iter().filter(|path| !skip(path)).partition(|path| path.is_dir());
    let rust = files.into_iter().filter(|path| path.extension().is_some_and(|extension| extension == "rs"));
    rust.chain(directories.iter().flat_map(|directory| rust_files(directory))).collect()
}

/// Each module of the crate with its layer.
#[derive(Debug)]
struct Layers(BTreeMap<String, u8>);

impl Layers {
    fn parse(lib: &str) -> Self {
        let comment = Regex::new(r"^// L(\d):").unwrap();
        let module = Regex::new(r"^(?:pub )?mod (\w+);").unwrap();
        let mut layer = None;
        let mut modules = BTreeMap::new();
        for line in lib.lines() {
            if let Some(found) = comment.captures(line) {
                layer = Some(found[1].parse().unwrap());
            } else if let Some(found) = module.captures(line) {
                let layer = layer.unwrap_or_else(|| panic!("`{line}` stands above the first layer"));
                modules.insert(found[1].to_owned(), layer);
            }
        }
        Self(modules)
    }
}

/// Which module uses which others, and where it does first.
type Uses = BTreeMap<String, BTreeMap<String, String>>;

fn check_name(name: &str) -> Option<String> {
    name.ends_with("/mod.rs").then(|| format!("{name}: use `foo.rs` and `foo/` instead of `foo/mod.rs`"))
}

/// All rules for one file of `src`.
fn check_file(name: &str, source: &str, layers: &Layers, uses: &mut Uses) -> Vec<String> {
    if name.ends_with("/tests.rs") || name.contains("/tests/") {
        return Vec::new();
    }
    let code = without_tests(&code_only(source));
    let mut problems = Vec::new();
    let lines = code.lines().filter(|line| *line != TEST_LINE).count();
    if lines > LINES {
        problems.push(format!("{name}: {lines} lines, at most {LINES} are allowed: split it"));
    }
    let parts: Vec<&str> = name.trim_start_matches("src/").trim_end_matches(".rs").split('/').collect();
    let module = parts[0];
    let Some(&layer) = layers.0.get(module) else {
        let known = ["lib", "main", "bin"].contains(&module);
        problems.extend((!known).then(|| format!("{name}: src/lib.rs does not list the module `{module}`")));
        return problems;
    };
    for (line, used) in modules_used(&code, parts.len(), layers) {
        if used == module {
            continue;
        }
        if layers.0[&used] > layer {
            let above = layers.0[&used];
            problems.push(format!(
                "{name}:{line}: `{module}` of L{layer} uses `{used}` of L{above}, which is above"
            ));
        } else {
            let place = format!("{name}:{line}");
            uses.entry(module.to_owned()).or_default().entry(used).or_insert(place);
        }
    }
    let mut forbid = |pattern: &str, why: &str| {
        for found in Regex::new(pattern).unwrap().find_iter(&code) {
            problems.push(format!(
                "{name}:{}: `{}`: {why}",
                line_of(&code, found.start()),
                found.as_str().trim()
            ));
        }
    };
    if layer < EDGES && module != "proto" {
        let why = format!("L0 to L{} do no I/O and read no clock", EDGES - 1);
        forbid(r"\b(tokio|tonic|kube|redis|hyper|axum|rand)\b", &why);
        forbid(r"\basync\b|\.await\b|::now\(\)", &why);
        for (line, path) in paths_from(&code, "std") {
            if ["fs", "net", "env", "process", "thread"].contains(&path[0].as_str()) {
                problems.push(format!("{name}:{line}: `std::{}`: {why}", path[0]));
            }
        }
    }
    if !["extproc", "proto"].contains(&module) {
        for (line, path) in paths_from(&code, "crate") {
            // What a server mounts is no message, and health checking is not Envoy's.
            let mounted = path[1..]
                .starts_with(&["ext_proc".to_owned(), "external_processor_server".to_owned()])
                || path.get(1).is_some_and(|part| part == "health");
            // Nor is the stream of configurations, which has two ends.
            let stream = path.get(1).is_some_and(|part| part == "config_stream")
                && ["source", "push"].contains(&module);
            if path[0] == "proto" && !(mounted && layer == EDGES) && !stream {
                problems.push(format!("{name}:{line}: Envoy's messages stay inside of `extproc`"));
            }
        }
        for found in Regex::new(r"\benvoy_types\b").unwrap().find_iter(&code) {
            let line = line_of(&code, found.start());
            problems.push(format!("{name}:{line}: Envoy's messages stay inside of `extproc`"));
        }
    }
    problems
}

/// Modules that use each other, through others too.
fn check_circles(uses: &Uses) -> Vec<String> {
    let mut problems = Vec::new();
    for start in uses.keys() {
        let mut reached = BTreeSet::new();
        let mut open = vec![start];
        while let Some(module) = open.pop() {
            for (used, place) in uses.get(module).into_iter().flatten() {
                if used == start {
                    problems.push(format!("{place}: `{start}` and `{module}` use each other"));
                } else if reached.insert(used) {
                    open.push(used);
                }
            }
        }
    }
    problems
}

/// The top-level modules that code names, with lines. `depth`: how many modules down from the crate the file is.
fn modules_used(code: &str, depth: usize, layers: &Layers) -> Vec<(usize, String)> {
    let mut paths = paths_from(code, "crate");
    // `super` once for each level leads to the crate as well.
    paths.extend(paths_from(code, &vec!["super"; depth].join("::")));
    let modules = paths.into_iter().map(|(line, path)| (line, path[0].clone()));
    modules.filter(|(_, module)| layers.0.contains_key(module)).collect()
}

/// Every path that begins with `root::`, without it, with its line. Groups in braces are opened.
fn paths_from(code: &str, root: &str) -> Vec<(usize, Vec<String>)> {
    let mut paths = Vec::new();
    for found in Regex::new(&format!(r"\b{root}::")).unwrap().find_iter(code) {
        if !code[..found.start()].ends_with("::") {
            read_path(code, found.end(), &mut Vec::new(), &mut paths);
        }
    }
    paths
}

/// Reads the rest of a path; returns where it ends.
fn read_path(
    code: &str,
    from: usize,
    before: &mut Vec<String>,
    paths: &mut Vec<(usize, Vec<String>)>,
) -> usize {
    let skip_space = |at: usize| at + code[at..].len() - code[at..].trim_start().len();
    let mut at = skip_space(from);
    let depth = before.len();
    loop {
        if code[at..].starts_with('{') {
            at = skip_space(at + 1);
            while at < code.len() && !code[at..].starts_with('}') {
                let end = read_path(code, at, before, paths);
                // On to the next item, past `as name`.
                at = code[end..].find([',', '}']).map_or(code.len(), |length| end + length);
                if code[at..].starts_with(',') {
                    at = skip_space(at + 1);
                }
            }
            before.truncate(depth);
            return (at + 1).min(code.len());
        }
        let name: String =
            code[at..].chars().take_while(|c| c.is_alphanumeric() || *c == '_' || *c == '*').collect();
        at += name.len();
        before.push(name);
        if !code[at..].starts_with("::") || code[at + 2..].starts_with('<') {
            paths.push((line_of(code, from), before.clone()));
            before.truncate(depth);
            return at;
        }
        at = skip_space(at + 2);
    }
}

fn line_of(code: &str, at: usize) -> usize {
    code[..at].matches('\n').count() + 1
}

/// The source with comments and the contents of texts blanked out. Lines stay.
fn code_only(source: &str) -> String {
    let token = Regex::new(
        r####"(?sx)
        (?<comment> //[^\n]* )
        | (?<block> /\* )
        | (?<raw> \b[bc]?r(?<hashes>\#*)" )
        | (?<text> "(?:[^"\\]|\\.)*" )
        | (?<char> '(?:[^'\\\n]|\\(?:[^u]|u\{[^}]*\}))' )
        "####,
    )
    .unwrap();
    let mut out = String::with_capacity(source.len());
    let mut at = 0;
    while let Some(found) = token.captures_at(source, at) {
        let whole = found.get(0).unwrap();
        out.push_str(&source[at..whole.start()]);
        at = if found.name("block").is_some() {
            block_comment_end(source, whole.end())
        } else if let Some(hashes) = found.name("hashes") {
            let close = format!("\"{}", hashes.as_str());
            source[whole.end()..].find(&close).map_or(source.len(), |end| whole.end() + end + close.len())
        } else {
            whole.end()
        };
        let blank =
            if found.name("comment").is_some() || found.name("block").is_some() { "" } else { "\"\"" };
        out.push_str(blank);
        out.extend(source[whole.start()..at].chars().filter(|c| *c == '\n'));
    }
    out.push_str(&source[at..]);
    out
}

/// Block comments nest.
fn block_comment_end(source: &str, mut at: usize) -> usize {
    let mut depth = 1;
    while depth > 0 {
        let Some(next) = source[at..].find("/*").into_iter().chain(source[at..].find("*/")).min() else {
            return source.len();
        };
        depth = if source[at + next..].starts_with("/*") { depth + 1 } else { depth - 1 };
        at += next + 2;
    }
    at
}

/// Stands for a line that belongs to tests.
const TEST_LINE: &str = "#test";

/// Code (see [`code_only`]) with the items under `#[cfg(test)]` blanked out.
fn without_tests(code: &str) -> String {
    const ATTRIBUTE: &str = "#[cfg(test)]";
    let mut out = String::with_capacity(code.len());
    let mut rest = code;
    while let Some(start) = rest.find(ATTRIBUTE) {
        out.push_str(&rest[..start]);
        let mut depth = 0_usize;
        let end = rest[start + ATTRIBUTE.len()..].char_indices().find_map(|(at, c)| {
            depth = match c {
                '{' | '(' | '[' => depth + 1,
                '}' | ')' | ']' => depth.saturating_sub(1),
                _ => depth,
            };
            (depth == 0 && matches!(c, ';' | '}')).then_some(start + ATTRIBUTE.len() + at + 1)
        });
        let end = end.unwrap_or(rest.len());
        let lines = rest[start..end].matches('\n').count();
        out.push_str(TEST_LINE);
        out.push_str(&format!("\n{TEST_LINE}").repeat(lines));
        rest = &rest[end..];
    }
    out.push_str(rest);
    out
}

mod self_test {
    use super::*;

    const LIB: &str = "\
        //! Doc.\n// L0: data\npub mod proto;\npub mod low;\n// L1: more\npub mod mid;\npub mod side;\n\
        // L4: edges\npub mod extproc;\npub mod edge;\n// L5: control\npub mod top;\n\npub mod cli;\n";

    fn check(name: &str, source: &str) -> Vec<String> {
        check_file(name, source, &Layers::parse(LIB), &mut Uses::new())
    }

    #[track_caller]
    fn assert_refused(name: &str, source: &str, expected: &str) {
        let problems = check(name, source);
        assert!(problems.iter().any(|problem| problem.contains(expected)), "{source}\n{problems:?}");
    }

    #[track_caller]
    fn assert_fine(name: &str, source: &str) {
        assert_eq!(check(name, source), [""; 0], "{source}");
    }

    #[test]
    fn layers_are_read_from_lib() {
        let layers = Layers::parse(LIB).0;
        assert_eq!((layers["low"], layers["side"], layers["edge"], layers["cli"]), (0, 1, 4, 5));
    }

    #[test]
    fn using_a_higher_layer_is_refused_however_it_is_written() {
        for source in [
            "use crate::mid;",
            "use crate::mid::Thing;",
            "fn f() -> crate::mid::Thing {}",
            "use crate::{proto, mid::{self, Thing}};",
            "use crate::{low::{a, b::c}, mid as other};",
            "use crate::{\n    low,\n    mid,\n};",
            "use super::mid::Thing;",
            "pub(crate) use crate::mid;",
        ] {
            assert_refused("src/low.rs", source, "`low` of L0 uses `mid` of L1");
        }
        assert_refused(
            "src/low/part.rs",
            "use super::super::mid;",
            "src/low/part.rs:1: `low` of L0 uses `mid`",
        );
        assert_refused("src/edge.rs", "\n\nuse crate::top;", "src/edge.rs:3: `edge` of L4 uses `top` of L5");
    }

    #[test]
    fn using_lower_layers_and_the_own_folder_is_fine() {
        assert_fine("src/mid.rs", "use crate::{low, mid::part};\nuse crate::side;\nuse super::low::b;");
        assert_fine("src/top.rs", "use crate::edge::Thing; use crate::mid::{self, a};");
        assert_fine("src/low/part.rs", "use super::mid; use crate::low::x; use std::{fmt, io::Read};");
        assert_fine("src/main.rs", "use ai_gateway::cli;");
    }

    #[test]
    fn circles_within_a_layer_are_refused() {
        let layers = Layers::parse(LIB);
        let mut uses = Uses::new();
        assert_eq!(check_file("src/mid.rs", "use crate::side;", &layers, &mut uses), [""; 0]);
        assert_eq!(check_circles(&uses), [""; 0]);
        assert_eq!(check_file("src/side/a.rs", "use crate::mid;", &layers, &mut uses), [""; 0]);
        assert_eq!(check_circles(&uses).len(), 2);
    }

    #[test]
    fn input_and_output_below_the_edges_is_refused() {
        for source in [
            "use tokio::sync::Mutex;",
            "fn f(x: tonic::Status) {}",
            "use kube::Client;",
            "fn f() { redis::cmd(); }",
            "fn f() { rand::random(); }",
            "use std::fs;",
            "use std::{fmt, net::IpAddr};",
            "use std::{\n    collections::{BTreeMap, BTreeSet},\n    env,\n};",
            "fn f() { std::thread::spawn(|| ()); }",
            "fn f() { Instant::now(); }",
            "async fn f() {}",
            "fn f() { async move { x.await } }",
        ] {
            assert_refused("src/mid.rs", source, "do no I/O");
            assert!(check("src/edge.rs", source).is_empty(), "{source}");
        }
        assert_fine("src/mid.rs", "use std::{fmt, collections::BTreeMap}; fn now() {} fn asynchronous() {}");
        assert_fine("src/proto.rs", "tonic::include_proto!(\"x\");");
    }

    #[test]
    fn envoys_messages_outside_of_extproc_are_refused() {
        for source in ["use crate::proto::X;", "use crate::{low, proto};", "use envoy_types::pb;"] {
            assert_refused("src/edge.rs", source, "Envoy's messages stay");
            assert_fine("src/extproc/service.rs", source);
        }
        let mounts = "use crate::proto::{health::X, ext_proc::external_processor_server::Y};";
        assert_fine("src/edge.rs", mounts);
        assert_refused("src/mid.rs", mounts, "Envoy's messages stay");
        assert_refused("src/top.rs", mounts, "Envoy's messages stay");
    }

    #[test]
    fn long_files_are_refused_and_their_tests_do_not_count() {
        let long = "fn f() {}\n".repeat(LINES + 1);
        assert_refused("src/mid.rs", &long, "601 lines");
        assert_fine("src/mid.rs", &long["fn f() {}\n".len()..]);
        assert_fine("src/mid.rs", &format!("fn f() {{}}\n#[cfg(test)]\nmod tests {{\n{long}}}\n"));
        assert_fine("src/mid/tests.rs", &long);
        assert_refused("src/main.rs", &long, "601 lines");
    }

    #[test]
    fn mod_rs_is_refused() {
        assert!(check_name("src/mid/mod.rs").is_some() && check_name("tests/it/mod.rs").is_some());
        assert!(check_name("src/mod_rs.rs").is_none());
    }

    #[test]
    fn unlisted_modules_are_refused() {
        assert_refused("src/new.rs", "", "does not list the module `new`");
    }

    #[test]
    fn comments_texts_and_tests_do_not_count() {
        for source in [
            "// use crate::top;\n/* crate::top /* nested */ crate::top */",
            "/// [`crate::top`] and tokio\nfn f() {}",
            r##"const A: &str = "crate::top"; const B: &str = r#"tokio " crate::top"#; const C: char = '"';"##,
            r#"const A: &str = "\"crate::top"; const B: char = '\''; const C: &str = "tokio";"#,
            "fn f<'a>(x: &'a str, y: &'a str) {} // 'tokio",
            "#[cfg(test)]\nmod tests {\n    use crate::top;\n    fn f() { if a { tokio() } }\n}\n",
            "#[cfg(test)]\nuse crate::top;",
        ] {
            assert_fine("src/mid.rs", source);
        }
        assert_refused(
            "src/mid.rs",
            "#[cfg(test)]\nmod tests { fn f() {} }\nuse crate::top;",
            "src/mid.rs:3",
        );
        assert_refused("src/mid.rs", "const A: &str = \"//\"; use crate::top;", "uses `top`");
        assert_refused("src/mid.rs", "const A: char = '\"'; use crate::top; // \"", "uses `top`");
    }
}
