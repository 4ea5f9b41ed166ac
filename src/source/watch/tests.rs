//! Changes of every kind, each seen at the next look.

use std::fs;
use std::os::unix::fs::symlink;

use super::super::bundle::hexadecimal;
use super::super::{Accept, Location};
use super::*;

struct Rig {
    dir: tempfile::TempDir,
    slot: Slot,
    watcher: Watcher,
}

impl Rig {
    fn new(location: impl FnOnce(&Path) -> Location) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let slot = Slot::default();
        let source = Source { location: location(dir.path()), accept: Accept::Only("dev".to_owned()) };
        Self { watcher: Watcher::new(source, slot.clone()), slot, dir }
    }

    fn file() -> Self {
        Self::new(|dir| Location::File(dir.join("config.yaml")))
    }

    fn bundle() -> Self {
        Self::new(|dir| Location::Bundle(dir.to_owned()))
    }

    fn write(&self, name: &str, content: &str) {
        let path = self.dir.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }

    fn write_bundle(&self, folder: &str, document: &str) {
        let (first, second) = document.split_at(document.len() / 2);
        self.write(&format!("{folder}parts/000"), first);
        self.write(&format!("{folder}parts/001"), second);
        self.write(&format!("{folder}index.yaml"), &index(document));
    }

    /// The edition in force after another look.
    fn seen(&mut self) -> Option<String> {
        self.watcher.poll();
        self.uuid()
    }

    fn uuid(&self) -> Option<String> {
        let document = self.slot.load()?.document();
        document["uuid"].as_str().map(str::to_owned)
    }

    fn some(&mut self) -> String {
        self.seen().unwrap()
    }
}

fn document(uuid: &str) -> String {
    format!("version: dev\nuuid: {uuid}\n")
}

fn index(document: &str) -> String {
    let sum = hexadecimal(digest(&SHA256, document.as_bytes()).as_ref());
    format!("checksum: {sum}\nparts:\n- {{name: '0', path: parts/000}}\n- {{name: '1', path: parts/001}}\n")
}

#[test]
fn a_file_is_followed_and_a_bad_one_leaves_the_last() {
    let mut rig = Rig::file();
    assert!(matches!(rig.watcher.first(), Err(SourceError::Unreadable { .. })));
    rig.write("config.yaml", &document("1"));
    rig.watcher.first().unwrap();
    assert_eq!(rig.some(), "1");
    for bad in [
        "",
        "uuid: [",
        "version: v9",
        "version: dev\nllmRequestCosts: [{metadataKey: k, type: TotalToken}]",
        "\u{0}",
    ] {
        rig.write("config.yaml", bad);
        assert_eq!(rig.some(), "1", "{bad}");
    }
    fs::remove_file(rig.dir.path().join("config.yaml")).unwrap();
    assert_eq!(rig.some(), "1");
    rig.write("config.yaml", &document("2"));
    assert_eq!(rig.some(), "2");
    // Nothing is published that was published before.
    let generation = rig.slot.generation();
    rig.write("config.yaml", &document("2"));
    assert_eq!((rig.some(), rig.slot.generation()), ("2".to_owned(), generation));
}

#[test]
fn rapid_changes_of_equal_length_are_all_seen() {
    let mut rig = Rig::file();
    for round in 100..300 {
        rig.write("config.yaml", &document(&round.to_string()));
        assert_eq!(rig.some(), round.to_string());
    }
}

#[test]
fn an_older_file_in_its_place_is_seen() {
    let mut rig = Rig::file();
    rig.write("config.yaml", &document("1"));
    rig.write("other.yaml", &document("2"));
    let path = |name: &str| rig.dir.path().join(name);
    let old = SystemTime::now() - Duration::from_secs(3600);
    let age = |name: &str, age: u64| {
        let time = old - Duration::from_secs(age);
        fs::File::options().write(true).open(path(name)).unwrap().set_modified(time).unwrap();
    };
    age("config.yaml", 0);
    age("other.yaml", 60);
    rig.watcher.first().unwrap();
    assert!(rig.watcher.stamps.is_some(), "a file that has settled is not read again");
    fs::rename(rig.dir.path().join("other.yaml"), rig.dir.path().join("config.yaml")).unwrap();
    assert_eq!(rig.some(), "2");
}

#[test]
fn a_bundle_in_the_middle_of_an_update_is_waited_for() {
    let mut rig = Rig::bundle();
    assert!(matches!(rig.watcher.first(), Err(SourceError::Unreadable { .. })), "no index");
    rig.write("index.yaml", &index(&document("1")));
    rig.watcher.first().unwrap();
    assert_eq!(rig.seen(), None);
    rig.write("parts/000", "version");
    rig.write("parts/001", "wrong");
    rig.watcher.first().unwrap();
    assert_eq!(rig.seen(), None);
    rig.write_bundle("", &document("1"));
    assert_eq!(rig.some(), "1");
    // Parts first, index last: between them nothing fits.
    rig.write("parts/001", "else");
    assert_eq!(rig.some(), "1");
    fs::remove_file(rig.dir.path().join("parts/000")).unwrap();
    assert_eq!(rig.some(), "1");
    rig.write_bundle("", &document("2"));
    assert_eq!(rig.some(), "2");
}

#[test]
fn a_bundle_that_never_fits_is_fatal_at_first() {
    let mut rig = Rig::bundle();
    rig.write("index.yaml", "checksum: ''\nparts: [{path: parts/000}]\n");
    assert!(matches!(rig.watcher.first(), Err(SourceError::Index { .. })));
    rig.write("index.yaml", "checksum: aa\nparts: [{path: ../../../etc/passwd}]\n");
    assert!(matches!(rig.watcher.first(), Err(SourceError::Index { .. })));
    rig.write_bundle("", "version: v9\n");
    assert!(matches!(rig.watcher.first(), Err(SourceError::Version { .. })));
    rig.write_bundle("", "version: [\n");
    assert!(matches!(rig.watcher.first(), Err(SourceError::Malformed { .. })));
    fs::create_dir(rig.dir.path().join("parts/002")).unwrap();
    let index = index("").replace("parts/001", "parts/002");
    rig.write("index.yaml", &index);
    assert!(matches!(rig.watcher.first(), Err(SourceError::Unreadable { .. })));
}

#[test]
fn a_volume_of_kubernetes_is_swapped_as_a_whole() {
    let mut rig = Rig::bundle();
    let root = rig.dir.path().to_owned();
    let swap = |to: &str| {
        symlink(to, root.join("..data_tmp")).unwrap();
        fs::rename(root.join("..data_tmp"), root.join("..data")).unwrap();
    };
    rig.write_bundle("..1/", &document("1"));
    rig.write_bundle("..2/", &document("2"));
    swap("..1");
    symlink("..data/index.yaml", root.join("index.yaml")).unwrap();
    symlink("..data/parts", root.join("parts")).unwrap();
    rig.watcher.first().unwrap();
    assert_eq!(rig.some(), "1");
    swap("..2");
    fs::remove_dir_all(root.join("..1")).unwrap();
    assert_eq!(rig.some(), "2");

    // The same with a single file.
    let source = Source { location: Location::File(root.join("config")), accept: Accept::Any };
    rig.write("..2/config", &document("a"));
    rig.write("..3/config", &document("b"));
    symlink("..data/config", root.join("config")).unwrap();
    let mut watcher = Watcher::new(source, rig.slot.clone());
    watcher.first().unwrap();
    assert_eq!(rig.uuid().as_deref(), Some("a"));
    swap("..3");
    watcher.poll();
    assert_eq!(rig.uuid().as_deref(), Some("b"));
}

#[test]
fn half_a_bundle_next_to_links_is_not_taken_for_a_volume() {
    let mut rig = Rig::bundle();
    rig.write("..data/unrelated", "");
    rig.write_bundle("", &document("1"));
    rig.watcher.first().unwrap();
    assert_eq!(rig.some(), "1");
}
