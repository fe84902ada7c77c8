//! `--watch-file`: what the process file says is carried out when it changes, however it does.
use crate::rig::{As, BOTH, Scratch, eventually};
use std::os::unix::fs::symlink;

fn service(name: &str, seconds: u32) -> String {
    format!(r#"{{"name": "{name}", "command": "sleep {seconds}"}}"#)
}

fn pid_of(list: &[serde_json::Value], name: &str) -> serde_json::Value {
    list.iter().find(|row| row["name"] == name).unwrap()["pid"].clone()
}

fn runs(command: &str) -> impl Fn(&[serde_json::Value]) -> bool {
    move |list| list.iter().any(|row| row["command"] == *command && row["status"] == "online")
}

fn readings(scratch: &Scratch) -> usize {
    scratch.read("err").matches("opm: it has changed: reading the file anew\n").count()
}

#[test]
fn a_file_that_changes_is_carried_out_however_an_editor_writes_it() {
    for how in BOTH {
        let scratch = Scratch::new();
        let write = |services: &[String]| scratch.file(&services.join(","));
        let file = write(&[service("a", 91), service("b", 92)]);
        let mut run = scratch.run(how, &["--watch-file", &file]);
        let a = pid_of(&run.online(2), "a");
        // In place.
        write(&[service("a", 91), service("b", 93)]);
        run.when("b is another", runs("sleep 93"));
        // Another file beside it changes nothing.
        std::fs::write(scratch.path("other.json"), "{").unwrap();
        // Renamed over it.
        write(&[service("a", 91), service("b", 94)]);
        std::fs::rename(&file, scratch.path("new")).unwrap();
        write(&[service("a", 91), service("b", 95)]);
        std::fs::rename(scratch.path("new"), &file).unwrap();
        run.when("b is the one that was renamed", runs("sleep 94"));
        // An error, and a file that has gone, change nothing.
        std::fs::write(&file, "{").unwrap();
        scratch.expect("err", "going on with what is known");
        std::fs::remove_file(&file).unwrap();
        assert_eq!(run.online(2).len(), 2);
        write(&[service("a", 91)]);
        let left = run.when("a alone", |list| list.len() == 1);
        assert_eq!(pid_of(&left, "a"), a);
        run.signal(libc::SIGTERM);
        assert_eq!(run.end(), 0);
        assert!(!scratch.read("err").contains("a: exited with code"), "{}", scratch.read("err"));
    }
}

/// As a volume of Kubernetes has it: the file is a link into a directory behind another link.
#[test]
fn a_link_on_the_way_to_the_file_that_is_switched_is_seen() {
    let scratch = Scratch::new();
    for (directory, seconds) in [("first", 81), ("second", 82)] {
        std::fs::create_dir(scratch.path(directory)).unwrap();
        let text = format!(r#"{{"services": [{}]}}"#, service("web", seconds));
        std::fs::write(scratch.path(&format!("{directory}/services.json")), text).unwrap();
    }
    symlink("first", scratch.path("current")).unwrap();
    symlink("current/services.json", scratch.path("services.json")).unwrap();
    let file = scratch.path("services.json");
    let mut run = scratch.run(As::Plain, &["--watch-file", &file]);
    run.when("the first", runs("sleep 81"));
    symlink("second", scratch.path("next")).unwrap();
    std::fs::rename(scratch.path("next"), scratch.path("current")).unwrap();
    run.when("the second", runs("sleep 82"));
    // Nothing else was a change: neither what opm wrote beside it, nor what it read.
    eventually("one reading", || (readings(&scratch) == 1).then_some(()));
    run.signal(libc::SIGTERM);
    assert_eq!(run.end(), 0);
    assert_eq!(readings(&scratch), 1);
}
